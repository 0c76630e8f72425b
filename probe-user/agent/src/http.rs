//! The agent's HTTP APIs: Mesos's v1 executor and agent APIs, its classic endpoints, and files of sandboxes.
//!
//! Routing is Mesos's: the first segment may name a process (`slave(1)`), a trailing slash is nothing, and a path that nobody serves is served by
//! whoever serves its longest prefix.

#![allow(clippy::result_large_err, reason = "the error of a handler is what is answered, as its success is")]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::TryStreamExt as _;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::mpsc::Receiver;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::containers::{Containers, Spawn};
use crate::driver::Handle;
use crate::executors::Executors;
use crate::fetcher::Fetcher;
use crate::gc::Collector;
use crate::login::{Asker, Realm};
use encoding::{Encoding, accepted_encoding, content_encoding, wanted};

mod encoding;
mod executor;
mod files;
pub mod metrics;
mod operator;
pub mod rights;
mod sessions;
mod state;

#[cfg(test)]
mod tests;

/// Largest body of a request that is read whole.
const BODY_MAX: usize = 8 << 20;

/// A client may take this long to send the head of its request.
const HEAD_WITHIN: Duration = Duration::from_secs(30);

/// And this long for a body that is read whole.
const BODY_WITHIN: Duration = Duration::from_secs(60);

/// A client whose body is too large may take this long to send the rest of it.
const REST_WITHIN: Duration = Duration::from_secs(2);

/// Connections at a time; more wait.
const CONNECTIONS_MAX: usize = 4096;

/// What is answered.
type Body = BoxBody<Bytes, CutShort>;
type Answer = Response<Body>;

/// A stream of records cannot go on, and some are missing. The connection breaks off, so that its reader does not take what it has for all there is.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("some of the records could not be passed on")]
struct CutShort;

/// What the handlers need.
#[derive(Clone)]
pub struct Server {
    /// Settings.
    pub config: Arc<Config>,
    /// The loop that owns the table.
    pub driver: Handle,
    /// Where containers are.
    pub containers: Containers,
    /// Streams of executors.
    pub executors: Executors,
    /// Whose request it is, and what that one may.
    pub viewer: rights::Viewer,
    /// Where the API is spoken over TLS: with what.
    pub tls: Option<edge_tls::Tls>,
    /// Sandboxes that wait for deletion.
    pub collector: Collector,
    /// Where files come from.
    pub fetcher: Arc<Fetcher>,
    /// Whether the master has this agent.
    pub registered: Arc<AtomicBool>,
    /// When the agent was started.
    pub begun: SystemTime,
    /// How long it then took to find what an earlier agent left.
    pub recovery: Duration,
    /// Spawns a loop.
    pub spawn: Spawn,
    /// Ends all connections.
    pub stopping: CancellationToken,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

/// Serves until the agent stops, or is over; the listener may serve another one then.
pub async fn run(listener: Arc<TcpListener>, server: Server) {
    let permits = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // Out of descriptors, most likely: others close theirs.
                Err(_) => { tokio::time::sleep(Duration::from_millis(50)).await; continue }
            },
            () = server.stopping.cancelled() => return,
        };
        drop(stream.set_nodelay(true));
        let connection = server.clone();
        (server.spawn)(
            "connection",
            Box::pin(async move {
                let _permit = permit;
                let stopping = connection.stopping.clone();
                let stream = match &connection.tls {
                    None => edge_tls::Stream::from(stream),
                    Some(tls) => match tls.accept(edge_tls::Door::Http, stream).await {
                        Ok(stream) => stream,
                        Err(error) => {
                            tracing::debug!(%error, "a client of the agent API does not speak TLS with us");
                            return;
                        }
                    },
                };
                let serve = service_fn(move |request| {
                    let server = connection.clone();
                    async move { Ok::<_, Infallible>(route(server, request).await) }
                });
                let serving = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_WITHIN)
                    .serve_connection(TokioIo::new(stream), serve);
                tokio::select! { _ = serving => {}, () = stopping.cancelled() => {} }
            }),
        );
    }
}

/// Every path that is served, with the handler's name.
const ROUTES: [(&str, Route); 20] = [
    ("/api/v1", Route::Operator),
    ("/api/v1/executor", Route::Executor),
    ("/state", Route::State),
    ("/state.json", Route::State),
    ("/flags", Route::Flags),
    ("/health", Route::Health),
    ("/version", Route::Version),
    ("/containers", Route::Containers),
    ("/monitor/statistics", Route::Statistics),
    ("/monitor/statistics.json", Route::Statistics),
    ("/containerizer/debug", Route::Debug),
    ("/metrics/snapshot", Route::Metrics),
    ("/system/stats.json", Route::System),
    ("/logging/toggle", Route::LoggingToggle),
    ("/files/browse", Route::Browse),
    ("/files/read", Route::Read),
    ("/files/download", Route::Download),
    ("/files/debug", Route::FilesDebug),
    ("/files/browse.json", Route::Browse),
    ("/files/read.json", Route::Read),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Operator,
    Executor,
    State,
    Flags,
    Health,
    Version,
    Containers,
    Statistics,
    Debug,
    Metrics,
    System,
    LoggingToggle,
    Browse,
    Read,
    Download,
    FilesDebug,
}

/// Who serves a path.
fn find(path: &str) -> Option<Route> {
    if path.contains("/..") {
        return None;
    }
    let decoded = files::percent_decode(path);
    let mut path = decoded.trim_end_matches('/');
    if let Some(rest) = path.strip_prefix("/slave(1)")
        && (rest.is_empty() || rest.starts_with('/'))
    {
        path = rest;
    }
    loop {
        if let Some((_, route)) = ROUTES.iter().find(|(it, _)| *it == path) {
            return Some(*route);
        }
        path = path.rsplit_once('/')?.0;
    }
}

async fn route(mut server: Server, request: Request<Incoming>) -> Answer {
    let Some(route) = find(request.uri().path()) else { return plain(StatusCode::NOT_FOUND, None) };
    if server.config.disabled_endpoints.iter().any(|it| find(it) == Some(route)) {
        return plain(StatusCode::FORBIDDEN, Some(&format!("Endpoint '{}' is disabled", request.uri().path())));
    }
    let get_only = matches!(route, Route::Statistics | Route::Containers | Route::Debug | Route::Flags);
    if get_only && request.method() != Method::GET {
        return not_allowed("GET", request.method());
    }
    let asker = match admitted(&server, route, request.headers()) {
        Ok(asker) => asker,
        Err(refusal) => return refusal,
    };
    server.viewer = rights::Viewer::of(server.config.acls.as_ref(), &asker);
    if let Err(refusal) = guarded(&server, route) {
        return refusal;
    }
    let query = Query::of(&request);
    let gzip = accepts_gzip(request.headers());
    let answer = match route {
        Route::Operator => return operator::handle(server, &asker, request).await,
        Route::Executor => return executor::handle(server, &asker, request).await,
        Route::Health => plain(StatusCode::OK, Some("")),
        Route::Version => classic(&query, &state::version()),
        Route::Flags => classic(&query, &serde_json::json!({ "flags": server.config.flags() })),
        Route::Debug => classic(&query, &serde_json::json!({ "pending": [] })),
        Route::System => classic(&query, &metrics::system()),
        Route::LoggingToggle => match operator::permit(&asker, None) {
            Ok(()) => logging_toggle(&server, request.method(), &query),
            Err(refusal) => refusal,
        },
        Route::State => match state::state(&server).await {
            Ok(state) => classic(&query, &state),
            Err(_) => stopping(),
        },
        Route::Containers => match state::containers(&server, &query).await {
            Ok(containers) => classic(&query, &containers),
            Err(_) => stopping(),
        },
        Route::Statistics => match state::statistics(&server).await {
            Ok(statistics) => classic(&query, &statistics),
            Err(_) => stopping(),
        },
        Route::Metrics => metrics_snapshot(&server, &query).await,
        Route::Browse => files::browse(&server, &query).await,
        Route::Read => files::read(&server, &query).await,
        Route::Download => return files::download(&server, &query).await,
        Route::FilesDebug => files::debug(&server, &query).await,
    };
    if gzip { compressed(answer).await } else { answer }
}

/// Whole endpoints of which a list says who may have them.
fn guarded(server: &Server, route: Route) -> Result<(), Answer> {
    let path = ROUTES.iter().find(|(_, it)| *it == route).map_or("", |(path, _)| path);
    if mesos_acl::AUTHORIZABLE_PATHS.contains(&path) {
        server.viewer.demand("get_endpoints", Some(path))?;
    }
    if route == Route::Flags { server.viewer.demand("view_flags", None) } else { Ok(()) }
}

/// Who asks, where that has to be known.
fn admitted(server: &Server, route: Route, headers: &HeaderMap) -> Result<Asker, Answer> {
    let realm = match route {
        Route::Health | Route::Version => return Ok(Asker::Anyone),
        Route::Operator | Route::LoggingToggle => Realm::ReadWrite,
        Route::Executor => Realm::Executor,
        _ => Realm::ReadOnly,
    };
    let authorization = headers.get(AUTHORIZATION).and_then(|it| it.to_str().ok());
    server.config.login.admit(realm, authorization).map_err(|challenges| {
        let mut answer = plain(StatusCode::UNAUTHORIZED, Some(""));
        for challenge in challenges.iter().filter_map(|it| HeaderValue::from_str(it).ok()) {
            answer.headers_mut().append(WWW_AUTHENTICATE, challenge);
        }
        answer
    })
}

/// All metrics. They are gathered at once, so no patience is needed; what is no patience is refused as Mesos does.
async fn metrics_snapshot(server: &Server, query: &Query) -> Answer {
    if let Some(timeout) = query.get("timeout")
        && let Err(problem) = crate::words::parse_duration(timeout)
    {
        return plain(StatusCode::BAD_REQUEST, Some(&format!("Invalid timeout '{timeout}': {problem}.\n")));
    }
    match metrics::snapshot(server).await {
        Ok(metrics) => classic(query, &serde_json::json!(metrics)),
        Err(_) => stopping(),
    }
}

/// What is logged, or more of it for a while.
fn logging_toggle(server: &Server, method: &Method, query: &Query) -> Answer {
    let bad = |text: &str| plain(StatusCode::BAD_REQUEST, Some(text));
    if method != Method::GET && method != Method::POST {
        let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, Some("Expecting one of { 'GET', 'POST' }"));
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
        return answer;
    }
    match (query.get("level"), query.get("duration")) {
        (None, None) => plain(StatusCode::OK, Some(&format!("{}\n", server.config.verbosity.level()))),
        (Some(_), None) => bad("Expecting 'duration=value' in query.\n"),
        (None, Some(_)) => bad("Expecting 'level=value' in query.\n"),
        (Some(level), Some(duration)) => {
            let Ok(level) = level.parse::<u32>() else { return bad(&format!("Invalid level '{level}'.\n")) };
            let Ok(duration) = crate::words::parse_duration(duration) else { return bad("Invalid duration.\n") };
            server.config.verbosity.set(level, duration, &server.spawn);
            plain(StatusCode::OK, Some(""))
        }
    }
}

/// Parameters of a query.
#[derive(Clone, Debug, Default)]
struct Query(Vec<(String, String)>);

impl Query {
    fn of<B>(request: &Request<B>) -> Self {
        let pairs = request.uri().query().unwrap_or_default().split('&').filter(|it| !it.is_empty());
        Query(
            pairs
                .map(|it| it.split_once('=').unwrap_or((it, "")))
                .map(|(name, value)| (files::form_decode(name), files::form_decode(value)))
                .collect(),
        )
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// A stream whose pieces are sent as they are.
fn streamed(records: Receiver<Result<Bytes, CutShort>>) -> Body {
    BodyExt::boxed(StreamBody::new(ReceiverStream::new(records).map_ok(Frame::data)))
}

/// Text for people; without one, the status in words.
fn plain(status: StatusCode, text: Option<&str>) -> Answer {
    let words = format!("{} {}.", status.as_u16(), status.canonical_reason().unwrap_or_default());
    let mut answer = Response::new(full(text.map_or(words, str::to_owned)));
    *answer.status_mut() = status;
    if text != Some("") {
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    answer
}

fn stopping() -> Answer {
    plain(StatusCode::SERVICE_UNAVAILABLE, Some("Agent is shutting down"))
}

fn not_allowed(allowed: &'static str, method: &Method) -> Answer {
    let text = format!("Expecting one of {{ '{allowed}' }}, but received '{method}'.");
    let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, Some(&text));
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

/// JSON of the classic endpoints, wrapped in a call where a page asks for that.
fn classic(query: &Query, value: &serde_json::Value) -> Answer {
    let text = value.to_string();
    let callback = query.get("jsonp").filter(|it| it.chars().all(|it| it.is_ascii_alphanumeric() || matches!(it, '_' | '.' | '$')));
    let (text, kind) = match callback {
        Some(callback) => (format!("{callback}({text});"), "text/javascript"),
        None => (text, "application/json"),
    };
    let mut answer = Response::new(full(text));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers.get(http::header::ACCEPT_ENCODING).and_then(|it| it.to_str().ok()).is_some_and(|it| it.contains("gzip"))
}

/// As Mesos: from 1024 bytes on.
async fn compressed(answer: Answer) -> Answer {
    use std::io::Write as _;

    let (mut parts, body) = answer.into_parts();
    let bytes = match body.collect().await {
        Ok(it) => it.to_bytes(),
        Err(it) => return Response::from_parts(parts, Full::new(Bytes::new()).map_err(move |_| it).boxed()),
    };
    if bytes.len() < 1024 {
        return Response::from_parts(parts, full(bytes));
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    match encoder.write_all(&bytes).and_then(|()| encoder.finish()) {
        Ok(packed) => {
            parts.headers.insert(http::header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            Response::from_parts(parts, full(packed))
        }
        Err(_) => Response::from_parts(parts, full(bytes)),
    }
}

/// A body that is not too large, from a client that is not too slow.
async fn whole(mut body: Incoming) -> Result<Bytes, Answer> {
    let collected = tokio::time::timeout(BODY_WITHIN, Limited::new(&mut body, BODY_MAX).collect()).await;
    match collected {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            // Who still writes when the connection is closed never reads the answer.
            let rest = async { while let Some(Ok(_)) = body.frame().await {} };
            drop(tokio::time::timeout(REST_WITHIN, rest).await);
            Err(plain(StatusCode::PAYLOAD_TOO_LARGE, Some("The body is larger than 8 MB")))
        }
        Ok(Err(_)) => Err(plain(StatusCode::BAD_REQUEST, Some("The body was cut short"))),
        Err(_) => Err(plain(StatusCode::REQUEST_TIMEOUT, None)),
    }
}
