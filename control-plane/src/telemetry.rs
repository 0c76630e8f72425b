//! Logs and metrics. What can be said at all is in [`events`]; this is how it gets out.

pub mod events;
mod metrics;
mod quiet;

use std::io::IsTerminal as _;
use std::sync::Arc;

use prometheus::{Encoder as _, TextEncoder};
use tracing_subscriber::EnvFilter;

pub(crate) use metrics::Metrics;

use crate::config::LogFormat;

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

/// Begins to log to standard error. `filter` is in the words of `tracing`'s `EnvFilter`, e.g. `info,orchestrator_control=debug`.
///
/// # Errors
/// When the filter cannot be understood or logging has begun already.
pub fn start_logging(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!(error))
}
