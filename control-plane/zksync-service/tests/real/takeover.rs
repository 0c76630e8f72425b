//! Another control plane goes on, with a disk of its own.

use zk::{Acl, Client, CreateKind, Options};
use zksync::{Mode, Strategy};
use zksync_service::definition::Definition;
use zksync_service::store::Store;

use crate::common::{create, ensembles, tree};
use crate::operator::Operator;

async fn same(a: &Client, b: &Client) {
    for _ in 0..600 {
        if tree(a, "/app").await == tree(b, "/app").await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("not equal: {:?} {:?}", tree(a, "/app").await, tree(b, "/app").await);
}

/// What happened while nobody led is what tells a deletion from something that was never copied, and a change from a conflict: it can only be
/// told with what both sides last agreed on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_over_without_our_disk_goes_on_from_what_stands_on_b() {
    let Some((a, b)) = ensembles(1) else { return };
    let mut definition = Definition::between("t", &a.connect_string(), &b.connect_string());
    definition.mode = Mode::Both;
    definition.strategy = Strategy::Manual;
    definition.b.session_timeout_seconds = 2;
    let written = serde_json::to_string(&definition).unwrap();
    let (client_a, client_b) = (
        Client::connect(&Options::new(a.connect_string())).await.unwrap(),
        Client::connect(&Options::new(b.connect_string())).await.unwrap(),
    );
    create(&client_a, "/app", b"").await;
    for n in 0..400 {
        create(&client_a, &format!("/app/n{n}"), b"1").await;
    }
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let first = Operator::with(Store::open(directories[0].path()).unwrap(), 1);
    assert_eq!(first.ask("POST", "/links", &written).await.0, http::StatusCode::CREATED);
    first.until_leading("t").await;
    first.until_settled("t").await;
    same(&client_a, &client_b).await;
    // Some of it was written by the link, some after the first copy, and the last of it a moment before the end.
    for n in 0..50 {
        client_b.set(&format!("/app/n{n}"), b"2", None).await.unwrap();
    }
    first.until_settled("t").await;
    let mut store = first.die(directories[0].path()).await;
    let mut wiped = Store::open(directories[1].path()).unwrap();

    let change = async |round: usize| {
        for n in 0..10 {
            let n = round * 10 + n;
            client_a.delete(&format!("/app/n{n}"), None).await.unwrap();
            client_b.delete(&format!("/app/n{}", 100 + n), None).await.unwrap();
            client_a.set(&format!("/app/n{}", 200 + n), format!("a{round}").as_bytes(), None).await.unwrap();
            client_b.set(&format!("/app/n{}", 300 + n), format!("b{round}").as_bytes(), None).await.unwrap();
        }
        client_a.create(&format!("/app/new{round}"), b"x", &Acl::open(), CreateKind::Persistent).await.unwrap();
    };
    // Each time another one, whose own disk knows nothing or something that is long over.
    for round in 0..4 {
        change(round).await;
        wiped.put("link", "t", Some(&definition)).unwrap();
        let next = Operator::with(wiped, u64::try_from(round).unwrap() + 2);
        next.until_leading("t").await;
        next.until_settled("t").await;
        same(&client_a, &client_b).await;
        let gone = async |n: usize| client_b.stat(&format!("/app/n{n}")).await.unwrap().is_none();
        for n in 0..10 {
            let n = round * 10 + n;
            assert!(gone(n).await && gone(100 + n).await, "what was deleted while nobody led stays deleted: {n}");
        }
        let status = next.service.handle("t").unwrap().status();
        assert_eq!(status.open_conflicts, 0, "{status:#?}");
        let died = next.die(directories[(round + 1) % 2].path()).await;
        wiped = std::mem::replace(&mut store, died);
    }
}
