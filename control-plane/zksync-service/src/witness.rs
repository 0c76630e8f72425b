//! Who still talks to the old ensemble: asked from those who see connections in the kernel.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use access::Access;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Somebody who sees connections.
pub trait Witness: Send + Sync + std::fmt::Debug {
    /// Everybody who holds a connection to one of these addresses right now.
    fn holders(&self, servers: Vec<SocketAddr>) -> BoxFuture<'_, Result<Vec<Holder>, String>>;
}

/// A process that holds connections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Holder {
    /// Its host.
    pub host: String,
    /// The process; 0 when only its address is known, because no probe runs there.
    pub pid: u32,
    /// Its name, or its address.
    pub process: String,
    /// Its container.
    pub container: Option<String>,
    /// The server that it is connected to.
    pub server: String,
    /// How many connections.
    pub connections: u64,
}

impl Holder {
    /// For people.
    pub fn describe(&self) -> String {
        let container = self.container.as_deref().map(|id| format!(" in container {}", id.get(..12).unwrap_or(id))).unwrap_or_default();
        format!("{} (pid {}{container}) on {} to {}, {} connections", self.process, self.pid, self.host, self.server, self.connections)
    }
}

/// The control plane of another process, over HTTP.
#[derive(Clone, Debug)]
pub struct HttpWitness {
    url: String,
    access: Access,
}

impl HttpWitness {
    /// `http://host:port` or `https://host:port`.
    pub fn at(url: &str, access: Access) -> HttpWitness {
        HttpWitness { url: url.trim_end_matches('/').to_owned(), access }
    }
}

/// Whether every one of `servers` is on a host whose probe is connected, which sees all that is connected to it: `seen` has the addresses of these
/// hosts. That nobody is seen says nothing about a server that nobody looks at.
///
/// # Errors
/// When it is not: with the servers that nobody looks at.
pub fn all_seen(servers: &[SocketAddr], seen: &BTreeSet<IpAddr>) -> Result<(), String> {
    // Every host has these: which one is meant, no address tells.
    let is_seen =
        |server: &&SocketAddr| if server.ip().is_loopback() { !seen.is_empty() } else { seen.contains(&server.ip().to_canonical()) };
    let unseen: BTreeSet<String> = servers.iter().filter(|server| !is_seen(server)).map(ToString::to_string).collect();
    if unseen.is_empty() {
        return Ok(());
    }
    let unseen: Vec<String> = unseen.into_iter().collect();
    Err(format!("no probe is connected on the host of {}", unseen.join(", ")))
}

#[derive(Deserialize)]
struct ProbePage {
    probes: Vec<ProbeRow>,
}

#[derive(Deserialize)]
struct ProbeRow {
    id: String,
    connected: bool,
}

#[derive(Deserialize)]
struct HostPage {
    hosts: Vec<HostRow>,
}

#[derive(Deserialize)]
struct HostRow {
    probe: String,
    addresses: Vec<IpAddr>,
}

#[derive(Deserialize)]
struct FlowPage {
    flows: Vec<FlowRow>,
    next: Option<u64>,
}

/// A flow, as far as it matters here; the names are those of `/api/v1/flows`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowRow {
    /// Host that saw it.
    pub host: String,
    /// Who holds this end.
    pub pid: Option<u32>,
    /// Its name.
    pub process_name: Option<String>,
    /// Its container.
    pub container_id: Option<String>,
    /// `client` or `server`.
    pub direction: String,
    /// Address of the end that opened.
    pub client_address: std::net::IpAddr,
    /// Address of the end that accepted.
    pub server_address: std::net::IpAddr,
    /// Port of the service.
    pub server_port: u16,
    /// Where the client meant to go.
    pub original_server: Option<String>,
    /// Connections open now.
    pub active: u64,
}

/// Those of `flows` that are connections to `servers`, told once: by the client's host where a probe runs there, else by its address.
pub fn holders_in(flows: &[FlowRow], servers: &[SocketAddr]) -> Vec<Holder> {
    let concerns = |flow: &FlowRow| {
        let direct = SocketAddr::new(flow.server_address, flow.server_port);
        let meant = flow.original_server.as_ref().and_then(|meant| meant.parse::<SocketAddr>().ok());
        servers.iter().any(|server| *server == direct || Some(*server) == meant)
    };
    let open: Vec<&FlowRow> = flows.iter().filter(|flow| flow.active > 0 && concerns(flow)).collect();
    let clients: Vec<&&FlowRow> = open.iter().filter(|flow| flow.direction == "client").collect();
    let own = std::process::id();
    // A pid of another host may be the same: the name must fit, too. It may be a whole path, and the kernel keeps 15 bytes of it.
    let name = own_name();
    let is_us = |flow: &FlowRow| {
        let last = flow.process_name.as_deref().and_then(|name| name.rsplit('/').next());
        flow.pid == Some(own) && last.is_none_or(|last| last.starts_with(&name) || name.starts_with(last))
    };
    let mut holders: Vec<Holder> = clients.iter().filter(|flow| !is_us(flow)).map(|flow| holder(flow, false)).collect();
    // A connection that only the server's host sees: its client's host has no probe.
    let unseen = |flow: &&&FlowRow| {
        flow.direction == "server"
            && !clients.iter().any(|client| {
                client.client_address == flow.client_address
                    && client.server_port == flow.server_port
                    && client.server_address == flow.server_address
            })
    };
    holders.extend(open.iter().filter(unseen).map(|flow| holder(flow, true)));
    holders.sort();
    holders.dedup();
    holders
}

fn holder(flow: &FlowRow, only_server: bool) -> Holder {
    let server = SocketAddr::new(flow.server_address, flow.server_port).to_string();
    if only_server {
        let host = flow.client_address.to_string();
        return Holder {
            process: "unknown, no probe runs there".to_owned(),
            host,
            pid: 0,
            container: None,
            server,
            connections: flow.active,
        };
    }
    Holder {
        host: flow.host.clone(),
        pid: flow.pid.unwrap_or(0),
        process: flow.process_name.clone().unwrap_or_else(|| "unknown".to_owned()),
        container: flow.container_id.clone(),
        server,
        connections: flow.active,
    }
}

/// The name that the kernel has for this process: at most 15 bytes of the program's.
fn own_name() -> String {
    std::fs::read_to_string("/proc/self/comm").unwrap_or_default().trim().to_owned()
}

struct Asked<'a> {
    url: &'a str,
    access: &'a Access,
}

/// What the control plane with the map has answered.
struct Answer {
    response: http::Response<ureq::Body>,
    url: String,
}

fn failed(url: &str, error: &ureq::Error) -> String {
    format!("asking {url} for connections: {error}")
}

impl Asked<'_> {
    fn get(&self, path: &str) -> Result<Answer, String> {
        let request = self.access.agent().get(format!("{}{path}", self.url));
        let response = self.access.authorized(request).call().map_err(|error| failed(self.url, &error))?;
        if !response.status().is_success() {
            return Err(failed(self.url, &ureq::Error::StatusCode(response.status().as_u16())));
        }
        Ok(Answer { response, url: self.url.to_owned() })
    }
}

impl Answer {
    fn read<T: serde::de::DeserializeOwned>(mut self) -> Result<T, String> {
        let limit = 256 * 1024 * 1024;
        self.response.body_mut().with_config().limit(limit).read_json().map_err(|error| failed(&self.url, &error))
    }
}

impl Witness for HttpWitness {
    fn holders(&self, servers: Vec<SocketAddr>) -> BoxFuture<'_, Result<Vec<Holder>, String>> {
        let (url, access) = (self.url.clone(), self.access.clone());
        Box::pin(async move {
            let asked = tokio::task::spawn_blocking(move || -> Result<Vec<Holder>, String> {
                let ask = |path: &str| Asked { url: &url, access: &access }.get(path);
                let probes: ProbePage = ask("/api/v1/probes")?.read()?;
                let hosts: HostPage = ask("/api/v1/hosts")?.read()?;
                let connected: BTreeSet<String> = probes.probes.into_iter().filter(|probe| probe.connected).map(|probe| probe.id).collect();
                let seen = hosts.hosts.into_iter().filter(|host| connected.contains(&host.probe)).flat_map(|host| host.addresses);
                all_seen(&servers, &seen.collect())?;
                let mut flows = Vec::new();
                let ports: BTreeSet<u16> = servers.iter().map(SocketAddr::port).collect();
                for port in ports {
                    let mut after = 0;
                    loop {
                        let page: FlowPage = ask(&format!("/api/v1/flows?port={port}&limit=10000&after={after}"))?.read()?;
                        flows.extend(page.flows);
                        match page.next {
                            Some(next) => after = next,
                            None => break,
                        }
                    }
                }
                Ok(holders_in(&flows, &servers))
            });
            asked.await.map_err(|error| error.to_string())?
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(direction: &str, client: &str, active: u64, pid: Option<u32>) -> FlowRow {
        FlowRow {
            host: "h1".to_owned(),
            pid,
            process_name: pid.map(|_| "java".to_owned()),
            container_id: None,
            direction: direction.to_owned(),
            client_address: client.parse().unwrap(),
            server_address: "10.0.0.9".parse().unwrap(),
            server_port: 2181,
            original_server: None,
            active,
        }
    }

    /// That nobody is seen is no proof where nobody looks.
    #[test]
    fn a_server_without_a_probe_on_its_host_is_named() {
        let seen = |addresses: &[&str]| addresses.iter().map(|address| address.parse().unwrap()).collect();
        let servers = ["10.0.0.1:2181", "10.0.0.2:2181", "10.0.0.2:2182"].map(|server| server.parse().unwrap());
        assert_eq!(all_seen(&servers, &seen(&["10.0.0.2", "10.0.0.1", "fe80::1"])), Ok(()));
        assert_eq!(
            all_seen(&servers, &seen(&["10.0.0.1", "10.0.0.3"])).unwrap_err(),
            "no probe is connected on the host of 10.0.0.2:2181, 10.0.0.2:2182"
        );
        assert!(all_seen(&["127.0.0.1:2181".parse().unwrap()], &seen(&[])).is_err());
    }

    #[test]
    fn holders_are_named_once_and_those_without_a_probe_by_their_address() {
        let flows = [
            flow("client", "10.0.0.1", 2, Some(7)),
            flow("server", "10.0.0.1", 2, Some(99)),
            flow("server", "10.0.0.2", 1, Some(99)),
            flow("client", "10.0.0.3", 0, Some(8)),
        ];
        let servers = ["10.0.0.9:2181".parse().unwrap()];
        let told: Vec<String> = holders_in(&flows, &servers).iter().map(Holder::describe).collect();
        assert_eq!(
            told,
            [
                "unknown, no probe runs there (pid 0) on 10.0.0.2 to 10.0.0.9:2181, 1 connections",
                "java (pid 7) on h1 to 10.0.0.9:2181, 2 connections"
            ]
        );
        assert!(holders_in(&flows, &["10.0.0.9:2182".parse().unwrap()]).is_empty());
    }
}
