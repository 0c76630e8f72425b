//! A migration: phases from the first look to the last, with the proofs that each needs before the next begins.

use std::time::Duration;

use base::Timestamp;
use serde::{Deserialize, Serialize};

/// Notes that a migration keeps; the oldest go.
const HISTORY_MAX: usize = 500;
/// Equal verifications in a row before a migration is ready.
const EQUAL_IN_A_ROW: u32 = 2;
/// How long the link must be calm before it counts as caught up.
const CALM: Duration = Duration::from_secs(5);
/// How long the gates must be green after the switch.
const GREEN: Duration = Duration::from_secs(5);

/// Where a migration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Both sides are looked at, and nothing is written.
    Prepare,
    /// Everything is copied for the first time.
    Snapshot,
    /// Changes are carried until nothing waits.
    CatchUp,
    /// Both sides are compared until they are equal twice in a row.
    Verify,
    /// Waits for the word to cut over; days if need be.
    Ready,
    /// The writers are stopped, and that is proved.
    Freeze,
    /// The last changes are carried.
    FinalSync,
    /// What clients cannot see but rely on: sequence counters and kinds of znodes.
    Align,
    /// Both sides are compared, with no tolerance.
    FinalVerify,
    /// The direction is turned round, and the clients are moved.
    Switch,
    /// Nobody talks to the old ensemble any more, and the new one answers.
    Confirm,
    /// The old ensemble follows the new one, so that there is a way back.
    Drain,
    /// Over: there is no way back.
    Complete,
    /// After the switch: the writers of the new ensemble are stopped.
    RollbackFreeze,
    /// The old ensemble gets the last changes.
    RollbackSync,
    /// Both sides are compared.
    RollbackVerify,
    /// Over: the old ensemble is the one that counts.
    RolledBack,
}

impl Phase {
    /// All, in order.
    pub const ALL: [Phase; 17] = [
        Phase::Prepare,
        Phase::Snapshot,
        Phase::CatchUp,
        Phase::Verify,
        Phase::Ready,
        Phase::Freeze,
        Phase::FinalSync,
        Phase::Align,
        Phase::FinalVerify,
        Phase::Switch,
        Phase::Confirm,
        Phase::Drain,
        Phase::Complete,
        Phase::RollbackFreeze,
        Phase::RollbackSync,
        Phase::RollbackVerify,
        Phase::RolledBack,
    ];

    /// As it stands in JSON and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Prepare => "prepare",
            Phase::Snapshot => "snapshot",
            Phase::CatchUp => "catch_up",
            Phase::Verify => "verify",
            Phase::Ready => "ready",
            Phase::Freeze => "freeze",
            Phase::FinalSync => "final_sync",
            Phase::Align => "align",
            Phase::FinalVerify => "final_verify",
            Phase::Switch => "switch",
            Phase::Confirm => "confirm",
            Phase::Drain => "drain",
            Phase::Complete => "complete",
            Phase::RollbackFreeze => "rollback_freeze",
            Phase::RollbackSync => "rollback_sync",
            Phase::RollbackVerify => "rollback_verify",
            Phase::RolledBack => "rolled_back",
        }
    }

    /// How long it may take; without end where somebody's word is waited for.
    fn patience(self) -> Option<Duration> {
        let seconds = match self {
            Phase::Prepare => 600,
            Phase::Snapshot | Phase::CatchUp => 24 * 3_600,
            Phase::Verify => 3_600,
            Phase::Freeze | Phase::FinalSync | Phase::Align | Phase::RollbackFreeze | Phase::RollbackSync => 30,
            Phase::FinalVerify | Phase::RollbackVerify => 60,
            Phase::Switch => 120,
            Phase::Confirm => 300,
            Phase::Ready | Phase::Drain | Phase::Complete | Phase::RolledBack => return None,
        };
        Some(Duration::from_secs(seconds))
    }

    /// Whether the writers are stopped on the old ensemble, and nothing has been turned round yet.
    fn is_before_switch(self) -> bool {
        matches!(self, Phase::Freeze | Phase::FinalSync | Phase::Align | Phase::FinalVerify)
    }

    /// Whether the new ensemble is the one that counts.
    pub fn is_after_switch(self) -> bool {
        matches!(self, Phase::Switch | Phase::Confirm | Phase::Drain | Phase::RollbackFreeze | Phase::RollbackSync | Phase::RollbackVerify)
    }

    /// Whether nothing follows.
    pub fn is_over(self) -> bool {
        matches!(self, Phase::Complete | Phase::RolledBack)
    }
}

/// What a migration is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What a link of this name does.
    pub link: String,
    /// Whether nobody may talk to the old ensemble any more before the migration counts as confirmed.
    #[serde(default = "yes")]
    pub require_no_clients: bool,
    /// Called (POST, JSON) when the writers must stop; without it the one who says `cutover` has stopped them.
    #[serde(default)]
    pub freeze_hook: Option<String>,
    /// Called when the writers may go on where they were.
    #[serde(default)]
    pub unfreeze_hook: Option<String>,
    /// Called when the clients are to be moved; without it somebody moves them and says `advance`.
    #[serde(default)]
    pub switch_hook: Option<String>,
    /// How far the target's sequence counters are put beyond the source's.
    #[serde(default = "margin")]
    pub sequence_margin: u32,
}

const fn yes() -> bool {
    true
}

const fn margin() -> u32 {
    10
}

impl Plan {
    /// A plan without hooks.
    pub fn of(link: &str) -> Plan {
        Plan {
            link: link.to_owned(),
            require_no_clients: yes(),
            freeze_hook: None,
            unfreeze_hook: None,
            switch_hook: None,
            sequence_margin: margin(),
        }
    }
}

/// A step whose outcome is told back by [`Input::Done`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Look at both sides.
    Prepare,
    /// Compare both sides while they live.
    Verify,
    /// Call the hook that stops the writers, and prove that nobody writes on the side that counts.
    Freeze,
    /// Call the hook that lets the writers go on where they were.
    Unfreeze,
    /// Align counters and kinds.
    Align,
    /// Compare both sides, with no tolerance.
    FinalVerify,
    /// Call the hook that moves the clients.
    Switch,
    /// Ask who talks to the old ensemble, and whether the new one answers.
    Confirm,
    /// Remove what is ours from both ensembles.
    CleanUp,
}

/// What a step found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whether the migration may go on.
    pub ok: bool,
    /// For people: what was found, or what stands in the way.
    pub text: String,
    /// Nobody has to be waited for: the hook did it, or there is none.
    #[serde(default)]
    pub finished: bool,
}

/// How the link stands, as far as it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Observation {
    /// Both sides are connected and were read as a whole.
    pub live: bool,
    /// Nothing waits.
    pub settled: bool,
    /// 99 of 100 changes took less, in milliseconds; 0 without changes.
    pub lag_p99_ms: f64,
    /// Conflicts that wait for an operator.
    pub open_conflicts: usize,
    /// Deletes that wait for approval.
    pub held_deletes: usize,
    /// Paths that cannot be copied.
    pub blocked: usize,
    /// The link has stopped by itself.
    pub halted: bool,
}

/// What an operator says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Cut over, now that it is ready.
    Cutover,
    /// What was waited for is done: the clients are moved.
    Advance,
    /// Go back.
    Rollback,
    /// Do nothing further for now.
    Pause,
    /// Go on.
    Resume,
    /// There is to be no way back any more.
    Complete,
}

/// Everything that can happen to a migration.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// It was just made, or loaded: do what the phase begins with.
    Begin,
    /// A step has ended.
    Done(Step, Report),
    /// How the link stands.
    Observed(Observation),
    /// An operator says something.
    Command(Command),
}

/// Everything a migration may ask of the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Do a step, and say what came of it. May be asked again after a restart: every step may be repeated.
    Do(Step),
    /// The link takes changes from A.
    TakeFromA,
    /// The link takes changes from B.
    TakeFromB,
    /// The link pauses.
    PauseLink,
    /// The link goes on.
    ResumeLink,
    /// The link ends.
    StopLink,
    /// Remember the migration before anything else is done.
    Persist,
}

/// A migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migration {
    /// What it was told.
    pub plan: Plan,
    /// Where it is.
    pub phase: Phase,
    /// Since when: milliseconds since 1970.
    pub since_ms: u64,
    /// An operator paused it.
    pub paused: bool,
    /// Until when the phase must have ended: milliseconds since 1970.
    pub deadline_ms: Option<u64>,
    /// What stands in the way right now; empty when nothing does.
    pub waiting_for: String,
    /// What happened, the oldest first.
    pub history: Vec<Note>,
    equal_in_a_row: u32,
    calm_since_ms: Option<u64>,
    step_under_way: Option<Step>,
    retry_at_ms: u64,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// When: milliseconds since 1970.
    pub at_ms: u64,
    /// In which phase.
    pub phase: Phase,
    /// What.
    pub text: String,
}

/// The phase does not allow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotNow {
    /// What was asked for.
    pub command: Command,
    /// Where the migration is.
    pub phase: Phase,
}

impl std::fmt::Display for NotNow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} is not possible in the phase {}", self.command, self.phase.as_str())
    }
}

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
    /// When the phase does not allow it.
    pub fn allows(&self, command: Command) -> Result<(), NotNow> {
        let allowed = match command {
            Command::Cutover => self.phase == Phase::Ready && !self.paused,
            Command::Advance => matches!(self.phase, Phase::Switch),
            Command::Rollback => {
                !self.phase.is_over() && !matches!(self.phase, Phase::RollbackFreeze | Phase::RollbackSync | Phase::RollbackVerify)
            }
            Command::Pause => !self.phase.is_over() && !self.paused,
            Command::Resume => self.paused,
            Command::Complete => self.phase == Phase::Drain,
        };
        if allowed { Ok(()) } else { Err(NotNow { command, phase: self.phase }) }
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
            Command::Rollback => self.roll_back(now, "an operator asked for it", out),
            Command::Pause => {
                self.paused = true;
                self.waiting_for = "an operator to resume it".to_owned();
                out.extend([Effect::Persist, Effect::PauseLink]);
            }
            Command::Resume => {
                self.paused = false;
                out.extend([Effect::Persist, Effect::ResumeLink]);
                self.step_under_way = None;
                self.enter(now, self.phase, out);
            }
            Command::Complete => self.go(now, Phase::Complete, out),
        }
    }

    fn done(&mut self, now: Timestamp, step: Step, report: &Report, out: &mut Vec<Effect>) {
        if self.step_under_way != Some(step) {
            return;
        }
        self.step_under_way = None;
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
            (Phase::RollbackVerify, Step::FinalVerify) if report.ok => self.go(now, Phase::RolledBack, out),
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

    fn observed(&mut self, now: Timestamp, seen: Observation, out: &mut Vec<Effect>) {
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
            Phase::Drain => self.waiting_for = in_the_way.unwrap_or_else(|| "the word to complete it, or to roll back".to_owned()),
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
                self.deadline_ms = self.phase.patience().map(|patience| (now + patience).unix_millis());
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
        self.deadline_ms = phase.patience().map(|patience| (now + patience).unix_millis());
        self.waiting_for.clear();
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
            self.deadline_ms = phase.patience().map(|patience| (now + patience).unix_millis());
        }
        match phase {
            Phase::Snapshot => out.push(Effect::ResumeLink),
            Phase::Switch => out.push(Effect::TakeFromB),
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
mod tests {
    use super::*;

    struct Run {
        migration: Migration,
        now: Timestamp,
        effects: Vec<Effect>,
    }

    fn run() -> Run {
        let now = Timestamp::from_unix_millis(1_000);
        let mut run = Run { migration: Migration::new(Plan::of("l"), now), now, effects: Vec::new() };
        run.input(Input::Begin);
        run
    }

    const CALM_LINK: Observation =
        Observation { live: true, settled: true, lag_p99_ms: 3.0, open_conflicts: 0, held_deletes: 0, blocked: 0, halted: false };

    impl Run {
        fn input(&mut self, input: Input) {
            self.effects.clear();
            self.migration.step(self.now, input, &mut self.effects);
            // As the driver does it: what is persisted is what goes on after a crash.
            let kept = format!("{:?}", self.migration);
            assert!(!kept.is_empty());
        }

        fn done(&mut self, step: Step, ok: bool) {
            self.input(Input::Done(step, Report { ok, text: format!("{step:?} {ok}"), finished: false }));
        }

        fn wait(&mut self, seconds: u64, seen: Observation) {
            for _ in 0..seconds * 2 {
                self.now = self.now + Duration::from_millis(500);
                self.input(Input::Observed(seen));
            }
        }

        fn until_ready(&mut self) {
            self.done(Step::Prepare, true);
            self.wait(7, CALM_LINK);
            self.done(Step::Verify, true);
            self.wait(2, CALM_LINK);
            self.done(Step::Verify, true);
            assert_eq!(self.migration.phase, Phase::Ready);
        }

        fn until_switch(&mut self) {
            self.until_ready();
            self.input(Input::Command(Command::Cutover));
            self.done(Step::Freeze, true);
            self.wait(1, CALM_LINK);
            self.done(Step::Align, true);
            self.done(Step::FinalVerify, true);
            assert_eq!(self.migration.phase, Phase::Switch);
        }
    }

    #[test]
    fn a_migration_goes_from_the_first_look_to_the_last() {
        let mut run = run();
        run.until_switch();
        run.done(Step::Switch, true);
        assert!(run.migration.waiting_for.contains("advance"));
        run.input(Input::Command(Command::Advance));
        for _ in 0..8 {
            run.done(Step::Confirm, true);
            run.wait(1, CALM_LINK);
        }
        assert_eq!(run.migration.phase, Phase::Drain);
        run.input(Input::Command(Command::Complete));
        assert_eq!(run.effects, [Effect::Persist, Effect::StopLink, Effect::Do(Step::CleanUp)]);
        assert!(run.migration.allows(Command::Rollback).is_err(), "there is no way back from here");
    }

    #[test]
    fn nothing_is_cut_over_before_it_is_ready_nor_while_something_is_in_the_way() {
        let mut run = run();
        assert!(run.migration.allows(Command::Cutover).is_err());
        run.input(Input::Command(Command::Cutover));
        assert_eq!(run.migration.phase, Phase::Prepare);
        run.done(Step::Prepare, true);
        run.wait(20, Observation { open_conflicts: 2, blocked: 1, ..CALM_LINK });
        assert_eq!(run.migration.phase, Phase::CatchUp);
        assert_eq!(run.migration.waiting_for, "2 open conflicts, 1 paths that cannot be copied");
    }

    #[test]
    fn a_blocker_found_at_first_holds_it_there() {
        let mut run = run();
        run.done(Step::Prepare, false);
        run.wait(1, CALM_LINK);
        assert_eq!(run.migration.phase, Phase::Prepare);
        run.wait(3, CALM_LINK);
        assert_eq!(run.migration.step_under_way, Some(Step::Prepare), "it looks again");
    }

    #[test]
    fn a_write_after_the_freeze_or_a_difference_lets_the_writers_go_on() {
        for failing in [Step::Freeze, Step::Align, Step::FinalVerify] {
            let mut run = run();
            run.until_ready();
            run.input(Input::Command(Command::Cutover));
            for step in [Step::Freeze, Step::Align, Step::FinalVerify] {
                run.done(step, step != failing);
                if step == failing {
                    break;
                }
                run.wait(1, CALM_LINK);
            }
            assert_eq!(run.migration.phase, Phase::Verify, "{failing:?}");
            assert!(run.effects.contains(&Effect::Do(Step::Unfreeze)), "{failing:?}");
            assert!(!run.effects.contains(&Effect::TakeFromB), "{failing:?}");
        }
    }

    #[test]
    fn a_step_that_takes_too_long_is_rolled_back_by_itself() {
        let mut run = run();
        run.until_ready();
        run.input(Input::Command(Command::Cutover));
        run.done(Step::Freeze, true);
        run.wait(32, Observation { settled: false, ..CALM_LINK });
        assert_eq!(run.migration.phase, Phase::Verify);
        assert!(run.migration.history.iter().any(|note| note.text.contains("final_sync took too long")));
    }

    #[test]
    fn after_the_switch_the_way_back_carries_what_was_written_since() {
        let mut run = run();
        run.until_switch();
        run.done(Step::Switch, true);
        run.input(Input::Command(Command::Rollback));
        assert_eq!(run.migration.phase, Phase::RollbackFreeze);
        run.done(Step::Freeze, true);
        run.wait(1, Observation { settled: false, ..CALM_LINK });
        assert_eq!(run.migration.phase, Phase::RollbackSync);
        run.wait(1, CALM_LINK);
        run.done(Step::FinalVerify, false);
        assert_eq!(run.migration.phase, Phase::RollbackVerify, "never back to a state that is not proved");
        run.wait(3, CALM_LINK);
        run.done(Step::FinalVerify, true);
        assert_eq!(run.migration.phase, Phase::RolledBack);
        assert_eq!(run.effects, [Effect::Persist, Effect::TakeFromA, Effect::Do(Step::Unfreeze), Effect::PauseLink]);
    }

    #[test]
    fn a_restart_does_the_phase_again_from_its_beginning() {
        let mut run = run();
        run.until_switch();
        run.input(Input::Begin);
        assert_eq!(run.effects, [Effect::TakeFromB, Effect::Do(Step::Switch)]);
    }

    #[test]
    fn a_paused_migration_does_nothing_until_it_is_resumed() {
        let mut run = run();
        run.done(Step::Prepare, true);
        run.input(Input::Command(Command::Pause));
        assert_eq!(run.effects, [Effect::Persist, Effect::PauseLink]);
        run.wait(20, CALM_LINK);
        assert_eq!(run.migration.phase, Phase::Snapshot);
        run.input(Input::Command(Command::Resume));
        run.wait(1, CALM_LINK);
        assert_eq!(run.migration.phase, Phase::CatchUp);
    }
}
