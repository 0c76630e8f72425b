//! The other services' APIs, as the page reaches them on its own port.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use mesos_proto::v1;
use orchestrator_control::config::{Config, Service};
use orchestrator_control::store::MemoryStore;
use prost::Message as _;
use proto::agent::v1 as wire;
use proto::agent::v1::agent_service_client::AgentServiceClient;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;

use crate::http::{Reply, raw, request};
use crate::world::{World, config, eventually};

fn everything(directory: &Path) -> Config {
    Config {
        services: vec![Service::Topology, Service::Master, Service::Scheduler],
        mesos_address: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        marathon_address: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        data_dir: directory.to_owned(),
        ..config()
    }
}

async fn serving(directory: &Path) -> World {
    serving_with(everything(directory)).await
}

async fn serving_with(config: Config) -> World {
    let world = World::start_with(config, Arc::new(MemoryStore::default())).await;
    eventually(async || world.get("/api/v1/mesos/state-summary").await.status == 200, "the master serves".to_owned()).await;
    world
}

async fn post(world: &World, target: &str, headers: &str, body: &str) -> Reply {
    let length = body.len();
    let head = format!("POST {target} HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}");
    raw(world.http, head.as_bytes()).await
}

#[tokio::test]
async fn mesos_and_marathon_answer_on_the_port_of_the_page() {
    let directory = tempfile::tempdir().unwrap();
    let world = serving(directory.path()).await;
    let services: Value = world.get("/api/v1/services").await.json();
    assert_eq!((&services["master"]["ready"], &services["scheduler"]["runs"]), (&Value::Bool(true), &Value::Bool(true)));
    assert_eq!(
        services["zksync"],
        serde_json::json!({ "runs": false, "ready": false, "detail": "the service zksync is not among --services" })
    );

    let roles: Value = world.get("/api/v1/mesos/roles?x=1").await.json();
    assert!(roles["roles"].is_array(), "{roles}");
    let json = "Content-Type: application/json\r\n";
    let agents: Value = post(&world, "/api/v1/mesos/api/v1", json, r#"{"type":"GET_AGENTS"}"#).await.json();
    assert_eq!(agents["type"], "GET_AGENTS");
    let malformed = post(&world, "/api/v1/mesos/api/v1", json, r#"{"type":"GET_"#).await;
    assert_eq!(malformed.status, 400);
    assert_eq!(malformed.header("x-content-type-options"), "nosniff");

    let apps: Value = world.get("/api/v1/marathon/v2/apps").await.json();
    assert_eq!(apps["apps"], serde_json::json!([]));
    let made = post(&world, "/api/v1/marathon/v2/apps", json, r#"{"id":"/shop/web","cmd":"sleep 1000","instances":1}"#).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let app: Value = world.get("/api/v1/marathon/v2/apps/shop/web").await.json();
    assert_eq!(app["app"]["id"], "/shop/web");
    let wrong = post(&world, "/api/v1/marathon/v2/apps", json, r#"{"id":"/a","cmd":"x","instances":-1}"#).await;
    assert_eq!(wrong.status, 422);
    assert!(wrong.json::<Value>()["details"][0]["path"].is_string(), "{}", wrong.text());
    for target in [
        "/api/v1/mesos",
        "/api/v1/mesos/",
        "/api/v1/marathon/",
        "/api/v1/mesos/../../health",
        "/api/v1/mesos/%2e%2e/x",
        "/api/v1/mesos/nothing",
    ] {
        let status = world.get(target).await.status;
        assert!(status < 500, "{target} is {status}");
    }
    world.stop().await.unwrap();
}

#[tokio::test]
async fn pages_of_other_origins_change_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let world = serving(directory.path()).await;
    let app = r#"{"id":"/evil","cmd":"x"}"#;
    for headers in ["Origin: http://evil.example\r\n", "Origin: http://here\r\nSec-Fetch-Site: cross-site\r\n", "Origin: null\r\n"] {
        let reply = post(&world, "/api/v1/marathon/v2/apps", &format!("{headers}Content-Type: text/plain\r\n"), app).await;
        assert_eq!(reply.status, 403, "{headers}");
    }
    assert_eq!(world.get("/api/v1/marathon/v2/apps/evil").await.status, 404);
    let own = post(&world, "/api/v1/marathon/v2/apps", "Origin: http://here\r\nContent-Type: application/json\r\n", app).await;
    assert_eq!(own.status, 201, "{}", own.text());
    world.stop().await.unwrap();
}

#[tokio::test]
async fn the_event_stream_comes_as_it_happens() {
    let directory = tempfile::tempdir().unwrap();
    let world = serving(directory.path()).await;
    let mut stream = tokio::net::TcpStream::connect(world.http).await.unwrap();
    stream.write_all(b"GET /api/v1/marathon/v2/events HTTP/1.1\r\nHost: here\r\nAccept: text/event-stream\r\n\r\n").await.unwrap();
    let mut seen = String::new();
    let mut buffer = [0; 4_096];
    let read = async {
        while !seen.contains("event_stream_attached") {
            let count = stream.read(&mut buffer).await.unwrap();
            assert!(count > 0, "it ended after {seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(5), read).await.expect("the stream speaks at once");
    drop(stream);
    world.stop().await.unwrap();
}

#[tokio::test]
async fn what_does_not_run_here_says_so() {
    let world = World::start().await;
    for target in ["/api/v1/mesos/state", "/api/v1/marathon/v2/apps", "/api/v1/agents/x/files/browse?path=/"] {
        let reply = world.get(target).await;
        assert_eq!(reply.status, 404, "{target}");
        assert!(reply.json::<String>().contains("in this control plane"), "{}", reply.text());
    }
    let services: Value = world.get("/api/v1/services").await.json();
    assert_eq!(services["master"]["detail"], "the service master is not among --services");
}

/// An agent of which only its files are real: every request is answered with `answer`, and what was asked is sent on.
async fn agent_with_files(
    world: &World,
    answer: &'static [u8],
) -> (String, tokio::sync::mpsc::Receiver<String>, tokio::sync::mpsc::Sender<wire::AgentMessage>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, questions) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = vec![0; 8_192];
            let count = stream.read(&mut buffer).await.unwrap_or(0);
            let _ = asked.send(String::from_utf8_lossy(&buffer[..count]).into_owned()).await;
            let _ = stream.write_all(answer).await;
        }
    });
    let (messages, stream) = tokio::sync::mpsc::channel(4);
    let info = v1::AgentInfo { hostname: "agent-1".to_owned(), port: Some(i32::from(address.port())), ..v1::AgentInfo::default() };
    let register = wire::Register {
        agent_info: info.encode_to_vec(),
        pid: format!("slave(1)@{address}"),
        version: "1.11.0".to_owned(),
        ..wire::Register::default()
    };
    let body = Some(wire::agent_message::Body::Register(register));
    messages.send(wire::AgentMessage { body, received_through: 0 }).await.unwrap();
    let channel = tonic::transport::Channel::from_shared(format!("http://{}", world.grpc)).unwrap().connect().await.unwrap();
    let mut answers = AgentServiceClient::new(channel).stream(ReceiverStream::new(stream)).await.unwrap().into_inner();
    let first = answers.message().await.unwrap().unwrap();
    tokio::spawn(async move { while let Ok(Some(_)) = answers.message().await {} });
    let mut id = String::new();
    eventually(
        async || {
            let summary: Value = world.get("/api/v1/mesos/state-summary").await.json();
            id = summary["slaves"][0]["id"].as_str().unwrap_or_default().to_owned();
            !id.is_empty()
        },
        format!("the agent is registered; it was told {first:?}"),
    )
    .await;
    (id, questions, messages)
}

#[tokio::test]
async fn files_of_registered_agents_are_fetched_and_of_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let world = serving(directory.path()).await;
    let answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\nSet-Cookie: x=y\r\n\r\n[]";
    let (id, mut questions, _messages) = agent_with_files(&world, answer).await;
    let headers = "Authorization: Basic c2VjcmV0\r\nCookie: session=1\r\n";
    let target = format!("/api/v1/agents/{id}/files/browse?path=/frameworks/f&jsonp=x");
    let reply = request(world.http, "GET", &target, headers).await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "[]"));
    assert_eq!((reply.header("content-type"), reply.header("set-cookie")), ("application/json", ""));
    let asked = questions.recv().await.unwrap();
    assert!(asked.starts_with("GET /files/browse?path=/frameworks/f HTTP/1.1\r\n"), "{asked}");
    assert!(!asked.to_lowercase().contains("authorization") && !asked.to_lowercase().contains("cookie"), "{asked}");
    let download = world.get(&format!("/api/v1/agents/{id}/files/download?path=/x")).await;
    assert_eq!((download.header("content-type"), download.header("content-disposition")), ("application/octet-stream", "attachment"));
    assert_eq!(download.header("x-content-type-options"), "nosniff");
    assert_eq!(world.get(&format!("/api/v1/agents/{id}/files/debug")).await.status, 404);
    for other in ["nobody", "127.0.0.1:80", "%2e%2e", "slave(1)@127.0.0.1:22"] {
        assert_eq!(world.get(&format!("/api/v1/agents/{other}/files/browse?path=/")).await.status, 404, "{other}");
    }
    world.stop().await.unwrap();
}

#[tokio::test]
async fn agents_that_ask_who_reads_are_shown_our_login() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("login");
    std::fs::write(&file, "ada:lovelace\n").unwrap();
    let world = serving_with(Config { agent_login_file: Some(file), ..everything(directory.path()) }).await;
    let answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";
    let (id, mut questions, _messages) = agent_with_files(&world, answer).await;
    let reply = world.get(&format!("/api/v1/agents/{id}/files/browse?path=/x")).await;
    assert_eq!(reply.status, 502);
    assert!(reply.json::<String>().contains("does not know our --agent-login-file"), "{}", reply.text());
    let asked = questions.recv().await.unwrap().to_lowercase();
    assert!(asked.contains("authorization: basic ywrhomxvdmvsywnl\r\n"), "{asked}");
    world.stop().await.unwrap();
}

#[tokio::test]
async fn an_agent_that_answers_nonsense_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let world = serving(directory.path()).await;
    let (id, _questions, _messages) =
        agent_with_files(&world, b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n")
            .await;
    let reply = world.get(&format!("/api/v1/agents/{id}/files/read?path=/x&offset=0")).await;
    assert_eq!(reply.status, 502);
    assert!(reply.json::<String>().contains("answers 307"), "{}", reply.text());
    world.stop().await.unwrap();
}
