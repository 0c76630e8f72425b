//! What goes into a link and what comes out of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;

use crate::codec::Slot;
use crate::config::{Clock, Mode, Strategy};
use crate::conflict::{Conflict, Intent, Resolution};
use crate::node::{Acl, Base, Key, Node, PerSide, Seen, Side};
use crate::tombstone::Tombstone;

/// Everything that can happen to a link.
#[derive(Clone, Debug)]
pub enum Input {
    /// A side is connected, and none of our znodes there was written yet: after this the link is halted if it must not be.
    Found {
        /// Which.
        side: Side,
        /// Number of the newest transaction that wrote a znode of ours; 0 when there is none.
        own: i64,
    },
    /// A side is connected, its watch is set, and its epoch is ours.
    Up {
        /// Which.
        side: Side,
        /// What was found there.
        opened: Opened,
    },
    /// A side's connection is gone. Nothing that was asked there will be answered any more.
    Down {
        /// Which.
        side: Side,
    },
    /// A znode was created, deleted, or its data changed.
    Changed {
        /// Where.
        side: Side,
        /// Its path there.
        path: String,
    },
    /// Answers to [`Effect::Read`], one for each.
    Read {
        /// Where.
        side: Side,
        /// The effect's number.
        id: u64,
        /// In the order of the questions.
        answers: Vec<Reading>,
    },
    /// What became of [`Effect::Write`].
    Wrote {
        /// Where.
        side: Side,
        /// The effect's number.
        sequence: u64,
        /// What became of it.
        outcome: Outcome,
    },
    /// What became of [`Effect::SetAcl`].
    AclSet {
        /// Where.
        side: Side,
        /// The effect's number.
        id: u64,
        /// What became of it.
        outcome: AclDone,
    },
    /// [`Effect::Persist`] is safe.
    Persisted {
        /// The effect's number.
        number: u64,
    },
    /// The epoch of a side is another leader's.
    Fenced {
        /// Which.
        side: Side,
    },
    /// A side's clock was compared with ours.
    Clock {
        /// Whose.
        side: Side,
        /// What it is off by.
        clock: Clock,
        /// The transaction that it was compared by: newer than all that anybody made there before.
        zxid: i64,
        /// When one that was answered before this was told was sent, by our clock: on one connection, whatever events tell of from here on happened
        /// after that.
        sent: Timestamp,
    },
    /// An operator, or the migration, wants something.
    Command(Command),
    /// Time has passed.
    Tick,
}

/// What an operator can ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Stop reading and writing; go on hearing.
    Pause,
    /// Go on.
    Resume,
    /// Take changes from other sides than before.
    SetMode(Mode),
    /// Decide conflicts otherwise than before.
    SetStrategy(Strategy),
    /// Compare everything now.
    Resync,
    /// Carry out the deletes that were held back.
    ApproveDeletes,
    /// Decide an open conflict.
    Resolve {
        /// The conflict.
        id: u64,
        /// Whose state is to stand.
        winner: Side,
        /// What each side had when that was decided, with what the decision itself wrote; it holds only as long as they have it. None for
        /// whatever they have.
        seen: Option<PerSide<Option<Seen>>>,
    },
}

/// What was persisted of a link, for the next time that it is made.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// Pairs.
    pub bases: Vec<(Key, Base)>,
    /// Pairs that are gone.
    pub tombstones: Vec<(Key, Tombstone)>,
    /// The last transaction of each side that is in them.
    pub applied: PerSide<u64>,
    /// The newest transaction of ours on each side that was answered; 0 for none.
    pub own: PerSide<i64>,
    /// Until when everything on each side is known to have been there: milliseconds since 1970; 0 when that is not known.
    pub known_ms: PerSide<u64>,
    /// Open conflicts.
    pub conflicts: Vec<Conflict>,
    /// Resolutions of which it is not known whether they were carried out.
    pub intents: BTreeMap<u64, Intent>,
    /// Deletes were held back, and nobody has approved them.
    pub braked: bool,
    /// An operator paused it.
    pub paused: bool,
}

/// A side that was opened: its watch is set, and then its epoch was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Our session there.
    pub session: i64,
    /// Version of the epoch's znode.
    pub epoch: i32,
    /// Number of the transaction that wrote it: the newest that there is.
    pub zxid: i64,
    /// Before its watch was set, by our clock: whatever events tell of happened after that.
    pub since: Timestamp,
    /// What the side's clock is off by, as the write of the epoch tells; none when it was not measured.
    pub clock: Option<Clock>,
    /// What our transactions left there.
    pub slots: Vec<FoundSlot>,
}

/// What our transactions left in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundSlot {
    /// What it says.
    pub slot: Slot,
    /// Number of the transaction that wrote it.
    pub zxid: i64,
}

/// A znode to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadWant {
    /// Its path on the side asked.
    pub path: String,
    /// Its access control list, too.
    pub acl: bool,
    /// Its children, too.
    pub children: bool,
}

/// What reading a znode came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// It is there.
    Present(Node),
    /// It is not.
    Absent,
    /// It could not be read, e.g. because we are not allowed to.
    Denied(String),
}

/// An operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteOp {
    /// The znode, on the side written to.
    pub path: String,
    /// What is to be done.
    pub kind: WriteKind,
}

/// What an operation of a transaction does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteKind {
    /// Creates it.
    Create {
        /// Its data.
        data: Arc<[u8]>,
        /// Its access control list.
        acl: Vec<Acl>,
        /// It lives as long as our session.
        ephemeral: bool,
    },
    /// Changes its data, if it has this version.
    Set {
        /// The data.
        data: Arc<[u8]>,
        /// The version.
        version: i32,
    },
    /// Deletes it, if it has this version.
    Delete {
        /// The version.
        version: i32,
        /// The transaction is to tell which state it deletes: a znode that was made again since may have the same version.
        told: bool,
    },
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was applied under this number; for each operation that changed data, the state that it made, and for each delete that tells, the one
    /// that it found.
    Applied {
        /// Its number.
        zxid: i64,
        /// In the order of the operations.
        states: Vec<Option<Seen>>,
    },
    /// An operation was refused, so none was applied.
    Refused {
        /// Which.
        index: usize,
        /// Why.
        refusal: Refusal,
    },
    /// The epoch is not ours any more.
    Fenced,
    /// There was no answer.
    Unknown,
}

/// Why an operation was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is there already.
    NodeExists,
    /// It, or the one above it, is not there.
    NoNode,
    /// Somebody else wrote.
    BadVersion,
    /// There is something below it.
    NotEmpty,
    /// A delete may be made, but not tell what it deletes: we must not write to the znode.
    Untold,
    /// Trying again changes nothing, e.g. because we are not allowed to.
    Final(String),
}

/// What became of a change of an access control list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AclDone {
    /// It was made, and this is the version now.
    Set {
        /// Version of the access control list.
        aversion: i32,
    },
    /// Somebody else was there; read again.
    Stale,
    /// Trying again changes nothing.
    Refused(String),
    /// There was no answer.
    Unknown,
}

/// Everything a link may ask of the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Read these, in one request as far as that is possible, on the session whose watch tells of changes.
    Read {
        /// Where.
        side: Side,
        /// To be told with the answers.
        id: u64,
        /// What.
        reads: Vec<ReadWant>,
        /// The server is to catch up with its ensemble first: what it answers must not be older than what anybody was told before.
        newest: bool,
    },
    /// One transaction: check the epoch, do all operations, write `slot`.
    Write {
        /// Where.
        side: Side,
        /// To be told with the outcome. `sequence % SLOTS` is the slot's place.
        sequence: u64,
        /// Version that the epoch's znode must have.
        epoch: i32,
        /// What.
        ops: Vec<WriteOp>,
        /// What it did.
        slot: Slot,
    },
    /// Change an access control list, which no transaction can.
    SetAcl {
        /// Where.
        side: Side,
        /// To be told with the outcome.
        id: u64,
        /// The znode there.
        path: String,
        /// The list.
        acl: Vec<Acl>,
        /// Version of the list that it must have.
        aversion: i32,
    },
    /// Remember these, all or nothing. Nothing waits for it but the slots.
    Persist {
        /// To be told when it is safe.
        number: u64,
        /// Pairs; none for one that is none any more.
        bases: BTreeMap<Key, Option<Base>>,
        /// Data of pairs, for the conflicts that somebody will have to decide; none where they are not to be kept.
        base_data: BTreeMap<Key, Option<Arc<[u8]>>>,
        /// Pairs that are gone; none for one that is there again, or is not remembered any more.
        tombstones: BTreeMap<Key, Option<Tombstone>>,
        /// Open conflicts; none for one that is closed. Their `base_data` are of those that were persisted, if these hash to what the pair says.
        conflicts: BTreeMap<u64, Option<Conflict>>,
        /// Resolutions that are about to be carried out; none for one that has been, or will not be.
        intents: BTreeMap<u64, Option<Intent>>,
        /// Conflicts that were decided and carried out: to be recorded.
        resolved: Vec<Resolution>,
        /// The last transaction of each side that is in them.
        applied: PerSide<u64>,
        /// The newest transaction of ours on each side that was answered.
        own: PerSide<i64>,
        /// Until when everything on each side is known to have been there: milliseconds since 1970.
        known_ms: PerSide<u64>,
        /// Deletes are held back, and nobody has approved them.
        braked: bool,
    },
    /// A side's connection is not to be trusted any more, or must watch otherwise: take the epoch and read the slots again.
    Reopen {
        /// Which.
        side: Side,
    },
    /// A conflict was decided and carried out: to be told. What is recorded comes with [`Effect::Persist`].
    Resolved(Resolution),
    /// How long changes took from the event that told of them until they were applied on this side.
    Lags {
        /// The side that they were applied on.
        side: Side,
        /// For each.
        lags: Vec<Duration>,
    },
    /// The link stops for good; somebody must look.
    Halt(HaltReason),
}

/// Why a link stopped by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HaltReason {
    /// A side has not what was seen there before: it was restored, replaced, or is another ensemble.
    WentBack {
        /// Which.
        side: Side,
        /// Whose transactions tell.
        of: Witnessed,
        /// The newest transaction that was seen.
        seen: i64,
        /// The newest that there is.
        found: i64,
    },
    /// Another leader has taken the epoch.
    Fenced {
        /// Where it was noticed.
        side: Side,
    },
}

/// What tells that a side went back in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Witnessed {
    /// The number of its newest transaction. A quorum that is restored begins with a higher one all the same.
    Newest,
    /// What we wrote there ourselves.
    Ours,
    /// A znode that both sides had agreed on.
    Pair(Key),
    /// A znode that both sides had deleted.
    Deleted(Key),
}

impl std::fmt::Display for HaltReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HaltReason::WentBack { side, of, seen, found } => {
                let side = side.as_str().to_uppercase();
                write!(f, "ensemble {side} went back in time: ")?;
                match of {
                    Witnessed::Newest => write!(f, "transaction {seen:#x} was seen there, and its newest is {found:#x}"),
                    Witnessed::Ours => write!(f, "our own transaction {seen:#x} there is gone, and the newest of ours is {found:#x}"),
                    Witnessed::Pair(key) => write!(f, "{key} was last written by transaction {seen:#x}, and now by the older {found:#x}"),
                    Witnessed::Deleted(key) => {
                        write!(f, "{key} was deleted after transaction {seen:#x}, and stands there as the older {found:#x} made it")
                    }
                }?;
                f.write_str(
                    "; it was restored, replaced, or is another one. What it has now was not copied. Make a new link, whose first step compares \
                     everything",
                )
            }
            HaltReason::Fenced { side } => write!(f, "another leader has taken over (seen on {})", side.as_str().to_uppercase()),
        }
    }
}
