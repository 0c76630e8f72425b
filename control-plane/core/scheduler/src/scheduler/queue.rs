//! What waits for offers, how long it has to wait after failures, and why offers were not used.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;

use super::timers::Timer;
use super::words::{Answer, Orphan, Record, Refusal, Ticket};
use super::{Effect, Scheduler};
use crate::id::{InstanceId, PathId};
use crate::instance::Instance;
use crate::matching::{Reason, reserved};
use crate::mesos::{Call, INSTANCE_LABEL, Offer, Resource};
use crate::model::spec::Spec;

/// Instances whose reservations are looked for at once. Those of others are given back when they happen to be offered.
const ORPHANS_MAX: usize = 1_000;
/// How long a reservation is looked for: its agent may be gone with it.
const ORPHANS_FOR: Duration = Duration::from_secs(600);
/// How long a reservation that was given back may turn up again, because the master never heard of it or refused.
const GIVEN_BACK_FOR: Duration = Duration::from_secs(10);
/// Offers that are remembered per app.
const UNUSED_OFFERS_MAX: usize = 25;

/// What is known of the offers that were looked at for one app or pod.
#[derive(Debug)]
pub(super) struct QueueEntry {
    pub(super) role: String,
    since: Timestamp,
    processed: u64,
    unused: u64,
    last_used: Option<Timestamp>,
    last_unused: Option<Timestamp>,
    /// Offers by the first reason why they were not used.
    declined: [u64; Reason::ALL.len()],
    unused_offers: VecDeque<Unused>,
}

/// An offer that was not used.
#[derive(Clone, Debug)]
pub struct Unused {
    /// Which.
    pub offer: Arc<Offer>,
    /// Why.
    pub reasons: Vec<Reason>,
    /// When.
    pub at: Timestamp,
}

/// A waiting app or pod, for who asks.
#[derive(Clone, Debug)]
pub struct QueueItem {
    /// What waits.
    pub spec: Spec,
    /// In which role.
    pub role: String,
    /// How many.
    pub count: u32,
    /// Since when.
    pub since: Timestamp,
    /// Until when it waits after failures; none: it does not.
    pub delayed_until: Option<Timestamp>,
    /// Offers looked at.
    pub processed: u64,
    /// Offers not used.
    pub unused: u64,
    /// When one was last used.
    pub last_used: Option<Timestamp>,
    /// When one was last not used.
    pub last_unused: Option<Timestamp>,
    /// Offers of this attempt by the first reason against them.
    pub declined: [u64; Reason::ALL.len()],
    /// The latest offers that were not used.
    pub unused_offers: Vec<Unused>,
}

/// How long an app waits after failures. Forgotten by a restart, as ever.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delay {
    failures: i32,
    pub(super) until: Timestamp,
    /// Version of the configuration that failed.
    config: Timestamp,
}

impl Scheduler {
    /// Whether something of `spec` waits may have changed; `more` says that something waits that did not before.
    pub(super) fn queue_changed(&mut self, now: Timestamp, spec: &PathId, waits: bool, more: bool) {
        if !waits {
            self.queue.remove(spec);
            return;
        }
        let Some(role) = self.root.spec(spec).map(|spec| spec.role().to_owned()) else { return };
        if self.queue.get(spec).is_some_and(|entry| entry.role == role) {
            if more {
                self.demand.insert(role);
            }
            return;
        }
        self.demand.insert(role.clone());
        self.roles_wanted(&role);
        let entry = QueueEntry {
            role,
            since: now,
            processed: 0,
            unused: 0,
            last_used: None,
            last_unused: None,
            declined: [0; Reason::ALL.len()],
            unused_offers: VecDeque::new(),
        };
        self.queue.insert(spec.clone(), entry);
    }

    fn roles_wanted(&mut self, role: &str) {
        if !self.roles.contains(role) {
            self.roles.insert(role.to_owned());
            self.roles_changed = true;
        }
    }

    pub(super) fn demand_everything(&mut self) {
        self.demand.extend(self.queue.values().map(|entry| entry.role.clone()));
    }

    /// Counts a failure of an instance launched with `spec`.
    pub(super) fn count_failure(&mut self, now: Timestamp, spec: &Spec) {
        let backoff = spec.backoff();
        let most = Duration::from_secs_f64(backoff.max_launch_delay_seconds.clamp(0.0, 1e9));
        let config = spec.config_version();
        let known = self.delays.get(spec.id()).filter(|delay| delay.config == config && now <= delay.until + most);
        let failures = known.map_or(0, |delay| delay.failures).saturating_add(1);
        let seconds = backoff.seconds * backoff.factor.powi(failures - 1);
        let wait = Duration::from_secs_f64(if seconds.is_finite() { seconds.clamp(0.0, 1e9) } else { 1e9 }).min(most);
        let until = now + wait;
        self.delays.insert(spec.id().clone(), Delay { failures, until, config });
        self.timers.add(until, Timer::Delay(spec.id().clone()));
    }

    /// Until when `spec` has to wait.
    pub(super) fn delayed_until(&self, now: Timestamp, spec: &Spec) -> Option<Timestamp> {
        self.delays.get(spec.id()).filter(|delay| delay.config == spec.config_version() && delay.until > now).map(|delay| delay.until)
    }

    pub(super) fn reset_delay(&mut self, spec: &PathId) {
        self.delays.remove(spec);
        if let Some(entry) = self.queue.get(spec) {
            self.demand.insert(entry.role.clone());
        }
    }

    pub(super) fn on_reset_delay(&mut self, ticket: Ticket, spec: &PathId, out: &mut Vec<Effect>) {
        let answer = if self.queue.contains_key(spec) {
            self.reset_delay(spec);
            Answer::Done
        } else {
            Answer::Refused(Refusal::NotQueued(spec.clone()))
        };
        out.push(Effect::Reply(ticket, answer));
    }

    pub(super) fn on_delay_due(&mut self, now: Timestamp, spec: &PathId) {
        let Some(delay) = self.delays.get(spec) else { return };
        let Some(definition) = self.root.spec(spec) else {
            self.delays.remove(spec);
            return;
        };
        // Kept for as long as another failure would build upon it.
        let most = Duration::from_secs_f64(definition.backoff().max_launch_delay_seconds.clamp(0.0, 1e9));
        let forgotten_at = delay.until + most;
        if now >= forgotten_at {
            self.delays.remove(spec);
        } else {
            self.timers.add(forgotten_at, Timer::Delay(spec.clone()));
        }
        if let Some(entry) = self.queue.get(spec) {
            self.demand.insert(entry.role.clone());
        }
    }

    pub(super) fn offer_used(&mut self, now: Timestamp, spec: &PathId) {
        if let Some(entry) = self.queue.get_mut(spec) {
            entry.processed += 1;
            entry.last_used = Some(now);
        }
    }

    pub(super) fn offer_unused(&mut self, now: Timestamp, spec: &PathId, offer: &Arc<Offer>, reasons: Vec<Reason>) {
        let Some(entry) = self.queue.get_mut(spec) else { return };
        entry.processed += 1;
        entry.unused += 1;
        entry.last_unused = Some(now);
        if let Some(first) = reasons.first() {
            entry.declined[*first as usize] += 1;
        }
        // One per agent: the latest.
        entry.unused_offers.retain(|it| it.offer.agent_id != offer.agent_id);
        if entry.unused_offers.len() >= UNUSED_OFFERS_MAX {
            entry.unused_offers.pop_front();
        }
        entry.unused_offers.push_back(Unused { offer: offer.clone(), reasons, at: now });
    }

    /// Everything that waits, by path.
    pub fn queue(&self, now: Timestamp) -> Vec<QueueItem> {
        let item = |(id, entry): (&PathId, &QueueEntry)| {
            let spec = self.root.spec(id)?.clone();
            Some(QueueItem {
                role: entry.role.clone(),
                count: u32::try_from(self.specs.get(id)?.scheduled.len()).unwrap_or(u32::MAX),
                since: entry.since,
                delayed_until: self.delayed_until(now, &spec),
                spec,
                processed: entry.processed,
                unused: entry.unused,
                last_used: entry.last_used,
                last_unused: entry.last_unused,
                declined: entry.declined,
                unused_offers: entry.unused_offers.iter().cloned().collect(),
            })
        };
        self.queue.iter().filter_map(item).collect()
    }

    /// What was reserved for an instance is to be given back: offers of its role are wanted until all of it was in one. That survives this
    /// process: whoever leads next would otherwise have no reason to be in the role of an app that is no more.
    pub(super) fn look_for_orphan(&mut self, now: Timestamp, instance: &Instance, out: &mut Vec<Effect>) {
        if self.orphans.len() >= ORPHANS_MAX {
            return;
        }
        let orphan = Orphan { role: instance.role.clone(), left: reserved(&instance.spec) };
        self.roles_wanted(&orphan.role);
        self.demand.insert(orphan.role.clone());
        out.push(Effect::Persist(Record::Orphan(instance.id.clone(), orphan.clone())));
        self.orphans.insert(instance.id.clone(), (orphan, now + ORPHANS_FOR));
        self.timers.add(now + ORPHANS_FOR, Timer::Revive);
    }

    /// What was looked for in the run before is looked for again.
    pub(super) fn resume_orphans(&mut self, now: Timestamp, orphans: BTreeMap<InstanceId, Orphan>) {
        for (id, orphan) in orphans {
            self.roles.insert(orphan.role.clone());
            self.orphans.insert(id, (orphan, now + ORPHANS_FOR));
        }
    }

    /// Nothing was offered while there was no master: the time to look begins anew.
    pub(super) fn look_again_for_orphans(&mut self, now: Timestamp) {
        self.orphans.values_mut().for_each(|(_, until)| *until = now + ORPHANS_FOR);
        if !self.orphans.is_empty() {
            self.timers.add(now + ORPHANS_FOR, Timer::Revive);
        }
    }

    /// Something of orphans is being given back. One of which nothing is missing any more is looked for a little longer only: should the
    /// master not have done it, it is offered again at once.
    pub(super) fn given_back(&mut self, now: Timestamp, resources: &[Resource], out: &mut Vec<Effect>) {
        let mut seen = BTreeSet::new();
        for resource in resources {
            let Some(id) = resource.label(INSTANCE_LABEL).and_then(InstanceId::of_label) else { continue };
            let Some((orphan, _)) = self.orphans.get_mut(&id) else { continue };
            if let Some(left) = orphan.left.get_mut(&resource.name) {
                *left -= resource.scalar();
            }
            orphan.left.retain(|_, left| *left > 0);
            seen.insert(id);
        }
        for id in seen {
            let Some((orphan, until)) = self.orphans.get_mut(&id) else { continue };
            out.push(Effect::Persist(Record::Orphan(id, orphan.clone())));
            if orphan.left.is_empty() {
                *until = now + GIVEN_BACK_FOR;
                self.timers.add(*until, Timer::Revive);
            }
        }
    }

    fn forget_orphans(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        self.orphans.retain(|id, (_, until)| {
            let wanted = *until > now;
            if !wanted {
                out.push(Effect::Persist(Record::OrphanRemoved(id.clone())));
            }
            wanted
        });
    }

    /// Asks for offers where something new waits, and for none where nothing does.
    pub(super) fn settle_roles(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        if !self.connected {
            return;
        }
        if self.roles_changed {
            self.roles_changed = false;
            let roles = self.roles.iter().cloned().collect();
            out.push(Effect::Call(Call::UpdateRoles { roles, suppressed: self.suppressed.iter().cloned().collect() }));
        }
        self.forget_orphans(now, out);
        if !self.demand.is_empty() {
            let due = self.revived_at.map(|at| at + self.config.min_revive_offers_interval);
            match due.filter(|due| *due > now) {
                Some(due) => self.timers.add(due, Timer::Revive),
                None => {
                    let waits = |role: &str| self.queue.iter().any(|(id, entry)| entry.role == role && self.launchable(now, id));
                    let orphaned = |role: &String| self.orphans.values().any(|(orphan, _)| orphan.role == *role);
                    let roles: Vec<String> = self.demand.iter().filter(|role| waits(role) || orphaned(role)).cloned().collect();
                    self.demand.clear();
                    if !roles.is_empty() {
                        roles.iter().for_each(|role| {
                            self.suppressed.remove(role);
                        });
                        self.revived_at = Some(now);
                        self.totals.calls_revive += 1;
                        out.push(Effect::Call(Call::Revive { roles }));
                    }
                }
            }
        }
        if self.config.suppress_offers && self.queue.is_empty() && self.orphans.is_empty() && self.suppressed.len() < self.roles.len() {
            let idle: Vec<String> = self.roles.iter().filter(|role| !self.suppressed.contains(*role)).cloned().collect();
            self.suppressed.extend(idle.iter().cloned());
            self.totals.calls_suppress += 1;
            out.push(Effect::Call(Call::Suppress { roles: idle }));
        }
    }

    fn launchable(&self, now: Timestamp, spec: &PathId) -> bool {
        self.root.spec(spec).is_some_and(|spec| self.delayed_until(now, spec).is_none())
    }
}
