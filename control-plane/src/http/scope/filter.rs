//! A view of which only the nodes are shown that answer a query.

use std::sync::Arc;

use imbl::OrdMap;
use topology::{NodeId, PublishedNode, Query as Words, ViewSnapshot};

use super::delta::Delta;
use crate::http::query::Query;

/// Parameter of a view and of its WebSocket with the query, in the language of `/api/search`.
pub(crate) const PARAMETER: &str = "q";

/// The query of a request, if it has one.
pub(crate) fn of(query: &Query) -> Result<Option<Words>, String> {
    let words = query.first(PARAMETER).filter(|text| !text.is_empty());
    words.map(Words::parse).transpose().map_err(|error| error.to_string())
}

/// The nodes of a snapshot that answer. Looks at every node: for where that may take its time.
pub(crate) fn whole(words: &Words, snapshot: &ViewSnapshot) -> Arc<ViewSnapshot> {
    let nodes = snapshot.nodes.iter().filter(|(_, node)| words.find(node.summary()).is_some());
    let nodes: OrdMap<_, _> = nodes.map(|(id, node)| (id.clone(), node.clone())).collect();
    with_nodes(nodes, snapshot)
}

/// The filtered snapshot after a change. Looks at what changed.
pub(crate) fn after(words: &Words, shown: &ViewSnapshot, change: &Delta, newest: &ViewSnapshot) -> Arc<ViewSnapshot> {
    let mut nodes = shown.nodes.clone();
    for id in &change.remove {
        nodes.remove(id);
    }
    for node in change.update.iter().chain(&change.add) {
        let summary = node.summary();
        if words.find(summary).is_some() {
            nodes.insert(summary.id.clone(), node.clone());
        } else {
            nodes.remove(&summary.id);
        }
    }
    with_nodes(nodes, newest)
}

/// The numbers of the view stay those of all its nodes, as with Scope's own searches.
fn with_nodes(nodes: OrdMap<NodeId, PublishedNode>, of: &ViewSnapshot) -> Arc<ViewSnapshot> {
    let &ViewSnapshot { nodes: ref _all, stats, version, structure_version } = of;
    Arc::new(ViewSnapshot { nodes, stats, version, structure_version })
}
