use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use zk::{Acl, Client, CreateKind, Error, Options, Read, Session, SessionState, TreeEvent, TreeWatch, WatchCount, WatchMode};
use zksync::{Clock, FoundSlot, Input, LinkConfig, SLOTS, Side, Slot};

use super::Reserved;
use super::events::Events;

/// Before a side that could not be opened is tried again.
const RETRY: Duration = Duration::from_millis(200);
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
    /// It is connected, watched, and its epoch is ours.
    Up(Client, Input),
    /// It is not up any more; answered when the core knows.
    Down(Side, oneshot::Sender<()>),
    /// Anything else.
    Told(Input),
}

/// Keeps one side connected, watched and fenced.
#[derive(Debug)]
pub(super) struct SideLoop {
    pub(super) side: Side,
    pub(super) options: Options,
    pub(super) one_by_one: bool,
    pub(super) config: LinkConfig,
    pub(super) reserved: Reserved,
    pub(super) leader: u64,
    pub(super) events: Arc<Events>,
    pub(super) news: mpsc::Sender<SideNews>,
    pub(super) reopen: Arc<Notify>,
    pub(super) wants_events: watch::Receiver<bool>,
    pub(super) watching: Watching,
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
        loop {
            let client = match &*state.borrow_and_update() {
                SessionState::Open(client, _) => Some(client.clone()),
                SessionState::Connecting(error) => {
                    tracing::info!(side, error, "no session yet");
                    None
                }
            };
            let Some(client) = client else {
                if state.changed().await.is_err() {
                    return;
                }
                continue;
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
                        // The old ones go only now, so that nothing is unwatched in between.
                        watches = new_watches;
                        self.watching.set(&watches);
                        if self.news.send(SideNews::Up(client.clone(), input)).await.is_err() {
                            return;
                        }
                        tracing::info!(side, session = format!("{:#x}", client.session_id()), "open");
                    }
                    Err(NotOpened::Fenced) => {
                        let _ = self.news.send(SideNews::Told(Input::Fenced { side: self.side })).await;
                        return std::future::pending().await;
                    }
                    Err(NotOpened::Failed(error)) => {
                        tracing::info!(side, %error, "could not be opened, trying again");
                        tokio::time::sleep(RETRY).await;
                        continue;
                    }
                }
                let heartbeats = compare_clocks(self.side, client.clone(), self.reserved.heartbeat(), self.news.clone());
                tokio::select! {
                    () = lost => tracing::info!(side, "connection lost"),
                    () = self.reopen.notified() => tracing::debug!(side, "opened again"),
                    _ = self.wants_events.changed() => {}
                    () = heartbeats => {}
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

    /// Watches first, then takes the epoch, then reads the slots: what was sent before the epoch was taken is in the slots, or will never be
    /// applied.
    async fn open(
        &mut self,
        client: &Client,
        held: bool,
        generation: u64,
        current: &Arc<AtomicU64>,
    ) -> Result<(Input, Vec<TreeWatch>), NotOpened> {
        self.prepare(client).await?;
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
        let (epoch, zxid) = self.take_epoch(client, held).await?;
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
        Ok((Input::Up { side: self.side, session: client.session_id(), epoch, zxid, slots }, watches))
    }

    /// Makes our own znodes, and those above the mapped roots.
    async fn prepare(&self, client: &Client) -> Result<(), Error> {
        let chroot = self.options.chroot();
        if !chroot.is_empty() && client.stat("/").await?.is_none() {
            return Err(Error::Refused(format!("the chroot {chroot} does not exist")));
        }
        client.create_all(self.reserved.root()).await?;
        client.create_all(&format!("{}/j", self.reserved.root())).await?;
        // Where we have an identity, nobody else may move what fences us.
        let acl = if self.options.has_identity() { Acl::creator() } else { Acl::open() };
        let places = (0..SLOTS).map(|place| self.reserved.slot(place));
        let wanted: Vec<String> = places.chain([self.reserved.epoch(), self.reserved.heartbeat()]).collect();
        let reads: Vec<Read> = wanted.iter().map(|path| Read { path: path.clone(), children: false, acl: false }).collect();
        let mut missing = Vec::new();
        for some in reads.chunks(SLOTS_AT_ONCE) {
            for (read, node) in some.iter().zip(client.read(some).await?) {
                if matches!(node, Err(Error::NoNode)) {
                    missing.push(read.path.clone());
                }
            }
        }
        // None waits for another: the first time it is more than a hundred.
        let made = missing.iter().map(|path| client.create(path, b"", &acl, CreateKind::Persistent));
        for made in futures::future::join_all(made).await {
            match made {
                Ok(_) | Err(Error::NodeExists) => {}
                Err(error) => return Err(error),
            }
        }
        for root in self.config.mapping.roots(self.side) {
            if let Some((above, _)) = root.rsplit_once('/').filter(|(above, _)| !above.is_empty()) {
                client.create_all(above).await?;
            }
        }
        Ok(())
    }

    async fn take_epoch(&self, client: &Client, held: bool) -> Result<(i32, i64), NotOpened> {
        let mine = format!("{:016x}", self.leader);
        let (data, stat) = client.get(&self.reserved.epoch()).await?;
        // An empty one was made just now: it is not another leader who took it, but the ensemble that has lost it, which the core notices.
        if held && !data.is_empty() && data != mine.as_bytes() {
            return Err(NotOpened::Fenced);
        }
        match client.set(&self.reserved.epoch(), mine.as_bytes(), Some(stat.version)).await {
            Ok(stat) => Ok((stat.version, stat.mzxid)),
            Err(Error::BadVersion) if held => Err(NotOpened::Fenced),
            Err(error) => Err(error.into()),
        }
    }
}

/// Compares the ensemble's clock with ours, again and again: the middle of a write's round trip is when it was made, give or take half.
async fn compare_clocks(side: Side, client: Client, path: String, news: mpsc::Sender<SideNews>) {
    let mut kept: std::collections::VecDeque<Clock> = std::collections::VecDeque::new();
    loop {
        let before = super::now();
        let Ok(stat) = client.set(&path, b"", None).await else { return };
        let after = super::now();
        let half = after.since(before) / 2;
        let middle = i64::try_from((before + half).unix_millis()).unwrap_or(i64::MAX);
        let error_ms = u64::try_from(half.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        if kept.len() >= HEARTBEATS_KEPT {
            kept.pop_front();
        }
        kept.push_back(Clock { offset_ms: stat.mtime - middle, error_ms });
        if let Some(clock) = kept.iter().min_by_key(|clock| clock.error_ms).copied()
            && news.send(SideNews::Told(Input::Clock { side, clock, zxid: stat.mzxid })).await.is_err()
        {
            return;
        }
        tokio::time::sleep(HEARTBEAT).await;
    }
}
