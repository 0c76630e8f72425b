//! Marathon's REST API, and everything with a socket around the scheduler's core.
//!
//! Owns the dialect: JSON and its errors, status codes, headers, the event stream. Owns the loop around the core ([`driver`]), where its
//! records are kept ([`store`]), the client of a Mesos master ([`client`]) and the probes of health checks ([`probes`]). Must never hold a
//! decision that the core could make, and knows nothing of the process it runs in: listeners, clock and seed are given.

pub mod autoscale;
pub mod client;
pub mod driver;
pub mod events;
mod http;
mod json;
pub mod probes;
mod render;
pub mod settings;
pub mod store;
mod translate;

pub use http::{Context, router};
