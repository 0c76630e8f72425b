//! Logs and metrics. All metrics there are stand in one catalogue, `telemetry/metrics.rs`.

use std::io::IsTerminal as _;
use std::sync::{Arc, OnceLock};

use prometheus::{Encoder as _, TextEncoder};
use tracing_subscriber::EnvFilter;

pub mod metrics;

pub use metrics::Metrics;
pub(crate) use metrics::resident_bytes;

use crate::config::LogFormat;

/// Where counts go. Cheap to clone; each [`Telemetry::new`] counts for itself.
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

    /// The catalogue.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        let mut page = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.metrics.gather(), &mut page) {
            tracing::error!(%error, "metrics cannot be written down");
        }
        String::from_utf8_lossy(&page).into_owned()
    }
}

/// Begins to log to standard error. `filter` is in the words of `tracing`'s `EnvFilter`, e.g. `info,orchestrator_probe=debug`.
///
/// # Errors
/// When the filter cannot be understood or logging has begun already.
pub fn start_logging(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    let filter = filter_of(filter)?;
    // A line that cannot be written, on a full disk say, is lost: complaining of it in the same place would panic.
    let builder =
        tracing_subscriber::fmt().with_writer(std::io::stderr).log_internal_errors(false).with_ansi(std::io::stderr().is_terminal());
    let started = match format {
        LogFormat::Text => {
            let builder = builder.with_env_filter(filter).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.try_init().map(|()| keep(move |filter| handle.reload(filter)))
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_env_filter(filter).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.try_init().map(|()| keep(move |filter| handle.reload(filter)))
        }
    };
    started.map_err(|error| anyhow::anyhow!(error))
}

type Change = Box<dyn Fn(EnvFilter) -> Result<(), tracing_subscriber::reload::Error> + Send + Sync>;

/// How the filter of this process is changed, once logging has begun.
static CHANGE: OnceLock<Change> = OnceLock::new();

fn keep(change: impl Fn(EnvFilter) -> Result<(), tracing_subscriber::reload::Error> + Send + Sync + 'static) {
    drop(CHANGE.set(Box::new(change)));
}

/// Changes which log lines are written.
///
/// # Errors
/// When the filter cannot be understood, or nothing is logged through it.
pub fn change_filter(filter: &str) -> anyhow::Result<()> {
    let filter = filter_of(filter)?;
    CHANGE.get().map_or(Ok(()), |change| change(filter).map_err(anyhow::Error::from))
}

/// The filter as it was asked for, with the Kubernetes client kept quiet.
fn filter_of(filter: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    // Whoever names it wants to hear it.
    let quiet = if filter.contains("kube_") { String::new() } else { format!(",{}", probe_kubernetes::LOG_DIRECTIVES.join(",")) };
    EnvFilter::try_new(format!("{filter}{quiet}"))
}
