//! What a probe says of connections.

use std::net::IpAddr;
use std::sync::Arc;

use base::Timestamp;

use super::ProcessKey;

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
    /// Where address translation took its connections: all of them, or empty when the record says nothing new.
    pub translations: Vec<Translation>,
    /// How many flows this one sums up that found no room in the probe's table; 0 for a flow of its own. The peer's address is unspecified
    /// then.
    pub others: u64,
    /// Totals by application protocol.
    pub applications: Vec<Application>,
}

/// What address translation made of connections of a flow.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Translation {
    /// Where they really went.
    pub server: (IpAddr, u16),
    /// The client as the server sees it, when that changed.
    pub client: Option<IpAddr>,
    /// Connections that went there.
    pub connections: u64,
    /// Who says so.
    pub source: TranslationSource,
}

/// Who says where connections went, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TranslationSource {
    /// The kernel's socket was connected elsewhere than the process asked for.
    Socket,
    /// The kernel's connection tracking.
    Conntrack,
    /// The endpoints of a Kubernetes service: one of them it was.
    Endpoints,
}

impl TranslationSource {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            TranslationSource::Socket => "socket",
            TranslationSource::Conntrack => "conntrack",
            TranslationSource::Endpoints => "endpoints",
        }
    }
}

/// Totals of one application protocol on a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Application {
    /// `http`, `grpc`, `redis`, …
    pub protocol: Arc<str>,
    /// Requests.
    pub requests: u64,
    /// Those that were answered with an error of the protocol, or not at all.
    pub errors: u64,
    /// From request to answer, in microseconds.
    pub latency_us_sum: u64,
    /// How many are in the sum.
    pub latency_count: u64,
    /// Largest, in microseconds.
    pub latency_us_max: u64,
}

/// A socket that waits for connections or datagrams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The probe's number for it, within its session.
    pub id: u64,
    /// Whose, if that is known.
    pub process: Option<ProcessKey>,
    /// cgroup v2 id of the holder; 0 when unknown.
    pub cgroup_id: u64,
    /// Container of the holder.
    pub container_id: Option<Arc<str>>,
    /// Transport.
    pub protocol: Protocol,
    /// Where; unspecified when on all addresses.
    pub address: IpAddr,
    /// On which port.
    pub port: u16,
    /// Cookie of the network namespace; 0 when unknown.
    pub network_namespace: u64,
}

/// What processes of a host called an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedAddress {
    /// Which.
    pub address: IpAddr,
    /// The latest first, at least one.
    pub names: Vec<ResolvedName>,
}

/// One name of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedName {
    /// Without the final dot, in lower case.
    pub name: Arc<str>,
    /// When it was last resolved.
    pub resolved_at: Timestamp,
    /// When the answer ends to hold.
    pub expires_at: Timestamp,
}

/// Connections over Unix sockets between two processes of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixFlow {
    /// The probe's number for it, within its session.
    pub id: u64,
    /// Who connected.
    pub client: ProcessKey,
    /// Who accepted.
    pub server: ProcessKey,
    /// As bound; abstract names begin with `@`.
    pub path: Arc<str>,
    /// Open now.
    pub open: u32,
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

impl Protocol {
    /// `tcp` or `udp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
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
