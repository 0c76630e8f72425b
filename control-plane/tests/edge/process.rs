//! The process: how it starts, stops, and starts again.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::Timestamp;
use futures::StreamExt as _;
use orchestrator_control::store::{DiskStore, KnownProbe, MemoryStore, Store as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tonic::Code;

use crate::http::get;
use crate::probe::Probe;
use crate::world::{BEGIN, World, config, process, processes_delta, web_report};

#[tokio::test]
async fn stopping_ends_streams_in_order_and_finishes_requests() {
    let (mut world, [mut web, _db]) = World::with_two_hosts().await;
    web.apply(processes_delta(2, (1_000..40_000).map(|pid| process(pid, "worker", "")))).await;
    let stream = TcpStream::connect(world.http).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async("ws://test/api/topology/hosts/ws", stream).await.unwrap();
    socket.next().await.unwrap().unwrap();
    // A reply of some megabytes is on its way, and its client has read a little of it.
    let mut request = TcpStream::connect(world.http).await.unwrap();
    request.write_all(b"GET /api/topology/processes HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut reply = vec![0; 1_000];
    request.read_exact(&mut reply).await.unwrap();
    let begun = Instant::now();
    world.begin_to_stop();
    let close = loop {
        if let Message::Close(frame) = socket.next().await.unwrap().unwrap() {
            break frame.unwrap();
        }
    };
    assert_eq!(u16::from(close.code), 1001);
    assert_eq!(web.ended().await, Code::Unavailable);
    request.read_to_end(&mut reply).await.unwrap();
    assert!(reply.ends_with(b"\r\n0\r\n\r\n"), "the reply came whole");
    let http = world.http;
    world.ended().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(TcpStream::connect(http).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn known_probes_are_in_the_store_after_a_stop() {
    let (world, _probes) = World::with_two_hosts().await;
    let store = world.store.clone();
    world.stop().await.unwrap();
    let hosts: Vec<String> = store.probes().unwrap().into_iter().map(|probe| probe.host_name).collect();
    assert_eq!(hosts, ["db-1", "web-1"]);
}

#[tokio::test]
async fn after_a_restart_it_is_ready_when_its_probes_are_back() {
    let store = Arc::new(MemoryStore::default());
    let at = Timestamp::from_unix_nanos(BEGIN - 1_000_000_000);
    let known = KnownProbe { id: "p".to_owned(), host_name: "web-1".to_owned(), first_seen: at, last_seen: at };
    let long_gone =
        KnownProbe { id: "old".to_owned(), host_name: "old-1".to_owned(), first_seen: Timestamp::EPOCH, last_seen: Timestamp::EPOCH };
    store.update_probes(&[known, long_gone], &[]).unwrap();
    let world = World::start_with(config(), store).await;
    let reply = world.get("/ready").await;
    assert_eq!(reply.status, 503);
    assert!(reply.text().contains("waiting for the probes of web-1"), "{}", reply.text());
    let mut probe = Probe::connect(world.grpc, "p", "web-1").await;
    probe.apply(web_report(1)).await;
    let begun = Instant::now();
    while world.get("/ready").await.status != 200 {
        assert!(begun.elapsed() < Duration::from_secs(2));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn after_a_restart_it_does_not_wait_for_lost_probes_for_ever() {
    let store = Arc::new(MemoryStore::default());
    let at = Timestamp::from_unix_nanos(BEGIN);
    store.update_probes(&[KnownProbe { id: "p".to_owned(), host_name: "h".to_owned(), first_seen: at, last_seen: at }], &[]).unwrap();
    let world = World::start_with(config(), store).await;
    let begun = Instant::now();
    while world.get("/ready").await.status != 200 {
        assert!(begun.elapsed() < Duration::from_secs(8));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(begun.elapsed() > Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_address_in_use_is_an_error_that_names_it() {
    let world = World::start().await;
    let mut taken = config();
    taken.http_address = world.http;
    let error = World::try_start(taken, Arc::new(MemoryStore::default())).await.err().unwrap();
    assert_eq!(error.to_string(), format!("binding the HTTP listener to {}", world.http));
}

/// The real program on free ports with a store of its own. Killed when dropped.
pub(crate) struct Program {
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    child: Child,
    _data: tempfile::TempDir,
}

impl Program {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_orchestrator-control"))
            .args(["--http-address", "127.0.0.1:0", "--grpc-address", "127.0.0.1:0", "--log-format", "json"])
            .arg("--data-dir")
            .arg(data.path())
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        // Its services may say something first.
        let started = loop {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended");
            let said: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line}"));
            if said["http_address"].is_string() {
                break said;
            }
        };
        let address = |key: &str| started[key].as_str().unwrap().parse().unwrap();
        let (http, grpc) = (address("http_address"), address("grpc_address"));
        // The log has to be taken, or the program would wait for it.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Program { http, grpc, child, _data: data }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn names_of_the_cluster_are_told_over_http() {
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (names, mesos) = (free(), free());
    let _program =
        Program::start(&["--dns-http-address", &names.to_string(), "--mesos-address", &mesos.to_string(), "--marathon-address", "off"]);
    let begun = Instant::now();
    loop {
        let hosts = get(names, "/v1/hosts/leader.mesos").await;
        assert_eq!(hosts.status, 200);
        let hosts: serde_json::Value = hosts.json();
        if hosts == serde_json::json!([{"host": "leader.mesos.", "ip": "127.0.0.1"}]) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{hosts}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let config: serde_json::Value = get(names, "/v1/config").await.json();
    assert_eq!(config["Masters"], serde_json::json!([mesos.to_string()]));
}

/// Runs the real program and gives back its exit code and what it said.
fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_orchestrator-control"))
        .args(["--http-address", "127.0.0.1:0", "--grpc-address", "127.0.0.1:0"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_store_in_use_ends_the_program_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let _store = DiskStore::open(directory.path(), "x").unwrap();
    let (code, said) = run(&["--data-dir", directory.path().to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(said.contains("is in use by another process"), "{said}");
}

#[test]
fn mistakes_in_the_configuration_end_the_program_with_64() {
    let (code, said) = run(&["--window", "soon", "--max-probes", "none"]);
    assert_eq!(code, Some(64));
    assert!(said.contains("--window") && said.contains("--max-probes"), "{said}");
    assert_eq!(run(&["--no-such-flag"]).0, Some(64));
    assert_eq!(run(&["--version"]).0, Some(0));
}
