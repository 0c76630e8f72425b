//! Whether the process lives, whether to send it traffic, and its numbers.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use crate::drivers::{HistoryStatus, OldReports};
use crate::http::Context;
use crate::http::reply::json_value;
use crate::readiness::Check;
use crate::telemetry::events::{DriverObserved, HistoryObserved, MapObserved, OldProbesObserved, ProbesObserved};

/// A driver that does not answer within this time does not live.
const DRIVER_PATIENCE: Duration = Duration::from_secs(2);

/// Whether the process lives.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok`, or `failing`.
    status: &'static str,
    /// What is wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
}

/// Whether to send this process traffic.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// Whether every check has passed.
    ready: bool,
    /// What was checked.
    checks: Vec<ReadinessCheck>,
}

/// One condition.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReadinessCheck {
    /// `listeners`, `store`, `driver`, `probes` or `stopping`.
    name: &'static str,
    /// Whether it holds.
    passed: bool,
    /// For people.
    detail: String,
}

/// Whether the process lives: the loop that keeps the map answers.
///
/// What cannot be written, and links between ZooKeeper ensembles that stand still, are problems that it lives with.
#[utoipa::path(
    get,
    path = "/health",
    tag = "Platform",
    responses((status = 200, description = "It lives", body = Health), (status = 503, description = "It does not answer", body = Health))
)]
pub(crate) async fn health(State(context): State<Context>) -> Response {
    if driver_answers(&context).await {
        json_value(StatusCode::OK, &Health { status: "ok", problems: lived_with(&context) })
    } else {
        let problem = "the loop that keeps the map does not answer".to_owned();
        json_value(StatusCode::SERVICE_UNAVAILABLE, &Health { status: "failing", problems: vec![problem] })
    }
}

/// What is wrong, none of which the live map needs.
fn lived_with(context: &Context) -> Vec<String> {
    let history = context.history.problem();
    let audit = context.switchboard.audit().problem();
    let links = context.zksync.as_ref().map(zksync_service::Service::problems).unwrap_or_default();
    history.into_iter().chain(context.problems.all()).chain(audit).chain(links).collect()
}

/// Whether to send this process traffic.
///
/// After a restart it waits until the probes that were known before are back on the map, but at most 5 s.
#[utoipa::path(
    get,
    path = "/ready",
    tag = "Platform",
    responses((status = 200, description = "It is ready", body = Readiness), (status = 503, description = "It is not, yet or any more", body = Readiness))
)]
pub(crate) async fn ready(State(context): State<Context>) -> Response {
    let mut checks = context.readiness.checks(context.supervisor.stopping().is_cancelled());
    let answers = driver_answers(&context).await;
    checks.push(Check {
        name: "driver",
        passed: answers,
        detail: if answers { "the map answers" } else { "the map does not answer" }.to_owned(),
    });
    let ready = checks.iter().all(|check| check.passed);
    let checks = checks.into_iter().map(|Check { name, passed, detail }| ReadinessCheck { name, passed, detail }).collect();
    json_value(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &Readiness { ready, checks })
}

/// Numbers in Prometheus' text format.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "Platform",
    responses((status = 200, description = "Prometheus' text format", body = String, content_type = "text/plain"))
)]
pub(crate) async fn metrics(State(context): State<Context>) -> Response {
    let gauges = context.topology.gauges();
    DriverObserved {
        probes_connected: gauges.probes_connected.load(Ordering::Relaxed),
        containers: gauges.containers.load(Ordering::Relaxed),
        pictures: gauges.pictures.load(Ordering::Relaxed),
        records_refused: gauges.records_refused.load(Ordering::Relaxed),
        busy: Duration::from_nanos(gauges.busy_nanos.load(Ordering::Relaxed)),
        inbox_length: context.topology.inbox_length(),
    }
    .emit(&context.telemetry);
    if let Some(history) = context.history.kept() {
        let HistoryStatus { bytes, segments, queued, lost, .. } = history.status();
        HistoryObserved { bytes, segments, queued, lost }.emit(&context.telemetry);
    }
    MapObserved {
        views: &gauges.view_sizes(),
        lags: gauges.lags(),
        records_refused: gauges.records_refused.load(Ordering::Relaxed),
        history_lost: context.history.kept().map_or(0, |history| history.status().lost),
        old_reports_refused: context.old_probes.gauges().reports_refused.load(Ordering::Relaxed),
        old_reports_not_kept: context.old_reports.as_ref().map_or(0, OldReports::lost),
    }
    .emit(&context.telemetry);
    let old_probes = context.old_probes.gauges();
    OldProbesObserved {
        reports: old_probes.reports.load(Ordering::Relaxed),
        reports_refused: old_probes.reports_refused.load(Ordering::Relaxed),
        nodes: old_probes.nodes.load(Ordering::Relaxed),
    }
    .emit(&context.telemetry);
    // A driver that does not answer is told of by `/health`; the rest of the page is worth having all the same.
    if let Ok(Ok(probes)) = timeout(DRIVER_PATIENCE, context.topology.probes()).await {
        ProbesObserved { probes: &probes }.emit(&context.telemetry);
    }
    let mut page = context.telemetry.render();
    if let Some(mesos) = &context.mesos
        && let Ok(numbers) = timeout(DRIVER_PATIENCE, mesos.metrics()).await
    {
        page.push_str(&edge_mesos::prometheus_page(&numbers));
    }
    if let Some(zksync) = &context.zksync {
        page.push_str(&zksync.metrics().render());
    }
    if let Some(marathon) = context.marathon.as_ref().and_then(|it| it.get()) {
        page.push_str(&marathon.prometheus());
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response()
}

async fn driver_answers(context: &Context) -> bool {
    matches!(timeout(DRIVER_PATIENCE, context.topology.stats(Vec::new())).await, Ok(Ok(_)))
}
