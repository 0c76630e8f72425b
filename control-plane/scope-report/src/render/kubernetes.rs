//! Pods, what owns or selects them, and their volumes; tasks and services of ECS and Swarm, which are drawn alike.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Drawing;
use super::choice::is_running;
use super::graph::{Drawn, Graph, Join, PSEUDO, Take, UNCONTAINED, UNMANAGED};
use crate::model::{Kind, Node};
use crate::text::{Text, is_pause_image};

/// Where any node makes the Kubernetes views appear.
const KUBERNETES: [Kind; 10] = [
    Kind::Pod,
    Kind::Service,
    Kind::Deployment,
    Kind::DaemonSet,
    Kind::StatefulSet,
    Kind::CronJob,
    Kind::PersistentVolume,
    Kind::PersistentVolumeClaim,
    Kind::StorageClass,
    Kind::Job,
];

/// Whose pods are grouped in the view of the controllers.
pub(super) const CONTROLLERS: [Kind; 5] = [Kind::Deployment, Kind::DaemonSet, Kind::StatefulSet, Kind::CronJob, Kind::Job];

impl Drawing {
    fn has_any(&self, kinds: &[Kind]) -> bool {
        kinds.iter().any(|&kind| !self.report.table(kind).nodes.is_empty())
    }

    /// Pods with the edges of their containers, and with those of their addresses, and their volumes.
    pub(super) fn pods(&self) -> Arc<Graph> {
        self.pods
            .get_or_init(|| {
                if !self.has_any(&KUBERNETES) {
                    return Arc::default();
                }
                let containers = Graph::clone(&self.named_containers());
                let working = containers
                    .filter_real(|node| is_running(node) && !node.value("docker_image_name").is_some_and(|image| is_pause_image(image)));
                let mut by_container = group(&working, &[Kind::Pod], true);
                // Pods are not told with their host, but their containers are.
                for pod in by_container.nodes.values_mut().filter(|node| node.is(Kind::Pod)) {
                    take_host(pod);
                }
                let by_container = with_metrics_of_only(by_container, Kind::Container);
                let by_address = self.join_addresses(Kind::Pod, |node, out| {
                    // In the network of the host, an address may be anybody's.
                    let address = node.value("kubernetes_ip").filter(|address| !address.is_empty());
                    if let Some(address) = address.filter(|_| node.value("kubernetes_is_in_host_network").is_none()) {
                        out(format!(";{address};"));
                    }
                });
                let all = by_container.union(by_address).union(self.volumes());
                let is_there = |node: &Drawn| node.value("kubernetes_state").is_none_or(|state| !matches!(&**state, "deleted" | "Failed"));
                Arc::new(all.filter_real(is_there))
            })
            .clone()
    }

    pub(super) fn controllers(&self) -> Graph {
        if self.has_any(&KUBERNETES) { self.with_parents(&self.pods(), Kind::Pod, &CONTROLLERS, true) } else { Graph::default() }
    }

    pub(super) fn services(&self) -> Graph {
        if self.has_any(&KUBERNETES) { self.with_parents(&self.pods(), Kind::Pod, &[Kind::Service], false) } else { Graph::default() }
    }

    pub(super) fn tasks(&self) -> Arc<Graph> {
        self.tasks
            .get_or_init(|| {
                if !self.has_any(&[Kind::EcsTask, Kind::EcsService]) {
                    return Arc::default();
                }
                let running = Graph::clone(&self.named_containers()).filter_real(is_running);
                Arc::new(self.with_parents(&running, Kind::Container, &[Kind::EcsTask], true))
            })
            .clone()
    }

    pub(super) fn task_services(&self) -> Graph {
        if !self.has_any(&[Kind::EcsTask, Kind::EcsService]) {
            return Graph::default();
        }
        self.with_parents(&self.tasks(), Kind::EcsTask, &[Kind::EcsService], false)
    }

    pub(super) fn swarm_services(&self) -> Graph {
        if !self.has_any(&[Kind::SwarmService]) {
            return Graph::default();
        }
        let running = Graph::clone(&self.named_containers()).filter_real(is_running);
        self.with_parents(&running, Kind::Container, &[Kind::SwarmService], true)
    }

    /// Nodes grouped by their parents, and parents without any.
    fn with_parents(&self, input: &Graph, children: Kind, parents: &[Kind], unmanaged: bool) -> Graph {
        let mut all = with_metrics_of_only(group(input, parents, unmanaged), children);
        for &kind in parents {
            all = all.union(Graph::table(&self.report.table(kind).nodes));
        }
        all
    }

    /// Claims and their volumes, pods and their claims, classes and the claims of them, volumes and their snapshots, snapshots and their data.
    fn volumes(&self) -> Graph {
        let of = |kind: Kind| &self.report.table(kind).nodes;
        let name = |node: &Node| node.value("kubernetes_name").cloned();
        let mut graph = Graph::default();
        let mut link = |from_id: &Text, from: &Arc<Node>, targets: &mut dyn Iterator<Item = (&Text, &Arc<Node>)>| {
            let mut node = Drawn::row(from_id, from);
            for (id, target) in targets {
                node.adjacency.insert(id.clone());
                node.children.insert(id.clone(), Arc::new(Drawn::row(id, target)));
            }
            let new = Graph { nodes: BTreeMap::from([(from_id.clone(), Arc::new(node))]), filtered: 0 };
            graph = std::mem::take(&mut graph).union(new);
        };
        let volumes = by_key(of(Kind::PersistentVolume), |node| name(node).unwrap_or_default());
        for (id, claim) in of(Kind::PersistentVolumeClaim) {
            let volume = claim.value("kubernetes_volume_name").cloned().unwrap_or_default();
            link(id, claim, &mut found(&volumes, &volume));
        }
        let in_namespace = |namespace: &str, name: &str| -> Text { format!("{namespace}/{name}").into() };
        let claims = by_key(of(Kind::PersistentVolumeClaim), |node| {
            in_namespace(node.value("kubernetes_namespace").map_or("", |it| it), &name(node).unwrap_or_default())
        });
        for (id, pod) in of(Kind::Pod) {
            let Some(named) = pod.value("kubernetes_volume_claim") else { continue };
            let namespace = pod.value("kubernetes_namespace").map_or("", |it| it);
            let named: Vec<Text> = named.split(';').map(|claim| in_namespace(namespace, claim)).collect();
            link(id, pod, &mut named.iter().filter_map(|claim| found(&claims, claim).next()));
        }
        let of_class =
            by_key(of(Kind::PersistentVolumeClaim), |node| node.value("kubernetes_storage_class_name").cloned().unwrap_or_default());
        for (id, class) in of(Kind::StorageClass) {
            link(id, class, &mut found(&of_class, &name(class).unwrap_or_default()));
        }
        let snapshots = by_key(of(Kind::VolumeSnapshot), |node| node.value("kubernetes_volume_name").cloned().unwrap_or_default());
        for (id, volume) in of(Kind::PersistentVolume) {
            link(id, volume, &mut found(&snapshots, &name(volume).unwrap_or_default()));
        }
        let data = by_key(of(Kind::VolumeSnapshotData), |node| name(node).unwrap_or_default());
        for (id, snapshot) in of(Kind::VolumeSnapshot) {
            // The key is misspelt on the wire.
            let named = snapshot.value("kuberneets_snapshot_data").cloned().unwrap_or_default();
            link(id, snapshot, &mut found(&data, &named));
        }
        if !of(Kind::VolumeSnapshot).is_empty() {
            for (id, data) in of(Kind::VolumeSnapshotData) {
                link(id, data, &mut std::iter::empty());
            }
        }
        graph
    }
}

type Rows<'a> = BTreeMap<Text, Vec<(&'a Text, &'a Arc<Node>)>>;

/// Rows by a key that several of them may have.
fn by_key(rows: &BTreeMap<Text, Arc<Node>>, key: impl Fn(&Node) -> Text) -> Rows<'_> {
    let mut found: Rows<'_> = BTreeMap::new();
    for (id, row) in rows {
        found.entry(key(row)).or_default().push((id, row));
    }
    found
}

fn found<'a, 'b>(rows: &'b Rows<'a>, key: &str) -> impl Iterator<Item = (&'a Text, &'a Arc<Node>)> + use<'a, 'b> {
    rows.get(key).into_iter().flatten().copied()
}

/// Nodes put under their parents of some kinds. Those without any are dropped, or put under what stands for all of them on a host.
fn group(input: &Graph, parents: &[Kind], unmanaged: bool) -> Graph {
    let mut join = Join::default();
    for (id, node) in &input.nodes {
        if let (true, Some(host)) = (unmanaged, id.strip_prefix(UNCONTAINED)) {
            join.child(node, &format!("{UNMANAGED}{host}").into(), PSEUDO, Take::WithChildren);
            continue;
        }
        if node.passes() {
            join.pass(node);
            continue;
        }
        let mut has_parent = false;
        for &kind in parents {
            for parent in node.parents(kind) {
                join.child(node, parent, kind.name(), Take::WithChildren);
                has_parent = true;
            }
        }
        if !has_parent && unmanaged {
            join.child(node, &format!("{UNMANAGED}{}", node.host()).into(), PSEUDO, Take::WithChildren);
        }
    }
    join.result(input)
}

/// A pod without a host takes that of the first of its containers that has one.
fn take_host(pod: &mut Arc<Drawn>) {
    if pod.parents(Kind::Host).next().is_some() {
        return;
    }
    let hosts = pod.children.values().find_map(|child| child.facts.parents.get(Kind::Host.name())).cloned();
    if let Some(hosts) = hosts {
        let facts = &mut Arc::make_mut(pod).facts;
        Arc::make_mut(facts).parents.insert(Kind::Host.name().into(), hosts);
    }
}

/// What has one child of a kind that does something shows its metrics.
fn with_metrics_of_only(mut graph: Graph, kind: Kind) -> Graph {
    for node in graph.nodes.values_mut() {
        let mut working = node.children.values().filter(|child| child.is(kind) && child.value("does_not_make_connections").is_none());
        if let (Some(only), None) = (working.next(), working.next()) {
            let metrics = only.facts.metrics.clone();
            if !metrics.is_empty() {
                let facts = &mut Arc::make_mut(node).facts;
                Arc::make_mut(facts).metrics.extend(metrics);
            }
        }
    }
    graph
}
