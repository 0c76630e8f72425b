//! Docker's containers: image, create, start, logs, wait, stop, remove. A daemon that is away is waited for.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum, ImageInspect};
use bollard::query_parameters::{CreateContainerOptionsBuilder, CreateImageOptionsBuilder, RemoveContainerOptionsBuilder};
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use http_body_util::{BodyExt as _, Empty, Limited};
use mesos_proto::v1::task_status;
use tokio::sync::OnceCell;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::parameters::Pull;
use super::{Ended, Run, limits};
use crate::environment;
use crate::sandbox::{self, Sandbox};
use crate::table::{Exit, Limitation, Started};
use crate::words::scalar_resource;
use commands::obey;
pub(super) use images::given_credentials;
use images::{credentials, fetched_credentials, registry_of, with_tag};
use logs::{Logs, copy_logs};
use request::request;

pub(crate) mod absence;
mod commands;
mod images;
mod logs;
mod orphans;
mod request;

/// Longest answer that is waited for, but for those of a stop and a pull.
const ANSWER_MAX: Duration = Duration::from_secs(120);

/// Largest description of a container.
const INSPECTED_MAX: usize = 1 << 20;

/// Why a container is not made.
const DESTROYED: &str = "The container was destroyed while it was being made";

/// How long to wait before a daemon that is away is asked again.
const AWAY: Duration = Duration::from_secs(1);

/// A Docker daemon.
#[derive(Clone, Debug)]
pub struct Docker {
    socket: String,
    credentials: HashMap<String, DockerCredentials>,
    connection: std::sync::Arc<OnceCell<bollard::Docker>>,
    /// Whether a process looks after the containers while the agent is away.
    is_watched: std::sync::Arc<AtomicBool>,
}

impl Docker {
    /// The daemon at this socket; asked when it is needed. `config` is Docker's `config.json`, for its credentials.
    pub fn new(socket: &Path, config: Option<&str>) -> Self {
        let credentials = config.map(credentials).unwrap_or_default();
        Docker {
            socket: socket.display().to_string(),
            credentials,
            connection: std::sync::Arc::default(),
            is_watched: std::sync::Arc::default(),
        }
    }

    /// The id of an image that the daemon has.
    pub(super) async fn image_id(&self, name: &str) -> Option<String> {
        self.connect().await.ok()?.inspect_image(&with_tag(name)).await.ok()?.id
    }

    async fn connect(&self) -> Result<&bollard::Docker, Error> {
        let make = || async {
            bollard::Docker::connect_with_unix(&self.socket, ANSWER_MAX.as_secs(), bollard::API_DEFAULT_VERSION)?.negotiate_version().await
        };
        self.connection.get_or_try_init(make).await
    }

    /// What `docker inspect` prints of a container: every word of the daemon's, also those that no type of ours has. `None` when it does not say.
    async fn inspected(&self, name: &str) -> Option<Vec<u8>> {
        let asked = async {
            let stream = tokio::net::UnixStream::connect(self.socket.trim_start_matches("unix://")).await.ok()?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.ok()?;
            let request = http::Request::get(format!("/containers/{name}/json")).header(http::header::HOST, "docker");
            let request = request.body(Empty::<Bytes>::new()).ok()?;
            let answer = async {
                let response = sender.send_request(request).await.ok()?;
                let is_ok = response.status().is_success();
                let body = Limited::new(response.into_body(), INSPECTED_MAX).collect().await.ok()?.to_bytes();
                drop(sender);
                is_ok.then_some(body)
            };
            let (body, _) = tokio::join!(answer, connection);
            let body = body?;
            Some([b"[", body.trim_ascii(), b"]"].concat())
        };
        timeout(ANSWER_MAX, asked).await.ok().flatten()
    }

    /// An image: the one that is here, or else pulled. `platform` where it is to be another than the daemon's, such as `linux/arm64`.
    ///
    /// # Errors
    /// When it cannot be had.
    pub(super) async fn image(
        &self,
        name: &str,
        pull: Pull,
        platform: Option<&str>,
        extra: Option<&HashMap<String, DockerCredentials>>,
    ) -> Result<ImageInspect, String> {
        let failed = |error: Error| format!("Failed to pull image '{name}': {}", words(&error));
        let docker = self.connect().await.map_err(failed)?;
        let tagged = with_tag(name);
        if pull != Pull::Always
            && let Ok(found) = docker.inspect_image(&tagged).await
            && platform.is_none_or(|it| is_of_platform(&found, it))
        {
            return Ok(found);
        }
        if pull == Pull::Never {
            return Err(format!("Unable to find image '{tagged}' locally, and it may not be pulled"));
        }
        let registry = registry_of(&tagged);
        let credentials = extra.and_then(|it| it.get(registry)).or_else(|| self.credentials.get(registry)).cloned();
        let options = CreateImageOptionsBuilder::new().from_image(&tagged).platform(platform.unwrap_or_default()).build();
        let mut progress = docker.create_image(Some(options), None, credentials);
        while let Some(step) = progress.next().await {
            let step = step.map_err(failed)?;
            if let Some(problem) = step.error_detail.and_then(|it| it.message) {
                return Err(format!("Failed to pull image '{name}': {problem}"));
            }
        }
        docker.inspect_image(&tagged).await.map_err(failed)
    }

    /// The files of an image as a tarball. `owner` marks the container that is made for it, should this agent be killed meanwhile.
    pub(super) async fn export(&self, image: &str, owner: &str) -> Result<impl Stream<Item = Result<Bytes, Error>> + use<>, String> {
        let docker = self.connect().await.map_err(|error| words(&error))?.clone();
        let body = ContainerCreateBody {
            image: Some(with_tag(image)),
            cmd: Some(vec!["-".to_owned()]),
            labels: Some(HashMap::from([(OWNER_LABEL.to_owned(), owner.to_owned())])),
            ..ContainerCreateBody::default()
        };
        let made = docker.create_container(None, body).await.map_err(|error| words(&error))?;
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        let files = docker.export_container(&made.id);
        Ok(async_stream(files, async move {
            drop(docker.remove_container(&made.id, Some(options)).await);
        }))
    }

    /// Runs a command in a container, for a health check. Its exit status.
    ///
    /// # Errors
    /// When it could not be run.
    pub async fn exec(&self, name: &str, command: Vec<String>, env: Vec<String>) -> Result<i64, String> {
        use bollard::exec::{CreateExecOptions, StartExecResults};

        let docker = self.connect().await.map_err(|error| words(&error))?;
        let options = CreateExecOptions {
            cmd: Some(command),
            env: Some(env),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..CreateExecOptions::default()
        };
        let exec = docker.create_exec(name, options).await.map_err(|error| words(&error))?;
        match docker.start_exec(&exec.id, None).await.map_err(|error| words(&error))? {
            StartExecResults::Attached { mut output, .. } => while output.next().await.is_some() {},
            StartExecResults::Detached => {}
        }
        let done = docker.inspect_exec(&exec.id).await.map_err(|error| words(&error))?;
        done.exit_code.ok_or_else(|| "the command is still running".to_owned())
    }
}

/// Yields a stream, and does something after it.
fn async_stream(
    files: impl Stream<Item = Result<Bytes, Error>> + Send + 'static,
    after: impl Future<Output = ()> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, Error>> + Send {
    files.chain(futures::stream::once(after).filter_map(|()| std::future::ready(None))).boxed()
}

/// What containers of agents are marked with.
const LABEL: &str = "orchestrator.mesos.container-id";

/// Whose they are: the agent's work directory, which no two agents of a host share.
const OWNER_LABEL: &str = "orchestrator.mesos.work-dir";

/// Makes and watches one container.
pub(super) async fn run(run: &mut Run, again: bool) -> Ended {
    let Some(docker) = run.shared.docker.clone() else { return Ended::Failed("This agent has no Docker daemon".to_owned()) };
    docker.watch_absence(&run.shared);
    let name = environment::docker_name(&run.launch);
    if again {
        return match find(&docker, &name).await {
            // The agent was killed before it could start it: it has not ended, it has never run.
            Some(found) if is_never_started(&found) => {
                docker.remove_later(name, Duration::ZERO).await;
                Ended::Interrupted
            }
            Some(found) => follow(run, &docker, &name, Some(found), None).await,
            None => Ended::Interrupted,
        };
    }
    let cancel = CancellationToken::new();
    let (told, made) = tokio::sync::oneshot::channel();
    let making = make(Making::of(run), docker.clone(), name.clone(), cancel.clone());
    let late = (docker.clone(), name.clone());
    (run.shared.spawn)(
        "docker-making",
        Box::pin(async move {
            // What the daemon has made meanwhile for nobody goes again.
            if told.send(making.await).is_err() {
                late.0.remove_later(late.1, Duration::ZERO).await;
            }
        }),
    );
    let made = tokio::select! {
        made = made => made.unwrap_or_else(|_| Err("making the container failed".to_owned())),
        () = run.destroyed() => Err(DESTROYED.to_owned()),
    };
    match made {
        Ok(logs) => follow(run, &docker, &name, None, Some(logs)).await,
        Err(problem) => {
            cancel.cancel();
            if let Ok(docker) = docker.connect().await {
                let options = RemoveContainerOptionsBuilder::new().v(true).force(true).build();
                drop(docker.remove_container(&name, Some(options)).await);
            }
            Ended::Failed(problem)
        }
    }
}

/// Whether a container was made, and that was all.
fn is_never_started(it: &ContainerInspectResponse) -> bool {
    it.state.as_ref().and_then(|it| it.status) == Some(ContainerStateStatusEnum::CREATED)
}

/// The container by this name, however long the daemon takes. `None`: there is none.
async fn find(docker: &Docker, name: &str) -> Option<ContainerInspectResponse> {
    loop {
        let inspected = match docker.connect().await {
            Ok(it) => it.inspect_container(name, None).await,
            Err(error) => Err(error),
        };
        match inspected {
            Ok(found) => return Some(found),
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => return None,
            Err(error) => tracing::warn!(name, error = words(&error), "Docker does not answer; it is asked again"),
        }
        sleep(AWAY).await;
    }
}

struct Making {
    shared: std::sync::Arc<super::Shared>,
    launch: std::sync::Arc<crate::table::Launch>,
    agent_id: String,
    sandbox: std::path::PathBuf,
}

impl Making {
    fn of(run: &Run) -> Self {
        Making { shared: run.shared.clone(), launch: run.launch.clone(), agent_id: run.agent_id.clone(), sandbox: run.sandbox.clone() }
    }
}

/// Makes a container and starts it. Its logs, which are opened before anything of the container can change its sandbox.
async fn make(it: Making, docker: Docker, name: String, cancel: CancellationToken) -> Result<Logs, String> {
    let (shared, launch, sandbox, cancelled) = (it.shared.clone(), it.launch.clone(), it.sandbox.clone(), cancel.clone());
    let prepared = tokio::task::spawn_blocking(move || {
        let command = launch.command.clone().unwrap_or_default();
        let owner = match command.user.as_deref().unwrap_or(&launch.framework.user) {
            name if shared.config.switch_user && !name.is_empty() && nix::unistd::Uid::effective().is_root() => Some(sandbox::user(name)?),
            _ => None,
        };
        let failed = |error: std::io::Error| format!("Failed to make the sandbox: {error}");
        let open = Sandbox::make(&shared.layout.slaves(), &sandbox, owner.as_ref()).map_err(failed)?;
        sandbox::make_latest(&sandbox).map_err(failed)?;
        if let Some(name) = environment::unresolved_secret(&command) {
            return Err(format!("The variable '{name}' is a secret by reference, and there is no secret resolver"));
        }
        let fetched = shared.fetcher.fetch(&command.uris, &open, &sandbox, owner.as_ref(), &cancelled);
        fetched.map_err(|error| error.to_string())?;
        let logs = Logs::open(&open).map_err(failed)?;
        Ok((fetched_credentials(&open), logs))
    });
    let (credentials, logs) = prepared.await.map_err(|_| "preparing the container failed".to_owned())??;
    let info = it.launch.container_info.clone().unwrap_or_default();
    let image = info.docker.clone().unwrap_or_default();
    let asked = request(&it, &info)?;
    let platform = asked.platform.as_deref();
    tokio::select! {
        pulled = docker.image(&image.image, asked.pull, platform, credentials.as_ref()) => pulled.map(drop)?,
        () = cancel.cancelled() => return Err(DESTROYED.to_owned()),
    }
    let failed = |what: &str, error: &Error| format!("Failed to {what} docker container: {}", words(error));
    let connection = docker.connect().await.map_err(|error| failed("make", &error))?;
    let options = CreateContainerOptionsBuilder::new().name(&name).platform(platform.unwrap_or_default()).build();
    connection.create_container(Some(options), asked.body).await.map_err(|error| failed("create", &error))?;
    if cancel.is_cancelled() {
        return Err(DESTROYED.to_owned());
    }
    connection.start_container(&name, None).await.map_err(|error| failed("start", &error))?;
    Ok(logs)
}

/// `linux`, `linux/arm64` or `linux/arm/v7`.
fn is_of_platform(image: &ImageInspect, platform: &str) -> bool {
    let own = [image.os.as_deref(), image.architecture.as_deref(), image.variant.as_deref()];
    platform.split('/').zip(own).all(|(wanted, own)| own.is_none_or(|it| it.is_empty() || it == wanted))
}

/// Watches a container through whatever the daemon goes through.
async fn follow(run: &mut Run, docker: &Docker, name: &str, known: Option<ContainerInspectResponse>, logs: Option<Logs>) -> Ended {
    let first = match known {
        Some(it) => it,
        None => match find(docker, name).await {
            Some(it) => it,
            None => return Ended::Failed("The container has vanished from Docker".to_owned()),
        },
    };
    let pid = first.state.as_ref().and_then(|it| it.pid).and_then(|it| u32::try_from(it).ok()).filter(|it| *it > 0);
    let inspected = docker.inspected(name).await;
    run.started(Started { pid, addresses: addresses(&first), inspected }).await;
    let copied = (docker.clone(), name.to_owned(), run.shared.layout.keeper(&run.launch.container));
    let logs = match logs {
        Some(logs) => Ok(logs),
        None => {
            let (slaves, sandbox) = (run.shared.layout.slaves(), run.sandbox.clone());
            let opened = tokio::task::spawn_blocking(move || Logs::open(&Sandbox::open(&slaves, &sandbox)?));
            opened.await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
        }
    };
    if let Err(error) = &logs {
        tracing::warn!(name, %error, "the output of a container is not copied any more: its logs are no plain files");
    }
    let stop = tokio_util::sync::CancellationToken::new();
    let over = stop.clone();
    let (told, drained) = tokio::sync::oneshot::channel::<()>();
    (run.shared.spawn)(
        "docker-logs",
        Box::pin(async move {
            if let Ok(logs) = logs {
                copy_logs(&copied.0, &copied.1, logs, &copied.2, &over).await;
            }
            drop(told);
        }),
    );
    let state = loop {
        let waiting = wait(docker.clone(), name.to_owned());
        let ended = tokio::select! {
            ended = waiting => Some(ended),
            command = run.command() => { obey(run, docker, name, command, &stop); None }
        };
        if let Some(ended) = ended {
            break ended;
        }
    };
    stop.cancel();
    drop(timeout(Duration::from_secs(5), drained).await);
    match state {
        None => Ended::Exited(Exit::default()),
        Some(state) => {
            let code = i32::try_from(state.exit_code.unwrap_or(-1)).unwrap_or(-1);
            let limitation = state.oom_killed.unwrap_or(false).then(|| out_of_memory(run));
            Ended::Exited(Exit { status: Some((code & 0xff) << 8), limitation })
        }
    }
}

/// Better than Mesos, which reports only the exit status.
fn out_of_memory(run: &Run) -> Limitation {
    let limits = limits(&run.launch.resources, &run.launch.limits);
    let limit = limits.mem_limit.filter(|it| it.is_finite()).unwrap_or(limits.mem);
    Limitation {
        reason: task_status::Reason::ContainerLimitationMemory,
        message: format!("Memory limit exceeded: Requested: {limit}MB; the container was killed for want of memory"),
        resources: vec![scalar_resource("mem", limit)],
    }
}

/// Until it does not run any more. `None`: Docker does not know it any more.
async fn wait(docker: Docker, name: String) -> Option<bollard::models::ContainerState> {
    loop {
        if let Ok(connection) = docker.connect().await {
            // Ends when the container does, or with an error when the daemon goes away.
            let mut waiting = connection.wait_container(&name, None);
            while waiting.next().await.is_some() {}
        }
        let found = find(&docker, &name).await?;
        let state = found.state.unwrap_or_default();
        if !state.running.unwrap_or(false) && !state.restarting.unwrap_or(false) {
            return Some(state);
        }
        sleep(AWAY).await;
    }
}

/// Addresses of its own; none in the host's network.
fn addresses(it: &ContainerInspectResponse) -> Vec<String> {
    let networks = it.network_settings.as_ref().and_then(|it| it.networks.as_ref());
    let mut found: Vec<String> =
        networks.into_iter().flatten().filter_map(|(_, it)| it.ip_address.clone()).filter(|it| !it.is_empty()).collect();
    found.sort();
    found
}

/// What went wrong, in the daemon's words.
fn words(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message.clone(),
        other => other.to_string(),
    }
}
