//! What all parts need.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures::future::BoxFuture;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use zk::testing::Ensemble;
use zk::{Acl, Client, CreateKind, Op, Options, TreeEvent, TreeWatch, WatchMode};
use zksync_service::Service;
use zksync_service::definition::Definition;
use zksync_service::definition::Secrets;
use zksync_service::link::LinkHandle;
use zksync_service::store::Store;

pub(crate) fn tell(text: &str) -> Result<()> {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("?");
    let mut out = std::io::stdout();
    writeln!(out, "{text} (load {load})").context("writing to standard output")?;
    out.flush().context("writing to standard output")
}

/// A service with one link, in this process.
pub(crate) struct Running {
    pub(crate) service: Service,
    stop: CancellationToken,
    _directory: tempfile::TempDir,
}

impl Running {
    pub(crate) fn start() -> Result<Running> {
        let directory = tempfile::tempdir()?;
        let loops: Arc<Mutex<JoinSet<()>>> = Arc::default();
        let spawn = Arc::new(move |_name: &'static str, run: BoxFuture<'static, ()>| {
            if let Ok(mut loops) = loops.lock() {
                loops.spawn(run);
            }
        });
        let stop = CancellationToken::new();
        let service =
            Service::start(Store::open(directory.path())?, None, Secrets::below(directory.path()), (1, "bench"), stop.clone(), spawn)?;
        Ok(Running { service, stop, _directory: directory })
    }

    pub(crate) async fn link(&self, definition: Definition) -> Result<LinkHandle> {
        let id = definition.id.clone();
        self.service.create(definition)?;
        for _ in 0..6_000 {
            if let Ok(handle) = self.service.handle(&id) {
                return Ok(handle);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        bail!("nobody leads the link")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) fn between(id: &str, a: &Ensemble, b: &Ensemble, root: &str) -> Definition {
    let mut definition = Definition::between(id, &a.connect_string(), &b.connect_string());
    definition.mappings = vec![zksync::Rule { a: root.to_owned(), b: root.to_owned(), include: Vec::new(), exclude: Vec::new() }];
    definition
}

pub(crate) async fn client(ensemble: &Ensemble) -> Result<Client> {
    Ok(Client::connect(&Options::new(ensemble.connect_string())).await?)
}

pub(crate) async fn settled(handle: &LinkHandle) -> Result<()> {
    while !handle.ask(|link| link.is_settled()).await? {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// A tree of `count` znodes of 64 bytes, a hundred below each other's parents.
pub(crate) async fn fill(client: &Client, root: &str, count: usize) -> Result<()> {
    client.create_all(root).await?;
    for parent in 0..100 {
        client.create_all(&format!("{root}/{parent:02}")).await?;
    }
    let numbers: Vec<usize> = (0..count).collect();
    for chunk in numbers.chunks(500) {
        let create = |n: &usize| Op::Create {
            path: format!("{root}/{:02}/{n:07}", n % 100),
            data: vec![b'x'; 64],
            acl: Acl::open(),
            kind: CreateKind::Persistent,
        };
        client.multi(&chunk.iter().map(create).collect::<Vec<_>>()).await?;
    }
    Ok(())
}

pub(crate) type Arrivals = Arc<Mutex<BTreeMap<String, Instant>>>;

/// When each znode below `root` was first told of.
pub(crate) async fn watched(ensemble: &Ensemble, root: &str) -> Result<(Client, TreeWatch, Arrivals)> {
    let client = client(ensemble).await?;
    let arrivals: Arrivals = Arc::default();
    let told = arrivals.clone();
    let watch = client.watch_tree(root, WatchMode::Auto, move |event| {
        if let (TreeEvent::Changed(path), Ok(mut arrivals)) = (event, told.lock()) {
            arrivals.entry(path).or_insert_with(Instant::now);
        }
    });
    let watch = watch.await?;
    Ok((client, watch, arrivals))
}
