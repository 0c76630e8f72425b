//! What operators can ask for, whatever they ask it through.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use zksync::{
    Acl, Command, Conflict, ConflictKind, LinkConfig, MigrationCommand, Mode, Node, PerSide, Resolution, Seen, Side, Strategy, Value,
    Winner,
};

use crate::api::blocking;
use crate::api::views::{
    BulkDecision, BulkOutcome, Choice, ConflictPage, DifferencePage, Expect, NamedTombstone, SideValue, ThreeWay, TombstonePage,
};
use crate::definition::DefinitionError;
use crate::link::{self, Stopped, acl_to, node_from};
use crate::prepare;
use crate::service::{Service, ServiceError};
use crate::verify;

/// Bytes of a value that an answer has whole: of two of these it stays below what clients of gRPC take by themselves, 4 MiB.
const ANSWERED_MAX: usize = 1_047_000;
/// Conflicts that are decided at once.
const BULK_MAX: usize = 10_000;

/// How a conflict is to be decided.
#[derive(Debug)]
pub(crate) struct Decision {
    /// Whose state is to stand.
    pub(crate) choice: Choice,
    /// The data, when it is neither's.
    pub(crate) data: Option<Vec<u8>>,
    /// What was looked at.
    pub(crate) expect: Option<Expect>,
}

fn stopped(stopped: Stopped) -> ServiceError {
    ServiceError::Unavailable(stopped.to_string())
}

/// Tells a link something.
pub(crate) async fn tell(service: &Service, id: &str, command: Command) -> Result<(), ServiceError> {
    let handle = service.handle(id)?;
    // Until it is resumed, whoever leads by then.
    if let Command::Pause | Command::Resume = command {
        let (keeping, name, paused) = (service.clone(), id.to_owned(), command == Command::Pause);
        blocking(move || keeping.keep_paused(&name, paused)).await?;
    }
    handle.tell(command).await.map_err(stopped)
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

/// A conflict as it stands, with sessions to look at it and to decide it.
struct Looked {
    conflict: Conflict,
    base_hash: Option<String>,
    /// The data of what both last agreed on, as far as they were kept.
    base_data: Option<Vec<u8>>,
    config: LinkConfig,
    clients: PerSide<zk::Client>,
    paths: PerSide<String>,
    nodes: PerSide<Option<Node>>,
}

impl Looked {
    fn seen(&self) -> PerSide<Option<Seen>> {
        let seen = |side: Side| self.nodes[side].as_ref().map(|node| node.stat.seen());
        PerSide { a: seen(Side::A), b: seen(Side::B) }
    }

    fn view(&self) -> ThreeWay {
        let value = |side: Side| self.nodes[side].as_ref().map(side_value);
        let (base_text, base_base64) = self.base_data.clone().map_or((None, None), shown);
        ThreeWay {
            a: value(Side::A),
            b: value(Side::B),
            conflict: self.conflict.clone(),
            base_hash: self.base_hash.clone(),
            base_text,
            base_base64,
            base_data: self.base_data.clone(),
        }
    }
}

async fn look(service: &Service, id: &str, number: u64) -> Result<Looked, ServiceError> {
    let (definition, _) = service.get(id)?;
    let handle = service.handle(id)?;
    let asked = handle.ask(move |link| {
        let conflict = link.open_conflicts().find(|conflict| conflict.id == number).cloned()?;
        let base = link.base_of(&conflict.key).map(|base| hex(&base.data));
        Some((conflict, base))
    });
    let found = asked.await.map_err(stopped)?;
    let (conflict, base_hash) = found.ok_or_else(|| ServiceError::Missing(format!("there is no open conflict {number}")))?;
    let (store, name) = (service.store().clone(), id.to_owned());
    let base_data = blocking(move || Ok(store.base_data(&name, number)?)).await?;
    let clients = verify::connect(&definition).await.map_err(ServiceError::Unavailable)?;
    let config = definition.config()?;
    let paths = prepare::paths(&config, &conflict.key);
    let nodes = PerSide { a: read(&clients.a, &paths.a).await?, b: read(&clients.b, &paths.b).await? };
    Ok(Looked { conflict, base_hash, base_data, config, clients, paths, nodes })
}

async fn read(client: &zk::Client, path: &str) -> Result<Option<Node>, ServiceError> {
    let unavailable = |error: zk::Error| ServiceError::Unavailable(error.to_string());
    client.sync(path).await.map_err(unavailable)?;
    let read = zk::Read { path: path.to_owned(), children: false, acl: true };
    match client.read(&[read]).await.map_err(unavailable)?.into_iter().next() {
        Some(Ok(node)) => Ok(Some(node_from(node))),
        Some(Err(zk::Error::NoNode)) | None => Ok(None),
        Some(Err(error)) => Err(unavailable(error)),
    }
}

/// A conflict: what both sides last agreed on, and what each has now.
pub(crate) async fn three_way(service: &Service, id: &str, number: u64) -> Result<ThreeWay, ServiceError> {
    Ok(look(service, id, number).await?.view())
}

/// Data as text, or in base64 when they are none.
fn shown(data: Vec<u8>) -> (Option<String>, Option<String>) {
    match String::from_utf8(data) {
        Ok(text) => (Some(text), None),
        Err(bytes) => (None, Some(BASE64.encode(bytes.as_bytes()))),
    }
}

fn side_value(node: &Node) -> SideValue {
    let acl = node.acl.iter().flatten().map(acl_words).collect();
    let data = (node.data.len() <= Value::INLINE_MAX).then(|| node.data.to_vec());
    let (text, base64) = data.clone().map_or((None, None), shown);
    SideValue {
        data,
        mzxid: node.stat.mzxid,
        version: node.stat.version,
        mtime: node.stat.mtime,
        size: node.data.len(),
        text,
        base64,
        hash: hex(&zksync::hash_of(&node.data)),
        acl,
    }
}

/// An entry of an access control list, for people.
pub(crate) fn acl_words(entry: &Acl) -> String {
    format!("{}:{} {:#07b}", entry.scheme, entry.id, entry.permissions)
}

pub(crate) fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Decides a conflict; gives back what there is now when it is something else than was looked at.
pub(crate) async fn resolve(service: &Service, id: &str, number: u64, decision: &Decision) -> Result<Option<ThreeWay>, ServiceError> {
    let now = look(service, id, number).await?;
    let mzxid = |side: Side| now.nodes[side].as_ref().map(|node| node.stat.mzxid);
    if decision.expect.as_ref().is_some_and(|expect| expect.a_mzxid != mzxid(Side::A) || expect.b_mzxid != mzxid(Side::B)) {
        return Ok(Some(now.view()));
    }
    let mut seen = now.seen();
    let winner = match decision.choice {
        Choice::A => Side::A,
        Choice::B => Side::B,
        // Neither's: A is made so, if it is still what was looked at, and then A wins.
        Choice::Delete => {
            write_instead(service, id, &now, None).await?;
            seen.a = None;
            Side::A
        }
        Choice::Base => {
            let refused = |why: &str| ServiceError::Conflict(why.to_owned());
            if now.conflict.base.is_none() {
                return Err(refused(
                    "it is not known what both last agreed on, or there was nothing: `delete` makes both sides be without it",
                ));
            }
            let data = now.base_data.as_deref();
            let data = data.ok_or_else(|| refused("the data of what both last agreed on were not kept, only their hash"))?;
            seen.a = write_instead(service, id, &now, Some(data)).await?;
            Side::A
        }
        Choice::Custom => {
            let missing = || ServiceError::Invalid(DefinitionError("custom needs data, as text or in base64".to_owned()));
            let data = decision.data.as_deref().ok_or_else(missing)?;
            seen.a = write_instead(service, id, &now, Some(data)).await?;
            Side::A
        }
    };
    tell(service, id, Command::Resolve { id: number, winner, seen: Some(seen) }).await?;
    Ok(None)
}

/// Makes A what an operator wants instead of what either side has. What A had is recorded first.
async fn write_instead(service: &Service, id: &str, now: &Looked, data: Option<&[u8]>) -> Result<Option<Seen>, ServiceError> {
    let value = |side: Side| now.nodes[side].as_ref().map(Value::of);
    let recorded = match &now.nodes.a {
        None => None,
        Some(_) => {
            let resolution = Resolution {
                key: now.conflict.key.clone(),
                kind: now.conflict.kind,
                strategy: Strategy::Manual,
                winner: Winner::Operator,
                ambiguous: false,
                sides: PerSide { a: value(Side::A), b: value(Side::B) },
                deleted: now.conflict.deleted,
                at_ms: link::now().unix_millis(),
            };
            let (store, name) = (service.store().clone(), id.to_owned());
            Some(blocking(move || Ok(store.record(&name, resolution)?)).await?)
        }
    };
    let (client, path) = (&now.clients.a, &now.paths.a);
    let written = match (&now.nodes.a, data) {
        (None, None) => Ok(()),
        (Some(node), None) => client.delete(path, Some(node.stat.version)).await,
        (Some(node), Some(data)) => client.set(path, data, Some(node.stat.version)).await.map(drop),
        (None, Some(data)) => {
            // Whoever may use the one that there is may use the new one.
            let acl = now.nodes.b.as_ref().and_then(|node| node.acl.as_deref()).map(|acl| now.config.translate(acl, Side::B));
            let acl = acl.ok_or_else(|| ServiceError::Conflict(format!("nobody has {path} any more")))?;
            client.create(path, data, &acl_to(&acl), zk::CreateKind::Persistent).await.map(drop)
        }
    };
    if let Err(error) = written {
        // Without an answer it may have been written.
        if let (Some(number), false) = (recorded, error.is_ambiguous()) {
            let (store, name) = (service.store().clone(), id.to_owned());
            blocking(move || Ok(store.unrecord(&name, number)?)).await?;
        }
        return Err(ServiceError::Conflict(format!("writing {path} on A: {error}")));
    }
    Ok(if data.is_some() { read(client, path).await?.map(|node| node.stat.seen()) } else { None })
}

/// Decides all conflicts below a path, or says which ones they are.
pub(crate) async fn resolve_many(service: &Service, id: &str, decision: &BulkDecision) -> Result<BulkOutcome, ServiceError> {
    let winner = match decision.choice {
        Choice::A => Side::A,
        Choice::B => Side::B,
        _ => return Err(ServiceError::Invalid(DefinitionError("choice: many are decided for a or for b".to_owned()))),
    };
    // Not those that only begin with the same letters.
    let root = match decision.prefix.trim_end_matches('/') {
        "" => "/".to_owned(),
        root => root.to_owned(),
    };
    let handle = service.handle(id)?;
    let asked = handle.ask(move |link| {
        let below = link.open_conflicts().filter(|conflict| zksync::is_below(&conflict.key, &root));
        below.map(|conflict| conflict.id).take(BULK_MAX).collect::<Vec<u64>>()
    });
    let numbers = asked.await.map_err(stopped)?;
    if !decision.dry_run {
        for number in &numbers {
            tell(service, id, Command::Resolve { id: *number, winner, seen: None }).await?;
        }
    }
    Ok(BulkOutcome { conflicts: numbers, accepted: !decision.dry_run })
}

/// Puts back what lost a conflict, as a write to the side that had it; or to the other, when nothing is taken from that side.
pub(crate) async fn restore(service: &Service, id: &str, number: u64) -> Result<String, ServiceError> {
    let (definition, _) = service.get(id)?;
    service.handle(id)?;
    let resolution = resolution(service, id, number).await?;
    let lost = match resolution.winner {
        Winner::A => Side::B,
        Winner::B | Winner::Operator => Side::A,
    };
    let value = &resolution.sides[lost];
    let config = definition.config()?;
    let to = if config.mode.takes_from(lost) { lost } else { lost.other() };
    let paths = prepare::paths(&config, &resolution.key);
    let path = &paths[to];
    let clients = verify::connect(&definition).await.map_err(ServiceError::Unavailable)?;
    let client = &clients[to];
    let is_list_alone = match value {
        _ if resolution.kind == ConflictKind::Acl => true,
        // Only the lists may have differed: then what is missing of its data is there.
        Some(value) if value.cut => {
            let there = if value.acl.is_some() { read(client, path).await? } else { None };
            if there.is_none_or(|node| value.hash != Some(zksync::hash_of(&node.data))) {
                return Err(not_whole(value));
            }
            true
        }
        _ => false,
    };
    let listed = value.as_ref().and_then(|value| value.acl.as_deref());
    let list = listed.map(|acl| if to == lost { acl.to_vec() } else { config.translate(acl, lost) }).map(|acl| acl_to(&acl));
    let written = match value {
        None => match client.delete(path, None).await {
            Err(zk::Error::NoNode) => Ok(()),
            done => done,
        },
        Some(_) if is_list_alone => match &list {
            Some(list) => client.set_acl(path, list, None).await.map(drop),
            None => return Err(ServiceError::Conflict("the record has no access control list".to_owned())),
        },
        Some(value) => match (client.set(path, &value.data, None).await, &list) {
            (Err(zk::Error::NoNode), Some(list)) => client.create(path, &value.data, list, zk::CreateKind::Persistent).await.map(drop),
            (Err(zk::Error::NoNode), None) => {
                let list = list_of_survivor(&config, &resolution, (&clients, &paths), lost, to).await?;
                client.create(path, &value.data, &list, zk::CreateKind::Persistent).await.map(drop)
            }
            (Ok(_), Some(list)) => client.set_acl(path, list, None).await.map(drop),
            (done, _) => done.map(drop),
        },
    };
    written.map_err(|error| ServiceError::Conflict(format!("writing {path} on {}: {error}", to.as_str().to_uppercase())))?;
    Ok(format!("{path} on {} is as it was", to.as_str().to_uppercase()))
}

/// The list that a znode is made again with when its own was never read: that of its counterpart, never one that is open to everybody.
async fn list_of_survivor(
    config: &LinkConfig,
    resolution: &Resolution,
    (clients, paths): (&PerSide<zk::Client>, &PerSide<String>),
    lost: Side,
    to: Side,
) -> Result<Vec<zk::Acl>, ServiceError> {
    let survivor = lost.other();
    let recorded = resolution.sides[survivor].as_ref().and_then(|value| value.acl.clone());
    let list = match recorded {
        Some(list) => Some((list, survivor)),
        None => read(&clients[to.other()], &paths[to.other()]).await?.and_then(|node| node.acl).map(|list| (list, to.other())),
    };
    let unknown = || ServiceError::Conflict(format!("whose {} was is not known any more: make it by hand, and restore it then", paths[to]));
    let (list, of) = list.ok_or_else(unknown)?;
    let list = if of == to { list } else { config.translate(&list, of) };
    Ok(acl_to(&list))
}

/// Pairs below a path that are gone, those that went last first.
pub(crate) async fn tombstones(service: &Service, id: &str, prefix: String, limit: usize) -> Result<TombstonePage, ServiceError> {
    let handle = service.handle(id)?;
    let page = handle.ask(move |link| {
        let (found, total) = link.tombstones_below(&prefix, limit);
        let named = |(key, tombstone): (&zksync::Key, &zksync::Tombstone)| NamedTombstone { path: key.to_string(), tombstone: *tombstone };
        TombstonePage { tombstones: found.into_iter().map(named).collect(), total }
    });
    page.await.map_err(stopped)
}

/// How one conflict was decided, with whole values.
pub(crate) async fn resolution(service: &Service, id: &str, number: u64) -> Result<Resolution, ServiceError> {
    service.get(id)?;
    let (reading, name) = (service.clone(), id.to_owned());
    let found = blocking(move || Ok(reading.store().resolution(&name, number)?)).await?;
    found.ok_or_else(|| ServiceError::Missing(format!("there is no resolution {number}")))
}

/// As much of it as one answer may have: of what is larger, the beginning.
pub(crate) fn answered(mut resolution: Resolution) -> Resolution {
    let large = |value: &&mut Value| value.data.len() > ANSWERED_MAX;
    for value in [&mut resolution.sides.a, &mut resolution.sides.b].into_iter().flatten().filter(large) {
        value.shorten();
    }
    resolution
}

/// The whole data that a side had when a conflict was decided.
pub(crate) async fn resolution_value(service: &Service, id: &str, number: u64, side: Side) -> Result<Arc<[u8]>, ServiceError> {
    let name = side.as_str().to_uppercase();
    match resolution(service, id, number).await?.sides[side].take() {
        None => Err(ServiceError::Missing(format!("{name} had nothing there"))),
        Some(value) if value.cut => Err(not_whole(&value)),
        Some(value) => Ok(value.data),
    }
}

fn not_whole(value: &Value) -> ServiceError {
    ServiceError::Conflict(if value.unread {
        "nobody had read it before it was replaced: that it was there is all that is known".to_owned()
    } else {
        "this control plane has not all of what was lost, but the first 64 KiB".to_owned()
    })
}

/// Differences of the newest comparison below a path.
pub(crate) async fn differences(service: &Service, id: String, prefix: String, limit: usize) -> Result<DifferencePage, ServiceError> {
    let missing = ServiceError::Missing(format!("the link {id:?} was never verified"));
    let service = service.clone();
    let report = blocking(move || service.report(&id)).await?.ok_or(missing)?;
    let differences = report.found.differences.into_iter().filter(|it| it.path.starts_with(&prefix)).take(limit).collect();
    Ok(DifferencePage { differences, total: report.found.differing, started_ms: report.started_ms })
}
