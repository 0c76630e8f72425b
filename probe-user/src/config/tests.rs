use clap::Parser as _;

use super::*;

fn resolve(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let flags = Flags::try_parse_from(std::iter::once("orchestrator-probe").chain(arguments.iter().copied())).unwrap();
    let environment = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Config::resolve(&flags, environment).map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
}

#[test]
fn without_anything_the_probe_talks_to_this_machine_alone() {
    let config = resolve(&[], &[]).unwrap();
    assert_eq!(config.control_plane.uri().to_string(), "http://127.0.0.1:4041/");
    assert_eq!(config.admin_address, Some("127.0.0.1:4042".parse().unwrap()));
    assert!(!config.container_env);
    assert!(config.conntrack);
    assert!(!config.unix_sockets);
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        "metrics-interval = \"3s\"\nhost-name = \"from-file\"\ncontainer-env = true\nprobe-id = \"file\"\nunix-sockets = true\n",
    )
    .unwrap();
    let path = file.path().to_str().unwrap();
    let environment = [("ORCHESTRATOR_PROBE_HOST_NAME", "from-environment"), ("ORCHESTRATOR_PROBE_PROBE_ID", "environment")];
    let config = resolve(&["--config", path, "--probe-id", "flag", "--no-docker", "--no-conntrack"], &environment).unwrap();
    assert_eq!(config.metrics_interval, Duration::from_secs(3));
    assert_eq!(config.host_name.as_deref(), Some("from-environment"));
    assert_eq!(config.probe_id.as_deref(), Some("flag"));
    assert_eq!(config.docker_socket, None);
    assert!(config.container_env);
    assert!(!config.conntrack);
    assert!(config.unix_sockets);
    assert!(resolve(&["--unix-sockets"], &[]).unwrap().unix_sockets);
}

#[test]
fn flags_of_mesos_are_given_as_mesos_spells_them_and_ours_win() {
    let flags = ["--mesos-flags", "--gc_delay=1days --recover=cleanup", "--gc-delay", "3days"];
    let agent = resolve(&flags, &[("MESOS_ATTRIBUTES", "rack:a"), ("MESOS_RECOVER", "reconnect")]).unwrap().agent;
    assert_eq!((agent.gc_delay, agent.recover), (Duration::from_secs(3 * 86_400), ::agent::config::Recover::Cleanup));
    assert_eq!(agent.attributes, "rack:a");
    let rules = "--firewall_rules={\"disabled_endpoints\":{\"paths\":[\"/state\"]}} --hadoop_home=/opt/hadoop --docker_stop_timeout=30secs";
    let agent = resolve(&["--mesos-flags", rules], &[]).unwrap().agent;
    assert!(agent.disabled_endpoints.contains("/state"));
    assert_eq!((agent.hadoop_home.as_deref(), agent.docker_stop_timeout), (Some("/opt/hadoop".as_ref()), Duration::from_secs(30)));
    let mistakes = resolve(&["--mesos-flags", "--modules=x"], &[]).unwrap_err();
    assert!(mistakes[0].starts_with("--mesos-flags is \"--modules=x\": Mesos's agent has no such flag"), "{mistakes:?}");
}

#[test]
fn what_libprocess_is_told_of_tls_is_true_of_the_agent_api() {
    let certificate = |environment: &[(&str, &str)]| resolve(&[], environment).map(|it| it.agent.api_certificate);
    let files = [("LIBPROCESS_SSL_CERT_FILE", "/c.pem"), ("SSL_KEY_FILE", "/k.pem")];
    assert_eq!(certificate(&files).unwrap(), None, "it is not enabled");
    let enabled = [files[0], files[1], ("LIBPROCESS_SSL_ENABLED", "1")];
    assert_eq!(certificate(&enabled).unwrap(), Some(("/c.pem".into(), "/k.pem".into())));
    let mistakes = resolve(&["--roles=run"], &enabled[1..]).unwrap_err();
    assert!(mistakes[0].contains("LIBPROCESS_SSL_ENABLED needs LIBPROCESS_SSL_CERT_FILE"), "{mistakes:?}");
    assert_eq!(certificate(&enabled[1..]).unwrap(), None, "it is said to an agent, and this is none");
    assert_eq!(resolve(&["--agent-tls-key", "/k"], &[]).unwrap_err().len(), 1);
}

#[test]
fn executors_bind_the_address_that_the_agent_was_given() {
    let ip = |arguments: &[&str], environment: &[(&str, &str)]| resolve(arguments, environment).unwrap().agent.libprocess_ip;
    assert_eq!(ip(&[], &[]), None);
    assert_eq!(ip(&[], &[("LIBPROCESS_IP", "10.0.0.9")]).as_deref(), Some("10.0.0.9"));
    assert_eq!(ip(&["--agent-address=10.0.0.1:5051"], &[("LIBPROCESS_IP", "10.0.0.9")]).as_deref(), Some("10.0.0.1"));
    assert_eq!(ip(&["--agent-address=0.0.0.0:5051"], &[]), None);
}

#[test]
fn every_mistake_is_told_at_once_and_where_it_was_made() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "metrics-intervall = 3\nproc-root = \"proc\"\n").unwrap();
    let path = file.path().to_str().unwrap();
    let mistakes =
        resolve(&["--config", path, "--capture", "magic", "--control-plane", "example.com"], &[("ORCHESTRATOR_PROBE_LOG_FORMAT", "xml")])
            .unwrap_err();
    let told = mistakes.join("\n").replace(path, "FILE");
    expect_test::expect![[r#"
        metrics-intervall in FILE is "3": no such key; there are roles, control-plane, tls-ca, tls-certificate, tls-key, tls-server-name, host-name, probe-id, state-dir, admin-address, metrics-interval, cpu-budget, memory-budget, proc-root, cgroup-root, docker-socket, cri-socket, mask, capture, pin-dir, conntrack, unix-sockets, dns, cloud-metadata, cloud-metadata-address, firmware-root, container-env, command-line-arguments, kernel-log, controls, host-shell, kubernetes, kubernetes-config, kubernetes-context, kubernetes-api, kubernetes-namespaces, kubernetes-lease, log-format, log-filter, agent-address, advertise-ip, advertise-port, resources, attributes, default-role, domain, work-dir, runtime-dir, docker-config, isolation, allowed-devices, cgroups-root, cgroups-enable-cfs, cgroups-limit-swap, enforce-container-disk-quota, switch-user, executor-environment-variables, executor-registration-timeout, executor-reregistration-timeout, executor-shutdown-grace-period, recover, reconfiguration-policy, gc-delay, gc-disk-headroom, fetcher-cache-size, task-log-rotate-size, recovery-timeout, registration-backoff-factor, docker-remove-delay, docker-kill-orphans, sandbox-directory, disk-watch-interval, container-disk-watch-interval, max-completed-executors-per-framework, fetcher-cache-dir, fetcher-stall-timeout, credential, mesos-flags, http-credentials, authenticate-http-readonly, authenticate-http-readwrite, authenticate-http-executors, jwt-secret-key, http-heartbeat-interval, docker-stop-timeout, default-container-dns, effective-capabilities, bounding-capabilities, host-path-volume-force-creation, hadoop-home, frameworks-home, firewall-rules, external-log-file, agent-tls-certificate, agent-tls-key, acls, container-ports-watch-interval, enforce-container-ports
        --control-plane is "example.com": not an address such as http://control.example.com:4041 or https://control.example.com:4041
        proc-root in FILE is "proc": not an absolute path
        --capture is "magic": there are auto, ebpf, netlink and proc
        ORCHESTRATOR_PROBE_LOG_FORMAT is "xml": there are text and json"#]]
    .assert_eq(&told);
}

#[test]
fn sockets_of_runtimes_are_the_usual_ones_or_a_list() {
    let sockets = |text: &str| resolve(&["--cri-socket", text], &[]).map(|config| config.cri_sockets);
    assert_eq!(resolve(&[], &[]).unwrap().cri_sockets, CriSockets::Auto);
    assert_eq!(sockets("off").unwrap(), CriSockets::Off);
    assert_eq!(sockets("unix:///run/a.sock, /b").unwrap(), CriSockets::Paths(vec!["/run/a.sock".into(), "/b".into()]));
    assert_eq!(sockets("/b").unwrap(), CriSockets::Paths(vec!["/b".into()]));
    for mistake in ["b", "/b,", "/b,auto"] {
        assert_eq!(sockets(mistake).unwrap_err().len(), 1, "{mistake}");
    }
}

#[test]
fn a_budget_is_a_part_of_a_cpu_and_a_size_or_none() {
    let budget = |arguments: &[&str]| resolve(arguments, &[]).map(|config| (config.cpu_budget, config.memory_budget));
    assert_eq!(budget(&[]).unwrap(), (Some(5.0), Some(100_000_000)));
    assert_eq!(budget(&["--cpu-budget", "12.5 %", "--memory-budget", "64MiB"]).unwrap(), (Some(12.5), Some(67_108_864)));
    assert_eq!(budget(&["--cpu-budget", "off", "--memory-budget", "off"]).unwrap(), (None, None));
    for (flag, value) in
        [("cpu-budget", "0"), ("cpu-budget", "NaN"), ("cpu-budget", "much"), ("memory-budget", "12"), ("memory-budget", "9e9MB")]
    {
        let mistakes = budget(&[&format!("--{flag}"), value]).unwrap_err();
        assert!(mistakes[0].starts_with(&format!("--{flag} is {value:?}: neither \"off\" nor")), "{mistakes:?}");
    }
}

#[test]
fn the_metadata_service_is_near_or_not_asked() {
    assert_eq!(resolve(&[], &[]).unwrap().cloud_metadata.unwrap().address, cloud::ADDRESS);
    assert!(resolve(&["--no-cloud-metadata"], &[]).unwrap().cloud_metadata.is_none());
    let other = resolve(&["--cloud-metadata-address", "127.0.0.1:81"], &[]).unwrap().cloud_metadata.unwrap();
    assert_eq!(other.address, "127.0.0.1:81".parse().unwrap());
    for far in ["10.0.0.1:80", "[2001:db8::1]:80", "169.254.169.254", "metadata:80"] {
        let mistakes = resolve(&["--cloud-metadata-address", far], &[]).unwrap_err();
        assert_eq!(mistakes, [format!("--cloud-metadata-address is {far:?}: not a link-local or loopback address and a port")]);
    }
}

#[test]
fn a_file_that_is_not_there_is_a_mistake() {
    let mistakes = resolve(&["--config", "/does/not/exist"], &[]).unwrap_err();
    assert_eq!(mistakes, ["config in /does/not/exist: No such file or directory (os error 2)"]);
}
