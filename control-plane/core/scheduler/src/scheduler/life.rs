//! Making the number of instances what it should be.

use std::sync::Arc;

use base::Timestamp;

use super::{Effect, Scheduler};
use crate::constraints::{Place, most_crowded};
use crate::id::{InstanceId, PathId};
use crate::instance::{Condition, Goal, Instance};
use crate::model::KillSelection;
use crate::model::spec::Spec;

impl Scheduler {
    /// What an instance that has ended is launched with next; `None` when it is not wanted any more.
    pub(super) fn spec_to_launch(&self, instance: &Instance) -> Option<Spec> {
        let current = self.root.spec(instance.spec_id())?;
        if instance.config_version() == current.config_version() {
            return Some(current.clone());
        }
        match self.phase(instance.spec_id()) {
            // It is being replaced: the deployment launches what is missing.
            super::deploy::Phase::Replacing if instance.reservation.is_none() => None,
            // Its turn comes later: until then it is what it was.
            super::deploy::Phase::Ahead => Some(instance.spec.clone()),
            _ => Some(current.clone()),
        }
    }

    /// Launches what is missing and ends what is too much, whatever its version. Gives back how many are wanted but not there for good.
    pub(super) fn balance(&mut self, now: Timestamp, spec: &Spec, sentenced: &[InstanceId], out: &mut Vec<Effect>) {
        let wanted = spec.instances();
        let there = self.total(spec.id()).wanted;
        if there > wanted {
            let surplus = (there - wanted) as usize;
            let victims = self.victims(spec, surplus, sentenced, |_| true);
            for id in victims {
                self.end(now, &id, out);
            }
        } else if there < wanted {
            self.start(now, spec, wanted - there, out);
        }
    }

    /// Puts so many more instances into the queue: stopped ones with reservations first.
    pub(super) fn start(&mut self, now: Timestamp, spec: &Spec, count: u32, out: &mut Vec<Effect>) {
        let mut missing = count;
        if spec.is_resident() {
            let stopped: Vec<Arc<Instance>> = self
                .state(spec.id())
                .instances
                .values()
                .filter(|it| it.goal == Goal::Stopped && !it.condition.has_task())
                .cloned()
                .collect();
            for instance in stopped.into_iter().take(missing as usize) {
                let again = Instance {
                    incarnation: instance.incarnation,
                    reservation: instance.reservation.clone(),
                    agent: instance.agent.clone(),
                    ..Instance::scheduled(instance.id.clone(), spec.clone(), now)
                };
                self.put(now, again, out);
                missing -= 1;
            }
        }
        for _ in 0..missing {
            let id = InstanceId::new(spec.id(), &mut self.ids);
            self.put(now, Instance::scheduled(id, spec.clone(), now), out);
        }
    }

    /// Which `count` instances go, of those with the goal to run that are `eligible`: sentenced ones first, then those on the most crowded
    /// values of a GROUP_BY, then those that serve least, then by age.
    pub(super) fn victims(
        &self,
        spec: &Spec,
        count: usize,
        sentenced: &[InstanceId],
        eligible: impl Fn(&Instance) -> bool,
    ) -> Vec<InstanceId> {
        if count == 0 {
            return Vec::new();
        }
        let Some(state) = self.specs.get(spec.id()) else { return Vec::new() };
        let counted = |it: &&Arc<Instance>| it.goal == Goal::Running && it.condition != Condition::UnreachableInactive && eligible(it);
        let mut left: Vec<&Arc<Instance>> = state.instances.values().filter(counted).collect();
        let weight = |it: &Instance| match it.condition {
            // Costs nothing at all.
            Condition::Scheduled => 0,
            _ if it.doomed => 0,
            Condition::Unreachable => 1,
            Condition::Provisioned | Condition::Staging => 2,
            Condition::Starting => 3,
            Condition::Running if it.all_alive() => 5,
            Condition::Running => 4,
            _ => 4,
        };
        let key = |it: &Instance| {
            let age = match spec.kill_selection() {
                KillSelection::YoungestFirst => u64::MAX - it.began().unix_nanos(),
                KillSelection::OldestFirst => it.began().unix_nanos(),
            };
            (weight(it), age, it.id.clone())
        };
        left.sort_by_cached_key(|it| (!sentenced.contains(&it.id), key(it)));
        let even = spec.constraints().iter().any(|it| it.operator == crate::model::Operator::GroupBy);
        if !even {
            return left.into_iter().take(count).map(|it| it.id.clone()).collect();
        }
        let mut chosen = Vec::new();
        while chosen.len() < count && !left.is_empty() {
            let places: Vec<Option<Place<'_>>> = left.iter().map(|it| it.agent.as_ref().map(Place::from)).collect();
            let crowded = most_crowded(spec.constraints(), &places);
            let first = left.iter().position(|it| sentenced.contains(&it.id)).or_else(|| crowded.first().copied()).unwrap_or(0);
            chosen.push(left.remove(first).id.clone());
        }
        chosen
    }

    /// Every instance of `spec`.
    pub(super) fn instances_of(&self, spec: &PathId) -> Vec<Arc<Instance>> {
        self.specs.get(spec).map(|state| state.instances.values().cloned().collect()).unwrap_or_default()
    }
}
