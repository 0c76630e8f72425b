//! A view over a WebSocket: the whole of it first, then what changed.
//!
//! What a client costs: a pointer to the snapshot that it has, and one piece of a message on its way, or a message that it shares with others
//! who take compressed ones; with a query, also a list of the nodes that answer it. A client that takes nothing is dropped when a piece has waited
//! for [`WRITE_DEADLINE`], and its connection ends when it takes too little for too long.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use edge_grpc::filtering::{self, FilteringError};
use futures::{SinkExt as _, StreamExt as _};
use http::StatusCode;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::TryAcquireError;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame, Utf8Bytes};
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};
use topology::{Delta, Query as Words, View, ViewSnapshot};

use super::incoming::Incoming;
use super::pace::Pace;
use super::packed::{Packed, negotiate, pack};
use super::pieces::Pieces;
use super::scenes::Feed;
use super::views::Wanted;
use super::{Past, Scope, bad_request, filter, filtered};
use crate::drivers::Stopped;
use crate::http::query::{Query, last_segments, parse_go_duration};
use crate::http::reply::{not_found, problem};
use crate::http::upgrade::{accept_key, switching_protocols_with};
use crate::telemetry::Telemetry;
use crate::telemetry::events::{WebsocketClosed, WebsocketEnd, WebsocketOpened, WebsocketRefused, WebsocketUpdated};

/// Time between two messages when the client does not say.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
/// Scope's heartbeat.
const PING_INTERVAL: Duration = Duration::from_millis(33_300);
/// A client that has not answered a ping for so long is gone.
const READ_DEADLINE: Duration = Duration::from_secs(60);
/// A client that does not take a piece for so long is gone. The system holds some megabytes for it, and asks for more when a third of them
/// is taken: over a megabit a second that takes ten seconds.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// Messages go out in frames of about this size: the most that waits for a client in our memory.
const PIECE: usize = 16 << 10;
/// Clients have nothing to say; what they say is thrown away.
const INCOMING_MAX: usize = 16 << 10;

/// Answers a request for an upgrade.
pub(super) fn upgrade(scope: &Scope, mut request: Request) -> Response {
    let query = Query::parse(request.uri().query());
    let interval = match query.first("t") {
        None | Some("") => DEFAULT_INTERVAL,
        Some(text) => match parse_go_duration(text) {
            Some(interval) => interval,
            None => return bad_request(text),
        },
    };
    let words = match filter::of(&query) {
        Ok(words) => words,
        Err(text) => return bad_request(&text),
    };
    let Some([view, _ws]) = last_segments(request.uri().path()) else { return not_found() };
    let wanted = View::from_id(&view).map(|view| Wanted::new(view, &query));
    let past = Past::of(&scope.context, &query);
    let accept = match accept_key(request.method(), request.headers()) {
        Ok(accept) => accept,
        Err(problem) => return bad_request(problem),
    };
    let extensions = negotiate(request.headers());
    let is_compressed = extensions.is_some();
    let Some(upgraded) = request.extensions_mut().remove::<OnUpgrade>() else { return bad_request("this connection cannot be upgraded") };
    let context = &scope.context;
    let permit = match scope.websockets.clone().try_acquire_owned() {
        Ok(permit) => permit,
        Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => {
            WebsocketRefused { limit: context.limits.websocket_clients }.emit(&context.telemetry);
            return problem(StatusCode::SERVICE_UNAVAILABLE, "there are too many WebSocket clients");
        }
    };
    let this = scope.clone();
    context.supervisor.one_off("websocket", async move {
        if let Ok(upgraded) = upgraded.await {
            let config = WebSocketConfig::default()
                .read_buffer_size(4 << 10)
                .write_buffer_size(0)
                .max_write_buffer_size(1 << 20)
                .max_message_size(Some(INCOMING_MAX))
                .max_frame_size(Some(INCOMING_MAX));
            let stream = Incoming::new(TokioIo::new(upgraded), is_compressed);
            let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
            Client::new(socket, &this, words, is_compressed).run(wanted, past, interval).await;
        }
        drop(permit);
    });
    switching_protocols_with(accept, extensions)
}

fn given_up(error: FilteringError) -> WebsocketEnd {
    match error {
        FilteringError::TooLong(_) => WebsocketEnd::TooLong,
        FilteringError::Stopped => WebsocketEnd::Stopping,
    }
}

/// One connected client.
struct Client<S> {
    socket: WebSocketStream<S>,
    scope: Scope,
    /// What its nodes have to answer, if it says so.
    words: Option<Words>,
    /// It takes compressed messages.
    is_compressed: bool,
    /// A client whose loop is torn down in any other way than by its own end has gone away.
    open: OpenSocket,
}

/// Counts the client for as long as it lives, even if its loop panics.
struct OpenSocket {
    telemetry: Telemetry,
    end: WebsocketEnd,
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        WebsocketClosed { reason: self.end }.emit(&self.telemetry);
    }
}

/// What a client has been sent, and when it is due for more.
struct Progress {
    known: Arc<ViewSnapshot>,
    /// Of that, what it shows: the same, when nothing is filtered.
    shown: Arc<ViewSnapshot>,
    pace: Pace,
}

/// Where a client's pictures come from.
enum Source {
    /// The live map, as it changes.
    Live(Feed),
    /// The map of a moment that moves on as time does.
    Past { past: Past, wanted: Wanted, begun: Instant },
}

impl Source {
    /// The picture that is due; `None` when there is no way to it.
    async fn newest(&mut self) -> Option<Arc<ViewSnapshot>> {
        match self {
            Source::Live(feed) => feed.current().await.ok(),
            Source::Past { past, wanted, begun } => past.moved_to(past.at + begun.elapsed()).picture(wanted).await.ok(),
        }
    }

    /// How a client ends to whom there is no way any more.
    fn end(&self) -> WebsocketEnd {
        match self {
            Source::Live(_) => WebsocketEnd::Stopping,
            Source::Past { .. } => WebsocketEnd::NoHistory,
        }
    }

    /// Waits until something came or went that a client should not have to wait for. The past is looked at when its time has come.
    async fn urgent(&mut self) -> Result<(), Stopped> {
        match self {
            Source::Live(feed) => feed.urgent().await,
            Source::Past { .. } => std::future::pending().await,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    fn new(socket: WebSocketStream<S>, scope: &Scope, words: Option<Words>, is_compressed: bool) -> Self {
        let telemetry = scope.context.telemetry.clone();
        WebsocketOpened.emit(&telemetry);
        Client { socket, scope: scope.clone(), words, is_compressed, open: OpenSocket { telemetry, end: WebsocketEnd::Client } }
    }

    async fn run(mut self, wanted: Option<Wanted>, past: Option<Past>, interval: Duration) {
        let end = match (wanted, past) {
            (None, _) => WebsocketEnd::UnknownView,
            (Some(wanted), Some(past)) => self.follow(Source::Past { past, wanted, begun: Instant::now() }, interval).await,
            (Some(wanted), None) => match self.scope.scenes.follow(wanted).await {
                Ok(feed) => self.follow(Source::Live(feed), interval).await,
                Err(_) => WebsocketEnd::Stopping,
            },
        };
        self.open.end = end;
        let close = |code, reason| Some(CloseFrame { code, reason: Utf8Bytes::from_static(reason) });
        let goodbye = match end {
            WebsocketEnd::Stopping => close(CloseCode::Away, "the control plane stops"),
            WebsocketEnd::UnknownView => close(CloseCode::Normal, "there is no such view"),
            WebsocketEnd::NoHistory => close(CloseCode::Error, "the history cannot be read"),
            WebsocketEnd::TooLong => close(CloseCode::Policy, "the query takes longer than others can wait for it"),
            WebsocketEnd::Broken => close(CloseCode::Protocol, ""),
            // A client that said goodbye is owed the echo of its close frame, which reading on sends: without it, its library reports an
            // abnormal closure.
            WebsocketEnd::Client => None,
            WebsocketEnd::NotReading | WebsocketEnd::NoPong => return,
        };
        let farewell = async {
            if goodbye.is_some() {
                self.socket.close(goodbye).await?;
            }
            // Until the client has closed its end, too: closing before would turn our last words into a reset.
            while let Some(message) = self.socket.next().await {
                message?;
            }
            Ok::<_, tokio_tungstenite::tungstenite::Error>(())
        };
        let _ = timeout(Duration::from_secs(1), farewell).await;
    }

    async fn follow(&mut self, mut source: Source, interval: Duration) -> WebsocketEnd {
        let stopping = self.scope.context.supervisor.stopping().clone();
        let Some(known) = source.newest().await else { return source.end() };
        let shown = match filtered(self.words.as_ref(), known.clone()).await {
            Ok(shown) => shown,
            Err(error) => return given_up(error),
        };
        let (first, graphs) = (shown.clone(), self.scope.context.metrics_graph.clone());
        if let Err(end) = self.send(None, &shown, move || Pieces::of_reset(first).linking(&graphs), None).await {
            return end;
        }
        let now = Instant::now();
        let mut progress = Progress { known, shown, pace: Pace::new(self.scope.beats, interval, now) };
        let mut pong_due = now + READ_DEADLINE;
        let mut next_ping = now + PING_INTERVAL;
        loop {
            let due = progress.pace.due();
            tokio::select! {
                biased;
                () = stopping.cancelled() => return WebsocketEnd::Stopping,
                incoming = self.socket.next() => match incoming {
                    Some(Ok(Message::Pong(_))) => pong_due = Instant::now() + READ_DEADLINE,
                    Some(Ok(Message::Close(_)) | Err(tokio_tungstenite::tungstenite::Error::Io(_))) | None => return WebsocketEnd::Client,
                    Some(Ok(_)) => {}
                    Some(Err(_)) => return WebsocketEnd::Broken,
                },
                () = sleep_until(pong_due) => return WebsocketEnd::NoPong,
                () = sleep_until(next_ping) => {
                    next_ping += PING_INTERVAL;
                    if let Err(end) = self.send_frame(Frame::ping(Vec::new())).await {
                        return end;
                    }
                }
                () = sleep_until(due.unwrap_or(pong_due)), if due.is_some() => {
                    let begun = Instant::now();
                    if let Err(end) = self.update(&mut source, &mut progress).await {
                        return end;
                    }
                    // Whoever took a message for so long could not be asked meanwhile, and has shown that it is there.
                    if begun.elapsed() > PING_INTERVAL {
                        pong_due = Instant::now() + READ_DEADLINE;
                    }
                }
                urgent = source.urgent(), if !progress.pace.is_early() => match urgent {
                    Ok(()) => progress.pace.hurry(Instant::now()),
                    Err(_) => return WebsocketEnd::Stopping,
                },
            }
        }
    }

    /// Sends what changed since the last message.
    async fn update(&mut self, source: &mut Source, progress: &mut Progress) -> Result<(), WebsocketEnd> {
        let due = progress.pace.due();
        let Some(newest) = source.newest().await else { return Err(source.end()) };
        let change = self.scope.deltas.between(&progress.known, &newest);
        let (change, shown) = match &self.words {
            None => (change, newest.clone()),
            Some(words) => {
                let (words, newest, before) = (words.clone(), newest.clone(), progress.shown.clone());
                let answering = filtering::in_turn(move |may_go_on| {
                    let shown = newest.answering_after(&words, &before, &change, may_go_on)?;
                    Ok((Arc::new(Delta::between(&before, &shown)), shown))
                });
                answering.await.map_err(given_up)?
            }
        };
        let graphs = self.scope.context.metrics_graph.clone();
        self.send(Some(&progress.shown), &shown, move || Pieces::of_delta(change).linking(&graphs), due).await?;
        progress.shown = shown;
        progress.known = newest;
        progress.pace.sent(Instant::now());
        Ok(())
    }

    /// Sends the message that leads from one picture to another one, and was to be sent at a moment.
    async fn send(
        &mut self,
        from: Option<&Arc<ViewSnapshot>>,
        to: &Arc<ViewSnapshot>,
        text: impl FnOnce() -> Pieces + Send + 'static,
        due: Option<Instant>,
    ) -> Result<(), WebsocketEnd> {
        if self.is_compressed {
            // What answers a query is this client's own.
            let message = match &self.words {
                None => self.scope.packed.message(from, to, text).await,
                Some(_) => pack(text).await,
            };
            let message = message.map_err(|_| WebsocketEnd::Stopping)?;
            self.send_packed(&message).await?;
        } else {
            self.send_text(text()).await?;
        }
        WebsocketUpdated { late: due.map(|due| due.elapsed()) }.emit(&self.open.telemetry);
        Ok(())
    }

    async fn send_text(&mut self, mut pieces: Pieces) -> Result<(), WebsocketEnd> {
        let mut data = Data::Text;
        while let Some(piece) = pieces.next_piece(PIECE) {
            self.send_frame(Frame::message(piece, OpCode::Data(data), pieces.is_ended())).await?;
            data = Data::Continue;
        }
        Ok(())
    }

    async fn send_packed(&mut self, message: &Packed) -> Result<(), WebsocketEnd> {
        let last = message.frames.len().saturating_sub(1);
        for (n, bytes) in message.frames.iter().enumerate() {
            let data = if n == 0 { Data::Text } else { Data::Continue };
            let mut frame = Frame::message(bytes.clone(), OpCode::Data(data), n == last);
            frame.header_mut().rsv1 = n == 0;
            self.send_frame(frame).await?;
        }
        Ok(())
    }

    async fn send_frame(&mut self, frame: Frame) -> Result<(), WebsocketEnd> {
        match timeout(WRITE_DEADLINE, self.socket.send(Message::Frame(frame))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(tokio_tungstenite::tungstenite::Error::Io(error))) if error.kind() == std::io::ErrorKind::TimedOut => {
                Err(WebsocketEnd::NotReading)
            }
            Ok(Err(_)) => Err(WebsocketEnd::Client),
            Err(_) => Err(WebsocketEnd::NotReading),
        }
    }
}
