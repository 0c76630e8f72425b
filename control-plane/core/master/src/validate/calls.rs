use mesos::resources_error;
use mesos_proto::v1;
use v1::scheduler;

/// What is wrong with the form of a call of the scheduler API, without the prefix that the HTTP edge puts before it; `None` when nothing is.
///
/// `principal` is who the caller authenticated as.
pub fn scheduler_call_error(call: &scheduler::Call, principal: Option<&str>) -> Option<String> {
    use scheduler::call::Type;
    let Some(kind) = call.r#type else { return expecting("type") };
    let kind = Type::try_from(kind).unwrap_or(Type::Unknown);
    let id = call.framework_id.as_ref().map(|it| it.value.as_str());
    if kind == Type::Subscribe {
        let Some(subscribe) = &call.subscribe else { return expecting("subscribe") };
        let info = &subscribe.framework_info;
        // An empty id is as good as none: the framework is new.
        if id.unwrap_or_default() != info.id.as_ref().map(|it| it.value.as_str()).unwrap_or_default() {
            return Some("'framework_id' differs from 'subscribe.framework_info.id'".into());
        }
        if let (Some(principal), Some(claimed)) = (principal, info.principal.as_deref())
            && principal != claimed
        {
            return Some(format!("Authenticated principal '{principal}' does not match principal '{claimed}' set in `FrameworkInfo`"));
        }
        return None;
    }
    let Some(id) = id else { return expecting("framework_id") };
    let present = |present: bool, name: &str| if present { None } else { expecting(name) };
    match kind {
        Type::Unknown | Type::Subscribe | Type::Teardown | Type::Revive | Type::Suppress => None,
        Type::Accept => present(call.accept.is_some(), "accept"),
        Type::Decline => present(call.decline.is_some(), "decline"),
        Type::AcceptInverseOffers => present(call.accept_inverse_offers.is_some(), "accept_inverse_offers"),
        Type::DeclineInverseOffers => present(call.decline_inverse_offers.is_some(), "decline_inverse_offers"),
        Type::Kill => present(call.kill.is_some(), "kill"),
        Type::Shutdown => present(call.shutdown.is_some(), "shutdown"),
        Type::Acknowledge => match &call.acknowledge {
            None => expecting("acknowledge"),
            Some(acknowledge) => uuid_error(&acknowledge.uuid),
        },
        Type::AcknowledgeOperationStatus => match &call.acknowledge_operation_status {
            None => expecting("acknowledge_operation_status"),
            Some(acknowledge) => uuid_error(&acknowledge.uuid).or_else(|| present(acknowledge.agent_id.is_some(), "agent_id")),
        },
        Type::Reconcile => present(call.reconcile.is_some(), "reconcile"),
        Type::ReconcileOperations => present(call.reconcile_operations.is_some(), "reconcile_operations"),
        Type::Message => present(call.message.is_some(), "message"),
        Type::Request => present(call.request.is_some(), "request"),
        Type::UpdateFramework => {
            let Some(update) = &call.update_framework else { return expecting("update_framework") };
            let other = update.framework_info.id.as_ref().map(|it| it.value.as_str());
            (other != Some(id)).then(|| "'framework_id' differs from 'update_framework.framework_info.id'".into())
        }
    }
}

/// What is wrong with the form of a call of the operator API, without the prefix that the HTTP edge puts before it; `None` when nothing is.
pub fn operator_call_error(call: &v1::master::Call) -> Option<String> {
    use v1::master::call::Type;
    let Some(kind) = call.r#type else { return expecting("type") };
    let present = |present: bool, name: &str| if present { None } else { expecting(name) };
    let agent = |present: bool| {
        let text = "Expecting 'agent_id' to be present; only agent default resources are supported right now";
        if present { None } else { Some(text.to_owned()) }
    };
    match Type::try_from(kind).unwrap_or(Type::Unknown) {
        Type::GetMetrics => present(call.get_metrics.is_some(), "get_metrics"),
        Type::SetLoggingLevel => present(call.set_logging_level.is_some(), "set_logging_level"),
        Type::ListFiles => present(call.list_files.is_some(), "list_files"),
        Type::ReadFile => present(call.read_file.is_some(), "read_file"),
        Type::UpdateWeights => present(call.update_weights.is_some(), "update_weights"),
        Type::ReserveResources => match &call.reserve_resources {
            None => expecting("reserve_resources"),
            Some(it) => resources_error(&it.resources),
        },
        Type::UnreserveResources => match &call.unreserve_resources {
            None => expecting("unreserve_resources"),
            Some(it) => resources_error(&it.resources),
        },
        Type::CreateVolumes => present(call.create_volumes.is_some(), "create_volumes"),
        Type::DestroyVolumes => present(call.destroy_volumes.is_some(), "destroy_volumes"),
        Type::GrowVolume => match &call.grow_volume {
            None => expecting("grow_volume"),
            Some(it) => agent(it.agent_id.is_some()),
        },
        Type::ShrinkVolume => match &call.shrink_volume {
            None => expecting("shrink_volume"),
            Some(it) => agent(it.agent_id.is_some()),
        },
        Type::UpdateMaintenanceSchedule => present(call.update_maintenance_schedule.is_some(), "update_maintenance_schedule"),
        Type::StartMaintenance => present(call.start_maintenance.is_some(), "start_maintenance"),
        Type::StopMaintenance => present(call.stop_maintenance.is_some(), "stop_maintenance"),
        Type::DrainAgent => present(call.drain_agent.is_some(), "drain_agent"),
        Type::DeactivateAgent => present(call.deactivate_agent.is_some(), "deactivate_agent"),
        Type::ReactivateAgent => present(call.reactivate_agent.is_some(), "reactivate_agent"),
        Type::UpdateQuota => present(call.update_quota.is_some(), "update_quota"),
        Type::SetQuota => present(call.set_quota.is_some(), "set_quota"),
        Type::RemoveQuota => present(call.remove_quota.is_some(), "remove_quota"),
        Type::Teardown => present(call.teardown.is_some(), "teardown"),
        Type::MarkAgentGone => present(call.mark_agent_gone.is_some(), "mark_agent_gone"),
        Type::Unknown
        | Type::GetHealth
        | Type::GetFlags
        | Type::GetVersion
        | Type::GetLoggingLevel
        | Type::GetState
        | Type::GetAgents
        | Type::GetFrameworks
        | Type::GetExecutors
        | Type::GetOperations
        | Type::GetTasks
        | Type::GetRoles
        | Type::GetWeights
        | Type::GetMaster
        | Type::Subscribe
        | Type::GetMaintenanceStatus
        | Type::GetMaintenanceSchedule
        | Type::GetQuota => None,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "every use is the answer of a function that may find nothing")]
fn expecting(field: &str) -> Option<String> {
    Some(format!("Expecting '{field}' to be present"))
}

fn uuid_error(uuid: &[u8]) -> Option<String> {
    (uuid.len() != 16).then(|| format!("Expected 16 bytes but got {} bytes", uuid.len()))
}
