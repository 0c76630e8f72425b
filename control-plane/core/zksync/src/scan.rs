use std::collections::VecDeque;

use base::Timestamp;

use crate::node::Key;

/// Requests of a scan that are under way at once.
pub(crate) const WINDOW: usize = 4;
const FIRST_BATCH: usize = 50;
const BATCH_MAX: usize = 400;
/// Bytes of an answer that are aimed at.
const ANSWER: usize = 1024 * 1024;

/// Reading one side as a whole, breadth first.
#[derive(Debug)]
pub(crate) struct Scan {
    /// Told apart from scans before by this.
    pub(crate) generation: u32,
    /// When it began.
    pub(crate) began: Timestamp,
    /// After a lost connection: whatever it finds is news.
    pub(crate) after_gap: bool,
    pub(crate) queue: VecDeque<Key>,
    pub(crate) outstanding: usize,
    pub(crate) batch: usize,
    /// Znodes read.
    pub(crate) read: u64,
    /// It was asked for again before it ended.
    pub(crate) again: bool,
}

impl Scan {
    pub(crate) fn new(generation: u32, after_gap: bool, began: Timestamp, roots: impl Iterator<Item = Key>) -> Scan {
        Scan { generation, began, after_gap, queue: roots.collect(), outstanding: 0, batch: FIRST_BATCH, read: 0, again: false }
    }

    pub(crate) fn next_batch(&mut self) -> Vec<Key> {
        let count = self.batch.min(self.queue.len());
        self.queue.drain(..count).collect()
    }

    pub(crate) fn adapt(&mut self, bytes: usize) {
        if bytes > ANSWER {
            self.batch = (self.batch / 2).max(1);
        } else if bytes < ANSWER / 2 {
            self.batch = (self.batch * 2).min(BATCH_MAX);
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.queue.is_empty() && self.outstanding == 0
    }
}
