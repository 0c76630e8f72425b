//! The composition root: every loop of the process, once, in the order in which they start.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use probe_controls::{DockerConfig, Executor, HostShell};
use probe_endpoint::ControlPlane;
use proto::probe::v1::host::Cloud;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::budget::{self, Pace};
use crate::capture::{self, Ladder, LadderError};
use crate::cgroupfs::{CgroupReader, Mounts};
use crate::clock::Instants;
use crate::config::{CaptureMode, Config};
use crate::conntrack;
use crate::dns::kept;
use crate::driver::{Driver, INPUTS_MAX, Input, OBSERVATIONS_MAX};
use crate::host;
use crate::identity;
use crate::kubernetes;
use crate::local::Eyes;
use crate::procfs::Procfs;
use crate::procfs::sampler::Sampler;
use crate::publisher::{Limits, Publisher};
use crate::random::Random;
use crate::reload::{self, Reloader};
use crate::report::Builder;
use crate::runtimes::Runtimes;
use crate::stream::StreamEvent;
use crate::supervise::{Backoff, Supervisor};
use crate::telemetry::{self, Telemetry};
use crate::unix;
use crate::uplink::{self, Identity};
use crate::users::UserReader;

/// The whole stop takes at most this long.
const STOPPED_WITHIN: Duration = Duration::from_millis(4_500);

/// The first look has nothing to compare with: the second, which tells CPU shares, follows after this pause.
const SECOND_ROUND: Duration = Duration::from_secs(2);

/// Whoever looks at this node alone looks at its Unix sockets as often as this.
const UNIX_ALONE: Duration = Duration::from_secs(1);

/// The stream waits this long for the capture.
const CAPTURE_AWAITED: Duration = Duration::from_secs(3);

/// How long loops have to end in order.
const LOOP_STOPPED_WITHIN: Duration = Duration::from_secs(1);
/// What a collector has left to tell, and its lease to be given back.
const COLLECTOR_STOPPED_WITHIN: Duration = Duration::from_secs(4);

/// Runs a probe until the process is told to stop. SIGHUP makes it read its configuration from `source` again.
///
/// # Errors
/// When it cannot start.
pub fn run_process(config: Config, source: reload::Source) -> anyhow::Result<ExitCode> {
    enter_host(&config);
    // One thread for all loops; what blocks has threads of its own.
    // An agent also downloads, unpacks and stores.
    let blocking = if config.roles.run { 64 } else { 4 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(blocking).build()?;
    let status = runtime.block_on(async {
        // Who started it by hand and closes the terminal wants it to end.
        let hangup = if std::io::stdin().is_terminal() { None } else { Some(signal(SignalKind::hangup())?) };
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let app = App::start(config).await?;
        if let Some(hangup) = hangup {
            app.reload_on(hangup, source);
        }
        let shutdown = async move {
            tokio::select! { _ = interrupt.recv() => "SIGINT", _ = terminate.recv() => "SIGTERM" }
        };
        Ok(app.run_until(shutdown).await)
    });
    // A look at /proc that hangs must not keep the process.
    runtime.shutdown_timeout(Duration::from_millis(200));
    status
}

/// Enters the namespace of the host in which cgroups are named. Call it before there are other threads: they inherit it.
pub fn enter_host(config: &Config) {
    if let Err(error) = host::namespace::enter_cgroup_namespace(&config.proc_root) {
        tracing::warn!(%error, "the host's cgroup namespace cannot be entered (CAP_SYS_ADMIN): what containers use is not told");
    }
}

/// Whom a probe tells what it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Audience {
    /// A control plane, on a stream.
    ControlPlane,
    /// Whoever looks, in this process.
    Alone,
}

/// A running probe.
#[derive(Debug)]
pub struct App {
    supervisor: Supervisor,
    reloader: Arc<Reloader>,
    /// Cancelled when the capture has delivered everything.
    captured: CancellationToken,
    /// Cancel it to make the driver say goodbye.
    finish: CancellationToken,
    /// Cancelled when it has.
    finished: CancellationToken,
    /// Cancelled when the collector of a cluster has told its last.
    collected: CancellationToken,
    /// Why the capture cannot be, when it was asked for and cannot.
    refused: watch::Receiver<Option<String>>,
}

impl App {
    /// Binds what is to be bound and starts all loops.
    ///
    /// # Errors
    /// When the listener cannot be bound, or the probe cannot know who it is.
    pub async fn start(config: Config) -> anyhow::Result<App> {
        Self::start_for(config, Audience::ControlPlane).await.map(|(app, _)| app)
    }

    /// Starts what sees, and nothing that tells a control plane. What was seen is to be looked at.
    ///
    /// # Errors
    /// When the host has no name.
    pub async fn start_alone(config: Config) -> anyhow::Result<(App, Eyes)> {
        let (app, eyes) = Self::start_for(config, Audience::Alone).await?;
        Ok((app, eyes.context("this probe watches no node")?))
    }

    async fn start_for(config: Config, audience: Audience) -> anyhow::Result<(App, Option<Eyes>)> {
        let telemetry = Telemetry::new();
        let listener = match config.admin_address {
            Some(address) => Some(TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?),
            None => None,
        };
        if !config.roles.observe && audience == Audience::ControlPlane {
            return Self::start_unobserving(&config, listener, telemetry).await.map(|app| (app, None));
        }
        let identity = match audience {
            Audience::ControlPlane => identity::establish(&config, &mut Random::from_system())?,
            // Nobody is told of it, so nothing has to be kept.
            Audience::Alone => Identity { host_name: identity::host_name(&config)?, ..Identity::default() },
        };
        let admin = listener.as_ref().and_then(|it| it.local_addr().ok());
        tracing::info!(version = env!("CARGO_PKG_VERSION"), probe_id = identity.probe_id, host_name = identity.host_name, ?admin, control_plane = %config.control_plane.uri(), "probe starts");

        let procfs = Procfs::new(&config.proc_root, config.command_line_arguments).with_masks(config.masks.clone());
        let procfs = Arc::new(procfs.with_agents_root(&config.agent.cgroups_root));
        let mounts = capture::mounts(&config.proc_root).with_unified(config.cgroup_root.clone());
        let (observations, observed) = mpsc::channel(OBSERVATIONS_MAX);
        let (inputs, inbox) = mpsc::channel(INPUTS_MAX);
        if host::namespace::has_own_cgroup_namespace(&config.proc_root) {
            let sentence =
                "What containers use, and in which of them processes are, is not told: the host's cgroup namespace cannot be entered.";
            // The inbox is new and has room.
            drop(inputs.try_send(Input::BlindSpot { cause: "cgroup-namespace", sentence: Some(sentence.to_owned()) }));
        }
        let supervisor = Supervisor::new(telemetry.clone());
        let stopping = supervisor.stopping().clone();
        let finish = CancellationToken::new();

        let reloader = Arc::new(Reloader::new(config.clone(), telemetry.clone()).of_node(procfs.clone(), inputs.clone()));
        let mut builder = Builder::of_host(&identity.probe_id)
            .with_task_labels(config.agent.task_labels.clone())
            .with_agents_root(&config.agent.cgroups_root);
        builder.set_users(UserReader::new(&config.proc_root).users());
        let mut driver = Driver::new(Publisher::new(builder, Limits::default()), procfs.clone(), telemetry.clone());
        let pace = Pace::default();
        driver = driver.with_pace(pace.clone());
        if audience == Audience::Alone {
            driver = driver.looked_at();
        }
        let wished_interval = driver.metrics_interval();
        let looks = driver.container_looks();
        let finished = supervisor.essential("driver", driver.run(observed, inbox, finish.clone()));

        if let Some(listener) = listener {
            supervisor
                .essential("admin", admin::run(listener, telemetry.clone(), config.roles, config.agent.metrics.clone(), stopping.clone()));
        }
        let collected = match config.roles.kubernetes && audience == Audience::ControlPlane {
            true => collect(&supervisor, reloader.current(), &identity.host_name, &telemetry),
            false => ended(),
        };
        if config.roles.run && audience == Audience::ControlPlane {
            run_tasks(&supervisor, &config, &identity.host_name).await?;
        }
        let (refuse, refused) = watch::channel(None);
        let ladder = Ladder {
            mode: config.capture,
            pin_dir: config.pin_dir.clone(),
            abi_salt: config.abi_salt,
            dns: config.dns,
            current: Some(reloader.current()),
            procfs: procfs.clone(),
            cgroup_root: config.cgroup_root.clone(),
            pace: pace.clone(),
            kernel_log: config.kernel_log,
            // Whoever looks every second wants to see what moved since.
            sweep_interval: config.metrics_interval.min(crate::ebpf::Config::default().sweep_interval),
            telemetry: telemetry.clone(),
            unified: config.cgroup_root.clone().or_else(|| mounts.unified.clone()),
            observations: observations.clone(),
            inputs: inputs.clone(),
            started: CancellationToken::new(),
            climbed: Arc::default(),
        };
        let started = ladder.started.clone();
        let captured = supervisor.restarting("capture", Backoff::EDGE, {
            let stopping = stopping.clone();
            move || capture(ladder.clone(), stopping.clone(), refuse.clone())
        });
        supervisor.restarting("conntrack", Backoff::EDGE, {
            let conntrack = conntrack::Config::of_host(&procfs);
            let (telemetry, inputs, stopping, current) = (telemetry.clone(), inputs.clone(), stopping.clone(), reloader.current());
            move || {
                let (conntrack, telemetry, observations, inputs) =
                    (conntrack.clone(), telemetry.clone(), observations.clone(), inputs.clone());
                let run = move |wanted: bool, stop: CancellationToken| {
                    let run = conntrack::run(conntrack.clone(), telemetry.clone(), observations.clone(), inputs.clone(), stop.clone());
                    let left = conntrack::leave(inputs.clone(), stop);
                    async move { if wanted { run.await } else { left.await } }
                };
                reload::following(current.clone(), |config| config.conntrack, stopping.clone(), LOOP_STOPPED_WITHIN, run)
            }
        });
        supervisor.restarting("unix-sockets", Backoff::EDGE, {
            let (procfs, inputs, stopping, current) = (procfs.clone(), inputs.clone(), stopping.clone(), reloader.current());
            let pace = pace.clone();
            move || {
                let (procfs, inputs) = (procfs.clone(), inputs.clone());
                let every = unix::Every {
                    interval: if audience == Audience::Alone { UNIX_ALONE } else { unix::LOOK_INTERVAL },
                    pace: pace.clone(),
                };
                let run = move |wanted, stop| unix::run(wanted, procfs.clone(), every.clone(), inputs.clone(), stop);
                reload::following(current.clone(), |config| config.unix_sockets, stopping.clone(), LOOP_STOPPED_WITHIN, run)
            }
        });
        let (cloud, rented) = watch::channel(None);
        if let Some(config) = config.cloud_metadata.clone() {
            let stopping = stopping.clone();
            supervisor.restarting("cloud", Backoff::EDGE, move || host::cloud::run(config.clone(), cloud.clone(), stopping.clone()));
        }
        supervisor.restarting("samples", Backoff::EDGE, {
            let (inputs, stopping, host_name) = (inputs.clone(), stopping.clone(), identity.host_name.clone());
            let interval = Interval { current: reloader.current(), wished: wished_interval, pace: pace.clone() };
            let place = Place { procfs, mounts, host_name, rented };
            move || samples(place.clone(), interval.clone(), inputs.clone(), stopping.clone())
        });
        supervisor.restarting("budget", Backoff::EDGE, {
            let (inputs, stopping, current, telemetry) = (inputs.clone(), stopping.clone(), reloader.current(), telemetry.clone());
            move || budget::run(pace.clone(), current.clone(), inputs.clone(), telemetry.clone(), stopping.clone())
        });
        let numbers = telemetry.metrics().desk();
        let runtimes = Runtimes { current: reloader.current(), telemetry, inputs: inputs.clone(), stopping: stopping.clone() };
        supervisor.restarting("docker", Backoff::EDGE, {
            let runtimes = runtimes.clone();
            move || runtimes.clone().docker()
        });
        supervisor.restarting("cri", Backoff::EDGE, move || runtimes.clone().cri(looks.clone()));
        let current = reloader.current();
        let app = App { supervisor: supervisor.clone(), reloader, captured, finish, finished, collected, refused: refused.clone() };
        let eyes = Eyes { inputs: inputs.clone(), started: started.clone(), refused };
        if audience == Audience::Alone {
            return Ok((app, Some(eyes)));
        }
        supervisor.restarting("names", Backoff::EDGE, {
            let (state, inputs, stopping) = (config.state_dir.clone(), inputs.clone(), stopping.clone());
            move || kept::run(state.clone(), inputs.clone(), stopping.clone())
        });
        supervisor.restarting("uplink", Backoff::EDGE, move || {
            let (started, identity, inputs, now, numbers) =
                (started.clone(), identity.clone(), inputs.clone(), current.clone(), numbers.clone());
            let run = move |_, stop: CancellationToken| {
                let (started, identity, inputs) = (started.clone(), identity.clone(), inputs.clone());
                let config = now.borrow().clone();
                let controls = uplink::Controls { executor: executor(&config), numbers: numbers.clone() };
                let control_plane = config.control_plane.clone();
                async move {
                    // A stream to another control plane, which the driver still believes in, is no more.
                    drop(inputs.send(Input::Stream(StreamEvent::Ended)).await);
                    // The first words to the control plane are how the probe sees, if that is found out soon.
                    drop(tokio::time::timeout(CAPTURE_AWAITED, started.cancelled()).await);
                    uplink::run(control_plane, identity, controls, inputs, stop).await;
                }
            };
            // The driver ends a stream when the probe stops; when the address changes, or what may be done here, it is simply cut.
            let part = |config: &Config| (config.control_plane.clone(), config.docker_socket.clone(), config.controls, config.host_shell);
            reload::following(current.clone(), part, stopping.clone(), Duration::ZERO, run)
        });
        Ok((app, Some(eyes)))
    }

    /// Reads the configuration from `source` again at every `hangup`.
    pub fn reload_on(&self, mut hangup: Signal, source: reload::Source) {
        let (reloader, stopping) = (self.reloader.clone(), self.supervisor.stopping().clone());
        self.supervisor.essential("reload", async move {
            loop {
                tokio::select! {
                    received = hangup.recv() => match received {
                        Some(()) => reloader.reload(&source).await,
                        None => stopping.cancelled().await,
                    },
                    () = stopping.cancelled() => return,
                }
            }
        });
    }

    /// A process that does not watch its node: the collector of a cluster, which needs no privilege, or a Mesos agent.
    async fn start_unobserving(config: &Config, listener: Option<TcpListener>, telemetry: Telemetry) -> anyhow::Result<App> {
        let host_name = identity::host_name(config)?;
        let admin = listener.as_ref().and_then(|it| it.local_addr().ok());
        let cluster = config.kubernetes.cluster_name.as_str();
        let (kubernetes, run) = (config.roles.kubernetes, config.roles.run);
        tracing::info!(version = env!("CARGO_PKG_VERSION"), kubernetes, run, cluster, host_name, ?admin, control_plane = %config.control_plane.uri(), "starts");
        let supervisor = Supervisor::new(telemetry.clone());
        let stopping = supervisor.stopping().clone();
        if let Some(listener) = listener {
            supervisor.essential("admin", admin::run(listener, telemetry.clone(), config.roles, config.agent.metrics.clone(), stopping));
        }
        let reloader = Arc::new(Reloader::new(config.clone(), telemetry.clone()));
        let collected = if kubernetes { collect(&supervisor, reloader.current(), &host_name, &telemetry) } else { ended() };
        if run {
            run_tasks(&supervisor, config, &host_name).await?;
        }
        let (_, refused) = watch::channel(None);
        Ok(App { supervisor, reloader, captured: ended(), finish: CancellationToken::new(), finished: ended(), collected, refused })
    }

    /// Runs until `shutdown`, then stops in order: the capture delivers its last, the driver tells it and says goodbye, the rest ends.
    pub async fn run_until(mut self, shutdown: impl Future<Output = &'static str>) -> ExitCode {
        let failed = tokio::select! {
            signal = shutdown => {
                tracing::info!(signal, "probe stops");
                None
            }
            name = self.supervisor.failed() => Some(format!("{name} ended")),
            Ok(reason) = self.refused.wait_for(Option::is_some) => reason.clone(),
        };
        if let Some(reason) = &failed {
            tracing::error!(reason, "probe cannot go on");
        }
        self.supervisor.stop();
        let stopped = async {
            // What hangs in the kernel must not keep the rest from being told.
            drop(tokio::time::timeout(Duration::from_millis(2_500), self.captured.cancelled()).await);
            self.finish.cancel();
            self.finished.cancelled().await;
            self.collected.cancelled().await;
        };
        if tokio::time::timeout(STOPPED_WITHIN, stopped).await.is_err() {
            tracing::warn!(within = ?STOPPED_WITHIN, "not everything stopped in time");
        }
        if failed.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

/// Who does on this node what the control plane asks for; `None` where nothing may be done.
fn executor(config: &Config) -> Option<Arc<dyn Executor>> {
    let may = config.controls && (config.docker_socket.is_some() || config.host_shell);
    may.then(|| {
        let host_shell = config.host_shell.then(|| HostShell::new(config.proc_root.clone()));
        let docker = DockerConfig { socket: config.docker_socket.clone(), proc_root: config.proc_root.clone(), host_shell };
        Arc::new(probe_controls::Docker::new(docker)) as Arc<dyn Executor>
    })
}

/// Starts the collector of a cluster. The token that is returned is cancelled when it has ended.
fn collect(supervisor: &Supervisor, current: reload::Current, host_name: &str, telemetry: &Telemetry) -> CancellationToken {
    let (stopping, telemetry, host_name) = (supervisor.stopping().clone(), telemetry.clone(), host_name.to_owned());
    // The id that was given is the node's, where this process is the node's probe as well.
    let probe_id = {
        let config = current.borrow();
        config.probe_id.clone().filter(|_| !config.roles.observe)
    };
    supervisor.restarting("kubernetes", Backoff::EDGE, move || {
        let (host_name, probe_id, telemetry) = (host_name.clone(), probe_id.clone(), telemetry.clone());
        let run = move |(config, control_plane, controls, masks): (kubernetes::Config, ControlPlane, bool, crate::mask::Masks), stop| {
            let (host_name, probe_id, telemetry) = (host_name.clone(), probe_id.clone(), telemetry.clone());
            kubernetes::Role { config, control_plane, host_name, probe_id, controls, masks, telemetry }.run(stop)
        };
        let part = |config: &Config| (config.kubernetes.clone(), config.control_plane.clone(), config.controls, config.masks.clone());
        reload::following(current.clone(), part, stopping.clone(), COLLECTOR_STOPPED_WITHIN, run)
    })
}

/// Starts the Mesos agent. What it runs outlives this process.
async fn run_tasks(supervisor: &Supervisor, config: &Config, host_name: &str) -> anyhow::Result<()> {
    let mut agent = config.agent.clone();
    if agent.hostname.is_empty() {
        host_name.clone_into(&mut agent.hostname);
    }
    let listener = TcpListener::bind(agent.listen).await.with_context(|| format!("cannot listen on {}", agent.listen))?;
    tracing::info!(address = ?listener.local_addr().ok(), work_dir = %agent.work_dir.display(), "agent starts");
    let usual = config.log_filter.clone();
    agent.verbosity.applied_by(move |level| {
        let more = match level {
            0 => "",
            1 => ",agent=debug",
            _ => ",agent=trace",
        };
        if let Err(error) = telemetry::change_filter(&format!("{usual}{more}")) {
            tracing::warn!(error = format!("{error:#}"), level, "what is logged cannot be changed");
        }
    });
    let stopping = supervisor.stopping().clone();
    let mut user = signal(SignalKind::user_defined1())?;
    let (leave, stops) = (agent.leave.clone(), stopping.clone());
    supervisor.essential("agent_leave", async move {
        tokio::select! {
            Some(()) = user.recv() => {
                leave.cancel();
                stops.cancelled().await;
            }
            () = stops.cancelled() => {}
        }
    });
    supervisor.essential("agent", async move {
        if let Err(error) = ::agent::agent::run(agent, listener, stopping).await {
            tracing::error!(error = format!("{:#}", anyhow::Error::from(error)), "the agent cannot go on");
        }
    });
    Ok(())
}

/// The end of what never began.
fn ended() -> CancellationToken {
    let token = CancellationToken::new();
    token.cancel();
    token
}

/// One climb of the ladder, for as long as it holds.
async fn capture(ladder: Ladder, stopping: CancellationToken, refuse: watch::Sender<Option<String>>) {
    let demanded = ladder.mode != CaptureMode::Auto;
    match ladder.run(stopping).await {
        Ok(()) | Err(LadderError::Stopping) => {}
        Err(error) if demanded => {
            refuse.send_replace(Some(format!("{:#}", anyhow::Error::from(error))));
        }
        Err(error) => tracing::error!(error = format!("{:#}", anyhow::Error::from(error)), "nothing can be seen"),
    }
}

/// How often samples are taken: as the control plane wishes, else as configured.
#[derive(Clone, Debug)]
struct Interval {
    current: reload::Current,
    wished: watch::Receiver<Option<Duration>>,
    pace: Pace,
}

impl Interval {
    fn get(&self) -> Duration {
        self.wished.borrow().unwrap_or(self.current.borrow().metrics_interval).clamp(Duration::from_secs(1), Duration::from_secs(600))
    }
}

/// Where samples are taken.
#[derive(Clone, Debug)]
struct Place {
    procfs: Arc<Procfs>,
    mounts: Mounts,
    host_name: String,
    /// Where the host is rented, once that is known.
    rented: watch::Receiver<Option<Cloud>>,
}

/// Looks at the host, its processes and its containers, at once and then at every interval.
async fn samples(place: Place, interval: Interval, inputs: mpsc::Sender<Input>, stopping: CancellationToken) {
    let page_bytes =
        nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().and_then(|it| u64::try_from(it).ok()).unwrap_or(4_096);
    let Place { procfs, mounts, host_name, rented } = place;
    let mut sampler = Sampler::new(procfs.clone(), CgroupReader::new(mounts), page_bytes);
    let mut pause = SECOND_ROUND.min(interval.get());
    loop {
        let (reply, answer) = oneshot::channel();
        if inputs.send(Input::ContainersWanted(reply)).await.is_err() {
            return;
        }
        let Ok(containers) = answer.await else { return };
        let (procfs, host_name, every) = (procfs.clone(), host_name.clone(), interval.get());
        let looked = tokio::task::spawn_blocking(move || {
            let round = sampler.look(Instants::read(), &containers, every);
            (host::read(&procfs, &host_name), round, sampler)
        });
        let Ok((mut host, round, looked)) = looked.await else { return };
        sampler = looked;
        host.cloud = rented.borrow().clone();
        if inputs.send(Input::Host(Box::new(host))).await.is_err() || inputs.send(Input::Round(Box::new(round))).await.is_err() {
            return;
        }
        tokio::select! {
            () = interval.pace.sleep(pause) => {}
            () = stopping.cancelled() => return,
        }
        pause = interval.get();
    }
}
