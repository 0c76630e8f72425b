//! Which containers and images are to be inspected, and when those are asked again of which the daemon would not tell. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum};
use tokio::time::Instant;

/// Inspections of containers at once.
const LOOKS_AT_ONCE: usize = 8;

/// Of these, containers that did not answer before: the others never wait for them alone.
const DOUBTFUL_AT_ONCE: usize = 4;

/// Inspections of images at once.
const IMAGES_AT_ONCE: usize = 4;

/// First and longest pause before a container that did not answer is asked again. A daemon may keep every question for as long as it lives.
const PAUSE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(120));

/// Containers that a blind spot names.
const NAMED_MAX: usize = 5;

/// Those of a list that are followed, and how many are left out. A host may keep thousands that ended: those that run come first, and then the latest.
pub(super) fn followed(mut listed: Vec<ContainerSummary>, most: usize) -> (Vec<ContainerSummary>, usize) {
    listed.sort_by_key(|it| (it.state != Some(ContainerSummaryStateEnum::RUNNING), Reverse(it.created)));
    let left = listed.len().saturating_sub(most);
    listed.truncate(most);
    (listed, left)
}

/// What is asked, what waits to be asked, and what did not answer.
#[derive(Debug, Default)]
pub(super) struct Looks {
    states: HashMap<String, State>,
    /// In the order in which they were wanted; whose state is another one by now is passed over.
    waiting: VecDeque<String>,
    unanswered: BTreeMap<String, Unanswered>,
    /// Those that did not answer and are not being asked, by when they are asked again.
    due: BTreeSet<(Instant, String)>,
    asked: usize,
    asked_doubtful: usize,
    images_waiting: BTreeSet<String>,
    images_asked: BTreeSet<String>,
    last_number: u64,
}

#[derive(Debug)]
enum State {
    Waiting,
    Asked {
        number: u64,
        /// It was wanted again meanwhile: the answer may be older than the reason.
        again: bool,
    },
}

/// A container that does not answer.
#[derive(Debug)]
struct Unanswered {
    name: String,
    reason: String,
    asked_at: Instant,
    pause: Duration,
    due: Instant,
}

/// An inspection that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    number: u64,
    doubtful: bool,
}

/// What an answer is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worth {
    /// Nothing happened since it was asked for.
    Fresh,
    /// Something happened since: it is asked for again.
    Older,
    /// The container was removed meanwhile.
    Nothing,
}

impl Looks {
    /// A container is new or has changed.
    pub(super) fn want(&mut self, id: &str) {
        match self.states.get_mut(id) {
            Some(State::Waiting) => {}
            Some(State::Asked { again, .. }) => *again = true,
            None => match self.unanswered.get_mut(id) {
                // What happens to it is a reason to ask early, but not to ask all the time.
                Some(doubtful) => {
                    let early = doubtful.asked_at + PAUSE.0;
                    if early < doubtful.due {
                        self.due.remove(&(doubtful.due, id.to_owned()));
                        doubtful.due = early;
                        self.due.insert((early, id.to_owned()));
                    }
                }
                None => {
                    self.states.insert(id.to_owned(), State::Waiting);
                    self.waiting.push_back(id.to_owned());
                }
            },
        }
    }

    /// A container was removed.
    pub(super) fn forget(&mut self, id: &str) {
        self.states.remove(id);
        if let Some(doubtful) = self.unanswered.remove(id) {
            self.due.remove(&(doubtful.due, id.to_owned()));
        }
    }

    /// The next container that is to be inspected now. The inspection has to end in [`Looks::ended`].
    pub(super) fn next(&mut self, now: Instant) -> Option<(String, Ticket)> {
        if self.asked >= LOOKS_AT_ONCE {
            return None;
        }
        while let Some(id) = self.waiting.pop_front() {
            if let Some(state @ State::Waiting) = self.states.get_mut(&id) {
                self.last_number += 1;
                self.asked += 1;
                *state = State::Asked { number: self.last_number, again: false };
                return Some((id, Ticket { number: self.last_number, doubtful: false }));
            }
        }
        if self.asked_doubtful >= DOUBTFUL_AT_ONCE || self.due.first().is_none_or(|(at, _)| *at > now) {
            return None;
        }
        let (_, id) = self.due.pop_first()?;
        self.last_number += 1;
        self.asked += 1;
        self.asked_doubtful += 1;
        if let Some(doubtful) = self.unanswered.get_mut(&id) {
            doubtful.asked_at = now;
        }
        self.states.insert(id.clone(), State::Asked { number: self.last_number, again: false });
        Some((id, Ticket { number: self.last_number, doubtful: true }))
    }

    /// When [`Looks::next`] has something without another call.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let may = self.asked < LOOKS_AT_ONCE && self.asked_doubtful < DOUBTFUL_AT_ONCE;
        self.due.first().filter(|_| may).map(|(at, _)| *at)
    }

    /// An inspection has ended.
    pub(super) fn ended(&mut self, id: &str, ticket: Ticket) -> Worth {
        self.asked = self.asked.saturating_sub(1);
        self.asked_doubtful = self.asked_doubtful.saturating_sub(usize::from(ticket.doubtful));
        match self.states.get(id) {
            Some(&State::Asked { number, again }) if number == ticket.number => {
                self.states.remove(id);
                if again { Worth::Older } else { Worth::Fresh }
            }
            _ => Worth::Nothing,
        }
    }

    /// The daemon told of a container. Returns whether it did not before.
    pub(super) fn answered(&mut self, id: &str) -> bool {
        match self.unanswered.remove(id) {
            Some(doubtful) => {
                self.due.remove(&(doubtful.due, id.to_owned()));
                true
            }
            None => false,
        }
    }

    /// The daemon did not tell of a container, which is asked again later. Returns whether that is new.
    pub(super) fn failed(&mut self, id: &str, name: &str, reason: String, asked_at: Instant, now: Instant) -> bool {
        let before = self.unanswered.remove(id);
        let pause = match &before {
            Some(before) => {
                self.due.remove(&(before.due, id.to_owned()));
                before.pause.saturating_mul(2).min(PAUSE.1)
            }
            None => PAUSE.0,
        };
        let due = now + pause;
        self.due.insert((due, id.to_owned()));
        let name = before.as_ref().map(|it| it.name.clone()).filter(|_| name.is_empty()).unwrap_or_else(|| name.to_owned());
        self.unanswered.insert(id.to_owned(), Unanswered { name, reason, asked_at, pause, due });
        before.is_none()
    }

    /// What is not seen because of containers that do not answer, for people.
    pub(super) fn blind_spot(&self) -> Option<String> {
        if self.unanswered.is_empty() {
            return None;
        }
        let named = self.unanswered.iter().take(NAMED_MAX).map(|(id, Unanswered { name, reason, .. })| {
            let id = id.get(..12).unwrap_or(id);
            if name.is_empty() { format!("{id}: {reason}") } else { format!("{name} ({id}): {reason}") }
        });
        let mut named = named.collect::<Vec<_>>().join("; ");
        if let Some(more) = self.unanswered.len().checked_sub(NAMED_MAX).filter(|it| *it > 0) {
            named = format!("{named}; and {more} more");
        }
        Some(format!("Containers that Docker does not tell everything of, and that are shown as its list has them: {named}."))
    }

    /// Whether nothing is being asked and nothing waits to be, but those that did not answer.
    pub(super) fn is_idle(&self) -> bool {
        self.states.is_empty() && self.images_waiting.is_empty() && self.images_asked.is_empty()
    }

    /// An image is used.
    pub(super) fn want_image(&mut self, id: String) {
        if !self.images_asked.contains(&id) {
            self.images_waiting.insert(id);
        }
    }

    /// The next image that is to be inspected now. The inspection has to end in [`Looks::image_ended`].
    pub(super) fn next_image(&mut self) -> Option<String> {
        if self.images_asked.len() >= IMAGES_AT_ONCE {
            return None;
        }
        let id = self.images_waiting.pop_first()?;
        self.images_asked.insert(id.clone());
        Some(id)
    }

    /// The inspection of an image has ended.
    pub(super) fn image_ended(&mut self, id: &str) {
        self.images_asked.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_did_not_answer_leave_room_for_the_others_and_are_asked_ever_more_seldom() {
        let (mut looks, start) = (Looks::default(), Instant::now());
        (0..6).for_each(|number| looks.want(&format!("hung-{number}")));
        for _ in 0..6 {
            let (id, ticket) = looks.next(start).unwrap();
            assert_eq!(looks.ended(&id, ticket), Worth::Fresh);
            assert!(looks.failed(&id, "web", "no answer".to_owned(), start, start));
        }
        assert!(looks.next(start).is_none());
        assert_eq!(looks.next_due(), Some(start + PAUSE.0));
        let later = start + PAUSE.0;
        let asked: Vec<_> = std::iter::from_fn(|| looks.next(later)).collect();
        assert_eq!(asked.len(), DOUBTFUL_AT_ONCE);
        assert_eq!(looks.next_due(), None, "it waits for one of these to end");
        looks.want("well");
        assert_eq!(looks.next(later).map(|(id, _)| id).as_deref(), Some("well"));
        let (id, ticket) = &asked[0];
        looks.ended(id, *ticket);
        assert!(!looks.failed(id, "", "no answer".to_owned(), later, later), "it is known already");
        assert_eq!(looks.unanswered[id].name, "web");
        assert_eq!(looks.unanswered[id].due, later + PAUSE.0 * 2);
        // An event is a reason to ask earlier.
        looks.want(id);
        assert_eq!(looks.unanswered[id].due, later + PAUSE.0);
        let spot = looks.blind_spot().unwrap();
        assert!(spot.contains("web (hung-0): no answer") && spot.ends_with("and 1 more."), "{spot}");
        (0..6).for_each(|number| looks.forget(&format!("hung-{number}")));
        assert_eq!(looks.blind_spot(), None);
        assert!(looks.due.is_empty());
    }

    #[test]
    fn an_answer_is_as_good_as_what_happened_since_it_was_asked_for() {
        let (mut looks, now) = (Looks::default(), Instant::now());
        looks.want("a");
        looks.want("a");
        let (_, ticket) = looks.next(now).unwrap();
        assert!(looks.next(now).is_none(), "wanted twice, asked once");
        looks.want("a");
        assert_eq!(looks.ended("a", ticket), Worth::Older);
        looks.want("a");
        let (_, ticket) = looks.next(now).unwrap();
        looks.forget("a");
        looks.want("a");
        assert_eq!(looks.ended("a", ticket), Worth::Nothing, "it is another one by that id");
        let (id, ticket) = looks.next(now).unwrap();
        assert!(id == "a" && !looks.is_idle());
        assert_eq!(looks.ended(&id, ticket), Worth::Fresh);
        assert!(looks.is_idle());
        looks.want_image("i".to_owned());
        assert_eq!(looks.next_image().as_deref(), Some("i"));
        looks.want_image("i".to_owned());
        assert_eq!(looks.next_image(), None);
        looks.image_ended("i");
        looks.want_image("i".to_owned());
        assert_eq!(looks.next_image().as_deref(), Some("i"));
    }

    #[test]
    fn of_too_many_containers_those_that_run_and_the_latest_are_followed() {
        use ContainerSummaryStateEnum::{EXITED, RUNNING};

        let summary = |(id, created, state): (&str, i64, ContainerSummaryStateEnum)| ContainerSummary {
            id: Some(id.to_owned()),
            created: Some(created),
            state: Some(state),
            ..ContainerSummary::default()
        };
        let all = [("old", 1, EXITED), ("new", 9, EXITED), ("running", 2, RUNNING), ("older", 0, EXITED)].map(summary);
        let (kept, left) = followed(all.to_vec(), 2);
        let ids: Vec<_> = kept.into_iter().filter_map(|it| it.id).collect();
        assert_eq!((ids, left), (vec!["running".to_owned(), "new".to_owned()], 2));
    }
}
