//! What a report is: tables of nodes, and how their rows are shown.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::text::Text;
use crate::time::Time;

/// A table of a report. Scope calls it a topology, as it calls a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "their names say it")]
pub enum Kind {
    Endpoint,
    Process,
    Container,
    ContainerImage,
    Pod,
    Service,
    Deployment,
    ReplicaSet,
    DaemonSet,
    StatefulSet,
    CronJob,
    Namespace,
    Host,
    Overlay,
    EcsTask,
    EcsService,
    SwarmService,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
    VolumeSnapshot,
    VolumeSnapshotData,
    Job,
}

/// What is said of each table: its key in a report, the name that its nodes have as their topology, its shape and tag, and its nodes' name
/// for one and for many.
type Facts = (&'static str, &'static str, &'static str, &'static str, &'static str, &'static str);

impl Kind {
    /// All of them, in the order in which Scope lists them.
    pub const ALL: [Kind; 23] = [
        Kind::Endpoint,
        Kind::Process,
        Kind::Container,
        Kind::ContainerImage,
        Kind::Pod,
        Kind::Service,
        Kind::Deployment,
        Kind::ReplicaSet,
        Kind::DaemonSet,
        Kind::StatefulSet,
        Kind::CronJob,
        Kind::Namespace,
        Kind::Host,
        Kind::Overlay,
        Kind::EcsTask,
        Kind::EcsService,
        Kind::SwarmService,
        Kind::PersistentVolume,
        Kind::PersistentVolumeClaim,
        Kind::StorageClass,
        Kind::VolumeSnapshot,
        Kind::VolumeSnapshotData,
        Kind::Job,
    ];

    const FACTS: [Facts; 23] = [
        ("Endpoint", "endpoint", "", "", "", ""),
        ("Process", "process", "square", "", "process", "processes"),
        ("Container", "container", "hexagon", "", "container", "containers"),
        ("ContainerImage", "container_image", "hexagon", "", "image", "images"),
        ("Pod", "pod", "heptagon", "", "pod", "pods"),
        ("Service", "service", "heptagon", "", "service", "services"),
        ("Deployment", "deployment", "heptagon", "", "deployment", "deployments"),
        ("ReplicaSet", "replica_set", "triangle", "", "replica set", "replica sets"),
        ("DaemonSet", "daemon_set", "pentagon", "", "daemonset", "daemonsets"),
        ("StatefulSet", "stateful_set", "octagon", "", "stateful set", "stateful sets"),
        ("CronJob", "cron_job", "triangle", "", "cron job", "cron jobs"),
        ("Namespace", "namespace", "", "", "", ""),
        ("Host", "host", "circle", "", "host", "hosts"),
        ("Overlay", "overlay", "circle", "", "peer", "peers"),
        ("ECSTask", "ecs_task", "heptagon", "", "task", "tasks"),
        ("ECSService", "ecs_service", "heptagon", "", "service", "services"),
        ("SwarmService", "swarm_service", "heptagon", "", "service", "services"),
        ("PersistentVolume", "persistent_volume", "cylinder", "", "persistent volume", "persistent volumes"),
        ("PersistentVolumeClaim", "persistent_volume_claim", "dottedcylinder", "", "persistent volume claim", "persistent volume claims"),
        ("StorageClass", "storage_class", "sheet", "", "storage class", "storage classes"),
        ("VolumeSnapshot", "volume_snapshot", "dottedcylinder", "camera", "volume snapshot", "volume snapshots"),
        ("VolumeSnapshotData", "volume_snapshot_data", "cylinder", "camera", "volume snapshot data", "volume snapshot data"),
        ("Job", "job", "dottedtriangle", "", "job", "jobs"),
    ];

    fn facts(self) -> &'static Facts {
        &Kind::FACTS[self.place()]
    }

    pub(crate) fn place(self) -> usize {
        Kind::ALL.iter().position(|kind| *kind == self).unwrap_or(0)
    }

    /// Its key in a report, e.g. `ContainerImage`.
    pub fn key(self) -> &'static str {
        self.facts().0
    }

    /// What its nodes have as their topology, e.g. `container_image`.
    pub fn name(self) -> &'static str {
        self.facts().1
    }

    /// The shape of its nodes where a report does not say; empty for none.
    pub fn shape(self) -> &'static str {
        self.facts().2
    }

    /// The tag of its nodes where a report does not say.
    pub fn tag(self) -> &'static str {
        self.facts().3
    }

    /// Name of one node, and of many.
    pub fn labels(self) -> (&'static str, &'static str) {
        (self.facts().4, self.facts().5)
    }

    /// The table with this key.
    pub fn from_key(key: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.key() == key)
    }

    /// The table whose nodes have this as their topology.
    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What one probe saw, or what many did in a window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    pub(crate) tables: [Topology; 23],
    /// When it was made.
    pub at: Time,
    /// Nanoseconds that it covers.
    pub window: i64,
    /// Whether it is to be shown at once.
    pub shortcut: bool,
    /// How many packets it stands for.
    pub sampling: Sampling,
    /// Plugins of the probes, by id.
    pub plugins: BTreeMap<Text, PluginSpec>,
    /// Random, and never shown.
    pub id: Option<Text>,
    /// Names of addresses.
    pub dns: BTreeMap<Text, Dns>,
}

impl Report {
    /// One of its tables.
    pub fn table(&self, kind: Kind) -> &Topology {
        &self.tables[kind.place()]
    }

    /// One of its tables, to be filled.
    pub fn table_mut(&mut self, kind: Kind) -> &mut Topology {
        &mut self.tables[kind.place()]
    }

    /// All its tables.
    pub fn tables(&self) -> impl Iterator<Item = (Kind, &Topology)> {
        Kind::ALL.into_iter().zip(&self.tables)
    }

    /// Nodes in all tables.
    pub fn node_count(&self) -> usize {
        self.tables.iter().map(|table| table.nodes.len()).sum()
    }
}

/// A table of nodes, and how they are shown. Empty texts were not told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Topology {
    /// Shape of its nodes.
    pub shape: Option<Text>,
    /// `camera` or nothing.
    pub tag: Option<Text>,
    /// What one node is called.
    pub label: Option<Text>,
    /// What many are called.
    pub label_plural: Option<Text>,
    /// By id.
    pub nodes: BTreeMap<Text, Arc<Node>>,
    /// By id.
    pub controls: BTreeMap<Text, Control>,
    /// By id.
    pub metadata_templates: BTreeMap<Text, MetadataTemplate>,
    /// By id.
    pub metric_templates: BTreeMap<Text, MetricTemplate>,
    /// By id.
    pub table_templates: BTreeMap<Text, TableTemplate>,
}

/// A row of a table: something that a probe saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// Its id; missing in a delta.
    pub id: Option<Text>,
    /// Name of its table; missing in a delta.
    pub topology: Option<Text>,
    /// Facts, each with the time when it was found out.
    pub latest: BTreeMap<Text, Latest>,
    /// Facts with several values.
    pub sets: BTreeMap<Text, BTreeSet<Text>>,
    /// Ids of nodes of the same table that edges lead to.
    pub adjacency: BTreeSet<Text>,
    /// Measurements.
    pub metrics: BTreeMap<Text, Metric>,
    /// Ids of nodes of other tables that it belongs to, by the tables' names.
    pub parents: BTreeMap<Text, BTreeSet<Text>>,
    /// What belongs to it, by id.
    pub children: BTreeMap<Text, Arc<Node>>,
}

impl Node {
    /// A node of a table that nothing is known of yet.
    pub fn new(id: impl Into<Text>, kind: Kind) -> Self {
        Node { id: Some(id.into()), topology: Some(kind.name().into()), ..Node::default() }
    }

    /// A fact.
    pub fn value(&self, key: &str) -> Option<&Text> {
        self.latest.get(key).map(|latest| &latest.value)
    }

    /// Notes a fact.
    pub fn set(&mut self, key: impl Into<Text>, at: Time, value: impl Into<Text>) {
        self.latest.insert(key.into(), Latest { at, value: value.into() });
    }
}

/// A fact and when it was found out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latest {
    /// The newest wins.
    pub at: Time,
    /// As text.
    pub value: Text,
}

/// A measurement over time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metric {
    /// Oldest first.
    pub samples: Vec<Sample>,
    /// Smallest value.
    pub min: f64,
    /// Largest, or largest possible, value.
    pub max: f64,
}

/// A value at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// When.
    pub at: Time,
    /// How much.
    pub value: f64,
}

/// Something that a probe can do to nodes of a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Control {
    /// E.g. `docker_stop_container`.
    pub id: Text,
    /// Text of its button.
    pub human: Text,
    /// Font Awesome classes.
    pub icon: Text,
    /// What to ask before.
    pub confirmation: Text,
    /// Order of the buttons.
    pub rank: i64,
    /// The probe that does it, if not the node's own.
    pub probe_id: Text,
}

/// How a fact becomes a row of metadata.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetadataTemplate {
    /// Key of the fact.
    pub id: Text,
    /// Heading.
    pub label: Text,
    /// Characters to show; 0 for all.
    pub truncate: u32,
    /// `number`, `ip`, `datetime`, `duration` or empty.
    pub data_type: Text,
    /// Rows are sorted by it.
    pub priority: f64,
    /// `latest`, `sets`, `counters`, or empty for the first of these that has it.
    pub from: Text,
}

/// How a measurement becomes a row of metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetricTemplate {
    /// Key of the measurement.
    pub id: Text,
    /// Heading.
    pub label: Text,
    /// `filesize`, `integer`, `percent` or empty.
    pub format: Text,
    /// Those of one group are shown together.
    pub group: Text,
    /// Rows are sorted by it.
    pub priority: f64,
}

/// How facts with a common prefix become a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TableTemplate {
    /// E.g. `docker_label_`.
    pub id: Text,
    /// Heading.
    pub label: Text,
    /// Of the keys.
    pub prefix: Text,
    /// `property-list`, `multicolumn-table`, or empty for the former.
    pub kind: Text,
    /// Of a table with columns.
    pub columns: Option<Vec<ColumnTemplate>>,
    /// Facts without the prefix that are rows, too, and their labels.
    pub fixed_rows: BTreeMap<Text, Text>,
}

/// A column.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ColumnTemplate {
    /// Id.
    pub id: Text,
    /// Heading.
    pub label: Text,
    /// `number` and so on.
    pub data_type: Text,
}

/// Names of an address.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dns {
    /// That led to it.
    pub forward: BTreeSet<Text>,
    /// That it leads to.
    pub reverse: BTreeSet<Text>,
}

/// How many packets a report stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sampling {
    /// Looked at.
    pub count: u64,
    /// Seen.
    pub total: u64,
}

/// A plugin of a probe, as it says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PluginSpec {
    /// Id.
    pub id: Text,
    /// Name.
    pub label: Text,
    /// For people.
    pub description: Text,
    /// `reporter`, `controller`.
    pub interfaces: Vec<Text>,
    /// `1`.
    pub api_version: Text,
    /// `ok` or `error: …`.
    pub status: Text,
}
