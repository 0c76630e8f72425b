//! Reading members of tasks and cgroups.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_task, bpf_probe_read_kernel};

use crate::{offset, settings};

/// Address of a kernel structure.
pub type KernelPointer = u64;

/// Reads a member of a kernel structure; `None` when the pointer is null, the offset unknown or the memory not there.
#[inline(always)]
pub fn read<T>(base: KernelPointer, offset: u32) -> Option<T> {
    if base == 0 || offset == 0 {
        return None;
    }
    read_at(base, offset)
}

/// As [`read`], for members whose offset may be 0.
#[inline(always)]
pub fn read_at<T>(base: KernelPointer, offset: u32) -> Option<T> {
    // SAFETY: the helper checks the address itself and fails on a bad one.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T) }.ok()
}

/// The running task.
#[inline(always)]
pub fn current() -> KernelPointer {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_current_task() }
}

/// Start of the thread group of a task; 0 when it cannot be told.
#[inline(always)]
pub fn start_of_group(task: KernelPointer) -> u64 {
    match read::<KernelPointer>(task, offset!(task.group_leader)) {
        Some(leader) => read(leader, offset!(task.start_boottime)).unwrap_or(0),
        None => 0,
    }
}

/// Start of the thread group of the running task; 0 when it cannot be told.
#[inline(always)]
pub fn start_of_current() -> u64 {
    if settings::may_read_kernel() && offset!(task.group_leader) != 0 && offset!(task.start_boottime) != 0 {
        let task = current();
        let id = bpf_get_current_pid_tgid();
        // As a rule the thread is the group's first.
        if id >> 32 == id & 0xffff_ffff { read(task, offset!(task.start_boottime)).unwrap_or(0) } else { start_of_group(task) }
    } else {
        0
    }
}

/// cgroup v2 id of a task; 0 when it cannot be told.
#[inline(always)]
pub fn cgroup_of(task: KernelPointer) -> u64 {
    let Some(set) = read::<KernelPointer>(task, offset!(task.cgroups)) else { return 0 };
    match read::<KernelPointer>(set, offset!(task.default_cgroup)) {
        Some(cgroup) => cgroup_id(cgroup),
        None => 0,
    }
}

/// Id of a cgroup: the inode number of its directory; 0 when it cannot be told.
#[inline(always)]
pub fn cgroup_id(cgroup: KernelPointer) -> u64 {
    match read::<KernelPointer>(cgroup, offset!(cgroup.node)) {
        Some(node) => read(node, offset!(cgroup.node_id)).unwrap_or(0),
        None => 0,
    }
}
