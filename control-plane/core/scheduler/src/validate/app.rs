use std::collections::BTreeSet;

use super::{Problems, constraints, limits, linux_info, networks, persistent, secrets, unreachable, upgrade_strategy};
use crate::model::app::App;
use crate::model::container::{Container, ContainerKind, VolumeKind};
use crate::model::health::{PortRef, Probe};
use crate::model::{NetworkMode, UnreachableStrategy};
use crate::scheduler::words::Config;

pub(super) fn check(app: &App, config: &Config, all: &mut Problems) {
    what_runs(app, all);
    needs(app, config, all);
    ports(app, all);
    networks(&app.networks, "/networks", all);
    constraints(&app.constraints, "/constraints", all);
    upgrade_strategy(app.upgrade_strategy, all, "/upgradeStrategy");
    unreachable(app.unreachable, all, "/unreachableStrategy");
    secrets(&app.env, &app.secrets, config, "/env", all);
    health(app, all);
    if let Some(container) = &app.container {
        self::container(app, container, config, all);
    }
    for (at, dependency) in app.dependencies.iter().enumerate() {
        if !dependency.is_root()
            && let Some(problem) = dependency.problem()
        {
            all.add(format!("/dependencies({at})"), problem);
        }
    }
    for (at, artifact) in app.fetch.iter().enumerate() {
        let bad = artifact.uri.is_empty()
            || artifact.uri.contains(|it: char| it.is_whitespace() || it.is_control() || "<>\"{}|\\^`".contains(it));
        all.need(!bad, format!("/fetch({at})"), "URI has invalid syntax.");
    }
    if !app.accepted_resource_roles.is_empty() {
        let known = app.accepted_resource_roles.iter().all(|role| role == "*" || *role == app.role);
        all.need(known, "/acceptedResourceRoles", format!("acceptedResourceRoles can only contain * and {}", app.role));
    }
    if app.is_single_instance() {
        all.need(app.instances <= 1, "/instances", "Single instance app may only have one instance");
        let strategy = app.upgrade_strategy;
        all.need(
            strategy.minimum_health_capacity == 0.0 && strategy.maximum_over_capacity == 0.0,
            "/upgradeStrategy",
            "got non-zero capacities, expected 0 for a single instance app",
        );
    }
    package_labels(app, all);
    if app.is_resident() {
        // Nothing can be reserved for everybody.
        all.need(app.role != "*", "/role", "Resident apps cannot have the role *");
        all.need(
            app.unreachable == UnreachableStrategy::Disabled,
            "/unreachableStrategy",
            "unreachableStrategy must be disabled for resident tasks",
        );
        all.need(
            app.upgrade_strategy.maximum_over_capacity == 0.0,
            "/upgradeStrategy/maximumOverCapacity",
            format!("got {:?}, expected 0.0", app.upgrade_strategy.maximum_over_capacity),
        );
        let roles = &app.accepted_resource_roles;
        all.need(
            roles.is_empty() || roles == &["*".to_owned()],
            "/acceptedResourceRoles",
            "Resident apps may only define acceptedResourceRoles [\"*\"]",
        );
    }
}

fn what_runs(app: &App, all: &mut Problems) {
    if app.cmd.as_deref() == Some("") {
        all.add("/cmd", "must not be an empty string");
    }
    let by_itself = app.container.as_ref().is_some_and(|container| container.kind == ContainerKind::Mesos || container.docker.is_some());
    let good = match (&app.cmd, app.args.is_empty()) {
        (Some(_), true) | (None, false) => true,
        (None, true) => by_itself,
        (Some(_), false) => false,
    };
    all.need(good, "/", "AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'.");
}

fn needs(app: &App, config: &Config, all: &mut Problems) {
    limits(app.resource_limits, app.resources, "/resourceLimits", all);
    if app.resources.gpus > 0 {
        all.feature(config, "gpu_resources", "/gpus");
        let docker = app.container.as_ref().is_some_and(|container| container.kind == ContainerKind::Docker);
        all.need(!docker, "/", "GPU resources only work with the Mesos containerizer");
    }
}

fn ports(app: &App, all: &mut Problems) {
    let host_mode = app.is_host_network();
    let mappings = app.container.as_ref().map(|container| container.port_mappings.as_slice()).unwrap_or_default();
    all.need(host_mode || app.port_definitions.is_empty(), "/portDefinitions", "portDefinitions are only allowed with host-networking");
    all.need(!host_mode || mappings.is_empty(), "/container/portMappings", "portMappings are not allowed with host-networking");
    let mut numbers = BTreeSet::new();
    let unique = app.port_definitions.iter().filter(|it| it.port > 0).all(|it| numbers.insert(it.port));
    all.need(unique, "/portDefinitions", "Ports must be unique.");
    let mut names = BTreeSet::new();
    let unique = app.port_definitions.iter().filter_map(|it| it.name.as_ref()).all(|name| names.insert(name));
    all.need(unique, "/portDefinitions", "Port names must be unique.");
    let mut names = BTreeSet::new();
    let unique = mappings.iter().filter_map(|it| it.name.as_ref()).all(|name| names.insert(name));
    all.need(unique, "/container/portMappings", "Port names must be unique.");
    let known: BTreeSet<&str> = app.networks.iter().filter_map(|it| it.name.as_deref()).collect();
    let several = app.networks.iter().filter(|it| it.mode == NetworkMode::Container).count() > 1;
    for (at, mapping) in mappings.iter().enumerate() {
        let path = format!("/container/portMappings({at})/networkNames");
        for name in &mapping.network_names {
            all.need(known.contains(name.as_str()), path.clone(), format!("'{name}' is not a known network"));
        }
        all.need(
            !several || mapping.host_port.is_none() || mapping.network_names.len() == 1,
            path,
            "networkNames must be a single item list when hostPort is specified and more than 1 container network is defined",
        );
    }
}

fn health(app: &App, all: &mut Problems) {
    let port_count = app.service_ports().len();
    let in_range = |port: &PortRef| match port {
        PortRef::Index(at) => (*at as usize) < port_count,
        PortRef::Number(_) | PortRef::Name(_) => true,
    };
    for (at, check) in app.health_checks.iter().enumerate() {
        let path = format!("/healthChecks({at})");
        if let Some(port) = check.port() {
            all.need(
                in_range(port),
                path.clone(),
                "Health check port indices must address an element of the ports array or container port mappings.",
            );
        }
        let v6 = matches!(check.probe, Probe::Http { ipv6: true, .. } | Probe::Tcp { ipv6: true, .. });
        let docker = app.container.as_ref().is_some_and(|container| container.kind == ContainerKind::Docker);
        all.need(
            !v6 || (docker && !check.by_scheduler()),
            path,
            "IPv6 can only be used for container type DOCKER and Mesos http/https/tcp health checks",
        );
    }
    let by_agent = app.health_checks.iter().filter(|check| !check.by_scheduler() && !matches!(check.probe, Probe::Command(_))).count();
    all.need(by_agent <= 1, "/healthChecks", "AppDefinition can contain at most one Mesos health check");
    if app.check.is_some() {
        let docker = app.container.as_ref().is_some_and(|container| container.kind == ContainerKind::Docker);
        all.need(!docker, "/", "AppDefinition must not use 'checks' if using docker");
    }
    all.need(app.readiness_checks.len() <= 1, "/readinessChecks", "Currently at most one readiness check is supported.");
    for (at, check) in app.readiness_checks.iter().enumerate() {
        let path = format!("/readinessChecks({at})");
        all.need(check.timeout_seconds < check.interval_seconds, format!("{path}/timeoutSeconds"), "Timeout must be smaller than interval");
        let names = app.port_definitions.iter().filter_map(|it| it.name.as_deref());
        let mapped = app.container.iter().flat_map(|it| &it.port_mappings).filter_map(|it| it.name.as_deref());
        all.need(
            names.chain(mapped).any(|name| name == check.port_name),
            format!("{path}/portName"),
            format!("No port definition reference for portName {}", check.port_name),
        );
    }
}

fn container(app: &App, container: &Container, config: &Config, all: &mut Problems) {
    let is_docker = container.kind == ContainerKind::Docker;
    all.need(!is_docker || container.docker.is_some(), "/container/docker", "not defined");
    if let Some(docker) = &container.docker {
        all.need(!docker.image.is_empty(), "/container/docker/image", "must not be empty");
        if let Some(secret) = &docker.pull_secret {
            all.need(!is_docker, "/container/docker", "pullConfig is not supported with Docker containerizer");
            all.need(
                app.secrets.contains_key(secret),
                "/container/docker/pullConfig/secret",
                "pullConfig.secret must refer to an existing secret",
            );
        }
    }
    let container_networks = app.networks.iter().filter(|it| it.mode == NetworkMode::Container).count();
    all.need(!is_docker || container_networks <= 1, "/networks", "Docker engine only supports one container network");
    linux_info(container.linux_info.as_ref(), "/container/linuxInfo", all);
    let mut names = BTreeSet::new();
    for (at, volume) in container.volumes.iter().enumerate() {
        let path = format!("/container/volumes({at})");
        all.need(!volume.container_path.is_empty(), format!("{path}/containerPath"), "must not be empty");
        match &volume.kind {
            VolumeKind::Host(host) => all.need(!host.is_empty(), format!("{path}/hostPath"), "must not be empty"),
            VolumeKind::Persistent(volume_definition) => {
                let path_is_name = !volume.container_path.contains('/') && !matches!(volume.container_path.as_str(), "." | "..");
                all.need(path_is_name, format!("{path}/containerPath"), "containerPath of a persistent volume must not contain \"/\"");
                all.need(!volume.read_only, format!("{path}/mode"), "mode of a persistent volume must be RW");
                persistent(volume_definition, &path, all);
            }
            VolumeKind::External(external) => {
                all.feature(config, "external_volumes", &path);
                all.need(!external.name.is_empty(), format!("{path}/external/name"), "must not be empty");
                all.need(external.shared || app.instances <= 1, "/instances", format!("got {}, expected 1 or less", app.instances));
                all.need(external.shared || names.insert(&external.name), "/container/volumes", "Volume names must be unique");
                if external.provider == "dvdi" {
                    let driver = external.options.get("dvdi/driver").is_some_and(|driver| !driver.is_empty());
                    all.need(driver, format!("{path}/external/options"), "\"dvdi/driver\" not defined");
                } else {
                    all.need(external.provider == "csi", format!("{path}/external/provider"), "is unknown provider");
                }
            }
            VolumeKind::Secret(secret) => {
                all.feature(config, "secrets", &path);
                all.need(!is_docker, path.clone(), "secret volumes are not supported with Docker containerizer");
                all.need(app.secrets.contains_key(secret), format!("{path}/secret"), "volume.secret must refer to an existing secret");
            }
        }
    }
}

fn package_labels(app: &App, all: &mut Problems) {
    let Some(version) = app.labels.get("DCOS_MIGRATION_API_VERSION") else { return };
    all.need(version == "v1", "/labels", format!("got {version}, expected v1 for DCOS_MIGRATION_API_VERSION"));
    for needed in ["DCOS_PACKAGE_FRAMEWORK_NAME", "DCOS_MIGRATION_API_PATH"] {
        all.need(
            app.labels.get(needed).is_some_and(|it| !it.is_empty()),
            "/labels",
            format!("{needed} must be set with DCOS_MIGRATION_API_VERSION"),
        );
    }
}
