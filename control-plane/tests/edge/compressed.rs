//! Views over WebSockets with `permessage-deflate` (RFC 7692), as browsers have them.

use std::io::Cursor;
use std::net::SocketAddr;
use std::time::Duration;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};

use crate::probe::Probe;
use crate::websocket::Client;
use crate::world::{World, process, processes_delta};

const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

struct Browser {
    stream: TcpStream,
    waiting: Vec<u8>,
}

impl Browser {
    /// Opens a view, and gives what the server answered.
    async fn open(server: SocketAddr, target: &str, offer: &str) -> (Self, String) {
        let stream = TcpStream::connect(server).await.unwrap();
        let mut browser = Browser { stream, waiting: Vec::new() };
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: {offer}\r\n\r\n"
        );
        browser.stream.write_all(request.as_bytes()).await.unwrap();
        loop {
            if let Some(end) = browser.waiting.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let rest = browser.waiting.split_off(end + 4);
                let head = String::from_utf8(std::mem::replace(&mut browser.waiting, rest)).unwrap();
                assert!(head.starts_with("HTTP/1.1 101"), "{head}");
                return (browser, head);
            }
            browser.more().await;
        }
    }

    async fn more(&mut self) {
        let read =
            timeout(Duration::from_secs(10), self.stream.read_buf(&mut self.waiting)).await.expect("something comes in time").unwrap();
        assert_ne!(read, 0, "the server has not hung up");
    }

    async fn frame(&mut self) -> (FrameHeader, Vec<u8>) {
        loop {
            let mut cursor = Cursor::new(&self.waiting);
            let header = FrameHeader::parse(&mut cursor).unwrap();
            let from = usize::try_from(cursor.position()).unwrap();
            if let Some((header, length)) = header
                && let Some(payload) = self.waiting.get(from..from + usize::try_from(length).unwrap())
            {
                let payload = payload.to_vec();
                self.waiting.drain(..from + payload.len());
                return (header, payload);
            }
            self.more().await;
        }
    }

    /// The next message, which has to be compressed by itself alone.
    async fn text(&mut self) -> String {
        let mut packed = Vec::new();
        loop {
            let (header, payload) = self.frame().await;
            let is_first = packed.is_empty();
            assert_eq!(header.opcode, OpCode::Data(if is_first { Data::Text } else { Data::Continue }));
            assert_eq!(header.rsv1, is_first, "the first frame of a message says that it is compressed");
            packed.extend(payload);
            if header.is_final {
                packed.extend(TAIL);
                let mut text = Vec::with_capacity(1 << 20);
                Decompress::new(false).decompress_vec(&packed, &mut text, FlushDecompress::Sync).unwrap();
                return String::from_utf8(text).unwrap();
            }
        }
    }

    async fn send(&mut self, opcode: OpCode, is_compressed: bool, payload: Vec<u8>) {
        let header = FrameHeader { rsv1: is_compressed, opcode, mask: Some([7, 1, 9, 3]), ..FrameHeader::default() };
        let frame = Frame::from_payload(header, payload.into());
        let mut wire = Vec::new();
        frame.format(&mut wire).unwrap();
        self.stream.write_all(&wire).await.unwrap();
    }
}

#[tokio::test]
async fn a_browser_reads_what_others_read_for_a_fraction_of_the_bytes() {
    let (world, [mut web, _db]): (World, [Probe; 2]) = World::with_two_hosts().await;
    let target = "/api/topology/processes/ws?t=1h&unconnected=show";
    let (mut browser, head) = Browser::open(world.http, target, "permessage-deflate; client_max_window_bits").await;
    let agreed = "sec-websocket-extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n";
    assert!(head.to_ascii_lowercase().contains(agreed), "{head}");
    let mut plain = Client::connect(world.http, target).await;
    let first = plain.text().await;
    assert!(first.len() > 1_000 && first.ends_with("\"reset\":true}"), "{first}");
    assert_eq!(browser.text().await, first);
    web.apply(processes_delta(2, [process(300, "redis", "")])).await;
    let change = plain.text().await;
    assert!(change.contains("web-1;300"), "{change}");
    assert_eq!(browser.text().await, change);
    let (mut filtered, _) =
        Browser::open(world.http, "/api/topology/processes/ws?t=100ms&unconnected=show&q=redis", "permessage-deflate").await;
    let some = filtered.text().await;
    assert!(some.contains("web-1;300") && some.len() < first.len(), "{some}");
    assert_eq!(filtered.text().await, "{\"add\":null,\"update\":null,\"remove\":null}");
}

#[tokio::test]
async fn what_a_browser_says_in_compressed_messages_is_thrown_away_and_it_goes_on() {
    let (world, _probes) = World::with_two_hosts().await;
    let (mut browser, _) = Browser::open(world.http, "/api/topology/hosts/ws?t=1h", "permessage-deflate").await;
    browser.text().await;
    let mut said = Vec::with_capacity(1_000);
    Compress::new(Compression::fast(), false).compress_vec(&[b'x'; 5_000], &mut said, FlushCompress::Sync).unwrap();
    browser.send(OpCode::Data(Data::Text), true, said[..said.len() - TAIL.len()].to_vec()).await;
    browser.send(OpCode::Data(Data::Text), false, b"plain".to_vec()).await;
    browser.send(OpCode::Control(Control::Ping), false, b"there?".to_vec()).await;
    let (header, payload) = browser.frame().await;
    assert_eq!((header.opcode, payload.as_slice(), header.rsv1), (OpCode::Control(Control::Pong), b"there?".as_slice(), false));
    // A frame of control cannot be compressed: that is an error of the protocol.
    browser.send(OpCode::Control(Control::Ping), true, Vec::new()).await;
    let (header, payload) = browser.frame().await;
    assert_eq!((header.opcode, payload.get(..2)), (OpCode::Control(Control::Close), Some([3, 0xea].as_slice())));
}

#[tokio::test]
async fn an_offer_that_cannot_be_kept_is_left_out() {
    let (world, _probes) = World::with_two_hosts().await;
    let (mut browser, head) = Browser::open(world.http, "/api/topology/hosts/ws", "permessage-deflate; server_max_window_bits=9").await;
    assert!(!head.to_ascii_lowercase().contains("sec-websocket-extensions"), "{head}");
    let (header, payload) = browser.frame().await;
    assert!(!header.rsv1 && payload.starts_with(b"{\"add\":["));
}
