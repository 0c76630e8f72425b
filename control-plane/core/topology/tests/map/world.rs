//! A small world to talk to the map with: probes, the reports they make, and the pictures somebody watches.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use topology::*;

pub(crate) struct World {
    pub(crate) map: Topology,
    pub(crate) now: Timestamp,
    streams: BTreeMap<String, (StreamId, u64)>,
    pub(crate) effects: Vec<Effect>,
}

pub(crate) const WINDOW: Duration = Duration::from_secs(15);

pub(crate) fn config() -> Config {
    Config {
        window: WINDOW,
        publish_interval: Duration::from_millis(50),
        picture_linger: Duration::from_secs(60),
        picture_nodes: 400_000,
        drawn_at_once: 500,
        limits: Limits {
            probes: 4,
            processes: 40,
            containers: 10,
            flows: 40,
            objects: 20,
            listeners: 10,
            names: 10,
            unix_flows: 10,
            externals: 2,
        },
    }
}

impl World {
    pub(crate) fn new() -> Self {
        World::with(config())
    }

    pub(crate) fn with(config: Config) -> Self {
        let now = Timestamp::from_unix_millis(1_700_000_000_000);
        World { map: Topology::new(config), now, streams: BTreeMap::new(), effects: Vec::new() }
    }

    pub(crate) fn step(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.map.step(self.now, input, &mut effects);
        self.map.check().unwrap();
        self.effects.extend(effects.iter().cloned());
        effects
    }

    pub(crate) fn pass(&mut self, span: Duration) -> Vec<Effect> {
        self.now = self.now + span;
        self.step(Input::Tick)
    }

    /// Opens a stream, and reports an empty snapshot with the host's addresses.
    pub(crate) fn connect(&mut self, host: &str, networks: &[&str]) {
        self.hello(host, host, "s1");
        let host_record = Host {
            addresses: networks.iter().map(|network| address(network.split('/').next().unwrap())).collect(),
            local_networks: networks.iter().map(|network| self::network(network)).collect(),
            cpu_count: 2,
            memory_bytes: 8 << 30,
            ..Host::default()
        };
        self.report(host, Report { kind: ReportKind::SnapshotEnd, host: Some(host_record), ..Report::default() });
    }

    pub(crate) fn hello(&mut self, probe: &str, host: &str, session: &str) -> Effect {
        // Everything that was sent is acknowledged, so the probe could go on with the next report.
        let oldest_held_sequence = self.streams.get(probe).map_or(0, |(_, sequence)| sequence + 1);
        self.hello_holding(probe, host, session, oldest_held_sequence)
    }

    /// The collector of a cluster opens a stream and reports its objects.
    pub(crate) fn connect_cluster(&mut self, probe: &str, cluster: &str, objects: Vec<KubernetesObject>) {
        let hello = ProbeHello {
            host_name: "wherever".into(),
            version: "0.1.0".into(),
            session: "s1".into(),
            oldest_held_sequence: 0,
            capture: Capture::default(),
            cluster_name: Some(cluster.into()),
            controls: controls(),
        };
        let effects = self.step(Input::Hello { probe: probe.into(), hello });
        let stream = effects.iter().find_map(|effect| match effect {
            Effect::Admitted { stream, .. } => Some(*stream),
            _ => None,
        });
        self.streams.insert(probe.to_owned(), (stream.unwrap(), 0));
        self.report(probe, Report { kind: ReportKind::SnapshotEnd, kubernetes: objects, ..Report::default() });
    }

    pub(crate) fn hello_holding(&mut self, probe: &str, host: &str, session: &str, oldest_held_sequence: u64) -> Effect {
        let hello = ProbeHello {
            host_name: host.into(),
            version: "0.1.0".into(),
            session: session.into(),
            oldest_held_sequence,
            capture: Capture::default(),
            cluster_name: None,
            controls: controls(),
        };
        let effects = self.step(Input::Hello { probe: probe.into(), hello });
        let answer = effects.into_iter().find(|effect| matches!(effect, Effect::Admitted { .. } | Effect::Refused { .. })).unwrap();
        if let Effect::Admitted { resume_after_sequence, stream, .. } = answer {
            let sequence = if session == "s1" { resume_after_sequence } else { 0 };
            self.streams.insert(probe.to_owned(), (stream, sequence));
        }
        answer
    }

    pub(crate) fn report(&mut self, probe: &str, report: Report) -> Effect {
        let (stream, sequence) = self.streams.get_mut(probe).unwrap();
        *sequence += 1;
        let report = Report { sequence: *sequence, observed_at: self.now, ..report };
        let input = Input::Report { probe: probe.into(), stream: *stream, report: Box::new(report) };
        self.outcome(input)
    }

    pub(crate) fn report_numbered(&mut self, probe: &str, sequence: u64, report: Report) -> Effect {
        let stream = self.streams[probe].0;
        let report = Report { sequence, observed_at: self.now, ..report };
        self.outcome(Input::Report { probe: probe.into(), stream, report: Box::new(report) })
    }

    fn outcome(&mut self, input: Input) -> Effect {
        let effects = self.step(input);
        effects.into_iter().find(|effect| matches!(effect, Effect::Applied { .. } | Effect::ReportRefused { .. })).unwrap()
    }

    pub(crate) fn disconnect(&mut self, probe: &str, end: StreamEnd) {
        let (stream, _) = self.streams[probe];
        self.step(Input::StreamEnded { probe: probe.into(), stream, end });
    }

    pub(crate) fn is_connected(&self, probe: &str) -> bool {
        self.map.probes().iter().any(|status| &*status.id == probe && status.connected)
    }

    pub(crate) fn snapshot(&mut self, view: View, filter: Filter) -> ViewSnapshot {
        let key = ViewKey { view, filter };
        let effects = self.step(Input::Watch(key));
        let published = effects.into_iter().find_map(|effect| match effect {
            Effect::Published { key: found, snapshot } if found.view == view && found.filter == filter.of_view(view) => Some(snapshot),
            _ => None,
        });
        published.unwrap()
    }

    /// The picture as text: a node a line, with its label and its edges.
    pub(crate) fn picture(&mut self, view: View, filter: Filter) -> String {
        let snapshot = self.snapshot(view, filter);
        let mut text = String::new();
        for (id, node) in &snapshot.nodes {
            let summary = node.summary();
            let edges: Vec<&str> = summary.adjacency.iter().map(NodeId::as_str).collect();
            let arrow = if edges.is_empty() { String::new() } else { format!(" -> {}", edges.join(", ")) };
            writeln!(text, "{id} [{} | {}]{arrow}", summary.label, summary.label_minor).unwrap();
        }
        let ViewStats { node_count, nonpseudo_node_count, edge_count, filtered_nodes } = snapshot.stats;
        writeln!(text, "{node_count} nodes, {nonpseudo_node_count} real, {edge_count} edges, {filtered_nodes} filtered").unwrap();
        text
    }

    pub(crate) fn details(&self, view: View, id: &str) -> Option<Details> {
        self.map.details(self.now, ViewKey { view, filter: Filter::NONE }, &id.into())
    }
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn network(text: &str) -> Network {
    let (address, length) = text.split_once('/').unwrap();
    Network { address: self::address(address), prefix_length: length.parse().unwrap() }
}

pub(crate) fn process(pid: u32, name: &str) -> Process {
    Process { key: key(pid), name: name.into(), command_line: format!("{name} --flag").into(), parent_pid: 1, ..Process::default() }
}

pub(crate) fn contained(pid: u32, name: &str, container: &str) -> Process {
    Process { container_id: Some(container.into()), ..process(pid, name) }
}

pub(crate) fn key(pid: u32) -> ProcessKey {
    ProcessKey { pid, start_time: u64::from(pid) * 10_000_000 }
}

pub(crate) fn container(id: &str, name: &str, image: &str) -> Container {
    Container {
        id: id.into(),
        name: name.into(),
        image_name: image.into(),
        hostname: format!("{name}.local").into(),
        ..Container::default()
    }
}

/// `client:pid -> server:port`, as the client's end.
pub(crate) fn client(id: u64, pid: u32, from: &str, to: &str, port: u16) -> Flow {
    flow(id, Some(pid), Direction::Client, from, to, port)
}

/// The same as the server's end.
pub(crate) fn server(id: u64, pid: u32, from: &str, to: &str, port: u16) -> Flow {
    flow(id, Some(pid), Direction::Server, from, to, port)
}

pub(crate) fn flow(id: u64, pid: Option<u32>, direction: Direction, from: &str, to: &str, port: u16) -> Flow {
    let key = FlowKey {
        process: pid.map(key),
        cgroup_id: 0,
        container_id: None,
        direction,
        protocol: Protocol::Tcp,
        client_address: address(from),
        server_address: address(to),
        server_port: port,
        network_namespace: 0,
        original_server: None,
        origin: Origin::Event,
        sample_client_port: 0,
    };
    Flow { id, key: Some(key), counters: FlowCounters { opened: 1, ..FlowCounters::default() }, ..Flow::default() }
}

pub(crate) fn processes(list: Vec<Process>) -> Report {
    Report { processes: list, ..Report::default() }
}

pub(crate) fn flows(list: Vec<Flow>) -> Report {
    Report { flows: list, ..Report::default() }
}

pub(crate) fn containers(list: Vec<Container>) -> Report {
    Report { containers: list, ..Report::default() }
}

pub(crate) fn arc(text: &str) -> Arc<str> {
    text.into()
}

/// An object of the namespace `shop`; its uid is its name.
pub(crate) fn object(kind: KubernetesKind, name: &str, parents: &[&str]) -> KubernetesObject {
    KubernetesObject {
        kind,
        uid: name.into(),
        name: name.into(),
        namespace: "shop".into(),
        parents: parents.iter().map(|&uid| uid.into()).collect(),
        state: if kind == KubernetesKind::Pod { "Running".into() } else { "".into() },
        ..KubernetesObject::default()
    }
}

/// A container of the pod with this uid.
pub(crate) fn in_pod(id: &str, pod: &str) -> Container {
    let mut it = container(id, id, "registry/team/app:1");
    it.labels.insert("io.kubernetes.pod.uid".into(), pod.into());
    it
}

/// The same flow over UDP.
pub(crate) fn udp(mut flow: Flow) -> Flow {
    flow.key.as_mut().unwrap().protocol = Protocol::Udp;
    flow
}

/// The same flow, taken to `server`, where it seems to come from `client`.
pub(crate) fn taken(mut flow: Flow, server: &str, port: u16, client: Option<&str>) -> Flow {
    flow.translations.push(Translation {
        server: (address(server), port),
        client: client.map(address),
        connections: 1,
        source: TranslationSource::Conntrack,
    });
    flow
}

/// What a host calls an address, the latest first.
pub(crate) fn named(text: &str, names: &[&str]) -> Report {
    let at = Timestamp::from_unix_millis(1);
    let names = names.iter().map(|&name| ResolvedName { name: name.into(), resolved_at: at, expires_at: at }).collect();
    Report { resolved_addresses: vec![ResolvedAddress { address: address(text), names }], ..Report::default() }
}

/// A socket of a process that listens.
pub(crate) fn listener(id: u64, pid: u32, at: &str, port: u16) -> Listener {
    Listener {
        id,
        process: Some(key(pid)),
        cgroup_id: 0,
        container_id: None,
        protocol: Protocol::Tcp,
        address: address(at),
        port,
        network_namespace: 0,
    }
}

/// What probes carry out.
fn controls() -> Arc<[Arc<str>]> {
    let ids = [
        "docker_attach_container",
        "docker_exec_container",
        "docker_start_container",
        "docker_restart_container",
        "docker_pause_container",
        "docker_unpause_container",
        "docker_stop_container",
        "docker_remove_container",
        "docker_logs_container",
        "docker_kill_container",
        "kubernetes_get_logs",
        "kubernetes_describe",
        "kubernetes_delete_pod",
        "kubernetes_scale_down",
        "kubernetes_scale_up",
        "kubernetes_cordon_node",
        "kubernetes_uncordon_node",
    ];
    ids.map(Arc::from).into()
}
