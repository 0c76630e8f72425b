//! The configuration while the probe runs: read again on SIGHUP. What can change does, loop by loop; what cannot is named; a configuration with
//! mistakes changes nothing.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config, Mistake};
use crate::driver::Input;
use crate::procfs::Procfs;
use crate::snapshot;
use crate::telemetry::{self, Telemetry};

/// The configuration as it is now, for loops that follow it.
pub type Current = watch::Receiver<Arc<Config>>;

/// Reads flags, environment and file again.
pub type Source = Box<dyn Fn() -> Result<Config, Vec<Mistake>> + Send + Sync>;

/// Changes the configuration of a running probe.
#[derive(Debug)]
pub struct Reloader {
    current: watch::Sender<Arc<Config>>,
    /// The configuration of the start, which is in force for keys that need a restart.
    started: Arc<Config>,
    /// Of a probe that watches its node.
    node: Option<Node>,
    telemetry: Telemetry,
}

#[derive(Debug)]
struct Node {
    procfs: Arc<Procfs>,
    inputs: mpsc::Sender<Input>,
}

impl Reloader {
    /// Of a probe that begins with `config`.
    pub fn new(config: Config, telemetry: Telemetry) -> Self {
        telemetry.metrics().config_reload_success.set(1);
        let started = Arc::new(config);
        Reloader { current: watch::Sender::new(started.clone()), started, node: None, telemetry }
    }

    /// The same, of one that watches its node.
    #[must_use]
    pub fn of_node(mut self, procfs: Arc<Procfs>, inputs: mpsc::Sender<Input>) -> Self {
        self.node = Some(Node { procfs, inputs });
        self
    }

    /// For loops that follow the configuration.
    pub fn current(&self) -> Current {
        self.current.subscribe()
    }

    /// Takes what `source` says, if it says something that can be taken.
    pub async fn reload(&self, source: &Source) {
        let config = match source() {
            Ok(config) => config,
            Err(mistakes) => {
                let mistakes: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
                tracing::error!(mistakes = mistakes.join("; "), "configuration is kept as it was: the new one has mistakes");
                self.telemetry.metrics().config_reload_success.set(0);
                return;
            }
        };
        let before = self.current.borrow().clone();
        if config.log_filter != before.log_filter
            && let Err(error) = telemetry::change_filter(&config.log_filter)
        {
            tracing::error!(%error, "log filter cannot be changed");
        }
        let changed = config.settings.changed(&before.settings);
        let pending = pending(&config, &self.started);
        for key in &pending {
            tracing::warn!(key, "configuration has changed since the start in a key that needs a restart of the probe");
        }
        let arguments_changed = config.command_line_arguments != before.command_line_arguments || config.masks != before.masks;
        if let Some(node) = &self.node {
            node.procfs.set_arguments(config.command_line_arguments);
            node.procfs.set_masks(config.masks.clone());
        }
        self.current.send_replace(Arc::new(config));
        self.telemetry.metrics().config_reload_success.set(1);
        if changed.is_empty() && pending.is_empty() {
            tracing::info!(
                "configuration was read again and is as it was; flags and variables are those of the start, only the file can change"
            );
        } else if changed.is_empty() {
            tracing::info!(pending = pending.join(", "), "configuration was read again; a restart of the probe is still needed");
        } else {
            tracing::info!(changed = changed.join(", "), "configuration was read again");
        }
        if let Some(node) = &self.node
            && arguments_changed
        {
            node.describe_again().await;
        }
    }
}

/// Keys in which a configuration differs from the one that is in force, until the probe is restarted.
fn pending(config: &Config, started: &Config) -> Vec<&'static str> {
    config::fixed(&config.settings.changed(&started.settings), started.roles)
}

impl Node {
    /// What was told of command lines is told as it shall be told now.
    async fn describe_again(&self) {
        if let Ok(processes) = snapshot::processes(&self.procfs).await {
            drop(self.inputs.send(Input::Described(processes)).await);
        }
    }
}

/// Runs a loop with its part of the configuration, and makes it anew whenever that part changes; returns when the loop ends by itself. A loop that
/// shall end has `patience` to do it in order.
pub async fn following<P, R>(
    mut current: Current,
    part: impl Fn(&Config) -> P,
    stopping: CancellationToken,
    patience: Duration,
    run: impl Fn(P, CancellationToken) -> R,
) where
    P: Clone + PartialEq,
    R: Future<Output = ()>,
{
    loop {
        let now = part(&current.borrow_and_update());
        let stop = stopping.child_token();
        let mut running = std::pin::pin!(run(now.clone(), stop.clone()));
        let changed = async {
            // Without anybody who could change it, it stays.
            while current.changed().await.is_ok() {
                if part(&current.borrow_and_update()) != now {
                    return;
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = &mut running => return,
            () = changed => {}
        }
        stop.cancel();
        drop(tokio::time::timeout(patience, running).await);
    }
}

#[cfg(test)]
mod tests;
