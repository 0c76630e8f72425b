//! How far a client is behind with taking what it is sent.

use std::time::{Duration, Instant};

/// How far behind a client may be. Scope's limit for a whole reply.
const SPAN: Duration = Duration::from_secs(90);
/// Bytes for which a client may be a second longer: a quarter of a megabit a second is slower than any line that a page is looked at by.
const BYTES_PER_SECOND: u64 = 32 << 10;

/// How far a client is behind.
///
/// It falls behind while a write waits for it. By what it takes it catches up, and by the time in which nothing waits for it: so a terminal
/// may be quiet for days, a reply of any size may come over a thin line, and a client that takes a drop now and then is given up after about
/// [`SPAN`], however regularly it does.
#[derive(Debug, Default)]
pub(super) struct Lag {
    /// How far it was when something last began or ceased to wait for it.
    behind: Duration,
    /// When that was; none before the first time.
    since: Option<Instant>,
}

impl Lag {
    /// A write begins to wait for it. Until when it may.
    pub(super) fn waits(&mut self, now: Instant) -> Instant {
        self.behind = self.behind.saturating_sub(self.passed(now));
        now + SPAN.saturating_sub(self.behind)
    }

    /// No write waits for it any more.
    pub(super) fn went_on(&mut self, now: Instant) {
        let passed = self.passed(now);
        self.behind += passed;
    }

    /// It has taken so many bytes.
    pub(super) fn taken(&mut self, bytes: u64) {
        if !self.behind.is_zero() {
            let nanos = bytes.saturating_mul(1_000_000_000) / BYTES_PER_SECOND;
            self.behind = self.behind.saturating_sub(Duration::from_nanos(nanos));
        }
    }

    fn passed(&mut self, now: Instant) -> Duration {
        let since = self.since.replace(now);
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how long a client is given up that takes `bytes` every `pause`, at most `times`, while there is always more; none if it is not.
    fn given_up(bytes: u64, pause: Duration, times: u32) -> Option<Duration> {
        let begin = Instant::now();
        let (mut lag, mut now) = (Lag::default(), begin);
        for _ in 0..times {
            let until = lag.waits(now);
            now += pause;
            if now >= until {
                return Some(until - begin);
            }
            lag.went_on(now);
            lag.taken(bytes);
        }
        None
    }

    #[test]
    fn who_takes_drops_is_given_up_and_who_has_a_thin_line_is_not() {
        let seconds = Duration::from_secs;
        assert_eq!(given_up(0, seconds(100), 1), Some(seconds(90)));
        let drops = given_up(1, seconds(60), 100).unwrap();
        assert!((seconds(90)..seconds(91)).contains(&drops), "{drops:?}");
        let drops = given_up(8 << 10, seconds(1), 10_000).unwrap();
        assert!((seconds(110)..seconds(130)).contains(&drops), "{drops:?}");
        // Thirty-five megabytes over a megabit a second, evenly, and in the large pieces that a full buffer of the system leaves.
        assert_eq!(given_up(12_500, Duration::from_millis(100), 2_800), None);
        assert_eq!(given_up(4_000_000, seconds(32), 9), None);
    }

    #[test]
    fn who_has_nothing_to_take_is_not_behind() {
        let mut now = Instant::now();
        let mut lag = Lag::default();
        for _ in 0..100 {
            let until = lag.waits(now);
            assert_eq!(until, now + SPAN);
            now += Duration::from_secs(80);
            lag.went_on(now);
            lag.taken(100);
            now += Duration::from_secs(3_600);
        }
        // A moment of silence makes up for as much, and no more.
        lag.waits(now);
        lag.went_on(now + Duration::from_secs(80));
        let later = now + Duration::from_secs(90);
        assert_eq!(lag.waits(later), later + Duration::from_secs(20));
    }
}
