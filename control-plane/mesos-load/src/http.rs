//! As much of HTTP/1.1 as a framework needs, without what a library would cost beside the master on the same machine.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Reads a head: its status, and the value of one of its headers.
pub(crate) async fn head(stream: &mut TcpStream, pending: &mut BytesMut) -> Result<(u16, String)> {
    loop {
        if let Some(end) = pending.windows(4).position(|it| it == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&pending.split_to(end + 4)).into_owned();
            let status = head.split(' ').nth(1).and_then(|it| it.parse().ok()).context("an answer without a status")?;
            return Ok((status, head));
        }
        if stream.read_buf(pending).await? == 0 {
            bail!("the connection ended before an answer");
        }
    }
}

/// A header's value.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().filter_map(|line| line.split_once(':')).find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// `GET`; the body as it came, compressed where that was asked for.
pub(crate) async fn get(server: SocketAddr, path: &str, gzip: bool) -> Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(server).await?;
    let encoding = if gzip { "Accept-Encoding: gzip\r\n" } else { "" };
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {server}\r\n{encoding}Connection: close\r\n\r\n").as_bytes()).await?;
    let mut pending = BytesMut::with_capacity(64 << 10);
    let (status, head) = head(&mut stream, &mut pending).await?;
    if header(&head, "transfer-encoding").is_some() {
        bail!("an answer in chunks, where one piece was expected");
    }
    let length: usize = header(&head, "content-length").and_then(|it| it.parse().ok()).context("an answer without a length")?;
    let mut body = Vec::with_capacity(length);
    body.extend_from_slice(&pending);
    while body.len() < length {
        if stream.read_buf(&mut body).await? == 0 {
            bail!("the answer was cut short");
        }
    }
    Ok((status, body))
}

/// Takes chunks out of what came.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    pub(crate) pending: BytesMut,
}

impl Chunks {
    /// The next whole chunk; empty at the end of the body.
    pub(crate) fn next(&mut self) -> Option<BytesMut> {
        let end = self.pending.windows(2).take(20).position(|it| it == b"\r\n")?;
        let size = std::str::from_utf8(&self.pending[..end]).ok().and_then(|it| usize::from_str_radix(it, 16).ok())?;
        if self.pending.len() < end + 2 + size + 2 {
            return None;
        }
        let mut chunk = self.pending.split_to(end + 2 + size + 2).split_off(end + 2);
        chunk.truncate(size);
        Some(chunk)
    }
}
