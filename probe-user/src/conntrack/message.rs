//! Messages of the kernel's connection tracking (`linux/netfilter/nfnetlink_conntrack.h`): bytes in, entries out. Pure, and without an
//! allocation per message. Framing and attributes are cut by `netlink-packet-core`; what the attributes mean is read here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NlaBuffer, NlasIterator};

use crate::observation::Protocol;

const HEADER_LEN: usize = 16;
/// `struct nfgenmsg`: family, version, resource.
const GENERAL_LEN: usize = 4;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;

/// Subsystem `NFNL_SUBSYS_CTNETLINK` in the upper byte, the message in the lower one.
const IPCTNL_MSG_CT_NEW: u16 = 0x100;
const IPCTNL_MSG_CT_GET: u16 = 0x101;
const IPCTNL_MSG_CT_DELETE: u16 = 0x102;
const IPCTNL_MSG_CT_GET_STATS: u16 = 0x105;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
/// Also the attribute that the kernel's filter looks for.
pub(super) const CTA_STATUS: u16 = 3;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_STATUS_MASK: u16 = 26;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

/// The source address or port of the first packet was changed.
pub const IPS_SRC_NAT: u32 = 1 << 4;
/// Its destination was.
pub const IPS_DST_NAT: u32 = 1 << 5;

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// An entry: new, changed, or found by a dump.
    Entry(Entry),
    /// An entry that ended.
    Ended(Entry),
    /// The end of a dump; 0, or what broke it off.
    Done(i32),
    /// The answer to a request; 0, or why it was refused.
    Answer(i32),
    /// The kernel had no room for a message.
    Overrun,
    /// Something else: an entry of a protocol without ports, another subsystem's message.
    Other,
}

/// One tracked connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The kernel's number of the entry. It may be used again once the entry has ended.
    pub id: u32,
    /// Conntrack zone; 0 is the usual one.
    pub zone: u16,
    /// Bits `IPS_…`.
    pub status: u32,
    /// Transport.
    pub protocol: Protocol,
    /// As the first packet came.
    pub original: Tuple,
    /// As an answer is expected: what the server answers from and to.
    pub reply: Tuple,
}

impl Entry {
    /// Whether addresses or ports were translated. IPVS changes the answer's alone and marks nothing.
    pub fn is_translated(&self) -> bool {
        self.status & (IPS_SRC_NAT | IPS_DST_NAT) != 0
            || self.reply.source != self.original.destination
            || self.reply.destination != self.original.source
    }
}

/// Two ends of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Where it comes from.
    pub source: (IpAddr, u16),
    /// Where it goes to.
    pub destination: (IpAddr, u16),
}

/// A message that is not what the kernel's headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A length leads out of the datagram. Nothing after it can be read.
    #[error("a netlink message with a wrong length")]
    Length,
    /// An attribute is cut off, or has not the size of its kind.
    #[error("an attribute with a wrong length")]
    Attribute,
    /// An entry without both of its tuples, or a tuple without its addresses.
    #[error("an entry without its addresses")]
    Incomplete,
}

/// The messages in a datagram, one after the other. After a wrong length there is no next one.
pub fn parse(bytes: &[u8]) -> impl Iterator<Item = Result<Message, Malformed>> + '_ {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some((kind, payload, length)) = frame(rest) else {
            rest = &[];
            return Some(Err(Malformed::Length));
        };
        // Messages are aligned to four bytes; the last one may end without its padding.
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message(kind, payload))
    })
}

/// Kind and payload of the first message, and its length with the header.
fn frame(bytes: &[u8]) -> Option<(u16, &[u8], usize)> {
    let length = usize::try_from(u32::from_ne_bytes(array(bytes, 0)?)).ok()?;
    let payload = bytes.get(HEADER_LEN..length)?;
    Some((u16::from_ne_bytes(array(bytes, 4)?), payload, length))
}

fn message(kind: u16, payload: &[u8]) -> Result<Message, Malformed> {
    let code = || array(payload, 0).map(i32::from_ne_bytes);
    match kind {
        // A dump's end has carried its result since long; one without is a good one.
        NLMSG_DONE => Ok(Message::Done(code().unwrap_or(0))),
        NLMSG_ERROR => code().map(Message::Answer).ok_or(Malformed::Length),
        NLMSG_OVERRUN => Ok(Message::Overrun),
        IPCTNL_MSG_CT_NEW => Ok(entry(payload)?.map_or(Message::Other, Message::Entry)),
        IPCTNL_MSG_CT_DELETE => Ok(entry(payload)?.map_or(Message::Other, Message::Ended)),
        _ => Ok(Message::Other),
    }
}

/// `None` when it is of another protocol than TCP and UDP.
fn entry(payload: &[u8]) -> Result<Option<Entry>, Malformed> {
    let (mut original, mut reply, mut id, mut zone, mut status) = (None, None, 0, 0, 0);
    for attribute in attributes(payload.get(GENERAL_LEN..).ok_or(Malformed::Length)?) {
        let (kind, value) = attribute?;
        match kind {
            CTA_TUPLE_ORIG => original = Some(tuple(value)?),
            CTA_TUPLE_REPLY => reply = Some(tuple(value)?),
            CTA_STATUS => status = u32::from_be_bytes(exact(value)?),
            CTA_ID => id = u32::from_be_bytes(exact(value)?),
            CTA_ZONE => zone = u16::from_be_bytes(exact(value)?),
            _ => {}
        }
    }
    let ((protocol, original), (_, reply)) = original.zip(reply).ok_or(Malformed::Incomplete)?;
    let protocol = match i32::from(protocol) {
        libc::IPPROTO_TCP => Protocol::Tcp,
        libc::IPPROTO_UDP => Protocol::Udp,
        _ => return Ok(None),
    };
    Ok(Some(Entry { id, zone, status, protocol, original, reply }))
}

/// Protocol and both ends. Protocols without ports have 0 there.
fn tuple(value: &[u8]) -> Result<(u8, Tuple), Malformed> {
    let (mut source, mut destination, mut protocol, mut ports) = (None, None, None, (0, 0));
    for part in attributes(value) {
        let (part, value) = part?;
        for attribute in (part == CTA_TUPLE_IP || part == CTA_TUPLE_PROTO).then(|| attributes(value)).into_iter().flatten() {
            let (kind, value) = attribute?;
            match (part, kind) {
                (CTA_TUPLE_IP, CTA_IP_V4_SRC) => source = Some(IpAddr::V4(Ipv4Addr::from(exact::<4>(value)?))),
                (CTA_TUPLE_IP, CTA_IP_V4_DST) => destination = Some(IpAddr::V4(Ipv4Addr::from(exact::<4>(value)?))),
                (CTA_TUPLE_IP, CTA_IP_V6_SRC) => source = Some(IpAddr::V6(Ipv6Addr::from(exact::<16>(value)?))),
                (CTA_TUPLE_IP, CTA_IP_V6_DST) => destination = Some(IpAddr::V6(Ipv6Addr::from(exact::<16>(value)?))),
                (CTA_TUPLE_PROTO, CTA_PROTO_NUM) => protocol = Some(u8::from_be_bytes(exact(value)?)),
                (CTA_TUPLE_PROTO, CTA_PROTO_SRC_PORT) => ports.0 = u16::from_be_bytes(exact(value)?),
                (CTA_TUPLE_PROTO, CTA_PROTO_DST_PORT) => ports.1 = u16::from_be_bytes(exact(value)?),
                _ => {}
            }
        }
    }
    let (source, destination) = source.zip(destination).ok_or(Malformed::Incomplete)?;
    let protocol = protocol.ok_or(Malformed::Incomplete)?;
    let tuple = Tuple { source: (source.to_canonical(), ports.0), destination: (destination.to_canonical(), ports.1) };
    Ok((protocol, tuple))
}

/// Kind and value of each attribute.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), Malformed>> {
    NlasIterator::new(bytes).map(|attribute| {
        let attribute: NlaBuffer<&[u8]> = attribute.map_err(|_| Malformed::Attribute)?;
        let length = usize::from(attribute.length());
        attribute.into_inner().get(4..length).map(|value| (attribute.kind(), value)).ok_or(Malformed::Attribute)
    })
}

/// The value as it must be: exactly `N` bytes.
fn exact<const N: usize>(value: &[u8]) -> Result<[u8; N], Malformed> {
    value.try_into().map_err(|_| Malformed::Attribute)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// The request for all entries of which `status` is set within `mask`. Kernels before 5.19 answer with all there are.
pub fn dump_request(status: u32, mask: u32) -> Vec<u8> {
    const LEN: u32 = 16 + 4 + 8 + 8;
    let mut message = Vec::with_capacity(LEN as usize);
    message.extend_from_slice(&LEN.to_ne_bytes());
    message.extend_from_slice(&IPCTNL_MSG_CT_GET.to_ne_bytes());
    message.extend_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    // Sequence and port number: one dump at a time, and the kernel fills in who asked. Then any family, version 0, no resource.
    message.extend_from_slice(&[0; 8 + GENERAL_LEN]);
    for (kind, value) in [(CTA_STATUS, status), (CTA_STATUS_MASK, mask)] {
        message.extend_from_slice(&8_u16.to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&value.to_be_bytes());
    }
    message
}

/// The request for all entries.
pub fn dump_all_request() -> Vec<u8> {
    const LEN: u32 = 16 + 4;
    let mut message = Vec::with_capacity(LEN as usize);
    message.extend_from_slice(&LEN.to_ne_bytes());
    message.extend_from_slice(&IPCTNL_MSG_CT_GET.to_ne_bytes());
    message.extend_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    message.extend_from_slice(&[0; 8 + GENERAL_LEN]);
    message
}

/// The request for global statistics, whose answer is one short message of a kind that [`parse`] does not look into.
pub fn count_request() -> Vec<u8> {
    const LEN: u32 = 16 + 4;
    let mut message = Vec::with_capacity(LEN as usize);
    message.extend_from_slice(&LEN.to_ne_bytes());
    message.extend_from_slice(&IPCTNL_MSG_CT_GET_STATS.to_ne_bytes());
    message.extend_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    message.extend_from_slice(&[0; 8 + GENERAL_LEN]);
    message
}

#[cfg(test)]
mod tests;
