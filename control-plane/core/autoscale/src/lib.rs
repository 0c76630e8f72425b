//! How many instances an app should have, from what is seen of those it has.
//!
//! Owns the policy of an app, and the rule that makes a decision of it with everything that led there. Must never know where samples come
//! from, how instances are started, a clock or a socket: what is seen and the time are arguments, and a decision is data.

mod decide;
mod policy;
mod schedule;

pub use decide::{Action, Autoscaler, Bounds, Decision, Facts, Measured, Sample, Why};
pub use policy::{Limits, Policy, Problem, Rule, Signal, Target};
pub use schedule::{DAYS, Window};
