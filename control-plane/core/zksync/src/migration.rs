//! A migration: phases from the first look to the last, with the proofs that each needs before the next begins.

mod words;

use std::time::Duration;

use base::Timestamp;

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
            history: Vec::new(),
            paused_at_ms: None,
            still_there: None,
            completing: false,
            seen: None,
            equal_in_a_row: 0,
            calm_since_ms: None,
            step_under_way: None,
            retry_at_ms: 0,
        };
        migration.note(now, "begun".to_owned());
        migration
    }

    /// Whether an operator may say this now.
    ///
    /// # Errors
    /// When the phase does not allow it, or something stands in the way.
    pub fn allows(&self, command: Command) -> Result<(), NotNow> {
        let allowed = match command {
            Command::Cutover => self.phase == Phase::Ready && !self.paused,
            Command::Advance => matches!(self.phase, Phase::Switch),
            Command::Rollback => {
                !self.phase.is_over()
                    && !matches!(self.phase, Phase::RollbackFreeze | Phase::RollbackSync | Phase::RollbackVerify | Phase::RollbackSwitch)
            }
            Command::Pause => !self.phase.is_over() && !self.paused,
            Command::Resume => self.paused,
            Command::Complete => self.phase == Phase::Drain && !self.paused,
        };
        let refusal = |why: Option<String>| Err(NotNow { command, phase: self.phase, why });
        if !allowed {
            return refusal(None);
        }
        let why = match command {
            Command::Cutover => self.in_the_way(),
            Command::Complete => self.in_the_way().or_else(|| self.still_there.clone()),
            _ => None,
        };
        if why.is_some() { refusal(why) } else { Ok(()) }
    }

    /// What keeps the link from a step that cannot be taken back easily.
    fn in_the_way(&self) -> Option<String> {
        match &self.seen {
            None => Some("how the link stands is not known yet".to_owned()),
            Some(seen) if seen.halted => Some("the link has stopped by itself".to_owned()),
            Some(seen) => obstacles(seen),
        }
    }

    /// Takes one input. Total: what makes no sense now changes nothing.
    pub fn step(&mut self, now: Timestamp, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Begin => {
                self.step_under_way = None;
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
    }

    fn command(&mut self, now: Timestamp, command: Command, out: &mut Vec<Effect>) {
        self.note(now, format!("an operator says {command:?}"));
        match command {
            Command::Cutover => self.go(now, Phase::Freeze, out),
            Command::Advance => self.go(now, Phase::Confirm, out),
            Command::Rollback => {
                // The way back is the one thing that is not to wait for somebody else's word.
                if self.paused {
                    self.unpause(now);
                    out.push(Effect::ResumeLink);
                }
                self.roll_back(now, "an operator asked for it", out);
            }
            Command::Pause => {
                self.paused = true;
                self.paused_at_ms = Some(now.unix_millis());
                self.waiting_for = "an operator to resume it".to_owned();
                out.extend([Effect::Persist, Effect::PauseLink]);
            }
            Command::Resume => {
                self.unpause(now);
                self.waiting_for.clear();
                out.extend([Effect::Persist, Effect::ResumeLink]);
                self.step_under_way = None;
                self.enter(now, self.phase, out);
            }
            Command::Complete => {
                self.completing = true;
                self.waiting_for = "one more look at who is still there".to_owned();
                self.start(Step::LastLook, out);
            }
        }
    }

    /// The clock of the phase goes on from where it stood.
    fn unpause(&mut self, now: Timestamp) {
        self.paused = false;
        let Some(paused_at) = self.paused_at_ms.take() else { return };
        let stood = now.unix_millis().saturating_sub(paused_at);
        self.deadline_ms = self.deadline_ms.map(|deadline| deadline.saturating_add(stood));
        self.calm_since_ms = None;
    }

    fn done(&mut self, now: Timestamp, step: Step, report: &Report, out: &mut Vec<Effect>) {
        if self.step_under_way != Some(step) {
            return;
        }
        self.step_under_way = None;
        if self.paused {
            // Every step may be done again: it is, when somebody says so.
            return;
        }
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
                self.waiting_for.clone_from(&report.text);
                self.again(now, Duration::from_secs(2));
            }
            (Phase::Freeze, Step::Freeze) if report.ok => self.go(now, Phase::FinalSync, out),
            (Phase::Align, Step::Align) if report.ok => self.go(now, Phase::FinalVerify, out),
            (Phase::FinalVerify, Step::FinalVerify) if report.ok => self.go(now, Phase::Switch, out),
            (Phase::Switch, Step::Switch) if report.ok => {
                if report.finished {
                    self.go(now, Phase::Confirm, out);
                } else {
                    self.waiting_for = "the clients to be moved, and `advance`".to_owned();
                    out.push(Effect::Persist);
                }
            }
            (Phase::Confirm, Step::Confirm) => {
                if report.ok {
                    let since = *self.calm_since_ms.get_or_insert(now.unix_millis());
                    if now.since(Timestamp::from_unix_millis(since)) >= GREEN {
                        return self.go(now, Phase::Drain, out);
                    }
                    self.waiting_for = "the gates to stay green".to_owned();
                } else {
                    self.calm_since_ms = None;
                    self.waiting_for.clone_from(&report.text);
                }
                self.again(now, Duration::from_secs(1));
                out.push(Effect::Persist);
            }
            (Phase::RollbackFreeze, Step::Freeze) if report.ok => self.go(now, Phase::RollbackSync, out),
            (Phase::RollbackVerify, Step::FinalVerify) if report.ok => self.go(now, Phase::RollbackSwitch, out),
            (Phase::RollbackSwitch, Step::SwitchBack) if report.ok => self.go(now, Phase::RolledBack, out),
            (phase, _) if !report.ok && phase.is_before_switch() => self.roll_back(now, &report.text, out),
            // The way back must not be lost by one failure: it is tried until the operator has mended what is in the way.
            _ if !report.ok => {
                self.waiting_for.clone_from(&report.text);
                self.again(now, Duration::from_secs(2));
                out.push(Effect::Persist);
            }
            _ => {}
        }
    }

    /// Who is still there while there is a way back; and whether there need be none any more.
    fn looked(&mut self, now: Timestamp, report: &Report, out: &mut Vec<Effect>) {
        self.still_there = (!report.ok).then(|| report.text.clone());
        self.again(now, HOLDERS);
        if !std::mem::take(&mut self.completing) {
            return;
        }
        let backlog = || self.seen.is_none_or(|seen| !seen.settled).then(|| "changes that are still to be carried back".to_owned());
        match self.still_there.clone().or_else(|| self.in_the_way()).or_else(backlog) {
            None => self.go(now, Phase::Complete, out),
            Some(why) => {
                self.note(now, format!("not completed: {why}"));
                out.push(Effect::Persist);
            }
        }
    }

    fn observed(&mut self, now: Timestamp, seen: Observation, out: &mut Vec<Effect>) {
        self.seen = Some(seen);
        if self.paused || self.phase.is_over() {
            return;
        }
        if seen.halted {
            self.waiting_for = "the link, which has stopped by itself".to_owned();
            return;
        }
        if let Some(deadline) = self.deadline_ms
            && now.unix_millis() > deadline
        {
            let text = format!("{} took too long: {}", self.phase.as_str(), self.waiting_for);
            return self.overdue(now, &text, out);
        }
        let in_the_way = obstacles(&seen);
        match self.phase {
            Phase::Snapshot if seen.live && seen.settled => self.go(now, Phase::CatchUp, out),
            Phase::Snapshot => self.waiting_for = in_the_way.unwrap_or_else(|| "everything to be copied".to_owned()),
            Phase::CatchUp => {
                if seen.live && seen.lag_p99_ms < 1_000.0 && in_the_way.is_none() {
                    let since = *self.calm_since_ms.get_or_insert(now.unix_millis());
                    if now.since(Timestamp::from_unix_millis(since)) >= CALM {
                        return self.go(now, Phase::Verify, out);
                    }
                    self.waiting_for = "the link to stay calm".to_owned();
                } else {
                    self.calm_since_ms = None;
                    self.waiting_for = in_the_way.unwrap_or_else(|| "the backlog".to_owned());
                }
            }
            Phase::FinalSync | Phase::RollbackSync => match in_the_way {
                None if seen.live && seen.settled => {
                    let next = if self.phase == Phase::FinalSync { Phase::Align } else { Phase::RollbackVerify };
                    self.go(now, next, out);
                }
                None => self.waiting_for = "the last changes".to_owned(),
                Some(text) => self.waiting_for = text,
            },
            Phase::Ready => self.waiting_for = in_the_way.unwrap_or_else(|| "the word to cut over".to_owned()),
            Phase::Drain if self.completing => {}
            Phase::Drain => {
                let word = || "the word to complete it, or to roll back".to_owned();
                self.waiting_for = in_the_way.or_else(|| self.still_there.clone()).unwrap_or_else(word);
            }
            _ => {}
        }
        if self.step_under_way.is_none()
            && now.unix_millis() >= self.retry_at_ms
            && let Some(step) = step_of(self.phase)
            && (self.phase != Phase::Switch || self.waiting_for.is_empty())
        {
            self.start(step, out);
        }
    }

    fn overdue(&mut self, now: Timestamp, why: &str, out: &mut Vec<Effect>) {
        match self.phase {
            phase if phase.is_before_switch() || matches!(phase, Phase::Switch | Phase::Confirm) => self.roll_back(now, why, out),
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
            out.push(Effect::Do(Step::Unfreeze));
            self.go(now, Phase::Verify, out);
        } else if phase.is_after_switch() {
            self.go(now, Phase::RollbackFreeze, out);
        } else {
            self.go(now, Phase::RolledBack, out);
        }
    }

    fn go(&mut self, now: Timestamp, phase: Phase, out: &mut Vec<Effect>) {
        let from = self.phase;
        self.phase = phase;
        self.since_ms = now.unix_millis();
        self.deadline_ms = self.deadline_of(phase, now);
        self.waiting_for.clear();
        (self.still_there, self.completing) = (None, false);
        self.equal_in_a_row = 0;
        self.calm_since_ms = None;
        self.step_under_way = None;
        self.retry_at_ms = 0;
        self.note(now, format!("{} after {}", phase.as_str(), from.as_str()));
        out.push(Effect::Persist);
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
            Phase::Switch => out.push(Effect::TakeFromB),
            Phase::RollbackSwitch => out.push(Effect::TakeFromA),
            Phase::RolledBack => {
                out.push(Effect::TakeFromA);
                out.push(Effect::Do(Step::Unfreeze));
                out.push(Effect::PauseLink);
            }
            Phase::Complete => {
                out.push(Effect::StopLink);
                out.push(Effect::Do(Step::CleanUp));
                return;
            }
            _ => {}
        }
        if !self.paused
            && let Some(step) = step_of(phase)
        {
            self.start(step, out);
        }
    }

    fn deadline_of(&self, phase: Phase, now: Timestamp) -> Option<u64> {
        self.plan.deadlines.of(phase).map(|patience| (now + patience).unix_millis())
    }

    fn start(&mut self, step: Step, out: &mut Vec<Effect>) {
        self.step_under_way = Some(step);
        out.push(Effect::Do(step));
    }

    fn again(&mut self, now: Timestamp, pause: Duration) {
        self.retry_at_ms = (now + pause).unix_millis();
    }

    fn note(&mut self, now: Timestamp, text: String) {
        if self.history.len() >= HISTORY_MAX {
            self.history.remove(0);
        }
        self.history.push(Note { at_ms: now.unix_millis(), phase: self.phase, text });
    }
}

fn step_of(phase: Phase) -> Option<Step> {
    match phase {
        Phase::Prepare => Some(Step::Prepare),
        Phase::Verify => Some(Step::Verify),
        Phase::Freeze | Phase::RollbackFreeze => Some(Step::Freeze),
        Phase::Align => Some(Step::Align),
        Phase::FinalVerify | Phase::RollbackVerify => Some(Step::FinalVerify),
        Phase::Switch => Some(Step::Switch),
        Phase::Confirm => Some(Step::Confirm),
        Phase::Drain => Some(Step::LastLook),
        Phase::RollbackSwitch => Some(Step::SwitchBack),
        _ => None,
    }
}

fn obstacles(seen: &Observation) -> Option<String> {
    let mut found = Vec::new();
    let mut add = |count: usize, what: &str| {
        if count > 0 {
            found.push(format!("{count} {what}"));
        }
    };
    add(seen.open_conflicts, "open conflicts");
    add(seen.held_deletes, "deletes that wait for approval");
    add(seen.blocked, "paths that cannot be copied");
    if found.is_empty() { None } else { Some(found.join(", ")) }
}

#[cfg(test)]
mod tests;
