//! Names of tasks in this process: what a master says runs, answered for over UDP and TCP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::dns::{Cluster, Counts, Settings, Shown, Zone};
use anyhow::Context as _;
use edge_marathon::client::MasterTls;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;

use crate::config::Config;
use crate::http::{self, Entrance};
use crate::supervise::{Backoff, Supervisor};
use crate::telemetry::Telemetry;

/// Time between two looks at what runs.
const REFRESH: Duration = Duration::from_secs(2);

/// Both sockets of one address.
pub(crate) struct Sockets {
    udp: std::net::UdpSocket,
    tcp: std::net::TcpListener,
}

/// Takes an address.
///
/// # Errors
/// When somebody else has it.
pub(crate) fn bind(address: SocketAddr) -> std::io::Result<Sockets> {
    let tcp = std::net::TcpListener::bind(address)?;
    let udp = std::net::UdpSocket::bind(tcp.local_addr()?)?;
    tcp.set_nonblocking(true)?;
    udp.set_nonblocking(true)?;
    Ok(Sockets { udp, tcp })
}

/// The names as they are.
pub(crate) struct Names {
    zones: watch::Receiver<Arc<Zone>>,
    shown: Shown,
}

impl Names {
    /// Tells them over HTTP at `entrance`.
    pub(crate) fn serve(&self, entrance: Entrance, supervisor: &Supervisor, telemetry: &Telemetry) {
        let router = ::dns::router(self.zones.clone(), self.shown.clone());
        let (parent, counters) = (supervisor.clone(), telemetry.clone());
        supervisor.restarting("names_listener", Backoff::EDGE, move || {
            http::serve(entrance.clone(), router.clone(), parent.clone(), counters.clone())
        });
    }
}

/// Answers on `sockets`, where there are any, for what the masters say that the scheduler speaks to, or else the one of this process.
///
/// # Errors
/// When the CA of the masters cannot be read.
pub(crate) fn start(
    config: &Config,
    sockets: Option<Sockets>,
    own_master: Option<(SocketAddr, bool)>,
    supervisor: &Supervisor,
) -> anyhow::Result<Names> {
    let encrypted = config.scheduler_masters.iter().any(|it| it.starts_with("https://"));
    let bare = |it: &String| it.split_once("://").map_or(it.as_str(), |(_, rest)| rest).trim_end_matches('/').to_owned();
    let mut masters: Vec<String> = config.scheduler_masters.iter().map(bare).collect();
    let mut tls = match &config.tls_ca {
        Some(ca) if encrypted => Some(edge_tls::client_trusting(ca).context("reading who signs the masters' certificates")?),
        _ => None,
    };
    if masters.is_empty() {
        masters.extend(own_master.map(|(address, _)| crate::marathon::reachable(address).to_string()));
        tls = own_master.filter(|(_, tls)| *tls).map(|_| MasterTls::own().config());
    }
    let shown = Shown {
        ttl: config.dns_ttl,
        refresh: REFRESH,
        masters: masters.clone(),
        upstream: config.dns_upstream.iter().map(SocketAddr::to_string).collect(),
        version: env!("CARGO_PKG_VERSION"),
    };
    let (zone, zones) = watch::channel(Arc::new(Zone::new(&config.dns_domain, &Cluster::default())));
    supervisor.essential("dns_names", ::dns::poll(masters, tls, REFRESH, zone, supervisor.stopping().clone()));
    let names = Names { zones: zones.clone(), shown };
    let Some(sockets) = sockets else { return Ok(names) };
    let settings = Settings { ttl: config.dns_ttl, upstream: config.dns_upstream.clone(), ..Settings::default() };
    let stopping = supervisor.stopping().clone();
    supervisor.essential("dns_listener", async move {
        let sockets = UdpSocket::from_std(sockets.udp).and_then(|udp| Ok((udp, TcpListener::from_std(sockets.tcp)?)));
        let served = match sockets {
            Ok(sockets) => ::dns::serve(sockets, zones, settings, Arc::new(Counts::default()), stopping).await,
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = served {
            tracing::error!(error, "names are not answered for any more");
        }
    });
    Ok(names)
}
