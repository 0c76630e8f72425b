//! The definition of an app.

use base::Timestamp;

use super::container::{Container, Volume, VolumeKind};
use super::health::{Check, HealthCheck, ReadinessCheck};
use super::{
    Artifact, Backoff, Constraint, Environment, KillSelection, Labels, Network, NetworkMode, ResourceLimits, ResourceNeeds,
    UnreachableStrategy, UpgradeStrategy,
};
use crate::id::PathId;

/// A service of one kind of task.
#[derive(Clone, Debug, PartialEq)]
pub struct App {
    /// Its path.
    pub id: PathId,
    /// Shell command.
    pub cmd: Option<String>,
    /// Arguments without a shell.
    pub args: Vec<String>,
    /// Who the command runs as.
    pub user: Option<String>,
    /// Variables.
    pub env: Environment,
    /// How many there should be.
    pub instances: u32,
    /// What each takes.
    pub resources: ResourceNeeds,
    /// Limits besides.
    pub resource_limits: Option<ResourceLimits>,
    /// `//cmd`, empty, or the path of an executor.
    pub executor: String,
    /// What such an executor takes.
    pub executor_resources: Option<ResourceNeeds>,
    /// Where instances may be.
    pub constraints: Vec<Constraint>,
    /// Files to fetch.
    pub fetch: Vec<Artifact>,
    /// Ports on the host network.
    pub port_definitions: Vec<PortDefinition>,
    /// Whether the ports must be the declared ones.
    pub require_ports: bool,
    /// Pause after failures.
    pub backoff: Backoff,
    /// The container, when there is one.
    pub container: Option<Container>,
    /// What tells whether an instance is healthy.
    pub health_checks: Vec<HealthCheck>,
    /// A check that is reported only.
    pub check: Option<Check>,
    /// What tells whether an instance is ready; at most one.
    pub readiness_checks: Vec<ReadinessCheck>,
    /// Seconds between the polite and the final signal.
    pub kill_grace_seconds: Option<f64>,
    /// Apps or groups that are deployed before.
    pub dependencies: Vec<PathId>,
    /// How it is updated.
    pub upgrade_strategy: UpgradeStrategy,
    /// For people and tools.
    pub labels: Labels,
    /// Roles whose resources are taken; empty for the default.
    pub accepted_resource_roles: Vec<String>,
    /// Networks that instances join.
    pub networks: Vec<Network>,
    /// Secrets by key: where they come from.
    pub secrets: Labels,
    /// Who goes first.
    pub kill_selection: KillSelection,
    /// When agents cannot be reached.
    pub unreachable: UnreachableStrategy,
    /// Whether a terminal is made.
    pub tty: Option<bool>,
    /// Role in which offers are taken.
    pub role: String,
    /// When it was last changed.
    pub version: Timestamp,
    /// When what was changed.
    pub version_info: VersionInfo,
}

/// When an app was last changed in what way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VersionInfo {
    /// The number of instances.
    pub last_scaling_at: Timestamp,
    /// Anything else: instances launched before are outdated.
    pub last_config_change_at: Timestamp,
}

/// A port on the host network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortDefinition {
    /// Service port; also the host port when ports are required. 0: assigned.
    pub port: u16,
    /// `tcp`, `udp` or `udp,tcp`.
    pub protocol: String,
    /// Name.
    pub name: Option<String>,
    /// For tools.
    pub labels: Labels,
}

/// The label that forbids a second instance, even for the time of an update.
pub const SINGLE_INSTANCE_LABEL: &str = "MARATHON_SINGLE_INSTANCE_APP";

impl App {
    /// An app with Marathon's defaults and nothing to run.
    pub fn new(id: PathId) -> App {
        App {
            id,
            cmd: None,
            args: Vec::new(),
            user: None,
            env: Environment::new(),
            instances: 1,
            resources: ResourceNeeds { cpus: 1.0, mem: 128.0, disk: 0.0, gpus: 0 },
            resource_limits: None,
            executor: String::new(),
            executor_resources: None,
            constraints: Vec::new(),
            fetch: Vec::new(),
            port_definitions: Vec::new(),
            require_ports: false,
            backoff: Backoff::default(),
            container: None,
            health_checks: Vec::new(),
            check: None,
            readiness_checks: Vec::new(),
            kill_grace_seconds: None,
            dependencies: Vec::new(),
            upgrade_strategy: UpgradeStrategy::default(),
            labels: Labels::new(),
            accepted_resource_roles: Vec::new(),
            networks: vec![Network::host()],
            secrets: Labels::new(),
            kill_selection: KillSelection::default(),
            unreachable: UnreachableStrategy::IMMEDIATE,
            tty: None,
            role: "*".to_owned(),
            version: Timestamp::EPOCH,
            version_info: VersionInfo::default(),
        }
    }

    /// Whether instances share the agent's network.
    pub fn is_host_network(&self) -> bool {
        self.networks.iter().all(|network| network.mode == NetworkMode::Host)
    }

    /// All volumes.
    pub fn volumes(&self) -> &[Volume] {
        self.container.as_ref().map_or(&[], |container| &container.volumes)
    }

    /// The volumes that outlive tasks.
    pub fn persistent_volumes(&self) -> impl Iterator<Item = &Volume> {
        self.volumes().iter().filter(|volume| matches!(volume.kind, VolumeKind::Persistent(_)))
    }

    /// Whether instances are bound to a reservation.
    pub fn is_resident(&self) -> bool {
        self.persistent_volumes().next().is_some()
    }

    /// Whether a second instance is never wanted.
    pub fn is_single_instance(&self) -> bool {
        self.labels.get(SINGLE_INSTANCE_LABEL).is_some_and(|value| value == "true")
    }

    /// The ports that other programs reach the app at, in order.
    pub fn service_ports(&self) -> Vec<u16> {
        if self.is_host_network() {
            self.port_definitions.iter().map(|port| port.port).collect()
        } else {
            self.container.iter().flat_map(|container| &container.port_mappings).map(|mapping| mapping.service_port).collect()
        }
    }

    /// Places of the service ports, to assign them.
    pub(crate) fn service_ports_mut(&mut self) -> Vec<&mut u16> {
        if self.is_host_network() {
            self.port_definitions.iter_mut().map(|port| &mut port.port).collect()
        } else {
            self.container.iter_mut().flat_map(|container| &mut container.port_mappings).map(|mapping| &mut mapping.service_port).collect()
        }
    }

    /// Whether both would run the same: everything but the number of instances and the versions.
    pub fn same_config(&self, other: &App) -> bool {
        let mut other = other.clone();
        other.instances = self.instances;
        other.version = self.version;
        other.version_info = self.version_info;
        *self == other
    }

    /// What one instance takes of an offer, its own executor included.
    pub fn needs(&self) -> ResourceNeeds {
        let own_executor = !self.executor.is_empty() && self.executor != "//cmd";
        match self.executor_resources {
            Some(executor) => self.resources.plus(executor),
            None if own_executor => self.resources.plus(ResourceNeeds::EXECUTOR),
            None => self.resources,
        }
    }
}
