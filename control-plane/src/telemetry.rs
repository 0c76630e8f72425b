//! Logs and metrics. What can be said at all is in [`events`]; this is how it gets out.

pub mod events;
mod log_file;
mod logs;
mod metrics;
mod quiet;

use std::sync::Arc;

use prometheus::{Encoder as _, TextEncoder};

pub use log_file::copy_logs_to;
pub use logs::{configured_level, set_levels, set_verbosity, start_logging};
pub(crate) use metrics::Metrics;

/// Where events go. Cheap to clone; each [`Telemetry::new`] counts for itself.
#[derive(Clone, Debug)]
pub struct Telemetry {
    metrics: Arc<Metrics>,
}

impl Telemetry {
    /// Counters at zero.
    #[expect(clippy::new_without_default, reason = "a second set of counters in one process is a decision, not a default")]
    pub fn new() -> Self {
        Telemetry { metrics: Arc::new(Metrics::new()) }
    }

    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        let mut page = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.metrics.gather(), &mut page) {
            tracing::error!(%error, "metrics cannot be written down");
        }
        String::from_utf8_lossy(&page).into_owned()
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}
