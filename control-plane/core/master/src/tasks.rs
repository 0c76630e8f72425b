//! Tasks: their updates and acknowledgements, kills, reconciliation.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::Timestamp;
use mesos::{AgentId, ExecutorId, FrameworkId, TaskId};
use mesos_proto::v1;
use v1::scheduler::call;
use v1::task_status::Reason;
use v1::{TaskState, TaskStatus};

use crate::master::{Master, time_info};
use crate::metrics::{state_key, terminal_key};
use crate::{Effect, Framework, Task, ToAgent, events, is_terminal};

/// How many statuses of a task are kept. An honest task has a handful of states.
const STATUSES_MAX: usize = 64;

impl Master {
    /// Adds a task to its framework and agent; what it uses was offered before (`allocated`), or is new to the allocator.
    pub(crate) fn add_task(&mut self, task: Task, allocated: bool, out: &mut Vec<Effect>) {
        let (framework, agent, id) = (task.framework_id.clone(), task.agent_id.clone(), task.id.clone());
        if !task.is_terminal() {
            self.use_resources(&framework, &agent, &task.resources, allocated);
        }
        let task = Arc::new(task);
        self.publish(|| task_added(task.to_proto()), out);
        if let Some(agent) = self.agent_mut(&agent) {
            agent.tasks.insert((framework.clone(), id.clone()));
        }
        if let Some(framework) = self.framework_mut(&framework) {
            framework.tasks.insert(id, task);
        }
    }

    /// Takes in a status: states, history, resources, counters. `latest` may be ahead of it.
    pub(crate) fn update_task(
        &mut self,
        framework: &FrameworkId,
        id: &TaskId,
        status: &TaskStatus,
        latest: TaskState,
        out: &mut Vec<Effect>,
    ) {
        let Some(task) = self.framework_mut(framework).and_then(|it| it.tasks.get_mut(id)).map(Arc::make_mut) else { return };
        let before = task.state;
        // What is over stays over: an older update that is sent again does not wake it.
        if !is_terminal(before) {
            task.state = latest;
        }
        let ended = !is_terminal(before) && is_terminal(task.state);
        task.status_update_state = status.state();
        task.status_update_uuid = status.uuid.as_deref().map(Into::into);
        // The history would hold all data of all updates otherwise.
        let kept = Arc::new(TaskStatus { data: None, ..status.clone() });
        match task.statuses.back_mut() {
            Some(last) if last.state == kept.state => *last = kept,
            _ => task.statuses.push_back(kept),
        }
        if task.statuses.len() > STATUSES_MAX {
            task.statuses.pop_front();
        }
        let (state, agent, resources) = (task.state, task.agent_id.clone(), task.resources.clone());
        if ended {
            self.release_resources(framework, &agent, &resources);
            self.count_end(framework, state, Some(status));
        }
        let changed = before != state || status.healthy.is_some() || status.check_status.is_some();
        if changed {
            self.publish(|| task_updated(framework, status.clone(), state), out);
        }
    }

    /// Counts the end of a task, or of one that never began.
    pub(crate) fn count_end(&mut self, framework: &FrameworkId, state: TaskState, status: Option<&TaskStatus>) {
        if let Some(key) = terminal_key(state) {
            self.state.metrics.count(key);
        }
        if let Some(status) = status.filter(|it| it.reason.is_some()) {
            // Spelled as in the old API: no agents there.
            let word = |text: &str| text.to_lowercase().replace("agent", "slave");
            self.state.metrics.count_named(format!(
                "master/{}/{}/{}",
                state_key(state),
                word(status.source().as_str_name()),
                word(status.reason().as_str_name())
            ));
        }
        if let Some(framework) = self.framework_mut(framework) {
            *framework.counters.terminal.entry(state_key(state)).or_insert(0) += 1;
        }
    }

    /// Moves a task out of the live ones: to the unreachable, or to the completed.
    pub(crate) fn remove_task(&mut self, framework_id: &FrameworkId, id: &TaskId, unreachable: bool) {
        let limits = (self.config.max_completed_tasks_per_framework, self.config.max_unreachable_tasks_per_framework);
        let Some(framework) = self.framework_mut(framework_id) else { return };
        let Some(task) = framework.tasks.remove(id) else { return };
        if unreachable {
            framework.remember_unreachable(task.clone(), limits.1);
        } else {
            framework.remember_completed(task.clone(), limits.0);
        }
        if !task.is_terminal() {
            self.release_resources(framework_id, &task.agent_id, &task.resources);
        }
        if let Some(agent) = self.agent_mut(&task.agent_id) {
            let key = (framework_id.clone(), id.clone());
            agent.tasks.remove(&key);
            agent.kills.remove(&key);
        }
    }

    /// A status that the framework gets although no task is held: of what was never launched, or is asked for.
    pub(crate) fn send_status(&mut self, framework: &FrameworkId, agent: Option<&AgentId>, mut status: TaskStatus, out: &mut Vec<Effect>) {
        if status.agent_id.is_none() {
            status.agent_id = agent.map(AgentId::to_proto);
        }
        self.send(framework, events::update(status), out);
    }

    /// What an agent tells of a task.
    pub(crate) fn status_update(
        &mut self,
        agent: &AgentId,
        framework: &FrameworkId,
        mut status: TaskStatus,
        latest: TaskState,
        out: &mut Vec<Effect>,
    ) {
        self.state.metrics.count("master/messages_status_update");
        status.agent_id = Some(agent.to_proto());
        let id = TaskId::from(&status.task_id);
        let acknowledge = |status: &TaskStatus| ToAgent::AcknowledgeStatusUpdate {
            framework_id: framework.clone(),
            task_id: (&status.task_id).into(),
            uuid: status.uuid.clone().unwrap_or_default(),
        };
        // Borrowed, not shared: a framework that somebody else holds is copied when it changes.
        let Some(entry) = self.state.frameworks.get(framework) else {
            self.state.metrics.count("master/invalid_status_updates");
            // Nobody will ever acknowledge it: the framework is over.
            if status.uuid.is_some() && self.completed_ids.contains_key(framework) {
                self.tell(agent, acknowledge(&status), out);
            }
            return;
        };
        let known = entry.tasks.get(&id).filter(|task| task.agent_id == *agent);
        match known.map(|task| task.executor_id.as_ref().map(ExecutorId::to_proto)) {
            Some(executor_id) => {
                self.state.metrics.count("master/valid_status_updates");
                if status.executor_id.is_none() {
                    status.executor_id = executor_id;
                }
                let over = status.uuid.is_none() && is_terminal(latest);
                self.update_task(framework, &id, &status, latest, out);
                self.send(framework, events::update(status), out);
                if over {
                    // Nothing is left to acknowledge.
                    self.remove_task(framework, &id, false);
                }
            }
            None => {
                // The task may be over and acknowledged already; the framework knows what to do with it, and its acknowledgement ends the stream.
                self.state.metrics.count("master/invalid_status_updates");
                self.send(framework, events::update(status), out);
            }
        }
        self.check_drained(agent);
    }

    pub(crate) fn acknowledge(&mut self, framework: &FrameworkId, call: call::Acknowledge, out: &mut Vec<Effect>) {
        self.state.metrics.count("master/messages_status_update_acknowledgement");
        let (agent, id) = (AgentId::from(&call.agent_id), TaskId::from(&call.task_id));
        if self.state.agents.get(&agent).is_none_or(|it| !it.connected()) {
            self.state.metrics.count("master/invalid_status_update_acknowledgements");
            return;
        }
        let task = self.state.frameworks.get(framework).and_then(|it| it.tasks.get(&id)).cloned();
        if let Some(task) = task {
            if task.agent_id != agent {
                self.state.metrics.count("master/invalid_status_update_acknowledgements");
                return;
            }
            let this = task.status_update_uuid.as_deref() == Some(&call.uuid[..]);
            if this && is_terminal(task.status_update_state) {
                self.remove_task(framework, &id, false);
            }
        }
        self.state.metrics.count("master/valid_status_update_acknowledgements");
        self.tell(&agent, ToAgent::AcknowledgeStatusUpdate { framework_id: framework.clone(), task_id: id, uuid: call.uuid }, out);
        self.check_drained(&agent);
    }

    pub(crate) fn kill(&mut self, now: Timestamp, framework: &Arc<Framework>, call: call::Kill, out: &mut Vec<Effect>) {
        self.state.metrics.count("master/messages_kill_task");
        let id = TaskId::from(&call.task_id);
        let Some(task) = framework.tasks.get(&id) else {
            let task = call::reconcile::Task { task_id: call.task_id, agent_id: call.agent_id };
            self.reconcile_one(now, framework, &task, out);
            return;
        };
        if call.agent_id.as_ref().is_some_and(|agent| *agent.value != *task.agent_id) {
            return;
        }
        let message = ToAgent::KillTask { framework_id: framework.id.clone(), task_id: id.clone(), kill_policy: call.kill_policy };
        // Remembered until the task is over: a link that breaks now may have lost it.
        if let Some(agent) = self.agent_mut(&task.agent_id) {
            agent.kills.insert((framework.id.clone(), id), call.kill_policy);
        }
        self.tell(&task.agent_id, message, out);
    }

    pub(crate) fn reconcile(&mut self, now: Timestamp, framework: &Arc<Framework>, call: &call::Reconcile, out: &mut Vec<Effect>) {
        self.state.metrics.count("master/messages_reconcile_tasks");
        if call.tasks.is_empty() {
            for task in framework.tasks.values() {
                self.send_latest(now, framework, task, out);
            }
            return;
        }
        for task in &call.tasks {
            self.reconcile_one(now, framework, task, out);
        }
    }

    fn reconcile_one(&mut self, now: Timestamp, framework: &Arc<Framework>, task: &call::reconcile::Task, out: &mut Vec<Effect>) {
        let id = TaskId::from(&task.task_id);
        if let Some(known) = framework.tasks.get(&id) {
            self.send_latest(now, framework, known, out);
            return;
        }
        let agent = task.agent_id.as_ref().map(AgentId::from);
        let awaited = match &agent {
            Some(agent) => self.state.recovered.contains_key(agent) || self.transitions.contains(agent),
            None => !self.state.recovered.is_empty(),
        };
        if awaited {
            return;
        }
        let registry = &self.state.registry;
        let (state, text, since) = match &agent {
            Some(agent) if self.state.agents.contains_key(agent) => (TaskState::TaskGone, "Task is unknown to the agent", None),
            Some(agent) => match (registry.unreachable.get(agent), registry.gone.contains_key(agent)) {
                (Some(entry), _) => (TaskState::TaskUnreachable, "Task is unreachable", Some(Timestamp::from_unix_nanos(entry.since))),
                (None, true) => (TaskState::TaskGoneByOperator, "Task is gone", None),
                (None, false) => (TaskState::TaskUnknown, "Task is unknown", None),
            },
            None => (TaskState::TaskUnknown, "Task is unknown", None),
        };
        let state = if framework.capabilities.partition_aware() { state } else { TaskState::TaskLost };
        let mut status = events::status(now, &id, state, Reason::Reconciliation, format!("Reconciliation: {text}"));
        status.unreachable_time = since.map(time_info);
        self.send_status(&framework.id, agent.as_ref(), status, out);
    }

    /// Tells the latest state that was told before.
    fn send_latest(&mut self, now: Timestamp, framework: &Arc<Framework>, task: &Task, out: &mut Vec<Effect>) {
        let status = task.latest_status(now, task.status_update_state, Reason::Reconciliation, "Reconciliation: Latest task state");
        self.send(&framework.id, events::update(status), out);
    }
}

impl Task {
    /// When it ended, or was last heard of, in seconds since 1970; 0 where nothing is known.
    fn ended_at(&self) -> f64 {
        self.statuses.last().and_then(|it| it.timestamp).unwrap_or_default()
    }

    /// A status that the master makes of what it knows: the state with the latest health, check and container.
    pub(crate) fn latest_status(&self, now: Timestamp, state: TaskState, reason: Reason, message: &str) -> TaskStatus {
        let last = self.statuses.last();
        TaskStatus {
            agent_id: Some(self.agent_id.to_proto()),
            executor_id: self.executor_id.as_ref().map(ExecutorId::to_proto),
            healthy: last.and_then(|it| it.healthy),
            check_status: last.and_then(|it| it.check_status),
            container_status: last.and_then(|it| it.container_status.clone()),
            ..events::status(now, &self.id, state, reason, message)
        }
    }
}

impl Framework {
    fn remember_completed(&mut self, task: Arc<Task>, limit: usize) {
        self.completed_tasks.push_back(task);
        while self.completed_tasks.len() > limit {
            self.completed_tasks.pop_front();
        }
    }

    /// Takes in ended tasks that an agent remembers, among those that are known and in the order in which they ended. What is known already is left out,
    /// and the oldest go first.
    pub(crate) fn remember_earlier(&mut self, tasks: Vec<Task>, limit: usize) {
        let mut new: BTreeMap<TaskId, Task> = tasks.into_iter().map(|it| (it.id.clone(), it)).collect();
        for known in &self.completed_tasks {
            if new.get(&known.id).is_some_and(|it| it.agent_id == known.agent_id) {
                new.remove(&known.id);
            }
        }
        for task in new.into_values() {
            let is_live = self.tasks.get(&task.id).is_some_and(|it| it.agent_id == task.agent_id);
            let is_too_old =
                self.completed_tasks.len() >= limit && self.completed_tasks.front().is_none_or(|it| it.ended_at() >= task.ended_at());
            if is_live || is_too_old {
                continue;
            }
            let place = self.completed_tasks.binary_search_by(|it| it.ended_at().total_cmp(&task.ended_at()));
            self.completed_tasks.insert(place.unwrap_or_else(|it| it), Arc::new(task));
            while self.completed_tasks.len() > limit {
                self.completed_tasks.pop_front();
            }
        }
    }

    fn remember_unreachable(&mut self, task: Arc<Task>, limit: usize) {
        let id = task.id.clone();
        if self.unreachable_tasks.insert(id.clone(), task).is_none() {
            self.unreachable_order.push_back(id);
        }
        while self.unreachable_tasks.len() > limit {
            let Some(oldest) = self.unreachable_order.pop_front() else { break };
            self.unreachable_tasks.remove(&oldest);
        }
        // Tasks that came back leave their ids here; they must not add up.
        if self.unreachable_order.len() > 2 * limit + 16 {
            let live = &self.unreachable_tasks;
            let order: imbl::Vector<TaskId> = self.unreachable_order.iter().filter(|id| live.contains_key(*id)).cloned().collect();
            self.unreachable_order = order;
        }
    }

    /// Takes a task back that was unreachable.
    pub(crate) fn forget_unreachable(&mut self, id: &TaskId) -> Option<Arc<Task>> {
        self.unreachable_tasks.remove(id)
    }
}

fn task_added(task: v1::Task) -> v1::master::Event {
    use v1::master::event;
    v1::master::Event { r#type: Some(event::Type::TaskAdded as i32), task_added: Some(event::TaskAdded { task }), ..Default::default() }
}

fn task_updated(framework: &FrameworkId, status: TaskStatus, state: TaskState) -> v1::master::Event {
    use v1::master::event;
    v1::master::Event {
        r#type: Some(event::Type::TaskUpdated as i32),
        task_updated: Some(event::TaskUpdated { framework_id: framework.to_proto(), status, state: state as i32 }),
        ..Default::default()
    }
}
