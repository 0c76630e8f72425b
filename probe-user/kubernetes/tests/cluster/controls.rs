//! Changes of objects through the API.

use std::time::Duration;

use futures::StreamExt as _;
use probe_kubernetes::controls::{Hands, LogRequest, Place};
use probe_kubernetes::{Collector, Kind};
use serde_json::json;
use tokio::time::timeout;

use crate::following::config;
use crate::make;
use crate::server::Server;

async fn hands(server: &Server) -> Hands {
    Collector::connect(config(server)).await.expect("a usable address").0.hands()
}

fn place(kind: Kind, namespace: &str, name: &str) -> Place {
    let uid = make::metadata(kind, namespace, name)["uid"].as_str().unwrap_or_default().into();
    Place { kind, namespace: namespace.into(), name: name.into(), uid }
}

const LOGS: LogRequest = LogRequest { follow: true, tail: Some(5), since: Some(1_700_000_000), timestamps: true };

#[tokio::test]
async fn logs_of_all_containers_come_line_by_line() {
    let server = Server::start().await;
    let mut pod = make::pod("shop", "web", json!({}));
    pod["spec"]["containers"] = json!([{"name": "main"}, {"name": "side"}, {"name": "waiting"}]);
    server.put(Kind::Pod, pod);
    let lines = hands(&server).await.logs(&place(Kind::Pod, "shop", "web"), &LOGS).await.expect("logs");
    let all: Vec<_> = timeout(Duration::from_secs(10), lines.collect()).await.expect("they end");
    let mut all: Vec<String> = String::from_utf8(all.concat()).expect("text").lines().map(str::to_owned).collect();
    all.sort();
    let query = |container| format!("container={container}&follow=true&timestamps=true&tailLines=5&sinceTime=2023-11-14T22:13:20Z");
    let expected = [
        format!("[main] first of main ({})", query("main")),
        "[main] half a line".to_owned(),
        "[main] last without end".to_owned(),
        format!("[side] first of side ({})", query("side")),
        "[side] half a line".to_owned(),
        "[side] last without end".to_owned(),
        "[waiting] container \"waiting\" in pod is waiting to start: ContainerCreating".to_owned(),
    ];
    assert_eq!(all, expected);
}

#[tokio::test]
async fn logs_that_nobody_has_are_refused_in_the_words_of_the_api() {
    let server = Server::start().await;
    let mut pod = make::pod("shop", "web", json!({}));
    pod["spec"]["containers"] = json!([{"name": "waiting"}]);
    server.put(Kind::Pod, pod);
    let hands = hands(&server).await;
    let refused = hands.logs(&place(Kind::Pod, "shop", "web"), &LOGS).await.err().map(|error| error.to_string());
    assert_eq!(refused.as_deref(), Some("container \"waiting\" in pod is waiting to start: ContainerCreating"));
    let refused = hands.logs(&place(Kind::Pod, "shop", "gone"), &LOGS).await.err().map(|error| error.to_string());
    assert_eq!(refused.as_deref(), Some("not found"));
}

#[tokio::test]
async fn a_pod_is_deleted_and_another_of_its_name_is_not() {
    let server = Server::start().await;
    let hands = hands(&server).await;
    server.put(Kind::Pod, make::pod("shop", "db-0", json!({})));
    let mut older = place(Kind::Pod, "shop", "db-0");
    older.uid = "the-one-before".into();
    assert_eq!(hands.delete_pod(&older).await.map_err(|it| it.to_string()), Err("pods \"db-0\" is another one by now".to_owned()));
    assert!(server.object(Kind::Pod, "shop", "db-0").is_some());
    hands.delete_pod(&place(Kind::Pod, "shop", "db-0")).await.expect("it is deleted");
    assert!(server.object(Kind::Pod, "shop", "db-0").is_none());
    // One that the kubelet itself made is known by the hash of its configuration.
    let mut fixed = make::pod("kube-system", "etcd", json!({}));
    fixed["metadata"]["annotations"]["kubernetes.io/config.hash"] = json!("abc");
    server.put(Kind::Pod, fixed);
    let mut by_hash = place(Kind::Pod, "kube-system", "etcd");
    by_hash.uid = "abc".into();
    hands.delete_pod(&by_hash).await.expect("it is deleted");
}

#[tokio::test]
async fn a_controller_is_scaled_though_others_change_it_too_and_never_below_none() {
    let server = Server::start().await;
    let hands = hands(&server).await;
    let mut deployment = make::bare(Kind::Deployment, "shop", "front");
    deployment["spec"] = json!({"replicas": 1});
    server.put(Kind::Deployment, deployment);
    let replicas = || server.object(Kind::Deployment, "shop", "front").expect("it is there")["spec"]["replicas"].clone();
    let front = place(Kind::Deployment, "shop", "front");
    server.conflict(3);
    hands.scale(&front, 1).await.expect("it is scaled");
    assert_eq!(replicas(), 2);
    server.conflict(100);
    let refused = hands.scale(&front, 1).await.map_err(|it| it.to_string());
    assert_eq!(refused, Err("front is being changed by somebody else all the time".to_owned()));
    server.conflict(0);
    hands.scale(&front, -1).await.expect("it is scaled");
    hands.scale(&front, -1).await.expect("it is scaled");
    assert_eq!(hands.scale(&front, -1).await.map_err(|it| it.to_string()), Err("front has 0 pods already".to_owned()));
    assert_eq!(replicas(), 0);
}

#[tokio::test]
async fn a_node_takes_no_more_and_then_takes_again() {
    let server = Server::start().await;
    let hands = hands(&server).await;
    let mut node = make::bare(Kind::Node, "", "node-1");
    node["metadata"].as_object_mut().expect("an object").remove("namespace");
    server.put(Kind::Node, node);
    let unschedulable = || server.object(Kind::Node, "", "node-1").expect("it is there")["spec"]["unschedulable"].clone();
    hands.cordon("node-1", true).await.expect("it is cordoned");
    assert_eq!(unschedulable(), true);
    hands.cordon("node-1", false).await.expect("it is uncordoned");
    assert_eq!(unschedulable(), false);
    for hostile in ["../pods", "a/b", "", "a?b", ".", "a b"] {
        assert!(hands.cordon(hostile, true).await.is_err(), "{hostile:?}");
    }
}

#[tokio::test]
async fn a_description_has_no_environment_and_the_events() {
    let server = Server::start().await;
    server.put(Kind::Pod, make::pod("shop", "web", json!({"app": "web"})));
    let text = hands(&server).await.describe(&place(Kind::Pod, "shop", "web")).await.expect("a description");
    assert!(text.contains("name: PASSWORD\n") && !text.contains("secret"), "{text}");
    assert!(text.contains("Normal Scheduled: for limit=50&fieldSelector=involvedObject.uid%3Dpods-shop-web"), "{text}");
    assert!(!text.contains("managedFields") && !text.contains("last-applied"), "{text}");
}
