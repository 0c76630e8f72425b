//! Cgroups of containers, in whichever version the host has: made, limited, read, emptied and removed.
//!
//! Version 1: `<hierarchy>/<controller>/<root>/<container>`; a nested container is in its outermost one's, but for the freezer, where it has its own
//! at `<root>/<container>/<root>/<nested>`: that one tells its processes. One with limits of its own has such a one for CPU and memory, too. Version 2: `<hierarchy>/<root>/<container>/leaf` holds the processes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::keeper::members;
use crate::words::ContainerKey;

mod devices;
mod limits;
mod missing;
mod statistics;
#[cfg(test)]
mod tests;

pub use limits::Limits;
pub use statistics::Usage;

/// How long a killed process may still be counted by its cgroup: it is not listed any more, and on a busy machine waits for its turn to leave.
const LEAVING: Duration = Duration::from_secs(5);

/// How limits are set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether containers are held to their CPUs.
    pub cpu: bool,
    /// Whether they are held to their memory.
    pub memory: bool,
    /// Whether the share of CPUs is a ceiling, too.
    pub enable_cfs: bool,
    /// Whether the memory limit is one of swap, too.
    pub limit_swap: bool,
    /// Devices that may be opened: `None` for all.
    pub devices: Option<Vec<String>>,
}

/// The host's cgroups.
#[derive(Clone, Debug)]
pub struct Cgroups {
    version: Version,
    root: String,
    settings: Settings,
}

#[derive(Clone, Debug)]
enum Version {
    /// Where each controller is mounted.
    V1(BTreeMap<&'static str, PathBuf>),
    V2(PathBuf),
}

/// Controllers that are used where they are, by isolator.
const V1_CONTROLLERS: [(&str, &str); 9] = [
    ("freezer", ""),
    ("systemd", ""),
    ("cpu", "cgroups/cpu"),
    ("cpuacct", "cgroups/cpu"),
    ("memory", "cgroups/mem"),
    ("pids", "cgroups/pids"),
    ("blkio", "cgroups/blkio"),
    ("cpuset", "cgroups/cpuset"),
    ("devices", "cgroups/devices"),
];

/// What every container may open, as in Mesos.
const DEVICES: [&str; 12] = [
    "c *:* m",
    "b *:* m",
    "c 5:1 rwm",
    "c 4:0 rwm",
    "c 4:1 rwm",
    "c 136:* rwm",
    "c 5:2 rwm",
    "c 10:200 rwm",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 5:0 rwm",
    "c 1:9 rwm",
];
const MORE_DEVICES: [&str; 2] = ["c 1:8 rwm", "c 1:7 rwm"];

/// What every container may open, and what is allowed beside.
fn allowed_devices(more: &[String]) -> impl Iterator<Item = &str> {
    DEVICES.iter().chain(&MORE_DEVICES).copied().chain(more.iter().map(String::as_str))
}

impl Cgroups {
    /// Looks which version is mounted. `None` where containers cannot have cgroups: they are told by their sessions then, without limits.
    pub fn detect(hierarchy: &Path, root: &str, isolates: impl Fn(&str) -> bool, settings: Settings) -> Option<Self> {
        let version = if hierarchy.join("cgroup.controllers").exists() {
            Version::V2(hierarchy.to_owned())
        } else {
            let wanted = V1_CONTROLLERS.iter().filter(|(_, isolator)| isolator.is_empty() || isolates(isolator));
            let mounted: BTreeMap<&'static str, PathBuf> = wanted
                .map(|(controller, _)| (*controller, hierarchy.join(controller)))
                .filter(|(_, path)| path.join("cgroup.procs").exists())
                .collect();
            if !mounted.contains_key("freezer") {
                return None;
            }
            Version::V1(mounted)
        };
        let it = Cgroups { version, root: root.to_owned(), settings };
        // Whether it may be written is seen by writing.
        it.make_root().ok()?;
        Some(it)
    }

    /// 1 or 2.
    pub fn version(&self) -> u8 {
        match self.version {
            Version::V1(_) => 1,
            Version::V2(_) => 2,
        }
    }

    fn make_root(&self) -> io::Result<()> {
        match &self.version {
            Version::V1(mounted) => {
                for (controller, path) in mounted {
                    make(&path.join(&self.root))?;
                    if *controller == "cpuset" {
                        copy_cpuset(&path.join(&self.root))?;
                    }
                }
            }
            Version::V2(mount) => {
                enable_controllers(mount);
                make(&mount.join(&self.root))?;
                enable_controllers(&mount.join(&self.root));
            }
        }
        Ok(())
    }

    /// Where keepers are: beside the containers, and not in the cgroup of the agent, which an init system may empty.
    pub fn keepers(&self) -> Vec<PathBuf> {
        let paths: Vec<PathBuf> = match &self.version {
            Version::V1(mounted) => {
                let tells = mounted.iter().filter(|(controller, _)| matches!(**controller, "freezer" | "systemd"));
                tells.map(|(_, path)| path.join(&self.root).join("keepers")).collect()
            }
            Version::V2(mount) => vec![mount.join(&self.root).join("keepers")],
        };
        paths.into_iter().filter(|it| make(it).is_ok()).map(|it| it.join("cgroup.procs")).collect()
    }

    /// The cgroup of a container, made or not.
    pub fn of(&self, container: &ContainerKey) -> Cgroup {
        self.cgroup(container, |path| path.is_dir())
    }

    /// The cgroup of a container that is held to limits of its own, though it may be nested in another one.
    pub fn of_limited(&self, container: &ContainerKey) -> Cgroup {
        self.cgroup(container, |_| true)
    }

    /// `has_own`: whether a nested container is limited by itself, by where that would be.
    fn cgroup(&self, container: &ContainerKey, has_own: impl Fn(&Path) -> bool) -> Cgroup {
        let outermost = container.outermost();
        let mut nested = PathBuf::from(&self.root);
        for (at, part) in container.as_str().split('.').enumerate() {
            if at > 0 {
                nested.push(&self.root);
            }
            nested.push(part);
        }
        let shared = Path::new(&self.root).join(outermost.as_str());
        let is_nested = container.parent().is_some();
        let mut own = BTreeSet::new();
        let paths = match &self.version {
            Version::V1(mounted) => mounted
                .iter()
                .map(|(controller, path)| {
                    let at = path.join(&nested);
                    let is_own = match *controller {
                        "freezer" | "systemd" => true,
                        // They are often mounted together: a process is in both, or in neither.
                        "cpu" | "cpuacct" | "memory" => !is_nested || has_own(&at),
                        _ => !is_nested,
                    };
                    if is_own {
                        own.insert(*controller);
                    }
                    (*controller, if is_own { at } else { path.join(&shared) })
                })
                .collect(),
            Version::V2(mount) => {
                own.insert("");
                BTreeMap::from([("", mount.join(nested))])
            }
        };
        Cgroup { is_v2: self.version() == 2, is_nested, paths, own, settings: self.settings.clone() }
    }

    /// The cgroup that a process is in: for containers that somebody else made. To be read, not to be changed.
    pub fn of_process(&self, pid: u32) -> Option<Cgroup> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let mut paths = BTreeMap::new();
        for line in text.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(names), Some(path)) = (parts.next(), parts.next()) else { continue };
            let path = path.trim_start_matches('/');
            match &self.version {
                Version::V2(mount) if names.is_empty() => drop(paths.insert("", mount.join(path))),
                Version::V2(_) => {}
                Version::V1(mounted) => {
                    let of_line =
                        mounted.iter().filter(|(controller, _)| names.split(',').any(|it| it.trim_start_matches("name=") == **controller));
                    paths.extend(of_line.map(|(controller, mount)| (*controller, mount.join(path))));
                }
            }
        }
        Some(Cgroup { is_v2: self.version() == 2, is_nested: true, paths, own: BTreeSet::new(), settings: self.settings.clone() })
    }

    /// Containers that have cgroups here, whoever made them.
    pub fn containers(&self) -> Vec<ContainerKey> {
        let root = match &self.version {
            Version::V1(mounted) => mounted.get("freezer").map(|it| it.join(&self.root)),
            Version::V2(mount) => Some(mount.join(&self.root)),
        };
        let entries = root.and_then(|it| std::fs::read_dir(it).ok());
        let directories = entries.into_iter().flatten().flatten().filter(|it| it.file_type().is_ok_and(|it| it.is_dir()));
        let names = directories.filter_map(|it| it.file_name().into_string().ok()).filter(|it| it != "keepers");
        names.map(|it| ContainerKey::root(&it)).collect()
    }
}

/// The cgroup of one container: one directory, or one per controller.
#[derive(Clone, Debug)]
pub struct Cgroup {
    is_v2: bool,
    is_nested: bool,
    paths: BTreeMap<&'static str, PathBuf>,
    /// Controllers whose directory is not that of what it is nested in.
    own: BTreeSet<&'static str>,
    settings: Settings,
}

impl Cgroup {
    /// Makes it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn create(&self) -> io::Result<()> {
        for (controller, path) in &self.paths {
            if self.is_v2 {
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent)?;
                    enable_controllers(parent);
                }
                make(path)?;
                enable_controllers(path);
                make(&path.join("leaf"))?;
                if let Some(allowed) = self.settings.devices.as_ref().filter(|_| !self.is_nested) {
                    devices::limit(path, allowed_devices(allowed))?;
                }
                continue;
            }
            std::fs::create_dir_all(path)?;
            match *controller {
                "cpuset" => copy_cpuset(path)?,
                "devices" if !self.is_nested => self.limit_devices(path)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn limit_devices(&self, path: &Path) -> io::Result<()> {
        let Some(allowed) = &self.settings.devices else { return Ok(()) };
        write(&path.join("devices.deny"), "a")?;
        for entry in allowed_devices(allowed) {
            write(&path.join("devices.allow"), entry)?;
        }
        Ok(())
    }

    /// Files that a process writes its pid to in order to be in the container.
    pub fn entrances(&self) -> Vec<PathBuf> {
        self.paths.values().map(|it| if self.is_v2 { it.join("leaf/cgroup.procs") } else { it.join("cgroup.procs") }).collect()
    }

    /// The file that tells all processes.
    pub fn members_file(&self) -> PathBuf {
        let path = self.paths.get(if self.is_v2 { "" } else { "freezer" }).cloned().unwrap_or_default();
        if self.is_v2 { path.join("leaf/cgroup.procs") } else { path.join("cgroup.procs") }
    }

    /// Processes of it and of what is nested in it.
    pub fn pids(&self) -> Vec<i32> {
        let mut pids = Vec::new();
        let mut directories = vec![self.members_file().parent().map(Path::to_owned).unwrap_or_default()];
        if self.is_v2 {
            directories = self.paths.values().cloned().collect();
        }
        while let Some(directory) = directories.pop() {
            pids.extend(members(&directory.join("cgroup.procs")));
            directories.extend(children(&directory));
        }
        pids
    }

    /// How often the kernel killed one of its processes for want of memory. `is_limited`: it has a limit of its own, and only what was killed by that
    /// counts: not what a container that is nested in it had too little for, or the whole machine.
    pub fn oom_kills(&self, is_limited: bool) -> u64 {
        let count = |path: &Path, file: &str, name: &str| -> Option<u64> {
            let text = std::fs::read_to_string(path.join(file)).ok()?;
            text.lines().find_map(|it| it.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
        };
        match (self.paths.get(""), self.paths.get("memory")) {
            // The events of version 2 count those of all below; the local ones say whether this limit was reached. Kernels before 5.2 have none.
            (Some(path), _) if is_limited && count(path, "memory.events.local", "oom") == Some(0) => 0,
            (Some(path), _) => count(path, "memory.events", "oom_kill").unwrap_or(0),
            (None, Some(path)) => count(path, "memory.oom_control", "oom_kill").unwrap_or(0),
            (None, None) => 0,
        }
    }

    /// What it has used.
    pub fn usage(&self) -> Usage {
        statistics::read(self.is_v2, &self.paths)
    }

    /// Sends a signal to every process.
    pub fn signal(&self, signal: Signal) {
        for pid in self.pids() {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Kills every process, those included that are being made meanwhile. Blocks, for at most this long. Whether nothing is left.
    pub fn kill_all(&self, within: Duration) -> bool {
        let begun = Instant::now();
        if let Some(path) = self.paths.get("") {
            drop(write(&path.join("cgroup.kill"), "1"));
        }
        let freezer = self.paths.get("freezer").map(|it| it.join("freezer.state"));
        loop {
            let pids = self.pids();
            if pids.is_empty() {
                return true;
            }
            if begun.elapsed() > within {
                return false;
            }
            // What is frozen cannot fork, and dies when it is thawed.
            if let Some(state) = &freezer {
                drop(write(state, "FROZEN"));
            }
            self.signal(Signal::SIGKILL);
            if let Some(state) = &freezer {
                drop(write(state, "THAWED"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Removes it when it is empty. Blocks, for at most [`LEAVING`].
    ///
    /// # Errors
    /// When it is not, or the kernel refuses.
    pub fn remove(&self) -> io::Result<()> {
        let until = Instant::now() + LEAVING;
        for (controller, path) in &self.paths {
            if !self.own.contains(controller) {
                continue;
            }
            remove_tree(path, until)?;
        }
        Ok(())
    }

    /// Where a controller's files are.
    pub fn path(&self, controller: &str) -> Option<&Path> {
        self.paths.get(if self.is_v2 { "" } else { controller }).map(PathBuf::as_path)
    }
}

fn remove_tree(path: &Path, until: Instant) -> io::Result<()> {
    for child in children(path) {
        remove_tree(&child, until)?;
    }
    loop {
        match std::fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => return other,
        }
    }
}

fn children(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|it| it.file_type().is_ok_and(|it| it.is_dir())).map(|it| it.path()).collect()
}

fn make(path: &Path) -> io::Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    std::fs::write(path, text).map_err(|error| io::Error::new(error.kind(), format!("writing {text} to {}: {error}", path.display())))
}

fn read_number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A cpuset without cpus or memory nodes takes no process.
fn copy_cpuset(path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if std::fs::read_to_string(path.join(file)).is_ok_and(|it| it.trim().is_empty()) {
            write(&path.join(file), std::fs::read_to_string(parent.join(file))?.trim())?;
        }
    }
    Ok(())
}

/// For the children of this cgroup. What the kernel refuses (a controller of version 1) is not used.
fn enable_controllers(path: &Path) {
    let available = std::fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default();
    for controller in available.split_whitespace().filter(|it| matches!(*it, "cpu" | "cpuset" | "memory" | "pids" | "io")) {
        drop(std::fs::write(path.join("cgroup.subtree_control"), format!("+{controller}")));
    }
}
