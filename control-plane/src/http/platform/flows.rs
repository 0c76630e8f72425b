//! Flows: who talks to whom, on which port, how much, and how well.

use std::net::IpAddr;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use topology::{Direction, FlowEntry, FlowPage, FlowQuery, Origin, TranslationSource};
use utoipa::{IntoParams, ToSchema};

use super::{moment, number};
use crate::http::Context;
use crate::http::query::Query;
use crate::http::reply::{json_value, problem, stopped};

/// Flows of a page when the client does not say.
const DEFAULT_LIMIT: usize = 1_000;
/// Flows of a page at most.
const LIMIT_MAX: usize = 10_000;

/// Which flows to list; absent parameters match everything.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes parameters; they are read one by one, so that a mistake can be named")]
pub(crate) struct FlowParameters {
    /// Name of the host that reported it.
    host: Option<String>,
    /// Process on its host.
    #[param(maximum = 4_294_967_295_u32)]
    pid: Option<u32>,
    /// Full id of the container that holds this end.
    container: Option<String>,
    /// Port of the service.
    #[param(maximum = 65_535)]
    port: Option<u16>,
    /// `client` or `server`.
    #[param(pattern = "^(client|server)$")]
    direction: Option<String>,
    /// `next` of the page before.
    after: Option<u64>,
    /// At most this many, 1 to 10,000; default 1,000.
    #[param(minimum = 1, maximum = 10_000)]
    limit: Option<usize>,
}

/// A page of flows.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FlowList {
    /// In the order in which the map learned of them.
    flows: Vec<Flow>,
    /// `after` of the next page; null on the last.
    #[schema(required)]
    next: Option<u64>,
}

/// One end of all connections between the same two on the same port.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Flow {
    /// Host that reported it.
    host: String,
    /// Who holds this end; null when the kernel could not say.
    #[schema(required)]
    pid: Option<u32>,
    /// When that process started, in nanoseconds since the host's boot.
    #[schema(required)]
    process_start_time: Option<u64>,
    /// Its name, if it is known.
    #[schema(required)]
    process_name: Option<String>,
    /// Container of the holder.
    #[schema(required)]
    container_id: Option<String>,
    /// cgroup v2 id of the holder; 0 when unknown.
    cgroup_id: u64,
    /// Which end this is: `client` opened the connections, `server` accepted them.
    direction: &'static str,
    /// `tcp` or `udp`.
    protocol: &'static str,
    /// Address of the end that opened.
    #[schema(value_type = String)]
    client_address: IpAddr,
    /// Address of the end that accepted.
    #[schema(value_type = String)]
    server_address: IpAddr,
    /// Port of the service.
    server_port: u16,
    /// What processes of the host call the client, on the server's end; null when they never asked for its name.
    #[schema(required)]
    client_name: Option<String>,
    /// What processes of the host call the server, on the client's end; null when they never asked for its name.
    #[schema(required)]
    server_name: Option<String>,
    /// Where the client meant to go (`address:port`), when address translation changed it.
    #[schema(required)]
    original_server: Option<String>,
    /// Where the connections were taken, when that is elsewhere than `serverAddress`.
    translations: Vec<Translation>,
    /// How many flows this one sums up that found no room in the probe's table; 0 for a flow of its own. The peer's address is
    /// unspecified then.
    others: u64,
    /// `event` when the kernel told of it as it happened, `snapshot` when it was found open.
    origin: &'static str,
    /// Connections established.
    opened: u64,
    /// Connections ended.
    closed: u64,
    /// Connections refused, timed out or reset before they were established.
    failed: u64,
    /// Connections open now.
    active: u64,
    /// Payload bytes that this end sent.
    bytes_sent: u64,
    /// Payload bytes that this end received.
    bytes_received: u64,
    /// Segments sent again.
    retransmits: u64,
    /// Mean of the smoothed round-trip times, in microseconds; null without a measurement.
    #[schema(required)]
    rtt_micros_average: Option<u64>,
    /// Largest, in microseconds; null without a measurement.
    #[schema(required)]
    rtt_micros_max: Option<u32>,
    /// What was understood of the bytes, by application protocol.
    applications: Vec<Application>,
    /// When it was first seen, RFC 3339.
    first_seen: String,
    /// When something last happened on it, RFC 3339.
    last_active: String,
    /// Ids in the `processes` view of who is at the other end.
    peers: Vec<String>,
}

/// Where connections of a flow were taken.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Translation {
    /// There (`address:port`).
    server: String,
    /// The client as the server sees it; null when unchanged.
    #[schema(required)]
    client: Option<String>,
    /// Connections that went there; null when only the service's endpoints are known, and this is one of those it may have been.
    #[schema(required)]
    connections: Option<u64>,
    /// Who says so: `socket` (the kernel's socket), `conntrack` (its connection tracking) or `endpoints` (the service's endpoints: one of them
    /// it was).
    source: &'static str,
}

/// Totals of one application protocol on a flow.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Application {
    /// `http`, `grpc`, `redis`, …
    protocol: String,
    /// Requests.
    requests: u64,
    /// Those that were answered with an error of the protocol, or not at all.
    errors: u64,
    /// Mean time from request to answer, in microseconds; null without a measurement.
    #[schema(required)]
    latency_micros_average: Option<u64>,
    /// Largest, in microseconds; null without a measurement.
    #[schema(required)]
    latency_micros_max: Option<u64>,
}

/// Flows: who talks to whom, on which port, how much, and how well.
#[utoipa::path(
    get,
    path = "/api/v1/flows",
    tag = "Platform",
    params(FlowParameters),
    responses(
        (status = 200, description = "A page of flows", body = FlowList),
        (status = 400, description = "A parameter cannot be understood", body = String, content_type = "application/json")
    )
)]
pub(crate) async fn flows(State(context): State<Context>, RawQuery(query): RawQuery) -> Response {
    let query = match parse(&Query::parse(query.as_deref())) {
        Ok(query) => query,
        Err(text) => return problem(StatusCode::BAD_REQUEST, &text),
    };
    match context.topology.flows(query).await {
        Ok(page) => json_value(StatusCode::OK, &FlowList::from(page)),
        Err(error) => stopped(error),
    }
}

fn parse(query: &Query) -> Result<FlowQuery, String> {
    let direction = match query.first("direction") {
        None => None,
        Some("client") => Some(Direction::Client),
        Some("server") => Some(Direction::Server),
        Some(other) => return Err(format!("direction is {other:?}, which is neither client nor server")),
    };
    let limit = number(query, "limit")?.unwrap_or(DEFAULT_LIMIT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(format!("limit is {limit}, which is not between 1 and {LIMIT_MAX}"));
    }
    Ok(FlowQuery {
        host: query.first("host").map(Into::into),
        pid: number(query, "pid")?,
        container: query.first("container").map(Into::into),
        server_port: number(query, "port")?,
        direction,
        after: number(query, "after")?.unwrap_or(0),
        limit,
    })
}

impl From<FlowPage> for FlowList {
    fn from(page: FlowPage) -> Self {
        FlowList { flows: page.flows.into_iter().map(Flow::from).collect(), next: page.next }
    }
}

impl From<FlowEntry> for Flow {
    fn from(entry: FlowEntry) -> Self {
        let counters = entry.counters;
        let measured = counters.rtt_count > 0;
        Flow {
            host: entry.host.to_string(),
            pid: entry.process.map(|process| process.pid),
            process_start_time: entry.process.map(|process| process.start_time),
            process_name: entry.process_name.map(|name| name.to_string()),
            container_id: entry.container_id.map(|id| id.to_string()),
            cgroup_id: entry.cgroup_id,
            direction: match entry.direction {
                Direction::Client => "client",
                Direction::Server => "server",
            },
            protocol: entry.protocol.as_str(),
            client_address: entry.client_address,
            server_address: entry.server_address,
            server_port: entry.server_port,
            client_name: entry.client_name.map(|name| name.to_string()),
            server_name: entry.server_name.map(|name| name.to_string()),
            translations: entry.translations.into_iter().map(Translation::from).collect(),
            others: entry.others,
            applications: entry.applications.into_iter().map(Application::from).collect(),
            original_server: entry.original_server.map(|(address, port)| std::net::SocketAddr::new(address, port).to_string()),
            origin: match entry.origin {
                Origin::Event => "event",
                Origin::Snapshot => "snapshot",
            },
            opened: counters.opened,
            closed: counters.closed,
            failed: counters.failed,
            active: counters.active(),
            bytes_sent: counters.bytes_sent,
            bytes_received: counters.bytes_received,
            retransmits: counters.retransmits,
            rtt_micros_average: counters.rtt_us_sum.checked_div(counters.rtt_count),
            rtt_micros_max: measured.then_some(counters.rtt_us_max),
            first_seen: moment(entry.first_seen),
            last_active: moment(entry.last_active),
            peers: entry.peers.iter().map(ToString::to_string).collect(),
        }
    }
}

impl From<topology::Translation> for Translation {
    fn from(translation: topology::Translation) -> Self {
        let (address, port) = translation.server;
        let is_certain = translation.source != TranslationSource::Endpoints;
        Translation {
            server: std::net::SocketAddr::new(address, port).to_string(),
            client: translation.client.map(|address| address.to_string()),
            connections: is_certain.then_some(translation.connections),
            source: translation.source.as_str(),
        }
    }
}

impl From<topology::Application> for Application {
    fn from(application: topology::Application) -> Self {
        let measured = application.latency_count > 0;
        Application {
            protocol: application.protocol.to_string(),
            requests: application.requests,
            errors: application.errors,
            latency_micros_average: application.latency_us_sum.checked_div(application.latency_count),
            latency_micros_max: measured.then_some(application.latency_us_max),
        }
    }
}
