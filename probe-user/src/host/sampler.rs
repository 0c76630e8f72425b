//! Metrics of the host, by looking at regular times.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use proto::probe::v1::{HostMetrics, Pressure};

use crate::clock::Now;
use crate::host::disks::{self, Disks};
use crate::host::interfaces;
use crate::host::namespace::{host_process, in_host_network};
use crate::procfs::{Procfs, parse, read_limited, system};

/// Block devices that are told at most.
pub const BLOCK_DEVICES_MAX: usize = 64;

/// Longest mount table that is read: the host's own mounts come before those of thousands of containers.
const MOUNTS_MAX: u64 = 4 * 1024 * 1024;

/// Looks at the host, and remembers what it needs for the next look.
#[derive(Debug)]
pub struct HostSampler {
    procfs: Arc<Procfs>,
    ticks: Option<(u64, u64)>,
    disks: Disks,
}

/// What a look at the host found.
#[derive(Debug, Default)]
pub struct Looked {
    /// The sample; `None` when `/proc` does not tell what every host has.
    pub metrics: Option<HostMetrics>,
    /// Number of CPUs; 0 when unknown.
    pub cpu_count: u32,
    /// Devices that keep their data on others, in order.
    pub stacked: Vec<(u64, u64)>,
    /// File systems that do not answer.
    pub unanswered: usize,
}

impl HostSampler {
    /// A sampler that has not looked yet.
    pub fn new(procfs: Arc<Procfs>) -> Self {
        HostSampler { procfs, ticks: None, disks: Disks::default() }
    }

    /// Looks once.
    pub fn look(&mut self, now: Now) -> Looked {
        let diskstats = self.procfs.read_global("diskstats").unwrap_or_default();
        let mut looked = Looked { stacked: system::stacked_devices(&diskstats), ..Looked::default() };
        let Some(mut metrics) = self.basic(now, &mut looked) else { return looked };
        metrics.pressure = self.pressure();
        let (block_devices, devices_left_out) = system::block_devices(&diskstats, BLOCK_DEVICES_MAX);
        let (network_interfaces, interfaces_left_out) = self.interfaces().finish();
        let (mounts, root) = self.mounts();
        let (file_systems, disks_left_out) = disks::choose(&mounts, disks::DISKS_MAX);
        let sizes = self.disks.sizes(&root, file_systems);
        metrics.block_devices = block_devices;
        metrics.network_interfaces = network_interfaces;
        metrics.disks = sizes.disks;
        looked.unanswered = sizes.unanswered;
        metrics.left_out = u32::try_from(devices_left_out + interfaces_left_out + disks_left_out + sizes.unanswered).unwrap_or(u32::MAX);
        looked.metrics = Some(metrics);
        looked
    }

    /// What every host has.
    fn basic(&mut self, now: Now, looked: &mut Looked) -> Option<HostMetrics> {
        let (busy, total, count) = parse::cpu_ticks(&self.procfs.read_global("stat").ok()?)?;
        looked.cpu_count = count;
        let previous = self.ticks.replace((busy, total));
        let meminfo = self.procfs.read_global("meminfo").ok()?;
        let (_, memory_used_bytes) = parse::memory(&meminfo)?;
        let [load1, load5, load15] = system::loads(&self.procfs.read_global("loadavg").ok()?)?;
        let cpu_percent = previous.map_or(0.0, |(busy_then, total_then)| {
            crate::procfs::sampler::percent(busy.saturating_sub(busy_then), total.saturating_sub(total_then))
        });
        Some(HostMetrics {
            at_unix_nanos: now.unix_nanos,
            cpu_percent,
            memory_used_bytes,
            load1,
            load5,
            load15,
            swap_used_bytes: system::swap_used(&meminfo).unwrap_or(0),
            ..HostMetrics::default()
        })
    }

    /// Waiting for CPU, memory and devices; `None` where the kernel keeps no account of it.
    fn pressure(&self) -> Option<Pressure> {
        let share = |file: &str| self.procfs.read_global(file).ok().and_then(|text| system::pressure(&text));
        let (cpu, memory, io) = (share("pressure/cpu"), share("pressure/memory"), share("pressure/io"));
        (cpu.is_some() || memory.is_some() || io.is_some()).then(|| Pressure {
            cpu_percent: cpu.unwrap_or(0.0),
            memory_percent: memory.unwrap_or(0.0),
            io_percent: io.unwrap_or(0.0),
        })
    }

    fn interfaces(&self) -> interfaces::Interfaces {
        in_host_network(&self.procfs, interfaces::read_here).unwrap_or_else(|error| {
            tracing::debug!(%error, "the host's network namespace cannot be entered; its interfaces are read from /proc");
            interfaces::parse_dev(&std::fs::read(host_process(self.procfs.root()).join("net/dev")).unwrap_or_default())
        })
    }

    /// The host's mount table, and where its paths begin; else our own.
    fn mounts(&self) -> (Vec<u8>, PathBuf) {
        let host = host_process(self.procfs.root());
        let root = host.join("root");
        // Only who may look at its files can follow its root.
        match read_limited(&host.join("mountinfo"), MOUNTS_MAX) {
            Ok(mounts) if !mounts.is_empty() && root.join(".").is_dir() => (mounts, root),
            _ => (read_limited(Path::new("/proc/self/mountinfo"), MOUNTS_MAX).unwrap_or_default(), PathBuf::from("/")),
        }
    }
}
