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

/// Wraps all routes of the page's port; each is named by its template.
pub(crate) fn layer(router: Router, telemetry: Telemetry) -> Router {
    router.layer(middleware::from_fn_with_state((telemetry, None), observe))
}

/// Wraps an API that finds its paths by rules of its own, so that there are no templates: all of it is the route `api`, e.g. `marathon`.
pub(crate) fn layer_named(router: Router, api: &'static str, telemetry: Telemetry) -> Router {
    router.layer(middleware::from_fn_with_state((telemetry, Some(api)), observe))
}

async fn observe(State((telemetry, api)): State<(Telemetry, Option<&'static str>)>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let mut method = method_label(request.method());
    let route = match api {
        Some(api) => api_label(api, request.uri().path()).to_owned(),
        None => request.extensions().get::<MatchedPath>().map_or_else(|| "unmatched".to_owned(), |path| route_label(path.as_str())),
    };
    let response = match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => {
            HandlerPanicked { message: panic_message(&*panic) }.emit(&telemetry);
            reply::problem(StatusCode::INTERNAL_SERVER_ERROR, "this is a defect of the control plane; its log says more")
        }
    };
    let status = response.status();
    if status == StatusCode::METHOD_NOT_ALLOWED {
        // Whoever tries all methods on all routes would leave a series for each.
        method = "OTHER";
    }
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

/// What load balancers and monitoring ask again and again is named as on the page's port, so that it is left out of what users ask.
fn api_label(api: &'static str, path: &str) -> &'static str {
    match path {
        "/ping" | "/health" | "/master/health" => "health",
        "/metrics" | "/metrics/snapshot" => "metrics",
        _ => api,
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tower::ServiceExt as _;

    use super::*;

    #[test]
    fn a_route_is_named_by_its_template() {
        assert_eq!(route_label("/api/topology/{view}/{id}"), "api_topology_view_id");
        assert_eq!(route_label("/"), "root");
        assert_eq!(method_label(&Method::from_bytes(b"BREW").unwrap()), "OTHER");
    }

    #[tokio::test]
    async fn an_api_without_templates_is_one_route_and_its_health_checks_are_another() {
        let telemetry = Telemetry::new();
        let router = Router::new().fallback(|| async { StatusCode::CONFLICT });
        let router = layer_named(router, "marathon", telemetry.clone());
        for path in ["/v2/apps", "/v2/apps/a/b", "/ping"] {
            router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        }
        let text = telemetry.render();
        for line in [
            r#"orchestrator_http_request_duration_seconds_count{method="GET",route="marathon",status_code="409"} 2"#,
            r#"orchestrator_http_request_duration_seconds_count{method="GET",route="health",status_code="409"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
    }
}
