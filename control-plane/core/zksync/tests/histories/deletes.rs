//! What was deleted stays so, and when it was is not guessed.

use super::*;

/// Ours and theirs are the same from now on.
fn compare_clocks(world: &mut World) {
    for side in Side::BOTH {
        world.input(Input::Clock { side, clock: Clock { offset_ms: 0, error_ms: 1 }, zxid: 0 });
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
        for side in Side::BOTH {
            world.connect(side);
        }
        while world.progress() {}
        let of = Witnessed::Deleted("/s/gone".into());
        assert!(matches!(&world.halted, Some(HaltReason::WentBack { side: Side::A, of: found, .. }) if *found == of), "{:?}", world.halted);
        assert!(!world.sides.b.nodes.contains_key("/s/gone"), "the past is not copied over the present");
    }
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
    for side in Side::BOTH {
        world.connect(side);
    }
    while world.progress() {}
    assert!(matches!(&world.halted, Some(HaltReason::WentBack { side: Side::A, .. })), "{:?}", world.halted);
    assert!(!world.sides.b.nodes.contains_key("/s/gone"), "the past is not copied over the present");
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
