use std::fs;

use proptest::prelude::*;

use super::*;

const STAT: &str = "20 (a (b) c) S 1 20 20 0 -1 4194304 100 0 0 0 7 3 0 0 20 0 5 0 12345 1000000 250 18446744073709551615 1 1 0 0 0";
const STATUS: &str = "Name:\ta\nUmask:\t0022\nUid:\t1000\t1001\t1000\t1000\nGid:\t0\t0\t0\t0\n";

struct Fake {
    root: tempfile::TempDir,
}

impl Fake {
    fn new() -> Self {
        Fake { root: tempfile::tempdir().unwrap() }
    }

    fn write(&self, pid: u32, file: &str, bytes: impl AsRef<[u8]>) -> &Self {
        let directory = self.root.path().join(pid.to_string());
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(file), bytes).unwrap();
        self
    }

    fn process(&self, pid: u32) -> &Self {
        self.write(pid, "stat", STAT).write(pid, "status", STATUS).write(pid, "cmdline", "/bin/a\0--with\0args\0").write(
            pid,
            "cgroup",
            "0::/user.slice\n",
        )
    }

    fn reader(&self, arguments: Arguments) -> Procfs {
        Procfs::new(self.root.path(), arguments)
    }
}

#[test]
fn a_process_is_read() {
    let fake = Fake::new();
    let details = fake.process(20).reader(Arguments::Show).details(20).unwrap();
    assert_eq!((details.name.as_str(), details.command_line.as_str()), ("/bin/a", "/bin/a --with args"));
    assert_eq!((details.comm.as_str(), details.parent_pid, details.user_id, details.thread_count), ("a (b) c", 1, 1_001, 5));
    assert_eq!((details.start_time, details.cgroup_path.as_str()), (BootNanos(123_450_000_000), "/user.slice"));
}

#[test]
fn arguments_can_be_hidden() {
    let fake = Fake::new();
    assert_eq!(fake.process(20).reader(Arguments::Hide).details(20).unwrap().command_line, "/bin/a");
}

#[test]
fn a_kernel_thread_is_named_in_brackets() {
    let fake = Fake::new();
    let details = fake.process(20).write(20, "cmdline", "").reader(Arguments::Show).details(20).unwrap();
    assert_eq!((details.name.as_str(), details.command_line.as_str()), ("[a (b) c]", "[a (b) c]"));
}

#[test]
fn what_vanishes_while_it_is_read_is_counted_and_no_error_of_ours() {
    for missing in ["stat", "status", "cmdline", "cgroup"] {
        let fake = Fake::new();
        fake.process(20);
        fs::remove_file(fake.root.path().join("20").join(missing)).unwrap();
        let reader = fake.reader(Arguments::Show);
        assert!(matches!(reader.details(20), Err(ReadError::Gone)), "{missing}");
        assert_eq!((reader.vanished(), reader.unreadable()), (1, 0), "{missing}");
    }
}

#[test]
fn a_zombie_is_gone() {
    let fake = Fake::new();
    let reader = fake.process(20).write(20, "stat", STAT.replace(") S ", ") Z ")).reader(Arguments::Show);
    assert!(matches!(reader.details(20), Err(ReadError::Gone)));
    assert_eq!(reader.start_time(20), None);
}

#[test]
fn only_numbers_are_processes() {
    let fake = Fake::new();
    fake.process(20).process(1);
    for name in ["self", "sys", "20x", "-1", "99999999999"] {
        fs::create_dir_all(fake.root.path().join(name)).unwrap();
    }
    let mut pids = fake.reader(Arguments::Show).pids().unwrap();
    pids.sort_unstable();
    assert_eq!(pids, [1, 20]);
}

#[test]
fn a_walk_knows_whether_it_saw_all() {
    let fake = Fake::new();
    let look = || {
        let reader = std::sync::Arc::new(fake.reader(Arguments::Show));
        let cgroups = crate::cgroupfs::CgroupReader::new(crate::cgroupfs::Mounts::default());
        let round =
            sampler::Sampler::new(reader, cgroups, 4_096).look(crate::clock::Instants::read(), &[], std::time::Duration::from_secs(15));
        (round.walked_at.is_some(), round.seen.len())
    };
    fake.process(20).process(21);
    assert_eq!(look(), (true, 2));
    fs::remove_file(fake.root.path().join("21/stat")).unwrap();
    assert_eq!(look(), (true, 1), "a process that vanished is one that ended");
    // As when the probe is out of descriptors: the process may live.
    fake.write(21, "stat", "");
    assert_eq!(look(), (false, 1));
    fs::remove_dir_all(fake.root.path()).unwrap();
    assert_eq!(look(), (false, 0));
}

#[test]
fn a_pid_used_again_between_two_looks_is_two_processes_with_shares_of_their_own() {
    let fake = Fake::new();
    fake.process(20);
    fs::write(fake.root.path().join("stat"), "cpu  10 0 10 80 0 0 0 0\ncpu0 10 0 10 80 0 0 0 0\nbtime 1\n").unwrap();
    fs::write(fake.root.path().join("meminfo"), "MemTotal: 100 kB\nMemFree: 50 kB\nBuffers: 0 kB\nCached: 10 kB\n").unwrap();
    fs::write(fake.root.path().join("loadavg"), "0.5 0 0 1/1 1\n").unwrap();
    let reader = std::sync::Arc::new(fake.reader(Arguments::Show));
    let cgroups = crate::cgroupfs::CgroupReader::new(crate::cgroupfs::Mounts::default());
    let mut sampler = sampler::Sampler::new(reader, cgroups, 4_096);
    let interval = std::time::Duration::from_secs(15);
    let first = sampler.look(crate::clock::Instants::read(), &[], interval);
    fake.write(20, "stat", STAT.replace(" 12345 ", " 99999 ").replace(" 7 3 ", " 1 0 "));
    let second = sampler.look(crate::clock::Instants::read(), &[], interval);
    let start = |round: &sampler::Round| round.seen.keys().map(|key| key.start_time.0 / 10_000_000).collect::<Vec<_>>();
    assert_eq!((start(&first), start(&second)), (vec![12_345], vec![99_999]));
    let sample = &second.samples.processes[0];
    assert_eq!((sample.memory_bytes, sample.thread_count), (250 * 4_096, 5));
    assert!(sample.cpu_percent < 100.1);
    let host = second.samples.host.unwrap();
    assert_eq!((host.memory_used_bytes, host.load1), (40 * 1_024, 0.5));
}

#[test]
fn this_process_is_read_from_the_real_proc() {
    let reader = Procfs::new("/proc", Arguments::Show);
    let pid = std::process::id();
    let details = reader.details(pid).unwrap();
    assert_eq!(details.pid, pid);
    assert!(details.start_time.0 > 0 && !details.name.is_empty() && details.cgroup_path.starts_with('/'));
    assert!(reader.open_files(pid).unwrap() > 2);
    assert!(reader.open_files_limit(pid) > 0);
    assert!(reader.network_namespace(pid).unwrap() > 0);
}

#[test]
fn the_most_telling_cgroup_is_taken() {
    const ID: &str = "2299a2ca59dfd821f367e689d5869c4e568272c2305701761888e1d79d7a6f51";
    let path = |text: &str| parse::cgroup_path(text.as_bytes(), "mesos");
    assert_eq!(path(&format!("9:name=systemd:/\n4:memory:/docker/{ID}\n0::/\n")), format!("/docker/{ID}"));
    assert_eq!(path("9:name=systemd:/init.scope\n4:memory:/x\n0::/\n"), "/init.scope");
    assert_eq!(path("0::/user.slice (deleted)\n"), "/user.slice");
    assert_eq!(path("garbage\n\n::\n"), "/");
}

#[test]
fn a_long_command_line_is_cut_between_two_characters() {
    let line = parse::command_line(&"ä".repeat(5_000).into_bytes(), &Masks::default());
    assert_eq!(line.whole.len(), COMMAND_LINE_MAX);
    let odd = parse::command_line(format!("x{}", "ä".repeat(5_000)).as_bytes(), &Masks::default());
    assert_eq!(odd.whole.len(), COMMAND_LINE_MAX - 1);
    assert_eq!(odd.first_word.unwrap().len(), NAME_MAX - 1);
}

proptest! {
    #[test]
    fn garbage_in_every_file_is_a_value_or_an_error(
        stat in proptest::collection::vec(any::<u8>(), 0..200),
        status in proptest::collection::vec(any::<u8>(), 0..200),
        cmdline in proptest::collection::vec(any::<u8>(), 0..6_000),
        cgroup in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let fake = Fake::new();
        let reader = fake.write(20, "stat", stat).write(20, "status", &status).write(20, "cmdline", &cmdline).write(20, "cgroup", &cgroup).reader(Arguments::Show);
        let _ = reader.details(20);
        // With a valid stat the other files are read, too.
        fake.write(20, "stat", STAT);
        if let Ok(details) = reader.details(20) {
            prop_assert!(details.command_line.len() <= COMMAND_LINE_MAX);
            prop_assert!(!details.command_line.chars().any(parse::moves));
            prop_assert!(!details.name.is_empty() && details.cgroup_path.starts_with('/'));
        }
        parse::cpu_ticks(&status);
        parse::memory(&cgroup);
        parse::open_files_limit(&status);
        parse::boot_time(&status);
    }
}

#[test]
fn characters_that_turn_a_text_around_do_not_come_through() {
    let told = parse::printable("a\u{202e}gpj\u{200b}\u{2066}\u{feff}\nb".as_bytes());
    assert_eq!(told, "a\u{fffd}gpj\u{fffd}\u{fffd}\u{fffd} b");
}
