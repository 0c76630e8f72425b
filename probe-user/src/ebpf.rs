//! The best rung: kernel programs see every connection, process and cgroup as it happens.
//!
//! [`Capture::start`] loads and attaches the programs of `probe-ebpf`, proves every hook by using it, and starts three threads: one per ring
//! of records, and one that reads the table of edges. Where names are looked for, a fourth one attaches the programs that see answers, and reads
//! their ring (`dns`). They deliver [`Observation`]s in batches into one bounded channel.
//!
//! # What is exact, and how
//!
//! * Counters live in the kernel's edge table and only grow. The probe takes differences, so a reading that is skipped (because the channel is
//!   full, say) costs time and never counts: the next one has it all.
//! * A new edge is told at once through a ring that wakes the reader; its counters follow with the next reading, at most one
//!   [`Config::interval`] later. A machine where nothing happens costs one call per interval, which reads one counter.
//! * Bytes of connections that stay open are added to the table by a sweep over all sockets every [`Config::sweep_interval`].
//! * Whatever is lost has a counter, told by [`Observation::Lost`].
//!
//! Nothing needs to be mounted: the programs are attached by descriptors, and a cgroup2 hierarchy that is not mounted is opened without a place
//! in the file system.
#![expect(unsafe_code, reason = "bpf(2) and the memory that is shared with the kernel; every block says why it is sound")]

mod bpffs;
mod btf;
mod control;
mod decode;
mod dns;
mod drain;
mod edges;
mod kernel_log;
mod live;
mod load;
mod look;
mod objects;
mod offsets;
mod own_address;
mod pins;
mod place;
mod rings;
mod running;
mod seed;
mod selftest;
mod statistics;
mod sweep;
mod sys;
mod takeover;
mod talks;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;

pub use btf::BtfError;
pub use live::print_live;
pub use look::Looker;
pub use pins::{PinDir, PinError, detach};
pub use place::{Lack, lacking_capabilities};
pub use running::Running;
pub use seed::{Seed, SeedRole, Seeded, Seeder};
pub use statistics::{Meter, ProgramStatistics, Reading, Statistics, StatisticsError};
pub use takeover::CountedSockets;

use crate::observation::Observation;

/// How to capture.
#[derive(Clone, Debug)]
pub struct Config {
    /// Root of the cgroup2 hierarchy; `None` looks for it.
    pub cgroup_root: Option<PathBuf>,
    /// Where `/proc` is.
    pub proc_root: PathBuf,
    /// Entries of the kernel's edge table.
    pub edges_max: u32,
    /// Size of each ring; the kernel wants a power of two, at least a page.
    pub ring_bytes: u32,
    /// How often changed counters are read.
    pub interval: Duration,
    /// How often the bytes of open connections are counted.
    pub sweep_interval: Duration,
    /// Batches that the channel holds. One holds at most [`BATCH_MAX`] observations.
    pub batches_max: usize,
    /// Whether the programs write log lines; slow, for work on a hook.
    pub kernel_log: bool,
    /// Whether to use the forms of programs that kernels before 5.12 take, also where others would be taken.
    pub plain_programs: bool,
    /// Where the programs are pinned, so that they outlive the probe.
    pub pin_dir: PinDir,
    /// How long pinned programs go on without a probe.
    pub awake_for: Duration,
    /// Makes one build of the programs look like another: for tests of taking over.
    pub abi_salt: u64,
    /// Where names are looked for.
    pub dns: crate::dns::Mode,
    /// Changed counters and bytes of open connections are read more rarely while there is not enough budget.
    pub pace: crate::budget::Pace,
}

/// Most observations of one batch.
pub const BATCH_MAX: usize = 512;

impl Default for Config {
    fn default() -> Self {
        Config {
            cgroup_root: None,
            proc_root: PathBuf::from("/proc"),
            edges_max: 8_192,
            ring_bytes: 512 * 1024,
            interval: Duration::from_millis(100),
            sweep_interval: Duration::from_secs(15),
            batches_max: 64,
            kernel_log: false,
            plain_programs: false,
            pin_dir: PinDir::Off,
            awake_for: Duration::from_secs(600),
            abi_salt: 0,
            dns: crate::dns::Mode::Auto,
            pace: crate::budget::Pace::default(),
        }
    }
}

/// Why kernel programs cannot be used here at all.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The build had no objects to embed.
    #[error("this probe was built without kernel programs (cargo xtask build-ebpf makes them)")]
    NotBuilt,
    /// The process may not load what is needed.
    #[error("missing rights: {0}")]
    Rights(String),
    /// There is no cgroup2 hierarchy to attach to.
    #[error("no root of a cgroup2 hierarchy")]
    CgroupRoot(#[source] io::Error),
    /// What is mounted here is a part of the hierarchy: most sockets of the machine would not be seen.
    #[error("{} is not the root of the cgroup2 hierarchy (inode {inode}): give the probe the host's", path.display())]
    CgroupNotRoot {
        /// What was looked at.
        path: PathBuf,
        /// Its inode number; the root has 1.
        inode: u64,
    },
    /// The object with the connection programs was refused.
    #[error("kernel refused the connection programs")]
    Object(#[source] aya::EbpfError),
    /// The program that sees connections was refused, or did not see the probe's own.
    #[error("kernel refused the connection program: {0}")]
    Connections(String),
    /// A map is not what it should be.
    #[error("map {0} cannot be used")]
    Map(&'static str, #[source] Box<aya::maps::MapError>),
    /// A thread, a descriptor or another resource was refused.
    #[error("system call failed")]
    System(#[from] io::Error),
}

/// A hook and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Name of its program.
    pub name: String,
    /// Whether it is attached and, where it could be tried, has been seen working.
    pub attached: bool,
    /// The kernel's answer when it is not; what was seen when the trial failed.
    pub error: String,
}

impl Hook {
    fn of<E: std::error::Error>(name: &str, result: Result<(), E>) -> Self {
        let error = result.err().map(|error| chain(&error)).unwrap_or_default();
        Hook { name: name.to_owned(), attached: error.is_empty(), error }
    }
}

/// Whether the programs that see names can be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// Nobody wants them.
    #[default]
    Off,
    /// They are attached where names are resolved.
    Seen,
    /// The kernel refused them.
    Refused(String),
}

/// What this capture sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Every hook.
    pub hooks: Vec<Hook>,
    /// Processes are told as they begin and end.
    pub processes: bool,
    /// cgroups are told as they are made and removed.
    pub cgroups: bool,
    /// Owners carry the start of their process.
    pub start_times: bool,
    /// Bytes of open connections are counted by the sweep; otherwise at their end.
    pub live_bytes: bool,
    /// The kernel's pids are those of `/proc` here. Otherwise the probe runs in a pid namespace of its own.
    pub pids_match: bool,
    /// Where the programs are pinned, if they are.
    pub pinned_at: Option<PathBuf>,
    /// Why they are not, when they should be; empty otherwise.
    pub not_pinned: String,
    /// The programs, or their tables, are those of an earlier probe: what they counted is among the first observations.
    pub taken_over: bool,
    /// Whether names are seen.
    pub names: Names,
    /// Why something of the above is missing, names aside.
    pub reasons: Vec<String>,
}

impl Status {
    /// Whether a hook is there and works.
    pub fn attached(&self, name: &str) -> bool {
        self.hooks.iter().any(|hook| hook.name == name && hook.attached)
    }

    /// The rung of the ladder: 1 is everything; 2 lacks what needs the kernel's type information; 3 sees connections alone.
    pub fn rung(&self) -> u32 {
        match (self.processes, self.start_times && self.live_bytes && self.cgroups) {
            (true, true) => 1,
            (true, false) => 2,
            (false, _) => 3,
        }
    }
}

/// Capture through kernel programs.
#[derive(Debug)]
pub struct Capture;

impl Capture {
    /// Loads, attaches, tries, and starts to deliver. Takes up to a second.
    pub fn start(config: &Config) -> Result<(Running, mpsc::Receiver<Vec<Observation>>), CaptureError> {
        Running::start(config, |_, _| {})
    }

    /// As [`Capture::start`], and gives `before_connections` the chance to write the owners of listeners that are older than the programs
    /// before the first connection is counted.
    pub fn start_after(
        config: &Config,
        before_connections: impl FnOnce(&Seeder, &Looker),
    ) -> Result<(Running, mpsc::Receiver<Vec<Observation>>), CaptureError> {
        Running::start(config, before_connections)
    }
}

/// What one record of a ring tells; nothing of one of an unknown kind or length.
pub fn observations_of(record: &[u8]) -> Vec<Observation> {
    let mut observations = Vec::new();
    decode::record(record, &mut observations);
    observations
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        // Verifier logs are long; their last lines say what was wrong.
        let inner_text = inner.to_string();
        let tail = inner_text.char_indices().rev().nth(1_500).map_or(0, |(index, _)| index);
        text.push_str(": ");
        text.push_str(&inner_text[tail..]);
        cause = inner.source();
    }
    text
}
