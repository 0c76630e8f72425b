//! The containers of this host: each has a loop that makes it, watches it, ends it and says so. Two kinds: of this agent's own making (`process`), and
//! Docker's (`docker`).
//!
//! Decides nothing: it is told what to make and what to end, and answers with inputs of the task table. A container's traces (its keeper's directory,
//! its name at Docker) stay until [`Containers::forget`]: an agent that is killed before the table has stored the end must find the end again.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mesos_proto::v1::Image;
use nix::sys::signal::Signal;
use tokio::sync::{mpsc, watch};

use crate::cgroups::{Cgroups, Settings, Usage};
use crate::config::Config;
use crate::fetcher::Fetcher;
use crate::keeper::absence::Patience;
use crate::keeper::{self, Files};
use crate::sandbox::Layout;
use crate::table::{Allowance, Exit, Input, Launch, Started};
use crate::words::ContainerKey;

mod apart;
mod docker;
mod given;
mod handle;
mod parameters;
mod process;
mod rootfs;

pub use docker::Docker;
pub(crate) use docker::absence;
pub(crate) use given::{limits, volumes};
pub use handle::{Handle, State};

/// Commands that wait for a container's loop.
const COMMANDS_MAX: usize = 64;

/// How long Docker may take to end what earlier agents left.
const ORPHANS_WITHIN: Duration = Duration::from_secs(10);

/// Spawns a loop under a name; the owner of all loops counts them.
pub type Spawn = Arc<dyn Fn(&'static str, futures::future::BoxFuture<'static, ()>) + Send + Sync>;

/// All containers.
#[derive(Clone)]
pub struct Containers {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Containers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Containers").finish_non_exhaustive()
    }
}

/// What every container's loop needs.
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) layout: Layout,
    pub(crate) cgroups: Option<Cgroups>,
    pub(crate) fetcher: Arc<Fetcher>,
    pub(crate) docker: Option<Docker>,
    /// `<ip>:<port>` of the HTTP API.
    pub(crate) endpoint: String,
    answers: mpsc::Sender<Input>,
    spawn: Spawn,
    running: Arc<Mutex<HashMap<ContainerKey, Handle>>>,
    /// Held while an image is unpacked.
    pub(crate) unpacking: Arc<tokio::sync::Mutex<()>>,
}

/// What a container's loop can be told.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// Its processes are to end within this time.
    Terminate(Duration),
    /// One signal to all of them.
    Signal(Signal),
    /// It is to end now.
    Destroy,
    /// Other limits.
    Resize(Allowance),
}

impl Containers {
    /// No containers yet. Cgroups are looked for here.
    pub fn new(config: Arc<Config>, fetcher: Arc<Fetcher>, endpoint: String, answers: mpsc::Sender<Input>, spawn: Spawn) -> Self {
        let settings = Settings {
            cpu: config.isolates("cgroups/cpu"),
            memory: config.isolates("cgroups/mem"),
            enable_cfs: config.cgroups_enable_cfs,
            limit_swap: config.cgroups_limit_swap,
            devices: config.isolates("cgroups/devices").then(|| config.allowed_devices.clone()),
        };
        let wanted = crate::isolation::has_cgroups(&config.isolation);
        let cgroups =
            wanted.then(|| Cgroups::detect(&config.cgroups_hierarchy, &config.cgroups_root, |it| config.isolates(it), settings)).flatten();
        if wanted && cgroups.is_none() {
            tracing::warn!("no cgroup can be made here: tasks run without limits");
        }
        let missing = cgroups.as_ref().map(|it| it.missing(|it| config.isolates(it))).unwrap_or_default();
        if !missing.is_empty() {
            tracing::warn!(
                isolators = missing.join(","),
                "the host gives the agent no controllers for these: tasks run without what they limit"
            );
        }
        let docker = config.docker_socket.as_deref().map(|it| Docker::new(it, config.docker_config.as_deref()));
        let layout = Layout::new(&config.work_dir, &config.runtime_dir);
        let shared = Shared {
            config,
            layout,
            cgroups,
            fetcher,
            docker,
            endpoint,
            answers,
            spawn,
            running: Arc::default(),
            unpacking: Arc::default(),
        };
        Containers { shared: Arc::new(shared) }
    }

    /// Makes a container. `agent_id` names its sandbox.
    pub fn launch(&self, agent_id: &str, launch: Launch) {
        self.begin(agent_id, launch, false, false);
    }

    /// Looks after a container that an earlier agent made.
    pub fn reattach(&self, agent_id: &str, launch: Launch) {
        self.begin(agent_id, launch, true, false);
    }

    fn begin(&self, agent_id: &str, launch: Launch, again: bool, is_apart: bool) {
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let (state, seen) = watch::channel(State::default());
        let container = launch.container.clone();
        let sandbox = self.shared.layout.sandbox_of(agent_id, &launch);
        let handle = Handle { commands, state: seen, launch: Arc::new(launch), sandbox, is_apart };
        let run = Run {
            shared: self.shared.clone(),
            agent_id: agent_id.to_owned(),
            launch: handle.launch.clone(),
            sandbox: handle.sandbox.clone(),
            inbox,
            state,
        };
        if !handle.launch.is_docker() {
            self.shared.config.task_labels.put(&handle.launch);
        }
        self.lock().insert(container, handle);
        (self.shared.spawn)("container", Box::pin(run.until_end(again)));
    }

    /// Asks a container to end.
    pub fn terminate(&self, container: &ContainerKey, grace: Duration) {
        self.tell(container, Command::Terminate(grace));
    }

    /// Sends a signal to all processes of a container. Whether it is there.
    pub fn signal(&self, container: &ContainerKey, signal: Signal) -> bool {
        self.tell(container, Command::Signal(signal))
    }

    /// Ends a container and what is nested in it. One that nobody looks after is ended all the same.
    pub fn destroy(&self, container: &ContainerKey) {
        let nested: Vec<ContainerKey> = self.lock().keys().filter(|it| it.parent().as_ref() == Some(container)).cloned().collect();
        nested.iter().for_each(|it| self.destroy(it));
        if self.tell(container, Command::Destroy) {
            return;
        }
        let (shared, container) = (self.shared.clone(), container.clone());
        (self.shared.spawn)("container-leftover", Box::pin(async move { shared.end_leftover(&container).await }));
    }

    /// Gives a container other limits.
    pub fn resize(&self, container: &ContainerKey, allowance: Allowance) {
        self.tell(container, Command::Resize(allowance));
    }

    fn tell(&self, container: &ContainerKey, command: Command) -> bool {
        let Some(handle) = self.lock().get(container).cloned() else { return false };
        // A full inbox has a Destroy in it, or the loop is about to end.
        drop(handle.commands.try_send(command));
        true
    }

    /// Removes the unpacked images that no container uses, but for some. How many were removed.
    pub async fn prune_images(&self, kept: &[Image]) -> usize {
        rootfs::prune(&self.shared, kept).await
    }

    /// Removes the traces of a container that is over, and of those nested in it that the task table does not know.
    pub fn forget(&self, container: &ContainerKey) {
        let nested: Vec<(ContainerKey, Handle)> = {
            let running = self.lock();
            let below = running.iter().filter(|(key, handle)| handle.is_apart && key.is_below(container));
            below.map(|(key, handle)| (key.clone(), handle.clone())).collect()
        };
        for (key, handle) in nested {
            if handle.state().ended.is_some() { self.forget_one(&key) } else { self.end_apart(&key, Duration::ZERO) }
        }
        self.forget_one(container);
    }

    fn forget_one(&self, container: &ContainerKey) {
        let shared = self.shared.clone();
        let handle = self.lock().remove(container);
        self.shared.config.task_labels.remove(container);
        let container = container.clone();
        (self.shared.spawn)(
            "container-forget",
            Box::pin(async move {
                let keeper = shared.layout.keeper(&container);
                drop(tokio::task::spawn_blocking(move || std::fs::remove_dir_all(keeper)).await);
                if let (Some(docker), Some(handle)) = (&shared.docker, handle)
                    && handle.launch.is_docker()
                {
                    docker.remove_later(crate::environment::docker_name(&handle.launch), shared.config.docker_remove_delay).await;
                }
            }),
        );
    }

    /// Ends what earlier agents left behind and nobody claims.
    pub async fn end_orphans(&self, claimed: &[ContainerKey]) {
        let entries = std::fs::read_dir(self.shared.layout.keepers()).into_iter().flatten().flatten();
        let mut orphans: Vec<ContainerKey> =
            entries.filter_map(|it| it.file_name().into_string().ok()).map(|it| ContainerKey::from_text(&it)).collect();
        orphans.extend(self.shared.cgroups.as_ref().map(Cgroups::containers).unwrap_or_default());
        orphans.sort();
        orphans.dedup();
        let is_claimed = |it: &ContainerKey| claimed.iter().any(|claimed| claimed == it || claimed.outermost() == *it);
        for orphan in orphans.iter().filter(|it| !is_claimed(it)) {
            tracing::info!(container = %orphan, "ending a container that nobody claims");
            self.shared.end_leftover(orphan).await;
        }
        let Some(docker) = &self.shared.docker else { return };
        // A daemon that is away does not keep the agent from starting: its orphans are ended next time.
        let (config, owner) = (&self.shared.config, self.shared.owner());
        let ending = docker.end_orphans(&owner, claimed, config.docker_kill_orphans, config.docker_remove_delay);
        if let Ok(over) = tokio::time::timeout(ORPHANS_WITHIN, ending).await
            && !over.is_empty()
        {
            let docker = docker.clone();
            (self.shared.spawn)("docker-remove", Box::pin(async move { docker.remove_each(over).await }));
        }
    }

    /// Everything that is being made or runs.
    pub fn running(&self) -> BTreeMap<ContainerKey, Handle> {
        let all = self.lock();
        all.iter().filter(|(_, it)| it.state.borrow().ended.is_none()).map(|(key, handle)| (key.clone(), handle.clone())).collect()
    }

    /// One of them.
    pub fn get(&self, container: &ContainerKey) -> Option<Handle> {
        self.lock().get(container).cloned()
    }

    /// What a container has used.
    pub fn usage(&self, container: &ContainerKey) -> Option<Usage> {
        let handle = self.get(container)?;
        let cgroups = self.shared.cgroups.as_ref()?;
        let allowance = handle.allowance();
        let limits = limits(&allowance.resources, &allowance.limits);
        let mut usage = if handle.launch.is_docker() {
            let pid = handle.state().started?.pid?;
            cgroups.of_process(pid)?.usage()
        } else {
            cgroups.of(container).usage()
        };
        usage.statistics.disk_used_bytes = handle.state().disk_used;
        usage.statistics.cpus_limit = Some(limits.cpus_limit.filter(|it| it.is_finite()).unwrap_or(limits.cpus));
        Some(usage)
    }

    /// Where sandboxes are.
    pub fn layout(&self) -> &Layout {
        &self.shared.layout
    }

    /// Docker, where tasks may use it.
    pub fn docker(&self) -> Option<&Docker> {
        self.shared.docker.as_ref()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ContainerKey, Handle>> {
        self.shared.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The loop of one container.
pub(crate) struct Run {
    pub(crate) shared: Arc<Shared>,
    pub(crate) agent_id: String,
    pub(crate) launch: Arc<Launch>,
    pub(crate) sandbox: PathBuf,
    inbox: mpsc::Receiver<Command>,
    state: watch::Sender<State>,
}

/// How a container's loop ended.
pub(crate) enum Ended {
    /// It ran.
    Exited(Exit),
    /// It could not be made.
    Failed(String),
    /// It could not, because the agent was restarted meanwhile.
    Interrupted,
}

impl Run {
    async fn until_end(mut self, again: bool) {
        let container = self.launch.container.clone();
        let ended = match (self.launch.is_docker(), again) {
            (true, _) => Box::pin(docker::run(&mut self, again)).await,
            (false, false) => process::launch(&mut self).await,
            (false, true) => process::reattach(&mut self).await,
        };
        let (input, seen) = match ended {
            Ended::Exited(exit) => (Input::Exited { container, exit: exit.clone() }, Ok(exit)),
            Ended::Failed(message) => {
                tracing::warn!(container = %self.launch.container, message, "a container could not be made");
                (Input::LaunchFailed { container, message: message.clone(), restarted: false }, Err(message))
            }
            Ended::Interrupted => {
                let message = "The agent was restarted while the container was being made".to_owned();
                (Input::LaunchFailed { container, message: message.clone(), restarted: true }, Err(message))
            }
        };
        self.state.send_modify(|it| it.ended = Some(seen));
        drop(self.shared.answers.send(input).await);
    }

    /// Tells that it runs.
    pub(crate) async fn started(&self, started: Started) {
        self.state.send_modify(|it| it.started = Some(started.clone()));
        let input = Input::Started { container: self.launch.container.clone(), started: Box::new(started) };
        drop(self.shared.answers.send(input).await);
    }

    /// Notes what its sandbox holds.
    pub(crate) fn uses_disk(&self, bytes: u64) {
        self.state.send_modify(|it| it.disk_used = Some(bytes));
    }

    /// Notes what it may use from now on.
    pub(crate) fn resized(&self, allowance: &Allowance) {
        self.state.send_modify(|it| it.resized = Some(allowance.clone()));
    }

    /// The next command; never, when nobody can give one any more.
    pub(crate) async fn command(&mut self) -> Command {
        match self.inbox.recv().await {
            Some(command) => command,
            None => std::future::pending().await,
        }
    }

    /// Waits until it is to end, and lets other commands pass.
    pub(crate) async fn destroyed(&mut self) {
        while !matches!(self.command().await, Command::Destroy) {}
    }
}

impl Shared {
    /// How Docker's containers of this agent are marked: with its work directory, which no two agents of a host share.
    pub(crate) fn owner(&self) -> String {
        self.config.work_dir.display().to_string()
    }

    pub(crate) fn running(&self, container: &ContainerKey) -> Option<Handle> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).get(container).cloned()
    }

    /// Ends a container that no loop looks after.
    async fn end_leftover(&self, container: &ContainerKey) {
        let files = Files::of(&self.layout.keeper(container));
        let (layout, cgroups, container) = (self.layout.clone(), self.cgroups.clone(), container.clone());
        let ended = tokio::task::spawn_blocking(move || {
            let directory = layout.keeper(&container);
            drop(keeper::write_whole(&files.abandoned(), b""));
            drop(process::end_all(&layout, cgroups.as_ref(), &container));
            // An agent with other isolators may have made it.
            process::kill_session(&files);
            // Its keeper ends by itself now; a directory that it still writes to is removed next time.
            drop(std::fs::remove_dir_all(directory));
        });
        drop(ended.await);
    }
}

/// How long the agent may be away before its containers end.
pub(crate) fn patience(shared: &Shared) -> Patience {
    let milliseconds = |it: Duration| u64::try_from(it.as_millis()).unwrap_or(u64::MAX);
    Patience {
        lock: shared.layout.agent_lock(),
        store: crate::store::file(&shared.layout.meta()),
        timeout_ms: milliseconds(shared.config.recovery_timeout),
        grace_ms: milliseconds(shared.config.executor_shutdown_grace_period),
    }
}

/// Moves a process that outlives the agent out of the agent's cgroup, which an init system may empty.
pub(crate) fn beside_containers(shared: &Shared, pid: Option<u32>) {
    let (Some(cgroups), Some(pid)) = (&shared.cgroups, pid) else { return };
    for file in cgroups.keepers() {
        drop(std::fs::write(file, pid.to_string()));
    }
}

impl Shared {
    fn answering(&self, answers: mpsc::Sender<Input>) -> Shared {
        Shared {
            config: self.config.clone(),
            layout: self.layout.clone(),
            cgroups: self.cgroups.clone(),
            fetcher: self.fetcher.clone(),
            docker: self.docker.clone(),
            endpoint: self.endpoint.clone(),
            answers,
            spawn: self.spawn.clone(),
            running: self.running.clone(),
            unpacking: self.unpacking.clone(),
        }
    }
}
