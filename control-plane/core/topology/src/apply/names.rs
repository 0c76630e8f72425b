//! Names of addresses, and who is said to talk to them.

use std::net::IpAddr;
use std::sync::Arc;

use crate::flows::Surroundings;
use crate::index::{Entity, FlowIndex, HostIndex};
use crate::report::ResolvedAddress;
use crate::topology::Topology;
use crate::view::View;

impl Topology {
    pub(super) fn apply_name(&mut self, host: HostIndex, epoch: u64, record: ResolvedAddress) -> bool {
        let ResolvedAddress { address, names } = record;
        let known = &self.tables.hosts[host].names;
        if names.is_empty() || (!known.is_named(address) && known.len() >= self.config.limits.names) {
            return false;
        }
        if known.are(address, &names) {
            // Looked up again, with the same answer: nobody looks different.
            self.tables.hosts[host].names.put(address, names, epoch);
            return true;
        }
        let flows: Vec<FlowIndex> = known.leading_to(address).collect();
        let before: Vec<Option<Arc<str>>> = flows.iter().map(|&flow| self.peer_name(flow)).collect();
        self.tables.hosts[host].names.put(address, names, epoch);
        for (flow, old) in flows.into_iter().zip(before) {
            let new = self.peer_name(flow);
            if old != new {
                old.into_iter().for_each(|name| self.count_name(flow, &name, false));
                new.into_iter().for_each(|name| self.count_name(flow, &name, true));
            }
            self.flows.unsettle(flow);
        }
        true
    }

    pub(super) fn name_gone(&mut self, host: HostIndex, address: IpAddr) {
        self.tables.hosts[host].names.forget(address);
    }

    fn peer_name(&self, flow: FlowIndex) -> Option<Arc<str>> {
        let around = Surroundings { tables: &self.tables, addresses: &self.addresses, networks: &self.networks };
        around.name_of(&self.flows.rows[flow]).cloned()
    }

    /// A flow leads to its peer's addresses now, or no longer: its holder's list of names follows.
    pub(super) fn lead(&mut self, flow: FlowIndex, leads: bool) {
        let row = &self.flows.rows[flow];
        let (host, addresses) = (row.host, row.named_addresses());
        if leads {
            addresses.iter().for_each(|&address| self.tables.hosts[host].names.lead(address, flow));
        }
        if let Some(name) = self.peer_name(flow) {
            self.count_name(flow, &name, leads);
        }
        if !leads {
            addresses.iter().for_each(|&address| self.tables.hosts[host].names.leave(address, flow));
        }
    }

    /// The holder of a flow is about to become another one, or has just become it.
    pub(super) fn count_peer(&mut self, flow: FlowIndex, counts: bool) {
        if self.flows.rows[flow].channels.is_empty() {
            return;
        }
        if let Some(name) = self.peer_name(flow) {
            self.count_name(flow, &name, counts);
        }
    }

    fn count_name(&mut self, flow: FlowIndex, name: &Arc<str>, counts: bool) {
        let row = &self.flows.rows[flow];
        let (process, own_container) = (row.process, row.container);
        let change = |peers: &mut crate::names::Peers| if counts { peers.add(name, 1) } else { peers.remove(name, 1) };
        if let Some(process) = process {
            change(&mut self.tables.processes[process].peers);
            self.touch(View::Processes, Entity::Process(process));
        }
        let container = process.and_then(|process| self.tables.processes[process].container).or(own_container);
        if let Some(container) = container {
            change(&mut self.tables.containers[container].peers);
            self.touch(View::Containers, Entity::Container(container));
            self.touch_task_of(container);
        }
    }
}
