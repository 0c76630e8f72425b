//! What the probe set before it loaded the programs. To the verifier these are constants: a branch that they switch off is never looked at,
//! so it may use helpers that the probe has no right to.

use probe_common::{Settings, setting};

/// Set by the loader under this name.
#[unsafe(no_mangle)]
static SETTINGS: Settings = Settings {
    abi_version: probe_common::ABI_VERSION,
    bits: 0,
    task: probe_common::TaskOffsets {
        tgid: 0,
        pid: 0,
        start_boottime: 0,
        group_leader: 0,
        real_parent: 0,
        exit_code: 0,
        signal: 0,
        signal_live: 0,
        cred: 0,
        cred_euid: 0,
        cgroups: 0,
        default_cgroup: 0,
    },
    cgroup: probe_common::CgroupOffsets { node: 0, node_id: 0, root: 0, hierarchy_id: 0 },
    socket: probe_common::SocketOffsets {
        family: 0,
        state: 0,
        remote_port: 0,
        local_port: 0,
        remote_address4: 0,
        local_address4: 0,
        remote_address6: 0,
        local_address6: 0,
        flags: 0,
        bytes_received: 0,
        bytes_acked: 0,
        srtt_us: 0,
        total_retrans: 0,
        incoming_cpu: 0,
    },
    look: probe_common::LookOffsets {
        comm: 0,
        file_inode: 0,
        file_private_data: 0,
        inode_mode: 0,
        inode_number: 0,
        socket_sock: 0,
        protocol: 0,
        net: 0,
        net_inode: 0,
        net_cookie: 0,
        cookie: 0,
        mptcp_first: 0,
    },
    ephemeral_first: 32_768,
    ephemeral_last: 60_999,
};

/// The settings, to be read with [`get`].
#[inline(always)]
pub fn all() -> *const Settings {
    &raw const SETTINGS
}

/// One number of the settings.
///
/// # Safety
/// `member` points into [`all`].
#[inline(always)]
pub unsafe fn get(member: *const u32) -> u32 {
    // SAFETY: by the caller. Volatile, or the compiler would take the zeroes above for the truth.
    unsafe { core::ptr::read_volatile(member) }
}

/// Reads one offset: `offset!(task.tgid)`.
#[macro_export]
macro_rules! offset {
    ($group:ident . $member:ident) => {
        // SAFETY: a member of the settings.
        unsafe { $crate::settings::get(&raw const (*$crate::settings::all()).$group.$member) }
    };
}

/// Whether kernel memory may be read.
#[inline(always)]
pub fn may_read_kernel() -> bool {
    // SAFETY: a member of the settings.
    unsafe { get(&raw const (*all()).bits) & setting::READ_KERNEL != 0 }
}

/// Whether the kernel gives this port to sockets that want any.
#[inline(always)]
pub fn is_ephemeral(port: u16) -> bool {
    // SAFETY: members of the settings.
    let (first, last) = unsafe { (get(&raw const (*all()).ephemeral_first), get(&raw const (*all()).ephemeral_last)) };
    first <= u32::from(port) && u32::from(port) <= last
}
