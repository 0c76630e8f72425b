//! What the master holds. Kept in maps that share structure between versions, so that a [`Snapshot`] costs nothing and readers never slow the
//! master.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use base::Timestamp;
use imbl::{OrdMap, OrdSet, Vector};
use mesos::{AgentId, ExecutorId, Format, FrameworkId, OfferId, OperationId, Quantities, Resource, Resources, Role, TaskId, Value};
use mesos_proto::v1;
use v1::scheduler;
use v1::{OperationState, TaskState};

use crate::gauges::AllocatorGauges;
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::{AgentCapabilities, FrameworkCapabilities, LinkId, StreamId};

/// Everything that can be read of the master, as it was between two steps. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Registered agents, connected or not.
    pub agents: OrdMap<AgentId, Arc<Agent>>,
    /// Agents of the registry that have not come back yet.
    pub recovered: OrdMap<AgentId, Arc<v1::AgentInfo>>,
    /// Frameworks, subscribed or known from agents.
    pub frameworks: OrdMap<FrameworkId, Arc<Framework>>,
    /// Removed frameworks, oldest first; a limited number.
    pub completed_frameworks: Vector<Arc<Framework>>,
    /// Open offers.
    pub offers: OrdMap<OfferId, Arc<Offer>>,
    /// Open inverse offers.
    pub inverse_offers: OrdMap<OfferId, Arc<InverseOffer>>,
    /// Operations that are not over, or whose end is not acknowledged, by their uuid.
    pub operations: OrdMap<Vec<u8>, Arc<Operation>>,
    /// What is stored: unreachable and gone agents, quotas, weights, maintenance.
    pub registry: Registry,
    /// What quota counts as consumed, by top-level role.
    pub consumed: OrdMap<String, Quantities>,
    /// What of everything is offered to or used by the roles of `consumed` and those below them.
    pub allocated: OrdMap<String, Quantities>,
    /// What the allocator counts, a second old at most while it runs.
    pub allocator: Arc<AllocatorGauges>,
    /// Answers to inverse offers, by machine and framework.
    pub inverse_statuses: OrdMap<(AgentId, FrameworkId), v1::allocator::InverseOfferStatus>,
    /// What has been counted.
    pub metrics: Metrics,
}

/// A registered agent.
#[derive(Clone, Debug)]
pub struct Agent {
    /// `<master-id>-S<n>`
    pub id: AgentId,
    /// As it describes itself, with its id.
    pub info: Arc<v1::AgentInfo>,
    /// `slave(1)@<ip>:<port>`
    pub pid: Arc<str>,
    /// Whether its HTTP API is spoken over TLS.
    pub tls: bool,
    /// Mesos version that it speaks.
    pub version: Arc<str>,
    /// As it said.
    pub capability_list: Arc<[v1::agent_info::Capability]>,
    /// As bits.
    pub capabilities: AgentCapabilities,
    /// Its connection, while it is connected.
    pub link: Option<LinkId>,
    /// An operator wants nothing of it offered.
    pub deactivated: bool,
    /// Set while it drains and when it is drained.
    pub drain: Option<v1::DrainInfo>,
    /// When draining began.
    pub drain_started_at: Option<Timestamp>,
    /// When it was first registered with this master.
    pub registered_at: Timestamp,
    /// When it last came back.
    pub reregistered_at: Option<Timestamp>,
    /// All its resources, allocated to nobody.
    pub total: Resources,
    /// What tasks and executors use, by framework; allocated.
    pub used: OrdMap<FrameworkId, Resources>,
    /// What is offered; allocated.
    pub offered: Resources,
    /// Its tasks, those included whose end is not acknowledged.
    pub tasks: OrdSet<(FrameworkId, TaskId)>,
    /// Its executors, without those that it brings itself.
    pub executors: OrdMap<(FrameworkId, ExecutorId), Arc<v1::ExecutorInfo>>,
    /// Its operations by uuid.
    pub operations: OrdSet<Vec<u8>>,
    /// Its open offers.
    pub offers: OrdSet<OfferId>,
    /// Its open inverse offers.
    pub inverse_offers: OrdSet<OfferId>,
    /// When its machine is planned to be down.
    pub unavailability: Option<v1::Unavailability>,
    /// As it last told; empty when unknown.
    pub resource_version: Arc<[u8]>,
    /// Kills that wait for it to come back.
    pub(crate) kills: OrdMap<(FrameworkId, TaskId), Option<v1::KillPolicy>>,
    /// Pings without an answer.
    pub(crate) missed_pings: u32,
}

impl Agent {
    /// Whether there is a connection.
    pub fn connected(&self) -> bool {
        self.link.is_some()
    }

    /// Whether it is offered.
    pub fn active(&self) -> bool {
        self.link.is_some() && !self.deactivated
    }

    /// What it is called in messages.
    pub(crate) fn name(&self) -> String {
        format!("{} at {} ({})", self.id, self.pid, self.info.hostname)
    }

    /// What all frameworks together use.
    pub fn used_total(&self) -> Resources {
        let mut sum = Resources::new();
        for used in self.used.values() {
            sum.add_all(used);
        }
        sum
    }
}

/// A framework.
#[derive(Clone, Debug)]
pub struct Framework {
    /// `<master-id>-NNNN`
    pub id: FrameworkId,
    /// As it describes itself, with its id.
    pub info: Arc<v1::FrameworkInfo>,
    /// As bits.
    pub capabilities: FrameworkCapabilities,
    /// Its roles.
    pub roles: Arc<BTreeSet<Role>>,
    /// Roles that get no offers for now.
    pub suppressed: Arc<BTreeSet<Role>>,
    /// Which agents it wants to be offered.
    pub offer_constraints: Option<Arc<scheduler::OfferConstraints>>,
    /// Its event stream, while it is connected.
    pub stream: Option<StreamId>,
    /// It has not subscribed with this master yet; agents told of it.
    pub recovered: bool,
    /// When it subscribed first, or was heard of.
    pub registered_at: Timestamp,
    /// When it last subscribed again.
    pub reregistered_at: Option<Timestamp>,
    /// When it was removed.
    pub unregistered_at: Option<Timestamp>,
    /// Tasks, those included whose end is not acknowledged.
    pub tasks: OrdMap<TaskId, Arc<Task>>,
    /// Tasks on unreachable agents, a limited number.
    pub unreachable_tasks: OrdMap<TaskId, Arc<Task>>,
    /// In which order they became so.
    pub(crate) unreachable_order: Vector<TaskId>,
    /// Ended tasks, oldest first, a limited number.
    pub completed_tasks: Vector<Arc<Task>>,
    /// Executors by agent.
    pub executors: OrdMap<(AgentId, ExecutorId), Arc<v1::ExecutorInfo>>,
    /// What its tasks and executors use, by agent; allocated.
    pub used: OrdMap<AgentId, Resources>,
    /// The sum of the scalars in `used`: there may be thousands of agents, and this is asked for often.
    pub(crate) used_scalars: Resources,
    /// The rest of `used`, where there is any.
    pub(crate) used_others: OrdMap<AgentId, Resources>,
    /// Its open offers.
    pub offers: OrdSet<OfferId>,
    /// What they offer together, once somebody asked.
    pub(crate) offered: OnceLock<Resources>,
    /// Its open inverse offers.
    pub inverse_offers: OrdSet<OfferId>,
    /// Its operations that have an id, to their uuid.
    pub operations: OrdMap<OperationId, Vec<u8>>,
    /// What it was told and has asked for.
    pub counters: FrameworkCounters,
}

/// What is counted of each framework.
#[derive(Clone, Debug, Default)]
pub struct FrameworkCounters {
    /// Calls by their lower-case type.
    pub calls: OrdMap<&'static str, u64>,
    /// Events by their lower-case type.
    pub events: OrdMap<&'static str, u64>,
    /// Update events by state.
    pub updates: OrdMap<&'static str, u64>,
    /// Operations by type.
    pub operations: OrdMap<&'static str, u64>,
    /// Ended tasks by state.
    pub terminal: OrdMap<&'static str, u64>,
    /// Offers sent.
    pub offers_sent: u64,
    /// Offers accepted.
    pub offers_accepted: u64,
    /// Offers declined.
    pub offers_declined: u64,
    /// Offers rescinded.
    pub offers_rescinded: u64,
}

impl Framework {
    /// Whether there is a stream.
    pub fn connected(&self) -> bool {
        self.stream.is_some()
    }

    /// Whether it gets offers.
    pub fn active(&self) -> bool {
        self.stream.is_some()
    }

    /// What it uses on all agents.
    pub fn used_total(&self) -> Resources {
        let mut sum = self.used_scalars.clone();
        self.used_others.values().for_each(|used| sum.add_all(used));
        sum
    }

    /// What it is offered, of the `offers` of the same snapshot.
    pub fn offered_total(&self, offers: &OrdMap<OfferId, Arc<Offer>>) -> &Resources {
        self.offered.get_or_init(|| {
            let mut sum = Resources::new();
            self.offers.iter().filter_map(|id| offers.get(id)).for_each(|offer| sum.add_all(&offer.resources));
            sum
        })
    }

    pub(crate) fn add_offer(&mut self, id: OfferId) {
        self.offers.insert(id);
        self.offered = OnceLock::new();
    }

    pub(crate) fn remove_offer(&mut self, id: &OfferId) {
        self.offers.remove(id);
        self.offered = OnceLock::new();
    }

    /// It uses more of an agent.
    pub(crate) fn use_more(&mut self, agent: &AgentId, resources: &Resources) {
        self.used.entry(agent.clone()).or_default().add_all(resources);
        resources.iter().filter(|it| is_summable(it)).for_each(|it| self.used_scalars.add(it.clone()));
        let others = resources.filter(|it| !is_summable(it));
        if !others.is_empty() {
            self.used_others.entry(agent.clone()).or_default().add_all(&others);
        }
    }

    /// It uses less of an agent. What it does not use there is ignored.
    pub(crate) fn use_less(&mut self, agent: &AgentId, resources: &Resources) {
        let used = self.used.entry(agent.clone()).or_default();
        used.iter().filter(|it| is_summable(it)).for_each(|it| self.used_scalars.subtract(it));
        used.subtract_all(resources);
        used.iter().filter(|it| is_summable(it)).for_each(|it| self.used_scalars.add(it.clone()));
        let others = used.filter(|it| !is_summable(it));
        if others.is_empty() {
            self.used_others.remove(agent);
        } else {
            self.used_others.insert(agent.clone(), others);
        }
        if used.is_empty() {
            self.used.remove(agent);
        }
    }

    /// How its resources are spelled.
    pub fn format(&self) -> Format {
        if self.capabilities.reservation_refinement() { Format::Refined } else { Format::PreRefinement }
    }
}

/// Whether a sum of these can be taken apart again. Ranges of two agents may overlap, and volumes are not added up.
fn is_summable(resource: &Resource) -> bool {
    matches!(resource.value(), Value::Scalar(_)) && !resource.is_indivisible()
}

/// A task.
#[derive(Clone, Debug)]
pub struct Task {
    /// What never changes of it: name, ids, labels, discovery, container, health check, kill policy, user, limits. Resources, states and
    /// statuses are not kept here.
    pub fixed: Arc<v1::Task>,
    /// Its id.
    pub id: TaskId,
    /// Whose.
    pub framework_id: FrameworkId,
    /// Where.
    pub agent_id: AgentId,
    /// What runs it, if not what the agent brings itself.
    pub executor_id: Option<ExecutorId>,
    /// What it uses; allocated.
    pub resources: Resources,
    /// The newest state that the agent told.
    pub state: TaskState,
    /// The newest state that the framework was told.
    pub status_update_state: TaskState,
    /// The update that the framework has to acknowledge.
    pub status_update_uuid: Option<Arc<[u8]>>,
    /// One per change of state, oldest first, without their data.
    pub statuses: Vector<Arc<v1::TaskStatus>>,
    /// When its agent became unreachable.
    pub unreachable_at: Option<Timestamp>,
}

impl Task {
    /// From the wire's message, as agents tell it.
    pub fn from_proto(mut task: v1::Task) -> Option<Task> {
        let state = TaskState::try_from(task.state).ok()?;
        let statuses = std::mem::take(&mut task.statuses);
        // There are hundreds of thousands of tasks, and each of these takes kilobytes on the wire's side.
        let resources = Resources::from_proto(&std::mem::take(&mut task.resources));
        task.labels.iter_mut().for_each(|it| it.labels.shrink_to_fit());
        Some(Task {
            id: (&task.task_id).into(),
            framework_id: (&task.framework_id).into(),
            agent_id: (&task.agent_id).into(),
            executor_id: task.executor_id.as_ref().map(Into::into),
            resources,
            state,
            status_update_state: task.status_update_state.and_then(|it| TaskState::try_from(it).ok()).unwrap_or(state),
            status_update_uuid: task.status_update_uuid.as_deref().map(Into::into),
            statuses: statuses.into_iter().map(Arc::new).collect(),
            unreachable_at: None,
            fixed: Arc::new(task),
        })
    }

    /// As the wire's message.
    pub fn to_proto(&self) -> v1::Task {
        v1::Task {
            resources: self.resources.to_proto(Format::Refined),
            state: self.state as i32,
            status_update_state: Some(self.status_update_state as i32),
            status_update_uuid: self.status_update_uuid.as_deref().map(<[u8]>::to_vec),
            statuses: self.statuses.iter().map(|it| (**it).clone()).collect(),
            ..(*self.fixed).clone()
        }
    }

    /// Whether it is over as the agent knows.
    pub fn is_terminal(&self) -> bool {
        is_terminal(self.state)
    }
}

/// Whether a state is the last of a task.
pub fn is_terminal(state: TaskState) -> bool {
    match state {
        TaskState::TaskFinished
        | TaskState::TaskFailed
        | TaskState::TaskKilled
        | TaskState::TaskError
        | TaskState::TaskLost
        | TaskState::TaskDropped
        | TaskState::TaskGone
        | TaskState::TaskGoneByOperator => true,
        TaskState::TaskStaging
        | TaskState::TaskStarting
        | TaskState::TaskRunning
        | TaskState::TaskKilling
        | TaskState::TaskUnreachable
        | TaskState::TaskUnknown => false,
    }
}

/// Whether a state is the last of an operation.
pub fn is_terminal_operation(state: OperationState) -> bool {
    match state {
        OperationState::OperationFinished
        | OperationState::OperationFailed
        | OperationState::OperationError
        | OperationState::OperationDropped
        | OperationState::OperationGoneByOperator => true,
        OperationState::OperationPending
        | OperationState::OperationUnreachable
        | OperationState::OperationRecovering
        | OperationState::OperationUnsupported
        | OperationState::OperationUnknown => false,
    }
}

/// An open offer.
#[derive(Clone, Debug)]
pub struct Offer {
    /// `<master-id>-O<n>`
    pub id: OfferId,
    /// To whom.
    pub framework_id: FrameworkId,
    /// Of what.
    pub agent_id: AgentId,
    /// For which role.
    pub role: Role,
    /// Allocated to that role.
    pub resources: Resources,
    /// Since when.
    pub offered_at: Timestamp,
}

/// An open inverse offer: the machine will be down, the framework should leave.
#[derive(Clone, Debug)]
pub struct InverseOffer {
    /// `<master-id>-O<n>`
    pub id: OfferId,
    /// Whom.
    pub framework_id: FrameworkId,
    /// From where.
    pub agent_id: AgentId,
    /// When.
    pub unavailability: v1::Unavailability,
    /// Since when.
    pub offered_at: Timestamp,
}

/// A change of an agent's resources that is under way, or whose end is not acknowledged.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Names it between master and agent: 16 bytes.
    pub uuid: Vec<u8>,
    /// Whose; nobody's when an operator asked for it.
    pub framework_id: Option<FrameworkId>,
    /// Where.
    pub agent_id: AgentId,
    /// What.
    pub info: Arc<v1::offer::Operation>,
    /// The newest state.
    pub state: OperationState,
    /// All that was told, oldest first.
    pub statuses: Vector<Arc<v1::OperationStatus>>,
}

impl Operation {
    /// As the wire's message.
    pub fn to_proto(&self) -> v1::Operation {
        let latest = v1::OperationStatus {
            operation_id: self.info.id.clone(),
            state: self.state as i32,
            agent_id: Some(self.agent_id.to_proto()),
            ..Default::default()
        };
        v1::Operation {
            framework_id: self.framework_id.as_ref().map(FrameworkId::to_proto),
            agent_id: Some(self.agent_id.to_proto()),
            info: (*self.info).clone(),
            latest_status: self.statuses.last().map_or(latest, |it| (**it).clone()),
            statuses: self.statuses.iter().map(|it| (**it).clone()).collect(),
            uuid: v1::Uuid { value: self.uuid.clone() },
        }
    }
}
