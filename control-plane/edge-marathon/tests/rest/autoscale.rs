//! Numbers of instances that are decided by themselves: the API, the events, and what is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use edge_marathon::autoscale::{self, Connected, Connections, Place, Usage, Used};
use edge_marathon::store::MemoryStore;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::events::listen;
use crate::master::Master;
use crate::world::{World, now};

/// So many connections a second come to all tasks together.
#[derive(Debug, Default)]
struct Load {
    rate: AtomicU64,
    /// Ten thousandths of a connection so far, and when that was.
    so_far: std::sync::Mutex<(f64, Option<std::time::Instant>)>,
}

impl Connected for Load {
    fn look<'a>(&'a self, places: &'a [Place]) -> std::pin::Pin<Box<dyn Future<Output = Vec<Option<Connections>>> + Send + 'a>> {
        Box::pin(async move {
            let mut so_far = self.so_far.lock().unwrap();
            let (moment, rate) = (std::time::Instant::now(), self.rate.load(Ordering::Relaxed) as f64);
            if let Some(before) = so_far.1 {
                so_far.0 += moment.duration_since(before).as_secs_f64() * rate / places.len() as f64;
            }
            so_far.1 = Some(moment);
            #[expect(clippy::cast_sign_loss, reason = "a count")]
            let accepted = so_far.0 as u64;
            assert!(places.iter().all(|it| !it.host.is_empty() && !it.task_id.is_empty()));
            places.iter().map(|_| Some(Connections { accepted, ..Connections::default() })).collect()
        })
    }
}

impl Used for Load {
    fn look<'a>(&'a self, places: &'a [Place]) -> std::pin::Pin<Box<dyn Future<Output = Vec<Option<Usage>>> + Send + 'a>> {
        Box::pin(async move { vec![None; places.len()] })
    }
}

fn scaled(world: &World) -> (Arc<Load>, CancellationToken) {
    let (load, stopping) = (Arc::new(Load::default()), CancellationToken::new());
    tokio::spawn(autoscale::run(world.handle.clone(), load.clone(), load.clone(), now, stopping.clone()));
    (load, stopping)
}

fn quick(targets: Value) -> Value {
    json!({
        "min": 1, "max": 4, "targets": targets, "intervalSeconds": 5, "warmUpSeconds": 0,
        "scaleUp": {"cooldownSeconds": 0}, "scaleDown": {"cooldownSeconds": 0, "stabilizationSeconds": 0},
    })
}

fn app(id: &str, labels: Value) -> Value {
    json!({"id": id, "cmd": "sleep 1", "cpus": 0.1, "mem": 16, "labels": labels})
}

#[tokio::test]
async fn policies_are_put_shown_and_taken_away() {
    let world = World::new().await;
    let (_load, _stopping) = scaled(&world);
    world.post("/v2/apps", app("/g/a", json!({}))).await.is(201);
    let path = "/v2/apps/g/a/autoscale";
    assert_eq!(world.get(path).await.is(404)["message"], "App '/g/a' has no autoscale policy");
    assert_eq!(world.get("/v2/apps/x/autoscale").await.is(404)["message"], "App '/x' does not exist");
    world.put("/v2/apps/x/autoscale", quick(json!([]))).await.is(404);
    for (policy, status, message, problem) in [
        (json!({"targets": []}), 422, "Invalid JSON", "/max"),
        (json!({"max": "x"}), 422, "Invalid JSON", "/max"),
        (json!({"max": 3, "targets": [{"signal": "moon", "value": 1}]}), 422, "Invalid JSON", "/targets(0)/signal"),
        (json!({"min": 9, "max": 3, "targets": [{"signal": "cpu", "value": 1}]}), 422, "Object is not valid", "/max"),
        (
            json!({"max": 3, "targets": [{"signal": "cpu", "value": 1}], "intervalSeconds": 1}),
            422,
            "Object is not valid",
            "/intervalSeconds",
        ),
        (json!([]), 422, "Invalid JSON", "/"),
    ] {
        let refused = world.put(path, policy).await.is(status);
        assert_eq!(refused["message"], message);
        assert!(refused["details"].as_array().unwrap().iter().any(|it| it["path"] == problem), "{refused}");
    }
    world.send("PUT", path, &[], "{").await.is(400);
    assert_eq!(world.send("POST", path, &[], "{}").await.status, 405);
    let before = world.get("/v2/apps/g/a").await.is(200);
    world.put(path, quick(json!([{"signal": "connectionsPerSecond", "value": 10}]))).await.is(200);
    let shown = world.get(path).await.is(200);
    assert_eq!((&shown["origin"], &shown["policy"]["targets"][0]["signal"]), (&json!("api"), &json!("connectionsPerSecond")));
    // The app itself is as it was: clients see nothing new, and nothing is restarted.
    let after = world.get("/v2/apps/g/a").await.is(200);
    assert_eq!((&before["app"]["version"], after["app"].get("autoscale")), (&after["app"]["version"], None));
    world.until("/v2/autoscale", |all| all["apps"][0]["appId"] == "/g/a").await;
    // What was put outlives this Marathon.
    let (master, store) = world.stop().await;
    let world = World::on(master, store, |_| {}).await;
    assert_eq!(world.get(path).await.is(200)["policy"]["max"], 4);
    assert_eq!(world.delete(path).await.status, 204);
    world.get(path).await.is(404);
    world.post("/v2/apps", app("/l", json!({"AUTOSCALE": quick(json!([{"signal": "cpu", "value": 0.5}])).to_string()}))).await.is(201);
    assert_eq!(world.get("/v2/apps/l/autoscale").await.is(200)["origin"], "label");
    world.delete("/v2/apps/l/autoscale").await.is(409);
    world.post("/v2/apps", app("/odd", json!({"AUTOSCALE": "{"}))).await.is(201);
    assert!(world.get("/v2/apps/odd/autoscale").await.is(200)["problem"].as_str().unwrap().starts_with("no JSON"));
    // An app that is named so is an app.
    world.post("/v2/apps", app("/n/autoscale", json!({}))).await.is(201);
    assert_eq!(world.get("/v2/apps/n/autoscale").await.is(200)["app"]["id"], "/n/autoscale");
}

#[tokio::test]
async fn an_app_grows_with_its_load_and_shrinks_when_it_ends() {
    let world = World::on(Master::start(4, 8.0).await, Arc::new(MemoryStore::default()), |_| {}).await;
    let (load, _stopping) = scaled(&world);
    let mut all = listen(&world, "").await;
    let mut told = listen(&world, "?event_type=autoscale_event").await;
    let policy = quick(json!([{"signal": "connectionsPerSecond", "value": 10}]));
    world.post("/v2/apps", app("/web", json!({"AUTOSCALE": policy.to_string()}))).await.is(201);
    world.settled().await;
    // 2.8 instances of work: what the clock adds to a look never makes it four.
    load.rate.store(28, Ordering::Relaxed);
    world.until("/v2/apps/web", |it| it["app"]["instances"] == 3 && it["app"]["tasksRunning"] == 3).await;
    load.rate.store(0, Ordering::Relaxed);
    world.until("/v2/apps/web", |it| it["app"]["instances"] == 1 && it["app"]["tasksRunning"] == 1).await;
    let shown = world.get("/v2/apps/web/autoscale").await.is(200);
    let decisions: Vec<&Value> = shown["decisions"].as_array().unwrap().iter().filter(|it| it["action"] != "hold").collect();
    let actions: Vec<_> = decisions.iter().map(|it| it["action"].as_str().unwrap()).collect();
    assert!(actions.contains(&"scaleUp") && actions[0] == "scaleDown", "{shown:#}");
    assert!(decisions.iter().all(|it| it["deploymentId"].is_string() && !it["reason"].as_str().unwrap().is_empty()));
    let mut words = Vec::new();
    while !words.iter().any(|it| it == "scaleDown") {
        let (kind, data) = tokio::time::timeout(Duration::from_secs(10), told.recv()).await.unwrap().unwrap();
        assert_eq!((kind.as_str(), &data["appId"]), ("autoscale_event", &json!("/web")));
        words.push(data["action"].as_str().unwrap().to_owned());
    }
    assert!(words.iter().any(|it| it == "scaleUp"), "{words:?}");
    while let Ok((kind, _)) = all.try_recv() {
        assert_ne!(kind, "autoscale_event", "nobody who does not ask for it is told");
    }
    let metrics = world.get("/metrics").await.is(200);
    assert!(metrics["counters"]["marathon.autoscale.scale-ups.counter"]["count"].as_u64().unwrap() >= 1);
}
