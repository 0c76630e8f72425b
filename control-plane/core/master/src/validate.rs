//! What is wrong with what frameworks and operators ask for, in Mesos's own words.

mod calls;

pub use calls::{operator_call_error, scheduler_call_error};
