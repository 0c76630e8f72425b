//! Records of the kernel programs, as observations. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use probe_common::{
    CgroupRecord, CountedSocket, EdgeKey, EdgeRecord, EdgeValue, ListenerRecord, PROTOCOL_TCP, PROTOCOL_UDP, ProcessRecord, RecordHeader,
    direction, kind,
};

use crate::observation::{BootNanos, Counted, Direction, FlowEnd, ListenerOpened, Observation, ProcessStarted, Protocol};

/// A clock tick of `/proc`, in nanoseconds: `USER_HZ` is 100 on every architecture that the probe runs on.
const TICK_NANOS: u64 = 10_000_000;

/// Start of a process as `/proc/<pid>/stat` has it, so that the two sources name one incarnation alike.
pub(super) fn start_time(nanos: u64) -> Option<BootNanos> {
    (nanos != 0).then(|| BootNanos(nanos - nanos % TICK_NANOS))
}

/// The flow end that a key stands for.
pub(super) fn flow_end(key: &EdgeKey) -> FlowEnd {
    let (client, server) = (address(key.client), address(key.server));
    FlowEnd {
        pid: key.tgid,
        start_time: start_time(key.start_ns),
        cgroup_id: key.cgroup_id,
        network_namespace: key.netns,
        direction: if key.direction == direction::CLIENT { Direction::Client } else { Direction::Server },
        protocol: protocol(key.protocol),
        client_address: like(server, client),
        server_address: like(client, server),
        server_port: key.server_port,
    }
}

/// An address that is not known is of the same kind as the other one.
fn like(other: IpAddr, address: IpAddr) -> IpAddr {
    if address.is_unspecified() && other.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { address }
}

/// A transport.
pub(super) fn protocol(number: u8) -> Protocol {
    if number == PROTOCOL_TCP { Protocol::Tcp } else { Protocol::Udp }
}

/// An address; what is mapped into IPv6 is IPv4.
pub(super) fn address(bytes: [u8; 16]) -> IpAddr {
    let address = Ipv6Addr::from(bytes);
    address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4)
}

/// How much an edge grew from one reading to another. Totals wrap. Bytes may shrink by one, when a sweep met a connection in the instant of its
/// end; they do not grow then.
pub(super) fn growth(before: &EdgeValue, after: &EdgeValue) -> Counted {
    let small = |before: u32, after: u32| u64::from(after.wrapping_sub(before));
    Counted {
        opened: small(before.opened, after.opened),
        closed: small(before.closed, after.closed),
        failed: small(before.failed, after.failed),
        bytes_sent: forward(before.bytes_sent, after.bytes_sent),
        bytes_received: forward(before.bytes_received, after.bytes_received),
        retransmits: small(before.retransmits, after.retransmits),
        rtt_us_sum: after.rtt_us_sum.wrapping_sub(before.rtt_us_sum),
        rtt_count: small(before.rtt_count, after.rtt_count),
        rtt_us_max: after.rtt_us_max,
    }
}

/// Growth of a total that may shrink a little.
fn forward(before: u64, after: u64) -> u64 {
    let growth = after.wrapping_sub(before);
    if growth > u64::MAX / 2 { 0 } else { growth }
}

/// Turns one record of a ring into observations. A record of an unknown kind or length is nothing.
pub(super) fn record(bytes: &[u8], out: &mut Vec<Observation>) {
    let Some(header) = read::<RecordHeader>(bytes) else { return };
    let at = BootNanos(header.at_ns);
    match header.kind {
        kind::EDGE_SEEN | kind::EDGE_FOUND | kind::EDGE_OVERFLOW => {
            let Some(record) = read::<EdgeRecord>(bytes) else { return };
            edge(at, &record, out);
        }
        kind::LISTENER_OPENED | kind::LISTENER_CLOSED => {
            let Some(record) = read::<ListenerRecord>(bytes) else { return };
            out.push(listener(at, &record));
        }
        kind::FORK | kind::EXEC | kind::EXIT | kind::OOM_KILL => {
            let Some(record) = read::<ProcessRecord>(bytes) else { return };
            out.push(process(at, &record));
        }
        kind::CGROUP_CREATE | kind::CGROUP_REMOVE | kind::CGROUP_ATTACH => {
            let Some(record) = read::<CgroupRecord>(bytes) else { return };
            out.push(cgroup(at, &record));
        }
        _ => {}
    }
}

fn edge(at: BootNanos, record: &EdgeRecord, out: &mut Vec<Observation>) {
    let end = flow_end(&record.key);
    out.push(Observation::FlowSeen {
        at,
        end,
        client_port: record.client_port,
        original_server: (record.original_port != 0).then(|| (address(record.original_server), record.original_port)),
        found_open: record.header.kind == kind::EDGE_FOUND,
    });
    if record.header.kind == kind::EDGE_OVERFLOW {
        let mut delta = growth(&EdgeValue::default(), &record.value);
        if record.key.protocol == PROTOCOL_UDP && record.value.tick != 0 {
            // A talk of which no more will be known.
            (delta.opened, delta.closed) = (1, 1);
        }
        out.push(Observation::FlowCounted { last_active: at, end, delta });
    }
}

/// What the table of earlier programs holds of an edge, if anything.
pub(super) fn left(key: &EdgeKey, value: &EdgeValue, out: &mut Vec<Observation>) {
    let mut delta = growth(&EdgeValue::default(), value);
    if key.protocol == PROTOCOL_UDP && value.tick != 0 {
        // A talk: if it goes on, it begins anew.
        (delta.opened, delta.closed) = (1, 1);
    }
    if delta == (Counted { rtt_us_max: delta.rtt_us_max, ..Counted::default() }) {
        return;
    }
    let (at, end) = (BootNanos(value.last_ns), flow_end(key));
    out.push(Observation::FlowSeen { at, end, client_port: 0, original_server: None, found_open: false });
    out.push(Observation::FlowCounted { last_active: at, end, delta });
}

/// The flow of a connection that is open, as an earlier probe's programs saw it begin.
pub(super) fn counted_socket(at: BootNanos, socket: &CountedSocket) -> Observation {
    Observation::FlowSeen {
        at,
        end: flow_end(&socket.key),
        client_port: socket.client_port,
        original_server: (socket.original_port != 0).then(|| (address(socket.original_server), socket.original_port)),
        found_open: false,
    }
}

/// A listener that opened or closed.
pub(super) fn listener(at: BootNanos, record: &ListenerRecord) -> Observation {
    if record.header.kind == kind::LISTENER_CLOSED {
        return Observation::ListenerClosed { at, socket: record.cookie };
    }
    Observation::ListenerOpened(ListenerOpened {
        at,
        socket: record.cookie,
        pid: record.tgid,
        start_time: start_time(record.start_ns),
        cgroup_id: record.cgroup_id,
        network_namespace: record.netns,
        protocol: protocol(record.protocol),
        address: address(record.address),
        port: record.port,
    })
}

fn process(at: BootNanos, record: &ProcessRecord) -> Observation {
    let start_time = start_time(record.start_ns);
    let comm = text(&record.comm);
    match record.header.kind {
        kind::FORK => Observation::ProcessStarted(ProcessStarted {
            at,
            pid: record.tgid,
            parent_pid: record.parent_tgid,
            start_time,
            comm,
            cgroup_id: record.cgroup_id,
            user_id: record.user_id,
        }),
        kind::EXEC => {
            Observation::ProcessExecuted { at, pid: record.tgid, start_time, comm, cgroup_id: record.cgroup_id, user_id: record.user_id }
        }
        kind::OOM_KILL => Observation::OomKilled { at, pid: record.tgid, start_time },
        _ => Observation::ProcessExited { at, pid: record.tgid, start_time, status: record.status },
    }
}

fn cgroup(at: BootNanos, record: &CgroupRecord) -> Observation {
    let path = || String::from_utf8_lossy(&record.path[..record.path.len().min(record.path_length as usize)]).into_owned();
    match record.header.kind {
        kind::CGROUP_CREATE => Observation::CgroupCreated { at, id: record.id, path: path() },
        kind::CGROUP_REMOVE => Observation::CgroupRemoved { at, id: record.id },
        _ => Observation::CgroupAttached { at, pid: record.tgid, cgroup_id: record.id, path: path() },
    }
}

/// A text that is padded with zeroes.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Copies a record out of the bytes of a ring, when they are as many as it needs.
pub(super) fn read<T: aya::Pod>(bytes: &[u8]) -> Option<T> {
    // SAFETY: `T` is plain data, any bytes are a valid value of it, and there are enough of them; they need not be aligned.
    (bytes.len() >= size_of::<T>()).then(|| unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast::<T>()) })
}

#[cfg(test)]
mod tests;
