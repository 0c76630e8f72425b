//! The instances, by app; and what is counted of them as they change.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::Timestamp;
use imbl::{OrdMap, OrdSet};

use super::words::{BusEvent, Record};
use super::{Effect, Scheduler};
use crate::id::{InstanceId, PathId};
use crate::instance::{Facts, Instance};

/// The instances of one app or pod.
#[derive(Clone, Debug, Default)]
pub struct SpecState {
    /// All of them.
    pub instances: OrdMap<InstanceId, Arc<Instance>>,
    /// Those that wait for an offer.
    pub scheduled: OrdSet<InstanceId>,
    /// For the API.
    pub counts: Counts,
    /// For decisions, by the version of their configuration.
    pub tallies: BTreeMap<Timestamp, Tally>,
}

/// The four numbers of the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Launched, and not running yet.
    pub staged: u32,
    /// Running.
    pub running: u32,
    /// With results, all alive.
    pub healthy: u32,
    /// With a result that is not alive.
    pub unhealthy: u32,
}

/// What decisions are made from. See [`Facts`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in Facts")]
pub struct Tally {
    pub wanted: u32,
    pub scheduled: u32,
    pub dying: u32,
    pub healthy: u32,
    pub ready: u32,
    /// Everything, whatever it is.
    pub all: u32,
}

impl Tally {
    fn change(&mut self, facts: Facts, by: impl Fn(&mut u32)) {
        by(&mut self.all);
        for (holds, number) in [
            (facts.wanted, &mut self.wanted),
            (facts.scheduled, &mut self.scheduled),
            (facts.dying, &mut self.dying),
            (facts.healthy, &mut self.healthy),
            (facts.ready, &mut self.ready),
        ] {
            if holds {
                by(number);
            }
        }
    }

    fn plus(self, other: Tally) -> Tally {
        Tally {
            wanted: self.wanted + other.wanted,
            scheduled: self.scheduled + other.scheduled,
            dying: self.dying + other.dying,
            healthy: self.healthy + other.healthy,
            ready: self.ready + other.ready,
            all: self.all + other.all,
        }
    }
}

impl SpecState {
    fn change(&mut self, instance: &Instance, by: impl Fn(&mut u32)) {
        let facts = instance.facts();
        self.tallies.entry(instance.config_version()).or_default().change(facts, &by);
        self.tallies.retain(|_, tally| tally.all > 0);
        for (holds, number) in [
            (facts.api_staged, &mut self.counts.staged),
            (facts.api_running, &mut self.counts.running),
            (facts.api_healthy, &mut self.counts.healthy),
            (facts.api_unhealthy, &mut self.counts.unhealthy),
        ] {
            if holds {
                by(number);
            }
        }
        if facts.scheduled {
            self.scheduled.insert(instance.id.clone());
        } else {
            self.scheduled.remove(&instance.id);
        }
    }

    fn add(&mut self, instance: &Instance) {
        self.change(instance, |number| *number += 1);
    }

    fn subtract(&mut self, instance: &Instance) {
        self.change(instance, |number| *number = number.saturating_sub(1));
    }

    pub(super) fn recount(&mut self, instance: &Instance) {
        self.add(instance);
        self.instances.insert(instance.id.clone(), Arc::new(instance.clone()));
    }

    /// Sum over all versions from `since` on.
    pub fn since(&self, since: Timestamp) -> Tally {
        self.tallies.range(since..).fold(Tally::default(), |sum, (_, tally)| sum.plus(*tally))
    }

    /// Sum over all versions before `until`.
    pub fn before(&self, until: Timestamp) -> Tally {
        self.tallies.range(..until).fold(Tally::default(), |sum, (_, tally)| sum.plus(*tally))
    }

    /// Sum over everything.
    pub fn total(&self) -> Tally {
        self.since(Timestamp::EPOCH)
    }
}

impl Scheduler {
    pub(super) fn instance(&self, id: &InstanceId) -> Option<&Arc<Instance>> {
        self.specs.get(&id.spec())?.instances.get(id)
    }

    pub(super) fn state(&self, spec: &PathId) -> SpecState {
        self.specs.get(spec).cloned().unwrap_or_default()
    }

    pub(super) fn total(&self, spec: &PathId) -> Tally {
        self.specs.get(spec).map(SpecState::total).unwrap_or_default()
    }

    /// Stores an instance: in the tables, the counts, the queue, and for good unless nothing that must survive differs.
    pub(super) fn put(&mut self, now: Timestamp, instance: Instance, out: &mut Vec<Effect>) -> Arc<Instance> {
        let spec = instance.spec_id().clone();
        let instance = Arc::new(instance);
        let state = self.specs.entry(spec.clone()).or_default();
        let before = state.instances.insert(instance.id.clone(), instance.clone());
        if let Some(before) = &before {
            state.subtract(before);
        }
        state.add(&instance);
        let waits = !state.scheduled.is_empty();
        let more = instance.facts().scheduled && before.as_ref().is_none_or(|before| !before.facts().scheduled);
        if before.as_ref().is_none_or(|before| must_survive(before) != must_survive(&instance)) {
            out.push(Effect::Persist(Record::Instance(instance.clone())));
        }
        if before.as_ref().is_none_or(|before| before.condition != instance.condition) {
            out.push(Effect::Publish(BusEvent::InstanceChanged { instance: instance.clone() }));
        }
        if let Some(before) = &before
            && before.healthy() != instance.healthy()
        {
            out.push(Effect::Publish(BusEvent::InstanceHealthChanged { healthy: instance.healthy(), instance: instance.clone() }));
        }
        self.queue_changed(now, &spec, waits, more);
        self.dirty.insert(spec);
        instance
    }

    /// Forgets an instance.
    pub(super) fn forget(&mut self, now: Timestamp, id: &InstanceId, out: &mut Vec<Effect>) {
        let spec = id.spec();
        let Some(state) = self.specs.get_mut(&spec) else { return };
        let Some(before) = state.instances.remove(id) else { return };
        state.subtract(&before);
        state.scheduled.remove(id);
        let (waits, empty) = (!state.scheduled.is_empty(), state.instances.is_empty());
        if empty && self.root.spec(&spec).is_none() {
            self.specs.remove(&spec);
        }
        self.stop_killing(id);
        if before.reservation.is_some() {
            self.look_for_orphan(now, &before, out);
        }
        self.queue_changed(now, &spec, waits, false);
        self.dirty.insert(spec);
        out.push(Effect::Persist(Record::InstanceRemoved(id.clone())));
    }
}

/// What of an instance is worth a write: all but the details of its checks.
fn must_survive(instance: &Instance) -> Instance {
    let alive = instance.healthy();
    let mut kept = Instance { health: Vec::new(), doomed: false, ..instance.clone() };
    for task in &mut kept.tasks {
        task.check = None;
        task.healthy = alive;
    }
    for ready in &mut kept.ready {
        ready.last_response = None;
    }
    kept
}
