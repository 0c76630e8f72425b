//! How pods stand, and how they ended.

use mesos_proto::v1::TaskState;
use serde_json::{Value, json};

use crate::world::World;

fn failing(id: &str) -> Value {
    json!({"id": id, "containers": [
        {"name": "one", "exec": {"command": {"shell": "exit 4"}}, "resources": {"cpus": 0.1, "mem": 32}},
        {"name": "two", "exec": {"command": {"shell": "sleep 1"}}, "resources": {"cpus": 0.1, "mem": 32}}
    ], "scheduling": {"backoff": {"backoff": 3_600, "maxLaunchDelay": 3_600}}})
}

#[tokio::test]
async fn a_pod_that_fails_is_still_seen_with_why_it_failed() {
    let world = World::new().await;
    world.post("/v2/pods", failing("/pod")).await.is(201);
    let path = "/v2/pods/pod::status";
    let status = world.until(path, |it| it["terminationHistory"].as_array().is_some_and(|all| !all.is_empty())).await;
    let history = status["terminationHistory"].as_array().unwrap();
    assert_eq!(history.len(), 1);
    let ended = &history[0];
    assert_eq!(ended["message"], "Command exited with status 4");
    assert!(ended["startedAt"].as_str().unwrap() <= ended["terminatedAt"].as_str().unwrap(), "{ended}");
    let containers = ended["containers"].as_array().unwrap();
    assert!(containers[0]["containerId"].as_str().unwrap().ends_with(".one.1"), "{ended}");
    assert_eq!(containers[0]["lastKnownState"], "TASK_FAILED");
    assert_eq!(containers[0]["termination"], json!({"exitCode": 4, "message": "Command exited with status 4"}));
    assert_eq!(containers[1]["lastKnownState"], "TASK_KILLED");
    assert_eq!(containers[1]["termination"].get("exitCode"), None);
    // It waits to be launched again, and is listed with what became of it.
    let instance = &status["instances"][0];
    assert_eq!(instance["id"], ended["instanceID"]);
    assert_eq!(instance["status"], "PENDING");
    assert!(instance["agentHostname"].as_str().unwrap().starts_with("127.0.0."), "{instance}");
    assert_eq!(instance["containers"][0]["name"], "one");
    assert_eq!(instance["containers"][0]["status"], "TASK_FAILED");
    assert_eq!(instance["containers"][0]["termination"]["exitCode"], 4);
    assert_eq!(status["status"], "DEGRADED");
    // All of it outlives the Marathon that saw it.
    let (master, store) = world.stop().await;
    let world = World::on(master, store, |settings| settings.masters.clear()).await;
    let after = world.get(path).await.is(200);
    assert_eq!(after["terminationHistory"], status["terminationHistory"]);
    assert_eq!(after["instances"][0]["id"], instance["id"]);
    assert_eq!(after["instances"][0]["containers"][0]["termination"], instance["containers"][0]["termination"]);
}

#[tokio::test]
async fn an_instance_that_never_was_launched_is_not_listed() {
    let world = World::new().await;
    let mut huge = failing("/huge");
    huge["containers"][0]["resources"]["cpus"] = json!(100);
    world.post("/v2/pods", huge).await.is(201);
    world.until("/v2/queue", |it| it["queue"][0]["count"] == 1).await;
    let status = world.get("/v2/pods/huge::status").await.is(200);
    assert_eq!((&status["instances"], &status["terminationHistory"]), (&json!([]), &json!([])));
}

#[tokio::test]
async fn the_history_of_a_pod_is_short_and_begins_with_the_latest() {
    let world = World::new().await;
    let mut pod = failing("/loop");
    pod["scheduling"]["backoff"] = json!({"backoff": 0});
    world.post("/v2/pods", pod).await.is(201);
    let launch = |it: &Value, at: usize| {
        let id = it["terminationHistory"][at]["containers"][0]["containerId"].as_str().unwrap_or_default().to_owned();
        id.rsplit_once('.').and_then(|(_, launch)| launch.parse::<u32>().ok()).unwrap_or_default()
    };
    let status = world.until("/v2/pods/loop::status", move |it| launch(it, 0) >= 7).await;
    let launches: Vec<u32> = (0..status["terminationHistory"].as_array().unwrap().len()).map(|at| launch(&status, at)).collect();
    let latest = launches[0];
    assert_eq!(launches, (0..5).map(|back| latest - back).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_was_killed_on_demand_is_not_told_as_a_failure() {
    let world = World::new().await;
    let mut pod = failing("/calm");
    pod["containers"][0]["exec"]["command"]["shell"] = json!("sleep 1");
    world.post("/v2/pods", pod).await.is(201);
    let status = world.until("/v2/pods/calm::status", |it| it["status"] == "STABLE").await;
    let instance = status["instances"][0]["id"].as_str().unwrap();
    world.delete(&format!("/v2/pods/calm::instances/{instance}")).await.is(200);
    let second = |it: &Value| it["instances"][0]["containers"][0]["containerId"].as_str().is_some_and(|id| id.ends_with(".one.2"));
    let status = world.until("/v2/pods/calm::status", move |it| it["status"] == "STABLE" && second(it)).await;
    assert_eq!(status["terminationHistory"], json!([]));
}

#[tokio::test]
async fn an_earlier_failure_is_not_shown_as_the_end_of_a_later_launch() {
    let world = World::new().await;
    let mut pod = failing("/twice");
    pod["containers"][0]["exec"]["command"]["shell"] = json!("sleep 1");
    pod["scheduling"]["backoff"] = json!({"backoff": 0});
    world.post("/v2/pods", pod).await.is(201);
    let path = "/v2/pods/twice::status";
    let status = world.until(path, |it| it["status"] == "STABLE").await;
    let task = status["instances"][0]["containers"][0]["containerId"].as_str().unwrap().to_owned();
    world.master.update(&task, TaskState::TaskFailed, "Command exited with status 9");
    world.master.end_siblings(&task);
    let second = |it: &Value| it["instances"][0]["containers"][0]["containerId"].as_str().is_some_and(|id| id.ends_with(".one.2"));
    let status = world.until(path, move |it| it["status"] == "STABLE" && second(it)).await;
    assert_eq!(status["terminationHistory"][0]["containers"][0]["termination"]["exitCode"], 9);
    world.master.withhold();
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let instance = status["instances"][0]["id"].as_str().unwrap();
    world.delete(&format!("/v2/pods/twice::instances/{instance}")).await.is(200);
    let status = world.until(path, |it| it["instances"][0]["status"] == "PENDING").await;
    assert_eq!(status["instances"][0]["containers"], json!([]));
    assert_eq!(status["terminationHistory"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn endpoints_have_the_ports_that_their_network_asks_for() {
    let world = World::new().await;
    let pod = |networks: Value, endpoint: Value| {
        json!({
            "id": "/ends", "networks": networks, "scaling": {"kind": "fixed", "instances": 0},
            "containers": [{"name": "c", "resources": {"cpus": 0.1, "mem": 16}, "endpoints": [endpoint]}]
        })
    };
    let made = async |networks: Value, endpoint: Value| {
        let made = world.post("/v2/pods", pod(networks, endpoint)).await.is(201)["containers"][0]["endpoints"][0].clone();
        world.delete("/v2/pods/ends").await.is(202);
        world.settled().await;
        (made["containerPort"].clone(), made["hostPort"].clone())
    };
    let bare = json!({"name": "web"});
    assert_eq!(made(json!([{"mode": "host"}]), bare.clone()).await, (Value::Null, json!(0)));
    assert_eq!(made(json!([{"mode": "container/bridge"}]), bare.clone()).await, (Value::Null, json!(0)));
    let net = json!([{"mode": "container", "name": "n"}]);
    let mapped = json!({"name": "web", "containerPort": 80});
    assert_eq!(made(net.clone(), mapped.clone()).await, (json!(80), Value::Null));
    for (networks, endpoint, expected) in [
        (net, bare, "is required when using container-mode networking"),
        (json!([{"mode": "host"}]), mapped, "is not allowed when using host-mode networking"),
    ] {
        let error = world.post("/v2/pods", pod(networks, endpoint)).await.is(422);
        assert_eq!(error["details"], json!([{"path": "/containers(0)/endpoints(0)/containerPort", "errors": [expected]}]));
    }
    world.delete("/v2/pods/ends::instances/bad").await.is(422);
    world.delete("/v2/pods/ends::instances/ends.instance-6f1c2d3e-0000-11ea-8d71-362b9e155667").await.is(404);
}
