//! Edges follow from channels: whatever changed is worked out again, once, at the end of a step.

use crate::flows::{Surroundings, Terminal};
use crate::index::{ChannelIndex, Entity, HostIndex};
use crate::node::NodeId;
use crate::projection::{self, PROJECTED};
use crate::topology::Topology;

type Edges = Vec<(u8, Entity, Entity)>;

impl Topology {
    /// Works out the edges of everything that changed.
    pub(crate) fn settle(&mut self) {
        // Room for one known service more lets a channel in that was crowded out, which is then worked out, too.
        loop {
            let channels = self.flows.take_unsettled();
            if channels.is_empty() {
                break;
            }
            channels.into_iter().for_each(|channel| self.settle_channel(channel));
        }
        for (host, id) in std::mem::take(&mut self.unsettled_unix) {
            self.settle_unix(host, id);
        }
    }

    fn settle_channel(&mut self, channel: ChannelIndex) {
        let left = self.find_external(channel);
        let around = Surroundings { tables: &self.tables, addresses: &self.addresses, networks: &self.networks };
        let links = self.flows.links(channel, &around);
        let edges = self.project(&links);
        if let Some(row) = self.flows.channels.get_mut(channel) {
            let old = std::mem::replace(&mut row.edges, edges.clone());
            self.replace_edges(old, edges);
            self.flows.drop_if_empty(channel);
        }
        // Only now, when no edge leads to it any more: its number may stand for another service next.
        if let Some(group) = left
            && self.tables.externals.leave(group, channel)
            && let Some(next) = self.crowded_out.pop_first()
        {
            self.flows.unsettle_channel(next);
        }
    }

    /// Finds out which known service is at the open side of a channel, and returns the one that was there before.
    fn find_external(&mut self, channel: ChannelIndex) -> Option<crate::index::GroupIndex> {
        self.crowded_out.remove(&channel);
        let around = Surroundings { tables: &self.tables, addresses: &self.addresses, networks: &self.networks };
        let name = self.flows.external_name(channel, &around);
        let has_room = self.tables.externals.len() < self.config.limits.externals;
        let mut new = None;
        if let Some(name) = name {
            if has_room || self.tables.externals.find(&name).is_some() {
                new = Some(self.tables.externals.join(&name, channel, |name| NodeId::from(format!("service-{name}"))));
            } else {
                self.crowded_out.insert(channel);
            }
        }
        let row = self.flows.channels.get_mut(channel)?;
        let old = std::mem::replace(&mut row.external, new);
        old.filter(|_| old != new)
    }

    fn settle_unix(&mut self, host: HostIndex, id: u64) {
        let Some(row) = self.tables.hosts.get(host) else { return };
        let Some(flow) = row.unix_flows.get(id) else { return };
        let end = |key| row.processes.get(&key).map(|&process| Terminal::Process(process));
        let link = end(flow.record.client).zip(end(flow.record.server));
        let edges = self.project(link.as_slice());
        let Some(flow) = self.tables.hosts[host].unix_flows.get_mut(id) else { return };
        let old = std::mem::replace(&mut flow.edges, edges.clone());
        self.replace_edges(old, edges);
    }

    fn project(&self, links: &[(Terminal, Terminal)]) -> Edges {
        let mut edges = Vec::new();
        for &(from, to) in links {
            for (place, view) in (0_u8..).zip(PROJECTED) {
                let sources = projection::project(&self.tables, view, from);
                let targets = projection::project(&self.tables, view, to);
                edges.extend(sources.iter().flat_map(|&from| targets.iter().map(move |&to| (place, from, to))));
            }
        }
        edges
    }

    fn replace_edges(&mut self, old: Edges, new: Edges) {
        if old == new {
            return;
        }
        // First the new ones: an edge that stays never counts zero, and is not drawn again.
        for (place, from, to) in new {
            self.projections[usize::from(place)].add_edge(from, to);
        }
        for (place, from, to) in old {
            self.projections[usize::from(place)].remove_edge(from, to);
        }
    }
}
