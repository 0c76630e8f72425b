//! Messages that are compressed once for all who get the same (`permessage-deflate`, RFC 7692).
//!
//! Every browser offers it. A view of ten thousand containers changes by megabytes with each sample, and fifty pages that watch it get the same
//! bytes: each message is compressed without regard to those before it, so that what is made for one is right for all.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress};
use http::{HeaderMap, HeaderValue, header};
use tokio::sync::OnceCell;
use topology::ViewSnapshot;

use super::pieces::Pieces;
use crate::drivers::Stopped;

/// Frames of about this size.
const FRAME: usize = 32 << 10;
/// Text is made in pieces of this size.
const PIECE: usize = 64 << 10;
/// What a flush ends with, and a message leaves out (RFC 7692, 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// What is said to a client whose offer is taken: no message refers to the one before, on either side.
const ANSWER: HeaderValue = HeaderValue::from_static("permessage-deflate; server_no_context_takeover; client_no_context_takeover");

/// The answer to a client that offers compression as we can do it.
pub(super) fn negotiate(headers: &HeaderMap) -> Option<HeaderValue> {
    let values = headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(is_taken).then_some(ANSWER)
}

/// An offer binds us only by the size of the window, which is always the largest here.
fn is_taken(offer: &str) -> bool {
    let mut parts = offer.split(';').map(str::trim);
    parts.next().is_some_and(|name| name.eq_ignore_ascii_case("permessage-deflate"))
        && parts.all(|parameter| {
            let (name, value) = parameter.split_once('=').map_or((parameter, None), |(name, value)| (name.trim(), Some(value.trim())));
            let bits = value.map(|value| value.trim_matches('"'));
            match name.to_ascii_lowercase().as_str() {
                "server_no_context_takeover" | "client_no_context_takeover" => bits.is_none(),
                "client_max_window_bits" => bits.is_none_or(|bits| bits.parse().is_ok_and(|bits: u8| (8..=15).contains(&bits))),
                "server_max_window_bits" => bits == Some("15"),
                _ => false,
            }
        })
}

/// A compressed message, in the frames that it is sent in.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) frames: Vec<Bytes>,
}

impl Packed {
    /// Compresses a text. Takes its time: for where that may be.
    fn of(mut text: Pieces) -> Packed {
        let mut deflate = Compress::new(Compression::fast(), false);
        let mut out = Vec::with_capacity(FRAME);
        let mut frames = Vec::new();
        while let Some(piece) = text.next_piece(PIECE) {
            let flush = if text.is_ended() { FlushCompress::Sync } else { FlushCompress::None };
            write(&mut deflate, &piece, flush, &mut out);
            // The tail stays where it can be cut off.
            while out.len() >= FRAME + TAIL.len() {
                let rest = out.split_off(FRAME);
                frames.push(Bytes::from(std::mem::replace(&mut out, rest)));
            }
        }
        if out.ends_with(&TAIL) {
            out.truncate(out.len() - TAIL.len());
        }
        out.shrink_to_fit();
        frames.push(out.into());
        Packed { frames }
    }

    fn len(&self) -> usize {
        self.frames.iter().map(Bytes::len).sum()
    }
}

fn write(deflate: &mut Compress, bytes: &[u8], flush: FlushCompress, out: &mut Vec<u8>) {
    let before = deflate.total_in();
    loop {
        let read = usize::try_from(deflate.total_in() - before).unwrap_or(usize::MAX);
        let rest = bytes.get(read..).unwrap_or_default();
        out.reserve(FRAME);
        let (room, had) = (out.capacity() - out.len(), out.len());
        // It can only fail when its state is broken, which safe code cannot do.
        let status = deflate.compress_vec(rest, out, flush);
        let is_read = usize::try_from(deflate.total_in() - before).unwrap_or(usize::MAX) >= bytes.len();
        // All was given out when there was more room than was needed.
        if status.is_err() || is_read && out.len() - had < room {
            return;
        }
    }
}

/// Messages that were made last, for those who come for the same.
#[derive(Debug, Default)]
pub(super) struct PackedCache {
    entries: Mutex<VecDeque<Entry>>,
}

/// Snapshots are told apart by their place in memory, which the weak pointers keep from being used again.
#[derive(Debug)]
struct Entry {
    from: Option<Weak<ViewSnapshot>>,
    to: Weak<ViewSnapshot>,
    message: Arc<OnceCell<Arc<Packed>>>,
}

impl PackedCache {
    /// Messages that are kept.
    const CAPACITY: usize = 64;
    /// Bytes that they may have, the newest aside.
    const BYTES: usize = 32 << 20;

    /// The message that leads from a snapshot to another one, or from nothing. Made once even when many ask at once.
    pub(super) async fn message(
        &self,
        from: Option<&Arc<ViewSnapshot>>,
        to: &Arc<ViewSnapshot>,
        text: impl FnOnce() -> Pieces + Send + 'static,
    ) -> Result<Arc<Packed>, Stopped> {
        let cell = self.cell(from, to);
        cell.get_or_try_init(|| pack(text)).await.cloned()
    }

    fn cell(&self, from: Option<&Arc<ViewSnapshot>>, to: &Arc<ViewSnapshot>) -> Arc<OnceCell<Arc<Packed>>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |entry: &&Entry| entry.to.as_ptr() == Arc::as_ptr(to) && entry.from.as_ref().map(Weak::as_ptr) == from.map(Arc::as_ptr);
        if let Some(entry) = entries.iter().rev().find(known) {
            return entry.message.clone();
        }
        // Nobody can ask any more for what leads from or to a snapshot that is gone.
        let is_alive = |snapshot: &Weak<ViewSnapshot>| snapshot.strong_count() > 0;
        entries.retain(|entry| is_alive(&entry.to) && entry.from.as_ref().is_none_or(is_alive));
        let mut bytes: usize = entries.iter().filter_map(|entry| entry.message.get()).map(|message| message.len()).sum();
        while entries.len() >= Self::CAPACITY || bytes > Self::BYTES {
            let Some(oldest) = entries.pop_front() else { break };
            bytes -= oldest.message.get().map_or(0, |message| message.len());
        }
        let message = Arc::default();
        entries.push_back(Entry { from: from.map(Arc::downgrade), to: Arc::downgrade(to), message: Arc::clone(&message) });
        message
    }
}

/// Compresses a text beside the runtime's own threads.
pub(super) async fn pack(text: impl FnOnce() -> Pieces + Send + 'static) -> Result<Arc<Packed>, Stopped> {
    super::scenes::off_thread(move || Arc::new(Packed::of(text()))).await
}

#[cfg(test)]
mod tests;
