//! Clients that send nonsense, and clients that do not read.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use proto::agent::v1 as wire;
use serde_json::{Value, json};
use wire::agent_message::Body as Up;

use crate::testing::{JSON, Server, registration, server};

/// A good call of every type, as far as one can be made of these ids.
fn scheduler_calls(agent: &str) -> Vec<Value> {
    let agent_id = json!({"value": agent});
    let task = json!({
        "name": "n", "task_id": {"value": "t"}, "agent_id": agent_id, "command": {"value": "true", "uris": [{"value": "http://x"}]},
        "resources": [
            {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}, "role": "*"},
            {"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": 1, "end": 2}]}},
        ],
        "limits": {"cpus": {"value": 2}}, "max_completion_time": {"nanoseconds": 1},
        "health_check": {"type": "HTTP", "http": {"port": 80}, "grace_period_seconds": 1},
        "container": {"type": "DOCKER", "docker": {"image": "i"}, "volumes": [{"mode": "RO", "container_path": "p"}]},
        "kill_policy": {"grace_period": {"nanoseconds": 5}},
    });
    let volume = json!({
        "name": "disk", "type": "SCALAR", "scalar": {"value": 1}, "reservations": [{"type": "DYNAMIC", "role": "r", "principal": "p"}],
        "disk": {"persistence": {"id": "v", "principal": "p"}, "volume": {"mode": "RW", "container_path": "c"}},
    });
    let executor = json!({"executor_id": {"value": "e"}, "type": "DEFAULT", "resources": [{"name": "mem", "type": "SCALAR", "scalar": {"value": 32}}]});
    let operations = json!([
        {"type": "LAUNCH", "launch": {"task_infos": [task]}},
        {"type": "LAUNCH_GROUP", "launch_group": {"executor": executor, "task_group": {"tasks": [task]}}},
        {"type": "RESERVE", "id": {"value": "o"}, "reserve": {"resources": [volume]}},
        {"type": "UNRESERVE", "unreserve": {"resources": [volume]}},
        {"type": "CREATE", "create": {"volumes": [volume]}},
        {"type": "DESTROY", "destroy": {"volumes": [volume]}},
        {"type": "GROW_VOLUME", "grow_volume": {"volume": volume, "addition": volume}},
        {"type": "SHRINK_VOLUME", "shrink_volume": {"volume": volume, "subtract": {"value": 1}}},
        {"type": "CREATE_DISK", "create_disk": {"source": volume, "target_type": "MOUNT"}},
        {"type": "DESTROY_DISK", "destroy_disk": {"source": volume}},
    ]);
    let uuid = "AAECAwQFBgcICQoLDA0ODw==";
    let ids = json!([{"value": "x-O1"}]);
    vec![
        json!({"type": "ACCEPT", "accept": {"offer_ids": ids, "operations": operations, "filters": {"refuse_seconds": 1}}}),
        json!({"type": "DECLINE", "decline": {"offer_ids": ids, "filters": {"refuse_seconds": -1}}}),
        json!({"type": "ACCEPT_INVERSE_OFFERS", "accept_inverse_offers": {"inverse_offer_ids": ids, "filters": {}}}),
        json!({"type": "DECLINE_INVERSE_OFFERS", "decline_inverse_offers": {"inverse_offer_ids": ids}}),
        json!({"type": "REVIVE", "revive": {"roles": ["*"]}}),
        json!({"type": "SUPPRESS", "suppress": {"roles": ["*"]}}),
        json!({"type": "KILL", "kill": {"task_id": {"value": "t"}, "agent_id": agent_id, "kill_policy": {"grace_period": {"nanoseconds": 1}}}}),
        json!({"type": "SHUTDOWN", "shutdown": {"executor_id": {"value": "e"}, "agent_id": agent_id}}),
        json!({"type": "ACKNOWLEDGE", "acknowledge": {"agent_id": agent_id, "task_id": {"value": "t"}, "uuid": uuid}}),
        json!({"type": "ACKNOWLEDGE_OPERATION_STATUS", "acknowledge_operation_status":
            {"agent_id": agent_id, "uuid": uuid, "operation_id": {"value": "o"}}}),
        json!({"type": "RECONCILE", "reconcile": {"tasks": [{"task_id": {"value": "t"}, "agent_id": agent_id}]}}),
        json!({"type": "RECONCILE_OPERATIONS", "reconcile_operations": {"operations": [{"operation_id": {"value": "o"}, "agent_id": agent_id}]}}),
        json!({"type": "MESSAGE", "message": {"agent_id": agent_id, "executor_id": {"value": "e"}, "data": "AAEC"}}),
        json!({"type": "REQUEST", "request": {"requests": [{"agent_id": agent_id}]}}),
        json!({"type": "UPDATE_FRAMEWORK", "update_framework": {
            "framework_info": {"user": "root", "name": "n", "failover_timeout": 60, "labels": {"labels": [{"key": "k"}]}, "offer_filters": {"*": {}}},
            "suppressed_roles": ["*"],
            "offer_constraints": {"role_constraints": {"*": {"groups": [{"attribute_constraints": [
                {"selector": {"attribute_name": "a"}, "predicate": {"text_matches": {"regex": "(a+"}}},
            ]}]}}},
        }}),
    ]
}

fn operator_calls(agent: &str, framework: &str) -> Vec<Value> {
    let agent_id = json!({"value": agent});
    let resource = json!({"name": "cpus", "type": "SCALAR", "scalar": {"value": 1}, "reservations": [{"type": "DYNAMIC", "role": "r"}]});
    let machine = json!({"hostname": "one", "ip": "10.0.0.9"});
    vec![
        json!({"type": "GET_METRICS", "get_metrics": {"timeout": {"nanoseconds": 1}}}),
        json!({"type": "SET_LOGGING_LEVEL", "set_logging_level": {"level": 1, "duration": {"nanoseconds": 1}}}),
        json!({"type": "LIST_FILES", "list_files": {"path": "/x"}}),
        json!({"type": "READ_FILE", "read_file": {"path": "/x", "offset": 1, "length": 2}}),
        json!({"type": "UPDATE_WEIGHTS", "update_weights": {"weight_infos": [{"weight": 1.5, "role": "r"}]}}),
        json!({"type": "RESERVE_RESOURCES", "reserve_resources": {"agent_id": agent_id, "resources": [resource], "source": [resource]}}),
        json!({"type": "UNRESERVE_RESOURCES", "unreserve_resources": {"agent_id": agent_id, "resources": [resource]}}),
        json!({"type": "CREATE_VOLUMES", "create_volumes": {"agent_id": agent_id, "volumes": [resource]}}),
        json!({"type": "DESTROY_VOLUMES", "destroy_volumes": {"agent_id": agent_id, "volumes": [resource]}}),
        json!({"type": "GROW_VOLUME", "grow_volume": {"agent_id": agent_id, "volume": resource, "addition": resource}}),
        json!({"type": "SHRINK_VOLUME", "shrink_volume": {"agent_id": agent_id, "volume": resource, "subtract": {"value": 1}}}),
        json!({"type": "UPDATE_MAINTENANCE_SCHEDULE", "update_maintenance_schedule": {"schedule": {"windows": [
            {"machine_ids": [machine], "unavailability": {"start": {"nanoseconds": 1}, "duration": {"nanoseconds": 1}}},
        ]}}}),
        json!({"type": "START_MAINTENANCE", "start_maintenance": {"machines": [{"hostname": "two"}]}}),
        json!({"type": "STOP_MAINTENANCE", "stop_maintenance": {"machines": [{"hostname": "two"}]}}),
        json!({"type": "DRAIN_AGENT", "drain_agent": {"agent_id": {"value": "none"}, "max_grace_period": {"seconds": 1, "nanos": 1}}}),
        json!({"type": "DEACTIVATE_AGENT", "deactivate_agent": {"agent_id": agent_id}}),
        json!({"type": "REACTIVATE_AGENT", "reactivate_agent": {"agent_id": agent_id}}),
        json!({"type": "UPDATE_QUOTA", "update_quota": {"force": true, "quota_configs": [
            {"role": "r", "guarantees": {"cpus": {"value": 1}}, "limits": {"cpus": {"value": 2}}},
        ]}}),
        json!({"type": "SET_QUOTA", "set_quota": {"quota_request": {"role": "r", "guarantee": [resource]}}}),
        json!({"type": "REMOVE_QUOTA", "remove_quota": {"role": "r"}}),
        json!({"type": "TEARDOWN", "teardown": {"framework_id": {"value": format!("{framework}-other")}}}),
        json!({"type": "MARK_AGENT_GONE", "mark_agent_gone": {"agent_id": {"value": "none"}}}),
    ]
}

/// Every value that is one wrong piece away from `value`.
fn mutations(value: &Value) -> Vec<Value> {
    let odd = [Value::Null, json!(-1), json!(1e300), json!("\u{0}/../ü"), json!([]), json!({}), json!("x".repeat(70_000))];
    let mut found: Vec<Value> = odd.to_vec();
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                for mutated in mutations(member) {
                    let mut copy = members.clone();
                    copy.insert(name.clone(), mutated);
                    found.push(copy.into());
                }
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                for mutated in mutations(item) {
                    let mut copy = items.clone();
                    copy[at] = mutated;
                    found.push(copy.into());
                }
            }
            found.push(items.iter().chain(items).cloned().collect());
        }
        _ => {}
    }
    found
}

async fn sound(server: &Server) {
    let state = server.get("/state").await;
    assert_eq!(state.status, 200);
    assert_eq!(state.json()["slaves"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn no_call_that_is_nearly_right_breaks_anything() {
    let server = server().await;
    let agent = server.agent(registration("one")).await;
    let framework = server.framework(&json!({"user": "root", "name": "n", "failover_timeout": 60})).await;
    let headers = format!("{JSON}Mesos-Stream-Id: {}\r\n", framework.stream_id);
    let mut counts = std::collections::BTreeMap::<u16, usize>::new();
    let mut wrong = Vec::new();
    for call in scheduler_calls(&agent.id) {
        for mut mutated in std::iter::once(call.clone()).chain(mutations(&call)) {
            if let Some(members) = mutated.as_object_mut() {
                members.insert("framework_id".to_owned(), json!({"value": framework.id}));
                if let Some(info) =
                    members.get_mut("update_framework").and_then(|it| it.get_mut("framework_info")).and_then(Value::as_object_mut)
                {
                    info.insert("id".to_owned(), json!({"value": framework.id}));
                }
            }
            let answer = server.ask("POST /api/v1/scheduler", &headers, mutated.to_string().as_bytes()).await;
            *counts.entry(answer.status).or_default() += 1;
            if !matches!(answer.status, 200 | 202 | 400 | 501) {
                wrong.push((answer.status, mutated.to_string().chars().take(300).collect::<String>()));
            }
        }
    }
    for call in operator_calls(&agent.id, &framework.id) {
        for mutated in std::iter::once(call.clone()).chain(mutations(&call)) {
            let answer = server.ask("POST /api/v1", JSON, mutated.to_string().as_bytes()).await;
            *counts.entry(answer.status).or_default() += 1;
            if !matches!(answer.status, 200 | 202 | 400 | 404 | 409 | 501) {
                wrong.push((answer.status, mutated.to_string().chars().take(300).collect::<String>()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(counts[&202] > 50 && counts[&400] > 500, "{counts:?}");
    sound(&server).await;
}

#[tokio::test]
async fn a_framework_that_never_reads_loses_its_stream_and_nobody_else_notices() {
    let server = server().await;
    let agent = server.agent(registration("one")).await;
    let sleeper = server.framework(&json!({"user": "root", "name": "sleeper", "failover_timeout": 60})).await;
    let mut awake = server.framework(&json!({"user": "root", "name": "awake", "failover_timeout": 60})).await;
    let message = |framework: &str, size: usize| {
        Up::ExecutorMessage(wire::ExecutorMessage { framework_id: framework.to_owned(), executor_id: "e".to_owned(), data: vec![7; size] })
    };
    let gauges = server.context.master().gauges();
    let mut sent = 0;
    while gauges.streams_overflowed.load(Ordering::Relaxed) == 0 {
        agent.say(message(&sleeper.id, 1 << 20)).await;
        sent += 1;
        assert!(sent < 400, "nothing is bounded");
    }
    assert!(sent > 32, "a queue has room for a moment of absence");
    let begun = Instant::now();
    agent.say(message(&awake.id, 3)).await;
    let event = awake.stream.event("MESSAGE").await;
    assert_eq!(event["message"]["data"], "BwcH");
    assert!(begun.elapsed() < Duration::from_secs(5));
    loop {
        let state = server.get("/state").await.json();
        let frameworks = state["frameworks"].as_array().unwrap().clone();
        let connected = |name: &str| frameworks.iter().any(|it| it["name"] == name && it["connected"] == true);
        assert!(connected("awake"));
        if !connected("sleeper") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    sound(&server).await;
}

#[tokio::test]
async fn requests_that_break_off_leave_nothing() {
    use tokio::io::AsyncWriteExt as _;

    let server = server().await;
    let _agent = server.agent(registration("one")).await;
    let mut half = Vec::new();
    for _ in 0..50 {
        let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
        stream
            .write_all(b"POST /api/v1 HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
            .await
            .unwrap();
        half.push(stream);
    }
    drop(half.split_off(25));
    sound(&server).await;
    for line in ["GET /state HTTP/9.9", "POST", "\r\n\r\n", "GET /%00 HTTP/1.1", "GET /state?%zz=%zz HTTP/1.1"] {
        let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
        stream.write_all(format!("{line}\r\nHost: h\r\n\r\n").as_bytes()).await.unwrap();
    }
    let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    stream.write_all(&[b"GET /".as_slice(), &vec![b'a'; 1 << 20]].concat()).await.unwrap_or(());
    sound(&server).await;
}
