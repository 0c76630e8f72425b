//! Nodes in Scope's JSON: summaries in views, and the details of one.

use topology::{
    Application, ChildGroup, Column, Connection, Control, Details, Grid, MetadataRow, MetricRow, NodeSummary, PublishedNode, Table, View,
};

use super::graphs::{Bare, Links, MetricsGraph};
use crate::http::json::JsonWriter;
use crate::http::platform::moment;

/// The summary of a published node; written once, then shared by every reply and every client.
pub(crate) fn encoded<'a>(node: &'a PublishedNode, graphs: &MetricsGraph) -> &'a [u8] {
    node.encoded_with(|summary| {
        let mut json = JsonWriter::new();
        write_summary(&mut json, summary, graphs);
        json.into_bytes().into_boxed_slice()
    })
}

/// What an encoded summary begins with.
const BEFORE_ID: &[u8] = b"{\"id\":";

/// The id of an encoded summary as it stands there: a JSON string.
pub(crate) fn encoded_id(summary: &[u8]) -> &[u8] {
    let text = summary.strip_prefix(BEFORE_ID).unwrap_or_default();
    let mut at = 1;
    // To the quote that ends it; behind a backslash, none does.
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => return &text[..=at],
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    b"\"\""
}

/// `{"node": …}`.
pub(crate) fn encode_details(view: View, details: &Details, graphs: &MetricsGraph) -> Vec<u8> {
    let mut json = JsonWriter::new();
    json.object(|json| {
        json.key("node").object(|json| {
            write_summary_fields(json, &details.summary, graphs);
            json.key("controls").array(&details.controls, write_control);
            if !details.children.is_empty() {
                json.key("children").array(&details.children, |json, group| write_children(json, group, graphs));
            }
            json.key("connections").array([Side::Incoming, Side::Outgoing], |json, side| write_connections(json, view, details, side));
        });
    });
    json.into_bytes()
}

fn write_summary(json: &mut JsonWriter, summary: &NodeSummary, graphs: &MetricsGraph) {
    json.object(|json| write_summary_fields(json, summary, graphs));
}

fn write_summary_fields(json: &mut JsonWriter, summary: &NodeSummary, graphs: &MetricsGraph) {
    json.key("id").string(summary.id.as_str());
    json.key("label").string(&summary.label);
    json.key("labelMinor").string(&summary.label_minor);
    json.key("rank").string(&summary.rank);
    json.key("shape").string(summary.shape.as_str());
    if !summary.tag.is_empty() {
        json.key("tag").string(summary.tag);
    }
    if summary.stack {
        json.key("stack").bool(true);
    }
    if summary.pseudo {
        json.key("pseudo").bool(true);
    }
    if !summary.metadata.is_empty() {
        json.key("metadata").array(&summary.metadata, write_metadata);
    }
    if !summary.parents.is_empty() {
        json.key("parents").array(&summary.parents, |json, parent| {
            json.object(|json| {
                json.key("id").string(parent.id.as_str());
                json.key("label").string(&parent.label);
                json.key("topologyId").string(parent.topology_id);
            });
        });
    }
    let links = graphs.of(summary);
    let bare = links.as_ref().map(|links| links.bare(summary)).unwrap_or_default();
    if !summary.metrics.is_empty() || !bare.is_empty() {
        let rows = summary.metrics.iter().map(Row::Metric).chain(bare.iter().map(Row::Link));
        json.key("metrics").array(rows, |json, row| match row {
            Row::Metric(row) => write_metric(json, row, links.as_ref()),
            Row::Link(row) => write_link(json, row),
        });
    }
    if !summary.tables.is_empty() {
        json.key("tables").array(&summary.tables, write_table);
    }
    if !summary.adjacency.is_empty() {
        json.key("adjacency").array(&summary.adjacency, |json, id| json.string(id.as_str()));
    }
}

enum Row<'a> {
    Metric(&'a MetricRow),
    Link(&'a Bare),
}

/// A metric that the node does not have, for its link.
fn write_link(json: &mut JsonWriter, row: &Bare) {
    json.object(|json| {
        json.key("id").string(row.id);
        json.key("label").string(row.label);
        json.key("value").float(0.0);
        json.key("valueEmpty").bool(true);
        json.key("priority").float(row.priority);
        json.key("samples").null();
        json.key("min").float(0.0);
        json.key("max").float(0.0);
        json.key("url").string(&row.url);
    });
}

fn write_metadata(json: &mut JsonWriter, row: &MetadataRow) {
    json.object(|json| {
        json.key("id").string(&row.id);
        json.key("label").string(&row.label);
        json.key("value").string(&row.value);
        if row.priority != 0.0 {
            json.key("priority").float(row.priority);
        }
        if !row.data_type.is_empty() {
            json.key("dataType").string(&row.data_type);
        }
        if row.truncate != 0 {
            json.key("truncate").integer(u64::from(row.truncate));
        }
    });
}

fn write_metric(json: &mut JsonWriter, row: &MetricRow, links: Option<&Links<'_>>) {
    json.object(|json| {
        json.key("id").string(&row.id);
        json.key("label").string(&row.label);
        if !row.format.is_empty() {
            json.key("format").string(&row.format);
        }
        if !row.group.is_empty() {
            json.key("group").string(&row.group);
        }
        json.key("value").float(row.value);
        if row.priority != 0.0 {
            json.key("priority").float(row.priority);
        }
        json.key("samples");
        if row.samples.is_empty() {
            json.null();
        } else {
            json.array(&row.samples, |json, (at, value)| {
                json.object(|json| {
                    json.key("date").string(&moment(*at));
                    json.key("value").float(*value);
                });
            });
        }
        json.key("min").float(row.min);
        json.key("max").float(row.max);
        json.key("url").string(&links.and_then(|links| links.url(&row.id)).unwrap_or_default());
    });
}

fn write_table(json: &mut JsonWriter, table: &Table) {
    let plain = Grid::default();
    let grid = table.grid.as_deref().unwrap_or(&plain);
    json.object(|json| {
        json.key("id").string(&table.id);
        json.key("label").string(&table.label);
        json.key("type").string(if grid.kind.is_empty() { "property-list" } else { &grid.kind });
        json.key("columns");
        match &grid.columns {
            None => json.null(),
            Some(columns) => json.array(columns, |json, column| {
                json.object(|json| {
                    json.key("id").string(&column.id);
                    json.key("label").string(&column.label);
                    json.key("dataType").string(&column.data_type);
                });
            }),
        }
        let labelled = table
            .rows
            .iter()
            .map(|(label, value)| (format!("label_{label}"), vec![("label".into(), label.clone()), ("value".into(), value.clone())]));
        let cells = grid.rows.iter().map(|row| (row.id.to_string(), row.cells.clone()));
        json.key("rows").array(labelled.chain(cells), |json, (id, cells)| {
            json.object(|json| {
                json.key("id").string(&id);
                json.key("entries").object(|json| cells.iter().for_each(|(column, value)| json.key(column).string(value)));
            });
        });
        if grid.truncation_count > 0 {
            json.key("truncationCount").integer(grid.truncation_count);
        }
    });
}

fn write_control(json: &mut JsonWriter, control: &Control) {
    json.object(|json| {
        json.key("probeId").string(&control.probe_id);
        json.key("nodeId").string(control.node_id.as_str());
        json.key("id").string(&control.id);
        json.key("human").string(&control.human);
        json.key("icon").string(&control.icon);
        if !control.confirmation.is_empty() {
            json.key("confirmation").string(&control.confirmation);
        }
        json.key("rank").signed(control.rank);
    });
}

fn write_children(json: &mut JsonWriter, group: &ChildGroup, graphs: &MetricsGraph) {
    json.object(|json| {
        json.key("id").string("");
        json.key("label").string(group.label);
        json.key("nodes").array(&group.nodes, |json, node| write_summary(json, node, graphs));
        json.key("topologyId").string(group.topology_id);
        json.key("columns").array(group.columns, write_column);
    });
}

fn write_column(json: &mut JsonWriter, column: &Column) {
    json.object(|json| {
        json.key("id").string(column.id);
        json.key("label").string(column.label);
        json.key("defaultSort").bool(column.default_sort);
        json.key("dataType").string(column.data_type);
    });
}

#[derive(Clone, Copy)]
enum Side {
    Incoming,
    Outgoing,
}

const REMOTE: Column = Column { id: "remote", label: "Remote", default_sort: false, data_type: "" };
const PORT: Column = Column { id: "port", label: "Port", default_sort: false, data_type: "number" };
const COUNT: Column = Column { id: "count", label: "Count", default_sort: true, data_type: "number" };

/// Scope's columns, and behind them those of ours for which some row has a value. Scope's UI shows whatever columns a table names.
const EXTRA: [Column; 6] = [
    Column { id: "protocol", label: "Protocol", default_sort: false, data_type: "" },
    Column { id: "via", label: "Via", default_sort: false, data_type: "" },
    Column { id: "application", label: "Speaks", default_sort: false, data_type: "" },
    Column { id: "requests", label: "Requests", default_sort: false, data_type: "number" },
    Column { id: "errors", label: "Errors", default_sort: false, data_type: "number" },
    Column { id: "latency", label: "Latency (ms)", default_sort: false, data_type: "number" },
];

fn write_connections(json: &mut JsonWriter, view: View, details: &Details, side: Side) {
    let (id, label, connections) = match side {
        Side::Incoming => ("incoming-connections", "Inbound", &details.incoming),
        Side::Outgoing => ("outgoing-connections", "Outbound", &details.outgoing),
    };
    let extra = EXTRA.into_iter().filter(|column| connections.iter().any(|row| extra_value(row, column.id).is_some()));
    let columns: Vec<Column> = details.shows_remote.then_some(REMOTE).into_iter().chain([PORT, COUNT]).chain(extra).collect();
    json.object(|json| {
        json.key("id").string(id);
        json.key("topologyId").string(view.id());
        json.key("label").string(label);
        json.key("columns").array(&columns, write_column);
        json.key("connections").array(connections, write_connection);
    });
}

/// What a row has in a column of ours; TCP goes without saying.
fn extra_value(row: &Connection, column: &str) -> Option<String> {
    let applications = &row.applications;
    let sum = |value: fn(&Application) -> u64| applications.iter().map(value).fold(0, u64::saturating_add);
    match column {
        "protocol" => (row.protocol != "tcp").then(|| row.protocol.to_owned()),
        "via" => (!row.via.is_empty()).then(|| row.via.to_string()),
        _ if applications.is_empty() => None,
        "application" => Some(applications.iter().map(|it| &*it.protocol).collect::<Vec<_>>().join(", ")),
        "requests" => Some(sum(|it| it.requests).to_string()),
        "errors" => Some(sum(|it| it.errors).to_string()),
        "latency" => {
            let micros = sum(|it| it.latency_us_sum).checked_div(sum(|it| it.latency_count))?;
            Some(format!("{}.{:03}", micros / 1_000, micros % 1_000))
        }
        _ => None,
    }
}

fn write_connection(json: &mut JsonWriter, connection: &Connection) {
    json.object(|json| {
        json.key("id").string(&connection.id);
        json.key("nodeId").string(connection.node_id.as_str());
        json.key("label").string(&connection.label);
        if !connection.label_minor.is_empty() {
            json.key("labelMinor").string(&connection.label_minor);
        }
        let port = connection.port.map(|port| ("port", port.to_string()));
        let count = ("count", connection.count.to_string());
        let remote = connection.remote.as_ref().map(|remote| ("remote", remote.to_string()));
        let extra = EXTRA.into_iter().filter_map(|column| Some((column.id, extra_value(connection, column.id)?)));
        json.key("metadata").array(remote.into_iter().chain(port).chain([count]).chain(extra), |json, (id, value)| {
            json.object(|json| {
                json.key("id").string(id);
                json.key("label").string("");
                json.key("value").string(&value);
            });
        });
    });
}

#[cfg(test)]
mod tests;
