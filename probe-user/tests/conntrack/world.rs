//! The probe's middle, fed by the real kernel: programs on sockets, and connection tracking of a test's router.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use orchestrator_probe::clock::Now;
use orchestrator_probe::conntrack::{self, Config};
use orchestrator_probe::driver::Input;
use orchestrator_probe::ebpf::{self, Capture, Running};
use orchestrator_probe::observation::{Direction, Observation};
use orchestrator_probe::report::Builder;
use orchestrator_probe::telemetry::Telemetry;
use proto::probe::v1::flow_key;
use proto::probe::v1::translation::Source;
use proto::probe::v1::{Flow, Translation};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::network::Network;

/// How long something may take to be observed on a busy machine.
const PATIENCE: Duration = Duration::from_secs(15);

/// Ends the test when it is not run as root; in CI that is a failure.
macro_rules! needs_root {
    () => {
        if !nix::unistd::geteuid().is_root() {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "these tests need root");
            eprintln!("not root: nothing was tested");
            return;
        }
    };
}
pub(crate) use needs_root;

/// As in production, and quick to look.
pub(crate) fn config(network: &Network) -> Config {
    Config {
        namespace: Some(network.file("r")),
        receive_bytes: 8 * 1024 * 1024,
        look_interval: Duration::from_millis(200),
        retry_interval: Duration::from_millis(200),
        gather: Duration::from_millis(20),
        balance_interval: Duration::from_secs(60),
    }
}

/// A running probe without a control plane.
pub(crate) struct World {
    running: Option<Running>,
    sockets: Option<mpsc::Receiver<Vec<Observation>>>,
    observed: mpsc::Receiver<Vec<Observation>>,
    pub(crate) inputs: mpsc::Receiver<Input>,
    pub(crate) builder: Builder,
    pub(crate) flows: BTreeMap<u64, Flow>,
    pub(crate) telemetry: Telemetry,
    stop: CancellationToken,
}

impl World {
    /// Watches sockets everywhere and translations in the router.
    pub(crate) fn start(network: &Network) -> Self {
        let programs = ebpf::Config { sweep_interval: Duration::from_millis(100), ..ebpf::Config::default() };
        let (running, sockets) = Capture::start(&programs).unwrap();
        let mut this = World::start_with(config(network));
        (this.running, this.sockets) = (Some(running), Some(sockets));
        this
    }

    /// Watches translations alone.
    #[expect(clippy::disallowed_methods, reason = "tests have no supervisor")]
    pub(crate) fn start_with(config: Config) -> Self {
        let (observations, observed) = mpsc::channel(64);
        let (sender, inputs) = mpsc::channel(64);
        let (telemetry, stop) = (Telemetry::new(), CancellationToken::new());
        drop(tokio::spawn(conntrack::run(config, telemetry.clone(), observations, sender, stop.clone())));
        let (builder, flows) = (Builder::default(), BTreeMap::new());
        World { running: None, sockets: None, observed, inputs, builder, flows, telemetry, stop }
    }

    /// Takes in what has come.
    pub(crate) fn take(&mut self) {
        let mut wanted = Vec::new();
        let batches = std::iter::from_fn(|| self.observed.try_recv().ok().or_else(|| self.sockets.as_mut()?.try_recv().ok()));
        for observation in batches.flatten() {
            self.builder.observe(observation, &mut wanted);
        }
        self.builder.settle(Now::read());
        for report in self.builder.take_delta(Now::read(), 1 << 20) {
            for flow in report.flows {
                let known = self.flows.entry(flow.id).or_default();
                let key = flow.key.or_else(|| known.key.take());
                // A list that is not there says nothing; one that is there says all.
                let translations = if flow.translations.is_empty() { std::mem::take(&mut known.translations) } else { flow.translations };
                *known = Flow { key, translations, ..flow };
            }
        }
    }

    /// Takes in an observation that the test has made.
    pub(crate) fn observe(&mut self, observation: Observation) {
        self.builder.observe(observation, &mut Vec::new());
    }

    /// Waits until something holds.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        let what = what.to_owned();
        async move {
            let begun = Instant::now();
            loop {
                self.take();
                if holds(self) {
                    return;
                }
                assert!(begun.elapsed() < PATIENCE, "{caller}: not seen: {what}; {:#?} {:?}", self.flows, self.builder.losses());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// Ways of the flow of one end with a server's address, sorted: which server is the first is the kernel's affair.
    pub(crate) fn ways(&self, direction: Direction, server: &str) -> Vec<String> {
        let mut ways: Vec<_> = self.flow(direction, server).into_iter().flat_map(|flow| &flow.translations).map(told).collect();
        ways.sort();
        ways
    }

    /// The flow of one end with a server's address.
    pub(crate) fn flow(&self, direction: Direction, server: &str) -> Option<&Flow> {
        let server: IpAddr = server.parse().unwrap();
        let direction = match direction {
            Direction::Client => flow_key::Direction::Client,
            Direction::Server => flow_key::Direction::Server,
        };
        self.flows
            .values()
            .find(|flow| flow.key.as_ref().is_some_and(|key| key.direction() == direction && address(&key.server_address) == Some(server)))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(running) = self.running.take() {
            running.stop();
        }
    }
}

/// A translation, for people.
fn told(translation: &Translation) -> String {
    let mut told = format!("{} to {}", translation.connections, socket(&translation.server_address, translation.server_port));
    for (word, address) in [("as", &translation.client_address), ("of", &translation.original_client_address)] {
        if !address.is_empty() {
            told += &format!(" {word} {}", shown(address));
        }
    }
    if !translation.original_server_address.is_empty() {
        told += &format!(" for {}", socket(&translation.original_server_address, translation.original_server_port));
    }
    if translation.source() != Source::Conntrack {
        told += &format!(" by {:?}", translation.source());
    }
    told
}

fn socket(bytes: &[u8], port: u32) -> String {
    address(bytes).map_or_else(|| "?".to_owned(), |it| std::net::SocketAddr::new(it, port.try_into().unwrap()).to_string())
}

fn shown(bytes: &[u8]) -> String {
    address(bytes).map_or_else(|| "?".to_owned(), |it| it.to_string())
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
