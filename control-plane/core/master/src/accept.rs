//! ACCEPT: offers become tasks and changed resources.

use std::collections::BTreeSet;
use std::sync::Arc;

use base::Timestamp;
use mesos::{AgentId, ExecutorId, OfferId, Resources, Role, TaskId};
use mesos_proto::v1;
use v1::offer::Operation;
use v1::offer::operation::Type;
use v1::scheduler::call;
use v1::task_status::Reason;
use v1::{OperationState, TaskState};

use crate::master::Master;
use crate::validate::{TaskContext, group_error, infer_health_check, task_error};
use crate::{Action, Agent, Effect, Framework, Task, ToAgent, events};

/// What is left of the accepted offers while their operations are carried out.
struct Accepting {
    agent: AgentId,
    role: Role,
    /// As offered, less what was used.
    offered: Resources,
    /// Made by operations, not used yet: recovered without a filter.
    converted: Resources,
}

impl Accepting {
    fn remaining(&self) -> Resources {
        self.offered.plus(&self.converted)
    }

    /// Takes `resources` out; what is shared stays usable by others.
    fn take(&mut self, resources: &Resources) {
        for resource in resources.iter().filter(|it| !it.is_shared()) {
            if self.converted.contains_one(resource) {
                self.converted.subtract(resource);
            } else if self.offered.contains_one(resource) {
                self.offered.subtract(resource);
            } else {
                // Partly of both.
                let mut left = self.remaining();
                left.subtract(resource);
                self.offered = self.offered.filter(|it| !it.same_identity(resource));
                self.converted = self.converted.filter(|it| !it.same_identity(resource));
                for it in left.iter().filter(|it| it.same_identity(resource)) {
                    self.converted.add(it.clone());
                }
            }
        }
    }
}

impl Master {
    pub(crate) fn accept(&mut self, now: Timestamp, framework: &Arc<Framework>, mut accept: call::Accept, out: &mut Vec<Effect>) {
        self.state.metrics.count(if accept.operations.is_empty() {
            "master/messages_decline_offers"
        } else {
            "master/messages_launch_tasks"
        });
        let ids: Vec<OfferId> = accept.offer_ids.iter().map(OfferId::from).collect();
        let target = match self.offers_target(framework, &ids) {
            Ok(target) => target,
            Err(error) => {
                self.refuse_accept(now, framework, &ids, &accept.operations, &error, out);
                return;
            }
        };
        let offered = self.offered_by(&ids);
        for id in &ids {
            self.consume_offer(id);
        }
        if let Some(framework) = self.framework_mut(&framework.id) {
            framework.counters.offers_accepted += ids.len() as u64;
        }
        let Some((agent, role)) = target else { return };
        let mut accepting = Accepting { agent, role, offered, converted: Resources::new() };
        for operation in &mut accept.operations {
            allocate_to(operation, &accepting.role);
        }
        for operation in accept.operations {
            // Tasks of this very call count: the framework is looked up anew.
            let Some(framework) = self.framework(&framework.id) else { return };
            self.carry_out(now, &framework, &mut accepting, operation, out);
        }
        let refuse = self.refusal(now, accept.filters.as_ref());
        self.allocator.recover(&framework.id, &accepting.agent, &accepting.offered, refuse);
        self.allocator.recover(&framework.id, &accepting.agent, &accepting.converted, None);
    }

    /// The one agent and role of the offers; nothing when there are no offers.
    fn offers_target(&self, framework: &Framework, ids: &[OfferId]) -> Result<Option<(AgentId, Role)>, String> {
        let mut seen = BTreeSet::new();
        let mut target: Option<(AgentId, Role)> = None;
        for id in ids {
            if !self.state.offers.contains_key(id) {
                return Err(format!("Offer {id} is no longer valid"));
            }
        }
        for id in ids {
            if !seen.insert(id) {
                return Err(format!("Duplicate offer {id} in offer list"));
            }
        }
        for id in ids {
            let Some(offer) = self.state.offers.get(id) else { continue };
            if offer.framework_id != framework.id {
                return Err(format!(
                    "Offer {id} has invalid framework {} while framework {} is expected",
                    offer.framework_id, framework.id
                ));
            }
            match &target {
                None => target = Some((offer.agent_id.clone(), offer.role.clone())),
                Some((_, role)) if *role != offer.role => {
                    return Err(format!(
                        "Aggregated offers must be allocated to the same role. Offer {id} uses role '{}' but another is using role '{role}",
                        offer.role
                    ));
                }
                Some((agent, _)) if *agent != offer.agent_id => {
                    return Err(format!(
                        "Aggregated offers must belong to one single agent. Offer {id} uses agent {} and agent {agent}",
                        offer.agent_id
                    ));
                }
                Some(_) => {}
            }
        }
        if ids.is_empty() { Err("No offers specified".into()) } else { Ok(target) }
    }

    fn refuse_accept(
        &mut self,
        now: Timestamp,
        framework: &Arc<Framework>,
        ids: &[OfferId],
        operations: &[Operation],
        error: &str,
        out: &mut Vec<Effect>,
    ) {
        for id in ids {
            if self.state.offers.get(id).is_some_and(|it| it.framework_id == framework.id) {
                self.take_offer_back(id, None);
            }
        }
        let state = if framework.capabilities.partition_aware() { TaskState::TaskDropped } else { TaskState::TaskLost };
        for operation in operations {
            for task in tasks_of(operation) {
                let text = format!("Task launched with invalid offers: {error}");
                let status = events::status(now, &(&task.task_id).into(), state, Reason::InvalidOffers, text);
                self.count_end(&framework.id, state, Some(&status));
                self.send_status(&framework.id, Some(&(&task.agent_id).into()), status, out);
            }
            if !is_launch(operation) {
                let text = format!("Operation attempted with invalid offers: {error}");
                self.drop_operation(framework, None, operation, OperationState::OperationError, &text, out);
            }
        }
    }

    fn carry_out(
        &mut self,
        now: Timestamp,
        framework: &Arc<Framework>,
        accepting: &mut Accepting,
        operation: Operation,
        out: &mut Vec<Effect>,
    ) {
        let Some(agent) = self.agent(&accepting.agent) else { return };
        let kind = operation.r#type.and_then(|it| Type::try_from(it).ok()).unwrap_or_default();
        if let Some(framework) = self.framework_mut(&framework.id) {
            *framework.counters.operations.entry(crate::operations::operation_key(kind)).or_insert(0) += 1;
        }
        match kind {
            Type::Launch | Type::LaunchGroup if operation.id.is_some() => {
                let text = "Operation ID must not be set for launch operations";
                for task in tasks_of(&operation) {
                    self.refuse_task(now, framework, task, Reason::TaskInvalid, text, out);
                }
            }
            Type::Launch => {
                for task in operation.launch.unwrap_or_default().task_infos {
                    let Some(framework) = self.framework(&framework.id) else { return };
                    self.launch(now, &framework, accepting, task, out);
                }
            }
            Type::LaunchGroup => {
                if let Some(launch) = operation.launch_group {
                    self.launch_group(now, framework, accepting, launch, out);
                }
            }
            _ => self.convert(framework, &agent, accepting, operation, out),
        }
    }

    /// RESERVE and its like: applied at once, told to the agent.
    fn convert(
        &mut self,
        framework: &Arc<Framework>,
        agent: &Arc<Agent>,
        accepting: &mut Accepting,
        operation: Operation,
        out: &mut Vec<Effect>,
    ) {
        let refused = self.operation_refused(framework, agent, &operation).or_else(|| {
            let conversions = match mesos::conversions(&operation) {
                Ok(conversions) => conversions,
                Err(error) => return Some(error),
            };
            let mut remaining = accepting.remaining();
            let mut total = agent.total.clone();
            for conversion in &conversions {
                if let Err(error) = conversion.apply(&mut remaining).and_then(|()| conversion.unallocated().apply(&mut total)) {
                    return Some(error);
                }
            }
            for conversion in &conversions {
                accepting.take(&conversion.consumed);
                // What is shared is consumed as a whole by DESTROY.
                accepting.offered = accepting.offered.filter(|it| !(it.is_shared() && conversion.consumed.contains_one(it)));
                accepting.converted = accepting.converted.filter(|it| !(it.is_shared() && conversion.consumed.contains_one(it)));
                accepting.converted.add_all(&conversion.converted);
                self.allocator.recover(&framework.id, &agent.id, &conversion.consumed, None);
            }
            self.allocator.convert(&agent.id, &total);
            for conversion in &conversions {
                self.allocator.allocate(&framework.id, &agent.id, &conversion.converted);
            }
            if let Some(agent) = self.agent_mut(&agent.id) {
                agent.total = total;
            }
            None
        });
        match refused {
            Some(error) => self.drop_operation(framework, Some(&agent.id), &operation, OperationState::OperationError, &error, out),
            None => self.start_operation(Some(&framework.id), &agent.id, operation, out),
        }
    }

    fn refuse_task(
        &mut self,
        now: Timestamp,
        framework: &Framework,
        task: &v1::TaskInfo,
        reason: Reason,
        text: &str,
        out: &mut Vec<Effect>,
    ) {
        let status = events::status(now, &(&task.task_id).into(), TaskState::TaskError, reason, text);
        self.count_end(&framework.id, TaskState::TaskError, Some(&status));
        self.send_status(&framework.id, Some(&(&task.agent_id).into()), status, out);
    }

    /// Whether the framework's principal may run something as the user that it would run as.
    fn may_run(&self, framework: &Framework, commands: &[Option<&v1::CommandInfo>]) -> Option<String> {
        for command in commands {
            let user = command.and_then(|it| it.user.as_deref()).unwrap_or(&framework.info.user);
            if !self.config.authorizer.allows(framework.info.principal.as_deref(), Action::RunTask { user }) {
                return Some(format!("Not authorized to launch as user '{user}'"));
            }
        }
        None
    }

    fn launch(
        &mut self,
        now: Timestamp,
        framework: &Arc<Framework>,
        accepting: &mut Accepting,
        mut task: v1::TaskInfo,
        out: &mut Vec<Effect>,
    ) {
        let Some(agent) = self.agent(&accepting.agent) else { return };
        infer_health_check(&mut task);
        let commands = [task.executor.as_ref().map_or(task.command.as_ref(), |it| it.command.as_ref())];
        if let Some(error) = self.may_run(framework, &commands) {
            self.refuse_task(now, framework, &task, Reason::TaskUnauthorized, &error, out);
            return;
        }
        if let Some(executor) = &mut task.executor {
            executor.framework_id.get_or_insert_with(|| framework.id.to_proto());
        }
        let remaining = accepting.remaining();
        let context = TaskContext { framework, agent: &agent, offered: &remaining };
        if let Some(error) = task_error(&task, &context) {
            self.refuse_task(now, framework, &task, Reason::TaskInvalid, &error, out);
            return;
        }
        let executor = task.executor.clone().map(Arc::new);
        let launch_executor = match &executor {
            Some(executor) => self.take_executor(framework, accepting, executor),
            None => true,
        };
        self.take_task(framework, accepting, &task, out);
        let message = ToAgent::RunTask {
            framework: framework.info.clone(),
            task: Box::new(task),
            launch_executor,
            resource_version: agent.resource_version.to_vec(),
        };
        self.tell(&agent.id, message, out);
    }

    fn launch_group(
        &mut self,
        now: Timestamp,
        framework: &Arc<Framework>,
        accepting: &mut Accepting,
        launch: v1::offer::operation::LaunchGroup,
        out: &mut Vec<Effect>,
    ) {
        let Some(agent) = self.agent(&accepting.agent) else { return };
        let v1::offer::operation::LaunchGroup { mut executor, mut task_group } = launch;
        executor.framework_id.get_or_insert_with(|| framework.id.to_proto());
        for task in &mut task_group.tasks {
            infer_health_check(task);
            // Each task carries the executor, so that an agent and its executor see one.
            task.executor.get_or_insert_with(|| executor.clone()).framework_id = executor.framework_id.clone();
        }
        let commands: Vec<_> =
            std::iter::once(executor.command.as_ref()).chain(task_group.tasks.iter().map(|it| it.command.as_ref())).collect();
        let remaining = accepting.remaining();
        let context = TaskContext { framework, agent: &agent, offered: &remaining };
        let refused = match self.may_run(framework, &commands) {
            Some(error) => Some((Reason::TaskGroupUnauthorized, error)),
            None => group_error(&executor, &task_group, &context).map(|error| (Reason::TaskGroupInvalid, error)),
        };
        if let Some((reason, error)) = refused {
            for task in &task_group.tasks {
                self.refuse_task(now, framework, task, reason, &error, out);
            }
            return;
        }
        let shared = Arc::new(executor.clone());
        let launch_executor = self.take_executor(framework, accepting, &shared);
        for task in &task_group.tasks {
            self.take_task(framework, accepting, task, out);
        }
        let message = ToAgent::RunTaskGroup {
            framework: framework.info.clone(),
            executor: Box::new(executor),
            task_group: Box::new(task_group),
            launch_executor,
            resource_version: agent.resource_version.to_vec(),
        };
        self.tell(&agent.id, message, out);
    }

    /// Uses part of the offers for an executor, unless it runs there already. Whether it is to be launched.
    fn take_executor(&mut self, framework: &Framework, accepting: &mut Accepting, executor: &Arc<v1::ExecutorInfo>) -> bool {
        let key = (framework.id.clone(), ExecutorId::from(&executor.executor_id));
        if self.state.agents.get(&accepting.agent).is_some_and(|it| it.executors.contains_key(&key)) {
            return false;
        }
        accepting.take(&Resources::from_proto(&executor.resources));
        self.add_executor(&framework.id, &accepting.agent, executor, true);
        true
    }

    /// Uses part of the offers for a task.
    fn take_task(&mut self, framework: &Framework, accepting: &mut Accepting, info: &v1::TaskInfo, out: &mut Vec<Effect>) {
        let resources = Resources::from_proto(&info.resources);
        accepting.take(&resources);
        let shared = resources.filter(mesos::Resource::is_shared);
        if !shared.is_empty() {
            // One more user of the same volume: the offer's own count is recovered at the end.
            self.allocator.allocate(&framework.id, &accepting.agent, &shared);
        }
        let task = new_task(framework, &accepting.agent, info, resources);
        self.add_task(task, true, out);
    }
}

/// A task at its launch.
fn new_task(framework: &Framework, agent: &AgentId, info: &v1::TaskInfo, resources: Resources) -> Task {
    let executor = info.executor.as_ref().map(|it| it.executor_id.clone());
    let user = info.command.as_ref().or_else(|| info.executor.as_ref().and_then(|it| it.command.as_ref())).and_then(|it| it.user.clone());
    let fixed = v1::Task {
        name: info.name.clone(),
        task_id: info.task_id.clone(),
        framework_id: framework.id.to_proto(),
        executor_id: executor.clone(),
        agent_id: agent.to_proto(),
        state: TaskState::TaskStaging as i32,
        labels: info.labels.clone(),
        discovery: info.discovery.clone(),
        container: info.container.clone(),
        health_check: info.health_check.clone(),
        kill_policy: info.kill_policy,
        user: user.or_else(|| Some(framework.info.user.clone())),
        limits: info.limits.clone(),
        ..Default::default()
    };
    Task {
        fixed: Arc::new(fixed),
        id: TaskId::from(&info.task_id),
        framework_id: framework.id.clone(),
        agent_id: agent.clone(),
        executor_id: executor.as_ref().map(ExecutorId::from),
        resources,
        state: TaskState::TaskStaging,
        status_update_state: TaskState::TaskStaging,
        status_update_uuid: None,
        statuses: imbl::Vector::new(),
        unreachable_at: None,
    }
}

pub(crate) fn is_launch(operation: &Operation) -> bool {
    [Some(Type::Launch as i32), Some(Type::LaunchGroup as i32)].contains(&operation.r#type)
}

/// The tasks that an operation would launch.
fn tasks_of(operation: &Operation) -> impl Iterator<Item = &v1::TaskInfo> {
    let one = operation.launch.iter().filter(|_| operation.r#type == Some(Type::Launch as i32)).flat_map(|it| &it.task_infos);
    let group = operation.launch_group.iter().filter(|_| operation.r#type == Some(Type::LaunchGroup as i32));
    one.chain(group.flat_map(|it| &it.task_group.tasks))
}

/// Resources in an operation are those of the offers: what is missing of their allocation is filled in.
fn allocate_to(operation: &mut Operation, role: &Role) {
    let fill = |resources: &mut Vec<v1::Resource>| {
        for resource in resources {
            let info = resource.allocation_info.get_or_insert_default();
            info.role.get_or_insert_with(|| role.to_string());
        }
    };
    if let Some(launch) = &mut operation.launch {
        for task in &mut launch.task_infos {
            fill(&mut task.resources);
            if let Some(executor) = &mut task.executor {
                fill(&mut executor.resources);
            }
        }
    }
    if let Some(launch) = &mut operation.launch_group {
        fill(&mut launch.executor.resources);
        for task in &mut launch.task_group.tasks {
            fill(&mut task.resources);
            if let Some(executor) = &mut task.executor {
                fill(&mut executor.resources);
            }
        }
    }
    if let Some(it) = &mut operation.reserve {
        fill(&mut it.resources);
        fill(&mut it.source);
    }
    if let Some(it) = &mut operation.unreserve {
        fill(&mut it.resources);
    }
    if let Some(it) = &mut operation.create {
        fill(&mut it.volumes);
    }
    if let Some(it) = &mut operation.destroy {
        fill(&mut it.volumes);
    }
    let fill_one = |resource: &mut v1::Resource| {
        let info = resource.allocation_info.get_or_insert_default();
        info.role.get_or_insert_with(|| role.to_string());
    };
    if let Some(it) = &mut operation.grow_volume {
        fill_one(&mut it.volume);
        fill_one(&mut it.addition);
    }
    if let Some(it) = &mut operation.shrink_volume {
        fill_one(&mut it.volume);
    }
}
