//! Links between real ensembles.

mod common;

use std::time::{Duration, Instant};

use common::{World, create, ensembles};
use zksync::Mode;
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
