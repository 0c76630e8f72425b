use std::collections::BTreeMap;
use std::time::Instant;

use imbl::OrdMap;
use proptest::prelude::*;
use topology::{NodeId, NodeSummary, PublishedNode, Shape};

use super::*;

fn node(id: &str, label: &str) -> PublishedNode {
    PublishedNode::new(NodeSummary { label: label.into(), ..NodeSummary::blank(id.into(), Shape::Square) })
}

fn id(number: u32) -> NodeId {
    NodeId::from(format!("n{number:06}"))
}

fn snapshot(nodes: OrdMap<NodeId, PublishedNode>, version: u64) -> ViewSnapshot {
    ViewSnapshot { nodes, version, ..ViewSnapshot::default() }
}

fn labels(nodes: &OrdMap<NodeId, PublishedNode>) -> BTreeMap<NodeId, String> {
    nodes.iter().map(|(id, node)| (id.clone(), node.summary().label.to_string())).collect()
}

proptest! {
    #[test]
    fn a_delta_leads_from_the_one_snapshot_to_the_other(changes in proptest::collection::vec((0_u32..300, 0_u8..4, any::<bool>()), 0..400), split in 0_usize..400) {
        let mut nodes = OrdMap::new();
        let mut from = nodes.clone();
        for (step, (number, label, remove)) in changes.into_iter().enumerate() {
            if step == split {
                from = nodes.clone();
            }
            if remove {
                nodes.remove(&id(number));
            } else {
                nodes.insert(id(number), node(id(number).as_str(), &label.to_string()));
            }
        }
        let delta = Delta::between(&snapshot(from.clone(), 1), &snapshot(nodes.clone(), 2));
        let mut state = labels(&from);
        for id in &delta.remove {
            prop_assert!(state.remove(id).is_some());
        }
        for node in &delta.update {
            let before = state.insert(node.summary().id.clone(), node.summary().label.to_string());
            prop_assert!(before.is_some_and(|before| *before != *node.summary().label), "an update changes something");
        }
        for node in &delta.add {
            prop_assert!(state.insert(node.summary().id.clone(), node.summary().label.to_string()).is_none());
        }
        prop_assert_eq!(state, labels(&nodes));
    }
}

#[test]
fn the_cost_follows_what_changed_and_not_what_is_there() {
    let large: OrdMap<NodeId, PublishedNode> = (0..100_000).map(|number| (id(number), node("x", "x"))).collect();
    let mut changed = large.clone();
    changed.insert(id(50_000), node("x", "y"));
    changed.remove(&id(70_000));
    let (large, changed) = (snapshot(large, 1), snapshot(changed, 2));
    let begun = Instant::now();
    for _ in 0..100 {
        let delta = Delta::between(&large, &changed);
        assert_eq!((delta.add.len(), delta.update.len(), delta.remove.len()), (0, 1, 1));
    }
    let each = begun.elapsed() / 100;
    let walk = Instant::now();
    assert_eq!(large.nodes.iter().count(), 100_000);
    let walk = walk.elapsed();
    assert!(each * 10 < walk, "{each:?} for a delta, {walk:?} for a walk through everything");
}

#[test]
fn clients_that_go_the_same_way_share_one_delta() {
    let cache = DeltaCache::default();
    let from = Arc::new(snapshot(OrdMap::new(), 1));
    let to = Arc::new(snapshot(OrdMap::unit(id(1), node("a", "a")), 2));
    assert!(Arc::ptr_eq(&cache.between(&from, &to), &cache.between(&from, &to)));
    assert!(!Arc::ptr_eq(&cache.between(&from, &to), &cache.between(&to, &from)));
}

#[test]
fn a_picture_that_begins_again_with_the_same_versions_gets_its_own_deltas() {
    let cache = DeltaCache::default();
    for number in 0..200 {
        let from = Arc::new(snapshot(OrdMap::new(), 1));
        let to = Arc::new(snapshot(OrdMap::unit(id(number), node("a", "a")), 2));
        assert_eq!(cache.between(&from, &to), Arc::new(Delta::between(&from, &to)));
    }
}
