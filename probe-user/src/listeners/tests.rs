use std::fmt::Write as _;

use expect_test::{Expect, expect};

use super::*;
use crate::observation::ProcessStarted;

const MS: u64 = 1_000_000;

fn at(ms: u64) -> BootNanos {
    BootNanos(ms * MS)
}

fn opened(ms: u64, socket: u64, pid: u32, protocol: Protocol) -> ListenerOpened {
    ListenerOpened {
        at: at(ms),
        socket,
        pid,
        start_time: None,
        cgroup_id: 0,
        network_namespace: 1,
        protocol,
        address: "0.0.0.0".parse().unwrap(),
        port: 80,
    }
}

/// Two tables and what is told of the listeners in them; times in milliseconds.
#[derive(Default)]
struct World {
    listeners: ListenerTable,
    processes: ProcessTable,
    told: String,
}

impl World {
    fn start(&mut self, pid: u32, parent_pid: u32, ms: u64) -> &mut Self {
        let started = ProcessStarted { at: at(ms), pid, parent_pid, start_time: Some(at(ms)), ..ProcessStarted::default() };
        self.processes.started(&started, None);
        self.pass(ms)
    }

    fn exit(&mut self, pid: u32, ms: u64) -> &mut Self {
        if let Some(key) = self.processes.exited(at(ms), pid, None, 0) {
            self.listeners.process_ended(key, &self.processes);
        }
        self.tell()
    }

    fn open(&mut self, seen: ListenerOpened) -> &mut Self {
        let wanted = self.listeners.opened(seen, &self.processes, None);
        writeln!(self.told, "opened {}, asks for {wanted:?}", seen.socket).unwrap();
        self.tell()
    }

    fn close(&mut self, socket: u64) -> &mut Self {
        self.listeners.closed(socket);
        self.tell()
    }

    fn pass(&mut self, ms: u64) -> &mut Self {
        self.listeners.settle(at(ms), &self.processes);
        self.listeners.check_holders(&self.processes);
        self.tell()
    }

    fn tell(&mut self) -> &mut Self {
        let (changed, gone) = self.listeners.take_changes();
        for id in changed {
            let listener = self.listeners.get(id).unwrap();
            let holder = listener.process.map(|it| (it.pid, it.start_time.0 / MS));
            writeln!(self.told, "  {id} is socket {} of {holder:?}", listener.seen.socket).unwrap();
        }
        for id in gone {
            writeln!(self.told, "  {id} is gone").unwrap();
        }
        self
    }

    #[track_caller]
    fn check(&self, expected: Expect) {
        expected.assert_eq(&self.told);
    }
}

#[test]
fn a_listener_of_a_known_process_is_told_at_once_and_until_it_closes() {
    let mut world = World::default();
    world.start(7, 1, 0).open(opened(10, 100, 7, Protocol::Tcp)).open(opened(11, 100, 7, Protocol::Tcp)).close(100).close(100);
    world.check(expect![[r#"
        opened 100, asks for None
          1 is socket 100 of Some((7, 0))
        opened 100, asks for None
          1 is gone
    "#]]);
}

#[test]
fn a_listener_waits_a_little_for_its_process() {
    let mut world = World::default();
    world.open(opened(10, 100, 7, Protocol::Tcp)).start(7, 1, 10);
    world.open(opened(20, 101, 8, Protocol::Tcp)).pass(219).pass(220);
    world.check(expect![[r#"
        opened 100, asks for Some(7)
          1 is socket 100 of Some((7, 10))
        opened 101, asks for Some(8)
          2 is socket 101 of None
    "#]]);
}

#[test]
fn a_udp_socket_is_told_when_it_has_lasted() {
    let mut world = World::default();
    world.start(7, 1, 0).open(opened(10, 100, 7, Protocol::Udp)).pass(1_009).close(100);
    world.open(opened(2_000, 101, 7, Protocol::Udp)).pass(3_000);
    assert_eq!(world.listeners.next_deadline(), None);
    world.check(expect![[r#"
        opened 100, asks for None
        opened 101, asks for None
          2 is socket 101 of Some((7, 0))
    "#]]);
}

#[test]
fn a_listener_whose_binder_has_ended_belongs_to_the_child_that_holds_it() {
    let mut world = World::default();
    world.start(7, 1, 0).start(8, 7, 10).start(9, 7, 10).open(opened(15, 100, 7, Protocol::Tcp));
    world.exit(7, 20).exit(8, 30).exit(9, 40).close(100);
    world.check(expect![[r#"
        opened 100, asks for None
          1 is socket 100 of Some((7, 0))
          1 is socket 100 of Some((8, 10))
          1 is socket 100 of Some((9, 10))
          1 is socket 100 of None
          1 is gone
    "#]]);
}

#[test]
fn a_pid_that_is_used_again_does_not_inherit_listeners() {
    let mut world = World::default();
    world.start(7, 1, 0).open(opened(10, 100, 7, Protocol::Tcp));
    // Its exit was lost: the next one with its number ends it.
    world.start(7, 1, 1_000).pass(1_001).open(opened(1_002, 101, 7, Protocol::Tcp));
    world.check(expect![[r#"
        opened 100, asks for None
          1 is socket 100 of Some((7, 0))
          1 is socket 100 of None
        opened 101, asks for None
          2 is socket 101 of Some((7, 1000))
    "#]]);
}

#[test]
fn who_looks_late_does_not_bring_back_what_has_ended() {
    let mut world = World::default();
    world.start(7, 1, 0).close(100).open(opened(10, 100, 7, Protocol::Tcp));
    assert!(world.listeners.is_empty());
}

#[test]
fn who_looks_later_names_a_holder_that_the_programs_did_not_know() {
    let mut world = World::default();
    world.start(7, 1, 0).open(opened(10, 100, 0, Protocol::Tcp)).open(opened(11, 100, 7, Protocol::Tcp));
    world.check(expect![[r#"
        opened 100, asks for None
          1 is socket 100 of None
        opened 100, asks for None
          1 is socket 100 of Some((7, 0))
    "#]]);
}

#[test]
fn a_full_table_refuses_and_counts() {
    let mut table = ListenerTable::default();
    let processes = ProcessTable::default();
    for socket in 0..LISTENERS_MAX as u64 + 3 {
        table.opened(opened(1, socket, 0, Protocol::Tcp), &processes, None);
    }
    assert_eq!((table.len(), table.refused()), (LISTENERS_MAX, 3));
}

#[test]
fn a_socket_of_the_first_process_is_its_service_s_once_somebody_has_looked() {
    let mut listeners = ListenerTable::default();
    let mut processes = ProcessTable::default();
    for (pid, ms) in [(1, 10), (20, 500), (21, 600)] {
        processes.started(&ProcessStarted { at: at(ms), pid, start_time: Some(at(ms)), ..ProcessStarted::default() }, None);
    }
    let holder = |listeners: &ListenerTable| listeners.get(1).and_then(|it| it.process).map(|it| it.pid);
    listeners.opened(opened(100, 7, 1, Protocol::Tcp), &processes, None);
    assert!(holder(&listeners) == Some(1) && listeners.wants_holders());
    let found = |ms, pid, start| ListenerOpened { start_time: Some(at(start)), ..opened(ms, 7, pid, Protocol::Tcp) };
    listeners.opened(found(700, 20, 500), &processes, None);
    assert!(holder(&listeners) == Some(20) && !listeners.wants_holders());
    // Whoever is known to serve is not replaced by what a look finds.
    listeners.opened(found(800, 21, 600), &processes, None);
    assert_eq!(holder(&listeners), Some(20));
    // It goes with its new holder.
    if let Some(ended) = processes.exited(at(900), 20, None, 0) {
        listeners.process_ended(ended, &processes);
    }
    assert_eq!(holder(&listeners), None);
}

#[test]
fn a_listener_whose_end_was_lost_leaves_when_it_is_looked() {
    let mut world = World::default();
    world.start(20, 1, 500);
    for (ms, socket) in [(1_000, 7), (1_000, 8), (2_000, 9)] {
        world.open(opened(ms, socket, 20, Protocol::Tcp));
    }
    // The last one began while it was looked.
    world.listeners.keep_only(&ListenersThere { at: at(1_900), there: [8].into() });
    let mut left: Vec<u64> = world.listeners.after(0).map(|(_, it)| it.seen.socket).collect();
    left.sort_unstable();
    assert_eq!(left, [8, 9]);
    assert_eq!(world.listeners.take_changes().1.len(), 1, "it was told, and its end is");
}
