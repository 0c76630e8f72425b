//! Marathon's REST API.
//!
//! Paths of apps have slashes of their own and verbs at their ends, so that routes are told apart by hand: see [`route`].

mod allow;
mod answer;
mod apps;
mod autoscale;
mod groups;
mod logging;
mod measure;
mod params;
mod pods;
mod selector;
mod stream;
mod system;
mod tasks;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use base::Timestamp;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio::sync::Semaphore;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate as _, SizeAbove};

use crate::client::base64;
use crate::driver::Handle;
use crate::settings::Settings;

use answer::{Answer, ApiError, error};
use params::Params;

/// What the API needs. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Arc<Settings>,
    handle: Handle,
    now: Box<dyn Fn() -> Timestamp + Send + Sync>,
    started: Instant,
    /// Requests being answered.
    active: AtomicUsize,
    /// Listeners to the event stream.
    streams: Arc<Semaphore>,
    counts: system::HttpCounts,
    stopping: tokio_util::sync::CancellationToken,
    /// Cancelled when somebody asks us to give up leadership.
    abdicated: tokio_util::sync::CancellationToken,
    loggers: logging::Loggers,
}

impl Inner {
    fn abdicate(&self) {
        self.abdicated.cancel();
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

impl Context {
    /// Everything the API needs; `now` is the process's clock, and streams end when `stopping` is cancelled.
    pub fn new(
        settings: Arc<Settings>,
        handle: Handle,
        now: impl Fn() -> Timestamp + Send + Sync + 'static,
        stopping: tokio_util::sync::CancellationToken,
    ) -> Context {
        let streams = Arc::new(Semaphore::new(settings.max_event_streams));
        let inner = Inner {
            settings,
            handle,
            now: Box::new(now),
            started: Instant::now(),
            active: AtomicUsize::new(0),
            streams,
            counts: system::HttpCounts::default(),
            stopping,
            abdicated: tokio_util::sync::CancellationToken::new(),
            loggers: logging::Loggers::default(),
        };
        Context { inner: Arc::new(inner) }
    }

    /// The same with the level at which it logs, and a way to change that. To be called before anybody else has a copy.
    #[must_use]
    pub fn with_levels(self, configured: &str, set: impl Fn(&BTreeMap<String, &'static str>) + Send + Sync + 'static) -> Context {
        match Arc::try_unwrap(self.inner) {
            Ok(inner) => Context { inner: Arc::new(Inner { loggers: logging::Loggers::with(configured, Arc::new(set)), ..inner }) },
            Err(inner) => Context { inner },
        }
    }

    /// Cancelled when the process stops.
    pub fn stopping(&self) -> &tokio_util::sync::CancellationToken {
        &self.inner.stopping
    }

    /// Ends what was set to be logged for a time. To be run beside the API; never ends by itself.
    pub async fn expire_levels(&self) {
        self.loggers().expire().await;
    }

    fn loggers(&self) -> &logging::Loggers {
        &self.inner.loggers
    }

    fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    fn handle(&self) -> &Handle {
        &self.inner.handle
    }

    fn now(&self) -> Timestamp {
        (self.inner.now)()
    }

    fn defaults(&self) -> crate::json::app::Defaults {
        let settings = self.settings();
        crate::json::app::Defaults { network_name: settings.default_network_name.clone(), bridge_name: settings.mesos_bridge_name.clone() }
    }

    /// Cancelled when somebody has asked this process to give up leadership: it is to end in good order, and to be started again.
    pub fn abdicated(&self) -> &tokio_util::sync::CancellationToken {
        &self.inner.abdicated
    }

    /// The metrics of the scheduler in Prometheus' text format.
    pub fn prometheus(&self) -> String {
        system::prometheus(self)
    }
}

/// A request, taken apart.
pub(crate) struct Call {
    pub(crate) method: Method,
    /// Below the root, with a leading slash.
    pub(crate) path: String,
    pub(crate) params: Params,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) peer: String,
}

/// Everything below the listener's root.
pub fn router(context: Context) -> Router {
    let service = tower::service_fn(move |request: Request| {
        let context = context.clone();
        async move { Ok::<_, Infallible>(serve(context, request).await) }
    });
    let small = SizeAbove::new(1_024).and(NotForContentType::new("text/event-stream"));
    Router::new().fallback_service(service).layer(CompressionLayer::new().gzip(true).compress_when(small))
}

/// Counts a request for as long as it is being answered.
struct Active<'a>(&'a AtomicUsize);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve(context: Context, request: Request) -> Response {
    let before = context.inner.active.fetch_add(1, Ordering::Relaxed);
    let _active = Active(&context.inner.active);
    let begun = Instant::now();
    let method = request.method().clone();
    let cors = cors(&context, &request);
    let response = match context.settings().http_max_concurrent_requests {
        Some(most) if before >= most => {
            let mut response = Response::new(Body::from(format!("Too many concurrent requests! Allowed: {most}.")));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response
        }
        _ => answer(&context, request).await.unwrap_or_else(|error| error.into_response()),
    };
    let mut response = response;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(header::EXPIRES, HeaderValue::from_static("0"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert("x-xss-protection", HeaderValue::from_static("1; mode=block"));
    if let Ok(leader) = HeaderValue::from_str(&format!("http://{}", context.settings().leader())) {
        headers.insert("x-marathon-leader", leader);
    }
    for (name, value) in cors {
        headers.insert(name, value);
    }
    context.inner.counts.answered(&method, response.status(), begun.elapsed(), &response);
    response
}

fn cors(context: &Context, request: &Request) -> Vec<(&'static str, HeaderValue)> {
    let Some(origin) = &context.settings().access_control_allow_origin else { return Vec::new() };
    let Ok(origin) = HeaderValue::from_str(origin) else { return Vec::new() };
    let mut headers = vec![
        ("access-control-allow-origin", origin),
        ("access-control-allow-methods", HeaderValue::from_static("GET, HEAD, OPTIONS")),
        ("access-control-max-age", HeaderValue::from_static("86400")),
    ];
    if let Some(wanted) = request.headers().get("access-control-request-headers") {
        headers.push(("access-control-allow-headers", wanted.clone()));
    }
    headers
}

async fn answer(context: &Context, request: Request) -> Answer {
    authorize(context, request.headers())?;
    let (parts, body) = request.into_parts();
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map_or_else(String::new, |peer| peer.0.ip().to_string());
    let path = percent_decoded(parts.uri.path()).ok_or_else(|| error(StatusCode::BAD_REQUEST, "the path is not UTF-8"))?;
    let params = Params::parse(parts.uri.query().unwrap_or_default());
    let limit = context.settings().max_body;
    let body = axum::body::to_bytes(body, limit).await.map_err(|_| error(StatusCode::PAYLOAD_TOO_LARGE, "Request Entity Too Large"))?;
    context.inner.counts.received(body.len());
    if parts.method == Method::OPTIONS {
        return allow::options(&path);
    }
    let methods = allow::methods(&path);
    let call = Call { method: parts.method, path, params, headers: parts.headers, body, peer };
    match (route(context, call).await, methods) {
        (Err(refused), Some(methods)) if refused.is_of_method() => Ok(allow::with_methods(refused.into_response(), methods)),
        (answer, _) => answer,
    }
}

fn authorize(context: &Context, headers: &HeaderMap) -> Result<(), ApiError> {
    let Some((name, password)) = &context.settings().http_credentials else { return Ok(()) };
    let wanted = format!("Basic {}", base64(format!("{name}:{password}").as_bytes()));
    let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    // Takes the same time wherever they differ.
    let differs = given.len() != wanted.len() || given.iter().zip(wanted.as_bytes()).fold(0, |sum, (one, two)| sum | (one ^ two)) != 0;
    if differs { Err(ApiError::unauthorized(&context.settings().http_realm)) } else { Ok(()) }
}

/// Percent signs resolved; `None` when that is no text.
fn percent_decoded(path: &str) -> Option<String> {
    let bytes = path.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%').then(|| path.get(at + 1..at + 3)).flatten().and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match hex {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).ok()
}

async fn route(context: &Context, call: Call) -> Answer {
    let path = call.path.clone();
    let Some(rest) = path.strip_prefix("/v2/").or_else(|| (path == "/v2").then_some("")) else {
        return system::route(context, &call);
    };
    let (kind, rest) = match rest.find(['/', ':']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    match kind {
        "apps" => apps::route(context, call, rest).await,
        "groups" => groups::route(context, call, rest).await,
        "pods" => pods::route(context, call, rest).await,
        "tasks" => tasks::route(context, call, rest).await,
        "deployments" => system::deployments(context, call, rest).await,
        "queue" => system::queue(context, call, rest).await,
        "events" => stream::route(context, &call),
        "info" => system::info(context, &call),
        "leader" => system::leader(context, &call),
        "autoscale" if rest.is_empty() || rest == "/" => autoscale::all(context, &call),
        "plugins" => system::plugins(&call, rest),
        _ => Err(ApiError::no_route()),
    }
}
