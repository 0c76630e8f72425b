//! The probe's end of a pipe.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use proto::probe::v1::pipe::Body as Word;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::desk::{Pipes, WINDOW, word};

/// Most bytes in one message.
const MESSAGE_BYTES: usize = 64 << 10;
/// After so many bytes that were taken, the sender is told of the new room.
const TELL_AFTER: u64 = WINDOW / 4;

/// What the desk and the pipe's two halves share.
#[derive(Debug)]
pub(crate) struct Shared {
    incoming: mpsc::UnboundedSender<Bytes>,
    state: Mutex<State>,
    raised: Notify,
    closed: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    sent: u64,
    may_send: u64,
    received: u64,
    taken: u64,
    may_receive: u64,
}

impl Shared {
    pub(crate) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Bytes>) {
        // What waits in it is bounded by the window.
        let (incoming, taken) = mpsc::unbounded_channel();
        let state = Mutex::new(State { may_receive: WINDOW, ..State::default() });
        (Arc::new(Shared { incoming, state, raised: Notify::new(), closed: CancellationToken::new() }), taken)
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Bytes came. When there was no room for them, the other end does not keep to the rules, and the pipe is closed.
    pub(crate) fn data(&self, bytes: Bytes) {
        let fits = self.with(|state| {
            state.received = state.received.saturating_add(bytes.len() as u64);
            state.received <= state.may_receive
        });
        if !fits {
            tracing::warn!("a pipe is closed: more came than there was room for");
            self.closed.cancel();
        } else if !bytes.is_empty() {
            // Nobody may take it any more.
            drop(self.incoming.send(bytes));
        }
    }

    pub(crate) fn credit(&self, limit: u64) {
        self.with(|state| state.may_send = state.may_send.max(limit));
        self.raised.notify_waiters();
    }

    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    async fn room(&self, wanted: usize) -> usize {
        loop {
            let raised = self.raised.notified();
            let room = self.with(|state| {
                let room = usize::try_from(state.may_send - state.sent).unwrap_or(usize::MAX).min(wanted);
                state.sent += room as u64;
                room
            });
            if room > 0 {
                return room;
            }
            raised.await;
        }
    }

    /// How much may be sent in all from now on, when that is worth telling.
    fn taken(&self, count: u64) -> Option<u64> {
        self.with(|state| {
            state.taken += count;
            let limit = state.taken + WINDOW;
            (limit - state.may_receive >= TELL_AFTER).then(|| {
                state.may_receive = limit;
                limit
            })
        })
    }
}

/// The probe's end of a pipe.
#[derive(Debug)]
pub struct PipeEnd {
    sender: PipeSender,
    receiver: PipeReceiver,
}

impl PipeEnd {
    pub(crate) fn new(number: u64, shared: Arc<Shared>, incoming: mpsc::UnboundedReceiver<Bytes>, pipes: Pipes) -> Self {
        let sender = PipeSender { number, shared: shared.clone(), pipes: pipes.clone() };
        PipeEnd { sender, receiver: PipeReceiver { number, shared, incoming, pipes } }
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.sender.number
    }

    /// Its two directions.
    pub fn split(self) -> (PipeSender, PipeReceiver) {
        (self.sender, self.receiver)
    }
}

/// Towards whoever looks.
#[derive(Debug)]
pub struct PipeSender {
    number: u64,
    shared: Arc<Shared>,
    pipes: Pipes,
}

impl PipeSender {
    /// Sends bytes; waits while there is no room for them. `false`: the stream has ended.
    pub async fn send(&self, mut bytes: Bytes) -> bool {
        while !bytes.is_empty() {
            let room = self.shared.room(bytes.len().min(MESSAGE_BYTES)).await;
            let part = bytes.split_to(room);
            self.pipes.numbers().bytes_sent.inc_by(part.len() as u64);
            if self.pipes.outgoing().send(word(self.number, Word::Data(part))).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Cancelled when the pipe is closed from the other end.
    pub fn closed(&self) -> &CancellationToken {
        &self.shared.closed
    }
}

impl Drop for PipeSender {
    fn drop(&mut self) {
        self.pipes.forget(self.number);
    }
}

/// From whoever looks.
#[derive(Debug)]
pub struct PipeReceiver {
    number: u64,
    shared: Arc<Shared>,
    incoming: mpsc::UnboundedReceiver<Bytes>,
    pipes: Pipes,
}

impl PipeReceiver {
    /// Bytes, as they come. `None`: none will come any more.
    pub async fn receive(&mut self) -> Option<Bytes> {
        let bytes = tokio::select! {
            biased;
            () = self.shared.closed.cancelled() => return None,
            bytes = self.incoming.recv() => bytes?,
        };
        if let Some(limit) = self.shared.taken(bytes.len() as u64) {
            // When the stream has ended, there is nobody to tell.
            drop(self.pipes.outgoing().send(word(self.number, Word::Credit(limit))).await);
        }
        Some(bytes)
    }
}
