//! The API as clients see it, over real sockets, with a master that speaks Mesos's real protocol.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests spawn freely, fail by panicking and know their numbers"
)]

mod autoscale;
mod events;
mod hostile;
mod launches;
mod life;
mod master;
mod pods;
mod shapes;
mod versions;
mod world;
