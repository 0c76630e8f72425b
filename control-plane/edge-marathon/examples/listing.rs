//! How long `GET /v2/apps` takes with 10,000 apps and 100,000 instances: `cargo run --release -p edge-marathon --example listing`.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
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

#[tokio::main]
async fn main() {
    let apps: usize = std::env::args().nth(1).and_then(|it| it.parse().ok()).unwrap_or(10_000);
    let master = master::Master::start(200, 64.0).await;
    let world = world::World::on(master, Arc::new(MemoryStore::default()), |settings| {
        settings.core.launch_tokens = u32::MAX;
        settings.core.max_instances_per_offer = 1_000;
        settings.core.max_running_deployments = 1_000_000;
    })
    .await;
    let group: Vec<Value> = (0..apps)
        .map(|at| json!({"id": format!("/g/a{at}"), "cmd": "sleep 1", "cpus": 0.001, "mem": 0.01, "instances": 10, "portDefinitions": [], "labels": {"HAPROXY_GROUP": "external"}}))
        .collect();
    let begun = Instant::now();
    world.put("/v2/groups/g", json!({"apps": group})).await.is(200);
    println!("PUT of a group of {apps} apps answered in {:?}", begun.elapsed());
    let begun = Instant::now();
    while world.master.running() < apps * 10 && begun.elapsed() < Duration::from_secs(600) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("{} tasks run after {:?}", world.master.running(), begun.elapsed());
    for path in
        ["/v2/apps", "/v2/apps?embed=apps.tasks", "/v2/groups?embed=group.apps&embed=group.groups&embed=group.apps.counts", "/v2/tasks"]
    {
        let mut times: Vec<Duration> = Vec::new();
        let mut bytes = 0;
        for _ in 0..20 {
            let begun = Instant::now();
            bytes = world.get(path).await.text.len();
            times.push(begun.elapsed());
        }
        times.sort();
        println!("GET {path}: {bytes} bytes, median {:?}, p95 {:?}", times[10], times[18]);
    }
}
