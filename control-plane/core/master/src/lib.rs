//! The Mesos master: agents and frameworks in, offers, launches, acknowledgements and refusals out.
//!
//! Owns admission of agents and frameworks, the allocator, offers and their operations, tasks and the reliability of their updates,
//! reconciliation, quota, weights, maintenance and draining, and what of all this outlives the master. Must never know how a call travelled, how
//! a registry is stored, what time it is (`now` is an argument), or that there is a network at all.
//!
//! [`Master::step`] is total: every input has an outcome, told as [`Effect`]s. [`Master::snapshot`] is a version of everything that may be read.

mod accept;
mod agents;
mod allocator;
mod capabilities;
mod config;
mod effect;
mod events;
mod frameworks;
mod gauges;
mod input;
mod limits;
mod maintenance;
mod master;
mod metrics;
mod offers;
mod operations;
mod operator;
mod registry;
mod state;
mod tasks;
mod timers;
mod validate;
mod writes;

pub use agents::ip_of;
pub use capabilities::{AgentCapabilities, FrameworkCapabilities};
pub use config::{Action, AllowAll, Authorize, Config, Rate, Sorter};
pub use effect::{Effect, Refusal, Reply};
pub use gauges::AllocatorGauges;
pub use input::{FromAgent, Input, LinkId, Refused, Register, ReplySlot, StreamId, ToAgent};
pub use maintenance::is_machine;
pub use master::Master;
pub use metrics::Metrics;
pub use operations::operation_key;
pub use registry::{Admitted, Record, Registry, RegistryError, Unreachable};
pub use state::{Agent, Framework, FrameworkCounters, InverseOffer, Offer, Operation, Snapshot, Task, is_terminal, is_terminal_operation};
pub use validate::{operator_call_error, scheduler_call_error};
