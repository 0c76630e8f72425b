//! A whole Marathon on a port of its own, with a master that is made up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base::Timestamp;
use bytes::Bytes;
use edge_marathon::driver;
use edge_marathon::settings::Settings;
use edge_marathon::store::{MemoryStore, Store};
use edge_marathon::{Context, client, probes, router};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::master::Master;

pub(crate) struct World {
    pub(crate) address: SocketAddr,
    pub(crate) master: Master,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) handle: driver::Handle,
    stopping: CancellationToken,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        if self.text.is_empty() { Value::Null } else { self.json() }
    }
}

pub(crate) fn now() -> Timestamp {
    Timestamp::from_unix_millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64)
}

impl Drop for World {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

impl World {
    pub(crate) async fn new() -> World {
        World::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> World {
        let master = Master::start(4, 8.0).await;
        World::on(master, Arc::new(MemoryStore::default()), change).await
    }

    pub(crate) async fn on(master: Master, store: Arc<dyn Store>, change: impl FnOnce(&mut Settings)) -> World {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        World::listening(listener, master, store, change)
    }

    pub(crate) fn listening(listener: TcpListener, master: Master, store: Arc<dyn Store>, change: impl FnOnce(&mut Settings)) -> World {
        let address = listener.local_addr().unwrap();
        let mut settings = Settings {
            masters: vec![format!("http://{}", master.address)],
            hostname: "127.0.0.1".to_owned(),
            http_port: address.port(),
            ..Settings::default()
        };
        settings.core.min_revive_offers_interval = Duration::from_millis(20);
        settings.core.seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        change(&mut settings);
        let settings = Arc::new(settings);
        let stopping = CancellationToken::new();
        let (handle, outlets, driver) = driver::start(&settings, store.clone(), now, stopping.clone()).unwrap();
        tokio::spawn(driver);
        tokio::spawn(client::run(settings.clone(), handle.clone(), outlets.calls, stopping.clone()));
        tokio::spawn(probes::run(outlets.probes, handle.clone(), 64, stopping.clone()));
        let context = Context::new(settings, handle.clone(), now, stopping.clone());
        let logged = context.clone();
        tokio::spawn(async move { logged.expire_levels().await });
        let router = router(context);
        let stop = stopping.clone();
        tokio::spawn(async move {
            let service = router.into_make_service_with_connect_info::<SocketAddr>();
            axum::serve(listener, service).with_graceful_shutdown(async move { stop.cancelled().await }).await
        });
        World { address, master, store, handle, stopping }
    }

    /// Ends this Marathon; its master and its store live on.
    pub(crate) async fn stop(self) -> (Master, Arc<dyn Store>) {
        self.stopping.cancel();
        tokio::time::sleep(Duration::from_millis(50)).await;
        (self.master.clone(), self.store.clone())
    }

    pub(crate) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = http::Request::builder().method(method).uri(path).header("host", self.address.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = sender.send_request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Answer { status: parts.status.as_u16(), headers: parts.headers, text }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, &[("content-type", "application/json")], body.to_string()).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.send("PUT", path, &[("content-type", "application/json")], body.to_string()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], "").await
    }

    /// Asks until the answer is as wanted.
    #[track_caller]
    pub(crate) fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool + 'static) -> impl Future<Output = Value> {
        let at = std::panic::Location::caller();
        async move {
            let begun = Instant::now();
            loop {
                let answer = self.get(path).await;
                let value = if answer.status == 200 { answer.json() } else { Value::Null };
                if wanted(&value) {
                    return value;
                }
                assert!(begun.elapsed() < Duration::from_secs(30), "{at}: still {}", answer.text);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// The version of what is at `path`, once nothing is deployed any more.
    pub(crate) async fn settled_version(&self, path: &str) -> String {
        self.settled().await;
        self.get(path).await.is(200)["version"].as_str().unwrap().to_owned()
    }

    /// Waits until no deployment runs.
    #[track_caller]
    pub(crate) fn settled(&self) -> impl Future<Output = Value> {
        self.until("/v2/deployments", |all| all.as_array().is_some_and(Vec::is_empty))
    }
}
