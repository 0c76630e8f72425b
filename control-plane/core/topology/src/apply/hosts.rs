//! Hosts come and go with their probes; their addresses and networks decide what is local.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::flows::{Meeting, Scope};
use crate::index::{ContainerIndex, Entity, FlowIndex, HostIndex, ProcessIndex};
use crate::networks::canonical;
use crate::report::{Host, HostMetrics, Network, ProbeHello, ProbeId};
use crate::tables::{HostRow, HostSample, push_sample};
use crate::topology::{Effect, Leaving, Source, StreamEnd, Topology};
use crate::view::View;

impl Topology {
    pub(crate) fn add_host(&mut self, probe: &ProbeId, hello: &ProbeHello) -> HostIndex {
        let name = hello.host_name.clone();
        let host = self.tables.hosts.insert(HostRow {
            node_id: format!("{name};<host>").into(),
            uncontained_id: format!("pseudo:uncontained:{name}").into(),
            unmanaged_id: format!("pseudo:unmanaged:{name}").into(),
            name: name.clone(),
            probe: probe.clone(),
            probe_version: hello.version.clone(),
            record: Host::default(),
            samples: Default::default(),
            latest: None,
            processes: Default::default(),
            by_pid: Default::default(),
            containers: BTreeSet::new(),
            images: Default::default(),
            flows: BTreeSet::new(),
            flow_ids: Default::default(),
            published: Default::default(),
            private_networks: Vec::new(),
            names: Default::default(),
            listeners: Default::default(),
            unix_flows: Default::default(),
        });
        self.tables.host_names.insert(name.clone(), host);
        self.node_changed(&name);
        self.set_present(View::Hosts, Entity::Host(host), true);
        host
    }

    pub(crate) fn remove_probe(&mut self, probe: &ProbeId, end: StreamEnd, out: &mut Vec<Effect>) {
        let Some(row) = self.probes.remove(probe) else { return };
        self.connected -= usize::from(row.stream.is_some());
        if let Some(at) = row.leaves_at {
            self.leaving.remove(&(at, Leaving::Probe(probe.clone())));
        }
        let Source::Host(host) = row.source else {
            row.objects.into_iter().for_each(|object| self.object_gone(object));
            out.push(Effect::ProbeLeft { probe: probe.clone(), host_name: row.host_name, end });
            return;
        };
        let flows: Vec<FlowIndex> = self.tables.hosts[host].flows.iter().copied().collect();
        flows.into_iter().for_each(|flow| self.remove_flow(flow));
        let unix_flows: Vec<u64> = self.tables.hosts[host].unix_flows.ids().collect();
        unix_flows.into_iter().for_each(|id| self.remove_unix_flow(host, id));
        let listeners: Vec<u64> = self.tables.hosts[host].listeners.iter().map(|row| row.record.id).collect();
        listeners.into_iter().for_each(|id| self.listener_gone(host, id));
        let processes: Vec<ProcessIndex> = self.tables.hosts[host].processes.values().copied().collect();
        processes.into_iter().for_each(|process| self.remove_process(process));
        let containers: Vec<ContainerIndex> = self.tables.hosts[host].containers.iter().copied().collect();
        containers.into_iter().for_each(|container| self.container_gone(container));
        self.apply_host(host, Host::default());
        self.set_present(View::Hosts, Entity::Host(host), false);
        if let Some(row) = self.tables.hosts.remove(host) {
            self.tables.host_names.remove(&row.name);
            self.node_changed(&row.name);
        }
        out.push(Effect::ProbeLeft { probe: probe.clone(), host_name: row.host_name, end });
    }

    pub(super) fn apply_host(&mut self, host: HostIndex, record: Host) {
        let old = std::mem::replace(&mut self.tables.hosts[host].record, record.clone());
        if old == record {
            return;
        }
        self.touch(View::Hosts, Entity::Host(host));
        let mut sharers = BTreeSet::new();
        for &address in old.addresses.iter().filter(|&address| !record.addresses.contains(address)) {
            self.addresses.remove_host(address, host);
            self.address_changed(address, &mut sharers);
        }
        for &address in record.addresses.iter().filter(|&address| !old.addresses.contains(address)) {
            self.addresses.add_host(address, host);
            self.address_changed(address, &mut sharers);
        }
        for &network in old.local_networks.iter().filter(|&network| !record.local_networks.contains(network)) {
            if self.networks.remove(network) {
                self.network_changed(network);
            }
        }
        for &network in record.local_networks.iter().filter(|&network| !old.local_networks.contains(network)) {
            // A thousand hosts are in the same few networks: only the first and the last of them decide what is outside.
            if self.networks.add(network) {
                self.network_changed(network);
            }
        }
        if old.addresses != record.addresses || old.local_networks != record.local_networks {
            // They say at which of them a port is published, and those in the host's network have them.
            let containers: Vec<ContainerIndex> = self.tables.hosts[host].containers.iter().copied().collect();
            for container in containers {
                self.touch(View::Containers, Entity::Container(container));
                self.touch_task_of(container);
            }
        }
        sharers.insert(host);
        sharers.into_iter().for_each(|host| self.rescope(host));
    }

    pub(super) fn apply_host_metrics(&mut self, host: HostIndex, metrics: HostMetrics) {
        let row = &mut self.tables.hosts[host];
        let sample = HostSample {
            at: metrics.at,
            cpu_percent: metrics.cpu_percent,
            memory_used_bytes: metrics.memory_used_bytes,
            swap_used_bytes: metrics.swap_used_bytes,
            load: [metrics.load1, metrics.load5, metrics.load15],
            pressure: metrics.pressure.map(super::packed),
            rates: row.latest.as_ref().and_then(|before| rates(before, &metrics)),
        };
        if push_sample(&mut row.samples, sample, |it| it.at) {
            row.latest = Some(metrics);
            self.touch_numbers(View::Hosts, Entity::Host(host));
        }
    }

    pub(super) fn address_changed(&mut self, address: IpAddr, sharers: &mut BTreeSet<HostIndex>) {
        self.flows.unsettle_addresses(address, address);
        if !address.is_loopback()
            && let Some(holders) = self.addresses.holders(address)
            && holders.hosts.len() <= 2
        {
            sharers.extend(holders.hosts.iter().copied());
        }
    }

    pub(crate) fn network_changed(&mut self, network: Network) {
        let (first, last) = bounds(network);
        self.flows.unsettle_addresses(first, last);
    }

    /// Works out again which of a host's networks mean something there alone (another host has the very same address in it: every Docker
    /// host's bridge), and moves its flows to the channels that follow from that.
    pub(super) fn rescope(&mut self, host: HostIndex) {
        let Some(row) = self.tables.hosts.get(host) else { return };
        let is_shared =
            |address: &IpAddr| !address.is_loopback() && self.addresses.holders(*address).is_some_and(|holders| holders.hosts.len() > 1);
        let shared: Vec<IpAddr> = row.record.addresses.iter().copied().filter(is_shared).collect();
        let is_private = |network: &Network| shared.iter().any(|&address| network.contains(address));
        let private: Vec<Network> = row.record.local_networks.iter().copied().filter(is_private).map(canonical).collect();
        if private == row.private_networks {
            return;
        }
        self.tables.hosts[host].private_networks = private;
        let flows: Vec<FlowIndex> = self.tables.hosts[host].flows.iter().copied().collect();
        for flow in flows {
            if !self.flows.rows[flow].channels.is_empty() {
                self.join_anew(flow);
            }
        }
    }

    pub(super) fn scope_of(&self, host: HostIndex, namespace: u64, meeting: Meeting) -> Scope {
        if meeting.client.is_loopback() || meeting.server.is_loopback() {
            return Scope::Namespace(host, namespace);
        }
        let private = &self.tables.hosts[host].private_networks;
        let is_private = private.iter().any(|network| network.contains(meeting.client) && network.contains(meeting.server));
        if is_private { Scope::Host(host) } else { Scope::Cluster }
    }
}

/// First and last address of a network.
fn bounds(network: Network) -> (IpAddr, IpAddr) {
    let first = canonical(network).address;
    let last = match first {
        IpAddr::V4(address) => {
            let host_bits = u32::MAX.checked_shr(u32::from(network.prefix_length)).unwrap_or(0);
            IpAddr::V4((address.to_bits() | host_bits).into())
        }
        IpAddr::V6(address) => {
            let host_bits = u128::MAX.checked_shr(u32::from(network.prefix_length)).unwrap_or(0);
            IpAddr::V6((address.to_bits() | host_bits).into())
        }
    };
    (first, last)
}

/// Bytes a second between two samples: received, sent, read, written. What began to be counted anew in between counts as nothing.
#[expect(clippy::cast_precision_loss, reason = "a rate for a graph")]
fn rates(before: &HostMetrics, after: &HostMetrics) -> Option<[f32; 4]> {
    if after.network_interfaces.is_empty() && after.block_devices.is_empty() {
        return None;
    }
    let seconds = after.at.since(before.at).as_secs_f32();
    if seconds <= 0.0 {
        return None;
    }
    let mut totals = [0_u64; 4];
    let outside = after.network_interfaces.iter().filter(|it| it.up && &*it.name != "lo");
    for interface in outside {
        let Some(old) = before.network_interfaces.iter().find(|old| old.name == interface.name) else { continue };
        totals[0] = totals[0].saturating_add(interface.received_bytes.saturating_sub(old.received_bytes));
        totals[1] = totals[1].saturating_add(interface.sent_bytes.saturating_sub(old.sent_bytes));
    }
    for device in &after.block_devices {
        let Some(old) = before.block_devices.iter().find(|old| old.name == device.name) else { continue };
        totals[2] = totals[2].saturating_add(device.read_bytes.saturating_sub(old.read_bytes));
        totals[3] = totals[3].saturating_add(device.written_bytes.saturating_sub(old.written_bytes));
    }
    Some(totals.map(|bytes| bytes as f32 / seconds))
}
