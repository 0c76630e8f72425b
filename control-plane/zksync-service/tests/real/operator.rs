//! Who runs the service in this process and asks it, as operators do.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures::future::BoxFuture;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use zksync_service::definition::Secrets;
use zksync_service::store::Store;
use zksync_service::witness::Holder;
use zksync_service::{Service, Witness, api};

/// Tells what the test lets it tell.
#[derive(Debug, Default)]
pub(crate) struct Scripted(pub(crate) Mutex<Vec<Holder>>);

impl Witness for Scripted {
    fn holders(&self, servers: Vec<SocketAddr>) -> BoxFuture<'_, Result<Vec<Holder>, String>> {
        assert!(!servers.is_empty());
        let holders = self.0.lock().map(|holders| holders.clone()).map_err(|error| error.to_string());
        Box::pin(async move { holders })
    }
}

pub(crate) struct Operator {
    pub(crate) service: Service,
    pub(crate) router: Router,
    pub(crate) witness: Arc<Scripted>,
    pub(crate) stop: CancellationToken,
    loops: Arc<Mutex<JoinSet<()>>>,
}

impl Operator {
    pub(crate) fn with(store: Store, leader: u64) -> Operator {
        let loops: Arc<Mutex<JoinSet<()>>> = Arc::default();
        let into = loops.clone();
        let spawn = Arc::new(move |_: &'static str, run: BoxFuture<'static, ()>| {
            into.lock().expect("nobody panicked").spawn(run);
        });
        let secrets = Secrets::below(std::env::temp_dir());
        let witness = Arc::new(Scripted::default());
        let stop = CancellationToken::new();
        let service = Service::start(store, Some(witness.clone()), secrets, (leader, &format!("p{leader}")), stop.clone(), spawn)
            .expect("the store works");
        let (router, _) = api::routes(service.clone()).split_for_parts();
        Operator { service, router, witness, stop, loops }
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, body: &str) -> (StatusCode, Value) {
        let request =
            Request::builder().method(method).uri(format!("/api/v1/zksync{path}")).body(Body::from(body.to_owned())).expect("a request");
        let response = self.router.clone().oneshot(request).await.expect("the router answers");
        let status = response.status();
        let body = response.into_body().collect().await.expect("a whole body").to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    pub(crate) async fn until_phase(&self, id: &str, wanted: &str) -> Value {
        let mut last = Value::Null;
        for _ in 0..1_200 {
            let (_, page) = self.ask("GET", &format!("/migrations/{id}"), "").await;
            if page["migration"]["phase"] == wanted {
                return page;
            }
            last = page;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("not {wanted} within a minute: {last:#}");
    }

    /// Waits until a migration says that it waits for something.
    pub(crate) async fn until_waiting(&self, id: &str, wanted: &str) {
        let mut last = Value::Null;
        for _ in 0..1_200 {
            let (_, page) = self.ask("GET", &format!("/migrations/{id}"), "").await;
            if page["migration"]["waiting_for"].as_str().is_some_and(|text| text.contains(wanted)) {
                return;
            }
            last = page;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("not {wanted:?} within a minute: {last:#}");
    }

    /// Waits until a link that this process leads stands so.
    pub(crate) async fn until_status(&self, id: &str, wanted: &str) {
        let mut last = Value::Null;
        for _ in 0..1_200 {
            let (_, link) = self.ask("GET", &format!("/links/{id}"), "").await;
            if link["status"]["state"] == wanted {
                return;
            }
            last = link;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("not {wanted:?} within a minute: {last:#}");
    }

    /// Waits until this process leads the link.
    pub(crate) async fn until_leading(&self, id: &str) {
        for _ in 0..1_200 {
            if self.ask("GET", &format!("/links/{id}"), "").await.1["role"] == "leading" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("nobody leads {id} within a minute: {}", self.ask("GET", &format!("/links/{id}"), "").await.1);
    }

    /// Waits until the link has nothing to do, twice in a row.
    pub(crate) async fn until_settled(&self, id: &str) {
        let mut quiet = 0;
        for _ in 0..1_200 {
            let settled = match self.service.handle(id) {
                Ok(handle) => handle.ask(|link| link.is_settled()).await.unwrap_or(false),
                Err(_) => false,
            };
            quiet = if settled { quiet + 1 } else { 0 };
            if quiet >= 4 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{id} is not settled within a minute: {}", self.ask("GET", &format!("/links/{id}"), "").await.1);
    }

    /// Ends, as a process does that is killed: nothing is said to anybody. Gives back when its store can be opened again.
    pub(crate) async fn die(self, directory: &std::path::Path) -> Store {
        self.stop.cancel();
        let loops = std::mem::take(&mut *self.loops.lock().expect("nobody panicked"));
        drop(self);
        drop(loops);
        for _ in 0..600 {
            if let Ok(store) = Store::open(directory) {
                return store;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the store is still held");
    }
}
