//! What containers use, read from their cgroup's files: three small reads each, and no daemon has to be asked.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use crate::procfs::Procfs;

/// What a cgroup uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time so far.
    pub cpu_nanos: u64,
    /// Memory without page cache.
    pub memory_bytes: u64,
    /// Limit; 0 when there is none.
    pub memory_limit_bytes: u64,
}

/// Where the cgroup hierarchies are mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounts {
    /// Mount point of the v2 hierarchy.
    pub unified: Option<PathBuf>,
    /// Mount points of v1 hierarchies by controller.
    pub controllers: HashMap<String, PathBuf>,
}

impl Mounts {
    /// Parses a mount table such as `/proc/self/mounts`. Paths are taken below `root`, where the host's file system is.
    pub fn parse(table: &str, root: &Path) -> Self {
        let mut mounts = Mounts::default();
        for line in table.lines() {
            let mut fields = line.split(' ');
            let (Some(_), Some(point), Some(kind), Some(options)) = (fields.next(), fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            let point = root.join(point.trim_start_matches('/'));
            match kind {
                "cgroup2" => mounts.unified = mounts.unified.or(Some(point)),
                "cgroup" => {
                    for controller in options.split(',').filter(|it| matches!(*it, "cpuacct" | "memory" | "cpu")) {
                        mounts.controllers.entry(controller.to_owned()).or_insert_with(|| point.clone());
                    }
                }
                _ => {}
            }
        }
        mounts
    }
}

/// Reads usage, and remembers where each container's files are.
#[derive(Debug)]
pub struct CgroupReader {
    mounts: Mounts,
    known: HashMap<String, (u32, Directories)>,
}

#[derive(Clone, Debug)]
struct Directories {
    cpu: Files,
    memory: Files,
}

#[derive(Clone, Debug)]
enum Files {
    V1(PathBuf),
    V2(PathBuf),
}

impl CgroupReader {
    /// A reader of the given hierarchies.
    pub fn new(mounts: Mounts) -> Self {
        CgroupReader { mounts, known: HashMap::new() }
    }

    /// What the container whose first process is `pid` uses; `None` when it is gone or its cgroup has no such files.
    pub fn usage(&mut self, procfs: &Procfs, id: &str, pid: u32) -> Option<Usage> {
        if self.known.get(id).is_none_or(|(known, _)| *known != pid) {
            let directories = self.directories(procfs, id, pid)?;
            self.known.insert(id.to_owned(), (pid, directories));
        }
        let (_, directories) = self.known.get(id)?;
        let (memory_bytes, memory_limit_bytes) = memory(&directories.memory)?;
        Some(Usage { cpu_nanos: cpu_nanos(&directories.cpu)?, memory_bytes, memory_limit_bytes })
    }

    /// Forgets containers that are not named.
    pub fn keep_only<'a>(&mut self, ids: impl Iterator<Item = &'a str>) {
        let ids: BTreeSet<&str> = ids.collect();
        self.known.retain(|id, _| ids.contains(id.as_str()));
    }

    fn directories(&self, procfs: &Procfs, id: &str, pid: u32) -> Option<Directories> {
        let paths = procfs.cgroups(pid).ok()?;
        // The pid may be of another process by now: only paths that name the container are believed.
        let find = |controller: &str, v2_file: &str| {
            let v1 = paths.iter().find(|(controllers, path)| controllers.split(',').any(|it| it == controller) && path.contains(id));
            if let Some((_, path)) = v1 {
                let mount = self.mounts.controllers.get(controller)?;
                return Some(Files::V1(mount.join(path.trim_start_matches('/'))));
            }
            let (_, path) = paths.iter().find(|(controllers, path)| controllers.is_empty() && path.contains(id))?;
            let directory = self.mounts.unified.as_ref()?.join(path.trim_start_matches('/'));
            directory.join(v2_file).exists().then_some(Files::V2(directory))
        };
        Some(Directories { cpu: find("cpuacct", "cpu.stat")?, memory: find("memory", "memory.current")? })
    }
}

fn cpu_nanos(files: &Files) -> Option<u64> {
    match files {
        Files::V1(directory) => number(&directory.join("cpuacct.usage")),
        Files::V2(directory) => field(&read(&directory.join("cpu.stat"))?, "usage_usec").map(|it| it.saturating_mul(1_000)),
    }
}

fn memory(files: &Files) -> Option<(u64, u64)> {
    let (usage, cache, limit) = match files {
        Files::V1(directory) => {
            let cache = field(&read(&directory.join("memory.stat"))?, "total_cache")?;
            (number(&directory.join("memory.usage_in_bytes"))?, cache, number(&directory.join("memory.limit_in_bytes")))
        }
        Files::V2(directory) => {
            let cache = field(&read(&directory.join("memory.stat"))?, "file")?;
            (number(&directory.join("memory.current"))?, cache, number(&directory.join("memory.max")))
        }
    };
    // Without a limit v1 says a number near 2^63, v2 the word "max".
    let limit = limit.filter(|&limit| limit < 1 << 62).unwrap_or(0);
    Some((usage.saturating_sub(cache), limit))
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn number(path: &Path) -> Option<u64> {
    read(path)?.trim().parse().ok()
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::procfs::Arguments;

    const ID: &str = "2299a2ca59dfd821f367e689d5869c4e568272c2305701761888e1d79d7a6f51";

    fn write(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn usage_is_read_from_v1_files() {
        let root = tempfile::tempdir().unwrap();
        let mounts = Mounts::parse(
            "cgroup /cg/cpuacct cgroup rw,cpu,cpuacct 0 0\ncgroup /cg/memory cgroup rw,memory 0 0\ncgroup2 /cg/unified cgroup2 rw 0 0\n",
            root.path(),
        );
        write(&root.path().join("proc/7/cgroup"), &format!("4:memory:/docker/{ID}\n2:cpu,cpuacct:/docker/{ID}\n0::/docker/{ID}\n"));
        write(&root.path().join("cg/cpuacct/docker").join(ID).join("cpuacct.usage"), "123456\n");
        let memory = root.path().join("cg/memory/docker").join(ID);
        write(&memory.join("memory.usage_in_bytes"), "1000\n");
        write(&memory.join("memory.limit_in_bytes"), "9223372036854771712\n");
        write(&memory.join("memory.stat"), "cache 1\ntotal_cache 400\n");
        let procfs = Procfs::new(root.path().join("proc"), Arguments::Show);
        let mut reader = CgroupReader::new(mounts);
        assert_eq!(reader.usage(&procfs, ID, 7), Some(Usage { cpu_nanos: 123_456, memory_bytes: 600, memory_limit_bytes: 0 }));
        assert_eq!(reader.usage(&procfs, ID, 8), None, "a process that is gone");
    }

    #[test]
    fn usage_is_read_from_v2_files() {
        let root = tempfile::tempdir().unwrap();
        let mounts = Mounts::parse("cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n", root.path());
        write(&root.path().join("proc/7/cgroup"), &format!("0::/system.slice/docker-{ID}.scope\n"));
        let directory = root.path().join("sys/fs/cgroup/system.slice").join(format!("docker-{ID}.scope"));
        write(&directory.join("cpu.stat"), "usage_usec 5\nuser_usec 3\n");
        write(&directory.join("memory.current"), "900\n");
        write(&directory.join("memory.max"), "2048\n");
        write(&directory.join("memory.stat"), "anon 500\nfile 400\n");
        let procfs = Procfs::new(root.path().join("proc"), Arguments::Show);
        let usage = CgroupReader::new(mounts).usage(&procfs, ID, 7);
        assert_eq!(usage, Some(Usage { cpu_nanos: 5_000, memory_bytes: 500, memory_limit_bytes: 2_048 }));
    }

    #[test]
    fn a_pid_that_another_process_has_now_is_not_believed() {
        let root = tempfile::tempdir().unwrap();
        write(&root.path().join("proc/7/cgroup"), "0::/user.slice\n");
        let procfs = Procfs::new(root.path().join("proc"), Arguments::Show);
        let mounts = Mounts::parse("cgroup2 /cg cgroup2 rw 0 0\n", root.path());
        assert_eq!(CgroupReader::new(mounts).usage(&procfs, ID, 7), None);
    }
}
