//! `/v2/events`: the event stream.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use http::{HeaderValue, Method, StatusCode, header};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, ApiError, error};
use super::{Call, Context};
use crate::events::{Frame, simple};

/// How often a stream says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Ends a stream's story when it ends, however that comes about.
struct Listener {
    context: Context,
    remote: String,
    _room: OwnedSemaphorePermit,
}

impl Drop for Listener {
    fn drop(&mut self) {
        let remote = &self.remote;
        self.context.handle().bus().send(simple("event_stream_detached", |json| json.text_field("remoteAddress", remote)));
    }
}

struct Stream {
    frames: Receiver<Arc<Frame>>,
    heartbeat: Interval,
    wanted: BTreeSet<String>,
    light: bool,
    stopping: CancellationToken,
    listener: Listener,
}

pub(super) fn route(context: &Context, call: &Call) -> Answer {
    let accept = call.headers.get(header::ACCEPT).and_then(|it| it.to_str().ok()).unwrap_or_default();
    if call.method != Method::GET || !accept.contains("text/event-stream") {
        return Err(ApiError::no_method());
    }
    let room = context.inner.streams.clone().try_acquire_owned();
    let room = room.map_err(|_| error(StatusCode::SERVICE_UNAVAILABLE, "Too many listeners to the event stream"))?;
    let wanted: BTreeSet<String> = call.params.all("event_type").map(str::to_owned).collect();
    let mut heartbeat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Listens before it is announced, so that its own announcement is the first that it hears.
    let frames = context.handle().bus().listen();
    let remote = call.peer.clone();
    let attached = Arc::new(simple("event_stream_attached", |json| json.text_field("remoteAddress", &remote)));
    let stream = Stream {
        frames,
        heartbeat,
        light: call.params.get("plan-format") == Some("light"),
        stopping: context.inner.stopping.clone(),
        listener: Listener { context: context.clone(), remote, _room: room },
        wanted,
    };
    context.handle().bus().send((*attached).clone());
    let body = Body::from_stream(futures::stream::unfold(stream, |mut stream| async move {
        let bytes = stream.next().await?;
        Some((Ok::<_, std::convert::Infallible>(bytes), stream))
    }));
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(response)
}

impl Stream {
    /// The next bytes; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => return None,
                _ = self.heartbeat.tick() => return Some(Bytes::from_static(b"\r\n")),
                frame = self.frames.recv() => match frame {
                    Ok(frame) if self.wants(&frame) => return Some(self.written(&frame)),
                    Ok(_) => {}
                    // Told nothing rather than told with a gap: whoever listens comes again and looks at everything.
                    Err(RecvError::Lagged(_)) => {
                        self.listener.context.inner.counts.stream_dropped();
                        return None;
                    }
                    Err(RecvError::Closed) => return None,
                },
            }
        }
    }

    fn wants(&self, frame: &Frame) -> bool {
        // Clients of Marathon break on types that they do not know: what it never had is told to those who ask for it.
        (self.wanted.is_empty() && !frame.kind.starts_with("autoscale")) || self.wanted.contains(frame.kind)
    }

    fn written(&self, frame: &Frame) -> Bytes {
        let data = frame.light.as_ref().filter(|_| self.light).unwrap_or(&frame.data);
        let text = format!("event: {}\r\ndata: {data}\r\n\r\n", frame.kind);
        self.listener.context.inner.counts.streamed(text.len());
        Bytes::from(text)
    }
}
