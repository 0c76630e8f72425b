//! Changes of agents' resources: under way, told of, acknowledged, reconciled.

use std::sync::Arc;

use mesos::{AgentId, FrameworkId, OperationId, Resources};
use mesos_proto::v1;
use v1::OperationState;
use v1::offer::operation::Type;
use v1::scheduler::call;

use crate::master::Master;
use crate::validate::{Allowed, operation_error};
use crate::{Action, Agent, Effect, Framework, Operation, ToAgent, events, is_terminal_operation};

impl Master {
    /// Why an operation of a framework is not carried out; nothing when it is well-formed and permitted.
    pub(crate) fn operation_refused(&self, framework: &Framework, agent: &Agent, operation: &v1::offer::Operation) -> Option<String> {
        if let Some(id) = &operation.id {
            if !agent.capabilities.operation_feedback() {
                return Some(
                    "Operation requires feedback, but agent does not have the required AGENT_OPERATION_FEEDBACK capability".into(),
                );
            }
            if framework.operations.contains_key(&OperationId::from(id)) {
                return Some(format!("Operation ID '{}' is in use already", id.value));
            }
        }
        if agent.operations.len() >= PENDING_MAX {
            return Some(format!("{PENDING_MAX} operations are under way on the agent"));
        }
        let allowed = Allowed { framework: Some(framework), principal: framework.info.principal.as_deref(), agent };
        operation_error(operation, &allowed)
            .or_else(|| self.volumes_refused(agent, operation))
            .or_else(|| self.unauthorized(framework.info.principal.as_deref(), operation))
    }

    /// Volumes that are in use, or not there, are not destroyed.
    pub(crate) fn volumes_refused(&self, agent: &Agent, operation: &v1::offer::Operation) -> Option<String> {
        let volumes = match operation.r#type.and_then(|it| Type::try_from(it).ok())? {
            Type::Destroy => Resources::from_proto(&operation.destroy.as_ref()?.volumes).unallocated(),
            Type::ShrinkVolume => std::iter::once(mesos::Resource::from_proto(&operation.shrink_volume.as_ref()?.volume)).collect(),
            _ => return None,
        };
        let volumes = volumes.unallocated();
        if operation.r#type == Some(Type::Destroy as i32) && !agent.total.contains(&volumes) {
            return Some("Persistent volumes not found".into());
        }
        let used = agent.used_total().unallocated();
        volumes.iter().any(|it| used.contains_one(it)).then(|| "Persistent volumes in use".into())
    }

    /// Whether `principal` lacks a permission that an operation needs.
    pub(crate) fn unauthorized(&self, principal: Option<&str>, operation: &v1::offer::Operation) -> Option<String> {
        let authorizer = &self.config.authorizer;
        let role = |resource: &v1::Resource| {
            let resource = mesos::Resource::from_proto(resource);
            resource.reserved_role().map_or_else(|| "*".to_owned(), |it| it.to_string())
        };
        let kind = operation.r#type.and_then(|it| Type::try_from(it).ok())?;
        let denied = match kind {
            Type::Reserve => {
                let reserve = operation.reserve.as_ref()?;
                reserve.resources.iter().any(|it| !authorizer.allows(principal, Action::Reserve { role: &role(it) }))
                    || reserve
                        .source
                        .iter()
                        .any(|it| !authorizer.allows(principal, Action::Unreserve { reserver: reserver(it).as_deref() }))
            }
            Type::Unreserve => {
                let resources = &operation.unreserve.as_ref()?.resources;
                resources.iter().any(|it| !authorizer.allows(principal, Action::Unreserve { reserver: reserver(it).as_deref() }))
            }
            Type::Create => {
                let volumes = &operation.create.as_ref()?.volumes;
                volumes.iter().any(|it| !authorizer.allows(principal, Action::CreateVolume { role: &role(it) }))
            }
            Type::Destroy => operation.destroy.as_ref()?.volumes.iter().any(|it| {
                let persistence = it.disk.as_ref().and_then(|disk| disk.persistence.as_ref());
                let creator = persistence.and_then(|it| it.principal.as_deref());
                !authorizer.allows(principal, Action::DestroyVolume { creator })
            }),
            Type::GrowVolume => {
                !authorizer.allows(principal, Action::ResizeVolume { role: &role(&operation.grow_volume.as_ref()?.volume) })
            }
            Type::ShrinkVolume => {
                !authorizer.allows(principal, Action::ResizeVolume { role: &role(&operation.shrink_volume.as_ref()?.volume) })
            }
            _ => false,
        };
        denied.then(|| format!("Not authorized to {}", operation_key(kind).replace('_', " ")))
    }

    /// An operation that was applied is told to its agent.
    pub(crate) fn start_operation(
        &mut self,
        framework: Option<&FrameworkId>,
        agent: &AgentId,
        info: v1::offer::Operation,
        out: &mut Vec<Effect>,
    ) {
        let uuid = self.uuid();
        let Some(entry) = self.agent_mut(agent) else { return };
        entry.operations.insert(uuid.clone());
        let resource_version = entry.resource_version.to_vec();
        if let (Some(framework), Some(id)) = (framework, &info.id) {
            let id = OperationId::from(id);
            if let Some(framework) = self.framework_mut(framework) {
                framework.operations.insert(id, uuid.clone());
            }
        }
        let operation = Operation {
            uuid: uuid.clone(),
            framework_id: framework.cloned(),
            agent_id: agent.clone(),
            info: Arc::new(info.clone()),
            state: OperationState::OperationPending,
            statuses: imbl::Vector::new(),
        };
        self.state.operations.insert(uuid.clone(), Arc::new(operation));
        let message =
            ToAgent::ApplyOperation { framework_id: framework.cloned(), operation: Box::new(info), operation_uuid: uuid, resource_version };
        self.tell(agent, message, out);
    }

    /// An operation is not carried out; whoever gave it an id is told.
    pub(crate) fn drop_operation(
        &mut self,
        framework: &Framework,
        agent: Option<&AgentId>,
        operation: &v1::offer::Operation,
        state: OperationState,
        text: &str,
        out: &mut Vec<Effect>,
    ) {
        self.count_operation_end(operation, state);
        let Some(id) = &operation.id else { return };
        let status = v1::OperationStatus {
            operation_id: Some(id.clone()),
            state: state as i32,
            message: Some(text.to_owned()),
            agent_id: agent.map(AgentId::to_proto),
            ..Default::default()
        };
        self.send(&framework.id, events::operation_update(status), out);
    }

    /// Counts an end, of all operations and of those of the type. How many are under way is seen in the state.
    fn count_operation_end(&mut self, operation: &v1::offer::Operation, state: OperationState) {
        let (all, end) = match state {
            OperationState::OperationFinished => ("master/operations/finished", "finished"),
            OperationState::OperationFailed => ("master/operations/failed", "failed"),
            OperationState::OperationError => ("master/operations/error", "error"),
            OperationState::OperationDropped => ("master/operations/dropped", "dropped"),
            OperationState::OperationGoneByOperator => ("master/operations/gone_by_operator", "gone_by_operator"),
            _ => return,
        };
        self.state.metrics.count(all);
        let kind = operation.r#type.and_then(|it| Type::try_from(it).ok()).unwrap_or_default();
        self.state.metrics.count_named(format!("master/operations/{}/{end}", operation_key(kind)));
    }

    /// What an agent tells of an operation.
    pub(crate) fn operation_status_update(
        &mut self,
        agent: &AgentId,
        uuid: &[u8],
        mut status: v1::OperationStatus,
        latest: OperationState,
        total: &[v1::Resource],
        out: &mut Vec<Effect>,
    ) {
        self.state.metrics.count("master/messages_operation_status_update");
        let Some(operation) = self.state.operations.get(uuid).filter(|it| it.agent_id == *agent).cloned() else {
            self.state.metrics.count("master/invalid_operation_status_updates");
            // Whoever asked is gone, or has acknowledged: the agent need not keep it.
            if let Some(status_uuid) = &status.uuid {
                let message = ToAgent::AcknowledgeOperationStatus { operation_uuid: uuid.to_vec(), status_uuid: status_uuid.value.clone() };
                self.tell(agent, message, out);
            }
            return;
        };
        self.state.metrics.count("master/valid_operation_status_updates");
        status.agent_id = Some(agent.to_proto());
        status.operation_id.clone_from(&operation.info.id);
        let ended = !is_terminal_operation(operation.state) && is_terminal_operation(latest);
        if let Some(entry) = self.state.operations.get_mut(uuid).map(Arc::make_mut) {
            entry.state = if is_terminal_operation(operation.state) { operation.state } else { latest };
            if entry.statuses.last().is_none_or(|it| it.uuid != status.uuid || it.state != status.state) {
                entry.statuses.push_back(Arc::new(status.clone()));
            }
            while entry.statuses.len() > STATUSES_MAX {
                entry.statuses.pop_front();
            }
        }
        if ended {
            self.count_operation_end(&operation.info, latest);
            if latest != OperationState::OperationFinished {
                self.revert(&operation, total);
            }
        }
        let feedback = operation.info.id.is_some() && operation.framework_id.is_some();
        match &operation.framework_id {
            Some(framework) if feedback => self.send(framework, events::operation_update(status.clone()), out),
            _ => {}
        }
        if is_terminal_operation(latest) && (!feedback || status.uuid.is_none()) {
            // Nobody else will acknowledge it.
            if let Some(status_uuid) = status.uuid {
                let message = ToAgent::AcknowledgeOperationStatus { operation_uuid: uuid.to_vec(), status_uuid: status_uuid.value };
                self.tell(agent, message, out);
            }
            self.remove_operation(uuid);
        }
    }

    /// The agent did not do what the master thought that it would.
    fn revert(&mut self, operation: &Operation, total: &[v1::Resource]) {
        let Some(agent) = self.agent(&operation.agent_id) else { return };
        let mut new = agent.total.clone();
        if total.is_empty() {
            for conversion in mesos::conversions(&operation.info).unwrap_or_default().iter().rev() {
                let back = mesos::Conversion { consumed: conversion.converted.clone(), converted: conversion.consumed.clone() };
                // What it would have made may be in use by what is going to fail as well; the agent tells its resources when it comes back.
                let _ = back.unallocated().apply(&mut new);
            }
        } else {
            new = Resources::from_proto(total).unallocated();
            new.add_all(&agent.total.filter(mesos::Resource::is_revocable));
        }
        if let Some(agent) = self.agent_mut(&operation.agent_id) {
            agent.total = new.clone();
        }
        self.allocator.set_agent(&operation.agent_id, &agent.info, &new);
    }

    /// An operation ends without its agent's word.
    pub(crate) fn end_operation(&mut self, uuid: &[u8], state: OperationState, out: &mut Vec<Effect>) {
        let Some(operation) = self.state.operations.get(uuid).cloned() else { return };
        if !is_terminal_operation(operation.state) {
            self.count_operation_end(&operation.info, state);
            if let (Some(framework), Some(id)) = (&operation.framework_id, &operation.info.id) {
                let status = v1::OperationStatus {
                    operation_id: Some(id.clone()),
                    state: state as i32,
                    agent_id: Some(operation.agent_id.to_proto()),
                    ..Default::default()
                };
                self.send(framework, events::operation_update(status), out);
            }
        }
        self.remove_operation(uuid);
    }

    fn remove_operation(&mut self, uuid: &[u8]) {
        let Some(operation) = self.state.operations.remove(uuid) else { return };
        if let Some(agent) = self.agent_mut(&operation.agent_id) {
            agent.operations.remove(uuid);
        }
        if let (Some(framework), Some(id)) = (&operation.framework_id, &operation.info.id)
            && let Some(framework) = self.framework_mut(framework)
        {
            framework.operations.remove(&OperationId::from(id));
        }
    }

    /// The framework that asked for it is over.
    pub(crate) fn disown_operation(&mut self, uuid: &[u8]) {
        if let Some(operation) = self.state.operations.get_mut(uuid) {
            Arc::make_mut(operation).framework_id = None;
        }
    }

    /// An operation that an agent tells of when it registers.
    pub(crate) fn add_operation_from_agent(&mut self, agent: &AgentId, proto: &v1::Operation) {
        let uuid = proto.uuid.value.clone();
        let latest = OperationState::try_from(proto.latest_status.state).unwrap_or(OperationState::OperationPending);
        let framework = proto.framework_id.as_ref().map(FrameworkId::from);
        if let (Some(framework), Some(id)) = (&framework, &proto.info.id)
            && let Some(framework) = self.framework_mut(framework)
        {
            framework.operations.insert(OperationId::from(id), uuid.clone());
        }
        if let Some(agent) = self.agent_mut(agent) {
            agent.operations.insert(uuid.clone());
        }
        let operation = Operation {
            uuid: uuid.clone(),
            framework_id: framework,
            agent_id: agent.clone(),
            info: Arc::new(proto.info.clone()),
            state: latest,
            statuses: proto.statuses.iter().cloned().map(Arc::new).collect(),
        };
        self.state.operations.insert(uuid, Arc::new(operation));
    }

    pub(crate) fn acknowledge_operation(&mut self, framework: &Framework, call: &call::AcknowledgeOperationStatus, out: &mut Vec<Effect>) {
        self.state.metrics.count("master/messages_operation_status_update_acknowledgement");
        let uuid = framework.operations.get(&OperationId::from(&call.operation_id)).cloned();
        let operation = uuid.as_ref().and_then(|uuid| self.state.operations.get(uuid)).cloned();
        let (Some(uuid), Some(operation)) = (uuid, operation) else {
            self.state.metrics.count("master/invalid_operation_status_update_acknowledgements");
            return;
        };
        if !self.state.agents.get(&operation.agent_id).is_some_and(|it| it.connected()) {
            self.state.metrics.count("master/invalid_operation_status_update_acknowledgements");
            return;
        }
        self.state.metrics.count("master/valid_operation_status_update_acknowledgements");
        let message = ToAgent::AcknowledgeOperationStatus { operation_uuid: uuid.clone(), status_uuid: call.uuid.clone() };
        self.tell(&operation.agent_id, message, out);
        let last = operation.statuses.iter().find(|it| it.uuid.as_ref().is_some_and(|it| it.value == call.uuid));
        if last.is_some_and(|it| is_terminal_operation(it.state())) {
            self.remove_operation(&uuid);
        }
    }

    pub(crate) fn reconcile_operations(&mut self, framework: &Framework, call: &call::ReconcileOperations, out: &mut Vec<Effect>) {
        self.state.metrics.count("master/messages_reconcile_operations");
        let known = |master: &Master, id: &OperationId| {
            let operation = master.state.operations.get(framework.operations.get(id)?)?.clone();
            let latest = operation.statuses.last().map(|it| (**it).clone()).unwrap_or_default();
            Some(v1::OperationStatus {
                operation_id: Some(id.to_proto()),
                state: operation.state as i32,
                uuid: None,
                agent_id: Some(operation.agent_id.to_proto()),
                ..latest
            })
        };
        if call.operations.is_empty() {
            for id in framework.operations.keys() {
                if let Some(status) = known(self, id) {
                    self.send(&framework.id, events::operation_update(status), out);
                }
            }
            return;
        }
        for asked in &call.operations {
            let id = OperationId::from(&asked.operation_id);
            let status = known(self, &id).unwrap_or_else(|| {
                let agent = asked.agent_id.as_ref().map(AgentId::from);
                let registry = &self.state.registry;
                let state = match &agent {
                    Some(agent) if self.state.recovered.contains_key(agent) => OperationState::OperationRecovering,
                    Some(agent) if registry.unreachable.contains_key(agent) => OperationState::OperationUnreachable,
                    Some(agent) if registry.gone.contains_key(agent) => OperationState::OperationGoneByOperator,
                    None if !self.state.recovered.is_empty() => OperationState::OperationRecovering,
                    _ => OperationState::OperationUnknown,
                };
                v1::OperationStatus {
                    operation_id: Some(asked.operation_id.clone()),
                    state: state as i32,
                    message: Some("Reconciliation: Operation is unknown".into()).filter(|_| state == OperationState::OperationUnknown),
                    agent_id: asked.agent_id.clone(),
                    ..Default::default()
                }
            });
            self.send(&framework.id, events::operation_update(status), out);
        }
    }
}

/// How many operations may be under way on an agent.
const PENDING_MAX: usize = 10_000;

/// How many statuses of an operation are kept.
const STATUSES_MAX: usize = 16;

fn reserver(resource: &v1::Resource) -> Option<String> {
    mesos::Resource::from_proto(resource).reservations().last().and_then(|it| it.principal.as_deref()).map(str::to_owned)
}

/// The lower-case word of an operation, as metrics name it.
pub fn operation_key(kind: Type) -> &'static str {
    match kind {
        Type::Unknown => "unknown",
        Type::Launch => "launch",
        Type::LaunchGroup => "launch_group",
        Type::Reserve => "reserve",
        Type::Unreserve => "unreserve",
        Type::Create => "create",
        Type::Destroy => "destroy",
        Type::GrowVolume => "grow_volume",
        Type::ShrinkVolume => "shrink_volume",
        Type::CreateDisk => "create_disk",
        Type::DestroyDisk => "destroy_disk",
    }
}
