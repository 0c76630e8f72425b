//! An ensemble as far as a link can tell: a tree, versions and one counter.

use std::collections::BTreeMap;

use zksync::{Acl, Node, ReadWant, Reading, Refusal, Seen, Slot, Stat, WriteKind, WriteOp};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Znode {
    pub(crate) data: Vec<u8>,
    pub(crate) acl: Vec<Acl>,
    pub(crate) stat: Stat,
}

/// An ensemble: a tree and a counter.
#[derive(Clone, Default)]
pub(crate) struct Ensemble {
    pub(crate) zxid: i64,
    pub(crate) nodes: BTreeMap<String, Znode>,
    pub(crate) epoch: i32,
    pub(crate) slots: BTreeMap<u64, (Slot, i64)>,
    /// The newest transaction of the link.
    pub(crate) own: i64,
}

pub(crate) fn acl(n: u8) -> Vec<Acl> {
    vec![Acl { permissions: 31 - n, scheme: "world".to_owned(), id: "anyone".to_owned() }]
}

fn above(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) | None => "/",
        Some(at) => &path[..at],
    }
}

/// The states that were made, and the paths that events tell of.
pub(crate) type Applied = (Vec<Option<Seen>>, Vec<String>);

impl Ensemble {
    /// The same as a quorum that was restored from it: the next epoch has begun, so that all its transactions are newer than any before.
    pub(crate) fn restored(&self) -> Ensemble {
        Ensemble { zxid: ((self.zxid >> 32) + 1) << 32, ..self.clone() }
    }

    pub(crate) fn new() -> Ensemble {
        let mut it = Ensemble::default();
        it.nodes.insert("/".to_owned(), Znode { data: Vec::new(), acl: acl(0), stat: Stat::default() });
        it
    }

    pub(crate) fn children(&self, path: &str) -> Vec<String> {
        let prefix = if path == "/" { "/".to_owned() } else { format!("{path}/") };
        let below = self.nodes.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix));
        below
            .filter_map(|(path, _)| path.strip_prefix(&prefix))
            .filter(|name| !name.is_empty() && !name.contains('/'))
            .map(str::to_owned)
            .collect()
    }

    pub(crate) fn apply(&mut self, op: &WriteOp, zxid: i64, mtime: i64) -> Result<Option<Seen>, Refusal> {
        match &op.kind {
            WriteKind::Create { data, acl, ephemeral } => {
                if self.nodes.contains_key(&op.path) {
                    return Err(Refusal::NodeExists);
                }
                if !self.nodes.contains_key(above(&op.path)) {
                    return Err(Refusal::NoNode);
                }
                let stat = Stat { czxid: zxid, mzxid: zxid, pzxid: zxid, mtime, owner: i64::from(*ephemeral), ..Stat::default() };
                self.nodes.insert(op.path.clone(), Znode { data: data.to_vec(), acl: acl.clone(), stat });
                Ok(None)
            }
            WriteKind::Set { data, version } => {
                let node = self.nodes.get_mut(&op.path).ok_or(Refusal::NoNode)?;
                if node.stat.version != *version {
                    return Err(Refusal::BadVersion);
                }
                (node.stat.version, node.stat.mzxid, node.stat.mtime) = (version + 1, zxid, mtime);
                node.data = data.to_vec();
                Ok(Some(node.stat.seen()))
            }
            WriteKind::Delete { version, told } => {
                let node = self.nodes.get(&op.path).ok_or(Refusal::NoNode)?;
                if node.stat.version != *version {
                    return Err(Refusal::BadVersion);
                }
                if !self.children(&op.path).is_empty() {
                    return Err(Refusal::NotEmpty);
                }
                let found = node.stat.seen();
                self.nodes.remove(&op.path);
                Ok(told.then_some(found))
            }
        }
    }

    /// All operations or none; the paths that events tell of.
    pub(crate) fn multi(&mut self, ops: &[WriteOp], mtime: i64) -> Result<Applied, (usize, Refusal)> {
        let before = self.nodes.clone();
        let zxid = self.zxid + 1;
        let mut states = Vec::new();
        for (index, op) in ops.iter().enumerate() {
            match self.apply(op, zxid, mtime) {
                Ok(state) => states.push(state),
                Err(refusal) => {
                    self.nodes = before;
                    return Err((index, refusal));
                }
            }
        }
        self.zxid = zxid;
        Ok((states, ops.iter().map(|op| op.path.clone()).collect()))
    }

    pub(crate) fn read(&self, want: &ReadWant) -> Reading {
        match self.nodes.get(&want.path) {
            None => Reading::Absent,
            Some(node) => {
                let children = self.children(&want.path);
                let stat = Stat { children: i32::try_from(children.len()).unwrap(), ..node.stat };
                Reading::Present(Node {
                    stat,
                    data: node.data.as_slice().into(),
                    acl: want.acl.then(|| node.acl.clone()),
                    children: want.children.then_some(children),
                })
            }
        }
    }

    /// What is compared.
    pub(crate) fn tree(&self, root: &str) -> BTreeMap<String, (Vec<u8>, Vec<Acl>)> {
        let persistent = self.nodes.iter().filter(|(path, node)| path.starts_with(root) && node.stat.owner == 0);
        persistent.map(|(path, node)| (path.clone(), (node.data.clone(), node.acl.clone()))).collect()
    }
}
