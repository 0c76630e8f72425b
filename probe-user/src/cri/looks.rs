//! Which containers a runtime is asked for, and when: at once when the kernel or the runtime says that something happened, again a little later
//! while the answer is not what was expected, never too often. Pure: `now` is an argument.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// The pauses before the first, second and third look. The kernel makes and removes a cgroup before the runtime writes down that it did.
const PAUSES: [Duration; 4] = [Duration::ZERO, Duration::from_millis(100), Duration::from_millis(400), Duration::from_millis(1_500)];

/// A runtime that does not know a container is not asked for it again for this long.
const UNKNOWN_FOR: Duration = Duration::from_secs(30);

/// Looks a second, and at once.
const LOOKS_PER_SECOND: f64 = 25.0;
const LOOKS_BURST: f64 = 100.0;

/// Containers that wait, and that are remembered as unknown, at most.
const WAITING_MAX: usize = 256;
const UNKNOWN_MAX: usize = 1_024;

/// One look that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// Of which container or pod.
    pub(super) id: Arc<str>,
    attempt: usize,
}

/// Looks that wait.
#[derive(Debug)]
pub(super) struct Looks {
    waiting: VecDeque<(Instant, Look)>,
    unknown: HashMap<Arc<str>, Instant>,
    left: f64,
    filled_at: Instant,
}

impl Looks {
    pub(super) fn new(now: Instant) -> Self {
        Looks { waiting: VecDeque::new(), unknown: HashMap::new(), left: LOOKS_BURST, filled_at: now }
    }

    /// Something happened to a container. Returns whether it will be looked at; otherwise a list has to do.
    pub(super) fn want(&mut self, id: Arc<str>, now: Instant) -> bool {
        if self.unknown.get(&id).is_some_and(|until| *until > now) {
            return true;
        }
        if let Some((at, _)) = self.waiting.iter_mut().find(|(_, look)| look.id == id) {
            *at = (*at).min(now + PAUSES[1]);
            return true;
        }
        self.schedule(Look { id, attempt: 0 }, now)
    }

    /// The answer is not what was expected: it may be a moment later. Returns whether there will be another look.
    pub(super) fn again(&mut self, look: Look, now: Instant) -> bool {
        let look = Look { attempt: look.attempt + 1, ..look };
        look.attempt < PAUSES.len() && self.schedule(look, now)
    }

    /// The runtime does not know it.
    pub(super) fn unknown(&mut self, id: Arc<str>, now: Instant) {
        if self.unknown.len() >= UNKNOWN_MAX {
            self.unknown.retain(|_, until| *until > now);
        }
        if self.unknown.len() < UNKNOWN_MAX {
            self.unknown.insert(id, now + UNKNOWN_FOR);
        }
    }

    /// The next look, if one is due and the budget allows it.
    pub(super) fn due(&mut self, now: Instant) -> Option<Look> {
        let position = self.waiting.iter().position(|(at, _)| *at <= now)?;
        self.left = (self.left + now.duration_since(self.filled_at).as_secs_f64() * LOOKS_PER_SECOND).min(LOOKS_BURST);
        self.filled_at = now;
        if self.left < 1.0 {
            return None;
        }
        self.left -= 1.0;
        self.waiting.remove(position).map(|(_, look)| look)
    }

    /// When [`Looks::due`] has one.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let at = self.waiting.iter().map(|(at, _)| *at).min()?;
        let short = (1.0 - self.left - now.duration_since(self.filled_at).as_secs_f64() * LOOKS_PER_SECOND).max(0.0);
        Some(at.max(now + Duration::from_secs_f64(short / LOOKS_PER_SECOND)))
    }

    fn schedule(&mut self, look: Look, now: Instant) -> bool {
        let has_room = self.waiting.len() < WAITING_MAX;
        if has_room {
            let pause = PAUSES.get(look.attempt).copied().unwrap_or_default();
            self.waiting.push_back((now + pause, look));
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_looked_at_at_once_and_again_until_it_is_settled() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut looks = Looks::new(start);
        assert!(looks.want("a".into(), start) && looks.want("a".into(), start));
        let look = looks.due(start).unwrap();
        assert_eq!((&*look.id, looks.due(start)), ("a", None));
        assert!(looks.again(look, start));
        assert_eq!(looks.next(start), Some(at(100)));
        assert_eq!(looks.due(at(99)), None);
        let look = looks.due(at(100)).unwrap();
        assert!(looks.again(look, at(100)));
        let look = looks.due(at(500)).unwrap();
        assert!(looks.again(look, at(500)));
        let look = looks.due(at(2_000)).unwrap();
        assert!(!looks.again(look, at(2_000)), "then it is left to the next list");
        assert_eq!(looks.next(at(2_000)), None);
    }

    #[test]
    fn what_a_runtime_does_not_know_is_not_asked_for_half_a_minute() {
        let start = Instant::now();
        let mut looks = Looks::new(start);
        looks.unknown("a".into(), start);
        assert!(looks.want("a".into(), start + Duration::from_secs(29)));
        assert_eq!(looks.next(start + Duration::from_secs(29)), None);
        looks.want("a".into(), start + Duration::from_secs(31));
        assert!(looks.due(start + Duration::from_secs(31)).is_some());
        (0..UNKNOWN_MAX * 2).for_each(|id| looks.unknown(id.to_string().into(), start));
        assert!(looks.unknown.len() <= UNKNOWN_MAX);
    }

    #[test]
    fn a_storm_is_held_back() {
        let start = Instant::now();
        let mut looks = Looks::new(start);
        let taken = (0..1_000).filter(|id| looks.want(id.to_string().into(), start)).count();
        assert_eq!(taken, WAITING_MAX);
        assert_eq!(std::iter::from_fn(|| looks.due(start)).count(), 100);
        let next = looks.next(start).unwrap();
        assert!(next > start && next <= start + Duration::from_millis(41), "{:?}", next - start);
        assert!(looks.due(next).is_some());
        assert_eq!(std::iter::from_fn(|| looks.due(start + Duration::from_secs(1))).count(), 24);
    }
}
