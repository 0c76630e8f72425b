//! `cargo xtask bench zksync`: lag, first copy, verification and cutover between two real servers on this machine, measured from outside: by clients
//! that write to one and watch the other.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures::future::BoxFuture;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use zk::testing::{Ensemble, ServerOptions, on_test_machine};
use zk::{Acl, Client, CreateKind, Op, Options, TreeEvent, WatchMode};
use zksync::{MigrationCommand, Mode, Phase, Plan};
use zksync_service::Service;
use zksync_service::definition::Definition;
use zksync_service::store::Store;
use zksync_service::verify;

fn main() -> Result<()> {
    if !on_test_machine() {
        bail!("no ZooKeeper here: apt-get install zookeeper default-jre-headless");
    }
    let scale: u64 = std::env::args().nth(1).and_then(|scale| scale.parse().ok()).unwrap_or(1).max(1);
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure(scale))
}

async fn measure(scale: u64) -> Result<()> {
    let options = ServerOptions { heap: "1g", optimized: true, config: vec!["tickTime=2000".to_owned()], ..ServerOptions::default() };
    let (a, b) = tokio::task::spawn_blocking(move || (Ensemble::start(1, &options), Ensemble::start(1, &options))).await?;
    tell("two standalone ZooKeeper 3.8 servers on loopback, data on disk with fsync; 64-byte values")?;
    for mode in [Mode::AToB, Mode::Both] {
        for rate in [200, 1_000] {
            lag(&a, &b, mode, rate, 10 / scale.min(5)).await?;
        }
    }
    copy_verify_cutover(&a, &b, usize::try_from(100_000 / scale)?).await
}

fn tell(text: &str) -> Result<()> {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("?");
    writeln!(std::io::stdout(), "{text} (load {load})").context("writing to standard output")
}

/// A service with one link, in this process.
struct Running {
    service: Service,
    stop: CancellationToken,
    _directory: tempfile::TempDir,
}

impl Running {
    fn start() -> Result<Running> {
        let directory = tempfile::tempdir()?;
        let loops: Arc<Mutex<JoinSet<()>>> = Arc::default();
        let spawn = Arc::new(move |_name: &'static str, run: BoxFuture<'static, ()>| {
            if let Ok(mut loops) = loops.lock() {
                loops.spawn(run);
            }
        });
        let stop = CancellationToken::new();
        let service = Service::start(Store::open(directory.path())?, None, 1, "bench", stop.clone(), spawn)?;
        Ok(Running { service, stop, _directory: directory })
    }

    async fn link(&self, definition: Definition) -> Result<zksync_service::link::LinkHandle> {
        let id = definition.id.clone();
        self.service.create(definition)?;
        for _ in 0..600 {
            if let Ok(handle) = self.service.handle(&id) {
                return Ok(handle);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("nobody leads the link")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

type Arrivals = Arc<Mutex<BTreeMap<String, Instant>>>;

async fn watched(ensemble: &Ensemble, root: &str) -> Result<(Client, zk::TreeWatch, Arrivals)> {
    let client = Client::connect(&Options::new(ensemble.connect_string())).await?;
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

async fn lag(a: &Ensemble, b: &Ensemble, mode: Mode, rate: u32, seconds: u64) -> Result<()> {
    let root = format!("/lag-{}-{rate}", mode.as_str());
    let running = Running::start()?;
    let mut definition = Definition::between(&format!("lag-{}-{rate}", mode.as_str()), &a.connect_string(), &b.connect_string());
    definition.mode = mode;
    definition.mappings = vec![zksync::Rule { a: root.clone(), b: root.clone(), include: Vec::new(), exclude: Vec::new() }];
    let writer = Client::connect(&Options::new(a.connect_string())).await?;
    writer.create_all(&root).await?;
    let handle = running.link(definition).await?;
    while !handle.ask(|link| link.is_settled()).await? {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ends = if mode == Mode::Both { vec![(a, b, "a"), (b, a, "b")] } else { vec![(a, b, "a")] };
    let mut directions = Vec::new();
    for (from, to, name) in ends {
        let (_, watch, arrivals) = watched(to, &root).await?;
        directions.push((Client::connect(&Options::new(from.connect_string())).await?, watch, arrivals, name));
    }
    let write = |client: Client, root: String, name: &'static str| async move {
        let mut acks = Vec::new();
        let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
        let mut under_way = futures::stream::FuturesUnordered::new();
        use futures::StreamExt as _;
        for n in 0..u64::from(rate) * seconds {
            tick.tick().await;
            let (client, path) = (client.clone(), format!("{root}/{name}{n:07}"));
            under_way.push(async move {
                let written = client.create(&path, &[b'x'; 64], &Acl::open(), CreateKind::Persistent).await;
                (path, written.map(|_| Instant::now()))
            });
            while let Some(Some((path, done))) = futures::FutureExt::now_or_never(under_way.next()) {
                acks.push((path, done?));
            }
        }
        while let Some((path, done)) = under_way.next().await {
            acks.push((path, done?));
        }
        Ok::<_, zk::Error>(acks)
    };
    let began = Instant::now();
    let writers = directions.iter().map(|(client, _, _, name)| write(client.clone(), root.clone(), name));
    let acks = futures::future::try_join_all(writers).await?;
    let took = began.elapsed();
    let mut lags = Vec::new();
    let mut missing = 0;
    for _ in 0..200 {
        lags.clear();
        missing = 0;
        for ((_, _, arrivals, _), acks) in directions.iter().zip(&acks) {
            let arrivals = arrivals.lock().map_err(|_| anyhow::anyhow!("a watch panicked"))?;
            for (path, acknowledged) in acks {
                match arrivals.get(path) {
                    Some(arrived) => lags.push(arrived.saturating_duration_since(*acknowledged)),
                    None => missing += 1,
                }
            }
        }
        if missing == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    lags.sort_unstable();
    let at = |of_thousand: usize| lags.get(lags.len() * of_thousand / 1_000).map_or(f64::NAN, |lag| lag.as_secs_f64() * 1e3);
    let direction = if mode == Mode::Both { "both ways, each" } else { "one way" };
    tell(&format!(
        "lag {direction} {rate}/s for {:.1} s, write acknowledged on one side to seen on the other: p50 {:.1} ms, p99 {:.1} ms (target < 50), max {:.1} ms, \
         {} changes, {missing} missing",
        took.as_secs_f64(),
        at(500),
        at(990),
        lags.last().map_or(f64::NAN, |lag| lag.as_secs_f64() * 1e3),
        lags.len(),
    ))
}

async fn copy_verify_cutover(a: &Ensemble, b: &Ensemble, count: usize) -> Result<()> {
    let root = "/tree";
    let client = Client::connect(&Options::new(a.connect_string())).await?;
    client.create_all(root).await?;
    let paths: Vec<usize> = (0..count).collect();
    for parent in 0..100 {
        client.create_all(&format!("{root}/{parent:02}")).await?;
    }
    for chunk in paths.chunks(500) {
        let create = |n: &usize| Op::Create {
            path: format!("{root}/{:02}/{n:07}", n % 100),
            data: vec![b'x'; 64],
            acl: Acl::open(),
            kind: CreateKind::Persistent,
        };
        client.multi(&chunk.iter().map(create).collect::<Vec<_>>()).await?;
    }
    let running = Running::start()?;
    let mut definition = Definition::between("tree", &a.connect_string(), &b.connect_string());
    definition.mappings = vec![zksync::Rule { a: root.to_owned(), b: root.to_owned(), include: Vec::new(), exclude: Vec::new() }];
    let config = definition.config()?;
    let began = Instant::now();
    let handle = running.link(definition.clone()).await?;
    while handle.status().pairs < count || !handle.ask(|link| link.is_settled()).await? {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = began.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "at most a hundred thousand")]
    let speed = count as f64 / took;
    tell(&format!(
        "first copy of {count} znodes with their access control lists, election and start included: {took:.1} s, {speed:.0} znodes/s"
    ))?;
    let clients = verify::connect(&definition).await.map_err(anyhow::Error::msg)?;
    let report = verify::verify("tree", &config, &clients, true).await?;
    tell(&format!(
        "verification of {count} znodes, both sides read again with access control lists: {:.1} s, equal: {}",
        report.took_ms as f64 / 1e3,
        report.found.equal
    ))?;
    cutover(&running, a, b).await
}

async fn cutover(running: &Running, a: &Ensemble, b: &Ensemble) -> Result<()> {
    let old = Client::connect(&Options::new(a.connect_string())).await?;
    let new = Client::connect(&Options::new(b.connect_string())).await?;
    running.service.migrate(Plan { require_no_clients: false, ..Plan::of("tree") })?;
    let migration = running.service.migration("tree")?;
    let mut acknowledged = Vec::new();
    let mut said = false;
    let mut stopped: Option<Instant> = None;
    for n in 0.. {
        let phase = migration.view().migration.phase;
        let path = format!("/tree/w{n:07}");
        match phase {
            Phase::Freeze | Phase::FinalSync | Phase::Align | Phase::FinalVerify => {
                stopped.get_or_insert_with(Instant::now);
            }
            Phase::Switch => {
                new.create(&path, b"after", &Acl::open(), CreateKind::Persistent).await?;
                acknowledged.push(path);
                let window = stopped.context("the writers were never stopped")?.elapsed();
                tell(&format!("cutover: no write was accepted for {:.1} s (of it 2 s of proved silence)", window.as_secs_f64()))?;
                break;
            }
            _ => {
                if stopped.take().is_some() {
                    let why = migration
                        .view()
                        .migration
                        .history
                        .iter()
                        .rev()
                        .find(|note| note.text.starts_with("rolled back"))
                        .map(|note| note.text.clone());
                    bail!("the cutover was rolled back: {}", why.unwrap_or_default());
                }
                old.create(&path, b"before", &Acl::open(), CreateKind::Persistent).await?;
                acknowledged.push(path);
            }
        }
        if phase == Phase::Ready && !said {
            said = true;
            migration.tell(MigrationCommand::Cutover).await;
            // The writers obey the word that stops them.
            while migration.view().migration.phase == Phase::Ready {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut lost = 0;
    for path in &acknowledged {
        lost += u32::from(new.stat(path).await?.is_none());
    }
    tell(&format!("cutover: {} writes acknowledged before and after, {lost} lost (target 0)", acknowledged.len()))?;
    if lost > 0 { bail!("acknowledged writes were lost") } else { Ok(()) }
}
