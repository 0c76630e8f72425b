//! Numbers of a whole Marathon with a master that is made up: `cargo run --release -p edge-marathon --example bench -- listing scale events`.
//! Each part can be asked for alone; a number at the end divides the work.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a measurement"
)]

#[path = "../tests/rest/master.rs"]
#[expect(dead_code, reason = "shared with the tests")]
mod master;
#[path = "../tests/rest/world.rs"]
#[expect(dead_code, reason = "shared with the tests")]
mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_marathon::store::MemoryStore;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Prints a number beside its target.
fn number(what: &str, value: f64, unit: &str, target: Option<f64>) {
    let verdict = match target {
        Some(target) if value < target => format!("under {target:<8} met"),
        Some(target) => format!("under {target:<8} NOT MET"),
        None => String::new(),
    };
    println!("  {what:<76} {value:>12.3} {unit:<4} {verdict}");
}

async fn start(agents: usize, cpus: f64) -> world::World {
    let master = master::Master::start(agents, cpus).await;
    world::World::on(master, Arc::new(MemoryStore::default()), |settings| {
        settings.core.launch_tokens = u32::MAX;
        settings.core.max_instances_per_offer = 1_000;
        settings.core.max_running_deployments = 1_000_000;
    })
    .await
}

#[tokio::main]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let less: usize = words.iter().find_map(|it| it.parse().ok()).unwrap_or(1);
    let parts: Vec<&String> = words.iter().filter(|it| it.parse::<usize>().is_err()).collect();
    let wants = |part: &str| parts.is_empty() || parts.iter().any(|it| *it == part);
    if wants("scale") {
        scale(less).await;
    }
    if wants("events") {
        events(less).await;
    }
    if wants("listing") {
        listing(less).await;
    }
}

fn memory_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<f64>().unwrap() / 1_024.0
}

/// 10,000 apps with 100,000 instances.
async fn listing(less: usize) {
    let apps = 10_000 / less;
    let world = start(200, 64.0).await;
    let group = |cmd: &str| -> Value {
        let app = |at: usize| {
            json!({"id": format!("/g/a{at}"), "cmd": cmd, "cpus": 0.001, "mem": 0.01, "instances": 10, "portDefinitions": [],
                "labels": {"HAPROXY_GROUP": "external"}})
        };
        json!({"apps": (0..apps).map(app).collect::<Vec<Value>>()})
    };
    let before = memory_mib();
    let begun = Instant::now();
    world.put("/v2/groups/g", group("sleep 1")).await.is(200);
    number(&format!("PUT of a new group of {apps} apps: read, planned, stored, answered"), begun.elapsed().as_secs_f64(), "s", Some(1.0));
    let begun = Instant::now();
    while world.master.running() < apps * 10 && begun.elapsed() < Duration::from_secs(600) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    number(&format!("until {} instances of them run", world.master.running()), begun.elapsed().as_secs_f64(), "s", None);
    world.settled().await;
    number("memory, the made-up master's tasks included", memory_mib() - before, "MiB", None);
    let paths = [
        ("/v2/apps", Some(500.0)),
        ("/v2/apps/g/a17", Some(10.0)),
        ("/v2/apps?embed=apps.tasks", None),
        ("/v2/groups?embed=group.apps&embed=group.groups&embed=group.apps.counts", None),
        ("/v2/tasks", None),
        ("/v2/queue", None),
    ];
    for (path, target) in paths {
        let mut times: Vec<f64> = Vec::new();
        let mut bytes = 0;
        for _ in 0..40 {
            let begun = Instant::now();
            bytes = world.get(path).await.text.len();
            times.push(begun.elapsed().as_secs_f64() * 1_000.0);
        }
        times.sort_by(f64::total_cmp);
        number(&format!("GET {path} ({:.1} MB), p95", bytes as f64 / 1e6), times[37], "ms", target);
    }
    let begun = Instant::now();
    world.put("/v2/groups/g?dryRun=true", group("sleep 2")).await.is(200);
    number(&format!("a dry run of an update of all {apps} apps"), begun.elapsed().as_secs_f64(), "s", Some(1.0));
    let begun = Instant::now();
    world.put("/v2/groups/g?force=true", group("sleep 2")).await.is(200);
    number(&format!("PUT of an update of all {apps} apps: read, planned, stored, answered"), begun.elapsed().as_secs_f64(), "s", Some(1.0));
}

/// 1,000 instances of one app on 500 agents.
async fn scale(less: usize) {
    let instances = 1_000 / less;
    let world = start(500, 4.0).await;
    let begun = Instant::now();
    let app = json!({"id": "/many", "cmd": "sleep 1", "cpus": 0.1, "mem": 16, "instances": instances});
    world.post("/v2/apps", app).await.is(201);
    world.until("/v2/apps/many", move |it| it["app"]["tasksRunning"] == instances).await;
    number(&format!("{instances} instances of one app on 500 agents running, from POST"), begun.elapsed().as_secs_f64(), "s", Some(10.0));
    world.settled().await;
}

/// Listeners that each see every event.
async fn events(less: usize) {
    let listeners = 2_000 / less;
    let world = start(20, 64.0).await;
    let mut counting = Vec::new();
    for _ in 0..listeners {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        let ask = "GET /v2/events?event_type=status_update_event&event_type=deployment_success HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n";
        stream.write_all(ask.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.windows(4).any(|it| it == b"\r\n\r\n") {
            let mut some = [0; 1];
            stream.read_exact(&mut some).await.unwrap();
            head.push(some[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
        counting.push(tokio::spawn(async move {
            let (mut ended, mut updates, mut last) = (0, 0, Instant::now());
            let mut kept = Vec::new();
            let mut some = vec![0; 65_536];
            while ended < 50 {
                let read = tokio::time::timeout(Duration::from_secs(60), stream.read(&mut some)).await;
                let Ok(Ok(length @ 1..)) = read else { break };
                kept.extend_from_slice(&some[..length]);
                while let Some(end) = kept.windows(2).position(|it| it == b"\r\n") {
                    let line: Vec<u8> = kept.drain(..end + 2).collect();
                    ended += usize::from(line.starts_with(b"event: deployment_success"));
                    updates += usize::from(line.starts_with(b"event: status_update_event"));
                }
                last = Instant::now();
            }
            (ended, updates, last)
        }));
    }
    let begun = Instant::now();
    for at in 0..50 {
        let app = json!({"id": format!("/e{at}"), "cmd": "sleep 1", "cpus": 0.01, "mem": 1, "instances": 4, "portDefinitions": []});
        world.post("/v2/apps", app).await.is(201);
    }
    world.settled().await;
    let made = begun.elapsed();
    let mut seen = Vec::new();
    let mut last = begun;
    for it in counting {
        let (ended, updates, at) = it.await.unwrap();
        seen.push((ended, updates));
        last = last.max(at);
    }
    let whole = seen.iter().filter(|it| **it == (50, 400)).count();
    number(&format!("of {listeners} listeners did not see all of 450 events"), (listeners - whole) as f64, "", Some(1.0));
    number("from the first of 50 apps to the last event at the last listener", (last - begun).as_secs_f64(), "s", None);
    number("  of which everything was deployed after", made.as_secs_f64(), "s", None);
}
