use std::collections::BTreeSet;

use mesos::{ExecutorId, Resource, Resources, Scalar, TaskId, id_error, resources_error};
use mesos_proto::v1;
use prost::Message;
use v1::container_info::Type as ContainerType;
use v1::executor_info::Type as ExecutorType;

use super::parts::{check_error, command_error, container_error, health_check_error, limits_error, share_cgroups};
use crate::{Agent, Framework};

/// Least resources of the executor of a task group.
const GROUP_CPUS_MIN: f64 = 0.01;
const GROUP_MEM_MIN: f64 = 32.0;

/// How many tasks a framework may have, those included whose end it has not acknowledged. (Mesos has no limit.)
const TASKS_PER_FRAMEWORK_MAX: usize = 1_000_000;

/// Bytes of one message that an agent takes, with some room for what goes around: a larger one would break its connection. (Mesos has no limit.)
pub(crate) const MESSAGE_BYTES_MAX: usize = (16 << 20) - (64 << 10);

/// Whether the message that launches something is larger than an agent takes; the message for the framework.
pub(crate) fn size_error(what: &str, bytes: usize) -> Option<String> {
    (bytes > MESSAGE_BYTES_MAX).then(|| format!("{what} has {bytes} bytes, more than the {MESSAGE_BYTES_MAX} that an agent takes"))
}

/// What a launch is checked against.
pub(crate) struct TaskContext<'a> {
    pub(crate) framework: &'a Framework,
    pub(crate) agent: &'a Agent,
    /// What is left of the accepted offers.
    pub(crate) offered: &'a Resources,
}

/// A health check without a type is of the type that it has the content of.
pub(crate) fn infer_health_check(task: &mut v1::TaskInfo) {
    use v1::health_check::Type;
    let Some(check) = &mut task.health_check else { return };
    if check.r#type.is_none() {
        let kind = match (&check.command, &check.http, &check.tcp) {
            (Some(_), None, None) => Type::Command,
            (None, Some(_), None) => Type::Http,
            (None, None, Some(_)) => Type::Tcp,
            _ => return,
        };
        check.r#type = Some(kind as i32);
    }
}

/// Why a task cannot be launched; `None` when it can.
pub(crate) fn task_error(task: &v1::TaskInfo, context: &TaskContext<'_>) -> Option<String> {
    // The executor goes along by itself, too.
    let bytes = context.framework.info.encoded_len() + task.executor.as_ref().map_or(0, Message::encoded_len) + task.encoded_len();
    size_error("Task with its executor and its framework", bytes).or_else(|| common_error(task, context)).or_else(|| {
        if task.command.is_some() == task.executor.is_some() {
            return Some("Task should have at least one (but not both) of CommandInfo or ExecutorInfo present".into());
        }
        if let Some(executor) = &task.executor {
            if !matches!(executor.r#type(), ExecutorType::Custom | ExecutorType::Unknown) {
                return Some("'ExecutorInfo.type' must be 'CUSTOM'".into());
            }
            if executor.command.is_none() {
                return Some("'ExecutorInfo.command' must be set".into());
            }
            if let Some(error) = executor_error(executor, context) {
                return Some(error);
            }
            if share_cgroups(executor.container.as_ref()) == Some(true) {
                return Some("The 'share_cgroups' field cannot be set to 'true' on executor containers".into());
            }
        }
        if share_cgroups(task.container.as_ref()) == Some(false) {
            return Some("Only tasks in a task group may have 'share_cgroups' set to 'false'".into());
        }
        let mut total = Resources::from_proto(&task.resources);
        if let Some(executor) = &task.executor {
            let resources = Resources::from_proto(&executor.resources);
            if resources.iter().any(Resource::is_shared) {
                return Some(format!("Executor resources {resources} should not contain any shared resources"));
            }
            if overlap(&total, &resources) {
                return Some(format!("There are overlapping resources in the task resources {total} and executor resources {resources}"));
            }
            let key = (context.framework.id.clone(), ExecutorId::from(&executor.executor_id));
            if !context.agent.executors.contains_key(&key) {
                total.add_all(&resources);
            }
        }
        if let Some(error) = mixed_error(&total) {
            return Some(format!("Task and its executor mix revocable and non-revocable resources: {error}"));
        }
        (!context.offered.contains(&total))
            .then(|| format!("Total resources {total} required by task and its executor is more than available {}", context.offered))
    })
}

/// What holds for a task alone and for one of a group.
fn common_error(task: &v1::TaskInfo, context: &TaskContext<'_>) -> Option<String> {
    let id = &task.task_id.value;
    if let Some(error) = id_error(id) {
        return Some(error);
    }
    if context.framework.tasks.len() >= TASKS_PER_FRAMEWORK_MAX {
        return Some(format!("Framework has {TASKS_PER_FRAMEWORK_MAX} tasks that are not over and acknowledged"));
    }
    let key = TaskId::from(id.as_str());
    if context.framework.tasks.contains_key(&key) {
        return Some(format!("Task has duplicate ID: {id}"));
    }
    if context.framework.unreachable_tasks.contains_key(&key) {
        return Some(format!("Task reuses the ID of an unreachable task: {id}"));
    }
    if task.agent_id.value != *context.agent.id {
        return Some(format!("Task uses invalid agent {} while agent {} is expected", task.agent_id.value, context.agent.id));
    }
    if let Some(policy) = &task.kill_policy
        && policy.grace_period.as_ref().is_some_and(|it| it.nanoseconds < 0)
    {
        return Some("Task's 'kill_policy.grace_period' must be non-negative".into());
    }
    if task.max_completion_time.as_ref().is_some_and(|it| it.nanoseconds < 0) {
        return Some("Task's `max_completion_time` must be non-negative".into());
    }
    check_error(task)
        .or_else(|| health_check_error(task))
        .or_else(|| {
            if task.resources.is_empty() {
                return Some("Task uses no resources".into());
            }
            resources_problem(&task.resources, "Task")
        })
        .or_else(|| task.command.as_ref().and_then(command_error).map(|error| format!("Task's `CommandInfo` is invalid: {error}")))
        .or_else(|| task.container.as_ref().and_then(container_error).map(|error| format!("Task's `ContainerInfo` is invalid: {error}")))
        .or_else(|| limits_error(task, context.agent))
}

/// What is wrong with the resources of a task or an executor.
fn resources_problem(resources: &[v1::Resource], whose: &str) -> Option<String> {
    if let Some(error) = general_error(resources) {
        return Some(format!("{whose} uses invalid resources: {error}"));
    }
    let resources: Vec<Resource> = resources.iter().map(Resource::from_proto).collect();
    if let Some(error) = persistence_error(&resources) {
        return Some(format!("{whose} uses duplicate persistence ID: {error}"));
    }
    let mut role = None;
    for resource in &resources {
        let of = resource.allocated_role();
        if of.is_none() {
            return Some(format!("Invalid {} resources: The resources are not allocated to a role", whose.to_lowercase()));
        }
        let first = *role.get_or_insert(of);
        if first != of {
            let name = |it: Option<&mesos::Role>| it.map(ToString::to_string).unwrap_or_default();
            return Some(format!(
                "Invalid {} resources: The resources have multiple allocation roles ('{}' and '{}') but only one allocation role is allowed",
                whose.to_lowercase(),
                name(of),
                name(first)
            ));
        }
    }
    mixed_error(&resources.into_iter().collect()).map(|error| format!("{whose} mixes revocable and non-revocable resources: {error}"))
}

/// What is wrong with resources as such; operations ask this as well.
pub(super) fn general_error(resources: &[v1::Resource]) -> Option<String> {
    if let Some(error) = resources_error(resources) {
        return Some(format!("Invalid resources: {error}"));
    }
    for proto in resources {
        let resource = Resource::from_proto(proto);
        if &**resource.name() == "gpus" && resource.amount().milli() % 1000 != 0 {
            return Some("Invalid 'gpus' resource: The 'gpus' resource must be an unsigned integer".into());
        }
        if let Some(error) = disk_info_error(&resource) {
            return Some(format!("Invalid DiskInfo: {error}"));
        }
        if resource.is_dynamically_reserved() && resource.is_revocable() {
            return Some(format!(
                "Invalid ReservationInfo: Dynamically reserved resource {resource} cannot be created from revocable resources"
            ));
        }
    }
    None
}

fn disk_info_error(resource: &Resource) -> Option<String> {
    let disk = resource.disk()?.info();
    match (&disk.persistence, &disk.volume) {
        (Some(persistence), volume) => {
            if resource.is_revocable() {
                return Some("Persistent volumes cannot be created from revocable resources".into());
            }
            if !resource.is_reserved() {
                return Some("Persistent volumes cannot be created from unreserved resources".into());
            }
            let Some(volume) = volume else { return Some("Expecting 'volume' to be set for persistent volume".into()) };
            if volume.host_path.is_some() {
                return Some("Expecting 'host_path' to be unset for persistent volume".into());
            }
            id_error(&persistence.id).map(|error| format!("Invalid persistence ID for persistent volume: {error}"))
        }
        (None, Some(_)) => Some("Non-persistent volume not supported".into()),
        (None, None) if disk.source.is_none() => Some("DiskInfo is set but empty".into()),
        (None, None) => None,
    }
}

pub(super) fn persistence_error(resources: &[Resource]) -> Option<String> {
    let mut seen = BTreeSet::new();
    for resource in resources {
        let Some(id) = resource.disk().and_then(|disk| disk.persistence_id()) else { continue };
        let role = resource.reserved_role().map(|it| it.as_str()).unwrap_or_default();
        if !seen.insert((role, id)) {
            return Some(format!("Persistence ID '{id}' is not unique"));
        }
    }
    None
}

fn mixed_error(resources: &Resources) -> Option<String> {
    let revocable: BTreeSet<_> = resources.iter().filter(|it| it.is_revocable()).map(Resource::name).collect();
    let both = resources.iter().find(|it| !it.is_revocable() && revocable.contains(it.name()))?;
    Some(format!("Cannot use both revocable and non-revocable '{}' at the same time", both.name()))
}

/// Whether two lists claim the same indivisible thing: a number of ranges, an item of a set, a volume that is not shared.
fn overlap(a: &Resources, b: &Resources) -> bool {
    use mesos::Value;
    a.iter().any(|x| {
        b.iter().filter(|y| x.same_identity(y)).any(|y| match (x.value(), y.value()) {
            (Value::Ranges(p), Value::Ranges(q)) => p.minus(q) != *p,
            (Value::Set(p), Value::Set(q)) => p.minus(q) != *p,
            _ => x.is_indivisible() && !x.is_shared() && x.value() == y.value(),
        })
    })
}

fn executor_error(executor: &v1::ExecutorInfo, context: &TaskContext<'_>) -> Option<String> {
    if let Some(error) = id_error(&executor.executor_id.value) {
        return Some(error);
    }
    match executor.r#type() {
        ExecutorType::Default => {
            if executor.command.is_some() {
                return Some("'ExecutorInfo.command' must not be set for 'DEFAULT' executor".into());
            }
            if let Some(container) = &executor.container {
                if container.r#type != ContainerType::Mesos as i32 {
                    return Some("'ExecutorInfo.container.type' must be 'MESOS' for 'DEFAULT' executor".into());
                }
                if container.mesos.as_ref().is_some_and(|it| it.image.is_some()) {
                    return Some("'ExecutorInfo.container.mesos.image' must not be set for 'DEFAULT' executor".into());
                }
            }
        }
        ExecutorType::Custom if executor.command.is_none() => {
            return Some("'ExecutorInfo.command' must be set for 'CUSTOM' executor".into());
        }
        ExecutorType::Custom | ExecutorType::Unknown => {}
    }
    let Some(framework) = &executor.framework_id else { return Some("'ExecutorInfo.framework_id' must be set".into()) };
    if framework.value != *context.framework.id {
        return Some(format!(
            "ExecutorInfo has an invalid FrameworkID (Actual: {} vs Expected: {})",
            framework.value, context.framework.id
        ));
    }
    if executor.shutdown_grace_period.as_ref().is_some_and(|it| it.nanoseconds < 0) {
        return Some("ExecutorInfo's 'shutdown_grace_period' must be non-negative".into());
    }
    if let Some(error) = resources_problem(&executor.resources, "Executor") {
        return Some(error);
    }
    if let Some(error) = executor.command.as_ref().and_then(command_error) {
        return Some(format!("Executor's `CommandInfo` is invalid: {error}"));
    }
    if let Some(error) = executor.container.as_ref().and_then(container_error) {
        return Some(format!("Executor's `ContainerInfo` is invalid: {error}"));
    }
    let key = (context.framework.id.clone(), ExecutorId::from(&executor.executor_id));
    let existing = context.agent.executors.get(&key)?;
    (!same_executor(existing, executor)).then(|| "ExecutorInfo is not compatible with existing ExecutorInfo with same ExecutorID.".into())
}

/// Whether two descriptions are of one executor; resources may be listed in another order.
fn same_executor(a: &v1::ExecutorInfo, b: &v1::ExecutorInfo) -> bool {
    let stripped = |it: &v1::ExecutorInfo| v1::ExecutorInfo { resources: Vec::new(), ..it.clone() };
    stripped(a) == stripped(b) && Resources::from_proto(&a.resources) == Resources::from_proto(&b.resources)
}

/// Why a group cannot be launched; `None` when it can.
pub(crate) fn group_error(executor: &v1::ExecutorInfo, group: &v1::TaskGroupInfo, context: &TaskContext<'_>) -> Option<String> {
    if group.tasks.is_empty() {
        return Some("Task group cannot be empty".into());
    }
    let bytes = context.framework.info.encoded_len() + executor.encoded_len() + group.encoded_len();
    if let Some(error) = size_error("Task group with its executor and its framework", bytes) {
        return Some(error);
    }
    let mut ids = BTreeSet::new();
    for task in &group.tasks {
        let id = &task.task_id.value;
        let error = common_error(task, context).or_else(|| group_task_error(task, executor));
        if let Some(error) = error {
            return Some(format!("Task '{id}' is invalid: {error}"));
        }
        if !ids.insert(id) {
            return Some(format!("Task '{id}' is invalid: Task has duplicate ID: {id}"));
        }
    }
    group_executor_error(executor, group, context)
}

fn group_task_error(task: &v1::TaskInfo, executor: &v1::ExecutorInfo) -> Option<String> {
    let Some(own) = &task.executor else { return Some("'TaskInfo.executor' must be set".into()) };
    if !same_executor(own, executor) {
        return Some(format!(
            "The `ExecutorInfo` of task '{}' is different from executor '{}'",
            task.task_id.value, executor.executor_id.value
        ));
    }
    if let Some(container) = &task.container {
        let probes = task.health_check.as_ref().is_some_and(|it| it.http.is_some() || it.tcp.is_some());
        if !container.network_infos.is_empty() && probes {
            return Some("HTTP and TCP health checks are not supported for nested containers not joining parent's network".into());
        }
        if container.r#type == ContainerType::Docker as i32 {
            return Some("Docker ContainerInfo is not supported on the task".into());
        }
    }
    if !task.limits.is_empty() && share_cgroups(task.container.as_ref()) != Some(false) {
        return Some(
            "Resource limits may only be set for tasks within a task group when the 'share_cgroups' field is set to 'false'.".into(),
        );
    }
    None
}

fn group_executor_error(executor: &v1::ExecutorInfo, group: &v1::TaskGroupInfo, context: &TaskContext<'_>) -> Option<String> {
    if executor.r#type.is_none() {
        return Some("'ExecutorInfo.type' must be set".into());
    }
    if executor.r#type() == ExecutorType::Unknown {
        return Some("Unknown executor type".into());
    }
    let id = &executor.executor_id.value;
    if executor.container.as_ref().is_some_and(|it| it.r#type == ContainerType::Docker as i32) {
        return Some("Docker ContainerInfo is not supported on the executor".into());
    }
    if let Some(error) = executor_error(executor, context) {
        return Some(error);
    }
    let resources = Resources::from_proto(&executor.resources);
    let known = context.agent.executors.contains_key(&(context.framework.id.clone(), ExecutorId::from(&executor.executor_id)));
    for (name, less, least) in [("cpus", "less CPUs", GROUP_CPUS_MIN), ("mem", "less memory", GROUP_MEM_MIN)] {
        let amount = resources.scalar(name);
        if amount < Scalar::from_f64(least) {
            let has = if amount.is_zero() { "None".to_owned() } else { amount.to_string() };
            return Some(format!("Executor '{id}' uses {less} ({has}) than the minimum required ({least})"));
        }
    }
    if !resources.scalar("disk").is_positive() {
        return Some(format!("Executor '{id}' uses no disk"));
    }
    if share_cgroups(executor.container.as_ref()) == Some(true) {
        return Some("The 'share_cgroups' field cannot be set to 'true' on executor containers".into());
    }
    let shares: BTreeSet<bool> = group.tasks.iter().map(|it| share_cgroups(it.container.as_ref()).unwrap_or(true)).collect();
    if shares.len() > 1 {
        return Some(
            "If set, the value of 'share_cgroups' must be the same for all tasks in each task group and under a single executor".into(),
        );
    }
    let mut total = if known { Resources::new() } else { resources.clone() };
    let mut all = vec![resources];
    for task in &group.tasks {
        let resources = Resources::from_proto(&task.resources);
        if all.iter().any(|other| overlap(other, &resources)) {
            return Some(format!(
                "There are overlapping resources in the task group's task resources {resources} and/or executor resources {}",
                all[0]
            ));
        }
        total.add_all(&resources);
        all.push(resources);
    }
    if let Some(error) = mixed_error(&total) {
        return Some(format!("Task group and executor mix revocable and non-revocable resources: {error}"));
    }
    // A shared volume may be used by several tasks of one offer.
    let once = total.map(|it| if it.is_shared() { Resource::from_proto(&it.to_proto(mesos::Format::Refined)) } else { it.clone() });
    (!context.offered.contains(&once))
        .then(|| format!("Total resources {total} required by task group and its executor are more than available {}", context.offered))
}
