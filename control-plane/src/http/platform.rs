//! What Scope did not have: health, metrics, flows with their counters, probes with what they lost, and the documents that describe it all.

mod flows;
mod health;
pub(super) mod openapi;
mod probes;
pub(super) mod ui;

use base::Timestamp;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Context;

/// The platform's routes.
pub(super) fn routes(context: &Context) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics))
        .routes(routes!(flows::flows))
        .routes(routes!(probes::probes))
        .with_state(context.clone())
}

/// RFC 3339 with as many decimals as there are.
pub(crate) fn moment(at: Timestamp) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(at.unix_nanos())).unwrap_or(jiff::Timestamp::MAX).to_string()
}
