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

/// Longest answer that is waited for: a runtime that hangs is given up and tried again later.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(10);

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

    /// `None` when there is no such pod, or the runtime cannot say.
    pub(super) async fn pod(&mut self, id: &str) -> Result<Option<cri::PodSandboxStatusResponse>, CriError> {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        of_one(answer(self.runtime.pod_sandbox_status(request)).await)
    }

    /// `None` when there is no such container, or the runtime cannot say.
    pub(super) async fn container(&mut self, id: &str) -> Result<Option<cri::ContainerStatusResponse>, CriError> {
        let request = cri::ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
        of_one(answer(self.runtime.container_status(request)).await)
    }

    /// `None` when there is no such image, or the runtime cannot say.
    pub(super) async fn image(&mut self, name: &str) -> Result<Option<cri::ImageStatusResponse>, CriError> {
        let image = Some(cri::ImageSpec { image: name.to_owned() });
        of_one(answer(self.images.image_status(cri::ImageStatusRequest { image, verbose: true })).await)
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

/// An error about one thing is no reason to give up the runtime, unless the connection is what failed.
fn of_one<T>(answer: Result<T, CriError>) -> Result<Option<T>, CriError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(CriError::Refused(status)) if !matches!(status.code(), Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
