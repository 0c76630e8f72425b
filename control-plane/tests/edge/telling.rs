//! What newer probes tell, sent as they send it, and what clients see of it.

use proto::probe::v1::flow_counters::Application;
use proto::probe::v1::flow_key::{Direction, Protocol};
use proto::probe::v1::host_metrics::{BlockDevice, Disk, NetworkInterface};
use proto::probe::v1::report::Kind;
use proto::probe::v1::resolved_address::Name;
use proto::probe::v1::{
    Capture, ContainerMetrics, Flow, HostMetrics, Listener, Losses, Pressure, ProcessKey, ProcessMetrics, Report, ResolvedAddress,
    Translation, UnixFlow, host, translation,
};
use serde_json::Value;

use crate::probe::Probe;
use crate::world::{BEGIN, CONTAINER, World, db_report, flow, process, web_report};

fn key(pid: u32) -> Option<ProcessKey> {
    Some(ProcessKey { pid, start_time_boot_nanos: u64::from(pid) * 10_000_000 })
}

fn delta(sequence: u64) -> Report {
    Report { sequence, observed_at_unix_nanos: BEGIN, kind: Kind::Delta.into(), ..Report::default() }
}

/// A flow of nginx to an address outside.
fn outside(id: u64, server: [u8; 4]) -> Flow {
    let mut flow = flow(id, 100, CONTAINER, Direction::Client);
    let key = flow.key.as_mut().unwrap();
    (key.server_address, key.server_port) = (server.to_vec(), 443);
    flow
}

fn named(address: [u8; 4], names: &[&str]) -> ResolvedAddress {
    let names = names.iter().map(|&name| Name { name: name.to_owned(), resolved_at_unix_nanos: BEGIN, expires_at_unix_nanos: BEGIN });
    ResolvedAddress { address: address.to_vec(), names: names.collect() }
}

/// The rows of the panel's outbound table: label, and value by column.
async fn outbound(world: &World, target: &str) -> Vec<(String, Value)> {
    let panel: Value = world.get(target).await.json();
    let rows = panel["node"]["connections"][1]["connections"].as_array().unwrap();
    let cells = |row: &Value| {
        row["metadata"].as_array().unwrap().iter().map(|it| (it["id"].as_str().unwrap().to_owned(), it["value"].clone())).collect()
    };
    rows.iter().map(|row| (row["label"].as_str().unwrap().to_owned(), Value::Object(cells(row)))).collect()
}

#[tokio::test]
async fn names_of_what_is_outside() {
    let (world, [mut web, _db]) = World::with_two_hosts().await;
    web.apply(Report {
        flows: vec![outside(2, [140, 82, 121, 3]), outside(3, [52, 218, 0, 1])],
        resolved_addresses: vec![
            named([140, 82, 121, 3], &["GitHub.com.", "not a name"]),
            named([52, 218, 0, 1], &["s3.amazonaws.com"]),
            named([1, 2, 3, 4], &["<script>"]),
        ],
        ..delta(2)
    })
    .await;
    let container = format!("/api/topology/containers/{CONTAINER};%3Ccontainer%3E");
    let labels: Vec<String> = outbound(&world, &container).await.into_iter().map(|(label, _)| label).collect();
    assert_eq!(labels, ["github.com (140.82.121.3)", "Uncontained", "s3.amazonaws.com"]);
    let view: Value = world.get("/api/topology/containers").await.json();
    let service = &view["nodes"]["service-s3.amazonaws.com"];
    assert_eq!((&service["label"], &service["shape"], &service["pseudo"]), (&"s3.amazonaws.com".into(), &"cloud".into(), &true.into()));
    let shown: Value = world.get("/api/topology/containers?pseudo=hide").await.json();
    assert!(shown["nodes"]["service-s3.amazonaws.com"].is_object(), "known services stay when pseudo nodes are hidden");
    let flows: Value = world.get("/api/v1/flows?port=443").await.json();
    assert_eq!((&flows["flows"][0]["serverName"], &flows["flows"][0]["clientName"]), (&"github.com".into(), &Value::Null));
    assert_eq!(world.metric("orchestrator_report_values_repaired_total{repair=\"name_left_out\"}").await, 2.0);
    let talks = view["nodes"][format!("{CONTAINER};<container>")]["metadata"].as_array().unwrap().clone();
    let talks = talks.iter().find(|row| row["id"] == "peer_names").unwrap();
    assert_eq!(talks["value"], "github.com, s3.amazonaws.com");
}

#[tokio::test]
async fn where_translation_took_a_client_and_what_it_speaks() {
    let (world, [mut web, _db]) = World::with_two_hosts().await;
    let mut taken = outside(2, [10, 96, 0, 7]);
    taken.translations = vec![Translation {
        server_address: vec![10, 0, 0, 2],
        server_port: 5432,
        client_address: vec![10, 0, 0, 1],
        connections: 3,
        source: translation::Source::Conntrack.into(),
        ..Translation::default()
    }];
    taken.counters.as_mut().unwrap().applications = vec![Application {
        protocol: "postgresql".to_owned(),
        requests: 10,
        errors: 1,
        latency_us_sum: 25_000,
        latency_count: 10,
        latency_us_max: 9_000,
    }];
    web.apply(Report { flows: vec![taken], flows_gone: vec![1], ..delta(2) }).await;
    let rows = outbound(&world, "/api/topology/processes/web-1;100").await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0].0, "/usr/bin/postgres");
    let expected = serde_json::json!({
        "port": "5432", "count": "6", "via": "10.96.0.7:443 (conntrack)", "application": "postgresql", "requests": "10", "errors": "1",
        "latency": "2.500",
    });
    assert_eq!(rows[0].1, expected);
    let flows: Value = world.get("/api/v1/flows?port=443").await.json();
    let flow = &flows["flows"][0];
    assert_eq!(flow["peers"], serde_json::json!(["db-1;200"]));
    assert_eq!(
        flow["translations"],
        serde_json::json!([{"server": "10.0.0.2:5432", "client": "10.0.0.1", "connections": 3, "source": "conntrack"}])
    );
    assert_eq!(
        flow["applications"],
        serde_json::json!([{"protocol": "postgresql", "requests": 10, "errors": 1, "latencyMicrosAverage": 2500, "latencyMicrosMax": 9000}])
    );
}

#[tokio::test]
async fn sockets_that_listen_and_unix_sockets() {
    let (world, [mut web, _db]) = World::with_two_hosts().await;
    let listener = |id, port, protocol: Protocol| Listener {
        id,
        process: key(100),
        container_id: CONTAINER.to_owned(),
        protocol: protocol.into(),
        address: vec![0; 4],
        port,
        ..Listener::default()
    };
    web.apply(Report {
        processes: vec![process(300, "/usr/bin/dbus-daemon", "")],
        listeners: vec![listener(1, 80, Protocol::Tcp), listener(2, 443, Protocol::Tcp), listener(3, 443, Protocol::Udp)],
        unix_flows: vec![UnixFlow { id: 1, client: key(100), server: key(300), path: "@bus".to_owned(), open: 2, ..UnixFlow::default() }],
        ..delta(2)
    })
    .await;
    let all: Value = world.get("/api/v1/listeners").await.json();
    assert_eq!((all["listeners"].as_array().unwrap().len(), &all["more"]), (3, &false.into()));
    for (query, count, more) in [
        ("port=443".to_owned(), 2, false),
        ("pid=100&port=80".to_owned(), 1, false),
        (format!("container={CONTAINER}&limit=2"), 2, true),
        ("host=db-1".to_owned(), 0, false),
    ] {
        let page: Value = world.get(&format!("/api/v1/listeners?{query}")).await.json();
        assert_eq!((page["listeners"].as_array().unwrap().len(), &page["more"]), (count, &more.into()), "{query}");
    }
    let first = &all["listeners"][0];
    assert_eq!((&first["processName"], &first["address"], &first["protocol"]), (&"nginx".into(), &"0.0.0.0".into(), &"tcp".into()));
    assert_eq!(world.get("/api/v1/listeners?port=x").await.status, 400);
    let panel: Value = world.get("/api/topology/processes/web-1;100").await.json();
    let listens = panel["node"]["metadata"].as_array().unwrap().iter().find(|row| row["id"] == "listening_ports").unwrap();
    assert_eq!(listens["value"], "80/tcp, 443/tcp, 443/udp");
    let rows = outbound(&world, "/api/topology/processes/web-1;100").await;
    assert!(rows.contains(&("@bus".to_owned(), serde_json::json!({"count": "2", "protocol": "unix"}))), "{rows:?}");
}

#[tokio::test]
async fn what_machines_and_containers_are_and_how_they_do() {
    let (world, [mut web, _db]) = World::with_two_hosts().await;
    let mut host = web_report(1).host.unwrap();
    host.architecture = "x86_64".to_owned();
    host.cloud =
        Some(host::Cloud { provider: "aws".to_owned(), zone: "eu-1b".to_owned(), instance_type: "m7".to_owned(), ..Default::default() });
    let mut container = web_report(1).containers.remove(0);
    container.health = "unhealthy".to_owned();
    let pressure = Some(Pressure { cpu_percent: 12.5, memory_percent: 0.0, io_percent: 50.0 });
    let sample = |seconds: u64| HostMetrics {
        at_unix_nanos: BEGIN + seconds * 1_000_000_000,
        cpu_percent: 10.0,
        memory_used_bytes: 1 << 30,
        load1: 1.0,
        load5: 2.0,
        load15: 3.0,
        swap_used_bytes: 1 << 20,
        pressure,
        disks: vec![
            Disk {
                mount_point: "/".to_owned(),
                device: "/dev/vda1".to_owned(),
                file_system: "ext4".to_owned(),
                size_bytes: 100,
                used_bytes: 31
            };
            100
        ],
        block_devices: vec![BlockDevice { name: "vda".to_owned(), read_bytes: seconds * 1_000, written_bytes: 0, busy_millis: 1 }],
        network_interfaces: vec![NetworkInterface {
            name: "eth0".to_owned(),
            up: true,
            received_bytes: seconds * 500,
            ..Default::default()
        }],
        ..HostMetrics::default()
    };
    let of_container = ContainerMetrics {
        id: CONTAINER.to_owned(),
        at_unix_nanos: BEGIN,
        cpu_limit: 1.5,
        cpu_throttled_percent: 25.0,
        oom_kills: 2,
        process_count: 7,
        pressure,
        ..ContainerMetrics::default()
    };
    let of_process = ProcessMetrics { key: key(100), at_unix_nanos: BEGIN, io_read_bytes: 4_000_000, ..ProcessMetrics::default() };
    let mut nginx = process(100, "nginx", CONTAINER);
    nginx.user_name = "www-data".to_owned();
    web.apply(Report {
        host: Some(host),
        containers: vec![container],
        processes: vec![nginx],
        host_metrics: vec![sample(1), sample(3)],
        container_metrics: vec![of_container],
        process_metrics: vec![of_process],
        ..delta(2)
    })
    .await;
    let hosts: Value = world.get("/api/v1/hosts").await.json();
    let host = &hosts["hosts"][1];
    assert_eq!((&host["name"], &host["cloud"]["zone"], &host["metrics"]["load15"]), (&"web-1".into(), &"eu-1b".into(), &3.0.into()));
    assert_eq!(host["metrics"]["disks"].as_array().unwrap().len(), 64, "there is a limit");
    assert_eq!(host["metrics"]["pressure"]["ioPercent"], 50.0);
    assert_eq!(hosts["hosts"][0]["metrics"], Value::Null);
    let panel: Value = world.get("/api/topology/hosts/web-1;%3Chost%3E").await.json();
    let metric = |panel: &Value, id: &str| {
        let row = panel["node"]["metrics"].as_array().unwrap().iter().find(|row| row["id"] == id);
        row.unwrap_or_else(|| panic!("{id} in {panel}"))["value"].clone()
    };
    for (id, value) in [("receive_bytes", 500.0), ("disk_read_bytes", 1_000.0), ("host_io_pressure_percent", 50.0), ("load5", 2.0)] {
        assert_eq!(metric(&panel, id), value, "{id}");
    }
    let table = |panel: &Value, id: &str| {
        panel["node"]["tables"].as_array().unwrap().iter().find(|table| table["id"] == id).unwrap()["rows"].clone()
    };
    assert_eq!(table(&panel, "host_disks")[0]["entries"]["value"], "31 B of 100 B used (31 %), ext4 on /dev/vda1");
    let view: Value = world.get("/api/topology/hosts").await.json();
    let in_view = view["nodes"]["web-1;<host>"]["metrics"].as_array().unwrap().len();
    assert_eq!(in_view, 3, "views stay as light as they were");
    let row = |panel: &Value, id: &str| {
        panel["node"]["metadata"].as_array().unwrap().iter().find(|row| row["id"] == id).unwrap()["value"].clone()
    };
    let panel: Value = world.get(&format!("/api/topology/containers/{CONTAINER};%3Ccontainer%3E")).await.json();
    assert_eq!(metric(&panel, "container_cpu_throttled_percent"), 25.0);
    let shown = ["docker_container_health", "docker_container_oom", "process_count"].map(|id| row(&panel, id));
    assert_eq!(shown, ["unhealthy", "2 processes killed", "7"]);
    let panel: Value = world.get("/api/topology/processes/web-1;100").await.json();
    assert_eq!(["user", "io_read_bytes"].map(|id| row(&panel, id)), ["www-data", "4 MB"]);
}

#[tokio::test]
async fn how_a_probe_sees_and_what_it_lost() {
    let (world, [mut web, _db]) = World::with_two_hosts().await;
    web.apply(Report {
        capture: Some(Capture { rung: 2, overload_level: 7, missing_capabilities: vec!["CAP_PERFMON".to_owned()], ..Capture::default() }),
        losses: Some(Losses {
            other: [("dns_ring", 5), ("made up by a probe", 6), ("udp_talks", 7), ("ends_untold", 8)]
                .map(|(cause, lost)| (cause.to_owned(), lost))
                .into(),
            ends_seen: 1_000,
            ends_reported: 999,
            ..Losses::default()
        }),
        ..delta(2)
    })
    .await;
    let probes: Value = world.get("/api/v1/probes").await.json();
    let probe = &probes["probes"][1];
    assert_eq!((&probe["capture"]["overloadLevel"], &probe["capture"]["missingCapabilities"][0]), (&7.into(), &"CAP_PERFMON".into()));
    assert_eq!((&probe["losses"]["other"]["dns_ring"], &probe["losses"]["completeness"]), (&5.into(), &0.999.into()));
    for (metric, value) in [
        ("orchestrator_probes_overloaded{level=\"3\"}", 1.0),
        ("orchestrator_probes_overloaded{level=\"1\"}", 0.0),
        ("orchestrator_probes_lacking_capabilities", 1.0),
        ("orchestrator_probe_losses{cause=\"dns_ring\"}", 5.0),
        ("orchestrator_probe_losses{cause=\"other\"}", 6.0),
        ("orchestrator_probe_losses{cause=\"udp_talks\"}", 7.0),
        ("orchestrator_probe_losses{cause=\"ends_untold\"}", 8.0),
        ("orchestrator_probe_ends_seen", 1_000.0),
        ("orchestrator_probe_ends_reported", 999.0),
    ] {
        assert_eq!(world.metric(metric).await, value, "{metric}");
    }
    assert!(!world.get("/metrics").await.text().contains("made up"));
    let panel: Value = world.get("/api/topology/hosts/web-1;%3Chost%3E").await.json();
    let table = panel["node"]["tables"].as_array().unwrap().iter().find(|table| table["id"] == "host_probe").unwrap().clone();
    let rows: Vec<String> = table["rows"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
    assert!(rows.contains(&"label_Overload level".to_owned()) && rows.contains(&"label_Lost: dns_ring".to_owned()), "{rows:?}");
}

#[tokio::test]
async fn what_is_malformed_is_named_and_the_stream_goes_on() {
    let (world, [mut web, _db]) = World::with_two_hosts().await;
    let translation = |source: i32| Translation { server_address: vec![1, 2, 3, 4], source, ..Translation::default() };
    let mut too_many = outside(2, [1, 2, 3, 4]);
    too_many.translations = vec![translation(2); 65];
    let mut of_nobody = outside(2, [1, 2, 3, 4]);
    of_nobody.translations = vec![translation(0)];
    let mut nameless = outside(2, [1, 2, 3, 4]);
    nameless.counters.as_mut().unwrap().applications = vec![Application::default()];
    let reports = [
        (Report { flows: vec![too_many], ..delta(2) }, "flows[0].translations are 65"),
        (Report { flows: vec![of_nobody], ..delta(2) }, "flows[0].translations[0].source is 0"),
        (Report { flows: vec![nameless], ..delta(2) }, "flows[0].counters.applications[0].protocol is \"\""),
        (
            Report { listeners: vec![Listener { port: 65_536, protocol: 1, address: vec![0; 4], ..Listener::default() }], ..delta(2) },
            "listeners[0].port is 65536, which is no port",
        ),
        (
            Report { resolved_addresses: vec![ResolvedAddress { address: vec![1], names: vec![] }], ..delta(2) },
            "resolved_addresses[0].address has 1 bytes, not 4 or 16",
        ),
        (Report { resolved_addresses: vec![named([1, 2, 3, 4], &["x"; 9])], ..delta(2) }, "resolved_addresses[0].names are 9"),
        (Report { unix_flows: vec![UnixFlow { client: key(1), ..UnixFlow::default() }], ..delta(2) }, "unix_flows[0].server is missing"),
        (
            Report {
                host_metrics: vec![HostMetrics {
                    pressure: Some(Pressure { io_percent: f64::NAN, ..Pressure::default() }),
                    ..HostMetrics::default()
                }],
                ..delta(2)
            },
            "host_metrics[0].pressure.io_percent is NaN",
        ),
    ];
    for (report, reason) in reports {
        web.send(report).await;
        let rejected = web.rejected().await;
        assert_eq!(rejected.reason, reason);
        // A malformed report leaves the session without its state: it begins anew.
        assert!(rejected.snapshot_needed);
    }
    let mut another = Probe::connect(world.grpc, "probe-3", "third").await;
    another.apply(Report { host: None, flows: Vec::new(), processes: Vec::new(), ..db_report(1) }).await;
}
