//! gRPC: the probes' streams, and beside them what other crates serve on the same listener. Translates between the wire's words and the map's, and lets nothing malformed through.

mod codec;
pub mod convert;
mod incoming;
mod orders;
mod outline;
mod probes;
mod session;

use std::sync::Arc;
use std::time::Duration;

use edge_mesos::AgentService;
use edge_tls::Tls;
use relay::Switchboard;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::Server;

use crate::clock::Clock;
use crate::drivers::TopologyHandle;
use crate::replicas::Front;
use crate::supervise::Supervisor;
use crate::telemetry::Telemetry;

/// How often a silent peer is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// How long it may take to answer.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// What the probes' service needs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context {
    /// The map.
    pub topology: TopologyHandle,
    /// Controls and pipes.
    pub switchboard: Switchboard,
    /// Random per start; told to probes.
    pub control_plane_id: Arc<str>,
    /// For the loops of streams, and to know when to end them.
    pub supervisor: Supervisor,
    /// Counters.
    pub telemetry: Telemetry,
    /// The time.
    pub clock: Clock,
    /// How much probes may take.
    pub limits: Limits,
}

/// How much probes may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Streams open at once.
    pub streams: usize,
    /// Largest report that is accepted, in bytes.
    pub report_bytes: u32,
    /// How often probes send metrics.
    pub metrics_interval: Duration,
    /// How long a peer may take to say hello.
    pub hello_patience: Duration,
}

impl Limits {
    /// Reports of 4 MiB, metrics every 15 s.
    pub fn for_probes(probes: usize) -> Self {
        Limits {
            // While a probe reconnects, its old stream may still be open.
            streams: probes.saturating_add(probes / 4).saturating_add(16),
            report_bytes: 4 << 20,
            metrics_interval: Duration::from_secs(15),
            hello_patience: Duration::from_secs(10),
        }
    }
}

/// Streams at once on one connection. A probe has one; a client of the control API may watch several views.
const STREAMS_OF_A_CONNECTION: u32 = 32;

/// Serves probes, agents where there is a Mesos master, and `routes`, on `listener` until the process stops.
pub async fn serve(
    listener: Arc<TcpListener>,
    (service, agents, routes): (ProbeService, Option<AgentService>, Routes),
    limits: Limits,
    (front, carried, tls): (Front, Carried, Option<Tls>),
    supervisor: Supervisor,
    telemetry: Telemetry,
) {
    let stopping = supervisor.stopping().clone();
    // Each probe has one connection; as many again may be on their way in or out.
    let patience = incoming::Patience { connections: limits.streams.saturating_mul(2), first_word: limits.hello_patience };
    let doors = incoming::Doors { front, carried, tls, supervisor };
    let connections = incoming::incoming(listener, patience, doors, stopping.clone(), telemetry);
    let outcome = Server::builder()
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .max_concurrent_streams(STREAMS_OF_A_CONNECTION)
        .add_routes(routes)
        .add_service(service)
        .add_optional_service(agents.map(AgentService::into_server))
        .serve_with_incoming_shutdown(connections, stopping.cancelled_owned())
        .await;
    if let Err(error) = outcome {
        tracing::error!(error = &error as &dyn std::error::Error, "the probes' listener failed");
    }
}

pub use incoming::Carried;
pub use probes::ProbeService;
