use std::time::Duration;

use base::Timestamp;

use crate::Rate;

/// Lets so many through per time.
#[derive(Clone, Debug)]
pub(crate) struct Limiter {
    /// Time between two permits; none: no limit.
    each: Option<Duration>,
    /// How much unused time adds up.
    burst: Duration,
    /// When the next permit is there.
    next: Timestamp,
}

impl Limiter {
    /// Permits evenly spaced: what was not used is lost.
    pub(crate) fn even(rate: Option<Rate>) -> Self {
        let each = rate.and_then(|rate| rate.per.checked_div(rate.permits.max(1)));
        Limiter { each, burst: Duration::ZERO, next: Timestamp::EPOCH }
    }

    /// Permits that add up to as many as there are per period.
    pub(crate) fn bursting(rate: Rate) -> Self {
        let limiter = Limiter::even(Some(rate));
        let burst = limiter.each.unwrap_or_default() * rate.permits.max(1).saturating_sub(1);
        Limiter { burst, ..limiter }
    }

    /// Takes a permit, or tells when there will be one.
    pub(crate) fn take(&mut self, now: Timestamp) -> Result<(), Timestamp> {
        let Some(each) = self.each else { return Ok(()) };
        if self.next > now {
            return Err(self.next);
        }
        self.next = self.next.max(now - self.burst) + each;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(s: u64) -> Timestamp {
        Timestamp::from_unix_millis(1_000_000 + s * 1000)
    }

    #[test]
    fn permits_add_up_to_a_period() {
        let mut limiter = Limiter::bursting(Rate { permits: 2, per: Duration::from_secs(10) });
        assert_eq!((limiter.take(second(0)), limiter.take(second(0))), (Ok(()), Ok(())));
        assert_eq!(limiter.take(second(0)), Err(second(5)));
        assert_eq!(limiter.take(second(5)), Ok(()));
        assert_eq!(limiter.take(second(6)), Err(second(10)));
        assert_eq!((limiter.take(second(100)), limiter.take(second(100))), (Ok(()), Ok(())));
        assert_eq!(limiter.take(second(101)), Err(second(105)));
    }

    #[test]
    fn evenly_spaced_permits_do_not() {
        let mut limiter = Limiter::even(Some(Rate { permits: 2, per: Duration::from_secs(10) }));
        assert_eq!(limiter.take(second(100)), Ok(()));
        assert_eq!(limiter.take(second(100)), Err(second(105)));
        assert_eq!(Limiter::even(None).take(second(0)), Ok(()));
    }
}
