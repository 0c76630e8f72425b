//! What the programs see, as lines: for work on a hook.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::error::TryRecvError;

use super::{Capture, CaptureError, Config};
use crate::observation::Observation;

/// Loads, attaches, and writes every observation as a line for that long, then the cost of every program.
pub fn print_live(config: &Config, duration: Duration, out: &mut dyn Write) -> Result<(), CaptureError> {
    let (running, mut receiver) = Capture::start(config)?;
    let status = running.status();
    writeln!(out, "rung {}", status.rung())?;
    for hook in &status.hooks {
        writeln!(out, "hook {:<16} {}", hook.name, if hook.attached { "ok" } else { hook.error.as_str() })?;
    }
    let statistics = super::Statistics::enable().ok();
    let end = Instant::now() + duration;
    while Instant::now() < end {
        match receiver.try_recv() {
            Ok(batch) => write_all(out, &batch)?,
            Err(TryRecvError::Empty) => std::thread::sleep(Duration::from_millis(10)),
            Err(TryRecvError::Disconnected) => break,
        }
    }
    if statistics.is_some() {
        for program in running.statistics().unwrap_or_default() {
            let nanos = program.run_time.as_nanos().checked_div(u128::from(program.run_count)).unwrap_or(0);
            writeln!(out, "cost {:<16} {:>9} runs {:>6} ns each", program.name, program.run_count, nanos)?;
        }
    }
    running.stop();
    while let Ok(batch) = receiver.try_recv() {
        write_all(out, &batch)?;
    }
    Ok(())
}

fn write_all(out: &mut dyn Write, batch: &[Observation]) -> io::Result<()> {
    for observation in batch {
        writeln!(out, "{observation:?}")?;
    }
    Ok(())
}
