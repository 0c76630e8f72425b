//! What an hour of a large cluster costs on disk, and how long a moment of it takes to be shown.
//!
//! Time is virtual. Minutes are recorded as fast as it goes and counted up to an hour; the argument says how many. The clock is that of the
//! processor, so that other work on the machine does not count.
#![expect(clippy::print_stdout, reason = "a benchmark prints its numbers")]
#![expect(clippy::unwrap_used, reason = "a benchmark ends with a surprise")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use base::Timestamp;
use history::{Event, Player, Recorder, Settings, Store};
use topology::*;

const HOSTS: u32 = 1_000;
const CONTAINERS: u32 = 10;
const PROCESSES: u32 = 100;
const LANES: u32 = 2;
const METRICS_INTERVAL: u32 = 15;

fn main() {
    // `cargo bench -p history -- survey <file>…`: what a history that is there is made of.
    let mut arguments = std::env::args().skip_while(|argument| argument != "survey").skip(1).filter(|it| !it.starts_with("--")).peekable();
    if arguments.peek().is_some() {
        arguments.for_each(|file| survey(&file));
        return;
    }
    let minutes: u32 = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(6);
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings {
        directory: directory.path().to_owned(),
        keep_for: Duration::from_secs(86_400),
        keep_bytes: 1 << 40,
        segment: Duration::from_secs(120),
    };
    let (mut store, _) = Store::open(settings).unwrap();
    let config = config();
    let mut recorder = Recorder::new(config.limits);
    let mut now = Timestamp::from_unix_millis(1_700_000_000_000);
    let mut hosts: Vec<Machine> = (0..HOSTS).map(|number| Machine { number, generation: 0, container: 0, sequence: 0 }).collect();
    for host in &mut hosts {
        let (probe, hello, report) = host.join();
        recorder.observe(now, Event::Hello { probe: probe.clone(), hello });
        recorder.observe(now, Event::Report { probe, report });
    }
    store.tend(now, &mut recorder);
    println!("cluster: {HOSTS} hosts, {} records", recorder.world().record_count());
    let begin = now;
    let (mut observing, mut writing, mut compacting, mut changes) = (Duration::ZERO, Duration::ZERO, Duration::ZERO, 0_usize);
    for second in 0..minutes * 60 {
        now = now + Duration::from_secs(1);
        let reports: Vec<(ProbeId, Box<Report>)> = hosts.iter_mut().map(|host| host.second(second, now)).collect();
        let used = cpu();
        for (probe, report) in reports {
            recorder.observe(now, Event::Report { probe, report });
        }
        observing += cpu() - used;
        changes += recorder.change_count();
        let used = cpu();
        let tended = store.tend(now, &mut recorder);
        writing += cpu() - used;
        if let Some(ended) = tended.ended {
            let used = cpu();
            history::compact_file(&ended).unwrap();
            compacting += cpu() - used;
            store.compacted(&ended);
        }
    }
    store.sync().unwrap();
    let span = now.since(begin).as_secs_f64();
    let catalogue = store.catalogue().clone();
    // The last segment is not compacted yet: it counts as the others do.
    let segments = catalogue.segments();
    let ended = &segments[..segments.len() - 1];
    let bytes: u64 = ended.iter().map(|segment| segment.bytes).sum();
    let covered = ended.last().unwrap().to.since(begin).as_secs_f64();
    println!("changes: {:.0} a second", changes as f64 / span);
    println!(
        "disk:    {:.0} MB an hour (target < 500 MB), in segments of {:.1} MB",
        bytes as f64 / covered * 3_600.0 / 1e6,
        bytes as f64 / ended.len() as f64 / 1e6
    );
    let share = |used: Duration| used.as_secs_f64() / span * 100.0;
    println!(
        "cost:    {:.2} % of a core to find out what changed, {:.2} % to write it, {:.2} % to compact",
        share(observing),
        share(writing),
        share(compacting)
    );
    let mut all = Vec::new();
    for step in 1..=10_u32 {
        let at = begin + Duration::from_secs_f64(span * f64::from(step) / 10.0 - 1.0);
        let (used, begun) = (cpu(), Instant::now());
        let mut player = Player::open(catalogue.clone(), config, at).unwrap();
        let ready = cpu() - used;
        let hosts = player.snapshot(ViewKey { view: View::Hosts, filter: Filter::DEFAULT }).nodes.len();
        let drawn = cpu() - used - ready;
        let wall = begun.elapsed();
        println!(
            "seek:    {:>4.0} s in: {:.2} s to make the map, {:.3} s for a view of {hosts} ({:.2} s on this machine's clock)",
            at.since(begin).as_secs_f64(),
            ready.as_secs_f64(),
            drawn.as_secs_f64(),
            wall.as_secs_f64()
        );
        all.push(ready + drawn);
        if step == 5 {
            let used = cpu();
            player.forward(at + Duration::from_secs(10)).unwrap();
            println!("play:    {:.1} ms for each second that it goes forward", (cpu() - used).as_secs_f64() * 100.0);
        }
    }
    all.sort();
    println!("seek:    worst {:.2} s (target < 1 s)", all.last().unwrap().as_secs_f64());
}

fn survey(file: &str) {
    let bytes = std::fs::read(file).unwrap();
    println!("{file}: {} bytes", bytes.len());
    for ((is_keyframe, kind), spent) in history::survey(&bytes).unwrap() {
        let part = if is_keyframe { "keyframe" } else { "changes" };
        let each = spent.compressed as f64 / spent.records as f64;
        println!(
            "{part:>8} {kind:<17} {:>8} records {:>10} bytes {:>9} compressed, {each:.1} each",
            spent.records, spent.raw, spent.compressed
        );
    }
}

/// Time that this thread has had the processor.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

fn config() -> Config {
    Config {
        window: Duration::from_secs(15),
        publish_interval: Duration::from_millis(50),
        picture_linger: Duration::from_secs(30),
        picture_nodes: 400_000,
        drawn_at_once: 500,
        limits: Limits {
            probes: 10_000,
            processes: 100_000,
            containers: 10_000,
            flows: 200_000,
            objects: 200_000,
            listeners: 20_000,
            names: 65_536,
            unix_flows: 20_000,
            externals: 256,
        },
    }
}

/// A host, with what it has replaced so far.
struct Machine {
    number: u32,
    generation: u32,
    container: u32,
    sequence: u64,
}

impl Machine {
    fn probe(&self) -> ProbeId {
        name(self.number).into()
    }

    fn join(&mut self) -> (ProbeId, Box<ProbeHello>, Box<Report>) {
        let hello = ProbeHello {
            host_name: self.probe(),
            version: "bench".into(),
            session: "s".into(),
            oldest_held_sequence: 0,
            capture: Capture::default(),
            cluster_name: None,
            controls: [].into(),
        };
        self.sequence = 1;
        let networks = vec![Network { address: address(self.number), prefix_length: 16 }];
        let report = Report {
            sequence: 1,
            kind: ReportKind::SnapshotEnd,
            host: Some(Host { addresses: vec![address(self.number)], local_networks: networks, cpu_count: 16, ..Host::default() }),
            containers: (0..CONTAINERS).map(|slot| self.container(slot, 0)).collect(),
            processes: (0..PROCESSES).map(|slot| self.process(slot, 0)).collect(),
            flows: (0..PROCESSES * LANES).map(|number| self.flow(number % PROCESSES, 0, number / PROCESSES)).collect(),
            ..Report::default()
        };
        (self.probe(), Box::new(hello), Box::new(report))
    }

    /// One in a hundred of everything is replaced, one in a hundred connections has done something, and every 15 s all is sampled.
    fn second(&mut self, second: u32, now: Timestamp) -> (ProbeId, Box<Report>) {
        let mut report = Report::default();
        let slot = self.generation % PROCESSES;
        report.processes_gone.push(self.process(slot, self.generation).key);
        report.flows_gone.extend((0..LANES).map(|lane| self.flow(slot, self.generation, lane).id));
        self.generation += 1;
        report.processes.push(self.process(slot, self.generation));
        report.flows.extend((0..LANES).map(|lane| self.flow(slot, self.generation, lane)));
        for lane in 0..LANES {
            let busy = (slot + 37) % PROCESSES;
            let mut flow = self.flow(busy, self.generation, lane);
            let amount = u64::from(random(self.number, second, lane) % 100_000);
            flow.key = None;
            flow.counters.opened += u64::from(second);
            flow.counters.closed += u64::from(second);
            (flow.counters.bytes_sent, flow.counters.bytes_received) = (amount * u64::from(second), amount);
            flow.last_active = now;
            report.flows.push(flow);
        }
        if (second + self.number).is_multiple_of(10) {
            let slot = self.container % CONTAINERS;
            report.containers_gone.push(self.container(slot, self.container).id);
            self.container += 1;
            report.containers.push(self.container(slot, self.container));
        }
        if (second + self.number).is_multiple_of(METRICS_INTERVAL) {
            self.sample(second, now, &mut report);
        }
        self.sequence += 1;
        (self.probe(), Box::new(Report { sequence: self.sequence, observed_at: now, ..report }))
    }

    /// A fifth of the processes does something.
    fn sample(&self, second: u32, at: Timestamp, report: &mut Report) {
        let load = f64::from(random(self.number, second, 1) % 10_000) / 100.0;
        report.host_metrics.push(HostMetrics {
            at,
            cpu_percent: load,
            memory_used_bytes: u64::from(second) << 20,
            load1: load,
            ..HostMetrics::default()
        });
        report.process_metrics = (0..PROCESSES)
            .map(|slot| {
                let is_busy = slot % 5 == 0;
                ProcessMetrics {
                    key: self.process(slot, self.generation).key,
                    at,
                    cpu_percent: if is_busy { load } else { 0.0 },
                    memory_bytes: u64::from(if is_busy { random(self.number, second, slot) % 1_000_000 } else { slot }) << 12,
                    open_files: 20,
                    open_files_limit: 1_024,
                    thread_count: 4,
                    ..ProcessMetrics::default()
                }
            })
            .collect();
        let samples = (0..CONTAINERS).map(|slot| ContainerMetrics {
            id: self.container(slot, self.container).id,
            at,
            cpu_percent: load,
            memory_bytes: u64::from(random(self.number, second, slot) % 1_000_000) << 12,
            ..ContainerMetrics::default()
        });
        report.container_metrics = samples.collect();
    }

    fn container(&self, slot: u32, generation: u32) -> Container {
        let lives = (generation + CONTAINERS - 1 - slot) / CONTAINERS;
        let part =
            |salt| u64::from(random(self.number, slot * 1_000 + lives, salt)) << 32 | u64::from(random(lives, self.number, salt + slot));
        Container {
            id: format!("{:016x}{:016x}{:016x}{:016x}", part(1), part(2), part(3), part(4)).into(),
            name: format!("service-{}", slot + self.number % 50).into(),
            image_name: format!("registry.example.com/team/service-{}:1.{}", slot + self.number % 50, self.number % 3).into(),
            hostname: format!("service-{slot}").into(),
            state_human: "Up 2 hours".into(),
            labels: (0..8).map(|label| (format!("com.example.label-{label}").into(), "value".into())).collect(),
            ..Container::default()
        }
    }

    fn process(&self, slot: u32, generation: u32) -> Process {
        let lives = (generation + PROCESSES - 1 - slot) / PROCESSES;
        let unique = random(self.number, slot, lives);
        Process {
            key: ProcessKey {
                pid: 1_000 + slot + lives * PROCESSES,
                start_time: u64::from(unique % 1_000_000) * 10_000_000 + u64::from(lives),
            },
            parent_pid: 1,
            name: format!("/usr/bin/worker-{}", slot % 40).into(),
            command_line: format!("/usr/bin/worker-{} --config /etc/worker/config-{slot}.yaml --job {unique:08x}", slot % 40).into(),
            thread_count: 4,
            ..Process::default()
        }
    }

    fn flow(&self, slot: u32, generation: u32, lane: u32) -> Flow {
        let owner = self.process(slot, generation).key;
        let is_client = slot.is_multiple_of(2);
        let (client, server) =
            if is_client { (self.number, (self.number + 1) % HOSTS) } else { ((self.number + HOSTS - 1) % HOSTS, self.number) };
        let key = FlowKey {
            process: Some(owner),
            cgroup_id: 1,
            container_id: None,
            direction: if is_client { Direction::Client } else { Direction::Server },
            protocol: Protocol::Tcp,
            client_address: address(client),
            server_address: address(server),
            server_port: u16::try_from(8_000 + slot / 2 + lane * 1_000).unwrap(),
            network_namespace: 1,
            original_server: None,
            origin: Origin::Event,
            sample_client_port: 0,
        };
        let first_seen = Timestamp::from_unix_millis(1_700_000_000_000 + u64::from(generation) * 1_000);
        let counters = FlowCounters { opened: 3, ..FlowCounters::default() };
        let id = u64::from(owner.pid) * 4 + u64::from(lane);
        Flow { id, key: Some(key), counters, first_seen, last_active: first_seen, ..Flow::default() }
    }
}

fn name(host: u32) -> String {
    format!("host-{host:04}.example.com")
}

fn address(host: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0001 + host))
}

/// Different for different arguments, and the same in every run.
fn random(a: u32, b: u32, c: u32) -> u32 {
    let mut value = a.wrapping_mul(0x9e37_79b9) ^ b.wrapping_mul(0x85eb_ca6b) ^ c.wrapping_mul(0xc2b2_ae35);
    value ^= value >> 16;
    value = value.wrapping_mul(0x7feb_352d);
    value ^= value >> 15;
    value = value.wrapping_mul(0x846c_a68b);
    value ^ (value >> 16)
}
