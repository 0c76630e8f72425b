//! What is told of hosts, processes and containers besides what a table shows of them.

use std::collections::BTreeMap;

use proto::probe::v1;
use serde::Serialize;

/// How much of the time something had to wait, in percent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/once.md has the fields; a test compares")]
pub struct Pressure {
    pub cpu_percent: f64,
    pub memory_percent: f64,
    pub io_percent: f64,
}

/// More of the node.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/once.md has the fields; a test compares")]
pub struct OfHost {
    pub uptime_seconds: Option<u64>,
    pub swap_used_bytes: Option<u64>,
    pub pressure: Option<Pressure>,
    pub disks: Vec<Disk>,
    pub block_devices: Vec<BlockDevice>,
    pub network_interfaces: Vec<NetworkInterface>,
}

/// A file system.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/once.md has the fields; a test compares")]
pub struct Disk {
    pub mount_point: String,
    pub device: String,
    pub file_system: String,
    pub size_bytes: u64,
    pub used_bytes: u64,
}

/// What file systems are on.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/once.md has the fields; a test compares")]
pub struct BlockDevice {
    pub name: String,
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub busy_millis: u64,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/once.md has the fields; a test compares")]
pub struct NetworkInterface {
    pub name: String,
    pub up: bool,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    pub received_packets: u64,
    pub sent_packets: u64,
    pub errors: u64,
    pub dropped: u64,
}

/// More of a process.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/once.md has the fields; a test compares")]
pub struct OfProcess {
    pub exit_status: Option<i32>,
    pub oom_killed: bool,
    pub open_files_limit: Option<u64>,
    pub io_read_bytes: Option<u64>,
    pub io_written_bytes: Option<u64>,
}

/// More of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/once.md has the fields; a test compares")]
pub struct OfContainer {
    pub image_id: String,
    pub command: String,
    pub hostname: String,
    pub environment: BTreeMap<String, String>,
    pub networks: Vec<String>,
    pub network_mode: String,
    pub ports: Vec<Port>,
    pub health: String,
    pub exit_code: Option<i32>,
    pub oom_killed: bool,
    pub cpu_limit: Option<f64>,
    pub cpu_throttled_percent: Option<f64>,
    pub cpu_throttled_nanos: Option<u64>,
    pub pressure: Option<Pressure>,
    pub oom_kills: Option<u64>,
    pub io_read_bytes: Option<u64>,
    pub io_written_bytes: Option<u64>,
    pub process_count: Option<u32>,
    pub thread_count: Option<u32>,
}

/// A port of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/once.md has the fields; a test compares")]
pub struct Port {
    pub container_port: u32,
    pub protocol: String,
    pub host_address: String,
    pub host_port: Option<u32>,
}

fn pressure(pressure: &v1::Pressure) -> Pressure {
    Pressure { cpu_percent: pressure.cpu_percent, memory_percent: pressure.memory_percent, io_percent: pressure.io_percent }
}

impl OfHost {
    /// Of a host that was started at `booted_at`, `now`; both in nanoseconds since 1970, 0 when unknown.
    pub(super) fn of(booted_at: u64, now: u64, metrics: Option<&v1::HostMetrics>) -> Self {
        let uptime_seconds = (booted_at != 0).then(|| now.saturating_sub(booted_at) / 1_000_000_000);
        let Some(metrics) = metrics else { return OfHost { uptime_seconds, ..OfHost::default() } };
        let disk = |it: &v1::host_metrics::Disk| Disk {
            mount_point: it.mount_point.clone(),
            device: it.device.clone(),
            file_system: it.file_system.clone(),
            size_bytes: it.size_bytes,
            used_bytes: it.used_bytes,
        };
        let block_device = |it: &v1::host_metrics::BlockDevice| BlockDevice {
            name: it.name.clone(),
            read_bytes: it.read_bytes,
            written_bytes: it.written_bytes,
            busy_millis: it.busy_millis,
        };
        let interface = |it: &v1::host_metrics::NetworkInterface| NetworkInterface {
            name: it.name.clone(),
            up: it.up,
            received_bytes: it.received_bytes,
            sent_bytes: it.sent_bytes,
            received_packets: it.received_packets,
            sent_packets: it.sent_packets,
            errors: it.errors,
            dropped: it.dropped,
        };
        OfHost {
            uptime_seconds,
            swap_used_bytes: Some(metrics.swap_used_bytes),
            pressure: metrics.pressure.as_ref().map(pressure),
            disks: metrics.disks.iter().map(disk).collect(),
            block_devices: metrics.block_devices.iter().map(block_device).collect(),
            network_interfaces: metrics.network_interfaces.iter().map(interface).collect(),
        }
    }
}

impl OfProcess {
    pub(super) fn of(process: &v1::Process, metrics: Option<&v1::ProcessMetrics>) -> Self {
        OfProcess {
            exit_status: (process.exited_at_unix_nanos != 0).then_some(process.exit_status),
            oom_killed: process.oom_killed,
            open_files_limit: metrics.map(|it| it.open_files_limit).filter(|&limit| limit != 0),
            io_read_bytes: metrics.map(|it| it.io_read_bytes),
            io_written_bytes: metrics.map(|it| it.io_written_bytes),
        }
    }
}

impl OfContainer {
    pub(super) fn of(container: &v1::Container, metrics: Option<&v1::ContainerMetrics>) -> Self {
        let has_ended = matches!(container.state(), v1::ContainerState::Exited | v1::ContainerState::Dead);
        let port = |it: &v1::PortMapping| Port {
            container_port: it.container_port,
            protocol: it.protocol.clone(),
            host_address: it.host_address.clone(),
            host_port: (it.host_port != 0).then_some(it.host_port),
        };
        OfContainer {
            image_id: container.image_id.clone(),
            command: container.command.clone(),
            hostname: container.hostname.clone(),
            environment: container.environment.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            networks: container.networks.clone(),
            network_mode: container.network_mode.clone(),
            ports: container.ports.iter().map(port).collect(),
            health: container.health.clone(),
            exit_code: has_ended.then_some(container.exit_code),
            oom_killed: container.oom_killed,
            cpu_limit: metrics.map(|it| it.cpu_limit).filter(|&limit| limit > 0.0),
            cpu_throttled_percent: metrics.map(|it| it.cpu_throttled_percent),
            cpu_throttled_nanos: metrics.map(|it| it.cpu_throttled_nanos),
            pressure: metrics.and_then(|it| it.pressure.as_ref()).map(pressure),
            oom_kills: metrics.map(|it| it.oom_kills),
            io_read_bytes: metrics.map(|it| it.io_read_bytes),
            io_written_bytes: metrics.map(|it| it.io_written_bytes),
            process_count: metrics.map(|it| it.process_count),
            thread_count: metrics.map(|it| it.thread_count),
        }
    }
}
