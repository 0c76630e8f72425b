//! What a panel says beyond the summary: facts that are read by people who look at one node, and would only weigh down a view.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::index::Entity;
use crate::node::{MetadataRow, NodeSummary, Table};
use crate::report::{Cloud, HostMetrics};
use crate::summary::{bytes_text, row, table};
use crate::tables::{ContainerRow, HostRow, ProcessRow};
use crate::topology::{ProbeRow, Topology};

/// Listening sockets in the panel of a host; the API lists them all.
const LISTENERS_SHOWN: usize = 100;

/// Processes that listen at one place, of those that are named.
const HOLDERS_SHOWN: usize = 8;

pub(super) fn add(map: &Topology, entity: Entity, summary: &mut NodeSummary) {
    let tables = &map.tables;
    match entity {
        Entity::Process(process) => summary.metadata.extend(of_process(&tables.processes[process])),
        Entity::Container(container) => summary.metadata.extend(of_container(&tables.containers[container])),
        Entity::Host(host) => {
            let row = &tables.hosts[host];
            summary.metadata.extend(of_host(row));
            let latest = row.latest.as_ref();
            summary.tables.extend(latest.into_iter().flat_map(machine_tables));
            summary.tables.extend(map.probes.get(&row.probe).map(probe_table));
            summary.tables.extend(listener_table(map, row));
            summary.tables.retain(|table| !table.rows.is_empty());
            summary.tables.iter_mut().for_each(|table| table.rows.sort());
            summary.tables.sort_by(|one, other| one.id.cmp(&other.id));
        }
        _ => {}
    }
}

fn of_process(process: &ProcessRow) -> Vec<MetadataRow> {
    let (read, written) = process.io;
    let rows = [
        row("io_read_bytes", "Read from disk", "", 20.0, bytes_text(read)),
        row("io_written_bytes", "Written to disk", "", 21.0, bytes_text(written)),
    ];
    rows.into_iter().flatten().collect()
}

fn of_container(container: &ContainerRow) -> Vec<MetadataRow> {
    let Some(latest) = &container.latest else { return Vec::new() };
    let count = |value: u64| if value > 0 { value.to_string() } else { String::new() };
    let cpus = if latest.cpu_limit > 0.0 { format!("{:.2}", latest.cpu_limit) } else { String::new() };
    let throttled = if latest.cpu_throttled_nanos > 0 { format!("{:.1}", latest.cpu_throttled_nanos as f64 / 1e9) } else { String::new() };
    let rows = [
        row("process_count", "# Processes", "number", 20.0, count(u64::from(latest.process_count))),
        row("cpu_limit", "CPU limit", "number", 21.0, cpus),
        row("cpu_throttled_seconds", "Throttled (s)", "number", 22.0, throttled),
        row("io_read_bytes", "Read from disk", "", 23.0, bytes_text(latest.io_read_bytes)),
        row("io_written_bytes", "Written to disk", "", 24.0, bytes_text(latest.io_written_bytes)),
    ];
    rows.into_iter().flatten().collect()
}

fn of_host(host: &HostRow) -> Vec<MetadataRow> {
    let record = &host.record;
    let rows = [
        row("architecture", "Architecture", "", 20.0, record.architecture.clone()),
        row("os_release", "Distribution", "", 21.0, record.os_release.clone()),
        row("cloud", "Cloud", "", 22.0, record.cloud.as_ref().map(cloud_text).unwrap_or_default()),
    ];
    rows.into_iter().flatten().collect()
}

/// E.g. `aws eu-central-1b, m7g.large, i-0abc`.
fn cloud_text(cloud: &Cloud) -> String {
    let place = if cloud.zone.is_empty() { &cloud.region } else { &cloud.zone };
    let first = [&cloud.provider, place].into_iter().filter(|it| !it.is_empty()).map(|it| &**it).collect::<Vec<_>>().join(" ");
    let parts = [first.as_str(), &cloud.instance_type, &cloud.instance_id];
    parts.into_iter().filter(|it| !it.is_empty()).collect::<Vec<_>>().join(", ")
}

fn machine_tables(latest: &HostMetrics) -> [Table; 3] {
    let size = |bytes: u64| if bytes == 0 { "0 B".to_owned() } else { bytes_text(bytes) };
    let disk = |it: &crate::report::Disk| {
        let percent = u128::from(it.used_bytes).saturating_mul(100).checked_div(u128::from(it.size_bytes)).unwrap_or(0);
        let value = format!("{} of {} used ({percent} %), {} on {}", size(it.used_bytes), size(it.size_bytes), it.file_system, it.device);
        (it.mount_point.clone(), value.into())
    };
    let device = |it: &crate::report::BlockDevice| {
        let value = format!("read {}, written {}, busy {} s", size(it.read_bytes), size(it.written_bytes), it.busy_millis / 1_000);
        (it.name.clone(), value.into())
    };
    let interface = |it: &crate::report::NetworkInterface| {
        let state = if it.up { "up" } else { "down" };
        let mut value = format!("{state}, received {}, sent {}", size(it.received_bytes), size(it.sent_bytes));
        if it.errors > 0 || it.dropped > 0 {
            value.push_str(&format!(", {} errors, {} dropped", it.errors, it.dropped));
        }
        (it.name.clone(), value.into())
    };
    [
        table("host_block_devices", "Block devices", latest.block_devices.iter().map(device).collect()),
        table("host_disks", "Disks", latest.disks.iter().map(disk).collect()),
        table("host_network_interfaces", "Network interfaces", latest.network_interfaces.iter().map(interface).collect()),
    ]
}

/// How the probe of a host sees, and what it lost: only what is not as it should be, besides the first two rows.
fn probe_table(probe: &ProbeRow) -> Table {
    let (capture, losses) = (&probe.capture, &probe.losses);
    let mut rows: Vec<(Arc<str>, Arc<str>)> = Vec::new();
    let mut say = |label: &str, value: String| rows.push((label.into(), value.into()));
    if capture.rung > 0 {
        say("Rung", format!("{} ({})", capture.rung, capture.description));
    }
    if let Some(share) = losses.completeness() {
        // Cut, so that what is not complete never reads as if it were.
        say("Complete", format!("{:.2} % of {} connection ends", (share * 10_000.0).floor() / 100.0, losses.ends_seen));
    }
    if capture.overload_level > 0 {
        say("Overload level", capture.overload_level.to_string());
    }
    if !capture.missing_capabilities.is_empty() {
        say("Missing capabilities", capture.missing_capabilities.join(", "));
    }
    let known = [
        ("flows not counted", losses.flows_uncounted),
        ("ends without an owner", losses.sockets_unowned),
        ("table full", losses.table_full),
    ];
    let rings = losses.ring_records.iter().map(|(ring, count)| (format!("ring {ring}"), *count));
    let other = losses.other.iter().map(|(cause, count)| (cause.to_string(), *count));
    let all = known.into_iter().map(|(cause, count)| (cause.to_owned(), count)).chain(rings).chain(other);
    all.filter(|(_, count)| *count > 0).for_each(|(cause, count)| say(&format!("Lost: {cause}"), count.to_string()));
    table("host_probe", "Probe", rows)
}

fn listener_table(map: &Topology, host: &HostRow) -> Option<Table> {
    let holder = |process: Option<crate::report::ProcessKey>| {
        let process = host.processes.get(&process?).and_then(|&process| map.tables.processes.get(process))?;
        Some(format!("{} ({})", process.record.name, process.record.key.pid))
    };
    // In a network namespace of its own a container may listen where another listens as well.
    let inside = |container: Option<&Arc<str>>| {
        let container = map.tables.containers.get(*map.tables.container_ids.get(container?)?)?.record.as_ref()?;
        let name = if container.name.is_empty() { &container.id } else { &container.name };
        (&*container.network_mode != "host").then(|| format!(" in {name}"))
    };
    let mut holders: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in host.listeners.iter() {
        let it = &row.record;
        let place = std::net::SocketAddr::new(it.address, it.port);
        let inside = inside(it.container_id.as_ref()).unwrap_or_default();
        let holder = holder(it.process).unwrap_or_else(|| "unknown".to_owned());
        holders.entry(format!("{place}/{}{inside}", it.protocol.as_str())).or_default().insert(holder);
    }
    let text = |holders: BTreeSet<String>| {
        let more = holders.len().saturating_sub(HOLDERS_SHOWN);
        let mut text = holders.into_iter().take(HOLDERS_SHOWN).collect::<Vec<_>>().join(", ");
        if more > 0 {
            text.push_str(&format!(" and {more} more"));
        }
        text
    };
    let rows = holders.into_iter().take(LISTENERS_SHOWN).map(|(place, holders)| (place.into(), text(holders).into()));
    Some(table("host_listeners", "Listening ports", rows.collect()))
}
