//! A control plane for tests: keeps what it is told, follows the rules of the stream, and can be made to misbehave.
#![allow(dead_code, reason = "every test binary uses a part of it")]
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test helper fails by panicking, and says what it could not test")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use proto::probe::v1::probe_service_server::{ProbeService, ProbeServiceServer};
use proto::probe::v1::report::Kind;
use proto::probe::v1::{
    Acknowledge, Capture, Container, ContainerMetrics, ControlMessage, Flow, FlowKey, Hello, Host, HostMetrics, Listener, Losses,
    ProbeMessage, Process, Rejected, Report, UnixFlow, Welcome, control_message, probe_message,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// How many times slower than a real one the machine is: an emulated one says so.
fn slowness() -> u32 {
    std::env::var("ORCHESTRATOR_TEST_SLOWNESS").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// What the control plane knows.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) hellos: Vec<Hello>,
    pub(crate) goodbyes: usize,
    pub(crate) snapshots: usize,
    pub(crate) reports: usize,
    pub(crate) sequence: u64,
    complete: bool,
    in_snapshot: bool,
    session: String,
    pub(crate) processes: BTreeMap<(u32, u64), Process>,
    pub(crate) containers: BTreeMap<String, Container>,
    pub(crate) flows: BTreeMap<u64, Flow>,
    pub(crate) listeners: BTreeMap<u64, Listener>,
    pub(crate) unix_flows: BTreeMap<u64, UnixFlow>,
    pub(crate) capture: Capture,
    /// Names of addresses, the latest first.
    pub(crate) names: BTreeMap<Vec<u8>, Vec<String>>,
    pub(crate) losses_merged: u64,
    pub(crate) losses: Option<Losses>,
    pub(crate) process_samples: usize,
    pub(crate) container_samples: usize,
    pub(crate) host: Host,
    pub(crate) host_metrics: HostMetrics,
    /// The last of each container.
    pub(crate) container_metrics: BTreeMap<String, ContainerMetrics>,
    /// Reports are taken and not acknowledged.
    pub(crate) withhold_acknowledgements: bool,
    /// Reports are not read at all.
    pub(crate) stall: bool,
    /// The next report is not applied.
    pub(crate) reject_next: bool,
}

/// A server on a port of its own.
#[derive(Clone, Debug)]
pub(crate) struct ControlPlane {
    pub(crate) address: SocketAddr,
    known: Arc<Mutex<Known>>,
    streams: Arc<Mutex<CancellationToken>>,
}

impl ControlPlane {
    pub(crate) async fn start() -> Self {
        Self::start_on("127.0.0.1").await
    }

    pub(crate) async fn start_on(address: &str) -> Self {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let this = ControlPlane { address: listener.local_addr().unwrap(), known: Arc::default(), streams: Arc::default() };
        let server = ProbeServiceServer::new(this.clone()).max_decoding_message_size(64 << 20);
        spawn(async move {
            tonic::transport::Server::builder().add_service(server).serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        this
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap()
    }

    /// Breaks every stream.
    pub(crate) fn break_streams(&self) {
        std::mem::take(&mut *self.streams.lock().unwrap()).cancel();
    }

    /// As if it had been killed and started again.
    pub(crate) fn forget(&self) {
        let mut known = self.known();
        *known = Known { hellos: std::mem::take(&mut known.hellos), ..Known::default() };
        drop(known);
        self.break_streams();
    }

    /// Waits until `condition` holds.
    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, condition: impl Fn(&Known) -> bool) -> impl Future<Output = ()> {
        let (this, what) = (self.clone(), what.to_owned());
        let caller = std::panic::Location::caller();
        async move {
            let patience = Duration::from_secs(20) * slowness();
            let begun = Instant::now();
            while !condition(&this.known()) {
                assert!(begun.elapsed() < patience, "{caller}: {what} was not told in {patience:?}: {:#?}", summary(&this.known()));
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

fn summary(known: &Known) -> String {
    let containers: Vec<_> = known.containers.values().map(|it| (&it.name, it.state(), &it.state_human)).collect();
    let flows: Vec<_> = known.flows.values().map(|it| format!("{:?} {:?}", it.key, it.counters)).collect();
    format!("{} processes, hellos {}, containers {containers:?}, flows {flows:#?}", known.processes.len(), known.hellos.len())
}

#[tonic::async_trait]
impl ProbeService for ControlPlane {
    type StreamStream = ReceiverStream<Result<ControlMessage, Status>>;

    async fn stream(&self, request: Request<Streaming<ProbeMessage>>) -> Result<Response<Self::StreamStream>, Status> {
        let (sender, receiver) = mpsc::channel(64);
        let broken = self.streams.lock().unwrap().clone();
        let this = self.clone();
        spawn(async move {
            let serve = this.serve(request.into_inner(), &sender);
            tokio::select! {
                () = serve => {}
                () = broken.cancelled() => drop(sender.send(Err(Status::unavailable("broken by the test"))).await),
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

impl ControlPlane {
    async fn serve(&self, mut messages: Streaming<ProbeMessage>, sender: &mpsc::Sender<Result<ControlMessage, Status>>) {
        loop {
            while self.known().stall {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let Ok(Some(message)) = messages.message().await else { return };
            let answer = match message.body.unwrap() {
                probe_message::Body::Hello(hello) => Some(control_message::Body::Welcome(self.known().hello(hello))),
                probe_message::Body::Report(report) => self.known().report(report),
                probe_message::Body::Goodbye(_) => {
                    self.known().goodbyes += 1;
                    return;
                }
                #[allow(unreachable_patterns, reason = "messages of later versions")]
                _ => None,
            };
            if let Some(body) = answer
                && sender.send(Ok(ControlMessage { body: Some(body) })).await.is_err()
            {
                return;
            }
        }
    }
}

impl Known {
    fn hello(&mut self, hello: Hello) -> Welcome {
        if self.session != hello.session_id {
            self.session = hello.session_id.clone();
            self.sequence = 0;
            self.complete = false;
        }
        self.in_snapshot = false;
        self.capture = hello.capture.clone().unwrap_or_default();
        let holds_next = hello.oldest_held_sequence != 0 && hello.oldest_held_sequence <= self.sequence + 1;
        let resume_after_sequence = if self.complete && holds_next { self.sequence } else { 0 };
        self.hellos.push(hello);
        Welcome { control_plane_id: "test".to_owned(), resume_after_sequence, metrics_interval_ms: 1_000, max_report_bytes: 64 * 1024 }
    }

    fn report(&mut self, report: Report) -> Option<control_message::Body> {
        self.reports += 1;
        let sequence = report.sequence;
        if std::mem::take(&mut self.reject_next) {
            self.complete = false;
            self.sequence = sequence;
            return Some(control_message::Body::Rejected(Rejected {
                sequence,
                reason: "asked for by the test".to_owned(),
                snapshot_needed: true,
            }));
        }
        if sequence > self.sequence {
            match report.kind() {
                // What was on its way behind a rejected report.
                Kind::Delta if !self.complete => {}
                Kind::Delta => {
                    assert_eq!(sequence, self.sequence + 1, "a gap");
                    self.apply(report);
                }
                _ => self.part(report),
            }
            self.sequence = sequence;
        }
        (!self.withhold_acknowledgements).then_some(control_message::Body::Acknowledge(Acknowledge { sequence }))
    }

    fn part(&mut self, report: Report) {
        if !self.in_snapshot {
            self.in_snapshot = true;
            self.processes.clear();
            self.containers.clear();
            self.flows.clear();
            self.names.clear();
            self.listeners.clear();
            self.unix_flows.clear();
        }
        let ends = report.kind() == Kind::SnapshotEnd;
        self.apply(report);
        if ends {
            self.in_snapshot = false;
            self.complete = true;
            self.snapshots += 1;
        }
    }

    fn apply(&mut self, report: Report) {
        for process in report.processes {
            let key = process.key.unwrap();
            self.processes.insert((key.pid, key.start_time_boot_nanos), process);
        }
        self.containers.extend(report.containers.into_iter().map(|it| (it.id.clone(), it)));
        for flow in report.flows {
            let key = flow.key.clone().or_else(|| self.flows.get(&flow.id)?.key.clone());
            assert!(key.is_some(), "flow {} is counted before it is named", flow.id);
            // A record without translations says nothing of them; one with some names all.
            let translations = match flow.translations.is_empty() {
                true => self.flows.remove(&flow.id).map(|it| it.translations).unwrap_or_default(),
                false => flow.translations,
            };
            self.flows.insert(flow.id, Flow { key, translations, ..flow });
        }
        self.listeners.extend(report.listeners.into_iter().map(|it| (it.id, it)));
        self.unix_flows.extend(report.unix_flows.into_iter().map(|it| (it.id, it)));
        report.unix_flows_gone.iter().for_each(|id| drop(self.unix_flows.remove(id)));
        report.listeners_gone.iter().for_each(|id| drop(self.listeners.remove(id)));
        report.flows_gone.iter().for_each(|id| drop(self.flows.remove(id)));
        report.processes_gone.iter().for_each(|key| drop(self.processes.remove(&(key.pid, key.start_time_boot_nanos))));
        report.containers_gone.iter().for_each(|id| drop(self.containers.remove(id)));
        for address in report.resolved_addresses {
            self.names.insert(address.address, address.names.into_iter().map(|it| it.name).collect());
        }
        report.resolved_addresses_gone.iter().for_each(|address| drop(self.names.remove(address)));
        self.capture = report.capture.unwrap_or_else(|| std::mem::take(&mut self.capture));
        self.losses = report.losses.clone().or_else(|| self.losses.take());
        self.losses_merged = report.losses.map_or(self.losses_merged, |it| it.reports_merged);
        self.process_samples += report.process_metrics.len();
        self.container_samples += report.container_metrics.len();
        self.host = report.host.unwrap_or_else(|| std::mem::take(&mut self.host));
        self.host_metrics = report.host_metrics.into_iter().next_back().unwrap_or_else(|| std::mem::take(&mut self.host_metrics));
        self.container_metrics.extend(report.container_metrics.into_iter().map(|it| (it.id.clone(), it)));
    }

    /// Whether the probe that said hello as the n-th has told everything that it found at its start.
    pub(crate) fn has_heard(&self, sessions: usize) -> bool {
        self.hellos.len() >= sessions && self.complete && !self.in_snapshot
    }

    /// The incarnation of a pid that was told last.
    pub(crate) fn process(&self, pid: u32) -> Option<&Process> {
        self.processes.range((pid, 0)..=(pid, u64::MAX)).next_back().map(|(_, it)| it)
    }

    /// A listener on a port.
    pub(crate) fn listener(&self, port: u16) -> Option<&Listener> {
        self.listeners.values().find(|it| it.port == u32::from(port))
    }

    /// Flows of a service port, by direction (1 client, 2 server).
    pub(crate) fn flow(&self, direction: i32, port: u16) -> Option<(&FlowKey, &Flow)> {
        let mut flows = self.flows.values().filter_map(|it| Some((it.key.as_ref()?, it)));
        flows.find(|(key, _)| key.direction == direction && key.server_port == u32::from(port))
    }
}

#[expect(clippy::disallowed_methods, reason = "tests have no supervisor")]
pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(future));
}

/// A needed part of the machine is missing: in CI that fails, elsewhere the test says so and ends.
#[track_caller]
pub(crate) fn missing(what: &str) {
    assert!(std::env::var_os("CI").is_none_or(|it| it != "true"), "{what} is missing, and this is CI");
    eprintln!("not tested here: {what} is missing");
}

/// Whether the tests run as root.
pub(crate) fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// The whole probe, without an admin port. It is killed at the end of the test.
pub(crate) struct Probe(std::process::Child);

impl Probe {
    pub(crate) fn start(control_plane: &ControlPlane, arguments: &[&str]) -> Self {
        let mut probe = std::process::Command::new(env!("CARGO_BIN_EXE_orchestrator-probe"));
        probe.args(["--control-plane", &control_plane.url(), "--admin-address", "off", "--probe-id", "test", "--host-name", "here"]);
        Probe(probe.args(arguments).env_clear().spawn().unwrap())
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.0.id().cast_signed()), signal).unwrap();
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
