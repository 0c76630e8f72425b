use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use prometheus::Opts;
use tokio::time::timeout;

use super::*;

/// `echo` gives back what it gets; `flood` sends without an end; `fail` fails; `hang` never answers.
struct Parrot;

impl Executor for Parrot {
    fn controls(&self) -> Vec<String> {
        Vec::new()
    }

    fn call(self: Arc<Self>, call: Call, pipes: Pipes) -> BoxFuture<'static, Result<Answer, String>> {
        async move {
            let opened = |pipe, session: BoxFuture<'static, Result<(), String>>| Answer {
                opened: Some(Opened { pipe, raw_tty: true, resize_control: "resize", session }),
                ..Answer::default()
            };
            match call.control.as_str() {
                "echo" => {
                    let pipe = pipes.open();
                    let number = pipe.number();
                    let (sender, mut receiver) = pipe.split();
                    let session = async move {
                        while let Some(bytes) = receiver.receive().await {
                            if bytes.as_ref() == b"bye" {
                                return Err("as you wish".to_owned());
                            }
                            sender.send(bytes).await;
                        }
                        Ok(())
                    };
                    Ok(opened(number, session.boxed()))
                }
                "flood" => {
                    let pipe = pipes.open();
                    let number = pipe.number();
                    let (sender, _receiver) = pipe.split();
                    Ok(opened(
                        number,
                        async move {
                            while sender.send(Bytes::from_static(&[7; 100_000])).await {}
                            Ok(())
                        }
                        .boxed(),
                    ))
                }
                "hang" => std::future::pending().await,
                "gone" => Ok(Answer { removed_node: call.node, opened: None }),
                other => Err(other.to_owned()),
            }
        }
        .boxed()
    }
}

impl Numbers {
    fn new() -> Self {
        let counter = |name: &str| IntCounter::new(name, name).unwrap();
        Numbers {
            calls: IntCounterVec::new(Opts::new("calls", "calls"), &["outcome"]).unwrap(),
            pipes: IntGauge::new("pipes", "pipes").unwrap(),
            bytes_sent: counter("sent"),
            bytes_received: counter("received"),
        }
    }
}

impl Pipes {
    /// Pipes whose other end is nowhere.
    pub(crate) fn to_nobody() -> Self {
        Pipes { open: Arc::default(), outgoing: mpsc::channel(1).0, numbers: Numbers::new() }
    }
}

fn desk() -> (Desk, mpsc::Receiver<ProbeMessage>) {
    let (outgoing, messages) = mpsc::channel(8);
    (Desk::new(Some(Arc::new(Parrot)), outgoing, Numbers::new()), messages)
}

fn call(number: u64, control: &str) -> ControlCall {
    ControlCall { call: number, node_id: "n".to_owned(), control: control.to_owned(), deadline_ms: 500, ..ControlCall::default() }
}

async fn next(messages: &mut mpsc::Receiver<ProbeMessage>) -> probe_message::Body {
    timeout(Duration::from_secs(5), messages.recv()).await.expect("in time").expect("not the end").body.unwrap()
}

async fn answered(messages: &mut mpsc::Receiver<ProbeMessage>) -> ControlAnswer {
    match next(messages).await {
        probe_message::Body::ControlAnswer(answer) => answer,
        other => panic!("no answer but {other:?}"),
    }
}

async fn said(messages: &mut mpsc::Receiver<ProbeMessage>) -> Word {
    match next(messages).await {
        probe_message::Body::Pipe(pipe) => pipe.body.unwrap(),
        other => panic!("nothing on a pipe but {other:?}"),
    }
}

fn on(pipe: u64, word: Word) -> v1::Pipe {
    v1::Pipe { pipe, body: Some(word) }
}

async fn silent(messages: &mut mpsc::Receiver<ProbeMessage>) {
    let more = timeout(Duration::from_millis(50), messages.recv()).await;
    assert!(more.is_err(), "it should be silent, and says {more:?}");
}

async fn open(desk: &mut Desk, messages: &mut mpsc::Receiver<ProbeMessage>, control: &str) -> u64 {
    desk.on_call(call(1, control));
    let pipe = answered(messages).await.pipe.unwrap();
    assert_eq!((pipe.raw_tty, pipe.resize_control.as_str()), (true, "resize"));
    assert_eq!(said(messages).await, Word::Credit(WINDOW));
    pipe.pipe
}

#[tokio::test]
async fn every_call_is_answered_with_its_number() {
    let (mut desk, mut messages) = desk();
    desk.on_call(call(7, "hang"));
    desk.on_call(call(8, "No such container: x"));
    desk.on_call(call(9, "gone"));
    let (first, second) = (answered(&mut messages).await, answered(&mut messages).await);
    assert_eq!((first.call, first.error.as_str()), (8, "No such container: x"));
    assert_eq!((second.call, second.error.as_str(), second.removed_node.as_str()), (9, "", "n"));
    let late = answered(&mut messages).await;
    assert_eq!((late.call, late.error.as_str()), (7, "it was not done within 500ms"));
}

#[tokio::test]
async fn bytes_go_both_ways_as_far_as_there_is_room() {
    let (mut desk, mut messages) = desk();
    let pipe = open(&mut desk, &mut messages, "echo").await;
    desk.on_pipe(on(pipe, Word::Data(Bytes::from_static(b"hello"))));
    silent(&mut messages).await;
    desk.on_pipe(on(pipe, Word::Credit(3)));
    assert_eq!(said(&mut messages).await, Word::Data(Bytes::from_static(b"hel")));
    desk.on_pipe(on(pipe, Word::Credit(2)));
    silent(&mut messages).await;
    desk.on_pipe(on(pipe, Word::Credit(100)));
    assert_eq!(said(&mut messages).await, Word::Data(Bytes::from_static(b"lo")));
    desk.on_pipe(on(pipe, Word::Data(Bytes::from_static(b"bye"))));
    assert_eq!(said(&mut messages).await, Word::End(End { reason: "as you wish".to_owned() }));
    // What comes after the end is for nobody.
    desk.on_pipe(on(pipe, Word::Data(Bytes::from_static(b"late"))));
    silent(&mut messages).await;
}

#[tokio::test]
async fn room_is_made_as_bytes_are_taken() {
    let (mut desk, mut messages) = desk();
    let pipe = open(&mut desk, &mut messages, "echo").await;
    desk.on_pipe(on(pipe, Word::Data(Bytes::from(vec![1; usize::try_from(WINDOW).unwrap()]))));
    assert_eq!(said(&mut messages).await, Word::Credit(2 * WINDOW));
}

#[tokio::test]
async fn who_sends_beyond_the_room_loses_the_pipe() {
    let (mut desk, mut messages) = desk();
    let pipe = open(&mut desk, &mut messages, "flood").await;
    desk.on_pipe(on(pipe, Word::Data(Bytes::from(vec![1; usize::try_from(WINDOW).unwrap() + 1]))));
    desk.on_pipe(on(pipe, Word::Credit(u64::MAX)));
    // It ends within the farewell.
    let ended = timeout(Duration::from_secs(5), async {
        while desk.pipes.get(pipe).is_some() {
            drop(messages.try_recv());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    ended.await.unwrap();
}

#[tokio::test]
async fn a_slow_reader_bounds_what_is_sent() {
    let (mut desk, mut messages) = desk();
    let pipe = open(&mut desk, &mut messages, "flood").await;
    desk.on_pipe(on(pipe, Word::Credit(150_000)));
    let mut sent = 0;
    while sent < 150_000 {
        let Word::Data(bytes) = said(&mut messages).await else { panic!("no data") };
        assert!(bytes.len() <= 64 << 10);
        sent += bytes.len();
    }
    assert_eq!(sent, 150_000);
    silent(&mut messages).await;
}

#[tokio::test]
async fn with_the_desk_everything_ends() {
    let (mut desk, mut messages) = desk();
    open(&mut desk, &mut messages, "echo").await;
    let gauge = desk.pipes.numbers.pipes.clone();
    assert_eq!(gauge.get(), 1);
    timeout(Duration::from_secs(5), desk.close()).await.unwrap();
    assert_eq!(gauge.get(), 0);
}
