//! Pairs that are gone: what is left of them, and since when they are.

use std::time::Duration;

use super::Link;
use crate::conflict::DeletedBetween;
use crate::node::{Base, Key, PerSide, Side};
use crate::tombstone::Tombstone;

impl Link {
    /// A pair is gone: `by` is the side whose clients deleted it, if it was one, and `carried` the transaction by which the other one followed.
    pub(super) fn bury(&mut self, key: &Key, by: Option<Side>, carried: Option<(Side, i64)>, between: DeletedBetween) {
        let base = self.pairs.get(key).map(|pair| pair.base);
        self.forget_base(key);
        // A copy of an ephemeral goes and comes with its original, which is known by nothing else.
        if base.is_some_and(|base| base.shadow_of.is_some()) || (base.is_none() && carried.is_none()) {
            return;
        }
        let mut tombstone = Tombstone { by, ..what_is_left(base.as_ref(), between) };
        if let Some((side, zxid)) = carried {
            tombstone.newest[side] = tombstone.newest[side].max(zxid);
        }
        if let Some(before) = self.tombstones.get(key) {
            for side in Side::BOTH {
                tombstone.newest[side] = tombstone.newest[side].max(before.newest[side]);
            }
        }
        self.tombstones.insert(key.clone(), tombstone);
        self.unsaved.tombstones.insert(key.clone(), Some(tombstone));
        self.unsaved.dirty = true;
        self.forget_old_tombstones();
    }

    /// Something is there again: whatever is older than that is older than its base, too.
    pub(super) fn unbury(&mut self, key: &Key) {
        if self.tombstones.remove(key) {
            self.unsaved.tombstones.insert(key.clone(), None);
            self.unsaved.dirty = true;
        }
    }

    /// Those that are too many go at once. Age counts once everything that was found has been judged: what comes back meanwhile may be of a backup.
    pub(super) fn forget_old_tombstones(&mut self) {
        let limits = &self.config.limits;
        let is_judged = self.halted.is_none() && !self.paused && self.is_settled();
        let (count, age) = (limits.tombstones, if is_judged { limits.tombstone_age } else { Duration::MAX });
        while let Some((key, is_old)) = self.tombstones.take_old(count, age, self.now) {
            self.counters.tombstones_dropped += u64::from(!is_old);
            self.unsaved.tombstones.insert(key, None);
            self.unsaved.dirty = true;
        }
    }

    /// What one side deleted, which the other has; none when both have it, or neither does.
    pub(super) fn deleted(&self, base: Option<&Base>, has: PerSide<bool>, between: DeletedBetween) -> Option<Tombstone> {
        let by = match (has.a, has.b, base) {
            (false, true, Some(_)) => Side::A,
            (true, false, Some(_)) => Side::B,
            _ => return None,
        };
        Some(Tombstone { by: Some(by), ..what_is_left(base, between) })
    }

    /// Pairs that are gone, those that went last first.
    pub fn tombstones(&self) -> impl Iterator<Item = (&Key, &Tombstone)> {
        self.tombstones.iter()
    }

    /// Those whose keys begin with `prefix`, in the same order: `limit` of them, and how many there are.
    pub fn tombstones_below(&self, prefix: &str, limit: usize) -> (Vec<(&Key, &Tombstone)>, usize) {
        self.tombstones.below(prefix, limit)
    }

    /// What a comparison that began at `known` has not found was there until then: as soon as everything that it did find has been dealt with, this
    /// is how long everything is known to have been there.
    pub(super) fn note_known(&mut self) {
        if Side::BOTH.into_iter().all(|side| self.sides[side].compared.is_none()) || !self.held.is_empty() {
            // Those that are held are gone for longer.
            return;
        }
        // So may be what could not be carried: it is looked at again at each pass, and found to differ since this one.
        if self.counters.blocked_unnoted > 0 || self.blocked.keys().any(|key| self.pairs.contains_key(key)) {
            return;
        }
        let waiting = self.waiting_since();
        for side in Side::BOTH {
            let state = &mut self.sides[side];
            if let Some((began, _)) = state.compared.take_if(|(_, ended)| waiting.is_none_or(|since| since > *ended)) {
                state.known_until = state.known_until.max(began);
                self.unsaved.dirty = true;
            }
        }
    }

    /// Since when something waits that became dirty.
    fn waiting_since(&self) -> Option<base::Timestamp> {
        let looked_at = self.looks.iter().flat_map(|look| look.pairs.iter().map(|(_, dirt)| dirt.since));
        let planned = Side::BOTH.into_iter().flat_map(|side| {
            let state = &self.sides[side];
            state.ready.iter().chain(state.flight.iter().flat_map(|flight| &flight.planned)).map(|planned| planned.since)
        });
        self.dirty
            .oldest_of_all()
            .into_iter()
            .chain(looked_at)
            .chain(planned)
            .chain(self.proofs.values().filter_map(super::proof::Proof::since))
            .min()
    }
}

/// What is left of a pair.
fn what_is_left(base: Option<&Base>, between: DeletedBetween) -> Tombstone {
    let newest = |side: Side| base.map_or(0, |base| base.seen[side].newest());
    Tombstone {
        by: None,
        newest: PerSide { a: newest(Side::A), b: newest(Side::B) },
        data: base.map(|base| base.data),
        size: base.map_or(0, |base| base.size),
        from_ms: between.from.unix_millis(),
        to_ms: between.to.unix_millis(),
    }
}
