//! What clients with compression send, for a reader that knows of none.
//!
//! Clients of views have nothing to say, and what they say is thrown away unread; but a browser that was told it may compress would compress that,
//! too. Such a message is given on as one of bytes, which nobody looks into.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Set in the first byte of a compressed message (RFC 7692, 6).
const RSV1: u8 = 0x40;
const OPCODE: u8 = 0x0f;
const TEXT: u8 = 1;
const BINARY: u8 = 2;

/// A stream whose compressed messages come as uncompressed ones of bytes. Frames of control are left as they are: they are never compressed, and one
/// that says so is for the reader to refuse.
#[derive(Debug)]
pub(super) struct Incoming<S> {
    inner: S,
    /// `None` when no compression was agreed on.
    place: Option<Place>,
}

/// Where in a frame (RFC 6455, 5.2) the stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    First,
    Length,
    /// Bytes of a longer length that are to come, those that came, and whether a mask follows.
    Extended {
        left: u8,
        length: u64,
        mask: u64,
    },
    /// The mask and what it covers.
    Payload {
        left: u64,
    },
}

impl<S> Incoming<S> {
    pub(super) fn new(inner: S, is_compressed: bool) -> Self {
        Incoming { inner, place: is_compressed.then_some(Place::First) }
    }
}

impl Place {
    /// Passes over what came.
    fn pass(mut self, mut bytes: &mut [u8]) -> Place {
        while let Some(first) = bytes.first_mut() {
            let mut passed = 1;
            self = match self {
                Place::First => {
                    if *first & RSV1 != 0 && matches!(*first & OPCODE, TEXT | BINARY) {
                        *first = *first & !(RSV1 | OPCODE) | BINARY;
                    }
                    Place::Length
                }
                Place::Length => {
                    let mask = if *first & 0x80 == 0 { 0 } else { 4 };
                    match *first & 0x7f {
                        126 => Place::Extended { left: 2, length: 0, mask },
                        127 => Place::Extended { left: 8, length: 0, mask },
                        length => Place::payload(u64::from(length) + mask),
                    }
                }
                Place::Extended { left, length, mask } => {
                    let length = length << 8 | u64::from(*first);
                    if left > 1 { Place::Extended { left: left - 1, length, mask } } else { Place::payload(length.saturating_add(mask)) }
                }
                Place::Payload { left } => {
                    passed = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    Place::payload(left - passed as u64)
                }
            };
            bytes = bytes.get_mut(passed..).unwrap_or_default();
        }
        self
    }

    fn payload(left: u64) -> Place {
        if left == 0 { Place::First } else { Place::Payload { left } }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Incoming<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let had = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        if let Some(place) = &mut self.place {
            *place = place.pass(buffer.filled_mut().get_mut(had..).unwrap_or_default());
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Incoming<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
