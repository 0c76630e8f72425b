//! Keeps ZooKeeper ensembles in step, and moves clients from one to another without losing a write.
//!
//! Each link has a driver ([`link`]) that owns a [`zksync::Link`], a session with each ensemble and a place in the [`store`].
//!
//! Must never decide what the core could: here are sessions, clocks, files and sockets.

pub mod align;
pub mod api;
pub mod checkpoint;
pub mod cli;
pub mod definition;
pub mod grpc;
pub mod link;
pub mod metrics;
pub mod migrate;
mod operations;
pub mod prepare;
pub mod service;
pub mod store;
pub mod tree;
pub mod verify;
pub mod witness;

pub use service::Service;
pub use witness::Witness;
