//! A small HTTP client that sends targets as they are and shows replies as they came.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A reply.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    #[track_caller]
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// `GET target`.
pub(crate) async fn get(server: SocketAddr, target: &str) -> Reply {
    request(server, "GET", target, "").await
}

/// Any request; `headers` are whole lines.
pub(crate) async fn request(server: SocketAddr, method: &str, target: &str, headers: &str) -> Reply {
    let head = format!("{method} {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}\r\n");
    raw(server, head.as_bytes()).await
}

/// Any bytes; the reply is read to its end. It may come late: a control plane that follows nobody waits for 10 s.
pub(crate) async fn raw(server: SocketAddr, bytes: &[u8]) -> Reply {
    let exchange = async {
        let mut stream = TcpStream::connect(server).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await.unwrap();
        parse(&reply)
    };
    timeout(Duration::from_secs(20), exchange).await.expect("the reply comes in time")
}

/// The same of a server that may not be there, or may go before it has answered.
pub(crate) async fn try_raw(server: SocketAddr, bytes: &[u8]) -> Option<Reply> {
    let exchange = async {
        let mut stream = TcpStream::connect(server).await.ok()?;
        stream.write_all(bytes).await.ok()?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await.ok()?;
        reply.windows(4).any(|window| window == b"\r\n\r\n").then(|| parse(&reply))
    };
    timeout(Duration::from_secs(10), exchange).await.ok().flatten()
}

/// The status of a reply to a request that is refused before it was read whole, after which the connection may be reset.
pub(crate) async fn raw_lenient(server: SocketAddr, bytes: &[u8]) -> u16 {
    let exchange = async {
        let (mut reading, mut writing) = TcpStream::connect(server).await.unwrap().into_split();
        let write = async {
            let _ = writing.write_all(bytes).await;
        };
        let mut head = [0; 12];
        let read = async {
            reading.read_exact(&mut head).await.unwrap();
        };
        tokio::join!(write, read);
        std::str::from_utf8(&head[9..]).unwrap().parse().unwrap()
    };
    timeout(Duration::from_secs(10), exchange).await.expect("the reply comes in time")
}

fn parse(bytes: &[u8]) -> Reply {
    let end = bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap_or_else(|| panic!("no head in {:?}", String::from_utf8_lossy(bytes)));
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: BTreeMap<String, String> = lines
        .map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.trim().to_owned())
        })
        .collect();
    let body = &bytes[end + 4..];
    let chunked = headers.get("transfer-encoding").is_some_and(|it| it == "chunked");
    let body = if chunked { dechunk(body) } else { body.to_vec() };
    Reply { status, headers, body }
}

fn dechunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let line = bytes.windows(2).position(|window| window == b"\r\n").expect("a chunk has a length");
        let length = usize::from_str_radix(std::str::from_utf8(&bytes[..line]).unwrap(), 16).unwrap();
        if length == 0 {
            return body;
        }
        body.extend_from_slice(&bytes[line + 2..line + 2 + length]);
        bytes = &bytes[line + 2 + length + 2..];
    }
}
