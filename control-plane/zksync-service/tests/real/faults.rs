//! What goes wrong outside: backups, partitions, clocks, storms, size.

use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use zk::testing::{Ensemble, ServerOptions};
use zk::{Acl, Client, CreateKind, Options};
use zksync::{LinkState, Mode, Strategy};
use zksync_service::definition::Definition;

use crate::common::{World, create, ensembles, fill, tree, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ensemble_restored_from_a_backup_stops_the_link_and_the_past_is_not_copied_over_the_present() {
    let Some((mut a, b)) = ensembles(1) else { return };
    let mut definition = Definition::between("backup", &a.connect_string(), &b.connect_string());
    definition.mode = Mode::Both;
    let world = World::start(definition).await;
    create(&world.a, "/x", b"old").await;
    world.until_equal().await;
    let backup = tempfile::tempdir().unwrap();
    a.servers[0].kill();
    a.servers[0].back_up(backup.path());
    a.servers[0].start();
    a.servers[0].wait();
    for n in 0..40 {
        while world.a.set("/x", format!("new {n}").as_bytes(), None).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    create(&world.a, "/later", b"1").await;
    world.until_equal().await;
    a.servers[0].kill();
    a.servers[0].restore(backup.path());
    a.servers[0].start();
    until("it stops", || world.handle.status().state == LinkState::Halted).await;
    let reason = world.handle.status().reason.clone().unwrap();
    assert!(reason.contains("ensemble A went back in time"), "{reason}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.b.get("/x").await.unwrap().0, b"new 39");
    assert!(world.b.stat("/later").await.unwrap().is_some());
}

/// A quorum that is restored begins with a new epoch: its transactions are newer than all that it ever had. What the link wrote there itself is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quorum_restored_from_a_backup_stops_the_link_and_the_past_is_not_copied_over_the_present() {
    if !zk::testing::on_test_machine() {
        return;
    }
    let mut a = Ensemble::start(3, &ServerOptions::default());
    let b = Ensemble::start(1, &ServerOptions::default());
    let mut definition = Definition::between("quorum", &a.connect_string(), &b.connect_string());
    definition.mode = Mode::Both;
    let mut world = World::start(definition).await;
    create(&world.a, "/x", b"old").await;
    world.until_equal().await;
    let again = |a: &mut Ensemble, backups: &[tempfile::TempDir], back_up: bool| {
        for server in &mut a.servers {
            server.kill();
        }
        for (server, backup) in a.servers.iter().zip(backups) {
            if back_up { server.back_up(backup.path()) } else { server.restore(backup.path()) }
        }
        for server in &mut a.servers {
            server.start();
        }
        for server in &a.servers {
            server.wait();
        }
    };
    let backups: Vec<tempfile::TempDir> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    again(&mut a, &backups, true);
    let client = Client::connect(&Options::new(a.connect_string())).await.unwrap();
    client.set("/x", b"new", None).await.unwrap();
    create(&client, "/later", b"1").await;
    create(&world.b, "/from-b", b"1").await;
    world.a = client;
    world.until_equal().await;
    again(&mut a, &backups, false);
    until("it stops", || world.handle.status().state == LinkState::Halted).await;
    let reason = world.handle.status().reason.clone().unwrap();
    assert!(reason.contains("ensemble A went back in time: our own transaction"), "{reason}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.b.get("/x").await.unwrap().0, b"new");
    assert!(world.b.stat("/later").await.unwrap().is_some());
    // Another process, with what is on disk, sees it as well.
    world.crash_and_restart(2).await;
    until("it stops again", || world.handle.status().state == LinkState::Halted).await;
    assert_eq!(world.b.get("/x").await.unwrap().0, b"new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_children_of_one_znode_are_copied() {
    let Some((a, b)) = ensembles(1) else { return };
    let world = World::start(Definition::between("wide", &a.connect_string(), &b.connect_string())).await;
    fill(&world.a, "/wide", 100_000, 10).await;
    let began = Instant::now();
    loop {
        let there = world.b.stat("/wide").await.unwrap().map_or(0, |stat| stat.num_children);
        if there == 100_000 {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(180), "{there} of 100000: {:#?}", world.handle.status());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // A lost connection makes it read all of them again, and write none.
    until("all are counted", || world.handle.status().counters.created.b == 100_001).await;
    let written = world.handle.status().counters.created.b;
    world.handle.tell(zksync::Command::Resync).await.unwrap();
    until("a comparison of everything", || world.handle.status().counters.full_passes.a >= 1).await;
    assert_eq!(world.handle.status().counters.created.b, written);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_changes_of_one_znode_is_a_few_writes_on_the_other_side() {
    let Some((a, b)) = ensembles(1) else { return };
    let world = World::start(Definition::between("storm", &a.connect_string(), &b.connect_string())).await;
    create(&world.a, "/hot", b"").await;
    world.until_equal().await;
    let before = world.handle.status().counters.updated.b;
    for round in 0..40 {
        let writes = (0..250).map(|n| {
            let (client, data) = (&world.a, format!("{round}.{n}"));
            async move { client.set("/hot", data.as_bytes(), None).await.unwrap() }
        });
        futures::future::join_all(writes).await;
    }
    world.until_equal().await;
    assert_eq!(world.b.get("/hot").await.unwrap().0, b"39.249");
    let writes = world.handle.status().counters.updated.b - before;
    assert!(writes < 5_000, "10,000 changes were {writes} writes");
}

/// Servers of B live in a network of their own; the wire between is taken down for longer than a session lasts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_longer_than_a_session_stalls_the_link_and_nothing_is_lost() {
    if !zk::testing::on_test_machine() {
        return;
    }
    let Some(wire) = Wire::lay() else {
        assert!(std::env::var_os("CI").is_none(), "a network namespace cannot be made here: this needs root");
        return;
    };
    let a = Ensemble::start(1, &ServerOptions::default());
    let b = Ensemble::start(1, &ServerOptions { address: wire.far, within: wire.within(), ..ServerOptions::default() });
    let mut definition = Definition::between("partition", &a.connect_string(), &b.connect_string());
    definition.mode = Mode::Both;
    definition.a.session_timeout_seconds = 4;
    definition.b.session_timeout_seconds = 4;
    let world = World::start(definition).await;
    create(&world.a, "/p", b"").await;
    world.until_equal().await;
    wire.cut();
    until("it is noticed", || world.handle.status().state == LinkState::Stalled).await;
    let began = Instant::now();
    let mut n = 0;
    while began.elapsed() < Duration::from_secs(8) {
        create(&world.a, &format!("/p/{n}"), b"x").await;
        n += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    wire.mend();
    let other = Client::connect(&Options::new(b.connect_string())).await.unwrap();
    for _ in 0..1_200 {
        if tree(&other, "/p").await.len() == n + 1 {
            let status = world.handle.status();
            assert!(status.counters.resyncs.b >= 1 && status.counters.conflicts.is_empty(), "{status:#?}");
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{n} were written: {:#?}", world.handle.status());
}

/// A wire into a network namespace. Gone when dropped.
struct Wire {
    name: String,
    far: IpAddr,
}

impl Wire {
    fn lay() -> Option<Wire> {
        let number = std::process::id() % 200 + 20;
        let wire = Wire { name: format!("zks{number}"), far: IpAddr::from([10, 77, u8::try_from(number).ok()?, 2]) };
        let near = format!("10.77.{number}.1/24");
        let (name, end) = (wire.name.clone(), format!("{}e", wire.name));
        let steps: [&[&str]; 6] = [
            &["netns", "add", &name],
            &["link", "add", &name, "type", "veth", "peer", "name", &end, "netns", &name],
            &["addr", "add", &near, "dev", &name],
            &["link", "set", &name, "up"],
            &["-n", &name, "addr", "add", &format!("{}/24", wire.far), "dev", &end],
            &["-n", &name, "link", "set", &end, "up"],
        ];
        let laid = steps.iter().all(|step| ip(step)) && ip(&["-n", &name, "link", "set", "lo", "up"]);
        laid.then_some(wire)
    }

    fn within(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.name].map(str::to_owned).to_vec()
    }

    fn cut(&self) {
        assert!(ip(&["link", "set", &self.name, "down"]));
    }

    fn mend(&self) {
        assert!(ip(&["link", "set", &self.name, "up"]));
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.name]);
        ip(&["link", "del", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).output().is_ok_and(|it| it.status.success())
}

/// The clock of B is half a minute ahead of A's: by the servers' own times everything on B would be later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_write_wins_although_one_ensembles_clock_is_ahead() {
    const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    if !zk::testing::on_test_machine() {
        return;
    }
    if !std::path::Path::new(LIBRARY).exists() {
        let install = ["-o", "DPkg::Lock::Timeout=300", "install", "-y", "--no-install-recommends", "libfaketime"];
        let _ = Command::new("apt-get").args(install).output();
        if !std::path::Path::new(LIBRARY).exists() {
            assert!(std::env::var_os("CI").is_none(), "no libfaketime: apt-get install libfaketime");
            return;
        }
    }
    let environment = [("LD_PRELOAD", LIBRARY), ("FAKETIME", "+30s"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("DONT_FAKE_MONOTONIC", "1")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let a = Ensemble::start(1, &ServerOptions::default());
    let b = Ensemble::start(1, &ServerOptions { environment: environment.to_vec(), ..ServerOptions::default() });
    let client_a = Client::connect(&Options::new(a.connect_string())).await.unwrap();
    let client_b = Client::connect(&Options::new(b.connect_string())).await.unwrap();
    create(&client_a, "/probe", b"").await;
    create(&client_b, "/probe", b"").await;
    let ahead = client_b.stat("/probe").await.unwrap().unwrap().mtime - client_a.stat("/probe").await.unwrap().unwrap().mtime;
    assert!((25_000..35_000).contains(&ahead), "{ahead} ms");
    let mut definition = Definition::between("clock", &a.connect_string(), &b.connect_string());
    definition.mode = Mode::Both;
    definition.strategy = Strategy::LastWriteWins;
    let world = World::between(definition, client_a, client_b).await;
    create(&world.a, "/x", b"0").await;
    world.until_equal().await;
    // The clocks have been compared by now. Both sides change while nothing is carried: B first, A a second later.
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.handle.tell(zksync::Command::Pause).await.unwrap();
    world.b.set("/x", b"earlier, on b", None).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.a.set("/x", b"later, on a", None).await.unwrap();
    world.handle.tell(zksync::Command::Resume).await.unwrap();
    world.until_equal().await;
    assert_eq!(world.b.get("/x").await.unwrap().0, b"later, on a");
    until("the record", || !world.store.resolutions("clock", "/", 10).unwrap().is_empty()).await;
    let recorded = world.store.resolutions("clock", "/", 10).unwrap();
    assert!(!recorded[0].1.ambiguous, "{recorded:?}");
    let loser = recorded[0].1.sides.b.as_ref().unwrap();
    assert_eq!(&*loser.data, b"earlier, on b");
    let kept = world.a.create("/kept", b"", &Acl::open(), CreateKind::Persistent).await;
    assert!(kept.is_ok());
}

/// The disk of the server that leads B does not answer for longer than a session lasts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stands_still_is_left_for_another_and_nothing_is_lost() {
    let Some((a, b)) = ensembles(3) else { return };
    let mut definition = Definition::between("slow", &a.connect_string(), &b.connect_string());
    definition.mode = Mode::Both;
    definition.b.session_timeout_seconds = 4;
    let world = World::start(definition).await;
    create(&world.a, "/s", b"").await;
    world.until_equal().await;
    let leader = b.leader();
    b.servers[leader].pause();
    for n in 0..300 {
        create(&world.a, &format!("/s/{n}"), b"x").await;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    b.servers[leader].resume();
    let other = Client::connect(&Options::new(b.connect_string())).await.unwrap();
    for _ in 0..1_200 {
        if tree(&other, "/s").await.len() == 301 {
            assert!(world.handle.status().counters.conflicts.is_empty(), "{:#?}", world.handle.status());
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{:#?}", world.handle.status());
}
