//! The way to the API: where it is, and what stands between it and the watches.
//!
//! Between them is a guard. It gives up on a server that does not answer, limits what one message may be, says of every refused request
//! by which status it was refused (to the client library, a refused watch is a stream of odd events), and paces watches: one that the server
//! ends as soon as it has begun would else be opened again without a pause.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, StreamBody};
use kube::client::{Body, ClientBuilder, DynBody};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tower::{BoxError, Layer, Service};

use crate::backoff::{self, Backoff};
use crate::collector::StartError;
use crate::controls::FOLLOWED_FOR;
use crate::wire::shortened;

mod proxy;

/// A watch that lasts shorter than this was not worth opening.
const QUICK: Duration = Duration::from_secs(5);
/// What is read of the body of a refusal.
const REFUSAL_BYTES: usize = 64 * 1024;
/// What is kept of its message.
const MESSAGE_BYTES: usize = 256;

/// Where the API is, and who asks.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Access {
    /// As kubectl would: `KUBECONFIG`, `~/.kube/config`, or else as a pod of the cluster.
    #[default]
    Inferred,
    /// As a pod of the cluster, by its service account.
    InCluster,
    /// By a kubeconfig file.
    Kubeconfig {
        /// The file; `None` for where kubectl would look.
        path: Option<PathBuf>,
        /// The context of that file; `None` for its current one.
        context: Option<String>,
    },
    /// At an address, as nobody: `kubectl proxy`, or a test.
    Url(String),
}

/// How patient the collector is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Patience {
    /// First wait after a failure.
    pub backoff_min: Duration,
    /// Longest wait after failures.
    pub backoff_max: Duration,
    /// First wait before asking again for a kind that is forbidden or absent: an API that has just begun forbids everything for a moment.
    pub refused_min: Duration,
    /// Longest such wait.
    pub refused_max: Duration,
    /// How long a server may take to begin an answer, and to go on with a list.
    pub answer: Duration,
    /// How long a watch lasts before it is opened again, by agreement with the server. Whole seconds.
    pub watch: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(30),
            refused_min: Duration::from_secs(5),
            refused_max: Duration::from_secs(300),
            answer: Duration::from_secs(60),
            watch: Duration::from_secs(290),
        }
    }
}

/// The server has answered, with a status that is no success.
#[derive(Debug, thiserror::Error)]
#[error("{status}: {message}")]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    message: String,
}

impl Refusal {
    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}

/// The server did not answer, or did not go on.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {0:?}")]
struct Silence(Duration);

/// One message, a page of a list or one event, is longer than may be held.
#[derive(Debug, thiserror::Error)]
#[error("a message of more than {0} bytes")]
struct TooLong(usize);

pub(crate) async fn connect(access: &Access, patience: Patience, message_bytes: usize) -> Result<(kube::Client, Arc<Paces>), StartError> {
    let mut config = match access {
        Access::Inferred => kube::Config::infer().await?,
        Access::InCluster => kube::Config::incluster()?,
        Access::Kubeconfig { path, context } => {
            let file = path.as_ref().map_or_else(Kubeconfig::read, Kubeconfig::read_from)?;
            let options = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
            kube::Config::from_custom_kubeconfig(file, &options).await?
        }
        Access::Url(url) => kube::Config::new(url.parse().map_err(|_| StartError::Url(url.clone()))?),
    };
    // Retries are counted and shown; hidden ones would only make them slower.
    config.default_retry = false;
    proxy::settle(&mut config, &proxy::Surroundings::of_process());
    let paces = Arc::new(Paces { patience, watches: Mutex::default() });
    let guard = Guard { paces: paces.clone(), patience, message_bytes };
    Ok((ClientBuilder::try_from(config)?.with_layer(&guard).build(), paces))
}

/// See the module's documentation.
#[derive(Clone)]
struct Guard {
    paces: Arc<Paces>,
    patience: Patience,
    message_bytes: usize,
}

#[derive(Clone)]
struct Guarded<S> {
    inner: S,
    guard: Guard,
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { inner, guard: self.clone() }
    }
}

type GuardedBody = UnsyncBoxBody<bytes::Bytes, BoxError>;

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Box<DynBody>>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<GuardedBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Guard { patience, message_bytes, .. } = self.guard;
        let watch = is_watch(&request).then(|| self.guard.paces.of(request.uri().path()));
        let wait = watch.as_ref().map_or(Duration::ZERO, |watch| watch.before_opening(Instant::now(), backoff::jitter()));
        // A log that is followed begins to be answered with its first line, which may take as long as any other.
        let (first, between_frames) = match &watch {
            Some(_) => (patience.answer, patience.watch + patience.answer),
            None if has(&request, "follow=true") => (FOLLOWED_FOR, FOLLOWED_FOR),
            None => (patience.answer, patience.answer),
        };
        // Nothing is sent before this is polled.
        let answer = self.inner.call(request);
        Box::pin(async move {
            tokio::time::sleep(wait).await;
            let response = match timeout(first, answer).await {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(Silence(first).into()),
            };
            if response.status().is_client_error() || response.status().is_server_error() {
                return Err(refusal(response, patience.answer).await.into());
            }
            if let Some(watch) = &watch {
                watch.answered.notify_one();
            }
            Ok(response.map(|body| limited(body, message_bytes, between_frames)))
        })
    }
}

fn is_watch(request: &Request<Body>) -> bool {
    has(request, "watch=true")
}

fn has(request: &Request<Body>, parameter: &str) -> bool {
    request.uri().query().unwrap_or_default().split('&').any(|pair| pair == parameter)
}

/// Lists are one line, and so is every event of a watch: the limit is on what comes without a line feed.
fn limited(body: Box<DynBody>, message_bytes: usize, between_frames: Duration) -> GuardedBody {
    let frames = futures::stream::unfold(Some((BodyStream::new(body), 0_usize)), move |state| async move {
        let (mut frames, mut held) = state?;
        let frame = match timeout(between_frames, frames.next()).await {
            Ok(frame) => frame?,
            Err(_) => return Some((Err(Silence(between_frames).into()), None)),
        };
        let Ok(frame) = frame else { return Some((frame, None)) };
        if let Some(data) = frame.data_ref() {
            held = match data.iter().rposition(|&byte| byte == b'\n') {
                Some(at) => data.len() - at - 1,
                None => held.saturating_add(data.len()),
            };
        }
        if held > message_bytes {
            return Some((Err(TooLong(message_bytes).into()), None));
        }
        Some((Ok(frame), Some((frames, held))))
    });
    StreamBody::new(frames).boxed_unsync()
}

async fn refusal(response: Response<Box<DynBody>>, patience: Duration) -> Refusal {
    #[derive(serde::Deserialize)]
    struct Status {
        message: String,
    }
    let status = response.status();
    let mut body = Vec::new();
    // Half a body says enough.
    let _ = timeout(patience, read_some(response.into_body(), &mut body)).await;
    let message = serde_json::from_slice::<Status>(&body).map(|status| status.message);
    let message = message.unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned());
    Refusal { status, message: shortened(message.trim(), MESSAGE_BYTES).to_owned() }
}

async fn read_some(body: Box<DynBody>, into: &mut Vec<u8>) {
    let mut frames = BodyStream::new(body);
    while into.len() < REFUSAL_BYTES
        && let Some(Ok(frame)) = frames.next().await
    {
        into.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
    }
}

/// The watches, by path. As many as there are kinds.
#[derive(Debug)]
pub(crate) struct Paces {
    patience: Patience,
    watches: Mutex<BTreeMap<String, Arc<Pace>>>,
}

impl Paces {
    /// The watch of one path.
    pub(crate) fn of(&self, path: &str) -> Arc<Pace> {
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.entry(path.to_owned()).or_insert_with(|| Arc::new(Pace::new(self.patience))).clone()
    }
}

/// When the watch of one path was last opened.
#[derive(Debug)]
pub(crate) struct Pace {
    opened: Mutex<(Option<Instant>, Backoff)>,
    /// The server has accepted a watch.
    pub(crate) answered: Notify,
}

impl Pace {
    fn new(patience: Patience) -> Self {
        let backoff = Backoff::new(patience.backoff_min, patience.backoff_max);
        Self { opened: Mutex::new((None, backoff)), answered: Notify::new() }
    }

    /// How long to wait before the watch is opened again: not at all when the one before has lasted.
    fn before_opening(&self, now: Instant, jitter: f64) -> Duration {
        let (opened, backoff) = &mut *self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let lasted = opened.is_none_or(|at| now.saturating_duration_since(at) >= QUICK);
        let wait = if lasted {
            backoff.reset();
            Duration::ZERO
        } else {
            backoff.failed(now, jitter)
        };
        *opened = Some(now + wait);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_the_server_ends_at_once_is_opened_ever_more_slowly_and_others_are_not() {
        let paces = Paces { patience: Patience::default(), watches: Mutex::default() };
        let (pods, nodes) = (paces.of("/api/v1/pods"), paces.of("/api/v1/nodes"));
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..5 {
            let wait = pods.before_opening(now, 0.0);
            waits.push(wait.as_millis());
            now += wait + Duration::from_millis(1);
        }
        assert_eq!(waits, [0, 500, 1000, 2000, 4000]);
        assert_eq!(nodes.before_opening(now, 0.0), Duration::ZERO);
        now += Duration::from_secs(10);
        assert_eq!(pods.before_opening(now, 0.0), Duration::ZERO, "the one before has lasted");
        assert_eq!(pods.before_opening(now, 0.0), Duration::from_millis(500));
    }

    #[tokio::test]
    async fn a_message_without_end_is_cut_off_and_many_lines_are_not() {
        async fn read(lines: &'static str, times: usize) -> Result<usize, BoxError> {
            let frames = futures::stream::iter((0..times).map(move |_| Ok::<_, BoxError>(bytes::Bytes::from_static(lines.as_bytes()))));
            let body: Box<DynBody> = Box::new(Box::pin(StreamBody::new(frames.map(|data| data.map(http_body::Frame::data)))));
            let collected = limited(body, 100, Duration::from_secs(1)).collect().await?;
            Ok(collected.to_bytes().len())
        }
        assert_eq!(read("a line of 17 byte\n", 100).await.ok(), Some(1800));
        let error = read("no end to this", 100).await.unwrap_err();
        assert_eq!(error.to_string(), "a message of more than 100 bytes");
    }
}
