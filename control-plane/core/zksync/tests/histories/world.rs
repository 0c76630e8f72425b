//! A world of two ensembles, clients that write to both, a link between, and everything that can go wrong, from one seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use zksync::{
    AclDone, Base, Clock, Conflict, Effect, FoundSlot, HaltReason, Input, Intent, Key, Link, LinkConfig, Opened, Outcome, PerSide, Reading,
    Remembered, Resolution, SLOTS, Seen, Side, Slot, Tombstone, WriteKind, WriteOp,
};

use crate::ensemble::{Ensemble, Znode, acl};

/// xorshift64*: seedable, and enough.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }

    pub(crate) fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

/// A connection: requests in order one way, answers and events in order the other.
#[derive(Default)]
struct Wire {
    up: bool,
    watching: bool,
    requests: VecDeque<Effect>,
    stream: VecDeque<Input>,
}

/// What is on disk.
#[derive(Default)]
struct Disk {
    bases: BTreeMap<Key, Base>,
    base_data: BTreeMap<Key, Vec<u8>>,
    tombstones: BTreeMap<Key, Tombstone>,
    known_ms: PerSide<u64>,
    conflicts: BTreeMap<u64, Conflict>,
    intents: BTreeMap<u64, Intent>,
    resolutions: Vec<Resolution>,
    applied: PerSide<u64>,
    own: PerSide<i64>,
    braked: bool,
}

/// What a client had written, the other side never got, and the link replaced.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Loss {
    side: Side,
    path: String,
    seen: Seen,
    data: Vec<u8>,
}

pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) now: Timestamp,
    pub(crate) sides: PerSide<Ensemble>,
    wires: PerSide<Wire>,
    /// Answers that others overtake.
    held: Vec<Input>,
    /// Requests of connections that are gone, which a server may still carry out.
    zombies: Vec<(Side, Effect)>,
    pub(crate) link: Link,
    config: LinkConfig,
    disk: Disk,
    persists: VecDeque<Effect>,
    /// States that both sides had, or that went to the other side: what replaces them is no loss.
    agreed: BTreeSet<(bool, String, i64)>,
    pub(crate) losses: Vec<Loss>,
    /// What one side's clients alone wrote, as it must be in the end on both.
    pub(crate) own: PerSide<Ensemble>,
    pub(crate) client_ops: u64,
    pub(crate) link_ops: u64,
    pub(crate) halted: Option<HaltReason>,
    pub(crate) skew_ms: PerSide<i64>,
    /// Clocks are not compared.
    pub(crate) timeless: bool,
    /// What a server answers that lags behind its ensemble, until it is asked to catch up.
    pub(crate) lagging: PerSide<Option<Ensemble>>,
    /// When clients changed what: whether it was there afterwards, by our clock.
    truth: BTreeMap<(bool, String), Vec<(u64, bool)>>,
    /// What was deleted on a side last when both had the same, and that was known on disk.
    deleted: BTreeMap<String, Side>,
    /// Questions that were asked again of a server that had to catch up.
    pub(crate) asked_again: u64,
    pub(crate) log: Vec<String>,
}

impl World {
    pub(crate) fn new(seed: u64, config: LinkConfig) -> World {
        let now = Timestamp::from_unix_millis(1_000_000);
        let mut world = World {
            dice: Dice::new(seed),
            now,
            sides: PerSide { a: Ensemble::new(), b: Ensemble::new() },
            wires: PerSide::default(),
            held: Vec::new(),
            zombies: Vec::new(),
            link: Link::new(config.clone(), Remembered::default(), now),
            config,
            disk: Disk::default(),
            persists: VecDeque::new(),
            agreed: BTreeSet::new(),
            losses: Vec::new(),
            own: PerSide { a: Ensemble::new(), b: Ensemble::new() },
            client_ops: 0,
            link_ops: 0,
            halted: None,
            skew_ms: PerSide::default(),
            timeless: false,
            lagging: PerSide::default(),
            truth: BTreeMap::new(),
            deleted: BTreeMap::new(),
            asked_again: 0,
            log: Vec::new(),
        };
        for side in Side::BOTH {
            for root in ["/s", "/a", "/b"] {
                world.change(
                    side,
                    WriteOp { path: root.to_owned(), kind: WriteKind::Create { data: Arc::from([]), acl: acl(0), ephemeral: false } },
                );
                world.own[side]
                    .multi(
                        &[WriteOp {
                            path: root.to_owned(),
                            kind: WriteKind::Create { data: Arc::from([]), acl: acl(0), ephemeral: false },
                        }],
                        0,
                    )
                    .unwrap();
            }
        }
        world
    }

    fn note(&mut self, text: String) {
        if self.log.len() < 20_000 {
            self.log.push(text);
        }
    }

    fn mtime(&self, side: Side) -> i64 {
        i64::try_from(self.now.unix_millis()).unwrap() + self.skew_ms[side]
    }

    fn tell(&mut self, side: Side, paths: Vec<String>) {
        if self.wires[side].up && self.wires[side].watching {
            self.wires[side].stream.extend(paths.into_iter().map(|path| Input::Changed { side, path }));
        }
    }

    pub(crate) fn change(&mut self, side: Side, op: WriteOp) -> bool {
        let mtime = self.mtime(side);
        let agreed = self.disk.bases.get(op.path.as_str()).is_some_and(|base| {
            let same = |side: Side| self.sides[side].nodes.get(&op.path).is_some_and(|node| base.seen[side].same(&node.stat.seen()));
            same(Side::A) && same(Side::B)
        });
        match self.sides[side].multi(std::slice::from_ref(&op), mtime) {
            Ok((_, paths)) => {
                self.note(format!("{} client {side:?} {op:?} @{}", self.now.unix_millis(), self.sides[side].zxid));
                self.client_ops += 1;
                let there = !matches!(op.kind, WriteKind::Delete { .. });
                match there {
                    false if agreed => self.deleted.insert(op.path.clone(), side),
                    false => None,
                    true => self.deleted.remove(&op.path),
                };
                self.truth.entry((side == Side::A, op.path)).or_default().push((self.now.unix_millis(), there));
                self.tell(side, paths);
                true
            }
            Err(_) => false,
        }
    }

    /// A client writes something somewhere.
    pub(crate) fn client(&mut self, sides: &[Side]) {
        let side = sides[usize::try_from(self.dice.below(sides.len() as u64)).unwrap()];
        let own = if side == Side::A { "/a" } else { "/b" };
        let shared = self.dice.one_in(2);
        let mut path = if shared { "/s" } else { own }.to_owned();
        for _ in 0..=self.dice.below(3) {
            path.push('/');
            path.push(char::from(b'x' + u8::try_from(self.dice.below(3)).unwrap()));
        }
        let value = |world: &mut World| -> Arc<[u8]> { Arc::from(vec![u8::try_from(world.dice.below(4)).unwrap()]) };
        let version = self.sides[side].nodes.get(&path).map_or(0, |node| node.stat.version);
        let own_version = self.own[side].nodes.get(&path).map_or(0, |node| node.stat.version);
        let (kind, own_kind) = match self.dice.below(10) {
            0..=3 => {
                let kind = WriteKind::Create { data: value(self), acl: acl(0), ephemeral: false };
                (kind.clone(), kind)
            }
            4..=6 => {
                let data = value(self);
                (WriteKind::Set { data: data.clone(), version }, WriteKind::Set { data, version: own_version })
            }
            7 | 8 => (WriteKind::Delete { version, told: false }, WriteKind::Delete { version: own_version, told: false }),
            _ => {
                let list = acl(u8::try_from(self.dice.below(3)).unwrap());
                if let Some(node) = self.sides[side].nodes.get_mut(&path) {
                    node.acl.clone_from(&list);
                    node.stat.aversion += 1;
                    self.sides[side].zxid += 1;
                    self.client_ops += 1;
                    self.note(format!("client {side:?} acl {path} {list:?}"));
                    if !shared {
                        self.own[side].nodes.get_mut(&path).unwrap().acl = list;
                    }
                }
                return;
            }
        };
        if self.change(side, WriteOp { path: path.clone(), kind }) && !shared {
            self.own[side].multi(&[WriteOp { path, kind: own_kind }], 0).unwrap();
        }
    }

    pub(crate) fn input(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.link.step(self.now, input, &mut effects);
        for effect in effects {
            if let Effect::Write { side, slot, .. } = &effect {
                for record in &slot.records {
                    if let Some(base) = self.link.base_of(&record.key) {
                        self.agreed.insert((*side == Side::A, record.key.to_string(), base.seen[*side].mzxid));
                    }
                }
            }
            self.asked_again += u64::from(matches!(effect, Effect::Read { newest: true, .. }));
            match effect {
                Effect::Read { side, .. } | Effect::Write { side, .. } | Effect::SetAcl { side, .. } => {
                    if self.wires[side].up {
                        self.wires[side].requests.push_back(effect);
                    }
                }
                Effect::Persist { .. } => self.persists.push_back(effect),
                Effect::Reopen { side } => {
                    if self.wires[side].up {
                        self.cut(side);
                    }
                }
                Effect::Resolved(_) | Effect::Lags { .. } => {}
                Effect::Halt(reason) => self.halted = Some(reason),
            }
        }
    }

    /// A server carries out a request.
    fn serve(&mut self, side: Side, request: Effect) -> Option<Input> {
        match request {
            Effect::Read { side, id, reads, newest } => {
                if newest {
                    self.lagging[side] = None;
                }
                let from = self.lagging[side].as_ref().unwrap_or(&self.sides[side]);
                let answers = reads.iter().map(|want| from.read(want)).collect();
                Some(Input::Read { side, id, answers })
            }
            Effect::Write { side, sequence, epoch, ops, slot } => {
                let mtime = self.mtime(side);
                let ensemble = &mut self.sides[side];
                if ensemble.epoch != epoch {
                    return Some(Input::Wrote { side, sequence, outcome: Outcome::Fenced });
                }
                assert_eq!(slot.records.len(), ops.len());
                let before = ops.iter().map(|op| ensemble.nodes.get(&op.path).cloned()).collect::<Vec<_>>();
                match ensemble.multi(&ops, mtime) {
                    Ok((states, paths)) => {
                        let zxid = ensemble.zxid;
                        ensemble.own = zxid;
                        ensemble.slots.insert(sequence % SLOTS, (Slot::decode(&slot.encode()).unwrap(), zxid));
                        self.link_ops += ops.len() as u64;
                        self.what_is_lost(side, &ops, &slot, before);
                        self.note(format!("{} link {side:?} #{sequence} {ops:?} @{zxid}", self.now.unix_millis()));
                        self.tell(side, paths);
                        Some(Input::Wrote { side, sequence, outcome: Outcome::Applied { zxid, states } })
                    }
                    Err((index, refusal)) => {
                        self.note(format!("refused {side:?} #{sequence} {:?} {refusal:?}", ops[index]));
                        Some(Input::Wrote { side, sequence, outcome: Outcome::Refused { index, refusal } })
                    }
                }
            }
            Effect::SetAcl { side, id, path, acl, aversion } => {
                let ensemble = &mut self.sides[side];
                let outcome = match ensemble.nodes.get_mut(&path) {
                    Some(node) if node.stat.aversion == aversion => {
                        node.acl = acl;
                        node.stat.aversion += 1;
                        ensemble.zxid += 1;
                        self.link_ops += 1;
                        AclDone::Set { aversion: aversion + 1 }
                    }
                    _ => AclDone::Stale,
                };
                self.note(format!("link {side:?} acl {path} {outcome:?}"));
                Some(Input::AclSet { side, id, outcome })
            }
            _ => panic!("{side:?}: not a request"),
        }
    }

    /// What a transaction of the link that is being applied replaces.
    fn what_is_lost(&mut self, side: Side, ops: &[WriteOp], slot: &Slot, before: Vec<Option<Znode>>) {
        for ((op, record), node) in ops.iter().zip(&slot.records).zip(before) {
            let Some(node) = node else { continue };
            let seen = node.stat.seen();
            // Made again since it was read: that can be told, but not prevented.
            let unread = record.target.czxid != 0 && record.target.czxid != seen.czxid;
            if !unread && op.path.starts_with("/s/") && !self.agreed.contains(&(side == Side::A, op.path.clone(), seen.mzxid)) {
                self.losses.push(Loss { side, path: op.path.clone(), seen, data: node.data });
            }
        }
    }

    /// Resolutions that nothing can undo any more.
    pub(crate) fn resolutions(&self) -> &[Resolution] {
        &self.disk.resolutions
    }

    /// A loss without a resolution that has the value.
    pub(crate) fn unrecorded(&self) -> Option<&Loss> {
        self.losses.iter().find(|loss| {
            !self.disk.resolutions.iter().any(|it| {
                it.key.as_ref() == loss.path
                    && it.sides[loss.side].as_ref().is_some_and(|value| value.seen.same_data(&loss.seen) && *value.data == *loss.data)
            })
        })
    }

    /// Data that both sides had agreed on, as long as they still say so.
    pub(crate) fn base_data(&self, key: &str) -> Option<&[u8]> {
        let (base, data) = (self.disk.bases.get(key)?, self.disk.base_data.get(key)?);
        (zksync::hash_of(data) == base.data).then_some(data.as_slice())
    }

    /// What we wrote last is not remembered, as by a program that did not note it.
    pub(crate) fn forget_own(&mut self) {
        self.disk.own = PerSide::default();
    }

    /// Time passes, and nothing is lost on the way.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + Duration::from_millis(500);
            self.input(Input::Tick);
            self.beat();
            while self.progress() {}
        }
    }

    /// Resolutions of which it is not known whether they were carried out.
    pub(crate) fn intents(&self) -> usize {
        self.disk.intents.len()
    }

    /// The connection breaks: what is on its way to the server may arrive in part, what is on its way back does not.
    pub(crate) fn cut(&mut self, side: Side) {
        self.note(format!("cut {side:?}"));
        let wire = std::mem::take(&mut self.wires[side]);
        for request in wire.requests {
            if self.dice.one_in(2) {
                self.zombies.push((side, request));
            }
        }
        self.input(Input::Down { side });
    }

    pub(crate) fn connect(&mut self, side: Side) {
        if self.wires[side].up || self.halted.is_some() {
            return;
        }
        let own = self.sides[side].own;
        self.input(Input::Found { side, own });
        if self.halted.is_some() {
            return;
        }
        let watching = self.link.wants_events_of(side);
        let ensemble = &mut self.sides[side];
        self.wires[side] = Wire { up: true, watching, ..Wire::default() };
        ensemble.epoch += 1;
        ensemble.zxid += 1;
        let slots = ensemble.slots.values().map(|(slot, zxid)| FoundSlot { slot: slot.clone(), zxid: *zxid }).collect();
        let (epoch, zxid) = (ensemble.epoch, ensemble.zxid);
        ensemble.own = zxid;
        self.note(format!("up {side:?} epoch {epoch}"));
        // Not every write of the epoch tells what the clock is off by.
        let clock = (!self.timeless && self.dice.one_in(2)).then(|| Clock { offset_ms: self.skew_ms[side], error_ms: 1 });
        self.input(Input::Up { side, opened: Opened { session: 7, epoch, zxid, since: self.now, clock, slots } });
    }

    /// Clocks are compared: the answer comes after all that events tell of by now.
    pub(crate) fn beat(&mut self) {
        for side in Side::BOTH {
            if !self.timeless && self.wires[side].up {
                let clock = Clock { offset_ms: self.skew_ms[side], error_ms: 1 };
                self.wires[side].stream.push_back(Input::Clock { side, clock, zxid: 0, sent: self.now });
            }
        }
    }

    /// What is read on `side` is answered as it is now, and the answers stay on their way until they are let go: other requests overtake them.
    pub(crate) fn hold_reads(&mut self, side: Side) {
        let (reads, others) = std::mem::take(&mut self.wires[side].requests).into_iter().partition(|it| matches!(it, Effect::Read { .. }));
        self.wires[side].requests = others;
        let reads: VecDeque<Effect> = reads;
        for read in reads {
            let answer = self.serve(side, read);
            self.held.extend(answer);
        }
    }

    /// Whether one of them is about `path`.
    pub(crate) fn reads_held(&self, path: &str) -> bool {
        let czxid = self.sides.b.nodes.get(path).map(|node| node.stat.czxid);
        let is_it = |answer: &Reading| matches!(answer, Reading::Present(node) if Some(node.stat.czxid) == czxid);
        self.held.iter().any(|input| matches!(input, Input::Read { answers, .. } if answers.iter().any(is_it)))
    }

    /// Lets go of them.
    pub(crate) fn let_go(&mut self) {
        for answer in std::mem::take(&mut self.held) {
            self.input(answer);
        }
    }

    /// The process dies; another one begins with what is on disk.
    pub(crate) fn crash(&mut self) {
        self.note("crash".to_owned());
        for side in Side::BOTH {
            let wire = std::mem::take(&mut self.wires[side]);
            for request in wire.requests {
                if self.dice.one_in(2) {
                    self.zombies.push((side, request));
                }
            }
        }
        if self.dice.one_in(2) {
            self.persist_one(false);
        }
        self.persists.clear();
        let bases = self.disk.bases.iter().map(|(key, base)| (key.clone(), Base::decode(&base.encode()).unwrap()));
        let remembered = Remembered {
            bases: bases.collect(),
            tombstones: self.disk.tombstones.iter().map(|(key, it)| (key.clone(), Tombstone::decode(&it.encode()).unwrap())).collect(),
            known_ms: self.disk.known_ms,
            applied: self.disk.applied,
            own: self.disk.own,
            conflicts: self.disk.conflicts.values().cloned().collect(),
            intents: self.disk.intents.clone(),
            braked: self.disk.braked,
            paused: false,
        };
        self.link = Link::new(self.config.clone(), remembered, self.now);
    }

    fn persist_one(&mut self, tell: bool) -> bool {
        let Some(Effect::Persist { number, bases, base_data, tombstones, conflicts, intents, resolved, applied, own, known_ms, braked }) =
            self.persists.pop_front()
        else {
            return false;
        };
        for (key, data) in base_data {
            match data {
                Some(data) => self.disk.base_data.insert(key, data.to_vec()),
                None => self.disk.base_data.remove(&key),
            };
        }
        for (key, base) in bases {
            match base {
                Some(base) => self.disk.bases.insert(key, base),
                None => self.disk.bases.remove(&key),
            };
        }
        for (key, tombstone) in tombstones {
            match tombstone {
                Some(tombstone) => self.disk.tombstones.insert(key, tombstone),
                None => self.disk.tombstones.remove(&key),
            };
        }
        for (id, conflict) in conflicts {
            match conflict {
                Some(conflict) => self.disk.conflicts.insert(id, conflict),
                None => self.disk.conflicts.remove(&id),
            };
        }
        for (id, intent) in intents {
            match intent {
                Some(intent) => self.disk.intents.insert(id, intent),
                None => self.disk.intents.remove(&id),
            };
        }
        self.disk.resolutions.extend(resolved);
        (self.disk.applied, self.disk.own, self.disk.known_ms, self.disk.braked) = (applied, own, known_ms, braked);
        if tell {
            self.input(Input::Persisted { number });
        }
        true
    }

    fn zombie(&mut self) -> bool {
        if self.zombies.is_empty() {
            return false;
        }
        let place = usize::try_from(self.dice.below(self.zombies.len() as u64)).unwrap();
        let (side, request) = self.zombies.remove(place);
        // What cannot be fenced is at least conditional; a request of a session that is closed is not carried out at all.
        if matches!(request, Effect::Write { .. }) {
            self.serve(side, request);
        }
        true
    }

    /// Something on the way moves on; false when nothing is on its way.
    pub(crate) fn progress(&mut self) -> bool {
        let first = self.dice.below(5);
        for turn in 0..5 {
            let moved = match (first + turn) % 5 {
                0 | 1 => {
                    let side = if (first + turn).is_multiple_of(5) { Side::A } else { Side::B };
                    match self.wires[side].requests.pop_front() {
                        Some(request) => {
                            if let Some(answer) = self.serve(side, request) {
                                self.wires[side].stream.push_back(answer);
                            }
                            true
                        }
                        None => false,
                    }
                }
                2 | 3 => {
                    let side = if (first + turn) % 5 == 2 { Side::A } else { Side::B };
                    match self.wires[side].stream.pop_front() {
                        Some(input) => {
                            self.input(input);
                            true
                        }
                        None => false,
                    }
                }
                _ => self.persist_one(true),
            };
            if moved {
                return true;
            }
        }
        false
    }

    /// Lets time pass until a transaction is on its way to `side`.
    pub(crate) fn until_write(&mut self, side: Side) {
        for _ in 0..1_000 {
            if self.wires[side].requests.iter().any(|request| matches!(request, Effect::Write { .. })) {
                return;
            }
            self.progress();
        }
        panic!("nothing is written to {side:?}");
    }

    /// Lets time pass until a resolution is noted.
    pub(crate) fn until_intent(&mut self) {
        for _ in 0..1_000 {
            if self.intents() > 0 {
                return;
            }
            self.progress();
        }
        panic!("nothing is noted");
    }

    /// Carries out what is on its way to `side`; the answers stay on their way.
    pub(crate) fn deliver(&mut self, side: Side) {
        while let Some(request) = self.wires[side].requests.pop_front() {
            self.serve(side, request);
        }
    }

    /// What is on its way never arrives.
    pub(crate) fn lose_everything(&mut self) {
        self.wires.a.requests.clear();
        self.wires.b.requests.clear();
    }

    /// Nobody leads for a while, and clients go on.
    pub(crate) fn outage(&mut self, sides: &[Side]) {
        self.crash();
        for _ in 0..self.dice.below(6) {
            self.now = self.now + Duration::from_secs(self.dice.below(200));
            self.client(sides);
        }
        // Whatever the one before had sent has arrived or never will.
        while self.zombie() {}
    }

    /// A decision by time that was wrong: what won was older than what it replaced.
    pub(crate) fn misjudged(&self) -> Option<String> {
        // Two writes that are so close are told apart by nobody.
        let slack = 100;
        self.disk.resolutions.iter().find_map(|it| {
            let by_time = it.strategy == zksync::Strategy::LastWriteWins && !it.ambiguous;
            let kinds = [zksync::ConflictKind::Update, zksync::ConflictKind::Create, zksync::ConflictKind::Delete];
            if !by_time || !kinds.contains(&it.kind) {
                return None;
            }
            let at = |side: Side| {
                let told = self.truth.get(&(side == Side::A, it.key.to_string()))?;
                let there = it.sides[side].is_some();
                let last = told.iter().rev().find(|(at, _)| *at <= it.at_ms)?;
                (last.1 == there).then_some(last.0)
            };
            let (a, b) = (at(Side::A)?, at(Side::B)?);
            let (won, lost) = if it.winner == Side::A.into() { (a, b) } else { (b, a) };
            (won + slack < lost).then(|| format!("{won} won over {lost}: {it:?}"))
        })
    }

    /// A client deleted what both sides had, nobody has written it since, and no conflict was about it, or about what is above or below: it must be
    /// gone.
    pub(crate) fn risen(&self) -> Option<String> {
        let told = |path: &str| {
            let related = |key: &str| key == path || path.starts_with(&format!("{key}/")) || key.starts_with(&format!("{path}/"));
            self.disk.resolutions.iter().any(|it| related(&it.key))
        };
        let is_there = |path: &String| Side::BOTH.into_iter().any(|side| self.sides[side].nodes.contains_key(path));
        self.deleted.iter().find(|(path, _)| is_there(path) && !told(path)).map(|(path, side)| format!("{path}, deleted on {side:?}"))
    }

    /// One moment of a bad day.
    pub(crate) fn moment(&mut self, sides: &[Side]) {
        self.now = self.now + Duration::from_millis(self.dice.below(40));
        match self.dice.below(100) {
            0..=24 => self.client(sides),
            25 => self.cut(Side::A),
            26 => self.cut(Side::B),
            27 if self.dice.one_in(3) => self.crash(),
            27 if self.dice.one_in(3) => self.outage(sides),
            28..=33 => self.connect(Side::A),
            34..=39 => self.connect(Side::B),
            40..=42 => {
                self.zombie();
            }
            43..=45 => {
                self.input(Input::Tick);
                self.beat();
            }
            _ => {
                self.progress();
            }
        }
    }

    /// Everything heals and comes to rest.
    pub(crate) fn rest(&mut self) {
        while self.zombie() {}
        for round in 0..6 {
            for side in Side::BOTH {
                self.connect(side);
            }
            let mut steps = 0;
            while self.progress() {
                steps += 1;
                for side in Side::BOTH {
                    self.connect(side);
                }
                assert!(steps < 50_000, "it does not come to rest: {:#?}\n{}", self.link.status(), self.tail());
            }
            self.now = self.now + Duration::from_secs(if round == 0 { 1 } else { 70 });
            self.beat();
            self.input(Input::Tick);
        }
        while self.progress() {}
    }

    pub(crate) fn tail(&self) -> String {
        self.log[self.log.len().saturating_sub(60)..].join("\n")
    }
}
