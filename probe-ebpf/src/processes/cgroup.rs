//! cgroups of the v2 hierarchy: made, removed, entered. The tracepoints fire for v1 hierarchies as well; those are left out.

use aya_ebpf::{helpers::generated::bpf_probe_read_kernel_str, macros::raw_tracepoint, programs::RawTracePointContext};
use probe_common::{CgroupRecord, counter, kind};
use probe_ebpf::{control, counters::count, now, offset, task, task::KernelPointer};

use crate::ring::PROCESS_RING;

/// `cgroup_mkdir(cgroup, path)`. Comes before the first process of the cgroup.
#[raw_tracepoint(tracepoint = "cgroup_mkdir")]
pub fn cgroup_mkdir(ctx: RawTracePointContext) -> i32 {
    tell(kind::CGROUP_CREATE, ctx.arg::<u64>(0), ctx.arg::<u64>(1), 0);
    0
}

/// `cgroup_rmdir(cgroup, path)`.
#[raw_tracepoint(tracepoint = "cgroup_rmdir")]
pub fn cgroup_rmdir(ctx: RawTracePointContext) -> i32 {
    tell(kind::CGROUP_REMOVE, ctx.arg::<u64>(0), ctx.arg::<u64>(1), 0);
    0
}

/// `cgroup_attach_task(cgroup, path, task, threadgroup)`.
#[raw_tracepoint(tracepoint = "cgroup_attach_task")]
pub fn cgroup_attach(ctx: RawTracePointContext) -> i32 {
    let tgid = task::read::<u32>(ctx.arg::<u64>(2), offset!(task.tgid)).unwrap_or(0);
    tell(kind::CGROUP_ATTACH, ctx.arg::<u64>(0), ctx.arg::<u64>(1), tgid);
    0
}

#[inline(always)]
fn tell(kind: u32, cgroup: KernelPointer, path: KernelPointer, tgid: u32) {
    if !control::is_awake() || !is_v2(cgroup) {
        return;
    }
    let Some(mut entry) = PROCESS_RING.reserve::<CgroupRecord>(0) else { return count(counter::PROCESS_RING_FULL) };
    let record = entry.as_mut_ptr();
    // SAFETY: `record` is memory of the ring, as large as the type; every member is written, the path as far as `path_length` tells (what
    // lies behind it was written by other records of this ring and is not read).
    unsafe {
        (*record).header.at_ns = now();
        (*record).header.kind = kind;
        (*record).header.length = size_of::<CgroupRecord>() as u32;
        (*record).id = task::cgroup_id(cgroup);
        (*record).tgid = tgid;
        let length = bpf_probe_read_kernel_str((&raw mut (*record).path).cast(), CgroupRecord::PATH_CAPACITY as u32, path as *const _);
        // The terminating zero is counted.
        (*record).path_length = if length > 0 { length as u32 - 1 } else { 0 };
    }
    entry.submit(0);
}

/// The v2 hierarchy has the number 0.
#[inline(always)]
fn is_v2(cgroup: KernelPointer) -> bool {
    task::read::<KernelPointer>(cgroup, offset!(cgroup.root)).and_then(|root| task::read_at::<i32>(root, offset!(cgroup.hierarchy_id)))
        == Some(0)
}
