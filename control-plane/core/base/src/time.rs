use std::ops::{Add, Sub};
use std::time::Duration;

/// A moment: nanoseconds since 1970-01-01 UTC, as some clock outside the cores told it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    nanos: u64,
}

impl Timestamp {
    /// The beginning of the Unix epoch; also what an absent time decodes to.
    pub const EPOCH: Timestamp = Timestamp { nanos: 0 };

    /// From nanoseconds since 1970.
    pub const fn from_unix_nanos(nanos: u64) -> Self {
        Timestamp { nanos }
    }

    /// From milliseconds since 1970. Saturates in the year 2554.
    pub const fn from_unix_millis(millis: u64) -> Self {
        Timestamp { nanos: millis.saturating_mul(1_000_000) }
    }

    /// Nanoseconds since 1970.
    pub const fn unix_nanos(self) -> u64 {
        self.nanos
    }

    /// Whole milliseconds since 1970.
    pub const fn unix_millis(self) -> u64 {
        self.nanos / 1_000_000
    }

    /// How long after `earlier` this is; zero when it is not after it (clocks are set back).
    pub const fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_nanos(self.nanos.saturating_sub(earlier.nanos))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, span: Duration) -> Timestamp {
        let span = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Timestamp { nanos: self.nanos.saturating_add(span) }
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Timestamp;

    fn sub(self, span: Duration) -> Timestamp {
        let span = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Timestamp { nanos: self.nanos.saturating_sub(span) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_set_back_makes_no_negative_span() {
        let early = Timestamp::from_unix_millis(5);
        assert_eq!(early.since(Timestamp::from_unix_millis(9)), Duration::ZERO);
        assert_eq!(Timestamp::from_unix_millis(9).since(early), Duration::from_millis(4));
    }

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Timestamp::EPOCH - Duration::from_secs(1), Timestamp::EPOCH);
        let last = Timestamp::from_unix_nanos(u64::MAX);
        assert_eq!(last + Duration::MAX, last);
    }
}
