//! What is logged: as configured, and what Mesos' and Marathon's clients changed of it while the process runs.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing_subscriber::EnvFilter;

use super::log_file::Lines;
use crate::config::LogFormat;

type Apply = Box<dyn Fn(&str) -> anyhow::Result<()> + Send + Sync>;

/// What is logged now, and how to change it.
struct Logs {
    wanted: Mutex<Wanted>,
    apply: Apply,
}

static LOGS: OnceLock<Logs> = OnceLock::new();

/// What the operator configured, and what clients asked for since. The one does not undo the other.
#[derive(Clone, Debug, Default)]
struct Wanted {
    configured: String,
    verbosity: u32,
    levels: BTreeMap<String, &'static str>,
}

impl Wanted {
    fn new(configured: &str) -> Self {
        // The library that answers DNS tells of each question at the level of what an operator is to know, and would be most of the log. Whoever
        // wants that names it in the filter, which comes after and wins.
        Wanted { configured: format!("hickory_server=warn,{configured}"), ..Wanted::default() }
    }

    /// In the words of `EnvFilter`: of two that name the same, the later wins.
    fn filter(&self) -> String {
        const MASTER: [&str; 2] = ["orchestrator_control", "edge_mesos"];
        const MARATHON: [&str; 3] = ["orchestrator_control", "edge_marathon", "scheduler"];
        let verbose = match self.verbosity {
            0 => Vec::new(),
            1 => MASTER.map(|it| format!("{it}=debug")).to_vec(),
            _ => MASTER.map(|it| format!("{it}=trace")).to_vec(),
        };
        let named = self.levels.iter().flat_map(|(name, level)| match name.as_str() {
            "ROOT" => vec![(*level).to_owned()],
            name if name == "mesosphere" || name.starts_with("mesosphere.") => MARATHON.map(|it| format!("{it}={level}")).to_vec(),
            name => vec![format!("{}={level}", name.replace('.', "::"))],
        });
        std::iter::once(self.configured.clone()).chain(verbose).chain(named).collect::<Vec<_>>().join(",")
    }
}

/// Begins to log to standard error. `filter` is in the words of `tracing`'s `EnvFilter`, e.g. `info,orchestrator_control=debug`.
///
/// # Errors
/// When the filter cannot be understood or logging has begun already.
pub fn start_logging(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
    use tracing_subscriber::util::SubscriberInitExt as _;

    let wanted = Wanted::new(filter);
    let (filtered, handle) = tracing_subscriber::reload::Layer::new(EnvFilter::try_new(wanted.filter())?);
    let lines = tracing_subscriber::fmt::layer().with_writer(Lines).with_ansi(std::io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(filtered).with(lines).try_init()?;
    let apply: Apply = Box::new(move |filter| Ok(handle.reload(EnvFilter::try_new(filter)?)?));
    let _ = LOGS.set(Logs { wanted: Mutex::new(wanted), apply });
    Ok(())
}

/// The master and what serves it in more detail (1: debug, more: trace), or no longer (0).
pub fn set_verbosity(level: u32) {
    change(|wanted| wanted.verbosity = level);
}

/// Levels of the loggers that are named, as Marathon's clients name them; those named before and not now go back to what is configured.
pub fn set_levels(levels: &BTreeMap<String, &'static str>) {
    change(|wanted| wanted.levels.clone_from(levels));
}

fn change(what: impl FnOnce(&mut Wanted)) {
    let Some(logs) = LOGS.get() else { return };
    let mut now = logs.wanted.lock().unwrap_or_else(PoisonError::into_inner);
    let mut wanted = now.clone();
    what(&mut wanted);
    match (logs.apply)(&wanted.filter()) {
        // What cannot be applied is forgotten, or nothing could be changed after it.
        Err(error) => tracing::warn!(%error, ?wanted, "what is logged cannot be changed"),
        Ok(()) => *now = wanted,
    }
}

/// The level of what the filter names no level for.
pub fn configured_level() -> String {
    let configured = LOGS.get().map(|logs| logs.wanted.lock().unwrap_or_else(PoisonError::into_inner).configured.clone());
    level_of_all(&configured.unwrap_or_default()).to_owned()
}

fn level_of_all(filter: &str) -> &str {
    // `tracing` tells errors where nothing is said.
    filter.split(',').map(str::trim).rfind(|it| !it.is_empty() && !it.contains(['=', '[', ':'])).unwrap_or("error")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(configured: &str, verbosity: u32, levels: &[(&str, &'static str)]) -> Wanted {
        let levels = levels.iter().map(|(name, level)| ((*name).to_owned(), *level)).collect();
        Wanted { verbosity, levels, ..Wanted::new(configured) }
    }

    fn directives(wanted: &Wanted) -> String {
        EnvFilter::try_new(wanted.filter()).unwrap().to_string()
    }

    #[test]
    fn loggers_are_set_by_their_names() {
        let named = |levels: &[(&str, &'static str)]| directives(&wanted("info", 0, levels));
        assert_eq!(named(&[]), "hickory_server=warn,info");
        assert_eq!((level_of_all("hickory_server=warn,debug"), level_of_all("a=info")), ("debug", "error"));
        assert_eq!(named(&[("ROOT", "debug")]), "hickory_server=warn,debug");
        assert!(named(&[("mesosphere.marathon.core", "trace")]).contains("edge_marathon=trace"));
        assert!(named(&[("edge_marathon.driver", "warn")]).contains("edge_marathon::driver=warn"));
    }

    #[test]
    fn what_mesos_clients_and_what_marathons_clients_ask_for_holds_together() {
        let both = directives(&wanted("info", 1, &[("edge_marathon.driver", "warn")]));
        assert!(both.contains("edge_mesos=debug") && both.contains("edge_marathon::driver=warn"), "{both}");
        let marathon_wins = directives(&wanted("info", 2, &[("mesosphere", "error")]));
        assert!(marathon_wins.contains("edge_mesos=trace") && marathon_wins.contains("orchestrator_control=error"), "{marathon_wins}");
    }

    #[test]
    fn questions_of_dns_are_told_only_to_those_who_ask_for_them() {
        assert_eq!(directives(&Wanted::new("info")), "hickory_server=warn,info");
        assert_eq!(directives(&Wanted::new("info,hickory_server=debug")), "hickory_server=debug,info");
    }
}
