//! A directory that is filled with what another one has.

use std::time::Duration;

use base::Timestamp;
use history::{Copied, Player, Segment, Store};
use topology::Report;

use crate::world::{World, config, past_picture, process, settings};

/// Copies one segment, in pieces that know nothing of blocks; as many of a thousand parts as `share` says.
fn copy(segment: &Segment, into: &mut Store, continues: bool, share: usize) -> Copied {
    let bytes = std::fs::read(&segment.path).unwrap();
    let mut copy = into.begin_copy(continues).unwrap();
    bytes[..bytes.len() * share / 1_000].chunks(100).for_each(|chunk| copy.append(chunk).unwrap());
    into.end_copy(copy).unwrap()
}

fn three_minutes(directory: &std::path::Path) -> World {
    let mut world = World::new(settings(directory));
    world.connect("a");
    for second in 0..180 {
        world.pass(Duration::from_secs(1));
        let processes = vec![process(second % 50 + 1, 1, &format!("worker-{second}"))];
        world.report("a", Report { processes, ..Report::default() });
        world.tend();
    }
    world
}

fn picture(store: &Store, at: Timestamp) -> String {
    past_picture(&mut Player::open(store.catalogue().clone(), config(), at).unwrap())
}

#[test]
fn what_is_copied_shows_what_the_original_shows() {
    let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let world = three_minutes(there.path());
    let (mut store, _) = Store::open(settings(here.path())).unwrap();
    let segments = world.store.catalogue().segments();
    assert_eq!(segments.len(), 4);
    // The first that comes is not the first that was written.
    for (place, segment) in segments[1..].iter().enumerate() {
        assert!(matches!(copy(segment, &mut store, place > 0, 1_000), Copied::Kept(_)));
    }
    let check = |store: &Store| {
        let (from, to) = store.catalogue().span().unwrap();
        assert_eq!(from, segments[1].from);
        assert!(to + Duration::from_secs(2) > world.now, "{to:?} {:?}", world.now);
        assert_eq!(store.catalogue().segments().iter().map(|it| it.begins).collect::<Vec<_>>(), [true, false, false]);
        for seconds in [20, 59, 61, 119] {
            let at = segments[1].from + Duration::from_secs(seconds);
            assert_eq!(picture(store, at), picture(&world.store, at), "{seconds}");
        }
    };
    check(&store);
    drop(store);
    // The files alone say the same.
    check(&Store::open(settings(here.path())).unwrap().0);
}

#[test]
fn a_copy_that_was_broken_off_is_made_again_and_never_shortened() {
    let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let world = three_minutes(there.path());
    let (mut store, _) = Store::open(settings(here.path())).unwrap();
    let segments = world.store.catalogue().segments();
    assert!(matches!(copy(&segments[1], &mut store, false, 700), Copied::Kept(_)));
    let part = store.catalogue().segments();
    assert!(part[0].to > segments[1].from && part[0].to < segments[1].to, "whole blocks of it");
    assert!(matches!(copy(&segments[1], &mut store, false, 1_000), Copied::Kept(_)));
    let whole = store.catalogue().segments();
    assert_eq!((whole.len(), whole[0].number, whole[0].begins), (1, part[0].number, true));
    assert!(whole[0].to > part[0].to);
    assert_eq!(copy(&segments[1], &mut store, true, 700), Copied::Known);
    assert_eq!(store.catalogue().segments(), whole);
    // Too little, and of somebody else.
    assert_eq!(copy(&segments[2], &mut store, true, 1), Copied::Unreadable);
    let mut foreign = store.begin_copy(true).unwrap();
    foreign.append(b"OHIS\x01 of another version").unwrap();
    assert_eq!(store.end_copy(foreign).unwrap(), Copied::Unreadable);
    assert_eq!(store.catalogue().segments(), whole);
    // What one goes on to write by itself comes behind.
    let mut recorder = history::Recorder::new(config().limits);
    store.tend(world.now, &mut recorder);
    let after = store.catalogue().segments();
    assert_eq!((after.len(), after[1].begins), (2, true));
    assert_eq!(store.catalogue().gaps().len(), 1);
}
