//! One loop per core: inbox, step, effects. A driver is the only owner of its core.

mod handle;
pub mod history;
pub mod old_probes;
pub mod old_reports;
pub(crate) mod patience;
pub mod topology;

pub use handle::{Admission, Departure, DepartureReason, Gauges, ReportOutcome, Stopped, Subscription, TopologyHandle};
pub use history::{HistoryError, HistoryHandle, HistoryStatus};
pub use old_probes::{OldProbeGauges, OldProbesHandle, Scenery};
pub use old_reports::OldReports;
