//! cgroups: from an id to a path, and from a path to the container that owns it. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::observation::BootNanos;

pub mod names;

use names::{Named, derived_id, named, named_below};

/// How long a removed cgroup is remembered: observations of other rings may still name it.
pub const REMOVED_KEPT: BootNanos = BootNanos(60_000_000_000);

/// Largest number of cgroups that are kept. A node with 500 containers and systemd has about 2,000.
pub const CGROUPS_MAX: usize = 16_384;

/// Where a process is placed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// cgroup v2 id; 0 when unknown.
    pub cgroup_id: u64,
    /// Path below the hierarchy's root; empty when unknown.
    pub path: Arc<str>,
    /// Full id of the container that owns it.
    pub container_id: Option<Arc<str>>,
}

/// All cgroups of the v2 hierarchy that were seen.
#[derive(Debug, Default)]
pub struct Cgroups {
    host: Arc<str>,
    /// The cgroup in which the agent of this process has its containers; empty for the usual one.
    agents_root: Arc<str>,
    by_id: HashMap<u64, Known>,
    ids_by_path: HashMap<Arc<str>, u64>,
    /// A container's own cgroup, the one that is named after it.
    own: HashMap<Arc<str>, u64>,
    removed: BTreeMap<(BootNanos, u64), ()>,
    refused: u64,
}

#[derive(Debug)]
struct Known {
    path: Arc<str>,
    container_id: Option<Arc<str>>,
}

impl Cgroups {
    /// Whose cgroups these are: ids of containers that have none of their own are made of it and of their path.
    pub fn set_host(&mut self, host: &str) {
        self.host = host.into();
    }

    /// Where the Mesos agent of this process has its containers, such as "node/tasks".
    pub fn set_agents_root(&mut self, root: &str) {
        self.agents_root = root.into();
    }

    /// The container that a path names; of several, the innermost.
    pub fn named<'a>(&self, path: &'a str) -> Option<Named<'a>> {
        if self.agents_root.is_empty() { named(path) } else { named_below(path, &self.agents_root) }
    }

    /// Full id of a container that a path names; for one without an id of its own a derived one.
    pub fn container_id(&self, container: &Named<'_>) -> Arc<str> {
        container.id.map_or_else(|| derived_id(&self.host, container.root).into(), Arc::from)
    }

    /// The cgroup that is a container's own, if it was seen; 0 otherwise.
    pub fn own_cgroup(&self, container_id: &str) -> u64 {
        self.own.get(container_id).copied().unwrap_or(0)
    }

    /// The container whose own cgroup this is.
    pub fn owner(&self, id: u64) -> Option<Arc<str>> {
        let container_id = self.by_id.get(&id)?.container_id.clone()?;
        (self.own.get(&container_id) == Some(&id)).then_some(container_id)
    }

    /// Whether a cgroup with this path was seen and not forgotten.
    pub fn knows_path(&self, path: &str) -> bool {
        self.ids_by_path.contains_key(path)
    }

    /// A cgroup was made or found.
    pub fn created(&mut self, id: u64, path: &str) {
        if id == 0 || path.is_empty() {
            return;
        }
        if self.by_id.len() >= CGROUPS_MAX && !self.by_id.contains_key(&id) {
            self.refused += 1;
            return;
        }
        let path: Arc<str> = path.into();
        let named = self.named(&path);
        let container_id = named.as_ref().map(|it| self.container_id(it));
        if let Some(container_id) = container_id.clone().filter(|_| named.is_some_and(|it| it.root == &*path)) {
            self.own.insert(container_id, id);
        }
        if let Some(old) = self.by_id.insert(id, Known { path: path.clone(), container_id }) {
            // An id used again: its removal, if one is noted, was of the cgroup before.
            self.ids_by_path.remove(&old.path);
            self.removed.retain(|(_, removed), ()| *removed != id);
        }
        self.ids_by_path.insert(path, id);
    }

    /// A cgroup was removed. What is known of it stays for a while.
    pub fn removed(&mut self, at: BootNanos, id: u64) {
        if self.by_id.contains_key(&id) {
            self.removed.insert((at, id), ());
        }
    }

    /// Forgets what was removed long ago.
    pub fn retire(&mut self, now: BootNanos) {
        while let Some((&(at, id), ())) = self.removed.first_key_value()
            && at.0.saturating_add(REMOVED_KEPT.0) <= now.0
        {
            self.removed.pop_first();
            let Some(known) = self.by_id.remove(&id) else { continue };
            if self.ids_by_path.get(&known.path) == Some(&id) {
                self.ids_by_path.remove(&known.path);
            }
            if let Some(container_id) = known.container_id
                && self.own.get(&container_id) == Some(&id)
            {
                self.own.remove(&container_id);
            }
        }
    }

    /// What is known of a cgroup by its id.
    pub fn placement(&self, id: u64) -> Option<Placement> {
        let known = self.by_id.get(&id)?;
        Some(Placement { cgroup_id: id, path: known.path.clone(), container_id: known.container_id.clone() })
    }

    /// What a path of `/proc/<pid>/cgroup` says, with the id if that cgroup was seen.
    pub fn placement_of_path(&self, path: &Arc<str>) -> Placement {
        match self.ids_by_path.get(path) {
            Some(&id) => self.placement(id).unwrap_or_default(),
            None => Placement { cgroup_id: 0, path: path.clone(), container_id: self.container_of(path) },
        }
    }

    /// How many cgroups are known.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// How many were refused because the table was full.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    fn container_of(&self, path: &str) -> Option<Arc<str>> {
        self.named(path).map(|it| self.container_id(&it))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "2299a2ca59dfd821f367e689d5869c4e568272c2305701761888e1d79d7a6f51";

    #[test]
    fn a_removed_cgroup_is_known_for_a_minute() {
        let mut cgroups = Cgroups::default();
        cgroups.created(7, &format!("/docker/{ID}"));
        cgroups.removed(BootNanos(5_000_000_000), 7);
        cgroups.retire(BootNanos(64_999_999_999));
        assert_eq!(cgroups.placement(7).and_then(|it| it.container_id).as_deref(), Some(ID));
        cgroups.retire(BootNanos(65_000_000_000));
        assert_eq!(cgroups.placement(7), None);
        assert_eq!(cgroups.placement_of_path(&format!("/docker/{ID}").into()).cgroup_id, 0);
    }

    #[test]
    fn an_id_used_again_outlives_the_removal_of_the_cgroup_before() {
        let mut cgroups = Cgroups::default();
        cgroups.created(7, "/a");
        cgroups.removed(BootNanos(0), 7);
        cgroups.created(7, "/b");
        cgroups.retire(BootNanos(u64::MAX));
        assert_eq!(cgroups.placement(7).map(|it| it.path.to_string()), Some("/b".to_owned()));
        assert_eq!(cgroups.placement_of_path(&"/a".into()).cgroup_id, 0);
    }

    #[test]
    fn tasks_are_found_wherever_the_agent_has_them() {
        const UUID: &str = "5a61dbc8-3b5c-4bd3-a8e2-6c8f2a1f0b33";
        let mut cgroups = Cgroups::default();
        let path: Arc<str> = format!("/node/tasks/{UUID}").into();
        assert_eq!(cgroups.placement_of_path(&path).container_id, None);
        cgroups.set_agents_root("node/tasks");
        let id = cgroups.placement_of_path(&path).container_id.expect("it is a task");
        cgroups.created(7, &path);
        assert_eq!((cgroups.owner(7).as_ref(), cgroups.own_cgroup(&id)), (Some(&id), 7));
        let named = |path: &str| cgroups.named(path).map(|it| it.name);
        assert_eq!(named(&format!("{path}/node/tasks/{UUID}/x")).as_deref(), Some(UUID), "a nested one");
        assert_eq!(named(&format!("/mesos/{UUID}")).as_deref(), Some(UUID), "another agent's");
        assert_eq!(named(&format!("/other-node/tasks/{UUID}")), None);
        assert_eq!(named("/node/tasks/keepers"), None);
    }

    #[test]
    fn a_full_table_refuses_and_counts() {
        let mut cgroups = Cgroups::default();
        for id in 1..=CGROUPS_MAX as u64 + 3 {
            cgroups.created(id, &format!("/{id}"));
        }
        assert_eq!((cgroups.len(), cgroups.refused()), (CGROUPS_MAX, 3));
    }
}
