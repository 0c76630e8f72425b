//! The variables that Marathon gives to tasks.

use std::collections::BTreeMap;

use super::TaskLaunch;
use crate::id::InstanceId;
use crate::model::app::App;
use crate::model::pod::Pod;
use crate::model::{EnvValue, Labels, ResourceNeeds};
use crate::moment::iso;

/// What the variables are made of besides the definition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    /// Host of the agent.
    pub(crate) host: &'a str,
    /// Put before the names of the port variables.
    pub(crate) prefix: &'a str,
    /// Whether the top-level group enforces its role.
    pub(crate) enforces_role: bool,
}

type Variables = BTreeMap<String, EnvValue>;

/// Longest key of a label that becomes a variable.
const LABEL_KEY_MAX: usize = 493;
/// Longest value of a label that becomes a variable.
const LABEL_VALUE_MAX: usize = 512;

/// Of an app's task: what it is, then its ports, then what the user set.
pub(crate) fn app(app: &App, task: &TaskLaunch, context: Context<'_>) -> Variables {
    let mut all = Variables::new();
    let mut set = |name: &str, value: String| {
        all.insert(name.to_owned(), EnvValue::Text(value));
    };
    set("MESOS_TASK_ID", task.id.as_str().to_owned());
    set("MARATHON_APP_ID", app.id.as_str().to_owned());
    set("MARATHON_APP_VERSION", iso(app.version));
    if let Some(docker) = app.container.as_ref().and_then(|container| container.docker.as_ref()) {
        set("MARATHON_APP_DOCKER_IMAGE", docker.image.clone());
    }
    resources(&mut set, "MARATHON_APP_RESOURCE", app.resources);
    set("MARATHON_APP_ENFORCE_GROUP_ROLE", truth(context.enforces_role));
    labels(&mut set, &app.labels);
    ports(&mut set, app, task, context);
    all.extend(app.env.iter().map(|(name, value)| (name.clone(), value.clone())));
    all
}

fn ports(set: &mut impl FnMut(&str, String), app: &App, task: &TaskLaunch, context: Context<'_>) {
    let named = |name: &str| format!("{}{name}", context.prefix);
    set(&named("HOST"), context.host.to_owned());
    let declared: Vec<(u16, Option<&str>)> = if app.is_host_network() {
        app.port_definitions.iter().map(|port| (port.port, port.name.as_deref())).collect()
    } else {
        app.container.iter().flat_map(|it| &it.port_mappings).map(|it| (it.container_port, it.name.as_deref())).collect()
    };
    // Each port as the task sees it: on the agent, else in the container.
    let effective =
        |at: usize| task.host_ports.get(at).copied().flatten().or_else(|| task.container_ports.get(at).copied().filter(|port| *port > 0));
    let mut listed = Vec::new();
    for (at, (number, name)) in declared.iter().enumerate() {
        let Some(port) = effective(at) else { continue };
        set(&named(&format!("PORT{at}")), port.to_string());
        let number = if *number > 0 { *number } else { task.container_ports.get(at).copied().filter(|it| *it > 0).unwrap_or(port) };
        set(&named(&format!("PORT_{number}")), port.to_string());
        if let Some(name) = name {
            set(&named(&format!("PORT_{}", variable_name(name))), port.to_string());
        }
        if task.host_ports.get(at).copied().flatten().is_some() || app.is_host_network() {
            listed.push(port);
        }
    }
    if let Some(first) = listed.first() {
        set(&named("PORT"), first.to_string());
        set(&named("PORTS"), listed.iter().map(u16::to_string).collect::<Vec<_>>().join(","));
    }
}

/// Of a task of a pod: what the user set, then what it is. Here the user does not win.
pub(crate) fn pod(pod: &Pod, instance: &InstanceId, at: usize, tasks: &[TaskLaunch], context: Context<'_>) -> Variables {
    let (Some(container), Some(task)) = (pod.containers.get(at), tasks.get(at)) else { return Variables::new() };
    let mut all: Variables = pod.environment.clone();
    all.extend(container.environment.iter().map(|(name, value)| (name.clone(), value.clone())));
    let mut set = |name: &str, value: String| {
        all.insert(name.to_owned(), EnvValue::Text(value));
    };
    set("HOST", context.host.to_owned());
    set("MESOS_TASK_ID", task.id.as_str().to_owned());
    set("MESOS_EXECUTOR_ID", instance.executor());
    set("MARATHON_APP_ID", pod.id.as_str().to_owned());
    set("MARATHON_APP_VERSION", iso(pod.version));
    set("MARATHON_CONTAINER_ID", container.name.clone());
    resources(&mut set, "MARATHON_CONTAINER_RESOURCE", container.resources);
    set("MARATHON_APP_ENFORCE_GROUP_ROLE", truth(context.enforces_role));
    let mut merged = pod.labels.clone();
    merged.extend(container.labels.iter().map(|(key, value)| (key.clone(), value.clone())));
    labels(&mut set, &merged);
    let host_mode = pod.is_host_network();
    // Every container sees the endpoints of all: they share one network.
    for (container, task) in pod.containers.iter().zip(tasks) {
        for (at, endpoint) in container.endpoints.iter().enumerate() {
            let name = variable_name(&endpoint.name);
            let host = task.host_ports.get(at).copied().flatten();
            let inner = task.container_ports.get(at).copied().filter(|port| *port > 0);
            let mut put = |kind: &str, port: Option<u16>| {
                if let Some(port) = port {
                    set(&format!("{}{kind}{name}", context.prefix), port.to_string());
                }
            };
            put("ENDPOINT_", if host_mode { host } else { inner });
            put("EP_HOST_", host);
            put("EP_CONTAINER_", inner);
        }
    }
    all
}

fn resources(set: &mut impl FnMut(&str, String), prefix: &str, needs: ResourceNeeds) {
    for (name, value) in [("CPUS", needs.cpus), ("MEM", needs.mem), ("DISK", needs.disk)] {
        // With a decimal, as the old program wrote them.
        set(&format!("{prefix}_{name}"), format!("{value:?}"));
    }
    set(&format!("{prefix}_GPUS"), needs.gpus.to_string());
}

fn labels(set: &mut impl FnMut(&str, String), labels: &Labels) {
    let mut names = Vec::new();
    for (key, value) in labels {
        if key.len() < LABEL_KEY_MAX && value.len() < LABEL_VALUE_MAX {
            let name = variable_name(key);
            set(&format!("MARATHON_APP_LABEL_{name}"), value.clone());
            names.push(name);
        }
    }
    set("MARATHON_APP_LABELS", names.join(" "));
}

/// Upper case, runs of anything but letters and digits as one `_`.
fn variable_name(text: &str) -> String {
    let mut name = String::new();
    for letter in text.chars() {
        if letter.is_ascii_alphanumeric() {
            name.push(letter.to_ascii_uppercase());
        } else if !name.ends_with('_') {
            name.push('_');
        }
    }
    name.trim_matches('_').to_owned()
}

fn truth(value: bool) -> String {
    if value { "TRUE" } else { "FALSE" }.to_owned()
}

#[cfg(test)]
mod tests {
    use base::Timestamp;

    use super::*;
    use crate::id::{PathId, TaskId};
    use crate::model::app::PortDefinition;

    #[test]
    fn the_user_wins_over_everything_in_an_app() {
        let mut definition = App::new(PathId::absolute("/g/web"));
        definition.version = Timestamp::EPOCH;
        definition.port_definitions = vec![
            PortDefinition { port: 10_000, protocol: "tcp".to_owned(), name: Some("http-api".to_owned()), labels: Labels::new() },
            PortDefinition { port: 10_001, protocol: "tcp".to_owned(), name: None, labels: Labels::new() },
        ];
        definition.env.insert("PORT0".to_owned(), EnvValue::Text("mine".to_owned()));
        definition.labels.insert("traefik.front-end".to_owned(), "x".to_owned());
        let task = TaskLaunch {
            id: TaskId::parse("g_web.instance-6f1c2d3e-0000-11ea-8d71-362b9e155667._app.1").unwrap(),
            container: String::new(),
            resources: Vec::new(),
            host_ports: vec![Some(31_001), Some(31_002)],
            container_ports: vec![0, 0],
            environment: BTreeMap::new(),
        };
        let all = app(&definition, &task, Context { host: "h1", prefix: "", enforces_role: false });
        let text: String = all
            .iter()
            .map(|(name, value)| match value {
                EnvValue::Text(value) => format!("{name}={value}\n"),
                EnvValue::Secret(key) => format!("{name}=secret {key}\n"),
            })
            .collect();
        expect_test::expect![[r#"
            HOST=h1
            MARATHON_APP_ENFORCE_GROUP_ROLE=FALSE
            MARATHON_APP_ID=/g/web
            MARATHON_APP_LABELS=TRAEFIK_FRONT_END
            MARATHON_APP_LABEL_TRAEFIK_FRONT_END=x
            MARATHON_APP_RESOURCE_CPUS=1.0
            MARATHON_APP_RESOURCE_DISK=0.0
            MARATHON_APP_RESOURCE_GPUS=0
            MARATHON_APP_RESOURCE_MEM=128.0
            MARATHON_APP_VERSION=1970-01-01T00:00:00.000Z
            MESOS_TASK_ID=g_web.instance-6f1c2d3e-0000-11ea-8d71-362b9e155667._app.1
            PORT=31001
            PORT0=mine
            PORT1=31002
            PORTS=31001,31002
            PORT_10000=31001
            PORT_10001=31002
            PORT_HTTP_API=31001
        "#]]
        .assert_eq(&text);
    }
}
