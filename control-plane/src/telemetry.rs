//! Logs and metrics. What can be said at all is in [`events`]; this is how it gets out.

pub mod events;
mod metrics;
mod quiet;

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::{Arc, OnceLock};

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

/// What is logged, as configured, and how to change it.
type SetFilter = Box<dyn Fn(&str) -> anyhow::Result<()> + Send + Sync>;
static FILTER: OnceLock<(String, SetFilter)> = OnceLock::new();

/// `filter`, with a word of its own for the library that answers DNS: it tells of each question at the level of what an operator is to know, and
/// would be most of the log. Whoever wants that names it in the filter, which comes after and wins.
fn without_chatter(filter: &str) -> String {
    format!("hickory_server=warn,{filter}")
}

/// Begins to log to standard error. `filter` is in the words of `tracing`'s `EnvFilter`, e.g. `info,orchestrator_control=debug`.
///
/// # Errors
/// When the filter cannot be understood or logging has begun already.
pub fn start_logging(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
    use tracing_subscriber::util::SubscriberInitExt as _;

    let filter = without_chatter(filter);
    let (filtered, handle) = tracing_subscriber::reload::Layer::new(EnvFilter::try_new(&filter)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(filtered).with(lines).try_init()?;
    let set: SetFilter = Box::new(move |filter| Ok(handle.reload(EnvFilter::try_new(filter)?)?));
    let _ = FILTER.set((filter, set));
    Ok(())
}

/// Logs as configured (0), or our own parts in more detail (1: debug, more: trace).
pub fn set_verbosity(level: u32) {
    let Some((configured, set)) = FILTER.get() else { return };
    let ours = ["orchestrator_control", "edge_mesos"];
    let filter = match level {
        0 => configured.clone(),
        level => {
            let detail = if level == 1 { "debug" } else { "trace" };
            ours.iter().fold(configured.clone(), |filter, it| format!("{filter},{it}={detail}"))
        }
    };
    if let Err(error) = set(&filter) {
        tracing::warn!(%error, level, "what is logged cannot be changed");
    }
}

/// Logs as configured but for the loggers that are named, as Marathon's clients name them.
pub fn set_levels(levels: &BTreeMap<String, &'static str>) {
    let Some((configured, set)) = FILTER.get() else { return };
    if let Err(error) = set(&with_levels(configured, levels)) {
        tracing::warn!(%error, ?levels, "what is logged cannot be changed");
    }
}

/// The level of what the filter names no level for.
pub fn configured_level() -> String {
    let configured = FILTER.get().map_or("", |(configured, _)| configured.as_str());
    level_of_all(configured).to_owned()
}

fn level_of_all(filter: &str) -> &str {
    // `tracing` tells errors where nothing is said.
    filter.split(',').map(str::trim).rfind(|it| !it.is_empty() && !it.contains(['=', '[', ':'])).unwrap_or("error")
}

fn with_levels(configured: &str, levels: &BTreeMap<String, &'static str>) -> String {
    const MARATHON: [&str; 3] = ["orchestrator_control", "edge_marathon", "scheduler"];
    let mut filter = configured.to_owned();
    for (name, level) in levels {
        let directives = match name.as_str() {
            "ROOT" => (*level).to_owned(),
            name if name == "mesosphere" || name.starts_with("mesosphere.") => MARATHON.map(|it| format!("{it}={level}")).join(","),
            name => format!("{}={level}", name.replace('.', "::")),
        };
        filter = format!("{filter},{directives}");
    }
    filter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loggers_are_set_by_their_names() {
        let directives = |levels: &[(&str, &'static str)]| {
            let levels = levels.iter().map(|(name, level)| ((*name).to_owned(), *level)).collect();
            EnvFilter::try_new(with_levels("info", &levels)).unwrap().to_string()
        };
        assert_eq!(directives(&[]), "info");
        assert_eq!((level_of_all("hickory_server=warn,debug"), level_of_all("a=info")), ("debug", "error"));
        assert_eq!(directives(&[("ROOT", "debug")]), "debug");
        assert!(directives(&[("mesosphere.marathon.core", "trace")]).contains("edge_marathon=trace"));
        assert!(directives(&[("edge_marathon.driver", "warn")]).contains("edge_marathon::driver=warn"));
    }

    #[test]
    fn questions_of_dns_are_told_only_to_those_who_ask_for_them() {
        let directives = |filter: &str| EnvFilter::try_new(without_chatter(filter)).unwrap().to_string();
        assert_eq!(directives("info"), "hickory_server=warn,info");
        assert_eq!(directives("info,hickory_server=debug"), "hickory_server=debug,info");
    }
}
