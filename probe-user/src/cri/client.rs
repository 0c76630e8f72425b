//! One connection to a CRI socket. Every answer is waited for, but not for ever.

use std::path::Path;
use std::time::Duration;

use futures::{Stream, StreamExt as _, TryStreamExt as _};
use proto::cri::v1 as cri;
use proto::cri::v1::image_service_client::ImageServiceClient;
use proto::cri::v1::runtime_service_client::RuntimeServiceClient;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use crate::containers::words;

/// Longest answer that is waited for: a runtime that hangs is given up and tried again later.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Longest answer about one pod, container or image that is waited for: the runtime may be well and only this one may hang.
const LOOK_MAX: Duration = Duration::from_secs(3);

/// Largest answer, which the kubelet takes as well.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Why a runtime was given up.
#[derive(Debug, thiserror::Error)]
pub(super) enum CriError {
    /// It hangs.
    #[error("it does not answer within {} s", ANSWER_MAX.as_secs())]
    Silent,
    /// It cannot be reached.
    #[error("it cannot be reached")]
    Unreachable(#[from] tonic::transport::Error),
    /// It answers with an error that is about more than one container.
    #[error("it refused")]
    Refused(#[source] Box<Status>),
    /// What answers does not know CRI in its first version.
    #[error("it is no CRI runtime: {0}")]
    Foreign(String),
}

impl From<Status> for CriError {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::Unimplemented => CriError::Foreign(status.message().to_owned()),
            _ => CriError::Refused(Box::new(status)),
        }
    }
}

/// What a runtime that is well says of one thing.
#[derive(Debug)]
pub(super) enum OfOne<T> {
    /// All of it.
    Told(T),
    /// There is no such thing.
    Nothing,
    /// It cannot say; why, for people. Some say so of what is not there.
    Refused(String),
    /// It waits for something, and so does who asks; why, for people.
    Unanswered(String),
}

/// A connection.
#[derive(Clone, Debug)]
pub(super) struct Client {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

impl Client {
    pub(super) async fn connect(socket: &Path) -> Result<Self, CriError> {
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?.connect_timeout(ANSWER_MAX);
        let channel = timeout(ANSWER_MAX, endpoint.connect()).await.map_err(|_| CriError::Silent)??;
        Ok(Client {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX),
            images: ImageServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX),
        })
    }

    pub(super) async fn version(&mut self) -> Result<cri::VersionResponse, CriError> {
        answer(self.runtime.version(cri::VersionRequest::default())).await
    }

    pub(super) async fn pods(&mut self) -> Result<Vec<cri::PodSandbox>, CriError> {
        Ok(answer(self.runtime.list_pod_sandbox(cri::ListPodSandboxRequest {})).await?.items)
    }

    pub(super) async fn containers(&mut self) -> Result<Vec<cri::Container>, CriError> {
        Ok(answer(self.runtime.list_containers(cri::ListContainersRequest {})).await?.containers)
    }

    pub(super) async fn pod(&mut self, id: &str) -> Result<OfOne<cri::PodSandboxStatusResponse>, CriError> {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        let mut runtime = self.runtime.clone();
        self.about_one(runtime.pod_sandbox_status(request)).await
    }

    pub(super) async fn container(&mut self, id: &str) -> Result<OfOne<cri::ContainerStatusResponse>, CriError> {
        let request = cri::ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
        let mut runtime = self.runtime.clone();
        self.about_one(runtime.container_status(request)).await
    }

    pub(super) async fn image(&mut self, name: &str) -> Result<OfOne<cri::ImageStatusResponse>, CriError> {
        let image = Some(cri::ImageSpec { image: name.to_owned() });
        let mut images = self.images.clone();
        self.about_one(images.image_status(cri::ImageStatusRequest { image, verbose: true })).await
    }

    /// Asks about one thing. Only a runtime that does not even say who it is, is given up.
    async fn about_one<T>(&mut self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<OfOne<T>, CriError> {
        let reason = match timeout(LOOK_MAX, call).await {
            Ok(Ok(answer)) => return Ok(OfOne::Told(answer.into_inner())),
            Ok(Err(status)) => match status.code() {
                Code::Unimplemented => return Err(status.into()),
                // A runtime that was killed answers so as well.
                Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded => words::name(status.message()),
                Code::NotFound => return Ok(OfOne::Nothing),
                _ => return Ok(OfOne::Refused(words::name(status.message()))),
            },
            Err(_) => format!("no answer within {} s", LOOK_MAX.as_secs()),
        };
        self.version().await?;
        Ok(OfOne::Unanswered(reason))
    }

    /// What happens, as the runtime tells it. A server may answer the call itself only with the first event, so nothing waits for that.
    pub(super) fn events(&self) -> impl Stream<Item = Result<cri::ContainerEventResponse, Status>> + Send + use<> {
        let mut runtime = self.runtime.clone();
        let call = async move { runtime.get_container_events(cri::GetEventsRequest {}).await.map(Response::into_inner) };
        futures::stream::once(call).try_flatten().fuse()
    }
}

async fn answer<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, CriError> {
    Ok(timeout(ANSWER_MAX, call).await.map_err(|_| CriError::Silent)??.into_inner())
}
