//! Several control planes keep two ZooKeeper ensembles in step: the one that leads is killed again and again, and the next one goes on.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ha::Member;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use zk::testing::{Ensemble, ServerOptions, Writer, on_test_machine};
use zk::{Acl, Client, CreateKind, Options};

use crate::http::{Reply, try_raw};

/// Session timeout of the control planes, the shortest that they take, and of the link.
const SESSION_SECONDS: u64 = 2;
/// How long anything may take that a person would wait for.
const PATIENCE: Duration = Duration::from_secs(30);
const KILLS: u32 = 4;

/// The real program among others, with a store of its own. Killed when dropped.
struct Plane {
    http: SocketAddr,
    arguments: Vec<String>,
    data: TempDir,
    child: Child,
}

impl Plane {
    fn start(home: &Ensemble) -> Plane {
        // All are held at once, so that no two are the same.
        let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [http, grpc, replica] = listeners.map(|listener| listener.local_addr().unwrap());
        let data = tempfile::tempdir().unwrap();
        let arguments: Vec<String> = [
            ("--http-address", http.to_string()),
            ("--grpc-address", grpc.to_string()),
            ("--replica-address", replica.to_string()),
            ("--advertise", "127.0.0.1".to_owned()),
            ("--zk", format!("zk://{}/control", home.connect_string())),
            ("--zk-session-timeout", format!("{SESSION_SECONDS}s")),
            ("--services", "topology,zksync".to_owned()),
            ("--data-dir", data.path().join("data").display().to_string()),
            ("--log-format", "json".to_owned()),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect();
        let child = spawn(&arguments, data.path());
        Plane { http, arguments, data, child }
    }

    /// Ends it without a warning.
    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it where it was, as whoever runs it does.
    fn again(&mut self) {
        self.child = spawn(&self.arguments, self.data.path());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.data.path().join("log")).unwrap_or_default()
    }

    /// Nothing when it does not answer, as during a change of the leader.
    async fn ask(&self, method: &str, path: &str, body: &str) -> Option<Reply> {
        let length = body.len();
        let head =
            format!("{method} /api/v1/zksync{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
        try_raw(self.http, head.as_bytes()).await
    }

    async fn link(&self) -> Value {
        match self.ask("GET", "/links/ha", "").await {
            Some(reply) if reply.status == 200 => reply.json(),
            _ => Value::Null,
        }
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(arguments: &[String], directory: &Path) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(directory.join("log")).unwrap();
    let errors = log.try_clone().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_orchestrator-control"));
    command.args(arguments).stdin(Stdio::null()).stdout(log).stderr(errors).spawn().unwrap()
}

/// The control plane whose candidature is the first.
async fn first(home: &Client, planes: &[Plane]) -> Option<usize> {
    let mut names = home.children("/control").await.ok()?;
    names.retain(|name| name.starts_with("json.info_"));
    names.sort();
    let (data, _) = home.get(&format!("/control/{}", names.first()?)).await.ok()?;
    let http = Member::decode(&data)?.addresses.http;
    planes.iter().position(|plane| plane.http.to_string() == http)
}

/// Waits until another one than `before` leads.
async fn next_leader(home: &Client, planes: &[Plane], before: Option<usize>) -> usize {
    let begun = Instant::now();
    loop {
        match first(home, planes).await {
            Some(leader) if Some(leader) != before => return leader,
            other => assert!(begun.elapsed() < PATIENCE, "after {before:?} leads {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Writes on each side, and waits until it is on the other.
async fn carried([a, b]: [&Client; 2], what: &str, leader: &Plane) {
    let begun = Instant::now();
    for (from, to, side) in [(a, b, "a"), (b, a, "b")] {
        let path = format!("/w/{side}-{what}");
        from.create(&path, b"", &Acl::open(), CreateKind::Persistent).await.unwrap();
        while to.stat(&path).await.unwrap().is_none() {
            assert!(begun.elapsed() < PATIENCE, "{path} is not carried: {:#}\n{}", leader.link().await, leader.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_are_killed_under_writes_and_the_next_goes_on_from_what_was_agreed() {
    if !on_test_machine() {
        return;
    }
    let [home, a, b] = [(); 3].map(|()| Ensemble::start(1, &ServerOptions::default()));
    let mut clients = Vec::new();
    for ensemble in [&home, &a, &b] {
        clients.push(Client::connect(&Options::new(ensemble.connect_string())).await.unwrap());
    }
    let [elections, client_a, client_b] = clients.try_into().unwrap();
    let sides = [&client_a, &client_b];
    for path in ["/w", "/w/a", "/w/b"] {
        client_a.create(path, b"", &Acl::open(), CreateKind::Persistent).await.unwrap();
    }
    let mut planes = [Plane::start(&home), Plane::start(&home)];
    let mut leader = next_leader(&elections, &planes, None).await;

    // What only looks like a conflict would stay open.
    let ensemble = |it: &Ensemble| json!({ "connect": it.connect_string(), "session_timeout_seconds": SESSION_SECONDS });
    let definition = json!({
        "id": "ha", "a": ensemble(&a), "b": ensemble(&b), "mode": "both", "strategy": "manual", "deletes_free": 1_000_000,
    });
    let begun = Instant::now();
    // It comes to the one that follows.
    while planes[1 - leader].ask("POST", "/links", &definition.to_string()).await.is_none_or(|reply| reply.status != 201) {
        assert!(begun.elapsed() < PATIENCE, "{}", planes[leader].log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    carried(sides, "first", &planes[leader]).await;

    let (stop, mut running) = (CancellationToken::new(), JoinSet::new());
    for (ensemble, root) in [(&a, "/w/a"), (&b, "/w/b")] {
        let client = Client::connect(&Options::new(ensemble.connect_string())).await.unwrap();
        running.spawn(Writer::below(client, root).run(Duration::from_millis(5), stop.clone()));
    }
    for kill in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(500 + u64::from(kill) * 170)).await;
        planes[leader].kill();
        let killed = Instant::now();
        planes[leader].again();
        leader = next_leader(&elections, &planes, Some(leader)).await;
        let elected = killed.elapsed();
        carried(sides, &kill.to_string(), &planes[leader]).await;
        println!("kill {kill}: another one leads {elected:?} later, changes are carried both ways {:?} later", killed.elapsed());
        // The newest of its takings over; the other one has led since, and has left what both sides agree on.
        let log = planes[leader].log();
        let taken = log.lines().rev().find(|line| line.contains("takes over")).unwrap_or_default();
        assert!(taken.contains("Others("), "it goes on from what the other one left: {taken}\n{log}");
    }
    stop.cancel();
    let mut writers = Vec::new();
    while let Some(writer) = running.join_next().await {
        writers.push(writer.unwrap());
    }

    for writer in &writers {
        let elsewhere = if writer.root() == "/w/a" { &client_b } else { &client_a };
        let begun = Instant::now();
        while let Err(wrong) = writer.verify(elsewhere).await {
            assert!(begun.elapsed() < PATIENCE, "{wrong}\n{:#}", planes[leader].link().await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    // What comes later than it should, such as an echo, comes now.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for writer in &writers {
        let elsewhere = if writer.root() == "/w/a" { &client_b } else { &client_a };
        writer.verify(elsewhere).await.unwrap();
        let Writer { creates, sets, deletes, unanswered, .. } = writer;
        println!("{}: {creates} created, {sets} changed, {deletes} deleted, {unanswered} asked again", writer.root());
        assert!(*creates > 100 && *sets > 100 && *deletes > 50 && *unanswered == 0);
    }
    let mut names = client_a.children("/w").await.unwrap();
    let mut others = client_b.children("/w").await.unwrap();
    names.sort();
    others.sort();
    assert_eq!(names, others);
    let follower = &planes[1 - leader];
    let report: Value = follower.ask("POST", "/links/ha/verifications", "").await.unwrap().json();
    assert_eq!(report["found"]["equal"], json!(true), "{report:#}");
    let status = follower.link().await["status"].clone();
    assert_eq!((number(&status["open_conflicts"]), &status["counters"]["conflicts"]), (0, &json!({})), "{status:#}");
    let resolved: Value = follower.ask("GET", "/links/ha/resolutions", "").await.unwrap().json();
    assert_eq!(resolved["resolutions"], json!([]));
}
