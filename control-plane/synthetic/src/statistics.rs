//! What the probes did, and how soon it was answered.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Notify;

/// Times that are kept; then every further one takes the place of an old one.
const TIMES_MAX: usize = 200_000;

/// Counts of all probes.
#[derive(Debug, Default)]
pub(crate) struct Statistics {
    pub(crate) reports: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) throttled: AtomicU64,
    pub(crate) behind: AtomicU64,
    synchronized: AtomicU64,
    one_more: Notify,
    times: Mutex<(u64, Vec<Duration>)>,
}

/// The result of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    /// Reports sent.
    reports: u64,
    /// Their size.
    bytes: u64,
    /// Reports that were not applied.
    rejected: u64,
    /// How often the control plane asked for fewer.
    throttled: u64,
    /// Seconds in which a probe had not yet been answered and told nothing new.
    behind: u64,
    /// From a report's being sent to its being on the map, in milliseconds.
    applied_p50_ms: f64,
    applied_p99_ms: f64,
}

impl Statistics {
    /// A report is on the map, so long after it was sent.
    pub(crate) fn applied(&self, after: Duration) {
        let Ok(mut guard) = self.times.lock() else { return };
        let (count, times) = &mut *guard;
        if times.len() < TIMES_MAX {
            times.push(after);
        } else if let Some(place) = usize::try_from(*count).ok().and_then(|count| times.get_mut(count % TIMES_MAX)) {
            *place = after;
        }
        *count += 1;
    }

    /// A probe has told everything for the first time.
    pub(crate) fn synchronized(&self) {
        self.synchronized.fetch_add(1, Ordering::Relaxed);
        self.one_more.notify_one();
    }

    /// Waits until that many have.
    pub(crate) async fn all_synchronized(&self, probes: u64) {
        while self.synchronized.load(Ordering::Relaxed) < probes {
            self.one_more.notified().await;
        }
    }

    pub(crate) fn report(&self) -> Outcome {
        let mut times = self.times.lock().map(|guard| guard.1.clone()).unwrap_or_default();
        times.sort_unstable();
        let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
        let millis = |percent| at(percent).map_or(0.0, |time| time.as_secs_f64() * 1e3);
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Outcome {
            reports: count(&self.reports),
            bytes: count(&self.bytes),
            rejected: count(&self.rejected),
            throttled: count(&self.throttled),
            behind: count(&self.behind),
            applied_p50_ms: millis(50),
            applied_p99_ms: millis(99),
        }
    }
}
