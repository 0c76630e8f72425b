//! An HTTP/1.1 client for asking our own servers on loopback: one request, one connection, with a deadline.

use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// How long one read, write or connect may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest reply that is read.
const LARGEST_REPLY: u64 = 256 << 20;

/// A reply.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Header lines in lower case, without the status line.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("status {}, and not JSON: {:.200}", self.status, self.text()))
    }
}

/// `GET path` with any status.
pub fn get(server: SocketAddr, path: &str) -> Result<Reply> {
    send(server, "GET", path, None)
}

/// A request with any method, with JSON or without a body, with any status.
pub fn send(server: SocketAddr, method: &str, path: &str, body: Option<&Value>) -> Result<Reply> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE).with_context(|| format!("cannot connect to {server}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let body = body.map(Value::to_string).unwrap_or_default();
    let described = match body.len() {
        0 => String::new(),
        length => format!("Content-Type: application/json\r\nContent-Length: {length}\r\n"),
    };
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\nAccept: */*\r\n{described}\r\n{body}");
    stream.write_all(request.as_bytes()).with_context(|| format!("cannot ask {server}"))?;
    let bytes = read_reply(&mut stream.take(LARGEST_REPLY)).with_context(|| format!("no reply from http://{server}{path}"))?;
    parse(&bytes).with_context(|| format!("http://{server}{path}"))
}

/// Reads to the end that the reply announces, since not every server closes the connection when asked; else to the end of the connection.
fn read_reply(stream: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 << 10];
    while announced_length(&bytes).is_none_or(|length| bytes.len() < length) {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        bytes.extend_from_slice(buffer.get(..length).unwrap_or_default());
    }
    Ok(bytes)
}

/// Length of head and body together, once the head is there and names it.
fn announced_length(bytes: &[u8]) -> Option<usize> {
    let head_end = head_end(bytes)?;
    let head = String::from_utf8_lossy(bytes.get(..head_end)?).to_ascii_lowercase();
    let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length:"))?;
    Some(head_end + 4 + length.trim().parse::<usize>().ok()?)
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n")
}

/// `GET path` that must answer 200 with JSON.
pub fn get_json(server: SocketAddr, path: &str) -> Result<Value> {
    let reply = get(server, path)?;
    if reply.status != 200 {
        bail!("http://{server}{path} answered {}: {:.300}", reply.status, reply.text());
    }
    reply.json().with_context(|| format!("http://{server}{path}"))
}

fn parse(bytes: &[u8]) -> Result<Reply> {
    let head_end = head_end(bytes).context("the reply has no end of head")?;
    let head = String::from_utf8_lossy(bytes.get(..head_end).unwrap_or_default()).into_owned();
    let body = bytes.get(head_end + 4..).unwrap_or_default();
    let mut lines = head.split("\r\n");
    let status =
        lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok()).context("the reply has no status")?;
    let header = |line: &str| line.split_once(':').map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()));
    let headers: Vec<_> = lines.filter_map(header).collect();
    let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value.eq_ignore_ascii_case("chunked"));
    let body = if chunked { join_chunks(body)? } else { body.to_vec() };
    Ok(Reply { status, headers, body })
}

fn join_chunks(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::with_capacity(rest.len());
    loop {
        let line_end = rest.windows(2).position(|window| window == b"\r\n").context("a chunk has no length")?;
        let length = String::from_utf8_lossy(rest.get(..line_end).unwrap_or_default()).into_owned();
        let length = usize::from_str_radix(length.split(';').next().unwrap_or("").trim(), 16).context("a chunk's length is no number")?;
        let from = line_end + 2;
        if length == 0 {
            return Ok(body);
        }
        body.extend_from_slice(rest.get(from..from + length).context("the last chunk is cut short")?);
        rest = rest.get(from + length + 2..).context("the reply ends without its last chunk")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunked_body_is_joined() -> Result<()> {
        let reply = parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n")?;
        assert_eq!((reply.status, reply.text()), (200, "abcde".to_owned()));
        Ok(())
    }

    #[test]
    fn a_reply_ends_where_it_says_even_if_the_connection_does_not() -> Result<()> {
        let endless = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab".as_bytes().chain(std::io::repeat(b'x'));
        assert!(read_reply(&mut endless.take(1 << 20))?.len() < 1 << 20);
        assert_eq!(announced_length(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"), Some(40));
        Ok(())
    }

    #[test]
    fn a_body_that_is_cut_short_is_an_error() {
        assert!(parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc").is_err());
        assert!(parse(b"HTTP/1.1 200").is_err());
    }
}
