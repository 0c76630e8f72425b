//! A way to a probe.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use controls::{CallId, Cause, LinkId, ProbeId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::board::{Answer, Switchboard};
use crate::pipe::Pipe;

/// Most bytes in one word to a probe.
const WORD_BYTES: usize = 64 << 10;

/// What a probe is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Carry out a control, and answer.
    Call {
        /// Number to answer with.
        call: u64,
        /// Id of the node.
        node: String,
        /// Id of the control.
        control: String,
        /// Its arguments.
        arguments: BTreeMap<String, String>,
        /// How long somebody waits for the answer.
        patience: Duration,
    },
    /// A part of the conversation through a pipe.
    Pipe {
        /// The pipe's number.
        pipe: u64,
        /// The part.
        word: Word,
    },
}

/// A part of the conversation through a pipe, in either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// Bytes.
    Data(Bytes),
    /// So many bytes in all may have been sent.
    Credit(u64),
    /// It ends, with a reason when it ends badly.
    End(String),
}

/// Which controls a probe carries out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Abilities {
    /// Those that it named.
    Named(BTreeSet<String>),
    /// Only the probe knows: ask it.
    Unknown,
}

/// What a probe has opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// The pipe's number.
    pub pipe: u64,
    /// Whether a terminal is at its other end.
    pub raw_tty: bool,
    /// Control that changes the terminal's size; may be empty.
    pub resize_control: &'a str,
}

/// A way to a probe. Dropping it says that the probe is gone: its calls fail and its pipes are closed.
#[derive(Debug)]
pub struct Link {
    board: Switchboard,
    probe: ProbeId,
    id: LinkId,
    orders: mpsc::Sender<Order>,
    displaced: CancellationToken,
    pipes: Arc<Mutex<HashMap<u64, Arc<Pipe>>>>,
}

impl Link {
    pub(crate) fn new(board: Switchboard, probe: ProbeId, id: LinkId, orders: mpsc::Sender<Order>, displaced: CancellationToken) -> Self {
        Link { board, probe, id, orders, displaced, pipes: Arc::default() }
    }

    /// Cancelled when a newer link of the same probe has taken the place of this one.
    pub fn displaced(&self) -> &CancellationToken {
        &self.displaced
    }

    /// The probe answered a call, with a pipe that has its own connections if any.
    pub fn answered(&self, call: u64, answer: Result<Answer, String>) {
        self.board.deliver(self.id, CallId(call), answer);
    }

    /// The probe answered a call, with a pipe on this link. What is returned has to be run for the pipe to work.
    #[must_use]
    pub fn answered_with_pipe(&self, call: u64, opened: Opened<'_>) -> Pump {
        let Opened { pipe: number, raw_tty, resize_control } = opened;
        let refuse = |reason: &str| Pump { orders: self.orders.clone(), work: Work::Refuse { pipe: number, reason: reason.to_owned() } };
        let id: Arc<str> = format!("pipe-{number}").into();
        let pipe = match self.board.open_native(id.clone(), number, self.orders.clone()) {
            Ok(pipe) => pipe,
            Err(reason) => {
                self.board.deliver(self.id, CallId(call), Err(reason.to_owned()));
                return refuse(reason);
            }
        };
        self.pipes.lock().unwrap_or_else(PoisonError::into_inner).insert(number, pipe.clone());
        let answer = Answer { pipe: Some(id.clone()), raw_tty, resize_tty_control: resize_control.to_owned(), ..Answer::default() };
        if !self.board.deliver(self.id, CallId(call), Ok(answer)) {
            // Whoever asked for it has gone.
            self.board.close_pipe(&id, Cause::Asked);
        }
        Pump { orders: self.orders.clone(), work: Work::Run { pipe, number, pipes: self.pipes.clone() } }
    }

    /// The probe said something on a pipe. Words on pipes that are not there any more are on their way since before the end, and thrown away.
    pub fn said(&self, pipe: u64, word: Word) {
        let Some(pipe) = self.pipes.lock().unwrap_or_else(PoisonError::into_inner).get(&pipe).cloned() else { return };
        match word {
            Word::Data(bytes) => {
                if pipe.to_client.accept(bytes).is_err() {
                    self.board.close_pipe(&pipe.id, Cause::Overrun);
                }
            }
            Word::Credit(limit) => {
                if let Some(native) = &pipe.native {
                    native.raise(limit);
                }
            }
            Word::End(_) => pipe.end_by_probe(),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.board.unlink(self.probe.clone(), self.id);
        let pipes = std::mem::take(&mut *self.pipes.lock().unwrap_or_else(PoisonError::into_inner));
        for pipe in pipes.into_values() {
            pipe.end_by_probe();
            self.board.close_pipe(&pipe.id, Cause::ProbeLost);
        }
    }
}

/// What carries bytes from a pipe's clients to its probe.
#[derive(Debug)]
pub struct Pump {
    orders: mpsc::Sender<Order>,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Refuse { pipe: u64, reason: String },
    Run { pipe: Arc<Pipe>, number: u64, pipes: Arc<Mutex<HashMap<u64, Arc<Pipe>>>> },
}

impl Pump {
    /// Runs until the pipe is closed or the probe is gone.
    pub async fn run(self) {
        let Pump { orders, work } = self;
        let say = async |pipe, word| orders.send(Order::Pipe { pipe, word }).await.is_ok();
        match work {
            Work::Refuse { pipe, reason } => {
                say(pipe, Word::End(reason)).await;
            }
            Work::Run { pipe, number, pipes } => {
                if say(number, Word::Credit(pipe.to_client.first_credit())).await {
                    tokio::select! {
                        biased;
                        () = pipe.closed.cancelled() => {}
                        () = carry(&pipe, &orders) => {
                            // What the probe opened has ended. Clients may still read what it said last.
                            pipe.closed.cancelled().await;
                        }
                    }
                }
                pipes.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
                if pipe.native.as_ref().is_some_and(|native| !native.ended_by_probe.load(Ordering::Relaxed)) {
                    say(number, Word::End(String::new())).await;
                }
            }
        }
    }
}

async fn carry(pipe: &Pipe, orders: &mpsc::Sender<Order>) {
    let Some(native) = &pipe.native else { return };
    while let Some(taken) = pipe.to_probe.take(WORD_BYTES).await {
        for mut chunk in taken.chunks {
            while !chunk.is_empty() {
                let room = native.room(chunk.len().min(WORD_BYTES)).await;
                let word = Word::Data(chunk.split_to(room));
                if orders.send(Order::Pipe { pipe: native.pipe, word }).await.is_err() {
                    return;
                }
            }
        }
    }
}
