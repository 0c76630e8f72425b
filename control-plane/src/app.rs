//! The composition root: the one place that sees every room. Names each loop once, in the order in which it starts.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use edge_tls::Tls;
use relay::{Audit, Switchboard};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::autoscale;
use crate::clock::Clock;
use crate::config::{Config, Listener, Service};
use crate::dns;
use crate::drivers::history::{Copies, HistoryFeed};
use crate::drivers::{self, OldReports, TopologyHandle};
use crate::grpc::{self, ProbeService};
use crate::http::{self, Entrance};
use crate::known_probes;
use crate::listen::bind;
use crate::marathon;
use crate::mesos::{self, Mesos};
use crate::problems::{Part, Problems};
use crate::readiness::Readiness;
use crate::replicas::{self, Follower, Front, HandOverError, Hold, Inside, Ports, Purpose, Record, Replicas, Us};
use crate::store::Store;
use crate::supervise::{Backoff, Supervisor};
use crate::telemetry::Telemetry;
use crate::telemetry::events::{HistoryFailed, PicturesDrawn};
use crate::zksync;

/// How long everything may take to stop. Shorter than what orchestrators grant before they kill.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// Connections besides WebSockets.
const HTTP_CONNECTIONS: usize = 4_096;
/// Connections to the Mesos master's API: every framework keeps one open.
const MESOS_CONNECTIONS: usize = 20_000;
/// Nodes of Weave Scope's probes in the window, each as often as it is reported within it.
const OLD_PROBE_NODES: usize = 2_000_000;

/// Length of a segment of the history: what has to be read at most to show a moment.
const HISTORY_SEGMENT: Duration = Duration::from_secs(60);

/// What a process is given from outside; tests give their own.
#[derive(Debug)]
pub struct Deps {
    /// What survives a restart.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Clock,
    /// Random: what this run is told apart from others by.
    pub seed: u64,
    /// Name of the machine.
    pub hostname: String,
    /// Counters.
    pub telemetry: Telemetry,
    /// How long the bodies of requests may take.
    pub patience: http::Patience,
}

/// Connections of other control planes' probes and agents that wait to be served.
const CARRIED_CAPACITY: usize = 256;

/// A running control plane.
#[derive(Debug)]
pub struct App {
    supervisor: Supervisor,
    store: Arc<dyn Store>,
    topology: TopologyHandle,
    http_address: SocketAddr,
    grpc_address: SocketAddr,
    mesos_address: Option<SocketAddr>,
    replicas: Option<Replicas>,
    marathon_address: Option<SocketAddr>,
    stop_deadline: Duration,
}

impl App {
    /// Binds the listeners and starts every loop.
    ///
    /// # Errors
    /// When an address is taken or the store cannot be read.
    pub async fn build(config: &Config, deps: Deps) -> anyhow::Result<Self> {
        let Deps { store, clock, seed, hostname, telemetry, patience } = deps;
        // All before any loop, so that a mistake costs nothing.
        let tls = config.tls.as_ref().map(|it| Tls::load(it.files.clone())).transpose().context("reading the certificate")?;
        let tls_of = |listener| tls.clone().filter(|_| config.tls.as_ref().is_some_and(|it| it.covers(listener)));
        let users = config.users_file.as_deref().map(read_users).transpose()?;
        let users = match &config.scope_login {
            Some(login) => Some(http::Users::with(users, &login.user, &login.password)),
            None => users,
        };
        let agent_login = config.agent_login_file.as_deref().map(|file| http::basic_authorization(&http::read_login(file)?)).transpose()?;
        let http_listener = bind(config.http_address, "HTTP")?;
        let grpc_listener = bind(config.grpc_address, "gRPC")?;
        let mesos_address = config.mesos_address.filter(|_| config.services.contains(&Service::Master));
        let mesos_listener = mesos_address.map(|address| bind(address, "Mesos")).transpose()?;
        let replica_listener = config.zk.as_ref().map(|_| bind(config.replica_address, "replicas'")).transpose()?;
        let marathon_address = config.marathon_address.filter(|_| config.services.contains(&Service::Scheduler));
        let marathon_listener = marathon_address.map(|address| bind(address, "Marathon")).transpose()?;
        let dns_sockets = config.dns_address.map(|address| dns::bind(address).context("binding the DNS listener")).transpose()?;
        let dns_http_listener = config.dns_http_address.map(|address| bind(address, "names' HTTP")).transpose()?;
        let known = store.probes().context("reading the known probes")?;

        let (readiness, problems) = (Readiness::default(), Problems::default());
        readiness.store_open();
        if let Some(aside) = store.set_aside() {
            let told =
                "the store was damaged and begun anew: which probes there were is forgotten until they come back; what there was lies in";
            problems.tell(Part::EarlierStore, format!("{told} {}", aside.display()));
        }
        let awaited = known_probes::present_before(&known);
        readiness.await_probes_of(awaited.iter().map(|probe| probe.host_name.clone()).collect());

        let supervisor = Supervisor::new(telemetry.clone());
        if let Some(tls) = tls.clone() {
            supervisor.one_off("certificates", tls.follow(supervisor.stopping().clone()));
        }
        let inner_tls = tls.clone().filter(Tls::guards_replicas);
        if config.zk.is_some() && (tls.is_some() || users.is_some()) && inner_tls.is_none() {
            tracing::warn!("control planes speak to each other in the clear: --tls-client-ca would let them prove who they are");
        }
        let now = clock.clone();
        let (feed, history, copies) = start_history(config, &supervisor, &clock, &telemetry);
        let counters = telemetry.clone();
        let drawn = move |took| PicturesDrawn { took }.emit(&counters);
        let (topology, driver) = drivers::topology::start(topology_config(config), move || now.now(), feed, drawn);
        supervisor.essential("topology_driver", driver);

        let zksync = match config.services.contains(&Service::ZkSync) {
            true => Some(zksync::start(config, &supervisor, topology.clone(), (seed, hostname.as_str()), config.zk.is_some())?),
            false => None,
        };
        let now = clock.clone();
        let memory = usize::try_from(config.old_probes_memory).unwrap_or(usize::MAX);
        let limits = scope_report::WindowLimits { nodes: OLD_PROBE_NODES, memory };
        let old_reports = start_old_reports(config, &supervisor, (clock.clone(), limits), (&telemetry, &problems));
        let (old_probes, driver) = drivers::old_probes::start(config.window, limits, topology.clone(), move || now.now());
        supervisor.essential("old_probes_driver", driver);
        // Deadlines of calls and pipes do not jump with the wall's clock.
        let (wall, begun, begun_at) = (clock.clone(), Instant::now(), clock.now());
        let clocks = (move || begun_at + begun.elapsed(), move || wall.now());
        let switchboard = Switchboard::new(relay::Limits::DEFAULT, clocks, telemetry.clone(), Audit::in_directory(&config.data_dir));
        let (board, stopping) = (switchboard.clone(), supervisor.stopping().clone());
        supervisor.restarting("switchboard", Backoff::EDGE, move || {
            let (board, stopping) = (board.clone(), stopping.clone());
            async move { board.run(stopping).await }
        });
        let page = http::lead::Page { port: http_listener.1.port(), tls: tls_of(Listener::Http).is_some() };
        let mesos_address = mesos_listener.as_ref().map(|(_, address)| *address);
        let master_id = edge_mesos::new_uuid();
        let replicas = match (&config.zk, &replica_listener) {
            (Some(ensemble), Some((_, replica))) => {
                let ports = Ports {
                    http: http_listener.1.port(),
                    grpc: grpc_listener.1.port(),
                    mesos: mesos_address.map(|it| it.port()),
                    marathon: marathon_listener.as_ref().map(|(_, address)| address.port()),
                    replica: replica.port(),
                };
                let host = config.advertise.clone().unwrap_or_else(|| mesos::outward_address().to_string());
                let us = Us { id: master_id.clone(), host, ports };
                let hold = Hold::new(replicas::HOLD, supervisor.stopping().clone(), telemetry.clone());
                let between = (inner_tls.clone(), hold);
                Some(Replicas::start(ensemble, config.zk_session_timeout, &us, between, (&supervisor, problems.clone()))?)
            }
            _ => None,
        };
        let record = Record { history: history.kept().cloned(), audit: switchboard.audit().clone() };
        if let Some(replicas) = &replicas {
            let follower = Follower { record: record.clone(), copies, standing: replicas.standing(), tls: replicas.tls() };
            let (follower, stopping) = (Arc::new(follower), supervisor.stopping().clone());
            supervisor.restarting("record_follower", Backoff::EDGE, move || replicas::follow(follower.clone(), stopping.clone()));
        }
        if let (Some(zksync), Some(replicas)) = (&zksync, &replicas) {
            zksync::lead(zksync.clone(), replicas, &supervisor);
        }
        let mesos = match config.services.contains(&Service::Master) {
            true => {
                let who = mesos::Who { hostname: &hostname, id: master_id, seed };
                Some(mesos::start(config, mesos_address, who, replicas.as_ref(), &supervisor, &clock)?)
            }
            false => None,
        };
        if let (Some(mesos), Some((listener, _))) = (&mesos, mesos_listener) {
            // Clients of Mesos are sent to the leader, not carried.
            let front = Front::alone(Purpose::Http);
            let entrance = Entrance { listener, tls: tls_of(Listener::Mesos), limit: MESOS_CONNECTIONS, front };
            mesos.serve(entrance, page, &supervisor, &telemetry);
        }
        let marathon_address = marathon_listener.as_ref().map(|(_, address)| *address);
        let marathon = match config.services.contains(&Service::Scheduler) {
            true => {
                let who = (hostname.as_str(), seed);
                let own_master = mesos_address.map(|address| (address, tls_of(Listener::Mesos).is_some()));
                let (addresses, connected) = ((marathon_address, own_master), autoscale::on_the_map(topology.clone()));
                Some(marathon::start(config, addresses, who, replicas.as_ref(), connected, &supervisor, &clock)?)
            }
            false => None,
        };
        if let (Some(marathon), Some((listener, _))) = (&marathon, marathon_listener) {
            let front = Front::of(replicas.as_ref(), Purpose::Marathon);
            let entrance = Entrance { listener, tls: tls_of(Listener::Marathon), limit: HTTP_CONNECTIONS, front };
            marathon.serve(entrance, page, &supervisor, &telemetry);
        }

        if dns_sockets.is_some() || dns_http_listener.is_some() {
            let own_master = mesos_address.map(|address| (address, tls_of(Listener::Mesos).is_some()));
            let names = dns::start(config, dns_sockets, own_master, &supervisor)?;
            if let Some((listener, _)) = dns_http_listener {
                let front = Front::alone(Purpose::Marathon);
                let entrance = Entrance { listener, tls: tls_of(Listener::Http), limit: HTTP_CONNECTIONS, front };
                names.serve(entrance, &supervisor, &telemetry);
            }
        }

        let id = format!("{:x}", seed >> 1);
        let http_context = http::Context {
            topology: topology.clone(),
            zksync,
            history,
            old_probes,
            old_reports,
            switchboard: switchboard.clone(),
            instance: Arc::new(http::Instance { id: id.clone(), version: env!("CARGO_PKG_VERSION").to_owned(), hostname }),
            readiness: readiness.clone(),
            problems: problems.clone(),
            supervisor: supervisor.clone(),
            telemetry: telemetry.clone(),
            clock: clock.clone(),
            mesos: mesos.as_ref().map(|it| it.context.clone()),
            marathon: marathon.as_ref().map(|it| it.context.clone()),
            lead: replicas.as_ref().map(Replicas::lead),
            masters: config.scheduler_masters.clone(),
            users: users.clone(),
            allowed_origins: config.allowed_origins.clone(),
            agent_login,
            label_filters: config.label_filters.clone().into(),
            metrics_graph: config.metrics_graph.clone(),
            limits: http::Limits {
                websocket_clients: config.max_websocket_clients,
                connections: HTTP_CONNECTIONS,
                window: config.window,
                patience,
            },
        };
        let source = http::scope::rpc::Source::new(&http_context);
        let control = edge_grpc::Limits::DEFAULT;
        let control = edge_grpc::Context::new(source, switchboard.clone(), telemetry.clone(), control, supervisor.stopping().clone());
        let services = edge_grpc::Services::new(&control);
        let services = match http_context.zksync.clone() {
            Some(zksync) => services.with(zksync_service::grpc::server(zksync)),
            None => services,
        };
        let (routes, serving) = services.into_routes().await;
        let routes = http::ask_of_messages(routes, users);
        let (told, stopping) = (readiness.clone(), supervisor.stopping().clone());
        supervisor.restarting("grpc_health", Backoff::EDGE, move || tell_health(serving.clone(), told.clone(), stopping.clone()));
        start_edges(
            &supervisor,
            (http_listener.0, tls_of(Listener::Http)),
            (grpc_listener.0, tls_of(Listener::Grpc)),
            (&http_context, routes),
            grpc::Context {
                topology: topology.clone(),
                switchboard,
                control_plane_id: id.into(),
                supervisor: supervisor.clone(),
                telemetry: telemetry.clone(),
                clock: clock.clone(),
                limits: grpc::Limits::for_probes(config.max_probes),
            },
            (mesos, marathon.map(|it| it.router)),
            (replicas.as_ref(), replica_listener.map(|(listener, _)| listener), inner_tls, record),
        );
        readiness.listening();

        let stopping = supervisor.stopping().clone();
        supervisor.one_off("resync", known_probes::await_resync(topology.clone(), readiness, awaited, stopping.clone()));
        let (map, kept) = (topology.clone(), store.clone());
        supervisor.restarting("known_probes", Backoff::EDGE, move || {
            known_probes::record(map.clone(), kept.clone(), clock.clone(), (telemetry.clone(), problems.clone()), stopping.clone())
        });

        let (http_address, grpc_address) = (http_listener.1, grpc_listener.1);
        tracing::info!(version = env!("CARGO_PKG_VERSION"), installation = store.installation(), %http_address, %grpc_address, "control plane started");
        Ok(App {
            supervisor,
            store,
            topology,
            http_address,
            grpc_address,
            mesos_address,
            marathon_address,
            replicas,
            stop_deadline: STOP_DEADLINE,
        })
    }

    /// Where HTTP is served.
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// Where probes are served.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    /// Where the Mesos master's API is served, if it is.
    pub fn mesos_address(&self) -> Option<SocketAddr> {
        self.mesos_address
    }

    /// Where Marathon's API is served, if it is.
    pub fn marathon_address(&self) -> Option<SocketAddr> {
        self.marathon_address
    }

    /// The map.
    pub fn topology(&self) -> &TopologyHandle {
        &self.topology
    }

    /// Runs until `signal`, or until the lead was given up on request, then stops in order: another one leads, not ready any more, no new connections,
    /// streams end, the driver drains, the store is safe.
    ///
    /// # Errors
    /// When a loop that the process cannot be without has ended, or the store cannot be made safe.
    pub async fn run_until(self, signal: impl Future<Output = ()>) -> anyhow::Result<()> {
        let lead = self.replicas.as_ref().map(Replicas::lead);
        let given_up = async {
            match &lead {
                Some(lead) => lead.given_up().await,
                None => std::future::pending().await,
            }
        };
        let failed = tokio::select! {
            () = signal => None,
            () = given_up => None,
            name = self.supervisor.failed() => Some(name),
        };
        let App { supervisor, store, topology, replicas, stop_deadline, .. } = self;
        tracing::info!("stopping");
        // What only a leader has ends with the lead, which is no failure then.
        let failed = failed.filter(|_| lead.as_ref().is_none_or(|lead| !lead.is_handed_over()));
        if let (Some(lead), None) = (&lead, failed) {
            match lead.hand_over().await {
                Err(error @ HandOverError::NobodyYet) => tracing::warn!("{error}"),
                _ => lead.handed_over().await,
            }
        }
        if let Some(replicas) = &replicas {
            // Another one leads before our last client has left.
            replicas.withdraw();
        }
        supervisor.stop();
        // Looks on no longer.
        drop(replicas);
        // The driver ends when nobody can ask it anything any more.
        drop(topology);
        if timeout(stop_deadline, supervisor.ended()).await.is_err() {
            tracing::warn!(running = supervisor.running(), "not everything stopped in time");
        }
        tokio::task::spawn_blocking(move || store.flush()).await.context("flushing the store")??;
        match failed {
            None => {
                tracing::info!("stopped");
                Ok(())
            }
            Some(name) => anyhow::bail!("the loop {name} ended, without which this process cannot go on"),
        }
    }
}

/// The history, if one is kept, and what a follower keeps of the leader's. A directory that cannot be used keeps nothing else from working.
fn start_history(
    config: &Config,
    supervisor: &Supervisor,
    clock: &Clock,
    telemetry: &Telemetry,
) -> (Option<HistoryFeed>, http::History, Option<Copies>) {
    let Some(keep_for) = config.history else { return (None, http::History::Off, None) };
    let settings = history::Settings {
        directory: config.data_dir.join("history"),
        keep_for,
        keep_bytes: config.history_bytes,
        segment: HISTORY_SEGMENT,
    };
    let (copies, pieces) = config.zk.as_ref().map(|_| drivers::history::copies()).unzip();
    match drivers::history::open(settings, topology_config(config), clock.clone(), telemetry.clone(), pieces) {
        Ok((feed, handle, write)) => {
            supervisor.one_off("history_writer", async move {
                // It only fails by a panic, which must not pass unseen.
                if let Err(error) = tokio::task::spawn_blocking(write).await
                    && let Ok(panic) = error.try_into_panic()
                {
                    std::panic::resume_unwind(panic);
                }
            });
            (Some(feed), http::History::Kept(handle), copies)
        }
        Err(error) => {
            HistoryFailed { error: &error }.emit(telemetry);
            (None, http::History::Broken(format!("the history cannot be opened: {error}")), None)
        }
    }
}

/// The reports of Weave Scope's probes, kept for as long as the history reaches. What cannot be used keeps nothing else from working.
fn start_old_reports(
    config: &Config,
    supervisor: &Supervisor,
    (clock, window_limits): (Clock, scope_report::WindowLimits),
    (telemetry, problems): (&Telemetry, &Problems),
) -> Option<OldReports> {
    let settings = archive::Settings {
        directory: archive::directory_in(&config.data_dir),
        keep_for: config.history?,
        keep_bytes: config.history_bytes / 4,
        segment: HISTORY_SEGMENT,
    };
    let limits = (http::scope::REPORT_LIMITS, window_limits);
    let stopping = supervisor.stopping().clone();
    let (ended, now) = (move || stopping.is_cancelled(), move || clock.now());
    match drivers::old_reports::open(settings, config.window, limits, (telemetry.clone(), problems.clone()), (ended, now)) {
        Ok((reports, write)) => {
            supervisor.one_off("old_reports_writer", async move {
                if let Err(error) = tokio::task::spawn_blocking(write).await
                    && let Ok(panic) = error.try_into_panic()
                {
                    std::panic::resume_unwind(panic);
                }
            });
            Some(reports)
        }
        Err(error) => {
            HistoryFailed { error: &error }.emit(telemetry);
            problems.say(Part::OldReports, "the reports of Weave Scope's probes cannot be kept", &error);
            None
        }
    }
}

fn start_edges(
    supervisor: &Supervisor,
    (http_listener, http_tls): (Arc<TcpListener>, Option<Tls>),
    (grpc_listener, grpc_tls): (Arc<TcpListener>, Option<Tls>),
    (http_context, routes): (&http::Context, Routes),
    grpc_context: grpc::Context,
    (mesos, marathon): (Option<Mesos>, Option<Router>),
    (replicas, replica_listener, inner_tls, record): (Option<&Replicas>, Option<Arc<TcpListener>>, Option<Tls>, Record),
) {
    let telemetry = http_context.telemetry.clone();
    let router = http::router(http_context.clone());
    let (carry, carried) = mpsc::channel(CARRIED_CAPACITY);
    if let Some(listener) = replica_listener {
        let front = Front::of(replicas, Purpose::Http);
        let (http, telemetry) = (router.clone(), telemetry.clone());
        let inside = Inside { front, http, grpc: carry, marathon, record, tls: inner_tls, telemetry };
        replicas::listen_inside(supervisor, listener, inside);
    }
    let (parent, counters) = (supervisor.clone(), telemetry.clone());
    let front = Front::of(replicas, Purpose::Http);
    let entrance = Entrance { listener: http_listener, tls: http_tls, limit: http_context.limits.connections, front };
    supervisor.restarting("http_listener", Backoff::EDGE, move || {
        http::serve(entrance.clone(), router.clone(), parent.clone(), counters.clone())
    });
    let agents = mesos.map(|it| it.agents);
    let limits =
        grpc::Limits { streams: grpc_context.limits.streams + agents.as_ref().map_or(0, |_| mesos::MOST_AGENTS), ..grpc_context.limits };
    let service = ProbeService::new(grpc_context);
    let parent = supervisor.clone();
    let (front, carried) = (Front::of(replicas, Purpose::Grpc), Arc::new(Mutex::new(carried)));
    supervisor.restarting("grpc_listener", Backoff::EDGE, move || {
        let doors = (front.clone(), carried.clone(), grpc_tls.clone());
        let services = (service.clone(), agents.clone(), routes.clone());
        grpc::serve(grpc_listener.clone(), services, limits, doors, parent.clone(), telemetry.clone())
    });
}

/// How often the health that gRPC clients are told of is looked at.
const HEALTH_INTERVAL: Duration = Duration::from_millis(500);

/// Tells gRPC clients whether we are ready, until the process stops.
async fn tell_health(serving: edge_grpc::Serving, readiness: Readiness, stopping: CancellationToken) {
    let mut told = false;
    loop {
        let ready = readiness.checks(stopping.is_cancelled()).iter().all(|check| check.passed);
        if std::mem::replace(&mut told, ready) != ready {
            serving.tell(ready).await;
        }
        tokio::select! {
            () = tokio::time::sleep(HEALTH_INTERVAL) => {}
            () = stopping.cancelled() => return serving.tell(false).await,
        }
    }
}

fn read_users(path: &std::path::Path) -> anyhow::Result<http::Users> {
    http::Users::read(path).map_err(anyhow::Error::msg).with_context(|| format!("reading the users in {}", path.display()))
}

fn topology_config(config: &Config) -> topology::Config {
    topology::Config {
        window: config.window,
        publish_interval: Duration::from_millis(50),
        picture_linger: Duration::from_secs(30),
        picture_nodes: 400_000,
        drawn_at_once: 500,
        limits: topology::Limits {
            probes: config.max_probes,
            processes: 100_000,
            containers: 10_000,
            flows: 200_000,
            objects: 200_000,
            listeners: 20_000,
            names: 65_536,
            unix_flows: 20_000,
            externals: 256,
        },
    }
}
