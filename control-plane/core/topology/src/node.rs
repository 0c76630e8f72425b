//! What a client sees of a node: summaries in views, details on request. Field names and meaning are those of Weave Scope's JSON; the HTTP
//! room only writes them down.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};

use base::Timestamp;

use crate::report::Application;

/// A word of the wire format: one of ours, or one that an old probe's report brought along.
pub type Word = Cow<'static, str>;

/// Id of a node in a view, e.g. `web-1;<host>`, `web-1;4711`, `<64 hex>;<container>`, `in-theinternet`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub Arc<str>);

impl NodeId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for NodeId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<String> for NodeId {
    fn from(text: String) -> Self {
        NodeId(text.into())
    }
}

impl From<&str> for NodeId {
    fn from(text: &str) -> Self {
        NodeId(text.into())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A node as a view shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeSummary {
    /// Its id.
    pub id: NodeId,
    /// First line of its label.
    pub label: Arc<str>,
    /// Second line.
    pub label_minor: Arc<str>,
    /// Decides the colour.
    pub rank: Arc<str>,
    /// How it is drawn.
    pub shape: Shape,
    /// `camera` for snapshots of volumes, else empty.
    pub tag: &'static str,
    /// Drawn as a stack: it stands for several things.
    pub stack: bool,
    /// Stands for something outside of what is watched.
    pub pseudo: bool,
    /// Rows in order of priority.
    pub metadata: Vec<MetadataRow>,
    /// What it belongs to.
    pub parents: Vec<Parent>,
    /// Metrics in order of priority, without samples.
    pub metrics: Vec<MetricRow>,
    /// Tables sorted by id.
    pub tables: Vec<Table>,
    /// Ids of the nodes that it opened connections to, sorted.
    pub adjacency: Vec<NodeId>,
}

impl NodeSummary {
    /// One of which nothing is known yet but what it is.
    pub fn blank(id: NodeId, shape: Shape) -> Self {
        NodeSummary {
            id,
            label: "".into(),
            label_minor: "".into(),
            rank: "".into(),
            shape,
            tag: "",
            stack: false,
            pseudo: false,
            metadata: Vec::new(),
            parents: Vec::new(),
            metrics: Vec::new(),
            tables: Vec::new(),
            adjacency: Vec::new(),
        }
    }
}

/// Shape of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Processes, uncontained.
    Square,
    /// Containers and images.
    Hexagon,
    /// Hosts.
    Circle,
    /// The Internet and known services.
    Cloud,
    /// Pods, services and deployments.
    Heptagon,
    /// Daemon sets.
    Pentagon,
    /// Stateful sets.
    Octagon,
    /// Cron jobs.
    Triangle,
    /// Jobs.
    DottedTriangle,
    /// Volumes.
    Cylinder,
    /// Claims.
    DottedCylinder,
    /// Storage classes.
    Sheet,
}

impl Shape {
    /// The shape that a report of an old probe names.
    pub fn from_word(word: &str) -> Option<Shape> {
        [
            Shape::Square,
            Shape::Hexagon,
            Shape::Circle,
            Shape::Cloud,
            Shape::Heptagon,
            Shape::Pentagon,
            Shape::Octagon,
            Shape::Triangle,
            Shape::DottedTriangle,
            Shape::Cylinder,
            Shape::DottedCylinder,
            Shape::Sheet,
        ]
        .into_iter()
        .find(|shape| shape.as_str() == word)
    }

    /// Scope's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Shape::Square => "square",
            Shape::Hexagon => "hexagon",
            Shape::Circle => "circle",
            Shape::Cloud => "cloud",
            Shape::Heptagon => "heptagon",
            Shape::Pentagon => "pentagon",
            Shape::Octagon => "octagon",
            Shape::Triangle => "triangle",
            Shape::DottedTriangle => "dottedtriangle",
            Shape::Cylinder => "cylinder",
            Shape::DottedCylinder => "dottedcylinder",
            Shape::Sheet => "sheet",
        }
    }
}

/// One row of metadata.
#[derive(Clone, Debug, PartialEq)]
pub struct MetadataRow {
    /// Key, e.g. `pid`.
    pub id: Word,
    /// For people, e.g. `PID`.
    pub label: Word,
    /// Value as text.
    pub value: Arc<str>,
    /// Rows are sorted by it.
    pub priority: f64,
    /// `number`, `ip`, `datetime`, `duration` or empty.
    pub data_type: Word,
    /// Characters to show; 0 for all.
    pub truncate: u32,
}

/// A link to what a node belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct Parent {
    /// Its node id in that view.
    pub id: NodeId,
    /// Its label.
    pub label: Arc<str>,
    /// View id, e.g. `containers-by-image`.
    pub topology_id: &'static str,
}

/// The last value of a metric, and in details its samples.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricRow {
    /// E.g. `host_cpu_usage_percent`.
    pub id: Word,
    /// E.g. `CPU`.
    pub label: Word,
    /// `percent`, `filesize`, `integer` or empty.
    pub format: Word,
    /// Metrics of one group are shown together; may be empty.
    pub group: Word,
    /// Cut, not rounded, to two decimals.
    pub value: f64,
    /// Rows are sorted by it.
    pub priority: f64,
    /// Oldest first; empty in summaries.
    pub samples: Vec<(Timestamp, f64)>,
    /// Smallest value.
    pub min: f64,
    /// Largest possible value.
    pub max: f64,
}

/// A table: a property list, unless it has a grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// E.g. `docker_label_`.
    pub id: Word,
    /// E.g. `Docker labels`.
    pub label: Word,
    /// Label and value, sorted by label.
    pub rows: Vec<(Arc<str>, Arc<str>)>,
    /// What an old probe's table has beyond that.
    pub grid: Option<Box<Grid>>,
}

/// What only tables of old probes have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grid {
    /// `multicolumn-table`, or what else the report calls it.
    pub kind: Arc<str>,
    /// `None` is written as `null`.
    pub columns: Option<Vec<GridColumn>>,
    /// For tables with columns, by id.
    pub rows: Vec<GridRow>,
    /// Rows that its probe left out.
    pub truncation_count: u64,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct GridColumn {
    /// Of its cells.
    pub id: Arc<str>,
    /// Heading.
    pub label: Arc<str>,
    /// `number` and so on; may be empty.
    pub data_type: Arc<str>,
}

/// A row of a table with columns.
#[derive(Clone, Debug, PartialEq)]
pub struct GridRow {
    /// Id.
    pub id: Arc<str>,
    /// Values by column.
    pub cells: Vec<(Arc<str>, Arc<str>)>,
}

/// A node with everything that its panel shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Details {
    /// As in the view, with samples in the metrics.
    pub summary: NodeSummary,
    /// What can be done with it, sorted by rank.
    pub controls: Vec<Control>,
    /// What it consists of.
    pub children: Vec<ChildGroup>,
    /// Connections that others opened to it.
    pub incoming: Vec<Connection>,
    /// Connections that it opened.
    pub outgoing: Vec<Connection>,
    /// Whether the connection tables have a column for the remote address: true for the Internet nodes.
    pub shows_remote: bool,
}

/// Something that can be done with a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// The probe that does it.
    pub probe_id: Arc<str>,
    /// What to tell the probe.
    pub node_id: NodeId,
    /// E.g. `docker_stop_container`.
    pub id: Cow<'static, str>,
    /// For people.
    pub human: Cow<'static, str>,
    /// Font Awesome classes.
    pub icon: Cow<'static, str>,
    /// What to ask before it is done; empty when nothing.
    pub confirmation: Cow<'static, str>,
    /// Controls are sorted by it.
    pub rank: i64,
}

/// Children of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct ChildGroup {
    /// E.g. `Processes`.
    pub label: &'static str,
    /// View id of the children.
    pub topology_id: &'static str,
    /// Columns of the table.
    pub columns: &'static [Column],
    /// Sorted by id.
    pub nodes: Vec<NodeSummary>,
}

/// A column of a table of nodes or connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Id of a metadata or metric row.
    pub id: &'static str,
    /// Heading.
    pub label: &'static str,
    /// Whether the table is sorted by it at first.
    pub default_sort: bool,
    /// `number`, `ip`, `datetime` or empty.
    pub data_type: &'static str,
}

/// All connections between the node and one neighbour on one port.
#[derive(Clone, Debug, PartialEq)]
pub struct Connection {
    /// Unique in its table.
    pub id: Arc<str>,
    /// The neighbour.
    pub node_id: NodeId,
    /// Its label, or the address of an Internet neighbour.
    pub label: Arc<str>,
    /// Its second line.
    pub label_minor: Arc<str>,
    /// Remote address; only when the table has that column.
    pub remote: Option<Arc<str>>,
    /// Port of the service; none for Unix sockets.
    pub port: Option<u16>,
    /// `tcp`, `udp` or `unix`.
    pub protocol: &'static str,
    /// Where the clients meant to go and who says that they were taken elsewhere, e.g. `10.96.0.1:80 (conntrack)`; empty when they were not.
    pub via: Arc<str>,
    /// Totals by application protocol, sorted by its name.
    pub applications: Vec<Application>,
    /// How many connections were seen in the window.
    pub count: u64,
}

/// A node in a published view. Equal only to itself: a node that changed is a new one.
#[derive(Clone)]
pub struct PublishedNode(Arc<Published>);

struct Published {
    summary: NodeSummary,
    encoded: OnceLock<Box<[u8]>>,
}

impl PublishedNode {
    /// Publishes a summary.
    pub fn new(summary: NodeSummary) -> Self {
        PublishedNode(Arc::new(Published { summary, encoded: OnceLock::new() }))
    }

    /// What is shown.
    pub fn summary(&self) -> &NodeSummary {
        &self.0.summary
    }

    /// The summary in the edge's encoding: made by `encode` once, and shared by all who ask later.
    pub fn encoded_with(&self, encode: impl FnOnce(&NodeSummary) -> Box<[u8]>) -> &[u8] {
        self.0.encoded.get_or_init(|| encode(&self.0.summary))
    }
}

impl PartialEq for PublishedNode {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for PublishedNode {}

impl fmt::Debug for PublishedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.summary().fmt(f)
    }
}
