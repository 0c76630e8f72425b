//! Docker's containers: image, create, start, logs, wait, stop, remove. A daemon that is away is waited for.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, EndpointSettings, HostConfig, ImageInspect, NetworkingConfig, PortBinding,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, KillContainerOptionsBuilder, ListContainersOptionsBuilder,
    LogsOptionsBuilder, RemoveContainerOptionsBuilder, StopContainerOptionsBuilder,
};
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use mesos_proto::v1::{ContainerInfo, container_info::docker_info, task_status, volume};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::OnceCell;
use tokio::time::{sleep, timeout};

use super::{Command, Ended, Run, limits, parameters, persistent, volumes};
use crate::environment::{self, DOCKER_PREFIX, Place};
use crate::sandbox;
use crate::table::{Exit, Limitation, Started};
use crate::words::{ContainerKey, ranges, scalar_resource};

/// Longest answer that is waited for, but for those of a stop and a pull.
const ANSWER_MAX: Duration = Duration::from_secs(120);

/// How long to wait before a daemon that is away is asked again.
const AWAY: Duration = Duration::from_secs(1);

/// Least memory that Docker gets, as in Mesos.
const MEMORY_MIN: i64 = 32 << 20;

/// A Docker daemon.
#[derive(Clone, Debug)]
pub struct Docker {
    socket: String,
    credentials: HashMap<String, DockerCredentials>,
    connection: std::sync::Arc<OnceCell<bollard::Docker>>,
}

impl Docker {
    /// The daemon at this socket; asked when it is needed. `config` is Docker's `config.json`, for its credentials.
    pub fn new(socket: &Path, config: Option<&str>) -> Self {
        let credentials = config.map(credentials).unwrap_or_default();
        Docker { socket: socket.display().to_string(), credentials, connection: std::sync::Arc::default() }
    }

    async fn connect(&self) -> Result<&bollard::Docker, Error> {
        let make = || async {
            bollard::Docker::connect_with_unix(&self.socket, ANSWER_MAX.as_secs(), bollard::API_DEFAULT_VERSION)?.negotiate_version().await
        };
        self.connection.get_or_try_init(make).await
    }

    /// An image: the one that is here, or else pulled.
    ///
    /// # Errors
    /// When it cannot be had.
    pub async fn image(
        &self,
        name: &str,
        force_pull: bool,
        extra: Option<&HashMap<String, DockerCredentials>>,
    ) -> Result<ImageInspect, String> {
        let failed = |error: Error| format!("Failed to pull image '{name}': {}", words(&error));
        let docker = self.connect().await.map_err(failed)?;
        let tagged = with_tag(name);
        if !force_pull && let Ok(found) = docker.inspect_image(&tagged).await {
            return Ok(found);
        }
        let registry = registry_of(&tagged);
        let credentials = extra.and_then(|it| it.get(registry)).or_else(|| self.credentials.get(registry)).cloned();
        let options = CreateImageOptionsBuilder::new().from_image(&tagged).build();
        let mut progress = docker.create_image(Some(options), None, credentials);
        while let Some(step) = progress.next().await {
            let step = step.map_err(failed)?;
            if let Some(problem) = step.error_detail.and_then(|it| it.message) {
                return Err(format!("Failed to pull image '{name}': {problem}"));
            }
        }
        docker.inspect_image(&tagged).await.map_err(failed)
    }

    /// The files of an image as a tarball.
    pub(super) async fn export(&self, image: &str) -> Result<impl Stream<Item = Result<Bytes, Error>> + use<>, String> {
        let docker = self.connect().await.map_err(|error| words(&error))?.clone();
        let body = ContainerCreateBody { image: Some(with_tag(image)), cmd: Some(vec!["-".to_owned()]), ..ContainerCreateBody::default() };
        let made = docker.create_container(None, body).await.map_err(|error| words(&error))?;
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        let files = docker.export_container(&made.id);
        Ok(async_stream(files, async move {
            drop(docker.remove_container(&made.id, Some(options)).await);
        }))
    }

    /// Removes a container that is over.
    pub(super) async fn remove_later(&self, name: String, delay: Duration) {
        sleep(delay).await;
        if let Ok(docker) = self.connect().await {
            let options = RemoveContainerOptionsBuilder::new().v(true).force(true).build();
            drop(docker.remove_container(&name, Some(options)).await);
        }
    }

    /// Ends containers with the agent's names that nobody claims.
    pub(super) async fn end_orphans(&self, owner: &str, claimed: &[ContainerKey]) {
        let Ok(docker) = self.connect().await else { return };
        let options = ListContainersOptionsBuilder::new().all(false).build();
        let Ok(containers) = docker.list_containers(Some(options)).await else { return };
        for container in containers {
            let names = container.names.unwrap_or_default();
            let own = names.iter().find_map(|it| it.trim_start_matches('/').strip_prefix(DOCKER_PREFIX));
            let Some(id) = own.map(|it| it.trim_end_matches(".executor")) else { continue };
            // Other agents on this host, and other programs, may use the prefix, too: ours are labelled.
            let is_ours = container.labels.is_some_and(|it| it.get(OWNER_LABEL).is_some_and(|it| it == owner));
            if is_ours && !claimed.iter().any(|it| it.as_str() == id) {
                tracing::info!(container = id, "ending a Docker container that nobody claims");
                let options = RemoveContainerOptionsBuilder::new().force(true).build();
                drop(docker.remove_container(names[0].trim_start_matches('/'), Some(options)).await);
            }
        }
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
    let name = environment::docker_name(&run.launch);
    if again {
        match find(&docker, &name).await {
            Some(found) => return follow(run, &docker, &name, Some(found)).await,
            None => return Ended::Interrupted,
        }
    }
    let making = make(Making::of(run), docker.clone(), name.clone());
    let made = tokio::select! {
        made = making => made,
        () = run.destroyed() => Err("The container was destroyed while it was being made".to_owned()),
    };
    match made {
        Ok(()) => follow(run, &docker, &name, None).await,
        Err(problem) => {
            if let Ok(docker) = docker.connect().await {
                let options = RemoveContainerOptionsBuilder::new().v(true).force(true).build();
                drop(docker.remove_container(&name, Some(options)).await);
            }
            Ended::Failed(problem)
        }
    }
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

async fn make(it: Making, docker: Docker, name: String) -> Result<(), String> {
    let (shared, launch, sandbox) = (it.shared.clone(), it.launch.clone(), it.sandbox.clone());
    let prepared = tokio::task::spawn_blocking(move || {
        let command = launch.command.clone().unwrap_or_default();
        let owner = match command.user.as_deref().unwrap_or(&launch.framework.user) {
            name if shared.config.switch_user && !name.is_empty() && nix::unistd::Uid::effective().is_root() => Some(sandbox::user(name)?),
            _ => None,
        };
        sandbox::make(&sandbox, owner.as_ref()).map_err(|error| format!("Failed to make the sandbox: {error}"))?;
        sandbox::make_latest(&sandbox).map_err(|error| format!("Failed to make the sandbox: {error}"))?;
        if let Some(name) = environment::unresolved_secret(&command) {
            return Err(format!("The variable '{name}' is a secret by reference, and there is no secret resolver"));
        }
        shared.fetcher.fetch(&command.uris, &sandbox, owner.as_ref()).map_err(|error| error.to_string())
    });
    prepared.await.map_err(|_| "preparing the container failed".to_owned())??;
    let info = it.launch.container_info.clone().unwrap_or_default();
    let image = info.docker.clone().unwrap_or_default();
    let fetched = fetched_credentials(&it.sandbox);
    docker.image(&image.image, image.force_pull_image(), fetched.as_ref()).await?;
    let body = request(&it, &info)?;
    let failed = |what: &str, error: &Error| format!("Failed to {what} docker container: {}", words(error));
    let connection = docker.connect().await.map_err(|error| failed("make", &error))?;
    let options = CreateContainerOptionsBuilder::new().name(&name).build();
    connection.create_container(Some(options), body).await.map_err(|error| failed("create", &error))?;
    connection.start_container(&name, None).await.map_err(|error| failed("start", &error))
}

/// What the daemon is asked to make.
fn request(it: &Making, info: &ContainerInfo) -> Result<ContainerCreateBody, String> {
    let (config, launch) = (&it.shared.config, &it.launch);
    let image = info.docker.clone().unwrap_or_default();
    let command = launch.command.clone().unwrap_or_default();
    let limits = limits(&launch.resources, &launch.limits);
    let directory = it.sandbox.display().to_string();
    let place = Place {
        agent_id: &it.agent_id,
        endpoint: &it.shared.endpoint,
        directory: &directory,
        sandbox: &config.sandbox_directory,
        container_ip: None,
    };
    // The image's own PATH stays, unless the framework says otherwise.
    let given: Vec<String> = environment::given(&command).into_iter().map(|(name, _)| name).collect();
    let variables = environment::variables(config, launch, &place);
    let variables = variables.into_iter().filter(|(name, _)| name != "PATH" || given.iter().any(|it| it == "PATH"));
    let mut host = HostConfig { cpu_shares: Some(shares(limits.cpus)), privileged: image.privileged, ..HostConfig::default() };
    limit(&mut host, &limits, config.cgroups_enable_cfs);
    let mut binds = vec![format!("{directory}:{}", config.sandbox_directory)];
    for (path, inside, read_only) in volumes(Some(info), &it.sandbox, None)? {
        let inside = if inside.starts_with('/') { inside } else { format!("{}/{inside}", config.sandbox_directory) };
        binds.push(format!("{}:{inside}:{}", path.display(), if read_only { "ro" } else { "rw" }));
    }
    for (role, id, inside, read_only) in persistent(&launch.resources) {
        let volume = it.shared.layout.volume(&role, &id);
        std::fs::create_dir_all(&volume).map_err(|error| format!("Failed to make a volume: {error}"))?;
        let inside = if inside.starts_with('/') { inside } else { format!("{}/{inside}", config.sandbox_directory) };
        binds.push(format!("{}:{inside}:{}", volume.display(), if read_only { "ro" } else { "rw" }));
    }
    for volume in &info.volumes {
        let Some(docker) = volume.source.as_ref().and_then(|it| it.docker_volume.as_ref()) else { continue };
        let mode = if volume.mode() == volume::Mode::Ro { "ro" } else { "rw" };
        binds.push(format!("{}:{}:{mode}", docker.name, volume.container_path));
        if let Some(driver) = &docker.driver {
            if host.volume_driver.as_ref().is_some_and(|it| it != driver) {
                return Err("Failed to create docker run options: only one volume driver can be used per container".to_owned());
            }
            host.volume_driver = Some(driver.clone());
        }
    }
    host.binds = Some(binds);
    let mut body = ContainerCreateBody {
        image: Some(with_tag(&image.image)),
        env: Some(variables.map(|(name, value)| format!("{name}={value}")).collect()),
        hostname: info.hostname.clone(),
        labels: Some(HashMap::from([
            (LABEL.to_owned(), launch.container.as_str().to_owned()),
            (OWNER_LABEL.to_owned(), config.work_dir.display().to_string()),
        ])),
        ..ContainerCreateBody::default()
    };
    run_words(&command, &mut body);
    network(it, info, &image, &mut body, &mut host)?;
    for parameter in &image.parameters {
        parameters::apply(&parameter.key, &parameter.value, &mut body, &mut host)?;
    }
    body.host_config = Some(host);
    Ok(body)
}

/// What the container runs: the command replaces the image's entrypoint only where it is one for a shell.
fn run_words(command: &mesos_proto::v1::CommandInfo, body: &mut ContainerCreateBody) {
    if command.shell() && command.value.is_some() {
        body.entrypoint = Some(vec!["/bin/sh".to_owned()]);
        body.cmd = Some(vec!["-c".to_owned(), command.value.clone().unwrap_or_default()]);
        return;
    }
    let words: Vec<String> = command.value.iter().chain(&command.arguments).cloned().collect();
    if !words.is_empty() {
        body.cmd = Some(words);
    }
}

fn network(
    it: &Making,
    info: &ContainerInfo,
    image: &mesos_proto::v1::container_info::DockerInfo,
    body: &mut ContainerCreateBody,
    host: &mut HostConfig,
) -> Result<(), String> {
    use docker_info::Network;

    let refused = |problem: &str| Err(format!("Failed to create docker run options: {problem}"));
    let network = image.network();
    let name = match network {
        Network::Host if info.hostname.is_some() => return refused("a host name cannot be set in HOST mode"),
        Network::Host => "host".to_owned(),
        Network::Bridge => "bridge".to_owned(),
        Network::None => "none".to_owned(),
        Network::User => match info.network_infos.as_slice() {
            [only] => match &only.name {
                Some(name) => name.clone(),
                None => return refused("no network name found in USER mode"),
            },
            _ => return refused("USER mode needs exactly one network"),
        },
    };
    if network == Network::User {
        let endpoints = HashMap::from([(name.clone(), EndpointSettings::default())]);
        body.networking_config = Some(NetworkingConfig { endpoints_config: Some(endpoints) });
    }
    host.network_mode = Some(name);
    if image.port_mappings.is_empty() {
        return Ok(());
    }
    if !matches!(network, Network::Bridge | Network::User) {
        return refused("port mappings are only supported for BRIDGE and USER networks");
    }
    let own = ranges(&it.launch.resources, "ports");
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for mapping in &image.port_mappings {
        let port = u64::from(mapping.host_port);
        if !own.iter().any(|(first, last)| (*first..=*last).contains(&port)) {
            return refused(&format!("Port [{port}] not included in resources"));
        }
        let protocol = mapping.protocol.clone().unwrap_or_else(|| "tcp".to_owned()).to_lowercase();
        let inside = parameters::port(&format!("{}/{protocol}", mapping.container_port));
        let binding = PortBinding { host_ip: None, host_port: Some(port.to_string()) };
        bindings.entry(inside).or_default().get_or_insert_with(Vec::new).push(binding);
    }
    body.exposed_ports = Some(bindings.keys().cloned().collect());
    host.port_bindings = Some(bindings);
    Ok(())
}

#[expect(clippy::cast_possible_truncation, reason = "saturates")]
fn shares(cpus: f64) -> i64 {
    ((1024.0 * cpus) as i64).max(2)
}

#[expect(clippy::cast_possible_truncation, reason = "saturates")]
fn limit(host: &mut HostConfig, limits: &crate::cgroups::Limits, enable_cfs: bool) {
    let bytes = |megabytes: f64| ((megabytes * 1024.0 * 1024.0) as i64).max(MEMORY_MIN);
    let ceiling = match limits.cpus_limit {
        Some(limit) => Some(limit).filter(|it| it.is_finite()),
        None => enable_cfs.then_some(limits.cpus),
    };
    if let Some(cpus) = ceiling {
        host.cpu_period = Some(100_000);
        host.cpu_quota = Some(((100_000.0 * cpus) as i64).max(1_000));
    }
    match limits.mem_limit {
        Some(limit) if limit.is_finite() => {
            host.memory = Some(bytes(limit));
            host.memory_reservation = Some(bytes(limits.mem));
        }
        Some(_) => host.memory_reservation = Some(bytes(limits.mem)),
        None => host.memory = Some(bytes(limits.mem)),
    }
}

/// Watches a container through whatever the daemon goes through.
async fn follow(run: &mut Run, docker: &Docker, name: &str, known: Option<ContainerInspectResponse>) -> Ended {
    let first = match known {
        Some(it) => it,
        None => match find(docker, name).await {
            Some(it) => it,
            None => return Ended::Failed("The container has vanished from Docker".to_owned()),
        },
    };
    let pid = first.state.as_ref().and_then(|it| it.pid).and_then(|it| u32::try_from(it).ok()).filter(|it| *it > 0);
    let inspected = serde_json::to_vec(&[&first]).ok();
    run.started(Started { pid, addresses: addresses(&first), inspected }).await;
    let logs = (docker.clone(), name.to_owned(), run.sandbox.clone(), run.shared.layout.keeper(&run.launch.container));
    let stop = tokio_util::sync::CancellationToken::new();
    let over = stop.clone();
    let (told, drained) = tokio::sync::oneshot::channel::<()>();
    (run.shared.spawn)(
        "docker-logs",
        Box::pin(async move {
            copy_logs(&logs.0, &logs.1, &logs.2, &logs.3, &over).await;
            drop(told);
        }),
    );
    let state = loop {
        let waiting = wait(docker.clone(), name.to_owned());
        let ended = tokio::select! {
            ended = waiting => Some(ended),
            command = run.command() => { obey(run, docker, name, command); None }
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

/// Stopping takes its time: the loop does not wait for it.
fn obey(run: &Run, docker: &Docker, name: &str, command: Command) {
    let (docker, name) = (docker.clone(), name.to_owned());
    (run.shared.spawn)(
        "docker-command",
        Box::pin(async move {
            let Ok(connection) = docker.connect().await else { return };
            let done = match command {
                Command::Terminate(grace) => {
                    let seconds = i32::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
                    let options = StopContainerOptionsBuilder::new().t(seconds).build();
                    timeout(grace + Duration::from_secs(60), connection.stop_container(&name, Some(options))).await.unwrap_or(Ok(()))
                }
                Command::Signal(signal) => {
                    let options = KillContainerOptionsBuilder::new().signal(signal.as_str()).build();
                    connection.kill_container(&name, Some(options)).await
                }
                Command::Destroy => connection.kill_container(&name, None).await,
                Command::Resize(_) => Ok(()),
            };
            if let Err(error) = done {
                tracing::warn!(name, error = words(&error), "Docker refuses to end or change a container");
            }
        }),
    );
}

/// Addresses of its own; none in the host's network.
fn addresses(it: &ContainerInspectResponse) -> Vec<String> {
    let networks = it.network_settings.as_ref().and_then(|it| it.networks.as_ref());
    let mut found: Vec<String> =
        networks.into_iter().flatten().filter_map(|(_, it)| it.ip_address.clone()).filter(|it| !it.is_empty()).collect();
    found.sort();
    found
}

/// Copies the container's output to its sandbox. What was copied before a restart of the agent is told by times.
async fn copy_logs(docker: &Docker, name: &str, sandbox: &Path, keeper: &Path, over: &tokio_util::sync::CancellationToken) {
    let position_file = keeper.join("log-position");
    drop(tokio::fs::create_dir_all(keeper).await);
    let mut position = tokio::fs::read_to_string(&position_file).await.unwrap_or_default();
    let open = |file: &'static str| {
        let path = sandbox.join(file);
        async move { tokio::fs::OpenOptions::new().append(true).create(true).open(path).await }
    };
    let (Ok(mut stdout), Ok(mut stderr)) = (open("stdout").await, open("stderr").await) else { return };
    loop {
        let last = over.is_cancelled();
        let since = seconds(&position);
        let options = LogsOptionsBuilder::new().follow(!last).stdout(true).stderr(true).timestamps(true).since(since).build();
        let Ok(connection) = docker.connect().await else { return };
        let mut lines = connection.logs(name, Some(options));
        loop {
            let line = tokio::select! {
                line = lines.next() => line,
                // The daemon ends the stream by itself when the container is over; should it not: one more look without following.
                () = async { over.cancelled().await; sleep(Duration::from_secs(1)).await }, if !last => None,
            };
            let Some(Ok(line)) = line else { break };
            let (file, bytes) = match line {
                LogOutput::StdErr { message } => (&mut stderr, message),
                LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message } => (&mut stdout, message),
            };
            let Some(space) = bytes.iter().position(|it| *it == b' ') else { continue };
            let time = String::from_utf8_lossy(&bytes[..space]).into_owned();
            if time <= position {
                continue;
            }
            drop(file.write_all(&bytes[space + 1..]).await);
            drop(file.flush().await);
            position = time;
            drop(tokio::fs::write(&position_file, &position).await);
        }
        if last {
            return;
        }
        if !over.is_cancelled() {
            tokio::select! { () = over.cancelled() => {}, () = sleep(AWAY) => {} }
        }
    }
}

/// Seconds since 1970 of a time such as `2024-05-01T10:00:00.123456789Z`; 0 when it is none.
fn seconds(time: &str) -> i32 {
    let number = |from: usize, to: usize| time.get(from..to).and_then(|it| it.parse::<i64>().ok());
    let parts = (|| Some((number(0, 4)?, number(5, 7)?, number(8, 10)?, number(11, 13)?, number(14, 16)?, number(17, 19)?)))();
    let Some((year, month, day, hour, minute, second)) = parts else { return 0 };
    // Days since 1970 in the Gregorian calendar, with years that begin in March.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    i32::try_from(days * 86_400 + hour * 3_600 + minute * 60 + second).unwrap_or(0)
}

/// A name without tag or digest means the newest.
fn with_tag(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if name.contains('@') || last.contains(':') { name.to_owned() } else { format!("{name}:latest") }
}

/// Which registry an image comes from, as `config.json` names it.
fn registry_of(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => HUB,
    }
}

const HUB: &str = "docker.io";

/// Credentials of a `config.json` or `.dockercfg`, by registry.
fn credentials(text: &str) -> HashMap<String, DockerCredentials> {
    use base64::Engine as _;

    let Ok(value) = serde_json::from_str::<serde_json::Value>(text) else { return HashMap::new() };
    let auths = value.get("auths").unwrap_or(&value);
    let entries = auths.as_object().into_iter().flatten();
    entries
        .filter_map(|(registry, entry)| {
            let field = |name: &str| entry.get(name).and_then(|it| it.as_str()).map(str::to_owned);
            let pair = field("auth").and_then(|it| base64::engine::general_purpose::STANDARD.decode(it).ok());
            let pair = pair.and_then(|it| String::from_utf8(it).ok());
            let (username, password) = match pair.as_deref().and_then(|it| it.split_once(':')) {
                Some((user, password)) => (Some(user.to_owned()), Some(password.trim_end_matches('\0').to_owned())),
                None => (field("username"), field("password")),
            };
            let identitytoken = field("identitytoken");
            if username.is_none() && identitytoken.is_none() {
                return None;
            }
            let host = registry.split_once("://").map_or(registry.as_str(), |(_, it)| it).split('/').next().unwrap_or_default();
            let key = if matches!(host, "index.docker.io" | "registry-1.docker.io") { HUB } else { host };
            let serveraddress = Some(registry.clone());
            Some((key.to_owned(), DockerCredentials { username, password, identitytoken, serveraddress, ..DockerCredentials::default() }))
        })
        .collect()
}

/// Credentials that the task's own files brought.
fn fetched_credentials(sandbox: &Path) -> Option<HashMap<String, DockerCredentials>> {
    [".docker/config.json", ".dockercfg", "docker.cfg"]
        .iter()
        .find_map(|it| std::fs::read_to_string(sandbox.join(it)).ok())
        .map(|it| credentials(&it))
}

/// What went wrong, in the daemon's words.
fn words(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_without_a_tag_are_the_newest() {
        let tagged = [
            ("busybox", "busybox:latest"),
            ("busybox:1", "busybox:1"),
            ("host:5000/a/b", "host:5000/a/b:latest"),
            ("a@sha256:0", "a@sha256:0"),
        ];
        for (name, expected) in tagged {
            assert_eq!(with_tag(name), expected);
        }
        assert_eq!((registry_of("host:5000/a/b:1"), registry_of("library/a:1"), registry_of("a:1")), ("host:5000", HUB, HUB));
    }

    #[test]
    fn credentials_are_found_by_registry() {
        let config = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpwOnE="},"host:5000":{"username":"a","password":"b"},"c":{}}}"#;
        let found = credentials(config);
        assert_eq!((found[HUB].username.as_deref(), found[HUB].password.as_deref()), (Some("u"), Some("p:q")));
        assert_eq!(found["host:5000"].password.as_deref(), Some("b"));
        assert_eq!(found.len(), 2);
        assert!(credentials("not json").is_empty());
    }

    #[test]
    fn times_of_log_lines_are_read() {
        assert_eq!(seconds("2024-02-29T12:34:56.789Z"), 1_709_210_096);
        assert_eq!(seconds("1970-01-01T00:00:01Z"), 1);
        assert_eq!(seconds("nonsense"), 0);
    }
}
