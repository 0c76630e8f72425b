//! Graphs, and how one follows from another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use topology::{NodeId, View};

use crate::model::{Kind, Node};
use crate::text::Text;

/// The topology of nodes that stand for something outside of what is watched.
pub(super) const PSEUDO: &str = "pseudo";
/// Id of the node for connections from the Internet.
pub(super) const INTERNET_IN: &str = "in-theinternet";
/// Id of the node for connections to the Internet.
pub(super) const INTERNET_OUT: &str = "out-theinternet";
/// What the ids of known services begin with.
pub(super) const SERVICE: &str = "service-";
/// What the ids of processes outside of containers begin with.
pub(super) const UNCONTAINED: &str = "pseudo:uncontained:";
/// What the ids of containers outside of what orchestrates begin with.
pub(super) const UNMANAGED: &str = "pseudo:unmanaged:";

/// A node of a graph.
#[derive(Clone, Debug)]
pub(super) struct Drawn {
    pub(super) id: Text,
    /// Name of its table, `pseudo`, or `group:…`.
    pub(super) topology: Text,
    /// What is known of it.
    pub(super) facts: Arc<Node>,
    pub(super) adjacency: BTreeSet<Text>,
    pub(super) children: BTreeMap<Text, Arc<Drawn>>,
    /// How many children of each topology were put under it.
    pub(super) counters: BTreeMap<Text, u64>,
    /// It has an edge from or to another node.
    pub(super) connected: bool,
    /// It stands for an end that the map knows better; while a graph is on its way through the views, it is called by its endpoint's id.
    pub(super) is_ours: bool,
}

impl Drawn {
    pub(super) fn new(id: Text, topology: Text) -> Self {
        Drawn {
            id,
            topology,
            facts: Arc::default(),
            adjacency: BTreeSet::new(),
            children: BTreeMap::new(),
            counters: BTreeMap::new(),
            connected: false,
            is_ours: false,
        }
    }

    /// A row of a report's table, with its edges.
    pub(super) fn row(id: &Text, node: &Arc<Node>) -> Self {
        Drawn {
            facts: node.clone(),
            adjacency: node.adjacency.clone(),
            children: node.children.iter().map(|(id, child)| (id.clone(), Arc::new(Drawn::row(id, child)))).collect(),
            ..Drawn::new(id.clone(), node.topology.clone().unwrap_or_default())
        }
    }

    pub(super) fn is_pseudo(&self) -> bool {
        *self.topology == *PSEUDO
    }

    /// Whether it goes through the views as it is.
    pub(super) fn passes(&self) -> bool {
        self.is_pseudo() || self.is_ours
    }

    pub(super) fn is(&self, kind: Kind) -> bool {
        *self.topology == *kind.name()
    }

    pub(super) fn is_internet(&self) -> bool {
        matches!(&*self.id, INTERNET_IN | INTERNET_OUT)
    }

    pub(super) fn value(&self, key: &str) -> Option<&Text> {
        self.facts.value(key)
    }

    pub(super) fn parents(&self, kind: Kind) -> impl Iterator<Item = &Text> {
        self.facts.parents.get(kind.name()).into_iter().flatten()
    }

    /// The host that it was found on.
    pub(super) fn host(&self) -> &str {
        self.value("host_node_id").and_then(|id| crate::text::untagged(id, "host")).unwrap_or_default()
    }

    /// How many children of a topology it has, if that was ever counted.
    pub(super) fn counter(&self, key: &str) -> Option<u64> {
        self.counters.get(key).copied().or_else(|| self.value(&format!("count_{key}"))?.parse().ok())
    }

    pub(super) fn endpoints(&self) -> impl Iterator<Item = &Arc<Drawn>> {
        self.children.values().filter(|child| child.is(Kind::Endpoint))
    }

    /// Takes in what another graph says of the same node.
    pub(super) fn merge(&mut self, other: &Drawn) {
        if self.topology.is_empty() {
            self.topology = other.topology.clone();
        }
        if !Arc::ptr_eq(&self.facts, &other.facts) && *other.facts != Node::default() {
            if *self.facts == Node::default() {
                self.facts = other.facts.clone();
            } else {
                let kind = Kind::from_name(&self.topology).unwrap_or(Kind::Endpoint);
                Arc::make_mut(&mut self.facts).merge(&other.facts, kind);
            }
        }
        self.adjacency.extend(other.adjacency.iter().cloned());
        for (id, child) in &other.children {
            self.children.entry(id.clone()).or_insert_with(|| child.clone());
        }
        for (key, count) in &other.counters {
            let own = self.counters.entry(key.clone()).or_default();
            *own = (*own).max(*count);
        }
        self.connected |= other.connected;
        self.is_ours &= other.is_ours;
    }
}

/// Nodes by id, and how many were left out on the way here.
#[derive(Clone, Debug, Default)]
pub(super) struct Graph {
    pub(super) nodes: BTreeMap<Text, Arc<Drawn>>,
    pub(super) filtered: u64,
}

impl Graph {
    /// A table of a report, as a graph.
    pub(super) fn table(nodes: &BTreeMap<Text, Arc<Node>>) -> Self {
        Graph { nodes: nodes.iter().map(|(id, node)| (id.clone(), Arc::new(Drawn::row(id, node)))).collect(), filtered: 0 }
    }

    /// All nodes of both.
    pub(super) fn union(mut self, other: Graph) -> Self {
        for (id, node) in other.nodes {
            match self.nodes.entry(id) {
                std::collections::btree_map::Entry::Vacant(place) => {
                    place.insert(node);
                }
                std::collections::btree_map::Entry::Occupied(mut place) => Arc::make_mut(place.get_mut()).merge(&node),
            }
        }
        self.filtered += other.filtered;
        self
    }

    /// The nodes that `keep` keeps, and the edges between them.
    pub(super) fn filter(mut self, keep: impl Fn(&Drawn) -> bool) -> Self {
        let before = self.nodes.len();
        self.nodes.retain(|_, node| keep(node));
        let gone = before - self.nodes.len();
        if gone > 0 {
            self.filtered += gone as u64;
            self.cut_edges();
        }
        self
    }

    /// As [`Graph::filter`], but what stands for something outside stays.
    pub(super) fn filter_real(self, keep: impl Fn(&Drawn) -> bool) -> Self {
        self.filter(|node| node.passes() || keep(node))
    }

    /// Removes edges that lead to no node.
    fn cut_edges(&mut self) {
        let ids: BTreeSet<Text> = self.nodes.keys().cloned().collect();
        for node in self.nodes.values_mut() {
            if node.adjacency.iter().any(|id| !ids.contains(id)) {
                Arc::make_mut(node).adjacency.retain(|id| ids.contains(id));
            }
        }
    }

    /// Ids of nodes with an edge from or to another one.
    fn connected(&self) -> BTreeSet<Text> {
        let edges = self.nodes.values().flat_map(|node| node.adjacency.iter().map(move |target| (&node.id, target)));
        edges.filter(|(from, to)| from != to).flat_map(|(from, to)| [from.clone(), to.clone()]).collect()
    }

    /// Marks nodes with an edge from or to another one.
    pub(super) fn mark_connected(mut self) -> Self {
        for id in self.connected() {
            if let Some(node) = self.nodes.get_mut(&id) {
                Arc::make_mut(node).connected = true;
            }
        }
        self
    }

    /// Removes the edge between the two sides of the Internet, which is a mistake of those who track connections, and then what stands for
    /// something outside and is connected to nothing.
    pub(super) fn drop_unconnected_pseudo(mut self) -> Self {
        if let Some(inbound) = self.nodes.get_mut(INTERNET_IN)
            && inbound.adjacency.contains(INTERNET_OUT)
        {
            Arc::make_mut(inbound).adjacency.remove(INTERNET_OUT);
        }
        let connected = self.connected();
        let before = self.nodes.len();
        self.nodes.retain(|id, node| !node.is_pseudo() || connected.contains(id));
        self.filtered += (before - self.nodes.len()) as u64;
        self
    }

    /// Puts the nodes of the map in the place of the ends that it knows.
    pub(super) fn resolve(mut self, view: View, ours: &BTreeMap<Text, Vec<(View, NodeId)>>) -> Self {
        let ends: Vec<Arc<Drawn>> = self.nodes.values().filter(|node| node.is_ours).cloned().collect();
        if ends.is_empty() {
            return self;
        }
        let mut places: BTreeMap<Text, Vec<Text>> = BTreeMap::new();
        for end in &ends {
            self.nodes.remove(&end.id);
            let endpoint = end.id.strip_prefix(Graph::OURS).unwrap_or(&end.id);
            let nodes = ours.get(endpoint).into_iter().flatten().filter(|(of, _)| *of == view);
            places.insert(end.id.clone(), nodes.map(|(_, id)| id.0.clone()).collect());
        }
        let resolved = |adjacency: &BTreeSet<Text>| -> BTreeSet<Text> {
            let target = |id: &Text| places.get(id).cloned().unwrap_or_else(|| vec![id.clone()]);
            adjacency.iter().flat_map(target).collect()
        };
        for node in self.nodes.values_mut() {
            if node.adjacency.iter().any(|id| places.contains_key(id)) {
                let adjacency = resolved(&node.adjacency);
                Arc::make_mut(node).adjacency = adjacency;
            }
        }
        for end in ends {
            for id in places.get(&end.id).into_iter().flatten() {
                let mut node = Drawn::new(id.clone(), "ours".into());
                node.is_ours = true;
                node.adjacency = resolved(&end.adjacency);
                node.children = end.children.clone();
                match self.nodes.entry(id.clone()) {
                    std::collections::btree_map::Entry::Vacant(place) => {
                        place.insert(Arc::new(node));
                    }
                    std::collections::btree_map::Entry::Occupied(mut place) => Arc::make_mut(place.get_mut()).merge(&node),
                }
            }
        }
        self
    }

    /// What the ids of ends that the map knows begin with, which no other id does.
    pub(super) const OURS: &'static str = "\u{0}";
}

/// Nodes of one graph become nodes of another, and edges follow.
#[derive(Debug, Default)]
pub(super) struct Join {
    nodes: BTreeMap<Text, Arc<Drawn>>,
    mapped: BTreeMap<Text, Vec<Text>>,
}

impl Join {
    /// Starts with nodes that are there in any case. Edges that they have are of another graph.
    pub(super) fn starting(nodes: Graph) -> Self {
        let mut nodes = nodes.nodes;
        for node in nodes.values_mut().filter(|node| !node.adjacency.is_empty()) {
            Arc::make_mut(node).adjacency.clear();
        }
        Join { nodes, mapped: BTreeMap::new() }
    }

    fn map(&mut self, from: &Text, to: &Text) {
        let places = self.mapped.entry(from.clone()).or_default();
        if !places.contains(to) {
            places.push(to.clone());
        }
    }

    /// A node becomes this one.
    pub(super) fn becomes(&mut self, from: &Text, mut node: Drawn) {
        node.adjacency.clear();
        let id = node.id.clone();
        match self.nodes.entry(id.clone()) {
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(Arc::new(node));
            }
            std::collections::btree_map::Entry::Occupied(mut place) => {
                let own = Arc::make_mut(place.get_mut());
                // Versions of one image: their containers add up.
                let counters = node.counters.iter().map(|(key, count)| (key.clone(), own.counters.get(key).copied().unwrap_or(0) + count));
                let counters: BTreeMap<Text, u64> = counters.collect();
                own.merge(&node);
                own.counters.extend(counters);
            }
        }
        self.map(from, &id);
    }

    /// A node stays what it is.
    pub(super) fn pass(&mut self, node: &Arc<Drawn>) {
        self.becomes(&node.id, Drawn::clone(node));
    }

    /// A node is put under another, which is made if it is not there.
    pub(super) fn child(&mut self, child: &Arc<Drawn>, id: &Text, topology: &str, take: Take) {
        let parent = self.nodes.entry(id.clone()).or_insert_with(|| Arc::new(Drawn::new(id.clone(), topology.into())));
        let parent = Arc::make_mut(parent);
        parent.children.insert(child.id.clone(), child.clone());
        if !child.is(Kind::Endpoint) {
            *parent.counters.entry(child.topology.clone()).or_default() += 1;
        }
        if take == Take::WithChildren {
            for (id, grandchild) in &child.children {
                parent.children.entry(id.clone()).or_insert_with(|| grandchild.clone());
            }
        }
        if take != Take::WithoutEdges {
            self.map(&child.id, id);
        }
    }

    /// An end that the map knows goes on under its endpoint's id.
    pub(super) fn ours(&mut self, endpoint: &Arc<Drawn>) {
        let id: Text = format!("{}{}", Graph::OURS, endpoint.id).into();
        let mut node = Drawn::new(id, "ours".into());
        node.is_ours = true;
        node.children.insert(endpoint.id.clone(), endpoint.clone());
        self.becomes(&endpoint.id, node);
    }

    /// The new graph, with the edges of the old one.
    pub(super) fn result(mut self, input: &Graph) -> Graph {
        for node in input.nodes.values().filter(|node| !node.adjacency.is_empty()) {
            let Some(places) = self.mapped.get(&node.id) else { continue };
            let targets: BTreeSet<&Text> = node.adjacency.iter().filter_map(|target| self.mapped.get(target)).flatten().collect();
            if targets.is_empty() {
                continue;
            }
            for place in places {
                if let Some(out) = self.nodes.get_mut(place) {
                    Arc::make_mut(out).adjacency.extend(targets.iter().map(|&target| target.clone()));
                }
            }
        }
        Graph { nodes: self.nodes, filtered: 0 }
    }
}

/// How a node is put under another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Take {
    /// With its edges.
    Alone,
    /// With its edges and what is under it.
    WithChildren,
    /// Its edges stay behind.
    WithoutEdges,
}
