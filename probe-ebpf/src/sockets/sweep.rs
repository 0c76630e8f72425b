//! Bytes of connections that stay open: an iterator over the sockets that have storage, run by the probe every few seconds. It sees the
//! sockets of all network namespaces.
//!
//! It adds to the edge table what a connection moved since the last sweep, and notes that in the socket's storage, so that the end of the
//! connection adds the rest alone. A connection that ends on another CPU in the few instructions between the reading of the counters and the
//! note would be counted twice for that much; kernels before 5.12 have no exchange that could rule it out.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_seq_write;
use probe_common::{EdgeKey, EdgeValue, FoundOpen, Owner, PROTOCOL_TCP, counter, direction, flag};
use probe_ebpf::{
    context::{mapped, words},
    context64,
    counters::count,
    offset, settings, task,
    task::KernelPointer,
};

use crate::{
    edges,
    tcp::{SOCK_DONE, state},
};

/// Members of `struct bpf_iter__bpf_sk_storage_map`, which the kernel hands to the program, and of the first of them.
mod iterator {
    pub const META: usize = 0;
    pub const SOCKET: usize = 16;
    pub const VALUE: usize = 24;
    pub const META_SEQUENCE: usize = 0;
}

const AF_INET: u16 = 2;

/// Runs once for each socket with storage, and once more without one at the end.
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
#[unsafe(no_mangle)]
pub extern "C" fn sweep(ctx: *mut c_void) -> i32 {
    let socket = context64!(@load ctx, iterator::SOCKET);
    let value = context64!(@load ctx, iterator::VALUE) as *mut Owner;
    if socket == 0 || value.is_null() || !settings::may_read_kernel() {
        return 0;
    }
    // SAFETY: the storage of this socket, which lives as long as the program runs.
    visit(ctx, socket, unsafe { &mut *value });
    0
}

#[inline(always)]
fn visit(ctx: *mut c_void, socket: KernelPointer, owner: &mut Owner) {
    if owner.flags & (flag::CLIENT | flag::ACCEPTED) == 0 {
        return;
    }
    let Some(current) = task::read::<u8>(socket, offset!(socket.state)) else { return };
    let current = u32::from(current);
    if !matches!(
        current,
        state::ESTABLISHED | state::FIN_WAIT1 | state::FIN_WAIT2 | state::CLOSE_WAIT | state::LAST_ACK | state::CLOSING
    ) {
        return;
    }
    count(counter::SWEPT);
    let found_open = owner.flags & flag::FOUND_OPEN != 0;
    let mut change = progress(socket, owner, current);
    if change.bytes_sent | change.bytes_received == 0 && !found_open {
        return;
    }
    let (key, client_port) = key_of(socket, owner);
    if found_open {
        tell(ctx, &FoundOpen { key, socket });
    }
    if change.bytes_sent | change.bytes_received != 0 {
        let sample =
            edges::Sample { client_port, original_server: [0; 16], original_port: 0, cookie: 0, found_open };
        edges::add(&key, &mut change, &sample);
    }
}

/// What the connection moved since it was counted last; counted from here on.
#[inline(always)]
fn progress(socket: KernelPointer, owner: &mut Owner, current: u32) -> EdgeValue {
    let fin_taken = task::read::<u64>(socket, offset!(socket.flags)).unwrap_or(0) >> SOCK_DONE & 1;
    let received = task::read::<u64>(socket, offset!(socket.bytes_received)).unwrap_or(0).saturating_sub(fin_taken);
    let syn = u64::from(owner.flags & flag::CLIENT != 0);
    let fin = u64::from(current == state::FIN_WAIT2);
    let sent = task::read::<u64>(socket, offset!(socket.bytes_acked)).unwrap_or(0).saturating_sub(syn + fin);
    let retransmits = task::read::<u32>(socket, offset!(socket.total_retrans)).unwrap_or(0);
    let rtt_us = task::read::<u32>(socket, offset!(socket.srtt_us)).unwrap_or(0) >> 3;
    let change = EdgeValue {
        retransmits: retransmits.saturating_sub(owner.counted_retransmits),
        bytes_sent: sent.saturating_sub(owner.counted_sent),
        bytes_received: received.saturating_sub(owner.counted_received),
        rtt_us_sum: u64::from(rtt_us),
        rtt_count: u32::from(rtt_us != 0),
        rtt_us_max: rtt_us,
        ..EdgeValue::default()
    };
    if change.bytes_sent | change.bytes_received != 0 {
        owner.counted_retransmits = retransmits;
        owner.counted_sent = owner.counted_sent.max(sent);
        owner.counted_received = owner.counted_received.max(received);
    }
    change
}

/// The edge of a socket, and the port of its client.
#[inline(always)]
fn key_of(socket: KernelPointer, owner: &Owner) -> (EdgeKey, u16) {
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
fn tell(ctx: *mut c_void, found: &FoundOpen) {
    let meta = context64!(@load ctx, iterator::META);
    if meta == 0 {
        return;
    }
    let sequence = context64!(@load meta, iterator::META_SEQUENCE);
    // SAFETY: the sequence file of this walk, and a live record without padding.
    unsafe { bpf_seq_write(sequence as *mut _, core::ptr::from_ref(found).cast(), size_of::<FoundOpen>() as u32) };
}
