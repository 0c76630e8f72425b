//! The files of a cgroup: what each is called, and what its text says. Pure. Formats: the kernel's admin-guide/cgroup-v2.rst and cgroup-v1/*.rst.

use crate::cgroupfs::Usage;
use crate::procfs::system;
use crate::procfs::words::{decimal, field, lines, number, words};

/// Longest file that is read: what a cgroup says of itself is a few kilobytes.
pub const FILE_MAX: u64 = 64 * 1024;

/// A number near 2^63, which v1 says where there is no limit, and anything that is no memory of a machine.
const NO_LIMIT_FROM: u64 = 1 << 62;

/// A file with something in it that is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// CPU time, of v1.
    CpuUsageV1,
    /// Throttling, of v1.
    CpuStatV1,
    /// CPU time and throttling, of v2.
    CpuStatV2,
    /// Memory with page cache, of v1.
    MemoryUsageV1,
    /// What the memory is for, and the narrowest limit, of v1.
    MemoryStatV1,
    /// Out-of-memory kills, of v1.
    OomV1,
    /// Memory with page cache, of v2.
    MemoryUsageV2,
    /// What the memory is for, of v2.
    MemoryStatV2,
    /// Out-of-memory kills, of v2.
    MemoryEventsV2,
    /// Bytes with those of the cgroups below; since Linux 5.0.
    IoRecursiveV1,
    /// Bytes of this very cgroup, of v1.
    IoV1,
    /// Bytes, of v2.
    IoV2,
    /// Processes and threads.
    Tasks,
    /// Waiting for CPU.
    CpuPressure,
    /// Waiting for memory.
    MemoryPressure,
    /// Waiting for devices.
    IoPressure,
}

impl File {
    /// All of them.
    pub const ALL: [File; 16] = [
        File::CpuUsageV1,
        File::CpuStatV1,
        File::CpuStatV2,
        File::MemoryUsageV1,
        File::MemoryStatV1,
        File::OomV1,
        File::MemoryUsageV2,
        File::MemoryStatV2,
        File::MemoryEventsV2,
        File::IoRecursiveV1,
        File::IoV1,
        File::IoV2,
        File::Tasks,
        File::CpuPressure,
        File::MemoryPressure,
        File::IoPressure,
    ];

    /// What it is called in the directory of a cgroup.
    pub fn name(self) -> &'static str {
        match self {
            File::CpuUsageV1 => "cpuacct.usage",
            File::CpuStatV1 | File::CpuStatV2 => "cpu.stat",
            File::MemoryUsageV1 => "memory.usage_in_bytes",
            File::MemoryStatV1 | File::MemoryStatV2 => "memory.stat",
            File::OomV1 => "memory.oom_control",
            File::MemoryUsageV2 => "memory.current",
            File::MemoryEventsV2 => "memory.events",
            File::IoRecursiveV1 => "blkio.throttle.io_service_bytes_recursive",
            File::IoV1 => "blkio.throttle.io_service_bytes",
            File::IoV2 => "io.stat",
            File::Tasks => "pids.current",
            File::CpuPressure => "cpu.pressure",
            File::MemoryPressure => "memory.pressure",
            File::IoPressure => "io.pressure",
        }
    }

    /// Takes in what the file says. What is not understood is left as it was. `is_stacked` tells devices whose bytes are counted on others, too.
    pub fn apply(self, text: &[u8], is_stacked: impl Fn((u64, u64)) -> bool, usage: &mut Usage) {
        let count = |name: &str| field(text, name.as_bytes()).unwrap_or(0);
        match self {
            File::CpuUsageV1 => usage.cpu_nanos = number(text),
            File::CpuStatV1 => {
                usage.periods = count("nr_periods");
                usage.throttled_periods = count("nr_throttled");
                usage.throttled_nanos = count("throttled_time");
            }
            File::CpuStatV2 => {
                usage.cpu_nanos = field(text, b"usage_usec").map(|it| it.saturating_mul(1_000));
                usage.periods = count("nr_periods");
                usage.throttled_periods = count("nr_throttled");
                usage.throttled_nanos = count("throttled_usec").saturating_mul(1_000);
            }
            File::MemoryUsageV1 | File::MemoryUsageV2 => usage.memory_bytes = number(text),
            File::MemoryStatV1 => {
                usage.cache_bytes = reclaimable(count("total_cache"), count("total_shmem"));
                usage.memory_limit_bytes = field(text, b"hierarchical_memory_limit").filter(|&it| it < NO_LIMIT_FROM).unwrap_or(0);
            }
            File::MemoryStatV2 => usage.cache_bytes = reclaimable(count("file"), count("shmem")),
            File::OomV1 | File::MemoryEventsV2 => usage.oom_kills = count("oom_kill"),
            File::IoRecursiveV1 | File::IoV1 => (usage.io_read_bytes, usage.io_written_bytes) = io_v1(text, is_stacked),
            File::IoV2 => (usage.io_read_bytes, usage.io_written_bytes) = io_v2(text, is_stacked),
            File::Tasks => usage.task_count = number(text).map_or(0, |it| u32::try_from(it).unwrap_or(u32::MAX)),
            File::CpuPressure => usage.pressure.get_or_insert_default().cpu_percent = system::pressure(text).unwrap_or(0.0),
            File::MemoryPressure => usage.pressure.get_or_insert_default().memory_percent = system::pressure(text).unwrap_or(0.0),
            File::IoPressure => usage.pressure.get_or_insert_default().io_percent = system::pressure(text).unwrap_or(0.0),
        }
    }
}

/// Page cache that can be given back: the kernel counts tmpfs and shared memory in it, whose only copy is in memory.
fn reclaimable(cache: u64, shared: u64) -> u64 {
    cache.saturating_sub(shared)
}

/// CPUs that `cpu.max` allows: "quota period" or "max period". `None` without a limit.
pub fn cpu_max(text: &[u8]) -> Option<f64> {
    let mut words = words(text);
    let quota = words.next().and_then(number)?;
    // Without a period the kernel takes 100 ms.
    share(quota, words.next().map_or(Some(100_000), number)?)
}

/// CPUs that `cpu.cfs_quota_us` (-1 without a limit) and `cpu.cfs_period_us` allow.
pub fn cfs_quota(quota: &[u8], period: &[u8]) -> Option<f64> {
    share(number(quota)?, number(period)?)
}

/// Bytes that `memory.max` allows; `None` without a limit ("max").
pub fn memory_max(text: &[u8]) -> Option<u64> {
    number(text).filter(|&it| it < NO_LIMIT_FROM)
}

fn share(quota: u64, period: u64) -> Option<f64> {
    // Both are microseconds; the kernel takes periods up to a second.
    let (quota, period) = (decimal(quota.to_string().as_bytes())?, decimal(period.to_string().as_bytes())?);
    (period > 0.0 && quota > 0.0).then(|| quota / period)
}

/// `io.stat`: "8:0 rbytes=1 wbytes=2 rios=…", a line per device.
fn io_v2(text: &[u8], is_stacked: impl Fn((u64, u64)) -> bool) -> (u64, u64) {
    let (mut read, mut written) = (0_u64, 0_u64);
    for line in lines(text) {
        let mut words = words(line);
        if words.next().and_then(device).is_none_or(&is_stacked) {
            continue;
        }
        for word in words {
            if let Some(bytes) = word.strip_prefix(b"rbytes=").and_then(number) {
                read = read.saturating_add(bytes);
            } else if let Some(bytes) = word.strip_prefix(b"wbytes=").and_then(number) {
                written = written.saturating_add(bytes);
            }
        }
    }
    (read, written)
}

/// `blkio.throttle.io_service_bytes`: "8:0 Read 1", several lines per device, and a total.
fn io_v1(text: &[u8], is_stacked: impl Fn((u64, u64)) -> bool) -> (u64, u64) {
    let (mut read, mut written) = (0_u64, 0_u64);
    for line in lines(text) {
        let mut words = words(line);
        if words.next().and_then(device).is_none_or(&is_stacked) {
            continue;
        }
        match (words.next(), words.next().and_then(number)) {
            (Some(b"Read"), Some(bytes)) => read = read.saturating_add(bytes),
            (Some(b"Write"), Some(bytes)) => written = written.saturating_add(bytes),
            _ => {}
        }
    }
    (read, written)
}

fn device(word: &[u8]) -> Option<(u64, u64)> {
    let colon = word.iter().position(|&byte| byte == b':')?;
    Some((number(&word[..colon])?, number(&word[colon + 1..])?))
}
