//! A page's WebSocket as a browser has it: messages come compressed (`permessage-deflate`, RFC 7692).

use std::io::{Cursor, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use flate2::{Decompress, FlushDecompress};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Data, OpCode};

/// How long the handshake may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest message that is read, as it comes.
const LARGEST: u64 = 256 << 20;

/// An open page.
pub(super) struct Page {
    stream: TcpStream,
    /// What came and was not read yet.
    waiting: Vec<u8>,
    /// The message that comes, in its frames without their headers.
    packed: Vec<u8>,
}

impl Page {
    /// Opens `ws://<server><path>`, with the compression that every browser offers.
    pub(super) fn open(server: SocketAddr, path: &str) -> Result<Self> {
        let mut stream = TcpStream::connect_timeout(&server, PATIENCE).with_context(|| format!("cannot connect to {server}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let key = tungstenite::handshake::client::generate_key();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
        )?;
        let mut page = Page { stream, waiting: Vec::new(), packed: Vec::new() };
        loop {
            if let Some(end) = page.waiting.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&page.waiting[..end]).to_ascii_lowercase();
                if !head.starts_with("http/1.1 101") || !head.contains("sec-websocket-extensions: permessage-deflate") {
                    bail!("no compressed WebSocket at {server}{path}: {head}");
                }
                page.waiting.drain(..end + 4);
                return Ok(page);
            }
            if !page.more()? {
                bail!("{server}{path} does not answer");
            }
        }
    }

    /// The next message, as it came; `None` when none came in time.
    pub(super) fn next(&mut self, patience: Duration) -> Result<Option<Vec<u8>>> {
        self.stream.set_read_timeout(Some(patience))?;
        loop {
            let mut cursor = Cursor::new(&self.waiting);
            let header = FrameHeader::parse(&mut cursor)?;
            let from = usize::try_from(cursor.position())?;
            let Some((header, length)) = header.filter(|(_, length)| self.waiting.len() as u64 - from as u64 >= *length) else {
                if !self.more()? {
                    return Ok(None);
                }
                continue;
            };
            let to = from + usize::try_from(length.min(LARGEST))?;
            match header.opcode {
                OpCode::Data(data) => {
                    if (data == Data::Text) != header.rsv1 {
                        bail!("a message is not compressed");
                    }
                    self.packed.extend_from_slice(&self.waiting[from..to]);
                    self.waiting.drain(..to);
                    if header.is_final {
                        return Ok(Some(std::mem::take(&mut self.packed)));
                    }
                }
                // The measurement is over long before an unanswered ping matters.
                OpCode::Control(_) => drop(self.waiting.drain(..to)),
            }
        }
    }

    /// Reads what has come; false when nothing came in time.
    fn more(&mut self) -> Result<bool> {
        let mut buffer = [0; 64 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => bail!("the WebSocket ended"),
            Ok(read) => {
                self.waiting.extend_from_slice(&buffer[..read]);
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
            Err(error) => Err(error).context("the WebSocket broke"),
        }
    }
}

/// The text of a message.
pub(super) fn unpack(mut packed: Vec<u8>) -> Result<String> {
    packed.extend([0, 0, 0xff, 0xff]);
    let (mut inflate, mut text) = (Decompress::new(false), Vec::new());
    loop {
        text.reserve(1 << 20);
        let (read, had) = (usize::try_from(inflate.total_in())?, text.len());
        let rest = packed.get(read..).unwrap_or_default();
        // At the end it may say that it can do nothing more.
        let status = inflate.decompress_vec(rest, &mut text, FlushDecompress::Sync);
        if text.len() == had {
            if usize::try_from(inflate.total_in())? < packed.len() {
                status.context("a message is not well compressed")?;
                bail!("a message is cut off");
            }
            return Ok(String::from_utf8(text)?);
        }
    }
}
