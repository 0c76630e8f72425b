//! What the control plane lives with, and says: disks that take nothing, and clients that take their time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use orchestrator_control::http::Patience;
use orchestrator_control::store::{KnownProbe, MemoryStore, Store, StoreError};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::http::request;
use crate::probe::Probe;
use crate::world::{World, config, eventually, web_report};

/// A client that sends a byte every now and then of a body that it has announced.
async fn drip(world: &World, target: &str, kind: &str, pause: Duration) -> String {
    let (mut reading, mut writing) = TcpStream::connect(world.http).await.unwrap().into_split();
    let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: 10000\r\n\r\n");
    writing.write_all(head.as_bytes()).await.unwrap();
    let write = async {
        while writing.write_all(b" ").await.is_ok() {
            sleep(pause).await;
        }
    };
    let mut reply = Vec::new();
    let read = async {
        // The connection may be reset behind the answer.
        let _ = reading.read_to_end(&mut reply).await;
    };
    timeout(Duration::from_secs(5), async {
        tokio::select! { () = read => {}, () = write => {} }
    })
    .await
    .expect("it is given up");
    let _ = timeout(Duration::from_secs(1), reading.read_to_end(&mut reply)).await;
    String::from_utf8(reply).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_a_byte_now_and_then_is_given_up() {
    let world = World::impatient(Patience { span: Duration::from_millis(300), bytes_per_second: 1 << 10 }).await;
    let _probe = Probe::connect(world.grpc, "probe-web", "web-1").await;
    for (target, kind) in
        [("/api/control/probe-web/a%3B%3Ccontainer%3E/docker_stop_container", "application/json"), ("/api/report", "application/json")]
    {
        let begun = Instant::now();
        let reply = drip(&world, target, kind, Duration::from_millis(10)).await;
        assert!(reply.starts_with("HTTP/1.1 408 "), "{target}: {reply}");
        assert!(reply.ends_with("\"the rest of the request did not come in time\""), "{target}: {reply}");
        assert!(begun.elapsed() >= Duration::from_millis(300), "{target}");
    }
}

/// A store whose disk is full for a while.
#[derive(Debug, Default)]
struct Full {
    kept: MemoryStore,
    is_full: AtomicBool,
}

impl Full {
    fn take(&self) -> Result<(), StoreError> {
        if self.is_full.load(Ordering::Relaxed) {
            let source = Box::new(std::io::Error::from(std::io::ErrorKind::StorageFull));
            return Err(StoreError::Unavailable { path: "/data/store.redb".into(), source });
        }
        Ok(())
    }
}

impl Store for Full {
    fn probes(&self) -> Result<Vec<KnownProbe>, StoreError> {
        self.kept.probes()
    }

    fn update_probes(&self, known: &[KnownProbe], forgotten: &[String]) -> Result<(), StoreError> {
        self.take()?;
        self.kept.update_probes(known, forgotten)
    }

    fn installation(&self) -> &str {
        self.kept.installation()
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.take()
    }
}

async fn problems(world: &World) -> Vec<String> {
    let health: Value = world.get("/health").await.json();
    assert_eq!(health["status"], "ok");
    let problems = health["problems"].as_array().cloned().unwrap_or_default();
    problems.iter().map(|it| it.as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_for_as_long_as_it_is_full() {
    let store = Arc::new(Full::default());
    store.is_full.store(true, Ordering::Relaxed);
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("gone");
    let world = World::start_with(orchestrator_control::config::Config { data_dir: home.clone(), ..config() }, store.clone()).await;
    assert_eq!(problems(&world).await, [""; 0]);
    let mut web = Probe::connect(world.grpc, "probe-web", "web-1").await;
    web.apply(web_report(1)).await;
    // Refused, and on record.
    request(world.http, "POST", "/api/control/nobody/a%3B%3Ccontainer%3E/docker_stop_container", "").await;
    eventually(async || problems(&world).await.len() == 2, "both are said".to_owned()).await;
    let told = problems(&world).await;
    assert!(told[0].starts_with("the store is not written: /data/store.redb cannot be read or written"), "{told:?}");
    assert!(told[1].starts_with("the record of controls at ") && told[1].contains("cannot be written, 1 wait: "), "{told:?}");
    assert_eq!(world.get("/api/topology/hosts").await.status, 200);
    store.is_full.store(false, Ordering::Relaxed);
    std::fs::create_dir(&home).unwrap();
    eventually(async || problems(&world).await.is_empty(), "nothing is wrong any more".to_owned()).await;
    let record = std::fs::read_to_string(home.join("audit.log")).unwrap();
    assert_eq!(record.lines().count(), 1, "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_of_old_probes_that_cannot_be_kept_are_said() {
    let directory = tempfile::tempdir().unwrap();
    let settings = orchestrator_control::config::Config {
        data_dir: directory.path().to_owned(),
        history: Some(Duration::from_secs(3_600)),
        ..config()
    };
    std::fs::write(directory.path().join("old-reports"), b"a file where a directory should be").unwrap();
    let world = World::start_with(settings, Arc::new(MemoryStore::default())).await;
    let told = problems(&world).await;
    assert!(told[0].starts_with("the reports of Weave Scope's probes cannot be kept: "), "{told:?}");
}
