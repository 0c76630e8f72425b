//! Who still talks to the old ensemble: asked from those who see connections in the kernel.

mod places;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use access::Access;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use places::{Places, SeenHost};

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
    name: String,
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
                let seen = hosts.hosts.into_iter().filter(|host| connected.contains(&host.probe));
                let seen = seen.map(|host| SeenHost { name: host.name, addresses: host.addresses.into_iter().collect() });
                let places = Places::of(&servers, seen.collect())?;
                let mut flows = Vec::new();
                for port in places.ports() {
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
                Ok(places.holders(&flows))
            });
            asked.await.map_err(|error| error.to_string())?
        })
    }
}
