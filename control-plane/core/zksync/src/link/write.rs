//! Transactions: sent one at a time to each side, and what becomes of them.

use std::time::Duration;

use base::Timestamp;

use super::sides::landed_base;
use super::{ATTEMPTS, AclDone, AclPlan, Effect, Flight, HaltReason, Link, Outcome, Planned, Refusal, SLOTS, WriteKind};
use crate::codec::Slot;
use crate::conflict::{ConflictKind, DeletedBetween, Resolution, Value};
use crate::dirty::Dirt;
use crate::node::{Base, Key, PerSide, Seen, Side};

/// Tries of one operation alone without an answer: then it is that operation that the server does not answer, e.g. because it is too large.
const UNANSWERED_MAX: u8 = 3;

impl Link {
    pub(super) fn send(&mut self, side: Side, out: &mut Vec<Effect>) {
        let limits = &self.config.limits;
        let state = &mut self.sides[side];
        // A slot may be used again only when what it tells is in the bases on disk.
        if !state.up || state.flight.is_some() || state.ready.is_empty() || state.next_sequence > self.saved[side] + SLOTS {
            return;
        }
        let mut planned: Vec<Planned> = Vec::new();
        let mut bytes = 0;
        while let Some(next) = state.ready.front() {
            let size = next.bytes();
            // What it replaces is not on disk yet; and nothing may overtake it.
            if next.after > self.saves_safe {
                break;
            }
            if planned.len() >= state.batch || (!planned.is_empty() && bytes + size > limits.batch_bytes) {
                break;
            }
            bytes += size;
            state.ready_bytes = state.ready_bytes.saturating_sub(next.weight());
            planned.extend(state.ready.pop_front());
        }
        if planned.is_empty() {
            return;
        }
        // Parents before what is below them, and the other way round for deletes; within one transaction nobody sees the order.
        planned.sort_by_key(|planned| {
            let depth = planned.op.path.bytes().filter(|byte| *byte == b'/').count();
            match planned.op.kind {
                WriteKind::Create { .. } => (0, depth),
                WriteKind::Set { .. } => (1, 0),
                WriteKind::Delete { .. } => (2, usize::MAX - depth),
            }
        });
        let sequence = state.next_sequence;
        state.next_sequence += 1;
        let slot = Slot { sequence, records: planned.iter().map(|planned| planned.record.clone()).collect() };
        let ops = planned.iter().map(|planned| planned.op.clone()).collect();
        out.push(Effect::Write { side, sequence, epoch: state.epoch, ops, slot });
        state.flight = Some(Flight { sequence, planned, unknown: false });
    }

    pub(super) fn wrote(&mut self, side: Side, sequence: u64, outcome: Outcome, out: &mut Vec<Effect>) {
        let Some(flight) = self.sides[side].flight.take_if(|flight| flight.sequence == sequence && !flight.unknown) else { return };
        match outcome {
            Outcome::Applied { zxid, states } => self.landed(side, flight, zxid, &states, out),
            Outcome::Refused { index, refusal } => {
                self.sides[side].next_sequence = sequence;
                self.refused(side, flight, index, &refusal);
            }
            Outcome::Fenced => self.halt(HaltReason::Fenced { side }),
            Outcome::Unknown => {
                self.counters.ambiguous[side] += 1;
                self.sides[side].flight = Some(Flight { unknown: true, ..flight });
                out.push(Effect::Reopen { side });
            }
        }
    }

    /// The transaction was applied: both sides agree on what it carried.
    pub(super) fn landed(&mut self, side: Side, flight: Flight, zxid: i64, states: &[Option<Seen>], out: &mut Vec<Effect>) {
        let state = &mut self.sides[side];
        state.applied = flight.sequence;
        state.made(zxid);
        state.batch = (state.batch * 2).min(self.config.limits.batch_ops);
        self.counters.transactions[side] += 1;
        self.unsaved.dirty = true;
        let mut lags: Vec<Duration> = Vec::new();
        for (index, planned) in flight.planned.into_iter().enumerate() {
            let Planned { op, record, before, since, between, announced, resolution, .. } = planned;
            let key = record.key.clone();
            self.busy.remove(&key);
            if announced {
                lags.push(self.now.since(since));
            }
            match (&op.kind, record.source) {
                (WriteKind::Create { .. }, _) => self.counters.created[side] += 1,
                (WriteKind::Set { .. }, _) => self.counters.updated[side] += 1,
                (WriteKind::Delete { .. }, _) => self.counters.deleted[side] += 1,
            }
            let state = states.get(index).copied().flatten();
            match record.source {
                Some(source) => {
                    let base = landed_base(side, &record, source, zxid, state);
                    self.set_base(&key, base);
                    if let WriteKind::Create { data, .. } | WriteKind::Set { data, .. } = &op.kind {
                        self.keep_data(&key, data);
                    }
                }
                None => {
                    // Where it was decided later, it was known then when it was.
                    let told = resolution.as_ref().and_then(|(_, resolution)| resolution.deleted);
                    // That it is gone is as true now: it is remembered from here on.
                    let between = told.map_or(between, |told| DeletedBetween { from: told.between().from, ..between });
                    self.bury(&key, Some(side.other()), Some((side, zxid)), between);
                }
            }
            if self.revived.remove(&key).is_some() {
                // What could not be created below it can be now.
                self.unblock_below(&key);
            }
            self.purged.remove(&key);
            if let Some((intent, resolution)) = resolution {
                self.carried_out(intent, *resolution);
            }
            if let Some(found) = state.filter(|state| before.is_some_and(|before| before.czxid != state.czxid)) {
                let sent = record.source.map(|source| match &op.kind {
                    WriteKind::Create { data, .. } | WriteKind::Set { data, .. } => Value::with_data(source, data),
                    WriteKind::Delete { .. } => Value::unread(source),
                });
                self.replaced_unread(key, side, found, sent);
            }
        }
        if !lags.is_empty() {
            out.push(Effect::Lags { side, lags });
        }
    }

    /// What was intended has been applied.
    pub(super) fn carried_out(&mut self, intent: u64, resolution: Resolution) {
        self.end_intent(intent);
        let key = resolution.key.clone();
        if self.close_conflict(&key).is_some() {
            self.unblock_below(&key);
        }
        self.resolved(resolution);
    }

    /// Between our read and our write it was deleted and made again on `side`: no transaction can be told not to touch another one of the same
    /// version. What was there is not known; that it was, and what was written over it, is recorded.
    pub(super) fn replaced_unread(&mut self, key: Key, side: Side, found: Seen, sent: Option<Value>) {
        let mut sides = PerSide { a: sent.clone(), b: sent };
        sides[side] = Some(Value::unread(found));
        self.resolved(Resolution {
            key,
            kind: ConflictKind::Recreated,
            strategy: self.config.strategy,
            winner: side.other().into(),
            ambiguous: true,
            sides,
            deleted: None,
            at_ms: self.now.unix_millis(),
        });
    }

    pub(super) fn unblock_below(&mut self, key: &str) {
        let prefix = format!("{key}/");
        let waiting: Vec<_> = self
            .blocked
            .range(Key::from(prefix.as_str())..)
            .map(|(key, _)| key.clone())
            .take_while(|key| key.starts_with(&prefix))
            .collect();
        for key in waiting {
            self.blocked.remove(&key);
            self.mark(key, Dirt::on_both(self.now));
        }
    }

    fn refused(&mut self, side: Side, mut flight: Flight, index: usize, refusal: &Refusal) {
        self.counters.refused[side] += 1;
        let culprit = (index < flight.planned.len()).then(|| flight.planned.remove(index));
        let state = &mut self.sides[side];
        state.batch = (state.batch / 2).max(1);
        for planned in flight.planned.into_iter().rev() {
            state.ready_bytes += planned.weight();
            state.ready.push_front(planned);
        }
        let Some(mut culprit) = culprit else { return };
        if let (WriteKind::Delete { told, .. }, Refusal::Untold) = (&mut culprit.op.kind, refusal) {
            *told = false;
            let state = &mut self.sides[side];
            state.ready_bytes += culprit.weight();
            return state.ready.push_front(culprit);
        }
        self.busy.remove(&culprit.record.key);
        if let Some((intent, _)) = culprit.resolution.take() {
            self.end_intent(intent);
        }
        match refusal {
            Refusal::Final(why) => self.block(&culprit.record.key, format!("{} refuses it: {why}", side.as_str().to_uppercase())),
            _ => self.retry(side, culprit, refusal),
        }
    }

    /// The connection broke, and the slot says that the transaction was not applied.
    pub(super) fn not_applied(&mut self, side: Side, flight: Flight) {
        // Its number is not used again: a late answer to it must not be taken for one to another.
        self.sides[side].applied = flight.sequence;
        self.unsaved.dirty = true;
        let alone = flight.planned.len() == 1;
        // An operation that the server hangs up on must not be sent with others for ever.
        self.sides[side].batch = (self.sides[side].batch / 8).max(1);
        for planned in flight.planned {
            let key = planned.record.key.clone();
            self.busy.remove(&key);
            if let Some((intent, _)) = &planned.resolution {
                self.end_intent(*intent);
            }
            let attempts = planned.attempts.saturating_add(u8::from(alone));
            if alone && attempts >= UNANSWERED_MAX {
                let why = format!(
                    "{} ends the connection when it is written ({} bytes): its jute.maxbuffer may be smaller",
                    side.as_str().to_uppercase(),
                    planned.bytes()
                );
                self.block(&key, why);
                continue;
            }
            let dirt = Dirt { attempts, ..planned.dirt(side, self.now) };
            self.mark(key, dirt);
        }
    }

    pub(super) fn requeue_ready(&mut self, side: Side) {
        let state = &mut self.sides[side];
        state.ready_bytes = 0;
        let waiting: Vec<Planned> = state.ready.drain(..).collect();
        for planned in waiting {
            self.busy.remove(&planned.record.key);
            if let Some((intent, _)) = &planned.resolution {
                self.end_intent(*intent);
            }
            let dirt = Dirt { attempts: 0, ..planned.dirt(side, self.now) };
            self.mark(planned.record.key, dirt);
        }
    }

    pub(super) fn send_acl(&mut self, side: Side, out: &mut Vec<Effect>) {
        if !self.sides[side].up || self.sides[side].acl_flight.is_some() {
            return;
        }
        let safe = self.saves_safe;
        if self.sides[side].acl_ready.front().is_none_or(|plan| plan.after > safe) {
            return;
        }
        let Some(plan) = self.sides[side].acl_ready.pop_front() else { return };
        let id = self.take_id();
        out.push(Effect::SetAcl { side, id, path: plan.path.clone(), acl: plan.acl.clone(), aversion: plan.aversion });
        self.sides[side].acl_flight = Some((id, plan));
    }

    pub(super) fn acl_set(&mut self, side: Side, id: u64, outcome: AclDone, out: &mut Vec<Effect>) {
        let Some((_, plan)) = self.sides[side].acl_flight.take_if(|(flying, _)| *flying == id) else { return };
        let AclPlan { key, mut base, attempts, resolution, .. } = plan;
        self.busy.remove(&key);
        if outcome == AclDone::Unknown {
            out.push(Effect::Reopen { side });
        }
        if let (AclDone::Stale | AclDone::Refused(_), Some((intent, _))) = (&outcome, &resolution) {
            self.end_intent(*intent);
        }
        if matches!(outcome, AclDone::Stale | AclDone::Refused(_))
            && let Some(noted) = self.pairs.get(&key).map(|pair| pair.base)
        {
            self.set_base(&key, Base { pending: None, ..noted });
        }
        match outcome {
            AclDone::Set { aversion } => {
                base.seen[side].aversion = aversion;
                self.set_base(&key, base);
                self.counters.acl_changed[side] += 1;
                if let Some((intent, resolution)) = resolution {
                    self.carried_out(intent, *resolution);
                }
            }
            AclDone::Unknown if resolution.is_some() => {
                if let Some((intent, resolution)) = resolution {
                    self.acl_doubts.insert(key.clone(), (intent, *resolution));
                }
                self.mark(key, Dirt { attempts: attempts + 1, ..Dirt::on_both(self.now) });
            }
            AclDone::Refused(why) => self.block(&key, format!("{} refuses its access control list: {why}", side.as_str().to_uppercase())),
            AclDone::Stale | AclDone::Unknown if attempts + 1 >= ATTEMPTS => {
                self.block(&key, "its access control list keeps changing".to_owned())
            }
            AclDone::Stale | AclDone::Unknown => self.mark(key, Dirt { attempts: attempts + 1, ..Dirt::on_both(self.now) }),
        }
    }
}

impl Planned {
    /// What it was planned for is to be looked at again.
    pub(super) fn dirt(&self, to: Side, now: Timestamp) -> Dirt {
        let again =
            Dirt { since: self.since, from: self.between.from, announced: self.announced, attempts: self.attempts, ..Dirt::on_both(now) };
        let mut told = again.told;
        if self.record.source.is_none() {
            told[to.other()] = self.between.to;
        }
        Dirt { told, ..again }
    }

    /// Bytes of memory that wait with it.
    pub(super) fn weight(&self) -> usize {
        self.bytes() + self.resolution.as_ref().map_or(0, |(_, resolution)| resolution.bytes())
    }

    /// Bytes of its part of a transaction.
    pub(super) fn bytes(&self) -> usize {
        let data = match &self.op.kind {
            WriteKind::Create { data, acl, .. } => {
                data.len() + acl.iter().map(|entry| entry.scheme.len() + entry.id.len() + 16).sum::<usize>()
            }
            WriteKind::Set { data, .. } => data.len(),
            WriteKind::Delete { .. } => 0,
        };
        data + self.op.path.len() + 32 + self.record.length()
    }
}
