//! Names: which names the processes of this node resolved to which addresses. Pure; the kernel's part is in [`crate::ebpf`].
//!
//! Answers of DNS servers are copied by kernel programs at the cgroups of servers on this machine, and for a while at the cgroups of processes
//! that ask a server elsewhere: [`attach`] decides where. [`message`] takes the answers apart, [`watch`] believes those of servers that were
//! asked, [`names`] keeps what they said, and [`kept`] keeps that over a restart.

pub mod asked;
pub mod attach;
pub mod kept;
pub mod message;
pub mod names;
pub mod watch;

/// Where names are looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// At the cgroups of DNS servers, and for a while at those of processes that ask a server elsewhere.
    #[default]
    Auto,
    /// At the root of the hierarchy: every packet that arrives is looked at.
    All,
    /// Nowhere.
    Off,
}
