//! The control plane: takes probes' reports over gRPC, keeps the live map, and serves it over HTTP as Weave Scope did and better.
//!
//! The rooms, from the rim inward: [`http`] and [`grpc`] speak to clients and probes and know the drivers' handles alone; [`drivers`] own
//! the pure cores; [`store`] keeps what survives a restart. [`app`] wires them and is the only one that sees them all. This crate must never
//! hold a decision that a core could make.

pub mod app;
mod autoscale;
pub mod clock;
pub mod config;
mod dns;
pub mod drivers;
pub mod grpc;
pub mod http;
pub mod known_probes;
mod listen;
pub mod machine;
mod marathon;
mod mesos;
pub mod problems;
pub mod readiness;
pub mod replicas;
pub mod store;
pub mod supervise;
pub mod telemetry;
mod zksync;
