//! Network interfaces of the host's network namespace and what went over them: a dump of `RTM_GETLINK` (rtnetlink(7)).
//!
//! It is read by hand rather than through `netlink-packet-route`: that crate refuses a message whose statistics are shorter than today's kernel's,
//! and makes a tree of each of the hundreds of links of a busy node of which eight numbers are wanted.

use std::io;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use proto::probe::v1::host_metrics::NetworkInterface;

use crate::procfs::parse::printable;
use crate::procfs::words::{lines, number, words};

/// Interfaces that are told at most.
pub const INTERFACES_MAX: usize = 256;

/// Name under which the host's ends of its containers' interfaces are told together.
pub const CONTAINERS_ENDS: &str = "veth*";

/// Links that are read at most: what is behind is left out.
const LINKS_MAX: usize = 65_536;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const IFF_UP: u32 = 0x1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_STATS64: u16 = 23;
const IFLA_INFO_KIND: u16 = 1;
const HEADER_LEN: usize = 16;
const MESSAGE_LEN: usize = 16;

/// The interfaces of a node, collected one by one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Interfaces {
    told: Vec<NetworkInterface>,
    /// All ends of containers' interfaces in one.
    ends: Option<NetworkInterface>,
    left_out: usize,
    seen: usize,
}

impl Interfaces {
    /// Adds one. Ends of pairs are summed up: their names say nothing, and every container has one.
    fn add(&mut self, interface: NetworkInterface, is_end: bool) {
        self.seen += 1;
        if is_end {
            let ends =
                self.ends.get_or_insert_with(|| NetworkInterface { name: CONTAINERS_ENDS.to_owned(), ..NetworkInterface::default() });
            ends.up |= interface.up;
            for (sum, value) in [
                (&mut ends.received_bytes, interface.received_bytes),
                (&mut ends.sent_bytes, interface.sent_bytes),
                (&mut ends.received_packets, interface.received_packets),
                (&mut ends.sent_packets, interface.sent_packets),
                (&mut ends.errors, interface.errors),
                (&mut ends.dropped, interface.dropped),
            ] {
                *sum = sum.saturating_add(value);
            }
        } else if self.told.len() < INTERFACES_MAX - 1 {
            self.told.push(interface);
        } else {
            self.left_out += 1;
        }
    }

    /// Those that are told, and how many found no room.
    pub fn finish(mut self) -> (Vec<NetworkInterface>, usize) {
        self.told.extend(self.ends);
        (self.told, self.left_out)
    }
}

/// The interfaces of the network namespace that this thread is in.
///
/// # Errors
/// When the kernel does not tell.
pub fn read_here() -> io::Result<Interfaces> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&request(), 0)?;
    let mut interfaces = Interfaces::default();
    let mut buffer = Vec::with_capacity(64 * 1024);
    loop {
        buffer.clear();
        socket.recv(&mut buffer, 0)?;
        if parse_links(&buffer, &mut interfaces)? {
            return Ok(interfaces);
        }
        if interfaces.seen > LINKS_MAX {
            return Ok(interfaces);
        }
    }
}

/// A dump of all links.
fn request() -> [u8; HEADER_LEN + MESSAGE_LEN] {
    let mut request = [0; HEADER_LEN + MESSAGE_LEN];
    let length = u32::try_from(request.len()).unwrap_or(0);
    request[..4].copy_from_slice(&length.to_ne_bytes());
    request[4..6].copy_from_slice(&RTM_GETLINK.to_ne_bytes());
    request[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    request
}

/// Takes the links of one datagram. Returns whether it was the last.
///
/// # Errors
/// What the kernel answered when it refused.
pub fn parse_links(datagram: &[u8], interfaces: &mut Interfaces) -> io::Result<bool> {
    let mut rest = datagram;
    while let (Some(length), Some(kind)) = (u32_at(rest, 0), u16_at(rest, 4)) {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(message) = rest.get(HEADER_LEN..length) else { break };
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = u32_at(message, 0).unwrap_or(0).cast_signed();
                return if code == 0 { Ok(true) } else { Err(io::Error::from_raw_os_error(code.saturating_neg())) };
            }
            RTM_NEWLINK => {
                if let Some((interface, is_end)) = link(message) {
                    interfaces.add(interface, is_end);
                }
            }
            _ => {}
        }
        // Messages are aligned to four bytes.
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// One `ifinfomsg` with its attributes: the interface, and whether it is an end of a pair (kind "veth").
fn link(message: &[u8]) -> Option<(NetworkInterface, bool)> {
    let flags = u32_at(message, 8)?;
    let mut interface = NetworkInterface { up: flags & IFF_UP != 0, ..NetworkInterface::default() };
    let mut is_end = false;
    for (kind, value) in attributes(message.get(MESSAGE_LEN..)?) {
        match kind {
            IFLA_IFNAME => interface.name = printable(value.split(|&byte| byte == 0).next().unwrap_or_default()),
            // struct rtnl_link_stats64, of which the first eight are as old as it is.
            IFLA_STATS64 => {
                let number = |at: usize| value.get(at * 8..at * 8 + 8).and_then(|it| it.try_into().ok()).map_or(0, u64::from_ne_bytes);
                interface.received_packets = number(0);
                interface.sent_packets = number(1);
                interface.received_bytes = number(2);
                interface.sent_bytes = number(3);
                interface.errors = number(4).saturating_add(number(5));
                interface.dropped = number(6).saturating_add(number(7));
            }
            IFLA_LINKINFO => {
                is_end = attributes(value).any(|(kind, value)| kind == IFLA_INFO_KIND && value.strip_suffix(b"\0") == Some(b"veth"))
            }
            _ => {}
        }
    }
    (!interface.name.is_empty()).then_some((interface, is_end))
}

/// Kind and value of each attribute. One whose length leads out of the bytes ends them.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        // The upper bits say how the value is to be read, not what it is.
        let kind = u16_at(rest, 2)? & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// The interfaces in `/proc/<pid>/net/dev`, for a probe that may not enter the host's network namespace. The file says neither kind nor state:
/// the names that the usual network plug-ins give tell the ends of pairs, and an interface that ever received or sent is taken to be up.
pub fn parse_dev(bytes: &[u8]) -> Interfaces {
    let mut interfaces = Interfaces::default();
    for line in lines(bytes) {
        // Headings have bars, interfaces have a colon.
        let Some(colon) = line.iter().rposition(|&byte| byte == b':') else { continue };
        let (name, counters) = (line[..colon].trim_ascii(), &line[colon + 1..]);
        let mut numbers = [0; 12];
        if name.is_empty() || words(counters).zip(&mut numbers).filter_map(|(word, slot)| number(word).map(|it| *slot = it)).count() < 12 {
            continue;
        }
        let [
            received_bytes,
            received_packets,
            receive_errors,
            receive_dropped,
            _,
            _,
            _,
            _,
            sent_bytes,
            sent_packets,
            send_errors,
            send_dropped,
        ] = numbers;
        let interface = NetworkInterface {
            name: printable(name),
            up: received_packets | sent_packets != 0,
            received_bytes,
            sent_bytes,
            received_packets,
            sent_packets,
            errors: receive_errors.saturating_add(send_errors),
            dropped: receive_dropped.saturating_add(send_dropped),
        };
        interfaces.add(interface, [&b"veth"[..], b"cali", b"lxc", b"gke", b"azv"].iter().any(|prefix| name.starts_with(prefix)));
    }
    interfaces
}

#[cfg(test)]
mod tests;
