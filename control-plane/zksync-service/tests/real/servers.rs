//! Servers of an ensemble die, or their disks are slow, while changes are carried.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use zk::testing::{Ensemble, SlowDisk, Writer};
use zk::{Acl, Client, CreateKind, Error, Options};
use zksync::{LinkState, Mode, Side, Strategy};
use zksync_service::definition::Definition;

use crate::common::{World, create, ensembles};

/// A writer on each side of a link, with a subtree of its own.
struct Writers {
    stop: CancellationToken,
    running: JoinSet<Writer>,
}

impl Writers {
    async fn start(world: &World, pause: Duration) -> Writers {
        for path in ["/w", "/w/a", "/w/b", "/marks"] {
            create(&world.a, path, b"").await;
        }
        world.until_equal().await;
        let (stop, mut running) = (CancellationToken::new(), JoinSet::new());
        for (ensemble, root) in [(&world.definition.a, "/w/a"), (&world.definition.b, "/w/b")] {
            let client = Client::connect(&Options::new(&ensemble.connect)).await.expect("the servers of a test answer");
            running.spawn(Writer::below(client, root).run(pause, stop.clone()));
        }
        Writers { stop, running }
    }

    /// Ends them. Everything that they wrote must then be on both sides, once, and the link must have written nothing else than that and `marks`
    /// znodes to each side.
    async fn must_be_on_both_sides(mut self, world: &World, marks: u64) {
        self.stop.cancel();
        let mut done = Vec::new();
        while let Some(writer) = self.running.join_next().await {
            done.push(writer.expect("a writer comes to its end"));
        }
        done.sort_by_key(|writer| writer.root().to_owned());
        world.until_equal().await;
        let counters = world.handle.status().counters.clone();
        for (writer, into) in done.iter().zip([Side::B, Side::A]) {
            let elsewhere = if into == Side::B { &world.b } else { &world.a };
            writer.verify(elsewhere).await.unwrap_or_else(|wrong| panic!("{wrong}\n{:#?}", world.handle.status()));
            let Writer { creates, sets, deletes, unanswered, .. } = writer;
            assert!(
                *creates > 10 && *sets > 10 && *deletes > 5,
                "{}: {creates} created, {sets} changed, {deletes} deleted: they wrote all the time",
                writer.root()
            );
            // Nothing goes round in circles: what the link writes to a side is what was written on the other.
            let above = if into == Side::B { 4 } else { 0 };
            let written = [counters.created[into], counters.updated[into], counters.deleted[into]];
            let most = [creates + unanswered + marks + above, sets + unanswered, deletes + unanswered];
            assert!(written.iter().zip(most).all(|(written, most)| *written <= most), "{into:?}: {written:?} of {most:?}");
        }
        let status = world.handle.status();
        assert!(status.counters.conflicts.is_empty() && status.open_conflicts == 0 && status.blocked.is_empty(), "{status:#?}");
    }
}

/// Writes on each side, and waits until it is on the other. Gives back how long that took.
async fn carried(world: &World, what: &str) -> Duration {
    let begun = Instant::now();
    for (from, to, name) in [(&world.a, &world.b, "a"), (&world.b, &world.a, "b")] {
        let path = format!("/marks/{name}-{what}");
        while let Err(error) = from.create(&path, b"", &Acl::open(), CreateKind::Persistent).await {
            if error == Error::NodeExists {
                break;
            }
            assert!(matches!(error, Error::Unknown(_)), "{what}: {error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        while !matches!(to.stat(&path).await, Ok(Some(_))) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{what}: {:#?}", world.handle.status());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    begun.elapsed()
}

/// The follower that most connections would be lost with.
fn follower(ensemble: &Ensemble) -> usize {
    let leader = ensemble.leader();
    let others = (0..ensemble.servers.len()).filter(|place| *place != leader);
    others.max_by_key(|place| ensemble.servers[*place].connections()).expect("an ensemble of three has followers")
}

/// The link is in step again with two of three servers, before the third one comes back with what it has on its disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_and_followers_of_both_ensembles_are_killed_under_writes_and_nothing_is_lost() {
    let Some((mut a, mut b)) = ensembles(3) else { return };
    let mut definition = Definition::between("kills", &a.connect_string(), &b.connect_string());
    definition.mode = Mode::Both;
    // What only looks like a conflict would stay open.
    definition.strategy = Strategy::Manual;
    definition.deletes_free = 1_000_000;
    definition.a.session_timeout_seconds = 6;
    definition.b.session_timeout_seconds = 6;
    let world = World::start(definition).await;
    let writers = Writers::start(&world, Duration::from_millis(10)).await;
    carried(&world, "before").await;
    for (ensemble, name) in [(&mut a, "A"), (&mut b, "B")] {
        for what in ["leader", "follower"] {
            let victim = if what == "leader" { ensemble.leader() } else { follower(ensemble) };
            ensemble.servers[victim].kill();
            let took = carried(&world, &format!("{what}-of-{name}")).await;
            println!("{what} of {name} killed: changes are carried both ways {took:?} later");
            ensemble.servers[victim].start();
            ensemble.servers[victim].wait();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    writers.must_be_on_both_sides(&world, 5).await;
    let status = world.handle.status();
    assert!(status.counters.resyncs.a >= 1 && status.counters.resyncs.b >= 1, "both sides lost connections: {status:#?}");
}

/// The disks of two of B's three servers, the leader's among them, take a third of a second for every write: none is agreed on without one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_disks_of_an_ensemble_are_seen_as_lag_and_nothing_is_lost() {
    const DELAY: Duration = Duration::from_millis(300);
    let Some((a, b)) = ensembles(3) else { return };
    let mut definition = Definition::between("disks", &a.connect_string(), &b.connect_string());
    definition.mode = Mode::Both;
    definition.strategy = Strategy::Manual;
    definition.deletes_free = 1_000_000;
    let world = World::start(definition).await;
    let writers = Writers::start(&world, Duration::from_millis(20)).await;
    carried(&world, "before").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = world.handle.lag().b;
    let mut slow = Vec::new();
    for place in [b.leader(), follower(&b)] {
        let Some(disk) = SlowDisk::under(&b.servers[place], DELAY) else { return };
        slow.push(disk);
    }
    let carried_before = world.handle.status().counters.transactions.b;
    let began = Instant::now();
    for round in 0..6 {
        let took = carried(&world, &format!("slow-{round}")).await;
        assert!(took >= DELAY, "the disks are slow: {took:?}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let (lag, status) = (world.handle.lag().b, world.handle.status());
    let transactions = status.counters.transactions.b - carried_before;
    println!("{transactions} transactions in {:?} on slow disks; lag before {before:?}, then {lag:?}", began.elapsed());
    assert!(transactions >= 6 && status.state == LinkState::Live, "it goes on: {status:#?}");
    assert!(lag.p99_ms >= 300.0 && before.p50_ms < 300.0, "it is told: before {before:?}, then {lag:?}");
    drop(slow);
    let healed = Instant::now();
    let mut round = 0;
    while carried(&world, &format!("healed-{round}")).await >= DELAY {
        assert!(healed.elapsed() < Duration::from_secs(60), "as fast as before when the disks are");
        round += 1;
    }
    writers.must_be_on_both_sides(&world, 8 + round).await;
}
