//! Flows, and the channels where their ends meet.
//!
//! A flow is one end of a group of connections. The end that opened and the end that accepted agree on both addresses and on the service's
//! port, also when two probes report them: that triple is the *channel*. Whoever is on the client side of a channel is linked to whoever is
//! on its server side; a channel with one side only is linked to what holds the other address, or to the Internet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{DenseMap, Timestamp};

use crate::index::{ChannelIndex, ContainerIndex, Entity, FlowIndex, HostIndex, ObjectIndex, ProcessIndex, Table};
use crate::networks::{AddressBook, NetworkSet};
use crate::report::{Direction, FlowCounters, FlowKey, Protocol};
use crate::tables::Tables;

/// One end of a group of connections, as its probe reports it.
#[derive(Debug)]
pub(crate) struct FlowRow {
    pub(crate) host: HostIndex,
    pub(crate) session: Arc<str>,
    pub(crate) probe_flow_id: u64,
    pub(crate) ordinal: u64,
    pub(crate) key: FlowKey,
    pub(crate) counters: FlowCounters,
    pub(crate) first_seen: Timestamp,
    pub(crate) last_active: Timestamp,
    pub(crate) process: Option<ProcessIndex>,
    pub(crate) container: Option<ContainerIndex>,
    pub(crate) channel: Option<ChannelIndex>,
    pub(crate) epoch: u64,
    pub(crate) leaves_at: Option<Timestamp>,
    closed_marks: [(Timestamp, u64); 2],
    counted_at: Timestamp,
}

impl FlowRow {
    #[expect(clippy::too_many_arguments, reason = "the fields of a row, each from another place")]
    pub(crate) fn new(
        host: HostIndex,
        session: Arc<str>,
        probe_flow_id: u64,
        ordinal: u64,
        key: FlowKey,
        process: Option<ProcessIndex>,
        container: Option<ContainerIndex>,
        now: Timestamp,
    ) -> Self {
        FlowRow {
            host,
            session,
            probe_flow_id,
            ordinal,
            key,
            counters: FlowCounters::default(),
            first_seen: now,
            last_active: now,
            process,
            container,
            channel: None,
            epoch: 0,
            leaves_at: None,
            closed_marks: [(now, 0); 2],
            counted_at: now,
        }
    }

    /// Takes new totals over.
    pub(crate) fn count(&mut self, counters: FlowCounters, now: Timestamp, window: Duration) {
        if now.since(self.closed_marks[1].0) >= window {
            self.closed_marks = [self.closed_marks[1], (now, self.counters.closed)];
        }
        self.counters = counters;
        self.counted_at = now;
    }

    /// Connections that were open at some time within the last window, or the one before it.
    pub(crate) fn connections_in_window(&self, now: Timestamp, window: Duration) -> u64 {
        let [older, newer] = self.closed_marks;
        let closed_before = if now.since(self.counted_at) >= window {
            // Nothing was told since: whatever closed did so before the window.
            self.counters.closed
        } else if now.since(newer.0) >= window {
            newer.1
        } else {
            older.1
        };
        self.counters.opened.saturating_sub(closed_before).max(self.counters.active())
    }

    /// Attempts that never became a connection make no edge.
    pub(crate) fn is_drawn(&self) -> bool {
        self.counters.opened > 0 || self.counters.failed == 0
    }

    /// What this end belongs to.
    pub(crate) fn terminal(&self) -> Terminal {
        match (self.process, self.container) {
            (Some(process), _) => Terminal::Process(process),
            (None, Some(container)) => Terminal::Container(container),
            (None, None) => Terminal::Host(self.host),
        }
    }
}

/// What an end of a connection belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Terminal {
    Process(ProcessIndex),
    Container(ContainerIndex),
    /// A pod or a service, known by its address.
    Object(ObjectIndex),
    Host(HostIndex),
    InternetIn,
    InternetOut,
}

/// Where two ends meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ChannelKey {
    pub(crate) scope: Scope,
    pub(crate) client_address: IpAddr,
    pub(crate) server_address: IpAddr,
    pub(crate) server_port: u16,
    pub(crate) protocol: Protocol,
}

/// How far an address means the same thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Scope {
    /// On every host.
    Cluster,
    /// On this host, in every network namespace.
    Host(HostIndex),
    /// In this network namespace of this host.
    Namespace(HostIndex, u64),
}

/// A channel, who is on it, and what it adds to the graphs.
#[derive(Debug)]
pub(crate) struct ChannelRow {
    pub(crate) key: ChannelKey,
    pub(crate) clients: BTreeSet<FlowIndex>,
    pub(crate) servers: BTreeSet<FlowIndex>,
    /// Edges that it has in the projections, by the place of the view.
    pub(crate) edges: Vec<(u8, Entity, Entity)>,
}

impl ChannelRow {
    /// The address of the side that nobody reported, if there is one.
    fn open_side(&self) -> Option<IpAddr> {
        match (self.clients.is_empty(), self.servers.is_empty()) {
            (false, true) => Some(self.key.server_address),
            (true, false) => Some(self.key.client_address),
            _ => None,
        }
    }

    fn any_flow(&self) -> Option<FlowIndex> {
        self.clients.first().or(self.servers.first()).copied()
    }
}

/// All flows and channels.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    pub(crate) rows: Table<FlowIndex, FlowRow>,
    pub(crate) by_ordinal: BTreeMap<u64, FlowIndex>,
    pub(crate) channels: Table<ChannelIndex, ChannelRow>,
    by_key: DenseMap<ChannelKey, ChannelIndex>,
    /// Channels with one side only, by the address of the other.
    open: BTreeSet<(IpAddr, ChannelIndex)>,
    /// Channels whose edges have to be worked out again.
    unsettled: BTreeSet<ChannelIndex>,
    next_ordinal: u64,
}

impl Flows {
    /// A number for the next flow of the listing.
    pub(crate) fn take_ordinal(&mut self) -> u64 {
        self.next_ordinal += 1;
        self.next_ordinal
    }

    /// Puts a flow on its channel.
    pub(crate) fn attach(&mut self, flow: FlowIndex, scope: Scope) {
        let row = &self.rows[flow];
        let key = ChannelKey {
            scope,
            client_address: row.key.client_address,
            server_address: row.key.server_address,
            server_port: row.key.server_port,
            protocol: row.key.protocol,
        };
        let direction = row.key.direction;
        let channel = match self.by_key.get(&key) {
            Some(&channel) => channel,
            None => {
                let row = ChannelRow { key, clients: BTreeSet::new(), servers: BTreeSet::new(), edges: Vec::new() };
                let channel = self.channels.insert(row);
                self.by_key.insert(key, channel);
                channel
            }
        };
        self.change_sides(channel, |row| match direction {
            Direction::Client => row.clients.insert(flow),
            Direction::Server => row.servers.insert(flow),
        });
        self.rows[flow].channel = Some(channel);
    }

    /// Takes a flow off its channel.
    pub(crate) fn detach(&mut self, flow: FlowIndex) {
        let Some(channel) = self.rows[flow].channel.take() else { return };
        self.change_sides(channel, |row| row.clients.remove(&flow) || row.servers.remove(&flow));
    }

    fn change_sides(&mut self, channel: ChannelIndex, change: impl FnOnce(&mut ChannelRow) -> bool) {
        let row = &mut self.channels[channel];
        let before = row.open_side();
        change(row);
        let after = row.open_side();
        if before != after {
            if let Some(address) = before {
                self.open.remove(&(address, channel));
            }
            if let Some(address) = after {
                self.open.insert((address, channel));
            }
        }
        self.unsettled.insert(channel);
    }

    /// The owner of a flow looks different to some view.
    pub(crate) fn unsettle(&mut self, flow: FlowIndex) {
        if let Some(channel) = self.rows.get(flow).and_then(|row| row.channel) {
            self.unsettled.insert(channel);
        }
    }

    /// Another one holds these addresses: channels that end there are worked out again.
    pub(crate) fn unsettle_addresses(&mut self, first: IpAddr, last: IpAddr) {
        let lowest = (first, <ChannelIndex as crate::index::Index>::from_row(0));
        let channels = self.open.range(lowest..).take_while(|&&(address, _)| address <= last).map(|&(_, channel)| channel);
        self.unsettled.extend(channels);
    }

    /// Flows whose other end is only known by this address.
    pub(crate) fn open_at(&self, address: IpAddr) -> impl Iterator<Item = FlowIndex> + '_ {
        let lowest = (address, <ChannelIndex as crate::index::Index>::from_row(0));
        let channels = self.open.range(lowest..).take_while(move |&&(found, _)| found == address);
        channels.flat_map(|&(_, channel)| {
            let row = &self.channels[channel];
            row.clients.iter().chain(&row.servers).copied()
        })
    }

    /// Everything looks different to some view.
    pub(crate) fn unsettle_all(&mut self) {
        self.unsettled.extend(self.channels.iter().map(|(channel, _)| channel));
    }

    pub(crate) fn take_unsettled(&mut self) -> BTreeSet<ChannelIndex> {
        std::mem::take(&mut self.unsettled)
    }

    /// Forgets a channel that nobody is on.
    pub(crate) fn drop_if_empty(&mut self, channel: ChannelIndex) {
        if self.channels.get(channel).is_some_and(|row| row.any_flow().is_none())
            && let Some(row) = self.channels.remove(channel)
        {
            self.by_key.remove(&row.key);
        }
    }

    /// The pairs of ends that a channel connects.
    pub(crate) fn links(&self, channel: ChannelIndex, around: &Surroundings<'_>) -> Vec<(Terminal, Terminal)> {
        let Some(row) = self.channels.get(channel) else { return Vec::new() };
        let clients: BTreeSet<Terminal> = row.clients.iter().map(|&flow| self.rows[flow].terminal()).collect();
        let servers: BTreeSet<Terminal> = row.servers.iter().map(|&flow| self.rows[flow].terminal()).collect();
        if servers.is_empty() {
            let host = row.clients.first().map(|&flow| self.rows[flow].host);
            let server = host.and_then(|host| around.resolve_server(row.key.server_address, row.key.server_port, host));
            return server.map(|server| clients.into_iter().map(|client| (client, server)).collect()).unwrap_or_default();
        }
        if clients.is_empty() {
            let host = row.servers.first().map(|&flow| self.rows[flow].host);
            let client = host.and_then(|host| around.resolve_client(row.key.client_address, host));
            return client.map(|client| servers.into_iter().map(|server| (client, server)).collect()).unwrap_or_default();
        }
        clients.iter().flat_map(|&client| servers.iter().map(move |&server| (client, server))).collect()
    }

    /// Every flow is on the right side of its channel, and the index of open sides is exact.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (index, row) in self.rows.iter() {
            let Some(channel) = row.channel else { continue };
            let Some(channel) = self.channels.get(channel) else { return Err(format!("{index:?} is on a channel that is gone")) };
            let side = match row.key.direction {
                Direction::Client => &channel.clients,
                Direction::Server => &channel.servers,
            };
            if !side.contains(&index) {
                return Err(format!("{index:?} is not on its channel"));
            }
        }
        for (index, row) in self.channels.iter() {
            let listed = row.open_side().is_some_and(|address| self.open.contains(&(address, index)));
            if row.open_side().is_some() != listed {
                return Err(format!("{index:?} is listed under the wrong open side"));
            }
        }
        Ok(())
    }
}

/// What surrounds a flow: who holds which address.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) tables: &'a Tables,
    pub(crate) addresses: &'a AddressBook,
    pub(crate) networks: &'a NetworkSet,
}

impl Surroundings<'_> {
    /// Who serves at an address that no probe reported a server for; `None` for an unknown peer in a local network, which Scope hides.
    fn resolve_server(&self, address: IpAddr, port: u16, host: HostIndex) -> Option<Terminal> {
        if let Some(container) = self.publisher(address, port, host) {
            return Some(Terminal::Container(container));
        }
        self.holder(address, host).unwrap_or_else(|| self.outside(address, Terminal::InternetOut))
    }

    fn resolve_client(&self, address: IpAddr, host: HostIndex) -> Option<Terminal> {
        self.holder(address, host).unwrap_or_else(|| self.outside(address, Terminal::InternetIn))
    }

    fn outside(&self, address: IpAddr, internet: Terminal) -> Option<Terminal> {
        let local = self.networks.contains(address) || is_never_routed(address);
        (!local).then_some(internet)
    }

    /// Who holds an address, as seen from `host`. `Some(None)`: it is held, but not by one alone.
    fn holder(&self, address: IpAddr, host: HostIndex) -> Option<Option<Terminal>> {
        if address.is_loopback() {
            return Some(Some(Terminal::Host(host)));
        }
        let holders = self.addresses.holders(address)?;
        let mut here = holders.containers.iter().filter(|&&container| self.tables.containers[container].host == host);
        let container = match (here.next(), here.next()) {
            (Some(&container), None) => Some(container),
            (None, None) if holders.containers.len() == 1 => holders.containers.first().copied(),
            _ => None,
        };
        if let Some(container) = container {
            return Some(Some(Terminal::Container(container)));
        }
        if holders.containers.is_empty() && holders.objects.len() == 1 {
            return Some(holders.objects.first().map(|&object| Terminal::Object(object)));
        }
        if holders.hosts.contains(&host) {
            return Some(Some(Terminal::Host(host)));
        }
        if holders.hosts.len() == 1 {
            return Some(holders.hosts.first().map(|&host| Terminal::Host(host)));
        }
        Some(None)
    }

    /// The container that publishes a port on an address of a host.
    fn publisher(&self, address: IpAddr, port: u16, host: HostIndex) -> Option<ContainerIndex> {
        let on = |host: HostIndex| {
            let published = &self.tables.hosts.get(host)?.published;
            published.get(&(Some(address), port)).or_else(|| published.get(&(None, port))).copied()
        };
        if address.is_loopback() {
            return on(host);
        }
        let holders = self.addresses.holders(address)?;
        if holders.hosts.contains(&host) { on(host) } else { holders.hosts.first().and_then(|&host| on(host)) }
    }
}

/// Addresses that never leave a link or a host, whatever the interfaces say.
fn is_never_routed(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback() || address.is_link_local() || address.is_unspecified() || address.is_multicast(),
        IpAddr::V6(address) => {
            address.is_loopback() || address.is_unicast_link_local() || address.is_unspecified() || address.is_multicast()
        }
    }
}
