use std::fs;
use std::path::Path;

use super::*;
use crate::cgroupfs::Mounts;
use crate::clock::Now;
use crate::procfs::Arguments;

const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3_600 * SECOND;
const YEAR: u64 = 365 * 24 * HOUR;
const ID: &str = "2299a2ca59dfd821f367e689d5869c4e568272c2305701761888e1d79d7a6f51";

/// A machine with one CPU, one process and one container, whose clocks and counters a test moves.
struct Machine {
    root: tempfile::TempDir,
    at: Instants,
    busy_ticks: u64,
    process_ticks: u64,
    sampler: Sampler,
}

impl Machine {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let mounts = Mounts::parse(b"1 0 0:1 / /cg rw - cgroup2 cgroup2 rw\n", root.path());
        let procfs = Arc::new(Procfs::new(root.path().join("proc"), Arguments::Show));
        let now = Now { boot: BootNanos(1_000 * SECOND), unix_nanos: 50 * YEAR };
        let machine = Machine {
            sampler: Sampler::new(procfs, CgroupReader::new(mounts), 4_096),
            root,
            at: Instants { now, awake_nanos: 1_000 * SECOND },
            busy_ticks: 0,
            process_ticks: 0,
        };
        machine.write("proc/meminfo", "MemTotal: 100 kB\nMemFree: 50 kB\n");
        machine.write("proc/loadavg", "0.5 0.4 0.3 1/1 1\n");
        machine.write("proc/20/cgroup", &format!("0::/docker/{ID}\n"));
        machine
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Time passes in which the machine is awake and a quarter busy, all of it with the one process.
    fn work(&mut self, nanos: u64) {
        self.at.now.boot.0 += nanos;
        self.at.now.unix_nanos += nanos;
        self.at.awake_nanos += nanos;
        self.busy_ticks += nanos / 4 / TICK_NANOS;
        self.process_ticks += nanos / 4 / TICK_NANOS;
    }

    /// The machine sleeps. No counter moves but the clocks that do not sleep.
    fn suspend(&mut self, nanos: u64) {
        self.at.now.boot.0 += nanos;
        self.at.now.unix_nanos += nanos;
    }

    fn look(&mut self) -> Round {
        let idle = self.at.awake_nanos / TICK_NANOS - self.busy_ticks;
        let stat = format!("cpu  {} 0 0 {idle} 0 0 0 0\ncpu0 1 0 0 1 0 0 0 0\nbtime 1\n", self.busy_ticks);
        self.write("proc/stat", &stat);
        let stat = format!("20 (a) S 1 20 20 0 -1 0 0 0 0 0 {} 0 0 0 20 0 5 0 100 1000000 250 0\n", self.process_ticks);
        self.write("proc/20/stat", &stat);
        let usage = format!("usage_usec {}\n", self.process_ticks * TICK_NANOS / 1_000);
        self.write(&format!("cg/docker/{ID}/cpu.stat"), &usage);
        let container = SampledContainer { id: ID.to_owned(), pid: 20, cgroup_path: None };
        self.sampler.look(self.at, &[container], Duration::from_secs(15))
    }
}

/// Shares of the host, the process and the container.
#[track_caller]
fn check_shares(round: &Round, expected: f64) {
    let host = round.samples.host.as_ref().unwrap().cpu_percent;
    let process = round.samples.processes[0].cpu_percent;
    let container = round.samples.containers[0].cpu_percent;
    for (whose, share) in [("host", host), ("process", process), ("container", container)] {
        assert!((share - expected).abs() < 0.2, "{whose}: {share} instead of {expected}");
    }
}

#[test]
fn a_share_is_of_the_time_between_two_looks() {
    let mut machine = Machine::new();
    machine.work(15 * SECOND);
    check_shares(&machine.look(), 0.0);
    machine.work(15 * SECOND);
    let round = machine.look();
    check_shares(&round, 25.0);
    let host = round.samples.host.unwrap();
    assert_eq!((host.load1, host.load5, host.load15, host.memory_used_bytes), (0.5, 0.4, 0.3, 50 * 1_024));
}

#[test]
fn a_clock_that_is_set_changes_no_share_and_a_sample_is_told_with_the_time_of_the_new_clock() {
    for step in [i64::try_from(YEAR).unwrap(), -i64::try_from(YEAR).unwrap()] {
        let mut machine = Machine::new();
        machine.look();
        machine.work(15 * SECOND);
        machine.at.now.unix_nanos = machine.at.now.unix_nanos.saturating_add_signed(step);
        check_shares(&machine.look(), 25.0);
        // Set between the look and the report.
        machine.work(15 * SECOND);
        let round = machine.look();
        check_shares(&round, 25.0);
        let mut told_at = machine.at.now;
        told_at.boot.0 += SECOND;
        told_at.unix_nanos = told_at.unix_nanos.saturating_add_signed(-step) + SECOND;
        let mut builder = crate::report::Builder::default();
        builder.put_samples(machine.at.now, round.samples);
        let report = &builder.take_delta(told_at, 1 << 20)[0];
        assert_eq!(report.observed_at_unix_nanos, told_at.unix_nanos);
        let times =
            [report.host_metrics[0].at_unix_nanos, report.process_metrics[0].at_unix_nanos, report.container_metrics[0].at_unix_nanos];
        assert_eq!(times, [told_at.unix_nanos - SECOND; 3]);
    }
}

#[test]
fn a_night_in_which_the_machine_slept_is_not_counted() {
    let mut machine = Machine::new();
    machine.look();
    machine.work(10 * SECOND);
    machine.suspend(8 * HOUR);
    machine.work(5 * SECOND);
    check_shares(&machine.look(), 25.0);
    machine.work(15 * SECOND);
    check_shares(&machine.look(), 25.0);
}

#[test]
fn two_looks_at_one_instant_and_counters_that_go_back_are_no_shares() {
    let mut machine = Machine::new();
    machine.work(15 * SECOND);
    machine.look();
    check_shares(&machine.look(), 0.0);
    machine.work(15 * SECOND);
    machine.process_ticks = 0;
    machine.busy_ticks = 0;
    let round = machine.look();
    assert_eq!((round.samples.processes[0].cpu_percent, round.samples.containers[0].cpu_percent), (0.0, 0.0));
}

#[test]
fn containers_that_had_no_turn_are_the_first_in_the_next_round() {
    let mut machine = Machine::new();
    machine.look();
    machine.work(15 * SECOND);
    let container = SampledContainer { id: ID.to_owned(), pid: 20, cgroup_path: None };
    let cut = machine.sampler.look(machine.at, std::slice::from_ref(&container), Duration::ZERO);
    assert!(cut.effort.over_budget);
    assert!(cut.samples.containers.is_empty());
    assert_eq!(cut.samples.processes.len(), 1, "every process is told, with less of it");
    machine.work(15 * SECOND);
    check_containers_share(&machine.look(), 25.0);
}

/// The share of the container alone: it is of the time since its own last look.
#[track_caller]
fn check_containers_share(round: &Round, expected: f64) {
    let share = round.samples.containers[0].cpu_percent;
    assert!((share - expected).abs() < 0.2, "{share}");
}

#[test]
fn bytes_of_a_process_are_told_and_zero_when_they_are_refused() {
    let mut machine = Machine::new();
    machine.write("proc/20/io", "rchar: 1\nread_bytes: 4096\nwrite_bytes: 8192\n");
    let sample = |round: Round| (round.samples.processes[0].io_read_bytes, round.samples.processes[0].io_written_bytes);
    assert_eq!(sample(machine.look()), (4_096, 8_192));
    let mut other = Machine::new();
    assert_eq!(sample(other.look()), (0, 0));
    assert_eq!(other.sampler.procfs.unreadable(), 0, "a right that the probe does not have is no fault of the file");
}

/// What is written to a disk by this very process.
#[test]
fn bytes_of_this_process_are_counted_by_the_kernel() {
    use std::io::Write as _;
    let procfs = Procfs::new("/proc", Arguments::Show);
    let Some((_, before)) = procfs.io_bytes(std::process::id()) else { return };
    let directory = tempfile::tempdir_in(Path::new(env!("CARGO_MANIFEST_DIR")).join("../target")).unwrap();
    let mut file = fs::File::create(directory.path().join("data")).unwrap();
    file.write_all(&vec![7; 1 << 20]).unwrap();
    file.sync_all().unwrap();
    let (_, after) = procfs.io_bytes(std::process::id()).unwrap();
    assert!(after - before >= 1 << 20, "{before} to {after}");
}

/// Not a limit, but a number to look at: `cargo nextest run -p orchestrator-probe cost_of_a_walk --no-capture`.
#[test]
fn the_cost_of_a_walk_is_printed() {
    let procfs = Arc::new(Procfs::new("/proc", Arguments::Show));
    let mut sampler = Sampler::new(procfs, CgroupReader::new(Mounts::default()), 4_096);
    sampler.look(Instants::read(), &[], Duration::from_secs(600));
    let begun = thread_cpu();
    let round = sampler.look(Instants::read(), &[], Duration::from_secs(600));
    let cost = thread_cpu().saturating_sub(begun);
    let processes = round.seen.len().max(1);
    println!(
        "{processes} processes: {:?}, of CPU time {cost:?}, {} µs per process",
        round.effort.took,
        cost.as_micros() / processes as u128
    );
    assert!(!round.effort.over_budget);
}
