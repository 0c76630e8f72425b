//! Connections that were taken elsewhere than they meant to go.

use expect_test::{Expect, expect};
use topology::{Filter, FlowQuery, KubernetesKind, Report, View};

use crate::world::*;

#[track_caller]
fn check(world: &mut World, view: View, expected: Expect) {
    expected.assert_eq(&world.picture(view, Filter::NONE));
}

fn two_hosts() -> World {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24"]);
    world.connect("b", &["10.0.0.2/24"]);
    world.report("a", processes(vec![process(1, "app")]));
    world.report("b", processes(vec![process(2, "db"), process(3, "db")]));
    world
}

#[test]
fn a_translated_client_meets_each_server_and_nobody_else() {
    let mut world = two_hosts();
    // In the order in which it is worst: the servers' ends first, with a client that nobody knows, then the client that asked for an address
    // outside, and at last where it was taken.
    world.report("b", flows(vec![server(1, 2, "203.0.113.7", "10.244.1.5", 5432), server(2, 3, "203.0.113.7", "10.244.1.6", 5432)]));
    let meant = client(1, 1, "10.0.0.1", "198.51.100.80", 80);
    world.report("a", flows(vec![meant.clone()]));
    check(
        &mut world,
        View::Processes,
        expect![[r#"
            a;1 [app | a (1)] -> out-theinternet
            b;2 [db | b (2)]
            b;3 [db | b (3)]
            in-theinternet [The Internet | Inbound connections] -> b;2, b;3
            out-theinternet [The Internet | Outbound connections]
            5 nodes, 3 real, 3 edges, 0 filtered
        "#]],
    );
    let masked = Some("203.0.113.7");
    world.report("a", flows(vec![taken(taken(meant, "10.244.1.5", 5432, masked), "10.244.1.6", 5432, masked)]));
    check(
        &mut world,
        View::Processes,
        expect![[r#"
            a;1 [app | a (1)] -> b;2, b;3
            b;2 [db | b (2)]
            b;3 [db | b (3)]
            3 nodes, 3 real, 2 edges, 0 filtered
        "#]],
    );
    let details = world.details(View::Hosts, "a;<host>").unwrap();
    let rows: Vec<_> = details.outgoing.iter().map(|row| (&*row.id, &*row.via, row.count)).collect();
    assert_eq!(rows, [("b;<host>---5432", "198.51.100.80:80 (conntrack)", 2)]);
    let page = world.map.flows(&FlowQuery { host: Some(arc("a")), limit: 9, ..FlowQuery::default() });
    let peers: Vec<&str> = page.flows[0].peers.iter().map(topology::NodeId::as_str).collect();
    assert_eq!((peers, page.flows[0].translations.len()), (vec!["b;2", "b;3"], 2));
}

#[test]
fn an_update_without_translations_leaves_the_flow_where_it_is() {
    let mut world = two_hosts();
    let meant = client(1, 1, "10.0.0.1", "198.51.100.80", 80);
    world.report("a", flows(vec![taken(meant.clone(), "10.0.0.2", 5432, None)]));
    world.report("b", flows(vec![server(1, 2, "10.0.0.1", "10.0.0.2", 5432)]));
    world.report("a", flows(vec![topology::Flow { key: None, ..meant }]));
    check(
        &mut world,
        View::Processes,
        expect![[r#"
            a;1 [app | a (1)] -> b;2
            b;2 [db | b (2)]
            b;3 [db | b (3)]
            3 nodes, 3 real, 1 edges, 0 filtered
        "#]],
    );
}

#[test]
fn a_server_that_knows_where_its_client_meant_to_go_meets_it_there_or_where_it_arrived() {
    for translated in [false, true] {
        let mut world = two_hosts();
        let mut arrived = server(1, 2, "203.0.113.7", "172.17.0.2", 80);
        arrived.key.as_mut().unwrap().original_server = Some((address("10.0.0.2"), 8080));
        world.report("b", flows(vec![arrived]));
        check(
            &mut world,
            View::Processes,
            expect![[r#"
                a;1 [app | a (1)]
                b;2 [db | b (2)]
                b;3 [db | b (3)]
                in-theinternet [The Internet | Inbound connections] -> b;2
                4 nodes, 3 real, 1 edges, 0 filtered
            "#]],
        );
        let meant = client(1, 1, "203.0.113.7", "10.0.0.2", 8080);
        world.report("a", flows(vec![if translated { taken(meant, "172.17.0.2", 80, None) } else { meant }]));
        check(
            &mut world,
            View::Processes,
            expect![[r#"
                a;1 [app | a (1)] -> b;2
                b;2 [db | b (2)]
                b;3 [db | b (3)]
                3 nodes, 3 real, 1 edges, 0 filtered
            "#]],
        );
        world.report("a", Report { flows_gone: vec![1], ..Report::default() });
        world.pass(WINDOW);
        assert!(world.picture(View::Processes, Filter::NONE).contains("in-theinternet"), "its client is nobody we know again");
    }
}

#[test]
fn a_client_that_is_only_masqueraded_arrives_where_it_meant_to() {
    let mut world = two_hosts();
    world.report("a", flows(vec![taken(client(1, 1, "172.17.0.2", "93.184.216.34", 443), "93.184.216.34", 443, Some("10.0.0.1"))]));
    let details = world.details(View::Processes, "a;1").unwrap();
    let rows: Vec<_> = details.outgoing.iter().map(|row| (&*row.label, &*row.via)).collect();
    assert_eq!(rows, [("93.184.216.34", "")]);
}

#[test]
fn udp_is_joined_like_tcp_and_shown_as_what_it_is() {
    let mut world = two_hosts();
    world.report("a", flows(vec![udp(client(1, 1, "10.0.0.1", "10.0.0.2", 53)), client(2, 1, "10.0.0.1", "10.0.0.2", 53)]));
    world.report("b", flows(vec![udp(server(1, 2, "10.0.0.1", "10.0.0.2", 53)), server(2, 3, "10.0.0.1", "10.0.0.2", 53)]));
    check(
        &mut world,
        View::Processes,
        expect![[r#"
            a;1 [app | a (1)] -> b;2, b;3
            b;2 [db | b (2)]
            b;3 [db | b (3)]
            3 nodes, 3 real, 2 edges, 0 filtered
        "#]],
    );
    let details = world.details(View::Hosts, "b;<host>").unwrap();
    let rows: Vec<_> = details.incoming.iter().map(|row| (&*row.id, row.protocol)).collect();
    assert_eq!(rows, [("a;<host>---53", "tcp"), ("a;<host>---53-udp", "udp")]);
}

#[test]
fn a_sum_of_many_flows_leads_to_the_internet_and_is_no_address() {
    let mut world = two_hosts();
    let mut sum = server(1, 2, "0.0.0.0", "10.0.0.2", 443);
    sum.others = 70_000;
    world.report("b", flows(vec![sum]));
    // Without a number it is no sum but a lie.
    world.report("b", flows(vec![server(2, 3, "0.0.0.0", "10.0.0.2", 444)]));
    // Whoever comes over loopback is no stranger.
    let mut local = server(3, 3, "0.0.0.0", "127.0.0.1", 445);
    local.others = 5;
    world.report("b", flows(vec![local]));
    check(
        &mut world,
        View::Processes,
        expect![[r#"
            a;1 [app | a (1)]
            b;2 [db | b (2)]
            b;3 [db | b (3)]
            in-theinternet [The Internet | Inbound connections] -> b;2
            4 nodes, 3 real, 1 edges, 0 filtered
        "#]],
    );
    let details = world.details(View::Processes, "b;2").unwrap();
    assert_eq!(&*details.incoming[0].label, "and 70000 others");
    let page = world.map.flows(&FlowQuery { host: Some(arc("b")), limit: 1, ..FlowQuery::default() });
    assert_eq!((page.flows[0].others, page.flows[0].peers[0].as_str()), (70_000, "in-theinternet"));
}

#[test]
fn a_listener_tells_who_serves_where_the_servers_end_is_not_seen() {
    let mut world = two_hosts();
    world.report("a", flows(vec![client(1, 1, "10.0.0.1", "10.0.0.2", 5432)]));
    assert!(!world.picture(View::Processes, Filter::NONE).contains("->"));
    world.report("b", Report { listeners: vec![listener(1, 2, "0.0.0.0", 5432)], ..Report::default() });
    let leads_to_its_process = |world: &mut World| world.picture(View::Processes, Filter::NONE).contains("a;1 [app | a (1)] -> b;2\n");
    assert!(leads_to_its_process(&mut world));
    // Two that share a port: nobody knows which of them it was.
    world.report("b", Report { listeners: vec![listener(2, 3, "10.0.0.2", 5432)], ..Report::default() });
    assert!(!world.picture(View::Processes, Filter::NONE).contains("->"));
    world.report("b", Report { listeners_gone: vec![2], ..Report::default() });
    assert!(leads_to_its_process(&mut world));
    world.report("b", Report { processes_gone: vec![key(2)], ..Report::default() });
    world.pass(WINDOW);
    assert!(!world.picture(View::Processes, Filter::NONE).contains("->"));
    let described = world.details(View::Hosts, "b;<host>").unwrap();
    assert_eq!(&*described.summary.tables.iter().find(|table| table.id == "host_listeners").unwrap().rows[0].0, "0.0.0.0:5432/tcp");
}

#[test]
fn a_service_with_one_pod_leads_to_it_and_one_with_several_to_none_of_them() {
    let mut world = World::new();
    world.connect("n1", &["10.0.0.1/24"]);
    world.report("n1", containers(vec![in_pod("c1", "p1")]));
    world.report("n1", processes(vec![contained(1, "app", "c1")]));
    world.report("n1", flows(vec![client(1, 1, "10.1.0.1", "10.96.0.7", 80)]));
    let endpoint = |uid: &str, ready| topology::Endpoint {
        address: address("10.1.0.9"),
        port: 8080,
        protocol: "TCP".into(),
        ready,
        target_uid: Some(uid.into()),
    };
    let mut service = object(KubernetesKind::Service, "svc", &[]);
    service.addresses = vec![address("10.96.0.7")];
    service.endpoints = vec![endpoint("p2", true), endpoint("p3", false)];
    let pods = || vec![object(KubernetesKind::Pod, "p1", &[]), object(KubernetesKind::Pod, "p2", &[])];
    world.connect_cluster("k", "k", pods().into_iter().chain([service.clone()]).collect());
    let edges = |world: &mut World, view| {
        let picture = world.picture(view, Filter::NONE);
        picture.lines().filter(|line| line.contains("->")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(edges(&mut world, View::Pods), ["p1;<pod> [p1 | 1 container] -> p2;<pod>"]);
    let page = world.map.flows(&FlowQuery { limit: 1, ..FlowQuery::default() });
    let taken: Vec<_> = page.flows[0].translations.iter().map(|it| (it.server.1, it.source.as_str())).collect();
    assert_eq!(taken, [(8080, "endpoints")]);
    service.endpoints = vec![endpoint("p2", true), endpoint("p3", true)];
    world.report("k", Report { kubernetes: vec![service.clone()], ..Report::default() });
    assert_eq!(edges(&mut world, View::Pods), [""; 0]);
    let page = world.map.flows(&FlowQuery { limit: 1, ..FlowQuery::default() });
    assert_eq!(page.flows[0].translations.len(), 2);
    service.endpoints.pop();
    world.report("k", Report { kubernetes: vec![service], ..Report::default() });
    assert_eq!(edges(&mut world, View::Pods).len(), 1);
    world.report("k", Report { kubernetes_gone: vec![arc("p2")], ..Report::default() });
    assert_eq!(edges(&mut world, View::Pods), [""; 0]);
}

#[test]
fn unix_sockets_join_processes_and_containers_of_one_host() {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24"]);
    world.report("a", containers(vec![container("c1", "app", "app:1")]));
    world.report("a", processes(vec![contained(1, "app", "c1")]));
    let unix = topology::UnixFlow { id: 1, client: key(1), server: key(2), path: "/run/db.sock".into(), open: 3 };
    world.report("a", Report { unix_flows: vec![unix.clone()], ..Report::default() });
    assert!(!world.picture(View::Processes, Filter::NONE).contains("->"), "its server is not on the map yet");
    world.report("a", processes(vec![process(2, "db")]));
    check(
        &mut world,
        View::Processes,
        expect![[r#"
            a;1 [app | a (app:1)] -> a;2
            a;2 [db | a (2)]
            2 nodes, 2 real, 1 edges, 0 filtered
        "#]],
    );
    check(
        &mut world,
        View::Containers,
        expect![[r#"
            c1;<container> [app | a] -> pseudo:uncontained:a
            pseudo:uncontained:a [Uncontained | a]
            2 nodes, 1 real, 1 edges, 0 filtered
        "#]],
    );
    let details = world.details(View::Containers, "c1;<container>").unwrap();
    let rows: Vec<_> = details.outgoing.iter().map(|row| (&*row.label, &*row.label_minor, row.port, row.count)).collect();
    assert_eq!(rows, [("/run/db.sock", "Uncontained", None, 3)]);
    world.report("a", Report { unix_flows_gone: vec![1], ..Report::default() });
    world.pass(WINDOW);
    assert!(!world.picture(View::Processes, Filter::NONE).contains("->"));
}
