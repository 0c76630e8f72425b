//! Where the map meets what others than our probes report: old probes see connections to machines that we look after, and we see
//! connections to machines that they look after.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::details;
use crate::flows::{ChannelKey, Scope, Surroundings, Terminal};
use crate::index::Entity;
use crate::networks::canonical;
use crate::node::NodeId;
use crate::projection::{self, PROJECTED};
use crate::report::{Network, Protocol};
use crate::summary;
use crate::topology::Topology;
use crate::view::View;

/// Ends of ours on one side of a connection; beyond that it is a crowd, and nobody reads the edges.
const ENDS_MAX: usize = 16;

/// A connection that somebody else saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    /// Address of the end that opened it.
    pub client: IpAddr,
    /// Address of the end that accepted it.
    pub server: IpAddr,
    /// Port of the service.
    pub port: u16,
}

/// What the map knows of the ends of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkEnds {
    /// Of the end that opened it.
    pub client: End,
    /// Of the end that accepted it.
    pub server: End,
}

/// What the map knows of one end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// The nodes that stand for it, by view; empty when it is nobody of ours.
    pub nodes: Vec<(View, NodeId)>,
    /// Whether its address lies in a network of one of our hosts.
    pub is_local: bool,
}

impl Topology {
    /// Who is at the ends of these connections, in the order asked. Costs a look-up for each.
    pub fn link_ends(&self, links: &[Link]) -> Vec<LinkEnds> {
        links.iter().map(|link| self.ends_of(*link)).collect()
    }

    fn ends_of(&self, link: Link) -> LinkEnds {
        let key = ChannelKey {
            scope: Scope::Cluster,
            client_address: link.client,
            server_address: link.server,
            server_port: link.port,
            protocol: Protocol::Tcp,
        };
        let channel = self.flows.channel(&key);
        let of = |flows: Option<&BTreeSet<crate::index::FlowIndex>>, address: IpAddr| {
            let mut terminals: BTreeSet<Terminal> =
                flows.into_iter().flatten().take(ENDS_MAX).map(|&flow| self.flows.rows[flow].terminal()).collect();
            if terminals.is_empty() {
                let around = Surroundings { tables: &self.tables, addresses: &self.addresses, networks: &self.networks };
                terminals.extend(around.sole_holder(address));
            }
            End { nodes: self.nodes_of(&terminals), is_local: self.networks.contains(address) }
        };
        LinkEnds { client: of(channel.map(|row| &row.clients), link.client), server: of(channel.map(|row| &row.servers), link.server) }
    }

    /// The nodes that each of these processes, containers and pods is counted in, by view and in the order asked; none for what is not on
    /// the map. Costs a look-up for each.
    pub fn groups_of(&self, members: &[NodeId]) -> Vec<Vec<(View, NodeId)>> {
        members.iter().map(|id| self.groups_of_one(id.as_str()).unwrap_or_default()).collect()
    }

    fn groups_of_one(&self, id: &str) -> Option<Vec<(View, NodeId)>> {
        const OF_CONTAINERS: &[View] = &[View::ContainersByHostname, View::ContainersByImage];
        const OF_PODS: &[View] = &[View::KubeControllers, View::Services];

        let (found, views) = if id.ends_with(";<container>") {
            (details::find(self, View::Containers, id)?, OF_CONTAINERS)
        } else if id.ends_with(";<pod>") {
            (details::find(self, View::Pods, id)?, OF_PODS)
        } else {
            (details::find(self, View::Processes, id)?, &[View::ProcessesByName][..])
        };
        let terminal = match found {
            Entity::Process(process) => Terminal::Process(process),
            Entity::Container(container) => Terminal::Container(container),
            Entity::Object(object) => Terminal::Object(object),
            _ => return None,
        };
        let nodes = views.iter().flat_map(|&view| {
            let entities = projection::project(&self.tables, view, terminal);
            entities.into_iter().filter_map(move |entity| Some((view, summary::node_id(&self.tables, entity)?)))
        });
        Some(nodes.collect())
    }

    fn nodes_of(&self, terminals: &BTreeSet<Terminal>) -> Vec<(View, NodeId)> {
        let mut nodes = Vec::new();
        for &terminal in terminals {
            for view in PROJECTED {
                let entities = projection::project(&self.tables, view, terminal);
                nodes.extend(entities.iter().filter_map(|&entity| Some((view, summary::node_id(&self.tables, entity)?))));
            }
        }
        nodes.sort();
        nodes.dedup();
        nodes
    }

    /// Networks of others are as little the Internet as our own.
    pub(crate) fn neighbours(&mut self, networks: Vec<Network>) {
        let new: BTreeSet<Network> = networks.into_iter().map(canonical).collect();
        let old = std::mem::replace(&mut self.neighbour_networks, new);
        let new = self.neighbour_networks.clone();
        for &network in new.difference(&old) {
            if self.networks.add(network) {
                self.network_changed(network);
            }
        }
        for &network in old.difference(&new) {
            if self.networks.remove(network) {
                self.network_changed(network);
            }
        }
    }
}
