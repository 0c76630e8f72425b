//! Hosts: what they are, and how they are doing.

use std::net::IpAddr;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use topology::{HostMetrics, HostStatus};
use utoipa::ToSchema;

use super::moment;
use crate::http::Context;
use crate::http::reply::{json_value, stopped};

/// All hosts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HostList {
    /// Sorted by name.
    hosts: Vec<Host>,
}

/// A host.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Host {
    /// Its name.
    name: String,
    /// Id of the probe that reports on it.
    probe: String,
    /// Version of that probe.
    probe_version: String,
    /// Release of the running kernel.
    kernel_version: String,
    /// `linux`.
    os: String,
    /// Distribution, for people.
    os_release: String,
    /// `x86_64` and so on; empty when unknown.
    architecture: String,
    /// When it booted, RFC 3339.
    booted_at: String,
    /// Online CPUs.
    cpu_count: u32,
    /// Memory in bytes.
    memory_bytes: u64,
    /// Addresses of its interfaces.
    #[schema(value_type = Vec<String>)]
    addresses: Vec<IpAddr>,
    /// Networks of its interfaces, in CIDR notation.
    local_networks: Vec<String>,
    /// Where it is rented; null when it is not, or the provider does not say.
    #[schema(required)]
    cloud: Option<Cloud>,
    /// The newest sample; null before the first.
    #[schema(required)]
    metrics: Option<Metrics>,
    /// Processes, ended ones within the window included.
    processes: u64,
    /// Containers in any state.
    containers: u64,
    /// Flows.
    flows: u64,
    /// Listening sockets.
    listeners: u64,
    /// Addresses that have a name.
    named_addresses: u64,
}

/// What a provider's metadata service says of a host.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cloud {
    /// `aws`, `gcp`, `azure`, …
    provider: String,
    /// Region.
    region: String,
    /// Zone within it.
    zone: String,
    /// The provider's id of the machine.
    instance_id: String,
    /// Size of the machine, in the provider's words.
    instance_type: String,
}

/// A sample of a host.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metrics {
    /// When, RFC 3339.
    at: String,
    /// Share of all CPUs, 0 to 100.
    cpu_percent: f64,
    /// Used memory without caches.
    memory_used_bytes: u64,
    /// Used swap space.
    swap_used_bytes: u64,
    /// One-minute load.
    load1: f64,
    /// Five-minute load.
    load5: f64,
    /// Fifteen-minute load.
    load15: f64,
    /// Null where the kernel does not tell.
    #[schema(required)]
    pressure: Option<Pressure>,
    /// Mounted file systems.
    disks: Vec<Disk>,
    /// Whole block devices.
    block_devices: Vec<BlockDevice>,
    /// Network interfaces.
    network_interfaces: Vec<NetworkInterface>,
}

/// Shares of the last ten seconds in which at least one task waited for a resource, 0 to 100.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Pressure {
    /// For a CPU.
    cpu_percent: f64,
    /// For memory.
    memory_percent: f64,
    /// For input and output.
    io_percent: f64,
}

/// A mounted file system on a device.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Disk {
    /// Where it is mounted.
    mount_point: String,
    /// What is mounted.
    device: String,
    /// `ext4` and so on.
    file_system: String,
    /// Its size.
    size_bytes: u64,
    /// How much of that is used.
    used_bytes: u64,
}

/// A whole block device. Totals since the boot.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BlockDevice {
    /// `sda`, `nvme0n1`, …
    name: String,
    /// Bytes read.
    read_bytes: u64,
    /// Bytes written.
    written_bytes: u64,
    /// Time in which it had work, in milliseconds.
    busy_millis: u64,
}

/// A network interface. Totals since it came up.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NetworkInterface {
    /// `eth0` and so on.
    name: String,
    /// Whether it is up.
    up: bool,
    /// Bytes received.
    received_bytes: u64,
    /// Bytes sent.
    sent_bytes: u64,
    /// Packets received.
    received_packets: u64,
    /// Packets sent.
    sent_packets: u64,
    /// Packets with errors, both ways.
    errors: u64,
    /// Packets dropped, both ways.
    dropped: u64,
}

/// Hosts: what they are, and how they are doing.
#[utoipa::path(
    get,
    path = "/api/v1/hosts",
    tag = "Platform",
    responses((status = 200, description = "The hosts, sorted by name", body = HostList))
)]
pub(crate) async fn hosts(State(context): State<Context>) -> Response {
    match context.topology.hosts().await {
        Ok(hosts) => json_value(StatusCode::OK, &HostList { hosts: hosts.into_iter().map(Host::from).collect() }),
        Err(error) => stopped(error),
    }
}

impl From<HostStatus> for Host {
    fn from(status: HostStatus) -> Self {
        let record = status.record;
        let networks = record.local_networks.iter().map(|network| format!("{}/{}", network.address, network.prefix_length));
        Host {
            name: status.name.to_string(),
            probe: status.probe.to_string(),
            probe_version: status.probe_version.to_string(),
            kernel_version: record.kernel_version.to_string(),
            os: record.os.to_string(),
            os_release: record.os_release.to_string(),
            architecture: record.architecture.to_string(),
            booted_at: moment(record.booted_at),
            cpu_count: record.cpu_count,
            memory_bytes: record.memory_bytes,
            local_networks: networks.collect(),
            addresses: record.addresses,
            cloud: record.cloud.map(|cloud| Cloud {
                provider: cloud.provider.to_string(),
                region: cloud.region.to_string(),
                zone: cloud.zone.to_string(),
                instance_id: cloud.instance_id.to_string(),
                instance_type: cloud.instance_type.to_string(),
            }),
            metrics: status.metrics.map(Metrics::from),
            processes: status.processes,
            containers: status.containers,
            flows: status.flows,
            listeners: status.listeners,
            named_addresses: status.names,
        }
    }
}

impl From<HostMetrics> for Metrics {
    fn from(metrics: HostMetrics) -> Self {
        let disk = |it: &topology::Disk| Disk {
            mount_point: it.mount_point.to_string(),
            device: it.device.to_string(),
            file_system: it.file_system.to_string(),
            size_bytes: it.size_bytes,
            used_bytes: it.used_bytes,
        };
        let device = |it: &topology::BlockDevice| BlockDevice {
            name: it.name.to_string(),
            read_bytes: it.read_bytes,
            written_bytes: it.written_bytes,
            busy_millis: it.busy_millis,
        };
        let interface = |it: &topology::NetworkInterface| NetworkInterface {
            name: it.name.to_string(),
            up: it.up,
            received_bytes: it.received_bytes,
            sent_bytes: it.sent_bytes,
            received_packets: it.received_packets,
            sent_packets: it.sent_packets,
            errors: it.errors,
            dropped: it.dropped,
        };
        Metrics {
            at: moment(metrics.at),
            cpu_percent: metrics.cpu_percent,
            memory_used_bytes: metrics.memory_used_bytes,
            swap_used_bytes: metrics.swap_used_bytes,
            load1: metrics.load1,
            load5: metrics.load5,
            load15: metrics.load15,
            pressure: metrics.pressure.map(|it| Pressure {
                cpu_percent: it.cpu_percent,
                memory_percent: it.memory_percent,
                io_percent: it.io_percent,
            }),
            disks: metrics.disks.iter().map(disk).collect(),
            block_devices: metrics.block_devices.iter().map(device).collect(),
            network_interfaces: metrics.network_interfaces.iter().map(interface).collect(),
        }
    }
}
