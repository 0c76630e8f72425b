//! A side comes and goes, tells of changes, and is read as a whole.

use std::time::Duration;

use super::{ANNOUNCED_WITHIN, Effect, FoundSlot, HaltReason, Link, Opened, ReadWant, Reading, ScanRead, Witnessed, WriteKind};
use crate::codec::Record;
use crate::config::EphemeralPolicy;
use crate::conflict::DeletedBetween;
use crate::dirty::Dirt;
use crate::mapping;
use crate::node::{Base, Key, Node, PerSide, Seen, Side};
use crate::scan::{Scan, WINDOW};

/// How long a mirrored ephemeral outlives our sight of its original: about what a session does.
const SHADOW_GRACE: Duration = Duration::from_secs(10);
/// Names of a path at most; deeper ones are not copied.
pub(super) const DEPTH_MAX: usize = 200;
/// Bytes of a path at most; longer ones are not copied.
pub(super) const PATH_MAX: usize = 32 * 1024;

impl Link {
    /// A quorum that is restored begins with a new epoch, and thus beyond all that it had before. What we wrote there ourselves is gone, though.
    pub(super) fn found(&mut self, side: Side, own: i64) {
        let seen = self.sides[side].own;
        if own < seen {
            self.halt(HaltReason::WentBack { side, of: Witnessed::Ours, seen, found: own });
        }
    }

    pub(super) fn up(&mut self, side: Side, opened: Opened, out: &mut Vec<Effect>) {
        let Opened { session, epoch, zxid, since, clock, slots } = opened;
        let seen = self.sides[side].zxid;
        if zxid < seen {
            return self.halt(HaltReason::WentBack { side, of: Witnessed::Newest, seen, found: zxid });
        }
        if self.sides[side].up {
            self.down(side);
        }
        self.recover(side, slots, out);
        let state = &mut self.sides[side];
        if state.ever_up {
            self.counters.resyncs[side] += 1;
        }
        (state.up, state.ever_up, state.session, state.epoch) = (true, true, session, epoch);
        state.clock = clock.or(state.clock);
        state.heard_until = since.min(self.now);
        state.made(zxid);
        self.start_scan(side, true);
    }

    /// What the slots say was done and is not in the bases goes into them; a transaction whose answer was lost is there, or was not applied.
    fn recover(&mut self, side: Side, mut slots: Vec<FoundSlot>, out: &mut Vec<Effect>) {
        slots.sort_by_key(|found| found.slot.sequence);
        let newest = slots.last().map_or(0, |found| found.slot.sequence);
        if let Some(flight) = self.sides[side].flight.take() {
            let found = slots.iter().find(|found| found.slot.sequence == flight.sequence);
            let mine = found.filter(|found| found.slot.records.iter().eq(flight.planned.iter().map(|planned| &planned.record)));
            match mine {
                Some(found) => {
                    self.counters.ambiguous_applied[side] += 1;
                    self.landed(side, flight, found.zxid, &[], out);
                }
                None => self.not_applied(side, flight),
            }
        }
        for found in slots {
            if found.slot.sequence > self.sides[side].applied {
                for record in &found.slot.records {
                    self.replay(side, record, found.zxid);
                    let intent = self.doubts[side].iter().find(|(_, intent)| intent.record.as_ref() == Some(record)).map(|(id, _)| *id);
                    if let Some((id, intent)) = intent.and_then(|id| self.doubts[side].remove_entry(&id)) {
                        self.carried_out(id, intent.resolution);
                    }
                }
                self.sides[side].applied = found.slot.sequence;
                self.unsaved.dirty = true;
            }
        }
        // What has left nothing in a slot was not applied, and never will be: the epoch is ours now.
        for id in std::mem::take(&mut self.doubts[side]).into_keys() {
            self.end_intent(id);
        }
        let state = &mut self.sides[side];
        state.next_sequence = state.next_sequence.max(newest + 1).max(state.applied + 1);
    }

    fn replay(&mut self, side: Side, record: &Record, zxid: i64) {
        let known = self.pairs.get(&record.key).map(|pair| pair.base);
        // Newer than this transaction: it came from the other direction later.
        if known.is_some_and(|base| base.seen[side].mzxid >= zxid) {
            return;
        }
        match record.source {
            None => {
                // Whoever carried it knew when it was.
                let between = DeletedBetween { from: self.sides[side.other()].known_until, to: self.now };
                self.bury(&record.key, Some(side.other()), Some((side, zxid)), between);
            }
            Some(source) => {
                let base = landed_base(side, record, source, zxid, None);
                self.set_base(&record.key.clone(), base);
            }
        }
        // The other side may have been read as a whole before we knew of this pair: what became of it there while nobody led was not looked for.
        if self.sides[side.other()].ever_up {
            self.mark(record.key.clone(), Dirt::on_both(self.now));
        }
    }

    pub(super) fn halt(&mut self, reason: HaltReason) {
        self.halted = Some(reason.clone());
        self.outbox.push(Effect::Halt(reason));
    }

    pub(super) fn down(&mut self, side: Side) {
        let now = self.now;
        let state = &mut self.sides[side];
        if !state.up {
            return;
        }
        state.up = false;
        state.down_since = now;
        state.scan = None;
        if let Some(flight) = &mut state.flight {
            flight.unknown = true;
        }
        let lost = state.acl_flight.take();
        let waiting = std::mem::take(&mut state.acl_ready);
        for plan in lost.into_iter().map(|(_, plan)| plan).chain(waiting) {
            self.busy.remove(&plan.key);
            if let Some((intent, resolution)) = plan.resolution {
                self.acl_doubts.insert(plan.key.clone(), (intent, *resolution));
            }
            self.dirty.mark(plan.key, Dirt::on_both(now));
        }
        for look in std::mem::take(&mut self.looks) {
            for (key, dirt) in look.pairs {
                self.busy.remove(&key);
                self.dirty.mark(key, dirt);
            }
        }
        self.dirty.forget_told(side);
        self.scan_reads.retain(|_, reading| reading.side != side);
        self.forget_proofs(side);
    }

    pub(super) fn changed(&mut self, side: Side, path: &str) {
        self.counters.events[side] += 1;
        let Some(key) = self.config.mapping.key(side, path) else { return };
        if too_deep(&key) {
            return;
        }
        self.suspects.remove(&key);
        let known = self.pairs.get(&key);
        // A new one will need its access control list: read with it at once.
        let acl = known.is_none();
        let size = known.map_or(0, |pair| pair.base.size);
        // It may have come long ago: whoever steps the link may have stood still, or the server may be behind its ensemble.
        let from = self.sides[side].heard_until.min(self.now - ANNOUNCED_WITHIN);
        self.mark(key, Dirt { acl, size, announced: true, ..Dirt::on(side, self.now, from) });
    }

    pub(super) fn mark(&mut self, key: Key, dirt: Dirt) {
        let announced = dirt.announced;
        self.dirty.mark(key, dirt);
        // What a scan finds is bounded by the scan's own pace; only events come as they like.
        if announced && self.dirty.len() > self.config.limits.dirty {
            self.counters.dirty_overflows += 1;
            self.dirty.clear();
            for side in Side::BOTH {
                // What it had found has not been dealt with.
                self.sides[side].compared = None;
                if self.sides[side].up {
                    self.start_scan(side, true);
                }
            }
        }
    }

    pub(super) fn start_scan(&mut self, side: Side, after_gap: bool) {
        let state = &mut self.sides[side];
        if let Some(scan) = &mut state.scan {
            // What it has not seen yet it will; what it has may have changed.
            scan.again |= after_gap && scan.read > 0;
            scan.after_gap |= after_gap;
            return;
        }
        state.generation += 1;
        state.excluded.clear();
        let roots = self.config.mapping.rules().iter().map(|rule| rule.a.as_str().into());
        // The server that is read may be behind its ensemble, but not behind what it has answered.
        state.scan = Some(Scan::new(state.generation, after_gap, state.heard_until.min(self.now), roots));
    }

    /// Reads the subtree of `key` besides.
    pub(super) fn look_below(&mut self, side: Side, key: &Key) {
        let state = &mut self.sides[side];
        match &mut state.scan {
            Some(scan) => scan.queue.push_back(key.clone()),
            None if state.up => {
                // A generation of its own would make all else look absent: it keeps the last one, and the end looks for nothing.
                let mut scan = Scan::new(0, false, self.now, std::iter::once(key.clone()));
                scan.generation = 0;
                state.scan = Some(scan);
            }
            None => {}
        }
    }

    pub(super) fn feed_scan(&mut self, side: Side, out: &mut Vec<Effect>) {
        loop {
            let crowded = self.dirty.len() > self.config.limits.dirty / 2;
            let Some(scan) = &mut self.sides[side].scan else { return };
            if scan.outstanding >= WINDOW || scan.queue.is_empty() || crowded {
                break;
            }
            let keys = scan.next_batch();
            scan.outstanding += 1;
            let generation = scan.generation;
            let id = self.take_id();
            let want = |key: &Key| ReadWant { path: self.config.mapping.path(side, key), acl: false, children: true };
            out.push(Effect::Read { side, id, reads: keys.iter().map(want).collect(), newest: false });
            self.scan_reads.insert(id, ScanRead { side, generation, asked: self.sides[side].zxid, keys });
        }
        if self.sides[side].scan.as_ref().is_some_and(Scan::is_finished) {
            self.finish_scan(side);
        }
    }

    pub(super) fn read(&mut self, side: Side, id: u64, answers: Vec<Reading>) {
        if let Some(question) = self.scan_reads.remove(&id) {
            self.scanned(question, answers);
        } else if !self.proved(id, &answers) {
            self.looked(side, id, answers);
        }
    }

    fn scanned(&mut self, question: ScanRead, answers: Vec<Reading>) {
        let ScanRead { side, generation, asked, keys } = question;
        let bytes: usize = answers.iter().map(answer_bytes).sum();
        let after_gap = match &mut self.sides[side].scan {
            Some(scan) if scan.generation == generation => {
                scan.outstanding -= 1;
                scan.read += keys.len() as u64;
                scan.adapt(bytes);
                scan.after_gap
            }
            _ => return,
        };
        for (key, answer) in keys.into_iter().zip(answers) {
            match answer {
                Reading::Present(node) => self.scanned_one(side, (generation, asked, after_gap), key, &node),
                // Either it goes right now, and an event tells; or it was gone, and the end of the scan notices.
                Reading::Absent => {}
                Reading::Denied(why) => self.block(&key, why),
            }
        }
    }

    fn scanned_one(&mut self, side: Side, (generation, asked, after_gap): (u32, i64, bool), key: Key, node: &Node) {
        let path = self.config.mapping.path(side, &key);
        for name in node.children.iter().flatten() {
            let below = self.config.mapping.key(side, &mapping::child(&path, name));
            let state = &mut self.sides[side];
            match (below, &mut state.scan) {
                (Some(below), _) if too_deep(&below) => *state.excluded.entry("too_deep").or_default() += 1,
                (Some(below), Some(scan)) => scan.queue.push_back(below),
                (None, _) => *state.excluded.entry("filtered").or_default() += 1,
                (_, None) => {}
            }
        }
        let seen = node.stat.seen();
        let from = self.sides[side].known_until;
        let dirt = Dirt { size: u32::try_from(node.data.len()).unwrap_or(u32::MAX), ..Dirt::on(side, self.now, from) };
        match self.pairs.get_mut(&key) {
            Some(pair) => {
                if generation != 0 {
                    pair.mark[side] = generation;
                }
                let known = pair.base.seen[side];
                // What was gone is there again, as it was.
                let is_back = self.held.get(&key).is_some_and(|held| held.lacking == side);
                if known.same(&seen) && !is_back {
                    return;
                }
                if seen.mzxid < known.mzxid {
                    if known.mzxid > asked {
                        // It was written, and told, since this was asked.
                        return;
                    }
                    self.doubt_of(side, &key, known.mzxid);
                }
                if !after_gap && (self.busy.contains(&key) || self.dirty.contains(&key)) {
                    return;
                }
                // No server tells of changed access control lists, so that is no sign of a silent watch.
                if !after_gap && !known.same_data(&seen) && self.config.mode.takes_from(side) && !self.is_waiting(&key) {
                    self.suspects.insert(key.clone(), self.now);
                }
                self.mark(key, Dirt { acl: known.aversion != seen.aversion, ..dirt });
            }
            None if node.stat.owner != 0 && self.config.ephemerals == EphemeralPolicy::Skip => {
                *self.sides[side].excluded.entry("ephemeral").or_default() += 1;
            }
            None if !after_gap && (self.busy.contains(&key) || self.dirty.contains(&key) || self.conflicted.contains_key(&key)) => {}
            None => self.mark(key, Dirt { acl: true, ..dirt }),
        }
    }

    fn finish_scan(&mut self, side: Side) {
        let Some(scan) = self.sides[side].scan.take() else { return };
        if scan.generation == 0 {
            return;
        }
        if scan.again {
            self.start_scan(side, true);
            return;
        }
        // Children before their parents: so are they deleted.
        let generation = scan.generation;
        let unseen: Vec<Key> =
            self.pairs.iter().rev().filter(|(_, pair)| pair.mark[side] != generation).map(|(key, _)| key.clone()).collect();
        for key in unseen {
            // That it is gone here is why its delete waits for approval: looking again would only ask again.
            if self.held.get(&key).is_some_and(|held| held.lacking == side) {
                continue;
            }
            if scan.after_gap || !(self.busy.contains(&key) || self.dirty.contains(&key)) {
                if !scan.after_gap && self.config.mode.takes_from(side) && !self.is_waiting(&key) {
                    self.suspects.insert(key.clone(), self.now);
                }
                self.mark(key, Dirt::on(side, self.now, self.sides[side].known_until));
            }
        }
        self.sides[side].compared = Some((scan.began, self.now));
        if !scan.after_gap {
            self.counters.full_passes[side] += 1;
        }
        self.sides[side].scanned = true;
        self.next_pass = self.next_pass.max(self.now + self.config.limits.full_pass / 2);
        self.excluded.clear();
        for side in Side::BOTH {
            for (reason, count) in &self.sides[side].excluded {
                *self.excluded.entry(reason).or_default() += count;
            }
        }
    }

    /// Whether it is known already why the sides differ in it: that is no sign of a silent watch.
    fn is_waiting(&self, key: &Key) -> bool {
        self.conflicted.contains_key(key) || self.held.contains_key(key) || self.blocked.contains_key(key) || self.drifting.contains(key)
    }

    /// Copies of ephemerals whose originals we have not been able to see for longer than a session lasts go.
    pub(super) fn expire_shadows(&mut self) {
        for original in Side::BOTH {
            let state = &self.sides[original];
            let copy = original.other();
            if state.up || self.shadows.is_empty() || self.now.since(state.down_since) < SHADOW_GRACE || !self.sides[copy].up {
                continue;
            }
            let mine = |key: &&Key| self.pairs.get(*key).is_some_and(|pair| pair.base.shadow_of == Some(original));
            let keys: Vec<Key> = self.shadows.iter().filter(mine).cloned().collect();
            for key in keys {
                if self.busy.contains(&key) {
                    continue;
                }
                let Some(base) = self.pairs.get(&key).map(|pair| pair.base) else { continue };
                let dirt = Dirt::on(original, self.now, self.sides[original].down_since);
                let kind = WriteKind::Delete { version: base.seen[copy].version, told: false };
                self.plan(copy, &key, kind, None, Some(base.seen[copy]), (base.data, base.acl, 0), dirt, None);
            }
        }
    }
}

/// What both agree on after `record` was applied on `side` under `zxid`.
pub(super) fn landed_base(side: Side, record: &Record, source: Seen, zxid: i64, state: Option<Seen>) -> Base {
    let told = Seen { czxid: if record.target.czxid == 0 { zxid } else { record.target.czxid }, mzxid: zxid, ..record.target };
    let mut seen = PerSide { a: source, b: source };
    // The version of the access control list is the one whose list is known; a newer one is news.
    seen[side] = Seen { czxid: state.map_or(told.czxid, |state| state.czxid), ..told };
    Base { seen, data: record.data, acl: record.acl, size: record.size, shadow_of: record.shadow.then_some(side.other()), pending: None }
}

/// Whether a pair is not copied because of its path: more than 200 names, or more than 32 KiB.
pub fn too_deep(key: &str) -> bool {
    key.len() > PATH_MAX || key.bytes().filter(|byte| *byte == b'/').count() > DEPTH_MAX
}

pub(super) fn answer_bytes(answer: &Reading) -> usize {
    match answer {
        Reading::Present(node) => node.data.len() + 80 + node.children.iter().flatten().map(|name| name.len() + 8).sum::<usize>(),
        _ => 16,
    }
}
