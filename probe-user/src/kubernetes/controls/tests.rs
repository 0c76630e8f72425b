//! Terminals in containers of pods, from a call on the stream to an API that speaks WebSockets.

use std::time::Duration;

use axum::Json;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use probe_controls::{Desk, Numbers};
use probe_kubernetes::{Access, Collector, CollectorConfig};
use proto::probe::v1::pipe::Body as Word;
use proto::probe::v1::{ControlAnswer, ControlCall, Pipe, ProbeMessage, probe_message};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;
use crate::telemetry::Telemetry;

/// A pod with a container that has a shell, and one that has none. What is typed into the shell goes to `typed`.
async fn api(typed: mpsc::UnboundedSender<Vec<u8>>) -> String {
    let pod = json!({
        "metadata": {"name": "web", "namespace": "shop", "uid": "the-pod"},
        "spec": {"containers": [{"name": "main"}, {"name": "bare"}]},
        "status": {"containerStatuses": [{"name": "main", "containerID": "containerd://c1"}, {"name": "bare", "containerID": "containerd://c2"}]},
    });
    let exec = async move |upgrade: WebSocketUpgrade, query: axum::extract::RawQuery| -> Response {
        let is_bare = query.0.unwrap_or_default().contains("container=bare");
        upgrade.protocols(["v5.channel.k8s.io"]).on_upgrade(move |socket| shell(socket, is_bare, typed.clone())).into_response()
    };
    let router = axum::Router::new()
        .route("/api/v1/namespaces/shop/pods/web", get(async move || Json(pod)))
        .route("/api/v1/namespaces/shop/pods/web/exec", get(exec));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    in_background(async move { axum::serve(listener, router).await.unwrap() });
    url
}

async fn shell(mut socket: WebSocket, is_bare: bool, typed: mpsc::UnboundedSender<Vec<u8>>) {
    let message = |channel: u8, text: &str| Message::Binary([&[channel], text.as_bytes()].concat().into());
    if is_bare {
        let status = json!({"status": "Failure", "reason": "InternalError", "message": "no such file: /bin/sh"});
        socket.send(message(3, &status.to_string())).await.unwrap();
        return;
    }
    socket.send(message(1, "# ")).await.unwrap();
    while let Some(Ok(Message::Binary(bytes))) = socket.recv().await {
        typed.send(bytes.to_vec()).unwrap();
        if bytes.first() == Some(&0) {
            socket.send(message(1, &String::from_utf8_lossy(&bytes[1..]))).await.unwrap();
        }
        if bytes.ends_with(b"\x04") {
            return;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "what a test starts ends with its runtime")]
fn in_background(this: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(this);
}

/// A collector that knows one pod, and its stream.
struct World {
    desk: Desk,
    messages: mpsc::Receiver<ProbeMessage>,
    typed: mpsc::UnboundedReceiver<Vec<u8>>,
}

impl World {
    async fn new() -> Self {
        let (typing, typed) = mpsc::unbounded_channel();
        let config = CollectorConfig { access: Access::Url(api(typing).await), ..CollectorConfig::default() };
        let (collector, _) = Collector::connect(config).await.unwrap();
        let (questions, mut asked) = mpsc::channel::<Question>(QUESTIONS_MAX);
        in_background(async move {
            while let Some(Question { object, reply }) = asked.recv().await {
                let is_known = matches!(&object, Asked::PodOfContainer(id) if id == "c1" || id == "c2");
                let pod = Place { kind: Kind::Pod, namespace: "shop".into(), name: "web".into(), uid: "the-pod".into() };
                drop(reply.send((collector.hands(), is_known.then_some(pod))));
            }
        });
        let (outgoing, messages) = mpsc::channel(64);
        let numbers: Numbers = Telemetry::new().metrics().desk();
        let executor: Arc<dyn Executor> = Arc::new(ClusterControls::new(questions, Masks::default()));
        World { desk: Desk::new(Some(executor), outgoing, numbers), messages, typed }
    }

    fn call(&mut self, node: &str, control: &str, arguments: &[(&str, &str)]) {
        let arguments = arguments.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let call = ControlCall { call: 1, node_id: node.to_owned(), control: control.to_owned(), arguments, deadline_ms: 0 };
        self.desk.on_call(call);
    }

    async fn message(&mut self) -> probe_message::Body {
        timeout(Duration::from_secs(10), self.messages.recv()).await.unwrap().unwrap().body.unwrap()
    }

    async fn answer(&mut self) -> ControlAnswer {
        loop {
            if let probe_message::Body::ControlAnswer(answer) = self.message().await {
                return answer;
            }
        }
    }

    fn put_into(&mut self, pipe: u64, word: Word) {
        self.desk.on_pipe(Pipe { pipe, body: Some(word) });
    }

    async fn take_out(&mut self, until: &str) {
        let mut read = String::new();
        while !read.contains(until) {
            if let probe_message::Body::Pipe(Pipe { body: Some(Word::Data(bytes)), .. }) = self.message().await {
                read.push_str(&String::from_utf8_lossy(&bytes));
            }
        }
    }

    async fn typed(&mut self) -> Vec<u8> {
        timeout(Duration::from_secs(10), self.typed.recv()).await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn a_shell_in_a_container_of_a_pod_is_a_terminal_as_in_one_of_dockers() {
    let mut world = World::new().await;
    world.call("c1;<container>", "docker_exec_container", &[]);
    let answer = world.answer().await;
    let opened = answer.pipe.unwrap_or_else(|| panic!("{}", answer.error));
    assert_eq!((opened.raw_tty, opened.resize_control.as_str()), (true, "docker_resize_exec_tty"));
    world.put_into(opened.pipe, Word::Credit(1 << 20));
    world.take_out("# ").await;
    world.put_into(opened.pipe, Word::Data(b"ls\r".to_vec().into()));
    world.take_out("ls\r").await;
    assert_eq!(world.typed().await, b"\x00ls\r");

    let pipe = format!("pipe-{}", opened.pipe);
    let size = [("pipeID", pipe.as_str()), ("height", "24"), ("width", "80")];
    world.call("c1;<container>", "docker_resize_exec_tty", &size);
    assert_eq!(world.answer().await.error, "");
    assert_eq!(world.typed().await, b"\x04{\"Width\":80,\"Height\":24}");

    // When the window is closed, what runs in it is ended.
    world.put_into(opened.pipe, Word::End(proto::probe::v1::pipe::End::default()));
    assert_eq!(world.typed().await, b"\x00\x03\x04");
    let closed = async {
        loop {
            world.call("c1;<container>", "docker_resize_exec_tty", &size);
            let answer = world.answer().await;
            if answer.error == format!("Unknown pipeID ({pipe})") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(10), closed).await.expect("it is forgotten");
}

#[tokio::test]
async fn a_shell_that_cannot_be_had_is_refused_before_a_window_is_opened() {
    let mut world = World::new().await;
    for (node, error) in [
        ("c2;<container>", "no such file: /bin/sh"),
        ("c9;<container>", "no pod of the cluster is known to have the container c9"),
        (";<container>", "Invalid ID: ;<container>"),
        ("the-pod;<pod>", "Invalid ID: the-pod;<pod>"),
    ] {
        world.call(node, "docker_exec_container", &[]);
        let answer = world.answer().await;
        assert_eq!((answer.error.as_str(), answer.pipe), (error, None));
    }
    world.call("c1;<container>", "docker_stop_container", &[]);
    assert!(world.answer().await.error.contains("not recognised"), "what Kubernetes would start again is not stopped here");
}
