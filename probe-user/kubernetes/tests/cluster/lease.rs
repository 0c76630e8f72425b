//! Several collectors, one of which reports.

use std::time::Duration;

use probe_kubernetes::lease::{DURATION, GIVE_UP, Lease, RETRY};
use probe_kubernetes::{Collector, CollectorConfig};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::following::config;
use crate::server::Server;

const PLACE: &str = "orchestrator/collector";

async fn lease(config: CollectorConfig, holder: &str) -> Lease {
    let (collector, _) = Collector::connect(config).await.expect("a usable address");
    collector.lease(Some("orchestrator"), "collector", holder)
}

fn holder(server: &Server) -> String {
    server.lease(PLACE).map(|lease| lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()).unwrap_or_default()
}

#[tokio::test]
async fn of_two_collectors_one_leads_until_it_gives_the_lease_back() {
    let server = Server::start().await;
    let (mut first, mut second) = (lease(config(&server), "first").await, lease(config(&server), "second").await);
    first.acquire(drop).await;
    assert_eq!(holder(&server), "first");
    assert_eq!(server.lease(PLACE).map(|lease| lease["spec"]["leaseDurationSeconds"].clone()), Some(json!(DURATION.as_secs())));
    // For as long as the first renews, the second waits.
    let (holding, _held) = watch::channel(true);
    let both = async {
        tokio::select! {
            () = second.acquire(drop) => panic!("two lead at once"),
            () = first.keep(&holding) => panic!("the lease was lost"),
        }
    };
    assert!(timeout(RETRY * 3, both).await.is_err());
    assert_eq!(second.holder(), "first");
    first.release().await;
    assert_eq!(holder(&server), "");
    timeout(RETRY * 2, second.acquire(drop)).await.expect("it was given back");
    assert_eq!(holder(&server), "second");
    assert_eq!(server.lease(PLACE).map(|lease| lease["spec"]["leaseTransitions"].clone()), Some(json!(1)));
}

#[tokio::test]
async fn a_collector_that_is_killed_is_followed_when_its_lease_has_run_out() {
    let server = Server::start().await;
    let (mut first, mut second) = (lease(config(&server), "first").await, lease(config(&server), "second").await);
    first.acquire(drop).await;
    drop(first);
    let begun = Instant::now();
    timeout(DURATION * 2, second.acquire(drop)).await.expect("it ran out");
    assert!(begun.elapsed() >= DURATION, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn two_that_want_the_same_free_lease_do_not_both_get_it() {
    for _ in 0..20 {
        let server = Server::start().await;
        let mut all = Vec::new();
        for name in ["a", "b", "c"] {
            all.push(lease(config(&server), name).await);
        }
        let attempts = all.iter_mut().map(|lease| timeout(Duration::from_millis(500), lease.acquire(drop)));
        let won = futures::future::join_all(attempts).await.into_iter().filter(Result::is_ok).count();
        assert_eq!(won, 1);
    }
}

#[tokio::test]
async fn a_holder_that_can_no_longer_renew_knows_in_time_and_goes_on_when_it_can() {
    let server = Server::start().await;
    let mut first = lease(config(&server), "first").await;
    first.acquire(drop).await;
    let (holding, mut held) = watch::channel(true);
    let keeper = first.keep(&holding);
    tokio::pin!(keeper);
    server.refuse_leases(Some(500));
    let begun = Instant::now();
    tokio::select! {
        () = &mut keeper => panic!("nobody else has it"),
        lapsed = timeout(DURATION, held.wait_for(|held| !held)) => drop(lapsed.expect("it knows").expect("it lives")),
    }
    assert!(begun.elapsed() <= GIVE_UP + Duration::from_secs(1), "{:?}", begun.elapsed());
    // Nobody leads until leases can be written again; then it goes on.
    let mut second = lease(config(&server), "second").await;
    assert!(timeout(RETRY, second.acquire(drop)).await.is_err());
    server.refuse_leases(None);
    tokio::select! {
        () = &mut keeper => panic!("nobody else has it"),
        again = timeout(RETRY * 3, held.wait_for(|held| *held)) => drop(again.expect("it goes on").expect("it lives")),
    }
    assert_eq!(holder(&server), "first");
}

#[tokio::test]
async fn a_holder_whose_lease_was_taken_returns() {
    let server = Server::start().await;
    let mut first = lease(config(&server), "first").await;
    first.acquire(drop).await;
    // While it was stopped, say, for longer than the lease lasts.
    let mut second = lease(config(&server), "second").await;
    second.acquire(drop).await;
    let (holding, _held) = watch::channel(true);
    timeout(RETRY * 2, first.keep(&holding)).await.expect("it sees the other");
    assert!(!*holding.borrow());
}

#[tokio::test]
async fn one_that_waits_with_keys_that_are_no_longer_known_reads_them_again() {
    let server = Server::start().await;
    server.accept_only(&["second"]);
    let file = tempfile::NamedTempFile::new().expect("a file");
    let write = |token: &str| {
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": server.url()}}],
            "users": [{"name": "me", "user": {"token": token}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        });
        std::fs::write(file.path(), text.to_string()).expect("written");
    };
    write("first");
    let access = probe_kubernetes::Access::Kubeconfig { path: Some(file.path().to_owned()), context: None };
    let mut waiting = lease(CollectorConfig { access, ..config(&server) }, "waiting").await;
    assert!(timeout(Duration::from_millis(500), waiting.acquire(drop)).await.is_err());
    write("second");
    timeout(RETRY * 3, waiting.acquire(drop)).await.expect("it has read the new one");
    assert_eq!(holder(&server), "waiting");
}
