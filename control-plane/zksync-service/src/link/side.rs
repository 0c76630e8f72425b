use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use zk::{Acl, Client, CreateKind, Error, Options, Read, Session, SessionState, Stat, TreeEvent, TreeWatch, WatchCount, WatchMode};
use zksync::{Clock, FoundSlot, Input, LinkConfig, Opened, RESERVED, SLOTS, Side, Slot};

use super::events::Events;
use super::registry::{self, Claim};
use super::{Reserved, above};

/// Before a side that could not be opened is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// The same, when it was refused again and again.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Between two looks at whether a session is connected again.
const LOOK: Duration = Duration::from_millis(20);
/// Between two comparisons of clocks.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Slots that are read in one request: full ones have 50 KB.
const SLOTS_AT_ONCE: usize = 16;
/// Comparisons of which the best counts.
const HEARTBEATS_KEPT: usize = 16;

/// What a side tells the driver.
#[derive(Debug)]
pub(super) enum SideNews {
    /// The newest transaction that wrote a znode of ours there; answered by whether anything may be written.
    Found(Side, i64, oneshot::Sender<bool>),
    /// It is connected, watched, and its epoch is ours.
    Up(Client, Input),
    /// It is not up any more; answered when the core knows.
    Down(Side, oneshot::Sender<()>),
    /// It cannot be opened for this reason, and is tried again.
    Failed(Side, String),
    /// Anything else.
    Told(Input),
}

/// Keeps one side connected, watched and fenced.
#[derive(Debug)]
pub(super) struct SideLoop {
    /// The link.
    pub(super) id: String,
    pub(super) side: Side,
    pub(super) options: Options,
    /// How to reach the other side, to look at what is above its mapped roots.
    pub(super) others: Options,
    pub(super) one_by_one: bool,
    pub(super) config: LinkConfig,
    pub(super) reserved: Reserved,
    pub(super) leader: u64,
    pub(super) events: Arc<Events>,
    pub(super) news: mpsc::Sender<SideNews>,
    pub(super) reopen: Arc<Notify>,
    pub(super) wants_events: watch::Receiver<bool>,
    pub(super) watching: Watching,
    /// What this side's ensemble is called, once that is known.
    pub(super) name: watch::Sender<Option<String>>,
    /// What the other side's is called.
    pub(super) others_name: watch::Receiver<Option<String>>,
}

/// What is watched on a side right now. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Watching(Arc<Mutex<Vec<WatchCount>>>);

impl Watching {
    fn set(&self, watches: &[TreeWatch]) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = watches.iter().map(TreeWatch::count).collect();
    }

    /// Watches that are set.
    pub(super) fn count(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(WatchCount::get).sum()
    }
}

enum NotOpened {
    Fenced,
    /// The link has stopped.
    Halted,
    Failed(Error),
}

impl From<Error> for NotOpened {
    fn from(error: Error) -> Self {
        NotOpened::Failed(error)
    }
}

impl SideLoop {
    pub(super) async fn run(mut self) {
        let session = Session::open(self.options.clone());
        let mut state = session.state();
        // The epoch was ours before: should it not be now, another leader has taken over.
        let mut held = false;
        let current = Arc::new(AtomicU64::new(0));
        let mut watches: Vec<TreeWatch> = Vec::new();
        let side = self.side.as_str();
        let mut pause = RETRY;
        loop {
            let opened = match &*state.borrow_and_update() {
                SessionState::Open(client, _) => Ok(client.clone()),
                SessionState::Connecting(error) => Err(error.clone()),
            };
            let client = match opened {
                Ok(client) => client,
                Err(error) => {
                    tracing::info!(side, error, "no session yet");
                    if let Some(error) = error {
                        self.failed(format!("no session: {error}")).await;
                    }
                    if state.changed().await.is_err() {
                        return;
                    }
                    continue;
                }
            };
            while !client.is_over() {
                if !client.is_connected() {
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
                let lost = client.lost();
                let generation = current.fetch_add(1, Ordering::SeqCst) + 1;
                match self.open(&client, held, generation, &current).await {
                    Ok((input, new_watches)) => {
                        held = true;
                        pause = RETRY;
                        // The old ones go only now, so that nothing is unwatched in between.
                        watches = new_watches;
                        self.watching.set(&watches);
                        if self.news.send(SideNews::Up(client.clone(), input)).await.is_err() {
                            return;
                        }
                        tracing::info!(side, session = format!("{:#x}", client.session_id()), "open");
                    }
                    Err(NotOpened::Halted) => return std::future::pending().await,
                    Err(NotOpened::Fenced) => {
                        let _ = self.news.send(SideNews::Told(Input::Fenced { side: self.side })).await;
                        return std::future::pending().await;
                    }
                    Err(NotOpened::Failed(error)) => {
                        tracing::info!(side, %error, "could not be opened, trying again");
                        self.failed(error.to_string()).await;
                        tokio::time::sleep(pause).await;
                        // What the ensemble refuses it will go on refusing until somebody has done something about it.
                        pause = if error.is_ambiguous() { RETRY } else { (pause * 2).min(RETRY_MAX) };
                        continue;
                    }
                }
                let own = self.name.borrow().clone();
                let known = (own, self.others.clone());
                // What the other side is called may have become known since the claim was entered: it is entered once more in any case.
                let claim = Claim { peer: None, ..self.claim() };
                let refused = registry::complete(client.clone(), claim, known, self.others_name.clone());
                let is_in_order = watches.iter().all(|watch| watch.recursive);
                let heartbeats = compare_clocks(self.side, client.clone(), (self.reserved.heartbeat(), is_in_order), self.news.clone());
                tokio::select! {
                    () = lost => tracing::info!(side, "connection lost"),
                    () = self.reopen.notified() => tracing::debug!(side, "opened again"),
                    _ = self.wants_events.changed() => {}
                    () = heartbeats => {}
                    why = refused => {
                        tracing::warn!(side, why, "cannot go on");
                        self.failed(why).await;
                    }
                }
                let (heard, heeded) = oneshot::channel();
                if self.news.send(SideNews::Down(self.side, heard)).await.is_err() {
                    return;
                }
                // What is read until then was read before the epoch is taken, and tells of nothing newer.
                let _ = heeded.await;
            }
            watches.clear();
            self.watching.set(&watches);
            if state.changed().await.is_err() {
                return;
            }
        }
    }

    /// What keeps the side from being opened is told to whoever looks at the link, and not to the log alone.
    async fn failed(&self, why: String) {
        // Nobody listens any more when the link ends.
        let _ = self.news.send(SideNews::Failed(self.side, why)).await;
    }

    /// Watches first, then takes the epoch, then reads the slots: what was sent before the epoch was taken is in the slots, or will never be
    /// applied.
    async fn open(
        &mut self,
        client: &Client,
        held: bool,
        generation: u64,
        current: &Arc<AtomicU64>,
    ) -> Result<(Input, Vec<TreeWatch>), NotOpened> {
        self.prepare(client, held).await?;
        let since = super::now();
        let mut watches = Vec::new();
        if *self.wants_events.borrow_and_update() {
            let mode = if self.one_by_one { WatchMode::OneByOne } else { WatchMode::Auto };
            for root in self.config.mapping.roots(self.side) {
                let (events, side, current) = (self.events.clone(), self.side, current.clone());
                let watch = client.watch_tree(root, mode, move |event| {
                    // A watch of before a reconnect may still talk; it has nothing to say any more.
                    if let TreeEvent::Changed(path) = event
                        && current.load(Ordering::SeqCst) == generation
                    {
                        events.add(side, path);
                    }
                });
                watches.push(watch.await?);
            }
        }
        client.sync("/").await?;
        let (epoch, clock) = self.take_epoch(client, held).await?;
        let mut slots = Vec::new();
        let places: Vec<u64> = (0..SLOTS).collect();
        for places in places.chunks(SLOTS_AT_ONCE) {
            let read = |place: &u64| Read { path: self.reserved.slot(*place), children: false, acl: false };
            for node in client.read(&places.iter().map(read).collect::<Vec<_>>()).await? {
                let node = node?;
                if let Some(slot) = Slot::decode(&node.data) {
                    slots.push(FoundSlot { slot, zxid: node.stat.mzxid });
                }
            }
        }
        let (session, zxid) = (client.session_id(), epoch.mzxid);
        let opened = Opened { session, epoch: epoch.version, zxid, since, clock: Some(clock), slots };
        Ok((Input::Up { side: self.side, opened }, watches))
    }

    /// Makes our own znodes, and those above the mapped roots. Before any of ours is written it is asked whether this still is the ensemble that it was:
    /// one that went back in time has lost what we wrote there last, and what we write now must not hide that from whoever comes after us.
    async fn prepare(&self, client: &Client, held: bool) -> Result<(), NotOpened> {
        // Whichever server it is, it has everything that was answered by now.
        client.sync("/").await?;
        let chroot = self.options.chroot();
        if !chroot.is_empty() && client.stat("/").await?.is_none() {
            return Err(Error::Refused(format!("the chroot {chroot} does not exist")).into());
        }
        let has_identity = self.options.has_identity();
        let ours = |error: Error| match error {
            Error::NoAuth | Error::InvalidAcl => Error::Refused(format!("our own znodes below {RESERVED}: {error}")),
            error => error,
        };
        let called = self.name.borrow().clone();
        let mut name = registry::name(client, self.leader, has_identity).await.map_err(ours)?;
        // Told before it is asked what the other side is called: so one of two that are the same notices.
        self.name.send_if_modified(|known| std::mem::replace(known, name.clone()) != name);
        let mut claim = self.claim();
        if self.side == Side::B && claim.peer.is_none() {
            // Before anything of this link is made on an ensemble that may be a copy.
            claim.peer = registry::nonce_of(&self.others).await;
        }
        if name.is_some() && name == claim.peer {
            let is_ours = held && called == name;
            name = Some(registry::apart(client, &claim, &self.others, self.leader, is_ours).await.map_err(ours)?);
            self.name.send_if_modified(|known| std::mem::replace(known, name.clone()) != name);
        }
        registry::enter(client, &mut claim, &self.others).await.map_err(ours)?;
        above::make_ours(client, &self.reserved, &self.reserved.slots(), has_identity).await.map_err(ours)?;
        // Where we have an identity, nobody else may move what fences us.
        let acl = if has_identity { Acl::creator() } else { Acl::open() };
        let places = (0..SLOTS).map(|place| self.reserved.slot(place));
        let wanted: Vec<String> = places.chain([self.reserved.epoch(), self.reserved.heartbeat()]).collect();
        let reads: Vec<Read> = wanted.iter().map(|path| Read { path: path.clone(), children: false, acl: false }).collect();
        let mut missing = Vec::new();
        let mut own = 0;
        for some in reads.chunks(SLOTS_AT_ONCE) {
            for (read, node) in some.iter().zip(client.read(some).await?) {
                match node {
                    Ok(node) => own = own.max(node.stat.mzxid),
                    Err(Error::NoNode) => missing.push(read.path.clone()),
                    // It cannot be believed to be newer than it is.
                    Err(error) => return Err(ours(error).into()),
                }
            }
        }
        let (ask, answer) = oneshot::channel();
        // Nobody answers any more when the link ends.
        let _ = self.news.send(SideNews::Found(self.side, own, ask)).await;
        if !answer.await.unwrap_or(false) {
            return Err(NotOpened::Halted);
        }
        // None waits for another: the first time it is more than a hundred.
        let made = missing.iter().map(|path| client.create(path, b"", &acl, CreateKind::Persistent));
        for made in futures::future::join_all(made).await {
            match made {
                Ok(_) | Err(Error::NodeExists) => {}
                Err(error) => return Err(ours(error).into()),
            }
        }
        Ok(above::make_above(client, &self.config, self.side, &self.others).await?)
    }

    /// What the link claims of this side's ensemble.
    fn claim(&self) -> Claim {
        Claim {
            id: self.id.clone(),
            side: self.side,
            roots: self.config.mapping.roots(self.side).map(str::to_owned).collect(),
            chroot: self.options.chroot().to_owned(),
            peer: self.others_name.borrow().clone(),
            has_identity: self.options.has_identity(),
            leader: Some(self.leader),
        }
    }

    /// Makes the epoch ours; its write tells what the side's clock is off by.
    async fn take_epoch(&self, client: &Client, held: bool) -> Result<(Stat, Clock), NotOpened> {
        let mine = Reserved::epoch_of(self.leader);
        let (data, stat) = client.get(&self.reserved.epoch()).await?;
        // An empty one was made just now: it is not another leader who took it, but the ensemble that has lost it, which the core notices.
        if held && !data.is_empty() && data != mine.as_bytes() {
            return Err(NotOpened::Fenced);
        }
        let before = super::now();
        match client.set(&self.reserved.epoch(), mine.as_bytes(), Some(stat.version)).await {
            Ok(stat) => Ok((stat, clock_of(&stat, before, super::now()))),
            Err(Error::BadVersion) if held => Err(NotOpened::Fenced),
            Err(error) => Err(error.into()),
        }
    }
}

/// What a write that was made between two moments of our clock tells of the ensemble's: the middle of its round trip is when it was made, give or
/// take half.
fn clock_of(stat: &Stat, before: base::Timestamp, after: base::Timestamp) -> Clock {
    let half = after.since(before) / 2;
    let middle = i64::try_from((before + half).unix_millis()).unwrap_or(i64::MAX);
    let error_ms = u64::try_from(half.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
    Clock { offset_ms: stat.mtime - middle, error_ms }
}

/// Compares the ensemble's clock with ours, again and again. What one session is told comes in the order of the ensemble's transactions: once it is
/// answered, all events of before it was sent are here. They reach the core by another way than the answer does: it is told of the answer before, which
/// is older by a beat than any event that is still on that way. Watches that are set one by one tell of a change only when they have looked what it is,
/// one after the other, so an answer overtakes them: then nothing is said of when events are here (not `is_in_order`).
async fn compare_clocks(side: Side, client: Client, (path, is_in_order): (String, bool), news: mpsc::Sender<SideNews>) {
    let mut kept: std::collections::VecDeque<Clock> = std::collections::VecDeque::new();
    let mut answered = None;
    loop {
        let before = super::now();
        let Ok(stat) = client.set(&path, b"", None).await else { return };
        let clock = clock_of(&stat, before, super::now());
        if kept.len() >= HEARTBEATS_KEPT {
            kept.pop_front();
        }
        kept.push_back(clock);
        if let Some(clock) = kept.iter().min_by_key(|clock| clock.error_ms).copied()
            && news.send(SideNews::Told(Input::Clock { side, clock, zxid: stat.mzxid, sent: answered.unwrap_or_default() })).await.is_err()
        {
            return;
        }
        answered = Some(before).filter(|_| is_in_order);
        tokio::time::sleep(HEARTBEAT).await;
    }
}
