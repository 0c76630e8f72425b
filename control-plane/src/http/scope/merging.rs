//! One node, as the map knows it and as old probes do. The map's words come first: it has them from our own probes.

use std::collections::BTreeMap;

use topology::{ChildGroup, Connection, Details, NodeId, NodeSummary, ViewSnapshot};

/// Both summaries of a node as one.
pub(super) fn summary(ours: &NodeSummary, theirs: &NodeSummary) -> NodeSummary {
    let mut merged = ours.clone();
    merged.adjacency.extend(theirs.adjacency.iter().cloned());
    merged.adjacency.sort();
    merged.adjacency.dedup();
    if merged.stack && !merged.pseudo {
        merged.label_minor = counted(&ours.label_minor, &theirs.label_minor);
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

/// `2 processes` and `1 process` are `3 processes`.
fn counted(ours: &str, theirs: &str) -> std::sync::Arc<str> {
    let parts = |text: &str| {
        let at = text.find(|letter: char| letter.is_ascii_digit())?;
        let (before, rest) = text.split_at(at);
        let (number, noun) = rest.split_once(' ')?;
        Some((before.to_owned(), number.parse::<u64>().ok()?, noun.to_owned()))
    };
    match (parts(ours), parts(theirs)) {
        (Some((before, own, noun)), Some((_, other, other_noun))) => {
            // The longer noun is the one for many.
            let many = if noun.len() > other_noun.len() { &noun } else { &other_noun };
            let sum = own.saturating_add(other);
            let noun = match (sum, own, other) {
                (1, 1, 0) => noun,
                (1, 0, 1) => other_noun,
                (_, 1, 1) => plural(&noun),
                _ => many.clone(),
            };
            format!("{before}{sum} {noun}").into()
        }
        _ => ours.into(),
    }
}

fn plural(noun: &str) -> String {
    let ending = if noun.ends_with('s') { "es" } else { "s" };
    format!("{noun}{ending}")
}

/// Puts what old probes know of a node into what the map does.
pub(super) fn details(ours: &mut Details, theirs: Details) {
    ours.summary = summary(&ours.summary, &theirs.summary);
    ours.controls.extend(theirs.controls);
    for group in theirs.children {
        match ours.children.iter_mut().find(|own| own.topology_id == group.topology_id && own.label == group.label) {
            Some(own) => children(own, group),
            None => ours.children.push(group),
        }
    }
    connections(&mut ours.incoming, theirs.incoming);
    connections(&mut ours.outgoing, theirs.outgoing);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_both_sides_add_up() {
        assert_eq!(&*counted("2 processes", "1 process"), "3 processes");
        assert_eq!(&*counted("1 process", "1 process"), "2 processes");
        assert_eq!(&*counted("1 container", "0 containers"), "1 container");
        assert_eq!(&*counted("0 containers", "1 container"), "1 container");
        assert_eq!(&*counted("Deployment of 1 pod", "Deployment of 2 pods"), "Deployment of 3 pods");
        assert_eq!(&*counted("", "1 pod"), "");
    }
}
