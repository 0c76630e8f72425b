//! What the leader writes of the history is kept by those who follow, so that the next leader can show what was before it.
//!
//! A follower's map is empty, and would make an empty history of its own. So the loop that writes begins here: it keeps copies of the leader's
//! segments, until this control plane leads itself.

use std::io::ErrorKind;

use base::Timestamp;
use history::{Catalogue, Copied, Copy};
use tokio::sync::mpsc;

use super::{HistoryHandle, Writer};
use crate::telemetry::events::{HistoryCompactionFailed, HistoryFailed, HistoryWritten};

/// Pieces of the leader's segments that may wait for the disk.
const COPIES_CAPACITY: usize = 8;

/// A piece of what the leader has written, or what becomes of us.
#[derive(Debug)]
pub(crate) enum Piece {
    /// A segment begins; whether the one before it, of the same connection, led to it.
    Begin {
        /// See above.
        continues: bool,
    },
    /// Some bytes of it.
    Bytes(Vec<u8>),
    /// It is whole.
    End,
    /// The connection to the leader is gone.
    Broken,
    /// We lead: from here on, our own map is written.
    Lead,
}

/// Where pieces go. When it is gone, so is whoever follows, because the process stops.
#[derive(Debug)]
pub(crate) struct Copies {
    pieces: mpsc::Sender<Piece>,
}

/// What the loop that writes begins with on a follower.
pub(crate) type Pieces = mpsc::Receiver<Piece>;

/// A way for pieces, and its other end for [`super::open`].
pub(crate) fn copies() -> (Copies, Pieces) {
    let (pieces, waiting) = mpsc::channel(COPIES_CAPACITY);
    (Copies { pieces }, waiting)
}

impl Copies {
    /// Passes a piece on; waits for a slow disk. Without a history nobody takes it.
    pub(crate) async fn put(&self, piece: Piece) {
        drop(self.pieces.send(piece).await);
    }
}

impl HistoryHandle {
    /// Which files there are.
    pub(crate) fn catalogue(&self) -> &Catalogue {
        &self.shared.catalogue
    }

    /// The last moment that is kept.
    pub(crate) fn last_moment(&self) -> Timestamp {
        self.shared.catalogue.span().map_or(Timestamp::EPOCH, |(_, last)| last)
    }
}

impl Writer {
    /// Keeps what the leader has written, until we lead. False when the process stops before that.
    pub(super) fn follow(&mut self, mut pieces: Pieces) -> bool {
        let mut copy: Option<Copy> = None;
        // Whether everything of the segment before is here.
        let mut is_whole = false;
        loop {
            let done = match pieces.blocking_recv() {
                Some(Piece::Begin { continues }) => self.store.begin_copy(continues && is_whole).map(|begun| {
                    is_whole = false;
                    copy = Some(begun);
                }),
                Some(Piece::Bytes(bytes)) => copy.as_mut().map_or(Ok(()), |copy| copy.append(&bytes)),
                Some(Piece::End) => self.end(copy.take()).map(|ended| is_whole = ended),
                Some(Piece::Broken) => self.end(copy.take()).map(drop),
                last @ (Some(Piece::Lead) | None) => {
                    if let Err(error) = self.end(copy.take()) {
                        HistoryFailed { error: &error }.emit(&self.telemetry);
                    }
                    return last.is_some();
                }
            };
            if let Err(error) = done {
                // The next segment is tried anew, and marked as one that nothing leads to.
                copy = None;
                is_whole = false;
                let mut segments_removed = self.store.retain_copies(self.clock.now());
                if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
                    segments_removed += usize::from(self.store.make_room());
                }
                HistoryWritten { bytes: 0, segments_removed, changes_skipped: 0 }.emit(&self.telemetry);
                HistoryFailed { error: &error }.emit(&self.telemetry);
                self.shared.set_problem(Some(format!("the history of the leader is not kept: {error}")));
            }
        }
    }

    /// Keeps what has come of a segment. Whether there is something to go on from.
    fn end(&mut self, copy: Option<Copy>) -> std::io::Result<bool> {
        let Some(copy) = copy else { return Ok(false) };
        let ended = self.store.end_copy(copy)?;
        let segments_removed = self.store.retain_copies(self.clock.now());
        HistoryWritten { bytes: 0, segments_removed, changes_skipped: 0 }.emit(&self.telemetry);
        match ended {
            Copied::Kept(path) => {
                match history::compact_file(&path) {
                    Ok(_) => self.store.compacted(&path),
                    Err(error) => HistoryCompactionFailed { error: &error }.emit(&self.telemetry),
                }
                self.shared.set_problem(None);
            }
            Copied::Known => {}
            Copied::Unreadable => {
                tracing::warn!("a segment of the leader's history cannot be read here, and is not kept: its version may be another");
                return Ok(false);
            }
        }
        Ok(true)
    }
}
