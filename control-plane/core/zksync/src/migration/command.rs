//! What an operator may say, and what comes of it.

use base::Timestamp;

use super::{Command, Effect, Migration, NotNow, Phase, Step, owed};

impl Migration {
    /// Whether an operator may say this now.
    ///
    /// # Errors
    /// When the phase does not allow it, or something stands in the way.
    pub fn allows(&self, command: Command) -> Result<(), NotNow> {
        use Phase::{Confirm, Drain, Ready, RollbackFreeze, RollbackSwitch, RollbackSync, RollbackVerify, Switch};
        let allowed = match command {
            Command::Cutover => self.phase == Ready && !self.paused,
            Command::Advance => matches!(self.phase, Switch | RollbackSwitch) && !self.paused,
            Command::AdvanceForced => (self.phase.is_way_back() || self.phase == RollbackSwitch) && !self.paused,
            // From the last step of the way back it begins again: somebody may have written on the new ensemble meanwhile.
            Command::Rollback => !self.phase.is_over() && !matches!(self.phase, RollbackFreeze | RollbackSync | RollbackVerify),
            Command::Pause => !self.phase.is_over() && !self.paused,
            Command::Resume => self.paused,
            Command::Complete => self.phase == Drain && !self.paused,
            Command::CompleteForced => matches!(self.phase, Confirm | Drain | RollbackFreeze | RollbackSync | RollbackVerify),
        };
        let refusal = |why: Option<String>| Err(NotNow { command, phase: self.phase, why });
        if !allowed {
            return refusal(None);
        }
        let why = match command {
            // The hook that stops the writers must not be followed by one that lets them go on.
            Command::Cutover if self.owed.contains(&Step::Unfreeze) => Some(owed::text(Step::Unfreeze).to_owned()),
            Command::Cutover => self.in_the_way(),
            Command::Complete => self.in_the_way().or_else(|| self.still_there.clone()),
            _ => None,
        };
        if why.is_some() { refusal(why) } else { Ok(()) }
    }

    pub(super) fn command(&mut self, now: Timestamp, command: Command, out: &mut Vec<Effect>) {
        self.note(now, format!("an operator says {command:?}"));
        match command {
            Command::Cutover => self.go(now, Phase::Freeze, out),
            Command::Advance if self.phase == Phase::RollbackSwitch => {
                self.moved_back = true;
                self.at_once();
                self.phase_waits_for = "one more look at who is still there".to_owned();
                out.push(Effect::Persist);
                self.start(Step::ConfirmBack, out);
            }
            Command::Advance => self.go(now, Phase::Confirm, out),
            Command::AdvanceForced => {
                self.note(now, format!("by force; in the way: {}", self.waiting_for));
                // Before the clients are moved back they still must be, whatever could not be proved.
                if self.phase.is_way_back() {
                    self.go(now, Phase::RollbackSwitch, out);
                } else {
                    self.back(now, out);
                }
            }
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
                self.phase_waits_for = "an operator to resume it".to_owned();
                out.extend([Effect::Persist, Effect::PauseLink]);
            }
            Command::Resume => {
                self.unpause(now);
                self.phase_waits_for.clear();
                out.extend([Effect::Persist, Effect::ResumeLink]);
                self.step_under_way = None;
                self.enter(now, self.phase, out);
            }
            Command::Complete => {
                self.completing = true;
                self.phase_waits_for = "one more look at who is still there".to_owned();
                self.at_once();
                self.start(Step::LastLook, out);
            }
            Command::CompleteForced => {
                let in_the_way = self.in_the_way().into_iter().chain(self.still_there.clone()).collect::<Vec<_>>().join("; ");
                self.note(now, format!("completed by force; in the way: {}", if in_the_way.is_empty() { "nothing" } else { &in_the_way }));
                if self.phase.is_way_back() {
                    self.owe(Step::Unfreeze);
                }
                self.unpause(now);
                self.go(now, Phase::Complete, out);
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
}
