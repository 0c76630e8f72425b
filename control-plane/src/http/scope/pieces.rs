//! Large JSON texts in pieces. A piece is made when the client has taken the one before, so that a client costs a snapshot that it shares
//! with others and one piece, however large the view and however slowly it reads.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use topology::{Delta, NodeId, PublishedNode, ViewSnapshot};

use super::graphs::MetricsGraph;
use super::summary;
use crate::http::json;

/// More than most nodes have in JSON.
const NODE_BYTES: usize = 8 << 10;

/// A JSON text that comes in pieces.
#[derive(Debug)]
pub(crate) struct Pieces {
    plan: Plan,
    state: State,
    graphs: MetricsGraph,
}

#[derive(Debug)]
enum Plan {
    /// `{"nodes":{"id":{…},…}}`
    View(Walk),
    /// `{"add":[…],"update":null,"remove":null,"reset":true}`
    Reset(Walk),
    /// `{"add":…,"update":…,"remove":…}`
    /// `next` is the place in the section, or none before its beginning is written.
    Delta { delta: Arc<Delta>, section: Section, next: Option<usize> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Begin,
    Inside,
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Add,
    Update,
    Remove,
}

impl Pieces {
    /// The reply to a request for the whole view.
    pub(crate) fn of_view(snapshot: Arc<ViewSnapshot>) -> Self {
        Pieces::new(Plan::View(Walk { snapshot, last: None }))
    }

    /// The first message of a WebSocket.
    pub(crate) fn of_reset(snapshot: Arc<ViewSnapshot>) -> Self {
        Pieces::new(Plan::Reset(Walk { snapshot, last: None }))
    }

    /// A later message.
    pub(crate) fn of_delta(delta: Arc<Delta>) -> Self {
        Pieces::new(Plan::Delta { delta, section: Section::Add, next: None })
    }

    fn new(plan: Plan) -> Self {
        Pieces { plan, state: State::Begin, graphs: MetricsGraph::default() }
    }

    /// With links to graphs. The same for all texts of a process, since a node is written once for all of them.
    pub(crate) fn linking(self, graphs: &MetricsGraph) -> Self {
        Pieces { graphs: graphs.clone(), ..self }
    }

    /// The next piece of about `size` bytes, longer by at most one node; `None` after the last.
    pub(crate) fn next_piece(&mut self, size: usize) -> Option<Bytes> {
        if self.state == State::Ended {
            return None;
        }
        // Room for the node that goes beyond the size: growing would copy all that is written.
        let mut out = Vec::with_capacity(size + NODE_BYTES);
        let graphs = &self.graphs;
        let begin = self.state == State::Begin;
        let ended = match &mut self.plan {
            Plan::View(walk) => walk.write(&mut out, size, begin, (b"{\"nodes\":{", b"}}"), |out, node| {
                let encoded = summary::encoded(node, graphs);
                out.extend_from_slice(summary::encoded_id(encoded));
                out.push(b':');
                out.extend_from_slice(encoded);
            }),
            Plan::Reset(walk) => {
                let frame: (&[u8], &[u8]) = if walk.snapshot.nodes.is_empty() {
                    (b"{\"add\":null", b",\"update\":null,\"remove\":null,\"reset\":true}")
                } else {
                    (b"{\"add\":[", b"],\"update\":null,\"remove\":null,\"reset\":true}")
                };
                walk.write(&mut out, size, begin, frame, |out, node| out.extend_from_slice(summary::encoded(node, graphs)))
            }
            Plan::Delta { delta, section, next } => write_delta(&mut out, size, (delta, graphs), section, next),
        };
        self.state = if ended { State::Ended } else { State::Inside };
        Some(out.into())
    }

    /// Whether the last piece has been given out.
    pub(crate) fn is_ended(&self) -> bool {
        self.state == State::Ended
    }
}

/// Where a walk through a snapshot stands. It holds the id it came to and not an iterator, which would borrow the snapshot.
#[derive(Debug)]
struct Walk {
    snapshot: Arc<ViewSnapshot>,
    last: Option<NodeId>,
}

impl Walk {
    /// Writes nodes until `out` has `size` bytes; true when it wrote the last one.
    fn write(
        &mut self,
        out: &mut Vec<u8>,
        size: usize,
        begin: bool,
        (before, after): (&[u8], &[u8]),
        write_node: impl Fn(&mut Vec<u8>, &PublishedNode),
    ) -> bool {
        if begin {
            out.extend_from_slice(before);
        }
        let from = self.last.take().map_or(Bound::Unbounded, Bound::Excluded);
        let mut separate = matches!(from, Bound::Excluded(_));
        for (id, node) in self.snapshot.nodes.range((from, Bound::Unbounded)) {
            if separate {
                out.push(b',');
            }
            separate = true;
            write_node(out, node);
            if out.len() >= size {
                self.last = Some(id.clone());
                return false;
            }
        }
        out.extend_from_slice(after);
        true
    }
}

fn write_delta(
    out: &mut Vec<u8>,
    size: usize,
    (delta, graphs): (&Delta, &MetricsGraph),
    section: &mut Section,
    next: &mut Option<usize>,
) -> bool {
    loop {
        let (before, length): (&[u8], usize) = match section {
            Section::Add => (b"{\"add\":", delta.add.len()),
            Section::Update => (b",\"update\":", delta.update.len()),
            Section::Remove => (b",\"remove\":", delta.remove.len()),
        };
        if next.is_none() {
            out.extend_from_slice(before);
            out.extend_from_slice(if length == 0 { b"null" } else { b"[" });
        }
        for at in next.unwrap_or(0)..length {
            if out.len() >= size {
                *next = Some(at);
                return false;
            }
            if at > 0 {
                out.push(b',');
            }
            match section {
                Section::Add => out.extend_from_slice(summary::encoded(&delta.add[at], graphs)),
                Section::Update => out.extend_from_slice(summary::encoded(&delta.update[at], graphs)),
                Section::Remove => out.extend_from_slice(&json::string(delta.remove[at].as_str())),
            }
        }
        if length > 0 {
            out.push(b']');
        }
        *next = None;
        *section = match section {
            Section::Add => Section::Update,
            Section::Update => Section::Remove,
            Section::Remove => {
                out.push(b'}');
                return true;
            }
        };
    }
}

#[cfg(test)]
mod tests;
