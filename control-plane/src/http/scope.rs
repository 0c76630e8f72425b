//! Weave Scope's API: what its UI and other clients of the retired project call, answered as it answered.

mod controls;
mod delta;
mod filter;
pub mod graphs;
mod incoming;
pub mod labels;
mod merging;
mod pace;
mod packed;
mod past;
mod pieces;
mod pipes;
mod probe_socket;
mod reports;
pub mod rpc;
mod scenes;
pub mod schema;
mod summary;
mod views;
mod websocket;

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawQuery, Request, State};
use axum::response::Response;
use axum::routing::get;
use edge_grpc::filtering::{self, FilteringError};
use futures::{StreamExt as _, stream};
use http::{StatusCode, Uri};
use tokio::sync::Semaphore;
use topology::{Query as Words, View, ViewSnapshot};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) use self::controls::caller;
use self::delta::DeltaCache;
use self::pace::Beats;
use self::packed::PackedCache;
pub(crate) use self::past::{Failure, Past, Then, parse as parse_moment, picture as picture_of};
use self::pieces::Pieces;
use self::reports::Intake;
pub(crate) use self::reports::LIMITS as REPORT_LIMITS;
use self::scenes::Scenes;
pub(crate) use self::views::Wanted;
use super::Context;
use super::json::JsonWriter;
use super::query::{Query, last_segments};
use super::reply::{compression, json_bytes, not_found, problem};

/// Size of the pieces in which a view is written.
const PIECE: usize = 64 << 10;

/// What Scope's handlers share.
#[derive(Clone, Debug)]
struct Scope {
    context: Context,
    scenes: Scenes,
    intake: Arc<Intake>,
    deltas: Arc<DeltaCache>,
    packed: Arc<PackedCache>,
    beats: Beats,
    websockets: Arc<Semaphore>,
}

/// Scope's routes.
pub(super) fn routes(context: &Context, websockets: Arc<Semaphore>) -> OpenApiRouter {
    let scenes = Scenes::new(context);
    let scope = Scope {
        context: context.clone(),
        scenes,
        intake: Arc::default(),
        deltas: Arc::default(),
        packed: Arc::default(),
        beats: Beats::new(tokio::time::Instant::now()),
        websockets,
    };
    OpenApiRouter::new()
        .routes(routes!(api))
        .routes(routes!(list_views))
        .routes(routes!(view))
        .routes(routes!(node))
        // A process may have an empty name, and then so has the node of that name.
        .route("/api/topology/{view}/", get(node))
        .routes(routes!(reports::get_report))
        .routes(routes!(reports::probes))
        .layer(compression())
        .routes(routes!(reports::post_report))
        .routes(routes!(reports::summary))
        .routes(routes!(updates))
        .routes(routes!(controls::control))
        .routes(routes!(probe_socket::control_socket))
        .routes(routes!(pipes::client, pipes::delete, pipes::post))
        .routes(routes!(pipes::probe))
        .routes(routes!(pipes::check))
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
        json.key("plugins").array(scope.context.old_probes.scenery().report.plugins.values(), write_plugin);
        json.key("capabilities").object(|json| json.key("historic_reports").bool(scope.context.history.kept().is_some()));
    });
    json_bytes(StatusCode::OK, json.into_bytes())
}

/// A plugin of an old probe.
fn write_plugin(json: &mut JsonWriter, plugin: &scope_report::PluginSpec) {
    json.object(|json| {
        json.key("id").string(&plugin.id);
        json.key("label").string(&plugin.label);
        if !plugin.description.is_empty() {
            json.key("description").string(&plugin.description);
        }
        json.key("interfaces").array(&plugin.interfaces, |json, interface| json.string(interface));
        if !plugin.api_version.is_empty() {
            json.key("api_version").string(&plugin.api_version);
        }
        if !plugin.status.is_empty() {
            json.key("status").string(&plugin.status);
        }
    });
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
    let wanted = scenes::all_views(&query);
    let listed = match Past::of(&scope.context, &query) {
        Some(past) => past.list(wanted).await,
        None => match (scope.scenes.stats(wanted).await, scope.scenes.namespaces().await) {
            (Ok(stats), Ok(namespaces)) => Ok((stats, namespaces)),
            (Err(error), _) | (_, Err(error)) => Err(Failure::Stopped(error)),
        },
    };
    match listed {
        Ok((stats, namespaces)) => json_bytes(StatusCode::OK, views::encode_list(&stats, &namespaces, &scope.context.label_filters)),
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
        ("q" = Option<String>, Query, description = "Only nodes that answer this query, in the language of `/api/search`; said several times, all of them"),
        schema::Options
    ),
    responses(
        (status = 200, description = "The nodes by id", body = schema::Nodes),
        (status = 400, description = "`q` is no query", body = String, content_type = "application/json"),
        (status = 500, description = "The history cannot be read", body = String, content_type = "application/json"),
        (status = 404, description = "No such view", body = String, content_type = "text/plain"),
        (status = 503, description = "What answers `q` takes longer to find than others can wait for it: two seconds", body = String, content_type = "application/json")
    )
)]
async fn view(State(scope): State<Scope>, uri: Uri) -> Response {
    let Some(view) = last_segments(uri.path()).and_then(|[view]| View::from_id(&view)) else { return not_found() };
    let query = Query::parse(uri.query());
    let words = match filter::of(&query) {
        Ok(words) => words,
        Err(text) => return bad_request(&text),
    };
    let wanted = Wanted::new(view, &query);
    let snapshot = match Past::of(&scope.context, &query) {
        Some(past) => past.picture(&wanted).await,
        None => scope.scenes.snapshot(&wanted).await.map_err(Failure::Stopped),
    };
    let snapshot = match snapshot {
        Ok(snapshot) => snapshot,
        Err(failure) => return failure.reply(),
    };
    let shown = match filtered(words.as_ref(), snapshot).await {
        Ok(shown) => shown,
        Err(error) => return problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    };
    let pieces = Pieces::of_view(shown).linking(&scope.context.metrics_graph);
    json_bytes(StatusCode::OK, view_body(pieces))
}

/// The nodes that answer the query, if there is one.
async fn filtered(words: Option<&Words>, snapshot: Arc<ViewSnapshot>) -> Result<Arc<ViewSnapshot>, FilteringError> {
    let Some(words) = words.cloned() else { return Ok(snapshot) };
    filtering::in_turn(move |may_go_on| snapshot.answering(&words, may_go_on)).await
}

/// A view that fits in one piece has a length; a larger one is made while the client reads it.
fn view_body(mut pieces: Pieces) -> Body {
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
    let wanted = Wanted::new(view, &query);
    let details = match Past::of(&scope.context, &query) {
        Some(past) => past.details(&wanted, id).await,
        None => scope.scenes.details(&wanted, id).await.map_err(Failure::Stopped),
    };
    match details {
        Ok(Some(details)) => json_bytes(StatusCode::OK, summary::encode_details(view, &details, &scope.context.metrics_graph)),
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
        ("q" = Option<String>, Query, description = "Only nodes that answer this query, in the language of `/api/search`, as they come to and cease to; said several times, all of them"),
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

/// A request that asks for no upgrade, or not for one that we know.
fn bad_request(text: &str) -> Response {
    problem(StatusCode::BAD_REQUEST, text)
}
