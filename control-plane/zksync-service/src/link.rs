//! The driver of a link: one loop that owns the core, and one for each side that keeps a session, its watches and its epoch.

pub(crate) mod above;
mod convert;
mod events;
mod lag;
pub(crate) mod registry;
mod reserved;
mod side;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use zk::{Acl, Client};
use zksync::{Effect, Input, Link, LinkConfig, PerSide, Remembered, Side, Status};

pub use convert::node_from;
pub(crate) use convert::{acl_from, acl_to};
use lag::Carried;
pub use lag::{LagSummary, LagWindow};
pub use reserved::Reserved;

use crate::checkpoint::Checkpoint;
use crate::definition::{Definition, DefinitionError};
use crate::metrics::Metrics;
use crate::store::{Changes, Store, StoreError};
use crate::tree::AclNotes;
use events::Events;
use side::{SideLoop, SideNews, Watching};

/// Requests of operators that may wait.
const INBOX: usize = 64;
const TICK: Duration = Duration::from_millis(100);

/// Who reaches a link. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LinkHandle {
    inbox: mpsc::Sender<Message>,
    status: watch::Receiver<Arc<Status>>,
    lags: Arc<Mutex<PerSide<LagWindow>>>,
    /// Operations that were applied per second lately.
    pace: watch::Receiver<f64>,
    acls: AclNotes,
    stop: CancellationToken,
}

type Question = Box<dyn FnOnce(&mut Link) + Send>;

enum Message {
    Input(Input),
    Ask(Question),
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Message::Input(input) => f.debug_tuple("Input").field(input).finish(),
            Message::Ask(_) => f.write_str("Ask"),
        }
    }
}

/// The link has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the link has stopped")]
pub struct Stopped;

/// Why a link cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What it was told makes no sense.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    /// What it kept cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LinkHandle {
    /// How it stands, as of a moment ago.
    pub fn status(&self) -> Arc<Status> {
        self.status.borrow().clone()
    }

    /// How it stands, on every change.
    pub fn statuses(&self) -> watch::Receiver<Arc<Status>> {
        self.status.clone()
    }

    /// How long changes took lately, by the side they were applied on.
    pub fn lag(&self) -> PerSide<LagSummary> {
        let lags = self.lags.lock().unwrap_or_else(PoisonError::into_inner);
        PerSide { a: lags.a.summary(), b: lags.b.summary() }
    }

    /// Operations that were applied per second lately, on both sides.
    pub fn carried_per_second(&self) -> f64 {
        *self.pace.borrow()
    }

    /// The access control lists that it has read.
    pub fn acls(&self) -> AclNotes {
        self.acls.clone()
    }

    /// Ends it: its sessions close, and nothing is read or written any more.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Tells it something.
    ///
    /// # Errors
    /// When it has stopped.
    pub async fn tell(&self, command: zksync::Command) -> Result<(), Stopped> {
        self.inbox.send(Message::Input(Input::Command(command))).await.map_err(|_| Stopped)
    }

    /// Asks the core something.
    ///
    /// # Errors
    /// When it has stopped.
    pub async fn ask<T: Send + 'static>(&self, question: impl FnOnce(&mut Link) -> T + Send + 'static) -> Result<T, Stopped> {
        let (answer, answered) = oneshot::channel();
        let ask = Box::new(move |link: &mut Link| drop(answer.send(question(link))));
        self.inbox.send(Message::Ask(ask)).await.map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }
}

/// A link that is ready to run: the future ends when `stop` is cancelled, or with the reason why it cannot go on.
///
/// # Errors
/// When the definition makes no sense, or what was kept cannot be read.
pub fn start(
    definition: &Definition,
    store: Store,
    metrics: Metrics,
    leader: u64,
    stop: CancellationToken,
) -> Result<(LinkHandle, impl Future<Output = Result<(), StoreError>> + Send + use<>), StartError> {
    let config = definition.config()?;
    let options = PerSide { a: definition.a.options()?, b: definition.b.options()? };
    let kept = store.load(&definition.id)?;
    let link = Link::new(config.clone(), Remembered { paused: definition.paused, ..kept }, now());
    let (inbox, messages) = mpsc::channel(INBOX);
    let (tell_status, status) = watch::channel(Arc::new(link.status()));
    let lags: Arc<Mutex<PerSide<LagWindow>>> = Arc::default();
    let acls = AclNotes::default();
    let (tell_pace, pace) = watch::channel(0.0);
    let handle = LinkHandle { inbox, status, lags: lags.clone(), pace, acls: acls.clone(), stop: stop.clone() };
    let events = Arc::new(Events::default());
    let (news, from_sides) = mpsc::channel(INBOX);
    let reopen = PerSide { a: Arc::new(Notify::new()), b: Arc::new(Notify::new()) };
    let wants = PerSide { a: watch::Sender::new(link.wants_events_of(Side::A)), b: watch::Sender::new(link.wants_events_of(Side::B)) };
    let watching: PerSide<Watching> = PerSide::default();
    let names: PerSide<watch::Sender<Option<String>>> = PerSide { a: watch::Sender::new(None), b: watch::Sender::new(None) };
    let make = |side: Side| SideLoop {
        id: definition.id.clone(),
        side,
        options: options[side].clone(),
        others: options[side.other()].clone(),
        one_by_one: definition.ensemble(side).watch_one_by_one,
        config: config.clone(),
        reserved: Reserved::of(&definition.id),
        leader,
        events: events.clone(),
        news: news.clone(),
        reopen: reopen[side].clone(),
        wants_events: wants[side].subscribe(),
        watching: watching[side].clone(),
        name: names[side].clone(),
        others_name: names[side.other()].subscribe(),
    };
    let (side_a, side_b) = (make(Side::A), make(Side::B));
    let acl = if options.b.has_identity() { Acl::creator() } else { Acl::open() };
    let writer = watch::Sender::new(None);
    let checkpoint = definition.checkpoint.then(|| Checkpoint::new(&definition.id, store.clone(), writer.subscribe(), acl));
    let driver = Driver {
        id: definition.id.clone(),
        config: Arc::new(config),
        acls,
        link,
        store,
        checkpoint,
        writer,
        metrics,
        events,
        from_sides,
        messages,
        clients: PerSide { a: None, b: None },
        troubles: PerSide::default(),
        reserved: Reserved::of(&definition.id),
        reopen,
        wants,
        watching,
        under_way: FuturesUnordered::new(),
        tell_status,
        lags,
        carried: Carried::default(),
        tell_pace,
    };
    let run = async move {
        tokio::select! {
            ended = driver.run() => ended,
            () = Box::pin(side_a.run()) => Ok(()),
            () = Box::pin(side_b.run()) => Ok(()),
            () = stop.cancelled() => Ok(()),
        }
    };
    Ok((handle, run))
}

struct Driver {
    id: String,
    config: Arc<LinkConfig>,
    acls: AclNotes,
    link: Link,
    store: Store,
    checkpoint: Option<Checkpoint>,
    /// Our right to write the checkpoint.
    writer: watch::Sender<Option<(Client, i32)>>,
    metrics: Metrics,
    events: Arc<Events>,
    from_sides: mpsc::Receiver<SideNews>,
    messages: mpsc::Receiver<Message>,
    clients: PerSide<Option<Client>>,
    /// Why a side cannot be opened.
    troubles: PerSide<Option<String>>,
    reserved: Reserved,
    reopen: PerSide<Arc<Notify>>,
    wants: PerSide<watch::Sender<bool>>,
    watching: PerSide<Watching>,
    under_way: FuturesUnordered<BoxFuture<'static, Result<Option<Input>, StoreError>>>,
    tell_status: watch::Sender<Arc<Status>>,
    lags: Arc<Mutex<PerSide<LagWindow>>>,
    carried: Carried,
    tell_pace: watch::Sender<f64>,
}

impl Driver {
    async fn run(mut self) -> Result<(), StoreError> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let events = self.events.clone();
            tokio::select! {
                Some(news) = self.from_sides.recv() => self.on_news(news),
                Some(done) = self.under_way.next(), if !self.under_way.is_empty() => {
                    let input = done?;
                    // Events first: what was read comes after them.
                    self.on_events();
                    if let Some(input) = input {
                        self.step(input);
                    }
                }
                () = events.some() => self.on_events(),
                message = self.messages.recv() => match message {
                    Some(Message::Input(input)) => {
                        self.step(input);
                        self.publish();
                    }
                    Some(Message::Ask(question)) => question(&mut self.link),
                    // Nobody can reach it any more.
                    None => return Ok(()),
                },
                _ = tick.tick() => {
                    self.on_events();
                    self.step(Input::Tick);
                    self.publish();
                }
            }
        }
    }

    fn on_news(&mut self, news: SideNews) {
        match news {
            SideNews::Found(side, own, asked) => {
                self.step(Input::Found { side, own });
                // Whoever asked may be gone.
                let _ = asked.send(!self.link.is_halted());
            }
            SideNews::Up(client, input) => {
                if let Input::Up { side, opened } = &input {
                    self.troubles[*side] = None;
                    self.clients[*side] = Some(client.clone());
                    if *side == Side::B {
                        self.writer.send_replace(Some((client, opened.epoch)));
                        let (store, id, epoch, zxid) = (self.store.clone(), self.id.clone(), opened.epoch, opened.zxid);
                        self.under_way.push(Box::pin(async move {
                            blocking(move || store.note_epoch(&id, epoch, zxid)).await?;
                            Ok(None)
                        }));
                    }
                }
                self.step(input);
            }
            SideNews::Down(side, heard) => {
                if side == Side::B {
                    self.writer.send_replace(None);
                }
                self.step(Input::Down { side });
                // Whoever asked may be gone.
                let _ = heard.send(());
            }
            SideNews::Failed(side, why) => self.troubles[side] = Some(why),
            SideNews::Told(input) => {
                // What was heard before this is older than what it says of all that comes after it.
                self.on_events();
                self.step(input);
            }
        }
        self.publish();
    }

    fn on_events(&mut self) {
        let (changed, overflowed) = self.events.take();
        for (side, path) in changed {
            self.metrics.event(&self.id, side);
            self.step(Input::Changed { side, path });
        }
        if overflowed {
            tracing::warn!(link = self.id, "more changed paths than are kept: both sides are read again");
            self.reopen.a.notify_one();
            self.reopen.b.notify_one();
        }
    }

    fn step(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.link.step(now(), input, &mut effects);
        for effect in effects {
            self.perform(effect);
        }
    }

    fn publish(&mut self) {
        for side in Side::BOTH {
            let wants = self.link.wants_events_of(side);
            self.wants[side].send_if_modified(|wanted| std::mem::replace(wanted, wants) != wants);
        }
        let mut status = self.link.status();
        if status.reason.is_none() {
            let told = |side: Side| self.troubles[side].as_ref().map(|why| format!("{}: {why}", side.as_str().to_uppercase()));
            let troubles: Vec<String> = Side::BOTH.into_iter().filter_map(told).collect();
            status.reason = (!troubles.is_empty()).then(|| troubles.join("; "));
        }
        let of = |count: PerSide<u64>| count.a + count.b;
        let counters = &status.counters;
        let total = of(counters.created) + of(counters.updated) + of(counters.deleted) + of(counters.acl_changed);
        self.tell_pace.send_replace(self.carried.note(std::time::Instant::now(), total));
        let status = Arc::new(status);
        let lag = {
            let lags = self.lags.lock().unwrap_or_else(PoisonError::into_inner);
            PerSide { a: lags.a.summary(), b: lags.b.summary() }
        };
        let watches = PerSide { a: self.watching.a.count(), b: self.watching.b.count() };
        self.metrics.publish(&self.id, &status, &lag, &watches, self.store.values_unkept(&self.id));
        self.tell_status.send_replace(status);
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Read { side, id, reads, newest } => {
                let Some(client) = self.clients[side].clone() else { return };
                let reopen = self.reopen[side].clone();
                let (config, acls) = (self.config.clone(), self.acls.clone());
                self.under_way.push(Box::pin(async move {
                    let read = async {
                        if newest {
                            client.sync("/").await?;
                        }
                        client.read(&convert::reads(&reads)).await
                    };
                    match read.await {
                        Ok(answers) => {
                            for (want, answer) in reads.iter().zip(&answers) {
                                if let Ok(node) = answer {
                                    acls.note(&config, side, &want.path, node);
                                }
                            }
                            Ok(Some(Input::Read { side, id, answers: answers.into_iter().map(convert::reading).collect() }))
                        }
                        // The side's loop notices that the connection is gone, if it is; if it is not, it must begin anew all the same.
                        Err(error) => {
                            tracing::debug!(%error, side = side.as_str(), "a read was not answered");
                            reopen.notify_one();
                            Ok(None)
                        }
                    }
                }));
            }
            Effect::Write { side, sequence, epoch, ops, slot } => {
                let Some(client) = self.clients[side].clone() else { return };
                let (ops, places) = convert::transaction(&self.reserved, epoch, &ops, &slot);
                let metrics = self.metrics.clone();
                let id = self.id.clone();
                self.under_way.push(Box::pin(async move {
                    let began = tokio::time::Instant::now();
                    let done = client.multi(&ops).await;
                    metrics.transaction(&id, side, places.count(), began.elapsed());
                    let outcome = convert::read_outcome(done, &places);
                    if let zksync::Outcome::Refused { index: usize::MAX, .. } = outcome {
                        tokio::time::sleep(TICK).await;
                    }
                    Ok(Some(Input::Wrote { side, sequence, outcome }))
                }));
            }
            Effect::SetAcl { side, id, path, acl, aversion } => {
                let Some(client) = self.clients[side].clone() else { return };
                self.under_way.push(Box::pin(async move {
                    let done = client.set_acl(&path, &convert::acl_to(&acl), Some(aversion)).await;
                    Ok(Some(Input::AclSet { side, id, outcome: convert::acl_done(done) }))
                }));
            }
            Effect::Persist { number, bases, base_data, tombstones, conflicts, intents, resolved, applied, own, known_ms, braked } => {
                let (store, id, checkpoint) = (self.store.clone(), self.id.clone(), self.checkpoint.clone());
                self.under_way.push(Box::pin(async move {
                    let changes = Changes { bases, base_data, tombstones, conflicts, intents, resolved, applied, own, known_ms, braked };
                    let entry = blocking(move || store.save(&id, changes)).await?;
                    if let Some(checkpoint) = checkpoint {
                        checkpoint.append(&entry).await;
                    }
                    Ok(Some(Input::Persisted { number }))
                }));
                if let Some(checkpoint) = self.checkpoint.clone() {
                    self.under_way.push(Box::pin(async move {
                        if checkpoint.is_long().await {
                            checkpoint.compact().await;
                        }
                        Ok(None)
                    }));
                }
            }
            Effect::Resolved(resolution) => {
                tracing::info!(
                    link = self.id,
                    path = resolution.key.as_ref(),
                    kind = resolution.kind.as_str(),
                    winner = resolution.winner.as_str(),
                    ambiguous = resolution.ambiguous,
                    "a conflict was decided"
                );
            }
            Effect::Lags { side, lags } => {
                self.metrics.lags(&self.id, side, &lags);
                let mut windows = self.lags.lock().unwrap_or_else(PoisonError::into_inner);
                windows[side].add(&lags);
            }
            Effect::Reopen { side } => self.reopen[side].notify_one(),
            Effect::Halt(reason) => tracing::error!(link = self.id, %reason, "the link stops"),
        }
    }
}

async fn blocking<T: Send + 'static>(run: impl FnOnce() -> Result<T, StoreError> + Send + 'static) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(run).await {
        Ok(done) => done,
        Err(error) => Err(StoreError::Damaged { place: "the store".to_owned(), detail: error.to_string() }),
    }
}

/// The system's wall clock, as the cores take it.
pub fn now() -> base::Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    base::Timestamp::from_unix_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// Uses the configuration of a link outside its driver.
pub fn config_of(definition: &Definition) -> Result<LinkConfig, DefinitionError> {
    definition.config()
}
