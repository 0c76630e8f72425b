//! Between the words of the core and those of the sessions.

use zk::{CreateKind, MultiError, Op, OpDone};
use zksync::{Acl, AclDone, Node, Outcome, ReadWant, Reading, Refusal, Seen, Slot, Stat, WriteKind, WriteOp};

use super::Reserved;

pub(super) fn reads(wants: &[ReadWant]) -> Vec<zk::Read> {
    wants.iter().map(|want| zk::Read { path: want.path.clone(), children: want.children, acl: want.acl }).collect()
}

/// A znode in the core's words.
pub fn node_from(node: zk::NodeRead) -> Node {
    Node { stat: stat(&node.stat), data: node.data.into(), acl: node.acl.as_deref().map(acl_from), children: node.children }
}

pub(super) fn reading(node: Result<zk::NodeRead, zk::Error>) -> Reading {
    match node {
        Ok(node) => Reading::Present(node_from(node)),
        Err(zk::Error::NoNode) => Reading::Absent,
        Err(error) => Reading::Denied(error.to_string()),
    }
}

fn stat(stat: &zk::Stat) -> Stat {
    Stat {
        czxid: stat.czxid,
        mzxid: stat.mzxid,
        pzxid: stat.pzxid,
        mtime: stat.mtime,
        version: stat.version,
        cversion: stat.cversion,
        aversion: stat.aversion,
        owner: stat.ephemeral_owner,
        children: stat.num_children,
    }
}

pub(crate) fn acl_from(acl: &[zk::Acl]) -> Vec<Acl> {
    acl.iter().map(|entry| Acl { permissions: entry.permissions, scheme: entry.scheme.clone(), id: entry.id.clone() }).collect()
}

pub(crate) fn acl_to(acl: &[Acl]) -> Vec<zk::Acl> {
    acl.iter().map(|entry| zk::Acl { permissions: entry.permissions, scheme: entry.scheme.clone(), id: entry.id.clone() }).collect()
}

/// Which operation of the core each operation of a transaction belongs to, the epoch's and the slot's left out.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    of: Vec<Place>,
    count: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// This operation itself.
    Op(usize),
    /// Before this one, to tell what it is going to delete.
    Told(usize),
}

impl Places {
    /// Operations of the core.
    pub(super) fn count(&self) -> usize {
        self.count
    }
}

/// Check of the epoch first, slot last: whether the epoch is still ours, and what was done, belong to the transaction.
pub(super) fn transaction(reserved: &Reserved, epoch: i32, ops: &[WriteOp], slot: &Slot) -> (Vec<Op>, Places) {
    let mut transaction = Vec::with_capacity(ops.len() + 2);
    let mut places = Places { of: Vec::with_capacity(ops.len()), count: ops.len() };
    transaction.push(Op::Check { path: reserved.epoch(), version: epoch });
    for (index, op) in ops.iter().enumerate() {
        let path = op.path.clone();
        let op = match &op.kind {
            WriteKind::Create { data, acl, ephemeral } => {
                let kind = if *ephemeral { CreateKind::Ephemeral } else { CreateKind::Persistent };
                Op::Create { path, data: data.to_vec(), acl: acl_to(acl), kind }
            }
            WriteKind::Set { data, version } => Op::Set { path, data: data.to_vec(), version: Some(*version) },
            WriteKind::Delete { version, told: false } => Op::Delete { path, version: Some(*version) },
            // No transaction can check which transaction made a znode, but the answer to a write tells it. Nobody sees what is written: the
            // znode is gone with the same transaction.
            WriteKind::Delete { version, told: true } => {
                transaction.push(Op::Set { path: path.clone(), data: Vec::new(), version: Some(*version) });
                places.of.push(Place::Told(index));
                Op::Delete { path, version: Some(version.wrapping_add(1)) }
            }
        };
        transaction.push(op);
        places.of.push(Place::Op(index));
    }
    transaction.push(Op::Set { path: reserved.slot(slot.sequence), data: slot.encode(), version: None });
    (transaction, places)
}

/// What became of a transaction.
pub(super) fn read_outcome(done: Result<Vec<OpDone>, MultiError>, places: &Places) -> Outcome {
    match done {
        Ok(done) => {
            let Some(OpDone::Set(slot)) = done.last() else { return Outcome::Unknown };
            let zxid = slot.mzxid;
            let mut states = vec![None; places.count];
            for (one, place) in done.iter().skip(1).zip(&places.of) {
                let (Place::Op(index) | Place::Told(index)) = *place;
                if let OpDone::Set(stat) = one {
                    states[index] = Some(Seen { czxid: stat.czxid, mzxid: stat.mzxid, version: stat.version, aversion: stat.aversion });
                }
            }
            Outcome::Applied { zxid, states }
        }
        Err(MultiError::Operation { index: 0, .. }) => Outcome::Fenced,
        Err(MultiError::Operation { error: zk::Error::Throttled, .. } | MultiError::Request(zk::Error::Throttled)) => {
            Outcome::Refused { index: usize::MAX, refusal: Refusal::NoNode }
        }
        Err(MultiError::Operation { index, error }) => match places.of.get(index - 1) {
            // The slot itself: our own subtree is not as it should be.
            None => Outcome::Unknown,
            // Who may delete a znode stands in the list of the one above it, and not in its own.
            Some(Place::Told(index)) if error == zk::Error::NoAuth => Outcome::Refused { index: *index, refusal: Refusal::Untold },
            Some(Place::Op(index) | Place::Told(index)) => Outcome::Refused { index: *index, refusal: refusal(&error) },
        },
        Err(MultiError::Request(error)) if error.is_ambiguous() => Outcome::Unknown,
        Err(MultiError::Request(error)) => Outcome::Refused { index: 0, refusal: refusal(&error) },
    }
}

fn refusal(error: &zk::Error) -> Refusal {
    match error {
        zk::Error::NodeExists => Refusal::NodeExists,
        zk::Error::NoNode => Refusal::NoNode,
        zk::Error::BadVersion => Refusal::BadVersion,
        zk::Error::NotEmpty => Refusal::NotEmpty,
        other => Refusal::Final(other.to_string()),
    }
}

pub(super) fn acl_done(done: Result<zk::Stat, zk::Error>) -> AclDone {
    match done {
        Ok(stat) => AclDone::Set { aversion: stat.aversion },
        Err(zk::Error::BadVersion | zk::Error::NoNode | zk::Error::Throttled) => AclDone::Stale,
        Err(error) if error.is_ambiguous() => AclDone::Unknown,
        Err(error) => AclDone::Refused(error.to_string()),
    }
}
