//! What the agent remembers across restarts: one embedded, transactional file. A commit is on disk when it returns.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use crate::table::{Record, RecordKey};
use crate::words::ExecutorKey;

const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
const FACTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("facts");

/// Why something could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened, read or written, or another agent has it.
    #[error("what the agent remembers cannot be read or written")]
    Unusable(#[from] redb::Error),
    /// The directory cannot be made.
    #[error("the directory of what the agent remembers cannot be made")]
    Directory(#[from] std::io::Error),
}

/// The file.
#[derive(Debug)]
pub struct Store {
    database: Database,
}

/// The file that a store is in, which is locked while it is open.
pub fn file(directory: &Path) -> PathBuf {
    directory.join("agent.redb")
}

impl Store {
    /// Opens it, or makes it.
    ///
    /// # Errors
    /// When it cannot be used; only one process can at a time.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(directory)?;
        let path = file(directory);
        let database = Database::create(&path).map_err(redb::Error::from)?;
        // Tasks are in it, with their secrets.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        let store = Store { database };
        // So that reading finds the tables.
        store.commit(&[], &[])?;
        Ok(store)
    }

    /// Stores records and facts, all or none. Blocks until they are on disk.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn commit(&self, records: &[Record], facts: &[(&str, Vec<u8>)]) -> Result<(), StoreError> {
        let transaction = self.database.begin_write().map_err(redb::Error::from)?;
        {
            let mut table = transaction.open_table(RECORDS).map_err(redb::Error::from)?;
            for record in records {
                let name = name(&record.key);
                match &record.value {
                    Some(value) => drop(table.insert(name.as_str(), value.as_slice()).map_err(redb::Error::from)?),
                    None => drop(table.remove(name.as_str()).map_err(redb::Error::from)?),
                }
            }
            let mut table = transaction.open_table(FACTS).map_err(redb::Error::from)?;
            for (name, value) in facts {
                table.insert(*name, value.as_slice()).map_err(redb::Error::from)?;
            }
        }
        transaction.commit().map_err(redb::Error::from)?;
        Ok(())
    }

    /// Removes all records, and has these facts from now on, as far as they have a value. All or nothing; blocks until it is on disk.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn forget(&self, facts: &[(&str, Option<Vec<u8>>)]) -> Result<(), StoreError> {
        let transaction = self.database.begin_write().map_err(redb::Error::from)?;
        {
            let mut table = transaction.open_table(RECORDS).map_err(redb::Error::from)?;
            table.retain(|_, _| false).map_err(redb::Error::from)?;
            let mut table = transaction.open_table(FACTS).map_err(redb::Error::from)?;
            for (name, value) in facts {
                match value {
                    Some(value) => drop(table.insert(*name, value.as_slice()).map_err(redb::Error::from)?),
                    None => drop(table.remove(*name).map_err(redb::Error::from)?),
                }
            }
        }
        transaction.commit().map_err(redb::Error::from)?;
        Ok(())
    }

    /// All records.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn records(&self) -> Result<Vec<(RecordKey, Vec<u8>)>, StoreError> {
        let transaction = self.database.begin_read().map_err(redb::Error::from)?;
        let table = transaction.open_table(RECORDS).map_err(redb::Error::from)?;
        let mut records = Vec::new();
        for entry in table.iter().map_err(redb::Error::from)? {
            let (name, value) = entry.map_err(redb::Error::from)?;
            if let Some(key) = parse_name(name.value()) {
                records.push((key, value.value().to_vec()));
            }
        }
        Ok(records)
    }

    /// A fact by its name.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn fact(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let transaction = self.database.begin_read().map_err(redb::Error::from)?;
        let table = transaction.open_table(FACTS).map_err(redb::Error::from)?;
        let value = table.get(name).map_err(redb::Error::from)?;
        Ok(value.map(|it| it.value().to_vec()))
    }
}

/// No id has a control character: the master and the table refuse them.
const BETWEEN: char = '\u{1}';

fn name(key: &RecordKey) -> String {
    match key {
        RecordKey::Agent => "agent".to_owned(),
        RecordKey::Framework(id) => format!("framework{BETWEEN}{id}"),
        RecordKey::Executor(key) => format!("executor{BETWEEN}{}{BETWEEN}{}", key.framework, key.executor),
        RecordKey::Completed(framework, container) => format!("completed{BETWEEN}{framework}{BETWEEN}{container}"),
        RecordKey::Task(key, task) => format!("task{BETWEEN}{}{BETWEEN}{}{BETWEEN}{task}", key.framework, key.executor),
    }
}

fn parse_name(name: &str) -> Option<RecordKey> {
    let parts: Vec<&str> = name.split(BETWEEN).collect();
    let executor = |framework: &str, executor: &str| ExecutorKey { framework: framework.to_owned(), executor: executor.to_owned() };
    match parts.as_slice() {
        ["agent"] => Some(RecordKey::Agent),
        ["framework", id] => Some(RecordKey::Framework((*id).to_owned())),
        ["executor", framework, id] => Some(RecordKey::Executor(executor(framework, id))),
        ["completed", framework, container] => Some(RecordKey::Completed((*framework).to_owned(), (*container).to_owned())),
        ["task", framework, id, task] => Some(RecordKey::Task(executor(framework, id), (*task).to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_committed_is_there_again() {
        let directory = tempfile::tempdir().unwrap();
        let executor = ExecutorKey { framework: "f".to_owned(), executor: "e".to_owned() };
        let keys = [
            RecordKey::Agent,
            RecordKey::Framework("f".to_owned()),
            RecordKey::Executor(executor.clone()),
            RecordKey::Task(executor, "t".to_owned()),
            RecordKey::Completed("f".to_owned(), "c".to_owned()),
        ];
        let record = |key: &RecordKey, value: Option<&str>| Record { key: key.clone(), value: value.map(|it| it.as_bytes().to_vec()) };
        {
            let store = Store::open(directory.path()).unwrap();
            store.commit(&keys.iter().map(|it| record(it, Some("x"))).collect::<Vec<_>>(), &[("boot", b"1".to_vec())]).unwrap();
            store.commit(&[record(&keys[1], None)], &[]).unwrap();
            assert!(matches!(Store::open(directory.path()), Err(StoreError::Unusable(_))));
        }
        let store = Store::open(directory.path()).unwrap();
        let mut found: Vec<RecordKey> = store.records().unwrap().into_iter().map(|(key, _)| key).collect();
        found.sort();
        assert_eq!(found, [keys[0].clone(), keys[2].clone(), keys[3].clone(), keys[4].clone()]);
        assert_eq!((store.fact("boot").unwrap(), store.fact("other").unwrap()), (Some(b"1".to_vec()), None));

        store.forget(&[("other", Some(b"2".to_vec())), ("third", None)]).unwrap();
        assert!(store.records().unwrap().is_empty());
        assert_eq!((store.fact("boot").unwrap(), store.fact("other").unwrap()), (Some(b"1".to_vec()), Some(b"2".to_vec())));
        store.forget(&[("other", None)]).unwrap();
        assert_eq!(store.fact("other").unwrap(), None);
    }
}
