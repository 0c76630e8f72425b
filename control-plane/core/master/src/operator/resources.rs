use std::sync::Arc;

use mesos::{AgentId, Conversion};
use mesos_proto::v1;
use v1::master::call::Type;
use v1::offer::Operation;
use v1::offer::operation;

use super::{Answer, forbidden};
use crate::master::Master;
use crate::validate::{Allowed, operation_error};
use crate::{Agent, Effect, Refusal, Reply};

impl Master {
    /// RESERVE_RESOURCES and its like.
    pub(crate) fn change_resources(
        &mut self,
        principal: Option<&str>,
        kind: Type,
        call: v1::master::Call,
        out: &mut Vec<Effect>,
    ) -> Answer {
        let Some((agent, operation, name)) = wanted(kind, call) else {
            return Err(Reply::refused(Refusal::NotImplemented, "501 Not Implemented."));
        };
        let Some(agent) = self.agent(&agent) else {
            return Err(Reply::bad_request("No agent found with specified ID"));
        };
        let allowed = Allowed { framework: None, principal, agent: &agent };
        let error = operation_error(&operation, &allowed).or_else(|| self.volumes_refused(&agent, &operation));
        if let Some(error) = error {
            return Err(Reply::bad_request(format!("Invalid {name} operation on agent {}: {error}", agent.name())));
        }
        if self.unauthorized(principal, &operation).is_some() {
            return Err(forbidden());
        }
        let conversions = mesos::conversions(&operation).map_err(Reply::bad_request)?;
        self.apply_to_agent(&agent, &conversions, out).map_err(|error| Reply::refused(Refusal::Conflict, error))?;
        self.start_operation(None, &agent.id, operation, out);
        Ok(Some(Reply::Accepted))
    }

    /// Changes what is free of an agent; offers that are in the way are taken back.
    fn apply_to_agent(&mut self, agent: &Arc<Agent>, conversions: &[Conversion], out: &mut Vec<Effect>) -> Result<(), String> {
        let unallocated: Vec<Conversion> = conversions.iter().map(Conversion::unallocated).collect();
        let apply = |resources: &mesos::Resources| {
            let mut changed = resources.clone();
            unallocated.iter().try_for_each(|it| it.apply(&mut changed)).map(|()| changed)
        };
        let total = apply(&agent.total)?;
        for offer in &agent.offers {
            if apply(&self.allocator.free_on(&agent.id)).is_ok() {
                break;
            }
            self.rescind(offer, out);
        }
        apply(&self.allocator.free_on(&agent.id))?;
        if let Some(agent) = self.agent_mut(&agent.id) {
            agent.total = total.clone();
        }
        self.allocator.convert(&agent.id, &total);
        Ok(())
    }
}

/// The agent, the operation and what it is called.
fn wanted(kind: Type, call: v1::master::Call) -> Option<(AgentId, Operation, &'static str)> {
    let of = |kind: operation::Type| Operation { r#type: Some(kind as i32), ..Default::default() };
    Some(match kind {
        Type::ReserveResources => {
            let call = call.reserve_resources?;
            let reserve = Some(operation::Reserve { source: call.source, resources: call.resources });
            ((&call.agent_id).into(), Operation { reserve, ..of(operation::Type::Reserve) }, "RESERVE")
        }
        Type::UnreserveResources => {
            let call = call.unreserve_resources?;
            let unreserve = Some(operation::Unreserve { resources: call.resources });
            ((&call.agent_id).into(), Operation { unreserve, ..of(operation::Type::Unreserve) }, "UNRESERVE")
        }
        Type::CreateVolumes => {
            let call = call.create_volumes?;
            let create = Some(operation::Create { volumes: call.volumes });
            ((&call.agent_id).into(), Operation { create, ..of(operation::Type::Create) }, "CREATE")
        }
        Type::DestroyVolumes => {
            let call = call.destroy_volumes?;
            let destroy = Some(operation::Destroy { volumes: call.volumes });
            ((&call.agent_id).into(), Operation { destroy, ..of(operation::Type::Destroy) }, "DESTROY")
        }
        Type::GrowVolume => {
            let call = call.grow_volume?;
            let grow_volume = Some(operation::GrowVolume { volume: call.volume, addition: call.addition });
            ((&call.agent_id?).into(), Operation { grow_volume, ..of(operation::Type::GrowVolume) }, "GROW_VOLUME")
        }
        Type::ShrinkVolume => {
            let call = call.shrink_volume?;
            let shrink_volume = Some(operation::ShrinkVolume { volume: call.volume, subtract: call.subtract });
            ((&call.agent_id?).into(), Operation { shrink_volume, ..of(operation::Type::ShrinkVolume) }, "SHRINK_VOLUME")
        }
        _ => return None,
    })
}
