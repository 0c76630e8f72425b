//! Listening sockets: who waits for connections, and where.

use std::net::IpAddr;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use topology::{ListenerEntry, ListenerQuery};
use utoipa::{IntoParams, ToSchema};

use super::number;
use crate::http::Context;
use crate::http::query::Query;
use crate::http::reply::{json_value, problem, stopped};

/// Listeners of a reply when the client does not say.
const DEFAULT_LIMIT: usize = 1_000;
/// Listeners of a reply at most.
const LIMIT_MAX: usize = 10_000;

/// Which listening sockets to list; absent parameters match everything.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes parameters; they are read one by one, so that a mistake can be named")]
pub(crate) struct ListenerParameters {
    /// Name of the host that reported it.
    host: Option<String>,
    /// On this port.
    #[param(maximum = 65_535)]
    port: Option<u16>,
    /// Process on its host.
    #[param(maximum = 4_294_967_295_u32)]
    pid: Option<u32>,
    /// Full id of the container that listens.
    container: Option<String>,
    /// At most this many, 1 to 10,000; default 1,000.
    #[param(minimum = 1, maximum = 10_000)]
    limit: Option<usize>,
}

/// Listening sockets.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ListenerList {
    /// Host by host.
    listeners: Vec<Listener>,
    /// Whether the limit left some out.
    more: bool,
}

/// A socket that waits for connections (TCP) or datagrams (UDP).
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listener {
    /// Host that reported it.
    host: String,
    /// `tcp` or `udp`.
    protocol: &'static str,
    /// Address that it listens on; unspecified (`0.0.0.0`, `::`) for all.
    #[schema(value_type = String)]
    address: IpAddr,
    /// Port.
    port: u16,
    /// Whose it is; null when unknown.
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
    /// Cookie of the network namespace; 0 when unknown.
    network_namespace: u64,
}

/// Listening sockets: who waits for connections, and where.
#[utoipa::path(
    get,
    path = "/api/v1/listeners",
    tag = "Platform",
    params(ListenerParameters),
    responses(
        (status = 200, description = "The listening sockets", body = ListenerList),
        (status = 400, description = "A parameter cannot be understood", body = String, content_type = "application/json")
    )
)]
pub(crate) async fn listeners(State(context): State<Context>, RawQuery(query): RawQuery) -> Response {
    let query = match parse(&Query::parse(query.as_deref())) {
        Ok(query) => query,
        Err(text) => return problem(StatusCode::BAD_REQUEST, &text),
    };
    match context.topology.listeners(query).await {
        Ok(page) => {
            let listeners = page.listeners.into_iter().map(Listener::from).collect();
            json_value(StatusCode::OK, &ListenerList { listeners, more: page.more })
        }
        Err(error) => stopped(error),
    }
}

fn parse(query: &Query) -> Result<ListenerQuery, String> {
    let limit = number(query, "limit")?.unwrap_or(DEFAULT_LIMIT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(format!("limit is {limit}, which is not between 1 and {LIMIT_MAX}"));
    }
    Ok(ListenerQuery {
        host: query.first("host").map(Into::into),
        port: number(query, "port")?,
        pid: number(query, "pid")?,
        container: query.first("container").map(Into::into),
        limit,
    })
}

impl From<ListenerEntry> for Listener {
    fn from(entry: ListenerEntry) -> Self {
        let ListenerEntry { host, process_name, listener } = entry;
        Listener {
            host: host.to_string(),
            protocol: listener.protocol.as_str(),
            address: listener.address,
            port: listener.port,
            pid: listener.process.map(|process| process.pid),
            process_start_time: listener.process.map(|process| process.start_time),
            process_name: process_name.map(|name| name.to_string()),
            container_id: listener.container_id.map(|id| id.to_string()),
            cgroup_id: listener.cgroup_id,
            network_namespace: listener.network_namespace,
        }
    }
}
