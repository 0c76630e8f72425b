//! Counters, one set per CPU. The only place where losses are counted.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use probe_common::counter;

use crate::context::add64;

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::COUNT, 0);

/// Adds one to a slot of `probe_common::counter`.
#[inline(always)]
pub fn count(slot: u32) {
    if let Some(value) = COUNTERS.get_ptr_mut(slot) {
        // SAFETY: a value of the map. Atomic because a program in softirq may interrupt one in process context on the same CPU.
        unsafe { add64(value, 1) }
    }
}
