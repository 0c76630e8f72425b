use proptest::prelude::*;

use super::*;
use crate::procfs::Arguments;

const ID: &str = "2299a2ca59dfd821f367e689d5869c4e568272c2305701761888e1d79d7a6f51";

/// A host below a directory: `/proc`, and hierarchies at `/cg`.
struct Fake {
    root: tempfile::TempDir,
}

impl Fake {
    fn new(cgroup_of_7: &str) -> Self {
        let fake = Fake { root: tempfile::tempdir().unwrap() };
        fake.write("proc/7/cgroup", cgroup_of_7);
        fake
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) -> &Self {
        let path = self.root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    fn procfs(&self) -> Procfs {
        Procfs::new(self.root.path().join("proc"), Arguments::Show)
    }

    fn reader(&self, mounts: &str) -> CgroupReader {
        CgroupReader::new(Mounts::parse(mounts.as_bytes(), self.root.path()))
    }
}

const V1_MOUNTS: &str = "1 0 0:1 / /cg/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
    2 0 0:2 / /cg/memory rw - cgroup cgroup rw,memory\n\
    3 0 0:3 / /cg/blkio rw - cgroup cgroup rw,blkio\n\
    4 0 0:4 / /cg/pids rw - cgroup cgroup rw,pids\n\
    5 0 0:5 / /cg/unified rw - cgroup2 cgroup2 rw\n";
const V2_MOUNTS: &str = "1 0 0:1 / /cg rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

/// A container of v1 with all its files.
fn v1() -> Fake {
    let fake = Fake::new(&format!(
        "5:pids:/docker/{ID}\n4:memory:/docker/{ID}/init.scope\n3:blkio:/docker/{ID}\n2:cpu,cpuacct:/docker/{ID}\n0::/docker/{ID}\n"
    ));
    let cpu = format!("cg/cpu,cpuacct/docker/{ID}");
    let memory = format!("cg/memory/docker/{ID}");
    fake.write(&format!("{cpu}/cpuacct.usage"), "123456\n")
        .write(&format!("{cpu}/cpu.stat"), "nr_periods 10\nnr_throttled 4\nthrottled_time 5000\nnr_bursts 0\n")
        .write(&format!("{cpu}/cpu.cfs_quota_us"), "150000\n")
        .write(&format!("{cpu}/cpu.cfs_period_us"), "100000\n")
        .write("cg/cpu,cpuacct/docker/cpu.cfs_quota_us", "-1\n")
        .write("cg/cpu,cpuacct/docker/cpu.cfs_period_us", "100000\n")
        .write(&format!("{memory}/memory.usage_in_bytes"), "1000\n")
        .write(&format!("{memory}/memory.stat"), "cache 1\nhierarchical_memory_limit 9223372036854771712\ntotal_cache 400\n")
        .write(&format!("{memory}/memory.oom_control"), "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
        .write(&format!("cg/blkio/docker/{ID}/blkio.throttle.io_service_bytes"), "8:0 Read 1\n8:0 Write 1\nTotal 2\n")
        .write(
            &format!("cg/blkio/docker/{ID}/blkio.throttle.io_service_bytes_recursive"),
            "8:0 Read 4096\n8:0 Write 8192\n8:0 Sync 1\n8:0 Total 12288\n253:0 Read 4096\n253:0 Write 8192\nTotal 24576\n",
        )
        .write(&format!("cg/pids/docker/{ID}/pids.current"), "12\n")
        .write(&format!("cg/unified/docker/{ID}/cpu.pressure"), "some avg10=12.50 avg60=0.00 avg300=0.00 total=1\n")
        .write(&format!("cg/unified/docker/{ID}/io.pressure"), "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n");
    fake
}

fn v1_usage() -> Usage {
    Usage {
        cpu_nanos: Some(123_456),
        cpu_limit: 1.5,
        periods: 10,
        throttled_periods: 4,
        throttled_nanos: 5_000,
        memory_bytes: Some(1_000),
        cache_bytes: 400,
        memory_limit_bytes: 0,
        oom_kills: 3,
        io_read_bytes: 4_096,
        io_written_bytes: 8_192,
        task_count: 12,
        pressure: Some(Pressure { cpu_percent: 12.5, memory_percent: 0.0, io_percent: 0.0 }),
    }
}

#[test]
fn usage_is_read_from_v1_with_pressure_from_v2_beside_it() {
    let fake = v1();
    let mut reader = fake.reader(V1_MOUNTS);
    reader.begin_round(vec![(253, 0)]);
    assert_eq!(reader.usage(&fake.procfs(), ID, None, 7), Some(v1_usage()));
    assert_eq!(reader.usage(&fake.procfs(), ID, None, 8), None, "a process that is gone");
}

#[test]
fn a_v1_limit_above_the_container_holds_for_it() {
    let fake = v1();
    fake.write("cg/cpu,cpuacct/docker/cpu.cfs_quota_us", "50000\n");
    fake.write(
        &format!("cg/memory/docker/{ID}/memory.stat"),
        "hierarchical_memory_limit 4096\nhierarchical_memsw_limit 8192\ntotal_cache 400\n",
    );
    let usage = fake.reader(V1_MOUNTS).usage(&fake.procfs(), ID, None, 7).unwrap();
    assert_eq!((usage.cpu_limit, usage.memory_limit_bytes), (0.5, 4_096));
}

#[test]
fn a_missing_controller_is_missing_and_no_more() {
    let fake = v1();
    let mounts = V1_MOUNTS.lines().filter(|line| !line.contains("memory") && !line.contains("blkio") && !line.contains("cgroup2"));
    let usage = fake.reader(&mounts.collect::<Vec<_>>().join("\n")).usage(&fake.procfs(), ID, None, 7).unwrap();
    let expected =
        Usage { memory_bytes: None, cache_bytes: 0, oom_kills: 0, io_read_bytes: 0, io_written_bytes: 0, pressure: None, ..v1_usage() };
    assert_eq!(usage, expected);
    assert_eq!(usage.own_memory_bytes(), 0);
}

#[test]
fn a_cgroup_that_vanishes_while_it_is_read_has_no_sample_and_is_found_again() {
    let fake = v1();
    let mut reader = fake.reader(V1_MOUNTS);
    reader.begin_round(vec![(253, 0)]);
    assert!(reader.usage(&fake.procfs(), ID, None, 7).is_some());
    let file = format!("cg/memory/docker/{ID}/memory.stat");
    let text = std::fs::read(fake.root.path().join(&file)).unwrap();
    std::fs::remove_file(fake.root.path().join(&file)).unwrap();
    assert_eq!(reader.usage(&fake.procfs(), ID, None, 7), None, "half of a sample would be a dip to zero");
    fake.write(&file, text);
    assert_eq!(reader.usage(&fake.procfs(), ID, None, 7), Some(v1_usage()));
}

/// A container of v2 as `kernel` shows it. The texts were recorded on that kernel.
fn v2(kernel: &str) -> Fake {
    let path = format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope");
    let fake = Fake::new(&format!("0::{path}\n"));
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cgroup2").join(kernel);
    for entry in std::fs::read_dir(&recorded).unwrap() {
        let entry = entry.unwrap();
        fake.write(&format!("cg{path}/{}", entry.file_name().to_str().unwrap()), std::fs::read(entry.path()).unwrap());
    }
    fake.write("cg/kubepods.slice/cpu.max", "max 100000\n")
        .write("cg/kubepods.slice/memory.max", "max\n")
        .write("cg/kubepods.slice/kubepods-pod1.slice/cpu.max", "max 100000\n")
        .write("cg/kubepods.slice/kubepods-pod1.slice/memory.max", "1073741824\n");
    fake
}

#[test]
fn a_limit_above_a_v2_cgroup_holds_for_it() {
    let fake = v2("6.1");
    let path = format!("cg/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope");
    fake.write(&format!("{path}/memory.max"), "max\n");
    fake.write("cg/kubepods.slice/cpu.max", "5000 100000\n");
    let usage = fake.reader(V2_MOUNTS).usage(&fake.procfs(), ID, None, 7).unwrap();
    assert_eq!((usage.cpu_limit, usage.memory_limit_bytes), (0.05, 1 << 30));
    fake.write("cg/kubepods.slice/kubepods-pod1.slice/memory.max", "max\n").write("cg/kubepods.slice/cpu.max", "max 100000\n");
    fake.write(&format!("{path}/cpu.max"), "max 100000\n");
    let usage = fake.reader(V2_MOUNTS).usage(&fake.procfs(), ID, None, 7).unwrap();
    assert_eq!((usage.cpu_limit, usage.memory_limit_bytes), (0.0, 0));
}

#[test]
fn a_limit_that_changes_is_seen_within_four_rounds() {
    let fake = v2("6.1");
    let mut reader = fake.reader(V2_MOUNTS);
    reader.begin_round(Vec::new());
    reader.usage(&fake.procfs(), ID, None, 7).unwrap();
    fake.write("cg/kubepods.slice/cpu.max", "7000 100000\n");
    let seen = (0..LIMIT_ROUNDS).map(|_| {
        reader.begin_round(Vec::new());
        reader.usage(&fake.procfs(), ID, None, 7).unwrap().cpu_limit
    });
    assert_eq!(seen.last(), Some(0.07));
}

#[test]
fn a_pid_that_another_process_has_now_is_not_believed() {
    let fake = Fake::new("0::/user.slice\n");
    assert_eq!(fake.reader(V2_MOUNTS).usage(&fake.procfs(), ID, None, 7), None);
}

#[test]
fn a_container_without_an_id_is_found_by_the_path_of_its_cgroup() {
    let path = "/machine.slice/machine-debian\\x2d12.scope";
    let fake = Fake::new(&format!("0::{path}/payload/system.slice\n"));
    fake.write(&format!("cg{path}/cpu.stat"), "usage_usec 5\n").write(&format!("cg{path}/memory.current"), "4096\n");
    let usage = |own: &str| fake.reader(V2_MOUNTS).usage(&fake.procfs(), ID, Some(own), 7);
    let found = usage(path).expect("it is there");
    assert_eq!((found.cpu_nanos, found.memory_bytes), (Some(5_000), Some(4_096)));
    assert_eq!(usage("/machine.slice/machine-debian"), None, "another one whose name begins alike");
    fake.write("proc/7/cgroup", "0::/user.slice\n");
    assert_eq!(usage(path), None, "another process by this pid");
}

#[test]
fn usage_of_a_task_is_read_from_v1() {
    let path = "/node/tasks/5a61dbc8-3b5c-4bd3-a8e2-6c8f2a1f0b33";
    let fake = Fake::new(&format!("4:memory:{path}\n2:cpu,cpuacct:{path}\n0::/\n"));
    fake.write(&format!("cg/cpu,cpuacct{path}/cpuacct.usage"), "7\n").write(&format!("cg/memory{path}/memory.usage_in_bytes"), "9\n");
    let usage = fake.reader(V1_MOUNTS).usage(&fake.procfs(), ID, Some(path), 7).expect("it is there");
    assert_eq!((usage.cpu_nanos, usage.memory_bytes), (Some(7), Some(9)));
}

#[test]
fn a_path_told_from_another_cgroup_namespace_leads_nowhere() {
    let fake = v2("6.1");
    fake.write("proc/7/cgroup", format!("0::/../../cg/cri-containerd-{ID}.scope\n"));
    assert_eq!(fake.reader(V2_MOUNTS).usage(&fake.procfs(), ID, None, 7), None);
}

#[test]
fn of_several_mounts_the_one_that_shows_all_is_taken() {
    let table = format!(
        "1 0 0:1 /docker/{ID} /own rw - cgroup cgroup rw,memory\n\
         2 0 0:1 / /whole rw - cgroup cgroup rw,memory\n\
         3 0 0:1 / /later rw - cgroup cgroup rw,memory\n\
         4 0 0:2 /docker/{ID} /v2\\040part rw - cgroup2 cgroup2 rw\n"
    );
    let mounts = Mounts::parse(table.as_bytes(), Path::new("/r"));
    assert_eq!(mounts.controllers["memory"], Path::new("/r/whole"));
    let part = mounts.unified.clone().unwrap();
    assert_eq!(part, Path::new("/r/v2 part"));
    assert_eq!(mounts.directory(&part, &format!("/docker/{ID}/a")), Some(part.join("a")));
    assert_eq!(mounts.directory(&part, "/docker/other"), None, "what is not below what is mounted");
}

#[test]
fn a_huge_file_is_cut_and_a_number_that_does_not_fit_is_none() {
    let fake = v1();
    let memory = format!("cg/memory/docker/{ID}");
    fake.write(&format!("{memory}/memory.stat"), "x 1\n".repeat(100_000) + "total_cache 400\n");
    fake.write(&format!("{memory}/memory.usage_in_bytes"), "18446744073709551616\n");
    fake.write(&format!("cg/pids/docker/{ID}/pids.current"), "99999999999\n");
    let mut reader = fake.reader(V1_MOUNTS);
    let usage = reader.usage(&fake.procfs(), ID, None, 7).unwrap();
    assert_eq!((usage.memory_bytes, usage.cache_bytes, usage.task_count), (None, 0, u32::MAX));
    assert!(reader.buffer.capacity() <= 2 * usize::try_from(files::FILE_MAX).unwrap());
}

#[test]
fn tmpfs_and_shared_memory_are_no_page_cache() {
    let own = |file: File, text: &str| {
        let mut usage = Usage { memory_bytes: Some(1_000), ..Usage::default() };
        file.apply(text.as_bytes(), |_| false, &mut usage);
        usage.own_memory_bytes()
    };
    assert_eq!(own(File::MemoryStatV2, "anon 100\nfile 900\nshmem 850\n"), 950);
    assert_eq!(own(File::MemoryStatV1, "cache 1\nshmem 1\ntotal_cache 900\ntotal_shmem 850\n"), 950);
    assert_eq!(own(File::MemoryStatV2, "file 100\nshmem 200\n"), 1_000, "the two are not counted at one moment");
}

#[test]
fn limits_are_words_or_numbers() {
    assert_eq!(files::cpu_max(b"max 100000\n"), None);
    assert_eq!(files::cpu_max(b"150000 100000\n"), Some(1.5));
    assert_eq!(files::cpu_max(b"50000\n"), Some(0.5));
    assert_eq!(files::cpu_max(b"1 0\n"), None);
    assert_eq!(files::cfs_quota(b"-1\n", b"100000\n"), None);
    assert_eq!(files::memory_max(b"max\n"), None);
    assert_eq!(files::memory_max(b"9223372036854771712\n"), None);
    assert_eq!(files::memory_max(b"4096\n"), Some(4_096));
}

proptest! {
    #[test]
    fn arbitrary_bytes_in_every_file_are_usage_without_nonsense(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut usage = Usage::default();
        for file in File::ALL {
            file.apply(&bytes, |_| false, &mut usage);
        }
        let pressure = usage.pressure.unwrap();
        for share in [pressure.cpu_percent, pressure.memory_percent, pressure.io_percent] {
            prop_assert!((0.0..=100.0).contains(&share));
        }
        prop_assert!(files::cpu_max(&bytes).is_none_or(|it| it.is_finite() && it > 0.0));
        files::memory_max(&bytes);
        files::cfs_quota(&bytes, &bytes);
        Mounts::parse(&bytes, Path::new("/"));
    }

    #[test]
    fn arbitrary_numbers_do_not_overflow(numbers in proptest::collection::vec(any::<u64>(), 8)) {
        let [a, b, c, d, e, f, g, h] = numbers[..] else { unreachable!("eight were made") };
        let mut usage = Usage::default();
        let text = format!("usage_usec {a}\nnr_periods {b}\nnr_throttled {c}\nthrottled_usec {d}\nfile {e}\n8:0 rbytes={f} wbytes={g}\n8:1 rbytes={h} wbytes={h}\n");
        File::ALL.iter().for_each(|file| file.apply(text.as_bytes(), |_| false, &mut usage));
        File::MemoryUsageV2.apply(a.to_string().as_bytes(), |_| false, &mut usage);
        prop_assert_eq!(usage.own_memory_bytes(), a.saturating_sub(usage.cache_bytes));
        if let Some(limit) = files::cpu_max(format!("{a} {b}").as_bytes()) {
            prop_assert!(limit.is_finite());
        }
    }
}

/// What a container used that was held to a tenth of a CPU and 20 MiB, wrote 2 MiB to a device, read one, and lost a process to the limit.
#[test]
fn usage_is_read_from_what_v2_said_on_several_kernels() {
    let told = |kernel: &str| {
        let fake = v2(kernel);
        fake.reader(V2_MOUNTS).usage(&fake.procfs(), ID, None, 7).unwrap()
    };
    for kernel in ["5.10", "6.1", "7.2"] {
        let usage = told(kernel);
        assert_eq!((usage.cpu_limit, usage.memory_limit_bytes, usage.oom_kills), (0.1, 20 << 20, 1), "{kernel}");
        assert_eq!((usage.io_read_bytes, usage.io_written_bytes, usage.task_count), (1 << 20, 2 << 20, 1), "{kernel}");
        assert!(usage.cpu_nanos.unwrap() > 1_000_000_000 && usage.throttled_nanos > 1_000_000_000, "{kernel}: {usage:?}");
        assert!(usage.throttled_periods > usage.periods / 2 && usage.throttled_periods <= usage.periods, "{kernel}: {usage:?}");
        assert!((4_096..1 << 20).contains(&usage.own_memory_bytes()), "{kernel}: {usage:?}");
        assert!(usage.pressure.unwrap().cpu_percent > 5.0, "{kernel}: {usage:?}");
    }
}
