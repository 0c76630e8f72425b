//! The life of a TCP connection, as the stack tells it to `sock_ops` programs.
//!
//! About ten callbacks come per connection end, of which four matter; the first instruction sorts them out.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
        BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_SOCK_OPS_TCP_LISTEN_CB, bpf_sock_ops,
    },
    helpers::bpf_skc_to_tcp_sock,
    macros::sock_ops,
    programs::SockOpsContext,
};
use aya_log_ebpf::debug;
use probe_common::{EdgeKey, EdgeValue, Owner, PROTOCOL_TCP, counter, direction, flag};
use probe_ebpf::{
    context,
    context::{mapped, words},
    context64, control,
    counters::count,
    offset, settings, task,
};

use crate::{
    edges, listeners, owners,
    owners::{Socket, settle},
};

/// States of a TCP socket (`include/net/tcp_states.h`).
pub mod state {
    /// Data flows.
    pub const ESTABLISHED: u32 = 1;
    /// The client waits for the answer to its SYN.
    pub const SYN_SENT: u32 = 2;
    /// This end has sent its FIN.
    pub const FIN_WAIT1: u32 = 4;
    /// This end's FIN has been acknowledged.
    pub const FIN_WAIT2: u32 = 5;
    /// The end of all connections.
    pub const CLOSE: u32 = 7;
    /// The other end's FIN has come.
    pub const CLOSE_WAIT: u32 = 8;
    /// Both FINs have been sent, the other end's came first.
    pub const LAST_ACK: u32 = 9;
    /// Not a connection.
    pub const LISTEN: u32 = 10;
    /// Both FINs have been sent at once.
    pub const CLOSING: u32 = 11;
}

const AF_INET: u32 = 2;

/// Position of `SOCK_DONE` in `sock.sk_flags`: set when the other end's FIN has been taken in.
pub const SOCK_DONE: u32 = 1;

/// Attached at the root of the cgroup2 hierarchy: sees every TCP socket of the machine.
#[sock_ops]
pub fn tcp(ctx: SockOpsContext) -> u32 {
    on_callback::<true>(&ctx);
    1
}

/// The same for kernels that cannot exchange atomically.
#[sock_ops]
pub fn tcp_plain(ctx: SockOpsContext) -> u32 {
    on_callback::<false>(&ctx);
    1
}

#[inline(always)]
fn on_callback<const EXCHANGE: bool>(ctx: &SockOpsContext) {
    match context!(ctx.as_ptr(), bpf_sock_ops, op) {
        BPF_SOCK_OPS_TCP_CONNECT_CB if control::is_awake() => on_connect(ctx),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB if control::is_awake() => on_established(ctx, direction::CLIENT),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB if control::is_awake() => on_established(ctx, direction::SERVER),
        BPF_SOCK_OPS_STATE_CB => on_state::<EXCHANGE>(ctx),
        BPF_SOCK_OPS_TCP_LISTEN_CB if control::is_awake() => on_listen(ctx),
        _ => {}
    }
}

/// The SYN is about to go out. From here on the socket tells its changes of state: a connect that fails has nothing else to say so.
#[inline(always)]
fn on_connect(ctx: &SockOpsContext) {
    tell_states(ctx);
}

/// From here on the socket tells its changes of state. The call sets all flags at once, and others of them may be another program's.
#[inline(always)]
fn tell_states(ctx: &SockOpsContext) {
    let flags = context!(ctx.as_ptr(), bpf_sock_ops, bpf_sock_ops_cb_flags);
    if flags & BPF_SOCK_OPS_STATE_CB_FLAG == 0 {
        let _ = ctx.set_cb_flags((flags | BPF_SOCK_OPS_STATE_CB_FLAG) as i32);
    }
}

/// The socket listens. It tells its changes of state from here on, and so do the sockets that it accepts.
#[inline(always)]
fn on_listen(ctx: &SockOpsContext) {
    let raw = ctx.as_ptr();
    let pointer = context64!(raw, bpf_sock_ops, __bindgen_anon_2);
    if pointer == 0 {
        return;
    }
    let Some(owner) = owners::get_or_create(pointer) else { return };
    tell_states(ctx);
    owner.flags |= flag::LISTENING;
    listeners::opened(&Socket { pointer, context: raw }, owner, PROTOCOL_TCP, &addresses(ctx).0, local_port(ctx));
}

/// A socket that listens is about to go. One that is older than the programs has no other end.
#[inline(always)]
pub fn listener_released(socket: &Socket) {
    if let Some(owner) = owners::get(socket.pointer) {
        // Its change of state, which comes next, needs no telling.
        owner.flags &= !flag::LISTENING;
    }
    listeners::closed(socket, PROTOCOL_TCP);
}

/// A socket in no state is about to go. If it was to be connected and nothing came of it, not even a SYN, then there was no route, or somebody
/// forbade it: the stack has told nothing of that.
#[inline(always)]
pub fn closed_released(socket: &Socket) {
    let Some(owner) = owners::get(socket.pointer) else { return };
    if owner.flags & (flag::CLIENT | flag::OPENED | flag::FOUND_OPEN) != flag::CLIENT || was_connected(socket) {
        return;
    }
    let key = EdgeKey {
        // It had none.
        client: [0; 16],
        server: owner.original_server,
        cgroup_id: owner.cgroup_id,
        netns: owner.netns,
        start_ns: owner.start_ns,
        tgid: owner.tgid,
        server_port: owner.original_port,
        protocol: PROTOCOL_TCP,
        direction: direction::CLIENT,
    };
    let sample = edges::Sample { client_port: 0, original_server: [0; 16], original_port: 0, found_open: false };
    edges::add(&key, &mut EdgeValue { failed: 1, ..EdgeValue::default() }, &sample);
}

/// Whether a socket was connected once: then its SYN is among the acknowledged bytes. One that connected while the programs were being attached was
/// not seen to. Where kernel memory cannot be read, nobody knows.
#[inline(always)]
fn was_connected(socket: &Socket) -> bool {
    settings::may_read_kernel() && task::read::<u64>(socket.pointer, offset!(socket.bytes_acked)).unwrap_or(0) != 0
}

#[inline(always)]
fn on_established(ctx: &SockOpsContext, direction: u8) {
    count(counter::ENDS_SEEN);
    let socket = context64!(ctx.as_ptr(), bpf_sock_ops, __bindgen_anon_2);
    if socket == 0 {
        return;
    }
    // As a rule it does already: a listener that the programs saw begin has passed it on, a client was told to when it connected. But another
    // program may have taken it away since.
    tell_states(ctx);
    let Some(owner) = owners::get_or_create(socket) else { return };
    if direction == direction::SERVER {
        // A copy of the listener's.
        owner.flags = flag::ACCEPTED | flag::OPENED;
    } else {
        owner.flags |= flag::CLIENT | flag::OPENED;
    }
    if owner.tgid == 0 {
        count(if direction == direction::CLIENT { counter::OWNER_MISSING_CLIENT } else { counter::OWNER_MISSING_SERVER });
    }
    debug!(ctx, "tcp opened: direction {} owner {}", direction, owner.tgid);
    report(ctx, owner, direction, EdgeValue { opened: 1, ..EdgeValue::default() });
}

#[inline(always)]
fn on_state<const EXCHANGE: bool>(ctx: &SockOpsContext) {
    let raw = ctx.as_ptr();
    let old = context!(raw, bpf_sock_ops, __bindgen_anon_1[0]);
    let new = context!(raw, bpf_sock_ops, __bindgen_anon_1[1]);
    if new != state::CLOSE && (new != state::FIN_WAIT2 || reads_flags()) || !control::is_awake() {
        return;
    }
    let socket = context64!(raw, bpf_sock_ops, __bindgen_anon_2);
    if socket == 0 {
        return;
    }
    let Some(owner) = owners::get(socket) else { return };
    if old == state::LISTEN {
        if owner.flags & flag::LISTENING != 0 {
            owner.flags &= !flag::LISTENING;
            listeners::closed(&Socket { pointer: socket, context: raw }, PROTOCOL_TCP);
        }
    } else if new == state::FIN_WAIT2 {
        owner.received_at_fin_wait2 = context64!(raw, bpf_sock_ops, bytes_received);
    } else if old == state::SYN_SENT {
        debug!(ctx, "tcp failed: owner {}", owner.tgid);
        report(ctx, owner, direction::CLIENT, EdgeValue { failed: 1, ..EdgeValue::default() });
        owner.flags &= !flag::CLIENT;
    } else if owner.flags & (flag::OPENED | flag::FOUND_OPEN) != 0 {
        let direction = if owner.flags & flag::CLIENT != 0 { direction::CLIENT } else { direction::SERVER };
        let change = end_of::<EXCHANGE>(ctx, socket, owner, old);
        debug!(ctx, "tcp closed: owner {} from state {} sent {} received {}", owner.tgid, old, change.bytes_sent, change.bytes_received);
        report(ctx, owner, direction, change);
    }
}

/// What a connection adds when it ends: all that the sweep has not added already.
///
/// A connection that is older than the programs comes here when another program, or an earlier probe, asked its socket to tell its states. As
/// often it does not, so it is the sweep that counts its end.
#[inline(always)]
fn end_of<const EXCHANGE: bool>(ctx: &SockOpsContext, socket: u64, owner: &mut Owner, old: u32) -> EdgeValue {
    let raw = ctx.as_ptr();
    let received = context64!(raw, bpf_sock_ops, bytes_received);
    let received = received.saturating_sub(u64::from(took_fin(socket, owner, old, received)));

    // The acknowledged sequence numbers of this end: its SYN (the kernel counts it on the opening side alone), its bytes, its FIN.
    let syn = u64::from(owner.flags & flag::CLIENT != 0);
    let everything_acknowledged = context!(raw, bpf_sock_ops, snd_una) == context!(raw, bpf_sock_ops, snd_nxt);
    let fin = match old {
        state::FIN_WAIT2 => 1,
        state::LAST_ACK | state::CLOSING => u64::from(everything_acknowledged),
        _ => 0,
    };
    let sent = context64!(raw, bpf_sock_ops, bytes_acked).saturating_sub(syn + fin);

    let retransmits = context!(raw, bpf_sock_ops, total_retrans);
    // The kernel keeps eighths of microseconds.
    let rtt_us = context!(raw, bpf_sock_ops, srtt_us) >> 3;
    EdgeValue {
        closed: u32::from(owner.flags & flag::OPENED != 0),
        retransmits: settle::<EXCHANGE>(&mut owner.counted_retransmits, u64::from(retransmits)) as u32,
        bytes_sent: settle::<EXCHANGE>(&mut owner.counted_sent, sent),
        bytes_received: settle::<EXCHANGE>(&mut owner.counted_received, received),
        rtt_us_sum: u64::from(rtt_us),
        rtt_count: u32::from(rtt_us != 0),
        rtt_us_max: rtt_us,
        ..EdgeValue::default()
    }
}

/// Whether the flags of a socket can be read.
#[inline(always)]
fn reads_flags() -> bool {
    settings::may_read_kernel() && offset!(socket.flags) != 0
}

/// Whether the other end's FIN is among the received bytes.
///
/// In every other state the state tells. FIN_WAIT2 is left in two ways: because the FIN came, or because nobody holds the socket any more and what is left of it is kept elsewhere.
/// The socket's flags tell which. Where they cannot be read, bytes after the arrival in FIN_WAIT2 are taken for a stream that ended.
#[inline(always)]
fn took_fin(socket: u64, owner: &Owner, old: u32, received: u64) -> bool {
    if old == state::FIN_WAIT2 && reads_flags() {
        // What the context gives as a socket may not be read beyond its stable members; what this helper gives may.
        // SAFETY: the verifier has seen that `socket` is one.
        let full = unsafe { bpf_skc_to_tcp_sock(socket as *mut _) } as u64;
        if let Some(flags) = task::read::<u64>(full, offset!(socket.flags)) {
            return flags >> SOCK_DONE & 1 != 0;
        }
    }
    match old {
        state::CLOSE_WAIT | state::LAST_ACK | state::CLOSING => true,
        state::FIN_WAIT2 => received != owner.received_at_fin_wait2,
        _ => false,
    }
}

#[inline(always)]
fn report(ctx: &SockOpsContext, owner: &Owner, direction: u8, mut change: EdgeValue) {
    let raw = ctx.as_ptr();
    let (local, remote) = addresses(ctx);
    let local_port = local_port(ctx);
    // In network order, in the upper half of a word that was read as a little-endian one.
    let remote_port = u32::from_be(context!(raw, bpf_sock_ops, remote_port)) as u16;
    let (client, server, client_port, server_port) =
        if direction == direction::CLIENT { (local, remote, local_port, remote_port) } else { (remote, local, remote_port, local_port) };
    let key = EdgeKey {
        client,
        server,
        cgroup_id: owner.cgroup_id,
        netns: owner.netns,
        start_ns: owner.start_ns,
        tgid: owner.tgid,
        server_port,
        protocol: PROTOCOL_TCP,
        direction,
    };
    let translated = direction == direction::CLIENT
        && owner.original_port != 0
        && (owner.original_port != server_port || owner.original_server != server);
    let sample = edges::Sample {
        client_port,
        original_server: if translated { owner.original_server } else { [0; 16] },
        original_port: if translated { owner.original_port } else { 0 },
        found_open: false,
    };
    edges::add(&key, &mut change, &sample);
}

#[inline(always)]
fn local_port(ctx: &SockOpsContext) -> u16 {
    context!(ctx.as_ptr(), bpf_sock_ops, local_port) as u16
}

/// Local and remote address.
#[inline(always)]
fn addresses(ctx: &SockOpsContext) -> ([u8; 16], [u8; 16]) {
    let raw = ctx.as_ptr();
    if context!(raw, bpf_sock_ops, family) == AF_INET {
        return (mapped(context!(raw, bpf_sock_ops, local_ip4)), mapped(context!(raw, bpf_sock_ops, remote_ip4)));
    }
    let local = [
        context!(raw, bpf_sock_ops, local_ip6[0]),
        context!(raw, bpf_sock_ops, local_ip6[1]),
        context!(raw, bpf_sock_ops, local_ip6[2]),
        context!(raw, bpf_sock_ops, local_ip6[3]),
    ];
    let remote = [
        context!(raw, bpf_sock_ops, remote_ip6[0]),
        context!(raw, bpf_sock_ops, remote_ip6[1]),
        context!(raw, bpf_sock_ops, remote_ip6[2]),
        context!(raw, bpf_sock_ops, remote_ip6[3]),
    ];
    (words(local), words(remote))
}
