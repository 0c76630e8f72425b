use super::*;

fn settings() -> Settings {
    Settings { cpu: true, memory: true, enable_cfs: true, limit_swap: false, devices: None }
}

/// A tree of files as version 2 has them; the kernel's is tested in a machine of its own.
fn v2(controllers: &str) -> (tempfile::TempDir, Cgroups) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("cgroup.controllers"), controllers).unwrap();
    let cgroups = Cgroups::detect(directory.path(), "mesos", |_| true, settings()).unwrap();
    (directory, cgroups)
}

#[test]
fn version_2_has_the_processes_in_a_leaf_and_the_limits_above() {
    let (directory, cgroups) = v2("cpu memory");
    assert_eq!(cgroups.version(), 2);
    let cgroup = cgroups.of(&ContainerKey::root("abc"));
    cgroup.create().unwrap();
    let path = directory.path().join("mesos/abc");
    assert_eq!(cgroup.entrances(), [path.join("leaf/cgroup.procs")]);
    for file in ["cpu.weight", "cpu.max", "memory.low"] {
        std::fs::write(path.join(file), "").unwrap();
    }
    std::fs::write(path.join("memory.max"), "max").unwrap();
    let limits = Limits { cpus: 0.5, cpus_limit: None, mem: 64.0, mem_limit: None };
    cgroup.limit(&limits, true).unwrap();
    let read = |file: &str| std::fs::read_to_string(path.join(file)).unwrap();
    assert_eq!(
        [read("cpu.weight"), read("cpu.max"), read("memory.low"), read("memory.max")],
        ["50", "50000 100000", "67108864", "67108864"]
    );

    // Less is not written over a hard limit, more is.
    cgroup.limit(&Limits { mem: 40.0, ..limits.clone() }, false).unwrap();
    assert_eq!([read("memory.low"), read("memory.max")], ["41943040", "67108864"]);
    cgroup.limit(&Limits { mem: 128.0, cpus_limit: Some(f64::INFINITY), ..limits }, false).unwrap();
    assert_eq!([read("memory.max"), read("cpu.max")], ["134217728", "max 100000"]);
    let nested = cgroups.of(&ContainerKey::root("abc").nested("def"));
    assert_eq!(nested.entrances(), [path.join("mesos/def/leaf/cgroup.procs")]);
}

#[test]
fn isolators_without_a_controller_are_named() {
    let (directory, cgroups) = v2("cpu memory");
    std::fs::write(directory.path().join("mesos/cgroup.subtree_control"), "cpu pids\n").unwrap();
    assert_eq!(cgroups.missing(|_| true), ["cgroups/mem", "cgroups/blkio", "cgroups/cpuset"]);
    assert!(cgroups.missing(|it| matches!(it, "cgroups/cpu" | "cgroups/devices")).is_empty());
    let directory = tempfile::tempdir().unwrap();
    for controller in ["freezer", "cpu", "memory"] {
        std::fs::create_dir(directory.path().join(controller)).unwrap();
        std::fs::write(directory.path().join(controller).join("cgroup.procs"), "").unwrap();
    }
    let cgroups = Cgroups::detect(directory.path(), "mesos", |_| true, settings()).unwrap();
    assert_eq!(cgroups.missing(|it| matches!(it, "cgroups/cpu" | "cgroups/mem" | "cgroups/pids")), ["cgroups/cpu", "cgroups/pids"]);
}

#[test]
fn version_2_sets_the_limits_of_isolators_that_are_named() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("cgroup.controllers"), "cpu memory").unwrap();
    for (cpu, memory) in [(true, false), (false, true)] {
        let settings = Settings { cpu, memory, ..settings() };
        let cgroups = Cgroups::detect(directory.path(), "mesos", |_| true, settings).unwrap();
        let cgroup = cgroups.of(&ContainerKey::root(if cpu { "cpu" } else { "memory" }));
        cgroup.create().unwrap();
        let path = cgroup.paths[""].clone();
        for file in ["cpu.weight", "cpu.max", "memory.low", "memory.max"] {
            std::fs::write(path.join(file), "").unwrap();
        }
        cgroup.limit(&Limits { cpus: 0.5, cpus_limit: None, mem: 64.0, mem_limit: None }, true).unwrap();
        let is_set = |file: &str| !std::fs::read_to_string(path.join(file)).unwrap().is_empty();
        assert_eq!([is_set("cpu.weight"), is_set("cpu.max"), is_set("memory.low"), is_set("memory.max")], [cpu, cpu, memory, memory]);
    }
}

#[test]
fn a_container_is_short_of_memory_by_its_own_limit_and_not_by_that_of_one_below() {
    let (directory, cgroups) = v2("memory");
    let cgroup = cgroups.of(&ContainerKey::root("abc"));
    cgroup.create().unwrap();
    let write = |file: &str, text: &str| std::fs::write(directory.path().join("mesos/abc").join(file), text).unwrap();
    write("memory.events", "oom 1\noom_kill 1\noom_group_kill 0\n");
    write("memory.events.local", "oom 0\noom_kill 0\noom_group_kill 0\n");
    assert_eq!((cgroup.oom_kills(true), cgroup.oom_kills(false)), (0, 1));
    write("memory.events", "oom 2\noom_kill 3\n");
    write("memory.events.local", "oom 1\noom_kill 0\n");
    assert_eq!(cgroup.oom_kills(true), 3);
    std::fs::remove_file(directory.path().join("mesos/abc/memory.events.local")).unwrap();
    assert_eq!(cgroup.oom_kills(true), 3, "an old kernel");
}

/// A tree of files as version 1 has them.
#[test]
fn version_1_limits_a_nested_container_apart_where_it_asks_for_that() {
    let directory = tempfile::tempdir().unwrap();
    for controller in ["freezer", "cpu", "memory", "pids"] {
        std::fs::create_dir(directory.path().join(controller)).unwrap();
        std::fs::write(directory.path().join(controller).join("cgroup.procs"), "").unwrap();
    }
    let cgroups = Cgroups::detect(directory.path(), "mesos", |_| true, settings()).unwrap();
    let outer = ContainerKey::root("abc");
    let at = |controller: &str, path: &str| directory.path().join(controller).join("mesos").join(path);
    let limits = |mem: f64| Limits { cpus: 0.5, cpus_limit: None, mem, mem_limit: None };
    cgroups.of(&outer).create().unwrap();
    cgroups.of(&outer).limit(&limits(64.0), true).unwrap();
    let sharing = cgroups.of(&outer.nested("sharing"));
    sharing.create().unwrap();
    sharing.limit(&limits(1024.0), true).unwrap();
    assert!(at("freezer", "abc/mesos/sharing").is_dir() && !at("memory", "abc/mesos/sharing").exists());
    let read = |path: &str| std::fs::read_to_string(at("memory", path).join("memory.limit_in_bytes")).unwrap();
    assert_eq!(read("abc"), (64 << 20).to_string(), "what all share is not one's own");
    let apart = cgroups.of_limited(&outer.nested("apart"));
    apart.create().unwrap();
    apart.limit(&limits(32.0), true).unwrap();
    assert_eq!((read("abc"), read("abc/mesos/apart")), ((64 << 20).to_string(), (32 << 20).to_string()));
    let entrances = cgroups.of(&outer.nested("apart")).entrances();
    let wanted = [at("cpu", "abc/mesos/apart"), at("freezer", "abc/mesos/apart"), at("memory", "abc/mesos/apart"), at("pids", "abc")];
    assert_eq!(entrances, wanted.map(|it| it.join("cgroup.procs")));
    assert_eq!(cgroups.of(&outer.nested("apart")).own, BTreeSet::from(["cpu", "freezer", "memory"]));
}

#[test]
fn a_host_without_writable_cgroups_has_none() {
    assert!(Cgroups::detect(Path::new("/proc"), "mesos", |_| true, settings()).is_none());
}

/// Version 1 on this host, where it has that.
#[test]
fn version_1_limits_and_kills_real_processes() {
    let hierarchy = Path::new("/sys/fs/cgroup");
    let root = format!("mesos-test-{}", std::process::id());
    if !hierarchy.join("freezer/cgroup.procs").exists() || !nix::unistd::Uid::effective().is_root() {
        assert!(std::env::var_os("CI").is_none() || hierarchy.join("cgroup.controllers").exists(), "needs root and cgroups");
        return;
    }
    let cgroups = Cgroups::detect(hierarchy, &root, |_| true, Settings { devices: Some(vec![]), ..settings() }).unwrap();
    let cgroup = cgroups.of(&ContainerKey::root("c1"));
    cgroup.create().unwrap();
    cgroup.limit(&Limits { cpus: 0.25, cpus_limit: Some(0.5), mem: 48.0, mem_limit: None }, true).unwrap();
    let read =
        |controller: &str, file: &str| std::fs::read_to_string(cgroup.path(controller).unwrap().join(file)).unwrap().trim().to_owned();
    assert_eq!([read("cpu", "cpu.shares"), read("memory", "memory.limit_in_bytes")], ["256", "50331648"]);
    let mut child = std::process::Command::new("/bin/sh")
        // It begins when it is in the cgroup: what it had started before would be nobody's.
        .args(["-c", "read go; sleep 1000 & sleep 1000 & wait"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    for file in cgroup.entrances() {
        std::fs::write(file, child.id().to_string()).unwrap();
    }
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"go\n").unwrap();
    assert_eq!(cgroup.usage().statistics.mem_limit_bytes, Some(50_331_648));
    assert!(!cgroup.pids().is_empty());
    assert!(cgroup.kill_all(Duration::from_secs(10)));
    child.wait().unwrap();
    cgroup.remove().unwrap();
    for path in match &cgroups.version {
        Version::V1(mounted) => mounted.values().cloned().collect::<Vec<_>>(),
        Version::V2(_) => vec![],
    } {
        drop(std::fs::remove_dir(path.join(&root).join("keepers")));
        drop(std::fs::remove_dir(path.join(&root)));
    }
}

#[test]
fn who_may_have_more_memory_than_is_its_own_goes_first_when_the_host_has_none() {
    let total = 1000 << 20;
    let of = |mem: f64, mem_limit: Option<f64>| Limits { mem, mem_limit, ..Limits::default() }.oom_score_adj(total);
    assert_eq!((of(100.0, Some(200.0)), of(250.0, Some(f64::INFINITY))), (Some(900), Some(750)));
    assert_eq!((of(100.0, None), of(100.0, Some(100.0))), (None, None));
    assert_eq!((of(1.0, Some(20.0)), of(1.0, Some(40.0))), (None, Some(968)), "each has 32 MB at least");
    assert_eq!(of(5000.0, Some(6000.0)), Some(0), "an agent may say that it has more than the host has");
    assert_eq!(Limits { mem: 1.0, mem_limit: Some(40.0), ..Limits::default() }.oom_score_adj(0), None);
}
