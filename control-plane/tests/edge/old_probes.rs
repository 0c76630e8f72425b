//! Weave Scope's own probes, beside ours.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression as Level;
use flate2::write::GzEncoder;
use futures::StreamExt as _;
use orchestrator_control::http::scope::schema::{self, Nodes};
use orchestrator_control::store::MemoryStore;
use scope_report::{Compression, Format, Kind, Limits, Report, decode, to_msgpack};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::http::{self, Reply, raw};
use crate::world::{World, config, eventually};

const MSGPACK: &str = "Content-Type: application/msgpack\r\n";
const GZIP: &str = "Content-Encoding: gzip\r\n";
const LIMITS: Limits = Limits { bytes: 8 << 20, memory: 64 << 20 };

fn fixture(name: &str) -> Report {
    let path = format!("{}/scope-report/tests/data/{name}.json", env!("CARGO_MANIFEST_DIR"));
    decode(&std::fs::read(path).unwrap(), Format::Json, Compression::None, LIMITS).unwrap()
}

fn report(value: &Value) -> Report {
    decode(value.to_string().as_bytes(), Format::Json, Compression::None, LIMITS).unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Level::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

async fn post_bytes(world: &World, headers: &str, body: &[u8]) -> Reply {
    let head = format!("POST /api/report HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    raw(world.http, &[head.as_bytes(), body].concat()).await
}

/// As a probe posts it.
async fn post(world: &World, report: &Report) {
    let headers = format!("{MSGPACK}{GZIP}X-Scope-Probe-ID: p\r\nX-Scope-Probe-Version: 1.13.2\r\nUser-Agent: Scope_Probe/1.13.2\r\n");
    let reply = post_bytes(world, &headers, &gzip(&to_msgpack(report))).await;
    assert_eq!((reply.status, reply.text().as_str()), (200, ""));
}

async fn nodes(world: &World, target: &str) -> Nodes {
    world.get(target).await.json()
}

async fn appears(world: &World, target: &str, id: &str) {
    eventually(async || nodes(world, target).await.nodes.contains_key(id), format!("{id} appears in {target}")).await;
}

fn edges<'a>(nodes: &'a Nodes, id: &str) -> Vec<&'a str> {
    nodes.nodes[id].adjacency.iter().map(String::as_str).collect()
}

#[tokio::test]
async fn nodes_of_an_old_probe_stand_beside_ours_in_every_view() {
    let (world, _probes) = World::with_two_hosts().await;
    for name in ["web", "db", "cluster"] {
        post(&world, &fixture(name)).await;
    }
    let container = format!("{};<container>", "a1".repeat(32));
    for (view, id) in [
        ("processes", "web-1.example.com;200"),
        ("processes-by-name", "postgres"),
        ("containers", container.as_str()),
        ("containers-by-hostname", "web.local"),
        ("containers-by-image", "team/api;<container_image>"),
        ("pods", "uid-front;<pod>"),
        ("kube-controllers", "uid-dep;<deployment>"),
        ("services", "uid-svc;<service>"),
        ("hosts", "web-1.example.com;<host>"),
    ] {
        appears(&world, &format!("/api/topology/{view}"), id).await;
    }
    let hosts = nodes(&world, "/api/topology/hosts").await;
    assert!(hosts.nodes.contains_key("web-1;<host>") && hosts.nodes.contains_key("node-1;<host>"));
    // The old host `db-1` has the name of one of ours, and is that one.
    assert_eq!(
        edges(&hosts, "web-1.example.com;<host>"),
        ["db-1;<host>", "out-theinternet", "service-s3.amazonaws.com", "web-1.example.com;<host>"]
    );
    let views: Vec<schema::ViewDescription> = world.get("/api/topology").await.json();
    let listed = views.iter().find(|view| view.url.ends_with("/hosts")).unwrap();
    assert_eq!(listed.stats.node_count, hosts.nodes.len() as u64);
    assert_eq!(listed.stats.edge_count, hosts.nodes.values().map(|node| node.adjacency.len() as u64).sum::<u64>());
}

#[tokio::test]
async fn a_report_is_read_as_soon_as_it_is_taken_in() {
    let world = World::start().await;
    // One after the other, so that most of them come in the pause between two drawings.
    for number in 0..5 {
        let host = format!("host-{number};<host>");
        post(&world, &report(&json!({"Host": {"nodes": {host.as_str(): {"id": host, "topology": "host"}}}}))).await;
        assert!(nodes(&world, "/api/topology/hosts").await.nodes.contains_key(&host), "{host}");
        let raw: Value = world.get("/api/report").await.json();
        assert!(raw["Host"]["nodes"].get(&host).is_some(), "{host}");
    }
}

#[tokio::test]
async fn many_reports_wait_for_the_same_picture() {
    let world = World::start().await;
    let begun = std::time::Instant::now();
    let reports: Vec<Report> = (0..40)
        .map(|number| {
            let host = format!("host-{number};<host>");
            report(&json!({"Host": {"nodes": {host.as_str(): {"id": host, "topology": "host"}}}}))
        })
        .collect();
    futures::future::join_all(reports.iter().map(|report| post(&world, report))).await;
    assert!(begun.elapsed() < Duration::from_secs(8), "one after the other they would wait for 20 s, and took {:?}", begun.elapsed());
    assert_eq!(nodes(&world, "/api/topology/hosts").await.nodes.len(), 40);
}

#[tokio::test]
async fn a_panel_has_controls_children_and_connections() {
    let world = World::start().await;
    post(&world, &fixture("web")).await;
    appears(&world, "/api/topology/hosts", "web-1.example.com;<host>").await;
    // As curl and Scope's scripts send it: nothing is escaped.
    let target = format!("/api/topology/containers/{};<container>", "a1".repeat(32));
    let node: schema::NodeReply = world.get(&target).await.json();
    let controls: Vec<&str> = node.node.controls.iter().map(|it| it.id.as_str()).collect();
    assert_eq!(controls.len(), 5);
    assert_eq!((controls[0], node.node.controls[0].probe_id.as_str()), ("docker_attach_container", "probe-web"));
    assert_eq!(node.node.children[0].nodes[0].id, "web-1.example.com;200");
    let outgoing = &node.node.connections[1].connections[0];
    assert_eq!(
        (outgoing.label.as_str(), outgoing.metadata[0].value.as_str(), outgoing.metadata[1].value.as_str()),
        ("/prod/api", "8080", "4")
    );
    // The port that clients see is that of the original, behind the translation.
    let incoming = &node.node.connections[0].connections[0];
    assert_eq!((incoming.node_id.as_str(), incoming.label.as_str()), ("in-theinternet", "203.0.113.9"));
    assert_eq!(incoming.metadata[0].value, "80");
    assert_eq!(world.get("/api/topology/processes/web-1.example.com;4242").await.status, 404);
    // `+` is a blank, and a name with slashes goes there and back.
    let by_name: schema::NodeReply = world.get("/api/topology/processes-by-name/%2Fusr%2Fbin%2Fcurl?unconnected=show").await.json();
    assert_eq!(by_name.node.summary.id, "/usr/bin/curl");
    assert_eq!(by_name.node.children[0].label, "Processes");
}

/// An old probe on `10.0.0.9` that has connections to and from `web-1`, and to `db-1`.
fn cache_host() -> Value {
    let at = "2026-01-01T00:00:00Z";
    let fact = |value: &str| json!({"timestamp": at, "value": value});
    let host = "cache-1;<host>";
    let end = |pid: &str| json!({"pid": fact(pid), "host_node_id": fact(host)});
    json!({
        "Host": {"nodes": {host: {"id": host, "topology": "host", "latest": {"host_name": fact("cache-1"), "host_node_id": fact(host)},
            "sets": {"local_networks": ["10.9.0.0/24"]}}}},
        "Process": {"nodes": {"cache-1;700": {"id": "cache-1;700", "topology": "process",
            "latest": {"name": fact("redis"), "pid": fact("700"), "host_node_id": fact(host)}, "parents": {"host": [host]}}}},
        "Endpoint": {"nodes": {
            ";10.0.0.1;45000": {"topology": "endpoint", "adjacency": [";203.0.113.5;6379"]},
            ";203.0.113.5;6379": {"topology": "endpoint", "latest": end("700")},
            ";203.0.113.5;51000": {"topology": "endpoint", "adjacency": [";10.0.0.2;5432"], "latest": end("700")},
            ";10.0.0.2;5432": {"topology": "endpoint"},
        }},
        "Shortcut": true
    })
}

#[tokio::test]
async fn connections_between_an_old_host_and_ours_are_drawn_once_and_not_to_the_internet() {
    use proto::probe::v1::flow_key::Direction;

    let world = World::start().await;
    let mut web = crate::probe::Probe::connect(world.grpc, "probe-web", "web-1").await;
    let mut db = crate::probe::Probe::connect(world.grpc, "probe-db", "db-1").await;
    let bytes = |address: [u8; 4]| address.to_vec();
    let mut seen_by_web = crate::world::web_report(1);
    let mut to_cache = crate::world::flow(9, 100, crate::world::CONTAINER, Direction::Client);
    let key = to_cache.key.as_mut().unwrap();
    (key.server_address, key.server_port) = (bytes([203, 0, 113, 5]), 6_379);
    seen_by_web.flows.push(to_cache);
    web.apply(seen_by_web).await;
    let mut seen_by_db = crate::world::db_report(1);
    let mut from_cache = crate::world::flow(9, 200, "", Direction::Server);
    from_cache.key.as_mut().unwrap().client_address = bytes([203, 0, 113, 5]);
    seen_by_db.flows.push(from_cache);
    db.apply(seen_by_db).await;
    let before = nodes(&world, "/api/topology/processes").await;
    assert!(edges(&before, "web-1;100").contains(&"out-theinternet"));
    assert_eq!(edges(&before, "in-theinternet"), ["db-1;200"]);

    post(&world, &report(&cache_host())).await;
    eventually(
        async || {
            let now = nodes(&world, "/api/topology/processes").await;
            now.nodes.contains_key("cache-1;700") && !now.nodes.contains_key("out-theinternet") && !now.nodes.contains_key("in-theinternet")
        },
        "the old host is no part of the Internet".to_owned(),
    )
    .await;
    for target in ["/api/topology/processes", "/api/topology/processes?unconnected=hide"] {
        let now = nodes(&world, target).await;
        assert_eq!(edges(&now, "web-1;100"), ["cache-1;700", "db-1;200"], "{target}");
        assert_eq!(edges(&now, "cache-1;700"), ["db-1;200"], "{target}");
        assert_eq!(now.nodes["web-1;100"].label, "nginx", "our own words come first");
    }
    let hosts = nodes(&world, "/api/topology/hosts").await;
    assert_eq!(edges(&hosts, "web-1;<host>"), ["cache-1;<host>", "db-1;<host>"]);
    assert_eq!(edges(&hosts, "cache-1;<host>"), ["db-1;<host>"]);
    let container = nodes(&world, "/api/topology/containers").await;
    assert!(edges(&container, &format!("{};<container>", crate::world::CONTAINER)).contains(&"pseudo:uncontained:cache-1"));
    let panel: schema::NodeReply = world.get("/api/topology/processes/cache-1;700").await.json();
    let rows: Vec<_> = panel.node.connections.iter().map(|table| &table.connections).collect();
    assert_eq!((rows[0][0].node_id.as_str(), rows[0][0].label.as_str()), ("web-1;100", "nginx"));
    assert_eq!((rows[1][0].node_id.as_str(), rows[1][0].label.as_str()), ("db-1;200", "/usr/bin/postgres"));
    let panel: schema::NodeReply = world.get("/api/topology/processes/web-1;100").await.json();
    assert!(panel.node.connections[1].connections.iter().any(|row| row.node_id == "cache-1;700"));
}

/// An old probe on `web-1`, which sees what ours does there: the container, its process, and one more of that name.
fn web_host_again() -> Value {
    let fact = |value: &str| json!({"timestamp": "2026-01-01T00:00:00Z", "value": value});
    let (host, container) = ("web-1;<host>", crate::world::CONTAINER);
    let node_id = format!("{container};<container>");
    let process = |pid: &str| {
        let latest = json!({"name": fact("nginx"), "pid": fact(pid), "host_node_id": fact(host)});
        json!({"id": format!("web-1;{pid}"), "topology": "process", "latest": latest, "parents": {"host": [host]}})
    };
    json!({
        "Host": {"nodes": {host: {"id": host, "topology": "host", "latest": {"host_name": fact("web-1"), "host_node_id": fact(host)}}}},
        "Process": {"nodes": {"web-1;100": process("100"), "web-1;101": process("101"),
            "web-1;102": {"id": "web-1;102", "topology": "process", "latest": {"name": fact(""), "pid": fact("102")}}}},
        "Container": {
            "nodes": {&node_id: {"id": node_id, "topology": "container", "parents": {"host": [host]}, "latest": {
                "docker_container_id": fact(container), "docker_image_id": fact("1111"), "host_node_id": fact(host),
                "control_probe_id": fact("old"), "active_controls": fact("docker_stop_container;docker_logs_container")}}},
            "controls": {
                "docker_stop_container": {"id": "docker_stop_container", "human": "Stop", "icon": "fa fa-stop", "rank": 7},
                "docker_logs_container": {"id": "docker_logs_container", "human": "Logs", "icon": "fa fa-desktop", "rank": 9}}},
        "ContainerImage": {"nodes": {"1111;<container_image>": {"id": "1111;<container_image>", "topology": "container_image",
            "latest": {"docker_image_id": fact("1111"), "docker_image_name": fact("web/nginx")}, "parents": {"host": [host]}}}},
        "Shortcut": true
    })
}

#[tokio::test]
async fn what_probes_of_both_kinds_see_on_one_host_is_counted_once() {
    let (world, _probes) = World::with_two_hosts().await;
    post(&world, &report(&web_host_again())).await;
    appears(&world, "/api/topology/processes", "web-1;101").await;
    let image = nodes(&world, "/api/topology/containers-by-image").await.nodes.remove("web/nginx;<container_image>").unwrap();
    assert_eq!(image.label_minor, "1 container");
    assert_eq!(image.metadata.iter().map(|row| (&*row.id, &*row.value)).collect::<Vec<_>>(), [("container", "1")]);
    let names = nodes(&world, "/api/topology/processes-by-name").await;
    assert_eq!(names.nodes["nginx"].label_minor, "2 processes");
    let panel: schema::NodeReply = world.get("/api/topology/processes-by-name/nginx").await.json();
    assert_eq!((panel.node.summary.label_minor.as_str(), panel.node.children[0].nodes.len()), ("2 processes", 2));
    // Nobody says what it is called, and it is a node all the same.
    let panel: schema::NodeReply = world.get("/api/topology/processes-by-name/").await.json();
    assert_eq!((panel.node.summary.id.as_str(), panel.node.children[0].nodes[0].id.as_str()), ("", "web-1;102"));
    assert_eq!(world.get("/api/topology/hosts/").await.status, 404);
}

#[tokio::test]
async fn what_an_old_probe_reported_leaves_after_the_window() {
    let world = World::start_with(
        orchestrator_control::config::Config { window: Duration::from_secs(1), ..config() },
        Arc::new(MemoryStore::default()),
    )
    .await;
    assert_eq!(world.get("/api/probes?sparse").await.text(), "false");
    post(&world, &fixture("web")).await;
    appears(&world, "/api/topology/hosts", "web-1.example.com;<host>").await;
    assert_eq!(world.get("/api/probes?sparse=0").await.text(), "true");
    let summary = world.get("/admin/summary").await;
    assert!(
        summary.text().contains(": web-1.example.com;<host>: endpoint:15, process:5, container:4, container_image:3, host:1\n"),
        "{}",
        summary.text()
    );
    eventually(async || nodes(&world, "/api/topology/hosts").await.nodes.is_empty(), "the host leaves".to_owned()).await;
    assert_eq!(world.get("/api/probes").await.text(), "[]");
    assert_eq!(world.get("/api/probes?sparse").await.text(), "false");
    let departed = &world.get("/api/v1/probes").await.json::<Value>()["departed"][0];
    assert_eq!(
        (&departed["id"], &departed["hostname"], &departed["reason"]),
        (&json!("probe-web"), &json!("web-1.example.com"), &json!("silent"))
    );
    assert_eq!(world.metric("orchestrator_scope_reports").await, 1.0);
    assert_eq!(world.metric("orchestrator_scope_nodes").await, 0.0);
}

#[tokio::test]
async fn a_shortcut_report_reaches_clients_that_asked_for_no_ticks() {
    let world = World::start().await;
    let stream = TcpStream::connect(world.http).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async("ws://test/api/topology/hosts/ws?t=0", stream).await.unwrap();
    let mut next = async || -> schema::Update {
        let message = timeout(Duration::from_secs(10), socket.next()).await.expect("an update comes in time").unwrap().unwrap();
        serde_json::from_str(&message.into_text().unwrap()).unwrap()
    };
    assert!(next().await.reset);
    post(&world, &report(&cache_host())).await;
    let update = next().await;
    assert_eq!(update.add.unwrap()[0].id, "cache-1;<host>");
    assert!(!update.reset && update.update.is_none() && update.remove.is_none());
}

#[tokio::test]
async fn namespaces_are_offered_and_looked_at() {
    let world = World::start().await;
    post(&world, &fixture("cluster")).await;
    post(&world, &fixture("web")).await;
    appears(&world, "/api/topology/pods", "uid-front;<pod>").await;
    let list = world.get("/api/topology").await.text();
    let group = r#"{"id":"namespace","defaultValue":"","options":[{"value":"kube-system","label":"kube-system"},{"value":"shop","label":"shop"}],"selectType":"union","noneLabel":"All Namespaces"}"#;
    assert!(list.contains(group), "{list}");
    let count = async |target: &str| nodes(&world, target).await.nodes.len();
    assert_eq!(count("/api/topology/pods?namespace=shop").await, 2);
    assert_eq!(count("/api/topology/pods?namespace=kube-system").await, 0);
    assert_eq!(count("/api/topology/pods?namespace=kube-system,shop").await, 2);
    // A value that does not exist is no filter, and neither is an empty one.
    assert_eq!(count("/api/topology/pods?namespace=nowhere").await, 2);
    assert_eq!(count("/api/topology/pods?namespace=").await, 2);
    assert_eq!(count("/api/topology/pods?storage=show&snapshot=show").await, 5);
    assert_eq!(count("/api/topology/pods?storage=show").await, 4);
    // What is outside stays where it is connected to something.
    let shop = nodes(&world, "/api/topology/containers?namespace=shop&pseudo=show").await;
    assert_eq!(shop.nodes.values().filter(|node| !node.pseudo).count(), 1);
}

#[tokio::test]
async fn the_raw_report_has_everything_in_both_formats() {
    let (world, _probes) = World::with_two_hosts().await;
    let mut partial = fixture("web");
    let lone: Value =
        json!({"Process": {"nodes": {"web-1.example.com;77": {"latest": {"pid": {"timestamp": "2026-01-01T00:00:00Z", "value": "77"}}}}}});
    partial.merge(report(&lone));
    post(&world, &partial).await;
    appears(&world, "/api/topology/hosts", "web-1.example.com;<host>").await;
    let reply = world.get("/api/report").await;
    assert_eq!((reply.status, reply.header("content-type")), (200, "application/json"));
    let from_json = decode(&reply.body, Format::Json, Compression::None, LIMITS).unwrap();
    let reply = http::request(world.http, "GET", "/api/report", "Accept: application/msgpack;q=1\r\n").await;
    assert_eq!((reply.status, reply.header("content-type"), reply.header("cache-control")), (200, "application/msgpack", ""));
    let from_msgpack = decode(&reply.body, Format::Msgpack, Compression::None, LIMITS).unwrap();
    for report in [&from_json, &from_msgpack] {
        let hosts = &report.table(Kind::Host).nodes;
        assert_eq!(hosts.len(), 3);
        assert_eq!(&**hosts["web-1;<host>"].value("host_name").unwrap(), "web-1");
        let postgres = &report.table(Kind::Process).nodes["db-1;200"];
        assert_eq!(&**postgres.value("cmdline").unwrap(), "/usr/bin/postgres --port <5432>");
        let client = &report.table(Kind::Endpoint).nodes[";10.0.0.1;40000"];
        assert!(client.adjacency.contains(";10.0.0.2;5432"));
        // Without a topology, a node is in the report and in no view.
        assert!(report.table(Kind::Process).nodes.contains_key("web-1.example.com;77"));
    }
    assert!(!nodes(&world, "/api/topology/processes").await.nodes.contains_key("web-1.example.com;77"));
    let censored = world.get("/api/report?hideCommandLineArguments=true&hideEnvironmentVariables=true").await.text();
    assert!(!censored.contains("--port") && !censored.contains("docker_env_PATH") && censored.contains("/usr/bin/postgres"));
    // A report of ours alone is drawn as the map draws it.
    let probes: Vec<schema::Probe> = world.get("/api/probes").await.json();
    assert_eq!(probes.iter().map(|probe| probe.hostname.as_str()).collect::<Vec<_>>(), ["db-1", "web-1", "web-1.example.com"]);
}

#[tokio::test]
async fn what_is_no_report_is_refused_in_scopes_words() {
    let world = World::start().await;
    let plain = to_msgpack(&fixture("db"));
    for (headers, body, status) in [
        (String::new(), plain.clone(), 400),
        ("Content-Type: text/plain\r\n".to_owned(), plain.clone(), 400),
        (MSGPACK.to_owned(), plain.clone(), 200),
        (MSGPACK.to_owned(), Vec::new(), 400),
        (MSGPACK.to_owned(), plain[..plain.len() / 2].to_vec(), 400),
        (format!("{MSGPACK}{GZIP}"), plain.clone(), 400),
        (format!("{MSGPACK}{GZIP}"), gzip(&plain)[..40].to_vec(), 400),
        ("Content-Type: application/json; charset=utf-8\r\n".to_owned(), b"{}".to_vec(), 200),
        ("Content-Type: application/json\r\n".to_owned(), b"[]".to_vec(), 400),
        ("Content-Type: application/json\r\n".to_owned(), b"{\"Host\":{\"nodes\":[1]}}".to_vec(), 400),
        // A map that promises four thousand million entries, and ends.
        (MSGPACK.to_owned(), vec![0xdf, 0xff, 0xff, 0xff, 0xff], 400),
        // Lists in lists in lists.
        (MSGPACK.to_owned(), [vec![0x81, 0xa1, b'x'], vec![0x91; 100_000]].concat(), 400),
        // What unpacks to a hundred million bytes.
        (format!("{MSGPACK}{GZIP}"), gzip(&vec![0xc0; 100_000_000]), 413),
    ] {
        let reply = post_bytes(&world, &headers, &body).await;
        assert_eq!(reply.status, status, "{headers:?} {} {}", body.len(), reply.text());
        if status != 200 {
            assert_eq!(reply.header("content-type"), "application/json");
            let reason: String = reply.json();
            assert!(!reason.is_empty());
        }
    }
    assert!(world.metric("orchestrator_scope_reports_refused").await > 5.0);
    let unsupported = post_bytes(&world, "Content-Type: text/plain\r\n", b"x").await;
    assert_eq!(unsupported.text(), "\"Unsupported Content-Type: text/plain\"");
    // A body that is too large is refused before it has come whole.
    let head = format!("POST /api/report HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{MSGPACK}Transfer-Encoding: chunked\r\n\r\n");
    let chunk = [b"100000\r\n".as_slice(), &vec![0xc0; 0x10_0000], b"\r\n"].concat();
    let reply = crate::http::raw_lenient(world.http, &[head.as_bytes(), &chunk.repeat(33)].concat()).await;
    assert_eq!(reply, 413);
    assert_eq!(world.get("/api/topology/hosts").await.status, 200);
}

#[tokio::test]
async fn traps_of_the_contract() {
    let world = World::start().await;
    post(&world, &fixture("web")).await;
    appears(&world, "/api/topology/containers", &format!("{};<container>", "a1".repeat(32))).await;
    let count = async |query: &str| nodes(&world, &format!("/api/topology/containers{query}")).await.nodes.len();
    let everything = count("").await;
    assert_eq!(count("?").await, everything);
    let defaults = count("?t=5s").await;
    assert!(defaults < everything);
    for same in
        ["?timestamp=", "?timestamp=yesterday", "?timestamp=2020-01-01T00:00:00Z", "?system=application", "?stopped=running&stopped=both"]
    {
        assert_eq!(count(same).await, defaults, "{same}");
    }
    // Scope's own tests say `system=show`: no value of that group, and so no filter.
    assert_eq!(count("?system=show").await, defaults + 1);
    assert_eq!(count("?stopped=both&system=all&pseudo=show").await, everything);
    let reply = world.get("/api/topology/nothing").await;
    assert_eq!((reply.status, reply.text().as_str()), (404, "404 page not found\n"));
    let large = http::request(world.http, "GET", "/api/topology/containers", "Accept-Encoding: gzip\r\n").await;
    assert_eq!((large.header("content-encoding"), large.header("vary").to_ascii_lowercase().as_str()), ("gzip", "accept-encoding"));
    let small = http::request(world.http, "GET", "/api", "Accept-Encoding: gzip\r\n").await;
    assert_eq!(small.header("content-encoding"), "");
    let text = world.get("/api/topology/containers").await.text();
    assert!(text.contains("\"max\":2147483648.0") && text.contains("\\u003cfront\\u003e") && text.contains("\"samples\":null"));
}

#[tokio::test]
async fn a_search_finds_nodes_of_old_probes_and_pages_go_through_both() {
    let (world, _probes) = World::with_two_hosts().await;
    post(&world, &fixture("web")).await;
    appears(&world, "/api/topology/hosts", "web-1.example.com;<host>").await;
    let whole: Value = world.get("/api/search?q=nginx&limit=100").await.json();
    let ids = |page: &Value| -> Vec<String> {
        page["hits"]
            .as_array()
            .unwrap()
            .iter()
            .map(|hit| format!("{} {}", hit["view"].as_str().unwrap(), hit["id"].as_str().unwrap()))
            .collect()
    };
    let all = ids(&whole);
    assert!(all.contains(&"processes web-1;100".to_owned()) && all.contains(&"processes web-1.example.com;200".to_owned()), "{all:?}");
    assert_eq!(whole["total"], all.len());
    let (mut paged, mut after) = (Vec::new(), String::new());
    loop {
        let page: Value = world.get(&format!("/api/search?q=nginx&limit=1&after={after}")).await.json();
        paged.extend(ids(&page));
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => break,
        }
    }
    assert_eq!(paged, all);
    // The same words leave only what answers of a view.
    let shown = nodes(&world, "/api/topology/processes?unconnected=show&q=nginx").await;
    assert!(shown.nodes.contains_key("web-1.example.com;200") && !shown.nodes.contains_key("web-1.example.com;201"));
}

/// What old probes reported is there in the past, too, as it was drawn then; so is the report of a moment.
#[tokio::test(flavor = "multi_thread")]
async fn the_past_has_what_old_probes_reported() {
    let directory = tempfile::tempdir().unwrap();
    let kept = orchestrator_control::config::Config {
        data_dir: directory.path().to_owned(),
        history: Some(Duration::from_secs(3_600)),
        window: Duration::from_secs(1),
        ..config()
    };
    let world = World::start_with(kept, Arc::new(MemoryStore::default())).await;
    let newest = async || {
        let status: Value = world.get("/api/v1/history").await.json();
        status["to"].as_str().unwrap_or_default().to_owned()
    };
    let mut web = crate::probe::Probe::connect(world.grpc, "probe-web", "web-1").await;
    web.apply(crate::world::web_report(1)).await;
    post(&world, &fixture("web")).await;
    let host = "web-1.example.com;<host>";
    appears(&world, "/api/topology/hosts", host).await;
    let live: Value = world.get(&format!("/api/topology/hosts/{}", host.replace('<', "%3C").replace('>', "%3E"))).await.json();
    let then = {
        let before = newest().await;
        let mut then = String::new();
        let later = async || {
            then = newest().await;
            then > before
        };
        eventually(later, "the history goes on".to_owned()).await;
        then
    };
    // The window is over: nothing of it is left in the present.
    eventually(async || !nodes(&world, "/api/topology/hosts").await.nodes.contains_key(host), "it leaves".to_owned()).await;
    // What is over for less than the window is now.
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let past = nodes(&world, &format!("/api/topology/hosts?timestamp={then}")).await;
    assert!(past.nodes.contains_key(host) && past.nodes.contains_key("web-1;<host>"), "{:?}", past.nodes.keys());
    let views: Vec<schema::ViewDescription> = world.get(&format!("/api/topology?timestamp={then}")).await.json();
    let hosts = views.iter().find(|view| view.name == "Hosts").unwrap();
    assert_eq!(hosts.stats.nonpseudo_node_count, past.nodes.values().filter(|node| !node.pseudo).count() as u64);
    let target = format!("/api/topology/hosts/{}?timestamp={then}", host.replace('<', "%3C").replace('>', "%3E"));
    let details: Value = world.get(&target).await.json();
    assert_eq!(details["node"]["label"], live["node"]["label"]);
    assert_eq!(details["node"]["controls"], json!([]));
    // The raw report of then, and of now.
    let reported = async |target: &str| {
        let reply = world.get(target).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        decode(reply.text().as_bytes(), Format::Json, Compression::None, LIMITS).unwrap()
    };
    let report = reported(&format!("/api/report?timestamp={then}")).await;
    let known: Vec<&str> = report.table(Kind::Host).nodes.keys().map(|id| &**id).collect();
    assert_eq!(known, ["web-1.example.com;<host>", "web-1;<host>"]);
    assert!(report.table(Kind::Process).nodes.contains_key("web-1;100"));
    assert!(!reported("/api/report").await.table(Kind::Host).nodes.contains_key(host));
    assert_eq!(reported("/api/report?timestamp=2001-01-01T00:00:00Z").await.node_count(), 0);
    // A search of then finds it, and one of now does not.
    for (at, total) in [(format!("&timestamp={then}"), 1), (String::new(), 0)] {
        let page: Value = world.get(&format!("/api/search?q=id:web-1.example.com&view=hosts{at}")).await.json();
        assert_eq!(page["total"], total, "{page}");
    }
    // What vanished is told, too.
    let changes: Value = world.get(&format!("/api/v1/changes?view=hosts&from={then}")).await.json();
    let vanished = changes["changes"].as_array().unwrap().iter().any(|change| change["id"] == host && change["kind"] == "vanished");
    assert!(vanished, "{changes}");
}
