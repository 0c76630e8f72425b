//! Which methods each route has: what `OPTIONS` answers, and what a refused method is told.

use axum::response::Response;
use http::{HeaderValue, StatusCode, header};

use super::answer::{Answer, ApiError, empty};

const READS: &str = "GET, HEAD, OPTIONS";
const DELETES: &str = "DELETE, OPTIONS";
const POSTS: &str = "POST, OPTIONS";

/// The methods of the route that `path` belongs to; nothing when there is no such route.
pub(super) fn methods(path: &str) -> Option<&'static str> {
    if path == "/logging" {
        return Some("GET, HEAD, POST, OPTIONS");
    }
    let Some(rest) = path.strip_prefix("/v2/") else { return super::system::is_route(path).then_some(READS) };
    let (kind, rest) = rest.split_at(rest.find(['/', ':']).unwrap_or(rest.len()));
    let rest = rest.trim_matches('/');
    Some(match kind {
        "apps" => of_apps(rest),
        "groups" => of_groups(rest),
        "pods" => return of_pods(rest),
        "tasks" if rest.is_empty() => READS,
        "tasks" if rest == "delete" => POSTS,
        "deployments" if rest.is_empty() => READS,
        "deployments" => DELETES,
        "queue" if rest.is_empty() => READS,
        "queue" if rest.ends_with("/delay") => DELETES,
        "events" => "GET, OPTIONS",
        "leader" => "GET, HEAD, DELETE, OPTIONS",
        "info" => READS,
        "autoscale" | "plugins" if rest.is_empty() => READS,
        _ => return None,
    })
}

fn of_apps(rest: &str) -> &'static str {
    let parent = rest.rsplit_once('/').map_or("", |(before, _)| before);
    if rest.is_empty() {
        "GET, HEAD, POST, PUT, PATCH, OPTIONS"
    } else if rest.ends_with("/restart") {
        "POST, DELETE, OPTIONS"
    } else if rest.ends_with("/versions") || parent.ends_with("/versions") {
        READS
    } else if rest.ends_with("/tasks") {
        "GET, HEAD, DELETE, OPTIONS"
    } else if parent.ends_with("/tasks") {
        DELETES
    } else if rest.ends_with("/autoscale") {
        "GET, HEAD, PUT, DELETE, OPTIONS"
    } else {
        "GET, HEAD, PUT, PATCH, DELETE, OPTIONS"
    }
}

fn of_groups(rest: &str) -> &'static str {
    let (parent, last) = rest.rsplit_once('/').unwrap_or(("", rest));
    if matches!(last, "apps" | "versions") || parent == "versions" || parent.ends_with("/versions") {
        READS
    } else {
        "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
    }
}

fn of_pods(rest: &str) -> Option<&'static str> {
    let (path, verb) = rest.split_once("::").map_or((rest, None), |(path, verb)| (path, Some(verb)));
    let Some(verb) = verb else {
        return Some(if path.is_empty() { "GET, HEAD, POST, OPTIONS" } else { "GET, HEAD, PUT, DELETE, OPTIONS" });
    };
    match verb.split_once('/').unwrap_or((verb, "")) {
        ("status", "") | ("versions", _) => Some(READS),
        ("instances", _) => Some(DELETES),
        _ => None,
    }
}

/// The answer to `OPTIONS`. Browsers ask so before they send what a page of another origin wants sent, and send nothing after a refusal.
pub(super) fn options(path: &str) -> Answer {
    let methods = methods(path).ok_or_else(ApiError::no_route)?;
    Ok(with_methods(empty(StatusCode::OK), methods))
}

pub(super) fn with_methods(mut response: Response, methods: &'static str) -> Response {
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}
