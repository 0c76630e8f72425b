//! The control plane's process: configuration, logging, store, then [`App`] until a signal.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use orchestrator_control::app::{App, Deps};
use orchestrator_control::clock::Clock;
use orchestrator_control::config::{Config, Flags, Subcommand};
use orchestrator_control::http::Patience;
use orchestrator_control::machine;
use orchestrator_control::store::DiskStore;
use orchestrator_control::telemetry::{self, Telemetry};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Answers of many megabytes are made all the time: their memory is kept for the next one instead of being asked from the kernel page by page,
/// and what nobody has used for ten seconds is given back by a thread of its own. A map of a hundred thousand nodes lies on huge pages, where the
/// kernel lends them: most of what it costs to change is memory that is far apart.
#[expect(unsafe_code, reason = "the allocator looks for its settings under this name; no other item has it")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static ALLOCATOR_SETTINGS: &[u8; 55] = b"background_thread:true,oversize_threshold:0,thp:always\0";

/// Exit code of a mistake in flags or configuration: `EX_USAGE` of sysexits.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let flags = match Flags::read(std::env::args_os()) {
        Ok(flags) => flags,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    if let Some(Subcommand::Zk(flags)) = &flags.command {
        return match zksync_service::cli::run(&flags.zk, &flags.access, &mut std::io::stdout()) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "orchestrator-control zk: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let config =
        match Config::resolve(&flags, std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))) {
            Ok(config) => config,
            Err(mistakes) => {
                for mistake in mistakes {
                    let _ = writeln!(std::io::stderr(), "orchestrator-control: {mistake}");
                }
                return ExitCode::from(USAGE);
            }
        };
    if flags.scope.dry_run {
        return ExitCode::SUCCESS;
    }
    match run(&config, &flags.scope.ignored) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "orchestrator-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: &Config, ignored: &[String]) -> anyhow::Result<()> {
    telemetry::start_logging(config.log_format, &config.log_filter).context("starting the log")?;
    for what in ignored {
        tracing::warn!("{what}");
    }
    machine::raise_open_files().context("raising the limit of open files")?;
    let seed = machine::random().context("asking for a random number")?;
    let store = Arc::new(DiskStore::open_or_begin(&config.data_dir, &format!("{seed:016x}"))?);
    let (clock, hostname, telemetry) = (Clock::system(), machine::hostname(), Telemetry::new());
    let deps = Deps { store, clock, seed, hostname, telemetry, patience: Patience::DEFAULT };
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?.block_on(async {
        let app = App::build(config, deps).await?;
        app.run_until(machine::stop_signal().context("watching for signals")?).await
    })
}
