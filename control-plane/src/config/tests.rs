use std::io::Write as _;

use clap::Parser as _;
use expect_test::{Expect, expect};

use super::*;

fn resolve(flags: &[&str], environment: &[(&str, &str)]) -> Result<Config, Vec<Mistake>> {
    let flags = Flags::try_parse_from(std::iter::once("orchestrator-control").chain(flags.iter().copied())).unwrap();
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
            label_filters: [],
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
            agent_login_file: None,
            services: [
                Topology,
                Master,
                Scheduler,
                ZkSync,
            ],
            zksync_topology_url: None,
            zksync_topology_login_file: None,
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
        widnow in FILE is "20s": no such key; there are http-address, grpc-address, data-dir, window, history, history-size, scope-flags, max-probes, max-websocket-clients, mesos-address, mesos-flags, marathon-address, marathon-flags, dns-address, dns-http-address, dns-domain, dns-upstream, dns-ttl, scheduler-master, zk, zk-session-timeout, zk-access-file, advertise, replica-address, tls-certificate, tls-key, tls-client-ca, tls-listeners, tls-ca, users-file, agent-login-file, services, zksync-topology-url, zksync-topology-login-file, log-format, log-filter
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
    for (flag, value) in [("--history", "10s"), ("--history", "a while"), ("--history-size", "1kB")] {
        assert!(resolve(&[flag, value], &[]).is_err(), "{flag} {value}");
    }
}
