//! What a probe says, in the core's own words. The wire's words are translated in the control plane's gRPC room, which also refuses what is
//! malformed; so everything here is well-formed, but may still be a lie.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use base::Timestamp;

mod containers;
mod flows;
mod kubernetes;
mod metrics;

pub use containers::{Container, ContainerState, Image, PortMapping};
pub use flows::{
    Application, Direction, Flow, FlowCounters, FlowKey, Listener, Origin, Protocol, ResolvedAddress, ResolvedName, Translation,
    TranslationSource, UnixFlow,
};
pub use kubernetes::{Endpoint, KubernetesKind, KubernetesObject};
pub use metrics::{BlockDevice, ContainerMetrics, Disk, HostMetrics, NetworkInterface, Pressure, ProcessMetrics};

/// A probe's stable identity, e.g. the machine id.
pub type ProbeId = Arc<str>;

/// What a probe says of itself when its stream opens.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeHello {
    /// Name of the host that it reports on; every node of this probe belongs to this host.
    pub host_name: Arc<str>,
    /// The probe's version, for people.
    pub version: Arc<str>,
    /// Random per start of the probe.
    pub session: Arc<str>,
    /// Oldest report that the probe can still send again; 0 for none.
    pub oldest_held_sequence: u64,
    /// How it sees.
    pub capture: Capture,
    /// Set by the collector of a Kubernetes cluster, and only by it: the cluster's name. It reports Kubernetes objects alone.
    pub cluster_name: Option<Arc<str>>,
    /// Ids of the controls that it carries out.
    pub controls: Arc<[Arc<str>]>,
}

/// A numbered change of what is known of one host. All records are absolute, so that applying one twice changes nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// 1 for the first of a session, then without gaps.
    pub sequence: u64,
    /// By the node's clock.
    pub observed_at: Timestamp,
    /// Where it stands in the sequence.
    pub kind: ReportKind,
    /// The host itself, when it changed.
    pub host: Option<Host>,
    /// New and changed processes.
    pub processes: Vec<Process>,
    /// Processes that ended and need no further mention.
    pub processes_gone: Vec<ProcessKey>,
    /// New and changed containers.
    pub containers: Vec<Container>,
    /// Ids of removed containers.
    pub containers_gone: Vec<Arc<str>>,
    /// New and changed images.
    pub images: Vec<Image>,
    /// Ids of images no longer in use.
    pub images_gone: Vec<Arc<str>>,
    /// New and changed flows.
    pub flows: Vec<Flow>,
    /// Ids of flows that ended.
    pub flows_gone: Vec<u64>,
    /// How the probe sees, when that changed.
    pub capture: Option<Capture>,
    /// What was lost, when that changed.
    pub losses: Option<Losses>,
    /// Samples.
    pub host_metrics: Vec<HostMetrics>,
    /// Samples.
    pub process_metrics: Vec<ProcessMetrics>,
    /// Samples.
    pub container_metrics: Vec<ContainerMetrics>,
    /// New and changed objects, from the collector of a cluster.
    pub kubernetes: Vec<KubernetesObject>,
    /// Uids of deleted objects.
    pub kubernetes_gone: Vec<Arc<str>>,
    /// New and changed listening sockets.
    pub listeners: Vec<Listener>,
    /// Ids of closed ones.
    pub listeners_gone: Vec<u64>,
    /// New and changed names of addresses.
    pub resolved_addresses: Vec<ResolvedAddress>,
    /// Addresses of whose names nothing is known any more.
    pub resolved_addresses_gone: Vec<IpAddr>,
    /// New and changed connections over Unix sockets.
    pub unix_flows: Vec<UnixFlow>,
    /// Ids of ended ones.
    pub unix_flows_gone: Vec<u64>,
}

/// What a report is in the sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReportKind {
    /// Changes since the report before.
    #[default]
    Delta,
    /// A part of a snapshot; more follows.
    SnapshotPart,
    /// The last part: what no part named is gone.
    SnapshotEnd,
}

/// The node itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Host {
    /// Release of the running kernel.
    pub kernel_version: Arc<str>,
    /// "linux".
    pub os: Arc<str>,
    /// Distribution, for people.
    pub os_release: Arc<str>,
    /// When the node booted.
    pub booted_at: Timestamp,
    /// Networks of its interfaces, loopback included.
    pub local_networks: Vec<Network>,
    /// Addresses of its interfaces in the root network namespace.
    pub addresses: Vec<IpAddr>,
    /// Online CPUs.
    pub cpu_count: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// `x86_64` and so on; empty when not told.
    pub architecture: Arc<str>,
    /// Where it is rented, if it is.
    pub cloud: Option<Cloud>,
}

/// What a provider's metadata service says of a host; empty where it says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cloud {
    /// `aws`, `gcp`, `azure`, …
    pub provider: Arc<str>,
    /// Region.
    pub region: Arc<str>,
    /// Zone within it.
    pub zone: Arc<str>,
    /// The provider's id of the machine.
    pub instance_id: Arc<str>,
    /// Size of the machine, in the provider's words.
    pub instance_type: Arc<str>,
}

/// An address and the length of its network prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    /// Any address in the network.
    pub address: IpAddr,
    /// Leading bits that are equal: at most 32 for IPv4, 128 for IPv6.
    pub prefix_length: u8,
}

impl Network {
    /// Whether `address` lies in this network.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let shift = 32_u32.saturating_sub(u32::from(self.prefix_length));
                (own.to_bits() ^ other.to_bits()).checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let shift = 128_u32.saturating_sub(u32::from(self.prefix_length));
                (own.to_bits() ^ other.to_bits()).checked_shr(shift).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// One incarnation of a process on its host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessKey {
    /// Thread group id in the initial pid namespace.
    pub pid: u32,
    /// Nanoseconds since boot, in steps of a clock tick.
    pub start_time: u64,
}

/// A process, alive or just gone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Process {
    /// Which one.
    pub key: ProcessKey,
    /// Pid of its parent.
    pub parent_pid: u32,
    /// First word of the command line, or `[comm]`.
    pub name: Arc<str>,
    /// Whole command line.
    pub command_line: Arc<str>,
    /// Effective user.
    pub user_id: u32,
    /// Threads.
    pub thread_count: u32,
    /// Full id of its container.
    pub container_id: Option<Arc<str>>,
    /// cgroup v2 id; 0 when unknown.
    pub cgroup_id: u64,
    /// cgroup path.
    pub cgroup_path: Arc<str>,
    /// When it ended.
    pub exited_at: Option<Timestamp>,
    /// Wait status as in wait(2); meaningful when it ended.
    pub exit_status: i32,
    /// The kernel ended it because memory ran out.
    pub oom_killed: bool,
    /// Name of the effective user, if it has one.
    pub user_name: Option<Arc<str>>,
}

/// How a probe sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capture {
    /// 1 is the best.
    pub rung: u32,
    /// What it stands on.
    pub description: Arc<str>,
    /// Why it stands no higher; empty on the first.
    pub reason: Arc<str>,
    /// What cannot be seen from there.
    pub blind_spots: Vec<Arc<str>>,
    /// Hooks: name, and the kernel's error where it is not attached.
    pub hooks: Vec<(Arc<str>, Option<Arc<str>>)>,
    /// 0: everything is told at once. Higher levels give up immediacy, then detail.
    pub overload_level: u32,
    /// Capabilities that the probe lacks.
    pub missing_capabilities: Vec<Arc<str>>,
}

/// What a probe lost since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Ring records by ring.
    pub ring_records: BTreeMap<Arc<str>, u64>,
    /// Flow ends that the kernel's table had no room for.
    pub flows_uncounted: u64,
    /// Ends without an owner.
    pub sockets_unowned: u64,
    /// Records that user space had no room for.
    pub table_full: u64,
    /// Deltas merged into a later snapshot.
    pub reports_merged: u64,
    /// Connection ends that the kernel saw open.
    pub ends_seen: u64,
    /// Those that reached a flow.
    pub ends_reported: u64,
    /// By cause, for what has no field of its own.
    pub other: BTreeMap<Arc<str>, u64>,
}

impl Losses {
    /// Share of the connection ends seen that reached a flow, 0 to 1; `None` when nothing was seen yet.
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    pub fn completeness(&self) -> Option<f64> {
        (self.ends_seen > 0).then(|| (self.ends_reported as f64 / self.ends_seen as f64).min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn network(text: &str) -> Network {
        let (address, length) = text.split_once('/').unwrap();
        Network { address: address.parse().unwrap(), prefix_length: length.parse().unwrap() }
    }

    #[test]
    fn a_network_contains_its_own_addresses_only() {
        let bridge = network("172.17.0.1/16");
        assert!(bridge.contains("172.17.255.9".parse().unwrap()));
        assert!(!bridge.contains("172.18.0.1".parse().unwrap()));
        assert!(!bridge.contains("::1".parse().unwrap()));
        assert!(network("fe80::1/64").contains("fe80::2".parse().unwrap()));
        assert!(network("0.0.0.0/0").contains("8.8.8.8".parse().unwrap()));
        assert!(!network("10.0.0.1/32").contains("10.0.0.2".parse().unwrap()));
    }
}
