//! Ending tasks: so many at once, asked for again until they are over.

use std::sync::Arc;

use base::Timestamp;

use super::timers::Timer;
use super::words::{Answer, Ticket};
use super::{Effect, Scheduler};
use crate::id::InstanceId;
use crate::instance::{Condition, Goal, Instance};
use crate::mesos::{Call, TaskState};

/// An instance that is to end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Killing {
    /// Whether the master has been asked on the present stream.
    asked: bool,
}

impl Scheduler {
    /// Ends the tasks of an instance, whatever its goal. What has no task has nothing to end.
    pub(super) fn kill(&mut self, now: Timestamp, id: &InstanceId, out: &mut Vec<Effect>) {
        let Some(instance) = self.instance(id).cloned() else { return };
        if instance.condition.has_task() {
            self.killing.entry(id.clone()).or_default();
            if !instance.doomed {
                self.put(now, Instance { doomed: true, ..(*instance).clone() }, out);
            }
        }
    }

    /// Its tasks are over, or it is forgotten.
    pub(super) fn stop_killing(&mut self, id: &InstanceId) {
        if self.killing.remove(id).is_some_and(|it| it.asked) {
            self.kills_in_flight = self.kills_in_flight.saturating_sub(1);
        }
    }

    /// Whether it is being killed.
    pub(super) fn is_being_killed(&self, id: &InstanceId) -> bool {
        self.killing.contains_key(id)
    }

    /// The stream is gone, and with it perhaps what was asked on it.
    pub(super) fn forget_attempts(&mut self) {
        self.killing.values_mut().for_each(|it| it.asked = false);
        self.kills_in_flight = 0;
    }

    pub(super) fn on_kill_due(&mut self, now: Timestamp, id: &InstanceId) {
        let _ = now;
        if let Some(killing) = self.killing.get_mut(id)
            && killing.asked
        {
            killing.asked = false;
            self.kills_in_flight = self.kills_in_flight.saturating_sub(1);
        }
    }

    pub(super) fn send_kills(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        if !self.connected || self.kills_in_flight >= self.config.kill_chunk_size || self.killing.len() == self.kills_in_flight {
            return;
        }
        let room = self.config.kill_chunk_size - self.kills_in_flight;
        let due: Vec<InstanceId> = self.killing.iter().filter(|(_, it)| !it.asked).map(|(id, _)| id.clone()).take(room).collect();
        for id in due {
            if let Some(killing) = self.killing.get_mut(&id) {
                killing.asked = true;
            }
            self.kills_in_flight += 1;
            self.totals.kill_attempts += 1;
            self.timers.add(now + self.config.kill_retry_timeout, Timer::Kill(id.clone()));
            let Some(instance) = self.instance(&id) else { continue };
            let agent_id = instance.agent.as_ref().map(|agent| agent.agent_id.clone());
            for task in instance.tasks.iter().filter(|task| !task.state.is_some_and(TaskState::is_terminal)) {
                out.push(Effect::Call(Call::Kill { task_id: task.id.as_str().to_owned(), agent_id: agent_id.clone() }));
            }
        }
    }

    /// Instances being killed, and how many of them the master has been asked for.
    pub fn kills(&self) -> (usize, usize) {
        (self.killing.len(), self.kills_in_flight)
    }

    /// Ends an instance for good. Its reservation, if any, is given back when it is next offered.
    pub(super) fn decommission(&mut self, now: Timestamp, id: &InstanceId, out: &mut Vec<Effect>) {
        let Some(instance) = self.instance(id).cloned() else { return };
        // An agent that cannot be reached cannot be waited for: should the task come back, it is a stranger, and killed as one.
        if !instance.condition.has_task() || is_out_of_reach(instance.condition) {
            self.forget(now, id, out);
            return;
        }
        if instance.goal != Goal::Decommissioned {
            self.put(now, Instance { goal: Goal::Decommissioned, ..(*instance).clone() }, out);
        }
        self.kill(now, id, out);
    }

    /// Ends an instance as its kind is ended: for good, or with its reservation kept.
    pub(super) fn end(&mut self, now: Timestamp, id: &InstanceId, out: &mut Vec<Effect>) {
        let Some(instance) = self.instance(id).cloned() else { return };
        if instance.reservation.is_none() {
            self.decommission(now, id, out);
            return;
        }
        if instance.goal == Goal::Running {
            self.put(now, Instance { goal: Goal::Stopped, ..(*instance).clone() }, out);
        }
        if !is_out_of_reach(instance.condition) {
            self.kill(now, id, out);
        }
    }

    pub(super) fn on_kill_wanted(&mut self, now: Timestamp, ticket: Ticket, instances: Vec<InstanceId>, wipe: bool, out: &mut Vec<Effect>) {
        let mut killed: Vec<Arc<Instance>> = Vec::new();
        for id in instances {
            let Some(instance) = self.instance(&id).cloned() else { continue };
            if wipe || is_out_of_reach(instance.condition) && instance.reservation.is_none() {
                self.decommission(now, &id, out);
            } else {
                self.kill(now, &id, out);
            }
            killed.push(instance);
        }
        out.push(Effect::Reply(ticket, Answer::Killed(killed)));
    }
}

pub(super) fn is_out_of_reach(condition: Condition) -> bool {
    matches!(condition, Condition::Unreachable | Condition::UnreachableInactive)
}
