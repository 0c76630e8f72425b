//! What is wrong with what frameworks and operators ask for, in Mesos's own words.

mod calls;
mod framework;
mod operation;
mod parts;
mod task;

pub use calls::{operator_call_error, scheduler_call_error};
pub(crate) use framework::{framework_error, framework_update_error, list};
pub(crate) use operation::{Allowed, operation_error};
pub(crate) use task::{MESSAGE_BYTES_MAX, TaskContext, group_error, infer_health_check, task_error};
