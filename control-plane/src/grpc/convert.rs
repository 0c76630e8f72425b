//! The wire's words into the map's. Everything is checked here: what comes out is well-formed, though it may still be a lie.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use proto::probe::v1 as wire;
use topology::{
    Capture, Container, ContainerMetrics, ContainerState, Direction, Flow, FlowCounters, FlowKey, Host, HostMetrics, Image, KubernetesKind,
    KubernetesObject, Losses, Network, Origin, PortMapping, ProbeHello, ProbeId, Process, ProcessKey, ProcessMetrics, Protocol, Report,
    ReportKind,
};

/// How far ahead of ours a node's clock may be. Moments further ahead become now, so that a lying clock cannot keep things on the map.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// Longest id of a container, an image or a session, in bytes. Ids are never cut: two would become one.
const ID_MAX: usize = 256;
/// Longest name: of a host, a process, a network.
const NAME_MAX: usize = 1_024;
/// Longest text of any other kind.
const TEXT_MAX: usize = 8_192;

/// Why a message was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It breaks a rule.
    Malformed(String),
    /// It is about another host than the stream's.
    WrongHost(String),
}

impl Fault {
    fn malformed(text: impl Into<String>) -> Self {
        Fault::Malformed(text.into())
    }

    /// Says where in the message.
    fn inside(self, place: impl std::fmt::Display) -> Self {
        match self {
            Fault::Malformed(text) => Fault::Malformed(format!("{place}.{text}")),
            other => other,
        }
    }
}

/// What is well-formed, or why it is not.
pub type Checked<T> = Result<T, Fault>;

/// A report in the map's words.
#[derive(Debug)]
pub struct Converted {
    /// The report, every field of it checked.
    pub report: Box<Report>,
    /// What was mended in it.
    pub repairs: Repairs,
}

/// What was mended in a report, rather than refusing it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repairs {
    /// Moments in the future that were set to now.
    pub times_clamped: u64,
    /// Texts cut to their limit.
    pub texts_cut: u64,
    /// Names left out where addresses should be.
    pub names_left_out: u64,
}

/// What a probe says of itself.
///
/// # Errors
/// When a field is not what the protocol says.
pub fn hello(hello: wire::Hello) -> Checked<(ProbeId, ProbeHello)> {
    let mut converter = Converter::new(Timestamp::EPOCH);
    if !(1..=128).contains(&hello.probe_id.chars().count()) {
        return Err(Fault::malformed("probe_id has not 1 to 128 characters"));
    }
    if hello.probe_id.chars().any(char::is_control) {
        return Err(Fault::malformed("probe_id has control characters"));
    }
    check_host_name(&hello.host_name)?;
    let session = id("session_id", &hello.session_id)?;
    let capture = hello.capture.map(|capture| converter.capture(capture)).unwrap_or_default();
    Ok((
        hello.probe_id.into(),
        ProbeHello {
            host_name: hello.host_name.into(),
            version: converter.text(hello.version, NAME_MAX),
            session,
            oldest_held_sequence: hello.oldest_held_sequence,
            capture,
            cluster_name: optional_id("cluster_name", &hello.cluster_name)?,
        },
    ))
}

/// A report on the stream of `host_name`, received at `now`.
///
/// # Errors
/// When a field is not what the protocol says.
pub fn report(report: wire::Report, host_name: &str, now: Timestamp) -> Checked<Converted> {
    let mut converter = Converter::new(now);
    let report = converter.report(report, host_name)?;
    Ok(Converted { report: Box::new(report), repairs: converter.repairs })
}

/// A host's name is the beginning of node ids, in which `;` separates and `<>` mark: it is letters, digits, `-`, `_`, `.` and `:`.
fn check_host_name(name: &str) -> Checked<()> {
    if !(1..=253).contains(&name.len()) {
        return Err(Fault::malformed("host_name has not 1 to 253 characters"));
    }
    match name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':'))) {
        Some(c) => Err(Fault::malformed(format!("host_name has the character {c:?}"))),
        None => Ok(()),
    }
}

fn id(field: &str, text: &str) -> Checked<Arc<str>> {
    if !(1..=ID_MAX).contains(&text.len()) {
        return Err(Fault::malformed(format!("{field} has not 1 to {ID_MAX} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(Fault::malformed(format!("{field} has control characters")));
    }
    Ok(text.into())
}

fn optional_id(field: &str, text: &str) -> Checked<Option<Arc<str>>> {
    if text.is_empty() { Ok(None) } else { id(field, text).map(Some) }
}

fn port(field: &str, number: u32) -> Checked<u16> {
    u16::try_from(number).map_err(|_| Fault::malformed(format!("{field} is {number}, which is no port")))
}

fn address(field: &str, bytes: &[u8]) -> Checked<IpAddr> {
    let address = match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).map(IpAddr::from).ok(),
        16 => <[u8; 16]>::try_from(bytes).map(IpAddr::from).ok(),
        _ => None,
    };
    let address = address.ok_or_else(|| Fault::malformed(format!("{field} has {} bytes, not 4 or 16", bytes.len())))?;
    Ok(address.to_canonical())
}

fn written_address(field: &str, text: &str) -> Checked<IpAddr> {
    let address: IpAddr = text.parse().map_err(|_| Fault::malformed(format!("{field} is {}, which is no address", shown(text))))?;
    Ok(address.to_canonical())
}

fn network(field: &str, text: &str) -> Checked<Network> {
    let parsed = || {
        let (address, length) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let prefix_length = length.parse().ok()?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        (prefix_length <= longest).then_some(Network { address, prefix_length })
    };
    parsed().ok_or_else(|| Fault::malformed(format!("{field} is {}, which is no network", shown(text))))
}

/// A peer's text in a message to people: short, and without surprises.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    format!("{short:?}")
}

fn process_key(field: &str, key: Option<wire::ProcessKey>) -> Checked<ProcessKey> {
    let key = key.ok_or_else(|| Fault::malformed(format!("{field} is missing")))?;
    if key.pid == 0 {
        return Err(Fault::malformed(format!("{field}.pid is 0")));
    }
    Ok(ProcessKey { pid: key.pid, start_time: key.start_time_boot_nanos })
}

fn number(field: &str, value: f64) -> Checked<f64> {
    if value.is_finite() && value >= 0.0 { Ok(value) } else { Err(Fault::malformed(format!("{field} is {value}"))) }
}

fn percent(field: &str, value: f64) -> Checked<f64> {
    // A little more than all comes from two clocks that do not tick together.
    number(field, value).map(|value| value.min(100.0))
}

/// Converts a list; a fault names the place.
fn each<T, U>(field: &str, items: Vec<T>, mut convert: impl FnMut(T) -> Checked<U>) -> Checked<Vec<U>> {
    let numbered = items.into_iter().enumerate();
    numbered.map(|(at, item)| convert(item).map_err(|fault| fault.inside(format_args!("{field}[{at}]")))).collect()
}

struct Converter {
    now: Timestamp,
    latest: Timestamp,
    repairs: Repairs,
}

impl Converter {
    fn new(now: Timestamp) -> Self {
        Converter { now, latest: now + CLOCK_TOLERANCE, repairs: Repairs::default() }
    }

    fn report(&mut self, report: wire::Report, host_name: &str) -> Checked<Report> {
        if report.sequence == 0 {
            return Err(Fault::malformed("sequence is 0"));
        }
        let kind = match wire::report::Kind::try_from(report.kind) {
            Ok(wire::report::Kind::Delta) => ReportKind::Delta,
            Ok(wire::report::Kind::SnapshotPart) => ReportKind::SnapshotPart,
            Ok(wire::report::Kind::SnapshotEnd) => ReportKind::SnapshotEnd,
            Ok(wire::report::Kind::Unspecified) | Err(_) => return Err(Fault::malformed(format!("kind is {}", report.kind))),
        };
        Ok(Report {
            sequence: report.sequence,
            observed_at: self.time(report.observed_at_unix_nanos),
            kind,
            host: report.host.map(|host| self.host(host, host_name)).transpose().map_err(|fault| fault.inside("host"))?,
            processes: each("processes", report.processes, |it| self.process(it))?,
            processes_gone: each("processes_gone", report.processes_gone, |it| process_key("key", Some(it)))?,
            containers: each("containers", report.containers, |it| self.container(it))?,
            containers_gone: each("containers_gone", report.containers_gone, |it| id("id", &it))?,
            images: each("images", report.images, |it| self.image(it))?,
            images_gone: each("images_gone", report.images_gone, |it| id("id", &it))?,
            flows: each("flows", report.flows, |it| self.flow(it))?,
            flows_gone: report.flows_gone,
            capture: report.capture.map(|it| self.capture(it)),
            losses: report.losses.map(|it| self.losses(it)),
            host_metrics: each("host_metrics", report.host_metrics, |it| self.host_metrics(&it))?,
            process_metrics: each("process_metrics", report.process_metrics, |it| self.process_metrics(&it))?,
            container_metrics: each("container_metrics", report.container_metrics, |it| self.container_metrics(&it))?,
            kubernetes: each("kubernetes", report.kubernetes, |it| self.kubernetes_object(it))?,
            kubernetes_gone: each("kubernetes_gone", report.kubernetes_gone, |it| id("uid", &it))?,
        })
    }

    fn host(&mut self, host: wire::Host, host_name: &str) -> Checked<Host> {
        if host.host_name != host_name {
            return Err(Fault::WrongHost(format!(
                "it is about the host {}, and this is the stream of {host_name:?}",
                shown(&host.host_name)
            )));
        }
        Ok(Host {
            kernel_version: self.text(host.kernel_version, NAME_MAX),
            os: self.text(host.os, NAME_MAX),
            os_release: self.text(host.os_release, NAME_MAX),
            booted_at: self.time(host.booted_at_unix_nanos),
            local_networks: each("local_networks", host.local_networks, |it| network("network", &it))?,
            addresses: each("addresses", host.addresses, |it| written_address("address", &it))?,
            cpu_count: host.cpu_count,
            memory_bytes: host.memory_bytes,
        })
    }

    fn process(&mut self, process: wire::Process) -> Checked<Process> {
        Ok(Process {
            key: process_key("key", process.key)?,
            parent_pid: process.parent_pid,
            name: self.text(process.name, NAME_MAX),
            command_line: self.text(process.command_line, TEXT_MAX),
            user_id: process.user_id,
            thread_count: process.thread_count,
            container_id: optional_id("container_id", &process.container_id)?,
            cgroup_id: process.cgroup_id,
            cgroup_path: self.text(process.cgroup_path, TEXT_MAX),
            exited_at: self.optional_time(process.exited_at_unix_nanos),
        })
    }

    fn container(&mut self, container: wire::Container) -> Checked<Container> {
        Ok(Container {
            id: id("id", &container.id)?,
            name: self.text(container.name, NAME_MAX),
            image_id: self.text(container.image_id, NAME_MAX),
            image_name: self.text(container.image_name, NAME_MAX),
            command: self.text(container.command, TEXT_MAX),
            state: container_state(container.state)?,
            state_human: self.text(container.state_human, NAME_MAX),
            created_at: self.time(container.created_at_unix_nanos),
            started_at: self.optional_time(container.started_at_unix_nanos),
            restart_count: container.restart_count,
            hostname: self.text(container.hostname, NAME_MAX),
            labels: self.texts(container.labels),
            environment: self.texts(container.environment),
            networks: container.networks.into_iter().map(|it| self.text(it, NAME_MAX)).collect(),
            addresses: each("addresses", container.addresses, |it| written_address("address", &it))?,
            ports: each("ports", container.ports, |it| self.port_mapping(it))?,
            pid: container.pid,
            network_mode: self.text(container.network_mode, NAME_MAX),
            runtime: self.text(container.runtime, NAME_MAX),
        })
    }

    fn port_mapping(&mut self, mapping: wire::PortMapping) -> Checked<PortMapping> {
        let host = if mapping.host_address.is_empty() {
            None
        } else {
            Some((written_address("host_address", &mapping.host_address)?, port("host_port", mapping.host_port)?))
        };
        Ok(PortMapping { container_port: port("container_port", mapping.container_port)?, protocol: self.text(mapping.protocol, 16), host })
    }

    fn image(&mut self, image: wire::Image) -> Checked<Image> {
        Ok(Image {
            id: id("id", &image.id)?,
            name: self.text(image.name, NAME_MAX),
            size_bytes: image.size_bytes,
            virtual_size_bytes: image.virtual_size_bytes,
            labels: self.texts(image.labels),
        })
    }

    fn flow(&mut self, flow: wire::Flow) -> Checked<Flow> {
        let counters = flow.counters.unwrap_or_default();
        Ok(Flow {
            id: flow.id,
            key: flow.key.map(|key| flow_key(&key)).transpose().map_err(|fault| fault.inside("key"))?,
            counters: FlowCounters {
                opened: counters.opened,
                closed: counters.closed,
                failed: counters.failed,
                bytes_sent: counters.bytes_sent,
                bytes_received: counters.bytes_received,
                retransmits: counters.retransmits,
                rtt_us_sum: counters.rtt_us_sum,
                rtt_count: counters.rtt_count,
                rtt_us_max: counters.rtt_us_max,
            },
            first_seen: self.time(flow.first_seen_unix_nanos),
            last_active: self.time(flow.last_active_unix_nanos),
        })
    }

    fn capture(&mut self, capture: wire::Capture) -> Capture {
        let hook = |this: &mut Self, hook: wire::capture::Hook| {
            let error = if hook.attached { None } else { Some(this.text(hook.error, TEXT_MAX)) };
            (this.text(hook.name, NAME_MAX), error)
        };
        Capture {
            rung: capture.rung,
            description: self.text(capture.description, TEXT_MAX),
            reason: self.text(capture.reason, TEXT_MAX),
            blind_spots: capture.blind_spots.into_iter().map(|it| self.text(it, TEXT_MAX)).collect(),
            hooks: capture.hooks.into_iter().map(|it| hook(self, it)).collect(),
        }
    }

    fn losses(&mut self, losses: wire::Losses) -> Losses {
        Losses {
            ring_records: losses.ring_records.into_iter().map(|(ring, count)| (self.text(ring, NAME_MAX), count)).collect(),
            flows_uncounted: losses.flows_uncounted,
            sockets_unowned: losses.sockets_unowned,
            table_full: losses.table_full,
            reports_merged: losses.reports_merged,
            ends_seen: losses.ends_seen,
            ends_reported: losses.ends_reported,
        }
    }

    fn host_metrics(&mut self, metrics: &wire::HostMetrics) -> Checked<HostMetrics> {
        Ok(HostMetrics {
            at: self.time(metrics.at_unix_nanos),
            cpu_percent: percent("cpu_percent", metrics.cpu_percent)?,
            memory_used_bytes: metrics.memory_used_bytes,
            load1: number("load1", metrics.load1)?,
        })
    }

    fn process_metrics(&mut self, metrics: &wire::ProcessMetrics) -> Checked<ProcessMetrics> {
        Ok(ProcessMetrics {
            key: process_key("key", metrics.key)?,
            at: self.time(metrics.at_unix_nanos),
            cpu_percent: percent("cpu_percent", metrics.cpu_percent)?,
            memory_bytes: metrics.memory_bytes,
            open_files: metrics.open_files,
            open_files_limit: metrics.open_files_limit,
            thread_count: metrics.thread_count,
        })
    }

    fn container_metrics(&mut self, metrics: &wire::ContainerMetrics) -> Checked<ContainerMetrics> {
        Ok(ContainerMetrics {
            id: id("id", &metrics.id)?,
            at: self.time(metrics.at_unix_nanos),
            cpu_percent: percent("cpu_percent", metrics.cpu_percent)?,
            memory_bytes: metrics.memory_bytes,
            memory_limit_bytes: metrics.memory_limit_bytes,
        })
    }

    fn kubernetes_object(&mut self, object: wire::KubernetesObject) -> Checked<KubernetesObject> {
        let names = |this: &mut Self, names: Vec<String>| names.into_iter().map(|it| this.text(it, NAME_MAX)).collect();
        Ok(KubernetesObject {
            kind: kubernetes_kind(object.kind)?,
            uid: id("uid", &object.uid)?,
            name: self.text(object.name, NAME_MAX),
            namespace: self.text(object.namespace, NAME_MAX),
            created_at: self.time(object.created_at_unix_nanos),
            labels: self.texts(object.labels),
            parents: each("parents", object.parents, |it| id("uid", &it))?,
            state: self.text(object.state, NAME_MAX),
            addresses: each("addresses", object.addresses, |it| written_address("address", &it))?,
            public_addresses: self.addresses_among(object.public_addresses),
            node_name: self.text(object.node_name, NAME_MAX),
            host_network: object.host_network,
            restart_count: object.restart_count,
            service_type: self.text(object.r#type, NAME_MAX),
            ports: names(self, object.ports),
            observed_generation: object.observed_generation,
            desired_replicas: object.desired_replicas,
            strategy: self.text(object.strategy, NAME_MAX),
            schedule: self.text(object.schedule, NAME_MAX),
            last_scheduled_at: self.optional_time(object.last_scheduled_unix_nanos),
            suspended: object.suspended,
            active_jobs: object.active_jobs,
            status: self.text(object.status, NAME_MAX),
            storage_class: self.text(object.storage_class, NAME_MAX),
            storage_driver: self.text(object.storage_driver, NAME_MAX),
            capacity: self.text(object.capacity, NAME_MAX),
            access_modes: names(self, object.access_modes),
            volume_names: names(self, object.volume_names),
            container_ids: each("container_ids", object.container_ids, |it| id("id", &it))?,
        })
    }

    /// Load balancers may have names in place of addresses, of which the map has no use.
    fn addresses_among(&mut self, texts: Vec<String>) -> Vec<IpAddr> {
        let all = texts.len();
        let addresses: Vec<IpAddr> = texts.iter().filter_map(|text| text.parse().ok()).map(|it: IpAddr| it.to_canonical()).collect();
        self.repairs.names_left_out += (all - addresses.len()) as u64;
        addresses
    }

    fn time(&mut self, unix_nanos: u64) -> Timestamp {
        let at = Timestamp::from_unix_nanos(unix_nanos);
        if at <= self.latest {
            return at;
        }
        self.repairs.times_clamped += 1;
        self.now
    }

    fn optional_time(&mut self, unix_nanos: u64) -> Option<Timestamp> {
        (unix_nanos != 0).then(|| self.time(unix_nanos))
    }

    /// A text for people, cut where it is too long.
    fn text(&mut self, text: String, longest: usize) -> Arc<str> {
        if text.len() <= longest {
            return text.into();
        }
        self.repairs.texts_cut += 1;
        let end = (0..=longest).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text[..end].into()
    }

    fn texts(&mut self, entries: HashMap<String, String>) -> BTreeMap<Arc<str>, Arc<str>> {
        entries.into_iter().map(|(key, value)| (self.text(key, NAME_MAX), self.text(value, TEXT_MAX))).collect()
    }
}

fn container_state(state: i32) -> Checked<ContainerState> {
    match wire::ContainerState::try_from(state) {
        Ok(wire::ContainerState::Created) => Ok(ContainerState::Created),
        Ok(wire::ContainerState::Running) => Ok(ContainerState::Running),
        Ok(wire::ContainerState::Paused) => Ok(ContainerState::Paused),
        Ok(wire::ContainerState::Restarting) => Ok(ContainerState::Restarting),
        Ok(wire::ContainerState::Exited) => Ok(ContainerState::Exited),
        Ok(wire::ContainerState::Dead) => Ok(ContainerState::Dead),
        Ok(wire::ContainerState::Unspecified) | Err(_) => Err(Fault::malformed(format!("state is {state}"))),
    }
}

fn kubernetes_kind(kind: i32) -> Checked<KubernetesKind> {
    use wire::kubernetes_object::Kind;

    match Kind::try_from(kind) {
        Ok(Kind::Node) => Ok(KubernetesKind::Node),
        Ok(Kind::Namespace) => Ok(KubernetesKind::Namespace),
        Ok(Kind::Pod) => Ok(KubernetesKind::Pod),
        Ok(Kind::Service) => Ok(KubernetesKind::Service),
        Ok(Kind::Deployment) => Ok(KubernetesKind::Deployment),
        Ok(Kind::ReplicaSet) => Ok(KubernetesKind::ReplicaSet),
        Ok(Kind::DaemonSet) => Ok(KubernetesKind::DaemonSet),
        Ok(Kind::StatefulSet) => Ok(KubernetesKind::StatefulSet),
        Ok(Kind::Job) => Ok(KubernetesKind::Job),
        Ok(Kind::CronJob) => Ok(KubernetesKind::CronJob),
        Ok(Kind::PersistentVolume) => Ok(KubernetesKind::PersistentVolume),
        Ok(Kind::PersistentVolumeClaim) => Ok(KubernetesKind::PersistentVolumeClaim),
        Ok(Kind::StorageClass) => Ok(KubernetesKind::StorageClass),
        Ok(Kind::Unspecified) | Err(_) => Err(Fault::malformed(format!("kind is {kind}"))),
    }
}

fn flow_key(key: &wire::FlowKey) -> Checked<FlowKey> {
    let direction = match wire::flow_key::Direction::try_from(key.direction) {
        Ok(wire::flow_key::Direction::Client) => Direction::Client,
        Ok(wire::flow_key::Direction::Server) => Direction::Server,
        Ok(wire::flow_key::Direction::Unspecified) | Err(_) => return Err(Fault::malformed(format!("direction is {}", key.direction))),
    };
    let protocol = match wire::flow_key::Protocol::try_from(key.protocol) {
        Ok(wire::flow_key::Protocol::Tcp) => Protocol::Tcp,
        Ok(wire::flow_key::Protocol::Udp) => Protocol::Udp,
        Ok(wire::flow_key::Protocol::Unspecified) | Err(_) => return Err(Fault::malformed(format!("protocol is {}", key.protocol))),
    };
    let origin = match wire::flow_key::Origin::try_from(key.origin) {
        Ok(wire::flow_key::Origin::Event) => Origin::Event,
        Ok(wire::flow_key::Origin::Snapshot) => Origin::Snapshot,
        Ok(wire::flow_key::Origin::Unspecified) | Err(_) => return Err(Fault::malformed(format!("origin is {}", key.origin))),
    };
    let original_server = if key.original_server_address.is_empty() {
        None
    } else {
        let address = address("original_server_address", &key.original_server_address)?;
        Some((address, port("original_server_port", key.original_server_port)?))
    };
    Ok(FlowKey {
        process: key.process.map(|process| process_key("process", Some(process))).transpose()?,
        cgroup_id: key.cgroup_id,
        container_id: optional_id("container_id", &key.container_id)?,
        direction,
        protocol,
        client_address: address("client_address", &key.client_address)?,
        server_address: address("server_address", &key.server_address)?,
        server_port: port("server_port", key.server_port)?,
        network_namespace: key.network_namespace,
        original_server,
        origin,
        sample_client_port: port("sample_client_port", key.sample_client_port)?,
    })
}

#[cfg(test)]
mod tests;
