//! The HAProxy that runs: started, given new configurations, and started again when it ends.
//!
//! It runs as master and worker: at a signal the master starts a worker with the new configuration, hands it the listening sockets, and lets
//! the old one finish its connections. Nobody who connects meanwhile is refused.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

/// How long a look at a configuration may take.
const CHECKING: Duration = Duration::from_secs(30);

/// Who makes a new configuration count.
#[derive(Debug)]
pub(crate) enum Reload {
    /// An HAProxy of our own.
    Own(Own),
    /// A command that somebody gave.
    Command(String),
    /// Nobody: the file is all.
    Nobody,
}

/// An HAProxy of our own.
#[derive(Debug)]
pub(crate) struct Own {
    program: PathBuf,
    child: Option<Child>,
}

impl Own {
    pub(crate) fn new(program: PathBuf) -> Own {
        Own { program, child: None }
    }

    fn pid(&self) -> Option<Pid> {
        self.child.as_ref()?.id().and_then(|it| i32::try_from(it).ok()).map(Pid::from_raw)
    }
}

/// Says whether HAProxy takes a configuration.
///
/// # Errors
/// HAProxy's own words, when it does not.
pub(crate) async fn check(program: &Path, file: &Path) -> anyhow::Result<()> {
    let run = Command::new(program).arg("-c").arg("-q").arg("-f").arg(file).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(CHECKING, run).await.context("HAProxy does not say whether it takes the configuration")?;
    let output = output.with_context(|| format!("starting {}", program.display()))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!(
            "HAProxy does not take the configuration: {}",
            words.lines().filter(|it| it.contains("ALERT")).take(5).collect::<Vec<_>>().join("; ")
        );
    }
    Ok(())
}

/// Puts `text` in the place of `file`, at once or not at all.
pub(crate) fn replace(file: &Path, from: &Path, text: &str) -> io::Result<()> {
    std::fs::write(from, text)?;
    std::fs::File::open(from)?.sync_all()?;
    std::fs::rename(from, file)
}

impl Reload {
    /// Makes the configuration in `file` count.
    ///
    /// # Errors
    /// When that cannot be done.
    pub(crate) async fn apply(&mut self, file: &Path) -> anyhow::Result<()> {
        match self {
            Reload::Own(own) => match own.pid() {
                Some(pid) => kill(pid, Signal::SIGUSR2).context("telling HAProxy to read its configuration again"),
                None => {
                    let mut command = Command::new(&own.program);
                    command.arg("-W").arg("-db").arg("-f").arg(file).stdin(Stdio::null()).kill_on_drop(true);
                    own.child = Some(command.spawn().with_context(|| format!("starting {}", own.program.display()))?);
                    Ok(())
                }
            },
            Reload::Command(command) => {
                let status = Command::new("/bin/sh").arg("-c").arg(&*command).stdin(Stdio::null()).status().await;
                let status = status.with_context(|| format!("running {command:?}"))?;
                if !status.success() {
                    bail!("{command:?} ended with {status}");
                }
                Ok(())
            }
            Reload::Nobody => Ok(()),
        }
    }

    /// Waits until our HAProxy has ended; for ever where there is none of ours.
    pub(crate) async fn ended(&mut self) -> String {
        let Reload::Own(own) = self else { return std::future::pending().await };
        let Some(child) = &mut own.child else { return std::future::pending().await };
        let how = match child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        own.child = None;
        how
    }

    /// Ends our HAProxy: it finishes its connections, for as long as `patience`.
    pub(crate) async fn stop(&mut self, patience: Duration) {
        let Reload::Own(own) = self else { return };
        let Some(pid) = own.pid() else { return };
        // The polite end: it closes its listeners and goes when the last connection has.
        if kill(pid, Signal::SIGUSR1).is_err() {
            return;
        }
        if tokio::time::timeout(patience, self.ended()).await.is_err() {
            let _ = kill(pid, Signal::SIGTERM);
            let _ = tokio::time::timeout(Duration::from_secs(5), self.ended()).await;
        }
    }
}
