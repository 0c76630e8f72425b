//! The scheduler in this process: its settings, store and loop, its client of a master, its probes, and the listener of Marathon's API.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use edge_marathon::settings::Settings;
use edge_marathon::store::DiskStore;
use edge_marathon::{Context, client, driver, probes};
use tokio::net::TcpListener;

use crate::clock::Clock;
use crate::config::Config;
use crate::http;
use crate::replicas::{Front, Purpose};
use crate::supervise::{Backoff, Supervisor};
use crate::telemetry::Telemetry;

/// A scheduler that runs.
#[derive(Debug)]
pub(crate) struct Marathon {
    /// What the HTTP side needs.
    pub(crate) context: Context,
}

/// Starts the scheduler. `own_master` is where the master of this process listens: the one it speaks to when no other is named.
///
/// # Errors
/// When a flag cannot be understood or the store cannot be opened.
pub(crate) fn start(
    config: &Config,
    (bound, own_master): (Option<SocketAddr>, Option<SocketAddr>),
    hostname: &str,
    seed: u64,
    supervisor: &Supervisor,
    clock: &Clock,
) -> anyhow::Result<Marathon> {
    // Each would be a framework of its own, with apps of its own.
    anyhow::ensure!(
        config.zk.is_none(),
        "the scheduler does not share its state through ZooKeeper yet: run it in one control plane without --zk"
    );
    let mut settings = Settings { hostname: hostname.to_owned(), ..Settings::default() };
    if let Some(address) = bound {
        settings.http_port = address.port();
        if !address.ip().is_unspecified() {
            settings.hostname = address.ip().to_string();
        }
    }
    let mut settings = settings.with_flags(config.marathon_flags.iter().map(String::as_str))?;
    if !config.scheduler_masters.is_empty() {
        settings.masters.clone_from(&config.scheduler_masters);
    } else if settings.masters.is_empty() {
        settings.masters.extend(own_master.map(|address| format!("http://{}", reachable(address))));
    }
    settings.core.seed = seed;
    let settings = Arc::new(settings);
    let store = Arc::new(DiskStore::open(&config.data_dir.join("marathon.redb")).context("opening the scheduler's store")?);
    let now = clock.clone();
    let stopping = supervisor.stopping().clone();
    let (handle, outlets, run) =
        driver::start(&settings, store, move || now.now(), stopping.clone()).context("reading the scheduler's store")?;
    supervisor.essential("scheduler_driver", run);
    supervisor.essential("scheduler_client", client::run(settings.clone(), handle.clone(), outlets.calls, stopping.clone()));
    let at_once = settings.core.max_concurrent_health_checks;
    supervisor.essential("scheduler_probes", probes::run(outlets.probes, handle.clone(), at_once, stopping.clone()));
    let now = clock.clone();
    Ok(Marathon { context: Context::new(settings, handle, move || now.now(), stopping) })
}

/// The address to call a listener at that listens on every address.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { std::net::Ipv4Addr::LOCALHOST.into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    address
}

impl Marathon {
    /// Serves the API on `listener`.
    pub(crate) fn serve(&self, listener: Arc<TcpListener>, connections: usize, supervisor: &Supervisor, telemetry: &Telemetry) {
        let (router, parent, counters) = (edge_marathon::router(self.context.clone()), supervisor.clone(), telemetry.clone());
        supervisor.restarting("marathon_listener", Backoff::EDGE, move || {
            http::serve(listener.clone(), router.clone(), connections, Front::alone(Purpose::Http), parent.clone(), counters.clone())
        });
        // Who gives up leadership ends in good order, to be started again.
        let abdicated = self.context.abdicated().clone();
        let stopping = supervisor.stopping().clone();
        supervisor.essential("marathon_leadership", async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = abdicated.cancelled() => tokio::time::sleep(std::time::Duration::from_millis(500)).await,
            }
        });
    }
}
