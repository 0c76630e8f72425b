//! The end of a socket: runs in the process that closes it last.

use aya_ebpf::{EbpfContext as _, bindings::bpf_sock, macros::cgroup_sock, programs::SockContext};
use probe_common::{PROTOCOL_TCP, PROTOCOL_UDP};
use probe_ebpf::{context, control};

use crate::{owners::Socket, tcp, udp};

/// Runs for every TCP connection too, and has nothing to do where there was one.
#[cgroup_sock(sock_release)]
pub fn release(ctx: SockContext) -> i32 {
    let raw = ctx.as_ptr();
    let socket = Socket { pointer: raw as u64, context: raw };
    match (context!(raw, bpf_sock, protocol) as u8, context!(raw, bpf_sock, state)) {
        (PROTOCOL_TCP, tcp::state::CLOSE) if control::is_awake() => tcp::closed_released(&socket),
        (PROTOCOL_TCP, tcp::state::LISTEN) if control::is_awake() => tcp::listener_released(&socket),
        (PROTOCOL_UDP, _) if control::is_awake() => udp::released(&socket),
        _ => {}
    }
    1
}
