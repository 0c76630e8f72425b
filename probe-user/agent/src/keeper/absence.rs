//! How long the agent may be away: a container whose agent does not come back ends, as executors of Mesos do.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

/// How often it is looked whether the agent is there.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// How long the agent may be away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patience {
    /// What the agent holds locked for as long as it lives.
    pub lock: PathBuf,
    /// What an agent of an earlier version holds locked, too: its store. Looked at last, as the agent cannot start in that moment.
    pub store: PathBuf,
    /// How long it may be away, in milliseconds.
    pub timeout_ms: u64,
    /// How long the container's processes then have to end by themselves, in milliseconds.
    pub grace_ms: u64,
}

impl Patience {
    /// Whether the agent is there, or one of an earlier version.
    pub(crate) fn is_agent_there(&self) -> bool {
        is_held(&self.lock) || is_held(&self.store)
    }
}

/// Holds the lock by which keepers know that the agent is there, for as long as it is kept.
///
/// # Errors
/// When somebody else has it for longer than keepers, who look at it now and then; or when the file cannot be made.
pub fn hold_lock(path: &Path, patience: Duration) -> io::Result<Flock<File>> {
    let begun = Instant::now();
    let mut file = File::options().create(true).truncate(false).write(true).open(path)?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((_, error)) if begun.elapsed() > patience => return Err(error.into()),
            Err((again, _)) => file = again,
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether somebody holds the lock. Where that cannot be told, somebody does: nothing is ended for want of a file descriptor.
fn is_held(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return true };
    Flock::lock(file, FlockArg::LockSharedNonblock).is_err()
}

/// Since when the agent is away, and what follows.
#[derive(Debug, Default)]
pub(crate) struct Absence {
    patience: Option<Patience>,
    looked: Option<Instant>,
    since: Option<Instant>,
    asked: Option<Instant>,
}

impl Absence {
    pub(crate) fn of(patience: Option<&Patience>) -> Self {
        Absence { patience: patience.cloned(), ..Absence::default() }
    }

    /// What the container's processes are to be sent now. It is not looked more often than every [`LOOK`].
    pub(crate) fn due(&mut self, now: Instant) -> Option<Signal> {
        if self.looked.is_some_and(|it| now.saturating_duration_since(it) < LOOK) {
            return None;
        }
        self.looked = Some(now);
        let patience = self.patience.clone()?;
        let is_there = is_held(&patience.lock);
        self.after(now, is_there, || is_held(&patience.store))
    }

    fn after(&mut self, now: Instant, is_there: bool, is_earlier_there: impl FnOnce() -> bool) -> Option<Signal> {
        let patience = self.patience.as_ref()?;
        if let Some(asked) = self.asked {
            let is_late = now.saturating_duration_since(asked) >= Duration::from_millis(patience.grace_ms);
            return is_late.then_some(Signal::SIGKILL);
        }
        if is_there {
            self.since = None;
            return None;
        }
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) < Duration::from_millis(patience.timeout_ms) {
            return None;
        }
        if is_earlier_there() {
            self.since = None;
            return None;
        }
        self.asked = Some(now);
        Some(Signal::SIGTERM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patience(lock: &Path) -> Patience {
        Patience { lock: lock.to_owned(), store: lock.with_extension("store"), timeout_ms: 10_000, grace_ms: 3_000 }
    }

    #[test]
    fn who_is_away_for_too_long_ends_its_containers_and_who_comes_back_does_not() {
        let mut it = Absence::of(Some(&patience(Path::new("/nowhere"))));
        let begun = Instant::now();
        let mut at = |second: u64, is_there: bool| it.after(begun + Duration::from_secs(second), is_there, || false);
        let calm = [(0, true), (1, false), (10, false), (10, true), (11, false), (20, false)];
        assert!(calm.iter().all(|(second, is_there)| at(*second, *is_there).is_none()));
        assert_eq!(at(21, false), Some(Signal::SIGTERM));
        // It has been told to end: it is too late to come back.
        assert_eq!([at(22, true), at(23, false), at(24, true), at(25, true)], [None, None, Some(Signal::SIGKILL), Some(Signal::SIGKILL)]);
    }

    #[test]
    fn an_agent_of_an_earlier_version_is_there_by_its_store() {
        let mut it = Absence::of(Some(&patience(Path::new("/nowhere"))));
        let begun = Instant::now();
        let mut at = |second: u64, is_earlier_there: bool| it.after(begun + Duration::from_secs(second), false, || is_earlier_there);
        assert_eq!([at(0, true), at(10, true), at(11, false), at(20, false)], [None; 4]);
        assert_eq!(at(21, false), Some(Signal::SIGTERM));
    }

    #[test]
    fn an_agent_is_there_while_it_holds_its_lock_or_nobody_can_tell() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.lock");
        assert!(is_held(&path));
        let lock = hold_lock(&path, Duration::ZERO).unwrap();
        assert!(is_held(&path));
        hold_lock(&path, Duration::from_millis(10)).unwrap_err();
        drop(lock);
        assert!(!is_held(&path));
        let patience = Patience { timeout_ms: 0, ..patience(&path) };
        std::fs::write(&patience.store, "").unwrap();
        let mut it = Absence::of(Some(&patience));
        assert_eq!(it.due(Instant::now()), Some(Signal::SIGTERM));
        assert_eq!(it.due(Instant::now()), None, "it is not looked all the time");
        assert_eq!(Absence::of(None).due(Instant::now()), None);
    }
}
