//! A report's records become rows. Everything here is about one host: a probe can say nothing of another.

use std::sync::Arc;

use base::Timestamp;

use crate::index::{ContainerIndex, FlowIndex, HostIndex, ProcessIndex};
use crate::report::{Pressure, ProbeId, Report, ReportKind};
use crate::topology::{ReportRefusal, Source, StreamId, Topology};

mod containers;
mod flows;
mod hosts;
mod listeners;
mod names;
mod processes;

impl Topology {
    /// Puts a report on the map, or says why not. Counts the records that were refused one by one.
    pub(crate) fn accept(&mut self, now: Timestamp, probe: &ProbeId, stream: StreamId, report: Report) -> Result<u64, ReportRefusal> {
        let row = self.probes.get_mut(probe).filter(|row| row.stream == Some(stream)).ok_or(ReportRefusal::StaleStream)?;
        row.last_seen = now;
        if report.sequence <= row.sequence {
            // Sent again after a reconnect: all records are absolute, and newer ones are on the map already.
            return Ok(0);
        }
        if report.kind == ReportKind::Delta {
            if row.in_snapshot || !row.complete {
                return Err(ReportRefusal::NoSnapshot);
            }
            if report.sequence != row.sequence + 1 {
                return Err(ReportRefusal::Gap { expected: row.sequence + 1, found: report.sequence });
            }
        } else if row.in_snapshot && report.sequence != row.sequence + 1 {
            return Err(ReportRefusal::Gap { expected: row.sequence + 1, found: report.sequence });
        } else if !row.in_snapshot {
            row.in_snapshot = true;
            row.epoch += 1;
        }
        row.sequence = report.sequence;
        if let Some(capture) = report.capture.clone() {
            row.capture = capture;
        }
        if let Some(losses) = report.losses.clone() {
            row.losses = losses;
        }
        let (source, epoch, kind) = (row.source, row.epoch, report.kind);
        let session = row.session.clone();
        let refused = match source {
            Source::Host(host) => self.apply(now, host, epoch, &session, report),
            Source::Cluster => self.apply_cluster(probe, epoch, report),
        };
        if kind == ReportKind::SnapshotEnd {
            match source {
                Source::Host(host) => self.sweep(now, host, epoch, &session),
                Source::Cluster => self.sweep_cluster(probe, epoch),
            }
            if let Some(row) = self.probes.get_mut(probe) {
                row.in_snapshot = false;
                row.complete = true;
            }
        }
        if let Some(row) = self.probes.get_mut(probe) {
            row.records_refused += refused;
        }
        Ok(refused)
    }

    fn apply(&mut self, now: Timestamp, host: HostIndex, epoch: u64, session: &Arc<str>, report: Report) -> u64 {
        // Only a cluster's collector speaks of Kubernetes.
        let mut refused = (report.kubernetes.len() + report.kubernetes_gone.len()) as u64;
        if let Some(record) = report.host {
            self.apply_host(host, record);
        }
        for image in report.images {
            self.apply_image(host, epoch, image);
        }
        for container in report.containers {
            refused += u64::from(!self.apply_container(host, epoch, container));
        }
        for process in report.processes {
            refused += u64::from(!self.apply_process(now, host, epoch, process));
        }
        for flow in report.flows {
            refused += u64::from(!self.apply_flow(now, host, epoch, session, flow));
        }
        for id in report.flows_gone {
            let flow = self.tables.hosts[host].flow_ids.get(&id).copied();
            flow.into_iter().for_each(|flow| self.flow_leaves(now, flow));
        }
        for key in report.processes_gone {
            let process = self.tables.hosts[host].processes.get(&key).copied();
            process.into_iter().for_each(|process| self.process_leaves(now, process));
        }
        for id in report.containers_gone {
            let container = self.tables.container_ids.get(&id).copied();
            container.filter(|&it| self.tables.containers[it].host == host).into_iter().for_each(|it| self.container_gone(it));
        }
        for id in report.images_gone {
            self.tables.hosts[host].images.remove(&id);
        }
        for listener in report.listeners {
            refused += u64::from(!self.apply_listener(host, epoch, listener));
        }
        for id in report.listeners_gone {
            self.listener_gone(host, id);
        }
        for flow in report.unix_flows {
            refused += u64::from(!self.apply_unix_flow(host, epoch, flow));
        }
        for id in report.unix_flows_gone {
            self.unix_flow_leaves(now, host, id);
        }
        // After the flows: a name that nothing leads to any more is forgotten at once.
        for name in report.resolved_addresses {
            refused += u64::from(!self.apply_name(host, epoch, name));
        }
        for address in report.resolved_addresses_gone {
            self.name_gone(host, address);
        }
        for sample in report.host_metrics {
            self.apply_host_metrics(host, sample);
        }
        for sample in report.process_metrics {
            self.apply_process_metrics(host, sample);
        }
        for sample in report.container_metrics {
            self.apply_container_metrics(host, sample);
        }
        refused
    }

    /// What an ended snapshot did not name is gone. Flows of an older session go at once: the new session named its own.
    fn sweep(&mut self, now: Timestamp, host: HostIndex, epoch: u64, session: &Arc<str>) {
        let row = &self.tables.hosts[host];
        let flows: Vec<FlowIndex> = row.flows.iter().copied().filter(|&it| self.flows.rows[it].epoch != epoch).collect();
        for flow in flows {
            if self.flows.rows[flow].session == *session { self.flow_leaves(now, flow) } else { self.remove_flow(flow) }
        }
        let row = &self.tables.hosts[host];
        let (listeners, unix_flows, names) =
            (row.listeners.older_than(epoch), row.unix_flows.older_than(epoch), row.names.older_than(epoch));
        listeners.into_iter().for_each(|id| self.listener_gone(host, id));
        unix_flows.into_iter().for_each(|id| self.unix_flow_leaves(now, host, id));
        names.into_iter().for_each(|address| self.name_gone(host, address));
        // Looked up only now: with its last flow, a process leaves that nothing else mentions.
        let row = &mut self.tables.hosts[host];
        row.images.retain(|_, image| image.epoch == epoch);
        let processes: Vec<ProcessIndex> = row.processes.values().copied().collect();
        let containers: Vec<ContainerIndex> = row.containers.iter().copied().collect();
        for process in processes {
            let row = &self.tables.processes[process];
            if row.described && row.epoch != epoch {
                self.process_leaves(now, process);
            }
        }
        for container in containers {
            if self.tables.containers.get(container).is_some_and(|row| row.record.is_some() && row.epoch != epoch) {
                self.container_gone(container);
            }
        }
    }
}

/// A pressure as it is kept in samples.
#[expect(clippy::cast_possible_truncation, reason = "a percentage with seven digits is enough")]
fn packed(pressure: Pressure) -> [f32; 3] {
    [pressure.cpu_percent as f32, pressure.memory_percent as f32, pressure.io_percent as f32]
}
