//! Details of nodes, and the listing of flows.

use std::fmt::Write as _;
use std::time::Duration;

use expect_test::{Expect, expect};
use topology::*;

use crate::world::*;

fn two_hosts() -> World {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24"]);
    world.connect("b", &["10.0.0.2/24"]);
    world.report("a", containers(vec![container("c1", "app", "shop:3")]));
    world.report("a", processes(vec![contained(1, "app", "c1"), contained(2, "app", "c1")]));
    world.report("b", processes(vec![process(5, "postgres")]));
    let mut busy = client(1, 1, "10.0.0.1", "10.0.0.2", 5432);
    busy.counters.opened = 7;
    busy.counters.closed = 3;
    world.report("a", flows(vec![busy, client(2, 2, "10.0.0.1", "10.0.0.2", 5432), client(3, 1, "10.0.0.1", "93.184.216.34", 443)]));
    let mut all = server(1, 5, "10.0.0.1", "10.0.0.2", 5432);
    all.counters.opened = 8;
    world.report("b", flows(vec![all]));
    world
}

#[track_caller]
fn check(world: &World, view: View, id: &str, expected: Expect) {
    let details = world.details(view, id).unwrap();
    let mut text = String::new();
    for group in &details.children {
        let nodes: Vec<&str> = group.nodes.iter().map(|node| node.id.as_str()).collect();
        writeln!(text, "{} ({}): {}", group.label, group.topology_id, nodes.join(", ")).unwrap();
    }
    for (direction, rows) in [("in", &details.incoming), ("out", &details.outgoing)] {
        for row in rows {
            writeln!(text, "{direction} {} [{} | {}] port {} x {}", row.id, row.label, row.label_minor, row.port.unwrap_or(0), row.count)
                .unwrap();
        }
    }
    expected.assert_eq(&text);
}

#[test]
fn connections_are_counted_by_their_source_and_grouped_by_neighbour_and_port() {
    let world = two_hosts();
    check(
        &world,
        View::Containers,
        "c1;<container>",
        expect![[r#"
            Processes (processes): a;1, a;2
            out out-theinternet-93.184.216.34--443 [93.184.216.34 | ] port 443 x 1
            out pseudo:uncontained:b---5432 [Uncontained | b] port 5432 x 8
        "#]],
    );
    check(
        &world,
        View::Processes,
        "b;5",
        expect![[r#"
            in a;1---5432 [app | a (app:1)] port 5432 x 7
            in a;2---5432 [app | a (app:2)] port 5432 x 1
        "#]],
    );
    check(
        &world,
        View::Processes,
        "out-theinternet",
        expect![[r#"
            in a;1--93.184.216.34-443 [app | a (app:1)] port 443 x 1
        "#]],
    );
    check(
        &world,
        View::Hosts,
        "a;<host>",
        expect![[r#"
            Containers (containers): c1;<container>
            Processes (processes): a;1, a;2
            Container images (containers-by-image): shop;<container_image>
            out b;<host>---5432 [b | ] port 5432 x 8
            out out-theinternet-93.184.216.34--443 [93.184.216.34 | ] port 443 x 1
        "#]],
    );
}

#[test]
fn unknown_nodes_and_nodes_of_other_views_have_no_panel() {
    let world = two_hosts();
    for (view, id) in [
        (View::Processes, "a;99"),
        (View::Processes, "nonsense"),
        (View::Processes, "c1;<container>"),
        (View::Processes, "in-theinternet"),
        (View::Hosts, "a"),
        (View::Pods, "a;<host>"),
        (View::Containers, "pseudo:uncontained:a"),
    ] {
        assert_eq!(world.details(view, id), None, "{view:?} {id}");
    }
}

#[test]
fn connections_that_closed_long_ago_are_no_longer_counted() {
    let mut world = two_hosts();
    world.pass(Duration::from_secs(60));
    let mut update = client(1, 1, "10.0.0.1", "10.0.0.2", 5432);
    update.key = None;
    update.counters = FlowCounters { opened: 9, closed: 8, ..FlowCounters::default() };
    for _ in 0..3 {
        world.report("a", flows(vec![update.clone()]));
        world.pass(WINDOW);
    }
    let details = world.details(View::Processes, "a;1").unwrap();
    assert_eq!(details.outgoing.iter().find(|row| row.port == Some(5432)).unwrap().count, 1);
}

#[test]
fn a_flow_that_went_quiet_counts_what_is_open() {
    let mut world = two_hosts();
    let mut update = client(1, 1, "10.0.0.1", "10.0.0.2", 5432);
    update.key = None;
    update.counters = FlowCounters { opened: 300, closed: 200, ..FlowCounters::default() };
    world.report("a", flows(vec![update]));
    let count =
        |world: &World| world.details(View::Processes, "a;1").unwrap().outgoing.iter().find(|row| row.port == Some(5432)).unwrap().count;
    assert_eq!(count(&world), 300);
    world.pass(WINDOW);
    assert_eq!(count(&world), 100);
}

#[test]
fn panels_carry_samples_and_views_do_not() {
    let mut world = two_hosts();
    let at = world.now;
    for second in 1..=20 {
        let sample = HostMetrics {
            at: at + Duration::from_secs(second),
            cpu_percent: 5.0,
            memory_used_bytes: 1 << 30,
            load1: 0.5,
            ..HostMetrics::default()
        };
        world.report("a", Report { host_metrics: vec![sample], ..Report::default() });
    }
    let details = world.details(View::Hosts, "a;<host>").unwrap();
    let cpu = &details.summary.metrics[0];
    assert_eq!((&*cpu.id, cpu.samples.len(), cpu.max), ("host_cpu_usage_percent", 12, 100.0));
    let shown = world.snapshot(View::Hosts, Filter::NONE);
    assert!(shown.nodes.get("a;<host>").unwrap().summary().metrics.iter().all(|metric| metric.samples.is_empty()));
}

#[test]
fn flows_are_listed_in_pages_with_their_peers() {
    let world = two_hosts();
    let first = world.map.flows(&FlowQuery { limit: 3, ..FlowQuery::default() });
    assert_eq!(first.flows.len(), 3);
    let second = world.map.flows(&FlowQuery { limit: 3, after: first.next.unwrap(), ..FlowQuery::default() });
    assert_eq!((second.flows.len(), second.next), (1, None));
    let peers: Vec<&str> = second.flows[0].peers.iter().map(NodeId::as_str).collect();
    assert_eq!(peers, ["a;1", "a;2"]);
    assert_eq!(first.flows[2].peers, [NodeId::from("out-theinternet")]);
}

#[test]
fn flows_are_found_by_process_host_port_and_direction() {
    let world = two_hosts();
    let count = |query: FlowQuery| world.map.flows(&FlowQuery { limit: 10, ..query }).flows.len();
    assert_eq!(count(FlowQuery { pid: Some(1), ..FlowQuery::default() }), 2);
    assert_eq!(count(FlowQuery { pid: Some(1), host: Some(arc("b")), ..FlowQuery::default() }), 0);
    assert_eq!(count(FlowQuery { host: Some(arc("b")), ..FlowQuery::default() }), 1);
    assert_eq!(count(FlowQuery { server_port: Some(5432), ..FlowQuery::default() }), 3);
    assert_eq!(count(FlowQuery { direction: Some(Direction::Server), ..FlowQuery::default() }), 1);
}

#[test]
fn tables_of_a_host_are_sorted_and_tell_listeners_in_containers_apart() {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24"]);
    let inside = |id: u64, pid: u32, container: &str| Listener {
        container_id: Some(container.into()),
        network_namespace: id,
        ..listener(id, pid, "0.0.0.0", 80)
    };
    let outside = container("c3", "agent", "x");
    let containers =
        vec![container("c1", "web-1", "x"), container("c2", "web-2", "x"), Container { network_mode: "host".into(), ..outside }];
    let processes = (1..=4).map(|pid| process(pid, "nginx")).collect();
    let listeners = vec![
        inside(1, 1, "c1"),
        inside(2, 2, "c2"),
        Listener { container_id: Some("c3".into()), ..listener(3, 3, "0.0.0.0", 80) },
        // A second socket of another process at the same place.
        listener(4, 4, "0.0.0.0", 80),
        listener(5, 4, "0.0.0.0", 22),
    ];
    world.report("a", Report { containers, processes, listeners, ..Report::default() });
    let interface = |name: &str| NetworkInterface { name: name.into(), ..NetworkInterface::default() };
    let metrics = HostMetrics { at: world.now, network_interfaces: vec![interface("lo"), interface("eth0")], ..HostMetrics::default() };
    world.report("a", Report { host_metrics: vec![metrics], ..Report::default() });
    let tables = world.details(View::Hosts, "a;<host>").unwrap().summary.tables;
    let rows = |id: &str| {
        let rows = &tables.iter().find(|table| table.id == id).unwrap().rows;
        rows.iter().map(|(id, value)| format!("{id}: {value}")).collect::<Vec<_>>()
    };
    assert_eq!(
        rows("host_listeners"),
        [
            "0.0.0.0:22/tcp: nginx (4)",
            "0.0.0.0:80/tcp: nginx (3), nginx (4)",
            "0.0.0.0:80/tcp in web-1: nginx (1)",
            "0.0.0.0:80/tcp in web-2: nginx (2)",
        ]
    );
    let names = |id: &str| rows(id).iter().map(|row| row.split(':').next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(names("host_network_interfaces"), ["eth0", "lo"]);
    for table in &tables {
        assert!(table.rows.is_sorted(), "{table:?}");
    }
}
