//! One loop per core: inbox, step, effects. A driver is the only owner of its core.

mod handle;

pub use handle::{Admission, ReportOutcome, Stopped, StreamEnd, StreamId, Subscription, TopologyHandle};
