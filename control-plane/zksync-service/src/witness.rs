//! Who still talks to the old ensemble: asked from those who see connections in the kernel.

use std::net::SocketAddr;

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

impl Witness for HttpWitness {
    fn holders(&self, servers: Vec<SocketAddr>) -> BoxFuture<'_, Result<Vec<Holder>, String>> {
        let (url, access) = (self.url.clone(), self.access.clone());
        Box::pin(async move {
            let asked = tokio::task::spawn_blocking(move || -> Result<Vec<Holder>, String> {
                let mut flows = Vec::new();
                let ports: std::collections::BTreeSet<u16> = servers.iter().map(SocketAddr::port).collect();
                for port in ports {
                    let mut after = 0;
                    loop {
                        let request = access.agent().get(format!("{url}/api/v1/flows?port={port}&limit=10000&after={after}"));
                        let failed = |error| format!("asking {url} for connections: {error}");
                        let mut response = access.authorized(request).call().map_err(failed)?;
                        if !response.status().is_success() {
                            return Err(failed(ureq::Error::StatusCode(response.status().as_u16())));
                        }
                        let page: FlowPage = response.body_mut().read_json().map_err(failed)?;
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
