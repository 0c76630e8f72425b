//! What is there when the probe starts: iterators over all tasks, and over all their descriptors. They see the sockets of every network
//! namespace, and cost a hundredth of what the same look at `/proc` does.

use core::ffi::c_void;

use probe_common::{FoundSocket, FoundTask, PROTOCOL_MPTCP, PROTOCOL_TCP, PROTOCOL_UDP};
use probe_ebpf::{
    context::{mapped, words},
    context64, offset, settings, task,
    task::KernelPointer,
};

use crate::{sweep::tell, tcp};

/// Members of `struct bpf_iter__task` and `struct bpf_iter__task_file`, which begins alike.
pub mod iterator {
    /// `task`
    pub const TASK: usize = 8;
    /// `fd`
    pub const DESCRIPTOR: usize = 16;
    /// `file`
    pub const FILE: usize = 24;
}

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const FILE_TYPE: u16 = 0o170_000;
const SOCKET: u16 = 0o140_000;

/// Runs once for each task, and once more without one at the end.
#[unsafe(link_section = "iter/task")]
#[unsafe(no_mangle)]
pub extern "C" fn tasks(ctx: *mut c_void) -> i32 {
    let task = context64!(@load ctx, iterator::TASK);
    let Some((tgid, pid)) = ids(task) else { return 0 };
    if tgid != pid || has_ended(task) {
        return 0;
    }
    let found = FoundTask {
        start_ns: task::start_of_group(task),
        cgroup_id: task::cgroup_of(task),
        tgid,
        parent_tgid: task::read::<KernelPointer>(task, offset!(task.real_parent))
            .and_then(|parent| task::read(parent, offset!(task.tgid)))
            .unwrap_or(0),
        user_id: task::read::<KernelPointer>(task, offset!(task.cred))
            .and_then(|cred| task::read(cred, offset!(task.cred_euid)))
            .unwrap_or(0),
        reserved: 0,
        comm: task::read(task, offset!(look.comm)).unwrap_or_default(),
    };
    tell(ctx, &found);
    0
}

/// Runs once for each descriptor of each task that has a table of its own, and once more without one at the end.
#[unsafe(link_section = "iter/task_file")]
#[unsafe(no_mangle)]
pub extern "C" fn files(ctx: *mut c_void) -> i32 {
    let task = context64!(@load ctx, iterator::TASK);
    let file = context64!(@load ctx, iterator::FILE);
    if task == 0 || file == 0 || !settings::may_read_kernel() {
        return 0;
    }
    let Some(inode) = task::read::<KernelPointer>(file, offset!(look.file_inode)) else { return 0 };
    if task::read_at::<u16>(inode, offset!(look.inode_mode)).unwrap_or(0) & FILE_TYPE != SOCKET {
        return 0;
    }
    let Some(socket) = task::read::<KernelPointer>(file, offset!(look.file_private_data)) else { return 0 };
    let Some(socket) = task::read::<KernelPointer>(socket, offset!(look.socket_sock)) else { return 0 };
    let (socket, protocol) = match task::read::<u16>(socket, offset!(look.protocol)) {
        Some(protocol) if protocol == u16::from(PROTOCOL_TCP) || protocol == u16::from(PROTOCOL_UDP) => (socket, protocol as u8),
        // One that listens: the descriptor leads to a socket of MPTCP, and what is accepted comes from the TCP socket behind it.
        Some(PROTOCOL_MPTCP) => match behind_mptcp(socket) {
            Some(behind) if task::read::<u8>(behind, offset!(socket.state)) == Some(tcp::state::LISTEN as u8) => (behind, PROTOCOL_TCP),
            _ => return 0,
        },
        _ => return 0,
    };
    // The others are smaller.
    let has_counters = protocol == PROTOCOL_TCP;
    let Some((tgid, _)) = ids(task) else { return 0 };
    let (local, remote) = match task::read::<u16>(socket, offset!(socket.family)) {
        Some(AF_INET) => (
            mapped(task::read_at(socket, offset!(socket.local_address4)).unwrap_or(0)),
            mapped(task::read_at(socket, offset!(socket.remote_address4)).unwrap_or(0)),
        ),
        Some(AF_INET6) => (
            words(task::read(socket, offset!(socket.local_address6)).unwrap_or_default()),
            words(task::read(socket, offset!(socket.remote_address6)).unwrap_or_default()),
        ),
        _ => return 0,
    };
    let net = task::read::<KernelPointer>(socket, offset!(look.net)).unwrap_or(0);
    let found = FoundSocket {
        local,
        remote,
        socket,
        inode: task::read(inode, offset!(look.inode_number)).unwrap_or(0),
        cookie: task::read(socket, offset!(look.cookie)).unwrap_or(0),
        netns: task::read(net, offset!(look.net_cookie)).unwrap_or(0),
        bytes_acked: if has_counters { task::read(socket, offset!(socket.bytes_acked)).unwrap_or(0) } else { 0 },
        bytes_received: if has_counters { task::read(socket, offset!(socket.bytes_received)).unwrap_or(0) } else { 0 },
        start_ns: task::start_of_group(task),
        cgroup_id: task::cgroup_of(task),
        netns_inode: task::read(net, offset!(look.net_inode)).unwrap_or(0),
        tgid,
        fd: context64!(@load ctx, iterator::DESCRIPTOR) as u32,
        retransmits: if has_counters { task::read(socket, offset!(socket.total_retrans)).unwrap_or(0) } else { 0 },
        rtt_us: if has_counters { task::read::<u32>(socket, offset!(socket.srtt_us)).unwrap_or(0) >> 3 } else { 0 },
        local_port: task::read(socket, offset!(socket.local_port)).unwrap_or(0),
        remote_port: u16::from_be(task::read(socket, offset!(socket.remote_port)).unwrap_or(0)),
        state: task::read(socket, offset!(socket.state)).unwrap_or(0),
        protocol,
        reserved: [0; 6],
    };
    tell(ctx, &found);
    0
}

/// The TCP socket that a socket of MPTCP began with.
#[inline(always)]
pub fn behind_mptcp(socket: KernelPointer) -> Option<KernelPointer> {
    match offset!(look.mptcp_first) {
        0 => None,
        first => task::read::<KernelPointer>(socket, first).filter(|behind| *behind != 0),
    }
}

/// Whether no thread of the group lives: what is left of it waits for its parent.
#[inline(always)]
fn has_ended(task: KernelPointer) -> bool {
    task::read::<KernelPointer>(task, offset!(task.signal)).and_then(|signal| task::read::<i32>(signal, offset!(task.signal_live)))
        == Some(0)
}

/// Thread group id and id of a task.
#[inline(always)]
fn ids(task: KernelPointer) -> Option<(u32, u32)> {
    if !settings::may_read_kernel() {
        return None;
    }
    Some((task::read(task, offset!(task.tgid))?, task::read(task, offset!(task.pid))?))
}
