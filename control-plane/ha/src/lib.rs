//! Several control planes on one ZooKeeper ensemble: who leads, who else is there, and records that only the leader can write.
//!
//! The election is Mesos's own: every candidate has an ephemeral, sequential znode `json.info_` with its addresses, and the lowest number leads.
//! So frameworks and tools that look for a Mesos leader in ZooKeeper find ours. A leader that is cut off is the leader until somebody tells it; what it
//! must not do twice is therefore fenced: every write names the term, and a term ends when the next one begins. With an identity, nobody else reads or changes what is stored.

mod election;
mod ensemble;
mod guard;
mod member;
mod store;

pub use election::{Election, Standing};
pub use ensemble::{Ensemble, EnsembleError};
pub use member::{Addresses, Member};
pub use store::{Change, Records, StoreError, Term};
