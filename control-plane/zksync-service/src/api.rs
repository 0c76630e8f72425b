//! The API: `/api/v1/zksync`. Errors are bare JSON strings, as everywhere on this port.

mod foreign;
mod live;
mod once;
pub(crate) mod views;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use zksync::{Command, MigrationCommand, Plan, Side};

use crate::definition::Definition;
use crate::operations;
use crate::prepare::Preparation;
use crate::service::{Service, ServiceError};
use crate::verify::VerificationReport;
use crate::witness::Holder;
use foreign::not_for_other_pages;
use live::{__path_link_events, __path_migration_events, link_events, migration_events};
use once::{Answered, once};
use views::{
    ActionQuery, BulkDecision, BulkOutcome, ConflictPage, ConflictQuery, Decision, DifferencePage, LinkChange, LinkView, MigrationPage,
    NumberedResolution, ResolutionPage, ThreeWay, TombstonePage, forced, migration_page, view,
};

/// A definition or a plan is a page of text.
const BODY_MAX: usize = 256 * 1024;
/// What decides a conflict may be a znode's data, in base64 or with each of its bytes written as an escape.
pub(crate) const RESOLVE_MAX: usize = 2 * 1024 * 1024;
/// A page of conflicts.
const PAGE_MAX: usize = 1_000;

/// All routes, with what they are for.
pub fn routes(service: Service) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list_links, create_link))
        .routes(routes!(get_link, delete_link, change_link))
        .routes(routes!(link_action))
        .routes(routes!(plan))
        .routes(routes!(verify_now, last_verification))
        .routes(routes!(conflicts))
        .routes(routes!(conflict))
        .merge(OpenApiRouter::new().routes(routes!(resolve)).layer(DefaultBodyLimit::max(RESOLVE_MAX)))
        .routes(routes!(resolve_many))
        .routes(routes!(restore))
        .routes(routes!(differences))
        .routes(routes!(link_events))
        .routes(routes!(migration_events))
        .routes(routes!(resolutions))
        .routes(routes!(resolution))
        .routes(routes!(resolution_value))
        .routes(routes!(tombstones))
        .routes(routes!(holders))
        .routes(routes!(migrate, migration))
        .routes(routes!(migration_action))
        .routes(routes!(health))
        .layer(axum::middleware::from_fn_with_state(Arc::new(Answered::default()), once))
        .layer(axum::middleware::from_fn(not_for_other_pages))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(service)
}

type Reply = Result<Response, ServiceError>;

impl axum::response::IntoResponse for ServiceError {
    fn into_response(self) -> Response {
        let status = match &self {
            ServiceError::Missing(_) => StatusCode::NOT_FOUND,
            ServiceError::Conflict(_) => StatusCode::CONFLICT,
            ServiceError::Invalid(_) => StatusCode::BAD_REQUEST,
            ServiceError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            ServiceError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        json(status, &self.to_string())
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, ServiceError> {
    serde_json::from_slice(body).map_err(|error| ServiceError::Invalid(crate::definition::DefinitionError(format!("the body: {error}"))))
}

/// Work with the store or with many znodes happens where it may block.
pub(crate) async fn blocking<T: Send + 'static>(run: impl FnOnce() -> Result<T, ServiceError> + Send + 'static) -> Result<T, ServiceError> {
    tokio::task::spawn_blocking(run).await.map_err(|error| ServiceError::Unavailable(error.to_string()))?
}

/// All links.
#[utoipa::path(get, path = "/api/v1/zksync/links", tag = "ZooKeeper sync", responses((status = 200, description = "The links", body = Vec<LinkView>)))]
async fn list_links(State(service): State<Service>) -> Reply {
    let views: Vec<LinkView> = service.list().into_iter().map(|(definition, role)| view(&definition, role)).collect();
    Ok(json(StatusCode::OK, &views))
}

/// Makes a link between two ensembles, and runs it.
#[utoipa::path(
    post,
    path = "/api/v1/zksync/links",
    tag = "ZooKeeper sync",
    request_body = Definition,
    responses((status = 201, description = "It runs"), (status = 400, description = "It makes no sense"), (status = 409, description = "There is one"))
)]
async fn create_link(State(service): State<Service>, body: Bytes) -> Reply {
    let definition: Definition = parse(&body)?;
    let id = definition.id.clone();
    blocking(move || service.create(definition)).await?;
    Ok(json(StatusCode::CREATED, &serde_json::json!({ "id": id })))
}

/// A link.
#[utoipa::path(get, path = "/api/v1/zksync/links/{id}", tag = "ZooKeeper sync", responses((status = 200, description = "The link", body = LinkView), (status = 404, description = "There is none")))]
async fn get_link(State(service): State<Service>, Path(id): Path<String>) -> Reply {
    let (definition, role) = service.get(&id)?;
    Ok(json(StatusCode::OK, &view(&definition, role)))
}

/// Ends a link. What it copied stays.
#[utoipa::path(delete, path = "/api/v1/zksync/links/{id}", tag = "ZooKeeper sync", responses((status = 200, description = "It is gone"), (status = 409, description = "A migration of it is under way")))]
async fn delete_link(State(service): State<Service>, Path(id): Path<String>) -> Reply {
    blocking(move || service.delete(&id)).await?;
    Ok(json(StatusCode::OK, &"gone"))
}

/// Changes the direction or the strategy of a link, for good.
#[utoipa::path(patch, path = "/api/v1/zksync/links/{id}", tag = "ZooKeeper sync", request_body = LinkChange, responses((status = 200, description = "It is changed", body = LinkView), (status = 409, description = "A migration of it is under way")))]
async fn change_link(State(service): State<Service>, Path(id): Path<String>, body: Bytes) -> Reply {
    let change: LinkChange = parse(&body)?;
    operations::change(&service, &id, change.mode, change.strategy).await?;
    let (definition, role) = service.get(&id)?;
    Ok(json(StatusCode::OK, &view(&definition, role)))
}

/// `pause`, `resume`, `resync` or `approve-deletes`.
#[utoipa::path(post, path = "/api/v1/zksync/links/{id}/{action}", tag = "ZooKeeper sync", responses((status = 202, description = "It will be done"), (status = 404, description = "There is no such link or action")))]
async fn link_action(State(service): State<Service>, Path((id, action)): Path<(String, String)>) -> Reply {
    let command = match action.as_str() {
        "pause" => Command::Pause,
        "resume" => Command::Resume,
        "resync" => Command::Resync,
        "approve-deletes" => Command::ApproveDeletes,
        other => {
            return Err(ServiceError::Missing(format!("there is no action {other:?}; there are pause, resume, resync, approve-deletes")));
        }
    };
    operations::tell(&service, &id, command).await?;
    Ok(json(StatusCode::ACCEPTED, &action))
}

/// Looks at both ensembles and says what would stand in the way of a link between them. Nothing is written.
#[utoipa::path(post, path = "/api/v1/zksync/plan", tag = "ZooKeeper sync", request_body = Definition, responses((status = 200, description = "What was found", body = Preparation)))]
async fn plan(State(service): State<Service>, body: Bytes) -> Reply {
    Ok(json(StatusCode::OK, &service.plan(parse(&body)?).await?))
}

/// Compares both sides now, without trusting what is remembered; answers when it is done.
#[utoipa::path(post, path = "/api/v1/zksync/links/{id}/verifications", tag = "ZooKeeper sync", responses((status = 200, description = "What was found", body = VerificationReport)))]
async fn verify_now(State(service): State<Service>, Path(id): Path<String>) -> Reply {
    Ok(json(StatusCode::OK, &service.verify(&id).await?))
}

/// The newest comparison.
#[utoipa::path(get, path = "/api/v1/zksync/links/{id}/verifications", tag = "ZooKeeper sync", responses((status = 200, description = "What was found", body = VerificationReport), (status = 404, description = "There was none")))]
async fn last_verification(State(service): State<Service>, Path(id): Path<String>) -> Reply {
    let missing = ServiceError::Missing(format!("the link {id:?} was never verified"));
    let report = blocking(move || service.report(&id)).await?;
    Ok(json(StatusCode::OK, &report.ok_or(missing)?))
}

/// Conflicts that wait for an operator.
#[utoipa::path(get, path = "/api/v1/zksync/links/{id}/conflicts", tag = "ZooKeeper sync", params(ConflictQuery), responses((status = 200, description = "A page", body = ConflictPage)))]
async fn conflicts(State(service): State<Service>, Path(id): Path<String>, Query(query): Query<ConflictQuery>) -> Reply {
    let limit = query.limit.unwrap_or(PAGE_MAX).min(PAGE_MAX);
    Ok(json(StatusCode::OK, &operations::conflicts(&service, &id, query.prefix, limit).await?))
}

/// A conflict: what both sides last agreed on, and what each has now.
#[utoipa::path(get, path = "/api/v1/zksync/links/{id}/conflicts/{number}", tag = "ZooKeeper sync", responses((status = 200, description = "All three", body = ThreeWay)))]
async fn conflict(State(service): State<Service>, Path((id, number)): Path<(String, u64)>) -> Reply {
    Ok(json(StatusCode::OK, &operations::three_way(&service, &id, number).await?))
}

/// Decides a conflict. 409 with what there is now when it is something else than was looked at.
#[utoipa::path(post, path = "/api/v1/zksync/links/{id}/conflicts/{number}/resolve", tag = "ZooKeeper sync", request_body = Decision, responses((status = 202, description = "It will be carried out"), (status = 409, description = "It has changed", body = ThreeWay)))]
async fn resolve(State(service): State<Service>, Path((id, number)): Path<(String, u64)>, body: Bytes) -> Reply {
    let decision: Decision = parse(&body)?;
    match operations::resolve(&service, &id, number, &decision.read()?).await? {
        Some(now) => Ok(json(StatusCode::CONFLICT, &now)),
        None => Ok(json(StatusCode::ACCEPTED, &"it will be carried out")),
    }
}

/// Decides all conflicts below a path at once; with `dry_run`, says which ones they are.
#[utoipa::path(post, path = "/api/v1/zksync/links/{id}/conflicts/resolve", tag = "ZooKeeper sync", request_body = BulkDecision, responses((status = 202, description = "They will be decided so, or would be", body = BulkOutcome)))]
async fn resolve_many(State(service): State<Service>, Path(id): Path<String>, body: Bytes) -> Reply {
    Ok(json(StatusCode::ACCEPTED, &operations::resolve_many(&service, &id, &parse(&body)?).await?))
}

/// Puts the version that lost a conflict back, as a write of ours to the side that had it. It must not have been cut when it was recorded.
#[utoipa::path(post, path = "/api/v1/zksync/links/{id}/resolutions/{number}/restore", tag = "ZooKeeper sync", responses((status = 202, description = "It is written, and will be carried to the other side"), (status = 404, description = "There is no such resolution"), (status = 409, description = "It cannot be put back")))]
async fn restore(State(service): State<Service>, Path((id, number)): Path<(String, u64)>) -> Reply {
    Ok(json(StatusCode::ACCEPTED, &operations::restore(&service, &id, number).await?))
}

/// Differences that the newest comparison found, below a path.
#[utoipa::path(get, path = "/api/v1/zksync/links/{id}/differences", tag = "ZooKeeper sync", params(ConflictQuery), responses((status = 200, description = "The first of them", body = DifferencePage), (status = 404, description = "It was never verified")))]
async fn differences(State(service): State<Service>, Path(id): Path<String>, Query(query): Query<ConflictQuery>) -> Reply {
    let limit = query.limit.unwrap_or(PAGE_MAX).min(PAGE_MAX);
    Ok(json(StatusCode::OK, &operations::differences(&service, id, query.prefix, limit).await?))
}

/// How conflicts were decided, the newest first, with what both sides had: the losing version can be put back from here.
#[utoipa::path(get, path = "/api/v1/zksync/links/{id}/resolutions", tag = "ZooKeeper sync", params(ConflictQuery), responses((status = 200, description = "A page", body = ResolutionPage)))]
async fn resolutions(State(service): State<Service>, Path(id): Path<String>, Query(query): Query<ConflictQuery>) -> Reply {
    service.get(&id)?;
    let limit = query.limit.unwrap_or(100).min(PAGE_MAX);
    let found = blocking(move || Ok(service.store().resolutions(&id, &query.prefix, limit)?)).await?;
    let resolutions = found.into_iter().map(|(number, resolution)| NumberedResolution { number, resolution }).collect();
    Ok(json(StatusCode::OK, &ResolutionPage { resolutions }))
}

/// How one conflict was decided, with the whole values of both sides up to 1,047,000 bytes each, as far as this control plane has them.
#[utoipa::path(get, path = "/api/v1/zksync/links/{id}/resolutions/{number}", tag = "ZooKeeper sync", responses((status = 200, description = "The resolution", body = NumberedResolution), (status = 404, description = "There is none")))]
async fn resolution(State(service): State<Service>, Path((id, number)): Path<(String, u64)>) -> Reply {
    let resolution = operations::answered(operations::resolution(&service, &id, number).await?);
    Ok(json(StatusCode::OK, &NumberedResolution { number, resolution }))
}

/// The data that side `a` or `b` had when a conflict was decided, whole and as they are.
#[utoipa::path(get, path = "/api/v1/zksync/links/{id}/resolutions/{number}/values/{side}", tag = "ZooKeeper sync", responses((status = 200, description = "The data", content_type = "application/octet-stream"), (status = 404, description = "There is no such resolution, or the side had nothing"), (status = 409, description = "This control plane has only the first 64 KiB, or nobody had read them")))]
async fn resolution_value(State(service): State<Service>, Path((id, number, side)): Path<(String, u64, String)>) -> Reply {
    let side = match side.as_str() {
        "a" => Side::A,
        "b" => Side::B,
        other => return Err(ServiceError::Missing(format!("there is no side {other:?}; there are a and b"))),
    };
    let data = operations::resolution_value(&service, &id, number, side).await?;
    let headers = [(header::CONTENT_TYPE, "application/octet-stream"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    Ok((headers, data.to_vec()).into_response())
}

/// Znodes that both sides had and that are gone, as far as they are remembered: the last 24 hours, and 100,000.
#[utoipa::path(get, path = "/api/v1/zksync/links/{id}/tombstones", tag = "ZooKeeper sync", params(ConflictQuery), responses((status = 200, description = "A page", body = TombstonePage)))]
async fn tombstones(State(service): State<Service>, Path(id): Path<String>, Query(query): Query<ConflictQuery>) -> Reply {
    let limit = query.limit.unwrap_or(100).min(PAGE_MAX);
    Ok(json(StatusCode::OK, &operations::tombstones(&service, &id, query.prefix, limit).await?))
}

/// Which processes on which hosts hold connections to A right now.
#[utoipa::path(get, path = "/api/v1/zksync/links/{id}/holders", tag = "ZooKeeper sync", responses((status = 200, description = "All that are seen", body = Vec<Holder>), (status = 503, description = "Nobody can tell")))]
async fn holders(State(service): State<Service>, Path(id): Path<String>) -> Reply {
    Ok(json(StatusCode::OK, &service.holders(&id, Side::A).await?))
}

/// Begins a migration over a link.
#[utoipa::path(post, path = "/api/v1/zksync/migrations", tag = "ZooKeeper sync", request_body(content = Object, description = "link, require_no_clients, freeze_hook, unfreeze_hook, switch_hook, sequence_margin"), responses((status = 201, description = "It has begun"), (status = 409, description = "One is under way")))]
async fn migrate(State(service): State<Service>, body: Bytes) -> Reply {
    let plan: Plan = parse(&body)?;
    let link = plan.link.clone();
    blocking(move || service.migrate(plan)).await?;
    Ok(json(StatusCode::CREATED, &serde_json::json!({ "link": link })))
}

/// The migration of a link.
#[utoipa::path(get, path = "/api/v1/zksync/migrations/{id}", tag = "ZooKeeper sync", responses((status = 200, description = "Where it is", body = MigrationPage)))]
async fn migration(State(service): State<Service>, Path(id): Path<String>) -> Reply {
    let page = migration_page(&service, &id, &service.migration(&id)?);
    Ok(json(StatusCode::OK, &page))
}

/// `cutover`, `advance`, `rollback`, `pause`, `resume` or `complete`.
#[utoipa::path(post, path = "/api/v1/zksync/migrations/{id}/{action}", tag = "ZooKeeper sync", params(ActionQuery), responses((status = 202, description = "It will be done"), (status = 409, description = "The phase does not allow it")))]
async fn migration_action(
    State(service): State<Service>,
    Path((id, action)): Path<(String, String)>,
    Query(query): Query<ActionQuery>,
) -> Reply {
    let command = match action.as_str() {
        "cutover" => MigrationCommand::Cutover,
        "advance" => MigrationCommand::Advance,
        "rollback" => MigrationCommand::Rollback,
        "pause" => MigrationCommand::Pause,
        "resume" => MigrationCommand::Resume,
        "complete" => MigrationCommand::Complete,
        other => {
            let there_are = "cutover, advance, rollback, pause, resume, complete";
            return Err(ServiceError::Missing(format!("there is no action {other:?}; there are {there_are}")));
        }
    };
    let command = if query.force { forced(command)? } else { command };
    operations::tell_migration(&service, &id, command).await?;
    Ok(json(StatusCode::ACCEPTED, &action))
}

/// Whether every link does its work.
#[utoipa::path(get, path = "/api/v1/zksync/health", tag = "ZooKeeper sync", responses((status = 200, description = "All do"), (status = 503, description = "What is wrong")))]
async fn health(State(service): State<Service>) -> Reply {
    let problems = service.problems();
    let status = if problems.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(json(status, &serde_json::json!({ "status": if problems.is_empty() { "ok" } else { "failing" }, "problems": problems })))
}
