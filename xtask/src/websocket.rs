//! A WebSocket to our own servers and to a browser's debugging port, on loopback: messages in order, with a deadline.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, Message, WebSocket};

/// How long connecting may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest message that is read: the first of a large view, or a screenshot.
const LARGEST_MESSAGE: usize = 256 << 20;

/// An open WebSocket.
#[derive(Debug)]
pub struct Socket {
    socket: WebSocket<TcpStream>,
}

impl Socket {
    /// Opens `ws://<server><path>`.
    pub fn open(server: SocketAddr, path: &str) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&server, PATIENCE).with_context(|| format!("cannot connect to {server}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let limits = WebSocketConfig::default().max_message_size(Some(LARGEST_MESSAGE)).max_frame_size(Some(LARGEST_MESSAGE));
        let (socket, _) = tungstenite::client::client_with_config(format!("ws://{server}{path}"), stream, Some(limits))
            .map_err(|error| anyhow::anyhow!("no WebSocket at {server}{path}: {error}"))?;
        Ok(Self { socket })
    }

    /// The next message as JSON; `None` when none came in time.
    pub fn next(&mut self, patience: Duration) -> Result<Option<Value>> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.get_mut().set_read_timeout(Some(left))?;
            match self.socket.read() {
                Ok(Message::Text(text)) => return Ok(Some(serde_json::from_str(text.as_str()).context("a message is not JSON")?)),
                Ok(_) => {}
                Err(Error::Io(error)) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                    return Ok(None);
                }
                Err(error) => return Err(error).context("the WebSocket broke"),
            }
        }
    }

    /// Sends a message.
    pub fn send(&mut self, message: &Value) -> Result<()> {
        self.socket.send(Message::text(message.to_string())).context("the WebSocket broke")
    }
}
