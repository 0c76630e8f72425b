//! Calls of controls that wait for an answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;

/// A probe's id, as in its hello.
pub type ProbeId = Arc<str>;

/// One connection of a probe. Never used again, and larger than that of every earlier connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// One call. Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub struct CallLimits {
    /// Calls that wait for one probe at once.
    pub per_probe: usize,
    /// Calls that wait in all.
    pub total: usize,
}

/// Everything that can happen to calls.
#[derive(Clone, Debug)]
pub enum CallInput {
    /// A probe can be reached. A link that it had before is void.
    Linked {
        /// Whose.
        probe: ProbeId,
        /// The way.
        link: LinkId,
    },
    /// A link has ended. Nothing happens when a newer one has taken its place.
    Unlinked {
        /// Whose.
        probe: ProbeId,
        /// Which.
        link: LinkId,
    },
    /// Somebody calls a control of a probe.
    Called {
        /// Number of the call.
        call: CallId,
        /// Which probe.
        probe: ProbeId,
        /// How long to wait for the answer.
        patience: Duration,
    },
    /// An answer came in.
    Answered {
        /// On which link.
        link: LinkId,
        /// To which call.
        call: CallId,
    },
    /// Time has passed.
    Tick,
}

/// Everything that follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallEffect {
    /// Send the call to the probe.
    Send {
        /// Which.
        call: CallId,
        /// Where.
        link: LinkId,
    },
    /// Hand the answer to whoever waits for it.
    Deliver {
        /// Which.
        call: CallId,
    },
    /// Tell whoever waits that no answer will come.
    Fail {
        /// Which.
        call: CallId,
        /// Why.
        failure: CallFailure,
    },
    /// An answer that nobody waits for: undo what it has opened.
    Stray {
        /// On which link.
        link: LinkId,
    },
    /// The link is void: end it.
    Displaced {
        /// Which.
        link: LinkId,
    },
}

/// Why there will be no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFailure {
    /// The probe has no link.
    NotConnected,
    /// Too many calls wait already.
    TooMany,
    /// The probe's link ended, or a newer one took its place, before it answered.
    ProbeLost,
    /// The probe has not answered in time.
    TimedOut,
}

/// All calls that wait.
#[derive(Debug)]
pub struct Calls {
    limits: CallLimits,
    links: BTreeMap<ProbeId, LinkId>,
    waiting: BTreeMap<CallId, Waiting>,
    by_link: BTreeSet<(LinkId, CallId)>,
    deadlines: BTreeSet<(Timestamp, CallId)>,
}

#[derive(Debug)]
struct Waiting {
    link: LinkId,
    deadline: Timestamp,
}

impl Calls {
    /// No calls, no probes.
    pub fn new(limits: CallLimits) -> Self {
        Calls { limits, links: BTreeMap::new(), waiting: BTreeMap::new(), by_link: BTreeSet::new(), deadlines: BTreeSet::new() }
    }

    /// Takes an input in.
    pub fn step(&mut self, now: Timestamp, input: CallInput, out: &mut Vec<CallEffect>) {
        match input {
            CallInput::Linked { probe, link } => self.linked(probe, link, out),
            CallInput::Unlinked { probe, link } => {
                if self.links.get(&probe) == Some(&link) {
                    self.links.remove(&probe);
                }
                self.fail_all(link, out);
            }
            CallInput::Called { call, probe, patience } => self.called(now, call, &probe, patience, out),
            CallInput::Answered { link, call } => {
                if self.by_link.contains(&(link, call)) {
                    self.settle(call);
                    out.push(CallEffect::Deliver { call });
                } else {
                    out.push(CallEffect::Stray { link });
                }
            }
            CallInput::Tick => {
                while let Some(&(deadline, call)) = self.deadlines.first()
                    && deadline <= now
                {
                    self.settle(call);
                    out.push(CallEffect::Fail { call, failure: CallFailure::TimedOut });
                }
            }
        }
        debug_assert!(self.check().is_ok(), "{:?}", self.check());
    }

    /// When [`CallInput::Tick`] has work next.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// How many calls wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How a probe can be reached.
    pub fn link_of(&self, probe: &str) -> Option<LinkId> {
        self.links.get(probe).copied()
    }

    fn linked(&mut self, probe: ProbeId, link: LinkId, out: &mut Vec<CallEffect>) {
        match self.links.get(&probe) {
            // Two came at once, and this one lost.
            Some(&newer) if newer > link => out.push(CallEffect::Displaced { link }),
            _ => {
                if let Some(older) = self.links.insert(probe, link).filter(|older| *older != link) {
                    out.push(CallEffect::Displaced { link: older });
                    self.fail_all(older, out);
                }
            }
        }
    }

    fn called(&mut self, now: Timestamp, call: CallId, probe: &str, patience: Duration, out: &mut Vec<CallEffect>) {
        let Some(&link) = self.links.get(probe) else {
            out.push(CallEffect::Fail { call, failure: CallFailure::NotConnected });
            return;
        };
        let of_link = self.by_link.range((link, CallId(0))..=(link, CallId(u64::MAX))).take(self.limits.per_probe).count();
        if self.waiting.len() >= self.limits.total || of_link >= self.limits.per_probe {
            out.push(CallEffect::Fail { call, failure: CallFailure::TooMany });
            return;
        }
        let deadline = now + patience;
        self.waiting.insert(call, Waiting { link, deadline });
        self.by_link.insert((link, call));
        self.deadlines.insert((deadline, call));
        out.push(CallEffect::Send { call, link });
    }

    fn fail_all(&mut self, link: LinkId, out: &mut Vec<CallEffect>) {
        let lost: Vec<CallId> = self.by_link.range((link, CallId(0))..=(link, CallId(u64::MAX))).map(|&(_, call)| call).collect();
        for call in lost {
            self.settle(call);
            out.push(CallEffect::Fail { call, failure: CallFailure::ProbeLost });
        }
    }

    fn settle(&mut self, call: CallId) {
        if let Some(Waiting { link, deadline }) = self.waiting.remove(&call) {
            self.by_link.remove(&(link, call));
            self.deadlines.remove(&(deadline, call));
        }
    }

    fn check(&self) -> Result<(), String> {
        let agree = self.waiting.len() == self.by_link.len() && self.waiting.len() == self.deadlines.len();
        if !agree {
            return Err(format!("{} wait, {} by link, {} by deadline", self.waiting.len(), self.by_link.len(), self.deadlines.len()));
        }
        if self.waiting.len() > self.limits.total {
            return Err("more wait than may".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: CallLimits = CallLimits { per_probe: 2, total: 3 };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::EPOCH + Duration::from_secs(seconds)
    }

    fn step(calls: &mut Calls, now: u64, input: CallInput) -> Vec<CallEffect> {
        let mut out = Vec::new();
        calls.step(at(now), input, &mut out);
        out
    }

    fn linked(calls: &mut Calls, probe: &str, link: u64) -> Vec<CallEffect> {
        step(calls, 0, CallInput::Linked { probe: probe.into(), link: LinkId(link) })
    }

    fn called(call: u64, probe: &str) -> CallInput {
        CallInput::Called { call: CallId(call), probe: probe.into(), patience: Duration::from_secs(10) }
    }

    fn failed(call: u64, failure: CallFailure) -> CallEffect {
        CallEffect::Fail { call: CallId(call), failure }
    }

    #[test]
    fn a_call_is_sent_answered_and_delivered_once() {
        let mut calls = Calls::new(LIMITS);
        linked(&mut calls, "a", 1);
        assert_eq!(step(&mut calls, 0, called(7, "a")), [CallEffect::Send { call: CallId(7), link: LinkId(1) }]);
        let answered = CallInput::Answered { link: LinkId(1), call: CallId(7) };
        assert_eq!(step(&mut calls, 1, answered.clone()), [CallEffect::Deliver { call: CallId(7) }]);
        assert_eq!(step(&mut calls, 1, answered), [CallEffect::Stray { link: LinkId(1) }]);
        assert_eq!((calls.waiting(), calls.next_deadline()), (0, None));
    }

    #[test]
    fn a_probe_that_is_not_there_is_said_at_once() {
        let mut calls = Calls::new(LIMITS);
        assert_eq!(step(&mut calls, 0, called(1, "a")), [failed(1, CallFailure::NotConnected)]);
    }

    #[test]
    fn a_probe_that_vanishes_fails_its_calls_at_once_and_no_others() {
        let mut calls = Calls::new(LIMITS);
        linked(&mut calls, "a", 1);
        linked(&mut calls, "b", 2);
        step(&mut calls, 0, called(1, "a"));
        step(&mut calls, 0, called(2, "b"));
        let unlinked = CallInput::Unlinked { probe: "a".into(), link: LinkId(1) };
        assert_eq!(step(&mut calls, 1, unlinked), [failed(1, CallFailure::ProbeLost)]);
        assert_eq!(calls.waiting(), 1);
        assert_eq!(step(&mut calls, 1, called(3, "a")), [failed(3, CallFailure::NotConnected)]);
    }

    #[test]
    fn a_later_link_replaces_the_earlier_and_an_earlier_one_that_comes_late_does_not() {
        let mut calls = Calls::new(LIMITS);
        linked(&mut calls, "a", 1);
        step(&mut calls, 0, called(1, "a"));
        assert_eq!(linked(&mut calls, "a", 5), [CallEffect::Displaced { link: LinkId(1) }, failed(1, CallFailure::ProbeLost)]);
        assert_eq!(linked(&mut calls, "a", 3), [CallEffect::Displaced { link: LinkId(3) }]);
        // The end of the one that was replaced changes nothing.
        assert_eq!(step(&mut calls, 1, CallInput::Unlinked { probe: "a".into(), link: LinkId(1) }), []);
        assert_eq!(calls.link_of("a"), Some(LinkId(5)));
    }

    #[test]
    fn a_call_without_an_answer_ends_at_its_deadline() {
        let mut calls = Calls::new(LIMITS);
        linked(&mut calls, "a", 1);
        step(&mut calls, 5, called(1, "a"));
        assert_eq!(calls.next_deadline(), Some(at(15)));
        assert_eq!(step(&mut calls, 14, CallInput::Tick), []);
        assert_eq!(step(&mut calls, 15, CallInput::Tick), [failed(1, CallFailure::TimedOut)]);
        assert_eq!(step(&mut calls, 16, CallInput::Answered { link: LinkId(1), call: CallId(1) }), [CallEffect::Stray { link: LinkId(1) }]);
    }

    #[test]
    fn an_answer_on_another_probes_link_is_none() {
        let mut calls = Calls::new(LIMITS);
        linked(&mut calls, "a", 1);
        linked(&mut calls, "b", 2);
        step(&mut calls, 0, called(1, "a"));
        assert_eq!(step(&mut calls, 1, CallInput::Answered { link: LinkId(2), call: CallId(1) }), [CallEffect::Stray { link: LinkId(2) }]);
        assert_eq!(calls.waiting(), 1);
    }

    #[test]
    fn beyond_the_limits_calls_are_refused() {
        let mut calls = Calls::new(LIMITS);
        linked(&mut calls, "a", 1);
        linked(&mut calls, "b", 2);
        step(&mut calls, 0, called(1, "a"));
        step(&mut calls, 0, called(2, "a"));
        assert_eq!(step(&mut calls, 0, called(3, "a")), [failed(3, CallFailure::TooMany)]);
        step(&mut calls, 0, called(4, "b"));
        assert_eq!(step(&mut calls, 0, called(5, "b")), [failed(5, CallFailure::TooMany)]);
    }
}
