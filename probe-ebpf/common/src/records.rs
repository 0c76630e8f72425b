//! Records of the rings.

use crate::{Address, EdgeKey, EdgeValue};

/// First part of every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordHeader {
    /// When, by the boot clock.
    pub at_ns: u64,
    /// See [`kind`].
    pub kind: u32,
    /// Length of the whole record in bytes.
    pub length: u32,
}

/// Values of [`RecordHeader::kind`].
pub mod kind {
    /// [`super::EdgeRecord`]: an entry of the edge table was made. Its counters are read from the table.
    pub const EDGE_SEEN: u32 = 1;
    /// [`super::EdgeRecord`]: the edge table was full; the record's counters are nowhere else.
    pub const EDGE_OVERFLOW: u32 = 2;
    /// [`super::EdgeRecord`]: the sweep met a connection that was open before the programs.
    pub const EDGE_FOUND: u32 = 3;
    /// [`super::ProcessRecord`]: a process was forked.
    pub const FORK: u32 = 16;
    /// [`super::ProcessRecord`]: a process replaced its program.
    pub const EXEC: u32 = 17;
    /// [`super::ProcessRecord`]: a process ended.
    pub const EXIT: u32 = 18;
    /// [`super::ProcessRecord`]: the kernel ends a process because memory ran out. Its pid and start alone are told.
    pub const OOM_KILL: u32 = 19;
    /// [`super::CgroupRecord`]: a cgroup was made.
    pub const CGROUP_CREATE: u32 = 32;
    /// [`super::CgroupRecord`]: a cgroup was removed.
    pub const CGROUP_REMOVE: u32 = 33;
    /// [`super::CgroupRecord`]: a process was moved into a cgroup.
    pub const CGROUP_ATTACH: u32 = 34;
    /// [`super::ListenerRecord`]: a socket listens.
    pub const LISTENER_OPENED: u32 = 48;
    /// [`super::ListenerRecord`]: it does so no longer.
    pub const LISTENER_CLOSED: u32 = 49;
    /// [`super::DnsRecord`]: a datagram from a DNS server.
    pub const DNS_MESSAGE: u32 = 64;
}

/// About an edge.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgeRecord {
    /// `kind` is one of the `EDGE_…`.
    pub header: RecordHeader,
    /// Which edge.
    pub key: EdgeKey,
    /// What was counted by the change that made the record.
    pub value: EdgeValue,
    /// Where the client meant to go when that differs from where it went; zeroes otherwise.
    pub original_server: Address,
    /// Port of the client.
    pub client_port: u16,
    /// Port of `original_server`.
    pub original_port: u16,
    /// Always 0.
    pub reserved: u32,
}

/// About a socket that waits for connections or datagrams. Of one that ends, cookie and protocol alone are told.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerRecord {
    /// `kind` is one of the `LISTENER_…`.
    pub header: RecordHeader,
    /// The kernel's number of the socket, never used again.
    pub cookie: u64,
    /// cgroup v2 id of the holder; 0 when unknown.
    pub cgroup_id: u64,
    /// Cookie of the network namespace; 0 when unknown.
    pub netns: u64,
    /// Start of the holder's thread group; 0 when unknown.
    pub start_ns: u64,
    /// Where it listens; zeroes for all addresses.
    pub address: Address,
    /// Holder's thread group id in the initial pid namespace; 0 when unknown.
    pub tgid: u32,
    /// Port.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Always 0.
    pub reserved: u8,
}

/// What the sweep writes about each connection that was open before the programs: such a connection has no end in the kernel's events, it is
/// missing from a later sweep.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundOpen {
    /// Its edge.
    pub key: EdgeKey,
    /// Tells it apart from other sockets that are open now.
    pub socket: u64,
}

/// What the census writes about each connection whose beginning the programs have counted and whose end they will count. A probe that takes
/// over from another one learns from it which connections it must not count again.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountedSocket {
    /// Its edge.
    pub key: EdgeKey,
    /// The kernel's number of the socket, as `sock_diag` tells it; 0 when nobody has asked for it yet.
    pub cookie: u64,
    /// Tells it apart from other sockets that are open now, as in a look.
    pub socket: u64,
    /// Where the client meant to go when that differs from where it went; zeroes otherwise.
    pub original_server: Address,
    /// Port of the client.
    pub client_port: u16,
    /// Port of `original_server`.
    pub original_port: u16,
    /// Always 0.
    pub reserved: u32,
}

/// About a process.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessRecord {
    /// `kind` is `FORK`, `EXEC` or `EXIT`.
    pub header: RecordHeader,
    /// Start of the thread group; 0 when unknown.
    pub start_ns: u64,
    /// cgroup v2 id.
    pub cgroup_id: u64,
    /// Thread group id in the initial pid namespace.
    pub tgid: u32,
    /// Thread group id of the parent; 0 when unknown.
    pub parent_tgid: u32,
    /// Effective user (real user where the kernel's BTF is missing).
    pub user_id: u32,
    /// Wait status; `EXIT` alone.
    pub status: i32,
    /// Kernel's name of the task, padded with zeroes.
    pub comm: [u8; 16],
}

/// About a cgroup.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupRecord {
    /// `kind` is one of the `CGROUP_…`.
    pub header: RecordHeader,
    /// Inode number of the cgroup's directory in the v2 hierarchy.
    pub id: u64,
    /// `CGROUP_ATTACH`: the process that was moved.
    pub tgid: u32,
    /// Bytes of `path` that are used.
    pub path_length: u32,
    /// Path below the root of the hierarchy, cut when it is longer.
    pub path: [u8; CgroupRecord::PATH_CAPACITY],
}

impl CgroupRecord {
    /// Longest path that fits. A nested Kubernetes node has paths of about 300 bytes.
    pub const PATH_CAPACITY: usize = 480;
}

/// About a datagram that came from the port of DNS. [`DnsRecord::copied`] bytes of its message follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnsRecord {
    /// `kind` is `DNS_MESSAGE`.
    pub header: RecordHeader,
    /// cgroup v2 id of the socket that sent it (`LEAVING`) or receives it.
    pub cgroup_id: u64,
    /// Where it comes from.
    pub server: Address,
    /// Where it goes.
    pub client: Address,
    /// Port of the client.
    pub client_port: u16,
    /// Length of the message by the UDP header.
    pub message_length: u16,
    /// Bytes of the message that were copied: all, unless it is longer than [`DnsRecord::LONG`] or came in parts.
    pub copied: u16,
    /// 1 when a socket of this machine sends it, 0 when one receives it.
    pub leaving: u16,
}

impl DnsRecord {
    /// Bytes of a message that the small form of the record has room for: the classic limit of DNS over UDP.
    pub const SHORT: usize = 512;
    /// Bytes of a message that the large form has room for: what servers send at most since the DNS flag day of 2020.
    pub const LONG: usize = 1_232;
}

const _: () = assert!(size_of::<DnsRecord>() == 64);
const _: () = assert!(size_of::<RecordHeader>() == 16);
const _: () = assert!(size_of::<EdgeRecord>() == 168);
const _: () = assert!(size_of::<ListenerRecord>() == 72);
const _: () = assert!(size_of::<FoundOpen>() == 72);
const _: () = assert!(size_of::<CountedSocket>() == 104);
const _: () = assert!(size_of::<ProcessRecord>() == 64);
const _: () = assert!(size_of::<CgroupRecord>() == 512);
