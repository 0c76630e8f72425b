//! Pods, controllers, services and volumes.

use expect_test::{Expect, expect};
use topology::{Container, ContainerMetrics, ContainerState, Filter, KubernetesKind as Kind, Report, StreamEnd, View};

use crate::world::*;

#[track_caller]
fn check(world: &mut World, view: View, expected: Expect) {
    expected.assert_eq(&world.picture(view, Filter::NONE));
}

fn shop() -> World {
    let mut world = World::new();
    world.connect("node-1", &["10.0.0.1/24"]);
    world.connect("node-2", &["10.0.0.2/24"]);
    world.report("node-1", containers(vec![in_pod("c1", "front-1")]));
    world.report("node-2", containers(vec![in_pod("c2", "db-0")]));
    world.report("node-1", processes(vec![contained(1, "front", "c1"), process(9, "kubelet")]));
    world.report("node-2", processes(vec![contained(2, "postgres", "c2")]));
    world.report("node-1", flows(vec![client(1, 1, "10.1.1.2", "10.1.2.2", 5432), client(2, 9, "10.0.0.1", "10.1.2.2", 5432)]));
    world.report("node-2", flows(vec![server(1, 2, "10.1.1.2", "10.1.2.2", 5432)]));
    let mut front = object(Kind::Pod, "front-1", &["front", "front-svc", "front-admin"]);
    front.node_name = arc("node-1");
    let mut db = object(Kind::Pod, "db-0", &["db", "db-svc"]);
    db.node_name = arc("node-2");
    db.addresses = vec![address("10.1.2.2")];
    let mut service = object(Kind::Service, "db-svc", &[]);
    service.addresses = vec![address("10.96.0.10")];
    let objects = vec![
        front,
        db,
        service,
        object(Kind::Service, "front-svc", &[]),
        object(Kind::Service, "front-admin", &[]),
        object(Kind::Deployment, "front", &[]),
        object(Kind::StatefulSet, "db", &[]),
        object(Kind::Namespace, "shop", &[]),
    ];
    world.connect_cluster("collector", "production", objects);
    world
}

#[test]
fn connections_of_containers_are_those_of_their_pods() {
    check(
        &mut shop(),
        View::Pods,
        expect![[r#"
            db-0;<pod> [db-0 | 1 container]
            front-1;<pod> [front-1 | 1 container] -> db-0;<pod>
            pseudo:unmanaged:node-1 [Unmanaged | node-1] -> db-0;<pod>
            3 nodes, 2 real, 2 edges, 0 filtered
        "#]],
    );
}

#[test]
fn controllers_and_services_group_their_pods_and_a_pod_of_two_services_counts_for_both() {
    let mut world = shop();
    check(
        &mut world,
        View::KubeControllers,
        expect![[r#"
            db;<statefulset> [db | StatefulSet of 1 pod]
            front;<deployment> [front | Deployment of 1 pod] -> db;<statefulset>
            pseudo:unmanaged:node-1 [Unmanaged | node-1] -> db;<statefulset>
            3 nodes, 2 real, 2 edges, 0 filtered
        "#]],
    );
    check(
        &mut world,
        View::Services,
        expect![[r#"
            db-svc;<service> [db-svc | 1 pod]
            front-admin;<service> [front-admin | 1 pod] -> db-svc;<service>
            front-svc;<service> [front-svc | 1 pod] -> db-svc;<service>
            pseudo:unmanaged:node-1 [Unmanaged | node-1] -> db-svc;<service>
            4 nodes, 3 real, 3 edges, 0 filtered
        "#]],
    );
}

#[test]
fn without_objects_the_orchestrator_views_are_empty_and_they_fill_when_the_collector_comes() {
    let mut world = shop();
    world.disconnect("collector", StreamEnd::Goodbye);
    for view in [View::Pods, View::KubeControllers, View::Services] {
        assert_eq!(world.snapshot(view, Filter::NONE).nodes.len(), 0);
    }
    world.connect_cluster("collector", "production", vec![object(Kind::Pod, "front-1", &[])]);
    check(
        &mut world,
        View::Pods,
        expect![[r#"
            front-1;<pod> [front-1 | 1 container] -> pseudo:unmanaged:node-2
            out-theinternet [The Internet | Outbound connections]
            pseudo:unmanaged:node-1 [Unmanaged | node-1] -> out-theinternet
            pseudo:unmanaged:node-2 [Unmanaged | node-2]
            4 nodes, 1 real, 2 edges, 0 filtered
        "#]],
    );
}

#[test]
fn a_service_address_leads_to_the_service() {
    let mut world = shop();
    world.report("node-1", flows(vec![client(7, 9, "10.0.0.1", "10.96.0.10", 5432)]));
    let services = world.snapshot(View::Services, Filter::NONE);
    let unmanaged = services.nodes.get("pseudo:unmanaged:node-1").unwrap().summary();
    assert_eq!(unmanaged.adjacency, ["db-svc;<service>".into()]);
    assert!(!services.nodes.contains_key("out-theinternet"));
}

#[test]
fn a_pod_that_failed_leaves_its_view() {
    let mut world = shop();
    let mut failed = object(Kind::Pod, "front-1", &["front"]);
    failed.state = arc("Failed");
    world.report("collector", Report { kubernetes: vec![failed], ..Report::default() });
    let pods = world.snapshot(View::Pods, Filter::NONE);
    assert!(!pods.nodes.contains_key("front-1;<pod>"));
    world.report("collector", Report { kubernetes_gone: vec![arc("front-1"), arc("nonsense")], ..Report::default() });
    let controllers = world.snapshot(View::KubeControllers, Filter::NONE);
    assert_eq!(&*controllers.nodes.get("front;<deployment>").unwrap().summary().label_minor, "Deployment of 0 pods");
}

#[test]
fn volumes_are_joined_by_name_in_any_order() {
    let mut world = World::new();
    let named = |kind, name: &str, volumes: &[&str], class: &str| {
        let mut it = object(kind, name, &[]);
        it.namespace = if kind == Kind::Pod || kind == Kind::PersistentVolumeClaim { arc("shop") } else { arc("") };
        it.volume_names = volumes.iter().map(|&name| name.into()).collect();
        it.storage_class = class.into();
        it
    };
    world.connect_cluster("collector", "production", vec![named(Kind::Pod, "db-0", &["data"], "")]);
    world.report(
        "collector",
        Report { kubernetes: vec![named(Kind::PersistentVolumeClaim, "data", &["pv-1"], "fast")], ..Report::default() },
    );
    let rest = vec![named(Kind::StorageClass, "fast", &[], ""), named(Kind::PersistentVolume, "pv-1", &["data"], "fast")];
    world.report("collector", Report { kubernetes: rest, ..Report::default() });
    check(
        &mut world,
        View::Pods,
        expect![[r#"
            data;<persistent_volume_claim> [data | ] -> pv-1;<persistent_volume>
            db-0;<pod> [db-0 | 0 containers] -> data;<persistent_volume_claim>
            fast;<storage_class> [fast | ] -> data;<persistent_volume_claim>
            pv-1;<persistent_volume> [pv-1 | ]
            4 nodes, 4 real, 3 edges, 0 filtered
        "#]],
    );
    let hidden = Filter { hide_storage: true, ..Filter::NONE };
    expect![[r#"
        db-0;<pod> [db-0 | 0 containers]
        1 nodes, 1 real, 0 edges, 3 filtered
    "#]]
    .assert_eq(&world.picture(View::Pods, hidden));
    assert_eq!(hidden.of_view(View::Services), Filter::NONE);
}

#[test]
fn volumes_are_among_what_a_panel_lists() {
    let mut world = World::new();
    let named = |kind, name: &str, parents: &[&str], volumes: &[&str], class: &str| {
        let mut it = object(kind, name, parents);
        it.namespace = if matches!(kind, Kind::PersistentVolume | Kind::StorageClass) { arc("") } else { arc("shop") };
        it.volume_names = volumes.iter().map(|&name| name.into()).collect();
        it.storage_class = class.into();
        it
    };
    let objects = vec![
        named(Kind::Pod, "db-0", &["db"], &["data", "logs"], ""),
        named(Kind::StatefulSet, "db", &[], &[], ""),
        named(Kind::PersistentVolumeClaim, "data", &[], &["pv-1"], "fast"),
        named(Kind::PersistentVolumeClaim, "logs", &[], &[], "fast"),
        named(Kind::PersistentVolume, "pv-1", &[], &["data"], "fast"),
        named(Kind::StorageClass, "fast", &[], &[], ""),
    ];
    world.connect_cluster("collector", "production", objects);
    let mut text = String::new();
    for (view, id) in [
        (View::Pods, "db-0;<pod>"),
        (View::Pods, "data;<persistent_volume_claim>"),
        (View::Pods, "pv-1;<persistent_volume>"),
        (View::Pods, "fast;<storage_class>"),
        (View::KubeControllers, "db;<statefulset>"),
    ] {
        text.push_str(id);
        for group in world.details(view, id).unwrap().children {
            let nodes: Vec<&str> = group.nodes.iter().map(|node| &*node.label).collect();
            text.push_str(&format!(" | {} in {}: {}", group.label, group.topology_id, nodes.join(", ")));
        }
        text.push('\n');
    }
    expect![[r#"
        db-0;<pod> | Persistent Volume Claims in pods: data, logs
        data;<persistent_volume_claim> | Persistent Volumes in pods: pv-1
        pv-1;<persistent_volume>
        fast;<storage_class> | Persistent Volume Claims in pods: data, logs
        db;<statefulset> | Pods in pods: db-0 | Persistent Volume Claims in pods: data, logs
    "#]]
    .assert_eq(&text);
}

#[test]
fn a_pod_has_the_containers_that_run() {
    let mut world = shop();
    let sample = |id: &str, cpu_percent| ContainerMetrics { id: id.into(), at: world.now, cpu_percent, ..ContainerMetrics::default() };
    let metrics = Report { container_metrics: vec![sample("c1", 5.0), sample("init", 0.0)], ..Report::default() };
    let in_front = |id: &str, image: &str, state: ContainerState| Container { image_name: image.into(), state, ..in_pod(id, "front-1") };
    let beside = vec![
        in_front("init", "registry/team/init:1", ContainerState::Exited),
        in_front("born", "registry/team/born:1", ContainerState::Created),
        in_front("holds", "registry.k8s.io/pause:3.9", ContainerState::Running),
        in_front("held", "mirror.example/oss/pause@sha256:0000", ContainerState::Running),
    ];
    world.report("node-1", containers(beside));
    world.report("node-1", processes(vec![contained(70, "pause", "holds")]));
    world.report("node-1", metrics);
    let shown = |world: &mut World, view, id: &str| {
        let snapshot = world.snapshot(view, Filter::NONE);
        let node = snapshot.nodes.get(id).unwrap().summary();
        let metrics: Vec<&str> = node.metrics.iter().map(|metric| &*metric.id).collect();
        format!("{} {metrics:?}", node.label_minor)
    };
    let of_one = r#"["docker_cpu_total_usage", "docker_memory_usage"]"#;
    assert_eq!(shown(&mut world, View::Pods, "front-1;<pod>"), format!("1 container {of_one}"));
    assert_eq!(shown(&mut world, View::Services, "front-svc;<service>"), format!("1 pod {of_one}"));
    let groups = |world: &World| -> Vec<String> {
        let children = world.details(View::Pods, "front-1;<pod>").unwrap().children;
        children.iter().flat_map(|group| group.nodes.iter()).map(|node| node.id.to_string()).collect()
    };
    assert_eq!(groups(&world), ["c1;<container>", "node-1;1"]);
    // An image that only sounds like one works as any other does, and a pause is no end.
    let more = vec![
        in_front("api", "acme/pause-api:2", ContainerState::Running),
        in_front("halted", "registry/team/app:1", ContainerState::Paused),
    ];
    world.report("node-1", containers(more));
    assert_eq!(shown(&mut world, View::Pods, "front-1;<pod>"), "3 containers []");
    assert_eq!(groups(&world), ["api;<container>", "c1;<container>", "halted;<container>", "node-1;1"]);
    // What had ended leaves room for the metrics of the one that is left.
    let over =
        vec![in_front("api", "acme/pause-api:2", ContainerState::Dead), in_front("halted", "registry/team/app:1", ContainerState::Exited)];
    world.report("node-1", containers(over));
    assert_eq!(shown(&mut world, View::Services, "front-svc;<service>"), format!("1 pod {of_one}"));
}

#[test]
fn panels_of_services_list_their_pods_and_containers() {
    let world = shop();
    let details = world.details(View::Services, "db-svc;<service>").unwrap();
    let groups: Vec<(&str, usize)> = details.children.iter().map(|group| (group.label, group.nodes.len())).collect();
    assert_eq!(groups, [("Pods", 1), ("Containers", 1), ("Processes", 1)]);
    let incoming: Vec<(&str, u64)> = details.incoming.iter().map(|row| (row.node_id.as_str(), row.count)).collect();
    assert_eq!(incoming, [("front-admin;<service>", 1), ("front-svc;<service>", 1), ("pseudo:unmanaged:node-1", 1)]);
    let pod = world.details(View::Pods, "front-1;<pod>").unwrap();
    let parents: Vec<&str> = pod.summary.parents.iter().map(|parent| parent.topology_id).collect();
    assert_eq!(parents, ["kube-controllers", "services", "services", "hosts"]);
}

#[test]
fn a_node_probe_cannot_speak_of_kubernetes_nor_a_collector_of_processes() {
    let mut world = shop();
    let refused = world.report("node-1", Report { kubernetes: vec![object(Kind::Pod, "fake", &[])], ..Report::default() });
    assert_eq!(refused, topology::Effect::Applied { records_refused: 1 });
    let refused = world.report("collector", processes(vec![process(1, "fake")]));
    assert_eq!(refused, topology::Effect::Applied { records_refused: 1 });
}

#[test]
fn a_pod_is_counted_in_what_owns_and_what_selects_it() {
    let groups = shop().map.groups_of(&["front-1;<pod>".into(), "front;<deployment>".into()]);
    let ids: Vec<Vec<&str>> = groups.iter().map(|it| it.iter().map(|(_, id)| id.as_str()).collect()).collect();
    assert_eq!(ids, [vec!["front;<deployment>", "front-svc;<service>", "front-admin;<service>"], vec![]]);
}
