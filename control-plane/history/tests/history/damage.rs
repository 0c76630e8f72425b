//! Files that are torn or damaged, at every byte: what was before is shown, and nothing panics.

use std::path::PathBuf;
use std::time::Duration;

use history::{PlayError, Player, Settings, Store};
use topology::*;

use crate::world::*;

/// A small history: a segment with a keyframe and some frames, and what it shows at each.
fn small(directory: &std::path::Path) -> (PathBuf, Vec<(base::Timestamp, String)>) {
    let mut world = World::new(settings(directory));
    let mut shown = Vec::new();
    world.connect("a");
    for round in 0..4 {
        world.pass(Duration::from_secs(1));
        world.report("a", Report { processes: vec![process(round + 1, 1, "x")], ..Report::default() });
        world.tend();
        shown.push((world.now, world.live_picture()));
    }
    world.store.sync().unwrap();
    let segments = world.store.catalogue().segments();
    assert_eq!(segments.len(), 1);
    (segments[0].path.clone(), shown)
}

#[test]
fn what_follows_a_damaged_block_is_not_played_on_what_came_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::new(Settings { segment: Duration::from_secs(5), ..settings(directory.path()) });
    world.connect("a");
    for round in 0..20 {
        world.pass(Duration::from_secs(1));
        world.report("a", Report { processes: vec![process(round + 1, 1, "x")], ..Report::default() });
        world.tend();
    }
    world.store.sync().unwrap();
    let segments = world.store.catalogue().segments();
    let damaged = &segments[1];
    let mut bytes = std::fs::read(&damaged.path).unwrap();
    // Behind the keyframe, in the first frames.
    let place = bytes.len() - 40;
    bytes[place] ^= 1;
    std::fs::write(&damaged.path, bytes).unwrap();
    let mut player = world.player(segments[0].from);
    player.forward(world.now).unwrap();
    assert_eq!(past_picture(&mut player), world.live_picture());
    let gaps = world.store.catalogue().gaps();
    assert!(gaps.iter().any(|gap| gap.to == segments[2].from), "it is told: {gaps:?}");
}

fn shows(store: &Store, at: base::Timestamp) -> Option<String> {
    match Player::open(store.catalogue().clone(), config(), at) {
        Ok(mut player) => Some(past_picture(&mut player)),
        Err(PlayError::TooEarly | PlayError::Damaged(_)) => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_file_torn_at_any_byte_shows_what_was_whole() {
    let directory = tempfile::tempdir().unwrap();
    let (path, shown) = small(directory.path());
    let whole = std::fs::read(&path).unwrap();
    let mut last_shown = 0;
    for length in 0..=whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        let (store, opened) = Store::open(settings(directory.path())).unwrap();
        let left = std::fs::metadata(&path).unwrap().len();
        if opened.segments == 0 {
            assert_eq!(opened.unreadable, 1, "at {length}");
            continue;
        }
        assert_eq!(left + opened.cut_bytes, length as u64, "at {length}");
        let known = shown.iter().take_while(|(at, _)| store.catalogue().span().is_some_and(|(_, to)| *at <= to)).count();
        assert!(known >= last_shown, "at {length}: a longer file shows less");
        last_shown = known;
        for (at, expected) in &shown[..known] {
            assert_eq!(shows(&store, *at).as_deref(), Some(expected.as_str()), "at {length}");
        }
    }
    assert_eq!(last_shown, shown.len(), "the whole file shows everything");
}

#[test]
fn a_file_damaged_at_any_byte_shows_what_is_before_the_damage_or_says_that_it_cannot() {
    let directory = tempfile::tempdir().unwrap();
    let (path, shown) = small(directory.path());
    let whole = std::fs::read(&path).unwrap();
    let pictures: Vec<&str> = shown.iter().map(|(_, picture)| picture.as_str()).collect();
    for at in 0..whole.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            std::fs::write(&path, &bytes).unwrap();
            // Looked at as it is, and as it is after the next start, which cuts.
            for _ in 0..2 {
                let (store, _) = Store::open(settings(directory.path())).unwrap();
                let picture = shows(&store, shown[3].0);
                // What an undamaged history showed at some moment, and nothing in between; the keyframe alone shows no host.
                let is_known = picture.as_deref().is_none_or(|it| pictures.contains(&it) || !it.contains("processes a;"));
                assert!(is_known, "byte {at} flipped by {flip:#x}: {picture:?}");
            }
        }
    }
}

#[test]
fn what_is_no_history_is_left_alone_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("0000000000.history"), b"OHIS\x01 of another program").unwrap();
    std::fs::write(directory.path().join("0000000001.history"), vec![0xa5; 10_000]).unwrap();
    std::fs::write(directory.path().join("notes.txt"), b"mine").unwrap();
    let (mut store, opened) = Store::open(settings(directory.path())).unwrap();
    assert_eq!((opened.segments, opened.unreadable), (0, 2));
    assert!(opened.bytes > 10_000);
    let mut recorder = history::Recorder::new(config().limits);
    assert!(store.tend(base::Timestamp::from_unix_millis(BEGIN), &mut recorder).failure.is_none());
    assert!(directory.path().join("0000000002.history").exists(), "a new segment has a number of its own");
    assert!(directory.path().join("notes.txt").exists());
}
