//! What is to be looked at when. Nothing is ever taken back: who is woken looks whether it still has to.

use std::collections::BTreeSet;

use base::Timestamp;

use super::words::Subject;
use super::{Effect, Scheduler};
use crate::id::{InstanceId, PathId};

/// What is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Reconcile,
    ScaleCheck,
    Tokens,
    Revive,
    /// A launch that may have got stuck.
    Launch(InstanceId, u32),
    /// An instance whose agent cannot be reached.
    Unreachable(InstanceId),
    /// A kill to be asked for again.
    Kill(InstanceId),
    /// An app that may be launched again.
    Delay(PathId),
    Probe(Subject),
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    set: BTreeSet<(Timestamp, Timer)>,
}

impl Timers {
    pub(super) fn add(&mut self, at: Timestamp, timer: Timer) {
        self.set.insert((at, timer));
    }

    pub(super) fn next(&self) -> Option<Timestamp> {
        self.set.first().map(|(at, _)| *at)
    }

    pub(super) fn pop(&mut self, now: Timestamp) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        self.set.pop_first().map(|(_, timer)| timer)
    }
}

impl Scheduler {
    pub(super) fn on_timer(&mut self, now: Timestamp, timer: Timer, out: &mut Vec<Effect>) {
        match timer {
            Timer::Reconcile => self.reconcile(now, out),
            Timer::ScaleCheck => {
                self.timers.add(now + self.config.scale_apps_interval, Timer::ScaleCheck);
                let all: Vec<PathId> = self.root.specs().map(|(id, _)| id.clone()).collect();
                self.dirty.extend(all);
            }
            Timer::Tokens => {
                self.timers.add(now + self.config.launch_token_refresh_interval, Timer::Tokens);
                let was_empty = self.tokens == 0;
                self.tokens = self.config.launch_tokens;
                if was_empty {
                    self.demand_everything();
                }
            }
            // Looked at whenever things settle.
            Timer::Revive => {}
            Timer::Launch(id, incarnation) => self.on_launch_overdue(now, &id, incarnation, out),
            Timer::Unreachable(id) => self.on_unreachable_due(now, &id, out),
            Timer::Kill(id) => self.on_kill_due(now, &id),
            Timer::Delay(spec) => self.on_delay_due(now, &spec),
            Timer::Probe(subject) => {
                self.probes_due.insert(subject);
            }
        }
    }
}
