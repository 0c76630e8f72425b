//! What a cgroup has used, from the files of either version.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mesos_proto::v1::cgroup_info::blkio::{self, throttling};
use mesos_proto::v1::{ResourceStatistics, device};

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
    if let Some(path) = paths.get("blkio") {
        usage.statistics.blkio_statistics = blkio_v1(path);
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
    usage.statistics.blkio_statistics = io_v2(&std::fs::read_to_string(path.join("io.stat")).unwrap_or_default());
    count_processes(&path.join("leaf"), &mut usage.statistics);
    usage
}

/// What was read and written, by device: what Mesos's isolator of block devices tells. It sets no limit, and neither does this.
fn blkio_v1(path: &Path) -> Option<blkio::Statistics> {
    let read = |file: &str| std::fs::read_to_string(path.join(file)).unwrap_or_default();
    let (serviced, bytes) = (read("blkio.throttle.io_serviced"), read("blkio.throttle.io_service_bytes"));
    let mut devices: BTreeMap<(u64, u64), throttling::Statistics> = BTreeMap::new();
    for (text, is_bytes) in [(&serviced, false), (&bytes, true)] {
        // `8:0 Read 4096`; the last line is a total of all devices.
        for line in text.lines() {
            let mut words = line.split(' ');
            let (Some(device), Some(op), Some(value)) = (words.next().and_then(device), words.next(), words.next()) else { continue };
            let (Some(op), Ok(value)) = (operation(op), value.parse()) else { continue };
            let value = blkio::Value { op: Some(op as i32), value: Some(value) };
            let of = devices.entry(device).or_default();
            if is_bytes { of.io_service_bytes.push(value) } else { of.io_serviced.push(value) }
        }
    }
    statistics(devices)
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6` in the shape of version 1.
fn io_v2(text: &str) -> Option<blkio::Statistics> {
    use blkio::Operation::{Discard, Read, Total, Write};
    let mut devices: BTreeMap<(u64, u64), throttling::Statistics> = BTreeMap::new();
    for line in text.lines() {
        let Some((device, rest)) = line.split_once(' ').and_then(|(it, rest)| Some((device(it)?, rest))) else { continue };
        let of = |key: &str| rest.split(' ').find_map(|it| it.strip_prefix(key)?.strip_prefix('=')?.parse::<u64>().ok()).unwrap_or(0);
        let values = |read: &str, written: &str, discarded: &str| {
            let [read, written, discarded] = [read, written, discarded].map(of);
            let total = read.saturating_add(written).saturating_add(discarded);
            let all = [(Read, read), (Write, written), (Discard, discarded), (Total, total)];
            all.map(|(op, value)| blkio::Value { op: Some(op as i32), value: Some(value) }).to_vec()
        };
        let it = devices.entry(device).or_default();
        it.io_service_bytes = values("rbytes", "wbytes", "dbytes");
        it.io_serviced = values("rios", "wios", "dios");
    }
    statistics(devices)
}

fn statistics(devices: BTreeMap<(u64, u64), throttling::Statistics>) -> Option<blkio::Statistics> {
    let number = |(major, minor)| device::Number { major_number: major, minor_number: minor };
    let throttling = devices.into_iter().map(|(at, it)| throttling::Statistics { device: Some(number(at)), ..it });
    let throttling: Vec<_> = throttling.collect();
    (!throttling.is_empty()).then(|| blkio::Statistics { throttling, ..blkio::Statistics::default() })
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn operation(word: &str) -> Option<blkio::Operation> {
    use blkio::Operation::{Async, Discard, Read, Sync, Total, Write};
    Some(match word {
        "Read" => Read,
        "Write" => Write,
        "Sync" => Sync,
        "Async" => Async,
        "Discard" => Discard,
        "Total" => Total,
        _ => return None,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(it: &blkio::Statistics) -> Vec<(u64, Vec<u64>, Vec<u64>)> {
        let values = |all: &[blkio::Value]| all.iter().filter_map(|it| it.value).collect();
        let all = it.throttling.iter();
        all.map(|it| (it.device.unwrap_or_default().minor_number, values(&it.io_service_bytes), values(&it.io_serviced))).collect()
    }

    #[test]
    fn block_devices_are_told_alike_in_both_versions() {
        let directory = tempfile::tempdir().unwrap();
        let bytes = "8:0 Read 4096\n8:0 Write 10\n8:0 Total 4106\n8:16 Read 1\nTotal 4107\n";
        std::fs::write(directory.path().join("blkio.throttle.io_service_bytes"), bytes).unwrap();
        std::fs::write(directory.path().join("blkio.throttle.io_serviced"), "8:0 Read 2\nnonsense\n8:0 x y\n").unwrap();
        let found = blkio_v1(directory.path()).unwrap();
        assert_eq!(shown(&found), [(0, vec![4096, 10, 4106], vec![2]), (16, vec![1], vec![])]);
        let found = io_v2("8:0 rbytes=4096 wbytes=10 rios=2 wios=1 dbytes=0 dios=0\nrubbish\n").unwrap();
        assert_eq!(shown(&found), [(0, vec![4096, 10, 0, 4106], vec![2, 1, 0, 3])]);
        assert_eq!(io_v2(""), None);
    }
}
