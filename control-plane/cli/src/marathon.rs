//! `orchestrator marathon`: what is asked of a Marathon by its REST API.

use std::io::Write;

use anyhow::{Context as _, Result};
use marathon_migrate::Outcome;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::arguments::MarathonFlags;

/// Does what was asked; gives back the exit code of the process: 1 when two Marathons differ, or something spoke against a move.
///
/// # Errors
/// When a Marathon does not answer or refuses, and when a file cannot be used.
pub(crate) fn run(flags: &MarathonFlags, out: &mut dyn Write) -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("starting")?;
    match flags {
        MarathonFlags::Lb(args) => {
            let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
            // Whoever has one already keeps it.
            let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
            runtime.block_on(lb::run(args.clone(), stopped()))?;
            Ok(0)
        }
        MarathonFlags::Definitions(command) => Ok(u8::from(runtime.block_on(marathon_migrate::run(command, out))? == Outcome::Differs)),
    }
}

/// Ready when somebody wants the process to end.
async fn stopped() {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut it) => drop(it.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = terminated => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
