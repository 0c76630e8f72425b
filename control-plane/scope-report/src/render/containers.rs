//! Containers: known by their processes, and by their addresses where no process is known.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::Drawing;
use super::graph::{Drawn, Graph, Join, PSEUDO, Take, UNCONTAINED};
use crate::model::{Kind, Latest};
use crate::text::{Text, endpoint_parts, image_without_tag, untagged};

/// What a container shows of its image.
const OF_IMAGE: [&str; 5] =
    ["docker_image_name", "docker_image_tag", "docker_image_size", "docker_image_virtual_size", "docker_image_label_works.weave.role"];

impl Drawing {
    /// Containers with the edges of their processes, and with those of their addresses.
    pub(super) fn containers(&self) -> Arc<Graph> {
        self.containers
            .get_or_init(|| {
                let by_process = by_process(&self.processes());
                let by_address = self.join_addresses(Kind::Container, container_keys);
                let all = by_process.union(by_address);
                Arc::new(all.filter_real(|node| node.value("docker_container_state").is_none_or(|state| &**state != "deleted")))
            })
            .clone()
    }

    /// The same, with the names of their images in them.
    pub(super) fn named_containers(&self) -> Arc<Graph> {
        self.named_containers
            .get_or_init(|| {
                let mut graph = Graph::clone(&self.containers());
                let images = &self.report.table(Kind::ContainerImage).nodes;
                for node in graph.nodes.values_mut() {
                    let image = node.value("docker_image_id").and_then(|id| images.get(&*format!("{id};<container_image>")));
                    let Some((image, name)) = image.and_then(|image| Some((image, image.value("docker_image_name")?))) else { continue };
                    let group: Text = format!("{};<container_image>", image_without_tag(name)).into();
                    let facts = Arc::make_mut(&mut Arc::make_mut(node).facts);
                    for (key, latest) in OF_IMAGE.iter().filter_map(|key| image.latest.get_key_value(*key)) {
                        let known: Option<&Latest> = facts.latest.get(key);
                        if known.is_none_or(|known| known.at < latest.at) {
                            facts.latest.insert(key.clone(), latest.clone());
                        }
                    }
                    facts.parents.insert(Kind::ContainerImage.name().into(), [group].into());
                }
                Arc::new(graph)
            })
            .clone()
    }

    /// Containers grouped by their image, and versions of an image by its name.
    pub(super) fn images(&self) -> Arc<Graph> {
        self.images
            .get_or_init(|| {
                let containers = self.named_containers();
                let mut by_id = Join::starting(Graph::table(&self.report.table(Kind::ContainerImage).nodes));
                for node in containers.nodes.values() {
                    if node.passes() {
                        by_id.pass(node);
                    } else if let Some(id) = node.value("docker_image_id") {
                        let id: Text = format!("{id};<container_image>").into();
                        by_id.child(node, &id, Kind::ContainerImage.name(), Take::WithChildren);
                    }
                }
                let by_id = by_id.result(&containers);
                let mut by_name = Join::default();
                for (id, node) in &by_id.nodes {
                    if node.passes() {
                        by_name.pass(node);
                    } else if let Some(name) = node.value("docker_image_name") {
                        let group = format!("{};<container_image>", image_without_tag(name)).into();
                        by_name.becomes(id, Drawn { id: group, ..Drawn::clone(node) });
                    }
                }
                Arc::new(by_name.result(&by_id).filter_real(has_container))
            })
            .clone()
    }

    /// Containers grouped by the name that they have inside.
    pub(super) fn hostnames(&self) -> Graph {
        let containers = self.named_containers();
        let mut join = Join::default();
        for node in containers.nodes.values() {
            if node.passes() {
                join.pass(node);
            } else if let Some(name) = node.value("docker_container_hostname") {
                join.child(node, name, "group:container:docker_container_hostname", Take::WithChildren);
            }
        }
        join.result(&containers).filter_real(has_container)
    }

    /// Endpoints put under the nodes of a kind that have their address. An address that two of them have tells nothing.
    pub(super) fn join_addresses(&self, kind: Kind, keys: impl Fn(&Drawn, &mut dyn FnMut(String))) -> Graph {
        let mut holders: BTreeMap<String, Option<Text>> = BTreeMap::new();
        for (id, row) in &self.report.table(kind).nodes {
            keys(&Drawn::row(id, row), &mut |key| {
                holders.entry(key).and_modify(|holder| *holder = None).or_insert_with(|| Some(id.clone()));
            });
        }
        self.map_endpoints(kind, |id, _| {
            let (scope, address, port) = endpoint_parts(id)?;
            // A port of a host that is mapped to a container is told apart only with its number.
            let holder = holders.get(&format!("{scope};{address};")).or_else(|| holders.get(&format!("{scope};{address};{port}")));
            holder.cloned().flatten()
        })
    }
}

fn has_container(node: &Drawn) -> bool {
    node.children.values().any(|child| child.is(Kind::Container))
}

/// Processes become the containers that they run in, or what stands for all outside of them on a host.
fn by_process(processes: &Graph) -> Graph {
    let mut join = Join::default();
    for (id, node) in &processes.nodes {
        if node.passes() {
            join.pass(node);
            continue;
        }
        let (place, topology) = match node.value("docker_container_id") {
            Some(container) => (format!("{container};<container>"), Kind::Container.name()),
            None => (format!("{UNCONTAINED}{}", id.split_once(';').map_or("", |(host, _)| host)), PSEUDO),
        };
        let mut derived = Drawn::new(place.into(), topology.into());
        derived.children = node.children.clone();
        derived.children.insert(id.clone(), node.clone());
        join.becomes(id, derived);
    }
    join.result(processes)
}

/// What tells that an endpoint belongs to a container: its addresses, and ports of its host that lead to it.
fn container_keys(node: &Drawn, out: &mut dyn FnMut(String)) {
    // In the network of the host, an address may be anybody's.
    if node.value("does_not_make_connections").is_some() || node.value("docker_is_in_host_network").is_some() {
        return;
    }
    for scoped in node.facts.sets.get("docker_container_ips_with_scopes").into_iter().flatten() {
        let Some((scope, address)) = scoped.split_once(';') else { continue };
        // Every network namespace has its own loopback.
        if !address.parse().is_ok_and(|address: IpAddr| address.is_loopback()) {
            out(format!("{scope};{address};"));
        }
    }
    for mapping in node.facts.sets.get("docker_container_ports").into_iter().flatten() {
        // `ip:hostport->port/tcp`
        let published = mapping.strip_suffix("/tcp").and_then(|mapping| mapping.split_once("->"));
        let Some((address, port)) = published.and_then(|(host, _)| host.split_once(':')) else { continue };
        if address.parse::<std::net::Ipv4Addr>().is_ok() && port.parse::<u16>().is_ok() {
            out(format!(";{address};{port}"));
        }
    }
}

/// The container's own id.
pub(super) fn container_id(node_id: &str) -> &str {
    untagged(node_id, "container").unwrap_or_default()
}
