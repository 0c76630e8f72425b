//! The Mesos master as a part of the process. What it answers is tested where it is made.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_control::config::{Config, Service};
use orchestrator_control::store::MemoryStore;
use proto::agent::v1 as wire;
use proto::agent::v1::agent_service_client::AgentServiceClient;
use serde_json::Value;
use tokio_stream::wrappers::ReceiverStream;

use crate::http;
use crate::world::{World, config};

fn with_master(directory: &Path) -> Config {
    Config {
        services: vec![Service::Topology, Service::Master],
        mesos_address: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        mesos_flags: vec!["--cluster=test".to_owned()],
        data_dir: directory.to_owned(),
        ..config()
    }
}

#[tokio::test]
async fn a_master_leads_at_once_and_serves_on_all_three_listeners() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::start_with(with_master(directory.path()), Arc::new(MemoryStore::default())).await;
    let address = world.mesos.unwrap();
    let state = loop {
        let reply = http::get(address, "/master/state").await;
        if reply.status == 200 {
            break reply.json::<Value>();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!((&state["cluster"], &state["version"]), (&"test".into(), &"1.11.0".into()));
    assert_eq!(state["pid"], format!("master@{address}"));
    assert_eq!(state["leader"], state["pid"]);
    assert_eq!(state["flags"]["port"], address.port().to_string());

    let page = world.get("/metrics").await.text();
    assert!(page.contains("\nmesos_master_elected 1\n") && page.contains("\nmesos_master_tasks_running 0\n"), "{page}");

    let (messages, stream) = tokio::sync::mpsc::channel(1);
    messages.send(wire::AgentMessage { body: Some(wire::agent_message::Body::Pong(wire::Pong {})), received_through: 0 }).await.unwrap();
    let channel = tonic::transport::Channel::from_shared(format!("http://{}", world.grpc)).unwrap().connect().await.unwrap();
    let mut answers = AgentServiceClient::new(channel).stream(ReceiverStream::new(stream)).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    assert!(matches!(answer.body, Some(wire::master_message::Body::Refused(_))), "{answer:?}");
    world.stop().await.unwrap();
}

#[tokio::test]
async fn without_the_service_there_is_no_master() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { services: vec![Service::Topology], ..with_master(directory.path()) };
    let world = World::start_with(config, Arc::new(MemoryStore::default())).await;
    assert_eq!(world.mesos, None);
    assert!(!world.get("/metrics").await.text().contains("mesos_"));
    world.stop().await.unwrap();
}

#[tokio::test]
async fn flags_that_make_no_sense_stop_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { mesos_flags: vec!["--acls={\"run_task\":[]}".to_owned()], ..with_master(directory.path()) };
    let error = World::try_start(config, Arc::new(MemoryStore::default())).await.map(|_| ()).unwrap_err();
    assert!(format!("{error:#}").contains("--acls: there is no list \"run_task\""), "{error:#}");
}
