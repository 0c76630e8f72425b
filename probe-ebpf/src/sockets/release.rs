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
    if !control::is_awake() {
        return 1;
    }
    match context!(raw, bpf_sock, protocol) as u8 {
        PROTOCOL_TCP => match context!(raw, bpf_sock, state) {
            tcp::state::CLOSE => tcp::closed_released(&socket),
            tcp::state::LISTEN => tcp::listener_released(&socket),
            _ => {}
        },
        PROTOCOL_UDP => udp::released(&socket),
        _ => {}
    }
    1
}
