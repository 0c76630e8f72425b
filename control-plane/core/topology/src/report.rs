//! What a probe says, in the core's own words. The wire's words are translated in the control plane's gRPC room, which also refuses what is
//! malformed; so everything here is well-formed, but may still be a lie.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use base::Timestamp;

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
}

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
    /// `docker`, `containerd`, `cri-o`.
    pub runtime: Arc<str>,
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

/// One end of a group of connections.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flow {
    /// The probe's number for it, within its session.
    pub id: u64,
    /// Absent in updates of a flow that was sent before.
    pub key: Option<FlowKey>,
    /// Totals since it was first seen.
    pub counters: FlowCounters,
    /// When it was first seen.
    pub first_seen: Timestamp,
    /// When something last happened on it.
    pub last_active: Timestamp,
}

/// What makes a flow one flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowKey {
    /// Who holds this end, if the kernel could say.
    pub process: Option<ProcessKey>,
    /// cgroup v2 id of the holder; 0 when unknown.
    pub cgroup_id: u64,
    /// Container of the holder.
    pub container_id: Option<Arc<str>>,
    /// Which end this is.
    pub direction: Direction,
    /// Transport.
    pub protocol: Protocol,
    /// Address of the end that opened.
    pub client_address: IpAddr,
    /// Address of the end that accepted.
    pub server_address: IpAddr,
    /// Port of the service.
    pub server_port: u16,
    /// Cookie of the network namespace; 0 when unknown.
    pub network_namespace: u64,
    /// Where the client meant to go, when address translation changed it.
    pub original_server: Option<(IpAddr, u16)>,
    /// How it came to be known.
    pub origin: Origin,
    /// A client port seen on it; 0 when unknown.
    pub sample_client_port: u16,
}

/// Which end of its connections a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Opened them.
    Client,
    /// Accepted them.
    Server,
}

/// Transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// How a flow came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Told by the kernel as it happened.
    Event,
    /// Found open by a look at the socket tables.
    Snapshot,
}

/// Totals of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounters {
    /// Connections established.
    pub opened: u64,
    /// Connections ended.
    pub closed: u64,
    /// Connections refused, timed out or reset before they were established.
    pub failed: u64,
    /// Payload bytes that this end sent.
    pub bytes_sent: u64,
    /// Payload bytes that this end received.
    pub bytes_received: u64,
    /// Segments sent again.
    pub retransmits: u64,
    /// Sum of round-trip times, in microseconds.
    pub rtt_us_sum: u64,
    /// How many are in the sum.
    pub rtt_count: u64,
    /// Largest, in microseconds.
    pub rtt_us_max: u32,
}

impl FlowCounters {
    /// Connections open now.
    pub fn active(&self) -> u64 {
        self.opened.saturating_sub(self.closed)
    }
}

/// A sample of the host.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HostMetrics {
    /// When.
    pub at: Timestamp,
    /// Share of all CPUs, 0 to 100.
    pub cpu_percent: f64,
    /// Used memory without caches.
    pub memory_used_bytes: u64,
    /// One-minute load.
    pub load1: f64,
}

/// A sample of a process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProcessMetrics {
    /// Whose.
    pub key: ProcessKey,
    /// When.
    pub at: Timestamp,
    /// Share of all CPUs, 0 to 100.
    pub cpu_percent: f64,
    /// Resident bytes.
    pub memory_bytes: u64,
    /// Open descriptors.
    pub open_files: u32,
    /// Soft limit of descriptors; 0 when unknown.
    pub open_files_limit: u64,
    /// Threads.
    pub thread_count: u32,
}

/// A sample of a container.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerMetrics {
    /// Whose.
    pub id: Arc<str>,
    /// When.
    pub at: Timestamp,
    /// Share of all CPUs, 0 to 100.
    pub cpu_percent: f64,
    /// Bytes without page cache.
    pub memory_bytes: u64,
    /// Limit; 0 when there is none.
    pub memory_limit_bytes: u64,
}

/// One object of the Kubernetes API, cut down to what a map shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KubernetesObject {
    /// What it is.
    pub kind: KubernetesKind,
    /// Its uid; for static pods the hash of their configuration.
    pub uid: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its namespace; empty when it has none.
    pub namespace: Arc<str>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Labels.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// Uids of what selects or owns it.
    pub parents: Vec<Arc<str>>,
    /// Pods: phase or reason, as kubectl shows it.
    pub state: Arc<str>,
    /// Pods and services: addresses inside the cluster.
    pub addresses: Vec<IpAddr>,
    /// Services: addresses outside.
    pub public_addresses: Vec<IpAddr>,
    /// Pods: the node it runs on.
    pub node_name: Arc<str>,
    /// Pods: shares the host's network.
    pub host_network: bool,
    /// Pods: restarts of its containers.
    pub restart_count: u32,
    /// Services: `ClusterIP` and so on.
    pub service_type: Arc<str>,
    /// Services: ports as text.
    pub ports: Vec<Arc<str>>,
    /// Controllers.
    pub observed_generation: u64,
    /// Controllers.
    pub desired_replicas: u32,
    /// Deployments.
    pub strategy: Arc<str>,
    /// Cron jobs.
    pub schedule: Arc<str>,
    /// Cron jobs.
    pub last_scheduled_at: Option<Timestamp>,
    /// Cron jobs.
    pub suspended: bool,
    /// Cron jobs.
    pub active_jobs: u32,
    /// Volumes and claims.
    pub status: Arc<str>,
    /// Volumes and claims: name of their class.
    pub storage_class: Arc<str>,
    /// Volumes: driver; classes: provisioner.
    pub storage_driver: Arc<str>,
    /// Claims.
    pub capacity: Arc<str>,
    /// Volumes and claims.
    pub access_modes: Vec<Arc<str>>,
    /// Volumes: name of the claim; claims: name of the volume; pods: names of their claims.
    pub volume_names: Vec<Arc<str>>,
    /// Pods: full ids of their containers.
    pub container_ids: Vec<Arc<str>>,
}

/// Kinds of Kubernetes objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KubernetesKind {
    /// A machine of the cluster.
    Node,
    /// A namespace.
    Namespace,
    /// A pod.
    #[default]
    Pod,
    /// A service.
    Service,
    /// A deployment.
    Deployment,
    /// A replica set.
    ReplicaSet,
    /// A daemon set.
    DaemonSet,
    /// A stateful set.
    StatefulSet,
    /// A job.
    Job,
    /// A cron job.
    CronJob,
    /// A persistent volume.
    PersistentVolume,
    /// A claim of one.
    PersistentVolumeClaim,
    /// A class of them.
    StorageClass,
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
