//! UDP: who asks whom, without a program per packet.
//!
//! A *connected* socket (QUIC, resolvers) is one connection of its edge from `connect(2)` to its end or its next `connect(2)`. What it sends and
//! receives runs no program. A socket that only looked up which address it would send from, as `getaddrinfo` does for every name, is taken off
//! again: see [`finish`].
//!
//! An *unconnected* socket runs a program per datagram that names its peer. It looks the edge up, and notes the kernel's coarse clock in it when
//! that has moved on; the probe sees from it whether the two still talk. Only the first datagram to a peer makes an edge and tells it.
//!
//! Which end is the server is decided per peer. Whoever hears from a stranger serves it, on its own port; whoever speaks to a stranger asks it,
//! on the stranger's port; what goes back and forth then belongs to the edge that is there. An edge leaves the table when nobody talks, so a late
//! answer finds none: then a port that the kernel gave to a socket that wanted any is a client's, and never a service.

use aya_ebpf::{
    bindings::bpf_sock,
    helpers::{bpf_get_current_pid_tgid, bpf_jiffies64},
};
use probe_common::{EdgeKey, EdgeValue, Owner, PROTOCOL_UDP, direction, flag};
use probe_ebpf::{
    context,
    context::{either, mapped, words},
    now, offset, settings,
    settings::is_ephemeral,
    task,
};

use crate::{
    edges, listeners, owners,
    owners::{Identity, Socket},
};

const AF_INET: u32 = 2;

/// `0.0.0.0`, mapped.
const EVERYWHERE4: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0];

/// State of a connected UDP socket (`include/net/tcp_states.h`).
const ESTABLISHED: u32 = 1;

/// Looking up one's own address takes a few system calls.
const LOOKED_UP_WITHIN_NANOS: u64 = 2_000_000;

/// What the socket keeps in its CPU number until something comes over its connection.
const NO_CPU: u32 = u32::MAX;

/// The other end of a datagram or connection.
#[derive(Clone, Copy)]
pub struct Peer {
    /// Its address.
    pub address: [u8; 16],
    /// Its port.
    pub port: u16,
}

/// The process chose the local port: this may be a server.
#[inline(always)]
pub fn chose_port(socket: &Socket) {
    owners::claim(socket, flag::CHOSE_PORT, [0; 16], 0);
}

/// The socket was bound. One on a well-known port is a listener from here on, others when they serve somebody.
#[inline(always)]
pub fn bound(socket: &Socket, local: [u8; 16]) {
    match owners::get(socket.pointer) {
        Some(owner) if owner.flags & flag::CHOSE_PORT != 0 => {
            owner.flags |= flag::BOUND;
            let port = local_port(socket);
            if !is_ephemeral(port) {
                listen(socket, owner, &local, port);
            }
        }
        // Its history is known from here on.
        _ => owners::claim(socket, flag::BOUND, [0; 16], 0),
    }
}

/// The process asked for its socket's own address.
#[inline(always)]
pub fn named(socket: &Socket) {
    if let Some(owner) = owners::get(socket.pointer) {
        owner.flags |= flag::NAMED;
    }
}

/// A datagram is about to be sent to a peer that the process names.
#[inline(always)]
pub fn sent(socket: &Socket, peer: &Peer) {
    let Some(owner) = owners::get_or_create(socket.pointer) else { return };
    let (tick, tgid) = (tick(), tgid());
    if is_last(owner, peer, tick, tgid) {
        return;
    }
    if still_connected(socket, owner)
        && (owner.flags & flag::SERVES_PEER != 0 || owner.original_port == peer.port && owner.original_server == peer.address)
    {
        return;
    }
    let who = holder(owner, tgid, socket);
    let (local, port) = (local_address(socket), local_port(socket));
    if owner.flags & flag::SERVED != 0 {
        let served = key(&who, &peer.address, &local, port, direction::SERVER);
        if edges::touch_served(&served, tick, peer.port) {
            return;
        }
        if is_ephemeral(peer.port) && peer.port != port {
            return edges::talk(&served, tick, peer.port);
        }
    }
    owner.flags |= flag::ASKED;
    edges::talk(&key(&who, &local, &peer.address, peer.port, direction::CLIENT), tick, port);
    if owner.flags & flag::CONNECTED == 0 {
        owner.original_server = peer.address;
        owner.original_port = peer.port;
        owner.tick = tick;
    }
}

/// A datagram was received by a process that wants to know from whom.
#[inline(always)]
pub fn received(socket: &Socket, peer: &Peer) {
    let Some(owner) = owners::get_or_create(socket.pointer) else { return };
    let (tick, tgid) = (tick(), tgid());
    if is_last(owner, peer, tick, tgid) {
        return;
    }
    if still_connected(socket, owner) {
        owner.flags |= flag::HEARD;
        return;
    }
    let (local, port) = (local_address(socket), local_port(socket));
    let answers_to_any_port = is_ephemeral(port) && !is_ephemeral(peer.port);
    if owner.tgid == 0 && answers_to_any_port {
        // Older than the programs: what it sent before is not known, but what it is can be guessed.
        owner.flags |= flag::ASKED;
    }
    let who = holder(owner, tgid, socket);
    if owner.flags & flag::ASKED != 0 {
        let asked = key(&who, &local, &peer.address, peer.port, direction::CLIENT);
        if edges::touch(&asked, tick) {
            return;
        }
        if owner.flags & flag::SERVED == 0 && (owner.flags & flag::CHOSE_PORT == 0 || answers_to_any_port) {
            // A late answer, or one from elsewhere.
            if !is_ephemeral(peer.port) {
                edges::talk(&asked, tick, port);
            }
            return;
        }
    }
    if owner.flags & flag::SERVED == 0 {
        owner.flags |= flag::SERVED;
        listen(socket, owner, &local, port);
    }
    edges::talk_served(&key(&who, &peer.address, &local, port, direction::SERVER), tick, peer.port);
}

/// The socket is about to be connected.
#[inline(always)]
pub fn connected(socket: &Socket, peer: &Peer) {
    let Some(owner) = owners::get_or_create(socket.pointer) else { return };
    if owner.flags & flag::CONNECTED != 0 {
        finish(owner, is_established(socket), false);
    } else {
        owner.local = local_address(socket);
    }
    if peer.port == 0 {
        // Nothing can be sent there: somebody looks up an address.
        return;
    }
    let port = local_port(socket);
    // A server that gives each client a socket of its own connects it to the client. Its own port may be one of those that the kernel gives away:
    // where these are nearly all ports, nearly all services' are.
    let serves = owner.flags & (flag::SERVED | flag::CHOSE_PORT) != 0 && is_ephemeral(peer.port);
    Identity::current(socket.netns()).write(owner);
    owner.flags &= !(flag::HEARD | flag::NAMED | flag::SERVES_PEER);
    owner.flags |= flag::CONNECTED | if serves { flag::SERVES_PEER } else { 0 };
    owner.original_server = peer.address;
    owner.original_port = if serves { port } else { peer.port };
    owner.born_ns = now();
    edges::count_connected(&connection(owner), &EdgeValue { opened: 1, ..EdgeValue::default() }, owner.born_ns);
}

/// The socket is about to go.
#[inline(always)]
pub fn released(socket: &Socket) {
    let Some(owner) = owners::get(socket.pointer) else {
        // Older than the programs, perhaps a listener; if it has a port. Many a UDP socket is for ioctl(2) alone.
        if settings::may_read_kernel() && task::read::<u16>(socket.pointer, offset!(socket.local_port)).unwrap_or(0) != 0 {
            listeners::closed(socket, PROTOCOL_UDP);
        }
        return;
    };
    if owner.flags & flag::CONNECTED != 0 {
        finish(owner, is_established(socket), has_received(socket));
    }
    if owner.flags & flag::LISTENING != 0 {
        listeners::closed(socket, PROTOCOL_UDP);
    }
}

/// Whether the socket is connected. A `connect(2)` to no address ends a connection without a word: it is noticed here.
#[inline(always)]
fn still_connected(socket: &Socket, owner: &mut Owner) -> bool {
    if owner.flags & flag::CONNECTED == 0 {
        return false;
    }
    let established = is_established(socket);
    if !established {
        finish(owner, established, false);
    }
    established
}

#[inline(always)]
fn is_established(socket: &Socket) -> bool {
    context!(socket.pointer, bpf_sock, state) == ESTABLISHED
}

/// The connection of a socket ends.
///
/// `getaddrinfo` connects a socket to each address of a name, asks which local address that gave, and sends nothing; an address that cannot be
/// reached fails to connect. Nobody talked to anybody then, and what was opened is taken back: no connection came to be.
#[inline(always)]
fn finish(owner: &mut Owner, established: bool, has_received: bool) {
    owner.flags &= !flag::CONNECTED;
    let now = now();
    let brief = now - owner.born_ns < LOOKED_UP_WITHIN_NANOS;
    let heard = has_received || owner.flags & flag::HEARD != 0;
    let nothing = brief && !heard && (!established || owner.flags & flag::NAMED != 0);
    // Adding this to a total takes one off.
    const BACK: u32 = u32::MAX;
    let change = EdgeValue { opened: if nothing { BACK } else { 0 }, closed: u32::from(!nothing), ..EdgeValue::default() };
    edges::count_connected(&connection(owner), &change, now);
}

/// The edge of a connected socket.
#[inline(always)]
fn connection(owner: &Owner) -> EdgeKey {
    let who = Identity::of(owner);
    let serves = owner.flags & flag::SERVES_PEER != 0;
    let (peer, local) = (&owner.original_server, &owner.local);
    let direction = if serves { direction::SERVER } else { direction::CLIENT };
    key(&who, &either(serves, peer, local), &either(serves, local, peer), owner.original_port, direction)
}

/// Whether something came over the connection; only a socket that is released may be asked. Where kernel memory cannot be read, nobody knows.
#[inline(always)]
fn has_received(socket: &Socket) -> bool {
    settings::may_read_kernel() && task::read::<u32>(socket.pointer, offset!(socket.incoming_cpu)).is_some_and(|cpu| cpu != NO_CPU)
}

#[inline(always)]
fn listen(socket: &Socket, owner: &mut Owner, local: &[u8; 16], port: u16) {
    if owner.flags & flag::LISTENING == 0 {
        owner.flags |= flag::LISTENING;
        let everywhere = *local == [0; 16] && context!(socket.pointer, bpf_sock, family) == AF_INET;
        listeners::opened(socket, owner, PROTOCOL_UDP, if everywhere { &EVERYWHERE4 } else { local }, port);
    }
}

/// Whether this peer was told just now, by the same process: most clients have one.
#[inline(always)]
fn is_last(owner: &Owner, peer: &Peer, tick: u32, tgid: u32) -> bool {
    owner.tick == tick && owner.tgid == tgid && owner.original_port == peer.port && owner.original_server == peer.address
}

/// The running process. It is the socket's owner as a rule; a socket that was inherited or passed on has several users, and each is told.
#[inline(always)]
fn holder(owner: &mut Owner, tgid: u32, socket: &Socket) -> Identity {
    if owner.tgid == tgid {
        return Identity::of(owner);
    }
    let known = owner.tgid != 0;
    let who = Identity::current(if known { owner.netns } else { socket.netns() });
    if !known {
        who.write(owner);
    }
    who
}

#[inline(always)]
fn key(who: &Identity, client: &[u8; 16], server: &[u8; 16], server_port: u16, direction: u8) -> EdgeKey {
    EdgeKey {
        client: *client,
        server: *server,
        cgroup_id: who.cgroup_id,
        netns: who.netns,
        start_ns: who.start_ns,
        tgid: who.tgid,
        server_port,
        protocol: PROTOCOL_UDP,
        direction,
    }
}

/// The address that the socket is bound to; zeroes when it takes any. The address that a datagram really has is for the probe to find out.
#[inline(always)]
fn local_address(socket: &Socket) -> [u8; 16] {
    if context!(socket.pointer, bpf_sock, family) == AF_INET {
        return match context!(socket.pointer, bpf_sock, src_ip4) {
            0 => [0; 16],
            address => mapped(address),
        };
    }
    words([
        context!(socket.pointer, bpf_sock, src_ip6[0]),
        context!(socket.pointer, bpf_sock, src_ip6[1]),
        context!(socket.pointer, bpf_sock, src_ip6[2]),
        context!(socket.pointer, bpf_sock, src_ip6[3]),
    ])
}

#[inline(always)]
fn local_port(socket: &Socket) -> u16 {
    context!(socket.pointer, bpf_sock, src_port) as u16
}

#[inline(always)]
fn tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// A clock that costs one load: a quarter of a second to two and a half, by the kernel's `HZ`.
#[inline(always)]
fn tick() -> u32 {
    // SAFETY: the helper has no preconditions.
    unsafe { (bpf_jiffies64() >> 8) as u32 }
}
