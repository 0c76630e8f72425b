//! Shapes of Scope's JSON for the OpenAPI document. Replies are written by hand; tests read them back through these types, so that the
//! document stays true.

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

/// Filters of views. Without any parameter nothing is filtered; with any, a group that is not named has its default; a value that a group
/// does not know lets everything through.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes parameters; the query is read as Scope read it")]
pub(crate) struct Options {
    /// Container views: `all`, `system` or `application`; default `application`.
    system: Option<String>,
    /// Container views: `stopped`, `running` or `both`; default `running`.
    stopped: Option<String>,
    /// Container and orchestrator views: `show` or `hide` what is uncontained or unmanaged; default `hide`.
    pseudo: Option<String>,
    /// Process views: `show` or `hide` nodes without an edge; default `hide`.
    unconnected: Option<String>,
    /// The pods view: `show` or `hide` volumes, claims and storage classes; default `hide`.
    storage: Option<String>,
    /// The pods view: `show` or `hide` snapshots of volumes; default `hide`.
    snapshot: Option<String>,
    /// Container and orchestrator views: names of namespaces or stacks, separated by commas; default all.
    namespace: Option<String>,
    /// `true` keeps only the first word of command lines.
    hide_command_line_arguments: Option<String>,
    /// `true` leaves out tables of environment variables.
    hide_environment_variables: Option<String>,
    /// A moment, RFC 3339. No history is kept: every moment shows the present.
    timestamp: Option<String>,
}

/// `GET /api`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// Random per start.
    pub id: String,
    /// Version.
    pub version: String,
    /// Name of the machine.
    pub hostname: String,
    /// Plugins of Weave Scope's probes, by id.
    pub plugins: Vec<Plugin>,
    /// What it can do.
    pub capabilities: BTreeMap<String, bool>,
}

/// A plugin of one of Weave Scope's probes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Plugin {
    /// Id.
    pub id: String,
    /// Name.
    pub label: String,
    /// For people.
    pub description: Option<String>,
    /// `reporter`, `controller`.
    pub interfaces: Vec<String>,
    /// `1`.
    pub api_version: Option<String>,
    /// `ok` or `error: …`.
    pub status: Option<String>,
}

/// A view in the list of views.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ViewDescription {
    /// For people.
    pub name: String,
    /// Order of the tabs.
    pub rank: u64,
    /// Whether to hide it when it is empty.
    pub hide_if_empty: bool,
    /// Its options.
    #[schema(required)]
    pub options: Option<Vec<OptionGroup>>,
    /// Where it is; the last segment is its id.
    pub url: String,
    /// Views below it.
    #[serde(default)]
    #[schema(no_recursion)]
    pub sub_topologies: Vec<ViewDescription>,
    /// Its numbers.
    pub stats: Stats,
}

/// Numbers of a view.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Stats {
    /// Nodes left after filtering.
    pub node_count: u64,
    /// Those that are no pseudo nodes.
    pub nonpseudo_node_count: u64,
    /// Edges.
    pub edge_count: u64,
    /// Nodes removed by filters.
    pub filtered_nodes: u64,
}

/// A group of options.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct OptionGroup {
    /// Name of the parameter.
    pub id: String,
    /// Value when the parameter is absent.
    pub default_value: String,
    /// Values.
    pub options: Vec<OptionValue>,
    /// `union` where any number may be chosen, separated by commas; else one is.
    pub select_type: Option<String>,
    /// What to call it when none is chosen, where that is allowed.
    pub none_label: Option<String>,
}

/// A value of an option.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OptionValue {
    /// On the wire.
    pub value: String,
    /// For people.
    pub label: String,
}

/// `GET /api/topology/{view}`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Nodes {
    /// By id.
    pub nodes: BTreeMap<String, NodeSummary>,
}

/// A message of a view's WebSocket.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Update {
    /// Nodes that came.
    #[schema(required)]
    pub add: Option<Vec<NodeSummary>>,
    /// Nodes of which something changed, whole.
    #[schema(required)]
    pub update: Option<Vec<NodeSummary>>,
    /// Ids of nodes that went.
    #[schema(required)]
    pub remove: Option<Vec<String>>,
    /// In the first message: forget what was before.
    #[serde(default)]
    pub reset: bool,
}

/// A node as a view shows it.
#[derive(Clone, Debug, Deserialize, PartialEq, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeSummary {
    /// Id.
    pub id: String,
    /// First line of the label.
    pub label: String,
    /// Second line.
    pub label_minor: String,
    /// Decides the colour.
    pub rank: String,
    /// How it is drawn.
    pub shape: Option<String>,
    /// `camera` for snapshots.
    pub tag: Option<String>,
    /// Drawn as a stack.
    #[serde(default)]
    pub stack: bool,
    /// Stands for something that is not watched.
    #[serde(default)]
    pub pseudo: bool,
    /// Rows in order of priority.
    #[serde(default)]
    pub metadata: Vec<MetadataRow>,
    /// What it belongs to.
    #[serde(default)]
    pub parents: Vec<Parent>,
    /// Metrics.
    #[serde(default)]
    pub metrics: Vec<MetricRow>,
    /// Tables.
    #[serde(default)]
    pub tables: Vec<Table>,
    /// Ids of nodes that it opened connections to.
    #[serde(default)]
    pub adjacency: Vec<String>,
}

/// A row of metadata.
#[derive(Clone, Debug, Deserialize, PartialEq, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct MetadataRow {
    /// Key.
    pub id: String,
    /// For people.
    pub label: String,
    /// Value.
    pub value: String,
    /// Order.
    #[serde(default)]
    pub priority: f64,
    /// `number`, `ip`, `datetime`, `duration`.
    pub data_type: Option<String>,
    /// Characters to show.
    pub truncate: Option<u32>,
}

/// A link to what a node belongs to.
#[derive(Clone, Debug, Deserialize, PartialEq, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Parent {
    /// Node id.
    pub id: String,
    /// Label.
    pub label: String,
    /// View id.
    pub topology_id: String,
}

/// A metric.
#[derive(Clone, Debug, Deserialize, PartialEq, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct MetricRow {
    /// Id.
    pub id: String,
    /// For people.
    pub label: String,
    /// `percent`, `filesize`, `integer`.
    pub format: Option<String>,
    /// Metrics of one group are shown together.
    pub group: Option<String>,
    /// Last value, cut to two decimals.
    pub value: f64,
    /// There is no value: the row is there for its `url`.
    #[serde(default)]
    pub value_empty: bool,
    /// Order.
    #[serde(default)]
    pub priority: f64,
    /// Null in summaries.
    #[schema(required)]
    pub samples: Option<Vec<Sample>>,
    /// Smallest value.
    pub min: f64,
    /// Largest possible value.
    pub max: f64,
    /// Of its graph, with `--app.metrics-graph`; else empty.
    pub url: String,
}

/// A value at a moment.
#[derive(Clone, Debug, Deserialize, PartialEq, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// RFC 3339.
    pub date: String,
    /// Value.
    pub value: f64,
}

/// A table.
#[derive(Clone, Debug, Deserialize, PartialEq, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Table {
    /// Id.
    pub id: String,
    /// For people.
    pub label: String,
    /// `property-list` or `multicolumn-table`.
    pub r#type: String,
    /// Null for property lists.
    #[schema(required)]
    pub columns: Option<Vec<TableColumn>>,
    /// Rows.
    pub rows: Vec<TableRow>,
    /// Rows that an old probe left out.
    pub truncation_count: Option<u64>,
}

/// A column of a table.
#[derive(Clone, Debug, Deserialize, PartialEq, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TableColumn {
    /// Id of a cell.
    pub id: String,
    /// Heading.
    pub label: String,
    /// `number` and so on.
    pub data_type: String,
}

/// A row of a table.
#[derive(Clone, Debug, Deserialize, PartialEq, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TableRow {
    /// Id.
    pub id: String,
    /// Value by column.
    pub entries: BTreeMap<String, String>,
}

/// A column.
#[derive(Clone, Debug, Deserialize, PartialEq, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Column {
    /// Id of a metadata or metric row.
    pub id: String,
    /// Heading.
    pub label: String,
    /// Whether the table is sorted by it at first.
    pub default_sort: bool,
    /// `number`, `ip`, `datetime` or empty.
    pub data_type: String,
}

/// `POST /api/control/{probe}/{node}/{control}`. Fields are absent when there is nothing to say.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ControlReply {
    /// Whatever the control says.
    #[schema(value_type = Option<Object>)]
    pub value: Option<serde_json::Value>,
    /// Pipe that was opened: see `/api/pipe/{id}`.
    pub pipe: Option<String>,
    /// Whether a terminal is at its other end, which needs no conversion of line ends.
    pub raw_tty: Option<bool>,
    /// Control that changes the terminal's size.
    pub resize_tty_control: Option<String>,
    /// Node that is gone now.
    #[serde(rename = "removedNode")]
    pub removed_node: Option<String>,
}

/// Something that can be done with a node: `POST /api/control/{probeId}/{nodeId}/{id}`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Control {
    /// The probe that does it.
    pub probe_id: String,
    /// What to tell the probe.
    pub node_id: String,
    /// E.g. `docker_stop_container`.
    pub id: String,
    /// For people.
    pub human: String,
    /// Font Awesome classes.
    pub icon: String,
    /// What to ask before it is done; absent when nothing.
    pub confirmation: Option<String>,
    /// Controls are sorted by it.
    pub rank: i64,
}

/// `GET /api/topology/{view}/{id}`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeReply {
    /// The node.
    pub node: Node,
}

/// A node with everything that its panel shows: a summary, whose metrics have samples, and more.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Node {
    /// As in the view.
    #[serde(flatten)]
    pub summary: NodeSummary,
    /// What can be done with it.
    pub controls: Vec<Control>,
    /// What it consists of.
    #[serde(default)]
    pub children: Vec<ChildGroup>,
    /// Inbound, then outbound.
    pub connections: Vec<ConnectionTable>,
}

/// Children of one kind.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ChildGroup {
    /// Always empty.
    pub id: String,
    /// For people.
    pub label: String,
    /// The children.
    pub nodes: Vec<NodeSummary>,
    /// View id of the children.
    pub topology_id: String,
    /// Columns of their table.
    pub columns: Vec<Column>,
}

/// Connections of one direction.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ConnectionTable {
    /// `incoming-connections` or `outgoing-connections`.
    pub id: String,
    /// View id.
    pub topology_id: String,
    /// For people.
    pub label: String,
    /// Columns.
    pub columns: Vec<Column>,
    /// Rows.
    pub connections: Vec<ConnectionRow>,
}

/// Connections with one neighbour on one port.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ConnectionRow {
    /// Id.
    pub id: String,
    /// The neighbour.
    pub node_id: String,
    /// Its label.
    pub label: String,
    /// Its second line.
    #[serde(default)]
    pub label_minor: String,
    /// `count`, perhaps `port` and `remote`, and where there is anything to tell `protocol` (when it is not TCP), `via` (where the client
    /// meant to go), `application`, `requests`, `errors` and `latency`.
    pub metadata: Vec<MetadataRow>,
}

/// A probe, as Scope tells of it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
// The document has one name space, in which the platform's own probe is `Probe`.
#[schema(as = ScopeProbe)]
pub struct Probe {
    /// Id.
    pub id: String,
    /// Its host.
    pub hostname: String,
    /// Its version.
    pub version: String,
    /// When it was last heard of, RFC 3339.
    pub last_seen: String,
}

/// What `GET /api/probes` says.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum ProbesReply {
    /// All of them.
    List(Vec<Probe>),
    /// With `sparse`: whether there is any.
    Any(bool),
}
