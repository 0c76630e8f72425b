//! `ProbeService`: admits streams while there is room, and hands each to a session of its own.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as Poller, Poll};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use proto::probe::v1::ControlMessage;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use topology::{ProbeId, StreamId};

use super::Context;
use super::codec::RawMessages;
use super::session::Session;
use crate::telemetry::events::{StreamRefusal, StreamRefused};

/// Messages that may wait for a probe that does not read.
const OUTBOX_CAPACITY: usize = 32;

/// The service that probes call. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ProbeService {
    context: Context,
    room: Arc<Semaphore>,
    streams: Streams,
}

impl ProbeService {
    /// A service without streams.
    pub fn new(context: Context) -> Self {
        ProbeService { room: Arc::new(Semaphore::new(context.limits.streams)), context, streams: Streams::default() }
    }

    /// Takes a stream on, if there is room.
    fn admit(&self, request: Request<Streaming<Bytes>>) -> Result<Response<ControlStream>, Status> {
        let peer = request.remote_addr();
        let refused = |reason, detail: &str, status: Status| {
            StreamRefused { peer, reason, detail }.emit(&self.context.telemetry);
            Err(status)
        };
        if self.context.supervisor.stopping().is_cancelled() {
            let text = "the control plane is about to stop";
            return refused(StreamRefusal::Stopping, text, Status::unavailable(text));
        }
        let Ok(permit) = self.room.clone().try_acquire_owned() else {
            let text = format!("{} streams are open, and there may be no more", self.context.limits.streams);
            return refused(StreamRefusal::TooMany, &text, Status::resource_exhausted(text.as_str()));
        };
        let (outbox, messages) = mpsc::channel(OUTBOX_CAPACITY);
        let session = Session::new(self.context.clone(), self.streams.clone(), peer, outbox);
        let incoming = request.into_inner();
        self.context.supervisor.one_off("probe_stream", async move {
            session.run(incoming).await;
            drop(permit);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}

type ControlStream = Pin<Box<ReceiverStream<Result<ControlMessage, Status>>>>;

/// The newest stream of each probe, so that an older one can be ended when its probe has come back another way.
#[derive(Clone, Debug, Default)]
pub(super) struct Streams(Arc<Mutex<HashMap<ProbeId, (StreamId, CancellationToken)>>>);

impl Streams {
    /// Makes `stream` the newest one of `probe` and ends the one before; gives back what ends this one.
    pub(super) fn enter(&self, probe: &ProbeId, stream: StreamId) -> CancellationToken {
        let replaced = CancellationToken::new();
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match streams.get(probe) {
            // Two streams came at once, and this one lost.
            Some((newest, _)) if *newest > stream => replaced.cancel(),
            _ => {
                if let Some((_, older)) = streams.insert(probe.clone(), (stream, replaced.clone())) {
                    older.cancel();
                }
            }
        }
        replaced
    }

    /// `stream` has ended.
    pub(super) fn leave(&self, probe: &ProbeId, stream: StreamId) {
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if streams.get(probe).is_some_and(|(newest, _)| *newest == stream) {
            streams.remove(probe);
        }
    }
}

impl NamedService for ProbeService {
    const NAME: &'static str = "orchestrator.probe.v1.ProbeService";
}

impl StreamingService<Bytes> for ProbeService {
    type Response = ControlMessage;
    type ResponseStream = ControlStream;
    type Future = std::future::Ready<Result<Response<ControlStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        std::future::ready(self.admit(request))
    }
}

impl tower::Service<http::Request<Body>> for ProbeService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Poller<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != "/orchestrator.probe.v1.ProbeService/Stream" {
            return std::future::ready(Ok(Status::unimplemented("there is no such call").into_http())).boxed();
        }
        let service = self.clone();
        // Somewhat larger than what is accepted, so that a report that is too large can be refused by itself.
        let longest = service.context.limits.report_bytes as usize * 2;
        async move {
            let mut grpc = Grpc::new(RawMessages).accept_compressed(CompressionEncoding::Gzip).max_decoding_message_size(longest);
            Ok(grpc.streaming(service, request).await)
        }
        .boxed()
    }
}
