//! Where something ends: how large a request may be, what servers are not made for, how much is recorded, and a copy that is taken for its original.

use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use proto::zksync::v1 as wire;
use proto::zksync::v1::zk_sync_client::ZkSyncClient;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use zk::testing::{Ensemble, ServerOptions, on_test_machine};
use zk::{Acl, Client, CreateKind, Options};
use zksync::{LinkState, Mode, TypeRule, ZnodeKind};
use zksync_service::definition::Definition;
use zksync_service::prepare::{Trial, prepare};
use zksync_service::store::Store;
use zksync_service::verify::Known;

use crate::common::{World, create, ensembles, until};
use crate::operator::Operator;

async fn connect(to: &str) -> Client {
    Client::connect(&Options::new(to)).await.expect("the servers of a test answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_read_up_to_their_limit_and_not_beyond() {
    let directory = tempfile::tempdir().unwrap();
    let operator = Operator::with(Store::open(directory.path()).unwrap(), 1);
    let of = |bytes: usize| {
        let empty = json!({ "choice": "custom", "data_base64": "" }).to_string();
        let data = "A".repeat(bytes - empty.len());
        empty.replace(r#""data_base64":"""#, &format!(r#""data_base64":"{data}""#))
    };
    // There is no such link; whether that is noticed tells whether the request was read.
    for (path, limit) in
        [("/links/x/conflicts/1/resolve", 2 * 1024 * 1024), ("/links/x/conflicts/resolve", 256 * 1024), ("/links", 256 * 1024)]
    {
        let (within, beyond) = (of(limit), of(limit + 1));
        assert_eq!((within.len(), beyond.len()), (limit, limit + 1));
        let (status, why) = operator.ask("POST", path, &within).await;
        assert!(matches!(status, StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST), "{path}: {status} {why}");
        assert_eq!(operator.ask("POST", path, &beyond).await.0, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
    }
    // The largest znode that is usually copied fits, in base64.
    assert!(BASE64.encode(vec![0; 1_047_000]).len() + 1_000 < 2 * 1024 * 1024);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn znodes_with_a_time_to_live_are_refused_where_the_servers_have_none() {
    if !on_test_machine() {
        return;
    }
    let without = ServerOptions { properties: Vec::new(), ..ServerOptions::default() };
    let (a, b) = (Ensemble::start(1, &without), Ensemble::start(1, &without));
    let mut definition = Definition::between("ttl", &a.connect_string(), &b.connect_string());
    let blockers = async |definition: &Definition| {
        let config = definition.config().unwrap();
        prepare(definition, &config, &Known::default(), Trial::Written).await.unwrap().blockers
    };
    assert_eq!(blockers(&definition).await, Vec::<String>::new());
    definition.types = vec![TypeRule { path: "/app/lease".into(), kind: ZnodeKind::TtlMs(60_000) }];
    let told = blockers(&definition).await;
    assert!(told.len() == 1 && told[0].contains("extendedTypesEnabled"), "{told:?}");
}

/// The registry came with the data: both ensembles have one name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_has_the_name_of_its_original_gets_one_of_its_own() {
    let Some((a, b)) = ensembles(1) else { return };
    let (old, new) = (connect(&a.connect_string()).await, connect(&b.connect_string()).await);
    for client in [&old, &new] {
        client.create_all("/__zksync").await.unwrap();
        client.create("/__zksync/registry", b"one name", &Acl::open(), CreateKind::Persistent).await.unwrap();
        create(client, "/app", b"1").await;
    }
    let definition = Definition::between("copy", &a.connect_string(), &b.connect_string());
    let config = definition.config().unwrap();
    let planned = prepare(&definition, &config, &Known::default(), Trial::Nothing).await.unwrap();
    assert_eq!(planned.blockers, Vec::<String>::new(), "they are seen to be two");
    let world = World::start(definition).await;
    until("it is live", || world.handle.status().state == LinkState::Live).await;
    create(&old, "/app/x", b"2").await;
    world.until_equal_below("/app").await;
    let name = async |client: &Client| client.get("/__zksync/registry").await.unwrap().0;
    assert_eq!(name(&old).await, b"one name");
    assert_ne!(name(&new).await, b"one name");
    assert!(!old.children("/__zksync").await.unwrap().iter().any(|name| name.starts_with("apart")), "nothing of that is left");
}

/// A conflict about large values is recorded with both of them whole, and what lost can be put back; what was deleted is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_values_that_lose_can_be_put_back_whole() {
    let Some((a, b)) = ensembles(1) else { return };
    let directory = tempfile::tempdir().unwrap();
    let operator = Operator::with(Store::open(directory.path()).unwrap(), 1);
    let mut definition = serde_json::to_value(Definition::between("l", &a.connect_string(), &b.connect_string())).unwrap();
    definition["mode"] = json!(Mode::Both);
    definition["strategy"] = json!("a_wins");
    assert_eq!(operator.ask("POST", "/links", &definition.to_string()).await.0, StatusCode::CREATED);
    operator.until_leading("l").await;
    operator.until_settled("l").await;
    let (old, new) = (connect(&a.connect_string()).await, connect(&b.connect_string()).await);
    create(&old, "/gone", b"123").await;
    create(&old, "/large", b"").await;
    operator.until_settled("l").await;
    old.delete("/gone", None).await.unwrap();
    let (won, lost) = (vec![1; 1_047_000], vec![2; 1_047_000]);
    let link = operator.service.handle("l").unwrap();
    link.tell(zksync::Command::Pause).await.unwrap();
    old.set("/large", &won, None).await.unwrap();
    new.set("/large", &lost, None).await.unwrap();
    link.tell(zksync::Command::Resume).await.unwrap();
    let mut page = Value::Null;
    for _ in 0..1_200 {
        page = operator.ask("GET", "/links/l/resolutions", "").await.1;
        if page["resolutions"].as_array().is_some_and(|told| !told.is_empty()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let told = &page["resolutions"][0];
    let side = &told["sides"]["b"];
    assert_eq!((&side["cut"], &side["size"], side["data"].as_array().unwrap().len()), (&json!(true), &json!(1_047_000), 65_536));
    let number = told["number"].as_u64().unwrap();
    let (_, whole) = operator.ask("GET", &format!("/links/l/resolutions/{number}"), "").await;
    for (side, n) in [("a", 1), ("b", 2)] {
        let data = whole["sides"][side]["data"].as_array().unwrap();
        assert!(whole["sides"][side]["cut"] == json!(false) && data.len() == 1_047_000 && data.iter().all(|byte| *byte == json!(n)));
    }
    assert_eq!(operator.ask("GET", "/links/l/resolutions/99", "").await.0, StatusCode::NOT_FOUND);
    let asked = Request::builder().uri(format!("/api/v1/zksync/links/l/resolutions/{number}/values/b")).body(Body::empty()).unwrap();
    let answer = operator.router.clone().oneshot(asked).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/octet-stream");
    assert!(answer.into_body().collect().await.unwrap().to_bytes() == lost);
    // And to clients of gRPC, which take 4 MiB by themselves.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let incoming =
        futures::stream::unfold(listener, |listener| async move { Some((listener.accept().await.map(|(stream, _)| stream), listener)) });
    let server = tonic::transport::Server::builder().add_service(zksync_service::grpc::server(operator.service.clone()));
    let mut running = tokio::task::JoinSet::new();
    running.spawn(async move { server.serve_with_incoming(Box::pin(incoming)).await.unwrap() });
    let mut client = ZkSyncClient::new(tonic::transport::Channel::from_shared(address).unwrap().connect().await.unwrap());
    let told = client.get_resolution(wire::GetResolutionRequest { id: "l".into(), number }).await.unwrap().into_inner();
    let (a, b) = (told.a.unwrap(), told.b.unwrap());
    assert!(a.data == won && b.data == lost && !a.cut && !b.cut && told.data_a.is_none());
    let value = |side: &str| wire::GetResolutionValueRequest { id: "l".into(), number, side: side.into() };
    let mut parts = client.get_resolution_value(value("b")).await.unwrap().into_inner();
    let mut read = Vec::new();
    while let Some(part) = parts.message().await.unwrap() {
        assert!(!part.data.is_empty() && part.data.len() <= 256 * 1024);
        read.extend(part.data);
    }
    assert!(read == lost);
    assert_eq!(client.get_resolution_value(value("c")).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    for (what, status) in [("99/values/a", StatusCode::NOT_FOUND), ("1/values/c", StatusCode::NOT_FOUND)] {
        assert_eq!(operator.ask("GET", &format!("/links/l/resolutions/{what}"), "").await.0, status, "{what}");
    }
    operator.until_settled("l").await;
    assert!(new.get("/large").await.unwrap().0 == won);
    assert_eq!(operator.ask("POST", &format!("/links/l/resolutions/{number}/restore"), "").await.0, StatusCode::ACCEPTED);
    operator.until_settled("l").await;
    assert!(old.get("/large").await.unwrap().0 == lost, "put back on B, and carried to A");
    let (_, gone) = operator.ask("GET", "/links/l/tombstones", "").await;
    let [told] = gone["tombstones"].as_array().unwrap().as_slice() else { panic!("{gone}") };
    assert_eq!((&told["path"], &told["by"], &told["size"], &gone["total"]), (&json!("/gone"), &json!("a"), &json!(3), &json!(1)));
}

/// Only the lists of two large znodes differed: nobody keeps their data for it, and they are not needed to put the list back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_lost_is_put_back_without_the_data() {
    let Some((a, b)) = ensembles(1) else { return };
    let (old, new) = (connect(&a.connect_string()).await, connect(&b.connect_string()).await);
    let list = |permissions| vec![Acl { permissions, scheme: "world".into(), id: "anyone".into() }];
    for (client, permissions) in [(&old, 27), (&new, 23)] {
        client.create("/large", &[7; 200_000], &list(permissions), CreateKind::Persistent).await.unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    let operator = Operator::with(Store::open(directory.path()).unwrap(), 1);
    let mut definition = Definition::between("c", &a.connect_string(), &b.connect_string());
    (definition.mode, definition.strategy) = (Mode::Both, zksync::Strategy::AWins);
    assert_eq!(operator.ask("POST", "/links", &serde_json::to_string(&definition).unwrap()).await.0, StatusCode::CREATED);
    operator.until_leading("c").await;
    operator.until_settled("c").await;
    assert_eq!(new.acl("/large").await.unwrap(), list(27));
    let (_, page) = operator.ask("GET", "/links/c/resolutions?prefix=/large", "").await;
    let told = &page["resolutions"][0];
    assert_eq!(
        (&told["kind"], &told["sides"]["b"]["cut"]),
        (&json!("create"), &json!(true)),
        "{}",
        page["resolutions"].as_array().unwrap().len()
    );
    let number = told["number"].as_u64().unwrap();
    let (status, why) = operator.ask("POST", &format!("/links/c/resolutions/{number}/restore"), "").await;
    assert_eq!(status, StatusCode::ACCEPTED, "{why}");
    assert_eq!((new.acl("/large").await.unwrap(), new.get("/large").await.unwrap().0.len()), (list(23), 200_000));
    // What nobody has any more is told to be missing.
    new.set("/large", b"other", None).await.unwrap();
    let (status, why) = operator.ask("POST", &format!("/links/c/resolutions/{number}/restore"), "").await;
    assert!(status == StatusCode::CONFLICT && why.to_string().contains("64 KiB"), "{why}");
    assert_eq!(operator.ask("GET", &format!("/links/c/resolutions/{number}/values/b"), "").await.0, StatusCode::CONFLICT);
}
