//! Links of agents: registration, messages, breaks.

use base::Timestamp;
use mesos::{AgentId, Resources};
use mesos_proto::v1;
use std::sync::Arc;
use v1::TaskState;
use v1::task_status::Reason;

use super::{Removal, revocable};
use crate::master::Master;
use crate::registry::{Admitted, Change, machine_key};
use crate::timers::Timer;
use crate::writes::After;
use crate::{Action, Effect, FromAgent, LinkId, Refused, Register, ToAgent, events};

impl Master {
    /// An agent introduces itself.
    pub(crate) fn register(&mut self, now: Timestamp, link: LinkId, register: Box<Register>, out: &mut Vec<Effect>) {
        let again = register.info.id.is_some();
        self.state.metrics.count(if again { "master/messages_reregister_slave" } else { "master/messages_register_slave" });
        if self.links.contains_key(&link) || self.admitting.contains_key(&link) {
            refuse(link, Refused::Invalid, "The link has an agent already", out);
            return;
        }
        if let Err((reason, message)) = self.acceptable(&register) {
            refuse(link, reason, &message, out);
            return;
        }
        let Some(id) = register.info.id.as_ref().map(AgentId::from) else {
            self.register_new(link, register, out);
            return;
        };
        if self.state.registry.gone.contains_key(&id) {
            refuse(link, Refused::Shutdown, "Agent has been marked gone", out);
            return;
        }
        if self.transitions.contains(&id) {
            refuse(link, Refused::Later, "Another change of this agent is being stored", out);
            return;
        }
        if let Some(agent) = self.agent(&id) {
            if agent.info.hostname != register.info.hostname || ip_of(&agent.pid) != ip_of(&register.pid) {
                refuse(link, Refused::Shutdown, "Agent ID is used by an agent at another address", out);
                return;
            }
            // An agent that begins anew on another port has closed its link. Two that share an id would replace each other without end.
            if agent.link.is_some() && agent.pid.as_ref() != register.pid {
                refuse(link, Refused::Invalid, "Agent ID is used by an agent at another port, which is connected", out);
                return;
            }
            self.reconnect(now, link, &agent, register, out);
            return;
        }
        if self.state.agents.len() + self.admitting.len() >= self.config.max_agents {
            refuse(link, Refused::Invalid, "Too many agents are registered", out);
            return;
        }
        let recovered = self.state.recovered.get(&id).cloned();
        if let Some(known) = &recovered {
            if known.hostname != register.info.hostname {
                refuse(link, Refused::Shutdown, "Agent ID is used by an agent at another address", out);
                return;
            }
            if **known == register.info {
                self.admitting.insert(link, false);
                self.readmitted(now, link, &id, register, false, out);
                return;
            }
        }
        let before = self.state.registry.unreachable.get(&id).cloned();
        let unreachable = recovered.is_none();
        let stored = self.state.registry.agents.get(&id);
        let admitted = Admitted {
            info: register.info.clone(),
            drain: before.as_ref().and_then(|it| it.drain).or_else(|| stored.and_then(|it| it.drain)),
            deactivated: before.as_ref().is_some_and(|it| it.deactivated) || stored.is_some_and(|it| it.deactivated),
        };
        self.transitions.insert(id.clone());
        self.admitting.insert(link, false);
        self.persist(vec![Change::Admit(id.clone(), Arc::new(admitted))], After::Readmitted { link, id, register, unreachable });
    }

    /// What is wrong with what an agent says of itself. As in Mesos, tasks end where the machine is down alone: whatever else is wrong is the
    /// operator's to put right, and the tasks go on meanwhile.
    fn acceptable(&self, register: &Register) -> Result<(), (Refused, String)> {
        let major: Option<u32> = register.version.split('.').next().and_then(|it| it.parse().ok());
        if major.is_none_or(|major| major < 1) {
            return Err((Refused::Invalid, format!("Agent version '{}' is below 1.0.0", register.version)));
        }
        if register.info.hostname.is_empty() || ip_of(&register.pid).is_none() {
            return Err((Refused::Invalid, "Hostname and pid are expected to be present".into()));
        }
        if !self.config.authorizer.allows(register.principal.as_deref(), Action::RegisterAgent) {
            let who = register.principal.as_ref().map_or_else(|| "without a principal".to_owned(), |it| format!("with principal '{it}'"));
            let resources = Resources::from_proto(&register.info.resources);
            return Err((Refused::Invalid, format!("Not authorized to register agent providing resources '{resources}' {who}")));
        }
        if self.config.require_agent_domain && register.info.domain.is_none() {
            return Err((Refused::Invalid, "Agent attempted to register without a domain, but the master requires one".into()));
        }
        if register.info.domain.is_some() && self.config.info.domain.is_none() {
            return Err((Refused::Invalid, "Agent is configured with a domain but the master is not".into()));
        }
        let resources = register.total_resources.iter().chain(&register.info.resources).chain(&register.oversubscribed_resources);
        if let Some(error) = resources.into_iter().find_map(mesos::resource_error) {
            return Err((Refused::Invalid, format!("Agent has invalid resources: {error}")));
        }
        let mut machine = v1::MachineId { hostname: Some(register.info.hostname.clone()), ip: None };
        let host_is_down = self.state.registry.down.contains_key(&machine_key(&machine));
        machine.ip = ip_of(&register.pid).map(str::to_owned);
        let address = v1::MachineId { hostname: None, ip: machine.ip.clone() };
        if host_is_down || [machine, address].iter().any(|it| self.state.registry.down.contains_key(&machine_key(it))) {
            return Err((Refused::Shutdown, "Machine is DOWN".into()));
        }
        Ok(())
    }

    fn register_new(&mut self, link: LinkId, register: Box<Register>, out: &mut Vec<Effect>) {
        if self.state.agents.len() + self.admitting.len() >= self.config.max_agents {
            refuse(link, Refused::Invalid, "Too many agents are registered", out);
            return;
        }
        // At one address there is one agent: it lost its id, and whatever it had with it.
        if let Some(former) = self.pids.get(register.pid.as_str()).cloned() {
            if self.transitions.contains(&former) {
                refuse(link, Refused::Later, "The agent formerly at this address is being removed", out);
                return;
            }
            self.close_link_of(&former, Refused::Replaced, out);
            self.transitions.insert(former.clone());
            self.state.metrics.count("master/slave_removals");
            self.state.metrics.count("master/slave_removals/reason_registered");
            let cause = "a new agent registered at the same address";
            self.persist(vec![Change::Remove(former.clone())], After::Removed { id: former, cause });
        }
        let id = AgentId::from(format!("{}-S{}", self.config.info.id, self.next_agent));
        self.next_agent += 1;
        let mut info = register.info.clone();
        info.id = Some(id.to_proto());
        let admitted = Admitted { info, drain: None, deactivated: false };
        self.transitions.insert(id.clone());
        self.admitting.insert(link, false);
        self.persist(vec![Change::Admit(id.clone(), Arc::new(admitted))], After::Admitted { link, id, register });
    }

    /// Ends the link of an agent, which stays registered.
    pub(crate) fn close_link_of(&mut self, id: &AgentId, reason: Refused, out: &mut Vec<Effect>) {
        let Some(agent) = self.agent_mut(id) else { return };
        if let Some(link) = agent.link.take() {
            self.links.remove(&link);
            refuse(link, reason, "A newer link of this agent has come", out);
        }
    }

    /// A link broke: nothing of the agent is offered until it is back.
    pub(crate) fn link_closed(&mut self, now: Timestamp, link: LinkId, out: &mut Vec<Effect>) {
        if let Some(broken) = self.admitting.get_mut(&link) {
            *broken = true;
            return;
        }
        let Some(id) = self.links.remove(&link) else { return };
        if let Some(agent) = self.agent_mut(&id) {
            agent.link = None;
        }
        self.disconnected(now, &id, out);
    }

    fn disconnected(&mut self, now: Timestamp, id: &AgentId, out: &mut Vec<Effect>) {
        self.allocator.set_agent_active(id, false);
        self.rescind_agent(id, out);
        let Some(agent) = self.agent(id) else { return };
        // What is not checkpointed does not outlive the agent's process.
        for (framework_id, task_id) in &agent.tasks {
            let Some(framework) = self.framework(framework_id) else { continue };
            if framework.info.checkpoint() {
                continue;
            }
            let Some(task) = framework.tasks.get(task_id).cloned() else { continue };
            if task.is_terminal() {
                self.remove_task(framework_id, task_id, false);
                continue;
            }
            let text = format!("Agent {} disconnected", agent.info.hostname);
            let mut status = events::status(now, task_id, TaskState::TaskLost, Reason::AgentDisconnected, text);
            status.agent_id = Some(id.to_proto());
            status.executor_id = task.executor_id.as_ref().map(mesos::ExecutorId::to_proto);
            self.update_task(framework_id, task_id, &status, TaskState::TaskLost, out);
            self.remove_task(framework_id, task_id, false);
            self.send(framework_id, events::update(status), out);
        }
        for ((framework_id, executor_id), _) in &agent.executors {
            if self.state.frameworks.get(framework_id).is_none_or(|it| !it.info.checkpoint()) {
                self.remove_executor(framework_id, id, executor_id);
            }
        }
    }

    /// A connected agent tells something.
    pub(crate) fn agent_message(&mut self, link: LinkId, message: FromAgent, out: &mut Vec<Effect>) {
        let Some(id) = self.links.get(&link).cloned() else {
            self.state.metrics.count("master/dropped_messages");
            return;
        };
        match message {
            FromAgent::Pong => self.pong(&id),
            FromAgent::StatusUpdate { framework_id, status, latest_state } => {
                self.status_update(&id, &framework_id, *status, latest_state, out);
            }
            FromAgent::OperationStatusUpdate { operation_uuid, status, latest_state, total_resources, .. } => {
                self.operation_status_update(&id, &operation_uuid, *status, latest_state, &total_resources, out);
            }
            FromAgent::ExecutorMessage { framework_id, executor_id, data } => {
                self.state.metrics.count("master/messages_executor_to_framework");
                let connected = self.state.frameworks.get(&framework_id).is_some_and(|it| it.connected());
                self.state.metrics.count(if connected {
                    "master/valid_executor_to_framework_messages"
                } else {
                    "master/invalid_executor_to_framework_messages"
                });
                self.send(&framework_id, events::message(&id, &executor_id, data), out);
            }
            FromAgent::ExecutorExited { framework_id, executor_id, status } => {
                self.state.metrics.count("master/messages_exited_executor");
                self.remove_executor(&framework_id, &id, &executor_id);
                self.send(&framework_id, events::failure(&id, Some((&executor_id, status))), out);
                self.check_drained(&id);
            }
            FromAgent::ResourcesChanged { total_resources, resource_version, oversubscribed_resources } => {
                self.state.metrics.count("master/messages_update_slave");
                self.resources_changed(&id, &total_resources, &resource_version, &oversubscribed_resources, out);
            }
            FromAgent::Unregister => {
                self.state.metrics.count("master/messages_unregister_slave");
                if self.transitions.insert(id.clone()) {
                    self.state.metrics.count("master/slave_removals");
                    self.state.metrics.count("master/slave_removals/reason_unregistered");
                    self.persist(vec![Change::Remove(id.clone())], After::Removed { id, cause: "agent unregistered" });
                }
            }
        }
    }

    fn resources_changed(
        &mut self,
        id: &AgentId,
        total: &[v1::Resource],
        version: &[u8],
        oversubscribed: &[v1::Resource],
        out: &mut Vec<Effect>,
    ) {
        let Some(agent) = self.agent(id) else { return };
        let mut new = if total.is_empty() {
            agent.total.filter(|it| !it.is_revocable())
        } else {
            Resources::from_proto(total).unallocated().filter(|it| !it.is_revocable())
        };
        new.add_all(&revocable(oversubscribed));
        if new != agent.total {
            self.rescind_agent(id, out);
        }
        if let Some(agent) = self.agent_mut(id) {
            agent.total = new.clone();
            if !version.is_empty() {
                agent.resource_version = version.into();
            }
        }
        self.allocator.set_agent(id, &agent.info, &new);
    }

    /// Not registered any more without a change of the registry being due: its machine is down.
    pub(crate) fn shut_down_agent(&mut self, now: Timestamp, id: &AgentId, out: &mut Vec<Effect>) {
        self.shut_down(id, "Operator initiated 'Machine DOWN'", out);
        self.timers.cancel(&Timer::Ping(id.clone()));
        self.remove_agent(now, id, &Removal::Lost("operator initiated 'Machine DOWN'"), out);
    }
}

fn refuse(link: LinkId, reason: Refused, message: &str, out: &mut Vec<Effect>) {
    out.push(Effect::Agent { link, message: ToAgent::Refused { reason, message: message.to_owned() } });
    out.push(Effect::CloseLink { link });
}

/// The address of a `slave(1)@<ip>:<port>`.
pub fn ip_of(pid: &str) -> Option<&str> {
    let (_, address) = pid.split_once('@')?;
    let (ip, port) = address.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    (!ip.is_empty()).then_some(ip)
}
