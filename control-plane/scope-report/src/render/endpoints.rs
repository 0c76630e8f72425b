//! Endpoints carry all connections. They become what a view shows, or what stands for the outside.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::Drawing;
use super::graph::{Drawn, Graph, INTERNET_IN, INTERNET_OUT, Join, PSEUDO, SERVICE, Take};
use crate::model::Kind;
use crate::text::{Text, endpoint_parts, is_known_service};

impl Drawing {
    /// Puts each endpoint under the node of `kind` that `place` names. What has no place vanishes with its edges.
    pub(super) fn map_endpoints(&self, kind: Kind, place: impl Fn(&Text, &Drawn) -> Option<Text>) -> Graph {
        let endpoints = Graph::table(&self.report.table(Kind::Endpoint).nodes);
        let mut join = Join::starting(Graph::table(&self.report.table(kind).nodes));
        for (id, endpoint) in &endpoints.nodes {
            if endpoint.value("host_node_id").is_none() {
                if self.joints.nodes.contains_key(id) {
                    join.ours(endpoint);
                    continue;
                }
                if let Some(outside) = self.outside(id, endpoint) {
                    join.child(endpoint, &outside, PSEUDO, Take::Alone);
                    continue;
                }
            }
            if let Some(place) = place(id, endpoint) {
                join.child(endpoint, &place, kind.name(), Take::Alone);
            }
        }
        join.result(&endpoints)
    }

    /// The known service or the side of the Internet that an endpoint without a host belongs to.
    fn outside(&self, id: &Text, endpoint: &Drawn) -> Option<Text> {
        let (_, address, _) = endpoint_parts(id)?;
        // First, because such services may have addresses of local networks.
        if let Some(name) = self.names(address).find(|name| is_known_service(name)) {
            return Some(format!("{SERVICE}{name}").into());
        }
        let address: IpAddr = address.parse().ok().filter(IpAddr::is_ipv4)?;
        let is_local = self.networks.contains(address) || self.joints.local.contains(id);
        (!is_local).then(|| if endpoint.adjacency.is_empty() { INTERNET_OUT.into() } else { INTERNET_IN.into() })
    }

    /// Names of an address: first those that led to it.
    pub(super) fn names(&self, address: &str) -> impl Iterator<Item = &Text> {
        self.report.dns.get(address).into_iter().flat_map(|names| names.forward.iter().chain(&names.reverse))
    }

    /// Processes, connected by their endpoints.
    pub(super) fn processes(&self) -> Arc<Graph> {
        self.processes
            .get_or_init(|| {
                if self.report.table(Kind::Process).nodes.is_empty() {
                    return Arc::default();
                }
                let graph = self.map_endpoints(Kind::Process, |_, endpoint| {
                    let pid = endpoint.value("pid")?;
                    let host = endpoint.host();
                    // A source port that was used again may belong to another process than the one that was seen with it.
                    (!host.is_empty() && !self.leads_to_several(endpoint)).then(|| format!("{host};{pid}").into())
                });
                Arc::new(graph)
            })
            .clone()
    }

    /// Whether the edges of an endpoint lead to different places, once translation is undone.
    fn leads_to_several(&self, endpoint: &Drawn) -> bool {
        if endpoint.adjacency.len() < 2 {
            return false;
        }
        let endpoints = &self.report.table(Kind::Endpoint).nodes;
        let real: BTreeSet<&Text> =
            endpoint.adjacency.iter().map(|id| endpoints.get(id).and_then(|node| node.value("copy_of")).unwrap_or(id)).collect();
        real.len() > 1
    }
}
