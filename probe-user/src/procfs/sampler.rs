//! Metrics of the host, its processes and its containers, by looking at regular times. One walk of `/proc` serves the metrics and tells the
//! process table what it may have missed.
//!
//! A share of CPU is what was used between two looks by the time in which the machine was awake between them: neither a clock that somebody sets
//! nor a night in which the machine was suspended changes it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::probe::v1::ProcessMetrics;

use crate::cgroupfs::CgroupReader;
use crate::clock::{Instants, thread_cpu};
use crate::host::sampler::HostSampler;
use crate::observation::BootNanos;
use crate::processes::{ProcessKey, Sighting, TICK_NANOS};
use crate::procfs::{Procfs, ReadError, parse};
use crate::report::Samples;
use crate::users::{UserReader, Users};

mod containers;

use containers::ContainerSampler;

/// Share of one CPU that looking at processes may take, and looking at containers as much again. Beyond it descriptors are not counted and bytes
/// not read until the next round; containers that had no turn are the first then.
const BUDGET: f64 = 0.02;

/// A running container that wants its metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampledContainer {
    /// Full id.
    pub id: String,
    /// Pid of its first process.
    pub pid: u32,
    /// Path of its own cgroup, where that is what it is known by; `None` where the path has the id in it.
    pub cgroup_path: Option<Arc<str>>,
}

/// What one round of looking found.
#[derive(Debug, Default)]
pub struct Round {
    /// The samples.
    pub samples: Samples,
    /// Every process that lived when the walk came by.
    pub seen: BTreeMap<ProcessKey, Sighting>,
    /// When the walk began; `None` when `/proc` or a process in it could not be read, so that what is missing in `seen` may live.
    pub walked_at: Option<BootNanos>,
    /// Names of users.
    pub users: Users,
    /// What it took.
    pub effort: Effort,
}

/// What a round took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effort {
    /// All of it.
    pub took: Duration,
    /// Whether the budget ended before everything was looked at.
    pub over_budget: bool,
    /// File systems that did not answer.
    pub disks_unanswered: usize,
}

/// Looks, and remembers what it needs for the next look.
#[derive(Debug)]
pub struct Sampler {
    procfs: Arc<Procfs>,
    host: HostSampler,
    containers: ContainerSampler,
    users: UserReader,
    page_bytes: u64,
    cpu_count: u32,
    previous: Option<Instants>,
    processes: HashMap<ProcessKey, Watched>,
    /// Descriptors are counted from this pid on: where the budget ended last time.
    count_from: u32,
    round: u64,
}

#[derive(Debug, Default)]
struct Watched {
    cpu_ticks: u64,
    open_files: u32,
    open_files_limit: u64,
    io_bytes: (u64, u64),
    round: u64,
}

/// What lies between two looks.
#[derive(Clone, Copy, Debug)]
struct Between {
    /// All of it.
    boot_nanos: u64,
    /// The part in which the machine was awake.
    awake_nanos: u64,
}

impl Sampler {
    /// A sampler that has not looked yet.
    pub fn new(procfs: Arc<Procfs>, cgroups: CgroupReader, page_bytes: u64) -> Self {
        Sampler {
            host: HostSampler::new(procfs.clone()),
            containers: ContainerSampler::new(cgroups),
            users: UserReader::new(procfs.root()),
            procfs,
            page_bytes,
            cpu_count: 1,
            previous: None,
            processes: HashMap::new(),
            count_from: 0,
            round: 0,
        }
    }

    /// Looks at everything once.
    pub fn look(&mut self, at: Instants, containers: &[SampledContainer], interval: Duration) -> Round {
        let begun = Instant::now();
        self.round += 1;
        let between = self.previous.replace(at).and_then(|before| {
            let boot_nanos = at.now.boot.0.saturating_sub(before.now.boot.0);
            // The clocks are read one after the other: what is between the two readings is no suspension.
            let awake_nanos = at.awake_nanos.saturating_sub(before.awake_nanos).min(boot_nanos);
            (awake_nanos > 0).then_some(Between { boot_nanos, awake_nanos })
        });
        let host = self.host.look(at.now);
        self.cpu_count = if host.cpu_count > 0 { host.cpu_count } else { self.cpu_count };
        let samples = Samples { at: at.now.boot, host: host.metrics, ..Samples::default() };
        let mut round = Round { samples, walked_at: Some(at.now.boot), users: self.users.users(), ..Round::default() };
        let budget = interval.mul_f64(BUDGET);
        self.walk(at, between, budget, &mut round);
        let (metrics, cut) = self.containers.look(&self.procfs, at, self.cpu_count, containers, host.stacked, budget);
        round.samples.containers = metrics;
        round.effort.over_budget |= cut;
        round.effort.disks_unanswered = host.unanswered;
        round.effort.took = begun.elapsed();
        round
    }

    fn walk(&mut self, at: Instants, between: Option<Between>, budget: Duration, round: &mut Round) {
        let Ok(mut pids) = self.procfs.pids() else {
            round.walked_at = None;
            return;
        };
        pids.sort_unstable();
        // Begin where the budget ended last time, so that every process has its turn.
        let begin = pids.partition_point(|&pid| pid < self.count_from);
        pids.rotate_left(begin);
        self.count_from = 0;
        let budget = Budget::begin(budget);
        let mut in_budget = true;
        for (turn, pid) in pids.into_iter().enumerate() {
            // Asking for the time costs some of it.
            if in_budget && turn.is_multiple_of(8) && budget.is_used_up() {
                in_budget = false;
                self.count_from = pid;
            }
            let stat = match self.procfs.stat(pid) {
                Ok(stat) => stat,
                Err(ReadError::Gone) => continue,
                // Out of descriptors or memory: that says nothing of the process.
                Err(ReadError::Unreadable { .. }) => {
                    round.walked_at = None;
                    continue;
                }
            };
            if stat.has_ended() {
                continue;
            }
            let key = ProcessKey::new(pid, stat.start_time);
            round.samples.processes.push(self.process(key, &stat, at, between, in_budget));
            let sighting = Sighting { parent_pid: stat.parent_pid, comm: stat.comm.into(), is_kernel_thread: stat.is_kernel_thread };
            round.seen.insert(key, sighting);
        }
        round.effort.over_budget = !in_budget;
        let current = self.round;
        self.processes.retain(|_, watched| watched.round == current);
    }

    fn process(&mut self, key: ProcessKey, stat: &parse::Stat, at: Instants, between: Option<Between>, in_budget: bool) -> ProcessMetrics {
        let known = self.processes.contains_key(&key);
        let watched = self.processes.entry(key).or_default();
        if in_budget && !stat.is_kernel_thread {
            watched.open_files = self.procfs.open_files(key.pid).unwrap_or(0);
            watched.io_bytes = self.procfs.io_bytes(key.pid).unwrap_or(watched.io_bytes);
            // A soft limit hardly ever changes: it is read again every 20th round.
            if !known || (self.round + u64::from(key.pid)).is_multiple_of(20) {
                watched.open_files_limit = self.procfs.open_files_limit(key.pid);
            }
        }
        let cpu_ticks = if known { stat.cpu_ticks.saturating_sub(watched.cpu_ticks) } else { stat.cpu_ticks };
        watched.cpu_ticks = stat.cpu_ticks;
        watched.round = self.round;
        // Of a process that was there before the first look only the next look can tell the share.
        let age = at.now.boot.0.saturating_sub(key.start_time.0);
        let over = if known { between } else { between.filter(|it| age <= it.boot_nanos) };
        let cpu_percent =
            over.map_or(0.0, |over| percent(cpu_ticks.saturating_mul(TICK_NANOS), over.awake_nanos.saturating_mul(self.cpu_count.into())));
        ProcessMetrics {
            key: Some(proto::probe::v1::ProcessKey { pid: key.pid, start_time_boot_nanos: key.start_time.0 }),
            at_unix_nanos: at.now.unix_nanos,
            cpu_percent,
            memory_bytes: stat.resident_pages.saturating_mul(self.page_bytes),
            open_files: watched.open_files,
            open_files_limit: watched.open_files_limit,
            thread_count: stat.thread_count,
            io_read_bytes: watched.io_bytes.0,
            io_written_bytes: watched.io_bytes.1,
        }
    }
}

/// CPU time that work may take.
#[derive(Clone, Copy, Debug)]
struct Budget {
    begun: Duration,
    all: Duration,
}

impl Budget {
    fn begin(all: Duration) -> Self {
        Budget { begun: thread_cpu(), all }
    }

    fn is_used_up(self) -> bool {
        thread_cpu().saturating_sub(self.begun) > self.all
    }
}

/// `part` of `whole`, 0 to 100; 0 of nothing.
#[expect(clippy::cast_precision_loss, reason = "a percentage needs no more than the 53 bits of a double")]
pub(crate) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64 * 100.0).min(100.0) }
}

#[cfg(test)]
mod tests;
