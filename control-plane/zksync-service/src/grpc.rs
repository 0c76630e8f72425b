//! The API over gRPC, `orchestrator.zksync.v1`: the same functions as over HTTP.

mod convert;

use std::pin::Pin;
use std::time::Duration;

use futures::stream::{Stream, unfold};
use proto::zksync::v1 as wire;
use proto::zksync::v1::zk_sync_server::{ZkSync, ZkSyncServer};
use serde::de::DeserializeOwned;
use tonic::{Request, Response, Status};
use zksync::{Command, MigrationCommand, Plan, Side};

use crate::api::views::{BulkDecision, Choice, Expect, forced, migration_page, view};
use crate::api::{RESOLVE_MAX, blocking};
use crate::definition::Definition;
use crate::operations::{self, Decision};
use crate::service::{Service, ServiceError};

/// Bytes of a request: a definition or a plan is a page of text, and what decides a conflict may be as large as a znode.
const REQUEST_BYTES: usize = RESOLVE_MAX;
/// Entries of an answer.
const PAGE_MAX: usize = 1_000;
/// Between two looks of a stream.
const LOOK: Duration = Duration::from_millis(250);
/// What has not changed is told again after this many looks.
const AGAIN: u32 = 4;

/// What a server of gRPC is given.
pub type Server = ZkSyncServer<Grpc>;

/// The service, to be added to a server of gRPC.
pub fn server(service: Service) -> Server {
    ZkSyncServer::new(Grpc(service)).max_decoding_message_size(REQUEST_BYTES)
}

/// What answers.
#[derive(Clone, Debug)]
pub struct Grpc(Service);

impl From<ServiceError> for Status {
    fn from(error: ServiceError) -> Self {
        let text = error.to_string();
        match error {
            ServiceError::Missing(_) => Status::not_found(text),
            ServiceError::Conflict(_) => Status::failed_precondition(text),
            ServiceError::Invalid(_) => Status::invalid_argument(text),
            ServiceError::Unavailable(_) => Status::unavailable(text),
            ServiceError::Store(_) => Status::internal(text),
        }
    }
}

fn parse<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, Status> {
    serde_json::from_str(text).map_err(|error| Status::invalid_argument(format!("{what}: {error}")))
}

/// A word of an enum, as JSON has it.
fn word<T: DeserializeOwned>(what: &str, word: Option<&String>) -> Result<Option<T>, Status> {
    let value = |word: &String| serde_json::from_value(serde_json::Value::String(word.clone()));
    word.map(value).transpose().map_err(|error| Status::invalid_argument(format!("{what}: {error}")))
}

fn limit(asked: u32, default: usize) -> usize {
    match usize::try_from(asked).unwrap_or(PAGE_MAX) {
        0 => default,
        asked => asked.min(PAGE_MAX),
    }
}

fn choice(choice: i32) -> Result<Choice, Status> {
    match wire::Choice::try_from(choice) {
        Ok(wire::Choice::A) => Ok(Choice::A),
        Ok(wire::Choice::B) => Ok(Choice::B),
        Ok(wire::Choice::Base) => Ok(Choice::Base),
        Ok(wire::Choice::Custom) => Ok(Choice::Custom),
        Ok(wire::Choice::Delete) => Ok(Choice::Delete),
        _ => Err(Status::invalid_argument("choice: A, B, BASE, CUSTOM or DELETE")),
    }
}

/// Data that are told as text or as bytes.
fn data(text: Option<String>, bytes: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, Status> {
    match (text, bytes) {
        (Some(_), Some(_)) => Err(Status::invalid_argument("data and data_bytes: only one of them")),
        (text, bytes) => Ok(bytes.or_else(|| text.map(String::into_bytes))),
    }
}

/// Bytes of a large value that are sent at once.
const PART: usize = 256 * 1024;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// As it changes, and once a second; ends with the error of the look.
fn answers<T: Clone + PartialEq + Send + 'static>(look: impl Fn() -> Result<T, Status> + Send + 'static) -> Answers<T> {
    Box::pin(unfold(Some((look, None::<T>)), |state| async move {
        let (look, told) = state?;
        let mut looks = 0;
        loop {
            if told.is_some() || looks > 0 {
                tokio::time::sleep(LOOK).await;
            }
            looks += 1;
            match look() {
                Ok(now) if told.as_ref() != Some(&now) || looks >= AGAIN => return Some((Ok(now.clone()), Some((look, Some(now))))),
                Ok(_) => {}
                Err(error) => return Some((Err(error), None)),
            }
        }
    }))
}

impl Grpc {
    fn link(&self, id: &str) -> Result<wire::Link, Status> {
        let (definition, role) = self.0.get(id)?;
        Ok(convert::link(view(&definition, role)))
    }

    fn migration(&self, id: &str) -> Result<wire::Migration, Status> {
        let handle = self.0.migration(id)?;
        Ok(convert::migration(migration_page(&self.0, id, &handle)))
    }
}

#[tonic::async_trait]
impl ZkSync for Grpc {
    async fn list_links(&self, _request: Request<wire::ListLinksRequest>) -> Result<Response<wire::ListLinksResponse>, Status> {
        let links = self.0.list().into_iter().map(|(definition, role)| convert::link(view(&definition, role))).collect();
        Ok(Response::new(wire::ListLinksResponse { links }))
    }

    async fn get_link(&self, request: Request<wire::GetLinkRequest>) -> Result<Response<wire::Link>, Status> {
        Ok(Response::new(self.link(&request.into_inner().id)?))
    }

    async fn create_link(&self, request: Request<wire::CreateLinkRequest>) -> Result<Response<wire::Link>, Status> {
        let definition: Definition = parse("definition", &request.into_inner().definition)?;
        let (service, id) = (self.0.clone(), definition.id.clone());
        blocking(move || service.create(definition)).await?;
        Ok(Response::new(self.link(&id)?))
    }

    async fn change_link(&self, request: Request<wire::ChangeLinkRequest>) -> Result<Response<wire::Link>, Status> {
        let change = request.into_inner();
        let (mode, strategy) = (word("mode", change.mode.as_ref())?, word("strategy", change.strategy.as_ref())?);
        operations::change(&self.0, &change.id, mode, strategy).await?;
        Ok(Response::new(self.link(&change.id)?))
    }

    async fn delete_link(&self, request: Request<wire::DeleteLinkRequest>) -> Result<Response<wire::DeleteLinkResponse>, Status> {
        let service = self.0.clone();
        blocking(move || service.delete(&request.into_inner().id)).await?;
        Ok(Response::new(wire::DeleteLinkResponse {}))
    }

    async fn control_link(&self, request: Request<wire::ControlLinkRequest>) -> Result<Response<wire::ControlLinkResponse>, Status> {
        let control = request.into_inner();
        let command = match wire::LinkAction::try_from(control.action) {
            Ok(wire::LinkAction::Pause) => Command::Pause,
            Ok(wire::LinkAction::Resume) => Command::Resume,
            Ok(wire::LinkAction::Resync) => Command::Resync,
            Ok(wire::LinkAction::ApproveDeletes) => Command::ApproveDeletes,
            _ => return Err(Status::invalid_argument("action: PAUSE, RESUME, RESYNC or APPROVE_DELETES")),
        };
        operations::tell(&self.0, &control.id, command).await?;
        Ok(Response::new(wire::ControlLinkResponse {}))
    }

    type WatchLinkStream = Answers<wire::Link>;

    async fn watch_link(&self, request: Request<wire::WatchLinkRequest>) -> Result<Response<Self::WatchLinkStream>, Status> {
        let id = request.into_inner().id;
        self.link(&id)?;
        let me = self.clone();
        Ok(Response::new(answers(move || me.link(&id))))
    }

    async fn plan(&self, request: Request<wire::PlanRequest>) -> Result<Response<wire::Preparation>, Status> {
        let definition: Definition = parse("definition", &request.into_inner().definition)?;
        let found = self.0.plan(definition).await?;
        Ok(Response::new(convert::preparation(found)))
    }

    async fn verify(&self, request: Request<wire::VerifyRequest>) -> Result<Response<wire::Verification>, Status> {
        Ok(Response::new(convert::verification(self.0.verify(&request.into_inner().id).await?)))
    }

    async fn get_verification(&self, request: Request<wire::GetVerificationRequest>) -> Result<Response<wire::Verification>, Status> {
        let (service, id) = (self.0.clone(), request.into_inner().id);
        self.0.get(&id)?;
        let never = Status::not_found(format!("the link {id:?} was never verified"));
        let report = blocking(move || service.report(&id)).await?.ok_or(never)?;
        Ok(Response::new(convert::verification(report)))
    }

    async fn get_health(&self, _request: Request<wire::GetHealthRequest>) -> Result<Response<wire::Health>, Status> {
        let problems = self.0.problems();
        Ok(Response::new(wire::Health { ok: problems.is_empty(), problems }))
    }

    async fn list_differences(
        &self,
        request: Request<wire::ListDifferencesRequest>,
    ) -> Result<Response<wire::ListDifferencesResponse>, Status> {
        let asked = request.into_inner();
        let page = operations::differences(&self.0, asked.id, asked.prefix, limit(asked.limit, PAGE_MAX)).await?;
        Ok(Response::new(convert::differences(page)))
    }

    async fn list_conflicts(&self, request: Request<wire::ListConflictsRequest>) -> Result<Response<wire::ListConflictsResponse>, Status> {
        let asked = request.into_inner();
        let page = operations::conflicts(&self.0, &asked.id, asked.prefix, limit(asked.limit, PAGE_MAX)).await?;
        let conflicts = page.conflicts.iter().map(convert::conflict).collect();
        Ok(Response::new(wire::ListConflictsResponse { conflicts, total: page.total as u64 }))
    }

    async fn get_conflict(&self, request: Request<wire::GetConflictRequest>) -> Result<Response<wire::ThreeWay>, Status> {
        let asked = request.into_inner();
        Ok(Response::new(convert::three_way(operations::three_way(&self.0, &asked.id, asked.number).await?)))
    }

    async fn resolve_conflict(
        &self,
        request: Request<wire::ResolveConflictRequest>,
    ) -> Result<Response<wire::ResolveConflictResponse>, Status> {
        let asked = request.into_inner();
        let expect = asked.expect.map(|expect| Expect { a_mzxid: expect.a_mzxid, b_mzxid: expect.b_mzxid });
        let decision = Decision { choice: choice(asked.choice)?, data: data(asked.data, asked.data_bytes)?, expect };
        match operations::resolve(&self.0, &asked.id, asked.number, &decision).await? {
            Some(_) => Err(Status::aborted("it has changed since it was looked at")),
            None => Ok(Response::new(wire::ResolveConflictResponse {})),
        }
    }

    async fn resolve_conflicts(
        &self,
        request: Request<wire::ResolveConflictsRequest>,
    ) -> Result<Response<wire::ResolveConflictsResponse>, Status> {
        let asked = request.into_inner();
        let decision = BulkDecision { prefix: asked.prefix, choice: choice(asked.choice)?, dry_run: asked.dry_run };
        let done = operations::resolve_many(&self.0, &asked.id, &decision).await?;
        Ok(Response::new(wire::ResolveConflictsResponse { conflicts: done.conflicts, accepted: done.accepted }))
    }

    async fn list_resolutions(
        &self,
        request: Request<wire::ListResolutionsRequest>,
    ) -> Result<Response<wire::ListResolutionsResponse>, Status> {
        let asked = request.into_inner();
        self.0.get(&asked.id)?;
        let service = self.0.clone();
        let read = move || Ok(service.store().resolutions(&asked.id, &asked.prefix, limit(asked.limit, 100))?);
        let resolutions = blocking(read).await?.into_iter().map(|(number, found)| convert::resolution(number, found)).collect();
        Ok(Response::new(wire::ListResolutionsResponse { resolutions }))
    }

    async fn get_resolution(&self, request: Request<wire::GetResolutionRequest>) -> Result<Response<wire::Resolution>, Status> {
        let asked = request.into_inner();
        let found = operations::resolution(&self.0, &asked.id, asked.number).await?;
        Ok(Response::new(convert::resolution(asked.number, operations::answered(found))))
    }

    type GetResolutionValueStream = Answers<wire::DataPart>;

    async fn get_resolution_value(
        &self,
        request: Request<wire::GetResolutionValueRequest>,
    ) -> Result<Response<Self::GetResolutionValueStream>, Status> {
        let asked = request.into_inner();
        let side = word("side", Some(&asked.side))?.unwrap_or(Side::A);
        let data = operations::resolution_value(&self.0, &asked.id, asked.number, side).await?;
        // One at least, so that an empty value is told from a broken answer.
        let count = data.len().div_ceil(PART).max(1);
        let part = move |n: usize| {
            let piece = &data[n * PART..data.len().min((n + 1) * PART)];
            Ok(wire::DataPart { data: piece.to_vec() })
        };
        Ok(Response::new(Box::pin(futures::stream::iter((0..count).map(part)))))
    }

    async fn list_tombstones(
        &self,
        request: Request<wire::ListTombstonesRequest>,
    ) -> Result<Response<wire::ListTombstonesResponse>, Status> {
        let asked = request.into_inner();
        let page = operations::tombstones(&self.0, &asked.id, asked.prefix, limit(asked.limit, 100)).await?;
        let tombstones = page.tombstones.into_iter().map(|it| convert::tombstone(it.path, it.tombstone)).collect();
        Ok(Response::new(wire::ListTombstonesResponse { tombstones, total: page.total as u64 }))
    }

    async fn restore_loser(&self, request: Request<wire::RestoreLoserRequest>) -> Result<Response<wire::RestoreLoserResponse>, Status> {
        let asked = request.into_inner();
        let text = operations::restore(&self.0, &asked.id, asked.number).await?;
        Ok(Response::new(wire::RestoreLoserResponse { text }))
    }

    async fn start_migration(&self, request: Request<wire::StartMigrationRequest>) -> Result<Response<wire::Migration>, Status> {
        let plan: Plan = parse("plan", &request.into_inner().plan)?;
        let (service, link) = (self.0.clone(), plan.link.clone());
        blocking(move || service.migrate(plan)).await?;
        Ok(Response::new(self.migration(&link)?))
    }

    async fn get_migration(&self, request: Request<wire::GetMigrationRequest>) -> Result<Response<wire::Migration>, Status> {
        Ok(Response::new(self.migration(&request.into_inner().link)?))
    }

    async fn control_migration(
        &self,
        request: Request<wire::ControlMigrationRequest>,
    ) -> Result<Response<wire::ControlMigrationResponse>, Status> {
        let control = request.into_inner();
        let command = match wire::MigrationAction::try_from(control.action) {
            Ok(wire::MigrationAction::Cutover) => MigrationCommand::Cutover,
            Ok(wire::MigrationAction::Advance) => MigrationCommand::Advance,
            Ok(wire::MigrationAction::Rollback) => MigrationCommand::Rollback,
            Ok(wire::MigrationAction::Pause) => MigrationCommand::Pause,
            Ok(wire::MigrationAction::Resume) => MigrationCommand::Resume,
            Ok(wire::MigrationAction::Complete) => MigrationCommand::Complete,
            _ => return Err(Status::invalid_argument("action: CUTOVER, ADVANCE, ROLLBACK, PAUSE, RESUME or COMPLETE")),
        };
        let command = if control.force { forced(command)? } else { command };
        operations::tell_migration(&self.0, &control.link, command).await?;
        Ok(Response::new(wire::ControlMigrationResponse {}))
    }

    type WatchMigrationStream = Answers<wire::Migration>;

    async fn watch_migration(&self, request: Request<wire::WatchMigrationRequest>) -> Result<Response<Self::WatchMigrationStream>, Status> {
        let link = request.into_inner().link;
        self.migration(&link)?;
        let me = self.clone();
        Ok(Response::new(answers(move || me.migration(&link))))
    }

    async fn list_holders(&self, request: Request<wire::ListHoldersRequest>) -> Result<Response<wire::ListHoldersResponse>, Status> {
        let holders = self.0.holders(&request.into_inner().id, Side::A).await?;
        Ok(Response::new(wire::ListHoldersResponse { holders: holders.into_iter().map(convert::holder).collect() }))
    }
}
