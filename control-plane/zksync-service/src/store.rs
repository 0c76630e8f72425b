//! What survives a restart: links, pairs, conflicts, resolutions, migrations. One file, written through transactions; and beside it one for whole
//! values of resolutions, which the rest can do without.

mod file;
mod rows;
mod values;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use redb::{Database, ReadableTable as _, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zksync::{Base, Conflict, Intent, Key, PerSide, Remembered, Resolution, Tombstone};

use crate::checkpoint::entry::{Entry, Told};
use file::{DataFile, Open};
use rows::{data_before, keep, keep_data, known_of, last_resolution, own_of, parse, recorded, render, tombstone};
use values::Values;

const DOCUMENTS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("documents");
const BASES: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("bases");
/// Data that both sides agree on, where an operator decides conflicts. They stay on this disk, but for those of open conflicts.
const BASE_DATA: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("base_data");
/// What is left of pairs that are gone.
const TOMBSTONES: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("tombstones");
const APPLIED: TableDefinition<'_, &str, (u64, u64)> = TableDefinition::new("applied");
const CONFLICTS: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("conflicts");
/// The newest transaction of ours on each side that was answered, and whether deletes are held back.
const OWN: TableDefinition<'_, &str, (i64, i64, bool)> = TableDefinition::new("own");
/// Until when everything on each side is known to have been there: milliseconds since 1970.
const KNOWN: TableDefinition<'_, &str, (u64, u64)> = TableDefinition::new("known");
const SAVES: TableDefinition<'_, &str, u64> = TableDefinition::new("saves");
const EPOCHS: TableDefinition<'_, &str, (i32, i64)> = TableDefinition::new("epochs");
const RESOLUTIONS: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("resolutions");

const INTENTS: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("intents");

/// Bytes of the newest resolutions that go to whoever leads next: what they had is kept there as well.
const RESOLUTIONS_SHARED: usize = 4 * 1024 * 1024;
/// Resolutions kept of a link; the oldest go.
pub const RESOLUTIONS_MAX: u64 = 10_000;

/// Bytes of memory for whole values that were written or read lately: hardly anybody reads one twice.
const VALUES_CACHE: usize = 8 * 1024 * 1024;

/// Number of a save: each has one more than the one before.
pub type Save = u64;

/// Pairs that are given at once by [`Store::stream`].
const STREAMED: usize = 2_000;

/// The store. Cheap to clone. Calls block.
#[derive(Clone, Debug)]
pub struct Store {
    file: Arc<DataFile>,
    values: Arc<Values>,
    shared: Arc<OnceLock<Arc<dyn Shared>>>,
}

/// Where control planes that stand in for each other keep what the next one must know: links, migrations, reports. Only the leader can write.
/// Calls block, and need a thread that may.
pub trait Shared: Send + Sync + std::fmt::Debug {
    /// Everything that is there.
    ///
    /// # Errors
    /// When it cannot be read.
    fn load(&self) -> Result<Vec<(String, Vec<u8>)>, String>;

    /// Keeps this; none to forget it.
    ///
    /// # Errors
    /// When it was not written, because another one leads or nobody answers.
    fn put(&self, name: &str, value: Option<Vec<u8>>) -> Result<(), String>;
}

/// Says that what is shared was begun: from then on it counts, even when it is empty.
const BEGUN: &str = "begun";

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be read or written.
    #[error("the store of zksync cannot be used")]
    Unavailable(#[source] Box<redb::Error>),
    /// What control planes share cannot be read or written.
    #[error("what the control planes share cannot be used: {0}")]
    Shared(String),
    /// Something in it is not what this program writes.
    #[error("the store of zksync has something else than expected at {place}: {detail}")]
    Damaged {
        /// Where.
        place: String,
        /// What is wrong.
        detail: String,
    },
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        StoreError::Unavailable(Box::new(error.into()))
    }
}

/// What a save keeps, all or nothing.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Pairs; none for one that is none any more.
    pub bases: BTreeMap<Key, Option<Base>>,
    /// Data of pairs; none where they are not to be kept.
    pub base_data: BTreeMap<Key, Option<Arc<[u8]>>>,
    /// Pairs that are gone; none for one that is there again, or is not remembered any more.
    pub tombstones: BTreeMap<Key, Option<Tombstone>>,
    /// Open conflicts; none for one that is closed.
    pub conflicts: BTreeMap<u64, Option<Conflict>>,
    /// Resolutions that are about to be carried out; none for one that has been, or will not be.
    pub intents: BTreeMap<u64, Option<Intent>>,
    /// Resolutions that were carried out.
    pub resolved: Vec<Resolution>,
    /// The last transaction of each side that is in the pairs.
    pub applied: PerSide<u64>,
    /// The newest transaction of ours on each side that was answered.
    pub own: PerSide<i64>,
    /// Until when everything on each side is known to have been there: milliseconds since 1970.
    pub known_ms: PerSide<u64>,
    /// Deletes are held back, and nobody has approved them.
    pub braked: bool,
}

impl Store {
    /// Opens the store in `directory`, and makes it if there is none.
    ///
    /// # Errors
    /// When it cannot be used, e.g. because another process does.
    pub fn open(directory: &Path) -> Result<Store, StoreError> {
        std::fs::create_dir_all(directory).map_err(redb::Error::Io)?;
        let (file, values) = (directory.join("zksync.redb"), directory.join("zksync-values.redb"));
        let values: Open = Box::new(move || Database::builder().set_cache_size(VALUES_CACHE).create(&values));
        let disk = directory.to_owned();
        // Where it is not told it is found out by writing.
        let free = move || rustix::fs::statvfs(&disk).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        Store::over(Box::new(move || Database::create(&file)), Values::new(values, Box::new(free)))
    }

    fn over(file: Open, values: Values) -> Result<Store, StoreError> {
        let file = DataFile::new(file);
        file.write(|transaction| {
            transaction.open_table(DOCUMENTS)?;
            transaction.open_table(BASES)?;
            transaction.open_table(BASE_DATA)?;
            transaction.open_table(APPLIED)?;
            transaction.open_table(TOMBSTONES)?;
            transaction.open_table(KNOWN)?;
            transaction.open_table(CONFLICTS)?;
            transaction.open_table(SAVES)?;
            transaction.open_table(OWN)?;
            transaction.open_table(EPOCHS)?;
            transaction.open_table(RESOLUTIONS)?;
            transaction.open_table(INTENTS)?;
            values::remove_before(transaction)
        })?;
        Ok(Store { file: Arc::new(file), values: Arc::new(values), shared: Arc::default() })
    }

    /// Takes over what control planes share, and keeps links, migrations and reports there from now on. What is here and was never shared
    /// is shared now.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn share(&self, shared: Arc<dyn Shared>) -> Result<(), StoreError> {
        let there = shared.load().map_err(StoreError::Shared)?;
        if there.iter().any(|(name, _)| name == BEGUN) {
            self.file.write(|transaction| {
                let mut table = transaction.open_table(DOCUMENTS)?;
                table.retain(|_, _| false)?;
                for (name, value) in &there {
                    if let Some((kind, name)) = name.split_once('/') {
                        table.insert((kind, name), value.as_slice())?;
                    }
                }
                Ok(())
            })?;
        } else {
            self.file.read(|transaction| {
                for entry in transaction.open_table(DOCUMENTS)?.range(("", "")..)? {
                    let (key, value) = entry?;
                    let (kind, name) = key.value();
                    shared.put(&format!("{kind}/{name}"), Some(value.value().to_vec())).map_err(StoreError::Shared)?;
                }
                Ok(())
            })?;
            shared.put(BEGUN, Some(Vec::new())).map_err(StoreError::Shared)?;
        }
        // There is one election in the life of a process.
        drop(self.shared.set(shared));
        Ok(())
    }

    /// All documents of a kind, by name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn documents<T: DeserializeOwned>(&self, kind: &str) -> Result<BTreeMap<String, T>, StoreError> {
        self.file.read(|transaction| {
            let table = transaction.open_table(DOCUMENTS)?;
            let mut found = BTreeMap::new();
            for entry in table.range((kind, "")..)? {
                let (key, value) = entry?;
                let (of, name) = key.value();
                if of != kind {
                    break;
                }
                found.insert(name.to_owned(), parse(&format!("{kind} {name}"), value.value())?);
            }
            Ok(found)
        })
    }

    /// Keeps a document; none to forget it.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn put<T: Serialize>(&self, kind: &str, name: &str, document: Option<&T>) -> Result<(), StoreError> {
        let document = document.map(render).transpose()?;
        if let Some(shared) = self.shared.get() {
            shared.put(&format!("{kind}/{name}"), document.clone()).map_err(StoreError::Shared)?;
        }
        self.file.write(|transaction| {
            let mut table = transaction.open_table(DOCUMENTS)?;
            match document {
                Some(document) => table.insert((kind, name), document.as_slice())?,
                None => table.remove((kind, name))?,
            };
            Ok(())
        })
    }

    /// What a link begins with.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn load(&self, link: &str) -> Result<Remembered, StoreError> {
        self.file.read(|transaction| {
            let mut kept = Remembered::default();
            for entry in transaction.open_table(BASES)?.range((link, "")..)? {
                let (key, value) = entry?;
                let (of, path) = key.value();
                if of != link {
                    break;
                }
                let base = Base::decode(value.value());
                let base = base.ok_or_else(|| StoreError::Damaged { place: format!("{link} {path}"), detail: "no base".to_owned() })?;
                kept.bases.push((path.into(), base));
            }
            if let Some(applied) = transaction.open_table(APPLIED)?.get(link)? {
                let (a, b) = applied.value();
                kept.applied = PerSide { a, b };
            }
            let (own, braked) = own_of(&transaction.open_table(OWN)?, link)?;
            (kept.own, kept.braked) = (own, braked);
            kept.known_ms = known_of(&transaction.open_table(KNOWN)?, link)?;
            for entry in transaction.open_table(TOMBSTONES)?.range((link, "")..)? {
                let (key, value) = entry?;
                let (of, path) = key.value();
                if of != link {
                    break;
                }
                kept.tombstones.push((path.into(), tombstone(link, path, value.value())?));
            }
            for entry in transaction.open_table(CONFLICTS)?.range((link, 0)..=(link, u64::MAX))? {
                let (key, value) = entry?;
                let conflict: Conflict = parse(&format!("{link} conflict {}", key.value().1), value.value())?;
                // The link does not need them, and there may be many.
                kept.conflicts.push(Conflict { base_data: None, ..conflict });
            }
            for entry in transaction.open_table(INTENTS)?.range((link, 0)..=(link, u64::MAX))? {
                let (key, value) = entry?;
                kept.intents.insert(key.value().1, parse(&format!("{link} intent {}", key.value().1), value.value())?);
            }
            Ok(kept)
        })
    }

    /// Keeps what has changed, all or nothing; gives it back as it goes to whoever leads next.
    pub(crate) fn save(&self, link: &str, changes: Changes) -> Result<Entry, StoreError> {
        let Changes { bases, base_data, tombstones, mut conflicts, mut intents, mut resolved, applied, own, known_ms, braked } = changes;
        // Before the record that needs them: what is replaced once that is safe is known then.
        let intended = intents.values_mut().flatten().map(|intent| &mut intent.resolution);
        let whole: Vec<Arc<[u8]>> = intended.chain(&mut resolved).flat_map(Resolution::shorten).collect();
        self.values.keep(link, &whole);
        self.file.write(|transaction| {
            let save = transaction.open_table(SAVES)?.get(link)?.map_or(0, |last| last.value()) + 1;
            let last = last_resolution(transaction, link)?;
            keep_data(transaction, link, base_data)?;
            for (id, conflict) in &mut conflicts {
                if let Some(conflict) = conflict {
                    conflict.base_data = data_before(transaction, link, *id, &conflict.key, &bases)?;
                }
            }
            let resolutions = (last + 1..).zip(resolved).collect();
            let told = Told { applied, save, own, known_ms, braked };
            let entry = Entry { bases, tombstones, conflicts, intents, resolutions, told: Some(told) };
            keep(transaction, link, &entry)?;
            Ok(entry)
        })
    }

    /// Keeps what another leader has left.
    pub(crate) fn adopt(&self, link: &str, entry: &Entry) -> Result<(), StoreError> {
        self.file.write(|transaction| keep(transaction, link, entry))
    }

    /// Gives everything about a link, as it was at one moment, piece by piece; ends early when `take` does not want more.
    pub(crate) fn stream(&self, link: &str, mut take: impl FnMut(Entry, Save) -> bool) -> Result<(), StoreError> {
        self.file.read(|transaction| {
            let save = transaction.open_table(SAVES)?.get(link)?.map_or(0, |last| last.value());
            let mut bases = BTreeMap::new();
            for entry in transaction.open_table(BASES)?.range((link, "")..)? {
                let (key, value) = entry?;
                let (of, path) = key.value();
                if of != link {
                    break;
                }
                let base = Base::decode(value.value());
                let base = base.ok_or_else(|| StoreError::Damaged { place: format!("{link} {path}"), detail: "no base".to_owned() })?;
                bases.insert(path.into(), Some(base));
                // Nothing is said to be applied before all of it was given.
                if bases.len() >= STREAMED && !take(Entry { bases: std::mem::take(&mut bases), ..Entry::default() }, save) {
                    return Ok(());
                }
            }
            let mut tombstones = BTreeMap::new();
            for entry in transaction.open_table(TOMBSTONES)?.range((link, "")..)? {
                let (key, value) = entry?;
                let (of, path) = key.value();
                if of != link {
                    break;
                }
                tombstones.insert(path.into(), Some(tombstone(link, path, value.value())?));
                if tombstones.len() >= STREAMED && !take(Entry { tombstones: std::mem::take(&mut tombstones), ..Entry::default() }, save) {
                    return Ok(());
                }
            }
            let mut entry = Entry { bases, tombstones, ..Entry::default() };
            for found in transaction.open_table(CONFLICTS)?.range((link, 0)..=(link, u64::MAX))? {
                let (key, value) = found?;
                let id = key.value().1;
                entry.conflicts.insert(id, Some(parse(&format!("{link} conflict {id}"), value.value())?));
            }
            for found in transaction.open_table(INTENTS)?.range((link, 0)..=(link, u64::MAX))? {
                let (key, value) = found?;
                let id = key.value().1;
                entry.intents.insert(id, Some(parse(&format!("{link} intent {id}"), value.value())?));
            }
            let mut bytes = 0;
            for found in transaction.open_table(RESOLUTIONS)?.range((link, 0)..=(link, u64::MAX))?.rev() {
                let (key, value) = found?;
                bytes += value.value().len();
                if bytes > RESOLUTIONS_SHARED {
                    break;
                }
                let number = key.value().1;
                entry.resolutions.insert(number, recorded(link, number, value.value())?);
            }
            let applied = transaction.open_table(APPLIED)?.get(link)?.map_or((0, 0), |applied| applied.value());
            let (own, braked) = own_of(&transaction.open_table(OWN)?, link)?;
            let known_ms = known_of(&transaction.open_table(KNOWN)?, link)?;
            entry.told = Some(Told { applied: PerSide { a: applied.0, b: applied.1 }, save, own, known_ms, braked });
            take(entry, save);
            Ok(())
        })
    }

    /// The last save of a link.
    pub(crate) fn saves(&self, link: &str) -> Result<Save, StoreError> {
        self.file.read(|transaction| Ok(transaction.open_table(SAVES)?.get(link)?.map_or(0, |last| last.value())))
    }

    /// Pairs of a link.
    pub(crate) fn count(&self, link: &str) -> Result<u64, StoreError> {
        self.file.read(|transaction| {
            let table = transaction.open_table(BASES)?;
            let mut count = 0;
            for entry in table.range((link, "")..)? {
                if entry?.0.value().0 != link {
                    break;
                }
                count += 1;
            }
            Ok(count)
        })
    }

    /// The epoch of B that we took last: its version, and the transaction that took it.
    pub(crate) fn epoch(&self, link: &str) -> Result<Option<(i32, i64)>, StoreError> {
        self.file.read(|transaction| Ok(transaction.open_table(EPOCHS)?.get(link)?.map(|epoch| epoch.value())))
    }

    /// Notes that we have taken the epoch of B.
    pub(crate) fn note_epoch(&self, link: &str, version: i32, zxid: i64) -> Result<(), StoreError> {
        self.file.write(|transaction| {
            transaction.open_table(EPOCHS)?.insert(link, (version, zxid))?;
            Ok(())
        })
    }

    /// Records how a conflict was decided; gives back the number of the record.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn record(&self, link: &str, mut resolution: Resolution) -> Result<u64, StoreError> {
        self.values.keep(link, &resolution.shorten());
        self.file.write(|transaction| {
            let number = last_resolution(transaction, link)? + 1;
            keep(transaction, link, &Entry { resolutions: BTreeMap::from([(number, resolution)]), ..Entry::default() })?;
            Ok(number)
        })
    }

    /// Takes a record back of what did not happen after all.
    pub(crate) fn unrecord(&self, link: &str, number: u64) -> Result<(), StoreError> {
        self.file.write(|transaction| {
            transaction.open_table(RESOLUTIONS)?.remove((link, number))?;
            Ok(())
        })
    }

    /// How conflicts were decided, the newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn resolutions(&self, link: &str, prefix: &str, limit: usize) -> Result<Vec<(u64, Resolution)>, StoreError> {
        self.file.read(|transaction| {
            let table = transaction.open_table(RESOLUTIONS)?;
            let mut found = Vec::new();
            for entry in table.range((link, 0)..=(link, u64::MAX))?.rev() {
                let (key, value) = entry?;
                let number = key.value().1;
                let resolution = recorded(link, number, value.value())?;
                if resolution.key.starts_with(prefix) {
                    found.push((number, resolution));
                }
                if found.len() >= limit {
                    break;
                }
            }
            Ok(found)
        })
    }

    /// How one conflict was decided, with the whole values, as far as this disk has them.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn resolution(&self, link: &str, number: u64) -> Result<Option<Resolution>, StoreError> {
        let found = self.file.read(|transaction| {
            let found = transaction.open_table(RESOLUTIONS)?.get((link, number))?;
            found.map(|value| recorded(link, number, value.value())).transpose()
        })?;
        let Some(mut resolution) = found else { return Ok(None) };
        for value in [&mut resolution.sides.a, &mut resolution.sides.b].into_iter().flatten().filter(|value| value.cut) {
            if let Some(hash) = value.hash
                && let Some(data) = self.values.find(link, &hash)
            {
                value.complete(&data);
            }
        }
        Ok(Some(resolution))
    }

    /// The data that both sides last agreed on before a conflict, which is open; none when they are not known.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn base_data(&self, link: &str, conflict: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.file.read(|transaction| {
            let found = transaction.open_table(CONFLICTS)?.get((link, conflict))?;
            let found = found.map(|value| parse::<Conflict>(&format!("{link} conflict {conflict}"), value.value())).transpose()?;
            Ok(found.and_then(|conflict| conflict.base_data))
        })
    }

    /// Forgets everything about a link but its reports.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn forget(&self, link: &str) -> Result<(), StoreError> {
        self.forget_pairs(link)?;
        self.values.forget(link);
        self.file.write(|transaction| {
            transaction.open_table(RESOLUTIONS)?.retain(|(of, _), _| of != link)?;
            transaction.open_table(EPOCHS)?.remove(link)?;
            Ok(())
        })
    }

    /// Whole values of resolutions of a link that could not be kept since this process began: their records have the beginnings.
    pub(crate) fn values_unkept(&self, link: &str) -> u64 {
        self.values.unkept(link)
    }

    /// Forgets what both sides agreed on, and open conflicts.
    pub(crate) fn forget_pairs(&self, link: &str) -> Result<(), StoreError> {
        self.file.write(|transaction| {
            transaction.open_table(BASES)?.retain(|(of, _), _| of != link)?;
            transaction.open_table(BASE_DATA)?.retain(|(of, _), _| of != link)?;
            transaction.open_table(CONFLICTS)?.retain(|(of, _), _| of != link)?;
            transaction.open_table(INTENTS)?.retain(|(of, _), _| of != link)?;
            transaction.open_table(TOMBSTONES)?.retain(|(of, _), _| of != link)?;
            transaction.open_table(APPLIED)?.remove(link)?;
            transaction.open_table(KNOWN)?.remove(link)?;
            transaction.open_table(OWN)?.remove(link)?;
            transaction.open_table(SAVES)?.remove(link)?;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests;
