//! Which graph a view shows.

use std::sync::Arc;

use topology::View;

use super::Drawing;
use super::choice::Options;
use super::graph::{Drawn, Graph, Join, PSEUDO, Take, UNMANAGED};
use crate::model::Kind;
use crate::text::Text;

impl Drawing {
    /// The graph of a view, with everything in it.
    pub(super) fn draw(&self, view: View) -> Graph {
        let graph = match view {
            View::Processes => Graph::clone(&self.processes()),
            View::ProcessesByName => names(&self.processes()),
            View::Containers => Graph::clone(&self.named_containers()),
            View::ContainersByHostname => self.hostnames(),
            View::ContainersByImage => Graph::clone(&self.images()),
            View::Pods => Graph::clone(&self.pods()),
            View::KubeControllers => self.controllers(),
            View::Services => self.services(),
            View::EcsTasks => Graph::clone(&self.tasks()),
            View::EcsServices => self.task_services(),
            View::SwarmServices => self.swarm_services(),
            // Scope's probes knew nothing of Mesos.
            View::Tasks => Graph::default(),
            View::Hosts => self.hosts(),
            View::Weave => self.peers(),
        };
        let graph = graph.resolve(view, &self.joints.nodes);
        if matches!(view, View::Processes | View::ProcessesByName) { graph.mark_connected() } else { graph }
    }

    /// What the options of a request leave of a view.
    pub(super) fn chosen(&self, view: View, options: &Options) -> Graph {
        let graph = Graph::clone(&self.graph(view));
        let graph = match &options.choice {
            None => graph,
            Some(choice) => graph.filter(|node| node.is_ours || choice.keeps(view, node)),
        };
        graph.drop_unconnected_pseudo()
    }

    /// Hosts: everything on them is put under them, and their endpoints connect them.
    fn hosts(&self) -> Graph {
        let mut all = on_hosts(&self.processes());
        for graph in [self.containers(), self.images(), self.pods()] {
            all = all.union(on_hosts(&graph));
        }
        let by_endpoint = self.map_endpoints(Kind::Host, |_, endpoint| endpoint.value("host_node_id").cloned());
        all.union(by_endpoint)
    }

    /// Peers of Weave Net. Those without a probe are known from others only.
    fn peers(&self) -> Graph {
        let peers = Graph::table(&self.report.table(Kind::Overlay).nodes);
        let mut join = Join::default();
        for (id, node) in &peers.nodes {
            if !id.starts_with('#') || id.starts_with("#docker_peer_") {
                continue;
            }
            if node.value("host_node_id").is_some() {
                join.pass(node);
                continue;
            }
            let nickname = node.value("weave_peer_nick_name").map_or("", |name| name);
            let mut derived = Drawn::new(format!("{UNMANAGED}{nickname}").into(), PSEUDO.into());
            derived.children.insert(id.clone(), node.clone());
            join.becomes(id, derived);
        }
        join.result(&peers)
    }
}

/// Processes grouped by their names.
fn names(processes: &Arc<Graph>) -> Graph {
    let mut join = Join::default();
    for node in processes.nodes.values() {
        if node.passes() {
            join.pass(node);
        } else if let Some(name) = node.value("name") {
            join.child(node, name, "group:process:name", Take::WithChildren);
        }
    }
    join.result(processes)
}

/// Nodes put under their hosts. What stands for the outside comes from the endpoints alone.
fn on_hosts(graph: &Graph) -> Graph {
    let mut join = Join::default();
    for node in graph.nodes.values().filter(|node| !node.passes()) {
        // The containers of an image may be on several hosts, and its edges belong to none of these.
        let take = if node.is(Kind::ContainerImage) { Take::WithoutEdges } else { Take::Alone };
        let hosts: Vec<Text> = node.parents(Kind::Host).cloned().collect();
        for host in hosts {
            join.child(node, &host, Kind::Host.name(), take);
        }
    }
    join.result(graph)
}
