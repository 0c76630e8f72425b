//! Controls and pipes on a probe's stream: the switchboard's words into the wire's, and back.

use std::sync::Arc;

use proto::probe::v1 as wire;
use proto::probe::v1::{ControlAnswer, ControlCall, ControlMessage, control_message};
use relay::{Abilities, Answer, Link, Opened, Order, Pump, Word};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Longest text that is taken from an answer, in bytes.
const TEXT_MAX: usize = 8_192;

/// What a probe said in its hello that it carries out.
pub(super) fn abilities(controls: &[Arc<str>]) -> Abilities {
    Abilities::Named(controls.iter().map(ToString::to_string).collect())
}

/// Hands orders on to the probe, until the stream or the link has ended.
pub(super) async fn forward(
    mut orders: mpsc::Receiver<Order>,
    outbox: mpsc::Sender<Result<ControlMessage, Status>>,
    ended: CancellationToken,
) {
    let hand_on = async {
        while let Some(order) = orders.recv().await {
            if outbox.send(Ok(ControlMessage { body: Some(body(order)) })).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = hand_on => {}
        () = ended.cancelled() => {}
    }
}

/// Takes an answer in. A pipe that was opened needs what is returned to be run.
pub(super) fn answered(link: &Link, answer: ControlAnswer) -> Option<Pump> {
    let ControlAnswer { call, error, removed_node, pipe } = answer;
    if !error.is_empty() {
        link.answered(call, Err(cut(error)));
        return None;
    }
    match pipe {
        Some(opened) => {
            let resize_control = cut(opened.resize_control);
            Some(link.answered_with_pipe(call, Opened { pipe: opened.pipe, raw_tty: opened.raw_tty, resize_control: &resize_control }))
        }
        None => {
            link.answered(call, Ok(Answer { removed_node: cut(removed_node), ..Answer::default() }));
            None
        }
    }
}

/// Takes a part of a conversation through a pipe in.
pub(super) fn said(link: &Link, pipe: wire::Pipe) {
    let word = match pipe.body {
        Some(wire::pipe::Body::Data(bytes)) => Word::Data(bytes),
        Some(wire::pipe::Body::Credit(limit)) => Word::Credit(limit),
        Some(wire::pipe::Body::End(end)) => Word::End(cut(end.reason)),
        // From a probe that is newer than we are.
        None => return,
    };
    link.said(pipe.pipe, word);
}

fn body(order: Order) -> control_message::Body {
    match order {
        Order::Call { call, node, control, arguments, patience } => control_message::Body::ControlCall(ControlCall {
            call,
            node_id: node,
            control,
            arguments: arguments.into_iter().collect(),
            deadline_ms: u32::try_from(patience.as_millis()).unwrap_or(u32::MAX),
        }),
        Order::Pipe { pipe, word } => {
            let body = match word {
                Word::Data(bytes) => wire::pipe::Body::Data(bytes),
                Word::Credit(limit) => wire::pipe::Body::Credit(limit),
                Word::End(reason) => wire::pipe::Body::End(wire::pipe::End { reason }),
            };
            control_message::Body::Pipe(wire::Pipe { pipe, body: Some(body) })
        }
    }
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_MAX {
        let end = (0..=TEXT_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}
