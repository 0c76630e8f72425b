//! Views over WebSockets: good clients, slow ones, and thousands that never read.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::{SinkExt as _, StreamExt as _};
use orchestrator_control::http::scope::schema::{NodeSummary, Nodes, Update};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::http::{get, request};
use crate::probe::Probe;
use crate::process::Program;
use crate::world::{World, config, eventually, metric, process, processes_delta, web_report};

pub(crate) struct Client(WebSocketStream<TcpStream>);

impl Client {
    pub(crate) async fn connect(server: SocketAddr, target: &str) -> Self {
        let stream = TcpStream::connect(server).await.unwrap();
        let (socket, _) = tokio_tungstenite::client_async(format!("ws://test{target}"), stream).await.unwrap();
        Client(socket)
    }

    async fn message(&mut self) -> Message {
        timeout(Duration::from_secs(10), self.0.next()).await.expect("a message comes in time").expect("the socket is open").unwrap()
    }

    pub(crate) async fn text(&mut self) -> String {
        loop {
            match self.message().await {
                Message::Text(text) => return text.to_string(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("no update but {other:?}"),
            }
        }
    }

    pub(crate) async fn update(&mut self) -> Update {
        serde_json::from_str(&self.text().await).unwrap()
    }
}

/// A client's state, built as Scope's UI builds it.
#[derive(Default)]
struct State(BTreeMap<String, NodeSummary>);

impl State {
    fn apply(&mut self, update: Update) {
        if update.reset {
            self.0.clear();
        }
        for id in update.remove.unwrap_or_default() {
            assert!(self.0.remove(&id).is_some(), "{id} is not there to be removed");
        }
        for node in update.update.unwrap_or_default() {
            assert!(self.0.insert(node.id.clone(), node).is_some(), "an updated node is there already");
        }
        for node in update.add.unwrap_or_default() {
            assert!(self.0.insert(node.id.clone(), node).is_none(), "an added node is new");
        }
    }
}

#[tokio::test]
async fn the_first_message_is_everything_and_later_ones_come_even_when_nothing_changed() {
    let (world, _probes) = World::with_two_hosts().await;
    let mut client = Client::connect(world.http, "/api/topology/hosts/ws?t=100ms").await;
    let first = client.text().await;
    assert!(first.starts_with("{\"add\":[{\"id\":") && first.ends_with("],\"update\":null,\"remove\":null,\"reset\":true}"), "{first}");
    assert_eq!(client.text().await, "{\"add\":null,\"update\":null,\"remove\":null}");
    assert_eq!(client.text().await, "{\"add\":null,\"update\":null,\"remove\":null}");
}

#[tokio::test]
async fn a_client_that_closes_is_answered_with_its_own_close_frame() {
    let (world, _probes) = World::with_two_hosts().await;
    let mut client = Client::connect(world.http, "/api/topology/hosts/ws?t=1h").await;
    client.text().await;
    client.0.close(Some(CloseFrame { code: CloseCode::Normal, reason: "done".into() })).await.unwrap();
    let Message::Close(Some(frame)) = client.message().await else { panic!("the answer is a close frame with a code") };
    assert_eq!(frame.code, CloseCode::Normal);
    eventually(async || world.metric("orchestrator_websocket_clients").await == 0.0, "the client is let go".to_owned()).await;
}

#[tokio::test]
async fn an_empty_view_begins_with_null() {
    let world = World::start().await;
    let mut client = Client::connect(world.http, "/api/topology/pods/ws").await;
    assert_eq!(client.text().await, "{\"add\":null,\"update\":null,\"remove\":null,\"reset\":true}");
}

#[tokio::test]
async fn a_node_that_comes_is_told_at_once_and_not_at_the_next_tick() {
    let (world, [mut web, _db]) = World::with_two_hosts().await;
    let mut client = Client::connect(world.http, "/api/topology/processes/ws?t=1h&unconnected=show").await;
    client.update().await;
    let begun = Instant::now();
    web.apply(processes_delta(2, [process(300, "redis", "")])).await;
    let update = client.update().await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let added: Vec<String> = update.add.unwrap().into_iter().map(|node| node.id).collect();
    assert_eq!(added, ["web-1;300"]);
}

#[tokio::test]
async fn deltas_applied_in_order_give_what_a_request_gives() {
    let (world, [mut web, _db]) = World::with_two_hosts().await;
    let mut clients = Vec::new();
    for target in [
        "/api/topology/processes/ws?t=60ms&unconnected=show",
        "/api/topology/processes/ws?t=0&unconnected=show",
        "/api/topology/hosts/ws?t=70ms",
    ] {
        clients.push((Client::connect(world.http, target).await, State::default(), target));
    }
    // A fixed sequence of pseudo-random changes: processes come, are renamed and go.
    let mut random = 7_u64;
    for sequence in 2..62 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pid = 1_000 + u32::try_from(random >> 60).unwrap();
        let mut report = processes_delta(sequence, []);
        if random & (1 << 40) == 0 {
            report.processes_gone = vec![process(pid, "", "").key.unwrap()];
        } else {
            report.processes = vec![process(pid, &format!("name-{}", (random >> 50) & 3), "")];
        }
        web.apply(report).await;
        if random & (1 << 41) == 0 {
            for (client, state, _) in &mut clients {
                while let Ok(Some(Ok(message))) = timeout(Duration::from_millis(20), client.0.next()).await {
                    if let Message::Text(text) = message {
                        state.apply(serde_json::from_str(&text).unwrap());
                    }
                }
            }
        }
    }
    // A client without ticks learns of new names only together with something that comes or goes.
    web.apply(processes_delta(62, [process(9_999, "last", "")])).await;
    for (client, state, target) in &mut clients {
        let view = target.split('?').next().unwrap().trim_end_matches("/ws");
        let query = if view.ends_with("processes") { "?unconnected=show" } else { "?x" };
        let begun = Instant::now();
        loop {
            if let Ok(Some(Ok(Message::Text(text)))) = timeout(Duration::from_millis(200), client.0.next()).await {
                state.apply(serde_json::from_str(&text).unwrap());
            }
            let expected: Nodes = get(world.http, &format!("{view}{query}")).await.json();
            if state.0 == expected.nodes {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "{target}: {:#?} is not {:#?}", state.0, expected.nodes);
        }
    }
}

#[tokio::test]
async fn an_unknown_view_is_accepted_and_closed() {
    let world = World::start().await;
    let mut client = Client::connect(world.http, "/api/topology/nope/ws").await;
    assert!(matches!(client.message().await, Message::Close(_)));
    world.metric_becomes("orchestrator_websocket_clients", 0.0).await;
}

#[tokio::test]
async fn what_is_no_upgrade_or_has_a_bad_interval_is_refused() {
    let world = World::start().await;
    assert_eq!(request(world.http, "GET", "/api/topology/hosts/ws", "").await.status, 400);
    let reply = request(world.http, "GET", "/api/topology/hosts/ws?t=soon", "").await;
    assert_eq!((reply.status, reply.text().as_str()), (400, "\"soon\""));
}

#[tokio::test]
async fn what_a_client_says_is_thrown_away() {
    let (world, _probes) = World::with_two_hosts().await;
    let mut client = Client::connect(world.http, "/api/topology/hosts/ws?t=100ms").await;
    client.update().await;
    client.0.send(Message::text("{\"hello\":true}")).await.unwrap();
    client.0.send(Message::binary(vec![0, 1, 2])).await.unwrap();
    client.0.send(Message::Ping(b"are you there".as_slice().into())).await.unwrap();
    let mut pong = false;
    for _ in 0..5 {
        pong |= matches!(client.message().await, Message::Pong(_));
    }
    assert!(pong);
    client.update().await;
}

#[tokio::test]
async fn a_client_that_says_too_much_is_dropped() {
    let world = World::start().await;
    let mut client = Client::connect(world.http, "/api/topology/hosts/ws").await;
    client.update().await;
    let _ = client.0.send(Message::text("x".repeat(1 << 20))).await;
    world.metric_becomes("orchestrator_websocket_clients", 0.0).await;
    assert_eq!(world.metric("orchestrator_websocket_ended_total{reason=\"broken\"}").await, 1.0);
}

#[tokio::test]
async fn there_are_no_more_clients_than_allowed() {
    let mut config = config();
    config.max_websocket_clients = 2;
    let world = World::start_with(config, std::sync::Arc::new(orchestrator_control::store::MemoryStore::default())).await;
    let mut first = Client::connect(world.http, "/api/topology/hosts/ws").await;
    let _second = Client::connect(world.http, "/api/topology/hosts/ws").await;
    let upgrade =
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nConnection: upgrade\r\n";
    let refused = request(world.http, "GET", "/api/topology/hosts/ws", upgrade).await;
    assert_eq!((refused.status, refused.text().as_str()), (503, "\"there are too many WebSocket clients\""));
    assert_eq!(world.metric("orchestrator_websocket_refused_total").await, 1.0);
    first.0.close(None).await.unwrap();
    world.metric_becomes("orchestrator_websocket_clients", 1.0).await;
    Client::connect(world.http, "/api/topology/hosts/ws").await.update().await;
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_whole_messages_and_skips_what_is_old() {
    let world = World::start().await;
    let mut probe = Probe::connect(world.grpc, "p", "web-1").await;
    probe.apply(web_report(1)).await;
    probe.apply(processes_delta(2, (1_000..9_000).map(|pid| process(pid, "worker", "")))).await;
    let mut client = Client::connect(world.http, "/api/topology/processes/ws?t=50ms&unconnected=show").await;
    for round in 0..5_u32 {
        probe.apply(processes_delta(3 + u64::from(round), [process(50_000 + round, "late", "")])).await;
    }
    let mut state = State::default();
    state.apply(client.update().await);
    assert!(state.0.len() >= 8_000);
    while !state.0.contains_key("web-1;50004") {
        state.apply(client.update().await);
    }
}

/// Connects clients that read nothing to a control plane, and returns how much memory each one takes there.
async fn never_reading(http: SocketAddr, grpc: SocketAddr, process: u32, count: usize) -> usize {
    let mut probe = Probe::connect(grpc, "p", "web-1").await;
    probe.apply(web_report(1)).await;
    // About one megabyte of first message for each.
    probe.apply(processes_delta(2, (1_000..5_000).map(|pid| self::process(pid, "worker", "")))).await;
    let (before, kernel_before) = (resident(process), kernel_memory());
    let upgrade = "GET /api/topology/processes/ws?t=50ms&unconnected=show HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 << 10).unwrap();
        let mut stream = socket.connect(http).await.unwrap();
        stream.write_all(upgrade.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 101");
        sockets.push(stream);
    }
    let connected = metric(http, "orchestrator_websocket_clients").await;
    // Everybody's message is on its way, and the map goes on changing; probes and other clients are served meanwhile.
    for sequence in 3..23 {
        probe.apply(processes_delta(sequence, [self::process(60_000 + u32::try_from(sequence).unwrap(), "late", "")])).await;
        assert_eq!(get(http, "/health").await.status, 200);
    }
    let each = resident(process).saturating_sub(before) / count;
    let kernel = kernel_memory().saturating_sub(kernel_before) / count;
    println!("{count} clients, {connected} of them at once, {each} bytes each, {kernel} in the kernel");
    // What each may leave in the kernel, at both ends here; without a limit it takes all that the machine has for connections.
    assert!(kernel < 256 << 10, "{kernel} bytes each in the kernel");
    // They are dropped, because nothing is taken.
    let begun = Instant::now();
    while metric(http, "orchestrator_websocket_ended_total{reason=\"not_reading\"}").await < count as f64 {
        assert!(begun.elapsed() < Duration::from_secs(90), "{} are left", metric(http, "orchestrator_websocket_clients").await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(metric(http, "orchestrator_websocket_clients").await < 0.5);
    each
}

/// What all TCP connections of this machine take in the kernel. The unit of the file is a page.
fn kernel_memory() -> usize {
    let sockets = std::fs::read_to_string("/proc/net/sockstat").unwrap();
    let tcp = sockets.lines().find(|line| line.starts_with("TCP:")).unwrap();
    tcp.rsplit(' ').next().unwrap().parse::<usize>().unwrap() * 4_096
}

/// Resident memory of a process, without pages that belong to files.
fn resident(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1_024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_clients_that_never_read_cost_little_and_are_dropped() {
    orchestrator_control::machine::raise_open_files().unwrap();
    let world = World::start().await;
    let each = never_reading(world.http, world.grpc, std::process::id(), 2_000).await;
    assert!(each < 100 << 10, "{each} bytes each");
}

/// Against the real program, because one process may not have open files enough for both ends. Slow, so only where it is asked for:
/// `ORCHESTRATOR_TEST_LARGE=1`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_clients_that_never_read_cost_little_and_are_dropped() {
    if std::env::var_os("ORCHESTRATOR_TEST_LARGE").is_none() {
        return;
    }
    assert!(orchestrator_control::machine::raise_open_files().unwrap() > 10_100, "too few open files are allowed");
    let program = Program::start(&["--max-websocket-clients", "10000"]);
    let each = never_reading(program.http, program.grpc, program.id(), 10_000).await;
    assert!(each < 100 << 10, "{each} bytes each");
}
