//! Sockets that wait for connections or datagrams: told when they begin and when they end.

use probe_common::{ListenerRecord, Owner, RecordHeader, counter, kind};
use probe_ebpf::{counters::count, now};

use crate::{edges::NETWORK_RING, owners::Socket};

/// A socket listens from now on.
#[inline(always)]
pub fn opened(socket: &Socket, owner: &Owner, protocol: u8, address: &[u8; 16], port: u16) {
    let Some(mut entry) = NETWORK_RING.reserve::<ListenerRecord>(0) else { return count(counter::LISTENERS_LOST) };
    entry.write(ListenerRecord {
        header: header(kind::LISTENER_OPENED),
        cookie: socket.cookie(),
        cgroup_id: owner.cgroup_id,
        netns: owner.netns,
        start_ns: owner.start_ns,
        address: *address,
        tgid: owner.tgid,
        port,
        protocol,
        reserved: 0,
    });
    entry.submit(0);
}

/// It does no longer. Where it listened cannot be read any more everywhere; its cookie says which it was.
#[inline(always)]
pub fn closed(socket: &Socket, protocol: u8) {
    closed_known_as(socket.cookie(), protocol);
}

/// The same, for one that was told by this cookie.
#[inline(always)]
pub fn closed_known_as(cookie: u64, protocol: u8) {
    let Some(mut entry) = NETWORK_RING.reserve::<ListenerRecord>(0) else { return count(counter::LISTENERS_LOST) };
    entry.write(ListenerRecord {
        header: header(kind::LISTENER_CLOSED),
        cookie,
        cgroup_id: 0,
        netns: 0,
        start_ns: 0,
        address: [0; 16],
        tgid: 0,
        port: 0,
        protocol,
        reserved: 0,
    });
    entry.submit(0);
}

#[inline(always)]
fn header(kind: u32) -> RecordHeader {
    RecordHeader { at_ns: now(), kind, length: size_of::<ListenerRecord>() as u32 }
}
