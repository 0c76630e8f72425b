use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::mapping::Mapping;
use crate::node::{Acl, PerSide, Side, hash_acl};

/// What a link is told to do.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// Which znodes pair.
    pub mapping: Mapping,
    /// Which sides are written to.
    pub mode: Mode,
    /// Who wins when both sides changed.
    pub strategy: Strategy,
    /// Who wins when [`Strategy::LastWriteWins`] cannot tell.
    pub tie_break: Side,
    /// What becomes of ephemeral znodes.
    pub ephemerals: EphemeralPolicy,
    /// What becomes of access control lists.
    pub acl: AclPolicy,
    /// Identities that are called otherwise on the other side.
    pub acl_rules: Vec<AclRule>,
    /// What becomes of changes on the side that nothing is taken from.
    pub drift: Drift,
    /// Limits.
    pub limits: Limits,
}

/// Which sides are written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A's changes go to B.
    AToB,
    /// B's changes go to A.
    BToA,
    /// Both.
    Both,
}

impl Mode {
    /// Whether changes of `side` go to the other.
    pub fn takes_from(self, side: Side) -> bool {
        match self {
            Mode::AToB => side == Side::A,
            Mode::BToA => side == Side::B,
            Mode::Both => true,
        }
    }

    /// The only side that changes are taken from; none when they are taken from both.
    pub fn source(self) -> Option<Side> {
        match self {
            Mode::AToB => Some(Side::A),
            Mode::BToA => Some(Side::B),
            Mode::Both => None,
        }
    }

    /// `a_to_b`, `b_to_a` or `both`.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::AToB => "a_to_b",
            Mode::BToA => "b_to_a",
            Mode::Both => "both",
        }
    }
}

/// Who wins when both sides changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The later write, by the ensembles' clocks with their measured offsets.
    LastWriteWins,
    /// A.
    AWins,
    /// B.
    BWins,
    /// An operator decides.
    Manual,
}

impl Strategy {
    /// As it stands in JSON and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Strategy::LastWriteWins => "last_write_wins",
            Strategy::AWins => "a_wins",
            Strategy::BWins => "b_wins",
            Strategy::Manual => "manual",
        }
    }
}

/// What becomes of ephemeral znodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EphemeralPolicy {
    /// They are not copied, and counted.
    Skip,
    /// The other side gets an ephemeral copy of our session. It goes when the original goes, when we cannot see the original for longer than
    /// a session lasts, and when we go. Never those that elect or lock: two leaders would be worse than none.
    Mirror,
}

/// What becomes of access control lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AclPolicy {
    /// They are copied, through [`LinkConfig::acl_rules`].
    Copy,
    /// Copies are open to everybody, and differences are not looked at.
    Ignore,
}

/// An identity that is called otherwise on the other side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclRule {
    /// `scheme:id` on A.
    pub a: String,
    /// `scheme:id` on B.
    pub b: String,
}

/// What becomes of changes on the side that nothing is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Drift {
    /// They stay and are counted, until the source changes the same znode.
    Report,
    /// The source's state replaces them; what the source does not have is deleted.
    Overwrite,
}

/// Znodes that are to live otherwise than plain ones. No client can see the kind of a znode, so it must be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeRule {
    /// A's path; `*` stands for one name, `**` for any number of them.
    pub path: String,
    /// What it is.
    pub kind: ZnodeKind,
}

/// How a znode lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZnodeKind {
    /// Until some time after its last child is gone.
    Container,
    /// Until it has had no change and no children for this many milliseconds.
    TtlMs(u64),
}

/// What one side's clock is known to be off by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// Its time less ours, in milliseconds.
    pub offset_ms: i64,
    /// How far that may be wrong, in milliseconds.
    pub error_ms: u64,
}

/// Limits of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Operations of a transaction.
    pub batch_ops: usize,
    /// Bytes of a transaction. The server takes 1 MiB for a request, which grows on its way.
    pub batch_bytes: usize,
    /// Bytes of a znode that is copied.
    pub node_bytes: usize,
    /// Dirty paths; beyond it the whole side is read again.
    pub dirty: usize,
    /// Open conflicts; beyond it the link is paused.
    pub conflicts: usize,
    /// Paths that cannot be copied, with the reason; beyond it they are counted.
    pub blocked: usize,
    /// Between two comparisons of everything.
    pub full_pass: Duration,
    /// Deletes within a minute that are never held back; beyond it, a twentieth of all pairs.
    pub deletes_free: usize,
    /// Differences of two clocks that do not order two writes, besides their error.
    pub guard: Duration,
    /// Pairs that are gone and still remembered; the oldest go first.
    pub tombstones: usize,
    /// How long a pair that is gone is remembered.
    pub tombstone_age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            batch_ops: 512,
            batch_bytes: 512 * 1024,
            node_bytes: 1_047_000,
            dirty: 200_000,
            conflicts: 10_000,
            blocked: 10_000,
            full_pass: Duration::from_secs(60),
            deletes_free: 100,
            guard: Duration::from_millis(20),
            tombstones: 100_000,
            tombstone_age: Duration::from_secs(24 * 3_600),
        }
    }
}

impl LinkConfig {
    /// A link that takes A's changes to B.
    pub fn one_way(mapping: Mapping) -> LinkConfig {
        LinkConfig {
            mapping,
            mode: Mode::AToB,
            strategy: Strategy::LastWriteWins,
            tie_break: Side::A,
            ephemerals: EphemeralPolicy::Skip,
            acl: AclPolicy::Copy,
            acl_rules: Vec::new(),
            drift: Drift::Report,
            limits: Limits::default(),
        }
    }

    /// `acl` of `side` in the other side's words.
    pub fn translate(&self, acl: &[Acl], side: Side) -> Vec<Acl> {
        if self.acl == AclPolicy::Ignore {
            return vec![Acl { permissions: 31, scheme: "world".to_owned(), id: "anyone".to_owned() }];
        }
        acl.iter().map(|entry| self.translate_one(entry, side)).collect()
    }

    /// `acl` of `side` in A's words.
    pub(crate) fn canonical(&self, acl: &[Acl], side: Side) -> Vec<Acl> {
        match side {
            Side::A => acl.to_vec(),
            Side::B => acl.iter().map(|entry| self.translate_one(entry, Side::B)).collect(),
        }
    }

    /// What an access control list of `side` hashes to, in A's words.
    pub fn acl_hash(&self, side: Side, acl: &[Acl]) -> u64 {
        hash_acl(&self.canonical(acl, side))
    }

    fn translate_one(&self, entry: &Acl, from: Side) -> Acl {
        let name = format!("{}:{}", entry.scheme, entry.id);
        let rule = |rule: &AclRule| PerSide { a: rule.a.clone(), b: rule.b.clone() };
        let told = self.acl_rules.iter().map(rule).find(|rule| rule[from] == name);
        match told.as_ref().and_then(|rule| rule[from.other()].split_once(':')) {
            Some((scheme, id)) => Acl { permissions: entry.permissions, scheme: scheme.to_owned(), id: id.to_owned() },
            None => entry.clone(),
        }
    }
}
