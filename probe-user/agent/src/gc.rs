//! Deletes sandboxes that nobody needs any more: by their age, and sooner when the disk is full.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Directories that may be deleted, some time. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Collector {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<BTreeMap<PathBuf, SystemTime>>,
    succeeded: AtomicU64,
    failed: AtomicU64,
    max_age_millis: AtomicU64,
}

/// How old a sandbox may get while the disk is used to this part (0 to 1).
pub fn allowed_age(delay: Duration, headroom: f64, used: f64) -> Duration {
    delay.mul_f64((1.0 - headroom - used).clamp(0.0, 1.0))
}

impl Collector {
    /// From now on a directory may be deleted when it is old enough.
    pub fn schedule(&self, path: PathBuf, since: SystemTime) {
        self.lock().insert(path, since);
    }

    /// It is needed again.
    pub fn unschedule(&self, path: &Path) {
        self.lock().remove(path);
    }

    /// Finds sandboxes of earlier agents that no container claims.
    pub fn find_abandoned(&self, slaves: &Path, claimed: &[PathBuf]) {
        let children = |it: &Path| -> Vec<PathBuf> {
            let entries = std::fs::read_dir(it).into_iter().flatten().flatten();
            entries.filter(|it| it.file_type().is_ok_and(|it| it.is_dir())).map(|it| it.path()).collect()
        };
        for agent in children(slaves) {
            for framework in children(&agent.join("frameworks")) {
                for executor in children(&framework.join("executors")) {
                    for run in children(&executor.join("runs")) {
                        if !claimed.contains(&run) {
                            let since = run.metadata().and_then(|it| it.modified()).unwrap_or_else(|_| SystemTime::now());
                            self.schedule(run, since);
                        }
                    }
                }
            }
        }
    }

    /// Deletes what is older than `age`. Blocks.
    pub fn collect(&self, now: SystemTime, age: Duration) {
        self.shared.max_age_millis.store(u64::try_from(age.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let old: Vec<PathBuf> = {
            let waiting = self.lock();
            let is_old = |since: &SystemTime| now.duration_since(*since).is_ok_and(|it| it >= age);
            waiting.iter().filter(|(_, since)| is_old(since)).map(|(path, _)| path.clone()).collect()
        };
        for path in old {
            let counter = match std::fs::remove_dir_all(&path) {
                Ok(()) => &self.shared.succeeded,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => &self.shared.succeeded,
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a sandbox cannot be deleted");
                    &self.shared.failed
                }
            };
            counter.fetch_add(1, Ordering::Relaxed);
            self.lock().remove(&path);
            remove_empty_parents(&path);
        }
    }

    /// Deleted, not deletable, waiting; and the age in seconds that is allowed now.
    pub fn counts(&self) -> (u64, u64, u64, f64) {
        let waiting = self.lock().len() as u64;
        let (done, failed) = (self.shared.succeeded.load(Ordering::Relaxed), self.shared.failed.load(Ordering::Relaxed));
        (done, failed, waiting, Duration::from_millis(self.shared.max_age_millis.load(Ordering::Relaxed)).as_secs_f64())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PathBuf, SystemTime>> {
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of a run: `runs`, the executor, `executors`, the framework. A link to the latest run that is left alone goes, too.
fn remove_empty_parents(run: &Path) {
    if let Some(runs) = run.parent() {
        let latest = runs.join("latest");
        if latest.is_symlink() && !latest.exists() {
            drop(std::fs::remove_file(latest));
        }
    }
    for parent in run.ancestors().skip(1).take(4) {
        if std::fs::remove_dir(parent).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_shortens_lives() {
        let week = Duration::from_secs(7 * 24 * 3600);
        assert_eq!(allowed_age(week, 0.1, 0.0), week.mul_f64(0.9));
        assert_eq!(allowed_age(week, 0.1, 0.95), Duration::ZERO);
    }

    #[test]
    fn old_sandboxes_go_and_claimed_ones_stay() {
        let directory = tempfile::tempdir().unwrap();
        let runs = directory.path().join("S/frameworks/F/executors/E/runs");
        for run in ["old", "claimed"] {
            crate::sandbox::Sandbox::make(directory.path(), &runs.join(run), None).unwrap();
        }
        let collector = Collector::default();
        collector.find_abandoned(directory.path(), &[runs.join("claimed")]);
        collector.collect(SystemTime::now(), Duration::from_secs(60));
        assert!(runs.join("old").exists());
        collector.collect(SystemTime::now() + Duration::from_secs(61), Duration::from_secs(60));
        assert!(!runs.join("old").exists() && runs.join("claimed").exists());
        assert_eq!(collector.counts(), (1, 0, 0, 60.0));
        collector.schedule(runs.join("claimed"), SystemTime::UNIX_EPOCH);
        collector.collect(SystemTime::now(), Duration::ZERO);
        assert!(!directory.path().join("S/frameworks/F").exists());
    }
}
