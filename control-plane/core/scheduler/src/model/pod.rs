//! The definition of a pod: containers that share an executor, a network and a fate.

use base::Timestamp;

use super::container::{LinuxInfo, PersistentVolume};
use super::health::{Check, Command, HealthCheck};
use super::{
    Artifact, Backoff, Constraint, Environment, KillSelection, Labels, Network, NetworkMode, ResourceLimits, ResourceNeeds,
    UnreachableStrategy, UpgradeStrategy,
};
use crate::id::PathId;
use crate::model::app::VersionInfo;

/// A service of several containers per instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// Its path.
    pub id: PathId,
    /// For people and tools.
    pub labels: Labels,
    /// Who commands run as.
    pub user: Option<String>,
    /// Variables of all containers.
    pub environment: Environment,
    /// The containers.
    pub containers: Vec<PodContainer>,
    /// Secrets by key: where they come from.
    pub secrets: Labels,
    /// Volumes by name.
    pub volumes: Vec<PodVolume>,
    /// Networks that instances join.
    pub networks: Vec<Network>,
    /// How many there should be.
    pub instances: u32,
    /// Pause after failures.
    pub backoff: Backoff,
    /// How it is updated.
    pub upgrade_strategy: UpgradeStrategy,
    /// Where instances may be.
    pub constraints: Vec<Constraint>,
    /// Roles whose resources are taken; empty for the default.
    pub accepted_resource_roles: Vec<String>,
    /// Who goes first.
    pub kill_selection: KillSelection,
    /// When agents cannot be reached.
    pub unreachable: UnreachableStrategy,
    /// What the executor takes.
    pub executor_resources: ResourceNeeds,
    /// Settings of the kernel for all.
    pub linux_info: Option<LinuxInfo>,
    /// Whether all containers share the executor's cgroup.
    pub legacy_shared_cgroups: Option<bool>,
    /// Role in which offers are taken.
    pub role: String,
    /// When it was last changed.
    pub version: Timestamp,
    /// When what was changed.
    pub version_info: VersionInfo,
}

/// One container of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct PodContainer {
    /// Name, unique in the pod.
    pub name: String,
    /// What runs; the image's own when absent.
    pub exec: Option<Command>,
    /// Whether the command replaces the image's entry point.
    pub override_entrypoint: Option<bool>,
    /// What it takes.
    pub resources: ResourceNeeds,
    /// Limits besides.
    pub resource_limits: Option<ResourceLimits>,
    /// Ports.
    pub endpoints: Vec<Endpoint>,
    /// Image, when there is one.
    pub image: Option<PodImage>,
    /// Variables.
    pub environment: Environment,
    /// Who its command runs as.
    pub user: Option<String>,
    /// What tells whether it is healthy.
    pub health_check: Option<HealthCheck>,
    /// A check that is reported only.
    pub check: Option<Check>,
    /// Volumes: name, path, read-only.
    pub volume_mounts: Vec<VolumeMount>,
    /// Files to fetch.
    pub artifacts: Vec<Artifact>,
    /// For people and tools.
    pub labels: Labels,
    /// Seconds between the polite and the final signal.
    pub kill_grace_seconds: Option<f64>,
    /// Whether a terminal is made.
    pub tty: Option<bool>,
    /// Settings of the kernel.
    pub linux_info: Option<LinuxInfo>,
}

/// A port of a pod's container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Name, unique in the pod.
    pub name: String,
    /// In the container; 0: the same as the host port.
    pub container_port: Option<u16>,
    /// On the agent; 0: any.
    pub host_port: Option<u16>,
    /// `tcp`, `udp`.
    pub protocol: Vec<String>,
    /// For tools.
    pub labels: Labels,
    /// Networks that it is on; empty for all.
    pub network_names: Vec<String>,
}

/// An image of a pod's container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodImage {
    /// Name.
    pub id: String,
    /// `DOCKER` or `APPC`.
    pub kind: String,
    /// Whether it is pulled even if it is there.
    pub force_pull: Option<bool>,
    /// Key of the secret with the registry's credentials.
    pub pull_secret: Option<String>,
    /// Labels that select it.
    pub labels: Labels,
}

/// A volume of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct PodVolume {
    /// Name.
    pub name: String,
    /// What it is.
    pub kind: PodVolumeKind,
}

/// What a pod's volume is.
#[derive(Clone, Debug, PartialEq)]
pub enum PodVolumeKind {
    /// In the executor's sandbox.
    Ephemeral,
    /// A directory of the agent's.
    Host(String),
    /// A secret as a file.
    Secret(String),
    /// A persistent volume.
    Persistent(PersistentVolume),
}

/// A volume in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeMount {
    /// Name of the volume.
    pub name: String,
    /// Where.
    pub mount_path: String,
    /// Whether it may not be written.
    pub read_only: Option<bool>,
}

impl Pod {
    /// Whether both would run the same: everything but the number of instances, what only policy reads, and the versions.
    pub fn same_config(&self, other: &Pod) -> bool {
        let mut other = other.clone();
        other.instances = self.instances;
        other.version = self.version;
        other.version_info = self.version_info;
        other.executor_resources = self.executor_resources;
        other.kill_selection = self.kill_selection;
        other.unreachable = self.unreachable;
        *self == other
    }

    /// Whether instances are bound to a reservation.
    pub fn is_resident(&self) -> bool {
        self.persistent_volumes().next().is_some()
    }

    /// The volumes that outlive tasks, with their names.
    pub fn persistent_volumes(&self) -> impl Iterator<Item = (&str, &PersistentVolume)> {
        self.volumes.iter().filter_map(|volume| match &volume.kind {
            PodVolumeKind::Persistent(persistent) => Some((volume.name.as_str(), persistent)),
            _ => None,
        })
    }

    /// Whether instances share the agent's network.
    pub fn is_host_network(&self) -> bool {
        self.networks.iter().all(|network| network.mode == NetworkMode::Host)
    }

    /// What one instance takes of an offer.
    pub fn needs(&self) -> ResourceNeeds {
        self.containers.iter().fold(self.executor_resources, |sum, container| sum.plus(container.resources))
    }
}
