//! Custom executors: their streams, their timeouts, and what they and their schedulers say to each other.

use mesos_proto::v1::{DurationInfo, FrameworkInfo, KillPolicy, TaskId, TaskInfo, TaskState, TaskStatus, executor, task_status};

use super::run::event;
use super::state::{Kind, Phase};
use super::updates::Refusal;
use super::{Alarm, Effect, RecordKey, Table};
use crate::words::{ExecutorKey, Now, TaskKey, dropped, is_terminal};

impl Table {
    pub(super) fn subscribed(
        &mut self,
        now: Now,
        key: &ExecutorKey,
        tasks: &[TaskInfo],
        updates: Vec<TaskStatus>,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let framework = self.frameworks.get_mut(&key.framework).ok_or(Refusal::FrameworkUnknown)?;
        let framework_info = framework.info.clone();
        let executor = framework.executors.get_mut(&key.executor).ok_or(Refusal::ExecutorUnknown)?;
        if executor.kind != Kind::Custom {
            return Err(Refusal::ExecutorUnknown);
        }
        if matches!(executor.phase, Phase::Terminating | Phase::Terminated) {
            return Err(Refusal::Terminating);
        }
        let resumed = executor.had_task;
        executor.subscribed = true;
        // It may be quicker than the news that its container runs.
        executor.phase = Phase::Running;
        let mut subscribed = event(executor::event::Type::Subscribed);
        subscribed.subscribed = Some(executor::event::Subscribed {
            executor_info: executor.info.clone(),
            framework_info,
            // The edge fills in the agent.
            agent_info: mesos_proto::v1::AgentInfo::default(),
            container_id: Some(executor.container.to_message()),
        });
        out.push(Effect::TellExecutor { executor: key.clone(), event: Box::new(subscribed) });
        self.silence(&Alarm::Register(key.clone()));
        self.dirty.insert(RecordKey::Executor(key.clone()));
        for status in updates {
            // A refused one comes again when its executor subscribes again.
            let _ = self.take_update(now, key, status, out);
        }
        if resumed {
            self.drop_unreceived(now, key, tasks, out);
            self.repeat_kills(key, out);
        }
        self.deliver(key, out);
        let idle = self.executor(key).is_some_and(|it| !it.had_task && it.tasks.values().all(|it| is_terminal(it.state)));
        if idle {
            self.shutdown_executor(now, key, out);
        }
        Ok(())
    }

    /// Tasks that were given to the executor while the agent was restarted, and that it does not know.
    fn drop_unreceived(&mut self, now: Now, key: &ExecutorKey, received: &[TaskInfo], out: &mut Vec<Effect>) {
        let Some(executor) = self.executor(key) else { return };
        let lost: Vec<String> = executor
            .tasks
            .iter()
            .filter(|(id, it)| {
                it.delivered && it.state == TaskState::TaskStaging && !received.iter().any(|info| info.task_id.value == **id)
            })
            .map(|(id, _)| id.clone())
            .collect();
        let framework = self.frameworks.get(&key.framework).map(|it| it.info.clone()).unwrap_or_default();
        for task in lost {
            let mut status = Self::status(&task, dropped(&framework), task_status::Source::Agent);
            status.reason = Some(task_status::Reason::AgentRestarted as i32);
            status.message = Some("Task launched during agent restart".to_owned());
            self.update(now, &TaskKey { framework: key.framework.clone(), task }, status, out);
        }
    }

    /// Kills that were wanted while the executor was away.
    fn repeat_kills(&self, key: &ExecutorKey, out: &mut Vec<Effect>) {
        let Some(executor) = self.executor(key) else { return };
        for (id, task) in executor.tasks.iter().filter(|(_, it)| !is_terminal(it.state)) {
            let Some(kill) = &task.kill else { continue };
            let nanoseconds = i64::try_from(kill.grace.as_nanos()).unwrap_or(i64::MAX);
            let mut event = event(executor::event::Type::Kill);
            event.kill = Some(executor::event::Kill {
                task_id: TaskId { value: id.clone() },
                kill_policy: Some(KillPolicy { grace_period: Some(DurationInfo { nanoseconds }) }),
            });
            out.push(Effect::TellExecutor { executor: key.clone(), event: Box::new(event) });
        }
    }

    pub(super) fn unsubscribed(&mut self, _now: Now, key: &ExecutorKey, out: &mut Vec<Effect>) {
        let Some(framework) = self.frameworks.get(&key.framework) else { return };
        let checkpoints = framework.info.checkpoint();
        let Some(executor) = self.executor_mut(key) else { return };
        executor.subscribed = false;
        // One that does not checkpoint ends by itself when its stream breaks; should it not, it is ended.
        if !checkpoints && !matches!(executor.phase, Phase::Terminating | Phase::Terminated) && executor.kind == Kind::Custom {
            self.destroy_executor(key, out);
        }
    }

    pub(super) fn registration_timed_out(&mut self, _now: Now, key: &ExecutorKey, out: &mut Vec<Effect>) {
        let timeout = crate::words::render_duration(self.limits.executor_registration_timeout);
        let Some(executor) = self.executor_mut(key) else { return };
        if executor.subscribed || executor.kind != Kind::Custom {
            return;
        }
        executor.destroyed_for = Some(if executor.had_task {
            (
                task_status::Reason::ExecutorReregistrationTimeout,
                "Executor did not re-register in time after the agent's restart".to_owned(),
            )
        } else {
            (task_status::Reason::ExecutorRegistrationTimeout, format!("Executor did not register within {timeout}"))
        });
        self.destroy_executor(key, out);
    }

    pub(super) fn framework_message(&mut self, key: &ExecutorKey, data: Vec<u8>, out: &mut Vec<Effect>) {
        if self.subscribed_executor(key).is_err() {
            self.counts.invalid_messages += 1;
            return;
        }
        self.counts.valid_messages += 1;
        let mut event = event(executor::event::Type::Message);
        event.message = Some(executor::event::Message { data });
        out.push(Effect::TellExecutor { executor: key.clone(), event: Box::new(event) });
    }

    pub(super) fn executor_message(&mut self, key: &ExecutorKey, data: Vec<u8>, out: &mut Vec<Effect>) -> Result<(), Refusal> {
        self.subscribed_executor(key)?;
        self.counts.valid_messages += 1;
        out.push(Effect::SendMessage { executor: key.clone(), data });
        Ok(())
    }

    pub(super) fn update_framework(&mut self, info: FrameworkInfo) {
        let id = info.id.clone().unwrap_or_default().value;
        if let Some(framework) = self.frameworks.get_mut(&id) {
            framework.info = info;
            self.dirty.insert(RecordKey::Framework(id));
        }
    }
}
