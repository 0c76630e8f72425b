//! The node daemon: what the kernel, `/proc` and the container runtimes of one node know of connections, processes and containers, told to
//! the control plane as one stream of reports.
//!
//! The middle is pure and knows neither clock nor socket: [`processes`], [`flows`], [`cgroups`] and [`containers`] are tables, [`report`] says
//! what of them is new, [`outbox`] holds what is not acknowledged, [`publisher`] decides what is told when. Around it are the edges.

pub mod cgroups;
pub mod clock;
pub mod containers;
pub mod ebpf;
pub mod flows;
pub mod observation;
pub mod outbox;
pub mod processes;
pub mod publisher;
pub mod report;

pub mod cgroupfs;
pub mod connections;
pub mod fallback;
pub mod host;
pub mod procfs;
pub mod snapshot;
pub mod sockets;
