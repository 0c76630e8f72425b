//! Two real ensembles with a link between.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use zk::testing::{Ensemble, ServerOptions, on_test_machine};
use zk::{Acl, Client, CreateKind, Error, Options, Read};
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
    pub(crate) directory: tempfile::TempDir,
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

    /// With clients that go another way than the link does.
    pub(crate) async fn between(definition: Definition, a: Client, b: Client) -> World {
        let directory = tempfile::tempdir().expect("making a directory");
        let store = Store::open(directory.path()).expect("opening the store");
        let stop = CancellationToken::new();
        let (handle, run) = link::start(&definition, store.clone(), Metrics::new(), 1, stop.clone()).expect("starting the link");
        let mut running = JoinSet::new();
        running.spawn(async move { run.await.expect("the link's store works") });
        World { a, b, handle, definition, directory, store, stop, running }
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
        let began = Instant::now();
        let mut quiet = 0;
        loop {
            let settled = self.handle.ask(|link| link.is_settled()).await.expect("the link runs");
            let (a, b) = (tree(&self.a, "/").await, tree(&self.b, "/").await);
            quiet = if settled && a == b { quiet + 1 } else { 0 };
            if quiet >= 2 {
                return;
            }
            if began.elapsed() > Duration::from_secs(60) {
                let differing: Vec<_> = a
                    .iter()
                    .filter(|(path, node)| b.get(*path) != Some(node))
                    .map(|(path, _)| path)
                    .chain(b.keys().filter(|path| !a.contains_key(*path)))
                    .take(5)
                    .collect();
                panic!("not equal within a minute: {differing:?}\n{:#?}", self.handle.status());
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
