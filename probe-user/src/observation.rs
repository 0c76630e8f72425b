//! What the edges of the probe (kernel programs, netlink, /proc) tell its pure middle. Both the best rung and the lowest speak these words, so
//! the process table, the flow table and the report builder never know which rung the probe stands on.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

/// Nanoseconds since boot, suspended time included (`CLOCK_BOOTTIME`): the one clock of all observations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootNanos(pub u64);

/// One thing that was seen.
#[derive(Clone, Debug, PartialEq)]
pub enum Observation {
    /// A process began: by fork, or found in the process table.
    ProcessStarted(ProcessStarted),
    /// A process replaced its program.
    ProcessExecuted {
        /// When.
        at: BootNanos,
        /// Thread group id in the initial pid namespace.
        pid: u32,
        /// Start of the process; `None` when the rung cannot tell.
        start_time: Option<BootNanos>,
        /// Kernel's 16-byte name after the exec.
        comm: String,
        /// cgroup v2 id; 0 when unknown.
        cgroup_id: u64,
        /// Effective user.
        user_id: u32,
    },
    /// A process ended (its last thread did).
    ProcessExited {
        /// When.
        at: BootNanos,
        /// Thread group id.
        pid: u32,
        /// Start of the process; `None` when the rung cannot tell.
        start_time: Option<BootNanos>,
        /// Wait status as in wait(2).
        status: i32,
    },
    /// The kernel is about to end a process because memory ran out.
    OomKilled {
        /// When.
        at: BootNanos,
        /// Thread group id.
        pid: u32,
        /// Start of the process; `None` when the kernel does not tell.
        start_time: Option<BootNanos>,
    },
    /// A cgroup was made, or found at start.
    CgroupCreated {
        /// When.
        at: BootNanos,
        /// Inode number of its directory in the v2 hierarchy.
        id: u64,
        /// Path below the root of the hierarchy, beginning with a slash.
        path: String,
    },
    /// A cgroup was removed.
    CgroupRemoved {
        /// When.
        at: BootNanos,
        /// Its id.
        id: u64,
    },
    /// A process was moved into a cgroup.
    CgroupAttached {
        /// When.
        at: BootNanos,
        /// Thread group id.
        pid: u32,
        /// Where to.
        cgroup_id: u64,
        /// Path of that cgroup; empty when the rung cannot tell.
        path: String,
    },
    /// A connection end of a new flow was seen for the first time. Counters follow with [`Observation::FlowCounted`].
    FlowSeen {
        /// When.
        at: BootNanos,
        /// Which flow.
        end: FlowEnd,
        /// Port of the client on the connection that was seen; 0 when unknown.
        client_port: u16,
        /// Where the client meant to go, when the kernel changed it.
        original_server: Option<(IpAddr, u16)>,
        /// Whether the kernel told it as it happened, or it was found open.
        found_open: bool,
    },
    /// Counters of a flow grew. Increments, not totals.
    FlowCounted {
        /// When something last happened on the flow.
        last_active: BootNanos,
        /// Which flow; it may not have been announced when the ring was full.
        end: FlowEnd,
        /// By how much.
        delta: Counted,
    },
    /// The capture begins again: all connections that are open, and all counts that are kept, will be told once more. What was told of flows
    /// before does not hold.
    CaptureBegins,
    /// A socket waits for connections or datagrams.
    ListenerOpened(ListenerOpened),
    /// It does so no longer.
    ListenerClosed {
        /// When.
        at: BootNanos,
        /// [`ListenerOpened::socket`].
        socket: u64,
    },
    /// A process looked a name up.
    NameResolved {
        /// When the answer was seen.
        at: BootNanos,
        /// As it was asked for, in lower case, without the final dot.
        name: String,
        /// Its addresses, with the seconds for which they may be used.
        addresses: Vec<(IpAddr, u32)>,
    },
    /// What was counted of messages of DNS so far, as totals since the start of the probe.
    NamesCounted(NameCounts),
    /// What was lost so far, as totals since the start of the probe.
    Lost(LossTotals),
    /// The kernel translates the addresses of a connection.
    Translated(Translated),
    /// Losses of a cause that has no field in [`LossTotals`].
    LostOther {
        /// The cause, as `Losses.other` names it.
        cause: &'static str,
        /// So far.
        total: u64,
    },
}

/// A process that began.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessStarted {
    /// When it was seen.
    pub at: BootNanos,
    /// Thread group id in the initial pid namespace.
    pub pid: u32,
    /// Pid of its parent.
    pub parent_pid: u32,
    /// Its start; `None` when the rung cannot tell.
    pub start_time: Option<BootNanos>,
    /// Kernel's 16-byte name.
    pub comm: String,
    /// cgroup v2 id; 0 when unknown.
    pub cgroup_id: u64,
    /// Effective user.
    pub user_id: u32,
}

/// A socket that waits for connections or datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerOpened {
    /// When it was seen.
    pub at: BootNanos,
    /// The kernel's number of the socket, never used again.
    pub socket: u64,
    /// Thread group id of the holder; 0 when unknown.
    pub pid: u32,
    /// Start of the holder; `None` when the rung cannot tell.
    pub start_time: Option<BootNanos>,
    /// cgroup v2 id of the holder; 0 when unknown.
    pub cgroup_id: u64,
    /// Cookie of the network namespace; 0 when unknown.
    pub network_namespace: u64,
    /// Transport.
    pub protocol: Protocol,
    /// Where it listens; unspecified when on all addresses.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
}

/// A connection whose addresses are translated on their way through this node. IPv4-mapped addresses are IPv4 here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translated {
    /// The kernel's number of it; used again after its end.
    pub id: u32,
    /// Conntrack zone.
    pub zone: u16,
    /// Cookie of the network namespace that translates; 0 when unknown.
    pub network_namespace: u64,
    /// Transport.
    pub protocol: Protocol,
    /// The client's own address and port.
    pub client: (IpAddr, u16),
    /// Where it meant to go.
    pub server: (IpAddr, u16),
    /// The client as the server sees it.
    pub translated_client: (IpAddr, u16),
    /// Where it really goes.
    pub translated_server: (IpAddr, u16),
    /// It may have been told before: it was found by looking, or began while somebody looked.
    pub perhaps_told: bool,
}

/// One end of a group of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowEnd {
    /// Thread group id of the holder; 0 when the kernel could not say.
    pub pid: u32,
    /// Start of the holder, cut to the clock ticks of /proc (10 ms), so that a pid that is used again is another flow end; `None` when the
    /// rung cannot tell: then the time of the observation says which incarnation it was.
    pub start_time: Option<BootNanos>,
    /// cgroup v2 id of the holder; 0 when unknown.
    pub cgroup_id: u64,
    /// Cookie of the network namespace; 0 when unknown.
    pub network_namespace: u64,
    /// Which end.
    pub direction: Direction,
    /// Transport.
    pub protocol: Protocol,
    /// Address of the end that opened. IPv4-mapped addresses are IPv4 here.
    pub client_address: IpAddr,
    /// Address of the end that accepted.
    pub server_address: IpAddr,
    /// Port of the service.
    pub server_port: u16,
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

/// Connections of TCP that are open.
#[derive(Clone, Debug, Default)]
pub struct OpenEnds {
    /// When it was looked.
    pub at: BootNanos,
    /// How many the kernel programs have counted on each flow.
    pub open: HashMap<FlowEnd, u64>,
    /// Flows that have others.
    pub except: HashSet<FlowEnd>,
}

/// Sockets that listen.
#[derive(Clone, Debug, Default)]
pub struct ListenersThere {
    /// When it was looked.
    pub at: BootNanos,
    /// All that did then, by their numbers.
    pub there: HashSet<u64>,
}

/// Growth of a flow's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Connections established. UDP: sockets that were connected, and talks between two that are not, which end when nothing was said for a
    /// while.
    pub opened: u64,
    /// Connections ended.
    pub closed: u64,
    /// Connections that failed before they were established.
    pub failed: u64,
    /// Payload bytes that this end sent.
    pub bytes_sent: u64,
    /// Payload bytes that this end received.
    pub bytes_received: u64,
    /// Segments sent again.
    pub retransmits: u64,
    /// Sum of round-trip times in microseconds.
    pub rtt_us_sum: u64,
    /// How many are in the sum.
    pub rtt_count: u64,
    /// Largest of them.
    pub rtt_us_max: u32,
}

/// What became of messages of DNS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameCounts {
    /// Messages that were read.
    pub messages: u64,
    /// Of these, answers that named addresses and were believed.
    pub answers: u64,
    /// Messages that are none, or that no server makes.
    pub malformed: u64,
    /// Answers of servers that nobody had asked.
    pub unasked: u64,
    /// Messages that found their ring full.
    pub ring_lost: u64,
    /// Programs that are attached now.
    pub attached: u64,
    /// Attachments that left early, or were not made, because there were too many.
    pub attachments_evicted: u64,
    /// Attachments that the kernel refused.
    pub attachments_refused: u64,
    /// Questions and other events that were not taken note of because too many came at once.
    pub events_lost: u64,
}

/// Losses below the pure middle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LossTotals {
    /// Records that did not fit into the network ring.
    pub network_ring: u64,
    /// Records of listeners that did not, which are not among those: such a listener is missing, or stays though it is gone.
    pub listeners: u64,
    /// Records that did not fit into the process ring.
    pub process_ring: u64,
    /// Connection ends that the kernel's flow table had no room for.
    pub flow_table: u64,
    /// Talks and connected sockets of UDP that it had no room for.
    pub talks: u64,
    /// Sockets without storage: ends without an owner.
    pub socket_storage: u64,
    /// Connection ends of clients whose process the kernel programs did not know. They are counted in flows.
    pub unowned_clients: u64,
    /// The same of servers: a flow may be given the process that listens.
    pub unowned_servers: u64,
    /// Netlink or poll losses of a lower rung.
    pub netlink: u64,
    /// Connection ends that the kernel saw established.
    pub ends_seen: u64,
    /// Of these, the ends that were counted in a flow.
    pub ends_counted: u64,
}
