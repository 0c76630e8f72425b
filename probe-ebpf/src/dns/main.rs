//! Answers of DNS servers: datagrams from port 53, as they leave the socket of a server on this machine or reach the socket of a client.
//!
//! The two programs run for every packet of the cgroups that they are attached to, so the probe attaches them only where DNS is spoken. What is
//! no UDP datagram from port 53 is left after one look at its header; what is one is copied, and taken apart by the probe.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(missing_docs, reason = "the macro of these programs loses their comments")]

mod message;
mod packet;

use aya_ebpf::{macros::cgroup_skb, programs::SkBuffContext};

/// Attached at the cgroup of a server.
#[cgroup_skb(egress)]
pub fn dns_egress(ctx: SkBuffContext) -> i32 {
    look(&ctx, 1)
}

/// Attached at the cgroup of a client.
#[cgroup_skb(ingress)]
pub fn dns_ingress(ctx: SkBuffContext) -> i32 {
    look(&ctx, 0)
}

/// Always 1: the packet goes on.
#[inline(always)]
fn look(ctx: &SkBuffContext, leaving: u16) -> i32 {
    if let Some(datagram) = packet::from_dns_port(ctx) {
        message::tell(ctx, &datagram, leaving);
    }
    1
}

/// See the same in `sockets`.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
