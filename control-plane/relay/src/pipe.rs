//! A pipe: two lanes, and who is at its ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use controls::{Allowance, Cause, End, PipeId};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::board::Switchboard;
use crate::lane::Lane;
use crate::link::{Order, Word};

/// An open pipe.
#[derive(Debug)]
pub(crate) struct Pipe {
    pub(crate) id: PipeId,
    pub(crate) to_client: Lane,
    pub(crate) to_probe: Lane,
    /// Where the probe's end is on a stream with credit, and no connection of its own.
    pub(crate) native: Option<Native>,
    /// Cancelled when it is closed.
    pub(crate) closed: CancellationToken,
}

/// The probe's end of a pipe on the probe's stream.
#[derive(Debug)]
pub(crate) struct Native {
    /// Its number on the stream.
    pub(crate) pipe: u64,
    /// The way to the probe.
    pub(crate) orders: mpsc::Sender<Order>,
    allowance: Mutex<Allowance>,
    raised: Notify,
    /// The probe said that it has ended, and needs not be told.
    pub(crate) ended_by_probe: AtomicBool,
}

impl Native {
    pub(crate) fn new(pipe: u64, orders: mpsc::Sender<Order>) -> Self {
        Native { pipe, orders, allowance: Mutex::default(), raised: Notify::new(), ended_by_probe: AtomicBool::new(false) }
    }

    /// The probe has made room for so many bytes in all.
    pub(crate) fn raise(&self, limit: u64) {
        self.allowance.lock().unwrap_or_else(PoisonError::into_inner).raise(limit);
        self.raised.notify_waiters();
    }

    /// Waits until the probe has room, and takes up to `wanted` bytes of it.
    pub(crate) async fn room(&self, wanted: usize) -> usize {
        loop {
            let raised = self.raised.notified();
            {
                let mut allowance = self.allowance.lock().unwrap_or_else(PoisonError::into_inner);
                let room = usize::try_from(allowance.room()).unwrap_or(usize::MAX).min(wanted);
                if room > 0 {
                    allowance.spend(room as u64);
                    return room;
                }
            }
            raised.await;
        }
    }
}

impl Pipe {
    pub(crate) fn new(id: PipeId, window: usize, native: Option<Native>) -> Self {
        Pipe { id, to_client: Lane::new(window), to_probe: Lane::new(window), native, closed: CancellationToken::new() }
    }

    pub(crate) fn close(&self) {
        self.to_client.finish();
        self.to_probe.finish();
        self.closed.cancel();
    }

    /// The probe's end came to its end: what is on its way to the clients still arrives.
    pub(crate) fn end_by_probe(&self) {
        if let Some(native) = &self.native {
            native.ended_by_probe.store(true, Ordering::Relaxed);
        }
        self.to_client.finish();
        self.to_probe.finish();
    }
}

/// Somebody at one end of a pipe. Dropping it is going away.
#[derive(Debug)]
pub struct Connection {
    board: Switchboard,
    pipe: Arc<Pipe>,
    end: End,
}

impl Connection {
    pub(crate) fn new(board: Switchboard, pipe: Arc<Pipe>, end: End) -> Self {
        Connection { board, pipe, end }
    }

    /// Gives bytes to the other end; waits while it has no room. `false`: the pipe takes nothing any more.
    pub async fn send(&self, bytes: Bytes) -> bool {
        let lane = match self.end {
            End::Client => &self.pipe.to_probe,
            End::Probe => &self.pipe.to_client,
        };
        lane.push(bytes).await.is_ok()
    }

    /// Takes up to `most` bytes from the other end; waits while there are none. `None`: the pipe has ended, and everything was taken.
    pub async fn receive(&self, most: usize) -> Option<Vec<Bytes>> {
        let lane = match self.end {
            End::Client => &self.pipe.to_client,
            End::Probe => &self.pipe.to_probe,
        };
        let Some(taken) = lane.take(most).await else {
            // The last word has been read: now nobody has to come back any more.
            self.board.close_pipe(&self.pipe.id, Cause::Ended);
            return None;
        };
        self.board.observer().pipe_bytes(self.end, taken.chunks.iter().map(|chunk| chunk.len() as u64).sum());
        if let (End::Client, Some(limit), Some(native)) = (self.end, taken.credit, &self.pipe.native) {
            // If the probe is gone, there is nobody to tell.
            drop(native.orders.send(Order::Pipe { pipe: native.pipe, word: Word::Credit(limit) }).await);
        }
        Some(taken.chunks)
    }

    /// Cancelled when the pipe is closed. What is on its way can still be received.
    pub fn closed(&self) -> &CancellationToken {
        &self.pipe.closed
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.board.detach(&self.pipe, self.end);
    }
}
