//! What comes in at places: all connections that were accepted on a port of a host, or by the container behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::index::{ContainerIndex, FlowIndex, HostIndex};
use crate::report::{Direction, FlowCounters};
use crate::tables::HostRow;
use crate::topology::{Source, Topology};

/// Where connections come in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrafficPlace {
    /// The host's name, or one of its addresses.
    pub host: Arc<str>,
    /// Ports there: of its own processes, or published for a container.
    pub ports: Vec<u16>,
    /// Addresses of its own, where it has any.
    pub addresses: Vec<IpAddr>,
}

/// Connections that came in at a place, from one client address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrafficFlow {
    /// The probe's run that tells of it.
    pub session: Arc<str>,
    /// Its number in that run. A flow that was silent for long leaves the map, and comes back under the same number.
    pub number: u64,
    /// Totals since it was first seen.
    pub counters: FlowCounters,
    /// Requests of protocols that are understood.
    pub requests: u64,
    /// Those of them that were answered with an error.
    pub errors: u64,
    /// From when it was first seen to when something last happened on it, by the clock of its host.
    pub age: Duration,
}

impl Topology {
    /// What came in at each of `places`, in their order; `None` where no connected probe looks. Each host's flows are looked at once.
    pub fn traffic(&self, places: &[TrafficPlace]) -> Vec<Option<Vec<TrafficFlow>>> {
        let seeing = self.hosts_seen();
        let mut by_host: BTreeMap<HostIndex, Vec<usize>> = BTreeMap::new();
        let mut found: Vec<Option<Vec<TrafficFlow>>> = vec![None; places.len()];
        for (at, place) in places.iter().enumerate() {
            if let Some(host) = self.host_of(&place.host, &seeing) {
                by_host.entry(host).or_default().push(at);
                found[at] = Some(Vec::new());
            }
        }
        for (host, wanted) in by_host {
            let Some(row) = self.tables.hosts.get(host) else { continue };
            self.traffic_of_host(row, places, &wanted, &mut found);
        }
        found
    }

    fn traffic_of_host(&self, row: &HostRow, places: &[TrafficPlace], wanted: &[usize], found: &mut [Option<Vec<TrafficFlow>>]) {
        let mut by_port: BTreeMap<u16, usize> = BTreeMap::new();
        let mut by_address: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for &at in wanted {
            let place = &places[at];
            let mut containers: BTreeSet<ContainerIndex> = BTreeSet::new();
            for port in &place.ports {
                let published: Vec<_> =
                    row.published.iter().filter(|((_, outside), _)| outside == port).map(|(_, container)| *container).collect();
                if published.is_empty() {
                    by_port.insert(*port, at);
                }
                containers.extend(published);
            }
            let flows: BTreeSet<FlowIndex> = containers.into_iter().flat_map(|it| self.flows_of_container(it)).collect();
            let list = found[at].get_or_insert_default();
            list.extend(flows.into_iter().filter_map(|flow| self.accepted(flow)));
            // Addresses of its own are looked for where no container was.
            if list.is_empty() {
                by_address.extend(place.addresses.iter().map(|address| (*address, at)));
            }
        }
        if by_port.is_empty() && by_address.is_empty() {
            return;
        }
        for &flow in &row.flows {
            let Some(key) = self.flows.rows.get(flow).map(|it| &it.key) else { continue };
            let at = by_address.get(&key.server_address).or_else(|| by_port.get(&key.server_port));
            if let Some(&at) = at
                && let Some(flow) = self.accepted(flow)
            {
                found[at].get_or_insert_default().push(flow);
            }
        }
    }

    fn flows_of_container(&self, container: ContainerIndex) -> Vec<FlowIndex> {
        let Some(row) = self.tables.containers.get(container) else { return Vec::new() };
        let of_processes = row.processes.iter().filter_map(|&it| self.tables.processes.get(it)).flat_map(|it| it.flows.iter().copied());
        row.flows.iter().copied().chain(of_processes).collect()
    }

    fn accepted(&self, flow: FlowIndex) -> Option<TrafficFlow> {
        let row = self.flows.rows.get(flow).filter(|row| row.key.direction == Direction::Server)?;
        let (requests, errors) =
            row.applications().iter().fold((0, 0), |(requests, errors), it| (requests + it.requests, errors + it.errors));
        Some(TrafficFlow {
            session: row.session.clone(),
            number: row.probe_flow_id,
            counters: row.counters,
            requests,
            errors,
            age: row.last_active.since(row.first_seen),
        })
    }

    fn hosts_seen(&self) -> BTreeSet<HostIndex> {
        let hosts = self.probes.values().filter(|probe| probe.stream.is_some()).filter_map(|probe| match probe.source {
            Source::Host(host) => Some(host),
            Source::Cluster => None,
        });
        hosts.collect()
    }

    /// The host that goes by a name or an address. This machine's own address is only good where there is but one.
    fn host_of(&self, name: &str, seen: &BTreeSet<HostIndex>) -> Option<HostIndex> {
        if let Some(host) = self.tables.host_names.get(name) {
            return seen.contains(host).then_some(*host);
        }
        let address: Option<IpAddr> = if name == "localhost" { Some(IpAddr::from([127, 0, 0, 1])) } else { name.parse().ok() };
        let address = address?;
        if address.is_loopback() {
            return seen.first().copied().filter(|_| self.tables.host_names.len() == 1);
        }
        let holds = |host: &&HostIndex| self.tables.hosts.get(**host).is_some_and(|row| row.record.addresses.contains(&address));
        seen.iter().find(holds).copied()
    }
}
