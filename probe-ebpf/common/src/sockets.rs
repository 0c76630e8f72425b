//! What is known of a socket, and what is counted for a group of them.
//!
//! UDP has no connections of its own. What counts as one is told in `udp.rs` of the programs.

/// A network address: 16 bytes in network order, IPv4 mapped.
pub type Address = [u8; 16];

/// Key of the edge table: one end of a group of connections. Same holder, same pair of hosts, same service port.
///
/// A pid is used again by later processes, so the key holds the start of the holder as well: the counters of two incarnations never meet,
/// not even when a socket of the first one ends long after it (an orphan in FIN_WAIT, say). Where the kernel's BTF does not tell the start, it
/// is 0 and only time tells incarnations apart: the probe reads the table several times a second, and a pid does not come round that fast.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EdgeKey {
    /// Address of the end that opened.
    pub client: Address,
    /// Address of the end that accepted.
    pub server: Address,
    /// cgroup v2 id of the holder at connect or bind; 0 when unknown.
    pub cgroup_id: u64,
    /// Cookie of the network namespace; 0 when unknown.
    pub netns: u64,
    /// Start of the holder's thread group; 0 when unknown.
    pub start_ns: u64,
    /// Holder's thread group id in the initial pid namespace; 0 when unknown.
    pub tgid: u32,
    /// Port of the service.
    pub server_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// See [`direction`].
    pub direction: u8,
}

impl EdgeKey {
    /// A key of no edge, for buffers.
    pub const ZERO: EdgeKey = EdgeKey {
        client: [0; 16],
        server: [0; 16],
        cgroup_id: 0,
        netns: 0,
        start_ns: 0,
        tgid: 0,
        server_port: 0,
        protocol: 0,
        direction: 0,
    };
}

/// Value of the edge table. Totals that only grow (and wrap); the kernel adds atomically, user space takes differences.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EdgeValue {
    /// Connections established.
    pub opened: u32,
    /// Connections ended.
    pub closed: u32,
    /// Connections that failed before they were established.
    pub failed: u32,
    /// Segments sent again.
    pub retransmits: u32,
    /// Payload bytes sent by this end and acknowledged.
    pub bytes_sent: u64,
    /// Payload bytes received by this end.
    pub bytes_received: u64,
    /// Sum of smoothed round-trip times in microseconds: of the connections that end within one step of the kernel's clock, the first one's.
    pub rtt_us_sum: u64,
    /// How many are in the sum.
    pub rtt_count: u32,
    /// Largest of all.
    pub rtt_us_max: u32,
    /// UDP without a connection: the kernel's coarse clock at the last datagram; 0 when there was none. It says when two readings of an entry
    /// differ, and no more: its unit depends on the kernel. TCP: the kernel's clock (jiffies) when `last_ns` was written.
    pub tick: u32,
    /// UDP, serving end: the last port that a client of this edge sent from, if it was none that the kernel gives away; 0 otherwise.
    /// TCP: the kernel's clock when a round-trip time was added last.
    pub chosen_port: u32,
    /// When it last changed, datagrams aside. TCP: or up to 10 ms before.
    pub last_ns: u64,
}

/// Who holds a socket, kept in the socket itself. Written in process context by connect and bind; the kernel copies it into every socket
/// that a listener accepts, where no process is at hand.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// cgroup v2 id of the process.
    pub cgroup_id: u64,
    /// Cookie of the socket's network namespace.
    pub netns: u64,
    /// Start of the thread group; 0 when unknown.
    pub start_ns: u64,
    /// UDP: when it connected.
    pub born_ns: u64,
    /// Payload bytes sent that are in the edge table already.
    pub counted_sent: u64,
    /// Payload bytes received that are in the edge table already.
    pub counted_received: u64,
    /// Retransmits that are in the edge table already.
    pub counted_retransmits: u64,
    /// `bytes_received` when the socket came to FIN_WAIT2; tells later whether the other end's FIN is among the bytes.
    pub received_at_fin_wait2: u64,
    /// Where the process meant to connect. UDP: the connected peer; without a connection the last one that was asked.
    pub original_server: Address,
    /// UDP: the local address in the key of its connection; zeroes when the socket was not bound to one.
    pub local: Address,
    /// UDP: [`EdgeValue::tick`] when the last peer was told last.
    pub tick: u32,
    /// Always 0.
    pub reserved: u32,
    /// Thread group id in the initial pid namespace; 0 when unknown.
    pub tgid: u32,
    /// Port of `original_server`.
    pub original_port: u16,
    /// Bits of [`flag`].
    pub flags: u16,
}

/// Bits of [`Owner::flags`].
pub mod flag {
    /// The socket opens, or opened, its connection.
    pub const CLIENT: u16 = 1;
    /// The socket was bound: a listener, as a rule.
    pub const BOUND: u16 = 2;
    /// The socket was accepted from a listener.
    pub const ACCEPTED: u16 = 4;
    /// The storage was written by user space, for a socket that is older than the programs.
    pub const SEEDED: u16 = 8;
    /// The connection was established before the programs were attached: it has no end of its own in the kernel's events.
    pub const FOUND_OPEN: u16 = 16;
    /// The programs counted the connection when it was established. Without it, an established socket is one that they missed while they were
    /// being attached.
    pub const OPENED: u16 = 32;
    /// UDP: the process chose the local port.
    pub const CHOSE_PORT: u16 = 64;
    /// UDP: the socket has sent to a peer that had not sent to it.
    pub const ASKED: u16 = 128;
    /// UDP: the socket has received from a peer that it had not sent to.
    pub const SERVED: u16 = 256;
    /// UDP: the socket is connected, and its connection is in the edge table.
    pub const CONNECTED: u16 = 512;
    /// UDP: something came over its connection.
    pub const HEARD: u16 = 1_024;
    /// UDP: the process asked for the local address that its connection got.
    pub const NAMED: u16 = 2_048;
    /// The socket was told as a listener.
    pub const LISTENING: u16 = 4_096;
    /// UDP: the socket is connected to a client that it serves.
    pub const SERVES_PEER: u16 = 8_192;
}

/// Values of [`EdgeKey::direction`].
pub mod direction {
    /// This end opened the connections.
    pub const CLIENT: u8 = 0;
    /// This end accepted them.
    pub const SERVER: u8 = 1;
}

const _: () = assert!(size_of::<EdgeKey>() == 64);
const _: () = assert!(size_of::<EdgeValue>() == 64);
const _: () = assert!(size_of::<Owner>() == 112);
