//! What is made before a container's processes: its sandbox with the files of its command, root file system, volumes and cgroup, and what the keeper
//! is told.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesos_proto::v1::linux_info::IpcMode;
use mesos_proto::v1::volume::{Mode, source};
use mesos_proto::v1::{ContainerInfo, Volume};
use tokio_util::sync::CancellationToken;

use super::super::{Run, Shared, limits, patience, rootfs, volumes};
use super::capabilities::Capabilities;
use crate::environment::{self, Place};
use crate::keeper::{self, Files, Mount, Spec, User};
use crate::sandbox::{self, PersistentVolume, Sandbox};
use crate::table::Launch;
use crate::words::ContainerKey;

/// Why a container is not made.
pub(super) const DESTROYED: &str = "The container was destroyed while it was being made";

/// Everything that preparing needs. It goes on by itself when nobody waits for it any more: a thread that mounts something cannot be given up.
pub(super) struct Preparation {
    shared: Arc<Shared>,
    launch: Arc<Launch>,
    agent_id: String,
    sandbox: PathBuf,
    /// Set when nobody wants the container any more.
    cancel: CancellationToken,
}

/// What images have brought.
struct Provisioned {
    root: Option<rootfs::Root>,
    /// Where the files of each volume are that is an image.
    volumes: Vec<(PathBuf, Volume)>,
}

impl Preparation {
    pub(super) fn of(run: &Run, cancel: CancellationToken) -> Self {
        Preparation {
            shared: run.shared.clone(),
            launch: run.launch.clone(),
            agent_id: run.agent_id.clone(),
            sandbox: run.sandbox.clone(),
            cancel,
        }
    }

    /// Makes everything but the processes. `None`: there are to be none.
    pub(super) async fn make(self) -> Result<Option<Spec>, String> {
        let keeper = self.shared.layout.keeper(&self.launch.container);
        let info = self.launch.container_info.as_ref();
        let root = match info.and_then(|it| it.mesos.as_ref()).and_then(|it| it.image.as_ref()) {
            Some(image) => Some(rootfs::provision(&self.shared, image, &keeper, None, &self.cancel).await?),
            None => None,
        };
        let mut volumes = Vec::new();
        for volume in info.map(|it| it.volumes.as_slice()).unwrap_or_default().iter().filter(|it| it.host_path.is_none()) {
            let Some(image) = &volume.image else { continue };
            let at = rootfs::provision(&self.shared, image, &keeper, Some(volumes.len()), &self.cancel).await?;
            volumes.push((at.path, volume.clone()));
        }
        let provisioned = Provisioned { root, volumes };
        let prepared = tokio::task::spawn_blocking(move || self.prepare(provisioned));
        prepared.await.map_err(|_| "preparing the container failed".to_owned())?
    }

    fn check_wanted(&self) -> Result<(), String> {
        if self.cancel.is_cancelled() { Err(DESTROYED.to_owned()) } else { Ok(()) }
    }

    fn prepare(&self, provisioned: Provisioned) -> Result<Option<Spec>, String> {
        let Provisioned { root, volumes: images } = provisioned;
        let (config, launch) = (&self.shared.config, &self.launch);
        if let Some(problem) = launch.container_info.as_ref().and_then(|it| unsupported(it, launch.container.parent().is_some())) {
            return Err(problem);
        }
        let owner = self.owner()?;
        let text = |error: io::Error| format!("Failed to make the sandbox: {error}");
        self.check_wanted()?;
        let open = Sandbox::make(&self.shared.layout.slaves(), &self.sandbox, owner.as_ref()).map_err(text)?;
        let open = open.with_volumes(self.persistent_volumes());
        match (launch.container.parent(), &launch.task) {
            (None, _) => sandbox::make_latest(&self.sandbox).map_err(text)?,
            (Some(_), Some(task)) => self.link_task(&task.task_id.value),
            (Some(_), None) => {}
        }
        if let Some(command) = launch.executor.command.as_ref().filter(|_| launch.task.is_none())
            && launch.command.is_none()
        {
            self.fetch(command, &open, owner.as_ref())?;
        }
        if let Some(command) = &launch.command {
            if let Some(name) = environment::unresolved_secret(command) {
                return Err(format!("The variable '{name}' is a secret by reference, and there is no secret resolver"));
            }
            self.fetch(command, &open, owner.as_ref())?;
        }
        self.check_wanted()?;
        let entrances = self.make_cgroup()?;
        let mut mounts = self.volumes(&open, &images, root.is_some(), owner.as_ref())?;
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
        let capabilities = Capabilities::of(config, linux)?;
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
            oom_score_adj: self.oom_score_adj(),
            bounding_capabilities: capabilities.bounding,
            effective_capabilities: capabilities.effective,
            no_new_privileges: config.isolates("linux/nnp"),
            interactive: launch.is_session(),
            sandboxes: Some(self.shared.layout.slaves()),
            patience: Some(patience(&self.shared)),
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

    fn fetch(&self, command: &mesos_proto::v1::CommandInfo, sandbox: &Sandbox, owner: Option<&User>) -> Result<(), String> {
        let fetched = self.shared.fetcher.fetch(&command.uris, sandbox, &self.sandbox, owner, &self.cancel);
        fetched.map_err(|error| error.to_string())
    }

    /// Makes the cgroup, and says which files lead into it.
    fn make_cgroup(&self) -> Result<Vec<PathBuf>, String> {
        let Some(cgroups) = &self.shared.cgroups else { return Ok(Vec::new()) };
        let is_limited = self.launch.has_own_limits();
        let cgroup = if is_limited { cgroups.of_limited(&self.launch.container) } else { cgroups.of(&self.launch.container) };
        let limits = is_limited.then(|| limits(&self.launch.resources, &self.launch.limits));
        let made = cgroup.create().and_then(|()| limits.map_or(Ok(()), |it| cgroup.limit(&it, true)));
        made.map_err(|error| format!("Failed to make the cgroup: {error}"))?;
        Ok(cgroup.entrances())
    }

    /// How much sooner than others a task goes that may have more memory than is its own. Executors, which others depend on, go as any other.
    fn oom_score_adj(&self) -> Option<i32> {
        let is_held = self.shared.cgroups.is_some() && self.shared.config.isolates("cgroups/mem");
        let is_task = self.launch.task.is_some() && self.launch.has_own_limits() && !self.launch.is_session();
        limits(&self.launch.resources, &self.launch.limits).oom_score_adj(crate::host::memory_total()?).filter(|_| is_held && is_task)
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
    fn volumes(&self, open: &Sandbox, images: &[(PathBuf, Volume)], has_root: bool, owner: Option<&User>) -> Result<Vec<Mount>, String> {
        let parent = self.launch.container.parent().map(|_| self.sandbox.ancestors().nth(2).unwrap_or(&self.sandbox).to_owned());
        let mut mounts = Vec::new();
        let all = self.launch.container_info.as_ref().map(|it| it.volumes.as_slice()).unwrap_or_default();
        let (secrets, others): (Vec<_>, Vec<_>) = all.iter().cloned().partition(is_secret);
        let others = others.into_iter().filter(|it| it.image.is_none() || it.host_path.is_some()).collect();
        let info = ContainerInfo { volumes: others, ..ContainerInfo::default() };
        for (host, inside, read_only) in volumes(Some(&info), &self.sandbox, parent.as_deref())? {
            if !host.exists() {
                self.make_host_path(&host, owner)?;
            }
            let target = self.inside(open, &inside, has_root, owner)?;
            // Without a root of its own a container sees what is at the same path already.
            if has_root || read_only || target != host {
                mounts.push(Mount { source: host, target, read_only });
            }
        }
        for (path, volume) in images {
            let target = self.inside(open, &volume.container_path, has_root, owner)?;
            mounts.push(Mount { source: path.clone(), target, read_only: volume.mode() == Mode::Ro });
        }
        for (number, secret) in secrets.iter().enumerate() {
            mounts.push(self.secret(open, number, secret, has_root, owner)?);
        }
        for it in self.launch.resources.iter().filter_map(PersistentVolume::of) {
            let volume = self.shared.layout.volume(&it);
            let PersistentVolume { inside, read_only, .. } = it;
            std::fs::create_dir_all(&volume).map_err(|error| error.to_string())?;
            if let Some(owner) = owner {
                drop(std::os::unix::fs::chown(&volume, Some(owner.uid), Some(owner.gid)));
            }
            if has_root || read_only {
                mounts.push(Mount { source: volume, target: self.inside(open, &inside, has_root, owner)?, read_only });
                continue;
            }
            let linked = open.make_link(self.relative(&inside)?, &volume, owner);
            linked.map_err(|error| format!("Failed to link a volume: {error}"))?;
        }
        Ok(mounts)
    }

    /// Where the persistent volumes are of the container, and of the one that it is nested in.
    fn persistent_volumes(&self) -> Vec<PathBuf> {
        let parent = self.launch.container.parent().and_then(|it| self.shared.running(&it));
        let of = |launch: &Launch| {
            let volumes = launch.resources.iter().filter_map(PersistentVolume::of);
            volumes.map(|it| self.shared.layout.volume(&it)).collect::<Vec<PathBuf>>()
        };
        of(&self.launch).into_iter().chain(parent.iter().flat_map(|it| of(it.launch()))).collect()
    }

    /// A directory of the host that a volume names and that is not there: only the agent's own are made, and those that it is told to make.
    fn make_host_path(&self, host: &Path, owner: Option<&User>) -> Result<(), String> {
        let slaves = self.shared.layout.slaves();
        let failed = |error: io::Error| format!("Failed to make the host path '{}' of a volume: {error}", host.display());
        // A task may have put a link into its sandbox.
        if let Ok(relative) = host.strip_prefix(&slaves) {
            let opened = Sandbox::open(&slaves, &slaves).map(|it| it.with_volumes(self.persistent_volumes()));
            return opened.and_then(|it| it.make_directory(relative, owner)).map_err(failed);
        }
        let made = self.shared.config.host_path_volume_force_creation.iter().find_map(|it| Some((it, host.strip_prefix(it).ok()?)));
        if let Some((above, relative)) = made.filter(|(_, relative)| !relative.as_os_str().is_empty()) {
            // Whoever may write there may have put a link there, too.
            let opened = std::fs::create_dir_all(above).and_then(|()| Sandbox::open(above, above));
            return opened.and_then(|it| it.make_directory(relative, owner)).map_err(failed);
        }
        if !host.starts_with(&self.shared.config.work_dir) {
            return Err(format!("The host path '{}' of a volume does not exist", host.display()));
        }
        std::fs::create_dir_all(host).map_err(failed)
    }

    /// A secret as a file that its owner alone reads, on the disk where the agent has what it knows of containers.
    fn secret(&self, open: &Sandbox, number: usize, volume: &Volume, has_root: bool, owner: Option<&User>) -> Result<Mount, String> {
        let inside = &volume.container_path;
        let failed = |error: io::Error| format!("Failed to make the secret '{inside}': {error}");
        let secret = volume.source.as_ref().and_then(|it| it.secret.as_ref());
        let Some(value) = secret.and_then(|it| it.value.as_ref()) else {
            return Err(format!("The volume '{inside}' is a secret by reference, and there is no secret resolver"));
        };
        let directory = self.shared.layout.keeper(&self.launch.container).join(SECRETS);
        sandbox::make_private(&directory).map_err(failed)?;
        let source = directory.join(number.to_string());
        keeper::write_whole(&source, &value.data).map_err(failed)?;
        std::fs::set_permissions(&source, std::os::unix::fs::PermissionsExt::from_mode(0o400)).map_err(failed)?;
        if let Some(owner) = owner {
            std::os::unix::fs::chown(&source, Some(owner.uid), Some(owner.gid)).map_err(failed)?;
        }
        let target = if inside.starts_with('/') {
            if !has_root && !Path::new(inside).exists() {
                return Err(format!("The container path '{inside}' of a secret does not exist on the host"));
            }
            PathBuf::from(inside)
        } else if has_root {
            Path::new(&self.shared.config.sandbox_directory).join(self.relative(inside)?)
        } else {
            let relative = self.relative(inside)?;
            open.make_file(relative, owner).map_err(failed)?;
            self.sandbox.join(relative)
        };
        Ok(Mount { source, target, read_only: true })
    }

    /// A path of a volume as the container sees it; those that are not absolute are in the sandbox.
    fn inside(&self, open: &Sandbox, path: &str, has_root: bool, owner: Option<&User>) -> Result<PathBuf, String> {
        if path.starts_with('/') {
            return Ok(PathBuf::from(path));
        }
        let relative = self.relative(path)?;
        if has_root {
            return Ok(Path::new(&self.shared.config.sandbox_directory).join(relative));
        }
        open.make_directory(relative, owner).map_err(|error| format!("Failed to make the volume path '{path}': {error}"))?;
        Ok(self.sandbox.join(relative))
    }

    /// A path that leads nowhere but into the sandbox.
    fn relative<'a>(&self, path: &'a str) -> Result<&'a Path, String> {
        let is_inside = sandbox::below(&self.sandbox, path).is_some();
        if is_inside { Ok(Path::new(path)) } else { Err(format!("Volume path '{path}' leads out of the sandbox")) }
    }
}

/// In the directory of a container's keeper: its secrets.
const SECRETS: &str = "secrets";

fn is_secret(volume: &Volume) -> bool {
    volume.host_path.is_none() && volume.source.as_ref().is_some_and(|it| it.r#type() == source::Type::Secret)
}

/// What a container asks for and would not get here. Without a word it would run on the host's network, write into the sandbox in place of its
/// volume, or run unconfined.
fn unsupported(info: &ContainerInfo, is_nested: bool) -> Option<String> {
    use mesos_proto::v1::mount_propagation::Mode as Propagation;
    use mesos_proto::v1::volume::source::Type;
    // Those that are nested share the network of what they are nested in.
    if let Some(name) = info.network_infos.iter().find_map(|it| it.name.as_deref()).filter(|_| !is_nested) {
        return Some(format!("Unknown CNI network '{name}'"));
    }
    let external = |it: &Type| matches!(it, Type::DockerVolume | Type::CsiVolume);
    if let Some(kind) = info.volumes.iter().filter_map(|it| Some(it.source.as_ref()?.r#type())).find(external) {
        return Some(format!("Volumes of type {} are not supported by the Mesos containerizer", kind.as_str_name()));
    }
    let propagates = |it: &Volume| {
        let propagation = it.source.as_ref().and_then(|it| it.host_path.as_ref()).and_then(|it| it.mount_propagation.as_ref());
        propagation.is_some_and(|it| it.mode() == Propagation::Bidirectional)
    };
    if let Some(volume) = info.volumes.iter().find(|it| propagates(it)) {
        return Some(format!(
            "What is mounted in the volume '{}' cannot be seen by the host: BIDIRECTIONAL is not supported",
            volume.container_path
        ));
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
