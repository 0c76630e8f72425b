//! The end of a table of edges that other programs have filled: an iterator over it adds every entry to this object's table.
//!
//! The programs that filled it do not run any more. An entry is emptied in the run that adds it, so that it is added once whatever becomes of the
//! probe meanwhile.

use core::ffi::c_void;

use probe_common::{EdgeKey, EdgeValue, PROTOCOL_TCP};
use probe_ebpf::context64;

use crate::edges;

/// Members of `struct bpf_iter__bpf_map_elem`.
mod iterator {
    pub const KEY: usize = 16;
    pub const VALUE: usize = 24;
}

/// Runs once for each entry, and once more without one at the end.
#[unsafe(link_section = "iter/bpf_map_elem")]
#[unsafe(no_mangle)]
pub extern "C" fn fold(ctx: *mut c_void) -> i32 {
    let key = context64!(@load ctx, iterator::KEY) as *const EdgeKey;
    let value = context64!(@load ctx, iterator::VALUE) as *mut EdgeValue;
    if key.is_null() || value.is_null() {
        return 0;
    }
    // SAFETY: an entry of the other table, of this layout: the probe compares layouts before it binds the program.
    let (key, mut change) = unsafe { (*key, *value) };
    if change.opened | change.closed | change.failed == 0
        && (key.protocol == PROTOCOL_TCP || change.tick == 0)
        && change.bytes_sent | change.bytes_received == 0
    {
        return 0;
    }
    // SAFETY: as above.
    unsafe { *value = EdgeValue::default() };
    let sample = edges::Sample { client_port: 0, original_server: [0; 16], original_port: 0, found_open: false };
    edges::add(&key, &mut change, &sample);
    0
}
