//! A host, its processes, and how its probe sees.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use proto::probe::v1 as wire;
use topology::{Capture, Cloud, Host, Losses, Process};

use super::fields::{each, network, optional_id, process_key, shown, written_address};
use super::{Checked, Converter, Fault, NAME_MAX, TEXT_MAX};

/// Most capabilities that are listed as missing; Linux has 41.
const CAPABILITIES_MAX: usize = 64;
/// Most causes of losses that are told apart.
const CAUSES_MAX: usize = 64;

impl Converter {
    pub(super) fn host(&mut self, host: wire::Host, host_name: &str) -> Checked<Host> {
        if host.host_name != host_name {
            return Err(Fault::WrongHost(format!(
                "it is about the host {}, and this is the stream of {host_name:?}",
                shown(&host.host_name)
            )));
        }
        Ok(Host {
            kernel_version: self.text(host.kernel_version, NAME_MAX),
            os: self.text(host.os, NAME_MAX),
            os_release: self.text(host.os_release, NAME_MAX),
            booted_at: self.time(host.booted_at_unix_nanos),
            local_networks: each("local_networks", host.local_networks, |it| network("network", &it))?,
            addresses: each("addresses", host.addresses, |it| written_address("address", &it))?,
            cpu_count: host.cpu_count,
            memory_bytes: host.memory_bytes,
            architecture: self.text(host.architecture, NAME_MAX),
            cloud: host.cloud.map(|cloud| Cloud {
                provider: self.text(cloud.provider, NAME_MAX),
                region: self.text(cloud.region, NAME_MAX),
                zone: self.text(cloud.zone, NAME_MAX),
                instance_id: self.text(cloud.instance_id, NAME_MAX),
                instance_type: self.text(cloud.instance_type, NAME_MAX),
            }),
        })
    }

    pub(super) fn process(&mut self, process: wire::Process) -> Checked<Process> {
        Ok(Process {
            key: process_key("key", process.key)?,
            parent_pid: process.parent_pid,
            name: self.text(process.name, NAME_MAX),
            command_line: self.text(process.command_line, TEXT_MAX),
            user_id: process.user_id,
            thread_count: process.thread_count,
            container_id: optional_id("container_id", &process.container_id)?,
            cgroup_id: process.cgroup_id,
            cgroup_path: self.text(process.cgroup_path, TEXT_MAX),
            exited_at: self.optional_time(process.exited_at_unix_nanos),
            exit_status: process.exit_status,
            oom_killed: process.oom_killed,
            user_name: (!process.user_name.is_empty()).then(|| self.text(process.user_name, NAME_MAX)),
        })
    }

    pub(super) fn capture(&mut self, capture: wire::Capture) -> Capture {
        let hook = |this: &mut Self, hook: wire::capture::Hook| {
            let error = if hook.attached { None } else { Some(this.text(hook.error, TEXT_MAX)) };
            (this.text(hook.name, NAME_MAX), error)
        };
        Capture {
            rung: capture.rung,
            description: self.text(capture.description, TEXT_MAX),
            reason: self.text(capture.reason, TEXT_MAX),
            blind_spots: capture.blind_spots.into_iter().map(|it| self.text(it, TEXT_MAX)).collect(),
            hooks: capture.hooks.into_iter().map(|it| hook(self, it)).collect(),
            overload_level: capture.overload_level,
            missing_capabilities: self.first(capture.missing_capabilities, CAPABILITIES_MAX).map(|it| self.text(it, NAME_MAX)).collect(),
        }
    }

    pub(super) fn losses(&mut self, losses: wire::Losses) -> Losses {
        Losses {
            ring_records: self.counts(losses.ring_records),
            flows_uncounted: losses.flows_uncounted,
            sockets_unowned: losses.sockets_unowned,
            table_full: losses.table_full,
            reports_merged: losses.reports_merged,
            ends_seen: losses.ends_seen,
            ends_reported: losses.ends_reported,
            other: self.counts(losses.other),
        }
    }

    /// Counts by cause: the first in alphabetical order.
    fn counts(&mut self, counts: HashMap<String, u64>) -> BTreeMap<Arc<str>, u64> {
        let mut counts: Vec<(String, u64)> = counts.into_iter().collect();
        counts.sort();
        self.first(counts, CAUSES_MAX).map(|(cause, count)| (self.text(cause, NAME_MAX), count)).collect()
    }
}
