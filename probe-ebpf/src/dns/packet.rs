//! Headers of a packet, as far as they lead to a datagram from the port of DNS.
//!
//! The kernel runs these programs before a packet is cut into fragments and after it was put together, so fragments are rare (raw sockets).
//! The first one of a packet has the UDP header and the beginning of the message; the others have neither and are left.

use aya_ebpf::{EbpfContext as _, bindings::__sk_buff, programs::SkBuffContext};
use probe_common::{Address, DNS_PORT};
use probe_ebpf::{
    context,
    context::{mapped, words},
};

/// `ETH_P_IP` and `ETH_P_IPV6` in network order, as the context has them.
const ETHERTYPE_IPV4: u32 = 0x0800_u16.to_be() as u32;
const ETHERTYPE_IPV6: u32 = 0x86dd_u16.to_be() as u32;

const UDP: u8 = 17;
const UDP_HEADER: u32 = 8;

/// Extension headers that are passed before a packet is left.
const EXTENSIONS_MAX: u32 = 4;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// A UDP datagram from the port of DNS.
pub struct Datagram {
    pub source: Address,
    pub destination: Address,
    pub destination_port: u16,
    /// Where its message begins in the packet.
    pub offset: u32,
    /// Length of the message by the UDP header.
    pub length: u16,
}

#[repr(C)]
struct Ipv4Header {
    version_and_length: u8,
    service: u8,
    total_length: u16,
    id: u16,
    fragment: u16,
    time_to_live: u8,
    protocol: u8,
    checksum: u16,
    source: u32,
    destination: u32,
}

#[repr(C)]
struct Ipv6Header {
    version_class_label: u32,
    payload_length: u16,
    next_header: u8,
    hop_limit: u8,
    source: [u32; 4],
    destination: [u32; 4],
}

#[repr(C)]
struct UdpHeader {
    source: u16,
    destination: u16,
    length: u16,
    checksum: u16,
}

/// What the packet is; `None` for all that is no datagram from the port of DNS.
#[inline(always)]
pub fn from_dns_port(ctx: &SkBuffContext) -> Option<Datagram> {
    match context!(ctx.as_ptr(), __sk_buff, protocol) {
        ETHERTYPE_IPV4 => ipv4(ctx),
        ETHERTYPE_IPV6 => ipv6(ctx),
        _ => None,
    }
}

#[inline(always)]
fn ipv4(ctx: &SkBuffContext) -> Option<Datagram> {
    let header = ctx.load::<Ipv4Header>(0).ok()?;
    // The lower 13 bits are the fragment's offset.
    if header.protocol != UDP || u16::from_be(header.fragment) & 0x1fff != 0 {
        return None;
    }
    let length = u32::from(header.version_and_length & 0xf) * 4;
    udp(ctx, length, mapped(header.source), mapped(header.destination))
}

#[inline(always)]
fn ipv6(ctx: &SkBuffContext) -> Option<Datagram> {
    let header = ctx.load::<Ipv6Header>(0).ok()?;
    let mut next = header.next_header;
    let mut offset = size_of::<Ipv6Header>() as u32;
    for _ in 0..EXTENSIONS_MAX {
        if next == UDP {
            break;
        }
        if next != HOP_BY_HOP && next != ROUTING && next != DESTINATION && next != FRAGMENT {
            return None;
        }
        let extension = ctx.load::<[u8; 4]>(offset as usize).ok()?;
        if next == FRAGMENT {
            // The upper 13 bits of the second half are the fragment's offset. The header has one length.
            if u16::from_be_bytes([extension[2], extension[3]]) & 0xfff8 != 0 {
                return None;
            }
            offset += 8;
        } else {
            offset += (u32::from(extension[1]) + 1) * 8;
        }
        next = extension[0];
    }
    if next != UDP {
        return None;
    }
    udp(ctx, offset, words(header.source), words(header.destination))
}

#[inline(always)]
fn udp(ctx: &SkBuffContext, offset: u32, source: Address, destination: Address) -> Option<Datagram> {
    let header = ctx.load::<UdpHeader>(offset as usize).ok()?;
    if header.source != DNS_PORT.to_be() {
        return None;
    }
    Some(Datagram {
        source,
        destination,
        destination_port: u16::from_be(header.destination),
        offset: offset + UDP_HEADER,
        length: u16::from_be(header.length).saturating_sub(UDP_HEADER as u16),
    })
}
