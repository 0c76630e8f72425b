//! What operators can ask for, whatever they ask it through.

use zksync::{Command, Conflict, MigrationCommand, Mode, Side, Strategy, Winner};

use crate::api::blocking;
use crate::api::views::{BulkDecision, BulkOutcome, Choice, ConflictPage, Decision, DifferencePage, SideValue, ThreeWay};
use crate::definition::DefinitionError;
use crate::link::{Stopped, node_from};
use crate::prepare;
use crate::service::{Service, ServiceError};
use crate::verify;

/// Conflicts that are decided at once.
const BULK_MAX: usize = 10_000;

fn stopped(stopped: Stopped) -> ServiceError {
    ServiceError::Unavailable(stopped.to_string())
}

/// Tells a link something.
pub(crate) async fn tell(service: &Service, id: &str, command: Command) -> Result<(), ServiceError> {
    service.handle(id)?.tell(command).await.map_err(stopped)
}

/// Tells a migration something that its phase allows.
pub(crate) async fn tell_migration(service: &Service, id: &str, command: MigrationCommand) -> Result<(), ServiceError> {
    let handle = service.migration(id)?;
    handle.view().migration.allows(command).map_err(|not_now| ServiceError::Conflict(not_now.to_string()))?;
    handle.tell(command).await;
    Ok(())
}

/// Changes the direction or the strategy of a link: in its definition, and in what runs.
pub(crate) async fn change(service: &Service, id: &str, mode: Option<Mode>, strategy: Option<Strategy>) -> Result<(), ServiceError> {
    let handle = service.handle(id)?;
    let (changing, name) = (service.clone(), id.to_owned());
    blocking(move || changing.change(&name, mode, strategy)).await?;
    for command in [mode.map(Command::SetMode), strategy.map(Command::SetStrategy)].into_iter().flatten() {
        handle.tell(command).await.map_err(stopped)?;
    }
    Ok(())
}

/// Open conflicts below a path.
pub(crate) async fn conflicts(service: &Service, id: &str, prefix: String, limit: usize) -> Result<ConflictPage, ServiceError> {
    let handle = service.handle(id)?;
    let page = handle.ask(move |link| {
        let all: Vec<&Conflict> = link.open_conflicts().filter(|conflict| conflict.key.starts_with(&prefix)).collect();
        ConflictPage { conflicts: all.iter().take(limit).map(|conflict| Conflict::clone(conflict)).collect(), total: all.len() }
    });
    page.await.map_err(stopped)
}

/// A conflict: what both sides last agreed on, and what each has now.
pub(crate) async fn three_way(service: &Service, id: &str, number: u64) -> Result<ThreeWay, ServiceError> {
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

/// Decides a conflict; gives back what there is now when it is something else than was looked at.
pub(crate) async fn resolve(service: &Service, id: &str, number: u64, decision: &Decision) -> Result<Option<ThreeWay>, ServiceError> {
    let now = three_way(service, id, number).await?;
    let mzxid = |value: &Option<SideValue>| value.as_ref().map(|value| value.mzxid);
    if decision.expect.as_ref().is_some_and(|expect| expect.a_mzxid != mzxid(&now.a) || expect.b_mzxid != mzxid(&now.b)) {
        return Ok(Some(now));
    }
    let winner = match decision.choice {
        Choice::A => Side::A,
        Choice::B => Side::B,
        // Neither's: A is made so, if it is still what was looked at, and then A wins.
        Choice::Custom | Choice::Delete => {
            let (definition, _) = service.get(id)?;
            let path = prepare::paths(&definition.config()?, &now.conflict.key).a;
            let clients = verify::connect(&definition).await.map_err(ServiceError::Unavailable)?;
            let version = now.a.as_ref().map(|value| value.version);
            let written = match (decision.choice, decision.data.as_deref(), version) {
                (Choice::Delete, _, None) => Ok(()),
                (Choice::Delete, _, version) => clients.a.delete(&path, version).await,
                (_, None, _) => return Err(ServiceError::Invalid(DefinitionError("custom needs data".to_owned()))),
                (_, Some(data), Some(version)) => clients.a.set(&path, data.as_bytes(), Some(version)).await.map(drop),
                (_, Some(data), None) => {
                    clients.a.create(&path, data.as_bytes(), &zk::Acl::open(), zk::CreateKind::Persistent).await.map(drop)
                }
            };
            written.map_err(|error| ServiceError::Conflict(format!("writing {path} on A: {error}")))?;
            Side::A
        }
    };
    tell(service, id, Command::Resolve { id: number, winner }).await?;
    Ok(None)
}

/// Decides all conflicts below a path, or says which ones they are.
pub(crate) async fn resolve_many(service: &Service, id: &str, decision: &BulkDecision) -> Result<BulkOutcome, ServiceError> {
    let winner = match decision.choice {
        Choice::A => Side::A,
        Choice::B => Side::B,
        _ => return Err(ServiceError::Invalid(DefinitionError("choice: many are decided for a or for b".to_owned()))),
    };
    let page = conflicts(service, id, decision.prefix.clone(), BULK_MAX).await?;
    let numbers: Vec<u64> = page.conflicts.iter().map(|conflict| conflict.id).collect();
    if !decision.dry_run {
        for number in &numbers {
            tell(service, id, Command::Resolve { id: *number, winner }).await?;
        }
    }
    Ok(BulkOutcome { conflicts: numbers, accepted: !decision.dry_run })
}

/// Puts back what lost a conflict, as a write to the side that had it; or to the other, when nothing is taken from that side.
pub(crate) async fn restore(service: &Service, id: &str, number: u64) -> Result<String, ServiceError> {
    let (definition, _) = service.get(id)?;
    service.handle(id)?;
    let (reading, name) = (service.clone(), id.to_owned());
    let found = blocking(move || Ok(reading.store().resolution(&name, number)?)).await?;
    let resolution = found.ok_or_else(|| ServiceError::Missing(format!("there is no resolution {number}")))?;
    let lost = if resolution.winner == Winner::A { Side::B } else { Side::A };
    let value = &resolution.sides[lost];
    if value.as_ref().is_some_and(|value| value.cut) {
        return Err(ServiceError::Conflict("more than 64 KiB were lost, of which the record keeps the first".to_owned()));
    }
    let config = definition.config()?;
    let to = if config.mode.takes_from(lost) { lost } else { lost.other() };
    let path = prepare::paths(&config, &resolution.key)[to].clone();
    let clients = verify::connect(&definition).await.map_err(ServiceError::Unavailable)?;
    let client = &clients[to];
    let written = match value {
        None => match client.delete(&path, None).await {
            Err(zk::Error::NoNode) => Ok(()),
            done => done,
        },
        Some(value) => match client.set(&path, &value.data, None).await {
            Err(zk::Error::NoNode) => {
                let acl: Vec<zk::Acl> = value
                    .acl
                    .iter()
                    .flatten()
                    .map(|entry| zk::Acl { permissions: entry.permissions, scheme: entry.scheme.clone(), id: entry.id.clone() })
                    .collect();
                let acl = if acl.is_empty() || to != lost { zk::Acl::open() } else { acl };
                client.create(&path, &value.data, &acl, zk::CreateKind::Persistent).await.map(drop)
            }
            done => done.map(drop),
        },
    };
    written.map_err(|error| ServiceError::Conflict(format!("writing {path} on {}: {error}", to.as_str().to_uppercase())))?;
    Ok(format!("{path} on {} is as it was", to.as_str().to_uppercase()))
}

/// Differences of the newest comparison below a path.
pub(crate) async fn differences(service: &Service, id: String, prefix: String, limit: usize) -> Result<DifferencePage, ServiceError> {
    let missing = ServiceError::Missing(format!("the link {id:?} was never verified"));
    let service = service.clone();
    let report = blocking(move || service.report(&id)).await?.ok_or(missing)?;
    let differences = report.found.differences.into_iter().filter(|it| it.path.starts_with(&prefix)).take(limit).collect();
    Ok(DifferencePage { differences, total: report.found.differing, started_ms: report.started_ms })
}
