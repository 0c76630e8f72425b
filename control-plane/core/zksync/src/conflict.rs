use std::sync::Arc;

use base::Timestamp;
use serde::{Deserialize, Serialize};

use crate::codec::Record;
use crate::config::Strategy;
use crate::node::{Acl, Hash, Key, Node, PerSide, Seen, Side, data_list, hash_data, hash_text, key_text};
use crate::tombstone::Tombstone;

/// What collided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictKind {
    /// Both sides changed the data.
    Update,
    /// Both sides created it; or what they had in common is not known.
    Create,
    /// One side deleted it, the other changed it.
    Delete,
    /// One side deleted it, the other created something below it.
    CreateBelow,
    /// Both sides changed the access control list.
    Acl,
    /// It was deleted and created again between our read and our write, and our write replaced what had just been created.
    Recreated,
}

impl ConflictKind {
    /// As it stands in JSON and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            ConflictKind::Update => "update",
            ConflictKind::Create => "create",
            ConflictKind::Delete => "delete",
            ConflictKind::CreateBelow => "create_below",
            ConflictKind::Acl => "acl",
            ConflictKind::Recreated => "recreated",
        }
    }
}

/// A conflict that waits for an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// Never used again within the link.
    pub id: u64,
    /// The pair.
    #[serde(with = "key_text")]
    pub key: Key,
    /// What collided.
    pub kind: ConflictKind,
    /// What both sides last agreed on; none when that is not known.
    pub base: Option<PerSide<Seen>>,
    /// What each side has; none when it is absent there.
    pub sides: PerSide<Option<Seen>>,
    /// When it was found: milliseconds since 1970.
    pub first_seen_ms: u64,
    /// When a side last changed it: milliseconds since 1970.
    pub last_change_ms: u64,
    /// The data that both sides last agreed on, where whoever keeps the conflict has them; the link itself does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_data: Option<Vec<u8>>,
    /// When one side deleted it, and what that had been; none when both have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<Tombstone>,
}

/// Whose state stands after a resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Winner {
    /// A's.
    A,
    /// B's.
    B,
    /// Neither's: an operator wrote something else over what A had.
    Operator,
}

impl From<Side> for Winner {
    fn from(side: Side) -> Self {
        match side {
            Side::A => Winner::A,
            Side::B => Winner::B,
        }
    }
}

impl Winner {
    /// `a`, `b` or `operator`.
    pub fn as_str(self) -> &'static str {
        match self {
            Winner::A => "a",
            Winner::B => "b",
            Winner::Operator => "operator",
        }
    }
}

/// What a side had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// Which state it was.
    pub seen: Seen,
    /// When it was written, by that side's clock: milliseconds since 1970.
    pub mtime: i64,
    /// Bytes of its data.
    #[serde(default)]
    pub size: u64,
    /// What its data hash to; none when they were not read.
    #[serde(default, with = "hash_text")]
    pub hash: Option<Hash>,
    /// Its data, or the beginning of them.
    #[serde(with = "data_list")]
    pub data: Arc<[u8]>,
    /// Whether data are missing.
    pub cut: bool,
    /// It was replaced before anybody had read it: that it was there is all that is known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unread: bool,
    /// Its access control list, if it was read.
    pub acl: Option<Vec<Acl>>,
}

impl Value {
    /// Bytes of data that a record has in itself; whoever keeps records keeps more beside them.
    pub const INLINE_MAX: usize = 64 * 1024;

    /// What was read, whole.
    pub fn of(node: &Node) -> Value {
        Value { mtime: node.stat.mtime, acl: node.acl.clone(), ..Value::with_data(node.stat.seen(), &node.data) }
    }

    /// What was written, or taken from elsewhere: when it was is not known.
    pub(crate) fn with_data(seen: Seen, data: &Arc<[u8]>) -> Value {
        Value {
            seen,
            mtime: 0,
            size: data.len() as u64,
            hash: Some(hash_data(data)),
            data: data.clone(),
            cut: false,
            unread: false,
            acl: None,
        }
    }

    /// That there was something, of which the data are not known.
    pub(crate) fn unread(seen: Seen) -> Value {
        Value { seen, mtime: 0, size: 0, hash: None, data: Arc::from([]), cut: true, unread: true, acl: None }
    }

    /// Leaves the beginning of data that are more than [`Value::INLINE_MAX`]; gives back all of them, if it did.
    pub fn shorten(&mut self) -> Option<Arc<[u8]>> {
        if self.data.len() <= Self::INLINE_MAX {
            return None;
        }
        let short = Arc::from(&self.data[..Self::INLINE_MAX]);
        self.cut = true;
        Some(std::mem::replace(&mut self.data, short))
    }

    /// Puts back what was cut, if these are the data.
    pub fn complete(&mut self, data: &[u8]) {
        if self.cut && self.hash == Some(hash_data(data)) {
            (self.data, self.cut) = (Arc::from(data), false);
        }
    }
}

/// How a conflict was decided, with what both sides had: nothing is lost silently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolution {
    /// The pair.
    #[serde(with = "key_text")]
    pub key: Key,
    /// What collided.
    pub kind: ConflictKind,
    /// By which rule.
    pub strategy: Strategy,
    /// Whose state stands.
    pub winner: Winner,
    /// The clocks could not tell which write was later.
    pub ambiguous: bool,
    /// What each side had; none when it was absent there.
    pub sides: PerSide<Option<Value>>,
    /// When one side deleted it, and what that had been; none when both had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<Tombstone>,
    /// When: milliseconds since 1970.
    pub at_ms: u64,
}

impl Resolution {
    /// Leaves the beginnings of large data, and gives back the whole ones.
    pub fn shorten(&mut self) -> Vec<Arc<[u8]>> {
        [&mut self.sides.a, &mut self.sides.b].into_iter().flatten().filter_map(Value::shorten).collect()
    }

    /// Bytes of data that it holds.
    pub(crate) fn bytes(&self) -> usize {
        [&self.sides.a, &self.sides.b].into_iter().flatten().map(|value| value.data.len()).sum()
    }
}

/// A resolution that is about to be carried out. It is persisted before anything is sent, so that what loses is known whatever happens then; and
/// becomes a resolution, or nothing, as soon as it is known whether it was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The side that is written to.
    pub side: Side,
    /// What the transaction will leave in its slot; none for an access control list, whose pair tells.
    pub record: Option<Record>,
    /// What is recorded then.
    pub resolution: Resolution,
}

/// When a delete happened: between the last moment at which the znode was known to be there and the first at which it was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeletedBetween {
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
}
