use std::time::Duration;

use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn an_app_is_posted_runs_is_scaled_and_goes() {
    let world = World::new().await;
    let answer = world.post("/v2/apps", json!({"id": "/grp/web", "cmd": "sleep 1000", "cpus": 0.1, "mem": 32, "instances": 2})).await;
    let deployment = answer.headers.get("marathon-deployment-id").unwrap().to_str().unwrap().to_owned();
    assert!(answer.headers.get("location").unwrap().to_str().unwrap().ends_with("/grp/web"));
    let made = answer.is(201);
    assert_eq!(made["deployments"], json!([{"id": deployment}]));
    assert_eq!(made["portDefinitions"][0]["port"], 10_000);
    assert_eq!(made["tasksRunning"], 0);
    let app = world.until("/v2/apps//grp/web", |it| it["app"]["tasksRunning"] == 2).await;
    world.settled().await;
    let task = &app["app"]["tasks"][0];
    assert_eq!(task["state"], "TASK_RUNNING");
    assert_eq!(task["ipAddresses"][0]["ipAddress"], "10.9.8.7");
    assert!(task["id"].as_str().unwrap().starts_with("grp_web.instance-"));
    assert!(task["id"].as_str().unwrap().ends_with("._app.1"));
    let info = &world.master.task_infos()[0];
    assert_eq!(info.name, "web.grp");
    let variable = |name: &str| {
        info.command
            .as_ref()
            .unwrap()
            .environment
            .as_ref()
            .unwrap()
            .variables
            .iter()
            .find(|it| it.name == name)
            .and_then(|it| it.value.clone())
    };
    assert_eq!(variable("MARATHON_APP_ID").unwrap(), "/grp/web");
    assert!(variable("PORT0").is_some() && variable("PORT_10000").is_some() && variable("HOST").is_some());

    world.put("/v2/apps/grp/web", json!({"instances": 5})).await.is(200);
    world.settled().await;
    assert_eq!(world.master.running(), 5);
    world.put("/v2/apps/grp/web", json!({"instances": 1})).await.is(200);
    world.settled().await;
    assert_eq!(world.master.running(), 1);
    world.put("/v2/apps/grp/web", json!({"cmd": "sleep 2000"})).await.is(200);
    world.settled().await;
    assert_eq!(world.master.running(), 1);
    assert_eq!(world.master.task_infos()[0].command.as_ref().unwrap().value.as_deref(), Some("sleep 2000"));
    let versions = world.get("/v2/apps/grp/web/versions").await.is(200);
    assert_eq!(versions["versions"].as_array().unwrap().len(), 4);
    world.put("/v2/apps/grp/web", json!({"version": versions["versions"][3]})).await.is(200);
    world.settled().await;
    assert_eq!(world.master.running(), 2);
    world.delete("/v2/apps/grp/web").await.is(200);
    world.settled().await;
    assert_eq!(world.master.running(), 0);
    world.get("/v2/apps/grp/web").await.is(404);
    assert!(world.master.calls().contains(&"ACKNOWLEDGE".to_owned()));
}

#[tokio::test]
async fn a_crash_loop_is_backed_off_and_seen_in_the_queue() {
    let world = World::new().await;
    world.post("/v2/apps", json!({"id": "/crash", "cmd": "exit 1", "cpus": 0.1, "mem": 32, "backoffSeconds": 3600})).await.is(201);
    let app = world.until("/v2/apps/crash", |it| it["app"]["lastTaskFailure"].is_object()).await;
    assert_eq!(app["app"]["lastTaskFailure"]["state"], "TASK_FAILED");
    assert_eq!(app["app"]["lastTaskFailure"]["message"], "Command exited with status 1");
    let queue = world.until("/v2/queue", |it| it["queue"][0]["delay"]["overdue"] == false).await;
    assert!(queue["queue"][0]["delay"]["timeLeftSeconds"].as_u64().unwrap() > 250, "{queue}");
    assert_eq!(queue["queue"][0]["count"], 1);
    assert_eq!(queue["queue"][0].get("role"), None);
    world.delete("/v2/queue/crash/delay").await.is(204);
    world.delete("/v2/queue/nope/delay").await.is(404);
    // What fits nowhere is waited for, and can be stopped.
    world.post("/v2/apps", json!({"id": "/huge", "cmd": "sleep 1", "cpus": 100, "mem": 32})).await.is(201);
    world.until("/v2/deployments", |it| it.as_array().is_some_and(|it| it.len() == 1)).await;
    let deployments = world.get("/v2/deployments").await.is(200);
    let id = deployments[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(deployments[0]["currentActions"][0]["action"], "ScaleApplication");
    world.put("/v2/apps/huge", json!({"instances": 2})).await.is(409);
    world.delete(&format!("/v2/deployments/{id}?force=true")).await.is(202);
    world.delete(&format!("/v2/deployments/{id}")).await.is(404);
}

#[tokio::test]
async fn why_nothing_fits_is_told() {
    let world = World::new().await;
    world.post("/v2/apps", json!({"id": "/big", "cmd": "sleep 1", "cpus": 100, "mem": 32})).await.is(201);
    let queue = world
        .until("/v2/queue?embed=lastUnusedOffers", |it| it["queue"][0]["lastUnusedOffers"].as_array().is_some_and(|it| it.len() == 4))
        .await;
    let item = &queue["queue"][0];
    assert_eq!(item["lastUnusedOffers"][0]["reason"], json!(["InsufficientCpus"]));
    assert_eq!(
        item["processedOffersSummary"]["rejectSummaryLastOffers"][4],
        json!({"reason": "InsufficientCpus", "declined": 4, "processed": 4})
    );
    assert_eq!(
        item["processedOffersSummary"]["rejectSummaryLastOffers"][5],
        json!({"reason": "InsufficientMemory", "declined": 0, "processed": 0})
    );
}

#[tokio::test]
async fn a_killed_task_is_replaced_or_the_app_shrinks() {
    let world = World::new().await;
    world.post("/v2/apps", json!({"id": "/a", "cmd": "sleep 1", "cpus": 0.1, "mem": 32, "instances": 3})).await.is(201);
    world.settled().await;
    let tasks = world.get("/v2/apps/a/tasks").await.is(200);
    let first = tasks["tasks"][0]["id"].as_str().unwrap().to_owned();
    let killed = world.delete(&format!("/v2/apps/a/tasks/{first}")).await.is(200);
    assert_eq!(killed["task"]["id"], first.as_str());
    let again = first.replace("._app.1", "._app.2");
    let app = world.until("/v2/apps/a", |it| it["app"]["tasksRunning"] == 3).await;
    assert!(app["app"]["tasks"].as_array().unwrap().iter().any(|it| it["id"] == again.as_str() || it["id"] == first.as_str()));
    let tasks = world
        .until("/v2/apps/a/tasks", move |it| {
            it["tasks"].as_array().unwrap().iter().any(|it| it["id"] == again.as_str() && it["state"] == "TASK_RUNNING")
        })
        .await;
    let ids = json!({"ids": [tasks["tasks"][0]["id"], tasks["tasks"][1]["id"]]});
    let answer = world.post("/v2/tasks/delete?scale=true", ids).await.is(200);
    assert!(answer["deploymentId"].is_string());
    world.settled().await;
    let app = world.get("/v2/apps/a").await.is(200);
    assert_eq!((app["app"]["instances"].as_u64(), app["app"]["tasksRunning"].as_u64()), (Some(1), Some(1)));
    world.post("/v2/tasks/delete", json!({"ids": ["nonsense"]})).await.is(400);
    world.delete("/v2/apps/a/tasks?scale=true&wipe=true").await.is(400);
}

#[tokio::test]
async fn a_lost_agent_and_a_lost_master_are_survived() {
    let world = World::new().await;
    let app = json!({"id": "/a", "cmd": "sleep 1", "cpus": 0.1, "mem": 32, "instances": 4, "constraints": [["hostname", "UNIQUE"]]});
    world.post("/v2/apps", app).await.is(201);
    world.settled().await;
    world.put("/v2/apps/a", json!({"instances": 3})).await.is(200);
    world.settled().await;
    world.master.lose_agent(0);
    world.master.cut();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let app = world.until("/v2/apps/a", |it| it["app"]["tasksRunning"] == 3).await;
    let hosts: Vec<_> = app["app"]["tasks"].as_array().unwrap().iter().map(|it| it["host"].as_str().unwrap().to_owned()).collect();
    assert!(!hosts.contains(&"127.0.0.1".to_owned()) || hosts.len() == 3, "{hosts:?}");
    world.until("/v2/info", |it| it["frameworkId"] == "f-0001").await;
}

#[tokio::test]
async fn everything_goes_on_after_a_restart() {
    let world = World::new().await;
    world.post("/v2/apps", json!({"id": "/a/b", "cmd": "sleep 1", "cpus": 0.1, "mem": 32, "instances": 2})).await.is(201);
    world.settled().await;
    world.post("/v2/apps", json!({"id": "/a/never", "cmd": "sleep 1", "cpus": 100, "mem": 32})).await.is(201);
    let before = world.get("/v2/apps?embed=apps.tasks").await.is(200);
    let groups = world.get("/v2/groups").await.is(200);
    let deployments = world.get("/v2/deployments").await.is(200);
    let (master, store) = world.stop().await;
    let world = World::on(master, store, |_| {}).await;
    let after = world.get("/v2/apps?embed=apps.tasks").await.is(200);
    assert_eq!(after, before);
    assert_eq!(world.get("/v2/groups").await.is(200), groups);
    assert_eq!(world.get("/v2/deployments").await.is(200)[0]["id"], deployments[0]["id"]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.master.running(), 2, "nothing is killed or launched by a restart");
    world.put("/v2/apps/a/never?force=true", json!({"cpus": 1})).await.is(200);
    world.settled().await;
    assert_eq!(world.master.running(), 3);
}

#[tokio::test]
async fn pods_run_as_groups_of_tasks() {
    let world = World::new().await;
    let pod = json!({"id": "/pod", "containers": [
        {"name": "one", "exec": {"command": {"shell": "sleep 1"}}, "resources": {"cpus": 0.1, "mem": 32}, "endpoints": [{"name": "web", "hostPort": 0}]},
        {"name": "two", "exec": {"command": {"shell": "sleep 2"}}, "resources": {"cpus": 0.1, "mem": 32}}
    ], "networks": [{"mode": "host"}], "scaling": {"kind": "fixed", "instances": 2}});
    assert_eq!(world.send("HEAD", "/v2/pods", &[], "").await.status, 200);
    let answer = world.post("/v2/pods", pod.clone()).await;
    assert!(answer.headers.contains_key("marathon-deployment-id"));
    answer.is(201);
    let status = world.until("/v2/pods/pod::status", |it| it["status"] == "STABLE").await;
    assert_eq!(status["instances"].as_array().unwrap().len(), 2);
    assert_eq!(status["instances"][0]["containers"][1]["status"], "TASK_RUNNING");
    world.settled().await;
    assert_eq!(world.master.running(), 4);
    world.post("/v2/pods", pod.clone()).await.is(409);
    world.get("/v2/pods/nope").await.is(404);
    let instance = status["instances"][0]["id"].as_str().unwrap();
    let killed = world.delete(&format!("/v2/pods/pod::instances/{instance}")).await.is(200);
    assert_eq!(killed["instanceId"], instance);
    assert_eq!(world.get("/v2/pods/pod::versions").await.is(200).as_array().unwrap().len(), 1);
    let answer = world.delete("/v2/pods/pod").await;
    assert!(answer.headers.contains_key("marathon-deployment-id"));
    answer.is(202);
    world.settled().await;
    assert_eq!(world.master.running(), 0);
}

#[tokio::test]
async fn groups_deploy_in_order_and_roll_back() {
    let world = World::new().await;
    let app = |id: &str, dependencies: &[&str]| json!({"id": id, "cmd": "sleep 1", "cpus": 0.1, "mem": 16, "dependencies": dependencies});
    let group =
        json!({"id": "/shop", "apps": [app("web", &["db"]), app("db", &[])], "groups": [{"id": "mail", "apps": [app("smtp", &[])]}]});
    let plan = world.put("/v2/groups?dryRun=true", json!({"groups": [group.clone()]})).await.is(200);
    assert_eq!(plan["steps"].as_array().unwrap().len(), 3);
    world.post("/v2/groups", group.clone()).await.is(201);
    world.settled().await;
    world.post("/v2/groups", group.clone()).await.is(409);
    assert_eq!(world.master.running(), 3);
    let versions = world.get("/v2/groups/shop/versions").await.is(200);
    let same = world.put("/v2/groups/shop", group).await.is(200);
    assert!(same["deploymentId"].is_string());
    world.put("/v2/groups/shop", json!({"scaleBy": 1.5})).await.is(200);
    world.settled().await;
    assert_eq!(world.master.running(), 6);
    world.put("/v2/groups/shop", json!({"version": versions[0]})).await.is(200);
    world.settled().await;
    assert_eq!(world.master.running(), 3);
    let shown = world.get("/v2/groups/shop").await.is(200);
    assert_eq!(shown["groups"][0]["apps"][0]["id"], "/shop/mail/smtp");
    assert_eq!(world.get("/v2/groups/shop/apps").await.is(200).as_array().unwrap().len(), 3);
    world.delete("/v2/groups/shop").await.is(200);
    world.settled().await;
    assert_eq!(world.master.running(), 0);
    world.get("/v2/groups/shop").await.is(404);
    world.get("/v2/groups").await.is(200);
}

#[tokio::test]
async fn health_is_asked_for_and_taken_from_agents() {
    let world = World::new().await;
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answering = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let app = |id: &str, check: serde_json::Value| json!({"id": id, "cmd": "sleep 1", "cpus": 0.1, "mem": 16, "healthChecks": [check]});
    world
        .post(
            "/v2/apps",
            app(
                "/asked",
                json!({"protocol": "TCP", "port": port, "intervalSeconds": 1, "gracePeriodSeconds": 0, "maxConsecutiveFailures": 0}),
            ),
        )
        .await
        .is(201);
    world.post("/v2/apps", app("/told", json!({"protocol": "MESOS_TCP", "portIndex": 0}))).await.is(201);
    let asked = world.until("/v2/apps/asked", |it| it["app"]["tasksHealthy"] == 1).await;
    assert_eq!(asked["app"]["tasks"][0]["healthCheckResults"][0]["alive"], true);
    let told = world.until("/v2/apps/told", |it| it["app"]["tasksRunning"] == 1).await;
    assert_eq!((told["app"]["tasksHealthy"].as_u64(), told["app"]["tasksUnhealthy"].as_u64()), (Some(0), Some(0)));
    assert_eq!(told["app"]["deployments"].as_array().unwrap().len(), 1);
    world.master.report_health(true);
    world.until("/v2/apps/told", |it| it["app"]["tasksHealthy"] == 1).await;
    world.settled().await;
    let info = world.master.task_infos().into_iter().find(|it| it.name == "told").unwrap();
    assert!(info.health_check.unwrap().tcp.unwrap().port >= 31_000);
    answering.abort();
    let asked = world.until("/v2/apps/asked", |it| it["app"]["tasksUnhealthy"] == 1).await;
    assert!(asked["app"]["tasks"][0]["healthCheckResults"][0]["lastFailureCause"].as_str().unwrap().contains("refused"), "{asked}");
}
