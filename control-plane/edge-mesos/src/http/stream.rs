//! Streams of events: one record is one piece of the body, because clients exist that take a piece for a record. Heartbeats are made here.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use mesos_proto::recordio;
use mesos_proto::v1::{master as operator, scheduler};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::call::Encoding;
use crate::driver::{FrameworkStream, Published, StreamItem, Watch};
use crate::view::sight::EventFilter;

/// How often a silent stream says that it is alive.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);

fn heartbeats() -> Interval {
    let mut interval = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// The events of a framework. Dropped when the client is gone, which the master is told then.
#[derive(Debug)]
pub(super) struct SchedulerBody {
    events: FrameworkStream,
    encoding: Encoding,
    heartbeats: Interval,
    /// Subscribed, and the first heartbeat is due at once.
    heartbeat_due: bool,
    subscribed: bool,
    over: bool,
}

impl SchedulerBody {
    pub(super) fn new(events: FrameworkStream, encoding: Encoding) -> Self {
        SchedulerBody { events, encoding, heartbeats: heartbeats(), heartbeat_due: false, subscribed: false, over: false }
    }

    fn heartbeat(&self) -> Bytes {
        let event = scheduler::Event { r#type: Some(scheduler::event::Type::Heartbeat.into()), ..scheduler::Event::default() };
        recordio::frame(&self.encoding.encode(&event))
    }
}

impl Body for SchedulerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if this.over {
            return Poll::Ready(None);
        }
        if std::mem::take(&mut this.heartbeat_due) {
            return Poll::Ready(Some(Ok(Frame::data(this.heartbeat()))));
        }
        match this.events.poll_event(cx) {
            Poll::Ready(StreamItem::Item(event)) => {
                if event.r#type() == scheduler::event::Type::Subscribed {
                    this.heartbeat_due = true;
                    this.subscribed = true;
                    this.heartbeats.reset();
                }
                return Poll::Ready(Some(Ok(Frame::data(recordio::frame(&this.encoding.encode(&*event))))));
            }
            Poll::Ready(StreamItem::End) => {
                this.over = true;
                return Poll::Ready(None);
            }
            Poll::Pending => {}
        }
        // The timer is asked in every case, so that it wakes this.
        while this.heartbeats.poll_tick(cx).is_ready() {
            if this.subscribed {
                return Poll::Ready(Some(Ok(Frame::data(this.heartbeat()))));
            }
        }
        Poll::Pending
    }
}

/// The events of an operator's stream.
#[derive(Debug)]
pub(super) struct OperatorBody {
    watch: Watch,
    filter: EventFilter,
    first: Option<Published>,
    encoding: Encoding,
    heartbeats: Interval,
}

impl OperatorBody {
    /// A stream that begins with `first`.
    pub(super) fn new(watch: Watch, first: Published, filter: EventFilter, encoding: Encoding) -> Self {
        OperatorBody { watch, filter, first: Some(first), encoding, heartbeats: heartbeats() }
    }
}

impl Body for OperatorBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        let as_json = this.encoding == Encoding::Json;
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first.record(as_json)))));
        }
        loop {
            match this.watch.events.poll_event(cx) {
                Poll::Ready(Some(event)) if this.filter.passes(event.event()) => {
                    let record = match this.filter.cut(event.event()) {
                        Some(cut) => Published::new(Box::new(cut)).record(as_json),
                        None => event.record(as_json),
                    };
                    return Poll::Ready(Some(Ok(Frame::data(record))));
                }
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => break,
            }
        }
        if this.heartbeats.poll_tick(cx).is_ready() {
            let event = operator::Event { r#type: Some(operator::event::Type::Heartbeat.into()), ..operator::Event::default() };
            return Poll::Ready(Some(Ok(Frame::data(recordio::frame(&this.encoding.encode(&event))))));
        }
        Poll::Pending
    }
}
