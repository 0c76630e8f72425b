//! Emptying the agent.

use super::{Drain, Effect, RecordKey, Table};
use crate::words::{Now, TaskKey};

impl Table {
    pub(super) fn start_drain(&mut self, now: Now, drain: Drain, out: &mut Vec<Effect>) {
        self.drain = Some(drain);
        // A master says it again to an agent that comes back.
        self.drain_began.get_or_insert(now.wall);
        self.dirty.insert(RecordKey::Agent);
        let tasks: Vec<TaskKey> = self.tasks().map(|(key, _)| key).collect();
        for task in tasks {
            self.kill(now, &task, None, out);
        }
    }

    pub(super) fn end_drain(&mut self) {
        (self.drain, self.drain_began) = (None, None);
        self.dirty.insert(RecordKey::Agent);
    }
}
