//! Calls in, answers out, and what they opened.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use prometheus::{IntCounter, IntCounterVec, IntGauge};
use proto::probe::v1::{self, ControlAnswer, ControlCall, ProbeMessage, control_answer, pipe::Body as Word, pipe::End, probe_message};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::pipe::{PipeEnd, Shared};

/// Calls and what they opened, at once.
const TASKS_MAX: usize = 1_200;
/// Longest time for a call whose caller names none.
const DEADLINE: Duration = Duration::from_secs(80);
/// Bytes that clients may send before they are taken: what somebody types, or pastes.
pub(crate) const WINDOW: u64 = 64 << 10;
/// What a session may take to end when its pipe is closed.
const FAREWELL: Duration = Duration::from_secs(2);
/// Longest text of an error that is told.
const ERROR_MAX: usize = 4_096;

/// Who carries controls out.
pub trait Executor: Send + Sync + 'static {
    /// Ids of the controls that it carries out.
    fn controls(&self) -> Vec<String>;

    /// Carries one out. Dropping the future gives up. The error is told to whoever called, as it is.
    fn call(self: Arc<Self>, call: Call, pipes: Pipes) -> BoxFuture<'static, Result<Answer, String>>;
}

/// An order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Id of the node, as on the map.
    pub node: String,
    /// Id of the control.
    pub control: String,
    /// Its arguments.
    pub arguments: BTreeMap<String, String>,
}

/// What became of an order.
#[derive(Default)]
pub struct Answer {
    /// Node that is gone now; empty when none is.
    pub removed_node: String,
    /// What was opened.
    pub opened: Option<Opened>,
}

/// Something with bytes in it.
pub struct Opened {
    /// The number of its pipe: [`PipeEnd::number`].
    pub pipe: u64,
    /// It is a terminal.
    pub raw_tty: bool,
    /// Control that changes its size; empty when there is none.
    pub resize_control: &'static str,
    /// Carries the bytes, until it ends; an error is told to whoever looks. It has to end when the pipe is closed from the other end
    /// ([`PipeSender::closed`](crate::PipeSender::closed)), and is dropped when it does not.
    pub session: BoxFuture<'static, Result<(), String>>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer")
            .field("removed_node", &self.removed_node)
            .field("pipe", &self.opened.as_ref().map(|it| it.pipe))
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("pipe", &self.pipe).finish_non_exhaustive()
    }
}

/// Where a desk counts.
#[derive(Clone, Debug)]
pub struct Numbers {
    /// Calls by outcome: `done`, `failed`, `timed_out`.
    pub calls: IntCounterVec,
    /// Open pipes.
    pub pipes: IntGauge,
    /// Bytes sent into pipes.
    pub bytes_sent: IntCounter,
    /// Bytes received out of pipes.
    pub bytes_received: IntCounter,
}

/// Makes pipes.
#[derive(Clone, Debug)]
pub struct Pipes {
    open: Arc<Mutex<HashMap<u64, Arc<Shared>>>>,
    outgoing: mpsc::Sender<ProbeMessage>,
    numbers: Numbers,
}

impl Pipes {
    /// A pipe of its own. It works as soon as the answer that names it was sent.
    pub fn open(&self) -> PipeEnd {
        let (shared, incoming) = Shared::new();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let number = loop {
            let number = random();
            if number != 0 && !open.contains_key(&number) {
                break number;
            }
        };
        open.insert(number, shared.clone());
        self.numbers.pipes.set(i64::try_from(open.len()).unwrap_or(i64::MAX));
        PipeEnd::new(number, shared, incoming, self.clone())
    }

    pub(crate) fn outgoing(&self) -> &mpsc::Sender<ProbeMessage> {
        &self.outgoing
    }

    pub(crate) fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    /// The pipe is not there any more.
    pub(crate) fn forget(&self, number: u64) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&number);
        self.numbers.pipes.set(i64::try_from(open.len()).unwrap_or(i64::MAX));
    }

    fn close_all(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).values().for_each(|pipe| pipe.close());
    }

    fn get(&self, number: u64) -> Option<Arc<Shared>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }
}

/// 63 bits that nobody can guess: the standard library seeds its hashers from the system's random source.
fn random() -> u64 {
    RandomState::new().build_hasher().finish() >> 1
}

pub(crate) fn word(pipe: u64, word: Word) -> ProbeMessage {
    ProbeMessage { body: Some(probe_message::Body::Pipe(v1::Pipe { pipe, body: Some(word) })) }
}

/// The desk of one stream. Dropping it ends everything that was opened on the stream.
#[derive(Debug)]
pub struct Desk {
    executor: Option<ExecutorHandle>,
    pipes: Pipes,
    tasks: JoinSet<()>,
}

struct ExecutorHandle(Arc<dyn Executor>);

impl std::fmt::Debug for ExecutorHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Executor")
    }
}

impl Desk {
    /// A desk whose answers go to `outgoing`. Without an executor every call is refused.
    pub fn new(executor: Option<Arc<dyn Executor>>, outgoing: mpsc::Sender<ProbeMessage>, numbers: Numbers) -> Self {
        Desk { executor: executor.map(ExecutorHandle), pipes: Pipes { open: Arc::default(), outgoing, numbers }, tasks: JoinSet::new() }
    }

    /// Takes a call on.
    pub fn on_call(&mut self, call: ControlCall) {
        while self.tasks.try_join_next().is_some() {}
        let number = call.call;
        let refused = match &self.executor {
            None => Some("this probe carries out no controls"),
            Some(_) if self.tasks.len() >= TASKS_MAX => Some("this probe is busy with too many controls and terminals"),
            Some(_) => None,
        };
        if let Some(error) = refused {
            // If there is no room for it, the caller's deadline says it.
            drop(self.pipes.outgoing.try_send(answer(number, Err(error.to_owned()))));
            return;
        }
        let Some(ExecutorHandle(executor)) = &self.executor else { return };
        let (executor, pipes) = (executor.clone(), self.pipes.clone());
        self.tasks.spawn(async move { serve(executor, call, pipes).await });
    }

    /// Takes a part of a conversation through a pipe. One that is not there any more was closed while this was on its way.
    pub fn on_pipe(&mut self, message: v1::Pipe) {
        let Some(pipe) = self.pipes.get(message.pipe) else { return };
        match message.body {
            Some(Word::Data(bytes)) => {
                self.pipes.numbers.bytes_received.inc_by(bytes.len() as u64);
                pipe.data(bytes);
            }
            Some(Word::Credit(limit)) => pipe.credit(limit),
            Some(Word::End(_)) => pipe.close(),
            None => {}
        }
    }

    /// Lets go of what has ended. Never returns.
    pub async fn tend(&mut self) {
        loop {
            match self.tasks.join_next().await {
                Some(Err(error)) if error.is_panic() => tracing::error!(%error, "a control panicked"),
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// The stream has ended: so does everything that was opened on it.
    pub async fn close(mut self) {
        self.pipes.close_all();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        drop(timeout(FAREWELL, ended).await);
    }
}

async fn serve(executor: Arc<dyn Executor>, call: ControlCall, pipes: Pipes) {
    let ControlCall { call: number, node_id, control, arguments, deadline_ms } = call;
    let deadline = if deadline_ms == 0 { DEADLINE } else { Duration::from_millis(deadline_ms.into()).min(DEADLINE) };
    let call = Call { node: node_id, control, arguments: arguments.into_iter().collect() };
    tracing::info!(node = call.node, control = call.control, "control is carried out");
    let carried_out = timeout(deadline, executor.call(call, pipes.clone())).await;
    let (result, outcome) = match carried_out {
        Ok(Ok(answer)) => (Ok(answer), "done"),
        Ok(Err(error)) => (Err(error), "failed"),
        Err(_) => (Err(format!("it was not done within {deadline:?}")), "timed_out"),
    };
    pipes.numbers.calls.with_label_values(&[outcome]).inc();
    if let Err(error) = &result {
        tracing::info!(error, outcome, "control was not carried out");
    }
    let (message, opened) = match result {
        Ok(Answer { removed_node, opened }) => (answer(number, Ok((removed_node, opened.as_ref()))), opened),
        Err(error) => (answer(number, Err(error)), None),
    };
    let outgoing = pipes.outgoing.clone();
    if outgoing.send(message).await.is_err() {
        return;
    }
    let Some(Opened { pipe, session, .. }) = opened else { return };
    let Some(shared) = pipes.get(pipe) else { return };
    if outgoing.send(word(pipe, Word::Credit(WINDOW))).await.is_err() {
        return;
    }
    let mut session = session;
    let ended = tokio::select! {
        biased;
        ended = &mut session => Some(ended),
        () = shared.closed().cancelled() => {
            // It may have something to put in order.
            drop(timeout(FAREWELL, session).await);
            None
        }
    };
    pipes.forget(pipe);
    if let Some(ended) = ended {
        let reason = ended.err().map(cut).unwrap_or_default();
        // When the stream has ended, there is nobody to tell.
        drop(outgoing.send(word(pipe, Word::End(End { reason }))).await);
    }
}

fn answer(call: u64, result: Result<(String, Option<&Opened>), String>) -> ProbeMessage {
    let answer = match result {
        Ok((removed_node, opened)) => ControlAnswer {
            call,
            error: String::new(),
            removed_node,
            pipe: opened.map(|opened| control_answer::OpenedPipe {
                pipe: opened.pipe,
                raw_tty: opened.raw_tty,
                resize_control: opened.resize_control.to_owned(),
            }),
        },
        // An empty text would say that all is well.
        Err(error) if error.is_empty() => {
            ControlAnswer { call, error: "it failed, and nobody says why".to_owned(), ..ControlAnswer::default() }
        }
        Err(error) => ControlAnswer { call, error: cut(error), ..ControlAnswer::default() },
    };
    ProbeMessage { body: Some(probe_message::Body::ControlAnswer(answer)) }
}

fn cut(mut text: String) -> String {
    if text.len() > ERROR_MAX {
        let end = (0..=ERROR_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests;
