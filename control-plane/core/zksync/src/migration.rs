//! A migration: phases from the first look to the last, with the proofs that each needs before the next begins.

mod command;
mod outlook;
mod owed;
mod words;

use std::time::Duration;

use base::Timestamp;

use crate::node::Side;

pub use outlook::{Outlook, Pace};
pub use words::{Command, Deadlines, Effect, Input, Migration, NotNow, Note, Observation, Phase, Plan, Report, Step};

/// Notes that a migration keeps; the oldest go.
const HISTORY_MAX: usize = 500;
/// Equal verifications in a row before a migration is ready.
const EQUAL_IN_A_ROW: u32 = 2;
/// How long the link must be calm before it counts as caught up.
const CALM: Duration = Duration::from_secs(5);
/// Between two looks at who is still connected to the old ensemble, while there is a way back.
const HOLDERS: Duration = Duration::from_secs(10);
/// How long the gates must be green after the switch.
const GREEN: Duration = Duration::from_secs(5);
/// Before what has failed is tried again; twice as long with each failure.
const RETRY: Duration = Duration::from_secs(2);
/// The longest of these, where somebody waits for it: on the way there and back.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// The same of a step that reads both ensembles as a whole, and that nobody waits for.
const READ_AGAIN_MAX: Duration = Duration::from_secs(60);

impl Migration {
    /// One that begins.
    pub fn new(plan: Plan, now: Timestamp) -> Migration {
        let mut migration = Migration {
            plan,
            phase: Phase::Prepare,
            since_ms: now.unix_millis(),
            paused: false,
            deadline_ms: None,
            waiting_for: String::new(),
            owed: Vec::new(),
            history: Vec::new(),
            paused_at_ms: None,
            still_there: None,
            completing: false,
            seen: None,
            equal_in_a_row: 0,
            calm_since_ms: None,
            step_under_way: None,
            retry_at_ms: 0,
            failures: 0,
            phase_waits_for: String::new(),
            switch_answered: false,
            moved_back: false,
            owed_failures: (0, String::new(), 0),
            pause_kept: false,
            running: Vec::new(),
        };
        migration.note(now, "begun".to_owned());
        migration
    }

    /// One that begins after this one is over. What this one still owes goes over to it: writers that were not let go on yet still stand still.
    #[must_use]
    pub fn followed_by(&self, plan: Plan, now: Timestamp) -> Migration {
        Migration { owed: self.owed.clone(), ..Migration::new(plan, now) }
    }

    /// Whether nothing is left to be done.
    pub fn is_finished(&self) -> bool {
        self.phase.is_over() && self.owed.is_empty()
    }

    /// What keeps the link from a step that cannot be taken back easily.
    fn in_the_way(&self) -> Option<String> {
        match &self.seen {
            None => Some("how the link stands is not known yet".to_owned()),
            Some(seen) if seen.halted => Some("the link has stopped by itself".to_owned()),
            Some(seen) => self.obstacles(seen),
        }
    }

    /// Takes one input. Total: what makes no sense now changes nothing.
    pub fn step(&mut self, now: Timestamp, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Begin => {
                self.step_under_way = None;
                // Those of a process before this one are not answered any more.
                self.running.clear();
                if self.phase == Phase::RolledBack && !self.pause_kept {
                    self.keep_pause(out);
                }
                self.pay(now, out);
                self.enter(now, self.phase, out);
            }
            Input::Command(command) => {
                if self.allows(command).is_ok() {
                    self.command(now, command, out);
                }
            }
            Input::Done(step, report) => self.done(now, step, &report, out),
            Input::Observed(seen) => self.observed(now, seen, out),
        }
        self.show_what_is_waited_for();
    }

    fn done(&mut self, now: Timestamp, step: Step, report: &Report, out: &mut Vec<Effect>) {
        if let Some(place) = self.running.iter().position(|running| *running == step) {
            self.running.remove(place);
        }
        if matches!(step, Step::Unfreeze | Step::CleanUp) {
            return self.paid(now, step, report, out);
        }
        if self.step_under_way != Some(step) {
            return;
        }
        self.step_under_way = None;
        if self.paused {
            // Every step may be done again: it is, when somebody says so.
            return;
        }
        self.failures = if report.ok { 0 } else { self.failures.saturating_add(1) };
        if (self.phase, step) == (Phase::Drain, Step::LastLook) {
            return self.looked(now, report, out);
        }
        // Repeated findings would push out what matters.
        if self.history.last().is_none_or(|last| last.text != report.text) {
            self.note(now, report.text.clone());
        }
        match (self.phase, step) {
            (Phase::Prepare, Step::Prepare) if report.ok => self.go(now, Phase::Snapshot, out),
            (Phase::Verify, Step::Verify) if report.ok => {
                self.equal_in_a_row += 1;
                if self.equal_in_a_row >= EQUAL_IN_A_ROW {
                    self.go(now, Phase::Ready, out);
                } else {
                    self.again(now, Duration::from_secs(1));
                }
            }
            (Phase::Verify, Step::Verify) => {
                self.equal_in_a_row = 0;
                self.failed(now, report, READ_AGAIN_MAX);
            }
            (Phase::Freeze, Step::Freeze) if report.ok => self.go(now, Phase::FinalSync, out),
            (Phase::Align, Step::Align) if report.ok => self.go(now, Phase::FinalVerify, out),
            (Phase::FinalVerify, Step::FinalVerify) if report.ok => self.go(now, Phase::Switch, out),
            (Phase::Switch, Step::Switch) if report.ok && report.finished => self.go(now, Phase::Confirm, out),
            (Phase::Switch, Step::Switch) if report.ok => {
                self.switch_answered = true;
                self.phase_waits_for = "the clients to be moved, and `advance`".to_owned();
                out.push(Effect::Persist);
            }
            (Phase::Confirm, Step::Confirm) => self.confirmed(now, report, out),
            (Phase::Drain, Step::LastVerify) => self.verified_at_last(now, report, out),
            (Phase::RollbackFreeze, Step::Freeze) if report.ok => self.go(now, Phase::RollbackSync, out),
            (Phase::RollbackVerify, Step::FinalVerify) if report.ok => self.go(now, Phase::RollbackSwitch, out),
            (Phase::RollbackSwitch, Step::SwitchBack) if report.ok => {
                self.switch_answered = true;
                if report.finished {
                    self.moved_back = true;
                    self.start(Step::ConfirmBack, out);
                } else {
                    self.phase_waits_for = "the clients to be moved back, and `advance`".to_owned();
                }
                out.push(Effect::Persist);
            }
            (Phase::RollbackSwitch, Step::ConfirmBack) if report.ok => self.back(now, out),
            (phase, _) if !report.ok && phase.is_before_switch() => self.roll_back(now, &report.text, out),
            // The way back must not be lost by one failure: it is tried until the operator has mended what is in the way.
            _ if !report.ok => {
                self.failed(now, report, if self.phase == Phase::Prepare { READ_AGAIN_MAX } else { RETRY_MAX });
                out.push(Effect::Persist);
            }
            _ => {}
        }
    }

    fn failed(&mut self, now: Timestamp, report: &Report, longest: Duration) {
        self.phase_waits_for.clone_from(&report.text);
        let pause = RETRY.saturating_mul(1 << self.failures.saturating_sub(1).min(8));
        self.again(now, pause.min(longest));
    }

    fn confirmed(&mut self, now: Timestamp, report: &Report, out: &mut Vec<Effect>) {
        let drift = self.seen.as_ref().and_then(|seen| self.drift(seen));
        match drift.filter(|_| report.ok) {
            None if report.ok => {
                let since = *self.calm_since_ms.get_or_insert(now.unix_millis());
                if now.since(Timestamp::from_unix_millis(since)) >= GREEN {
                    return self.go(now, Phase::Drain, out);
                }
                self.phase_waits_for = "the gates to stay green".to_owned();
            }
            drift => {
                self.calm_since_ms = None;
                self.phase_waits_for = drift.unwrap_or_else(|| report.text.clone());
            }
        }
        self.again(now, Duration::from_secs(1));
        out.push(Effect::Persist);
    }

    /// Who is still there while there is a way back; and whether there need be none any more.
    fn looked(&mut self, now: Timestamp, report: &Report, out: &mut Vec<Effect>) {
        self.still_there = (!report.ok).then(|| report.text.clone());
        self.again(now, HOLDERS);
        if !self.completing {
            return;
        }
        match self.still_there.clone().or_else(|| self.in_the_way()) {
            None => self.start(Step::LastVerify, out),
            Some(why) => self.not_completed(now, &why, out),
        }
    }

    fn verified_at_last(&mut self, now: Timestamp, report: &Report, out: &mut Vec<Effect>) {
        self.again(now, HOLDERS);
        let differs = (!report.ok).then(|| report.text.clone());
        let backlog = || self.seen.is_none_or(|seen| !seen.settled).then(|| "changes that are still to be carried back".to_owned());
        match differs.or_else(|| self.in_the_way()).or_else(backlog) {
            None => self.go(now, Phase::Complete, out),
            Some(why) => self.not_completed(now, &why, out),
        }
    }

    fn not_completed(&mut self, now: Timestamp, why: &str, out: &mut Vec<Effect>) {
        self.completing = false;
        self.note(now, format!("not completed: {why}"));
        // Until the next look.
        self.still_there.get_or_insert_with(|| why.to_owned());
        self.phase_waits_for = why.to_owned();
        out.push(Effect::Persist);
    }

    fn observed(&mut self, now: Timestamp, seen: Observation, out: &mut Vec<Effect>) {
        self.seen = Some(seen);
        self.pay(now, out);
        if self.paused || self.phase.is_over() {
            return;
        }
        // Clients are moved back without the link.
        if seen.halted && self.phase != Phase::RollbackSwitch {
            self.phase_waits_for = "the link, which has stopped by itself".to_owned();
            return;
        }
        if let Some(deadline) = self.deadline_ms
            && now.unix_millis() > deadline
        {
            let text = format!("{} took too long: {}", self.phase.as_str(), self.phase_waits_for);
            return self.overdue(now, &text, out);
        }
        let in_the_way = self.obstacles(&seen);
        match self.phase {
            Phase::Snapshot if seen.live && seen.settled => self.go(now, Phase::CatchUp, out),
            Phase::Snapshot => self.phase_waits_for = in_the_way.unwrap_or_else(|| "everything to be copied".to_owned()),
            Phase::CatchUp => {
                if seen.live && seen.lag_p99_ms < 1_000.0 && in_the_way.is_none() {
                    let since = *self.calm_since_ms.get_or_insert(now.unix_millis());
                    if now.since(Timestamp::from_unix_millis(since)) >= CALM {
                        return self.go(now, Phase::Verify, out);
                    }
                    self.phase_waits_for = "the link to stay calm".to_owned();
                } else {
                    self.calm_since_ms = None;
                    self.phase_waits_for = in_the_way.unwrap_or_else(|| "the backlog".to_owned());
                }
            }
            Phase::FinalSync | Phase::RollbackSync => match in_the_way {
                None if seen.live && seen.settled => {
                    let next = if self.phase == Phase::FinalSync { Phase::Align } else { Phase::RollbackVerify };
                    self.go(now, next, out);
                }
                None => self.phase_waits_for = "the last changes".to_owned(),
                Some(text) => self.phase_waits_for = text,
            },
            Phase::Ready => {
                let both = "the word to cut over; before it the clients of B must stop writing, too, as what they write is carried to A";
                let word = if seen.both { both } else { "the word to cut over" };
                self.phase_waits_for = in_the_way.unwrap_or_else(|| word.to_owned());
            }
            Phase::RollbackSwitch if self.switch_answered && !self.moved_back => {
                let drift = format!("; {} znodes were written on B since: `rollback` carries them to A", seen.drifting);
                let drift = if seen.drifting > 0 { drift.as_str() } else { "" };
                self.phase_waits_for = format!("the clients to be moved back, and `advance`{drift}");
            }
            Phase::Drain if self.completing => {}
            Phase::Drain => {
                let word = || "the word to complete it, or to roll back".to_owned();
                self.phase_waits_for = in_the_way.or_else(|| self.still_there.clone()).unwrap_or_else(word);
            }
            _ => {}
        }
        if self.step_under_way.is_none()
            && now.unix_millis() >= self.retry_at_ms
            && let Some(step) = self.step_of(self.phase)
        {
            self.start(step, out);
        }
    }

    fn overdue(&mut self, now: Timestamp, why: &str, out: &mut Vec<Effect>) {
        let can_move_back = self.plan.switch_back_hook.is_some();
        match self.phase {
            phase if phase.is_before_switch() => self.roll_back(now, why, out),
            // Clients that only an operator can move back would be left on an ensemble that does not count any more.
            Phase::Switch | Phase::Confirm if can_move_back => self.roll_back(now, why, out),
            // Nothing is at stake before the freeze, and the way back must be gone to its end: tell, and go on.
            _ => {
                self.note(now, why.to_owned());
                self.deadline_ms = self.deadline_of(self.phase, now);
                out.push(Effect::Persist);
            }
        }
    }

    fn roll_back(&mut self, now: Timestamp, why: &str, out: &mut Vec<Effect>) {
        let phase = self.phase;
        self.note(now, format!("rolled back from {}: {why}", phase.as_str()));
        if phase.is_before_switch() {
            // Nothing was turned round: the writers go on, the link goes on, and the next attempt begins from a verified state.
            self.owe(Step::Unfreeze);
            self.go(now, Phase::Verify, out);
        } else if phase.is_after_switch() || phase == Phase::RollbackSwitch {
            self.go(now, Phase::RollbackFreeze, out);
        } else {
            self.go(now, Phase::RolledBack, out);
        }
    }

    /// The way back is gone to its end.
    fn back(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        self.owe(Step::Unfreeze);
        self.go(now, Phase::RolledBack, out);
    }

    /// One that was rolled back before it was kept that its link is paused, or that the writers are to be let go on: else the link, made anew, would
    /// go on by itself.
    fn keep_pause(&mut self, out: &mut Vec<Effect>) {
        self.pause_kept = true;
        self.owe(Step::Unfreeze);
        out.extend([Effect::TakeFromA, Effect::PauseLink, Effect::Persist]);
    }

    fn go(&mut self, now: Timestamp, phase: Phase, out: &mut Vec<Effect>) {
        let from = self.phase;
        self.phase = phase;
        self.since_ms = now.unix_millis();
        self.deadline_ms = self.deadline_of(phase, now);
        self.phase_waits_for.clear();
        (self.still_there, self.completing) = (None, false);
        (self.switch_answered, self.moved_back) = (false, false);
        self.equal_in_a_row = 0;
        self.calm_since_ms = None;
        self.at_once();
        self.note(now, format!("{} after {}", phase.as_str(), from.as_str()));
        if phase == Phase::Complete {
            self.owe(Step::CleanUp);
        }
        out.push(Effect::Persist);
        match phase {
            Phase::RolledBack => {
                self.pause_kept = true;
                out.extend([Effect::TakeFromA, Effect::PauseLink]);
            }
            Phase::Complete => out.push(Effect::StopLink),
            _ => {}
        }
        self.pay(now, out);
        self.enter(now, phase, out);
    }

    /// What a phase begins with. May be asked again after a restart.
    fn enter(&mut self, now: Timestamp, phase: Phase, out: &mut Vec<Effect>) {
        if self.deadline_ms.is_none() {
            self.deadline_ms = self.deadline_of(phase, now);
        }
        if self.paused {
            // A link that was made anew is not paused by itself.
            out.push(Effect::PauseLink);
        }
        match phase {
            Phase::Snapshot if !self.paused => out.push(Effect::ResumeLink),
            Phase::Switch | Phase::RollbackFreeze => out.push(Effect::TakeFromB),
            Phase::RollbackSwitch => out.push(Effect::TakeFromA),
            _ => {}
        }
        if !self.paused
            && let Some(step) = self.step_of(phase)
        {
            self.start(step, out);
        }
    }

    fn deadline_of(&self, phase: Phase, now: Timestamp) -> Option<u64> {
        let by_hand = match phase {
            Phase::Switch => self.plan.switch_hook.is_none(),
            Phase::RollbackSwitch => self.plan.switch_back_hook.is_none(),
            _ => false,
        };
        self.plan.deadlines.of(phase).filter(|_| !by_hand).map(|patience| (now + patience).unix_millis())
    }

    /// One after the other: what cannot begin now does so when what runs has ended.
    fn start(&mut self, step: Step, out: &mut Vec<Effect>) {
        if !self.running.is_empty() {
            return;
        }
        self.step_under_way = Some(step);
        self.running.push(step);
        out.push(Effect::Do(step));
    }

    fn again(&mut self, now: Timestamp, pause: Duration) {
        self.retry_at_ms = (now + pause).unix_millis();
    }

    /// Whatever was under way does not count any more, and what follows need not wait.
    fn at_once(&mut self) {
        self.step_under_way = None;
        self.retry_at_ms = 0;
        self.failures = 0;
    }

    fn note(&mut self, now: Timestamp, text: String) {
        if self.history.len() >= HISTORY_MAX {
            self.history.remove(0);
        }
        self.history.push(Note { at_ms: now.unix_millis(), phase: self.phase, text });
    }

    fn step_of(&self, phase: Phase) -> Option<Step> {
        match phase {
            Phase::Prepare => Some(Step::Prepare),
            Phase::Verify => Some(Step::Verify),
            Phase::Freeze | Phase::RollbackFreeze => Some(Step::Freeze),
            Phase::Align => Some(Step::Align),
            Phase::FinalVerify | Phase::RollbackVerify => Some(Step::FinalVerify),
            Phase::Switch => (!self.switch_answered).then_some(Step::Switch),
            Phase::Confirm => Some(Step::Confirm),
            Phase::Drain => Some(Step::LastLook),
            Phase::RollbackSwitch if self.moved_back => Some(Step::ConfirmBack),
            Phase::RollbackSwitch => (!self.switch_answered).then_some(Step::SwitchBack),
            _ => None,
        }
    }

    fn obstacles(&self, seen: &Observation) -> Option<String> {
        let mut found = Vec::new();
        for side in Side::BOTH {
            if !seen.connected[side] {
                found.push(format!("{} is not reached", side.as_str().to_uppercase()));
            }
        }
        let mut add = |count: usize, what: &str| {
            if count > 0 {
                found.push(format!("{count} {what}"));
            }
        };
        add(seen.open_conflicts, "open conflicts");
        add(seen.held_deletes, "deletes that wait for approval");
        add(seen.blocked, "paths that cannot be copied");
        found.extend(self.drift(seen));
        if found.is_empty() { None } else { Some(found.join(", ")) }
    }

    /// Whoever writes on the old ensemble after the switch writes what nobody will have.
    fn drift(&self, seen: &Observation) -> Option<String> {
        let counts = matches!(self.phase, Phase::Confirm | Phase::Drain) && seen.drifting > 0;
        counts.then(|| format!("{} znodes that were written on A since the switch and are not on B", seen.drifting))
    }
}

#[cfg(test)]
mod tests;
