//! What Scope did not have: health, metrics, flows with their counters, probes with what they lost, and the documents that describe it all.

mod audit;
pub(super) mod changes;
mod flows;
mod health;
mod hosts;
mod lead;
mod listeners;
pub(super) mod openapi;
mod probes;
pub(super) mod search;
pub(super) mod services;
pub(super) mod ui;

use std::str::FromStr;

use base::Timestamp;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Context;
use super::query::Query;

pub(super) use lead::YIELD_PATH;

/// The platform's routes.
pub(super) fn routes(context: &Context) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics))
        .routes(routes!(changes::changes))
        .routes(routes!(changes::history))
        .routes(routes!(flows::flows))
        .routes(routes!(hosts::hosts))
        .routes(routes!(listeners::listeners))
        .routes(routes!(probes::probes))
        .routes(routes!(search::search))
        .routes(routes!(audit::audit))
        .routes(routes!(lead::lead))
        .routes(routes!(lead::give_up))
        .with_state(context.clone())
        .merge(services::routes(context))
}

/// RFC 3339 with as many decimals as there are.
pub(crate) fn moment(at: Timestamp) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(at.unix_nanos())).unwrap_or(jiff::Timestamp::MAX).to_string()
}

/// A parameter that is a number, if it is there.
fn number<T: FromStr>(query: &Query, key: &str) -> Result<Option<T>, String> {
    let Some(text) = query.first(key) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| format!("{key} is {text:?}, which is no such number"))
}
