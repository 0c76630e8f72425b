//! The Mesos agent: runs tasks of frameworks on this machine.
//!
//! In the middle, pure: the task table (`table`), which decides, the ledger of resources (`ledger`), and the rules for a changed configuration
//! (`reconfiguration`). Around them the edges, each of which knows one
//! thing of the outside: `containers` (processes, cgroups, Docker), `keeper` (what lives between the agent and a container), `fetcher`, `checker`,
//! `gc`, `store` (what is remembered), `link` (the stream to the master), `executors` and `http` (Mesos's APIs on port 5051). `driver` is the loop that
//! owns the middle: it stores what a step changed before it does what the step asked.
//!
//! Must never know: how the master places tasks, or what the probe observes.

pub mod agent;
pub mod cgroups;
pub mod checker;
pub mod config;
pub mod containers;
pub mod driver;
pub mod environment;
pub mod executors;
pub mod fetcher;
pub mod gc;
pub mod host;
pub mod http;
pub mod isolation;
pub mod keeper;
pub mod labels;
pub mod ledger;
pub mod link;
pub mod login;
pub mod reconfiguration;
pub mod sandbox;
pub mod store;
pub mod table;
pub mod verbosity;
pub mod words;
