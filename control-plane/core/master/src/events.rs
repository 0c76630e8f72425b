//! Makes the messages that frameworks and operators get.

use base::Timestamp;
use mesos::{AgentId, ExecutorId, Format, OfferId, TaskId};
use mesos_proto::v1;
use v1::scheduler::{Event, event};
use v1::task_status::{Reason, Source};
use v1::{TaskState, TaskStatus};

use crate::master::{seconds, time_info};
use crate::{Agent, Framework, InverseOffer, Offer};

pub(crate) fn subscribed(framework: &Framework, master: &v1::MasterInfo) -> Event {
    Event {
        r#type: Some(event::Type::Subscribed as i32),
        subscribed: Some(event::Subscribed {
            framework_id: framework.id.to_proto(),
            heartbeat_interval_seconds: Some(15.0),
            master_info: Some(master.clone()),
        }),
        ..Default::default()
    }
}

pub(crate) fn error(message: String) -> Event {
    Event { r#type: Some(event::Type::Error as i32), error: Some(event::Error { message }), ..Default::default() }
}

pub(crate) fn update(status: TaskStatus) -> Event {
    Event { r#type: Some(event::Type::Update as i32), update: Some(event::Update { status }), ..Default::default() }
}

pub(crate) fn operation_update(status: v1::OperationStatus) -> Event {
    Event {
        r#type: Some(event::Type::UpdateOperationStatus as i32),
        update_operation_status: Some(event::UpdateOperationStatus { status }),
        ..Default::default()
    }
}

pub(crate) fn offers(offers: Vec<v1::Offer>) -> Event {
    Event { r#type: Some(event::Type::Offers as i32), offers: Some(event::Offers { offers }), ..Default::default() }
}

pub(crate) fn inverse_offers(inverse_offers: Vec<v1::InverseOffer>) -> Event {
    Event {
        r#type: Some(event::Type::InverseOffers as i32),
        inverse_offers: Some(event::InverseOffers { inverse_offers }),
        ..Default::default()
    }
}

pub(crate) fn rescind(id: &OfferId) -> Event {
    Event { r#type: Some(event::Type::Rescind as i32), rescind: Some(event::Rescind { offer_id: id.to_proto() }), ..Default::default() }
}

pub(crate) fn rescind_inverse_offer(id: &OfferId) -> Event {
    Event {
        r#type: Some(event::Type::RescindInverseOffer as i32),
        rescind_inverse_offer: Some(event::RescindInverseOffer { inverse_offer_id: id.to_proto() }),
        ..Default::default()
    }
}

pub(crate) fn message(agent: &AgentId, executor: &ExecutorId, data: Vec<u8>) -> Event {
    Event {
        r#type: Some(event::Type::Message as i32),
        message: Some(event::Message { agent_id: agent.to_proto(), executor_id: executor.to_proto(), data }),
        ..Default::default()
    }
}

pub(crate) fn failure(agent: &AgentId, executor: Option<(&ExecutorId, i32)>) -> Event {
    Event {
        r#type: Some(event::Type::Failure as i32),
        failure: Some(event::Failure {
            agent_id: Some(agent.to_proto()),
            executor_id: executor.map(|(id, _)| id.to_proto()),
            status: executor.map(|(_, status)| status),
        }),
        ..Default::default()
    }
}

/// A status that the master makes: never to be acknowledged.
pub(crate) fn status(now: Timestamp, task: &TaskId, state: TaskState, reason: Reason, message: impl Into<String>) -> TaskStatus {
    TaskStatus {
        task_id: task.to_proto(),
        state: state as i32,
        message: Some(message.into()),
        source: Some(Source::Master as i32),
        reason: Some(reason as i32),
        timestamp: Some(seconds(now)),
        ..Default::default()
    }
}

impl Offer {
    /// As its framework sees it.
    pub fn to_proto(&self, agent: &Agent, framework: &Framework) -> v1::Offer {
        let multi_role = framework.capabilities.multi_role();
        let visible = self.resources.iter().filter(|it| &**it.name() != "ephemeral_ports");
        let resources = visible.flat_map(|it| {
            let mut proto = it.to_proto(framework.format());
            if !multi_role {
                proto.allocation_info = None;
            }
            std::iter::repeat_n(proto, if it.is_shared() { it.count() as usize } else { 1 })
        });
        let range = (framework.id.clone(), ExecutorId::from(""))..;
        let executors = agent.executors.range(range).take_while(|((id, _), _)| *id == framework.id);
        v1::Offer {
            id: self.id.to_proto(),
            framework_id: self.framework_id.to_proto(),
            agent_id: self.agent_id.to_proto(),
            hostname: agent.info.hostname.clone(),
            url: Some(agent_url(agent)),
            domain: agent.info.domain.clone(),
            resources: resources.collect(),
            attributes: agent.info.attributes.clone(),
            executor_ids: executors.map(|((_, id), _)| id.to_proto()).collect(),
            unavailability: agent.unavailability,
            allocation_info: multi_role.then(|| v1::resource::AllocationInfo { role: Some(self.role.to_string()) }),
        }
    }
}

impl InverseOffer {
    /// As its framework sees it.
    pub fn to_proto(&self, agent: &Agent) -> v1::InverseOffer {
        v1::InverseOffer {
            id: self.id.to_proto(),
            url: Some(agent_url(agent)),
            framework_id: self.framework_id.to_proto(),
            agent_id: Some(self.agent_id.to_proto()),
            unavailability: self.unavailability,
            resources: Vec::new(),
        }
    }
}

/// Where an agent's HTTP API is.
fn agent_url(agent: &Agent) -> v1::Url {
    let (path, address) = agent.pid.split_once('@').unwrap_or(("slave(1)", &agent.pid));
    let (ip, port) = address.rsplit_once(':').unwrap_or((address, ""));
    v1::Url {
        scheme: if agent.tls { "https" } else { "http" }.into(),
        address: v1::Address { hostname: Some(agent.info.hostname.clone()), ip: Some(ip.to_owned()), port: port.parse().unwrap_or(5051) },
        path: Some(format!("/{path}")),
        ..Default::default()
    }
}

impl Agent {
    /// As the operator API shows it.
    pub fn to_proto(&self) -> v1::master::response::get_agents::Agent {
        v1::master::response::get_agents::Agent {
            agent_info: (*self.info).clone(),
            active: self.active(),
            deactivated: Some(self.deactivated),
            version: self.version.to_string(),
            pid: Some(self.pid.to_string()),
            registered_time: Some(time_info(self.registered_at)),
            reregistered_time: self.reregistered_at.map(time_info),
            total_resources: self.total.to_proto(Format::Endpoint),
            allocated_resources: self.used_total().to_proto(Format::Endpoint),
            offered_resources: self.offered.to_proto(Format::Endpoint),
            capabilities: self.capability_list.to_vec(),
            resource_providers: Vec::new(),
            drain_info: self.drain,
            estimated_drain_start_time: self.drain_started_at.map(time_info),
        }
    }
}

impl Framework {
    /// As the operator API shows it; its offers are beside it in the [`crate::Snapshot`].
    pub fn to_proto(&self, state: &crate::Snapshot) -> v1::master::response::get_frameworks::Framework {
        let offers: Vec<_> = self.offers.iter().filter_map(|id| state.offers.get(id)).collect();
        let mut offered = mesos::Resources::new();
        for offer in &offers {
            offered.add_all(&offer.resources);
        }
        let inverse = self.inverse_offers.iter().filter_map(|id| state.inverse_offers.get(id));
        v1::master::response::get_frameworks::Framework {
            framework_info: (*self.info).clone(),
            active: self.active(),
            connected: self.connected(),
            recovered: self.recovered,
            registered_time: Some(time_info(self.registered_at)),
            reregistered_time: self.reregistered_at.map(time_info),
            unregistered_time: self.unregistered_at.map(time_info),
            offers: offers.iter().filter_map(|it| Some(it.to_proto(&**state.agents.get(&it.agent_id)?, self))).collect(),
            inverse_offers: inverse.filter_map(|it| Some(it.to_proto(&**state.agents.get(&it.agent_id)?))).collect(),
            allocated_resources: self.used_total().to_proto(Format::Endpoint),
            offered_resources: offered.to_proto(Format::Endpoint),
            offer_constraints: self.offer_constraints.as_deref().cloned(),
        }
    }
}
