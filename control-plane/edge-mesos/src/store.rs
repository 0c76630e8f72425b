//! The registry: what outlives the master, as named records. A trait, because it can lie in a file here or in an ensemble elsewhere.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use master::Record;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("mesos_registry");
const ABOUT: TableDefinition<'_, &str, &str> = TableDefinition::new("about");
const FORMAT: &str = "format";
/// Grows when older programs could not read what newer ones write.
const FORMAT_VERSION: &str = "1";

/// Where the registry is kept. Calls block; make them where that is allowed.
pub trait RegistryStore: Debug + Send + Sync + 'static {
    /// All records, in any order.
    ///
    /// # Errors
    /// When they cannot be read.
    fn load(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// Puts and deletes, all or nothing. Durable when it returns.
    ///
    /// # Errors
    /// When nothing was written, or when it is not known whether something was.
    fn write(&self, records: &[Record]) -> Result<(), StoreError>;

    /// How many bytes all records have together; for people.
    fn size_bytes(&self) -> u64;
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[error("the registry {path} cannot be read or written: {detail}")]
pub struct StoreError {
    /// Where it is.
    pub path: PathBuf,
    /// What is wrong with it.
    pub detail: String,
}

/// A registry in one file, written through transactions.
#[derive(Debug)]
pub struct DiskRegistry {
    database: Database,
    path: PathBuf,
}

impl DiskRegistry {
    /// Opens the registry in `directory`, and makes it if there is none.
    ///
    /// # Errors
    /// When the file is in use, damaged, of a newer format or out of reach. It is never deleted or made anew.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join("mesos.redb");
        let failed = |detail: String| StoreError { path: path.clone(), detail };
        std::fs::create_dir_all(directory).map_err(|error| failed(error.to_string()))?;
        // The library asserts what it reads; a damaged file may break an assertion instead of being an error.
        let opened = std::panic::catch_unwind(|| -> Result<(Database, String), redb::Error> {
            let database = Database::create(&path)?;
            let transaction = database.begin_write()?;
            let format = {
                transaction.open_table(RECORDS)?;
                let mut about = transaction.open_table(ABOUT)?;
                let found = about.get(FORMAT)?.map(|it| it.value().to_owned());
                match found {
                    Some(found) => found,
                    None => {
                        about.insert(FORMAT, FORMAT_VERSION)?;
                        FORMAT_VERSION.to_owned()
                    }
                }
            };
            transaction.commit()?;
            Ok((database, format))
        });
        match opened {
            Ok(Ok((database, format))) if format == FORMAT_VERSION => Ok(DiskRegistry { database, path }),
            Ok(Ok((_, format))) => Err(failed(format!("it has the format {format}, and this program knows {FORMAT_VERSION}"))),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed("it is damaged or is no store".to_owned())),
        }
    }

    fn failed(&self, error: impl std::fmt::Display) -> StoreError {
        StoreError { path: self.path.clone(), detail: error.to_string() }
    }

    fn read_all(&self) -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
        let table = self.database.begin_read()?.open_table(RECORDS)?;
        let mut records = Vec::new();
        for entry in table.iter()? {
            let (key, value) = entry?;
            records.push((key.value().to_owned(), value.value().to_owned()));
        }
        Ok(records)
    }

    fn write_all(&self, records: &[Record]) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(RECORDS)?;
            for record in records {
                match &record.value {
                    Some(value) => table.insert(record.key.as_str(), value.as_slice())?,
                    None => table.remove(record.key.as_str())?,
                };
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

impl RegistryStore for DiskRegistry {
    fn load(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.read_all().map_err(|error| self.failed(error))
    }

    fn write(&self, records: &[Record]) -> Result<(), StoreError> {
        self.write_all(records).map_err(|error| self.failed(error))
    }

    fn size_bytes(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |it| it.len())
    }
}

/// A registry that is gone with the process: for tests and for trying things out (`--registry=in_memory`).
#[derive(Debug, Default)]
pub struct MemoryRegistry(Mutex<BTreeMap<String, Vec<u8>>>);

impl RegistryStore for MemoryRegistry {
    fn load(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(records.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn write(&self, records: &[Record]) -> Result<(), StoreError> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for record in records {
            match &record.value {
                Some(value) => all.insert(record.key.clone(), value.clone()),
                None => all.remove(&record.key),
            };
        }
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        records.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &[u8]) -> Record {
        Record { key: key.to_owned(), value: Some(value.to_vec()) }
    }

    #[test]
    fn what_was_written_is_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let store = DiskRegistry::open(directory.path()).unwrap();
        store.write(&[put("agents/a", b"1"), put("agents/b", b"2")]).unwrap();
        store.write(&[Record { key: "agents/a".to_owned(), value: None }, put("weights/r", b"3")]).unwrap();
        assert!(DiskRegistry::open(directory.path()).unwrap_err().to_string().contains("mesos.redb"));
        drop(store);
        let store = DiskRegistry::open(directory.path()).unwrap();
        assert_eq!(store.load().unwrap(), [("agents/b".to_owned(), b"2".to_vec()), ("weights/r".to_owned(), b"3".to_vec())]);
    }

    #[test]
    fn bytes_that_are_no_store_are_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mesos.redb");
        std::fs::write(&path, vec![0xa5; 1 << 16]).unwrap();
        assert!(DiskRegistry::open(directory.path()).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), vec![0xa5; 1 << 16]);
    }
}
