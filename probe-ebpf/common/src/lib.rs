//! The records that kernel programs and probe share: keys and values of maps, records of rings, numbers of counters.
//!
//! Every type is `repr(C)` without implicit padding and its size is asserted here, at compile time, on both sides. Whoever changes a layout
//! raises [`ABI_VERSION`].
//!
//! Addresses are 16 bytes in network order; IPv4 is mapped (`::ffff:a.b.c.d`). Ports are in host order. Times are nanoseconds of the boot
//! clock (suspended time included).
#![no_std]

mod control;
mod layout;
mod look;
mod records;
mod sockets;

pub use control::Control;
pub use layout::Fingerprint;
pub use look::{FoundSocket, FoundTask, LookOffsets};
pub use records::{CgroupRecord, CountedSocket, DnsRecord, EdgeRecord, FoundOpen, ListenerRecord, ProcessRecord, RecordHeader, kind};
pub use sockets::{Address, EdgeKey, EdgeValue, Owner, direction, flag};

/// Version of all layouts in this crate.
pub const ABI_VERSION: u32 = 3;

/// IP protocol number of TCP, as in [`EdgeKey::protocol`].
pub const PROTOCOL_TCP: u8 = 6;

/// IP protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;

/// Number of MPTCP as kernels and processes say it; no packet has it.
pub const PROTOCOL_MPTCP: u16 = 262;

/// The port of DNS servers.
pub const DNS_PORT: u16 = 53;

/// Slots of the per-CPU counter array of all objects. A slot's total is the sum over all CPUs.
pub mod counter {
    /// Connection ends that were seen established.
    pub const ENDS_SEEN: u32 = 0;
    /// Changes of the edge table: when this stands still, there is nothing to read.
    pub const EDGES_CHANGED: u32 = 1;
    /// Changes of connections that found the edge table full and went to the ring instead.
    pub const EDGES_OVERFLOWED: u32 = 2;
    /// Changes that found the edge table full and the ring too: connection ends that are not counted.
    pub const EDGES_LOST: u32 = 3;
    /// First-sight records that found the network ring full. Their counters are in the edge table.
    pub const NETWORK_RING_FULL: u32 = 4;
    /// Records that found the process ring full.
    pub const PROCESS_RING_FULL: u32 = 5;
    /// Sockets whose storage could not be allocated.
    pub const STORAGE_FAILED: u32 = 6;
    /// Client ends without a known owner: the socket was connected by the kernel itself or before the programs were attached.
    pub const OWNER_MISSING_CLIENT: u32 = 7;
    /// Server ends without a known owner: the listener is older than the programs and was not seeded.
    pub const OWNER_MISSING_SERVER: u32 = 8;
    /// Sockets that the last sweeps visited.
    pub const SWEPT: u32 = 9;
    /// Records of listeners that found the network ring full.
    pub const LISTENERS_LOST: u32 = 10;
    /// Talks and connected sockets of UDP that found no room in the edge table: they are not told. A talk counts once for each datagram.
    pub const TALKS_LOST: u32 = 11;
    /// DNS messages that found their ring full.
    pub const DNS_RING_FULL: u32 = 15;
    /// How many slots there are.
    pub const COUNT: u32 = 16;
}

/// Slots of the array that bounds how many entries of the edge table UDP has.
pub mod talks {
    /// Entries that were made; the programs write it. Wraps.
    pub const MADE: u32 = 0;
    /// Up to here they may be made; the probe writes it, raised by every entry that has left. Wraps.
    pub const LIMIT: u32 = 1;
    /// How many slots there are.
    pub const COUNT: u32 = 2;
}

/// Offsets of kernel structure members in bytes, read from the running kernel's BTF by the probe and set before the programs are loaded.
/// `0` means unknown: what needs the member is left out. (No member that is used here lies at offset 0, except where noted.)
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskOffsets {
    /// `task_struct.tgid`
    pub tgid: u32,
    /// `task_struct.pid`
    pub pid: u32,
    /// `task_struct.start_boottime` (`real_start_time` before 5.5)
    pub start_boottime: u32,
    /// `task_struct.group_leader`
    pub group_leader: u32,
    /// `task_struct.real_parent`
    pub real_parent: u32,
    /// `task_struct.exit_code`
    pub exit_code: u32,
    /// `task_struct.signal`
    pub signal: u32,
    /// `signal_struct.live`
    pub signal_live: u32,
    /// `task_struct.cred`
    pub cred: u32,
    /// `cred.euid`
    pub cred_euid: u32,
    /// `task_struct.cgroups`
    pub cgroups: u32,
    /// `css_set.dfl_cgrp`
    pub default_cgroup: u32,
}

/// Offsets that the cgroup programs need; see [`TaskOffsets`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupOffsets {
    /// `cgroup.kn`
    pub node: u32,
    /// `kernfs_node.id`
    pub node_id: u32,
    /// `cgroup.root`
    pub root: u32,
    /// `cgroup_root.hierarchy_id`
    pub hierarchy_id: u32,
}

/// Offsets that the sweep and exact end-of-stream accounting need; see [`TaskOffsets`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketOffsets {
    /// `sock_common.skc_family`
    pub family: u32,
    /// `sock_common.skc_state`
    pub state: u32,
    /// `sock_common.skc_dport`, network order
    pub remote_port: u32,
    /// `sock_common.skc_num`, host order
    pub local_port: u32,
    /// `sock_common.skc_daddr`; it may be 0 truly
    pub remote_address4: u32,
    /// `sock_common.skc_rcv_saddr`
    pub local_address4: u32,
    /// `sock_common.skc_v6_daddr`
    pub remote_address6: u32,
    /// `sock_common.skc_v6_rcv_saddr`
    pub local_address6: u32,
    /// `sock.sk_flags` (in its `sock_common`)
    pub flags: u32,
    /// `tcp_sock.bytes_received`
    pub bytes_received: u32,
    /// `tcp_sock.bytes_acked`
    pub bytes_acked: u32,
    /// `tcp_sock.srtt_us`
    pub srtt_us: u32,
    /// `tcp_sock.total_retrans`
    pub total_retrans: u32,
    /// `sock_common.skc_incoming_cpu`
    pub incoming_cpu: u32,
}

/// Everything that user space tells the programs when it loads them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// [`ABI_VERSION`] of the loader.
    pub abi_version: u32,
    /// Bits of [`setting`].
    pub bits: u32,
    /// Members of tasks.
    pub task: TaskOffsets,
    /// Members of cgroups.
    pub cgroup: CgroupOffsets,
    /// Members of sockets.
    pub socket: SocketOffsets,
    /// Members that only a look at what is there needs.
    pub look: LookOffsets,
    /// First of the ports that the kernel gives to sockets that want any.
    pub ephemeral_first: u32,
    /// Last of them.
    pub ephemeral_last: u32,
}

/// Bits of [`Settings::bits`].
pub mod setting {
    /// The loader may read kernel memory (`CAP_PERFMON`): offsets may be used.
    pub const READ_KERNEL: u32 = 1;
}

const _: () = assert!(size_of::<TaskOffsets>() == 48);
const _: () = assert!(size_of::<CgroupOffsets>() == 16);
const _: () = assert!(size_of::<SocketOffsets>() == 56);
const _: () = assert!(size_of::<Settings>() == 136 + size_of::<LookOffsets>());

#[cfg(feature = "user")]
mod pod {
    // SAFETY: all of these are `repr(C)`, made of integers alone, without padding (their sizes are asserted next to them).
    unsafe impl aya::Pod for crate::Settings {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::EdgeKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::EdgeValue {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::Owner {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::EdgeRecord {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::FoundOpen {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::CountedSocket {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::FoundSocket {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::FoundTask {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::Control {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::ListenerRecord {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::ProcessRecord {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::CgroupRecord {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::DnsRecord {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::RecordHeader {}
}
