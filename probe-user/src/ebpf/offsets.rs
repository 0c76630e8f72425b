//! The members of kernel structures that the programs read.

use std::path::Path;

use probe_common::{CgroupOffsets, LookOffsets, SocketOffsets, TaskOffsets};

use super::btf::{Btf, BtfError};

/// All offsets, and what was not found.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    pub(super) task: TaskOffsets,
    pub(super) cgroup: CgroupOffsets,
    pub(super) socket: SocketOffsets,
    pub(super) look: LookOffsets,
    /// Members that this kernel does not have.
    pub(super) missing: Vec<String>,
}

impl Offsets {
    /// Whether the start of a process can be read.
    pub(super) fn tell_start_times(&self) -> bool {
        self.task.start_boottime != 0 && self.task.group_leader != 0
    }

    /// Whether cgroups can be told apart.
    pub(super) fn tell_cgroups(&self) -> bool {
        self.cgroup.node != 0 && self.cgroup.node_id != 0 && self.cgroup.root != 0
    }

    /// Whether the sockets that processes hold can be found.
    pub(super) fn tell_descriptors(&self) -> bool {
        let look = &self.look;
        let needed =
            [look.file_inode, look.file_private_data, look.inode_number, look.socket_sock, look.protocol, look.net, look.net_inode];
        needed.iter().all(|offset| *offset != 0) && self.socket.state != 0 && self.socket.family != 0
    }

    /// Whether the counters of open sockets can be read.
    pub(super) fn tell_live_bytes(&self) -> bool {
        self.socket.bytes_acked != 0 && self.socket.bytes_received != 0 && self.socket.state != 0 && self.socket.family != 0
    }
}

/// Reads them from the kernel's type information.
pub(super) fn read(path: &Path) -> Result<Offsets, BtfError> {
    let btf = Btf::read(
        path,
        &[
            "task_struct",
            "signal_struct",
            "cred",
            "css_set",
            "cgroup",
            "cgroup_root",
            "kernfs_node",
            "sock_common",
            "sock",
            "tcp_sock",
            "file",
            "inode",
            "socket",
            "net",
            "ns_common",
            "mptcp_sock",
        ],
    )?;
    let mut missing = Vec::new();
    let mut of = |structure: &str, names: &[&str]| {
        names.iter().find_map(|name| btf.offset(structure, name)).unwrap_or_else(|| {
            missing.push(format!("{structure}.{}", names.join("|")));
            0
        })
    };
    let task = TaskOffsets {
        tgid: of("task_struct", &["tgid"]),
        pid: of("task_struct", &["pid"]),
        start_boottime: of("task_struct", &["start_boottime", "real_start_time"]),
        group_leader: of("task_struct", &["group_leader"]),
        real_parent: of("task_struct", &["real_parent"]),
        exit_code: of("task_struct", &["exit_code"]),
        signal: of("task_struct", &["signal"]),
        signal_live: of("signal_struct", &["live"]),
        cred: of("task_struct", &["cred"]),
        cred_euid: of("cred", &["euid"]),
        cgroups: of("task_struct", &["cgroups"]),
        default_cgroup: of("css_set", &["dfl_cgrp"]),
    };
    let cgroup = CgroupOffsets {
        node: of("cgroup", &["kn"]),
        node_id: of("kernfs_node", &["id"]),
        root: of("cgroup", &["root"]),
        hierarchy_id: of("cgroup_root", &["hierarchy_id"]),
    };
    let socket = SocketOffsets {
        family: of("sock_common", &["skc_family"]),
        state: of("sock_common", &["skc_state"]),
        remote_port: of("sock_common", &["skc_dport"]),
        local_port: of("sock_common", &["skc_num"]),
        remote_address4: of("sock_common", &["skc_daddr"]),
        local_address4: of("sock_common", &["skc_rcv_saddr"]),
        remote_address6: of("sock_common", &["skc_v6_daddr"]),
        local_address6: of("sock_common", &["skc_v6_rcv_saddr"]),
        flags: of("sock_common", &["skc_flags"]),
        bytes_received: of("tcp_sock", &["bytes_received"]),
        bytes_acked: of("tcp_sock", &["bytes_acked"]),
        srtt_us: of("tcp_sock", &["srtt_us"]),
        total_retrans: of("tcp_sock", &["total_retrans"]),
        incoming_cpu: of("sock_common", &["skc_incoming_cpu"]),
    };
    let inside = |offset: u32, inner: u32| if offset == 0 { 0 } else { offset + inner };
    let look = LookOffsets {
        comm: of("task_struct", &["comm"]),
        file_inode: of("file", &["f_inode"]),
        file_private_data: of("file", &["private_data"]),
        inode_mode: of("inode", &["i_mode"]),
        inode_number: of("inode", &["i_ino"]),
        socket_sock: of("socket", &["sk"]),
        protocol: of("sock", &["sk_protocol"]),
        net: of("sock_common", &["skc_net"]),
        net_inode: inside(of("net", &["ns"]), of("ns_common", &["inum"])),
        net_cookie: of("net", &["net_cookie"]),
        cookie: of("sock_common", &["skc_cookie"]),
        // Many a kernel has none, and lacks nothing.
        mptcp_first: btf.offset("mptcp_sock", "first").unwrap_or(0),
    };
    Ok(Offsets { task, cgroup, socket, look, missing })
}
