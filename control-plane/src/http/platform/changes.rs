//! What is different between two moments of a view: what appeared, what vanished, what changed. And how far back moments go.

use std::borrow::Cow;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use base::Timestamp;
use http::StatusCode;
use imbl::ordmap::DiffItem;
use proto::control::v1 as wire;
use serde::Serialize;
use topology::{CONTAINER_STATE, NodeSummary, View, ViewSnapshot, ageless};
use utoipa::{IntoParams, ToSchema};

use super::{moment, number};
use crate::http::query::Query;
use crate::http::reply::{json_value, problem};
use crate::http::scope::{Failure, Past, Wanted, parse_moment, picture_of};
use crate::http::{Context, History};

/// Nodes of a page when the client does not say.
const DEFAULT_LIMIT: usize = 100;
/// Nodes of a page at most.
const LIMIT_MAX: usize = 1_000;
/// Different texts of one node that are shown.
const FIELDS_MAX: usize = 64;
/// Neighbours of one node that are shown.
const NEIGHBOURS_MAX: usize = 64;

/// Which moments of which view to compare.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes parameters; they are read one by one, so that a mistake can be named")]
pub(crate) struct ChangeParameters {
    /// The earlier moment, in RFC 3339.
    from: String,
    /// The later moment, in RFC 3339; now when absent.
    to: Option<String>,
    /// Id of the view; `containers` when absent. Its options may be given, too.
    view: Option<String>,
    /// Nodes of a page, 1 to 1,000; default 100. Beyond the first page pass `next` as `after`.
    #[param(minimum = 1, maximum = 1_000)]
    limit: Option<usize>,
    /// `next` of the page before.
    after: Option<String>,
}

/// What is different.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChangesReply {
    /// The view.
    view: &'static str,
    /// The earlier moment.
    from: String,
    /// The later moment.
    to: String,
    /// The first moment of which the history knows, when the earlier one is before it: then everything has appeared since. Else null.
    #[serde(rename = "knownFrom", serialize_with = "in_words")]
    #[schema(required, value_type = Option<String>)]
    known_from: Option<Timestamp>,
    /// Nodes that are there only at the later moment.
    appeared: u64,
    /// Nodes that are there only at the earlier one.
    vanished: u64,
    /// Nodes that are there at both, and look different; metrics and uptimes aside.
    changed: u64,
    /// A page of them, sorted by id.
    changes: Vec<NodeChange>,
    /// `after` of the next page; null on the last.
    #[schema(required)]
    next: Option<String>,
}

/// A node that is different.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeChange {
    /// `appeared`, `vanished` or `changed`.
    kind: &'static str,
    /// Id of the node.
    id: String,
    /// First line of its label, at the later moment if it is there.
    label: String,
    /// Second line.
    label_minor: String,
    /// Texts that are different.
    fields: Vec<FieldChange>,
    /// Nodes to which it has a connection only at the later moment.
    connected: Vec<String>,
    /// Nodes to which it has a connection only at the earlier moment.
    disconnected: Vec<String>,
}

/// A text that is different.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FieldChange {
    /// `label`, `labelMinor`, the label of a row, or the view of a parent.
    field: String,
    /// At the earlier moment; empty when it was not there.
    before: String,
    /// At the later moment; empty when it is not there.
    after: String,
}

/// What is different between two moments of a view.
///
/// Nodes of which only metrics or the uptime are different are left out.
#[utoipa::path(
    get,
    path = "/api/v1/changes",
    tag = "Platform",
    params(ChangeParameters),
    responses(
        (status = 200, description = "What appeared, vanished and changed", body = ChangesReply),
        (status = 400, description = "A parameter cannot be understood", body = String, content_type = "application/json"),
        (status = 500, description = "The history cannot be read", body = String, content_type = "application/json")
    )
)]
pub(crate) async fn changes(State(context): State<Context>, RawQuery(query): RawQuery) -> Response {
    match answer(&context, &Query::parse(query.as_deref())).await {
        Ok(Ok(reply)) => json_value(StatusCode::OK, &reply),
        Ok(Err(text)) => problem(StatusCode::BAD_REQUEST, &text),
        Err(failure) => failure.reply(),
    }
}

/// A page, or which parameter cannot be understood.
pub(crate) async fn answer(context: &Context, query: &Query) -> Result<Result<ChangesReply, String>, Failure> {
    match Asked::parse(context, query) {
        Ok(asked) => Ok(Ok(asked.answer(context).await?)),
        Err(text) => Ok(Err(text)),
    }
}

impl From<ChangesReply> for wire::ListChangesResponse {
    fn from(reply: ChangesReply) -> Self {
        let field = |it: FieldChange| wire::FieldChange { field: it.field, before: it.before, after: it.after };
        let change = |it: NodeChange| wire::Change {
            kind: match it.kind {
                "appeared" => wire::change::Kind::Appeared,
                "vanished" => wire::change::Kind::Vanished,
                _ => wire::change::Kind::Changed,
            }
            .into(),
            id: it.id,
            label: it.label,
            label_minor: it.label_minor,
            fields: it.fields.into_iter().map(field).collect(),
            connected: it.connected,
            disconnected: it.disconnected,
        };
        wire::ListChangesResponse {
            appeared: reply.appeared,
            vanished: reply.vanished,
            changed: reply.changed,
            changes: reply.changes.into_iter().map(change).collect(),
            next_page_token: reply.next.unwrap_or_default(),
            known_from: reply.known_from.map(edge_grpc::to_wire),
        }
    }
}

#[expect(clippy::ref_option, reason = "as it is called")]
fn in_words<S: serde::Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(moment).serialize(serializer)
}

struct Asked {
    from: Past,
    to: Option<Past>,
    until: Timestamp,
    /// The first moment that is known, when that is later than `from`.
    known_from: Option<Timestamp>,
    wanted: Wanted,
    limit: usize,
    after: Option<String>,
}

impl Asked {
    fn parse(context: &Context, query: &Query) -> Result<Self, String> {
        let now = context.clock.now();
        let read = |name: &str| match query.first(name).filter(|text| !text.is_empty()) {
            None => Ok(None),
            Some(text) => parse_moment(text).map(Some).ok_or_else(|| format!("{name} is {text:?}, which is no moment in RFC 3339")),
        };
        let from = read("from")?.ok_or("from is missing: the earlier moment")?;
        let until = read("to")?.unwrap_or(now).min(now);
        if from >= until {
            return Err(format!("from is {}, which is not before {}", moment(from), moment(until)));
        }
        let view = query.first("view").filter(|id| !id.is_empty()).unwrap_or(View::Containers.id());
        let view = View::from_id(view).ok_or_else(|| format!("view is {view:?}, which is no view"))?;
        let limit = number(query, "limit")?.unwrap_or(DEFAULT_LIMIT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(format!("limit is {limit}, which is not between 1 and {LIMIT_MAX}"));
        }
        let past = |at| Past::at(context, at);
        let from = past(from).ok_or("no history is kept")?;
        let to = if until < now { past(until) } else { None };
        let after = query.first("after").filter(|text| !text.is_empty()).map(str::to_owned);
        let known_from = context.history.kept().and_then(|history| history.status().span).map(|(first, _)| first);
        let known_from = known_from.filter(|first| from.at < *first);
        Ok(Asked { from, to, until, known_from, wanted: Wanted::new(view, query), limit, after })
    }

    async fn answer(self, context: &Context) -> Result<ChangesReply, Failure> {
        let before = self.from.picture(&self.wanted).await?;
        let after = picture_of(context, self.to.as_ref(), &self.wanted).await?;
        // Comparing the texts of two large views takes its time.
        let page = tokio::task::spawn_blocking(move || self.compare(&before, &after));
        page.await.map_err(|_| Failure::broken())
    }

    fn compare(self, before: &ViewSnapshot, after: &ViewSnapshot) -> ChangesReply {
        let mut reply = ChangesReply {
            view: self.wanted.key.view.id(),
            from: moment(self.from.at),
            to: moment(self.until),
            known_from: self.known_from,
            appeared: 0,
            vanished: 0,
            changed: 0,
            changes: Vec::new(),
            next: None,
        };
        for item in before.nodes.diff(&after.nodes) {
            let (kind, count, old, new) = match item {
                DiffItem::Add(_, new) => ("appeared", &mut reply.appeared, None, Some(new.summary())),
                DiffItem::Remove(_, old) => ("vanished", &mut reply.vanished, Some(old.summary()), None),
                DiffItem::Update { old: (_, old), new: (_, new) } => {
                    if !is_different(old.summary(), new.summary()) {
                        continue;
                    }
                    ("changed", &mut reply.changed, Some(old.summary()), Some(new.summary()))
                }
            };
            *count += 1;
            let Some(shown) = new.or(old) else { continue };
            if self.after.as_deref().is_some_and(|after| shown.id.as_str() <= after) || reply.next.is_some() {
                continue;
            }
            if reply.changes.len() == self.limit {
                reply.next = reply.changes.last().map(|last| last.id.clone());
                continue;
            }
            reply.changes.push(describe(kind, shown, old, new));
        }
        reply
    }
}

fn describe(kind: &'static str, shown: &NodeSummary, old: Option<&NodeSummary>, new: Option<&NodeSummary>) -> NodeChange {
    let mut fields = Vec::new();
    let (mut connected, mut disconnected) = (Vec::new(), Vec::new());
    if let (Some(old), Some(new)) = (old, new) {
        let (before, after) = (texts(old), texts(new));
        for (field, text) in &before {
            if after.get(field) != Some(text) {
                fields.push(FieldChange {
                    field: field.clone(),
                    before: text.clone(),
                    after: after.get(field).cloned().unwrap_or_default(),
                });
            }
        }
        let fresh = after.iter().filter(|(field, _)| !before.contains_key(*field));
        fields.extend(fresh.map(|(field, text)| FieldChange { field: field.clone(), before: String::new(), after: text.clone() }));
        fields.truncate(FIELDS_MAX);
        let only = |one: &NodeSummary, other: &NodeSummary| {
            let ids = one.adjacency.iter().filter(|id| other.adjacency.binary_search(id).is_err());
            ids.take(NEIGHBOURS_MAX).map(ToString::to_string).collect::<Vec<_>>()
        };
        (connected, disconnected) = (only(new, old), only(old, new));
    }
    NodeChange {
        kind,
        id: shown.id.to_string(),
        label: shown.label.to_string(),
        label_minor: shown.label_minor.to_string(),
        fields,
        connected,
        disconnected,
    }
}

fn is_different(old: &NodeSummary, new: &NodeSummary) -> bool {
    old.adjacency != new.adjacency || texts(old) != texts(new)
}

/// What a node says, by field. Fields of one name, such as two parents of a kind, are one.
fn texts(node: &NodeSummary) -> std::collections::BTreeMap<String, String> {
    let mut texts = std::collections::BTreeMap::new();
    let mut add = |field: &str, text: &str| {
        let known: &mut String = texts.entry(field.to_owned()).or_default();
        if !known.is_empty() {
            known.push_str(", ");
        }
        known.push_str(text);
    };
    add("label", &node.label);
    add("labelMinor", &node.label_minor);
    for row in node.metadata.iter().filter(|row| row.data_type != "duration") {
        add(&row.label, &if row.id == CONTAINER_STATE { ageless(&row.value) } else { Cow::Borrowed(&*row.value) });
    }
    let mut parents: Vec<_> = node.parents.iter().collect();
    parents.sort_by(|a, b| a.id.cmp(&b.id));
    parents.into_iter().for_each(|parent| add(parent.topology_id, &parent.label));
    node.tables.iter().flat_map(|table| &table.rows).for_each(|(label, value)| add(label, value));
    let grids = node.tables.iter().filter_map(|table| table.grid.as_deref());
    grids.flat_map(|grid| &grid.rows).flat_map(|row| &row.cells).for_each(|(column, value)| add(column, value));
    texts
}

/// How the history is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HistoryReply {
    /// Whether one is kept.
    enabled: bool,
    /// First moment that can be shown.
    #[schema(required)]
    from: Option<String>,
    /// Last moment that can be shown.
    #[schema(required)]
    to: Option<String>,
    /// Bytes on disk.
    bytes: u64,
    /// Files.
    segments: u64,
    /// Files that this version cannot read: an older or newer one wrote them. They leave as they grow old.
    unreadable: u64,
    /// Where something is missing, oldest first.
    gaps: Vec<HistoryGap>,
    /// Events since the start that found no room; what they said was told anew.
    events_lost: u64,
    /// Why nothing is written, when nothing is.
    #[schema(required)]
    problem: Option<String>,
}

/// A stretch of which nothing, or not everything, is known.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HistoryGap {
    /// Last moment before it.
    from: String,
    /// First moment after it.
    to: String,
    /// Events that were lost; 0 when nothing was recorded, as between two runs of the process.
    events_lost: u64,
}

/// How far back the map can be seen, and where something is missing.
#[utoipa::path(
    get,
    path = "/api/v1/history",
    tag = "Platform",
    responses((status = 200, description = "How the history is", body = HistoryReply))
)]
pub(crate) async fn history(State(context): State<Context>) -> Response {
    let mut reply = HistoryReply {
        enabled: !matches!(context.history, History::Off),
        from: None,
        to: None,
        bytes: 0,
        segments: 0,
        unreadable: 0,
        gaps: Vec::new(),
        events_lost: 0,
        problem: context.history.problem(),
    };
    if let Some(history) = context.history.kept() {
        let status = history.status();
        (reply.from, reply.to) = status.span.map(|(from, to)| (moment(from), moment(to))).unzip();
        (reply.bytes, reply.segments, reply.events_lost) = (status.bytes, status.segments as u64, status.lost);
        reply.unreadable = status.unreadable as u64;
        let gaps = status.gaps.iter().map(|gap| HistoryGap { from: moment(gap.from), to: moment(gap.to), events_lost: gap.lost });
        reply.gaps = gaps.collect();
    }
    json_value(StatusCode::OK, &reply)
}
