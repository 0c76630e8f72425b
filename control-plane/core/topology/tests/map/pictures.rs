//! How pictures share the time and the memory that there are.

use std::collections::BTreeSet;
use std::time::Duration;

use topology::*;

use super::world::{World, config, process};

/// A map that shows so many processes of one host.
fn crowded(processes: u32) -> World {
    let mut config = config();
    config.limits.processes = 10_000;
    let mut world = World::with(config);
    world.connect("one", &["10.0.0.1/24"]);
    world.report("one", Report { processes: named(processes, "before"), ..Report::default() });
    world
}

fn named(processes: u32, name: &str) -> Vec<Process> {
    (0..processes).map(|n| process(100 + n, &format!("{name}-{n}"))).collect()
}

fn published(effects: &[Effect]) -> Vec<View> {
    effects.iter().filter_map(|effect| if let Effect::Published { key, .. } = effect { Some(key.view) } else { None }).collect()
}

#[test]
fn much_that_changed_is_drawn_one_view_after_the_other() {
    let mut world = crowded(1_000);
    for view in [View::Processes, View::ProcessesByName] {
        world.snapshot(view, Filter::NONE);
    }
    world.pass(Duration::from_secs(1));
    world.effects.clear();
    world.report("one", Report { processes: named(1_000, "after"), ..Report::default() });
    let mut seen = vec![published(&world.effects)];
    while world.map.next_deadline().is_some_and(|at| at <= world.now) {
        seen.push(published(&world.step(Input::Tick)));
        assert!(seen.len() < 20, "what is due is never done");
    }
    assert!(seen.len() >= 4, "whoever asks in between need not wait for all of it: {seen:?}");
    assert!(seen.iter().all(|views| views.len() <= 1), "{seen:?}");
    assert_eq!(seen.concat().into_iter().collect::<BTreeSet<_>>(), [View::Processes, View::ProcessesByName].into());
}

#[test]
fn whoever_asks_sees_what_is_not_drawn_yet() {
    let mut world = crowded(1_000);
    for view in [View::Processes, View::ProcessesByName] {
        world.snapshot(view, Filter::NONE);
    }
    world.pass(Duration::from_secs(1));
    world.report("one", Report { processes: named(1_000, "after"), ..Report::default() });
    for view in [View::Processes, View::ProcessesByName] {
        let snapshot = world.snapshot(view, Filter::NONE);
        assert!(snapshot.nodes.values().any(|node| &*node.summary().label == "after-999"), "{view:?}");
    }
}

#[test]
fn pictures_that_nobody_watches_make_room_for_others() {
    let mut config = config();
    config.limits.processes = 100;
    config.picture_nodes = 250;
    let mut world = World::with(config);
    world.connect("one", &["10.0.0.1/24"]);
    world.report("one", Report { processes: named(100, "it"), ..Report::default() });
    let key = |hide_command_arguments| ViewKey { view: View::Processes, filter: Filter { hide_command_arguments, ..Filter::NONE } };
    world.step(Input::Watch(key(false)));
    world.step(Input::Watch(key(true)));
    world.step(Input::Unwatch(key(true)));
    assert_eq!(world.map.picture_count(), 2);
    // Whoever asks for one after the other, and then again, finds all of them.
    world.step(Input::Watch(ViewKey { view: View::ProcessesByName, filter: Filter::NONE }));
    assert_eq!(world.map.picture_count(), 3);
    world.pass(Duration::from_secs(10));
    let effects = world.step(Input::Watch(ViewKey { view: View::ProcessesByName, filter: Filter::NONE }));
    let dropped: Vec<&Effect> = effects.iter().filter(|effect| matches!(effect, Effect::PictureDropped { .. })).collect();
    assert_eq!(dropped, [&Effect::PictureDropped { key: key(true) }], "the one that is watched stays");
    // What is watched stays, however much it is.
    world.step(Input::Watch(key(true)));
    assert_eq!(world.map.picture_count(), 3);
}

#[test]
fn what_changes_faster_than_it_is_drawn_keeps_no_other_view_waiting() {
    let mut config = config();
    config.limits.processes = 10_000;
    config.drawn_at_once = 10;
    let mut world = World::with(config);
    world.connect("one", &["10.0.0.1/24"]);
    world.report("one", Report { processes: named(100, "before"), ..Report::default() });
    world.snapshot(View::Processes, Filter::NONE);
    world.snapshot(View::ProcessesByName, Filter::NONE);
    world.effects.clear();
    for round in 0..40 {
        // All of them change again before they are drawn.
        world.now = world.now + Duration::from_millis(60);
        world.report("one", Report { processes: named(100, &format!("round-{round}")), ..Report::default() });
    }
    let seen: BTreeSet<View> = published(&world.effects).into_iter().collect();
    assert_eq!(seen, [View::Processes, View::ProcessesByName].into());
}
