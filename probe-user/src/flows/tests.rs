use std::fmt::Write as _;

use expect_test::{Expect, expect};

use super::*;
use crate::observation::{ListenerOpened, ProcessStarted, Protocol};

mod others;

const MS: u64 = 1_000_000;

fn at(ms: u64) -> BootNanos {
    BootNanos(ms * MS)
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

fn open(opened: u64) -> Counted {
    Counted { opened, bytes_sent: 10 * opened, ..Counted::default() }
}

/// Two tables and what is told of the flows in them; times in milliseconds.
#[derive(Default)]
struct World {
    flows: FlowTable,
    processes: ProcessTable,
    told: String,
}

impl World {
    fn start(&mut self, pid: u32, ms: u64) -> &mut Self {
        self.processes.started(&ProcessStarted { at: at(ms), pid, start_time: Some(at(ms)), ..ProcessStarted::default() }, None);
        self.flows.settle(at(ms), &self.processes);
        self.tell()
    }

    fn exit(&mut self, pid: u32, ms: u64) -> &mut Self {
        self.processes.exited(at(ms), pid, None, 0);
        self
    }

    fn seen(&mut self, ms: u64, end: FlowEnd) -> &mut Self {
        let seen = self.flows.seen(at(ms), end, 4_711, None, false, &self.processes, None);
        writeln!(self.told, "seen: {seen:?}").unwrap();
        self.tell()
    }

    fn counted(&mut self, ms: u64, end: FlowEnd, delta: Counted) -> &mut Self {
        self.flows.counted(at(ms), end, delta, &self.processes, None);
        self.tell()
    }

    fn pass(&mut self, ms: u64) -> &mut Self {
        self.flows.settle(at(ms), &self.processes);
        self.flows.retire(at(ms));
        self.tell()
    }

    fn tell(&mut self) -> &mut Self {
        let (changes, gone) = self.flows.take_changes();
        for (id, change) in changes {
            let flow = self.flows.get(id).unwrap();
            let holder = flow.process.map_or("nobody".to_owned(), |key| format!("{}@{}", key.pid, key.start_time.0 / MS));
            let total = flow.total;
            writeln!(self.told, "  flow {id} {change:?} of {holder}: {} open, {} bytes", flow.active(), total.bytes_sent).unwrap();
        }
        gone.iter().for_each(|id| writeln!(self.told, "  flow {id} gone").unwrap());
        self
    }

    #[track_caller]
    fn check(&self, expected: Expect) {
        expected.assert_eq(&self.told);
    }
}

#[test]
fn a_flow_is_told_with_its_holder_counts_up_and_leaves_when_idle() {
    let mut world = World::default();
    world.start(20, 500).seen(1_000, end(20, 80)).counted(1_100, end(20, 80), open(2));
    world.counted(2_000, end(20, 80), Counted { closed: 2, ..Counted::default() }).pass(16_999).pass(17_000);
    world.seen(18_000, end(20, 80));
    world.check(expect![[r#"
        seen: New
          flow 1 New of 20@500: 0 open, 0 bytes
          flow 1 Counters of 20@500: 2 open, 20 bytes
          flow 1 Counters of 20@500: 0 open, 20 bytes
          flow 1 gone
        seen: New
          flow 2 New of 20@500: 0 open, 0 bytes
    "#]]);
}

#[test]
fn a_flow_with_an_open_connection_never_leaves() {
    let mut world = World::default();
    world.start(20, 500).seen(999, end(20, 80)).counted(1_000, end(20, 80), open(1)).pass(10_000_000);
    world.check(expect![[r#"
        seen: New
          flow 1 New of 20@500: 0 open, 0 bytes
          flow 1 Counters of 20@500: 1 open, 10 bytes
    "#]]);
}

#[test]
fn a_flow_waits_a_moment_for_a_process_that_is_told_later() {
    let mut world = World::default();
    world.seen(1_000, end(20, 80)).pass(1_100).start(20, 990).pass(1_200);
    world.check(expect![[r#"
        seen: OwnerWanted(20)
          flow 1 New of 20@990: 0 open, 0 bytes
    "#]]);
}

#[test]
fn a_flow_of_nobody_is_told_all_the_same() {
    let mut world = World::default();
    world.seen(1_000, end(20, 80)).pass(1_199).pass(1_200).seen(2_000, end(0, 80));
    world.check(expect![[r#"
        seen: OwnerWanted(20)
          flow 1 New of nobody: 0 open, 0 bytes
        seen: New
          flow 2 New of nobody: 0 open, 0 bytes
    "#]]);
}

#[test]
fn a_pid_used_again_does_not_take_over_connections() {
    let mut world = World::default();
    // The process ended long before; whoever opened this has the pid now and was not seen yet.
    world.start(20, 500).exit(20, 600).seen(9_000, end(20, 80)).start(20, 8_990);
    // Whoever it was, it was never seen: nobody is named rather than the wrong one.
    world.exit(20, 9_500).seen(20_000, end(20, 81)).pass(20_200);
    // A late count of a process that has just ended is its own.
    world.seen(10_000, end(20, 82)).pass(10_200);
    world.check(expect![[r#"
        seen: OwnerWanted(20)
          flow 1 New of 20@8990: 0 open, 0 bytes
        seen: OwnerWanted(20)
          flow 2 New of nobody: 0 open, 0 bytes
        seen: OwnerWanted(20)
          flow 3 New of 20@8990: 0 open, 0 bytes
    "#]]);
}

#[test]
fn an_end_that_names_its_incarnation_is_never_given_to_another() {
    let mut world = World::default();
    let old = FlowEnd { start_time: Some(at(500)), ..end(20, 80) };
    let new = FlowEnd { start_time: Some(at(800)), ..end(20, 80) };
    world.start(20, 500).exit(20, 700).start(20, 800).seen(900, old).seen(901, new).counted(902, old, open(1));
    world.check(expect![[r#"
        seen: New
          flow 1 New of 20@500: 0 open, 0 bytes
        seen: New
          flow 2 New of 20@800: 0 open, 0 bytes
          flow 1 Counters of 20@500: 1 open, 10 bytes
    "#]]);
}

#[test]
fn a_socket_that_was_bound_by_a_process_that_ended_still_belongs_to_it() {
    let mut world = World::default();
    let server = FlowEnd { direction: Direction::Server, ..end(20, 80) };
    world.start(20, 500).exit(20, 600).seen(60_000, server).pass(60_200);
    world.check(expect![[r#"
        seen: OwnerWanted(20)
          flow 1 New of 20@500: 0 open, 0 bytes
    "#]]);
}

#[test]
fn a_full_table_refuses_and_counts_what_it_could_not_hold() {
    let mut flows = FlowTable::default();
    let processes = ProcessTable::default();
    for pid in 1..=65_536 {
        flows.counted(at(1), end(pid, 443), open(1), &processes, None);
    }
    assert_eq!(flows.len(), FLOWS_MAX);
    // The last that found room are sums of one.
    assert_eq!(flows.after(0).filter(|(_, flow)| flow.others == 1).count(), 2_048);
    assert_eq!((flows.refused(), flows.refused_ends()), (65_536 - FLOWS_MAX as u64, 65_536 - FLOWS_MAX as u64));
    // One that is known still counts.
    assert_eq!(flows.counted(at(2), end(1, 443), open(1), &processes, None), Seen::Known);
    assert_eq!(flows.get_end(&end(1, 443)).map(Flow::active), Some(2));
}

#[test]
fn where_a_client_meant_to_go_is_told_when_it_is_known_after_the_counters() {
    let mut world = World::default();
    world.start(20, 500).told.push_str("counted\n");
    world.counted(1_000, end(20, 80), open(1));
    let meant = Some(("10.96.0.1".parse().unwrap(), 443));
    for _ in 0..2 {
        world.flows.seen(at(1_005), end(20, 80), 4_711, meant, false, &world.processes, None);
        assert!(world.flows.get(1).is_some_and(|flow| flow.original_server == meant));
        writeln!(world.told, "meant to go elsewhere").unwrap();
        world.tell();
    }
    world.check(expect![[r#"
        counted
          flow 1 New of 20@500: 1 open, 10 bytes
        meant to go elsewhere
          flow 1 New of 20@500: 1 open, 10 bytes
        meant to go elsewhere
          flow 1 Counters of 20@500: 1 open, 10 bytes
    "#]]);
}

fn listens(pid: u32, address: &str, port: u16) -> ListenerOpened {
    ListenerOpened {
        at: at(1_000),
        socket: u64::from(pid),
        pid,
        start_time: None,
        cgroup_id: 0,
        network_namespace: 1,
        protocol: Protocol::Tcp,
        address: address.parse().unwrap(),
        port,
    }
}

#[test]
fn an_accepting_end_goes_to_the_process_that_listens_there_when_its_binder_does_not_serve() {
    let mut world = World::default();
    let mut listeners = ListenerTable::default();
    let server = |pid, port| FlowEnd { direction: Direction::Server, ..end(pid, port) };
    // One that went into the background, one whose socket the first process has opened, and one that serves itself.
    world.start(1, 10).start(20, 500).start(21, 510).start(22, 520).start(23, 530);
    world.seen(1_000, server(20, 80)).seen(1_000, server(1, 22)).seen(1_000, server(23, 443)).exit(20, 1_100).pass(1_200);
    world.counted(4_000, server(20, 80), open(1));
    for listener in [listens(21, "0.0.0.0", 80), listens(22, "10.0.0.2", 22), listens(21, "0.0.0.0", 22), listens(22, "0.0.0.0", 443)] {
        listeners.opened(ListenerOpened { socket: u64::from(listener.port) << 8 | listener.socket, ..listener }, &world.processes, None);
    }
    for _ in 0..2 {
        world.flows.inherit(at(4_000), &listeners, &world.processes);
        world.tell();
    }
    world.check(expect![[r#"
        seen: New
          flow 1 New of 20@500: 0 open, 0 bytes
        seen: New
          flow 2 New of 1@10: 0 open, 0 bytes
        seen: New
          flow 3 New of 23@530: 0 open, 0 bytes
          flow 1 Counters of 20@500: 1 open, 10 bytes
          flow 1 New of 21@510: 1 open, 10 bytes
          flow 2 New of 22@520: 0 open, 0 bytes
    "#]]);
}

#[test]
fn a_server_that_is_started_again_inherits_nothing_that_the_one_before_has_finished() {
    let mut world = World::default();
    let mut listeners = ListenerTable::default();
    let server = |port| FlowEnd { direction: Direction::Server, ..end(20, port) };
    let one_closed = Counted { closed: 1, ..Counted::default() };
    world.start(20, 500).start(21, 5_100);
    // Finished while it lived, closed by its end, and still open long after: whoever has that one serves it.
    for port in [80, 81, 82] {
        world.counted(1_000, server(port), open(1));
        listeners.opened(ListenerOpened { at: at(5_150), socket: u64::from(port), ..listens(21, "0.0.0.0", port) }, &world.processes, None);
    }
    world.counted(2_000, server(80), one_closed);
    world.exit(20, 5_000);
    let holders =
        |world: &World| [80, 81, 82].map(|port| world.flows.get_end(&server(port)).and_then(|flow| flow.process).map(|key| key.pid));
    world.flows.inherit(at(5_200), &listeners, &world.processes);
    assert_eq!(holders(&world), [Some(20); 3], "its connections are being closed");
    world.counted(6_000, server(81), one_closed);
    world.flows.inherit(at(8_000), &listeners, &world.processes);
    assert_eq!(holders(&world), [Some(20), Some(20), Some(21)]);
}

#[test]
fn a_capture_that_begins_again_has_all_the_room_that_there_is() {
    let mut flows = FlowTable::default();
    let processes = ProcessTable::default();
    let told = |flows: &mut FlowTable| {
        for pid in 1..=65_536 {
            flows.counted(at(1), end(pid, 443), open(1), &processes, None);
        }
        let sums = flows.after(0).filter(|(_, flow)| flow.others == 1).count();
        (flows.len(), flows.summed(), sums, flows.refused_ends())
    };
    let before = told(&mut flows);
    flows.forget_all();
    assert_eq!((flows.len(), flows.summed(), flows.refused_ends()), (0, 0, 0));
    assert_eq!(told(&mut flows), before);
}

#[test]
fn what_is_known_of_translations_outlives_a_capture_that_begins_again() {
    let mut flows = FlowTable::default();
    let processes = ProcessTable::default();
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    flows.counted(at(1), end(20, 80), open(1), &processes, None);
    flows.translated(&Translated {
        id: 1,
        zone: 0,
        network_namespace: 1,
        protocol: Protocol::Tcp,
        client: (ip("10.0.0.1"), 4_711),
        server: (ip("10.0.0.2"), 80),
        translated_client: (ip("10.0.0.1"), 4_711),
        translated_server: (ip("10.1.0.7"), 8_080),
        perhaps_told: false,
    });
    let ways = |flows: &FlowTable| flows.get_end(&end(20, 80)).map(|flow| flows.ways(flow).len());
    assert_eq!(ways(&flows), Some(1));
    flows.forget_all();
    flows.take_changes();
    assert!(!flows.has_changes(), "nothing is left that has changed");
    flows.counted(at(2), end(20, 80), open(1), &processes, None);
    assert_eq!(ways(&flows), Some(1));
}

#[test]
fn a_connection_whose_end_was_lost_is_closed_by_looking_once_its_flow_is_still() {
    let mut flows = FlowTable::default();
    let processes = ProcessTable::default();
    flows.counted(at(1_000), end(20, 80), open(3), &processes, None);
    flows.counted(at(1_000), end(20, 81), open(1), &processes, None);
    let look =
        |ms, except: &[FlowEnd]| OpenEnds { at: at(ms), open: HashMap::from([(end(20, 80), 1)]), except: except.iter().copied().collect() };
    let active = |flows: &FlowTable, port| flows.get_end(&end(20, port)).map(Flow::active);
    assert_eq!(flows.close_lost(&look(60_000, &[])), 0, "its end may be on its way");
    assert_eq!(flows.close_lost(&look(200_000, &[end(20, 81)])), 0, "so may that of one that was quiet for long");
    assert_eq!(flows.close_lost(&look(230_000, &[end(20, 81)])), 2);
    assert_eq!((active(&flows, 80), active(&flows, 81)), (Some(1), Some(1)));
    assert_eq!(flows.close_lost(&look(260_000, &[])), 0);
    assert_eq!(flows.close_lost(&look(290_000, &[])), 1);
    assert_eq!((active(&flows, 80), active(&flows, 81)), (Some(1), Some(0)));
    assert_eq!(flows.close_lost(&look(320_000, &[])), 0);
}

#[test]
fn an_end_that_is_on_its_way_while_it_is_looked_counts_once() {
    let mut flows = FlowTable::default();
    let processes = ProcessTable::default();
    let look = |ms| OpenEnds { at: at(ms), ..OpenEnds::default() };
    flows.counted(at(1_000), end(20, 80), open(2), &processes, None);
    assert_eq!(flows.close_lost(&look(200_000)), 0);
    // One of the two that were missing comes late; the other never does.
    flows.counted(at(200_010), end(20, 80), Counted { closed: 1, ..Counted::default() }, &processes, None);
    for ms in [230_000, 330_000] {
        assert_eq!(flows.close_lost(&look(ms)), 0);
    }
    assert_eq!(flows.close_lost(&look(360_000)), 1);
    let total = flows.get_end(&end(20, 80)).map(|flow| (flow.total.opened, flow.total.closed));
    assert_eq!(total, Some((2, 2)));
}
