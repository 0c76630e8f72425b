//! Samples.

use proto::probe::v1 as wire;
use topology::{BlockDevice, ContainerMetrics, Disk, HostMetrics, NetworkInterface, Pressure, ProcessMetrics};

use super::fields::{id, number, percent, process_key};
use super::{Checked, Converter, NAME_MAX};

/// Most disks, block devices and interfaces of a host, each.
const DEVICES_MAX: usize = 64;

impl Converter {
    pub(super) fn host_metrics(&mut self, metrics: wire::HostMetrics) -> Checked<HostMetrics> {
        Ok(HostMetrics {
            at: self.time(metrics.at_unix_nanos),
            cpu_percent: percent("cpu_percent", metrics.cpu_percent)?,
            memory_used_bytes: metrics.memory_used_bytes,
            load1: number("load1", metrics.load1)?,
            load5: number("load5", metrics.load5)?,
            load15: number("load15", metrics.load15)?,
            swap_used_bytes: metrics.swap_used_bytes,
            pressure: metrics.pressure.map(|it| pressure(&it)).transpose().map_err(|fault| fault.inside("pressure"))?,
            disks: self.first(metrics.disks, DEVICES_MAX).map(|it| self.disk(it)).collect(),
            block_devices: self.first(metrics.block_devices, DEVICES_MAX).map(|it| self.block_device(it)).collect(),
            network_interfaces: self.first(metrics.network_interfaces, DEVICES_MAX).map(|it| self.network_interface(it)).collect(),
        })
    }

    fn disk(&mut self, disk: wire::host_metrics::Disk) -> Disk {
        Disk {
            mount_point: self.text(disk.mount_point, NAME_MAX),
            device: self.text(disk.device, NAME_MAX),
            file_system: self.text(disk.file_system, NAME_MAX),
            size_bytes: disk.size_bytes,
            used_bytes: disk.used_bytes,
        }
    }

    fn block_device(&mut self, device: wire::host_metrics::BlockDevice) -> BlockDevice {
        BlockDevice {
            name: self.text(device.name, NAME_MAX),
            read_bytes: device.read_bytes,
            written_bytes: device.written_bytes,
            busy_millis: device.busy_millis,
        }
    }

    fn network_interface(&mut self, interface: wire::host_metrics::NetworkInterface) -> NetworkInterface {
        NetworkInterface {
            name: self.text(interface.name, NAME_MAX),
            up: interface.up,
            received_bytes: interface.received_bytes,
            sent_bytes: interface.sent_bytes,
            received_packets: interface.received_packets,
            sent_packets: interface.sent_packets,
            errors: interface.errors,
            dropped: interface.dropped,
        }
    }

    pub(super) fn process_metrics(&mut self, metrics: &wire::ProcessMetrics) -> Checked<ProcessMetrics> {
        Ok(ProcessMetrics {
            key: process_key("key", metrics.key)?,
            at: self.time(metrics.at_unix_nanos),
            cpu_percent: percent("cpu_percent", metrics.cpu_percent)?,
            memory_bytes: metrics.memory_bytes,
            open_files: metrics.open_files,
            open_files_limit: metrics.open_files_limit,
            thread_count: metrics.thread_count,
            io_read_bytes: metrics.io_read_bytes,
            io_written_bytes: metrics.io_written_bytes,
        })
    }

    pub(super) fn container_metrics(&mut self, metrics: &wire::ContainerMetrics) -> Checked<ContainerMetrics> {
        Ok(ContainerMetrics {
            id: id("id", &metrics.id)?,
            at: self.time(metrics.at_unix_nanos),
            cpu_percent: percent("cpu_percent", metrics.cpu_percent)?,
            memory_bytes: metrics.memory_bytes,
            memory_limit_bytes: metrics.memory_limit_bytes,
            cpu_limit: number("cpu_limit", metrics.cpu_limit)?,
            cpu_throttled_percent: percent("cpu_throttled_percent", metrics.cpu_throttled_percent)?,
            cpu_throttled_nanos: metrics.cpu_throttled_nanos,
            pressure: metrics.pressure.as_ref().map(pressure).transpose().map_err(|fault| fault.inside("pressure"))?,
            oom_kills: metrics.oom_kills,
            io_read_bytes: metrics.io_read_bytes,
            io_written_bytes: metrics.io_written_bytes,
            process_count: metrics.process_count,
        })
    }
}

fn pressure(pressure: &wire::Pressure) -> Checked<Pressure> {
    Ok(Pressure {
        cpu_percent: percent("cpu_percent", pressure.cpu_percent)?,
        memory_percent: percent("memory_percent", pressure.memory_percent)?,
        io_percent: percent("io_percent", pressure.io_percent)?,
    })
}
