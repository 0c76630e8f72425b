//! Apps.

use std::collections::BTreeSet;

use base::Timestamp;
use scheduler::id::PathId;
use scheduler::model::app::{App, PortDefinition, SINGLE_INSTANCE_LABEL, VersionInfo};
use scheduler::model::container::{ContainerKind, PortMapping, VolumeKind};
use scheduler::model::{Artifact, Labels, Network, NetworkMode, ResourceNeeds, UnreachableStrategy, UpgradeStrategy};
use scheduler::moment::parse_iso;
use serde_json::{Map, Value};

use super::checks::{read_check, read_health_checks, read_readiness, write_check, write_health_check, write_readiness};
use super::container::{Written, read_container, write_container};
use super::pieces::{
    read_artifacts, read_backoff, read_constraints, read_env, read_kill_selection, read_limits, read_needs, read_networks, read_protocol,
    read_secrets, read_unreachable, read_upgrade, write_artifacts, write_constraints, write_env, write_executor_resources,
    write_kill_selection, write_limits, write_networks, write_secrets, write_unreachable, write_upgrade,
};
use super::{Json, Reader};

/// What reading depends on besides the text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Defaults {
    /// Name of container networks that have none.
    pub(crate) network_name: Option<String>,
    /// Name by which old definitions mean the bridge.
    pub(crate) bridge_name: String,
}

/// Suffixes of files that `uris` unpacks.
const ARCHIVES: [&str; 9] = [".tar", ".tar.gz", ".tar.bz2", ".tar.xz", ".gz", ".tgz", ".tbz2", ".txz", ".zip"];

/// A whole app. Its path is `id` if given, else the text's own; that and its dependencies are seen from `base`, the group it was given in.
pub(crate) fn read_app(form: &Reader<'_>, id: Option<&PathId>, base: &PathId, defaults: &Defaults) -> App {
    let id = match id {
        Some(id) => id.clone(),
        None => PathId::parse(&form.required_string("id"), base),
    };
    let mut app = App::new(id.clone());
    app.cmd = form.string("cmd");
    app.args = form.strings("args").unwrap_or_default();
    app.user = form.string("user");
    app.env = read_env(form, "env");
    app.instances = form.u32("instances").unwrap_or(1);
    app.resources = read_needs(form, app.resources);
    app.resource_limits = read_limits(form, "resourceLimits");
    app.executor = read_executor(form);
    app.executor_resources = form.object("executorResources").map(|it| read_needs(&it, ResourceNeeds::EXECUTOR));
    app.constraints = read_constraints(form, "constraints");
    app.fetch = read_fetch(form);
    app.require_ports = form.bool("requirePorts").unwrap_or(false);
    app.backoff = read_backoff(form, ["backoffSeconds", "backoffFactor", "maxLaunchDelaySeconds"]);
    app.kill_grace_seconds = form.number("taskKillGracePeriodSeconds", 0.0);
    app.dependencies = form.strings("dependencies").unwrap_or_default().iter().map(|it| PathId::parse(it, base)).collect();
    app.labels = form.labels("labels").unwrap_or_default();
    app.accepted_resource_roles = form.strings("acceptedResourceRoles").unwrap_or_default();
    if form.has("acceptedResourceRoles") && app.accepted_resource_roles.is_empty() {
        form.invalid("acceptedResourceRoles", "must not be empty");
    }
    app.secrets = read_secrets(form);
    app.kill_selection = read_kill_selection(form);
    app.tty = form.bool("tty");
    // Empty: the scheduler knows the default.
    app.role = form.string("role").unwrap_or_default();
    let written = read_container(form);
    read_ports(form, &mut app, written, defaults);
    app.health_checks = read_health_checks(form, !app.service_ports().is_empty());
    app.check = read_check(form, false);
    app.readiness_checks = read_readiness(form);
    let external = app.volumes().iter().any(|volume| matches!(volume.kind, VolumeKind::External(_)));
    app.upgrade_strategy = read_upgrade(form, "upgradeStrategy").unwrap_or(if app.is_single_instance() {
        UpgradeStrategy { minimum_health_capacity: 0.0, maximum_over_capacity: 0.0 }
    } else if app.is_resident() || external {
        UpgradeStrategy { minimum_health_capacity: 0.5, maximum_over_capacity: 0.0 }
    } else {
        UpgradeStrategy::default()
    });
    app.unreachable = read_unreachable(form, "unreachableStrategy").unwrap_or(if app.is_resident() {
        UnreachableStrategy::Disabled
    } else {
        UnreachableStrategy::IMMEDIATE
    });
    read_versions(form, &mut app);
    app
}

fn read_executor(form: &Reader<'_>) -> String {
    let executor = form.string("executor").unwrap_or_default();
    // `//cmd`, or a path of segments that are not empty.
    let path = executor.strip_prefix('/').unwrap_or(&executor);
    if !(executor.is_empty() || executor == "//cmd" || path.split('/').all(|segment| !segment.is_empty())) {
        form.wrong("executor", "error.pattern");
    }
    executor
}

fn read_fetch(form: &Reader<'_>) -> Vec<Artifact> {
    let uris = form.strings("uris").filter(|uris| !uris.is_empty());
    let fetch = read_artifacts(form, "fetch").unwrap_or_default();
    match uris {
        Some(_) if !fetch.is_empty() => {
            form.invalid("uris", "may not be set in conjunction with fetch");
            fetch
        }
        Some(uris) => uris
            .into_iter()
            .map(|uri| {
                let extract = ARCHIVES.iter().any(|suffix| uri.ends_with(suffix));
                Artifact { uri, extract, executable: false, cache: false, dest_path: None }
            })
            .collect(),
        None => fetch,
    }
}

fn default_port() -> PortDefinition {
    PortDefinition { port: 0, protocol: "tcp".to_owned(), name: Some("default".to_owned()), labels: Labels::new() }
}

/// Port definitions in the new spelling or the old one, `ports`. Marathon up to 1.4 showed both, so both may come back, saying the same.
fn read_port_definitions(form: &Reader<'_>) -> Option<Vec<PortDefinition>> {
    let definitions = form.objects("portDefinitions", |it| PortDefinition {
        port: it.port("port").unwrap_or(0),
        protocol: read_protocol(&it),
        name: it.string("name"),
        labels: it.labels("labels").unwrap_or_default(),
    });
    let ports: Option<Vec<u16>> = form.items("ports").map(|items| {
        let port = |(path, item): (String, &Value)| {
            let port = item.as_u64().and_then(|port| u16::try_from(port).ok());
            if port.is_none() {
                form.reading().form(path, if item.is_number() { "error.max" } else { "error.expected.jsnumber" });
            }
            port
        };
        items.filter_map(port).collect()
    });
    if let Some(ports) = &ports {
        let mut seen = BTreeSet::new();
        if !ports.iter().filter(|port| **port > 0).all(|port| seen.insert(port)) {
            form.invalid("", "ports must be unique");
        }
    }
    if let (Some(definitions), Some(ports)) = (&definitions, &ports)
        && !definitions.iter().map(|it| it.port).eq(ports.iter().copied())
    {
        form.invalid("", "cannot specify both ports and port definitions");
    }
    let from_ports = |ports: Vec<u16>| ports.into_iter().map(|port| PortDefinition { port, name: None, ..default_port() }).collect();
    definitions.or_else(|| ports.map(from_ports))
}

/// Networks and ports, from whatever spelling.
fn read_ports(form: &Reader<'_>, app: &mut App, written: Option<Written>, defaults: &Defaults) {
    let ip_address = form.object("ipAddress");
    let docker_network = written.as_ref().and_then(|it| it.docker_network);
    let given = read_networks(form, defaults.network_name.as_deref()).filter(|it| !it.is_empty());
    if given.is_some() && ip_address.is_some() {
        form.invalid("", "must not specify both networks and ipAddress");
    }
    if given.is_some() && docker_network.is_some() {
        form.invalid("", "must not specify both container.docker.network and networks");
    }
    let old = || old_networks(form, ip_address.as_ref(), docker_network, defaults);
    app.networks = given.or_else(old).unwrap_or_else(|| vec![Network::host()]);
    let definitions = read_port_definitions(form);
    if ip_address.is_some() && definitions.as_ref().is_some_and(|it| !it.is_empty()) {
        form.invalid("", "cannot specify both an IP address and port");
    }
    let has_container = written.is_some() || ip_address.is_some();
    let (container, mut mappings) = written.map_or((None, None), |it| (Some(it.container), it.mappings));
    app.container = container;
    if app.is_host_network() {
        // Nothing is mapped on the host's own network: what was given is dropped, as it always was.
        app.port_definitions = definitions.unwrap_or_else(|| vec![default_port()]);
        return;
    }
    // Anything but the host mode has its ports mapped; required ports are then meaningless.
    app.require_ports = false;
    let bridge = app.networks.iter().any(|it| it.mode == NetworkMode::Bridge);
    if mappings.is_none()
        && let Some(discovery) = ip_address.as_ref().and_then(|it| it.object("discovery"))
    {
        if app.container.as_ref().is_some_and(|it| it.kind == ContainerKind::Docker && it.docker.is_some()) {
            form.invalid("ipAddress", "ipAddress/discovery is not allowed for Docker containers");
        }
        mappings = discovery.objects("ports", |it| PortMapping {
            container_port: it.port("number").unwrap_or(0),
            protocol: read_protocol(&it),
            name: it.string("name"),
            labels: it.labels("labels").unwrap_or_default(),
            ..PortMapping::default()
        });
    }
    let unnamed = || PortMapping { protocol: "tcp".to_owned(), ..PortMapping::default() };
    let mut mappings = mappings.unwrap_or_else(|| vec![PortMapping { name: Some("default".to_owned()), ..unnamed() }]);
    if has_container {
        // Of port definitions only their number counts here: so many ports are mapped at least.
        let wanted = definitions.as_ref().map_or(0, Vec::len);
        mappings.resize_with(wanted.max(mappings.len()), unnamed);
    }
    if bridge {
        for mapping in &mut mappings {
            mapping.host_port = mapping.host_port.or(Some(0));
        }
    }
    let container = app.container.get_or_insert(scheduler::model::container::Container {
        kind: ContainerKind::Mesos,
        docker: None,
        volumes: Vec::new(),
        port_mappings: Vec::new(),
        linux_info: None,
    });
    container.port_mappings = mappings;
}

fn old_networks(
    form: &Reader<'_>,
    ip_address: Option<&Reader<'_>>,
    docker_network: Option<&str>,
    defaults: &Defaults,
) -> Option<Vec<Network>> {
    let named = |name: Option<String>, labels: Labels| {
        let name = name.or_else(|| defaults.network_name.clone());
        Network { mode: NetworkMode::Container, name, labels }
    };
    let bridge = || Network { mode: NetworkMode::Bridge, name: None, labels: Labels::new() };
    let address = ip_address.map(|it| (it.string("networkName"), it.labels("labels").unwrap_or_default()));
    let network = match (docker_network, address) {
        (Some("HOST"), _) => Network::host(),
        (Some("BRIDGE"), _) => bridge(),
        (Some("NONE"), _) => {
            form.invalid("container/docker/network", "network mode NONE is not supported");
            Network::host()
        }
        (Some(_), address) => {
            let (name, labels) = address.unwrap_or_default();
            named(name, labels)
        }
        (None, Some((Some(name), _))) if name == defaults.bridge_name => bridge(),
        (None, Some((name, labels))) => named(name, labels),
        (None, None) => return None,
    };
    Some(vec![network])
}

/// What the server itself wrote: read back from the store, and from nowhere else.
fn read_versions(form: &Reader<'_>, app: &mut App) {
    let time = |form: &Reader<'_>, key: &str| form.string(key).and_then(|text| parse_iso(&text));
    app.version = time(form, "version").unwrap_or(Timestamp::EPOCH);
    if let Some(info) = form.object("versionInfo") {
        app.version_info = VersionInfo {
            last_scaling_at: time(&info, "lastScalingAt").unwrap_or(app.version),
            last_config_change_at: time(&info, "lastConfigChangeAt").unwrap_or(app.version),
        };
    }
}

/// `{...}` of an app.
pub(crate) fn write_app(json: &mut Json, app: &App) {
    json.object(|json| app_fields(json, app));
}

/// The fields of an app, in alphabetical order as ever.
pub(crate) fn app_fields(json: &mut Json, app: &App) {
    let host_mode = app.is_host_network();
    json.text_field("id", app.id.as_str());
    if !app.accepted_resource_roles.is_empty() {
        json.texts_field("acceptedResourceRoles", &app.accepted_resource_roles);
    }
    if !app.args.is_empty() {
        json.texts_field("args", &app.args);
    }
    json.number_field("backoffFactor", app.backoff.factor);
    json.number_field("backoffSeconds", app.backoff.seconds);
    if let Some(check) = &app.check {
        write_check(json, check);
    }
    json.text_if("cmd", app.cmd.as_deref());
    if !app.constraints.is_empty() {
        write_constraints(json, "constraints", &app.constraints);
    }
    if let Some(container) = &app.container {
        write_container(json, container, host_mode);
    }
    json.number_field("cpus", app.resources.cpus);
    if !app.dependencies.is_empty() {
        json.texts_field("dependencies", app.dependencies.iter().map(PathId::as_str));
    }
    json.number_field("disk", app.resources.disk);
    if !app.env.is_empty() {
        write_env(json, "env", &app.env);
    }
    json.text_field("executor", &app.executor);
    if let Some(needs) = app.executor_resources {
        write_executor_resources(json, needs);
    }
    if !app.fetch.is_empty() {
        write_artifacts(json, "fetch", &app.fetch);
    }
    if !app.health_checks.is_empty() {
        json.array_field("healthChecks", &app.health_checks, write_health_check);
    }
    json.integer_field("instances", app.instances);
    json.labels_field("labels", &app.labels);
    json.number_field("maxLaunchDelaySeconds", app.backoff.max_launch_delay_seconds);
    json.number_field("mem", app.resources.mem);
    json.integer_field("gpus", app.resources.gpus);
    write_networks(json, &app.networks);
    if host_mode {
        json.array_field("portDefinitions", &app.port_definitions, |json, port| {
            json.object(|json| {
                json.labels_field("labels", &port.labels);
                json.text_if("name", port.name.as_deref());
                json.integer_field("port", port.port);
                json.text_field("protocol", &port.protocol);
            });
        });
    }
    if !app.readiness_checks.is_empty() {
        json.array_field("readinessChecks", &app.readiness_checks, write_readiness);
    }
    json.bool_field("requirePorts", app.require_ports);
    if app.is_resident() {
        json.object_field("residency", |json| {
            json.integer_field("relaunchEscalationTimeoutSeconds", 3_600);
            json.text_field("taskLostBehavior", "WAIT_FOREVER");
        });
    }
    write_limits(json, app.resource_limits);
    json.text_field("role", &app.role);
    if !app.secrets.is_empty() {
        write_secrets(json, &app.secrets);
    }
    if let Some(seconds) = app.kill_grace_seconds {
        json.number_field("taskKillGracePeriodSeconds", seconds);
    }
    if let Some(tty) = app.tty {
        json.bool_field("tty", tty);
    }
    write_upgrade(json, "upgradeStrategy", app.upgrade_strategy);
    json.text_if("user", app.user.as_deref());
    json.time_field("version", app.version);
    json.object_field("versionInfo", |json| {
        json.time_field("lastScalingAt", app.version_info.last_scaling_at);
        json.time_field("lastConfigChangeAt", app.version_info.last_config_change_at);
    });
    write_kill_selection(json, app.kill_selection);
    write_unreachable(json, "unreachableStrategy", app.unreachable);
}

/// Keys that the server alone writes.
const OUTPUT_ONLY: [&str; 14] = [
    "version",
    "versionInfo",
    "deployments",
    "tasks",
    "tasksRunning",
    "tasksStaged",
    "tasksHealthy",
    "tasksUnhealthy",
    "lastTaskFailure",
    "taskStats",
    "tasksStats",
    "readinessCheckResults",
    "residency",
    "id",
];

/// What an update leaves standing of the app that there is: its top-level fields, unless the update has the field or its other spelling.
/// `cmd` and `args` are no spellings of each other: an update with one of them keeps the other, and is refused for having both.
pub(crate) fn merged(current: &App, update: &Map<String, Value>) -> Map<String, Value> {
    let text = Json::text(|json| write_app(json, current));
    let mut fields = match serde_json::from_str(&text) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let has = |key: &str| update.get(key).is_some_and(|value| !value.is_null());
    for key in OUTPUT_ONLY {
        fields.remove(key);
    }
    for (given, other) in [
        ("ports", "portDefinitions"),
        ("uris", "fetch"),
        ("ipAddress", "networks"),
        ("networks", "portDefinitions"),
        ("ipAddress", "portDefinitions"),
    ] {
        if has(given) && !has(other) {
            fields.remove(other);
        }
    }
    // The same network named again keeps its ports.
    let network =
        |networks: Option<&Value>| networks.and_then(Value::as_array).and_then(|it| it.first()).and_then(|it| it.get("mode")).cloned();
    let to_host = network(update.get("networks")).is_some_and(|mode| mode == "host");
    if has("networks") && to_host && current.is_host_network() && !has("portDefinitions") && !has("ports") {
        let again: Value = serde_json::from_str(&text).unwrap_or_default();
        if let Some(ports) = again.get("portDefinitions") {
            fields.insert("portDefinitions".to_owned(), ports.clone());
        }
    }
    if has("networks")
        && to_host
        && !current.is_host_network()
        && let Some(Value::Object(container)) = fields.get_mut("container")
    {
        container.remove("portMappings");
    }
    let container = update.get("container").filter(|it| !it.is_null());
    if container.and_then(|it| it.pointer("/docker/network")).is_some_and(|it| !it.is_null()) && !has("networks") {
        fields.remove("networks");
        fields.remove("portDefinitions");
    }
    let strategy_is_default = !has("upgradeStrategy")
        && current.labels.get(SINGLE_INSTANCE_LABEL)
            != update.get("labels").and_then(|it| it.get(SINGLE_INSTANCE_LABEL)).and_then(Value::as_str).map(str::to_owned).as_ref();
    if has("labels") && strategy_is_default {
        fields.remove("upgradeStrategy");
    }
    for (key, value) in update {
        if !value.is_null() && !OUTPUT_ONLY.contains(&key.as_str()) {
            fields.insert(key.clone(), value.clone());
        }
    }
    fields
}
