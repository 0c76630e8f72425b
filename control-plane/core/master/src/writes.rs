//! Changes of the registry: one write at a time, whatever comes meanwhile goes with the next.

use mesos::AgentId;

use crate::registry::Change;
use crate::{Effect, LinkId, Record, Register, Reply, ReplySlot};

/// What happens when a change is durable.
#[derive(Debug)]
pub(crate) enum After {
    /// A new agent is told that it is registered.
    Admitted { link: LinkId, id: AgentId, register: Box<Register> },
    /// An agent that was not registered is again. `unreachable`: it had been declared so.
    Readmitted { link: LinkId, id: AgentId, register: Box<Register>, unreachable: bool },
    /// A connected agent described itself anew.
    Described { id: AgentId },
    /// An agent's tasks are unreachable.
    Unreachable { id: AgentId },
    /// An agent's tasks are gone.
    Gone { id: AgentId, reply: Option<ReplySlot> },
    /// An agent is removed: it said so, or its place was taken.
    Removed { id: AgentId, cause: &'static str },
    /// Draining begins.
    Drain { id: AgentId, reply: ReplySlot },
    /// An agent is drained.
    Drained { id: AgentId },
    /// An agent is offered no longer.
    Deactivated { id: AgentId, reply: ReplySlot },
    /// An agent is offered again.
    Reactivated { id: AgentId, reply: ReplySlot },
    /// Quotas hold.
    Quotas { roles: Vec<String>, reply: ReplySlot },
    /// Weights hold.
    Weights { roles: Vec<String>, reply: ReplySlot },
    /// The maintenance schedule holds.
    Schedule { reply: ReplySlot },
    /// Machines are down.
    Down { agents: Vec<AgentId>, reply: ReplySlot },
    /// Nothing more.
    Nothing,
}

/// Changes that hold together, and what follows from them.
type Entry = (Vec<Change>, After);

/// Under way and waiting.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    next: u64,
    in_flight: Option<(u64, Vec<Entry>)>,
    queued: Vec<Entry>,
}

impl Writes {
    pub(crate) fn push(&mut self, changes: Vec<Change>, after: After) {
        self.queued.push((changes, after));
    }

    /// Starts the next write, when none is under way and something waits.
    pub(crate) fn start(&mut self, out: &mut Vec<Effect>) {
        if self.in_flight.is_some() || self.queued.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.queued);
        let mut records: Vec<Record> = Vec::new();
        for change in batch.iter().flat_map(|(changes, _)| changes) {
            change.records(&mut records);
        }
        self.next += 1;
        self.in_flight = Some((self.next, batch));
        out.push(Effect::Persist { write: self.next, records });
    }

    /// What is durable now; nothing when another write is under way.
    pub(crate) fn stored(&mut self, write: u64) -> Vec<Entry> {
        match self.in_flight.take() {
            Some((number, batch)) if number == write => batch,
            other => {
                self.in_flight = other;
                Vec::new()
            }
        }
    }

    /// How many changes wait or are under way.
    pub(crate) fn len(&self) -> usize {
        self.queued.len() + self.in_flight.as_ref().map_or(0, |(_, batch)| batch.len())
    }

    /// Calls that will never be answered otherwise.
    pub(crate) fn abandon(&mut self, out: &mut Vec<Effect>) {
        let batch = self.in_flight.take().map(|(_, batch)| batch).unwrap_or_default();
        for (_, after) in batch.into_iter().chain(std::mem::take(&mut self.queued)) {
            let slot = match after {
                After::Drain { reply, .. }
                | After::Deactivated { reply, .. }
                | After::Reactivated { reply, .. }
                | After::Quotas { reply, .. }
                | After::Weights { reply, .. }
                | After::Schedule { reply }
                | After::Down { reply, .. } => reply,
                After::Gone { reply: Some(reply), .. } => reply,
                _ => continue,
            };
            out.push(Effect::Reply { slot, reply: Reply::refused(crate::Refusal::Unavailable, "Registry cannot be stored") });
        }
    }
}
