//! The map's pictures and what old probes reported, put together.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use imbl::OrdMap;
use scope_report::{Item, Outline, Overlay};
use topology::{NodeId, NodeSummary, PublishedNode, ViewSnapshot, ViewStats};

use crate::http::scope::merging;

/// The map's picture with the nodes of old probes in it, and of all that what is in some namespaces. `whole` has nodes that `base` hides only
/// because nothing on the map connects them.
pub(in crate::http::scope) fn composed(
    base: &ViewSnapshot,
    whole: &ViewSnapshot,
    overlay: &Overlay,
    namespaces: Option<&BTreeSet<Arc<str>>>,
) -> ViewSnapshot {
    let mut picture = base.clone();
    if let Some(wanted) = namespaces {
        keep_namespaces(&mut picture, wanted);
    }
    let mut hasher = DefaultHasher::new();
    let (placed, unconnected) = place(&picture, whole, overlay.outlines());
    for (id, place) in placed {
        let Some(item) = overlay.items.get(&id) else { continue };
        (&id, &place.adjacency).hash(&mut hasher);
        let node = made(item, place);
        count(&mut picture.stats, node.summary(), true);
        if let Some(old) = picture.nodes.insert(id, node) {
            count(&mut picture.stats, old.summary(), false);
        }
    }
    picture.stats.filtered_nodes += overlay.stats.filtered_nodes + unconnected;
    picture.structure_version = hasher.finish() ^ base.structure_version;
    picture
}

/// The numbers of the picture that [`composed`] makes, without making it. `filtered` nodes of old probes are left out already.
pub(super) fn composed_stats(base: &ViewSnapshot, whole: &ViewSnapshot, outlines: Vec<Outline>, filtered: u64) -> ViewStats {
    let (placed, unconnected) = place(base, whole, outlines);
    let mut stats = base.stats;
    for (id, place) in placed {
        count_one(&mut stats, place.is_pseudo, place.adjacency.len(), true);
        if let Some(old) = base.nodes.get(&id) {
            count(&mut stats, old.summary(), false);
        }
    }
    stats.filtered_nodes += filtered + unconnected;
    stats
}

/// What becomes of a node of old probes in a picture.
struct Place {
    /// The node of the map that it is, too.
    known: Option<PublishedNode>,
    adjacency: Vec<NodeId>,
    is_pseudo: bool,
}

/// The places of nodes of old probes in a picture, and how many of them have none because what stands for the outside is connected to nothing.
fn place(picture: &ViewSnapshot, whole: &ViewSnapshot, outlines: Vec<Outline>) -> (BTreeMap<NodeId, Place>, u64) {
    let shown: &OrdMap<NodeId, PublishedNode> = &picture.nodes;
    let targets: BTreeSet<NodeId> = outlines.iter().flat_map(|outline| outline.adjacency.iter().cloned()).collect();
    let mut placed = BTreeMap::new();
    for Outline { id, adjacency, is_ours, is_pseudo } in outlines {
        let known = shown.get(&id).or_else(|| {
            let is_connected = targets.contains(&id) || !adjacency.is_empty();
            whole.nodes.get(&id).filter(|_| is_ours && is_connected)
        });
        let place = match known.cloned() {
            Some(known) => {
                let (adjacency, is_pseudo) = (merging::adjacency(&known.summary().adjacency, &adjacency), known.summary().pseudo);
                Place { known: Some(known), adjacency, is_pseudo }
            }
            // Hidden by a filter of the map's.
            None if is_ours => continue,
            None => Place { known: None, adjacency, is_pseudo },
        };
        placed.insert(id, place);
    }
    let there: BTreeSet<NodeId> = placed.keys().cloned().collect();
    for place in placed.values_mut() {
        place.adjacency.retain(|target| there.contains(target) || shown.contains_key(target));
    }
    // What stands for the outside, and is connected to nothing any more.
    let edges = |(id, place): (&NodeId, &Place)| {
        let others: Vec<NodeId> = place.adjacency.iter().filter(|target| *target != id).cloned().collect();
        let own = (!others.is_empty()).then(|| id.clone());
        own.into_iter().chain(others)
    };
    let connected: BTreeSet<NodeId> = placed.iter().flat_map(edges).collect();
    let before = placed.len();
    placed.retain(|id, place| !place.is_pseudo || shown.contains_key(id) || connected.contains(id));
    let unconnected = (before - placed.len()) as u64;
    (placed, unconnected)
}

/// The node at a place. What is the same as on the map, or as in other pictures of what old probes reported, is shared with these.
fn made(item: &Item, place: Place) -> PublishedNode {
    let Place { known, adjacency, .. } = place;
    let theirs = item.summary();
    let Some(known) = known else {
        let is_same = theirs.adjacency == adjacency;
        return if is_same { item.node.clone() } else { PublishedNode::new(NodeSummary { adjacency, ..theirs.clone() }) };
    };
    if item.is_ours && item.uncounted == 0 && known.summary().adjacency == adjacency {
        return known;
    }
    PublishedNode::new(NodeSummary { adjacency, ..merging::summary(known.summary(), theirs, item.uncounted) })
}

fn count(stats: &mut ViewStats, summary: &NodeSummary, comes: bool) {
    count_one(stats, summary.pseudo, summary.adjacency.len(), comes);
}

fn count_one(stats: &mut ViewStats, is_pseudo: bool, edges: usize, comes: bool) {
    let change = |count: &mut u64, by: u64| *count = if comes { count.saturating_add(by) } else { count.saturating_sub(by) };
    change(&mut stats.node_count, 1);
    change(&mut stats.nonpseudo_node_count, u64::from(!is_pseudo));
    change(&mut stats.edge_count, edges as u64);
}

/// Leaves nodes of some namespaces, the edges between them, and what of the outside is connected to them.
fn keep_namespaces(picture: &mut ViewSnapshot, wanted: &BTreeSet<Arc<str>>) {
    keep(picture, |summary| summary.pseudo || wanted.contains(namespace(summary)));
}

/// Leaves some nodes, the edges between them, and what of the outside is connected to them.
pub(in crate::http::scope) fn keep(picture: &mut ViewSnapshot, keeps: impl Fn(&NodeSummary) -> bool) {
    let kept: BTreeSet<NodeId> = picture.nodes.iter().filter(|(_, node)| keeps(node.summary())).map(|(id, _)| id.clone()).collect();
    let edges = |node: &PublishedNode| node.summary().adjacency.iter().filter(|target| kept.contains(*target)).cloned().collect::<Vec<_>>();
    let mut connected = BTreeSet::new();
    for id in &kept {
        let targets = picture.nodes.get(id).map(edges).unwrap_or_default();
        for target in targets.into_iter().filter(|target| target != id) {
            connected.insert(id.clone());
            connected.insert(target);
        }
    }
    let old = std::mem::take(&mut picture.nodes);
    let (before, mut stats) = (old.len() as u64, ViewStats { filtered_nodes: picture.stats.filtered_nodes, ..ViewStats::default() });
    for (id, node) in &old {
        let summary = node.summary();
        if !kept.contains(id) || (summary.pseudo && !connected.contains(id)) {
            continue;
        }
        let adjacency = edges(node);
        let node = if adjacency.len() == summary.adjacency.len() {
            node.clone()
        } else {
            PublishedNode::new(NodeSummary { adjacency, ..summary.clone() })
        };
        count(&mut stats, node.summary(), true);
        picture.nodes.insert(id.clone(), node);
    }
    stats.filtered_nodes += before.saturating_sub(stats.node_count);
    picture.stats = stats;
}

/// The namespace that a node is in; empty for none.
fn namespace(summary: &NodeSummary) -> &str {
    let row = summary.metadata.iter().find(|row| row.id == "kubernetes_namespace");
    let labels = || summary.tables.iter().filter(|table| table.id == "docker_label_").flat_map(|table| &table.rows);
    let label = |key: &'static str| labels().find(|(label, _)| &**label == key).map(|(_, value)| &**value);
    let found = row.map(|row| &*row.value).or_else(|| label("io.kubernetes.pod.namespace"));
    found.or_else(|| label("com.docker.stack.namespace")).unwrap_or("No stack")
}

#[cfg(test)]
mod tests;
