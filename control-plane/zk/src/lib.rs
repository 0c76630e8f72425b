//! Sessions with a ZooKeeper ensemble. The one place that knows the client library.
//!
//! The library is sound, with edges that every user would have to know; they are dealt with here, once. Its persistent watches are not
//! registered again after a reconnect, and the server would not replay what was missed anyway: [`Client::watch_tree`] registers anew and
//! says [`TreeEvent::Gap`], upon which the user reads everything again. An expired session ends its handle for good: [`Session`] makes a
//! fresh one and counts them. A request whose connection broke may or may not have been applied: [`Error::Unknown`] is a class of its own.
//!
//! Owns sessions, watches, elections. Must never know what the znodes mean. Futures send their request when they are made, in the order in
//! which they are made, and not when they are polled.

mod age;
mod children;
mod client;
mod election;
mod error;
mod options;
mod readers;
mod session;
mod tunnel;
mod watch;

#[cfg(feature = "testing")]
pub mod testing;

pub use children::ChildrenWatch;
pub use client::{Acl, Client, CreateKind, NodeRead, Op, OpDone, Read, Stat};
pub use election::{Candidate, Leadership};
pub use error::{Error, MultiError};
pub use options::{Auth, Options, Sasl, Tls};
pub use session::{Session, SessionState};
pub use watch::{TreeEvent, TreeWatch, WatchCount, WatchMode};
