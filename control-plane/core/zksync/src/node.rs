use std::ops::{Index, IndexMut};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A paired znode: its path on side A.
pub type Key = Arc<str>;

/// One of the two ensembles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The one whose paths name the pairs; the old one in a migration.
    A,
    /// The other.
    B,
}

impl Side {
    /// Both.
    pub const BOTH: [Side; 2] = [Side::A, Side::B];

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Side {
        match self {
            Side::A => Side::B,
            Side::B => Side::A,
        }
    }

    /// `a` or `b`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Side::A => "a",
            Side::B => "b",
        }
    }

    /// The direction that writes to this side: `b_to_a` or `a_to_b`.
    pub const fn direction_into(self) -> &'static str {
        match self {
            Side::A => "b_to_a",
            Side::B => "a_to_b",
        }
    }
}

/// Something that each side has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerSide<T> {
    /// A's.
    pub a: T,
    /// B's.
    pub b: T,
}

impl<T> Index<Side> for PerSide<T> {
    type Output = T;

    fn index(&self, side: Side) -> &T {
        match side {
            Side::A => &self.a,
            Side::B => &self.b,
        }
    }
}

impl<T> IndexMut<Side> for PerSide<T> {
    fn index_mut(&mut self, side: Side) -> &mut T {
        match side {
            Side::A => &mut self.a,
            Side::B => &mut self.b,
        }
    }
}

/// What an ensemble keeps about a znode, as far as it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Transaction that created it.
    pub czxid: i64,
    /// Transaction that last changed its data.
    pub mzxid: i64,
    /// Transaction that last changed its list of children.
    pub pzxid: i64,
    /// When its data was last changed, by the ensemble's clock: milliseconds since 1970.
    pub mtime: i64,
    /// Version of the data.
    pub version: i32,
    /// Version of the list of children.
    pub cversion: i32,
    /// Version of the access control list.
    pub aversion: i32,
    /// Session that owns it; 0 when it is not ephemeral.
    pub owner: i64,
    /// Children.
    pub children: i32,
}

impl Stat {
    /// Which state this is.
    pub fn seen(&self) -> Seen {
        Seen { czxid: self.czxid, mzxid: self.mzxid, version: self.version, aversion: self.aversion }
    }

    /// How many children were ever created, which is the number that the next sequential child gets.
    pub fn creations(&self) -> i64 {
        (i64::from(self.cversion) + i64::from(self.children)) / 2
    }
}

/// Names a state of a znode on one side: the pair (czxid, mzxid) never comes again, and the versions are what a write must expect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Transaction that created it.
    pub czxid: i64,
    /// Transaction that last changed its data.
    pub mzxid: i64,
    /// Version of the data.
    pub version: i32,
    /// Version of the access control list.
    pub aversion: i32,
}

impl Seen {
    /// The newest transaction that it tells of.
    pub fn newest(&self) -> i64 {
        self.mzxid.max(self.czxid)
    }

    /// Whether data and life are the same; the access control list may differ.
    pub fn same_data(&self, other: &Seen) -> bool {
        self.czxid == other.czxid && self.mzxid == other.mzxid
    }

    /// Whether nothing has changed.
    pub fn same(&self, other: &Seen) -> bool {
        self.same_data(other) && self.aversion == other.aversion
    }
}

/// One entry of an access control list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Acl {
    /// Bits: 1 read, 2 write, 4 create, 8 delete, 16 admin.
    pub permissions: u8,
    /// `world`, `digest`, `ip`, `sasl`, …
    pub scheme: String,
    /// Who.
    pub id: String,
}

/// A znode as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What the ensemble keeps about it.
    pub stat: Stat,
    /// Its data.
    pub data: Arc<[u8]>,
    /// Its access control list, if it was asked for.
    pub acl: Option<Vec<Acl>>,
    /// Names of its children, if they were asked for.
    pub children: Option<Vec<String>>,
}

/// A digest of data.
pub type Hash = [u8; 16];

/// What data hash to.
pub fn hash_data(data: &[u8]) -> Hash {
    let digest = blake3::hash(data);
    let mut hash = [0; 16];
    hash.copy_from_slice(&digest.as_bytes()[..16]);
    hash
}

/// What an access control list hashes to; the order of its entries has no meaning.
pub(crate) fn hash_acl(acl: &[Acl]) -> u64 {
    let mut entries: Vec<&Acl> = acl.iter().collect();
    entries.sort();
    let mut hasher = blake3::Hasher::new();
    for entry in entries {
        hasher.update(&[entry.permissions]);
        for text in [&entry.scheme, &entry.id] {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
    }
    let mut hash = [0; 8];
    hash.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(hash)
}

/// The last state in which both sides were known to agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// It on each side.
    pub seen: PerSide<Seen>,
    /// What its data hash to.
    pub data: Hash,
    /// What its access control list hashes to, in A's words.
    pub acl: u64,
    /// Bytes of its data.
    pub size: u32,
    /// The side that has the original, when the other has an ephemeral copy that lives as long as our session.
    pub shadow_of: Option<Side>,
    /// A change of the access control list that may have been made: no transaction can hold it, so it is noted before it is sent.
    pub pending: Option<AclPending>,
}

/// A change of an access control list that was noted before it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclPending {
    /// The side that it is sent to.
    pub side: Side,
    /// Version of the list when it has been made.
    pub aversion: i32,
    /// What the list hashes to then.
    pub acl: u64,
    /// The state of the other side that it was copied from.
    pub source: Seen,
}

/// A hash as a text in hexadecimal; null for none.
pub(crate) mod hash_text {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use super::Hash;

    pub(crate) fn serialize<S: Serializer>(hash: &Option<Hash>, serializer: S) -> Result<S::Ok, S::Error> {
        let text = |hash: &Hash| hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        hash.as_ref().map(text).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Hash>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        let mut hash = Hash::default();
        if text.len() != 2 * hash.len() || !text.is_ascii() {
            return Err(D::Error::custom("a hash has 32 hexadecimal digits"));
        }
        for (place, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).map_err(D::Error::custom)?;
        }
        Ok(Some(hash))
    }
}

/// Data that are shared, as a list of numbers.
pub(crate) mod data_list {
    use std::sync::Arc;

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(crate) fn serialize<S: Serializer>(data: &Arc<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
        data.as_ref().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<[u8]>, D::Error> {
        Vec::<u8>::deserialize(deserializer).map(Arc::from)
    }
}

/// A key as a text.
pub(crate) mod key_text {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::Key;

    pub(crate) fn serialize<S: Serializer>(key: &Key, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(key)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
        String::deserialize(deserializer).map(Key::from)
    }
}
