//! One host: what is true there, and the probe that tells of it.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

use orchestrator_probe::clock::Now;
use orchestrator_probe::containers::{ContainerFacts, Source};
use orchestrator_probe::observation::{BootNanos, Counted, Direction, FlowEnd, Observation, ProcessStarted, Protocol};
use orchestrator_probe::processes::Details;
use orchestrator_probe::publisher::{Limits, Publisher};
use orchestrator_probe::report::Builder;
use proto::probe::v1;
use topology::StreamId;

const TICK: u64 = 10_000_000;

/// A host of the world.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) address: IpAddr,
    pub(crate) processes: BTreeMap<u32, TrueProcess>,
    pub(crate) containers: BTreeMap<String, String>,
    pub(crate) publisher: Publisher,
    /// Which start of the probe this is.
    pub(crate) session: u64,
    pub(crate) link: Link,
}

/// A process that lives.
#[derive(Clone, Debug)]
pub(crate) struct TrueProcess {
    pub(crate) start_time: BootNanos,
    pub(crate) container: Option<String>,
}

/// The stream between a probe and the map, with what is on its way.
#[derive(Debug, Default)]
pub(crate) struct Link {
    pub(crate) stream: Option<StreamId>,
    pub(crate) reports: VecDeque<(u64, v1::Report)>,
    pub(crate) answers: VecDeque<(u64, Answer)>,
}

/// What comes back to a probe.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    Acknowledged(u64),
    Rejected { sequence: u64, snapshot_needed: bool },
}

impl Node {
    pub(crate) fn new(number: u8) -> Self {
        let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, number + 1));
        let mut node = Node {
            name: format!("host-{number}"),
            address,
            processes: BTreeMap::new(),
            containers: BTreeMap::new(),
            publisher: publisher(),
            session: 1,
            link: Link::default(),
        };
        node.tell_host();
        node
    }

    /// The probe ends without a word, and a new one looks at what is there. Connections are told by the world, which knows both ends.
    pub(crate) fn restart_probe(&mut self, now: Now) {
        self.publisher = publisher();
        self.session += 1;
        self.link = Link::default();
        self.tell_host();
        for (id, name) in self.containers.clone() {
            self.publisher.builder.put_container(now, facts(&id, &name));
        }
        for (pid, process) in self.processes.clone() {
            self.publisher.builder.described(&details(pid, &process));
        }
    }

    fn tell_host(&mut self) {
        self.publisher.builder.set_host(v1::Host {
            host_name: self.name.clone(),
            addresses: vec![self.address.to_string()],
            local_networks: vec![format!("{}/24", self.address)],
            cpu_count: 2,
            memory_bytes: 1 << 30,
            ..v1::Host::default()
        });
    }

    pub(crate) fn start_process(&mut self, now: Now, pid: u32, container: Option<String>) {
        let start_time = BootNanos(now.boot.0 / TICK * TICK);
        let process = TrueProcess { start_time, container };
        let started = ProcessStarted {
            at: now.boot,
            pid,
            parent_pid: 1,
            start_time: Some(start_time),
            comm: "work".into(),
            ..ProcessStarted::default()
        };
        self.observe(Observation::ProcessStarted(started));
        self.publisher.builder.described(&details(pid, &process));
        self.processes.insert(pid, process);
    }

    pub(crate) fn end_process(&mut self, now: Now, pid: u32) {
        if let Some(process) = self.processes.remove(&pid) {
            self.observe(Observation::ProcessExited { at: now.boot, pid, start_time: Some(process.start_time), status: 0 });
        }
    }

    pub(crate) fn processes_in(&self, container: &str) -> Vec<u32> {
        let inside = |process: &TrueProcess| process.container.as_deref() == Some(container);
        self.processes.iter().filter(|(_, process)| inside(process)).map(|(pid, _)| *pid).collect()
    }

    pub(crate) fn start_container(&mut self, now: Now, id: String, name: String) {
        self.publisher.builder.put_container(now, facts(&id, &name));
        self.containers.insert(id, name);
    }

    pub(crate) fn remove_container(&mut self, now: Now, id: &str) {
        self.containers.remove(id);
        self.publisher.builder.remove_container(now, Source::Docker, id);
    }

    pub(crate) fn count(&mut self, now: Now, end: FlowEnd, found_open: bool, delta: Counted) {
        if delta.opened > 0 {
            self.observe(Observation::FlowSeen { at: now.boot, end, client_port: 0, original_server: None, found_open });
        }
        self.observe(Observation::FlowCounted { last_active: now.boot, end, delta });
    }

    /// One end of a connection that a process of this host holds.
    pub(crate) fn end_of(&self, pid: u32, direction: Direction, client: IpAddr, server: IpAddr, port: u16) -> FlowEnd {
        FlowEnd {
            pid,
            start_time: self.processes.get(&pid).map(|process| process.start_time),
            cgroup_id: 0,
            network_namespace: 1,
            direction,
            protocol: Protocol::Tcp,
            client_address: client,
            server_address: server,
            server_port: port,
        }
    }

    fn observe(&mut self, observation: Observation) {
        // Everything that the builder would like to know of a process it is told at once.
        self.publisher.builder.observe(observation, &mut Vec::new());
    }
}

/// Small limits, so that snapshots come in parts and the outbox overflows.
fn publisher() -> Publisher {
    Publisher::new(Builder::default(), Limits { held_bytes: 24 * 1024, report_bytes: (4 * 1024, 4 * 1024) })
}

fn details(pid: u32, process: &TrueProcess) -> Details {
    Details {
        pid,
        start_time: process.start_time,
        parent_pid: 1,
        comm: "work".to_owned(),
        name: format!("/bin/work-{}", pid % 5),
        command_line: format!("/bin/work-{} --pid {pid}", pid % 5),
        without_command_line: false,
        user_id: 0,
        thread_count: 1,
        cgroup_path: process.container.as_ref().map_or_else(|| "/".to_owned(), |id| format!("/docker/{id}")),
    }
}

fn facts(id: &str, name: &str) -> ContainerFacts {
    let record = v1::Container {
        id: id.to_owned(),
        name: name.to_owned(),
        image_name: "app:1".to_owned(),
        state: v1::ContainerState::Running.into(),
        runtime: "docker".to_owned(),
        ..v1::Container::default()
    };
    ContainerFacts { source: Source::Docker, record, ..ContainerFacts::default() }
}
