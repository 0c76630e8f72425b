//! How long an agent waits before it registers again. Knows no clock and no chance: whoever asks waits for some part of it.

use std::time::Duration;

use super::BACKOFF_MAX;

/// Longest pause while no master answers or none leads. When one does, agents come back within it.
const AWAY_MAX: Duration = Duration::from_secs(3);
/// The same when that lasts: twenty thousand that ask every second keep masters from what they have to do.
const LONG_AWAY_MAX: Duration = Duration::from_secs(15);
/// Rounds after which it lasts: about half a minute.
const LONG_AWAY: usize = 20;

/// How an attempt to have a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The agent was registered, and the stream broke.
    Broken,
    /// Nobody answered, or who did does not lead or has not recovered yet.
    Away,
    /// Who answered knows who leads.
    SentOn,
    /// The agent is not wanted as it is.
    Refused,
}

/// The pauses of one agent.
#[derive(Clone, Debug)]
pub(super) struct Pauses {
    first: Duration,
    /// How many addresses it has to try.
    addresses: usize,
    /// The next pause while nobody leads.
    away: Duration,
    /// How many of these there were.
    rounds: usize,
    /// The next pause after a refusal.
    refused: Duration,
    /// How many attempts there were since the last pause.
    tried: usize,
    /// Whether one of them was sent on.
    was_sent_on: bool,
}

impl Pauses {
    /// Of an agent that begins with `first` and has so many addresses of masters.
    pub(super) fn new(first: Duration, addresses: usize) -> Pauses {
        Pauses { first, addresses, away: first, rounds: 0, refused: first, tried: 0, was_sent_on: false }
    }

    /// The longest pause after an attempt that ended so.
    pub(super) fn after(&mut self, attempt: Attempt) -> Duration {
        self.tried += 1;
        match attempt {
            Attempt::Broken => {
                *self = Pauses::new(self.first, self.addresses);
                self.first
            }
            // It is not sent to and fro without a pause: who is named may be gone already.
            Attempt::SentOn if !self.was_sent_on => {
                self.was_sent_on = true;
                Duration::ZERO
            }
            // The next address may be of the one that leads.
            Attempt::Away if self.tried < self.addresses => Duration::ZERO,
            Attempt::Away | Attempt::SentOn => {
                // Whoever wants longer ones from the begin has more agents than masters bear.
                let longest = if self.rounds < LONG_AWAY { AWAY_MAX } else { LONG_AWAY_MAX }.max(self.first);
                self.rounds += 1;
                self.begin_again();
                let pause = self.away;
                self.away = pause.saturating_mul(2).min(longest);
                pause
            }
            Attempt::Refused => {
                self.begin_again();
                let pause = self.refused;
                self.refused = pause.saturating_mul(2).min(BACKOFF_MAX);
                pause
            }
        }
    }

    fn begin_again(&mut self) {
        (self.tried, self.was_sent_on) = (0, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(pauses: &mut Pauses, attempts: &[Attempt]) -> Vec<u64> {
        attempts.iter().map(|it| pauses.after(*it).as_secs()).collect()
    }

    #[test]
    fn an_agent_comes_back_soon_after_a_master_leads_however_long_none_did() {
        let mut pauses = Pauses::new(Duration::from_secs(1), 1);
        assert_eq!(seconds(&mut pauses, &[Attempt::Broken]), [1]);
        assert_eq!(seconds(&mut pauses, &[Attempt::Away; 5]), [1, 2, 3, 3, 3]);
        assert_eq!(seconds(&mut pauses, &[Attempt::Away; 20])[15..], [3, 6, 12, 15, 15]);
        assert_eq!(seconds(&mut pauses, &[Attempt::Broken, Attempt::Away]), [1, 1]);
        // All addresses are tried before it waits.
        let mut pauses = Pauses::new(Duration::from_secs(1), 3);
        assert_eq!(seconds(&mut pauses, &[Attempt::Away; 7]), [0, 0, 1, 0, 0, 2, 0]);
        let mut pauses = Pauses::new(Duration::from_secs(10), 1);
        assert_eq!(seconds(&mut pauses, &[Attempt::Away; 3]), [10, 10, 10]);
    }

    #[test]
    fn an_agent_goes_at_once_where_it_is_sent_but_not_to_and_fro() {
        let mut pauses = Pauses::new(Duration::from_secs(1), 2);
        assert_eq!(seconds(&mut pauses, &[Attempt::SentOn; 4]), [0, 1, 0, 2]);
        // The one that is named is gone, and the other has not heard of it.
        assert_eq!(seconds(&mut pauses, &[Attempt::SentOn, Attempt::Away, Attempt::SentOn, Attempt::Away]), [0, 3, 0, 3]);
    }

    #[test]
    fn an_agent_that_is_not_wanted_asks_ever_more_seldom_even_where_it_is_replaced_each_time() {
        let mut pauses = Pauses::new(Duration::from_secs(1), 1);
        assert_eq!(seconds(&mut pauses, &[Attempt::Refused; 8]), [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(seconds(&mut pauses, &[Attempt::Away, Attempt::Refused, Attempt::Broken, Attempt::Refused]), [1, 60, 1, 1]);
    }
}
