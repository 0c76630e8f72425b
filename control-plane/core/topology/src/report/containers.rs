//! What a probe says of containers and images.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use base::Timestamp;

use super::{Host, Network};
use crate::networks::canonical;

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

    /// Whether it has an uptime: it was started, and has not ended since.
    pub fn runs(self) -> bool {
        matches!(self, ContainerState::Running | ContainerState::Paused | ContainerState::Restarting)
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

/// The network of Docker's default bridge, unless its daemon is told another.
const DEFAULT_BRIDGE: Network = Network { address: IpAddr::V4(Ipv4Addr::new(172, 17, 0, 0)), prefix_length: 16 };
/// Addresses of a host that a port is listed with at most.
const PUBLISHED_AT_MAX: usize = 16;
/// Addresses of a host that a container in its network is listed with at most.
const ADDRESSES_MAX: usize = 64;

impl Container {
    /// Whether it shares the network of its host.
    pub fn is_in_host_network(&self) -> bool {
        &*self.network_mode == "host"
    }

    /// Its addresses: in the network of its host, those of the host. Only IPv4, loopback included, as Scope lists these; a container of its
    /// own network has what its runtime tells.
    pub fn addresses_on(&self, host: Option<&Host>) -> Vec<IpAddr> {
        match host.filter(|_| self.is_in_host_network()) {
            Some(host) => host.addresses.iter().copied().filter(IpAddr::is_ipv4).take(ADDRESSES_MAX).collect(),
            None => self.addresses.clone(),
        }
    }

    /// Its ports as Scope words them, e.g. `10.0.0.1:8080->80/tcp`. One that is published on every address of the host is listed with each
    /// IPv4 address of the host but for loopback and Docker's default bridge.
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
                let is_listed = |address: &IpAddr| address.is_ipv4() && !address.is_loopback() && !self.is_default_bridge(host, *address);
                let at = host.addresses.iter().filter(|address| is_listed(address));
                texts.extend(at.take(PUBLISHED_AT_MAX).map(|address| format!("{address}:{outside}->{inside}")));
            }
            if texts.len() == before {
                texts.push(format!("{published}:{outside}->{inside}"));
            }
        }
        texts
    }

    /// Whether an address of its host is the host's end of Docker's default bridge. Scope goes by the names of interfaces (`lo`,
    /// `docker…`, `veth…`), which no probe of ours reports; bridges of other networks have other names, and are listed. So this goes by the
    /// network: the one that Docker takes by default, and the one that a container of the default bridge is in.
    fn is_default_bridge(&self, host: &Host, address: IpAddr) -> bool {
        let is_in_it = matches!(&self.networks[..], [only] if &**only == "bridge");
        let mut networks = host.local_networks.iter().filter(|network| network.contains(address));
        networks
            .any(|network| canonical(*network) == DEFAULT_BRIDGE || (is_in_it && self.addresses.iter().any(|own| network.contains(*own))))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        let network = |address: [u8; 4], prefix_length| Network { address: IpAddr::from(address), prefix_length };
        Host {
            addresses: vec![
                IpAddr::from([10, 0, 0, 1]),
                IpAddr::from([127, 0, 0, 1]),
                IpAddr::from([172, 17, 0, 1]),
                IpAddr::from([172, 20, 0, 1]),
                IpAddr::from([192, 168, 99, 1]),
                IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
            ],
            local_networks: vec![
                network([10, 0, 0, 0], 24),
                network([172, 17, 0, 0], 16),
                network([172, 20, 0, 0], 16),
                network([192, 168, 99, 0], 24),
            ],
            ..Host::default()
        }
    }

    fn published(network: &str, address: [u8; 4]) -> Vec<String> {
        let everywhere = Some((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080));
        let container = Container {
            networks: vec![network.into()],
            addresses: vec![IpAddr::from(address)],
            ports: vec![PortMapping { container_port: 80, protocol: "tcp".into(), host: everywhere }],
            ..Container::default()
        };
        container.port_texts(&host())
    }

    #[test]
    fn a_published_port_is_listed_at_every_address_of_its_host_but_for_loopback_and_the_default_bridge() {
        let at = |hosts: &[&str]| hosts.iter().map(|host| format!("{host}:8080->80/tcp")).collect::<Vec<_>>();
        // Scope lists the bridge of a container's own network, which is called `br-…`, and not `docker0`.
        assert_eq!(published("shop_default", [172, 20, 0, 5]), at(&["10.0.0.1", "172.20.0.1", "192.168.99.1"]));
        assert_eq!(published("bridge", [172, 17, 0, 5]), at(&["10.0.0.1", "172.20.0.1", "192.168.99.1"]));
        // A daemon that was told another network for its default bridge.
        assert_eq!(published("bridge", [192, 168, 99, 5]), at(&["10.0.0.1", "172.20.0.1"]));
    }

    #[test]
    fn a_container_in_the_network_of_its_host_has_the_addresses_of_that() {
        let container = Container { network_mode: "host".into(), ..Container::default() };
        let texts: Vec<String> = container.addresses_on(Some(&host())).iter().map(IpAddr::to_string).collect();
        assert_eq!(texts, ["10.0.0.1", "127.0.0.1", "172.17.0.1", "172.20.0.1", "192.168.99.1"]);
        let own = Container { addresses: vec![IpAddr::from([172, 17, 0, 5])], ..Container::default() };
        assert_eq!(own.addresses_on(Some(&host())), own.addresses);
    }
}
