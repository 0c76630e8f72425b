use base::Timestamp;

use crate::{Config, Effect, Input, Registry, Snapshot};

/// The master.
#[derive(Debug)]
pub struct Master {
    config: Config,
    state: Snapshot,
}

impl Master {
    /// A master that begins to lead: with what its predecessors stored.
    pub fn new(config: Config, registry: Registry, now: Timestamp) -> Master {
        let _ = now;
        Master { config, state: Snapshot { registry, ..Snapshot::default() } }
    }

    /// Takes in what happened, and appends what is to be done. Total: every input has an outcome.
    pub fn step(&mut self, now: Timestamp, input: Input, out: &mut Vec<Effect>) {
        let _ = (now, input, out, &self.config);
    }

    /// When `step(.., Tick, ..)` next has work; `None` means sleep until an input comes.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        None
    }

    /// A version of everything that may be read. Costs no copying.
    pub fn snapshot(&self) -> Snapshot {
        self.state.clone()
    }
}
