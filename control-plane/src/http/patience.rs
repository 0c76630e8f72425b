//! How long the body of a request may take. A client that sends a byte a second would hold its connection for ever, and there are only so many.
//!
//! Time runs only while a handler waits for the client, so that neither a slow disk nor a busy map is counted against it; and what has come buys
//! more of it, so that a large report over a thin line comes whole. What follows an upgrade is no body, and is not looked at.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};

/// How long bodies are waited for, and what is said when it is over.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a body of any length.
    pub span: Duration,
    /// What has to come in every further second.
    pub bytes_per_second: u64,
}

impl Patience {
    /// Scope's own limit of time. A body of the largest size that a report may have gets some minutes more.
    pub const DEFAULT: Patience = Patience { span: Duration::from_secs(90), bytes_per_second: 64 << 10 };

    fn with(self, bytes: u64) -> Duration {
        self.span.saturating_add(Duration::from_secs(bytes.checked_div(self.bytes_per_second).unwrap_or(0)))
    }
}

/// Ends what takes too long, with the answer `late`.
pub(crate) fn layer(router: Router, patience: Patience, late: fn() -> Response) -> Router {
    router.layer(middleware::from_fn_with_state((patience, late), watch))
}

async fn watch(State((patience, late)): State<(Patience, fn() -> Response)>, request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let is_late = Arc::new(AtomicBool::new(false));
    let request =
        request.map(|body| Body::new(Watched { body, patience, bytes: 0, waited: Duration::ZERO, waits: None, is_late: is_late.clone() }));
    let response = next.run(request).await;
    // Handlers only see that the body broke off, and each says so in its own way. What one has done without the rest is its answer.
    let failed = response.status().is_client_error() || response.status().is_server_error();
    if failed && is_late.load(Ordering::Relaxed) { late() } else { response }
}

#[derive(Debug)]
struct Watched {
    body: Body,
    patience: Patience,
    /// What has come.
    bytes: u64,
    /// How long it was waited for.
    waited: Duration,
    /// Since when it is waited for more, and until when.
    waits: Option<(Instant, Pin<Box<Sleep>>)>,
    is_late: Arc<AtomicBool>,
}

/// What a handler is told.
#[derive(Debug, thiserror::Error)]
#[error("the rest of the request did not come in time")]
struct Late;

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            if let Some((since, _)) = this.waits.take() {
                this.waited += since.elapsed();
            }
            let length = frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref).map_or(0, Bytes::len);
            this.bytes += length as u64;
            return Poll::Ready(frame);
        }
        let left = this.patience.with(this.bytes).saturating_sub(this.waited);
        let (_, sleep) = this.waits.get_or_insert_with(|| {
            let now = Instant::now();
            (now, Box::pin(tokio::time::sleep_until(now + left)))
        });
        ready!(sleep.as_mut().poll(cx));
        this.is_late.store(true, Ordering::Relaxed);
        Poll::Ready(Some(Err(axum::Error::new(Late))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::post;
    use futures::StreamExt as _;
    use futures::stream;
    use http::StatusCode;
    use tower::ServiceExt as _;

    use super::*;
    use crate::http::reply::problem;

    /// What is answered to a body of `pieces` of so many bytes, each of which comes after `pause`.
    async fn answer(pieces: usize, length: usize, pause: Duration) -> StatusCode {
        let pieces = stream::iter(0..pieces).then(move |_| async move {
            tokio::time::sleep(pause).await;
            Ok::<_, std::io::Error>(vec![b' '; length])
        });
        let router = Router::new().route("/", post(|body: Bytes| async move { body.len().to_string() }));
        let router = layer(router, Patience::DEFAULT, || problem(StatusCode::REQUEST_TIMEOUT, "late"));
        router.oneshot(Request::post("/").body(Body::from_stream(pieces)).unwrap()).await.unwrap().status()
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_goes_forward_may_take_its_time() {
        // Two megabytes in ten minutes are too little, ten are enough.
        assert_eq!(answer(600, 4 << 10, Duration::from_secs(1)).await, StatusCode::REQUEST_TIMEOUT);
        assert_eq!(answer(19, 100 << 10, Duration::from_secs(6)).await, StatusCode::OK);
        assert_eq!(answer(100, 1, Duration::from_secs(1)).await, StatusCode::REQUEST_TIMEOUT);
        assert_eq!(answer(80, 1, Duration::from_secs(1)).await, StatusCode::OK);
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_that_takes_its_time_is_not_counted_against_the_client() {
        let body = Body::from_stream(stream::iter([Ok::<_, std::io::Error>("a"), Ok("b")]));
        let router = Router::new().route(
            "/",
            post(|request: Request| async move {
                let mut body = request.into_body().into_data_stream();
                let mut bytes = 0;
                while let Some(piece) = body.next().await {
                    bytes += piece.unwrap().len();
                    tokio::time::sleep(Duration::from_secs(100)).await;
                }
                bytes.to_string()
            }),
        );
        let router = layer(router, Patience::DEFAULT, || problem(StatusCode::REQUEST_TIMEOUT, "late"));
        let response = router.oneshot(Request::post("/").body(body).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
}
