use super::*;
use crate::node::PerSide;

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

const CALM_LINK: Observation = Observation {
    live: true,
    settled: true,
    lag_p99_ms: 3.0,
    open_conflicts: 0,
    held_deletes: 0,
    blocked: 0,
    drifting: 0,
    connected: PerSide { a: true, b: true },
    both: false,
    halted: false,
};

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
    run.done(Step::LastLook, true);
    run.input(Input::Command(Command::Complete));
    assert_eq!(run.effects, [Effect::Do(Step::LastLook)]);
    run.done(Step::LastLook, true);
    assert_eq!(run.effects, [Effect::Do(Step::LastVerify)], "what was written on A since is on no other");
    run.done(Step::LastVerify, true);
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
        assert_eq!(run.effects, [Effect::Persist, Effect::Do(Step::Unfreeze)], "{failing:?}: it is known before it is done");
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
    assert_eq!(run.effects, [Effect::Persist, Effect::TakeFromA, Effect::Do(Step::SwitchBack)]);
    run.done(Step::SwitchBack, false);
    run.wait(3, CALM_LINK);
    run.done(Step::SwitchBack, true);
    // Nobody was asked to move the clients: somebody must.
    run.wait(3_600, Observation { drifting: 2, ..CALM_LINK });
    assert_eq!(run.migration.phase, Phase::RollbackSwitch);
    assert!(run.migration.waiting_for.contains("`advance`; 2 znodes were written on B since"), "{}", run.migration.waiting_for);
    run.input(Input::Command(Command::Advance));
    assert_eq!(run.effects, [Effect::Persist, Effect::Do(Step::ConfirmBack)]);
    run.done(Step::ConfirmBack, false);
    run.wait(3, CALM_LINK);
    assert_eq!((run.migration.phase, run.migration.step_under_way), (Phase::RollbackSwitch, Some(Step::ConfirmBack)));
    run.done(Step::ConfirmBack, true);
    assert_eq!(run.migration.phase, Phase::RolledBack);
    assert_eq!(run.effects, [Effect::Persist, Effect::TakeFromA, Effect::PauseLink, Effect::Do(Step::Unfreeze)]);
    run.done(Step::Unfreeze, true);
    // What is over is only shown.
    run.input(Input::Begin);
    assert_eq!(run.effects, []);
    assert!(run.migration.is_finished());
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

#[test]
fn a_cutover_waits_for_what_nobody_has_decided() {
    let mut run = run();
    run.until_ready();
    run.wait(1, Observation { open_conflicts: 1, blocked: 2, ..CALM_LINK });
    let refused = run.migration.allows(Command::Cutover).unwrap_err().to_string();
    assert_eq!(refused, "Cutover is not possible yet: 1 open conflicts, 2 paths that cannot be copied");
    run.input(Input::Command(Command::Cutover));
    assert_eq!(run.migration.phase, Phase::Ready);
    run.wait(1, CALM_LINK);
    run.input(Input::Command(Command::Cutover));
    assert_eq!(run.migration.phase, Phase::Freeze);
}

#[test]
fn there_is_a_way_back_until_nobody_is_there_and_nothing_waits() {
    let mut run = run();
    run.until_switch();
    run.done(Step::Switch, true);
    run.input(Input::Command(Command::Advance));
    for _ in 0..8 {
        run.done(Step::Confirm, true);
        run.wait(1, CALM_LINK);
    }
    // It goes on looking, and tells.
    run.done(Step::LastLook, false);
    run.wait(1, CALM_LINK);
    assert_eq!(run.migration.waiting_for, "LastLook false");
    assert!(run.migration.allows(Command::Complete).unwrap_err().to_string().contains("LastLook false"));
    run.wait(11, CALM_LINK);
    assert_eq!(run.migration.step_under_way, Some(Step::LastLook));
    run.done(Step::LastLook, true);
    // Somebody has come back, or something has happened since: the last look counts.
    for (there, equal, seen) in [
        (false, true, CALM_LINK),
        (true, false, CALM_LINK),
        (true, true, Observation { settled: false, ..CALM_LINK }),
        (true, true, Observation { open_conflicts: 1, ..CALM_LINK }),
        (true, true, Observation { drifting: 1, ..CALM_LINK }),
    ] {
        run.wait(1, CALM_LINK);
        run.migration.still_there = None;
        run.input(Input::Command(Command::Complete));
        run.input(Input::Observed(seen));
        run.done(Step::LastLook, there);
        run.done(Step::LastVerify, equal);
        assert_eq!(run.migration.phase, Phase::Drain, "{there} {equal} {seen:?}");
        assert!(!run.migration.completing && run.migration.history.last().unwrap().text.starts_with("not completed: "));
    }
}

#[test]
fn the_clock_stands_while_it_is_paused_and_the_way_back_does_not_wait() {
    let mut run = run();
    run.until_ready();
    run.input(Input::Command(Command::Cutover));
    run.input(Input::Command(Command::Pause));
    run.done(Step::Freeze, true);
    assert_eq!(run.migration.phase, Phase::Freeze, "what ends meanwhile is done again");
    run.wait(3_600, CALM_LINK);
    run.input(Input::Command(Command::Resume));
    assert!(run.effects.contains(&Effect::Do(Step::Freeze)));
    run.wait(20, CALM_LINK);
    assert_eq!(run.migration.phase, Phase::Freeze, "it has as long as it had");
    run.wait(12, CALM_LINK);
    assert_eq!(run.migration.phase, Phase::Verify);

    let mut run = self::run();
    run.until_switch();
    run.done(Step::Switch, true);
    run.input(Input::Command(Command::Pause));
    run.input(Input::Begin);
    assert!(run.effects.contains(&Effect::PauseLink), "a link that was made anew is paused as well");
    run.input(Input::Command(Command::Rollback));
    assert!(!run.migration.paused && run.effects.contains(&Effect::ResumeLink) && run.effects.contains(&Effect::Do(Step::Freeze)));
}

fn with(plan: impl Fn(&mut Plan)) -> Run {
    let mut run = run();
    plan(&mut run.migration.plan);
    run
}

/// Clients that only an operator can move back are not left behind by a clock.
#[test]
fn without_hooks_nothing_goes_back_by_itself_after_the_switch() {
    let mut run = run();
    run.until_switch();
    assert_eq!(run.migration.deadline_ms, None);
    run.done(Step::Switch, true);
    run.wait(3_600, CALM_LINK);
    assert_eq!(run.migration.phase, Phase::Switch, "who moves clients by hand takes as long as it takes");
    run.input(Input::Command(Command::Advance));
    for _ in 0..400 {
        run.done(Step::Confirm, false);
        run.wait(1, CALM_LINK);
    }
    assert_eq!(run.migration.phase, Phase::Confirm);
    assert!(run.migration.history.iter().any(|note| note.text.contains("confirm took too long")), "it is told");

    let mut run = with(|plan| (plan.switch_hook, plan.switch_back_hook) = (Some("s".to_owned()), Some("b".to_owned())));
    run.until_switch();
    run.wait(122, CALM_LINK);
    assert_eq!(run.migration.phase, Phase::RollbackFreeze, "a hook that does not answer, and one that can take it back");
}

#[test]
fn a_hook_that_failed_is_called_again() {
    let mut run = with(|plan| plan.switch_hook = Some("s".to_owned()));
    run.until_switch();
    for _ in 0..3 {
        run.done(Step::Switch, false);
        assert_eq!(run.migration.waiting_for, "Switch false");
        run.wait(11, CALM_LINK);
        assert_eq!(run.migration.step_under_way, Some(Step::Switch));
    }
    run.input(Input::Done(Step::Switch, Report { ok: true, text: "moved".to_owned(), finished: true }));
    assert_eq!(run.migration.phase, Phase::Confirm);
}

/// The writers stand still until they are let go on: that is done whatever happens, and never before what stops them has ended.
#[test]
fn the_writers_are_let_go_on_until_that_has_succeeded() {
    let mut run = run();
    run.until_ready();
    run.input(Input::Command(Command::Cutover));
    run.wait(32, CALM_LINK);
    assert_eq!(run.migration.phase, Phase::Verify, "the hook has not answered for as long as the phase may take");
    assert!(!run.effects.contains(&Effect::Do(Step::Unfreeze)) && run.migration.owed == [Step::Unfreeze]);
    run.done(Step::Freeze, true);
    run.wait(1, CALM_LINK);
    assert_eq!(run.migration.running, [Step::Unfreeze]);
    run.done(Step::Unfreeze, false);
    assert_eq!(run.effects, [Effect::Persist]);
    assert!(run.migration.waiting_for.contains("the writers to be let go on; Unfreeze false"), "{}", run.migration.waiting_for);
    // The process dies, and another one goes on.
    run.input(Input::Begin);
    let mut tries = 0;
    for _ in 0..300 {
        run.wait(1, CALM_LINK);
        match run.migration.running.first().copied() {
            Some(Step::Unfreeze) => {
                tries += 1;
                run.done(Step::Unfreeze, false);
            }
            Some(step) => run.done(step, true),
            None => {}
        }
    }
    assert!((6..12).contains(&tries), "{tries} in five minutes");
    assert_eq!(run.migration.phase, Phase::Ready);
    assert!(run.migration.allows(Command::Cutover).unwrap_err().to_string().contains("let go on"), "stopped, and then let go on");
    run.wait(61, CALM_LINK);
    run.done(Step::Unfreeze, true);
    assert!(run.migration.owed.is_empty() && run.migration.allows(Command::Cutover).is_ok());
}

#[test]
fn what_was_written_on_the_old_ensemble_since_keeps_it_and_force_gives_it_up() {
    let mut run = run();
    run.until_switch();
    run.done(Step::Switch, true);
    run.input(Input::Command(Command::Advance));
    assert!(run.migration.allows(Command::CompleteForced).is_ok(), "A may be gone by now");
    let drift = Observation { drifting: 3, ..CALM_LINK };
    for _ in 0..20 {
        run.done(Step::Confirm, true);
        run.wait(1, drift);
    }
    assert_eq!(run.migration.phase, Phase::Confirm);
    assert!(run.migration.waiting_for.starts_with("3 znodes that were written on A since"), "{}", run.migration.waiting_for);
    run.done(Step::Confirm, true);
    for _ in 0..8 {
        run.wait(1, CALM_LINK);
        run.done(Step::Confirm, true);
    }
    assert_eq!(run.migration.phase, Phase::Drain);
    run.done(Step::LastLook, true);
    let gone = Observation { settled: false, live: false, connected: PerSide { a: false, b: true }, ..CALM_LINK };
    run.wait(1, gone);
    let refused = run.migration.allows(Command::Complete).unwrap_err().to_string();
    assert_eq!(refused, "Complete is not possible yet: A is not reached");
    run.input(Input::Command(Command::CompleteForced));
    assert_eq!(run.migration.phase, Phase::Complete);
    assert!(run.effects.contains(&Effect::StopLink));
    assert!(run.migration.history.iter().any(|note| note.text == "completed by force; in the way: A is not reached"));
    assert_eq!(run.migration.owed, [Step::CleanUp]);
    run.done(Step::CleanUp, false);
    assert!(!run.migration.is_finished() && run.migration.waiting_for.contains("to be removed from both"));
}

#[test]
fn what_reads_everything_is_not_repeated_at_once_when_it_fails() {
    let mut run = run();
    let mut looks = 0;
    for _ in 0..600 {
        if run.migration.running == [Step::Prepare] {
            looks += 1;
            run.done(Step::Prepare, false);
        }
        run.wait(1, CALM_LINK);
    }
    assert!((8..16).contains(&looks), "{looks} in ten minutes");
}

#[test]
fn how_long_it_takes_is_told_by_how_long_it_took() {
    let mut run = run();
    let pace = |backlog, carried_per_second| Pace { backlog, carried_per_second, comparison_ms: Some(4_000) };
    let told = |run: &Run, pace: Pace| run.migration.outlook(run.now, &pace);
    let seconds = |seconds_left| Outlook { seconds_left, waits_for_operator: false };
    assert_eq!(told(&run, pace(0, 0.0)), seconds(None));
    run.done(Step::Prepare, true);
    run.wait(1, Observation { settled: false, ..CALM_LINK });
    run.wait(1, CALM_LINK);
    assert_eq!(run.migration.phase, Phase::CatchUp);
    run.migration.calm_since_ms = None;
    assert_eq!(told(&run, pace(1_000, 100.0)), seconds(Some(15)));
    assert_eq!(told(&run, pace(1_000, 0.0)), seconds(None), "nothing tells");
    run.wait(7, CALM_LINK);
    assert_eq!((run.migration.phase, told(&run, pace(0, 0.0))), (Phase::Verify, seconds(Some(8))));
    run.done(Step::Verify, true);
    assert_eq!(told(&run, pace(0, 0.0)), seconds(Some(4)));
    run.wait(2, CALM_LINK);
    run.done(Step::Verify, true);
    assert_eq!(told(&run, pace(0, 0.0)), Outlook { seconds_left: None, waits_for_operator: true });
}

#[test]
fn the_plan_says_how_long_a_phase_may_take() {
    let mut run = run();
    run.migration.plan.deadlines.final_sync = 5;
    run.until_ready();
    run.input(Input::Command(Command::Cutover));
    run.done(Step::Freeze, true);
    run.wait(6, Observation { settled: false, ..CALM_LINK });
    assert_eq!(run.migration.phase, Phase::Verify);
}

/// A comparison of both ensembles takes minutes where they are large.
#[test]
fn writers_do_not_wait_for_a_comparison_that_is_under_way() {
    let mut run = run();
    run.until_ready();
    run.input(Input::Command(Command::Cutover));
    run.done(Step::Freeze, true);
    run.wait(1, CALM_LINK);
    run.done(Step::Align, true);
    run.wait(62, CALM_LINK);
    assert_eq!(run.migration.phase, Phase::Verify, "it took too long");
    assert_eq!(run.migration.running, [Step::FinalVerify, Step::Unfreeze]);
    run.done(Step::Unfreeze, true);
    assert_eq!((run.migration.owed.len(), run.migration.running.as_slice()), (0, [Step::FinalVerify].as_slice()));
    run.done(Step::FinalVerify, true);
    run.wait(1, CALM_LINK);
    assert_eq!((run.migration.phase, run.migration.running.as_slice()), (Phase::Verify, [Step::Verify].as_slice()));
}

#[test]
fn what_is_owed_goes_over_to_the_next_migration() {
    let mut run = run();
    run.migration.owed = vec![Step::Unfreeze];
    run.input(Input::Command(Command::Rollback));
    run.done(Step::Unfreeze, false);
    assert!(run.migration.phase.is_over() && !run.migration.is_finished());
    run.migration = run.migration.followed_by(Plan::of("l"), run.now);
    run.input(Input::Begin);
    assert_eq!((run.migration.phase, run.effects.as_slice()), (Phase::Prepare, [Effect::Do(Step::Unfreeze)].as_slice()));
}

/// The version before did not keep it, but told the link each time that it began.
#[test]
fn the_link_of_a_migration_that_was_rolled_back_long_ago_is_paused_once() {
    let mut run = run();
    run.input(Input::Command(Command::Rollback));
    assert_eq!(run.effects, [Effect::Persist, Effect::TakeFromA, Effect::PauseLink]);
    run.input(Input::Begin);
    assert_eq!(run.effects, []);
    run.migration.pause_kept = false;
    run.input(Input::Begin);
    assert_eq!(run.effects, [Effect::TakeFromA, Effect::PauseLink, Effect::Persist, Effect::Do(Step::Unfreeze)]);
    run.done(Step::Unfreeze, true);
    run.input(Input::Begin);
    assert_eq!(run.effects, [], "an operator may have resumed it");
}

/// When nothing can be proved, or the link carries nothing any more, the clients must be able to go back all the same.
#[test]
fn the_way_back_can_be_gone_by_force() {
    for phase in [Phase::RollbackFreeze, Phase::RollbackSync, Phase::RollbackVerify] {
        let mut run = run();
        run.until_switch();
        run.done(Step::Switch, true);
        assert!(run.migration.allows(Command::AdvanceForced).is_err());
        run.input(Input::Command(Command::Rollback));
        if phase != Phase::RollbackFreeze {
            run.done(Step::Freeze, true);
        }
        if phase == Phase::RollbackVerify {
            run.wait(1, CALM_LINK);
            run.done(Step::FinalVerify, false);
        }
        let stopped = Observation { live: false, settled: false, halted: true, ..CALM_LINK };
        run.wait(1, stopped);
        assert_eq!(run.migration.phase, phase);
        run.input(Input::Command(Command::AdvanceForced));
        assert_eq!(run.migration.phase, Phase::RollbackSwitch, "from {phase:?}");
        assert!(run.effects.contains(&Effect::TakeFromA));
        let told = "by force; in the way: the link, which has stopped by itself";
        assert!(run.migration.history.iter().any(|note| note.text == told && note.phase == phase));
        // Where the writers were still being stopped, that ends first.
        run.done(Step::Freeze, false);
        run.wait(1, stopped);
        assert_eq!(run.migration.running, [Step::SwitchBack], "from {phase:?}");
        run.done(Step::SwitchBack, true);
        run.input(Input::Command(Command::Advance));
        run.done(Step::ConfirmBack, true);
        assert_eq!(run.migration.phase, Phase::RolledBack);
    }
}
