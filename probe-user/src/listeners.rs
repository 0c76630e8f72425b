//! The table of listeners: sockets that wait for connections or datagrams, with who holds them. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use crate::cgroups::Placement;
use crate::flows::FIRST_PROCESS;
use crate::observation::{BootNanos, ListenerOpened, ListenersThere, Protocol};
use crate::processes::{Holder, Process, ProcessKey, ProcessTable};

/// Largest number of listeners.
pub const LISTENERS_MAX: usize = 16_384;

/// Sockets that ended before they were told which are remembered.
const ENDED_MAX: usize = 256;

/// A UDP socket is told as a listener when it has been one for this long: resolvers bind a port of their choice for one question.
pub const UDP_SETTLES: BootNanos = BootNanos(1_000_000_000);

/// How long a listener waits for the record of its process, which comes on another way.
pub const OWNER_AWAITED: BootNanos = BootNanos(200_000_000);

/// A socket that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// What was seen of it.
    pub seen: ListenerOpened,
    /// Incarnation of the holder.
    pub process: Option<ProcessKey>,
    /// Full id of the holder's container.
    pub container_id: Option<Arc<str>>,
    /// When its binder ended: children that it had then may hold the socket.
    inherited_until: Option<BootNanos>,
    /// It is not told before this instant.
    waits_until: Option<BootNanos>,
    announced: bool,
}

impl Listener {
    /// Whether it is not to be told yet.
    pub fn is_waiting(&self) -> bool {
        self.waits_until.is_some()
    }
}

/// A port of a network namespace.
pub type Service = (u64, Protocol, u16);

/// Who listens where, at one moment.
#[derive(Debug, Default)]
pub struct Holders(HashMap<Service, Vec<(IpAddr, ProcessKey)>>);

impl Holders {
    /// Who accepts what is sent to an address: whoever has bound it, else whoever takes all.
    pub fn of(&self, service: Service, address: IpAddr) -> Option<ProcessKey> {
        let there = self.0.get(&service)?;
        let exact = there.iter().find(|(bound, _)| *bound == address);
        exact.or_else(|| there.iter().find(|(bound, _)| bound.is_unspecified())).map(|(_, process)| *process)
    }
}

/// All listeners.
#[derive(Debug, Default)]
pub struct ListenerTable {
    ids: HashMap<u64, u64>,
    by_id: BTreeMap<u64, Listener>,
    /// What each process holds, so that its end is no walk over everything.
    held: BTreeSet<(ProcessKey, u64)>,
    last_id: u64,
    changed: BTreeSet<u64>,
    gone: BTreeSet<u64>,
    waiting: BTreeSet<u64>,
    /// Sockets that ended before they were told: whoever looks tells late.
    ended: VecDeque<u64>,
    refused: u64,
}

impl ListenerTable {
    /// A socket listens; it may be known already, by another way. Returns the pid that `/proc` should be asked for.
    pub fn opened(&mut self, seen: ListenerOpened, processes: &ProcessTable, placement: Option<Placement>) -> Option<u32> {
        if let Some((id, known)) = self.ids.get(&seen.socket).and_then(|id| self.by_id.get_mut(id).map(|known| (*id, known))) {
            // Who looks later knows the holder better than the programs, which had none.
            if seen.pid == 0 || known.seen.pid == seen.pid {
                return None;
            }
            // The first process binds for its services, and keeps what it has given them.
            let given = known.process.filter(|holder| holder.pid == FIRST_PROCESS && seen.pid != FIRST_PROCESS);
            if known.process.is_some() && given.is_none() {
                return None;
            }
            known.seen = ListenerOpened { at: known.seen.at, ..seen };
            known.container_id = placement.and_then(|it| it.container_id);
            if let Some(binder) = given {
                known.process = None;
                self.held.remove(&(binder, id));
            }
            self.attribute(id, processes);
            return None;
        }
        if self.ended.contains(&seen.socket) {
            return None;
        }
        if self.by_id.len() >= LISTENERS_MAX {
            self.refused = self.refused.saturating_add(1);
            return None;
        }
        self.last_id += 1;
        let id = self.last_id;
        let waits = if seen.protocol == Protocol::Udp { UDP_SETTLES } else { BootNanos(0) };
        let container_id = placement.and_then(|it| it.container_id);
        let mut listener = Listener { seen, process: None, container_id, inherited_until: None, waits_until: None, announced: false };
        let wanted = seen.pid != 0 && !matches!(holder(&seen, processes), Holder::Alive(_));
        let waits = if wanted { waits.max(OWNER_AWAITED) } else { waits };
        if waits.0 > 0 {
            listener.waits_until = Some(BootNanos(seen.at.0.saturating_add(waits.0)));
            self.waiting.insert(id);
        }
        self.ids.insert(seen.socket, id);
        self.by_id.insert(id, listener);
        self.attribute(id, processes);
        wanted.then_some(seen.pid)
    }

    /// A socket listens no longer.
    pub fn closed(&mut self, socket: u64) {
        let Some(id) = self.ids.remove(&socket) else {
            if self.ended.len() >= ENDED_MAX {
                self.ended.pop_front();
            }
            self.ended.push_back(socket);
            return;
        };
        let Some(listener) = self.by_id.remove(&id) else { return };
        if let Some(process) = listener.process {
            self.held.remove(&(process, id));
        }
        self.changed.remove(&id);
        self.waiting.remove(&id);
        if listener.announced {
            self.gone.insert(id);
        }
    }

    /// All that listen were looked for: those that are missing have ended without a word of it. What began while it was looked may not be among them.
    pub fn keep_only(&mut self, look: &ListenersThere) {
        let gone = |listener: &&Listener| listener.seen.at < look.at && !look.there.contains(&listener.seen.socket);
        let gone: Vec<u64> = self.by_id.values().filter(gone).map(|listener| listener.seen.socket).collect();
        gone.into_iter().for_each(|socket| self.closed(socket));
    }

    /// A process has ended. What it bound may be held by a child of it, as servers with workers have it; else nobody is named. (A socket that
    /// nobody holds any more is told as closed.)
    pub fn process_ended(&mut self, process: ProcessKey, processes: &ProcessTable) {
        let held: Vec<u64> = self.held.range((process, 0)..=(process, u64::MAX)).map(|(_, id)| *id).collect();
        let ended_at = processes.get(&process).and_then(|process| process.exited).map(|exited| exited.at);
        for id in held {
            self.held.remove(&(process, id));
            let Some(listener) = self.by_id.get_mut(&id) else { continue };
            let inherited_until = *listener.inherited_until.get_or_insert(ended_at.unwrap_or_default());
            // Those that were born later are children of another process with that pid.
            let heir = |(key, child): &(&ProcessKey, &Process)| child.parent_pid == listener.seen.pid && key.start_time <= inherited_until;
            listener.process = processes.living().find(heir).map(|(key, _)| *key);
            if let Some(heir) = listener.process {
                self.held.insert((heir, id));
            }
            self.changed.insert(id);
        }
    }

    /// Looks whether holders have ended without a word of it.
    pub fn check_holders(&mut self, processes: &ProcessTable) {
        let mut holders: Vec<ProcessKey> = self.held.iter().map(|(process, _)| *process).collect();
        holders.dedup();
        for holder in holders {
            if processes.get(&holder).is_none_or(|process| process.exited.is_some()) {
                self.process_ended(holder, processes);
            }
        }
    }

    /// Tells those that have waited long enough, and names holders that became known.
    pub fn settle(&mut self, now: BootNanos, processes: &ProcessTable) {
        let waiting: Vec<u64> = self.waiting.iter().copied().collect();
        for id in waiting {
            self.attribute(id, processes);
            let Some(listener) = self.by_id.get_mut(&id) else { continue };
            if listener.waits_until.is_none_or(|until| until <= now)
                || listener.seen.protocol == Protocol::Tcp && listener.process.is_some()
            {
                listener.waits_until = None;
                self.waiting.remove(&id);
                self.changed.insert(id);
            }
        }
    }

    /// When [`ListenerTable::settle`] has work without a new observation.
    pub fn next_deadline(&self) -> Option<BootNanos> {
        self.waiting.iter().filter_map(|id| self.by_id.get(id)?.waits_until).min()
    }

    /// One listener.
    pub fn get(&self, id: u64) -> Option<&Listener> {
        self.by_id.get(&id)
    }

    /// Listeners in the order of their ids, after `id`.
    pub fn after(&self, id: u64) -> impl Iterator<Item = (u64, &Listener)> {
        self.by_id.range(id.saturating_add(1)..).map(|(id, listener)| (*id, listener))
    }

    /// Whether the holder of one is not known, or perhaps not the one that serves: whoever looks may know it.
    pub fn wants_holders(&self) -> bool {
        self.by_id.values().any(|listener| listener.process.is_none_or(|holder| holder.pid == FIRST_PROCESS))
    }

    /// Who listens where.
    pub fn holders(&self) -> Holders {
        let mut holders = Holders::default();
        for listener in self.by_id.values() {
            let (seen, Some(process)) = (&listener.seen, listener.process) else { continue };
            let service = (seen.network_namespace, seen.protocol, seen.port);
            holders.0.entry(service).or_default().push((seen.address, process));
        }
        holders
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Listeners that found the table full.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Whether there is something to tell.
    pub fn has_changes(&self) -> bool {
        !self.gone.is_empty() || self.changed.iter().any(|id| !self.waiting.contains(id))
    }

    /// How many removals wait to be told.
    pub fn gone_len(&self) -> usize {
        self.gone.len()
    }

    /// What changed and what left since the last call. Those that wait are held back.
    pub fn take_changes(&mut self) -> (Vec<u64>, BTreeSet<u64>) {
        let (held, told): (BTreeSet<u64>, BTreeSet<u64>) =
            std::mem::take(&mut self.changed).into_iter().partition(|id| self.waiting.contains(id));
        self.changed = held;
        told.iter().for_each(|id| self.mark_announced(*id));
        (told.into_iter().collect(), std::mem::take(&mut self.gone))
    }

    /// A snapshot told of this listener.
    pub fn mark_announced(&mut self, id: u64) {
        if let Some(listener) = self.by_id.get_mut(&id) {
            listener.announced = true;
        }
    }

    fn attribute(&mut self, id: u64, processes: &ProcessTable) {
        let Some(listener) = self.by_id.get_mut(&id) else { return };
        if listener.process.is_none()
            && let Holder::Alive(key) = holder(&listener.seen, processes)
        {
            listener.process = Some(key);
            if listener.container_id.is_none() {
                listener.container_id = processes.get(&key).and_then(|process| process.placement.container_id.clone());
            }
            self.held.insert((key, id));
        }
        self.changed.insert(id);
    }
}

/// Who holds a listener: the incarnation that it names, else the one that lived when it was seen.
fn holder(seen: &ListenerOpened, processes: &ProcessTable) -> Holder {
    match seen.start_time {
        Some(start_time) => {
            let key = ProcessKey::new(seen.pid, start_time);
            if processes.get(&key).is_some_and(|process| process.exited.is_none()) { Holder::Alive(key) } else { Holder::Unknown }
        }
        None => processes.holder(seen.pid, seen.at),
    }
}

#[cfg(test)]
mod tests;
