//! What the labels of apps make of HAProxy's configuration.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use expect_test::{Expect, expect};
use lb::{Backend, Options, read_apps, render};
use proptest::prelude::*;
use serde_json::{Value, json};

fn app(id: &str, more: Value) -> Value {
    let mut app = json!({
        "id": id,
        "networks": [{"mode": "host"}],
        "portDefinitions": [{"port": 10000}],
        "labels": {"HAPROXY_GROUP": "external"},
        "healthChecks": [],
        "tasks": [{"id": "t1", "host": "10.0.0.1", "ports": [31000], "state": "TASK_RUNNING"}],
    });
    for (key, value) in more.as_object().unwrap() {
        app[key] = value.clone();
    }
    app
}

fn backends(apps: Vec<Value>) -> Vec<Backend> {
    let (backends, refused) = read_apps(&json!({ "apps": apps }), &["external".to_owned()], true);
    assert_eq!(refused, []);
    backends
}

fn options() -> Options {
    Options { stats_port: None, app_id_port: None, ..Options::default() }
}

/// The configuration from the first frontend or backend on.
fn check(apps: Vec<Value>, expected: &Expect) {
    let (config, refused) = render(&backends(apps), &options());
    assert_eq!(refused, []);
    let from = config.find("\nfrontend").map_or(0, |at| at + 1);
    expected.assert_eq(&config[from..]);
}

#[test]
fn bytes_are_served_at_the_service_port() {
    check(
        vec![app("/shop/db", json!({}))],
        &expect![[r#"
            frontend shop_db_10000
              bind *:10000
              mode tcp
              use_backend shop_db_10000

            backend shop_db_10000
              balance roundrobin
              mode tcp
              server 10.0.0.1_31000 10.0.0.1:31000

        "#]],
    );
}

#[test]
fn virtual_hosts_share_a_port_and_the_heaviest_is_asked_first() {
    let labels = |host: &str, more: Value| {
        let mut labels = json!({"HAPROXY_GROUP": "external", "HAPROXY_0_VHOST": host});
        more.as_object().unwrap().iter().for_each(|(key, value)| labels[key] = value.clone());
        labels
    };
    check(
        vec![
            app(
                "/web",
                json!({"labels": labels("www.example.org,example.org", json!({"HAPROXY_0_STICKY": "true", "HAPROXY_0_BALANCE": "leastconn"}))}),
            ),
            app(
                "/api",
                json!({
                    "labels": labels("www.example.org", json!({"HAPROXY_0_PATH": "/api", "HAPROXY_0_HTTP_BACKEND_PROXYPASS_PATH": "/", "HAPROXY_0_REDIRECT_TO_HTTPS": "true"})),
                    "portDefinitions": [{"port": 10001}],
                    "healthChecks": [{"protocol": "MESOS_HTTP", "path": "/health", "intervalSeconds": 5, "timeoutSeconds": 2, "maxConsecutiveFailures": 2}],
                    "tasks": [
                        {"id": "t1", "host": "10.0.0.1", "ports": [31000], "state": "TASK_RUNNING", "healthCheckResults": [{"alive": true}]},
                        {"id": "t2", "host": "10.0.0.2", "ports": [31000], "state": "TASK_RUNNING", "healthCheckResults": [{"alive": false}]},
                        {"id": "t3", "host": "10.0.0.3", "ports": [31000], "state": "TASK_RUNNING", "healthCheckResults": []},
                        {"id": "t4", "host": "10.0.0.4", "ports": [31000], "state": "TASK_KILLING", "healthCheckResults": [{"alive": true}]},
                    ],
                }),
            ),
        ],
        &expect![[r#"
            frontend marathon_http_in
              bind *:80
              mode http
              option forwardfor
              acl host_0 hdr(host),field(1,:) -i www.example.org
              acl path_0 path_beg /api
              redirect scheme https code 301 if host_0 path_0
              use_backend api_10001 if host_0 path_0
              acl host_1 hdr(host),field(1,:) -i www.example.org example.org
              use_backend web_10000 if host_1

            frontend web_10000
              bind *:10000
              mode http
              option forwardfor
              use_backend web_10000

            frontend api_10001
              bind *:10001
              mode http
              option forwardfor
              use_backend api_10001

            backend web_10000
              balance leastconn
              mode http
              http-request set-header X-Forwarded-Port %[dst_port]
              http-request add-header X-Forwarded-Proto https if { ssl_fc }
              retry-on conn-failure empty-response response-timeout
              http-request disable-l7-retry unless METH_GET or { method HEAD OPTIONS }
              cookie mesosphere_server_id insert indirect nocache
              server 10.0.0.1_31000 10.0.0.1:31000 cookie 10.0.0.1_31000

            backend api_10001
              balance roundrobin
              mode http
              http-request set-header X-Forwarded-Port %[dst_port]
              http-request add-header X-Forwarded-Proto https if { ssl_fc }
              retry-on conn-failure empty-response response-timeout
              http-request disable-l7-retry unless METH_GET or { method HEAD OPTIONS }
              http-request replace-path ^/api/?(.*) /\1
              option httpchk GET /health
              timeout check 2s
              server 10.0.0.1_31000 10.0.0.1:31000 check inter 5s fall 3

        "#]],
    );
}

#[test]
fn containers_are_reached_where_they_are() {
    let container = json!({
        "networks": [{"mode": "container", "name": "net"}],
        "container": {"portMappings": [{"containerPort": 80, "servicePort": 10000}, {"containerPort": 81, "hostPort": 0, "servicePort": 10001}]},
        "tasks": [{"id": "t1", "host": "10.0.0.1", "ports": [31005], "state": "TASK_RUNNING", "ipAddresses": [{"ipAddress": "172.17.0.2"}]}],
    });
    let found: Vec<(u16, String, u16)> =
        backends(vec![app("/c", container)]).iter().map(|it| (it.service_port, it.servers[0].host.clone(), it.servers[0].port)).collect();
    assert_eq!(found, [(10000, "172.17.0.2".to_owned(), 80), (10001, "10.0.0.1".to_owned(), 31005)]);
    let bridge = json!({
        "networks": [{"mode": "container/bridge"}],
        "container": {"portMappings": [{"containerPort": 80, "hostPort": 0, "servicePort": 10000}]},
    });
    assert_eq!(backends(vec![app("/b", bridge)])[0].servers[0].port, 31000);
}

#[test]
fn groups_choose_and_ports_can_be_moved_or_switched_off() {
    let two = json!({
        "portDefinitions": [{"port": 10000}, {"port": 10001}],
        "labels": {"HAPROXY_GROUP": "external", "HAPROXY_0_PORT": "8443", "HAPROXY_1_ENABLED": "false"},
        "tasks": [],
    });
    let chosen = |groups: &[&str]| {
        let groups: Vec<String> = groups.iter().map(|it| (*it).to_owned()).collect();
        let apps = json!({"apps": [app("/a", two.clone()), app("/n", json!({"labels": {}}))]});
        read_apps(&apps, &groups, false).0.iter().map(|it| (it.app_id.clone(), it.service_port)).collect::<Vec<_>>()
    };
    assert_eq!(chosen(&["external"]), [("/a".to_owned(), 8443)]);
    assert_eq!(chosen(&["internal"]), []);
    assert_eq!(chosen(&["*"]), [("/a".to_owned(), 8443), ("/n".to_owned(), 10000)]);
    assert_eq!(chosen(&[]), [("/n".to_owned(), 10000)]);
}

#[test]
fn a_port_is_served_once_and_the_other_is_told() {
    let found = backends(vec![app("/a", json!({})), app("/b", json!({}))]);
    let (config, refused) = render(&found, &options());
    assert_eq!(config.matches("bind *:10000").count(), 1);
    assert_eq!((refused.len(), refused[0].reason.as_str()), (1, "port 10000 is taken"));
}

/// HAProxy itself reads everything that labels can make of it.
#[test]
fn haproxy_takes_it() {
    let labels = json!({
        "HAPROXY_GROUP": "external", "HAPROXY_0_VHOST": "a.example.org,b.example.org", "HAPROXY_0_PATH": "/a.b", "HAPROXY_0_STICKY": "true",
        "HAPROXY_0_HTTP_BACKEND_PROXYPASS_PATH": "/x", "HAPROXY_0_HTTP_BACKEND_REDIR": "/start", "HAPROXY_0_USE_HSTS": "true",
        "HAPROXY_0_AUTH": "realm:user:$5$salt$hash", "HAPROXY_0_BACKEND_SERVER_OPTIONS": "maxconn 100", "HAPROXY_0_BALANCE": "source",
        "HAPROXY_0_BACKEND_HEAD": "option http-no-delay\n timeout server 5s",
    });
    let check = json!([{"protocol": "HTTP", "path": "/health?x=1"}]);
    let tasks =
        json!([{"id": "t1", "host": "127.0.0.1", "ports": [31000], "state": "TASK_RUNNING", "healthCheckResults": [{"alive": true}]}]);
    let apps = vec![
        app("/full", json!({"labels": labels, "healthChecks": check, "tasks": tasks})),
        app("/plain", json!({"portDefinitions": [{"port": 10001}]})),
        app("/idle", json!({"portDefinitions": [{"port": 10002}], "tasks": []})),
    ];
    let (config, _) = render(&backends(apps), &Options::default());
    assert_taken(&config);
}

fn assert_taken(config: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), config).unwrap();
    let Ok(output) = std::process::Command::new("haproxy").args(["-c", "-q", "-f"]).arg(file.path()).output() else {
        assert!(std::env::var_os("CI").is_none(), "haproxy is missing: apt-get install haproxy");
        return;
    };
    assert!(output.status.success(), "{}\n{config}", String::from_utf8_lossy(&output.stderr));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever a label says, no line of the configuration begins where it wants.
    #[test]
    fn labels_cannot_break_out(name in "(VHOST|PATH|BALANCE|AUTH|MODE|BIND_ADDR|BIND_OPTIONS|SSL_CERT|BACKEND_SERVER_OPTIONS|HTTP_BACKEND_REDIR|HTTP_BACKEND_PROXYPASS_PATH|PORT|BACKEND_WEIGHT)",
        before in "[a-z/. :]{0,4}", evil in "(\n|\r|\r\n|\\\\|\"|'|#|\u{0})(global|  stats socket /x|backend evil)?", after in ".{0,8}") {
        let mut labels = json!({"HAPROXY_GROUP": "external", "HAPROXY_0_VHOST": "a.org"});
        labels[format!("HAPROXY_0_{name}")] = format!("{before}{evil}{after}").into();
        let apps = json!({"apps": [app("/a", json!({"labels": labels}))]});
        let (backends, _) = read_apps(&apps, &["*".to_owned()], false);
        let (config, _) = render(&backends, &Options::default());
        prop_assert!(!config.contains("backend evil") && !config.contains("/x"), "{config}");
        for line in config.lines() {
            let first = line.split(' ').next().unwrap_or_default();
            prop_assert!(["", "#", "global", "defaults", "frontend", "backend", "listen", "userlist"].contains(&first), "{line}");
            prop_assert!(!line.chars().any(char::is_control));
        }
    }

    /// Nothing that a Marathon may answer makes it panic.
    #[test]
    fn odd_answers_are_survived(text in "\\PC{0,40}", number in any::<i64>()) {
        for value in [json!(text), json!(number), json!([number, text]), json!({"id": text}), Value::Null] {
            for key in ["id", "labels", "networks", "portDefinitions", "container", "tasks", "healthChecks"] {
                let apps = json!({"apps": [app("/a", json!({key: value.clone()})), value.clone()]});
                let (backends, _) = read_apps(&apps, &["*".to_owned()], true);
                drop(render(&backends, &Options::default()));
            }
        }
    }
}
