use expect_test::{Expect as Expected, expect};
use scheduler::Input;
use scheduler::id::PathId;
use scheduler::mesos::TaskState;
use scheduler::model::health::{HealthCheck, PortRef, Probe};
use scheduler::model::{UnreachableStrategy, UpgradeStrategy};
use scheduler::words::{Answer, Edit, Refusal};

use crate::world::{World, app};

fn told(world: &mut World, expected: Expected) {
    let lines: String = world.log.drain(..).map(|line| line + "\n").collect();
    expected.assert_eq(&lines);
}

fn world() -> World {
    let mut world = World::new(1, 2);
    world.run(100);
    world.logging = true;
    world
}

fn planned(answer: Answer) {
    assert!(matches!(answer, Answer::Planned(_)), "{answer:?}");
}

#[test]
fn an_app_comes_is_replaced_and_goes() {
    let mut world = world();
    planned(world.put(app("/a", 1)));
    world.run(1_000);
    let mut other = app("/a", 1);
    other.cmd = Some("sleep 2".into());
    planned(world.put(other));
    world.run(1_000);
    planned(world.change(vec![Edit::Remove(PathId::absolute("/a"))], true));
    world.run(1_000);
    told(
        &mut world,
        expect![[r#"
            100    step 1 succeeded
            100    /a is Scheduled
            101    revive
            301    /a is Provisioned
            301    launch /a on h0
            301    decline 1 for 120 s
            301    suppress
            334    /a is Running
            334    step 2 succeeded
            334    deployment succeeded
            1100   /a is Scheduled
            1100   revive
            1101   /a is Provisioned
            1101   launch /a on h0
            1101   decline 1 for 120 s
            1101   suppress
            1151   /a is Running
            1151   kill a
            1181   /a is Killed
            1181   step 1 succeeded
            1181   deployment succeeded
            2100   kill a
            2130   /a is Killed
            2130   step 1 succeeded
            2130   deployment succeeded
        "#]],
    );
    assert_eq!(world.task_count(), 0);
}

#[test]
fn a_crash_loop_waits_longer_each_time() {
    let mut world = world();
    let mut crashing = app("/a", 1);
    crashing.backoff.factor = 2.0;
    world.fate.insert(PathId::absolute("/a"), (TaskState::Failed, 1));
    planned(world.put(crashing));
    world.run(20_000);
    let launches: Vec<u64> = world
        .log
        .iter()
        .filter(|line| line.contains("launch"))
        .map(|line| line.trim().split(' ').next().unwrap().parse().unwrap())
        .collect();
    let waits: Vec<u64> = launches.windows(2).map(|pair| (pair[1] - pair[0]) / 1_000).collect();
    assert!(waits.windows(2).all(|pair| pair[1] >= pair[0] * 2 - 1) && waits.len() >= 3, "{waits:?}");
}

#[test]
fn the_unhealthy_are_killed_on_the_failure_after_the_last_that_is_forgiven() {
    let mut world = world();
    let mut checked = app("/a", 1);
    let probe = Probe::Tcp { port: PortRef::Number(80), by_agent: false, ipv6: false };
    checked.health_checks =
        vec![HealthCheck { grace_period_seconds: 1, interval_seconds: 1, max_consecutive_failures: 2, ..HealthCheck::new(probe) }];
    planned(world.put(checked));
    world.run(3_000);
    assert!(world.core.view().deployments.is_empty());
    world.log.clear();
    world.sick.insert(PathId::absolute("/a"));
    world.run(3_000);
    world.sick.clear();
    world.run(4_000);
    told(
        &mut world,
        expect![[r#"
            5434   /a is unhealthy: connection refused
            5434   kill a
            5464   /a is Killed
            5464   /a is Scheduled
            5464   revive
            5501   /a is Provisioned
            5501   launch /a on h0
            5501   decline 1 for 120 s
            5501   suppress
            5551   /a is Running
        "#]],
    );
}

#[test]
fn a_locked_app_is_refused_unless_forced() {
    let mut world = world();
    let mut huge = app("/a", 1);
    huge.resources.cpus = 100.0;
    planned(world.put(huge.clone()));
    huge.resources.cpus = 0.1;
    let Answer::Refused(Refusal::Locked(ids)) = world.put(huge.clone()) else { panic!() };
    assert_eq!(ids.len(), 1);
    let spec = scheduler::model::spec::Spec::App(std::sync::Arc::new(huge));
    planned(world.change(vec![Edit::Put { spec, expect: scheduler::words::Expect::Anything }], true));
    world.run(1_000);
    assert!(world.core.view().deployments.is_empty());
    assert_eq!(world.task_count(), 1);
}

#[test]
fn a_deployment_that_is_deleted_is_rolled_back() {
    let mut world = world();
    planned(world.put(app("/a", 2)));
    world.run(1_000);
    let mut bad = app("/a", 2);
    bad.resources.cpus = 100.0;
    planned(world.put(bad));
    world.run(1_000);
    let id = world.core.view().deployments.keys().next().unwrap().clone();
    planned(world.ask(|ticket| Input::CancelDeployment { ticket, id, force: false }));
    world.run(2_000);
    let view = world.core.view();
    assert!(view.deployments.is_empty());
    assert!((view.root.spec(&PathId::absolute("/a")).unwrap().needs().cpus - 0.1).abs() < 1e-9);
    assert_eq!(world.task_count(), 2);
}

#[test]
fn what_is_out_of_reach_is_waited_for_as_long_as_it_says() {
    let mut world = world();
    let mut patient = app("/a", 2);
    patient.unreachable = UnreachableStrategy::Enabled { inactive_after_seconds: 10, expunge_after_seconds: 20 };
    planned(world.put(patient));
    world.run(1_000);
    let on_first = |world: &World| {
        world
            .core
            .view()
            .specs
            .values()
            .flat_map(|it| it.instances.values().cloned().collect::<Vec<_>>())
            .filter(|it| it.host() == Some("h0"))
            .count()
    };
    let lost = if on_first(&world) > 0 { 0 } else { 1 };
    world.lose_agent(lost);
    world.run(9_000);
    assert_eq!(world.core.view().specs.values().map(|it| it.instances.len()).sum::<usize>(), 2, "nothing is replaced yet");
    world.run(5_000);
    let counts = |world: &World| world.core.view().specs.values().map(|it| it.counts.running).sum::<u32>();
    assert_eq!(counts(&world), 2, "replaced");
    world.find_agent(lost);
    world.run(5_000);
    assert_eq!(counts(&world), 2, "what came back was too much");
    assert_eq!(world.task_count(), 2);
    assert!(world.strangers().is_empty());
}

#[test]
fn one_is_missing_or_one_is_too_many_when_the_strategy_leaves_no_room() {
    for (minimum, over) in [(1.0, 0.0), (0.5, 0.0), (0.0, 0.0), (1.0, 1.0), (0.7, 0.3)] {
        let mut world = world();
        let mut strategic = app("/a", 5);
        strategic.upgrade_strategy = UpgradeStrategy { minimum_health_capacity: minimum, maximum_over_capacity: over };
        planned(world.put(strategic.clone()));
        world.run(2_000);
        strategic.cmd = Some("sleep 7".into());
        planned(world.put(strategic));
        world.run(10_000);
        assert!(world.core.view().deployments.is_empty(), "{minimum} {over}");
        assert_eq!(world.task_count(), 5);
    }
}
