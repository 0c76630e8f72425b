//! What changed between two snapshots of a picture, and the part of a picture that answers a query.

use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use crate::node::{NodeId, PublishedNode};
use crate::search::{Query, SearchTooLong};
use crate::view::ViewSnapshot;

/// A clock is asked once for so many nodes: it costs as much as a short text.
const LOOKED_AT_ONCE: usize = 16;

fn check(place: usize, may_go_on: &dyn Fn() -> bool) -> Result<(), SearchTooLong> {
    if place.is_multiple_of(LOOKED_AT_ONCE) && !may_go_on() { Err(SearchTooLong) } else { Ok(()) }
}

/// A change of a picture: apply `remove`, then `update`, then `add`.
#[derive(Debug, Default, PartialEq)]
pub struct Delta {
    /// Nodes that came.
    pub add: Vec<PublishedNode>,
    /// Nodes of which something changed.
    pub update: Vec<PublishedNode>,
    /// Nodes that went.
    pub remove: Vec<NodeId>,
}

impl Delta {
    /// From one snapshot to another. Costs in proportion to what differs: subtrees that both share are skipped.
    pub fn between(from: &ViewSnapshot, to: &ViewSnapshot) -> Self {
        let mut delta = Delta::default();
        for item in from.nodes.diff(&to.nodes) {
            match item {
                DiffItem::Add(_, node) => delta.add.push(node.clone()),
                DiffItem::Update { old: (_, old), new: (_, new) } => {
                    if old.summary() != new.summary() {
                        delta.update.push(new.clone());
                    }
                }
                DiffItem::Remove(id, _) => delta.remove.push(id.clone()),
            }
        }
        delta
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.update.is_empty() && self.remove.is_empty()
    }
}

impl ViewSnapshot {
    /// The nodes that answer. Looks at every node: for where that may take its time, which `may_go_on` bounds.
    ///
    /// # Errors
    /// When it said no.
    pub fn answering(&self, words: &Query, may_go_on: &dyn Fn() -> bool) -> Result<Arc<ViewSnapshot>, SearchTooLong> {
        let mut nodes = OrdMap::new();
        for (place, (id, node)) in self.nodes.iter().enumerate() {
            check(place, may_go_on)?;
            if words.find(node.summary()).is_some() {
                nodes.insert(id.clone(), node.clone());
            }
        }
        Ok(self.with_nodes(nodes))
    }

    /// The nodes of this snapshot that answer, when `shown` were those of the one before and `change` leads from that one here. Looks at what
    /// changed.
    ///
    /// # Errors
    /// When `may_go_on` said no.
    pub fn answering_after(
        &self,
        words: &Query,
        shown: &ViewSnapshot,
        change: &Delta,
        may_go_on: &dyn Fn() -> bool,
    ) -> Result<Arc<ViewSnapshot>, SearchTooLong> {
        let mut nodes = shown.nodes.clone();
        for id in &change.remove {
            nodes.remove(id);
        }
        for (place, node) in change.update.iter().chain(&change.add).enumerate() {
            check(place, may_go_on)?;
            let summary = node.summary();
            if words.find(summary).is_some() {
                nodes.insert(summary.id.clone(), node.clone());
            } else {
                nodes.remove(&summary.id);
            }
        }
        Ok(self.with_nodes(nodes))
    }

    /// The numbers of the view stay those of all its nodes, as with Scope's own searches.
    fn with_nodes(&self, nodes: OrdMap<NodeId, PublishedNode>) -> Arc<ViewSnapshot> {
        let &ViewSnapshot { nodes: ref _all, stats, version, structure_version } = self;
        Arc::new(ViewSnapshot { nodes, stats, version, structure_version })
    }
}
