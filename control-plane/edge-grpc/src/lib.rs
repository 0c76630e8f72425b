//! The control API over gRPC, `orchestrator.control.v1`: views of the map as they change, nodes, searches, controls and pipes. Beside them
//! reflection and the standard health service, so that general clients work.
//!
//! What it tells comes out of a [`Source`], which is the same that the HTTP API is answered from; what it is told goes to the [`relay`]. It
//! decides nothing about the map, and it knows nothing of HTTP.
//!
//! What a client costs: a stream holds a pointer to the picture that it has, and one message of at most [`Limits::message_bytes`] on its way. A
//! client that takes none for [`Limits::patience`] loses its stream.

mod controls;
mod convert;
pub mod filtering;
mod map;
mod services;
mod source;
mod watch;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use relay::Switchboard;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Code, Status};

pub use convert::{moment, to_wire};
pub use services::{Services, Serving};
pub use source::{Ask, Feed, Source, Trouble};

/// How much clients may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Streams at once: watched views and pipes.
    pub streams: usize,
    /// Bytes of a message that holds nodes, about: a node is not divided.
    pub message_bytes: usize,
    /// How long a client of a stream may take nothing.
    pub patience: Duration,
}

impl Limits {
    /// 4,096 streams, messages of 256 KiB, 10 s.
    pub const DEFAULT: Limits = Limits { streams: 4_096, message_bytes: 256 << 10, patience: Duration::from_secs(10) };
}

/// Largest request, in bytes; what somebody pastes into a terminal has room in it.
const REQUEST_BYTES: usize = (1 << 20) + (64 << 10);

/// Whoever counts what happens here.
pub trait Observer: Send + Sync + 'static {
    /// A call was answered, or its stream has ended.
    fn answered(&self, call: &'static str, code: Code, took: Duration);
    /// So many streams are open now.
    fn streams_open(&self, count: usize);
}

/// What the services need. Cheap to clone.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    source: Box<dyn Source>,
    switchboard: Switchboard,
    observer: Box<dyn Observer>,
    limits: Limits,
    room: Arc<Semaphore>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("limits", &self.0.limits).finish_non_exhaustive()
    }
}

impl Context {
    /// For services that answer out of `source`, hand controls to `switchboard`, and end their streams when `stopping` is cancelled.
    pub fn new(
        source: impl Source,
        switchboard: Switchboard,
        observer: impl Observer,
        limits: Limits,
        stopping: CancellationToken,
    ) -> Self {
        Context(Arc::new(Inner {
            source: Box::new(source),
            switchboard,
            observer: Box::new(observer),
            limits,
            room: Arc::new(Semaphore::new(limits.streams.min(Semaphore::MAX_PERMITS))),
            tasks: TaskTracker::new(),
            stopping,
        }))
    }

    fn source(&self) -> &dyn Source {
        &*self.0.source
    }

    /// Answers a call, and counts it.
    async fn answer<T>(&self, call: &'static str, answer: impl Future<Output = Result<T, Status>>) -> Result<tonic::Response<T>, Status> {
        let begun = Instant::now();
        let answer = if self.0.stopping.is_cancelled() { Err(stopping()) } else { answer.await };
        let code = answer.as_ref().err().map_or(Code::Ok, Status::code);
        self.0.observer.answered(call, code, begun.elapsed());
        answer.map(tonic::Response::new)
    }

    /// Room for one more stream.
    fn room(&self) -> Result<Room, Status> {
        let Ok(permit) = self.0.room.clone().try_acquire_owned() else {
            return Err(Status::resource_exhausted(format!("{} streams are open, and there may be no more", self.0.limits.streams)));
        };
        let room = Room { context: self.clone(), _permit: permit };
        room.tell(0);
        Ok(room)
    }
}

/// The place of one stream.
struct Room {
    context: Context,
    _permit: OwnedSemaphorePermit,
}

impl Room {
    fn tell(&self, leaving: usize) {
        let Inner { room, limits, observer, .. } = &*self.context.0;
        observer.streams_open(limits.streams.saturating_sub(room.available_permits()).saturating_sub(leaving));
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.tell(1);
    }
}

/// What clients are told when the process ends.
fn stopping() -> Status {
    Status::unavailable("the control plane is about to stop")
}
