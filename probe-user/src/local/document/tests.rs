use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::clock::Now;
use crate::observation::BootNanos;
use crate::report::Samples;

/// One of everything.
pub(crate) fn look() -> Look {
    let key = v1::ProcessKey { pid: 7, start_time_boot_nanos: 40_000_000_000 };
    let moment = 1_700_000_000_000_000_000;
    let report = v1::Report {
        host: Some(v1::Host {
            host_name: "node-1".to_owned(),
            kernel_version: "6.18.0".to_owned(),
            os: "linux".to_owned(),
            os_release: "Debian GNU/Linux 12 (bookworm)".to_owned(),
            cpu_count: 4,
            memory_bytes: 16_000_000_000,
            addresses: vec!["10.0.0.1".to_owned()],
            ..v1::Host::default()
        }),
        capture: Some(v1::Capture {
            rung: 1,
            description: "sock_ops + raw tracepoints".to_owned(),
            hooks: vec![v1::capture::Hook { name: "sock_ops".to_owned(), attached: true, error: String::new() }],
            ..v1::Capture::default()
        }),
        losses: Some(v1::Losses { ends_seen: 100_000, ends_reported: 99_999, ..v1::Losses::default() }),
        processes: vec![v1::Process {
            key: Some(key),
            parent_pid: 1,
            name: "nginx".to_owned(),
            comm: "nginx".to_owned(),
            command_line: "nginx -g daemon off;".to_owned(),
            user_name: "www-data".to_owned(),
            user_id: 33,
            container_id: "c".repeat(64),
            ..v1::Process::default()
        }],
        containers: vec![v1::Container {
            id: "c".repeat(64),
            name: "web".to_owned(),
            image_name: "nginx:1.27".to_owned(),
            state: v1::ContainerState::Running.into(),
            state_human: "Up 2 hours".to_owned(),
            runtime: "docker".to_owned(),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            command: "nginx -g daemon off;".to_owned(),
            environment: [("COLOUR".to_owned(), "red".to_owned())].into(),
            ports: vec![v1::PortMapping { container_port: 80, protocol: "tcp".to_owned(), host_port: 8_080, ..Default::default() }],
            ..v1::Container::default()
        }],
        flows: vec![v1::Flow {
            id: 3,
            key: Some(v1::FlowKey {
                process: Some(key),
                container_id: "c".repeat(64),
                direction: flow_key::Direction::Client.into(),
                protocol: flow_key::Protocol::Tcp.into(),
                client_address: vec![10, 0, 0, 1],
                server_address: vec![192, 0, 2, 7],
                server_port: 5432,
                ..v1::FlowKey::default()
            }),
            counters: Some(v1::FlowCounters {
                opened: 12,
                closed: 10,
                bytes_sent: 1_500_000,
                bytes_received: 42_000,
                rtt_us_sum: 3_000,
                rtt_count: 2,
                rtt_us_max: 2_000,
                applications: vec![v1::flow_counters::Application { protocol: "postgresql".to_owned(), requests: 5, ..Default::default() }],
                ..v1::FlowCounters::default()
            }),
            translations: vec![v1::Translation {
                server_address: vec![10, 1, 1, 1],
                server_port: 5432,
                connections: 4,
                ..Default::default()
            }],
            first_seen_unix_nanos: moment,
            last_active_unix_nanos: moment,
            ..v1::Flow::default()
        }],
        unix_flows: vec![v1::UnixFlow {
            id: 1,
            client: Some(key),
            server: Some(key),
            path: "/run/app.sock".to_owned(),
            open: 3,
            server_container_id: "c".repeat(64),
            ..v1::UnixFlow::default()
        }],
        listeners: vec![v1::Listener {
            process: Some(key),
            protocol: flow_key::Protocol::Tcp.into(),
            address: vec![0; 16],
            port: 80,
            ..v1::Listener::default()
        }],
        resolved_addresses: vec![v1::ResolvedAddress {
            address: vec![192, 0, 2, 7],
            names: vec![v1::resolved_address::Name { name: "db.example.com".to_owned(), ..Default::default() }],
        }],
        ..v1::Report::default()
    };
    let samples = Samples {
        host: Some(v1::HostMetrics {
            cpu_percent: 12.5,
            memory_used_bytes: 4_000_000_000,
            load1: 0.5,
            pressure: Some(v1::Pressure { io_percent: 1.5, ..Default::default() }),
            disks: vec![v1::host_metrics::Disk { mount_point: "/".to_owned(), size_bytes: 9, used_bytes: 4, ..Default::default() }],
            block_devices: vec![v1::host_metrics::BlockDevice { name: "vda".to_owned(), ..Default::default() }],
            network_interfaces: vec![v1::host_metrics::NetworkInterface { name: "eth0".to_owned(), up: true, ..Default::default() }],
            ..v1::HostMetrics::default()
        }),
        processes: vec![v1::ProcessMetrics {
            key: Some(key),
            cpu_percent: 3.25,
            memory_bytes: 80_000_000,
            open_files: 30,
            ..Default::default()
        }],
        containers: vec![v1::ContainerMetrics {
            id: "c".repeat(64),
            cpu_percent: 3.5,
            memory_bytes: 90_000_000,
            cpu_throttled_percent: 12.5,
            pressure: Some(v1::Pressure { cpu_percent: 68.0, ..Default::default() }),
            ..Default::default()
        }],
        ..Samples::default()
    };
    Look { report, samples, now: Now { boot: BootNanos(100_000_000_000), unix_nanos: moment }, ..Look::default() }
}

/// Every path of a document: `flows[].pid`. Maps have keys of their own.
fn paths(value: &Value, path: &str, into: &mut BTreeSet<String>) {
    let is_map = ["labels", "ringRecords", "other", "environment"].iter().any(|name| path.ends_with(name));
    match value {
        Value::Object(fields) if !is_map => {
            for (name, field) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                paths(field, &path, into);
            }
        }
        Value::Array(items) if items.first().is_some_and(Value::is_object) => {
            items.iter().for_each(|item| paths(item, &format!("{path}[]"), into))
        }
        _ => drop(into.insert(path.to_owned())),
    }
}

#[test]
fn every_field_is_in_the_documentation_and_nothing_else_is() {
    let mut own = BTreeSet::new();
    paths(&serde_json::to_value(Document::of(&look(), Duration::from_secs(2))).unwrap(), "", &mut own);
    let text = include_str!("../../../../docs/once.md");
    let rows = text.lines().filter(|line| line.starts_with("| `")).filter_map(|line| line.split('|').nth(1));
    let told = rows.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect::<BTreeSet<_>>();
    // What only holds others is told for people.
    let holders = ["host", "capture", "losses"].map(str::to_owned);
    assert_eq!(told.iter().filter(|path| !holders.contains(path)).cloned().collect::<BTreeSet<_>>(), own);
}

#[test]
fn a_document_says_what_was_seen() {
    let document = Document::of(&look(), Duration::from_secs(2));
    assert_eq!(document.taken_at, "2023-11-14T22:13:20.000Z");
    assert_eq!(document.losses.completeness, 0.99999);
    let flow = &document.flows[0];
    assert_eq!((flow.process.as_str(), flow.server_name.as_deref(), flow.rtt_micros), ("nginx", Some("db.example.com"), Some(1_500)));
    let process = &document.processes[0];
    assert_eq!((process.cpu_percent, process.started_at.as_deref()), (Some(3.25), Some("2023-11-14T22:12:20.000Z")));
    assert_eq!(document.listeners[0].address, "::");
    let container = &document.containers[0].more;
    assert_eq!((container.ports[0].container_port, container.ports[0].host_port, container.exit_code), (80, Some(8_080), None));
    assert_eq!((container.cpu_throttled_percent, container.pressure.as_ref().map(|it| it.cpu_percent)), (Some(12.5), Some(68.0)));
    assert_eq!((document.host.more.disks[0].used_bytes, document.host.more.network_interfaces[0].up), (4, true));
    let unix = &document.unix_flows[0];
    assert_eq!((unix.path.as_str(), unix.open, unix.client_pid, unix.server_process.as_str()), ("/run/app.sock", 3, 7, "nginx"));
}

#[test]
fn a_node_of_which_nothing_is_known_is_a_document() {
    let document = Document::of(&Look::default(), Duration::ZERO);
    let value = serde_json::to_value(&document).unwrap();
    assert_eq!((value["format"].clone(), value["host"]["cpuPercent"].clone()), (1.into(), Value::Null));
    assert_eq!(document.losses.completeness, 1.0);
}

#[test]
fn addresses_of_an_odd_length_are_none() {
    assert_eq!([&[][..], &[1, 2, 3], &[1, 2, 3, 4], &[0; 16]].map(address), ["", "", "1.2.3.4", "::"]);
}
