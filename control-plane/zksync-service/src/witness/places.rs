//! Which connections lead to an ensemble, by whatever address, and which of them are not our own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, UdpSocket};

use super::{FlowRow, Holder};

/// The kernel's number of the first namespace of processes: whoever is in it sees its own number as probes do.
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// A host whose probe is connected, which sees every connection that begins or ends there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenHost {
    /// Its name, as its flows have it.
    pub name: String,
    /// Addresses of its interfaces.
    pub addresses: BTreeSet<IpAddr>,
}

/// Where the servers of an ensemble are.
#[derive(Clone, Debug)]
pub struct Places {
    places: Vec<Place>,
    hosts: Vec<SeenHost>,
    us: Us,
}

/// A port of a host. Whoever reaches it by another address of that host talks to the same server.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    host: String,
    /// Addresses that no other host has.
    unique: BTreeSet<IpAddr>,
    port: u16,
}

/// This process, as it is told apart from others that are connected.
#[derive(Clone, Debug, Default)]
struct Us {
    /// None in a namespace of its own, where its number is not the one that probes see.
    pid: Option<u32>,
    /// At most 15 bytes of the program's, as the kernel keeps it.
    name: String,
    /// Those that it reaches the servers from.
    addresses: BTreeSet<IpAddr>,
}

/// A server's address and port.
type End = (IpAddr, u16);

impl Places {
    /// The places of `servers`. That nobody is seen says nothing about a server that nobody looks at, so each must be on one of `hosts`.
    ///
    /// # Errors
    /// When one is not: with the servers that nobody looks at.
    pub fn of(servers: &[SocketAddr], hosts: Vec<SeenHost>) -> Result<Places, String> {
        let ours = servers.iter().filter_map(|server| source(server.ip())).filter(|address| !address.is_loopback());
        let us = Us { addresses: ours.collect(), ..Us::of_this_process() };
        // Whoever reaches an address from that very address is there.
        Places::among(servers, hosts, us, |address| source(address) == Some(address))
    }

    fn among(servers: &[SocketAddr], hosts: Vec<SeenHost>, us: Us, is_own: impl Fn(IpAddr) -> bool) -> Result<Places, String> {
        let mut places = Vec::new();
        let mut unseen = BTreeSet::new();
        let on_this = |host: &SeenHost| host.addresses.iter().any(|address| !address.is_loopback() && is_own(*address));
        let is_known = servers.iter().any(|server| server.ip().is_loopback()) && hosts.iter().any(on_this);
        for server in servers {
            let address = server.ip().to_canonical();
            // Every host has these: this one's are meant, or any that it may be.
            let is_meant =
                |host: &&SeenHost| if address.is_loopback() { !is_known || on_this(host) } else { host.addresses.contains(&address) };
            let found: Vec<&SeenHost> = hosts.iter().filter(is_meant).collect();
            if found.is_empty() {
                unseen.insert(server.to_string());
            }
            for host in found {
                let is_unique = |address: &&IpAddr| {
                    !address.is_loopback() && !hosts.iter().any(|other| other.name != host.name && other.addresses.contains(*address))
                };
                let unique = host.addresses.iter().filter(is_unique).copied().collect();
                let place = Place { host: host.name.clone(), unique, port: server.port() };
                if !places.contains(&place) {
                    places.push(place);
                }
            }
        }
        if unseen.is_empty() {
            return Ok(Places { places, hosts, us });
        }
        let unseen: Vec<String> = unseen.into_iter().collect();
        Err(format!("no probe is connected on the host of {}", unseen.join(", ")))
    }

    /// Ports whose connections are to be looked at.
    pub fn ports(&self) -> BTreeSet<u16> {
        self.places.iter().map(|place| place.port).collect()
    }

    /// Whether a flow of `host` leads to one of them. Addresses that several hosts have, such as those of the loopback, mean the flow's own host.
    fn has(&self, host: &str, (address, port): End) -> bool {
        let address = address.to_canonical();
        self.places.iter().any(|place| {
            let its = || self.hosts.iter().any(|seen| seen.name == host && seen.addresses.contains(&address));
            place.port == port && (place.unique.contains(&address) || (place.host == host && (address.is_loopback() || its())))
        })
    }

    /// Those of `flows` that are connections to the servers, ours left out, told once: by the client's host where a probe runs there, else by its
    /// address.
    pub fn holders(&self, flows: &[FlowRow]) -> Vec<Holder> {
        let flows: Vec<&FlowRow> = flows.iter().filter(|flow| flow.active > 0).collect();
        let direct = |flow: &FlowRow| {
            let meant = flow.original_server.as_ref().and_then(|meant| meant.parse::<SocketAddr>().ok());
            self.has(&flow.host, end(flow)) || meant.is_some_and(|meant| self.has(&flow.host, (meant.ip(), meant.port())))
        };
        // A server's process takes connections by addresses that are none of its host's, such as those of a container, too.
        let processes: BTreeSet<(&str, u32)> =
            flows.iter().filter(|flow| is_server(flow) && direct(flow)).filter_map(|flow| Some((flow.host.as_str(), flow.pid?))).collect();
        let taken = |flow: &FlowRow| is_server(flow) && flow.pid.is_some_and(|pid| processes.contains(&(flow.host.as_str(), pid)));
        let ends: BTreeSet<End> =
            flows.iter().filter(|flow| taken(flow) && !flow.server_address.is_loopback()).map(|flow| end(flow)).collect();
        let concerns = |flow: &&&FlowRow| direct(flow) || taken(flow) || (!is_server(flow) && ends.contains(&end(flow)));
        let (servers, clients): (Vec<&FlowRow>, Vec<&FlowRow>) = flows.iter().filter(concerns).copied().partition(|flow| is_server(flow));
        let mut holders: Vec<Holder> = clients.iter().filter(|flow| !self.us.is(flow)).map(|flow| holder(flow, flow.active)).collect();
        holders.extend(self.without_client(&servers, &clients));
        holders.sort();
        holders.dedup();
        holders
    }

    /// Connections that only the server's host sees: their clients' hosts have no probe. Where addresses are translated on the way, the server sees
    /// that of a host which sees the client itself: these are told apart by their number.
    fn without_client(&self, servers: &[&FlowRow], clients: &[&FlowRow]) -> Vec<Holder> {
        let same = |server: &FlowRow, client: &FlowRow| {
            client.client_address == server.client_address
                && client.server_port == server.server_port
                && (client.server_address == server.server_address || client.original_server.is_some() || server.original_server.is_some())
        };
        let (matched, unmatched): (Vec<&FlowRow>, Vec<&FlowRow>) =
            servers.iter().copied().partition(|server| clients.iter().any(|client| same(server, client)));
        let mut left: BTreeMap<&str, u64> = BTreeMap::new();
        for client in clients.iter().filter(|client| !matched.iter().any(|server| same(server, client))) {
            *left.entry(client.host.as_str()).or_default() += client.active;
        }
        let mut holders = Vec::new();
        for server in unmatched {
            let address = server.client_address.to_canonical();
            let mut unexplained = server.active;
            for host in self.hosts.iter().filter(|host| host.addresses.contains(&address)) {
                if let Some(left) = left.get_mut(host.name.as_str()) {
                    let explained = unexplained.min(*left);
                    *left -= explained;
                    unexplained -= explained;
                }
            }
            if unexplained > 0 {
                holders.push(holder(server, unexplained));
            }
        }
        holders
    }
}

impl Us {
    fn of_this_process() -> Us {
        let namespace = std::fs::read_link("/proc/self/ns/pid").ok();
        let is_first = namespace.is_some_and(|namespace| namespace.as_os_str() == FIRST_NAMESPACE);
        let name = std::fs::read_to_string("/proc/self/comm").unwrap_or_default().trim().to_owned();
        Us { pid: is_first.then(std::process::id), name, addresses: BTreeSet::new() }
    }

    /// A number of another host may be the same: the name must fit, too. It may be a whole path, and the kernel keeps 15 bytes of it.
    fn is(&self, flow: &FlowRow) -> bool {
        let last = flow.process_name.as_deref().and_then(|name| name.rsplit('/').next());
        let fits = |last: &str| !self.name.is_empty() && (last.starts_with(&self.name) || self.name.starts_with(last));
        match self.pid {
            Some(pid) => flow.pid == Some(pid) && last.is_none_or(fits),
            None => last.is_some_and(fits) && self.addresses.contains(&flow.client_address.to_canonical()),
        }
    }
}

fn is_server(flow: &FlowRow) -> bool {
    flow.direction == "server"
}

fn end(flow: &FlowRow) -> End {
    (flow.server_address, flow.server_port)
}

/// The address that this process reaches another one from; nothing is sent.
fn source(to: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { std::net::Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((to, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip().to_canonical())
}

fn holder(flow: &FlowRow, connections: u64) -> Holder {
    let server = SocketAddr::new(flow.server_address, flow.server_port).to_string();
    if is_server(flow) {
        let host = flow.client_address.to_string();
        return Holder { process: "unknown, no probe runs there".to_owned(), host, pid: 0, container: None, server, connections };
    }
    Holder {
        host: flow.host.clone(),
        pid: flow.pid.unwrap_or(0),
        process: flow.process_name.clone().unwrap_or_else(|| "unknown".to_owned()),
        container: flow.container_id.clone(),
        server,
        connections,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(host: &str, direction: &str, (client, server): (&str, &str), active: u64, pid: u32) -> FlowRow {
        FlowRow {
            host: host.to_owned(),
            pid: Some(pid),
            process_name: Some("java".to_owned()),
            container_id: None,
            direction: direction.to_owned(),
            client_address: client.parse().unwrap(),
            server_address: server.parse().unwrap(),
            server_port: 2181,
            original_server: None,
            active,
        }
    }

    fn host(name: &str, addresses: &[&str]) -> SeenHost {
        SeenHost { name: name.to_owned(), addresses: addresses.iter().map(|it| it.parse().unwrap()).collect() }
    }

    fn places(servers: &[&str], hosts: &[SeenHost], us: Us) -> Result<Places, String> {
        let servers: Vec<SocketAddr> = servers.iter().map(|server| server.parse().unwrap()).collect();
        Places::among(&servers, hosts.to_vec(), us, |_| false)
    }

    fn told(places: &Places, flows: &[FlowRow]) -> Vec<String> {
        places.holders(flows).iter().map(Holder::describe).collect()
    }

    /// That nobody is seen is no proof where nobody looks.
    #[test]
    fn a_server_without_a_probe_on_its_host_is_named() {
        let seen = [host("h1", &["10.0.0.1", "fe80::1"]), host("h2", &["10.0.0.2"])];
        let all = |servers: &[&str], hosts: &[SeenHost]| places(servers, hosts, Us::default()).map(|_| ());
        assert_eq!(all(&["10.0.0.1:2181", "10.0.0.2:2181", "127.0.0.1:1"], &seen), Ok(()));
        assert_eq!(
            all(&["10.0.0.1:2181", "10.0.0.2:2181", "10.0.0.2:2182"], &seen[..1]).unwrap_err(),
            "no probe is connected on the host of 10.0.0.2:2181, 10.0.0.2:2182"
        );
        assert!(all(&["127.0.0.1:2181"], &[]).is_err());
    }

    #[test]
    fn holders_are_named_once_and_those_without_a_probe_by_their_address() {
        let flows = [
            flow("h1", "client", ("10.0.0.1", "10.0.0.9"), 2, 7),
            flow("h9", "server", ("10.0.0.1", "10.0.0.9"), 2, 99),
            flow("h9", "server", ("10.0.0.2", "10.0.0.9"), 1, 99),
            flow("h3", "client", ("10.0.0.3", "10.0.0.9"), 0, 8),
        ];
        let hosts = [host("h9", &["10.0.0.9"])];
        let it = places(&["10.0.0.9:2181"], &hosts, Us::default()).unwrap();
        assert_eq!(
            told(&it, &flows),
            [
                "unknown, no probe runs there (pid 0) on 10.0.0.2 to 10.0.0.9:2181, 1 connections",
                "java (pid 7) on h1 to 10.0.0.9:2181, 2 connections"
            ]
        );
        assert!(places(&["10.0.0.9:2182"], &hosts, Us::default()).unwrap().holders(&flows).is_empty());
    }

    /// A server listens on all addresses of its host, and on the loopback, whatever the link was told.
    #[test]
    fn who_takes_another_way_to_the_same_server_is_seen() {
        let hosts = [host("h9", &["10.0.0.9", "192.168.9.9", "172.17.0.1"]), host("h8", &["10.0.0.8", "172.17.0.1"])];
        let it = places(&["10.0.0.9:2181"], &hosts, Us::default()).unwrap();
        let one = |flow: FlowRow| told(&it, std::slice::from_ref(&flow)).len();
        assert_eq!(one(flow("h9", "client", ("127.0.0.1", "127.0.0.1"), 1, 5)), 1, "by its loopback");
        assert_eq!(one(flow("h8", "client", ("127.0.0.1", "127.0.0.1"), 1, 5)), 0, "another host's is another server");
        assert_eq!(one(flow("h7", "client", ("192.168.9.7", "192.168.9.9"), 1, 5)), 1, "by its other network");
        assert_eq!(one(flow("h9", "client", ("172.17.0.1", "172.17.0.1"), 1, 5)), 1);
        assert_eq!(one(flow("h8", "client", ("172.17.0.1", "172.17.0.1"), 1, 5)), 0, "every host has this one");
        assert_eq!(one(flow("h8", "client", ("10.0.0.8", "10.0.0.8"), 1, 5)), 0);
        // A container's server, as it is seen from outside and from its own network.
        let mut mapped = flow("h9", "server", ("10.0.0.7", "172.18.0.2"), 1, 77);
        mapped.original_server = Some("10.0.0.9:2181".to_owned());
        let inside = [flow("h9", "server", ("172.18.0.3", "172.18.0.2"), 1, 77), flow("h9", "client", ("172.18.0.3", "172.18.0.2"), 1, 5)];
        let flows = [vec![mapped], inside.to_vec()].concat();
        let told = told(&it, &flows);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[1].starts_with("java (pid 5) on h9"), "{told:?}");
    }

    /// In a container the number of a process is another one than the probe sees.
    #[test]
    fn our_own_connections_are_left_out_wherever_we_run() {
        let hosts = [host("h9", &["10.0.0.9"]), host("node", &["10.0.0.5"])];
        let own = ["10.244.0.7".parse().unwrap()].into();
        let contained = places(&["10.0.0.9:2181"], &hosts, Us { pid: None, name: "java".to_owned(), addresses: own }).unwrap();
        let ours = flow("node", "client", ("10.244.0.7", "10.0.0.9"), 2, 4_242);
        let translated = flow("h9", "server", ("10.0.0.5", "10.0.0.9"), 2, 99);
        assert_eq!(told(&contained, &[ours.clone(), translated.clone()]), [""; 0], "its node's address stands for it");
        let more = FlowRow { active: 3, ..translated };
        assert_eq!(
            told(&contained, &[ours.clone(), more]),
            ["unknown, no probe runs there (pid 0) on 10.0.0.5 to 10.0.0.9:2181, 1 connections"],
            "somebody whom the node forwards for"
        );
        assert_eq!(told(&contained, &[flow("node", "client", ("10.244.0.8", "10.0.0.9"), 1, 4_242)]).len(), 1, "another container");
        let known = places(&["10.0.0.9:2181"], &hosts, Us { pid: Some(4_242), name: "java".to_owned(), ..Us::default() }).unwrap();
        assert_eq!(told(&known, std::slice::from_ref(&ours)), [""; 0]);
        assert_eq!(told(&known, &[FlowRow { pid: Some(4_243), ..ours }]).len(), 1, "a second one on the same host");
    }
}
