//! What is to be done whatever becomes of the migration: it is kept with it, and tried until it has succeeded.

use base::Timestamp;

use super::{Duration, Effect, Migration, Report, Step};

/// The longest pause before what is owed is tried again.
const OWED_AGAIN_MAX: Duration = Duration::from_secs(60);

/// For people: what is waited for.
pub(super) fn text(step: Step) -> &'static str {
    match step {
        Step::CleanUp => "what is ours to be removed from both ensembles",
        _ => "the writers to be let go on",
    }
}

impl Migration {
    /// Notes that a step is to be done; what follows must persist it before it is sent.
    pub(super) fn owe(&mut self, step: Step) {
        if !self.owed.contains(&step) {
            self.owed.push(step);
        }
    }

    /// Does what is owed, as soon as it may be done beside what is being done.
    pub(super) fn pay(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        let due = now.unix_millis() >= self.owed_failures.2;
        if due && let Some(step) = self.owed.iter().copied().find(|step| self.may_begin(*step)) {
            self.running.push(step);
            out.push(Effect::Do(step));
        }
    }

    /// A hook must not be overtaken by the one that takes it back. But writers that stand still do not wait for a comparison, which can take minutes.
    fn may_begin(&self, owed: Step) -> bool {
        let is_hook = |step: &Step| matches!(step, Step::Freeze | Step::Unfreeze | Step::SwitchBack);
        if owed == Step::Unfreeze { !self.running.iter().any(is_hook) } else { self.running.is_empty() }
    }

    pub(super) fn paid(&mut self, now: Timestamp, step: Step, report: &Report, out: &mut Vec<Effect>) {
        if !self.owed.contains(&step) {
            return;
        }
        if self.history.last().is_none_or(|last| last.text != report.text) {
            self.note(now, report.text.clone());
        }
        if report.ok {
            self.owed.retain(|owed| *owed != step);
            self.owed_failures = (0, String::new(), 0);
        } else {
            let failures = self.owed_failures.0.saturating_add(1);
            let pause = super::RETRY.saturating_mul(1 << (failures - 1).min(8)).min(OWED_AGAIN_MAX);
            self.owed_failures = (failures, report.text.clone(), (now + pause).unix_millis());
            // One that cannot be done does not keep the others from it.
            self.owed.rotate_left(1);
        }
        out.push(Effect::Persist);
        // The next one need not wait for a look.
        self.pay(now, out);
    }

    pub(super) fn show_what_is_waited_for(&mut self) {
        let owed = self.owed.iter().map(|step| text(*step));
        let why = [self.owed_failures.1.as_str(), self.phase_waits_for.as_str()];
        let texts: Vec<&str> = owed.chain(why).filter(|text| !text.is_empty()).collect();
        self.waiting_for = texts.join("; ");
    }
}
