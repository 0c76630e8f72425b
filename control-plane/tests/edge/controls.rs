//! Controls and pipes: our probes on their stream, Scope's own over WebSockets, good clients, slow ones, and bad ones.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use orchestrator_control::store::MemoryStore;
use proto::probe::v1::{
    ControlAnswer, ControlCall, Hello, Pipe, control_answer, control_message, pipe::Body as Word, pipe::End, probe_message,
};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::http::{Reply, raw, request};
use crate::probe::{Probe, hello, message};
use crate::world::{CONTAINER, World, config, web_report};

/// A node id as Scope's scripts put it into a path.
const NODE: &str = "c0ffee;<container>";

async fn probe(world: &World, id: &str, controls: &[&str]) -> Probe {
    let controls = controls.iter().map(|&control| control.to_owned()).collect();
    Probe::connect_with(world.grpc, Hello { controls, ..hello(id, id) }).await.unwrap()
}

async fn next_call(probe: &mut Probe) -> ControlCall {
    match probe.next().await.unwrap() {
        Some(control_message::Body::ControlCall(call)) => call,
        other => panic!("no call but {other:?}"),
    }
}

async fn next_word(probe: &mut Probe) -> (u64, Word) {
    match probe.next().await.unwrap() {
        Some(control_message::Body::Pipe(Pipe { pipe, body: Some(word) })) => (pipe, word),
        other => panic!("nothing on a pipe but {other:?}"),
    }
}

async fn answer(probe: &Probe, answer: ControlAnswer) {
    probe.send_raw(message(probe_message::Body::ControlAnswer(answer))).await;
}

async fn say(probe: &Probe, pipe: u64, word: Word) {
    probe.send_raw(message(probe_message::Body::Pipe(Pipe { pipe, body: Some(word) }))).await;
}

async fn call(server: SocketAddr, target: &str, body: &str) -> Reply {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    raw(server, format!("POST {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{length}\r\n{body}").as_bytes()).await
}

/// Opens a pipe through a control; the probe's first credit has come.
async fn open(world: &World, probe: &mut Probe, pipe: u64) -> u64 {
    let target = format!("/api/control/p/{NODE}/docker_exec_container");
    let asked = call(world.http, &target, "");
    let answered = async {
        let call = next_call(probe).await;
        let opened = control_answer::OpenedPipe { pipe, raw_tty: true, resize_control: "docker_resize_exec_tty".to_owned() };
        answer(probe, ControlAnswer { call: call.call, pipe: Some(opened), ..ControlAnswer::default() }).await;
        match next_word(probe).await {
            (number, Word::Credit(limit)) if number == pipe => limit,
            other => panic!("no credit but {other:?}"),
        }
    };
    let (reply, credit) = tokio::join!(asked, answered);
    let expected = format!(r#"{{"pipe":"pipe-{pipe}","raw_tty":true,"resize_tty_control":"docker_resize_exec_tty"}}"#);
    assert_eq!((reply.status, reply.text()), (200, expected));
    credit
}

struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    async fn connect(server: SocketAddr, target: &str) -> Result<Self, u16> {
        Self::connect_as(server, target, None).await
    }

    async fn connect_as(server: SocketAddr, target: &str, probe_id: Option<&str>) -> Result<Self, u16> {
        let stream = TcpStream::connect(server).await.unwrap();
        let mut request = format!("ws://test{target}").into_client_request().unwrap();
        // Scope accepted every origin.
        request.headers_mut().insert("origin", "http://elsewhere.example".parse().unwrap());
        if let Some(id) = probe_id {
            request.headers_mut().insert("x-scope-probe-id", id.parse().unwrap());
        }
        match tokio_tungstenite::client_async(request, stream).await {
            Ok((socket, _)) => Ok(Socket(socket)),
            Err(tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    async fn send(&mut self, message: Message) {
        self.0.send(message).await.unwrap();
    }

    /// Bytes until there are `count`; every message of the size that Scope promised.
    async fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            match timeout(Duration::from_secs(10), self.0.next()).await.expect("in time") {
                Some(Ok(Message::Binary(part))) => {
                    assert!((1..=1_024).contains(&part.len()), "{} bytes in one message", part.len());
                    bytes.extend_from_slice(&part);
                }
                other => panic!("no bytes but {other:?} after {} of {count}", bytes.len()),
            }
        }
        bytes
    }

    async fn text(&mut self) -> String {
        match timeout(Duration::from_secs(10), self.0.next()).await.expect("in time") {
            Some(Ok(Message::Text(text))) => text.to_string(),
            other => panic!("no text but {other:?}"),
        }
    }

    async fn closed(&mut self) {
        let closing = async { while let Some(Ok(_)) = self.0.next().await {} };
        timeout(Duration::from_secs(10), closing).await.expect("it is closed");
    }
}

#[tokio::test]
async fn a_call_goes_to_the_probe_and_its_answer_comes_back() {
    let world = World::start().await;
    let mut probe = probe(&world, "p", &["docker_remove_container"]).await;
    // As curl sends it, with `<` and `>` as they are; and as a browser does.
    for target in
        ["/api/control/p/c0ffee;<container>/docker_remove_container", "/api/control/p/c0ffee%3B%3Ccontainer%3E/docker_remove_container"]
    {
        let asked = call(world.http, target, r#"{"force":"no"}"#);
        let answered = async {
            let call = next_call(&mut probe).await;
            assert_eq!((call.node_id.as_str(), call.control.as_str()), (NODE, "docker_remove_container"));
            assert_eq!(call.arguments.get("force").map(String::as_str), Some("no"));
            assert!((1_000..=80_000).contains(&call.deadline_ms));
            let done = ControlAnswer { call: call.call, removed_node: call.node_id, ..ControlAnswer::default() };
            answer(&probe, done).await;
        };
        let (reply, ()) = tokio::join!(asked, answered);
        assert_eq!((reply.status, reply.text().as_str()), (200, r#"{"removedNode":"c0ffee;\u003ccontainer\u003e"}"#));
        assert_eq!(reply.header("content-type"), "application/json");
    }
    let target = format!("/api/control/p/{NODE}/docker_remove_container");
    let asked = call(world.http, &target, "");
    let answered = async {
        let call = next_call(&mut probe).await.call;
        answer(&probe, ControlAnswer { call, error: "You cannot remove a running container".to_owned(), ..ControlAnswer::default() }).await;
    };
    let (reply, ()) = tokio::join!(asked, answered);
    assert_eq!((reply.status, reply.text().as_str()), (400, r#""You cannot remove a running container""#));

    let page: serde_json::Value = world.get("/api/v1/audit?limit=2").await.json();
    assert_eq!(page["records"][0]["outcome"], "failed");
    assert_eq!(page["records"][1]["arguments"]["force"], "no");
    assert_eq!(page["next"], 2);
    assert_eq!(world.metric("orchestrator_controls_total{outcome=\"done\"}").await, 2.0);
    assert_eq!(world.metric("orchestrator_audit_failures_total").await, 3.0, "there is no directory for the file, and that is counted");
}

#[tokio::test]
async fn a_probe_that_vanishes_fails_its_calls_at_once() {
    let world = World::start().await;
    let mut probe = probe(&world, "p", &["docker_stop_container"]).await;
    let target = format!("/api/control/p/{NODE}/docker_stop_container");
    let begun = Instant::now();
    let asked = call(world.http, &target, "");
    let vanished = async {
        next_call(&mut probe).await;
        drop(probe);
    };
    let (reply, ()) = tokio::join!(asked, vanished);
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("probe p went away before it answered"), "{}", reply.text());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_under_way_when_the_process_stops_is_on_record() {
    let directory = tempfile::tempdir().unwrap();
    let settings = orchestrator_control::config::Config { data_dir: directory.path().to_owned(), ..config() };
    let mut world = World::start_with(settings, Arc::new(MemoryStore::default())).await;
    let mut probe = probe(&world, "p", &["docker_stop_container"]).await;
    let target = format!("/api/control/p/{NODE}/docker_stop_container");
    // Of one caller who waits, and of one who has gone.
    let asked = call(world.http, &target, "");
    let stopped = async {
        next_call(&mut probe).await;
        let head = format!("POST {target} HTTP/1.1\r\nHost: test\r\n\r\n");
        let mut gone = TcpStream::connect(world.http).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut gone, head.as_bytes()).await.unwrap();
        next_call(&mut probe).await;
        drop(gone);
        world.begin_to_stop();
    };
    let (reply, ()) = tokio::join!(asked, stopped);
    assert_eq!(reply.status, 503);
    assert!(reply.text().contains("nobody knows whether p does what was asked"), "{}", reply.text());
    world.ended().await.unwrap();
    let record = std::fs::read_to_string(directory.path().join("audit.log")).unwrap();
    let outcomes: Vec<serde_json::Value> =
        record.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["outcome"].clone()).collect();
    assert_eq!(outcomes, ["stopped", "stopped"], "{record}");
}

#[tokio::test]
async fn bad_calls_are_answered_in_the_manner_of_the_api() {
    let world = World::start().await;
    let _quiet = probe(&world, "old", &[]).await;
    let target = format!("/api/control/nobody/{NODE}/docker_stop_container");
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(70_000));
    let endless = format!("/api/control/p/{}/x", "n".repeat(3_000));
    let cases: [(&str, &str, u16, &str); 10] = [
        (&endless, "", 400, "an id has more than 2048 bytes"),
        (&target, "", 400, r#""probe nobody is not connected right now""#),
        // A probe of a version before controls.
        ("/api/control/old/n/docker_stop_container", "", 400, r#""Control \"docker_stop_container\" not recognised""#),
        (&target, "{", 400, "the arguments are no object of texts"),
        (&target, r#"{"a":[1]}"#, 400, "the arguments are no object of texts"),
        (&target, r#"["a"]"#, 400, "the arguments are no object of texts"),
        (&target, "\u{1}", 400, "the arguments are no object of texts"),
        (&target, &long, 400, "the arguments have more than 65536 bytes"),
        ("/api/control/a%2/b/c", "", 404, "404 page not found"),
        ("/api/control/a/b", "", 404, "404 page not found"),
    ];
    for (target, body, status, text) in cases {
        let reply = call(world.http, target, body).await;
        assert_eq!(reply.status, status, "{target} {body:.40}: {}", reply.text());
        assert!(reply.text().contains(text), "{target} {body:.40}: {}", reply.text());
    }
    // A body whose length nobody said is not read.
    let chunked =
        format!("POST {target} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{{\r\n0\r\n\r\n");
    assert!(raw(world.http, chunked.as_bytes()).await.text().contains("not connected"));
    // What a page of another site may not do.
    assert_eq!(request(world.http, "POST", &target, "Sec-Fetch-Site: cross-site\r\n").await.status, 403);
    assert_eq!(request(world.http, "POST", &target, "Sec-Fetch-Site: same-origin\r\n").await.status, 400);
    for query in ["?limit=0", "?limit=x", "?before=-1"] {
        assert_eq!(world.get(&format!("/api/v1/audit{query}")).await.status, 400, "{query}");
    }
}

#[tokio::test]
async fn bytes_go_through_a_pipe_both_ways_and_its_end_comes_after_the_last() {
    let world = World::start().await;
    let mut probe = probe(&world, "p", &["docker_exec_container"]).await;
    open(&world, &mut probe, 7).await;
    let mut client = Socket::connect(world.http, "/api/pipe/pipe-7").await.unwrap();
    client.send(Message::text("ls\n")).await;
    say(&probe, 7, Word::Credit(4)).await;
    assert_eq!(next_word(&mut probe).await, (7, Word::Data(Bytes::from_static(b"ls\n"))));
    client.send(Message::binary(&b"pwd\n"[..])).await;
    assert_eq!(next_word(&mut probe).await, (7, Word::Data(Bytes::from_static(b"p"))), "no more than there is room for");
    say(&probe, 7, Word::Credit(100)).await;
    assert_eq!(next_word(&mut probe).await, (7, Word::Data(Bytes::from_static(b"wd\n"))));

    // Somebody else looks on, and the first goes away and comes back.
    drop(client);
    say(&probe, 7, Word::Data(Bytes::from(vec![b'x'; 3_000]))).await;
    let mut client = Socket::connect(world.http, "/api/pipe/pipe-7").await.unwrap();
    assert_eq!(client.bytes(3_000).await, vec![b'x'; 3_000]);
    assert_eq!(world.get("/api/pipe/pipe-7/check").await.status, 204);

    say(&probe, 7, Word::Data(Bytes::from_static(b"last words"))).await;
    say(&probe, 7, Word::End(End::default())).await;
    assert_eq!(client.bytes(10).await, b"last words");
    client.closed().await;
    assert_eq!(world.get("/api/pipe/pipe-7/check").await.status, 404);
    assert_eq!(Socket::connect(world.http, "/api/pipe/pipe-7").await.err(), Some(404));
}

#[tokio::test]
async fn output_that_ended_before_anybody_looked_is_still_there() {
    let world = World::start().await;
    let mut probe = probe(&world, "p", &["docker_exec_container"]).await;
    open(&world, &mut probe, 7).await;
    say(&probe, 7, Word::Data(Bytes::from_static(b"all of it"))).await;
    say(&probe, 7, Word::End(End::default())).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut client = Socket::connect(world.http, "/api/pipe/pipe-7").await.unwrap();
    assert_eq!(client.bytes(9).await, b"all of it");
    client.closed().await;
}

#[tokio::test]
async fn closing_a_pipe_is_told_to_both_ends() {
    let world = World::start().await;
    let mut probe = probe(&world, "p", &["docker_exec_container"]).await;
    for (pipe, method) in [(7, "DELETE"), (8, "POST")] {
        open(&world, &mut probe, pipe).await;
        let mut client = Socket::connect(world.http, &format!("/api/pipe/pipe-{pipe}")).await.unwrap();
        let reply = request(world.http, method, &format!("/api/pipe/pipe-{pipe}"), "").await;
        assert_eq!((reply.status, reply.body.len()), (200, 0));
        client.closed().await;
        assert_eq!(next_word(&mut probe).await, (pipe, Word::End(End::default())));
        // What was on its way is for nobody.
        say(&probe, pipe, Word::Data(Bytes::from_static(b"late"))).await;
    }
    for method in ["DELETE", "POST"] {
        assert_eq!(request(world.http, method, "/api/pipe/never-heard-of", "").await.status, 200);
    }
    assert_eq!(world.get("/api/pipe/never-heard-of/check").await.status, 204);
    assert_eq!(world.get("/api/pipe/pipe-7").await.status, 404, "closed goes before everything else");
    assert_eq!(world.get("/api/pipe/never-heard-of").await.status, 400, "no upgrade was asked for");
    assert_eq!(world.get("/api/pipe/%zz/check").await.status, 404);
    assert_eq!(Socket::connect(world.http, &format!("/api/pipe/{}", "x".repeat(257))).await.err(), Some(404));
    assert_eq!(world.metric("orchestrator_pipes").await, 0.0);
}

#[tokio::test]
async fn with_the_probe_its_pipes_go() {
    let world = World::start().await;
    let mut probe = probe(&world, "p", &["docker_exec_container"]).await;
    open(&world, &mut probe, 7).await;
    let mut client = Socket::connect(world.http, "/api/pipe/pipe-7").await.unwrap();
    drop(probe);
    client.closed().await;
    assert_eq!(world.get("/api/pipe/pipe-7/check").await.status, 404);
}

#[tokio::test]
async fn a_pipe_of_another_is_not_to_be_had_by_its_number() {
    let world = World::start().await;
    let mut probe_p = probe(&world, "p", &["docker_exec_container"]).await;
    open(&world, &mut probe_p, 7).await;
    let mut thief = probe(&world, "q", &["docker_exec_container"]).await;
    let asked = call(world.http, "/api/control/q/n/docker_exec_container", "");
    let answered = async {
        let call = next_call(&mut thief).await.call;
        let pipe = Some(control_answer::OpenedPipe { pipe: 7, ..Default::default() });
        answer(&thief, ControlAnswer { call, pipe, ..ControlAnswer::default() }).await;
    };
    let (reply, ()) = tokio::join!(asked, answered);
    assert_eq!((reply.status, reply.text().as_str()), (400, r#""the probe chose a pipe that is there already""#));
    assert!(matches!(next_word(&mut thief).await, (7, Word::End(_))));
    // Words of the other probe on that number are about nothing.
    say(&thief, 7, Word::Data(Bytes::from_static(b"rm -rf /\n"))).await;
    say(&probe_p, 7, Word::Data(Bytes::from_static(b"$ "))).await;
    let mut client = Socket::connect(world.http, "/api/pipe/pipe-7").await.unwrap();
    assert_eq!(client.bytes(2).await, b"$ ");
}

#[tokio::test]
async fn a_probe_that_sends_beyond_its_credit_loses_the_pipe_and_a_slow_client_costs_no_more_than_the_window() {
    let world = World::start().await;
    let mut probe = probe(&world, "p", &["docker_exec_container"]).await;
    let credit = usize::try_from(open(&world, &mut probe, 7).await).unwrap();
    assert_eq!(credit, 128 << 10);
    let mut client = Socket::connect(world.http, "/api/pipe/pipe-7").await.unwrap();
    // The client reads nothing. As much as there is credit for is taken, and then no more is granted than its system's buffers take.
    let mut sent = 0;
    let mut allowed = credit;
    let stalled = loop {
        while sent < allowed {
            let part = (allowed - sent).min(64 << 10);
            say(&probe, 7, Word::Data(Bytes::from(vec![b'y'; part]))).await;
            sent += part;
        }
        match timeout(Duration::from_millis(700), probe.next()).await {
            Ok(Ok(Some(control_message::Body::Pipe(Pipe { body: Some(Word::Credit(limit)), .. })))) => {
                allowed = usize::try_from(limit).unwrap()
            }
            Ok(other) => panic!("{other:?}"),
            Err(_) => break sent,
        }
        assert!(sent < 64 << 20, "nothing bounds it");
    };
    // Now it reads, and nothing was lost.
    assert_eq!(client.bytes(stalled).await.len(), stalled);
    // More at once than any window has room for, however fast it goes on.
    say(&probe, 7, Word::Data(Bytes::from(vec![b'z'; 4 * credit]))).await;
    client.closed().await;
    assert_eq!(world.metric("orchestrator_pipes_closed_total{cause=\"overrun\"}").await, 1.0);
}

#[tokio::test]
async fn a_thousand_pipes_are_open_at_once() {
    let world = World::start().await;
    let mut probe = probe(&world, "p", &["docker_exec_container"]).await;
    for pipe in 1..=1_000 {
        open(&world, &mut probe, pipe).await;
    }
    assert_eq!(world.metric("orchestrator_pipes").await, 1_000.0);
    let mut clients = Vec::new();
    for pipe in 1..=1_000 {
        clients.push(Socket::connect(world.http, &format!("/api/pipe/pipe-{pipe}")).await.unwrap());
    }
    for pipe in 1..=1_000_u64 {
        say(&probe, pipe, Word::Data(Bytes::from(format!("terminal {pipe:04}")))).await;
    }
    for (client, pipe) in clients.iter_mut().zip(1..) {
        assert_eq!(client.bytes(13).await, format!("terminal {pipe:04}").into_bytes());
    }
    drop(probe);
    for client in &mut clients {
        client.closed().await;
    }
    world.metric_becomes("orchestrator_pipes", 0.0).await;
}

#[tokio::test]
async fn whoever_only_knows_the_name_of_a_probe_is_not_given_its_calls() {
    let world = World::start().await;
    // One of Scope's, or somebody who says so, was there first.
    let mut stranger = Socket::connect_as(world.http, "/api/control/ws", Some("p")).await.unwrap();
    let mut probe = probe(&world, "p", &["docker_exec_container"]).await;
    stranger.closed().await;
    assert_eq!(Socket::connect_as(world.http, "/api/control/ws", Some("p")).await.err(), Some(409));
    open(&world, &mut probe, 123_456_789).await;
    // Whoever knows the whole name of a pipe may use it.
    let records: serde_json::Value = world.get("/api/v1/audit").await.json();
    assert_eq!(records["records"][0]["pipe"], "pipe-12345…");
    // It may come when the probe has gone.
    drop(probe);
    let begun = std::time::Instant::now();
    while Socket::connect_as(world.http, "/api/control/ws", Some("p")).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10), "the name is not given back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn scopes_own_probes_take_calls_over_a_websocket_and_bring_their_pipes() {
    let world = World::start().await;
    assert_eq!(Socket::connect(world.http, "/api/control/ws").await.err(), Some(400));
    assert_eq!(world.get("/api/control/ws").await.text(), r#""X-Scope-Probe-ID""#);
    let mut replaced = Socket::connect_as(world.http, "/api/control/ws", Some("5f2c")).await.unwrap();
    let mut rpc = Socket::connect_as(world.http, "/api/control/ws", Some("5f2c")).await.unwrap();
    replaced.closed().await;

    let target = "/api/control/5f2c/ab12;<container>/docker_attach_container";
    let asked = call(world.http, target, r#"{"a":"b"}"#);
    let answered = async {
        assert_eq!(rpc.text().await, r#"{"Request":{"ServiceMethod":"control.Handle","Seq":0},"Response":null,"Value":null}"#);
        let value: serde_json::Value = serde_json::from_str(&rpc.text().await).unwrap();
        let expected =
            serde_json::json!({"AppID": "", "NodeID": "ab12;<container>", "Control": "docker_attach_container", "ControlArgs": {"a": "b"}});
        assert_eq!(value["Value"], expected);
        rpc.send(Message::text(r#"{"Request":null,"Response":{"ServiceMethod":"control.Handle","Seq":0,"Error":""},"Value":null}"#)).await;
        rpc.send(Message::text(r#"{"Request":null,"Response":null,"Value":{"pipe":"pipe-99","raw_tty":true,"value":{"x":1}}}"#)).await;
    };
    let (reply, ()) = tokio::join!(asked, answered);
    assert_eq!((reply.status, reply.text().as_str()), (200, r#"{"value":{"x":1},"pipe":"pipe-99","raw_tty":true}"#));

    let mut inside = Socket::connect(world.http, "/api/pipe/pipe-99/probe").await.unwrap();
    let mut client = Socket::connect(world.http, "/api/pipe/pipe-99").await.unwrap();
    client.send(Message::text("typed")).await;
    assert_eq!(inside.bytes(5).await, b"typed");
    inside.send(Message::binary(vec![b'o'; 5_000])).await;
    assert_eq!(client.bytes(5_000).await, vec![b'o'; 5_000]);
    // The probe's end may come back, too.
    drop(inside);
    let mut inside = Socket::connect(world.http, "/api/pipe/pipe-99/probe").await.unwrap();
    inside.send(Message::binary(&b"back"[..])).await;
    assert_eq!(client.bytes(4).await, b"back");
    assert_eq!(request(world.http, "DELETE", "/api/pipe/pipe-99", "").await.status, 200);
    inside.closed().await;
    client.closed().await;
    assert_eq!(Socket::connect(world.http, "/api/pipe/pipe-99/probe").await.err(), Some(404));

    // Errors of both sorts, and a probe that says nonsense.
    let target = "/api/control/5f2c/x/docker_stop_container";
    for (head, value, text) in [
        (r#"{"Response":{"Seq":1,"Error":"rpc: can't find method"}}"#, r#"{"Value":{}}"#, "\"rpc: can't find method\""),
        (r#"{"Response":{"Seq":2}}"#, r#"{"Value":{"error":"No such container: x"}}"#, r#""No such container: x""#),
    ] {
        let asked = call(world.http, target, "");
        let answered = async {
            for _ in 0..2 {
                rpc.text().await;
            }
            rpc.send(Message::text(head)).await;
            rpc.send(Message::text(value)).await;
        };
        let (reply, ()) = tokio::join!(asked, answered);
        assert_eq!((reply.status, reply.text().as_str()), (400, text));
    }
    let asked = call(world.http, target, "");
    let nonsense = async {
        for _ in 0..2 {
            rpc.text().await;
        }
        rpc.send(Message::text("}{")).await;
    };
    let (reply, ()) = tokio::join!(asked, nonsense);
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("went away"), "{}", reply.text());
    rpc.closed().await;
}

#[tokio::test]
async fn the_panel_offers_what_the_probe_carries_out() {
    let world = World::start().await;
    let mut web = Probe::connect_with(
        world.grpc,
        Hello { controls: vec!["docker_stop_container".to_owned(), "docker_pause_container".to_owned()], ..hello("probe-web", "web-1") },
    )
    .await
    .unwrap();
    web.apply(web_report(1)).await;
    let reply: serde_json::Value = world.get(&format!("/api/topology/containers/{CONTAINER};<container>")).await.json();
    let control = |id: &str, human: &str, icon: &str, rank: u64| serde_json::json!({"probeId": "probe-web", "nodeId": format!("{CONTAINER};<container>"), "id": id, "human": human, "icon": icon, "rank": rank});
    let expected =
        [control("docker_pause_container", "Pause", "fa fa-pause", 5), control("docker_stop_container", "Stop", "fa fa-stop", 7)];
    assert_eq!(reply["node"]["controls"], serde_json::Value::from(expected.to_vec()));
    let too_many: Vec<String> = (0..65).map(|number| format!("c{number}")).collect();
    let refused = Probe::connect_with(world.grpc, Hello { controls: too_many, ..hello("greedy", "greedy") }).await;
    assert_eq!(refused.err().map(|status| status.code()), Some(tonic::Code::InvalidArgument));
}

/// What one pipe carries, from the probe's stream to a client's WebSocket. A busy machine is no failure; the number is printed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_pipe_carries_much() {
    const TOTAL: usize = 64 << 20;
    let world = World::start().await;
    let mut probe = probe(&world, "p", &["docker_exec_container"]).await;
    let mut allowed = usize::try_from(open(&world, &mut probe, 7).await).unwrap();
    let client = Socket::connect(world.http, "/api/pipe/pipe-7").await.unwrap();
    let begun = Instant::now();
    let sending = async {
        let part = Bytes::from(vec![b'x'; 32 << 10]);
        let mut sent = 0;
        while sent < TOTAL {
            if sent + part.len() <= allowed {
                say(&probe, 7, Word::Data(part.clone())).await;
                sent += part.len();
            } else if let (7, Word::Credit(limit)) = next_word(&mut probe).await {
                allowed = usize::try_from(limit).unwrap();
            }
        }
    };
    let receiving = tokio::spawn(async move {
        // The frames are looked at as they come, without a library in between that would be what is measured.
        let mut stream = client.0.into_inner();
        let (mut payload, mut buffer, mut head) = (0, vec![0; 256 << 10], Vec::new());
        let mut left = 0;
        while payload < TOTAL {
            let count = tokio::io::AsyncReadExt::read(&mut stream, &mut buffer).await.unwrap();
            assert!(count > 0, "it ended after {payload}");
            let mut bytes = &buffer[..count];
            while !bytes.is_empty() {
                if left > 0 {
                    let part = left.min(bytes.len());
                    assert!(bytes[..part].iter().all(|byte| *byte == b'x'));
                    (left, payload, bytes) = (left - part, payload + part, &bytes[part..]);
                    continue;
                }
                head.push(bytes[0]);
                bytes = &bytes[1..];
                match head[..] {
                    [0x82, length] if length < 126 => (left, head) = (length.into(), Vec::new()),
                    [0x82, 126, high, low] => (left, head) = (usize::from(high) << 8 | usize::from(low), Vec::new()),
                    [0x82] | [0x82, 126] | [0x82, 126, _] => {}
                    _ => panic!("{head:?}"),
                }
                assert!(left <= 1_024);
            }
        }
    });
    sending.await;
    timeout(Duration::from_secs(120), receiving).await.unwrap().unwrap();
    let megabytes = TOTAL as f64 / 1e6 / begun.elapsed().as_secs_f64();
    println!("{megabytes:.0} MB/s through one pipe");
    assert!(megabytes > 2.0, "{megabytes} MB/s");
}
