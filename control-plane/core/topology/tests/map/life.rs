//! What comes and goes: processes, probes, sessions, reports out of turn.

use std::time::Duration;

use base::Timestamp;
use expect_test::{Expect, expect};
use topology::*;

use crate::world::*;

#[track_caller]
fn check(world: &mut World, expected: Expect) {
    expected.assert_eq(&world.picture(View::Processes, Filter::NONE));
}

#[test]
fn what_ended_stays_for_the_window_and_then_leaves_by_itself() {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24"]);
    world.report("a", processes(vec![process(1, "curl")]));
    world.report("a", flows(vec![client(1, 1, "10.0.0.1", "93.184.216.34", 443)]));
    world.report("a", Report { processes_gone: vec![key(1)], flows_gone: vec![1], ..Report::default() });
    check(
        &mut world,
        expect![[r#"
            a;1 [curl | a (1)] -> out-theinternet
            out-theinternet [The Internet | Outbound connections]
            2 nodes, 1 real, 1 edges, 0 filtered
        "#]],
    );
    let deadline = world.map.next_deadline().unwrap();
    assert_eq!(deadline.since(world.now), WINDOW);
    let effects = world.pass(WINDOW);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Published { .. })), "{effects:?}");
    check(
        &mut world,
        expect![[r#"
            0 nodes, 0 real, 0 edges, 0 filtered
        "#]],
    );
}

#[test]
fn a_new_process_with_a_dead_ones_pid_takes_its_place_at_once() {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24"]);
    world.report("a", processes(vec![process(7, "old")]));
    world.report("a", flows(vec![client(1, 7, "10.0.0.1", "93.184.216.34", 443)]));
    world.snapshot(View::Processes, Filter::NONE);
    let mut reborn = process(7, "new");
    reborn.key.start_time += 10_000_000;
    world.report("a", processes(vec![reborn]));
    check(
        &mut world,
        expect![[r#"
            a;7 [new | a (7)]
            1 nodes, 1 real, 0 edges, 0 filtered
        "#]],
    );
    // Late news of the dead one are refused, and do not bring it back.
    assert_eq!(world.report("a", processes(vec![process(7, "old")])), Effect::Applied { records_refused: 1 });
    assert_eq!(world.snapshot(View::Processes, Filter::NONE).nodes.len(), 1);
}

#[test]
fn a_lost_probe_keeps_its_place_for_the_window_and_a_goodbye_gives_it_up() {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24"]);
    world.connect("b", &["10.0.0.2/24"]);
    world.report("a", processes(vec![process(1, "init")]));
    world.report("b", processes(vec![process(1, "init")]));
    world.disconnect("a", StreamEnd::Goodbye);
    world.disconnect("b", StreamEnd::Lost);
    check(
        &mut world,
        expect![[r#"
            b;1 [init | b (1)]
            1 nodes, 1 real, 0 edges, 0 filtered
        "#]],
    );
    world.pass(WINDOW - Duration::from_millis(1));
    assert_eq!(world.snapshot(View::Hosts, Filter::NONE).nodes.len(), 1);
    world.pass(Duration::from_millis(1));
    assert_eq!(world.snapshot(View::Hosts, Filter::NONE).nodes.len(), 0);
    assert_eq!(world.map.probes(), vec![]);
}

#[test]
fn a_probe_that_comes_back_in_time_goes_on_where_it_was() {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24"]);
    world.report("a", processes(vec![process(1, "init")]));
    world.disconnect("a", StreamEnd::Lost);
    world.pass(WINDOW / 2);
    let answer = world.hello("a", "a", "s1");
    assert!(matches!(answer, Effect::Admitted { resume_after_sequence: 2, .. }), "{answer:?}");
    world.pass(WINDOW * 2);
    assert_eq!(world.report("a", processes(vec![process(2, "sh")])), Effect::Applied { records_refused: 0 });
    assert_eq!(world.snapshot(View::Processes, Filter::NONE).nodes.len(), 2);
}

#[test]
fn a_probe_that_no_longer_holds_the_next_report_is_asked_for_a_snapshot() {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24"]);
    world.report("a", processes(vec![process(1, "init")]));
    for oldest_held_sequence in [0, 4] {
        let answer = world.hello_holding("a", "a", "s1", oldest_held_sequence);
        assert!(matches!(answer, Effect::Admitted { resume_after_sequence: 0, .. }), "{oldest_held_sequence}: {answer:?}");
    }
    let answer = world.hello_holding("a", "a", "s1", 2);
    assert!(matches!(answer, Effect::Admitted { resume_after_sequence: 2, .. }), "{answer:?}");
}

#[test]
fn reports_out_of_turn_are_refused_and_repeated_ones_change_nothing() {
    let mut world = World::new();
    world.hello("a", "a", "s1");
    let refused = world.report_numbered("a", 1, processes(vec![process(1, "x")]));
    assert_eq!(refused, Effect::ReportRefused { refusal: ReportRefusal::NoSnapshot });
    world.report_numbered("a", 1, Report { kind: ReportKind::SnapshotEnd, ..Report::default() });
    let gap = world.report_numbered("a", 3, processes(vec![process(1, "x")]));
    assert_eq!(gap, Effect::ReportRefused { refusal: ReportRefusal::Gap { expected: 2, found: 3 } });
    world.report_numbered("a", 2, processes(vec![process(1, "x")]));
    let repeated = world.report_numbered("a", 2, Report { processes_gone: vec![key(1)], ..Report::default() });
    assert_eq!(repeated, Effect::Applied { records_refused: 0 });
    assert_eq!(world.snapshot(View::Processes, Filter::NONE).nodes.len(), 1);
}

#[test]
fn a_snapshot_in_parts_replaces_what_it_does_not_name() {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24"]);
    world.report("a", processes(vec![process(1, "stays"), process(2, "goes")]));
    world.report("a", containers(vec![container("c1", "gone", "x")]));
    let part = Report { kind: ReportKind::SnapshotPart, processes: vec![process(1, "stays")], ..Report::default() };
    world.report("a", part);
    assert_eq!(world.snapshot(View::Processes, Filter::NONE).nodes.len(), 2, "nothing leaves before the snapshot is whole");
    world.report("a", Report { kind: ReportKind::SnapshotEnd, processes: vec![process(3, "new")], ..Report::default() });
    assert_eq!(world.snapshot(View::Containers, Filter::NONE).nodes.len(), 0, "a container leaves at once");
    world.pass(WINDOW);
    check(
        &mut world,
        expect![[r#"
            a;1 [stays | a (1)]
            a;3 [new | a (3)]
            2 nodes, 2 real, 0 edges, 0 filtered
        "#]],
    );
}

#[test]
fn flows_of_a_new_session_replace_those_of_the_old_one_without_a_gap() {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24"]);
    world.report("a", processes(vec![process(1, "curl")]));
    world.report("a", flows(vec![client(1, 1, "10.0.0.1", "93.184.216.34", 443), client(2, 1, "10.0.0.1", "93.184.216.35", 443)]));
    world.disconnect("a", StreamEnd::Lost);
    let answer = world.hello("a", "a", "s2");
    assert!(matches!(answer, Effect::Admitted { resume_after_sequence: 0, .. }));
    assert_eq!(world.map.flows(&FlowQuery { limit: 10, ..FlowQuery::default() }).flows.len(), 2);
    let snapshot = Report {
        kind: ReportKind::SnapshotEnd,
        processes: vec![process(1, "curl")],
        // The same number as one of the old session, for another end.
        flows: vec![client(2, 1, "10.0.0.1", "93.184.216.34", 443)],
        ..Report::default()
    };
    world.report("a", snapshot);
    let page = world.map.flows(&FlowQuery { limit: 10, ..FlowQuery::default() });
    let servers: Vec<String> = page.flows.iter().map(|flow| flow.server_address.to_string()).collect();
    assert_eq!(servers, ["93.184.216.34"]);
}

#[test]
fn a_newer_stream_of_a_probe_voids_the_older_one() {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24"]);
    let Effect::Admitted { stream: first, .. } = world.hello("a", "a", "s1") else { panic!("refused") };
    let Effect::Admitted { replaced, .. } = world.hello("a", "a", "s1") else { panic!("refused") };
    assert_eq!(replaced, Some(first));
    let stale = Input::Report { probe: arc("a"), stream: first, report: Box::new(Report { sequence: 9, ..Report::default() }) };
    let effects = world.step(stale);
    assert_eq!(effects, vec![Effect::ReportRefused { refusal: ReportRefusal::StaleStream }]);
    // The end of the void stream is not the end of the probe.
    world.step(Input::StreamEnded { probe: arc("a"), stream: first, end: StreamEnd::Goodbye });
    assert!(world.map.probes()[0].connected);
}

#[test]
fn two_probes_cannot_report_the_same_host_and_a_host_is_handed_over_when_its_probe_is_gone() {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24"]);
    let refused = world.hello("liar", "a", "s9");
    assert!(matches!(&refused, Effect::Refused { reason } if reason.contains("another probe")), "{refused:?}");
    let refused = world.hello("a", "b", "s9");
    assert!(matches!(&refused, Effect::Refused { reason } if reason.contains("is connected")), "{refused:?}");
    world.disconnect("a", StreamEnd::Lost);
    assert!(matches!(world.hello("heir", "a", "s1"), Effect::Admitted { resume_after_sequence: 0, .. }));
    assert_eq!(world.map.probes().len(), 1);
}

#[test]
fn a_container_of_another_host_cannot_be_claimed() {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24"]);
    world.connect("b", &["10.0.0.2/24"]);
    world.report("a", containers(vec![container("c1", "mine", "x")]));
    assert_eq!(world.report("b", containers(vec![container("c1", "stolen", "x")])), Effect::Applied { records_refused: 1 });
    world.report("b", Report { containers_gone: vec![arc("c1")], ..Report::default() });
    let containers = world.snapshot(View::Containers, Filter::NONE);
    assert_eq!(&*containers.nodes.iter().next().unwrap().1.summary().label, "mine");
    assert_eq!(world.map.probes()[1].counts.records_refused, 1);
}

#[test]
fn what_goes_beyond_the_limits_is_refused_and_counted() {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24"]);
    let many = (1..=45).map(|pid| process(pid, "many")).collect();
    assert_eq!(world.report("a", processes(many)), Effect::Applied { records_refused: 5 });
    let many = (1..=12).map(|number| container(&format!("c{number}"), "many", "x")).collect();
    assert_eq!(world.report("a", containers(many)), Effect::Applied { records_refused: 2 });
    let many = (1..=41).map(|id| client(id, 1, "10.0.0.1", "93.184.216.34", 443)).collect();
    assert_eq!(world.report("a", flows(many)), Effect::Applied { records_refused: 1 });
    for name in ["b", "c", "d"] {
        assert!(matches!(world.hello(name, name, "s"), Effect::Admitted { .. }));
    }
    assert!(matches!(world.hello("e", "e", "s"), Effect::Refused { .. }));
}

#[test]
fn pictures_are_published_at_most_once_an_interval_and_metrics_alone_do_not_change_the_structure() {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24"]);
    world.report("a", processes(vec![process(1, "x")]));
    let before = world.snapshot(View::Processes, Filter::NONE);
    world.pass(Duration::from_secs(1));
    let metrics = |at, cpu_percent| ProcessMetrics {
        key: key(1),
        at,
        cpu_percent,
        memory_bytes: 1024,
        open_files: 3,
        open_files_limit: 100,
        thread_count: 2,
        ..ProcessMetrics::default()
    };
    let at = world.now;
    world.effects.clear();
    world.report("a", Report { process_metrics: vec![metrics(at, 99.0)], ..Report::default() });
    world.report("a", Report { process_metrics: vec![metrics(at + Duration::from_nanos(1), 12.345)], ..Report::default() });
    let published = |world: &World| world.effects.iter().filter(|it| matches!(it, Effect::Published { .. })).count();
    assert_eq!(published(&world), 1);
    let due = world.map.next_deadline().unwrap();
    assert_eq!(due.since(world.now), Duration::from_millis(50));
    world.pass(Duration::from_millis(50));
    assert_eq!(published(&world), 2);
    let after = world.snapshot(View::Processes, Filter::NONE);
    assert_eq!(after.structure_version, before.structure_version);
    assert!(after.version > before.version);
    assert_eq!(after.nodes.iter().next().unwrap().1.summary().metrics[0].value, 12.34);
}

#[test]
fn a_state_that_changes_is_told_like_something_that_comes_and_an_age_is_not() {
    let mut world = World::new();
    world.step(Input::Watch(ViewKey { view: View::Containers, filter: Filter::NONE }));
    world.connect("a", &["10.0.0.1/24"]);
    let mut versions = Vec::new();
    for state in ["Up 2 seconds", "Up 5 minutes", "Up 5 minutes (Paused)", "Up 6 minutes (Paused)", "Exited (0) 1 second ago"] {
        let container = Container { state_human: state.into(), ..container("c", "web", "nginx") };
        world.report("a", Report { containers: vec![container], ..Report::default() });
        world.pass(Duration::from_secs(1));
        versions.push(world.snapshot(View::Containers, Filter::NONE).structure_version);
    }
    let changed: Vec<bool> = versions.windows(2).map(|pair| pair[0] != pair[1]).collect();
    assert_eq!(changed, [false, true, false, true]);
}

#[test]
fn a_picture_that_nobody_watches_is_dropped_after_its_time() {
    let mut world = World::new();
    let key = ViewKey { view: View::Hosts, filter: Filter::NONE };
    world.step(Input::Watch(key));
    world.step(Input::Unwatch(key));
    world.pass(Duration::from_secs(30));
    assert_eq!(world.map.picture_count(), 1);
    assert_eq!(world.pass(Duration::from_secs(30)), vec![Effect::PictureDropped { key }]);
    assert_eq!(world.map.next_deadline(), None);
}

/// Counters of connections that were opened, and of those the closed ones.
fn counted(id: u64, opened: u64, closed: u64, at: Timestamp) -> Report {
    let counters = FlowCounters { opened, closed, ..FlowCounters::default() };
    let flow = Flow { key: None, counters, last_active: at, ..client(id, 1, "10.0.0.1", "93.184.216.34", 443) };
    flows(vec![flow])
}

fn has_edge(world: &mut World) -> bool {
    world.snapshot(View::Processes, Filter::NONE).stats.edge_count == 1
}

fn count(world: &mut World) -> Option<u64> {
    world.details(View::Processes, "a;1")?.outgoing.first().map(|it| it.count)
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn an_ended_connection_leaves_after_one_window_whatever_its_probe_still_keeps() {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24"]);
    world.report("a", processes(vec![process(1, "curl")]));
    world.report("a", flows(vec![client(1, 1, "10.0.0.1", "93.184.216.34", 443)]));
    let now = world.now;
    world.report("a", counted(1, 1, 0, now));
    world.pass(WINDOW * 3);
    assert!(has_edge(&mut world), "what is open stays");
    let now = world.now;
    world.report("a", counted(1, 1, 1, now));
    world.pass(WINDOW - SECOND);
    assert!(has_edge(&mut world));
    assert_eq!(count(&mut world), Some(1));
    world.pass(SECOND);
    assert!(!has_edge(&mut world), "one window after its end");
    assert!(world.map.flows(&FlowQuery { limit: 10, ..FlowQuery::default() }).flows.is_empty());
    // The probe still has it, and tells of the next connection by the number alone.
    let now = world.now;
    assert_eq!(world.report("a", counted(1, 2, 1, now)), Effect::Applied { records_refused: 0 });
    assert!(has_edge(&mut world));
    let now = world.now;
    world.report("a", counted(1, 2, 2, now));
    world.pass(WINDOW - SECOND);
    world.report("a", Report { flows_gone: vec![1], ..Report::default() });
    assert!(has_edge(&mut world));
    world.pass(SECOND);
    assert!(!has_edge(&mut world), "that the probe forgets it makes it stay no longer");
    world.map.check().unwrap();
}

#[test]
fn short_connections_make_a_steady_edge_that_counts_those_of_one_window() {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24"]);
    world.report("a", processes(vec![process(1, "curl")]));
    world.report("a", flows(vec![client(1, 1, "10.0.0.1", "93.184.216.34", 443)]));
    // One connection a second, told every three seconds; every tenth report is one late.
    for round in 1..=40_u64 {
        if round % 10 != 9 {
            let now = world.now;
            world.report("a", counted(1, round * 3, round * 3, now));
        }
        for second in 0..3 {
            world.pass(SECOND);
            assert!(has_edge(&mut world), "round {round}, second {second}");
            if round > 8 {
                let count = count(&mut world).unwrap();
                assert!((11..=19).contains(&count), "{count} in round {round}, second {second}");
            }
        }
    }
    // After the last one the count falls to nothing as the edge does.
    let mut before = count(&mut world).unwrap();
    for _ in 0..11 {
        world.pass(SECOND);
        let now = count(&mut world).unwrap();
        assert!(now <= before, "{now} after {before}");
        before = now;
    }
    world.pass(SECOND * 3);
    assert!(!has_edge(&mut world));
    world.map.check().unwrap();
}

#[test]
fn what_a_snapshot_tells_again_did_not_happen_again() {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24"]);
    let ended = Flow {
        counters: FlowCounters { opened: 5_000, closed: 5_000, ..FlowCounters::default() },
        ..client(1, 1, "10.0.0.1", "93.184.216.34", 443)
    };
    let all = || Report { processes: vec![process(1, "curl")], flows: vec![ended.clone()], ..Report::default() };
    world.report("a", all());
    world.pass(SECOND * 10);
    world.report("a", Report { kind: ReportKind::SnapshotEnd, ..all() });
    assert!(has_edge(&mut world));
    world.pass(SECOND * 5);
    assert!(!has_edge(&mut world));
}
