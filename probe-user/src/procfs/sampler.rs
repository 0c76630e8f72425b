//! Metrics of the host, its processes and its containers, by looking at regular times. One walk of `/proc` serves the metrics and tells the
//! process table what it may have missed.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use proto::probe::v1::{ContainerMetrics, HostMetrics, ProcessMetrics};

use crate::cgroupfs::CgroupReader;
use crate::clock::Now;
use crate::observation::BootNanos;
use crate::processes::{ProcessKey, TICK_NANOS};
use crate::procfs::{Procfs, ReadError, parse};
use crate::report::Samples;

/// Share of one CPU that looking may take; beyond it descriptors are not counted until the next round.
const BUDGET: f64 = 0.02;

/// A running container that wants its metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampledContainer {
    /// Full id.
    pub id: String,
    /// Pid of its first process.
    pub pid: u32,
}

/// What one round of looking found.
#[derive(Debug, Default)]
pub struct Round {
    /// The samples.
    pub samples: Samples,
    /// Every process that lived when the walk came by.
    pub seen: BTreeSet<ProcessKey>,
    /// When the walk began; `None` when `/proc` or a process in it could not be read, so that what is missing in `seen` may live.
    pub walked_at: Option<BootNanos>,
}

/// Looks, and remembers what it needs for the next look.
#[derive(Debug)]
pub struct Sampler {
    procfs: Arc<Procfs>,
    cgroups: CgroupReader,
    page_bytes: u64,
    cpu_count: u32,
    previous_at: Option<BootNanos>,
    host_ticks: Option<(u64, u64)>,
    processes: HashMap<ProcessKey, Watched>,
    containers: HashMap<String, u64>,
    /// Descriptors are counted from this pid on: where the budget ended last time.
    count_from: u32,
    round: u64,
}

#[derive(Debug, Default)]
struct Watched {
    cpu_ticks: u64,
    open_files: u32,
    open_files_limit: u64,
    round: u64,
}

impl Sampler {
    /// A sampler that has not looked yet.
    pub fn new(procfs: Arc<Procfs>, cgroups: CgroupReader, page_bytes: u64) -> Self {
        Sampler {
            procfs,
            cgroups,
            page_bytes,
            cpu_count: 1,
            previous_at: None,
            host_ticks: None,
            processes: HashMap::new(),
            containers: HashMap::new(),
            count_from: 0,
            round: 0,
        }
    }

    /// Looks at everything once.
    pub fn look(&mut self, containers: &[SampledContainer], interval: Duration) -> Round {
        let now = Now::read();
        self.round += 1;
        let elapsed = self.previous_at.map(|at| now.boot.0.saturating_sub(at.0)).filter(|&it| it > 0);
        let host = self.host(now);
        let mut round = Round { samples: Samples { host, ..Samples::default() }, walked_at: Some(now.boot), ..Round::default() };
        self.walk(now, elapsed, interval, &mut round);
        round.samples.containers = self.containers(now, elapsed, containers);
        self.previous_at = Some(now.boot);
        round
    }

    fn host(&mut self, now: Now) -> Option<HostMetrics> {
        let (busy, total, count) = parse::cpu_ticks(&self.procfs.read_global("stat").ok()?)?;
        self.cpu_count = count;
        let previous = self.host_ticks.replace((busy, total));
        let (_, used) = parse::memory(&self.procfs.read_global("meminfo").ok()?)?;
        let load1 = parse::load1(&self.procfs.read_global("loadavg").ok()?)?;
        let cpu_percent =
            previous.map_or(0.0, |(busy_then, total_then)| percent(busy.saturating_sub(busy_then), total.saturating_sub(total_then)));
        Some(HostMetrics { at_unix_nanos: now.unix_nanos, cpu_percent, memory_used_bytes: used, load1, ..HostMetrics::default() })
    }

    fn walk(&mut self, now: Now, elapsed: Option<u64>, interval: Duration, round: &mut Round) {
        let Ok(mut pids) = self.procfs.pids() else {
            round.walked_at = None;
            return;
        };
        pids.sort_unstable();
        // Begin where the budget ended last time, so that every process has its turn.
        let begin = pids.partition_point(|&pid| pid < self.count_from);
        pids.rotate_left(begin);
        self.count_from = 0;
        let budget = interval.mul_f64(BUDGET);
        let started = std::time::Instant::now();
        let mut in_budget = true;
        for pid in pids {
            if in_budget && started.elapsed() > budget {
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
            round.seen.insert(key);
            round.samples.processes.push(self.process(key, &stat, now, elapsed, in_budget));
        }
        let current = self.round;
        self.processes.retain(|_, watched| watched.round == current);
    }

    fn process(&mut self, key: ProcessKey, stat: &parse::Stat, now: Now, elapsed: Option<u64>, in_budget: bool) -> ProcessMetrics {
        let known = self.processes.contains_key(&key);
        let watched = self.processes.entry(key).or_default();
        if in_budget && !stat.is_kernel_thread {
            watched.open_files = self.procfs.open_files(key.pid).unwrap_or(0);
            // A soft limit hardly ever changes: it is read again every 20th round.
            if !known || (self.round + u64::from(key.pid)).is_multiple_of(20) {
                watched.open_files_limit = self.procfs.open_files_limit(key.pid);
            }
        }
        let cpu_ticks = if known { stat.cpu_ticks.saturating_sub(watched.cpu_ticks) } else { stat.cpu_ticks };
        watched.cpu_ticks = stat.cpu_ticks;
        watched.round = self.round;
        // Of a process that was there before the first look only the next look can tell the share.
        let age = now.boot.0.saturating_sub(key.start_time.0);
        let over = if known { elapsed } else { elapsed.filter(|&elapsed| age <= elapsed) };
        let cpu_percent =
            over.map_or(0.0, |over| percent(cpu_ticks.saturating_mul(TICK_NANOS), over.saturating_mul(self.cpu_count.into())));
        ProcessMetrics {
            key: Some(proto::probe::v1::ProcessKey { pid: key.pid, start_time_boot_nanos: key.start_time.0 }),
            at_unix_nanos: now.unix_nanos,
            cpu_percent,
            memory_bytes: stat.resident_pages.saturating_mul(self.page_bytes),
            open_files: watched.open_files,
            open_files_limit: watched.open_files_limit,
            thread_count: stat.thread_count,
            ..ProcessMetrics::default()
        }
    }

    fn containers(&mut self, now: Now, elapsed: Option<u64>, containers: &[SampledContainer]) -> Vec<ContainerMetrics> {
        let previous = std::mem::take(&mut self.containers);
        let mut samples = Vec::with_capacity(containers.len());
        for container in containers {
            let Some(usage) = self.cgroups.usage(&self.procfs, &container.id, container.pid) else { continue };
            let before = previous.get(&container.id).copied().zip(elapsed);
            let cpu_percent = before.map_or(0.0, |(before, elapsed)| {
                percent(usage.cpu_nanos.saturating_sub(before), elapsed.saturating_mul(self.cpu_count.into()))
            });
            self.containers.insert(container.id.clone(), usage.cpu_nanos);
            samples.push(ContainerMetrics {
                id: container.id.clone(),
                at_unix_nanos: now.unix_nanos,
                cpu_percent,
                memory_bytes: usage.memory_bytes,
                memory_limit_bytes: usage.memory_limit_bytes,
                ..ContainerMetrics::default()
            });
        }
        self.cgroups.keep_only(containers.iter().map(|it| it.id.as_str()));
        samples
    }
}

#[expect(clippy::cast_precision_loss, reason = "a percentage needs no more than the 53 bits of a double")]
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64 * 100.0).min(100.0) }
}
