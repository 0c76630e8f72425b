//! The connection tables of a panel: one row for each neighbour and port, and on the Internet's side for each address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{flows_of, members};
use crate::flows::{FlowRow, Surroundings, Terminal};
use crate::index::{Entity, FlowIndex};
use crate::node::Connection;
use crate::picture::{self, Scene};
use crate::projection;
use crate::report::{Application, Direction};
use crate::summary;
use crate::topology::Topology;
use crate::view::{View, ViewKey};

/// Places that a row names as meant by its clients; a service has few addresses.
const VIAS_MAX: usize = 4;

/// One group of connections between two nodes, before it is written down.
struct Pairing {
    client: Entity,
    server: Entity,
    /// The flow whose connections are counted: the client's own, where somebody reported it.
    source: FlowIndex,
    client_address: IpAddr,
    server_address: IpAddr,
    port: u16,
}

/// A row that grows with every pairing that belongs to it.
struct Growing {
    row: Connection,
    others: u64,
    vias: BTreeSet<String>,
    applications: BTreeMap<Arc<str>, Application>,
}

type Rows = BTreeMap<Arc<str>, Growing>;

pub(super) fn connections(map: &Topology, scene: Scene<'_>, key: ViewKey, entity: Entity) -> (Vec<Connection>, Vec<Connection>) {
    let mut counted = BTreeSet::new();
    let (mut incoming, mut outgoing) = (Rows::new(), Rows::new());
    for flow in flows_of(map, key.view, entity) {
        for pairing in pairings(map, key.view, flow) {
            if !counted.insert((pairing.source, pairing.client, pairing.server, pairing.server_address, pairing.port)) {
                continue;
            }
            if pairing.client == entity {
                add(map, scene, key, &mut outgoing, entity, &pairing, Direction::Client);
            }
            if pairing.server == entity {
                add(map, scene, key, &mut incoming, entity, &pairing, Direction::Server);
            }
        }
    }
    add_unix(map, scene, key, (&mut incoming, &mut outgoing), entity);
    let finish = |rows: Rows| rows.into_values().map(Growing::finish).collect();
    (finish(incoming), finish(outgoing))
}

/// Whom a flow's channels connect in a view.
fn pairings(map: &Topology, view: View, flow: FlowIndex) -> Vec<Pairing> {
    let around = Surroundings { tables: &map.tables, addresses: &map.addresses, networks: &map.networks };
    let mut pairings = Vec::new();
    for &channel_index in &map.flows.rows[flow].channels {
        let channel = &map.flows.channels[channel_index];
        for (from, to) in map.flows.links(channel_index, &around) {
            let (side, holder) = if channel.clients.is_empty() { (&channel.servers, to) } else { (&channel.clients, from) };
            for client in projection::project(&map.tables, view, from) {
                for server in projection::project(&map.tables, view, to) {
                    let sources = side.iter().copied().filter(|&source| map.flows.rows[source].terminal() == holder);
                    pairings.extend(sources.map(|source| Pairing {
                        client,
                        server,
                        source,
                        client_address: channel.key.client_address,
                        server_address: channel.key.server_address,
                        port: channel.key.server_port,
                    }));
                }
            }
        }
    }
    pairings
}

fn add(map: &Topology, scene: Scene<'_>, key: ViewKey, rows: &mut Rows, viewed: Entity, pairing: &Pairing, role: Direction) {
    let (neighbour, own_address, other_address) = match role {
        Direction::Client => (pairing.server, pairing.client_address, pairing.server_address),
        Direction::Server => (pairing.client, pairing.server_address, pairing.client_address),
    };
    if neighbour != viewed && !picture::passes(scene, key, neighbour) {
        return;
    }
    let is_internet = |entity: Entity| matches!(entity, Entity::InternetIn | Entity::InternetOut);
    let Some(node_id) = summary::node_id(scene.tables, neighbour) else { return };
    let row = &map.flows.rows[pairing.source];
    let protocol = row.key.protocol;
    let remote = if is_internet(neighbour) { other_address.to_string() } else { String::new() };
    let local = if is_internet(viewed) { own_address.to_string() } else { String::new() };
    let mut id = format!("{node_id}-{remote}-{local}-{}", pairing.port);
    if protocol != crate::report::Protocol::Tcp {
        id.push('-');
        id.push_str(protocol.as_str());
    }
    let id: Arc<str> = id.into();
    let entry = rows.entry(id.clone()).or_insert_with(|| {
        // The Internet has many connections to few neighbours: only a row's first needs to know what the neighbour is called.
        let (label, label_minor) = match summary::summarize(scene.tables, neighbour, key.filter, scene.now) {
            Some(node) => (node.label, node.label_minor),
            None => ("".into(), "".into()),
        };
        let around = Surroundings { tables: &map.tables, addresses: &map.addresses, networks: &map.networks };
        let name = around.name_of(row);
        // As in Scope: an address of the Internet stands behind its name. The id has the address alone, because names change.
        let named = |address: String| name.map_or(address.clone(), |name| format!("{name} ({address})"));
        Growing::new(Connection {
            id,
            node_id,
            label: if is_internet(neighbour) { named(remote).into() } else { label },
            label_minor: if is_internet(neighbour) { "".into() } else { label_minor },
            remote: is_internet(viewed).then(|| named(local).into()),
            port: Some(pairing.port),
            protocol: protocol.as_str(),
            via: "".into(),
            applications: Vec::new(),
            count: 0,
        })
    });
    entry.row.count += connections_to(row, pairing, scene, map);
    entry.others = entry.others.saturating_add(row.others());
    if let Some(((address, port), source)) = row.meant((pairing.server_address, pairing.port))
        && entry.vias.len() < VIAS_MAX
    {
        entry.vias.insert(format!("{} ({})", SocketAddr::new(address, port), source.as_str()));
    }
    row.applications().iter().for_each(|it| entry.add_application(it));
}

/// Connections of a flow that went to one server. Of a translated one the client's counters know only the sum.
fn connections_to(row: &FlowRow, pairing: &Pairing, scene: Scene<'_>, map: &Topology) -> u64 {
    let all = row.connections_in_window(scene.now, map.config.window);
    let here = match row.translations() {
        [] | [_] => all,
        several => {
            let there = several.iter().filter(|it| it.server == (pairing.server_address, pairing.port));
            all.min(there.map(|it| it.connections).fold(0, u64::saturating_add))
        }
    };
    here.max(1)
}

/// Rows of Unix sockets: the path is what tells them apart, so it is their label.
fn add_unix(map: &Topology, scene: Scene<'_>, key: ViewKey, (incoming, outgoing): (&mut Rows, &mut Rows), viewed: Entity) {
    let members = members(map, viewed);
    let mut seen = BTreeSet::new();
    for process in members.processes {
        let process = &map.tables.processes[process];
        let Some(host) = map.tables.hosts.get(process.host) else { continue };
        for id in host.unix_flows.of_process(process.record.key) {
            if !seen.insert((process.host, id)) {
                continue;
            }
            let Some(flow) = host.unix_flows.get(id) else { continue };
            let end = |key| host.processes.get(key).map(|&process| Terminal::Process(process));
            let Some((client, server)) = end(&flow.record.client).zip(end(&flow.record.server)) else { continue };
            let clients = projection::project(&map.tables, key.view, client);
            let servers = projection::project(&map.tables, key.view, server);
            for (&client, &server) in clients.iter().flat_map(|client| servers.iter().map(move |server| (client, server))) {
                for (own, neighbour, rows) in [(client, server, &mut *outgoing), (server, client, &mut *incoming)] {
                    if own != viewed || (neighbour != viewed && !picture::passes(scene, key, neighbour)) {
                        continue;
                    }
                    let Some(node) = summary::summarize(scene.tables, neighbour, key.filter, scene.now) else { continue };
                    let id: Arc<str> = format!("{}-unix-{}", node.id, flow.record.path).into();
                    let entry = rows.entry(id.clone()).or_insert_with(|| {
                        Growing::new(Connection {
                            id,
                            node_id: node.id.clone(),
                            label: flow.record.path.clone(),
                            label_minor: node.label.clone(),
                            remote: None,
                            port: None,
                            protocol: "unix",
                            via: "".into(),
                            applications: Vec::new(),
                            count: 0,
                        })
                    });
                    entry.row.count += u64::from(flow.record.open);
                }
            }
        }
    }
}

impl Growing {
    fn new(row: Connection) -> Self {
        Growing { row, others: 0, vias: BTreeSet::new(), applications: BTreeMap::new() }
    }

    fn add_application(&mut self, it: &Application) {
        let sum = self
            .applications
            .entry(it.protocol.clone())
            .or_insert_with(|| Application { protocol: it.protocol.clone(), ..Application::default() });
        sum.requests = sum.requests.saturating_add(it.requests);
        sum.errors = sum.errors.saturating_add(it.errors);
        sum.latency_us_sum = sum.latency_us_sum.saturating_add(it.latency_us_sum);
        sum.latency_count = sum.latency_count.saturating_add(it.latency_count);
        sum.latency_us_max = sum.latency_us_max.max(it.latency_us_max);
    }

    fn finish(mut self) -> Connection {
        if self.others > 0 {
            // The sum stands under no address: it would be that of nobody.
            self.row.label = format!("and {} others", self.others).into();
        }
        self.row.via = self.vias.into_iter().collect::<Vec<_>>().join(", ").into();
        self.row.applications = self.applications.into_values().collect();
        self.row
    }
}
