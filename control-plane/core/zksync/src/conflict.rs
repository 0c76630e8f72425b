use base::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::Strategy;
use crate::node::{Acl, Key, Node, PerSide, Seen, Side};

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
}

/// Whose state stands after a resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Winner {
    /// A's.
    A,
    /// B's.
    B,
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
    /// `a` or `b`.
    pub fn as_str(self) -> &'static str {
        match self {
            Winner::A => "a",
            Winner::B => "b",
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
    /// Its data, as far as they fit [`Value::DATA_MAX`].
    pub data: Vec<u8>,
    /// Whether data are missing.
    pub cut: bool,
    /// Its access control list, if it was read.
    pub acl: Option<Vec<Acl>>,
}

impl Value {
    /// Bytes of data that a record keeps.
    pub const DATA_MAX: usize = 64 * 1024;

    pub(crate) fn of(node: &Node) -> Value {
        let kept = node.data.len().min(Self::DATA_MAX);
        Value {
            seen: node.stat.seen(),
            mtime: node.stat.mtime,
            data: node.data[..kept].to_vec(),
            cut: kept < node.data.len(),
            acl: node.acl.clone(),
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
    /// When: milliseconds since 1970.
    pub at_ms: u64,
}

/// When a delete happened: between the last moment at which the znode was known and the first at which it was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeletedBetween {
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
}

mod key_text {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::node::Key;

    pub(super) fn serialize<S: Serializer>(key: &Key, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(key)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
        String::deserialize(deserializer).map(Key::from)
    }
}
