//! Containers that only the name of their cgroup tells of. Each that has a full id is given a moment first, in which a runtime may tell more;
//! then it becomes a record of its own, for as long as its cgroup or a process in it is seen. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use proto::probe::v1::{Container, ContainerState};

use crate::cgroups::names::Named;
use crate::clock::Now;
use crate::containers::{CONTAINERS_MAX, ContainerFacts, Source};
use crate::observation::BootNanos;

/// A runtime has this long to tell of a container whose cgroup was seen.
pub const CLAIMED_WITHIN: BootNanos = BootNanos(2_000_000_000);

/// Where removals of cgroups are not seen, a container without a process is gone after this long.
const EMPTY_KEPT: BootNanos = BootNanos(10_000_000_000);

/// What a runtime removed is not taken for a new container for this long, though a last process of it may still be seen.
const REMOVED_KEPT: BootNanos = BootNanos(60_000_000_000);

/// What became of a container that nobody claims.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It is told in the name of its cgroup.
    Tell(Box<ContainerFacts>),
    /// It left.
    Gone(Arc<str>),
}

#[derive(Debug)]
struct Waiting {
    name: String,
    runtime: &'static str,
    root: Arc<str>,
    cgroup_id: u64,
    since: Now,
    tell_at: BootNanos,
    /// State, and the first process, as they were told.
    told: Option<(ContainerState, u32)>,
    removed: bool,
    alive_at: BootNanos,
}

/// All containers that nobody claims.
#[derive(Debug, Default)]
pub struct Unclaimed {
    by_id: BTreeMap<Arc<str>, Waiting>,
    /// By when they were removed.
    removed: BTreeSet<(BootNanos, Arc<str>)>,
    removed_ids: HashMap<Arc<str>, BootNanos>,
    refused: u64,
}

impl Unclaimed {
    /// The cgroup of a container, or a process in it, was seen, and no runtime told of it. `cgroup_id` is 0 when it is not known. Returns
    /// whether it is news.
    pub fn note(&mut self, id: &Arc<str>, named: &Named<'_>, cgroup_id: u64, now: Now) -> bool {
        if let Some(known) = self.by_id.get_mut(id) {
            known.cgroup_id = if cgroup_id == 0 { known.cgroup_id } else { cgroup_id };
            // A name may come back: the container was started again.
            known.removed = known.removed && cgroup_id == 0;
            return false;
        }
        if self.removed_ids.contains_key(id) {
            return false;
        }
        if self.by_id.len() >= CONTAINERS_MAX {
            self.refused += 1;
            return false;
        }
        let patience = if named.id.is_some() { CLAIMED_WITHIN.0 } else { 0 };
        let waiting = Waiting {
            name: named.name.clone(),
            runtime: named.runtime,
            root: named.root.into(),
            cgroup_id,
            since: now,
            tell_at: BootNanos(now.boot.0.saturating_add(patience)),
            told: None,
            removed: false,
            alive_at: now.boot,
        };
        self.by_id.insert(id.clone(), waiting);
        true
    }

    /// A runtime tells of it.
    pub fn claim(&mut self, id: &str) {
        self.by_id.remove(id);
        if let Some((id, at)) = self.removed_ids.remove_entry(id) {
            self.removed.remove(&(at, id));
        }
    }

    /// A runtime removed it: what is still seen of it is no new container.
    pub fn removed_by_runtime(&mut self, id: &str, now: Now) {
        self.by_id.remove(id);
        let id: Arc<str> = id.into();
        if let Some(before) = self.removed_ids.insert(id.clone(), now.boot) {
            self.removed.remove(&(before, id.clone()));
        }
        self.removed.insert((now.boot, id));
        if self.removed.len() > CONTAINERS_MAX {
            self.drop_oldest_removed();
        }
    }

    /// Its cgroup was removed.
    pub fn cgroup_removed(&mut self, id: &str) {
        if let Some(waiting) = self.by_id.get_mut(id) {
            waiting.removed = true;
        }
    }

    /// Whether there is none: then nobody has to count processes.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Path of the cgroup of one of these.
    pub fn cgroup_path(&self, id: &str) -> Option<&Arc<str>> {
        self.by_id.get(id).map(|it| &it.root)
    }

    /// Whether it is one of these.
    pub fn contains(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }

    /// How many were refused because the table was full.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Decides what is to be told now. `first_processes` has the start and pid of each container's oldest living process, `sees_cgroup` whether a cgroup path is known
    /// to be there.
    pub fn settle(
        &mut self,
        now: Now,
        first_processes: &HashMap<Arc<str>, (BootNanos, u32)>,
        sees_cgroup: impl Fn(&str) -> bool,
    ) -> Vec<Verdict> {
        while self.removed.first().is_some_and(|(at, _)| at.0.saturating_add(REMOVED_KEPT.0) <= now.boot.0) {
            self.drop_oldest_removed();
        }
        let mut verdicts = Vec::new();
        let mut gone = Vec::new();
        for (id, waiting) in &mut self.by_id {
            let process = first_processes.get(id).map(|(_, pid)| *pid);
            if process.is_some() {
                waiting.alive_at = now.boot;
            }
            if waiting.tell_at > now.boot {
                continue;
            }
            let empty = process.is_none() && waiting.alive_at.0.saturating_add(EMPTY_KEPT.0) <= now.boot.0;
            let over = waiting.removed || (empty && !sees_cgroup(&waiting.root));
            let state =
                if process.is_some() || (waiting.told.is_none() && !over) { ContainerState::Running } else { ContainerState::Exited };
            let told = (state, process.unwrap_or(0));
            if waiting.told != Some(told) {
                waiting.told = Some(told);
                verdicts.push(Verdict::Tell(Box::new(waiting.facts(id, told, now))));
            }
            if over {
                gone.push(id.clone());
            }
        }
        for id in gone {
            self.by_id.remove(&id);
            verdicts.push(Verdict::Gone(id));
        }
        verdicts
    }

    fn drop_oldest_removed(&mut self) {
        if let Some((_, id)) = self.removed.pop_first() {
            self.removed_ids.remove(&id);
        }
    }
}

impl Waiting {
    fn facts(&self, id: &Arc<str>, (state, pid): (ContainerState, u32), now: Now) -> ContainerFacts {
        let record = Container {
            id: id.to_string(),
            name: self.name.clone(),
            state: state.into(),
            created_at_unix_nanos: self.since.unix_nanos,
            started_at_unix_nanos: self.since.unix_nanos,
            runtime: self.runtime.to_owned(),
            pid,
            cgroup_id: self.cgroup_id,
            ..Container::default()
        };
        let finished_at_unix_nanos = if state == ContainerState::Exited { now.unix_nanos } else { 0 };
        ContainerFacts { source: Source::Cgroup, record, finished_at_unix_nanos }
    }
}

#[cfg(test)]
mod tests;
