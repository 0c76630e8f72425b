//! How much this process logs, as operators may change it for a while.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::containers::Spawn;

/// Nobody wants to be logged for longer in detail; who does asks again.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The level: 0 is as configured, more is more. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Verbosity(Arc<Shared>);

type Apply = Box<dyn Fn(u32) + Send + Sync>;

#[derive(Default)]
struct Shared {
    level: AtomicU32,
    /// How often it was set: who sets it back has to be the last who set it.
    changes: AtomicU64,
    /// Where the process's log is changed; held while it is.
    apply: Mutex<Option<Apply>>,
}

impl std::fmt::Debug for Verbosity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Verbosity").field(&self.level()).finish()
    }
}

impl Verbosity {
    /// Changes the process's log by this.
    pub fn applied_by(&self, apply: impl Fn(u32) + Send + Sync + 'static) {
        *self.0.apply.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(apply));
    }

    /// The level now.
    pub fn level(&self) -> u32 {
        self.0.level.load(Ordering::Relaxed)
    }

    /// Another level; after `duration` it is 0 again, unless somebody has set another meanwhile.
    pub fn set(&self, level: u32, duration: Duration, spawn: &Spawn) {
        let change = self.change(level);
        if level == 0 {
            return;
        }
        let this = self.clone();
        spawn(
            "verbosity",
            Box::pin(async move {
                tokio::time::sleep(duration.min(LONGEST)).await;
                if this.0.changes.load(Ordering::Relaxed) == change {
                    this.change(0);
                }
            }),
        );
    }

    fn change(&self, level: u32) -> u64 {
        let apply = self.0.apply.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.level.store(level, Ordering::Relaxed);
        if let Some(apply) = &*apply {
            apply(level);
        }
        self.0.changes.fetch_add(1, Ordering::Relaxed) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_level_holds_for_its_time_unless_another_is_set() {
        #[expect(clippy::disallowed_methods, reason = "a test spawns where it likes")]
        let spawn: Spawn = Arc::new(|_, run| drop(tokio::spawn(run)));
        let (verbosity, applied) = (Verbosity::default(), Arc::new(Mutex::new(Vec::new())));
        let seen = applied.clone();
        verbosity.applied_by(move |level| seen.lock().unwrap().push(level));
        verbosity.set(1, Duration::from_secs(10), &spawn);
        tokio::time::sleep(Duration::from_secs(9)).await;
        verbosity.set(2, Duration::from_secs(10), &spawn);
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert_eq!(verbosity.clone().level(), 2);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!((verbosity.level(), applied.lock().unwrap().clone()), (0, vec![1, 2, 0]));
    }
}
