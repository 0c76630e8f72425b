//! The task table: what runs here for whom, and what has to happen next. Pure: inputs and the time in, records and effects out.
//!
//! Owns frameworks, executors, tasks, status updates until they are acknowledged, kills, checks and the drain. Knows nothing of processes, Docker,
//! files, sockets or the clock. Three kinds of executors are driven here: the command executor (one task, built in), the default executor (task groups,
//! built in), and custom ones, which are containers of their own and speak the executor API.
//!
//! The caller stores [`Step::records`] before it does anything of [`Step::effects`]. Whatever was promised to a framework or an executor is then
//! still known after the agent was killed at any point.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::words::{ContainerKey, ExecutorKey, Ids, Now, TaskKey};

mod checks;
mod completed;
mod containers;
mod drain;
mod effect;
mod executors;
mod input;
mod kill;
mod records;
mod run;
mod state;
mod updates;

#[cfg(test)]
mod tests;

pub use effect::{Allowance, Effect, Launch};
pub use input::{Drain, Exit, Input, Limitation, Run, Started};
pub use records::{Record, RecordKey, RecoverError};
pub use state::{Executor, Framework, Kind, Phase, Task};
pub use updates::Refusal;

/// How long things take and how much is kept.
#[derive(Clone, Debug)]
pub struct Limits {
    /// From a launch until its executor must have subscribed.
    pub executor_registration_timeout: Duration,
    /// From recovery until executors must have subscribed again.
    pub executor_reregistration_timeout: Duration,
    /// From telling an executor to shut down until it is destroyed, where the executor names no time.
    pub executor_shutdown_grace_period: Duration,
    /// How long Docker's containers have after SIGTERM where nobody says, if that is more than what others have.
    pub docker_stop_timeout: Duration,
    /// First and longest pause before an update is sent again.
    pub update_retry: (Duration, Duration),
    /// Updates that are under way to the master at a time; the others wait.
    pub updates_in_flight: usize,
    /// Updates of one task that wait for acknowledgement; more from its executor are refused.
    pub updates_per_task: usize,
    /// Executors that are over and still shown, per framework.
    pub completed_executors: usize,
    /// Frameworks that are over and still shown.
    pub completed_frameworks: usize,
    /// Tasks that are over and still shown, per executor.
    pub completed_tasks: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            executor_registration_timeout: Duration::from_secs(60),
            executor_reregistration_timeout: Duration::from_secs(2),
            executor_shutdown_grace_period: Duration::from_secs(5),
            docker_stop_timeout: Duration::ZERO,
            update_retry: (Duration::from_secs(10), Duration::from_secs(600)),
            updates_in_flight: 1024,
            updates_per_task: 1000,
            completed_executors: 150,
            completed_frameworks: 50,
            completed_tasks: 200,
        }
    }
}

/// What one input led to.
#[derive(Debug, Default)]
pub struct Step {
    /// To be stored before anything else is done.
    pub records: Vec<Record>,
    /// To be done, in this order.
    pub effects: Vec<Effect>,
    /// Why the input was not taken, for whoever sent it.
    pub refusal: Option<Refusal>,
}

/// When the table wants to be woken, and for what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    Register(ExecutorKey),
    DestroyExecutor(ExecutorKey),
    Retry(TaskKey),
    KillGrace(TaskKey),
    MaxCompletion(TaskKey),
}

/// All that runs here.
pub struct Table {
    limits: Limits,
    ids: Box<dyn Ids>,
    agent_id: String,
    /// Where the agent is, for containers without an address of their own.
    agent_ip: String,
    frameworks: BTreeMap<String, Framework>,
    completed: VecDeque<Framework>,
    /// Place of the next executor that ends.
    next_ended: u64,
    drain: Option<Drain>,
    /// When it began, on the wall clock.
    drain_began: Option<f64>,
    ending: bool,
    connected: bool,
    alarms: BTreeSet<(Duration, Alarm)>,
    alarm_times: BTreeMap<Alarm, Duration>,
    /// Tasks whose first update is under way.
    in_flight: BTreeSet<TaskKey>,
    /// Tasks whose first update waits until fewer are under way.
    waiting: VecDeque<TaskKey>,
    dirty: BTreeSet<RecordKey>,
    counts: Counts,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("agent_id", &self.agent_id).field("frameworks", &self.frameworks.len()).finish_non_exhaustive()
    }
}

/// What has happened since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tasks that ended, by state.
    pub terminal: BTreeMap<i32, u64>,
    /// Updates that were taken from executors.
    pub valid_updates: u64,
    /// Updates that were refused.
    pub invalid_updates: u64,
    /// Messages that found their executor or scheduler.
    pub valid_messages: u64,
    /// Messages that did not.
    pub invalid_messages: u64,
    /// Containers that could not be made.
    pub launch_errors: u64,
    /// Executors that were ended.
    pub executors_terminated: u64,
}

impl Table {
    /// A table without anything.
    pub fn new(limits: Limits, agent_ip: &str, ids: Box<dyn Ids>) -> Self {
        Table {
            limits,
            ids,
            agent_id: String::new(),
            agent_ip: agent_ip.to_owned(),
            frameworks: BTreeMap::new(),
            completed: VecDeque::new(),
            next_ended: 0,
            drain: None,
            drain_began: None,
            ending: false,
            connected: false,
            alarms: BTreeSet::new(),
            alarm_times: BTreeMap::new(),
            in_flight: BTreeSet::new(),
            waiting: VecDeque::new(),
            dirty: BTreeSet::new(),
            counts: Counts::default(),
        }
    }

    /// Takes an input. Total: whatever comes has an outcome.
    pub fn step(&mut self, now: Now, input: Input) -> Step {
        let mut effects = Vec::new();
        let mut refusal = None;
        let out = &mut effects;
        match input {
            Input::Registered { agent_id, updates_in_flight } => self.registered(now, agent_id, updates_in_flight, out),
            Input::Disconnected => self.connected = false,
            Input::Run(run) => self.run(now, *run, out),
            Input::Kill { task, policy } => self.kill(now, &task, policy.as_ref(), out),
            Input::Acknowledge { task, uuid } => self.acknowledge(now, &task, &uuid, out),
            Input::FrameworkMessage { executor, data } => self.framework_message(&executor, data, out),
            Input::ShutdownExecutor(executor) => self.shutdown_executor(now, &executor, out),
            Input::ShutdownFramework(framework) => self.shutdown_framework(now, &framework, out),
            Input::UpdateFramework(info) => self.update_framework(*info),
            Input::Reconcile { framework, tasks } => self.reconcile(now, &framework, &tasks, out),
            Input::Drain(drain) => self.start_drain(now, drain, out),
            Input::Undrain => self.end_drain(),
            Input::ShutdownAgent => self.shutdown_agent(now, out),
            Input::Started { container, started } => self.started(now, &container, *started, out),
            Input::LaunchFailed { container, message, restarted } => self.launch_failed(now, &container, &message, restarted, out),
            Input::Exited { container, exit } => self.exited(now, &container, &exit, out),
            Input::Subscribed { executor, tasks, updates } => refusal = self.subscribed(now, &executor, &tasks, updates, out).err(),
            Input::Unsubscribed(executor) => self.unsubscribed(now, &executor, out),
            Input::ExecutorUpdate { executor, status } => refusal = self.executor_update(now, &executor, *status, out).err(),
            Input::ExecutorMessage { executor, data } => refusal = self.executor_message(&executor, data, out).err(),
            Input::Health { task, container, result } => self.health(now, &task, &container, result, out),
            Input::Check { task, container, status } => self.checked(now, &task, &container, status, out),
            Input::Tick => self.tick(now, out),
        }
        self.sweep(out);
        if refusal.is_some() {
            self.counts.invalid_updates += 1;
        }
        Step { records: self.records(), effects, refusal }
    }

    /// When [`Input::Tick`] has work next, on the steady clock.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.alarms.first().map(|(at, _)| *at)
    }

    /// Everything that is here, by framework id.
    pub fn frameworks(&self) -> &BTreeMap<String, Framework> {
        &self.frameworks
    }

    /// Frameworks that are over, oldest first.
    pub fn completed_frameworks(&self) -> &VecDeque<Framework> {
        &self.completed
    }

    /// The agent's id; empty before it was registered.
    pub fn agent_id(&self) -> &str {
        &self.agent_id
    }

    /// Set while the agent drains.
    pub fn drain(&self) -> Option<&Drain> {
        self.drain.as_ref()
    }

    /// When the drain began, in seconds since 1970.
    pub fn drain_began(&self) -> Option<f64> {
        self.drain_began
    }

    /// What has happened.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Counts a message of an executor that could not be passed on.
    pub fn count_lost_message(&mut self) {
        self.counts.invalid_messages += 1;
    }

    /// Whether the master has this agent.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Executors of both kinds of containers, by root container.
    pub fn executor_of(&self, container: &ContainerKey) -> Option<(ExecutorKey, &Executor)> {
        let root = container.outermost();
        self.frameworks.iter().find_map(|(framework, it)| {
            let found = it.executors.iter().find(|(_, it)| it.container == root)?;
            Some((ExecutorKey { framework: framework.clone(), executor: found.0.clone() }, found.1))
        })
    }

    /// The container of an executor that is there.
    pub fn container_of(&self, key: &ExecutorKey) -> Option<&ContainerKey> {
        self.executor(key).map(|it| &it.container)
    }

    fn executor_mut(&mut self, key: &ExecutorKey) -> Option<&mut Executor> {
        self.frameworks.get_mut(&key.framework)?.executors.get_mut(&key.executor)
    }

    fn executor(&self, key: &ExecutorKey) -> Option<&Executor> {
        self.frameworks.get(&key.framework)?.executors.get(&key.executor)
    }

    /// The executor that has the task.
    fn holder(&self, task: &TaskKey) -> Option<ExecutorKey> {
        let framework = self.frameworks.get(&task.framework)?;
        let (executor, _) = framework.executors.iter().find(|(_, it)| it.tasks.contains_key(&task.task))?;
        Some(ExecutorKey { framework: task.framework.clone(), executor: executor.clone() })
    }

    fn task_mut(&mut self, key: &TaskKey) -> Option<&mut Task> {
        let framework = self.frameworks.get_mut(&key.framework)?;
        framework.executors.values_mut().find_map(|it| it.tasks.get_mut(&key.task))
    }

    fn task(&self, key: &TaskKey) -> Option<&Task> {
        self.frameworks.get(&key.framework)?.executors.values().find_map(|it| it.tasks.get(&key.task))
    }

    fn alarm(&mut self, at: Duration, alarm: Alarm) {
        self.silence(&alarm);
        self.alarm_times.insert(alarm.clone(), at);
        self.alarms.insert((at, alarm));
    }

    fn silence(&mut self, alarm: &Alarm) {
        if let Some((alarm, at)) = self.alarm_times.remove_entry(alarm) {
            self.alarms.remove(&(at, alarm));
        }
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Effect>) {
        while self.alarms.first().is_some_and(|(at, _)| *at <= now.steady) {
            let Some((_, alarm)) = self.alarms.pop_first() else { return };
            self.alarm_times.remove(&alarm);
            match alarm {
                Alarm::Register(executor) => self.registration_timed_out(now, &executor, out),
                Alarm::DestroyExecutor(executor) => self.destroy_executor(&executor, out),
                Alarm::Retry(task) => self.retry(now, &task, out),
                Alarm::KillGrace(task) => self.kill_grace_over(now, &task, out),
                Alarm::MaxCompletion(task) => self.max_completion_reached(now, &task, out),
            }
        }
    }
}
