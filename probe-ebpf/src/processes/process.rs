//! Fork, exec, exit, and ends for want of memory. Threads are left out.

use aya_ebpf::{
    helpers::{bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid},
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use aya_log_ebpf::debug;
use probe_common::{ProcessRecord, RecordHeader, counter, kind};
use probe_ebpf::{control, counters::count, now, offset, task, task::KernelPointer};

use crate::ring::PROCESS_RING;

/// `sched_process_fork(parent, child)`. Runs in the parent. Says nothing when the kernel's BTF is missing: the child cannot be read then, and
/// its exec tells of it.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn process_fork(ctx: RawTracePointContext) -> i32 {
    let child = ctx.arg::<u64>(1);
    let (Some(tgid), Some(pid)) = (task::read::<u32>(child, offset!(task.tgid)), task::read::<u32>(child, offset!(task.pid))) else {
        return 0;
    };
    if pid != tgid {
        return 0;
    }
    debug!(&ctx, "fork: {} by {}", tgid, tgid_of_current());
    tell(kind::FORK, child, tgid, 0);
    0
}

/// `sched_process_exec(task, old_pid, binprm)`. Runs in the process, when the new program is in place.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn process_exec(ctx: RawTracePointContext) -> i32 {
    debug!(&ctx, "exec: {}", tgid_of_current());
    tell(kind::EXEC, ctx.arg::<u64>(0), tgid_of_current(), 0);
    0
}

/// `sched_process_exit(task[, group_dead])`. Runs in each thread that ends; the last one's counts. The kernel
/// counts a thread out before it comes here, so two that end in the same instant may both be the last: an exit is then told twice, with one status
/// and one start, and whoever is told knows that process as ended already.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn process_exit(ctx: RawTracePointContext) -> i32 {
    let task = ctx.arg::<u64>(0);
    let live =
        task::read::<KernelPointer>(task, offset!(task.signal)).and_then(|signal| task::read::<i32>(signal, offset!(task.signal_live)));
    let ended = match live {
        Some(live) => live == 0,
        None => bpf_get_current_pid_tgid() as u32 == tgid_of_current(),
    };
    if ended {
        debug!(&ctx, "exit: {}", tgid_of_current());
        tell(kind::EXIT, task, tgid_of_current(), task::read::<i32>(task, offset!(task.exit_code)).unwrap_or(0));
    }
    0
}

/// `mark_victim(pid)` up to Linux 6.8, `mark_victim(task, uid)` since: memory ran out, and the kernel ends a process. Runs in the one that asked
/// for memory.
#[raw_tracepoint(tracepoint = "mark_victim")]
pub fn oom_kill(ctx: RawTracePointContext) -> i32 {
    /// No process has a number above this (`PID_MAX_LIMIT`), and no task lies below it.
    const PID_MAX: u64 = 4 << 20;
    let victim = ctx.arg::<u64>(0);
    let (tgid, start_ns) = if victim <= PID_MAX {
        (victim as u32, 0)
    } else {
        (task::read::<u32>(victim, offset!(task.tgid)).unwrap_or(0), task::start_of_group(victim))
    };
    let Some(mut entry) = PROCESS_RING.reserve::<ProcessRecord>(0) else {
        count(counter::PROCESS_RING_FULL);
        return 0;
    };
    entry.write(ProcessRecord {
        header: RecordHeader { at_ns: now(), kind: kind::OOM_KILL, length: size_of::<ProcessRecord>() as u32 },
        start_ns,
        cgroup_id: 0,
        tgid,
        parent_tgid: 0,
        user_id: 0,
        status: 0,
        comm: [0; 16],
    });
    entry.submit(0);
    0
}

#[inline(always)]
fn tgid_of_current() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

#[inline(always)]
fn tell(kind: u32, task: KernelPointer, tgid: u32, status: i32) {
    if !control::is_awake() {
        return;
    }
    let Some(mut entry) = PROCESS_RING.reserve::<ProcessRecord>(0) else { return count(counter::PROCESS_RING_FULL) };
    entry.write(ProcessRecord {
        header: RecordHeader { at_ns: now(), kind, length: size_of::<ProcessRecord>() as u32 },
        start_ns: task::start_of_group(task),
        cgroup_id: cgroup_of(task),
        tgid,
        parent_tgid: task::read::<KernelPointer>(task, offset!(task.real_parent))
            .and_then(|parent| task::read(parent, offset!(task.tgid)))
            .unwrap_or(0),
        user_id: user_of(task),
        status,
        // A child has its parent's name until it executes something.
        comm: bpf_get_current_comm().unwrap_or_default(),
    });
    entry.submit(0);
}

/// A child may be born into another cgroup than its parent's (`CLONE_INTO_CGROUP`), so the task is asked first.
#[inline(always)]
fn cgroup_of(task: KernelPointer) -> u64 {
    match task::cgroup_of(task) {
        // SAFETY: the helper has no preconditions.
        0 => unsafe { bpf_get_current_cgroup_id() },
        id => id,
    }
}

#[inline(always)]
fn user_of(task: KernelPointer) -> u32 {
    task::read::<KernelPointer>(task, offset!(task.cred))
        .and_then(|cred| task::read(cred, offset!(task.cred_euid)))
        .unwrap_or(bpf_get_current_uid_gid() as u32)
}
