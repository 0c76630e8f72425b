//! The streams of agents: `orchestrator.agent.v1.AgentService`. Translates between the wire's words and the core's, numbers commands, and keeps to
//! the window that was agreed; nothing malformed gets through.

mod convert;
mod session;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use proto::agent::v1::agent_service_server::{AgentService as Rpc, AgentServiceServer};
use proto::agent::v1::{AgentMessage, MasterMessage};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use crate::driver::MasterHandle;
use session::Session;

/// Largest message that is taken. Agents send none above 4 MiB.
const MOST_BYTES: usize = 8 << 20;
/// Messages on the way to one agent, beside what HTTP/2 has taken.
const OUTBOUND: usize = 64;

/// The service that agents call. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AgentService {
    master: MasterHandle,
    ping_interval: Duration,
    room: Arc<Semaphore>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl AgentService {
    /// A service for as many streams as `most`.
    pub fn new(master: MasterHandle, ping_interval: Duration, most: usize, stopping: CancellationToken) -> Self {
        let room = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        AgentService { master, ping_interval, room, tasks: TaskTracker::new(), stopping }
    }

    /// As a gRPC server takes it.
    pub fn into_server(self) -> AgentServiceServer<AgentService> {
        AgentServiceServer::new(self).max_decoding_message_size(MOST_BYTES).max_encoding_message_size(usize::MAX)
    }
}

#[tonic::async_trait]
impl Rpc for AgentService {
    type StreamStream = Pin<Box<ReceiverStream<Result<MasterMessage, Status>>>>;

    async fn stream(&self, request: Request<Streaming<AgentMessage>>) -> Result<Response<Self::StreamStream>, Status> {
        if self.stopping.is_cancelled() {
            return Err(Status::unavailable("the control plane is about to stop"));
        }
        let Ok(permit) = self.room.clone().try_acquire_owned() else {
            return Err(Status::resource_exhausted("as many agents are connected as there may be"));
        };
        let (outbound, messages) = mpsc::channel(OUTBOUND);
        let peer = request.remote_addr();
        let session = Session::new(self.master.clone(), self.ping_interval, outbound, peer);
        let (incoming, stopping) = (request.into_inner(), self.stopping.clone());
        drop(self.tasks.spawn(async move {
            tokio::select! {
                () = session.run(incoming) => {}
                () = stopping.cancelled() => {}
            }
            drop(permit);
        }));
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}

#[cfg(test)]
mod tests;
