//! The parts of a task: commands, containers, checks, limits.

use mesos::{Resources, Scalar};
use mesos_proto::v1;
use v1::container_info::Type as ContainerType;

use crate::Agent;

pub(super) fn command_error(command: &v1::CommandInfo) -> Option<String> {
    for variable in command.environment.iter().flat_map(|it| &it.variables) {
        use v1::environment::variable::Type;
        let name = &variable.name;
        match variable.r#type() {
            Type::Secret if variable.secret.is_none() => {
                return Some(format!("Environment variable '{name}' of type 'SECRET' must have a secret set"));
            }
            Type::Secret if variable.value.is_some() => {
                return Some(format!("Environment variable '{name}' of type 'SECRET' must not have a value set"));
            }
            Type::Value | Type::Unknown if variable.value.is_none() => {
                return Some(format!("Environment variable '{name}' of type 'VALUE' must have a value set"));
            }
            Type::Value | Type::Unknown if variable.secret.is_some() => {
                return Some(format!("Environment variable '{name}' of type 'VALUE' must not have a secret set"));
            }
            _ => {}
        }
    }
    None
}

pub(super) fn container_error(container: &v1::ContainerInfo) -> Option<String> {
    for volume in &container.volumes {
        let source = volume.source.is_some();
        let count = usize::from(volume.host_path.is_some()) + usize::from(volume.image.is_some()) + usize::from(source);
        if count != 1 {
            return Some("Only one of them should be set: 'host_path', 'image' and 'source' in a 'Volume'".into());
        }
    }
    if container.r#type == ContainerType::Docker as i32 {
        let Some(docker) = &container.docker else {
            return Some("DockerInfo 'docker' is not set for DOCKER typed ContainerInfo".into());
        };
        if docker.parameters.iter().any(|it| it.key == "name") {
            return Some("Parameter in DockerInfo must not be 'name'".into());
        }
    }
    None
}

pub(super) fn share_cgroups(container: Option<&v1::ContainerInfo>) -> Option<bool> {
    container?.linux_info.as_ref()?.share_cgroups
}

fn seconds_error(what: &str, value: Option<f64>) -> Option<String> {
    let value = value?;
    (!value.is_finite() || value < 0.0).then(|| format!("Expecting '{what}' to be non-negative"))
}

pub(super) fn health_check_error(task: &v1::TaskInfo) -> Option<String> {
    use v1::health_check::Type;
    let check = task.health_check.as_ref()?;
    let error = match check.r#type() {
        Type::Command => match &check.command {
            None => Some("Expecting 'command' to be set for COMMAND health check".into()),
            Some(command) if command.value.is_none() => {
                let kind = if command.shell() { "Shell command" } else { "Executable path" };
                Some(format!("{kind} is not specified"))
            }
            Some(command) => command_error(command).map(|error| format!("Health check's `CommandInfo` is invalid: {error}")),
        },
        Type::Http => match &check.http {
            None => Some("Expecting 'http' to be set for HTTP health check".into()),
            Some(http) => {
                let scheme = http.scheme.as_deref().filter(|it| !["http", "https"].contains(it));
                let path = http.path.as_deref().filter(|it| !it.starts_with('/'));
                scheme
                    .map(|it| format!("Unsupported HTTP health check scheme: '{it}'"))
                    .or_else(|| path.map(|it| format!("The path '{it}' of HTTP health check must start with '/'")))
            }
        },
        Type::Tcp => check.tcp.is_none().then(|| "Expecting 'tcp' to be set for TCP health check".into()),
        Type::Unknown if check.r#type.is_none() => Some("HealthCheck must specify 'type'".into()),
        Type::Unknown => Some("'UNKNOWN' is not a valid health check type".into()),
    };
    let error = error
        .or_else(|| seconds_error("delay_seconds", check.delay_seconds))
        .or_else(|| seconds_error("grace_period_seconds", check.grace_period_seconds))
        .or_else(|| seconds_error("interval_seconds", check.interval_seconds))
        .or_else(|| seconds_error("timeout_seconds", check.timeout_seconds));
    error.map(|error| format!("Task uses invalid health check: {error}"))
}

pub(super) fn check_error(task: &v1::TaskInfo) -> Option<String> {
    use v1::check_info::Type;
    let check = task.check.as_ref()?;
    let error = match check.r#type() {
        Type::Command => match &check.command {
            None => Some("Expecting 'command' to be set for COMMAND check".to_owned()),
            Some(it) if it.command.value.is_none() => Some("Command check must contain 'shell command' or 'executable path'".to_owned()),
            Some(_) => None,
        },
        Type::Http => match &check.http {
            None => Some("Expecting 'http' to be set for HTTP check".into()),
            Some(http) => {
                let path = http.path.as_deref().filter(|it| !it.starts_with('/'));
                path.map(|it| format!("The path '{it}' of HTTP check must start with '/'"))
            }
        },
        Type::Tcp => check.tcp.is_none().then(|| "Expecting 'tcp' to be set for TCP check".into()),
        Type::Unknown if check.r#type.is_none() => Some("CheckInfo must specify 'type'".into()),
        Type::Unknown => Some("'UNKNOWN' is not a valid check type".into()),
    };
    let error = error
        .or_else(|| seconds_error("delay_seconds", check.delay_seconds))
        .or_else(|| seconds_error("interval_seconds", check.interval_seconds))
        .or_else(|| seconds_error("timeout_seconds", check.timeout_seconds));
    error.map(|error| format!("Task uses invalid check: {error}"))
}

pub(super) fn limits_error(task: &v1::TaskInfo, agent: &Agent) -> Option<String> {
    if task.limits.is_empty() {
        return None;
    }
    if !agent.capabilities.task_resource_limits() {
        return Some("Agent is not capable of handling task resource limits".into());
    }
    if task.limits.keys().any(|name| name != "cpus" && name != "mem") {
        return Some("Only cpus and mem may be included in a task's resource limits".into());
    }
    let resources = Resources::from_proto(&task.resources);
    for (name, spelled, short) in [("cpus", "CPU", "cpu"), ("mem", "memory", "memory")] {
        let Some(limit) = task.limits.get(name) else { continue };
        let request = resources.scalar(name);
        if !request.is_positive() {
            return Some(format!("When a {spelled} limit is specified, a {spelled} request must also be specified"));
        }
        if limit.value.is_nan() || Scalar::from_f64(limit.value) < request {
            return Some(format!("The {short} limit must be greater than or equal to the {short} request"));
        }
    }
    None
}
