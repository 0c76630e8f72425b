//! The state machine of a link: [`Link::step`] takes what happened, and says what to read, write and remember.

mod collide;
mod graves;
mod look;
mod proof;
mod sides;
mod words;
mod write;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;

use crate::codec::Record;
use crate::config::{Clock, LinkConfig, Strategy};
use crate::conflict::{Conflict, DeletedBetween, Intent, Resolution};
use crate::dirty::{Dirt, DirtySet};
use crate::node::{Acl, Base, Key, PerSide, Seen, Side};
use crate::scan::Scan;
use crate::status::{Counters, LinkState, Status};
use crate::tombstone::{Tombstone, Tombstones};

use proof::Proof;
pub use sides::too_deep;
pub use words::{
    AclDone, Command, Effect, FoundSlot, HaltReason, Input, Opened, Outcome, ReadWant, Reading, Refusal, Remembered, Witnessed, WriteKind,
    WriteOp,
};

/// The subtree on both ensembles that is ours.
pub const RESERVED: &str = "/__zksync";
/// Slots of a direction. A transaction is not sent before what the one this many before it did is persisted.
pub const SLOTS: u64 = 128;
/// How often a pair is tried before it is given up until the next comparison of everything.
const ATTEMPTS: u8 = 8;
/// Within which deletes are counted for the brake.
const BRAKE_WINDOW: Duration = Duration::from_secs(60);
/// How long an approval of deletes holds.
const APPROVAL: Duration = Duration::from_secs(600);
/// A difference that no event tells of by then was never announced.
const ANNOUNCED_WITHIN: Duration = Duration::from_secs(2);
/// Bytes of a pair's data that are kept for whoever decides a conflict.
const BASE_DATA_MAX: usize = 64 * 1024;
/// Bytes of them that may wait to be persisted; what comes beyond it is not kept.
const BASE_DATA_UNSAVED: usize = 16 * 1024 * 1024;
/// Blocked paths that a status names.
const BLOCKED_NAMED: usize = 100;

/// A link between two ensembles.
#[derive(Debug)]
pub struct Link {
    config: LinkConfig,
    now: Timestamp,
    pairs: BTreeMap<Key, Pair>,
    shadows: BTreeSet<Key>,
    sides: PerSide<SideState>,
    dirty: DirtySet,
    /// Pairs that are being looked at, written, or wait for that.
    busy: BTreeSet<Key>,
    /// In the order in which they were begun, and are concluded.
    looks: VecDeque<Look>,
    look_size: usize,
    scan_reads: BTreeMap<u64, ScanRead>,
    /// Reads that tell whether a side went back in time.
    proofs: BTreeMap<u64, Proof>,
    /// What is left of pairs that are gone.
    tombstones: Tombstones,
    blocked: BTreeMap<Key, String>,
    drifting: BTreeSet<Key>,
    /// Deletes that wait for approval.
    held: BTreeMap<Key, Held>,
    /// Deletes are held back, and nobody has approved them.
    braked: bool,
    deletes: VecDeque<Timestamp>,
    approved_until: Timestamp,
    /// Pairs deleted on one side although something was created below them on the other; which side lacks them.
    orphaned: BTreeMap<Key, Side>,
    /// Of these, those that come back on the side that lacks them.
    revived: BTreeMap<Key, Side>,
    /// Of these, those whose subtree goes on the side that has it.
    purged: BTreeMap<Key, Side>,
    conflicts: BTreeMap<u64, Conflict>,
    conflicted: BTreeMap<Key, u64>,
    resolving: BTreeMap<Key, Side>,
    /// Intents of a process before this one, until the side's slots tell whether they were carried out.
    doubts: PerSide<BTreeMap<u64, Intent>>,
    /// Changes of access control lists that decide a conflict and whose outcome is not known, until the pair is looked at again.
    acl_doubts: BTreeMap<Key, (u64, Resolution)>,
    next_id: u64,
    next_pass: Timestamp,
    paused: bool,
    halted: Option<HaltReason>,
    settled_once: bool,
    unsaved: Unsaved,
    saving: Option<(u64, PerSide<u64>)>,
    saved: PerSide<u64>,
    saves_begun: u64,
    saves_safe: u64,
    excluded: BTreeMap<&'static str, u64>,
    counters: Counters,
    /// Differences that a comparison found and no event has told of yet.
    suspects: BTreeMap<Key, Timestamp>,
    /// Effects that were found while deciding.
    outbox: Vec<Effect>,
}

/// A delete that waits for approval.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// The side that lacks the znode.
    lacking: Side,
    /// It was there then; the beginning of time when that is not known.
    from: Timestamp,
}

/// A question of a scan.
#[derive(Debug)]
struct ScanRead {
    side: Side,
    generation: u32,
    /// The newest transaction of the side that was known when it was asked.
    asked: i64,
    keys: Vec<Key>,
}

#[derive(Debug, Default)]
struct Unsaved {
    bases: BTreeMap<Key, Option<Base>>,
    base_data: BTreeMap<Key, Option<Arc<[u8]>>>,
    base_data_bytes: usize,
    tombstones: BTreeMap<Key, Option<Tombstone>>,
    conflicts: BTreeMap<u64, Option<Conflict>>,
    intents: BTreeMap<u64, Option<Intent>>,
    resolved: Vec<Resolution>,
    dirty: bool,
}

#[derive(Clone, Copy, Debug)]
struct Pair {
    base: Base,
    /// Generation of the scan of each side that last saw it.
    mark: PerSide<u32>,
}

#[derive(Debug, Default)]
struct SideState {
    up: bool,
    ever_up: bool,
    session: i64,
    epoch: i32,
    /// None until it was compared with ours.
    clock: Option<Clock>,
    /// Newest transaction seen.
    zxid: i64,
    /// Newest transaction of ours that was answered.
    own: i64,
    /// When its connection was lost, or when we began.
    down_since: Timestamp,
    /// What is heard from here on happened after this, and what is read from here on is not older.
    heard_until: Timestamp,
    /// Everything that is known to have been there was there until then, at least.
    known_until: Timestamp,
    /// When the last comparison of everything began and ended, until what it found has been dealt with.
    compared: Option<(Timestamp, Timestamp)>,
    scan: Option<Scan>,
    generation: u32,
    /// It was read as a whole since we began.
    scanned: bool,
    excluded: BTreeMap<&'static str, u64>,
    ready: VecDeque<Planned>,
    ready_bytes: usize,
    flight: Option<Flight>,
    /// Last transaction that is in the bases.
    applied: u64,
    next_sequence: u64,
    /// Operations of the next transaction at most: less after a refusal.
    batch: usize,
    acl_ready: VecDeque<AclPlan>,
    acl_flight: Option<(u64, AclPlan)>,
}

impl SideState {
    /// Operations that wait, or are on their way.
    fn queued(&self) -> usize {
        let flying = self.flight.as_ref().map_or(0, |flight| flight.planned.len());
        self.ready.len() + flying + self.acl_ready.len() + usize::from(self.acl_flight.is_some())
    }

    /// A transaction that was made there.
    fn saw(&mut self, zxid: i64) {
        self.zxid = self.zxid.max(zxid);
    }

    /// A transaction that we made there, and that was answered.
    fn made(&mut self, zxid: i64) {
        self.saw(zxid);
        self.own = self.own.max(zxid);
    }
}

/// A look at pairs that is under way.
#[derive(Debug)]
struct Look {
    id: u64,
    pairs: Vec<(Key, Dirt)>,
    answers: PerSide<Option<Vec<Reading>>>,
    waiting: PerSide<bool>,
}

/// A transaction that is under way.
#[derive(Debug)]
struct Flight {
    sequence: u64,
    planned: Vec<Planned>,
    unknown: bool,
}

/// An operation that waits for its transaction.
#[derive(Clone, Debug)]
struct Planned {
    op: WriteOp,
    record: Record,
    /// What the target was believed to be.
    before: Option<Seen>,
    since: Timestamp,
    /// When the source was deleted, if it was.
    between: DeletedBetween,
    announced: bool,
    attempts: u8,
    /// It is not sent before this many saves are safe: what it replaces is on disk then.
    after: u64,
    /// What is recorded when it has been applied, with the number of its intent.
    resolution: Option<(u64, Box<Resolution>)>,
}

#[derive(Clone, Debug)]
struct AclPlan {
    /// It is not sent before this many saves are safe: then it is noted on disk.
    after: u64,
    key: Key,
    path: String,
    acl: Vec<Acl>,
    aversion: i32,
    /// What both agree on afterwards, but for the version that the change makes.
    base: Base,
    attempts: u8,
    resolution: Option<(u64, Box<Resolution>)>,
}

impl Link {
    /// A link with what was persisted.
    pub fn new(config: LinkConfig, remembered: Remembered, now: Timestamp) -> Link {
        let Remembered { bases, tombstones: gone, applied, own, known_ms, conflicts: open, intents, braked, paused } = remembered;
        let batch = config.limits.batch_ops;
        let side = |side: Side| {
            let (applied, own) = (applied[side], own[side]);
            // It may have been another machine's clock.
            let known_until = (Timestamp::from_unix_millis(known_ms[side]) - ANNOUNCED_WITHIN).min(now);
            SideState { applied, next_sequence: applied + 1, own, zxid: own, batch, down_since: now, known_until, ..SideState::default() }
        };
        let mut sides = PerSide { a: side(Side::A), b: side(Side::B) };
        let mut pairs = BTreeMap::new();
        let mut shadows = BTreeSet::new();
        for (key, base) in bases {
            for side in Side::BOTH {
                sides[side].saw(base.seen[side].newest());
            }
            if base.shadow_of.is_some() {
                shadows.insert(key.clone());
            }
            pairs.insert(key, Pair { base, mark: PerSide::default() });
        }
        let mut tombstones = Tombstones::default();
        for (key, tombstone) in gone {
            for side in Side::BOTH {
                sides[side].saw(tombstone.newest[side]);
            }
            tombstones.insert(key, tombstone);
        }
        let newest = open.iter().map(|conflict| conflict.id).chain(intents.keys().copied()).max().unwrap_or(0);
        let next_id = newest.max(now.unix_millis()) + 1;
        let mut doubts: PerSide<BTreeMap<u64, Intent>> = PerSide::default();
        let mut acl_doubts = BTreeMap::new();
        for (id, intent) in intents {
            if intent.record.is_some() {
                doubts[intent.side].insert(id, intent);
            } else {
                acl_doubts.insert(intent.resolution.key.clone(), (id, intent.resolution));
            }
        }
        Link {
            now,
            shadows,
            sides,
            dirty: DirtySet::default(),
            busy: BTreeSet::new(),
            looks: VecDeque::new(),
            look_size: 64,
            scan_reads: BTreeMap::new(),
            proofs: BTreeMap::new(),
            tombstones,
            blocked: BTreeMap::new(),
            drifting: BTreeSet::new(),
            held: BTreeMap::new(),
            braked,
            deletes: VecDeque::new(),
            approved_until: Timestamp::EPOCH,
            orphaned: BTreeMap::new(),
            revived: BTreeMap::new(),
            purged: BTreeMap::new(),
            conflicted: open.iter().map(|conflict| (conflict.key.clone(), conflict.id)).collect(),
            conflicts: open.into_iter().map(|conflict| (conflict.id, conflict)).collect(),
            resolving: BTreeMap::new(),
            doubts,
            acl_doubts,
            next_id,
            next_pass: now + config.limits.full_pass,
            paused,
            halted: None,
            settled_once: !pairs.is_empty(),
            unsaved: Unsaved::default(),
            saving: None,
            saved: applied,
            saves_begun: 0,
            saves_safe: 0,
            excluded: BTreeMap::new(),
            counters: Counters::default(),
            suspects: BTreeMap::new(),
            outbox: Vec::new(),
            pairs,
            config,
        }
    }

    /// What it was told to do.
    pub fn config(&self) -> &LinkConfig {
        &self.config
    }

    /// Takes one input. Total: every input has an outcome.
    pub fn step(&mut self, now: Timestamp, input: Input, out: &mut Vec<Effect>) {
        self.now = now;
        if self.halted.is_some() {
            return;
        }
        match input {
            Input::Found { side, own } => self.found(side, own),
            Input::Up { side, opened } => self.up(side, opened, out),
            Input::Down { side } => self.down(side),
            Input::Changed { side, path } => self.changed(side, &path),
            Input::Read { side, id, answers } => self.read(side, id, answers),
            Input::Wrote { side, sequence, outcome } => self.wrote(side, sequence, outcome, out),
            Input::AclSet { side, id, outcome } => self.acl_set(side, id, outcome, out),
            Input::Persisted { number } => {
                if let Some((_, applied)) = self.saving.take_if(|(saving, _)| *saving == number) {
                    self.saved = applied;
                    self.saves_safe = self.saves_begun;
                }
            }
            Input::Fenced { side } => self.halt(HaltReason::Fenced { side }),
            Input::Clock { side, clock, zxid, sent } => {
                let state = &mut self.sides[side];
                state.clock = Some(clock);
                state.made(zxid);
                // The system's clock may have been set back.
                state.heard_until = state.heard_until.max(sent).min(now);
            }
            Input::Command(command) => self.command(command, out),
            Input::Tick => self.tick(),
        }
        if self.halted.is_none() {
            self.pump(out);
        }
        out.append(&mut self.outbox);
    }

    /// Does whatever can be done now.
    fn pump(&mut self, out: &mut Vec<Effect>) {
        for side in Side::BOTH {
            self.feed_scan(side, out);
        }
        if !self.paused {
            self.start_looks(out);
            // Nothing is carried while it is not known whether a side went back in time.
            if self.proofs.is_empty() {
                for side in Side::BOTH {
                    self.send(side, out);
                    self.send_acl(side, out);
                }
            }
        }
        if self.braked && self.held.is_empty() && self.is_settled() {
            // Whatever was held back is there again.
            self.braked = false;
            self.unsaved.dirty = true;
        }
        if self.saving.is_none() && self.unsaved.dirty {
            let number = self.take_id();
            let applied = PerSide { a: self.sides.a.applied, b: self.sides.b.applied };
            self.saving = Some((number, applied));
            self.saves_begun += 1;
            let Unsaved { bases, base_data, tombstones, conflicts, intents, resolved, .. } = std::mem::take(&mut self.unsaved);
            let own = PerSide { a: self.sides.a.own, b: self.sides.b.own };
            let known_ms = PerSide { a: self.sides.a.known_until.unix_millis(), b: self.sides.b.known_until.unix_millis() };
            let braked = self.braked;
            out.push(Effect::Persist {
                number,
                bases,
                base_data,
                tombstones,
                conflicts,
                intents,
                resolved,
                applied,
                own,
                known_ms,
                braked,
            });
        }
        if !self.settled_once && self.is_settled() {
            self.settled_once = true;
        }
    }

    fn command(&mut self, command: Command, out: &mut Vec<Effect>) {
        match command {
            Command::Pause => self.paused = true,
            Command::Resume => self.paused = false,
            Command::SetMode(mode) => {
                if self.config.mode == mode {
                    return;
                }
                self.config.mode = mode;
                let drifting: Vec<Key> = self.drifting.iter().cloned().collect();
                for key in drifting {
                    self.dirty.mark(key, Dirt::on_both(self.now));
                }
                // Nor is a delete that was held back still one: a comparison would take it for known.
                self.look_at_held();
                // What was decided by the old rule must not be carried out by the new one.
                for side in Side::BOTH {
                    self.requeue_ready(side);
                    out.push(Effect::Reopen { side });
                }
            }
            Command::SetStrategy(strategy) => self.config.strategy = strategy,
            Command::Resync => self.next_pass = self.now,
            Command::ApproveDeletes => {
                self.approved_until = self.now + APPROVAL;
                self.unsaved.dirty |= std::mem::take(&mut self.braked);
                self.look_at_held();
            }
            Command::Resolve { id, winner, seen } => {
                let Some(mut conflict) = self.conflicts.get(&id).cloned() else { return };
                if let Some(seen) = seen.filter(|seen| *seen != conflict.sides) {
                    conflict.sides = seen;
                    self.note_conflict(conflict.clone());
                }
                self.resolving.insert(conflict.key.clone(), winner);
                self.dirty.mark(conflict.key, Dirt::on_both(self.now));
            }
        }
    }

    /// Whether what was held back is a delete still is seen anew; since when it was one is known.
    fn look_at_held(&mut self) {
        for (key, held) in std::mem::take(&mut self.held) {
            self.dirty.mark(key, Dirt { from: held.from, ..Dirt::on_both(self.now) });
        }
    }

    fn tick(&mut self) {
        self.expire_shadows();
        let now = self.now;
        let before = self.suspects.len();
        self.suspects.retain(|_, since| now.since(*since) < ANNOUNCED_WITHIN);
        self.counters.unannounced += (before - self.suspects.len()) as u64;
        while self.deletes.front().is_some_and(|at| self.now.since(*at) > BRAKE_WINDOW) {
            self.deletes.pop_front();
        }
        self.note_known();
        self.forget_old_tombstones();
        let idle = Side::BOTH.into_iter().all(|side| self.sides[side].up && self.sides[side].scan.is_none());
        if idle && self.now >= self.next_pass && !self.paused {
            self.next_pass = self.now + self.config.limits.full_pass;
            for (key, _) in std::mem::take(&mut self.blocked) {
                self.dirty.mark(key, Dirt::on_both(self.now));
            }
            // What only the side has that nothing is taken from is no pair: its end would not be noticed.
            for key in &self.drifting {
                self.dirty.mark(key.clone(), Dirt::on_both(self.now));
            }
            for side in Side::BOTH {
                self.start_scan(side, false);
            }
        }
    }

    /// Whether both sides were read as a whole, and everything that is known to differ was dealt with.
    pub fn is_settled(&self) -> bool {
        let at_rest = |side: Side| {
            let it = &self.sides[side];
            it.up
                && it.scanned
                && it.scan.is_none()
                && it.flight.is_none()
                && it.acl_flight.is_none()
                && it.ready.is_empty()
                && it.acl_ready.is_empty()
        };
        self.dirty.is_empty() && self.looks.is_empty() && self.proofs.is_empty() && Side::BOTH.into_iter().all(at_rest)
    }

    /// Whether it has stopped by itself, for good.
    pub fn is_halted(&self) -> bool {
        self.halted.is_some()
    }

    /// Everything an operator wants to know.
    pub fn status(&self) -> Status {
        let mut excluded = self.excluded.clone();
        excluded.insert("drift", self.drifting.len() as u64);
        Status {
            state: self.state(),
            reason: self.halted.as_ref().map(ToString::to_string),
            mode: self.config.mode.as_str(),
            pairs: self.pairs.len(),
            backlog: self.dirty.len() + self.busy.len(),
            queued: PerSide { a: self.sides.a.queued(), b: self.sides.b.queued() },
            oldest_ms: self.dirty.oldest().map_or(0, |since| u64::try_from(self.now.since(since).as_millis()).unwrap_or(u64::MAX)),
            connected: PerSide { a: self.sides.a.up, b: self.sides.b.up },
            scanning: PerSide { a: self.sides.a.scan.as_ref().map(|scan| scan.read), b: self.sides.b.scan.as_ref().map(|scan| scan.read) },
            zxid: PerSide { a: self.sides.a.zxid, b: self.sides.b.zxid },
            epoch: PerSide { a: self.sides.a.epoch, b: self.sides.b.epoch },
            open_conflicts: self.conflicts.len(),
            held_deletes: self.held.len(),
            tombstones: self.tombstones.len(),
            blocked: self.blocked.iter().take(BLOCKED_NAMED).map(|(key, why)| (key.to_string(), why.clone())).collect(),
            blocked_total: self.blocked.len(),
            excluded,
            counters: self.counters.clone(),
        }
    }

    fn state(&self) -> LinkState {
        let sides = [&self.sides.a, &self.sides.b];
        match &self.halted {
            Some(HaltReason::Fenced { .. }) => return LinkState::Fenced,
            Some(_) => return LinkState::Halted,
            None => {}
        }
        if self.paused {
            LinkState::Paused
        } else if sides.iter().any(|side| !side.ever_up) {
            LinkState::Starting
        } else if sides.iter().any(|side| !side.up) {
            LinkState::Stalled
        } else if sides.iter().any(|side| side.scan.as_ref().is_some_and(|scan| scan.after_gap)) && self.settled_once {
            LinkState::Resync
        } else if !self.settled_once {
            LinkState::Snapshot
        } else if !self.held.is_empty() || !self.blocked.is_empty() {
            LinkState::Degraded
        } else {
            LinkState::Live
        }
    }

    /// Open conflicts, in the order in which they were found.
    pub fn open_conflicts(&self) -> impl Iterator<Item = &Conflict> {
        self.conflicts.values()
    }

    /// What both sides last agreed on about `key`.
    pub fn base_of(&self, key: &str) -> Option<&Base> {
        self.pairs.get(key).map(|pair| &pair.base)
    }

    /// All pairs.
    pub fn bases(&self) -> impl Iterator<Item = (&Key, &Base)> {
        self.pairs.iter().map(|(key, pair)| (key, &pair.base))
    }

    /// Whether events of `side` are of use: from the other side alone nothing is taken.
    pub fn wants_events_of(&self, side: Side) -> bool {
        self.config.mode.takes_from(side)
    }

    /// Notes a resolution before it is carried out; gives back the number of the intent.
    fn intend(&mut self, side: Side, record: Option<Record>, resolution: &Resolution) -> u64 {
        let id = self.take_id();
        self.unsaved.intents.insert(id, Some(Intent { side, record, resolution: resolution.clone() }));
        self.unsaved.dirty = true;
        id
    }

    /// What was intended was carried out, or will not be.
    fn end_intent(&mut self, id: u64) {
        self.unsaved.intents.insert(id, None);
        self.unsaved.dirty = true;
    }

    /// How many saves must be safe so that everything that is noted by now is.
    fn next_save(&mut self) -> u64 {
        self.unsaved.dirty = true;
        self.saves_begun + 1
    }

    fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn set_base(&mut self, key: &Key, base: Base) {
        // An ensemble that comes back with less than this has lost what was copied already. What only others wrote counts as well: after a
        // restore, the sessions that end and begin are transactions too, and soon more than ours.
        for side in Side::BOTH {
            self.sides[side].saw(base.seen[side].newest());
        }
        let mark = PerSide { a: self.sides.a.generation, b: self.sides.b.generation };
        if base.shadow_of.is_some() {
            self.shadows.insert(key.clone());
        } else {
            self.shadows.remove(key);
        }
        self.pairs.insert(key.clone(), Pair { base, mark });
        self.unbury(key);
        self.unsaved.bases.insert(key.clone(), Some(base));
        self.unsaved.dirty = true;
    }

    /// Keeps the data that both sides agree on where an operator decides conflicts, who will want to see all three.
    fn keep_data(&mut self, key: &Key, data: &Arc<[u8]>) {
        if self.config.mode.source().is_some() || self.config.strategy != Strategy::Manual {
            return;
        }
        let bytes = self.unsaved.base_data_bytes + data.len();
        let fits = data.len() <= BASE_DATA_MAX && bytes <= BASE_DATA_UNSAVED;
        if fits {
            self.unsaved.base_data_bytes = bytes;
        } else {
            self.counters.base_data_unkept += 1;
        }
        self.unsaved.base_data.insert(key.clone(), fits.then(|| data.clone()));
        self.unsaved.dirty = true;
    }

    fn forget_base(&mut self, key: &Key) {
        self.shadows.remove(key);
        if self.pairs.remove(key).is_some() {
            self.unsaved.bases.insert(key.clone(), None);
            self.unsaved.base_data.insert(key.clone(), None);
            self.unsaved.dirty = true;
        }
    }

    fn block(&mut self, key: &Key, why: String) {
        if self.blocked.len() < self.config.limits.blocked || self.blocked.contains_key(key) {
            self.blocked.insert(key.clone(), why);
        } else {
            self.counters.blocked_unnoted += 1;
        }
    }
}
