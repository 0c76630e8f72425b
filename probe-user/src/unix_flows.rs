//! The table of connections over Unix sockets, by who talks to whom at which name. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::processes::{Process, ProcessKey, ProcessTable};

/// Largest number of records.
pub const UNIX_FLOWS_MAX: usize = 8_192;

/// What makes connections one record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixFlowKey {
    /// Who connected.
    pub client: ProcessKey,
    /// Who was connected to.
    pub server: ProcessKey,
    /// The server's name, fit to be shown; an abstract one begins with `@`.
    pub path: Arc<str>,
}

/// Everything that was open when it was looked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnixLook {
    /// How many connections of each kind.
    pub open: BTreeMap<UnixFlowKey, u32>,
    /// What could not be told, as a total since the start of the edge: sockets without a holder.
    pub lost: u64,
    /// Sockets that were more than can be looked at, this time.
    pub left_out: u64,
}

/// Connections of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixFlow {
    /// Who, with whom, where.
    pub key: UnixFlowKey,
    /// How many are open.
    pub open: u32,
    /// Full id of the client's container.
    pub client_container_id: Option<Arc<str>>,
    /// Full id of the server's.
    pub server_container_id: Option<Arc<str>>,
    announced: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub struct UnixFlowTable {
    ids: HashMap<UnixFlowKey, u64>,
    by_id: BTreeMap<u64, UnixFlow>,
    /// What each process takes part in, so that its end is no walk over everything.
    parties: BTreeSet<(ProcessKey, u64)>,
    last_id: u64,
    changed: BTreeSet<u64>,
    gone: BTreeSet<u64>,
    /// What the last look could not add.
    refused_now: u64,
    left_out_now: u64,
    lost_by_edge: u64,
    lost: u64,
}

impl UnixFlowTable {
    /// Takes a look in: what it does not have is gone. Connections of processes that are not known yet, or have ended, wait for the next one.
    pub fn look(&mut self, look: &UnixLook, processes: &ProcessTable) {
        let closed: Vec<u64> = self.by_id.iter().filter(|(_, flow)| !look.open.contains_key(&flow.key)).map(|(id, _)| *id).collect();
        closed.into_iter().for_each(|id| self.remove(id));
        let mut refused = 0_u64;
        for (key, &open) in &look.open {
            let alive = |key: &ProcessKey| processes.get(key).filter(|process| process.exited.is_none());
            let (Some(client), Some(server)) = (alive(&key.client), alive(&key.server)) else { continue };
            refused += u64::from(!self.put(key, open, client, server));
        }
        self.lost += refused.saturating_sub(self.refused_now) + look.left_out.saturating_sub(self.left_out_now);
        // An edge that was started again counts from zero.
        self.lost += look.lost.checked_sub(self.lost_by_edge).unwrap_or(look.lost);
        (self.refused_now, self.left_out_now, self.lost_by_edge) = (refused, look.left_out, look.lost);
    }

    /// A process has ended, and its connections with it. (Those that a child of it holds on are its child's with the next look.)
    pub fn process_ended(&mut self, process: ProcessKey) {
        let ended: Vec<u64> = self.parties.range((process, 0)..=(process, u64::MAX)).map(|(_, id)| *id).collect();
        ended.into_iter().for_each(|id| self.remove(id));
    }

    /// One record.
    pub fn get(&self, id: u64) -> Option<&UnixFlow> {
        self.by_id.get(&id)
    }

    /// Records in the order of their ids, after `id`.
    pub fn after(&self, id: u64) -> impl Iterator<Item = (u64, &UnixFlow)> {
        self.by_id.range(id.saturating_add(1)..).map(|(id, flow)| (*id, flow))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// What could not be told, since the start: records that found the table full, sockets that were too many or had no holder.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Whether there is something to tell.
    pub fn has_changes(&self) -> bool {
        !self.changed.is_empty() || !self.gone.is_empty()
    }

    /// How many removals wait to be told.
    pub fn gone_len(&self) -> usize {
        self.gone.len()
    }

    /// What changed and what left since the last call.
    pub fn take_changes(&mut self) -> (BTreeSet<u64>, BTreeSet<u64>) {
        let changed = std::mem::take(&mut self.changed);
        changed.iter().for_each(|id| self.mark_announced(*id));
        (changed, std::mem::take(&mut self.gone))
    }

    /// A snapshot told of this record.
    pub fn mark_announced(&mut self, id: u64) {
        if let Some(flow) = self.by_id.get_mut(&id) {
            flow.announced = true;
        }
    }

    /// Whether there was room.
    fn put(&mut self, key: &UnixFlowKey, open: u32, client: &Process, server: &Process) -> bool {
        let known = self.ids.get(key).copied();
        let id = match known {
            Some(id) => id,
            None if self.by_id.len() >= UNIX_FLOWS_MAX => return false,
            None => {
                self.last_id += 1;
                self.ids.insert(key.clone(), self.last_id);
                self.parties.extend([(key.client, self.last_id), (key.server, self.last_id)]);
                self.last_id
            }
        };
        let now = UnixFlow {
            key: key.clone(),
            open,
            client_container_id: client.placement.container_id.clone(),
            server_container_id: server.placement.container_id.clone(),
            announced: self.by_id.get(&id).is_some_and(|it| it.announced),
        };
        if self.by_id.get(&id) != Some(&now) {
            self.by_id.insert(id, now);
            self.changed.insert(id);
        }
        true
    }

    fn remove(&mut self, id: u64) {
        let Some(flow) = self.by_id.remove(&id) else { return };
        self.ids.remove(&flow.key);
        self.parties.remove(&(flow.key.client, id));
        self.parties.remove(&(flow.key.server, id));
        self.changed.remove(&id);
        if flow.announced {
            self.gone.insert(id);
        }
    }
}

#[cfg(test)]
mod tests;
