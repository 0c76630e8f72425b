//! Streams of custom executors that are open now.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use mesos_proto::v1::AgentInfo;
use mesos_proto::v1::executor::Event;
use tokio::sync::mpsc;

use crate::words::ExecutorKey;

/// Events that wait for an executor; one that reads no more of them loses its stream, and subscribes again.
const EVENTS_MAX: usize = 1024;

/// Streams that are open, and how many were.
#[derive(Debug, Default)]
struct Streams {
    /// The number of each stream, and its other end.
    open: HashMap<ExecutorKey, (u64, mpsc::Sender<Event>)>,
    /// Number of the next one. None has the number of another, even of one that ended long ago: the end of that one may still be on its way.
    next: u64,
}

/// All open streams. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Executors {
    streams: Arc<Mutex<Streams>>,
}

impl Executors {
    /// Opens a stream; a former one of the same executor ends. Its number names it.
    pub fn open(&self, executor: &ExecutorKey) -> (u64, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        let mut streams = self.lock();
        let number = streams.next;
        streams.next += 1;
        streams.open.insert(executor.clone(), (number, sender));
        (number, receiver)
    }

    /// Tells an executor; who reads too slowly loses its stream.
    pub fn tell(&self, executor: &ExecutorKey, mut event: Event, agent: &AgentInfo) {
        if let Some(subscribed) = &mut event.subscribed {
            subscribed.agent_info = agent.clone();
        }
        let mut streams = self.lock();
        let failed = streams.open.get(executor).is_some_and(|(_, it)| it.try_send(event).is_err());
        if failed {
            streams.open.remove(executor);
        }
    }

    /// Whether an executor has a stream.
    pub fn is_open(&self, executor: &ExecutorKey) -> bool {
        self.lock().open.get(executor).is_some_and(|(_, stream)| !stream.is_closed())
    }

    /// Ends the stream of an executor.
    pub fn close(&self, executor: &ExecutorKey) {
        self.lock().open.remove(executor);
    }

    /// The stream with this number has ended. Whether it was still the executor's.
    pub fn ended(&self, executor: &ExecutorKey, number: u64) -> bool {
        let mut streams = self.lock();
        let is_current = streams.open.get(executor).is_none_or(|(it, _)| *it == number);
        if is_current {
            streams.open.remove(executor);
        }
        is_current
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_stream_is_not_the_end_of_a_later_one() {
        let executors = Executors::default();
        let key = ExecutorKey { framework: "F".to_owned(), executor: "e".to_owned() };
        let (slow, _events) = executors.open(&key);
        // It read too slowly: its stream was taken from it, and it subscribes again before its connection has ended.
        executors.close(&key);
        let (now, mut events) = executors.open(&key);
        assert!(!executors.ended(&key, slow));
        executors.tell(&key, Event::default(), &AgentInfo::default());
        assert!(events.try_recv().is_ok(), "the later one goes on");
        assert!(executors.ended(&key, now));
    }
}
