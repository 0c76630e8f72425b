//! `connect(2)`: runs in the process that connects, before the first packet.

use aya_ebpf::{EbpfContext as _, bindings::bpf_sock_addr, macros::cgroup_sock_addr, programs::SockAddrContext};
use probe_common::{PROTOCOL_TCP, PROTOCOL_UDP, flag};
use probe_ebpf::{context, context64, control};

use crate::{
    datagrams::{address4, address6, port},
    owners,
    owners::Socket,
    udp,
    udp::Peer,
};

/// IPv4.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    connect(&ctx, address4);
    1
}

/// IPv6, and IPv4 through an IPv6 socket.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    connect(&ctx, address6);
    1
}

#[inline(always)]
fn connect(ctx: &SockAddrContext, address: impl Fn(&SockAddrContext) -> [u8; 16]) {
    let raw = ctx.as_ptr();
    let pointer = context64!(raw, bpf_sock_addr, __bindgen_anon_1);
    if pointer == 0 {
        return;
    }
    let socket = Socket { pointer, context: raw };
    match context!(raw, bpf_sock_addr, protocol) as u8 {
        PROTOCOL_TCP => owners::claim(&socket, flag::CLIENT, address(ctx), port(ctx)),
        PROTOCOL_UDP if control::is_awake() => udp::connected(&socket, &Peer { address: address(ctx), port: port(ctx) }),
        _ => {}
    }
}
