//! Weave Scope's API: what its UI and other clients of the retired project call, answered as it answered.

mod delta;
mod filter;
mod past;
mod pieces;
pub mod schema;
mod summary;
mod views;
mod websocket;

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawQuery, Request, State};
use axum::response::Response;
use futures::{StreamExt as _, stream};
use http::{StatusCode, Uri};
use tokio::sync::Semaphore;
use topology::{NodeId, Query as Words, View, ViewSnapshot};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::delta::DeltaCache;
pub(crate) use self::past::{Failure, Past, parse as parse_moment, snapshot as snapshot_of};
use self::pieces::Pieces;
pub(crate) use self::views::key as key_of;
use super::json::JsonWriter;
use super::query::{Query, last_segments};
use super::reply::{compression, json_bytes, not_found, problem, stopped};
use super::{Context, platform::moment};

/// Size of the pieces in which a view is written.
const PIECE: usize = 64 << 10;

/// What Scope's handlers share.
#[derive(Clone, Debug)]
struct Scope {
    context: Context,
    deltas: Arc<DeltaCache>,
    websockets: Arc<Semaphore>,
}

/// Scope's routes.
pub(super) fn routes(context: &Context, websockets: Arc<Semaphore>) -> OpenApiRouter {
    let scope = Scope { context: context.clone(), deltas: Arc::default(), websockets };
    OpenApiRouter::new()
        .routes(routes!(api))
        .routes(routes!(list_views))
        .routes(routes!(view))
        .routes(routes!(node))
        .routes(routes!(probes))
        .layer(compression())
        .routes(routes!(updates))
        .with_state(scope)
}

/// Who answers here, and what it can do.
#[utoipa::path(get, path = "/api", tag = "Weave Scope", responses((status = 200, description = "This control plane", body = schema::Api)))]
async fn api(State(scope): State<Scope>) -> Response {
    let instance = &scope.context.instance;
    let mut json = JsonWriter::new();
    json.object(|json| {
        json.key("id").string(&instance.id);
        json.key("version").string(&instance.version);
        json.key("hostname").string(&instance.hostname);
        json.key("plugins").array([(); 0], |_, ()| {});
        json.key("capabilities").object(|json| json.key("historic_reports").bool(scope.context.history.kept().is_some()));
    });
    json_bytes(StatusCode::OK, json.into_bytes())
}

/// All views with their options and numbers.
///
/// The same filters as for a view apply to the numbers: without any parameter nothing is filtered; with any, every group of options that is
/// not named has its default.
#[utoipa::path(
    get,
    path = "/api/topology",
    tag = "Weave Scope",
    params(schema::Options),
    responses((status = 200, description = "The views, sorted by name", body = Vec<schema::ViewDescription>))
)]
async fn list_views(State(scope): State<Scope>, RawQuery(query): RawQuery) -> Response {
    let query = Query::parse(query.as_deref());
    let keys = views::keys_of_list(&query);
    let stats = match Past::of(&scope.context, &query) {
        Some(past) => past.look(move |player| player.stats(&keys)).await.map(Option::unwrap_or_default),
        None => scope.context.topology.stats(keys).await.map_err(Failure::Stopped),
    };
    match stats {
        Ok(stats) => json_bytes(StatusCode::OK, views::encode_list(&stats)),
        Err(failure) => failure.reply(),
    }
}

/// The nodes of a view.
#[utoipa::path(
    get,
    path = "/api/topology/{view}",
    tag = "Weave Scope",
    params(
        ("view" = String, Path, description = "Id of a view, e.g. `containers`"),
        ("q" = Option<String>, Query, description = "Only nodes that answer this query, in the language of `/api/search`"),
        schema::Options
    ),
    responses(
        (status = 200, description = "The nodes by id", body = schema::Nodes),
        (status = 400, description = "`q` is no query", body = String, content_type = "application/json"),
        (status = 500, description = "The history cannot be read", body = String, content_type = "application/json"),
        (status = 404, description = "No such view", body = String, content_type = "text/plain")
    )
)]
async fn view(State(scope): State<Scope>, uri: Uri) -> Response {
    let Some(view) = last_segments(uri.path()).and_then(|[view]| View::from_id(&view)) else { return not_found() };
    let query = Query::parse(uri.query());
    let words = match filter::of(&query) {
        Ok(words) => words,
        Err(text) => return bad_request(&text),
    };
    let past = Past::of(&scope.context, &query);
    let snapshot = match snapshot_of(&scope.context, past.as_ref(), views::key(view, &query)).await {
        Ok(snapshot) => snapshot,
        Err(failure) => return failure.reply(),
    };
    json_bytes(StatusCode::OK, view_body(filtered(words.as_ref(), snapshot).await))
}

/// The nodes that answer the query, if there is one.
async fn filtered(words: Option<&Words>, snapshot: Arc<ViewSnapshot>) -> Arc<ViewSnapshot> {
    let Some(words) = words.cloned() else { return snapshot };
    let filtering = tokio::task::spawn_blocking(move || filter::whole(&words, &snapshot));
    // It only ends early when the process does.
    filtering.await.unwrap_or_default()
}

/// A view that fits in one piece has a length; a larger one is made while the client reads it.
fn view_body(snapshot: Arc<ViewSnapshot>) -> Body {
    let mut pieces = Pieces::of_view(snapshot);
    let first = pieces.next_piece(PIECE).unwrap_or_default();
    if pieces.is_ended() {
        return Body::from(first);
    }
    let pieces = stream::unfold((Some(first), pieces), async |(first, mut pieces)| {
        let piece = first.or_else(|| pieces.next_piece(PIECE))?;
        Some((Ok::<_, Infallible>(piece), (None, pieces)))
    });
    // The compression asks again after the end.
    Body::from_stream(pieces.fuse())
}

/// A node with everything that its panel shows.
///
/// The id is one path segment: a slash in it is written `%2F`, a plus sign `%2B`; `+` stands for a blank.
#[utoipa::path(
    get,
    path = "/api/topology/{view}/{id}",
    tag = "Weave Scope",
    params(
        ("view" = String, Path, description = "Id of a view, e.g. `containers`"),
        ("id" = String, Path, description = "Id of a node in that view"),
        schema::Options
    ),
    responses(
        (status = 200, description = "The node", body = schema::NodeReply),
        (status = 404, description = "No such view, or no such node in it", body = String, content_type = "text/plain")
    )
)]
async fn node(State(scope): State<Scope>, uri: Uri) -> Response {
    let Some([view, id]) = last_segments(uri.path()) else { return not_found() };
    let Some(view) = View::from_id(&view) else { return not_found() };
    let query = Query::parse(uri.query());
    let (key, id) = (views::key(view, &query), NodeId::from(id));
    let details = match Past::of(&scope.context, &query) {
        Some(past) => past.look(move |player| player.details(key, &id).map(Box::new)).await.map(Option::flatten),
        None => scope.context.topology.details(key, id).await.map_err(Failure::Stopped),
    };
    match details {
        Ok(Some(details)) => json_bytes(StatusCode::OK, summary::encode_details(view, &details)),
        Ok(None) => not_found(),
        Err(failure) => failure.reply(),
    }
}

/// Changes of a view, over a WebSocket.
///
/// The first message has `reset: true` and every node in `add`. Later ones come at every tick, even when nothing changed, and at once when a
/// node or an edge came or went. Apply `remove`, then `update`, then `add`.
#[utoipa::path(
    get,
    path = "/api/topology/{view}/ws",
    tag = "Weave Scope",
    params(
        ("view" = String, Path, description = "Id of a view, e.g. `containers`. The upgrade succeeds for an unknown one, too; it is closed then"),
        ("q" = Option<String>, Query, description = "Only nodes that answer this query, in the language of `/api/search`, as they come to and cease to"),
        ("t" = Option<String>, Query, description = "Time between two messages in Go's words, e.g. `5s`; 1 s when absent; only changes when 0"),
        schema::Options
    ),
    responses(
        (status = 101, description = "The WebSocket is open; its messages are `Update`s", body = schema::Update),
        (status = 400, description = "`t` is no span of time, `q` is no query, or the request asks for no upgrade", body = String, content_type = "application/json"),
        (status = 503, description = "There are too many WebSocket clients", body = String, content_type = "application/json")
    )
)]
async fn updates(State(scope): State<Scope>, request: Request) -> Response {
    websocket::upgrade(&scope, request)
}

/// The probes of which something is on the map.
#[utoipa::path(
    get,
    path = "/api/probes",
    tag = "Weave Scope",
    params(("sparse" = Option<String>, Query, description = "With any value, the reply is just whether there is any probe")),
    responses((status = 200, description = "The probes", body = schema::ProbesReply))
)]
async fn probes(State(scope): State<Scope>, RawQuery(query): RawQuery) -> Response {
    let probes = match scope.context.topology.probes().await {
        Ok(probes) => probes,
        Err(error) => return stopped(error),
    };
    let mut json = JsonWriter::new();
    if Query::parse(query.as_deref()).first("sparse").is_some() {
        json.bool(!probes.is_empty());
    } else {
        json.array(&probes, |json, probe| {
            json.object(|json| {
                json.key("id").string(&probe.id);
                json.key("hostname").string(&probe.host_name);
                json.key("version").string(&probe.version);
                json.key("lastSeen").string(&moment(probe.last_seen));
            });
        });
    }
    json_bytes(StatusCode::OK, json.into_bytes())
}

/// A request that asks for no upgrade, or not for one that we know.
fn bad_request(text: &str) -> Response {
    problem(StatusCode::BAD_REQUEST, text)
}
