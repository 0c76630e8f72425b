//! What containers use, read from their cgroup's files: a dozen small reads each, and no daemon has to be asked. Knows v1, v2 and both at once.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use proto::probe::v1::Pressure;

use crate::procfs::{Procfs, read_into};

pub mod files;
mod mounts;

use files::File;
pub use mounts::Mounts;

/// Limits are read again in one round of this many: they hardly ever change, and finding them takes a look at every cgroup above.
const LIMIT_ROUNDS: u64 = 4;

/// Levels above a cgroup that are looked at for limits.
const LEVELS_MAX: usize = 16;

/// What a cgroup uses, with all cgroups below it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU time so far; `None` when the kernel does not tell.
    pub cpu_nanos: Option<u64>,
    /// CPUs that it may use, by the narrowest limit on it or above it; 0 when there is none.
    pub cpu_limit: f64,
    /// Enforcement periods of its CPU limit so far in which it wanted to run.
    pub periods: u64,
    /// Of these, periods in which it was held back.
    pub throttled_periods: u64,
    /// How long it was held back.
    pub throttled_nanos: u64,
    /// Memory with page cache; `None` when the kernel does not tell.
    pub memory_bytes: Option<u64>,
    /// Page cache in it that can be given back; not tmpfs and shared memory, which cannot.
    pub cache_bytes: u64,
    /// The narrowest limit on it or above it; 0 when there is none.
    pub memory_limit_bytes: u64,
    /// Processes that were ended because memory ran out. In v1 those of this very cgroup.
    pub oom_kills: u64,
    /// Bytes from devices.
    pub io_read_bytes: u64,
    /// Bytes to devices.
    pub io_written_bytes: u64,
    /// Processes and their threads.
    pub task_count: u32,
    /// Waiting for CPU, memory and devices.
    pub pressure: Option<Pressure>,
}

impl Usage {
    /// Memory without page cache that can be given back.
    pub fn own_memory_bytes(&self) -> u64 {
        self.memory_bytes.unwrap_or(0).saturating_sub(self.cache_bytes)
    }
}

/// Reads usage, and remembers where each container's files are.
#[derive(Debug)]
pub struct CgroupReader {
    mounts: Mounts,
    known: HashMap<String, Known>,
    stacked: Vec<(u64, u64)>,
    round: u64,
    buffer: Vec<u8>,
    path: PathBuf,
}

/// The files of a container.
#[derive(Debug)]
struct Known {
    pid: u32,
    directories: Vec<PathBuf>,
    /// Place in `directories`, and file.
    files: Vec<(usize, File)>,
    limits: Limits,
}

/// Limits that are not among the files that are read every round.
#[derive(Clone, Copy, Debug, Default)]
struct Limits {
    cpu: f64,
    /// `None` for v1, whose `memory.stat` has the narrowest.
    memory_bytes: Option<u64>,
}

impl CgroupReader {
    /// A reader of the given hierarchies.
    pub fn new(mounts: Mounts) -> Self {
        CgroupReader {
            mounts,
            known: HashMap::new(),
            stacked: Vec::new(),
            round: 0,
            buffer: Vec::with_capacity(8 * 1024),
            path: PathBuf::new(),
        }
    }

    /// Begins a round. `stacked` are the devices that keep their data on other devices, in order: bytes through them are counted on those.
    pub fn begin_round(&mut self, stacked: Vec<(u64, u64)>) {
        self.stacked = stacked;
        self.round += 1;
    }

    /// What the container whose first process is `pid` uses, by its id or by the path of its own cgroup; `None` when it is gone or its cgroup has no such files. A cgroup that vanishes while
    /// it is read uses nothing that could be told: half of a sample would be a dip to zero.
    pub fn usage(&mut self, procfs: &Procfs, id: &str, own_path: Option<&str>, pid: u32) -> Option<Usage> {
        let mut known = match self.known.remove(id).filter(|known| known.pid == pid) {
            Some(known) => known,
            None => self.find(procfs, Own { id, path: own_path }, pid)?,
        };
        if (self.round + u64::from(pid)).is_multiple_of(LIMIT_ROUNDS) {
            known.limits = self.limits(&known);
        }
        let usage = self.read(&known)?;
        self.known.insert(id.to_owned(), known);
        (usage.cpu_nanos.is_some() || usage.memory_bytes.is_some()).then_some(usage)
    }

    /// Forgets containers that are not named.
    pub fn keep_only<'a>(&mut self, ids: impl Iterator<Item = &'a str>) {
        let ids: BTreeSet<&str> = ids.collect();
        self.known.retain(|id, _| ids.contains(id.as_str()));
    }

    /// Finds the files of a container by what `/proc/<pid>/cgroup` says.
    fn find(&mut self, procfs: &Procfs, own: Own<'_>, pid: u32) -> Option<Known> {
        let paths = procfs.cgroups(pid).ok()?;
        let mut known = Known { pid, directories: Vec::new(), files: Vec::new(), limits: Limits::default() };
        let v2 = self.directory(&paths, "", own).filter(|it| it.is_dir());
        let controllers: [(&str, &[File], &[File]); 5] = [
            ("cpuacct", &[File::CpuUsageV1], &[File::CpuStatV2]),
            ("cpu", &[File::CpuStatV1], &[]),
            (
                "memory",
                &[File::MemoryUsageV1, File::MemoryStatV1, File::OomV1],
                &[File::MemoryUsageV2, File::MemoryStatV2, File::MemoryEventsV2],
            ),
            ("blkio", &[File::IoRecursiveV1, File::IoV1], &[File::IoV2]),
            ("pids", &[File::Tasks], &[File::Tasks]),
        ];
        for (controller, of_v1, of_v2) in controllers {
            match self.directory(&paths, controller, own) {
                Some(directory) => known.add(directory, of_v1),
                None => v2.iter().for_each(|directory| known.add(directory.clone(), of_v2)),
            }
        }
        if known.files.iter().any(|(_, file)| *file == File::IoRecursiveV1) {
            known.files.retain(|(_, file)| *file != File::IoV1);
        }
        // Pressure is told by v2 alone, also beside v1 controllers.
        v2.iter().for_each(|directory| known.add(directory.clone(), &[File::CpuPressure, File::MemoryPressure, File::IoPressure]));
        known.limits = self.limits(&known);
        Some(known)
    }

    /// Directory of a container in the hierarchy of a controller; the empty name is v2's. The pid may be of another process by now: only paths
    /// that name the container are believed. A process may be in a cgroup below its container's: the container's is taken.
    fn directory(&self, paths: &[(String, String)], controller: &str, own: Own<'_>) -> Option<PathBuf> {
        let (_, path) = paths.iter().find(|(controllers, _)| controllers.split(',').any(|it| it == controller))?;
        let end = own.end_in(path)?;
        let point = if controller.is_empty() { self.mounts.unified.as_ref()? } else { self.mounts.controllers.get(controller)? };
        self.mounts.directory(point, &path[..end])
    }

    fn read(&mut self, known: &Known) -> Option<Usage> {
        let mut usage = Usage { cpu_limit: known.limits.cpu, ..Usage::default() };
        for &(directory, file) in &known.files {
            let directory = known.directories.get(directory)?;
            read_file(&mut self.path, directory, file.name(), &mut self.buffer).ok()?;
            file.apply(&self.buffer, |device| self.stacked.binary_search(&device).is_ok(), &mut usage);
        }
        if let Some(limit) = known.limits.memory_bytes {
            usage.memory_limit_bytes = limit;
        }
        Some(usage)
    }

    /// The narrowest limits on a container and on the cgroups above it.
    fn limits(&mut self, known: &Known) -> Limits {
        let mut limits = Limits { cpu: 0.0, memory_bytes: None };
        for (place, directory) in known.directories.iter().enumerate() {
            let has = |wanted: File| known.files.contains(&(place, wanted));
            let levels = self.levels(directory);
            let narrower =
                |limit: Option<f64>, known: f64| limit.map_or(known, |limit| if known == 0.0 { limit } else { known.min(limit) });
            for level in levels {
                if has(File::CpuStatV1) {
                    let quota = self.text(level, "cpu.cfs_quota_us");
                    let limit = quota.and_then(|quota| files::cfs_quota(&quota, &self.text(level, "cpu.cfs_period_us")?));
                    limits.cpu = narrower(limit, limits.cpu);
                }
                if has(File::CpuStatV2) {
                    limits.cpu = narrower(self.text(level, "cpu.max").and_then(|it| files::cpu_max(&it)), limits.cpu);
                }
                if has(File::MemoryUsageV2) {
                    let limit = self.text(level, "memory.max").and_then(|it| files::memory_max(&it));
                    let narrowest = limits.memory_bytes.filter(|&it| it > 0).into_iter().chain(limit).min();
                    limits.memory_bytes = Some(narrowest.unwrap_or(0));
                }
            }
        }
        limits
    }

    /// A directory and those above it, up to the root of its hierarchy, which has no limits.
    fn levels<'a>(&self, directory: &'a Path) -> Vec<&'a Path> {
        let is_root =
            |level: &Path| self.mounts.unified.as_deref() == Some(level) || self.mounts.controllers.values().any(|it| it == level);
        directory.ancestors().take_while(|level| !is_root(level)).take(LEVELS_MAX).collect()
    }

    fn text(&mut self, directory: &Path, file: &str) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        read_file(&mut self.path, directory, file, &mut text).ok()?;
        Some(text)
    }
}

/// What names the cgroup of a container.
#[derive(Clone, Copy, Debug)]
struct Own<'a> {
    id: &'a str,
    /// Its path; the same in every hierarchy.
    path: Option<&'a str>,
}

impl Own<'_> {
    /// Where the path of the container's own cgroup ends in `path`, which is that cgroup's or of one below it; `None` when it is neither.
    fn end_in(&self, path: &str) -> Option<usize> {
        if let Some(at) = path.find(self.id) {
            return Some(path[at..].find('/').map_or(path.len(), |slash| at + slash));
        }
        let own = self.path?;
        let below = path.strip_prefix(own)?;
        (below.is_empty() || below.starts_with('/')).then_some(own.len())
    }
}

impl Known {
    /// Adds those of `files` that are there.
    fn add(&mut self, directory: PathBuf, files: &[File]) {
        let place = self.directories.iter().position(|it| *it == directory).unwrap_or(self.directories.len());
        let there = files.iter().filter(|file| is_readable(&directory.join(file.name())));
        let before = self.files.len();
        self.files.extend(there.map(|&file| (place, file)));
        if place == self.directories.len() && self.files.len() > before {
            self.directories.push(directory);
        }
    }
}

/// Whether a file can be opened and read: pressure files can be opened where the kernel was told not to keep account of it, and not be read.
fn is_readable(path: &Path) -> bool {
    std::fs::File::open(path).and_then(|mut file| file.read(&mut [0])).is_ok()
}

/// Reads a file of a directory into `buffer`, whose content is replaced. `path` is room for the path.
fn read_file(path: &mut PathBuf, directory: &Path, file: &str, buffer: &mut Vec<u8>) -> io::Result<()> {
    path.clear();
    path.push(directory);
    path.push(file);
    read_into(path, files::FILE_MAX, buffer)
}

#[cfg(test)]
mod tests;
