//! What is on the map, as it was reported: for those who want to tell it on in other words.

use std::net::IpAddr;
use std::sync::Arc;

use base::Timestamp;

use crate::node::MetricRow;
use crate::report::{Container, Host, Image, KubernetesKind, KubernetesObject, ProbeId, Process};
use crate::summary;
use crate::topology::Topology;

/// A host with everything that its probe told, except for its connections: [`Topology::flows`] has those.
#[derive(Clone, Debug, PartialEq)]
pub struct HostExport {
    /// Its name.
    pub name: Arc<str>,
    /// Who reports on it.
    pub probe: ProbeId,
    /// Version of that probe.
    pub probe_version: Arc<str>,
    /// When that was last heard of.
    pub last_seen: Timestamp,
    /// What does not change.
    pub record: Host,
    /// Its metrics, with samples.
    pub metrics: Vec<MetricRow>,
    /// Processes and their metrics.
    pub processes: Vec<(Process, Vec<MetricRow>)>,
    /// Containers and their metrics.
    pub containers: Vec<(Container, Vec<MetricRow>)>,
    /// Images.
    pub images: Vec<Image>,
    /// Names of addresses, the latest first.
    pub names: Vec<(IpAddr, Vec<Arc<str>>)>,
}

impl Topology {
    /// A host by its name.
    pub fn export_host(&self, name: &str) -> Option<HostExport> {
        let host = self.tables.hosts.get(*self.tables.host_names.get(name)?)?;
        let processes = host.processes.values().filter_map(|&it| self.tables.processes.get(it)).filter(|row| row.described);
        let cpu_count = host.record.cpu_count;
        let containers = host.containers.iter().filter_map(|&it| Some((it, self.tables.containers.get(it)?.record.clone()?)));
        Some(HostExport {
            name: host.name.clone(),
            probe: host.probe.clone(),
            probe_version: host.probe_version.clone(),
            last_seen: self.probes.get(&host.probe).map(|row| row.last_seen).unwrap_or_default(),
            record: host.record.clone(),
            metrics: summary::host_metrics(host, true),
            processes: processes.map(|row| (row.record.clone(), summary::process_metrics(row, cpu_count, true))).collect(),
            containers: containers.map(|(it, record)| (record, summary::container_metrics(&self.tables, it, true))).collect(),
            images: host.images.values().map(|row| row.record.clone()).collect(),
            names: host.names.all().map(|(address, names)| (address, names.cloned().collect())).collect(),
        })
    }

    /// All objects of all clusters.
    pub fn export_objects(&self) -> Vec<KubernetesObject> {
        self.tables.kubernetes.records().cloned().collect()
    }

    /// Names of Kubernetes namespaces that something is in, sorted.
    pub fn namespaces(&self) -> Vec<Arc<str>> {
        let mut names: Vec<Arc<str>> = self.tables.kubernetes.names_of(KubernetesKind::Namespace).cloned().collect();
        names.extend(self.tables.kubernetes.namespaces_of_pods());
        names.sort();
        names.dedup();
        names
    }
}
