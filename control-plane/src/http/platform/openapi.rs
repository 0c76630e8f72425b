//! The OpenAPI document: made from the routes that are served, so that it cannot leave one out.

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use utoipa::OpenApi;

use crate::http::reply::json_value;

/// What stands above the routes.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Orchestrator control plane",
        description = "The live map: Weave Scope's API as its clients know it, and the platform's own. \
                       Errors are bare JSON strings; an unknown path is 404 with plain text."
    ),
    tags(
        (name = "Weave Scope", description = "As Weave Scope answered"),
        (name = "Platform", description = "What Scope did not have"),
        (name = "ZooKeeper sync", description = "Ensembles kept in step, and clients moved from one to another; where the service zksync runs")
    )
)]
pub(crate) struct Document;

/// This document.
#[utoipa::path(
    get,
    path = "/api/openapi.json",
    tag = "Platform",
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json"))
)]
#[expect(dead_code, reason = "describes the route below, which cannot be made before the document that it serves")]
fn openapi() {}

/// The document with its own route in it.
pub(crate) fn with_itself(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    #[derive(OpenApi)]
    #[openapi(paths(openapi))]
    struct Itself;
    document.merge(Itself::openapi());
    document
}

/// Serves the document.
pub(crate) fn route(document: utoipa::openapi::OpenApi) -> Router {
    let document = with_itself(document);
    Router::new().route("/api/openapi.json", get(async move || json_value(StatusCode::OK, &document)))
}
