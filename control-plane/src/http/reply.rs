//! Replies in Scope's manner, which the platform's own endpoints share: errors are bare JSON strings, and nothing is kept by caches.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::SizeAbove;

use super::json;
use crate::drivers::Stopped;

/// Replies of at least this many bytes are compressed for clients that say they can take it.
const COMPRESS_FROM: u64 = 1_400;

/// Compresses as Scope did.
pub(crate) fn compression() -> CompressionLayer<SizeAbove> {
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(SizeAbove::new(COMPRESS_FROM))
}

/// JSON that is written already.
pub(crate) fn json_bytes(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// A value through serde.
pub(crate) fn json_value(status: StatusCode, value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => json_bytes(status, body),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// What went wrong, as a bare JSON string.
pub(crate) fn problem(status: StatusCode, text: &str) -> Response {
    json_bytes(status, json::string(text))
}

/// The body of the request did not come in time.
pub(crate) fn late() -> Response {
    problem(StatusCode::REQUEST_TIMEOUT, "the rest of the request did not come in time")
}

/// No such thing.
pub(crate) fn not_found() -> Response {
    let mut response = Response::new(Body::from("404 page not found\n"));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The map is gone: the process is about to end.
pub(crate) fn stopped(stopped: Stopped) -> Response {
    problem(StatusCode::SERVICE_UNAVAILABLE, &stopped.to_string())
}
