//! The container table: what the runtimes of this node say of their containers and images. Pure.

use std::collections::{BTreeMap, BTreeSet};

use proto::probe::v1::{Container, ContainerState, Image};

/// Largest number of containers, stopped ones included.
pub const CONTAINERS_MAX: usize = 4_096;

/// What a runtime says of one container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerFacts {
    /// The record as it is told; `state_human` is filled in by the table.
    pub record: Container,
    /// When it last ended, Unix nanoseconds; 0 when it never did.
    pub finished_at_unix_nanos: u64,
    /// Exit code of its last run.
    pub exit_code: i64,
}

/// All containers, and the images that they use.
#[derive(Debug, Default)]
pub struct ContainerTable {
    by_id: BTreeMap<String, ContainerFacts>,
    images: BTreeMap<String, Image>,
    changed: BTreeSet<String>,
    gone: BTreeSet<String>,
    images_changed: BTreeSet<String>,
    images_gone: BTreeSet<String>,
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
    /// A container is new or has changed.
    pub fn put(&mut self, mut facts: ContainerFacts, now_unix_nanos: u64) {
        let id = facts.record.id.clone();
        if self.by_id.len() >= CONTAINERS_MAX && !self.by_id.contains_key(&id) {
            self.refused += 1;
            return;
        }
        facts.record.state_human = state_for_people(&facts, now_unix_nanos);
        if self.by_id.get(&id) == Some(&facts) {
            return;
        }
        self.by_id.insert(id.clone(), facts);
        self.gone.remove(&id);
        self.changed.insert(id);
        self.drop_unused_images();
    }

    /// A container was removed.
    pub fn remove(&mut self, id: &str) {
        if self.by_id.remove(id).is_some() {
            self.changed.remove(id);
            self.gone.insert(id.to_owned());
            self.drop_unused_images();
        }
    }

    /// A runtime told all that it has: what it did not name is gone.
    pub fn keep_only(&mut self, runtime: &str, ids: &BTreeSet<String>) {
        let gone: Vec<String> = self
            .by_id
            .iter()
            .filter(|(id, facts)| facts.record.runtime == runtime && !ids.contains(*id))
            .map(|(id, _)| id.clone())
            .collect();
        gone.iter().for_each(|id| self.remove(id));
    }

    /// An image that a container uses.
    pub fn put_image(&mut self, image: Image) {
        let used = self.by_id.values().any(|facts| facts.record.image_id == image.id);
        if used && self.images.get(&image.id) != Some(&image) {
            self.images_gone.remove(&image.id);
            self.images_changed.insert(image.id.clone());
            self.images.insert(image.id.clone(), image);
        }
    }

    /// Writes the states for people anew: "Up 2 minutes" becomes "Up 3 minutes" without an event.
    pub fn refresh(&mut self, now_unix_nanos: u64) {
        for (id, facts) in &mut self.by_id {
            let state_human = state_for_people(facts, now_unix_nanos);
            if facts.record.state_human != state_human {
                facts.record.state_human = state_human;
                self.changed.insert(id.clone());
            }
        }
    }

    /// Containers in the order of their ids, after `id`.
    pub fn after(&self, id: Option<&str>) -> impl Iterator<Item = &Container> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.by_id.range::<str, _>((id.map_or(Unbounded, Excluded), Unbounded)).map(|(_, facts)| &facts.record)
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

    /// How many were refused because the table was full.
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
            containers: changed.iter().filter_map(|id| self.by_id.get(id)).map(|facts| facts.record.clone()).collect(),
            containers_gone: std::mem::take(&mut self.gone).into_iter().collect(),
            images: images_changed.iter().filter_map(|id| self.images.get(id)).cloned().collect(),
            images_gone: std::mem::take(&mut self.images_gone).into_iter().collect(),
        }
    }

    fn drop_unused_images(&mut self) {
        if self.images.is_empty() {
            return;
        }
        let used: BTreeSet<&str> = self.by_id.values().map(|facts| facts.record.image_id.as_str()).collect();
        let unused: Vec<String> = self.images.keys().filter(|id| !used.contains(id.as_str())).cloned().collect();
        for id in unused {
            self.images.remove(&id);
            self.images_changed.remove(&id);
            self.images_gone.insert(id);
        }
    }
}

/// The state as `docker ps` words it.
fn state_for_people(facts: &ContainerFacts, now_unix_nanos: u64) -> String {
    let since = |at: u64| duration_for_people(now_unix_nanos.saturating_sub(at) / 1_000_000_000);
    match facts.record.state() {
        ContainerState::Running => format!("Up {}", since(facts.record.started_at_unix_nanos)),
        ContainerState::Paused => format!("Up {} (Paused)", since(facts.record.started_at_unix_nanos)),
        ContainerState::Restarting => format!("Restarting ({}) {} ago", facts.exit_code, since(facts.finished_at_unix_nanos)),
        ContainerState::Exited if facts.finished_at_unix_nanos == 0 => format!("Exited ({})", facts.exit_code),
        ContainerState::Exited => format!("Exited ({}) {} ago", facts.exit_code, since(facts.finished_at_unix_nanos)),
        ContainerState::Created => "Created".to_owned(),
        ContainerState::Dead => "Dead".to_owned(),
        ContainerState::Unspecified => String::new(),
    }
}

/// Docker's coarse wording of a duration.
fn duration_for_people(seconds: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..MINUTE => format!("{seconds} seconds"),
        _ if seconds / MINUTE == 1 => "About a minute".to_owned(),
        _ if seconds < HOUR => format!("{} minutes", seconds / MINUTE),
        // Docker rounds hours to the nearest one.
        _ if (seconds + HOUR / 2) / HOUR == 1 => "About an hour".to_owned(),
        _ if seconds < 48 * HOUR => format!("{} hours", (seconds + HOUR / 2) / HOUR),
        _ if seconds < 14 * DAY => format!("{} days", seconds / DAY),
        _ if seconds < 60 * DAY => format!("{} weeks", seconds / (7 * DAY)),
        _ if seconds < 730 * DAY => format!("{} months", seconds / (30 * DAY)),
        _ => format!("{} years", seconds / (365 * DAY)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn facts(id: &str, image: &str, state: ContainerState) -> ContainerFacts {
        let record = Container {
            id: id.to_owned(),
            image_id: image.to_owned(),
            state: state.into(),
            started_at_unix_nanos: 100 * SECOND,
            runtime: "docker".to_owned(),
            ..Container::default()
        };
        ContainerFacts { record, finished_at_unix_nanos: 160 * SECOND, exit_code: 137 }
    }

    fn image(id: &str) -> Image {
        Image { id: id.to_owned(), ..Image::default() }
    }

    #[test]
    fn states_are_worded_as_docker_words_them() {
        let at = |state, now: u64| state_for_people(&facts("a", "i", state), now * SECOND);
        assert_eq!(at(ContainerState::Running, 100), "Up Less than a second");
        assert_eq!(at(ContainerState::Running, 159), "Up 59 seconds");
        assert_eq!(at(ContainerState::Running, 219), "Up About a minute");
        assert_eq!(at(ContainerState::Paused, 100 + 7_200), "Up 2 hours (Paused)");
        assert_eq!(at(ContainerState::Exited, 160 + 3_600), "Exited (137) About an hour ago");
        assert_eq!(at(ContainerState::Exited, 160 + 86_400 * 20), "Exited (137) 2 weeks ago");
        assert_eq!(at(ContainerState::Created, 500), "Created");
    }

    #[test]
    fn an_image_stays_while_a_container_uses_it() {
        let mut table = ContainerTable::default();
        table.put_image(image("unused"));
        assert!(!table.has_changes());
        table.put(facts("a", "i", ContainerState::Running), 0);
        table.put(facts("b", "i", ContainerState::Running), 0);
        table.put_image(image("i"));
        assert_eq!(table.take_changes().images.len(), 1);
        table.remove("a");
        assert!(table.take_changes().images_gone.is_empty());
        table.remove("b");
        assert_eq!(table.take_changes().images_gone, ["i"]);
    }

    #[test]
    fn a_fresh_list_of_one_runtime_leaves_the_others_alone() {
        let mut table = ContainerTable::default();
        let mut other = facts("c", "i", ContainerState::Running);
        other.record.runtime = "containerd".to_owned();
        table.put(other, 0);
        table.put(facts("a", "i", ContainerState::Running), 0);
        table.put(facts("b", "i", ContainerState::Running), 0);
        table.take_changes();
        table.keep_only("docker", &BTreeSet::from(["b".to_owned()]));
        assert_eq!(table.take_changes().containers_gone, ["a"]);
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn the_same_facts_again_are_no_change_but_time_is() {
        let mut table = ContainerTable::default();
        table.put(facts("a", "i", ContainerState::Running), 130 * SECOND);
        table.take_changes();
        table.put(facts("a", "i", ContainerState::Running), 130 * SECOND);
        assert!(!table.has_changes());
        table.refresh(230 * SECOND);
        assert_eq!(table.take_changes().containers[0].state_human, "Up 2 minutes");
    }
}
