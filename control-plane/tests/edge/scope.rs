//! Scope's API as its clients see it.

use std::collections::BTreeMap;
use std::io::Read as _;

use expect_test::{Expect, expect};
use orchestrator_control::http::scope::schema;
use proto::probe::v1::{Hello, KubernetesObject, Report, kubernetes_object, report};

use crate::http::{raw, request};
use crate::probe::{Probe, hello};
use crate::world::{CONTAINER, World, process, processes_delta, web_report};

/// A reply's status, type and body, with what differs from run to run hidden.
async fn check(world: &World, target: &str, expected: Expect) {
    let reply = world.get(target).await;
    let mut body = reply.text();
    for key in ["\"lastSeen\":\"", "\"id\":\"uptime\",\"label\":\"Uptime\",\"value\":\""] {
        let mut from = 0;
        while let Some(at) = body[from..].find(key) {
            let begin = from + at + key.len();
            let end = begin + body[begin..].find('"').unwrap();
            body.replace_range(begin..end, "…");
            from = begin;
        }
    }
    expected.assert_eq(&format!("{} {}\n{}\n", reply.status, reply.header("content-type"), body.replace(CONTAINER, "CONTAINER")));
}

#[tokio::test]
async fn an_empty_app_lists_its_views_sorted_by_name() {
    let world = World::start().await;
    let reply = world.get("/api/topology").await;
    let views: Vec<schema::ViewDescription> = reply.json();
    let names: Vec<&str> = views.iter().map(|view| view.name.as_str()).collect();
    assert_eq!(names, ["Containers", "Hosts", "Pods", "Processes", "Services", "Tasks"]);
    let below: Vec<&str> = views[0].sub_topologies.iter().map(|view| view.name.as_str()).collect();
    assert_eq!(below, ["by DNS name", "by image", "Mesos tasks"]);
    assert_eq!(reply.header("cache-control"), "no-cache");
    check(
        &world,
        "/api/topology/hosts",
        expect![[r#"
        200 application/json
        {"nodes":{}}
    "#]],
    )
    .await;
    let text = reply.text();
    assert!(text.starts_with(r#"[{"name":"Containers","rank":2,"hide_if_empty":false,"options":[{"id":"system","defaultValue":"application","options":[{"value":"all","label":"All"},"#), "{text}");
    let hosts = r#"{"name":"Hosts","rank":4,"hide_if_empty":false,"options":null,"url":"/api/topology/hosts","sub_topologies":[{"name":"Weave Net","rank":0,"hide_if_empty":false,"options":null,"url":"/api/topology/weave","stats":{"node_count":0,"nonpseudo_node_count":0,"edge_count":0,"filtered_nodes":0}}],"stats":{"node_count":0,"nonpseudo_node_count":0,"edge_count":0,"filtered_nodes":0}}"#;
    assert!(text.contains(hosts), "{text}");
}

#[tokio::test]
async fn who_answers() {
    let world = World::start().await;
    check(
        &world,
        "/api",
        expect![[r#"
        200 application/json
        {"id":"91a","version":"0.1.0","hostname":"test-host","plugins":[],"capabilities":{"historic_reports":false}}
    "#]],
    )
    .await;
}

#[tokio::test]
async fn views_of_two_hosts() {
    let (world, _probes) = World::with_two_hosts().await;
    check(&world, "/api/topology/hosts", expect![[r#"
        200 application/json
        {"nodes":{"db-1;\u003chost\u003e":{"id":"db-1;\u003chost\u003e","label":"db-1","labelMinor":"","rank":"","shape":"circle","metadata":[{"id":"kernel_version","label":"Kernel version","value":"6.18.0","priority":1.0},{"id":"uptime","label":"Uptime","value":"…","priority":2.0,"dataType":"duration"},{"id":"host_name","label":"Hostname","value":"db-1","priority":11.0},{"id":"os","label":"OS","value":"linux","priority":12.0},{"id":"local_networks","label":"Local networks","value":"10.0.0.0/24","priority":13.0},{"id":"host_scope_version","label":"Scope version","value":"1.2.3","priority":14.0}]},"web-1;\u003chost\u003e":{"id":"web-1;\u003chost\u003e","label":"web-1","labelMinor":"","rank":"","shape":"circle","metadata":[{"id":"kernel_version","label":"Kernel version","value":"6.18.0","priority":1.0},{"id":"uptime","label":"Uptime","value":"…","priority":2.0,"dataType":"duration"},{"id":"host_name","label":"Hostname","value":"web-1","priority":11.0},{"id":"os","label":"OS","value":"linux","priority":12.0},{"id":"local_networks","label":"Local networks","value":"10.0.0.0/24","priority":13.0},{"id":"host_scope_version","label":"Scope version","value":"1.2.3","priority":14.0}],"adjacency":["db-1;\u003chost\u003e"]}}}
    "#]]).await;
    check(&world, "/api/topology/processes", expect![[r##"
        200 application/json
        {"nodes":{"db-1;200":{"id":"db-1;200","label":"/usr/bin/postgres","labelMinor":"db-1 (200)","rank":"/usr/bin/postgres","shape":"square","metadata":[{"id":"pid","label":"PID","value":"200","priority":1.0,"dataType":"number"},{"id":"cmdline","label":"Command","value":"/usr/bin/postgres --port \u003c5432\u003e","priority":2.0},{"id":"ppid","label":"Parent PID","value":"1","priority":3.0,"dataType":"number"},{"id":"threads","label":"# Threads","value":"3","priority":4.0,"dataType":"number"}],"parents":[{"id":"db-1;\u003chost\u003e","label":"db-1","topologyId":"hosts"}]},"web-1;100":{"id":"web-1;100","label":"nginx","labelMinor":"web-1 (shop:100)","rank":"nginx","shape":"square","metadata":[{"id":"pid","label":"PID","value":"100","priority":1.0,"dataType":"number"},{"id":"cmdline","label":"Command","value":"nginx --port \u003c5432\u003e","priority":2.0},{"id":"ppid","label":"Parent PID","value":"1","priority":3.0,"dataType":"number"},{"id":"threads","label":"# Threads","value":"3","priority":4.0,"dataType":"number"}],"parents":[{"id":"CONTAINER;\u003ccontainer\u003e","label":"shop","topologyId":"containers"},{"id":"web/nginx;\u003ccontainer_image\u003e","label":"web/nginx","topologyId":"containers-by-image"},{"id":"web-1;\u003chost\u003e","label":"web-1","topologyId":"hosts"}],"adjacency":["db-1;200"]}}}
    "##]]).await;
    check(&world, "/api/topology/containers", expect![[r#"
        200 application/json
        {"nodes":{"CONTAINER;\u003ccontainer\u003e":{"id":"CONTAINER;\u003ccontainer\u003e","label":"shop","labelMinor":"web-1","rank":"web/nginx","shape":"hexagon","metadata":[{"id":"docker_image_tag","label":"Image tag","value":"1.25","priority":1.0},{"id":"docker_image_name","label":"Image name","value":"web/nginx","priority":2.0},{"id":"docker_container_state_human","label":"State","value":"Up 2 hours","priority":4.0},{"id":"docker_container_restart_count","label":"Restart #","value":"0","priority":6.0},{"id":"docker_container_created","label":"Created","value":"2025-12-31T23:59:59Z","priority":10.0,"dataType":"datetime"},{"id":"docker_container_id","label":"ID","value":"CONTAINER","priority":11.0,"truncate":12}],"parents":[{"id":"web/nginx;\u003ccontainer_image\u003e","label":"web/nginx","topologyId":"containers-by-image"},{"id":"web-1;\u003chost\u003e","label":"web-1","topologyId":"hosts"}],"tables":[{"id":"docker_env_","label":"Environment variables","type":"property-list","columns":null,"rows":[]},{"id":"docker_label_","label":"Docker labels","type":"property-list","columns":null,"rows":[{"id":"label_tier","entries":{"label":"tier","value":"\u003cfront\u003e"}}]},{"id":"image_table","label":"Image","type":"property-list","columns":null,"rows":[{"id":"label_ ID","entries":{"label":" ID","value":"1111"}},{"id":"label_ Name","entries":{"label":" Name","value":"web/nginx"}},{"id":"label_ Tag","entries":{"label":" Tag","value":"1.25"}}]}],"adjacency":["pseudo:uncontained:db-1"]},"pseudo:uncontained:db-1":{"id":"pseudo:uncontained:db-1","label":"Uncontained","labelMinor":"db-1","rank":"uncontained:db-1","shape":"square","stack":true,"pseudo":true}}}
    "#]]).await;
    check(&world, "/api/topology/containers-by-image", expect![[r##"
        200 application/json
        {"nodes":{"pseudo:uncontained:db-1":{"id":"pseudo:uncontained:db-1","label":"Uncontained","labelMinor":"db-1","rank":"uncontained:db-1","shape":"square","stack":true,"pseudo":true},"web/nginx;\u003ccontainer_image\u003e":{"id":"web/nginx;\u003ccontainer_image\u003e","label":"web/nginx","labelMinor":"1 container","rank":"web/nginx","shape":"hexagon","stack":true,"metadata":[{"id":"container","label":"# Containers","value":"1","priority":2.0,"dataType":"number"}],"parents":[{"id":"web-1;\u003chost\u003e","label":"web-1","topologyId":"hosts"}],"tables":[{"id":"docker_image_label_","label":"Docker labels","type":"property-list","columns":null,"rows":[]}],"adjacency":["pseudo:uncontained:db-1"]}}}
    "##]]).await;
    check(&world, "/api/topology/processes-by-name", expect![[r#"
        200 application/json
        {"nodes":{"/usr/bin/postgres":{"id":"/usr/bin/postgres","label":"/usr/bin/postgres","labelMinor":"1 process","rank":"/usr/bin/postgres","shape":"square","stack":true},"nginx":{"id":"nginx","label":"nginx","labelMinor":"1 process","rank":"nginx","shape":"square","stack":true,"adjacency":["/usr/bin/postgres"]}}}
    "#]]).await;
}

#[tokio::test]
async fn details_of_a_container() {
    let (world, _probes) = World::with_two_hosts().await;
    check(&world, &format!("/api/topology/containers/{CONTAINER};%3Ccontainer%3E"), expect![[r##"
        200 application/json
        {"node":{"id":"CONTAINER;\u003ccontainer\u003e","label":"shop","labelMinor":"web-1","rank":"web/nginx","shape":"hexagon","metadata":[{"id":"docker_image_tag","label":"Image tag","value":"1.25","priority":1.0},{"id":"docker_image_name","label":"Image name","value":"web/nginx","priority":2.0},{"id":"docker_container_state_human","label":"State","value":"Up 2 hours","priority":4.0},{"id":"docker_container_restart_count","label":"Restart #","value":"0","priority":6.0},{"id":"docker_container_created","label":"Created","value":"2025-12-31T23:59:59Z","priority":10.0,"dataType":"datetime"},{"id":"docker_container_id","label":"ID","value":"CONTAINER","priority":11.0,"truncate":12}],"parents":[{"id":"web/nginx;\u003ccontainer_image\u003e","label":"web/nginx","topologyId":"containers-by-image"},{"id":"web-1;\u003chost\u003e","label":"web-1","topologyId":"hosts"}],"tables":[{"id":"docker_env_","label":"Environment variables","type":"property-list","columns":null,"rows":[]},{"id":"docker_label_","label":"Docker labels","type":"property-list","columns":null,"rows":[{"id":"label_tier","entries":{"label":"tier","value":"\u003cfront\u003e"}}]},{"id":"image_table","label":"Image","type":"property-list","columns":null,"rows":[{"id":"label_ ID","entries":{"label":" ID","value":"1111"}},{"id":"label_ Name","entries":{"label":" Name","value":"web/nginx"}},{"id":"label_ Tag","entries":{"label":" Tag","value":"1.25"}}]}],"adjacency":["pseudo:uncontained:db-1"],"controls":[],"children":[{"id":"","label":"Processes","nodes":[{"id":"web-1;100","label":"nginx","labelMinor":"web-1 (shop:100)","rank":"nginx","shape":"square","metadata":[{"id":"pid","label":"PID","value":"100","priority":1.0,"dataType":"number"},{"id":"cmdline","label":"Command","value":"nginx --port \u003c5432\u003e","priority":2.0},{"id":"ppid","label":"Parent PID","value":"1","priority":3.0,"dataType":"number"},{"id":"threads","label":"# Threads","value":"3","priority":4.0,"dataType":"number"}],"parents":[{"id":"CONTAINER;\u003ccontainer\u003e","label":"shop","topologyId":"containers"},{"id":"web/nginx;\u003ccontainer_image\u003e","label":"web/nginx","topologyId":"containers-by-image"},{"id":"web-1;\u003chost\u003e","label":"web-1","topologyId":"hosts"}]}],"topologyId":"processes","columns":[{"id":"pid","label":"PID","defaultSort":false,"dataType":"number"},{"id":"process_cpu_usage_percent","label":"CPU","defaultSort":false,"dataType":"number"},{"id":"process_memory_usage_bytes","label":"Memory","defaultSort":false,"dataType":"number"}]}],"connections":[{"id":"incoming-connections","topologyId":"containers","label":"Inbound","columns":[{"id":"port","label":"Port","defaultSort":false,"dataType":"number"},{"id":"count","label":"Count","defaultSort":true,"dataType":"number"}],"connections":[]},{"id":"outgoing-connections","topologyId":"containers","label":"Outbound","columns":[{"id":"port","label":"Port","defaultSort":false,"dataType":"number"},{"id":"count","label":"Count","defaultSort":true,"dataType":"number"}],"connections":[{"id":"pseudo:uncontained:db-1---5432","nodeId":"pseudo:uncontained:db-1","label":"Uncontained","labelMinor":"db-1","metadata":[{"id":"port","label":"","value":"5432"},{"id":"count","label":"","value":"3"}]}]}]}}
    "##]]).await;
}

#[tokio::test]
async fn probes_as_scope_listed_them() {
    let (world, _probes) = World::with_two_hosts().await;
    check(&world, "/api/probes", expect![[r#"
        200 application/json
        [{"id":"probe-db","hostname":"db-1","version":"1.2.3","lastSeen":"…"},{"id":"probe-web","hostname":"web-1","version":"1.2.3","lastSeen":"…"}]
    "#]]).await;
    check(
        &world,
        "/api/probes?sparse",
        expect![[r#"
        200 application/json
        true
    "#]],
    )
    .await;
}

#[tokio::test]
async fn every_reply_is_what_the_document_says() {
    let (world, _probes) = World::with_two_hosts().await;
    world.get("/api").await.json::<schema::Api>();
    world.get("/api/topology").await.json::<Vec<schema::ViewDescription>>();
    world.get("/api/probes").await.json::<Vec<schema::Probe>>();
    for view in ["hosts", "processes", "processes-by-name", "containers", "containers-by-image", "containers-by-hostname"] {
        let nodes: schema::Nodes = world.get(&format!("/api/topology/{view}")).await.json();
        assert!(!nodes.nodes.is_empty(), "{view}");
        for (id, node) in nodes.nodes {
            assert_eq!(id, node.id);
            let target = format!("/api/topology/{view}/{}", id.replace('%', "%25").replace('/', "%2F").replace(' ', "+"));
            let reply: schema::NodeReply = world.get(&target).await.json();
            assert_eq!(reply.node.summary.id, id);
            assert_eq!(reply.node.summary.adjacency, node.adjacency);
            let tables: Vec<&str> = reply.node.connections.iter().map(|table| table.id.as_str()).collect();
            assert_eq!(tables, ["incoming-connections", "outgoing-connections"]);
        }
    }
}

#[tokio::test]
async fn without_parameters_nothing_is_filtered_and_with_any_defaults_are() {
    let (world, [mut web, _db]) = World::with_two_hosts().await;
    web.apply(processes_delta(2, [process(300, "lonely", "")])).await;
    let lonely = async |target: &str| world.get(target).await.text().contains("web-1;300");
    assert!(lonely("/api/topology/processes").await);
    assert!(lonely("/api/topology/processes?").await, "a bare question mark is no parameter");
    assert!(!lonely("/api/topology/processes?timestamp=").await);
    assert!(!lonely("/api/topology/processes?timestamp=nonsense").await, "a malformed moment is no error");
    assert!(lonely("/api/topology/processes?unconnected=show").await);
    assert!(lonely("/api/topology/processes?unconnected=unheard-of").await, "an unknown value is no filter");
    assert!(!lonely("/api/topology/processes?unconnected=hide&unconnected=show").await, "the first one counts");
    let stats = async |query: &str| {
        let views: Vec<schema::ViewDescription> = world.get(&format!("/api/topology{query}")).await.json();
        let processes = views.into_iter().find(|view| view.name == "Processes").unwrap().stats;
        (processes.node_count, processes.filtered_nodes)
    };
    assert_eq!(stats("").await.0, 3);
    assert_eq!(stats("?t=5s").await, (2, 1));
}

#[tokio::test]
async fn command_lines_are_cut_on_request() {
    let (world, _probes) = World::with_two_hosts().await;
    assert!(world.get("/api/topology/processes").await.text().contains("nginx --port"));
    let hidden = world.get("/api/topology/processes?hideCommandLineArguments=true").await.text();
    assert!(!hidden.contains("--port") && hidden.contains("nginx"), "{hidden}");
}

#[tokio::test]
async fn ids_in_paths_are_split_raw_and_then_decoded() {
    let (world, [mut web, _db]) = World::with_two_hosts().await;
    web.apply(processes_delta(2, [process(300, "a b+c", "")])).await;
    let status = async |target: &str| world.get(target).await.status;
    assert_eq!(status("/api/topology/hosts/web-1;%3Chost%3E").await, 200);
    assert_eq!(status("/api/topology/hosts/web-1;<host>").await, 200, "as Scope's own scripts send it");
    assert_eq!(status("/api/topology/hosts/web-1%3B%3chost%3e?timestamp=x").await, 200);
    assert_eq!(status("/api/topology/processes-by-name/%2Fusr%2Fbin%2Fpostgres").await, 200);
    assert_eq!(status("/api/topology/processes-by-name//usr/bin/postgres").await, 404, "a slash in an id is written %2F");
    assert_eq!(status("/api/topology/processes-by-name/a+b%2Bc").await, 200);
    assert_eq!(status("/api/topology/processes-by-name/a%20b+c").await, 404);
    assert_eq!(status("/api/topology/hosts/web-1;%3Chost%3").await, 404, "a broken escape matches nothing");
    assert_eq!(status("/api/topology/hosts/%ff").await, 404);
}

#[tokio::test]
async fn angle_brackets_work_on_a_connection_that_is_kept() {
    let (world, _probes) = World::with_two_hosts().await;
    let one = "GET /api/topology/hosts/web-1;<host> HTTP/1.1\r\nHost: x\r\n\r\n";
    let last = "GET /api/topology/hosts/db-1;<host> HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let reply = raw(world.http, format!("{one}{last}").as_bytes()).await;
    let both = String::from_utf8_lossy(&reply.body);
    assert!(both.contains("\"label\":\"web-1\"") && both.contains("\"label\":\"db-1\""), "{both}");
}

#[tokio::test]
async fn what_does_not_exist_is_plain_text() {
    let world = World::start().await;
    for target in [
        "/api/topology/nope",
        "/api/topology/hosts/nobody",
        "/api/nope",
        "/api/topology/",
        "/nope",
        "/ui/nope",
        "/api/topology/hosts/a/b/c",
    ] {
        check(
            &world,
            target,
            expect![[r#"
            404 text/plain; charset=utf-8
            404 page not found

        "#]],
        )
        .await;
    }
}

#[tokio::test]
async fn replies_are_compressed_from_1400_bytes_on_for_those_who_can_take_it() {
    let world = World::start().await;
    let small = request(world.http, "GET", "/api", "Accept-Encoding: gzip\r\n").await;
    assert_eq!(small.header("content-encoding"), "");
    let large = request(world.http, "GET", "/api/topology", "Accept-Encoding: gzip\r\n").await;
    assert_eq!(large.header("content-encoding"), "gzip");
    assert_eq!(large.header("vary").to_ascii_lowercase(), "accept-encoding");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&large.body[..]).read_to_string(&mut text).unwrap();
    assert_eq!(text, world.get("/api/topology").await.text());
}

#[tokio::test]
async fn a_large_view_comes_whole_though_it_is_made_in_pieces() {
    let world = World::start().await;
    let mut probe = Probe::connect(world.grpc, "p", "web-1").await;
    probe.apply(web_report(1)).await;
    probe.apply(processes_delta(2, (1_000..6_000).map(|pid| process(pid, "worker", "")))).await;
    let reply = world.get("/api/topology/processes").await;
    assert_eq!(reply.header("transfer-encoding"), "chunked");
    let nodes: schema::Nodes = reply.json();
    assert!(nodes.nodes.len() > 5_000, "{}", nodes.nodes.len());
    let unique: BTreeMap<_, _> = nodes.nodes.iter().collect();
    assert_eq!(unique.len(), nodes.nodes.len());

    let compressed = request(world.http, "GET", "/api/topology/processes", "Accept-Encoding: gzip\r\n").await;
    assert_eq!(compressed.header("content-encoding"), "gzip");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&compressed.body[..]).read_to_string(&mut text).unwrap();
    let nodes: schema::Nodes = serde_json::from_str(&text).unwrap();
    assert_eq!(nodes.nodes.len(), unique.len());
}

#[tokio::test]
async fn only_reading_is_allowed() {
    let world = World::start().await;
    for target in ["/api/topology", "/api/topology/hosts", "/metrics"] {
        assert_eq!(request(world.http, "POST", target, "Content-Length: 0\r\n").await.status, 405, "{target}");
    }
    assert_eq!(request(world.http, "HEAD", "/api", "").await.status, 200);
}

#[tokio::test]
async fn storage_is_among_the_pods_unless_it_is_hidden() {
    let world = World::start().await;
    let hello = Hello { cluster_name: "production".to_owned(), ..hello("collector", "collector") };
    let mut collector = Probe::connect_with(world.grpc, hello).await.unwrap();
    let object = |kind: kubernetes_object::Kind, name: &str| KubernetesObject {
        kind: kind.into(),
        uid: name.to_owned(),
        name: name.to_owned(),
        ..KubernetesObject::default()
    };
    let kubernetes = vec![
        object(kubernetes_object::Kind::Pod, "db"),
        object(kubernetes_object::Kind::PersistentVolume, "volume"),
        object(kubernetes_object::Kind::PersistentVolumeClaim, "claim"),
        object(kubernetes_object::Kind::StorageClass, "class"),
    ];
    collector.apply(Report { sequence: 1, kind: report::Kind::SnapshotEnd.into(), kubernetes, ..Report::default() }).await;
    let all = ["claim;<persistent_volume_claim>", "class;<storage_class>", "db;<pod>", "volume;<persistent_volume>"];
    for (query, expected) in [
        ("", &all[..]),
        ("?storage=show", &all),
        ("?storage=", &all),
        ("?storage=show&storage=hide", &all),
        ("?storage=hide", &["db;<pod>"]),
        ("?pseudo=show", &["db;<pod>"]),
    ] {
        let reply: serde_json::Value = world.get(&format!("/api/topology/pods{query}")).await.json();
        let found: Vec<&str> = reply["nodes"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(found, expected, "{query}");
    }
}

/// Scope's `--app.container-label-filter`: an option of its own, which keeps what has the label.
#[tokio::test]
async fn an_operator_adds_filters_by_label_to_the_options() {
    let label_filters = orchestrator_control::http::scope::labels::parse_flags(
        "--app.container-label-filter=At the front:tier=<front> --app.container-label-filter-exclude=Behind:tier=<front>",
    );
    let config = orchestrator_control::config::Config { label_filters: label_filters.unwrap().0, ..crate::world::config() };
    let world = World::start_with(config, std::sync::Arc::new(orchestrator_control::store::MemoryStore::default())).await;
    let mut web = crate::probe::Probe::connect(world.grpc, "probe-web", "web-1").await;
    web.apply(crate::world::web_report(1)).await;
    let views: serde_json::Value = world.get("/api/topology").await.json();
    let system = &views[0]["options"][0]["options"];
    assert_eq!(system[3], serde_json::json!({"value": "containerLabelFilterExclude0", "label": "At the front"}));
    assert_eq!(system[4], serde_json::json!({"value": "containerLabelFilter0", "label": "Behind"}));
    for (value, count) in [("containerLabelFilterExclude0", 1), ("containerLabelFilter0", 0), ("containerLabelFilter1", 1), ("all", 1)] {
        let reply: serde_json::Value = world.get(&format!("/api/topology/containers?system={value}")).await.json();
        let containers = reply["nodes"].as_object().unwrap().keys().filter(|id| id.ends_with(";<container>")).count();
        assert_eq!(containers, count, "{value}");
        let views: serde_json::Value = world.get(&format!("/api/topology?system={value}")).await.json();
        assert_eq!(views[0]["stats"]["nonpseudo_node_count"], count, "{value}");
    }
}

/// Scope's `--app.basicAuth` and `--app.metrics-graph`.
#[tokio::test]
async fn who_came_in_to_scope_comes_in_and_finds_the_links_to_graphs() {
    use orchestrator_control::config::{Config, Login};
    use orchestrator_control::http::scope::graphs::MetricsGraph;

    let login = Login { user: "admin".to_owned(), password: "pw".to_owned() };
    let metrics_graph = MetricsGraph::at("/g?q=:query");
    let config = Config { scope_login: Some(login), metrics_graph, ..crate::world::config() };
    let world = World::start_with(config, std::sync::Arc::new(orchestrator_control::store::MemoryStore::default())).await;
    let mut web = crate::probe::Probe::connect(world.grpc, "probe-web", "web-1").await;
    web.apply(crate::world::web_report(1)).await;
    assert_eq!(world.get("/api").await.status, 401);
    let view = crate::http::request(world.http, "GET", "/api/topology/containers", "Authorization: Basic YWRtaW46cHc=\r\n").await;
    view.json::<schema::Nodes>();
    let view: serde_json::Value = view.json();
    let node = &view["nodes"][format!("{CONTAINER};<container>")];
    let memory = node["metrics"].as_array().unwrap().iter().find(|row| row["id"] == "docker_memory_usage").unwrap();
    assert!(memory["url"].as_str().unwrap().starts_with("/g?q=sum%28container_memory_rss%7Bid%3D~"), "{memory}");
}
