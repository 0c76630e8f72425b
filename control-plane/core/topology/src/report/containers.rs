//! What a probe says of containers and images.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use base::Timestamp;

use super::Host;

/// State of a container, in Docker's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContainerState {
    /// Made, never started.
    Created,
    /// Running.
    #[default]
    Running,
    /// Frozen.
    Paused,
    /// Between two runs.
    Restarting,
    /// Ended.
    Exited,
    /// Could not be removed.
    Dead,
}

impl ContainerState {
    /// Docker's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            ContainerState::Created => "created",
            ContainerState::Running => "running",
            ContainerState::Paused => "paused",
            ContainerState::Restarting => "restarting",
            ContainerState::Exited => "exited",
            ContainerState::Dead => "dead",
        }
    }
}

/// One container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Container {
    /// Full id.
    pub id: Arc<str>,
    /// Name without a leading slash.
    pub name: Arc<str>,
    /// Image id without `sha256:`.
    pub image_id: Arc<str>,
    /// Image reference with registry and tag.
    pub image_name: Arc<str>,
    /// Command line.
    pub command: Arc<str>,
    /// State.
    pub state: ContainerState,
    /// State for people.
    pub state_human: Arc<str>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last started.
    pub started_at: Option<Timestamp>,
    /// Restarts by the runtime.
    pub restart_count: u32,
    /// Host name inside, with domain.
    pub hostname: Arc<str>,
    /// Labels.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// Environment, already masked.
    pub environment: BTreeMap<Arc<str>, Arc<str>>,
    /// Names of its networks.
    pub networks: Vec<Arc<str>>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Published and exposed ports.
    pub ports: Vec<PortMapping>,
    /// Init-namespace pid of its first process; 0 when it does not run.
    pub pid: u32,
    /// `bridge`, `host`, `none`, `container:<id>` or a network's name.
    pub network_mode: Arc<str>,
    /// `docker`, `containerd`, `cri-o`, or another's word when only the name of its cgroup tells.
    pub runtime: Arc<str>,
    /// `healthy`, `unhealthy`, `starting`, or empty without a health check.
    pub health: Arc<str>,
    /// Of the last run; meaningful when it ended.
    pub exit_code: i32,
    /// The kernel ended a process of its last run because memory ran out.
    pub oom_killed: bool,
}

/// Addresses of a host that a port is listed with at most.
const PUBLISHED_AT_MAX: usize = 16;

impl Container {
    /// Its ports as Scope words them, e.g. `10.0.0.1:8080->80/tcp`. One that is published on every address of the host is listed with each IPv4
    /// address under which others reach it: not loopback, nor the host's end of a network of the container's own.
    pub fn port_texts(&self, host: &Host) -> Vec<String> {
        let mut texts = Vec::new();
        for port in &self.ports {
            let inside = format!("{}/{}", port.container_port, port.protocol);
            let Some((published, outside)) = port.host else {
                texts.push(inside);
                continue;
            };
            let before = texts.len();
            if published == IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
                let at =
                    host.addresses.iter().filter(|address| address.is_ipv4() && !address.is_loopback() && !self.shares(host, **address));
                texts.extend(at.take(PUBLISHED_AT_MAX).map(|address| format!("{address}:{outside}->{inside}")));
            }
            if texts.len() == before {
                texts.push(format!("{published}:{outside}->{inside}"));
            }
        }
        texts
    }

    /// Whether an address of its host is in a network that the container is in.
    fn shares(&self, host: &Host, address: IpAddr) -> bool {
        let mut networks = host.local_networks.iter().filter(|network| network.contains(address));
        networks.any(|network| self.addresses.iter().any(|own| network.contains(*own)))
    }
}

/// One port of a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortMapping {
    /// Inside.
    pub container_port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: Arc<str>,
    /// Outside; `None` when only exposed.
    pub host: Option<(IpAddr, u16)>,
}

/// One image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Image {
    /// Without `sha256:`.
    pub id: Arc<str>,
    /// Reference with tag, or empty.
    pub name: Arc<str>,
    /// Bytes on disk.
    pub size_bytes: u64,
    /// Bytes with shared layers.
    pub virtual_size_bytes: u64,
    /// Labels.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
}
