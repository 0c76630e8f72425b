//! What a probe said, as the map knows it now: for whoever keeps a copy and has lost track of it.

use crate::report::{Flow, ProbeHello, ProbeId, Report, ReportKind, ResolvedAddress};
use crate::topology::{Source, Topology};

impl Topology {
    /// The newest hello of a probe, and one report with everything that it said and that is not about to leave the map. `None` when the probe
    /// is not on the map. Costs in proportion to that probe.
    pub fn told_by(&self, probe: &ProbeId) -> Option<(ProbeHello, Report)> {
        let row = self.probes.get(probe)?;
        let hello = ProbeHello {
            host_name: row.host_name.clone(),
            version: row.version.clone(),
            session: row.session.clone(),
            oldest_held_sequence: 0,
            capture: row.capture.clone(),
            cluster_name: row.cluster_name.clone(),
            controls: row.controls.clone(),
        };
        let mut report =
            Report { sequence: row.sequence, kind: ReportKind::SnapshotEnd, losses: Some(row.losses.clone()), ..Report::default() };
        let Source::Host(host) = row.source else {
            report.kubernetes = row.objects.iter().filter_map(|&object| self.tables.kubernetes.record(object).cloned()).collect();
            return Some((hello, report));
        };
        let tables = &self.tables;
        let row = tables.hosts.get(host)?;
        report.host = Some(row.record.clone());
        report.images = row.images.values().map(|image| image.record.clone()).collect();
        let containers = row.containers.iter().filter_map(|&container| tables.containers.get(container));
        report.containers = containers.clone().filter_map(|container| container.record.clone()).collect();
        report.container_metrics = containers.filter_map(|container| container.latest.as_deref().cloned()).collect();
        let processes = row.processes.values().filter_map(|&process| tables.processes.get(process));
        report.processes = processes.filter(|it| it.described && it.leaves_at.is_none()).map(|it| it.record.clone()).collect();
        let flows = row.flows.iter().filter_map(|&flow| self.flows.rows.get(flow));
        let flows = flows.filter(|flow| !flow.is_gone).map(|flow| Flow {
            id: flow.probe_flow_id,
            key: Some(flow.key.clone()),
            counters: flow.counters,
            first_seen: flow.first_seen,
            last_active: flow.last_active,
            translations: flow.translations().to_vec(),
            others: flow.others(),
            applications: flow.applications().to_vec(),
        });
        report.flows = flows.collect();
        report.host_metrics = row.latest.iter().cloned().collect();
        report.listeners = row.listeners.iter().map(|it| it.record.clone()).collect();
        report.resolved_addresses = row.names.known().map(|(address, names)| ResolvedAddress { address, names: names.to_vec() }).collect();
        report.unix_flows = row.unix_flows.ids().filter_map(|id| row.unix_flows.get(id)).map(|it| it.record.clone()).collect();
        Some((hello, report))
    }
}
