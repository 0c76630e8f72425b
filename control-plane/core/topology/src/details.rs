//! A node's panel: its children, and its connections one neighbour and port at a time.

use std::collections::BTreeSet;
use std::net::IpAddr;

use base::Timestamp;

use crate::index::{ContainerIndex, Entity, FlowIndex, ObjectIndex, ProcessIndex};
use crate::node::{ChildGroup, Column, Details, NodeId, NodeSummary};
use crate::picture::{self, Scene};
use crate::projection::PROJECTED;
use crate::summary::{self, INTERNET_IN, INTERNET_OUT};
use crate::topology::Topology;
use crate::view::{Filter, View, ViewKey};

mod connections;
pub(crate) mod controls;
mod facts;

const CONTAINER_COLUMNS: &[Column] = &[number_column("docker_cpu_total_usage", "CPU"), number_column("docker_memory_usage", "Memory")];
const PROCESS_COLUMNS: &[Column] = &[
    number_column("pid", "PID"),
    number_column("process_cpu_usage_percent", "CPU"),
    number_column("process_memory_usage_bytes", "Memory"),
];

const POD_COLUMNS: &[Column] = &[
    Column { id: "kubernetes_state", label: "State", default_sort: false, data_type: "" },
    number_column("container", "# Containers"),
    Column { id: "kubernetes_ip", label: "IP", default_sort: false, data_type: "ip" },
];

const fn number_column(id: &'static str, label: &'static str) -> Column {
    Column { id, label, default_sort: false, data_type: "number" }
}

/// The panel of `node` in the view of `key`.
pub(crate) fn details(map: &Topology, now: Timestamp, key: ViewKey, node: &NodeId) -> Option<Details> {
    let projection = map.projection(key.view)?;
    let entity = find(map, key.view, node.as_str())?;
    if !projection.exists(entity) || (entity.is_pseudo() && !projection.is_connected(entity)) {
        return None;
    }
    let scene = Scene { tables: &map.tables, projection, now };
    let mut summary = summary::summarize(&map.tables, entity, key.filter, now)?;
    summary.adjacency = adjacency(scene, key, entity);
    with_samples(map, entity, &mut summary);
    facts::add(map, entity, &mut summary);
    let (incoming, outgoing) = connections::connections(map, scene, key, entity);
    let shows_remote = matches!(entity, Entity::InternetIn | Entity::InternetOut);
    let controls = controls::controls(map, entity);
    let children = children(map, entity, key.filter, now);
    Some(Details { summary, controls, children, incoming, outgoing, shows_remote })
}

fn adjacency(scene: Scene<'_>, key: ViewKey, entity: Entity) -> Vec<NodeId> {
    let Some(ends) = scene.projection.ends(entity) else { return Vec::new() };
    let targets = ends.outgoing.keys().filter(|&&target| target == entity || picture::passes(scene, key, target));
    let mut targets: Vec<NodeId> = targets.filter_map(|&target| summary::node_id(scene.tables, target)).collect();
    targets.sort();
    targets
}

/// The node that a view shows under an id.
pub(crate) fn find(map: &Topology, view: View, id: &str) -> Option<Entity> {
    let tables = &map.tables;
    match id {
        INTERNET_IN => return Some(Entity::InternetIn),
        INTERNET_OUT => return Some(Entity::InternetOut),
        _ => {}
    }
    if let Some(external) = id.strip_prefix("service-").and_then(|name| tables.externals.find(name)) {
        return Some(Entity::External(external));
    }
    if let Some(host) = id.strip_prefix("pseudo:uncontained:") {
        return tables.host_names.get(host).map(|&host| Entity::Uncontained(host));
    }
    if let Some(host) = id.strip_prefix(summary::UNTASKED) {
        return tables.host_names.get(host).map(|&host| Entity::Untasked(host));
    }
    match view {
        View::Tasks => tables.tasks.find(id.strip_suffix(crate::tasks::SUFFIX)?).map(Entity::Task),
        View::Processes => {
            let (host, pid) = id.rsplit_once(';')?;
            let host = tables.hosts.get(*tables.host_names.get(host)?)?;
            host.by_pid.get(&pid.parse().ok()?).map(|&process| Entity::Process(process))
        }
        View::ProcessesByName => tables.names.find(id).map(Entity::Name),
        View::Containers => tables.container_ids.get(id.strip_suffix(";<container>")?).map(|&it| Entity::Container(it)),
        View::ContainersByHostname => tables.hostnames.find(id).map(Entity::Hostname),
        View::ContainersByImage => tables.images.find(id.strip_suffix(";<container_image>")?).map(Entity::Image),
        View::Pods | View::KubeControllers | View::Services => tables.kubernetes.find(tables, id),
        View::Hosts => tables.host_names.get(id.strip_suffix(";<host>")?).map(|&host| Entity::Host(host)),
        _ => None,
    }
}

fn with_samples(map: &Topology, entity: Entity, summary: &mut NodeSummary) {
    summary.metrics = match entity {
        Entity::Host(host) => summary::host_metrics(&map.tables.hosts[host], true),
        Entity::Container(container) => summary::container_metrics(&map.tables, container, true),
        Entity::Task(task) => crate::tasks::metrics(&map.tables, task),
        Entity::Object(object) => crate::kubernetes::metrics(&map.tables, object, true),
        Entity::Process(process) => {
            let row = &map.tables.processes[process];
            summary::process_metrics(row, map.tables.hosts[row.host].record.cpu_count, true)
        }
        _ => return,
    };
}

/// What a node consists of.
#[derive(Default)]
pub(crate) struct Members {
    pub(crate) pods: BTreeSet<ObjectIndex>,
    pub(crate) processes: BTreeSet<ProcessIndex>,
    pub(crate) containers: BTreeSet<ContainerIndex>,
    images: BTreeSet<Entity>,
}

fn members(map: &Topology, entity: Entity) -> Members {
    let tables = &map.tables;
    let mut members = Members::default();
    match entity {
        Entity::InternetIn | Entity::InternetOut | Entity::External(_) => {}
        Entity::Object(object) => crate::kubernetes::members(tables, object, &mut members),
        Entity::Unmanaged(host) => {
            let outside =
                |process: &ProcessIndex| tables.processes[*process].container.is_none_or(|it| !tables.kubernetes.is_managed(tables, it));
            members.processes.extend(tables.hosts[host].processes.values().copied().filter(outside));
            let containers = tables.hosts[host].containers.iter().copied();
            members.containers.extend(containers.filter(|&it| !tables.kubernetes.is_managed(tables, it)));
        }
        Entity::Untasked(host) => {
            let has_task = |it: ContainerIndex| tables.containers[it].task.is_some();
            let outside = |process: &ProcessIndex| !tables.processes[*process].container.is_some_and(has_task);
            members.processes.extend(tables.hosts[host].processes.values().copied().filter(outside));
            members.containers.extend(tables.hosts[host].containers.iter().copied().filter(|&it| !has_task(it)));
        }
        Entity::Task(group) => members.containers.extend(tables.tasks.get(group).into_iter().flat_map(|row| row.members.iter())),
        Entity::Process(process) => members.processes.extend([process]),
        Entity::Name(group) => members.processes.extend(tables.names.get(group).into_iter().flat_map(|row| row.members.iter())),
        Entity::Container(container) => members.containers.extend([container]),
        Entity::Image(group) => members.containers.extend(tables.images.get(group).into_iter().flat_map(|row| row.members.iter())),
        Entity::Hostname(group) => members.containers.extend(tables.hostnames.get(group).into_iter().flat_map(|row| row.members.iter())),
        Entity::Uncontained(host) => {
            let processes = tables.hosts[host].processes.values().copied();
            members.processes.extend(processes.filter(|&process| tables.processes[process].container.is_none()));
        }
        Entity::Host(host) => {
            members.processes.extend(tables.hosts[host].processes.values());
            members.containers.extend(tables.hosts[host].containers.iter());
            members.pods.extend(members.containers.iter().filter_map(|&it| tables.kubernetes.pod_of(tables, it)));
            let images = members.containers.iter().filter_map(|&container| tables.containers[container].image);
            members.images.extend(images.map(Entity::Image));
        }
    }
    for &container in &members.containers {
        members.processes.extend(tables.containers[container].processes.iter());
    }
    members
}

fn children(map: &Topology, entity: Entity, filter: Filter, now: Timestamp) -> Vec<ChildGroup> {
    let mut members = members(map, entity);
    let (mut volumes, mut claims) = (BTreeSet::new(), BTreeSet::new());
    if let Entity::Object(object) = entity {
        // Of the others there may still be connections, and so they are members all the same.
        let works = |container: ContainerIndex| crate::kubernetes::works(&map.tables, container);
        members.containers.retain(|&container| works(container));
        members.processes.retain(|&process| map.tables.processes[process].container.is_some_and(works));
        (volumes, claims) = crate::kubernetes::volumes_below(map, object, &members.pods);
    }
    let draw = |entities: &mut dyn Iterator<Item = Entity>| {
        let mut nodes: Vec<NodeSummary> = entities.filter_map(|entity| summary::summarize(&map.tables, entity, filter, now)).collect();
        nodes.sort_by(|a, b| a.id.cmp(&b.id));
        nodes
    };
    let own = |child: Entity| child != entity;
    let groups = [
        ("Pods", View::Pods, POD_COLUMNS, draw(&mut members.pods.iter().map(|&it| Entity::Object(it)).filter(|&it| own(it)))),
        (
            "Containers",
            View::Containers,
            CONTAINER_COLUMNS,
            draw(&mut members.containers.iter().map(|&it| Entity::Container(it)).filter(|&it| own(it))),
        ),
        (
            "Processes",
            View::Processes,
            PROCESS_COLUMNS,
            draw(&mut members.processes.iter().map(|&it| Entity::Process(it)).filter(|&it| own(it))),
        ),
        ("Container images", View::ContainersByImage, &[][..], draw(&mut members.images.iter().copied())),
        ("Persistent Volumes", View::Pods, &[][..], draw(&mut volumes.into_iter())),
        ("Persistent Volume Claims", View::Pods, &[][..], draw(&mut claims.into_iter())),
    ];
    let groups = groups.into_iter().filter(|(.., nodes)| !nodes.is_empty());
    groups.map(|(label, view, columns, nodes)| ChildGroup { label, topology_id: view.id(), columns, nodes }).collect()
}

/// All flows that a node holds, and those that lead to one of its addresses; more than those of its edges, never fewer.
fn flows_of(map: &Topology, view: View, entity: Entity) -> BTreeSet<FlowIndex> {
    let tables = &map.tables;
    let mut flows = BTreeSet::new();
    let mut addresses: BTreeSet<IpAddr> = BTreeSet::new();
    match entity {
        Entity::Host(host) => {
            flows.extend(tables.hosts[host].flows.iter());
            addresses.extend(tables.hosts[host].record.addresses.iter());
        }
        Entity::InternetIn | Entity::InternetOut => {
            // Its neighbours may have many flows that lead elsewhere.
            let is_here = |&(place, from, to): &(u8, Entity, Entity)| {
                PROJECTED.get(usize::from(place)) == Some(&view) && (from == entity || to == entity)
            };
            let channels = map.flows.channels.iter().filter(|(_, row)| row.edges.iter().any(is_here));
            return channels.flat_map(|(_, row)| row.clients.iter().chain(&row.servers).copied()).collect();
        }
        Entity::External(group) => {
            let channels = tables.externals.get(group).into_iter().flat_map(|row| row.members.iter());
            let channels = channels.filter_map(|&channel| map.flows.channels.get(channel));
            return channels.flat_map(|row| row.clients.iter().chain(&row.servers).copied()).collect();
        }
        Entity::Object(object) => addresses.extend(crate::kubernetes::addresses_of(tables, object)),
        _ => {}
    }
    let members = members(map, entity);
    flows.extend(members.processes.iter().flat_map(|&process| tables.processes[process].flows.iter()));
    addresses.extend(members.pods.iter().flat_map(|&pod| crate::kubernetes::addresses_of(tables, pod)));
    for &container in &members.containers {
        let row = &tables.containers[container];
        flows.extend(row.flows.iter());
        let Some(record) = &row.record else { continue };
        addresses.extend(record.addresses.iter());
        if !record.ports.is_empty() {
            // A published port is reached at the addresses of its host.
            addresses.extend(tables.hosts[row.host].record.addresses.iter());
        }
    }
    flows.extend(addresses.into_iter().flat_map(|address| map.flows.open_at(address)));
    flows
}
