//! Where things of containers are on this host. The layout of sandboxes is Mesos's: clients and people know it.

use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use mesos_proto::v1::Resource;

use crate::keeper::User;
use crate::table::Launch;
use crate::words::ContainerKey;

mod inside;

pub use inside::Sandbox;
pub(crate) use inside::{by_descriptor, named};

/// The agent's directories.
#[derive(Clone, Debug)]
pub struct Layout {
    work_dir: PathBuf,
    runtime_dir: PathBuf,
}

impl Layout {
    /// Below these.
    pub fn new(work_dir: &Path, runtime_dir: &Path) -> Self {
        Layout { work_dir: work_dir.to_owned(), runtime_dir: runtime_dir.to_owned() }
    }

    /// Sandboxes of all executors of this agent, whatever its id was.
    pub fn slaves(&self) -> PathBuf {
        self.work_dir.join("slaves")
    }

    /// All sandboxes of an executor.
    pub fn executor(&self, agent_id: &str, framework: &str, executor: &str) -> PathBuf {
        self.slaves().join(agent_id).join("frameworks").join(framework).join("executors").join(executor)
    }

    /// The sandbox of a container of an executor.
    pub fn sandbox(&self, agent_id: &str, framework: &str, executor: &str, container: &ContainerKey) -> PathBuf {
        let mut path = self.executor(agent_id, framework, executor).join("runs").join(container.outermost().as_str());
        for nested in container.as_str().split('.').skip(1) {
            path.push("containers");
            path.push(nested);
        }
        path
    }

    /// The same, for what is to be launched.
    pub fn sandbox_of(&self, agent_id: &str, launch: &Launch) -> PathBuf {
        let framework = launch.framework.id.as_ref().map(|it| it.value.as_str()).unwrap_or_default();
        self.sandbox(agent_id, framework, &launch.executor.executor_id.value, &launch.container)
    }

    /// What keepers know.
    pub fn keepers(&self) -> PathBuf {
        self.runtime_dir.join("containers")
    }

    /// What the keeper of a container knows.
    pub fn keeper(&self, container: &ContainerKey) -> PathBuf {
        self.keepers().join(container.as_str())
    }

    /// Where files are made before they are moved into a sandbox: on the disk of the sandboxes.
    pub fn drafts(&self) -> PathBuf {
        self.work_dir.join("drafts")
    }

    /// Where programs that run as the user of a task leave the files that they fetch.
    pub fn handover(&self) -> PathBuf {
        self.work_dir.join("fetched")
    }

    /// Held locked while the agent lives.
    pub fn agent_lock(&self) -> PathBuf {
        self.runtime_dir.join("agent.lock")
    }

    /// What the process knows that looks after Docker's containers while the agent is away.
    pub fn docker_absence(&self) -> PathBuf {
        self.runtime_dir.join("docker")
    }

    /// What the agent remembers.
    pub fn meta(&self) -> PathBuf {
        self.work_dir.join("meta")
    }

    /// Where a persistent volume is. Paths of disks that are not absolute are below the work directory.
    pub fn volume(&self, volume: &PersistentVolume) -> PathBuf {
        let of_role = |root: &Path| root.join("volumes/roles").join(&volume.role).join(&volume.id);
        match &volume.disk {
            Disk::Root => of_role(&self.work_dir),
            Disk::Path(root) => of_role(&self.work_dir.join(root)),
            Disk::Mount(root) => self.work_dir.join(root),
        }
    }
}

/// A disk that a resource is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disk {
    /// That of the work directory.
    Root,
    /// One that volumes share, by its directory.
    Path(PathBuf),
    /// One that is a volume as a whole, by where it is mounted.
    Mount(PathBuf),
}

/// Storage that outlives its tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersistentVolume {
    /// Whose it is.
    pub role: String,
    /// Its name within the role.
    pub id: String,
    /// Where it is.
    pub disk: Disk,
    /// Path in the container.
    pub inside: String,
    /// Whether the container may only read.
    pub read_only: bool,
}

impl PersistentVolume {
    /// The volume that a resource is, if it is one.
    pub fn of(resource: &Resource) -> Option<Self> {
        let disk = resource.disk.as_ref()?;
        let (id, volume) = (&disk.persistence.as_ref()?.id, disk.volume.as_ref()?);
        let role = resource.reservations.last().and_then(|it| it.role.clone()).or_else(|| resource.role.clone());
        let source = disk.source.as_ref();
        let path = source.and_then(|it| it.path.as_ref()?.root.as_deref());
        let mount = source.and_then(|it| it.mount.as_ref()?.root.as_deref());
        Some(PersistentVolume {
            role: role.unwrap_or_else(|| "*".to_owned()),
            id: id.clone(),
            disk: match (path, mount) {
                (_, Some(root)) => Disk::Mount(root.into()),
                (Some(root), None) => Disk::Path(root.into()),
                (None, None) => Disk::Root,
            },
            inside: volume.container_path.clone(),
            read_only: volume.mode() == mesos_proto::v1::volume::Mode::Ro,
        })
    }
}

/// Makes a directory into which nobody else looks: what the agent knows of containers has secrets of their owners in it.
///
/// # Errors
/// When the file system refuses.
pub fn make_private(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}

/// Removes what is in a directory that itself stays: something is mounted there.
///
/// # Errors
/// When the file system refuses.
pub fn empty(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Who a container runs as, and owns its sandbox.
///
/// # Errors
/// When the host has no such user.
pub fn user(name: &str) -> Result<User, String> {
    let found = nix::unistd::User::from_name(name).map_err(|error| error.to_string())?;
    let found = found.ok_or_else(|| format!("Failed to get the user {name:?}: there is no such user on this host"))?;
    let text = std::ffi::CString::new(name).map_err(|_| "a NUL byte in a user's name".to_owned())?;
    let groups = nix::unistd::getgrouplist(&text, found.gid).map_err(|error| error.to_string())?;
    Ok(User { uid: found.uid.as_raw(), gid: found.gid.as_raw(), groups: groups.into_iter().map(nix::unistd::Gid::as_raw).collect() })
}

/// Points `latest` beside a run at it.
pub fn make_latest(run: &Path) -> io::Result<()> {
    let (Some(runs), Some(name)) = (run.parent(), run.file_name()) else { return Ok(()) };
    let draft = runs.join(".latest");
    drop(std::fs::remove_file(&draft));
    symlink(name, &draft)?;
    std::fs::rename(draft, runs.join("latest"))
}

/// The link `tasks/<task>` in the sandbox of a default executor: to the sandbox of the task's container, as Mesos's default executor makes it.
///
/// # Errors
/// When the file system refuses, or something else is in the way.
pub fn link_task(executor: &Path, task: &str, container: &Path) -> io::Result<()> {
    use nix::fcntl::{OFlag, open};
    use nix::sys::stat::Mode;
    use nix::unistd::symlinkat;

    let target = container.strip_prefix(executor).map_err(|_| io::Error::other("the task is not in its executor's sandbox"))?;
    let tasks = executor.join(TASKS);
    match std::fs::create_dir(&tasks) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // The tasks may write there: a link that one of them has made is not followed.
    let tasks = open(&tasks, OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    match symlinkat(&Path::new("..").join(target), &tasks, task) {
        // By an earlier agent, which was killed before it could make the rest.
        Ok(()) | Err(nix::errno::Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The directory of these links.
pub const TASKS: &str = "tasks";

/// A path below a directory that leads nowhere else; `None` where it would.
pub fn below(directory: &Path, relative: &str) -> Option<PathBuf> {
    let relative = Path::new(relative);
    let plain = relative.components().all(|it| matches!(it, std::path::Component::Normal(_) | std::path::Component::CurDir));
    plain.then(|| directory.join(relative))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sandboxes_are_where_mesos_has_them() {
        let layout = Layout::new(Path::new("/w"), Path::new("/r"));
        let nested = ContainerKey::root("c").nested("n");
        assert_eq!(layout.sandbox("S0", "F", "E", &nested), Path::new("/w/slaves/S0/frameworks/F/executors/E/runs/c/containers/n"));
    }

    #[test]
    fn persistent_volumes_are_on_the_disk_of_their_resource() {
        use mesos_proto::v1::resource::disk_info::{Persistence, Source, source};
        use mesos_proto::v1::resource::{DiskInfo, ReservationInfo};

        let layout = Layout::new(Path::new("/w"), Path::new("/r"));
        let at = |source: Option<Source>| {
            let persistence = Some(Persistence { id: "v".to_owned(), ..Persistence::default() });
            let volume = Some(mesos_proto::v1::Volume { container_path: "data".to_owned(), ..Default::default() });
            let resource = Resource {
                reservations: vec![ReservationInfo { role: Some("db".to_owned()), ..ReservationInfo::default() }],
                disk: Some(DiskInfo { persistence, volume, source }),
                ..Resource::default()
            };
            layout.volume(&PersistentVolume::of(&resource).unwrap())
        };
        let path = |root: &str| Source { path: Some(source::Path { root: Some(root.to_owned()) }), ..Source::default() };
        let mount = |root: &str| Source { mount: Some(source::Mount { root: Some(root.to_owned()) }), ..Source::default() };
        assert_eq!(at(None), Path::new("/w/volumes/roles/db/v"));
        assert_eq!(at(Some(path("/mnt/a"))), Path::new("/mnt/a/volumes/roles/db/v"));
        assert_eq!(at(Some(path("disks/a"))), Path::new("/w/disks/a/volumes/roles/db/v"));
        assert_eq!(at(Some(mount("/mnt/b"))), Path::new("/mnt/b"));
    }

    #[test]
    fn a_destroyed_mount_is_emptied_and_stays() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("a/b")).unwrap();
        std::fs::write(directory.path().join("c"), "").unwrap();
        empty(directory.path()).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn tasks_of_a_default_executor_are_found_by_their_ids() {
        let directory = tempfile::tempdir().unwrap();
        let executor = directory.path().join("executor");
        let container = executor.join("containers/n");
        Sandbox::make(directory.path(), &container, None).unwrap();
        for _ in 0..2 {
            link_task(&executor, "t", &container).unwrap();
        }
        assert_eq!(std::fs::read_link(executor.join("tasks/t")).unwrap(), Path::new("../containers/n"));
        assert!(executor.join("tasks/t/stdout").exists());
        link_task(&executor, "t", directory.path()).unwrap_err();
        // A task would have others written elsewhere.
        let elsewhere = directory.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        std::fs::remove_dir_all(executor.join("tasks")).unwrap();
        symlink(&elsewhere, executor.join("tasks")).unwrap();
        link_task(&executor, "t", &container).unwrap_err();
        assert!(!elsewhere.join("t").is_symlink());
    }

    #[test]
    fn a_sandbox_has_logs_and_is_the_latest() {
        let directory = tempfile::tempdir().unwrap();
        for run in ["first", "second"] {
            let path = directory.path().join("runs").join(run);
            Sandbox::make(directory.path(), &path, None).unwrap();
            make_latest(&path).unwrap();
        }
        assert!(directory.path().join("runs/latest/stdout").exists());
        assert_eq!(std::fs::read_link(directory.path().join("runs/latest")).unwrap(), Path::new("second"));
        assert_eq!(below(Path::new("/s"), "a/b"), Some(PathBuf::from("/s/a/b")));
        for hostile in ["../x", "/etc", "a/../../x"] {
            assert_eq!(below(Path::new("/s"), hostile), None);
        }
    }
}
