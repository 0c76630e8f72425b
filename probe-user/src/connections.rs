//! Connections known by looking: what was open before the probe, and everything on the rungs without kernel programs. Pure: tables of
//! sockets in, observations out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::RangeInclusive;

use crate::listeners::LISTENERS_MAX;
use crate::observation::{BootNanos, Counted, FlowEnd, ListenerOpened, Observation};
use crate::sockets::{Listeners, SocketOwner, SocketRecord, SocketTable, counted, flow_end};

/// Most connections that are watched by looking.
pub const WATCHED_MAX: usize = 65_536;

/// The connections that are known by looking.
#[derive(Debug)]
pub struct Watch {
    open: HashMap<SocketId, Watched>,
    refused: u64,
    /// Ports that the kernel gives to sockets that want any.
    ephemeral: RangeInclusive<u16>,
}

/// The kernel's number of a socket, and of its namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId {
    namespace: u64,
    cookie: u64,
}

impl SocketId {
    /// The id of a socket in a table.
    pub fn of(table: &SocketTable, socket: &SocketRecord) -> Self {
        SocketId { namespace: table.inode, cookie: socket.cookie }
    }

    /// Inode of the namespace.
    pub fn namespace(self) -> u64 {
        self.namespace
    }
}

#[derive(Debug)]
struct Watched {
    end: FlowEnd,
    last: Counted,
    seen: bool,
}

impl Watch {
    /// Nothing is known. `ephemeral`: ports that the kernel gives to sockets that want any.
    pub fn new(ephemeral: RangeInclusive<u16>) -> Self {
        Watch { open: HashMap::new(), refused: 0, ephemeral }
    }

    /// Looks at `tables`: connections that `adopt` wants become known, those that are known are counted on, those that are missing have ended.
    pub fn look(
        &mut self,
        at: BootNanos,
        tables: &[SocketTable],
        mut owner: impl FnMut(&SocketRecord) -> SocketOwner,
        mut adopt: impl FnMut(SocketId, &FlowEnd) -> bool,
    ) -> Vec<Observation> {
        let mut observations = Vec::new();
        let mut growth: BTreeMap<FlowEnd, Counted> = BTreeMap::new();
        self.open.values_mut().for_each(|watched| watched.seen = false);
        for table in tables {
            let listeners = Listeners::of(table);
            for socket in table.sockets.iter().filter(|it| !it.is_listener()) {
                let id = SocketId::of(table, socket);
                if let Some(watched) = self.open.get_mut(&id) {
                    watched.seen = true;
                    let now = counted(socket, watched.end.direction);
                    merge(growth.entry(watched.end).or_default(), grown(watched.last, now));
                    watched.last = now;
                    continue;
                }
                // A socket that no process has is one that was closed and still says goodbye.
                if socket.inode == 0 || self.open.len() >= WATCHED_MAX {
                    self.refused += u64::from(socket.inode != 0);
                    continue;
                }
                let direction = listeners.direction(socket, &self.ephemeral);
                let (end, client_port) = flow_end(socket, direction, owner(socket), table.cookie);
                if !adopt(id, &end) {
                    continue;
                }
                observations.push(Observation::FlowSeen { at, end, client_port, original_server: None, found_open: true });
                let last = counted(socket, direction);
                merge(growth.entry(end).or_default(), Counted { opened: 1, ..last });
                self.open.insert(id, Watched { end, last, seen: true });
            }
        }
        let unread: HashSet<u64> = tables.iter().filter(|table| table.unread).map(|table| table.inode).collect();
        let ended = self.open.iter().filter(|(id, watched)| !watched.seen && !unread.contains(&id.namespace));
        let ended: Vec<SocketId> = ended.map(|(id, _)| *id).collect();
        for id in ended {
            if let Some(watched) = self.open.remove(&id) {
                merge(growth.entry(watched.end).or_default(), Counted { closed: 1, ..Counted::default() });
            }
        }
        let counted = growth.into_iter().filter(|(_, delta)| *delta != Counted::default());
        observations.extend(counted.map(|(end, delta)| Observation::FlowCounted { last_active: at, end, delta }));
        observations
    }

    /// Inodes of the namespaces that have to be looked at.
    pub fn namespaces(&self) -> HashSet<u64> {
        self.open.keys().map(|id| id.namespace).collect()
    }

    /// Flows that have such connections.
    pub fn ends(&self) -> HashSet<FlowEnd> {
        self.open.values().map(|watched| watched.end).collect()
    }

    /// Whether no connection is known by looking: there is no reason to look again.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Connections that were not taken because too many are watched.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

/// The listeners that are known by looking.
#[derive(Debug, Default)]
pub struct ListenerWatch {
    /// By number, with the namespace where each was found.
    known: HashMap<u64, u64>,
}

impl ListenerWatch {
    /// Looks at `tables`: listeners that `adopt` wants become known, those that are missing have ended.
    pub fn look(
        &mut self,
        at: BootNanos,
        tables: &[SocketTable],
        mut owner: impl FnMut(&SocketRecord) -> SocketOwner,
        adopt: impl Fn(u64) -> bool,
    ) -> Vec<Observation> {
        let mut observations = Vec::new();
        let mut seen = HashSet::new();
        for table in tables {
            // Nobody can connect to a listener that no process has.
            for socket in table.sockets.iter().filter(|it| it.is_listener() && it.inode != 0) {
                seen.insert(socket.cookie);
                if self.known.contains_key(&socket.cookie) || self.known.len() >= LISTENERS_MAX || !adopt(socket.cookie) {
                    continue;
                }
                self.known.insert(socket.cookie, table.inode);
                observations.push(Observation::ListenerOpened(listener(at, table, socket, owner(socket))));
            }
        }
        let unread: HashSet<u64> = tables.iter().filter(|table| table.unread).map(|table| table.inode).collect();
        // A namespace that is not there any more has no listeners.
        let ended = |socket: &u64, namespace: &u64| !seen.contains(socket) && !unread.contains(namespace);
        let ended: Vec<u64> = self.known.iter().filter(|(socket, namespace)| ended(socket, namespace)).map(|(socket, _)| *socket).collect();
        for socket in ended {
            self.known.remove(&socket);
            observations.push(Observation::ListenerClosed { at, socket });
        }
        observations
    }

    /// Whether there is no reason to look again.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

/// What there is to tell of a listening socket.
pub fn listener(at: BootNanos, table: &SocketTable, socket: &SocketRecord, owner: SocketOwner) -> ListenerOpened {
    ListenerOpened {
        at,
        socket: socket.cookie,
        pid: owner.pid,
        start_time: owner.start_time,
        cgroup_id: owner.cgroup_id,
        network_namespace: table.cookie,
        protocol: socket.protocol,
        address: socket.local.0,
        port: socket.local.1,
    }
}

/// The ids of all connected sockets in `tables`.
pub fn ids(tables: &[SocketTable]) -> HashSet<SocketId> {
    tables.iter().flat_map(|table| table.sockets.iter().filter(|it| !it.is_listener()).map(|socket| SocketId::of(table, socket))).collect()
}

fn grown(last: Counted, now: Counted) -> Counted {
    Counted {
        bytes_sent: now.bytes_sent.saturating_sub(last.bytes_sent),
        bytes_received: now.bytes_received.saturating_sub(last.bytes_received),
        retransmits: now.retransmits.saturating_sub(last.retransmits),
        ..Counted::default()
    }
}

fn merge(total: &mut Counted, delta: Counted) {
    total.opened += delta.opened;
    total.closed += delta.closed;
    total.bytes_sent = total.bytes_sent.saturating_add(delta.bytes_sent);
    total.bytes_received = total.bytes_received.saturating_add(delta.bytes_received);
    total.retransmits = total.retransmits.saturating_add(delta.retransmits);
    total.rtt_us_sum = total.rtt_us_sum.saturating_add(delta.rtt_us_sum);
    total.rtt_count += delta.rtt_count;
    total.rtt_us_max = total.rtt_us_max.max(delta.rtt_us_max);
}

#[cfg(test)]
mod tests;
