//! Two ZooKeeper ensembles in step.
//!
//! A [`Link`] pairs znodes of ensemble A with znodes of ensemble B. Events only mark paths as dirty; what counts is read again and compared,
//! three ways, with the *base*: the state in which both sides were last known to agree. So coalescing is free, every step may be repeated,
//! and our own writes are told from those of others without touching user data: a znode whose (czxid, mzxid) is that of the base has not
//! been changed by anybody else.
//!
//! Every transaction to a side carries a check of that side's *epoch*, so that a leader who was replaced cannot write, and writes a *slot*
//! that says what it did, so that one read decides whether a transaction whose answer was lost has been applied. The base may thus be
//! persisted later: what a crash forgets stands in the slots.
//!
//! Owns decisions. Must never know a session, a socket, a clock or a file: [`Link::step`] and [`Migration::step`] take what happened and the
//! time, and say what to do.

mod codec;
mod config;
mod conflict;
mod decide;
mod dirty;
mod link;
mod mapping;
mod migration;
mod node;
mod scan;
mod status;
mod tombstone;
mod verify;

pub use codec::{Record, Slot};
pub use config::{AclPolicy, AclRule, Clock, Drift, EphemeralPolicy, Limits, LinkConfig, Mode, Strategy, TypeRule, ZnodeKind};
pub use conflict::{Conflict, ConflictKind, Intent, Resolution, Value, Winner};
pub use link::{
    AclDone, Command, Effect, FoundSlot, HaltReason, Input, Link, Opened, Outcome, RESERVED, ReadWant, Reading, Refusal, Remembered, SLOTS,
    Witnessed, WriteKind, WriteOp, too_deep,
};
pub use mapping::{Mapping, MappingError, Rule, is_below, names_exactly};
pub use migration::{
    Command as MigrationCommand, Deadlines, Effect as MigrationEffect, Input as MigrationInput, Migration, NotNow, Note, Observation,
    Outlook, Pace, Phase, Plan, Report, Step,
};
pub use node::{Acl, AclPending, Base, Hash, Key, Node, PerSide, Seen, Side, Stat, hash_data as hash_of};
pub use status::{Counters, LinkState, Status};
pub use tombstone::Tombstone;
pub use verify::{Difference, DifferenceKind, Entry, Verification, compare, is_numbered};
