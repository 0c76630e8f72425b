//! Puts the agent together and runs it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mesos_proto::v1::{AgentInfo, DomainInfo, Resource, domain_info};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::checker::Checker;
use crate::config::{Config, Recover};
use crate::containers::{Containers, Spawn};
use crate::driver::{self, Driver, Ended, LEDGER_FACT, MasterAsk};
use crate::executors::Executors;
use crate::fetcher::{self, Fetcher};
use crate::gc::{self, Collector};
use crate::host::{self, HostError};
use crate::http::{self, Server};
use crate::isolation::{self, UnsupportedIsolator};
use crate::keeper::absence;
use crate::ledger::{Ledger, LedgerError};
use crate::link;
use crate::reconfiguration::{self, Incompatible};
use crate::store::{Store, StoreError};
use crate::table::{Effect, Input, Limits, RecoverError, Table};
use crate::words::{Now, SystemIds};

/// Why an agent cannot start, or go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// What it remembers cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Neither can this.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Nor this.
    #[error("what the agent remembers cannot be read")]
    Recover(#[from] RecoverError),
    /// The configuration is wrong.
    #[error(transparent)]
    Host(#[from] HostError),
    /// So is that.
    #[error(transparent)]
    Isolation(#[from] UnsupportedIsolator),
    /// It is another one than before.
    #[error(transparent)]
    Reconfigured(#[from] Incompatible),
    /// The certificate of its API cannot be used.
    #[error("the certificate of the agent API cannot be used")]
    Certificate(#[from] edge_tls::Unusable),
    /// Another agent has the same runtime directory.
    #[error("{0} cannot be locked: another agent uses its directory")]
    Locked(std::path::PathBuf, #[source] std::io::Error),
    /// A directory cannot be made.
    #[error("the directory {0} cannot be made")]
    Directory(PathBuf, #[source] std::io::Error),
}

/// An agent that was shut down less than this ago and is shut down again is unwanted for longer: the pause before the next registration grows.
const UNWANTED_AGAIN_WITHIN: Duration = Duration::from_secs(300);

/// How long an agent that ends may keep the next one waiting.
const LOCKED_WITHIN: Duration = Duration::from_secs(5);

/// How long an agent that leaves tries to tell its master.
const LEAVES_WITHIN: Duration = Duration::from_secs(10);

/// Runs an agent until `stopping`. Tasks outlive it.
///
/// When the master shuts the agent down (its machine is down, it is marked gone), its tasks are ended and forgotten, and a new agent registers: what
/// happens to Mesos's agent, which ends its process for whoever supervises it to start it again. Here it happens within the process, which may have
/// more to do than to run tasks. An agent that is told to leave (`Config::leave`) ends its tasks the same way, unregisters, and is not followed by
/// another.
///
/// # Errors
/// When it cannot start, or cannot store any more.
pub async fn run(mut config: Config, listener: TcpListener, stopping: CancellationToken) -> Result<(), AgentError> {
    isolation::check(&config.isolation)?;
    let port = listener.local_addr().map_or(config.listen.port(), |it| it.port());
    config.advertise_port.get_or_insert(port);
    let config = Arc::new(config);
    for directory in [&config.work_dir, &config.runtime_dir] {
        std::fs::create_dir_all(directory).map_err(|error| AgentError::Directory(directory.clone(), error))?;
    }
    let layout = crate::sandbox::Layout::new(&config.work_dir, &config.runtime_dir);
    let store = Arc::new(Store::open(&layout.meta())?);
    let lock = layout.agent_lock();
    let held = tokio::task::spawn_blocking(move || absence::hold_lock(&lock, LOCKED_WITHIN)).await;
    // Keepers end their containers when nobody holds it for too long.
    let _held =
        held.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(|error| AgentError::Locked(layout.agent_lock(), error))?;
    let listener = Arc::new(listener);
    let files =
        |(certificate, key): &(PathBuf, PathBuf)| edge_tls::Files { certificate: certificate.clone(), key: key.clone(), client_ca: None };
    let tls = config.api_certificate.as_ref().map(|it| edge_tls::Tls::load(files(it))).transpose()?;
    let mut pause = Duration::ZERO;
    loop {
        if config.leave.is_cancelled() {
            // Whoever told it to leave starts it again when it is to come back.
            tracing::info!("the agent has left; it registers again, as a new one, when this process starts again");
            drop((store, listener));
            stopping.cancelled().await;
            return Ok(());
        }
        let begun = Instant::now();
        if live(config.clone(), (listener.clone(), tls.clone()), store.clone(), pause, &stopping).await? == Ended::Stopping {
            return Ok(());
        }
        if config.leave.is_cancelled() {
            continue;
        }
        tracing::info!("all tasks are ended; the next agent of this machine registers as a new one");
        let again = pause.saturating_mul(2).min(link::BACKOFF_MAX);
        pause = if begun.elapsed() < UNWANTED_AGAIN_WITHIN { again.max(config.registration_backoff_factor) } else { Duration::ZERO };
    }
}

/// One agent, from its registration until it stops or is over. It registers after some part of `pause`.
async fn live(
    config: Arc<Config>,
    (listener, tls): (Arc<TcpListener>, Option<edge_tls::Tls>),
    store: Arc<Store>,
    pause: Duration,
    stopping: &CancellationToken,
) -> Result<Ended, AgentError> {
    let stopping = stopping.child_token();
    let layout = crate::sandbox::Layout::new(&config.work_dir, &config.runtime_dir);
    let port = config.advertise_port.unwrap_or(config.listen.port());
    let loops = TaskTracker::new();
    let spawn = spawner(&loops);
    let begun = Instant::now();
    let boot_id = boot_id();
    forget_before_reboot(&store, &layout, &boot_id)?;
    for directory in [layout.meta(), layout.keepers()] {
        crate::sandbox::make_private(&directory).map_err(|error| AgentError::Directory(directory.clone(), error))?;
    }

    let configured = host::resources(&config)?;
    let mut ledger = Ledger::new(&configured, store.fact(LEDGER_FACT)?.as_deref(), config.reconfiguration_policy, &mut SystemIds)?;
    let limits = Limits {
        executor_registration_timeout: config.executor_registration_timeout,
        executor_reregistration_timeout: config.executor_reregistration_timeout,
        executor_shutdown_grace_period: config.executor_shutdown_grace_period,
        docker_stop_timeout: config.docker_stop_timeout,
        completed_executors: config.max_completed_executors_per_framework,
        ..Limits::default()
    };
    let mut table = Table::new(limits, &config.advertise_ip.to_string(), Box::new(SystemIds));
    let now =
        Now { wall: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64(), steady: begun.elapsed() };
    let mut recovered = table.recover(now, store.records()?)?;
    ledger.set_agent_id(table.agent_id());
    let claimed: Vec<_> =
        recovered.iter().filter_map(|it| if let Effect::Reattach(it) = it { Some(it.container.clone()) } else { None }).collect();
    if config.recover == Recover::Cleanup {
        recovered.extend(claimed.iter().cloned().map(Effect::Destroy));
    }
    let agent = describe(&config, configured, table.agent_id())?;
    keep_to_what_it_was(&config, &store, &agent)?;

    let (handle, inputs, inbox) = driver::channel();
    let (outbox, sent) = mpsc::channel(link::OUTBOX_MAX);
    let signals = Arc::new(link::Signals::default());
    let fetcher = Arc::new(Fetcher::new(fetcher::Settings {
        cache_dir: config.fetcher_cache_dir.clone(),
        cache_size: config.fetcher_cache_size,
        draft_dir: layout.drafts(),
        handover_dir: layout.handover(),
        stall_timeout: config.fetcher_stall_timeout,
        hadoop_home: config.hadoop_home.clone(),
        frameworks_home: config.frameworks_home.clone(),
    }));
    let endpoint = format!("{}:{port}", config.advertise_ip);
    let containers = Containers::new(config.clone(), fetcher.clone(), endpoint, inputs.clone(), spawn.clone());
    containers.end_orphans(&claimed).await;
    let executors = Executors::default();
    let collector = Collector::default();
    let claimed_sandboxes: Vec<_> = recovered
        .iter()
        .filter_map(|it| if let Effect::Reattach(it) = it { Some(layout.sandbox_of(table.agent_id(), it)) } else { None })
        .collect();
    collector.find_abandoned(&layout.slaves(), &claimed_sandboxes);
    let driver = Driver {
        table,
        ledger,
        store,
        containers: containers.clone(),
        checker: Checker::new(containers.clone(), inputs, spawn.clone()),
        executors: executors.clone(),
        collector: collector.clone(),
        outbox,
        signals: signals.clone(),
        agent,
        begun,
        is_over: false,
    };
    let status = link::Status::default();
    let server = Server {
        viewer: http::rights::Viewer::default(),
        tls: tls.clone(),
        config: config.clone(),
        driver: handle.clone(),
        containers: containers.clone(),
        executors,
        collector: collector.clone(),
        fetcher,
        registered: status.registered.clone(),
        begun: SystemTime::now(),
        recovery: begun.elapsed(),
        spawn: spawn.clone(),
        stopping: stopping.clone(),
    };
    config.metrics.of(&server);
    spawn("http", Box::pin(http::run(listener, server)));
    if let Some(tls) = tls {
        spawn("certificate", Box::pin(tls.follow(stopping.clone())));
    }
    spawn("sandboxes", Box::pin(collect(config.clone(), collector, containers.clone(), stopping.clone())));
    spawn("leave", Box::pin(leave(config.leave.clone(), handle.clone(), stopping.clone())));
    let link = link::Link { config: config.clone(), driver: handle, status, boot_id, signals };
    let parted = CancellationToken::new();
    let run = link.run(sent, pause, stopping.clone());
    let of_link = parted.clone().drop_guard();
    spawn(
        "link",
        Box::pin(async move {
            let _parted = of_link;
            run.await;
        }),
    );
    let ended = driver.run(inbox, recovered, stopping.clone()).await;
    if config.leave.is_cancelled() && matches!(ended, Ok(Ended::Unwanted)) {
        // Its link tells the master that it leaves.
        tokio::select! { () = parted.cancelled() => {}, () = tokio::time::sleep(LEAVES_WITHIN) => {}, () = stopping.cancelled() => {} }
    }
    stopping.cancel();
    loops.close();
    // Loops of containers end with the runtime; their keepers do not.
    drop(tokio::time::timeout(Duration::from_millis(500), loops.wait()).await);
    Ok(ended?)
}

/// Ends all tasks when the agent is told to leave.
async fn leave(leave: CancellationToken, driver: driver::Handle, stopping: CancellationToken) {
    tokio::select! {
        () = leave.cancelled() => {
            tracing::info!("the agent leaves: all tasks are ended");
            let _ = driver.master(MasterAsk::Input(Input::ShutdownAgent)).await;
        }
        () = stopping.cancelled() => {}
    }
}

/// What the master and frameworks are told of this agent.
fn describe(config: &Config, resources: Vec<Resource>, id: &str) -> Result<AgentInfo, HostError> {
    Ok(AgentInfo {
        hostname: config.hostname.clone(),
        port: config.advertise_port.map(i32::from),
        resources,
        attributes: host::attributes(config)?,
        id: (!id.is_empty()).then(|| mesos_proto::v1::AgentId { value: id.to_owned() }),
        domain: config.domain.as_ref().map(|(region, zone)| DomainInfo {
            fault_domain: Some(domain_info::FaultDomain {
                region: domain_info::fault_domain::RegionInfo { name: region.clone() },
                zone: domain_info::fault_domain::ZoneInfo { name: zone.clone() },
            }),
        }),
    })
}

/// Refuses a configuration with which this is not the agent any more that the master knows, and remembers it otherwise.
fn keep_to_what_it_was(config: &Config, store: &Store, agent: &AgentInfo) -> Result<(), AgentError> {
    const AGENT: &str = "agent";

    // Who ends all tasks first may begin as another.
    if agent.id.is_some()
        && config.recover == Recover::Reconnect
        && let Some(before) = store.fact(AGENT)?
        && let Ok(before) = AgentInfo::decode(&*before)
    {
        reconfiguration::check(config.reconfiguration_policy, &before, agent)?;
    }
    store.commit(&[], &[(AGENT, agent.encode_to_vec())])?;
    Ok(())
}

/// The one place of this crate that spawns.
fn spawner(loops: &TaskTracker) -> Spawn {
    let loops = loops.clone();
    #[expect(clippy::disallowed_methods, reason = "the one place of this crate that spawns; the tracker waits for all")]
    Arc::new(move |name, run| {
        let run = loops.track_future(async move {
            use futures::FutureExt as _;
            if std::panic::AssertUnwindSafe(run).catch_unwind().await.is_err() {
                tracing::error!(name, "a loop of the agent panicked");
            }
        });
        drop(tokio::spawn(run));
    })
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// What keepers have noted before the machine was restarted is about processes that are no more.
fn forget_before_reboot(store: &Store, layout: &crate::sandbox::Layout, boot_id: &str) -> Result<(), AgentError> {
    const BOOT: &str = "boot_id";

    let before = store.fact(BOOT)?;
    if before.is_some_and(|it| it != boot_id.as_bytes()) {
        tracing::info!("the machine was restarted: its tasks are over");
        drop(std::fs::remove_dir_all(layout.keepers()));
    }
    store.commit(&[], &[(BOOT, boot_id.as_bytes().to_vec())])?;
    Ok(())
}

/// Deletes old sandboxes, again and again, and the files of images that nobody uses when there is little room.
async fn collect(config: Arc<Config>, collector: Collector, containers: Containers, stopping: CancellationToken) {
    let mut watch = tokio::time::interval(config.disk_watch_interval.max(Duration::from_millis(100)));
    loop {
        tokio::select! { _ = watch.tick() => {}, () = stopping.cancelled() => return }
        let (collector, config) = (collector.clone(), config.clone());
        let headroom = config.gc_disk_headroom;
        let done = tokio::task::spawn_blocking(move || {
            let used = host::FileSystem::at(&config.work_dir).map_or(0.0, |it| it.used_part());
            collector.collect(SystemTime::now(), gc::allowed_age(config.gc_delay, config.gc_disk_headroom, used));
            used
        });
        if done.await.is_ok_and(|used| used > 1.0 - headroom) {
            containers.prune_images(&[]).await;
        }
    }
}
