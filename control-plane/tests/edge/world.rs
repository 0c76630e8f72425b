//! A control plane of its own for each test, and two hosts that talk to each other to put into it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::Timestamp;
use orchestrator_control::app::{App, Deps};
use orchestrator_control::clock::Clock;
use orchestrator_control::config::{Config, LogFormat, Service};
use orchestrator_control::http::Patience;
use orchestrator_control::http::scope::graphs::MetricsGraph;
use orchestrator_control::store::{MemoryStore, Store};
use orchestrator_control::telemetry::Telemetry;
use proto::probe::v1::{
    Container, ContainerState, Flow, FlowCounters, FlowKey, Host, Image, Process, ProcessKey, Report, flow_key, report::Kind,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::http::{self, Reply};
use crate::probe::Probe;

/// When every test begins.
pub(crate) const BEGIN: u64 = 1_767_225_600_000_000_000;

/// A running control plane.
pub(crate) struct World {
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) mesos: Option<SocketAddr>,
    pub(crate) store: Arc<dyn Store>,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<anyhow::Result<()>>,
}

pub(crate) fn config() -> Config {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    Config {
        http_address: any,
        grpc_address: any,
        data_dir: PathBuf::from("/nowhere"),
        window: Duration::from_secs(15),
        history: None,
        history_bytes: 1 << 30,
        old_probes_memory: 1 << 30,
        label_filters: Vec::new(),
        metrics_graph: MetricsGraph::default(),
        max_probes: 10,
        max_websocket_clients: 12_000,
        mesos_address: None,
        mesos_flags: Vec::new(),
        zk: None,
        zk_session_timeout: Duration::from_secs(10),
        advertise: None,
        replica_address: any,
        marathon_address: None,
        marathon_flags: Vec::new(),
        dns_address: None,
        dns_http_address: None,
        dns_domain: "mesos".to_owned(),
        dns_upstream: Vec::new(),
        dns_ttl: Duration::from_secs(60),
        scheduler_masters: Vec::new(),
        services: vec![Service::Topology],
        tls: None,
        tls_ca: None,
        users_file: None,
        scope_login: None,
        allowed_origins: Vec::new(),
        agent_login_file: None,
        zksync_topology_url: None,
        zksync_topology_login_file: None,
        zksync_secrets_dir: None,
        log_format: LogFormat::Text,
        log_filter: "info".to_owned(),
    }
}

/// A clock that began at [`BEGIN`] and runs.
pub(crate) fn clock() -> Clock {
    clock_after(Duration::ZERO)
}

/// A clock that began some time after [`BEGIN`] and runs.
fn clock_after(span: Duration) -> Clock {
    let begun = Instant::now();
    Clock::from_fn(move || Timestamp::from_unix_nanos(BEGIN) + span + begun.elapsed())
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(config(), Arc::new(MemoryStore::default())).await
    }

    pub(crate) async fn start_with(config: Config, store: Arc<dyn Store>) -> Self {
        Self::try_start(config, store).await.unwrap()
    }

    /// One whose clock begins some time after that of the others.
    pub(crate) async fn start_later(config: Config, store: Arc<dyn Store>, span: Duration) -> Self {
        Self::try_start_at(config, store, clock_after(span), Patience::DEFAULT).await.unwrap()
    }

    pub(crate) async fn try_start(config: Config, store: Arc<dyn Store>) -> anyhow::Result<Self> {
        Self::try_start_at(config, store, clock(), Patience::DEFAULT).await
    }

    /// One that waits no longer than `patience` for what clients have to say.
    pub(crate) async fn impatient(patience: Patience) -> Self {
        Self::try_start_at(config(), Arc::new(MemoryStore::default()), clock(), patience).await.unwrap()
    }

    async fn try_start_at(config: Config, store: Arc<dyn Store>, clock: Clock, patience: Patience) -> anyhow::Result<Self> {
        let (hostname, telemetry) = ("test-host".to_owned(), Telemetry::new());
        let deps = Deps { store: store.clone(), clock, seed: 0x1234, hostname, telemetry, patience };
        let app = App::build(&config, deps).await?;
        let (http, grpc, mesos) = (app.http_address(), app.grpc_address(), app.mesos_address());
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(app.run_until(async {
            let _ = stopped.await;
        }));
        Ok(World { http, grpc, mesos, store, stop: Some(stop), ended })
    }

    /// One that knows the two hosts.
    pub(crate) async fn with_two_hosts() -> (Self, [Probe; 2]) {
        let world = World::start().await;
        let mut web = Probe::connect(world.grpc, "probe-web", "web-1").await;
        let mut db = Probe::connect(world.grpc, "probe-db", "db-1").await;
        web.apply(web_report(1)).await;
        db.apply(db_report(1)).await;
        (world, [web, db])
    }

    pub(crate) async fn get(&self, target: &str) -> Reply {
        http::get(self.http, target).await
    }

    /// The value of a metric; `name` with its labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        metric(self.http, name).await
    }

    /// Waits until a metric has the value.
    #[track_caller]
    pub(crate) fn metric_becomes(&self, name: &str, value: f64) -> impl Future<Output = ()> {
        eventually(async move || (self.metric(name).await - value).abs() < f64::EPSILON, format!("{name} becomes {value}"))
    }

    pub(crate) fn begin_to_stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    pub(crate) async fn ended(self) -> anyhow::Result<()> {
        self.ended.await.unwrap()
    }

    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.begin_to_stop();
        self.ended().await
    }
}

/// The value of a metric, 0 when there is none; `name` with its labels.
pub(crate) async fn metric(server: SocketAddr, name: &str) -> f64 {
    let page = http::get(server, "/metrics").await.text();
    let line = page.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

/// Waits until `holds`, for at most ten seconds.
pub(crate) async fn eventually(mut holds: impl AsyncFnMut() -> bool, what: String) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn key(pid: u32) -> Option<ProcessKey> {
    Some(ProcessKey { pid, start_time_boot_nanos: u64::from(pid) * 10_000_000 })
}

fn host(host_name: &str, address: &str) -> Option<Host> {
    Some(Host {
        host_name: host_name.to_owned(),
        kernel_version: "6.18.0".to_owned(),
        os: "linux".to_owned(),
        os_release: "Debian <12> & more".to_owned(),
        booted_at_unix_nanos: BEGIN - 3_600_000_000_000,
        local_networks: vec![format!("{address}/24")],
        addresses: vec![address.to_owned()],
        cpu_count: 2,
        memory_bytes: 4 << 30,
        ..Host::default()
    })
}

pub(crate) fn process(pid: u32, name: &str, container: &str) -> Process {
    Process {
        key: key(pid),
        parent_pid: 1,
        name: name.to_owned(),
        command_line: format!("{name} --port <5432>"),
        thread_count: 3,
        container_id: container.to_owned(),
        ..Process::default()
    }
}

pub(crate) fn flow(id: u64, pid: u32, container: &str, direction: flow_key::Direction) -> Flow {
    let bytes = |text: &str| match text.parse().unwrap() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    Flow {
        id,
        key: Some(FlowKey {
            process: key(pid),
            container_id: container.to_owned(),
            direction: direction.into(),
            protocol: flow_key::Protocol::Tcp.into(),
            client_address: bytes("10.0.0.1"),
            server_address: bytes("10.0.0.2"),
            server_port: 5432,
            origin: flow_key::Origin::Event.into(),
            sample_client_port: 40_000,
            ..FlowKey::default()
        }),
        counters: Some(FlowCounters {
            opened: 3,
            closed: 1,
            bytes_sent: 1_000,
            bytes_received: 2_000,
            rtt_us_sum: 900,
            rtt_count: 3,
            rtt_us_max: 500,
            ..FlowCounters::default()
        }),
        first_seen_unix_nanos: BEGIN,
        last_active_unix_nanos: BEGIN,
        ..Flow::default()
    }
}

/// Id of the container on `web-1`.
pub(crate) const CONTAINER: &str = "c0ffee0000000000000000000000000000000000000000000000000000000001";

/// `web-1`: nginx in a container, which asks the database.
pub(crate) fn web_report(sequence: u64) -> Report {
    Report {
        sequence,
        observed_at_unix_nanos: BEGIN,
        kind: Kind::SnapshotEnd.into(),
        host: host("web-1", "10.0.0.1"),
        processes: vec![process(100, "nginx", CONTAINER)],
        containers: vec![Container {
            id: CONTAINER.to_owned(),
            name: "shop".to_owned(),
            image_id: "1111".to_owned(),
            image_name: "registry.example/web/nginx:1.25".to_owned(),
            state: ContainerState::Running.into(),
            state_human: "Up 2 hours".to_owned(),
            created_at_unix_nanos: BEGIN - 1_000_000_000,
            hostname: "shop.local".to_owned(),
            labels: [("tier".to_owned(), "<front>".to_owned())].into(),
            pid: 100,
            runtime: "docker".to_owned(),
            ..Container::default()
        }],
        images: vec![Image { id: "1111".to_owned(), name: "registry.example/web/nginx:1.25".to_owned(), ..Image::default() }],
        flows: vec![flow(1, 100, CONTAINER, flow_key::Direction::Client)],
        ..Report::default()
    }
}

/// `db-1`: a database outside of containers.
pub(crate) fn db_report(sequence: u64) -> Report {
    Report {
        sequence,
        observed_at_unix_nanos: BEGIN,
        kind: Kind::SnapshotEnd.into(),
        host: host("db-1", "10.0.0.2"),
        processes: vec![process(200, "/usr/bin/postgres", "")],
        flows: vec![flow(1, 200, "", flow_key::Direction::Server)],
        ..Report::default()
    }
}

/// A delta that adds or renames processes of `web-1`.
pub(crate) fn processes_delta(sequence: u64, processes: impl IntoIterator<Item = Process>) -> Report {
    Report {
        sequence,
        observed_at_unix_nanos: BEGIN,
        kind: Kind::Delta.into(),
        processes: processes.into_iter().collect(),
        ..Report::default()
    }
}
