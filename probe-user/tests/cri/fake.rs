//! A CRI runtime for tests: speaks the real words over a Unix socket, and can be made to misbehave.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use proto::cri::v1 as cri;
use proto::cri::v1::image_service_server::{ImageService, ImageServiceServer};
use proto::cri::v1::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use tokio::net::UnixListener;
use tokio::sync::broadcast;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{BroadcastStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// What the runtime has, and how it behaves.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) version: String,
    pub(crate) pods: BTreeMap<String, cri::PodSandboxStatus>,
    pub(crate) containers: BTreeMap<String, (String, cri::ContainerStatus)>,
    /// Answers do not come.
    pub(crate) hangs: bool,
    /// Containers, pods and images of which no answer comes, while all others are told.
    pub(crate) hung: HashSet<String>,
    /// Containers that were asked for, by id.
    pub(crate) asked: HashMap<String, usize>,
    pub(crate) lists: usize,
    pub(crate) images_asked: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<cri::ContainerEventResponse>,
    stop: CancellationToken,
}

impl Runtime {
    /// containerd of this version, at a socket of its own.
    pub(crate) fn start(socket: &Path, version: &str) -> Self {
        let state = State { version: version.to_owned(), ..State::default() };
        let this = Runtime { state: Arc::new(Mutex::new(state)), events: broadcast::Sender::new(1_024), stop: CancellationToken::new() };
        this.serve(socket);
        this
    }

    fn serve(&self, socket: &Path) {
        let _ = std::fs::remove_file(socket);
        let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
        let (this, stop) = (self.clone(), self.stop.clone());
        // A thread and a runtime of its own: only so do its connections end with it.
        listener.set_nonblocking(true).unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = UnixListener::from_std(listener).unwrap();
                let server = tonic::transport::Server::builder()
                    .add_service(RuntimeServiceServer::new(this.clone()))
                    .add_service(ImageServiceServer::new(this))
                    .serve_with_incoming(UnixListenerStream::new(listener));
                tokio::select! {
                    served = server => served.unwrap(),
                    () = stop.cancelled() => {}
                }
            });
        });
    }

    /// As if it had been killed and started again with what it has now.
    pub(crate) fn restart(&mut self, socket: &Path) {
        self.kill(socket);
        self.stop = CancellationToken::new();
        self.events = broadcast::Sender::new(1_024);
        self.serve(socket);
    }

    pub(crate) fn kill(&self, socket: &Path) {
        self.stop.cancel();
        let _ = std::fs::remove_file(socket);
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// How often a container or a pod was asked for.
    pub(crate) fn asked(&self, id: &str) -> usize {
        self.state().asked.get(id).copied().unwrap_or(0)
    }

    /// A container in a pod of its own.
    pub(crate) fn put(&self, id: &str, state: cri::ContainerState) {
        let pod = format!("pod-of-{id}");
        let metadata =
            cri::PodSandboxMetadata { name: format!("pod {id}"), uid: format!("uid-{id}"), namespace: "shop".to_owned(), attempt: 0 };
        let network = cri::PodSandboxNetworkStatus { ip: "10.1.2.3".to_owned(), additional_ips: Vec::new() };
        let sandbox = cri::PodSandboxStatus {
            id: pod.clone(),
            metadata: Some(metadata),
            created_at: 1_000_000_000,
            network: Some(network),
            ..cri::PodSandboxStatus::default()
        };
        let status = cri::ContainerStatus {
            id: id.to_owned(),
            metadata: Some(cri::ContainerMetadata { name: format!("name of {id}"), attempt: 0 }),
            state: state.into(),
            created_at: 2_000_000_000,
            started_at: if state == cri::ContainerState::ContainerCreated { 0 } else { 3_000_000_000 },
            finished_at: if state == cri::ContainerState::ContainerExited { 4_000_000_000 } else { 0 },
            exit_code: if state == cri::ContainerState::ContainerExited { 7 } else { 0 },
            image: Some(cri::ImageSpec { image: "registry.example/web:v1".to_owned() }),
            image_ref: "registry.example/web@sha256:dd".to_owned(),
            ..cri::ContainerStatus::default()
        };
        let mut known = self.state();
        known.pods.insert(pod.clone(), sandbox);
        known.containers.insert(id.to_owned(), (pod, status));
    }

    pub(crate) fn remove(&self, id: &str) {
        let mut state = self.state();
        state.containers.remove(id);
        state.pods.remove(&format!("pod-of-{id}"));
    }

    /// Tells an event to everybody who listens.
    pub(crate) fn tell(&self, id: &str, event: cri::ContainerEventType) {
        let event = cri::ContainerEventResponse { container_id: id.to_owned(), container_event_type: event.into(), created_at: 5 };
        let _ = self.events.send(event);
    }

    async fn maybe_hang_on(&self, name: &str) {
        if self.state().hung.contains(name) {
            std::future::pending::<()>().await;
        }
    }

    async fn maybe_hang(&self) {
        if self.state().hangs {
            std::future::pending::<()>().await;
        }
    }
}

/// What a list has of a container.
fn listed(pod: &str, it: &cri::ContainerStatus) -> cri::Container {
    cri::Container {
        id: it.id.clone(),
        pod_sandbox_id: pod.to_owned(),
        metadata: it.metadata.clone(),
        image: it.image.clone(),
        image_ref: it.image_ref.clone(),
        state: it.state,
        created_at: it.created_at,
        ..cri::Container::default()
    }
}

fn info(json: &str) -> HashMap<String, String> {
    HashMap::from([("info".to_owned(), json.to_owned())])
}

#[tonic::async_trait]
impl RuntimeService for Runtime {
    async fn version(&self, _: Request<cri::VersionRequest>) -> Result<Response<cri::VersionResponse>, Status> {
        self.maybe_hang().await;
        Ok(Response::new(cri::VersionResponse {
            version: "0.1.0".to_owned(),
            runtime_name: "containerd".to_owned(),
            runtime_version: self.state().version.clone(),
            runtime_api_version: "v1".to_owned(),
        }))
    }

    async fn list_pod_sandbox(&self, _: Request<cri::ListPodSandboxRequest>) -> Result<Response<cri::ListPodSandboxResponse>, Status> {
        self.maybe_hang().await;
        let mut state = self.state();
        state.lists += 1;
        let pod = |it: &cri::PodSandboxStatus| cri::PodSandbox {
            id: it.id.clone(),
            metadata: it.metadata.clone(),
            state: it.state,
            ..cri::PodSandbox::default()
        };
        let items = state.pods.values().map(pod).collect();
        Ok(Response::new(cri::ListPodSandboxResponse { items }))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<cri::PodSandboxStatusRequest>,
    ) -> Result<Response<cri::PodSandboxStatusResponse>, Status> {
        self.maybe_hang().await;
        let request = request.into_inner();
        *self.state().asked.entry(request.pod_sandbox_id.clone()).or_default() += 1;
        self.maybe_hang_on(&request.pod_sandbox_id).await;
        let status = self.state().pods.get(&request.pod_sandbox_id).cloned().ok_or_else(|| Status::not_found("no such sandbox"))?;
        Ok(Response::new(cri::PodSandboxStatusResponse {
            status: Some(status),
            info: info(r#"{"pid":77,"image":"registry.example/pause:3"}"#),
        }))
    }

    async fn list_containers(&self, _: Request<cri::ListContainersRequest>) -> Result<Response<cri::ListContainersResponse>, Status> {
        self.maybe_hang().await;
        let state = self.state();
        let containers = state.containers.values().map(|(pod, it)| listed(pod, it));
        Ok(Response::new(cri::ListContainersResponse { containers: containers.collect() }))
    }

    async fn container_status(
        &self,
        request: Request<cri::ContainerStatusRequest>,
    ) -> Result<Response<cri::ContainerStatusResponse>, Status> {
        self.maybe_hang().await;
        let request = request.into_inner();
        *self.state().asked.entry(request.container_id.clone()).or_default() += 1;
        self.maybe_hang_on(&request.container_id).await;
        let (pod, status) =
            self.state().containers.get(&request.container_id).cloned().ok_or_else(|| Status::not_found("no such container"))?;
        assert!(request.verbose);
        let info = info(&format!(r#"{{"sandboxID":"{pod}","pid":4711,"runtimeSpec":{{"process":{{"args":["/bin/web","--token=x"]}}}}}}"#));
        Ok(Response::new(cri::ContainerStatusResponse { status: Some(status), info }))
    }

    type GetContainerEventsStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<cri::ContainerEventResponse, Status>> + Send>>;

    async fn get_container_events(&self, _: Request<cri::GetEventsRequest>) -> Result<Response<Self::GetContainerEventsStream>, Status> {
        assert!(!self.state().version.starts_with('1'), "containerd 1 gives an event to one of its readers alone");
        let events = BroadcastStream::new(self.events.subscribe()).map(|it| it.map_err(|_| Status::data_loss("lagged")));
        Ok(Response::new(Box::pin(events)))
    }
}

#[tonic::async_trait]
impl ImageService for Runtime {
    async fn image_status(&self, request: Request<cri::ImageStatusRequest>) -> Result<Response<cri::ImageStatusResponse>, Status> {
        self.maybe_hang().await;
        self.state().images_asked += 1;
        let name = request.into_inner().image.unwrap_or_default().image;
        self.maybe_hang_on(&name).await;
        // The pause image is gone: that is no error in CRI.
        let image = name.contains("web").then(|| cri::Image {
            id: "sha256:abcd".to_owned(),
            repo_tags: vec!["registry.example/web:v1".to_owned()],
            size: 1_000,
            ..cri::Image::default()
        });
        let info = info(r#"{"imageSpec":{"config":{"Labels":{"works.weave.role":"system"}}}}"#);
        Ok(Response::new(cri::ImageStatusResponse { image, info }))
    }
}
