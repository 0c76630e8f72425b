use std::io::Write as _;

use expect_test::{Expect, expect};

use super::*;

fn read(flags: &[&str]) -> Result<Flags, clap::Error> {
    Flags::read(std::iter::once("orchestrator-control").chain(flags.iter().copied()).map(Into::into))
}

fn resolve(flags: &[&str], environment: &[(&str, &str)]) -> Result<Config, Vec<Mistake>> {
    let flags = read(flags).unwrap();
    Config::resolve(&flags, environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())))
}

#[track_caller]
fn check_mistakes(flags: &[&str], environment: &[(&str, &str)], expected: &Expect) {
    let mistakes = resolve(flags, environment).unwrap_err();
    expected.assert_eq(&mistakes.iter().map(|mistake| format!("{mistake}\n")).collect::<String>());
}

#[test]
fn built_in_values_are_those_of_a_single_machine() {
    expect![[r#"
        Config {
            http_address: 127.0.0.1:4040,
            grpc_address: 127.0.0.1:4041,
            data_dir: "/var/lib/orchestrator",
            window: 15s,
            history: Some(
                21600s,
            ),
            history_bytes: 2147483648,
            old_probes_memory: 1073741824,
            label_filters: [],
            metrics_graph: MetricsGraph(
                None,
            ),
            max_probes: 1000,
            max_websocket_clients: 10000,
            mesos_address: Some(
                127.0.0.1:5050,
            ),
            mesos_flags: [],
            marathon_address: Some(
                127.0.0.1:8080,
            ),
            marathon_flags: [],
            dns_address: None,
            dns_http_address: None,
            dns_domain: "mesos",
            dns_upstream: [],
            dns_ttl: 60s,
            scheduler_masters: [],
            zk: None,
            zk_session_timeout: 10s,
            advertise: None,
            replica_address: 127.0.0.1:4044,
            tls: None,
            tls_ca: None,
            users_file: None,
            scope_login: None,
            allowed_origins: [],
            agent_login_file: None,
            services: [
                Topology,
                Master,
                Scheduler,
                ZkSync,
            ],
            zksync_topology_url: None,
            zksync_topology_login_file: None,
            zksync_secrets_dir: None,
            log_format: Text,
            log_filter: "info",
        }
    "#]]
    .assert_debug_eq(&resolve(&[], &[]).unwrap());
}

#[test]
fn a_flag_wins_over_the_environment_which_wins_over_the_file() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "window = \"20s\"\nmax-probes = 5\nhttp-address = \":80\"\nservices = [\"topology\"]").unwrap();
    let path = file.path().to_str().unwrap();
    let config = resolve(
        &["--config", path, "--window", "40s"],
        &[("ORCHESTRATOR_WINDOW", "30s"), ("ORCHESTRATOR_MAX_PROBES", "7"), ("ORCHESTRATOR_UNRELATED", "x")],
    )
    .unwrap();
    assert_eq!(config.window, Duration::from_secs(40));
    assert_eq!(config.max_probes, 7);
    assert_eq!(config.http_address, "0.0.0.0:80".parse().unwrap());
}

#[test]
fn a_mesos_master_is_also_told_by_its_own_variables() {
    let variables = [("MESOS_CLUSTER", "main"), ("MESOS_OFFER_TIMEOUT", "1mins"), ("MESOS_SANDBOX", "/mnt/mesos/sandbox")];
    let config = resolve(&["--mesos-flags", "--cluster=other"], &variables).unwrap();
    assert_eq!(config.mesos_flags, ["--cluster=main", "--offer_timeout=1mins", "--cluster=other"], "the flags come last, and win");
    check_mistakes(
        &["--window", "never"],
        &[("MESOS_QUORUM", "2")],
        &expect![[r#"
            MESOS_QUORUM: there is no replicated log: the ensemble of the control plane's key `zk` has a majority of its own
            --window is "never": not a time, such as 15s or 2m
        "#]],
    );
}

#[test]
fn every_mistake_is_told_at_once_with_its_place() {
    check_mistakes(
        &["--window", "never", "--services", "topology,mars"],
        &[("ORCHESTRATOR_HTTP_ADDRESS", "here"), ("ORCHESTRATOR_MAX_PROBES", "0"), ("ORCHESTRATOR_LOG_FORMAT", "xml")],
        &expect![[r#"
            ORCHESTRATOR_HTTP_ADDRESS is "here": not an address and a port, such as 127.0.0.1:4040 or [::1]:4040
            --window is "never": not a time, such as 15s or 2m
            ORCHESTRATOR_MAX_PROBES is "0": not a number between 1 and 100000
            --services is "topology,mars": there is no service "mars"; there are topology, master, scheduler and zksync
            ORCHESTRATOR_LOG_FORMAT is "xml": neither text nor json
        "#]],
    );
}

#[test]
fn a_key_that_does_not_exist_is_a_mistake() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "widnow = \"20s\"\nwindow = true").unwrap();
    let mistakes = resolve(&["--config", file.path().to_str().unwrap()], &[]).unwrap_err();
    let told = mistakes.iter().map(|mistake| format!("{mistake}\n")).collect::<String>().replace(file.path().to_str().unwrap(), "FILE");
    expect![[r#"
        widnow in FILE is "20s": no such key; there are http-address, grpc-address, data-dir, window, history, history-size, old-probes-memory, scope-flags, max-probes, max-websocket-clients, mesos-address, mesos-flags, marathon-address, marathon-flags, dns-address, dns-http-address, dns-domain, dns-upstream, dns-ttl, scheduler-master, zk, zk-session-timeout, zk-access-file, advertise, replica-address, tls-certificate, tls-key, tls-client-ca, tls-listeners, tls-ca, users-file, allowed-origins, agent-login-file, services, zksync-topology-url, zksync-topology-login-file, zksync-secrets-dir, log-format, log-filter
        window in FILE: neither a text nor a number nor a list of texts
    "#]]
    .assert_eq(&told);
}

#[test]
fn a_file_that_cannot_be_read_is_a_mistake() {
    check_mistakes(
        &["--config", "/does/not/exist.toml"],
        &[],
        &expect![[r#"
            config is "/does/not/exist.toml": No such file or directory (os error 2)
        "#]],
    );
}

#[test]
fn both_listeners_on_one_address_is_a_mistake() {
    check_mistakes(
        &["--grpc-address", "127.0.0.1:4040"],
        &[],
        &expect![[r#"
            grpc-address is "127.0.0.1:4040": the same as http-address
        "#]],
    );
}

#[test]
fn the_history_is_off_or_has_a_length_and_a_size() {
    let config = resolve(&["--history", "off", "--history-size", "500MB"], &[]).unwrap();
    assert_eq!((config.history, config.history_bytes), (None, 500_000_000));
    for (flag, value) in [("--history", "10s"), ("--history", "a while"), ("--history-size", "1kB"), ("--old-probes-memory", "much")] {
        assert!(resolve(&[flag, value], &[]).is_err(), "{flag} {value}");
    }
}

#[test]
fn origins_are_written_as_browsers_write_them() {
    let origins = |text: &str| resolve(&["--allowed-origins", text], &[]).map(|config| config.allowed_origins);
    assert_eq!(
        origins("https://Map.example, http://map.example:8080,https://map.example:443/,http://[::1]:80").unwrap(),
        ["https://map.example", "http://map.example:8080", "https://map.example", "http://[::1]"]
    );
    for text in ["map.example", "*", "https://*", "https://", "ftp://map.example", "https://map.example/path", "null"] {
        assert!(origins(text).is_err(), "{text}");
    }
}

#[test]
fn scopes_command_line_is_read_as_scope_read_it() {
    let config = resolve(
        &[
            "--mode=app",
            "-weave=false",
            "--app.http.address",
            "127.0.0.1:4050",
            "-app.window=30s",
            "--app.log.level",
            "warning",
            "--app.metrics-graph=/graph?q=:query",
            "--app.container-label-filter=My team:team=web",
            "--probe.docker=true",
            "--probe.kubernetes.token",
            "secret",
            "control.example:4040",
            "--data-dir",
            "/data",
        ],
        &[],
    )
    .unwrap();
    assert_eq!(config.http_address, "127.0.0.1:4050".parse().unwrap());
    assert_eq!((config.window, config.log_filter.as_str()), (Duration::from_secs(30), "warn"));
    assert_eq!(config.metrics_graph, MetricsGraph::at("/graph?q=:query"));
    assert_eq!((config.label_filters.len(), config.data_dir), (1, PathBuf::from("/data")));
    assert_eq!(config.scope_login, None);
    assert_eq!(resolve(&["-debug", "-app.log.level=error"], &[]).unwrap().log_filter, "debug");
    // Our own words are stronger, and Scope's app listened everywhere.
    assert_eq!(resolve(&["--app.window=30s", "--window=40s"], &[]).unwrap().window, Duration::from_secs(40));
    let at = |environment: &[(&str, &str)]| resolve(&["--mode=app"], environment).unwrap().http_address.to_string();
    assert_eq!((at(&[]), at(&[("ORCHESTRATOR_HTTP_ADDRESS", "127.0.0.1:80")])), ("0.0.0.0:4040".to_owned(), "127.0.0.1:80".to_owned()));
}

#[test]
fn what_of_scopes_means_nothing_here_is_said_in_a_line_each_and_without_its_value() {
    let flags = read(&["--mode", "app", "--service-token=hush", "--probe.docker", "host:4040", "-app.max-topology-nodes", "10"]).unwrap();
    expect![[r#"
        --service-token of Weave Scope means nothing here and is ignored
        --probe.docker is ignored: it is for Weave Scope's probe, and orchestrator-probe has flags of its own
        --app.max-topology-nodes of Weave Scope means nothing here and is ignored
    "#]]
    .assert_eq(&flags.scope.ignored.iter().map(|line| format!("{line}\n")).collect::<String>());
    assert!(!flags.scope.dry_run && read(&["--dry-run", "-mode=app"]).unwrap().scope.dry_run);
    // Without any of Scope's flags, a word too many is a mistake as ever.
    assert!(read(&["host:4040"]).is_err());
}

#[test]
fn scopes_probe_is_somebody_elses_place() {
    for arguments in [&["--mode=probe"][..], &["-mode", "probe"], &["--probe-only"], &["--no-app=true"]] {
        let error = read(arguments).unwrap_err().to_string();
        assert!(error.contains("orchestrator-probe"), "{arguments:?}: {error}");
    }
    for arguments in [&["--mode=sideways"][..], &["--app.basicAuth=perhaps"], &["--app.window"], &["--app.log.level=loud"]] {
        assert!(read(arguments).is_err(), "{arguments:?}");
    }
    assert!(read(&["--no-app=false", "--no-probe", "--app-only", "--debug=false"]).is_ok());
    assert_eq!(read(&["--mode=version"]).unwrap_err().kind(), clap::error::ErrorKind::DisplayVersion);
    check_mistakes(
        &["--app.window=never", "-app.http.address=here"],
        &[],
        &expect![[r#"
            --app.http.address is "here": not an address and a port, such as 127.0.0.1:4040 or [::1]:4040
            --app.window is "never": not a time, such as 15s or 2m
        "#]],
    );
}

#[test]
fn who_came_in_to_scope_comes_in() {
    let login = |flags: &[&str], environment: &[(&str, &str)]| {
        let login = resolve(flags, environment).unwrap().scope_login;
        login.map(|Login { user, password }| format!("{user} {password}"))
    };
    assert_eq!(login(&["--app.basicAuth"], &[]).as_deref(), Some("admin admin"));
    assert_eq!(
        login(&["-app.basicAuth=true", "-app.basicAuth.username=ann", "-app.basicAuth.password", "pw"], &[]).as_deref(),
        Some("ann pw")
    );
    let environment = [("ENABLE_BASIC_AUTH", "True"), ("BASIC_AUTH_USERNAME", "bob"), ("BASIC_AUTH_PASSWORD", "x:y")];
    assert_eq!(login(&[], &environment).as_deref(), Some("bob x:y"));
    assert_eq!(login(&["--app.basicAuth.username=ann"], &environment).as_deref(), Some("bob x:y"));
    assert_eq!(login(&["--app.basicAuth"], &[("ENABLE_BASIC_AUTH", "false")]), None);
    assert_eq!(login(&["--app.basicAuth.username=ann"], &[("BASIC_AUTH_PASSWORD", "x")]), None);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "from a file").unwrap();
    let path = file.path().to_str().unwrap();
    assert_eq!(login(&["--app.basicAuth", "--app.basicAuth.password.filename", path], &[]).as_deref(), Some("admin from a file"));
    let shown = format!("{:?}", resolve(&[], &environment).unwrap().scope_login);
    assert_eq!(shown, "Some(bob:***)");
    check_mistakes(
        &["--app.basicAuth", "--window=never"],
        &[("BASIC_AUTH_PASSWORD_FILENAME", "/does/not/exist")],
        &expect![[r#"
            Weave Scope's basic authentication is "/does/not/exist": No such file or directory (os error 2)
            --window is "never": not a time, such as 15s or 2m
        "#]],
    );
}

/// The name that the flag had before.
#[test]
fn a_plan_of_a_migration_is_kept_under_either_name_of_the_flag() {
    for file in [["--save", "plan.json"], ["-o", "plan.json"], ["--output", "plan.json"]] {
        let flags = read(&[&["zk", "plan", "--from", "a:1", "--to", "b:1"], &file[..]].concat()).unwrap();
        assert!(format!("{:?}", flags.command).contains("plan.json"), "{file:?}");
    }
}
