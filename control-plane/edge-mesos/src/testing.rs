//! A running edge and its clients, over real sockets, for the tests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use mesos_proto::recordio::Decoder;
use mesos_proto::v1;
use prost::Message as _;
use proto::agent::v1 as wire;
use proto::agent::v1::agent_service_client::AgentServiceClient;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use wire::agent_message::Body as Up;
use wire::master_message::Body as Down;

use crate::driver::{self, Parts};
use crate::leadership::Leadership;
use crate::store::{MemoryRegistry, RegistryStore};
use crate::{Acls, AgentService, Clock, Context, Credentials, Files, Flags, Limits, router};

/// A master with its edges.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) leadership: watch::Sender<Leadership>,
    pub(crate) context: Context,
    stopping: CancellationToken,
    _loops: JoinSet<()>,
}

fn master_info() -> v1::MasterInfo {
    v1::MasterInfo {
        id: "m".to_owned(),
        ip: u32::from(std::net::Ipv4Addr::LOCALHOST).swap_bytes(),
        port: 5050,
        pid: Some("master@127.0.0.1:5050".to_owned()),
        hostname: Some("localhost".to_owned()),
        version: Some("1.11.0".to_owned()),
        address: Some(v1::Address { hostname: Some("localhost".to_owned()), ip: Some("127.0.0.1".to_owned()), port: 5050 }),
        ..v1::MasterInfo::default()
    }
}

/// A master alone.
pub(crate) async fn server_with(leads: Leadership, words: &[&str], files: Files) -> Server {
    server_on(Arc::new(MemoryRegistry::default()), leads, words, files).await
}

/// A master alone, with a registry.
pub(crate) async fn server_on(store: Arc<dyn RegistryStore>, leads: Leadership, words: &[&str], files: Files) -> Server {
    let flags = Flags::default().with(words.iter().copied()).unwrap();
    let credentials = Credentials::from_flags(&flags).unwrap();
    let acls = Acls::from_flags(&flags).unwrap();
    let clock = Clock::from_fn(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Timestamp::from_unix_nanos(u64::try_from(now.as_nanos()).unwrap())
    });
    let mut core = master::Config::new(master_info(), 1);
    flags.apply(&mut core).unwrap();
    if let Some(acls) = acls.clone() {
        core.authorizer = acls;
    }
    let ping_interval = core.agent_ping_timeout;
    let stopping = CancellationToken::new();
    let (leadership, leadership_view) = watch::channel(leads);
    let (handle, run) = driver::start(Parts {
        config: core,
        store: store.clone(),
        fetch_timeout: flags.duration("registry_fetch_timeout").unwrap(),
        store_timeout: Duration::from_secs(20),
        leadership: leadership_view,
        clock: clock.clone(),
        max_subscribers: 2,
        stopping: stopping.clone(),
    });
    let agents = AgentService::new(handle.clone(), ping_interval, 100, stopping.clone()).with_credentials(credentials.clone());
    let limits = Limits { body_bytes: 4 << 20, bodies_bytes: 8 << 20, body_patience: Duration::from_secs(5) };
    let context = Context::new(handle, store, clock, &flags, limits).with(files, credentials, acls.clone(), |_| {});
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut loops = JoinSet::new();
    let router = router(context.clone());
    loops.spawn(run);
    loops.spawn(async move { axum::serve(listener, router).await.unwrap() });
    let grpc_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let grpc = grpc_listener.local_addr().unwrap();
    let serving = tonic::transport::Server::builder().add_service(agents.into_server());
    loops.spawn(async move { serving.serve_with_incoming(TcpListenerStream::new(grpc_listener)).await.unwrap() });
    let server = Server { address, grpc, leadership, context, stopping, _loops: loops };
    if *server.leadership.borrow() == Leadership::Leading {
        while !server.context.master().is_serving() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    server
}

/// A master that leads.
pub(crate) async fn server() -> Server {
    server_with(Leadership::Leading, &[], Files::default()).await
}

/// What a request was answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().filter_map(|it| it.split_once(": ")).find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&self.body)))
    }
}

impl Server {
    /// One request on a connection of its own; the body is read to its end.
    pub(crate) async fn ask(&self, line: &str, headers: &str, body: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!("{line} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that refuses early may close before all was sent.
        let _ = stream.write_all(body).await;
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        parse(&bytes)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), "", b"").await
    }

    pub(crate) async fn post_json(&self, path: &str, body: &str) -> Answer {
        self.ask(&format!("POST {path}"), "Content-Type: application/json\r\n", body.as_bytes()).await
    }
}

pub(crate) fn parse(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|it| it == b"\r\n\r\n").unwrap_or_else(|| panic!("{:?}", String::from_utf8_lossy(bytes)));
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut body = bytes[end + 4..].to_vec();
    if head.to_lowercase().contains("transfer-encoding: chunked") {
        body = pieces(&body).concat();
    }
    Answer { status, head, body }
}

/// The chunks of a chunked body.
pub(crate) fn pieces(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    while let Some(end) = bytes.windows(2).position(|it| it == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        if size == 0 || bytes.len() < end + 2 + size + 2 {
            break;
        }
        pieces.push(bytes[end + 2..end + 2 + size].to_vec());
        bytes = &bytes[end + 2 + size + 2..];
    }
    pieces
}

/// An open stream of events.
pub(crate) struct Stream {
    socket: TcpStream,
    pub(crate) received: Vec<u8>,
    seen: usize,
}

impl Server {
    /// Opens a stream, and gives back its head.
    pub(crate) async fn open(&self, path: &str, headers: &str, body: &str) -> (String, Stream) {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len());
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut stream = Stream { socket, received: Vec::new(), seen: 0 };
        loop {
            if let Some(end) = stream.received.windows(4).position(|it| it == b"\r\n\r\n") {
                let head = String::from_utf8(stream.received.drain(..end + 4).collect()).unwrap();
                return (head, stream);
            }
            stream.more().await;
        }
    }
}

impl Stream {
    pub(crate) async fn more(&mut self) -> bool {
        let read = tokio::time::timeout(Duration::from_secs(10), self.socket.read_buf(&mut self.received)).await;
        read.expect("nothing came for ten seconds").unwrap() > 0
    }

    /// At least so many chunks.
    pub(crate) async fn chunks(&mut self, count: usize) -> Vec<Vec<u8>> {
        loop {
            let chunks = pieces(&self.received);
            if chunks.len() >= count || !self.more().await {
                return chunks;
            }
        }
    }
}

impl Stream {
    /// The next record: one chunk of its own, every time. `None` when the stream is over.
    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        let chunks = self.chunks(self.seen + 1).await;
        let chunk = chunks.get(self.seen)?;
        self.seen += 1;
        let mut decoder = Decoder::new(64 << 20);
        decoder.push(chunk);
        let record = decoder.next_record().unwrap().expect("a chunk that is no whole record");
        assert!(decoder.is_between_records(), "more than a record in a chunk");
        Some(record.to_vec())
    }

    /// The next event of this type; others before it are passed over.
    pub(crate) async fn event(&mut self, kind: &str) -> Value {
        while let Some(record) = self.next().await {
            let event: Value = serde_json::from_slice(&record).unwrap();
            if event["type"] == kind {
                return event;
            }
        }
        panic!("the stream ended before {kind}");
    }

    /// Reads until the stream is over.
    pub(crate) async fn until_over(&mut self) {
        while !self.received.ends_with(b"0\r\n\r\n") && self.more().await {}
    }
}

/// A framework with an open stream.
pub(crate) struct FakeFramework {
    pub(crate) stream: Stream,
    pub(crate) stream_id: String,
    pub(crate) id: String,
}

pub(crate) const JSON: &str = "Content-Type: application/json\r\n";

impl Server {
    /// Subscribes.
    pub(crate) async fn framework(&self, info: &Value) -> FakeFramework {
        let mut call = json!({"type": "SUBSCRIBE", "subscribe": {"framework_info": info}});
        if let Some(id) = info.get("id") {
            call["framework_id"] = id.clone();
        }
        let (head, mut stream) = self.open("/api/v1/scheduler", JSON, &call.to_string()).await;
        let stream_id = head.lines().find_map(|it| it.strip_prefix("mesos-stream-id: ")).expect("no stream id").to_owned();
        let subscribed = stream.event("SUBSCRIBED").await;
        let id = subscribed["subscribed"]["framework_id"]["value"].as_str().unwrap().to_owned();
        FakeFramework { stream, stream_id, id }
    }

    /// Any call of a framework.
    pub(crate) async fn call(&self, framework: &FakeFramework, mut call: Value) -> Answer {
        call["framework_id"] = json!({"value": framework.id});
        let headers = format!("{JSON}Mesos-Stream-Id: {}\r\n", framework.stream_id);
        self.ask("POST /api/v1/scheduler", &headers, call.to_string().as_bytes()).await
    }

    /// Ends everything as the process would.
    pub(crate) fn stop(&self) {
        self.stopping.cancel();
    }
}

/// An agent that does in its head what it is told.
pub(crate) struct FakeAgent {
    pub(crate) id: String,
    up: mpsc::Sender<wire::AgentMessage>,
    down: Streaming<wire::MasterMessage>,
    arrived: u64,
}

fn scalar(name: &str, value: f64) -> v1::Resource {
    v1::Resource {
        name: name.to_owned(),
        r#type: v1::value::Type::Scalar.into(),
        scalar: Some(v1::value::Scalar { value }),
        ..v1::Resource::default()
    }
}

/// How an agent of four processors introduces itself.
pub(crate) fn registration(hostname: &str) -> wire::Register {
    let resources = [scalar("cpus", 4.0), scalar("mem", 1024.0), scalar("disk", 1000.0)];
    let info = v1::AgentInfo { hostname: hostname.to_owned(), resources: resources.to_vec(), ..v1::AgentInfo::default() };
    let capabilities = (1..=8).filter(|it| *it != 4).map(|it| v1::agent_info::Capability { r#type: Some(it) }.encode_to_vec());
    wire::Register {
        agent_info: info.encode_to_vec(),
        pid: "slave(1)@10.0.0.9:5051".to_owned(),
        version: "1.11.0".to_owned(),
        capabilities: capabilities.collect(),
        total_resources: resources.iter().map(|it| it.encode_to_vec()).collect(),
        resource_version_uuid: vec![7; 16],
        boot_id: "boot".to_owned(),
        ..wire::Register::default()
    }
}

impl Server {
    /// Opens an agent's stream and sends what it begins with.
    pub(crate) async fn agent_stream(
        &self,
        first: Vec<wire::AgentMessage>,
    ) -> (mpsc::Sender<wire::AgentMessage>, Streaming<wire::MasterMessage>) {
        self.agent_call(None, first).await.unwrap()
    }

    /// The same with an `authorization`, which may be refused.
    pub(crate) async fn agent_call(
        &self,
        authorization: Option<&str>,
        first: Vec<wire::AgentMessage>,
    ) -> Result<(mpsc::Sender<wire::AgentMessage>, Streaming<wire::MasterMessage>), tonic::Status> {
        let (up, messages) = mpsc::channel(64);
        for message in first {
            up.send(message).await.unwrap();
        }
        let endpoint = tonic::transport::Channel::from_shared(format!("http://{}", self.grpc)).unwrap();
        let mut client = AgentServiceClient::new(endpoint.connect().await.unwrap());
        let mut request = tonic::Request::new(ReceiverStream::new(messages));
        if let Some(authorization) = authorization {
            request.metadata_mut().insert("authorization", authorization.parse().unwrap());
        }
        Ok((up, client.stream(request).await?.into_inner()))
    }

    /// A registered agent.
    pub(crate) async fn agent(&self, registration: wire::Register) -> FakeAgent {
        let first = wire::AgentMessage { body: Some(Up::Register(registration)), received_through: 0 };
        let (up, mut down) = self.agent_stream(vec![first]).await;
        match down.message().await.unwrap().unwrap().body {
            Some(Down::Registered(registered)) => FakeAgent { id: registered.agent_id, up, down, arrived: 0 },
            other => panic!("{other:?}"),
        }
    }
}

impl FakeAgent {
    /// The next command; pings are answered. `None` when the stream is over.
    pub(crate) async fn next(&mut self) -> Option<Down> {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(10), self.down.message()).await.expect("no command for ten seconds");
            let message = next.ok().flatten()?;
            if message.sequence > 0 {
                assert_eq!(message.sequence, self.arrived + 1, "commands are numbered without gaps");
                self.arrived = message.sequence;
            }
            match message.body? {
                Down::Ping(_) => self.say(Up::Pong(wire::Pong {})).await,
                other => return Some(other),
            }
        }
    }

    pub(crate) async fn say(&self, body: Up) {
        let _ = self.up.send(wire::AgentMessage { body: Some(body), received_through: self.arrived }).await;
    }

    /// Tells a state of a task; gives back the uuid.
    pub(crate) async fn update(&self, framework_id: &str, task_id: &str, state: v1::TaskState) -> Vec<u8> {
        let uuid = uuid::Uuid::new_v4().as_bytes().to_vec();
        let status = v1::TaskStatus {
            task_id: v1::TaskId { value: task_id.to_owned() },
            state: state.into(),
            source: Some(v1::task_status::Source::Executor.into()),
            agent_id: Some(v1::AgentId { value: self.id.clone() }),
            timestamp: Some(1.5),
            uuid: Some(uuid.clone()),
            ..v1::TaskStatus::default()
        };
        self.say(Up::StatusUpdate(wire::StatusUpdate {
            framework_id: framework_id.to_owned(),
            executor_id: task_id.to_owned(),
            status: status.encode_to_vec(),
            latest_state: state.into(),
        }))
        .await;
        uuid
    }
}
