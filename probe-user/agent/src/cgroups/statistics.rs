//! What a cgroup has used, from the files of either version.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mesos_proto::v1::ResourceStatistics;

/// What a container has used so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// As Mesos words it; without a time.
    pub statistics: ResourceStatistics,
    /// The most memory it ever had, in bytes, where the kernel says so.
    pub memory_peak: Option<u64>,
    /// The kernel's statistics of its memory, for people.
    pub memory_stat: String,
}

pub(super) fn read(is_v2: bool, paths: &BTreeMap<&'static str, PathBuf>) -> Usage {
    if is_v2 { paths.get("").map(|it| read_v2(it)).unwrap_or_default() } else { read_v1(paths) }
}

#[expect(clippy::cast_precision_loss, reason = "times in seconds, as floating numbers")]
fn read_v1(paths: &BTreeMap<&'static str, PathBuf>) -> Usage {
    // What the kernel counts CPU time of user and system in, on every architecture that we build for.
    const TICKS: f64 = 100.0;

    let mut usage = Usage::default();
    let it = &mut usage.statistics;
    if let Some(path) = paths.get("cpuacct") {
        let stat = table(&path.join("cpuacct.stat"));
        it.cpus_user_time_secs = stat.get("user").map(|it| *it as f64 / TICKS);
        it.cpus_system_time_secs = stat.get("system").map(|it| *it as f64 / TICKS);
    }
    if let Some(path) = paths.get("cpu") {
        let stat = table(&path.join("cpu.stat"));
        it.cpus_nr_periods = stat.get("nr_periods").and_then(|it| u32::try_from(*it).ok());
        it.cpus_nr_throttled = stat.get("nr_throttled").and_then(|it| u32::try_from(*it).ok());
        it.cpus_throttled_time_secs = stat.get("throttled_time").map(|it| *it as f64 / 1e9);
        it.cpus_limit = number(&path.join("cpu.shares")).map(|it| it as f64 / 1024.0);
    }
    if let Some(path) = paths.get("memory") {
        usage.memory_stat = std::fs::read_to_string(path.join("memory.stat")).unwrap_or_default();
        let stat = parse_table(&usage.memory_stat);
        let it = &mut usage.statistics;
        it.mem_total_bytes = number(&path.join("memory.usage_in_bytes"));
        it.mem_total_memsw_bytes = number(&path.join("memory.memsw.usage_in_bytes"));
        it.mem_limit_bytes = number(&path.join("memory.limit_in_bytes"));
        it.mem_soft_limit_bytes = number(&path.join("memory.soft_limit_in_bytes"));
        it.mem_kmem_usage_bytes = number(&path.join("memory.kmem.usage_in_bytes"));
        it.mem_kmem_tcp_usage_bytes = number(&path.join("memory.kmem.tcp.usage_in_bytes"));
        it.mem_cache_bytes = stat.get("total_cache").copied();
        it.mem_file_bytes = stat.get("total_cache").copied();
        it.mem_rss_bytes = stat.get("total_rss").copied();
        it.mem_anon_bytes = stat.get("total_rss").copied();
        it.mem_mapped_file_bytes = stat.get("total_mapped_file").copied();
        it.mem_swap_bytes = stat.get("total_swap").copied();
        it.mem_unevictable_bytes = stat.get("total_unevictable").copied();
        usage.memory_peak = number(&path.join("memory.max_usage_in_bytes"));
    }
    if let Some(path) = paths.get("pids").or_else(|| paths.get("freezer")) {
        count_processes(path, &mut usage.statistics);
    }
    usage
}

#[expect(clippy::cast_precision_loss, reason = "times in seconds, as floating numbers")]
fn read_v2(path: &Path) -> Usage {
    let mut usage = Usage::default();
    let it = &mut usage.statistics;
    let stat = table(&path.join("cpu.stat"));
    it.cpus_user_time_secs = stat.get("user_usec").map(|it| *it as f64 / 1e6);
    it.cpus_system_time_secs = stat.get("system_usec").map(|it| *it as f64 / 1e6);
    it.cpus_nr_periods = stat.get("nr_periods").and_then(|it| u32::try_from(*it).ok());
    it.cpus_nr_throttled = stat.get("nr_throttled").and_then(|it| u32::try_from(*it).ok());
    it.cpus_throttled_time_secs = stat.get("throttled_usec").map(|it| *it as f64 / 1e6);
    it.cpus_limit = number(&path.join("cpu.weight")).map(|it| it as f64 / 100.0);
    usage.memory_stat = std::fs::read_to_string(path.join("memory.stat")).unwrap_or_default();
    let stat = parse_table(&usage.memory_stat);
    let it = &mut usage.statistics;
    it.mem_total_bytes = number(&path.join("memory.current"));
    it.mem_limit_bytes = number(&path.join("memory.max"));
    it.mem_soft_limit_bytes = number(&path.join("memory.low"));
    it.mem_file_bytes = stat.get("file").copied();
    it.mem_cache_bytes = stat.get("file").copied();
    it.mem_anon_bytes = stat.get("anon").copied();
    it.mem_rss_bytes = stat.get("anon").copied();
    it.mem_mapped_file_bytes = stat.get("file_mapped").copied();
    it.mem_kmem_usage_bytes = stat.get("kernel").copied();
    it.mem_unevictable_bytes = stat.get("unevictable").copied();
    it.mem_swap_bytes = number(&path.join("memory.swap.current"));
    usage.memory_peak = number(&path.join("memory.peak"));
    count_processes(&path.join("leaf"), &mut usage.statistics);
    usage
}

fn count_processes(path: &Path, it: &mut ResourceStatistics) {
    let lines = |file: &str| std::fs::read_to_string(path.join(file)).ok().map(|it| u32::try_from(it.lines().count()).unwrap_or(u32::MAX));
    it.processes = lines("cgroup.procs");
    it.threads = lines("tasks").or_else(|| lines("cgroup.threads"));
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn table(path: &Path) -> BTreeMap<String, u64> {
    parse_table(&std::fs::read_to_string(path).unwrap_or_default())
}

fn parse_table(text: &str) -> BTreeMap<String, u64> {
    let pairs = text.lines().filter_map(|it| it.split_once(' '));
    pairs.filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?))).collect()
}
