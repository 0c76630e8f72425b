use imbl::OrdMap;
use proptest::prelude::*;
use serde_json::{Value, json};
use topology::{NodeSummary, Shape};

use super::*;

fn node(id: &str) -> PublishedNode {
    PublishedNode::new(NodeSummary { label: id.into(), ..NodeSummary::blank(id.into(), Shape::Square) })
}

fn ids(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("n{number:04};<x>")).collect()
}

fn snapshot(count: usize) -> Arc<ViewSnapshot> {
    let nodes: OrdMap<NodeId, PublishedNode> = ids(count).iter().map(|id| (NodeId::from(id.as_str()), node(id))).collect();
    Arc::new(ViewSnapshot { nodes, ..ViewSnapshot::default() })
}

fn whole(mut pieces: Pieces, size: usize) -> (Value, usize) {
    let mut text = Vec::new();
    let mut count = 0;
    while let Some(piece) = pieces.next_piece(size) {
        assert!(piece.len() < size + 200, "a piece is longer by at most one node");
        text.extend_from_slice(&piece);
        count += 1;
    }
    assert!(pieces.is_ended());
    (serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&text))), count)
}

fn listed(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|node| node["id"].as_str().unwrap().to_owned()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_text_is_the_same_whatever_the_size_of_its_pieces(count in 0_usize..60, size in 1_usize..4_000) {
        let (view, _) = whole(Pieces::of_view(snapshot(count)), size);
        prop_assert_eq!(view["nodes"].as_object().unwrap().keys().cloned().collect::<Vec<_>>(), ids(count));
        let (reset, _) = whole(Pieces::of_reset(snapshot(count)), size);
        prop_assert_eq!(listed(&reset["add"]), ids(count));
        prop_assert_eq!(reset["add"].is_null(), count == 0);
        prop_assert_eq!((&reset["update"], &reset["remove"], &reset["reset"]), (&Value::Null, &Value::Null, &json!(true)));
    }

    #[test]
    fn a_delta_is_the_same_whatever_the_size_of_its_pieces(add in 0_usize..20, update in 0_usize..20, remove in 0_usize..20, size in 1_usize..2_000) {
        let nodes = |count| ids(count).iter().map(|id| node(id)).collect();
        let delta = Delta { add: nodes(add), update: nodes(update), remove: ids(remove).into_iter().map(NodeId::from).collect() };
        let (message, _) = whole(Pieces::of_delta(Arc::new(delta)), size);
        prop_assert_eq!(listed(&message["add"]), ids(add));
        prop_assert_eq!(listed(&message["update"]), ids(update));
        let removed: Vec<&str> = message["remove"].as_array().into_iter().flatten().map(|id| id.as_str().unwrap()).collect();
        prop_assert_eq!(removed, ids(remove));
        for (field, count) in [("add", add), ("update", update), ("remove", remove)] {
            prop_assert_eq!(message[field].is_null(), count == 0);
        }
        prop_assert!(message.get("reset").is_none());
    }
}

#[test]
fn an_empty_delta_is_three_nulls() {
    let mut pieces = Pieces::of_delta(Arc::default());
    assert_eq!(pieces.next_piece(100).unwrap(), r#"{"add":null,"update":null,"remove":null}"#);
    assert_eq!(pieces.next_piece(100), None);
}

#[test]
fn a_large_view_comes_in_many_pieces() {
    let (_, count) = whole(Pieces::of_view(snapshot(2_000)), 4_096);
    assert!(count > 20, "{count}");
}
