//! The API: `/api/v1/zksync`. Errors are bare JSON strings, as everywhere on this port.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use zksync::{Command, Conflict, Migration, MigrationCommand, Mode, PerSide, Plan, Resolution, Side, Status, Strategy};

use crate::definition::Definition;
use crate::link::{LagSummary, node_from};
use crate::prepare::{self, Preparation};
use crate::service::{Role, Service, ServiceError};
use crate::verify::{self, VerificationReport};
use crate::witness::Holder;

/// A definition or a plan is a page of text.
const BODY_MAX: usize = 256 * 1024;
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
        .routes(routes!(resolve))
        .routes(routes!(resolutions))
        .routes(routes!(holders))
        .routes(routes!(migrate, migration))
        .routes(routes!(migration_action))
        .routes(routes!(health))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(service)
}

/// A link.
#[derive(Debug, Serialize, ToSchema)]
pub struct LinkView {
    /// As it was written down.
    definition: Definition,
    /// `leading`, `standby` or `waiting`.
    role: &'static str,
    /// Who leads, or what is waited for.
    detail: String,
    /// How it stands; null when this process does not lead it.
    #[schema(value_type = Option<Object>)]
    status: Option<Status>,
    /// How long changes took on their way to each side.
    #[schema(value_type = Option<Object>)]
    lag: Option<PerSide<LagSummary>>,
}

/// What of a link can be changed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LinkChange {
    /// `a_to_b`, `b_to_a` or `both`.
    #[schema(value_type = Option<String>)]
    mode: Option<Mode>,
    /// `last_write_wins`, `a_wins`, `b_wins` or `manual`.
    #[schema(value_type = Option<String>)]
    strategy: Option<Strategy>,
}

/// A page of conflicts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConflictPage {
    /// In the order in which they were found.
    #[schema(value_type = Vec<Object>)]
    conflicts: Vec<Conflict>,
    /// How many there are.
    total: usize,
}

/// Which conflicts.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ConflictQuery {
    /// Paths that begin so.
    #[serde(default)]
    prefix: String,
    /// At most this many, up to 1,000.
    limit: Option<usize>,
}

/// A conflict with what each side has now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ThreeWay {
    /// The conflict; its `base` names the state that both last agreed on, of which only a hash is kept.
    #[schema(value_type = Object)]
    conflict: Conflict,
    /// Hash of what both last agreed on, in hexadecimal; null when that is not known.
    base_hash: Option<String>,
    /// What A has now; null when it is absent.
    a: Option<SideValue>,
    /// What B has now; null when it is absent.
    b: Option<SideValue>,
}

/// What a side has.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SideValue {
    /// Transaction that last changed its data: what `expect` of a resolution names.
    mzxid: i64,
    /// Its version.
    version: i32,
    /// When it was written, by that side's clock: milliseconds since 1970.
    mtime: i64,
    /// Bytes of its data.
    size: usize,
    /// Its data, if they are text; up to 64 KiB.
    text: Option<String>,
    /// Hash of its data, in hexadecimal.
    hash: String,
    /// Who may do what.
    acl: Vec<String>,
}

/// How a conflict is to be decided.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Decision {
    /// `a`, `b`, `custom` or `delete`.
    choice: Choice,
    /// The data, for `custom`.
    data: Option<String>,
    /// What was looked at; something else by now is 409.
    expect: Option<Expect>,
}

/// Whose state is to stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Choice {
    /// A's.
    A,
    /// B's.
    B,
    /// Other data.
    Custom,
    /// Neither's.
    Delete,
}

/// What was looked at.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Expect {
    /// `mzxid` of A; null when it was absent.
    a_mzxid: Option<i64>,
    /// `mzxid` of B; null when it was absent.
    b_mzxid: Option<i64>,
}

/// Resolutions, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ResolutionPage {
    /// With what both sides had.
    #[schema(value_type = Vec<Object>)]
    resolutions: Vec<Resolution>,
}

/// A migration.
#[derive(Debug, Serialize, ToSchema)]
pub struct MigrationPage {
    /// Where it is, and what happened.
    #[schema(value_type = Object)]
    migration: Migration,
    /// Who was connected to the old ensemble when it was last asked.
    holders: Vec<Holder>,
    /// Why that is not known; null when it is.
    holders_unknown: Option<String>,
    /// The newest comparison.
    verification: Option<VerificationReport>,
    /// The first look.
    preparation: Option<Preparation>,
    /// How much has been copied, of about how much.
    progress: Progress,
}

/// How far the copy is.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Progress {
    /// Znodes that both sides have.
    pairs: usize,
    /// Znodes to be looked at.
    backlog: usize,
    /// Of a hundred.
    percent: u64,
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
async fn blocking<T: Send + 'static>(run: impl FnOnce() -> Result<T, ServiceError> + Send + 'static) -> Result<T, ServiceError> {
    tokio::task::spawn_blocking(run).await.map_err(|error| ServiceError::Unavailable(error.to_string()))?
}

fn view(definition: &Definition, role: Role) -> LinkView {
    let definition = definition.clone();
    match role {
        Role::Leading(handle) => {
            let (status, lag) = (Status::clone(&handle.status()), handle.lag());
            LinkView { definition, role: "leading", detail: String::new(), status: Some(status), lag: Some(lag) }
        }
        Role::Standby(leader) => LinkView { definition, role: "standby", detail: leader, status: None, lag: None },
        Role::Waiting(why) => LinkView { definition, role: "waiting", detail: why, status: None, lag: None },
    }
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

/// Changes the direction or the strategy of a link, until it is started again.
#[utoipa::path(patch, path = "/api/v1/zksync/links/{id}", tag = "ZooKeeper sync", request_body = LinkChange, responses((status = 200, description = "It is changed")))]
async fn change_link(State(service): State<Service>, Path(id): Path<String>, body: Bytes) -> Reply {
    let change: LinkChange = parse(&body)?;
    let handle = service.handle(&id)?;
    let commands = [change.mode.map(Command::SetMode), change.strategy.map(Command::SetStrategy)];
    for command in commands.into_iter().flatten() {
        handle.tell(command).await.map_err(|stopped| ServiceError::Unavailable(stopped.to_string()))?;
    }
    Ok(json(StatusCode::OK, &"changed"))
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
    service.handle(&id)?.tell(command).await.map_err(|stopped| ServiceError::Unavailable(stopped.to_string()))?;
    Ok(json(StatusCode::ACCEPTED, &action))
}

/// Looks at both ensembles and says what would stand in the way of a link between them. Nothing is written.
#[utoipa::path(post, path = "/api/v1/zksync/plan", tag = "ZooKeeper sync", request_body = Definition, responses((status = 200, description = "What was found", body = Preparation)))]
async fn plan(body: Bytes) -> Reply {
    let definition: Definition = parse(&body)?;
    let config = definition.config()?;
    let found = prepare::prepare(&definition, &config).await.map_err(ServiceError::Unavailable)?;
    Ok(json(StatusCode::OK, &found))
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
    let handle = service.handle(&id)?;
    let page = handle.ask(move |link| {
        let all: Vec<&Conflict> = link.open_conflicts().filter(|conflict| conflict.key.starts_with(&query.prefix)).collect();
        ConflictPage { conflicts: all.iter().take(limit).map(|conflict| Conflict::clone(conflict)).collect(), total: all.len() }
    });
    Ok(json(StatusCode::OK, &page.await.map_err(|stopped| ServiceError::Unavailable(stopped.to_string()))?))
}

async fn three_way(service: &Service, id: &str, number: u64) -> Result<ThreeWay, ServiceError> {
    let (definition, _) = service.get(id)?;
    let handle = service.handle(id)?;
    let asked = handle.ask(move |link| {
        let conflict = link.open_conflicts().find(|conflict| conflict.id == number).cloned()?;
        let base = link.base_of(&conflict.key).map(|base| hex(&base.data));
        Some((conflict, base))
    });
    let found = asked.await.map_err(|stopped| ServiceError::Unavailable(stopped.to_string()))?;
    let (conflict, base_hash) = found.ok_or_else(|| ServiceError::Missing(format!("there is no open conflict {number}")))?;
    let clients = verify::connect(&definition).await.map_err(ServiceError::Unavailable)?;
    let paths = prepare::paths(&definition.config()?, &conflict.key);
    let value = async |side: Side| -> Result<Option<SideValue>, ServiceError> {
        let read = zk::Read { path: paths[side].clone(), children: false, acl: true };
        let node = clients[side].read(&[read]).await.map_err(|error| ServiceError::Unavailable(error.to_string()))?.into_iter().next();
        match node {
            Some(Ok(node)) => Ok(Some(side_value(node))),
            Some(Err(zk::Error::NoNode)) | None => Ok(None),
            Some(Err(error)) => Err(ServiceError::Unavailable(error.to_string())),
        }
    };
    Ok(ThreeWay { a: value(Side::A).await?, b: value(Side::B).await?, conflict, base_hash })
}

fn side_value(node: zk::NodeRead) -> SideValue {
    let acl = node.acl.iter().flatten().map(|entry| format!("{}:{} {:#07b}", entry.scheme, entry.id, entry.permissions)).collect();
    let node = node_from(node);
    let text = (node.data.len() <= zksync::Value::DATA_MAX).then(|| String::from_utf8(node.data.to_vec()).ok()).flatten();
    SideValue {
        mzxid: node.stat.mzxid,
        version: node.stat.version,
        mtime: node.stat.mtime,
        size: node.data.len(),
        text,
        hash: hex(&zksync::hash_of(&node.data)),
        acl,
    }
}

fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A conflict: what both sides last agreed on, and what each has now.
#[utoipa::path(get, path = "/api/v1/zksync/links/{id}/conflicts/{number}", tag = "ZooKeeper sync", responses((status = 200, description = "All three", body = ThreeWay)))]
async fn conflict(State(service): State<Service>, Path((id, number)): Path<(String, u64)>) -> Reply {
    Ok(json(StatusCode::OK, &three_way(&service, &id, number).await?))
}

/// Decides a conflict. 409 with what there is now when it is something else than was looked at.
#[utoipa::path(post, path = "/api/v1/zksync/links/{id}/conflicts/{number}/resolve", tag = "ZooKeeper sync", request_body = Decision, responses((status = 202, description = "It will be carried out"), (status = 409, description = "It has changed", body = ThreeWay)))]
async fn resolve(State(service): State<Service>, Path((id, number)): Path<(String, u64)>, body: Bytes) -> Reply {
    let decision: Decision = parse(&body)?;
    let now = three_way(&service, &id, number).await?;
    let mzxid = |value: &Option<SideValue>| value.as_ref().map(|value| value.mzxid);
    if decision.expect.as_ref().is_some_and(|expect| expect.a_mzxid != mzxid(&now.a) || expect.b_mzxid != mzxid(&now.b)) {
        return Ok(json(StatusCode::CONFLICT, &now));
    }
    let winner = match decision.choice {
        Choice::A => Side::A,
        Choice::B => Side::B,
        // Neither's: A is made so, if it is still what was looked at, and then A wins.
        Choice::Custom | Choice::Delete => {
            let (definition, _) = service.get(&id)?;
            let path = prepare::paths(&definition.config()?, &now.conflict.key).a;
            let clients = verify::connect(&definition).await.map_err(ServiceError::Unavailable)?;
            let version = now.a.as_ref().map(|value| value.version);
            let written = match (decision.choice, decision.data.as_deref(), version) {
                (Choice::Delete, _, None) => Ok(()),
                (Choice::Delete, _, version) => clients.a.delete(&path, version).await,
                (_, None, _) => {
                    return Err(ServiceError::Invalid(crate::definition::DefinitionError("custom needs data".to_owned())));
                }
                (_, Some(data), Some(version)) => clients.a.set(&path, data.as_bytes(), Some(version)).await.map(drop),
                (_, Some(data), None) => {
                    clients.a.create(&path, data.as_bytes(), &zk::Acl::open(), zk::CreateKind::Persistent).await.map(drop)
                }
            };
            written.map_err(|error| ServiceError::Conflict(format!("writing {path} on A: {error}")))?;
            Side::A
        }
    };
    service
        .handle(&id)?
        .tell(Command::Resolve { id: number, winner })
        .await
        .map_err(|stopped| ServiceError::Unavailable(stopped.to_string()))?;
    Ok(json(StatusCode::ACCEPTED, &"it will be carried out"))
}

/// How conflicts were decided, the newest first, with what both sides had: the losing version can be put back from here.
#[utoipa::path(get, path = "/api/v1/zksync/links/{id}/resolutions", tag = "ZooKeeper sync", params(ConflictQuery), responses((status = 200, description = "A page", body = ResolutionPage)))]
async fn resolutions(State(service): State<Service>, Path(id): Path<String>, Query(query): Query<ConflictQuery>) -> Reply {
    service.get(&id)?;
    let limit = query.limit.unwrap_or(100).min(PAGE_MAX);
    let found = blocking(move || Ok(service.store().resolutions(&id, &query.prefix, limit)?)).await?;
    Ok(json(StatusCode::OK, &ResolutionPage { resolutions: found.into_iter().map(|(_, resolution)| resolution).collect() }))
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
    let view = service.migration(&id)?.view();
    let (holders, holders_unknown) = match &view.holders {
        Ok(holders) => (holders.clone(), None),
        Err(why) => (Vec::new(), Some(why.clone())),
    };
    let preparation = view.preparation.as_ref().map(|it| Preparation::clone(it));
    let progress = service.handle(&id).map(|handle| progress(&handle.status(), preparation.as_ref())).unwrap_or_default();
    let page = MigrationPage {
        migration: view.migration.clone(),
        holders,
        holders_unknown,
        verification: view.verification.as_ref().map(|it| VerificationReport::clone(it)),
        preparation,
        progress,
    };
    Ok(json(StatusCode::OK, &page))
}

fn progress(status: &Arc<Status>, preparation: Option<&Preparation>) -> Progress {
    let total =
        preparation.map_or(0, |found| usize::try_from(found.a.nodes).unwrap_or(usize::MAX)).max(status.pairs + status.backlog).max(1);
    Progress { pairs: status.pairs, backlog: status.backlog, percent: (status.pairs.min(total) * 100 / total) as u64 }
}

/// `cutover`, `advance`, `rollback`, `pause`, `resume` or `complete`.
#[utoipa::path(post, path = "/api/v1/zksync/migrations/{id}/{action}", tag = "ZooKeeper sync", responses((status = 202, description = "It will be done"), (status = 409, description = "The phase does not allow it")))]
async fn migration_action(State(service): State<Service>, Path((id, action)): Path<(String, String)>) -> Reply {
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
    let handle = service.migration(&id)?;
    handle.view().migration.allows(command).map_err(|not_now| ServiceError::Conflict(not_now.to_string()))?;
    handle.tell(command).await;
    Ok(json(StatusCode::ACCEPTED, &action))
}

/// Whether every link does its work.
#[utoipa::path(get, path = "/api/v1/zksync/health", tag = "ZooKeeper sync", responses((status = 200, description = "All do"), (status = 503, description = "What is wrong")))]
async fn health(State(service): State<Service>) -> Reply {
    let problems = service.problems();
    let status = if problems.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(json(status, &serde_json::json!({ "status": if problems.is_empty() { "ok" } else { "failing" }, "problems": problems })))
}
