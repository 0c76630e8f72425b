//! The Mesos nouns that master, agent and schedulers share: ids, roles, resources and their arithmetic, over the messages of `mesos.v1`.
//!
//! Owns fixed-point amounts, ranges and sets, reservations, volumes, the conversions that offer operations make, the text form of
//! `--resources` and `--attributes`, and what makes a resource or an id invalid, in Mesos's own words. Must never know who holds a resource,
//! what an offer is worth, or how anything travels.

mod convert;
mod disk;
mod ids;
mod parse;
mod quantities;
mod resource;
mod resources;
mod role;
mod scalar;
mod validate;
mod value;

pub use convert::{Conversion, conversions};
pub use disk::Disk;
pub use ids::{AgentId, ExecutorId, FrameworkId, OfferId, OperationId, TaskId, id_error};
pub use parse::{ParseError, parse_attributes, parse_resources, print_attribute};
pub use quantities::Quantities;
pub use resource::{Format, Reservation, Resource};
pub use resources::Resources;
pub use role::Role;
pub use scalar::Scalar;
pub use validate::{resource_error, resources_error};
pub use value::{Ranges, Set, Value};
