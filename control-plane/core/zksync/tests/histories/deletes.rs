//! What was deleted stays so, and when it was is not guessed.

use super::*;

/// Ours and theirs are the same from now on.
fn compare_clocks(world: &mut World) {
    for side in Side::BOTH {
        let (clock, sent) = (Clock { offset_ms: 0, error_ms: 1 }, world.now);
        world.input(Input::Clock { side, clock, zxid: 0, sent });
    }
}

/// A backup that is as new as our last own write there, and older than a delete: neither our own znodes nor any pair tell of it.
#[test]
fn what_was_deleted_is_not_copied_back_from_a_backup() {
    for crash in [false, true] {
        let mut world = World::new(1, last_write_wins());
        world.change(Side::A, op("/s/gone", made(b"past")));
        world.rest();
        let backup = world.sides.a.clone();
        world.change(Side::A, op("/s/gone", DELETE));
        world.pass(Duration::from_secs(3));
        assert!(!world.sides.b.nodes.contains_key("/s/gone"));
        let [(key, gone)] = world.link.tombstones().collect::<Vec<_>>().try_into().unwrap();
        assert_eq!((key.as_ref(), gone.by, gone.size), ("/s/gone", Some(Side::A), 4));
        world.cut(Side::A);
        if crash {
            world.crash();
        }
        world.sides.a = backup.restored();
        stops_before_the_past(&mut world);
    }
}

/// Both sides come back, and the link sees that one has a znode again that was deleted: it stops, and copies nothing.
#[track_caller]
fn stops_before_the_past(world: &mut World) {
    for side in Side::BOTH {
        world.connect(side);
    }
    while world.progress() {}
    let of = Witnessed::Deleted("/s/gone".into());
    assert!(matches!(&world.halted, Some(HaltReason::WentBack { side: Side::A, of: found, .. }) if *found == of), "{:?}", world.halted);
    assert!(!world.sides.b.nodes.contains_key("/s/gone"), "the past is not copied over the present");
}

/// Nor when it comes back after so long that the delete would have been forgotten by now, had anybody been there.
#[test]
fn a_delete_is_remembered_until_what_comes_back_was_looked_at() {
    let mut world = World::new(1, last_write_wins());
    world.change(Side::A, op("/s/gone", made(b"past")));
    world.rest();
    let backup = world.sides.a.clone();
    world.change(Side::A, op("/s/gone", DELETE));
    world.pass(Duration::from_secs(3));
    world.cut(Side::A);
    world.cut(Side::B);
    world.crash();
    world.sides.a = backup.restored();
    world.now = world.now + Duration::from_secs(25 * 3_600);
    world.input(Input::Tick);
    stops_before_the_past(&mut world);
}

/// A loop that stood still is told late what happened, and cannot say when that was.
#[test]
fn a_delete_that_is_heard_of_late_does_not_win_over_a_later_write() {
    let mut world = World::new(1, last_write_wins());
    world.change(Side::A, op("/s/x", made(b"1")));
    world.rest();
    compare_clocks(&mut world);
    world.change(Side::A, op("/s/x", DELETE));
    world.now = world.now + Duration::from_secs(5);
    world.change(Side::B, op("/s/x", WriteKind::Set { data: Arc::from(*b"later"), version: 0 }));
    world.now = world.now + Duration::from_secs(5);
    world.rest();
    assert_eq!(world.sides.a.nodes["/s/x"].data, b"later", "{:?}", world.resolutions());
}

/// Nor does the loop itself have to stand still: what it hears may be late, as from a server that is behind its ensemble.
#[test]
fn a_delete_whose_event_is_late_does_not_win_over_a_later_write() {
    let mut world = World::new(1, last_write_wins());
    world.change(Side::A, op("/s/x", made(b"1")));
    world.rest();
    world.beat();
    while world.progress() {}
    world.change(Side::A, op("/s/x", DELETE));
    for round in 0..50 {
        world.now = world.now + Duration::from_millis(100);
        world.input(Input::Tick);
        world.beat();
        if round == 15 {
            world.change(Side::B, op("/s/x", WriteKind::Set { data: Arc::from(*b"later"), version: 0 }));
        }
    }
    world.rest();
    assert_eq!(world.sides.a.nodes["/s/x"].data, b"later", "{:?}", world.resolutions());
}

/// It was gone when that was heard, not when it could be carried: a write of after that is later, and no guess.
#[test]
fn a_write_after_a_delete_was_heard_of_is_known_to_be_later() {
    let mut world = World::new(1, last_write_wins());
    world.change(Side::A, op("/s/x", made(b"1")));
    world.rest();
    compare_clocks(&mut world);
    world.cut(Side::B);
    world.change(Side::A, op("/s/x", DELETE));
    while world.progress() {}
    let deleted_ms = world.now.unix_millis();
    world.now = world.now + Duration::from_secs(30);
    world.change(Side::B, op("/s/x", WriteKind::Set { data: Arc::from(*b"later"), version: 0 }));
    world.rest();
    assert_eq!(world.sides.a.nodes["/s/x"].data, b"later");
    let [told] = world.resolutions() else { panic!("{:?}", world.resolutions()) };
    let gone = told.deleted.unwrap();
    assert!(!told.ambiguous && gone.to_ms == deleted_ms && gone.from_ms <= deleted_ms, "{told:?}");
}

/// An approval does not make it unknown when it was deleted.
#[test]
fn a_delete_that_was_held_back_is_remembered_with_its_time() {
    let mut config = last_write_wins();
    config.limits.deletes_free = 0;
    let mut world = World::new(1, config);
    world.change(Side::A, op("/s/x", made(b"1")));
    world.rest();
    let before_ms = world.now.unix_millis();
    world.change(Side::A, op("/s/x", DELETE));
    world.rest();
    assert_eq!(world.link.status().held_deletes, 1);
    world.input(Input::Command(Command::ApproveDeletes));
    world.rest();
    let (_, gone) = world.link.tombstones().next().unwrap();
    assert!(gone.from_ms + 10_000 > before_ms && gone.from_ms <= before_ms, "{gone:?} {before_ms}");
}

/// An answer to a comparison that our own write has overtaken is no sign that a side went back in time: nothing is asked again, or held up.
#[test]
fn an_answer_that_was_overtaken_is_no_doubt() {
    let mut world = World::new(1, last_write_wins());
    world.change(Side::A, op("/s/x", made(b"1")));
    world.rest();
    world.input(Input::Command(Command::Resync));
    world.input(Input::Tick);
    // The comparison comes to it before the change does.
    for _ in 0..3 {
        world.deliver(Side::A);
        world.hold_reads(Side::B);
        if world.reads_held("/s/x") {
            break;
        }
        world.let_go();
    }
    assert!(world.reads_held("/s/x"));
    world.change(Side::A, op("/s/x", WriteKind::Set { data: Arc::from(*b"2"), version: 0 }));
    while world.progress() {}
    assert_eq!(world.sides.b.nodes["/s/x"].data, b"2");
    let asked = world.asked_again;
    world.let_go();
    while world.progress() {}
    assert_eq!(world.asked_again, asked);
    world.rest();
    assert!(world.halted.is_none() && world.resolutions().is_empty());
}

/// What cannot be carried is looked at again and again; what is known of when it differed does not grow meanwhile.
#[test]
fn a_delete_before_a_write_that_cannot_be_carried_does_not_win_later() {
    for crash in [false, true] {
        let mut config = last_write_wins();
        config.limits.node_bytes = 8;
        let mut world = World::new(1, config);
        world.change(Side::A, op("/s/x", made(b"1")));
        world.rest();
        compare_clocks(&mut world);
        world.change(Side::A, op("/s/x", DELETE));
        world.now = world.now + Duration::from_millis(200);
        world.change(Side::B, op("/s/x", WriteKind::Set { data: Arc::from(*b"much too large"), version: 0 }));
        for _ in 0..3 {
            world.rest();
            world.pass(Duration::from_secs(90));
            if crash {
                world.crash();
            }
        }
        world.rest();
        assert_eq!(world.sides.b.nodes["/s/x"].data, b"much too large", "{:?}", world.resolutions());
    }
}

/// What is made anew after a delete is new, wherever, and is remembered as such.
#[test]
fn what_is_made_anew_after_a_delete_is_carried() {
    let mut world = World::new(1, last_write_wins());
    for (round, side) in [Side::A, Side::B, Side::B, Side::A].into_iter().enumerate() {
        let data = [u8::try_from(round).unwrap()];
        world.change(side, op("/s/x", made(&data)));
        world.rest();
        assert_eq!(world.sides[side.other()].nodes["/s/x"].data, data, "round {round}");
        assert_eq!(world.link.status().tombstones, 0, "it is there again");
        if round == 2 {
            world.crash();
        }
        world.rest();
        world.change(Side::A, op("/s/x", DELETE));
        world.rest();
        assert_eq!((world.sides.b.nodes.contains_key("/s/x"), world.link.status().tombstones), (false, 1), "round {round}");
    }
    assert!(world.halted.is_none() && world.resolutions().is_empty());
    // They are forgotten after a day.
    world.now = world.now + Duration::from_secs(25 * 3_600);
    world.rest();
    assert_eq!((world.link.status().tombstones, world.link.status().counters.tombstones_dropped), (0, 0));
}

/// Nobody was there when one side deleted it and the other changed it: the delete may have been at any time since it was last known to be there.
#[test]
fn a_delete_while_nobody_led_does_not_win_over_a_later_write() {
    for crash in [false, true] {
        let mut world = World::new(1, last_write_wins());
        world.change(Side::A, op("/s/x", made(b"1")));
        world.rest();
        compare_clocks(&mut world);
        Side::BOTH.into_iter().for_each(|side| world.cut(side));
        let minutes = |world: &mut World, count: u64| world.now = world.now + Duration::from_secs(60 * count);
        minutes(&mut world, 10);
        world.change(Side::A, op("/s/x", DELETE));
        let deleted_ms = world.now.unix_millis();
        minutes(&mut world, 40);
        world.change(Side::B, op("/s/x", WriteKind::Set { data: Arc::from(*b"later"), version: 0 }));
        minutes(&mut world, 10);
        if crash {
            world.crash();
        }
        world.rest();
        assert_eq!(world.sides.a.nodes["/s/x"].data, b"later", "{:?}", world.resolutions());
        let [told] = world.resolutions() else { panic!("{:?}", world.resolutions()) };
        let gone = told.deleted.unwrap();
        assert_eq!((told.kind, gone.by, gone.size), (ConflictKind::Delete, Some(Side::A), 1));
        assert_eq!(gone.data, Some(zksync::hash_of(b"1")), "what the deleted one was");
        assert!(gone.from_ms <= deleted_ms && deleted_ms <= gone.to_ms, "{gone:?} {deleted_ms}");
        assert!(deleted_ms - gone.from_ms < 1_000 * 60 * 13, "it was known until shortly before: {gone:?} {deleted_ms}");
    }
}
