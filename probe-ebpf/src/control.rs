//! Whether anybody still wants to know. Programs may outlive their probe, so that another one finds what happened meanwhile; when none comes
//! for long, they return at once.

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::map, maps::Array};
use probe_common::Control;

/// Not awake until the probe has written it.
#[map]
static CONTROL: Array<Control> = Array::with_max_entries(1, 0);

/// Whether a probe lives, or has lived a short while ago.
#[inline(always)]
pub fn is_awake() -> bool {
    let Some(control) = CONTROL.get_ptr(0) else { return false };
    // SAFETY: a value of the map. Volatile, because the probe writes it meanwhile; one word, so it is never half written.
    let until = unsafe { core::ptr::read_volatile(&raw const (*control).awake_until_ns) };
    // SAFETY: the helper has no preconditions. Programs that do not outlive their probe need not look at the clock.
    until == u64::MAX || unsafe { bpf_ktime_get_ns() } < until
}
