use scope_report::Item;
use topology::{MetadataRow, Shape};

use super::*;

fn node(id: &str, adjacency: &[&str]) -> NodeSummary {
    NodeSummary {
        id: id.into(),
        label: id.into(),
        label_minor: "".into(),
        rank: "".into(),
        shape: Shape::Square,
        tag: "",
        stack: false,
        pseudo: id.starts_with("pseudo") || id.ends_with("internet"),
        metadata: Vec::new(),
        parents: Vec::new(),
        metrics: Vec::new(),
        tables: Vec::new(),
        adjacency: adjacency.iter().map(|&id| NodeId::from(id)).collect(),
    }
}

fn in_namespace(id: &str, namespace: &str, adjacency: &[&str]) -> NodeSummary {
    let row = MetadataRow {
        id: "kubernetes_namespace".into(),
        label: "".into(),
        value: namespace.into(),
        priority: 1.0,
        data_type: "".into(),
        truncate: 0,
    };
    NodeSummary { metadata: vec![row], ..node(id, adjacency) }
}

fn snapshot(nodes: Vec<NodeSummary>) -> ViewSnapshot {
    let mut snapshot = ViewSnapshot::default();
    for node in nodes {
        count(&mut snapshot.stats, &node, true);
        snapshot.nodes.insert(node.id.clone(), PublishedNode::new(node));
    }
    snapshot
}

fn overlay(theirs: Vec<NodeSummary>, ours: Vec<NodeSummary>) -> Overlay {
    let mut overlay = Overlay::default();
    let items = theirs.into_iter().map(|it| (it, false)).chain(ours.into_iter().map(|it| (it, true)));
    let item =
        |(summary, is_ours): (NodeSummary, bool)| (summary.id.clone(), Item { node: PublishedNode::new(summary), is_ours, uncounted: 0 });
    overlay.items = items.map(item).collect();
    overlay
}

fn outline(snapshot: &ViewSnapshot) -> Vec<String> {
    let line = |node: &PublishedNode| {
        let targets: Vec<&str> = node.summary().adjacency.iter().map(|id| id.as_str()).collect();
        format!("{} -> {}", node.summary().id, targets.join(" ")).trim_end().to_owned()
    };
    snapshot.nodes.values().map(line).collect()
}

/// Numbers are what a count of everything says.
#[track_caller]
fn check_stats(composed: &ViewSnapshot) {
    let mut stats = ViewStats { filtered_nodes: composed.stats.filtered_nodes, ..ViewStats::default() };
    composed.nodes.values().for_each(|node| count(&mut stats, node.summary(), true));
    assert_eq!(composed.stats, stats);
}

#[test]
fn edges_between_both_sides_are_drawn_at_both() {
    let base = snapshot(vec![node("a", &["b"]), node("b", &[])]);
    let picture = composed(&base, &base, &overlay(vec![node("x", &["b", "nowhere"])], vec![node("a", &["x"]), node("b", &[])]), None);
    assert_eq!(outline(&picture), ["a -> b x", "b ->", "x -> b"]);
    check_stats(&picture);
    assert_ne!(picture.structure_version, base.structure_version);
}

#[test]
fn what_is_counted_is_what_is_drawn() {
    let base = snapshot(vec![node("a", &["b", "out-theinternet"]), node("b", &[]), node("out-theinternet", &[])]);
    let whole = snapshot(vec![node("a", &["b"]), node("b", &[]), node("lonely", &[])]);
    let theirs = vec![node("x", &["a", "lonely", "nowhere"]), node("y", &["x", "y"]), node("pseudo:uncontained:h", &[]), node("b", &["y"])];
    let ours = vec![node("lonely", &[]), node("hidden", &["x"]), node("a", &["x"])];
    let overlay = overlay(theirs, ours);
    let picture = composed(&base, &whole, &overlay, None);
    check_stats(&picture);
    assert_eq!(composed_stats(&base, &whole, overlay.outlines(), overlay.stats.filtered_nodes), picture.stats);
}

#[test]
fn what_is_the_same_in_two_pictures_is_there_once() {
    let theirs = overlay(vec![node("x", &["y"]), node("y", &["a"]), node("z", &["gone"])], vec![node("a", &[])]);
    let first = composed(&snapshot(vec![node("a", &[])]), &snapshot(Vec::new()), &theirs, None);
    let base = snapshot(vec![node("a", &[]), node("b", &[])]);
    let second = composed(&base, &base, &theirs, None);
    assert_eq!((first.nodes.get("x"), first.nodes.get("y")), (second.nodes.get("x"), second.nodes.get("y")));
    assert_eq!(second.nodes.get("a"), base.nodes.get("a"));
    // An edge of this one leads nowhere.
    assert_eq!(outline(&second), ["a ->", "b ->", "x -> y", "y -> a", "z ->"]);
}

#[test]
fn what_is_ours_and_hidden_stays_hidden_unless_only_for_want_of_a_connection() {
    let base = snapshot(vec![node("a", &[])]);
    let whole = snapshot(vec![node("a", &[]), node("lonely", &[])]);
    let theirs = || overlay(vec![node("x", &["lonely", "hidden"])], vec![node("lonely", &[]), node("hidden", &[])]);
    let picture = composed(&base, &whole, &theirs(), None);
    assert_eq!(outline(&picture), ["a ->", "lonely ->", "x -> lonely"]);
    check_stats(&picture);
    let picture = composed(&base, &base, &theirs(), None);
    assert_eq!(outline(&picture), ["a ->", "x ->"]);
    check_stats(&picture);
}

#[test]
fn what_stands_for_the_outside_needs_a_connection() {
    let base = snapshot(vec![node("a", &["out-theinternet"]), node("out-theinternet", &[])]);
    let theirs = vec![node("pseudo:uncontained:h", &["gone"]), node("out-theinternet", &[]), node("x", &["out-theinternet"])];
    let picture = composed(&base, &base, &overlay(theirs, Vec::new()), None);
    assert_eq!(outline(&picture), ["a -> out-theinternet", "out-theinternet ->", "x -> out-theinternet"]);
    assert_eq!(picture.stats.filtered_nodes, 1);
    check_stats(&picture);
}

#[test]
fn a_namespace_leaves_its_nodes_the_edges_between_them_and_what_they_are_connected_to() {
    let base = snapshot(vec![
        in_namespace("a", "shop", &["b", "c"]),
        in_namespace("b", "shop", &[]),
        in_namespace("c", "other", &["out-theinternet"]),
        node("out-theinternet", &[]),
        node("in-theinternet", &["a"]),
    ]);
    let picture = composed(&base, &base, &Overlay::default(), Some(&["shop".into()].into()));
    assert_eq!(outline(&picture), ["a -> b", "b ->", "in-theinternet -> a"]);
    assert_eq!(picture.stats.filtered_nodes, 2);
    check_stats(&picture);
    // What did not change is the same, and costs nothing in a delta.
    assert_eq!(picture.nodes.get("b"), base.nodes.get("b"));
}
