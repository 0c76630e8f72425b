//! Around every request: how long it took, and what to do when its handler panics.

use std::panic::AssertUnwindSafe;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use futures::FutureExt as _;
use http::{Method, StatusCode};
use tokio::time::Instant;

use super::reply;
use crate::supervise::panic_message;
use crate::telemetry::Telemetry;
use crate::telemetry::events::{HandlerPanicked, RequestAnswered};

/// Wraps all routes.
pub(crate) fn layer(router: Router, telemetry: Telemetry) -> Router {
    router.layer(middleware::from_fn_with_state(telemetry, observe))
}

async fn observe(State(telemetry): State<Telemetry>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = method_label(request.method());
    let route = request.extensions().get::<MatchedPath>().map_or_else(|| "unmatched".to_owned(), |path| route_label(path.as_str()));
    let response = match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => {
            HandlerPanicked { message: panic_message(&*panic) }.emit(&telemetry);
            reply::problem(StatusCode::INTERNAL_SERVER_ERROR, "this is a defect of the control plane; its log says more")
        }
    };
    let status = response.status();
    let websocket = status == StatusCode::SWITCHING_PROTOCOLS;
    RequestAnswered { method, route: &route, status: status.as_u16(), websocket, elapsed: begun.elapsed() }.emit(&telemetry);
    response
}

/// A label for the method that a client cannot make up.
fn method_label(method: &Method) -> &'static str {
    const KNOWN: [Method; 8] =
        [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::PATCH, Method::TRACE];
    const LABELS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"];
    KNOWN.iter().position(|known| known == method).map_or("OTHER", |at| LABELS[at])
}

/// `/api/topology/{view}` becomes `api_topology_view`, as Scope's instrumentation named its routes.
fn route_label(template: &str) -> String {
    let label = template.trim_matches('/').replace(['{', '}', '*'], "").replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    if label.is_empty() { "root".to_owned() } else { label }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_named_by_its_template() {
        assert_eq!(route_label("/api/topology/{view}/{id}"), "api_topology_view_id");
        assert_eq!(route_label("/"), "root");
        assert_eq!(method_label(&Method::from_bytes(b"BREW").unwrap()), "OTHER");
    }
}
