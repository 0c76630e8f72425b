//! The ordinary life of a watch: pages, events, resumption, bookmarks, places that are gone.

use std::time::Duration;

use probe_kubernetes::client::Patience;
use probe_kubernetes::{Access, Cluster, Collector, CollectorConfig, Kind, KindState, StatusReport};
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use crate::make::{bare, pod, selecting};
use crate::picture::{Batch, Picture};
use crate::server::{Call, Server};

/// Longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is told at once, at most.
pub(crate) const BATCH: usize = 500;

/// A collector at work, and the one whom it tells.
pub(crate) struct Told {
    pub picture: Picture,
    pub cluster: Cluster,
    pub collector: Collector,
    pub largest: usize,
    pub batches: usize,
}

/// Impatient, so that tests are fast.
pub(crate) fn config(server: &Server) -> CollectorConfig {
    CollectorConfig {
        access: Access::Url(server.url()),
        patience: Patience {
            backoff_min: Duration::from_millis(5),
            backoff_max: Duration::from_millis(100),
            refused_min: Duration::from_millis(200),
            refused_max: Duration::from_millis(200),
            answer: Duration::from_millis(700),
            watch: Duration::from_secs(60),
        },
        ..CollectorConfig::default()
    }
}

impl Told {
    pub(crate) async fn by(config: CollectorConfig) -> Self {
        let (collector, cluster) = Collector::connect(config).await.expect("a usable address");
        Self { picture: Picture::default(), cluster, collector, largest: 0, batches: 0 }
    }

    /// Takes in what happens next.
    pub(crate) async fn advance(&mut self) {
        let (scope, step) = self.collector.next().await;
        self.cluster.take(&scope, step);
    }

    /// Tells everything that there is to tell.
    pub(crate) fn tell(&mut self) {
        while self.cluster.index.has_changes() {
            let changes = self.cluster.index.take_changes(BATCH);
            self.largest = self.largest.max(changes.changed.len() + changes.gone.len());
            self.batches += 1;
            self.picture.apply(Batch { synced: self.cluster.is_synced() && !self.cluster.index.has_changes(), ..changes.into() });
        }
        self.picture.synced = self.cluster.is_synced();
    }

    /// Goes on until the picture is as asked.
    pub(crate) async fn until(&mut self, what: &str, mut asked: impl FnMut(&Picture) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.tell();
            if asked(&self.picture) {
                return;
            }
            if timeout_at(deadline, self.advance()).await.is_err() {
                panic!("not so: {what}; {:#?}", self.cluster.status());
            }
        }
    }

    /// Goes on until the picture is whole and the server's.
    pub(crate) async fn until_as(&mut self, server: &Server) {
        let expected = server.objects();
        self.until("the picture is the server's", |picture| picture.synced && picture.objects == expected).await;
    }

    /// Goes on until the status is as asked, telling all the while.
    pub(crate) async fn until_status(&mut self, what: &str, mut asked: impl FnMut(&StatusReport) -> bool) -> StatusReport {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.tell();
            let report = self.cluster.status();
            if asked(&report) {
                return report;
            }
            if timeout_at(deadline, self.advance()).await.is_err() {
                panic!("not so: {what}; {report:#?}");
            }
        }
    }

    /// Takes in what happens, and tells nobody, until something else is done.
    pub(crate) async fn meanwhile<T>(&mut self, other: impl Future<Output = T>) -> T {
        tokio::pin!(other);
        loop {
            tokio::select! {
                done = &mut other => return done,
                () = self.advance() => {}
            }
        }
    }
}

/// A little of everything.
pub(crate) async fn small_cluster() -> Server {
    let server = Server::start().await;
    for kind in Kind::ALL {
        server.put(kind, bare(kind, "shop", "first"));
    }
    server.put(Kind::Service, selecting(Kind::Service, "shop", "web", json!({"app": "web"})));
    for name in ["a", "b", "c"] {
        server.put(Kind::Pod, pod("shop", name, json!({"app": "web"})));
    }
    server
}

#[tokio::test]
async fn every_kind_is_listed_in_pages_and_the_receiver_learns_when_it_has_all() {
    let server = small_cluster().await;
    for n in 0..1200 {
        server.put(Kind::Pod, pod("shop", &format!("many-{n}"), json!({"app": "many"})));
    }
    let mut told = Told::by(config(&server)).await;
    told.until_as(&server).await;
    assert_eq!(told.picture.parents("pods-shop-a"), Some(["services-shop-web".to_owned()].as_slice()));
    assert_eq!(server.calls(Kind::Pod, Call::List).len(), 3);
    assert!(told.largest <= 500);
    let report = told.until_status("all are watched", |report| report.kinds.values().all(|kind| kind.state == KindState::Watching)).await;
    assert!(report.synced);
    assert!(report.kinds.values().all(|kind| kind.synced && kind.restarts == 0 && kind.errors == 0), "{report:#?}");
    assert_eq!(report.kinds[&Kind::Pod].objects, 1204);
}

#[tokio::test]
async fn an_empty_cluster_is_whole_at_once() {
    let server = Server::start().await;
    let mut told = Told::by(config(&server)).await;
    told.until("it is whole", |picture| picture.synced).await;
    assert!(told.picture.objects.is_empty());
}

#[tokio::test]
async fn events_change_only_what_they_change() {
    let server = small_cluster().await;
    let mut told = Told::by(config(&server)).await;
    told.until_as(&server).await;
    server.put(Kind::Service, selecting(Kind::Service, "shop", "web", json!({"app": "nobody"})));
    server.delete(Kind::Pod, "shop", "b");
    server.put(Kind::Pod, pod("shop", "d", json!({"app": "nobody"})));
    told.until_as(&server).await;
    assert_eq!(told.picture.parents("pods-shop-a"), Some([].as_slice()));
    assert_eq!(told.picture.parents("pods-shop-d"), Some(["services-shop-web".to_owned()].as_slice()));
    assert_eq!(told.picture.ever_gone, ["pods-shop-b"]);
}

#[tokio::test]
async fn a_watch_that_ends_is_resumed_where_it_was() {
    let server = small_cluster().await;
    let mut told = Told::by(config(&server)).await;
    told.until_as(&server).await;
    for round in 0..3 {
        server.end_watches();
        server.put(Kind::Pod, pod("shop", &format!("new-{round}"), json!({})));
        server.delete(Kind::Pod, "shop", ["a", "b", "c"][round]);
        told.until_as(&server).await;
    }
    assert_eq!(server.calls(Kind::Pod, Call::List).len(), 1, "never listed again");
    assert!(server.calls(Kind::Pod, Call::Watch).len() >= 2);
    assert_eq!(told.cluster.status().kinds[&Kind::Pod].restarts, 0);
}

#[tokio::test]
async fn a_bookmark_saves_a_list() {
    let server = small_cluster().await;
    let mut told = Told::by(config(&server)).await;
    told.until_as(&server).await;
    told.until_status("all are watched", |report| report.kinds.values().all(|kind| kind.state == KindState::Watching)).await;
    server.put(Kind::Pod, pod("shop", "d", json!({})));
    server.bookmark(Kind::Service);
    told.meanwhile(server.sent(Kind::Service)).await;
    server.compact(false);
    server.end_watches();
    server.put(Kind::Service, selecting(Kind::Service, "shop", "late", json!({"app": "web"})));
    server.put(Kind::Deployment, bare(Kind::Deployment, "shop", "late"));
    told.until_as(&server).await;
    assert_eq!(server.calls(Kind::Service, Call::List).len(), 1, "it had a bookmark");
    assert_eq!(server.calls(Kind::Deployment, Call::List).len(), 2, "it had none");
}

async fn gone(by_status: bool) {
    let server = small_cluster().await;
    let mut told = Told::by(config(&server)).await;
    told.until_as(&server).await;
    told.until_status("all are watched", |report| report.kinds.values().all(|kind| kind.state == KindState::Watching)).await;
    server.end_watches();
    server.delete(Kind::Pod, "shop", "b");
    server.put(Kind::Pod, pod("shop", "d", json!({})));
    server.compact(by_status);
    told.until_as(&server).await;
    let report = told.until_status("it was listed again", |report| report.kinds[&Kind::Pod].restarts == 1).await;
    assert_eq!(told.picture.ever_gone, ["pods-shop-b"], "what still exists is never told as gone");
    assert!(report.kinds[&Kind::Pod].last_error.as_deref().is_some_and(|error| error.contains("too old resource version")), "{report:#?}");
    // And it goes on from there.
    server.put(Kind::Pod, pod("shop", "e", json!({})));
    told.until_as(&server).await;
}

#[tokio::test]
async fn a_place_that_is_gone_by_an_event_means_a_new_list() {
    gone(false).await;
}

#[tokio::test]
async fn a_place_that_is_gone_by_a_status_means_a_new_list() {
    gone(true).await;
}

#[tokio::test]
async fn only_the_namespaces_that_are_named_are_looked_at() {
    let server = small_cluster().await;
    for namespace in ["bank", "other"] {
        server.put(Kind::Namespace, bare(Kind::Namespace, "", namespace));
        server.put(Kind::Pod, pod(namespace, "a", json!({})));
    }
    server.put(Kind::Namespace, bare(Kind::Namespace, "", "shop"));
    let namespaces = vec!["shop".into(), "bank".into()];
    let mut told = Told::by(CollectorConfig { namespaces, ..config(&server) }).await;
    let seen = |told: &Told| {
        let of = |prefix: &str| told.picture.objects.keys().filter(|uid| uid.starts_with(prefix)).cloned().collect::<Vec<_>>();
        (of("pods-"), of("namespaces-"), of("nodes-"))
    };
    told.until("the picture is whole", |picture| picture.synced).await;
    let pods = ["pods-bank-a", "pods-shop-a", "pods-shop-b", "pods-shop-c", "pods-shop-first"].map(str::to_owned).to_vec();
    let namespaces = ["namespaces--bank", "namespaces--shop"].map(str::to_owned).to_vec();
    assert_eq!(seen(&told), (pods, namespaces, vec!["nodes-shop-first".to_owned()]));
    told.until_status("all are watched", |report| report.kinds.values().all(|kind| kind.state == KindState::Watching)).await;
    // A list of one namespace ends nothing in another.
    server.end_watches();
    server.delete(Kind::Pod, "shop", "b");
    server.delete(Kind::Pod, "other", "a");
    server.put(Kind::Pod, pod("bank", "b", json!({})));
    server.compact(true);
    told.until("it was listed again", |picture| {
        picture.objects.contains_key("pods-bank-b") && !picture.objects.contains_key("pods-shop-b")
    })
    .await;
    assert_eq!(told.picture.ever_gone, ["pods-shop-b"]);
}

/// A kubeconfig with two contexts, of which "right" leads to `url` and trusts `certificate`.
fn kubeconfig(url: &str, certificate: &std::path::Path) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "wrong",
        "clusters": [
            {"name": "here", "cluster": {"server": url, "certificate-authority": certificate}},
            {"name": "there", "cluster": {"server": "http://127.0.0.1:1"}},
        ],
        "users": [{"name": "me", "user": {"token": "my-token"}}],
        "contexts": [{"name": "right", "context": {"cluster": "here", "user": "me"}}, {"name": "wrong", "context": {"cluster": "there", "user": "me"}}],
    });
    std::fs::write(file.path(), text.to_string()).expect("written");
    file
}

#[tokio::test]
async fn a_kubeconfig_says_where_to_go_whom_to_trust_and_who_asks() {
    let (server, certificate) = Server::start_with_tls().await;
    server.put(Kind::Node, bare(Kind::Node, "", "n"));
    let trusted = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(trusted.path(), certificate).expect("written");
    let file = kubeconfig(&server.url(), trusted.path());
    let access = Access::Kubeconfig { path: Some(file.path().to_owned()), context: Some("right".to_owned()) };
    let mut told = Told::by(CollectorConfig { access, ..config(&server) }).await;
    told.until_as(&server).await;
    assert_eq!(server.authorization().as_deref(), Some("Bearer my-token"));
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_is_not_asked() {
    let (server, _) = Server::start_with_tls().await;
    let (_, other) = Server::start_with_tls().await;
    let trusted = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(trusted.path(), other).expect("written");
    let file = kubeconfig(&server.url(), trusted.path());
    let access = Access::Kubeconfig { path: Some(file.path().to_owned()), context: Some("right".to_owned()) };
    let mut told = Told::by(CollectorConfig { access, ..config(&server) }).await;
    let report = told.until_status("it fails", |report| report.kinds[&Kind::Node].errors > 0).await;
    assert!(report.kinds[&Kind::Node].last_error.as_deref().is_some_and(|error| error.contains("certificate")), "{report:#?}");
    assert_eq!(server.authorization(), None, "the token was not given away");
}

#[tokio::test]
async fn what_cannot_be_an_address_is_refused_at_once() {
    let refused = |access: Access| async {
        Collector::connect(CollectorConfig { access, ..CollectorConfig::default() }).await.err().map(|error| error.to_string())
    };
    assert_eq!(refused(Access::Url("not a url".to_owned())).await.as_deref(), Some("no address of a Kubernetes API: \"not a url\""));
    let missing = refused(Access::Kubeconfig { path: Some("/does/not/exist".into()), context: None }).await;
    assert!(missing.is_some_and(|error| error.starts_with("unusable kubeconfig")));
}
