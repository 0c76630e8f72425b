use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use proto::probe::v1::{Container, Flow, Listener, Process, report::Kind};

use super::*;
use crate::containers::{ContainerFacts, Source};
use crate::observation::{Counted, Direction, FlowEnd, ListenerOpened, Observation, ProcessStarted, Protocol};
use crate::report::SnapshotCursor;

const MS: u64 = 1_000_000;

fn now(ms: u64) -> Now {
    Now { boot: BootNanos(ms * MS), unix_nanos: 1_700_000_000_000_000_000 + ms * MS }
}

/// A receiver that follows the rules of the stream, as the control plane does.
#[derive(Debug, Default)]
struct Receiver {
    sequence: u64,
    complete: bool,
    in_snapshot: bool,
    state: State,
    named: State,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    processes: BTreeMap<(u32, u64), Process>,
    containers: BTreeMap<String, Container>,
    flows: BTreeMap<u64, Flow>,
    listeners: BTreeMap<u64, Listener>,
}

impl Receiver {
    fn welcome(&mut self, oldest_held: u64) -> u64 {
        self.in_snapshot = false;
        let holds_next = oldest_held != 0 && oldest_held <= self.sequence + 1;
        if self.complete && holds_next { self.sequence } else { 0 }
    }

    fn apply(&mut self, report: Report) {
        if report.sequence <= self.sequence {
            return;
        }
        match report.kind() {
            Kind::Delta => {
                assert!(self.complete && !self.in_snapshot, "a delta before a snapshot");
                assert_eq!(report.sequence, self.sequence + 1, "a gap");
            }
            Kind::SnapshotPart | Kind::SnapshotEnd if self.in_snapshot => {
                assert_eq!(report.sequence, self.sequence + 1, "a gap in a snapshot")
            }
            Kind::SnapshotPart | Kind::SnapshotEnd => {
                self.in_snapshot = true;
                self.named = State::default();
            }
            Kind::Unspecified => panic!("a report without a kind"),
        }
        self.sequence = report.sequence;
        let kind = report.kind();
        self.state.apply(&report);
        if kind != Kind::Delta {
            self.named.apply(&report);
        }
        if kind == Kind::SnapshotEnd {
            self.state = std::mem::take(&mut self.named);
            self.in_snapshot = false;
            self.complete = true;
        }
    }
}

impl State {
    fn apply(&mut self, report: &Report) {
        for process in &report.processes {
            let key = process.key.unwrap();
            self.processes.insert((key.pid, key.start_time_boot_nanos), process.clone());
        }
        for container in &report.containers {
            self.containers.insert(container.id.clone(), container.clone());
        }
        for flow in &report.flows {
            let key = flow.key.clone().or_else(|| self.flows.get(&flow.id)?.key.clone());
            assert!(key.is_some(), "flow {} is counted before it is named", flow.id);
            self.flows.insert(flow.id, Flow { key, ..flow.clone() });
        }
        report.listeners.iter().for_each(|it| drop(self.listeners.insert(it.id, it.clone())));
        report.listeners_gone.iter().for_each(|id| drop(self.listeners.remove(id)));
        report.flows_gone.iter().for_each(|id| drop(self.flows.remove(id)));
        report.processes_gone.iter().for_each(|key| drop(self.processes.remove(&(key.pid, key.start_time_boot_nanos))));
        report.containers_gone.iter().for_each(|id| drop(self.containers.remove(id)));
    }

    /// All of it but when it happened.
    fn timeless(&self) -> State {
        let mut state = self.clone();
        state.processes.values_mut().for_each(|it| it.exited_at_unix_nanos = u64::from(it.exited_at_unix_nanos != 0));
        for flow in state.flows.values_mut() {
            (flow.first_seen_unix_nanos, flow.last_active_unix_nanos) = (0, 0);
        }
        state
    }

    /// What a snapshot of the builder says, in one part.
    fn of(builder: &mut Builder, now: Now) -> State {
        let mut state = State::default();
        let mut cursor = SnapshotCursor::default();
        while let Some(part) = builder.next_part(&mut cursor, now, usize::MAX) {
            state.apply(&part);
        }
        state
    }
}

#[derive(Clone, Debug)]
enum Step {
    Listen {
        pid: u32,
        socket: u64,
    },
    Unlisten {
        socket: u64,
    },
    Start {
        pid: u32,
    },
    Exec {
        pid: u32,
    },
    Exit {
        pid: u32,
    },
    Flow {
        pid: u32,
        port: u16,
    },
    Count {
        pid: u32,
        port: u16,
        opened: u64,
        closed: u64,
    },
    Container {
        id: u8,
    },
    ContainerGone {
        id: u8,
    },
    Pass {
        ms: u64,
    },
    /// The machine sleeps: the boot clock goes on and nothing runs.
    Sleep {
        hours: u64,
    },
    /// Somebody sets the clock of the wall.
    SetClock {
        days: i64,
    },
    /// Reports leave the probe.
    Send {
        count: usize,
    },
    /// Reports arrive, and are acknowledged.
    Arrive {
        count: usize,
    },
    /// Acknowledgements arrive.
    Acknowledge,
    Connect,
    Disconnect,
    /// The control plane loses everything it knew.
    Forget,
    /// The control plane does not apply the next report and asks for a snapshot.
    Reject,
}

fn step() -> impl Strategy<Value = Step> {
    let pid = 1_u32..6;
    let port = 1_u16..5;
    prop_oneof![
        2 => (pid.clone(), 0_u64..6).prop_map(|(pid, socket)| Step::Listen { pid, socket }),
        1 => (0_u64..6).prop_map(|socket| Step::Unlisten { socket }),
        3 => pid.clone().prop_map(|pid| Step::Start { pid }),
        2 => pid.clone().prop_map(|pid| Step::Exec { pid }),
        2 => pid.clone().prop_map(|pid| Step::Exit { pid }),
        2 => (pid.clone(), port.clone()).prop_map(|(pid, port)| Step::Flow { pid, port }),
        3 => (pid, port, 0_u64..3, 0_u64..3).prop_map(|(pid, port, opened, closed)| Step::Count { pid, port, opened, closed }),
        1 => (0_u8..4).prop_map(|id| Step::Container { id }),
        1 => (0_u8..4).prop_map(|id| Step::ContainerGone { id }),
        5 => prop_oneof![Just(15_u64), Just(60), Just(1_100), Just(16_000), Just(61_000)].prop_map(|ms| Step::Pass { ms }),
        1 => (1_u64..200).prop_map(|hours| Step::Sleep { hours }),
        1 => (-4_000_i64..4_000).prop_map(|days| Step::SetClock { days }),
        4 => (1_usize..4).prop_map(|count| Step::Send { count }),
        4 => (1_usize..4).prop_map(|count| Step::Arrive { count }),
        3 => Just(Step::Acknowledge),
        3 => Just(Step::Connect),
        1 => Just(Step::Disconnect),
        1 => Just(Step::Forget),
        1 => Just(Step::Reject),
    ]
}

/// The probe, the network and the receiver.
struct World {
    publisher: Publisher,
    receiver: Receiver,
    connected: bool,
    wire: VecDeque<Report>,
    acknowledgements: VecDeque<u64>,
    ms: u64,
    /// How far the clock of the wall was set.
    days: i64,
}

impl World {
    fn new(held_bytes: usize, report_bytes: usize) -> Self {
        let limits = Limits { held_bytes, report_bytes: (report_bytes, report_bytes) };
        World {
            publisher: Publisher::new(Builder::default(), limits),
            receiver: Receiver::default(),
            connected: false,
            wire: VecDeque::new(),
            acknowledgements: VecDeque::new(),
            ms: 1_000,
            days: 0,
        }
    }

    fn now(&self) -> Now {
        let at = now(self.ms);
        Now { unix_nanos: at.unix_nanos.saturating_add_signed(self.days * 86_400_000 * MS.cast_signed()), ..at }
    }

    fn step(&mut self, step: Step) {
        let at = BootNanos(self.ms * MS);
        match step {
            Step::Start { pid } => {
                let started =
                    ProcessStarted { at, pid, parent_pid: 1, start_time: Some(at), comm: "forked".to_owned(), ..ProcessStarted::default() };
                self.observe(Observation::ProcessStarted(started));
            }
            Step::Listen { pid, socket } => {
                // Now and then one of a socket that was used before: the kernel's numbers are not, but bad input is no reason to differ.
                let opened = ListenerOpened {
                    at,
                    socket,
                    pid,
                    start_time: None,
                    cgroup_id: 0,
                    network_namespace: 1,
                    protocol: if socket % 2 == 0 { Protocol::Tcp } else { Protocol::Udp },
                    address: "0.0.0.0".parse().unwrap(),
                    port: 80,
                };
                self.observe(Observation::ListenerOpened(opened));
            }
            Step::Unlisten { socket } => self.observe(Observation::ListenerClosed { at, socket }),
            Step::Exec { pid } => {
                let comm = format!("program-{}", self.ms);
                self.observe(Observation::ProcessExecuted { at, pid, start_time: None, comm, cgroup_id: 0, user_id: 0 });
            }
            Step::Exit { pid } => self.observe(Observation::ProcessExited { at, pid, start_time: None, status: 1 }),
            Step::Flow { pid, port } => {
                self.observe(Observation::FlowSeen { at, end: end(pid, port), client_port: 9, original_server: None, found_open: false });
            }
            Step::Count { pid, port, opened, closed } => {
                let delta = Counted { opened, closed, bytes_sent: 7, ..Counted::default() };
                self.observe(Observation::FlowCounted { last_active: at, end: end(pid, port), delta });
            }
            Step::Container { id } => {
                let record = Container { id: format!("container-{id}"), name: format!("name-{}", self.ms), ..Container::default() };
                let now = self.now();
                self.publisher.builder.put_container(now, ContainerFacts { record, ..ContainerFacts::default() });
            }
            Step::ContainerGone { id } => {
                let now = self.now();
                self.publisher.builder.remove_container(now, Source::Cgroup, &format!("container-{id}"));
            }
            Step::Pass { ms } => {
                self.ms += ms;
                self.publisher.poll(self.now());
            }
            Step::Sleep { hours } => self.ms += hours * 3_600_000,
            Step::SetClock { days } => self.days = days,
            Step::Send { count } => {
                let sent = std::iter::from_fn(|| self.publisher.take_next()).take(count);
                self.wire.extend(sent);
            }
            Step::Arrive { count } => {
                for report in self.wire.drain(..count.min(self.wire.len())) {
                    self.acknowledgements.push_back(report.sequence);
                    self.receiver.apply(report);
                }
            }
            Step::Acknowledge => self.acknowledgements.drain(..).for_each(|sequence| self.publisher.acknowledged(sequence)),
            Step::Connect if !self.connected => {
                let resume_after = self.receiver.welcome(self.publisher.oldest_held());
                self.publisher.connected(resume_after, 0);
                self.connected = true;
            }
            Step::Disconnect if self.connected => {
                self.publisher.disconnected();
                self.connected = false;
                self.wire.clear();
                self.acknowledgements.clear();
            }
            // A control plane that loses everything was restarted: its streams end.
            Step::Forget => {
                self.step(Step::Disconnect);
                self.receiver = Receiver::default();
            }
            Step::Reject => {
                if let Some(report) = self.wire.pop_front() {
                    // What is on its way behind a rejected report is of no use either: nothing is applied until a snapshot begins.
                    let behind = self.wire.drain(..).map(|it| it.sequence).max().unwrap_or(report.sequence);
                    self.receiver = Receiver { sequence: behind, ..Receiver::default() };
                    self.publisher.rejected(behind, true);
                }
            }
            Step::Connect | Step::Disconnect => {}
        }
        self.publisher.poll(self.now());
        assert!(self.publisher.held_bytes() <= self.publisher.limits.held_bytes.max(2 * self.publisher.max_report_bytes));
    }

    fn observe(&mut self, observation: Observation) {
        self.publisher.builder.observe(observation, &mut Vec::new());
    }

    /// Lets everything arrive.
    fn settle(&mut self) {
        self.step(Step::Connect);
        for round in 0..1_000 {
            if round > 20 && self.publisher.is_settled() {
                return;
            }
            self.step(Step::Pass { ms: 60 });
            self.step(Step::Send { count: usize::MAX });
            self.step(Step::Arrive { count: usize::MAX });
            self.step(Step::Acknowledge);
        }
    }
}

fn end(pid: u32, port: u16) -> FlowEnd {
    FlowEnd {
        pid,
        start_time: None,
        cgroup_id: 0,
        network_namespace: 1,
        direction: Direction::Client,
        protocol: Protocol::Tcp,
        client_address: "10.0.0.1".parse().unwrap(),
        server_address: "10.0.0.2".parse().unwrap(),
        server_port: port,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_receiver_ends_with_the_tables_of_the_probe(
        steps in proptest::collection::vec(step(), 1..150),
        held_bytes in 1_500_usize..20_000,
        report_bytes in 400_usize..2_000,
    ) {
        let mut world = World::new(held_bytes, report_bytes);
        for step in steps {
            world.step(step);
        }
        world.settle();
        prop_assert!(world.publisher.is_settled());
        let now = world.now();
        let expected = State::of(&mut world.publisher.builder, now);
        // What was told before the clock was set is told by the clock of then.
        prop_assert_eq!(world.receiver.state.timeless(), expected.timeless());
    }
}

#[test]
fn a_stream_that_breaks_goes_on_without_a_snapshot() {
    let mut world = World::new(100_000, 10_000);
    world.settle();
    let sent = world.receiver.sequence;
    world.step(Step::Start { pid: 2 });
    world.step(Step::Pass { ms: 60 });
    world.step(Step::Send { count: 9 });
    world.step(Step::Disconnect);
    world.step(Step::Start { pid: 3 });
    world.step(Step::Pass { ms: 2_100 });
    world.settle();
    assert_eq!(world.receiver.sequence, sent + 2, "the delta that was lost and the one made meanwhile");
    assert_eq!(world.receiver.state.processes.len(), 2);
    assert_eq!(world.publisher.dropped(), 0);
}

#[test]
fn a_buffer_that_is_full_is_given_up_counted_and_made_up_for_by_a_snapshot() {
    let mut world = World::new(2_000, 400);
    world.settle();
    world.step(Step::Disconnect);
    for pid in 1..100 {
        world.step(Step::Start { pid });
        world.step(Step::Pass { ms: 2_100 });
    }
    let dropped = world.publisher.dropped();
    assert!(dropped > 0);
    world.settle();
    assert_eq!(world.receiver.state, State::of(&mut world.publisher.builder, now(world.ms)));
    assert!(!world.receiver.state.processes.is_empty());
    assert_eq!(world.publisher.builder.losses().reports_merged, dropped);
}

#[test]
fn a_life_cycle_event_is_told_within_fifty_milliseconds_and_counters_within_a_second() {
    let mut world = World::new(100_000, 10_000);
    world.step(Step::Start { pid: 2 });
    world.settle();
    let before = world.receiver.sequence;
    world.step(Step::Pass { ms: 1_000 });
    world.step(Step::Flow { pid: 2, port: 80 });
    let deadline = world.publisher.next_deadline();
    assert!(deadline.0 <= (world.ms + 20) * MS, "20 ms for what belongs together");
    world.step(Step::Pass { ms: 20 });
    assert_eq!(world.publisher.take_next().map(|it| it.sequence), Some(before + 1));
    world.step(Step::Count { pid: 2, port: 80, opened: 1, closed: 0 });
    world.step(Step::Pass { ms: 900 });
    assert!(!world.publisher.has_next(), "counters alone can wait");
    world.step(Step::Pass { ms: 100 });
    assert!(world.publisher.has_next());
}

#[test]
fn a_control_plane_that_is_behind_is_told_less_often() {
    let mut world = World::new(100_000, 10_000);
    world.settle();
    world.step(Step::Start { pid: 1 });
    world.step(Step::Pass { ms: 60 });
    world.step(Step::Send { count: 1 });
    world.publisher.throttled(Duration::from_secs(5));
    world.step(Step::Start { pid: 2 });
    world.step(Step::Pass { ms: 4_900 });
    world.step(Step::Start { pid: 3 });
    assert!(!world.publisher.has_next());
    world.step(Step::Pass { ms: 200 });
    let report = world.publisher.take_next().unwrap();
    assert_eq!(report.processes.len(), 2);
}

/// Drives a connected publisher for a while, `step` by `step` milliseconds of both clocks; returns what it told.
fn drive(publisher: &mut Publisher, at: &mut Now, steps: u32, step_ms: u64) -> Vec<Report> {
    let mut told = Vec::new();
    for _ in 0..steps {
        at.boot.0 += step_ms * MS;
        at.unix_nanos += step_ms * MS;
        publisher.poll(*at);
        while let Some(report) = publisher.take_next() {
            publisher.acknowledged(report.sequence);
            told.push(report);
        }
    }
    told
}

#[test]
fn a_clock_that_is_set_and_a_night_of_sleep_make_no_storm_and_every_time_is_told_by_the_clock_of_the_report() {
    const YEAR_MS: i64 = 365 * 24 * 3_600 * 1_000;
    const NIGHT_MS: u64 = 8 * 3_600 * 1_000;
    let mut at = now(1_000_000);
    let mut publisher = Publisher::new(Builder::default(), Limits::default());
    publisher.connected(0, usize::MAX);
    drive(&mut publisher, &mut at, 20, 100);
    let mut wanted = Vec::new();
    for (change, step_ms, sleep_ms) in [("forward", YEAR_MS, 0), ("back", -YEAR_MS, 0), ("sleep", 0, NIGHT_MS)] {
        let pid = if step_ms > 0 {
            10
        } else if step_ms < 0 {
            11
        } else {
            12
        };
        let started = ProcessStarted { at: at.boot, pid, start_time: Some(at.boot), comm: change.to_owned(), ..ProcessStarted::default() };
        publisher.builder.observe(Observation::ProcessStarted(started), &mut wanted);
        // Between what was seen and what is told of it.
        let seen_at = at.boot;
        if sleep_ms == 0 {
            publisher.builder.observe(Observation::ProcessExited { at: seen_at, pid, start_time: Some(seen_at), status: 0 }, &mut wanted);
        }
        at.unix_nanos = at.unix_nanos.saturating_add_signed(step_ms * 1_000_000).saturating_add(sleep_ms * MS);
        at.boot.0 += sleep_ms * MS;
        let told = drive(&mut publisher, &mut at, 100, 100);
        assert!(told.len() <= 12, "{change}: {} reports in ten seconds", told.len());
        let (report, process) = told.iter().find_map(|report| Some((report, report.processes.first()?))).unwrap();
        assert_eq!(process.comm, change);
        if sleep_ms == 0 {
            let ended_ago = report.observed_at_unix_nanos - process.exited_at_unix_nanos;
            assert!(ended_ago < 11_000 * MS, "{change}: ended {ended_ago} ns before");
        } else {
            assert_eq!(process.exited_at_unix_nanos, 0, "it lives: a night is no reason to end it");
        }
    }
}
