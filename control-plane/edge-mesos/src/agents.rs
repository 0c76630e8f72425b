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
use tokio_stream::StreamExt as _;
use tokio_stream::adapters::Map;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use crate::driver::MasterHandle;
use crate::http::Credentials;
use session::Session;

/// Largest message that is taken. Agents cut what they hold into parts of 4 MiB, but one entry, a task with what its framework put into it, may be
/// of up to 32 MiB, and has to come back after a failover.
///
/// A stream holds one message at a time, and takes memory for what has come of it, not for what may: a hundred agents with the largest entries in
/// flight at once are 6.4 GB, twenty thousand with what agents usually hold, some kilobytes each, are less than one.
const MOST_BYTES: usize = 64 << 20;
/// Messages on the way to one agent, beside what HTTP/2 has taken.
const OUTBOUND: usize = 64;

/// The service that agents call. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AgentService {
    master: MasterHandle,
    credentials: Credentials,
    ping_interval: Duration,
    room: Arc<Semaphore>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl AgentService {
    /// A service for as many streams as `most`.
    pub fn new(master: MasterHandle, ping_interval: Duration, most: usize, stopping: CancellationToken) -> Self {
        let room = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        AgentService { master, credentials: Credentials::default(), ping_interval, room, tasks: TaskTracker::new(), stopping }
    }

    /// The same, with who agents may be: `authorization: Basic <base64 of principal:secret>` in the metadata of their call.
    #[must_use]
    pub fn with_credentials(self, credentials: Credentials) -> Self {
        AgentService { credentials, ..self }
    }

    /// As a gRPC server takes it.
    pub fn into_server(self) -> AgentServiceServer<AgentService> {
        AgentServiceServer::new(self).max_decoding_message_size(MOST_BYTES).max_encoding_message_size(usize::MAX)
    }
}

#[tonic::async_trait]
impl Rpc for AgentService {
    type StreamStream = Pin<Box<Map<ReceiverStream<Box<MasterMessage>>, fn(Box<MasterMessage>) -> Result<MasterMessage, Status>>>>;

    async fn stream(&self, request: Request<Streaming<AgentMessage>>) -> Result<Response<Self::StreamStream>, Status> {
        if self.stopping.is_cancelled() {
            return Err(Status::unavailable("the control plane is about to stop"));
        }
        // Nothing is said about its tasks: they go on while it tries again.
        let principal = self.credentials.agent(request.metadata().as_ref()).map_err(|problem| {
            tracing::warn!(peer = ?request.remote_addr(), problem, "an agent is not taken");
            Status::unauthenticated(problem)
        })?;
        let Ok(permit) = self.room.clone().try_acquire_owned() else {
            return Err(Status::resource_exhausted("as many agents are connected as there may be"));
        };
        // In boxes: a channel has room for thirty-two messages from its beginning on, and there are twenty thousand of them.
        let (outbound, messages) = mpsc::channel::<Box<MasterMessage>>(OUTBOUND);
        let peer = request.remote_addr();
        let session = Session::new(self.master.clone(), self.ping_interval, outbound, (peer, principal));
        let (incoming, stopping) = (request.into_inner(), self.stopping.clone());
        drop(self.tasks.spawn(async move {
            tokio::select! {
                () = session.run(incoming) => {}
                () = stopping.cancelled() => {}
            }
            drop(permit);
        }));
        Ok(Response::new(Box::pin(ReceiverStream::new(messages).map(|message| Ok(*message)))))
    }
}

#[cfg(test)]
mod tests;
