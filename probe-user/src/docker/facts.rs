//! Docker's words into the probe's.

use std::collections::{BTreeSet, HashMap};

use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary, ContainerSummaryStateEnum, EndpointSettings, HealthStatusEnum,
    ImageInspect, PortMap,
};
use proto::probe::v1::{Container, ContainerState, Image, PortMapping};

use crate::containers::{ContainerFacts, Source, words};
use crate::mask::Masks;

/// Name of this runtime in records.
pub(super) const RUNTIME: &str = "docker";

/// Most networks, addresses and ports of one container.
const ENDPOINTS_MAX: usize = 256;

/// A container as it was inspected; `None` without an id.
pub fn container(inspected: ContainerInspectResponse, with_environment: bool, masks: &Masks) -> Option<ContainerFacts> {
    let state = inspected.state.unwrap_or_default();
    let config = inspected.config.unwrap_or_default();
    let networks = inspected.network_settings.unwrap_or_default();
    let host_config = inspected.host_config.unwrap_or_default();
    let (names, addresses) = endpoints(networks.networks.unwrap_or_default());
    let command: Vec<String> = inspected.path.into_iter().chain(inspected.args.unwrap_or_default()).collect();
    let variables = config.env.unwrap_or_default();
    let domain = config.domainname.filter(|it| !it.is_empty()).map(|it| format!(".{it}")).unwrap_or_default();
    let record = Container {
        id: words::id(&inspected.id?)?,
        name: words::name(inspected.name.unwrap_or_default().trim_start_matches('/')),
        image_id: words::name(words::without_algorithm(&inspected.image.unwrap_or_default())),
        image_name: words::name(&config.image.unwrap_or_default()),
        command: words::command(masks, command.iter().map(String::as_str)),
        state: state_of(state.status).into(),
        created_at_unix_nanos: inspected.created.map(|it| nanos(&it.to_string())).unwrap_or_default(),
        started_at_unix_nanos: nanos(&state.started_at.unwrap_or_default()),
        restart_count: inspected.restart_count.and_then(|it| u32::try_from(it).ok()).unwrap_or(0),
        hostname: config.hostname.map(|name| words::name(&(name + &domain))).unwrap_or_default(),
        labels: words::labels(masks, config.labels.unwrap_or_default()),
        environment: if with_environment { words::environment(masks, variables.iter().map(String::as_str)) } else { HashMap::new() },
        networks: names,
        addresses,
        ports: ports(networks.ports.unwrap_or_default(), &config.exposed_ports.unwrap_or_default()),
        pid: state.pid.and_then(|it| u32::try_from(it).ok()).unwrap_or(0),
        network_mode: words::name(&host_config.network_mode.unwrap_or_default()),
        runtime: RUNTIME.to_owned(),
        health: health(state.health.and_then(|it| it.status)),
        exit_code: state.exit_code.map_or(0, exit_code),
        oom_killed: state.oom_killed.unwrap_or(false),
        ..Container::default()
    };
    Some(ContainerFacts { source: Source::Docker, record, finished_at_unix_nanos: nanos(&state.finished_at.unwrap_or_default()) })
}

/// What the list of containers says of one that cannot be inspected; `None` without an id. When it started and ended it does not say.
pub fn listed(summary: ContainerSummary, masks: &Masks) -> Option<ContainerFacts> {
    let (networks, addresses) = endpoints(summary.network_settings.and_then(|it| it.networks).unwrap_or_default());
    let mappings = summary.ports.unwrap_or_default().into_iter().map(|port| PortMapping {
        container_port: port.private_port.into(),
        protocol: port.typ.map(|it| it.to_string()).filter(|it| !it.is_empty()).unwrap_or_else(|| "tcp".to_owned()),
        host_address: port.ip.filter(|it| port.public_port.is_some() && it.parse::<std::net::IpAddr>().is_ok()).unwrap_or_default(),
        host_port: port.public_port.unwrap_or(0).into(),
    });
    let names = summary.names.unwrap_or_default();
    // Others are the names by which containers that are linked to it know it.
    let name = names.iter().map(|it| it.trim_start_matches('/')).find(|it| !it.contains('/')).unwrap_or_default();
    let created_seconds = summary.created.and_then(|it| u64::try_from(it).ok()).unwrap_or(0);
    let record = Container {
        id: words::id(&summary.id?)?,
        name: words::name(name),
        image_id: words::name(words::without_algorithm(&summary.image_id.unwrap_or_default())),
        image_name: words::name(&summary.image.unwrap_or_default()),
        command: words::command(masks, summary.command.unwrap_or_default().split_whitespace()),
        state: state_in_list(summary.state).into(),
        created_at_unix_nanos: created_seconds.saturating_mul(1_000_000_000),
        labels: words::labels(masks, summary.labels.unwrap_or_default()),
        networks,
        addresses,
        ports: mappings.take(ENDPOINTS_MAX).collect(),
        network_mode: words::name(&summary.host_config.and_then(|it| it.network_mode).unwrap_or_default()),
        runtime: RUNTIME.to_owned(),
        exit_code: summary.status.and_then(|status| exit_code_in_list(&status)).unwrap_or(0),
        ..Container::default()
    };
    Some(ContainerFacts { source: Source::Docker, record, finished_at_unix_nanos: 0 })
}

/// Names of the networks and addresses in them, each in order.
fn endpoints(networks: HashMap<String, EndpointSettings>) -> (Vec<String>, Vec<String>) {
    let mut addresses = BTreeSet::new();
    let mut names = Vec::new();
    for (name, endpoint) in networks {
        names.push(words::name(&name));
        let given = [endpoint.ip_address, endpoint.global_ipv6_address];
        addresses.extend(given.into_iter().flatten().filter(|it| it.parse::<std::net::IpAddr>().is_ok()));
    }
    names.sort_unstable();
    names.truncate(ENDPOINTS_MAX);
    (names, addresses.into_iter().take(ENDPOINTS_MAX).collect())
}

/// Of `Exited (137) 2 minutes ago`.
fn exit_code_in_list(status: &str) -> Option<i32> {
    let (code, _) = status.strip_prefix("Exited (").or_else(|| status.strip_prefix("Restarting ("))?.split_once(')')?;
    code.parse().ok()
}

fn state_in_list(state: Option<ContainerSummaryStateEnum>) -> ContainerState {
    match state {
        Some(ContainerSummaryStateEnum::CREATED | ContainerSummaryStateEnum::EMPTY) | None => ContainerState::Created,
        Some(ContainerSummaryStateEnum::RUNNING | ContainerSummaryStateEnum::STOPPING) => ContainerState::Running,
        Some(ContainerSummaryStateEnum::PAUSED) => ContainerState::Paused,
        Some(ContainerSummaryStateEnum::RESTARTING) => ContainerState::Restarting,
        Some(ContainerSummaryStateEnum::EXITED | ContainerSummaryStateEnum::REMOVING) => ContainerState::Exited,
        Some(ContainerSummaryStateEnum::DEAD) => ContainerState::Dead,
    }
}

/// An image as it was inspected.
pub fn image(id: String, inspected: ImageInspect, masks: &Masks) -> Image {
    let size_bytes = inspected.size.and_then(|it| u64::try_from(it).ok()).unwrap_or(0);
    Image {
        id,
        name: inspected.repo_tags.unwrap_or_default().first().map(|it| words::name(it)).unwrap_or_default(),
        size_bytes,
        // Docker gave up the difference: since API 1.44 the size is that of all layers.
        virtual_size_bytes: size_bytes,
        labels: words::labels(masks, inspected.config.and_then(|it| it.labels).unwrap_or_default()),
    }
}

fn state_of(status: Option<ContainerStateStatusEnum>) -> ContainerState {
    match status {
        // A daemon that says nothing of the state has just made it.
        Some(ContainerStateStatusEnum::CREATED | ContainerStateStatusEnum::EMPTY) | None => ContainerState::Created,
        Some(ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::STOPPING) => ContainerState::Running,
        Some(ContainerStateStatusEnum::PAUSED) => ContainerState::Paused,
        Some(ContainerStateStatusEnum::RESTARTING) => ContainerState::Restarting,
        Some(ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::REMOVING) => ContainerState::Exited,
        Some(ContainerStateStatusEnum::DEAD) => ContainerState::Dead,
    }
}

/// Docker's word for a container without a health check is none here.
fn health(status: Option<HealthStatusEnum>) -> String {
    match status {
        Some(HealthStatusEnum::STARTING) => "starting",
        Some(HealthStatusEnum::HEALTHY) => "healthy",
        Some(HealthStatusEnum::UNHEALTHY) => "unhealthy",
        Some(HealthStatusEnum::NONE | HealthStatusEnum::EMPTY) | None => "",
    }
    .to_owned()
}

/// Windows has codes of 32 bits without a sign.
#[expect(clippy::cast_possible_truncation, reason = "the low 32 bits are the code")]
pub(super) fn exit_code(code: i64) -> i32 {
    code as i32
}

/// Published and exposed ports, in order.
fn ports(published: PortMap, exposed: &[String]) -> Vec<PortMapping> {
    let mut mappings = BTreeSet::new();
    let mut add = |port: &str, host: Option<(String, u32)>| {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        let Some(number) = number.parse::<u16>().ok().filter(|&it| it != 0 && mappings.len() < ENDPOINTS_MAX) else { return };
        mappings.insert((u32::from(number), words::name(protocol), host.unwrap_or_default()));
    };
    let mut told: BTreeSet<String> = BTreeSet::new();
    for (port, bindings) in published {
        let bindings = bindings.unwrap_or_default();
        if bindings.is_empty() {
            add(&port, None);
        }
        for binding in bindings {
            let Some(host_port) = binding.host_port.and_then(|it| it.parse::<u16>().ok()).filter(|&it| it != 0) else { continue };
            let address = binding.host_ip.filter(|it| it.parse::<std::net::IpAddr>().is_ok());
            add(&port, Some((address.unwrap_or_else(|| "0.0.0.0".to_owned()), host_port.into())));
        }
        told.insert(port);
    }
    exposed.iter().filter(|port| !told.contains(*port)).for_each(|port| add(port, None));
    let mapping = |(container_port, protocol, (host_address, host_port))| PortMapping { container_port, protocol, host_address, host_port };
    mappings.into_iter().map(mapping).collect()
}

/// Unix nanoseconds of a time in RFC 3339; 0 for Docker's "never", which is in the year 1.
fn nanos(time: &str) -> u64 {
    time.parse::<jiff::Timestamp>().ok().and_then(|it| u64::try_from(it.as_nanosecond()).ok()).unwrap_or(0)
}
