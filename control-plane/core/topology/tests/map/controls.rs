//! What can be done with a node.

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use topology::{Container, ContainerState, KubernetesKind as Kind, View};

use crate::world::*;

#[track_caller]
fn check(world: &World, view: View, ids: &[&str], expected: Expect) {
    let mut text = String::new();
    for id in ids {
        writeln!(text, "{id}").unwrap();
        for control in world.details(view, id).unwrap().controls {
            let ask = if control.confirmation.is_empty() { "" } else { " (asks)" };
            assert_eq!(control.node_id.as_str(), *id);
            writeln!(text, "  {} {} {}{ask} by {}", control.rank, control.id, control.human, control.probe_id).unwrap();
        }
    }
    expected.assert_eq(&text);
}

fn in_state(id: &str, state: ContainerState, runtime: &str) -> Container {
    Container { state, runtime: runtime.into(), ..container(id, id, "image:1") }
}

#[test]
fn a_containers_state_decides() {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24"]);
    let containers_of_a = vec![
        in_state("running", ContainerState::Running, "docker"),
        in_state("paused", ContainerState::Paused, "docker"),
        in_state("exited", ContainerState::Exited, "docker"),
        in_state("other", ContainerState::Running, "containerd"),
    ];
    world.report("a", containers(containers_of_a));
    check(
        &world,
        View::Containers,
        &["running;<container>", "paused;<container>", "exited;<container>", "other;<container>"],
        expect![[r#"
            running;<container>
              1 docker_attach_container Attach by a
              2 docker_exec_container Exec shell by a
              4 docker_restart_container Restart by a
              5 docker_pause_container Pause by a
              7 docker_stop_container Stop by a
              9 docker_logs_container Logs by a
              10 docker_kill_container Kill (asks) by a
            paused;<container>
              6 docker_unpause_container Unpause by a
            exited;<container>
              3 docker_start_container Start by a
              8 docker_remove_container Remove (asks) by a
              9 docker_logs_container Logs by a
            other;<container>
        "#]],
    );
}

#[test]
fn a_container_of_another_runtime_offers_terminals_and_what_its_pod_does() {
    let mut world = World::new();
    world.connect("node-1", &["10.0.0.1/24"]);
    let of_runtime = |id, runtime: &str| Container { runtime: runtime.into(), ..in_pod(id, "front") };
    let exited = Container { state: ContainerState::Exited, ..of_runtime("c3", "containerd") };
    world.report("node-1", containers(vec![of_runtime("c1", "containerd"), of_runtime("c2", "docker"), exited]));
    world.connect_cluster("collector", "production", vec![object(Kind::Pod, "front", &[])]);
    let offered = |id: &str| -> Vec<String> {
        let controls = world.details(View::Containers, id).unwrap().controls;
        controls.iter().map(|it| format!("{} {} of {} by {}", it.id, it.human, it.node_id, it.probe_id)).collect()
    };
    let of_its_pod =
        ["kubernetes_get_logs Get logs of front;<pod> by collector", "kubernetes_describe Describe pod of front;<pod> by collector"];
    // The same ids and words as of Docker's containers.
    let of_its_own = [
        "docker_attach_container Attach of c1;<container> by collector",
        "docker_exec_container Exec shell of c1;<container> by collector",
    ];
    assert_eq!(offered("c1;<container>"), [of_its_pod[0], of_its_own[0], of_its_pod[1], of_its_own[1]]);
    assert_eq!(offered("c3;<container>"), of_its_pod, "nothing runs in it");
    assert!(offered("c2;<container>").iter().all(|it| it.ends_with(" of c2;<container> by node-1")));
    // A report in Scope's words has one probe for all that a node offers.
    let export = world.map.export_host("node-1").unwrap();
    let exported: Vec<usize> = export.containers.iter().map(|it| it.controls.len()).collect();
    assert_eq!((exported[0], exported[1] > 0), (0, true));
}

#[test]
fn objects_and_nodes_of_a_cluster_are_its_collectors() {
    let mut world = World::new();
    world.connect("node-1", &["10.0.0.1/24"]);
    world.connect("node-2", &["10.0.0.2/24"]);
    let mut cordoned = object(Kind::Node, "node-2", &[]);
    (cordoned.namespace, cordoned.state) = (arc(""), arc("Ready,SchedulingDisabled"));
    let mut open = object(Kind::Node, "node-1", &[]);
    (open.namespace, open.state) = (arc(""), arc("Ready"));
    let objects = vec![open, cordoned, object(Kind::Pod, "p", &[]), object(Kind::Deployment, "d", &[]), object(Kind::Service, "s", &[])];
    world.connect_cluster("collector", "production", objects);
    check(
        &world,
        View::Hosts,
        &["node-1;<host>", "node-2;<host>"],
        expect![[r#"
        node-1;<host>
          1 kubernetes_cordon_node Cordon by collector
        node-2;<host>
          0 kubernetes_uncordon_node Uncordon by collector
    "#]],
    );
    check(
        &world,
        View::Pods,
        &["p;<pod>"],
        expect![[r#"
        p;<pod>
          0 kubernetes_get_logs Get logs by collector
          2 kubernetes_describe Describe by collector
          3 kubernetes_delete_pod Delete (asks) by collector
    "#]],
    );
    check(
        &world,
        View::KubeControllers,
        &["d;<deployment>"],
        expect![[r#"
        d;<deployment>
          0 kubernetes_scale_down Scale down by collector
          1 kubernetes_scale_up Scale up by collector
          2 kubernetes_describe Describe by collector
    "#]],
    );
    check(
        &world,
        View::Services,
        &["s;<service>"],
        expect![[r#"
        s;<service>
          2 kubernetes_describe Describe by collector
    "#]],
    );
}
