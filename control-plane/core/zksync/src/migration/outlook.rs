//! How long a migration will still take, as far as what it did before tells.

use base::Timestamp;

use super::{CALM, EQUAL_IN_A_ROW, Migration, Phase};

/// How fast things go on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    /// Znodes that wait to be carried.
    pub backlog: usize,
    /// Znodes that were carried per second lately; 0 when nothing was.
    pub carried_per_second: f64,
    /// Milliseconds that the newest comparison of both sides took; none when there was none.
    pub comparison_ms: Option<u64>,
}

/// What is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Seconds until the phase ends, about; none when nothing tells, or when somebody's word is waited for.
    pub seconds_left: Option<u64>,
    /// It goes on when an operator says or does something.
    pub waits_for_operator: bool,
}

impl Migration {
    /// How long the phase will still take. The first copy is told by what it has copied, which is not known here.
    pub fn outlook(&self, now: Timestamp, pace: &Pace) -> Outlook {
        let operator = Outlook { seconds_left: None, waits_for_operator: true };
        let asked = matches!(self.phase, Phase::Switch | Phase::RollbackSwitch) && self.switch_answered && !self.moved_back;
        if self.paused || asked || matches!(self.phase, Phase::Ready | Phase::Drain) || self.seen.is_some_and(|seen| seen.halted) {
            return operator;
        }
        let stands = self.seen.is_some_and(|seen| seen.open_conflicts + seen.held_deletes + seen.blocked > 0);
        // What has failed is tried again, but something must be mended first.
        let failing = self.failures > 0 && self.phase != Phase::Verify;
        if (stands || failing) && !self.phase.is_over() {
            return operator;
        }
        let elapsed_ms = now.unix_millis().saturating_sub(self.since_ms);
        let comparisons = |count: u64| pace.comparison_ms.map(|took| took.saturating_mul(count));
        let left_ms = match self.phase {
            Phase::CatchUp => self.backlog_ms(pace).map(|backlog| match self.calm_since_ms {
                Some(since) => u64::try_from(CALM.as_millis()).unwrap_or(u64::MAX).saturating_sub(now.unix_millis().saturating_sub(since)),
                None => backlog.saturating_add(u64::try_from(CALM.as_millis()).unwrap_or(u64::MAX)),
            }),
            Phase::Verify => comparisons(u64::from(EQUAL_IN_A_ROW.saturating_sub(self.equal_in_a_row))),
            // Two looks at one side.
            Phase::Freeze | Phase::RollbackFreeze => comparisons(1).map(|took| took.saturating_sub(elapsed_ms)),
            Phase::FinalSync | Phase::RollbackSync => self.backlog_ms(pace),
            Phase::Align | Phase::FinalVerify | Phase::RollbackVerify => comparisons(1).map(|took| took.saturating_sub(elapsed_ms)),
            _ => None,
        };
        Outlook { seconds_left: left_ms.map(|left| left.div_ceil(1_000)), waits_for_operator: false }
    }

    fn backlog_ms(&self, pace: &Pace) -> Option<u64> {
        if pace.backlog == 0 {
            return Some(0);
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "an estimate")]
        (pace.carried_per_second > 0.0).then(|| (pace.backlog as f64 / pace.carried_per_second * 1_000.0).min(1e15) as u64)
    }
}
