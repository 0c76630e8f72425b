//! Streams of events.

use std::time::Duration;

use serde_json::json;

use crate::testing::{JSON, registration, server, server_with};
use crate::{Files, Leadership};

#[tokio::test]
async fn an_operators_stream_begins_with_the_state_and_one_record_is_one_chunk() {
    let server = server().await;
    let (head, mut stream) = server.open("/api/v1", JSON, r#"{"type":"SUBSCRIBE"}"#).await;
    let head = head.to_lowercase();
    assert!(head.starts_with("http/1.1 200") && head.contains("transfer-encoding: chunked"), "{head}");
    assert!(head.contains("content-type: application/json") && !head.contains("mesos-stream-id"), "{head}");
    let event = stream.event("SUBSCRIBED").await;
    assert_eq!(event["subscribed"]["heartbeat_interval_seconds"], 15.0);
    assert!(event["subscribed"]["get_state"]["get_agents"].is_object());
    let agent = server.agent(registration("one")).await;
    let added = stream.event("AGENT_ADDED").await;
    assert_eq!(added["agent_added"]["agent"]["agent_info"]["id"]["value"], agent.id);
    let framework = server.framework(&json!({"user": "root", "name": "n"})).await;
    let added = stream.event("FRAMEWORK_ADDED").await;
    assert_eq!(added["framework_added"]["framework"]["framework_info"]["id"]["value"], framework.id);
    drop(framework);
    stream.event("FRAMEWORK_REMOVED").await;
}

#[tokio::test]
async fn the_oldest_of_too_many_operators_is_closed() {
    let server = server_with(Leadership::Leading, &["max_operator_event_stream_subscribers=2"], Files::default()).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        let (_, mut stream) = server.open("/api/v1", JSON, r#"{"type":"SUBSCRIBE"}"#).await;
        stream.chunks(1).await;
        streams.push(stream);
    }
    let mut oldest = streams.remove(0);
    oldest.until_over().await;
    assert!(oldest.received.ends_with(b"0\r\n\r\n"));
}

#[tokio::test]
async fn a_framework_is_subscribed_in_both_encodings() {
    use mesos_proto::v1::scheduler::{Call, Event, call, event};
    use prost::Message as _;

    let server = server().await;
    let (head, mut stream) = server
        .open(
            "/api/v1/scheduler",
            JSON,
            &json!({
                "type": "SUBSCRIBE", "subscribe": {"framework_info": {"user": "root", "name": "n", "id": null}},
            })
            .to_string(),
        )
        .await;
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-type: application/json"), "{head}");
    let subscribed = stream.event("SUBSCRIBED").await;
    assert_eq!(subscribed["subscribed"]["heartbeat_interval_seconds"], 15.0);
    assert_eq!(subscribed["subscribed"]["master_info"]["address"]["ip"], "127.0.0.1");
    assert_eq!(stream.next().await.unwrap(), br#"{"type":"HEARTBEAT"}"#);

    let info = mesos_proto::v1::FrameworkInfo { user: "root".to_owned(), name: "p".to_owned(), ..Default::default() };
    let call = Call {
        r#type: Some(call::Type::Subscribe.into()),
        subscribe: Some(call::Subscribe { framework_info: info, ..Default::default() }),
        ..Call::default()
    };
    let body = call.encode_to_vec();
    let headers = "Content-Type: application/x-protobuf\r\nAccept: application/x-protobuf\r\n";
    let (head, mut stream) = server.open("/api/v1/scheduler", headers, std::str::from_utf8(&body).unwrap()).await;
    assert!(head.contains("content-type: application/x-protobuf"), "{head}");
    let first = Event::decode(&*stream.next().await.unwrap()).unwrap();
    assert_eq!(first.r#type(), event::Type::Subscribed);
    assert_eq!(Event::decode(&*stream.next().await.unwrap()).unwrap().r#type(), event::Type::Heartbeat);
}

#[tokio::test]
async fn mistakes_of_a_subscription_are_an_event_and_the_end() {
    let server = server().await;
    for info in [
        json!({"user": "root", "name": "n", "role": "a/../b"}),
        json!({"user": "root", "name": "n", "roles": ["a"]}),
        json!({"user": "root", "name": "n", "failover_timeout": 1e300}),
    ] {
        let call = json!({"type": "SUBSCRIBE", "subscribe": {"framework_info": info}}).to_string();
        let (head, mut stream) = server.open("/api/v1/scheduler", JSON, &call).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(stream.event("ERROR").await["error"]["message"].is_string(), "{info}");
        stream.until_over().await;
    }
}

#[tokio::test]
async fn a_stale_stream_is_told_and_its_calls_are_refused() {
    let server = server().await;
    let info = json!({"user": "root", "name": "n", "failover_timeout": 60});
    let mut old = server.framework(&info).await;
    let new = server.framework(&json!({"user": "root", "name": "n", "failover_timeout": 60, "id": {"value": old.id}})).await;
    assert_eq!((&new.id, new.stream_id == old.stream_id), (&old.id, false));
    assert_eq!(old.stream.event("ERROR").await["error"]["message"], "Framework failed over");
    old.stream.until_over().await;
    let answer = server.call(&old, json!({"type": "REVIVE"})).await;
    assert_eq!(answer.status, 400);
    assert!(
        answer.text().starts_with(&format!("The stream ID '{}' included in this request didn't match", old.stream_id)),
        "{}",
        answer.text()
    );
    assert_eq!(server.call(&new, json!({"type": "REVIVE"})).await.status, 202);
    let call = json!({"type": "REVIVE", "framework_id": {"value": new.id}}).to_string();
    assert_eq!(server.post_json("/api/v1/scheduler", &call).await.status, 400);
    drop(new);
    // Once the master has seen the end of the stream.
    loop {
        let answer = server.call(&old, json!({"type": "REVIVE"})).await;
        if answer.status == 403 {
            assert_eq!(answer.text(), "Framework is not subscribed");
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let answer = server.post_json("/api/v1/scheduler", r#"{"type":"REVIVE","framework_id":{"value":"unknown"}}"#).await;
    assert_eq!((answer.status, answer.text()), (400, "Framework cannot be found"));
}

#[tokio::test]
async fn reconnecting_in_a_loop_costs_little_and_leaves_nothing() {
    let server = server().await;
    let info = json!({"user": "root", "name": "n", "failover_timeout": 60});
    let first = server.framework(&info).await;
    let again = json!({"user": "root", "name": "n", "failover_timeout": 60, "id": {"value": first.id}});
    for _ in 0..200 {
        server.framework(&again).await;
    }
    let last = server.framework(&again).await;
    assert_eq!(server.call(&last, json!({"type": "TEARDOWN"})).await.status, 202);
    loop {
        let state = server.get("/state").await.json();
        let gauges = server.context.master().gauges();
        let streams = gauges.streams.load(std::sync::atomic::Ordering::Relaxed);
        if state["frameworks"] == json!([]) && streams == 0 {
            assert_eq!(state["completed_frameworks"].as_array().unwrap().len(), 1);
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn streams_end_when_the_master_stops() {
    let server = server().await;
    let mut framework = server.framework(&json!({"user": "root", "name": "n"})).await;
    let (_, mut operator) = server.open("/api/v1", JSON, r#"{"type":"SUBSCRIBE"}"#).await;
    server.stop();
    framework.stream.until_over().await;
    operator.until_over().await;
    assert_eq!(server.get("/state").await.status, 503);
}
