//! A large cluster in one map: does one core keep up, how long does a view take, what does a node cost.
//!
//! Time is virtual: a simulated minute is worked off as fast as it goes, and the share of a core is the work divided by that minute.
#![expect(clippy::print_stdout, reason = "a benchmark prints its numbers")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures with a clock and an allocator that counts")]
#![expect(unsafe_code, reason = "the counting allocator passes every call on to the system's")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base::Timestamp;
use topology::*;

struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator with the arguments that came in; counting touches no memory of the caller.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's layout, unchanged.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's pointer and layout, unchanged.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const HOSTS: u32 = 1_000;
const CONTAINERS: u32 = 10;
const PROCESSES: u32 = 100;
const FLOWS: u32 = 200;
const METRICS_INTERVAL: u32 = 15;
const SECONDS: u32 = 60;

struct Cluster {
    map: Topology,
    now: Timestamp,
    streams: Vec<(StreamId, u64)>,
    effects: Vec<Effect>,
    published: u64,
    /// Replaced processes so far, by host: the offset of their pids.
    generation: Vec<u32>,
}

fn main() {
    let mut cluster = Cluster::new();
    let before = ALLOCATED.load(Ordering::Relaxed);
    let begun = Instant::now();
    for host in 0..HOSTS {
        cluster.join(host);
    }
    let nodes = u64::from(HOSTS) * u64::from(1 + CONTAINERS + PROCESSES);
    let unwatched = ALLOCATED.load(Ordering::Relaxed) - before;
    println!("cluster: {HOSTS} hosts, {} containers, {} processes, {} flow ends", HOSTS * CONTAINERS, HOSTS * PROCESSES, HOSTS * FLOWS);
    println!("load:    {:.2} s for all snapshots", begun.elapsed().as_secs_f64());
    println!("memory:  {} bytes a node ({} MB), nobody watching", unwatched as u64 / nodes, unwatched >> 20);

    let alone = cluster.run(&[]);
    println!("steady:  {:.1} % of one core, nobody watching (target < 30 %)", alone);
    let views = [View::Processes, View::ProcessesByName, View::Containers, View::ContainersByImage, View::Hosts];
    let watched: Vec<ViewKey> = views.into_iter().map(|view| ViewKey { view, filter: Filter::DEFAULT }).collect();
    for key in &watched {
        let begun = Instant::now();
        cluster.step(Input::Watch(*key));
        println!("draw:    {:<22} {:>7.1} ms for the first watcher", key.view.id(), begun.elapsed().as_secs_f64() * 1e3);
    }
    let with_pictures = cluster.run(&watched);
    println!("steady:  {:.1} % of one core, five views watched (target < 30 %; x {:.2})", with_pictures, with_pictures / alone.max(0.01));
    println!("publish: {} pictures went out", cluster.published);
    let total = ALLOCATED.load(Ordering::Relaxed) - before;
    println!("memory:  {} bytes a node ({} MB), five views watched", total as u64 / nodes, total >> 20);
    for key in &watched {
        println!("view:    {:<22} p95 {:>7.3} ms (target < 50 ms)", key.view.id(), cluster.view_p95_ms(*key));
    }
    cluster.search();
    let with_index = cluster.run(&watched);
    println!("steady:  {with_index:.1} % of one core, five views watched and searched (target < 30 %)");
    println!("panel:   host                   p95 {:>7.3} ms (target < 50 ms)", cluster.panel_p95_ms());
}

impl Cluster {
    fn new() -> Self {
        let config = Config {
            window: Duration::from_secs(15),
            publish_interval: Duration::from_millis(50),
            picture_linger: Duration::from_secs(60),
            picture_nodes: 400_000,
            drawn_at_once: 500,
            limits: Limits {
                probes: 10_000,
                processes: 65_536,
                containers: 10_000,
                flows: 131_072,
                objects: 200_000,
                listeners: 16_384,
                names: 65_536,
                unix_flows: 65_536,
                externals: 256,
            },
        };
        Cluster {
            map: Topology::new(config),
            now: Timestamp::from_unix_millis(1_700_000_000_000),
            streams: Vec::new(),
            effects: Vec::new(),
            published: 0,
            generation: vec![0; HOSTS as usize],
        }
    }

    fn step(&mut self, input: Input) {
        self.map.step(self.now, input, &mut self.effects);
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Admitted { stream, .. } => self.streams.push((stream, 0)),
                Effect::Published { .. } => self.published += 1,
                Effect::Refused { reason } => panic!("refused: {reason}"),
                Effect::ReportRefused { refusal } => panic!("refused: {refusal}"),
                _ => {}
            }
        }
    }

    fn report(&mut self, host: u32, report: Report) {
        let (stream, sequence) = &mut self.streams[host as usize];
        *sequence += 1;
        let report = Report { sequence: *sequence, observed_at: self.now, ..report };
        let input = Input::Report { probe: name(host).into(), stream: *stream, report: Box::new(report) };
        self.step(input);
    }

    fn join(&mut self, host: u32) {
        let hello = ProbeHello {
            host_name: name(host).into(),
            version: "bench".into(),
            session: "s".into(),
            oldest_held_sequence: 0,
            capture: Capture::default(),
            cluster_name: None,
            controls: [].into(),
        };
        self.step(Input::Hello { probe: name(host).into(), hello });
        let snapshot = Report {
            kind: ReportKind::SnapshotEnd,
            host: Some(Host {
                addresses: vec![address(host), IpAddr::V4(Ipv4Addr::new(172, 17, 0, 1))],
                local_networks: vec![
                    Network { address: address(host), prefix_length: 16 },
                    Network { address: IpAddr::V4(Ipv4Addr::new(172, 17, 0, 1)), prefix_length: 16 },
                ],
                cpu_count: 16,
                memory_bytes: 64 << 30,
                ..Host::default()
            }),
            containers: (0..CONTAINERS).map(|number| container(host, number)).collect(),
            processes: (0..PROCESSES).map(|slot| process(host, slot, 0)).collect(),
            flows: (0..FLOWS).map(|number| flow(host, number % PROCESSES, 0, number / PROCESSES)).collect(),
            ..Report::default()
        };
        self.report(host, snapshot);
    }

    /// A simulated minute: every host reports metrics every 15 s, and 1 % of all processes are replaced each second, with their flows.
    fn run(&mut self, _watched: &[ViewKey]) -> f64 {
        let mut busy = Duration::ZERO;
        for second in 0..SECONDS {
            let step = Duration::from_secs(1) / HOSTS;
            for host in 0..HOSTS {
                self.now = self.now + step;
                let mut report = Report::default();
                if (second + host).is_multiple_of(METRICS_INTERVAL) {
                    report = self.metrics(host);
                }
                self.churn(host, &mut report);
                let begun = Instant::now();
                self.report(host, report);
                if self.map.next_deadline().is_some_and(|at| at <= self.now) {
                    self.step(Input::Tick);
                }
                busy += begun.elapsed();
            }
        }
        busy.as_secs_f64() / f64::from(SECONDS) * 100.0
    }

    fn metrics(&self, host: u32) -> Report {
        let at = self.now;
        let generation = self.generation[host as usize];
        let load = f64::from(host % 7) + at.unix_millis() as f64 / 1e12;
        Report {
            host_metrics: vec![HostMetrics { at, cpu_percent: load, memory_used_bytes: 1 << 30, load1: load, ..HostMetrics::default() }],
            process_metrics: (0..PROCESSES)
                .map(|slot| ProcessMetrics {
                    key: process(host, slot, generation).key,
                    at,
                    cpu_percent: load + f64::from(slot),
                    memory_bytes: at.unix_millis() % 1_000_000_007,
                    open_files: slot,
                    open_files_limit: 1024,
                    thread_count: 4,
                    ..ProcessMetrics::default()
                })
                .collect(),
            container_metrics: (0..CONTAINERS)
                .map(|number| ContainerMetrics {
                    id: container(host, number).id,
                    at,
                    cpu_percent: load,
                    memory_bytes: at.unix_millis(),
                    memory_limit_bytes: 0,
                    ..ContainerMetrics::default()
                })
                .collect(),
            ..Report::default()
        }
    }

    /// One of the hundred processes of a host ends and another begins; so do its flows.
    fn churn(&mut self, host: u32, report: &mut Report) {
        let generation = &mut self.generation[host as usize];
        let slot = *generation % PROCESSES;
        let old = process(host, slot, *generation).key;
        report.processes_gone.push(old);
        let lanes = FLOWS / PROCESSES;
        report.flows_gone.extend((0..lanes).map(|lane| flow(host, slot, *generation, lane).id));
        *generation += 1;
        report.processes.push(process(host, slot, *generation));
        report.flows.extend((0..lanes).map(|lane| flow(host, slot, *generation, lane)));
    }

    fn view_p95_ms(&mut self, key: ViewKey) -> f64 {
        let mut spans = Vec::new();
        for host in 0..100 {
            let mut report = Report::default();
            self.churn(host, &mut report);
            self.report(host, report);
            let begun = Instant::now();
            self.step(Input::Watch(key));
            spans.push(begun.elapsed());
        }
        p95(spans)
    }

    /// Searches of every kind, each after a change of a hundred hosts.
    fn search(&mut self) {
        let before = ALLOCATED.load(Ordering::Relaxed);
        let find = |cluster: &mut Cluster, words: &str| {
            let query = SearchQuery { query: Query::parse(words).expect("a query of this file"), view: None, after: None, limit: 50 };
            cluster.map.search(cluster.now, &query)
        };
        let begun = Instant::now();
        find(self, "nothing");
        let bytes = ALLOCATED.load(Ordering::Relaxed) - before;
        let nodes = u64::from(HOSTS) * u64::from(1 + CONTAINERS + PROCESSES);
        println!(
            "search:  index made in {:.2} s, {} MB, {} bytes a node",
            begun.elapsed().as_secs_f64(),
            bytes >> 20,
            bytes as u64 / nodes
        );
        let mut all = Vec::new();
        for words in SEARCHES {
            let mut spans = Vec::new();
            let mut total = 0;
            for round in 0..20 {
                for host in round * 5..round * 5 + 5 {
                    let mut report = Report::default();
                    self.churn(host, &mut report);
                    self.report(host, report);
                }
                let begun = Instant::now();
                total = find(self, words).total;
                spans.push(begun.elapsed());
            }
            all.extend(spans.iter().copied());
            println!("search:  {words:<44} p95 {:>7.3} ms, {total} found", p95(spans));
        }
        println!("search:  all of these                                 p95 {:>7.3} ms (target < 50 ms)", p95(all));
    }

    fn panel_p95_ms(&self) -> f64 {
        let spans = (0..100).map(|host| {
            let key = ViewKey { view: View::Hosts, filter: Filter::DEFAULT };
            let begun = Instant::now();
            let details = self.map.details(self.now, key, &format!("{};<host>", name(host)).into());
            assert!(details.is_some_and(|details| !details.children.is_empty()));
            begun.elapsed()
        });
        p95(spans.collect())
    }
}

const SEARCHES: [&str; 14] = [
    "worker-7",
    "WORKER",
    "host-0123",
    "host-0123.example.com (1042)",
    "config-1[0-9].yaml",
    "service-(3|4)$",
    "nosuchthing",
    "pid: 1042",
    "cpu > 5 AND memory > 1k",
    "hosts: host-01 AND NOT command: verbose",
    "image: service-12 OR label: worker-39",
    "label: ^service-7$",
    "[0-9]{4}",
    "w.*r",
];

fn p95(mut spans: Vec<Duration>) -> f64 {
    spans.sort();
    spans[spans.len() * 95 / 100].as_secs_f64() * 1e3
}

fn name(host: u32) -> String {
    format!("host-{host:04}.example.com")
}

fn address(host: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0001 + host))
}

fn container(host: u32, number: u32) -> Container {
    Container {
        id: format!("{host:032x}{number:032x}").into(),
        name: format!("service-{}", number + host % 50).into(),
        image_name: format!("registry.example.com/team/service-{}:1.{}", number + host % 50, host % 3).into(),
        hostname: format!("service-{number}").into(),
        state_human: "Up 2 hours".into(),
        labels: (0..8).map(|label| (format!("com.example.label-{label}").into(), "value".into())).collect(),
        ..Container::default()
    }
}

/// The process in a slot; churn starts it anew with the next pid. Slots below the number of containers are in one.
fn process(host: u32, slot: u32, generation: u32) -> Process {
    let lives = (generation + PROCESSES - 1 - slot) / PROCESSES;
    Process {
        key: ProcessKey { pid: 1_000 + slot + lives * PROCESSES, start_time: u64::from(lives) * 10_000_000 },
        parent_pid: 1,
        name: format!("/usr/bin/worker-{}", slot % 40).into(),
        command_line: format!("/usr/bin/worker-{} --config /etc/worker/config-{slot}.yaml --verbose", slot % 40).into(),
        thread_count: 4,
        container_id: (slot < CONTAINERS * 8).then(|| container(host, slot % CONTAINERS).id),
        ..Process::default()
    }
}

/// Even slots are clients of the next host's odd slots, on one port for each lane.
fn flow(host: u32, slot: u32, generation: u32, lane: u32) -> Flow {
    let owner = process(host, slot, generation).key;
    let is_client = slot.is_multiple_of(2);
    let (client, server) = if is_client { (host, (host + 1) % HOSTS) } else { ((host + HOSTS - 1) % HOSTS, host) };
    let port = u16::try_from(8_000 + slot / 2 + lane * 1_000).expect("a hundred slots and few lanes");
    let key = FlowKey {
        process: Some(owner),
        cgroup_id: 1,
        container_id: None,
        direction: if is_client { Direction::Client } else { Direction::Server },
        protocol: Protocol::Tcp,
        client_address: address(client),
        server_address: address(server),
        server_port: port,
        network_namespace: 1,
        original_server: None,
        origin: Origin::Event,
        sample_client_port: 0,
    };
    let id = u64::from(slot) + u64::from(owner.pid) * 1_000 + u64::from(lane) * 1_000_000_000;
    Flow { id, key: Some(key), counters: FlowCounters { opened: 3, ..FlowCounters::default() }, ..Flow::default() }
}
