//! One node, as the map knows it and as old probes do. The map's words come first: it has them from our own probes.

use std::collections::BTreeMap;

use topology::{ChildGroup, Connection, Details, NodeId, NodeSummary, ViewSnapshot};

/// What groups are counted in: the noun for one and for many, and the row that says the number again.
const COUNTED: [(&str, &str, &str); 3] =
    [("process", "processes", "process"), ("container", "containers", "container"), ("pod", "pods", "pod")];

/// Both summaries of a node as one. What a group of both counts is what the map does, and `uncounted` things that the map does not have in it:
/// where probes of both kinds watch a host, most of what old probes tell of is on the map already.
pub(super) fn summary(ours: &NodeSummary, theirs: &NodeSummary, uncounted: u64) -> NodeSummary {
    let mut merged = ours.clone();
    merged.adjacency = adjacency(&ours.adjacency, &theirs.adjacency);
    if merged.stack && !merged.pseudo {
        add(&mut merged, uncounted);
    }
    for row in &theirs.metadata {
        if !merged.metadata.iter().any(|own| own.id == row.id) {
            merged.metadata.push(row.clone());
        }
    }
    merged.metadata.sort_by(|one, other| one.priority.total_cmp(&other.priority));
    for parent in &theirs.parents {
        if !merged.parents.iter().any(|own| own.id == parent.id) {
            merged.parents.push(parent.clone());
        }
    }
    for row in &theirs.metrics {
        if !merged.metrics.iter().any(|own| own.id == row.id) {
            merged.metrics.push(row.clone());
        }
    }
    for table in &theirs.tables {
        if !merged.tables.iter().any(|own| own.id == table.id) {
            merged.tables.push(table.clone());
        }
    }
    merged.tables.sort_by(|one, other| one.id.cmp(&other.id));
    merged
}

/// Where edges of either side lead.
pub(super) fn adjacency(ours: &[NodeId], theirs: &[NodeId]) -> Vec<NodeId> {
    let mut merged = [ours, theirs].concat();
    merged.sort();
    merged.dedup();
    merged
}

/// `2 processes` and one more are `3 processes`, in the second line of a group and in the row that says so, too.
fn add(group: &mut NodeSummary, more: u64) {
    if more == 0 {
        return;
    }
    let Some((before, number, noun)) = number_in(&group.label_minor) else { return };
    let Some((one, many, row)) = COUNTED.into_iter().find(|(one, many, _)| [*one, *many].contains(&noun)) else { return };
    let sum = number.saturating_add(more);
    let text = format!("{before}{sum} {}", if sum == 1 { one } else { many });
    group.label_minor = text.into();
    if let Some(row) = group.metadata.iter_mut().find(|it| it.id == row) {
        row.value = sum.to_string().into();
    }
}

/// `Deployment of 2 pods`: what is before the number, the number, and what is behind it.
fn number_in(text: &str) -> Option<(&str, u64, &str)> {
    let at = text.find(|letter: char| letter.is_ascii_digit())?;
    let (before, rest) = text.split_at(at);
    let (number, noun) = rest.split_once(' ')?;
    Some((before, number.parse().ok()?, noun))
}

/// Puts what old probes know of a node into what the map does.
pub(super) fn details(ours: &mut Details, theirs: Details) {
    let counted_before = counted_children(ours);
    for group in theirs.children {
        match ours.children.iter_mut().find(|own| own.topology_id == group.topology_id && own.label == group.label) {
            Some(own) => children(own, group),
            None => ours.children.push(group),
        }
    }
    let uncounted = counted_children(ours).saturating_sub(counted_before);
    ours.summary = summary(&ours.summary, &theirs.summary, uncounted as u64);
    // Either probe of a host does it: ours does what both offer.
    for control in theirs.controls {
        if !ours.controls.iter().any(|own| own.id == control.id) {
            ours.controls.push(control);
        }
    }
    ours.controls.sort_by_key(|control| control.rank);
    connections(&mut ours.incoming, theirs.incoming);
    connections(&mut ours.outgoing, theirs.outgoing);
}

/// How many children a group has of those that its second line counts, e.g. `Pods` of `Deployment of 2 pods`.
fn counted_children(details: &Details) -> usize {
    let noun = number_in(&details.summary.label_minor).map(|(.., noun)| noun);
    let many = COUNTED.iter().find(|(one, many, _)| noun == Some(*one) || noun == Some(*many)).map(|(_, many, _)| *many);
    let group = details.children.iter().find(|group| many.is_some_and(|many| group.label.eq_ignore_ascii_case(many)));
    group.map_or(0, |group| group.nodes.len())
}

fn children(ours: &mut ChildGroup, theirs: ChildGroup) {
    let mut nodes: BTreeMap<NodeId, NodeSummary> = theirs.nodes.into_iter().map(|node| (node.id.clone(), node)).collect();
    nodes.extend(std::mem::take(&mut ours.nodes).into_iter().map(|node| (node.id.clone(), node)));
    ours.nodes = nodes.into_values().collect();
}

fn connections(ours: &mut Vec<Connection>, theirs: Vec<Connection>) {
    for connection in theirs {
        if !ours.iter().any(|own| own.id == connection.id) {
            ours.push(connection);
        }
    }
    ours.sort_by(|one, other| one.id.cmp(&other.id));
}

/// Fills in labels of neighbours that only the picture knows.
pub(super) fn with_labels(mut details: Details, picture: &ViewSnapshot) -> Details {
    for connection in details.incoming.iter_mut().chain(&mut details.outgoing).filter(|connection| connection.label.is_empty()) {
        if let Some(node) = picture.nodes.get(&connection.node_id) {
            connection.label = node.summary().label.clone();
            connection.label_minor = node.summary().label_minor.clone();
        }
    }
    details
}

/// Leaves what leads to nodes of a picture, or to the node itself.
pub(super) fn within(mut details: Details, picture: &ViewSnapshot) -> Details {
    let own = details.summary.id.clone();
    let is_there = |id: &NodeId| *id == own || picture.nodes.contains_key(id);
    details.summary.adjacency.retain(is_there);
    details.incoming.retain(|connection| is_there(&connection.node_id));
    details.outgoing.retain(|connection| is_there(&connection.node_id));
    details
}

#[cfg(test)]
mod tests {
    use topology::{Control, MetadataRow, Shape};

    use super::*;

    fn group(label_minor: &str, row: &'static str, value: &str) -> NodeSummary {
        let row =
            MetadataRow { id: row.into(), label: "".into(), value: value.into(), priority: 1.0, data_type: "number".into(), truncate: 0 };
        let blank = NodeSummary::blank("g".into(), Shape::Hexagon);
        NodeSummary { label_minor: label_minor.into(), stack: true, metadata: vec![row], ..blank }
    }

    #[track_caller]
    fn merged(label_minor: &str, row: &'static str, uncounted: u64) -> (String, String) {
        let theirs = group("9 of theirs", row, "9");
        let summary = summary(&group(label_minor, row, "own"), &theirs, uncounted);
        (summary.label_minor.to_string(), summary.metadata[0].value.to_string())
    }

    #[test]
    fn what_both_sides_have_in_a_group_is_counted_once() {
        let two = |label: &str, row: &str| (label.to_owned(), row.to_owned());
        assert_eq!(merged("15 containers", "container", 0), two("15 containers", "own"));
        assert_eq!(merged("1 container", "container", 1), two("2 containers", "2"));
        assert_eq!(merged("2 processes", "none", 1), two("3 processes", "own"));
        assert_eq!(merged("0 pods", "pod", 1), two("1 pod", "1"));
        assert_eq!(merged("Deployment of 1 pod", "pod", 2), two("Deployment of 3 pods", "3"));
        assert_eq!(merged("", "pod", 1), two("", "own"));
    }

    fn child(id: &str) -> NodeSummary {
        NodeSummary::blank(id.into(), Shape::Hexagon)
    }

    fn control(id: &'static str, probe: &str, rank: i64) -> Control {
        Control {
            probe_id: probe.into(),
            node_id: "g".into(),
            id: id.into(),
            human: id.into(),
            icon: "".into(),
            confirmation: "".into(),
            rank,
        }
    }

    fn panel(label_minor: &str, children: &[&str], controls: Vec<Control>) -> Details {
        let nodes = children.iter().map(|id| child(id)).collect();
        Details {
            summary: group(label_minor, "container", "own"),
            controls,
            children: vec![ChildGroup { label: "Containers", topology_id: "containers", columns: &[], nodes }],
            incoming: Vec::new(),
            outgoing: Vec::new(),
            shows_remote: false,
        }
    }

    #[test]
    fn a_panel_counts_the_children_that_it_lists() {
        let mut ours = panel("2 containers", &["a", "b"], Vec::new());
        details(&mut ours, panel("2 containers", &["b", "c"], Vec::new()));
        assert_eq!(ours.children[0].nodes.len(), 3);
        assert_eq!((&*ours.summary.label_minor, &*ours.summary.metadata[0].value), ("3 containers", "3"));
    }

    #[test]
    fn a_panel_shows_no_neighbour_that_its_picture_has_not() {
        let connection = |node: &str| Connection {
            id: node.into(),
            node_id: node.into(),
            label: "".into(),
            label_minor: "".into(),
            remote: None,
            port: None,
            protocol: "tcp",
            via: "".into(),
            applications: Vec::new(),
            count: 1,
        };
        let mut whole = panel("", &[], Vec::new());
        whole.summary.adjacency = vec!["a".into(), "b".into(), "g".into()];
        whole.incoming = ["a", "b", "g"].map(connection).into();
        whole.outgoing = ["b"].map(connection).into();
        let mut picture = ViewSnapshot::default();
        picture.nodes.insert("a".into(), topology::PublishedNode::new(child("a")));
        // The node itself is shown, whether a filter leaves it out or not.
        let cut = within(whole, &picture);
        let left: Vec<&str> = cut.incoming.iter().map(|it| it.node_id.as_str()).collect();
        assert_eq!((left, cut.outgoing.len()), (vec!["a", "g"], 0));
        assert_eq!(cut.summary.adjacency, ["a".into(), "g".into()]);
    }

    #[test]
    fn what_both_probes_of_a_host_can_do_is_offered_once() {
        let mut ours = panel("", &[], vec![control("stop", "new", 7)]);
        details(&mut ours, panel("", &[], vec![control("stop", "old", 7), control("attach", "old", 1)]));
        let offered: Vec<(&str, &str)> = ours.controls.iter().map(|control| (&*control.id, &*control.probe_id)).collect();
        assert_eq!(offered, [("attach", "old"), ("stop", "new")]);
    }
}
