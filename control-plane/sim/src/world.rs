//! All hosts, the map, and the faults between them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use base::Timestamp;
use orchestrator_control::grpc::convert;
use orchestrator_probe::clock::Now;
use orchestrator_probe::observation::{BootNanos, Counted, Direction, FlowEnd};
use proto::probe::v1;
use topology::{Config, Effect, Filter, Input, Limits, StreamEnd, Topology, View, ViewKey};

use crate::node::{Answer, Link, Node};
use crate::random::Random;

const HOSTS: u8 = 3;
/// Network of the virtual addresses: 203.0.113.0/24.
const VIRTUAL: u32 = 0xcb00_7100;
const BEGIN_UNIX_NANOS: u64 = 1_700_000_000_000_000_000;
const STEP: u64 = 10_000_000;
const PROCESSES_MAX: usize = 30;
const RECONNECT: u64 = 300_000_000;

/// How often things go wrong: once in so many steps of 10 ms on average; 0 is never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A stream breaks, with everything that is on its way.
    pub broken_streams: usize,
    /// The control plane is killed and starts with an empty map.
    pub killed_control_planes: usize,
    /// A probe is killed and starts anew.
    pub killed_probes: usize,
    /// Longest time on the way, in steps.
    pub delay: usize,
}

/// The world.
#[derive(Debug)]
pub struct World {
    random: Random,
    faults: Faults,
    boot: u64,
    nodes: Vec<Node>,
    connections: BTreeMap<u64, Connection>,
    map: Topology,
    reconnect_at: BTreeMap<usize, u64>,
    names: u64,
}

/// An open connection between two processes.
#[derive(Clone, Copy, Debug)]
struct Connection {
    client: (usize, u32, FlowEnd),
    server: (usize, u32, FlowEnd),
}

impl World {
    /// A world in which nothing has happened yet.
    pub fn new(seed: u64, faults: Faults) -> Self {
        World {
            random: Random::new(seed),
            faults,
            boot: 1_000_000_000,
            nodes: (0..HOSTS).map(Node::new).collect(),
            connections: BTreeMap::new(),
            map: map(),
            reconnect_at: BTreeMap::new(),
            names: 0,
        }
    }

    /// Lets time pass in which things happen and go wrong.
    pub fn live(&mut self, steps: usize) {
        for _ in 0..steps {
            self.happen();
            self.go_wrong();
            self.pass();
        }
    }

    /// Lets time pass in which nothing happens and nothing goes wrong.
    pub fn rest(&mut self, steps: usize) {
        self.faults = Faults::default();
        for _ in 0..steps {
            self.pass();
        }
    }

    /// What is true, as the views should show it.
    pub fn truth(&self) -> String {
        let id = |node: usize, pid: u32| format!("{};{pid}", self.nodes[node].name);
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (node, host) in self.nodes.iter().enumerate() {
            edges.extend(host.processes.keys().map(|&pid| (id(node, pid), BTreeSet::new())));
        }
        for connection in self.connections.values() {
            let (client, server) = (connection.client, connection.server);
            edges.entry(id(client.0, client.1)).or_default().insert(id(server.0, server.1));
        }
        let mut text = String::new();
        edges.iter().for_each(|(process, peers)| line(&mut text, process, peers.iter().map(String::as_str)));
        let containers: BTreeSet<&String> = self.nodes.iter().flat_map(|host| host.containers.keys()).collect();
        containers.into_iter().for_each(|container| line(&mut text, &format!("{container};<container>"), std::iter::empty()));
        text
    }

    /// What the map shows.
    pub fn picture(&mut self) -> String {
        let mut text = String::new();
        for view in [View::Processes, View::Containers] {
            let snapshot = self.step(Input::Watch(ViewKey { view, filter: Filter::NONE })).into_iter().find_map(|effect| match effect {
                Effect::Published { key, snapshot } if key.view == view => Some(snapshot),
                _ => None,
            });
            for (id, node) in snapshot.iter().flat_map(|it| it.nodes.iter()) {
                let edges = node.summary().adjacency.iter().map(topology::NodeId::as_str);
                match view {
                    View::Processes => line(&mut text, id.as_str(), edges),
                    _ if node.summary().pseudo => {}
                    _ => line(&mut text, id.as_str(), std::iter::empty()),
                }
            }
        }
        text
    }

    /// What has to hold in the map at any time.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check(&self) -> Result<(), String> {
        self.map.check()
    }

    fn now(&self) -> Now {
        Now { boot: BootNanos(self.boot), unix_nanos: BEGIN_UNIX_NANOS + self.boot }
    }

    fn timestamp(&self) -> Timestamp {
        Timestamp::from_unix_nanos(BEGIN_UNIX_NANOS + self.boot)
    }

    fn step(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.map.step(self.timestamp(), input, &mut effects);
        effects
    }

    // What happens.

    fn happen(&mut self) {
        let node = self.random.below(self.nodes.len());
        match self.random.below(40) {
            0..=4 if self.nodes[node].processes.len() < PROCESSES_MAX => self.start_process(node),
            5..=7 => self.end_process(node),
            8..=14 => self.connect(),
            15..=19 => self.disconnect(),
            20 => self.start_container(node),
            21 => self.remove_container(node),
            _ => {}
        }
    }

    fn start_process(&mut self, node: usize) {
        let now = self.now();
        // Few pids, so that they are used again.
        let pid = 100 + u32::try_from(self.random.below(60)).unwrap_or(0);
        let containers: Vec<String> = self.nodes[node].containers.keys().cloned().collect();
        let container = containers.get(self.random.below(containers.len() * 2)).cloned();
        if !self.nodes[node].processes.contains_key(&pid) {
            self.nodes[node].start_process(now, pid, container);
        }
    }

    fn end_process(&mut self, node: usize) {
        if let Some(pid) = self.any_process(node) {
            self.end_process_of(node, pid);
        }
    }

    fn end_process_of(&mut self, node: usize, pid: u32) {
        let held = self
            .connections
            .iter()
            .filter(|(_, it)| (it.client.0, it.client.1) == (node, pid) || (it.server.0, it.server.1) == (node, pid));
        let held: Vec<u64> = held.map(|(id, _)| *id).collect();
        held.into_iter().for_each(|id| self.close(id));
        // Not in the tick in which it began: the kernel gives no pid out twice that fast.
        let now = self.now();
        self.nodes[node].end_process(now, pid);
        self.boot += STEP;
    }

    fn connect(&mut self) {
        let (from, to) = (self.random.below(self.nodes.len()), self.random.below(self.nodes.len()));
        let (Some(client), Some(server)) = (self.any_process(from), self.any_process(to)) else { return };
        // A port for each server: two processes do not accept on the same one.
        let port = 1_000 + u16::try_from(server).unwrap_or(0);
        let (client_address, server_address) = (self.nodes[from].address, self.nodes[to].address);
        // Some clients ask for an address that only translation knows; the kernel of their host takes them to the server.
        let asked = if self.random.once_in(3) { virtual_address(server_address) } else { server_address };
        let client_end = self.nodes[from].end_of(client, Direction::Client, client_address, asked, port);
        let server_end = self.nodes[to].end_of(server, Direction::Server, client_address, server_address, port);
        let connection = Connection { client: (from, client, client_end), server: (to, server, server_end) };
        self.names += 1;
        self.connections.insert(self.names, connection);
        let now = self.now();
        let opened = Counted { opened: 1, ..Counted::default() };
        self.nodes[from].count(now, client_end, false, opened);
        self.nodes[to].count(now, server_end, false, opened);
    }

    fn disconnect(&mut self) {
        let position = self.random.below(self.connections.len());
        if let Some(&id) = self.connections.keys().nth(position) {
            self.close(id);
        }
    }

    fn close(&mut self, id: u64) {
        let Some(connection) = self.connections.remove(&id) else { return };
        let now = self.now();
        let closed = Counted { closed: 1, bytes_sent: 10, ..Counted::default() };
        for (node, _, end) in [connection.client, connection.server] {
            self.nodes[node].count(now, end, false, closed);
        }
    }

    fn start_container(&mut self, node: usize) {
        self.names += 1;
        let now = self.now();
        let id = format!("{:064x}", self.names);
        let name = format!("app-{}", self.names);
        self.nodes[node].start_container(now, id, name);
    }

    /// A runtime removes a container whose processes have ended.
    fn remove_container(&mut self, node: usize) {
        let position = self.random.below(self.nodes[node].containers.len());
        let Some(id) = self.nodes[node].containers.keys().nth(position).cloned() else { return };
        for pid in self.nodes[node].processes_in(&id) {
            self.end_process_of(node, pid);
        }
        let now = self.now();
        self.nodes[node].remove_container(now, &id);
    }

    fn any_process(&mut self, node: usize) -> Option<u32> {
        let position = self.random.below(self.nodes[node].processes.len());
        self.nodes[node].processes.keys().nth(position).copied()
    }

    // What goes wrong.

    fn go_wrong(&mut self) {
        let node = self.random.below(self.nodes.len());
        if self.random.once_in(self.faults.broken_streams) {
            self.break_stream(node);
        }
        if self.random.once_in(self.faults.killed_control_planes) {
            self.map = map();
            (0..self.nodes.len()).for_each(|node| self.break_stream(node));
        }
        if self.random.once_in(self.faults.killed_probes) {
            self.break_stream(node);
            let now = self.now();
            self.nodes[node].restart_probe(now);
            self.tell_open_connections(node);
        }
    }

    fn break_stream(&mut self, node: usize) {
        let link = std::mem::take(&mut self.nodes[node].link);
        self.nodes[node].publisher.disconnected();
        if let Some(stream) = link.stream {
            let probe = self.nodes[node].name.as_str().into();
            self.step(Input::StreamEnded { probe, stream, end: StreamEnd::Lost });
        }
        self.reconnect_at.insert(node, self.boot + RECONNECT);
    }

    /// What a new probe finds open.
    fn tell_open_connections(&mut self, node: usize) {
        let now = self.now();
        let opened = Counted { opened: 1, ..Counted::default() };
        for connection in self.connections.clone().into_values() {
            for (holder, _, end) in [connection.client, connection.server] {
                if holder == node {
                    self.nodes[node].count(now, end, true, opened);
                }
            }
        }
    }

    // The stream.

    fn pass(&mut self) {
        self.boot += STEP;
        for node in 0..self.nodes.len() {
            self.reconnect(node);
            let now = self.now();
            let due = self.boot + STEP * self.random.below(self.faults.delay + 1) as u64;
            let Node { publisher, link, .. } = &mut self.nodes[node];
            publisher.poll(now);
            while let Some(report) = publisher.take_next() {
                // A stream keeps its order.
                let due = link.reports.back().map_or(due, |(last, _)| due.max(*last));
                link.reports.push_back((due, report));
            }
            self.deliver(node);
        }
        if self.map.next_deadline().is_some_and(|at| at <= self.timestamp()) {
            self.step(Input::Tick);
        }
    }

    fn reconnect(&mut self, node: usize) {
        let waits = self.reconnect_at.get(&node).is_some_and(|&at| at > self.boot);
        if waits || self.nodes[node].link.stream.is_some() {
            return;
        }
        let host = &self.nodes[node];
        let hello = v1::Hello {
            probe_id: host.name.clone(),
            host_name: host.name.clone(),
            version: "sim".to_owned(),
            session_id: format!("session-{}", host.session),
            oldest_held_sequence: host.publisher.oldest_held(),
            ..v1::Hello::default()
        };
        let (probe, hello) = convert::hello(hello).expect("the probe says nothing that is malformed");
        let effects = self.step(Input::Hello { probe, hello });
        for effect in effects {
            if let Effect::Admitted { resume_after_sequence, stream, .. } = effect {
                let host = &mut self.nodes[node];
                host.link = Link { stream: Some(stream), ..Link::default() };
                host.publisher.connected(resume_after_sequence, 4 * 1024);
            }
        }
    }

    fn deliver(&mut self, node: usize) {
        while let Some((due, _)) = self.nodes[node].link.reports.front()
            && *due <= self.boot
        {
            let Some((_, report)) = self.nodes[node].link.reports.pop_front() else { return };
            let answer = self.receive(node, report);
            let due = self.boot + STEP * self.random.below(self.faults.delay + 1) as u64;
            let answers = &mut self.nodes[node].link.answers;
            let due = answers.back().map_or(due, |(last, _)| due.max(*last));
            answers.push_back((due, answer));
        }
        let Node { publisher, link, .. } = &mut self.nodes[node];
        while let Some((due, _)) = link.answers.front()
            && *due <= self.boot
        {
            match link.answers.pop_front() {
                Some((_, Answer::Acknowledged(sequence))) => publisher.acknowledged(sequence),
                Some((_, Answer::Rejected { sequence, snapshot_needed })) => publisher.rejected(sequence, snapshot_needed),
                None => {}
            }
        }
    }

    fn receive(&mut self, node: usize, report: v1::Report) -> Answer {
        let sequence = report.sequence;
        let name = self.nodes[node].name.clone();
        let mut report = report;
        tell_more(&mut report, self.nodes[node].address);
        let converted = convert::report(report, &name, self.timestamp()).expect("the probe reports nothing that is malformed");
        let Some(stream) = self.nodes[node].link.stream else { return Answer::Rejected { sequence, snapshot_needed: false } };
        let effects = self.step(Input::Report { probe: name.as_str().into(), stream, report: converted.report });
        let refused = effects.iter().find_map(|effect| match effect {
            Effect::ReportRefused { refusal } => Some(*refusal),
            _ => None,
        });
        match refused {
            None => Answer::Acknowledged(sequence),
            Some(refusal) => Answer::Rejected { sequence, snapshot_needed: refusal.snapshot_needed() },
        }
    }
}

fn map() -> Topology {
    Topology::new(Config {
        window: Duration::from_secs(15),
        publish_interval: Duration::from_millis(50),
        picture_linger: Duration::from_secs(60),
        picture_nodes: 400_000,
        drawn_at_once: 500,
        limits: Limits {
            probes: 10,
            processes: 1_000,
            containers: 1_000,
            flows: 10_000,
            objects: 10,
            listeners: 1_000,
            names: 1_000,
            unix_flows: 1_000,
            externals: 10,
        },
    })
}

/// An address outside of every network of the world, which leads to `server`.
fn virtual_address(server: IpAddr) -> IpAddr {
    match server {
        IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from_bits(VIRTUAL | (address.to_bits() & 0xff))),
        IpAddr::V6(_) => server,
    }
}

/// What a host's kernel and resolver know besides: where the client was taken, what it called the address that it asked for, and who listens.
/// All of it is absolute, so it may be told again with every record that it belongs to.
fn tell_more(report: &mut v1::Report, own: IpAddr) {
    for flow in &mut report.flows {
        let Some(key) = &flow.key else { continue };
        let Ok(asked) = <[u8; 4]>::try_from(key.server_address.as_slice()).map(u32::from_be_bytes) else { continue };
        if asked & 0xffff_ff00 != VIRTUAL {
            continue;
        }
        flow.translations = vec![v1::Translation {
            server_address: vec![10, 0, 0, key.server_address[3]],
            server_port: key.server_port,
            connections: 1,
            source: v1::translation::Source::Conntrack.into(),
            ..v1::Translation::default()
        }];
        // A name for which there would be a node, if the client were really there.
        let name = v1::resolved_address::Name { name: format!("service-{}.amazonaws.com", asked & 0xff), ..Default::default() };
        report.resolved_addresses.push(v1::ResolvedAddress { address: key.server_address.clone(), names: vec![name] });
    }
    let IpAddr::V4(own) = own else { return };
    let alive = report.processes.iter().filter(|process| process.exited_at_unix_nanos == 0);
    let listeners = alive.filter_map(|process| {
        let key = process.key?;
        Some(v1::Listener {
            id: u64::from(key.pid),
            process: Some(key),
            protocol: v1::flow_key::Protocol::Tcp.into(),
            address: own.octets().to_vec(),
            port: 1_000 + key.pid,
            ..v1::Listener::default()
        })
    });
    report.listeners.extend(listeners);
}

fn line<'a>(text: &mut String, node: &str, edges: impl Iterator<Item = &'a str>) {
    let edges: Vec<&str> = edges.collect();
    let arrow = if edges.is_empty() { "" } else { " -> " };
    // Writing to a text cannot fail.
    let _ = writeln!(text, "{node}{arrow}{}", edges.join(", "));
}
