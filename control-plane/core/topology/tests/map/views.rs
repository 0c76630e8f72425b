//! Labels, parents, filters.

use expect_test::expect;
use topology::*;

use crate::world::*;

fn small_world() -> World {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24", "172.17.0.1/16"]);
    let mut web = container("c1", "web", "docker.io/library/nginx:1.27");
    web.addresses = vec![address("172.17.0.2")];
    let mut stopped = container("c2", "job", "batch:2");
    stopped.state = ContainerState::Exited;
    let system = container("c3", "weave", "weaveworks/weave:2");
    world.report("a", containers(vec![web, stopped, system]));
    world.report(
        "a",
        processes(vec![contained(10, "nginx", "c1"), process(20, "curl"), process(30, "idle"), contained(40, "weaver", "c3")]),
    );
    world.report(
        "a",
        flows(vec![
            client(1, 20, "10.0.0.1", "172.17.0.2", 80),
            server(2, 10, "10.0.0.1", "172.17.0.2", 80),
            client(3, 10, "172.17.0.2", "93.184.216.34", 443),
            client(4, 40, "10.0.0.1", "93.184.216.34", 6783),
        ]),
    );
    world
}

#[test]
fn the_unfiltered_containers_view_has_everything() {
    expect![[r#"
        c1;<container> [web | a] -> out-theinternet
        c2;<container> [job | a]
        c3;<container> [weave | a] -> out-theinternet
        out-theinternet [The Internet | Outbound connections]
        pseudo:uncontained:a [Uncontained | a] -> c1;<container>
        5 nodes, 3 real, 3 edges, 0 filtered
    "#]]
    .assert_eq(&small_world().picture(View::Containers, Filter::NONE));
}

#[test]
fn the_default_filter_keeps_running_application_containers_and_the_internet() {
    expect![[r#"
        c1;<container> [web | a] -> out-theinternet
        out-theinternet [The Internet | Outbound connections]
        2 nodes, 1 real, 1 edges, 3 filtered
    "#]]
    .assert_eq(&small_world().picture(View::Containers, Filter::DEFAULT));
}

#[test]
fn a_pseudo_node_whose_neighbours_are_filtered_goes_with_them() {
    let filter = Filter { stopped: Some(StoppedFilter::Stopped), ..Filter::NONE };
    expect![[r#"
        c2;<container> [job | a]
        1 nodes, 1 real, 0 edges, 4 filtered
    "#]]
    .assert_eq(&small_world().picture(View::Containers, filter));
}

#[test]
fn images_are_grouped_without_registry_and_tag_and_filtered_by_their_containers() {
    expect![[r#"
        batch;<container_image> [batch | 1 container]
        library/nginx;<container_image> [library/nginx | 1 container] -> out-theinternet
        out-theinternet [The Internet | Outbound connections]
        3 nodes, 2 real, 1 edges, 2 filtered
    "#]]
    .assert_eq(&small_world().picture(View::ContainersByImage, Filter::DEFAULT));
}

#[test]
fn unconnected_processes_are_hidden_by_default_and_shown_on_demand() {
    let mut world = small_world();
    let shown = world.snapshot(View::Processes, Filter::NONE);
    assert!(shown.nodes.contains_key("a;30"));
    let hidden = world.snapshot(View::Processes, Filter::DEFAULT);
    assert!(!hidden.nodes.contains_key("a;30"));
    assert_eq!(hidden.stats.filtered_nodes, 1);
    // The picture follows when it connects, and when it no longer does.
    world.report("a", flows(vec![client(9, 30, "10.0.0.1", "93.184.216.34", 443)]));
    assert!(world.snapshot(View::Processes, Filter::DEFAULT).nodes.contains_key("a;30"));
    world.report("a", Report { flows_gone: vec![9], ..Report::default() });
    world.pass(WINDOW);
    assert!(!world.snapshot(View::Processes, Filter::DEFAULT).nodes.contains_key("a;30"));
}

#[test]
fn a_process_names_its_container_image_and_host_as_parents() {
    let mut world = small_world();
    let picture = world.snapshot(View::Processes, Filter::NONE);
    let nginx = picture.nodes.get("a;10").unwrap().summary();
    assert_eq!(&*nginx.label_minor, "a (web:10)");
    let parents: Vec<(&str, &str)> = nginx.parents.iter().map(|parent| (parent.id.as_str(), parent.topology_id)).collect();
    assert_eq!(
        parents,
        [("c1;<container>", "containers"), ("library/nginx;<container_image>", "containers-by-image"), ("a;<host>", "hosts")]
    );
    let rows: Vec<(&str, &str)> = nginx.metadata.iter().map(|row| (&*row.id, &*row.value)).collect();
    assert_eq!(rows, [("pid", "10"), ("cmdline", "nginx --flag"), ("ppid", "1")]);
}

#[test]
fn renaming_a_container_is_seen_by_its_processes() {
    let mut world = small_world();
    world.snapshot(View::Processes, Filter::NONE);
    world.report("a", containers(vec![container("c1", "front", "docker.io/library/nginx:1.27")]));
    let picture = world.snapshot(View::Processes, Filter::NONE);
    assert_eq!(&*picture.nodes.get("a;10").unwrap().summary().label_minor, "a (front:10)");
}

#[test]
fn hidden_arguments_leave_the_first_word() {
    let mut world = small_world();
    let filter = Filter { hide_command_arguments: true, ..Filter::NONE };
    let picture = world.snapshot(View::Processes, filter);
    assert_eq!(&*picture.nodes.get("a;20").unwrap().summary().metadata[1].value, "curl");
}

#[test]
fn a_process_of_a_container_that_is_not_described_yet_is_in_no_container_view_until_it_is() {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24"]);
    world.report("a", processes(vec![contained(1, "early", "c9")]));
    world.report("a", flows(vec![client(1, 1, "10.0.0.1", "93.184.216.34", 443)]));
    assert_eq!(world.snapshot(View::Containers, Filter::NONE).nodes.len(), 0);
    world.report("a", containers(vec![container("c9", "late", "x")]));
    expect![[r#"
        c9;<container> [late | a] -> out-theinternet
        out-theinternet [The Internet | Outbound connections]
        2 nodes, 1 real, 1 edges, 0 filtered
    "#]]
    .assert_eq(&world.picture(View::Containers, Filter::NONE));
}

#[test]
fn views_that_nothing_reports_are_empty() {
    let mut world = small_world();
    for view in [View::Pods, View::Services, View::EcsTasks, View::SwarmServices, View::Weave] {
        assert_eq!(world.snapshot(view, Filter::NONE).nodes.len(), 0, "{view:?}");
    }
}

#[test]
fn an_image_links_to_the_hosts_that_its_containers_are_on() {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24"]);
    world.connect("b", &["10.0.0.2/24"]);
    world.report(
        "b",
        containers(vec![container("c1", "web", "nginx:1"), container("c2", "web", "nginx:2"), container("c3", "job", "batch:1")]),
    );
    world.report("a", containers(vec![container("c4", "web", "nginx:1")]));
    let parents = |world: &mut World, image: &str| -> Vec<String> {
        let snapshot = world.snapshot(View::ContainersByImage, Filter::NONE);
        let parents = &snapshot.nodes.get(image).unwrap().summary().parents;
        parents.iter().map(|it| format!("{} {} {}", it.id, it.label, it.topology_id)).collect()
    };
    assert_eq!(parents(&mut world, "nginx;<container_image>"), ["a;<host> a hosts", "b;<host> b hosts"]);
    assert_eq!(parents(&mut world, "batch;<container_image>"), ["b;<host> b hosts"]);
    world.report("a", Report { containers_gone: vec![arc("c4")], ..Report::default() });
    assert_eq!(parents(&mut world, "nginx;<container_image>"), ["b;<host> b hosts"]);
}

#[test]
fn the_map_says_in_which_groups_it_counts_what_others_report_too() {
    let world = small_world();
    let ids = ["c1;<container>", "c9;<container>", "a;10", "a;99", "b;10", "x;<pod>", "a;<host>", ""].map(NodeId::from);
    let groups: Vec<Vec<String>> =
        world.map.groups_of(&ids).iter().map(|it| it.iter().map(|(view, id)| format!("{} {id}", view.id())).collect()).collect();
    assert_eq!(groups[0], ["containers-by-hostname web.local", "containers-by-image library/nginx;<container_image>"]);
    assert_eq!(groups[2], ["processes-by-name nginx"]);
    assert!([1, 3, 4, 5, 6, 7].into_iter().all(|at| groups[at].is_empty()), "{groups:?}");
}
