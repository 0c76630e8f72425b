//! A node as a view shows it.

use topology::{Grid, GridColumn, GridRow, MetadataRow, MetricRow, NodeSummary, Parent, Shape, Table, View};

use super::Drawing;
use super::choice::Options;
use super::containers::container_id;
use super::graph::{Drawn, INTERNET_IN, INTERNET_OUT, PSEUDO, SERVICE, UNCONTAINED, UNMANAGED};
use crate::model::{ColumnTemplate, Kind, MetadataTemplate, MetricTemplate, TableTemplate};
use crate::text::{Text, image_without_tag, plural, untagged};

/// Links to what a node belongs to, in this order.
const PARENTS: [Kind; 12] = [
    Kind::Container,
    Kind::ContainerImage,
    Kind::Pod,
    Kind::Deployment,
    Kind::DaemonSet,
    Kind::StatefulSet,
    Kind::CronJob,
    Kind::Service,
    Kind::EcsTask,
    Kind::EcsService,
    Kind::SwarmService,
    Kind::Host,
];

/// What a container may be called, best first: orchestrators mangle its own name.
const CONTAINER_NAMES: [&str; 5] = [
    "docker_label_com.amazonaws.ecs.container-name",
    "docker_label_io.kubernetes.container.name",
    "docker_env_MARATHON_APP_ID",
    "docker_container_name",
    "docker_container_hostname",
];

/// The view that a link to a node of a table leads to.
pub(super) fn view_of(kind: Kind) -> Option<View> {
    match kind {
        Kind::Process => Some(View::Processes),
        Kind::Container => Some(View::Containers),
        Kind::ContainerImage => Some(View::ContainersByImage),
        Kind::Pod
        | Kind::PersistentVolume
        | Kind::PersistentVolumeClaim
        | Kind::StorageClass
        | Kind::VolumeSnapshot
        | Kind::VolumeSnapshotData => Some(View::Pods),
        Kind::Deployment | Kind::DaemonSet | Kind::StatefulSet | Kind::CronJob | Kind::Job => Some(View::KubeControllers),
        Kind::Service => Some(View::Services),
        Kind::EcsTask => Some(View::EcsTasks),
        Kind::EcsService => Some(View::EcsServices),
        Kind::SwarmService => Some(View::SwarmServices),
        Kind::Host => Some(View::Hosts),
        Kind::Endpoint | Kind::ReplicaSet | Kind::Namespace | Kind::Overlay => None,
    }
}

/// Whether a node is ever shown.
pub(super) fn is_shown(node: &Drawn) -> bool {
    let is_row =
        || Kind::from_name(&node.topology).is_some_and(|kind| !matches!(kind, Kind::Endpoint | Kind::ReplicaSet | Kind::Namespace));
    node.is_pseudo() || node.topology.starts_with("group:") || is_row()
}

/// A node of which only the edges count.
pub(super) fn bare(node: &Drawn) -> NodeSummary {
    let mut summary = labelled_by_id(&node.id, Shape::Circle);
    summary.adjacency = node.adjacency.iter().map(|id| topology::NodeId(id.clone())).collect();
    summary
}

fn labelled_by_id(id: &Text, shape: Shape) -> NodeSummary {
    NodeSummary { label: id.clone(), ..NodeSummary::blank(topology::NodeId(id.clone()), shape) }
}

impl Drawing {
    /// The node; `None` for what is never shown. With samples in its panel.
    pub(super) fn summarize(&self, node: &Drawn, options: &Options, with_samples: bool) -> Option<NodeSummary> {
        let mut summary = self.basics(node)?;
        summary.parents = self.parents(node);
        summary.adjacency = node.adjacency.iter().map(|id| topology::NodeId(id.clone())).collect();
        if let Some(kind) = Kind::from_name(&node.topology).filter(|kind| node.counter(kind.name()).is_none()) {
            let table = self.report.table(kind);
            summary.metadata =
                rows(table.metadata_templates.values().filter_map(|template| metadata_row(node, template)), |row| row.priority);
            summary.metrics =
                rows(table.metric_templates.values().filter_map(|template| metric_row(node, template, with_samples)), |row| row.priority);
            summary.tables = table.table_templates.values().map(|template| table_of(node, template)).collect();
            summary.tables.sort_by(|one, other| one.id.cmp(&other.id));
        }
        if options.hide_command_arguments {
            for row in summary.metadata.iter_mut().filter(|row| matches!(&*row.id, "cmdline" | "docker_container_command")) {
                let first = row.value.split_once(' ').map(|(first, _)| Text::from(first));
                row.value = first.unwrap_or_else(|| row.value.clone());
            }
        }
        if options.hide_environment {
            summary.tables.retain(|table| !table.id.starts_with("docker_env_"));
        }
        Some(summary)
    }

    /// Id, label, rank and shape.
    pub(super) fn basics(&self, node: &Drawn) -> Option<NodeSummary> {
        if node.is_pseudo() {
            return Some(pseudo(node));
        }
        if let Some(group) = node.topology.strip_prefix("group:") {
            return Some(self.group(node, group));
        }
        let kind = Kind::from_name(&node.topology)?;
        let table = self.report.table(kind);
        let shape = Shape::from_word(table.shape.as_deref().unwrap_or(kind.shape())).unwrap_or(Shape::Circle);
        let mut summary = labelled_by_id(&node.id, shape);
        summary.tag = if table.tag.as_deref().unwrap_or(kind.tag()) == "camera" { "camera" } else { "" };
        let value = |key: &str| node.value(key).cloned();
        let some = |key: &str| value(key).filter(|text| !text.is_empty());
        match kind {
            Kind::Endpoint | Kind::ReplicaSet | Kind::Namespace => return None,
            Kind::Process => process(node, &mut summary),
            Kind::Container => {
                let name = CONTAINER_NAMES.iter().find_map(|key| value(key));
                summary.label = name.unwrap_or_else(|| container_id(&node.id).chars().take(12).collect::<String>().into());
                summary.label_minor = node.host().into();
                summary.rank = match some("docker_image_name") {
                    Some(image) => image_without_tag(&image).into(),
                    None if !summary.label_minor.is_empty() => summary.label_minor.clone(),
                    None => summary.label.clone(),
                };
            }
            Kind::ContainerImage => {
                let name = value("docker_image_name").unwrap_or_default();
                let short = image_without_tag(&name);
                let known = [short, &name].into_iter().find(|it| !it.is_empty() && *it != "<none>");
                summary.label = known.unwrap_or_else(|| untagged(&node.id, "container_image").unwrap_or_default()).into();
                summary.label_minor = plural(node.counter("container").unwrap_or(0), "container", "containers");
                summary.rank = summary.label.clone();
                summary.stack = true;
            }
            Kind::EcsTask => {
                let family = some("ecs_task_family");
                summary.label = family.unwrap_or_else(|| untagged(&node.id, "ecs_task").unwrap_or_default().into());
            }
            Kind::EcsService => {
                let (cluster, name) = node.id.split_once(';').unwrap_or_default();
                summary.label = if name == "<ecs_service>" { cluster } else { name }.into();
                summary.stack = true;
            }
            Kind::SwarmService => {
                let name = some("service_name");
                summary.label = name.unwrap_or_else(|| untagged(&node.id, "swarm_service").unwrap_or_default().into());
            }
            Kind::Host => {
                let name = untagged(&node.id, "host").unwrap_or_default();
                let (label, domain) = name.split_once('.').unwrap_or((name, ""));
                summary.label = label.into();
                summary.label_minor = domain.into();
                summary.rank = domain.into();
            }
            Kind::Overlay => {
                let peer: Text = node.id.strip_prefix('#').unwrap_or(&node.id).into();
                summary.label = some("weave_peer_nick_name").unwrap_or_else(|| peer.clone());
                summary.label_minor = peer;
            }
            Kind::Pod
            | Kind::Service
            | Kind::Deployment
            | Kind::DaemonSet
            | Kind::StatefulSet
            | Kind::CronJob
            | Kind::Job
            | Kind::PersistentVolume
            | Kind::PersistentVolumeClaim
            | Kind::StorageClass
            | Kind::VolumeSnapshot
            | Kind::VolumeSnapshotData => kubernetes(kind, node, &mut summary),
        }
        Some(summary)
    }

    /// `container:docker_container_hostname` and the like.
    fn group(&self, node: &Drawn, group: &str) -> NodeSummary {
        let kind = group.split_once(':').and_then(|(kind, _)| Kind::from_name(kind));
        let table = kind.map(|kind| (kind, self.report.table(kind)));
        let shape = table.and_then(|(kind, table)| Shape::from_word(table.shape.as_deref().unwrap_or(kind.shape())));
        let mut summary = labelled_by_id(&node.id, shape.unwrap_or(Shape::Triangle));
        summary.rank = node.id.clone();
        summary.stack = true;
        if let Some((kind, table)) = table {
            let (one, many) = kind.labels();
            let (one, many) = (table.label.as_deref().unwrap_or(one), table.label_plural.as_deref().unwrap_or(many));
            summary.label_minor = plural(node.counter(kind.name()).unwrap_or(0), one, many);
        }
        summary
    }

    fn parents(&self, node: &Drawn) -> Vec<Parent> {
        let mut parents = Vec::new();
        for kind in PARENTS {
            let Some(view) = view_of(kind) else { continue };
            for id in node.parents(kind).filter(|&id| !(node.is(kind) && *id == node.id)) {
                let row = self.report.table(kind).nodes.get(id).cloned();
                let mut parent = Drawn::new(id.clone(), kind.name().into());
                parent.facts = row.unwrap_or_default();
                if let Some(basics) = self.basics(&parent) {
                    parents.push(Parent { id: basics.id, label: basics.label, topology_id: view.id() });
                }
            }
        }
        parents
    }
}

/// Rows in order of priority, and of their keys where that is equal.
fn rows<T>(rows: impl Iterator<Item = T>, priority: impl Fn(&T) -> f64) -> Vec<T> {
    let mut rows: Vec<T> = rows.collect();
    rows.sort_by(|one, other| priority(one).total_cmp(&priority(other)));
    rows
}

fn pseudo(node: &Drawn) -> NodeSummary {
    let id = &*node.id;
    let mut summary = labelled_by_id(&node.id, Shape::Cloud);
    summary.pseudo = true;
    summary.rank = id.strip_prefix("pseudo:").unwrap_or(id).into();
    match id {
        INTERNET_IN => (summary.label, summary.label_minor) = ("The Internet".into(), "Inbound connections".into()),
        INTERNET_OUT => (summary.label, summary.label_minor) = ("The Internet".into(), "Outbound connections".into()),
        _ => {
            if let Some(name) = id.strip_prefix(SERVICE) {
                summary.label = name.into();
            } else if let Some(host) = id.strip_prefix(UNCONTAINED) {
                (summary.label, summary.label_minor) = ("Uncontained".into(), host.into());
                (summary.shape, summary.stack) = (Shape::Square, true);
            } else if let Some(host) = id.strip_prefix(UNMANAGED) {
                (summary.label, summary.label_minor) = ("Unmanaged".into(), host.into());
                (summary.shape, summary.stack) = (Shape::Square, true);
            } else {
                summary.label = summary.rank.clone();
            }
        }
    }
    debug_assert!(*node.topology == *PSEUDO, "only what stands for the outside comes here");
    summary
}

fn process(node: &Drawn, summary: &mut NodeSummary) {
    let (host, pid) = node.id.split_once(';').unwrap_or_default();
    let value = |key: &str| node.value(key).filter(|text| !text.is_empty());
    match (value("name"), value("docker_container_name")) {
        (Some(name), Some(container)) => {
            (summary.label, summary.rank) = (name.clone(), name.clone());
            summary.label_minor = format!("{host} ({container}:{pid})").into();
        }
        (Some(name), None) => {
            (summary.label, summary.rank) = (name.clone(), name.clone());
            summary.label_minor = format!("{host} ({pid})").into();
        }
        (None, Some(container)) => {
            (summary.label, summary.rank) = (pid.into(), host.into());
            summary.label_minor = format!("{host} ({container})").into();
        }
        (None, None) => {
            (summary.label, summary.rank) = (pid.into(), host.into());
            summary.label_minor = host.into();
        }
    }
}

fn kubernetes(kind: Kind, node: &Drawn, summary: &mut NodeSummary) {
    let name = node.value("kubernetes_name").filter(|name| !name.is_empty());
    summary.label = name.cloned().unwrap_or_else(|| node.id.split_once(';').map_or("", |(id, _)| id).into());
    summary.rank = format!("{}/{}", node.value("kubernetes_namespace").map_or("", |it| it), summary.label).into();
    let pods = || plural(node.counter("pod").unwrap_or(0), "pod", "pods");
    let of_pods = |name: &str| -> Text { format!("{name} of {}", pods()).into() };
    let (label_minor, stack) = match kind {
        Kind::Pod => (plural(node.counter("container").unwrap_or(0), "container", "containers"), false),
        Kind::Service => (pods(), true),
        Kind::Deployment => (of_pods("Deployment"), true),
        Kind::DaemonSet => (of_pods("DaemonSet"), true),
        Kind::StatefulSet => (of_pods("StatefulSet"), true),
        Kind::CronJob => (of_pods("CronJob"), true),
        Kind::Job => (of_pods("Job"), true),
        _ => ("".into(), false),
    };
    (summary.label_minor, summary.stack) = (label_minor, stack);
}

fn metadata_row(node: &Drawn, template: &MetadataTemplate) -> Option<MetadataRow> {
    let latest = || node.value(&template.id).cloned();
    let sets = || {
        let set = node.facts.sets.get(&template.id)?;
        Some(set.iter().map(|text| &**text).collect::<Vec<_>>().join(", ").into())
    };
    let counters = || Some(node.counter(&template.id)?.to_string().into());
    let value: Text = match &*template.from {
        "latest" => latest(),
        "sets" => sets(),
        "counters" => counters(),
        _ => latest().or_else(sets).or_else(counters),
    }?;
    let word = |text: &Text| text.to_string().into();
    Some(MetadataRow {
        id: word(&template.id),
        label: word(&template.label),
        value,
        priority: template.priority,
        data_type: word(&template.data_type),
        truncate: template.truncate,
    })
}

fn metric_row(node: &Drawn, template: &MetricTemplate, with_samples: bool) -> Option<MetricRow> {
    let metric = node.facts.metrics.get(&template.id)?;
    let word = |text: &Text| text.to_string().into();
    let samples = metric.samples.iter().filter(|_| with_samples).map(|sample| (sample.at.into(), sample.value));
    Some(MetricRow {
        id: word(&template.id),
        label: word(&template.label),
        format: word(&template.format),
        group: word(&template.group),
        // Cut, not rounded.
        value: metric.samples.last().map_or(0.0, |sample| (sample.value * 100.0).trunc() / 100.0),
        priority: template.priority,
        samples: samples.collect(),
        min: metric.min,
        max: metric.max,
    })
}

fn grid_column(column: &ColumnTemplate) -> GridColumn {
    GridColumn { id: column.id.clone(), label: column.label.clone(), data_type: column.data_type.clone() }
}

fn table_of(node: &Drawn, template: &TableTemplate) -> Table {
    let prefix = &*template.prefix;
    let behind = |key: &str| Some(key.strip_prefix(prefix)?.to_owned()).filter(|_| !prefix.is_empty());
    let truncation = node.value(&format!("table_truncation_count_{prefix}")).and_then(|count| count.parse().ok());
    let kind: Text = if template.kind.is_empty() { "property-list".into() } else { template.kind.clone() };
    let columns = template.columns.as_ref();
    let columns = columns.map(|columns| columns.iter().map(grid_column).collect());
    let mut grid = Grid { kind, columns, rows: Vec::new(), truncation_count: truncation.unwrap_or(0) };
    let mut rows: Vec<(Text, Text)> = Vec::new();
    if &*grid.kind == "multicolumn-table" {
        let mut by_id: std::collections::BTreeMap<Text, Vec<(Text, Text)>> = std::collections::BTreeMap::new();
        for (key, latest) in &node.facts.latest {
            // `<prefix><row>___<column>`; without a column there is no cell.
            let Some(cell) = behind(key) else { continue };
            let mut parts = cell.split("___");
            if let (Some(row), Some(column)) = (parts.next(), parts.next()) {
                by_id.entry(row.into()).or_default().push((column.into(), latest.value.clone()));
            }
        }
        grid.rows = by_id.into_iter().map(|(id, cells)| GridRow { id, cells }).collect();
    } else {
        let mut by_label: std::collections::BTreeMap<Text, Text> = std::collections::BTreeMap::new();
        for (key, latest) in &node.facts.latest {
            let label = template.fixed_rows.get(key).cloned().or_else(|| behind(key).map(Text::from));
            if let Some(label) = label {
                by_label.insert(label, latest.value.clone());
            }
        }
        rows = by_label.into_iter().collect();
    }
    let is_plain = &*grid.kind == "property-list" && grid.columns.is_none() && grid.truncation_count == 0;
    Table { id: template.id.to_string().into(), label: template.label.to_string().into(), rows, grid: (!is_plain).then(|| Box::new(grid)) }
}
