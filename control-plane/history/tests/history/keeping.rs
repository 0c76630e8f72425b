//! What is kept, for how long, and what a disk that refuses does.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base::Timestamp;
use history::{Gap, PlayError, Player, Settings, Store};
use topology::*;

use crate::world::*;

/// A host with a process that is renamed every second.
fn busy(world: &mut World, seconds: u32) {
    for second in 0..seconds {
        world.pass(Duration::from_secs(1));
        let name = format!("worker-{second}-{}", "x".repeat(200));
        world.report("a", Report { processes: vec![process(second % 50 + 1, 1, &name)], ..Report::default() });
        assert!(world.tend().failure.is_none());
    }
}

#[test]
fn a_restart_shows_what_was_before_it_and_the_gap() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::new(settings(directory.path()));
    world.connect("a");
    busy(&mut world, 90);
    let (before, picture) = (world.now, world.live_picture());
    drop(world);
    let mut world = World::beginning_at(settings(directory.path()), before + Duration::from_secs(300));
    assert_eq!(past_picture(&mut world.player(before)), picture);
    world.pass(Duration::from_secs(1));
    world.connect("a");
    world.tend();
    let after = world.live_picture();
    assert_eq!(past_picture(&mut world.player(world.now)), after);
    let gaps = world.store.catalogue().gaps();
    assert_eq!(gaps, [Gap { from: before, to: before + Duration::from_secs(300), lost: 0 }]);
    // In the gap, the last that is known; through the gap, what is after it.
    assert_eq!(past_picture(&mut world.player(before + Duration::from_secs(1))), picture);
    let mut player = world.player(before);
    player.forward(world.now).unwrap();
    assert_eq!(past_picture(&mut player), after);
}

#[test]
fn segments_leave_when_they_are_too_old_or_too_much() {
    let directory = tempfile::tempdir().unwrap();
    let by_time = Settings { keep_for: Duration::from_secs(150), segment: Duration::from_secs(30), ..settings(directory.path()) };
    let mut world = World::new(by_time.clone());
    world.connect("a");
    busy(&mut world, 400);
    let (from, to) = world.store.catalogue().span().unwrap();
    assert_eq!(to, world.now);
    let reach = to.since(from);
    assert!((Duration::from_secs(150)..=Duration::from_secs(181)).contains(&reach), "{reach:?}");
    assert!(matches!(Player::open(world.store.catalogue().clone(), config(), from - Duration::from_secs(60)), Err(PlayError::TooEarly)));
    let files = || std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(files(), world.store.catalogue().segments().len());
    drop(world);
    let kept = Store::open(by_time.clone()).unwrap().1.bytes;
    let by_bytes = Settings { keep_bytes: kept / 2, keep_for: Duration::from_secs(86_400), ..by_time };
    let mut world = World::beginning_at(by_bytes, to + Duration::from_secs(1));
    world.connect("a");
    busy(&mut world, 200);
    assert!(world.store.catalogue().bytes() <= kept / 2 + (8 << 10), "{} of {}", world.store.catalogue().bytes(), kept / 2);
    assert!(world.store.catalogue().span().unwrap().0 > from);
}

#[test]
fn a_compacted_segment_shows_the_same_in_fewer_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::new(settings(directory.path()));
    world.connect("a");
    let mut shown = Vec::new();
    // A player that is in the midst of the file when it is replaced.
    let mut reading = None;
    for second in 0..130 {
        world.pass(Duration::from_secs(1));
        world.report("a", Report { processes: vec![process(second % 20 + 1, 1, &format!("worker-{second}"))], ..Report::default() });
        let ended = world.tend().ended;
        shown.push((world.now, world.live_picture()));
        if second == 30 {
            reading = Some(world.player(world.now));
        }
        if let Some(path) = ended {
            let before = std::fs::metadata(&path).unwrap().len();
            assert!(history::compact_file(&path).unwrap());
            assert!(!history::compact_file(&path).unwrap(), "there is nothing to gain any more");
            world.store.compacted(&path);
            assert!(std::fs::metadata(&path).unwrap().len() < before * 3 / 4);
        }
    }
    let mut reading = reading.unwrap();
    for (at, picture) in &shown[30..] {
        reading.forward(*at).unwrap();
        assert_eq!(&past_picture(&mut reading), picture);
    }
    for (at, picture) in shown.iter().step_by(17) {
        assert_eq!(&past_picture(&mut world.player(*at)), picture);
    }
}

#[test]
fn what_a_segment_is_made_of_can_be_told() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::new(settings(directory.path()));
    world.connect("a");
    busy(&mut world, 20);
    let path = &world.store.catalogue().segments()[0].path;
    let bytes = std::fs::read(path).unwrap();
    let spent = history::survey(&bytes).unwrap();
    let processes = spent[&(false, "Process")];
    assert_eq!(processes.records, 20);
    assert!(processes.raw > 20 * 200 && processes.compressed < processes.raw, "{processes:?}");
    assert!(history::survey(b"no segment").is_err());
}

#[test]
fn lost_events_leave_a_mark_and_what_a_probe_said_is_told_anew() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::new(settings(directory.path()));
    world.connect("a");
    busy(&mut world, 5);
    // Told to the live map alone.
    let recorder = std::mem::replace(&mut world.recorder, history::Recorder::new(config().limits));
    world.pass(Duration::from_secs(1));
    world.report(
        "a",
        Report {
            processes: vec![process(60, 1, "unheard")],
            processes_gone: vec![ProcessKey { pid: 1, start_time: 1 }],
            ..Report::default()
        },
    );
    world.recorder = recorder;
    world.store.mark_lost(1);
    let (hello, report) = world.live.told_by(&"a".into()).unwrap();
    let told = history::Event::Told { probe: "a".into(), hello: Box::new(hello), report: Box::new(report) };
    world.recorder.observe(world.now, told);
    world.tend();
    let gaps = world.store.catalogue().gaps();
    assert_eq!(gaps.iter().map(|gap| gap.lost).collect::<Vec<_>>(), [1]);
    assert_eq!(past_picture(&mut world.player(world.now)), world.live_picture());
    world.pass(Duration::from_secs(1));
    world.report("a", Report { processes: vec![process(61, 1, "heard again")], ..Report::default() });
    world.tend();
    assert_eq!(past_picture(&mut world.player(world.now)), world.live_picture());
}

#[test]
fn a_report_that_says_nothing_new_costs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::new(settings(directory.path()));
    world.connect("a");
    let everything = Report {
        kind: ReportKind::SnapshotEnd,
        processes: (1..100).map(|pid| process(pid, 1, "x")).collect(),
        flows: (1..100).map(|id| flow(id, None, true, "10.0.0.1", "10.0.0.2", 80)).collect(),
        ..Report::default()
    };
    world.report("a", everything.clone());
    assert!(world.tend().written > 0);
    for _ in 0..3 {
        world.pass(Duration::from_secs(1));
        world.report("a", everything.clone());
        assert_eq!(world.tend().written, 0);
    }
}

#[test]
fn a_clock_that_is_set_back_makes_no_moment_before_its_past() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::new(settings(directory.path()));
    world.connect("a");
    busy(&mut world, 5);
    let latest = world.store.catalogue().span().unwrap().1;
    world.now = world.now - Duration::from_secs(30);
    world.tend();
    world.now = world.now + Duration::from_secs(1);
    world.tend();
    assert!(world.store.catalogue().span().unwrap().1 > latest);
}

#[test]
fn a_clock_that_was_far_ahead_hides_nothing_of_what_comes() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::new(settings(directory.path()));
    world.connect("a");
    busy(&mut world, 5);
    let (right, before) = (world.now, world.live_picture());
    world.now = world.now + Duration::from_secs(86_400);
    world.report("a", Report { processes: vec![process(70, 1, "tomorrow")], ..Report::default() });
    world.tend();
    world.report("a", Report { processes_gone: vec![ProcessKey { pid: 70, start_time: 1 }], ..Report::default() });
    busy(&mut world, 90);
    world.now = right + Duration::from_secs(10);
    world.tend();
    busy(&mut world, 5);
    assert_eq!(world.store.catalogue().span().unwrap().1, world.now);
    assert_eq!(past_picture(&mut world.player(world.now)), world.live_picture());
    assert_eq!(past_picture(&mut world.player(right)), before);
    let mut player = world.player(right);
    player.forward(world.now).unwrap();
    assert_eq!(past_picture(&mut player), world.live_picture(), "what was dated later is not on the way");
    assert!(world.store.catalogue().gaps().iter().all(|gap| gap.from <= gap.to));
}

#[test]
fn on_a_full_disk_the_oldest_goes_before_the_newest() {
    let directory = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount(directory.path()) else { return };
    let mut world =
        World::new(Settings { segment: Duration::from_secs(55), keep_for: Duration::from_secs(86_400), ..settings(directory.path()) });
    world.connect("a");
    for second in 0..400_u32 {
        // Longer than until a disk that refused is tried again.
        world.pass(Duration::from_secs(11));
        let names: Vec<Process> = (1..40)
            .map(|pid| process(pid, 1, &format!("{pid}-{second}-{}", pid.wrapping_mul(second).wrapping_mul(2_654_435_761))))
            .collect();
        world.report("a", Report { processes: names, ..Report::default() });
        world.tend();
    }
    let (from, to) = world.store.catalogue().span().unwrap();
    assert!(to.since(from) > Duration::from_secs(55) && world.now.since(to) <= Duration::from_secs(33), "{from:?} to {to:?}");
}

#[test]
fn what_begins_anew_by_a_clock_behind_is_shown_from_its_beginning() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::new(settings(directory.path()));
    world.connect("a");
    busy(&mut world, 20);
    let now = world.now;
    drop(world);
    let mut world = World::beginning_at(settings(directory.path()), now - Duration::from_secs(4));
    world.pass(Duration::from_secs(1));
    world.connect("a");
    world.report("a", Report { processes: vec![process(71, 1, "anew")], ..Report::default() });
    world.tend();
    world.pass(Duration::from_secs(1));
    world.report("a", Report { processes: vec![process(72, 1, "and more")], ..Report::default() });
    world.tend();
    world.pass(Duration::from_secs(5));
    world.tend();
    let mut player = world.player(now - Duration::from_secs(5));
    player.forward(world.now).unwrap();
    assert_eq!(past_picture(&mut player), world.live_picture());
    assert_eq!(past_picture(&mut world.player(world.now)), world.live_picture());
}

#[test]
fn who_fills_the_disk_is_given_little_of_the_history() {
    let directory = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount(directory.path()) else { return };
    let mut world = World::new(Settings { segment: Duration::from_secs(2), ..settings(directory.path()) });
    world.connect("a");
    busy(&mut world, 30);
    let before = world.store.catalogue().segments().len();
    let mut filler = std::fs::File::create(directory.path().join("filler")).unwrap();
    for second in 0..20 {
        // Whatever becomes free is taken.
        while std::io::Write::write(&mut filler, &[1; 1_024]).is_ok_and(|written| written > 0) {}
        world.pass(Duration::from_secs(11));
        world.report("a", Report { processes: vec![process(80 + second, 1, "new")], ..Report::default() });
        world.tend();
    }
    let after = world.store.catalogue().segments().len();
    assert!(before > 10 && after + 5 >= before, "{before} segments, then {after}");
}

/// A file system of 128 KiB, unmounted in the end.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path) -> Option<Self> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=128k", "tmpfs"]).arg(at).output();
        let is_mounted = mounted.is_ok_and(|output| output.status.success());
        assert!(is_mounted || std::env::var_os("CI").is_none(), "this test needs root, to mount a small file system");
        is_mounted.then_some(SmallDisk(at))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_makes_a_gap_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount(directory.path()) else { return };
    let filler = directory.path().join("filler");
    let mut world = World::new(settings(directory.path()));
    world.connect("a");
    busy(&mut world, 3);
    let (before, picture) = (world.now, world.live_picture());
    // Everything that is left is taken by somebody else.
    let _ = std::fs::write(&filler, vec![1; 128 << 10]);
    let mut failures = 0;
    for second in 0..40_u32 {
        world.pass(Duration::from_secs(1));
        let names: Vec<Process> = (1..40)
            .map(|pid| process(pid, 1, &format!("{pid}-{second}-{}", pid.wrapping_mul(second).wrapping_mul(2_654_435_761))))
            .collect();
        assert!(world.report("a", Report { processes: names, ..Report::default() }), "the live map goes on");
        failures += u32::from(world.tend().failure.is_some());
    }
    assert!(failures > 0 && failures < 10, "{failures}: it is tried again now and then");
    assert!(!world.store.is_writing());
    assert_eq!(past_picture(&mut world.player(before)), picture, "what was written is there");
    std::fs::remove_file(&filler).unwrap();
    world.pass(Duration::from_secs(11));
    assert!(world.tend().failure.is_none());
    assert!(world.store.is_writing());
    world.pass(Duration::from_secs(1));
    world.tend();
    assert_eq!(past_picture(&mut world.player(world.now)), world.live_picture());
    assert_eq!(world.store.catalogue().gaps().len(), 1);
    // And it is all there after a restart.
    let now = world.now;
    drop(world);
    let (store, opened) = Store::open(settings(directory.path())).unwrap();
    assert_eq!((opened.cut_bytes, opened.unreadable, opened.segments), (0, 0, 2));
    assert!(Player::open(store.catalogue().clone(), config(), now).is_ok());
    assert!(Player::open(store.catalogue().clone(), config(), Timestamp::EPOCH + Duration::from_secs(1)).is_err());
}
