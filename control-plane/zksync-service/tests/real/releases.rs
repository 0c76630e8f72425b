//! Links between ensembles of different age.

use zk::testing::{Ensemble, OldServer, ServerOptions, releases};
use zk::{Client, Options};
use zksync::Mode;
use zksync_service::definition::Definition;

use crate::common::{World, create, ensembles};

async fn keeps_in_step(a: &str, b: &str, direct: (Client, Client), what: &str) {
    let mut definition = Definition::between("age", a, b);
    definition.mode = Mode::Both;
    definition.full_pass_seconds = 3_600;
    let world = World::between(definition, direct.0, direct.1).await;
    create(&world.a, "/app", b"").await;
    world.until_equal().await;
    for n in 0..30 {
        create(&world.a, &format!("/app/a{n}"), b"1").await;
        create(&world.a, &format!("/app/a{n}/deep"), b"1").await;
        create(&world.b, &format!("/app/b{n}"), b"1").await;
        world.a.set(&format!("/app/a{n}/deep"), b"2", None).await.expect("the servers of a test answer");
    }
    world.until_equal().await;
    for n in 0..30 {
        world.b.set(&format!("/app/a{n}/deep"), b"3", None).await.expect("the servers of a test answer");
        if n % 2 == 0 {
            world.a.delete(&format!("/app/b{n}"), None).await.expect("the servers of a test answer");
        }
    }
    world.until_equal().await;
    assert_eq!(world.a.get("/app/a1/deep").await.expect("the servers of a test answer").0, b"3", "{what}");
    assert_eq!(world.b.stat("/app/b2").await.expect("the servers of a test answer"), None, "{what}");
    assert!(world.handle.status().counters.conflicts.is_empty(), "{what}: {:#?}", world.handle.status());
}

async fn client(ensemble: &Ensemble) -> Client {
    Client::connect(&Options::new(ensemble.connect_string())).await.expect("the servers of a test answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_before_3_6_are_kept_in_step_without_being_told_that_they_are_old() {
    let Some((a, b)) = ensembles(1) else { return };
    let old_a = OldServer::before(a.servers[0].address()).await;
    let old_b = OldServer::before(b.servers[0].address()).await;
    let direct = (client(&a).await, client(&b).await);
    keeps_in_step(&old_a.address().to_string(), &old_b.address().to_string(), direct, "two old ones").await;
    let refused = [old_a.refused(), old_b.refused()];
    assert!(
        refused.iter().all(|refused| (1..20).contains(refused)),
        "both are asked for what they do not have, once in a session: {refused:?}"
    );
}

/// With `ORCHESTRATOR_ZOOKEEPER_RELEASES` alone: other releases are no packages of the system.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_release_that_is_here_is_kept_in_step_with_the_installed_one() {
    for release in releases() {
        let what = release.version.clone();
        let options = ServerOptions { release: Some(release), ..ServerOptions::default() };
        // As either side: what the link keeps for itself is on B.
        for (a, b) in [(&options, &ServerOptions::default()), (&ServerOptions::default(), &options)] {
            let role = if a.release.is_some() { "A" } else { "B" };
            let (a, b) = (Ensemble::start(1, a), Ensemble::start(1, b));
            let direct = (client(&a).await, client(&b).await);
            keeps_in_step(&a.connect_string(), &b.connect_string(), direct, &format!("{what} as {role}")).await;
            println!("{what} as {role} is kept in step");
        }
    }
}
