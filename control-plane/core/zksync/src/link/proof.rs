//! Whether a side went back in time: nothing is carried until the one znode that says so has been read again.

use base::Timestamp;

use super::{Effect, HaltReason, Link, ReadWant, Reading, Witnessed};
use crate::decide::View;
use crate::dirty::Dirt;
use crate::node::{Key, Node, PerSide, Side};

/// Znodes that are asked for at once to tell whether a side went back in time; one is enough.
const PROOFS: usize = 16;

/// What would tell that a side went back in time.
#[derive(Clone, Debug)]
pub(super) struct Doubt {
    side: Side,
    key: Key,
    /// A transaction that was seen before the question was asked.
    seen: i64,
    /// The pair was deleted, as opposed to known.
    deleted: bool,
}

/// A doubt that is being cleared up.
#[derive(Debug)]
pub(super) struct Proof {
    doubt: Doubt,
    /// What waits for it.
    dirt: Option<Dirt>,
}

impl Proof {
    /// Since when something waits for it.
    pub(super) fn since(&self) -> Option<Timestamp> {
        self.dirt.map(|dirt| dirt.since)
    }
}

impl Doubt {
    fn found(&self, node: &Node) -> i64 {
        if self.deleted { node.stat.czxid } else { node.stat.mzxid }
    }

    fn holds_for(&self, node: &Node) -> bool {
        // What was deleted last was made by an older transaction than the delete; what was written last was written by that very one.
        if self.deleted { self.found(node) <= self.seen } else { self.found(node) < self.seen }
    }
}

impl Link {
    /// Whether a side has an older state of a znode than the one that both had agreed on, or one that had been deleted. While it is looked at, no
    /// write of ours is under way: what is known came before the question. The answer may be older all the same, when what is known comes from
    /// another leader, who had it from another server.
    pub(super) fn doubt(&self, key: &Key, views: PerSide<View<'_>>) -> Option<Doubt> {
        let base = self.pairs.get(key).map(|pair| pair.base);
        Side::BOTH.into_iter().find_map(|side| {
            let node = views[side].node()?;
            let (seen, deleted) = match (&base, self.tombstones.get(key)) {
                (Some(base), _) => (base.seen[side].mzxid, false),
                (None, Some(tombstone)) => (tombstone.newest[side], true),
                (None, None) => return None,
            };
            let doubt = Doubt { side, key: key.clone(), seen, deleted };
            doubt.holds_for(node).then_some(doubt)
        })
    }

    /// A comparison found a znode that was last written before `seen`.
    pub(super) fn doubt_of(&mut self, side: Side, key: &Key, seen: i64) {
        self.prove(Doubt { side, key: key.clone(), seen, deleted: false }, None);
    }

    /// Asks again, of a server that has caught up: that answer is not older than what is known, and decides. What waits for it is looked at afterwards.
    pub(super) fn prove(&mut self, doubt: Doubt, dirt: Option<Dirt>) {
        if self.proofs.len() >= PROOFS {
            // One that is proved is enough; else there will be room.
            if let Some(dirt) = dirt {
                self.mark(doubt.key, dirt);
            }
            return;
        }
        let id = self.take_id();
        let want = ReadWant { path: self.config.mapping.path(doubt.side, &doubt.key), acl: false, children: false };
        self.outbox.push(Effect::Read { side: doubt.side, id, reads: vec![want], newest: true });
        self.proofs.insert(id, Proof { doubt, dirt });
    }

    /// Whether `id` is that of a question that was asked again.
    pub(super) fn proved(&mut self, id: u64, answers: &[Reading]) -> bool {
        let Some(Proof { doubt, dirt }) = self.proofs.remove(&id) else { return false };
        match answers.first() {
            Some(Reading::Present(node)) if doubt.holds_for(node) => {
                let found = doubt.found(node);
                let Doubt { side, key, seen, deleted } = doubt;
                let of = if deleted { Witnessed::Deleted(key) } else { Witnessed::Pair(key) };
                self.halt(HaltReason::WentBack { side, of, seen, found });
            }
            _ => {
                if let Some(dirt) = dirt {
                    self.mark(doubt.key, dirt);
                }
            }
        }
        true
    }

    /// Nobody answers any more on `side`.
    pub(super) fn forget_proofs(&mut self, side: Side) {
        let lost: Vec<u64> = self.proofs.iter().filter(|(_, proof)| proof.doubt.side == side).map(|(id, _)| *id).collect();
        for Proof { doubt, dirt } in lost.into_iter().filter_map(|id| self.proofs.remove(&id)).collect::<Vec<_>>() {
            if let Some(dirt) = dirt {
                self.mark(doubt.key, dirt);
            }
        }
    }
}
