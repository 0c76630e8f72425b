//! The limits of a container, and whether it runs into one.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mesos_proto::v1::task_status;
use tokio::task::JoinHandle;
use tokio::time::Interval;

use super::super::{Run, limits};
use super::ports;
use crate::cgroups::Cgroup;
use crate::table::{Allowance, Limitation};
use crate::words::{ranges, ranges_resource, scalar, scalar_resource};

/// The limits of a container, and whether it has run into one.
pub(super) struct Watched {
    cgroup: Option<Cgroup>,
    is_limited: bool,
    kills_before: u64,
    mem: f64,
    disk: f64,
    /// Those that are its own.
    ports: Vec<(u64, u64)>,
    /// Those on which it listens all the same.
    foreign_ports: BTreeSet<u16>,
}

impl Watched {
    pub(super) fn new(run: &Run) -> Self {
        let cgroup = run.shared.cgroups.as_ref().map(|it| it.of(&run.launch.container));
        // Containers without a limit of their own share the memory of the outermost one: what was killed before them was not theirs.
        let is_limited = run.launch.has_own_limits();
        let kills_before = cgroup.as_ref().filter(|_| !is_limited).map_or(0, |it| it.oom_kills(false));
        let resources = &run.launch.resources;
        Watched {
            cgroup,
            is_limited,
            kills_before,
            mem: scalar(resources, "mem"),
            disk: scalar(resources, "disk"),
            ports: ranges(resources, "ports"),
            foreign_ports: BTreeSet::new(),
        }
    }

    pub(super) async fn resize(&mut self, run: &Run, allowance: &Allowance) {
        let limits = limits(&allowance.resources, &allowance.limits);
        self.mem = limits.mem;
        self.disk = scalar(&allowance.resources, "disk");
        self.ports = ranges(&allowance.resources, "ports");
        run.resized(allowance);
        let Some(cgroup) = self.cgroup.clone().filter(|_| run.launch.has_own_limits()) else { return };
        let limited = tokio::task::spawn_blocking(move || cgroup.limit(&limits, false)).await;
        if let Ok(Err(error)) = limited {
            tracing::warn!(container = %run.launch.container, %error, "limits cannot be changed");
        }
    }

    pub(super) fn is_short_of_memory(&self) -> bool {
        self.cgroup.as_ref().is_some_and(|it| it.oom_kills(self.is_limited) > self.kills_before)
    }

    pub(super) fn memory_limitation(&self) -> Option<Limitation> {
        let cgroup = self.cgroup.as_ref().filter(|_| self.is_short_of_memory())?;
        let usage = cgroup.usage();
        #[expect(clippy::cast_precision_loss, reason = "megabytes for people")]
        let megabytes = |it: u64| (it as f64 / f64::from(1 << 20) * 1000.0).round() / 1000.0;
        let limit = usage.statistics.mem_limit_bytes.map(megabytes);
        let used = usage.memory_peak.map(megabytes).or(limit).unwrap_or(self.mem);
        let limit_text = limit.unwrap_or(self.mem);
        let statistics = usage.memory_stat.trim_end();
        let message =
            format!("Memory limit exceeded: Requested: {limit_text}MB Maximum Used: {used}MB\n\nMEMORY STATISTICS: \n{statistics}\n");
        Some(Limitation { reason: task_status::Reason::ContainerLimitationMemory, message, resources: vec![scalar_resource("mem", used)] })
    }

    /// Whether the container listens where it must not, where that is enforced. It is logged in any case.
    pub(super) fn ports_limitation(&mut self, run: &Run, listening: &BTreeSet<u16>) -> Option<Limitation> {
        let foreign = ports::not_among(listening, &self.ports);
        let is_new = foreign != self.foreign_ports;
        self.foreign_ports = foreign;
        if self.foreign_ports.is_empty() {
            return None;
        }
        let found = ports::ranges(&self.foreign_ports);
        let shown: Vec<String> = found.iter().map(|(first, last)| format!("{first}-{last}")).collect();
        let message = format!("Container {} is listening on unallocated port(s): [{}]", run.launch.container, shown.join(", "));
        if is_new {
            tracing::info!(container = %run.launch.container, message);
        }
        run.shared.config.enforce_container_ports.then(|| Limitation {
            reason: task_status::Reason::ContainerLimitation,
            message,
            resources: vec![ranges_resource("ports", found.iter().map(|(first, last)| (u64::from(*first), u64::from(*last))))],
        })
    }

    /// Whether the sandbox holds too much, where that is to be limited: `used` bytes.
    pub(super) fn disk_limitation(&self, run: &Run, used: u64) -> Option<Limitation> {
        if !run.shared.config.enforce_container_disk_quota || self.disk <= 0.0 {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "megabytes for people")]
        let used = (used as f64 / f64::from(1 << 20) * 1000.0).round() / 1000.0;
        (used > self.disk).then(|| Limitation {
            reason: task_status::Reason::ContainerLimitationDisk,
            message: format!("Disk usage ({used}MB) exceeds quota ({}MB)", self.disk),
            resources: vec![scalar_resource("disk", used)],
        })
    }
}

/// What is looked at again and again. A look takes its time: whoever tells the container's loop something does not wait for it.
pub(super) struct Look<T> {
    every: Interval,
    what: Option<Arc<dyn Fn() -> T + Send + Sync>>,
    running: Option<JoinHandle<T>>,
}

impl Look<u64> {
    /// At the bytes that a container's sandbox holds, where they are isolated.
    pub(super) fn at_disk(run: &Run) -> Self {
        let (config, sandbox) = (&run.shared.config, run.sandbox.clone());
        let is_wanted = config.isolates("disk/du");
        Look::new(config.container_disk_watch_interval, is_wanted.then(|| Arc::new(move || disk_use(&sandbox)) as _))
    }
}

impl Look<BTreeSet<u16>> {
    /// At the ports on which a container listens with all that is nested in it, where they are isolated.
    pub(super) fn at_ports(run: &Run) -> Self {
        let config = &run.shared.config;
        let is_wanted = config.isolates("network/ports") && run.launch.container.parent().is_none();
        let cgroup = run.shared.cgroups.as_ref().filter(|_| is_wanted).map(|it| it.of(&run.launch.container));
        Look::new(config.container_ports_watch_interval, cgroup.map(|it| Arc::new(move || ports::listening(&it.pids())) as _))
    }
}

impl<T: Send + 'static> Look<T> {
    fn new(period: Duration, what: Option<Arc<dyn Fn() -> T + Send + Sync>>) -> Self {
        Look { every: super::every(period.max(Duration::from_millis(100))), what, running: None }
    }

    /// What was seen, each time; never, where nothing is looked at. Nothing is lost when this is given up and asked again.
    pub(super) async fn seen(&mut self) -> T {
        let Some(what) = &self.what else { return std::future::pending().await };
        loop {
            if let Some(running) = &mut self.running {
                let seen = running.await;
                self.running = None;
                if let Ok(seen) = seen {
                    return seen;
                }
            }
            self.every.tick().await;
            let what = what.clone();
            self.running = Some(tokio::task::spawn_blocking(move || what()));
        }
    }
}

/// Bytes that a directory occupies; links are not followed, and other file systems not entered.
fn disk_use(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;

    let Ok(root) = directory.symlink_metadata() else { return 0 };
    let mut total = root.blocks() * 512;
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.dev() != root.dev() {
                continue;
            }
            total += metadata.blocks() * 512;
            if metadata.is_dir() {
                open.push(entry.path());
            }
        }
    }
    total
}
