//! Changes of pictures, shared by the clients that go from the one snapshot to the other.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use topology::{Delta, ViewSnapshot};

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
