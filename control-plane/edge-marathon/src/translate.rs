//! Between the core's words and the messages of Mesos' v1 scheduler API.

mod launch;
mod resources;

use base::Timestamp;
use mesos_proto::v1;
use mesos_proto::v1::scheduler::{self as api, call};
use prost::Message as _;
use scheduler::mesos::{Attribute, Call, CheckStatus, Event, Offer, Operation, TaskState, TaskStatus};

use crate::settings::Settings;

pub(crate) use resources::{from_resource, into_resource};

/// The call that opens the stream.
pub(crate) fn subscribe(settings: &Settings, framework_id: Option<&str>, roles: Vec<String>) -> api::Call {
    let info = framework_info(settings, framework_id, roles);
    api::Call {
        framework_id: framework_id.map(|id| v1::FrameworkId { value: id.to_owned() }),
        r#type: Some(call::Type::Subscribe as i32),
        subscribe: Some(call::Subscribe { framework_info: info, suppressed_roles: Vec::new(), offer_constraints: None }),
        ..api::Call::default()
    }
}

fn framework_info(settings: &Settings, framework_id: Option<&str>, roles: Vec<String>) -> v1::FrameworkInfo {
    use v1::framework_info::capability::Type;
    let capabilities =
        [Type::MultiRole, Type::PartitionAware, Type::TaskKillingState, Type::GpuResources, Type::RegionAware, Type::ReservationRefinement];
    v1::FrameworkInfo {
        user: settings.user.clone(),
        name: settings.framework_name.clone(),
        id: framework_id.map(|id| v1::FrameworkId { value: id.to_owned() }),
        failover_timeout: Some(settings.failover_timeout.as_secs_f64()),
        checkpoint: Some(settings.checkpoint),
        roles,
        hostname: Some(settings.hostname.clone()),
        principal: settings.principal.as_ref().map(|(name, _)| name.clone()),
        webui_url: Some(settings.webui_url.clone().unwrap_or_else(|| format!("http://{}", settings.leader()))),
        capabilities: capabilities.into_iter().map(|it| v1::framework_info::Capability { r#type: Some(it as i32) }).collect(),
        ..v1::FrameworkInfo::default()
    }
}

/// The message of a call of the core's.
pub(crate) fn into_call(call: Call, settings: &Settings, framework_id: &str) -> api::Call {
    let mut message = api::Call { framework_id: Some(v1::FrameworkId { value: framework_id.to_owned() }), ..api::Call::default() };
    let offer_ids = |ids: Vec<String>| ids.into_iter().map(|value| v1::OfferId { value }).collect();
    let kind = match call {
        Call::Accept { offer_id, operations, refuse_seconds } => {
            message.accept = Some(call::Accept {
                offer_ids: offer_ids(vec![offer_id]),
                operations: operations.into_iter().map(|it| into_operation(it, settings)).collect(),
                filters: Some(v1::Filters { refuse_seconds: Some(refuse_seconds) }),
            });
            call::Type::Accept
        }
        Call::Decline { offer_ids: ids, refuse_seconds } => {
            message.decline =
                Some(call::Decline { offer_ids: offer_ids(ids), filters: Some(v1::Filters { refuse_seconds: Some(refuse_seconds) }) });
            call::Type::Decline
        }
        Call::Revive { roles } => {
            message.revive = Some(call::Revive { roles });
            call::Type::Revive
        }
        Call::Suppress { roles } => {
            message.suppress = Some(call::Suppress { roles });
            call::Type::Suppress
        }
        Call::UpdateRoles { roles, suppressed } => {
            message.update_framework = Some(call::UpdateFramework {
                framework_info: framework_info(settings, Some(framework_id), roles),
                suppressed_roles: suppressed,
                offer_constraints: None,
            });
            call::Type::UpdateFramework
        }
        Call::Kill { task_id, agent_id } => {
            message.kill = Some(call::Kill {
                task_id: v1::TaskId { value: task_id },
                agent_id: agent_id.map(|value| v1::AgentId { value }),
                kill_policy: None,
            });
            call::Type::Kill
        }
        Call::Acknowledge { task_id, agent_id, uuid } => {
            message.acknowledge =
                Some(call::Acknowledge { agent_id: v1::AgentId { value: agent_id }, task_id: v1::TaskId { value: task_id }, uuid });
            call::Type::Acknowledge
        }
        Call::Reconcile { tasks } => {
            let task = |(task_id, agent_id): (String, Option<String>)| call::reconcile::Task {
                task_id: v1::TaskId { value: task_id },
                agent_id: agent_id.map(|value| v1::AgentId { value }),
            };
            message.reconcile = Some(call::Reconcile { tasks: tasks.into_iter().map(task).collect() });
            call::Type::Reconcile
        }
    };
    message.r#type = Some(kind as i32);
    message
}

fn into_operation(operation: Operation, settings: &Settings) -> v1::offer::Operation {
    use v1::offer::operation;
    let mut message = v1::offer::Operation::default();
    let resources = |all: Vec<scheduler::mesos::Resource>, role: &str| all.iter().map(|it| into_resource(it, role)).collect();
    let kind = match operation {
        Operation::Launch(it) if it.spec.is_pod() => {
            message.launch_group = Some(launch::group(&it, settings));
            operation::Type::LaunchGroup
        }
        Operation::Launch(it) => {
            message.launch = Some(operation::Launch { task_infos: launch::task(&it, settings).into_iter().collect() });
            operation::Type::Launch
        }
        // The role that the resources are allocated to is filled in by the master.
        Operation::Reserve(all) => {
            message.reserve = Some(operation::Reserve { source: Vec::new(), resources: resources(all, "") });
            operation::Type::Reserve
        }
        Operation::Unreserve(all) => {
            message.unreserve = Some(operation::Unreserve { resources: resources(all, "") });
            operation::Type::Unreserve
        }
        Operation::Create(all) => {
            message.create = Some(operation::Create { volumes: resources(all, "") });
            operation::Type::Create
        }
        Operation::Destroy(all) => {
            message.destroy = Some(operation::Destroy { volumes: resources(all, "") });
            operation::Type::Destroy
        }
    };
    message.r#type = Some(kind as i32);
    message
}

/// What the master told, read from one record; `None` when the core has no use for it.
///
/// # Errors
/// When the record is no event.
pub(crate) fn read_event(record: &[u8]) -> Result<Option<Told>, String> {
    let event: api::Event = api::Event::decode(record).map_err(|error| error.to_string())?;
    Ok(from_event(event))
}

/// An event, with what only the client needs to know of it.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) event: Event,
    /// Seconds between heartbeats.
    pub(crate) heartbeat: Option<f64>,
}

fn from_event(event: api::Event) -> Option<Told> {
    let mut heartbeat = None;
    let told = if let Some(it) = event.subscribed {
        heartbeat = it.heartbeat_interval_seconds;
        let info = it.master_info.unwrap_or_default();
        let address = info.address.unwrap_or_default();
        let host = info.hostname.or(address.hostname).or(address.ip).unwrap_or_default();
        let domain = info.domain.and_then(|domain| domain.fault_domain);
        Event::Subscribed {
            framework_id: it.framework_id.value,
            master: format!("{host}:{}", info.port),
            region: domain.map(|it| it.region.name),
        }
    } else if let Some(it) = event.offers {
        Event::Offers(it.offers.into_iter().map(from_offer).collect())
    } else if let Some(it) = event.rescind {
        Event::Rescind(it.offer_id.value)
    } else if let Some(it) = event.update {
        Event::Update(from_status(it.status)?)
    } else if let Some(it) = event.message {
        Event::Message { agent_id: it.agent_id.value, executor_id: it.executor_id.value, data: it.data }
    } else if let Some(it) = event.failure {
        Event::Failure { agent_id: it.agent_id.map(|id| id.value), executor_id: it.executor_id.map(|id| id.value) }
    } else if let Some(it) = event.error {
        Event::Error(it.message)
    } else {
        return None;
    };
    Some(Told { event: told, heartbeat })
}

fn from_offer(offer: v1::Offer) -> Offer {
    let domain = offer.domain.and_then(|domain| domain.fault_domain);
    let role = offer.allocation_info.and_then(|it| it.role).unwrap_or_else(|| "*".to_owned());
    Offer {
        id: offer.id.value,
        agent_id: offer.agent_id.value,
        hostname: offer.hostname,
        role,
        resources: offer.resources.into_iter().map(from_resource).collect(),
        attributes: offer.attributes.into_iter().filter_map(from_attribute).collect(),
        region: domain.as_ref().map(|it| it.region.name.clone()),
        zone: domain.map(|it| it.zone.name),
        unavailable_from: offer.unavailability.map(|it| Timestamp::from_unix_nanos(u64::try_from(it.start.nanoseconds).unwrap_or(0))),
    }
}

fn from_attribute(attribute: v1::Attribute) -> Option<(String, Attribute)> {
    let value = if let Some(text) = attribute.text {
        Attribute::Text(text.value)
    } else if let Some(scalar) = attribute.scalar {
        Attribute::Scalar(scheduler::mesos::thousandths(scalar.value))
    } else if let Some(ranges) = attribute.ranges {
        Attribute::Ranges(ranges.range.into_iter().map(|it| (it.begin, it.end)).collect())
    } else {
        Attribute::Set(attribute.set?.item)
    };
    Some((attribute.name, value))
}

fn from_status(status: v1::TaskStatus) -> Option<TaskStatus> {
    let word = v1::TaskState::try_from(status.state).ok()?.as_str_name();
    let reason = status.reason.and_then(|it| v1::task_status::Reason::try_from(it).ok()).map(|it| it.as_str_name().to_owned());
    let networks = status.container_status.map(|it| it.network_infos).unwrap_or_default();
    let addresses = networks
        .into_iter()
        .flat_map(|it| it.ip_addresses)
        .filter_map(|it| Some((it.ip_address?, it.protocol == Some(v1::network_info::Protocol::IPv6 as i32))))
        .collect();
    let nanos = |seconds: f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a moment after 1970, saturates")]
        Timestamp::from_unix_nanos((seconds.max(0.0) * 1e9) as u64)
    };
    let check = status.check_status.and_then(|it| {
        if let Some(command) = it.command {
            Some(CheckStatus::Command(command.exit_code))
        } else if let Some(http) = it.http {
            Some(CheckStatus::Http(http.status_code))
        } else {
            it.tcp.map(|tcp| CheckStatus::Tcp(tcp.succeeded))
        }
    });
    Some(TaskStatus {
        task_id: status.task_id.value,
        state: TaskState::parse(word)?,
        message: status.message.unwrap_or_default(),
        reason,
        agent_id: status.agent_id.map(|it| it.value),
        uuid: status.uuid.filter(|uuid| !uuid.is_empty()),
        timestamp: status.timestamp.map(nanos),
        healthy: status.healthy,
        check,
        addresses,
        unreachable_since: status.unreachable_time.map(|it| Timestamp::from_unix_nanos(u64::try_from(it.nanoseconds).unwrap_or(0))),
    })
}
