//! Samples of hosts, processes and containers.

use std::sync::Arc;

use base::Timestamp;

use super::ProcessKey;

/// Shares of the last ten seconds in which at least one task waited for a resource, 0 to 100.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// For a CPU.
    pub cpu_percent: f64,
    /// For memory.
    pub memory_percent: f64,
    /// For input and output.
    pub io_percent: f64,
}

/// A sample of the host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostMetrics {
    /// When.
    pub at: Timestamp,
    /// Share of all CPUs, 0 to 100.
    pub cpu_percent: f64,
    /// Used memory without caches.
    pub memory_used_bytes: u64,
    /// One-minute load.
    pub load1: f64,
    /// Five-minute load.
    pub load5: f64,
    /// Fifteen-minute load.
    pub load15: f64,
    /// Used swap space.
    pub swap_used_bytes: u64,
    /// `None` where the kernel does not tell.
    pub pressure: Option<Pressure>,
    /// Mounted file systems.
    pub disks: Vec<Disk>,
    /// Whole block devices.
    pub block_devices: Vec<BlockDevice>,
    /// Interfaces of the root network namespace.
    pub network_interfaces: Vec<NetworkInterface>,
}

/// A mounted file system on a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Where it is mounted.
    pub mount_point: Arc<str>,
    /// What is mounted.
    pub device: Arc<str>,
    /// `ext4` and so on.
    pub file_system: Arc<str>,
    /// Its size.
    pub size_bytes: u64,
    /// How much of that is used.
    pub used_bytes: u64,
}

/// A whole block device. Totals since the boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockDevice {
    /// `sda`, `nvme0n1`, …
    pub name: Arc<str>,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Time in which it had work, in milliseconds.
    pub busy_millis: u64,
}

/// A network interface. Totals since it came up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkInterface {
    /// `eth0` and so on.
    pub name: Arc<str>,
    /// Whether it is up.
    pub up: bool,
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Packets received.
    pub received_packets: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// Packets with errors, both ways.
    pub errors: u64,
    /// Packets dropped, both ways.
    pub dropped: u64,
}

/// A sample of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessMetrics {
    /// Whose.
    pub key: ProcessKey,
    /// When.
    pub at: Timestamp,
    /// Share of all CPUs, 0 to 100.
    pub cpu_percent: f64,
    /// Resident bytes.
    pub memory_bytes: u64,
    /// Open descriptors.
    pub open_files: u32,
    /// Soft limit of descriptors; 0 when unknown.
    pub open_files_limit: u64,
    /// Threads.
    pub thread_count: u32,
    /// Read from devices since its start; 0 when the kernel does not tell.
    pub io_read_bytes: u64,
    /// Written to devices since its start; 0 when the kernel does not tell.
    pub io_written_bytes: u64,
}

/// A sample of a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerMetrics {
    /// Whose.
    pub id: Arc<str>,
    /// When.
    pub at: Timestamp,
    /// Share of all CPUs, 0 to 100.
    pub cpu_percent: f64,
    /// Bytes without page cache.
    pub memory_bytes: u64,
    /// Limit; 0 when there is none.
    pub memory_limit_bytes: u64,
    /// CPUs that it may use; 0 when there is no limit.
    pub cpu_limit: f64,
    /// Share of the periods since the sample before in which that limit held it back, 0 to 100.
    pub cpu_throttled_percent: f64,
    /// How long that held it back in all, in nanoseconds.
    pub cpu_throttled_nanos: u64,
    /// `None` where the kernel does not tell.
    pub pressure: Option<Pressure>,
    /// Processes that the kernel ended because memory ran out.
    pub oom_kills: u64,
    /// Read from devices in all.
    pub io_read_bytes: u64,
    /// Written to devices in all.
    pub io_written_bytes: u64,
    /// Processes in it.
    pub process_count: u32,
}
