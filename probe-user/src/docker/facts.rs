//! Docker's words into the probe's.

use std::collections::{BTreeSet, HashMap};

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum, ImageInspect, PortMap};
use proto::probe::v1::{Container, ContainerState, Image, PortMapping};

use crate::containers::ContainerFacts;
use crate::procfs::parse::printable;

/// Name of this runtime in records.
pub(super) const RUNTIME: &str = "docker";

/// Longest value of a label or of a variable.
const VALUE_MAX: usize = 1_024;

/// Most labels and variables of one container.
const VALUES_MAX: usize = 256;

/// Parts of a variable's name that make its value a secret.
const SECRET_WORDS: [&str; 9] = ["PASS", "SECRET", "TOKEN", "KEY", "CREDENTIAL", "AUTH", "PRIVATE", "DSN", "CERT"];

/// A container as it was inspected; `None` without an id.
pub fn container(inspected: ContainerInspectResponse, with_environment: bool) -> Option<ContainerFacts> {
    let state = inspected.state.unwrap_or_default();
    let config = inspected.config.unwrap_or_default();
    let networks = inspected.network_settings.unwrap_or_default();
    let host_config = inspected.host_config.unwrap_or_default();
    let mut addresses = BTreeSet::new();
    let mut names = Vec::new();
    for (name, endpoint) in networks.networks.unwrap_or_default() {
        names.push(printable(name.as_bytes()));
        let given = [endpoint.ip_address, endpoint.global_ipv6_address];
        addresses.extend(given.into_iter().flatten().filter(|it| it.parse::<std::net::IpAddr>().is_ok()));
    }
    names.sort_unstable();
    let command: Vec<String> = inspected.path.into_iter().chain(inspected.args.unwrap_or_default()).collect();
    let domain = config.domainname.filter(|it| !it.is_empty()).map(|it| format!(".{it}")).unwrap_or_default();
    let record = Container {
        id: inspected.id.filter(|it| !it.is_empty())?,
        name: inspected.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        image_id: without_algorithm(&inspected.image.unwrap_or_default()),
        image_name: config.image.unwrap_or_default(),
        command: limited(&command.join(" ")),
        state: state_of(state.status).into(),
        created_at_unix_nanos: inspected.created.map(|it| nanos(&it.to_string())).unwrap_or_default(),
        started_at_unix_nanos: nanos(&state.started_at.unwrap_or_default()),
        restart_count: inspected.restart_count.and_then(|it| u32::try_from(it).ok()).unwrap_or(0),
        hostname: config.hostname.map(|name| name + &domain).unwrap_or_default(),
        labels: labels(config.labels.unwrap_or_default()),
        environment: if with_environment { environment(&config.env.unwrap_or_default()) } else { HashMap::new() },
        networks: names,
        addresses: addresses.into_iter().collect(),
        ports: ports(networks.ports.unwrap_or_default(), &config.exposed_ports.unwrap_or_default()),
        pid: state.pid.and_then(|it| u32::try_from(it).ok()).unwrap_or(0),
        network_mode: host_config.network_mode.unwrap_or_default(),
        runtime: RUNTIME.to_owned(),
        ..Container::default()
    };
    Some(ContainerFacts {
        record,
        finished_at_unix_nanos: nanos(&state.finished_at.unwrap_or_default()),
        exit_code: state.exit_code.unwrap_or(0),
    })
}

/// An image as it was inspected.
pub fn image(id: String, inspected: ImageInspect) -> Image {
    let size_bytes = inspected.size.and_then(|it| u64::try_from(it).ok()).unwrap_or(0);
    Image {
        id,
        name: inspected.repo_tags.unwrap_or_default().into_iter().next().unwrap_or_default(),
        size_bytes,
        // Docker gave up the difference: since API 1.44 the size is that of all layers.
        virtual_size_bytes: size_bytes,
        labels: labels(inspected.config.and_then(|it| it.labels).unwrap_or_default()),
    }
}

fn state_of(status: Option<ContainerStateStatusEnum>) -> ContainerState {
    match status {
        Some(ContainerStateStatusEnum::CREATED) => ContainerState::Created,
        Some(ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::STOPPING) => ContainerState::Running,
        Some(ContainerStateStatusEnum::PAUSED) => ContainerState::Paused,
        Some(ContainerStateStatusEnum::RESTARTING) => ContainerState::Restarting,
        Some(ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::REMOVING) => ContainerState::Exited,
        Some(ContainerStateStatusEnum::DEAD) => ContainerState::Dead,
        Some(ContainerStateStatusEnum::EMPTY) | None => ContainerState::Unspecified,
    }
}

/// Published and exposed ports, in order.
fn ports(published: PortMap, exposed: &[String]) -> Vec<PortMapping> {
    let mut mappings = BTreeSet::new();
    let mut add = |port: &str, host: Option<(String, u32)>| {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        let Ok(number) = number.parse::<u16>() else { return };
        mappings.insert((u32::from(number), protocol.to_owned(), host.unwrap_or_default()));
    };
    let mut told: BTreeSet<String> = BTreeSet::new();
    for (port, bindings) in published {
        let bindings = bindings.unwrap_or_default();
        if bindings.is_empty() {
            add(&port, None);
        }
        for binding in bindings {
            let Some(host_port) = binding.host_port.and_then(|it| it.parse::<u16>().ok()) else { continue };
            add(&port, Some((binding.host_ip.filter(|it| !it.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned()), host_port.into())));
        }
        told.insert(port);
    }
    exposed.iter().filter(|port| !told.contains(*port)).for_each(|port| add(port, None));
    let mapping = |(container_port, protocol, (host_address, host_port))| PortMapping { container_port, protocol, host_address, host_port };
    mappings.into_iter().map(mapping).collect()
}

fn labels(labels: HashMap<String, String>) -> HashMap<String, String> {
    let mut labels: Vec<(String, String)> = labels.into_iter().map(|(name, value)| (limited(&name), limited(&value))).collect();
    labels.sort_unstable();
    labels.into_iter().take(VALUES_MAX).collect()
}

fn environment(variables: &[String]) -> HashMap<String, String> {
    let split = |variable: &String| {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        (limited(name), masked(name, value))
    };
    variables.iter().take(VALUES_MAX).map(split).collect()
}

/// A value that may be told. Names that sound like secrets hide theirs, and so does a password in an address.
fn masked(name: &str, value: &str) -> String {
    const MASK: &str = "***";
    let name = name.to_ascii_uppercase();
    if SECRET_WORDS.iter().any(|word| name.contains(word)) {
        return MASK.to_owned();
    }
    match value.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.split_once('@')?))) {
        Some((scheme, (user, rest))) if user.contains(':') && !user.contains('/') => limited(&format!("{scheme}://{MASK}@{rest}")),
        _ => limited(value),
    }
}

fn limited(text: &str) -> String {
    let end = (0..=text.len().min(VALUE_MAX)).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    printable(&text.as_bytes()[..end])
}

fn without_algorithm(id: &str) -> String {
    id.split_once(':').map_or(id, |(_, id)| id).to_owned()
}

/// Unix nanoseconds of a time in RFC 3339; 0 for Docker's "never", which is in the year 1.
fn nanos(time: &str) -> u64 {
    time.parse::<jiff::Timestamp>().ok().and_then(|it| u64::try_from(it.as_nanosecond()).ok()).unwrap_or(0)
}
