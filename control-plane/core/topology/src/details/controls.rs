//! What can be done with a node: what its state allows, as far as its probe carries it out.

use std::borrow::Cow;
use std::sync::Arc;

use crate::index::{Entity, ObjectIndex};
use crate::node::{Control, NodeId};
use crate::report::{ContainerState, KubernetesKind as Kind};
use crate::topology::Topology;

/// A control as the catalogue has it.
struct Known {
    id: &'static str,
    human: &'static str,
    icon: &'static str,
    confirmation: &'static str,
    rank: i64,
}

const fn known(rank: i64, id: &'static str, human: &'static str, icon: &'static str) -> Known {
    Known { id, human, icon, confirmation: "", rank }
}

const fn confirmed(known: Known, confirmation: &'static str) -> Known {
    Known { confirmation, ..known }
}

const ATTACH: Known = known(1, "docker_attach_container", "Attach", "fa fa-desktop");
const EXEC: Known = known(2, "docker_exec_container", "Exec shell", "fa fa-terminal");
const START: Known = known(3, "docker_start_container", "Start", "fa fa-play");
const RESTART: Known = known(4, "docker_restart_container", "Restart", "fa fa-redo");
const PAUSE: Known = known(5, "docker_pause_container", "Pause", "fa fa-pause");
const UNPAUSE: Known = known(6, "docker_unpause_container", "Unpause", "fa fa-play");
const STOP: Known = known(7, "docker_stop_container", "Stop", "fa fa-stop");
const REMOVE: Known = confirmed(
    known(8, "docker_remove_container", "Remove", "far fa-trash-alt"),
    "Remove this container? What is stored in it alone is lost.",
);
const LOGS: Known = known(9, "docker_logs_container", "Logs", "fa fa-file-text");
const KILL: Known = confirmed(
    known(10, "docker_kill_container", "Kill", "fa fa-bolt"),
    "Kill this container? Its processes end at once and cannot put anything in order.",
);

const HOST_EXEC: Known = known(0, "host_exec", "Exec shell", "fa fa-terminal");
const UNCORDON: Known = known(0, "kubernetes_uncordon_node", "Uncordon", "fa fa-toggle-on");
const CORDON: Known = known(1, "kubernetes_cordon_node", "Cordon", "fa fa-toggle-off");

const POD_LOGS: Known = known(0, "kubernetes_get_logs", "Get logs", "fa fa-desktop");
const SCALE_DOWN: Known = known(0, "kubernetes_scale_down", "Scale down", "fa fa-minus");
const SCALE_UP: Known = known(1, "kubernetes_scale_up", "Scale up", "fa fa-plus");
const DESCRIBE: Known = known(2, "kubernetes_describe", "Describe", "fa fa-file-text");
const DESCRIBE_POD: Known = Known { human: "Describe pod", ..DESCRIBE };
const DELETE_POD: Known =
    confirmed(known(3, "kubernetes_delete_pod", "Delete", "far fa-trash-alt"), "Are you sure you want to delete this pod?");

/// What a node of Kubernetes is called while nothing new is to run on it.
const CORDONED: &str = "SchedulingDisabled";

/// Everything that can be done with a container in one state or another, as far as the probe of its host does it.
pub(crate) fn of_any_container(map: &Topology, probe: &Arc<str>, node_id: &NodeId) -> Vec<Control> {
    offered(map, probe, node_id, &[ATTACH, EXEC, START, RESTART, PAUSE, UNPAUSE, STOP, REMOVE, LOGS, KILL])
}

/// What can be done with `entity`.
pub(crate) fn controls(map: &Topology, entity: Entity) -> Vec<Control> {
    let mut controls = match entity {
        Entity::Container(container) => {
            let row = &map.tables.containers[container];
            match row.record.as_ref() {
                Some(record) if &*record.runtime == "docker" => {
                    offered(map, &map.tables.hosts[row.host].probe, &row.node_id, of_container(record.state))
                }
                // Probes only watch other runtimes. What Kubernetes does with it and its pod is the next best.
                Some(record) => row.pod.map_or_else(Vec::new, |pod| of_container_in(map, pod, &row.node_id, record.state)),
                None => Vec::new(),
            }
        }
        Entity::Host(host) => {
            let row = &map.tables.hosts[host];
            let mut controls = offered(map, &row.probe, &row.node_id, &[HOST_EXEC]);
            let node = map.tables.kubernetes.node_named(&row.name).and_then(|node| map.tables.kubernetes.told(node));
            if let Some((collector, node)) = node {
                let is_cordoned = node.state.split(',').any(|word| word == CORDONED);
                let known = if is_cordoned { &[UNCORDON] } else { &[CORDON] };
                controls.extend(offered(map, collector, &row.node_id, known));
            }
            controls
        }
        Entity::Object(object) => {
            let Some((collector, record)) = map.tables.kubernetes.told(object) else { return Vec::new() };
            let node_id = &map.tables.kubernetes.rows[object].node_id;
            offered(map, collector, node_id, of_object(record.kind))
        }
        _ => return Vec::new(),
    };
    controls.sort_by_key(|control| control.rank);
    controls
}

/// What a cluster's collector does with a container of a pod: a terminal in it, and what the pod itself offers, whose node is told.
fn of_container_in(map: &Topology, pod: ObjectIndex, container: &NodeId, state: ContainerState) -> Vec<Control> {
    let Some((collector, _)) = map.tables.kubernetes.told(pod) else { return Vec::new() };
    let mut controls = offered(map, collector, &map.tables.kubernetes.rows[pod].node_id, &[POD_LOGS, DESCRIBE_POD]);
    if state == ContainerState::Running {
        controls.extend(offered(map, collector, container, &[ATTACH, EXEC]));
    }
    controls
}

fn of_container(state: ContainerState) -> &'static [Known] {
    match state {
        // One that restarts all the time runs as far as Docker is concerned.
        ContainerState::Running | ContainerState::Restarting => &[ATTACH, EXEC, RESTART, PAUSE, STOP, LOGS, KILL],
        ContainerState::Paused => &[UNPAUSE],
        _ => &[START, REMOVE, LOGS],
    }
}

fn of_object(kind: Kind) -> &'static [Known] {
    match kind {
        Kind::Pod => &[POD_LOGS, DESCRIBE, DELETE_POD],
        Kind::Deployment | Kind::StatefulSet => &[SCALE_DOWN, SCALE_UP, DESCRIBE],
        Kind::Namespace => &[],
        _ => &[DESCRIBE],
    }
}

fn offered(map: &Topology, probe: &Arc<str>, node_id: &NodeId, known: &[Known]) -> Vec<Control> {
    let Some(row) = map.probes.get(probe) else { return Vec::new() };
    let able = known.iter().filter(|known| row.controls.iter().any(|able| **able == *known.id));
    let control = |known: &Known| Control {
        probe_id: probe.clone(),
        node_id: node_id.clone(),
        id: Cow::Borrowed(known.id),
        human: Cow::Borrowed(known.human),
        icon: Cow::Borrowed(known.icon),
        confirmation: Cow::Borrowed(known.confirmation),
        rank: known.rank,
    };
    able.map(control).collect()
}
