//! `bind(2)`, when it has succeeded: runs in the process that binds. What listens later has its owner from here.

use aya_ebpf::{EbpfContext as _, bindings::bpf_sock, helpers::bpf_get_netns_cookie, macros::cgroup_sock, programs::SockContext};
use probe_common::{PROTOCOL_TCP, flag};
use probe_ebpf::context;

use crate::owners;

/// IPv4.
#[cgroup_sock(post_bind4)]
pub fn post_bind4(ctx: SockContext) -> i32 {
    claim(&ctx);
    1
}

/// IPv6. Most servers bind `::`, which takes IPv4 as well.
#[cgroup_sock(post_bind6)]
pub fn post_bind6(ctx: SockContext) -> i32 {
    claim(&ctx);
    1
}

#[inline(always)]
fn claim(ctx: &SockContext) {
    let raw = ctx.as_ptr();
    if context!(raw, bpf_sock, protocol) != u32::from(PROTOCOL_TCP) {
        return;
    }
    // SAFETY: the helper takes the context as it is.
    let netns = unsafe { bpf_get_netns_cookie(raw) };
    // For this kind of program the context is the socket.
    owners::claim(raw as u64, netns, flag::BOUND, [0; 16], 0);
}
