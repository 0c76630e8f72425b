//! Messages of `NETLINK_SOCK_DIAG` for TCP and UDP: `inet_diag_req_v2` out, `inet_diag_msg` and `tcp_info` in. Layouts from `linux/inet_diag.h` and
//! `linux/tcp.h`, which are kernel interface and only grow at the end.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use crate::observation::Protocol;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const INET_DIAG_INFO: u16 = 2;
/// Since Linux 5.9; told without being asked for.
const INET_DIAG_CGROUP_ID: u16 = 21;
const HEADER_LEN: usize = 16;
const MESSAGE_LEN: usize = 72;

const TCP_ESTABLISHED: u8 = 1;
const TCP_FIN_WAIT1: u8 = 4;
const TCP_FIN_WAIT2: u8 = 5;
/// A UDP socket that is bound and not connected.
const TCP_CLOSE: u8 = 7;
const TCP_CLOSE_WAIT: u8 = 8;
const TCP_LISTEN: u8 = 10;

/// Which sockets a dump holds, as a bit set of TCP states. A UDP socket is established when it is connected, and closed when it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct States(u32);

impl States {
    /// Listening sockets.
    pub const LISTENING: States = States(1 << TCP_LISTEN);
    /// Connections over which data can still flow in one direction at least.
    pub const CONNECTED: States = States(1 << TCP_ESTABLISHED | 1 << TCP_FIN_WAIT1 | 1 << TCP_FIN_WAIT2 | 1 << TCP_CLOSE_WAIT);
    /// Datagram sockets that take datagrams from anybody.
    pub const UNCONNECTED: States = States(1 << TCP_CLOSE);
    /// Listening sockets and connections.
    pub const ALL: States = States(States::LISTENING.0 | States::CONNECTED.0);

    /// Whether a socket of a protocol in this state is one of them.
    pub fn contain(self, protocol: Protocol, state: u8) -> bool {
        1_u32.checked_shl(state.into()).is_some_and(|bit| self.of(protocol) & bit != 0)
    }

    /// The same in the states that sockets of a protocol have.
    fn of(self, protocol: Protocol) -> u32 {
        let has = |states: States| self.0 & states.0 != 0;
        match protocol {
            Protocol::Tcp => self.0,
            Protocol::Udp => {
                u32::from(has(States::LISTENING) || has(States::UNCONNECTED)) << TCP_CLOSE
                    | u32::from(has(States::CONNECTED)) << TCP_ESTABLISHED
            }
        }
    }
}

/// One socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketRecord {
    /// Transport.
    pub protocol: Protocol,
    /// TCP state; see [`States`] for UDP.
    pub state: u8,
    /// Local address; IPv4-mapped addresses are IPv4 here.
    pub local: (IpAddr, u16),
    /// Remote address.
    pub remote: (IpAddr, u16),
    /// Inode, which `/proc/<pid>/fd` names; 0 when no process has it.
    pub inode: u64,
    /// The kernel's number of the socket, never used again.
    pub cookie: u64,
    /// Tells it apart from the sockets that the kernel programs see; 0 when it was not found by one of them.
    pub address: u64,
    /// cgroup v2 id of the socket; 0 when the kernel does not tell.
    pub cgroup_id: u64,
    /// Bytes that the other end acknowledged.
    pub bytes_acked: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Segments sent again.
    pub retransmits: u32,
    /// Smoothed round-trip time, in microseconds.
    pub rtt_us: u32,
}

impl SocketRecord {
    /// Whether it waits for connections or datagrams.
    pub fn is_listener(&self) -> bool {
        match self.protocol {
            Protocol::Tcp => self.state == TCP_LISTEN,
            Protocol::Udp => self.state == TCP_CLOSE,
        }
    }

    /// Whether the socket says something of who listens or who talks with whom. Of UDP sockets that are not connected only those on ports that
    /// the kernel gives to nobody are known to serve.
    pub fn is_telling(&self, ephemeral: &RangeInclusive<u16>) -> bool {
        self.protocol == Protocol::Tcp || !self.is_listener() || self.local.1 != 0 && !ephemeral.contains(&self.local.1)
    }
}

/// Whether a dump goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    More,
    Done,
}

/// The request for all sockets of a family and protocol.
pub(crate) fn request(family: i32, protocol: Protocol, states: States) -> Vec<u8> {
    const LEN: u32 = 72;
    let mut message = Vec::with_capacity(LEN as usize);
    message.extend_from_slice(&LEN.to_ne_bytes());
    message.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    // Sequence and port number: one dump at a time, and the kernel fills in who asked.
    message.extend_from_slice(&[0; 8]);
    message.push(u8::try_from(family).unwrap_or(0));
    message.push(number(protocol));
    message.push(1 << (INET_DIAG_INFO - 1));
    message.push(0);
    message.extend_from_slice(&states.of(protocol).to_ne_bytes());
    // An empty socket id: every socket.
    message.extend_from_slice(&[0; 48]);
    message
}

/// Adds the sockets in one datagram to `sockets`.
pub(crate) fn parse(mut datagram: &[u8], protocol: Protocol, sockets: &mut Vec<SocketRecord>) -> io::Result<Progress> {
    while datagram.len() >= HEADER_LEN {
        let length = u32_at(datagram, 0).and_then(|it| usize::try_from(it).ok()).unwrap_or(0);
        let (Some(message), Some(kind)) = (datagram.get(..length).filter(|it| it.len() >= HEADER_LEN), u16_at(datagram, 4)) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a netlink message with a wrong length"));
        };
        match kind {
            NLMSG_DONE => return Ok(Progress::Done),
            NLMSG_ERROR => {
                let code = u32_at(message, HEADER_LEN).unwrap_or(0).cast_signed();
                return Err(io::Error::from_raw_os_error(code.saturating_neg()));
            }
            SOCK_DIAG_BY_FAMILY => sockets.extend(record(protocol, &message[HEADER_LEN..])),
            _ => {}
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(Progress::More)
}

/// IP protocol number.
fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

fn record(protocol: Protocol, message: &[u8]) -> Option<SocketRecord> {
    let family = i32::from(*message.first()?);
    let mut record = SocketRecord {
        protocol,
        state: *message.get(1)?,
        local: (address(family, message.get(8..24)?)?, u16::from_be_bytes(message.get(4..6)?.try_into().ok()?)),
        remote: (address(family, message.get(24..40)?)?, u16::from_be_bytes(message.get(6..8)?.try_into().ok()?)),
        cookie: u64_at(message, 44)?,
        inode: u32_at(message, 68)?.into(),
        address: 0,
        cgroup_id: 0,
        bytes_acked: 0,
        bytes_received: 0,
        retransmits: 0,
        rtt_us: 0,
    };
    let mut attributes = message.get(MESSAGE_LEN..)?;
    while let (Some(length), Some(kind)) = (u16_at(attributes, 0).map(usize::from), u16_at(attributes, 2)) {
        let Some(value) = attributes.get(4..length) else { break };
        if kind == INET_DIAG_INFO && protocol == Protocol::Tcp {
            // struct tcp_info; an older kernel has a shorter one.
            record.rtt_us = u32_at(value, 68).unwrap_or(0);
            record.retransmits = u32_at(value, 100).unwrap_or(0);
            record.bytes_acked = u64_at(value, 120).unwrap_or(0);
            record.bytes_received = u64_at(value, 128).unwrap_or(0);
        } else if kind == INET_DIAG_CGROUP_ID {
            record.cgroup_id = u64_at(value, 0).unwrap_or(0);
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(record)
}

fn address(family: i32, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        libc::AF_INET => Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(..4)?).ok()?))),
        libc::AF_INET6 => Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)).to_canonical()),
        _ => None,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
