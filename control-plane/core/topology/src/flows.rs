//! Flows, and the channels where their ends meet.
//!
//! A flow is one end of a group of connections. The end that opened and the end that accepted agree on both addresses and on the service's
//! port, also when two probes report them: that triple is the *channel*. Whoever is on the client side of a channel is linked to whoever is
//! on its server side; a channel with one side only is linked to what holds the other address, or to the Internet.
//!
//! Address translation takes a client elsewhere than it meant to go. Its flow is then on the channels that the servers' ends are on, one for
//! each place where it was taken, and on none for the address that it asked for: see the decision on translated flows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base::DenseMap;

use crate::index::{ChannelIndex, ContainerIndex, Entity, FlowIndex, GroupIndex, HostIndex, Index as _, ObjectIndex, ProcessIndex, Table};
use crate::report::{Direction, Protocol};

mod around;
mod row;

pub(crate) use around::Surroundings;
pub(crate) use row::{FlowRow, Meeting};

/// What an end of a connection belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Terminal {
    Process(ProcessIndex),
    Container(ContainerIndex),
    /// A pod or a service, known by its address.
    Object(ObjectIndex),
    Host(HostIndex),
    /// A known service outside, by its name.
    External(GroupIndex),
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
    /// The known service at its open side.
    pub(crate) external: Option<GroupIndex>,
}

impl ChannelRow {
    /// The address of the side that nobody reported, if there is one, and for a server its port.
    pub(crate) fn open_side(&self) -> Option<(IpAddr, u16)> {
        match (self.clients.is_empty(), self.servers.is_empty()) {
            (false, true) => Some((self.key.server_address, self.key.server_port)),
            (true, false) => Some((self.key.client_address, 0)),
            _ => None,
        }
    }

    pub(crate) fn any_flow(&self) -> Option<FlowIndex> {
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
    /// Channels with one side only, by the address and port of the other.
    open: BTreeSet<(IpAddr, u16, ChannelIndex)>,
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

    /// The channel of a key, if anybody is on it.
    pub(crate) fn channel(&self, key: &ChannelKey) -> Option<&ChannelRow> {
        self.by_key.get(key).and_then(|&channel| self.channels.get(channel))
    }

    /// Puts a flow on channels.
    pub(crate) fn attach(&mut self, flow: FlowIndex, keys: impl IntoIterator<Item = ChannelKey>) {
        let direction = self.rows[flow].key.direction;
        for key in keys {
            let channel = match self.by_key.get(&key) {
                Some(&channel) => channel,
                None => {
                    let row = ChannelRow { key, clients: BTreeSet::new(), servers: BTreeSet::new(), edges: Vec::new(), external: None };
                    let channel = self.channels.insert(row);
                    self.by_key.insert(key, channel);
                    channel
                }
            };
            self.change_sides(channel, |row| match direction {
                Direction::Client => row.clients.insert(flow),
                Direction::Server => row.servers.insert(flow),
            });
            self.rows[flow].channels.push(channel);
        }
    }

    /// Takes a flow off its channels.
    pub(crate) fn detach(&mut self, flow: FlowIndex) {
        for channel in std::mem::take(&mut self.rows[flow].channels) {
            self.change_sides(channel, |row| row.clients.remove(&flow) || row.servers.remove(&flow));
        }
    }

    fn change_sides(&mut self, channel: ChannelIndex, change: impl FnOnce(&mut ChannelRow) -> bool) {
        let row = &mut self.channels[channel];
        let (before, had_clients) = (row.open_side(), !row.clients.is_empty());
        change(row);
        let (after, has_clients) = (row.open_side(), !row.clients.is_empty());
        if before != after {
            if let Some((address, port)) = before {
                self.open.remove(&(address, port, channel));
            }
            if let Some((address, port)) = after {
                self.open.insert((address, port, channel));
            }
        }
        if had_clients != has_clients {
            // A server that two channels know has met its client on one of them, or has lost it.
            let servers = self.channels[channel].servers.iter().filter_map(|&flow| self.rows.get(flow));
            self.unsettled.extend(servers.filter(|row| row.channels.len() > 1).flat_map(|row| row.channels.iter().copied()));
        }
        self.unsettled.insert(channel);
    }

    /// The owner of a flow looks different to some view.
    pub(crate) fn unsettle(&mut self, flow: FlowIndex) {
        self.unsettled.extend(self.rows.get(flow).into_iter().flat_map(|row| row.channels.iter().copied()));
    }

    /// This channel is worked out again.
    pub(crate) fn unsettle_channel(&mut self, channel: ChannelIndex) {
        self.unsettled.insert(channel);
    }

    /// Another one holds these addresses: channels that end there are worked out again.
    pub(crate) fn unsettle_addresses(&mut self, first: IpAddr, last: IpAddr) {
        let channels = self.open.range(lowest(first, 0)..).take_while(|&&(address, ..)| address <= last).map(|&(.., channel)| channel);
        self.unsettled.extend(channels);
    }

    /// Another one serves at this address and port.
    pub(crate) fn unsettle_server(&mut self, address: IpAddr, port: u16) {
        let channels = self.open.range(lowest(address, port)..).take_while(|&&(found, at, _)| (found, at) == (address, port));
        self.unsettled.extend(channels.map(|&(.., channel)| channel));
    }

    /// Another one serves at this port of every loopback address: from one address that is in use to the next.
    pub(crate) fn unsettle_loopback_servers(&mut self, port: u16) {
        self.unsettle_server(IpAddr::V6(Ipv6Addr::LOCALHOST), port);
        let mut from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0));
        while let Some(&(address @ IpAddr::V4(found), ..)) = self.open.range(lowest(from, 0)..).next()
            && found.is_loopback()
        {
            self.unsettle_server(address, port);
            from = IpAddr::V4(found.to_bits().saturating_add(1).into());
        }
    }

    /// Flows whose other end is only known by this address.
    pub(crate) fn open_at(&self, address: IpAddr) -> impl Iterator<Item = FlowIndex> + '_ {
        let channels = self.open.range(lowest(address, 0)..).take_while(move |&&(found, ..)| found == address);
        channels.flat_map(|&(.., channel)| {
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
        if row.servers.is_empty() {
            let server = self.open_end(row, around);
            return server.map(|server| clients.into_iter().map(|client| (client, server)).collect()).unwrap_or_default();
        }
        if clients.is_empty() {
            // Where the client meant to go and where it arrived are two channels of a server's end. Its client is on one of them, or on
            // none, and then it is looked for once.
            let is_met = |flow: &FlowRow| flow.channels.iter().any(|&other| !self.channels[other].clients.is_empty());
            let is_own = |flow: &FlowRow| (flow.key.server_address, flow.key.server_port) == (row.key.server_address, row.key.server_port);
            let servers = row.servers.iter().map(|&flow| &self.rows[flow]).filter(|flow| is_own(flow) && !is_met(flow));
            let servers: BTreeSet<Terminal> = servers.map(FlowRow::terminal).collect();
            let client = self.open_end(row, around);
            return client.map(|client| servers.into_iter().map(|server| (client, server)).collect()).unwrap_or_default();
        }
        let servers: BTreeSet<Terminal> = row.servers.iter().map(|&flow| self.rows[flow].terminal()).collect();
        clients.iter().flat_map(|&client| servers.iter().map(move |&server| (client, server))).collect()
    }

    /// Who is at the side of a channel that nobody reported.
    fn open_end(&self, row: &ChannelRow, around: &Surroundings<'_>) -> Option<Terminal> {
        if let Some(external) = row.external {
            return Some(Terminal::External(external));
        }
        let flow = &self.rows[row.any_flow()?];
        let is_server = row.servers.is_empty();
        let (open, known) =
            if is_server { (row.key.server_address, row.key.client_address) } else { (row.key.client_address, row.key.server_address) };
        if open.is_unspecified() {
            // A sum of many peers: too many to be told one by one, and none of them is made up. On loopback they are no strangers.
            let is_sum = flow.others() > 0 && !known.is_loopback();
            return is_sum.then_some(if is_server { Terminal::InternetOut } else { Terminal::InternetIn });
        }
        if is_server {
            let place = around::Place { address: open, port: row.key.server_port, protocol: row.key.protocol };
            around.resolve_server(place, flow.key.network_namespace, flow.host)
        } else {
            around.resolve_client(open, flow.host)
        }
    }

    /// The name of a known service at the open side of a channel: that of a peer whom none of our hosts holds.
    pub(crate) fn external_name(&self, channel: ChannelIndex, around: &Surroundings<'_>) -> Option<std::sync::Arc<str>> {
        let row = self.channels.get(channel)?;
        let (address, port) = row.open_side()?;
        let flow = &self.rows[row.any_flow()?];
        let name = around.known_service(flow)?;
        let place = around::Place { address, port, protocol: row.key.protocol };
        around.is_outside(place, !row.servers.is_empty(), flow.host).then_some(name)
    }

    /// Every flow is on the right side of its channel, and the index of open sides is exact.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (index, row) in self.rows.iter() {
            for &channel in &row.channels {
                let Some(channel) = self.channels.get(channel) else { return Err(format!("{index:?} is on a channel that is gone")) };
                let side = match row.key.direction {
                    Direction::Client => &channel.clients,
                    Direction::Server => &channel.servers,
                };
                if !side.contains(&index) {
                    return Err(format!("{index:?} is not on its channel"));
                }
            }
        }
        for (index, row) in self.channels.iter() {
            let listed = row.open_side().is_some_and(|(address, port)| self.open.contains(&(address, port, index)));
            if row.open_side().is_some() != listed {
                return Err(format!("{index:?} is listed under the wrong open side"));
            }
        }
        Ok(())
    }
}

fn lowest(address: IpAddr, port: u16) -> (IpAddr, u16, ChannelIndex) {
    (address, port, ChannelIndex::from_row(0))
}
