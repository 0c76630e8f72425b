//! The container table: what the runtimes of this node say of their containers and images, and what the names of cgroups say where no runtime
//! does. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use proto::probe::v1::{Container, ContainerState, Image};

use crate::clock::Now;
use crate::observation::BootNanos;
use people::state_for_people;

mod lost;
mod people;
pub mod reading;
pub mod unclaimed;
pub mod words;

/// Largest number of containers, stopped ones included.
pub const CONTAINERS_MAX: usize = 4_096;

/// A container that comes and goes faster than this stays as an exited one until it is this old: it would be told and taken back, or not told at
/// all, before anybody could see it.
pub const SHORT_LIVED_KEPT: BootNanos = BootNanos(15_000_000_000);

/// Who tells of a container. Of several that tell of the same, the last in this order is believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The name of its cgroup, while no runtime does.
    #[default]
    Cgroup,
    /// A CRI runtime; the number tells its sockets apart, see [`Source::of_cri_socket`].
    Cri(u64),
    /// Docker.
    Docker,
}

impl Source {
    /// The CRI runtime behind a socket: the same as long as the socket is, whichever others are followed beside it.
    pub fn of_cri_socket(socket: &Path) -> Self {
        // FNV-1a: a node has a handful of sockets.
        let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        Source::Cri(socket.as_os_str().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, hash))
    }
}

/// What a runtime says of one container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerFacts {
    /// Who says so.
    pub source: Source,
    /// The record as it is told; `state_human` and `cgroup_id` are filled in by the table.
    pub record: Container,
    /// When it last ended, Unix nanoseconds; 0 when it never did.
    pub finished_at_unix_nanos: u64,
}

#[derive(Debug)]
struct Entry {
    facts: ContainerFacts,
    first_seen: BootNanos,
    /// When somebody else than its runtime saw its end; 0 when nobody did.
    ended: BootNanos,
}

/// All containers, and the images that they use.
#[derive(Debug, Default)]
pub struct ContainerTable {
    by_id: BTreeMap<String, Entry>,
    images: BTreeMap<String, Image>,
    /// How many containers use an image.
    image_users: HashMap<String, usize>,
    changed: BTreeSet<String>,
    gone: BTreeSet<String>,
    images_changed: BTreeSet<String>,
    images_gone: BTreeSet<String>,
    /// Short-lived ones that were removed already, by when they leave.
    leaving: BTreeSet<(BootNanos, String)>,
    /// Runtimes that do not answer now, by when they were lost.
    lost: BTreeMap<Source, BootNanos>,
    /// Runtimes whose containers' processes are in the `/proc` that is walked.
    visible: BTreeSet<Source>,
    refused: u64,
}

/// Changes since they were last taken.
#[derive(Debug, Default)]
pub struct ContainerChanges {
    /// New and changed containers.
    pub containers: Vec<Container>,
    /// Ids of removed containers.
    pub containers_gone: Vec<String>,
    /// New and changed images.
    pub images: Vec<Image>,
    /// Ids of images that no container uses any more.
    pub images_gone: Vec<String>,
}

impl ContainerTable {
    /// A container is new or has changed. Returns whether the table has it as it was told: a better source may know it, or there is no room.
    pub fn put(&mut self, mut facts: ContainerFacts, now: Now) -> bool {
        let id = facts.record.id.clone();
        if self.by_id.len() >= CONTAINERS_MAX && !self.by_id.contains_key(&id) {
            self.refused += 1;
            if !self.make_room(&facts) {
                return false;
            }
        }
        let first_seen = match self.by_id.get(&id) {
            Some(known) if known.facts.source > facts.source => return false,
            Some(known) => {
                if facts.record.cgroup_id == 0 {
                    facts.record.cgroup_id = known.facts.record.cgroup_id;
                }
                known.first_seen
            }
            None => now.boot,
        };
        facts.record.state_human = state_for_people(&facts, now.unix_nanos);
        self.leaving.retain(|(_, leaving)| *leaving != id);
        if self.by_id.get(&id).is_some_and(|known| known.facts == facts) {
            return true;
        }
        *self.image_users.entry(facts.record.image_id.clone()).or_default() += 1;
        let before = self.by_id.insert(id.clone(), Entry { facts, first_seen, ended: BootNanos(0) });
        self.gone.remove(&id);
        self.changed.insert(id);
        if let Some(before) = before {
            self.release_image(&before.facts.record.image_id);
        }
        true
    }

    /// Its runtime tells little of a container now. What the same runtime told before, and does not contradict, stays. Returns as [`Self::put`].
    pub fn outline(&mut self, outline: ContainerFacts, now: Now) -> bool {
        let Some(known) = self.by_id.get(&outline.record.id).map(|entry| &entry.facts).filter(|it| it.source == outline.source) else {
            return self.put(outline, now);
        };
        let mut facts = known.clone();
        let (record, told) = (&mut facts.record, outline.record);
        if is_over(told.state()) {
            record.pid = 0;
            record.exit_code = told.exit_code;
            if !is_over(record.state()) {
                facts.finished_at_unix_nanos = now.unix_nanos;
            }
        }
        facts.finished_at_unix_nanos = facts.finished_at_unix_nanos.max(outline.finished_at_unix_nanos);
        record.started_at_unix_nanos = record.started_at_unix_nanos.max(told.started_at_unix_nanos);
        record.set_state(told.state());
        record.name = told.name;
        record.labels = told.labels;
        record.networks = told.networks;
        record.addresses = told.addresses;
        if told.cgroup_id != 0 {
            record.cgroup_id = told.cgroup_id;
        }
        self.put(facts, now)
    }

    /// The cgroup of a container.
    pub fn set_cgroup(&mut self, id: &str, cgroup_id: u64) {
        if let Some(entry) = self.by_id.get_mut(id)
            && entry.facts.record.cgroup_id != cgroup_id
        {
            entry.facts.record.cgroup_id = cgroup_id;
            self.changed.insert(id.to_owned());
        }
    }

    /// A container was removed, says `source`. Returns whether it was there by that source.
    pub fn remove(&mut self, source: Source, id: &str, now: Now) -> bool {
        let Some(entry) = self.by_id.get_mut(id).filter(|entry| entry.facts.source == source) else { return false };
        let leaves = BootNanos(entry.first_seen.0.saturating_add(SHORT_LIVED_KEPT.0));
        if leaves > now.boot {
            self.leaving.insert((leaves, id.to_owned()));
            self.end(id, now);
        } else {
            self.forget(id);
        }
        true
    }

    /// A runtime told all that it has: what it did not name is gone, and is returned.
    pub fn keep_only(&mut self, source: Source, ids: &BTreeSet<String>, now: Now) -> Vec<String> {
        self.lost.remove(&source);
        let left = |(id, entry): (&String, &Entry)| (entry.facts.source == source && !ids.contains(id)).then(|| id.clone());
        let gone: Vec<String> = self.by_id.iter().filter_map(left).collect();
        for id in &gone {
            self.remove(source, id, now);
        }
        gone
    }

    /// Drops what left a while ago.
    pub fn retire(&mut self, now: Now) {
        while self.leaving.first().is_some_and(|(at, _)| *at <= now.boot) {
            if let Some((_, id)) = self.leaving.pop_first() {
                self.forget(&id);
            }
        }
    }

    /// An image that a container uses.
    pub fn put_image(&mut self, image: Image) {
        if self.image_users.contains_key(&image.id) && self.images.get(&image.id) != Some(&image) {
            self.images_gone.remove(&image.id);
            self.images_changed.insert(image.id.clone());
            self.images.insert(image.id.clone(), image);
        }
    }

    /// Writes the states for people anew: "Up 2 minutes" becomes "Up 3 minutes" without an event.
    pub fn refresh(&mut self, now_unix_nanos: u64) {
        for (id, Entry { facts, .. }) in &mut self.by_id {
            let state_human = state_for_people(facts, now_unix_nanos);
            if facts.record.state_human != state_human {
                facts.record.state_human = state_human;
                self.changed.insert(id.clone());
            }
        }
    }

    /// Who told of a container that is not on its way out.
    pub fn source_of(&self, id: &str) -> Option<Source> {
        self.by_id.get(id).map(|entry| entry.facts.source)
    }

    /// Containers in the order of their ids, after `id`.
    pub fn after(&self, id: Option<&str>) -> impl Iterator<Item = &Container> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.by_id.range::<str, _>((id.map_or(Unbounded, Excluded), Unbounded)).map(|(_, entry)| &entry.facts.record)
    }

    /// Images in the order of their ids, after `id`.
    pub fn images_after(&self, id: Option<&str>) -> impl Iterator<Item = &Image> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.images.range::<str, _>((id.map_or(Unbounded, Excluded), Unbounded)).map(|(_, image)| image)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// How many were refused, or gave way to others, because the table was full.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Whether there is something to tell.
    pub fn has_changes(&self) -> bool {
        !(self.changed.is_empty() && self.gone.is_empty() && self.images_changed.is_empty() && self.images_gone.is_empty())
    }

    /// How many removals wait to be told.
    pub fn gone_len(&self) -> usize {
        self.gone.len() + self.images_gone.len()
    }

    /// What changed since the last call.
    pub fn take_changes(&mut self) -> ContainerChanges {
        let changed = std::mem::take(&mut self.changed);
        let images_changed = std::mem::take(&mut self.images_changed);
        ContainerChanges {
            containers: changed.iter().filter_map(|id| self.by_id.get(id)).map(|entry| entry.facts.record.clone()).collect(),
            containers_gone: std::mem::take(&mut self.gone).into_iter().collect(),
            images: images_changed.iter().filter_map(|id| self.images.get(id)).cloned().collect(),
            images_gone: std::mem::take(&mut self.images_gone).into_iter().collect(),
        }
    }

    /// It does not run any more, as far as anybody can tell.
    fn end(&mut self, id: &str, now: Now) {
        let Some(Entry { facts, ended, .. }) = self.by_id.get_mut(id) else { return };
        *ended = now.boot;
        let record = &mut facts.record;
        record.pid = 0;
        if !is_over(record.state()) {
            record.set_state(ContainerState::Exited);
            facts.finished_at_unix_nanos = now.unix_nanos;
        }
        facts.record.state_human = state_for_people(facts, now.unix_nanos);
        self.changed.insert(id.to_owned());
    }

    /// Makes room in a full table by the container that ended first. Returns whether there is room now: one that ended before all others gets none.
    fn make_room(&mut self, facts: &ContainerFacts) -> bool {
        let ended = self.by_id.iter().filter(|(_, entry)| is_over(entry.facts.record.state()));
        let oldest = ended.min_by_key(|(_, entry)| entry.facts.finished_at_unix_nanos);
        let Some((id, finished_at)) = oldest.map(|(id, entry)| (id.clone(), entry.facts.finished_at_unix_nanos)) else { return false };
        if is_over(facts.record.state()) && facts.finished_at_unix_nanos <= finished_at {
            return false;
        }
        self.forget(&id);
        true
    }

    fn forget(&mut self, id: &str) {
        let Some(entry) = self.by_id.remove(id) else { return };
        self.changed.remove(id);
        self.gone.insert(id.to_owned());
        self.release_image(&entry.facts.record.image_id);
    }

    fn release_image(&mut self, image: &str) {
        let Some(users) = self.image_users.get_mut(image) else { return };
        *users -= 1;
        if *users == 0 {
            self.image_users.remove(image);
            if self.images.remove(image).is_some() {
                self.images_changed.remove(image);
                self.images_gone.insert(image.to_owned());
            }
        }
    }
}

fn is_over(state: ContainerState) -> bool {
    matches!(state, ContainerState::Exited | ContainerState::Dead)
}

#[cfg(test)]
mod tests;
