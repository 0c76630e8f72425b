//! cgroups of the real kernel, v1 or v2, whichever has the controllers here: what is done in them is what is sampled.
//!
//! Needs root. The cgroups are made by the test and removed again.
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail by panicking")]

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use orchestrator_probe::capture;
use orchestrator_probe::cgroupfs::{CgroupReader, Mounts};
use orchestrator_probe::clock::{Instants, thread_cpu};
use orchestrator_probe::procfs::sampler::{SampledContainer, Sampler};
use orchestrator_probe::procfs::{Arguments, Procfs};
use proto::probe::v1::ContainerMetrics;
use support::{is_root, missing};

mod support;

/// How long something may take to show on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A cgroup named like a container's, in every hierarchy that has the controllers.
struct Group {
    id: String,
    mounts: Mounts,
    directories: Vec<PathBuf>,
}

impl Group {
    fn make() -> Option<Self> {
        if !is_root() {
            missing("root");
            return None;
        }
        let mounts = capture::mounts(Path::new("/proc"));
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let id = format!("{:060x}{:04x}", std::process::id(), number);
        let parent = format!("probe-test-{}-{number}", std::process::id());
        let mut directories: Vec<PathBuf> = mounts.controllers.values().map(|point| point.join(&parent).join(&id)).collect();
        // Some kernels have one controller in v1 and another in v2 alone.
        let in_v2 = [("cpu", "+cpu"), ("memory", "+memory"), ("blkio", "+io"), ("pids", "+pids")];
        let in_v2: Vec<&str> = in_v2.iter().filter(|(v1, _)| !mounts.controllers.contains_key(*v1)).map(|(_, v2)| *v2).collect();
        if let Some(point) = &mounts.unified {
            // Controllers have to be handed down level by level.
            std::fs::create_dir_all(point.join(&parent)).unwrap();
            for level in [point.clone(), point.join(&parent)] {
                for controller in &in_v2 {
                    std::fs::write(level.join("cgroup.subtree_control"), controller)
                        .unwrap_or_else(|error| panic!("{controller} in {}: {error}", level.display()));
                }
            }
            directories.push(point.join(&parent).join(&id));
        } else if !in_v2.is_empty() {
            missing("a cgroup hierarchy with controllers");
            return None;
        }
        directories.sort();
        directories.dedup();
        for directory in &directories {
            std::fs::create_dir_all(directory).unwrap();
        }
        Some(Group { id, mounts, directories })
    }

    /// Whether a controller of v1 is there.
    fn has_v1(&self, controller: &str) -> bool {
        self.mounts.controllers.contains_key(controller)
    }

    /// Writes files of one controller, those of v1 or of v2.
    fn set(&self, v1: &[(&str, &str)], v2: &[(&str, &str)]) {
        let in_v1 = v1.first().and_then(|(file, _)| file.split('.').next()).is_some_and(|controller| self.has_v1(controller));
        for (file, text) in if in_v1 { v1 } else { v2 } {
            let directory = self.directories.iter().find(|it| it.join(file).exists()).unwrap_or_else(|| panic!("no {file}"));
            std::fs::write(directory.join(file), text).unwrap_or_else(|error| panic!("{file}: {error}"));
        }
    }

    /// Starts a shell in the cgroup. It begins when it is told to by a line.
    fn run(&self, script: &str) -> Running {
        let mut child = Command::new("/bin/sh").args(["-c", &format!("read line; {script}")]).stdin(Stdio::piped()).spawn().unwrap();
        for directory in &self.directories {
            std::fs::write(directory.join("cgroup.procs"), child.id().to_string()).unwrap();
        }
        child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
        Running(child)
    }

    fn sampler(&self) -> Sampler {
        let procfs = Arc::new(Procfs::new("/proc", Arguments::Show));
        Sampler::new(procfs, CgroupReader::new(self.mounts.clone()), 4_096)
    }

    fn look(&self, sampler: &mut Sampler, pid: u32) -> Option<ContainerMetrics> {
        let container = SampledContainer { id: self.id.clone(), pid, cgroup_path: None };
        sampler.look(Instants::read(), &[container], Duration::from_secs(600)).samples.containers.pop()
    }

    /// Looks until a sample is as it should be.
    #[track_caller]
    fn until(&self, pid: u32, what: &str, holds: impl Fn(&ContainerMetrics) -> bool) -> ContainerMetrics {
        let mut sampler = self.sampler();
        let begun = Instant::now();
        loop {
            let sample = self.look(&mut sampler, pid);
            if let Some(sample) = sample.clone().filter(&holds) {
                return sample;
            }
            assert!(begun.elapsed() < PATIENCE, "{what}: not sampled in {PATIENCE:?}: {sample:?}");
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let begun = Instant::now();
        for directory in &self.directories {
            // Who was in it may take a moment to be gone.
            while std::fs::remove_dir(directory).is_err() && directory.exists() && begun.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = directory.parent().map(std::fs::remove_dir);
        }
    }
}

struct Running(Child);

impl Running {
    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_quota_is_the_limit_and_who_wants_more_is_throttled() {
    let Some(group) = Group::make() else { return };
    // So little that a machine on which others are busy, too, would give more.
    group.set(&[("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "2000")], &[("cpu.max", "2000 100000")]);
    let busy = group.run("while :; do :; done");
    let sample = group.until(busy.pid(), "throttling", |it| it.cpu_throttled_percent > 50.0 && it.cpu_throttled_nanos > 500_000_000);
    assert!((sample.cpu_limit - 0.02).abs() < 1e-9, "{sample:?}");
    // A fiftieth of one CPU, of all CPUs.
    let cpus = std::thread::available_parallelism().unwrap().get();
    let allowed = 2.0 / f64::from(u32::try_from(cpus).unwrap());
    assert!(sample.cpu_percent > 0.0 && sample.cpu_percent < allowed * 3.0, "{sample:?}");
    assert_eq!(sample.thread_count, 1);
}

#[test]
fn a_memory_limit_is_told_and_a_process_that_it_ends_is_counted() {
    let Some(group) = Group::make() else { return };
    group.set(&[("memory.limit_in_bytes", "20971520")], &[("memory.max", "20971520")]);
    if let Some(swap) = group.directories.iter().map(|it| it.join("memory.swap.max")).find(|it| it.exists()) {
        std::fs::write(swap, "0").unwrap();
    }
    let calm = group.run("exec sleep 1000");
    let before = group.until(calm.pid(), "memory", |it| it.memory_limit_bytes == 20 << 20);
    assert_eq!(before.oom_kills, 0);
    assert!(before.memory_bytes < 20 << 20);
    // A file of memory is memory, too.
    let mut greedy = group.run("head -c 100000000 /dev/zero | tail");
    let after = group.until(calm.pid(), "an out-of-memory kill", |it| it.oom_kills > 0);
    assert_eq!(after.memory_limit_bytes, 20 << 20);
    let _ = greedy.0.wait();
}

#[test]
fn bytes_to_and_from_a_disk_are_counted() {
    let Some(group) = Group::make() else { return };
    let Some((_directory, file)) = direct_file() else { return missing("a file or device with direct input and output") };
    let path = file.to_str().unwrap().to_owned();
    if group.has_v1("blkio") {
        // Where v1 counts the bytes of a device in a direction only from the first limit on that there is for it: limits that limit nothing.
        let limit = format!("{} 1099511627776", whole_device(&file));
        group.set(&[("blkio.throttle.write_bps_device", &limit), ("blkio.throttle.read_bps_device", &limit)], &[]);
    }
    let idle = group.run("exec sleep 1000");
    let before = group.until(idle.pid(), "a sample", |_| true);
    let mut writer = group.run(&format!(
        "dd if=/dev/zero of={path} bs=1M count=8 oflag=direct 2>/dev/null && dd if={path} of=/dev/null bs=1M count=4 iflag=direct 2>/dev/null"
    ));
    assert!(writer.0.wait().unwrap().success());
    let after = group.until(idle.pid(), "bytes of the disk", |it| it.io_written_bytes >= before.io_written_bytes + (8 << 20));
    let (read, written) = (after.io_read_bytes - before.io_read_bytes, after.io_written_bytes - before.io_written_bytes);
    assert!((4 << 20..6 << 20).contains(&read), "{read} bytes read");
    assert!((8 << 20..10 << 20).contains(&written), "{written} bytes written");
}

/// A file on a disk, or a device that is none: a machine that runs from memory has no disk.
fn direct_file() -> Option<(tempfile::TempDir, PathBuf)> {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).or_else(|_| tempfile::tempdir()).unwrap();
    let on_disk = directory.path().join("data");
    let device = PathBuf::from("/dev/nullb0");
    if opens_directly(&on_disk, true) {
        return Some((directory, on_disk));
    }
    let _ = Command::new("modprobe").args(["null_blk", "gb=1", "nr_devices=1"]).status();
    opens_directly(&device, false).then_some((directory, device))
}

fn opens_directly(path: &Path, create: bool) -> bool {
    let opened = std::fs::OpenOptions::new().create(create).write(true).custom_flags(nix::libc::O_DIRECT).open(path);
    // Memory can be opened so, too, since Linux 6.6.
    opened.is_ok() && block_device(path).exists()
}

/// The directory in `/sys` of the device that a file is on, or of a device itself.
fn block_device(file: &Path) -> PathBuf {
    let metadata = std::fs::metadata(file).unwrap();
    let device = if metadata.rdev() == 0 { metadata.dev() } else { metadata.rdev() };
    PathBuf::from(format!("/sys/dev/block/{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device)))
}

/// Major and minor number of that device's disk.
fn whole_device(file: &Path) -> String {
    let directory = std::fs::canonicalize(block_device(file)).unwrap();
    let whole = if directory.join("partition").exists() { directory.parent().unwrap() } else { &directory };
    std::fs::read_to_string(whole.join("dev")).unwrap().trim().to_owned()
}

#[test]
fn processes_that_wait_for_a_cpu_are_pressure() {
    let Some(group) = Group::make() else { return };
    if !Path::new("/proc/pressure/cpu").exists() || group.mounts.unified.is_none() {
        eprintln!("not tested here: this kernel keeps no account of pressure");
        return;
    }
    let busy: Vec<Running> =
        (0..std::thread::available_parallelism().unwrap().get() * 3).map(|_| group.run("while :; do :; done")).collect();
    let sample = group.until(busy[0].pid(), "pressure", |it| it.pressure.is_some_and(|it| it.cpu_percent > 5.0));
    assert_eq!(sample.thread_count as usize, busy.len());
}

#[test]
fn a_cgroup_that_is_gone_has_no_sample() {
    let Some(group) = Group::make() else { return };
    let running = group.run("exec sleep 1000");
    let pid = running.pid();
    let mut sampler = group.sampler();
    assert!(group.look(&mut sampler, pid).is_some());
    drop(running);
    for directory in &group.directories {
        let begun = Instant::now();
        while std::fs::remove_dir(directory).is_err() && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    assert_eq!(group.look(&mut sampler, pid), None);
}

/// A number to look at: `cargo nextest run -p orchestrator-probe cost_of_500 --no-capture`.
#[test]
fn the_cost_of_500_containers_is_printed() {
    const CONTAINERS: u32 = 500;
    let Some(group) = Group::make() else { return };
    let fake = tempfile::tempdir().unwrap();
    let parents: Vec<PathBuf> = group.directories.iter().filter_map(|it| it.parent()).map(Path::to_owned).collect();
    let name = parents[0].file_name().unwrap().to_str().unwrap().to_owned();
    let id = |number: u32| format!("{:060x}{number:04x}", 0xc057);
    let v1 = ["cpu", "cpuacct", "memory", "blkio", "pids"].into_iter().filter(|it| group.has_v1(it));
    let controllers: String = v1.zip(1..).map(|(controller, number)| format!("{number}:{controller}:P\n")).collect();
    let controllers = controllers + "0::P\n";
    for number in 0..CONTAINERS {
        parents.iter().for_each(|parent| std::fs::create_dir(parent.join(id(number))).unwrap());
        let directory = fake.path().join((number + 1).to_string());
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("cgroup"), controllers.replace('P', &format!("/{name}/{}", id(number)))).unwrap();
    }
    let procfs = Procfs::new(fake.path(), Arguments::Show);
    let mut reader = CgroupReader::new(group.mounts.clone());
    let mut round = || {
        reader.begin_round(Vec::new());
        let begun = thread_cpu();
        let read = (0..CONTAINERS).filter(|&number| reader.usage(&procfs, &id(number), None, number + 1).is_some()).count();
        (read, thread_cpu().saturating_sub(begun))
    };
    let (first, then) = (round(), round());
    let removed = (0..CONTAINERS).flat_map(|number| parents.iter().map(move |parent| parent.join(id(number))));
    removed.for_each(|it| std::fs::remove_dir(it).unwrap());
    println!("{CONTAINERS} containers, CPU time: first round {:?}, every other {:?}", first.1, then.1);
    assert_eq!((first.0, then.0), (500, 500));
}
