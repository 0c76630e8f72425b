//! The map as it was, over HTTP.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_control::config::Config;
use orchestrator_control::http::scope::schema::Nodes;
use orchestrator_control::store::MemoryStore;
use proto::control::v1::topology_service_client::TopologyServiceClient;
use proto::control::v1::{ListChangesRequest, SearchRequest};
use proto::probe::v1::{ProcessKey, Report, report::Kind};
use serde_json::Value;

use crate::probe::Probe;
use crate::rpc::channel;
use crate::websocket::Client;
use crate::world::{World, config, db_report, eventually, process, processes_delta, web_report};

fn kept_in(directory: &Path) -> Config {
    Config { data_dir: directory.to_owned(), history: Some(Duration::from_secs(3_600)), window: Duration::from_secs(1), ..config() }
}

async fn start(directory: &Path) -> World {
    World::start_with(kept_in(directory), Arc::new(MemoryStore::default())).await
}

/// The newest moment that can be shown, once it is later than `after`.
async fn later_than(world: &World, after: Option<String>) -> String {
    let mut found = String::new();
    let newest = async || {
        let status: Value = world.get("/api/v1/history").await.json();
        status["to"].as_str().unwrap_or_default().to_owned()
    };
    eventually(
        async || {
            found = newest().await;
            !found.is_empty() && after.as_ref().is_none_or(|after| found > *after)
        },
        "the history goes on".to_owned(),
    )
    .await;
    found
}

async fn ids(world: &World, target: &str) -> Vec<String> {
    let reply = world.get(target).await;
    assert_eq!(reply.status, 200, "{target}: {}", reply.text());
    reply.json::<Nodes>().nodes.into_keys().collect()
}

/// `web-1` with an nginx, then with a redis in its place; and the moments when it was so.
async fn two_moments(world: &World) -> (Probe, String, String) {
    let begin = later_than(world, None).await;
    let mut web = Probe::connect(world.grpc, "probe-web", "web-1").await;
    web.apply(web_report(1)).await;
    let first = later_than(world, Some(later_than(world, Some(begin)).await)).await;
    let gone = Report {
        processes_gone: vec![ProcessKey { pid: 100, start_time_boot_nanos: 1_000_000_000 }],
        flows_gone: vec![1],
        kind: Kind::Delta.into(),
        ..processes_delta(2, [process(300, "redis", "")])
    };
    web.apply(gone).await;
    // Past the window, in which what is gone lingers.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let second = later_than(world, Some(later_than(world, None).await)).await;
    (web, first, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_of_scope_shows_a_moment_of_the_past() {
    let directory = tempfile::tempdir().unwrap();
    let world = start(directory.path()).await;
    let about: Value = world.get("/api").await.json();
    assert_eq!(about["capabilities"]["historic_reports"], true);
    let (_web, first, second) = two_moments(&world).await;
    let processes = "/api/topology/processes?unconnected=show";
    assert_eq!(ids(&world, processes).await, ["web-1;300"]);
    assert_eq!(ids(&world, &format!("{processes}&timestamp={second}")).await, ["web-1;300"]);
    assert_eq!(ids(&world, &format!("{processes}&timestamp={first}")).await, ["web-1;100"]);
    assert_eq!(ids(&world, &format!("{processes}&timestamp={first}&q=redis")).await, [""; 0]);
    for (timestamp, query, total) in
        [(&*first, "nginx", 1), (&*first, "redis", 0), (&*second, "redis", 1), (&*second, "nginx", 0), ("2001-01-01T00:00:00Z", "nginx", 0)]
    {
        let target = format!("/api/search?q=label:{query}&view=processes&timestamp={timestamp}");
        assert_eq!(world.get(&target).await.json::<Value>()["total"], total, "{target}");
    }
    // Now: empty, not to be read, and not over yet.
    for timestamp in ["", "yesterday", "2026-99-99T00:00:00Z", "2100-01-01T00:00:00Z"] {
        assert_eq!(ids(&world, &format!("{processes}&timestamp={timestamp}")).await, ["web-1;300"], "{timestamp}");
    }
    // Before everything: nothing was there.
    assert_eq!(ids(&world, &format!("{processes}&timestamp=2001-01-01T00:00:00Z")).await, [""; 0]);
    let node = |id: &str, timestamp: &str| {
        let target = format!("/api/topology/processes/{id}?timestamp={timestamp}");
        let world = &world;
        async move { world.get(&target).await }
    };
    assert_eq!(node("web-1;100", "").await.status, 404);
    assert_eq!(node("web-1;300", &first).await.status, 404);
    let found: Value = node("web-1;100", &first).await.json();
    assert_eq!(found["node"]["label"], "nginx");
    let views: Value = world.get(&format!("/api/topology?unconnected=show&timestamp={first}")).await.json();
    let processes = views.as_array().unwrap().iter().find(|view| view["name"] == "Processes").unwrap();
    assert_eq!(processes["stats"]["node_count"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_tells_of_the_past_as_http_does() {
    let directory = tempfile::tempdir().unwrap();
    let world = start(directory.path()).await;
    let (_web, first, second) = two_moments(&world).await;
    let mut map = TopologyServiceClient::new(channel(&world).await);
    let at = |text: &str| {
        let moment: jiff::Timestamp = text.parse().unwrap();
        Some(prost_types::Timestamp { seconds: moment.as_second(), nanos: moment.subsec_nanosecond() })
    };
    for (moment, query, total) in [(&first, "nginx", 1), (&first, "redis", 0), (&second, "redis", 1), (&second, "nginx", 0)] {
        let (query, view) = (format!("label: {query}"), "processes".to_owned());
        let found = map.search(SearchRequest { query, view, at: at(moment), ..SearchRequest::default() }).await.unwrap().into_inner();
        assert_eq!(found.total, total, "{moment}");
    }
    let status: Value = world.get("/api/v1/history").await.json();
    for (from, known_from) in [(first.as_str(), None), ("2001-01-01T00:00:00Z", at(status["from"].as_str().unwrap()))] {
        let changes = map.list_changes(ListChangesRequest { from: at(from), ..ListChangesRequest::default() }).await.unwrap().into_inner();
        assert_eq!(changes.known_from, known_from, "{from}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_moment_moves_on_as_time_does() {
    let directory = tempfile::tempdir().unwrap();
    let world = start(directory.path()).await;
    let (_web, first, _) = two_moments(&world).await;
    let mut client = Client::connect(world.http, &format!("/api/topology/processes/ws?t=200ms&unconnected=show&timestamp={first}")).await;
    let update = client.update().await;
    assert!(update.reset);
    let added: Vec<String> = update.add.unwrap().into_iter().map(|node| node.id).collect();
    assert_eq!(added, ["web-1;100"]);
    // The nginx goes and the redis comes, as they did.
    let (mut came, mut went) = (false, false);
    for _ in 0..60 {
        let update = client.update().await;
        came |= update.add.unwrap_or_default().iter().any(|node| node.id == "web-1;300");
        went |= update.remove.unwrap_or_default().contains(&"web-1;100".to_owned());
        if came && went {
            return;
        }
    }
    panic!("came {came}, went {went}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_between_two_moments() {
    let directory = tempfile::tempdir().unwrap();
    let world = start(directory.path()).await;
    let (mut web, first, second) = two_moments(&world).await;
    let changes = |query: String| {
        let world = &world;
        async move {
            let reply = world.get(&format!("/api/v1/changes?{query}")).await;
            assert_eq!(reply.status, 200, "{}", reply.text());
            reply.json::<Value>()
        }
    };
    let reply = changes(format!("from={first}&to={second}&view=processes&unconnected=show")).await;
    assert_eq!((&reply["appeared"], &reply["vanished"], &reply["changed"]), (&1.into(), &1.into(), &0.into()), "{reply}");
    assert_eq!(reply["changes"][0]["id"], "web-1;100");
    assert_eq!(reply["changes"][0]["kind"], "vanished");
    assert_eq!(reply["changes"][1]["label"], "redis");
    web.apply(processes_delta(3, [process(300, "valkey", "")])).await;
    // Until now, which is the live map, and page by page.
    let page = changes(format!("from={second}&view=processes&unconnected=show&limit=1")).await;
    assert_eq!((&page["changed"], &page["next"]), (&1.into(), &Value::Null), "{page}");
    let fields: Vec<String> = page["changes"][0]["fields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| format!("{} {} {}", it["field"], it["before"], it["after"]))
        .collect();
    assert_eq!(fields, [r#""Command" "redis --port <5432>" "valkey --port <5432>""#, r#""label" "redis" "valkey""#]);
    let page = changes(format!("from={first}&view=processes&unconnected=show&limit=1")).await;
    assert_eq!((&page["changes"][0]["id"], &page["next"]), (&"web-1;100".into(), &"web-1;100".into()), "{page}");
    let page = changes(format!("from={first}&view=processes&unconnected=show&limit=1&after=web-1;100")).await;
    assert_eq!((&page["changes"][0]["id"], &page["next"]), (&"web-1;300".into(), &Value::Null), "{page}");
    assert_eq!(page["knownFrom"], Value::Null);
    let page = changes("from=2001-01-01T00:00:00Z&view=processes&unconnected=show".to_owned()).await;
    let status: Value = world.get("/api/v1/history").await.json();
    assert_eq!((&page["knownFrom"], &page["appeared"]), (&status["from"], &1.into()), "{page}");
    for (query, text) in [
        ("", "from is missing: the earlier moment"),
        ("from=x", "from is \"x\", which is no moment in RFC 3339"),
        ("from=2100-01-01T00:00:00Z", "which is not before"),
        ("from=2026-01-01T00:00:01Z&to=2026-01-01T00:00:00Z", "which is not before"),
        ("from=2026-01-01T00:00:00Z&to=never", "to is \"never\""),
        ("from=2026-01-01T00:00:00Z&view=nosuch", "view is \"nosuch\", which is no view"),
        ("from=2026-01-01T00:00:00Z&limit=0", "limit is 0"),
    ] {
        let reply = world.get(&format!("/api/v1/changes?{query}")).await;
        assert_eq!(reply.status, 400, "{query}");
        assert!(reply.json::<String>().contains(text), "{query}: {}", reply.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_is_still_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let world = start(directory.path()).await;
    let (web, first, _) = two_moments(&world).await;
    drop(web);
    world.stop().await.unwrap();
    // The clock of the tests begins anew with every world; this one begins later.
    let late = Arc::new(MemoryStore::default());
    let world = World::start_later(kept_in(directory.path()), late, Duration::from_secs(600)).await;
    let mut db = Probe::connect(world.grpc, "probe-db", "db-1").await;
    db.apply(db_report(1)).await;
    assert_eq!(ids(&world, &format!("/api/topology/hosts?timestamp={first}")).await, ["web-1;<host>"]);
    assert_eq!(ids(&world, "/api/topology/hosts").await, ["db-1;<host>"]);
    later_than(&world, Some("2026-01-01T00:09:00Z".to_owned())).await;
    let status: Value = world.get("/api/v1/history").await.json();
    let gaps = status["gaps"].as_array().unwrap();
    assert_eq!(gaps.len(), 1, "{status}");
    assert_eq!(status["enabled"], true);
    assert!(status["from"].as_str().unwrap() < "2026-01-01T00:00:10Z", "{status}");
    assert!(world.metric("orchestrator_history_bytes").await > 0.0);
}

#[tokio::test]
async fn a_history_that_cannot_be_opened_is_said_and_the_live_map_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("history"), b"a file where a directory should be").unwrap();
    let world = start(directory.path()).await;
    let mut web = Probe::connect(world.grpc, "probe-web", "web-1").await;
    web.apply(web_report(1)).await;
    assert_eq!(ids(&world, "/api/topology/hosts").await, ["web-1;<host>"]);
    let health: Value = world.get("/health").await.json();
    assert_eq!(health["status"], "ok");
    assert!(health["problems"][0].as_str().unwrap().starts_with("the history cannot be opened"), "{health}");
    assert_eq!(world.get("/api").await.json::<Value>()["capabilities"]["historic_reports"], false);
    assert_eq!(ids(&world, "/api/topology/hosts?timestamp=2026-01-01T00:00:00Z").await, ["web-1;<host>"], "as without a history");
    assert_eq!(world.metric("orchestrator_history_failures_total").await, 1.0);
    assert_eq!(world.get("/api/v1/changes?from=2026-01-01T00:00:00Z").await.status, 400);
}

#[tokio::test]
async fn without_a_history_every_moment_is_now() {
    let (world, _probes) = World::with_two_hosts().await;
    assert_eq!(ids(&world, "/api/topology/hosts?timestamp=2001-01-01T00:00:00Z").await, ["db-1;<host>", "web-1;<host>"]);
    let status: Value = world.get("/api/v1/history").await.json();
    assert_eq!(status["enabled"], false);
}
