//! Messages of `NETLINK_SOCK_DIAG` for Unix sockets (`linux/unix_diag.h`): `unix_diag_req` out, `unix_diag_msg` and its attributes in. Pure. Attributes
//! are cut by `netlink-packet-core`; what they mean is read here.

use std::io;

use netlink_packet_core::{NlaBuffer, NlasIterator};

const HEADER_LEN: usize = 16;
/// `struct unix_diag_msg`: family, type, state, padding, inode, cookie.
const MESSAGE_LEN: usize = 16;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const SOCK_DIAG_BY_FAMILY: u16 = 20;

const UDIAG_SHOW_NAME: u32 = 1 << 0;
const UDIAG_SHOW_VFS: u32 = 1 << 1;
const UDIAG_SHOW_PEER: u32 = 1 << 2;

const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_VFS: u16 = 1;
const UNIX_DIAG_PEER: u16 = 2;

/// A socket that waits for connections; the same number as TCP's.
const LISTENING: u8 = 10;

/// Largest name: all of `sun_path`. The kernel tells one byte more for a path that fills it, which ends in zero.
pub const NAME_MAX: usize = 108;

/// What a socket carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `SOCK_STREAM`.
    Stream,
    /// `SOCK_DGRAM`.
    Datagram,
    /// `SOCK_SEQPACKET`.
    Packets,
}

impl Kind {
    /// Whether two sockets of it are connected with each other or not at all.
    pub fn has_connections(self) -> bool {
        self != Kind::Datagram
    }

    fn of(number: u8) -> Option<Self> {
        match i32::from(number) {
            libc::SOCK_STREAM => Some(Kind::Stream),
            libc::SOCK_DGRAM => Some(Kind::Datagram),
            libc::SOCK_SEQPACKET => Some(Kind::Packets),
            _ => None,
        }
    }
}

/// One Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixSocket {
    /// What it carries.
    pub kind: Kind,
    /// Whether it waits for connections.
    pub listens: bool,
    /// Inode, which `/proc/<pid>/fd` names.
    pub inode: u32,
    /// Inode of the socket that it is connected with; 0 when there is none, or nobody has accepted yet.
    pub peer: u32,
    /// As bound, or as the listener was that accepted it: a path, or an abstract name behind a zero. Empty when it has none.
    pub name: Box<[u8]>,
    /// Inode and device of the file that a path led to when it was bound.
    pub file: Option<(u32, u32)>,
}

/// Whether a dump goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It does.
    More,
    /// That was all.
    Done,
}

/// The request for all Unix sockets of the network namespace, with their names, files and peers.
pub fn request() -> Vec<u8> {
    const LEN: u32 = 40;
    let mut message = Vec::with_capacity(LEN as usize);
    message.extend_from_slice(&LEN.to_ne_bytes());
    message.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    // Sequence and port number: one dump at a time, and the kernel fills in who asked.
    message.extend_from_slice(&[0; 8]);
    // Family, protocol, padding; then all states, any inode.
    message.extend_from_slice(&[u8::try_from(libc::AF_UNIX).unwrap_or(1), 0, 0, 0]);
    message.extend_from_slice(&u32::MAX.to_ne_bytes());
    message.extend_from_slice(&0_u32.to_ne_bytes());
    message.extend_from_slice(&(UDIAG_SHOW_NAME | UDIAG_SHOW_VFS | UDIAG_SHOW_PEER).to_ne_bytes());
    // Any cookie.
    message.extend_from_slice(&[0xff; 8]);
    message
}

/// Hands the sockets in one datagram to `found`.
///
/// # Errors
/// What the kernel answered instead, or `InvalidData` when a length leads out of the datagram or a socket cannot be read.
pub fn parse(mut datagram: &[u8], mut found: impl FnMut(UnixSocket)) -> io::Result<Progress> {
    while !datagram.is_empty() {
        let (Some(kind), Some(length)) = (u16_at(datagram, 4), u32_at(datagram, 0).and_then(|it| usize::try_from(it).ok())) else {
            return Err(malformed("a netlink message that is cut off"));
        };
        let payload = datagram.get(HEADER_LEN..length).ok_or_else(|| malformed("a netlink message with a wrong length"))?;
        match kind {
            NLMSG_DONE => return Ok(Progress::Done),
            NLMSG_ERROR => {
                let code = u32_at(payload, 0).unwrap_or(0).cast_signed();
                return Err(io::Error::from_raw_os_error(code.saturating_neg()));
            }
            SOCK_DIAG_BY_FAMILY => {
                if let Some(socket) = socket(payload)? {
                    found(socket);
                }
            }
            _ => {}
        }
        // Messages are aligned to four bytes; the last one may end without its padding.
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(Progress::More)
}

/// A socket; `None` for a kind that no kernel has yet.
fn socket(payload: &[u8]) -> io::Result<Option<UnixSocket>> {
    let (head, attributes) = payload.split_at_checked(MESSAGE_LEN).ok_or_else(|| malformed("a socket that is cut off"))?;
    if i32::from(head[0]) != libc::AF_UNIX {
        return Err(malformed("a socket of another family"));
    }
    let (Some(kind), Some(inode)) = (Kind::of(head[1]), u32_at(head, 4)) else { return Ok(None) };
    let mut socket = UnixSocket { kind, listens: head[2] == LISTENING, inode, peer: 0, name: Box::default(), file: None };
    for attribute in NlasIterator::new(attributes) {
        let attribute: NlaBuffer<_> = attribute.map_err(|_| malformed("an attribute with a wrong length"))?;
        let value = attribute.value();
        let wrong = || malformed("an attribute that is cut off");
        match attribute.kind() {
            UNIX_DIAG_NAME => socket.name = name(value)?,
            UNIX_DIAG_VFS => socket.file = Some((u32_at(value, 0).ok_or_else(wrong)?, u32_at(value, 4).ok_or_else(wrong)?)),
            UNIX_DIAG_PEER => socket.peer = u32_at(value, 0).ok_or_else(wrong)?,
            _ => {}
        }
    }
    Ok(Some(socket))
}

/// A path ends before its zero; an abstract name may have zeros.
fn name(value: &[u8]) -> io::Result<Box<[u8]>> {
    let name = match value.first() {
        Some(0) => value,
        _ => value.split(|byte| *byte == 0).next().unwrap_or_default(),
    };
    if name.len() > NAME_MAX { Err(malformed("a name that is too long")) } else { Ok(name.into()) }
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests;
