use std::time::Duration;

use base::Timestamp;

use crate::Rate;

/// Lets so many through per time: permits that grow back, at most as many as are given per period.
#[derive(Clone, Debug)]
pub(crate) struct Limiter {
    rate: Option<Rate>,
    /// When the permit after the next `permits` will be there, minus what they take: virtual time of the last one.
    next: Timestamp,
}

impl Limiter {
    pub(crate) fn new(rate: Option<Rate>, now: Timestamp) -> Self {
        Limiter { rate, next: now }
    }

    /// Takes a permit, or tells when there will be one.
    pub(crate) fn take(&mut self, now: Timestamp) -> Result<(), Timestamp> {
        let Some(Rate { permits, per }) = self.rate else { return Ok(()) };
        let each = per.checked_div(permits.max(1)).unwrap_or(Duration::ZERO);
        let burst = each * permits.max(1).saturating_sub(1);
        let earliest = now - burst;
        // Time that went by without use does not add up; a clock that was set back does not block for long.
        if self.next < earliest || self.next > now + per {
            self.next = earliest;
        }
        if self.next > now {
            return Err(self.next);
        }
        self.next = self.next + each;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_grow_back() {
        let second = |s: u64| Timestamp::from_unix_millis(1_000_000 + s * 1000);
        let mut limiter = Limiter::new(Some(Rate { permits: 2, per: Duration::from_secs(10) }), second(0));
        assert_eq!(limiter.take(second(0)), Ok(()));
        assert_eq!(limiter.take(second(0)), Err(second(5)), "none saved up before the start");
        assert_eq!(limiter.take(second(100)), Ok(()));
        assert_eq!(limiter.take(second(100)), Ok(()));
        assert_eq!(limiter.take(second(101)), Err(second(105)));
        assert_eq!(limiter.take(second(3)), Ok(()), "a clock that was set back");
    }
}
