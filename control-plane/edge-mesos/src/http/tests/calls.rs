//! Whole roads: a framework, a master, an agent.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mesos_proto::v1::TaskState;
use proto::agent::v1::master_message::Body as Down;
use serde_json::{Value, json};

use crate::testing::{registration, server};

fn task(id: &str, agent: &Value) -> Value {
    json!({
        "name": "n", "task_id": {"value": id}, "agent_id": agent, "command": {"value": "sleep 9"},
        "labels": {"labels": [{"key": "k", "value": "ü"}]},
        "discovery": {"visibility": "CLUSTER", "name": "d", "ports": {"ports": [{"number": 80, "name": "http"}]}},
        "resources": [
            {"name": "cpus", "type": "SCALAR", "scalar": {"value": 1}},
            {"name": "mem", "type": "SCALAR", "scalar": {"value": 64}},
        ],
    })
}

#[tokio::test]
async fn a_task_runs_and_ends_and_every_endpoint_tells_of_it() {
    let server = server().await;
    let mut agent = server.agent(registration("one")).await;
    let mut framework =
        server.framework(&json!({"user": "root", "name": "demo", "roles": ["dev"], "capabilities": {"type": "MULTI_ROLE"}})).await;
    let offers = framework.stream.event("OFFERS").await;
    let offer = &offers["offers"]["offers"][0];
    assert_eq!(
        (&offer["agent_id"]["value"], &offer["hostname"], &offer["allocation_info"]["role"]),
        (&json!(agent.id), &json!("one"), &json!("dev"))
    );
    assert_eq!(offer["url"]["address"], json!({"hostname": "one", "ip": "10.0.0.9", "port": 5051}));
    let answer = server.call(&framework, json!({"type": "ACCEPT", "accept": {
        "offer_ids": [offer["id"]],
        "operations": {"type": "LAUNCH", "launch": {"task_infos": [task("t1", &offer["agent_id"]), task("t/2", &offer["agent_id"])]}},
        "filters": {"refuse_seconds": 0},
    }})).await;
    assert_eq!((answer.status, answer.header("content-length")), (202, Some("0")));
    // One of the two has no valid id.
    let refused = framework.stream.event("UPDATE").await;
    let status = &refused["update"]["status"];
    assert_eq!((&status["state"], &status["reason"], status.get("uuid")), (&json!("TASK_ERROR"), &json!("REASON_TASK_INVALID"), None));
    match agent.next().await {
        Some(Down::RunTask(run)) => assert!(!run.task.is_empty()),
        other => panic!("{other:?}"),
    }
    let uuid = agent.update(&framework.id, "t1", TaskState::TaskRunning).await;
    let running = framework.stream.event("UPDATE").await;
    let status = &running["update"]["status"];
    assert_eq!(
        (&status["state"], &status["uuid"], &status["source"]),
        (&json!("TASK_RUNNING"), &json!(STANDARD.encode(&uuid)), &json!("SOURCE_EXECUTOR"))
    );
    let acknowledge = json!({"type": "ACKNOWLEDGE", "acknowledge": {"agent_id": offer["agent_id"], "task_id": {"value": "t1"}, "uuid": STANDARD.encode(&uuid)}});
    assert_eq!(server.call(&framework, acknowledge).await.status, 202);
    match agent.next().await {
        Some(Down::AcknowledgeStatusUpdate(it)) => assert_eq!((it.task_id.as_str(), it.uuid), ("t1", uuid)),
        other => panic!("{other:?}"),
    }

    let state = server.get("/state").await.json();
    let shown = &state["frameworks"][0]["tasks"][0];
    assert_eq!(
        (&shown["id"], &shown["slave_id"], &shown["state"], &shown["role"]),
        (&json!("t1"), &json!(agent.id), &json!("TASK_RUNNING"), &json!("dev"))
    );
    assert_eq!(shown["resources"], json!({"cpus": 1.0, "gpus": 0.0, "mem": 64.0, "disk": 0.0}));
    assert_eq!((&shown["labels"], &shown["executor_id"]), (&json!([{"key": "k", "value": "ü"}]), &json!("")));
    assert_eq!(shown["discovery"]["ports"]["ports"][0]["number"], 80);
    assert_eq!(shown["statuses"][0]["timestamp"], 1.5);
    let slave = &state["slaves"][0];
    assert_eq!(
        (&slave["pid"], &slave["used_resources"]["cpus"], &slave["active"]),
        (&json!("slave(1)@10.0.0.9:5051"), &json!(1.0), &json!(true))
    );
    assert_eq!((&state["frameworks"][0]["roles"], &state["activated_slaves"]), (&json!(["dev"]), &json!(1.0)));
    let summary = server.get("/state-summary").await.json();
    assert_eq!((&summary["slaves"][0]["TASK_RUNNING"], &summary["slaves"][0]["framework_ids"]), (&json!(1), &json!([framework.id])));
    assert_eq!((&summary["frameworks"][0]["TASK_RUNNING"], &summary["frameworks"][0]["slave_ids"]), (&json!(1), &json!([agent.id])));
    let slaves = server.get(&format!("/slaves?slave_id={}", agent.id)).await.json();
    assert!(slaves["slaves"][0]["used_resources_full"].as_array().unwrap().iter().any(|it| it["name"] == "cpus"));
    assert_eq!(server.get("/slaves?slave_id=none").await.json()["slaves"], json!([]));
    assert_eq!(server.get("/tasks").await.json()["tasks"][0]["id"], "t1");
    assert_eq!(server.get("/tasks?offset=1").await.json()["tasks"], json!([]));
    assert_eq!(server.get("/tasks?limit=0").await.json()["tasks"], json!([]));
    assert_eq!(server.get("/tasks?limit=-1&order=asc").await.json()["tasks"][0]["id"], "t1", "as Mesos's command line asks for all");
    assert_eq!(server.get("/tasks?offset=-1").await.json()["tasks"], json!([]));
    assert_eq!(server.get("/tasks?task_id=other").await.json()["tasks"], json!([]));
    assert_eq!(server.get(&format!("/frameworks?framework_id={}", framework.id)).await.json()["frameworks"][0]["name"], "demo");
    let roles = server.get("/roles").await.json();
    assert_eq!((&roles["roles"][0]["name"], &roles["roles"][0]["allocated"]["cpus"]), (&json!("dev"), &json!(1.0)));
    let metrics = server.get("/metrics/snapshot").await.json();
    assert_eq!(
        (&metrics["master/tasks_running"], &metrics["master/cpus_percent"], &metrics["master/slaves_active"]),
        (&json!(1.0), &json!(0.25), &json!(1.0))
    );
    assert!(metrics.get(format!("master/frameworks/demo/{}/subscribed", framework.id)).is_some());
    let tasks = server.post_json("/api/v1", r#"{"type":"GET_TASKS"}"#).await.json();
    assert_eq!(tasks["get_tasks"]["tasks"][0]["state"], "TASK_RUNNING");
    let agents = server.post_json("/api/v1", r#"{"type":"GET_AGENTS"}"#).await.json();
    assert_eq!(agents["get_agents"]["agents"][0]["agent_info"]["hostname"], "one");

    let uuid = agent.update(&framework.id, "t1", TaskState::TaskFinished).await;
    framework.stream.event("UPDATE").await;
    let acknowledge = json!({"type": "ACKNOWLEDGE", "acknowledge": {"agent_id": offer["agent_id"], "task_id": {"value": "t1"}, "uuid": STANDARD.encode(&uuid)}});
    assert_eq!(server.call(&framework, acknowledge).await.status, 202);
    agent.next().await;
    let state = server.get("/state").await.json();
    assert_eq!(
        (&state["frameworks"][0]["tasks"], &state["frameworks"][0]["completed_tasks"][0]["state"]),
        (&json!([]), &json!("TASK_FINISHED"))
    );
    assert_eq!(server.get("/metrics/snapshot").await.json()["master/tasks_finished"], 1.0);
}

#[tokio::test]
async fn operators_change_what_they_may() {
    let server = server().await;
    let mut agent = server.agent(registration("one")).await;
    let resources = json!([{"name": "cpus", "type": "SCALAR", "scalar": {"value": 1}, "role": "ads", "reservation": {}}]).to_string();
    let id = agent.id.clone();
    let form = |resources: &str| format!("slaveId={id}&resources={}", resources.replace('"', "%22"));
    let reserve = form(&resources);
    assert_eq!(server.ask("POST /reserve", "", reserve.as_bytes()).await.status, 202);
    assert!(matches!(agent.next().await, Some(Down::ApplyOperation(_))));
    let slave = &server.get("/slaves").await.json()["slaves"][0];
    assert_eq!((&slave["reserved_resources"]["ads"]["cpus"], &slave["unreserved_resources"]["cpus"]), (&json!(1.0), &json!(3.0)));
    let too_much = form(&resources.replace("{\"value\":1}", "{\"value\":100}"));
    assert_eq!(server.ask("POST /reserve", "", too_much.as_bytes()).await.status, 409);
    assert_eq!(server.ask("POST /reserve", "", b"slaveId=nobody&resources=[]").await.status, 400);
    assert_eq!(server.ask("POST /unreserve", "", form(&resources).as_bytes()).await.status, 202);

    assert_eq!(server.ask("PUT /weights", "", br#"[{"role":"ads","weight":2.5}]"#).await.status, 200);
    assert_eq!(server.get("/weights").await.json(), json!([{"role": "ads", "weight": 2.5}]));
    assert_eq!(server.ask("PUT /weights", "", br#"[{"role":"ads","weight":0}]"#).await.status, 400);
    let quota = json!({"type": "UPDATE_QUOTA", "update_quota": {"quota_configs": {"role": "ads", "limits": {"cpus": {"value": 2}}}}});
    assert_eq!(server.post_json("/api/v1", &quota.to_string()).await.status, 200);
    assert_eq!(server.get("/quota").await.json()["configs"][0]["limits"]["cpus"]["value"], 2.0);
    assert_eq!(server.get("/roles").await.json()["roles"][0]["quota"]["limit"], json!({"cpus": 2.0}));
    assert_eq!(server.ask("DELETE /quota/ads", "", b"").await.status, 200);
    assert_eq!(server.ask("DELETE /quota/ads", "", b"").await.status, 400);

    let machine = json!({"hostname": "one", "ip": "10.0.0.9"});
    let schedule = json!({"windows": [{"machine_ids": [machine], "unavailability": {"start": {"nanoseconds": 1}}}]});
    assert_eq!(server.ask("POST /maintenance/schedule", "", schedule.to_string().as_bytes()).await.status, 200);
    assert_eq!(server.get("/maintenance/schedule").await.json()["windows"][0]["machine_ids"][0]["hostname"], "one");
    assert_eq!(server.get("/maintenance/status").await.json()["draining_machines"][0]["id"]["hostname"], "one");
    assert_eq!(server.ask("POST /machine/up", "", json!([machine]).to_string().as_bytes()).await.status, 400);
    assert_eq!(server.ask("POST /machine/down", "", json!([machine]).to_string().as_bytes()).await.status, 200);
    assert_eq!(server.get("/maintenance/status").await.json()["down_machines"][0]["hostname"], "one");
    assert_eq!(server.ask("POST /machine/up", "", json!([machine]).to_string().as_bytes()).await.status, 200);

    let gone = json!({"type": "MARK_AGENT_GONE", "mark_agent_gone": {"agent_id": {"value": "nobody"}}}).to_string();
    assert_eq!(server.post_json("/api/v1", &gone).await.status, 404);
    assert_eq!(server.ask("POST /teardown", "", b"frameworkId=nobody").await.status, 400);
    for (kind, payload) in [("DEACTIVATE_AGENT", "deactivate_agent"), ("DRAIN_AGENT", "drain_agent")] {
        let call = json!({"type": kind, payload: {"agent_id": {"value": "nobody"}}}).to_string();
        assert_eq!(server.post_json("/api/v1", &call).await.status, 400, "{kind}");
    }
}

#[tokio::test]
async fn resources_and_operations_of_a_role_are_seen_by_who_may_see_the_role() {
    use std::collections::BTreeSet;

    use mesos_proto::v1::{AgentInfo, Resource, resource};
    use prost::Message;

    use crate::testing::server_with;
    use crate::{Files, Leadership};

    let acls = r#"acls={"view_roles": [{"principals": {"type": "NONE"}, "roles": {"values": ["secret"]}}]}"#;
    let server = server_with(Leadership::Leading, &[acls], Files::default()).await;
    let (_, mut operator) = server.open("/api/v1", crate::testing::JSON, r#"{"type":"SUBSCRIBE"}"#).await;
    let mut registration = registration("one");
    let mut all: Vec<Resource> = registration.total_resources.iter().map(|it| Resource::decode(&**it).unwrap()).collect();
    let of_role = |role: &str| resource::ReservationInfo {
        r#type: Some(resource::reservation_info::Type::Static as i32),
        role: Some(role.to_owned()),
        ..resource::ReservationInfo::default()
    };
    let reserved = |role: &str| Resource { reservations: vec![of_role(role)], ..all[0].clone() };
    all.extend([reserved("open"), reserved("secret")]);
    registration.total_resources = all.iter().map(Message::encode_to_vec).collect();
    registration.agent_info = AgentInfo { resources: all, ..AgentInfo::decode(&*registration.agent_info).unwrap() }.encode_to_vec();
    let agent = server.agent(registration).await;
    for role in ["open", "secret"] {
        let resources = json!([{"name": "cpus", "type": "SCALAR", "scalar": {"value": 1}, "role": role, "reservation": {}}]).to_string();
        let form = format!("slaveId={}&resources={}", agent.id, resources.replace('"', "%22"));
        assert_eq!(server.ask("POST /reserve", "", form.as_bytes()).await.status, 202);
    }
    let roles = |all: &Value| -> BTreeSet<String> {
        // In both spellings, of which one says of what is reserved for nobody that it is for all.
        let reservations = all.as_array().unwrap().iter().flat_map(|it| {
            let refined = it["reservations"].as_array().cloned().unwrap_or_default();
            refined.into_iter().chain([it.clone()])
        });
        reservations.filter_map(|it| it["role"].as_str().filter(|role| *role != "*").map(str::to_owned)).collect()
    };
    let open = BTreeSet::from(["open".to_owned()]);
    let operations = server.post_json("/api/v1", r#"{"type":"GET_OPERATIONS"}"#).await.json();
    let operations = operations["get_operations"]["operations"].as_array().unwrap();
    assert_eq!(operations.len(), 1, "{operations:?}");
    assert_eq!(roles(&operations[0]["info"]["reserve"]["resources"]), open);
    let agents = server.post_json("/api/v1", r#"{"type":"GET_AGENTS"}"#).await.json();
    assert_eq!(roles(&agents["get_agents"]["agents"][0]["total_resources"]), open);
    assert_eq!(roles(&agents["get_agents"]["agents"][0]["agent_info"]["resources"]), open);
    let added = operator.event("AGENT_ADDED").await;
    assert_eq!(roles(&added["agent_added"]["agent"]["total_resources"]), open);
    assert_eq!(roles(&added["agent_added"]["agent"]["agent_info"]["resources"]), open);
    let slaves = server.get("/slaves").await.json();
    let by_role = slaves["slaves"][0]["reserved_resources_full"].as_object().unwrap();
    assert_eq!(by_role.keys().collect::<Vec<_>>(), ["open"]);
}

#[tokio::test]
async fn what_is_stored_is_there_for_the_next_master() {
    use std::sync::Arc;

    use crate::store::DiskRegistry;
    use crate::testing::server_on;
    use crate::{Files, Leadership};

    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(DiskRegistry::open(directory.path()).unwrap());
    let server = server_on(store.clone(), Leadership::Leading, &[], Files::default()).await;
    let agent = server.agent(registration("one")).await;
    assert_eq!(server.ask("PUT /weights", "", br#"[{"role":"ads","weight":2.5}]"#).await.status, 200);
    server.stop();
    drop(server);
    let server = server_on(store, Leadership::Leading, &[], Files::default()).await;
    let state = server.get("/state").await.json();
    assert_eq!((&state["recovered_slaves"][0]["id"], &state["slaves"]), (&json!(agent.id), &json!([])));
    assert_eq!(server.get("/weights").await.json(), json!([{"role": "ads", "weight": 2.5}]));
}
