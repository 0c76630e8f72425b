use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition};

use super::{KnownProbe, Store, StoreError};
use crate::supervise::panic_message;

const PROBES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("probes");
const ABOUT: TableDefinition<'_, &str, &str> = TableDefinition::new("about");
const INSTALLATION: &str = "installation";
const FORMAT: &str = "format";
/// Grows when older programs could not read what newer ones write.
const FORMAT_VERSION: &str = "1";

/// A store in one file, written through transactions: after a crash it is as it was after the last one.
#[derive(Debug)]
pub struct DiskStore {
    /// None after the disk has failed: the library takes nothing more until it is opened anew, which the next call tries.
    database: Mutex<Option<Database>>,
    path: PathBuf,
    installation: String,
    /// Where a damaged file lies that this one stands in for.
    set_aside: Option<PathBuf>,
}

impl DiskStore {
    /// As [`DiskStore::open`]; but a damaged file is put aside, under another name, and a new store begun. What is in it is worth less than a
    /// control plane: the map comes from the probes, and which of them there were is all that is forgotten.
    ///
    /// # Errors
    /// When the file is in use or out of reach, or was written by a later program.
    pub fn open_or_begin(directory: &Path, installation: &str) -> Result<Self, StoreError> {
        match Self::open(directory, installation) {
            Err(StoreError::Damaged { path, detail }) => {
                let aside = free_name(&path);
                std::fs::rename(&path, &aside).map_err(|source| unavailable(&path, source))?;
                tracing::error!(
                    path = %path.display(), aside = %aside.display(), detail,
                    "the store is damaged: it was put aside, and a new one begun. Which probes there were is forgotten until they come back"
                );
                Self::open(directory, installation).map(|store| DiskStore { set_aside: Some(aside), ..store })
            }
            opened => opened,
        }
    }

    /// Opens the store in `directory`, and makes it if there is none. A new one gets the name `installation`.
    ///
    /// # Errors
    /// When the file is in use, damaged, out of reach or of a later program. It is never deleted or made anew over an old one.
    pub fn open(directory: &Path, installation: &str) -> Result<Self, StoreError> {
        let path = directory.join("store.redb");
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|source| unavailable(&path, source))?;
        // The library asserts what it reads; a damaged file may break an assertion instead of being an error.
        let opened = catch_unwind(AssertUnwindSafe(|| Self::open_file(&path, installation)));
        opened.unwrap_or_else(|panic| Err(StoreError::Damaged { path: path.clone(), detail: panic_message(&*panic).to_owned() }))
    }

    fn open_file(path: &Path, installation: &str) -> Result<Self, StoreError> {
        let database = Database::create(path).map_err(|error| not_opened(path, error))?;
        Self::of(database, path, installation)
    }

    fn of(database: Database, path: &Path, installation: &str) -> Result<Self, StoreError> {
        let installation = about(&database, path, installation)?;
        let store = DiskStore { database: Mutex::new(Some(database)), path: path.to_owned(), installation, set_aside: None };
        store.probes()?;
        Ok(store)
    }

    fn with<R>(&self, act: impl FnOnce(&Database) -> Result<R, redb::Error>) -> Result<R, StoreError> {
        let mut held = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let database = match held.take() {
            Some(database) => database,
            // Not `create`: a file that went away is said, and no empty one put into its place.
            None => Database::open(&self.path).map_err(|error| not_opened(&self.path, error))?,
        };
        let outcome = act(&database);
        if !matches!(outcome, Err(redb::Error::Io(_) | redb::Error::PreviousIo | redb::Error::DatabaseClosed)) {
            *held = Some(database);
        }
        outcome.map_err(|error| any(&self.path, error))
    }

    fn read_probes(database: &Database) -> Result<Vec<KnownProbe>, redb::Error> {
        let transaction = database.begin_read()?;
        let table = transaction.open_table(PROBES)?;
        let mut probes = Vec::new();
        for entry in table.iter()? {
            let (id, record) = entry?;
            let record = serde_json::from_slice(record.value())
                .map_err(|error| redb::Error::Corrupted(format!("the record of the probe {:?}: {error}", id.value())))?;
            probes.push(record);
        }
        Ok(probes)
    }

    fn write_probes(database: &Database, known: &[KnownProbe], forgotten: &[String]) -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        {
            let mut table = transaction.open_table(PROBES)?;
            for id in forgotten {
                table.remove(id.as_str())?;
            }
            for probe in known {
                let record = serde_json::to_vec(probe).map_err(|error| redb::Error::Corrupted(error.to_string()))?;
                table.insert(probe.id.as_str(), record.as_slice())?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

impl Store for DiskStore {
    fn probes(&self) -> Result<Vec<KnownProbe>, StoreError> {
        self.with(Self::read_probes)
    }

    fn update_probes(&self, known: &[KnownProbe], forgotten: &[String]) -> Result<(), StoreError> {
        self.with(|database| Self::write_probes(database, known, forgotten))
    }

    fn installation(&self) -> &str {
        &self.installation
    }

    fn set_aside(&self) -> Option<&Path> {
        self.set_aside.as_deref()
    }

    fn flush(&self) -> Result<(), StoreError> {
        // Every transaction is safe when its commit returns; an empty one shows that the disk still takes them.
        self.with(|database| Self::write_probes(database, &[], &[]))
    }
}

/// Checks the format and gives back the installation's name; a new file gets both.
fn about(database: &Database, path: &Path, installation: &str) -> Result<String, StoreError> {
    let read_or_make = || -> Result<(String, String), redb::Error> {
        let transaction = database.begin_write()?;
        let found = {
            transaction.open_table(PROBES)?;
            let mut table = transaction.open_table(ABOUT)?;
            let mut ensure = |key: &str, value: &str| -> Result<String, redb::Error> {
                let found = table.get(key)?.map(|found| found.value().to_owned());
                match found {
                    Some(found) => Ok(found),
                    None => {
                        table.insert(key, value)?;
                        Ok(value.to_owned())
                    }
                }
            };
            (ensure(FORMAT, FORMAT_VERSION)?, ensure(INSTALLATION, installation)?)
        };
        transaction.commit()?;
        Ok(found)
    };
    let (format, installation) = read_or_make().map_err(|error| any(path, error))?;
    if format == FORMAT_VERSION {
        Ok(installation)
    } else {
        Err(StoreError::Foreign { path: path.to_owned(), format, known: FORMAT_VERSION })
    }
}

/// A name beside a file that nothing has yet.
fn free_name(path: &Path) -> PathBuf {
    let numbered = (2_u32..).map(|number| format!(".damaged-{number}"));
    let names = std::iter::once(".damaged".to_owned()).chain(numbered).map(|end| PathBuf::from(format!("{}{end}", path.display())));
    names.into_iter().find(|name| !name.exists()).unwrap_or_else(|| path.with_extension("damaged"))
}

fn not_opened(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::Locked { path: path.to_owned() },
        DatabaseError::Storage(error) => storage(path, error),
        DatabaseError::UpgradeRequired(version) => {
            StoreError::Foreign { path: path.to_owned(), format: format!("{version} of its library"), known: FORMAT_VERSION }
        }
        other => unavailable(path, other),
    }
}

fn any(path: &Path, error: redb::Error) -> StoreError {
    match error {
        redb::Error::Io(error) => storage(path, StorageError::Io(error)),
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => unavailable(path, error),
        other => damaged(path, other),
    }
}

fn storage(path: &Path, error: StorageError) -> StoreError {
    match error {
        // Bytes that are no store come as this kind of error.
        StorageError::Io(error) if matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof) => {
            damaged(path, error)
        }
        StorageError::Io(error) => unavailable(path, error),
        other @ StorageError::Corrupted(_) => damaged(path, other),
        other => unavailable(path, other),
    }
}

fn damaged(path: &Path, error: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged { path: path.to_owned(), detail: error.to_string() }
}

fn unavailable(path: &Path, source: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Unavailable { path: path.to_owned(), source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use base::Timestamp;

    use super::*;

    fn probe(id: &str, last_seen: u64) -> KnownProbe {
        KnownProbe {
            id: id.to_owned(),
            host_name: format!("host of {id}"),
            first_seen: Timestamp::from_unix_millis(1),
            last_seen: Timestamp::from_unix_millis(last_seen),
        }
    }

    #[test]
    fn what_was_written_is_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let store = DiskStore::open(&directory.path().join("new"), "first").unwrap();
        store.update_probes(&[probe("a", 1), probe("b", 2), probe("c", 3)], &[]).unwrap();
        store.update_probes(&[probe("b", 5)], &["c".to_owned()]).unwrap();
        drop(store);
        let store = DiskStore::open(&directory.path().join("new"), "second").unwrap();
        assert_eq!(store.probes().unwrap(), [probe("a", 1), probe("b", 5)]);
        assert_eq!(store.installation(), "first");
    }

    /// A disk that is full when it is told to be.
    #[derive(Debug)]
    struct Disk(redb::backends::FileBackend, std::sync::Arc<std::sync::atomic::AtomicBool>);

    impl redb::StorageBackend for Disk {
        fn len(&self) -> std::io::Result<u64> {
            self.0.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
            self.0.read(offset, out)
        }

        fn set_len(&self, len: u64) -> std::io::Result<()> {
            self.0.set_len(len)
        }

        fn sync_data(&self) -> std::io::Result<()> {
            self.0.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
            if self.1.load(std::sync::atomic::Ordering::Relaxed) {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            self.0.write(offset, data)
        }
    }

    #[test]
    fn a_store_whose_disk_was_full_takes_records_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        let file = std::fs::File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
        let full = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let disk = Disk(redb::backends::FileBackend::new(file).unwrap(), full.clone());
        let store = DiskStore::of(Database::builder().create_with_backend(disk).unwrap(), &path, "x").unwrap();
        store.update_probes(&[probe("a", 1)], &[]).unwrap();
        full.store(true, std::sync::atomic::Ordering::Relaxed);
        let error = store.update_probes(&[probe("b", 2)], &[]).unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        // There is room again: this one, opened anew, is of the file itself.
        store.update_probes(&[probe("c", 3)], &[]).unwrap();
        assert_eq!(store.probes().unwrap(), [probe("a", 1), probe("c", 3)]);
    }

    #[test]
    fn a_store_in_use_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let _first = DiskStore::open(directory.path(), "x").unwrap();
        let error = DiskStore::open(directory.path(), "x").unwrap_err();
        assert!(matches!(error, StoreError::Locked { .. }), "{error}");
        assert!(error.to_string().contains("store.redb is in use by another process"), "{error}");
    }

    #[test]
    fn bytes_that_are_no_store_are_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        for bytes in [b"not a store".to_vec(), vec![0xa5; 1 << 20]] {
            std::fs::write(&path, &bytes).unwrap();
            let error = DiskStore::open(directory.path(), "x").unwrap_err();
            assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
    }

    #[test]
    fn a_damaged_store_is_put_aside_and_nothing_of_it_is_lost() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        for name in ["store.redb.damaged", "store.redb.damaged-2"] {
            std::fs::write(&path, name).unwrap();
            let store = DiskStore::open_or_begin(directory.path(), name).unwrap();
            assert_eq!((store.set_aside(), store.installation()), (Some(&*directory.path().join(name)), name));
            assert_eq!(std::fs::read_to_string(directory.path().join(name)).unwrap(), name);
            store.update_probes(&[probe("a", 1)], &[]).unwrap();
        }
        let again = DiskStore::open_or_begin(directory.path(), "x").unwrap();
        assert_eq!((again.set_aside(), again.probes().unwrap().len()), (None, 1));
        // One that another process holds, or a later program wrote, is not damaged.
        assert!(matches!(DiskStore::open_or_begin(directory.path(), "x"), Err(StoreError::Locked { .. })));
        let database = again.database.lock().unwrap().take().unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(ABOUT).unwrap().insert(FORMAT, "2").unwrap();
        transaction.commit().unwrap();
        drop((database, again));
        let refused = DiskStore::open_or_begin(directory.path(), "x").unwrap_err();
        assert!(refused.to_string().contains("format 2"), "{refused}");
    }

    #[test]
    fn a_store_damaged_anywhere_is_an_error_or_intact_but_never_a_panic() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        let store = DiskStore::open(directory.path(), "x").unwrap();
        let probes: Vec<KnownProbe> = (0..200).map(|n| probe(&format!("p{n:03}"), n)).collect();
        store.update_probes(&probes, &[]).unwrap();
        drop(store);
        let whole = std::fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(whole.len() / 40) {
            let mut bytes = whole.clone();
            let end = (at + 512).min(bytes.len());
            bytes[at..end].fill(0xff);
            std::fs::write(&path, &bytes).unwrap();
            if let Ok(store) = DiskStore::open(directory.path(), "x") {
                drop(store);
            }
        }
    }
}
