//! The ring of this object.

use aya_ebpf::{macros::map, maps::RingBuf};

/// Carries `ProcessRecord` and `CgroupRecord`.
#[map]
pub static PROCESS_RING: RingBuf = RingBuf::with_byte_size(512 * 1024, 0);
