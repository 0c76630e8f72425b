//! The loop that owns the master: messages become inputs, effects become answers, events, commands and writes.
//!
//! Bounded everywhere. Whoever sends waits while the inbox is full. A framework, an operator's stream or an agent that does not take what is sent
//! to it loses its connection when its own queue is full, and is told of everything anew when it comes back; nobody else notices.

mod handle;
mod outbox;
mod queues;
mod timer;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use master::{Effect, Input, Master, Refusal, Registry, Reply, ReplySlot, StreamId};
use mesos_proto::v1;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub(crate) use handle::{Gauges, Message, View, Watch};
pub use handle::{MasterHandle, Stopped};
pub use outbox::FrameworkStream;
pub(crate) use outbox::{FrameworkOutbox, LinkOutbox, LinkStream, StreamItem};
pub(crate) use queues::{Published, Subscribers};

use crate::clock::Clock;
use crate::leadership::{Leadership, Status};
use crate::store::RegistryStore;

/// Messages that may wait. Beyond that, whoever sends waits.
const INBOX_CAPACITY: usize = 4_096;
/// Messages handled before time is looked at again, so that a flood cannot hold ticks back.
const BATCH: usize = 256;
/// The shortest sleep before a tick, so that a core that is always due cannot starve the process.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

/// What a master is made of.
#[derive(Debug)]
pub struct Parts {
    /// As in Mesos's flags.
    pub config: master::Config,
    /// What outlives it.
    pub store: Arc<dyn RegistryStore>,
    /// How long reading what is stored may take (`--registry_fetch_timeout`).
    pub fetch_timeout: Duration,
    /// How long a write may take before the master gives up and ends (`--registry_store_timeout`).
    pub store_timeout: Duration,
    /// Who leads; the master begins when this says so.
    pub leadership: watch::Receiver<Leadership>,
    /// The time.
    pub clock: Clock,
    /// At most so many operators may watch the event stream (`--max_operator_event_stream_subscribers`).
    pub max_subscribers: usize,
    /// Cancelled when the process stops.
    pub stopping: CancellationToken,
}

/// Makes the way to the master and the loop that runs it. The loop ends when the process stops, when the lead is lost and when the master cannot
/// go on; in the last two cases the process has to end, because another master takes over.
pub fn start(parts: Parts) -> (MasterHandle, impl Future<Output = ()> + Send + 'static) {
    let (inbox, messages) = mpsc::channel(INBOX_CAPACITY);
    let (closings, closed) = mpsc::unbounded_channel();
    let (status, status_view) = watch::channel(Status::Nobody);
    let gauges = Arc::new(Gauges::default());
    let handle = MasterHandle::new(inbox, closings, status_view, gauges.clone(), parts.config.info.clone());
    (handle, run(parts, messages, closed, status, gauges))
}

/// Ends of connections, told by whoever had them. As many as there were connections at most.
#[derive(Debug)]
pub(crate) enum Closed {
    Stream(StreamId),
    Link(master::LinkId),
}

async fn run(
    mut parts: Parts,
    messages: mpsc::Receiver<Message>,
    closed: mpsc::UnboundedReceiver<Closed>,
    status: watch::Sender<Status>,
    gauges: Arc<Gauges>,
) {
    let stopping = parts.stopping.clone();
    let elected = tokio::select! {
        elected = until_elected(&mut parts.leadership, &status) => elected,
        () = stopping.cancelled() => return,
    };
    if !elected {
        return;
    }
    status.send_replace(Status::Recovering);
    let (store, begun) = (parts.store.clone(), Instant::now());
    let loaded = timeout(parts.fetch_timeout, tokio::task::spawn_blocking(move || store.load())).await;
    gauges.fetches.record(begun.elapsed());
    let registry = match loaded {
        Ok(Ok(Ok(records))) => Registry::load(records).map_err(|error| error.to_string()),
        Ok(Ok(Err(error))) => Err(error.to_string()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("reading it took longer than {:?} (--registry_fetch_timeout)", parts.fetch_timeout)),
    };
    let registry = match registry {
        Ok(registry) => registry,
        Err(error) => {
            tracing::error!(%error, "the registry cannot be read; the master does not begin to lead");
            return;
        }
    };
    let now = parts.clock.now();
    tracing::info!(id = parts.config.info.id, agents = registry.agents.len(), "the Mesos master leads");
    gauges.elected_at.store(now.unix_nanos(), Ordering::Relaxed);
    let core = Master::new(parts.config, registry, now);
    let driver = Driver {
        core,
        store: parts.store,
        store_timeout: parts.store_timeout,
        clock: parts.clock,
        subscribers: Subscribers::new(parts.max_subscribers),
        gauges,
        streams: HashMap::new(),
        links: HashMap::new(),
        replies: HashMap::new(),
        next_slot: 0,
        version: 0,
        effects: Vec::new(),
        write: None,
        over: false,
    };
    status.send_replace(Status::Serving);
    tokio::select! {
        () = driver.run(messages, closed) => {}
        () = until_deposed(&mut parts.leadership) => tracing::warn!("the lead is gone: this master ends, another takes over"),
        () = stopping.cancelled() => {}
    }
    status.send_replace(Status::Nobody);
}

/// Returns `true` when this master leads; `false` when nobody decides any more.
async fn until_elected(leadership: &mut watch::Receiver<Leadership>, status: &watch::Sender<Status>) -> bool {
    loop {
        match &*leadership.borrow_and_update() {
            Leadership::Leading => return true,
            Leadership::Led(leader) => status.send_replace(Status::Led(leader.clone())),
            Leadership::Nobody => status.send_replace(Status::Nobody),
        };
        if leadership.changed().await.is_err() {
            return false;
        }
    }
}

async fn until_deposed(leadership: &mut watch::Receiver<Leadership>) {
    if leadership.wait_for(|it| *it != Leadership::Leading).await.is_err() {
        // Nobody decides any more: as on a single node, whoever leads keeps leading.
        std::future::pending::<()>().await;
    }
}

struct Driver {
    core: Master,
    store: Arc<dyn RegistryStore>,
    store_timeout: Duration,
    clock: Clock,
    subscribers: Subscribers,
    gauges: Arc<Gauges>,
    streams: HashMap<StreamId, FrameworkOutbox>,
    links: HashMap<master::LinkId, LinkOutbox>,
    replies: HashMap<ReplySlot, oneshot::Sender<Reply>>,
    next_slot: u64,
    /// Changes whenever the state may have changed.
    version: u64,
    effects: Vec<Effect>,
    /// The write that is under way; its number and, when it failed, why.
    write: Option<BoxFuture<'static, (u64, Result<(), String>)>>,
    /// The core asked for the end.
    over: bool,
}

impl Driver {
    async fn run(mut self, mut inbox: mpsc::Receiver<Message>, mut closed: mpsc::UnboundedReceiver<Closed>) {
        let mut messages = Vec::with_capacity(BATCH);
        let mut ends = Vec::with_capacity(BATCH);
        self.step(Input::Watched { by_anybody: false });
        // A new leader has things to do at once.
        self.step(Input::Tick);
        while !self.over {
            let due = self.due();
            let write = async {
                match &mut self.write {
                    Some(write) => write.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                (number, outcome) = write => {
                    self.write = None;
                    self.step(match outcome {
                        Ok(()) => Input::Stored { write: number },
                        Err(reason) => Input::StoreFailed { reason },
                    });
                }
                _ = closed.recv_many(&mut ends, BATCH) => ends.drain(..).for_each(|end| self.on_closed(end)),
                count = inbox.recv_many(&mut messages, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    messages.drain(..).for_each(|message| self.on_message(message));
                    // Whatever the flood, time passes.
                    if self.core.next_deadline().is_some_and(|at| at <= self.clock.now()) {
                        self.step(Input::Tick);
                    }
                }
                () = due => self.step(Input::Tick),
            }
            self.gauges.streams.store(self.streams.len() as u64, Ordering::Relaxed);
            self.gauges.links.store(self.links.len() as u64, Ordering::Relaxed);
            self.gauges.subscribers.store(self.subscribers.len() as u64, Ordering::Relaxed);
        }
    }

    fn due(&self) -> impl Future<Output = ()> + use<> {
        let span = self.core.next_deadline().map(|at| at.since(self.clock.now()).max(SHORTEST_SLEEP));
        async move {
            match span {
                Some(span) => tokio::time::sleep(span).await,
                None => std::future::pending().await,
            }
        }
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Subscribe { stream, principal, subscribe, outbox } => {
                let gone = outbox.is_gone();
                self.streams.insert(stream.clone(), outbox);
                self.step(Input::Subscribe { stream: stream.clone(), principal, subscribe });
                // Its end may have been told before its beginning.
                if gone {
                    self.on_closed(Closed::Stream(stream));
                }
            }
            Message::Call { stream, principal, call, reply } => {
                let slot = self.slot(reply);
                self.step(Input::Call { reply: slot, stream, principal, call });
            }
            Message::Operator { principal, call, reply } => {
                let slot = self.slot(reply);
                self.step(Input::Operator { reply: slot, principal, call });
            }
            Message::Register { link, register, outbox } => {
                let gone = outbox.is_gone();
                self.links.insert(link, outbox);
                self.step(Input::Register { link, register });
                if gone {
                    self.on_closed(Closed::Link(link));
                }
            }
            Message::Agent { link, message } => {
                if self.links.contains_key(&link) {
                    self.step(Input::Agent { link, message });
                }
            }
            Message::Whitelist { hostnames } => self.step(Input::Whitelist { hostnames }),
            Message::Read { reply } => {
                let _ = reply.send(self.view());
            }
            Message::Watch { reply } => {
                let events = self.subscribers.add();
                if self.subscribers.len() == 1 {
                    self.step(Input::Watched { by_anybody: true });
                }
                let _ = reply.send(Watch { view: self.view(), events });
            }
        }
    }

    fn on_closed(&mut self, closed: Closed) {
        match closed {
            // What the core itself closed is not told back to it.
            Closed::Stream(stream) => {
                if self.streams.remove(&stream).is_some() {
                    self.step(Input::StreamClosed { stream });
                }
            }
            Closed::Link(link) => {
                if self.links.remove(&link).is_some() {
                    self.step(Input::LinkClosed { link });
                }
            }
        }
    }

    fn slot(&mut self, reply: oneshot::Sender<Reply>) -> ReplySlot {
        self.next_slot += 1;
        self.replies.insert(ReplySlot(self.next_slot), reply);
        ReplySlot(self.next_slot)
    }

    fn view(&self) -> Arc<View> {
        Arc::new(View { snapshot: self.core.snapshot(), version: self.version })
    }

    /// One step, and those that its effects lead to: a queue that is full breaks a connection, which is an input again.
    fn step(&mut self, input: Input) {
        let begun = Instant::now();
        let is_tick = matches!(input, Input::Tick);
        if is_tick && let Some(due) = self.core.next_deadline() {
            self.gauges.delays.record(self.clock.now().since(due));
        }
        let mut next = vec![input];
        while let Some(input) = next.pop() {
            self.version += 1;
            let mut effects = std::mem::take(&mut self.effects);
            self.core.step(self.clock.now(), input, &mut effects);
            for effect in effects.drain(..) {
                self.perform(effect, &mut next);
            }
            self.effects = effects;
        }
        if is_tick {
            self.gauges.ticks.record(begun.elapsed());
        }
        let spent = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.gauges.busy_nanos.fetch_add(spent, Ordering::Relaxed);
        self.gauges.steps.fetch_add(1, Ordering::Relaxed);
    }

    fn perform(&mut self, effect: Effect, next: &mut Vec<Input>) {
        match effect {
            Effect::Event { stream, event } => {
                let full = self.streams.get(&stream).is_some_and(|outbox| !outbox.send(event));
                if full {
                    self.streams.remove(&stream);
                    self.gauges.streams_overflowed.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%stream, "a framework does not take its events: its stream is closed");
                    next.push(Input::StreamClosed { stream });
                }
            }
            Effect::CloseStream { stream } => {
                self.streams.remove(&stream);
            }
            Effect::Agent { link, message } => {
                let full = self.links.get(&link).is_some_and(|outbox| !outbox.send(message));
                if full {
                    self.links.remove(&link);
                    self.gauges.links_overflowed.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(link = link.0, "an agent does not take its commands: its connection is closed");
                    next.push(Input::LinkClosed { link });
                }
            }
            Effect::CloseLink { link } => {
                self.links.remove(&link);
            }
            Effect::Persist { write, records } => {
                let (store, patience) = (self.store.clone(), self.store_timeout);
                let writing = tokio::task::spawn_blocking(move || store.write(&records).map_err(|error| error.to_string()));
                let begun = Instant::now();
                let gauges = self.gauges.clone();
                self.write = Some(
                    async move {
                        let outcome = match timeout(patience, writing).await {
                            Ok(Ok(outcome)) => outcome,
                            Ok(Err(error)) => Err(error.to_string()),
                            Err(_) => Err(format!("a write took longer than {patience:?}")),
                        };
                        gauges.writes.record(begun.elapsed());
                        (write, outcome)
                    }
                    .boxed(),
                );
            }
            Effect::Reply { slot, reply } => {
                if let Some(asker) = self.replies.remove(&slot) {
                    let _ = asker.send(reply);
                }
            }
            Effect::Publish(event) => {
                if !self.subscribers.publish(event) {
                    next.push(Input::Watched { by_anybody: false });
                }
            }
            Effect::Abort { reason } => {
                tracing::error!(reason, "the master cannot go on: this process ends, another master takes over");
                self.over = true;
                for (_, asker) in self.replies.drain() {
                    let _ = asker.send(Reply::Refused { kind: Refusal::Unavailable, message: "Master is shutting down".to_owned() });
                }
            }
        }
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("streams", &self.streams.len()).field("links", &self.links.len()).finish_non_exhaustive()
    }
}

/// An event as the operator API's stream has it.
pub(crate) type OperatorEvent = v1::master::Event;
/// Counters by name.
pub(crate) type Named = BTreeMap<String, f64>;
