//! Two control planes on a real ZooKeeper: what a client of the follower sees, whatever becomes of the election.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::join_all;
use orchestrator_control::config::Config;
use orchestrator_control::store::MemoryStore;
use proto::probe::v1::{ControlAnswer, Hello, control_message, probe_message};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use zk::testing::{Ensemble, Proxy, ServerOptions, on_test_machine};

use crate::http::{Reply, get, raw, try_raw};
use crate::probe::{Probe, hello, message};
use crate::world::{CONTAINER, World, config, eventually, process, processes_delta, web_report};

const SESSION: Duration = Duration::from_secs(4);

/// One that stands for election at `zookeeper`.
async fn candidate(zookeeper: &str) -> World {
    World::start_with(standing_at(zookeeper), Arc::new(MemoryStore::default())).await
}

fn standing_at(zookeeper: &str) -> Config {
    let ensemble = format!("zk://{zookeeper}/mesos").parse().unwrap();
    Config { zk: Some(ensemble), zk_session_timeout: SESSION, advertise: Some("127.0.0.1".to_owned()), ..config() }
}

/// The same, with a history and a record that survive it.
async fn candidate_with_record(zookeeper: &str, directory: &Path, begun: Instant) -> World {
    let history = Some(Duration::from_secs(3_600));
    let settings = Config { data_dir: directory.to_owned(), history, window: Duration::from_secs(1), ..standing_at(zookeeper) };
    World::start_later(settings, Arc::new(MemoryStore::default()), begun.elapsed()).await
}

async fn serves(server: SocketAddr) -> bool {
    get(server, "/api/topology").await.status == 200
}

/// Reads one reply whose end the connection's end says, as whoever keeps connections does.
async fn asked_on(connection: &mut TcpStream, target: &str) -> (u16, bool) {
    connection.write_all(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()).await.unwrap();
    let mut reply = Vec::new();
    let ended = timeout(Duration::from_secs(2), connection.read_to_end(&mut reply)).await.is_ok();
    let status = String::from_utf8_lossy(&reply).split(' ').nth(1).and_then(|it| it.parse().ok()).unwrap_or(0);
    (status, ended)
}

/// What a WebSocket says first, when there is one at all.
async fn first_words(server: SocketAddr) -> Option<String> {
    let stream = TcpStream::connect(server).await.ok()?;
    let (mut socket, _) = tokio_tungstenite::client_async("ws://test/api/topology/hosts/ws", stream).await.ok()?;
    match timeout(Duration::from_secs(5), socket.next()).await {
        Ok(Some(Ok(Message::Text(text)))) => Some(text.to_string()),
        _ => None,
    }
}

fn is_refused(reply: &Reply) -> bool {
    reply.status == 503 && reply.header("connection") == "close" && reply.header("retry-after") == "1"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_never_takes_its_own_empty_map_for_the_clusters() {
    if !on_test_machine() {
        return;
    }
    let servers = Ensemble::start(1, &ServerOptions::default());
    let leader = candidate(&servers.connect_string()).await;
    eventually(async || serves(leader.http).await, "it leads".to_owned()).await;
    let mut probe = Probe::connect(leader.grpc, "probe-web", "web-1").await;
    probe.apply(web_report(1)).await;

    // As it begins, it knows nobody who leads.
    let proxy = Proxy::to(servers.connect_string().parse().unwrap()).await;
    proxy.down();
    let follower = candidate(&proxy.address().to_string()).await;
    // Whoever comes waits for one, and is refused when none comes.
    let targets = ["/", "/api", "/api/topology", "/api/topology/hosts", "/api/search?q=web", "/api/v1/audit", "/healthy"];
    let (begun, address) = (Instant::now(), follower.http);
    for (target, reply) in join_all(targets.map(async |target| (target, get(address, target).await))).await {
        assert!(is_refused(&reply), "{target}: {reply:?}");
    }
    assert!((9..15).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    for target in ["/health", "/ready", "/metrics"] {
        let reply = raw(follower.http, format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()).await;
        assert_eq!((reply.status, reply.header("connection")), (200, "close"), "{target}");
    }
    // Those that were made then are not bound to what was known then, whether they are used at once or later.
    let mut early = TcpStream::connect(follower.http).await.unwrap();
    let (waiting, ()) = tokio::join!(get(address, "/api/topology/hosts"), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        proxy.fair(Duration::ZERO);
    });
    assert!(waiting.status == 200 && waiting.text().contains("web-1"), "{waiting:?}");
    assert!((follower.metric("orchestrator_connections_held_total{end=\"refused\"}").await - 7.0).abs() < f64::EPSILON);
    assert!((follower.metric("orchestrator_connections_held_total{end=\"carried\"}").await - 1.0).abs() < f64::EPSILON);

    let hosts = async || get(follower.http, "/api/topology/hosts").await;
    eventually(async || hosts().await.status == 200, "it follows".to_owned()).await;
    assert!(hosts().await.text().contains("web-1"));
    early.write_all(b"GET /api/topology/hosts HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut reply = String::new();
    early.read_to_string(&mut reply).await.unwrap();
    assert!(reply.contains("web-1"), "{reply}");
    // What follows on the connection of its own answers would be answered here, so nothing follows.
    let mut kept = TcpStream::connect(follower.http).await.unwrap();
    assert_eq!(asked_on(&mut kept, "/health").await, (200, true));

    // It loses its session, and with it who leads, for a while.
    let stream = TcpStream::connect(follower.http).await.unwrap();
    let (mut watching, _) = tokio_tungstenite::client_async("ws://test/api/topology/hosts/ws", stream).await.unwrap();
    assert!(watching.next().await.unwrap().unwrap().to_text().unwrap().contains("web-1"));
    proxy.blackhole();
    tokio::time::sleep(SESSION).await;
    let mends = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        proxy.fair(Duration::ZERO);
    };
    let asks = async {
        let (begun, mut cut_off) = (Instant::now(), 0);
        let request = b"GET /api/topology/hosts HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
        while begun.elapsed() < Duration::from_secs(6) {
            match try_raw(follower.http, request).await {
                Some(reply) => assert!(reply.status == 200 && reply.text().contains("web-1"), "{reply:?}"),
                // On its way to the leader when the follower did not know any more who that is.
                None => cut_off += 1,
            }
            if let Some(words) = first_words(follower.http).await {
                assert!(words.contains("web-1"), "{words}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        cut_off
    };
    let ((), cut_off) = tokio::join!(mends, asks);
    println!("cut off {cut_off} times");
    eventually(async || hosts().await.text().contains("web-1"), "it follows again".to_owned()).await;
    let cut = async { while let Some(Ok(_)) = watching.next().await {} };
    timeout(Duration::from_secs(1), cut).await.expect("who watched through it has been cut off, to come back");
    drop((leader, probe));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_something_through_a_follower_is_on_record_and_not_the_follower() {
    if !on_test_machine() {
        return;
    }
    let servers = Ensemble::start(1, &ServerOptions::default());
    let leader = candidate(&servers.connect_string()).await;
    eventually(async || serves(leader.http).await, "it leads".to_owned()).await;
    let follower = candidate(&servers.connect_string()).await;
    eventually(async || serves(follower.http).await, "it follows".to_owned()).await;
    let controls = vec!["docker_stop_container".to_owned()];
    let mut probe = Probe::connect_with(follower.grpc, Hello { controls, ..hello("p", "p") }).await.unwrap();

    let mut client = TcpStream::connect(follower.http).await.unwrap();
    let us = client.local_addr().unwrap().to_string();
    let head = "POST /api/control/p/c0ffee;<container>/docker_stop_container HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let Some(control_message::Body::ControlCall(call)) = probe.next().await.unwrap() else { panic!("no call") };
    probe.send_raw(message(probe_message::Body::ControlAnswer(ControlAnswer { call: call.call, ..ControlAnswer::default() }))).await;
    let mut reply = String::new();
    client.read_to_string(&mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    let page: serde_json::Value = get(follower.http, "/api/v1/audit").await.json();
    assert_eq!((&page["records"][0]["remote"], &page["records"][0]["outcome"]), (&us.into(), &"done".into()), "{page}");
}

async fn history_ends(world: &World) -> String {
    let status: serde_json::Value = world.get("/api/v1/history").await.json();
    status["to"].as_str().unwrap_or_default().to_owned()
}

async fn has(world: &World, target: &str, text: &str) -> bool {
    // It may go to a leader that has just gone.
    let request = format!("GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    try_raw(world.http, request.as_bytes()).await.is_some_and(|reply| reply.status == 200 && reply.text().contains(text))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_leader_tells_of_the_time_before() {
    if !on_test_machine() {
        return;
    }
    let begun = Instant::now();
    let servers = Ensemble::start(1, &ServerOptions::default());
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = candidate_with_record(&servers.connect_string(), a.path(), begun).await;
    eventually(async || serves(first.http).await, "it leads".to_owned()).await;
    let mut probe = Probe::connect(first.grpc, "probe-web", "web-1").await;
    probe.apply(web_report(1)).await;
    let stop = |control: &str| format!("/api/control/nobody/c0ffee%3B%3Ccontainer%3E/{control}");
    crate::http::request(first.http, "POST", &stop("before_it_came"), "").await;
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    let early = history_ends(&first).await;

    // It comes late, and is there when the rest happens.
    let second = candidate_with_record(&servers.connect_string(), b.path(), begun).await;
    eventually(async || serves(second.http).await, "it follows".to_owned()).await;
    probe.apply(processes_delta(2, [process(300, "redis", "")])).await;
    crate::http::request(second.http, "POST", &stop("while_it_followed"), "").await;
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    let late = history_ends(&first).await;
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    drop(probe);
    first.stop().await.unwrap();

    let at = |moment: &str| format!("/api/topology/processes?unconnected=show&timestamp={moment}");
    eventually(async || has(&second, &at(&late), "web-1;300").await, "it leads, and knows the last moments".to_owned()).await;
    assert!(!has(&second, "/api/topology/processes?unconnected=show", "web-1;300").await, "no probe has come to it yet");
    assert!(has(&second, &at(&early), "web-1;100").await && !has(&second, &at(&early), "web-1;300").await);
    assert!(has(&second, &format!("/api/topology/containers?timestamp={early}"), CONTAINER).await);
    eventually(async || history_ends(&second).await > late, "it goes on".to_owned()).await;
    let status: serde_json::Value = second.get("/api/v1/history").await.json();
    assert_eq!(status["gaps"].as_array().map(Vec::len), Some(1), "the time without a leader: {status}");
    assert_eq!(status["problem"], serde_json::Value::Null);
    crate::http::request(second.http, "POST", &stop("after_it"), "").await;
    let page: serde_json::Value = second.get("/api/v1/audit").await.json();
    let told: Vec<_> = page["records"].as_array().unwrap().iter().map(|it| json!([it["id"], it["control"]])).collect();
    assert_eq!(json!(told), json!([[3, "after_it"], [2, "while_it_followed"], [1, "before_it_came"]]), "{page}");
}

/// Asks a control plane again and again, each time on a connection of its own, and never twice for the same: what was not answered as it should be.
async fn asked_until(ends: &AtomicBool, server: SocketAddr) -> (usize, Vec<String>) {
    let (mut made, mut failed) = (0, Vec::new());
    while !ends.load(Ordering::Relaxed) {
        made += 1;
        match try_raw(server, b"GET /api/topology/hosts HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await {
            Some(reply) if reply.status == 200 => {}
            other => failed.push(format!("request {made}: {other:?}")),
        }
    }
    (made, failed)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lead_is_given_up_on_request_and_no_request_is_lost() {
    if !on_test_machine() {
        return;
    }
    let servers = Ensemble::start(1, &ServerOptions::default());
    let first = candidate(&servers.connect_string()).await;
    eventually(async || serves(first.http).await, "it leads".to_owned()).await;
    let give_up =
        async |server: SocketAddr| crate::http::request(server, "POST", "/api/v1/lead/yield", "Authorization: Basic YW5uOng=\r\n").await;
    let alone = give_up(first.http).await;
    assert!(alone.status == 409 && alone.text().contains("nobody could take over"), "{alone:?}");
    let second = candidate(&servers.connect_string()).await;
    let told = async || get(second.http, "/api/v1/lead").await.json::<serde_json::Value>();
    eventually(async || told().await["others"] == 1, "both stand for election".to_owned()).await;
    assert_eq!(told().await["leader"]["http"], first.http.to_string());
    let foreign = "Origin: http://evil.example\r\n";
    let foreign = crate::http::request(second.http, "POST", "/api/v1/lead/yield", foreign).await;
    assert_eq!(foreign.status, 403, "{foreign:?}");

    let ends = AtomicBool::new(false);
    let yields = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        // Through the one that follows, to the one that leads.
        let reply = give_up(second.http).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.json::<serde_json::Value>()["leader"]["http"], second.http.to_string());
        // It ends in good order, to be started again behind the others.
        timeout(Duration::from_secs(10), first.ended()).await.expect("it ends").unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        ends.store(true, Ordering::Relaxed);
    };
    let ((), one, two) = tokio::join!(yields, asked_until(&ends, second.http), asked_until(&ends, second.http));
    for (made, failed) in [one, two] {
        println!("{made} requests");
        assert!(made > 20 && failed.is_empty(), "{failed:?}");
    }
    assert_eq!(told().await["leader"]["http"], second.http.to_string());
    let page: serde_json::Value = get(second.http, "/api/v1/audit").await.json();
    let record = page["records"].as_array().unwrap().iter().find(|it| it["outcome"] == "done").unwrap();
    assert_eq!((&record["control"], &record["user"]), (&"yield_lead".into(), &"ann".into()), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_told_to_stop_hands_over_before_it_stops_to_listen() {
    if !on_test_machine() {
        return;
    }
    let servers = Ensemble::start(1, &ServerOptions::default());
    let mut first = candidate(&servers.connect_string()).await;
    eventually(async || serves(first.http).await, "it leads".to_owned()).await;
    let second = candidate(&servers.connect_string()).await;
    let told = async || get(second.http, "/api/v1/lead").await.json::<serde_json::Value>();
    eventually(async || told().await["others"] == 1, "both stand for election".to_owned()).await;
    let ends = AtomicBool::new(false);
    let stops = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        first.begin_to_stop();
        timeout(Duration::from_secs(10), first.ended()).await.expect("it ends").unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        ends.store(true, Ordering::Relaxed);
    };
    let ((), one, two) = tokio::join!(stops, asked_until(&ends, second.http), asked_until(&ends, second.http));
    for (made, failed) in [one, two] {
        assert!(made > 20 && failed.is_empty(), "{failed:?}");
    }
}

#[tokio::test]
async fn whoever_is_alone_has_nobody_to_yield_to() {
    let world = World::start().await;
    let reply = crate::http::request(world.http, "POST", "/api/v1/lead/yield", "").await;
    assert!(reply.status == 409 && reply.text().contains("--zk"), "{reply:?}");
    assert_eq!(world.get("/api/v1/lead").await.status, 404);
}
