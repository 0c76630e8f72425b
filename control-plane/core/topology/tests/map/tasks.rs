//! Mesos tasks: containers with the labels of their agent.

use expect_test::{Expect, expect};
use topology::{Container, Filter, View};

use crate::searching::{found, looked_through};
use crate::world::*;

#[track_caller]
fn check(world: &mut World, expected: Expect) {
    expected.assert_eq(&world.picture(View::Tasks, Filter::NONE));
}

fn of_task(id: &str, task: &str, framework: &str) -> Container {
    let mut it = container(id, &format!("mesos-{id}"), "team/app:1");
    let labels = [
        ("mesos.task_id", task),
        ("mesos.task_name", task.split('.').next().unwrap()),
        ("mesos.framework_id", &format!("{framework}-0001")),
        ("mesos.framework_name", framework),
        ("mesos.role", "prod"),
        ("mesos.executor_id", task),
    ];
    it.labels.extend(labels.map(|(key, value)| (arc(key), arc(value))));
    it
}

/// A task of Marathon talks to one of Chronos and to a database that is no task.
fn shop() -> World {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24"]);
    let db = container("c3", "db", "team/db:1");
    world.report("a", containers(vec![of_task("c1", "web.1", "marathon"), of_task("c2", "job.7", "chronos"), db]));
    world.report(
        "a",
        processes(vec![contained(1, "web", "c1"), contained(2, "job", "c2"), contained(3, "postgres", "c3"), process(4, "sshd")]),
    );
    world.report(
        "a",
        flows(vec![
            client(1, 1, "10.0.0.1", "10.0.0.1", 80),
            server(2, 2, "10.0.0.1", "10.0.0.1", 80),
            client(3, 1, "10.0.0.1", "10.0.0.1", 5432),
            server(4, 3, "10.0.0.1", "10.0.0.1", 5432),
            client(5, 4, "10.0.0.1", "8.8.8.8", 443),
        ]),
    );
    world
}

#[test]
fn tasks_are_joined_by_what_their_containers_say_to_each_other() {
    let mut world = shop();
    check(
        &mut world,
        expect![[r#"
            job.7;chronos-0001;<mesos_task> [job | chronos]
            pseudo:untasked:a [No task | a]
            web.1;marathon-0001;<mesos_task> [web | marathon] -> job.7;chronos-0001;<mesos_task>, pseudo:untasked:a
            3 nodes, 2 real, 2 edges, 0 filtered
        "#]],
    );
    // A container without labels is none any more, whatever its number stands for next.
    world.report("a", containers(vec![container("c2", "c2", "team/app:1")]));
    check(
        &mut world,
        expect![[r#"
            pseudo:untasked:a [No task | a]
            web.1;marathon-0001;<mesos_task> [web | marathon] -> pseudo:untasked:a
            2 nodes, 1 real, 1 edges, 0 filtered
        "#]],
    );
    world.report("a", topology::Report { containers_gone: vec!["c1".into()], ..topology::Report::default() });
    check(
        &mut world,
        expect![[r#"
            0 nodes, 0 real, 0 edges, 0 filtered
        "#]],
    );
}

#[test]
fn a_task_and_its_container_lead_to_each_other() {
    let world = shop();
    let task = world.details(View::Tasks, "web.1;marathon-0001;<mesos_task>").unwrap();
    let children: Vec<_> = task.children.iter().flat_map(|it| it.nodes.iter().map(|node| (it.topology_id, node.id.as_str()))).collect();
    assert_eq!(children, [("containers", "c1;<container>"), ("processes", "a;1")]);
    assert_eq!(
        task.outgoing.iter().map(|it| it.node_id.as_str()).collect::<Vec<_>>(),
        ["job.7;chronos-0001;<mesos_task>", "pseudo:untasked:a"]
    );
    let container = world.details(View::Containers, "c1;<container>").unwrap();
    let parent = container.summary.parents.iter().find(|it| it.topology_id == "tasks").unwrap();
    assert_eq!((parent.id.as_str(), &*parent.label), ("web.1;marathon-0001;<mesos_task>", "web"));
    let other = world.details(View::Tasks, "pseudo:untasked:a").unwrap();
    assert_eq!(other.incoming.len(), 1);
    assert!(other.children.iter().flat_map(|it| &it.nodes).all(|it| it.id.as_str() != "a;1"));
}

#[test]
fn frameworks_and_tasks_are_found_by_name() {
    let mut world = shop();
    for (words, ids) in [
        ("framework: marathon", vec!["c1;<container>", "web.1;marathon-0001;<mesos_task>"]),
        ("task: web.*", vec!["c1;<container>", "web.1;marathon-0001;<mesos_task>"]),
        ("framework: chronos AND role: prod", vec!["c2;<container>", "job.7;chronos-0001;<mesos_task>"]),
    ] {
        let hits = found(&mut world, words);
        assert_eq!(hits, looked_through(&mut world, words), "{words}");
        let own: Vec<_> = hits.iter().filter(|it| matches!(it.0, View::Tasks | View::Containers)).map(|it| it.1.as_str()).collect();
        assert_eq!(own, ids, "{words}");
    }
}
