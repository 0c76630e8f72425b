//! Changes of objects through the API.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use probe_kubernetes::controls::{Hands, LogRequest, Masks, Place, Refused, Terminal};
use probe_kubernetes::{Collector, Kind};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, timeout};

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
    let text = hands(&server).await.describe(&place(Kind::Pod, "shop", "web"), &Nothing).await.expect("a description");
    assert!(text.contains("name: PASSWORD\n") && !text.contains("secret"), "{text}");
    assert!(text.contains("Normal Scheduled: for limit=50&fieldSelector=involvedObject.uid%3Dpods-shop-web"), "{text}");
    assert!(!text.contains("managedFields") && !text.contains("last-applied"), "{text}");
}

/// Hides nothing.
struct Nothing;

impl Masks for Nothing {
    fn arguments(&self, arguments: &[&str]) -> Vec<String> {
        arguments.iter().map(|it| (*it).to_owned()).collect()
    }

    fn value(&self, _: &str, value: &str) -> String {
        value.to_owned()
    }

    fn text(&self, text: &str) -> String {
        text.to_owned()
    }
}

#[tokio::test]
async fn a_quiet_container_keeps_neither_the_others_logs_waiting_nor_whoever_asks() {
    let server = Server::start().await;
    let mut pod = make::pod("shop", "web", json!({}));
    pod["spec"]["containers"] = json!([{"name": "quiet"}, {"name": "main"}, {"name": "waiting"}]);
    server.put(Kind::Pod, pod);
    let mut alone = make::pod("shop", "alone", json!({}));
    alone["spec"]["containers"] = json!([{"name": "quiet"}]);
    server.put(Kind::Pod, alone);
    let hands = hands(&server).await;
    let mut lines = hands.logs(&place(Kind::Pod, "shop", "web"), &LOGS).await.expect("logs");
    let mut read = String::new();
    let others = async {
        while !(read.contains("[main] last without end") && read.contains("[waiting]")) {
            read.push_str(&String::from_utf8_lossy(&lines.next().await.expect("the quiet one goes on")));
        }
    };
    timeout(Duration::from_secs(10), others).await.expect("the others are told");

    let begun = Instant::now();
    let mut lines = hands.logs(&place(Kind::Pod, "shop", "alone"), &LOGS).await.expect("it is open");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // Longer than any other answer may take to begin.
    assert!(timeout(Duration::from_millis(1_500), lines.next()).await.is_err(), "it was given up");
}

/// A pod with containers of these names, whose ids are theirs.
fn pod_with(server: &Server, names: &[&str]) -> Place {
    let mut pod = make::pod("shop", "web", json!({}));
    pod["spec"]["containers"] =
        names.iter().map(|name| json!({"name": name, "stdin": name.starts_with("talks"), "tty": name.ends_with("tty")})).collect();
    pod["status"]["containerStatuses"] =
        names.iter().map(|name| json!({"name": name, "containerID": format!("containerd://id-of-{name}")})).collect();
    server.put(Kind::Pod, pod);
    place(Kind::Pod, "shop", "web")
}

const SHELL: [&str; 3] = ["/bin/sh", "-c", "exec sh"];

async fn until(output: &mut BoxStream<'static, Result<Bytes, String>>, what: &str) -> String {
    let mut read = String::new();
    let reading = async {
        while !read.contains(what) {
            read.push_str(&String::from_utf8_lossy(&output.next().await.expect("it goes on").expect("no failure")));
        }
    };
    timeout(Duration::from_secs(10), reading).await.unwrap_or_else(|_| panic!("{what:?} does not come"));
    read
}

async fn said(terminal: Result<Terminal, Refused>) -> String {
    match terminal {
        Ok(terminal) => format!("{:?}", terminal.output.collect::<Vec<_>>().await),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn a_shell_in_a_container_is_typed_to_and_has_a_size_by_both_protocols() {
    for is_old in [false, true] {
        let server = Server::start().await;
        if is_old {
            server.speak_old_terminals();
        }
        let pod = pod_with(&server, &["main", "side"]);
        let mut shell = hands(&server).await.exec(&pod, "id-of-side", &SHELL).await.expect("a shell");
        assert!(shell.is_terminal);
        assert_eq!(until(&mut shell.output, "\r\n").await, "side exec=true stdin=true tty=true command=3\r\n");
        let mut input = shell.input.take().expect("somebody reads");
        shell.sizes.as_ref().expect("it has a size").set(132, 43).expect("it takes it");
        // The size goes another way than what is typed; ask until it has come.
        let sized = async {
            loop {
                input.write_all(b"size\r").await.expect("it is typed");
                let told = until(&mut shell.output, "\r\n").await;
                if told.contains("132x43") {
                    return;
                }
            }
        };
        timeout(Duration::from_secs(10), sized).await.expect("it has its size");
        input.write_all(b"exit 3\r").await.expect("it is typed");
        // With which number it ends is its own business.
        let rest = timeout(Duration::from_secs(10), shell.output.collect::<Vec<_>>()).await.expect("it ends");
        assert!(rest.iter().all(Result::is_ok), "{rest:?}");
        assert!(server.typed().ends_with(b"exit 3\r"));
    }
}

#[tokio::test]
async fn the_first_process_is_attached_as_its_pod_has_made_it() {
    let server = Server::start().await;
    let pod = pod_with(&server, &["deaf", "talks-tty"]);
    let hands = hands(&server).await;
    let mut deaf = hands.attach(&pod, "id-of-deaf").await.expect("attached");
    assert!(deaf.input.is_none() && deaf.sizes.is_none() && !deaf.is_terminal);
    // Which of its two outputs is heard first is not said.
    let mut heard = String::new();
    while !(heard.contains("this is no terminal\r\n") && heard.contains("deaf exec=false stdin=false tty=false")) {
        heard.push_str(&until(&mut deaf.output, "\r\n").await);
    }
    let mut talks = hands.attach(&pod, "id-of-talks-tty").await.expect("attached");
    assert!(talks.is_terminal && talks.sizes.is_some());
    talks.input.as_mut().expect("it reads").write_all(b"hello\r").await.expect("it is typed");
    until(&mut talks.output, "hello!\r\n").await;
}

#[tokio::test]
async fn a_terminal_that_cannot_be_had_is_refused_in_the_words_of_who_could_not() {
    let server = Server::start().await;
    let pod = pod_with(&server, &["bare"]);
    let hands = hands(&server).await;
    let refused = said(hands.exec(&pod, "id-of-bare", &SHELL).await).await;
    assert_eq!(refused, r#"[Err("OCI runtime exec failed: exec: \"/bin/sh\": stat /bin/sh: no such file or directory")]"#);
    assert_eq!(said(hands.exec(&pod, "another", &SHELL).await).await, "pod web has this container no more");
    server.forbid_terminals();
    let expected = |part: &str| {
        format!(
            "pods \"web\" is forbidden: User \"collector\" cannot create resource \"pods/{part}\" in API group \"\" in the namespace \"shop\""
        )
    };
    assert_eq!(said(hands.exec(&pod, "id-of-bare", &SHELL).await).await, expected("exec"));
    assert_eq!(said(hands.attach(&pod, "id-of-bare").await).await, expected("attach"));
}
