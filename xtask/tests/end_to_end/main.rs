//! The real control plane and the real probe on the real kernel, looked at from outside: connections are made by other processes, in network
//! namespaces and in containers, and every one of them must be on the API with the right process, container, direction and bytes.
//!
//! `cargo xtask test` builds what this needs and runs it, one test after another. Root, eBPF, Docker and a browser are needed; where one of them is
//! missing, a test fails in continuous integration and does nothing elsewhere.
#![expect(clippy::print_stderr, reason = "a test that cannot run here says why")]

mod browser;
mod connections;
mod containers;
mod controls;
mod kubernetes;
mod page;
mod replicas;
mod restarts;
mod rolling;
mod surface;
mod world;
