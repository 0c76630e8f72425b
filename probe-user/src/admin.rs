//! Metrics and health of the probe, for the node's own monitoring.

use agent::http::metrics::AgentMetrics;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::Roles;
use crate::telemetry::Telemetry;

/// The routes. `/health` answers while the process lives, `/ready` once it does what its roles are: it sees and is connected, or it reports on a
/// cluster or waits for the collector that does.
pub fn router(telemetry: Telemetry, roles: Roles, agent: AgentMetrics) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .with_state(Served { telemetry, roles, agent })
}

#[derive(Clone)]
struct Served {
    telemetry: Telemetry,
    roles: Roles,
    agent: AgentMetrics,
}

/// Serves until `stopping` is cancelled.
pub async fn run(listener: TcpListener, telemetry: Telemetry, roles: Roles, agent: AgentMetrics, stopping: CancellationToken) {
    let served =
        axum::serve(listener, router(telemetry, roles, agent)).with_graceful_shutdown(async move { stopping.cancelled().await }).await;
    if let Err(error) = served {
        tracing::error!(%error, "metrics are not served any more");
    }
}

async fn metrics(State(Served { telemetry, agent, .. }): State<Served>) -> impl IntoResponse {
    let page = telemetry.render() + &agent.page().await;
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], page)
}

async fn ready(State(Served { telemetry, roles, .. }): State<Served>) -> impl IntoResponse {
    let metrics = telemetry.metrics();
    let observer = || match (metrics.rung.get(), metrics.stream_connected.get()) {
        (0, _) => Some("capture has not started\n"),
        (_, 0) => Some("control plane is not connected\n"),
        _ => None,
    };
    let unready = roles.observe.then(observer).flatten().or_else(|| roles.kubernetes.then(|| metrics.kubernetes.unready()).flatten());
    match unready {
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
        None => (StatusCode::OK, "ready\n"),
    }
}
