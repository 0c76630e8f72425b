//! Between the words of the core and those of the sessions.

use zk::{CreateKind, MultiError, Op, OpDone};
use zksync::{Acl, AclDone, Node, Outcome, ReadWant, Reading, Refusal, Seen, Slot, Stat, WriteKind, WriteOp};

use super::Reserved;

pub(super) fn reads(wants: &[ReadWant]) -> Vec<zk::Read> {
    wants.iter().map(|want| zk::Read { path: want.path.clone(), children: want.children, acl: want.acl }).collect()
}

/// A znode in the core's words.
pub fn node_from(node: zk::NodeRead) -> Node {
    Node {
        stat: stat(&node.stat),
        data: node.data.into(),
        acl: node
            .acl
            .map(|acl| acl.into_iter().map(|entry| Acl { permissions: entry.permissions, scheme: entry.scheme, id: entry.id }).collect()),
        children: node.children,
    }
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

pub(super) fn acl_to(acl: &[Acl]) -> Vec<zk::Acl> {
    acl.iter().map(|entry| zk::Acl { permissions: entry.permissions, scheme: entry.scheme.clone(), id: entry.id.clone() }).collect()
}

/// Check of the epoch first, slot last: whether the epoch is still ours, and what was done, belong to the transaction.
pub(super) fn transaction(reserved: &Reserved, epoch: i32, ops: &[WriteOp], slot: &Slot) -> Vec<Op> {
    let mut transaction = Vec::with_capacity(ops.len() + 2);
    transaction.push(Op::Check { path: reserved.epoch(), version: epoch });
    transaction.extend(ops.iter().map(|op| {
        let path = op.path.clone();
        match &op.kind {
            WriteKind::Create { data, acl, ephemeral } => {
                let kind = if *ephemeral { CreateKind::Ephemeral } else { CreateKind::Persistent };
                Op::Create { path, data: data.to_vec(), acl: acl_to(acl), kind }
            }
            WriteKind::Set { data, version } => Op::Set { path, data: data.to_vec(), version: Some(*version) },
            WriteKind::Delete { version } => Op::Delete { path, version: Some(*version) },
        }
    }));
    transaction.push(Op::Set { path: reserved.slot(slot.sequence), data: slot.encode(), version: None });
    transaction
}

/// What became of a transaction of `length` operations, epoch and slot included.
pub fn read_outcome(done: Result<Vec<OpDone>, MultiError>, length: usize) -> Outcome {
    match done {
        Ok(done) => {
            let Some(OpDone::Set(slot)) = done.last() else { return Outcome::Unknown };
            let zxid = slot.mzxid;
            let state = |one: &OpDone| match one {
                OpDone::Set(stat) => Some(Seen { czxid: stat.czxid, mzxid: stat.mzxid, version: stat.version, aversion: stat.aversion }),
                _ => None,
            };
            Outcome::Applied { zxid, states: done[1..done.len() - 1].iter().map(state).collect() }
        }
        Err(MultiError::Operation { index: 0, .. }) => Outcome::Fenced,
        Err(MultiError::Operation { error: zk::Error::Throttled, .. } | MultiError::Request(zk::Error::Throttled)) => {
            Outcome::Refused { index: usize::MAX, refusal: Refusal::NoNode }
        }
        // The slot itself: our own subtree is not as it should be.
        Err(MultiError::Operation { index, .. }) if index + 1 >= length => Outcome::Unknown,
        Err(MultiError::Operation { index, error }) => Outcome::Refused { index: index - 1, refusal: refusal(&error) },
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
