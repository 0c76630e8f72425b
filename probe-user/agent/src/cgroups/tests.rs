use super::*;

fn settings() -> Settings {
    Settings { enable_cfs: true, limit_swap: false, devices: None }
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
        .args(["-c", "sleep 1000 & sleep 1000 & wait"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    for file in cgroup.entrances() {
        std::fs::write(file, child.id().to_string()).unwrap();
    }
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
