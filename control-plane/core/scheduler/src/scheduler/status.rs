//! What Mesos says of tasks, and what becomes of their instances.

use std::time::Duration;

use base::Timestamp;

use super::timers::Timer;
use super::words::{BusEvent, ContainerTermination, Record, TaskFailure, Termination};
use super::{Effect, Scheduler};
use crate::id::TaskId;
use crate::instance::{Condition, Goal, Instance, Readiness, Task};
use crate::mesos::{Call, TaskState, TaskStatus};
use crate::model::UnreachableStrategy;
use crate::model::spec::Spec;

/// Longest message that is kept.
const MESSAGE_MAX: usize = 10_000;
/// Longest message of a container in the history of a pod, which is stored as a whole with every entry.
const TERMINATION_MESSAGE_MAX: usize = 1_000;
/// Ended instances that are kept in the history of a pod.
const TERMINATIONS_MAX: usize = 5;

impl Scheduler {
    pub(super) fn on_status(&mut self, now: Timestamp, mut status: TaskStatus, out: &mut Vec<Effect>) {
        status.message = cut(status.message, MESSAGE_MAX);
        self.totals.updates[status.state as usize] += 1;
        let acknowledge = status.uuid.take().zip(status.agent_id.clone());
        self.apply_status(now, &status, out);
        // Behind everything that is to be stored because of it.
        if let Some((uuid, agent_id)) = acknowledge {
            out.push(Effect::Call(Call::Acknowledge { task_id: status.task_id, agent_id, uuid }));
        }
    }

    fn apply_status(&mut self, now: Timestamp, status: &TaskStatus, out: &mut Vec<Effect>) {
        let state = understood(status);
        let Some(task_id) = TaskId::parse(&status.task_id) else {
            self.kill_stranger(status, out);
            return;
        };
        let id = task_id.instance();
        let Some(known) = self.instance(&id).cloned() else {
            if state.is_terminal() {
                out.push(Effect::Publish(BusEvent::UnknownInstanceTerminated { instance: id, condition: Condition::of(state) }));
            } else {
                self.kill_stranger(status, out);
            }
            return;
        };
        let Some(at) = known.tasks.iter().position(|task| task.id == task_id) else {
            // Of an earlier launch of the same instance: over, or to be over.
            if !state.is_terminal() {
                self.kill_stranger(status, out);
            }
            return;
        };
        if known.condition.is_terminal() || known.tasks[at].state.is_some_and(TaskState::is_terminal) {
            return;
        }
        let mut instance = (*known).clone();
        self.update_task(now, &mut instance, at, state, status);
        let changed = known.tasks[at].state != instance.tasks[at].state;
        let task = instance.tasks[at].clone();
        let before = instance.condition;
        let mut condition = instance.condition_of_tasks();
        if before == Condition::UnreachableInactive && condition == Condition::Unreachable {
            condition = before;
        }
        // A pod is over when all of its containers are; until then it is on its way there.
        if condition.is_terminal() && !instance.all_terminal() {
            condition = Condition::Killing;
        }
        self.enter(now, &mut instance, condition, status);
        let instance = self.put(now, instance, out);
        if changed {
            out.push(Effect::Publish(BusEvent::StatusUpdate {
                task_id: status.task_id.clone(),
                state,
                message: status.message.clone(),
                addresses: task.addresses,
                ports: task.host_ports.iter().flatten().copied().collect(),
                instance: instance.clone(),
            }));
        }
        if changed && before != Condition::Running && condition == Condition::Running {
            self.tokens = (self.tokens + 1).min(self.config.launch_tokens);
            self.began_running(now, &instance);
        }
        if condition.is_terminal() {
            self.on_terminal(now, &instance, state, status, out);
        } else if condition == Condition::Unreachable && before != Condition::UnreachableInactive {
            self.on_unreachable_due(now, &instance.id, out);
        }
    }

    fn update_task(&self, now: Timestamp, instance: &mut Instance, at: usize, state: TaskState, status: &TaskStatus) {
        let task = &mut instance.tasks[at];
        if task.state != Some(state) {
            task.since = now;
        }
        task.state = Some(state);
        if !status.addresses.is_empty() {
            task.addresses.clone_from(&status.addresses);
        }
        if !status.message.is_empty() {
            task.message.clone_from(&status.message);
        }
        if status.check.is_some() {
            task.check.clone_from(&status.check);
        }
        if state == TaskState::Running && task.started_at.is_none() {
            task.started_at = Some(status.timestamp.unwrap_or(now));
        }
        if let Some(healthy) = status.healthy {
            task.healthy = Some(healthy);
            if let Spec::App(app) = instance.spec.clone() {
                instance.health.resize_with(app.health_checks.len(), Default::default);
                let by_agent = app.health_checks.iter().position(|check| !check.by_scheduler());
                if let Some(health) = by_agent.and_then(|at| instance.health.get_mut(at)) {
                    record(health, now, if healthy { Ok(()) } else { Err(&status.message) });
                }
            }
        }
    }

    /// What changes with the condition.
    fn enter(&mut self, now: Timestamp, instance: &mut Instance, condition: Condition, status: &TaskStatus) {
        if instance.condition != condition {
            instance.condition = condition;
            instance.since = now;
        }
        match condition {
            Condition::Running => {
                instance.unreachable_since = None;
                if instance.active_since.is_none() {
                    instance.active_since = Some(now);
                }
                if let Some(held) = &mut instance.reservation {
                    held.confirmed = true;
                }
            }
            Condition::Unreachable if instance.unreachable_since.is_none() => {
                instance.unreachable_since = Some(status.unreachable_since.unwrap_or(now));
            }
            _ => {}
        }
        if condition.has_task() && matches!(condition, Condition::Staging | Condition::Starting) {
            self.timers.add(now + self.config.task_launch_timeout, Timer::Launch(instance.id.clone(), instance.incarnation));
        }
    }

    fn kill_stranger(&mut self, status: &TaskStatus, out: &mut Vec<Effect>) {
        if !understood(status).is_terminal() && understood(status) != TaskState::Unreachable {
            out.push(Effect::Call(Call::Kill { task_id: status.task_id.clone(), agent_id: status.agent_id.clone() }));
        }
    }

    fn on_terminal(&mut self, now: Timestamp, instance: &Instance, state: TaskState, status: &TaskStatus, out: &mut Vec<Effect>) {
        self.stop_killing(&instance.id);
        if instance.spec.is_pod() {
            self.record_termination(now, instance, out);
        } else if is_failure(state) {
            self.record_failure(now, instance, &status.task_id, state, &status.message, out);
        }
        if instance.goal == Goal::Running
            && matches!(
                instance.condition,
                Condition::Failed | Condition::Error | Condition::Dropped | Condition::Gone | Condition::Finished
            )
        {
            let drained = status.reason.as_deref() == Some("REASON_AGENT_DRAINING");
            if !drained {
                self.count_failure(now, &instance.spec);
            }
        }
        let mut instance = instance.clone();
        // The agent is gone with its disks; or what was to be reserved never came to be.
        let never_held = instance.reservation.as_ref().is_some_and(|held| !held.confirmed)
            && matches!(instance.condition, Condition::Error | Condition::Dropped);
        if state == TaskState::GoneByOperator || never_held {
            instance.reservation = None;
        }
        match instance.goal {
            Goal::Decommissioned => self.forget(now, &instance.id, out),
            Goal::Stopped if instance.reservation.is_none() => self.forget(now, &instance.id, out),
            Goal::Stopped => {
                self.put(now, instance, out);
            }
            Goal::Running => self.again(now, instance, out),
        }
    }

    /// What should run has ended: it waits for an offer again, with the definition of now.
    pub(super) fn again(&mut self, now: Timestamp, instance: Instance, out: &mut Vec<Effect>) {
        let Some(spec) = self.spec_to_launch(&instance) else {
            self.forget(now, &instance.id, out);
            return;
        };
        let rescheduled = Instance {
            incarnation: instance.incarnation,
            reservation: instance.reservation.clone(),
            // Where it was is where its reservation is.
            agent: if instance.reservation.is_some() { instance.agent.clone() } else { None },
            ..Instance::scheduled(instance.id.clone(), spec, now)
        };
        self.put(now, rescheduled, out);
    }

    /// An instance of a pod is over. What we ended ourselves is no news; everything else is, also when no container failed: pods are not
    /// supposed to finish.
    fn record_termination(&mut self, now: Timestamp, instance: &Instance, out: &mut Vec<Effect>) {
        let failed = |task: &&Task| task.state.is_some_and(is_failure);
        // Of several, the others were ended because of the first.
        let first = instance.tasks.iter().filter(failed).min_by_key(|task| task.since);
        let by_us = instance.goal != Goal::Running || instance.doomed;
        let Some(task) = first.or_else(|| instance.tasks.iter().min_by_key(|task| task.since).filter(|_| !by_us)) else { return };
        let over = |task: &Task| ContainerTermination {
            name: task.container.clone(),
            task_id: task.id.as_str().to_owned(),
            state: task.state.unwrap_or(TaskState::Unknown),
            message: cut(task.message.clone(), TERMINATION_MESSAGE_MAX),
            timestamp: task.since,
        };
        let termination = Termination {
            instance: instance.id.clone(),
            started_at: instance.began(),
            terminated_at: now,
            message: cut(task.message.clone(), TERMINATION_MESSAGE_MAX),
            host: instance.host().unwrap_or_default().to_owned(),
            agent_id: instance.agent.as_ref().map(|agent| agent.agent_id.clone()),
            containers: instance.tasks.iter().map(over).collect(),
        };
        let before = self.failures.get(instance.spec_id()).map(|failure| failure.terminations.clone()).unwrap_or_default();
        let terminations = std::iter::once(termination).chain(before).take(TERMINATIONS_MAX).collect();
        let (task_id, state, message) = (task.id.as_str(), task.state.unwrap_or(TaskState::Unknown), task.message.as_str());
        self.keep_failure(now, instance, (task_id, state, message), terminations, out);
    }

    pub(super) fn record_failure(
        &mut self,
        now: Timestamp,
        instance: &Instance,
        task_id: &str,
        state: TaskState,
        message: &str,
        out: &mut Vec<Effect>,
    ) {
        self.keep_failure(now, instance, (task_id, state, message), Vec::new(), out);
    }

    fn keep_failure(
        &mut self,
        now: Timestamp,
        instance: &Instance,
        (task_id, state, message): (&str, TaskState, &str),
        terminations: Vec<Termination>,
        out: &mut Vec<Effect>,
    ) {
        if self.root.spec(instance.spec_id()).is_none() {
            return;
        }
        let failure = std::sync::Arc::new(TaskFailure {
            app_id: instance.spec_id().clone(),
            task_id: task_id.to_owned(),
            state,
            message: message.to_owned(),
            host: instance.host().unwrap_or_default().to_owned(),
            agent_id: instance.agent.as_ref().map(|agent| agent.agent_id.clone()),
            version: instance.spec.version(),
            timestamp: now,
            terminations,
        });
        self.failures.insert(failure.app_id.clone(), failure.clone());
        out.push(Effect::Persist(Record::Failure(failure)));
    }

    /// An instance may have been out of reach for long enough.
    pub(super) fn on_unreachable_due(&mut self, now: Timestamp, id: &crate::id::InstanceId, out: &mut Vec<Effect>) {
        let Some(instance) = self.instance(id).cloned() else { return };
        if !super::kill::is_out_of_reach(instance.condition) {
            return;
        }
        if instance.goal == Goal::Decommissioned {
            self.forget(now, id, out);
            return;
        }
        let UnreachableStrategy::Enabled { inactive_after_seconds, expunge_after_seconds } = instance.spec.unreachable() else { return };
        let since = instance.unreachable_since.unwrap_or(now);
        let inactive_at = since + Duration::from_secs(inactive_after_seconds);
        let expunged_at = since + Duration::from_secs(expunge_after_seconds);
        if now >= expunged_at {
            self.forget(now, id, out);
        } else if now >= inactive_at && instance.condition == Condition::Unreachable {
            self.put(now, Instance { condition: Condition::UnreachableInactive, since: now, ..(*instance).clone() }, out);
            self.timers.add(expunged_at, Timer::Unreachable(id.clone()));
        } else {
            self.timers.add(if now < inactive_at { inactive_at } else { expunged_at }, Timer::Unreachable(id.clone()));
        }
    }

    /// A launch may have taken too long.
    pub(super) fn on_launch_overdue(&mut self, now: Timestamp, id: &crate::id::InstanceId, incarnation: u32, out: &mut Vec<Effect>) {
        let Some(instance) = self.instance(id).cloned() else { return };
        if instance.incarnation != incarnation
            || !matches!(instance.condition, Condition::Provisioned | Condition::Staging | Condition::Starting)
        {
            return;
        }
        let allowed = if instance.condition == Condition::Provisioned {
            self.config.task_launch_confirm_timeout
        } else {
            self.config.task_launch_timeout
        };
        if now.since(instance.since) >= allowed {
            self.kill(now, id, out);
        } else {
            self.timers.add(instance.since + allowed, Timer::Launch(id.clone(), incarnation));
        }
    }

    fn began_running(&mut self, now: Timestamp, instance: &Instance) {
        self.schedule_probes(now, instance);
        if self.locks.contains_key(instance.spec_id()) {
            self.schedule_readiness(now, instance);
        }
    }

    /// Prepares an instance for a launch: nothing is known of its checks.
    pub(super) fn fresh_checks(instance: &mut Instance) {
        instance.health = match &instance.spec {
            Spec::App(app) => vec![Default::default(); app.health_checks.len()],
            Spec::Pod(_) => Vec::new(),
        };
        instance.ready = vec![Readiness::default(); instance.spec.readiness_checks().len()];
    }
}

/// Counts one result of a check.
pub(super) fn record(health: &mut crate::instance::Health, now: Timestamp, result: Result<(), &str>) {
    match result {
        Ok(()) => {
            health.consecutive_failures = 0;
            health.first_success = health.first_success.or(Some(now));
            // A success in the very moment of a failure is the later of the two.
            let after_failure = health.last_failure.filter(|failure| *failure >= now).map(|failure| failure + Duration::from_millis(1));
            health.last_success = Some(after_failure.unwrap_or(now));
        }
        Err(cause) => {
            health.consecutive_failures = health.consecutive_failures.saturating_add(1);
            health.last_failure = Some(health.last_success.filter(|success| *success > now).unwrap_or(now));
            health.last_failure_cause = Some(cut(cause.to_owned(), MESSAGE_MAX));
        }
    }
}

/// Whether a task in this state ended otherwise than it should.
fn is_failure(state: TaskState) -> bool {
    matches!(
        state,
        TaskState::Failed
            | TaskState::Error
            | TaskState::Lost
            | TaskState::Dropped
            | TaskState::Gone
            | TaskState::GoneByOperator
            | TaskState::Unknown
    )
}

/// The state as a framework that knows partitions sees it, when the master still spoke of lost tasks.
fn understood(status: &TaskStatus) -> TaskState {
    if status.state != TaskState::Lost {
        return status.state;
    }
    match status.reason.as_deref() {
        Some(
            "REASON_RECONCILIATION"
            | "REASON_AGENT_DISCONNECTED"
            | "REASON_SLAVE_DISCONNECTED"
            | "REASON_AGENT_REMOVED"
            | "REASON_SLAVE_REMOVED",
        ) => {
            if status.message.contains("unknown") {
                TaskState::Unknown
            } else {
                TaskState::Unreachable
            }
        }
        _ => TaskState::Gone,
    }
}

fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}
