//! The probe keeps to its budget of CPU and memory: when it uses more, it looks more rarely, and says so. What decides is `probe_budget`; here are
//! the clocks, and the loops that are slowed down.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use probe_budget::{Breaker, Budget, Cause, Change, Reading, Step};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::{Instants, process_cpu};
use crate::config::Config;
use crate::driver::Input;
use crate::observation::Observation;
use crate::reload;
use crate::telemetry::{Telemetry, resident_bytes};

/// The blind spot that is told here.
const CAUSE: &str = "budget";

/// What was left out, among the losses.
const LEFT_OUT: &str = "looks_left_out";

/// How often it is looked what was used.
const EVERY: Duration = Duration::from_secs(5);

/// What the start costs (programs are checked, everything is looked at once) is not judged.
const SETTLED_AFTER: Duration = Duration::from_secs(30);

/// How fast optional work goes on. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    step: watch::Sender<Step>,
    left_out: AtomicU64,
}

impl Pace {
    /// How many times as long a pause has to be now.
    pub fn factor(&self) -> u32 {
        self.shared.step.borrow().factor()
    }

    /// A pause as long as it has to be now.
    pub fn stretched(&self, pause: Duration) -> Duration {
        pause.saturating_mul(self.factor())
    }

    /// Sleeps between two looks: for `pause`, or longer while there is not enough budget.
    pub async fn sleep(&self, pause: Duration) {
        let begun = tokio::time::Instant::now();
        let mut step = self.shared.step.subscribe();
        loop {
            let factor = step.borrow_and_update().factor();
            tokio::select! {
                () = tokio::time::sleep_until(begun + pause.saturating_mul(factor)) => {
                    self.shared.left_out.fetch_add(u64::from(factor) - 1, Ordering::Relaxed);
                    return;
                }
                Ok(()) = step.changed() => {}
            }
        }
    }

    /// Looks that were not done so far.
    pub fn left_out(&self) -> u64 {
        self.shared.left_out.load(Ordering::Relaxed)
    }

    /// From now on.
    pub fn set(&self, step: Step) {
        self.shared.step.send_replace(step);
    }
}

/// Looks every few seconds what the probe has used, and sets its pace, until `stopping` is cancelled.
pub async fn run(pace: Pace, current: reload::Current, inputs: mpsc::Sender<Input>, telemetry: Telemetry, stopping: CancellationToken) {
    tokio::select! {
        _ = keep(&pace, &current, &inputs, &telemetry, read) => {}
        () = stopping.cancelled() => {}
    }
}

/// Goes on for as long as somebody listens.
async fn keep(
    pace: &Pace,
    current: &reload::Current,
    inputs: &mpsc::Sender<Input>,
    telemetry: &Telemetry,
    mut read: impl FnMut() -> Reading,
) -> Option<()> {
    let budget = || of(&current.borrow());
    let mut breaker = Breaker::new(budget());
    let step = &telemetry.metrics().budget_step;
    pace.set(breaker.step());
    step.set(breaker.step().number().into());
    inputs.send(Input::BlindSpot { cause: CAUSE, sentence: None }).await.ok()?;
    tokio::time::sleep(SETTLED_AFTER).await;
    let mut told = 0;
    loop {
        let budget = budget();
        let anew = breaker.set_budget(budget);
        if let Some(change) = anew.or_else(|| breaker.take(read())) {
            pace.set(change.to);
            step.set(change.to.number().into());
            log(change);
            inputs.send(Input::BlindSpot { cause: CAUSE, sentence: sentence(change, budget) }).await.ok()?;
        }
        let left_out = pace.left_out();
        if left_out != told {
            told = left_out;
            inputs.send(Input::Observed(vec![Observation::LostOther { cause: LEFT_OUT, total: left_out }])).await.ok()?;
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// What the configuration allows.
fn of(config: &Config) -> Budget {
    Budget { cpu_percent: config.cpu_budget, memory_bytes: config.memory_budget }
}

fn read() -> Reading {
    let resident = resident_bytes().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
    Reading { awake: Duration::from_nanos(Instants::read().awake_nanos), cpu: process_cpu(), resident_bytes: resident }
}

fn log(change: Change) {
    let (factor, step) = (change.to.factor(), change.to.number());
    match change.cause {
        Cause::Cpu { used, budget } => {
            tracing::warn!(
                step,
                factor,
                used,
                budget,
                "more CPU is used than the budget has, in percent: optional work is done more rarely"
            );
        }
        Cause::Memory { used, budget } => {
            tracing::warn!(
                step,
                factor,
                used,
                budget,
                "more memory is used than the budget has, in bytes: optional work is done more rarely"
            );
        }
        Cause::Calm | Cause::NewBudget => tracing::info!(step, factor, "there is room in the budget: optional work is done more often"),
    }
}

/// For people who wonder why numbers are old; `None` when nothing is left out.
fn sentence(change: Change, budget: Budget) -> Option<String> {
    let factor = (change.to > Step::FIRST).then(|| change.to.factor())?;
    let cpu = budget.cpu_percent.map(|percent| format!("{percent} % of a CPU"));
    let memory = budget.memory_bytes.map(|bytes| format!("{} MB", bytes / 1_000_000));
    let budget = [cpu, memory].into_iter().flatten().collect::<Vec<_>>().join(" and ");
    Some(format!(
        "To keep to its budget ({budget}) the probe looks {factor} times as rarely: samples, Unix sockets, details of new processes and the bytes \
         of open connections come later. Connections are all counted."
    ))
}

#[cfg(test)]
mod tests;
