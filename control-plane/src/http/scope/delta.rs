//! What changed between two snapshots of a picture, shared by the clients that go from the one to the other.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use imbl::ordmap::DiffItem;
use topology::{NodeId, PublishedNode, ViewSnapshot};

/// A change of a picture: apply `remove`, then `update`, then `add`.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Delta {
    /// Nodes that came.
    pub(crate) add: Vec<PublishedNode>,
    /// Nodes of which something changed.
    pub(crate) update: Vec<PublishedNode>,
    /// Nodes that went.
    pub(crate) remove: Vec<NodeId>,
}

impl Delta {
    /// From one snapshot to another. Costs in proportion to what differs: subtrees that both share are skipped.
    pub(crate) fn between(from: &ViewSnapshot, to: &ViewSnapshot) -> Self {
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
}

/// The latest deltas. Clients of one picture mostly go from the same snapshot to the same snapshot at about the same time.
#[derive(Debug, Default)]
pub(crate) struct DeltaCache {
    entries: Mutex<VecDeque<Entry>>,
}

/// Snapshots are told apart by their place in memory, which the weak pointers keep from being used again.
#[derive(Debug)]
struct Entry {
    from: Weak<ViewSnapshot>,
    to: Weak<ViewSnapshot>,
    delta: Arc<OnceLock<Arc<Delta>>>,
}

impl DeltaCache {
    /// Deltas that are kept. Each holds pointers to nodes, not their text.
    const CAPACITY: usize = 64;

    /// The delta between two snapshots of one picture; computed once even when many ask at once.
    pub(crate) fn between(&self, from: &Arc<ViewSnapshot>, to: &Arc<ViewSnapshot>) -> Arc<Delta> {
        self.slot(from, to).get_or_init(|| Arc::new(Delta::between(from, to))).clone()
    }

    fn slot(&self, from: &Arc<ViewSnapshot>, to: &Arc<ViewSnapshot>) -> Arc<OnceLock<Arc<Delta>>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |entry: &&Entry| entry.from.as_ptr() == Arc::as_ptr(from) && entry.to.as_ptr() == Arc::as_ptr(to);
        if let Some(entry) = entries.iter().rev().find(known) {
            return entry.delta.clone();
        }
        if entries.len() == Self::CAPACITY {
            entries.pop_front();
        }
        let delta = Arc::default();
        entries.push_back(Entry { from: Arc::downgrade(from), to: Arc::downgrade(to), delta: Arc::clone(&delta) });
        delta
    }
}

#[cfg(test)]
mod tests;
