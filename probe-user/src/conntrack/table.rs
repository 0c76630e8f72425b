//! Translations by the addresses that flows have: what is known of each flow, and what waits for a flow to come. Pure.
//!
//! A flow and its translation are told by two parts of the kernel on two ways, in any order. Whichever comes first waits for the other: flows
//! in an index by their addresses, translations in three generations, of which the oldest is dropped.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;

use crate::observation::{BootNanos, Direction, FlowEnd, Protocol, Translated};

/// Ways that are kept of one flow; what goes further ways is counted in the last of them.
pub const WAYS_MAX: usize = 64;

/// Most translations that wait for a flow, and most connections that are remembered one by one.
pub const WAITING_MAX: usize = 65_536;

/// A translation waits for two to three of these. As long as the kernel keeps a UDP entry that is used (120 s): a socket that sends again
/// after a pause is a flow again, and its entry is told only once.
pub const GENERATION: BootNanos = BootNanos(60_000_000_000);

const GENERATION_MAX: usize = WAITING_MAX / 3;

/// What the addresses of a flow have in common with a translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Addresses {
    direction: Direction,
    protocol: Protocol,
    client: IpAddr,
    server: IpAddr,
    port: u16,
    /// Loopback addresses mean something in one network namespace alone: its cookie. 0 for all others.
    namespace: u64,
}

impl Addresses {
    fn new(direction: Direction, protocol: Protocol, client: IpAddr, (server, port): (IpAddr, u16), namespace: u64) -> Self {
        let namespace = if client.is_loopback() { namespace } else { 0 };
        Addresses { direction, protocol, client, server, port, namespace }
    }

    fn of(end: &FlowEnd) -> Self {
        let (client, server) = (end.client_address.to_canonical(), end.server_address.to_canonical());
        Addresses::new(end.direction, end.protocol, client, (server, end.server_port), end.network_namespace)
    }
}

/// What the other end of some connections of a flow has in place of the flow's own addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The client: of a client's flow as the server sees it, of a server's flow as it was before.
    pub client: IpAddr,
    /// The server: of a client's flow where its connections went, of a server's flow where they were meant to go.
    pub server: (IpAddr, u16),
    /// Connections that went this way.
    pub connections: u64,
}

/// All ways of one flow, in the order in which they were found.
#[derive(Clone, Debug, Default)]
struct Ways(Vec<Way>);

impl Ways {
    /// Whether the way is new.
    fn add(&mut self, client: IpAddr, server: (IpAddr, u16)) -> bool {
        let known = self.0.iter().position(|it| it.client == client && it.server == server);
        let known = known.or_else(|| (self.0.len() >= WAYS_MAX).then_some(WAYS_MAX - 1));
        match known.and_then(|at| self.0.get_mut(at)) {
            Some(way) => {
                way.connections = way.connections.saturating_add(1);
                false
            }
            None => {
                self.0.push(Way { client, server, connections: 1 });
                true
            }
        }
    }
}

/// The table.
#[derive(Debug, Default)]
pub struct TranslationTable {
    /// Every flow by its addresses.
    flows: BTreeSet<(Addresses, u64)>,
    /// Of addresses that a flow has.
    joined: HashMap<Addresses, Ways>,
    /// Of addresses that no flow has; the newest generation first.
    waiting: [HashMap<Addresses, Ways>; 3],
    /// Connections that were counted, so that one which is found again is not counted again; the newest generation first.
    counted: [HashSet<u64>; 3],
    /// Joined addresses whose ways have changed.
    changed: BTreeSet<Addresses>,
    /// One of them has a new way.
    has_new: bool,
    rotated_at: BootNanos,
    evicted: u64,
}

impl TranslationTable {
    /// A connection was translated.
    pub fn translated(&mut self, translated: &Translated) {
        let fresh = self.remember(translated.identity());
        if translated.perhaps_told && !fresh {
            return;
        }
        let Translated { protocol, client, server, translated_client, translated_server, network_namespace, .. } = *translated;
        // A port of the client that was changed is nothing that a flow could tell.
        if client.0 == translated_client.0 && server == translated_server {
            return;
        }
        let as_client = Addresses::new(Direction::Client, protocol, client.0, server, network_namespace);
        self.add(as_client, translated_client.0, translated_server);
        let as_server = Addresses::new(Direction::Server, protocol, translated_client.0, translated_server, network_namespace);
        self.add(as_server, client.0, server);
    }

    /// A flow came.
    pub fn flow_came(&mut self, id: u64, end: &FlowEnd) {
        let addresses = Addresses::of(end);
        self.flows.insert((addresses, id));
        let waited = self.waiting.iter_mut().find_map(|generation| generation.remove(&addresses));
        if let Some(ways) = waited {
            self.joined.insert(addresses, ways);
        }
    }

    /// A flow left.
    pub fn flow_left(&mut self, id: u64, end: &FlowEnd) {
        let addresses = Addresses::of(end);
        self.flows.remove(&(addresses, id));
        if self.has_flow(&addresses) {
            return;
        }
        self.changed.remove(&addresses);
        // Connections of TCP have ended with their last flow. What is tracked of UDP lives on, and is not told again.
        if let Some(ways) = self.joined.remove(&addresses)
            && addresses.protocol == Protocol::Udp
        {
            self.wait(addresses, ways);
        }
    }

    /// All flows are about to be told again, with their connections as they are: what is known of these waits for them.
    pub fn flows_are_told_again(&mut self) {
        self.flows.clear();
        self.changed.clear();
        self.has_new = false;
        for (addresses, ways) in std::mem::take(&mut self.joined) {
            self.wait(addresses, ways);
        }
    }

    /// The ways of a flow.
    pub fn ways(&self, end: &FlowEnd) -> &[Way] {
        self.joined.get(&Addresses::of(end)).map_or(&[], |ways| &ways.0)
    }

    /// Drops translations that no flow came for.
    pub fn retire(&mut self, now: BootNanos) {
        if now.0.saturating_sub(self.rotated_at.0) >= GENERATION.0 {
            self.rotated_at = now;
            rotate(&mut self.waiting);
        }
    }

    /// Whether the ways of a flow have changed.
    pub fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Whether a flow has a way that it did not have.
    pub fn has_new(&self) -> bool {
        self.has_new
    }

    /// Flows whose ways have changed since the last call.
    pub fn take_changes(&mut self) -> Vec<u64> {
        self.has_new = false;
        let changed = std::mem::take(&mut self.changed);
        changed.iter().flat_map(|addresses| self.flows_of(addresses)).collect()
    }

    /// Addresses with translations, whether a flow has them or not.
    pub fn len(&self) -> usize {
        self.joined.len() + self.waiting.iter().map(HashMap::len).sum::<usize>()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Translations that were dropped for want of room before they had waited long enough.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    fn add(&mut self, addresses: Addresses, client: IpAddr, server: (IpAddr, u16)) {
        let has_flow = self.has_flow(&addresses);
        match self.joined.entry(addresses) {
            Entry::Occupied(mut ways) => self.has_new |= ways.get_mut().add(client, server),
            Entry::Vacant(ways) if has_flow => {
                ways.insert(Ways::default()).add(client, server);
                self.has_new = true;
            }
            Entry::Vacant(_) => {
                let mut ways = self.waiting.iter_mut().find_map(|generation| generation.remove(&addresses)).unwrap_or_default();
                ways.add(client, server);
                self.wait(addresses, ways);
                return;
            }
        }
        self.changed.insert(addresses);
    }

    fn wait(&mut self, addresses: Addresses, ways: Ways) {
        if self.waiting[0].len() >= GENERATION_MAX {
            let dropped = rotate(&mut self.waiting);
            self.evicted = self.evicted.saturating_add(dropped as u64);
        }
        self.waiting[0].insert(addresses, ways);
    }

    /// Whether the connection was not known. One that was forgotten for want of room may be counted again when it is found again.
    fn remember(&mut self, identity: u64) -> bool {
        if self.counted.iter().any(|generation| generation.contains(&identity)) {
            return false;
        }
        if self.counted[0].len() >= GENERATION_MAX {
            rotate(&mut self.counted);
        }
        self.counted[0].insert(identity)
    }

    fn has_flow(&self, addresses: &Addresses) -> bool {
        self.flows_of(addresses).next().is_some()
    }

    fn flows_of(&self, addresses: &Addresses) -> impl Iterator<Item = u64> {
        self.flows.range((*addresses, 0)..=(*addresses, u64::MAX)).map(|(_, id)| *id)
    }
}

/// A connection among those that are tracked at one time. The kernel makes its number of where the entry lies and of the addresses before
/// translation: a port that is used again at once may have the number again, on its way to another server.
impl Translated {
    fn identity(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let translated = (self.translated_client, self.translated_server);
        (self.id, self.zone, self.protocol, self.client, self.server, translated).hash(&mut hasher);
        hasher.finish()
    }
}

/// Makes room for a new generation; how many the oldest had.
fn rotate<T: Default + Collection>(generations: &mut [T; 3]) -> usize {
    generations.rotate_right(1);
    std::mem::take(&mut generations[0]).len()
}

trait Collection {
    fn len(&self) -> usize;
}

impl<K, V> Collection for HashMap<K, V> {
    fn len(&self) -> usize {
        HashMap::len(self)
    }
}

impl<T> Collection for HashSet<T> {
    fn len(&self) -> usize {
        HashSet::len(self)
    }
}

#[cfg(test)]
mod tests;
