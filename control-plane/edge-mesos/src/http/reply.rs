//! Answers in the manner of libprocess: errors are plain text, empty bodies are empty.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use master::Reply;

/// Bodies of at least this many bytes are compressed for those who can take it.
pub(crate) const COMPRESS_FROM: usize = 1_024;

/// A text; an empty one is replaced by the code's own.
pub(crate) fn text(status: StatusCode, message: &str) -> Response {
    let own = format!("{} {}.", status.as_u16(), status.canonical_reason().unwrap_or("Unknown"));
    let message = if message.is_empty() { own } else { message.to_owned() };
    let mut response = Response::new(Body::from(message));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Without a body.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

pub(crate) fn bad_request(message: &str) -> Response {
    text(StatusCode::BAD_REQUEST, message)
}

pub(crate) fn not_found() -> Response {
    text(StatusCode::NOT_FOUND, "")
}

pub(crate) fn unavailable(message: &str) -> Response {
    text(StatusCode::SERVICE_UNAVAILABLE, message)
}

/// The loop is gone: the process is about to end.
pub(crate) fn stopped(_: crate::Stopped) -> Response {
    unavailable("Master is shutting down")
}

/// Keeps method and body.
pub(crate) fn redirect(location: &str) -> Response {
    let Ok(location) = HeaderValue::from_str(location) else { return unavailable("The leader's name is no host name") };
    let mut response = empty(StatusCode::TEMPORARY_REDIRECT);
    response.headers_mut().insert(LOCATION, location);
    response
}

pub(crate) fn method_not_allowed(allowed: &[&str], method: &http::Method) -> Response {
    let all = allowed.iter().map(|it| format!("'{it}'")).collect::<Vec<_>>().join(", ");
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, &format!("Expecting one of {{ {all} }}, but received '{method}'."));
    if let Ok(allow) = HeaderValue::from_str(&allowed.join(", ")) {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

/// What the core answered.
pub(crate) fn of_core(reply: Reply) -> Response {
    match reply {
        Reply::Ok => empty(StatusCode::OK),
        Reply::Accepted => empty(StatusCode::ACCEPTED),
        Reply::Refused { kind, message } => {
            let status = StatusCode::from_u16(kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            text(status, &message)
        }
    }
}

/// Bytes of a type.
pub(crate) fn bytes(content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Compressed bytes.
pub(crate) fn gzipped(content_type: &'static str, body: Bytes) -> Response {
    let mut response = bytes(content_type, body);
    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response
}

/// A document, wrapped in a call of the function that the client names with `jsonp`.
pub(crate) fn json(document: Vec<u8>, query: &super::call::Query) -> Response {
    match query.first("jsonp") {
        None => bytes("application/json", document),
        Some(callback) => {
            let mut body = callback.into_bytes();
            body.push(b'(');
            body.extend_from_slice(&document);
            body.extend_from_slice(b");");
            bytes("text/javascript", body)
        }
    }
}

/// Whether the client can take compressed bodies.
pub(crate) fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(http::header::ACCEPT_ENCODING).iter().filter_map(|it| it.to_str().ok());
    accepted.flat_map(|it| it.split(',')).any(|entry| {
        let mut parts = entry.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let refused = parts.any(|it| it.strip_prefix("q=").and_then(|q| q.parse::<f32>().ok()) == Some(0.0));
        (name.eq_ignore_ascii_case("gzip") || name == "*") && !refused
    })
}
