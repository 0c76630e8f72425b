//! A migration between real ensembles, as an operator does it: through the API.

use std::time::Duration;

use crate::common::{create, ensembles};
use crate::operator::Operator;
use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tower::ServiceExt as _;
use zk::{Acl, Client, CreateKind, Options};
use zksync_service::definition::Definition;
use zksync_service::store::Store;
use zksync_service::witness::Holder;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_names_who_stayed_behind_and_goes_back_with_everything_written_since() {
    let Some((a, b)) = ensembles(1) else { return };
    let directory = tempfile::tempdir().unwrap();
    let operator = Operator::with(Store::open(directory.path()).unwrap(), 1);
    let old = Client::connect(&Options::new(a.connect_string())).await.unwrap();
    let new = Client::connect(&Options::new(b.connect_string())).await.unwrap();
    old.create_all("/app/queue").await.unwrap();
    old.create_all("/app/box").await.unwrap();
    for _ in 0..7 {
        let path = old.create("/app/queue/n-", b"", &Acl::open(), CreateKind::PersistentSequential).await.unwrap();
        if !path.ends_with('0') {
            old.delete(&path, None).await.unwrap();
        }
    }
    // Deeper than a server's clients usually go, and than is copied.
    old.create_all(&"/d".repeat(300)).await.unwrap();
    let mut definition = serde_json::to_value(Definition::between("m", &a.connect_string(), &b.connect_string())).unwrap();
    definition["types"] = json!([{ "path": "/app/box", "kind": "container" }]);
    let (status, found) = operator.ask("POST", "/plan", &definition.to_string()).await;
    assert_eq!((status, &found["blockers"]), (StatusCode::OK, &json!([])), "{found}");
    assert!(found["warnings"].to_string().contains("1 subtrees of A are too deep"), "{found}");
    assert_eq!(found["a"]["versions"], found["b"]["versions"]);
    assert!(found["a"]["versions"][0].as_str().is_some_and(|version| version.starts_with("3.")), "{found}");
    assert!(new.stat("/app").await.unwrap().is_none(), "a plan writes nothing");
    assert_eq!(operator.ask("POST", "/links", &definition.to_string()).await.0, StatusCode::CREATED);
    for _ in 0..200 {
        if operator.ask("POST", "/migrations", r#"{"link":"m"}"#).await.0 == StatusCode::CREATED {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(operator.ask("POST", "/migrations/m/advance", "").await.0, StatusCode::CONFLICT, "not yet");
    operator.until_phase("m", "ready").await;

    // Somebody goes on writing: the proof fails, and says who is connected.
    let writer = old.clone();
    let mut writing = JoinSet::new();
    writing.spawn(async move {
        for n in 0.. {
            let _ = writer.set("/app", format!("{n}").as_bytes(), None).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let straggler =
        Holder { host: "h7".into(), pid: 4_711, process: "java".into(), container: None, server: a.connect_string(), connections: 2 };
    *operator.witness.0.lock().unwrap() = vec![straggler];
    assert_eq!(operator.ask("POST", "/migrations/m/cutover", "").await.0, StatusCode::ACCEPTED);
    let page = operator.until_phase("m", "verify").await;
    let history = page["migration"]["history"].to_string();
    assert!(history.contains("/app was written although") && history.contains("java (pid 4711) on h7"), "{history}");
    writing.shutdown().await;

    operator.until_phase("m", "ready").await;
    assert_eq!(operator.ask("POST", "/migrations/m/cutover", "").await.0, StatusCode::ACCEPTED);
    operator.until_phase("m", "switch").await;
    let next = new.create("/app/queue/n-", b"b", &Acl::open(), CreateKind::PersistentSequential).await.unwrap();
    assert!(next.as_str() > "/app/queue/n-0000000006", "{next}: numbers that A gave are not given again");
    assert_eq!(operator.ask("POST", "/migrations/m/advance", "").await.0, StatusCode::ACCEPTED);
    let page = operator.until_phase("m", "confirm").await;
    assert_eq!(page["migration"]["phase"], "confirm");
    for _ in 0..200 {
        let (_, page) = operator.ask("GET", "/migrations/m", "").await;
        if page["migration"]["waiting_for"].as_str().is_some_and(|text| text.contains("java (pid 4711) on h7")) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    operator.witness.0.lock().unwrap().clear();
    operator.until_phase("m", "drain").await;
    create(&new, "/app/on-b", b"kept").await;

    // The process dies; another one with the same store goes on where it was, with B as the one that counts.
    operator.stop.cancel();
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(operator);
    let mut store = Store::open(directory.path());
    while store.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
        store = Store::open(directory.path());
    }
    let operator = Operator::with(store.unwrap(), 2);
    operator.until_phase("m", "drain").await;
    assert_eq!(operator.ask("POST", "/migrations/m/rollback", "").await.0, StatusCode::ACCEPTED);
    // Nobody else moves the clients back: they are waited for, and one who has stayed is named.
    operator.until_phase("m", "rollback_switch").await;
    let behind =
        Holder { host: "h8".into(), pid: 815, process: "java".into(), container: None, server: b.connect_string(), connections: 1 };
    *operator.witness.0.lock().unwrap() = vec![behind];
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(operator.ask("POST", "/migrations/m/advance", "").await.0, StatusCode::ACCEPTED);
    operator.until_waiting("m", "still connected to the new ensemble: java (pid 815) on h8").await;
    operator.witness.0.lock().unwrap().clear();
    operator.until_phase("m", "rolled_back").await;
    operator.until_status("m", "paused").await;
    assert_eq!(old.get("/app/on-b").await.unwrap().0, b"kept", "what was written since the switch came back");
    let after = old.create("/app/queue/n-", b"a", &Acl::open(), CreateKind::PersistentSequential).await.unwrap();
    assert!(after > next, "{after} after {next}: numbers that B gave are not given again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_is_complete_leaves_nothing_of_ours_on_either_side() {
    let Some((a, b)) = ensembles(1) else { return };
    let directory = tempfile::tempdir().unwrap();
    let operator = Operator::with(Store::open(directory.path()).unwrap(), 1);
    let old = Client::connect(&Options::new(a.connect_string())).await.unwrap();
    let new = Client::connect(&Options::new(b.connect_string())).await.unwrap();
    create(&old, "/app", b"1").await;
    let mut definition = serde_json::to_value(Definition::between("c", &a.connect_string(), &b.connect_string())).unwrap();
    definition["full_pass_seconds"] = json!(3_600);
    assert_eq!(operator.ask("POST", "/links", &definition.to_string()).await.0, StatusCode::CREATED);
    for _ in 0..200 {
        if operator.ask("POST", "/migrations", r#"{"link":"c"}"#).await.0 == StatusCode::CREATED {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (phase, action) in [("ready", "cutover"), ("switch", "advance")] {
        operator.until_phase("c", phase).await;
        assert_eq!(operator.ask("POST", &format!("/migrations/c/{action}"), "").await.0, StatusCode::ACCEPTED, "{action}");
    }
    operator.until_phase("c", "drain").await;
    // Somebody has written on the old one since: nobody would have it.
    create(&old, "/app/stray", b"x").await;
    assert_eq!(operator.ask("POST", "/migrations/c/complete", "").await.0, StatusCode::ACCEPTED);
    operator.until_waiting("c", "1 znodes differ, e.g. /app/stray").await;
    old.delete("/app/stray", None).await.unwrap();
    for _ in 0..200 {
        operator.ask("POST", "/migrations/c/complete", "").await;
        if operator.ask("GET", "/migrations/c", "").await.1["migration"]["phase"] == "complete" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    operator.until_phase("c", "complete").await;
    let ours = async || (old.stat("/__zksync").await.unwrap(), new.stat("/__zksync").await.unwrap());
    for _ in 0..200 {
        if ours().await == (None, None) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // And nothing comes back.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(ours().await, (None, None));
    create(&new, "/app/later", b"2").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(old.stat("/app/later").await.unwrap(), None, "the old one does not follow any more");
    // Whoever comes after still tells what became of it.
    let operator = Operator::with(operator.die(directory.path()).await, 2);
    let page = operator.until_phase("c", "complete").await;
    assert_eq!(page["migration"]["owed"], json!([]));
    let (_, link) = operator.ask("GET", "/links/c", "").await;
    assert_eq!(link["role"], "complete", "nobody leads it, and nobody is looked for: {link}");
    assert_eq!(operator.ask("POST", "/links/c/resync", "").await.0, StatusCode::CONFLICT);
    assert_eq!(operator.ask("DELETE", "/links/c", "").await.0, StatusCode::OK);
}

/// What would only show when everything is copied already, or when it is too late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_b_does_not_take_is_found_before_anything_is_copied() {
    let Some((a, b)) = ensembles(1) else { return };
    let directory = tempfile::tempdir().unwrap();
    let operator = Operator::with(Store::open(directory.path()).unwrap(), 1);
    let (old, new) = (
        Client::connect(&Options::new(a.connect_string())).await.unwrap(),
        Client::connect(&Options::new(b.connect_string())).await.unwrap(),
    );
    create(&old, "/app", &vec![b'x'; 300_000]).await;
    for path in ["/zookeeper/quota/app", "/zookeeper/quota/app/zookeeper_limits"] {
        create(&old, path, b"count=-1,bytes=-1").await;
    }
    let readable = vec![Acl { permissions: 1, scheme: "world".into(), id: "anyone".into() }];
    new.create("/app", b"", &readable, CreateKind::Persistent).await.unwrap();
    let mut definition = serde_json::to_value(Definition::between("p", &a.connect_string(), &b.connect_string())).unwrap();
    definition["mappings"] = json!([{ "a": "/app", "b": "/app" }]);
    definition["types"] = json!([{ "path": "/app/t", "kind": { "ttl_ms": 1000 } }]);
    let (_, found) = operator.ask("POST", "/plan", &definition.to_string()).await;
    let (blockers, warnings) = (found["blockers"].to_string(), found["warnings"].to_string());
    assert!(blockers.contains("nothing can be created below /app on B") && blockers.contains("/app on B cannot be changed"), "{found}");
    assert!(warnings.contains("1 quotas of A are not copied, e.g. that of /app"), "{found}");
    assert_eq!(new.children("/").await.unwrap().len(), 2, "a plan writes nothing");
    // The migration itself tries what B takes.
    definition["mappings"] = json!([{ "a": "/app", "b": "/moved" }]);
    assert_eq!(operator.ask("POST", "/links", &definition.to_string()).await.0, StatusCode::CREATED);
    operator.until_leading("p").await;
    assert_eq!(operator.ask("POST", "/migrations", r#"{"link":"p"}"#).await.0, StatusCode::CREATED);
    for _ in 0..400 {
        if operator.ask("GET", "/migrations/p", "").await.1["preparation"]["blockers"].is_array() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (_, page) = operator.ask("GET", "/migrations/p", "").await;
    let blockers = page["preparation"]["blockers"].as_array().unwrap();
    assert!(blockers.iter().all(|it| it.to_string().contains("time to live")), "300 000 bytes are taken, whatever else: {blockers:?}");
    assert_eq!(new.stat("/__zksync/links/p/trial").await.unwrap(), None, "what was tried is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_gone_leaves_nothing_of_ours_and_its_subtree_to_others() {
    let Some((a, b)) = ensembles(1) else { return };
    let directory = tempfile::tempdir().unwrap();
    let operator = Operator::with(Store::open(directory.path()).unwrap(), 1);
    let clients = [
        Client::connect(&Options::new(a.connect_string())).await.unwrap(),
        Client::connect(&Options::new(b.connect_string())).await.unwrap(),
    ];
    create(&clients[0], "/app", b"1").await;
    let written = |id: &str| serde_json::to_string(&Definition::between(id, &a.connect_string(), &b.connect_string())).unwrap();
    assert_eq!(operator.ask("POST", "/links", &written("one")).await.0, StatusCode::CREATED);
    operator.until_leading("one").await;
    operator.until_settled("one").await;
    let (status, why) = operator.ask("POST", "/links", &written("two")).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(why.to_string().contains("already pairs /"), "{why}");
    assert_eq!(operator.ask("DELETE", "/links/one", "").await.0, StatusCode::OK);
    for client in &clients {
        for _ in 0..400 {
            if client.stat("/__zksync").await.unwrap().is_none() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(client.stat("/__zksync").await.unwrap(), None);
        assert_eq!(client.get("/app").await.unwrap().0, b"1", "what it copied stays");
    }
    assert!(!operator.service.metrics().render().contains(r#"link="one""#));
    assert_eq!(operator.ask("POST", "/links", &written("two")).await.0, StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_is_refused_in_words() {
    let directory = tempfile::tempdir().unwrap();
    let operator = Operator::with(Store::open(directory.path()).unwrap(), 1);
    let good = serde_json::to_value(Definition::between("x", "127.0.0.1:1", "127.0.0.1:2")).unwrap();
    let with = |key: &str, value: Value| {
        let mut changed = good.clone();
        changed[key] = value;
        changed.to_string()
    };
    for (body, told) in [
        ("{".to_owned(), "the body: EOF"),
        (with("id", json!("../etc")), "1 to 64 letters"),
        (with("surprise", json!(1)), "unknown field `surprise`"),
        (with("mode", json!("sideways")), "unknown variant `sideways`"),
        (with("mappings", json!([{ "a": "/zookeeper", "b": "/z" }])), "never copied"),
        (with("mappings", json!([{ "a": "/a", "b": "/b" }, { "a": "/a/x", "b": "/c" }])), "overlap"),
        (with("a", json!({ "connect": "" })), "no server"),
        (with("a", json!({ "connect": "h:1", "digest_file": "/nowhere" })), "/nowhere"),
        (with("full_pass_seconds", json!(0)), "not between"),
    ] {
        let (status, answer) = operator.ask("POST", "/links", &body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert!(answer.as_str().is_some_and(|answer| answer.contains(told)), "{body}: {answer}");
    }
    for (method, path, status) in [
        ("GET", "/links/none", StatusCode::NOT_FOUND),
        ("POST", "/links/none/pause", StatusCode::NOT_FOUND),
        ("POST", "/links/none/verifications", StatusCode::NOT_FOUND),
        ("GET", "/migrations/none", StatusCode::NOT_FOUND),
        ("DELETE", "/links/none", StatusCode::NOT_FOUND),
        ("GET", "/links", StatusCode::OK),
        ("GET", "/health", StatusCode::OK),
    ] {
        assert_eq!(operator.ask(method, path, "").await.0, status, "{method} {path}");
    }
    // Whatever a page of another site asks for, whoever its reader is.
    for (path, header, value, status) in [
        ("/links", "sec-fetch-site", "cross-site", StatusCode::FORBIDDEN),
        ("/plan", "origin", "http://evil.example", StatusCode::FORBIDDEN),
        ("/links/none/pause", "origin", "null", StatusCode::FORBIDDEN),
        ("/links", "content-type", "text/plain;charset=UTF-8", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("/links/none/pause", "content-type", "application/x-www-form-urlencoded", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("/links/none/pause", "origin", "http://here", StatusCode::NOT_FOUND),
    ] {
        let request = Request::builder().method("POST").uri(format!("/api/v1/zksync{path}")).header("host", "here").header(header, value);
        let response = operator.router.clone().oneshot(request.body(Body::from(good.to_string())).unwrap()).await.unwrap();
        assert_eq!(response.status(), status, "{path} {header}: {value}");
    }
    // A file of the machine is not told to whoever asks for it.
    for path in ["/links", "/plan"] {
        for file in ["digest_file", "sasl_file"] {
            let (status, answer) = operator.ask("POST", path, &with("a", json!({ "connect": "h:1", file: "/etc/hostname" }))).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
            assert!(answer.to_string().contains("must be below"), "{path}: {answer}");
        }
    }
    let plan = json!({ "link": "x", "hook_token_file": "/etc/hostname", "freeze_hook": "http://127.0.0.1:1/" }).to_string();
    assert_eq!(operator.ask("POST", "/migrations", &plan).await.0, StatusCode::BAD_REQUEST);
    let huge = format!("\"{}\"", "x".repeat(1 << 20));
    assert_eq!(operator.ask("POST", "/links", &huge).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    // An ensemble that is not there is waited for, and that is told.
    assert_eq!(operator.ask("POST", "/links", &good.to_string()).await.0, StatusCode::CREATED);
    assert_eq!(operator.ask("POST", "/links", &good.to_string()).await.0, StatusCode::CONFLICT);
    assert_eq!(operator.ask("POST", "/links/x/pause", "").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(operator.ask("GET", "/health", "").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(operator.ask("DELETE", "/links/x", "").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_paused_stays_so_until_it_is_resumed_whoever_leads_by_then() {
    let Some((a, b)) = ensembles(1) else { return };
    let directory = tempfile::tempdir().unwrap();
    let operator = Operator::with(Store::open(directory.path()).unwrap(), 1);
    let clients = [
        Client::connect(&Options::new(a.connect_string())).await.unwrap(),
        Client::connect(&Options::new(b.connect_string())).await.unwrap(),
    ];
    let written = serde_json::to_string(&Definition::between("p", &a.connect_string(), &b.connect_string())).unwrap();
    assert_eq!(operator.ask("POST", "/links", &written).await.0, StatusCode::CREATED);
    operator.until_leading("p").await;
    operator.until_settled("p").await;
    assert_eq!(operator.ask("POST", "/links/p/pause", "").await.0, StatusCode::ACCEPTED);
    let operator = Operator::with(operator.die(directory.path()).await, 2);
    operator.until_leading("p").await;
    operator.until_status("p", "paused").await;
    create(&clients[0], "/later", b"1").await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(clients[1].stat("/later").await.unwrap(), None);
    assert_eq!(operator.ask("POST", "/links/p/resume", "").await.0, StatusCode::ACCEPTED);
    for _ in 0..400 {
        if clients[1].stat("/later").await.unwrap().is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it was resumed: {:#?}", operator.service.handle("p").unwrap().status());
}
