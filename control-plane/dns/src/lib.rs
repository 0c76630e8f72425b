//! Names of tasks as Mesos-DNS gave them: `app.marathon.mesos`, `_app._tcp.marathon.mesos`, `leader.mesos`.
//!
//! Owns the names ([`Zone`], a pure function of what runs), the answers to queries over UDP and TCP, and the reading of a Mesos master's
//! `/state` where the master is elsewhere. Must never know the master in this process: whoever has one says what runs in the words of
//! [`Cluster`].

mod cluster;
mod label;
mod poll;
mod rest;
mod server;
mod zone;

pub use cluster::{Agent, Cluster, DiscoveryPort, Framework, Task, read_state};
pub use poll::poll;
pub use rest::{Shown, router};
pub use server::{Counts, Settings, serve};
pub use zone::Zone;
