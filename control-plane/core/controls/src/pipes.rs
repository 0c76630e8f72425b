//! Pipes: open, closed, forgotten.
//!
//! The rules are Weave Scope's. Connecting to either end makes the pipe. Both ends may come and go while it is open. Every 30 s pipes are closed
//! of which one end has had nobody connected for a minute, and those are forgotten that were closed 10 minutes before: until then nobody can
//! connect to them, so that a probe which comes back late learns that it may stop.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;

/// A pipe's id, as in its address.
pub type PipeId = Arc<str>;

/// How much may be, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct PipeLimits {
    /// Pipes open at once.
    pub open: usize,
    /// Closed pipes that are remembered. Beyond it the oldest is forgotten early, which makes a late end retry a little longer.
    pub closed: usize,
    /// How long an end may have nobody connected.
    pub idle: Duration,
    /// How long a closed pipe is remembered.
    pub remembered: Duration,
    /// Time between two rounds of housekeeping.
    pub round: Duration,
}

impl PipeLimits {
    /// Scope's times.
    pub const fn scope(open: usize) -> Self {
        PipeLimits {
            open,
            closed: 16_384,
            idle: Duration::from_secs(60),
            remembered: Duration::from_secs(600),
            round: Duration::from_secs(30),
        }
    }
}

/// One of the two ends of a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// Whoever looks at it.
    Client,
    /// Where it was opened.
    Probe,
}

/// Everything that can happen to pipes.
#[derive(Clone, Debug)]
pub enum PipeInput {
    /// Somebody connects. Answered by [`PipeEffect::Attached`] or [`PipeEffect::Refused`].
    Attach {
        /// To which pipe.
        pipe: PipeId,
        /// To which end.
        end: End,
    },
    /// Somebody who was attached has gone.
    Detach {
        /// From which pipe.
        pipe: PipeId,
        /// From which end.
        end: End,
    },
    /// The pipe shall be closed.
    Close {
        /// Which.
        pipe: PipeId,
        /// Why.
        cause: Cause,
    },
    /// Time has passed.
    Tick,
}

/// Everything that follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PipeEffect {
    /// The one who connects is connected.
    Attached {
        /// Whether this made the pipe.
        is_new: bool,
    },
    /// The one who connects is not.
    Refused(PipeRefusal),
    /// The pipe is closed: let both ends go.
    Closed {
        /// Which.
        pipe: PipeId,
        /// Why.
        cause: Cause,
    },
}

/// Why somebody may not connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PipeRefusal {
    /// The pipe is closed.
    Closed,
    /// Too many pipes are open.
    TooMany,
}

/// Why a pipe was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A client asked for it.
    Asked,
    /// What the probe opened came to its end, or the probe closed it.
    Ended,
    /// An end had nobody connected for too long.
    Idle,
    /// The probe that opened it is gone.
    ProbeLost,
    /// An end sent more than the other had made room for.
    Overrun,
}

/// All pipes.
#[derive(Debug)]
pub struct Pipes {
    limits: PipeLimits,
    open: BTreeMap<PipeId, Open>,
    closed: BTreeMap<PipeId, Timestamp>,
    by_closing: BTreeSet<(Timestamp, PipeId)>,
    /// When housekeeping is due; `None` while there is no pipe of any kind.
    round_at: Option<Timestamp>,
}

#[derive(Debug)]
struct Open {
    client: Attached,
    probe: Attached,
}

impl Open {
    fn end(&mut self, end: End) -> &mut Attached {
        match end {
            End::Client => &mut self.client,
            End::Probe => &mut self.probe,
        }
    }
}

/// Who is at an end.
#[derive(Clone, Copy, Debug)]
struct Attached {
    count: usize,
    /// When the last one left; when the pipe was made, before anybody came.
    left_at: Timestamp,
}

impl Attached {
    fn is_idle(self, now: Timestamp, limit: Duration) -> bool {
        self.count == 0 && now.since(self.left_at) >= limit
    }
}

impl Pipes {
    /// No pipes.
    pub fn new(limits: PipeLimits) -> Self {
        Pipes { limits, open: BTreeMap::new(), closed: BTreeMap::new(), by_closing: BTreeSet::new(), round_at: None }
    }

    /// Takes an input in.
    pub fn step(&mut self, now: Timestamp, input: PipeInput, out: &mut Vec<PipeEffect>) {
        match input {
            PipeInput::Attach { pipe, end } => self.attach(now, pipe, end, out),
            PipeInput::Detach { pipe, end } => {
                if let Some(end) = self.open.get_mut(&pipe).map(|open| open.end(end)) {
                    end.count = end.count.saturating_sub(1);
                    if end.count == 0 {
                        end.left_at = now;
                    }
                }
            }
            PipeInput::Close { pipe, cause } => self.close(now, &pipe, cause, out),
            PipeInput::Tick => {
                if self.round_at.is_some_and(|at| at <= now) {
                    self.round(now, out);
                }
            }
        }
        self.schedule(now);
    }

    /// When [`PipeInput::Tick`] has work next.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.round_at
    }

    /// Whether one could connect: so for open pipes and for those that were never heard of.
    pub fn may_connect(&self, pipe: &str) -> bool {
        !self.closed.contains_key(pipe)
    }

    /// Whether the pipe is open, or closed and not forgotten.
    pub fn knows(&self, pipe: &str) -> bool {
        self.open.contains_key(pipe) || self.closed.contains_key(pipe)
    }

    /// How many pipes are open.
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// How many closed pipes are remembered.
    pub fn closed_count(&self) -> usize {
        self.closed.len()
    }

    fn attach(&mut self, now: Timestamp, pipe: PipeId, end: End, out: &mut Vec<PipeEffect>) {
        if self.closed.contains_key(&pipe) {
            out.push(PipeEffect::Refused(PipeRefusal::Closed));
            return;
        }
        let is_new = !self.open.contains_key(&pipe);
        if is_new && self.open.len() >= self.limits.open {
            out.push(PipeEffect::Refused(PipeRefusal::TooMany));
            return;
        }
        let nobody = Attached { count: 0, left_at: now };
        self.open.entry(pipe).or_insert(Open { client: nobody, probe: nobody }).end(end).count += 1;
        out.push(PipeEffect::Attached { is_new });
    }

    fn close(&mut self, now: Timestamp, pipe: &PipeId, cause: Cause, out: &mut Vec<PipeEffect>) {
        if self.open.remove(pipe).is_none() {
            return;
        }
        self.closed.insert(pipe.clone(), now);
        self.by_closing.insert((now, pipe.clone()));
        while self.closed.len() > self.limits.closed
            && let Some((_, oldest)) = self.by_closing.pop_first()
        {
            self.closed.remove(&oldest);
        }
        out.push(PipeEffect::Closed { pipe: pipe.clone(), cause });
    }

    fn round(&mut self, now: Timestamp, out: &mut Vec<PipeEffect>) {
        self.round_at = None;
        let idle = self.limits.idle;
        let is_idle = |open: &Open| open.client.is_idle(now, idle) || open.probe.is_idle(now, idle);
        let idle: Vec<PipeId> = self.open.iter().filter(|(_, open)| is_idle(open)).map(|(pipe, _)| pipe.clone()).collect();
        for pipe in idle {
            self.close(now, &pipe, Cause::Idle, out);
        }
        while let Some((closed_at, _)) = self.by_closing.first()
            && now.since(*closed_at) >= self.limits.remembered
            && let Some((_, pipe)) = self.by_closing.pop_first()
        {
            self.closed.remove(&pipe);
        }
    }

    fn schedule(&mut self, now: Timestamp) {
        let is_empty = self.open.is_empty() && self.closed.is_empty();
        self.round_at = if is_empty { None } else { self.round_at.or(Some(now + self.limits.round)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::EPOCH + Duration::from_secs(seconds)
    }

    fn step(pipes: &mut Pipes, now: u64, input: PipeInput) -> Vec<PipeEffect> {
        let mut out = Vec::new();
        pipes.step(at(now), input, &mut out);
        out
    }

    fn attach(pipes: &mut Pipes, now: u64, pipe: &str, end: End) -> PipeEffect {
        let mut out = step(pipes, now, PipeInput::Attach { pipe: pipe.into(), end });
        assert_eq!(out.len(), 1);
        out.remove(0)
    }

    fn closed(pipe: &str, cause: Cause) -> PipeEffect {
        PipeEffect::Closed { pipe: pipe.into(), cause }
    }

    #[test]
    fn connecting_to_either_end_makes_the_pipe() {
        let mut pipes = Pipes::new(PipeLimits::scope(10));
        assert!(pipes.may_connect("p"));
        assert_eq!(attach(&mut pipes, 0, "p", End::Client), PipeEffect::Attached { is_new: true });
        assert_eq!(attach(&mut pipes, 0, "p", End::Probe), PipeEffect::Attached { is_new: false });
        assert_eq!(attach(&mut pipes, 0, "q", End::Probe), PipeEffect::Attached { is_new: true });
        assert_eq!(pipes.open_count(), 2);
    }

    #[test]
    fn a_closed_pipe_is_closed_for_ten_minutes_and_then_was_never_there() {
        let mut pipes = Pipes::new(PipeLimits::scope(10));
        attach(&mut pipes, 0, "p", End::Client);
        let close = PipeInput::Close { pipe: "p".into(), cause: Cause::Asked };
        assert_eq!(step(&mut pipes, 1, close.clone()), [closed("p", Cause::Asked)]);
        assert_eq!(step(&mut pipes, 2, close), [], "closing twice is closing once");
        assert_eq!(attach(&mut pipes, 3, "p", End::Probe), PipeEffect::Refused(PipeRefusal::Closed));
        assert!(!pipes.may_connect("p") && pipes.knows("p"));
        for now in (30..=630).step_by(30) {
            assert_eq!(step(&mut pipes, now, PipeInput::Tick), []);
        }
        assert!(pipes.may_connect("p") && !pipes.knows("p"));
        assert_eq!(pipes.next_deadline(), None, "nothing is left to do");
    }

    #[test]
    fn an_end_without_anybody_for_a_minute_closes_the_pipe() {
        let mut pipes = Pipes::new(PipeLimits::scope(10));
        attach(&mut pipes, 0, "p", End::Probe);
        assert_eq!(pipes.next_deadline(), Some(at(30)));
        assert_eq!(step(&mut pipes, 30, PipeInput::Tick), []);
        assert_eq!(step(&mut pipes, 60, PipeInput::Tick), [closed("p", Cause::Idle)], "no client ever came");
    }

    #[test]
    fn both_ends_may_come_back_within_a_minute() {
        let mut pipes = Pipes::new(PipeLimits::scope(10));
        attach(&mut pipes, 0, "p", End::Probe);
        attach(&mut pipes, 0, "p", End::Client);
        step(&mut pipes, 10, PipeInput::Detach { pipe: "p".into(), end: End::Client });
        assert_eq!(step(&mut pipes, 60, PipeInput::Tick), [], "gone for 50 s");
        attach(&mut pipes, 65, "p", End::Client);
        step(&mut pipes, 70, PipeInput::Detach { pipe: "p".into(), end: End::Probe });
        assert_eq!(step(&mut pipes, 100, PipeInput::Tick), []);
        assert_eq!(step(&mut pipes, 130, PipeInput::Tick), [closed("p", Cause::Idle)]);
    }

    #[test]
    fn of_two_at_one_end_one_may_go() {
        let mut pipes = Pipes::new(PipeLimits::scope(10));
        attach(&mut pipes, 0, "p", End::Probe);
        attach(&mut pipes, 0, "p", End::Client);
        attach(&mut pipes, 0, "p", End::Client);
        step(&mut pipes, 1, PipeInput::Detach { pipe: "p".into(), end: End::Client });
        assert_eq!(step(&mut pipes, 120, PipeInput::Tick), []);
    }

    #[test]
    fn there_are_only_so_many_open_and_so_many_remembered() {
        let mut pipes = Pipes::new(PipeLimits { closed: 2, ..PipeLimits::scope(1) });
        attach(&mut pipes, 0, "a", End::Client);
        assert_eq!(attach(&mut pipes, 0, "b", End::Client), PipeEffect::Refused(PipeRefusal::TooMany));
        assert_eq!(attach(&mut pipes, 0, "a", End::Probe), PipeEffect::Attached { is_new: false }, "it is there already");
        for (now, pipe) in ["a", "b", "c"].into_iter().enumerate() {
            attach(&mut pipes, now as u64, pipe, End::Client);
            step(&mut pipes, now as u64, PipeInput::Close { pipe: pipe.into(), cause: Cause::Asked });
        }
        assert_eq!((pipes.closed_count(), pipes.knows("a"), pipes.knows("c")), (2, false, true));
    }
}
