//! Looking at pairs and deciding about them.

use super::{ATTEMPTS, AclPlan, BRAKE_WINDOW, Effect, Held, Link, Look, Planned, ReadWant, Reading, WriteKind, WriteOp};
use crate::codec::Record;
use crate::config::AclPolicy;
use crate::conflict::{ConflictKind, DeletedBetween, Resolution, Value};
use crate::decide::{Exclusion, Verdict, View, acl_hash, decide, elects_or_locks, what_is_pending};
use crate::dirty::Dirt;
use crate::link::sides::answer_bytes;
use crate::mapping::parent;
use crate::node::{AclPending, Base, Hash, Key, Node, PerSide, Seen, Side, hash_data};

/// Version of an access control list that no server gives: what stands beside it in a base is still to be copied.
const NOT_DONE: i32 = -1;
const LOOK_MAX: usize = 512;
/// Looks under way at once.
const LOOKS: usize = 4;
/// Bytes of an answer that are aimed at.
const ANSWER: usize = 1024 * 1024;
/// Operations and bytes that may wait for a side before no more is read for it.
const READY_OPS: usize = 2_048;
const READY_BYTES: usize = 4 * 1024 * 1024;

impl Link {
    /// Several looks may be under way: what becomes dirty now need not wait for the answer to what became so before. They are concluded in
    /// order, so that what a client wrote first arrives first.
    pub(super) fn start_looks(&mut self, out: &mut Vec<Effect>) {
        while self.looks.len() < LOOKS && self.start_look(out) {}
    }

    fn start_look(&mut self, out: &mut Vec<Effect>) -> bool {
        // Until both sides were read as a whole it is not known what is on one side alone; a tree that does not fit is begun with all the same.
        let crowded = self.dirty.len() > self.config.limits.dirty / 2;
        let can = |side: Side| {
            let state = &self.sides[side];
            state.up
                && (state.scanned || crowded)
                && state.ready.len() < READY_OPS
                && state.ready_bytes < READY_BYTES
                && state.acl_ready.len() < READY_OPS
        };
        if self.dirty.is_empty() || !Side::BOTH.into_iter().all(can) {
            return false;
        }
        let busy = &self.busy;
        let pairs = self.dirty.take(self.look_size, ANSWER, |key| busy.contains(key));
        if pairs.is_empty() {
            return false;
        }
        let id = self.take_id();
        let mut look = Look { id, pairs, answers: PerSide::default(), waiting: PerSide::default() };
        for side in Side::BOTH {
            // Each takes a request of its own.
            let acl = self.config.acl == AclPolicy::Copy;
            let want =
                |(key, dirt): &(Key, Dirt)| ReadWant { path: self.config.mapping.path(side, key), acl: acl && dirt.acl, children: false };
            let reads: Vec<ReadWant> = look.pairs.iter().filter(|(_, dirt)| dirt.sides[side]).map(want).collect();
            if reads.is_empty() {
                look.answers[side] = Some(Vec::new());
            } else {
                look.waiting[side] = true;
                out.push(Effect::Read { side, id, reads, newest: false });
            }
        }
        self.busy.extend(look.pairs.iter().map(|(key, _)| key.clone()));
        self.looks.push_back(look);
        true
    }

    pub(super) fn looked(&mut self, side: Side, id: u64, answers: Vec<Reading>) {
        let Some(look) = self.looks.iter_mut().find(|look| look.id == id && look.waiting[side]) else { return };
        look.waiting[side] = false;
        let bytes: usize = answers.iter().map(answer_bytes).sum();
        if bytes > ANSWER {
            self.look_size = (self.look_size / 2).max(1);
        } else if bytes < ANSWER / 2 {
            self.look_size = (self.look_size * 2).min(LOOK_MAX);
        }
        look.answers[side] = Some(answers);
        while self.looks.front().is_some_and(|look| !look.waiting.a && !look.waiting.b) {
            if let Some(look) = self.looks.pop_front() {
                self.conclude(look);
            }
        }
    }

    fn conclude(&mut self, look: Look) {
        let mut a = look.answers.a.into_iter().flatten();
        let mut b = look.answers.b.into_iter().flatten();
        for (key, dirt) in look.pairs {
            self.busy.remove(&key);
            let answers = PerSide { a: if dirt.sides.a { a.next() } else { None }, b: if dirt.sides.b { b.next() } else { None } };
            let denied = Side::BOTH.into_iter().find_map(|side| match &answers[side] {
                Some(Reading::Denied(why)) => Some(format!("{} refuses to be read: {why}", side.as_str().to_uppercase())),
                _ => None,
            });
            match denied {
                Some(why) => self.block(&key, why),
                None => self.judge(&key, dirt, &answers),
            }
            if self.halted.is_some() {
                return;
            }
        }
    }

    fn judge(&mut self, key: &Key, mut dirt: Dirt, answers: &PerSide<Option<Reading>>) {
        let views = PerSide { a: view(answers.a.as_ref()), b: view(answers.b.as_ref()) };
        if let Some(doubt) = self.doubt(key, views) {
            return self.prove(doubt, Some(Dirt { acl: true, sides: PerSide { a: true, b: true }, ..dirt }));
        }
        self.blocked.remove(key);
        self.drifting.remove(key);
        let was_held = self.held.remove(key);
        if let Some(held) = was_held.filter(|held| matches!(views[held.lacking], View::Absent)) {
            // It is that delete still, or a later one.
            dirt.from = dirt.from.max(held.from);
        }
        self.settle_acl_doubt(key, views);
        self.note_replaced(key, views);
        if self.conflicted.contains_key(key) {
            return self.judge_conflicted(key, dirt, views);
        }
        let base = self.pairs.get(key).map(|pair| pair.base);
        // Whether what was noted has been made is decided once, for everything that follows.
        let base = base.map(|base| what_is_pending(&self.config, base, views).unwrap_or(base));
        let own = PerSide { a: self.sides.a.session, b: self.sides.b.session };
        let verdict = decide(&self.config, base.as_ref(), views, own);
        if matches!(verdict, Verdict::Settled | Verdict::Adopt(_) | Verdict::Forget) {
            self.orphaned.remove(key);
            self.revived.remove(key);
            self.purged.remove(key);
        }
        if let (Some(held), Verdict::ReadBoth | Verdict::ReadAcl) = (was_held, verdict) {
            // It is still the same delete, until more is known.
            self.held.insert(key.clone(), held);
        }
        self.carry_out(key, dirt, base.as_ref(), views, verdict, None);
    }

    /// A change of an access control list that decided a conflict, and whose outcome was not known: its pair tells now.
    fn settle_acl_doubt(&mut self, key: &Key, views: PerSide<View<'_>>) {
        if !self.acl_doubts.contains_key(key) {
            return;
        }
        let base = self.pairs.get(key).map(|pair| pair.base);
        let made = match base.and_then(|base| Some((base, base.pending?))) {
            None => false,
            Some((base, pending)) => match what_is_pending(&self.config, base, views) {
                Ok(now) => now.acl == pending.acl && now.seen[pending.side].aversion == pending.aversion,
                // More is going to be read.
                Err(_) => return,
            },
        };
        match self.acl_doubts.remove(key) {
            Some((intent, resolution)) if made => self.carried_out(intent, resolution),
            Some((intent, _)) => self.end_intent(intent),
            None => {}
        }
    }

    /// A write of ours whose answer was lost may have met a znode that had been made again: then our transaction was the last to write it, but
    /// another one than the base says made it.
    fn note_replaced(&mut self, key: &Key, views: PerSide<View<'_>>) {
        let Some(base) = self.pairs.get(key).map(|pair| pair.base) else { return };
        for side in Side::BOTH {
            let Some(node) = views[side].node() else { continue };
            let (found, known) = (node.stat.seen(), base.seen[side]);
            if found.mzxid == known.mzxid && found.czxid != known.czxid && found.czxid != found.mzxid {
                let sent = Value::with_data(base.seen[side.other()], &node.data);
                self.replaced_unread(key.clone(), side, found, Some(sent));
                let mut seen = base.seen;
                seen[side].czxid = found.czxid;
                self.set_base(key, Base { seen, ..base });
            }
        }
    }

    pub(super) fn carry_out(
        &mut self,
        key: &Key,
        dirt: Dirt,
        base: Option<&Base>,
        views: PerSide<View<'_>>,
        verdict: Verdict,
        resolution: Option<Box<Resolution>>,
    ) {
        match verdict {
            Verdict::Settled => self.counters.echoes += 1,
            Verdict::ReadBoth | Verdict::ReadAcl => {
                let both = Dirt { sides: PerSide { a: true, b: true }, acl: true, ..dirt };
                self.mark(key.clone(), Dirt { attempts: dirt.attempts.saturating_add(1), ..both });
            }
            Verdict::Adopt(base) => {
                self.set_base(key, base);
                if let Some(node) = views.a.node().or(views.b.node()) {
                    self.keep_data(key, &node.data);
                }
            }
            Verdict::Forget => self.bury(key, None, None, DeletedBetween { from: dirt.from, to: self.now }),
            Verdict::Put { to, shadow } => self.put(key, dirt, base, views, to, shadow, resolution),
            Verdict::Delete { to } => self.delete(key, dirt, base, views, to, resolution),
            Verdict::Conflict(kind) => self.collide(key, dirt, base, views, kind),
            Verdict::Drift { .. } => {
                self.counters.drifts += 1;
                if self.drifting.len() < self.config.limits.blocked {
                    self.drifting.insert(key.clone());
                }
            }
            Verdict::Excluded(why) => {
                let why = match why {
                    Exclusion::Ephemeral => "ephemeral",
                    Exclusion::Election => "election",
                    Exclusion::OwnShadow => "own_shadow",
                };
                *self.excluded.entry(why).or_default() += 1;
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what is known of one pair; each is used once")]
    pub(super) fn put(
        &mut self,
        key: &Key,
        dirt: Dirt,
        base: Option<&Base>,
        views: PerSide<View<'_>>,
        to: Side,
        shadow: bool,
        resolution: Option<Box<Resolution>>,
    ) {
        let from = to.other();
        let Some(node) = views[from].node() else { return self.carry_out(key, dirt, base, views, Verdict::ReadBoth, None) };
        if !shadow && self.goes_with_what_is_above(key, from, base) {
            self.revived.remove(key);
            self.orphaned.remove(key);
            // It was written without knowledge of what is deleted above it: it loses like that one's counterpart, and is recorded like it.
            let resolution = resolution.or_else(|| {
                let value = |side: Side| views[side].node().map(Value::of);
                Some(Box::new(Resolution {
                    key: key.clone(),
                    kind: ConflictKind::CreateBelow,
                    strategy: self.strategy_in_force(),
                    winner: to.into(),
                    ambiguous: false,
                    sides: PerSide { a: value(Side::A), b: value(Side::B) },
                    deleted: None,
                    at_ms: self.now.unix_millis(),
                }))
            });
            return self.delete(key, dirt, base, views, from, resolution);
        }
        if shadow && elects_or_locks(key) {
            return self.carry_out(key, dirt, base, views, Verdict::Excluded(Exclusion::Election), None);
        }
        if node.data.len() > self.config.limits.node_bytes {
            let why = format!("{} bytes: more than the {} that are copied", node.data.len(), self.config.limits.node_bytes);
            return self.block(key, why);
        }
        if let Some(entry) = node.acl.iter().flatten().find(|entry| entry.scheme == "digest" && entry.id.ends_with(":x")) {
            let side = from.as_str().to_uppercase();
            return self.block(
                key,
                format!("{side} hides the digest of {} in its access control list: our identity must have ADMIN there", entry.id),
            );
        }
        let Some(acl) = acl_hash(&self.config, base, from, node) else {
            return self.carry_out(key, dirt, base, views, Verdict::ReadAcl, None);
        };
        let data = hash_data(&node.data);
        let size = u32::try_from(node.data.len()).unwrap_or(u32::MAX);
        let source = node.stat.seen();
        let target = match views[to] {
            View::Present(target) => Some((target.stat.seen(), hash_data(&target.data), acl_hash(&self.config, base, to, target))),
            View::Unread => base.map(|base| (base.seen[to], base.data, Some(base.acl))),
            View::Absent => None,
        };
        let Some((before, target_data, target_acl)) = target else {
            let acl_there = match (&node.acl, self.config.acl) {
                (Some(acl), _) => self.config.translate(acl, from),
                (None, AclPolicy::Ignore) => self.config.translate(&[], from),
                (None, AclPolicy::Copy) => return self.carry_out(key, dirt, base, views, Verdict::ReadAcl, None),
            };
            let kind = WriteKind::Create { data: node.data.clone(), acl: acl_there, ephemeral: shadow };
            return self.plan(to, key, kind, Some(source), None, (data, acl, size), dirt, resolution);
        };
        let Some(target_acl) = target_acl else { return self.carry_out(key, dirt, base, views, Verdict::ReadAcl, None) };
        let mut seen = PerSide { a: source, b: source };
        seen[to] = before;
        if data != target_data {
            // The access control list follows on its own: until then the base says that it is not done.
            let source = if acl == target_acl { source } else { Seen { aversion: NOT_DONE, ..source } };
            let kind = WriteKind::Set { data: node.data.clone(), version: before.version };
            self.plan(to, key, kind, Some(source), Some(before), (data, target_acl, size), dirt, resolution);
            if acl != target_acl {
                self.mark(key.clone(), Dirt::on_both(self.now));
            }
            return;
        }
        let agreed = Base { seen, data, acl, size, shadow_of: base.and_then(|base| base.shadow_of), pending: None };
        self.keep_data(key, &node.data);
        if acl == target_acl {
            return self.set_base(key, agreed);
        }
        let Some(acl_there) = &node.acl else { return self.carry_out(key, dirt, base, views, Verdict::ReadAcl, None) };
        let acl_to_set = self.config.translate(acl_there, from);
        let pending = AclPending { side: to, aversion: before.aversion.wrapping_add(1), acl: agreed.acl, source };
        let mut noted = Base { acl: target_acl, pending: Some(pending), ..agreed };
        noted.seen[from].aversion = NOT_DONE;
        self.set_base(key, noted);
        self.busy.insert(key.clone());
        let path = self.config.mapping.path(to, key);
        // Both have the same data: they are not lost.
        let shortened = resolution.map(|mut resolution| {
            resolution.shorten();
            resolution
        });
        let resolution = shortened.map(|resolution| (self.intend(to, None, &resolution), resolution));
        let after = self.next_save();
        let plan = AclPlan {
            after,
            key: key.clone(),
            path,
            acl: acl_to_set,
            aversion: before.aversion,
            base: agreed,
            attempts: dirt.attempts,
            resolution,
        };
        self.sides[to].acl_ready.push_back(plan);
    }

    fn delete(
        &mut self,
        key: &Key,
        dirt: Dirt,
        base: Option<&Base>,
        views: PerSide<View<'_>>,
        to: Side,
        resolution: Option<Box<Resolution>>,
    ) {
        let before = match views[to] {
            View::Present(node) => node.stat.seen(),
            View::Unread => match base {
                Some(base) => base.seen[to],
                None => return,
            },
            View::Absent => return self.bury(key, None, None, DeletedBetween { from: dirt.from, to: self.now }),
        };
        if key.as_ref() == "/" || self.is_orphan(key, dirt, base, views, to, resolution.is_some()) {
            return;
        }
        let is_shadow = base.is_some_and(|base| base.shadow_of.is_some());
        if !is_shadow && self.is_braked(key) {
            self.counters.deletes_braked += 1;
            self.held.insert(key.clone(), Held { lacking: to.other(), from: dirt.from });
            self.unsaved.dirty |= !std::mem::replace(&mut self.braked, true);
            return;
        }
        if !is_shadow {
            self.deletes.push_back(self.now);
        }
        let (data, acl) = base.map_or(([0; 16], 0), |base| (base.data, base.acl));
        // A znode that was made again since it was read begins with this version, too.
        let kind = WriteKind::Delete { version: before.version, told: before.version == 0 };
        self.plan(to, key, kind, None, Some(before), (data, acl, 0), dirt, resolution);
    }

    /// A source that suddenly looks empty is more often a wrong chroot or a lost ensemble than an intention. Once one delete is held back, all are,
    /// until somebody approves them or what is held is there again: else every minute would let as many through as are free.
    fn is_braked(&self, key: &Key) -> bool {
        if self.now < self.approved_until {
            return false;
        }
        if self.braked {
            return true;
        }
        let recent = self.deletes.iter().rev().take_while(|at| self.now.since(**at) <= BRAKE_WINDOW).count();
        recent >= self.config.limits.deletes_free.max(self.pairs.len() / 20) || self.config.mapping.is_root(key)
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of a record; each is used once")]
    pub(super) fn plan(
        &mut self,
        to: Side,
        key: &Key,
        kind: WriteKind,
        source: Option<Seen>,
        before: Option<Seen>,
        (data, acl, size): (Hash, u64, u32),
        dirt: Dirt,
        resolution: Option<Box<Resolution>>,
    ) {
        let target = match (&kind, before) {
            (WriteKind::Set { version, .. }, Some(before)) => Seen { mzxid: 0, version: version.wrapping_add(1), ..before },
            (WriteKind::Delete { .. }, Some(before)) => before,
            _ => Seen::default(),
        };
        let shadow = matches!(kind, WriteKind::Create { ephemeral: true, .. })
            || self.pairs.get(key).is_some_and(|pair| pair.base.shadow_of == Some(to.other()));
        let record = Record { key: key.clone(), source, target, data, acl, size, shadow };
        let op = WriteOp { path: self.config.mapping.path(to, key), kind };
        let decided = resolution.is_some() || self.purged.contains_key(key) || self.revived.contains_key(key);
        let after = if decided { self.next_save() } else { 0 };
        let resolution = resolution.map(|resolution| (self.intend(to, Some(record.clone()), &resolution), resolution));
        let between = self.gone_between(key, &dirt, to.other());
        let Dirt { since, announced, attempts, .. } = dirt;
        let planned = Planned { op, record, before, since, between, announced, attempts, after, resolution };
        self.busy.insert(key.clone());
        self.sides[to].ready_bytes += planned.weight();
        self.sides[to].ready.push_back(planned);
    }

    /// A create or delete that keeps failing: because of what is above it, or below it.
    pub(super) fn retry(&mut self, side: Side, planned: Planned, refusal: &super::Refusal) {
        let key = planned.record.key.clone();
        let attempts = planned.attempts.saturating_add(1);
        if attempts >= ATTEMPTS {
            self.block(&key, format!("{} refused it {attempts} times: {refusal:?}", side.as_str().to_uppercase()));
            return;
        }
        match (&planned.op.kind, refusal) {
            (WriteKind::Create { .. }, super::Refusal::NoNode) => {
                if let Some(above) = parent(&key).and_then(|above| self.config.mapping.key(Side::A, above)) {
                    self.orphaned.insert(above.clone(), side);
                    if self.conflicted.contains_key(&above) {
                        return self.block(&key, format!("{above} is in conflict"));
                    }
                    self.mark(above, Dirt::on_both(self.now));
                }
            }
            (WriteKind::Delete { .. }, super::Refusal::NotEmpty) if attempts > 1 => self.look_below(side, &key),
            _ => {}
        }
        let dirt = Dirt { attempts, ..planned.dirt(side, self.now) };
        self.mark(key, dirt);
    }
}

fn view(answer: Option<&Reading>) -> View<'_> {
    match answer {
        Some(Reading::Present(node)) => View::Present(node),
        Some(Reading::Absent) => View::Absent,
        _ => View::Unread,
    }
}

pub(super) fn seen_of(views: PerSide<View<'_>>) -> PerSide<Option<Seen>> {
    let seen = |side: Side| views[side].node().map(|node: &Node| node.stat.seen());
    PerSide { a: seen(Side::A), b: seen(Side::B) }
}
