//! The service that keeps ZooKeeper ensembles in step, as this process runs it: its loops under our supervision, and our map as the witness of who
//! is connected to an ensemble.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use access::{Access, AccessFlags};
use anyhow::Context as _;
use futures::future::BoxFuture;
use topology::{Direction, FlowEntry, FlowQuery};
use zksync_service::Service;
use zksync_service::definition::Secrets;
use zksync_service::store::Store;
use zksync_service::witness::{FlowRow, Holder, HttpWitness, Places, SeenHost, Witness};

use crate::config::Config;
use crate::drivers::TopologyHandle;
use crate::http::read_login;
use crate::replicas::{Replicas, TermDocuments};
use crate::supervise::Supervisor;

/// Flows of one question.
const PAGE: usize = 10_000;
/// Below the directory of our own data, where links find their secrets unless another directory is named.
const SECRETS: &str = "secrets";
/// How long a page of connections of another control plane may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes the service. With `shared`, nothing runs before [`lead`]: the control plane that leads does the work, and its API is where clients come.
///
/// # Errors
/// When its store cannot be used.
pub(crate) fn start(
    config: &Config,
    supervisor: &Supervisor,
    topology: TopologyHandle,
    (seed, hostname): (u64, &str),
    shared: bool,
) -> anyhow::Result<Service> {
    let store = Store::open(&config.data_dir).context("opening the store of zksync")?;
    let witness: Arc<dyn Witness> = match &config.zksync_topology_url {
        Some(url) => Arc::new(HttpWitness::at(url, access_to_map(config)?)),
        None => Arc::new(Map(topology)),
    };
    let loops = supervisor.clone();
    let spawn = Arc::new(move |name, run: BoxFuture<'static, ()>| loops.one_off(name, run));
    let name = format!("{hostname}-{:x}", seed >> 32);
    let stopping = supervisor.stopping().clone();
    let secrets = Secrets::below(config.zksync_secrets_dir.clone().unwrap_or_else(|| config.data_dir.join(SECRETS)));
    let service = Service::waiting(store, Some(witness), secrets, (seed, &name), stopping, spawn);
    if !shared {
        service.begin().context("starting zksync")?;
    }
    Ok(service)
}

/// How the control plane with the map is asked: as whoever has a login there, trusting whom all of this process's own calls trust.
fn access_to_map(config: &Config) -> anyhow::Result<Access> {
    let files = config.tls.as_ref().map(|tls| &tls.files);
    let flags = AccessFlags {
        tls_ca: config.tls_ca.clone(),
        tls_certificate: files.map(|files| files.certificate.clone()),
        tls_key: files.map(|files| files.key.clone()),
        ..AccessFlags::default()
    };
    let access = flags.open(|requests| requests.timeout_global(Some(PATIENCE))).context("calling the map by https")?;
    let Some(file) = &config.zksync_topology_login_file else { return Ok(access) };
    Ok(access.with_login(&read_login(file)?))
}

/// Runs the links once this control plane leads, with what the leader before has left in the ensemble of the control planes.
pub(crate) fn lead(service: Service, replicas: &Replicas, supervisor: &Supervisor) {
    let (mut standing, stopping) = (replicas.standing(), supervisor.stopping().clone());
    supervisor.essential("zksync", async move {
        let elected = async { standing.wait_for(|it| it.leads()).await.ok().and_then(|it| it.term.clone()) };
        let Some(term) = (tokio::select! { term = elected => term, () = stopping.cancelled() => None }) else { return };
        let shared = Arc::new(TermDocuments::new(term));
        // Reading what the leader before has written blocks.
        let begun = tokio::task::spawn_blocking(move || service.store().share(shared).and_then(|()| service.begin())).await;
        match begun {
            Ok(Ok(())) => stopping.cancelled().await,
            Ok(Err(error)) => tracing::error!(%error, "zksync cannot begin"),
            Err(error) => tracing::error!(%error, "zksync cannot begin"),
        }
    });
}

/// The map of this process.
#[derive(Debug)]
struct Map(TopologyHandle);

impl Witness for Map {
    fn holders(&self, servers: Vec<SocketAddr>) -> BoxFuture<'_, Result<Vec<Holder>, String>> {
        Box::pin(async move {
            let (probes, hosts) = (self.0.probes().await, self.0.hosts().await);
            let connected: BTreeSet<_> =
                probes.map_err(|error| error.to_string())?.into_iter().filter(|probe| probe.connected).map(|probe| probe.id).collect();
            let hosts = hosts.map_err(|error| error.to_string())?;
            let seen = hosts.into_iter().filter(|host| connected.contains(&host.probe));
            let seen = seen.map(|host| SeenHost { name: host.name.to_string(), addresses: host.record.addresses.into_iter().collect() });
            let places = Places::of(&servers, seen.collect())?;
            let mut rows = Vec::new();
            for port in places.ports() {
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
            Ok(places.holders(&rows))
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
