//! Both sides changed: who wins, who is asked, and what becomes of what is below something that is gone.

use base::Timestamp;

use super::look::seen_of;
use super::{Effect, Link};
use crate::config::{Drift, Strategy};
use crate::conflict::{Conflict, ConflictKind, DeletedBetween, Resolution, Value};
use crate::decide::{Verdict, View, decide, winner};
use crate::dirty::Dirt;
use crate::mapping::below;
use crate::node::{Base, Key, PerSide, Side};
use crate::tombstone::Tombstone;

impl Link {
    pub(super) fn collide(&mut self, key: &Key, dirt: Dirt, base: Option<&Base>, views: PerSide<View<'_>>, kind: ConflictKind) {
        if matches!(views.a, View::Unread) || matches!(views.b, View::Unread) {
            return self.carry_out(key, dirt, base, views, Verdict::ReadBoth, None);
        }
        if self.config.strategy == Strategy::Manual && self.config.mode.source().is_none() {
            return self.open_conflict(key, &dirt, base, views, kind);
        }
        let absent = Side::BOTH.into_iter().find(|side| matches!(views[*side], View::Absent));
        let deleted = absent.map(|side| self.gone_between(key, &dirt, side));
        let clocks = PerSide { a: self.sides.a.clock, b: self.sides.b.clock };
        let (won, ambiguous) = winner(&self.config, base, views, kind, clocks, deleted);
        let deleted = self.deleted_in(key, base, views, &dirt);
        self.decide_for(key, dirt, base, views, (kind, deleted), won, ambiguous);
    }

    /// What one side deleted.
    fn deleted_in(&self, key: &Key, base: Option<&Base>, views: PerSide<View<'_>>, dirt: &Dirt) -> Option<Tombstone> {
        let has = PerSide { a: views.a.node().is_some(), b: views.b.node().is_some() };
        let lacking = if has.a { Side::B } else { Side::A };
        self.deleted(base, has, self.gone_between(key, dirt, lacking))
    }

    /// When `side` deleted what it does not have: events come before answers, so that the last that was told before it was read is the latest that this
    /// was.
    pub(super) fn gone_between(&self, key: &Key, dirt: &Dirt, side: Side) -> DeletedBetween {
        let told = self.dirty.get(key).map_or(dirt.told[side], |since| since.told[side].max(dirt.told[side]));
        let to = if told == Timestamp::EPOCH { self.now } else { told.min(self.now) };
        DeletedBetween { from: dirt.from.min(to), to }
    }

    #[expect(clippy::too_many_arguments, reason = "what is recorded of a conflict; each is used once")]
    fn decide_for(
        &mut self,
        key: &Key,
        dirt: Dirt,
        base: Option<&Base>,
        views: PerSide<View<'_>>,
        (kind, deleted): (ConflictKind, Option<Tombstone>),
        won: Side,
        ambiguous: bool,
    ) {
        let strategy = self.strategy_in_force();
        let value = |side: Side| views[side].node().map(Value::of);
        let resolution = Box::new(Resolution {
            key: key.clone(),
            kind,
            strategy,
            winner: won.into(),
            ambiguous,
            sides: PerSide { a: value(Side::A), b: value(Side::B) },
            deleted,
            at_ms: self.now.unix_millis(),
        });
        let verdict = match views[won] {
            View::Present(_) => Verdict::Put { to: won.other(), shadow: false },
            _ => Verdict::Delete { to: won.other() },
        };
        self.carry_out(key, dirt, base, views, verdict, Some(resolution));
    }

    fn open_conflict(&mut self, key: &Key, dirt: &Dirt, base: Option<&Base>, views: PerSide<View<'_>>, kind: ConflictKind) {
        if self.conflicts.len() >= self.config.limits.conflicts {
            // Going on would decide by accident.
            self.counters.conflicts_unnoted += 1;
            self.paused = true;
            self.dirty.mark(key.clone(), Dirt::on_both(self.now));
            return;
        }
        let id = self.take_id();
        let now = self.now.unix_millis();
        let conflict = Conflict {
            id,
            key: key.clone(),
            kind,
            base: base.map(|base| base.seen),
            sides: seen_of(views),
            first_seen_ms: now,
            last_change_ms: now,
            base_data: None,
            deleted: self.deleted_in(key, base, views, dirt),
        };
        self.note_conflict(conflict);
    }

    pub(super) fn note_conflict(&mut self, conflict: Conflict) {
        self.conflicted.insert(conflict.key.clone(), conflict.id);
        self.unsaved.conflicts.insert(conflict.id, Some(conflict.clone()));
        self.unsaved.dirty = true;
        self.conflicts.insert(conflict.id, conflict);
    }

    pub(super) fn close_conflict(&mut self, key: &Key) -> Option<Conflict> {
        let id = self.conflicted.remove(key)?;
        self.resolving.remove(key);
        self.unsaved.conflicts.insert(id, None);
        self.unsaved.dirty = true;
        // What waits below it can go on.
        let prefix = format!("{}/", if key.as_ref() == "/" { "" } else { key });
        let waiting: Vec<Key> = self.blocked.keys().filter(|blocked| blocked.starts_with(&prefix)).cloned().collect();
        for key in waiting {
            self.blocked.remove(&key);
            self.mark(key, Dirt::on_both(self.now));
        }
        self.conflicts.remove(&id)
    }

    /// A pair whose conflict is open: follow its changes; end it when both sides are the same, or when an operator has decided.
    pub(super) fn judge_conflicted(&mut self, key: &Key, dirt: Dirt, views: PerSide<View<'_>>) {
        let base = self.pairs.get(key).map(|pair| pair.base);
        if matches!(views.a, View::Unread) || matches!(views.b, View::Unread) {
            let both = Dirt { sides: PerSide { a: true, b: true }, acl: true, ..dirt };
            return self.mark(key.clone(), both);
        }
        // As if nothing were agreed: whether they are the same is what counts.
        let verdict = match (views.a, views.b) {
            (View::Absent, View::Absent) => Verdict::Forget,
            _ => decide(&self.config, base.as_ref(), views, PerSide::default()),
        };
        match verdict {
            // Settled: what came of another decision meanwhile, such as one about what is below, is what both have.
            verdict @ (Verdict::Adopt(_) | Verdict::Forget | Verdict::Settled) => {
                self.counters.conflicts_converged += 1;
                self.close_conflict(key);
                return self.carry_out(key, dirt, base.as_ref(), views, verdict, None);
            }
            Verdict::ReadAcl => return self.mark(key.clone(), Dirt::on_both(self.now)),
            _ => {}
        }
        let Some(mut conflict) = self.conflicted.get(key).and_then(|id| self.conflicts.get(id)).cloned() else { return };
        let sides = seen_of(views);
        if conflict.sides != sides {
            // It was deleted before, or is now, or not any more.
            let deleted = self.deleted_in(key, base.as_ref(), views, &dirt);
            conflict.deleted = deleted.map(|now| conflict.deleted.filter(|before| before.by == now.by).unwrap_or(now));
            conflict.sides = sides;
            conflict.last_change_ms = self.now.unix_millis();
            // The operator decided about something else.
            self.resolving.remove(key);
            return self.note_conflict(conflict);
        }
        if let Some(won) = self.resolving.get(key).copied() {
            // An operator may have made what was lacking.
            if conflict.kind == ConflictKind::CreateBelow && (sides.a.is_none() || sides.b.is_none()) {
                self.close_conflict(key);
                let lacking = if sides.a.is_none() { Side::A } else { Side::B };
                return self.decide_orphan(key, won, lacking, views, conflict.deleted);
            }
            self.decide_for(key, dirt, base.as_ref(), views, (conflict.kind, conflict.deleted), won, false);
        }
    }

    /// Something below a deleted pair whose subtree goes: whether it goes, too, instead of coming to the other side.
    pub(super) fn goes_with_what_is_above(&self, key: &Key, from: Side, base: Option<&Base>) -> bool {
        let is_purged = |(purged, side): (&Key, &Side)| *side == from && purged != key && below(key, purged).is_some();
        base.is_none() && self.purged.iter().any(is_purged)
    }

    /// A pair that one side deleted while the other, `to`, got something below it: whether that has been dealt with.
    pub(super) fn is_orphan(
        &mut self,
        key: &Key,
        dirt: Dirt,
        base: Option<&Base>,
        views: PerSide<View<'_>>,
        to: Side,
        decided: bool,
    ) -> bool {
        let lacking = to.other();
        if self.revived.get(key) == Some(&lacking) {
            match views[to] {
                View::Present(_) => self.put(key, dirt, base, views, lacking, false, None),
                _ => self.mark(key.clone(), Dirt { attempts: dirt.attempts, ..Dirt::on_both(self.now) }),
            }
            return true;
        }
        if self.purged.contains_key(key) || self.orphaned.get(key) != Some(&lacking) {
            return false;
        }
        if views[to].node().is_none() {
            self.mark(key.clone(), Dirt { attempts: dirt.attempts, ..Dirt::on_both(self.now) });
            return true;
        }
        self.orphaned.remove(key);
        let won = match (self.config.mode.source(), self.config.strategy) {
            (Some(source), _) if source == lacking && self.config.drift == Drift::Report => {
                self.block(key, "deleted at the source, but the target has something below it that the source never had".to_owned());
                return true;
            }
            (Some(source), _) => source,
            (None, Strategy::AWins) => Side::A,
            (None, Strategy::BWins) => Side::B,
            // Something new is news; that it was not to be there any more is older.
            (None, Strategy::LastWriteWins) => to,
            // The operator has decided about what is above already.
            (None, Strategy::Manual) if decided => lacking,
            (None, Strategy::Manual) => {
                self.open_conflict(key, &dirt, base, views, ConflictKind::CreateBelow);
                return true;
            }
        };
        let deleted = self.deleted_in(key, base, views, &dirt);
        self.decide_orphan(key, won, lacking, views, deleted);
        true
    }

    fn decide_orphan(&mut self, key: &Key, won: Side, lacking: Side, views: PerSide<View<'_>>, deleted: Option<Tombstone>) {
        let value = |side: Side| views[side].node().map(Value::of);
        self.resolved(Resolution {
            key: key.clone(),
            kind: ConflictKind::CreateBelow,
            strategy: self.strategy_in_force(),
            winner: won.into(),
            ambiguous: false,
            sides: PerSide { a: value(Side::A), b: value(Side::B) },
            deleted,
            at_ms: self.now.unix_millis(),
        });
        if won == lacking {
            self.purged.insert(key.clone(), won.other());
            self.look_below(won.other(), key);
        } else {
            self.revived.insert(key.clone(), lacking);
        }
        self.mark(key.clone(), Dirt::on_both(self.now));
    }

    pub(super) fn strategy_in_force(&self) -> Strategy {
        match self.config.mode.source() {
            Some(Side::A) => Strategy::AWins,
            Some(Side::B) => Strategy::BWins,
            None => self.config.strategy,
        }
    }

    /// A conflict has been decided and carried out: count and tell.
    pub(super) fn resolved(&mut self, resolution: Resolution) {
        *self.counters.conflicts.entry((resolution.kind, resolution.strategy, resolution.winner)).or_default() += 1;
        self.counters.conflicts_ambiguous += u64::from(resolution.ambiguous);
        self.unsaved.resolved.push(resolution.clone());
        self.unsaved.dirty = true;
        self.outbox.push(Effect::Resolved(resolution));
    }
}
