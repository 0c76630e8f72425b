//! The loop around the core: messages become inputs, and effects are carried out, what must survive first.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use scheduler::mesos::{Call, Event};
use scheduler::words::{Answer, Outcome, ProbeRequest, Record, Subject, Ticket};
use scheduler::{Effect, Input, Scheduler, View};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::autoscale::Board;
use crate::events::Bus;
use crate::settings::Settings;
use crate::store::{Store, StoreError};

/// Messages that may wait. Beyond that, whoever sends waits.
const INBOX_CAPACITY: usize = 4_096;
/// Messages taken before what follows from them is settled.
const BATCH: usize = 256;
/// Calls that may wait for the master. Beyond that, the loop waits.
const CALLS_CAPACITY: usize = 16_384;
/// Probes that may wait; the core sends fewer at once.
const PROBES_CAPACITY: usize = 4_096;
/// How long the loop sleeps at most.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

type MakeInput = Box<dyn FnOnce(Ticket) -> Input + Send>;
type Look = Box<dyn FnOnce(&Scheduler, Timestamp) + Send>;

enum Message {
    Ask(MakeInput, oneshot::Sender<Answer>),
    Mesos(Event),
    Probed(Subject, Outcome),
    Look(Look),
}

/// The loop is gone: the process is about to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the scheduler has stopped")]
pub struct Stopped;

/// The way to the scheduler. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    inbox: mpsc::Sender<Message>,
    views: watch::Receiver<Arc<View>>,
    bus: Bus,
    autoscale: Board,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl Handle {
    /// The scheduler as it is now.
    pub fn view(&self) -> Arc<View> {
        self.views.borrow().clone()
    }

    /// What is told to whoever listens.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// What was decided of numbers of instances.
    pub(crate) fn autoscale(&self) -> &Board {
        &self.autoscale
    }

    /// Asks for something, and waits for what came of it.
    ///
    /// # Errors
    /// When the loop is gone.
    pub async fn ask(&self, input: impl FnOnce(Ticket) -> Input + Send + 'static) -> Result<Answer, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(Message::Ask(Box::new(input), reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Looks at the core itself, for what no view has.
    ///
    /// # Errors
    /// When the loop is gone.
    pub async fn look<T: Send + 'static>(&self, look: impl FnOnce(&Scheduler, Timestamp) -> T + Send + 'static) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        let look: Look = Box::new(move |core, now| {
            let _ = reply.send(look(core, now));
        });
        self.inbox.send(Message::Look(look)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Tells what the master told.
    ///
    /// # Errors
    /// When the loop is gone.
    pub async fn event(&self, event: Event) -> Result<(), Stopped> {
        self.inbox.send(Message::Mesos(event)).await.map_err(|_| Stopped)
    }

    /// Tells what came of a probe.
    ///
    /// # Errors
    /// When the loop is gone.
    pub async fn probed(&self, subject: Subject, outcome: Outcome) -> Result<(), Stopped> {
        self.inbox.send(Message::Probed(subject, outcome)).await.map_err(|_| Stopped)
    }
}

/// What the loop gives out besides answers.
#[derive(Debug)]
pub struct Outlets {
    /// For the master.
    pub calls: mpsc::Receiver<Call>,
    /// To be probed.
    pub probes: mpsc::Receiver<ProbeRequest>,
}

/// Reads the store, and gives back the way to the scheduler, what it gives out, and the loop that keeps it. The loop ends when `stopping` is
/// cancelled, or when nothing can be stored any more.
///
/// # Errors
/// When the store cannot be read.
pub fn start<C>(
    settings: &Settings,
    store: Arc<dyn Store>,
    now: C,
    stopping: CancellationToken,
) -> Result<(Handle, Outlets, impl Future<Output = ()> + Send + 'static), StoreError>
where
    C: Fn() -> Timestamp + Send + 'static,
{
    for remark in settings.remarks() {
        tracing::warn!("{remark}");
    }
    let core = Scheduler::new(settings.core.clone(), store.load()?, now());
    let (inbox, messages) = mpsc::channel(INBOX_CAPACITY);
    let (calls, calls_out) = mpsc::channel(CALLS_CAPACITY);
    let (probes, probes_out) = mpsc::channel(PROBES_CAPACITY);
    let (views, views_out) = watch::channel(Arc::new(core.view()));
    let bus = Bus::new(settings.event_stream_max_outstanding_messages);
    let handle = Handle { inbox, views: views_out, bus: bus.clone(), autoscale: Board::default() };
    let driver = Driver { core, store, now, messages, views, calls, probes, bus, waiting: BTreeMap::new(), tickets: 0, stopping };
    Ok((handle, Outlets { calls: calls_out, probes: probes_out }, driver.run()))
}

struct Driver<C> {
    core: Scheduler,
    store: Arc<dyn Store>,
    now: C,
    messages: mpsc::Receiver<Message>,
    views: watch::Sender<Arc<View>>,
    calls: mpsc::Sender<Call>,
    probes: mpsc::Sender<ProbeRequest>,
    bus: Bus,
    waiting: BTreeMap<Ticket, oneshot::Sender<Answer>>,
    tickets: u64,
    stopping: CancellationToken,
}

impl<C: Fn() -> Timestamp> Driver<C> {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut effects = Vec::new();
        loop {
            let now = (self.now)();
            let until_due = self.core.next_deadline().map_or(LONGEST_SLEEP, |at| at.since(now)).min(LONGEST_SLEEP);
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => return,
                count = self.messages.recv_many(&mut batch, BATCH) => if count == 0 { return },
                () = tokio::time::sleep(until_due) => {}
            }
            let now = (self.now)();
            let mut looks = Vec::new();
            for message in batch.drain(..) {
                match message {
                    Message::Ask(make, reply) => {
                        self.tickets += 1;
                        let ticket = Ticket(self.tickets);
                        self.waiting.insert(ticket, reply);
                        self.core.handle(now, make(ticket), &mut effects);
                    }
                    Message::Mesos(event) => self.core.handle(now, Input::Mesos(event), &mut effects),
                    Message::Probed(subject, outcome) => self.core.handle(now, Input::Probed { subject, outcome }, &mut effects),
                    Message::Look(look) => looks.push(look),
                }
            }
            self.core.settle(now, &mut effects);
            if !effects.is_empty() && !self.carry_out(&mut effects).await {
                return;
            }
            looks.into_iter().for_each(|look| look(&self.core, now));
        }
    }

    /// Stores what must survive; only then does anybody hear of anything. False when it cannot be stored.
    async fn carry_out(&mut self, effects: &mut Vec<Effect>) -> bool {
        let mut records: Vec<Record> = Vec::new();
        effects.retain(|effect| match effect {
            Effect::Persist(record) => {
                records.push(record.clone());
                false
            }
            _ => true,
        });
        if !records.is_empty() {
            let store = self.store.clone();
            match tokio::task::spawn_blocking(move || store.write(&records)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    // What is in memory is ahead of what would survive: begin again from the store.
                    tracing::error!(error = &error as &dyn std::error::Error, "the scheduler's state cannot be stored");
                    return false;
                }
                Err(error) => {
                    tracing::error!(%error, "storing the scheduler's state failed");
                    return false;
                }
            }
        }
        self.views.send_replace(Arc::new(self.core.view()));
        for effect in effects.drain(..) {
            match effect {
                Effect::Persist(_) => {}
                Effect::Call(call) => {
                    if self.calls.send(call).await.is_err() {
                        return false;
                    }
                }
                Effect::Reply(ticket, answer) => {
                    if let Some(reply) = self.waiting.remove(&ticket) {
                        let _ = reply.send(answer);
                    }
                }
                Effect::Publish(event) => self.bus.publish(&event),
                Effect::Probe(request) => {
                    if self.probes.send(request).await.is_err() {
                        return false;
                    }
                }
            }
        }
        true
    }
}
