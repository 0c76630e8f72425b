//! Phases, plans, steps, and what is told of them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::node::PerSide;

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
    /// The direction is turned round again, and the clients are moved back.
    RollbackSwitch,
    /// Over: the old ensemble is the one that counts.
    RolledBack,
}

impl Phase {
    /// All, in order.
    pub const ALL: [Phase; 18] = [
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
        Phase::RollbackSwitch,
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
            Phase::RollbackSwitch => "rollback_switch",
            Phase::RolledBack => "rolled_back",
        }
    }

    /// Whether the writers are stopped on the old ensemble, and nothing has been turned round yet.
    pub(super) fn is_before_switch(self) -> bool {
        matches!(self, Phase::Freeze | Phase::FinalSync | Phase::Align | Phase::FinalVerify)
    }

    /// Whether the new ensemble is the one that counts.
    pub fn is_after_switch(self) -> bool {
        matches!(self, Phase::Switch | Phase::Confirm | Phase::Drain | Phase::RollbackFreeze | Phase::RollbackSync | Phase::RollbackVerify)
    }

    /// Whether the writers of the new ensemble are being stopped, or are, and the new ensemble still counts.
    pub(super) fn is_way_back(self) -> bool {
        matches!(self, Phase::RollbackFreeze | Phase::RollbackSync | Phase::RollbackVerify)
    }

    /// Whether nothing follows.
    pub fn is_over(self) -> bool {
        matches!(self, Phase::Complete | Phase::RolledBack)
    }
}

/// How many seconds each phase may take. Before the switch what takes longer is rolled back by itself, and after it, when a hook can move the clients
/// back; elsewhere it is told, and goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Deadlines {
    /// The first look.
    pub prepare: u64,
    /// The first copy.
    pub snapshot: u64,
    /// Until nothing waits.
    pub catch_up: u64,
    /// Until both sides are equal twice in a row.
    pub verify: u64,
    /// To stop the writers, and to prove that they have stopped.
    pub freeze: u64,
    /// To carry the last changes.
    pub final_sync: u64,
    /// To align counters and kinds.
    pub align: u64,
    /// To compare both sides with no tolerance.
    pub final_verify: u64,
    /// To move the clients.
    pub switch: u64,
    /// Until nobody talks to the old ensemble any more, and the new one answers.
    pub confirm: u64,
    /// What the freeze may take on the way back.
    pub rollback_freeze: u64,
    /// What the last changes may take on the way back.
    pub rollback_sync: u64,
    /// What the comparison may take on the way back.
    pub rollback_verify: u64,
    /// What moving the clients back may take.
    pub rollback_switch: u64,
    /// What a call of a hook may take.
    pub hook: u64,
}

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines {
            prepare: 600,
            snapshot: 24 * 3_600,
            catch_up: 24 * 3_600,
            verify: 3_600,
            freeze: 30,
            final_sync: 30,
            align: 30,
            final_verify: 60,
            switch: 120,
            confirm: 300,
            rollback_freeze: 30,
            rollback_sync: 30,
            rollback_verify: 60,
            rollback_switch: 120,
            hook: 20,
        }
    }
}

impl Deadlines {
    /// How long `phase` may take; without end where somebody's word is waited for.
    pub(super) fn of(&self, phase: Phase) -> Option<Duration> {
        let seconds = match phase {
            Phase::Prepare => self.prepare,
            Phase::Snapshot => self.snapshot,
            Phase::CatchUp => self.catch_up,
            Phase::Verify => self.verify,
            Phase::Freeze => self.freeze,
            Phase::FinalSync => self.final_sync,
            Phase::Align => self.align,
            Phase::FinalVerify => self.final_verify,
            Phase::Switch => self.switch,
            Phase::Confirm => self.confirm,
            Phase::RollbackFreeze => self.rollback_freeze,
            Phase::RollbackSync => self.rollback_sync,
            Phase::RollbackVerify => self.rollback_verify,
            Phase::RollbackSwitch => self.rollback_switch,
            Phase::Ready | Phase::Drain | Phase::Complete | Phase::RolledBack => return None,
        };
        Some(Duration::from_secs(seconds))
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
    /// Called when the clients are to be moved back to the old ensemble; without it somebody moves them and says `advance`, and no phase after the
    /// switch goes back by itself.
    #[serde(default)]
    pub switch_back_hook: Option<String>,
    /// A file with a token that hooks are called with (`Authorization: Bearer`).
    #[serde(default)]
    pub hook_token_file: Option<String>,
    /// How far the target's sequence counters are put beyond the source's.
    #[serde(default = "margin")]
    pub sequence_margin: u32,
    /// How long each phase may take.
    #[serde(default)]
    pub deadlines: Deadlines,
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
            switch_back_hook: None,
            hook_token_file: None,
            sequence_margin: margin(),
            deadlines: Deadlines::default(),
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
    /// Call the hook that moves the clients back.
    SwitchBack,
    /// Ask who talks to the old ensemble, and whether the new one answers.
    Confirm,
    /// Ask who talks to the old ensemble, while there is still a way back.
    LastLook,
    /// Compare both sides while they live, before there is no way back: what was written on the old ensemble since is on no other.
    LastVerify,
    /// Ask who talks to the new ensemble, and compare both sides while they live, before the way back counts as gone.
    ConfirmBack,
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
    /// Znodes that were changed on the side that nothing is taken from.
    pub drifting: usize,
    /// Which sides are reached.
    pub connected: PerSide<bool>,
    /// Changes are taken from both sides.
    pub both: bool,
    /// The link has stopped by itself.
    pub halted: bool,
}

/// What an operator says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Cut over, now that it is ready.
    Cutover,
    /// What was waited for is done: the clients are moved, or moved back.
    Advance,
    /// The same on the way back, whatever stands in the way: what is on the new ensemble alone is given up.
    AdvanceForced,
    /// Go back.
    Rollback,
    /// Do nothing further for now.
    Pause,
    /// Go on.
    Resume,
    /// There is to be no way back any more.
    Complete,
    /// The same, whatever stands in the way: what is on the old ensemble alone is given up.
    CompleteForced,
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// What stands in the way right now, and what is owed; empty when nothing does.
    pub waiting_for: String,
    /// Steps that are to be done whatever the phase, the first one first: each is tried again until it succeeds.
    #[serde(default)]
    pub owed: Vec<Step>,
    /// What happened, the oldest first.
    pub history: Vec<Note>,
    /// When it was paused: milliseconds since 1970.
    #[serde(default)]
    pub(super) paused_at_ms: Option<u64>,
    /// Who was still there when it was last asked before there is no way back.
    #[serde(default)]
    pub(super) still_there: Option<String>,
    /// An operator wants no way back any more; it is being looked at once more.
    #[serde(default)]
    pub(super) completing: bool,
    /// How the link stood when it was last looked at.
    #[serde(skip)]
    pub(super) seen: Option<Observation>,
    pub(super) equal_in_a_row: u32,
    pub(super) calm_since_ms: Option<u64>,
    pub(super) step_under_way: Option<Step>,
    pub(super) retry_at_ms: u64,
    /// Failures of the phase's step in a row.
    #[serde(default)]
    pub(super) failures: u32,
    /// What the phase waits for.
    #[serde(default)]
    pub(super) phase_waits_for: String,
    /// Who moves the clients was asked, and has answered; without a hook somebody has been told to.
    #[serde(default)]
    pub(super) switch_answered: bool,
    /// The clients are moved back, as a hook or somebody says.
    #[serde(default)]
    pub(super) moved_back: bool,
    /// How often what is owed has failed in a row, why, and when it is tried again.
    #[serde(default)]
    pub(super) owed_failures: (u32, String, u64),
    /// It was rolled back, and the definition of its link says since then that it is paused.
    #[serde(default)]
    pub(super) pause_kept: bool,
    /// Steps that were asked for and have not ended: a hook that is being called is not overtaken by the next one.
    #[serde(skip)]
    pub(super) running: Vec<Step>,
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
    /// What stands in the way, when it is not the phase.
    pub why: Option<String>,
}

impl std::fmt::Display for NotNow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.why {
            Some(why) => write!(f, "{:?} is not possible yet: {why}", self.command),
            None => write!(f, "{:?} is not possible in the phase {}", self.command, self.phase.as_str()),
        }
    }
}
