//! Planned maintenance, draining, deactivation.

use std::collections::BTreeSet;
use std::sync::Arc;

use base::Timestamp;
use mesos::AgentId;
use mesos_proto::v1;
use v1::DrainState;

use crate::agents::ip_of;
use crate::master::Master;
use crate::operator::Answer;
use crate::registry::{Admitted, Change, Unreachable, machine_key};
use crate::writes::After;
use crate::{Action, Effect, Refusal, Reply, ReplySlot, ToAgent};

impl Master {
    // ---- machines ----

    /// When the machine of an agent is planned to be down.
    pub(crate) fn planned_for(&self, hostname: &str, pid: &str) -> Option<v1::Unavailability> {
        let ip = ip_of(pid).unwrap_or_default();
        let windows = &self.state.registry.schedule.windows;
        let window = windows.iter().find(|window| window.machine_ids.iter().any(|it| is_machine(it, hostname, ip)))?;
        Some(window.unavailability)
    }

    pub(crate) fn update_schedule(&mut self, slot: ReplySlot, principal: Option<&str>, schedule: v1::maintenance::Schedule) -> Answer {
        let mut seen = BTreeSet::new();
        for window in &schedule.windows {
            if window.machine_ids.is_empty() {
                return Err(Reply::bad_request("List of machines in the maintenance window is empty"));
            }
            if window.unavailability.duration.as_ref().is_some_and(|it| it.nanoseconds < 0) {
                return Err(Reply::bad_request("Unavailability 'duration' is negative"));
            }
            for machine in &window.machine_ids {
                if let Some(error) = machine_error(machine) {
                    return Err(Reply::bad_request(error));
                }
                if !seen.insert(machine_key(machine)) {
                    return Err(Reply::bad_request(format!("Machine '{}' appears more than once in the schedule", name(machine))));
                }
            }
        }
        if let Some((_, machine)) = self.state.registry.down.iter().find(|(key, _)| !seen.contains(*key)) {
            return Err(Reply::bad_request(format!("Machine '{}' is deactivated and cannot be removed from the schedule", name(machine))));
        }
        self.permit(principal, Action::UpdateMaintenanceSchedule)?;
        self.persist(vec![Change::Schedule(schedule)], After::Schedule { reply: slot });
        Ok(None)
    }

    pub(crate) fn schedule_stored(&mut self, reply: ReplySlot, out: &mut Vec<Effect>) {
        self.replan(out);
        self.reply(reply, Reply::Ok, out);
    }

    /// Makes agents agree with the schedule: those whose plan changed have their offers taken back.
    fn replan(&mut self, out: &mut Vec<Effect>) {
        let agents: Vec<_> = self.state.agents.values().cloned().collect();
        for agent in agents {
            let planned = self.planned_for(&agent.info.hostname, &agent.pid);
            if planned == agent.unavailability {
                continue;
            }
            self.rescind_agent(&agent.id, out);
            self.forget_inverse_statuses(&agent.id);
            if planned.is_some() {
                self.planned_agents.insert(agent.id.clone());
            }
            if let Some(agent) = self.agent_mut(&agent.id) {
                agent.unavailability = planned;
            }
            self.allocator.wake_agent(&agent.id);
        }
    }

    fn checked_machines(&self, machines: &[v1::MachineId]) -> Result<(), Reply> {
        if machines.is_empty() {
            return Err(Reply::bad_request("List of machines is empty"));
        }
        let mut seen = BTreeSet::new();
        for machine in machines {
            if let Some(error) = machine_error(machine) {
                return Err(Reply::bad_request(error));
            }
            if !seen.insert(machine_key(machine)) {
                return Err(Reply::bad_request(format!("Machine '{}' appears more than once in the schedule", name(machine))));
            }
            let key = machine_key(machine);
            let scheduled = self.state.registry.schedule.windows.iter().flat_map(|it| &it.machine_ids).any(|it| machine_key(it) == key);
            if !scheduled {
                return Err(Reply::bad_request(format!("Machine '{}' is not part of a maintenance schedule", name(machine))));
            }
        }
        Ok(())
    }

    pub(crate) fn start_maintenance(&mut self, slot: ReplySlot, principal: Option<&str>, machines: &[v1::MachineId]) -> Answer {
        self.checked_machines(machines)?;
        if let Some(machine) = machines.iter().find(|it| self.state.registry.down.contains_key(&machine_key(it))) {
            return Err(Reply::bad_request(format!("Machine '{}' is not in DRAINING mode and cannot be brought down", name(machine))));
        }
        self.permit(principal, Action::StartMaintenance)?;
        let affected = self.agents_on(machines);
        if affected.iter().any(|id| self.transitions.contains(id)) {
            return Err(Reply::refused(Refusal::Unavailable, "An agent of these machines is in the middle of another transition"));
        }
        let mut changes: Vec<Change> = machines.iter().map(|it| Change::Down(it.clone(), true)).collect();
        for id in &affected {
            self.transitions.insert(id.clone());
            changes.push(Change::Remove(id.clone()));
        }
        self.persist(changes, After::Down { agents: affected, reply: slot });
        Ok(None)
    }

    pub(crate) fn machines_down(&mut self, now: Timestamp, agents: &[AgentId], reply: ReplySlot, out: &mut Vec<Effect>) {
        for id in agents {
            self.transitions.remove(id);
            self.state.recovered.remove(id);
            self.shut_down_agent(now, id, out);
        }
        self.reply(reply, Reply::Ok, out);
    }

    fn agents_on(&self, machines: &[v1::MachineId]) -> Vec<AgentId> {
        let on = |hostname: &str, ip: &str| machines.iter().any(|it| is_machine(it, hostname, ip));
        let registered = self.state.agents.values().filter(|it| on(&it.info.hostname, ip_of(&it.pid).unwrap_or_default()));
        registered.map(|it| it.id.clone()).collect()
    }

    pub(crate) fn stop_maintenance(&mut self, slot: ReplySlot, principal: Option<&str>, machines: &[v1::MachineId]) -> Answer {
        self.checked_machines(machines)?;
        if let Some(machine) = machines.iter().find(|it| !self.state.registry.down.contains_key(&machine_key(it))) {
            return Err(Reply::bad_request(format!("Machine '{}' is not in DOWN mode and cannot be brought up", name(machine))));
        }
        self.permit(principal, Action::StopMaintenance)?;
        let keys: BTreeSet<String> = machines.iter().map(machine_key).collect();
        let mut schedule = self.state.registry.schedule.clone();
        for window in &mut schedule.windows {
            window.machine_ids.retain(|it| !keys.contains(&machine_key(it)));
        }
        schedule.windows.retain(|window| !window.machine_ids.is_empty());
        let mut changes: Vec<Change> = machines.iter().map(|it| Change::Down(it.clone(), false)).collect();
        changes.push(Change::Schedule(schedule));
        self.persist(changes, After::Schedule { reply: slot });
        Ok(None)
    }

    // ---- draining and deactivation ----

    /// Changes what the registry says of an agent, admitted or unreachable.
    fn change_entry(&self, id: &AgentId, change: impl Fn(&mut Option<v1::DrainInfo>, &mut bool)) -> Option<Change> {
        if let Some(entry) = self.state.registry.agents.get(id) {
            let mut entry: Admitted = (**entry).clone();
            change(&mut entry.drain, &mut entry.deactivated);
            return Some(Change::Admit(id.clone(), Arc::new(entry)));
        }
        let mut entry: Unreachable = (**self.state.registry.unreachable.get(id)?).clone();
        change(&mut entry.drain, &mut entry.deactivated);
        Some(Change::Unreachable(id.clone(), Arc::new(entry)))
    }

    pub(crate) fn drain_agent(&mut self, slot: ReplySlot, principal: Option<&str>, call: &v1::master::call::DrainAgent) -> Answer {
        let id = AgentId::from(&call.agent_id);
        if let Some(agent) = self.state.agents.get(&id) {
            if agent.unavailability.is_some() {
                return Err(Reply::bad_request(format!(
                    "Agent {id} is part of a maintenance schedule under Machine {}",
                    agent.info.hostname
                )));
            }
            if !agent.capabilities.draining() {
                return Err(Reply::bad_request(format!("Agent {id} is not capable of draining")));
            }
        }
        self.permit(principal, Action::DrainAgent)?;
        let mark_gone = call.mark_gone.unwrap_or(false);
        if mark_gone {
            self.permit(principal, Action::MarkAgentGone)?;
        }
        let grace = call
            .max_grace_period
            .as_ref()
            .map(|it| v1::DurationInfo { nanoseconds: it.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(it.nanos)) });
        if grace.as_ref().is_some_and(|it| it.nanoseconds < 0) {
            return Err(Reply::bad_request("'DrainAgent.max_grace_period' must be non-negative"));
        }
        let config = v1::DrainConfig { max_grace_period: grace, mark_gone: Some(mark_gone) };
        let info = v1::DrainInfo { state: DrainState::Draining as i32, config };
        let change = self.change_entry(&id, |drain, deactivated| {
            *drain = Some(info);
            *deactivated = true;
        });
        let Some(change) = change else { return Err(Reply::bad_request("Unknown agent")) };
        if !self.transitions.insert(id.clone()) {
            return Err(Reply::refused(Refusal::Conflict, "Agent is currently being marked gone"));
        }
        self.persist(vec![change], After::Drain { id, reply: slot });
        Ok(None)
    }

    pub(crate) fn drain_stored(&mut self, now: Timestamp, id: &AgentId, reply: ReplySlot, out: &mut Vec<Effect>) {
        self.transitions.remove(id);
        let drain = self.state.registry.agents.get(id).and_then(|it| it.drain);
        if let (Some(agent), Some(drain)) = (self.agent_mut(id), drain) {
            agent.drain = Some(drain);
            agent.drain_started_at = Some(now);
            agent.deactivated = true;
            self.allocator.set_agent_active(id, false);
            self.rescind_agent(id, out);
            self.tell(id, ToAgent::Drain { config: drain.config }, out);
            self.check_drained(id);
        }
        self.reply(reply, Reply::Ok, out);
    }

    /// An agent that came back is told again that it drains, or that it does not any more.
    pub(crate) fn resume_drain(&mut self, id: &AgentId, draining: bool, out: &mut Vec<Effect>) {
        let drain = self.state.agents.get(id).and_then(|it| it.drain);
        if drain.is_none() && draining {
            self.tell(id, ToAgent::Undrain, out);
        }
        if let Some(drain) = drain {
            self.tell(id, ToAgent::Drain { config: drain.config }, out);
            self.check_drained(id);
        }
    }

    /// A draining agent without anything left is drained.
    pub(crate) fn check_drained(&mut self, id: &AgentId) {
        let Some(agent) = self.state.agents.get(id) else { return };
        let Some(drain) = agent.drain.filter(|it| it.state == DrainState::Draining as i32) else { return };
        if !agent.tasks.is_empty() || !agent.operations.is_empty() || !agent.connected() || self.transitions.contains(id) {
            return;
        }
        let info = v1::DrainInfo { state: DrainState::Drained as i32, config: drain.config };
        let Some(change) = self.change_entry(id, |drain, _| *drain = Some(info)) else { return };
        self.transitions.insert(id.clone());
        self.persist(vec![change], After::Drained { id: id.clone() });
    }

    pub(crate) fn drained_stored(&mut self, now: Timestamp, id: &AgentId) {
        self.transitions.remove(id);
        let drain = self.state.registry.agents.get(id).and_then(|it| it.drain);
        if let Some(agent) = self.agent_mut(id) {
            agent.drain.clone_from(&drain);
        }
        if drain.is_some_and(|it| it.config.mark_gone.unwrap_or(false)) && self.transitions.insert(id.clone()) {
            self.persist(vec![Change::Gone(id.clone(), now)], After::Gone { id: id.clone(), reply: None });
        }
    }

    pub(crate) fn deactivate_agent(
        &mut self,
        slot: ReplySlot,
        principal: Option<&str>,
        call: &v1::master::call::DeactivateAgent,
    ) -> Answer {
        self.permit(principal, Action::DeactivateAgent)?;
        let id = AgentId::from(&call.agent_id);
        let Some(change) = self.change_entry(&id, |_, deactivated| *deactivated = true) else {
            return Err(Reply::bad_request("Unknown agent"));
        };
        if !self.transitions.insert(id.clone()) {
            return Err(Reply::refused(Refusal::Conflict, "Agent is in the middle of another transition"));
        }
        self.persist(vec![change], After::Deactivated { id, reply: slot });
        Ok(None)
    }

    pub(crate) fn deactivated_stored(&mut self, id: &AgentId, reply: ReplySlot, out: &mut Vec<Effect>) {
        self.transitions.remove(id);
        if let Some(agent) = self.agent_mut(id) {
            agent.deactivated = true;
        }
        self.allocator.set_agent_active(id, false);
        self.rescind_agent(id, out);
        self.reply(reply, Reply::Ok, out);
    }

    pub(crate) fn reactivate_agent(
        &mut self,
        slot: ReplySlot,
        principal: Option<&str>,
        call: &v1::master::call::ReactivateAgent,
    ) -> Answer {
        self.permit(principal, Action::ReactivateAgent)?;
        let id = AgentId::from(&call.agent_id);
        let registry = &self.state.registry;
        let entry = registry.agents.get(&id).map(|it| (it.deactivated, it.drain));
        let entry = entry.or_else(|| registry.unreachable.get(&id).map(|it| (it.deactivated, it.drain)));
        let Some((true, drain)) = entry else { return Err(Reply::bad_request("Agent is not deactivated")) };
        if drain.is_some_and(|it| it.state == DrainState::Draining as i32) {
            return Err(Reply::bad_request("Agent is still in the DRAINING state"));
        }
        let change = self.change_entry(&id, |drain, deactivated| {
            *drain = None;
            *deactivated = false;
        });
        let Some(change) = change else { return Err(Reply::bad_request("Unknown agent")) };
        if !self.transitions.insert(id.clone()) {
            return Err(Reply::refused(Refusal::Conflict, "Agent removed while processing the call"));
        }
        self.persist(vec![change], After::Reactivated { id, reply: slot });
        Ok(None)
    }

    pub(crate) fn reactivated_stored(&mut self, id: &AgentId, reply: ReplySlot, out: &mut Vec<Effect>) {
        self.transitions.remove(id);
        if let Some(agent) = self.agent_mut(id) {
            let drained = agent.drain.take().is_some();
            agent.drain_started_at = None;
            agent.deactivated = false;
            let active = agent.active();
            self.allocator.set_agent_active(id, active);
            if drained {
                self.tell(id, ToAgent::Undrain, out);
            }
        }
        self.reply(reply, Reply::Ok, out);
    }
}

/// Whether an agent's machine is meant. What an operator leaves out matches anything.
pub fn is_machine(machine: &v1::MachineId, hostname: &str, ip: &str) -> bool {
    let host = machine.hostname.as_deref().filter(|it| !it.is_empty());
    let address = machine.ip.as_deref().filter(|it| !it.is_empty());
    (host.is_some() || address.is_some()) && host.is_none_or(|it| it.eq_ignore_ascii_case(hostname)) && address.is_none_or(|it| it == ip)
}

fn machine_error(machine: &v1::MachineId) -> Option<String> {
    let host = machine.hostname.as_deref().unwrap_or_default();
    let ip = machine.ip.as_deref().unwrap_or_default();
    if host.is_empty() && ip.is_empty() {
        return Some("Both 'hostname' and 'ip' for a machine are empty".into());
    }
    let bad = !ip.is_empty() && ip.parse::<std::net::IpAddr>().is_err();
    bad.then(|| format!("Failed to parse the IP '{ip}'"))
}

fn name(machine: &v1::MachineId) -> String {
    let host = machine.hostname.iter().map(|it| format!("\"hostname\":\"{it}\""));
    let ip = machine.ip.iter().map(|it| format!("\"ip\":\"{it}\""));
    format!("{{{}}}", host.chain(ip).collect::<Vec<_>>().join(","))
}
