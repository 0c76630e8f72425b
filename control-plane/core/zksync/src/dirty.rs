use std::collections::{BTreeMap, VecDeque};

use base::Timestamp;

use crate::node::{Key, PerSide, Side};

/// Pairs to look at, in the order in which they first became dirty: so that what a client wrote first arrives first.
#[derive(Debug, Default)]
pub(crate) struct DirtySet {
    queue: VecDeque<Key>,
    dirt: BTreeMap<Key, Dirt>,
}

/// Why a pair is to be looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dirt {
    /// Where it may have changed.
    pub(crate) sides: PerSide<bool>,
    /// Its access control list is to be read, too.
    pub(crate) acl: bool,
    /// When it became dirty.
    pub(crate) since: Timestamp,
    /// What happened to it happened after this; the beginning of time when that is not known.
    pub(crate) from: Timestamp,
    /// When each side was last told, or found, to have changed: what it had become by then. The beginning of time for never, or not known.
    pub(crate) told: PerSide<Timestamp>,
    /// An event told of it, as opposed to a comparison.
    pub(crate) announced: bool,
    /// How often it was tried in vain.
    pub(crate) attempts: u8,
    /// Bytes of its data, as far as it is known.
    pub(crate) size: u32,
}

impl Dirt {
    pub(crate) fn on(side: Side, now: Timestamp, from: Timestamp) -> Dirt {
        let (mut sides, mut told) = (PerSide { a: false, b: false }, PerSide::default());
        sides[side] = true;
        told[side] = now;
        Dirt { sides, acl: false, since: now, from, told, announced: false, attempts: 0, size: 0 }
    }

    pub(crate) fn on_both(now: Timestamp) -> Dirt {
        let (sides, from) = (PerSide { a: true, b: true }, Timestamp::EPOCH);
        Dirt { sides, acl: true, since: now, from, told: PerSide::default(), announced: false, attempts: 0, size: 0 }
    }

    fn merge(&mut self, other: Dirt) {
        self.sides.a |= other.sides.a;
        self.sides.b |= other.sides.b;
        self.acl |= other.acl;
        self.since = self.since.min(other.since);
        self.from = self.from.min(other.from);
        self.told = PerSide { a: self.told.a.max(other.told.a), b: self.told.b.max(other.told.b) };
        self.announced |= other.announced;
        self.attempts = self.attempts.max(other.attempts);
        self.size = self.size.max(other.size);
    }
}

impl DirtySet {
    pub(crate) fn mark(&mut self, key: Key, dirt: Dirt) {
        match self.dirt.get_mut(&key) {
            Some(known) => known.merge(dirt),
            None => {
                self.dirt.insert(key.clone(), dirt);
                self.queue.push_back(key);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.dirt.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.dirt.is_empty()
    }

    pub(crate) fn contains(&self, key: &str) -> bool {
        self.dirt.contains_key(key)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Dirt> {
        self.dirt.get(key)
    }

    /// What comes of `side` from here on is not told by events any more.
    pub(crate) fn forget_told(&mut self, side: Side) {
        for dirt in self.dirt.values_mut() {
            dirt.told[side] = Timestamp::EPOCH;
        }
    }

    pub(crate) fn oldest(&self) -> Option<Timestamp> {
        self.queue.front().and_then(|key| self.dirt.get(key)).map(|dirt| dirt.since)
    }

    /// The same of all of them: what waits again stands behind what came later.
    pub(crate) fn oldest_of_all(&self) -> Option<Timestamp> {
        self.dirt.values().map(|dirt| dirt.since).min()
    }

    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.dirt.clear();
    }

    /// Takes out up to `count` pairs with together about `bytes` of data. Those that are `busy` keep their place.
    pub(crate) fn take(&mut self, count: usize, bytes: usize, busy: impl Fn(&Key) -> bool) -> Vec<(Key, Dirt)> {
        let mut taken = Vec::new();
        let mut kept = Vec::new();
        let mut sum = 0;
        while taken.len() < count && kept.len() < 4 * count {
            let Some(key) = self.queue.pop_front() else { break };
            if busy(&key) {
                kept.push(key);
                continue;
            }
            let Some(dirt) = self.dirt.get(&key) else { continue };
            let size = dirt.size as usize;
            if !taken.is_empty() && sum + size > bytes {
                self.queue.push_front(key);
                break;
            }
            sum += size;
            let dirt = *dirt;
            self.dirt.remove(&key);
            taken.push((key, dirt));
        }
        for key in kept.into_iter().rev() {
            self.queue.push_front(key);
        }
        taken
    }
}
