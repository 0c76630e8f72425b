//! The rules of the lease. Pure: the time is an argument, and only its differences count.

use std::time::Duration;

use tokio::time::Instant;

use super::GIVE_UP;

/// A lease as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Who holds it; empty for nobody.
    pub(super) holder: String,
    /// For how long after a renewal.
    pub(super) duration: Duration,
    /// Another one after every renewal.
    pub(super) version: String,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// It is another's.
    Wait,
    /// It is nobody's: take it.
    Take,
    /// It is ours: renew it.
    Renew,
}

/// What one of those who would hold it knows.
#[derive(Debug)]
pub(super) struct Election {
    name: String,
    /// The lease as last seen, and since when it is as it is.
    last: Option<(Seen, Instant)>,
    /// When we began the request by which we last took or renewed it.
    wrote_at: Option<Instant>,
}

impl Election {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), last: None, wrote_at: None }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn holder(&self) -> &str {
        self.last.as_ref().map_or("", |(seen, _)| &seen.holder)
    }

    /// The lease was read at `now`; `None`: there is none.
    pub(super) fn look(&mut self, now: Instant, seen: Option<Seen>) -> Move {
        let Some(seen) = seen else {
            self.last = None;
            self.wrote_at = None;
            return Move::Take;
        };
        if self.last.as_ref().is_none_or(|(last, _)| *last != seen) {
            self.last = Some((seen.clone(), now));
        }
        let is_ours = self.is_own(&seen);
        if !is_ours {
            // Another has it, whatever we thought.
            self.wrote_at = None;
        }
        let since = self.last.as_ref().map_or(now, |(_, since)| *since);
        if is_ours && self.is_holding(now) {
            Move::Renew
        } else if is_ours || seen.holder.is_empty() || now.saturating_duration_since(since) > seen.duration {
            // Ours, though we do not hold it: a request of ours was answered too late or not at all. Nobody else has that name.
            Move::Take
        } else {
            Move::Wait
        }
    }

    /// The lease was taken or renewed by a request that was begun at `begun`.
    pub(super) fn wrote(&mut self, begun: Instant, seen: Seen) {
        self.wrote_at = self.is_own(&seen).then_some(begun);
        self.last = Some((seen, begun));
    }

    pub(super) fn is_own(&self, seen: &Seen) -> bool {
        seen.holder == self.name
    }

    /// Until when it is certainly ours: earlier than anybody else may take it.
    pub(super) fn holding_until(&self) -> Option<Instant> {
        self.wrote_at.map(|at| at + GIVE_UP)
    }

    pub(super) fn is_holding(&self, now: Instant) -> bool {
        self.holding_until().is_some_and(|until| now < until)
    }

    pub(super) fn given_back(&mut self) {
        self.wrote_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DURATION, RETRY};
    use super::*;

    fn seen(holder: &str, version: &str) -> Option<Seen> {
        Some(Seen { holder: holder.to_owned(), duration: DURATION, version: version.to_owned() })
    }

    #[test]
    fn nobodys_lease_is_taken_and_renewed() {
        let (mut election, now) = (Election::new("a"), Instant::now());
        assert_eq!(election.look(now, None), Move::Take);
        assert!(!election.is_holding(now), "it is not ours before it is written");
        election.wrote(now, seen("a", "1").unwrap());
        assert!(election.is_holding(now + RETRY));
        assert_eq!(election.look(now + RETRY, seen("a", "1")), Move::Renew);
        assert_eq!(Election::new("b").look(now, seen("", "1")), Move::Take, "it was given back");
    }

    #[test]
    fn anothers_lease_is_waited_for_as_long_as_it_is_renewed_and_then_taken() {
        let (mut election, start) = (Election::new("b"), Instant::now());
        let mut now = start;
        for version in 0..100 {
            assert_eq!(election.look(now, seen("a", &version.to_string())), Move::Wait);
            now += RETRY;
        }
        let last = now - RETRY;
        assert_eq!(election.look(last + DURATION, seen("a", "99")), Move::Wait);
        assert_eq!(election.look(last + DURATION + Duration::from_millis(1), seen("a", "99")), Move::Take);
        assert_eq!(election.holder(), "a");
    }

    #[test]
    fn a_holder_that_cannot_renew_gives_up_before_another_may_take_it() {
        let (mut holder, mut other, start) = (Election::new("a"), Election::new("b"), Instant::now());
        holder.wrote(start, seen("a", "1").unwrap());
        // The other one cannot have seen that renewal before it was begun.
        assert_eq!(other.look(start, seen("a", "1")), Move::Wait);
        let mut given_up = None;
        let mut taken = None;
        for millis in (0..30_000).step_by(100) {
            let now = start + Duration::from_millis(millis);
            if !holder.is_holding(now) && given_up.is_none() {
                given_up = Some(millis);
            }
            if other.look(now, seen("a", "1")) == Move::Take && taken.is_none() {
                taken = Some(millis);
            }
        }
        assert!(given_up.unwrap() + 4_000 < taken.unwrap(), "{given_up:?} {taken:?}");
    }

    #[test]
    fn a_lease_that_another_has_taken_is_not_ours_any_more() {
        let (mut election, now) = (Election::new("a"), Instant::now());
        election.wrote(now, seen("a", "1").unwrap());
        assert_eq!(election.look(now + RETRY, seen("b", "2")), Move::Wait);
        assert!(!election.is_holding(now + RETRY));
        election.wrote(now + RETRY, seen("b", "3").unwrap());
        assert!(!election.is_holding(now + RETRY), "what came back is not what we wrote");
    }

    #[test]
    fn a_lease_that_was_written_though_the_answer_was_lost_is_ours() {
        let (mut election, now) = (Election::new("a"), Instant::now());
        assert_eq!(election.look(now, seen("", "7")), Move::Take);
        assert_eq!(election.look(now + RETRY, seen("a", "8")), Move::Take);
    }
}
