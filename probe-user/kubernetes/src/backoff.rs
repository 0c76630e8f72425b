//! How long to wait before trying again.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use tokio::time::Instant;

/// Doubling waits with jitter. Forgets past failures after a time without any.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
    last: Option<Instant>,
}

impl Backoff {
    /// Waits from about `min` up to `max`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, failures: 0, last: None }
    }

    /// It failed at `now`: the wait before the next try. `jitter` is from 0 to 1 and takes away up to half of it, so that the collectors that lost
    /// one server together do not come back together.
    pub fn failed(&mut self, now: Instant, jitter: f64) -> Duration {
        if self.last.is_some_and(|last| now.duration_since(last) > self.max * 4) {
            self.failures = 0;
        }
        let wait = self.min.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(self.max);
        self.failures = self.failures.saturating_add(1).min(31);
        self.last = Some(now);
        wait.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
    }

    /// It went well: the next failure is a first one.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A number from 0 to 1 that differs from process to process and call to call: the seed of hash maps is random enough to spread retries.
pub fn jitter() -> f64 {
    let bits = u32::try_from(RandomState::new().build_hasher().finish() >> 32).unwrap_or(0);
    f64::from(bits) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew_after_a_quiet_time() {
        let start = Instant::now();
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        let waits = (0..8).map(|_| backoff.failed(start, 0.0).as_secs_f64()).collect::<Vec<_>>();
        assert_eq!(waits, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
        assert_eq!(backoff.failed(start, 1.0), Duration::from_secs(15), "jitter takes away up to half");
        assert_eq!(backoff.failed(start + Duration::from_secs(121), 0.0), Duration::from_millis(500));
    }

    #[test]
    fn a_thousand_failures_do_not_overflow() {
        let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_secs(30));
        let last = (0..1000).map(|_| backoff.failed(Instant::now(), 0.0)).last();
        assert_eq!(last, Some(Duration::from_secs(30)));
    }

    #[test]
    fn jitter_lies_between_zero_and_one_and_varies() {
        let some = (0..64).map(|_| jitter()).collect::<Vec<_>>();
        assert!(some.iter().all(|one| (0.0..=1.0).contains(one)));
        assert!(some.iter().any(|one| one != &some[0]));
    }
}
