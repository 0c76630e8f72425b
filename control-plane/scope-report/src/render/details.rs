//! A node with everything that its panel shows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use topology::{ChildGroup, Column, Connection, Control, Details, NodeId, View};

use super::Drawing;
use super::choice::Options;
use super::graph::{Drawn, Graph};
use super::summary::view_of;
use crate::model::Kind;
use crate::text::{Text, endpoint_parts};

const fn column(id: &'static str, label: &'static str, data_type: &'static str) -> Column {
    Column { id, label, default_sort: false, data_type }
}

const POD_COLUMNS: &[Column] =
    &[column("kubernetes_state", "State", ""), column("container", "# Containers", "number"), column("kubernetes_ip", "IP", "ip")];
const TASK_COLUMNS: &[Column] = &[column("ecs_created_at", "Created At", "datetime")];
const CONTAINER_COLUMNS: &[Column] =
    &[column("docker_cpu_total_usage", "CPU", "number"), column("docker_memory_usage", "Memory", "number")];
const PROCESS_COLUMNS: &[Column] = &[
    column("pid", "PID", "number"),
    column("process_cpu_usage_percent", "CPU", "number"),
    column("process_memory_usage_bytes", "Memory", "number"),
];

/// Groups of children in order.
const GROUPS: [(Kind, &str, &[Column]); 10] = [
    (Kind::Pod, "Pods", POD_COLUMNS),
    (Kind::EcsTask, "Tasks", TASK_COLUMNS),
    (Kind::Container, "Containers", CONTAINER_COLUMNS),
    (Kind::Process, "Processes", PROCESS_COLUMNS),
    (Kind::ContainerImage, "Container images", &[]),
    (Kind::PersistentVolume, "Persistent Volumes", &[]),
    (Kind::PersistentVolumeClaim, "Persistent Volume Claims", &[]),
    (Kind::StorageClass, "Storage Classes", &[]),
    (Kind::VolumeSnapshot, "Volume Snapshots", &[]),
    (Kind::VolumeSnapshotData, "Volume Snapshot Data", &[]),
];

/// The rows of a connection table, before they are counted.
#[derive(Debug, Default)]
struct Counter {
    counted: BTreeSet<Text>,
    counts: BTreeMap<Row, u64>,
}

/// What makes a row: the neighbour, addresses on the Internet's side, and the port of the service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    node: Text,
    remote: Text,
    local: Text,
    port: Text,
}

impl Drawing {
    /// The panel of a node of old probes; `None` when the view has no such node. The options decide which neighbours it shows.
    pub fn details(&self, view: View, id: &str, options: &Options) -> Option<Details> {
        let whole = self.graph(view);
        let unfiltered = whole.nodes.get(id)?;
        let mut chosen = self.chosen(view, options);
        let node = chosen.nodes.entry(id.into()).or_insert_with(|| unfiltered.clone()).clone();
        let summary = if node.is_ours { super::summary::bare(&node) } else { self.summarize(&node, options, true)? };
        Some(Details {
            controls: self.controls(&node),
            children: if node.is_ours { Vec::new() } else { self.children(&node, options) },
            incoming: self.incoming(&chosen, &node),
            outgoing: self.outgoing(&chosen, &node),
            shows_remote: node.is_internet(),
            summary,
        })
    }

    /// Whether the unfiltered view has a node, and whether it is one of ours.
    pub fn finds(&self, view: View, id: &str) -> Option<bool> {
        self.graph(view).nodes.get(id).map(|node| node.is_ours)
    }

    /// What can be done to a node: what it says is active, and its table describes.
    fn controls(&self, node: &Drawn) -> Vec<Control> {
        let table = Kind::from_name(&node.topology).map(|kind| self.report.table(kind));
        let row = table.and_then(|table| Some((table, table.nodes.get(&node.id)?)));
        let Some((table, row)) = row else { return Vec::new() };
        let (Some(probe), Some(active)) = (row.value("control_probe_id"), row.value("active_controls")) else { return Vec::new() };
        let described = active.split(';').filter_map(|id| table.controls.get(id));
        let control = |it: &crate::model::Control| Control {
            probe_id: if it.probe_id.is_empty() { probe.clone() } else { it.probe_id.clone() },
            node_id: NodeId(node.id.clone()),
            id: it.id.to_string().into(),
            human: it.human.to_string().into(),
            icon: it.icon.to_string().into(),
            confirmation: it.confirmation.to_string().into(),
            rank: it.rank,
        };
        described.map(control).collect()
    }

    fn children(&self, node: &Drawn, options: &Options) -> Vec<ChildGroup> {
        let group = |(kind, label, columns): (Kind, &'static str, &'static [Column])| {
            let children = node.children.values().filter(|child| child.is(kind) && child.id != node.id);
            let mut nodes: Vec<_> = children.filter_map(|child| self.summarize(child, options, false)).collect();
            nodes.sort_by(|one, other| one.id.cmp(&other.id));
            let topology_id = view_of(kind)?.id();
            (!nodes.is_empty()).then_some(ChildGroup { label, topology_id, columns, nodes })
        };
        GROUPS.into_iter().filter_map(group).collect()
    }

    fn incoming(&self, graph: &Graph, node: &Drawn) -> Vec<Connection> {
        let mut counter = Counter::default();
        for neighbour in graph.nodes.values().filter(|other| other.adjacency.contains(&node.id)) {
            for remote in neighbour.endpoints() {
                for local in remote.adjacency.iter().filter_map(|id| node.children.get(id)).filter(|child| child.is(Kind::Endpoint)) {
                    self.count(&mut counter, (node, local), (neighbour, remote), false);
                }
            }
        }
        self.connections(graph, counter, node)
    }

    fn outgoing(&self, graph: &Graph, node: &Drawn) -> Vec<Connection> {
        let mut counter = Counter::default();
        for neighbour in node.adjacency.iter().filter_map(|id| graph.nodes.get(id)) {
            for local in node.endpoints() {
                for remote in local.adjacency.iter().filter_map(|id| neighbour.children.get(id)).filter(|child| child.is(Kind::Endpoint)) {
                    self.count(&mut counter, (node, local), (neighbour, remote), true);
                }
            }
        }
        self.connections(graph, counter, node)
    }

    /// Counts a connection, which is known by the end that opened it.
    fn count(&self, counter: &mut Counter, local: (&Drawn, &Arc<Drawn>), remote: (&Drawn, &Arc<Drawn>), outgoing: bool) {
        let (source, target) = if outgoing { (local.1, remote.1) } else { (remote.1, local.1) };
        let original = |end: &Drawn| end.value("copy_of").cloned().unwrap_or_else(|| end.id.clone());
        let id = original(source);
        // Of an alias, the original is the end that counts; one that nobody told of is none.
        let end = original(target);
        let port = endpoint_parts(&end).map(|(_, _, port)| Text::from(port));
        let Some(port) = port.filter(|_| self.report.table(Kind::Endpoint).nodes.contains_key(&end)) else { return };
        if counter.counted.contains(&id) {
            return;
        }
        let at_remote = if outgoing { original(remote.1) } else { remote.1.id.clone() };
        let at_local = if outgoing { local.1.id.clone() } else { original(local.1) };
        let row =
            Row { node: remote.0.id.clone(), remote: self.address(remote.0, &at_remote), local: self.address(local.0, &at_local), port };
        let stands_for = source.value("conn_count").and_then(|count| count.parse().ok()).unwrap_or(1);
        counter.counted.insert(id);
        let count = counter.counts.entry(row).or_default();
        *count = count.saturating_add(stands_for);
    }

    /// On the Internet's side, the address of an end, and its best name.
    fn address(&self, node: &Drawn, endpoint: &str) -> Text {
        let address = endpoint_parts(endpoint).filter(|_| node.is_internet()).map(|(_, address, _)| address);
        let Some(address) = address else { return "".into() };
        match self.names(address).next() {
            Some(name) => format!("{name} ({address})").into(),
            None => address.into(),
        }
    }

    fn connections(&self, graph: &Graph, counter: Counter, node: &Drawn) -> Vec<Connection> {
        let connection = |(row, count): (Row, u64)| {
            let basics = graph.nodes.get(&row.node).and_then(|neighbour| self.basics(neighbour));
            let (label, label_minor) = basics.map(|it| (it.label, it.label_minor)).unwrap_or_default();
            let is_remote = !row.remote.is_empty();
            Connection {
                id: format!("{}-{}-{}-{}", row.node, row.remote, row.local, row.port).into(),
                node_id: NodeId(row.node),
                label: if is_remote { row.remote } else { label },
                label_minor: if is_remote { "".into() } else { label_minor },
                remote: node.is_internet().then_some(row.local),
                port: row.port.parse().ok(),
                protocol: "tcp",
                via: "".into(),
                applications: Vec::new(),
                count,
            }
        };
        let mut connections: Vec<Connection> = counter.counts.into_iter().map(connection).collect();
        connections.sort_by(|one, other| one.id.cmp(&other.id));
        connections
    }
}
