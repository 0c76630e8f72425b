//! Scope's views, drawn from a merged report.
//!
//! A view is a graph that follows from another one: endpoints lead to processes, processes to containers, containers to pods, and so on; see
//! the modules. Each graph is drawn once for a report, when somebody first asks for a view that needs it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use topology::{End, Link, NodeId, NodeSummary, PublishedNode, View, ViewStats};

use crate::model::{Kind, Report};
use crate::text::{Text, endpoint_parts};

mod choice;
mod containers;
mod details;
mod endpoints;
mod graph;
mod kubernetes;
mod networks;
mod summary;
mod views;

pub use choice::{Choice, Options};

use graph::{Drawn, Graph};
use networks::Networks;

/// What our own probes know of what old ones report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Joints {
    /// The nodes that stand for an end of a connection, by the endpoint's id.
    pub nodes: BTreeMap<Text, Vec<(View, NodeId)>>,
    /// Endpoints whose addresses lie in networks of our own hosts.
    pub local: BTreeSet<Text>,
    /// The nodes of the map that a process, a container or a pod is counted in already, by its id.
    pub groups: BTreeMap<Text, Vec<(View, NodeId)>>,
}

impl Joints {
    /// The connections of a report of which one end is not on a host of the report, with the ids of both endpoints: ask the map for them.
    pub fn questions(report: &Report) -> Vec<(Link, Text, Text)> {
        let endpoints = &report.table(Kind::Endpoint).nodes;
        let is_known = |id: &Text| endpoints.get(id).is_some_and(|node| node.value("host_node_id").is_some());
        let place = |id: &str| -> Option<(IpAddr, u16)> {
            let (scope, address, port) = endpoint_parts(id)?;
            // With a scope, an address means nothing elsewhere.
            if scope.is_empty() { Some((address.parse().ok()?, port.parse().ok()?)) } else { None }
        };
        let mut questions = Vec::new();
        for (client_id, node) in endpoints {
            let Some((client, _)) = place(client_id) else { continue };
            for server_id in node.adjacency.iter().filter(|id| !is_known(id) || !is_known(client_id)) {
                let Some((server, port)) = place(server_id) else { continue };
                questions.push((Link { client, server, port }, client_id.clone(), server_id.clone()));
            }
        }
        questions
    }

    /// What the map answered.
    pub fn answers(report: &Report, questions: &[(Link, Text, Text)], answers: Vec<topology::LinkEnds>) -> Self {
        let endpoints = &report.table(Kind::Endpoint).nodes;
        let is_known = |id: &Text| endpoints.get(id).is_some_and(|node| node.value("host_node_id").is_some());
        let mut joints = Joints::default();
        let mut note = |id: &Text, end: End| {
            if end.is_local {
                joints.local.insert(id.clone());
            }
            if !end.nodes.is_empty() && !is_known(id) {
                let nodes = joints.nodes.entry(id.clone()).or_default();
                nodes.extend(end.nodes);
                nodes.sort();
                nodes.dedup();
            }
        };
        for ((_, client, server), ends) in questions.iter().zip(answers) {
            note(client, ends.client);
            note(server, ends.server);
        }
        joints
    }

    /// The processes, containers and pods of a report: ask the map in which of its nodes it counts them.
    pub fn members(report: &Report) -> impl Iterator<Item = NodeId> + '_ {
        let kinds = [Kind::Process, Kind::Container, Kind::Pod].into_iter();
        kinds.flat_map(|kind| report.table(kind).nodes.keys()).map(|id| NodeId(id.clone()))
    }

    /// Notes what the map answered for each of the members.
    #[must_use]
    pub fn with_groups(mut self, members: Vec<NodeId>, groups: Vec<Vec<(View, NodeId)>>) -> Self {
        let known = members.into_iter().zip(groups).filter(|(_, groups)| !groups.is_empty());
        self.groups = known.map(|(id, groups)| (id.0, groups)).collect();
        self
    }

    /// Whether the map counts a member in a node of a view.
    fn counts(&self, member: &Text, view: View, node: &Text) -> bool {
        self.groups.get(member).is_some_and(|groups| groups.iter().any(|(of, id)| *of == view && id.0 == *node))
    }
}

/// A node that a view has because of old probes.
#[derive(Clone, Debug)]
pub struct Item {
    /// As it is shown, for all who show it. Of a node that is ours only the adjacency counts.
    pub node: PublishedNode,
    /// Whether the map knows it better: it is one of [`Joints`].
    pub is_ours: bool,
    /// How many of the things that it counts in its second line the map does not count in a node of that id.
    pub uncounted: u64,
}

impl Item {
    /// As it is shown.
    pub fn summary(&self) -> &NodeSummary {
        self.node.summary()
    }
}

/// What old probes add to a picture.
#[derive(Clone, Debug, Default)]
pub struct Overlay {
    /// By id.
    pub items: BTreeMap<NodeId, Item>,
    /// Numbers of this part, without nodes of ours.
    pub stats: ViewStats,
}

impl Overlay {
    /// Its nodes without what is said of them.
    pub fn outlines(&self) -> Vec<Outline> {
        let outline = |(id, item): (&NodeId, &Item)| Outline {
            id: id.clone(),
            adjacency: item.summary().adjacency.clone(),
            is_ours: item.is_ours,
            is_pseudo: item.summary().pseudo,
        };
        self.items.iter().map(outline).collect()
    }
}

/// A node and its edges: as much of it as it takes to count it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// Its id.
    pub id: NodeId,
    /// Where its edges lead, sorted.
    pub adjacency: Vec<NodeId>,
    /// As in [`Item`].
    pub is_ours: bool,
    /// Whether it stands for something outside of what is watched.
    pub is_pseudo: bool,
}

/// An overlay that somebody asked for.
#[derive(Debug)]
struct Kept {
    view: View,
    options: Options,
    overlay: Arc<OnceLock<Arc<Overlay>>>,
}

/// Overlays that a drawing keeps: each view as a page and a search look at it.
const OVERLAYS_KEPT: usize = 2 * View::ALL.len();

/// A merged report, and the graphs that were drawn from it so far.
#[derive(Debug)]
pub struct Drawing {
    report: Report,
    joints: Joints,
    networks: Networks,
    processes: OnceLock<Arc<Graph>>,
    containers: OnceLock<Arc<Graph>>,
    named_containers: OnceLock<Arc<Graph>>,
    images: OnceLock<Arc<Graph>>,
    pods: OnceLock<Arc<Graph>>,
    tasks: OnceLock<Arc<Graph>>,
    views: [OnceLock<Arc<Graph>>; View::ALL.len()],
    overlays: Mutex<VecDeque<Kept>>,
}

impl Drawing {
    /// Prepares a merged report.
    pub fn new(mut report: Report, joints: Joints) -> Self {
        report.drop_partial();
        let networks = Networks::of(&report);
        Drawing {
            report,
            joints,
            networks,
            processes: OnceLock::new(),
            containers: OnceLock::new(),
            named_containers: OnceLock::new(),
            images: OnceLock::new(),
            pods: OnceLock::new(),
            tasks: OnceLock::new(),
            views: Default::default(),
            overlays: Mutex::default(),
        }
    }

    /// What it is drawn from.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Names of Kubernetes namespaces, sorted, and of Swarm stacks.
    pub fn namespaces(&self) -> (BTreeSet<Text>, BTreeSet<Text>) {
        let values = |kind: Kind, key: &'static str| {
            let nodes = self.report.table(kind).nodes.values();
            nodes.filter_map(|node| node.value(key)).cloned().collect()
        };
        (values(Kind::Namespace, "kubernetes_name"), values(Kind::SwarmService, "stack_namespace"))
    }

    /// The networks and addresses of hosts that report, which are not the Internet.
    pub fn neighbours(&self) -> Vec<topology::Network> {
        let mut networks = self.networks.list();
        for (id, node) in &self.report.table(Kind::Endpoint).nodes {
            if node.value("host_node_id").is_none() {
                continue;
            }
            let address = endpoint_parts(id).filter(|(scope, ..)| scope.is_empty()).and_then(|(_, address, _)| address.parse().ok());
            if let Some(address @ IpAddr::V4(_)) = address
                && !self.networks.contains(address)
            {
                networks.push(topology::Network { address, prefix_length: 32 });
            }
        }
        networks.sort();
        networks.dedup();
        networks
    }

    /// The nodes of a picture. They are made once, and are the same for all who ask.
    pub fn overlay(&self, view: View, options: &Options) -> Arc<Overlay> {
        let kept = self.kept(view, options);
        kept.get_or_init(|| Arc::new(self.make_overlay(view, options))).clone()
    }

    fn kept(&self, view: View, options: &Options) -> Arc<OnceLock<Arc<Overlay>>> {
        let mut overlays = self.overlays.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = overlays.iter().find(|kept| kept.view == view && kept.options == *options) {
            return kept.overlay.clone();
        }
        if overlays.len() == OVERLAYS_KEPT {
            overlays.pop_front();
        }
        let overlay = Arc::default();
        overlays.push_back(Kept { view, options: options.clone(), overlay: Arc::clone(&overlay) });
        overlay
    }

    fn make_overlay(&self, view: View, options: &Options) -> Overlay {
        let graph = self.chosen(view, options);
        let mut overlay = Overlay::default();
        for node in graph.nodes.values() {
            if !node.is_ours {
                overlay.stats.node_count += 1;
                overlay.stats.nonpseudo_node_count += u64::from(!node.is_pseudo());
                overlay.stats.edge_count += node.adjacency.len() as u64;
            }
            let summary = if node.is_ours { Some(summary::bare(node)) } else { self.summarize(node, options, false) };
            if let Some(summary) = summary {
                let (id, uncounted) = (summary.id.clone(), self.uncounted(view, node));
                overlay.items.insert(id, Item { node: PublishedNode::new(summary), is_ours: node.is_ours, uncounted });
            }
        }
        overlay.stats.filtered_nodes = graph.filtered;
        overlay
    }

    /// The nodes of a picture without what is said of them, and how many of them filters have removed: for those who count, for whom the nodes
    /// need not be made.
    pub fn outlines(&self, view: View, options: &Options) -> (Vec<Outline>, u64) {
        let graph = self.chosen(view, options);
        let outline = |node: &Drawn| Outline {
            id: NodeId(node.id.clone()),
            adjacency: node.adjacency.iter().map(|id| NodeId(id.clone())).collect(),
            is_ours: node.is_ours,
            is_pseudo: node.is_pseudo(),
        };
        let shown = graph.nodes.values().filter(|node| node.is_ours || summary::is_shown(node));
        (shown.map(|node| outline(node)).collect(), graph.filtered)
    }

    /// Children of a group that the map does not have in it.
    fn uncounted(&self, view: View, node: &Drawn) -> u64 {
        let counted = match view {
            View::ProcessesByName => Kind::Process,
            View::ContainersByHostname | View::ContainersByImage => Kind::Container,
            View::KubeControllers | View::Services => Kind::Pod,
            _ => return 0,
        };
        if node.passes() {
            return 0;
        }
        let children = node.children.iter().filter(|(id, child)| child.is(counted) && !self.joints.counts(id, view, &node.id));
        children.count() as u64
    }

    /// The whole graph of a view.
    fn graph(&self, view: View) -> Arc<Graph> {
        let place = View::ALL.iter().position(|known| *known == view).unwrap_or(0);
        self.views[place].get_or_init(|| Arc::new(self.draw(view))).clone()
    }
}

#[cfg(test)]
mod tests;
