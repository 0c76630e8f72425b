//! Containers of runtimes that do not answer any more, or are not followed any more.

use super::{ContainerTable, Source, is_over};
use crate::clock::Now;
use crate::observation::BootNanos;

/// What a runtime that does not come back told of containers that are over, or of which nothing is seen, is forgotten after this long.
const LOST_KEPT: BootNanos = BootNanos(600_000_000_000);

impl ContainerTable {
    /// A runtime does not answer any more. What it told stays, and ends with the container's cgroup or its first process.
    pub fn lose(&mut self, source: Source, now: Now) {
        self.lost.entry(source).or_insert(now.boot);
    }

    /// Whether a runtime does not answer now.
    pub fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// A runtime is not followed any more: what it told is forgotten. Returns the ids of its containers.
    pub fn unfollow(&mut self, source: Source) -> Vec<String> {
        self.lost.remove(&source);
        self.visible.remove(&source);
        let ids: Vec<String> = self.by_id.iter().filter(|(_, entry)| entry.facts.source == source).map(|(id, _)| id.clone()).collect();
        ids.iter().for_each(|id| self.forget(id));
        ids
    }

    /// The cgroup of a container was removed: what a lost runtime told of it is over.
    pub fn cgroup_removed(&mut self, id: &str, now: Now) {
        if self.by_id.get(id).is_some_and(|entry| self.lost.contains_key(&entry.facts.source)) {
            self.end(id, now);
        }
    }

    /// All of `/proc` was walked, from `walked_at` on. Of lost runtimes, containers without a process are over. `is_there` says which pids were seen, `has_process`
    /// whether one is known to be in a container.
    pub fn walked(&mut self, now: Now, walked_at: BootNanos, is_there: impl Fn(u32) -> bool, has_process: impl Fn(&str) -> bool) {
        // Where the first process of none is seen, it is another pid namespace that is walked, and a pid that is not in it says nothing.
        for entry in self.by_id.values() {
            let pid = entry.facts.record.pid;
            if pid != 0 && !self.visible.contains(&entry.facts.source) && is_there(pid) {
                self.visible.insert(entry.facts.source);
            }
        }
        let (mut over, mut forgotten) = (Vec::new(), Vec::new());
        for (id, entry) in &self.by_id {
            let Some(&lost) = self.lost.get(&entry.facts.source) else { continue };
            let record = &entry.facts.record;
            let ended = is_over(record.state());
            if entry.first_seen > walked_at {
                continue;
            }
            if !ended && ((record.pid != 0 && is_there(record.pid)) || has_process(id)) {
                continue;
            }
            if !ended && record.pid != 0 && self.visible.contains(&entry.facts.source) {
                over.push(id.clone());
            } else if lost.max(entry.ended).0.saturating_add(LOST_KEPT.0) <= now.boot.0 {
                forgotten.push(id.clone());
            }
        }
        over.iter().for_each(|id| self.end(id, now));
        forgotten.iter().for_each(|id| self.forget(id));
    }
}
