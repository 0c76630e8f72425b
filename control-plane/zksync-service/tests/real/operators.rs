//! What operators do besides watching: change, decide, put back; over HTTP and over gRPC.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::StreamExt as _;
use http::{Request, StatusCode};
use proto::zksync::v1 as wire;
use proto::zksync::v1::zk_sync_client::ZkSyncClient;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower::ServiceExt as _;
use zk::{Client, Options};
use zksync::{Mode, Strategy};
use zksync_service::definition::Definition;
use zksync_service::store::Store;

use crate::common::{create, ensembles};
use crate::operator::Operator;

async fn value(client: &Client, path: &str, wanted: &[u8]) {
    for _ in 0..400 {
        if client.get(path).await.is_ok_and(|(data, _)| data == wanted) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{path} is not {:?}: {:?}", String::from_utf8_lossy(wanted), client.get(path).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conflicts_are_decided_at_once_what_lost_is_put_back_and_changes_last() {
    let Some((a, b)) = ensembles(1) else { return };
    let directory = tempfile::tempdir().unwrap();
    let operator = Operator::with(Store::open(directory.path()).unwrap(), 1);
    let (old, new) = (
        Client::connect(&Options::new(a.connect_string())).await.unwrap(),
        Client::connect(&Options::new(b.connect_string())).await.unwrap(),
    );
    for client in [&old, &new] {
        create(client, "/app", b"").await;
    }
    for n in 0..5 {
        create(&old, &format!("/app/c{n}"), b"a").await;
        create(&new, &format!("/app/c{n}"), b"b").await;
    }
    let mut definition = Definition::between("d", &a.connect_string(), &b.connect_string());
    definition.verify_seconds = 1;
    (definition.mode, definition.strategy) = (Mode::Both, Strategy::Manual);
    let written = serde_json::to_string(&definition).unwrap();

    // Who asks again under the same key is answered as the first time; under it something else is refused.
    let keyed = async |key: &str, body: &str| {
        let request = Request::builder().method("POST").uri("/api/v1/zksync/links").header("idempotency-key", key);
        let response = operator.router.clone().oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
        (response.status(), response.headers().contains_key("idempotency-replayed"))
    };
    assert_eq!(keyed("k1", &written).await, (StatusCode::CREATED, false));
    assert_eq!(keyed("k1", &written).await, (StatusCode::CREATED, true));
    assert_eq!(keyed("k1", "{}").await, (StatusCode::UNPROCESSABLE_ENTITY, false));
    assert_eq!(keyed("k2", &written).await, (StatusCode::CONFLICT, false));
    assert_eq!(keyed("", &written).await, (StatusCode::BAD_REQUEST, false));

    operator.until_leading("d").await;
    for _ in 0..400 {
        if operator.ask("GET", "/links/d/conflicts", "").await.1["total"] == 5 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let all = r#"{"prefix":"/app/","choice":"a"}"#;
    // What only begins with the same letters is another path.
    let (_, would) = operator.ask("POST", "/links/d/conflicts/resolve", r#"{"prefix":"/app/c","choice":"a","dry_run":true}"#).await;
    assert_eq!(would["conflicts"], json!([]));
    let (status, would) = operator.ask("POST", "/links/d/conflicts/resolve", r#"{"prefix":"/app","choice":"a","dry_run":true}"#).await;
    assert_eq!((status, would["conflicts"].as_array().unwrap().len(), &would["accepted"]), (StatusCode::ACCEPTED, 5, &json!(false)));
    assert_eq!(new.get("/app/c0").await.unwrap().0, b"b", "a dry run changes nothing");
    assert_eq!(operator.ask("POST", "/links/d/conflicts/resolve", r#"{"prefix":"/","choice":"custom"}"#).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(operator.ask("POST", "/links/d/conflicts/resolve", all).await.0, StatusCode::ACCEPTED);
    for n in 0..5 {
        value(&new, &format!("/app/c{n}"), b"a").await;
    }

    let mut page = Value::Null;
    for _ in 0..200 {
        page = operator.ask("GET", "/links/d/resolutions?prefix=/app/c3", "").await.1;
        if page["resolutions"].as_array().is_some_and(|it| it.len() == 1) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let number = page["resolutions"][0]["number"].as_u64().unwrap_or_else(|| panic!("{page}"));
    assert_eq!(operator.ask("POST", "/links/d/resolutions/999999/restore", "").await.0, StatusCode::NOT_FOUND);
    let (status, told) = operator.ask("POST", &format!("/links/d/resolutions/{number}/restore"), "").await;
    assert_eq!((status, told.as_str()), (StatusCode::ACCEPTED, Some("/app/c3 on B is as it was")));
    value(&old, "/app/c3", b"b").await;

    // What is changed is changed for good.
    let (status, link) = operator.ask("PATCH", "/links/d", r#"{"mode":"a_to_b","strategy":"b_wins"}"#).await;
    assert_eq!(
        (status, &link["definition"]["mode"], &link["definition"]["strategy"]),
        (StatusCode::OK, &json!("a_to_b"), &json!("b_wins"))
    );
    let operator = Operator::with(operator.die(directory.path()).await, 2);
    operator.until_leading("d").await;
    let (_, link) = operator.ask("GET", "/links/d", "").await;
    assert_eq!((&link["status"]["mode"], &link["definition"]["strategy"]), (&json!("a_to_b"), &json!("b_wins")));

    operator.until_settled("d").await;
    // Nobody has to ask.
    let reported = async |equal: bool| {
        for _ in 0..400 {
            let (status, report) = operator.ask("GET", "/links/d/verifications", "").await;
            if status == StatusCode::OK && report["found"]["equal"] == json!(equal) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no verification of itself that is {equal}");
    };
    reported(true).await;
    new.set("/app/c1", b"drifted", None).await.unwrap();
    reported(false).await;
    assert!(operator.service.metrics().render().contains(r#"zk_verify_mismatch{link="d"} 1"#));
    assert!(operator.service.metrics().render().contains(r#"zk_sync_watches{link="d",side="a"} 1"#));
    let (_, report) = operator.ask("POST", "/links/d/verifications", "").await;
    assert_eq!(report["found"]["equal"], json!(false));
    let (_, differences) = operator.ask("GET", "/links/d/differences?prefix=/app/c1", "").await;
    assert_eq!(differences["differences"], json!([{ "path": "/app/c1", "kind": "data" }]));

    // The stream tells of the link at once, and again.
    let request = Request::builder().uri("/api/v1/zksync/links/d/events").body(Body::empty()).unwrap();
    let response = operator.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body().into_data_stream();
    let mut heard = String::new();
    while heard.matches("event: link").count() < 3 {
        let some = tokio::time::timeout(Duration::from_secs(5), body.next()).await.unwrap().unwrap().unwrap();
        heard.push_str(&String::from_utf8_lossy(&some));
    }
    assert!(heard.contains(r#""p99_ms""#) && heard.contains(r#""role":"leading""#), "{heard}");
}

/// Neither side's: other data, or nothing. What both had is recorded, and access control lists stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conflict_is_decided_by_other_data_or_by_nothing() {
    let Some((a, b)) = ensembles(1) else { return };
    let directory = tempfile::tempdir().unwrap();
    let operator = Operator::with(Store::open(directory.path()).unwrap(), 1);
    let (old, new) = (
        Client::connect(&Options::new(a.connect_string())).await.unwrap(),
        Client::connect(&Options::new(b.connect_string())).await.unwrap(),
    );
    for client in [&old, &new] {
        create(client, "/app", b"").await;
    }
    let readable = vec![zk::Acl { permissions: 27, scheme: "world".into(), id: "anyone".into() }];
    for name in ["custom", "delete", "list", "bytes"] {
        create(&old, &format!("/app/{name}"), b"a").await;
        create(&new, &format!("/app/{name}"), b"b").await;
    }
    for client in [&old, &new] {
        client.create("/app/absent", b"1", &readable, zk::CreateKind::Persistent).await.unwrap();
    }
    let mut definition = Definition::between("n", &a.connect_string(), &b.connect_string());
    (definition.mode, definition.strategy) = (Mode::Both, Strategy::Manual);
    assert_eq!(operator.ask("POST", "/links", &serde_json::to_string(&definition).unwrap()).await.0, StatusCode::CREATED);
    operator.until_leading("n").await;
    let conflict = async |path: &str| {
        for _ in 0..400 {
            let (_, page) = operator.ask("GET", &format!("/links/n/conflicts?prefix={path}"), "").await;
            if let Some(number) = page["conflicts"][0]["id"].as_u64() {
                return number;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no conflict about {path}");
    };
    let closed = async |path: &str| {
        for _ in 0..400 {
            if operator.ask("GET", &format!("/links/n/conflicts?prefix={path}"), "").await.1["total"] == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the conflict about {path} stays open");
    };
    let decide = async |path: &str, decision: Value| {
        let number = conflict(path).await;
        let (_, now) = operator.ask("GET", &format!("/links/n/conflicts/{number}"), "").await;
        let mut decision = decision;
        decision["expect"] = json!({ "a_mzxid": now["a"]["mzxid"], "b_mzxid": now["b"]["mzxid"] });
        let (status, answer) = operator.ask("POST", &format!("/links/n/conflicts/{number}/resolve"), &decision.to_string()).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{path}: {answer}");
        closed(path).await;
    };
    // Both sides may be equal a moment before it is told why.
    let records = async |path: &str, count: usize| {
        for _ in 0..400 {
            let (_, page) = operator.ask("GET", &format!("/links/n/resolutions?prefix={path}"), "").await;
            let told = page["resolutions"].as_array().unwrap();
            if told.len() >= count {
                return told.clone();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{count} resolutions about {path} are not told");
    };
    decide("/app/custom", json!({ "choice": "custom", "data": "c" })).await;
    for client in [&old, &new] {
        value(client, "/app/custom", b"c").await;
    }
    let told = records("/app/custom", 2).await;
    assert_eq!((told.len(), &told[1]["winner"]), (2, &json!("operator")), "{told:?}");
    assert_eq!((&told[1]["sides"]["a"]["data"], &told[0]["sides"]["b"]["data"]), (&json!(b"a"), &json!(b"b")));
    let number = conflict("/app/list").await;
    for wrong in [
        json!({ "choice": "custom" }),
        json!({ "choice": "custom", "data": "", "data_base64": "" }),
        json!({ "choice": "custom", "data_base64": "?" }),
    ] {
        let (status, _) = operator.ask("POST", &format!("/links/n/conflicts/{number}/resolve"), &wrong.to_string()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong}");
    }
    // What is no text is shown, and told, in base64.
    old.set("/app/bytes", b"\xff\x00a", None).await.unwrap();
    let number = conflict("/app/bytes").await;
    let (_, now) = operator.ask("GET", &format!("/links/n/conflicts/{number}"), "").await;
    assert_eq!((&now["a"]["base64"], &now["a"]["text"], &now["b"]["text"]), (&json!("/wBh"), &Value::Null, &json!("b")));
    decide("/app/bytes", json!({ "choice": "custom", "data_base64": "/wBi" })).await;
    value(&new, "/app/bytes", b"\xff\x00b").await;
    // As large as a znode may be, which in base64 is more.
    old.set("/app/bytes", b"1", None).await.unwrap();
    value(&new, "/app/bytes", b"1").await;
    operator.until_settled("n").await;
    let pausing = operator.service.handle("n").unwrap();
    pausing.tell(zksync::Command::Pause).await.unwrap();
    old.set("/app/bytes", b"2", None).await.unwrap();
    new.set("/app/bytes", b"3", None).await.unwrap();
    pausing.tell(zksync::Command::Resume).await.unwrap();
    let number = conflict("/app/bytes").await;
    let (_, now) = operator.ask("GET", &format!("/links/n/conflicts/{number}"), "").await;
    assert_eq!((&now["base_text"], &now["b"]["text"]), (&json!("1"), &json!("3")), "all three are shown: {now}");
    let large = vec![0xfe; 900_000];
    decide("/app/bytes", json!({ "choice": "custom", "data_base64": BASE64.encode(&large) })).await;
    value(&new, "/app/bytes", &large).await;
    // What both had before is what an operator may go back to.
    old.set("/app/custom", b"agreed", None).await.unwrap();
    value(&new, "/app/custom", b"agreed").await;
    operator.until_settled("n").await;
    pausing.tell(zksync::Command::Pause).await.unwrap();
    old.set("/app/custom", b"4", None).await.unwrap();
    new.set("/app/custom", b"5", None).await.unwrap();
    pausing.tell(zksync::Command::Resume).await.unwrap();
    decide("/app/custom", json!({ "choice": "base" })).await;
    for client in [&old, &new] {
        value(client, "/app/custom", b"agreed").await;
    }
    let number = conflict("/app/list").await;
    let (status, why) = operator.ask("POST", &format!("/links/n/conflicts/{number}/resolve"), r#"{"choice":"base"}"#).await;
    assert_eq!(status, StatusCode::CONFLICT, "made on both sides, it had no base: {why}");
    decide("/app/delete", json!({ "choice": "delete" })).await;
    for client in [&old, &new] {
        assert_eq!(client.stat("/app/delete").await.unwrap(), None);
    }
    // What the operator wrote over can be put back, with its list.
    let number = records("/app/delete", 2).await[1]["number"].as_u64().unwrap();
    assert_eq!(operator.ask("POST", &format!("/links/n/resolutions/{number}/restore"), "").await.0, StatusCode::ACCEPTED);
    value(&new, "/app/delete", b"a").await;

    // One side has deleted it: what an operator makes there instead is open to nobody else than the other side's.
    operator.until_settled("n").await;
    let handle = operator.service.handle("n").unwrap();
    handle.tell(zksync::Command::Pause).await.unwrap();
    old.delete("/app/absent", None).await.unwrap();
    new.set("/app/absent", b"2", None).await.unwrap();
    handle.tell(zksync::Command::Resume).await.unwrap();
    decide("/app/absent", json!({ "choice": "custom", "data": "3" })).await;
    value(&new, "/app/absent", b"3").await;
    assert_eq!((old.get("/app/absent").await.unwrap().0, old.acl("/app/absent").await.unwrap()), (b"3".to_vec(), readable.clone()));

    // A conflict of lists alone: what is put back is the list.
    decide("/app/list", json!({ "choice": "a" })).await;
    operator.until_settled("n").await;
    handle.tell(zksync::Command::Pause).await.unwrap();
    let other = vec![zk::Acl { permissions: 29, scheme: "world".into(), id: "anyone".into() }];
    old.set_acl("/app/list", &readable, None).await.unwrap();
    new.set_acl("/app/list", &other, None).await.unwrap();
    handle.tell(zksync::Command::Resume).await.unwrap();
    handle.tell(zksync::Command::Resync).await.unwrap();
    decide("/app/list", json!({ "choice": "a" })).await;
    assert_eq!(new.acl("/app/list").await.unwrap(), readable);
    let number = records("/app/list", 2).await[0]["number"].as_u64().unwrap();
    assert_eq!(operator.ask("POST", &format!("/links/n/resolutions/{number}/restore"), "").await.0, StatusCode::ACCEPTED);
    assert_eq!(new.acl("/app/list").await.unwrap(), other);
    assert_eq!(new.get("/app/list").await.unwrap().0, b"a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_grpc_a_link_is_made_watched_verified_and_moved_with_hooks_that_know_who_calls() {
    let Some((a, b)) = ensembles(1) else { return };
    let directory = tempfile::tempdir().unwrap();
    let operator = Operator::with(Store::open(directory.path()).unwrap(), 1);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming =
        futures::stream::unfold(listener, |listener| async move { Some((listener.accept().await.map(|(stream, _)| stream), listener)) });
    let server = tonic::transport::Server::builder().add_service(zksync_service::grpc::server(operator.service.clone()));
    let mut running = JoinSet::new();
    running.spawn(async move { server.serve_with_incoming(Box::pin(incoming)).await.unwrap() });
    let mut client =
        ZkSyncClient::new(tonic::transport::Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap());

    let old = Client::connect(&Options::new(a.connect_string())).await.unwrap();
    create(&old, "/app", b"1").await;
    let definition = serde_json::to_string(&Definition::between("g", &a.connect_string(), &b.connect_string())).unwrap();
    let code = |result: Result<tonic::Response<wire::Link>, tonic::Status>| result.unwrap_err().code();
    assert_eq!(code(client.get_link(wire::GetLinkRequest { id: "g".into() }).await), tonic::Code::NotFound);
    assert_eq!(code(client.create_link(wire::CreateLinkRequest { definition: "{".into() }).await), tonic::Code::InvalidArgument);
    let found = client.plan(wire::PlanRequest { definition: definition.clone() }).await.unwrap().into_inner();
    assert!(found.blockers.is_empty() && found.differing >= 1, "{found:?}");
    assert!(found.a.as_ref().is_some_and(|a| a.nodes == found.nodes_a && a.session_timeout_ms > 0 && a.recursive_watches), "{found:?}");
    client.create_link(wire::CreateLinkRequest { definition: definition.clone() }).await.unwrap();
    assert_eq!(code(client.create_link(wire::CreateLinkRequest { definition }).await), tonic::Code::FailedPrecondition);
    let mut watching = client.watch_link(wire::WatchLinkRequest { id: "g".into() }).await.unwrap().into_inner();
    loop {
        let link = tokio::time::timeout(Duration::from_secs(60), watching.message()).await.unwrap().unwrap().unwrap();
        if link.status.is_some_and(|status| status.state == "live" && status.pairs >= 2 && status.created.is_some_and(|it| it.b >= 1)) {
            break;
        }
    }
    let never = client.get_verification(wire::GetVerificationRequest { id: "g".into() }).await.unwrap_err();
    assert_eq!(never.code(), tonic::Code::NotFound);
    let report = client.verify(wire::VerifyRequest { id: "g".into() }).await.unwrap().into_inner();
    assert!(report.equal && report.nodes_a >= 2 && report.bytes_a >= 1 && report.link == "g", "{report:?}");
    assert_eq!(client.get_verification(wire::GetVerificationRequest { id: "g".into() }).await.unwrap().into_inner(), report);
    let health = client.get_health(wire::GetHealthRequest {}).await.unwrap().into_inner();
    assert!(health.ok && health.problems.is_empty(), "{health:?}");
    let status = client.get_link(wire::GetLinkRequest { id: "g".into() }).await.unwrap().into_inner().status.unwrap();
    assert!(status.epoch_a > 0 && status.queued == Some(wire::PerSide { a: 0, b: 0 }) && status.scanning_a.is_none(), "{status:?}");
    let both = wire::ResolveConflictRequest {
        id: "g".into(),
        number: 1,
        choice: wire::Choice::Custom.into(),
        data: Some("text".into()),
        data_bytes: Some(vec![0xff]),
        expect: None,
    };
    assert_eq!(client.resolve_conflict(both.clone()).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    let missing = wire::ResolveConflictRequest { data: None, ..both };
    assert_eq!(client.resolve_conflict(missing).await.unwrap_err().code(), tonic::Code::NotFound);

    // Hooks are called with the token that the plan's file has.
    let called: Arc<Mutex<Vec<(String, String, Value)>>> = Arc::default();
    let calls = called.clone();
    let hook = axum::Router::new().route(
        "/{what}",
        post(move |path: axum::extract::Path<String>, headers: http::HeaderMap, body: axum::Json<Value>| {
            let token = headers.get("authorization").and_then(|it| it.to_str().ok()).unwrap_or_default().to_owned();
            calls.lock().unwrap().push((path.0, token, body.0));
            async { "done" }
        }),
    );
    let hooks = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = hooks.local_addr().unwrap();
    running.spawn(async move { axum::serve(hooks, hook).await.unwrap() });
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "t0ken\n").unwrap();
    let plan = json!({
        "link": "g", "freeze_hook": format!("http://{at}/freeze"), "switch_hook": format!("http://{at}/switch"),
        "switch_back_hook": format!("http://{at}/back"), "unfreeze_hook": format!("http://{at}/unfreeze"),
        "hook_token_file": token.path(), "deadlines": { "switch": 60 },
    });
    client.start_migration(wire::StartMigrationRequest { plan: plan.to_string() }).await.unwrap();
    let advance = wire::ControlMigrationRequest { link: "g".into(), action: wire::MigrationAction::Advance.into(), force: false };
    assert_eq!(client.control_migration(advance).await.unwrap_err().code(), tonic::Code::FailedPrecondition);
    let mut watching = client.watch_migration(wire::WatchMigrationRequest { link: "g".into() }).await.unwrap().into_inner();
    let mut phases = Vec::new();
    while phases.last().is_none_or(|phase| phase != "drain") {
        let page = tokio::time::timeout(Duration::from_secs(60), watching.message()).await.unwrap().unwrap().unwrap();
        if phases.last() != Some(&page.phase) {
            phases.push(page.phase.clone());
            if page.phase == "ready" {
                assert!(page.preparation.is_some() && page.verification.as_ref().is_some_and(|it| it.equal), "{page:?}");
                let forced = wire::MigrationAction::Cutover.into();
                let forced = wire::ControlMigrationRequest { link: "g".into(), action: forced, force: true };
                assert_eq!(client.control_migration(forced).await.unwrap_err().code(), tonic::Code::InvalidArgument);
                let cutover =
                    wire::ControlMigrationRequest { link: "g".into(), action: wire::MigrationAction::Cutover.into(), force: false };
                client.control_migration(cutover).await.unwrap();
            }
        }
    }
    let rollback = wire::ControlMigrationRequest { link: "g".into(), action: wire::MigrationAction::Rollback.into(), force: false };
    client.control_migration(rollback).await.unwrap();
    while phases.last().is_none_or(|phase| phase != "rolled_back") {
        let page = tokio::time::timeout(Duration::from_secs(60), watching.message()).await.unwrap().unwrap().unwrap();
        phases.push(page.phase.clone());
    }
    for _ in 0..200 {
        if called.lock().unwrap().len() >= 5 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let told = called.lock().unwrap().clone();
    let call = |path: &str, action: &str, side: &str, phase: &str| {
        (path.to_owned(), "Bearer t0ken".to_owned(), json!({ "action": action, "link": "g", "side": side, "phase": phase }))
    };
    let wanted = [
        call("freeze", "freeze", "a", "freeze"),
        call("switch", "switch", "b", "switch"),
        call("freeze", "freeze", "b", "rollback_freeze"),
        call("back", "switch_back", "a", "rollback_switch"),
        call("unfreeze", "unfreeze", "a", "rolled_back"),
    ];
    assert_eq!(told, wanted, "{phases:?}");
}
