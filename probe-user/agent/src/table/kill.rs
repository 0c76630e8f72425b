//! Ending tasks, executors, frameworks and the agent.

use std::time::Duration;

use mesos_proto::v1::{DurationInfo, KillPolicy, TaskState, executor, framework_info, task_status};

use super::run::{event, has_begun};
use super::state::{Kill, Kind, Phase};
use super::{Alarm, Effect, RecordKey, Table};
use crate::words::{ContainerKey, ExecutorKey, Now, TaskKey, has_capability, is_terminal, nanoseconds};

/// How long a command has after SIGTERM where nobody says.
const KILL_GRACE: Duration = Duration::from_secs(3);

/// Docker ends a container itself when its time is over; this much later it is asked again.
const DOCKER_AFTER_GRACE: Duration = Duration::from_secs(5);

impl Table {
    pub(super) fn kill(&mut self, now: Now, key: &TaskKey, policy: Option<&KillPolicy>, out: &mut Vec<Effect>) {
        self.kill_for(now, key, policy, None, out);
    }

    /// Ends a task. `why` where it is not because somebody asked for it: the state it ends in, the reason and words.
    pub(super) fn kill_for(
        &mut self,
        now: Now,
        key: &TaskKey,
        policy: Option<&KillPolicy>,
        why: Option<(TaskState, task_status::Reason, String)>,
        out: &mut Vec<Effect>,
    ) {
        let Some(holder) = self.holder(key) else {
            self.kill_unknown(now, key, out);
            return;
        };
        let longest = self.drain.as_ref().and_then(|it| it.max_grace_period);
        let Some(executor) = self.executor(&holder) else { return };
        let (kind, subscribed) = (executor.kind, executor.subscribed);
        let executor_container = executor.container.clone();
        let Some(task) = executor.tasks.get(&key.task) else { return };
        if is_terminal(task.state) {
            return;
        }
        let grace = policy.or(task.info.kill_policy.as_ref()).and_then(|it| it.grace_period.as_ref());
        let is_docker = task.info.container.as_ref().is_some_and(|it| it.docker.is_some());
        let usual = if is_docker { KILL_GRACE.max(self.limits.docker_stop_timeout) } else { KILL_GRACE };
        let grace = grace.map_or(usual, |it| nanoseconds(it.nanoseconds));
        let grace = longest.map_or(grace, |longest| grace.min(longest));
        if kind == Kind::Custom {
            let delivered = task.delivered;
            // While the agent drains, its executors are to know that there is less time.
            let policy = match longest {
                Some(_) => Some(KillPolicy {
                    grace_period: Some(DurationInfo { nanoseconds: i64::try_from(grace.as_nanos()).unwrap_or(i64::MAX) }),
                }),
                None => policy.cloned(),
            };
            self.kill_in_custom(now, key, &holder, policy, delivered, subscribed, out);
            return;
        }
        let in_launch = !has_begun(task.state);
        let undelivered = !task.delivered;
        let container = task.container.clone().unwrap_or(executor_container);
        if let Some(kill) = &task.kill {
            // A second kill may shorten the time, not lengthen it.
            if grace < kill.grace && !kill.in_launch {
                self.set_kill_grace(key, grace);
                self.end_container(now, key, &container, grace, kill_is_over(grace), out);
            }
            return;
        }
        let (ends, reason, message) = match why {
            Some((ends, reason, message)) => (ends, Some(reason), Some(message)),
            None => (TaskState::TaskKilled, None, None),
        };
        let kill = Kill { grace, ends, reason, message, limitation: None, in_launch, forced: false };
        if undelivered {
            // Its container does not exist yet, and neither do those of its group, which never begins.
            for task in self.group_of(&holder, key) {
                let key = TaskKey { framework: key.framework.clone(), task };
                if let Some(task) = self.task_mut(&key) {
                    task.kill = Some(kill.clone());
                }
                let mut status = Self::status(&key.task, TaskState::TaskKilled, task_status::Source::Agent);
                status.reason = Some(task_status::Reason::TaskKilledDuringLaunch as i32);
                status.message = Some("Killed before its executor was ready".to_owned());
                self.update(now, &key, status, out);
            }
            if self.executor(&holder).is_some_and(|it| !it.is_busy()) {
                self.destroy_executor(&holder, out);
            } else {
                self.resize(&holder, out);
            }
            return;
        }
        if let Some(task) = self.task_mut(key) {
            task.kill = Some(kill);
        }
        self.dirty.insert(RecordKey::Task(holder.clone(), key.task.clone()));
        out.push(Effect::StopChecks(key.clone()));
        if in_launch {
            out.push(Effect::Destroy(container));
            return;
        }
        let tells = self.frameworks.get(&key.framework);
        let tells = tells.is_some_and(|it| has_capability(&it.info, framework_info::capability::Type::TaskKillingState));
        if tells {
            let status = Self::status(&key.task, TaskState::TaskKilling, task_status::Source::Executor);
            self.update(now, key, status, out);
        }
        self.end_container(now, key, &container, grace, kill_is_over(grace), out);
    }

    fn set_kill_grace(&mut self, key: &TaskKey, grace: Duration) {
        if let Some(kill) = self.task_mut(key).and_then(|it| it.kill.as_mut()) {
            kill.grace = grace;
        }
    }

    /// Asks a container to end, and looks again when its time is over.
    pub(super) fn end_container(
        &mut self,
        now: Now,
        key: &TaskKey,
        container: &ContainerKey,
        grace: Duration,
        forced: bool,
        out: &mut Vec<Effect>,
    ) {
        if forced {
            out.push(Effect::Destroy(container.clone()));
            return;
        }
        out.push(Effect::Terminate { container: container.clone(), grace });
        let is_docker = self.task(key).is_some_and(|it| it.info.container.as_ref().is_some_and(|it| it.docker.is_some()));
        let patience = if is_docker { grace + DOCKER_AFTER_GRACE } else { grace };
        self.alarm(now.steady + patience, Alarm::KillGrace(key.clone()));
    }

    pub(super) fn kill_grace_over(&mut self, now: Now, key: &TaskKey, out: &mut Vec<Effect>) {
        let Some(task) = self.task_mut(key) else { return };
        let Some(kill) = task.kill.as_mut() else { return };
        kill.forced = true;
        let Some(container) = task.container.clone() else { return };
        out.push(Effect::Destroy(container));
        // Should the runtime have been away: again.
        self.alarm(now.steady + DOCKER_AFTER_GRACE, Alarm::KillGrace(key.clone()));
    }

    pub(super) fn max_completion_reached(&mut self, now: Now, key: &TaskKey, out: &mut Vec<Effect>) {
        let message = "Task exceeded its max completion time".to_owned();
        let why = (TaskState::TaskFailed, task_status::Reason::MaxCompletionTimeReached, message);
        self.kill_for(now, key, None, Some(why), out);
    }

    #[expect(clippy::too_many_arguments, reason = "what the caller has looked up already")]
    fn kill_in_custom(
        &mut self,
        now: Now,
        key: &TaskKey,
        holder: &ExecutorKey,
        policy: Option<KillPolicy>,
        delivered: bool,
        subscribed: bool,
        out: &mut Vec<Effect>,
    ) {
        if !delivered {
            let group: Vec<String> = self.group_of(holder, key);
            for task in group {
                let key = TaskKey { framework: key.framework.clone(), task };
                let mut status = Self::status(&key.task, TaskState::TaskKilled, task_status::Source::Agent);
                status.reason = Some(task_status::Reason::TaskKilledDuringLaunch as i32);
                status.message = Some("A kill arrived before the executor had the task".to_owned());
                self.update(now, &key, status, out);
            }
            self.resize(holder, out);
            return;
        }
        if let Some(task) = self.task_mut(key) {
            // Remembered for an executor that is away.
            let grace = policy.as_ref().and_then(|it| it.grace_period.as_ref()).map_or(KILL_GRACE, |it| nanoseconds(it.nanoseconds));
            task.kill = Some(Kill {
                grace,
                ends: TaskState::TaskKilled,
                reason: None,
                message: None,
                limitation: None,
                in_launch: false,
                forced: false,
            });
            self.dirty.insert(RecordKey::Task(holder.clone(), key.task.clone()));
        }
        if subscribed {
            let mut event = event(executor::event::Type::Kill);
            event.kill = Some(executor::event::Kill { task_id: mesos_proto::v1::TaskId { value: key.task.clone() }, kill_policy: policy });
            out.push(Effect::TellExecutor { executor: holder.clone(), event: Box::new(event) });
        }
    }

    /// The task and those that live and die with it, as far as they have not begun.
    fn group_of(&self, holder: &ExecutorKey, key: &TaskKey) -> Vec<String> {
        let Some(executor) = self.executor(holder) else { return Vec::new() };
        match executor.tasks.get(&key.task).and_then(|it| it.group) {
            None => vec![key.task.clone()],
            group => executor.tasks.iter().filter(|(_, it)| it.group == group && !it.delivered).map(|(id, _)| id.clone()).collect(),
        }
    }

    /// A task that is not here: the master hears so, and takes it from there. Of a framework that has nothing here, what it can be told is not known:
    /// as Mesos's agent, this one then leaves the answer to the next reconciliation.
    fn kill_unknown(&mut self, now: Now, key: &TaskKey, out: &mut Vec<Effect>) {
        let Some(info) = self.frameworks.get(&key.framework).map(|it| it.info.clone()) else { return };
        let mut status = Self::status(&key.task, crate::words::dropped(&info), task_status::Source::Agent);
        status.reason = Some(task_status::Reason::Reconciliation as i32);
        status.message = Some("Cannot kill a task that is unknown to the agent".to_owned());
        self.tell_without_stream(now, key, "", status, out);
    }

    pub(super) fn shutdown_executor(&mut self, now: Now, key: &ExecutorKey, out: &mut Vec<Effect>) {
        let longest = self.limits.executor_shutdown_grace_period;
        let Some(executor) = self.executor_mut(key) else { return };
        if matches!(executor.phase, Phase::Terminating | Phase::Terminated) {
            return;
        }
        let was_serving = executor.phase == Phase::Running;
        let subscribed = executor.subscribed;
        let grace = executor.info.shutdown_grace_period.as_ref().map_or(longest, |it| nanoseconds(it.nanoseconds));
        executor.phase = Phase::Terminating;
        self.dirty.insert(RecordKey::Executor(key.clone()));
        if self.executor(key).is_some_and(|it| it.kind == Kind::Custom) {
            if subscribed {
                let event = event(executor::event::Type::Shutdown);
                out.push(Effect::TellExecutor { executor: key.clone(), event: Box::new(event) });
                self.alarm(now.steady + grace, Alarm::DestroyExecutor(key.clone()));
            } else {
                self.destroy_executor(key, out);
            }
            return;
        }
        let tasks: Vec<TaskKey> = self
            .executor(key)
            .into_iter()
            .flat_map(|it| it.tasks.keys())
            .map(|task| TaskKey { framework: key.framework.clone(), task: task.clone() })
            .collect();
        let busy = was_serving && self.executor(key).is_some_and(super::Executor::is_busy);
        for task in tasks {
            self.kill(now, &task, None, out);
        }
        if busy {
            let grace = grace.max(KILL_GRACE + DOCKER_AFTER_GRACE);
            self.alarm(now.steady + grace, Alarm::DestroyExecutor(key.clone()));
        } else {
            self.destroy_executor(key, out);
        }
    }

    pub(super) fn destroy_executor(&mut self, key: &ExecutorKey, out: &mut Vec<Effect>) {
        let Some(executor) = self.executor_mut(key) else { return };
        if executor.phase == Phase::Terminated {
            return;
        }
        executor.phase = Phase::Terminating;
        let container = executor.container.clone();
        self.dirty.insert(RecordKey::Executor(key.clone()));
        out.push(Effect::Destroy(container));
    }

    pub(super) fn shutdown_framework(&mut self, now: Now, id: &str, out: &mut Vec<Effect>) {
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        framework.shutting_down = true;
        self.dirty.insert(RecordKey::Framework(id.to_owned()));
        let executors: Vec<String> = framework.executors.keys().cloned().collect();
        for executor in executors {
            self.shutdown_executor(now, &ExecutorKey { framework: id.to_owned(), executor }, out);
        }
    }

    pub(super) fn shutdown_agent(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.ending = true;
        let frameworks: Vec<String> = self.frameworks.keys().cloned().collect();
        for framework in frameworks {
            self.shutdown_framework(now, &framework, out);
        }
    }
}

fn kill_is_over(grace: Duration) -> bool {
    grace.is_zero()
}
