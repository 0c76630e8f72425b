//! What survives a restart: links, pairs, conflicts, resolutions, migrations. One file, written through transactions.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zksync::{Base, Conflict, Key, PerSide, Resolution};

const DOCUMENTS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("documents");
const BASES: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("bases");
const APPLIED: TableDefinition<'_, &str, (u64, u64)> = TableDefinition::new("applied");
const CONFLICTS: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("conflicts");
const RESOLUTIONS: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("resolutions");

/// Resolutions kept of a link; the oldest go.
pub const RESOLUTIONS_MAX: u64 = 10_000;

/// The store. Cheap to clone. Calls block.
#[derive(Clone, Debug)]
pub struct Store {
    database: Arc<Database>,
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be read or written.
    #[error("the store of zksync cannot be used")]
    Unavailable(#[source] Box<redb::Error>),
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

/// What a link begins with.
#[derive(Debug, Default)]
pub struct Kept {
    /// Pairs.
    pub bases: Vec<(Key, Base)>,
    /// The last transactions that are in them.
    pub applied: PerSide<u64>,
    /// Open conflicts.
    pub conflicts: Vec<Conflict>,
}

impl Store {
    /// Opens the store in `directory`, and makes it if there is none.
    ///
    /// # Errors
    /// When it cannot be used, e.g. because another process does.
    pub fn open(directory: &Path) -> Result<Store, StoreError> {
        std::fs::create_dir_all(directory).map_err(redb::Error::Io)?;
        let database = Database::create(directory.join("zksync.redb"))?;
        let transaction = database.begin_write()?;
        transaction.open_table(DOCUMENTS)?;
        transaction.open_table(BASES)?;
        transaction.open_table(APPLIED)?;
        transaction.open_table(CONFLICTS)?;
        transaction.open_table(RESOLUTIONS)?;
        transaction.commit()?;
        Ok(Store { database: Arc::new(database) })
    }

    /// All documents of a kind, by name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn documents<T: DeserializeOwned>(&self, kind: &str) -> Result<BTreeMap<String, T>, StoreError> {
        let transaction = self.database.begin_read()?;
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
    }

    /// Keeps a document; none to forget it.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn put<T: Serialize>(&self, kind: &str, name: &str, document: Option<&T>) -> Result<(), StoreError> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(DOCUMENTS)?;
            match document {
                Some(document) => {
                    table.insert((kind, name), render(document)?.as_slice())?;
                }
                None => {
                    table.remove((kind, name))?;
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// What a link begins with.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn load(&self, link: &str) -> Result<Kept, StoreError> {
        let transaction = self.database.begin_read()?;
        let mut kept = Kept::default();
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
        for entry in transaction.open_table(CONFLICTS)?.range((link, 0)..=(link, u64::MAX))? {
            let (key, value) = entry?;
            kept.conflicts.push(parse(&format!("{link} conflict {}", key.value().1), value.value())?);
        }
        Ok(kept)
    }

    /// Keeps what has changed, all or nothing.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn save(
        &self,
        link: &str,
        bases: &BTreeMap<Key, Option<Base>>,
        conflicts: &BTreeMap<u64, Option<Conflict>>,
        applied: PerSide<u64>,
    ) -> Result<(), StoreError> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(BASES)?;
            for (key, base) in bases {
                match base {
                    Some(base) => {
                        table.insert((link, key.as_ref()), base.encode().as_slice())?;
                    }
                    None => {
                        table.remove((link, key.as_ref()))?;
                    }
                }
            }
            let mut table = transaction.open_table(CONFLICTS)?;
            for (id, conflict) in conflicts {
                match conflict {
                    Some(conflict) => {
                        table.insert((link, *id), render(conflict)?.as_slice())?;
                    }
                    None => {
                        table.remove((link, *id))?;
                    }
                }
            }
            transaction.open_table(APPLIED)?.insert(link, (applied.a, applied.b))?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Records how a conflict was decided.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn record(&self, link: &str, resolutions: &[Resolution]) -> Result<(), StoreError> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(RESOLUTIONS)?;
            let range = |table: &redb::Table<'_, (&str, u64), &[u8]>| -> Result<(u64, u64), StoreError> {
                let mut range = table.range((link, 0)..=(link, u64::MAX))?;
                let first = range.next().transpose()?.map_or(1, |(key, _)| key.value().1);
                let last = range.next_back().transpose()?.map_or(first, |(key, _)| key.value().1);
                Ok((first, last))
            };
            let (mut first, mut last) = range(&table)?;
            for resolution in resolutions {
                last += 1;
                table.insert((link, last), render(resolution)?.as_slice())?;
                while last - first >= RESOLUTIONS_MAX {
                    table.remove((link, first))?;
                    first += 1;
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// How conflicts were decided, the newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn resolutions(&self, link: &str, prefix: &str, limit: usize) -> Result<Vec<(u64, Resolution)>, StoreError> {
        let transaction = self.database.begin_read()?;
        let table = transaction.open_table(RESOLUTIONS)?;
        let mut found = Vec::new();
        for entry in table.range((link, 0)..=(link, u64::MAX))?.rev() {
            let (key, value) = entry?;
            let number = key.value().1;
            let resolution: Resolution = parse(&format!("{link} resolution {number}"), value.value())?;
            if resolution.key.starts_with(prefix) {
                found.push((number, resolution));
            }
            if found.len() >= limit {
                break;
            }
        }
        Ok(found)
    }

    /// Forgets everything about a link but its reports.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn forget(&self, link: &str) -> Result<(), StoreError> {
        let transaction = self.database.begin_write()?;
        {
            transaction.open_table(BASES)?.retain(|(of, _), _| of != link)?;
            transaction.open_table(CONFLICTS)?.retain(|(of, _), _| of != link)?;
            transaction.open_table(RESOLUTIONS)?.retain(|(of, _), _| of != link)?;
            transaction.open_table(APPLIED)?.remove(link)?;
        }
        transaction.commit()?;
        Ok(())
    }
}

fn parse<T: DeserializeOwned>(place: &str, bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| StoreError::Damaged { place: place.to_owned(), detail: error.to_string() })
}

fn render<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::Damaged { place: "a document".to_owned(), detail: error.to_string() })
}
