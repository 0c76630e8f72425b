//! Those who watch the operator API's event stream.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use mesos_proto::{json, recordio};
use prost::Message as _;
use tokio::sync::mpsc;

use super::OperatorEvent;

/// Events that may wait for one of them.
const EVENTS: usize = 8_192;

/// One event, encoded once for everybody who speaks the same language.
#[derive(Debug)]
pub(crate) struct Published {
    event: Box<OperatorEvent>,
    json: OnceLock<Bytes>,
    protobuf: OnceLock<Bytes>,
}

impl Published {
    pub(crate) fn new(event: Box<OperatorEvent>) -> Self {
        Published { event, json: OnceLock::new(), protobuf: OnceLock::new() }
    }

    /// The event itself.
    pub(crate) fn event(&self) -> &OperatorEvent {
        &self.event
    }

    /// The framed record.
    pub(crate) fn record(&self, as_json: bool) -> Bytes {
        if as_json {
            self.json.get_or_init(|| recordio::frame(&json::to_vec(&*self.event))).clone()
        } else {
            self.protobuf.get_or_init(|| recordio::frame(&self.event.encode_to_vec())).clone()
        }
    }
}

/// What comes out at a subscriber's end.
#[derive(Debug)]
pub(crate) struct Events(mpsc::Receiver<Arc<Published>>);

impl Events {
    /// The next event; `None` when the stream is over.
    pub(crate) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arc<Published>>> {
        self.0.poll_recv(cx)
    }
}

/// All who watch, oldest first.
#[derive(Debug)]
pub(crate) struct Subscribers {
    queues: VecDeque<mpsc::Sender<Arc<Published>>>,
    most: usize,
}

impl Subscribers {
    pub(crate) fn new(most: usize) -> Self {
        Subscribers { queues: VecDeque::new(), most: most.max(1) }
    }

    pub(crate) fn len(&self) -> usize {
        self.queues.len()
    }

    /// One more; when there are too many, the oldest is closed.
    pub(crate) fn add(&mut self) -> Events {
        self.queues.retain(|it| !it.is_closed());
        while self.queues.len() >= self.most {
            self.queues.pop_front();
        }
        let (sender, receiver) = mpsc::channel(EVENTS);
        self.queues.push_back(sender);
        Events(receiver)
    }

    /// Tells all. Whoever has not taken what was told before is closed: it may come back and begins with the whole state again. Whether anybody is
    /// left.
    pub(crate) fn publish(&mut self, event: Box<OperatorEvent>) -> bool {
        if self.queues.is_empty() {
            return false;
        }
        let event = Arc::new(Published::new(event));
        self.queues.retain(|queue| queue.try_send(event.clone()).is_ok());
        !self.queues.is_empty()
    }
}
