//! The limits of a container, and whether it runs into one.

use std::path::Path;

use mesos_proto::v1::task_status;

use super::super::{Run, limits};
use crate::cgroups::Cgroup;
use crate::table::Limitation;
use crate::words::scalar_resource;

/// The limits of a container, and whether it has run into one.
pub(super) struct Watched {
    cgroup: Option<Cgroup>,
    kills_before: u64,
    mem: f64,
    disk: f64,
}

impl Watched {
    pub(super) fn new(run: &Run) -> Self {
        let cgroup = run.shared.cgroups.as_ref().map(|it| it.of(&run.launch.container));
        // Nested containers share the memory of the outermost one: what was killed before them was not theirs.
        let is_nested = run.launch.container.parent().is_some();
        let kills_before = cgroup.as_ref().filter(|_| is_nested).map_or(0, Cgroup::oom_kills);
        let resources = &run.launch.resources;
        Watched { cgroup, kills_before, mem: crate::words::scalar(resources, "mem"), disk: crate::words::scalar(resources, "disk") }
    }

    pub(super) async fn resize(&mut self, run: &Run, resources: &[mesos_proto::v1::Resource]) {
        let limits = limits(resources, &run.launch.limits);
        self.mem = limits.mem;
        self.disk = crate::words::scalar(resources, "disk");
        run.resized(resources);
        let Some(cgroup) = self.cgroup.clone().filter(|_| run.launch.has_own_limits()) else { return };
        let limited = tokio::task::spawn_blocking(move || cgroup.limit(&limits, false)).await;
        if let Ok(Err(error)) = limited {
            tracing::warn!(container = %run.launch.container, %error, "limits cannot be changed");
        }
    }

    pub(super) fn is_short_of_memory(&self) -> bool {
        self.cgroup.as_ref().is_some_and(|it| it.oom_kills() > self.kills_before)
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

    /// Looks how much the sandbox holds, and whether that is too much where it is to be limited.
    pub(super) async fn disk_limitation(&self, run: &Run) -> Option<Limitation> {
        if !run.shared.config.isolates("disk/du") {
            return None;
        }
        let sandbox = run.sandbox.clone();
        let used = tokio::task::spawn_blocking(move || disk_use(&sandbox)).await.ok()?;
        run.uses_disk(used);
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

/// Bytes that a directory occupies; links are not followed, and other file systems not entered.
pub(crate) fn disk_use(directory: &Path) -> u64 {
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
