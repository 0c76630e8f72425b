//! Pipes over WebSockets: the bytes of a terminal, or of logs.
//!
//! What comes in at one end goes out at the other in messages of at most 1,024 bytes, as Scope sent them. A client that does not read holds up
//! the sender, and what it holds is bounded by the pipe's window. Reading and writing do not wait for each other: who cannot be written to can
//! still say that it wants to stop.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use http::{Method, StatusCode, Uri};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use relay::{Connection, End, PipeRefusal};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Utf8Bytes};
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};
use tokio_util::sync::CancellationToken;

use super::{Scope, bad_request};
use crate::http::query::{decode, last_segments};
use crate::http::reply::{not_found, problem};
use crate::http::upgrade::{accept_key, switching_protocols};
use crate::telemetry::events::{WebsocketClosed, WebsocketEnd, WebsocketOpened, WebsocketRefused};

/// Most bytes in one message.
const MESSAGE_BYTES: usize = 1_024;
/// Bytes that are taken out of a pipe at once.
const TAKEN_BYTES: usize = 64 << 10;
/// Largest message that is taken in: what somebody pastes.
const INCOMING_MAX: usize = 1 << 20;
/// Longest id of a pipe.
const ID_MAX: usize = 256;
/// Scope's heartbeat.
pub(super) const PING_INTERVAL: Duration = Duration::from_millis(33_300);
/// A peer of which nothing was heard for so long, not even an answer to a heartbeat, is gone.
pub(super) const READ_DEADLINE: Duration = Duration::from_secs(60);
/// How long the goodbye may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Opens a client's end of a pipe, over a WebSocket.
///
/// What is sent goes to the terminal, and what the terminal says comes in binary messages of at most 1,024 bytes. The WebSocket is closed when the
/// pipe has ended. While the pipe is open, one may come back.
#[utoipa::path(
    get,
    path = "/api/pipe/{id}",
    tag = "Weave Scope",
    params(("id" = String, Path, description = "Id of the pipe, from the answer of a control")),
    responses(
        (status = 101, description = "The WebSocket is open"),
        (status = 400, description = "The request asks for no upgrade", body = String, content_type = "application/json"),
        (status = 404, description = "The pipe is closed", body = String, content_type = "text/plain"),
        (status = 503, description = "There are too many pipes or WebSockets", body = String, content_type = "application/json")
    )
)]
pub(super) async fn client(State(scope): State<Scope>, request: Request) -> Response {
    match last_segments(request.uri().path()) {
        Some([id]) => upgrade(&scope, &id, End::Client, request),
        None => not_found(),
    }
}

/// Opens a probe's end of a pipe, over a WebSocket.
#[utoipa::path(
    get,
    path = "/api/pipe/{id}/probe",
    tag = "Weave Scope",
    params(("id" = String, Path, description = "Id of the pipe, which the probe chose")),
    responses(
        (status = 101, description = "The WebSocket is open"),
        (status = 400, description = "The request asks for no upgrade", body = String, content_type = "application/json"),
        (status = 404, description = "The pipe is closed: do not try again", body = String, content_type = "text/plain"),
        (status = 503, description = "There are too many pipes or WebSockets", body = String, content_type = "application/json")
    )
)]
pub(super) async fn probe(State(scope): State<Scope>, request: Request) -> Response {
    match last_segments(request.uri().path()) {
        Some([id, _]) => upgrade(&scope, &id, End::Probe, request),
        None => not_found(),
    }
}

/// Says whether one may connect to a pipe.
#[utoipa::path(
    get,
    path = "/api/pipe/{id}/check",
    tag = "Weave Scope",
    params(("id" = String, Path, description = "Id of the pipe")),
    responses(
        (status = 204, description = "It is open, or was never heard of"),
        (status = 404, description = "It is closed", body = String, content_type = "text/plain")
    )
)]
pub(super) async fn check(State(scope): State<Scope>, uri: Uri) -> Response {
    match last_segments(uri.path()) {
        Some([id, _]) if scope.context.switchboard.may_connect(&id) => empty(StatusCode::NO_CONTENT),
        _ => not_found(),
    }
}

/// Closes a pipe.
#[utoipa::path(
    delete,
    path = "/api/pipe/{id}",
    tag = "Weave Scope",
    params(("id" = String, Path, description = "Id of the pipe")),
    responses((status = 200, description = "It is closed, if it was there"))
)]
pub(super) async fn delete(State(scope): State<Scope>, uri: Uri) -> Response {
    close(&scope, &uri)
}

/// Closes a pipe: for pages that can only post while they are closed.
#[utoipa::path(
    post,
    path = "/api/pipe/{id}",
    tag = "Weave Scope",
    params(("id" = String, Path, description = "Id of the pipe")),
    responses((status = 200, description = "It is closed, if it was there"))
)]
pub(super) async fn post(State(scope): State<Scope>, uri: Uri) -> Response {
    close(&scope, &uri)
}

fn close(scope: &Scope, uri: &Uri) -> Response {
    let Some(id) = uri.path().rsplit('/').next().and_then(decode) else { return not_found() };
    scope.context.switchboard.close(&id);
    empty(StatusCode::OK)
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::default();
    *response.status_mut() = status;
    response
}

fn upgrade(scope: &Scope, id: &str, end: End, mut request: Request) -> Response {
    let context = &scope.context;
    // Whoever connects makes the pipe, so a name is not to cost more than a name.
    if *request.method() != Method::GET || id.len() > ID_MAX || !context.switchboard.may_connect(id) {
        return not_found();
    }
    let accept = match accept_key(request.method(), request.headers()) {
        Ok(accept) => accept,
        Err(problem) => return bad_request(problem),
    };
    let Some(upgraded) = request.extensions_mut().remove::<OnUpgrade>() else { return bad_request("this connection cannot be upgraded") };
    let Ok(permit) = scope.websockets.clone().try_acquire_owned() else {
        WebsocketRefused { limit: context.limits.websocket_clients }.emit(&context.telemetry);
        return problem(StatusCode::SERVICE_UNAVAILABLE, "there are too many WebSocket clients");
    };
    let connection = match context.switchboard.connect(id, end) {
        Ok(connection) => connection,
        Err(PipeRefusal::Closed) => return not_found(),
        Err(PipeRefusal::TooMany) => return problem(StatusCode::SERVICE_UNAVAILABLE, "there are too many pipes"),
    };
    let (telemetry, stopping) = (context.telemetry.clone(), context.supervisor.stopping().clone());
    context.supervisor.one_off("pipe_websocket", async move {
        if let Ok(upgraded) = upgraded.await {
            let config = WebSocketConfig::default()
                .read_buffer_size(8 << 10)
                .write_buffer_size(TAKEN_BYTES)
                .max_write_buffer_size(4 * TAKEN_BYTES)
                .max_message_size(Some(INCOMING_MAX))
                .max_frame_size(Some(INCOMING_MAX));
            let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
            WebsocketOpened.emit(&telemetry);
            let reason = carry(socket, &connection, stopping).await;
            WebsocketClosed { reason }.emit(&telemetry);
        }
        drop((connection, permit));
    });
    switching_protocols(accept)
}

/// Both ways, until the pipe has ended, the peer has gone, or the process stops.
async fn carry<S: AsyncRead + AsyncWrite + Unpin>(
    socket: WebSocketStream<S>,
    connection: &Connection,
    stopping: CancellationToken,
) -> WebsocketEnd {
    let (mut sink, mut stream) = socket.split();
    let (end, goodbye) = tokio::select! {
        () = stopping.cancelled() => (WebsocketEnd::Stopping, Some((CloseCode::Away, "the control plane stops"))),
        ended = outward(&mut sink, connection) => match ended {
            Ok(()) => (WebsocketEnd::Client, Some((CloseCode::Normal, ""))),
            Err(_) => (WebsocketEnd::Client, None),
        },
        end = inward(&mut stream, connection) => (end, None),
    };
    let farewell = async {
        if let Some((code, reason)) = goodbye {
            let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
            sink.send(Message::Close(Some(frame))).await?;
        }
        // Until the peer has closed its end, too: closing before would turn our last words into a reset.
        while let Some(message) = stream.next().await {
            message?;
        }
        Ok::<_, tokio_tungstenite::tungstenite::Error>(())
    };
    if !matches!(end, WebsocketEnd::NoPong) {
        drop(timeout(FAREWELL, farewell).await);
    }
    end
}

async fn outward<S: AsyncRead + AsyncWrite + Unpin>(
    sink: &mut SplitSink<WebSocketStream<S>, Message>,
    connection: &Connection,
) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    let mut next_ping = Instant::now() + PING_INTERVAL;
    loop {
        // Not begun anew when a heartbeat comes in between: what it has taken would be lost.
        let mut receiving = std::pin::pin!(connection.receive(TAKEN_BYTES));
        let chunks = loop {
            tokio::select! {
                biased;
                () = sleep_until(next_ping) => {
                    next_ping = Instant::now() + PING_INTERVAL;
                    sink.send(Message::Ping(Bytes::new())).await?;
                }
                chunks = &mut receiving => break chunks,
            }
        };
        let Some(chunks) = chunks else { return Ok(()) };
        for mut chunk in chunks {
            while !chunk.is_empty() {
                let message = chunk.split_to(chunk.len().min(MESSAGE_BYTES));
                sink.feed(Message::Binary(message)).await?;
            }
        }
        sink.flush().await?;
    }
}

async fn inward<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut SplitStream<WebSocketStream<S>>, connection: &Connection) -> WebsocketEnd {
    loop {
        let bytes = match timeout(READ_DEADLINE, stream.next()).await {
            Err(_) => return WebsocketEnd::NoPong,
            Ok(Some(Ok(Message::Binary(bytes)))) => bytes,
            Ok(Some(Ok(Message::Text(text)))) => Bytes::from(text),
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)))) => continue,
            Ok(Some(Ok(Message::Close(_)) | Err(tokio_tungstenite::tungstenite::Error::Io(_))) | None) => return WebsocketEnd::Client,
            Ok(Some(Err(_))) => return WebsocketEnd::Broken,
        };
        if !connection.send(bytes).await {
            // The pipe takes nothing any more; what it still says is on its way out.
            std::future::pending::<()>().await;
        }
    }
}
