use std::fmt::Write as _;

use expect_test::{Expect, expect};

use super::*;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

fn at(ms: u64) -> BootNanos {
    BootNanos(ms * MS)
}

/// What a transcript is made of; times in milliseconds since boot.
enum Step {
    Fork {
        pid: u32,
        parent: u32,
        start: Option<u64>,
        at: u64,
        comm: &'static str,
    },
    Exec {
        pid: u32,
        start: Option<u64>,
        at: u64,
        comm: &'static str,
    },
    Exit {
        pid: u32,
        start: Option<u64>,
        at: u64,
        status: i32,
    },
    Details {
        pid: u32,
        start: u64,
        name: &'static str,
    },
    Walk {
        at: u64,
        seen: &'static [(u32, u64)],
    },
    /// One process: pid, start, parent and kernel's name.
    Seen {
        at: u64,
        seen: (u32, u64, u32, &'static str),
    },
    Retire {
        at: u64,
    },
    Holder {
        pid: u32,
        at: u64,
    },
}

fn fork(pid: u32, parent: u32, start: u64, comm: &'static str) -> Step {
    Step::Fork { pid, parent, start: Some(start), at: start + 3, comm }
}

#[track_caller]
fn check(steps: Vec<Step>, expected: Expect) {
    let mut table = ProcessTable::default();
    let mut told = String::new();
    for step in steps {
        match step {
            Step::Fork { pid, parent, start, at: ms, comm } => {
                let start_time = start.map(at);
                let started =
                    ProcessStarted { at: at(ms), pid, parent_pid: parent, start_time, comm: comm.to_owned(), ..ProcessStarted::default() };
                let wanted = table.started(&started, None);
                writeln!(told, "fork {pid}: {}", if wanted { "read /proc" } else { "known" }).unwrap();
            }
            Step::Exec { pid, start, at: ms, comm } => table.executed(at(ms), pid, start.map(at), comm, 0, None),
            Step::Exit { pid, start, at: ms, status } => drop(table.exited(at(ms), pid, start.map(at), status)),
            Step::Details { pid, start, name } => {
                let command_line = format!("{name} --all");
                let details = Details { pid, start_time: at(start), name: name.to_owned(), command_line, ..Details::default() };
                table.described(&details, Placement::default());
            }
            Step::Walk { at: ms, seen } => {
                let sighting =
                    |key| table.get(&key).map(|it| Sighting { parent_pid: it.parent_pid, comm: (&*it.comm).into(), ..Sighting::default() });
                let keys = seen.iter().map(|&(pid, start)| ProcessKey::new(pid, at(start)));
                let seen = keys.map(|key| (key, sighting(key).unwrap_or_default())).collect();
                let unread = table.reconcile(at(ms), Some(at(ms)), &seen);
                writeln!(told, "walk wants {:?}", unread.first).unwrap();
                assert!(unread.again.is_empty());
            }
            Step::Seen { at: ms, seen: (pid, start, parent_pid, comm) } => {
                let sighting = Sighting { parent_pid, comm: comm.into(), ..Sighting::default() };
                let Unread { first, again } = table.reconcile(at(ms), None, &BTreeMap::from([(ProcessKey::new(pid, at(start)), sighting)]));
                writeln!(told, "walk wants {first:?}, and again {again:?}").unwrap();
            }
            Step::Retire { at: ms } => table.retire(at(ms)),
            Step::Holder { pid, at: ms } => writeln!(told, "{pid} at {ms}: {}", holder(table.holder(pid, at(ms)))).unwrap(),
        }
        tell_changes(&mut table, &mut told);
    }
    expected.assert_eq(&told);
}

fn tell_changes(table: &mut ProcessTable, told: &mut String) {
    let (changed, gone) = table.take_changes();
    for key in changed {
        let process = table.get(&key).unwrap();
        let end = process.exited.map_or(String::new(), |it| format!(" ended {} status {}", it.at.0 / MS, it.status));
        writeln!(told, "  {} {:?} of {}{end}", name(key), process.command_line, process.parent_pid).unwrap();
    }
    gone.iter().for_each(|key| writeln!(told, "  {} gone", name(*key)).unwrap());
}

fn name(key: ProcessKey) -> String {
    format!("{}@{}", key.pid, key.start_time.0 / MS)
}

fn holder(holder: Holder) -> String {
    match holder {
        Holder::Alive(key) => name(key),
        Holder::Ended(key, ended) => format!("{} until {}", name(key), ended.0 / MS),
        Holder::Unknown => "unknown".to_owned(),
    }
}

#[test]
fn a_fork_inherits_and_an_exec_begins_anew() {
    check(
        vec![
            Step::Details { pid: 10, start: 100, name: "bash" },
            fork(20, 10, 500, "bash"),
            Step::Exec { pid: 20, start: Some(500), at: 504, comm: "curl" },
            Step::Details { pid: 20, start: 500, name: "/usr/bin/curl" },
            Step::Exit { pid: 20, start: Some(500), at: 900, status: 256 },
        ],
        expect![[r#"
              10@100 "bash --all" of 0
            fork 20: known
              20@500 "bash --all" of 10
              20@500 "curl" of 10
              20@500 "/usr/bin/curl --all" of 0
              20@500 "/usr/bin/curl --all" of 0 ended 900 status 256
        "#]],
    );
}

#[test]
fn a_process_of_one_millisecond_is_a_record_with_a_name() {
    check(
        vec![
            fork(20, 1, 500, "sh"),
            Step::Exec { pid: 20, start: Some(500), at: 503, comm: "true" },
            Step::Exit { pid: 20, start: Some(500), at: 504, status: 0 },
            Step::Holder { pid: 20, at: 503 },
            Step::Retire { at: 504 + 59_999 },
            Step::Retire { at: 504 + 60_000 },
        ],
        expect![[r#"
            fork 20: read /proc
              20@500 "sh" of 1
              20@500 "true" of 1
              20@500 "true" of 1 ended 504 status 0
            20 at 503: 20@500
              20@500 gone
        "#]],
    );
}

#[test]
fn a_pid_used_again_is_another_process_also_when_an_exit_was_lost() {
    check(
        vec![
            Step::Details { pid: 20, start: 500, name: "old" },
            fork(20, 1, 2_000, "new"),
            Step::Holder { pid: 20, at: 1_999 },
            Step::Holder { pid: 20, at: 2_000 },
            Step::Holder { pid: 20, at: 499 },
            Step::Exit { pid: 20, start: Some(500), at: 1_990, status: 0 },
            Step::Exit { pid: 20, start: None, at: 3_000, status: 9 },
            Step::Holder { pid: 20, at: 3_001 },
        ],
        expect![[r#"
              20@500 "old --all" of 0
            fork 20: read /proc
              20@500 "old --all" of 0 ended 2000 status 0
              20@2000 "new" of 1
            20 at 1999: 20@500
            20 at 2000: 20@2000
            20 at 499: unknown
              20@2000 "new" of 1 ended 3000 status 9
            20 at 3001: 20@2000 until 3000
        "#]],
    );
}

#[test]
fn the_kernels_nanoseconds_and_the_ticks_of_proc_are_one_process() {
    check(
        vec![
            Step::Fork { pid: 20, parent: 1, start: Some(507), at: 508, comm: "a" },
            Step::Details { pid: 20, start: 500, name: "a" },
            Step::Exit { pid: 20, start: Some(509), at: 600, status: 0 },
        ],
        expect![[r#"
            fork 20: read /proc
              20@500 "a" of 1
              20@500 "a --all" of 0
              20@500 "a --all" of 0 ended 600 status 0
        "#]],
    );
}

#[test]
fn details_of_an_incarnation_that_has_ended_bring_nothing_back() {
    check(
        vec![
            fork(20, 1, 500, "a"),
            Step::Exit { pid: 20, start: Some(500), at: 600, status: 0 },
            Step::Details { pid: 20, start: 500, name: "a" },
            fork(20, 1, 700, "b"),
            Step::Details { pid: 20, start: 600, name: "between" },
        ],
        expect![[r#"
            fork 20: read /proc
              20@500 "a" of 1
              20@500 "a" of 1 ended 600 status 0
              20@500 "a --all" of 0 ended 600 status 0
            fork 20: read /proc
              20@700 "b" of 1
        "#]],
    );
}

#[test]
fn a_guessed_start_gives_way_to_the_real_one() {
    check(
        vec![
            Step::Fork { pid: 20, parent: 1, start: None, at: 523, comm: "a" },
            Step::Details { pid: 20, start: 510, name: "a" },
            Step::Exit { pid: 20, start: None, at: 600, status: 0 },
        ],
        expect![[r#"
            fork 20: read /proc
              20@520 "a" of 1
              20@510 "a --all" of 0
              20@520 gone
              20@510 "a --all" of 0 ended 600 status 0
        "#]],
    );
}

#[test]
fn a_walk_ends_what_is_missing_and_wants_what_is_unknown() {
    check(
        vec![
            Step::Details { pid: 20, start: 500, name: "gone" },
            Step::Details { pid: 21, start: 500, name: "there" },
            fork(22, 1, 990, "young"),
            Step::Walk { at: 1_000, seen: &[(21, 500), (23, 800)] },
        ],
        expect![[r#"
              20@500 "gone --all" of 0
              21@500 "there --all" of 0
            fork 22: read /proc
              22@990 "young" of 1
            walk wants [23]
              20@500 "gone --all" of 0 ended 1000 status 0
        "#]],
    );
}

#[test]
fn what_a_fork_inherited_is_read_once_by_the_next_walk() {
    check(
        vec![
            Step::Details { pid: 10, start: 100, name: "nginx" },
            fork(20, 10, 500, "nginx"),
            fork(30, 20, 510, "nginx"),
            Step::Details { pid: 30, start: 510, name: "nginx" },
            Step::Walk { at: 1_000, seen: &[(10, 100), (20, 500), (30, 510)] },
            Step::Details { pid: 20, start: 500, name: "nginx: worker process" },
            Step::Walk { at: 2_000, seen: &[(10, 100), (20, 500), (30, 510)] },
        ],
        expect![[r#"
              10@100 "nginx --all" of 0
            fork 20: known
              20@500 "nginx --all" of 10
            fork 30: known
              30@510 "nginx --all" of 20
              30@510 "nginx --all" of 0
            walk wants [20]
              20@500 "nginx: worker process --all" of 0
            walk wants []
        "#]],
    );
}

#[test]
fn a_walk_that_was_not_complete_ends_nobody() {
    let mut table = ProcessTable::default();
    let details = Details { pid: 20, start_time: at(500), ..Details::default() };
    table.described(&details, Placement::default());
    let seen = BTreeMap::from([(ProcessKey::new(21, at(500)), Sighting::default())]);
    assert_eq!(table.reconcile(at(900), None, &seen), Unread { first: vec![21], again: Vec::new() });
    assert_eq!(table.living_len(), 1);
}

#[test]
fn an_orphan_has_another_parent_and_an_unseen_exec_or_an_old_record_is_read_again() {
    check(
        vec![
            Step::Details { pid: 20, start: 500, name: "" },
            Step::Seen { at: 1_000, seen: (20, 500, 0, "") },
            Step::Seen { at: 2_000, seen: (20, 500, 1, "") },
            Step::Seen { at: 3_000, seen: (20, 500, 1, "sshd") },
            Step::Seen { at: 60_999, seen: (20, 500, 1, "") },
            Step::Seen { at: 61_000, seen: (20, 500, 1, "") },
            Step::Seen { at: 76_000, seen: (20, 500, 1, "") },
            Step::Seen { at: 121_000, seen: (20, 500, 1, "") },
        ],
        expect![[r#"
              20@500 " --all" of 0
            walk wants [], and again []
            walk wants [], and again []
              20@500 " --all" of 1
            walk wants [20], and again []
            walk wants [], and again []
            walk wants [], and again [20]
            walk wants [], and again []
            walk wants [], and again [20]
        "#]],
    );
}

#[test]
fn old_records_are_read_again_in_turn_and_those_of_kernel_threads_never() {
    let mut table = ProcessTable::default();
    let count = u32::try_from(READ_AGAIN_MAX).unwrap() * 5;
    let mut seen = BTreeMap::new();
    for pid in 1..=count {
        let details = Details { pid, start_time: at(500), ..Details::default() };
        table.described(&details, Placement::default());
        let sighting = Sighting {
            is_kernel_thread: pid % 5 == 0,
            comm: if pid % 5 == 0 { "kworker".into() } else { "".into() },
            ..Sighting::default()
        };
        seen.insert(ProcessKey::new(pid, at(500)), sighting);
    }
    let mut read = HashMap::<u32, u32>::new();
    // Four rounds a minute are as many as have room: in two minutes after the first every process has had its turn twice.
    for round in 0..12 {
        let unread = table.reconcile(at(1_000 + round * 15_000), None, &seen);
        assert!(unread.first.is_empty() && unread.again.len() <= READ_AGAIN_MAX);
        unread.again.into_iter().for_each(|pid| *read.entry(pid).or_default() += 1);
    }
    assert_eq!(read.len(), READ_AGAIN_MAX * 4);
    assert!(read.iter().all(|(pid, times)| pid % 5 != 0 && *times == 2), "{read:?}");
}

#[test]
fn a_command_line_that_cannot_be_read_leaves_the_one_that_is_known_and_threads_are_no_change() {
    let mut table = ProcessTable::default();
    let key = ProcessKey::new(20, at(500));
    let known =
        Details { pid: 20, start_time: at(500), name: "java".to_owned(), command_line: "java -jar".to_owned(), ..Details::default() };
    table.described(&known, Placement::default());
    table.take_changes();
    let more_threads = Details { thread_count: 9, ..known.clone() };
    table.described(&more_threads, Placement::default());
    assert!(!table.has_changes());
    let outline = Details { name: "j".to_owned(), command_line: "j".to_owned(), without_command_line: true, user_id: 7, ..known };
    table.described(&outline, Placement::default());
    let process = table.get(&key).unwrap();
    assert_eq!((&*process.name, &*process.command_line, process.user_id), ("java", "java -jar", 7));
    table.executed(at(900), 20, Some(at(500)), "sh", 0, None);
    table.described(&Details { name: "sh".to_owned(), command_line: "sh".to_owned(), ..outline }, Placement::default());
    assert_eq!(&*table.get(&key).unwrap().command_line, "sh");
}

#[test]
fn a_full_table_refuses_the_living_and_lets_the_ended_go_early() {
    let mut table = ProcessTable::default();
    for pid in 1..=40_000 {
        table.started(
            &ProcessStarted { at: BootNanos(SECOND), pid, start_time: Some(BootNanos(SECOND)), ..ProcessStarted::default() },
            None,
        );
    }
    assert_eq!((table.living_len(), table.refused()), (LIVING_MAX, 40_000 - LIVING_MAX as u64));
    for pid in 1..=10_000 {
        table.exited(BootNanos(2 * SECOND + u64::from(pid)), pid, Some(BootNanos(SECOND)), 0);
    }
    assert_eq!(table.living_len(), LIVING_MAX - 10_000);
    assert_eq!(table.after(None).count(), LIVING_MAX - 10_000 + ENDED_MAX);
    assert_eq!(table.holder(10_000, BootNanos(SECOND)), Holder::Alive(ProcessKey::new(10_000, BootNanos(SECOND))));
    assert_eq!(table.holder(1, BootNanos(SECOND)), Holder::Unknown, "the first to end is the first to leave");
}
