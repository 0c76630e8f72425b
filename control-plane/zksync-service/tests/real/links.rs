//! Links between real ensembles.

use std::time::{Duration, Instant};

use crate::common::{World, create, ensembles, tree, until};
use zk::testing::{Ensemble, Proxy, ServerOptions};
use zk::{Acl, Client, CreateKind, Error, Options};
use zksync::{EphemeralPolicy, LinkState, Mode, Rule, Side, Strategy};
use zksync_service::definition::Definition;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_on_a_appears_on_b_and_the_other_way_round() {
    let Some((a, b)) = ensembles(1) else { return };
    let mut definition = Definition::between("one", &a.connect_string(), &b.connect_string());
    definition.mode = Mode::Both;
    let world = World::start(definition).await;
    create(&world.a, "/app", b"1").await;
    create(&world.a, "/app/x", b"2").await;
    create(&world.b, "/from-b", b"3").await;
    world.until_equal().await;
    assert_eq!(world.b.get("/app/x").await.unwrap().0, b"2");
    assert_eq!(world.a.get("/from-b").await.unwrap().0, b"3");
    let mut slowest = Duration::ZERO;
    for n in 0..20 {
        let path = format!("/app/n{n}");
        let began = Instant::now();
        create(&world.a, &path, b"now").await;
        while world.b.stat(&path).await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        slowest = slowest.max(began.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    world.b.set("/app/x", b"changed on b", None).await.unwrap();
    world.a.delete("/from-b", None).await.unwrap();
    world.until_equal().await;
    assert_eq!(world.a.get("/app/x").await.unwrap().0, b"changed on b");
    assert_eq!(world.b.stat("/from-b").await.unwrap(), None);
    let status = world.handle.status();
    assert!(status.counters.conflicts.is_empty(), "{status:?}");
    // Writes are bounded by changes: nothing goes round in circles.
    let writes = |side: zksync::Side| status.counters.created[side] + status.counters.updated[side] + status.counters.deleted[side];
    assert_eq!((writes(zksync::Side::B), writes(zksync::Side::A)), (2 + 20 + 1, 1 + 1), "{status:?}");
}

/// Every way to write, again and again, while the process of the link dies at whatever it is doing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_moment_loses_nothing_and_makes_no_conflict() {
    let Some((a, b)) = ensembles(1) else { return };
    let mut definition = Definition::between("crash", &a.connect_string(), &b.connect_string());
    definition.mode = Mode::Both;
    definition.strategy = Strategy::Manual;
    definition.deletes_free = 1_000_000;
    let mut world = World::start(definition).await;
    for (client, root) in [(&world.a, "/a"), (&world.b, "/b")] {
        create(client, root, b"").await;
    }
    world.until_equal().await;
    for round in 0..25_u32 {
        for n in 0..20_u32 {
            for (client, root) in [(&world.a, "/a"), (&world.b, "/b")] {
                let path = format!("{root}/{}", (round * 7 + n * 3) % 40);
                match n % 4 {
                    0 | 1 => drop(client.create(&path, format!("{round}.{n}").as_bytes(), &Acl::open(), CreateKind::Persistent).await),
                    2 => drop(client.set(&path, format!("{round}.{n}").as_bytes(), None).await),
                    _ => drop(client.delete(&path, None).await),
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(u64::from(round * 13 % 70))).await;
        world.crash_and_restart(u64::from(round) + 2).await;
    }
    world.until_equal().await;
    let open = world.handle.ask(|link| link.open_conflicts().cloned().collect::<Vec<_>>()).await.unwrap();
    assert!(open.is_empty(), "{open:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_fences_the_old_one() {
    let Some((a, b)) = ensembles(1) else { return };
    let definition = Definition::between("fence", &a.connect_string(), &b.connect_string());
    let old = World::start(definition.clone()).await;
    create(&old.a, "/x", b"").await;
    old.until_equal().await;
    // Another process with a store of its own takes over while the old one lives.
    let new = World::with_leader(definition, 2).await;
    new.until_equal().await;
    create(&new.a, "/y", b"").await;
    until("the old one notices", || old.handle.status().state == LinkState::Fenced).await;
    new.until_equal().await;
    let written = old.handle.status().counters.created.b;
    assert_eq!(written, 1, "it wrote nothing after it was fenced");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_kills_and_silence_of_an_ensemble_lose_nothing() {
    let Some((mut a, b)) = ensembles(3) else { return };
    let proxy = Proxy::to(b.servers[0].address()).await;
    let mut definition = Definition::between("faults", &a.connect_string(), &proxy.address().to_string());
    definition.mode = Mode::Both;
    definition.a.session_timeout_seconds = 6;
    definition.b.session_timeout_seconds = 6;
    let direct_a = Client::connect(&Options::new(a.connect_string())).await.unwrap();
    let direct_b = Client::connect(&Options::new(b.connect_string())).await.unwrap();
    let world = World::between(definition, direct_a, direct_b).await;
    create(&world.a, "/w", b"").await;
    let mut acknowledged = 0;
    for second in 0..14 {
        match second {
            2 => proxy.cut(),
            4 => {
                let leader = a.leader();
                a.servers[leader].kill();
                a.servers[leader].start();
            }
            6 => proxy.blackhole(),
            10 => proxy.fair(Duration::ZERO),
            11 => proxy.fair(Duration::from_millis(20)),
            12 => b.servers[1].pause(),
            _ => {}
        }
        for n in 0..30 {
            let written = world.a.create(&format!("/w/{second}-{n}"), b"x", &Acl::open(), CreateKind::Persistent).await;
            acknowledged += u32::from(written.is_ok());
            let _ = world.b.create(&format!("/w/b{second}-{n}"), b"y", &Acl::open(), CreateKind::Persistent).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    b.servers[1].resume();
    proxy.fair(Duration::ZERO);
    world.until_equal().await;
    assert!(acknowledged > 200, "{acknowledged}");
    let on_b = tree(&world.b, "/w").await.keys().filter(|path| path.starts_with("/w/") && !path.starts_with("/w/b")).count();
    assert!(on_b >= acknowledged as usize, "{on_b} of {acknowledged}");
    let status = world.handle.status();
    assert!(status.counters.resyncs.a + status.counters.resyncs.b >= 2, "{status:#?}");
    assert!(status.counters.conflicts.is_empty(), "{status:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subtrees_filters_lists_of_access_and_large_values_are_copied_as_told() {
    let Some((a, b)) = ensembles(1) else { return };
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "sync:pw\n").unwrap();
    let mut definition = Definition::between("copy", &a.connect_string(), &b.connect_string());
    definition.a.digest_file = Some(secret.path().to_owned());
    definition.b.digest_file = Some(secret.path().to_owned());
    let rule = Rule { a: "/old/app".into(), b: "/new/app".into(), include: Vec::new(), exclude: vec!["/old/app/tmp".into()] };
    definition.mappings = vec![rule];
    definition.full_pass_seconds = 1;
    let admin = Client::connect(&Options::new(a.connect_string()).with_digest("sync:pw")).await.unwrap();
    admin.create_all("/old/app/tmp/x").await.unwrap();
    admin.create("/old/app/private", b"p", &Acl::creator(), CreateKind::Persistent).await.unwrap();
    let large = vec![7; 1_000_000];
    create(&admin, "/old/app/large", &large).await;
    create(&admin, "/old/other", b"").await;
    let world = World::start(definition).await;
    let reader = Client::connect(&Options::new(b.connect_string()).with_digest("sync:pw")).await.unwrap();
    let mut arrived = false;
    for _ in 0..600 {
        arrived = reader.get("/new/app/large").await.is_ok_and(|(data, _)| data == large) && reader.get("/new/app/private").await.is_ok();
        if arrived {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(arrived, "{:#?}", world.handle.status());
    assert_eq!(world.b.get("/new/app/private").await.unwrap_err(), Error::NoAuth, "a stranger may not read it there either");
    assert_eq!(reader.acl("/new/app/private").await.unwrap(), admin.acl("/old/app/private").await.unwrap());
    assert_eq!(reader.stat("/new/app/tmp").await.unwrap(), None);
    assert_eq!(reader.stat("/new/other").await.unwrap(), None);
    // No server tells that a list of access has changed; the next look at everything finds it.
    admin.set_acl("/old/app/large", &Acl::creator(), None).await.unwrap();
    let mut followed = false;
    for _ in 0..600 {
        followed = reader.acl("/new/app/large").await.unwrap() == admin.acl("/old/app/large").await.unwrap();
        if followed {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(followed, "{:#?}", world.handle.status());
    // What must not be read, or is hidden, is told, and stops nothing else.
    let other = Client::connect(&Options::new(a.connect_string()).with_digest("other:pw")).await.unwrap();
    other.create("/old/app/theirs", b"", &Acl::creator(), CreateKind::Persistent).await.unwrap();
    create(&admin, "/old/app/after", b"").await;
    until("it is told", || world.handle.status().blocked.iter().any(|(path, _)| path == "/old/app/theirs")).await;
    for _ in 0..200 {
        if reader.stat("/new/app/after").await.unwrap().is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{:#?}", world.handle.status());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_the_target_hangs_up_on_is_told_and_the_rest_goes_on() {
    let Some((a, _)) = ensembles(1) else { return };
    let mut small = ServerOptions::default();
    small.properties.push("jute.maxbuffer=100000".to_owned());
    let b = Ensemble::start(1, &small);
    let world = World::start(Definition::between("large", &a.connect_string(), &b.connect_string())).await;
    create(&world.a, "/before", b"").await;
    create(&world.a, "/large", &vec![1; 300_000]).await;
    create(&world.a, "/after", b"").await;
    until("it is told", || world.handle.status().blocked.iter().any(|(path, why)| path == "/large" && why.contains("jute.maxbuffer")))
        .await;
    for path in ["/before", "/after"] {
        assert!(world.b.stat(path).await.unwrap().is_some(), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ephemerals_are_left_out_or_mirrored_for_as_long_as_their_owner_lives() {
    let Some((a, b)) = ensembles(1) else { return };
    let mut definition = Definition::between("eph", &a.connect_string(), &b.connect_string());
    definition.mode = Mode::Both;
    definition.ephemerals = EphemeralPolicy::Mirror;
    definition.full_pass_seconds = 2;
    let world = World::start(definition).await;
    create(&world.a, "/services", b"").await;
    let owner = Client::connect(&Options::new(a.connect_string())).await.unwrap();
    owner.create("/services/web", b"1.2.3.4", &Acl::open(), CreateKind::Ephemeral).await.unwrap();
    let elected = owner.create("/services/json.info_", b"me", &Acl::open(), CreateKind::EphemeralSequential).await.unwrap();
    let there = async |path: &str| world.b.stat(path).await.unwrap();
    for _ in 0..400 {
        if there("/services/web").await.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(there("/services/web").await.unwrap().ephemeral_owner != 0);
    assert_eq!(there(&elected).await, None, "a copied candidate would be a second leader");
    // It is no change of B's, so nothing comes back over A's own.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.a.stat("/services/web").await.unwrap().unwrap().ephemeral_owner, owner.session_id());
    drop(owner);
    for _ in 0..400 {
        if there("/services/web").await.is_none() {
            assert!(world.handle.status().counters.conflicts.is_empty());
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{:#?}", world.handle.status());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ensemble_that_lost_its_disk_stops_the_link() {
    let Some((mut a, b)) = ensembles(1) else { return };
    let world = World::start(Definition::between("back", &a.connect_string(), &b.connect_string())).await;
    for n in 0..50 {
        create(&world.a, &format!("/n{n}"), b"precious").await;
    }
    world.until_equal().await;
    a.servers[0].kill();
    a.servers[0].wipe();
    a.servers[0].start();
    until("it stops", || world.handle.status().state == LinkState::Halted).await;
    assert!(world.handle.status().reason.as_deref().unwrap().contains("went back in time"));
    assert!(world.b.stat("/n7").await.unwrap().is_some(), "what is left is left alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_of_many_children_is_copied_and_a_mass_delete_is_held_back() {
    let Some((a, b)) = ensembles(1) else { return };
    let world = World::start(Definition::between("many", &a.connect_string(), &b.connect_string())).await;
    crate::common::fill(&world.a, "/many", 20_000, 10).await;
    world.until_equal().await;
    // Deletes on this scale are more often a mistake than an intention: they wait for somebody's word.
    crate::common::remove(&world.a, "/many").await;
    until("the brake", || world.handle.status().counters.deletes_braked > 1_000).await;
    let left = world.b.stat("/many").await.unwrap().unwrap().num_children;
    assert!(left > 15_000, "{left}");
    for _ in 0..600 {
        world.handle.tell(zksync::Command::ApproveDeletes).await.unwrap();
        if world.b.stat("/many").await.unwrap().is_none() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("{:#?}", world.handle.status());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_without_recursive_watches_are_watched_znode_by_znode() {
    let Some((a, b)) = ensembles(1) else { return };
    let mut definition = Definition::between("old", &a.connect_string(), &b.connect_string());
    definition.mode = Mode::Both;
    definition.a.watch_one_by_one = true;
    definition.b.watch_one_by_one = true;
    definition.full_pass_seconds = 3_600;
    let world = World::start(definition).await;
    for n in 0..30 {
        create(&world.a, &format!("/x{n}"), b"1").await;
        create(&world.a, &format!("/x{n}/y"), b"1").await;
        world.a.set(&format!("/x{n}/y"), b"2", None).await.unwrap();
    }
    world.until_equal().await;
    for n in 0..30 {
        world.b.set(&format!("/x{n}/y"), b"3", None).await.unwrap();
        if n % 2 == 0 {
            world.b.delete(&format!("/x{n}/y"), None).await.unwrap();
        }
    }
    world.until_equal().await;
    assert_eq!(world.a.get("/x1/y").await.unwrap().0, b"3");
    assert_eq!(world.a.stat("/x2/y").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_writing_one_znode_is_decided_by_the_strategy_and_recorded_with_both_values() {
    let Some((a, b)) = ensembles(1) else { return };
    for (strategy, winner) in [
        (Strategy::AWins, Some("from a")),
        (Strategy::BWins, Some("from b")),
        (Strategy::LastWriteWins, Some("from b")),
        (Strategy::Manual, None),
    ] {
        let mut definition = Definition::between(strategy.as_str(), &a.connect_string(), &b.connect_string());
        let root = format!("/{}", strategy.as_str());
        definition.mode = Mode::Both;
        definition.strategy = strategy;
        definition.mappings = vec![Rule { a: root.clone(), b: root.clone(), include: Vec::new(), exclude: Vec::new() }];
        let client_a = Client::connect(&Options::new(a.connect_string())).await.unwrap();
        let client_b = Client::connect(&Options::new(b.connect_string())).await.unwrap();
        create(&client_a, &root, b"").await;
        create(&client_b, &root, b"").await;
        let path = format!("{root}/x");
        create(&client_a, &path, b"from a").await;
        // Further apart than the clocks may be wrong.
        tokio::time::sleep(Duration::from_millis(700)).await;
        create(&client_b, &path, b"from b").await;
        let world = World::start(definition).await;
        match winner {
            Some(winner) => {
                for _ in 0..400 {
                    let values = [world.a.get(&path).await.unwrap().0, world.b.get(&path).await.unwrap().0];
                    if values.iter().all(|value| value == winner.as_bytes()) {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                assert_eq!(world.a.get(&path).await.unwrap().0, winner.as_bytes(), "{strategy:?}");
                assert_eq!(world.b.get(&path).await.unwrap().0, winner.as_bytes(), "{strategy:?}");
                until("the record", || !world.store.resolutions(strategy.as_str(), "/", 10).unwrap().is_empty()).await;
                let recorded = world.store.resolutions(strategy.as_str(), "/", 10).unwrap();
                let [(_, resolution)] = recorded.as_slice() else { panic!("{recorded:?}") };
                assert_eq!(&*resolution.sides.a.as_ref().unwrap().data, b"from a");
                assert_eq!(&*resolution.sides.b.as_ref().unwrap().data, b"from b");
            }
            None => {
                until("the conflict", || world.handle.status().open_conflicts == 1).await;
                let id = world.handle.ask(|link| link.open_conflicts().next().unwrap().id).await.unwrap();
                assert_eq!(world.a.get(&path).await.unwrap().0, b"from a", "nothing is written until somebody decides");
                world.handle.tell(zksync::Command::Resolve { id, winner: Side::A, seen: None }).await.unwrap();
                until("the decision", || world.handle.status().open_conflicts == 0).await;
                world.until_equal_below(&root).await;
                assert_eq!(world.b.get(&path).await.unwrap().0, b"from a");
            }
        }
    }
}
