//! Containers of the agent's own making: a keeper, cgroups, namespaces, a sandbox.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use mesos_proto::v1::linux_info::IpcMode;
use mesos_proto::v1::{CapabilityInfo, ContainerInfo};
use nix::sys::signal::Signal;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt as _, BufReader, Interest};
use tokio::time::{Instant, interval, sleep, timeout};

use super::{Command, Ended, Run, limits, volumes};
use crate::environment::{self, Place};
use crate::keeper::{self, Files, Mount, Spec, User};
use crate::sandbox::{self, PersistentVolume};
use crate::table::{Exit, Started};
use crate::words::ContainerKey;

mod watched;

use watched::Watched;

/// How long a keeper may take to start its container.
const STARTED_WITHIN: Duration = Duration::from_secs(60);

/// How often it is looked whether the kernel killed something for want of memory.
const MEMORY_WATCH: Duration = Duration::from_millis(500);

/// How long the processes of a destroyed container may take to die before they are looked at again.
const KILLED_WITHIN: Duration = Duration::from_secs(60);

pub(super) async fn launch(run: &mut Run) -> Ended {
    // What is in the way of a new keeper is from an id that came twice; nobody waits for it.
    let files = Files::of(&run.shared.layout.keeper(&run.launch.container));
    let prepare = prepare(Preparation::of(run));
    let prepared = tokio::select! {
        prepared = prepare => prepared,
        () = run.destroyed() => Err("The container was destroyed while it was being made".to_owned()),
    };
    let spec = match prepared {
        Ok(spec) => spec,
        Err(message) => {
            clean_up(run).await;
            return Ended::Failed(message);
        }
    };
    let Some(spec) = spec else { return hold(run).await };
    match start_keeper(run, &files, &spec).await {
        Ok(pid) => {
            run.started(Started { pid: Some(pid), ..Started::default() }).await;
            watch(run, &files, Some(pid)).await
        }
        Err(message) => {
            clean_up(run).await;
            Ended::Failed(message)
        }
    }
}

/// A container without a process: it holds others. It is over when it is told so, or its memory is.
async fn hold(run: &mut Run) -> Ended {
    run.started(Started::default()).await;
    let mut memory = interval(MEMORY_WATCH);
    let mut watched = Watched::new(run);
    loop {
        tokio::select! {
            command = run.command() => match command {
                Command::Destroy => break,
                Command::Resize(resources) => watched.resize(run, &resources).await,
                Command::Terminate(_) | Command::Signal(_) => {}
            },
            _ = memory.tick() => if watched.is_short_of_memory() { break },
        }
    }
    let limitation = watched.memory_limitation();
    clean_up(run).await;
    let status = if limitation.is_some() { Signal::SIGKILL as i32 } else { 0 };
    Ended::Exited(Exit { status: Some(status), limitation })
}

pub(super) async fn reattach(run: &mut Run) -> Ended {
    let files = Files::of(&run.shared.layout.keeper(&run.launch.container));
    if run.launch.command.is_none() {
        let is_there = run.shared.cgroups.as_ref().is_none_or(|it| it.of(&run.launch.container).members_file().exists());
        return if is_there { hold(run).await } else { Ended::Interrupted };
    }
    loop {
        match keeper::take_lock(&files) {
            // Nobody made its directory: the agent was killed before.
            Err(_) => {
                clean_up(run).await;
                return Ended::Interrupted;
            }
            Ok(Some(lock)) => {
                // Whoever starts late sees this, and ends.
                drop(keeper::write_whole(&files.abandoned(), b""));
                drop(lock);
                return over(run, &files).await;
            }
            Ok(None) => {
                if let Some((_, pid)) = read_pids(&files) {
                    run.started(Started { pid: Some(pid), ..Started::default() }).await;
                    return watch(run, &files, Some(pid)).await;
                }
                // It is about to start its container, or just to end.
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// The keeper is no more: what has it left?
async fn over(run: &Run, files: &Files) -> Ended {
    let began = read_pids(files).is_some();
    let problem = std::fs::read_to_string(files.error()).ok();
    let status = read_status(files);
    let watched = Watched::new(run);
    let limitation = watched.memory_limitation();
    clean_up(run).await;
    match (status, problem) {
        (Some(status), _) => Ended::Exited(Exit { status: Some(status), limitation }),
        (None, Some(problem)) => Ended::Failed(problem),
        // Somebody killed it.
        (None, None) if began => Ended::Exited(Exit { status: None, limitation }),
        (None, None) => Ended::Interrupted,
    }
}

/// Keeper and first process.
fn read_pids(files: &Files) -> Option<(u32, u32)> {
    let text = std::fs::read_to_string(files.pid()).ok()?;
    let mut words = text.split_whitespace();
    let keeper: u32 = words.next()?.parse().ok()?;
    let start: u64 = words.next()?.parse().ok()?;
    let child = words.next()?.parse().ok()?;
    // Another process may have the number by now.
    let is_it = keeper::start_time(keeper).is_none_or(|it| it == start);
    is_it.then_some((keeper, child))
}

fn read_status(files: &Files) -> Option<i32> {
    std::fs::read_to_string(files.status()).ok()?.trim().parse().ok()
}

/// Everything that preparing needs, so that a destroy can be heard meanwhile.
struct Preparation {
    shared: std::sync::Arc<super::Shared>,
    launch: std::sync::Arc<crate::table::Launch>,
    agent_id: String,
    sandbox: PathBuf,
}

impl Preparation {
    fn of(run: &Run) -> Self {
        Preparation { shared: run.shared.clone(), launch: run.launch.clone(), agent_id: run.agent_id.clone(), sandbox: run.sandbox.clone() }
    }
}

/// Makes everything but the processes. `None`: there are to be none.
async fn prepare(it: Preparation) -> Result<Option<Spec>, String> {
    let root = match it.launch.container_info.as_ref().and_then(|it| it.mesos.as_ref()).and_then(|it| it.image.as_ref()) {
        Some(image) => Some(super::rootfs::provision(&it.shared, image, &it.launch.container).await?),
        None => None,
    };
    let prepared = tokio::task::spawn_blocking(move || it.prepare(root));
    prepared.await.map_err(|_| "preparing the container failed".to_owned())?
}

impl Preparation {
    fn prepare(&self, root: Option<super::rootfs::Root>) -> Result<Option<Spec>, String> {
        let (config, launch) = (&self.shared.config, &self.launch);
        if let Some(problem) = launch.container_info.as_ref().and_then(|it| unsupported(it, launch.container.parent().is_some())) {
            return Err(problem);
        }
        let owner = self.owner()?;
        let text = |error: io::Error| format!("Failed to make the sandbox: {error}");
        sandbox::make(&self.sandbox, owner.as_ref()).map_err(text)?;
        match (launch.container.parent(), &launch.task) {
            (None, _) => sandbox::make_latest(&self.sandbox).map_err(text)?,
            (Some(_), Some(task)) => self.link_task(&task.task_id.value),
            (Some(_), None) => {}
        }
        if let Some(command) = launch.executor.command.as_ref().filter(|_| launch.task.is_none())
            && launch.command.is_none()
        {
            self.fetch(command, owner.as_ref())?;
        }
        if let Some(command) = &launch.command {
            if let Some(name) = environment::unresolved_secret(command) {
                return Err(format!("The variable '{name}' is a secret by reference, and there is no secret resolver"));
            }
            self.fetch(command, owner.as_ref())?;
        }
        let entrances = self.make_cgroup()?;
        let mut mounts = self.volumes(root.is_some(), owner.as_ref())?;
        let Some(command) = &launch.command else { return Ok(None) };
        // A session sees what the container that it is nested in sees.
        let parent = launch.container.parent().filter(|_| launch.is_session());
        let parent = parent.and_then(|it| self.shared.running(&it));
        let inside_of = parent.as_ref().and_then(|it| it.state().started?.pid);
        let inherited = parent.as_ref().filter(|_| root.is_none()).and_then(|it| self.spec_of(&it.launch().container));
        let inside = if root.is_some() { config.sandbox_directory.clone() } else { self.sandbox.display().to_string() };
        if root.is_some() {
            mounts.insert(0, Mount { source: self.sandbox.clone(), target: PathBuf::from(&inside), read_only: false });
            for file in ["/etc/resolv.conf", "/etc/hosts"] {
                if Path::new(file).exists() {
                    mounts.push(Mount { source: PathBuf::from(file), target: PathBuf::from(file), read_only: true });
                }
            }
        }
        let (mut arguments, called) = match &root {
            Some(root) => root.arguments(command)?,
            None => environment::arguments(command)?,
        };
        if root.is_none() && inherited.is_none() && arguments[0].starts_with("./") {
            arguments[0] = self.sandbox.join(&arguments[0][2..]).display().to_string();
        }
        let directory = self.sandbox.display().to_string();
        let own_ip = config.advertise_ip.to_string();
        let place = Place {
            agent_id: &self.agent_id,
            endpoint: &self.shared.endpoint,
            directory: &directory,
            sandbox: &inside,
            container_ip: launch.container.parent().is_some().then_some(own_ip.as_str()),
        };
        let mut variables = root.as_ref().map(|it| it.environment.clone()).unwrap_or_default();
        variables.extend(environment::variables(config, launch, &place).into_iter().filter(|(name, _)| {
            // The image knows better where its programs are, unless somebody said otherwise.
            name != "PATH" || root.as_ref().is_none_or(|it| !it.environment.iter().any(|(name, _)| name == "PATH"))
        }));
        if let Some(inherited) = &inherited {
            // What looks into a container finds what runs there finds, the sandbox among it.
            variables = environment::over(&inherited.environment, environment::given(command));
        }
        let info = launch.container_info.as_ref();
        let linux = info.and_then(|it| it.linux_info.as_ref());
        let members_file = self.shared.cgroups.as_ref().map(|it| it.of(&launch.container).members_file());
        Ok(Some(Spec {
            arguments,
            called,
            environment: variables,
            directory: match (inherited, &parent, &root) {
                (Some(inherited), ..) => inherited.directory,
                (None, Some(parent), _) if has_image(parent.launch()) => PathBuf::from("/"),
                (None, Some(parent), _) => parent.sandbox().to_owned(),
                (None, None, root) => PathBuf::from(root.as_ref().and_then(|it| it.directory.clone()).unwrap_or(inside)),
            },
            user: owner,
            stdout: self.sandbox.join("stdout"),
            stderr: self.sandbox.join("stderr"),
            log_rotate_bytes: config.log_rotate_bytes,
            log_rotate_keep: config.log_rotate_keep,
            cgroup_files: entrances,
            members_file,
            root: root.map(|it| it.path),
            mounts,
            pid_namespace: self.shares_no_pids() && inside_of.is_none(),
            ipc_namespace: linux.is_some_and(|it| it.ipc_mode() == IpcMode::Private) && inside_of.is_none(),
            shm_bytes: linux.and_then(|it| it.shm_size).map(|megabytes| u64::from(megabytes) << 20),
            enter_namespaces: inside_of.map(namespaces).unwrap_or_default(),
            hostname: info.and_then(|it| it.hostname.clone()),
            rlimits: rlimits(info)?,
            oom_score_adj: None,
            bounding_capabilities: linux
                .and_then(|it| it.bounding_capabilities.as_ref().or(it.effective_capabilities.as_ref()))
                .map(numbers),
            effective_capabilities: linux.and_then(|it| it.effective_capabilities.as_ref()).map(numbers),
            no_new_privileges: config.isolates("linux/nnp"),
            interactive: launch.is_session(),
            tty: info.and_then(|it| it.tty_info.as_ref()).map(|it| {
                let size = it.window_size.unwrap_or_default();
                let of = |value: u32, default: u16| u16::try_from(value).ok().filter(|it| *it > 0).unwrap_or(default);
                (of(size.rows, 24), of(size.columns, 80))
            }),
        }))
    }

    /// What a container was started with.
    fn spec_of(&self, container: &ContainerKey) -> Option<Spec> {
        let files = Files::of(&self.shared.layout.keeper(container));
        serde_json::from_slice(&std::fs::read(files.spec()).ok()?).ok()
    }

    /// Who owns the sandbox and runs in it.
    fn owner(&self) -> Result<Option<User>, String> {
        if !self.shared.config.switch_user || !nix::unistd::Uid::effective().is_root() {
            return Ok(None);
        }
        let of_command = self.launch.command.as_ref().and_then(|it| it.user.as_deref());
        let of_executor = self.launch.executor.command.as_ref().and_then(|it| it.user.as_deref());
        let name = of_command.or(of_executor).unwrap_or(&self.launch.framework.user);
        if name.is_empty() { Ok(None) } else { sandbox::user(name).map(Some) }
    }

    /// For people; a task runs without it.
    fn link_task(&self, task: &str) {
        let Some(executor) = self.sandbox.ancestors().nth(2) else { return };
        if let Err(error) = sandbox::link_task(executor, task, &self.sandbox) {
            tracing::warn!(task, %error, "the link to the sandbox of a task cannot be made");
        }
    }

    fn fetch(&self, command: &mesos_proto::v1::CommandInfo, owner: Option<&User>) -> Result<(), String> {
        self.shared.fetcher.fetch(&command.uris, &self.sandbox, owner).map_err(|error| error.to_string())
    }

    /// Makes the cgroup, and says which files lead into it.
    fn make_cgroup(&self) -> Result<Vec<PathBuf>, String> {
        let Some(cgroups) = &self.shared.cgroups else { return Ok(Vec::new()) };
        let cgroup = cgroups.of(&self.launch.container);
        let limits = self.launch.has_own_limits().then(|| limits(&self.launch.resources, &self.launch.limits));
        let made = cgroup.create().and_then(|()| limits.map_or(Ok(()), |it| cgroup.limit(&it, true)));
        made.map_err(|error| format!("Failed to make the cgroup: {error}"))?;
        Ok(cgroup.entrances())
    }

    fn shares_no_pids(&self) -> bool {
        let shares = self.launch.container_info.as_ref().and_then(|it| it.linux_info.as_ref()).and_then(|it| it.share_pid_namespace);
        let nested = self.launch.container.parent().is_some();
        match shares {
            Some(shares) => !shares,
            // A debugging session sees what it is there for.
            None => self.shared.config.isolates("namespaces/pid") && !(nested && self.launch.is_session()),
        }
    }

    /// Bind mounts, and links in the sandbox where the host's own root is the container's.
    fn volumes(&self, has_root: bool, owner: Option<&User>) -> Result<Vec<Mount>, String> {
        let parent = self.launch.container.parent().map(|_| self.sandbox.ancestors().nth(2).unwrap_or(&self.sandbox).to_owned());
        let mut mounts = Vec::new();
        for (host, inside, read_only) in volumes(self.launch.container_info.as_ref(), &self.sandbox, parent.as_deref())? {
            if !host.exists() {
                if !host.starts_with(&self.shared.config.work_dir) {
                    return Err(format!("The host path '{}' of a volume does not exist", host.display()));
                }
                std::fs::create_dir_all(&host).map_err(|error| error.to_string())?;
            }
            let target = self.inside(&inside, has_root)?;
            if target != host {
                mounts.push(Mount { source: host, target, read_only });
            }
        }
        for it in self.launch.resources.iter().filter_map(PersistentVolume::of) {
            let volume = self.shared.layout.volume(&it);
            let PersistentVolume { inside, read_only, .. } = it;
            std::fs::create_dir_all(&volume).map_err(|error| error.to_string())?;
            if let Some(owner) = owner {
                drop(std::os::unix::fs::chown(&volume, Some(owner.uid), Some(owner.gid)));
            }
            if has_root || read_only {
                mounts.push(Mount { source: volume, target: self.inside(&inside, has_root)?, read_only });
                continue;
            }
            let link = sandbox::below(&self.sandbox, &inside).ok_or_else(|| format!("Volume path '{inside}' leads out of the sandbox"))?;
            if !link.is_symlink() {
                if let Some(parent) = link.parent() {
                    std::fs::create_dir_all(parent).map_err(|error| error.to_string())?;
                }
                std::os::unix::fs::symlink(&volume, &link).map_err(|error| format!("Failed to link a volume: {error}"))?;
            }
        }
        Ok(mounts)
    }

    /// A path of a volume as the container sees it; those that are not absolute are in the sandbox.
    fn inside(&self, path: &str, has_root: bool) -> Result<PathBuf, String> {
        if path.starts_with('/') {
            return Ok(PathBuf::from(path));
        }
        let sandbox = if has_root { PathBuf::from(&self.shared.config.sandbox_directory) } else { self.sandbox.clone() };
        let target = sandbox::below(&sandbox, path).ok_or_else(|| format!("Volume path '{path}' leads out of the sandbox"))?;
        if !has_root {
            std::fs::create_dir_all(&target).map_err(|error| error.to_string())?;
        }
        Ok(target)
    }
}

/// The kernel's numbers of capabilities.
fn numbers(of: &CapabilityInfo) -> Vec<u8> {
    of.capabilities.iter().filter_map(|it| u8::try_from(it - 1000).ok()).collect()
}

/// What a container asks for and would not get here. Without a word it would run on the host's network, write into the sandbox in place of its
/// volume, or run unconfined.
fn unsupported(info: &ContainerInfo, is_nested: bool) -> Option<String> {
    use mesos_proto::v1::volume::source::Type;
    // Those that are nested share the network of what they are nested in.
    if let Some(name) = info.network_infos.iter().find_map(|it| it.name.as_deref()).filter(|_| !is_nested) {
        return Some(format!("Unknown CNI network '{name}'"));
    }
    let external = |it: &Type| matches!(it, Type::DockerVolume | Type::CsiVolume);
    if let Some(kind) = info.volumes.iter().filter_map(|it| Some(it.source.as_ref()?.r#type())).find(external) {
        return Some(format!("Volumes of type {} are not supported by the Mesos containerizer", kind.as_str_name()));
    }
    let linux = info.linux_info.as_ref()?;
    let profile = linux.seccomp.as_ref().and_then(|it| it.profile_name.as_ref());
    profile.map(|name| format!("The seccomp profile '{name}' cannot be applied: seccomp is not supported"))
}

fn has_image(launch: &crate::table::Launch) -> bool {
    launch.container_info.as_ref().and_then(|it| it.mesos.as_ref()).is_some_and(|it| it.image.is_some())
}

/// Those of a process that are not the agent's own.
fn namespaces(pid: u32) -> Vec<PathBuf> {
    let of = |pid: &str, name: &str| std::fs::read_link(format!("/proc/{pid}/ns/{name}")).ok();
    let differs = |name: &&str| {
        let theirs = of(&pid.to_string(), name);
        theirs.is_some() && theirs != of("self", name)
    };
    // The file system last: the others are named by paths of the host.
    ["pid", "net", "ipc", "uts", "mnt"].iter().filter(|it| differs(it)).map(|it| PathBuf::from(format!("/proc/{pid}/ns/{it}"))).collect()
}

fn rlimits(info: Option<&ContainerInfo>) -> Result<Vec<(i32, u64, u64)>, String> {
    let rlimits = info.and_then(|it| it.rlimit_info.as_ref()).map(|it| it.rlimits.as_slice()).unwrap_or_default();
    rlimits
        .iter()
        .map(|it| match (it.soft, it.hard) {
            (Some(soft), Some(hard)) => Ok((it.r#type.unwrap_or(0), soft, hard)),
            (None, None) => Ok((it.r#type.unwrap_or(0), u64::MAX, u64::MAX)),
            _ => Err("A resource limit needs both a soft and a hard value, or none".to_owned()),
        })
        .collect()
}

/// Starts the keeper and waits for its word. The pid of the container's first process.
async fn start_keeper(run: &mut Run, files: &Files, spec: &Spec) -> Result<u32, String> {
    let directory = run.shared.layout.keeper(&run.launch.container);
    let text = |error: io::Error| format!("Failed to start the container's keeper: {error}");
    std::fs::create_dir_all(&directory).map_err(text)?;
    let spec = serde_json::to_vec(spec).map_err(|error| error.to_string())?;
    keeper::write_whole(&files.spec(), &spec).map_err(text)?;
    let mut words = run.shared.config.keeper.iter();
    let program = words.next().ok_or_else(|| "no keeper is configured".to_owned())?;
    let mut child = tokio::process::Command::new(program)
        .args(words)
        .arg(&directory)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(text)?;
    if let (Some(cgroups), Some(pid)) = (&run.shared.cgroups, child.id()) {
        for file in cgroups.keepers() {
            drop(std::fs::write(file, pid.to_string()));
        }
    }
    let stdout = child.stdout.take().ok_or_else(|| "no keeper is configured".to_owned())?;
    let mut lines = BufReader::new(stdout).lines();
    let said = timeout(STARTED_WITHIN, lines.next_line()).await;
    let line = match said {
        Ok(Ok(Some(line))) => line,
        Ok(_) => "failed the keeper ended without a word".to_owned(),
        Err(_) => "failed the keeper is silent".to_owned(),
    };
    // Somebody has to take note of its end; nobody needs to wait for it here.
    (run.shared.spawn)("keeper", Box::pin(async move { drop(child.wait().await) }));
    match line.split_once(' ') {
        Some(("started", pid)) => pid.parse().map_err(|_| "the keeper speaks nonsense".to_owned()),
        Some(("failed", problem)) => Err(format!("Failed to launch container: {problem}")),
        _ => Err("the keeper speaks nonsense".to_owned()),
    }
}

/// Watches a container until nothing of it is left.
async fn watch(run: &mut Run, files: &Files, pid: Option<u32>) -> Ended {
    let keeper = read_pids(files).and_then(|(keeper, _)| open_pid(keeper).ok());
    let mut watched = Watched::new(run);
    let mut memory = interval(MEMORY_WATCH);
    let mut disk = interval(run.shared.config.container_disk_watch_interval.max(Duration::from_millis(100)));
    let mut limitation = None;
    let mut destroy_at: Option<Instant> = None;
    loop {
        let over = async {
            if let Some(fd) = &keeper {
                drop(fd.readable().await);
            }
        };
        tokio::select! {
            () = over => break,
            command = run.command() => match command {
                Command::Terminate(_) => signal(run, pid, Signal::SIGTERM),
                Command::Signal(it) => signal(run, pid, it),
                Command::Resize(resources) => watched.resize(run, &resources).await,
                Command::Destroy => destroy_at = Some(Instant::now()),
            },
            _ = memory.tick() => if limitation.is_none() && watched.is_short_of_memory() {
                limitation = watched.memory_limitation();
                destroy_at = Some(Instant::now());
            },
            _ = disk.tick() => if limitation.is_none() && let Some(it) = watched.disk_limitation(run).await {
                limitation = Some(it);
                destroy_at = Some(Instant::now());
            },
            () = at(destroy_at) => {
                kill_all(run, pid).await;
                // Should something hang in the kernel: again.
                destroy_at = Some(Instant::now() + KILLED_WITHIN);
            }
        }
    }
    let limitation = limitation.or_else(|| watched.memory_limitation());
    let status = read_status(files);
    clean_up(run).await;
    Ended::Exited(Exit { status, limitation })
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Readable when the process is over, whoever's child it is.
fn open_pid(pid: u32) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(unsafe_code, reason = "pidfd_open has no safe form here")]
    let fd = {
        // SAFETY: takes numbers, no memory.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = i32::try_from(fd).ok().filter(|it| *it >= 0).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the kernel has just made it for us alone.
        unsafe { OwnedFd::from_raw_fd(fd) }
    };
    #[expect(unsafe_code, reason = "registering a descriptor has no safe form that is sound")]
    // SAFETY: the descriptor is owned, so it stays the same open one until it is dropped.
    let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    Ok(registered?)
}

fn signal(run: &Run, pid: Option<u32>, signal: Signal) {
    match (&run.shared.cgroups, pid.and_then(|it| i32::try_from(it).ok())) {
        (Some(cgroups), _) => cgroups.of(&run.launch.container).signal(signal),
        (None, Some(pid)) => {
            let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid), signal);
        }
        (None, None) => {}
    }
}

async fn kill_all(run: &Run, pid: Option<u32>) {
    match &run.shared.cgroups {
        Some(cgroups) => {
            let cgroup = cgroups.of(&run.launch.container);
            let killed = tokio::task::spawn_blocking(move || cgroup.kill_all(Duration::from_secs(10)));
            if !killed.await.unwrap_or(false) {
                tracing::warn!(container = %run.launch.container, "processes of a container do not die");
            }
        }
        None => signal(run, pid, Signal::SIGKILL),
    }
}

/// Without cgroups: the session of the first process.
pub(super) fn kill_session(files: &Files) {
    if let Some((_, child)) = read_pids(files)
        && let Ok(pid) = i32::try_from(child)
    {
        let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Ends what is left and removes the cgroup. The keeper's directory stays until the end is stored.
async fn clean_up(run: &Run) {
    let Some(cgroups) = &run.shared.cgroups else { return };
    let cgroup = cgroups.of(&run.launch.container);
    let container = run.launch.container.clone();
    let root = super::rootfs::mounted_at(&run.shared.layout, &container);
    let cleaned = tokio::task::spawn_blocking(move || {
        super::rootfs::remove(&root);
        cgroup.kill_all(Duration::from_secs(10));
        cgroup.remove()
    });
    match cleaned.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
        problem => tracing::warn!(container = %run.launch.container, ?problem, "a cgroup cannot be removed"),
    }
}
