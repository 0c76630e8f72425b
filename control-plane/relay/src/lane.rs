//! One direction of a pipe: bytes in order, no more than its capacity, with an end.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use controls::{Grant, Overrun};
use tokio::sync::Notify;

/// Bytes from one end to the other.
#[derive(Debug)]
pub(crate) struct Lane {
    state: Mutex<State>,
    readable: Notify,
    writable: Notify,
    capacity: usize,
}

#[derive(Debug)]
struct State {
    chunks: VecDeque<Bytes>,
    held: usize,
    finished: bool,
    /// Where the writer may only send what it was given room for.
    grant: Grant,
}

/// The lane takes nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finished;

/// What was taken out of a lane.
#[derive(Debug)]
pub(crate) struct Taken {
    /// In order, none empty.
    pub(crate) chunks: Vec<Bytes>,
    /// What to tell a writer that waits for room.
    pub(crate) credit: Option<u64>,
}

impl Lane {
    pub(crate) fn new(capacity: usize) -> Self {
        let state = State { chunks: VecDeque::new(), held: 0, finished: false, grant: Grant::new(capacity as u64) };
        Lane { state: Mutex::new(state), readable: Notify::new(), writable: Notify::new(), capacity }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a writer that keeps to credit is told at first.
    pub(crate) fn first_credit(&self) -> u64 {
        self.lock().grant.limit()
    }

    /// Puts bytes in, as there is room for them; waits while there is none.
    pub(crate) async fn push(&self, mut bytes: Bytes) -> Result<(), Finished> {
        while !bytes.is_empty() {
            // Made before the look, so that no wake-up is missed.
            let room_made = self.writable.notified();
            {
                let mut state = self.lock();
                if state.finished {
                    return Err(Finished);
                }
                let room = self.capacity.saturating_sub(state.held).min(bytes.len());
                if room > 0 {
                    state.held += room;
                    state.chunks.push_back(bytes.split_to(room));
                    drop(state);
                    self.readable.notify_waiters();
                    continue;
                }
            }
            room_made.await;
        }
        Ok(())
    }

    /// Puts bytes in that the writer was given room for. After the end they are thrown away.
    pub(crate) fn accept(&self, bytes: Bytes) -> Result<(), Overrun> {
        let mut state = self.lock();
        if state.finished || bytes.is_empty() {
            return Ok(());
        }
        state.grant.received(bytes.len() as u64)?;
        state.held += bytes.len();
        state.chunks.push_back(bytes);
        drop(state);
        self.readable.notify_waiters();
        Ok(())
    }

    /// Takes up to `most` bytes out; waits while there are none. `None` after the end.
    pub(crate) async fn take(&self, most: usize) -> Option<Taken> {
        loop {
            let something_came = self.readable.notified();
            {
                let mut state = self.lock();
                if state.held > 0 {
                    let taken = state.take(most);
                    drop(state);
                    self.writable.notify_waiters();
                    return Some(taken);
                }
                if state.finished {
                    return None;
                }
            }
            something_came.await;
        }
    }

    /// Nothing more is put in. What is in can be taken out.
    pub(crate) fn finish(&self) {
        self.lock().finished = true;
        self.readable.notify_waiters();
        self.writable.notify_waiters();
    }

    /// Bytes in it.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.lock().held
    }
}

impl State {
    fn take(&mut self, most: usize) -> Taken {
        let mut chunks = Vec::new();
        let mut left = most.max(1);
        while left > 0
            && let Some(chunk) = self.chunks.front_mut()
        {
            let part = chunk.split_to(chunk.len().min(left));
            left -= part.len();
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
            chunks.push(part);
        }
        let count = chunks.iter().map(Bytes::len).sum::<usize>();
        self.held -= count;
        Taken { chunks, credit: self.grant.taken(count as u64) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn text(taken: Option<Taken>) -> String {
        taken.map(|taken| taken.chunks.concat()).map(|bytes| String::from_utf8(bytes).unwrap()).unwrap_or_default()
    }

    #[tokio::test]
    async fn a_writer_waits_for_a_slow_reader_and_loses_nothing() {
        let lane = Arc::new(Lane::new(4));
        let writing = lane.push(Bytes::from_static(b"0123456789"));
        let reading = async {
            tokio::task::yield_now().await;
            assert_eq!(lane.held(), 4);
            let mut all = String::new();
            while all.len() < 10 {
                all.push_str(&text(lane.take(3).await));
                assert!(lane.held() <= 4);
                tokio::task::yield_now().await;
            }
            all
        };
        let (written, read) = tokio::join!(writing, reading);
        assert_eq!((written, read.as_str()), (Ok(()), "0123456789"));
    }

    #[tokio::test]
    async fn what_is_in_can_be_taken_after_the_end() {
        let lane = Lane::new(10);
        lane.push(Bytes::from_static(b"last")).await.unwrap();
        lane.finish();
        assert_eq!(lane.push(Bytes::from_static(b"more")).await, Err(Finished));
        assert_eq!(text(lane.take(10).await), "last");
        assert!(lane.take(10).await.is_none());
    }

    #[tokio::test]
    async fn who_sends_beyond_the_credit_is_found_out() {
        let lane = Lane::new(4);
        assert_eq!(lane.first_credit(), 4);
        lane.accept(Bytes::from_static(b"1234")).unwrap();
        assert!(lane.accept(Bytes::from_static(b"5")).is_err());
        assert_eq!(lane.take(3).await.unwrap().credit, Some(7));
    }

    #[tokio::test]
    async fn the_end_wakes_whoever_waits() {
        let lane = Arc::new(Lane::new(1));
        let (reader, writer) = (lane.clone(), lane.clone());
        let waiting = async move { reader.take(1).await.is_none() };
        let ending = async {
            tokio::task::yield_now().await;
            lane.finish();
        };
        let (ended, ()) = timeout(Duration::from_secs(5), async { tokio::join!(waiting, ending) }).await.unwrap();
        assert!(ended);
        assert_eq!(writer.push(Bytes::from_static(b"x")).await, Err(Finished));
    }
}
