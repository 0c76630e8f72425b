//! The queues between the loop and what does not belong to it. Each has two limits, messages and bytes; when one is reached the connection ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use master::{LinkId, StreamId, ToAgent};
use mesos_proto::v1::scheduler::Event;
use prost::Message as _;
use tokio::sync::mpsc;

use super::Closed;

/// Events that may wait for a framework, and the bytes they may have (as protobuf). One question for all of its tasks is answered with an event for
/// each, all at once: a framework with more of them than fit here could never ask.
const FRAMEWORK_EVENTS: usize = 262_144;
const FRAMEWORK_BYTES: usize = 64 << 20;
/// Commands that may wait for an agent.
const LINK_COMMANDS: usize = 16_384;
const LINK_BYTES: usize = 64 << 20;

/// The loop's end of a framework's stream. Dropping it ends the stream after what was sent before.
#[derive(Debug)]
pub(crate) struct FrameworkOutbox(Outbox<Event>);

/// The other end of a framework's stream. Dropping it tells the master that the framework is disconnected.
#[derive(Debug)]
pub struct FrameworkStream {
    inlet: Inlet<Event>,
    _end: OnEnd,
}

/// What comes out of a queue.
#[derive(Debug)]
pub(crate) enum StreamItem<T> {
    /// The next message.
    Item(Box<T>),
    /// There will be no more.
    End,
}

/// The loop's end of an agent's connection.
#[derive(Debug)]
pub(crate) struct LinkOutbox(Outbox<ToAgent>);

/// The connection's end.
#[derive(Debug)]
pub(crate) struct LinkStream {
    inlet: Inlet<ToAgent>,
    _end: OnEnd,
}

#[derive(Debug)]
struct Outbox<T> {
    sender: mpsc::Sender<(usize, Box<T>)>,
    bytes: Arc<AtomicUsize>,
    most_bytes: usize,
}

#[derive(Debug)]
struct Inlet<T> {
    receiver: mpsc::Receiver<(usize, Box<T>)>,
    bytes: Arc<AtomicUsize>,
}

/// Tells the loop that the connection is gone.
#[derive(Debug)]
struct OnEnd {
    closings: mpsc::UnboundedSender<Closed>,
    closed: Option<Closed>,
}

impl Drop for OnEnd {
    fn drop(&mut self) {
        if let Some(closed) = self.closed.take() {
            let _ = self.closings.send(closed);
        }
    }
}

pub(super) fn framework(stream: StreamId, closings: mpsc::UnboundedSender<Closed>) -> (FrameworkOutbox, FrameworkStream) {
    let (outbox, inlet) = queue(FRAMEWORK_EVENTS, FRAMEWORK_BYTES);
    (FrameworkOutbox(outbox), FrameworkStream { inlet, _end: OnEnd { closings, closed: Some(Closed::Stream(stream)) } })
}

pub(super) fn link(link: LinkId, closings: mpsc::UnboundedSender<Closed>) -> (LinkOutbox, LinkStream) {
    let (outbox, inlet) = queue(LINK_COMMANDS, LINK_BYTES);
    (LinkOutbox(outbox), LinkStream { inlet, _end: OnEnd { closings, closed: Some(Closed::Link(link)) } })
}

fn queue<T>(messages: usize, most_bytes: usize) -> (Outbox<T>, Inlet<T>) {
    let (sender, receiver) = mpsc::channel(messages);
    let bytes = Arc::new(AtomicUsize::new(0));
    (Outbox { sender, bytes: bytes.clone(), most_bytes }, Inlet { receiver, bytes })
}

impl<T> Outbox<T> {
    /// `false` when there is no room. A connection that is gone already takes everything: its end is on the way.
    fn send(&self, size: usize, message: Box<T>) -> bool {
        let before = self.bytes.fetch_add(size, Ordering::Relaxed);
        // One message always finds room, whatever its size.
        if before > 0 && before.saturating_add(size) > self.most_bytes {
            return false;
        }
        !matches!(self.sender.try_send((size, message)), Err(mpsc::error::TrySendError::Full(_)))
    }
}

impl<T> Inlet<T> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<StreamItem<T>> {
        self.receiver.poll_recv(cx).map(|received| match received {
            Some((size, message)) => {
                self.bytes.fetch_sub(size, Ordering::Relaxed);
                StreamItem::Item(message)
            }
            None => StreamItem::End,
        })
    }
}

impl FrameworkOutbox {
    pub(super) fn send(&self, event: Box<Event>) -> bool {
        self.0.send(event.encoded_len(), event)
    }

    /// Whether the other end is no more. It is given up before its end is told.
    pub(super) fn is_gone(&self) -> bool {
        self.0.sender.is_closed()
    }
}

impl FrameworkStream {
    /// The next event; `None` when the master has closed the stream. There are no heartbeats in it.
    pub async fn next(&mut self) -> Option<Box<Event>> {
        match std::future::poll_fn(|cx| self.poll_event(cx)).await {
            StreamItem::Item(event) => Some(event),
            StreamItem::End => None,
        }
    }

    pub(crate) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<StreamItem<Event>> {
        self.inlet.poll(cx)
    }
}

impl LinkOutbox {
    pub(super) fn send(&self, message: ToAgent) -> bool {
        self.0.send(size_of_message(&message), Box::new(message))
    }

    /// As of a framework's.
    pub(super) fn is_gone(&self) -> bool {
        self.0.sender.is_closed()
    }
}

impl LinkStream {
    /// The next message; `None` when the loop has closed the connection.
    pub(crate) async fn next(&mut self) -> Option<Box<ToAgent>> {
        match std::future::poll_fn(|cx| self.inlet.poll(cx)).await {
            StreamItem::Item(message) => Some(message),
            StreamItem::End => None,
        }
    }
}

/// About how many bytes a message has; what can be large counts.
fn size_of_message(message: &ToAgent) -> usize {
    const SMALL: usize = 256;
    SMALL
        + match message {
            ToAgent::RunTask { task, .. } => task.encoded_len(),
            ToAgent::RunTaskGroup { executor, task_group, .. } => executor.encoded_len() + task_group.encoded_len(),
            ToAgent::FrameworkMessage { data, .. } => data.len(),
            ToAgent::ApplyOperation { operation, .. } => operation.encoded_len(),
            ToAgent::ReconcileOperations { operation_uuids } => operation_uuids.len() * 16,
            _ => 0,
        }
}
