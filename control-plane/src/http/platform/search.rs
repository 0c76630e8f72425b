//! One search over all nodes of all views.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use axum::extract::{RawQuery, State};
use axum::response::Response;
use edge_grpc::filtering::{self, FilteringError};
use http::StatusCode;
use proto::control::v1 as wire;
use scope_report::{Drawing, Options};
use serde::Serialize;
use topology::{
    Filter, NodeSummary, PublishedNode, Query as Words, SearchCursor, SearchHit, SearchPage, SearchQuery, SearchTooLong, View, ViewKey,
    ViewSnapshot,
};
use utoipa::{IntoParams, ToSchema};

use super::number;
use crate::drivers::Stopped;
use crate::drivers::patience::{PAST_SEARCH_FOR, for_at_most};
use crate::http::Context;
use crate::http::query::Query;
use crate::http::reply::{json_value, problem};
use crate::http::scope::{Failure, Past, Then};

/// Hits of a page when the client does not say.
const DEFAULT_LIMIT: usize = 50;
/// Hits of a page at most.
const LIMIT_MAX: usize = 1_000;

/// What to look for.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes parameters; they are read one by one, so that a mistake can be named")]
pub(crate) struct SearchParameters {
    /// The query, in the language of Scope's search box: a regular expression over all texts (`web|db`), `field: expression`
    /// (`image: nginx`), or a comparison of a metric or a number (`memory > 10mb`, `uptime < 30m`, `pid = 1`; also `>=`, `<=`, `!=`). Terms are
    /// combined by `AND`, `OR`, `NOT` in capitals and parentheses; what stands in quotes is meant literally.
    q: String,
    /// Only in this view, e.g. `containers`.
    view: Option<String>,
    /// Hits of a page, 1 to 1,000; default 50. Beyond the first page pass `next` as `after`.
    #[param(minimum = 1, maximum = 1_000)]
    limit: Option<usize>,
    /// `next` of the page before.
    after: Option<String>,
    /// A moment, RFC 3339: what was there then is searched. Now when absent.
    timestamp: Option<String>,
}

/// A page of hits.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SearchReply {
    /// How many nodes answer the query, on all pages.
    total: u64,
    /// How many of them there are in each view that has any.
    totals: BTreeMap<&'static str, u64>,
    /// Best first.
    hits: Vec<Hit>,
    /// `after` of the next page; null on the last.
    #[schema(required)]
    next: Option<String>,
}

/// A node that answers the query.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Hit {
    /// Id of the view.
    view: &'static str,
    /// Id of the node in it.
    id: String,
    /// First line of its label.
    label: String,
    /// Second line.
    label_minor: String,
    /// How it is drawn.
    shape: &'static str,
    /// It stands for several things.
    stack: bool,
    /// It stands for something outside of what is watched.
    pseudo: bool,
    /// Larger fits better.
    score: u32,
    /// Where it was found; empty when only `NOT` says so.
    matches: Vec<Match>,
}

/// A field in which the query was found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Match {
    /// Its name: `label`, `id`, `labelMinor`, the label of a row, or the view of a parent.
    field: String,
    /// Its text; of a long one, 512 characters around the first place.
    text: String,
    /// Characters left out before `text`.
    skipped: u32,
    /// First character of each place in `text`, and the first one after it. Characters are Unicode code points. Empty for a comparison.
    ranges: Vec<(u32, u32)>,
}

/// Why there is no page.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Which parameter cannot be understood.
    Invalid(String),
    /// It would hold up everybody else.
    TooLong(SearchTooLong),
}

/// Searches all nodes of all views.
///
/// Case, accents and compatibility forms make no difference. Every node that there is can be found, whatever the options of views hide.
#[utoipa::path(
    get,
    path = "/api/search",
    tag = "Platform",
    params(SearchParameters),
    responses(
        (status = 200, description = "A page of what was found", body = SearchReply),
        (status = 400, description = "A parameter cannot be understood; for the query it says at which character", body = String, content_type = "application/json"),
        (status = 500, description = "The history cannot be read", body = String, content_type = "application/json"),
        (status = 503, description = "The query takes longer than others can wait for it: half a second, and two in the past", body = String, content_type = "application/json")
    )
)]
pub(crate) async fn search(State(context): State<Context>, RawQuery(query): RawQuery) -> Response {
    match answer(&context, &Query::parse(query.as_deref())).await {
        Ok(Ok(page)) => json_value(StatusCode::OK, &page),
        Ok(Err(Refusal::Invalid(text))) => problem(StatusCode::BAD_REQUEST, &text),
        Ok(Err(Refusal::TooLong(error))) => problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
        Err(failure) => failure.reply(),
    }
}

/// A page, or why there is none.
pub(crate) async fn answer(context: &Context, query: &Query) -> Result<Result<SearchReply, Refusal>, Failure> {
    let asked = match parse(query) {
        Ok(asked) => asked,
        Err(text) => return Ok(Err(Refusal::Invalid(text))),
    };
    let page = match Past::of(context, query) {
        // Before everything that is kept there was nothing to find.
        Some(past) => past.look(move |then| both_then(then, &asked)).await?.unwrap_or_else(|| Ok(SearchPage::default())),
        None => both(context, asked).await.map_err(Failure::Stopped)?,
    };
    Ok(page.map(SearchReply::from).map_err(Refusal::TooLong))
}

/// The hits on the map, and between them those among the nodes of old probes.
async fn both(context: &Context, query: SearchQuery) -> Result<Result<SearchPage, SearchTooLong>, Stopped> {
    let scenery = context.old_probes.scenery();
    let page = match context.topology.search(query.clone()).await? {
        Ok(page) if scenery.drawing.is_some() => page,
        outcome => return Ok(outcome),
    };
    let views = views(&query);
    let mut known = Vec::with_capacity(views.len());
    for &view in &views {
        known.push(context.topology.snapshot(ViewKey { view, filter: Filter::NONE }).await?);
    }
    let searching = filtering::in_turn(move |may_go_on| {
        let mut found = Vec::new();
        for (view, known) in views.into_iter().zip(known) {
            if let Some(drawing) = &scenery.drawing {
                found.extend(strangers(drawing, view, &known, &query.query, may_go_on)?);
            }
        }
        with_strangers(page, found, &query, may_go_on)
    });
    match searching.await {
        Ok(page) => Ok(Ok(page)),
        Err(FilteringError::TooLong(error)) => Ok(Err(error)),
        Err(FilteringError::Stopped) => Err(Stopped),
    }
}

/// The same of a moment of the past.
fn both_then(then: &mut Then<'_>, query: &SearchQuery) -> Result<SearchPage, SearchTooLong> {
    let may_go_on = for_at_most(PAST_SEARCH_FOR);
    let page = then.player.search_within(query, &may_go_on)?;
    let mut found = Vec::new();
    for view in views(query) {
        if then.drawing().is_some() {
            let known = then.player.snapshot(ViewKey { view, filter: Filter::NONE });
            if let Some(drawing) = then.drawing() {
                found.extend(strangers(drawing, view, &known, &query.query, &may_go_on)?);
            }
        }
    }
    with_strangers(page, found, query, &may_go_on)
}

fn views(query: &SearchQuery) -> Vec<View> {
    View::ALL.into_iter().filter(|view| query.view.is_none_or(|only| only == *view)).collect()
}

fn with_strangers(
    mut page: SearchPage,
    strangers: Vec<Stranger>,
    query: &SearchQuery,
    may_go_on: &dyn Fn() -> bool,
) -> Result<SearchPage, SearchTooLong> {
    page.total += strangers.len() as u64;
    let mut totals: BTreeMap<View, u64> = page.totals.into_iter().collect();
    strangers.iter().for_each(|stranger| *totals.entry(stranger.hit.view).or_default() += 1);
    page.totals = totals.into_iter().collect();
    let after = query.after.map(SearchCursor::order);
    let of_map = page.hits.into_iter().map(|hit| (hit, None));
    let later = strangers.into_iter().filter(|stranger| after.is_none_or(|after| stranger.hit.cursor.order() > after));
    let mut hits: Vec<(SearchHit, Option<PublishedNode>)> = of_map.chain(later.map(|Stranger { hit, node }| (hit, Some(node)))).collect();
    hits.sort_by_key(|(hit, _)| hit.cursor.order());
    let has_more = page.next.is_some() || hits.len() > query.limit;
    hits.truncate(query.limit);
    page.next = hits.last().filter(|_| has_more).map(|(hit, _)| hit.cursor);
    page.hits = Vec::with_capacity(hits.len());
    for (mut hit, stranger) in hits {
        if let Some(node) = stranger {
            if !may_go_on() {
                return Err(SearchTooLong);
            }
            hit.matches = query.query.matches(node.summary());
        }
        page.hits.push(hit);
    }
    Ok(page)
}

/// A hit among the nodes of old probes. Where it was found is of interest for those of the page alone.
struct Stranger {
    hit: SearchHit,
    node: PublishedNode,
}

/// Nodes that are looked at between two looks at the clock.
const LOOKED_AT_ONCE: usize = 16;

/// Nodes of old probes that answer a query, and that the map does not have.
fn strangers(
    drawing: &Drawing,
    view: View,
    known: &ViewSnapshot,
    words: &Words,
    may_go_on: &dyn Fn() -> bool,
) -> Result<Vec<Stranger>, SearchTooLong> {
    let overlay = drawing.overlay(view, &Options::default());
    let mut found = Vec::new();
    let items = overlay.items.iter().filter(|(id, item)| !item.is_ours && !known.nodes.contains_key(*id));
    for (place, (_, item)) in items.enumerate() {
        if place.is_multiple_of(LOOKED_AT_ONCE) && !may_go_on() {
            return Err(SearchTooLong);
        }
        let node = item.summary();
        let Some(score) = words.find(node).map(|found| found.score) else { continue };
        let mut hasher = DefaultHasher::new();
        node.id.hash(&mut hasher);
        let cursor = SearchCursor::of_stranger(score, view, hasher.finish());
        let NodeSummary { id, label, label_minor, shape, stack, pseudo, .. } = node;
        let (id, label, label_minor) = (id.clone(), label.clone(), label_minor.clone());
        let (shape, stack, pseudo) = (*shape, *stack, *pseudo);
        let hit = SearchHit { view, id, label, label_minor, shape, stack, pseudo, score, cursor, matches: Vec::new() };
        found.push(Stranger { hit, node: item.node.clone() });
    }
    Ok(found)
}

fn parse(query: &Query) -> Result<SearchQuery, String> {
    let words = query.first("q").ok_or("q is missing: what to look for")?;
    let words = Words::parse(words).map_err(|error| error.to_string())?;
    let view = match query.first("view") {
        None | Some("") => None,
        Some(id) => Some(View::from_id(id).ok_or_else(|| format!("view is {id:?}, which is no view"))?),
    };
    let limit = number(query, "limit")?.unwrap_or(DEFAULT_LIMIT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(format!("limit is {limit}, which is not between 1 and {LIMIT_MAX}"));
    }
    let after = match query.first("after") {
        None | Some("") => None,
        Some(text) => Some(parse_cursor(text).ok_or_else(|| format!("after is {text:?}, which no page before this one gave"))?),
    };
    Ok(SearchQuery { query: words, view, after, limit })
}

fn parse_cursor(text: &str) -> Option<SearchCursor> {
    let mut parts = text.splitn(3, '.');
    Some(SearchCursor { score: parts.next()?.parse().ok()?, rank: parts.next()?.parse().ok()?, ordinal: parts.next()?.parse().ok()? })
}

impl From<SearchPage> for SearchReply {
    fn from(page: SearchPage) -> Self {
        SearchReply {
            total: page.total,
            totals: page.totals.into_iter().map(|(view, total)| (view.id(), total)).collect(),
            hits: page.hits.into_iter().map(Hit::from).collect(),
            next: page.next.map(|SearchCursor { score, rank, ordinal }| format!("{score}.{rank}.{ordinal}")),
        }
    }
}

impl From<SearchReply> for wire::SearchResponse {
    fn from(reply: SearchReply) -> Self {
        let range = |(begin, end)| wire::Range { begin, end };
        let found = |it: Match| wire::Match {
            field: it.field,
            text: it.text,
            skipped: it.skipped,
            ranges: it.ranges.into_iter().map(range).collect(),
        };
        let hit = |hit: Hit| wire::Hit {
            view: hit.view.to_owned(),
            id: hit.id,
            label: hit.label,
            label_minor: hit.label_minor,
            shape: hit.shape.to_owned(),
            stack: hit.stack,
            pseudo: hit.pseudo,
            score: hit.score,
            matches: hit.matches.into_iter().map(found).collect(),
        };
        wire::SearchResponse {
            total: reply.total,
            totals: reply.totals.into_iter().map(|(view, total)| (view.to_owned(), total)).collect(),
            hits: reply.hits.into_iter().map(hit).collect(),
            next_page_token: reply.next.unwrap_or_default(),
        }
    }
}

impl From<SearchHit> for Hit {
    fn from(hit: SearchHit) -> Self {
        let matches = hit.matches.into_iter();
        Hit {
            view: hit.view.id(),
            id: hit.id.to_string(),
            label: hit.label.to_string(),
            label_minor: hit.label_minor.to_string(),
            shape: hit.shape.as_str(),
            stack: hit.stack,
            pseudo: hit.pseudo,
            score: hit.score,
            matches: matches.map(|topology::Match { field, text, skipped, ranges }| Match { field, text, skipped, ranges }).collect(),
        }
    }
}
