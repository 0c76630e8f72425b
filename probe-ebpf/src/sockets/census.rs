//! Which connections are counted, and which sockets are told as listeners: iterators over the sockets that have storage, run by a probe that takes over
//! from another one, and by one that lost records. Kernels that let nobody walk over the entries of maps have them walk over descriptors.

use core::ffi::c_void;

use probe_common::{CountedSocket, ListenerRecord, Owner, RecordHeader, direction, flag, kind};
use probe_ebpf::{
    context::{mapped, words},
    now, offset, task,
    task::KernelPointer,
};

use crate::sweep::{key_of, of_descriptor, of_storage, tell};

const AF_INET: u16 = 2;

/// Runs once for each socket with storage, and once more without one at the end.
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
#[unsafe(no_mangle)]
pub extern "C" fn census(ctx: *mut c_void) -> i32 {
    if let Some((socket, owner)) = of_storage(ctx) {
        tell_counted(ctx, socket, owner);
    }
    0
}

/// The same over descriptors.
#[unsafe(link_section = "iter/task_file")]
#[unsafe(no_mangle)]
pub extern "C" fn census_files(ctx: *mut c_void) -> i32 {
    if let Some((socket, owner)) = of_descriptor(ctx) {
        tell_counted(ctx, socket, owner);
    }
    0
}

#[inline(always)]
fn tell_counted(ctx: *mut c_void, socket: KernelPointer, owner: &Owner) {
    if owner.flags & flag::OPENED == 0 {
        return;
    }
    let (key, client_port) = key_of(socket, owner);
    let translated = key.direction == direction::CLIENT
        && owner.original_port != 0
        && (owner.original_port != key.server_port || owner.original_server != key.server);
    let counted = CountedSocket {
        key,
        cookie: task::read::<u64>(socket, offset!(look.cookie)).unwrap_or(0),
        socket,
        original_server: if translated { owner.original_server } else { [0; 16] },
        client_port,
        original_port: if translated { owner.original_port } else { 0 },
        reserved: 0,
    };
    tell(ctx, &counted);
}

/// Writes the record that was sent when the socket began to listen. Runs as `census` does.
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
#[unsafe(no_mangle)]
pub extern "C" fn listening(ctx: *mut c_void) -> i32 {
    if let Some((socket, owner)) = of_storage(ctx) {
        tell_listener(ctx, socket, owner);
    }
    0
}

/// The same over descriptors.
#[unsafe(link_section = "iter/task_file")]
#[unsafe(no_mangle)]
pub extern "C" fn listening_files(ctx: *mut c_void) -> i32 {
    if let Some((socket, owner)) = of_descriptor(ctx) {
        tell_listener(ctx, socket, owner);
    }
    0
}

#[inline(always)]
fn tell_listener(ctx: *mut c_void, socket: KernelPointer, owner: &Owner) {
    if owner.flags & flag::LISTENING == 0 {
        return;
    }
    let address = if task::read::<u16>(socket, offset!(socket.family)) == Some(AF_INET) {
        mapped(task::read_at(socket, offset!(socket.local_address4)).unwrap_or(0))
    } else {
        words(task::read(socket, offset!(socket.local_address6)).unwrap_or_default())
    };
    let listener = ListenerRecord {
        header: RecordHeader { at_ns: now(), kind: kind::LISTENER_OPENED, length: size_of::<ListenerRecord>() as u32 },
        cookie: task::read(socket, offset!(look.cookie)).unwrap_or(0),
        cgroup_id: owner.cgroup_id,
        netns: owner.netns,
        start_ns: owner.start_ns,
        address,
        tgid: owner.tgid,
        port: task::read(socket, offset!(socket.local_port)).unwrap_or(0),
        protocol: task::read::<u16>(socket, offset!(look.protocol)).unwrap_or(0) as u8,
        reserved: 0,
    };
    if listener.cookie != 0 {
        tell(ctx, &listener);
    }
}
