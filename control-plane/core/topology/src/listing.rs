//! Answers to questions about flows and probes.

use std::collections::BTreeSet;

use crate::flows::{FlowRow, Surroundings, Terminal};
use crate::index::{Entity, FlowIndex};
use crate::listeners::ListenerRow;
use crate::node::NodeId;
use crate::query::{FlowEntry, FlowPage, FlowQuery, HostStatus, ListenerEntry, ListenerPage, ListenerQuery, ProbeCounts, ProbeStatus};
use crate::report::{Direction, Endpoint, Listener, Translation, TranslationSource};
use crate::summary;
use crate::topology::{Source, Topology};

/// Endpoints of a service that a flow lists: as many as translations that a probe may tell.
const ENDPOINTS_SHOWN: usize = 64;

impl Topology {
    /// A page of flows, in the order in which the map learned of them.
    pub fn flows(&self, query: &FlowQuery) -> FlowPage {
        let candidates = self.candidates(query);
        let mut page = FlowPage::default();
        for (ordinal, flow) in candidates {
            let row = &self.flows.rows[flow];
            if row.has_faded || !self.matches(row, query) {
                continue;
            }
            if page.flows.len() == query.limit {
                page.next = page.flows.last().map(|entry| entry.ordinal);
                break;
            }
            page.flows.push(self.entry(ordinal, row));
        }
        page
    }

    /// Listening sockets, host by host.
    pub fn listeners(&self, query: &ListenerQuery) -> ListenerPage {
        let mut page = ListenerPage::default();
        for (name, host) in self.tables.host_names.iter().filter(|(name, _)| query.host.as_ref().is_none_or(|wanted| wanted == *name)) {
            let host = &self.tables.hosts[*host];
            // The narrowest index first; the rest of the question is asked of what it gives.
            let candidates: Box<dyn Iterator<Item = &ListenerRow>> = match (query.pid, &query.container, query.port) {
                (Some(pid), ..) => Box::new(host.listeners.of_pid(pid)),
                (None, Some(container), _) => Box::new(host.listeners.of_container(container)),
                (None, None, Some(port)) => Box::new(host.listeners.on_port(port)),
                (None, None, None) => Box::new(host.listeners.iter()),
            };
            let fits = |it: &Listener| {
                query.port.is_none_or(|port| it.port == port)
                    && query.container.as_ref().is_none_or(|container| it.container_id.as_ref() == Some(container))
            };
            for row in candidates.filter(|row| fits(&row.record)) {
                if page.listeners.len() == query.limit {
                    page.more = true;
                    return page;
                }
                let process = row.record.process.and_then(|key| host.processes.get(&key)).and_then(|&it| self.tables.processes.get(it));
                page.listeners.push(ListenerEntry {
                    host: name.clone(),
                    process_name: process.map(|process| process.record.name.clone()).filter(|name| !name.is_empty()),
                    listener: row.record.clone(),
                });
            }
        }
        page
    }

    /// All hosts, sorted by name.
    pub fn hosts(&self) -> Vec<HostStatus> {
        let hosts = self.tables.host_names.iter().filter_map(|(name, &host)| Some((name, self.tables.hosts.get(host)?)));
        let hosts = hosts.map(|(name, row)| HostStatus {
            name: name.clone(),
            probe: row.probe.clone(),
            probe_version: row.probe_version.clone(),
            record: row.record.clone(),
            metrics: row.latest.clone(),
            processes: row.processes.len() as u64,
            containers: row.containers.len() as u64,
            flows: row.flows.len() as u64,
            listeners: row.listeners.len() as u64,
            names: row.names.len() as u64,
        });
        hosts.collect()
    }

    /// All probes, sorted by id.
    pub fn probes(&self) -> Vec<ProbeStatus> {
        let probes = self.probes.iter().map(|(id, row)| {
            let host = match row.source {
                Source::Host(host) => self.tables.hosts.get(host),
                Source::Cluster => None,
            };
            let counts = host.map(|host| ProbeCounts {
                processes: host.processes.len() as u64,
                containers: host.containers.len() as u64,
                flows: host.flows.len() as u64,
                objects: 0,
                records_refused: row.records_refused,
            });
            let of_cluster =
                ProbeCounts { objects: row.objects.len() as u64, records_refused: row.records_refused, ..ProbeCounts::default() };
            ProbeStatus {
                id: id.clone(),
                host_name: row.host_name.clone(),
                version: row.version.clone(),
                connected: row.stream.is_some(),
                last_seen: row.last_seen,
                sequence: row.sequence,
                capture: row.capture.clone(),
                losses: row.losses.clone(),
                counts: counts.unwrap_or(of_cluster),
            }
        });
        probes.collect()
    }

    /// The smallest known set of flows that a query can match, in listing order.
    fn candidates<'a>(&'a self, query: &FlowQuery) -> Box<dyn Iterator<Item = (u64, FlowIndex)> + 'a> {
        let after = query.after;
        let listed = |flows: BTreeSet<FlowIndex>| -> Box<dyn Iterator<Item = (u64, FlowIndex)> + 'a> {
            let mut flows: Vec<(u64, FlowIndex)> = flows.into_iter().map(|flow| (self.flows.rows[flow].ordinal, flow)).collect();
            flows.retain(|&(ordinal, _)| ordinal > after);
            flows.sort_unstable();
            Box::new(flows.into_iter())
        };
        let hosts = self.tables.hosts.iter().filter(|(_, row)| query.host.as_ref().is_none_or(|name| *name == row.name));
        if let Some(pid) = query.pid {
            // A process's flows stay its own when it has left the map, but then only a look at all of its host's finds them.
            let processes: Vec<_> = hosts.map(|(_, row)| row.by_pid.get(&pid).copied()).collect();
            if processes.iter().all(Option::is_some) {
                return listed(processes.into_iter().flatten().flat_map(|it| self.tables.processes[it].flows.clone()).collect());
            }
            return Box::new(self.all_after(after));
        }
        if query.host.is_some() {
            return listed(hosts.flat_map(|(_, row)| row.flows.clone()).collect());
        }
        Box::new(self.all_after(after))
    }

    fn all_after(&self, after: u64) -> impl Iterator<Item = (u64, FlowIndex)> + '_ {
        self.flows.by_ordinal.range(after.saturating_add(1)..).map(|(&ordinal, &flow)| (ordinal, flow))
    }

    fn matches(&self, row: &FlowRow, query: &FlowQuery) -> bool {
        query.host.as_ref().is_none_or(|name| *name == self.tables.hosts[row.host].name)
            && query.pid.is_none_or(|pid| row.key.process.is_some_and(|key| key.pid == pid))
            && query.container.as_ref().is_none_or(|id| row.key.container_id.as_ref() == Some(id))
            && query.server_port.is_none_or(|port| row.key.server_port == port)
            && query.direction.is_none_or(|direction| row.key.direction == direction)
    }

    fn entry(&self, ordinal: u64, row: &FlowRow) -> FlowEntry {
        let process = row.process.and_then(|process| self.tables.processes.get(process));
        let around = Surroundings { tables: &self.tables, addresses: &self.addresses, networks: &self.networks };
        let name = around.name_of(row).cloned();
        FlowEntry {
            ordinal,
            host: self.tables.hosts[row.host].name.clone(),
            process: row.key.process,
            process_name: process.map(|process| process.record.name.clone()).filter(|name| !name.is_empty()),
            container_id: row.key.container_id.clone(),
            cgroup_id: row.key.cgroup_id,
            direction: row.key.direction,
            protocol: row.key.protocol,
            client_address: row.key.client_address,
            server_address: row.key.server_address,
            server_port: row.key.server_port,
            client_port: row.key.sample_client_port,
            original_server: row.key.original_server,
            origin: row.key.origin,
            counters: row.counters,
            applications: row.applications().to_vec(),
            translations: self.translations(row),
            others: row.others(),
            client_name: name.clone().filter(|_| row.key.direction == Direction::Server),
            server_name: name.filter(|_| row.key.direction == Direction::Client),
            first_seen: row.first_seen,
            last_active: row.last_active,
            peers: self.peers(row),
        }
    }

    /// Where a flow's connections were taken. Of a service whose address nothing else resolves, one of its endpoints answered.
    fn translations(&self, row: &FlowRow) -> Vec<Translation> {
        if !row.translations().is_empty() || row.key.direction == Direction::Server || row.key.original_server.is_some() {
            return row.translations().to_vec();
        }
        let service = self.addresses.holders(row.key.server_address).filter(|it| it.containers.is_empty() && it.objects.len() == 1);
        let endpoints = service.and_then(|it| it.objects.first()).into_iter().flat_map(|&it| self.tables.kubernetes.endpoints(it));
        let protocol = row.key.protocol.as_str();
        let ready = endpoints.filter(|it| it.ready && it.protocol.eq_ignore_ascii_case(protocol)).take(ENDPOINTS_SHOWN);
        let taken = |it: &Endpoint| Translation {
            server: (it.address, it.port),
            client: None,
            connections: 0,
            source: TranslationSource::Endpoints,
        };
        ready.map(taken).collect()
    }

    /// Who is at the other end: processes where they are known, else the container, the host or the Internet.
    fn peers(&self, row: &FlowRow) -> Vec<NodeId> {
        let around = Surroundings { tables: &self.tables, addresses: &self.addresses, networks: &self.networks };
        let links = row.channels.iter().flat_map(|&channel| self.flows.links(channel, &around));
        let peers: BTreeSet<Terminal> = links
            .filter_map(|(client, server)| match row.key.direction {
                Direction::Client => (client == row.terminal()).then_some(server),
                Direction::Server => (server == row.terminal()).then_some(client),
            })
            .collect();
        let entity = |terminal| match terminal {
            Terminal::Process(process) => Entity::Process(process),
            Terminal::Container(container) => Entity::Container(container),
            Terminal::Object(object) => Entity::Object(object),
            Terminal::Host(host) => Entity::Host(host),
            Terminal::External(group) => Entity::External(group),
            Terminal::InternetIn => Entity::InternetIn,
            Terminal::InternetOut => Entity::InternetOut,
        };
        peers.into_iter().filter_map(|terminal| summary::node_id(&self.tables, entity(terminal))).collect()
    }
}
