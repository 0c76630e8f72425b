use proptest::prelude::*;

use super::*;
use crate::decode::{Compression, Format, Limits, decode};

fn json(text: &str) -> Report {
    decode(text.as_bytes(), Format::Json, Compression::None, Limits { bytes: 1 << 20, memory: 16 << 20 }).unwrap()
}

fn drawing(text: &str) -> Drawing {
    Drawing::new(json(text), Joints::default())
}

/// `id -> targets` of a view.
fn edges(drawing: &Drawing, view: View) -> Vec<String> {
    let overlay = drawing.overlay(view, &Options::default());
    let line = |item: &Item| {
        let targets: Vec<&str> = item.summary().adjacency.iter().map(|id| id.as_str()).collect();
        format!("{} -> {}", item.summary().id, targets.join(" ")).trim_end().to_owned()
    };
    overlay.items.values().map(line).collect()
}

/// An endpoint with a process of host `h`.
fn own(id: &str, pid: u32, adjacency: &[&str], more: &str) -> String {
    format!(
        r#""{id}":{{"topology":"endpoint","adjacency":{adjacency:?},"latest":{{"pid":{{"value":"{pid}"}},"host_node_id":{{"value":"h;<host>"}}{more}}}}}"#
    )
}

fn other(id: &str, adjacency: &[&str]) -> String {
    format!(r#""{id}":{{"topology":"endpoint","adjacency":{adjacency:?}}}"#)
}

fn processes(pids: &[u32]) -> String {
    let row = |pid: &u32| format!(r#""h;{pid}":{{"topology":"process","latest":{{"name":{{"value":"p{pid}"}}}}}}"#);
    pids.iter().map(row).collect::<Vec<_>>().join(",")
}

fn with(processes: &str, endpoints: &[String], more: &str) -> Drawing {
    drawing(&format!(
        r#"{{"Host":{{"nodes":{{"h;<host>":{{"topology":"host","sets":{{"local_networks":["10.0.0.0/8","127.0.0.0/8"]}}}}}}}},
        "Process":{{"nodes":{{{processes}}}}},"Endpoint":{{"nodes":{{{}}}}}{more}}}"#,
        endpoints.join(",")
    ))
}

#[test]
fn a_source_port_that_was_used_again_tells_nothing() {
    let endpoints = [
        own(";10.0.0.1;4000", 1, &[";10.0.0.2;80", ";10.0.0.2;81"], ""),
        own(";10.0.0.1;4001", 1, &[";10.96.0.1;80", ";10.0.0.2;80"], ""),
        own(";10.0.0.2;80", 2, &[], ""),
        own(";10.0.0.2;81", 3, &[], ""),
        // An alias of what the other edge leads to: that is one connection, seen on both sides of a translation.
        own(";10.96.0.1;80", 2, &[], r#","copy_of":{"value":";10.0.0.2;80"}"#),
    ];
    let drawing = with(&processes(&[1, 2, 3]), &endpoints, "");
    assert_eq!(edges(&drawing, View::Processes), ["h;1 -> h;2", "h;2 ->", "h;3 ->"]);
}

#[test]
fn who_is_outside_is_the_internet_or_a_known_service_and_who_is_inside_and_unknown_is_nobody() {
    let endpoints = [
        own(";10.0.0.1;4000", 1, &[";8.8.8.8;53"], ""),
        own(";10.0.0.1;4001", 1, &[";10.0.0.99;53"], ""),
        own(";10.0.0.1;4002", 1, &[";10.0.0.50;443"], ""),
        other(";8.8.8.8;53", &[]),
        other(";10.0.0.99;53", &[]),
        other(";10.0.0.50;443", &[]),
        other(";9.9.9.9;1024", &[";10.0.0.1;22"]),
        own(";10.0.0.1;22", 2, &[], ""),
        // From the Internet to the Internet: a mistake of those who track connections.
        other(";9.9.9.9;1025", &[";8.8.8.8;53"]),
    ];
    // Known services may have addresses of local networks.
    let dns = r#","DNS":{"10.0.0.50":{"forward":["x.example","s3.amazonaws.com"]}}"#;
    let drawing = with(&processes(&[1, 2]), &endpoints, dns);
    let expected = ["h;1 -> out-theinternet service-s3.amazonaws.com", "h;2 ->", "in-theinternet -> h;2", "out-theinternet ->"];
    assert_eq!(edges(&drawing, View::Processes)[..4], expected);
}

#[test]
fn an_address_that_two_containers_have_tells_nothing() {
    let container = |id: &str, ip: &str, more: &str| {
        format!(
            r#""{id};<container>":{{"topology":"container","latest":{{"docker_container_id":{{"value":"{id}"}}{more}}},
            "sets":{{"docker_container_ips_with_scopes":[";{ip}",";127.0.0.1"],"docker_container_ports":["10.0.0.1:8080->80/tcp"]}}}}"#
        )
    };
    let containers = [
        container("a", "10.1.0.1", ""),
        container("b", "10.1.0.2", ""),
        container("c", "10.1.0.2", ""),
        container("d", "10.1.0.4", r#","docker_is_in_host_network":{"value":"true"}"#),
        container("e", "10.1.0.5", r#","docker_container_state":{"value":"deleted"}"#),
    ]
    .join(",");
    let to = [";10.1.0.1;80", ";10.1.0.2;80", ";10.1.0.4;80", ";10.1.0.5;80", ";10.0.0.1;8080", ";127.0.0.1;80"];
    let mut endpoints: Vec<String> = to.iter().map(|id| other(id, &[])).collect();
    endpoints.push(other(";10.1.0.1;4000", &to));
    let drawing = with("", &endpoints, &format!(r#","Container":{{"nodes":{{{containers}}}}}"#));
    // The port of the host is published twice, too. What is left is the connection of the one with the address of its own.
    assert_eq!(
        edges(&drawing, View::Containers),
        ["a;<container> -> a;<container>", "b;<container> ->", "c;<container> ->", "d;<container> ->"]
    );
}

#[test]
fn peers_of_weave_without_a_probe_are_known_from_others_only() {
    let drawing = drawing(
        r##"{"Overlay":{"nodes":{
        "#aa:bb":{"topology":"overlay","adjacency":["#cc:dd"],"latest":{"weave_peer_nick_name":{"value":"one"},"host_node_id":{"value":"h;<host>"}}},
        "#cc:dd":{"topology":"overlay","latest":{"weave_peer_nick_name":{"value":"two"}}},
        "#docker_peer_h":{"topology":"overlay","sets":{"local_networks":["172.17.0.0/16"]}}}}}"##,
    );
    assert_eq!(edges(&drawing, View::Weave), ["#aa:bb -> pseudo:unmanaged:two", "pseudo:unmanaged:two ->"]);
}

#[test]
fn tasks_and_services_of_ecs_and_swarm() {
    let fact = |value: &str| format!(r#"{{"value":"{value}"}}"#);
    let container = |id: &str, parents: &str| {
        format!(
            r#""{id};<container>":{{"topology":"container","latest":{{"docker_container_id":{},"host_node_id":{}}},"parents":{parents},
            "metrics":{{"docker_cpu_total_usage":{{"samples":[{{"date":"2020-01-01T00:00:00Z","value":7.777}}],"min":0,"max":100}}}}}}"#,
            fact(id),
            fact("h;<host>")
        )
    };
    let text = format!(
        r#"{{"ECSTask":{{"nodes":{{"arn:1;<ecs_task>":{{"topology":"ecs_task","latest":{{"ecs_task_family":{}}},"parents":{{"ecs_service":["prod;web"]}}}}}},
        "metric_templates":{{"docker_cpu_total_usage":{{"id":"docker_cpu_total_usage","label":"CPU","format":"percent"}}}}}},
        "ECSService":{{"nodes":{{"prod;web":{{"topology":"ecs_service"}}}}}},
        "SwarmService":{{"nodes":{{"s1;<swarm_service>":{{"topology":"swarm_service","latest":{{"service_name":{},"stack_namespace":{}}}}}}}}},
        "Container":{{"nodes":{{{},{}}}}}}}"#,
        fact("web"),
        fact("front"),
        fact("shop"),
        container("a", r#"{"ecs_task":["arn:1;<ecs_task>"],"swarm_service":["s1;<swarm_service>"]}"#),
        container("b", "{}"),
    );
    let drawing = drawing(&text);
    let labels = |view: View| -> Vec<String> {
        drawing
            .overlay(view, &Options::default())
            .items
            .values()
            .map(|item| format!("{} {}", item.summary().label, item.summary().metrics.len()))
            .collect()
    };
    assert_eq!(labels(View::EcsTasks), ["web 1"]);
    assert_eq!(labels(View::EcsServices), ["web 0"]);
    assert_eq!(labels(View::SwarmServices), ["front 0"]);
    assert_eq!(drawing.namespaces().1.iter().map(|it| &**it).collect::<Vec<_>>(), ["shop"]);
    // Cut, not rounded.
    let task = drawing.details(View::EcsTasks, "arn:1;<ecs_task>", &Options::default()).unwrap();
    assert_eq!((task.summary.metrics[0].value, task.summary.metrics[0].samples.len()), (7.77, 1));
}

#[test]
fn tasks_and_services_are_drawn_as_scopes_probes_tell_of_them() {
    // Of these, they tell no topology. What is left of a node in a delta has no id either.
    let mut report = json(
        r#"{"ECSTask":{"nodes":{"arn:1;<ecs_task>":{"id":"arn:1;<ecs_task>","parents":{"ecs_service":["prod;web"]}},"arn:2;<ecs_task>":{}}},
        "ECSService":{"nodes":{"prod;web":{"id":"prod;web"}}},
        "SwarmService":{"nodes":{"s1;<swarm_service>":{"id":"s1;<swarm_service>","latest":{"stack_namespace":{"value":"shop"}}}}},
        "Container":{"nodes":{"a;<container>":{"id":"a;<container>","topology":"container","latest":{"docker_container_id":{"value":"a"}},
        "parents":{"ecs_task":["arn:1;<ecs_task>"],"swarm_service":["s1;<swarm_service>"]}},"b;<container>":{"id":"b;<container>"}}}}"#,
    );
    report.upgrade();
    let drawing = Drawing::new(report, Joints::default());
    assert_eq!(edges(&drawing, View::EcsTasks), ["arn:1;<ecs_task> ->"]);
    assert_eq!(edges(&drawing, View::EcsServices), ["prod;web ->"]);
    assert_eq!(edges(&drawing, View::SwarmServices), ["s1;<swarm_service> ->"]);
    assert_eq!(drawing.namespaces().1, ["shop".into()].into());
    // Elsewhere, such nodes are in no view, as in Scope's.
    assert_eq!(edges(&drawing, View::Containers), ["a;<container> ->"]);
}

#[test]
fn tables_with_columns_fixed_rows_and_what_was_cut_off() {
    let drawing = drawing(
        r##"{"Overlay":{"nodes":{"#p":{"topology":"overlay","latest":{"host_node_id":{"value":"h;<host>"},
        "c_r2___state":{"value":"up"},"c_r1___state":{"value":"down"},"c_r1___info":{"value":"x"},"c_broken":{"value":"y"},
        "weave_ipam":{"value":"on"},"l_a":{"value":"1"},"table_truncation_count_l_":{"value":"12"}}}},
        "table_templates":{
        "conn":{"id":"conn","label":"","prefix":"c_","type":"multicolumn-table","columns":[{"id":"state","label":"State","dataType":""}]},
        "fixed":{"id":"fixed","label":"Fixed","prefix":"","type":"property-list","fixedRows":{"weave_ipam":"IPAM"}},
        "list":{"id":"list","label":"List","prefix":"l_"}}}}"##,
    );
    let overlay = drawing.overlay(View::Weave, &Options::default());
    let tables = &overlay.items["#p"].summary().tables;
    let grid = tables[0].grid.as_ref().unwrap();
    let rows: Vec<(&str, usize)> = grid.rows.iter().map(|row| (&*row.id, row.cells.len())).collect();
    assert_eq!((&*grid.kind, rows), ("multicolumn-table", vec![("r1", 2), ("r2", 1)]));
    assert_eq!(tables[1].rows, [("IPAM".into(), "on".into())]);
    assert!(tables[1].grid.is_none());
    assert_eq!((tables[2].rows.len(), tables[2].grid.as_ref().unwrap().truncation_count), (1, 12));
}

proptest! {
    #[test]
    fn any_report_can_be_drawn_and_every_edge_has_two_ends(report in crate::decode::tests::any_report(), pick in any::<prop::sample::Index>()) {
        let mut report = report;
        // Probes tell edges of endpoints and of peers alone.
        for kind in Kind::ALL.into_iter().filter(|kind| !matches!(kind, Kind::Endpoint | Kind::Overlay)) {
            report.table_mut(kind).nodes.values_mut().for_each(|node| Arc::make_mut(node).adjacency.clear());
        }
        let questions = Joints::questions(&report);
        let nodes = |id: &str| vec![(View::Processes, NodeId::from(id)), (View::Hosts, NodeId::from("ours;<host>"))];
        let end = |id| End { nodes: nodes(id), is_local: true };
        let answers = questions.iter().map(|_| topology::LinkEnds { client: end("ours;1"), server: End::default() }).collect();
        let drawing = Drawing::new(report.clone(), Joints::answers(&report, &questions, answers));
        drawing.neighbours();
        let choice = Choice { filter: topology::Filter::DEFAULT, hide_snapshots: true, namespaces: Some(["a".into()].into()) };
        for options in [Options::default(), Options { choice: Some(choice), ..Options::default() }] {
            for view in View::ALL {
                let overlay = drawing.overlay(view, &options);
                for item in overlay.items.values() {
                    for target in &item.summary().adjacency {
                        // What has no summary (an unknown topology) is counted and not shown.
                        let is_there = overlay.items.contains_key(target) || drawing.finds(view, target.as_str()).is_some();
                        prop_assert!(is_there, "{view:?} {target} is missing");
                    }
                }
                prop_assert_eq!(drawing.outlines(view, &options), (overlay.outlines(), overlay.stats.filtered_nodes));
                prop_assert!(Arc::ptr_eq(&overlay, &drawing.overlay(view, &options)));
                if !overlay.items.is_empty() {
                    let id = overlay.items.keys().nth(pick.index(overlay.items.len())).unwrap();
                    prop_assert!(drawing.details(view, id.as_str(), &options).is_some());
                }
            }
        }
    }
}
