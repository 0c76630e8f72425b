//! Containers and pods of which a runtime that is well does not tell, because it waits for something of theirs: when they are asked for again, and
//! what that hides. Pure: `now` is an argument.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

/// First and longest pause before one that did not answer is asked for again. A runtime may keep every question for as long as it lives.
const PAUSE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(120));

/// At least this long between two questions about those that did not answer: the others never wait for them alone.
const BETWEEN: Duration = Duration::from_secs(5);

/// Most that are remembered; one more is asked for at every change of its state.
const DOUBTS_MAX: usize = 1_024;

/// Containers that a blind spot names.
const NAMED_MAX: usize = 5;

/// Those that did not answer.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    by_id: BTreeMap<String, Doubt>,
    /// The next question about one of them may come then.
    next_at: Option<Instant>,
}

#[derive(Debug)]
struct Doubt {
    name: String,
    reason: String,
    due: Instant,
    pause: Duration,
}

impl Doubts {
    /// Whether one is to be left alone until its time has come.
    pub(super) fn holds_back(&self, id: &str, now: Instant) -> bool {
        self.by_id.get(id).is_some_and(|doubt| doubt.due > now)
    }

    /// It did not answer. Returns whether that is new.
    pub(super) fn failed(&mut self, id: &str, name: &str, reason: String, now: Instant) -> bool {
        self.next_at = Some(now + BETWEEN);
        if let Some(known) = self.by_id.get_mut(id) {
            known.pause = known.pause.saturating_mul(2).min(PAUSE.1);
            known.due = now + known.pause;
            known.reason = reason;
            if !name.is_empty() {
                name.clone_into(&mut known.name);
            }
            return false;
        }
        if self.by_id.len() < DOUBTS_MAX {
            let doubt = Doubt { name: name.to_owned(), reason, due: now + PAUSE.0, pause: PAUSE.0 };
            self.by_id.insert(id.to_owned(), doubt);
        }
        true
    }

    /// It answered, or is gone. Returns whether it did not before.
    pub(super) fn answered(&mut self, id: &str) -> bool {
        let did_not = self.by_id.remove(id).is_some();
        if did_not {
            // Whatever it was, it is over: the others may answer as well.
            self.next_at = None;
        }
        did_not
    }

    /// Forgets those that are not there any more.
    pub(super) fn keep_only(&mut self, there: &HashSet<String>) {
        self.by_id.retain(|id, _| there.contains(id));
    }

    /// The next that is to be asked for again.
    pub(super) fn due(&self, now: Instant) -> Option<String> {
        if self.next_at.is_some_and(|at| at > now) {
            return None;
        }
        let due = self.by_id.iter().filter(|(_, doubt)| doubt.due <= now);
        due.min_by_key(|(_, doubt)| doubt.due).map(|(id, _)| id.clone())
    }

    /// When [`Doubts::due`] has one.
    pub(super) fn next(&self) -> Option<Instant> {
        let due = self.by_id.values().map(|doubt| doubt.due).min()?;
        Some(self.next_at.map_or(due, |at| at.max(due)))
    }

    /// What is not seen because of them, for people. `runtime`: its name.
    pub(super) fn blind_spot(&self, runtime: &str) -> Option<String> {
        if self.by_id.is_empty() {
            return None;
        }
        let named = self.by_id.iter().take(NAMED_MAX).map(|(id, Doubt { name, reason, .. })| {
            let id = id.get(..12).unwrap_or(id);
            if name.is_empty() { format!("{id}: {reason}") } else { format!("{name} ({id}): {reason}") }
        });
        let mut named = named.collect::<Vec<_>>().join("; ");
        if let Some(more) = self.by_id.len().checked_sub(NAMED_MAX).filter(|it| *it > 0) {
            named = format!("{named}; and {more} more");
        }
        Some(format!("Containers that {runtime} does not tell everything of, and that are shown as its list has them: {named}."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_does_not_answer_is_asked_for_ever_more_seldom_and_never_all_the_time() {
        let (mut doubts, start) = (Doubts::default(), Instant::now());
        assert!(doubts.failed("a", "web", "no answer".to_owned(), start));
        assert!(doubts.failed("b", "", "no answer".to_owned(), start));
        assert!(doubts.holds_back("a", start + Duration::from_secs(4)) && !doubts.holds_back("c", start));
        assert_eq!((doubts.due(start), doubts.next()), (None, Some(start + PAUSE.0)));
        let later = start + PAUSE.0;
        assert_eq!(doubts.due(later).as_deref(), Some("a"));
        assert!(!doubts.failed("a", "", "no answer".to_owned(), later), "it is known already");
        assert_eq!(doubts.due(later), None, "the other one waits");
        assert_eq!(doubts.next(), Some(later + BETWEEN));
        assert_eq!(doubts.due(later + BETWEEN).as_deref(), Some("b"));
        assert!(doubts.holds_back("a", later + Duration::from_secs(9)) && !doubts.holds_back("a", later + Duration::from_secs(10)));
        for _ in 0..20 {
            doubts.failed("a", "", "no answer".to_owned(), later);
        }
        assert!(!doubts.holds_back("a", later + PAUSE.1), "but it is asked for again");
        let spot = doubts.blind_spot("cri-o").unwrap();
        assert!(spot.contains("cri-o") && spot.contains("web (a): no answer; b: no answer."), "{spot}");
        assert!(doubts.answered("a") && !doubts.answered("a"));
        doubts.keep_only(&HashSet::new());
        assert_eq!((doubts.blind_spot("cri-o"), doubts.next()), (None, None));
    }

    #[test]
    fn many_are_counted_and_not_all_remembered() {
        let (mut doubts, now) = (Doubts::default(), Instant::now());
        for id in 0..DOUBTS_MAX + 5 {
            doubts.failed(&format!("{id:05}"), "", "no answer".to_owned(), now);
        }
        assert_eq!(doubts.by_id.len(), DOUBTS_MAX);
        assert!(doubts.blind_spot("cri-o").unwrap().ends_with(&format!("and {} more.", DOUBTS_MAX - NAMED_MAX)));
    }
}
