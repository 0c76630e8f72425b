//! A file of the store. After a write that failed, such as one to a full disk, redb refuses everything, also when there is room again: until the file
//! is opened anew, which the next call does.

use std::sync::{PoisonError, RwLock};

use redb::{Database, DatabaseError, ReadTransaction, ReadableDatabase as _, WriteTransaction};

use super::StoreError;

/// Opens the file, and makes it if there is none.
pub(super) type Open = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// A file, opened when it is first used.
pub(super) struct DataFile {
    open: Open,
    opened: RwLock<Opened>,
}

impl std::fmt::Debug for DataFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataFile").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Opened {
    database: Option<Database>,
    /// How often it was opened: whoever fails late must not close what was opened since.
    times: u64,
}

impl DataFile {
    pub(super) fn new(open: Open) -> DataFile {
        DataFile { open, opened: RwLock::default() }
    }

    /// Looks at the file as it is at one moment. However long that takes, the file can be written, and opened anew, meanwhile.
    pub(super) fn read<T>(&self, look: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let (transaction, times) = self.with(|database| Ok(database.begin_read()?))?;
        let done = look(&transaction);
        self.heed(&done, times);
        done
    }

    /// Changes the file, all or nothing. `change` must not use the file otherwise.
    pub(super) fn write<T>(&self, change: impl FnOnce(&WriteTransaction) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let written = self.with(|database| {
            let transaction = database.begin_write()?;
            let done = change(&transaction)?;
            transaction.commit()?;
            Ok(done)
        });
        written.map(|(done, _)| done)
    }

    /// With how often the file had been opened.
    fn with<T>(&self, run: impl FnOnce(&Database) -> Result<T, StoreError>) -> Result<(T, u64), StoreError> {
        loop {
            let opened = self.opened.read().unwrap_or_else(PoisonError::into_inner);
            let times = opened.times;
            if let Some(database) = &opened.database {
                let done = run(database);
                drop(opened);
                self.heed(&done, times);
                return done.map(|done| (done, times));
            }
            drop(opened);
            let mut opened = self.opened.write().unwrap_or_else(PoisonError::into_inner);
            if opened.database.is_none() {
                opened.database = Some((self.open)()?);
                opened.times += 1;
            }
        }
    }

    /// What has failed is closed, so that the next call opens it anew.
    fn heed<T>(&self, done: &Result<T, StoreError>, times: u64) {
        let Err(StoreError::Unavailable(error)) = done else { return };
        if matches!(**error, redb::Error::Io(_) | redb::Error::PreviousIo) {
            let mut opened = self.opened.write().unwrap_or_else(PoisonError::into_inner);
            if opened.times == times {
                opened.database = None;
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};

    use redb::{StorageBackend, TableDefinition};

    use super::*;

    const BLOCK: usize = 4_096;

    /// A disk that can be full: then nothing is written where nothing ever was.
    #[derive(Clone, Debug, Default)]
    pub(in crate::store) struct Disk {
        bytes: Arc<Mutex<Vec<u8>>>,
        /// Where something was ever written.
        written: Arc<Mutex<BTreeSet<usize>>>,
        pub(in crate::store) full: Arc<AtomicBool>,
        open: Arc<AtomicBool>,
    }

    impl Disk {
        pub(in crate::store) fn opener(&self) -> Open {
            let disk = self.clone();
            Box::new(move || {
                if disk.open.swap(true, Ordering::SeqCst) {
                    return Err(DatabaseError::DatabaseAlreadyOpen);
                }
                Database::builder().create_with_backend(disk.clone())
            })
        }

        fn room(&self, from: usize, bytes: usize) -> io::Result<()> {
            let mut written = self.written.lock().unwrap();
            let mut blocks = from / BLOCK..(from + bytes).div_ceil(BLOCK);
            if self.full.load(Ordering::SeqCst) && !blocks.clone().all(|block| written.contains(&block)) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            written.extend(&mut blocks);
            Ok(())
        }
    }

    impl StorageBackend for Disk {
        fn len(&self) -> io::Result<u64> {
            Ok(self.bytes.lock().unwrap().len() as u64)
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            let (bytes, from) = (self.bytes.lock().unwrap(), usize::try_from(offset).unwrap());
            out.copy_from_slice(&bytes[from..from + out.len()]);
            Ok(())
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.bytes.lock().unwrap().resize(usize::try_from(len).unwrap(), 0);
            Ok(())
        }

        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            let from = usize::try_from(offset).unwrap();
            self.room(from, data.len())?;
            self.bytes.lock().unwrap()[from..from + data.len()].copy_from_slice(data);
            Ok(())
        }

        fn close(&self) -> io::Result<()> {
            self.open.store(false, Ordering::SeqCst);
            Ok(())
        }
    }

    const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("x");

    #[test]
    fn after_a_full_disk_the_file_can_be_used_again_as_soon_as_there_is_room() {
        let disk = Disk::default();
        let file = DataFile::new(disk.opener());
        let put = |key: u64, bytes: usize| {
            file.write(|transaction| {
                transaction.open_table(TABLE)?.insert(key, vec![1; bytes].as_slice())?;
                Ok(())
            })
        };
        let keys = || {
            file.read(|transaction| {
                let table = transaction.open_table(TABLE)?;
                Ok(table.range(0_u64..)?.map(|entry| entry.map(|(key, _)| key.value())).collect::<Result<Vec<u64>, _>>()?)
            })
        };
        put(1, 10).unwrap();
        // One who reads for long does not keep it from being opened anew.
        let (reading, _) = file.with(|database| Ok(database.begin_read()?)).unwrap();
        disk.full.store(true, Ordering::SeqCst);
        for _ in 0..3 {
            assert!(matches!(put(2, 5_000_000), Err(StoreError::Unavailable(_))));
        }
        disk.full.store(false, Ordering::SeqCst);
        put(3, 10).unwrap();
        assert_eq!(keys().unwrap(), [1, 3], "what was refused was not kept, and nothing else was lost");
        drop(reading);
    }
}
