//! One host: what is there, and the reports that tell of it. Pure: time and chance come from outside.

use std::collections::BTreeMap;

use proto::probe::v1::flow_key::{Direction, Origin, Protocol};
use proto::probe::v1::report::Kind;
use proto::probe::v1::{
    Container, ContainerMetrics, ContainerState, Flow, FlowCounters, FlowKey, Host, HostMetrics, Image, Process, ProcessKey,
    ProcessMetrics, Report,
};

use crate::random::Random;
use crate::world::{End, Place, SERVICES, World};

/// Linux's clock tick in nanoseconds: starts of processes are multiples of it.
const TICK: u64 = 10_000_000;

/// A host with its containers, processes and flows.
#[derive(Debug)]
pub(crate) struct Node {
    host: u32,
    random: Random,
    containers: Vec<SyntheticContainer>,
    processes: Vec<SyntheticProcess>,
    flows: Vec<SyntheticFlow>,
    next_pid: u32,
    next_flow: u64,
    sequence: u64,
    /// Containers, processes and flows that are due to be replaced, and flows that are due to be counted. Less than nothing where more went with
    /// a container than was due.
    due: [f64; 4],
}

#[derive(Clone, Debug)]
struct SyntheticContainer {
    id: String,
    name: String,
    place: Place,
    made_at: u64,
}

#[derive(Clone, Debug)]
struct SyntheticProcess {
    key: ProcessKey,
    /// In which container, by its place in the list.
    container: Option<usize>,
    service: &'static str,
}

#[derive(Clone, Debug)]
struct SyntheticFlow {
    id: u64,
    end: End,
    first_seen: u64,
    counters: FlowCounters,
}

impl Node {
    /// The host with everything in it. `now`: Unix nanoseconds.
    pub(crate) fn new(world: &World, host: u32, now: u64) -> Self {
        let mut node = Node {
            host,
            random: Random::new(world.seed ^ (u64::from(host) << 20)),
            containers: Vec::new(),
            processes: Vec::new(),
            flows: Vec::new(),
            next_pid: 1_000,
            next_flow: 1,
            sequence: 0,
            due: [0.0; 4],
        };
        // Not every host replaces its first container in the same second, and its tenth.
        node.due = std::array::from_fn(|_| node.random.share());
        for slot in 0..world.part(world.size.containers, host) {
            let container = node.make_container(world, Place { host, slot }, now);
            node.containers.push(container);
        }
        for number in 0..world.part(world.size.processes, host) {
            // Every container has one at least, as long as there are enough; a tenth of the others runs outside of any.
            let containers = u32::try_from(node.containers.len()).unwrap_or(u32::MAX);
            let inside = number < containers || (containers > 0 && node.random.below(10) > 0);
            let container = inside.then(|| (number % containers) as usize);
            let process = node.make_process(world, container, now);
            node.processes.push(process);
        }
        for end in world.ends(host).to_vec() {
            let flow = node.make_flow(end, now);
            node.flows.push(flow);
        }
        node
    }

    fn make_container(&mut self, world: &World, place: Place, now: u64) -> SyntheticContainer {
        let random = &mut self.random;
        let id: String = (0..4).map(|_| format!("{:016x}", random.next())).collect();
        // Whoever sees the name knows when it was made: that is how delays are measured.
        let name = format!("{}-{}-{}-made-{}", world.service(place), place.host, place.slot, now / 1_000_000);
        SyntheticContainer { id, name, place, made_at: now }
    }

    fn make_process(&mut self, world: &World, container: Option<usize>, now: u64) -> SyntheticProcess {
        self.next_pid += 1;
        let service = match container.and_then(|at| self.containers.get(at)) {
            Some(container) => world.service(container.place),
            None => "systemd",
        };
        let key = ProcessKey { pid: self.next_pid, start_time_boot_nanos: now / TICK * TICK };
        SyntheticProcess { key, container, service }
    }

    fn make_flow(&mut self, end: End, now: u64) -> SyntheticFlow {
        let id = self.next_flow;
        self.next_flow += 1;
        SyntheticFlow { id, end, first_seen: now, counters: FlowCounters { opened: 1, ..FlowCounters::default() } }
    }

    /// Everything, as the one part of a snapshot.
    pub(crate) fn snapshot(&mut self, world: &World, now: u64) -> Report {
        let images = SERVICES.iter().map(|service| Image {
            id: image_id(service),
            name: format!("registry.example/{service}:1.4"),
            size_bytes: 50 << 20,
            virtual_size_bytes: 50 << 20,
            labels: BTreeMap::from([("team".to_owned(), format!("{service}-team"))]).into_iter().collect(),
        });
        let mut report = Report {
            host: Some(self.host()),
            images: images.collect(),
            containers: self.containers.iter().map(|it| container(world, it)).collect(),
            processes: self.processes.iter().map(|it| self.process(it)).collect(),
            flows: self.flows.iter().map(|it| self.flow(world, it, true, now)).collect(),
            ..self.report(Kind::SnapshotEnd, now)
        };
        self.sample(&mut report, now);
        report
    }

    /// What has changed when `share` of everything is replaced.
    pub(crate) fn change(&mut self, world: &World, share: f64, now: u64) -> Report {
        let mut report = self.report(Kind::Delta, now);
        let mut replaced = [0.0; 2];
        let lengths = [self.containers.len(), self.processes.len(), self.flows.len(), self.flows.len()];
        for (due, length) in self.due.iter_mut().zip(lengths) {
            *due += share * amount(length);
        }
        let take = |due: &mut f64, length: usize| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
            let count = (due.floor().max(0.0) as usize).min(length);
            *due -= due.floor().max(0.0);
            count
        };
        for _ in 0..take(&mut self.due[0], lengths[0]) {
            self.replace_container(world, &mut report, now);
            // What went with the container is part of the share.
            self.due[1] -= amount(report.processes.len()) - replaced[0];
            self.due[2] -= amount(report.flows.len()) - replaced[1];
            replaced = [amount(report.processes.len()), amount(report.flows.len())];
        }
        for _ in 0..take(&mut self.due[1], lengths[1]) {
            let at = self.any(self.processes.len());
            self.replace_process(world, at, &mut report, now);
        }
        for _ in 0..take(&mut self.due[2], lengths[2]) {
            let at = self.any(self.flows.len());
            report.flows_gone.push(self.flows[at].id);
            let flow = self.make_flow(self.flows[at].end, now);
            report.flows.push(self.flow(world, &flow, true, now));
            self.flows[at] = flow;
        }
        // As many again go on, and are counted.
        for _ in 0..take(&mut self.due[3], lengths[3]) {
            let at = self.any(self.flows.len());
            let bytes = self.random.next() % 100_000;
            let counters = &mut self.flows[at].counters;
            counters.opened += 1;
            counters.closed += 1;
            counters.bytes_sent += bytes;
            counters.bytes_received += bytes / 3;
            counters.rtt_us_sum += 200;
            counters.rtt_count += 1;
            counters.rtt_us_max = counters.rtt_us_max.max(200);
            report.flows.push(self.flow(world, &self.flows[at], false, now));
        }
        report
    }

    fn any(&mut self, length: usize) -> usize {
        self.random.below(u32::try_from(length).unwrap_or(u32::MAX)) as usize
    }

    /// A container is replaced by another in its place, and its processes with it.
    fn replace_container(&mut self, world: &World, report: &mut Report, now: u64) {
        let at = self.any(self.containers.len());
        report.containers_gone.push(self.containers[at].id.clone());
        self.containers[at] = self.make_container(world, self.containers[at].place, now);
        report.containers.push(container(world, &self.containers[at]));
        let inside: Vec<usize> = (0..self.processes.len()).filter(|&it| self.processes[it].container == Some(at)).collect();
        for process in inside {
            self.replace_process(world, process, report, now);
        }
        // Whose ends are in it, told by the new container's id.
        let place = self.containers[at].place;
        for index in 0..self.flows.len() {
            let end = self.flows[index].end;
            if (if end.is_client { end.client } else { end.server }) == place {
                report.flows_gone.push(self.flows[index].id);
                let flow = self.make_flow(end, now);
                report.flows.push(self.flow(world, &flow, true, now));
                self.flows[index] = flow;
            }
        }
    }

    fn replace_process(&mut self, world: &World, at: usize, report: &mut Report, now: u64) {
        report.processes_gone.push(self.processes[at].key);
        self.processes[at] = self.make_process(world, self.processes[at].container, now);
        report.processes.push(self.process(&self.processes[at]));
    }

    /// Adds a sample of everything.
    pub(crate) fn sample(&mut self, report: &mut Report, now: u64) {
        let random = &mut self.random;
        let mut percent = || random.share() * 40.0;
        report.host_metrics.push(HostMetrics {
            at_unix_nanos: now,
            cpu_percent: percent(),
            memory_used_bytes: 20 << 30,
            load1: 2.0,
            load5: 2.0,
            load15: 1.5,
            ..HostMetrics::default()
        });
        report.container_metrics.extend(self.containers.iter().map(|it| ContainerMetrics {
            id: it.id.clone(),
            at_unix_nanos: now,
            cpu_percent: percent(),
            memory_bytes: 300 << 20,
            process_count: 10,
            ..ContainerMetrics::default()
        }));
        report.process_metrics.extend(self.processes.iter().map(|it| ProcessMetrics {
            key: Some(it.key),
            at_unix_nanos: now,
            cpu_percent: percent() / 10.0,
            memory_bytes: 30 << 20,
            open_files: 40,
            open_files_limit: 1_024,
            thread_count: 4,
            ..ProcessMetrics::default()
        }));
    }

    fn report(&mut self, kind: Kind, now: u64) -> Report {
        self.sequence += 1;
        Report { sequence: self.sequence, observed_at_unix_nanos: now, kind: kind.into(), ..Report::default() }
    }

    fn host(&self) -> Host {
        Host {
            host_name: World::host_name(self.host),
            kernel_version: "6.12.0-synthetic".to_owned(),
            os: "linux".to_owned(),
            os_release: "Synthetic".to_owned(),
            booted_at_unix_nanos: 1_700_000_000_000_000_000,
            local_networks: vec!["10.0.0.0/8".to_owned(), "100.64.0.0/10".to_owned(), "127.0.0.0/8".to_owned()],
            addresses: vec![World::host_address(self.host).to_string()],
            cpu_count: 16,
            memory_bytes: 64 << 30,
            architecture: "x86_64".to_owned(),
            boot_id: format!("boot-{}", self.host),
            cloud: None,
        }
    }

    fn container_id(&self, at: Option<usize>) -> String {
        at.and_then(|at| self.containers.get(at)).map(|it| it.id.clone()).unwrap_or_default()
    }

    fn process(&self, process: &SyntheticProcess) -> Process {
        Process {
            key: Some(process.key),
            parent_pid: 1,
            name: format!("/usr/bin/{}", process.service),
            command_line: format!("/usr/bin/{} --listen 0.0.0.0 --workers 4", process.service),
            thread_count: 4,
            container_id: self.container_id(process.container),
            cgroup_path: process.container.map(|at| format!("/docker/{}", self.containers[at].id)).unwrap_or_default(),
            comm: process.service.to_owned(),
            ..Process::default()
        }
    }

    fn flow(&self, world: &World, flow: &SyntheticFlow, whole: bool, now: u64) -> Flow {
        let End { is_client, client, server, port } = flow.end;
        let here = if is_client { client } else { server };
        let at = usize::try_from(here.slot).ok().filter(|at| *at < self.containers.len());
        let process = at.and_then(|at| self.processes.iter().find(|it| it.container == Some(at))).map(|it| it.key);
        let key = whole.then(|| FlowKey {
            process,
            container_id: self.container_id(at),
            direction: if is_client { Direction::Client } else { Direction::Server }.into(),
            protocol: Protocol::Tcp.into(),
            client_address: world.address(client).octets().to_vec(),
            server_address: world.address(server).octets().to_vec(),
            server_port: port.into(),
            origin: Origin::Event.into(),
            sample_client_port: 40_000,
            ..FlowKey::default()
        });
        Flow {
            id: flow.id,
            key,
            counters: Some(flow.counters.clone()),
            first_seen_unix_nanos: flow.first_seen,
            last_active_unix_nanos: now,
            ..Flow::default()
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a host has few things")]
fn amount(count: usize) -> f64 {
    count as f64
}

fn image_id(service: &str) -> String {
    format!("{service:0>64}")
}

fn container(world: &World, it: &SyntheticContainer) -> Container {
    let service = world.service(it.place);
    Container {
        id: it.id.clone(),
        name: it.name.clone(),
        image_id: image_id(service),
        image_name: format!("registry.example/{service}:1.4"),
        command: format!("/usr/bin/{service} --listen 0.0.0.0"),
        state: ContainerState::Running.into(),
        state_human: "Up".to_owned(),
        created_at_unix_nanos: it.made_at,
        started_at_unix_nanos: it.made_at,
        hostname: format!("{service}-{}-{}", it.place.host, it.place.slot),
        labels: [("app".to_owned(), service.to_owned()), ("zone".to_owned(), format!("zone-{}", it.place.host % 3))].into_iter().collect(),
        networks: vec!["overlay".to_owned()],
        addresses: vec![world.address(it.place).to_string()],
        network_mode: "overlay".to_owned(),
        runtime: "docker".to_owned(),
        ..Container::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::world::Size;

    /// What a receiver knows after a snapshot and any number of changes is what the host has.
    #[test]
    fn changes_tell_what_has_changed_and_nothing_else() {
        let world = World::new(Size { hosts: 3, containers: 30, processes: 300, flows: 600 }, 5);
        let mut node = Node::new(&world, 1, 1_000_000_000);
        let snapshot = node.snapshot(&world, 1_000_000_000);
        assert_eq!((snapshot.containers.len(), snapshot.processes.len()), (10, 100));
        assert_eq!(snapshot.container_metrics.len(), 10);
        let mut containers: BTreeSet<String> = snapshot.containers.iter().map(|it| it.id.clone()).collect();
        let mut processes: BTreeSet<u32> = snapshot.processes.iter().filter_map(|it| Some(it.key?.pid)).collect();
        let mut flows: BTreeSet<u64> = snapshot.flows.iter().map(|it| it.id).collect();
        for second in 2..40 {
            let report = node.change(&world, 0.01, second * 1_000_000_000);
            assert_eq!(report.sequence, second);
            for id in &report.containers_gone {
                assert!(containers.remove(id));
            }
            containers.extend(report.containers.iter().map(|it| it.id.clone()));
            processes.extend(report.processes.iter().filter_map(|it| Some(it.key?.pid)));
            for key in &report.processes_gone {
                assert!(processes.remove(&key.pid));
            }
            flows.extend(report.flows.iter().map(|it| it.id));
            for id in &report.flows_gone {
                assert!(flows.remove(id));
            }
        }
        assert_eq!(containers, node.containers.iter().map(|it| it.id.clone()).collect());
        assert_eq!(processes, node.processes.iter().map(|it| it.key.pid).collect());
        assert!(node.flows.iter().all(|it| flows.contains(&it.id)) && flows.len() == node.flows.len());
        assert!(processes.iter().any(|pid| *pid > 1_100), "a third of the processes are others after 38 s");
    }
}
