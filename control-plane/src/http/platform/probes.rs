//! Probes: how each one sees, and what it lost.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use topology::ProbeStatus;
use utoipa::ToSchema;

use super::moment;
use crate::drivers::Departure;
use crate::http::Context;
use crate::http::reply::{json_value, stopped};

/// All probes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProbeList {
    /// Connected, or heard of within the window; sorted by id.
    probes: Vec<Probe>,
    /// The last hundred whose nodes left the map since the control plane started, the latest first.
    departed: Vec<Departed>,
}

/// A probe whose nodes left the map.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Departed {
    /// Its id.
    id: String,
    /// Host that it reported on.
    hostname: String,
    /// When its nodes left, RFC 3339.
    left_at: String,
    /// `goodbye`; `lost`: its stream broke and it did not come back within the window; or `silent`: it is one of Weave Scope's, and no report of
    /// it came within the window.
    reason: &'static str,
}

impl From<Departure> for Departed {
    fn from(departure: Departure) -> Self {
        let Departure { id, host_name, at, reason } = departure;
        Departed { id: id.to_string(), hostname: host_name.to_string(), left_at: moment(at), reason: reason.as_str() }
    }
}

/// A probe.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Probe {
    /// Stable identity.
    id: String,
    /// Host that it reports on.
    hostname: String,
    /// Its version.
    version: String,
    /// Whether its stream is open.
    connected: bool,
    /// When it was last heard of, RFC 3339.
    last_seen: String,
    /// Last report on the map.
    sequence: u64,
    /// How it sees.
    capture: Capture,
    /// What it lost since it started.
    losses: Losses,
    /// How much of it is on the map.
    counts: Counts,
    /// How old its last report was when it came, in seconds; null when its stream is not open.
    #[schema(required)]
    lag_seconds: Option<f64>,
}

/// How a probe sees.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Capture {
    /// 1 is the best.
    rung: u32,
    /// What it stands on.
    description: String,
    /// Why it stands no higher; empty on the first.
    reason: String,
    /// What cannot be seen from there.
    blind_spots: Vec<String>,
    /// Kernel hooks.
    hooks: Vec<Hook>,
    /// 0: everything is told at once. Higher levels give up immediacy, then detail, to stay within the probe's budget.
    overload_level: u32,
    /// Capabilities that the probe lacks.
    missing_capabilities: Vec<String>,
}

/// A kernel hook.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Hook {
    /// Name.
    name: String,
    /// The kernel's answer when it is not attached; null when it is.
    #[schema(required)]
    error: Option<String>,
}

/// What a probe lost since it started. Zero everywhere is the normal state.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Losses {
    /// Ring records, by ring.
    ring_records: BTreeMap<String, u64>,
    /// Flow ends that the kernel's table had no room for.
    flows_uncounted: u64,
    /// Ends without an owner.
    sockets_unowned: u64,
    /// Records that user space had no room for.
    table_full: u64,
    /// Deltas that were merged into a later snapshot.
    reports_merged: u64,
    /// Connection ends that the kernel saw open.
    ends_seen: u64,
    /// Those that reached a flow.
    ends_reported: u64,
    /// By cause, for what has no field of its own.
    other: BTreeMap<String, u64>,
    /// `endsReported` / `endsSeen`; 1 when nothing was seen yet.
    completeness: f64,
}

/// How much of a probe is on the map.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Counts {
    /// Processes, ended ones within the window included.
    processes: u64,
    /// Containers in any state.
    containers: u64,
    /// Flows.
    flows: u64,
    /// Records that were refused: beyond the limits, or about another host's containers.
    records_refused: u64,
}

/// Probes: how each one sees, and what it lost.
#[utoipa::path(
    get,
    path = "/api/v1/probes",
    tag = "Platform",
    responses((status = 200, description = "The probes, sorted by id", body = ProbeList))
)]
pub(crate) async fn probes(State(context): State<Context>) -> Response {
    match context.topology.probes().await {
        Ok(probes) => {
            let departed = context.topology.gauges().departures().into_iter().map(Departed::from).collect();
            let lags = context.topology.gauges().lags();
            let told = |status: ProbeStatus| {
                let lag_seconds = lags.get(&status.id).map(std::time::Duration::as_secs_f64);
                Probe { lag_seconds, ..Probe::from(status) }
            };
            json_value(StatusCode::OK, &ProbeList { probes: probes.into_iter().map(told).collect(), departed })
        }
        Err(error) => stopped(error),
    }
}

impl From<ProbeStatus> for Probe {
    fn from(status: ProbeStatus) -> Self {
        let ProbeStatus { id, host_name, version, connected, last_seen, sequence, capture, losses, counts } = status;
        Probe {
            id: id.to_string(),
            hostname: host_name.to_string(),
            version: version.to_string(),
            connected,
            last_seen: moment(last_seen),
            sequence,
            capture: capture.into(),
            losses: losses.into(),
            counts: Counts {
                processes: counts.processes,
                containers: counts.containers,
                flows: counts.flows,
                records_refused: counts.records_refused,
            },
            lag_seconds: None,
        }
    }
}

impl From<topology::Capture> for Capture {
    fn from(capture: topology::Capture) -> Self {
        let hook = |(name, error): &(std::sync::Arc<str>, Option<std::sync::Arc<str>>)| Hook {
            name: name.to_string(),
            error: error.as_ref().map(ToString::to_string),
        };
        Capture {
            rung: capture.rung,
            description: capture.description.to_string(),
            reason: capture.reason.to_string(),
            blind_spots: capture.blind_spots.iter().map(ToString::to_string).collect(),
            hooks: capture.hooks.iter().map(hook).collect(),
            overload_level: capture.overload_level,
            missing_capabilities: capture.missing_capabilities.iter().map(ToString::to_string).collect(),
        }
    }
}

impl From<topology::Losses> for Losses {
    fn from(losses: topology::Losses) -> Self {
        Losses {
            completeness: losses.completeness().unwrap_or(1.0),
            other: losses.other.iter().map(|(cause, count)| (cause.to_string(), *count)).collect(),
            ring_records: losses.ring_records.iter().map(|(ring, count)| (ring.to_string(), *count)).collect(),
            flows_uncounted: losses.flows_uncounted,
            sockets_unowned: losses.sockets_unowned,
            table_full: losses.table_full,
            reports_merged: losses.reports_merged,
            ends_seen: losses.ends_seen,
            ends_reported: losses.ends_reported,
        }
    }
}
