//! What is decided, and in which words.

use std::time::Duration;

use autoscale::{Action, Autoscaler, Facts, Policy, Rule, Signal, Target, Why, Window};
use expect_test::{Expect, expect};

use crate::{at, facts, tracking};

const CONNECTIONS: Signal = Signal::ConnectionsPerSecond;

fn check(policy: &Policy, facts: &Facts, expected: &Expect) {
    let mut scaler = Autoscaler::new(at(0));
    let decision = scaler.decide(at(1_000), policy, facts);
    expected.assert_eq(&format!("{:?}: {}", decision.action, decision.reason));
}

#[test]
fn load_above_the_target_calls_for_more() {
    let policy = tracking(CONNECTIONS, 50.0);
    check(
        &policy,
        &facts(2, CONNECTIONS, &[Some(80.0), Some(86.4)]),
        &expect!["Scale(4): connectionsPerSecond is 83.2 on 2 instances, target 50: 4 needed; scaled from 2 to 4"],
    );
}

#[test]
fn a_step_is_limited_by_factor_and_number() {
    let mut policy = tracking(CONNECTIONS, 1.0);
    let load = facts(2, CONNECTIONS, &[Some(100.0), Some(100.0)]);
    check(&policy, &load, &expect!["Scale(4): connectionsPerSecond is 100 on 2 instances, target 1: 200 needed; scaled from 2 to 4"]);
    policy.up = Rule { max_factor: None, max_step: Some(1), ..policy.up };
    check(&policy, &load, &expect!["Scale(3): connectionsPerSecond is 100 on 2 instances, target 1: 200 needed; scaled from 2 to 3"]);
}

#[test]
fn near_the_target_nothing_is_done() {
    let policy = tracking(CONNECTIONS, 50.0);
    check(
        &policy,
        &facts(2, CONNECTIONS, &[Some(54.0), Some(52.0)]),
        &expect!["Hold(Steady): connectionsPerSecond is 53.0 on 2 instances, target 50: 2 needed"],
    );
}

#[test]
fn what_is_not_seen_keeps_from_shrinking_and_not_from_growing() {
    let policy = tracking(CONNECTIONS, 50.0);
    check(
        &policy,
        &facts(4, CONNECTIONS, &[Some(1.0), None, Some(1.0), Some(1.0)]),
        &expect![
            "Hold(Missing): connectionsPerSecond is 1.0 on 3 instances, 1 not seen, target 50: 2 needed; left at 4: nothing shrinks while not everything is seen"
        ],
    );
    check(
        &policy,
        &facts(4, CONNECTIONS, &[Some(200.0), None, Some(200.0), None]),
        &expect!["Scale(8): connectionsPerSecond is 200 on 2 instances, 2 not seen, target 50: 8 needed; scaled from 4 to 8"],
    );
    check(&policy, &facts(4, CONNECTIONS, &[None, None]), &expect!["Hold(Missing): connectionsPerSecond is not known of any instance"]);
}

#[test]
fn the_target_that_needs_most_decides_and_a_blind_one_keeps_from_shrinking() {
    let mut policy = tracking(CONNECTIONS, 50.0);
    policy.targets.push(Target { signal: Signal::Cpu, value: 0.5 });
    let mut load = facts(4, CONNECTIONS, &[Some(1.0); 4]);
    check(
        &policy,
        &load,
        &expect![
            "Hold(Missing): connectionsPerSecond is 1.0 on 4 instances, target 50: 1 needed; cpu is not known of any instance; left at 4: nothing shrinks while not everything is seen"
        ],
    );
    for it in &mut load.samples {
        it.values.insert(Signal::Cpu, 0.75);
    }
    check(
        &policy,
        &load,
        &expect![
            "Scale(6): connectionsPerSecond is 1.0 on 4 instances, target 50: 1 needed; cpu is 0.750 on 4 instances, target 0.5: 6 needed; scaled from 4 to 6"
        ],
    );
}

#[test]
fn a_dry_run_only_says_what_it_would_do() {
    let policy = Policy { dry_run: true, ..tracking(CONNECTIONS, 50.0) };
    check(
        &policy,
        &facts(1, CONNECTIONS, &[Some(90.0)]),
        &expect!["Hold(DryRun): connectionsPerSecond is 90.0 on 1 instances, target 50: 2 needed; would be scaled from 1 to 2"],
    );
}

#[test]
fn what_somebody_else_does_is_left_alone() {
    let policy = tracking(CONNECTIONS, 50.0);
    let load = facts(1, CONNECTIONS, &[Some(90.0)]);
    check(&policy, &Facts { deploying: true, ..load.clone() }, &expect!["Hold(Deploying): a deployment of the app runs"]);
    check(&policy, &Facts { instances: 0, ..load.clone() }, &expect!["Hold(Suspended): the app is suspended: its instances were set to 0"]);
    check(
        &policy,
        &Facts { failing: true, ..load.clone() },
        &expect![
            "Hold(Failing): connectionsPerSecond is 90.0 on 1 instances, target 50: 2 needed; left at 1: its instances keep failing, and more of them would fail, too"
        ],
    );
    check(
        &policy,
        &Facts { last_scaled: at(990), ..load },
        &expect![
            "Hold(Cooldown): connectionsPerSecond is 90.0 on 1 instances, target 50: 2 needed; left at 1: the number was changed 10 s ago, and is left alone for 30 s"
        ],
    );
}

#[test]
fn new_instances_are_not_counted_upon() {
    let policy = tracking(CONNECTIONS, 50.0);
    let mut load = facts(2, CONNECTIONS, &[Some(60.0), Some(0.0)]);
    load.samples[1].age = Duration::from_secs(3);
    check(&policy, &load, &expect!["Hold(Steady): connectionsPerSecond is 60.0 on 1 instances, 1 not seen, target 50: 2 needed"]);
}

#[test]
fn the_schedule_moves_the_bounds() {
    let window = Window { name: "office".to_owned(), days: [true; 7], from: 0, to: 60, utc_offset: 0, min: Some(5), max: None };
    let policy = Policy { schedule: vec![window], ..Policy::new(1, 10) };
    let mut scaler = Autoscaler::new(at(0));
    let idle = facts(1, CONNECTIONS, &[]);
    let open = scaler.decide(at(60), &policy, &idle);
    assert_eq!(
        (open.action, open.reason.as_str()),
        (Action::Scale(5), "1 instances are beyond min 5 of the window \"office\"; scaled from 1 to 5")
    );
    let closed = scaler.decide(at(3_700), &policy, &Facts { instances: 5, ..idle });
    assert_eq!((closed.action, closed.reason.as_str()), (Action::Hold(Why::Steady), "only the schedule decides"));
}

#[test]
fn shrinking_waits_until_all_of_the_window_agrees() {
    let policy = tracking(CONNECTIONS, 50.0);
    let mut scaler = Autoscaler::new(at(0));
    let mut told = Vec::new();
    for step in 0..30 {
        // A peak at 90 s that needs three.
        let load = if step == 6 { 30.0 } else { 10.0 };
        let decision = scaler.decide(at(step * 15), &policy, &facts(5, CONNECTIONS, &[Some(load); 5]));
        if told.last().is_none_or(|(_, action)| *action != decision.action) {
            told.push((step * 15, decision.action));
        }
    }
    let stabilizing = Action::Hold(Why::Stabilizing);
    assert_eq!(told, [(0, stabilizing), (300, Action::Scale(3)), (405, Action::Scale(1))]);
}
