use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::Either;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio_util::sync::{CancellationToken, DropGuard};
use zookeeper_client as library;

use crate::client::Client;
use crate::error::Error;
use crate::session::spawn;

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

type Fired = Pin<Box<dyn Future<Output = (String, bool, library::WatchedEvent)> + Send>>;

/// For servers without recursive watches. A watch is set again before its event is told, so that whoever reads upon the event reads what
/// the next event comes after.
struct OneByOne {
    client: Client,
    root: String,
    /// Watched znodes with the names of their children.
    known: BTreeMap<String, BTreeSet<String>>,
    fired: FuturesUnordered<Fired>,
    set: Arc<AtomicU64>,
}

impl OneByOne {
    /// Watches `path` and everything below it that is not watched yet; what is found goes to `told`.
    async fn arm(&mut self, path: String, mut told: Option<&mut Vec<String>>) -> Result<(), Error> {
        let mut todo = vec![path];
        while let Some(path) = todo.pop() {
            let (stat, watcher) = self.client.inner.check_and_watch_stat(&path).await?;
            let watched = path.clone();
            self.fired.push(Box::pin(async move { (watched, false, watcher.changed().await) }));
            if let Some(told) = told.as_deref_mut() {
                told.push(path.clone());
            }
            if stat.is_none() {
                self.known.remove(&path);
                continue;
            }
            todo.extend(self.arm_children(&path).await?);
        }
        Ok(())
    }

    /// Watches the list of children of `path`, and gives back those that are new.
    async fn arm_children(&mut self, path: &str) -> Result<Vec<String>, Error> {
        let (children, watcher) = match self.client.inner.list_and_watch_children(path).await {
            Ok(found) => found,
            Err(library::Error::NoNode) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let watched = path.to_owned();
        self.fired.push(Box::pin(async move { (watched, true, watcher.changed().await) }));
        let children: BTreeSet<String> = children.into_iter().collect();
        let before = self.known.insert(path.to_owned(), children.clone()).unwrap_or_default();
        let prefix = if path == "/" { "" } else { path };
        Ok(children.difference(&before).map(|name| format!("{prefix}/{name}")).collect())
    }

    async fn run(mut self, mut tell: impl FnMut(TreeEvent)) {
        let mut state = self.client.inner.state_watcher();
        loop {
            self.set.store(self.fired.len() as u64, Ordering::Relaxed);
            let next = {
                let fired = self.fired.next();
                let changed = std::pin::pin!(state.changed());
                match futures::future::select(changed, fired).await {
                    Either::Left((state, _)) => Err(state),
                    Either::Right((Some(fired), _)) => Ok(fired),
                    Either::Right((None, _)) => return tell(TreeEvent::Ended),
                }
            };
            match next {
                Err(state) if state.is_terminated() => return tell(TreeEvent::Ended),
                Err(library::SessionState::SyncConnected) => {
                    if self.rebuild().await.is_ok() {
                        tell(TreeEvent::Gap);
                    }
                }
                Err(_) => tell(TreeEvent::Lost),
                Ok((_, _, event)) if event.event_type == library::EventType::Session => return tell(TreeEvent::Ended),
                Ok((path, of_children, event)) => {
                    let mut told = Vec::new();
                    // A failure here is a lost connection: the reconnect builds everything anew.
                    if self.again(&path, of_children, event.event_type, &mut told).await.is_ok() {
                        told.into_iter().for_each(|path| tell(TreeEvent::Changed(path)));
                    }
                }
            }
        }
    }

    async fn again(&mut self, path: &str, of_children: bool, kind: library::EventType, told: &mut Vec<String>) -> Result<(), Error> {
        if of_children {
            if kind == library::EventType::NodeDeleted {
                // Its other watch tells that it is gone.
                self.known.remove(path);
                return Ok(());
            }
            for child in self.arm_children(path).await? {
                self.arm(child, Some(told)).await?;
            }
            return Ok(());
        }
        if kind == library::EventType::NodeDeleted && path != self.root {
            // Should it come again, the list of its parent's children tells.
            self.known.remove(path);
            if let Some((parent, name)) = path.rsplit_once('/')
                && let Some(siblings) = self.known.get_mut(if parent.is_empty() { "/" } else { parent })
            {
                siblings.remove(name);
            }
            told.push(path.to_owned());
            return Ok(());
        }
        let (stat, watcher) = self.client.inner.check_and_watch_stat(path).await?;
        let watched = path.to_owned();
        self.fired.push(Box::pin(async move { (watched, false, watcher.changed().await) }));
        told.push(path.to_owned());
        if stat.is_some() && !self.known.contains_key(path) {
            for child in self.arm_children(path).await? {
                self.arm(child, Some(told)).await?;
            }
        }
        Ok(())
    }

    async fn rebuild(&mut self) -> Result<(), Error> {
        self.known.clear();
        self.fired.clear();
        self.arm(self.root.clone(), None).await
    }
}
