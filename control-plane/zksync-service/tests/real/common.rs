//! Two real ensembles with a link between.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use zk::testing::{Ensemble, ServerOptions, on_test_machine};
use zk::{Acl, Client, CreateKind, Error, Op, Options, Read};
use zksync_service::definition::Definition;
use zksync_service::link::{self, LinkHandle};
use zksync_service::metrics::Metrics;
use zksync_service::store::Store;

/// Two ensembles of `count` servers each; none where there is no ZooKeeper.
pub(crate) fn ensembles(count: usize) -> Option<(Ensemble, Ensemble)> {
    on_test_machine().then(|| (Ensemble::start(count, &ServerOptions::default()), Ensemble::start(count, &ServerOptions::default())))
}

/// A link that runs.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) a: Client,
    pub(crate) b: Client,
    pub(crate) handle: LinkHandle,
    pub(crate) definition: Definition,
    _directory: tempfile::TempDir,
    pub(crate) store: Store,
    stop: CancellationToken,
    running: JoinSet<()>,
}

impl World {
    pub(crate) async fn start(definition: Definition) -> World {
        let a = Client::connect(&Options::new(&definition.a.connect)).await.expect("connecting to A");
        let b = Client::connect(&Options::new(&definition.b.connect)).await.expect("connecting to B");
        World::between(definition, a, b).await
    }

    /// With another name than others have.
    pub(crate) async fn with_leader(definition: Definition, leader: u64) -> World {
        let a = Client::connect(&Options::new(&definition.a.connect)).await.expect("connecting to A");
        let b = Client::connect(&Options::new(&definition.b.connect)).await.expect("connecting to B");
        World::led(definition, a, b, leader).await
    }

    /// With clients that go another way than the link does.
    pub(crate) async fn between(definition: Definition, a: Client, b: Client) -> World {
        World::led(definition, a, b, 1).await
    }

    async fn led(definition: Definition, a: Client, b: Client, leader: u64) -> World {
        let directory = tempfile::tempdir().expect("making a directory");
        let store = Store::open(directory.path()).expect("opening the store");
        let stop = CancellationToken::new();
        let (handle, run) = link::start(&definition, store.clone(), Metrics::new(), leader, stop.clone()).expect("starting the link");
        let mut running = JoinSet::new();
        running.spawn(async move { run.await.expect("the link's store works") });
        World { a, b, handle, definition, _directory: directory, store, stop, running }
    }

    /// Ends the link's process, as far as one can within a process: nothing it was doing goes on. Then another one begins.
    pub(crate) async fn crash_and_restart(&mut self, leader: u64) {
        self.running.shutdown().await;
        self.stop = CancellationToken::new();
        let (handle, run) =
            link::start(&self.definition, self.store.clone(), Metrics::new(), leader, self.stop.clone()).expect("starting the link");
        self.handle = handle;
        self.running.spawn(async move { run.await.expect("the link's store works") });
    }

    /// Waits until both sides have the same, twice in a row, and the link has nothing to do.
    pub(crate) async fn until_equal(&self) {
        self.until_equal_below("/").await;
    }

    /// The same, of a part.
    pub(crate) async fn until_equal_below(&self, root: &str) {
        let began = Instant::now();
        let mut quiet = 0;
        loop {
            let settled = self.handle.ask(|link| link.is_settled()).await.expect("the link runs");
            let (a, b) = (tree(&self.a, root).await, tree(&self.b, root).await);
            quiet = if settled && a == b { quiet + 1 } else { 0 };
            if quiet >= 2 {
                return;
            }
            if began.elapsed() > Duration::from_secs(120) {
                let differing: Vec<_> = a
                    .iter()
                    .filter(|(path, node)| b.get(*path) != Some(node))
                    .map(|(path, _)| path)
                    .chain(b.keys().filter(|path| !a.contains_key(*path)))
                    .take(5)
                    .collect();
                panic!("not equal within two minutes: {differing:?}\n{:#?}", self.handle.status());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Data and access control lists of everything below `root` that is not ephemeral and not the servers' or ours.
pub(crate) async fn tree(client: &Client, root: &str) -> BTreeMap<String, (Vec<u8>, Vec<Acl>)> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while !todo.is_empty() {
        let batch: Vec<String> = todo.drain(..todo.len().min(200)).collect();
        let reads: Vec<Read> = batch.iter().map(|path| Read { path: path.clone(), children: true, acl: true }).collect();
        let nodes = loop {
            match client.read(&reads).await {
                Ok(nodes) => break nodes,
                Err(Error::Unknown(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => panic!("reading a tree: {error}"),
            }
        };
        for (path, node) in batch.into_iter().zip(nodes) {
            let Ok(mut node) = node else { continue };
            let prefix = if path == "/" { "" } else { &path };
            for name in node.children.iter().flatten() {
                let child = format!("{prefix}/{name}");
                if child != "/zookeeper" && child != "/__zksync" {
                    todo.push(child);
                }
            }
            if node.stat.ephemeral_owner == 0 {
                let mut acl = node.acl.take().unwrap_or_default();
                acl.sort();
                found.insert(path, (node.data, acl));
            }
        }
    }
    found
}

pub(crate) async fn create(client: &Client, path: &str, data: &[u8]) {
    client.create(path, data, &Acl::open(), CreateKind::Persistent).await.expect("creating a znode");
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1_200 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not within a minute: {what}");
}

/// A znode with many children.
pub(crate) async fn fill(client: &Client, root: &str, count: usize, bytes: usize) {
    create(client, root, b"").await;
    let data = vec![b'x'; bytes];
    let names: Vec<usize> = (0..count).collect();
    for names in names.chunks(500) {
        let create =
            |n: &usize| Op::Create { path: format!("{root}/{n:06}"), data: data.clone(), acl: Acl::open(), kind: CreateKind::Persistent };
        client.multi(&names.iter().map(create).collect::<Vec<_>>()).await.expect("filling a tree");
    }
}

/// Removes a znode with its children.
pub(crate) async fn remove(client: &Client, root: &str) {
    let names = client.children(root).await.expect("listing children");
    for names in names.chunks(500) {
        let delete = |name: &String| Op::Delete { path: format!("{root}/{name}"), version: None };
        client.multi(&names.iter().map(delete).collect::<Vec<_>>()).await.expect("removing a tree");
    }
    client.delete(root, None).await.expect("removing a tree");
}
