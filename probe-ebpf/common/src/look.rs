//! What a look at the machine finds: processes, and the sockets that they hold.

use crate::Address;

/// Offsets that only a look needs; see [`crate::TaskOffsets`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookOffsets {
    /// `task_struct.comm`
    pub comm: u32,
    /// `file.f_inode`
    pub file_inode: u32,
    /// `file.private_data`
    pub file_private_data: u32,
    /// `inode.i_mode`; it may be 0 truly
    pub inode_mode: u32,
    /// `inode.i_ino`
    pub inode_number: u32,
    /// `socket.sk`
    pub socket_sock: u32,
    /// `sock.sk_protocol`
    pub protocol: u32,
    /// `sock_common.skc_net`
    pub net: u32,
    /// `net.ns`, and in it `ns_common.inum`
    pub net_inode: u32,
    /// `net.net_cookie`
    pub net_cookie: u32,
    /// `sock_common.skc_cookie`
    pub cookie: u32,
    /// `mptcp_sock.first`; 0 also where the kernel has no MPTCP
    pub mptcp_first: u32,
}

/// A socket that a process has open.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundSocket {
    /// This end.
    pub local: Address,
    /// The other end.
    pub remote: Address,
    /// Tells it apart from other sockets that are there now.
    pub socket: u64,
    /// Number that `/proc/<pid>/fd` shows.
    pub inode: u64,
    /// The kernel's number of the socket; 0 when nobody has asked for it yet.
    pub cookie: u64,
    /// Cookie of its network namespace; 0 when unknown.
    pub netns: u64,
    /// Payload bytes that the other end has acknowledged, and its SYN.
    pub bytes_acked: u64,
    /// Bytes received, and the other end's FIN.
    pub bytes_received: u64,
    /// Start of the holder.
    pub start_ns: u64,
    /// cgroup v2 id of the holder.
    pub cgroup_id: u64,
    /// Inode number of its network namespace.
    pub netns_inode: u32,
    /// Holder's thread group id.
    pub tgid: u32,
    /// Descriptor in the holder.
    pub fd: u32,
    /// Segments sent again.
    pub retransmits: u32,
    /// Smoothed round-trip time.
    pub rtt_us: u32,
    /// Port of this end.
    pub local_port: u16,
    /// Port of the other end.
    pub remote_port: u16,
    /// State of the socket, as in `include/net/tcp_states.h`.
    pub state: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// Always 0.
    pub reserved: [u8; 6],
}

/// A process that lives.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundTask {
    /// Its start.
    pub start_ns: u64,
    /// cgroup v2 id.
    pub cgroup_id: u64,
    /// Thread group id in the initial pid namespace.
    pub tgid: u32,
    /// Thread group id of the parent; 0 when unknown.
    pub parent_tgid: u32,
    /// Effective user.
    pub user_id: u32,
    /// Always 0.
    pub reserved: u32,
    /// Kernel's name of the task, padded with zeroes.
    pub comm: [u8; 16],
}

const _: () = assert!(size_of::<LookOffsets>() == 48);
const _: () = assert!(size_of::<FoundSocket>() == 128);
const _: () = assert!(size_of::<FoundTask>() == 48);
