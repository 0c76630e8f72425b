//! The event bus: what the scheduler tells, as the event stream says it.

mod render;

use std::sync::Arc;

use scheduler::words::BusEvent;
use tokio::sync::broadcast;

pub(crate) use render::{plan_actions, plan_steps, simple};

/// One event, written once for all listeners.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its type.
    pub kind: &'static str,
    /// Its JSON.
    pub data: String,
    /// Its JSON without the stubs that one client needs; none: the same.
    pub light: Option<String>,
}

/// Where events go. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bus {
    sender: broadcast::Sender<Arc<Frame>>,
}

impl Bus {
    pub(crate) fn new(outstanding: usize) -> Bus {
        Bus { sender: broadcast::Sender::new(outstanding.max(1)) }
    }

    /// Everything from now on. A listener that falls too far behind is told so, and is to be let go.
    pub fn listen(&self) -> broadcast::Receiver<Arc<Frame>> {
        self.sender.subscribe()
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.sender.receiver_count()
    }

    pub(crate) fn publish(&self, event: &BusEvent) {
        // Nobody pays for what nobody hears.
        if self.listeners() > 0 {
            self.send(render::frame(event));
        }
    }

    pub(crate) fn send(&self, frame: Frame) {
        let _ = self.sender.send(Arc::new(frame));
    }
}
