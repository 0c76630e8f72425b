//! Streams of agents that do not behave.

use prost::Message as _;
use proto::agent::v1 as wire;
use wire::agent_message::Body as Up;
use wire::master_message::Body as Down;
use wire::refused::Reason;

use crate::Files;
use crate::leadership::{Leader, Leadership};
use crate::testing::{Server, registration, server, server_with};

async fn refused(server: &Server, first: Vec<wire::AgentMessage>) -> (Reason, String) {
    let (up, mut down) = server.agent_stream(first).await;
    let message = down.message().await.unwrap().unwrap();
    let Some(Down::Refused(refused)) = message.body else { panic!("{message:?}") };
    assert!(down.message().await.unwrap().is_none(), "the stream ends after a refusal");
    drop(up);
    (refused.reason(), refused.message)
}

fn up(body: Up) -> wire::AgentMessage {
    wire::AgentMessage { body: Some(body), received_through: 0 }
}

#[tokio::test]
async fn malformed_registrations_are_refused_by_name() {
    let server = server().await;
    for (register, expected) in [
        (wire::Register { agent_info: vec![0xff], ..registration("a") }, "AgentInfo"),
        (wire::Register { agent_info: Vec::new(), ..registration("a") }, "hostname"),
        (wire::Register { pid: "nonsense".to_owned(), ..registration("a") }, "nonsense"),
        (wire::Register { tasks: vec![vec![1, 2, 3]], ..registration("a") }, "Task"),
        (wire::Register { frameworks: vec![Vec::new()], ..registration("a") }, "FrameworkInfo"),
    ] {
        let (reason, message) = refused(&server, vec![up(Up::Register(register))]).await;
        assert_eq!(reason, Reason::Invalid);
        assert!(message.contains(expected), "{message}");
    }
    let (reason, message) = refused(&server, vec![up(Up::Pong(wire::Pong {}))]).await;
    assert_eq!((reason, message.as_str()), (Reason::Invalid, "the first message is no registration"));
    assert_eq!(server.get("/state").await.json()["slaves"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn a_registration_in_parts_is_one() {
    let server = server().await;
    let parts = vec![
        up(Up::Register(wire::Register { more: true, ..registration("a") })),
        up(Up::Register(wire::Register { more: true, ..Default::default() })),
        up(Up::Register(wire::Register::default())),
    ];
    let (_up, mut down) = server.agent_stream(parts).await;
    assert!(matches!(down.message().await.unwrap().unwrap().body, Some(Down::Registered(_))));
}

#[tokio::test]
async fn who_does_not_lead_refuses() {
    let server = server_with(Leadership::Nobody, &[], Files::default()).await;
    let (reason, _) = refused(&server, vec![up(Up::Register(registration("a")))]).await;
    assert_eq!(reason, Reason::NotLeading);
}

#[tokio::test]
async fn who_knows_the_leader_says_where_it_is() {
    let leader = Leader { hostname: "m2".to_owned(), port: 5050, grpc: Some("10.0.0.2:4041".to_owned()), ..Leader::default() };
    let server = server_with(Leadership::Led(leader), &[], Files::default()).await;
    // The loop takes the news in by itself.
    while server.context.master().leader().is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    let (_up, mut down) = server.agent_stream(vec![up(Up::Register(registration("a")))]).await;
    let Some(Down::Refused(refused)) = down.message().await.unwrap().unwrap().body else { panic!("it is not refused") };
    assert_eq!((refused.reason(), refused.leader.as_str()), (Reason::NotLeading, "10.0.0.2:4041"));
}

const CREDENTIALS: &str = r#"credentials={"credentials":[{"principal":"agents","secret":"s"},{"principal":"others","secret":"s"}]}"#;

fn basic(pair: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

#[tokio::test]
async fn agents_show_who_they_are() {
    let acls = r#"acls={"register_agents":[{"principals":{"values":["agents"]},"agents":{"type":"ANY"}},{"principals":{"type":"NONE"},"agents":{"type":"ANY"}}]}"#;
    let server = server_with(Leadership::Leading, &[CREDENTIALS, acls, "authenticate_agents"], Files::default()).await;
    let first = || vec![up(Up::Register(registration("a")))];
    for wrong in [None, Some(basic("agents:x")), Some(basic("nobody:s")), Some("Bearer x".to_owned())] {
        let refused = server.agent_call(wrong.as_deref(), first()).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{wrong:?}");
    }
    // Known, and not allowed: its tasks go on, and it tries again.
    let (_up, mut down) = server.agent_call(Some(&basic("others:s")), first()).await.unwrap();
    let Some(Down::Refused(refused)) = down.message().await.unwrap().unwrap().body else { panic!("it is not refused") };
    assert_eq!(refused.reason(), Reason::Invalid);
    assert!(refused.message.contains("with principal 'others'"), "{}", refused.message);
    let (_up, mut down) = server.agent_call(Some(&basic("agents:s")), first()).await.unwrap();
    assert!(matches!(down.message().await.unwrap().unwrap().body, Some(Down::Registered(_))));
}

#[tokio::test]
async fn agents_need_not_show_who_they_are_where_nobody_asks() {
    let server = server_with(Leadership::Leading, &[CREDENTIALS], Files::default()).await;
    let first = || vec![up(Up::Register(registration("a")))];
    assert_eq!(server.agent_call(Some(&basic("agents:x")), first()).await.unwrap_err().code(), tonic::Code::Unauthenticated);
    let (_up, mut down) = server.agent_call(None, first()).await.unwrap();
    assert!(matches!(down.message().await.unwrap().unwrap().body, Some(Down::Registered(_))));
}

#[tokio::test]
async fn an_agent_with_one_large_entry_comes_back() {
    let server = server().await;
    let label = mesos_proto::v1::Label { key: "k".to_owned(), value: Some("x".repeat(32 << 20)) };
    let framework = mesos_proto::v1::FrameworkInfo {
        id: Some(mesos_proto::v1::FrameworkId { value: "f".to_owned() }),
        labels: Some(mesos_proto::v1::Labels { labels: vec![label] }),
        ..Default::default()
    };
    let register = wire::Register { frameworks: vec![framework.encode_to_vec()], ..registration("a") };
    let (_up, mut down) = server.agent_stream(vec![up(Up::Register(register))]).await;
    assert!(matches!(down.message().await.unwrap().unwrap().body, Some(Down::Registered(_))));
}

#[tokio::test]
async fn nonsense_after_the_registration_is_dropped_and_the_stream_goes_on() {
    let server = server().await;
    let mut agent = server.agent(registration("a")).await;
    let update = |status: Vec<u8>| wire::StatusUpdate { framework_id: "f".to_owned(), status, ..Default::default() };
    agent.say(Up::StatusUpdate(update(vec![0xff; 10]))).await;
    agent.say(Up::StatusUpdate(update(Vec::new()))).await;
    agent.say(Up::Register(registration("b"))).await;
    let unknown = mesos_proto::v1::TaskStatus { state: 1, ..Default::default() };
    agent.say(Up::StatusUpdate(update(unknown.encode_to_vec()))).await;
    agent.say(Up::ExecutorExited(wire::ExecutorExited::default())).await;
    let gone = serde_json::json!({"type": "MARK_AGENT_GONE", "mark_agent_gone": {"agent_id": {"value": agent.id}}}).to_string();
    assert_eq!(server.post_json("/api/v1", &gone).await.status, 200);
    while let Some(command) = agent.next().await {
        if matches!(command, Down::ShutdownAgent(_)) {
            return;
        }
    }
    panic!("it was not told to end");
}

#[tokio::test]
async fn an_agent_that_breaks_off_is_disconnected_and_one_that_unregisters_is_gone() {
    let server = server().await;
    let agent = server.agent(registration("a")).await;
    drop(agent);
    while server.get("/slaves").await.json()["slaves"][0]["active"] != false {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let agent = server.agent(registration("b")).await;
    agent.say(Up::Unregister(wire::Unregister::default())).await;
    while server.get("/slaves").await.json()["slaves"].as_array().unwrap().len() != 1 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_last_word_of_an_agent_that_ends_its_stream_is_heard() {
    let server = server().await;
    let (words, mut down) = server.agent_stream(vec![up(Up::Register(registration("a")))]).await;
    assert!(matches!(down.message().await.unwrap().unwrap().body, Some(Down::Registered(_))));
    words.send(up(Up::Unregister(wire::Unregister::default()))).await.unwrap();
    drop(words);
    while let Ok(Some(_)) = down.message().await {}
    while !server.get("/slaves").await.json()["slaves"].as_array().unwrap().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
