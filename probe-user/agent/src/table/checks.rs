//! What follows from the results of checks.

use mesos_proto::v1::{CheckStatusInfo, TaskState, task_status};

use super::{Effect, RecordKey, Table};
use crate::words::{ContainerKey, Now, TaskKey};

impl Table {
    pub(super) fn health(&mut self, now: Now, key: &TaskKey, container: &ContainerKey, result: Result<(), String>, out: &mut Vec<Effect>) {
        let Some(holder) = self.holder(key) else { return };
        let Some(task) = self.task_mut(key) else { return };
        let (Some(check), Some(since)) = (task.info.health_check.clone(), task.running_since) else { return };
        if task.container.as_ref() != Some(container) || task.state != TaskState::TaskRunning || task.kill.is_some() {
            return;
        }
        let (healthy, message) = match result {
            Ok(()) => {
                let changed = task.healthy != Some(true);
                task.failures = 0;
                if !changed {
                    return;
                }
                (true, None)
            }
            Err(problem) => {
                let grace = std::time::Duration::try_from_secs_f64(check.grace_period_seconds()).unwrap_or_default();
                // Failures within the grace period do not count until the task was well once.
                if task.healthy.is_none() && now.steady.saturating_sub(since) < grace {
                    return;
                }
                task.failures = task.failures.saturating_add(1);
                (false, Some(problem))
            }
        };
        task.healthy = Some(healthy);
        let kill = !healthy && task.failures >= check.consecutive_failures().max(1);
        self.dirty.insert(RecordKey::Task(holder, key.task.clone()));
        let mut status = Self::status(&key.task, TaskState::TaskRunning, task_status::Source::Executor);
        status.reason = Some(task_status::Reason::TaskHealthCheckStatusUpdated as i32);
        status.healthy = Some(healthy);
        status.message.clone_from(&message);
        self.update(now, key, status, out);
        if kill {
            let message = format!("Killed for failing health checks: {}", message.unwrap_or_default());
            let why = (TaskState::TaskKilled, task_status::Reason::TaskHealthCheckStatusUpdated, message);
            self.kill_for(now, key, None, Some(why), out);
        }
    }

    pub(super) fn checked(&mut self, now: Now, key: &TaskKey, container: &ContainerKey, status: CheckStatusInfo, out: &mut Vec<Effect>) {
        let Some(task) = self.task_mut(key) else { return };
        if task.container.as_ref() != Some(container) || task.state != TaskState::TaskRunning || task.check.as_ref() == Some(&status) {
            return;
        }
        task.check = Some(status);
        let mut update = Self::status(&key.task, TaskState::TaskRunning, task_status::Source::Executor);
        update.reason = Some(task_status::Reason::TaskCheckStatusUpdated as i32);
        self.update(now, key, update, out);
    }
}
