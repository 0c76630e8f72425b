use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::world::World;

/// Listens, and gives out each event's type and JSON.
pub(crate) async fn listen(world: &World, query: &str) -> mpsc::UnboundedReceiver<(String, Value)> {
    let stream = TcpStream::connect(world.address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(format!("/v2/events{query}"))
        .header("host", "x")
        .header("accept", "text/event-stream")
        .body(Empty::<bytes::Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let (out, frames) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let _kept = sender;
        let mut body = response.into_body();
        let mut text = String::new();
        while let Some(Ok(frame)) = body.frame().await {
            text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
            loop {
                // A heartbeat is an empty line. Two of them in a row look like the end of an event.
                let events = text.trim_start_matches("\r\n").len();
                text.drain(..text.len() - events);
                let Some(end) = text.find("\r\n\r\n") else { break };
                let record: String = text.drain(..end + 4).collect();
                let mut lines = record.trim().split("\r\n");
                let kind = lines.next().unwrap().strip_prefix("event: ").unwrap().to_owned();
                let data = lines.next().unwrap().strip_prefix("data: ").unwrap();
                out.send((kind, serde_json::from_str(data).unwrap())).unwrap();
            }
        }
    });
    frames
}

#[tokio::test]
async fn the_life_of_an_app_is_told_in_order() {
    let world = World::new().await;
    let mut events = listen(&world, "").await;
    let first = events.recv().await.unwrap();
    assert_eq!(first.0, "event_stream_attached");
    world.post("/v2/apps", json!({"id": "/a", "cmd": "sleep 1", "cpus": 0.1, "mem": 16})).await.is(201);
    world.settled().await;
    world.delete("/v2/apps/a").await.is(200);
    let mut told = Vec::new();
    while told.iter().filter(|kind| *kind == "deployment_success").count() < 2 {
        let (kind, data) =
            tokio::time::timeout(Duration::from_secs(20), events.recv()).await.unwrap_or_else(|_| panic!("{told:?}")).unwrap();
        assert_eq!(data["eventType"], kind.as_str());
        assert!(data["timestamp"].as_str().unwrap().ends_with('Z'));
        if kind == "deployment_info" {
            assert_eq!(data["plan"]["original"]["id"], "/");
            assert!(data["currentStep"]["actions"][0]["app"] == "/a");
        }
        told.push(kind);
    }
    for kind in ["api_post_event", "group_change_success", "status_update_event", "instance_changed_event", "app_terminated_event"] {
        assert!(told.iter().any(|it| it == kind), "{kind} in {told:?}");
    }
    let at = |kind: &str| told.iter().position(|it| it == kind).unwrap();
    assert!(at("deployment_info") < at("deployment_step_success") && at("deployment_step_success") < at("deployment_success"), "{told:?}");
}

#[tokio::test]
async fn a_listener_hears_what_it_asked_for() {
    let world = World::new().await;
    let mut events = listen(&world, "?plan-format=light&event_type=deployment_info&event_type=deployment_success").await;
    world.post("/v2/apps", json!({"id": "/a", "cmd": "sleep 1", "cpus": 0.1, "mem": 16})).await.is(201);
    let (kind, data) = tokio::time::timeout(Duration::from_secs(20), events.recv()).await.unwrap().unwrap();
    assert_eq!(kind, "deployment_info");
    assert_eq!(data["plan"].get("original"), None);
    assert_eq!(world.get("/v2/events").await.status, 405);
}

#[tokio::test]
async fn the_end_of_a_health_check_is_told_where_there_was_one() {
    let world = World::new().await;
    let mut events =
        listen(&world, "?event_type=add_health_check_event&event_type=remove_health_check_event&event_type=app_terminated_event").await;
    let check = |path: &str| json!({"protocol": "MESOS_HTTP", "path": path, "portIndex": 0});
    let app = |id: &str, checks: Value| json!({"id": id, "cmd": "sleep 1", "cpus": 0.1, "mem": 16, "healthChecks": checks});
    world.post("/v2/apps", app("/plain", json!([]))).await.is(201);
    world.post("/v2/apps", app("/checked", json!([check("/"), {"protocol": "COMMAND", "command": {"value": "true"}}]))).await.is(201);
    let pod = json!({"id": "/pod", "containers": [{"name": "one", "resources": {"cpus": 0.1, "mem": 16}, "exec": {"command": {"shell": "sleep 1"}}}]});
    world.post("/v2/pods", pod).await.is(201);
    for path in ["/v2/apps/plain", "/v2/apps/checked", "/v2/pods/pod?force=true"] {
        assert!(world.delete(path).await.status < 300);
    }
    let mut told: Vec<(String, String)> = Vec::new();
    while told.iter().filter(|(kind, _)| kind == "app_terminated_event").count() < 3 {
        let (kind, data) =
            tokio::time::timeout(Duration::from_secs(20), events.recv()).await.unwrap_or_else(|_| panic!("{told:?}")).unwrap();
        told.push((kind, data["appId"].as_str().unwrap().to_owned()));
    }
    for kind in ["add_health_check_event", "remove_health_check_event"] {
        let of: Vec<&str> = told.iter().filter(|(it, _)| it == kind).map(|(_, app)| app.as_str()).collect();
        assert_eq!(of, ["/checked", "/checked"], "{kind}");
    }
}
