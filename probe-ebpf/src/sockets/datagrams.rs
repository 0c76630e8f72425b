//! `sendto(2)`, `recvfrom(2)` and their like on UDP sockets: run in the process, for each datagram whose peer it names or wants to know. And
//! `getsockname(2)`, which tells a look-up from a connection.

use aya_ebpf::{EbpfContext as _, bindings::bpf_sock_addr, macros::cgroup_sock_addr, programs::SockAddrContext};
use probe_common::PROTOCOL_UDP;
use probe_ebpf::{
    context,
    context::{mapped, words},
    context64, control,
};

use crate::{
    owners::Socket,
    udp,
    udp::{Peer, received, sent},
};

/// IPv4, also from an IPv6 socket.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    with(&ctx, address4, sent);
    1
}

/// IPv6.
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    with(&ctx, address6, sent);
    1
}

/// IPv4.
#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    with(&ctx, address4, received);
    1
}

/// IPv6, and IPv4 to an IPv6 socket.
#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    with(&ctx, address6, received);
    1
}

/// IPv4.
#[cgroup_sock_addr(getsockname4)]
pub fn getsockname4(ctx: SockAddrContext) -> i32 {
    with_socket(&ctx, udp::named);
    1
}

/// IPv6.
#[cgroup_sock_addr(getsockname6)]
pub fn getsockname6(ctx: SockAddrContext) -> i32 {
    with_socket(&ctx, udp::named);
    1
}

#[inline(always)]
fn with_socket(ctx: &SockAddrContext, each: impl FnOnce(&Socket)) {
    let raw = ctx.as_ptr();
    if context!(raw, bpf_sock_addr, protocol) != u32::from(PROTOCOL_UDP) || !control::is_awake() {
        return;
    }
    let pointer = context64!(raw, bpf_sock_addr, __bindgen_anon_1);
    if pointer != 0 {
        each(&Socket { pointer, context: raw });
    }
}

#[inline(always)]
fn with(ctx: &SockAddrContext, address: impl FnOnce(&SockAddrContext) -> [u8; 16], each: impl FnOnce(&Socket, &Peer)) {
    with_socket(ctx, |socket| each(socket, &Peer { address: address(ctx), port: port(ctx) }));
}

/// The port stands in network order in the lower half of the word.
#[inline(always)]
pub fn port(ctx: &SockAddrContext) -> u16 {
    u16::from_be(context!(ctx.as_ptr(), bpf_sock_addr, user_port) as u16)
}

/// The address of an IPv4 call.
#[inline(always)]
pub fn address4(ctx: &SockAddrContext) -> [u8; 16] {
    mapped(context!(ctx.as_ptr(), bpf_sock_addr, user_ip4))
}

/// The address of an IPv6 call.
#[inline(always)]
pub fn address6(ctx: &SockAddrContext) -> [u8; 16] {
    let raw = ctx.as_ptr();
    words([
        context!(raw, bpf_sock_addr, user_ip6[0]),
        context!(raw, bpf_sock_addr, user_ip6[1]),
        context!(raw, bpf_sock_addr, user_ip6[2]),
        context!(raw, bpf_sock_addr, user_ip6[3]),
    ])
}
