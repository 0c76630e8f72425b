//! Edges follow from channels: whatever changed is worked out again, once, at the end of a step.

use std::collections::BTreeMap;

use crate::flows::{Surroundings, Terminal};
use crate::index::{ChannelIndex, ContainerIndex, Entity, HostIndex, ProcessIndex};
use crate::names::Peers;
use crate::node::NodeId;
use crate::projection::{self, PROJECTED};
use crate::topology::Topology;
use crate::view::View;

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
                if view == View::Tasks && !crate::tasks::has_task(&sources, &targets) {
                    continue;
                }
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

    /// The edges of everything are what they would be if all of it were worked out again now.
    pub(crate) fn check_settled(&self) -> Result<(), String> {
        let around = Surroundings { tables: &self.tables, addresses: &self.addresses, networks: &self.networks };
        for (channel, row) in self.flows.channels.iter() {
            let name = self.flows.external_name(channel, &around);
            let shown = row.external.and_then(|group| self.tables.externals.get(group)).map(|group| group.text.clone());
            if name != shown && !(shown.is_none() && self.crowded_out.contains(&channel)) {
                return Err(format!("{:?} leads to {shown:?} and should lead to {name:?}", row.key));
            }
            let links = self.flows.links(channel, &around);
            if self.project(&links) != row.edges {
                return Err(format!("the edges of {:?} are {:?} and should follow from {links:?}", row.key, row.edges));
            }
        }
        for (_, host) in self.tables.hosts.iter() {
            for row in host.unix_flows.ids().filter_map(|id| host.unix_flows.get(id)) {
                let end = |key| host.processes.get(&key).map(|&process| Terminal::Process(process));
                let link = end(row.record.client).zip(end(row.record.server));
                if self.project(link.as_slice()) != row.edges {
                    return Err(format!("the edges of {:?} are old", row.record));
                }
            }
        }
        self.check_peers()
    }

    /// Whom a process or container is said to talk to is whom its flows lead to.
    fn check_peers(&self) -> Result<(), String> {
        let around = Surroundings { tables: &self.tables, addresses: &self.addresses, networks: &self.networks };
        let mut of_processes: BTreeMap<ProcessIndex, Peers> = BTreeMap::new();
        let mut of_containers: BTreeMap<ContainerIndex, Peers> = BTreeMap::new();
        for (_, row) in self.flows.rows.iter().filter(|(_, row)| !row.channels.is_empty()) {
            let Some(name) = around.name_of(row) else { continue };
            let container = row.process.and_then(|process| self.tables.processes[process].container).or(row.container);
            row.process.into_iter().for_each(|it| of_processes.entry(it).or_default().add(name, 1));
            container.into_iter().for_each(|it| of_containers.entry(it).or_default().add(name, 1));
        }
        let none = Peers::default();
        for (process, row) in self.tables.processes.iter() {
            if row.peers != *of_processes.get(&process).unwrap_or(&none) {
                return Err(format!("{} is said to talk to {:?}", row.node_id, row.peers));
            }
        }
        for (container, row) in self.tables.containers.iter() {
            if row.peers != *of_containers.get(&container).unwrap_or(&none) {
                return Err(format!("{} is said to talk to {:?}", row.node_id, row.peers));
            }
        }
        Ok(())
    }
}
