//! Flow control of one direction of a pipe: the receiver tells how many bytes in all may have been sent, and that only grows. Saying it twice, or
//! late, does no harm.

/// The sender's half: how much may still be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    sent: u64,
    limit: u64,
}

impl Allowance {
    /// Bytes that may be sent now.
    pub fn room(self) -> u64 {
        self.limit - self.sent
    }

    /// `count` bytes were sent; more than there was room for counts as all of it.
    pub fn spend(&mut self, count: u64) {
        self.sent = self.sent.saturating_add(count).min(self.limit);
    }

    /// The receiver said how many bytes in all may have been sent. A smaller number than before is an old one.
    pub fn raise(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
    }
}

/// The receiver's half: how much it has made room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    window: u64,
    received: u64,
    taken: u64,
    limit: u64,
}

/// More came than there was room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overrun {
    /// By how many bytes.
    pub by: u64,
}

impl Grant {
    /// Room for `window` bytes, which the sender has to be told: see [`Grant::limit`].
    pub fn new(window: u64) -> Self {
        Grant { window, received: 0, taken: 0, limit: window }
    }

    /// What the sender is told: bytes in all that it may have sent.
    pub fn limit(self) -> u64 {
        self.limit
    }

    /// Bytes that came and were not taken yet: never more than the window.
    pub fn held(self) -> u64 {
        self.received - self.taken
    }

    /// `count` bytes came.
    ///
    /// # Errors
    /// When there was no room for them. They are not counted.
    pub fn received(&mut self, count: u64) -> Result<(), Overrun> {
        let received = self.received.saturating_add(count);
        if received > self.limit {
            return Err(Overrun { by: received - self.limit });
        }
        self.received = received;
        Ok(())
    }

    /// `count` bytes were taken away by whoever they are for. Says what to tell the sender, when that is worth a message: after every quarter
    /// of the window.
    pub fn taken(&mut self, count: u64) -> Option<u64> {
        self.taken = self.taken.saturating_add(count).min(self.received);
        let limit = self.taken + self.window;
        if limit - self.limit >= (self.window / 4).max(1) {
            self.limit = limit;
            Some(limit)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_bounds_what_is_held() {
        let mut grant = Grant::new(100);
        assert_eq!(grant.received(60), Ok(()));
        assert_eq!(grant.received(41), Err(Overrun { by: 1 }));
        assert_eq!(grant.received(40), Ok(()));
        assert_eq!(grant.taken(10), None, "too little to be worth a message");
        assert_eq!(grant.taken(20), Some(130));
        assert_eq!((grant.held(), grant.limit()), (70, 130));
    }

    #[test]
    fn an_old_word_takes_nothing_back() {
        let mut allowance = Allowance::default();
        assert_eq!(allowance.room(), 0);
        allowance.raise(100);
        allowance.spend(30);
        allowance.raise(50);
        assert_eq!(allowance.room(), 70);
    }
}
