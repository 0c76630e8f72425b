use super::*;
use crate::model::Node;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_unix_millis(millis)
}

fn report(ids: &[&str]) -> Weighed {
    let mut report = Report::default();
    for &id in ids {
        report.table_mut(Kind::Process).nodes.insert(id.into(), Node::new(id, Kind::Process).into());
    }
    Weighed { report, weight: 100 }
}

fn window(nodes: usize) -> Window {
    Window::new(Duration::from_secs(15), WindowLimits { nodes, memory: 10_000 })
}

fn ids(window: &Window) -> Vec<String> {
    window.merged().table(Kind::Process).nodes.keys().map(ToString::to_string).collect()
}

#[test]
fn a_node_stays_for_the_window_after_it_was_last_mentioned() {
    let mut window = window(100);
    window.add(at(0), report(&["a", "b"]));
    window.add(at(10_000), report(&["b"]));
    window.expire(at(14_999));
    assert_eq!(ids(&window), ["a", "b"]);
    assert_eq!(window.next_deadline(), Some(at(15_000)));
    assert!(window.expire(at(15_000)));
    assert_eq!(ids(&window), ["b"]);
    assert!(window.expire(at(25_000)));
    assert!(window.is_empty() && window.next_deadline().is_none());
    assert!(!window.expire(at(30_000)));
}

#[test]
fn reports_that_come_together_are_one() {
    let mut window = window(100);
    for (millis, id) in [(0, "a"), (1_000, "b"), (2_999, "c"), (3_000, "d"), (5_000, "e"), (6_100, "f")] {
        window.add(at(millis), report(&[id]));
    }
    let summaries: Vec<(Timestamp, String)> = window.summaries();
    assert_eq!(summaries, [(at(0), "process:3".to_owned()), (at(3_000), "process:2".to_owned()), (at(6_100), "process:1".to_owned())]);
    // Nothing that was mentioned late in a part leaves early.
    window.expire(at(17_998));
    assert_eq!(ids(&window).len(), 6);
}

#[test]
fn a_window_that_is_full_takes_no_more_until_something_has_left_it() {
    let mut window = window(3);
    assert_eq!(window.add(at(0), report(&["a", "b"])), Added::Yes);
    let before = window.generation();
    assert_eq!(window.add(at(1), report(&["c", "d"])), Added::Full);
    assert_eq!(window.generation(), before);
    assert_eq!(window.add(at(2), report(&["c"])), Added::Yes);
    assert_eq!(window.add(at(20_000), report(&["c", "d"])), Added::Yes);
}

#[test]
fn what_is_heavy_fills_a_window_however_few_nodes_it_has() {
    let mut window = Window::new(Duration::from_secs(15), WindowLimits { nodes: 100, memory: 250 });
    assert_eq!(window.add(at(0), report(&["a"])), Added::Yes);
    // In the same part or in another one, it counts.
    assert_eq!(window.add(at(1), report(&["a"])), Added::Yes);
    assert_eq!(window.weight(), 200);
    assert_eq!(window.add(at(5_000), report(&["b"])), Added::Full);
    assert_eq!(window.add(at(15_001), report(&["b"])), Added::Yes);
    assert_eq!(window.weight(), 100);
}

#[test]
fn a_clock_that_is_set_back_keeps_what_is_there() {
    let mut window = window(100);
    window.add(at(100_000), report(&["a"]));
    window.add(at(50_000), report(&["b"]));
    assert_eq!(ids(&window), ["a", "b"]);
    window.expire(at(65_000));
    assert_eq!(ids(&window), ["a"]);
}

#[test]
fn a_part_with_one_host_is_named_after_it() {
    let mut window = window(100);
    let mut with_host = report(&["a"]);
    with_host.report.table_mut(Kind::Host).nodes.insert("h;<host>".into(), Node::new("h;<host>", Kind::Host).into());
    window.add(at(0), with_host);
    assert_eq!(window.summaries()[0].1, "h;<host>: process:1, host:1");
}
