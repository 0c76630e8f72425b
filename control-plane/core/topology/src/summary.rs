//! Rows, labels and shapes of a node: sections 3.3 to 3.6 of Scope's JSON.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use base::Timestamp;

use crate::index::{ContainerIndex, Entity, HostIndex, ProcessIndex};
use crate::listeners::ListenerRow;
use crate::networks::canonical;
use crate::node::{MetadataRow, NodeId, NodeSummary, Parent, Shape, Table};
use crate::report::{Container, ContainerState, Process};
use crate::tables::{ContainerRow, GroupRow, HostRow, ImageRow, ProcessRow, Tables};
use crate::text::{image_without_tag, join, plural, rfc3339, tag_of};
use crate::view::Filter;

mod metrics;

pub(crate) use metrics::{container_metrics, host_metrics, is_span, process_metrics, value_of};

/// Id of the node for connections from the Internet.
pub(crate) const INTERNET_IN: &str = "in-theinternet";
/// Beginning of the ids of nodes for what is no Mesos task.
pub(crate) const UNTASKED: &str = "pseudo:untasked:";
/// Id of the node for connections to the Internet.
pub(crate) const INTERNET_OUT: &str = "out-theinternet";

/// The node's id, without drawing it.
pub(crate) fn node_id(tables: &Tables, entity: Entity) -> Option<NodeId> {
    match entity {
        Entity::InternetIn => Some(INTERNET_IN.into()),
        Entity::InternetOut => Some(INTERNET_OUT.into()),
        Entity::Host(host) => tables.hosts.get(host).map(|row| row.node_id.clone()),
        Entity::Uncontained(host) => tables.hosts.get(host).map(|row| row.uncontained_id.clone()),
        Entity::Process(process) => tables.processes.get(process).map(|row| row.node_id.clone()),
        Entity::Container(container) => tables.containers.get(container).map(|row| row.node_id.clone()),
        Entity::Name(group) => tables.names.get(group).map(|row| row.node_id.clone()),
        Entity::Image(group) => tables.images.get(group).map(|row| row.node_id.clone()),
        Entity::Task(group) => tables.tasks.get(group).map(|row| row.node_id.clone()),
        Entity::Untasked(host) => tables.hosts.get(host).map(untasked_id),
        Entity::Hostname(group) => tables.hostnames.get(group).map(|row| row.node_id.clone()),
        Entity::Object(object) => tables.kubernetes.rows.get(object).map(|row| row.node_id.clone()),
        Entity::Unmanaged(host) => tables.hosts.get(host).map(|row| row.unmanaged_id.clone()),
        Entity::External(group) => tables.externals.get(group).map(|row| row.node_id.clone()),
    }
}

/// The node without its adjacency; `None` when it is gone.
pub(crate) fn summarize(tables: &Tables, entity: Entity, filter: Filter, now: Timestamp) -> Option<NodeSummary> {
    match entity {
        Entity::InternetIn => Some(internet(INTERNET_IN, "Inbound connections")),
        Entity::InternetOut => Some(internet(INTERNET_OUT, "Outbound connections")),
        Entity::Host(host) => tables.hosts.get(host).map(|row| host_summary(row, now)),
        Entity::Uncontained(host) => tables.hosts.get(host).map(uncontained),
        Entity::Process(process) => process_summary(tables, process, filter),
        Entity::Container(container) => container_summary(tables, container, filter, now),
        Entity::Name(group) => tables.names.get(group).map(|row| NodeSummary {
            label: row.text.clone(),
            label_minor: plural(row.members.len(), "process", "processes"),
            rank: row.text.clone(),
            stack: true,
            ..NodeSummary::blank(row.node_id.clone(), Shape::Square)
        }),
        Entity::Hostname(group) => tables.hostnames.get(group).map(|row| NodeSummary {
            label: row.text.clone(),
            label_minor: plural(row.members.len(), "container", "containers"),
            rank: row.text.clone(),
            stack: true,
            ..NodeSummary::blank(row.node_id.clone(), Shape::Hexagon)
        }),
        Entity::Image(group) => image_summary(tables, group),
        Entity::Task(group) => crate::tasks::summarize(tables, group, now),
        Entity::Untasked(host) => tables.hosts.get(host).map(untasked),
        Entity::Object(object) => crate::kubernetes::summarize(tables, object),
        Entity::Unmanaged(host) => tables.hosts.get(host).map(unmanaged),
        Entity::External(group) => tables.externals.get(group).map(|row| NodeSummary {
            label: row.text.clone(),
            rank: row.node_id.0.clone(),
            pseudo: true,
            ..NodeSummary::blank(row.node_id.clone(), Shape::Cloud)
        }),
    }
}

fn internet(id: &str, label_minor: &str) -> NodeSummary {
    NodeSummary {
        label: "The Internet".into(),
        label_minor: label_minor.into(),
        rank: id.into(),
        pseudo: true,
        ..NodeSummary::blank(id.into(), Shape::Cloud)
    }
}

fn uncontained(host: &HostRow) -> NodeSummary {
    NodeSummary {
        label: "Uncontained".into(),
        label_minor: host.name.clone(),
        rank: format!("uncontained:{}", host.name).into(),
        stack: true,
        pseudo: true,
        ..NodeSummary::blank(host.uncontained_id.clone(), Shape::Square)
    }
}

fn unmanaged(host: &HostRow) -> NodeSummary {
    NodeSummary {
        label: "Unmanaged".into(),
        label_minor: host.name.clone(),
        rank: format!("unmanaged:{}", host.name).into(),
        stack: true,
        pseudo: true,
        ..NodeSummary::blank(host.unmanaged_id.clone(), Shape::Square)
    }
}

fn untasked_id(host: &HostRow) -> NodeId {
    format!("{UNTASKED}{}", host.name).into()
}

fn untasked(host: &HostRow) -> NodeSummary {
    NodeSummary {
        label: "No task".into(),
        label_minor: host.name.clone(),
        rank: format!("untasked:{}", host.name).into(),
        stack: true,
        pseudo: true,
        ..NodeSummary::blank(untasked_id(host), Shape::Square)
    }
}

pub(crate) fn row(
    id: &'static str,
    label: &'static str,
    data_type: &'static str,
    priority: f64,
    value: impl Into<Arc<str>>,
) -> Option<MetadataRow> {
    let value = value.into();
    (!value.is_empty()).then_some(MetadataRow {
        id: id.into(),
        label: label.into(),
        value,
        priority,
        data_type: data_type.into(),
        truncate: 0,
    })
}

/// Text before and after the first dot.
fn host_label(name: &str) -> (&str, &str) {
    name.split_once('.').unwrap_or((name, ""))
}

pub(crate) fn host_parent(tables: &Tables, host: HostIndex) -> Option<Parent> {
    let row = tables.hosts.get(host)?;
    Some(Parent { id: row.node_id.clone(), label: host_label(&row.name).0.into(), topology_id: "hosts" })
}

fn host_summary(host: &HostRow, now: Timestamp) -> NodeSummary {
    let (label, rest) = host_label(&host.name);
    let record = &host.record;
    let networks = record.local_networks.iter().filter(|network| network.address.is_ipv4()).map(|&network| {
        let network = canonical(network);
        format!("{}/{}", network.address, network.prefix_length)
    });
    let uptime = if record.booted_at == Timestamp::EPOCH { String::new() } else { now.since(record.booted_at).as_secs().to_string() };
    let metadata = [
        row("kernel_version", "Kernel version", "", 1.0, record.kernel_version.clone()),
        row("uptime", "Uptime", "duration", 2.0, uptime),
        row("host_name", "Hostname", "", 11.0, host.name.clone()),
        row("os", "OS", "", 12.0, record.os.clone()),
        row("local_networks", "Local networks", "", 13.0, join(networks)),
        row("host_scope_version", "Scope version", "", 14.0, host.probe_version.clone()),
    ];
    NodeSummary {
        label: label.into(),
        label_minor: rest.into(),
        rank: rest.into(),
        metadata: metadata.into_iter().flatten().collect(),
        metrics: host_metrics(host, false),
        ..NodeSummary::blank(host.node_id.clone(), Shape::Circle)
    }
}

fn process_label(process: &ProcessRow) -> Arc<str> {
    if process.record.name.is_empty() { process.record.key.pid.to_string().into() } else { process.record.name.clone() }
}

fn process_summary(tables: &Tables, index: ProcessIndex, filter: Filter) -> Option<NodeSummary> {
    let process = tables.processes.get(index)?;
    let host = tables.hosts.get(process.host)?;
    let record = &process.record;
    let container = process.container.and_then(|container| tables.containers.get(container)).and_then(|row| row.record.as_ref());
    let label_minor = match container.filter(|container| !container.name.is_empty()) {
        Some(container) => format!("{} ({}:{})", host.name, container.name, record.key.pid),
        None => format!("{} ({})", host.name, record.key.pid),
    };
    let number = |value: u32| if process.described { value.to_string() } else { String::new() };
    let metadata = [
        row("pid", "PID", "number", 1.0, record.key.pid.to_string()),
        row("cmdline", "Command", "", 2.0, first_word_if(filter.hide_command_arguments, &record.command_line)),
        row("ppid", "Parent PID", "number", 3.0, number(record.parent_pid)),
        row("threads", "# Threads", "number", 4.0, if record.thread_count > 0 { number(record.thread_count) } else { String::new() }),
    ];
    let mut parents = Vec::new();
    if let Some(container) = process.container {
        parents.extend(container_parent(tables, container));
        parents.extend(image_parent(tables, container));
    }
    parents.extend(host_parent(tables, process.host));
    Some(NodeSummary {
        label: process_label(process),
        label_minor: label_minor.into(),
        rank: if record.name.is_empty() { host.name.clone() } else { record.name.clone() },
        metadata: metadata.into_iter().flatten().chain(own_process_rows(host, process)).collect(),
        parents,
        metrics: process_metrics(process, host.record.cpu_count, false),
        ..NodeSummary::blank(process.node_id.clone(), Shape::Square)
    })
}

/// Rows of a process that Scope has none of.
pub(crate) fn own_process_rows(host: &HostRow, process: &ProcessRow) -> Vec<MetadataRow> {
    let record = &process.record;
    let rows = [
        row("user", "User", "", 5.0, record.user_name.clone().unwrap_or_default()),
        row("listening_ports", "Listens on", "", 6.0, ports_text(host.listeners.of_process(record.key))),
        row("peer_names", "Talks to", "", 7.0, process.peers.text()),
        row("exit", "Ended", "", 8.0, exit_text(record)),
    ];
    rows.into_iter().flatten().collect()
}

fn first_word_if(hide: bool, command_line: &Arc<str>) -> Arc<str> {
    if !hide {
        return command_line.clone();
    }
    command_line.split_whitespace().next().unwrap_or_default().into()
}

/// First of: ECS name, Kubernetes name, Marathon app, container name, host name, start of the id.
fn container_label(container: &Container) -> Arc<str> {
    let label = |key: &str| container.labels.get(key).filter(|value| !value.is_empty()).cloned();
    label("com.amazonaws.ecs.container-name")
        .or_else(|| label("io.kubernetes.container.name"))
        .or_else(|| container.environment.get("MARATHON_APP_ID").filter(|value| !value.is_empty()).cloned())
        .or_else(|| Some(container.name.clone()).filter(|name| !name.is_empty()))
        .or_else(|| Some(container.hostname.clone()).filter(|name| !name.is_empty()))
        .unwrap_or_else(|| short_id(&container.id).into())
}

fn short_id(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn container_parent(tables: &Tables, container: ContainerIndex) -> Option<Parent> {
    let row = tables.containers.get(container)?;
    let record = row.record.as_ref()?;
    Some(Parent { id: row.node_id.clone(), label: container_label(record), topology_id: "containers" })
}

fn image_parent(tables: &Tables, container: ContainerIndex) -> Option<Parent> {
    let group = tables.images.get(tables.containers.get(container)?.image?)?;
    Some(Parent { id: group.node_id.clone(), label: group.text.clone(), topology_id: "containers-by-image" })
}

/// The image that a container was made of, if its host reported it.
pub(crate) fn image_of<'a>(tables: &'a Tables, container: &Container, host: HostIndex) -> Option<&'a ImageRow> {
    tables.hosts.get(host)?.images.get(&container.image_id)
}

fn container_summary(tables: &Tables, index: ContainerIndex, filter: Filter, now: Timestamp) -> Option<NodeSummary> {
    let row = tables.containers.get(index)?;
    let container = row.record.as_ref()?;
    let host_name = tables.hosts.get(row.host).map(|host| host.name.clone()).unwrap_or_default();
    let label = container_label(container);
    let image_name = image_without_tag(&container.image_name);
    let rank = [image_name.into(), host_name.clone(), label.clone()].into_iter().find(|text: &Arc<str>| !text.is_empty());
    let mut parents = Vec::new();
    parents.extend(image_parent(tables, index));
    parents.extend(crate::tasks::parent(tables, index));
    parents.extend(row.pod.into_iter().flat_map(|pod| crate::kubernetes::parents_below(tables, pod)));
    parents.extend(host_parent(tables, row.host));
    let mut shown_tables = Vec::new();
    if !filter.hide_environment {
        shown_tables.push(property_list("docker_env_", "Environment variables", &container.environment));
    }
    shown_tables.push(property_list("docker_label_", "Docker labels", &container.labels));
    shown_tables.push(image_table(container, image_of(tables, container, row.host)));
    Some(NodeSummary {
        label,
        label_minor: host_name,
        rank: rank.unwrap_or_default(),
        metadata: container_metadata(tables, row, container, filter, now),
        parents,
        metrics: container_metrics(tables, index, false),
        tables: shown_tables,
        ..NodeSummary::blank(row.node_id.clone(), Shape::Hexagon)
    })
}

fn container_metadata(tables: &Tables, row_of: &ContainerRow, container: &Container, filter: Filter, now: Timestamp) -> Vec<MetadataRow> {
    let uptime = container.started_at.filter(|_| container.state.runs()).map(|started| now.since(started).as_secs().to_string());
    let created = if container.created_at == Timestamp::EPOCH { String::new() } else { rfc3339(container.created_at) };
    let mut id = row("docker_container_id", "ID", "", 11.0, container.id.clone());
    if let Some(id) = &mut id {
        id.truncate = 12;
    }
    let command = first_word_if(filter.hide_command_arguments, &container.command);
    let host = tables.hosts.get(row_of.host);
    let ports = host.map(|host| container.port_texts(&host.record)).unwrap_or_default();
    let addresses = container.addresses_on(host.map(|host| &host.record));
    let addresses = addresses.iter().filter(|address| address.is_ipv4() || !address.is_loopback()).map(IpAddr::to_string);
    [
        row("docker_image_tag", "Image tag", "", 1.0, tag_of(&container.image_name)),
        row("docker_image_name", "Image name", "", 2.0, image_without_tag(&container.image_name)),
        row("docker_container_command", "Command", "", 3.0, command),
        row("docker_container_state_human", "State", "", 4.0, container.state_human.clone()),
        row("docker_container_uptime", "Uptime", "duration", 5.0, uptime.unwrap_or_default()),
        row("docker_container_restart_count", "Restart #", "", 6.0, container.restart_count.to_string()),
        row("docker_container_networks", "Networks", "", 7.0, join(container.networks.iter())),
        row("docker_container_ips", "IPs", "", 8.0, join(addresses)),
        row("docker_container_ports", "Ports", "", 9.0, join(ports.into_iter())),
        row("docker_container_created", "Created", "datetime", 10.0, created),
        id,
    ]
    .into_iter()
    .flatten()
    .chain(own_container_rows(tables, row_of, container))
    .collect()
}

/// Rows of a container that Scope has none of.
pub(crate) fn own_container_rows(tables: &Tables, row_of: &ContainerRow, container: &Container) -> Vec<MetadataRow> {
    let exit_code = if container.state == ContainerState::Exited { container.exit_code.to_string() } else { String::new() };
    let listens = tables.hosts.get(row_of.host).map(|host| ports_text(host.listeners.of_container(&container.id))).unwrap_or_default();
    let rows = [
        row("docker_container_health", "Health", "", 12.0, container.health.clone()),
        row("docker_container_exit_code", "Exit code", "number", 13.0, exit_code),
        row("docker_container_oom", "Out of memory", "", 14.0, out_of_memory(row_of, container)),
        row("listening_ports", "Listens on", "", 15.0, listens),
        row("peer_names", "Talks to", "", 16.0, row_of.peers.text()),
    ];
    rows.into_iter().flatten().chain(crate::tasks::rows(container)).collect()
}

/// Ports of sockets that listen, e.g. `53/udp, 80/tcp`; a few of them where there are many.
fn ports_text<'a>(listeners: impl Iterator<Item = &'a ListenerRow>) -> String {
    const SHOWN_MAX: usize = 32;

    // One process may have many sockets on one port: one for each address, or for each of its threads.
    let ports: BTreeSet<(u16, &str)> = listeners.map(|row| (row.record.port, row.record.protocol.as_str())).take(8 * SHOWN_MAX).collect();
    let mut text = ports.iter().take(SHOWN_MAX).map(|(port, protocol)| format!("{port}/{protocol}")).collect::<Vec<_>>().join(", ");
    if ports.len() > SHOWN_MAX {
        text.push_str(" and others");
    }
    text
}

/// How a process ended, in the words of a shell.
fn exit_text(record: &Process) -> String {
    if record.exited_at.is_none() {
        return String::new();
    }
    // As wait(2) has it: the signal in the low seven bits, the exit code in the next eight.
    match (record.oom_killed, record.exit_status & 0x7f, (record.exit_status >> 8) & 0xff) {
        (true, ..) => "killed because memory ran out".to_owned(),
        (false, 0, code) => format!("exit code {code}"),
        (false, signal, _) => format!("signal {signal}"),
    }
}

/// What the kernel did to a container when memory ran out.
fn out_of_memory(row: &ContainerRow, container: &Container) -> String {
    match (row.latest.as_ref().map_or(0, |latest| latest.oom_kills), container.oom_killed) {
        (0, false) => String::new(),
        (0, true) => "killed because memory ran out".to_owned(),
        (count, _) => plural(usize::try_from(count).unwrap_or(usize::MAX), "process killed", "processes killed").to_string(),
    }
}

/// `ip:hostport->port/proto` when published, `port/proto` when only exposed.
pub(crate) fn property_list(id: &'static str, label: &'static str, entries: &std::collections::BTreeMap<Arc<str>, Arc<str>>) -> Table {
    table(id, label, entries.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
}

fn image_table(container: &Container, image: Option<&ImageRow>) -> Table {
    // The leading blanks are Scope's sort keys, and part of the wire format.
    let mut rows: Vec<(Arc<str>, Arc<str>)> = vec![
        (" ID".into(), container.image_id.clone()),
        (" Name".into(), image_without_tag(&container.image_name).into()),
        (" Tag".into(), tag_of(&container.image_name).into()),
    ];
    if let Some(image) = image {
        rows.push(("Size".into(), bytes_text(image.record.size_bytes).into()));
        rows.push(("Virtual size".into(), bytes_text(image.record.virtual_size_bytes).into()));
    }
    rows.retain(|(_, value)| !value.is_empty());
    table("image_table", "Image", rows)
}

/// A property list.
pub(crate) fn table(id: &'static str, label: &'static str, rows: Vec<(Arc<str>, Arc<str>)>) -> Table {
    Table { id: id.into(), label: label.into(), rows, grid: None }
}

/// As Docker's command line writes sizes: decimal units, four significant digits.
pub fn bytes_text(bytes: u64) -> String {
    if bytes == 0 {
        return String::new();
    }
    let units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if value >= 100.0 {
        1
    } else if value >= 10.0 {
        2
    } else {
        3
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} {}", units[unit])
}

/// Links to the hosts that containers of an image are on. An image that runs everywhere names some of them: nobody reads the rest, and each
/// change of a container draws its image again.
fn hosts_of(tables: &Tables, group: &GroupRow<ContainerIndex>) -> Vec<Parent> {
    const MEMBERS_READ_MAX: usize = 256;
    const HOSTS_MAX: usize = 64;

    let members = group.members.iter().take(MEMBERS_READ_MAX);
    let hosts: BTreeSet<HostIndex> = members.filter_map(|&container| Some(tables.containers.get(container)?.host)).collect();
    let mut parents: Vec<Parent> = hosts.into_iter().filter_map(|host| host_parent(tables, host)).take(HOSTS_MAX).collect();
    parents.sort_by(|one, other| one.id.cmp(&other.id));
    parents
}

fn image_summary(tables: &Tables, index: crate::index::GroupIndex) -> Option<NodeSummary> {
    let group = tables.images.get(index)?;
    let count = group.members.len();
    let image = group.members.iter().find_map(|&container| {
        let row = tables.containers.get(container)?;
        image_of(tables, row.record.as_ref()?, row.host)
    });
    let labels = image.map(|image| property_list("docker_image_label_", "Docker labels", &image.record.labels));
    Some(NodeSummary {
        label: group.text.clone(),
        label_minor: plural(count, "container", "containers"),
        rank: group.text.clone(),
        stack: true,
        metadata: row("container", "# Containers", "number", 2.0, count.to_string()).into_iter().collect(),
        parents: hosts_of(tables, group),
        tables: labels.into_iter().collect(),
        ..NodeSummary::blank(group.node_id.clone(), Shape::Hexagon)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_like_dockers() {
        assert_eq!(bytes_text(999), "999 B");
        assert_eq!(bytes_text(4_261_550), "4.262 MB");
        assert_eq!(bytes_text(123_456_789), "123.5 MB");
        assert_eq!(bytes_text(0), "");
    }
}
