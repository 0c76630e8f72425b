//! What both sides agree on, kept on B besides our own disk: for whoever leads next on another machine.
//!
//! A log of changes with a snapshot before it. The znode `base` says which snapshot counts and where the log begins; `base/s…` are the parts of
//! snapshots, `base/l…` the entries of the log. An entry is written when our own disk has what is in it, and a slot is not used again before
//! that: so what the log does not have yet stands in the slots, and nobody who takes over has to guess. All writes check the epoch.

pub(crate) mod entry;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::Instant;
use zk::{Acl, Client, CreateKind, Error, MultiError, Op, Read};

use crate::link::Reserved;
use crate::store::Store;
use entry::Entry;

/// Between two entries: what happens meanwhile is in the slots.
const PAUSE: Duration = Duration::from_millis(100);
/// Before what went wrong is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// Entries of the log before a snapshot is made.
const LOG_ENTRIES: u64 = 2_000;
/// Bytes of the log before a snapshot is made, unless the last one was larger.
const LOG_BYTES: u64 = 4 * 1024 * 1024;
/// Znodes removed, or read, in one request.
const AT_ONCE: usize = 32;

/// Who may write on B: a session there and the version of the epoch.
pub(crate) type Writer = watch::Receiver<Option<(Client, i32)>>;

/// The checkpoint of a link. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoint {
    link: String,
    reserved: Reserved,
    store: Store,
    writer: Writer,
    acl: Vec<Acl>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    known: Option<Known>,
    next_at: Instant,
    compacting: bool,
}

/// What stands on B.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Number of the next entry.
    next: u64,
    /// Number of the next snapshot.
    snapshot: u64,
    log_entries: u64,
    log_bytes: u64,
    snapshot_bytes: u64,
}

/// The data of the znode `base`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    /// The snapshot that counts.
    snapshot: u64,
    /// Its parts.
    parts: u64,
    /// The first entry that is not in it.
    from: u64,
    /// Save that the snapshot has.
    save: u64,
}

/// What a leader begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// Nobody has led here before.
    Nothing,
    /// Our own disk has the newest.
    Own,
    /// Somebody else has led since, and left this many pairs.
    Others(u64),
}

impl Checkpoint {
    pub(crate) fn new(link: &str, store: Store, writer: Writer, acl: Vec<Acl>) -> Checkpoint {
        let state = State { known: None, next_at: Instant::now(), compacting: false };
        Checkpoint { link: link.to_owned(), reserved: Reserved::of(link), store, writer, acl, state: Arc::new(Mutex::new(state)) }
    }

    /// Writes what our disk has kept. Ends when it is on B; never, when another leader has taken over.
    pub(crate) async fn append(&self, entry: &Entry) {
        let mut state = self.state.lock().await;
        tokio::time::sleep_until(state.next_at).await;
        state.next_at = Instant::now() + PAUSE;
        let mut known = match state.known {
            Some(known) => known,
            None => self.look().await,
        };
        for bytes in entry::encode(entry) {
            let create = Op::Create { path: self.log(known.next), data: bytes, acl: self.acl.clone(), kind: CreateKind::Persistent };
            known.log_bytes += match &create {
                Op::Create { data, .. } => data.len() as u64,
                _ => 0,
            };
            self.commit(vec![create]).await;
            known.next += 1;
            known.log_entries += 1;
        }
        state.known = Some(known);
    }

    /// Whether the log has grown so long that a snapshot is due; says so once.
    pub(crate) async fn is_long(&self) -> bool {
        let mut state = self.state.lock().await;
        let Some(known) = state.known else { return false };
        let long = known.log_entries >= LOG_ENTRIES || known.log_bytes >= LOG_BYTES.max(known.snapshot_bytes);
        let due = long && !state.compacting;
        state.compacting |= due;
        due
    }

    /// Writes everything anew and removes what came before. The log goes on meanwhile.
    pub(crate) async fn compact(&self) {
        let (from, snapshot) = {
            let mut state = self.state.lock().await;
            let mut known = match state.known {
                Some(known) => known,
                None => self.look().await,
            };
            known.snapshot += 1;
            (known.log_entries, known.log_bytes) = (0, 0);
            state.known = Some(known);
            (known.next, known.snapshot)
        };
        let (tell, mut parts) = mpsc::channel(2);
        let (store, link) = (self.store.clone(), self.link.clone());
        let reading = tokio::task::spawn_blocking(move || {
            store.stream(&link, |entry, save| entry::encode(&entry).into_iter().all(|part| tell.blocking_send((save, part)).is_ok()))
        });
        let mut head = Head { snapshot, parts: 0, from, save: 0 };
        let mut bytes = 0;
        while let Some((save, part)) = parts.recv().await {
            bytes += part.len() as u64;
            let path = self.part(snapshot, head.parts);
            self.commit(vec![Op::Create { path, data: part, acl: self.acl.clone(), kind: CreateKind::Persistent }]).await;
            head.parts += 1;
            head.save = save;
        }
        match reading.await {
            Ok(Ok(())) => {
                let data = serde_json::to_vec(&head).unwrap_or_default();
                self.commit(vec![Op::Set { path: self.reserved.base(), data, version: None }]).await;
                self.remove_old(head).await;
            }
            // The log stays as it is; nothing is lost but room.
            failed => tracing::warn!(link = self.link, ?failed, "no snapshot of what both sides agree on"),
        }
        let mut state = self.state.lock().await;
        state.compacting = false;
        if let Some(known) = &mut state.known {
            known.snapshot_bytes = bytes;
        }
    }

    async fn remove_old(&self, head: Head) {
        let Some((client, _)) = self.writer.borrow().clone() else { return };
        let Ok(names) = client.children(&self.reserved.base()).await else { return };
        let old: Vec<&String> = names.iter().filter(|name| !head.has(name)).collect();
        for names in old.chunks(AT_ONCE) {
            let delete = |name: &&String| Op::Delete { path: format!("{}/{name}", self.reserved.base()), version: None };
            self.commit(names.iter().map(delete).collect()).await;
        }
    }

    /// What stands on B now.
    async fn look(&self) -> Known {
        loop {
            let (client, _) = self.authorized().await;
            let found = async {
                create(&client, &self.reserved.base(), &self.acl).await?;
                client.children(&self.reserved.base()).await
            };
            match found.await {
                Ok(names) => {
                    let log: BTreeSet<u64> = names.iter().filter_map(|name| number(name, 'l')).collect();
                    let next = log.last().map_or(0, |last| last + 1);
                    let snapshot = names.iter().filter_map(|name| number(name, 's')).max().unwrap_or(0);
                    return Known { next, snapshot, log_entries: log.len() as u64, ..Known::default() };
                }
                Err(error) => {
                    tracing::info!(link = self.link, %error, "the checkpoint on B cannot be read, trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Waits for the right to write on B.
    async fn authorized(&self) -> (Client, i32) {
        let mut writer = self.writer.clone();
        loop {
            if let Some(right) = writer.borrow_and_update().clone() {
                return right;
            }
            if writer.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Writes by our right. What went unanswered is written again: each name is used once, so that it can only be ours.
    async fn commit(&self, ops: Vec<Op>) {
        loop {
            let (client, epoch) = self.authorized().await;
            let mut all = vec![Op::Check { path: self.reserved.epoch(), version: epoch }];
            all.extend(ops.iter().cloned());
            match client.multi(&all).await {
                Ok(_) => return,
                // Whoever has taken the epoch writes now; or it is we, again, on another connection.
                Err(MultiError::Operation { index: 0, .. }) => {
                    if self.writer.borrow().as_ref().is_some_and(|(_, now)| *now == epoch) {
                        let mut writer = self.writer.clone();
                        writer.mark_unchanged();
                        if writer.changed().await.is_err() {
                            std::future::pending::<()>().await;
                        }
                    }
                }
                Err(MultiError::Operation { error: Error::NodeExists | Error::NoNode, .. }) => return,
                Err(error) => {
                    tracing::debug!(link = self.link, %error, "the checkpoint is not written yet");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    fn log(&self, number: u64) -> String {
        format!("{}/l{number:012}", self.reserved.base())
    }

    fn part(&self, snapshot: u64, part: u64) -> String {
        format!("{}/s{snapshot:08}-{part:06}", self.reserved.base())
    }
}

impl Head {
    /// Whether a child of `base` still counts.
    fn has(self, name: &str) -> bool {
        match (number(name, 's'), number(name, 'l')) {
            (Some(snapshot), _) => snapshot == self.snapshot,
            (_, Some(log)) => log >= self.from,
            _ => true,
        }
    }
}

/// The number in a name that begins with `kind`.
fn number(name: &str, kind: char) -> Option<u64> {
    name.strip_prefix(kind)?.split('-').next()?.parse().ok()
}

async fn create(client: &Client, path: &str, acl: &[Acl]) -> Result<(), Error> {
    match client.create(path, b"", acl, CreateKind::Persistent).await {
        Ok(_) | Err(Error::NodeExists) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Before a leader begins: sees to it that our disk has the newest of what both sides agree on.
///
/// # Errors
/// When B does not answer, or what stands there cannot be read; then nothing is to be begun.
pub(crate) async fn recover(client: &Client, link: &str, store: &Store, acl: &[Acl]) -> Result<Recovered, String> {
    let reserved = Reserved::of(link);
    let text = |error: &dyn std::fmt::Display| format!("the checkpoint on B: {error}");
    client.sync("/").await.map_err(|error| text(&error))?;
    let stat = match client.get(&reserved.epoch()).await {
        Ok((_, stat)) => stat,
        Err(Error::NoNode) => return Ok(Recovered::Nothing),
        Err(error) => return Err(text(&error)),
    };
    let (own, kept) = (store.epoch(link).map_err(|error| text(&error))?, store.clone());
    let known = own.is_some_and(|(version, zxid)| version == stat.version && zxid == stat.mzxid);
    // Our newest is newer than B's: it has lost what we have seen. That is for the core to tell.
    let lost = own.is_some_and(|(_, zxid)| zxid > stat.mzxid);
    let names = match client.children(&reserved.base()).await {
        Ok(names) => names,
        Err(Error::NoNode) => return Ok(if own.is_some() { Recovered::Own } else { Recovered::Nothing }),
        Err(error) => return Err(text(&error)),
    };
    let (data, _) = client.get(&reserved.base()).await.map_err(|error| text(&error))?;
    let head: Head = if data.is_empty() { Head::default() } else { serde_json::from_slice(&data).map_err(|error| text(&error))? };
    let (mut parts, mut log): (Vec<String>, Vec<String>) =
        names.into_iter().filter(|name| head.has(name)).partition(|name| name.starts_with('s'));
    parts.sort();
    log.sort();
    if parts.len() as u64 != head.parts {
        return Err(text(&format!("{} parts of {} are there", parts.len(), head.parts)));
    }
    if known || lost {
        // What was on its way to B when we ended is on our disk alone.
        let newest = match log.last() {
            Some(last) => {
                read(client, &reserved, std::slice::from_ref(last)).await.map_err(|error| text(&error))?[0].told.map(|told| told.save)
            }
            None => Some(head.save),
        };
        let saved = store.saves(link).map_err(|error| text(&error))?;
        if known && newest != Some(saved) {
            write_all(client, link, store, acl, head).await.map_err(|error| text(&error))?;
        }
        return Ok(Recovered::Own);
    }
    store.forget_pairs(link).map_err(|error| text(&error))?;
    parts.append(&mut log);
    for names in parts.chunks(AT_ONCE) {
        let entries = read(client, &reserved, names).await.map_err(|error| text(&error))?;
        let (kept, link) = (kept.clone(), link.to_owned());
        let adopted = tokio::task::spawn_blocking(move || entries.iter().try_for_each(|entry| kept.adopt(&link, entry)));
        adopted.await.map_err(|error| text(&error))?.map_err(|error| text(&error))?;
    }
    Ok(Recovered::Others(store.count(link).map_err(|error| text(&error))?))
}

async fn read(client: &Client, reserved: &Reserved, names: &[String]) -> Result<Vec<Entry>, String> {
    let reads: Vec<Read> =
        names.iter().map(|name| Read { path: format!("{}/{name}", reserved.base()), children: false, acl: false }).collect();
    let nodes = client.read(&reads).await.map_err(|error| error.to_string())?;
    let decode = |(name, node): (&String, Result<zk::NodeRead, Error>)| {
        let node = node.map_err(|error| format!("{name}: {error}"))?;
        Entry::decode(&node.data).ok_or_else(|| format!("{name} is no entry"))
    };
    names.iter().zip(nodes).map(decode).collect()
}

/// Replaces what stands on B by what our disk has, before anybody leads. Of two who try, one succeeds.
async fn write_all(client: &Client, link: &str, store: &Store, acl: &[Acl], before: Head) -> Result<(), String> {
    let reserved = Reserved::of(link);
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let (_, stat) = client.get(&reserved.base()).await.map_err(|error| text(&error))?;
    let names = client.children(&reserved.base()).await.map_err(|error| text(&error))?;
    let snapshot = names.iter().filter_map(|name| number(name, 's')).max().unwrap_or(before.snapshot) + 1;
    let from = names.iter().filter_map(|name| number(name, 'l')).max().map_or(before.from, |last| last + 1);
    let (tell, mut parts) = mpsc::channel(2);
    let (store, id) = (store.clone(), link.to_owned());
    let reading = tokio::task::spawn_blocking(move || {
        store.stream(&id, |entry, save| entry::encode(&entry).into_iter().all(|part| tell.blocking_send((save, part)).is_ok()))
    });
    let mut head = Head { snapshot, parts: 0, from, save: 0 };
    while let Some((save, part)) = parts.recv().await {
        let path = format!("{}/s{snapshot:08}-{:06}", reserved.base(), head.parts);
        client.create(&path, &part, acl, CreateKind::Persistent).await.map_err(|error| text(&error))?;
        head.parts += 1;
        head.save = save;
    }
    reading.await.map_err(|error| text(&error))?.map_err(|error| text(&error))?;
    let data = serde_json::to_vec(&head).map_err(|error| text(&error))?;
    client.set(&reserved.base(), &data, Some(stat.version)).await.map_err(|error| text(&error))?;
    for name in names.iter().filter(|name| !head.has(name)) {
        match client.delete(&format!("{}/{name}", reserved.base()), None).await {
            Ok(()) | Err(Error::NoNode) => {}
            Err(error) => return Err(text(&error)),
        }
    }
    Ok(())
}
