//! A byte stream with or without TLS, whose first bytes can be looked at before they are read.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{client, server};

/// A connection.
#[derive(Debug)]
pub struct Stream {
    inner: Inner,
    /// Bytes that were looked at and not read yet.
    ahead: Vec<u8>,
    /// Whom the other end speaks for, if it has said so.
    caller: Option<SocketAddr>,
}

#[derive(Debug)]
enum Inner {
    Plain(TcpStream),
    Server(Box<server::TlsStream<TcpStream>>),
    Client(Box<client::TlsStream<TcpStream>>),
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Stream::of(Inner::Plain(stream))
    }
}

impl Stream {
    fn of(inner: Inner) -> Self {
        Stream { inner, ahead: Vec::new(), caller: None }
    }

    pub(crate) fn server(stream: server::TlsStream<TcpStream>) -> Self {
        Stream::of(Inner::Server(Box::new(stream)))
    }

    pub(crate) fn client(stream: client::TlsStream<TcpStream>) -> Self {
        Stream::of(Inner::Client(Box::new(stream)))
    }

    /// The same stream, whose other end only passes on what `caller` says: that one is the peer from now on.
    #[must_use]
    pub fn on_behalf_of(self, caller: SocketAddr) -> Self {
        Stream { caller: Some(caller), ..self }
    }

    /// The connection below.
    pub fn tcp(&self) -> &TcpStream {
        match &self.inner {
            Inner::Plain(stream) => stream,
            Inner::Server(stream) => stream.get_ref().0,
            Inner::Client(stream) => stream.get_ref().0,
        }
    }

    /// Who is at the other end, or whom that one speaks for.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.caller.map_or_else(|| self.tcp().peer_addr(), Ok)
    }

    /// Bytes that were looked at and will be read.
    pub fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Waits for some more bytes to look at, at most `most`. 0 says that no more will come.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn look_ahead(&mut self, most: usize) -> io::Result<usize> {
        let mut more = vec![0; most];
        let length = match &mut self.inner {
            Inner::Plain(stream) => stream.read(&mut more).await,
            Inner::Server(stream) => stream.read(&mut more).await,
            Inner::Client(stream) => stream.read(&mut more).await,
        }?;
        self.ahead.extend_from_slice(&more[..length]);
        Ok(length)
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let length = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.ahead[..length]);
            self.ahead.drain(..length);
            return Poll::Ready(Ok(()));
        }
        match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Inner::Server(stream) => Pin::new(stream).poll_read(context, buffer),
            Inner::Client(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Inner::Server(stream) => Pin::new(stream).poll_write(context, bytes),
            Inner::Client(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Inner::Server(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Inner::Client(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.inner {
            Inner::Plain(stream) => stream.is_write_vectored(),
            Inner::Server(stream) => stream.is_write_vectored(),
            Inner::Client(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_flush(context),
            Inner::Server(stream) => Pin::new(stream).poll_flush(context),
            Inner::Client(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Inner::Server(stream) => Pin::new(stream).poll_shutdown(context),
            Inner::Client(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
