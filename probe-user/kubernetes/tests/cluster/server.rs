//! A server that speaks the list and watch protocol of the Kubernetes API: pages with continue tokens, watches from a resource version,
//! bookmarks, compaction with 410 Gone; and that fails on request in the ways that real ones do.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use probe_kubernetes::Kind;
use probe_kubernetes::index::Index;
use proto::probe::v1::KubernetesObject;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, rustls};

use crate::make;
use crate::picture::by_uid;

/// What goes wrong, once, with the next request of its sort.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// A status with a body of the API's own sort.
    Refuse(u16),
    /// A status with a body that a proxy in between has made.
    RefuseInHtml(u16),
    /// No answer at all.
    Hang,
    /// A watch that begins with these bytes and then ends in order.
    SayAndEnd(String),
    /// A watch that begins with these bytes, and then the connection breaks.
    SayAndBreak(String),
    /// An answer that never ends.
    Endless,
}

/// Lists or watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    List,
    Watch,
}

#[derive(Default)]
struct Cluster {
    version: u64,
    /// Watches can begin no earlier.
    compacted: u64,
    gone_by_status: bool,
    objects: BTreeMap<Kind, BTreeMap<String, Value>>,
    log: VecDeque<Event>,
    pages: BTreeMap<String, (u64, Vec<Value>)>,
    faults: BTreeMap<(Kind, Call), VecDeque<Fault>>,
    /// Until taken back.
    standing: BTreeMap<Kind, u16>,
    calls: BTreeMap<(Kind, Call), Vec<Instant>>,
    /// Who called last.
    authorization: Option<String>,
    /// How far the watches are.
    sent: BTreeMap<Kind, u64>,
    /// Watches of older epochs end.
    epoch: u64,
}

#[derive(Clone)]
struct Event {
    version: u64,
    kind: Kind,
    line: Bytes,
}

/// The server, on a port of its own. Dropping it ends it.
pub(crate) struct Server {
    cluster: Arc<Shared>,
    url: String,
    tasks: JoinSet<()>,
}

struct Shared {
    cluster: Mutex<Cluster>,
    changed: Notify,
}

impl Shared {
    fn new() -> Self {
        Self { cluster: Mutex::new(Cluster { version: 1000, ..Cluster::default() }), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0").await
    }

    pub(crate) async fn start_at(address: &str) -> Self {
        let cluster = Arc::new(Shared::new());
        let listener = TcpListener::bind(address).await.expect("a port of the loopback");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        Self::serve(cluster, url, listener)
    }

    fn serve<L: Listener<Addr = SocketAddr>>(cluster: Arc<Shared>, url: String, listener: L) -> Self {
        let router = Router::new().fallback(answer).with_state(cluster.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.expect("a listener that accepts") });
        Self { cluster, url, tasks }
    }

    /// By TLS. With it comes the certificate that vouches for it.
    pub(crate) async fn start_with_tls() -> (Self, String) {
        let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::try_from(identity.signing_key.serialize_der()).expect("its key");
        let tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![identity.cert.der().clone()], key);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port of the loopback");
        let url = format!("https://localhost:{}", listener.local_addr().expect("its address").port());
        let tls = Tls { listener, acceptor: TlsAcceptor::from(Arc::new(tls.expect("a key that fits"))) };
        (Self::serve(Arc::new(Shared::new()), url, tls), identity.cert.pem())
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    /// No server any more, as far as the network can tell.
    pub(crate) async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }

    /// Adds or changes an object.
    pub(crate) fn put(&self, kind: Kind, mut object: Value) {
        let mut cluster = self.cluster.lock();
        cluster.version += 1;
        object["metadata"]["resourceVersion"] = json!(cluster.version.to_string());
        let before = cluster.objects.entry(kind).or_default().insert(name(&object), object.clone());
        cluster.say(kind, if before.is_some() { "MODIFIED" } else { "ADDED" }, &object);
        self.cluster.changed.notify_waiters();
    }

    /// Deletes an object.
    pub(crate) fn delete(&self, kind: Kind, namespace: &str, called: &str) {
        let mut cluster = self.cluster.lock();
        cluster.version += 1;
        let Some(mut object) = cluster.objects.entry(kind).or_default().remove(&format!("{namespace}/{called}")) else { return };
        object["metadata"]["resourceVersion"] = json!(cluster.version.to_string());
        cluster.say(kind, "DELETED", &object);
        self.cluster.changed.notify_waiters();
    }

    /// Tells the watches of a kind how far the server is.
    pub(crate) fn bookmark(&self, kind: Kind) {
        let mut cluster = self.cluster.lock();
        cluster.version += 1;
        let object = json!({"kind": "x", "apiVersion": "v1", "metadata": {"resourceVersion": cluster.version.to_string(), "creationTimestamp": null}});
        cluster.say(kind, "BOOKMARK", &object);
        self.cluster.changed.notify_waiters();
    }

    /// Forgets all events so far: watches from before are Gone, by an event or by a status.
    pub(crate) fn compact(&self, gone_by_status: bool) {
        let mut cluster = self.cluster.lock();
        cluster.compacted = cluster.version;
        cluster.gone_by_status = gone_by_status;
        cluster.log.clear();
        cluster.pages.clear();
    }

    /// Ends all watches, in order.
    pub(crate) fn end_watches(&self) {
        self.cluster.lock().epoch += 1;
        self.cluster.changed.notify_waiters();
    }

    /// Waits until the watch of a kind has been sent everything so far.
    pub(crate) async fn sent(&self, kind: Kind) {
        loop {
            let changed = self.cluster.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let cluster = self.cluster.lock();
                if cluster.sent.get(&kind).is_some_and(|&sent| sent >= cluster.version) {
                    return;
                }
            }
            changed.await;
        }
    }

    /// The next calls of this sort fail so, one after the other.
    pub(crate) fn fail(&self, kind: Kind, call: Call, faults: impl IntoIterator<Item = Fault>) {
        self.cluster.lock().faults.entry((kind, call)).or_default().extend(faults);
    }

    /// All calls for a kind are refused; `None` takes it back.
    pub(crate) fn refuse(&self, kind: Kind, status: Option<u16>) {
        let mut cluster = self.cluster.lock();
        match status {
            Some(status) => cluster.standing.insert(kind, status),
            None => cluster.standing.remove(&kind),
        };
    }

    /// As whom the last call came.
    pub(crate) fn authorization(&self) -> Option<String> {
        self.cluster.lock().authorization.clone()
    }

    /// When calls of a sort came.
    pub(crate) fn calls(&self, kind: Kind, call: Call) -> Vec<Instant> {
        self.cluster.lock().calls.get(&(kind, call)).cloned().unwrap_or_default()
    }

    /// What a collector that has seen everything would say.
    pub(crate) fn objects(&self) -> BTreeMap<String, KubernetesObject> {
        let mut index = Index::default();
        for (kind, objects) in &self.cluster.lock().objects {
            objects.values().for_each(|object| index.apply(make::facts(*kind, object)));
        }
        by_uid(index.objects())
    }
}

impl Cluster {
    fn say(&mut self, kind: Kind, word: &str, object: &Value) {
        let line = Bytes::from(format!("{}\n", json!({"type": word, "object": object})));
        self.log.push_back(Event { version: self.version, kind, line });
    }

    fn list(&mut self, kind: Kind, query: &BTreeMap<String, String>) -> Response {
        let limit = query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(usize::MAX);
        // All pages of a list are of one version.
        let (version, mut rest) = match query.get("continue") {
            None => (self.version, self.objects.get(&kind).map(|objects| objects.values().cloned().collect()).unwrap_or_default()),
            Some(token) => match self.pages.remove(token) {
                Some(page) => page,
                None => return refused(410, "The provided continue parameter is too old"),
            },
        };
        let next = rest.split_off(rest.len().min(limit));
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if !next.is_empty() {
            let token = format!("{}-{}", kind.plural(), self.calls.values().map(Vec::len).sum::<usize>());
            metadata["continue"] = json!(token);
            metadata["remainingItemCount"] = json!(next.len());
            self.pages.insert(token, (version, next));
        }
        json_answer(&json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": rest}))
    }
}

fn name(object: &Value) -> String {
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
    format!("{}/{}", text("namespace"), text("name"))
}

async fn answer(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap) -> Response {
    shared.lock().authorization = headers.get("authorization").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let Some(kind) = Kind::ALL.into_iter().find(|&kind| make::path(kind) == uri.path()) else {
        return refused(404, "the server could not find the requested resource");
    };
    let query = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let query = query.map(|(key, value)| (key.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>();
    let call = if query.get("watch").is_some_and(|watch| watch == "true") { Call::Watch } else { Call::List };
    let fault = {
        let mut cluster = shared.lock();
        cluster.calls.entry((kind, call)).or_default().push(Instant::now());
        let standing = cluster.standing.get(&kind).map(|&status| Fault::Refuse(status));
        standing.or_else(|| cluster.faults.get_mut(&(kind, call)).and_then(VecDeque::pop_front))
    };
    match fault {
        Some(fault) => fail(fault).await,
        None if call == Call::List => shared.lock().list(kind, &query),
        None => watch(&shared, kind, &query),
    }
}

async fn fail(fault: Fault) -> Response {
    match fault {
        Fault::Refuse(status) => refused(status, "refused for a test"),
        Fault::RefuseInHtml(status) => {
            let body = "<html>\n<h1>Bad Gateway</h1>\n</html>\n";
            (StatusCode::from_u16(status).expect("a status"), body).into_response()
        }
        Fault::Hang => std::future::pending().await,
        Fault::SayAndEnd(bytes) => Body::from_stream(futures::stream::iter([Ok::<_, Infallible>(bytes)])).into_response(),
        Fault::SayAndBreak(bytes) => {
            let broken = std::io::Error::other("broken for a test");
            Body::from_stream(futures::stream::iter([Ok(bytes), Err(broken)])).into_response()
        }
        Fault::Endless => {
            let chunk = Bytes::from(vec![b' '; 64 * 1024]);
            Body::from_stream(futures::stream::repeat_with(move || Ok::<_, Infallible>(chunk.clone()))).into_response()
        }
    }
}

fn refused(status: u16, message: &str) -> Response {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": status});
    (StatusCode::from_u16(status).expect("a status"), json_answer(&body)).into_response()
}

fn json_answer(body: &Value) -> Response {
    ([("content-type", "application/json")], body.to_string()).into_response()
}

fn watch(shared: &Arc<Shared>, kind: Kind, query: &BTreeMap<String, String>) -> Response {
    let from = query.get("resourceVersion").and_then(|version| version.parse::<u64>().ok()).unwrap_or(0);
    let seconds = query.get("timeoutSeconds").and_then(|seconds| seconds.parse().ok()).unwrap_or(300);
    let cluster = shared.lock();
    if from < cluster.compacted {
        let message = format!("too old resource version: {from} ({})", cluster.compacted);
        if cluster.gone_by_status {
            return refused(410, &message);
        }
        let status = json!({"kind": "Status", "status": "Failure", "reason": "Expired", "message": message, "code": 410});
        return format!("{}\n", json!({"type": "ERROR", "object": status})).into_response();
    }
    let end = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let watch = Watch { shared: shared.clone(), kind, at: from, epoch: cluster.epoch, end };
    let lines = futures::stream::unfold(watch, |mut watch| async move {
        let lines = watch.next().await?;
        Some((Ok::<_, Infallible>(lines), watch))
    });
    Body::from_stream(lines).into_response()
}

/// One watch being served.
struct Watch {
    shared: Arc<Shared>,
    kind: Kind,
    at: u64,
    epoch: u64,
    end: tokio::time::Instant,
}

impl Watch {
    /// What is new for it; `None` ends it.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut cluster = self.shared.lock();
                if cluster.epoch != self.epoch || cluster.compacted > self.at {
                    return None;
                }
                let start = cluster.log.partition_point(|event| event.version <= self.at);
                let mut lines = Vec::new();
                for event in cluster.log.range(start..).filter(|event| event.kind == self.kind) {
                    lines.extend_from_slice(&event.line);
                }
                self.at = cluster.version.max(self.at);
                let sent = cluster.sent.insert(self.kind, self.at);
                if sent != Some(self.at) {
                    self.shared.changed.notify_waiters();
                }
                if !lines.is_empty() {
                    return Some(lines.into());
                }
            }
            if tokio::time::timeout_at(self.end, changed).await.is_err() {
                return None;
            }
        }
    }
}

/// Accepts connections that shake hands.
struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            if let Ok((stream, address)) = self.listener.accept().await
                && let Ok(stream) = self.acceptor.accept(stream).await
            {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}
