//! `bind(2)`: runs in the process that binds. What listens later has its owner from here.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{bpf_sock, bpf_sock_addr},
    macros::{cgroup_sock, cgroup_sock_addr},
    programs::{SockAddrContext, SockContext},
};
use probe_common::{PROTOCOL_TCP, PROTOCOL_UDP, flag};
use probe_ebpf::{
    context,
    context::{mapped, words},
    context64,
};

use crate::{owners, owners::Socket, udp};

/// IPv4, before it is done: the port that the process asks for is told here alone.
#[cgroup_sock_addr(bind4)]
pub fn bind4(ctx: SockAddrContext) -> i32 {
    asked_for(&ctx);
    1
}

/// IPv6.
#[cgroup_sock_addr(bind6)]
pub fn bind6(ctx: SockAddrContext) -> i32 {
    asked_for(&ctx);
    1
}

/// IPv4, when it has succeeded.
#[cgroup_sock(post_bind4)]
pub fn post_bind4(ctx: SockContext) -> i32 {
    let address = match context!(ctx.as_ptr(), bpf_sock, src_ip4) {
        0 => [0; 16],
        address => mapped(address),
    };
    bound(&ctx, address);
    1
}

/// IPv6. Most servers bind `::`, which takes IPv4 as well.
#[cgroup_sock(post_bind6)]
pub fn post_bind6(ctx: SockContext) -> i32 {
    let raw = ctx.as_ptr();
    let address = words([
        context!(raw, bpf_sock, src_ip6[0]),
        context!(raw, bpf_sock, src_ip6[1]),
        context!(raw, bpf_sock, src_ip6[2]),
        context!(raw, bpf_sock, src_ip6[3]),
    ]);
    bound(&ctx, address);
    1
}

#[inline(always)]
fn asked_for(ctx: &SockAddrContext) {
    let raw = ctx.as_ptr();
    // Whoever binds port 0 takes any.
    if context!(raw, bpf_sock_addr, protocol) != u32::from(PROTOCOL_UDP) || context!(raw, bpf_sock_addr, user_port) == 0 {
        return;
    }
    let pointer = context64!(raw, bpf_sock_addr, __bindgen_anon_1);
    if pointer != 0 {
        udp::chose_port(&Socket { pointer, context: raw });
    }
}

#[inline(always)]
fn bound(ctx: &SockContext, address: [u8; 16]) {
    let raw = ctx.as_ptr();
    // For this kind of program the context is the socket.
    let socket = Socket { pointer: raw as u64, context: raw };
    match context!(raw, bpf_sock, protocol) as u8 {
        PROTOCOL_TCP => owners::claim(&socket, flag::BOUND, [0; 16], 0),
        PROTOCOL_UDP => udp::bound(&socket, address),
        _ => {}
    }
}
