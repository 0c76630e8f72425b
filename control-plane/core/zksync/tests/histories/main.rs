//! Random histories with every fault, by seed: `SEED=n cargo test -p zksync --test histories` repeats one, `SEEDS=n` runs more.

#![expect(clippy::unwrap_used, reason = "what fails in a test's world is a fault of the test")]

mod deletes;
mod ensemble;
mod world;

use std::sync::Arc;
use std::time::Duration;

use ensemble::acl;
use world::{Dice, World};
use zksync::{
    Clock, Command, ConflictKind, Drift, HaltReason, Input, LinkConfig, LinkState, Mapping, Mode, PerSide, Side, Strategy, Witnessed,
    WriteKind, WriteOp,
};

fn config(dice: &mut Dice) -> LinkConfig {
    let mut config = LinkConfig::one_way(Mapping::everything());
    config.limits.deletes_free = 1_000_000;
    config.limits.batch_ops = [1, 3, 512][usize::try_from(dice.below(3)).unwrap()];
    if dice.one_in(8) {
        config.limits.dirty = 5;
    }
    (config.mode, config.strategy) = match dice.below(6) {
        0 => (Mode::AToB, Strategy::LastWriteWins),
        1 => (Mode::Both, Strategy::AWins),
        2 => (Mode::Both, Strategy::BWins),
        3 => (Mode::Both, Strategy::Manual),
        _ => (Mode::Both, Strategy::LastWriteWins),
    };
    config.drift = Drift::Overwrite;
    config
}

fn live_through(seed: u64) {
    let mut dice = Dice::new(seed ^ 0xabcd);
    let config = config(&mut dice);
    let (mode, strategy) = (config.mode, config.strategy);
    let mut world = World::new(seed, config);
    world.skew_ms = PerSide { a: 0, b: i64::try_from(dice.below(2_000)).unwrap() };
    let sides: &[Side] = if mode == Mode::AToB { &[Side::A] } else { &Side::BOTH };
    let with_faults = !dice.one_in(4);
    for _ in 0..dice.below(600) + 50 {
        if with_faults {
            world.moment(sides);
        } else {
            if dice.one_in(4) {
                world.client(sides);
            }
            world.connect(Side::A);
            world.connect(Side::B);
            world.progress();
        }
    }
    world.rest();
    let fail = |world: &World, what: &str| -> ! {
        panic!("seed {seed} ({mode:?}, {strategy:?}): {what}\n{:#?}\n{}", world.link.status(), world.tail())
    };
    if world.halted.is_some() {
        fail(&world, "it halted");
    }
    // An operator decides whatever is open, until nothing is.
    for _ in 0..20 {
        let open: Vec<u64> = world.link.open_conflicts().map(|conflict| conflict.id).collect();
        if open.is_empty() {
            break;
        }
        for id in open {
            let winner = if dice.one_in(2) { Side::A } else { Side::B };
            world.input(Input::Command(Command::Resolve { id, winner, seen: None }));
        }
        world.rest();
    }
    let status = world.link.status();
    if status.open_conflicts > 0 || status.blocked_total > 0 || !world.link.is_settled() {
        fail(&world, "something is left");
    }
    if world.sides.a.tree("/") != world.sides.b.tree("/") {
        let (a, b) = (world.sides.a.tree("/"), world.sides.b.tree("/"));
        let differing: Vec<_> = a.keys().chain(b.keys()).filter(|path| a.get(*path) != b.get(*path)).collect();
        fail(&world, &format!("the sides differ in {differing:?}"));
    }
    // What only one side's clients wrote is as they left it, on both.
    for (side, root) in [(Side::A, "/a"), (Side::B, "/b")] {
        if sides.contains(&side) && world.sides[side.other()].tree(root) != world.own[side].tree(root) {
            fail(
                &world,
                &format!(
                    "{root} is not what its clients left: {:?} {:?}",
                    world.sides[side.other()].tree(root),
                    world.own[side].tree(root)
                ),
            );
        }
    }
    // Both sides of the history are known wherever one was given up.
    for resolution in world.resolutions() {
        assert!(
            resolution.key.starts_with("/s") || resolution.key.as_ref() == "/s",
            "seed {seed}: a conflict where only one side wrote: {resolution:?}"
        );
    }
    // No acknowledged write disappears without a record that survives every crash.
    if let Some(loss) = world.unrecorded() {
        fail(&world, &format!("{loss:?} was replaced, and nothing on disk tells of it: {:#?}", world.resolutions()));
    }
    if let Some(wrong) = world.misjudged() {
        fail(&world, &wrong);
    }
    // What was deleted stays deleted, through crashes and with nobody there, unless somebody made it anew or a record tells why not.
    if mode == Mode::Both
        && let Some(risen) = world.risen()
    {
        fail(&world, &format!("nobody has made it since, and it is there: {risen}"));
    }
    if world.intents() > 0 {
        fail(&world, "a resolution is neither carried out nor given up");
    }
    if world.link_ops > 3 * world.client_ops + 200 {
        fail(&world, &format!("{} writes for {} changes: something goes round in circles", world.link_ops, world.client_ops));
    }
    // At rest, everything again changes nothing.
    let writes = world.link_ops;
    world.rest();
    assert_eq!(world.link_ops, writes, "seed {seed}: it writes although nothing changed");
}

#[test]
fn both_sides_come_to_the_same_through_every_fault() {
    if let Some(seed) = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        return live_through(seed);
    }
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(2_000);
    for seed in 0..seeds {
        live_through(seed);
    }
}

#[test]
fn an_ensemble_that_went_back_in_time_stops_the_link_before_it_writes() {
    let mut world = World::new(1, LinkConfig::one_way(Mapping::everything()));
    for _ in 0..50 {
        world.client(&[Side::A]);
    }
    world.rest();
    world.cut(Side::A);
    world.sides.a.zxid = 3;
    let writes = world.link_ops;
    world.connect(Side::A);
    assert!(matches!(world.halted, Some(HaltReason::WentBack { side: Side::A, .. })), "{:?}", world.halted);
    assert_eq!(world.link.status().state, LinkState::Halted);
    assert_eq!(world.link_ops, writes);
}

/// After a restore, sessions that end and begin are transactions as well: the ensemble may be past all that the link wrote there itself.
#[test]
fn what_others_wrote_before_it_went_back_counts_as_well() {
    let mut world = World::new(1, LinkConfig::one_way(Mapping::everything()));
    world.rest();
    for _ in 0..50 {
        world.client(&[Side::A]);
    }
    world.rest();
    let newest = world.sides.a.zxid;
    // The epoch is taken with the next transaction, the last but one of those that were there.
    world.cut(Side::A);
    world.sides.a.zxid = newest - 2;
    world.connect(Side::A);
    assert!(matches!(world.halted, Some(HaltReason::WentBack { side: Side::A, .. })), "{:?}", world.halted);
}

/// A quorum that is restored begins with a new epoch, so that its transactions are newer than all that were seen. What we wrote there ourselves is
/// gone, and every znode that was written since is as it was before.
#[test]
fn a_quorum_that_was_restored_stops_the_link_before_the_past_is_copied() {
    for (crash, forgotten) in [(false, false), (true, false), (true, true)] {
        for seed in 0..20 {
            let mut config = LinkConfig::one_way(Mapping::everything());
            (config.mode, config.strategy) = (Mode::Both, Strategy::LastWriteWins);
            let mut world = World::new(seed, config);
            world.change(Side::A, op("/s/kept", made(b"past")));
            world.rest();
            let backup = world.sides.a.clone();
            world.change(Side::A, op("/s/kept", WriteKind::Set { data: Arc::from(*b"present"), version: 0 }));
            world.change(Side::A, op("/s/new", made(b"1")));
            world.change(Side::B, op("/b/new", made(b"1")));
            for _ in 0..30 {
                world.client(&Side::BOTH);
            }
            world.rest();
            let present = world.sides.b.tree("/");
            world.cut(Side::A);
            if forgotten {
                world.forget_own();
            }
            if crash {
                world.crash();
            }
            world.sides.a = backup.restored();
            let writes = world.link_ops;
            for side in Side::BOTH {
                world.connect(side);
            }
            while world.progress() {}
            let halted = world.halted.clone();
            let by_ours = matches!(halted, Some(HaltReason::WentBack { side: Side::A, of: Witnessed::Ours, .. }));
            let by_pair = matches!(halted, Some(HaltReason::WentBack { side: Side::A, of: Witnessed::Pair(_), .. }));
            assert!(if forgotten { by_pair } else { by_ours }, "seed {seed} {crash} {forgotten}: {halted:?}\n{}", world.tail());
            assert_eq!((world.link_ops, world.sides.b.tree("/")), (writes, present.clone()), "seed {seed}");
            // Another process finds the same: nothing that was written since hides it.
            world.halted = None;
            world.crash();
            for side in Side::BOTH {
                world.connect(side);
            }
            while world.progress() {}
            assert!(world.halted.is_some(), "seed {seed} {forgotten}: {}", world.tail());
            assert_eq!((world.link_ops, world.sides.b.tree("/")), (writes, present), "seed {seed}");
        }
    }
}

/// As many deletes as are free go through once, however long nobody answers and however often another process begins.
#[test]
fn deletes_that_are_held_back_stay_so_until_somebody_approves() {
    let mut config = LinkConfig::one_way(Mapping::everything());
    config.limits.deletes_free = 3;
    let mut world = World::new(1, config);
    for n in 0..40 {
        world.change(Side::A, op(&format!("/s/{n}"), made(b"1")));
    }
    world.rest();
    for n in 0..40 {
        world.change(Side::A, op(&format!("/s/{n}"), DELETE));
    }
    let left = |world: &World| world.sides.b.tree("/s/").len();
    for round in 0..6 {
        world.pass(Duration::from_secs(200));
        assert_eq!((left(&world), world.link.status().held_deletes), (37, 37), "round {round}");
        assert_eq!(world.link.status().state, LinkState::Degraded);
        if round % 2 == 1 {
            world.crash();
            world.rest();
        }
    }
    assert_eq!(world.link.status().counters.unannounced, 0, "that they are gone was told");
    // One of them is there again: it is no delete any more, and the others still are.
    world.change(Side::A, op("/s/39", made(b"2")));
    world.rest();
    assert_eq!((left(&world), world.link.status().held_deletes), (37, 36));
    assert_eq!(world.sides.b.nodes["/s/39"].data, b"2");
    world.input(Input::Command(Command::ApproveDeletes));
    world.rest();
    assert_eq!((left(&world), world.link.status().held_deletes), (1, 0));
    // The approval has passed, and with it the brake.
    world.pass(Duration::from_secs(700));
    world.change(Side::A, op("/s/39", WriteKind::Delete { version: 0, told: false }));
    world.rest();
    assert_eq!(left(&world), 0);
}

/// What is back as it was, such as after a wrong chroot, is no delete either, and lets the next ones go.
#[test]
fn what_is_there_again_releases_the_brake() {
    let mut config = LinkConfig::one_way(Mapping::everything());
    config.limits.deletes_free = 3;
    let mut world = World::new(1, config);
    for n in 0..40 {
        world.change(Side::A, op(&format!("/s/{n}"), made(b"1")));
    }
    world.rest();
    let whole = world.sides.a.nodes.clone();
    world.cut(Side::A);
    world.sides.a.nodes.retain(|path, _| !path.starts_with("/s/") || path == "/s/0");
    world.rest();
    assert_eq!(world.link.status().held_deletes, 36);
    world.cut(Side::A);
    // Those that went before the brake are gone for good.
    world.sides.a.nodes = whole.into_iter().filter(|(path, _)| world.sides.b.nodes.contains_key(path)).collect();
    world.rest();
    assert_eq!((world.link.status().held_deletes, world.sides.b.tree("/s/").len()), (0, 37));
    world.change(Side::A, op("/s/0", DELETE));
    world.rest();
    assert_eq!((world.link.status().held_deletes, world.sides.b.tree("/s/").len()), (0, 36));
}

/// What is held back is decided anew when changes are taken from the other side.
#[test]
fn deletes_that_are_held_back_are_none_in_the_other_direction() {
    let mut config = LinkConfig::one_way(Mapping::everything());
    config.limits.deletes_free = 3;
    let mut world = World::new(1, config);
    for n in 0..40 {
        world.change(Side::A, op(&format!("/s/{n}"), made(b"1")));
    }
    world.rest();
    for n in 0..40 {
        world.change(Side::A, op(&format!("/s/{n}"), DELETE));
    }
    world.rest();
    assert_eq!(world.link.status().held_deletes, 37);
    world.input(Input::Command(Command::SetMode(Mode::BToA)));
    world.rest();
    let status = world.link.status();
    assert_eq!((status.held_deletes, status.excluded["drift"], world.sides.b.tree("/s/").len()), (0, 37, 37));
    assert_eq!(status.state, LinkState::Live);
}

/// The times of two servers tell nothing before their clocks were compared with ours.
#[test]
fn the_later_write_is_a_guess_until_both_clocks_are_known() {
    for known in [false, true] {
        let mut config = LinkConfig::one_way(Mapping::everything());
        (config.mode, config.strategy, config.tie_break) = (Mode::Both, Strategy::LastWriteWins, Side::A);
        let mut world = World::new(1, config);
        (world.timeless, world.skew_ms.b) = (true, 30_000);
        world.rest();
        if known {
            for side in Side::BOTH {
                let clock = Clock { offset_ms: world.skew_ms[side], error_ms: 1 };
                let sent = world.now;
                world.input(Input::Clock { side, clock, zxid: 0, sent });
            }
        }
        world.change(Side::B, op("/s/x", made(b"earlier")));
        world.now = world.now + Duration::from_secs(5);
        world.change(Side::A, op("/s/x", made(b"later")));
        world.rest();
        let [told] = world.resolutions() else { panic!("{:?}", world.resolutions()) };
        assert_eq!((told.winner, told.ambiguous), (Side::A.into(), !known));
        assert_eq!(world.sides.b.nodes["/s/x"].data, b"later");
    }
}

/// What the source's state replaces on the other side is recorded, although it is no conflict of two sources.
#[test]
fn what_is_overwritten_where_nothing_is_taken_from_is_recorded() {
    let mut config = LinkConfig::one_way(Mapping::everything());
    config.drift = Drift::Overwrite;
    let mut world = World::new(1, config);
    world.change(Side::A, op("/s/x", made(b"a")));
    world.rest();
    world.change(Side::B, op("/s/x", WriteKind::Set { data: Arc::from(*b"b"), version: 0 }));
    world.change(Side::B, op("/s/y", made(b"only b")));
    world.rest();
    assert_eq!(world.sides.a.tree("/s"), world.sides.b.tree("/s"));
    let told: Vec<_> = world.resolutions().iter().map(|it| (it.key.as_ref(), it.kind, it.winner)).collect();
    assert_eq!(told, [("/s/x", ConflictKind::Update, Side::A.into()), ("/s/y", ConflictKind::Create, Side::A.into())]);
    let lost: Vec<_> = world.resolutions().iter().map(|it| &*it.sides.b.as_ref().unwrap().data).collect();
    assert_eq!(lost, [b"b".as_slice(), b"only b"]);
}

/// An open conflict and a path that cannot be copied are known: that a comparison finds them again is no sign of a silent watch.
#[test]
fn what_is_known_to_differ_is_no_sign_of_a_silent_watch() {
    let mut config = LinkConfig::one_way(Mapping::everything());
    (config.mode, config.strategy, config.limits.node_bytes) = (Mode::Both, Strategy::Manual, 3);
    let mut world = World::new(1, config);
    world.change(Side::A, op("/s/large", made(b"1")));
    world.rest();
    world.change(Side::A, op("/s/x", made(b"a")));
    world.change(Side::B, op("/s/x", made(b"b")));
    world.change(Side::A, op("/s/large", WriteKind::Set { data: Arc::from(*b"too large"), version: 0 }));
    world.rest();
    world.pass(Duration::from_secs(200));
    let status = world.link.status();
    assert_eq!((status.open_conflicts, status.blocked_total, status.counters.unannounced), (1, 1, 0), "{status:#?}");
}

/// Whoever decides a conflict sees what both sides had before it.
#[test]
fn what_both_sides_had_is_kept_for_whoever_decides() {
    let mut config = LinkConfig::one_way(Mapping::everything());
    (config.mode, config.strategy) = (Mode::Both, Strategy::Manual);
    let mut world = World::new(1, config);
    world.change(Side::A, op("/s/x", made(b"1")));
    world.rest();
    world.change(Side::B, op("/s/x", WriteKind::Set { data: Arc::from(*b"2"), version: 0 }));
    world.rest();
    world.cut(Side::A);
    world.cut(Side::B);
    world.change(Side::A, op("/s/x", WriteKind::Set { data: Arc::from(*b"a"), version: 1 }));
    world.change(Side::B, op("/s/x", WriteKind::Set { data: Arc::from(*b"b"), version: 1 }));
    world.crash();
    world.rest();
    assert_eq!((world.link.status().open_conflicts, world.base_data("/s/x")), (1, Some(b"2".as_slice())));
    world.change(Side::A, op("/s/x", WriteKind::Delete { version: 2, told: false }));
    world.change(Side::B, op("/s/x", WriteKind::Delete { version: 2, told: false }));
    world.rest();
    assert_eq!((world.link.status().open_conflicts, world.base_data("/s/x")), (0, None), "gone with the pair");
}

/// What was written on a side that nothing is taken from is counted until it is gone, although it is no pair.
#[test]
fn what_drifts_is_counted_as_long_as_it_does() {
    let mut world = World::new(1, LinkConfig::one_way(Mapping::everything()));
    world.rest();
    world.change(Side::B, op("/s/y", made(b"only b")));
    world.rest();
    assert_eq!(world.link.status().excluded["drift"], 1);
    world.change(Side::B, op("/s/y", DELETE));
    world.rest();
    assert_eq!(world.link.status().excluded["drift"], 0);
}

/// Both ways, and the later write wins.
fn last_write_wins() -> LinkConfig {
    let config = LinkConfig::one_way(Mapping::everything());
    LinkConfig { mode: Mode::Both, strategy: Strategy::LastWriteWins, ..config }
}

fn op(path: &str, kind: WriteKind) -> WriteOp {
    WriteOp { path: path.to_owned(), kind }
}

fn made(data: &[u8]) -> WriteKind {
    WriteKind::Create { data: Arc::from(data), acl: acl(0), ephemeral: false }
}

const DELETE: WriteKind = WriteKind::Delete { version: 0, told: false };

/// No transaction can be told to leave a znode alone that was made again since it was read and has the same version. That it was replaced is told.
#[test]
fn what_was_made_again_between_the_read_and_the_write_is_recorded() {
    for delete in [true, false] {
        let mut world = World::new(1, LinkConfig::one_way(Mapping::everything()));
        world.change(Side::A, op("/s/x", made(b"1")));
        world.rest();
        let change = if delete { DELETE } else { WriteKind::Set { data: Arc::from(*b"2"), version: 0 } };
        world.change(Side::A, op("/s/x", change));
        world.until_write(Side::B);
        world.change(Side::B, op("/s/x", DELETE));
        world.change(Side::B, op("/s/x", made(b"new")));
        let found = world.sides.b.nodes["/s/x"].stat.seen();
        world.rest();
        let [told] = world.resolutions() else { panic!("{:?}", world.resolutions()) };
        assert_eq!((told.kind, told.key.as_ref()), (ConflictKind::Recreated, "/s/x"));
        assert_eq!(told.sides.b.as_ref().map(|value| (value.seen.czxid, value.cut)), Some((found.czxid, true)), "what was found");
        let sent = (!delete).then(|| b"2".to_vec());
        assert_eq!(told.sides.a.as_ref().map(|value| value.data.to_vec()), sent, "what was sent");
    }
}

/// The answer to the write is lost: what is read afterwards tells the same.
#[test]
fn what_was_made_again_is_recorded_although_the_answer_was_lost() {
    let mut world = World::new(1, LinkConfig::one_way(Mapping::everything()));
    world.change(Side::A, op("/s/x", made(b"1")));
    world.rest();
    world.change(Side::A, op("/s/x", WriteKind::Set { data: Arc::from(*b"2"), version: 0 }));
    world.until_write(Side::B);
    world.change(Side::B, op("/s/x", DELETE));
    world.change(Side::B, op("/s/x", made(b"new")));
    world.deliver(Side::B);
    world.crash();
    world.rest();
    let kinds: Vec<ConflictKind> = world.resolutions().iter().map(|it| it.kind).collect();
    assert_eq!(kinds, [ConflictKind::Recreated]);
}

/// Both sides were written, one of them loses, and the process dies right after the server has carried the write out.
#[test]
fn what_loses_is_on_disk_before_it_is_replaced() {
    let mut config = LinkConfig::one_way(Mapping::everything());
    (config.mode, config.strategy) = (Mode::Both, Strategy::AWins);
    let mut world = World::new(1, config);
    world.rest();
    world.change(Side::A, op("/s/x", made(b"a")));
    world.change(Side::B, op("/s/x", made(b"b")));
    world.until_intent();
    world.until_write(Side::B);
    assert_eq!(world.intents(), 1, "it is noted before it is sent");
    world.deliver(Side::B);
    world.crash();
    world.rest();
    let [told] = world.resolutions() else { panic!("{:?}", world.resolutions()) };
    assert_eq!(told.sides.b.as_ref().map(|value| &*value.data), Some(&b"b"[..]));
    assert_eq!(world.intents(), 0);
    // One that was noted and never sent comes to nothing.
    world.change(Side::A, op("/s/x", WriteKind::Set { data: Arc::from(*b"aa"), version: 0 }));
    world.change(Side::B, op("/s/x", WriteKind::Set { data: Arc::from(*b"bb"), version: 1 }));
    world.until_intent();
    world.until_write(Side::B);
    world.lose_everything();
    world.crash();
    world.rest();
    assert_eq!((world.resolutions().len(), world.intents()), (2, 0), "once, by who came after: {:?}", world.resolutions());
}

/// A decision about a conflict holds for what was looked at, with what the decision itself wrote, and for nothing else.
#[test]
fn an_operators_decision_holds_for_what_the_operator_saw() {
    let mut config = LinkConfig::one_way(Mapping::everything());
    (config.mode, config.strategy) = (Mode::Both, Strategy::Manual);
    let mut world = World::new(1, config);
    world.rest();
    world.change(Side::A, op("/s/x", made(b"a")));
    world.change(Side::B, op("/s/x", made(b"b")));
    world.rest();
    let [conflict] = world.link.open_conflicts().cloned().collect::<Vec<_>>().try_into().unwrap();
    world.change(Side::A, op("/s/x", WriteKind::Set { data: Arc::from(*b"c"), version: 0 }));
    let seen = PerSide { a: Some(world.sides.a.nodes["/s/x"].stat.seen()), b: conflict.sides.b };
    let decide = |seen| Input::Command(Command::Resolve { id: conflict.id, winner: Side::A, seen: Some(seen) });
    world.input(decide(conflict.sides));
    world.rest();
    assert_eq!(world.sides.b.nodes["/s/x"].data, b"b", "somebody else wrote A: it was decided about something else");
    world.input(decide(seen));
    world.rest();
    assert_eq!((world.sides.b.nodes["/s/x"].data.as_slice(), world.link.status().open_conflicts), (&b"c"[..], 0));
}

/// Whoever takes over may be connected to a server that lags behind the one that told the leader before: what it answers is old, and no backup.
#[test]
fn a_server_that_lags_behind_is_no_ensemble_that_went_back() {
    let mut world = World::new(1, last_write_wins());
    world.change(Side::A, op("/s/x", made(b"1")));
    world.change(Side::A, op("/s/y", made(b"1")));
    world.rest();
    let before = world.sides.a.clone();
    world.change(Side::A, op("/s/x", WriteKind::Set { data: Arc::from(*b"2"), version: 0 }));
    world.change(Side::A, op("/s/y", DELETE));
    world.pass(Duration::from_secs(3));
    world.crash();
    world.lagging.a = Some(before);
    world.rest();
    assert!(world.halted.is_none(), "{:?}", world.halted);
    assert_eq!(world.sides.a.tree("/s"), world.sides.b.tree("/s"));
    assert_eq!(world.sides.b.nodes["/s/x"].data, b"2");
    assert!(!world.sides.b.nodes.contains_key("/s/y"));
}

/// A resolution has both values whole, however large they are.
#[test]
fn what_loses_is_recorded_whole() {
    let mut config = LinkConfig::one_way(Mapping::everything());
    (config.mode, config.strategy) = (Mode::Both, Strategy::AWins);
    let mut world = World::new(1, config);
    world.rest();
    let large = |n: u8| vec![n; 1_000_000];
    world.change(Side::A, op("/s/x", made(&large(1))));
    world.change(Side::B, op("/s/x", made(&large(2))));
    world.rest();
    let [told] = world.resolutions() else { panic!("{}", world.resolutions().len()) };
    for (side, n) in [(Side::A, 1), (Side::B, 2)] {
        let mut value = told.sides[side].clone().unwrap();
        assert!(!value.cut && *value.data == large(n)[..] && value.size == 1_000_000);
        let whole = value.shorten().unwrap();
        assert!(value.cut && value.data.len() == zksync::Value::INLINE_MAX && value.size == 1_000_000);
        value.complete(b"something else");
        assert!(value.cut);
        value.complete(&whole);
        assert!(!value.cut && *value.data == large(n)[..]);
    }
}
