//! What the probe knows of this node, as one document. Its field names are a promise: docs/once.md has them all, and a test compares.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use proto::probe::v1::{self, flow_key};
use serde::Serialize;

use crate::driver::Look;
use details::{OfContainer, OfHost, OfProcess};

pub mod details;

/// Grows when a field changes its meaning or goes; new fields may come at any time.
pub const FORMAT: u32 = 1;

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/once.md has the fields; a test compares")]
pub struct Document {
    pub format: u32,
    pub probe_version: String,
    pub taken_at: String,
    pub observed_seconds: f64,
    pub host: Host,
    pub capture: Capture,
    pub losses: Losses,
    pub processes: Vec<Process>,
    pub containers: Vec<Container>,
    pub flows: Vec<Flow>,
    pub unix_flows: Vec<UnixFlow>,
    pub listeners: Vec<Listener>,
    pub names: Vec<Names>,
}

/// The node.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/once.md has the fields; a test compares")]
pub struct Host {
    pub host_name: String,
    pub kernel_version: String,
    pub os: String,
    pub os_release: String,
    pub architecture: String,
    pub booted_at: Option<String>,
    pub addresses: Vec<String>,
    pub local_networks: Vec<String>,
    pub cpu_count: u32,
    pub memory_bytes: u64,
    pub cpu_percent: Option<f64>,
    pub memory_used_bytes: Option<u64>,
    pub load1: Option<f64>,
    pub load5: Option<f64>,
    pub load15: Option<f64>,
    #[serde(flatten)]
    pub more: OfHost,
}

/// How the probe sees.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/once.md has the fields; a test compares")]
pub struct Capture {
    pub rung: u32,
    pub description: String,
    pub reason: String,
    pub blind_spots: Vec<String>,
    pub missing_capabilities: Vec<String>,
    pub hooks: Vec<Hook>,
}

/// One kernel hook.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/once.md has the fields; a test compares")]
pub struct Hook {
    pub name: String,
    pub attached: bool,
    pub error: Option<String>,
}

/// What was lost since the probe began.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/once.md has the fields; a test compares")]
pub struct Losses {
    pub ring_records: BTreeMap<String, u64>,
    pub flows_uncounted: u64,
    pub sockets_unowned: u64,
    pub table_full: u64,
    pub ends_seen: u64,
    pub ends_reported: u64,
    pub completeness: f64,
    pub other: BTreeMap<String, u64>,
}

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/once.md has the fields; a test compares")]
pub struct Process {
    pub pid: u32,
    pub parent_pid: u32,
    pub started_at: Option<String>,
    pub exited_at: Option<String>,
    pub name: String,
    pub comm: String,
    pub command_line: String,
    pub user_id: u32,
    pub user_name: String,
    pub threads: u32,
    pub container_id: String,
    pub cgroup_path: String,
    pub cpu_percent: Option<f64>,
    pub memory_bytes: Option<u64>,
    pub open_files: Option<u32>,
    #[serde(flatten)]
    pub more: OfProcess,
    #[serde(skip)]
    pub(crate) key: (u32, u64),
}

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/once.md has the fields; a test compares")]
pub struct Container {
    pub id: String,
    pub name: String,
    pub image: String,
    pub state: String,
    pub status: String,
    pub runtime: String,
    pub created_at: Option<String>,
    pub started_at: Option<String>,
    pub restarts: u32,
    pub addresses: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub pid: Option<u32>,
    pub cpu_percent: Option<f64>,
    pub memory_bytes: Option<u64>,
    pub memory_limit_bytes: Option<u64>,
    #[serde(flatten)]
    pub more: OfContainer,
}

/// One end of a group of connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/once.md has the fields; a test compares")]
pub struct Flow {
    pub id: u64,
    pub direction: &'static str,
    pub protocol: &'static str,
    pub pid: Option<u32>,
    pub process: String,
    pub container_id: String,
    pub client_address: String,
    pub server_address: String,
    pub server_port: u32,
    pub server_name: Option<String>,
    pub original_server_address: Option<String>,
    pub original_server_port: Option<u32>,
    pub translations: Vec<Translation>,
    pub opened: u64,
    pub closed: u64,
    pub failed: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub retransmits: u64,
    pub rtt_micros: Option<u64>,
    pub rtt_micros_max: Option<u32>,
    pub applications: Vec<Application>,
    pub first_seen: Option<String>,
    pub last_active: Option<String>,
    #[serde(skip)]
    pub(crate) key: (u32, u64),
    /// Sum and count of round-trip times.
    #[serde(skip)]
    pub(crate) rtt: (u64, u64),
}

/// Connections of two processes over Unix sockets, at one path.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/once.md has the fields; a test compares")]
pub struct UnixFlow {
    pub id: u64,
    pub path: String,
    pub open: u32,
    pub client_pid: u32,
    pub client_process: String,
    pub client_container_id: String,
    pub server_pid: u32,
    pub server_process: String,
    pub server_container_id: String,
}

/// Where address translation took connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/once.md has the fields; a test compares")]
pub struct Translation {
    pub server_address: String,
    pub server_port: u32,
    pub connections: u64,
}

/// What was understood of the bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/once.md has the fields; a test compares")]
pub struct Application {
    pub name: String,
    pub requests: u64,
    pub errors: u64,
    pub latency_micros: Option<u64>,
}

/// A socket that waits.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/once.md has the fields; a test compares")]
pub struct Listener {
    pub protocol: &'static str,
    pub address: String,
    pub port: u32,
    pub pid: Option<u32>,
    pub process: String,
    pub container_id: String,
}

/// What processes call an address.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/once.md has the fields; a test compares")]
pub struct Names {
    pub address: String,
    pub names: Vec<String>,
}

type Key = (u32, u64);

impl Document {
    /// Of one look, after watching for so long.
    pub fn of(look: &Look, observed: Duration) -> Self {
        let report = &look.report;
        let resolved: HashMap<String, &v1::ResolvedAddress> =
            report.resolved_addresses.iter().map(|it| (address(&it.address), it)).collect();
        let names: HashMap<Key, &str> = report.processes.iter().map(|it| (key(it.key.as_ref()), it.name.as_str())).collect();
        let metrics: HashMap<Key, &v1::ProcessMetrics> = look.samples.processes.iter().map(|it| (key(it.key.as_ref()), it)).collect();
        let of_containers: HashMap<&str, &v1::ContainerMetrics> = look.samples.containers.iter().map(|it| (it.id.as_str(), it)).collect();
        Document {
            format: FORMAT,
            probe_version: env!("CARGO_PKG_VERSION").to_owned(),
            taken_at: moment(look.now.unix_nanos).unwrap_or_default(),
            observed_seconds: observed.as_secs_f64(),
            host: host(report.host.clone().unwrap_or_default(), look.now.unix_nanos, look.samples.host.as_ref()),
            capture: capture(report.capture.clone().unwrap_or_default()),
            losses: losses(report.losses.clone().unwrap_or_default()),
            processes: report.processes.iter().map(|it| process(it, look, metrics.get(&key(it.key.as_ref())).copied())).collect(),
            containers: report.containers.iter().map(|it| container(it, of_containers.get(it.id.as_str()).copied())).collect(),
            flows: report.flows.iter().filter_map(|it| flow(it, &names, &resolved)).collect(),
            unix_flows: report.unix_flows.iter().map(|it| unix_flow(it, &names)).collect(),
            listeners: report.listeners.iter().map(|it| listener(it, &names)).collect(),
            names: report
                .resolved_addresses
                .iter()
                .map(|it| Names { address: address(&it.address), names: it.names.iter().map(|name| name.name.clone()).collect() })
                .collect(),
        }
    }
}

fn host(host: v1::Host, now: u64, metrics: Option<&v1::HostMetrics>) -> Host {
    Host {
        more: OfHost::of(host.booted_at_unix_nanos, now, metrics),
        host_name: host.host_name,
        kernel_version: host.kernel_version,
        os: host.os,
        os_release: host.os_release,
        architecture: host.architecture,
        booted_at: moment(host.booted_at_unix_nanos),
        addresses: host.addresses,
        local_networks: host.local_networks,
        cpu_count: host.cpu_count,
        memory_bytes: host.memory_bytes,
        cpu_percent: metrics.map(|it| it.cpu_percent),
        memory_used_bytes: metrics.map(|it| it.memory_used_bytes),
        load1: metrics.map(|it| it.load1),
        load5: metrics.map(|it| it.load5),
        load15: metrics.map(|it| it.load15),
    }
}

fn capture(capture: v1::Capture) -> Capture {
    let hook = |hook: v1::capture::Hook| Hook { name: hook.name, attached: hook.attached, error: (!hook.attached).then_some(hook.error) };
    Capture {
        rung: capture.rung,
        description: capture.description,
        reason: capture.reason,
        blind_spots: capture.blind_spots,
        missing_capabilities: capture.missing_capabilities,
        hooks: capture.hooks.into_iter().map(hook).collect(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than the 53 bits of a double")]
fn losses(losses: v1::Losses) -> Losses {
    let completeness = if losses.ends_seen == 0 { 1.0 } else { losses.ends_reported as f64 / losses.ends_seen as f64 };
    Losses {
        ring_records: losses.ring_records.into_iter().collect(),
        flows_uncounted: losses.flows_uncounted,
        sockets_unowned: losses.sockets_unowned,
        table_full: losses.table_full,
        ends_seen: losses.ends_seen,
        ends_reported: losses.ends_reported,
        completeness,
        other: losses.other.into_iter().collect(),
    }
}

fn process(process: &v1::Process, look: &Look, metrics: Option<&v1::ProcessMetrics>) -> Process {
    let key = key(process.key.as_ref());
    Process {
        pid: key.0,
        parent_pid: process.parent_pid,
        started_at: (key.1 != 0).then(|| moment(look.now.unix_at(crate::observation::BootNanos(key.1)))).flatten(),
        exited_at: moment(process.exited_at_unix_nanos),
        name: process.name.clone(),
        comm: process.comm.clone(),
        command_line: process.command_line.clone(),
        user_id: process.user_id,
        user_name: process.user_name.clone(),
        threads: metrics.map_or(process.thread_count, |it| it.thread_count),
        container_id: process.container_id.clone(),
        cgroup_path: process.cgroup_path.clone(),
        cpu_percent: metrics.map(|it| it.cpu_percent),
        memory_bytes: metrics.map(|it| it.memory_bytes),
        open_files: metrics.map(|it| it.open_files),
        more: OfProcess::of(process, metrics),
        key,
    }
}

fn container(container: &v1::Container, metrics: Option<&v1::ContainerMetrics>) -> Container {
    use v1::ContainerState::{Created, Dead, Exited, Paused, Restarting, Running, Unspecified};

    let state = match container.state() {
        Created => "created",
        Running => "running",
        Paused => "paused",
        Restarting => "restarting",
        Exited => "exited",
        Dead => "dead",
        Unspecified => "unknown",
    };
    Container {
        id: container.id.clone(),
        name: container.name.clone(),
        image: container.image_name.clone(),
        state: state.to_owned(),
        status: container.state_human.clone(),
        runtime: container.runtime.clone(),
        created_at: moment(container.created_at_unix_nanos),
        started_at: moment(container.started_at_unix_nanos),
        restarts: container.restart_count,
        addresses: container.addresses.clone(),
        labels: container.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        pid: (container.pid != 0).then_some(container.pid),
        cpu_percent: metrics.map(|it| it.cpu_percent),
        memory_bytes: metrics.map(|it| it.memory_bytes),
        memory_limit_bytes: metrics.map(|it| it.memory_limit_bytes).filter(|&limit| limit != 0),
        more: OfContainer::of(container, metrics),
    }
}

fn flow(flow: &v1::Flow, names: &HashMap<Key, &str>, resolved: &HashMap<String, &v1::ResolvedAddress>) -> Option<Flow> {
    let of = flow.key.as_ref()?;
    let counters = flow.counters.clone().unwrap_or_default();
    let holder = key(of.process.as_ref());
    let server_address = address(&of.server_address);
    let server_name = resolved.get(&server_address).and_then(|it| it.names.first()).map(|name| name.name.clone());
    let original = !of.original_server_address.is_empty();
    Some(Flow {
        id: flow.id,
        direction: match of.direction() {
            flow_key::Direction::Client => "client",
            flow_key::Direction::Server => "server",
            flow_key::Direction::Unspecified => "unknown",
        },
        protocol: protocol(of.protocol()),
        pid: of.process.as_ref().map(|it| it.pid),
        process: names.get(&holder).copied().unwrap_or_default().to_owned(),
        container_id: of.container_id.clone(),
        client_address: address(&of.client_address),
        server_address,
        server_port: of.server_port,
        server_name,
        original_server_address: original.then(|| address(&of.original_server_address)),
        original_server_port: original.then_some(of.original_server_port),
        translations: flow.translations.iter().map(translation).collect(),
        opened: counters.opened,
        closed: counters.closed,
        failed: counters.failed,
        bytes_sent: counters.bytes_sent,
        bytes_received: counters.bytes_received,
        retransmits: counters.retransmits,
        rtt_micros: counters.rtt_us_sum.checked_div(counters.rtt_count),
        rtt_micros_max: (counters.rtt_count > 0).then_some(counters.rtt_us_max),
        applications: counters.applications.iter().map(application).collect(),
        first_seen: moment(flow.first_seen_unix_nanos),
        last_active: moment(flow.last_active_unix_nanos),
        key: holder,
        rtt: (counters.rtt_us_sum, counters.rtt_count),
    })
}

fn unix_flow(flow: &v1::UnixFlow, names: &HashMap<Key, &str>) -> UnixFlow {
    let name = |of: Key| names.get(&of).copied().unwrap_or_default().to_owned();
    let (client, server) = (key(flow.client.as_ref()), key(flow.server.as_ref()));
    UnixFlow {
        id: flow.id,
        path: flow.path.clone(),
        open: flow.open,
        client_pid: client.0,
        client_process: name(client),
        client_container_id: flow.client_container_id.clone(),
        server_pid: server.0,
        server_process: name(server),
        server_container_id: flow.server_container_id.clone(),
    }
}

fn translation(translation: &v1::Translation) -> Translation {
    Translation {
        server_address: address(&translation.server_address),
        server_port: translation.server_port,
        connections: translation.connections,
    }
}

fn application(application: &v1::flow_counters::Application) -> Application {
    Application {
        name: application.protocol.clone(),
        requests: application.requests,
        errors: application.errors,
        latency_micros: application.latency_us_sum.checked_div(application.latency_count),
    }
}

fn listener(listener: &v1::Listener, names: &HashMap<Key, &str>) -> Listener {
    Listener {
        protocol: protocol(listener.protocol()),
        address: address(&listener.address),
        port: listener.port,
        pid: listener.process.as_ref().map(|it| it.pid),
        process: names.get(&key(listener.process.as_ref())).copied().unwrap_or_default().to_owned(),
        container_id: listener.container_id.clone(),
    }
}

fn protocol(protocol: flow_key::Protocol) -> &'static str {
    match protocol {
        flow_key::Protocol::Tcp => "tcp",
        flow_key::Protocol::Udp => "udp",
        flow_key::Protocol::Unspecified => "unknown",
    }
}

fn key(key: Option<&v1::ProcessKey>) -> Key {
    key.map_or((0, 0), |it| (it.pid, it.start_time_boot_nanos))
}

fn address(octets: &[u8]) -> String {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).map(|it| it.to_string()).unwrap_or_default()
}

/// RFC 3339; `None` for what never was.
fn moment(unix_nanos: u64) -> Option<String> {
    let at = jiff::Timestamp::from_nanosecond(i128::from(unix_nanos)).ok().filter(|_| unix_nanos != 0)?;
    Some(format!("{at:.3}"))
}

#[cfg(test)]
pub(crate) mod tests;
