//! The API as clients see it, over real sockets, with a master that speaks Mesos's real protocol.

#![expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests spawn freely and fail by panicking")]

mod events;
mod life;
mod master;
mod shapes;
mod world;
