//! When a client of a view is due for its next message.
//!
//! What came or went does not wait for the client's own tick. On a large map something always does: then clients are told of it together, at the
//! beats of one clock. They take the same steps, which are worked out and compressed once for all of them, and a page has five messages a second
//! to draw instead of twenty.

use std::time::Duration;

use tokio::time::Instant;

/// Shortest time between two messages, whatever the client says and however much changes.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);
/// Time between two beats of the common clock.
const BEAT: Duration = Duration::from_millis(200);
/// Clients who want messages less often than this have their ticks moved to a beat: they do not see the difference.
const ALIGNED_FROM: Duration = Duration::from_secs(1);

/// The clock that all clients share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beats {
    since: Instant,
}

impl Beats {
    pub(super) fn new(since: Instant) -> Self {
        Beats { since }
    }

    /// The beat at a moment or the last before it.
    fn before(self, at: Instant) -> Instant {
        let passed = at.saturating_duration_since(self.since).as_millis() / BEAT.as_millis();
        self.since + BEAT * u32::try_from(passed).unwrap_or(u32::MAX)
    }

    /// The first beat after a moment.
    fn after(self, at: Instant) -> Instant {
        self.before(at) + BEAT
    }
}

/// One client's rhythm.
#[derive(Debug)]
pub(super) struct Pace {
    beats: Beats,
    interval: Option<Duration>,
    sent_at: Instant,
    next_tick: Option<Instant>,
    early: Option<Instant>,
}

impl Pace {
    /// Of a client who was just sent its first message and wants one each `interval`; with none, only when something comes or goes.
    pub(super) fn new(beats: Beats, interval: Duration, now: Instant) -> Self {
        let interval = (!interval.is_zero()).then(|| interval.max(SHORTEST_INTERVAL));
        let mut pace = Pace { beats, interval, sent_at: now, next_tick: None, early: None };
        pace.next_tick = pace.tick_after(now);
        pace
    }

    /// When the next message is due.
    pub(super) fn due(&self) -> Option<Instant> {
        [self.next_tick, self.early].into_iter().flatten().min()
    }

    /// Whether it is known already that something came or went.
    pub(super) fn is_early(&self) -> bool {
        self.early.is_some()
    }

    /// Something came or went.
    pub(super) fn hurry(&mut self, now: Instant) {
        let apart = self.interval.map_or(BEAT, |interval| interval.min(BEAT));
        let soonest = self.sent_at + SHORTEST_INTERVAL;
        self.early = Some(match () {
            // It is the first for a while.
            () if self.sent_at + apart <= now => now,
            () if apart == BEAT => self.beats.after(now).max(soonest),
            () => soonest,
        });
    }

    /// A message went out, with everything that was known when it was due.
    pub(super) fn sent(&mut self, now: Instant) {
        // Work between the moment that was due and this one must not move the rhythm, unless it took longer than that.
        let due = self.due().filter(|due| *due <= now && now.duration_since(*due) < BEAT).unwrap_or(now);
        self.sent_at = now;
        self.early = None;
        // Ticks that were missed while the client was slow are not made up for.
        self.next_tick = self.tick_after(due).map(|tick| tick.max(now));
    }

    fn tick_after(&self, at: Instant) -> Option<Instant> {
        let interval = self.interval?;
        let tick = at + interval;
        Some(if interval < ALIGNED_FROM { tick } else { self.beats.before(tick) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// When messages go out, if something comes or goes at each of some moments, and each message takes a while.
    fn messages(interval: Duration, begun: u64, changes: &[u64], takes: u64, until: u64) -> Vec<u64> {
        let since = Instant::now();
        let at = |moment: u64| since + millis(moment);
        let mut pace = Pace::new(Beats::new(since), interval, at(begun));
        let mut sent = Vec::new();
        let mut changes = changes.iter().copied().filter(|change| *change > begun).peekable();
        let mut now = begun;
        loop {
            let due = pace.due().map_or(u64::MAX, |due| u64::try_from((due - since).as_millis()).unwrap()).max(now);
            match changes.next_if(|change| *change < due) {
                Some(change) if !pace.is_early() => {
                    now = change.max(now);
                    pace.hurry(at(now));
                }
                Some(_) => {}
                None if due > until => return sent,
                None => {
                    sent.push(due);
                    now = due + takes;
                    pace.sent(at(now));
                }
            }
        }
    }

    #[test]
    fn what_comes_after_a_while_is_told_at_once() {
        assert_eq!(messages(millis(5_000), 0, &[370, 1_111], 0, 3_000), [370, 1_111]);
        assert_eq!(messages(millis(0), 0, &[370, 1_111], 0, 9_000), [370, 1_111]);
    }

    #[test]
    fn what_comes_all_the_time_is_told_to_all_at_the_same_beats() {
        let changes: Vec<u64> = (0..200).map(|n| n * 10 + 1).collect();
        let one = messages(millis(1_000), 0, &changes, 3, 1_500);
        let other = messages(millis(5_000), 77, &changes, 30, 1_500);
        assert_eq!(one, [200, 400, 600, 800, 1_000, 1_200, 1_400]);
        assert_eq!(other, one);
    }

    #[test]
    fn who_wants_messages_more_often_has_them_more_often() {
        assert_eq!(messages(millis(60), 0, &[], 0, 200), [60, 120, 180]);
        assert_eq!(messages(millis(1), 0, &[], 0, 200), [50, 100, 150, 200]);
        let changes: Vec<u64> = (0..200).map(|n| n * 10 + 1).collect();
        assert_eq!(messages(millis(100), 0, &changes, 0, 250), [50, 100, 150, 200, 250]);
    }

    #[test]
    fn ticks_of_many_fall_together_and_are_as_frequent_as_they_were_asked_for() {
        assert_eq!(messages(millis(1_000), 450, &[], 5, 5_000), [1_400, 2_400, 3_400, 4_400]);
        assert_eq!(messages(millis(5_000), 330, &[], 5, 20_000), [5_200, 10_200, 15_200]);
        // A client that is slow is sent what there is, when it can take it.
        assert_eq!(messages(millis(1_000), 0, &[], 1_700, 7_000), [1_000, 3_600, 6_200]);
    }
}
