//! Which ends of connections meet.

use expect_test::{Expect, expect};
use topology::{Direction, Filter, PortMapping, View};

use crate::world::*;

#[track_caller]
fn check(world: &mut World, view: View, expected: Expect) {
    expected.assert_eq(&world.picture(view, Filter::NONE));
}

#[test]
fn two_ends_on_one_host_are_one_edge_in_every_view() {
    let mut world = World::new();
    world.connect("web-1", &["127.0.0.1/8", "10.0.0.1/24"]);
    world.report("web-1", processes(vec![process(100, "curl"), process(200, "nginx")]));
    world.report("web-1", flows(vec![client(1, 100, "127.0.0.1", "127.0.0.1", 80), server(2, 200, "127.0.0.1", "127.0.0.1", 80)]));
    check(
        &mut world,
        View::Processes,
        expect![[r#"
            web-1;100 [curl | web-1 (100)] -> web-1;200
            web-1;200 [nginx | web-1 (200)]
            2 nodes, 2 real, 1 edges, 0 filtered
        "#]],
    );
    check(
        &mut world,
        View::ProcessesByName,
        expect![[r#"
            curl [curl | 1 process] -> nginx
            nginx [nginx | 1 process]
            2 nodes, 2 real, 1 edges, 0 filtered
        "#]],
    );
    check(
        &mut world,
        View::Hosts,
        expect![[r#"
            web-1;<host> [web-1 | ] -> web-1;<host>
            1 nodes, 1 real, 1 edges, 0 filtered
        "#]],
    );
}

#[test]
fn ends_of_two_probes_meet_and_each_end_alone_is_not_the_internet() {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24"]);
    world.connect("b.example.com", &["10.0.0.2/24"]);
    world.report("a", processes(vec![process(1, "app")]));
    world.report("b.example.com", processes(vec![process(2, "db")]));
    world.report("a", flows(vec![client(1, 1, "10.0.0.1", "10.0.0.2", 5432)]));
    check(
        &mut world,
        View::Processes,
        expect![[r#"
            a;1 [app | a (1)]
            b.example.com;2 [db | b.example.com (2)]
            2 nodes, 2 real, 0 edges, 0 filtered
        "#]],
    );
    check(
        &mut world,
        View::Hosts,
        expect![[r#"
            a;<host> [a | ] -> b.example.com;<host>
            b.example.com;<host> [b | example.com]
            2 nodes, 2 real, 1 edges, 0 filtered
        "#]],
    );
    world.report("b.example.com", flows(vec![server(1, 2, "10.0.0.1", "10.0.0.2", 5432)]));
    check(
        &mut world,
        View::Processes,
        expect![[r#"
            a;1 [app | a (1)] -> b.example.com;2
            b.example.com;2 [db | b.example.com (2)]
            2 nodes, 2 real, 1 edges, 0 filtered
        "#]],
    );
}

#[test]
fn peers_outside_are_the_internet_and_unknown_local_peers_are_hidden() {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24"]);
    world.report("a", processes(vec![process(1, "curl"), process(2, "nginx"), process(3, "lpr")]));
    let outside = client(1, 1, "10.0.0.1", "93.184.216.34", 443);
    let inbound = server(2, 2, "203.0.113.9", "10.0.0.1", 80);
    let printer = client(3, 3, "10.0.0.1", "10.0.0.77", 631);
    world.report("a", flows(vec![outside, inbound, printer]));
    check(
        &mut world,
        View::Processes,
        expect![[r#"
            a;1 [curl | a (1)] -> out-theinternet
            a;2 [nginx | a (2)]
            a;3 [lpr | a (3)]
            in-theinternet [The Internet | Inbound connections] -> a;2
            out-theinternet [The Internet | Outbound connections]
            5 nodes, 3 real, 2 edges, 0 filtered
        "#]],
    );
}

#[test]
fn loopback_ends_meet_only_in_their_own_network_namespace() {
    let mut world = World::new();
    world.connect("a", &["127.0.0.1/8"]);
    world.report("a", processes(vec![process(1, "client-1"), process(2, "server-1"), process(3, "client-2"), process(4, "server-2")]));
    let within = |mut flow: topology::Flow, namespace| {
        flow.key.as_mut().unwrap().network_namespace = namespace;
        flow
    };
    world.report(
        "a",
        flows(vec![
            within(client(1, 1, "127.0.0.1", "127.0.0.1", 80), 7),
            within(server(2, 2, "127.0.0.1", "127.0.0.1", 80), 7),
            within(client(3, 3, "127.0.0.1", "127.0.0.1", 80), 8),
            within(server(4, 4, "127.0.0.1", "127.0.0.1", 80), 8),
        ]),
    );
    check(
        &mut world,
        View::ProcessesByName,
        expect![[r#"
            client-1 [client-1 | 1 process] -> server-1
            client-2 [client-2 | 1 process] -> server-2
            server-1 [server-1 | 1 process]
            server-2 [server-2 | 1 process]
            4 nodes, 4 real, 2 edges, 0 filtered
        "#]],
    );
}

#[test]
fn equal_bridge_networks_of_two_hosts_do_not_mix_even_when_the_second_comes_later() {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24", "172.17.0.1/16"]);
    world.report("a", processes(vec![process(1, "client-a"), process(2, "server-a")]));
    let both = |client_pid, server_pid| {
        flows(vec![client(1, client_pid, "172.17.0.2", "172.17.0.3", 80), server(2, server_pid, "172.17.0.2", "172.17.0.3", 80)])
    };
    world.report("a", both(1, 2));
    world.connect("b", &["10.0.0.2/24", "172.17.0.1/16"]);
    world.report("b", processes(vec![process(1, "client-b"), process(2, "server-b")]));
    world.report("b", both(1, 2));
    let expected = expect![[r#"
        client-a [client-a | 1 process] -> server-a
        client-b [client-b | 1 process] -> server-b
        server-a [server-a | 1 process]
        server-b [server-b | 1 process]
        4 nodes, 4 real, 2 edges, 0 filtered
    "#]];
    check(&mut world, View::ProcessesByName, expected);
    world.disconnect("b", topology::StreamEnd::Goodbye);
    check(
        &mut world,
        View::ProcessesByName,
        expect![[r#"
            client-a [client-a | 1 process] -> server-a
            server-a [server-a | 1 process]
            2 nodes, 2 real, 1 edges, 0 filtered
        "#]],
    );
}

#[test]
fn an_attempt_that_failed_makes_no_edge_until_one_succeeds() {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24"]);
    world.report("a", processes(vec![process(1, "curl")]));
    let mut refused = client(1, 1, "10.0.0.1", "93.184.216.34", 443);
    refused.counters = topology::FlowCounters { failed: 1, ..Default::default() };
    world.report("a", flows(vec![refused.clone()]));
    assert_eq!(world.snapshot(View::Processes, Filter::NONE).stats.edge_count, 0);
    refused.key = None;
    refused.counters.opened = 1;
    world.report("a", flows(vec![refused]));
    assert_eq!(world.snapshot(View::Processes, Filter::NONE).stats.edge_count, 1);
}

#[test]
fn a_published_port_leads_to_its_container() {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24"]);
    let mut web = container("c1", "web", "nginx:1");
    web.ports = vec![PortMapping { container_port: 80, protocol: "tcp".into(), host: Some((address("0.0.0.0"), 8080)) }];
    world.report("a", containers(vec![web]));
    world.report("a", processes(vec![process(1, "curl")]));
    world.report("a", flows(vec![client(1, 1, "10.0.0.1", "10.0.0.1", 8080)]));
    check(
        &mut world,
        View::Containers,
        expect![[r#"
            c1;<container> [web | a]
            pseudo:uncontained:a [Uncontained | a] -> c1;<container>
            2 nodes, 1 real, 1 edges, 0 filtered
        "#]],
    );
}

#[test]
fn a_container_is_found_by_its_address_when_no_process_of_it_is_known() {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24", "172.17.0.1/16"]);
    world.report("a", processes(vec![process(1, "curl")]));
    world.report("a", flows(vec![client(1, 1, "172.17.0.1", "172.17.0.2", 80)]));
    let mut db = container("c1", "db", "postgres");
    db.addresses = vec![address("172.17.0.2")];
    world.report("a", containers(vec![db]));
    check(
        &mut world,
        View::ContainersByImage,
        expect![[r#"
            postgres;<container_image> [postgres | 1 container]
            pseudo:uncontained:a [Uncontained | a] -> postgres;<container_image>
            2 nodes, 1 real, 1 edges, 0 filtered
        "#]],
    );
    world.report("a", topology::Report { containers_gone: vec![arc("c1")], ..Default::default() });
    check(
        &mut world,
        View::ContainersByImage,
        expect![[r#"
            0 nodes, 0 real, 0 edges, 0 filtered
        "#]],
    );
}

#[test]
fn an_end_without_an_owner_belongs_to_its_host() {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24"]);
    world.report("a", flows(vec![flow(1, None, Direction::Client, "10.0.0.1", "93.184.216.34", 443)]));
    check(
        &mut world,
        View::Hosts,
        expect![[r#"
            a;<host> [a | ] -> out-theinternet
            out-theinternet [The Internet | Outbound connections]
            2 nodes, 1 real, 1 edges, 0 filtered
        "#]],
    );
}
