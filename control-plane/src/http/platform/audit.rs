//! The record of who did what.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::number;
use crate::http::Context;
use crate::http::query::Query;
use crate::http::reply::{json_value, problem};

/// Records of a reply when the client does not say.
const DEFAULT_LIMIT: usize = 100;
/// Records of a reply at most.
const LIMIT_MAX: usize = 1_000;

/// Which records to list.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes parameters; they are read one by one, so that a mistake can be named")]
pub(crate) struct AuditParameters {
    /// Only records with a smaller id: `next` of the page before.
    before: Option<u64>,
    /// At most this many, 1 to 1,000; default 100.
    #[param(minimum = 1, maximum = 1_000)]
    limit: Option<usize>,
}

/// A page of the record.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditPage<'a> {
    /// The latest first.
    #[schema(value_type = Vec<AuditRecord>)]
    records: Vec<&'a relay::Record>,
    /// `before` of the next page; null when there are no more. The latest 4,096 can be asked for, the file `audit.log` in the data directory has
    /// more.
    #[schema(required)]
    next: Option<u64>,
}

/// One call of a control, or something that the control plane itself was told to do (`yield_lead`).
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes what the switchboard writes down")]
pub(crate) struct AuditRecord {
    /// Grows by one with every record.
    id: u64,
    /// When it was called, RFC 3339.
    at: String,
    /// Where the request came from: address and port.
    remote: Option<String>,
    /// The name that the caller gave by HTTP Basic. Nobody has checked it here.
    user: Option<String>,
    /// Which probe was told; empty when none was.
    probe: String,
    /// Which node it was about; empty when none was.
    node: String,
    /// Which control.
    control: String,
    /// Its arguments; what may be a secret is `***`.
    arguments: Option<std::collections::BTreeMap<String, String>>,
    /// `done`, `failed`, `unknown` (no such control), `not_connected`, `probe_lost`, `timed_out`, `stopped` (the control plane did, before the
    /// answer came) or `too_many`.
    outcome: String,
    /// What the caller was told, when it was not done.
    error: Option<String>,
    /// Pipe that was opened: the beginning of its id.
    pipe: Option<String>,
    /// How long it took, in milliseconds.
    duration_ms: u64,
}

/// Who did what to which node, the latest first.
#[utoipa::path(
    get,
    path = "/api/v1/audit",
    tag = "Platform",
    params(AuditParameters),
    responses(
        (status = 200, description = "A page of the record", body = AuditPage<'static>),
        (status = 400, description = "A parameter cannot be understood", body = String, content_type = "application/json")
    )
)]
pub(crate) async fn audit(State(context): State<Context>, RawQuery(query): RawQuery) -> Response {
    let query = Query::parse(query.as_deref());
    let page = || -> Result<relay::Page, String> {
        let limit = number(&query, "limit")?.unwrap_or(DEFAULT_LIMIT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(format!("limit is {limit}, and has to be between 1 and {LIMIT_MAX}"));
        }
        Ok(context.switchboard.audit().page(number(&query, "before")?, limit))
    };
    match page() {
        Ok(relay::Page { records, next }) => {
            json_value(StatusCode::OK, &AuditPage { records: records.iter().map(|record| &**record).collect(), next })
        }
        Err(text) => problem(StatusCode::BAD_REQUEST, &text),
    }
}
