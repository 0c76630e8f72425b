//! The switchboard: who can be reached, who waits, which pipes are open.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::Timestamp;
use controls::{
    CallEffect, CallFailure, CallId, CallInput, CallLimits, Calls, Cause, End, LinkId, PipeEffect, PipeId, PipeInput, PipeLimits,
    PipeRefusal, Pipes, ProbeId,
};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::{Audit, Draft};
use crate::link::{Abilities, Link, Order};
use crate::pipe::{Connection, Native, Pipe};
use crate::{Observer, Outcome};

mod own;

/// Orders that wait for a probe that does not read.
const ORDERS_MAX: usize = 32;
/// Longest sleep of the clock's loop: a deadline that comes up meanwhile wakes it earlier.
const SLEEP_MAX: Duration = Duration::from_secs(30);
/// How often records that could not be written are tried again.
const RECORD_INTERVAL: Duration = Duration::from_secs(5);

/// How much may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of calls.
    pub calls: CallLimits,
    /// Of pipes.
    pub pipes: PipeLimits,
    /// Bytes that one direction of a pipe may hold.
    pub window: usize,
    /// How long a call waits for its answer.
    pub patience: Duration,
}

impl Limits {
    /// 64 calls a probe and 1,024 in all, answered within 80 s; 4,096 pipes of 128 KiB a direction.
    pub const DEFAULT: Limits = Limits {
        calls: CallLimits { per_probe: 64, total: 1_024 },
        pipes: PipeLimits::scope(4_096),
        window: 128 << 10,
        patience: Duration::from_secs(80),
    };
}

/// Who calls a control.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Where the request came from.
    pub remote: Option<SocketAddr>,
    /// The name that it gave, if any. Nobody has checked it here.
    pub user: Option<String>,
}

/// What is called, on what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The probe.
    pub probe: String,
    /// The node.
    pub node: String,
    /// The control.
    pub control: String,
    /// Its arguments.
    pub arguments: BTreeMap<String, String>,
}

/// What a probe answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Whatever the control says.
    pub value: Option<serde_json::Value>,
    /// Pipe that was opened.
    pub pipe: Option<Arc<str>>,
    /// Whether a terminal is at its other end.
    pub raw_tty: bool,
    /// Control that changes the terminal's size; may be empty.
    pub resize_tty_control: String,
    /// Node that is gone now; empty when none is.
    pub removed_node: String,
}

/// Why a control was not carried out. The texts are for whoever called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The probe has no link.
    #[error("probe {0} is not connected right now")]
    NotConnected(String),
    /// The probe did not name the control in its hello.
    #[error("Control {0:?} not recognised")]
    Unknown(String),
    /// The probe went away before it answered.
    #[error("probe {0} went away before it answered; nobody knows whether it did what was asked")]
    ProbeLost(String),
    /// The probe did not answer in time.
    #[error("probe {0} has not answered in time; nobody knows whether it does what was asked")]
    TimedOut(String),
    /// The control plane stops, or leads no longer, before the probe answered.
    #[error("the control plane is about to stop; nobody knows whether {0} does what was asked")]
    Stopped(String),
    /// Too many calls wait already.
    #[error("too many controls are being carried out already; try again later")]
    TooMany,
    /// The probe, or the runtime behind it, could not: in its own words.
    #[error("{0}")]
    Failed(String),
}

impl CallError {
    fn outcome(&self) -> Outcome {
        match self {
            CallError::NotConnected(_) => Outcome::NotConnected,
            CallError::Unknown(_) => Outcome::Unknown,
            CallError::ProbeLost(_) => Outcome::ProbeLost,
            CallError::TimedOut(_) => Outcome::TimedOut,
            CallError::Stopped(_) => Outcome::Stopped,
            CallError::TooMany => Outcome::TooMany,
            CallError::Failed(_) => Outcome::Failed,
        }
    }
}

type Reply = Result<Result<Answer, String>, CallFailure>;

/// See the crate's documentation. Cheap to clone.
#[derive(Clone)]
pub struct Switchboard(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    limits: Limits,
    now: Box<dyn Fn() -> Timestamp + Send + Sync>,
    wall: Box<dyn Fn() -> Timestamp + Send + Sync>,
    observer: Box<dyn Observer>,
    audit: Audit,
    /// A deadline has come up that may be the next.
    scheduled: Notify,
    /// Calls that are not on record yet.
    under_way: TaskTracker,
}

struct State {
    calls: Calls,
    pipes: Pipes,
    waiting: HashMap<CallId, oneshot::Sender<Reply>>,
    links: HashMap<LinkId, LinkEntry>,
    open: HashMap<PipeId, Arc<Pipe>>,
    /// No call is waited for any more.
    stopped: bool,
    last_call: u64,
    last_link: u64,
}

impl State {
    /// Whether a probe is linked that has said what it can do.
    fn has_proved(&self, probe: &str) -> bool {
        self.calls.link_of(probe).and_then(|link| self.links.get(&link)).is_some_and(|entry| entry.abilities != Abilities::Unknown)
    }
}

struct LinkEntry {
    orders: mpsc::Sender<Order>,
    displaced: CancellationToken,
    abilities: Abilities,
}

impl fmt::Debug for Switchboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Switchboard").field("waiting", &state.waiting.len()).field("open", &state.open.len()).finish_non_exhaustive()
    }
}

impl Switchboard {
    /// A switchboard without links. `clocks` are one that only goes forward, for deadlines, and the wall's, for the record that `audit` takes.
    pub fn new<N, W>(limits: Limits, (now, wall): (N, W), observer: impl Observer, audit: Audit) -> Self
    where
        N: Fn() -> Timestamp + Send + Sync + 'static,
        W: Fn() -> Timestamp + Send + Sync + 'static,
    {
        let state = State {
            calls: Calls::new(limits.calls),
            pipes: Pipes::new(limits.pipes),
            waiting: HashMap::new(),
            links: HashMap::new(),
            open: HashMap::new(),
            stopped: false,
            last_call: 0,
            last_link: 0,
        };
        Switchboard(Arc::new(Inner {
            state: Mutex::new(state),
            limits,
            now: Box::new(now),
            wall: Box::new(wall),
            observer: Box::new(observer),
            audit,
            scheduled: Notify::new(),
            under_way: TaskTracker::new(),
        }))
    }

    /// The record of calls.
    pub fn audit(&self) -> &Audit {
        &self.0.audit
    }

    /// A probe can be reached from now on, as long as the link lives; a link that it had before is displaced. Its orders come out of the
    /// receiver.
    pub fn link(&self, probe: &str, abilities: Abilities) -> (Link, mpsc::Receiver<Order>) {
        self.linked(&mut self.lock(), probe, abilities)
    }

    /// The same for somebody who says which probe it is, and no more. It takes no place of a probe that has said what it can do, on a stream of its
    /// own: whoever knows its name would be given what an operator types into a terminal. `None` then.
    pub fn link_by_name(&self, probe: &str) -> Option<(Link, mpsc::Receiver<Order>)> {
        let mut state = self.lock();
        (!state.has_proved(probe)).then(|| self.linked(&mut state, probe, Abilities::Unknown))
    }

    /// Whether [`Switchboard::link_by_name`] would give a link.
    pub fn may_link_by_name(&self, probe: &str) -> bool {
        !self.lock().has_proved(probe)
    }

    fn linked(&self, state: &mut State, probe: &str, abilities: Abilities) -> (Link, mpsc::Receiver<Order>) {
        let (orders, inbox) = mpsc::channel(ORDERS_MAX);
        let displaced = CancellationToken::new();
        let probe: ProbeId = probe.into();
        state.last_link += 1;
        let id = LinkId(state.last_link);
        state.links.insert(id, LinkEntry { orders: orders.clone(), displaced: displaced.clone(), abilities });
        self.step_calls(state, CallInput::Linked { probe: probe.clone(), link: id });
        (Link::new(self.clone(), probe, id, orders, displaced), inbox)
    }

    /// Calls a control, waits for what becomes of it, and writes it down. Whoever goes away meanwhile, or stops, should let this run on, for the
    /// record: it ends by itself when [`Switchboard::run`] is told to stop.
    ///
    /// # Errors
    /// Why it was not carried out.
    pub async fn call(&self, caller: &Caller, target: Target) -> Result<Answer, CallError> {
        let _under_way = self.0.under_way.token();
        let begun = Instant::now();
        let draft = Draft::new((self.0.wall)(), caller, &target);
        let is_resize = target.control.contains("resize_");
        let result = self.carry_out(target).await;
        let took = begun.elapsed();
        let outcome = result.as_ref().map_or_else(CallError::outcome, |_| Outcome::Done);
        self.0.observer.call_settled(outcome, took);
        if is_resize && result.is_ok() {
            // A window that is drawn larger sends dozens, which would push out of the record what somebody did.
            return result;
        }
        let error = result.as_ref().err().map(ToString::to_string);
        let pipe = result.as_ref().ok().and_then(|answer| answer.pipe.clone());
        if let Err(error) = self.0.audit.write(draft, outcome, error, pipe.as_deref(), took).await {
            self.0.observer.audit_failed(&error);
        }
        result
    }

    async fn carry_out(&self, target: Target) -> Result<Answer, CallError> {
        let Target { probe, node, control, arguments } = target;
        let (reply, answer) = oneshot::channel();
        let patience = self.0.limits.patience;
        let (call, orders) = {
            let mut state = self.lock();
            if state.stopped {
                return Err(CallError::Stopped(probe));
            }
            let entry = state.calls.link_of(&probe).and_then(|link| state.links.get(&link));
            if let Some(LinkEntry { abilities: Abilities::Named(named), .. }) = entry
                && !named.contains(&control)
            {
                return Err(CallError::Unknown(control));
            }
            let orders = entry.map(|entry| entry.orders.clone());
            state.last_call += 1;
            let call = CallId(state.last_call);
            state.waiting.insert(call, reply);
            self.step_calls(&mut state, CallInput::Called { call, probe: probe.as_str().into(), patience });
            (call, orders)
        };
        self.0.scheduled.notify_one();
        let order = Order::Call { call: call.0, node, control, arguments, patience };
        let sent = async {
            if let Some(orders) = orders {
                // If the link has ended, the call fails by that.
                drop(orders.send(order).await);
            }
            std::future::pending::<Infallible>().await
        };
        let reply = tokio::select! {
            biased;
            reply = answer => reply,
            never = sent => match never {},
        };
        match reply {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(text))) => Err(CallError::Failed(text)),
            Ok(Err(CallFailure::NotConnected)) => Err(CallError::NotConnected(probe)),
            Ok(Err(CallFailure::TooMany)) => Err(CallError::TooMany),
            Ok(Err(CallFailure::TimedOut)) => Err(CallError::TimedOut(probe)),
            Err(_) if self.lock().stopped => Err(CallError::Stopped(probe)),
            Ok(Err(CallFailure::ProbeLost)) | Err(_) => Err(CallError::ProbeLost(probe)),
        }
    }

    /// Connects to an end of a pipe; makes the pipe, if it is new.
    ///
    /// # Errors
    /// When it is closed, or there are too many.
    pub fn connect(&self, pipe: &str, end: End) -> Result<Connection, PipeRefusal> {
        let id: PipeId = pipe.into();
        let mut state = self.lock();
        self.attach(&mut state, &id, end)?;
        let window = self.0.limits.window;
        let pipe = state.open.entry(id.clone()).or_insert_with(|| Arc::new(Pipe::new(id, window, None))).clone();
        self.0.observer.pipes_open(state.pipes.open_count());
        drop(state);
        self.0.scheduled.notify_one();
        Ok(Connection::new(self.clone(), pipe, end))
    }

    /// Whether one could connect to a pipe: so for open ones and for those never heard of.
    pub fn may_connect(&self, pipe: &str) -> bool {
        self.lock().pipes.may_connect(pipe)
    }

    /// Closes a pipe, if it is open.
    pub fn close(&self, pipe: &str) {
        self.close_pipe(&pipe.into(), Cause::Asked);
    }

    /// Lets time pass, until `stopping` is cancelled; then no call waits any more, and this returns when each is on record. Without it no call times
    /// out and no pipe is closed for idleness.
    pub async fn run(&self, stopping: CancellationToken) {
        // Side by side: a disk that hangs keeps no call from timing out.
        tokio::join!(self.pass_time(&stopping), self.keep_record(&stopping));
        self.give_up_calls();
        self.0.under_way.close();
        self.0.under_way.wait().await;
    }

    /// What a probe was told already it does all the same, and that belongs into the record.
    fn give_up_calls(&self) {
        let mut state = self.lock();
        state.stopped = true;
        state.waiting.clear();
    }

    /// Tries again to write what could not be written.
    async fn keep_record(&self, stopping: &CancellationToken) {
        while stopping.run_until_cancelled(tokio::time::sleep(RECORD_INTERVAL)).await.is_some() {
            self.0.audit.catch_up().await;
        }
    }

    async fn pass_time(&self, stopping: &CancellationToken) {
        loop {
            let pause = {
                let mut state = self.lock();
                self.step_calls(&mut state, CallInput::Tick);
                self.step_pipes(&mut state, PipeInput::Tick);
                let next = state.calls.next_deadline().into_iter().chain(state.pipes.next_deadline()).min();
                next.map_or(SLEEP_MAX, |at| at.since((self.0.now)()).min(SLEEP_MAX)).max(Duration::from_millis(1))
            };
            tokio::select! {
                () = stopping.cancelled() => return,
                () = self.0.scheduled.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    pub(crate) fn observer(&self) -> &dyn Observer {
        &*self.0.observer
    }

    /// Whether somebody waited for it.
    pub(crate) fn deliver(&self, link: LinkId, call: CallId, answer: Result<Answer, String>) -> bool {
        let mut state = self.lock();
        let mut out = Vec::new();
        state.calls.step((self.0.now)(), CallInput::Answered { link, call }, &mut out);
        let delivers = out.iter().any(|effect| matches!(effect, CallEffect::Deliver { .. }));
        let waiting = if delivers { state.waiting.remove(&call) } else { None };
        drop(state);
        match waiting {
            Some(waiting) => waiting.send(Ok(answer)).is_ok(),
            None => {
                self.0.observer.stray_answer();
                false
            }
        }
    }

    pub(crate) fn unlink(&self, probe: ProbeId, link: LinkId) {
        let mut state = self.lock();
        state.links.remove(&link);
        self.step_calls(&mut state, CallInput::Unlinked { probe, link });
    }

    /// Makes a pipe whose probe's end is on a link. Its number is the probe's choice, so one that is known is refused: nobody gets into another's
    /// terminal by naming it.
    pub(crate) fn open_native(&self, id: PipeId, number: u64, orders: mpsc::Sender<Order>) -> Result<Arc<Pipe>, &'static str> {
        let mut state = self.lock();
        if state.pipes.knows(&id) {
            return Err("the probe chose a pipe that is there already");
        }
        self.attach(&mut state, &id, End::Probe).map_err(|_| "too many pipes are open already")?;
        let pipe = Arc::new(Pipe::new(id.clone(), self.0.limits.window, Some(Native::new(number, orders))));
        state.open.insert(id, pipe.clone());
        self.0.observer.pipes_open(state.pipes.open_count());
        drop(state);
        self.0.scheduled.notify_one();
        Ok(pipe)
    }

    pub(crate) fn close_pipe(&self, pipe: &PipeId, cause: Cause) {
        let mut state = self.lock();
        self.step_pipes(&mut state, PipeInput::Close { pipe: pipe.clone(), cause });
    }

    pub(crate) fn detach(&self, pipe: &Arc<Pipe>, end: End) {
        let mut state = self.lock();
        // Of a pipe that was closed, and is open again under its old name, somebody else is at the end.
        if state.open.get(&pipe.id).is_some_and(|open| Arc::ptr_eq(open, pipe)) {
            self.step_pipes(&mut state, PipeInput::Detach { pipe: pipe.id.clone(), end });
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attach(&self, state: &mut State, pipe: &PipeId, end: End) -> Result<(), PipeRefusal> {
        let mut out = Vec::new();
        state.pipes.step((self.0.now)(), PipeInput::Attach { pipe: pipe.clone(), end }, &mut out);
        match out.as_slice() {
            [PipeEffect::Refused(refusal)] => {
                self.0.observer.pipe_refused(*refusal);
                Err(*refusal)
            }
            _ => Ok(()),
        }
    }

    fn step_calls(&self, state: &mut State, input: CallInput) {
        let mut out = Vec::new();
        state.calls.step((self.0.now)(), input, &mut out);
        for effect in out {
            match effect {
                CallEffect::Fail { call, failure } => {
                    if let Some(waiting) = state.waiting.remove(&call) {
                        // Whoever waited may have gone.
                        drop(waiting.send(Err(failure)));
                    }
                }
                CallEffect::Displaced { link } => {
                    if let Some(entry) = state.links.remove(&link) {
                        entry.displaced.cancel();
                    }
                }
                // Whoever made the call sends it; answers are delivered where they come in.
                CallEffect::Send { .. } | CallEffect::Deliver { .. } | CallEffect::Stray { .. } => {}
            }
        }
    }

    fn step_pipes(&self, state: &mut State, input: PipeInput) {
        let mut out = Vec::new();
        state.pipes.step((self.0.now)(), input, &mut out);
        for effect in out {
            if let PipeEffect::Closed { pipe, cause } = effect {
                if let Some(pipe) = state.open.remove(&pipe) {
                    pipe.close();
                }
                self.0.observer.pipe_closed(cause);
                self.0.observer.pipes_open(state.pipes.open_count());
            }
        }
    }
}
