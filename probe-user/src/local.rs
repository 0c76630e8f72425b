//! The probe for whoever sits at this machine: the same capture and the same tables as ever, and nobody to report to. Once, as a document or as
//! tables; or again and again, on the terminal.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::app::{self, App};
use crate::config::{Config, Output};
use crate::driver::{Input, Look};
use crate::ebpf::PinDir;
use crate::local::document::Document;

pub mod document;
pub mod table;
pub mod text;
pub mod top;

/// How long the capture may take to begin.
const STARTED_WITHIN: Duration = Duration::from_secs(20);

/// How long runtimes may take to tell of all their containers after everything else was watched long enough, and how often that is looked at.
const RUNTIMES_READ_WITHIN: Duration = Duration::from_secs(10);
const READ_CHECKED_EVERY: Duration = Duration::from_millis(250);

/// What one needs to look at what the probe knows.
#[derive(Clone, Debug)]
pub struct Eyes {
    /// The driver's inbox.
    pub(crate) inputs: mpsc::Sender<Input>,
    /// Cancelled when the capture has begun.
    pub(crate) started: CancellationToken,
    /// Why it cannot begin.
    pub(crate) refused: watch::Receiver<Option<String>>,
}

impl Eyes {
    /// What is known now; `None` when the driver is gone.
    pub async fn look(&self) -> Option<Look> {
        let (reply, answer) = oneshot::channel();
        self.inputs.send(Input::LookWanted(reply)).await.ok()?;
        answer.await.ok()
    }

    /// What is known once every container runtime that is there has told of all its containers. One that takes too long is a blind spot.
    pub async fn look_at_all(&self) -> Option<Look> {
        let deadline = tokio::time::Instant::now() + RUNTIMES_READ_WITHIN;
        loop {
            let mut look = self.look().await?;
            if !look.readings.is_waiting() || tokio::time::Instant::now() >= deadline {
                let unread = look.readings.waits();
                look.report.capture.get_or_insert_default().blind_spots.extend(unread);
                return Some(look);
            }
            tokio::time::sleep(READ_CHECKED_EVERY).await;
        }
    }

    /// Waits until the capture has begun.
    ///
    /// # Errors
    /// When it cannot, or takes too long.
    pub async fn opened(&mut self) -> anyhow::Result<()> {
        let opened = async {
            tokio::select! {
                () = self.started.cancelled() => Ok(()),
                Ok(reason) = self.refused.wait_for(Option::is_some) => Err(anyhow::anyhow!(reason.clone().unwrap_or_default())),
            }
        };
        tokio::time::timeout(STARTED_WITHIN, opened).await.with_context(|| format!("nothing was seen within {STARTED_WITHIN:?}"))?
    }
}

/// What this probe is when it works for itself alone: it binds nothing, asks nobody, keeps nothing, and looks every second.
#[must_use]
pub fn alone(config: Config) -> Config {
    let pin_dir = PinDir::Off;
    // Somebody looks at it, and not for long.
    let (cpu_budget, memory_budget) = (None, None);
    let metrics_interval = Duration::from_secs(1);
    Config { admin_address: None, cloud_metadata: None, pin_dir, metrics_interval, cpu_budget, memory_budget, ..config }
}

/// Looks for so long, prints what was seen, and ends.
///
/// # Errors
/// When nothing can be seen, or what was seen cannot be printed. That nobody reads it to the end is no error.
pub fn run_once(config: Config, output: Output, duration: Duration) -> anyhow::Result<ExitCode> {
    app::enter_host(&config);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
    let document = runtime.block_on(async {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let (app, mut eyes) = App::start_alone(alone(config)).await?;
        let look = async {
            eyes.opened().await?;
            tokio::time::sleep(duration).await;
            eyes.look_at_all().await.context("the probe ended before it was asked")
        };
        let look = tokio::select! {
            look = look => look.map(Some),
            _ = interrupt.recv() => Ok(None),
            _ = terminate.recv() => Ok(None),
        };
        app.run_until(async { "done" }).await;
        anyhow::Ok(look?.map(|look| Document::of(&look, duration)))
    });
    runtime.shutdown_timeout(Duration::from_millis(200));
    // Whoever interrupts it wants nothing of it.
    let Some(document) = document? else { return Ok(ExitCode::from(130)) };
    complain_of_the_rung(&document);
    let text = match output {
        Output::Json => serde_json::to_string_pretty(&document)? + "\n",
        Output::Table => table::render(&document, table::Page::of_terminal()),
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// A pipe that nobody reads to the end, e.g. into `head`, is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot print"),
        _ => Ok(()),
    }
}

/// On a lower rung not everything is seen: whoever reads the output must not take it for all there is.
fn complain_of_the_rung(document: &Document) {
    let capture = &document.capture;
    if capture.rung > 1 {
        // What cannot be written is not read either; `eprintln` would panic.
        let _ = writeln!(io::stderr(), "orchestrator-probe: sees by {} (rung {}): {}", capture.description, capture.rung, capture.reason);
    }
}

/// Shows the busiest, every second, until `q`.
///
/// # Errors
/// When standard output is no terminal, or nothing can be seen.
pub fn run_top(config: Config) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        io::stdout().is_terminal() && io::stdin().is_terminal(),
        "top needs a terminal; `orchestrator-probe --once --output table` prints the same once, into a pipe too"
    );
    app::enter_host(&config);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
    let done = runtime.block_on(async {
        let (app, eyes) = App::start_alone(alone(config)).await?;
        let shown = top::run(eyes).await;
        app.run_until(async { "done" }).await;
        shown
    });
    runtime.shutdown_timeout(Duration::from_millis(200));
    done.map(|()| ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests;
