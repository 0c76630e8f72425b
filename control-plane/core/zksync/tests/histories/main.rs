//! Random histories with every fault, by seed: `SEED=n cargo test -p zksync --test histories` repeats one, `SEEDS=n` runs more.

#![expect(clippy::unwrap_used, reason = "what fails in a test's world is a fault of the test")]

mod world;

use std::sync::Arc;

use world::{Dice, World, acl};
use zksync::{
    Command, ConflictKind, Drift, HaltReason, Input, LinkConfig, LinkState, Mapping, Mode, PerSide, Side, Strategy, WriteKind, WriteOp,
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
        assert_eq!(told.sides.a.as_ref().map(|value| value.data.clone()), sent, "what was sent");
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
    assert_eq!(told.sides.b.as_ref().map(|value| value.data.as_slice()), Some(&b"b"[..]));
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
