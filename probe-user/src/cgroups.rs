//! cgroups: from an id to a path, and from a path to the container that owns it. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::observation::BootNanos;

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
    by_id: HashMap<u64, Known>,
    ids_by_path: HashMap<Arc<str>, u64>,
    removed: BTreeMap<(BootNanos, u64), ()>,
    refused: u64,
}

#[derive(Debug)]
struct Known {
    path: Arc<str>,
    container_id: Option<Arc<str>>,
}

impl Cgroups {
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
        let container_id = container_of(&path).map(Arc::from);
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
            if let Some(known) = self.by_id.remove(&id)
                && self.ids_by_path.get(&known.path) == Some(&id)
            {
                self.ids_by_path.remove(&known.path);
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
            None => Placement { cgroup_id: 0, path: path.clone(), container_id: container_of(path).map(Arc::from) },
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
}

/// Full container id that a cgroup path names; of several, the nearest ancestor's.
///
/// Knows the paths of Docker (`/docker/<id>`, `docker-<id>.scope`), containerd (`cri-containerd-<id>.scope`, `<name>:cri-containerd:<id>`),
/// CRI-O (`crio-<id>.scope`), Podman (`libpod-<id>.scope`) and the kubelet's cgroupfs driver (`/kubepods/…/pod<uid>/<id>`).
pub fn container_of(path: &str) -> Option<&str> {
    path.rsplit('/').find_map(container_of_segment)
}

fn container_of_segment(segment: &str) -> Option<&str> {
    let segment = segment.strip_suffix(".scope").unwrap_or(segment);
    // CRI-O and Podman have a monitor of their own in a cgroup named after the container: it is not inside the container.
    if segment.starts_with("crio-conmon-") || segment.starts_with("libpod-conmon-") {
        return None;
    }
    let id = ["docker-", "cri-containerd-", "crio-", "libpod-", "nerdctl-"].iter().find_map(|prefix| segment.strip_prefix(prefix));
    let id = id.or_else(|| segment.rsplit_once(":cri-containerd:").map(|(_, id)| id)).unwrap_or(segment);
    is_container_id(id).then_some(id)
}

fn is_container_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "2299a2ca59dfd821f367e689d5869c4e568272c2305701761888e1d79d7a6f51";
    const OTHER: &str = "00000000000000000000000000000000000000000000000000000000000000aa";

    #[test]
    fn every_runtime_has_its_own_path_and_all_are_read() {
        let paths = [
            format!("/docker/{ID}"),
            format!("/system.slice/docker-{ID}.scope"),
            format!("/kubepods/besteffort/pod5a61dbc8-3b5c-4bd3-a8e2-6c8f2a1f0b33/{ID}"),
            format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod5a61dbc8_3b5c.slice/cri-containerd-{ID}.scope"),
            format!("/kubepods.slice/kubepods-pod5a61dbc8_3b5c.slice/crio-{ID}.scope"),
            format!("/machine.slice/libpod-{ID}.scope"),
            format!("/machine.slice/libpod-{ID}.scope/container"),
            format!("/system.slice/containerd.service/kubepods-pod5a61.slice:cri-containerd:{ID}"),
            format!("/user.slice/user-1000.slice/user@1000.service/user.slice/nerdctl-{ID}.scope"),
            format!("/docker/{ID}/init.scope"),
        ];
        for path in paths {
            assert_eq!(container_of(&path), Some(ID), "{path}");
        }
    }

    #[test]
    fn a_container_inside_a_container_is_the_inner_one() {
        assert_eq!(container_of(&format!("/docker/{OTHER}/docker/{ID}")), Some(ID));
        assert_eq!(container_of(&format!("/docker/{OTHER}/kubepods/pod1/{ID}/system.slice")), Some(ID));
    }

    #[test]
    fn what_is_no_container_is_none() {
        for path in ["", "/", "/system.slice/ssh.service", "/kubepods.slice", "/docker", "/docker/abc"] {
            assert_eq!(container_of(path), None, "{path}");
        }
        assert_eq!(container_of(&format!("/machine.slice/libpod-conmon-{ID}.scope")), None);
        assert_eq!(container_of(&format!("/docker/{}", ID.to_uppercase())), None);
    }

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
    fn a_full_table_refuses_and_counts() {
        let mut cgroups = Cgroups::default();
        for id in 1..=CGROUPS_MAX as u64 + 3 {
            cgroups.created(id, &format!("/{id}"));
        }
        assert_eq!((cgroups.len(), cgroups.refused()), (CGROUPS_MAX, 3));
    }
}
