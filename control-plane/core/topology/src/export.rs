//! What is on the map, as it was reported: for those who want to tell it on in other words.

use std::net::IpAddr;
use std::sync::Arc;

use base::Timestamp;

use crate::details::controls::{controls, of_any_container};
use crate::index::{ContainerIndex, Entity, ObjectIndex};
use crate::node::{Control, MetadataRow, MetricRow};
use crate::report::{Container, Host, Image, KubernetesKind, KubernetesObject, ProbeId, Process};
use crate::summary;
use crate::tables::ProcessRow;
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
    /// Processes.
    pub processes: Vec<ProcessExport>,
    /// What can be done with it.
    pub controls: Vec<Control>,
    /// Containers.
    pub containers: Vec<ContainerExport>,
    /// What can be done with a container in one state or another.
    pub container_controls: Vec<Control>,
    /// Images.
    pub images: Vec<Image>,
    /// Names of addresses, the latest first.
    pub names: Vec<(IpAddr, Vec<Arc<str>>)>,
}

/// A process.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessExport {
    /// What does not change.
    pub record: Process,
    /// Its metrics, with samples.
    pub metrics: Vec<MetricRow>,
    /// What the map shows of it that Scope does not.
    pub rows: Vec<MetadataRow>,
}

/// A container, and what can be done with it.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerExport {
    /// As its runtime tells of it.
    pub record: Container,
    /// Its metrics, with samples.
    pub metrics: Vec<MetricRow>,
    /// What the map shows of it that Scope does not.
    pub rows: Vec<MetadataRow>,
    /// What can be done with it.
    pub controls: Vec<Control>,
}

/// An object of a cluster, and what can be done with it.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectExport {
    /// The object.
    pub record: KubernetesObject,
    /// What can be done with it.
    pub controls: Vec<Control>,
}

impl Topology {
    /// A host by its name.
    pub fn export_host(&self, name: &str) -> Option<HostExport> {
        let index = *self.tables.host_names.get(name)?;
        let host = self.tables.hosts.get(index)?;
        let processes = host.processes.values().filter_map(|&it| self.tables.processes.get(it)).filter(|row| row.described);
        let cpu_count = host.record.cpu_count;
        let process = |row: &ProcessRow| ProcessExport {
            record: row.record.clone(),
            metrics: summary::process_metrics(row, cpu_count, true),
            rows: summary::own_process_rows(host, row),
        };
        let container = |&it: &ContainerIndex| {
            let row = self.tables.containers.get(it)?;
            let record = row.record.clone()?;
            let rows = summary::own_container_rows(&self.tables, row, &record);
            let metrics = summary::container_metrics(&self.tables, it, true);
            // There, a node has one probe for all of them.
            let own = controls(self, Entity::Container(it)).into_iter().filter(|control| control.probe_id == host.probe);
            let controls = own.collect();
            Some(ContainerExport { record, metrics, rows, controls })
        };
        Some(HostExport {
            name: host.name.clone(),
            probe: host.probe.clone(),
            probe_version: host.probe_version.clone(),
            last_seen: self.probes.get(&host.probe).map(|row| row.last_seen).unwrap_or_default(),
            record: host.record.clone(),
            metrics: summary::host_metrics(host, true),
            processes: processes.map(process).collect(),
            controls: controls(self, Entity::Host(index)),
            containers: host.containers.iter().filter_map(container).collect(),
            container_controls: of_any_container(self, &host.probe, &host.node_id),
            images: host.images.values().map(|row| row.record.clone()).collect(),
            names: host.names.all().map(|(address, names)| (address, names.cloned().collect())).collect(),
        })
    }

    /// All objects of all clusters.
    pub fn export_objects(&self) -> Vec<ObjectExport> {
        let export = |(object, record): (ObjectIndex, &KubernetesObject)| ObjectExport {
            record: record.clone(),
            controls: controls(self, Entity::Object(object)),
        };
        self.tables.kubernetes.records().map(export).collect()
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
