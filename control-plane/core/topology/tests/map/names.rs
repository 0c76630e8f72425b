//! What is outside, by its name.

use expect_test::{Expect, expect};
use topology::{Filter, FlowQuery, Query, Report, View};

use crate::world::*;

#[track_caller]
fn check(world: &mut World, view: View, expected: Expect) {
    expected.assert_eq(&world.picture(view, Filter::NONE));
}

/// Labels of the rows of a panel's outbound table.
fn rows(world: &World, view: View, id: &str) -> Vec<String> {
    world.details(view, id).unwrap().outgoing.iter().map(|row| format!("{}|{}", row.label, row.port.unwrap_or(0))).collect()
}

fn one_host() -> World {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24"]);
    world.report("a", processes(vec![process(1, "git"), process(2, "aws")]));
    world
}

#[test]
fn an_internet_peer_is_labelled_by_its_latest_name_and_keeps_it_while_a_flow_lives() {
    let mut world = one_host();
    world.report("a", flows(vec![client(1, 1, "10.0.0.1", "140.82.121.3", 443)]));
    assert_eq!(rows(&world, View::Processes, "a;1"), ["140.82.121.3|443"]);
    world.report("a", named("140.82.121.3", &["github.com"]));
    assert_eq!(rows(&world, View::Processes, "a;1"), ["github.com (140.82.121.3)|443"]);
    let page = world.map.flows(&FlowQuery { limit: 9, ..FlowQuery::default() });
    assert_eq!((page.flows[0].server_name.as_deref(), page.flows[0].client_name.as_deref()), (Some("github.com"), None));
    world.report("a", named("140.82.121.3", &["www.github.com", "github.com"]));
    assert_eq!(rows(&world, View::Processes, "a;1"), ["www.github.com (140.82.121.3)|443"]);
    world.report("a", Report { resolved_addresses_gone: vec![address("140.82.121.3")], ..Report::default() });
    assert_eq!(rows(&world, View::Processes, "a;1"), ["www.github.com (140.82.121.3)|443"], "its probe has forgotten it, and it talks on");
    world.report("a", Report { flows_gone: vec![1], ..Report::default() });
    world.pass(WINDOW);
    world.report("a", flows(vec![client(2, 1, "10.0.0.1", "140.82.121.3", 443)]));
    assert_eq!(rows(&world, View::Processes, "a;1"), ["140.82.121.3|443"], "nothing led there any more, so the name is gone");
}

#[test]
fn searching_a_name_finds_who_talks_to_it() {
    let mut world = one_host();
    world.report("a", containers(vec![container("c1", "ci", "ci:1")]));
    world.report("a", processes(vec![contained(3, "fetch", "c1")]));
    world.report("a", named("140.82.121.3", &["github.com"]));
    world.report("a", flows(vec![client(1, 3, "10.0.0.1", "140.82.121.3", 443)]));
    let found = |world: &mut World, view| {
        let query = Query::parse("github.com").unwrap();
        let snapshot = world.snapshot(view, Filter::NONE);
        let found = snapshot.nodes.iter().filter(|(_, node)| query.find(node.summary()).is_some());
        found.map(|(id, _)| id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(found(&mut world, View::Processes), ["a;3"]);
    assert_eq!(found(&mut world, View::Containers), ["c1;<container>"]);
    // A process that moves takes along whom it talks to.
    world.report("a", processes(vec![process(3, "fetch")]));
    assert_eq!(found(&mut world, View::Containers), [""; 0]);
    world.report("a", Report { flows_gone: vec![1], ..Report::default() });
    world.pass(WINDOW);
    assert_eq!(found(&mut world, View::Processes), [""; 0]);
}

#[test]
fn known_services_are_nodes_of_their_own_and_rented_machines_are_not() {
    let mut world = one_host();
    world.report("a", named("52.218.0.1", &["s3.amazonaws.com"]));
    world.report("a", named("52.219.0.1", &["ec2-52-219-0-1.compute.amazonaws.com"]));
    // Also in a network of ours: an endpoint of the provider inside a private cloud.
    world.report("a", named("10.0.0.99", &["x.database.windows.net"]));
    world.report(
        "a",
        flows(vec![
            client(1, 2, "10.0.0.1", "52.218.0.1", 443),
            client(2, 2, "10.0.0.1", "52.219.0.1", 443),
            client(3, 2, "10.0.0.1", "10.0.0.99", 1433),
        ]),
    );
    check(
        &mut world,
        View::Hosts,
        expect![[r#"
            a;<host> [a | ] -> out-theinternet, service-s3.amazonaws.com, service-x.database.windows.net
            out-theinternet [The Internet | Outbound connections]
            service-s3.amazonaws.com [s3.amazonaws.com | ]
            service-x.database.windows.net [x.database.windows.net | ]
            4 nodes, 1 real, 3 edges, 0 filtered
        "#]],
    );
    let default = world.picture(View::Containers, Filter::DEFAULT);
    assert!(!default.contains("service-"), "nobody that is shown talks to it: {default}");
    let details = world.details(View::Processes, "service-s3.amazonaws.com").unwrap();
    assert_eq!(details.incoming.iter().map(|row| &*row.id).collect::<Vec<_>>(), ["a;2---443"]);
    assert_eq!((&*details.summary.rank, details.summary.pseudo), ("service-s3.amazonaws.com", true));
}

#[test]
fn known_services_beyond_the_limit_are_the_internet_until_there_is_room() {
    let mut world = one_host();
    for number in 1..=3 {
        let place = format!("52.218.0.{number}");
        world.report("a", named(&place, &[&format!("bucket{number}.amazonaws.com")]));
        world.report("a", flows(vec![client(number, 2, "10.0.0.1", &place, 443)]));
    }
    let shown = |world: &mut World| {
        let snapshot = world.snapshot(View::Processes, Filter::NONE);
        snapshot.nodes.keys().map(ToString::to_string).filter(|id| !id.starts_with('a')).collect::<Vec<_>>()
    };
    assert_eq!(shown(&mut world), ["out-theinternet", "service-bucket1.amazonaws.com", "service-bucket2.amazonaws.com"]);
    world.report("a", Report { flows_gone: vec![1], ..Report::default() });
    world.pass(WINDOW);
    assert_eq!(shown(&mut world), ["service-bucket2.amazonaws.com", "service-bucket3.amazonaws.com"]);
}

#[test]
fn a_name_changes_nothing_about_what_is_ours() {
    let mut world = one_host();
    world.connect("b", &["10.0.0.2/24"]);
    world.report("b", processes(vec![process(9, "db")]));
    world.report("a", named("10.0.0.2", &["db.documents.azure.com"]));
    world.report("a", flows(vec![client(1, 1, "10.0.0.1", "10.0.0.2", 5432)]));
    world.report("b", flows(vec![server(1, 9, "10.0.0.1", "10.0.0.2", 5432)]));
    check(
        &mut world,
        View::Processes,
        expect![[r#"
            a;1 [git | a (1)] -> b;9
            a;2 [aws | a (2)]
            b;9 [db | b (9)]
            3 nodes, 3 real, 1 edges, 0 filtered
        "#]],
    );
}

#[test]
fn what_a_snapshot_does_not_name_is_forgotten_and_names_have_a_limit() {
    let mut world = one_host();
    for number in 1..=11 {
        world.report("a", named(&format!("52.218.0.{number}"), &["x.example"]));
    }
    assert_eq!(world.map.hosts()[0].names, 10);
    assert_eq!(world.map.probes()[0].counts.records_refused, 1);
    world.report("a", Report { kind: topology::ReportKind::SnapshotEnd, ..named("52.218.0.1", &["x.example"]) });
    assert_eq!(world.map.hosts()[0].names, 1);
}
