//! Bytes of connections that stay open: an iterator over the sockets that have storage, run by the probe every few seconds. It sees the
//! sockets of all network namespaces.
//!
//! It adds to the edge table what a connection moved since the last sweep, and notes that in the socket's storage, so that the end of the
//! connection adds the rest alone. The socket is not locked meanwhile: the order of reading makes every number at most the truth, and what is
//! missing comes with the next sweep or the end.
//!
//! Kernels that let nobody walk over the entries of maps have it walk over the descriptors of all processes ([`sweep_files`]): a socket that is
//! open in several is come by several times, and then nothing has moved since.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_seq_write, generated::bpf_sock_from_file};
use probe_common::{EdgeKey, EdgeValue, FoundOpen, Owner, PROTOCOL_TCP, counter, direction, flag};
use probe_ebpf::{
    context::{mapped, words},
    context64,
    counters::count,
    offset, settings, task,
    task::KernelPointer,
};

use crate::{
    edges, look,
    owners::{self, settle, settle_open},
    tcp::{SOCK_DONE, state},
};

/// Members of `struct bpf_iter__bpf_sk_storage_map`, which the kernel hands to the program, and of the first of them.
pub mod iterator {
    /// `meta`
    pub const META: usize = 0;
    /// `sk`
    pub const SOCKET: usize = 16;
    /// `value`
    pub const VALUE: usize = 24;
    /// `meta->seq`
    pub const META_SEQUENCE: usize = 0;
}

const AF_INET: u16 = 2;

/// Runs once for each socket with storage, and once more without one at the end.
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
#[unsafe(no_mangle)]
pub extern "C" fn sweep(ctx: *mut c_void) -> i32 {
    visit::<true>(ctx);
    0
}

/// The same for kernels that cannot exchange atomically.
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
#[unsafe(no_mangle)]
pub extern "C" fn sweep_plain(ctx: *mut c_void) -> i32 {
    visit::<false>(ctx);
    0
}

/// The same for kernels that let nobody walk over the entries of maps.
#[unsafe(link_section = "iter/task_file")]
#[unsafe(no_mangle)]
pub extern "C" fn sweep_files(ctx: *mut c_void) -> i32 {
    if let Some((socket, owner)) = of_descriptor(ctx) {
        count_open::<true>(ctx, socket, owner);
    }
    0
}

#[inline(always)]
fn visit<const EXCHANGE: bool>(ctx: *mut c_void) {
    if let Some((socket, owner)) = of_storage(ctx) {
        count_open::<EXCHANGE>(ctx, socket, owner);
    }
}

/// The socket that a walk over the storage of sockets is at.
#[inline(always)]
pub fn of_storage<'a>(ctx: *mut c_void) -> Option<(KernelPointer, &'a mut Owner)> {
    let socket = context64!(@load ctx, iterator::SOCKET);
    let value = context64!(@load ctx, iterator::VALUE) as *mut Owner;
    if socket == 0 || value.is_null() || !settings::may_read_kernel() {
        return None;
    }
    // SAFETY: the storage of this socket, which lives as long as the program runs.
    Some((socket, unsafe { &mut *value }))
}

/// The socket that a walk over descriptors is at, if it has storage.
#[inline(always)]
pub fn of_descriptor<'a>(ctx: *mut c_void) -> Option<(KernelPointer, &'a mut Owner)> {
    let file = context64!(@load ctx, look::iterator::FILE);
    if file == 0 || !settings::may_read_kernel() {
        return None;
    }
    // SAFETY: the verifier has seen that it is a file.
    let socket = unsafe { bpf_sock_from_file(file as *mut _) } as u64;
    if socket == 0 {
        return None;
    }
    // Read as the kernel's types have it, so that the verifier knows what it is: it knows the offset, which nobody can change any more.
    let member = socket + u64::from(offset!(look.socket_sock));
    let socket = context64!(@load member, 0);
    if socket == 0 {
        return None;
    }
    owners::get(socket).map(|owner| (socket, owner))
}

#[inline(always)]
fn count_open<const EXCHANGE: bool>(ctx: *mut c_void, socket: KernelPointer, owner: &mut Owner) {
    // One that connected while the programs were being attached has an owner, and its connection is counted by looking.
    if owner.flags & (flag::OPENED | flag::FOUND_OPEN) == 0 {
        return;
    }
    let Some(progress) = progress(socket, owner) else { return };
    count(counter::SWEPT);
    let moved = progress.sent > owner.counted_sent || progress.received > owner.counted_received;
    let found_open = owner.flags & flag::FOUND_OPEN != 0;
    if !moved && !found_open {
        return;
    }
    // Before anything is settled: a socket that is closed meanwhile loses its port, and what was settled would go to a flow of no port.
    let (key, client_port) = key_of(socket, owner);
    if key.server_port == 0 || client_port == 0 {
        return;
    }
    let mut change = EdgeValue {
        bytes_sent: settle_open::<EXCHANGE>(&mut owner.counted_sent, progress.sent),
        bytes_received: settle_open::<EXCHANGE>(&mut owner.counted_received, progress.received),
        ..EdgeValue::default()
    };
    // A FIN is among the received bytes before its flag says so. Seen so, it has just been counted as a byte; and if the connection has ended
    // meanwhile, nobody comes to take it back. It was among them if nothing has come since: nothing comes after a FIN.
    if change.bytes_received != 0
        && !progress.fin_taken
        && fin_taken(socket)
        && task::read::<u64>(socket, offset!(socket.bytes_received)) == Some(progress.received)
        && owner.counted_received == progress.received
    {
        let taken_back = settle::<EXCHANGE>(&mut owner.counted_received, progress.received - 1);
        change.bytes_received = change.bytes_received.wrapping_add(taken_back);
    }
    let moved = change.bytes_sent | change.bytes_received != 0;
    if found_open {
        tell(ctx, &FoundOpen { key, socket });
    }
    if moved {
        let retransmits = task::read::<u32>(socket, offset!(socket.total_retrans)).unwrap_or(0);
        let rtt_us = task::read::<u32>(socket, offset!(socket.srtt_us)).unwrap_or(0) >> 3;
        change.retransmits = settle_open::<EXCHANGE>(&mut owner.counted_retransmits, u64::from(retransmits)) as u32;
        change.rtt_us_sum = u64::from(rtt_us);
        change.rtt_count = u32::from(rtt_us != 0);
        change.rtt_us_max = rtt_us;
        let sample = edges::Sample { client_port, original_server: [0; 16], original_port: 0, found_open };
        edges::add(&key, &mut change, &sample);
    }
}

/// Payload bytes of an open connection.
struct Progress {
    sent: u64,
    received: u64,
    /// The other end's FIN is not among them any more.
    fin_taken: bool,
}

/// What a connection moved so far; `None` when it is not open.
///
/// Counters first, then what tells whether a FIN is among them: a FIN that comes between is taken off, though it was not counted yet.
#[inline(always)]
fn progress(socket: KernelPointer, owner: &Owner) -> Option<Progress> {
    let acknowledged = task::read::<u64>(socket, offset!(socket.bytes_acked))?;
    let received = task::read::<u64>(socket, offset!(socket.bytes_received))?;
    let fin_taken = fin_taken(socket);
    let fin_sent = match u32::from(task::read::<u8>(socket, offset!(socket.state))?) {
        state::ESTABLISHED | state::CLOSE_WAIT => 0,
        // Perhaps acknowledged, perhaps not.
        state::FIN_WAIT1 | state::FIN_WAIT2 | state::LAST_ACK | state::CLOSING => 1,
        _ => return None,
    };
    let syn = u64::from(owner.flags & flag::CLIENT != 0);
    Some(Progress { sent: acknowledged.saturating_sub(syn + fin_sent), received: received.saturating_sub(u64::from(fin_taken)), fin_taken })
}

/// Whether the other end's FIN has been taken in.
#[inline(always)]
fn fin_taken(socket: KernelPointer) -> bool {
    task::read::<u64>(socket, offset!(socket.flags)).unwrap_or(0) >> SOCK_DONE & 1 != 0
}

/// The edge of a socket, and the port of its client.
#[inline(always)]
pub fn key_of(socket: KernelPointer, owner: &Owner) -> (EdgeKey, u16) {
    let (local, remote) = if task::read::<u16>(socket, offset!(socket.family)) == Some(AF_INET) {
        (
            mapped(task::read_at(socket, offset!(socket.local_address4)).unwrap_or(0)),
            mapped(task::read_at(socket, offset!(socket.remote_address4)).unwrap_or(0)),
        )
    } else {
        (
            words(task::read(socket, offset!(socket.local_address6)).unwrap_or_default()),
            words(task::read(socket, offset!(socket.remote_address6)).unwrap_or_default()),
        )
    };
    let local_port = task::read::<u16>(socket, offset!(socket.local_port)).unwrap_or(0);
    let remote_port = u16::from_be(task::read(socket, offset!(socket.remote_port)).unwrap_or(0));
    let opened_here = owner.flags & flag::CLIENT != 0;
    let (client, server, client_port, server_port) =
        if opened_here { (local, remote, local_port, remote_port) } else { (remote, local, remote_port, local_port) };
    let key = EdgeKey {
        client,
        server,
        cgroup_id: owner.cgroup_id,
        netns: owner.netns,
        start_ns: owner.start_ns,
        tgid: owner.tgid,
        server_port,
        protocol: PROTOCOL_TCP,
        direction: if opened_here { direction::CLIENT } else { direction::SERVER },
    };
    (key, client_port)
}

/// Writes to the file that the probe reads. When the file's buffer is full the kernel runs the program again for this socket; then nothing has
/// moved since, and the record is written once.
#[inline(always)]
pub fn tell<T>(ctx: *mut c_void, found: &T) {
    let meta = context64!(@load ctx, iterator::META);
    if meta == 0 {
        return;
    }
    let sequence = context64!(@load meta, iterator::META_SEQUENCE);
    // SAFETY: the sequence file of this walk, and a live record without padding.
    unsafe { bpf_seq_write(sequence as *mut _, core::ptr::from_ref(found).cast(), size_of::<T>() as u32) };
}
