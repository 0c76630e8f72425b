//! Which connections are counted: an iterator over the sockets that have storage, run once by a probe that takes over from another one.

use core::ffi::c_void;

use probe_common::{CountedSocket, Owner, direction, flag};
use probe_ebpf::{context::only_if, context64, offset, settings, task};

use crate::sweep::{iterator, key_of, tell};

/// Runs once for each socket with storage, and once more without one at the end.
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
#[unsafe(no_mangle)]
pub extern "C" fn census(ctx: *mut c_void) -> i32 {
    let socket = context64!(@load ctx, iterator::SOCKET);
    let value = context64!(@load ctx, iterator::VALUE) as *const Owner;
    if socket == 0 || value.is_null() || !settings::may_read_kernel() {
        return 0;
    }
    // SAFETY: the storage of this socket, which lives as long as the program runs.
    let owner = unsafe { &*value };
    if owner.flags & flag::OPENED == 0 {
        return 0;
    }
    let (key, client_port) = key_of(socket, owner);
    let translated = key.direction == direction::CLIENT
        && owner.original_port != 0
        && (owner.original_port != key.server_port || owner.original_server != key.server);
    let counted = CountedSocket {
        key,
        cookie: task::read::<u64>(socket, offset!(look.cookie)).unwrap_or(0),
        socket,
        original_server: only_if(translated, owner.original_server),
        client_port,
        original_port: if translated { owner.original_port } else { 0 },
        reserved: 0,
    };
    tell(ctx, &counted);
    0
}
