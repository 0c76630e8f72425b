//! Options, and what the daemon is asked for.

use super::*;
use bollard::models::{MountBindOptionsPropagationEnum, MountType, PortBinding};

fn asked(options: &[(&str, &str)]) -> Result<Asked, String> {
    let mut asked = Asked::default();
    for (key, value) in options {
        asked.apply(key, value, Path::new("/no/sandbox"))?;
    }
    Ok(asked)
}

fn ports(options: &[(&str, &str)]) -> Vec<String> {
    let asked = asked(options).unwrap();
    let mut exposed = asked.body.exposed_ports.unwrap();
    let words = |it: &PortBinding| format!("{}:{}", it.host_ip.as_deref().unwrap_or("*"), it.host_port.as_deref().unwrap_or_default());
    let mut all = Vec::new();
    for (inside, bindings) in asked.host.port_bindings.unwrap() {
        assert!(exposed.contains(&inside), "{inside} is not among {exposed:?}");
        exposed.retain(|it| *it != inside);
        all.extend(bindings.unwrap().iter().map(|it| format!("{} -> {inside}", words(it))));
    }
    assert!(exposed.is_empty(), "{exposed:?}");
    all.sort();
    all
}

#[test]
fn options_of_the_command_line_find_their_place() {
    let it = asked(&[
        ("env", "A=1"),
        ("label", "x=y=z"),
        ("ulimit", "nofile=10:20"),
        ("memory-swap", "64m"),
        ("tmpfs", "/run:size=1m"),
        ("init", ""),
        ("annotation", "a=b"),
        ("cgroupns", "host"),
        ("cpu-rt-runtime", "95000"),
        ("cpu-rt-period", "100000"),
        ("device-read-bps", "/dev/sda:1mb"),
        ("device-write-bps", "/dev/sda:2mb"),
        ("device-read-iops", "/dev/sda:300"),
        ("device-write-iops", "/dev/sda:400"),
        ("blkio-weight-device", "/dev/sda:500"),
        ("platform", "linux/arm64"),
        ("pull", "never"),
    ])
    .unwrap();
    assert_eq!(it.body.env.unwrap(), ["A=1"]);
    assert_eq!(it.body.labels.unwrap()["x"], "y=z");
    assert_eq!((it.host.memory_swap, it.host.init), (Some(64 << 20), Some(true)));
    assert_eq!(it.host.tmpfs.unwrap()["/run"], "size=1m");
    let ulimit = it.host.ulimits.unwrap().remove(0);
    assert_eq!((ulimit.soft, ulimit.hard), (Some(10), Some(20)));
    assert_eq!(it.host.annotations.unwrap()["a"], "b");
    assert_eq!(it.host.cgroupns_mode, Some(HostConfigCgroupnsModeEnum::HOST));
    assert_eq!((it.host.cpu_realtime_runtime, it.host.cpu_realtime_period), (Some(95_000), Some(100_000)));
    let rate = |it: Option<Vec<ThrottleDevice>>| it.unwrap()[0].rate.unwrap();
    assert_eq!([rate(it.host.blkio_device_read_bps), rate(it.host.blkio_device_write_bps)], [1 << 20, 2 << 20]);
    assert_eq!([rate(it.host.blkio_device_read_iops), rate(it.host.blkio_device_write_iops)], [300, 400]);
    assert_eq!(it.host.blkio_weight_device.unwrap()[0].weight, Some(500));
    assert_eq!((it.platform.as_deref(), it.pull), (Some("linux/arm64"), Pull::Never));
}

#[test]
fn ports_are_published_as_the_command_line_says() {
    assert_eq!(ports(&[("publish", "8080:80"), ("p", "53:53/udp")]), ["*:53 -> 53/udp", "*:8080 -> 80/tcp"]);
    assert_eq!(ports(&[("publish", "80")]), ["*: -> 80/tcp"]);
    assert_eq!(ports(&[("publish", "127.0.0.1:8080:80"), ("publish", "[::1]::80")]), ["127.0.0.1:8080 -> 80/tcp", "::1: -> 80/tcp"]);
    assert_eq!(ports(&[("publish", "8000-8001:9000-9001")]), ["*:8000 -> 9000/tcp", "*:8001 -> 9001/tcp"]);
    assert_eq!(ports(&[("publish", "8000-8010:80")]), ["*:8000-8010 -> 80/tcp"]);
    for wrong in ["", "x:80", "80:x", "80/icmp", "127.0.0.1:80", "1-3:1-2", "70000:80", "0:80", "a.b:1:80"] {
        asked(&[("publish", wrong)]).unwrap_err();
    }
}

#[test]
fn mounts_gpus_and_cpus_are_spelled_as_on_the_command_line() {
    let it = asked(&[
        ("mount", "type=bind,source=/a,target=/b,readonly,bind-propagation=rslave"),
        ("mount", r#"src=data,dst=/data,volume-driver=nfs,"volume-opt=o=addr=1.2.3.4,vers=4""#),
        ("mount", "type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770"),
    ])
    .unwrap();
    let [bind, volume, tmpfs] = <[_; 3]>::try_from(it.host.mounts.unwrap()).unwrap();
    assert_eq!(
        (bind.typ, bind.source.as_deref(), bind.target.as_deref(), bind.read_only),
        (Some(MountType::BIND), Some("/a"), Some("/b"), Some(true))
    );
    assert_eq!(bind.bind_options.unwrap().propagation, Some(MountBindOptionsPropagationEnum::RSLAVE));
    let driver = volume.volume_options.unwrap().driver_config.unwrap();
    assert_eq!((driver.name.as_deref(), driver.options.unwrap()["o"].as_str()), (Some("nfs"), "addr=1.2.3.4,vers=4"));
    let tmpfs = tmpfs.tmpfs_options.unwrap();
    assert_eq!((tmpfs.size_bytes, tmpfs.mode), (Some(1 << 20), Some(0o1770)));

    let gpus = |value: &str| asked(&[("gpus", value)]).unwrap().host.device_requests.unwrap().remove(0);
    assert_eq!((gpus("all").count, gpus("2").count, gpus("driver=nvidia").count), (Some(-1), Some(2), Some(1)));
    let it = gpus(r#""device=0,1","capabilities=compute,utility""#);
    assert_eq!((it.count, it.device_ids.unwrap()), (None, vec!["0".to_owned(), "1".to_owned()]));
    assert_eq!(it.capabilities.unwrap(), [["compute", "utility", "gpu"]]);

    let mut it =
        Asked { host: HostConfig { cpu_period: Some(100_000), cpu_quota: Some(5_000), ..HostConfig::default() }, ..Asked::default() };
    it.apply("cpus", "1.5", Path::new("/")).unwrap();
    assert_eq!((it.host.nano_cpus, it.host.cpu_period, it.host.cpu_quota), (Some(1_500_000_000), None, None));
}

#[test]
fn a_container_is_in_its_network_what_the_command_line_says() {
    let it = asked(&[
        ("network-alias", "web"),
        ("ip", "10.0.0.2"),
        ("ip6", "fd00::2"),
        ("link-local-ip", "169.254.0.2"),
        ("mac-address", "02:42:ac:11:00:02"),
    ])
    .unwrap();
    assert_eq!((it.endpoint.aliases.unwrap(), it.endpoint.mac_address.as_deref()), (vec!["web".to_owned()], Some("02:42:ac:11:00:02")));
    let addresses = it.endpoint.ipam_config.unwrap();
    assert_eq!((addresses.ipv4_address.as_deref(), addresses.ipv6_address.as_deref()), (Some("10.0.0.2"), Some("fd00::2")));
    assert_eq!(addresses.link_local_ips.unwrap(), ["169.254.0.2"]);
    let it = asked(&[("network", "name=backend,alias=db,ip=10.0.0.3")]).unwrap();
    assert_eq!((it.host.network_mode.as_deref(), it.endpoint.aliases.unwrap()), (Some("backend"), vec!["db".to_owned()]));
}

#[test]
fn health_is_checked_as_the_command_line_says() {
    let it = asked(&[
        ("health-cmd", "curl -f localhost"),
        ("health-interval", "1m30s"),
        ("health-timeout", "500ms"),
        ("health-start-period", "1.5s"),
        ("health-retries", "3"),
    ])
    .unwrap();
    let health = it.body.healthcheck.unwrap();
    assert_eq!(health.test.unwrap(), ["CMD-SHELL", "curl -f localhost"]);
    assert_eq!((health.interval, health.timeout), (Some(90_000_000_000), Some(500_000_000)));
    assert_eq!((health.start_period, health.retries), (Some(1_500_000_000), Some(3)));
    let off = asked(&[("no-healthcheck", "true")]).unwrap().body.healthcheck.unwrap();
    assert_eq!(off.test.unwrap(), ["NONE"]);
    asked(&[("no-healthcheck", ""), ("health-cmd", "true")]).unwrap_err();
    asked(&[("health-cmd", "true"), ("no-healthcheck", "")]).unwrap_err();
    asked(&[("no-healthcheck", "false"), ("health-cmd", "true")]).unwrap();
}

#[test]
fn files_of_variables_and_labels_are_of_the_sandbox() {
    let sandbox = tempfile::tempdir().unwrap();
    std::fs::write(sandbox.path().join("env"), "# of the task\nA=1\n\n  B=2 3\nINHERITED\n").unwrap();
    std::fs::write(sandbox.path().join("labels"), "x=1\ny\n").unwrap();
    let mut it = Asked::default();
    it.apply("env-file", "env", sandbox.path()).unwrap();
    it.apply("label-file", "labels", sandbox.path()).unwrap();
    assert_eq!(it.body.env.unwrap(), ["A=1", "B=2 3"]);
    let labels = it.body.labels.unwrap();
    assert_eq!((labels["x"].as_str(), labels["y"].as_str()), ("1", ""));
    assert!(Asked::default().apply("env-file", "missing", sandbox.path()).unwrap_err().contains("missing cannot be read"));
}

#[test]
fn what_means_nothing_here_is_let_pass() {
    asked(&[
        ("sig-proxy", "false"),
        ("disable-content-trust", "true"),
        ("isolation", "default"),
        ("detach-keys", "ctrl-p"),
        ("kernel-memory", "64m"),
        ("restart", "no"),
        ("rm", "true"),
    ])
    .unwrap();
}

#[test]
fn what_is_not_understood_or_contradicts_the_agent_is_refused() {
    for (key, value) in [
        ("frobnicate", "1"),
        ("memory", "lots"),
        ("ulimit", "nofile"),
        ("device", ""),
        ("memory", "99999999999999t"),
        ("cpus", "-1"),
        ("cpus", "many"),
        ("gpus", "some"),
        ("mount", "type=bind,source=/a"),
        ("mount", "type=floppy,target=/a"),
        ("health-interval", "soon"),
        ("device-read-bps", "/dev/sda"),
        ("device-read-iops", "/dev/sda:-1"),
        ("cgroupns", "mine"),
        ("isolation", "hyperv"),
        ("pull", "sometimes"),
        ("network", "alias=x"),
    ] {
        asked(&[(key, value)]).unwrap_err();
    }
    for key in ["name", "detach", "d", "attach", "a", "cidfile", "restart"] {
        let problem = asked(&[(key, "x")]).unwrap_err();
        assert!(problem.starts_with(&format!("Failed to create docker run options: the parameter '{key}' is not allowed: ")), "{problem}");
    }
}
