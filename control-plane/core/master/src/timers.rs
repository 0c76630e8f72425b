use std::collections::{BTreeMap, BTreeSet};

use base::Timestamp;
use mesos::{AgentId, FrameworkId, OfferId};

/// What happens at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Everything is offered.
    Allocation,
    /// What waited for an event is offered.
    EventAllocation,
    /// An agent is asked whether it lives.
    Ping(AgentId),
    /// A framework that did not come back is removed.
    Failover(FrameworkId),
    /// An offer ends.
    OfferTimeout(OfferId),
    /// Agents of the registry that did not come back are unreachable.
    Reregistration,
    /// The next agent may become unreachable.
    Removal,
    /// Unreachable and gone agents of the registry are looked through.
    RegistryGc,
    /// Offers begin although agents are missing.
    AllocatorRecovery,
}

/// What is due when; each timer once.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    by_time: BTreeSet<(Timestamp, Timer)>,
    by_timer: BTreeMap<Timer, Timestamp>,
}

impl Timers {
    /// Sets a timer, instead of an earlier setting.
    pub(crate) fn set(&mut self, timer: Timer, at: Timestamp) {
        if let Some(before) = self.by_timer.insert(timer.clone(), at) {
            self.by_time.remove(&(before, timer.clone()));
        }
        self.by_time.insert((at, timer));
    }

    /// Sets a timer unless it is set.
    pub(crate) fn set_if_absent(&mut self, timer: Timer, at: Timestamp) {
        if !self.by_timer.contains_key(&timer) {
            self.set(timer, at);
        }
    }

    pub(crate) fn cancel(&mut self, timer: &Timer) {
        if let Some(at) = self.by_timer.remove(timer) {
            self.by_time.remove(&(at, timer.clone()));
        }
    }

    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes out what is due.
    pub(crate) fn pop(&mut self, now: Timestamp) -> Option<Timer> {
        if self.by_time.first().is_none_or(|(at, _)| *at > now) {
            return None;
        }
        let (_, timer) = self.by_time.pop_first()?;
        self.by_timer.remove(&timer);
        Some(timer)
    }
}
