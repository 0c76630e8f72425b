//! What Docker's events alone tell of a container: enough to name one that was gone before it could be inspected. Pure.

use std::collections::{HashMap, VecDeque};

use proto::probe::v1::{Container, ContainerState};

use super::facts::{RUNTIME, exit_code};
use crate::containers::{CONTAINERS_MAX, ContainerFacts, Source, words};
use crate::mask::Masks;

/// Attributes of an event that are no labels.
const NO_LABELS: [&str; 8] = ["image", "name", "exitCode", "signal", "execID", "execDuration", "oldName", "container"];

/// Containers that were created or started while the events were read. Removed ones are forgotten, and the oldest when there are too many.
#[derive(Debug, Default)]
pub(super) struct Sketches {
    by_id: HashMap<String, Sketch>,
    order: VecDeque<String>,
}

#[derive(Debug)]
struct Sketch {
    facts: ContainerFacts,
    /// A process of its current run was ended because memory ran out.
    oom: bool,
    /// Whether its last state was told.
    told: bool,
}

impl Sketches {
    /// Takes in an event of a container. Returns whether it says something of the container's life.
    pub(super) fn on_event(
        &mut self,
        id: &str,
        action: &str,
        attributes: &HashMap<String, String>,
        at_unix_nanos: i64,
        masks: &Masks,
    ) -> bool {
        let at = words::nanos(at_unix_nanos);
        let known = self.by_id.contains_key(id);
        if !known && !matches!(action, "create" | "start" | "die") {
            return false;
        }
        let Some(sketch) = self.entry(id) else { return false };
        let record = &mut sketch.facts.record;
        if let Some(name) = attributes.get("name") {
            record.name = words::name(name);
        }
        if record.image_name.is_empty() {
            record.image_name = attributes.get("image").map(|it| words::name(it)).unwrap_or_default();
            let labels = attributes.iter().filter(|(key, _)| !NO_LABELS.contains(&key.as_str()));
            record.labels = words::labels(masks, labels.map(|(key, value)| (key.clone(), value.clone())));
        }
        match action {
            "create" => record.created_at_unix_nanos = at,
            "start" => {
                record.set_state(ContainerState::Running);
                record.started_at_unix_nanos = at;
                record.exit_code = 0;
                sketch.oom = false;
            }
            "oom" => sketch.oom = true,
            "die" => {
                record.set_state(ContainerState::Exited);
                record.exit_code = attributes.get("exitCode").and_then(|it| it.parse().ok()).map_or(0, exit_code);
                sketch.facts.finished_at_unix_nanos = at;
            }
            "pause" => record.set_state(ContainerState::Paused),
            "unpause" => record.set_state(ContainerState::Running),
            _ => return true,
        }
        sketch.facts.record.oom_killed = sketch.oom;
        sketch.told = false;
        true
    }

    /// What was inspected, with what only events tell, is about to be told. Of events that came while it was inspected (`is_older`) it may not
    /// know yet: they stay to be told, should the container be gone before it is inspected again.
    pub(super) fn complete(&mut self, facts: &mut ContainerFacts, is_older: bool) {
        let Some(sketch) = self.by_id.get_mut(&facts.record.id) else { return };
        facts.record.oom_killed |= sketch.oom;
        let mut last = facts.clone();
        if is_older {
            let (record, known) = (&mut last.record, &sketch.facts.record);
            record.set_state(known.state());
            record.exit_code = known.exit_code;
            record.started_at_unix_nanos = record.started_at_unix_nanos.max(known.started_at_unix_nanos);
            last.finished_at_unix_nanos = last.finished_at_unix_nanos.max(sketch.facts.finished_at_unix_nanos);
            if !matches!(record.state(), ContainerState::Running | ContainerState::Paused) {
                record.pid = 0;
            }
        }
        // The inspection may be older than the last event that was read, or newer: only an equal state is the last one.
        sketch.told = facts.record.state() == sketch.facts.record.state();
        sketch.facts = last;
    }

    /// What is known of a container that cannot be inspected any more, unless it was told.
    pub(super) fn untold(&mut self, id: &str) -> Option<ContainerFacts> {
        let sketch = self.by_id.get_mut(id).filter(|it| !it.told)?;
        sketch.told = true;
        Some(sketch.facts.clone())
    }

    /// The container was removed.
    pub(super) fn forget(&mut self, id: &str) {
        if self.by_id.remove(id).is_some() {
            self.order.retain(|it| it != id);
        }
    }

    fn entry(&mut self, id: &str) -> Option<&mut Sketch> {
        if !self.by_id.contains_key(id) {
            if self.by_id.len() >= CONTAINERS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.by_id.remove(&oldest);
            }
            let record = Container {
                id: words::id(id)?,
                state: ContainerState::Created.into(),
                runtime: RUNTIME.to_owned(),
                ..Container::default()
            };
            let facts = ContainerFacts { source: Source::Docker, record, finished_at_unix_nanos: 0 };
            self.by_id.insert(id.to_owned(), Sketch { facts, oom: false, told: false });
            self.order.push_back(id.to_owned());
        }
        self.by_id.get_mut(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "2299a2ca59df";

    fn event(sketches: &mut Sketches, action: &str, more: &[(&str, &str)], at: i64) -> bool {
        let attributes = [("image", "busybox"), ("name", "web"), ("team", "blue"), ("db.password", "x")];
        let attributes = attributes.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        sketches.on_event(ID, action, &attributes, at, &Masks::default())
    }

    #[test]
    fn a_container_that_was_never_inspected_is_told_by_its_events() {
        let mut sketches = Sketches::default();
        assert!(event(&mut sketches, "create", &[], 5));
        assert!(event(&mut sketches, "start", &[], 7));
        assert!(event(&mut sketches, "oom", &[], 8));
        assert!(event(&mut sketches, "die", &[("exitCode", "137")], 9));
        let facts = sketches.untold(ID).unwrap();
        let record = &facts.record;
        assert_eq!(
            (record.id.as_str(), record.name.as_str(), record.image_name.as_str(), record.runtime.as_str()),
            (ID, "web", "busybox", "docker")
        );
        assert_eq!((record.created_at_unix_nanos, record.started_at_unix_nanos, facts.finished_at_unix_nanos), (5, 7, 9));
        assert_eq!((record.state(), record.exit_code, record.oom_killed), (ContainerState::Exited, 137, true));
        assert_eq!(record.labels, HashMap::from([("team".to_owned(), "blue".to_owned()), ("db.password".to_owned(), "***".to_owned())]));
        assert_eq!(sketches.untold(ID), None, "told once");
        sketches.forget(ID);
        assert!(sketches.order.is_empty());
    }

    #[test]
    fn what_was_inspected_stays_known_and_only_its_end_is_told_again() {
        let mut sketches = Sketches::default();
        event(&mut sketches, "create", &[], 5);
        let mut facts = sketches.untold(ID).unwrap();
        facts.record.hostname = "inside".to_owned();
        facts.record.set_state(ContainerState::Created);
        sketches.complete(&mut facts, false);
        assert_eq!(sketches.untold(ID), None);
        event(&mut sketches, "die", &[("exitCode", "3")], 9);
        let last = sketches.untold(ID).unwrap();
        assert_eq!((last.record.hostname.as_str(), last.record.exit_code), ("inside", 3));
        event(&mut sketches, "start", &[], 11);
        assert_eq!(sketches.untold(ID).unwrap().record.exit_code, 0);
    }

    #[test]
    fn an_inspection_that_is_older_than_the_last_event_does_not_make_it_forgotten() {
        let mut sketches = Sketches::default();
        event(&mut sketches, "create", &[], 5);
        event(&mut sketches, "start", &[], 7);
        let mut facts = sketches.untold(ID).unwrap();
        facts.record.hostname = "inside".to_owned();
        facts.record.pid = 17;
        event(&mut sketches, "die", &[("exitCode", "3")], 9);
        sketches.complete(&mut facts, true);
        assert_eq!(facts.record.state(), ContainerState::Running, "it is told as it was inspected");
        let last = sketches.untold(ID).unwrap();
        assert_eq!((last.record.state(), last.record.exit_code, last.record.pid), (ContainerState::Exited, 3, 0));
        assert_eq!((last.record.hostname.as_str(), last.finished_at_unix_nanos), ("inside", 9));
        assert_eq!(sketches.untold(ID), None, "its last state was told");
    }

    #[test]
    fn events_of_strangers_and_too_many_containers_are_bounded() {
        let mut sketches = Sketches::default();
        assert!(!event(&mut sketches, "oom", &[], 1));
        assert!(!sketches.on_event("no id\n", "create", &HashMap::new(), -1, &Masks::default()));
        for id in 0..CONTAINERS_MAX + 10 {
            sketches.on_event(&format!("c{id}"), "create", &HashMap::new(), -1, &Masks::default());
        }
        assert_eq!((sketches.by_id.len(), sketches.order.len()), (CONTAINERS_MAX, CONTAINERS_MAX));
        assert!(sketches.untold("c0").is_none() && sketches.untold("c4105").is_some());
    }
}
