//! What becomes of the containers of runtimes that do not answer, or are not followed any more.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::Builder;
use crate::cgroups::Placement;
use crate::clock::Now;
use crate::containers::Source;
use crate::observation::BootNanos;

impl Builder {
    /// Takes in that a runtime does not answer any more.
    pub fn lose_runtime(&mut self, now: Now, source: Source) {
        self.containers.lose(source, now);
    }

    /// Takes in that a runtime is not followed any more. Those of its containers in which processes are seen are told by their cgroups from now on.
    pub fn unfollow_runtime(&mut self, now: Now, source: Source) {
        let ids: BTreeSet<String> = self.containers.unfollow(source).into_iter().collect();
        if ids.is_empty() {
            return;
        }
        let mut placements: HashMap<Arc<str>, Placement> = HashMap::new();
        for (_, process) in self.processes.living() {
            if let Some(id) = process.placement.container_id.as_ref().filter(|id| ids.contains(&***id)) {
                placements.entry(id.clone()).or_insert_with(|| process.placement.clone());
            }
        }
        placements.values().for_each(|placement| self.note_container(now.boot, placement));
    }

    /// A whole walk of `/proc` tells which containers of lost runtimes are over. `is_there`: which pids it saw.
    pub(super) fn end_lost_containers(&mut self, now: Now, walked_at: BootNanos, is_there: impl Fn(u32) -> bool) {
        let in_use: BTreeSet<Arc<str>> = match self.containers.has_lost() {
            true => self.processes.living().filter_map(|(_, process)| process.placement.container_id.clone()).collect(),
            false => BTreeSet::new(),
        };
        self.containers.walked(now, walked_at, is_there, |id| in_use.contains(id));
    }
}
