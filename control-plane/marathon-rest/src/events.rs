//! The event stream, event by event.

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;

/// Bytes of an event.
const EVENT_MAX: usize = 64 << 20;

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its type.
    pub kind: String,
    /// What it says.
    pub data: Value,
}

/// Events as they come.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    reader: Reader,
}

impl Events {
    pub(crate) fn new(body: Incoming) -> Events {
        Events { body, reader: Reader::default() }
    }

    /// The next event; `None` when the stream has ended. Whoever drops the future loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.reader.take() {
                return Some(event);
            }
            let frame = self.body.frame().await?.ok()?;
            if let Ok(bytes) = frame.into_data()
                && !self.reader.feed(&bytes)
            {
                return None;
            }
        }
    }
}

#[derive(Debug, Default)]
struct Reader {
    waiting: Vec<u8>,
}

impl Reader {
    /// False when an event is too long.
    fn feed(&mut self, bytes: &[u8]) -> bool {
        // Both ends of lines are in use.
        self.waiting.extend(bytes.iter().filter(|byte| **byte != b'\r'));
        self.waiting.len() <= EVENT_MAX
    }

    fn take(&mut self) -> Option<Event> {
        loop {
            let end = self.waiting.windows(2).position(|pair| pair == b"\n\n")?;
            let text: Vec<u8> = self.waiting.drain(..end + 2).collect();
            let text = String::from_utf8_lossy(&text);
            let field = |name: &str| {
                let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
                lines.map(|it| it.strip_prefix(' ').unwrap_or(it)).collect::<Vec<_>>().join("\n")
            };
            let (kind, data) = (field("event"), field("data"));
            if !data.is_empty() {
                let data: Value = serde_json::from_str(&data).unwrap_or_default();
                let kind = if kind.is_empty() { data["eventType"].as_str().unwrap_or_default().to_owned() } else { kind };
                return Some(Event { kind, data });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_whole_however_they_are_cut() {
        let text = "\r\nevent: a\r\ndata: {\"eventType\":\"a\",\"x\":1}\r\n\r\n\r\n: comment\n\ndata: {\"eventType\":\"b\"}\n\n";
        for size in 1..20 {
            let mut reader = Reader::default();
            let mut found = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                assert!(reader.feed(piece));
                while let Some(event) = reader.take() {
                    found.push(event);
                }
            }
            assert_eq!(found.iter().map(|it| it.kind.as_str()).collect::<Vec<_>>(), ["a", "b"], "in pieces of {size}");
            assert_eq!(found[0].data["x"], 1);
        }
    }
}
