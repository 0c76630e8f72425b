use std::collections::BTreeSet;

use super::{Problems, constraints, limits, linux_info, networks, persistent, secrets, unreachable, upgrade_strategy};
use crate::model::health::PortRef;
use crate::model::pod::{Pod, PodContainer, PodVolumeKind};
use crate::model::{NetworkMode, UnreachableStrategy};
use crate::scheduler::words::Config;

/// Longest name of anything in a pod.
const NAME_MAX: usize = 63;
/// Longest name of a variable.
const VARIABLE_MAX: usize = 254;

pub(super) fn check(pod: &Pod, config: &Config, all: &mut Problems) {
    networks(&pod.networks, "/networks", all);
    constraints(&pod.constraints, "/scheduling/placement/constraints", all);
    upgrade_strategy(pod.upgrade_strategy, all, "/scheduling/upgrade");
    unreachable(pod.unreachable, all, "/scheduling/unreachableStrategy");
    secrets(&pod.environment, &pod.secrets, config, "/environment", all);
    all.need(!pod.containers.is_empty(), "/containers", "must not be empty");
    if let Some(info) = &pod.linux_info {
        all.need(info.seccomp.is_none(), "/linuxInfo/seccomp", "Seccomp configuration on executor level is not supported");
    }
    linux_info(pod.linux_info.as_ref(), "/linuxInfo", all);
    if pod.is_resident() {
        all.need(pod.role != "*", "/role", "Resident pods cannot have the role *");
        all.need(
            pod.unreachable == UnreachableStrategy::Disabled,
            "/scheduling/unreachableStrategy",
            "unreachableStrategy must be disabled for pods with persistent volumes",
        );
    }
    unique(pod, all);
    volumes(pod, config, all);
    for (at, container) in pod.containers.iter().enumerate() {
        self::container(pod, container, &format!("/containers({at})"), config, all);
    }
}

fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    (1..=NAME_MAX).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
}

fn is_variable(name: &str) -> bool {
    let bytes = name.as_bytes();
    (1..=VARIABLE_MAX).contains(&bytes.len())
        && !bytes[0].is_ascii_digit()
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

fn unique(pod: &Pod, all: &mut Problems) {
    let mut names = BTreeSet::new();
    all.need(pod.containers.iter().all(|it| names.insert(&it.name)), "/containers", "container names must be unique");
    let endpoints = || pod.containers.iter().flat_map(|container| &container.endpoints);
    let mut names = BTreeSet::new();
    // The spelling is what clients have seen for years.
    all.need(endpoints().all(|it| names.insert(&it.name)), "/containers", "endpoint names nust be unique across all containers");
    let mut ports = BTreeSet::new();
    let hosts = endpoints().filter_map(|it| it.host_port).filter(|port| *port > 0).all(|port| ports.insert(port));
    all.need(hosts, "/containers", "host ports must be unique across all containers");
    if !pod.is_host_network() {
        let mut ports = BTreeSet::new();
        let containers = endpoints().filter_map(|it| it.container_port).filter(|port| *port > 0).all(|port| ports.insert(port));
        all.need(containers, "/containers", "container ports must be unique across all containers");
    }
    let mut names = BTreeSet::new();
    all.need(pod.volumes.iter().all(|it| names.insert(&it.name)), "/volumes", "volume names must be unique");
}

fn volumes(pod: &Pod, config: &Config, all: &mut Problems) {
    for (at, volume) in pod.volumes.iter().enumerate() {
        let path = format!("/volumes({at})");
        let mounted = pod.containers.iter().any(|it| it.volume_mounts.iter().any(|mount| mount.name == volume.name));
        all.need(mounted, path.clone(), "volume must be referenced by at least one container");
        all.need(is_name(&volume.name), format!("{path}/name"), "error.pattern");
        match &volume.kind {
            PodVolumeKind::Persistent(definition) => persistent(definition, &path, all),
            PodVolumeKind::Secret(secret) => {
                all.feature(config, "secrets", &path);
                all.need(pod.secrets.contains_key(secret), format!("{path}/secret"), "volume.secret must refer to an existing secret");
            }
            PodVolumeKind::Host(_) | PodVolumeKind::Ephemeral => {}
        }
    }
}

fn container(pod: &Pod, container: &PodContainer, path: &str, config: &Config, all: &mut Problems) {
    all.need(is_name(&container.name), format!("{path}/name"), "error.pattern");
    for name in container.environment.keys() {
        all.need(is_variable(name), format!("{path}/environment({name})"), "error.pattern");
    }
    secrets(&container.environment, &pod.secrets, config, &format!("{path}/environment"), all);
    if container.resource_limits.is_some() {
        all.need(
            pod.legacy_shared_cgroups != Some(true),
            format!("{path}/resourceLimits"),
            "resourceLimits cannot be defined if legacySharedCgroups is enabled",
        );
    }
    limits(container.resource_limits, container.resources, &format!("{path}/resourceLimits"), all);
    linux_info(container.linux_info.as_ref(), &format!("{path}/linuxInfo"), all);
    if container.resources.gpus > 0 {
        all.feature(config, "gpu_resources", path);
    }
    for (at, endpoint) in container.endpoints.iter().enumerate() {
        all.need(is_name(&endpoint.name), format!("{path}/endpoints({at})/name"), "error.pattern");
        if pod.networks.iter().any(|it| it.mode == NetworkMode::Container) {
            all.need(
                endpoint.container_port.is_some(),
                format!("{path}/endpoints({at})/containerPort"),
                "is required when using container-mode networking",
            );
        }
    }
    for (at, mount) in container.volume_mounts.iter().enumerate() {
        let known = pod.volumes.iter().any(|volume| volume.name == mount.name);
        all.need(known, format!("{path}/volumeMounts({at})"), "Referenced Volume in VolumeMount should exist");
    }
    if let Some(image) = &container.image {
        all.need(!image.id.is_empty(), format!("{path}/image/id"), "must not be empty");
        if let Some(secret) = &image.pull_secret {
            all.need(
                pod.secrets.contains_key(secret),
                format!("{path}/image/pullConfig/secret"),
                "pullConfig.secret must refer to an existing secret",
            );
        }
    }
    if let Some(PortRef::Name(name)) = container.health_check.as_ref().and_then(|check| check.port()) {
        all.need(
            container.endpoints.iter().any(|endpoint| endpoint.name == *name),
            format!("{path}/healthCheck"),
            format!("references undeclared endpoint {name}"),
        );
    }
}
