//! The edge over real sockets, as a client that knows nothing of us sees it.

use std::time::Duration;

use mesos_proto::v1;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Files;
use crate::leadership::{Leader, Leadership};
use crate::testing::{parse, server, server_with};

const SUBSCRIBE: &str = r#"{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"root","name":"n"}}}"#;

#[tokio::test]
async fn requests_are_checked_in_the_order_of_mesos() {
    let server = server().await;
    for path in ["/api/v1", "/api/v1/scheduler", "/master/api/v1", "/api/v1/operator"] {
        let answer = server.get(path).await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{path}");
        let answer = server.ask(&format!("POST {path}"), "", b"{}").await;
        assert_eq!((answer.status, answer.text()), (400, "Expecting 'Content-Type' to be present"), "{path}");
        for kind in ["text/plain", "application/JSON", "application/recordio", "application/jsonx"] {
            let answer = server.ask(&format!("POST {path}"), &format!("Content-Type: {kind}\r\n"), b"{}").await;
            assert_eq!(answer.status, 415, "{path} {kind}");
        }
        let answer = server.post_json(path, "{").await;
        assert_eq!(answer.status, 400);
        assert!(answer.text().starts_with("Failed to parse body into JSON: "), "{}", answer.text());
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        let answer = server.post_json(path, "[]").await;
        assert_eq!((answer.status, answer.text()), (400, "Failed to convert JSON into Call protobuf: Expecting a JSON object"));
        let answer = server.ask(&format!("POST {path}"), "Content-Type: application/x-protobuf\r\n", b"\xff\xff").await;
        assert!(answer.status == 400 && answer.text().starts_with("Failed to parse body into Call protobuf"), "{}", answer.text());
    }
    let answer = server.post_json("/api/v1/scheduler", r#"{"framework_id":{"value":"f"},"type":"ACCEPT"}"#).await;
    assert_eq!((answer.status, answer.text()), (400, "Failed to validate scheduler::Call: Expecting 'accept' to be present"));
    let answer = server.post_json("/api/v1", r#"{"type":"READ_FILE"}"#).await;
    assert_eq!((answer.status, answer.text()), (400, "Failed to validate master::Call: Expecting 'read_file' to be present"));
    let headers = "Content-Type: application/json\r\nAccept: text/html\r\n";
    assert_eq!(server.ask("POST /api/v1", headers, br#"{"type":"GET_AGENTS"}"#).await.status, 406);
    assert_eq!(server.ask("POST /api/v1/scheduler", headers, SUBSCRIBE.as_bytes()).await.status, 406);
    let headers = "Content-Type: application/json\r\nMesos-Stream-Id: x\r\n";
    let answer = server.ask("POST /api/v1/scheduler", headers, SUBSCRIBE.as_bytes()).await;
    assert_eq!((answer.status, answer.text()), (400, "Subscribe calls should not include the 'Mesos-Stream-Id' header"));
    assert_eq!(server.post_json("/api/v1", r#"{"type":"UNKNOWN"}"#).await.status, 501);
    let charset = "Content-Type: application/json; charset=utf-8\r\n";
    assert_eq!(server.ask("POST /api/v1", charset, br#"{"type":"GET_HEALTH"}"#).await.status, 200);
}

#[tokio::test]
async fn others_are_sent_to_the_leader() {
    let server = server_with(Leadership::Nobody, &[], Files::default()).await;
    let everywhere = ["/state", "/master/state", "/slaves", "/api/v1", "/api/v1/scheduler", "/weights"];
    for path in everywhere {
        let answer = server.get(path).await;
        assert_eq!((answer.status, answer.text()), (503, "No leader elected"), "{path}");
    }
    assert_eq!(server.get("/redirect").await.status, 503);
    let leader = Leader { id: "other".to_owned(), hostname: "m2".to_owned(), ip: "10.0.0.2".to_owned(), port: 5051, grpc: None };
    server.leadership.send_replace(Leadership::Led(leader));
    tokio::time::sleep(Duration::from_millis(50)).await;
    for path in everywhere {
        let answer = server.get(&format!("{path}?a=b")).await;
        assert_eq!((answer.status, answer.header("location")), (307, Some(&*format!("//m2:5051{path}?a=b"))), "{path}");
        assert!(answer.body.is_empty());
    }
    let answer = server.get("/master/redirect").await;
    assert_eq!((answer.status, answer.header("location")), (307, Some("//m2:5051")));
    assert_eq!(server.get("/redirect/state").await.status, 404);
    for path in ["/health", "/flags", "/version", "/metrics/snapshot", "/files/debug"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    assert_eq!(server.get("/metrics/snapshot").await.json()["master/elected"], 0.0);
    server.leadership.send_replace(Leadership::Leading);
    while server.get("/state").await.status != 200 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(server.get("/redirect").await.header("location"), Some("//localhost:5050"));
    assert_eq!(server.get("/metrics/snapshot").await.json()["master/elected"], 1.0);
    // Who has led and lost the lead does nothing any more.
    server.leadership.send_replace(Leadership::Nobody);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(server.get("/state").await.status, 503);
}

#[tokio::test]
async fn classic_documents_have_their_members() {
    let server = server().await;
    let state = server.get("/master/state.json").await.json();
    for member in [
        "version",
        "build_date",
        "build_time",
        "build_user",
        "start_time",
        "elected_time",
        "id",
        "pid",
        "hostname",
        "capabilities",
        "activated_slaves",
        "deactivated_slaves",
        "unreachable_slaves",
        "leader",
        "leader_info",
        "flags",
        "slaves",
        "recovered_slaves",
        "frameworks",
        "completed_frameworks",
        "orphan_tasks",
        "unregistered_frameworks",
    ] {
        assert!(state.get(member).is_some(), "{member}");
    }
    assert_eq!(
        (&state["version"], &state["leader"], &state["pid"]),
        (&"1.11.0".into(), &"master@127.0.0.1:5050".into(), &"master@127.0.0.1:5050".into())
    );
    assert_eq!(state["flags"]["allocation_interval"], "1secs");
    for (path, member) in [
        ("/state-summary", "slaves"),
        ("/slaves", "recovered_slaves"),
        ("/frameworks", "unregistered_frameworks"),
        ("/tasks?limit=x&order=asc", "tasks"),
        ("/roles", "roles"),
        ("/flags", "flags"),
        ("/version", "version"),
        ("/system/stats.json", "cpus_total"),
    ] {
        assert!(server.get(path).await.json().get(member).is_some(), "{path}");
    }
    assert_eq!(server.get("/weights").await.text(), "[]");
    assert_eq!(server.get("/quota").await.text(), "{}");
    assert_eq!(server.get("/maintenance/schedule").await.text(), "{}");
    let health = server.get("/health").await;
    assert_eq!((health.status, health.body.len(), health.header("content-length")), (200, 0, Some("0")));
    assert!(health.header("date").is_some());
    let answer = server.get("/version?jsonp=f").await;
    assert_eq!(answer.header("content-type"), Some("text/javascript"));
    assert!(answer.text().starts_with("f({") && answer.text().ends_with("});"));
    for path in ["/nothing", "/master/nothing", "/slave(1)/state", "/../state", "/metrics"] {
        let answer = server.get(path).await;
        assert_eq!((answer.status, answer.text()), (404, "404 Not Found."), "{path}");
    }
}

#[tokio::test]
async fn methods_are_looked_at_where_mesos_looks() {
    let server = server().await;
    for (line, status, allow) in [
        ("GET /reserve", 405, Some("POST")),
        ("GET /teardown", 405, Some("POST")),
        ("PUT /machine/down", 405, Some("POST")),
        ("POST /weights", 405, Some("GET, PUT")),
        ("PUT /quota", 405, Some("GET, POST, DELETE")),
        ("DELETE /maintenance/schedule", 405, Some("GET, POST")),
        ("POST /maintenance/status", 405, Some("GET")),
        ("POST /flags", 405, Some("GET")),
        ("POST /state", 200, None),
        ("POST /health", 200, None),
        ("PUT /version", 200, None),
    ] {
        let answer = server.ask(line, "", b"").await;
        assert_eq!((answer.status, answer.header("allow")), (status, allow), "{line}");
    }
}

#[tokio::test]
async fn large_answers_are_compressed_for_those_who_take_that() {
    let server = server().await;
    let plain = server.get("/state").await;
    assert_eq!(plain.header("content-encoding"), None);
    for path in ["/state", "/metrics/snapshot"] {
        let answer = server.ask(&format!("GET {path}"), "Accept-Encoding: deflate, gzip\r\n", b"").await;
        assert_eq!(answer.header("content-encoding"), Some("gzip"), "{path}");
        let mut text = String::new();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&*answer.body), &mut text).unwrap();
        assert!(serde_json::from_str::<Value>(&text).is_ok());
    }
    assert_eq!(server.ask("GET /version", "Accept-Encoding: gzip\r\n", b"").await.header("content-encoding"), None);
    assert_eq!(server.ask("GET /state", "Accept-Encoding: gzip;q=0\r\n", b"").await.header("content-encoding"), None);
}

#[tokio::test]
async fn every_metric_that_tools_look_for_is_there() {
    let server = server().await;
    let metrics = server.get("/metrics/snapshot").await.json();
    for key in [
        "master/uptime_secs",
        "master/elected",
        "master/slaves_active",
        "master/slaves_connected",
        "master/slaves_unreachable",
        "master/frameworks_active",
        "master/outstanding_offers",
        "master/tasks_running",
        "master/tasks_staging",
        "master/tasks_failed",
        "master/tasks_gone_by_operator",
        "master/cpus_total",
        "master/cpus_percent",
        "master/gpus_revocable_used",
        "master/mem_used",
        "master/messages_kill_task",
        "master/invalid_status_updates",
        "master/event_queue_messages",
        "master/dropped_messages",
        "master/slave_removals/reason_unhealthy",
        "master/operations/pending",
        "master/operations/finished",
        "master/operations/reserve/total",
        "master/operations/grow_volume/gone_by_operator",
        "registrar/registry_size_bytes",
        "allocator/mesos/allocation_runs",
        "allocator/mesos/allocation_run_ms",
        "allocator/mesos/allocation_run_latency_ms",
        "allocator/mesos/allocation_run_latency_ms/p99",
        "allocator/mesos/resources/cpus/total",
        "system/load_1min",
        "system/mem_free_bytes",
    ] {
        assert!(metrics[key].is_number(), "{key}");
    }
    assert!(metrics["master/uptime_secs"].as_f64().unwrap() >= 0.0);
    assert_eq!(server.get("/metrics/snapshot?timeout=10secs").await.status, 200);
    assert_eq!(server.get("/metrics/snapshot?timeout=soon").await.status, 400);
    let page = crate::prometheus_page(&server.context.metrics().await);
    assert!(page.contains("\nmesos_master_tasks_running 0\n") && page.contains("\nmesos_master_elected 1\n"), "{page}");
}

#[tokio::test]
async fn the_allocator_tells_what_it_counts() {
    let server = server().await;
    let _agent = server.agent(crate::testing::registration("a")).await;
    let _framework = server.framework(&serde_json::json!({"user": "root", "name": "n", "role": "ads/web"})).await;
    let quota = r#"{"type":"UPDATE_QUOTA","update_quota":{"quota_configs":[{"role":"ads","limits":{"cpus":{"value":100}}}]}}"#;
    assert_eq!(server.post_json("/api/v1", quota).await.status, 200);
    loop {
        let metrics = server.get("/metrics/snapshot").await.json();
        if metrics["allocator/mesos/roles/ads/web/shares/dominant"] == 1.0 {
            assert_eq!(metrics["allocator/mesos/offer_filters/roles/ads/web/active"], 0.0);
            assert_eq!(metrics["allocator/mesos/quota/roles/ads/resources/cpus/offered_or_allocated"], 4.0);
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn local_questions_of_the_operator_api_are_answered_in_both_encodings() {
    let server = server().await;
    for (kind, pointer) in [
        ("GET_HEALTH", "/get_health/healthy"),
        ("GET_FLAGS", "/get_flags/flags/0/name"),
        ("GET_VERSION", "/get_version/version_info/version"),
        ("GET_METRICS", "/get_metrics/metrics/0/value"),
        ("GET_LOGGING_LEVEL", "/get_logging_level/level"),
        ("GET_STATE", "/get_state/get_agents"),
        ("GET_AGENTS", "/get_agents"),
        ("GET_FRAMEWORKS", "/get_frameworks"),
        ("GET_EXECUTORS", "/get_executors"),
        ("GET_OPERATIONS", "/get_operations"),
        ("GET_TASKS", "/get_tasks"),
        ("GET_ROLES", "/get_roles"),
        ("GET_WEIGHTS", "/get_weights"),
        ("GET_MASTER", "/get_master/master_info/id"),
        ("GET_MAINTENANCE_STATUS", "/get_maintenance_status/status"),
        ("GET_MAINTENANCE_SCHEDULE", "/get_maintenance_schedule/schedule"),
        ("GET_QUOTA", "/get_quota/status"),
    ] {
        let call = format!("{{\"type\":\"{kind}\"}}");
        let answer = server.post_json("/api/v1", &call).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{kind}: {}", answer.text());
        assert_eq!(answer.json()["type"], kind);
        assert!(answer.json().pointer(pointer).is_some(), "{kind}: {}", answer.text());
        let headers = "Content-Type: application/json\r\nAccept: application/x-protobuf\r\n";
        let answer = server.ask("POST /api/v1", headers, call.as_bytes()).await;
        assert_eq!(answer.header("content-type"), Some("application/x-protobuf"));
        let response: v1::master::Response = mesos_proto::json::decode_protobuf(&answer.body).unwrap();
        assert_eq!(response.r#type().as_str_name(), kind);
    }
    let set = r#"{"type":"SET_LOGGING_LEVEL","set_logging_level":{"level":1,"duration":{"nanoseconds":50000000}}}"#;
    assert_eq!(server.post_json("/api/v1", set).await.status, 200);
    let level = r#"{"type":"GET_LOGGING_LEVEL"}"#;
    assert_eq!(server.post_json("/api/v1", level).await.json()["get_logging_level"]["level"], 1);
    while server.post_json("/api/v1", level).await.json()["get_logging_level"]["level"] != 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn files_are_shown_below_what_is_attached() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("log"), "line\n".repeat(10)).unwrap();
    let mut files = Files::default();
    files.attach("/master/log", directory.path().join("log"));
    files.attach("/logs", directory.path());
    let server = server_with(Leadership::Leading, &[], files).await;
    assert_eq!(server.get("/files/read?path=/master/log").await.text(), r#"{"data":"","offset":50}"#);
    assert_eq!(server.get("/files/read?path=%2Fmaster%2Flog&offset=40&length=5").await.json()["data"], "line\n");
    assert_eq!(server.get("/files/read?path=/master/log&offset=-1").await.json()["offset"], 50);
    assert_eq!(server.get("/files/read?path=/master/log&offset=x").await.status, 400);
    assert_eq!(server.get("/files/read").await.status, 400);
    assert_eq!(server.get("/files/read?path=/etc/passwd").await.status, 404);
    let entries = server.get("/files/browse.json?path=/logs").await.json();
    assert_eq!((&entries[0]["path"], &entries[0]["mode"], &entries[0]["size"]), (&"/logs/log".into(), &"-rw-r--r--".into(), &50.into()));
    let answer = server.get("/files/download?path=/logs/log").await;
    assert_eq!((answer.status, answer.body.len(), answer.header("content-disposition")), (200, 50, Some("attachment; filename=log")));
    assert!(server.get("/files/debug").await.json().get("/master/log").is_some());
    let call = r#"{"type":"READ_FILE","read_file":{"path":"/master/log","offset":0,"length":4}}"#;
    assert_eq!(server.post_json("/api/v1", call).await.json()["read_file"], serde_json::json!({"size": 50, "data": "bGluZQ=="}));
    let call = r#"{"type":"LIST_FILES","list_files":{"path":"/nowhere"}}"#;
    assert_eq!(server.post_json("/api/v1", call).await.status, 404);
}

#[tokio::test]
async fn credentials_are_asked_for_by_realm() {
    let words =
        [r#"credentials={"credentials":[{"principal":"p","secret":"s"}]}"#, "authenticate_http_readwrite", "authenticate_http_frameworks"];
    let server = server_with(Leadership::Leading, &words, Files::default()).await;
    assert_eq!(server.get("/state").await.status, 200);
    for (path, realm) in [("/api/v1", "readwrite"), ("/api/v1/scheduler", "scheduler"), ("/weights", "readwrite")] {
        for headers in ["", "Authorization: Basic cDp4\r\n", "Authorization: Bearer x\r\n", "Authorization: Basic ???\r\n"] {
            let answer = server.ask(&format!("POST {path}"), headers, b"").await;
            assert_eq!(answer.status, 401, "{path} {headers}");
            assert_eq!(answer.header("www-authenticate"), Some(&*format!("Basic realm=\"mesos-master-{realm}\"")));
        }
        // p:s
        assert_ne!(server.ask(&format!("POST {path}"), "Authorization: basic cDpz\r\n", b"").await.status, 401);
    }
    let headers = "Authorization: Basic cDpz\r\nContent-Type: application/json\r\n";
    let body = r#"{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"root","name":"n","principal":"q"}}}"#;
    assert_eq!(server.ask("POST /api/v1/scheduler", headers, body.as_bytes()).await.status, 400);
    assert_eq!(server.get("/flags").await.json()["flags"]["credentials"], "<given>");
}

#[tokio::test]
async fn what_is_forbidden_is_not_shown() {
    let acls = r#"acls={
        "register_frameworks": [{"principals": {"type": "ANY"}, "roles": {"values": ["ads", "*"]}}, {"principals": {"type": "NONE"}, "roles": {"type": "ANY"}}],
        "view_frameworks": [{"principals": {"values": ["p"]}, "users": {"type": "ANY"}}, {"principals": {"type": "NONE"}, "users": {"values": ["secret"]}}],
        "view_tasks": [{"principals": {"type": "ANY"}, "users": {"values": ["root"]}}],
        "view_flags": [{"principals": {"values": ["p"]}, "flags": {"type": "ANY"}}, {"principals": {"type": "NONE"}, "flags": {"type": "ANY"}}],
        "get_endpoints": [{"principals": {"type": "NONE"}, "paths": {"type": "ANY"}}],
        "update_weights": [{"principals": {"type": "NONE"}, "roles": {"type": "ANY"}}],
        "view_roles": [{"principals": {"type": "NONE"}, "roles": {"values": ["ads"]}}]
    }"#;
    let server = server_with(Leadership::Leading, &[acls], Files::default()).await;
    let (_, mut operator) = server.open("/api/v1", crate::testing::JSON, r#"{"type":"SUBSCRIBE"}"#).await;
    let _hidden = server.framework(&serde_json::json!({"user": "secret", "name": "hidden", "role": "ads"})).await;
    let shown = server.framework(&serde_json::json!({"user": "root", "name": "shown"})).await;
    let state = server.get("/state").await.json();
    let names: Vec<&Value> = state["frameworks"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!((names, state.get("flags")), (vec![&Value::from("shown")], None));
    let roles = server.get("/roles").await.json();
    assert!(roles["roles"].as_array().unwrap().iter().all(|it| it["name"] != "ads"), "{roles}");
    let added = operator.event("FRAMEWORK_ADDED").await;
    assert_eq!(added["framework_added"]["framework"]["framework_info"]["id"]["value"], shown.id);
    assert_eq!(server.get("/flags").await.status, 403);
    for path in
        ["/metrics/snapshot", "/metrics/snapshot.json", "//metrics/snapshot", "/metrics/snapshot/x", "/%6detrics/snapshot", "/files/debug/"]
    {
        assert_eq!(server.get(path).await.status, 403, "{path}");
    }
    assert_eq!(server.post_json("/api/v1", r#"{"type":"GET_FLAGS"}"#).await.status, 403);
    assert_eq!(server.ask("PUT /weights", "", br#"[{"role":"ads","weight":2}]"#).await.status, 403);
    let call = r#"{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"root","name":"n","role":"other"}}}"#;
    let (_, mut refused) = server.open("/api/v1/scheduler", crate::testing::JSON, call).await;
    let message = refused.event("ERROR").await["error"]["message"].to_string();
    assert!(message.contains("Not authorized"), "{message}");
}

#[tokio::test]
async fn roles_are_shown_with_those_above_them() {
    let server = server().await;
    // An empty id is as good as none.
    let call =
        r#"{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"root","name":"deep","role":"top/sub/leaf","id":{"value":""}}}}"#;
    let (_, mut stream) = server.open("/api/v1/scheduler", crate::testing::JSON, call).await;
    stream.event("SUBSCRIBED").await;
    let roles = server.get("/roles").await.json();
    let names: Vec<&str> = roles["roles"].as_array().unwrap().iter().filter_map(|it| it["name"].as_str()).collect();
    assert!(["top", "top/sub", "top/sub/leaf"].iter().all(|it| names.contains(it)), "{names:?}");
}

#[tokio::test]
async fn bodies_have_limits() {
    let server = server().await;
    // Announced: refused at once, whatever follows.
    let answer = server.ask("POST /api/v1", "Content-Type: application/json\r\n", &vec![b' '; 100 << 20]).await;
    assert_eq!(answer.status, 413);
    // Not announced.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = "POST /api/v1 HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let piece = [b"100000\r\n".as_slice(), &vec![b' '; 1 << 20], b"\r\n"].concat();
    for _ in 0..100 {
        if stream.write_all(&piece).await.is_err() {
            break;
        }
    }
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 413");
    // Chunked requests are as good as others.
    let body = format!("{:x}\r\n{}\r\n0\r\n\r\n", 21, r#"{"type":"GET_HEALTH"}"#);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(format!("{}{body}", head.replace("Host: h\r\n", "Host: h\r\nConnection: close\r\n")).as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(parse(&bytes).status, 200);
}

mod calls;
mod hostile;
mod streams;
