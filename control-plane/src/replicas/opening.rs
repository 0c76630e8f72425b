//! The first bytes of a connection that one control plane carries to another: what it is for, and who called.
//!
//! A capital letter says what it is for, and the caller's bytes follow at once. A small letter says the same, and is followed by the caller's
//! address: its length as a byte, then `address:port` as text. A control plane of before knows the capitals alone, so the others are for those
//! that say in their znode ([`ha::Addresses::protocol`]) that they know them.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::Purpose;

/// What our listener understands.
pub(super) const PROTOCOL: u32 = WITH_RECORD;
/// From here on, the caller's address may stand in front.
pub(super) const WITH_CALLERS: u32 = 1;
/// From here on, the record can be asked for.
pub(super) const WITH_RECORD: u32 = 2;

/// What stands in front of a carried connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    /// What the connection is for.
    pub(super) purpose: Purpose,
    /// Who called the control plane that carries it, if that one says so.
    pub(super) caller: Option<SocketAddr>,
}

impl Opening {
    /// As bytes.
    pub(super) fn encode(self) -> Vec<u8> {
        let letter = letter(self.purpose);
        let Some(caller) = self.caller.map(|it| it.to_string()) else { return vec![letter] };
        match u8::try_from(caller.len()) {
            Ok(length) => [&[letter.to_ascii_lowercase(), length], caller.as_bytes()].concat(),
            // No address is that long.
            Err(_) => vec![letter],
        }
    }

    /// Reads one.
    ///
    /// # Errors
    /// When the connection breaks, or begins with something else.
    pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let byte = from.read_u8().await?;
        let known = [Purpose::Http, Purpose::Grpc, Purpose::Marathon, Purpose::Record]
            .into_iter()
            .find(|it| letter(*it) == byte.to_ascii_uppercase());
        let purpose = known.ok_or_else(|| unknown(&format!("the byte {byte}")))?;
        if byte.is_ascii_uppercase() {
            return Ok(Opening { purpose, caller: None });
        }
        let mut text = vec![0; usize::from(from.read_u8().await?)];
        from.read_exact(&mut text).await?;
        let caller = String::from_utf8_lossy(&text);
        Ok(Opening { purpose, caller: Some(caller.parse().map_err(|_| unknown(&format!("a caller at {caller:?}")))?) })
    }
}

fn letter(purpose: Purpose) -> u8 {
    match purpose {
        Purpose::Http => b'H',
        Purpose::Grpc => b'G',
        Purpose::Marathon => b'M',
        Purpose::Record => b'R',
    }
}

fn unknown(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it begins with {what}, which no control plane sends"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_written_is_read_and_nothing_behind_it() {
        for caller in [None, Some("10.0.0.1:40000"), Some("[fe80::1%3]:1")] {
            for purpose in [Purpose::Http, Purpose::Grpc, Purpose::Marathon] {
                let opening = Opening { purpose, caller: caller.map(|it| it.parse().unwrap()) };
                let bytes = [opening.encode(), b"rest".to_vec()].concat();
                let mut bytes = bytes.as_slice();
                assert_eq!(Opening::read(&mut bytes).await.unwrap(), opening);
                assert_eq!(bytes, b"rest");
            }
        }
        assert_eq!(Opening { purpose: Purpose::Grpc, caller: None }.encode(), b"G", "what control planes of before understand");
    }

    #[tokio::test]
    async fn what_no_control_plane_sends_is_refused() {
        for bytes in [&b"X"[..], b"", b"h", b"h\x05no:80", b"h\x04no:", b"g\xff1.2.3.4:5"] {
            assert!(Opening::read(&mut &*bytes).await.is_err(), "{bytes:?}");
        }
    }
}
