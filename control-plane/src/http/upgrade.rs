//! The handshake of WebSockets.

use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// The answer to the client's key, if its request is a proper one.
pub(crate) fn accept_key(method: &Method, headers: &HeaderMap) -> Result<HeaderValue, &'static str> {
    let has_token = |name: header::HeaderName, token: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|it| it.trim().eq_ignore_ascii_case(token))
    };
    if method != Method::GET || !has_token(header::CONNECTION, "upgrade") || !has_token(header::UPGRADE, "websocket") {
        return Err("this is for WebSockets: send an upgrade request");
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version.as_bytes() != b"13") {
        return Err("the version of the WebSocket protocol has to be 13");
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or("the header Sec-WebSocket-Key is missing")?;
    HeaderValue::try_from(derive_accept_key(key.as_bytes())).map_err(|_| "the header Sec-WebSocket-Key is not well-formed")
}

/// The answer that begins a WebSocket with extensions that the client offered.
pub(crate) fn switching_protocols_with(accept: HeaderValue, extensions: Option<HeaderValue>) -> Response {
    let mut response = switching_protocols(accept);
    if let Some(extensions) = extensions {
        response.headers_mut().insert(header::SEC_WEBSOCKET_EXTENSIONS, extensions);
    }
    response
}

/// The answer that begins a WebSocket.
pub(crate) fn switching_protocols(accept: HeaderValue) -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response
}
