//! `/proc`, under a root that a test can choose. Every entry may vanish between two reads of it: that is counted and never an error of ours.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use crate::mask::Masks;
use crate::observation::BootNanos;
use crate::processes::Details;

pub mod describer;
pub mod mountinfo;
pub mod parse;
pub mod sampler;
pub mod system;
pub mod words;

/// Longest command line that is kept.
pub const COMMAND_LINE_MAX: usize = 4_096;
/// Longest name of a process, in bytes: a process may write its whole title into its first argument.
pub const NAME_MAX: usize = 1_024;

/// Largest file of `/proc/<pid>` that is read whole.
const FILE_MAX: u64 = 64 * 1024;

/// Readers that may hang at once. Beyond it no command line is read until one comes back.
pub const HANGING_MAX: usize = 16;

/// Why a process could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It ended meanwhile, or is a zombie: the caller forgets it.
    #[error("the process is gone")]
    Gone,
    /// The kernel refused, or said something that is not understood: the caller counts it.
    #[error("cannot read {file}")]
    Unreadable {
        /// Which file.
        file: &'static str,
        /// Why, if the kernel said so.
        #[source]
        source: Option<io::Error>,
    },
}

/// Whether arguments of command lines are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arguments {
    /// As they are.
    Show,
    /// The first word alone: arguments may hold secrets.
    Hide,
}

/// A reader of `/proc`.
#[derive(Debug)]
pub struct Procfs {
    root: PathBuf,
    /// Whether arguments are hidden.
    arguments_hidden: AtomicBool,
    masks: RwLock<Masks>,
    /// The cgroup in which a Mesos agent has its containers.
    agents_root: String,
    /// Processes whose command line somebody hangs at.
    hanging: Mutex<BTreeSet<u32>>,
    vanished: AtomicU64,
    unreadable: AtomicU64,
}

impl Procfs {
    /// Reads below `root`, normally `/proc`.
    pub fn new(root: impl Into<PathBuf>, arguments: Arguments) -> Self {
        let arguments_hidden = AtomicBool::new(arguments == Arguments::Hide);
        Procfs {
            root: root.into(),
            arguments_hidden,
            masks: RwLock::new(Masks::default()),
            agents_root: String::new(),
            hanging: Mutex::default(),
            vanished: AtomicU64::new(0),
            unreadable: AtomicU64::new(0),
        }
    }

    /// Changes whether arguments are told, from the next look on.
    pub fn set_arguments(&self, arguments: Arguments) {
        self.arguments_hidden.store(arguments == Arguments::Hide, Ordering::Relaxed);
    }

    fn arguments(&self) -> Arguments {
        if self.arguments_hidden.load(Ordering::Relaxed) { Arguments::Hide } else { Arguments::Show }
    }

    /// Tells processes of a Mesos agent's containers by this cgroup, too, in which it has them.
    pub fn with_agents_root(mut self, root: &str) -> Self {
        root.clone_into(&mut self.agents_root);
        self
    }

    /// Hides secrets in command lines by these masks instead of the well-known ones.
    pub fn with_masks(self, masks: Masks) -> Self {
        self.set_masks(masks);
        self
    }

    /// The same, from the next look on.
    pub fn set_masks(&self, masks: Masks) {
        // Nobody panics while holding it; what was there then would be as good.
        *self.masks.write().unwrap_or_else(PoisonError::into_inner) = masks;
    }

    fn masks(&self) -> Masks {
        self.masks.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on the command line of a process is not read: somebody hangs at it.
    pub fn leave_out_command_line(&self, pid: u32) {
        self.hanging_processes().insert(pid);
    }

    /// Whoever hung at the command line of a process has come back.
    pub fn read_command_line_again(&self, pid: u32) {
        self.hanging_processes().remove(&pid);
    }

    /// How many processes hang so that their command lines cannot be read.
    pub fn hanging(&self) -> usize {
        self.hanging_processes().len()
    }

    fn hanging_processes(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        // Nobody panics while holding it.
        self.hanging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that a record of a process needs. The command line is left out of one that [hangs](Self::leave_out_command_line), and of all while
    /// [`HANGING_MAX`] do. Reading one may take for ever where nobody knows yet that it hangs: [`describer`] is for those that must not wait.
    pub fn details(&self, pid: u32) -> Result<Details, ReadError> {
        let stat = self.stat(pid)?;
        if stat.has_ended() {
            return Err(self.note(ReadError::Gone));
        }
        let left_out = {
            let hanging = self.hanging_processes();
            hanging.len() >= HANGING_MAX || hanging.contains(&pid)
        };
        let command_line = match left_out {
            true => None,
            false => Some(parse::command_line(&self.read(pid, "cmdline", COMMAND_LINE_MAX as u64 + 1)?, &self.masks())),
        };
        let user_id = parse::effective_user(&self.read(pid, "status", FILE_MAX)?);
        let cgroup_path = parse::cgroup_path(&self.read(pid, "cgroup", FILE_MAX)?, &self.agents_root);
        let without_command_line = command_line.is_none() && !stat.is_kernel_thread;
        let command_line = command_line.unwrap_or_default();
        let name = match command_line.first_word {
            Some(first_word) => first_word,
            None if without_command_line => stat.comm.clone(),
            None => format!("[{}]", stat.comm),
        };
        let whole = match self.arguments() {
            Arguments::Show if !command_line.whole.is_empty() => command_line.whole,
            _ => name.clone(),
        };
        Ok(Details {
            pid,
            start_time: stat.start_time,
            parent_pid: stat.parent_pid,
            comm: stat.comm,
            name,
            command_line: whole,
            without_command_line,
            user_id: user_id.ok_or_else(|| self.note(ReadError::Unreadable { file: "status", source: None }))?,
            thread_count: stat.thread_count,
            cgroup_path,
        })
    }

    /// `stat` of a process.
    pub fn stat(&self, pid: u32) -> Result<parse::Stat, ReadError> {
        let bytes = self.read(pid, "stat", FILE_MAX)?;
        parse::stat(&bytes).ok_or_else(|| self.note(ReadError::Unreadable { file: "stat", source: None }))
    }

    /// Start of a process, if it lives.
    pub fn start_time(&self, pid: u32) -> Option<BootNanos> {
        self.stat(pid).ok().filter(|stat| !stat.has_ended()).map(|stat| stat.start_time)
    }

    /// Path in `/proc/<pid>/cgroup` of every hierarchy: controllers (empty for v2) and path.
    pub fn cgroups(&self, pid: u32) -> Result<Vec<(String, String)>, ReadError> {
        Ok(parse::cgroups(&self.read(pid, "cgroup", FILE_MAX)?))
    }

    /// Pids that are there now.
    pub fn pids(&self) -> io::Result<Vec<u32>> {
        let mut pids = Vec::new();
        for entry in std::fs::read_dir(&self.root)? {
            let Ok(entry) = entry else { continue };
            if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                pids.push(pid);
            }
        }
        Ok(pids)
    }

    /// How many descriptors a process has open; `None` when that is not ours to know.
    pub fn open_files(&self, pid: u32) -> Option<u32> {
        let path = self.root.join(pid.to_string()).join("fd");
        // Since Linux 6.2 the size of the directory is the number of descriptors: one call instead of one per descriptor.
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.len() > 0 => return u32::try_from(metadata.len()).ok(),
            Ok(_) => {}
            Err(_) => return None,
        }
        let entries = std::fs::read_dir(&path).ok()?;
        u32::try_from(entries.count()).ok()
    }

    /// Soft limit of open descriptors; 0 when unknown.
    pub fn open_files_limit(&self, pid: u32) -> u64 {
        self.read(pid, "limits", FILE_MAX).ok().and_then(|bytes| parse::open_files_limit(&bytes)).unwrap_or(0)
    }

    /// Bytes that a process read from and wrote to devices; `None` when that is not ours to know.
    pub fn io_bytes(&self, pid: u32) -> Option<(u64, u64)> {
        let mut path = self.root.join(pid.to_string());
        path.push("io");
        system::process_io(&read_limited(&path, FILE_MAX).ok()?)
    }

    /// Inode of a process's network namespace.
    pub fn network_namespace(&self, pid: u32) -> Option<u64> {
        parse::link_inode(std::fs::read_link(self.root.join(pid.to_string()).join("ns/net")).ok()?.to_str()?, "net")
    }

    /// Sockets that a process has open: descriptor and inode.
    pub fn sockets(&self, pid: u32) -> Vec<(i32, u64)> {
        let Ok(entries) = std::fs::read_dir(self.root.join(pid.to_string()).join("fd")) else { return Vec::new() };
        let mut sockets = Vec::new();
        for entry in entries.flatten() {
            let Some(descriptor) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let Ok(target) = std::fs::read_link(entry.path()) else { continue };
            if let Some(inode) = target.to_str().and_then(|target| parse::link_inode(target, "socket")) {
                sockets.push((descriptor, inode));
            }
        }
        sockets
    }

    /// A file of the root itself, such as `stat` or `meminfo`.
    pub fn read_global(&self, file: &str) -> io::Result<Vec<u8>> {
        read_limited(&self.root.join(file), 1024 * 1024)
    }

    /// The root, for edges that hand paths to the kernel.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Processes that vanished while they were read.
    pub fn vanished(&self) -> u64 {
        self.vanished.load(Ordering::Relaxed)
    }

    /// Files that the kernel refused or that were not understood.
    pub fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    fn read(&self, pid: u32, file: &'static str, limit: u64) -> Result<Vec<u8>, ReadError> {
        let mut path = self.root.join(pid.to_string());
        path.push(file);
        read_limited(&path, limit).map_err(|err| match err.raw_os_error() {
            // The directory is gone, or the process ended between open and read.
            Some(libc::ENOENT | libc::ESRCH) => self.note(ReadError::Gone),
            _ => self.note(ReadError::Unreadable { file, source: Some(err) }),
        })
    }

    fn note(&self, error: ReadError) -> ReadError {
        let counter = match error {
            ReadError::Gone => &self.vanished,
            ReadError::Unreadable { .. } => &self.unreadable,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        error
    }
}

pub(crate) fn read_limited(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    read_into(path, limit, &mut bytes)?;
    Ok(bytes)
}

/// Reads a file of the kernel, or its first `limit` bytes, into `buffer`, whose content is replaced. In three calls where others make six: the
/// size of such a file is not known before, and one that gives less than half a page has given all.
pub(crate) fn read_into(path: &Path, limit: u64, buffer: &mut Vec<u8>) -> io::Result<()> {
    const FIRST: usize = 4_096;
    const ALL_BELOW: usize = 2_048;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut file = File::open(path)?;
    let mut length = 0;
    loop {
        buffer.resize((length + FIRST.max(length)).min(limit), 0);
        let read = match file.read(&mut buffer[length..]) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        length += read;
        if read == 0 || length >= limit || (read == length && read < ALL_BELOW) {
            buffer.truncate(length);
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests;
