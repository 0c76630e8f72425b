//! The way to Scope's own probes: Go's `net/rpc` as JSON over a WebSocket that the probe opens. Each call is two messages from us and two back,
//! each with the keys `Request`, `Response` and `Value`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::StatusCode;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use relay::{Answer, Link, Order};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};
use tokio_util::sync::CancellationToken;

use super::pipes::{PING_INTERVAL, READ_DEADLINE};
use super::{Scope, bad_request};
use crate::http::reply::problem;
use crate::http::upgrade::{accept_key, switching_protocols};
use crate::telemetry::events::{WebsocketClosed, WebsocketEnd, WebsocketOpened, WebsocketRefused};

/// By which a probe says who it is.
const PROBE_ID: &str = "X-Scope-Probe-ID";
/// Longest id of a probe.
const PROBE_ID_MAX: usize = 256;
/// What a probe offers to do.
const METHOD: &str = "control.Handle";
/// Largest message of a probe.
const INCOMING_MAX: usize = 1 << 20;
/// Calls of one connection whose answers are waited for.
const CALLS_MAX: usize = 1_024;
/// A probe that does not take a message for so long is gone.
const WRITE_DEADLINE: std::time::Duration = std::time::Duration::from_secs(10);

/// Lets one of Scope's own probes take calls, over a WebSocket.
#[utoipa::path(
    get,
    path = "/api/control/ws",
    tag = "Weave Scope",
    params(("X-Scope-Probe-ID" = String, Header, description = "Id of the probe; a later connection with the same takes the place of the earlier")),
    responses(
        (status = 101, description = "The WebSocket is open"),
        (status = 400, description = "The header is missing, or the request asks for no upgrade", body = String, content_type = "application/json"),
        (status = 409, description = "A probe of this name is connected on a stream of its own", body = String, content_type = "application/json"),
        (status = 503, description = "There are too many WebSockets", body = String, content_type = "application/json")
    )
)]
pub(super) async fn control_socket(State(scope): State<Scope>, mut request: Request) -> Response {
    let probe = request.headers().get(PROBE_ID).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    if probe.is_empty() || probe.len() > PROBE_ID_MAX {
        return bad_request(PROBE_ID);
    }
    let accept = match accept_key(request.method(), request.headers()) {
        Ok(accept) => accept,
        Err(problem) => return bad_request(problem),
    };
    let Some(upgraded) = request.extensions_mut().remove::<OnUpgrade>() else { return bad_request("this connection cannot be upgraded") };
    let context = &scope.context;
    if !context.switchboard.may_link_by_name(&probe) {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0);
        tracing::warn!(probe, ?peer, "somebody by the name of a probe that is connected on a stream of its own is not taken for it");
        return problem(StatusCode::CONFLICT, "a probe of this name is connected on a stream of its own, which proves more than a name");
    }
    let Ok(permit) = scope.websockets.clone().try_acquire_owned() else {
        WebsocketRefused { limit: context.limits.websocket_clients }.emit(&context.telemetry);
        return problem(StatusCode::SERVICE_UNAVAILABLE, "there are too many WebSocket clients");
    };
    let (board, telemetry, stopping) = (context.switchboard.clone(), context.telemetry.clone(), context.supervisor.stopping().clone());
    context.supervisor.one_off("probe_websocket", async move {
        if let Ok(upgraded) = upgraded.await {
            let config = WebSocketConfig::default().max_message_size(Some(INCOMING_MAX)).max_frame_size(Some(INCOMING_MAX));
            let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
            WebsocketOpened.emit(&telemetry);
            let reason = match board.link_by_name(&probe) {
                Some((link, orders)) => converse(&mut socket, &link, orders, stopping).await,
                // The probe itself came meanwhile.
                None => WebsocketEnd::Client,
            };
            drop(timeout(WRITE_DEADLINE, socket.close(None)).await);
            WebsocketClosed { reason }.emit(&telemetry);
        }
        drop(permit);
    });
    switching_protocols(accept)
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    link: &Link,
    mut orders: mpsc::Receiver<Order>,
    stopping: CancellationToken,
) -> WebsocketEnd {
    let mut rpc = Rpc::default();
    let mut next_ping = Instant::now() + PING_INTERVAL;
    let mut heard_by = Instant::now() + READ_DEADLINE;
    loop {
        let messages = tokio::select! {
            biased;
            () = stopping.cancelled() => return WebsocketEnd::Stopping,
            () = link.displaced().cancelled() => return WebsocketEnd::Client,
            () = sleep_until(heard_by) => return WebsocketEnd::NoPong,
            () = sleep_until(next_ping) => {
                next_ping = Instant::now() + PING_INTERVAL;
                vec![Message::Ping(Bytes::new())]
            }
            Some(order) = orders.recv() => rpc.call(order).into_iter().flatten().map(Message::text).collect(),
            message = socket.next() => {
                heard_by = Instant::now() + READ_DEADLINE;
                let frame = match message {
                    Some(Ok(Message::Text(text))) => rpc.on_frame(text.as_bytes()),
                    Some(Ok(Message::Binary(bytes))) => rpc.on_frame(&bytes),
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                    Some(Ok(Message::Close(_)) | Err(tokio_tungstenite::tungstenite::Error::Io(_))) | None => return WebsocketEnd::Client,
                    Some(Err(_)) => return WebsocketEnd::Broken,
                };
                match frame {
                    Ok(Some((call, answer))) => link.answered(call, answer),
                    Ok(None) => {}
                    Err(error) => {
                        tracing::debug!(%error, "a probe's answer cannot be understood");
                        return WebsocketEnd::Broken;
                    }
                }
                continue;
            }
        };
        for message in messages {
            match timeout(WRITE_DEADLINE, socket.send(message)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return WebsocketEnd::Client,
                Err(_) => return WebsocketEnd::NotReading,
            }
        }
    }
}

/// Calls by their number on this connection, and the answer that is on its way.
#[derive(Debug, Default)]
struct Rpc {
    next: u64,
    calls: BTreeMap<u64, u64>,
    /// The first half of an answer, whose second half comes next.
    response: Option<ResponseHead>,
}

/// One message, either way.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Frame<V> {
    request: Option<RequestHead>,
    response: Option<ResponseHead>,
    value: Option<V>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RequestHead {
    service_method: String,
    seq: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ResponseHead {
    service_method: String,
    seq: u64,
    error: String,
}

#[derive(Debug, Serialize)]
struct CallValue {
    #[serde(rename = "AppID")]
    app_id: &'static str,
    #[serde(rename = "NodeID")]
    node_id: String,
    #[serde(rename = "Control")]
    control: String,
    #[serde(rename = "ControlArgs")]
    arguments: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AnswerValue {
    value: Option<serde_json::Value>,
    error: String,
    pipe: String,
    raw_tty: bool,
    resize_tty_control: String,
    #[serde(rename = "removedNode")]
    removed_node: String,
}

/// Which call, and its answer.
type Answered = (u64, Result<Answer, String>);

impl Rpc {
    /// The two messages of a call. Pipes of these probes have connections of their own.
    fn call(&mut self, order: Order) -> Option<[String; 2]> {
        let Order::Call { call, node, control, arguments, .. } = order else { return None };
        let seq = self.next;
        self.next += 1;
        self.calls.insert(seq, call);
        // Of a probe that never answers, the oldest calls were given up long ago.
        while self.calls.len() > CALLS_MAX {
            self.calls.pop_first();
        }
        let request = RequestHead { service_method: METHOD.to_owned(), seq };
        let head = Frame::<()> { request: Some(request), ..Frame::default() };
        let arguments = Some(arguments).filter(|arguments| !arguments.is_empty());
        let value = Frame { request: None, response: None, value: Some(CallValue { app_id: "", node_id: node, control, arguments }) };
        Some([serde_json::to_string(&head).ok()?, serde_json::to_string(&value).ok()?])
    }

    /// Takes a message in; with the second one of an answer, which call is answered, and how.
    fn on_frame(&mut self, text: &[u8]) -> Result<Option<Answered>, serde_json::Error> {
        let Some(head) = self.response.take() else {
            self.response = serde_json::from_slice::<Frame<serde_json::Value>>(text)?.response;
            return Ok(None);
        };
        let Some(call) = self.calls.remove(&head.seq) else { return Ok(None) };
        if !head.error.is_empty() {
            return Ok(Some((call, Err(head.error))));
        }
        let value = serde_json::from_slice::<Frame<AnswerValue>>(text)?.value.unwrap_or_default();
        if !value.error.is_empty() {
            return Ok(Some((call, Err(value.error))));
        }
        let AnswerValue { value, pipe, raw_tty, resize_tty_control, removed_node, .. } = value;
        let value = value.filter(|value| !value.is_null());
        let pipe = Some(Arc::<str>::from(pipe)).filter(|pipe| !pipe.is_empty());
        Ok(Some((call, Ok(Answer { value, pipe, raw_tty, resize_tty_control, removed_node }))))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn order(call: u64, arguments: &[(&str, &str)]) -> Order {
        Order::Call {
            call,
            node: "a;<container>".to_owned(),
            control: "docker_stop_container".to_owned(),
            arguments: arguments.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            patience: Duration::from_secs(1),
        }
    }

    #[test]
    fn a_call_is_two_messages_with_all_three_keys() {
        let mut rpc = Rpc::default();
        let [head, value] = rpc.call(order(70, &[])).unwrap();
        assert_eq!(head, r#"{"Request":{"ServiceMethod":"control.Handle","Seq":0},"Response":null,"Value":null}"#);
        assert_eq!(
            value,
            r#"{"Request":null,"Response":null,"Value":{"AppID":"","NodeID":"a;<container>","Control":"docker_stop_container","ControlArgs":null}}"#
        );
        let [head, value] = rpc.call(order(71, &[("width", "80")])).unwrap();
        assert!(head.contains(r#""Seq":1"#) && value.contains(r#""ControlArgs":{"width":"80"}"#), "{head} {value}");
    }

    #[test]
    fn answers_may_come_in_another_order() {
        let mut rpc = Rpc::default();
        rpc.call(order(70, &[])).unwrap();
        rpc.call(order(71, &[])).unwrap();
        let mut said = |text: &str| rpc.on_frame(text.as_bytes()).unwrap();
        assert_eq!(said(r#"{"Request":null,"Response":{"ServiceMethod":"control.Handle","Seq":1,"Error":""},"Value":null}"#), None);
        let opened = Answer { pipe: Some("pipe-1".into()), raw_tty: true, ..Answer::default() };
        assert_eq!(said(r#"{"Request":null,"Response":null,"Value":{"pipe":"pipe-1","raw_tty":true}}"#), Some((71, Ok(opened))));
        assert_eq!(said(r#"{"Response":{"Seq":0,"Error":""}}"#), None);
        assert_eq!(said(r#"{"Value":{"error":"No such container: a"}}"#), Some((70, Err("No such container: a".to_owned()))));
        // Nobody asked.
        assert_eq!(said(r#"{"Response":{"Seq":9,"Error":"x"}}"#), None);
        assert_eq!(said(r#"{"Value":{}}"#), None);
    }

    proptest! {
        #[test]
        fn nothing_that_a_probe_says_makes_a_panic(texts in proptest::collection::vec(any::<Vec<u8>>(), 0..10)) {
            let mut rpc = Rpc::default();
            rpc.call(order(1, &[])).unwrap();
            for text in texts {
                let _ = rpc.on_frame(&text);
            }
        }
    }
}
