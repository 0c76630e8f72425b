//! Streams of custom executors that are open now.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use mesos_proto::v1::AgentInfo;
use mesos_proto::v1::executor::Event;
use tokio::sync::mpsc;

use crate::words::ExecutorKey;

/// Events that wait for an executor; one that reads no more of them loses its stream, and subscribes again.
const EVENTS_MAX: usize = 1024;

/// The number of each stream, and its other end.
type Streams = HashMap<ExecutorKey, (u64, mpsc::Sender<Event>)>;

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
        let number = streams.get(executor).map_or(0, |(number, _)| number + 1);
        streams.insert(executor.clone(), (number, sender));
        (number, receiver)
    }

    /// Tells an executor; who reads too slowly loses its stream.
    pub fn tell(&self, executor: &ExecutorKey, mut event: Event, agent: &AgentInfo) {
        if let Some(subscribed) = &mut event.subscribed {
            subscribed.agent_info = agent.clone();
        }
        let mut streams = self.lock();
        let failed = streams.get(executor).is_some_and(|(_, it)| it.try_send(event).is_err());
        if failed {
            streams.remove(executor);
        }
    }

    /// Ends the stream of an executor.
    pub fn close(&self, executor: &ExecutorKey) {
        self.lock().remove(executor);
    }

    /// The stream with this number has ended. Whether it was still the executor's.
    pub fn ended(&self, executor: &ExecutorKey, number: u64) -> bool {
        let mut streams = self.lock();
        let is_current = streams.get(executor).is_none_or(|(it, _)| *it == number);
        if is_current {
            streams.remove(executor);
        }
        is_current
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
