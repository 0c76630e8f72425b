//! Files that more than one container wants, kept up to a size.
//!
//! What one user may read is nobody else's: files are kept apart by whose rights they were read with, where that makes a difference.
//!
//! Who is given one has it open: that it is removed meanwhile does not concern them. Every file on the disk is one of an entry, or is being
//! downloaded: what does not become one is removed.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::FetchError;

/// Files by where they came from.
#[derive(Debug)]
pub(super) struct Cache {
    directory: PathBuf,
    size_max: u64,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    entries: BTreeMap<String, Entry>,
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    path: PathBuf,
    size: u64,
    used: u64,
    /// Held by who downloads it; whether it is there.
    ready: Arc<Mutex<bool>>,
}

impl Cache {
    /// Empty: what an earlier agent kept is removed.
    pub(super) fn new(directory: &Path, size_max: u64) -> Self {
        drop(std::fs::remove_dir_all(directory));
        Cache { directory: directory.to_owned(), size_max, known: Mutex::default() }
    }

    /// Bytes that it may hold, and holds.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.size_max, self.lock().entries.values().map(|it| it.size).sum())
    }

    /// The file, downloaded by the first who asks, with the rights of the user of this number. One that is larger than the whole cache is not kept.
    pub(super) fn get(
        &self,
        uri: &str,
        user: Option<u32>,
        download: impl FnOnce(&Path) -> Result<(), FetchError>,
    ) -> Result<File, FetchError> {
        let failed = |source| FetchError::Io { uri: uri.to_owned(), source };
        let key = user.map_or_else(|| uri.to_owned(), |user| format!("{user}@{uri}"));
        let key = key.as_str();
        let (path, ready) = self.entry(key);
        let mut is_ready = ready.lock().unwrap_or_else(PoisonError::into_inner);
        if *is_ready && let Ok(file) = File::open(&path) {
            return Ok(file);
        }
        *is_ready = false;
        // What an attempt that failed has left is in nobody's way.
        drop(std::fs::remove_file(&path));
        let downloaded = std::fs::create_dir_all(&self.directory).map_err(failed).and_then(|()| download(&path));
        let opened = downloaded.and_then(|()| {
            let file = File::open(&path).map_err(failed)?;
            let size = file.metadata().map_err(failed)?.len();
            Ok((file, size))
        });
        let mut known = self.lock();
        let is_ours = known.entries.get(key).is_none_or(|it| it.path == path);
        let is_kept = is_ours && opened.as_ref().is_ok_and(|(_, size)| *size <= self.size_max);
        if !is_kept {
            drop(std::fs::remove_file(&path));
        }
        if let Ok((_, size)) = opened
            && is_kept
        {
            *is_ready = true;
            known.clock += 1;
            // It may have been forgotten while this one waited for another who failed.
            let entry = Entry { path: path.clone(), size, used: known.clock, ready: ready.clone() };
            known.entries.insert(key.to_owned(), entry);
            known.shrink(self.size_max, key);
        } else if is_ours {
            known.entries.remove(key);
        }
        opened.map(|(file, _)| file)
    }

    /// Where the file is or is to be, and who may download it.
    fn entry(&self, key: &str) -> (PathBuf, Arc<Mutex<bool>>) {
        // A download of an agent that has ended may still be there, and removes what it has made.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut known = self.lock();
        known.clock += 1;
        let now = known.clock;
        if let Some(entry) = known.entries.get_mut(key) {
            entry.used = now;
            return (entry.path.clone(), entry.ready.clone());
        }
        let path = self.directory.join(format!("c{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let ready = Arc::default();
        known.entries.insert(key.to_owned(), Entry { path: path.clone(), size: 0, used: now, ready: Arc::clone(&ready) });
        (path, ready)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Removes what was not used for longest until the rest fits.
    fn shrink(&mut self, size_max: u64, keep: &str) {
        while self.entries.values().map(|it| it.size).sum::<u64>() > size_max {
            let oldest = self.entries.iter().filter(|(key, it)| *key != keep && it.size > 0).min_by_key(|(_, it)| it.used);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { return };
            if let Some(entry) = self.entries.remove(&oldest) {
                // Who copies it right now has it open.
                drop(std::fs::remove_file(entry.path));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(size_max: u64) -> (tempfile::TempDir, Cache) {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::new(&directory.path().join("cache"), size_max);
        (directory, cache)
    }

    fn on_disk(directory: &tempfile::TempDir) -> usize {
        std::fs::read_dir(directory.path().join("cache")).unwrap().count()
    }

    fn holding(bytes: usize) -> impl FnOnce(&Path) -> Result<(), FetchError> {
        move |path| std::fs::write(path, vec![0; bytes]).map_err(|source| FetchError::Io { uri: String::new(), source })
    }

    fn failing(path: &Path) -> Result<(), FetchError> {
        std::fs::write(path, "half").unwrap();
        Err(FetchError::Scheme("x".to_owned()))
    }

    fn kept(cache: &Cache) -> Vec<String> {
        cache.lock().entries.keys().cloned().collect()
    }

    #[test]
    fn what_was_not_used_for_longest_goes_from_the_disk_too() {
        let (directory, cache) = world(25);
        for name in ["one", "two", "one", "three"] {
            cache.get(name, None, holding(10)).unwrap();
        }
        assert_eq!((kept(&cache), on_disk(&directory), cache.bytes()), (vec!["one".to_owned(), "three".to_owned()], 2, (25, 20)));
    }

    #[test]
    fn what_is_too_large_or_half_stays_nowhere() {
        let (directory, cache) = world(25);
        let large = cache.get("large", None, holding(26)).unwrap();
        assert_eq!(large.metadata().unwrap().len(), 26, "who asked for it has it all the same");
        cache.get("half", None, failing).unwrap_err();
        assert_eq!((kept(&cache), on_disk(&directory)), (vec![], 0));
    }

    #[test]
    fn who_has_a_file_reads_it_though_it_is_removed() {
        let (directory, cache) = world(10);
        let first = cache.get("first", None, holding(10)).unwrap();
        cache.get("second", None, holding(10)).unwrap();
        assert_eq!((on_disk(&directory), first.metadata().unwrap().len()), (1, 10));
        std::fs::remove_dir_all(directory.path().join("cache")).unwrap();
        cache.get("second", None, holding(7)).unwrap();
        assert_eq!(cache.bytes(), (10, 7), "somebody has emptied the directory");
    }
}
