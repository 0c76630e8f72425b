//! A server that speaks the list and watch protocol of the Kubernetes API: pages with continue tokens, watches from a resource version,
//! bookmarks, compaction with 410 Gone, writes with conflicts, leases, terminals; and that fails on request in the ways that real ones do.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use futures::StreamExt as _;
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

use crate::picture::by_uid;
use crate::{make, terminals};

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
    /// A watch that is accepted and then says nothing, for ever.
    Silent,
    /// An answer as it should be, in pieces of so many bytes with a pause between.
    Slowly(usize),
    /// A list of which only the first half comes before the connection breaks.
    Half,
}

/// Marks an answer that does not come: its program says nothing.
const QUIET: &str = "x-quiet";

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
    /// Who may call; `None` for everybody.
    tokens: Option<BTreeSet<String>>,
    /// By namespace and name.
    leases: BTreeMap<String, Value>,
    /// Writes of sizes that fail because somebody else was faster.
    conflicts: usize,
    /// Writes of leases are refused.
    leases_refused: Option<u16>,
    /// Nobody may open terminals.
    terminals_forbidden: bool,
    /// The older of the protocols of terminals is the only one.
    terminals_old: bool,
    /// What was typed into terminals.
    typed: Vec<u8>,
    /// How far the watches are.
    sent: BTreeMap<Kind, u64>,
    /// Watches of older epochs end.
    epoch: u64,
}

#[derive(Clone)]
struct Event {
    version: u64,
    kind: Kind,
    /// Of the object; `None` for what concerns every watch of the kind.
    namespace: Option<String>,
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

    fn put(&self, kind: Kind, mut object: Value) -> Value {
        let mut cluster = self.lock();
        cluster.version += 1;
        object["metadata"]["resourceVersion"] = json!(cluster.version.to_string());
        let before = cluster.objects.entry(kind).or_default().insert(name(&object), object.clone());
        cluster.say(kind, if before.is_some() { "MODIFIED" } else { "ADDED" }, &object);
        self.changed.notify_waiters();
        object
    }

    fn delete(&self, kind: Kind, namespace: &str, called: &str) {
        let mut cluster = self.lock();
        cluster.version += 1;
        let Some(mut object) = cluster.objects.entry(kind).or_default().remove(&format!("{namespace}/{called}")) else { return };
        object["metadata"]["resourceVersion"] = json!(cluster.version.to_string());
        cluster.say(kind, "DELETED", &object);
        self.changed.notify_waiters();
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
    pub(crate) fn put(&self, kind: Kind, object: Value) {
        self.cluster.put(kind, object);
    }

    /// The next writes of a size come too late.
    pub(crate) fn conflict(&self, times: usize) {
        self.cluster.lock().conflicts = times;
    }

    /// An object as it is now.
    pub(crate) fn object(&self, kind: Kind, namespace: &str, called: &str) -> Option<Value> {
        self.cluster.lock().objects.get(&kind)?.get(&format!("{namespace}/{called}")).cloned()
    }

    /// Deletes an object.
    pub(crate) fn delete(&self, kind: Kind, namespace: &str, called: &str) {
        self.cluster.delete(kind, namespace, called);
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

    /// As one that comes after others at its place: its versions are beyond theirs, and what was before is forgotten.
    #[allow(dead_code, reason = "for the server as a program")]
    pub(crate) fn come_later(&self) {
        let mut cluster = self.cluster.lock();
        let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        cluster.version = seconds * 1000;
        cluster.compacted = cluster.version;
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

    /// From now on only these tokens are known.
    pub(crate) fn accept_only(&self, tokens: &[&str]) {
        self.cluster.lock().tokens = Some(tokens.iter().map(|token| format!("Bearer {token}")).collect());
    }

    /// Terminals are refused from now on.
    pub(crate) fn forbid_terminals(&self) {
        self.cluster.lock().terminals_forbidden = true;
    }

    /// As servers before 1.30: the end of what is typed cannot be told.
    pub(crate) fn speak_old_terminals(&self) {
        self.cluster.lock().terminals_old = true;
    }

    /// What was typed into terminals so far.
    pub(crate) fn typed(&self) -> Vec<u8> {
        self.cluster.lock().typed.clone()
    }

    /// Leases cannot be read or written; `None` takes it back.
    pub(crate) fn refuse_leases(&self, status: Option<u16>) {
        self.cluster.lock().leases_refused = status;
    }

    /// A lease, by `namespace/name`.
    pub(crate) fn lease(&self, place: &str) -> Option<Value> {
        self.cluster.lock().leases.get(place).cloned()
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
        let namespace = object["metadata"]["namespace"].as_str().map(str::to_owned);
        self.log.push_back(Event { version: self.version, kind, namespace, line });
    }

    fn list(&mut self, kind: Kind, namespace: Option<&str>, query: &BTreeMap<String, String>) -> Response {
        let limit = query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(usize::MAX);
        // All pages of a list are of one version.
        let (version, mut rest) = match query.get("continue") {
            None => {
                let objects = self.objects.get(&kind).into_iter().flat_map(BTreeMap::values);
                (self.version, objects.filter(|object| is_in(object, namespace)).cloned().collect::<Vec<_>>())
            }
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

fn is_in(object: &Value, namespace: Option<&str>) -> bool {
    namespace.is_none_or(|namespace| object["metadata"]["namespace"] == namespace)
}

/// What a path of the API names.
struct Place {
    /// `None` is the leases.
    kind: Option<Kind>,
    namespace: Option<String>,
    name: Option<String>,
}

impl Place {
    fn of(path: &str) -> Option<Self> {
        let leases = "/apis/coordination.k8s.io/v1";
        let known = Kind::ALL.into_iter().map(|kind| (Some(kind), make::path(kind)));
        for (kind, path_of_kind) in known.chain([(None, format!("{leases}/leases"))]) {
            let (group, plural) = path_of_kind.rsplit_once('/')?;
            let Some(rest) = path.strip_prefix(group).and_then(|rest| rest.strip_prefix('/')) else { continue };
            let parts = rest.split('/').collect::<Vec<_>>();
            let (namespace, name) = match parts[..] {
                ["namespaces", namespace, named] if named == plural => (Some(namespace), None),
                ["namespaces", namespace, named, name] if named == plural => (Some(namespace), Some(name)),
                [named] if named == plural => (None, None),
                [named, name] if named == plural => (None, Some(name)),
                _ => continue,
            };
            return Some(Self { kind, namespace: namespace.map(str::to_owned), name: name.map(str::to_owned) });
        }
        None
    }

    fn key(&self) -> String {
        format!("{}/{}", self.namespace.as_deref().unwrap_or_default(), self.name.as_deref().unwrap_or_default())
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    body: Bytes,
) -> Response {
    {
        let mut cluster = shared.lock();
        let authorization = headers.get("authorization").and_then(|value| value.to_str().ok()).map(str::to_owned);
        cluster.authorization.clone_from(&authorization);
        if cluster.tokens.as_ref().is_some_and(|tokens| authorization.is_none_or(|token| !tokens.contains(&token))) {
            return refused(401, "Unauthorized");
        }
    }
    if let Some((pod, part)) = uri.path().rsplit_once('/').filter(|(_, part)| matches!(*part, "exec" | "attach")) {
        return terminal(&shared, pod, part, uri.query().unwrap_or_default(), upgrade);
    }
    if let Some(response) = beside(&shared, &method, &uri, &body) {
        if response.headers().contains_key(QUIET) {
            std::future::pending::<()>().await;
        }
        return response;
    }
    let Some(place) = Place::of(uri.path()) else {
        return refused(404, "the server could not find the requested resource");
    };
    let query = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let query = query.map(|(key, value)| (key.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>();
    if place.kind.is_none() || place.name.is_some() || method != Method::GET {
        return one(&shared, &place, &method, &body);
    }
    let Some(kind) = place.kind else { return refused(404, "not found") };
    let call = if query.get("watch").is_some_and(|watch| watch == "true") { Call::Watch } else { Call::List };
    let fault = {
        let mut cluster = shared.lock();
        cluster.calls.entry((kind, call)).or_default().push(Instant::now());
        let standing = cluster.standing.get(&kind).map(|&status| Fault::Refuse(status));
        standing.or_else(|| cluster.faults.get_mut(&(kind, call)).and_then(VecDeque::pop_front))
    };
    let namespace = place.namespace.as_deref();
    match fault {
        Some(Fault::Slowly(piece)) => {
            let whole = shared.lock().list(kind, namespace, &query);
            slowly(whole, piece).await
        }
        Some(Fault::Half) => {
            let whole = shared.lock().list(kind, namespace, &query);
            let bytes = axum::body::to_bytes(whole.into_body(), usize::MAX).await.expect("a body");
            fail(Fault::SayAndBreak(String::from_utf8_lossy(&bytes[..bytes.len() / 2]).into_owned())).await
        }
        Some(fault) => fail(fault).await,
        None if call == Call::List => shared.lock().list(kind, namespace, &query),
        None => watch(&shared, kind, namespace, &query),
    }
}

fn terminal(
    shared: &Arc<Shared>,
    pod: &str,
    part: &str,
    query: &str,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let Some(place) = Place::of(pod) else { return refused(404, "not found") };
    let cluster = shared.lock();
    if cluster.terminals_forbidden {
        let (namespace, name) = (place.namespace.unwrap_or_default(), place.name.unwrap_or_default());
        let what = format!("cannot create resource \"pods/{part}\" in API group \"\" in the namespace {namespace:?}");
        return refused(403, &format!("pods {name:?} is forbidden: User \"collector\" {what}"));
    }
    if !cluster.objects.get(&Kind::Pod).is_some_and(|pods| pods.contains_key(&place.key())) {
        return refused(404, "not found");
    }
    let protocols: &[&str] = if cluster.terminals_old { &["v4.channel.k8s.io"] } else { &["v5.channel.k8s.io", "v4.channel.k8s.io"] };
    let keeper = shared.clone();
    terminals::answer(part, query, upgrade, protocols, move |bytes| keeper.lock().typed.extend_from_slice(bytes))
}

/// What is served beside objects: logs, sizes of controllers, events.
fn beside(shared: &Arc<Shared>, method: &Method, uri: &Uri, body: &Bytes) -> Option<Response> {
    let query = uri.query().unwrap_or_default();
    if uri.path().ends_with("/events") {
        let events =
            json!([{"type": "Normal", "reason": "Scheduled", "message": format!("for {query}"), "lastTimestamp": "2026-03-01T12:00:00Z"}]);
        return Some(json_answer(&json!({"kind": "EventList", "items": events})));
    }
    let (object, part) = uri.path().rsplit_once('/').filter(|(_, part)| matches!(*part, "log" | "scale"))?;
    let place = Place::of(object)?;
    let kind = place.kind?;
    let mut cluster = shared.lock();
    let Some(known) = cluster.objects.entry(kind).or_default().get(&place.key()).cloned() else {
        return Some(refused(404, &format!("{} {:?} not found", kind.plural(), place.name.unwrap_or_default())));
    };
    if part == "log" {
        let container = query.split('&').find_map(|pair| pair.strip_prefix("container=")).unwrap_or_default().to_owned();
        if container.starts_with("waiting") {
            return Some(refused(400, &format!("container {container:?} in pod is waiting to start: ContainerCreating")));
        }
        if container.starts_with("quiet") {
            // As the kubelet does: an answer begins with the first line.
            return Some(([(QUIET, "true")], "").into_response());
        }
        let first = format!("first of {container} ({query})\nhalf a li");
        let rest = futures::stream::once(async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            Ok::<_, Infallible>("ne\nlast without end".to_owned())
        });
        let lines = futures::stream::iter([Ok(first)]).chain(rest);
        return Some(Body::from_stream(lines).into_response());
    }
    let mut scale = json!({"kind": "Scale", "metadata": known["metadata"], "spec": {"replicas": known["spec"]["replicas"]}});
    if method == Method::PUT {
        scale = serde_json::from_slice(body).unwrap_or_default();
        // Somebody else was faster, the first times.
        let conflicts = cluster.conflicts.saturating_sub(1);
        if std::mem::replace(&mut cluster.conflicts, conflicts) > 0
            || scale["metadata"]["resourceVersion"] != known["metadata"]["resourceVersion"]
        {
            return Some(refused(409, "the object has been modified"));
        }
        drop(cluster);
        let mut changed = known;
        changed["spec"]["replicas"] = scale["spec"]["replicas"].clone();
        shared.put(kind, changed);
    }
    Some(json_answer(&scale))
}

async fn slowly(whole: Response, piece: usize) -> Response {
    let bytes = axum::body::to_bytes(whole.into_body(), usize::MAX).await.expect("a body");
    let pieces = bytes.chunks(piece).map(Bytes::copy_from_slice).collect::<Vec<_>>();
    let pieces = futures::stream::iter(pieces).then(|piece| async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok::<_, Infallible>(piece)
    });
    ([("content-type", "application/json")], Body::from_stream(pieces)).into_response()
}

/// Reads or writes one object.
fn one(shared: &Arc<Shared>, place: &Place, method: &Method, body: &Bytes) -> Response {
    let given = serde_json::from_slice::<Value>(body).unwrap_or_default();
    let mut cluster = shared.lock();
    if let (None, Some(status)) = (place.kind, cluster.leases_refused) {
        return refused(status, "leases are refused for a test");
    }
    let key = match place.name {
        Some(_) => place.key(),
        None => format!("{}/{}", place.namespace.as_deref().unwrap_or_default(), given["metadata"]["name"].as_str().unwrap_or_default()),
    };
    let known = match place.kind {
        Some(kind) => cluster.objects.entry(kind).or_default().get(&key).cloned(),
        None => cluster.leases.get(&key).cloned(),
    };
    let mut object = match (method, known) {
        (&Method::GET, Some(known)) => return json_answer(&known),
        (&Method::GET | &Method::PUT | &Method::DELETE | &Method::PATCH, None) => return refused(404, "not found"),
        (&Method::PATCH, Some(mut known)) => {
            // As far as a merge patch of one field goes.
            let Some(spec) = given["spec"].as_object() else { return refused(400, "only patches of a spec") };
            for (key, value) in spec {
                known["spec"][key] = value.clone();
            }
            known
        }
        (&Method::DELETE, Some(known)) if given["preconditions"]["uid"].as_str().is_some_and(|uid| known["metadata"]["uid"] != uid) => {
            return refused(409, "the UID in the precondition does not match");
        }
        (&Method::POST, Some(_)) => return refused(409, "already exists"),
        (&Method::POST, None) => given,
        (&Method::PUT, Some(known)) => {
            let based_on = &given["metadata"]["resourceVersion"];
            if !based_on.is_null() && *based_on != known["metadata"]["resourceVersion"] {
                return refused(409, "the object has been modified; please apply your changes to the latest version and try again");
            }
            let mut given = given;
            given["metadata"]["uid"] = known["metadata"]["uid"].clone();
            given
        }
        (&Method::DELETE, Some(known)) => {
            let Some(kind) = place.kind else { return refused(405, "leases stay") };
            drop(cluster);
            let (namespace, name) = key.split_once('/').unwrap_or_default();
            shared.delete(kind, namespace, name);
            return json_answer(&known);
        }
        _ => return refused(405, "method not allowed"),
    };
    if let Some(namespace) = &place.namespace {
        object["metadata"]["namespace"] = json!(namespace);
    }
    if object["metadata"]["uid"].is_null() {
        object["metadata"]["uid"] = json!(format!("uid-{}-{}", place.kind.map_or("leases", Kind::plural), cluster.version));
    }
    match place.kind {
        Some(kind) => {
            drop(cluster);
            json_answer(&shared.put(kind, object))
        }
        None => {
            cluster.version += 1;
            object["metadata"]["resourceVersion"] = json!(cluster.version.to_string());
            cluster.leases.insert(key, object.clone());
            json_answer(&object)
        }
    }
}

async fn fail(fault: Fault) -> Response {
    match fault {
        Fault::Refuse(status) => refused(status, "refused for a test"),
        Fault::RefuseInHtml(status) => {
            let body = "<html>\n<h1>Bad Gateway</h1>\n</html>\n";
            (StatusCode::from_u16(status).expect("a status"), body).into_response()
        }
        Fault::Hang | Fault::Slowly(_) | Fault::Half => std::future::pending().await,
        Fault::Silent => Body::from_stream(futures::stream::pending::<Result<Bytes, Infallible>>()).into_response(),
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

fn watch(shared: &Arc<Shared>, kind: Kind, namespace: Option<&str>, query: &BTreeMap<String, String>) -> Response {
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
    let watch = Watch { shared: shared.clone(), kind, namespace: namespace.map(str::to_owned), at: from, epoch: cluster.epoch, end };
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
    namespace: Option<String>,
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
                let concerns = |event: &&Event| {
                    let elsewhere = event.namespace.is_some() && self.namespace.is_some() && event.namespace != self.namespace;
                    event.kind == self.kind && !elsewhere
                };
                for event in cluster.log.range(start..).filter(concerns) {
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
