//! Status updates: made here or taken from executors, kept until acknowledged, one of each task under way at a time.

use mesos_proto::v1::{
    AgentId, ContainerStatus, ExecutorId, NetworkInfo, TaskState, TaskStatus, executor, framework_info, network_info, task_status,
};

use super::state::Phase;
use super::{Alarm, Effect, RecordKey, Table, completed};
use crate::words::{ExecutorKey, Now, TaskKey, dropped, gone, has_capability, is_terminal};

/// Why something from an executor was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such framework here.
    #[error("Framework cannot be found")]
    FrameworkUnknown,
    /// No such executor of that framework.
    #[error("Executor cannot be found")]
    ExecutorUnknown,
    /// It has to open its stream first.
    #[error("Executor is not subscribed")]
    NotSubscribed,
    /// It must end.
    #[error("Executor is terminating")]
    Terminating,
    /// The task has as many updates without acknowledgement as are kept.
    #[error("too many status updates of this task wait for acknowledgement")]
    TooMany,
}

impl Table {
    /// A status as this agent makes it.
    pub(super) fn status(task: &str, state: TaskState, source: task_status::Source) -> TaskStatus {
        TaskStatus {
            task_id: mesos_proto::v1::TaskId { value: task.to_owned() },
            state: state as i32,
            source: Some(source as i32),
            ..TaskStatus::default()
        }
    }

    /// Takes an update of a task into its stream. What is missing is filled in.
    pub(super) fn update(&mut self, now: Now, key: &TaskKey, mut status: TaskStatus, out: &mut Vec<Effect>) {
        let uuid = self.ids.uuid().to_vec();
        let Some(holder) = self.holder(key) else { return };
        let Some(framework) = self.frameworks.get(&key.framework) else { return };
        let knows_partitions = has_capability(&framework.info, framework_info::capability::Type::PartitionAware);
        if let Some(drain) = &self.drain {
            drain_rewrites(&mut status, drain.mark_gone && knows_partitions);
        }
        let (agent_id, agent_ip) = (self.agent_id.clone(), self.agent_ip.clone());
        let Some(executor) = self.executor_mut(&holder) else { return };
        let container = executor.container.clone();
        let executor_pid = executor.started.pid;
        let executor_addresses = executor.started.addresses.clone();
        let Some(task) = executor.tasks.get_mut(&key.task) else { return };
        if is_terminal(task.state) {
            return;
        }
        status.uuid.get_or_insert(uuid);
        status.agent_id = Some(AgentId { value: agent_id });
        status.executor_id.get_or_insert_with(|| ExecutorId { value: holder.executor.clone() });
        status.timestamp.get_or_insert(now.wall);
        status.healthy = status.healthy.or(task.healthy);
        if status.check_status.is_none() {
            status.check_status.clone_from(&task.check);
        }
        let addresses = task.started.as_ref().map_or(executor_addresses, |it| it.addresses.clone());
        let described = status.container_status.get_or_insert_with(ContainerStatus::default);
        complete(described, task.container.as_ref().unwrap_or(&container), executor_pid, addresses, &agent_ip);

        let state = status.state();
        task.state = state;
        let mut kept = status.clone();
        // History is for people and for /state, neither of which sees the data.
        kept.data = None;
        match task.statuses.last_mut() {
            Some(last) if last.state == status.state => *last = kept,
            _ => task.statuses.push(kept),
        }
        task.pending.push_back(status);
        let first = task.pending.len() == 1;
        if is_terminal(state) {
            *self.counts.terminal.entry(state as i32).or_default() += 1;
            self.silence(&Alarm::KillGrace(key.clone()));
            self.silence(&Alarm::MaxCompletion(key.clone()));
            out.push(Effect::StopChecks(key.clone()));
        }
        self.dirty.insert(RecordKey::Task(holder, key.task.clone()));
        if first {
            self.offer_update(now, key, out);
        }
    }

    /// Sends the first update of a task, now or when there is room.
    fn offer_update(&mut self, now: Now, key: &TaskKey, out: &mut Vec<Effect>) {
        if !self.connected || self.in_flight.contains(key) {
            return;
        }
        if self.in_flight.len() >= self.limits.updates_in_flight {
            if !self.waiting.contains(key) {
                self.waiting.push_back(key.clone());
            }
            return;
        }
        self.send_first(now, key, out);
    }

    fn send_first(&mut self, now: Now, key: &TaskKey, out: &mut Vec<Effect>) {
        let (first_pause, longest) = self.limits.update_retry;
        let Some(holder) = self.holder(key) else { return };
        let Some(task) = self.task_mut(key) else { return };
        let Some(status) = task.pending.front().cloned() else { return };
        let latest = task.state;
        let pause = first_pause.saturating_mul(1 << task.attempts.min(16)).min(longest);
        task.attempts = task.attempts.saturating_add(1);
        self.in_flight.insert(key.clone());
        self.alarm(now.steady + pause, Alarm::Retry(key.clone()));
        out.push(Effect::SendUpdate { task: key.clone(), executor: holder.executor, status: Box::new(status), latest });
    }

    pub(super) fn retry(&mut self, now: Now, key: &TaskKey, out: &mut Vec<Effect>) {
        if self.connected && self.in_flight.contains(key) {
            self.send_first(now, key, out);
        }
    }

    pub(super) fn registered(&mut self, now: Now, agent_id: String, updates_in_flight: usize, out: &mut Vec<Effect>) {
        if self.agent_id != agent_id {
            self.agent_id = agent_id;
            self.dirty.insert(RecordKey::Agent);
        }
        self.connected = true;
        self.limits.updates_in_flight = updates_in_flight.max(1);
        self.in_flight.clear();
        self.waiting.clear();
        let retries: Vec<Alarm> = self.alarm_times.keys().filter(|it| matches!(it, Alarm::Retry(_))).cloned().collect();
        retries.iter().for_each(|it| self.silence(it));
        let with_updates: Vec<TaskKey> = self.tasks().filter(|(_, it)| !it.pending.is_empty()).map(|(key, _)| key).collect();
        for key in with_updates {
            if let Some(task) = self.task_mut(&key) {
                task.attempts = 0;
            }
            self.offer_update(now, &key, out);
        }
    }

    /// Every task that is here.
    pub fn tasks(&self) -> impl Iterator<Item = (TaskKey, &super::Task)> {
        self.frameworks.iter().flat_map(|(framework, it)| {
            let tasks = it.executors.values().flat_map(|it| it.tasks.iter());
            tasks.map(move |(task, it)| (TaskKey { framework: framework.clone(), task: task.clone() }, it))
        })
    }

    pub(super) fn acknowledge(&mut self, now: Now, key: &TaskKey, uuid: &[u8], out: &mut Vec<Effect>) {
        let Some(holder) = self.holder(key) else { return };
        let Some(task) = self.task_mut(key) else { return };
        // An acknowledgement of another update is late or wrong: the stream goes on.
        if task.pending.front().and_then(|it| it.uuid.as_deref()) != Some(uuid) {
            return;
        }
        task.pending.pop_front();
        task.attempts = 0;
        self.in_flight.remove(key);
        self.silence(&Alarm::Retry(key.clone()));
        self.dirty.insert(RecordKey::Task(holder, key.task.clone()));
        self.offer_update(now, key, out);
        while self.in_flight.len() < self.limits.updates_in_flight {
            let Some(next) = self.waiting.pop_front() else { break };
            self.send_first(now, &next, out);
        }
    }

    /// Takes an update from a custom executor, and tells it so.
    pub(super) fn executor_update(
        &mut self,
        now: Now,
        key: &ExecutorKey,
        status: TaskStatus,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        self.subscribed_executor(key)?;
        self.take_update(now, key, status, out)
    }

    pub(super) fn take_update(&mut self, now: Now, key: &ExecutorKey, status: TaskStatus, out: &mut Vec<Effect>) -> Result<(), Refusal> {
        let task_key = TaskKey { framework: key.framework.clone(), task: status.task_id.value.clone() };
        let uuid = status.uuid.clone().unwrap_or_default();
        let limit = self.limits.updates_per_task;
        if let Some(task) = self.executor_mut(key).and_then(|it| it.tasks.get_mut(&task_key.task)) {
            let is_known = task.pending.iter().any(|it| it.uuid == status.uuid);
            if !is_known && task.pending.len() >= limit && !is_terminal(status.state()) {
                return Err(Refusal::TooMany);
            }
            if !is_known && !is_terminal(task.state) {
                if status.healthy.is_some() {
                    task.healthy = status.healthy;
                }
                let resized = is_terminal(status.state());
                self.counts.valid_updates += 1;
                self.update(now, &task_key, status, out);
                if resized {
                    self.resize(key, out);
                }
            }
        } else {
            // Acknowledged long ago, or of a task that this executor never had.
            self.counts.invalid_updates += 1;
        }
        let event = executor::Event {
            r#type: Some(executor::event::Type::Acknowledged as i32),
            acknowledged: Some(executor::event::Acknowledged { task_id: mesos_proto::v1::TaskId { value: task_key.task }, uuid }),
            ..executor::Event::default()
        };
        out.push(Effect::TellExecutor { executor: key.clone(), event: Box::new(event) });
        Ok(())
    }

    pub(super) fn subscribed_executor(&self, key: &ExecutorKey) -> Result<(), Refusal> {
        let framework = self.frameworks.get(&key.framework).ok_or(Refusal::FrameworkUnknown)?;
        let executor = framework.executors.get(&key.executor).ok_or(Refusal::ExecutorUnknown)?;
        if executor.subscribed { Ok(()) } else { Err(Refusal::NotSubscribed) }
    }

    pub(super) fn reconcile(&mut self, now: Now, framework: &str, tasks: &[String], out: &mut Vec<Effect>) {
        let info = self.frameworks.get(framework).map(|it| it.info.clone()).unwrap_or_default();
        for task in tasks {
            let key = TaskKey { framework: framework.to_owned(), task: task.clone() };
            if self.task(&key).is_some() {
                continue;
            }
            let mut status = Self::status(task, dropped(&info), task_status::Source::Agent);
            status.reason = Some(task_status::Reason::Reconciliation as i32);
            status.message = Some("Task is unknown to the agent".to_owned());
            self.tell_without_stream(now, &key, "", status, out);
        }
    }

    /// For tasks that have no entry: the update is told once, and the master answers for it.
    pub(super) fn tell_without_stream(&mut self, now: Now, key: &TaskKey, executor: &str, mut status: TaskStatus, out: &mut Vec<Effect>) {
        status.agent_id = Some(AgentId { value: self.agent_id.clone() });
        status.timestamp = Some(now.wall);
        let latest = status.state();
        *self.counts.terminal.entry(latest as i32).or_default() += 1;
        out.push(Effect::SendUpdate { task: key.clone(), executor: executor.to_owned(), status: Box::new(status), latest });
    }

    /// Removes what is over and has nothing left to tell.
    pub(super) fn sweep(&mut self, out: &mut Vec<Effect>) {
        let tasks_kept = self.limits.completed_tasks;
        let mut ended_frameworks = Vec::new();
        let mut silenced = Vec::new();
        for (framework_id, framework) in &mut self.frameworks {
            let mut over = Vec::new();
            for (executor_id, executor) in &mut framework.executors {
                let told: Vec<String> = executor
                    .tasks
                    .iter()
                    .filter(|(_, it)| is_terminal(it.state) && (it.pending.is_empty() || framework.shutting_down))
                    .map(|(id, _)| id.clone())
                    .collect();
                for id in told {
                    let Some(task) = executor.tasks.remove(&id) else { continue };
                    let key = TaskKey { framework: framework_id.clone(), task: id };
                    self.in_flight.remove(&key);
                    let holder = ExecutorKey { framework: framework_id.clone(), executor: executor_id.clone() };
                    self.dirty.insert(RecordKey::Task(holder, key.task.clone()));
                    silenced.push(Alarm::Retry(key));
                    if executor.kind == super::Kind::Default {
                        out.extend(task.container.clone().map(Effect::CollectSandbox));
                    }
                    executor.completed.push_back(task);
                    if executor.completed.len() > tasks_kept {
                        executor.completed.pop_front();
                    }
                }
                if executor.phase == Phase::Terminated && executor.tasks.is_empty() {
                    over.push(executor_id.clone());
                }
            }
            for id in over {
                let Some(executor) = framework.executors.remove(&id) else { continue };
                let key = ExecutorKey { framework: framework_id.clone(), executor: id };
                silenced.extend([Alarm::Register(key.clone()), Alarm::DestroyExecutor(key.clone())]);
                self.dirty.insert(RecordKey::Executor(key));
                out.push(Effect::CollectSandbox(executor.container.clone()));
                let executor = super::Executor { ended: self.next_ended, ..executor };
                self.next_ended += 1;
                self.dirty.insert(completed::record_key(framework_id, &executor));
                framework.completed.push_back(executor);
            }
            if framework.executors.is_empty() {
                ended_frameworks.push(framework_id.clone());
            }
        }
        silenced.iter().for_each(|it| self.silence(it));
        for id in ended_frameworks {
            self.dirty.insert(RecordKey::Framework(id.clone()));
            let Some(framework) = self.frameworks.remove(&id) else { continue };
            if let Some(at) = self.completed.iter().position(|it| it.info.id == framework.info.id) {
                // It comes and goes: its history is one.
                if let Some(earlier) = self.completed.remove(at) {
                    let mut completed = earlier.completed;
                    completed.extend(framework.completed);
                    self.completed.push_back(super::Framework { completed, ..framework });
                }
            } else {
                self.completed.push_back(framework);
            }
        }
        self.forget_completed();
        if self.ending && self.frameworks.is_empty() {
            out.push(Effect::AgentEmpty);
        }
    }

    /// What a framework calls a task whose executor ended: one that never started is another matter than one that ran.
    pub(super) fn ended_state(&self, framework: &str, state: TaskState, for_running: TaskState) -> TaskState {
        let info = self.frameworks.get(framework).map(|it| it.info.clone()).unwrap_or_default();
        match (state, for_running) {
            (TaskState::TaskStaging, TaskState::TaskFailed) => dropped(&info),
            (_, TaskState::TaskGone) => gone(&info),
            (_, it) => it,
        }
    }
}

/// While the agent drains, who is killed is killed for that.
fn drain_rewrites(status: &mut TaskStatus, mark_gone: bool) {
    let state = status.state();
    if matches!(state, TaskState::TaskKilling | TaskState::TaskKilled) {
        status.reason = Some(task_status::Reason::AgentDraining as i32);
        if mark_gone && state == TaskState::TaskKilled {
            status.state = TaskState::TaskGoneByOperator as i32;
        }
    }
}

/// What the agent knows of a container and its executor did not say.
fn complete(
    described: &mut ContainerStatus,
    container: &crate::words::ContainerKey,
    pid: Option<u32>,
    addresses: Vec<String>,
    agent_ip: &str,
) {
    described.container_id.get_or_insert_with(|| container.to_message());
    described.executor_pid = described.executor_pid.or(pid);
    if described.network_infos.is_empty() {
        let addresses = if addresses.is_empty() { vec![agent_ip.to_owned()] } else { addresses };
        let ip_addresses = addresses
            .into_iter()
            .map(|it| network_info::IpAddress {
                protocol: Some(if it.contains(':') { network_info::Protocol::IPv6 } else { network_info::Protocol::IPv4 } as i32),
                ip_address: Some(it),
            })
            .collect();
        described.network_infos.push(NetworkInfo { ip_addresses, ..NetworkInfo::default() });
    }
}
