use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use scheduler::words::{Loaded, Record};

use super::{Entry, Store, StoreError, decode, encode};

const RECORDS: TableDefinition<'_, &str, &str> = TableDefinition::new("marathon");
/// Grows when older programs could not read what newer ones write.
const FORMAT: (&str, &str) = ("about/format", "1");

/// A store in one file, written through transactions: after a crash it is as it was after the last one.
#[derive(Debug)]
pub struct DiskStore {
    database: Database,
}

impl DiskStore {
    /// Opens the file at `path`, and makes it if there is none. An old one is never made anew.
    ///
    /// # Errors
    /// When it is in use, damaged, out of reach, or of a format that is not known.
    pub fn open(path: &Path) -> Result<DiskStore, StoreError> {
        // The library asserts what it reads; a damaged file may break an assertion instead of being an error.
        catch_unwind(AssertUnwindSafe(|| DiskStore::open_file(path)))
            .unwrap_or_else(|_| Err(StoreError::Damaged(format!("{} is no store", path.display()))))
    }

    fn open_file(path: &Path) -> Result<DiskStore, StoreError> {
        let database = Database::create(path).map_err(|error| unavailable(error.into()))?;
        let format = || -> Result<Option<String>, redb::Error> {
            let transaction = database.begin_write()?;
            let found = {
                let mut table = transaction.open_table(RECORDS)?;
                let found = table.get(FORMAT.0)?.map(|found| found.value().to_owned());
                if found.is_none() {
                    table.insert(FORMAT.0, FORMAT.1)?;
                }
                found
            };
            transaction.commit()?;
            Ok(found)
        };
        match format().map_err(unavailable)? {
            Some(other) if other != FORMAT.1 => {
                Err(StoreError::Damaged(format!("it has the format {other}, and this program knows {}", FORMAT.1)))
            }
            _ => Ok(DiskStore { database }),
        }
    }

    fn entries(&self) -> Result<Vec<(String, String)>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let table = transaction.open_table(RECORDS)?;
        let mut entries = Vec::new();
        for entry in table.iter()? {
            let (key, text) = entry?;
            entries.push((key.value().to_owned(), text.value().to_owned()));
        }
        Ok(entries)
    }

    fn put(&self, entries: Vec<Entry>) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(RECORDS)?;
            for entry in entries {
                match entry.text {
                    Some(text) => table.insert(entry.key.as_str(), text.as_str())?,
                    None => table.remove(entry.key.as_str())?,
                };
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

impl Store for DiskStore {
    fn load(&self) -> Result<Loaded, StoreError> {
        decode(self.entries().map_err(unavailable)?.into_iter())
    }

    fn write(&self, records: &[Record]) -> Result<(), StoreError> {
        self.put(records.iter().flat_map(encode).collect()).map_err(unavailable)
    }
}

fn unavailable(error: redb::Error) -> StoreError {
    StoreError::Unavailable(Box::new(error))
}
