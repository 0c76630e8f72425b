//! Below the framework: a client's byte stream as HTTP code can take it.
//!
//! Weave Scope's clients put node ids into paths as they are, `<` and `>` included (`/api/topology/hosts/web-1;<host>`), and the framework
//! refuses such a request line before any of our code sees it. [`ClientStream`] writes these bytes as percent escapes while a request line
//! passes, and touches nothing else. It follows the framing of requests only as far as it can be sure of it; after an upgrade, a chunked
//! body or anything odd it lets everything pass as it is, which costs nothing but this courtesy on that connection.
//!
//! It also ends a connection whose client takes what it asked for too slowly, see [`Lag`]: a reply holds the map as it was when it began.

use std::collections::VecDeque;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

mod lag;

use lag::Lag;

/// A client's byte stream.
#[derive(Debug)]
pub(crate) struct ClientStream<S> {
    inner: S,
    framing: Framing,
    /// Bytes that were read and did not fit, because an escape is longer than what it stands for.
    overflow: VecDeque<u8>,
    lag: Lag,
    /// Runs while a write waits for the client, until that is too far behind.
    patience: Option<Pin<Box<Sleep>>>,
}

impl<S> ClientStream<S> {
    pub(crate) fn new(inner: S) -> Self {
        ClientStream { inner, framing: Framing::default(), overflow: VecDeque::new(), lag: Lag::default(), patience: None }
    }

    /// Passes the outcome of a write on, unless the client is too far behind. `bytes` says how many of them it has taken.
    fn watch<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>, bytes: fn(&T) -> usize) -> Poll<io::Result<T>> {
        if let Poll::Ready(outcome) = outcome {
            let taken = outcome.as_ref().map_or(0, bytes);
            if self.patience.take().is_some() {
                self.lag.went_on(Instant::now().into_std());
            }
            self.lag.taken(taken as u64);
            return Poll::Ready(outcome);
        }
        let lag = &mut self.lag;
        let sleep = self.patience.get_or_insert_with(|| {
            let until = lag.waits(Instant::now().into_std());
            Box::pin(tokio::time::sleep_until(until.into()))
        });
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes too little of what it asked for")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.overflow.is_empty() {
            while buffer.remaining() > 0
                && let Some(byte) = this.overflow.pop_front()
            {
                buffer.put_slice(&[byte]);
            }
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buffer))?;
        let fresh = &buffer.filled()[before..];
        let Some(first) = this.framing.pass_until_escape(fresh) else { return Poll::Ready(Ok(())) };
        // The rare case: from the first byte that needs an escape on, write anew.
        let rest = fresh[first..].to_vec();
        buffer.set_filled(before + first);
        for byte in rest {
            for &out in this.framing.pass(byte).as_bytes() {
                if this.overflow.is_empty() && buffer.remaining() > 0 {
                    buffer.put_slice(&[out]);
                } else {
                    this.overflow.push_back(out);
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.watch(cx, outcome, |taken| *taken)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.watch(cx, outcome, |taken| *taken)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_flush(cx);
        self.watch(cx, outcome, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.watch(cx, outcome, |()| 0)
    }
}

/// Where in the sequence of requests the stream stands.
#[derive(Debug)]
struct Framing {
    position: Position,
    /// Begin of the current header line, enough of it to know the headers that matter.
    line: Vec<u8>,
    /// What the head said of the body so far.
    body: Body,
}

impl Default for Framing {
    fn default() -> Self {
        Framing { position: Position::RequestLine { empty: true }, line: Vec::new(), body: Body::Length(None) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// In a request line, or in the blank lines that may stand before one.
    RequestLine { empty: bool },
    /// In the headers.
    Head,
    /// In a body with so many bytes to come.
    Body(u64),
    /// Where nothing is touched any more.
    Opaque,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Length(Option<u64>),
    Unclear,
}

/// What becomes of one byte.
enum Passed {
    AsIs([u8; 1]),
    Escaped([u8; 3]),
}

impl Passed {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Passed::AsIs(bytes) => bytes,
            Passed::Escaped(bytes) => bytes,
        }
    }
}

impl Framing {
    /// Longest header line that is looked at; those that matter are shorter.
    const LINE_MAX: usize = 64;

    /// Follows `bytes`; stops before the first one that needs an escape and says where that is.
    fn pass_until_escape(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            match self.position {
                Position::Opaque => return None,
                Position::Body(left) => {
                    // Bodies are skipped, not walked through.
                    let skipped = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    at += skipped;
                    self.skip_body(skipped as u64);
                }
                Position::RequestLine { .. } if needs_escape(bytes[at]) => return Some(at),
                Position::RequestLine { .. } | Position::Head => {
                    self.follow(bytes[at]);
                    at += 1;
                }
            }
        }
        None
    }

    /// Follows one byte and says what it becomes.
    fn pass(&mut self, byte: u8) -> Passed {
        match self.position {
            Position::RequestLine { .. } if needs_escape(byte) => {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                self.position = Position::RequestLine { empty: false };
                Passed::Escaped([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]])
            }
            Position::Body(_) => {
                self.skip_body(1);
                Passed::AsIs([byte])
            }
            Position::Opaque => Passed::AsIs([byte]),
            Position::RequestLine { .. } | Position::Head => {
                self.follow(byte);
                Passed::AsIs([byte])
            }
        }
    }

    fn skip_body(&mut self, count: u64) {
        if let Position::Body(left) = self.position {
            self.position = match left.saturating_sub(count) {
                0 => Position::RequestLine { empty: true },
                left => Position::Body(left),
            };
        }
    }

    fn follow(&mut self, byte: u8) {
        match (self.position, byte) {
            (Position::RequestLine { empty: true }, b'\r' | b'\n') => {}
            (Position::RequestLine { .. }, b'\n') => {
                self.position = Position::Head;
                self.body = Body::Length(None);
            }
            (Position::RequestLine { .. }, _) => self.position = Position::RequestLine { empty: false },
            (Position::Head, b'\n') => self.end_line(),
            (Position::Head, _) => {
                if self.line.len() < Self::LINE_MAX {
                    self.line.push(byte.to_ascii_lowercase());
                }
            }
            (Position::Body(_) | Position::Opaque, _) => {}
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        if line.is_empty() {
            self.position = match self.body {
                Body::Length(None | Some(0)) => Position::RequestLine { empty: true },
                Body::Length(Some(length)) => Position::Body(length),
                Body::Unclear => Position::Opaque,
            };
            return;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            // A line longer than what is kept has its colon before; anything else is no header.
            self.body = Body::Unclear;
            return;
        };
        match &line[..colon] {
            b"content-length" => {
                let value = std::str::from_utf8(&line[colon + 1..]).ok().map(str::trim);
                let length = value.filter(|it| it.bytes().all(|byte| byte.is_ascii_digit())).and_then(|it| it.parse().ok());
                self.body = match (self.body, length) {
                    (Body::Length(None), Some(length)) => Body::Length(Some(length)),
                    _ => Body::Unclear,
                };
            }
            b"transfer-encoding" | b"upgrade" | b"expect" => self.body = Body::Unclear,
            name if name.iter().any(|byte| byte.is_ascii_whitespace()) => self.body = Body::Unclear,
            _ => {}
        }
    }
}

/// Printable bytes that the framework refuses in a path, and which clients were free to send to Scope.
fn needs_escape(byte: u8) -> bool {
    matches!(byte, b'<' | b'>' | b'`')
}

#[cfg(test)]
mod tests;
