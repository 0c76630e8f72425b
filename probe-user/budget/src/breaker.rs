//! Up at once when the budget is overdrawn, down when it has been calm for long.

use std::time::Duration;

use crate::{Budget, Cause, Change, Reading, Step, Use, WINDOW, Window};

/// Down goes who uses less than this part of the budget: with pauses of half the length it is within the budget still, as optional work costs at
/// most twice as much then.
const CALM: f64 = 0.45;

/// Memory does not double with shorter pauses, but it needs some room.
const CALM_MEMORY: f64 = 0.9;

/// How long it has to be calm before a step down.
const PATIENCE: Duration = Duration::from_secs(60);

/// The longest that it has to be calm: whoever has to go up again soon after going down waits twice as long from then on.
const PATIENCE_MAX: Duration = Duration::from_secs(960);

/// Soon: within this time.
const RELAPSE: Duration = Duration::from_secs(300);

/// Decides how much is left out.
#[derive(Debug)]
pub struct Breaker {
    budget: Budget,
    step: Step,
    window: Window,
    /// Since when it is calm.
    calm_since: Option<Duration>,
    patience: Duration,
    /// When it last went down.
    lowered_at: Option<Duration>,
}

impl Breaker {
    /// One that leaves nothing out yet.
    #[must_use]
    pub fn new(budget: Budget) -> Self {
        Breaker { budget, step: Step::FIRST, window: Window::default(), calm_since: None, patience: PATIENCE, lowered_at: None }
    }

    /// Where it stands.
    #[must_use]
    pub fn step(&self) -> Step {
        self.step
    }

    /// Another budget from now on: it begins anew.
    pub fn set_budget(&mut self, budget: Budget) -> Option<Change> {
        if budget == self.budget {
            return None;
        }
        let from = self.step;
        *self = Breaker::new(budget);
        (from != self.step).then_some(Change { from, to: self.step, cause: Cause::NewBudget })
    }

    /// What was used until now; the step that is taken because of it.
    pub fn take(&mut self, reading: Reading) -> Option<Change> {
        let used = self.window.take(reading)?;
        if let Some(cause) = self.overdrawn(used) {
            self.calm_since = None;
            return self.step.next().map(|to| self.go(to, cause, reading));
        }
        if !self.is_calm(used) {
            self.calm_since = None;
            return None;
        }
        let since = *self.calm_since.get_or_insert(reading.awake);
        if reading.awake.saturating_sub(since) < self.patience {
            return None;
        }
        self.step.previous().map(|to| self.go(to, Cause::Calm, reading))
    }

    fn go(&mut self, to: Step, cause: Cause, reading: Reading) -> Change {
        let change = Change { from: self.step, to, cause };
        if to > self.step {
            let relapse = self.lowered_at.is_some_and(|at| reading.awake.saturating_sub(at) < RELAPSE);
            self.patience = if relapse { (self.patience * 2).min(PATIENCE_MAX) } else { PATIENCE };
        } else {
            self.lowered_at = Some(reading.awake);
        }
        self.step = to;
        self.calm_since = None;
        // What was used at the step before says nothing of this one.
        self.window.restart(reading);
        change
    }

    fn overdrawn(&self, used: Use) -> Option<Cause> {
        if let Some(budget) = self.budget.cpu_percent
            && used.cpu_percent > budget
        {
            return Some(Cause::Cpu { used: used.cpu_percent, budget });
        }
        let budget = self.budget.memory_bytes.filter(|&budget| used.least_resident_bytes > budget)?;
        Some(Cause::Memory { used: used.least_resident_bytes, budget })
    }

    #[expect(clippy::cast_precision_loss, reason = "a part of a size needs no more than the 53 bits of a double")]
    fn is_calm(&self, used: Use) -> bool {
        self.budget.cpu_percent.is_none_or(|budget| used.cpu_percent < budget * CALM)
            && self.budget.memory_bytes.is_none_or(|budget| (used.least_resident_bytes as f64) < budget as f64 * CALM_MEMORY)
    }
}

// The window has to be full before anything is decided, so that a patience shorter than it would be none.
const _: () = assert!(PATIENCE.as_secs() >= WINDOW.as_secs());

#[cfg(test)]
mod tests;
