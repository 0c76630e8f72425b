//! What a container finds in its environment, and what it runs. Pure.

use std::collections::BTreeMap;

use mesos_proto::v1::{CommandInfo, environment};

use crate::config::Config;
use crate::login::Claims;
use crate::table::Launch;
use crate::words::{nanoseconds, render_duration};

/// Where programs are looked for when nobody says.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the agent knows that containers are told.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// The agent's id.
    pub agent_id: &'a str,
    /// Where its HTTP API is: address and port.
    pub endpoint: &'a str,
    /// The sandbox on the host.
    pub directory: &'a str,
    /// The sandbox as the container sees it.
    pub sandbox: &'a str,
    /// Address of the container, where it is known.
    pub container_ip: Option<&'a str>,
}

/// All variables of a container, without the agent's own environment: executors do not inherit it. Later ones win.
pub fn variables(config: &Config, launch: &Launch, place: &Place<'_>) -> Vec<(String, String)> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |name: &str, value: String| all.insert(name.to_owned(), value);
    let checkpoints = launch.framework.checkpoint();
    let grace = launch.executor.shutdown_grace_period.as_ref().map(|it| nanoseconds(it.nanoseconds));
    set("PATH", PATH.to_owned());
    set("LIBPROCESS_PORT", "0".to_owned());
    if let Some((certificate, key)) = &config.api_certificate {
        // By these an executor knows that the agent's API is spoken over TLS, and libprocess does not start without the files.
        set("LIBPROCESS_SSL_ENABLED", "true".to_owned());
        set("LIBPROCESS_SSL_CERT_FILE", certificate.display().to_string());
        set("LIBPROCESS_SSL_KEY_FILE", key.display().to_string());
    }
    set("MESOS_FRAMEWORK_ID", launch.framework.id.clone().unwrap_or_default().value);
    set("MESOS_EXECUTOR_ID", launch.executor.executor_id.value.clone());
    set("MESOS_SLAVE_ID", place.agent_id.to_owned());
    set("MESOS_AGENT_ID", place.agent_id.to_owned());
    set("MESOS_SLAVE_PID", format!("slave(1)@{}", place.endpoint));
    set("MESOS_AGENT_ENDPOINT", place.endpoint.to_owned());
    set("MESOS_DIRECTORY", place.directory.to_owned());
    set("MESOS_SANDBOX", place.sandbox.to_owned());
    set("MESOS_CHECKPOINT", if checkpoints { "1" } else { "0" }.to_owned());
    if checkpoints {
        set("MESOS_RECOVERY_TIMEOUT", render_duration(config.recovery_timeout));
        set("MESOS_SUBSCRIPTION_BACKOFF_MAX", render_duration(std::time::Duration::from_secs(2)));
    }
    set("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", render_duration(grace.unwrap_or(config.executor_shutdown_grace_period)));
    set("MESOS_HTTP_COMMAND_EXECUTOR", "0".to_owned());
    if let Some(ip) = &config.libprocess_ip {
        set("LIBPROCESS_IP", ip.clone());
    }
    let resources = launch.task.as_ref().map_or(&launch.resources, |it| &it.resources);
    if let Some(role) = resources.iter().find_map(|it| it.allocation_info.as_ref()?.role.clone()) {
        set("MESOS_ALLOCATION_ROLE", role);
    }
    if launch.is_docker() {
        set("MESOS_CONTAINER_NAME", docker_name(launch));
    }
    if let Some(ip) = place.container_ip {
        set("MESOS_CONTAINER_IP", ip.to_owned());
    }
    // Commands have no executor of their own that would speak with the agent, and what an executor starts beside itself must not speak for it.
    if launch.task.is_none() && launch.container.parent().is_none() && !launch.session && !launch.executor.executor_id.value.is_empty() {
        let (cid, eid) = (launch.container.to_string(), launch.executor.executor_id.value.clone());
        let claims = Claims { cid, eid, fid: launch.framework.id.clone().unwrap_or_default().value };
        if let Some(token) = config.login.token(&claims) {
            set("MESOS_EXECUTOR_AUTHENTICATION_TOKEN", token);
        }
    }
    for (name, value) in &config.executor_environment_variables {
        set(name, value.clone());
    }
    for command in [launch.executor.command.as_ref(), launch.command.as_ref()].into_iter().flatten() {
        for (name, value) in given(command) {
            set(&name, value);
        }
    }
    all.into_iter().collect()
}

/// Variables that a framework gave. Secrets by value are theirs; by reference they would need a resolver, of which there is none.
pub fn given(command: &CommandInfo) -> Vec<(String, String)> {
    let variables = command.environment.as_ref().map(|it| it.variables.as_slice()).unwrap_or_default();
    variables
        .iter()
        .filter_map(|it| {
            let value = match it.r#type() {
                environment::variable::Type::Secret => {
                    let data = &it.secret.as_ref()?.value.as_ref()?.data;
                    String::from_utf8_lossy(data).into_owned()
                }
                _ => it.value.clone().unwrap_or_default(),
            };
            // What no environment can hold.
            let fits = !it.name.is_empty() && !it.name.contains(['=', '\0']) && !value.contains('\0');
            fits.then(|| (it.name.clone(), value))
        })
        .collect()
}

/// Variables, with others on top: one of the same name takes the place of the first.
pub fn over(variables: &[(String, String)], others: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut all: BTreeMap<String, String> = variables.iter().cloned().collect();
    all.extend(others);
    all.into_iter().collect()
}

/// Whether a secret is only named, so that the container cannot be made.
pub fn unresolved_secret(command: &CommandInfo) -> Option<&str> {
    let variables = command.environment.as_ref().map(|it| it.variables.as_slice()).unwrap_or_default();
    variables.iter().find(|it| it.secret.as_ref().is_some_and(|it| it.value.is_none())).map(|it| it.name.as_str())
}

/// The name of a container at Docker.
pub fn docker_name(launch: &Launch) -> String {
    let suffix = if launch.task.is_none() { ".executor" } else { "" };
    format!("{DOCKER_PREFIX}{}{suffix}", launch.container)
}

/// What every name of this agent's containers at Docker begins with.
pub const DOCKER_PREFIX: &str = "mesos-";

/// Program and arguments of a command, and the name that it is called by.
///
/// # Errors
/// When there is nothing to run.
pub fn arguments(command: &CommandInfo) -> Result<(Vec<String>, Option<String>), String> {
    let value = command.value.clone().ok_or_else(|| "the command has no value".to_owned())?;
    if command.shell() {
        return Ok((vec!["/bin/sh".to_owned(), "-c".to_owned(), value], Some("sh".to_owned())));
    }
    let mut arguments = command.arguments.clone();
    // The first is the name that the program is called by.
    let called = arguments.first().cloned();
    match arguments.first_mut() {
        Some(first) => *first = value,
        None => arguments.push(value),
    }
    Ok((arguments, called))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_run_as_mesos_runs_it() {
        let shell = CommandInfo { value: Some("echo hi".to_owned()), ..CommandInfo::default() };
        assert_eq!(arguments(&shell).unwrap().0, ["/bin/sh", "-c", "echo hi"]);
        let mut plain = CommandInfo { value: Some("/bin/busybox".to_owned()), shell: Some(false), ..CommandInfo::default() };
        assert_eq!(arguments(&plain).unwrap(), (vec!["/bin/busybox".to_owned()], None));
        plain.arguments = vec!["ls".to_owned(), "-l".to_owned()];
        assert_eq!(arguments(&plain).unwrap(), (vec!["/bin/busybox".to_owned(), "-l".to_owned()], Some("ls".to_owned())));
        arguments(&CommandInfo::default()).unwrap_err();
    }

    #[test]
    fn executors_are_told_the_address_that_the_agent_was_told_and_no_other() {
        let launch = Launch {
            container: crate::words::ContainerKey::root("c"),
            framework: mesos_proto::v1::FrameworkInfo::default(),
            executor: mesos_proto::v1::ExecutorInfo::default(),
            task: None,
            command: None,
            container_info: None,
            resources: Vec::new(),
            limits: BTreeMap::new(),
            session: false,
        };
        let place = Place { agent_id: "S", endpoint: "127.0.0.1:5051", directory: "/s", sandbox: "/s", container_ip: None };
        let told = |config: &Config| variables(config, &launch, &place).into_iter().find(|(name, _)| name == "LIBPROCESS_IP");
        let mut config = Config::in_directories("/w".into(), "/r".into());
        assert_eq!(told(&config), None);
        config.libprocess_ip = Some("10.1.2.3".to_owned());
        assert_eq!(told(&config), Some(("LIBPROCESS_IP".to_owned(), "10.1.2.3".to_owned())));
    }

    #[test]
    fn variables_that_no_environment_can_hold_are_left_out() {
        let variable = |name: &str, value: &str| mesos_proto::v1::environment::Variable {
            name: name.to_owned(),
            value: Some(value.to_owned()),
            ..Default::default()
        };
        let variables = vec![variable("A", "1"), variable("", "x"), variable("B=C", "x"), variable("D", "a\0b")];
        let command = CommandInfo { environment: Some(mesos_proto::v1::Environment { variables }), ..CommandInfo::default() };
        assert_eq!(given(&command), [("A".to_owned(), "1".to_owned())]);
    }
}
