//! `connect(2)`: runs in the process that connects, before the first packet.

use aya_ebpf::{
    EbpfContext as _, bindings::bpf_sock_addr, helpers::bpf_get_netns_cookie, macros::cgroup_sock_addr, programs::SockAddrContext,
};
use probe_common::{PROTOCOL_TCP, flag};
use probe_ebpf::{
    context,
    context::{mapped, words},
    context64,
};

use crate::owners;

/// IPv4.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    let raw = ctx.as_ptr();
    if context!(raw, bpf_sock_addr, protocol) == u32::from(PROTOCOL_TCP) {
        claim(&ctx, mapped(context!(raw, bpf_sock_addr, user_ip4)));
    }
    1
}

/// IPv6, and IPv4 through an IPv6 socket.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    let raw = ctx.as_ptr();
    if context!(raw, bpf_sock_addr, protocol) == u32::from(PROTOCOL_TCP) {
        let server = [
            context!(raw, bpf_sock_addr, user_ip6[0]),
            context!(raw, bpf_sock_addr, user_ip6[1]),
            context!(raw, bpf_sock_addr, user_ip6[2]),
            context!(raw, bpf_sock_addr, user_ip6[3]),
        ];
        claim(&ctx, words(server));
    }
    1
}

#[inline(always)]
fn claim(ctx: &SockAddrContext, server: [u8; 16]) {
    let raw = ctx.as_ptr();
    let socket = context64!(raw, bpf_sock_addr, __bindgen_anon_1);
    if socket == 0 {
        return;
    }
    // The port stands in network order in the lower half of the word.
    let port = u16::from_be(context!(raw, bpf_sock_addr, user_port) as u16);
    // SAFETY: the helper takes the context as it is.
    let netns = unsafe { bpf_get_netns_cookie(raw) };
    owners::claim(socket, netns, flag::CLIENT, server, port);
}
