//! Kernel programs that outlive their probe: their tables and links have names in a BPF file system.
//!
//! ```text
//! <bpffs>/orchestrator-probe/            locked by the one probe that uses it
//!     OWNERS-<layout>                    who holds a socket: shared by all programs of one layout, whatever else they are
//!     links/<hook>                       one per hook, always: another program is put behind it in one step
//!     <abi>/<object>-<map>               the tables of one build of the programs
//!     <abi>/sockets-EDGES-<layout>
//! ```
//!
//! A probe that finds its own `<abi>` goes on with those tables. One that finds another makes its own, takes the links over, and folds the other
//! ones' edges into its own. In both cases every event is counted by one program. What cannot be taken over is removed, and the probe begins as
//! on a machine that never had one: that is also what happens when the programs have slept, because then there are events that nobody counted.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use probe_common::{Control, EdgeKey, EdgeValue, Fingerprint, Owner, counter};

use super::{Config, bpffs, sys};

/// Directory of all pins of all probes.
const ROOT: &str = "orchestrator-probe";
/// Names in such a file system have no dots.
const LINKS: &str = "links";

/// How the probe finds the pins of the programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PinDir {
    /// Nothing is pinned: the programs end with the probe.
    #[default]
    Off,
    /// In the BPF file system of the machine, which is mounted if it is not.
    Usual,
    /// In this directory; a BPF file system is mounted there if it is not in one.
    At(PathBuf),
}

impl PinDir {
    fn path(&self) -> Option<&Path> {
        if let PinDir::At(path) = self { Some(path) } else { None }
    }
}

/// Why programs are not pinned.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// There is no BPF file system.
    #[error("no BPF file system")]
    NoFileSystem(#[source] io::Error),
    /// Another probe of this machine has its programs there.
    #[error("another probe uses {}", .0.display())]
    Held(PathBuf),
    /// The directory cannot be used.
    #[error("{} cannot be used", .0.display())]
    Directory(PathBuf, #[source] io::Error),
}

/// A map that is pinned, and how it has to be defined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pinned {
    /// Its name in the object.
    pub(super) name: &'static str,
    /// Where it is.
    pub(super) path: PathBuf,
    /// Number of its type, bytes of a key and of a value, entries.
    definition: (u32, usize, usize, u32),
}

/// Numbers of map types, from `enum bpf_map_type`.
mod kind {
    pub(super) const HASH: u32 = 1;
    pub(super) const ARRAY: u32 = 2;
    pub(super) const PERCPU_ARRAY: u32 = 6;
    pub(super) const SK_STORAGE: u32 = 24;
    pub(super) const RINGBUF: u32 = 27;
}

/// What was found in the directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Found {
    /// No programs, or none that could be taken over.
    #[default]
    Nothing,
    /// Programs whose tables go on.
    Same,
    /// Programs of other builds; their tables are in these directories.
    Others(Vec<PathBuf>),
}

/// The directory of pins, held by this probe.
#[derive(Debug)]
pub(super) struct Pins {
    _lock: Flock<File>,
    root: PathBuf,
    tables: PathBuf,
    found: Found,
}

impl Pins {
    /// Takes the directory, and looks at what is in it. `foldable`: edges of other builds can be taken over.
    ///
    /// # Errors
    /// When it cannot be taken: the programs then end with the probe.
    pub(super) fn open(config: &Config, abi: Fingerprint, foldable: bool) -> Result<Self, PinError> {
        let root = bpffs::find(config.pin_dir.path()).map_err(PinError::NoFileSystem)?.join(ROOT);
        let failed = |error| PinError::Directory(root.clone(), error);
        make(&root).map_err(failed)?;
        let lock = lock(&root)?;
        let tables = root.join(format!("{:016x}", abi.0));
        let mut pins = Pins { _lock: lock, root: root.clone(), tables, found: Found::Nothing };
        match pins.look(config, foldable) {
            Ok(found) => pins.found = found,
            Err(reason) => {
                tracing::warn!(reason, "kernel programs of an earlier probe are removed: they cannot be taken over");
                remove(&root).map_err(failed)?;
                make(&root).map_err(failed)?;
            }
        }
        make(&pins.tables).and_then(|()| make(&root.join(LINKS))).map_err(failed)?;
        Ok(pins)
    }

    pub(super) fn found(&self) -> &Found {
        &self.found
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// What can be taken over; why nothing can, where something is.
    fn look(&self, config: &Config, foldable: bool) -> Result<Found, String> {
        let builds = builds(&self.root);
        if builds.is_empty() && !self.owners().path.exists() && links(&self.root).is_empty() {
            return Ok(Found::Nothing);
        }
        check(&self.owners())?;
        for build in &builds {
            let control = build.join("sockets-CONTROL");
            let control = read_control(&control).map_err(|error| format!("{}: {error}", control.display()))?;
            if control.awake_until_ns <= sys::monotonic_ns() {
                return Err("they have slept: nobody has counted what happened".to_owned());
            }
            if *build == self.tables {
                self.sockets(config).iter().chain(&self.processes(config)).filter(|map| map.path.exists()).try_for_each(check)?;
            } else if !build.join(edges_name()).exists() {
                return Err("their edges have another layout".to_owned());
            } else if !foldable {
                return Err("this kernel, or the rights of the probe, do not let it read their edges".to_owned());
            }
        }
        let others: Vec<_> = builds.into_iter().filter(|build| *build != self.tables).collect();
        Ok(if others.is_empty() { Found::Same } else { Found::Others(others) })
    }

    /// Who holds a socket.
    pub(super) fn owners(&self) -> Pinned {
        Pinned {
            name: "OWNERS",
            path: self.root.join(format!("OWNERS-{:016x}", Owner::LAYOUT.0)),
            definition: (kind::SK_STORAGE, 4, size_of::<Owner>(), 0),
        }
    }

    /// Pinned maps of the connection programs, without their owners.
    pub(super) fn sockets(&self, config: &Config) -> Vec<Pinned> {
        let map = |name, file: &str, definition| Pinned { name, path: self.tables.join(file), definition };
        vec![
            map("EDGES", &edges_name(), (kind::HASH, size_of::<EdgeKey>(), size_of::<EdgeValue>(), config.edges_max)),
            map("NETWORK_RING", "sockets-NETWORK_RING", (kind::RINGBUF, 0, 0, config.ring_bytes)),
            map("COUNTERS", "sockets-COUNTERS", (kind::PERCPU_ARRAY, 4, 8, counter::COUNT)),
            map("CONTROL", "sockets-CONTROL", (kind::ARRAY, 4, size_of::<Control>(), 1)),
        ]
    }

    /// Pinned maps of the process programs.
    pub(super) fn processes(&self, config: &Config) -> Vec<Pinned> {
        let map = |name, file: &str, definition| Pinned { name, path: self.tables.join(file), definition };
        vec![
            map("PROCESS_RING", "processes-PROCESS_RING", (kind::RINGBUF, 0, 0, config.ring_bytes)),
            map("COUNTERS", "processes-COUNTERS", (kind::PERCPU_ARRAY, 4, 8, counter::COUNT)),
            map("CONTROL", "processes-CONTROL", (kind::ARRAY, 4, size_of::<Control>(), 1)),
        ]
    }

    /// The link of a hook, if an earlier probe has left one.
    pub(super) fn link(&self, hook: &str) -> Option<OwnedFd> {
        sys::open_pin(&self.link_path(hook)).ok()
    }

    /// Detaches what has the link of a hook.
    pub(super) fn make_room(&self, hook: &str) -> io::Result<()> {
        match fs::remove_file(self.link_path(hook)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Detaches what has a link and is not among the hooks of this probe.
    pub(super) fn retain_links(&self, hooks: &[String]) {
        for (hook, path) in links(&self.root).into_iter().filter(|(hook, _)| !hooks.contains(hook)) {
            tracing::info!(hook, "hook of an earlier probe is removed");
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(hook, %error, "hook of an earlier probe cannot be removed");
            }
        }
    }

    /// Name of the link of a hook.
    pub(super) fn link_path(&self, hook: &str) -> PathBuf {
        self.root.join(LINKS).join(hook)
    }
}

/// Name of the edge table, by the layout of its entries.
pub(super) fn edges_name() -> String {
    let layout = EdgeKey::LAYOUT.with(&EdgeValue::LAYOUT.0.to_le_bytes());
    format!("sockets-EDGES-{:016x}", layout.0)
}

/// Detaches all programs that are pinned, and removes their tables; how many hooks there were.
///
/// # Errors
/// When a probe uses them, or something cannot be removed.
pub fn detach(pin_dir: &PinDir) -> Result<usize, PinError> {
    let mut detached = 0;
    for root in bpffs::existing(pin_dir.path()).into_iter().map(|directory| directory.join(ROOT)).filter(|root| root.is_dir()) {
        let _lock = lock(&root)?;
        detached += links(&root).len();
        remove(&root).map_err(|error| PinError::Directory(root.clone(), error))?;
    }
    Ok(detached)
}

/// The lock goes with the process that has it, however that ends.
fn lock(root: &Path) -> Result<Flock<File>, PinError> {
    let directory = File::open(root).map_err(|error| PinError::Directory(root.to_owned(), error))?;
    Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        nix::Error::EWOULDBLOCK => PinError::Held(root.to_owned()),
        error => PinError::Directory(root.to_owned(), error.into()),
    })
}

fn make(directory: &Path) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// Removes a directory of pins: what is attached goes first.
pub(super) fn remove(directory: &Path) -> io::Result<()> {
    let links = directory.join(LINKS);
    if links.is_dir() {
        remove(&links)?;
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { remove(&entry.path())? } else { fs::remove_file(entry.path())? }
    }
    fs::remove_dir(directory)
}

/// Directories of tables: named by a hash.
fn builds(root: &Path) -> Vec<PathBuf> {
    let is_build = |name: &str| name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    entries(root).into_iter().filter(|(name, _)| is_build(name)).map(|(_, path)| path).collect()
}

fn links(root: &Path) -> Vec<(String, PathBuf)> {
    entries(&root.join(LINKS))
}

fn entries(directory: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut entries: Vec<_> = entries.flatten().filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path()))).collect();
    entries.sort();
    entries
}

/// Whether a pinned map is what it should be: opening a name does not compare.
fn check(map: &Pinned) -> Result<(), String> {
    let told = |error: io::Error| format!("{}: {error}", map.path.display());
    let definition = sys::open_pin(&map.path).and_then(|fd| sys::map_definition(fd.as_fd())).map_err(told)?;
    let found = (definition.kind, definition.key_size as usize, definition.value_size as usize, definition.max_entries);
    if found == map.definition { Ok(()) } else { Err(format!("{} is {found:?} and not {:?}", map.path.display(), map.definition)) }
}

/// What running programs were told last.
pub(super) fn read_control(path: &Path) -> io::Result<Control> {
    let map = sys::open_pin(path)?;
    let definition = sys::map_definition(map.as_fd())?;
    if definition.kind != kind::ARRAY || definition.value_size as usize != size_of::<Control>() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a control map"));
    }
    Ok(sys::lookup::<u32, Control>(map.as_fd(), &0)?.unwrap_or_default())
}

#[cfg(test)]
mod tests;
