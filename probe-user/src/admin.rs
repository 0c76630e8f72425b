//! Metrics and health of the probe, for the node's own monitoring.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::telemetry::Telemetry;

/// The routes. `/health` answers while the process lives, `/ready` once it sees and is connected.
pub fn router(telemetry: Telemetry) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .with_state(telemetry)
}

/// Serves until `stopping` is cancelled.
pub async fn run(listener: TcpListener, telemetry: Telemetry, stopping: CancellationToken) {
    let served = axum::serve(listener, router(telemetry)).with_graceful_shutdown(async move { stopping.cancelled().await }).await;
    if let Err(error) = served {
        tracing::error!(%error, "metrics are not served any more");
    }
}

async fn metrics(State(telemetry): State<Telemetry>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], telemetry.render())
}

async fn ready(State(telemetry): State<Telemetry>) -> impl IntoResponse {
    let metrics = telemetry.metrics();
    match (metrics.rung.get(), metrics.stream_connected.get()) {
        (0, _) => (StatusCode::SERVICE_UNAVAILABLE, "capture has not started\n"),
        (_, 0) => (StatusCode::SERVICE_UNAVAILABLE, "control plane is not connected\n"),
        _ => (StatusCode::OK, "ready\n"),
    }
}
