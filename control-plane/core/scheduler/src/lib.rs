//! Marathon's decisions: what users defined, what runs of it, and what to ask of Mesos next.
//!
//! Owns apps, pods and groups; deployments and their steps; instances and their life; the launch queue and its back-off; which offer runs
//! what; health, readiness, and who is killed. Must never know a socket, a clock, a file, JSON, or which master it speaks to: Mesos comes in
//! as [`mesos::Event`] and goes out as [`mesos::Call`], time is an argument, and what must survive is handed out as [`Record`]s that are
//! to be safe before any other effect of the same step is carried out.

mod constraints;
pub mod id;
pub mod instance;
pub mod launch;
mod matching;
pub mod mesos;
pub mod model;
pub mod moment;
pub mod plan;
mod random;
mod root;
mod scheduler;
mod validate;

pub use matching::{AcceptedRoles, Reason};
pub use random::IdGen;
pub use root::{Differences, Group, Root};
pub use scheduler::{Counts, Deployment, Effect, Input, QueueItem, Scheduler, SpecState, Tally, Unused, View, words};
