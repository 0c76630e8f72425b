//! The answers of the operator API that only read.

use std::collections::BTreeMap;

use master::{Agent, Framework, Snapshot, ip_of, is_machine};
use mesos::{Format, Resources};
use mesos_proto::v1;
use v1::master::response::{self, Type};
use v1::master::{Event, Response};

use super::Scene;
use super::classic::holdings;
use super::state::time_info;
use crate::clock::seconds;

/// What is asked, of what the state can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Question {
    State,
    Agents,
    Frameworks,
    Executors,
    Operations,
    Tasks,
    Roles,
    Weights,
    Master,
    MaintenanceStatus,
    MaintenanceSchedule,
    Quota,
}

/// The answer.
pub(crate) fn answer(scene: &Scene, question: Question) -> Response {
    let snapshot = &scene.view.snapshot;
    let of = |kind: Type| Response { r#type: Some(kind.into()), ..Response::default() };
    match question {
        Question::State => Response { get_state: Some(state(scene)), ..of(Type::GetState) },
        Question::Agents => Response { get_agents: Some(agents(scene)), ..of(Type::GetAgents) },
        Question::Frameworks => Response { get_frameworks: Some(frameworks(snapshot)), ..of(Type::GetFrameworks) },
        Question::Executors => Response { get_executors: Some(executors(snapshot)), ..of(Type::GetExecutors) },
        Question::Operations => {
            let operations = snapshot.operations.values().map(|it| it.to_proto()).collect();
            Response { get_operations: Some(response::GetOperations { operations }), ..of(Type::GetOperations) }
        }
        Question::Tasks => Response { get_tasks: Some(tasks(snapshot)), ..of(Type::GetTasks) },
        Question::Roles => Response { get_roles: Some(roles(scene)), ..of(Type::GetRoles) },
        Question::Weights => {
            let infos = snapshot.registry.weights.iter();
            let weight_infos = infos.map(|(role, weight)| v1::WeightInfo { weight: *weight, role: Some(role.clone()) }).collect();
            Response { get_weights: Some(response::GetWeights { weight_infos }), ..of(Type::GetWeights) }
        }
        Question::Master => {
            let get_master = response::GetMaster {
                master_info: Some((*scene.about.info).clone()),
                start_time: Some(seconds(scene.about.started_at)),
                elected_time: scene.about.elected_at.map(seconds),
            };
            Response { get_master: Some(get_master), ..of(Type::GetMaster) }
        }
        Question::MaintenanceStatus => {
            let status = maintenance_status(snapshot);
            Response { get_maintenance_status: Some(response::GetMaintenanceStatus { status }), ..of(Type::GetMaintenanceStatus) }
        }
        Question::MaintenanceSchedule => {
            let schedule = snapshot.registry.schedule.clone();
            Response { get_maintenance_schedule: Some(response::GetMaintenanceSchedule { schedule }), ..of(Type::GetMaintenanceSchedule) }
        }
        Question::Quota => Response { get_quota: Some(response::GetQuota { status: quota(snapshot) }), ..of(Type::GetQuota) },
    }
}

/// The first event of an operator's stream.
pub(crate) fn subscribed(scene: &Scene, heartbeat_seconds: f64) -> Event {
    Event {
        r#type: Some(v1::master::event::Type::Subscribed.into()),
        subscribed: Some(v1::master::event::Subscribed {
            get_state: Some(state(scene)),
            heartbeat_interval_seconds: Some(heartbeat_seconds),
        }),
        ..Event::default()
    }
}

fn state(scene: &Scene) -> response::GetState {
    let snapshot = &scene.view.snapshot;
    response::GetState {
        get_tasks: Some(tasks(snapshot)),
        get_executors: Some(executors(snapshot)),
        get_frameworks: Some(frameworks(snapshot)),
        get_agents: Some(agents(scene)),
    }
}

fn list(resources: &Resources) -> Vec<v1::Resource> {
    resources.to_proto(Format::Refined)
}

fn agents(scene: &Scene) -> response::GetAgents {
    let snapshot = &scene.view.snapshot;
    let mut agents = response::GetAgents {
        agents: snapshot.agents.values().map(|it| agent(it)).collect(),
        recovered_agents: snapshot.recovered.values().map(|it| (**it).clone()).collect(),
    };
    agents.agents.iter_mut().for_each(|it| scene.viewer.cut_agent(it));
    agents.recovered_agents.iter_mut().for_each(|it| scene.viewer.cut_resources(&mut it.resources));
    agents
}

fn agent(agent: &Agent) -> response::get_agents::Agent {
    response::get_agents::Agent {
        agent_info: (*agent.info).clone(),
        active: agent.active(),
        deactivated: Some(agent.deactivated),
        version: agent.version.to_string(),
        pid: Some(agent.pid.to_string()),
        registered_time: Some(time_info(agent.registered_at)),
        reregistered_time: agent.reregistered_at.map(time_info),
        total_resources: list(&agent.total),
        allocated_resources: list(&agent.used_total()),
        offered_resources: list(&agent.offered),
        capabilities: agent.capability_list.to_vec(),
        resource_providers: Vec::new(),
        drain_info: agent.drain,
        estimated_drain_start_time: agent.drain.as_ref().and(agent.drain_started_at).map(time_info),
    }
}

fn frameworks(snapshot: &Snapshot) -> response::GetFrameworks {
    response::GetFrameworks {
        frameworks: snapshot.frameworks.values().map(|it| framework(snapshot, it)).collect(),
        completed_frameworks: snapshot.completed_frameworks.iter().map(|it| framework(snapshot, it)).collect(),
        recovered_frameworks: Vec::new(),
    }
}

fn framework(snapshot: &Snapshot, framework: &Framework) -> response::get_frameworks::Framework {
    let offers = framework.offers.iter().filter_map(|id| snapshot.offers.get(id));
    let inverse_offers = framework.inverse_offers.iter().filter_map(|id| snapshot.inverse_offers.get(id));
    response::get_frameworks::Framework {
        framework_info: (*framework.info).clone(),
        active: framework.active(),
        connected: framework.connected(),
        recovered: framework.recovered,
        registered_time: Some(time_info(framework.registered_at)),
        reregistered_time: framework.reregistered_at.map(time_info),
        unregistered_time: framework.unregistered_at.map(time_info),
        offers: offers
            .map(|offer| v1::Offer {
                id: offer.id.to_proto(),
                framework_id: offer.framework_id.to_proto(),
                agent_id: offer.agent_id.to_proto(),
                hostname: snapshot.agents.get(&offer.agent_id).map(|it| it.info.hostname.clone()).unwrap_or_default(),
                resources: list(&offer.resources),
                allocation_info: Some(v1::resource::AllocationInfo { role: Some(offer.role.as_str().to_owned()) }),
                ..v1::Offer::default()
            })
            .collect(),
        inverse_offers: inverse_offers
            .map(|it| v1::InverseOffer {
                id: it.id.to_proto(),
                framework_id: it.framework_id.to_proto(),
                agent_id: Some(it.agent_id.to_proto()),
                unavailability: it.unavailability,
                ..v1::InverseOffer::default()
            })
            .collect(),
        allocated_resources: list(&framework.used_total()),
        offered_resources: list(framework.offered_total(&snapshot.offers)),
        offer_constraints: framework.offer_constraints.as_deref().cloned(),
    }
}

fn executors(snapshot: &Snapshot) -> response::GetExecutors {
    let all = snapshot.frameworks.values().flat_map(|it| &it.executors);
    let executors =
        all.map(|((agent, _), info)| response::get_executors::Executor { executor_info: (**info).clone(), agent_id: agent.to_proto() });
    response::GetExecutors { executors: executors.collect(), orphan_executors: Vec::new() }
}

fn tasks(snapshot: &Snapshot) -> response::GetTasks {
    let mut all = response::GetTasks::default();
    for framework in snapshot.frameworks.values().chain(snapshot.completed_frameworks.iter()) {
        all.tasks.extend(framework.tasks.values().map(|it| it.to_proto()));
        all.unreachable_tasks.extend(framework.unreachable_tasks.values().map(|it| it.to_proto()));
        all.completed_tasks.extend(framework.completed_tasks.iter().map(|it| it.to_proto()));
    }
    all
}

fn roles(scene: &Scene) -> response::GetRoles {
    let weights = &scene.view.snapshot.registry.weights;
    let roles = holdings(scene).into_iter().map(|(name, holdings)| {
        let mut both = holdings.allocated;
        both.add_all(&holdings.offered);
        v1::Role {
            weight: weights.get(&name).copied().unwrap_or(1.0),
            frameworks: holdings.frameworks.into_iter().map(|value| v1::FrameworkId { value }).collect(),
            resources: list(&both),
            name,
        }
    });
    response::GetRoles { roles: roles.collect() }
}

/// Guarantees and limits in the new shape, and guarantees in the old one, too.
pub(super) fn quota(snapshot: &Snapshot) -> v1::quota::QuotaStatus {
    let configs: Vec<_> = snapshot.registry.quotas.values().cloned().collect();
    let infos = configs.iter().filter(|it| !it.guarantees.is_empty()).map(|config| v1::quota::QuotaInfo {
        role: Some(config.role.clone()),
        principal: None,
        guarantee: config.guarantees.iter().map(|(name, amount)| scalar_resource(name, *amount)).collect(),
    });
    v1::quota::QuotaStatus { infos: infos.collect(), configs }
}

fn scalar_resource(name: &str, amount: v1::value::Scalar) -> v1::Resource {
    v1::Resource { name: name.to_owned(), r#type: v1::value::Type::Scalar.into(), scalar: Some(amount), ..v1::Resource::default() }
}

/// What a framework said to the maintenance of an agent: the agent's host and address first.
type Answer<'a> = (&'a str, &'a str, &'a v1::allocator::InverseOfferStatus);

/// Which machines drain and what frameworks said to that, and which are down.
pub(super) fn maintenance_status(snapshot: &Snapshot) -> v1::maintenance::ClusterStatus {
    // Machines are named by their host, by their address, or by both.
    let mut by_host: BTreeMap<String, Vec<Answer<'_>>> = BTreeMap::new();
    let mut by_address: BTreeMap<&str, Vec<Answer<'_>>> = BTreeMap::new();
    for ((agent, _), status) in &snapshot.inverse_statuses {
        if let Some(agent) = snapshot.agents.get(agent) {
            let (host, address) = (agent.info.hostname.as_str(), ip_of(&agent.pid).unwrap_or_default());
            by_host.entry(host.to_lowercase()).or_default().push((host, address, status));
            by_address.entry(address).or_default().push((host, address, status));
        }
    }
    let answers = |machine: &v1::MachineId| {
        let found = match machine.hostname() {
            "" => by_address.get(machine.ip()),
            host => by_host.get(&host.to_lowercase()),
        };
        let meant = found.into_iter().flatten().filter(|(host, address, _)| is_machine(machine, host, address));
        meant.map(|(_, _, status)| (*status).clone()).collect()
    };
    let is_down = |machine: &v1::MachineId| snapshot.registry.down.values().any(|it| it == machine);
    let scheduled = snapshot.registry.schedule.windows.iter().flat_map(|it| &it.machine_ids);
    let draining = scheduled
        .filter(|it| !is_down(it))
        .map(|machine| v1::maintenance::cluster_status::DrainingMachine { id: machine.clone(), statuses: answers(machine) });
    v1::maintenance::ClusterStatus {
        draining_machines: draining.collect(),
        down_machines: snapshot.registry.down.values().cloned().collect(),
    }
}
