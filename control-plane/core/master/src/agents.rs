//! Agents: admission, coming back, falling silent, going away.

mod link;
mod reregister;
mod silence;

pub use link::ip_of;

use std::sync::Arc;

use base::Timestamp;
use mesos::{AgentId, FrameworkId, Resources};
use mesos_proto::v1;
use v1::TaskState;
use v1::task_status::Reason;

use crate::master::{Master, time_info};
use crate::timers::Timer;
use crate::{Agent, AgentCapabilities, Effect, LinkId, Refused, Register, ReplySlot, ToAgent, events};

/// Why an agent leaves, which decides what becomes of its tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// It did not answer; it may come back.
    Unreachable,
    /// An operator said that it never will.
    Gone,
    /// It said so itself, or another took its place.
    Lost(&'static str),
}

impl Master {
    /// A new agent's admission is stored.
    pub(crate) fn admitted(&mut self, now: Timestamp, link: LinkId, id: &AgentId, register: &Register, out: &mut Vec<Effect>) {
        self.state.metrics.count("master/slave_registrations");
        self.transitions.remove(id);
        let link = self.admission_over(link);
        self.add_agent(now, id, link, register, out);
        self.greet(id, out);
    }

    /// The link of an agent whose admission was being stored, if it did not break meanwhile.
    fn admission_over(&mut self, link: LinkId) -> Option<LinkId> {
        let broken = self.admitting.remove(&link).unwrap_or(true);
        (!broken).then_some(link)
    }

    /// Tells an agent that it is registered, and whatever it has to know first.
    pub(crate) fn greet(&mut self, id: &AgentId, out: &mut Vec<Effect>) {
        self.tell(id, ToAgent::Registered { agent_id: id.clone() }, out);
    }

    /// Adds an agent that is not registered with this master.
    pub(crate) fn add_agent(&mut self, now: Timestamp, id: &AgentId, link: Option<LinkId>, register: &Register, out: &mut Vec<Effect>) {
        let stored = self.state.registry.agents.get(id).cloned();
        let mut info = register.info.clone();
        info.id = Some(id.to_proto());
        let mut total = Resources::from_proto(&register.total_resources).unallocated();
        if register.total_resources.is_empty() {
            total = Resources::from_proto(&register.info.resources).unallocated();
        }
        total.add_all(&revocable(&register.oversubscribed_resources));
        let came_back = self.state.recovered.remove(id).is_some();
        let agent = Agent {
            id: id.clone(),
            info: Arc::new(info),
            pid: register.pid.as_str().into(),
            tls: register.tls,
            version: register.version.as_str().into(),
            capability_list: register.capabilities.as_slice().into(),
            capabilities: AgentCapabilities::of(&register.capabilities),
            link,
            deactivated: stored.as_ref().is_some_and(|it| it.deactivated),
            drain: stored.as_ref().and_then(|it| it.drain),
            drain_started_at: stored.as_ref().and_then(|it| it.drain.as_ref()).map(|_| now),
            registered_at: now,
            reregistered_at: came_back.then_some(now),
            total: total.clone(),
            used: imbl::OrdMap::new(),
            offered: Resources::new(),
            tasks: imbl::OrdSet::new(),
            executors: imbl::OrdMap::new(),
            operations: imbl::OrdSet::new(),
            offers: imbl::OrdSet::new(),
            inverse_offers: imbl::OrdSet::new(),
            unavailability: self.planned_for(&register.info.hostname, &register.pid),
            resource_version: register.resource_version.as_slice().into(),
            kills: imbl::OrdMap::new(),
            missed_pings: 0,
        };
        self.allocator.set_agent(id, &agent.info, &total);
        self.allocator.set_agent_active(id, agent.active());
        self.pids.insert(agent.pid.clone(), id.clone());
        if agent.unavailability.is_some() {
            self.planned_agents.insert(id.clone());
        }
        if let Some(link) = link {
            self.links.insert(link, id.clone());
        }
        self.publish(|| agent_added(&agent), out);
        self.state.agents.insert(id.clone(), Arc::new(agent));
        self.timers.set(Timer::Ping(id.clone()), now + self.config.agent_ping_timeout);
        let enough = self.config.allocator_agent_recovery_factor.clamp(0.0, 1.0);
        #[expect(clippy::cast_precision_loss, reason = "numbers of agents")]
        if self.allocator.paused && self.state.agents.len() as f64 >= enough * self.expected_agents as f64 {
            self.allocator.paused = false;
            self.timers.cancel(&Timer::AllocatorRecovery);
        }
    }

    /// An agent's removal as unreachable is stored.
    pub(crate) fn unreachable(&mut self, now: Timestamp, id: &AgentId, out: &mut Vec<Effect>) {
        self.transitions.remove(id);
        self.state.metrics.count("master/slave_unreachable_completed");
        self.state.metrics.count("master/slave_removals");
        self.state.metrics.count("master/slave_removals/reason_unhealthy");
        if self.state.recovered.remove(id).is_some() {
            self.state.metrics.count("master/recovery_slave_removals");
            self.agent_lost(id, out);
            self.unpause_if_all_known();
            return;
        }
        self.remove_agent(now, id, &Removal::Unreachable, out);
    }

    fn unpause_if_all_known(&mut self) {
        if self.state.recovered.is_empty() && self.allocator.paused {
            self.allocator.paused = false;
            self.timers.cancel(&Timer::AllocatorRecovery);
        }
    }

    /// An agent's removal as gone is stored.
    pub(crate) fn gone(&mut self, now: Timestamp, id: &AgentId, reply: Option<ReplySlot>, out: &mut Vec<Effect>) {
        self.transitions.remove(id);
        self.shut_down(id, "Agent has been marked gone", out);
        let was_recovered = self.state.recovered.remove(id).is_some();
        if self.state.agents.contains_key(id) {
            self.state.metrics.count("master/slave_removals");
            self.remove_agent(now, id, &Removal::Gone, out);
        } else {
            // Unreachable tasks of it are gone for good.
            self.unreachable_are_gone(now, id, out);
            if was_recovered {
                self.agent_lost(id, out);
                self.unpause_if_all_known();
            }
        }
        if let Some(reply) = reply {
            self.reply(reply, crate::Reply::Ok, out);
        }
    }

    /// Tells an agent to end, and ends its link.
    pub(crate) fn shut_down(&mut self, id: &AgentId, message: &str, out: &mut Vec<Effect>) {
        let Some(link) = self.agent_mut(id).and_then(|it| it.link.take()) else { return };
        self.links.remove(&link);
        out.push(Effect::Agent { link, message: ToAgent::Shutdown { message: message.to_owned() } });
        out.push(Effect::CloseLink { link });
    }

    fn unreachable_are_gone(&mut self, now: Timestamp, id: &AgentId, out: &mut Vec<Effect>) {
        let mut affected = Vec::new();
        for framework in self.state.frameworks.values() {
            for task in framework.unreachable_tasks.values().filter(|task| task.agent_id == *id) {
                affected.push((framework.id.clone(), task.id.clone()));
            }
        }
        let limit = self.config.max_completed_tasks_per_framework;
        for (framework_id, task_id) in affected {
            let Some(framework) = self.framework_mut(&framework_id) else { continue };
            let Some(mut task) = framework.forget_unreachable(&task_id) else { continue };
            let state = if framework.capabilities.partition_aware() { TaskState::TaskGoneByOperator } else { TaskState::TaskLost };
            let changed = Arc::make_mut(&mut task);
            changed.state = state;
            changed.status_update_state = state;
            let status = task.latest_status(now, state, Reason::AgentRemovedByOperator, "Agent has been marked gone");
            let framework = self.framework_mut(&framework_id);
            if let Some(framework) = framework {
                framework.completed_tasks.push_back(task);
                while framework.completed_tasks.len() > limit {
                    framework.completed_tasks.pop_front();
                }
            }
            self.count_end(&framework_id, state, Some(&status));
            self.send(&framework_id, events::update(status), out);
        }
    }

    /// Takes an agent out: its offers are rescinded, its tasks end as `removal` says, frameworks are told.
    pub(crate) fn remove_agent(&mut self, now: Timestamp, id: &AgentId, removal: &Removal, out: &mut Vec<Effect>) {
        let Some(agent) = self.agent(id) else { return };
        self.rescind_agent(id, out);
        for (framework_id, task_id) in &agent.tasks {
            self.end_task_of(now, &agent, framework_id, task_id, removal, out);
        }
        for ((framework_id, executor_id), _) in &agent.executors {
            self.remove_executor(framework_id, id, executor_id);
        }
        let operation_state = match removal {
            Removal::Unreachable => v1::OperationState::OperationUnreachable,
            Removal::Gone => v1::OperationState::OperationGoneByOperator,
            Removal::Lost(_) => v1::OperationState::OperationDropped,
        };
        for uuid in &agent.operations {
            self.end_operation(uuid, operation_state, out);
        }
        // One that is there after all registers again.
        if let Some(link) = agent.link {
            self.links.remove(&link);
            let message = "Agent is no longer registered".to_owned();
            out.push(Effect::Agent { link, message: ToAgent::Refused { reason: Refused::Later, message } });
            out.push(Effect::CloseLink { link });
        }
        if self.pids.get(&agent.pid) == Some(id) {
            self.pids.remove(&agent.pid);
        }
        self.timers.cancel(&Timer::Ping(id.clone()));
        self.allocator.remove_agent(id);
        self.state.agents.remove(id);
        self.forget_inverse_statuses(id);
        self.agent_lost(id, out);
        self.publish(|| agent_removed(id), out);
    }

    fn end_task_of(
        &mut self,
        now: Timestamp,
        agent: &Agent,
        framework_id: &FrameworkId,
        task_id: &mesos::TaskId,
        removal: &Removal,
        out: &mut Vec<Effect>,
    ) {
        let Some(framework) = self.framework(framework_id) else { return };
        let Some(task) = framework.tasks.get(task_id).cloned() else { return };
        if task.is_terminal() {
            // It is over; only its acknowledgement was missing.
            self.remove_task(framework_id, task_id, false);
            return;
        }
        let aware = framework.capabilities.partition_aware();
        let host = &agent.info.hostname;
        let (aware_state, reason, message) = match removal {
            Removal::Unreachable => {
                (TaskState::TaskUnreachable, Reason::AgentRemoved, format!("Agent {host} is unreachable: health check timed out"))
            }
            Removal::Gone => {
                (TaskState::TaskGoneByOperator, Reason::AgentRemovedByOperator, format!("Agent {host} is marked gone by operator"))
            }
            Removal::Lost(cause) => (TaskState::TaskLost, Reason::AgentRemoved, format!("Agent {host} removed: {cause}")),
        };
        let state = if aware { aware_state } else { TaskState::TaskLost };
        let mut status = events::status(now, task_id, state, reason, message);
        status.agent_id = Some(agent.id.to_proto());
        status.executor_id = task.executor_id.as_ref().map(mesos::ExecutorId::to_proto);
        let unreachable = *removal == Removal::Unreachable;
        if unreachable {
            status.unreachable_time = Some(time_info(now));
            // Frameworks of old are told that it is lost, but it may come back all the same.
            if let Some(task) = self.framework_mut(framework_id).and_then(|it| it.tasks.get_mut(task_id)) {
                Arc::make_mut(task).unreachable_at = Some(now);
            }
            self.update_unreachable(framework_id, task_id, &status, out);
        } else {
            self.update_task(framework_id, task_id, &status, state, out);
        }
        self.remove_task(framework_id, task_id, unreachable);
        self.send(framework_id, events::update(status), out);
    }

    /// The task's state becomes TASK_UNREACHABLE whatever its framework is told.
    fn update_unreachable(&mut self, framework: &FrameworkId, id: &mesos::TaskId, status: &v1::TaskStatus, out: &mut Vec<Effect>) {
        self.update_task(framework, id, status, TaskState::TaskUnreachable, out);
        if status.state() == TaskState::TaskLost {
            self.state.metrics.count("master/tasks_lost");
        }
    }

    /// Frameworks are told that an agent is lost.
    fn agent_lost(&mut self, id: &AgentId, out: &mut Vec<Effect>) {
        let connected: Vec<FrameworkId> = self.state.frameworks.values().filter(|it| it.connected()).map(|it| it.id.clone()).collect();
        for framework in connected {
            self.send(&framework, events::failure(id, None), out);
        }
    }

    /// An executor is no longer there; what it used is free.
    pub(crate) fn remove_executor(&mut self, framework_id: &FrameworkId, agent_id: &AgentId, executor_id: &mesos::ExecutorId) {
        let mut info = None;
        if let Some(agent) = self.agent_mut(agent_id) {
            info = agent.executors.remove(&(framework_id.clone(), executor_id.clone()));
        }
        if let Some(framework) = self.framework_mut(framework_id) {
            framework.executors.remove(&(agent_id.clone(), executor_id.clone()));
        }
        if let Some(info) = info {
            self.release_resources(framework_id, agent_id, &Resources::from_proto(&info.resources));
        }
    }

    /// An executor is there; what it uses was offered before (`allocated`), or is new to the allocator.
    pub(crate) fn add_executor(&mut self, framework_id: &FrameworkId, agent_id: &AgentId, info: &Arc<v1::ExecutorInfo>, allocated: bool) {
        let id = mesos::ExecutorId::from(&info.executor_id);
        let known = match self.agent_mut(agent_id) {
            Some(agent) => agent.executors.insert((framework_id.clone(), id.clone()), info.clone()),
            None => return,
        };
        if let Some(framework) = self.framework_mut(framework_id) {
            framework.executors.insert((agent_id.clone(), id), info.clone());
        }
        if known.is_none() {
            self.use_resources(framework_id, agent_id, &Resources::from_proto(&info.resources), allocated);
        }
    }
}

/// Oversubscribed resources are revocable, whatever the agent says.
pub(crate) fn revocable(resources: &[v1::Resource]) -> Resources {
    Resources::from_proto(resources).unallocated().map(mesos::Resource::to_revocable)
}

fn agent_added(agent: &Agent) -> v1::master::Event {
    use v1::master::event;
    v1::master::Event {
        r#type: Some(event::Type::AgentAdded as i32),
        agent_added: Some(event::AgentAdded { agent: agent.to_proto() }),
        ..Default::default()
    }
}

fn agent_removed(id: &AgentId) -> v1::master::Event {
    use v1::master::event;
    v1::master::Event {
        r#type: Some(event::Type::AgentRemoved as i32),
        agent_removed: Some(event::AgentRemoved { agent_id: id.to_proto() }),
        ..Default::default()
    }
}
