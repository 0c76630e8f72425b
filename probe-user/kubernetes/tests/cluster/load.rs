//! Many objects, many events, slow receivers.

use std::time::{Duration, Instant};

use probe_kubernetes::index::{Index, Limits};
use probe_kubernetes::{CollectorConfig, Kind};
use serde_json::json;

use crate::following::{BATCH, Told, config};
use crate::make::{facts, pod, selecting};
use crate::server::{Call, Server};

const PODS: usize = 5000;

fn name(n: usize) -> String {
    format!("pod-{n:05}")
}

/// Every pod is replaced, changed, relabelled or deleted, many times over.
fn churn(server: &Server, round: usize) {
    for n in 0..PODS {
        match (n + round) % 5 {
            0 => server.delete(Kind::Pod, "load", &name(n)),
            1 => server.put(Kind::Pod, pod("load", &name(n), json!({"app": format!("app-{}", (n + round) % 50)}))),
            2 => server.put(Kind::Pod, pod("load", &format!("{}-{round}", name(n)), json!({"app": "app-1"}))),
            3 => server.delete(Kind::Pod, "load", &format!("{}-{}", name(n), round.saturating_sub(1))),
            _ => server.put(
                Kind::Service,
                selecting(Kind::Service, "load", &format!("svc-{}", n % 50), json!({"app": format!("app-{}", round % 50)})),
            ),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_pods_in_turmoil_end_as_the_server_has_them() {
    let server = Server::start().await;
    for n in 0..PODS {
        server.put(Kind::Pod, pod("load", &name(n), json!({"app": format!("app-{}", n % 50)})));
    }
    let mut told = Told::by(config(&server)).await;
    told.until_as(&server).await;
    let mut most = 0;
    for round in 0..6 {
        churn(&server, round);
        if round == 3 {
            // In the middle of it the watches end and the past is forgotten.
            server.compact(round % 2 == 0);
            server.end_watches();
        }
        // The receiver looks away; what it misses does not queue up: an object counts once, and is gone only if it was told.
        let away = tokio::time::Instant::now() + Duration::from_millis(300);
        while tokio::time::timeout_at(away, told.advance()).await.is_ok() {
            let report = told.cluster.status();
            let known = report.kinds.values().map(|kind| kind.objects).sum::<usize>();
            let bound = known + told.picture.objects.len();
            most = most.max(report.pending);
            assert!(report.pending <= bound, "{} of {bound}", report.pending);
        }
    }
    assert!(most > BATCH, "the receiver was never behind: {most}");
    told.until_as(&server).await;
    assert!(told.largest <= BATCH, "{}", told.largest);
}

#[tokio::test]
async fn what_a_receiver_misses_is_told_once() {
    let server = Server::start().await;
    server.put(Kind::Node, crate::make::bare(Kind::Node, "", "n"));
    let mut told = Told::by(config(&server)).await;
    told.until_as(&server).await;
    told.until_status("pods are watched", |report| report.kinds[&Kind::Pod].state == probe_kubernetes::KindState::Watching).await;
    for round in 0..200 {
        for n in 0..20 {
            server.put(Kind::Pod, pod("load", &name(n), json!({"round": round.to_string()})));
        }
        server.put(Kind::Pod, pod("load", &format!("short-{round}"), json!({})));
        server.delete(Kind::Pod, "load", &format!("short-{round}"));
    }
    // The receiver looks away until there is nothing more to see.
    while tokio::time::timeout(Duration::from_millis(500), told.advance()).await.is_ok() {}
    let before = told.batches;
    told.until_as(&server).await;
    // 4,400 events for 20 objects.
    assert_eq!(told.batches - before, 1);
    assert!(told.picture.ever_gone.is_empty());
}

#[tokio::test]
async fn a_kind_that_is_full_is_said_to_be() {
    let server = Server::start().await;
    for n in 0..50 {
        server.put(Kind::Pod, pod("load", &name(n), json!({})));
    }
    let mut told = Told::by(CollectorConfig { limits: Limits { objects_per_kind: 30 }, ..config(&server) }).await;
    told.until("it is whole", |picture| picture.synced).await;
    assert_eq!(told.picture.objects.len(), 30);
    let pods = &told.cluster.status().kinds[&Kind::Pod];
    assert_eq!((pods.objects, pods.refused), (30, 20));
    assert_eq!(server.calls(Kind::Pod, Call::List).len(), 1);
}

/// The cost of one event does not grow with the cluster: a factor of ten in pods leaves it about the same.
#[test]
fn one_event_does_not_walk_all_pods() {
    fn cost(pods: usize) -> Duration {
        let mut index = Index::default();
        for n in 0..pods {
            index.apply(facts(Kind::Pod, &pod("load", &name(n), json!({"app": format!("app-{}", n / 10)}))));
        }
        let services = [0, 1].map(|n| facts(Kind::Service, &selecting(Kind::Service, "load", "svc", json!({"app": format!("app-{n}")}))));
        index.apply(services[0].clone());
        index.take_changes(usize::MAX);
        // The best of some: others use this machine as well.
        let rounds = (0..10).map(|_| {
            let begin = Instant::now();
            for round in 0..100 {
                index.apply(services[(round + 1) % 2].clone());
                assert_eq!(index.take_changes(usize::MAX).changed.len(), 20);
            }
            begin.elapsed()
        });
        rounds.min().unwrap_or_default()
    }
    let (small, large) = (cost(1000), cost(20_000));
    assert!(large < small * 6, "{small:?} with 1,000 pods, {large:?} with 20,000");
}
