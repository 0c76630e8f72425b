use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio_util::sync::{CancellationToken, DropGuard};
use zookeeper_client as library;

use crate::client::Client;
use crate::error::Error;
use crate::session::spawn;

/// Before znodes that we were not allowed to look into are tried again: no server tells that a list of access has changed, and the newer ones tell
/// nothing at all of what may not be read.
const DENIED_AGAIN: Duration = Duration::from_secs(5);
/// Of these, how many are tried at once; the others next time.
const DENIED_AT_ONCE: usize = 100;

/// What happened below a watched znode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeEvent {
    /// This znode was created, deleted, or its data changed. Changes of access control lists are not told by any server.
    Changed(String),
    /// The connection is gone. Until [`TreeEvent::Gap`] nothing is told.
    Lost,
    /// The watch is set anew after a reconnect. What happened in between is not told: read everything again.
    Gap,
    /// The session is over, and the watch with it.
    Ended,
}

/// How to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchMode {
    /// Recursive where the server can (3.6 and newer), else one by one.
    Auto,
    /// Two watches on every znode, as all servers can.
    OneByOne,
}

/// A watch on a znode and all below it. Ends when dropped.
#[derive(Debug)]
pub struct TreeWatch {
    /// Whether the server watches the tree as one.
    pub recursive: bool,
    set: Arc<AtomicU64>,
    _ends: DropGuard,
}

/// How many watches a [`TreeWatch`] has set on the server right now. Cheap to clone; goes on counting what it was taken from.
#[derive(Clone, Debug)]
pub struct WatchCount(Arc<AtomicU64>);

impl WatchCount {
    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl TreeWatch {
    /// How many watches it has set.
    pub fn count(&self) -> WatchCount {
        WatchCount(self.set.clone())
    }
}

impl Client {
    /// Watches `path`, which need not exist, and everything below it. The watch is set when this returns. `tell` is called in the order of
    /// the ensemble's transactions; it must not block.
    ///
    /// # Errors
    /// When the watch cannot be set.
    pub async fn watch_tree(&self, path: &str, mode: WatchMode, tell: impl FnMut(TreeEvent) + Send + 'static) -> Result<TreeWatch, Error> {
        let stop = CancellationToken::new();
        let ended = stop.clone();
        if mode == WatchMode::Auto && !self.is_old().await? {
            match self.inner.watch(path, library::AddWatchMode::PersistentRecursive).await {
                Ok(watcher) => {
                    let recursive = Recursive { client: self.clone(), path: path.to_owned(), watcher };
                    spawn(async move {
                        tokio::select! { () = recursive.run(tell) => {}, () = ended.cancelled() => {} }
                    });
                    return Ok(TreeWatch { recursive: true, set: Arc::new(AtomicU64::new(1)), _ends: stop.drop_guard() });
                }
                Err(library::Error::Unimplemented) => self.turned_out_old().await?,
                Err(error) => return Err(error.into()),
            }
        }
        let mut one_by_one = OneByOne {
            client: self.clone(),
            root: path.to_owned(),
            known: BTreeMap::new(),
            denied: BTreeSet::new(),
            rearmed: BTreeMap::new(),
            denied_next: String::new(),
            fired: FuturesUnordered::new(),
            set: Arc::default(),
        };
        one_by_one.arm(path.to_owned(), None).await?;
        let set = one_by_one.set.clone();
        spawn(async move {
            tokio::select! { () = one_by_one.run(tell) => {}, () = ended.cancelled() => {} }
        });
        Ok(TreeWatch { recursive: false, set, _ends: stop.drop_guard() })
    }
}

struct Recursive {
    client: Client,
    path: String,
    watcher: library::PersistentWatcher,
}

impl Recursive {
    async fn run(mut self, mut tell: impl FnMut(TreeEvent)) {
        loop {
            let event = self.watcher.changed().await;
            if event.event_type != library::EventType::Session {
                tell(TreeEvent::Changed(event.path));
                continue;
            }
            match event.session_state {
                state if state.is_terminated() => return tell(TreeEvent::Ended),
                library::SessionState::SyncConnected => {
                    // The library does not register persistent watches again, although the stream goes on. The new one before the old one
                    // goes, so that the server is not asked to remove what was just added.
                    match self.client.inner.watch(&self.path, library::AddWatchMode::PersistentRecursive).await {
                        Ok(watcher) => {
                            self.watcher = watcher;
                            tell(TreeEvent::Gap);
                        }
                        Err(library::Error::ConnectionLoss | library::Error::Timeout) => {}
                        Err(error) => {
                            tracing::warn!(%error, path = self.path, "a watch cannot be set again");
                            return tell(TreeEvent::Ended);
                        }
                    }
                }
                _ => tell(TreeEvent::Lost),
            }
        }
    }
}

enum Next {
    State(library::SessionState),
    Fired(String, Of, library::WatchedEvent),
    DeniedAgain,
}

/// What a watch is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Children,
    /// Of those of one znode, which.
    Stat(u64),
}

type Fired = Pin<Box<dyn Future<Output = (String, Of, library::WatchedEvent)> + Send>>;

/// For servers without recursive watches. A watch is set again before its event is told, so that whoever reads upon the event reads what
/// the next event comes after.
struct OneByOne {
    client: Client,
    root: String,
    /// Watched znodes with the names of those children that are watched.
    known: BTreeMap<String, BTreeSet<String>>,
    /// Znodes whose children we were not allowed to list.
    denied: BTreeSet<String>,
    /// Which watch of their stats counts, of those that were denied and are not any more: an event that was withheld may have used up the first.
    rearmed: BTreeMap<String, u64>,
    /// The last of them that was tried again.
    denied_next: String,
    fired: FuturesUnordered<Fired>,
    set: Arc<AtomicU64>,
}

impl OneByOne {
    /// Watches `path` and everything below it that is not watched yet; what is found goes to `told`. What we are not allowed to look into keeps
    /// nothing else from being watched: whoever reads it learns that it may not be read.
    async fn arm(&mut self, path: String, mut told: Option<&mut Vec<String>>) -> Result<(), Error> {
        let mut todo = vec![path];
        while let Some(path) = todo.pop() {
            if let Some(told) = told.as_deref_mut() {
                told.push(path.clone());
            }
            if self.watch_stat(&path).await? {
                todo.extend(self.arm_children(&path).await?.into_iter().flatten());
            } else {
                self.known.remove(&path);
            }
        }
        Ok(())
    }

    /// Watches `path` itself; whether it is there, and can be looked at.
    async fn watch_stat(&mut self, path: &str) -> Result<bool, Error> {
        let (stat, watcher) = match self.client.inner.check_and_watch_stat(path).await {
            Ok(found) => found,
            Err(library::Error::NoAuth) => {
                self.denied.insert(path.to_owned());
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        let watched = path.to_owned();
        let of = Of::Stat(self.rearmed.get(path).copied().unwrap_or_default());
        self.fired.push(Box::pin(async move { (watched, of, watcher.changed().await) }));
        Ok(stat.is_some())
    }

    /// Watches the list of children of `path`, and gives back those that are new; none when we are not allowed to.
    async fn arm_children(&mut self, path: &str) -> Result<Option<Vec<String>>, Error> {
        let (children, watcher) = match self.client.inner.list_and_watch_children(path).await {
            Ok(found) => found,
            Err(library::Error::NoNode) => return Ok(Some(Vec::new())),
            Err(library::Error::NoAuth) => {
                self.denied.insert(path.to_owned());
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let watched = path.to_owned();
        self.fired.push(Box::pin(async move { (watched, Of::Children, watcher.changed().await) }));
        self.denied.remove(path);
        let children: BTreeSet<String> = children.into_iter().collect();
        let before = self.known.insert(path.to_owned(), children.clone()).unwrap_or_default();
        let prefix = if path == "/" { "" } else { path };
        Ok(Some(children.difference(&before).map(|name| format!("{prefix}/{name}")).collect()))
    }

    async fn run(mut self, mut tell: impl FnMut(TreeEvent)) {
        let mut state = self.client.inner.state_watcher();
        let mut denied_again = tokio::time::interval_at(tokio::time::Instant::now() + DENIED_AGAIN, DENIED_AGAIN);
        denied_again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.set.store(self.fired.len() as u64, Ordering::Relaxed);
            let next = tokio::select! {
                biased;
                state = state.changed() => Next::State(state),
                Some((path, of, event)) = self.fired.next(), if !self.fired.is_empty() => Next::Fired(path, of, event),
                _ = denied_again.tick() => Next::DeniedAgain,
            };
            let mut told = Vec::new();
            // A failure here is a lost connection: the reconnect builds everything anew. What was found before it is told all the same.
            match next {
                Next::State(state) if state.is_terminated() => return tell(TreeEvent::Ended),
                Next::State(library::SessionState::SyncConnected) => {
                    if self.rebuild().await.is_ok() {
                        tell(TreeEvent::Gap);
                    }
                }
                Next::State(_) => tell(TreeEvent::Lost),
                Next::Fired(_, _, event) if event.event_type == library::EventType::Session => return tell(TreeEvent::Ended),
                Next::Fired(path, of, event) => {
                    if let Err(error) = self.again(&path, of, event.event_type, &mut told).await {
                        tracing::debug!(%error, path, "a watch is not set again");
                    }
                }
                Next::DeniedAgain => {
                    if let Err(error) = self.try_denied_again(&mut told).await {
                        tracing::debug!(%error, "what could not be looked into is tried later");
                    }
                }
            }
            told.into_iter().for_each(|path| tell(TreeEvent::Changed(path)));
        }
    }

    async fn again(&mut self, path: &str, of: Of, kind: library::EventType, told: &mut Vec<String>) -> Result<(), Error> {
        if of == Of::Children {
            if kind == library::EventType::NodeDeleted {
                // Its other watch tells that it is gone.
                self.known.remove(path);
                return Ok(());
            }
            return self.look_below(path, told).await;
        }
        if self.rearmed.get(path).is_some_and(|counts| of != Of::Stat(*counts)) {
            // Another one has taken its place.
            return Ok(());
        }
        if kind == library::EventType::NodeDeleted && path != self.root {
            // Should it come again, the list of its parent's children tells.
            self.known.remove(path);
            self.denied.remove(path);
            self.rearmed.remove(path);
            if let Some((parent, name)) = path.rsplit_once('/')
                && let Some(siblings) = self.known.get_mut(if parent.is_empty() { "/" } else { parent })
            {
                siblings.remove(name);
            }
            told.push(path.to_owned());
            return Ok(());
        }
        told.push(path.to_owned());
        if self.watch_stat(path).await? && (!self.known.contains_key(path) || self.denied.contains(path)) {
            self.look_below(path, told).await?;
        }
        Ok(())
    }

    /// Watches what is new below `path`; one that we are not allowed to look into is told, so that it is read and that is found out.
    async fn look_below(&mut self, path: &str, told: &mut Vec<String>) -> Result<(), Error> {
        let Some(children) = self.arm_children(path).await? else {
            told.push(path.to_owned());
            return Ok(());
        };
        for child in children {
            self.arm(child, Some(told)).await?;
        }
        Ok(())
    }

    /// Some of those that we were not allowed to look into, one after another.
    async fn try_denied_again(&mut self, told: &mut Vec<String>) -> Result<(), Error> {
        let after = (Bound::Excluded(self.denied_next.clone()), Bound::Unbounded);
        let some: Vec<String> = self.denied.range(after).take(DENIED_AT_ONCE).cloned().collect();
        self.denied_next = some.last().filter(|_| some.len() == DENIED_AT_ONCE).cloned().unwrap_or_default();
        for path in some {
            let Some(children) = self.arm_children(&path).await? else { continue };
            self.denied.remove(&path);
            *self.rearmed.entry(path.clone()).or_default() += 1;
            if !self.watch_stat(&path).await? {
                self.known.remove(&path);
            }
            told.push(path);
            for child in children {
                self.arm(child, Some(told)).await?;
            }
        }
        Ok(())
    }

    async fn rebuild(&mut self) -> Result<(), Error> {
        self.known.clear();
        self.denied.clear();
        self.rearmed.clear();
        self.fired.clear();
        self.arm(self.root.clone(), None).await
    }
}
