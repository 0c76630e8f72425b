//! What is stored of the table, and the table that comes back from it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use mesos_proto::v1::{CheckStatusInfo, ExecutorInfo, FrameworkInfo, TaskInfo, TaskState, TaskStatus, task_status};
use prost::Message as _;

use super::state::{Executor, Framework, Kill, Kind, Phase, Task};
use super::{Alarm, Drain, Effect, Started, Table, completed};
use crate::words::{ContainerKey, ExecutorKey, Now, TaskKey, is_terminal};

/// The name of a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKey {
    /// Of the agent itself.
    Agent,
    /// Of a framework, without its executors.
    Framework(String),
    /// Of an executor, without its tasks.
    Executor(ExecutorKey),
    /// Of a task of an executor, with its updates.
    Task(ExecutorKey, String),
    /// Of an executor that is over, with its tasks: framework and container.
    Completed(String, String),
}

/// A change of what is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which.
    pub key: RecordKey,
    /// The whole of it, or `None` when it is no more.
    pub value: Option<Vec<u8>>,
}

/// Why what was stored cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// Written by something else, or damaged.
    #[error("the record of {0} is damaged")]
    Damaged(String),
}

#[derive(Clone, PartialEq, prost::Message)]
struct StoredAgent {
    #[prost(string, tag = "1")]
    agent_id: String,
    #[prost(bool, tag = "2")]
    draining: bool,
    #[prost(uint64, optional, tag = "3")]
    max_grace_nanos: Option<u64>,
    #[prost(bool, tag = "4")]
    mark_gone: bool,
    #[prost(double, optional, tag = "5")]
    drain_began: Option<f64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StoredFramework {
    #[prost(message, optional, tag = "1")]
    info: Option<FrameworkInfo>,
    #[prost(bool, tag = "2")]
    shutting_down: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StoredExecutor {
    #[prost(message, optional, tag = "1")]
    info: Option<ExecutorInfo>,
    #[prost(uint32, tag = "2")]
    kind: u32,
    #[prost(string, tag = "3")]
    container: String,
    #[prost(uint32, tag = "4")]
    phase: u32,
    #[prost(bool, tag = "5")]
    had_task: bool,
    #[prost(uint64, tag = "6")]
    next_group: u64,
    #[prost(int32, optional, tag = "8")]
    destroyed_for: Option<i32>,
    #[prost(string, tag = "9")]
    destroyed_message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StoredTask {
    #[prost(message, optional, tag = "1")]
    info: Option<TaskInfo>,
    #[prost(uint64, optional, tag = "2")]
    group: Option<u64>,
    #[prost(int32, tag = "3")]
    state: i32,
    #[prost(bool, tag = "4")]
    delivered: bool,
    #[prost(string, optional, tag = "5")]
    container: Option<String>,
    #[prost(message, repeated, tag = "6")]
    statuses: Vec<TaskStatus>,
    #[prost(message, repeated, tag = "7")]
    pending: Vec<TaskStatus>,
    #[prost(message, optional, tag = "8")]
    kill: Option<StoredKill>,
    #[prost(bool, optional, tag = "9")]
    healthy: Option<bool>,
    #[prost(message, optional, tag = "10")]
    check: Option<CheckStatusInfo>,
    #[prost(uint32, tag = "11")]
    failures: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StoredKill {
    #[prost(uint64, tag = "1")]
    grace_nanos: u64,
    #[prost(int32, tag = "2")]
    ends: i32,
    #[prost(int32, optional, tag = "3")]
    reason: Option<i32>,
    #[prost(string, optional, tag = "4")]
    message: Option<String>,
    #[prost(bool, tag = "5")]
    in_launch: bool,
    #[prost(bool, tag = "6")]
    forced: bool,
}

impl Table {
    /// What has changed since the last call.
    pub(super) fn records(&mut self) -> Vec<Record> {
        let dirty = std::mem::take(&mut self.dirty);
        dirty.into_iter().map(|key| Record { value: self.stored(&key), key }).collect()
    }

    fn stored(&self, key: &RecordKey) -> Option<Vec<u8>> {
        match key {
            RecordKey::Agent => Some(
                StoredAgent {
                    agent_id: self.agent_id.clone(),
                    draining: self.drain.is_some(),
                    max_grace_nanos: self.drain.as_ref().and_then(|it| it.max_grace_period).map(nanos),
                    mark_gone: self.drain.as_ref().is_some_and(|it| it.mark_gone),
                    drain_began: self.drain_began,
                }
                .encode_to_vec(),
            ),
            RecordKey::Framework(id) => {
                let it = self.frameworks.get(id)?;
                Some(StoredFramework { info: Some(it.info.clone()), shutting_down: it.shutting_down }.encode_to_vec())
            }
            RecordKey::Executor(key) => Some(stored_executor(self.executor(key)?).encode_to_vec()),
            RecordKey::Completed(framework, container) => self.stored_completed(framework, container),
            RecordKey::Task(key, task) => Some(stored_task(self.executor(key)?.tasks.get(task)?).encode_to_vec()),
        }
    }

    /// Puts back what was stored. Effects say which containers to look after; their answers are inputs like any other.
    ///
    /// Tasks of frameworks that do not checkpoint are over with the agent that ran them: their containers are destroyed, and nothing is told.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn recover(&mut self, now: Now, records: impl IntoIterator<Item = (RecordKey, Vec<u8>)>) -> Result<Vec<Effect>, RecoverError> {
        let mut executors = Vec::new();
        let mut tasks = Vec::new();
        let mut over = Vec::new();
        for (key, value) in records {
            let damaged = || RecoverError::Damaged(format!("{key:?}"));
            match &key {
                RecordKey::Agent => {
                    let stored = StoredAgent::decode(&*value).map_err(|_| damaged())?;
                    self.agent_id = stored.agent_id;
                    self.drain_began = stored.drain_began;
                    self.drain = stored
                        .draining
                        .then(|| Drain { max_grace_period: stored.max_grace_nanos.map(Duration::from_nanos), mark_gone: stored.mark_gone });
                }
                RecordKey::Framework(id) => {
                    let stored = StoredFramework::decode(&*value).map_err(|_| damaged())?;
                    let info = stored.info.ok_or_else(damaged)?;
                    let framework =
                        Framework { info, executors: BTreeMap::new(), completed: VecDeque::new(), shutting_down: stored.shutting_down };
                    self.frameworks.insert(id.clone(), framework);
                }
                RecordKey::Executor(it) => {
                    let stored = StoredExecutor::decode(&*value).map_err(|_| damaged())?;
                    executors.push((it.clone(), restored_executor(stored).ok_or_else(damaged)?));
                }
                RecordKey::Completed(..) => over.push(completed::restored(&key, &value)?),
                RecordKey::Task(it, task) => {
                    let stored = StoredTask::decode(&*value).map_err(|_| damaged())?;
                    tasks.push((it.clone(), task.clone(), restored_task(stored).ok_or_else(damaged)?));
                }
            }
        }
        let keys: Vec<ExecutorKey> = executors.iter().map(|(key, _)| key.clone()).collect();
        for (key, executor) in executors {
            if let Some(framework) = self.frameworks.get_mut(&key.framework) {
                framework.executors.insert(key.executor, executor);
            }
        }
        for (key, id, task) in tasks {
            if let Some(executor) = self.executor_mut(&key) {
                executor.tasks.insert(id, task);
            }
        }
        self.restore_completed(over);
        let mut effects = Vec::new();
        for key in keys {
            self.reattach(now, &key, &mut effects);
        }
        self.sweep(&mut effects);
        Ok(effects)
    }

    fn reattach(&mut self, now: Now, key: &ExecutorKey, out: &mut Vec<Effect>) {
        let reregistration = self.limits.executor_reregistration_timeout;
        let Some(framework) = self.frameworks.get_mut(&key.framework) else { return };
        let survives = framework.info.checkpoint();
        let Some(executor) = framework.executors.get_mut(&key.executor) else { return };
        if executor.phase == Phase::Terminated {
            return;
        }
        if !survives {
            // The master has told the framework already that they are lost.
            let tasks = std::mem::take(&mut executor.tasks);
            executor.phase = Phase::Terminated;
            out.push(Effect::Destroy(executor.container.clone()));
            self.dirty.insert(RecordKey::Executor(key.clone()));
            self.dirty.extend(tasks.into_keys().map(|task| RecordKey::Task(key.clone(), task)));
            return;
        }
        let kind = executor.kind;
        let nested: Vec<TaskKey> = executor
            .tasks
            .iter()
            .filter(|(_, it)| kind == Kind::Default && it.delivered && !is_terminal(it.state))
            .map(|(task, _)| TaskKey { framework: key.framework.clone(), task: task.clone() })
            .collect();
        if let Some(launch) = self.executor_launch(key) {
            out.push(Effect::Reattach(Box::new(launch)));
        }
        for task in nested {
            out.extend(self.nested_launch(&task).map(|it| Effect::Reattach(Box::new(it))));
        }
        if kind == Kind::Custom {
            self.alarm(now.steady + reregistration, Alarm::Register(key.clone()));
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn stored_executor(it: &Executor) -> StoredExecutor {
    StoredExecutor {
        info: Some(it.info.clone()),
        kind: match it.kind {
            Kind::Command => 0,
            Kind::Default => 1,
            Kind::Custom => 2,
        },
        container: it.container.as_str().to_owned(),
        phase: match it.phase {
            Phase::Launching => 0,
            Phase::Registering => 1,
            Phase::Running => 2,
            Phase::Terminating => 3,
            Phase::Terminated => 4,
        },
        had_task: it.had_task,
        next_group: it.next_group,
        destroyed_for: it.destroyed_for.as_ref().map(|(reason, _)| *reason as i32),
        destroyed_message: it.destroyed_for.as_ref().map(|(_, message)| message.clone()).unwrap_or_default(),
    }
}

pub(super) fn stored_task(it: &Task) -> StoredTask {
    StoredTask {
        info: Some(it.info.clone()),
        group: it.group,
        state: it.state as i32,
        delivered: it.delivered,
        container: it.container.as_ref().map(|it| it.as_str().to_owned()),
        statuses: it.statuses.clone(),
        pending: it.pending.iter().cloned().collect(),
        kill: it.kill.as_ref().map(|it| StoredKill {
            grace_nanos: nanos(it.grace),
            ends: it.ends as i32,
            reason: it.reason.map(|it| it as i32),
            message: it.message.clone(),
            in_launch: it.in_launch,
            forced: it.forced,
        }),
        healthy: it.healthy,
        check: it.check,
        failures: it.failures,
    }
}

pub(super) fn restored_executor(stored: StoredExecutor) -> Option<Executor> {
    let kind = match stored.kind {
        0 => Kind::Command,
        1 => Kind::Default,
        2 => Kind::Custom,
        _ => return None,
    };
    let phase = match stored.phase {
        0 => Phase::Launching,
        1 => Phase::Registering,
        2 if kind == Kind::Custom => Phase::Registering,
        2 => Phase::Running,
        3 => Phase::Terminating,
        4 => Phase::Terminated,
        _ => return None,
    };
    let destroyed_for = stored.destroyed_for.and_then(|it| task_status::Reason::try_from(it).ok());
    Some(Executor {
        info: stored.info?,
        kind,
        container: ContainerKey::from_text(&stored.container),
        phase,
        subscribed: false,
        tasks: BTreeMap::new(),
        completed: VecDeque::new(),
        had_task: stored.had_task,
        next_group: stored.next_group,
        destroyed_for: destroyed_for.map(|it| (it, stored.destroyed_message)),
        started: Started::default(),
        ended: 0,
    })
}

pub(super) fn restored_task(stored: StoredTask) -> Option<Task> {
    let kill = match stored.kill {
        None => None,
        Some(it) => Some(Kill {
            grace: Duration::from_nanos(it.grace_nanos),
            ends: TaskState::try_from(it.ends).ok()?,
            reason: it.reason.and_then(|it| task_status::Reason::try_from(it).ok()),
            message: it.message,
            limitation: None,
            in_launch: it.in_launch,
            forced: it.forced,
        }),
    };
    Some(Task {
        info: stored.info?,
        group: stored.group,
        state: TaskState::try_from(stored.state).ok()?,
        delivered: stored.delivered,
        container: stored.container.as_deref().map(ContainerKey::from_text),
        started: None,
        statuses: stored.statuses,
        pending: stored.pending.into(),
        attempts: 0,
        kill,
        healthy: stored.healthy,
        check: stored.check,
        failures: stored.failures,
        running_since: None,
    })
}
