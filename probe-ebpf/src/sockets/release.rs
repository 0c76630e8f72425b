//! The end of a socket: runs in the process that closes it last.

use aya_ebpf::{EbpfContext as _, bindings::bpf_sock, macros::cgroup_sock, programs::SockContext};
use probe_common::{PROTOCOL_MPTCP, PROTOCOL_TCP, PROTOCOL_UDP};
use probe_ebpf::{context, control, offset, settings, task};

use crate::{listeners, look, owners::Socket, tcp, udp};

const TCP: u32 = PROTOCOL_TCP as u32;
const UDP: u32 = PROTOCOL_UDP as u32;
const MPTCP: u32 = PROTOCOL_MPTCP as u32;

/// Runs for every TCP connection too, and has nothing to do where there was one.
#[cgroup_sock(sock_release)]
pub fn release(ctx: SockContext) -> i32 {
    let raw = ctx.as_ptr();
    let socket = Socket { pointer: raw as u64, context: raw };
    match (context!(raw, bpf_sock, protocol), context!(raw, bpf_sock, state)) {
        (TCP, tcp::state::CLOSE) if control::is_awake() => tcp::closed_released(&socket),
        (TCP, tcp::state::LISTEN) if control::is_awake() => tcp::listener_released(&socket),
        (UDP, _) if control::is_awake() => udp::released(&socket),
        (MPTCP, tcp::state::LISTEN) if control::is_awake() => mptcp_listener_released(&socket),
        _ => {}
    }
    1
}

/// A socket of MPTCP that listens is about to go. The one behind it is known as the listener: if it is older than the programs it has no other end.
#[inline(always)]
fn mptcp_listener_released(socket: &Socket) {
    if !settings::may_read_kernel() {
        return;
    }
    if let Some(cookie) = look::behind_mptcp(socket.pointer).and_then(|behind| task::read::<u64>(behind, offset!(look.cookie)))
        && cookie != 0
    {
        listeners::closed_known_as(cookie, PROTOCOL_TCP);
    }
}
