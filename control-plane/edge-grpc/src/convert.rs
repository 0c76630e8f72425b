//! The map's words in those of the wire, and moments in both.

use std::time::Duration;

use base::Timestamp;
use proto::control::v1 as wire;
use tonic::Status;
use topology::{Application, ChildGroup, Connection, Control, Details, MetricRow, NodeSummary, Table, ViewStats};

use crate::source::Ask;

/// Options that a request may name.
const OPTIONS_MAX: usize = 64;

pub(crate) fn node(summary: &NodeSummary) -> wire::Node {
    wire::Node {
        id: summary.id.to_string(),
        label: summary.label.to_string(),
        label_minor: summary.label_minor.to_string(),
        rank: summary.rank.to_string(),
        shape: summary.shape.as_str().to_owned(),
        tag: summary.tag.to_owned(),
        stack: summary.stack,
        pseudo: summary.pseudo,
        metadata: summary
            .metadata
            .iter()
            .map(|row| wire::MetadataRow {
                id: row.id.to_string(),
                label: row.label.to_string(),
                value: row.value.to_string(),
                data_type: row.data_type.to_string(),
                priority: row.priority,
                truncate: row.truncate,
            })
            .collect(),
        parents: summary
            .parents
            .iter()
            .map(|parent| wire::Parent { view: parent.topology_id.to_owned(), id: parent.id.to_string(), label: parent.label.to_string() })
            .collect(),
        metrics: summary.metrics.iter().map(metric).collect(),
        tables: summary.tables.iter().map(table).collect(),
        adjacency: summary.adjacency.iter().map(ToString::to_string).collect(),
    }
}

fn metric(row: &MetricRow) -> wire::Metric {
    wire::Metric {
        id: row.id.to_string(),
        label: row.label.to_string(),
        format: row.format.to_string(),
        group: row.group.to_string(),
        value: row.value,
        min: row.min,
        max: row.max,
        priority: row.priority,
        samples: row.samples.iter().map(|&(at, value)| wire::Sample { at: Some(to_wire(at)), value }).collect(),
    }
}

fn table(table: &Table) -> wire::Table {
    let grid = table.grid.as_deref();
    let labelled = table.rows.iter().map(|(label, value)| wire::TableRow {
        id: format!("label_{label}"),
        cells: [("label".to_owned(), label.to_string()), ("value".to_owned(), value.to_string())].into(),
    });
    let cells = grid.into_iter().flat_map(|grid| &grid.rows).map(|row| wire::TableRow {
        id: row.id.to_string(),
        cells: row.cells.iter().map(|(column, value)| (column.to_string(), value.to_string())).collect(),
    });
    let columns = grid.and_then(|grid| grid.columns.as_deref()).unwrap_or_default();
    wire::Table {
        id: table.id.to_string(),
        label: table.label.to_string(),
        columns: columns
            .iter()
            .map(|column| wire::TableColumn {
                id: column.id.to_string(),
                label: column.label.to_string(),
                data_type: column.data_type.to_string(),
            })
            .collect(),
        rows: labelled.chain(cells).collect(),
        truncation_count: grid.map_or(0, |grid| grid.truncation_count),
    }
}

pub(crate) fn statistics(stats: ViewStats) -> wire::Statistics {
    let ViewStats { node_count, nonpseudo_node_count, edge_count, filtered_nodes } = stats;
    wire::Statistics { node_count, nonpseudo_node_count, edge_count, filtered_nodes }
}

pub(crate) fn details(details: &Details) -> wire::GetNodeResponse {
    wire::GetNodeResponse {
        node: Some(node(&details.summary)),
        controls: details.controls.iter().map(control).collect(),
        children: details.children.iter().map(children).collect(),
        incoming: details.incoming.iter().map(connection).collect(),
        outgoing: details.outgoing.iter().map(connection).collect(),
    }
}

fn control(control: &Control) -> wire::Control {
    wire::Control {
        probe_id: control.probe_id.to_string(),
        node_id: control.node_id.to_string(),
        id: control.id.to_string(),
        human: control.human.to_string(),
        icon: control.icon.to_string(),
        confirmation: control.confirmation.to_string(),
        rank: control.rank,
    }
}

fn children(group: &ChildGroup) -> wire::ChildGroup {
    wire::ChildGroup { label: group.label.to_owned(), view: group.topology_id.to_owned(), nodes: group.nodes.iter().map(node).collect() }
}

fn connection(connection: &Connection) -> wire::Connection {
    wire::Connection {
        id: connection.id.to_string(),
        node_id: connection.node_id.to_string(),
        label: connection.label.to_string(),
        label_minor: connection.label_minor.to_string(),
        remote: connection.remote.as_deref().unwrap_or_default().to_owned(),
        port: connection.port.map_or(0, u32::from),
        protocol: connection.protocol.to_owned(),
        via: connection.via.to_string(),
        count: connection.count,
        applications: connection.applications.iter().map(application).collect(),
    }
}

fn application(totals: &Application) -> wire::Application {
    wire::Application {
        protocol: totals.protocol.to_string(),
        requests: totals.requests,
        errors: totals.errors,
        latency_us_sum: totals.latency_us_sum,
        latency_count: totals.latency_count,
    }
}

/// What a request asks of a view.
pub(crate) fn ask(options: std::collections::HashMap<String, String>, at: Option<prost_types::Timestamp>) -> Result<Ask, Status> {
    if options.len() > OPTIONS_MAX {
        return Err(Status::invalid_argument(format!("options has {} entries; {OPTIONS_MAX} are allowed", options.len())));
    }
    Ok(Ask { options: options.into_iter().collect(), at: at.map(|at| moment(&at, "at")).transpose()? })
}

/// A moment that a request names in a field.
///
/// # Errors
/// When it is none.
pub fn moment(at: &prost_types::Timestamp, field: &str) -> Result<Timestamp, Status> {
    let nanos = u32::try_from(at.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let Some(nanos) = nanos else {
        return Err(Status::invalid_argument(format!("{field} has {} nanoseconds, which are not within a second", at.nanos)));
    };
    // Before 1970 there is as little as in 1970.
    let seconds = u64::try_from(at.seconds).unwrap_or(0);
    let moment = seconds.checked_mul(1_000_000_000).and_then(|it| it.checked_add(u64::from(nanos)));
    moment.map(Timestamp::from_unix_nanos).ok_or_else(|| Status::invalid_argument(format!("{field} is too far in the future")))
}

/// A moment as the wire has it.
pub fn to_wire(at: Timestamp) -> prost_types::Timestamp {
    let nanos = at.unix_nanos();
    prost_types::Timestamp {
        seconds: i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX),
        nanos: i32::try_from(nanos % 1_000_000_000).unwrap_or(0),
    }
}

/// A span that a request names in a field.
pub(crate) fn span(span: &prost_types::Duration, field: &str) -> Result<Duration, Status> {
    let seconds = u64::try_from(span.seconds).ok();
    let nanos = u32::try_from(span.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    match (seconds, nanos) {
        (Some(seconds), Some(nanos)) => Ok(Duration::new(seconds, nanos)),
        _ => Err(Status::invalid_argument(format!("{field} is no span of time, or one that is negative"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_spans_are_read_or_refused() {
        let read = |seconds, nanos| moment(&prost_types::Timestamp { seconds, nanos }, "at").map_err(|status| status.message().to_owned());
        assert_eq!(read(1, 5), Ok(Timestamp::from_unix_nanos(1_000_000_005)));
        assert_eq!(read(-1, 0), Ok(Timestamp::EPOCH));
        assert_eq!(read(1, -1), Err("at has -1 nanoseconds, which are not within a second".to_owned()));
        assert_eq!(read(1, 1_000_000_000), Err("at has 1000000000 nanoseconds, which are not within a second".to_owned()));
        assert_eq!(read(i64::MAX, 0), Err("at is too far in the future".to_owned()));
        let read = |seconds, nanos| span(&prost_types::Duration { seconds, nanos }, "interval").ok();
        assert_eq!((read(2, 500_000_000), read(0, 0)), (Some(Duration::from_millis(2_500)), Some(Duration::ZERO)));
        assert_eq!((read(-1, 0), read(0, -1), read(0, i32::MAX)), (None, None, None));
    }

    #[test]
    fn a_moment_goes_there_and_back() {
        let at = Timestamp::from_unix_nanos(1_767_225_600_123_456_789);
        assert_eq!(moment(&to_wire(at), "at").ok(), Some(at));
    }
}
