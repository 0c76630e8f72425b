//! What is remembered of frameworks, executors and tasks.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use mesos_proto::v1::{CheckStatusInfo, ExecutorInfo, FrameworkInfo, Resource, TaskInfo, TaskState, TaskStatus, task_status, value};

use super::{Allowance, Limitation, Started};
use crate::words::{ContainerKey, is_terminal, scalar};

/// A framework that has something here, or had.
#[derive(Clone, Debug)]
pub struct Framework {
    /// As it described itself last.
    pub info: FrameworkInfo,
    /// By id.
    pub executors: BTreeMap<String, Executor>,
    /// Those that are over, oldest first.
    pub completed: VecDeque<Executor>,
    /// It is no more: nothing new begins, nothing is told.
    pub shutting_down: bool,
}

/// Who drives an executor's tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Built in: one task, which is the container.
    Command,
    /// Built in: groups of tasks, each a container nested in the executor's.
    Default,
    /// A program of the framework that speaks the executor API.
    Custom,
}

/// How far an executor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its container is being made.
    Launching,
    /// Its container runs, and it has not opened its stream.
    Registering,
    /// It serves.
    Running,
    /// It was told to end.
    Terminating,
    /// Its container is no more; updates may wait for acknowledgement.
    Terminated,
}

/// An executor.
#[derive(Clone, Debug)]
pub struct Executor {
    /// As it was described, or as Mesos would describe a built-in one.
    pub info: ExecutorInfo,
    /// Who drives its tasks.
    pub kind: Kind,
    /// Its container.
    pub container: ContainerKey,
    /// How far it is.
    pub phase: Phase,
    /// Whether its stream is open. Only of custom ones.
    pub subscribed: bool,
    /// By id: those that are not over, or are with updates that wait for acknowledgement.
    pub tasks: BTreeMap<String, Task>,
    /// Tasks that are over, oldest first.
    pub completed: VecDeque<Task>,
    /// Whether it was ever given a task.
    pub had_task: bool,
    /// Number of the next group.
    pub next_group: u64,
    /// Why it is being destroyed, if that is not its own doing.
    pub destroyed_for: Option<(task_status::Reason, String)>,
    /// What is known of its container.
    pub started: Started,
    /// Of those that are over: its place in the order in which they ended.
    pub ended: u64,
}

impl Executor {
    /// What its tasks and it may use together.
    pub fn resources(&self) -> Vec<Resource> {
        let mut resources = if self.kind == Kind::Command { Vec::new() } else { self.info.resources.clone() };
        for task in self.tasks.values().filter(|it| !is_terminal(it.state)) {
            resources.extend(task.info.resources.iter().cloned());
        }
        resources
    }

    /// What its tasks and it may use at most together, as Mesos adds it up: a task without a limit of its own counts with what it was given. Nothing
    /// where no task has a limit; infinite where one is. Sources: Mesos's `computeExecutorLimits`.
    pub fn limits(&self) -> BTreeMap<String, value::Scalar> {
        let mut limits = BTreeMap::new();
        for name in ["cpus", "mem"] {
            let mut limit: Option<f64> = None;
            let mut given = if self.kind == Kind::Command { 0.0 } else { scalar(&self.info.resources, name) };
            for task in self.tasks.values().filter(|it| !is_terminal(it.state)) {
                match task.info.limits.get(name) {
                    // An infinite one makes the sum infinite.
                    Some(it) => limit = Some(limit.unwrap_or_default() + it.value),
                    None => given += scalar(&task.info.resources, name),
                }
            }
            limits.extend(limit.map(|it| (name.to_owned(), value::Scalar { value: it + given })));
        }
        limits
    }

    /// What its container may use.
    pub fn allowance(&self) -> Allowance {
        Allowance { resources: self.resources(), limits: self.limits() }
    }

    /// Whether a task of it is not over.
    pub fn is_busy(&self) -> bool {
        self.tasks.values().any(|it| !is_terminal(it.state))
    }
}

/// A task.
#[derive(Clone, Debug)]
pub struct Task {
    /// As the framework described it.
    pub info: TaskInfo,
    /// The group that it belongs to, numbered within its executor.
    pub group: Option<u64>,
    /// The newest state.
    pub state: TaskState,
    /// Whether its executor was told of it, or its container is being made.
    pub delivered: bool,
    /// Its container: the executor's, or one nested in it. Custom executors have their own idea of that.
    pub container: Option<ContainerKey>,
    /// What is known of the container.
    pub started: Option<Started>,
    /// One per state, oldest first.
    pub statuses: Vec<TaskStatus>,
    /// Updates that are not acknowledged, oldest first. The first is or will be under way.
    pub pending: VecDeque<TaskStatus>,
    /// How often the first was sent.
    pub attempts: u32,
    /// It is being killed.
    pub kill: Option<Kill>,
    /// As its checks last said.
    pub healthy: Option<bool>,
    /// As its check last said.
    pub check: Option<CheckStatusInfo>,
    /// Health checks that failed in a row.
    pub failures: u32,
    /// When its container was first seen to run, on the steady clock.
    pub running_since: Option<Duration>,
}

/// Why and how a task is being killed.
#[derive(Clone, Debug, PartialEq)]
pub struct Kill {
    /// How long it has.
    pub grace: Duration,
    /// In which state it ends.
    pub ends: TaskState,
    /// And why.
    pub reason: Option<task_status::Reason>,
    /// For people.
    pub message: Option<String>,
    /// The limit it is killed for.
    pub limitation: Option<Limitation>,
    /// It had not started when it was killed.
    pub in_launch: bool,
    /// Its grace period is over.
    pub forced: bool,
}

impl Task {
    /// A task that begins.
    pub fn new(info: TaskInfo, group: Option<u64>) -> Self {
        Task {
            info,
            group,
            state: TaskState::TaskStaging,
            delivered: false,
            container: None,
            started: None,
            statuses: Vec::new(),
            pending: VecDeque::new(),
            attempts: 0,
            kill: None,
            healthy: None,
            check: None,
            failures: 0,
            running_since: None,
        }
    }
}
