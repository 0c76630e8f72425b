//! The service that keeps ZooKeeper ensembles in step, as this process runs it: its loops under our supervision, and our map as the witness of who
//! is connected to an ensemble.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use futures::future::BoxFuture;
use topology::{Direction, FlowEntry, FlowQuery};
use zksync_service::store::Store;
use zksync_service::witness::{FlowRow, Holder, HttpWitness, Witness, holders_in};

use crate::config::Config;
use crate::drivers::TopologyHandle;
use crate::supervise::Supervisor;

/// Flows of one question.
const PAGE: usize = 10_000;

/// Starts the service.
///
/// # Errors
/// When its store cannot be used.
pub(crate) fn start(
    config: &Config,
    supervisor: &Supervisor,
    topology: TopologyHandle,
    seed: u64,
    hostname: &str,
) -> anyhow::Result<zksync_service::Service> {
    let store = Store::open(&config.data_dir).context("opening the store of zksync")?;
    let witness: Arc<dyn Witness> = match &config.zksync_topology_url {
        Some(url) => Arc::new(HttpWitness::at(url)),
        None => Arc::new(Map(topology)),
    };
    let loops = supervisor.clone();
    let spawn = Arc::new(move |name, run: BoxFuture<'static, ()>| loops.one_off(name, run));
    let name = format!("{hostname}-{:x}", seed >> 32);
    let stopping = supervisor.stopping().clone();
    zksync_service::Service::start(store, Some(witness), seed, &name, stopping, spawn).context("starting zksync")
}

/// The map of this process.
#[derive(Debug)]
struct Map(TopologyHandle);

impl Witness for Map {
    fn holders(&self, servers: Vec<SocketAddr>) -> BoxFuture<'_, Result<Vec<Holder>, String>> {
        Box::pin(async move {
            let probes = self.0.probes().await.map_err(|error| error.to_string())?;
            if !probes.iter().any(|probe| probe.connected) {
                return Err("no probe is connected".to_owned());
            }
            let mut rows = Vec::new();
            let ports: std::collections::BTreeSet<u16> = servers.iter().map(SocketAddr::port).collect();
            for port in ports {
                let mut after = Some(0);
                while let Some(begin) = after {
                    let query = FlowQuery {
                        host: None,
                        pid: None,
                        container: None,
                        server_port: Some(port),
                        direction: None,
                        after: begin,
                        limit: PAGE,
                    };
                    let page = self.0.flows(query).await.map_err(|error| error.to_string())?;
                    rows.extend(page.flows.into_iter().map(row));
                    after = page.next;
                }
            }
            Ok(holders_in(&rows, &servers))
        })
    }
}

fn row(flow: FlowEntry) -> FlowRow {
    FlowRow {
        host: flow.host.to_string(),
        pid: flow.process.map(|process| process.pid),
        process_name: flow.process_name.map(|name| name.to_string()),
        container_id: flow.container_id.map(|id| id.to_string()),
        direction: match flow.direction {
            Direction::Client => "client",
            Direction::Server => "server",
        }
        .to_owned(),
        client_address: flow.client_address,
        server_address: flow.server_address,
        server_port: flow.server_port,
        original_server: flow.original_server.map(|(address, port)| SocketAddr::new(address, port).to_string()),
        active: flow.counters.active(),
    }
}
