//! Questions that are answered from the whole map and not from a picture.

use std::net::IpAddr;
use std::sync::Arc;

use base::Timestamp;

use crate::node::NodeId;
use crate::report::{
    Application, Capture, Direction, FlowCounters, Host, HostMetrics, Listener, Losses, Origin, ProbeId, ProcessKey, Protocol, Translation,
};

/// Which flows to list. Empty fields match everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FlowQuery {
    /// Only flows of this host.
    pub host: Option<Arc<str>>,
    /// Only flows of this process.
    pub pid: Option<u32>,
    /// Only flows of this container (full id).
    pub container: Option<Arc<str>>,
    /// Only flows to or of this service port.
    pub server_port: Option<u16>,
    /// Only this end.
    pub direction: Option<Direction>,
    /// Only flows with a larger number than this in the listing's order; the `next` of the page before.
    pub after: u64,
    /// At most this many.
    pub limit: usize,
}

/// A page of flows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FlowPage {
    /// In the order in which the map learned of them.
    pub flows: Vec<FlowEntry>,
    /// `after` of the next page; `None` on the last.
    pub next: Option<u64>,
}

/// One end of a group of connections, with what it was joined to.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowEntry {
    /// Its number in the listing's order.
    pub ordinal: u64,
    /// Host that reported it.
    pub host: Arc<str>,
    /// Who holds this end.
    pub process: Option<ProcessKey>,
    /// Name of that process, if it is known.
    pub process_name: Option<Arc<str>>,
    /// Container of the holder.
    pub container_id: Option<Arc<str>>,
    /// cgroup of the holder; 0 when unknown.
    pub cgroup_id: u64,
    /// Which end.
    pub direction: Direction,
    /// Transport.
    pub protocol: Protocol,
    /// Address of the end that opened.
    pub client_address: IpAddr,
    /// Address of the end that accepted.
    pub server_address: IpAddr,
    /// Port of the service.
    pub server_port: u16,
    /// A port of the client's end that was seen; 0 when unknown.
    pub client_port: u16,
    /// Where the client meant to go, when it was translated.
    pub original_server: Option<(IpAddr, u16)>,
    /// How it came to be known.
    pub origin: Origin,
    /// Totals.
    pub counters: FlowCounters,
    /// Totals by application protocol.
    pub applications: Vec<Application>,
    /// Where its connections were taken, or by a service's endpoints may have been.
    pub translations: Vec<Translation>,
    /// How many flows it sums up; 0 for a flow of its own.
    pub others: u64,
    /// What the host that reported a server's end calls the client.
    pub client_name: Option<Arc<str>>,
    /// What the host that reported a client's end calls the server.
    pub server_name: Option<Arc<str>>,
    /// When it was first seen.
    pub first_seen: Timestamp,
    /// When something last happened.
    pub last_active: Timestamp,
    /// Nodes of the `processes` view at the other end: processes, or an Internet node.
    pub peers: Vec<NodeId>,
}

/// Which listening sockets to list. Empty fields match everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListenerQuery {
    /// Only those of this host.
    pub host: Option<Arc<str>>,
    /// Only those on this port.
    pub port: Option<u16>,
    /// Only those of this process.
    pub pid: Option<u32>,
    /// Only those of this container (full id).
    pub container: Option<Arc<str>>,
    /// At most this many.
    pub limit: usize,
}

/// Listening sockets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListenerPage {
    /// Host by host.
    pub listeners: Vec<ListenerEntry>,
    /// Whether the limit left some out.
    pub more: bool,
}

/// A listening socket.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerEntry {
    /// Where.
    pub host: Arc<str>,
    /// Name of its process, if it is known.
    pub process_name: Option<Arc<str>>,
    /// As it was reported.
    pub listener: Listener,
}

/// What is known of a host.
#[derive(Clone, Debug, PartialEq)]
pub struct HostStatus {
    /// Its name.
    pub name: Arc<str>,
    /// Who reports on it.
    pub probe: ProbeId,
    /// Version of that probe.
    pub probe_version: Arc<str>,
    /// What does not change.
    pub record: Host,
    /// The newest sample.
    pub metrics: Option<HostMetrics>,
    /// Processes, ended ones within the window included.
    pub processes: u64,
    /// Containers in any state.
    pub containers: u64,
    /// Flows.
    pub flows: u64,
    /// Listening sockets.
    pub listeners: u64,
    /// Addresses that have a name.
    pub names: u64,
}

/// What is known of a probe.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeStatus {
    /// Its id.
    pub id: ProbeId,
    /// Its host.
    pub host_name: Arc<str>,
    /// Its version.
    pub version: Arc<str>,
    /// Whether its stream is open.
    pub connected: bool,
    /// When it was last heard of.
    pub last_seen: Timestamp,
    /// Last report applied.
    pub sequence: u64,
    /// How it sees.
    pub capture: Capture,
    /// What it lost.
    pub losses: Losses,
    /// How much it reported.
    pub counts: ProbeCounts,
}

/// How much of each kind a probe has on the map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeCounts {
    /// Processes, ended ones within the window included.
    pub processes: u64,
    /// Containers in any state.
    pub containers: u64,
    /// Flows.
    pub flows: u64,
    /// Kubernetes objects.
    pub objects: u64,
    /// Records that were refused: beyond the limits, or about another host's containers.
    pub records_refused: u64,
}
