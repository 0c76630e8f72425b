//! What operators change: quotas, weights, resources, frameworks. Maintenance and draining are in rooms of their own.

mod quota;
mod resources;

use base::Timestamp;
use mesos::{AgentId, FrameworkId, Role};
use mesos_proto::v1;
use v1::master::call::Type;

use crate::master::Master;
use crate::registry::Change;
use crate::writes::After;
use crate::{Action, Effect, Refusal, Reply, ReplySlot, operator_call_error};

/// The answer to a call that is complete, or nothing: the answer comes when the registry is stored.
pub(crate) type Answer = Result<Option<Reply>, Reply>;

pub(crate) fn forbidden() -> Reply {
    Reply::refused(Refusal::Forbidden, "403 Forbidden.")
}

impl Master {
    /// A call of the operator API that changes something.
    pub(crate) fn operator(
        &mut self,
        now: Timestamp,
        slot: ReplySlot,
        principal: Option<&str>,
        call: v1::master::Call,
        out: &mut Vec<Effect>,
    ) {
        if let Some(error) = operator_call_error(&call) {
            self.reply(slot, Reply::bad_request(format!("Failed to validate master::Call: {error}")), out);
            return;
        }
        match self.operate(now, slot, principal, call, out) {
            Ok(None) => {}
            Ok(Some(reply)) | Err(reply) => self.reply(slot, reply, out),
        }
    }

    fn operate(
        &mut self,
        now: Timestamp,
        slot: ReplySlot,
        principal: Option<&str>,
        call: v1::master::Call,
        out: &mut Vec<Effect>,
    ) -> Answer {
        let kind = call.r#type.and_then(|it| Type::try_from(it).ok()).unwrap_or_default();
        match kind {
            Type::UpdateWeights => self.update_weights(slot, principal, &call.update_weights.unwrap_or_default().weight_infos),
            Type::UpdateQuota => self.update_quota(slot, principal, &call.update_quota.unwrap_or_default()),
            Type::SetQuota => self.set_quota(slot, principal, &call.set_quota.unwrap_or_default().quota_request),
            Type::RemoveQuota => self.remove_quota(slot, principal, &call.remove_quota.unwrap_or_default().role),
            Type::ReserveResources
            | Type::UnreserveResources
            | Type::CreateVolumes
            | Type::DestroyVolumes
            | Type::GrowVolume
            | Type::ShrinkVolume => self.change_resources(principal, kind, call, out),
            Type::UpdateMaintenanceSchedule => {
                self.update_schedule(slot, principal, call.update_maintenance_schedule.unwrap_or_default().schedule)
            }
            Type::StartMaintenance => self.start_maintenance(slot, principal, &call.start_maintenance.unwrap_or_default().machines),
            Type::StopMaintenance => self.stop_maintenance(slot, principal, &call.stop_maintenance.unwrap_or_default().machines),
            Type::DrainAgent => self.drain_agent(slot, principal, &call.drain_agent.unwrap_or_default()),
            Type::DeactivateAgent => self.deactivate_agent(slot, principal, &call.deactivate_agent.unwrap_or_default()),
            Type::ReactivateAgent => self.reactivate_agent(slot, principal, &call.reactivate_agent.unwrap_or_default()),
            Type::Teardown => self.teardown(now, principal, &call.teardown.unwrap_or_default(), out),
            Type::MarkAgentGone => self.mark_agent_gone(now, slot, principal, &call.mark_agent_gone.unwrap_or_default()),
            _ => Err(Reply::refused(Refusal::NotImplemented, "501 Not Implemented.")),
        }
    }

    pub(crate) fn permit(&self, principal: Option<&str>, action: Action<'_>) -> Result<(), Reply> {
        if self.config.authorizer.allows(principal, action) { Ok(()) } else { Err(forbidden()) }
    }

    fn update_weights(&mut self, slot: ReplySlot, principal: Option<&str>, infos: &[v1::WeightInfo]) -> Answer {
        let mut changes = Vec::new();
        let mut roles = Vec::new();
        for info in infos {
            let role = info.role.as_deref().unwrap_or_default().trim();
            let prefix = "Failed to validate update weights request JSON";
            if let Some(error) = Role::error(role) {
                return Err(Reply::bad_request(format!("{prefix}: Invalid role '{role}': {error}")));
            }
            if self.config.roles.as_ref().is_some_and(|known| role != "*" && !known.contains(role)) {
                return Err(Reply::bad_request(format!("{prefix}: Unknown role '{role}'")));
            }
            if !info.weight.is_finite() || info.weight <= 0.0 {
                return Err(Reply::bad_request(format!(
                    "{prefix} for role '{role}': Invalid weight '{}': Weights must be positive",
                    info.weight
                )));
            }
            changes.push(Change::Weight(role.to_owned(), info.weight));
            roles.push(role.to_owned());
        }
        for role in &roles {
            self.permit(principal, Action::UpdateWeight { role })?;
        }
        if changes.is_empty() {
            return Ok(Some(Reply::Ok));
        }
        self.persist(changes, After::Weights { roles, reply: slot });
        Ok(None)
    }

    pub(crate) fn weights_stored(&mut self, roles: &[String], reply: ReplySlot, out: &mut Vec<Effect>) {
        let mut counts = false;
        for role in roles {
            let weight = self.state.registry.weights.get(role).copied().unwrap_or(1.0);
            self.allocator.set_weight(role, weight);
            counts |= self.state.frameworks.values().any(|it| it.roles.iter().any(|of| of.may_use(role)));
        }
        if counts {
            self.rescind_all(out);
        }
        self.reply(reply, Reply::Ok, out);
    }

    fn teardown(&mut self, now: Timestamp, principal: Option<&str>, call: &v1::master::call::Teardown, out: &mut Vec<Effect>) -> Answer {
        let id = FrameworkId::from(&call.framework_id);
        let Some(framework) = self.framework(&id) else {
            return Err(Reply::bad_request("No framework found with specified ID"));
        };
        self.permit(principal, Action::Teardown { principal: framework.info.principal.as_deref() })?;
        self.remove_framework(now, &id, out);
        Ok(Some(Reply::Ok))
    }

    fn mark_agent_gone(
        &mut self,
        now: Timestamp,
        slot: ReplySlot,
        principal: Option<&str>,
        call: &v1::master::call::MarkAgentGone,
    ) -> Answer {
        self.permit(principal, Action::MarkAgentGone)?;
        let id = AgentId::from(&call.agent_id);
        let registry = &self.state.registry;
        if registry.gone.contains_key(&id) {
            return Ok(Some(Reply::Ok));
        }
        if !registry.agents.contains_key(&id) && !registry.unreachable.contains_key(&id) {
            return Err(Reply::refused(Refusal::NotFound, "404 Not Found."));
        }
        if !self.transitions.insert(id.clone()) {
            return Err(Reply::refused(Refusal::Unavailable, "Agent is in the middle of another transition"));
        }
        self.persist(vec![Change::Gone(id.clone(), now)], After::Gone { id, reply: Some(slot) });
        Ok(None)
    }
}
