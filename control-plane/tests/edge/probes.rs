//! Probes, good and bad.

use bytes::Bytes;
use expect_test::{Expect, expect};
use proto::probe::v1::{Capture, Container, Hello, Process, Report, capture, flow_key, probe_message};
use tonic::Code;

use crate::probe::{Probe, hello, message};
use crate::world::{BEGIN, World, db_report, flow, process, processes_delta, web_report};

#[tokio::test]
async fn a_report_is_acknowledged_and_on_the_map() {
    let world = World::start().await;
    let mut probe = Probe::connect(world.grpc, "p", "web-1").await;
    assert_eq!(probe.welcome.resume_after_sequence, 0);
    assert_eq!(probe.welcome.max_report_bytes, 4 << 20);
    assert_eq!(probe.welcome.control_plane_id, "91a");
    probe.apply(web_report(1)).await;
    assert!(world.get("/api/topology/hosts").await.text().contains("web-1;\\u003chost\\u003e"));
    assert_eq!(world.metric("orchestrator_reports_applied_total").await, 1.0);
    assert_eq!(world.metric("monitoring_app_probes_connected").await, 1.0);
    assert_eq!(world.metric("monitoring_app_containers_total").await, 1.0);
}

#[tokio::test]
async fn acknowledgements_are_few_while_reports_are_many() {
    let world = World::start().await;
    let mut probe = Probe::connect(world.grpc, "p", "web-1").await;
    probe.send(web_report(1)).await;
    for sequence in 2..=500 {
        probe.send(processes_delta(sequence, [])).await;
    }
    let mut acknowledgements = 0;
    loop {
        match probe.next().await.unwrap().unwrap() {
            proto::probe::v1::control_message::Body::Acknowledge(it) => {
                acknowledgements += 1;
                if it.sequence == 500 {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(acknowledgements < 250, "{acknowledgements}");
}

/// Sends a bad report, expects the refusal, and sees that the stream goes on.
async fn check_refused(bad: Report, expected: Expect) {
    let world = World::start().await;
    let mut probe = Probe::connect(world.grpc, "p", "web-1").await;
    probe.send(bad).await;
    let refusal = probe.rejected().await;
    expected.assert_eq(&refusal.reason);
    assert!(refusal.snapshot_needed);
    probe.apply(web_report(1)).await;
    assert_eq!(world.metric("orchestrator_reports_applied_total").await, 1.0);
}

#[tokio::test]
async fn malformed_reports_are_refused_one_by_one_with_the_place() {
    let good = || web_report(1);
    check_refused(Report { sequence: 0, ..good() }, expect!["sequence is 0"]).await;
    check_refused(Report { kind: 9, ..good() }, expect!["kind is 9"]).await;
    let mut report = good();
    report.flows[0].key.as_mut().unwrap().server_address = vec![1, 2, 3, 4, 5];
    check_refused(report, expect!["flows[0].key.server_address has 5 bytes, not 4 or 16"]).await;
    let mut report = good();
    report.flows[0].key.as_mut().unwrap().server_port = 65_536;
    check_refused(report, expect!["flows[0].key.server_port is 65536, which is no port"]).await;
    let mut report = good();
    report.flows[0].key.as_mut().unwrap().direction = 0;
    check_refused(report, expect!["flows[0].key.direction is 0"]).await;
    let mut report = good();
    report.processes[0].key = None;
    check_refused(report, expect!["processes[0].key is missing"]).await;
    let mut report = good();
    report.containers[0].id = "x".repeat(257);
    check_refused(report, expect!["containers[0].id has not 1 to 256 bytes"]).await;
    let mut report = good();
    report.host.as_mut().unwrap().local_networks = vec!["10.0.0.1/33".to_owned()];
    check_refused(report, expect![[r#"host.local_networks[0].network is "10.0.0.1/33", which is no network"#]]).await;
}

#[tokio::test]
async fn a_probe_cannot_report_on_another_host() {
    check_refused(db_report(1), expect![[r#"it is about the host "db-1", and this is the stream of "web-1""#]]).await;
}

#[tokio::test]
async fn bytes_that_are_no_message_are_refused_and_the_stream_goes_on() {
    let world = World::start().await;
    let mut probe = Probe::connect(world.grpc, "p", "web-1").await;
    probe.send_raw(Bytes::from_static(b"\xff\xff\xff\xff not a message")).await;
    let refusal = probe.rejected().await;
    assert!(refusal.reason.starts_with("it cannot be decoded"), "{}", refusal.reason);
    probe.apply(web_report(1)).await;
    assert_eq!(world.metric("orchestrator_reports_rejected_total{reason=\"malformed\"}").await, 1.0);
}

#[tokio::test]
async fn a_report_that_is_too_large_is_refused_and_the_stream_goes_on() {
    let world = World::start().await;
    let mut probe = Probe::connect(world.grpc, "p", "web-1").await;
    let container = Container { id: "c".to_owned(), command: "x".repeat(5 << 20), ..Container::default() };
    probe.send(Report { containers: vec![container], ..web_report(7) }).await;
    let refusal = probe.rejected().await;
    assert_eq!(refusal.sequence, 7);
    assert!(refusal.reason.contains("4194304 are allowed"), "{}", refusal.reason);
    probe.apply(web_report(1)).await;
    assert_eq!(world.metric("orchestrator_reports_rejected_total{reason=\"too_large\"}").await, 1.0);
}

#[tokio::test]
async fn a_small_message_of_very_many_records_is_refused_before_it_is_decoded() {
    let world = World::start().await;
    let mut probe = Probe::connect(world.grpc, "p", "web-1").await;
    probe.send(Report { processes: vec![Process::default(); 1_000_000], ..web_report(7) }).await;
    let refusal = probe.rejected().await;
    expect!["it has 1000020 records, and 131072 are allowed: send it in parts"].assert_eq(&refusal.reason);
    probe.apply(web_report(1)).await;
}

#[tokio::test]
async fn a_message_more_than_twice_too_large_ends_the_stream_alone() {
    let world = World::start().await;
    let mut probe = Probe::connect(world.grpc, "p", "web-1").await;
    probe.send_raw(vec![0; 9 << 20]).await;
    assert_eq!(probe.ended().await, Code::OutOfRange);
    let mut probe = Probe::connect(world.grpc, "p", "web-1").await;
    probe.apply(web_report(1)).await;
}

#[tokio::test]
async fn a_clock_far_ahead_cannot_keep_things_on_the_map() {
    let world = World::start().await;
    let mut probe = Probe::connect(world.grpc, "p", "web-1").await;
    let future = BEGIN + 100 * 365 * 24 * 3_600 * 1_000_000_000;
    let mut report = web_report(1);
    report.observed_at_unix_nanos = future;
    report.flows[0].last_active_unix_nanos = future;
    probe.apply(report).await;
    let flows = world.get("/api/v1/flows").await.text();
    assert!(flows.contains("\"lastActive\":\"2026-01-01T00:00:"), "{flows}");
    assert_eq!(world.metric("orchestrator_report_values_repaired_total{repair=\"time_clamped\"}").await, 2.0);
}

#[tokio::test]
async fn texts_that_are_too_long_are_cut_and_counted() {
    let world = World::start().await;
    let mut probe = Probe::connect(world.grpc, "p", "web-1").await;
    let mut report = web_report(1);
    report.processes[0].command_line = "ä".repeat(10_000);
    probe.apply(report).await;
    assert_eq!(world.metric("orchestrator_report_values_repaired_total{repair=\"text_cut\"}").await, 1.0);
}

#[tokio::test]
async fn a_gap_is_refused_and_asks_for_a_snapshot() {
    let world = World::start().await;
    let mut probe = Probe::connect(world.grpc, "p", "web-1").await;
    probe.apply(web_report(1)).await;
    probe.send(processes_delta(3, [])).await;
    let refusal = probe.rejected().await;
    assert!(refusal.snapshot_needed);
    expect!["report 2 was expected and 3 came"].assert_eq(&refusal.reason);
    assert_eq!(world.metric("orchestrator_reports_rejected_total{reason=\"out_of_order\"}").await, 1.0);
}

#[tokio::test]
async fn a_probe_that_lost_its_connection_goes_on_where_it_was() {
    let world = World::start().await;
    let mut probe = Probe::connect(world.grpc, "p", "web-1").await;
    probe.apply(web_report(1)).await;
    probe.apply(processes_delta(2, [process(300, "redis", "")])).await;
    drop(probe);
    world.metric_becomes("monitoring_app_probes_connected", 0.0).await;
    let again = Hello { oldest_held_sequence: 2, ..hello("p", "web-1") };
    let mut probe = Probe::connect_with(world.grpc, again).await.unwrap();
    assert_eq!(probe.welcome.resume_after_sequence, 2);
    probe.apply(processes_delta(3, [])).await;
    assert!(world.get("/api/topology/processes").await.text().contains("web-1;300"));
}

#[tokio::test]
async fn a_newer_stream_of_the_same_probe_takes_the_place_of_the_older() {
    let world = World::start().await;
    let mut older = Probe::connect(world.grpc, "p", "web-1").await;
    older.apply(web_report(1)).await;
    let mut newer = Probe::connect_with(world.grpc, Hello { session_id: "another".to_owned(), ..hello("p", "web-1") }).await.unwrap();
    assert_eq!(older.ended().await, Code::Aborted);
    newer.apply(web_report(1)).await;
    world.metric_becomes("orchestrator_probe_streams", 1.0).await;
    assert_eq!(world.metric("monitoring_app_probes_connected").await, 1.0);
    assert_eq!(world.metric("orchestrator_probe_streams_ended_total{reason=\"replaced\"}").await, 1.0);
}

#[tokio::test]
async fn a_goodbye_takes_the_host_off_the_map_at_once() {
    let (world, [web, _db]) = World::with_two_hosts().await;
    assert!(world.get("/api/topology/hosts").await.text().contains("web-1"));
    web.goodbye().await;
    crate::world::eventually(async || !world.get("/api/topology/hosts").await.text().contains("\"web-1;"), "the host is gone".to_owned())
        .await;
    assert_eq!(world.metric("orchestrator_probe_streams_ended_total{reason=\"goodbye\"}").await, 1.0);
}

#[tokio::test]
async fn a_bad_hello_is_told_what_is_wrong() {
    let world = World::start().await;
    let refused = async |hello: Hello| Probe::connect_with(world.grpc, hello).await.err().unwrap().message().to_owned();
    expect!["probe_id has not 1 to 128 characters"].assert_eq(&refused(hello("", "h")).await);
    expect!["probe_id has not 1 to 128 characters"].assert_eq(&refused(hello(&"x".repeat(129), "h")).await);
    expect!["host_name has not 1 to 253 characters"].assert_eq(&refused(hello("p", "")).await);
    expect!["host_name has the character ';'"].assert_eq(&refused(hello("p", "a;b")).await);
    expect!["session_id has not 1 to 256 bytes"].assert_eq(&refused(Hello { session_id: String::new(), ..hello("p", "h") }).await);
    let hooks = vec![capture::Hook { name: "x".repeat(1_000), ..capture::Hook::default() }; 100];
    let long = Hello { capture: Some(Capture { hooks, ..Capture::default() }), ..hello("p", "h") };
    assert!(refused(long).await.starts_with("the hello has "));
    let first = message(probe_message::Body::Report(web_report(1)));
    let error = Probe::connect_raw(world.grpc, first).await.err().unwrap();
    assert_eq!((error.code(), error.message()), (Code::InvalidArgument, "the first message is no hello"));
    assert_eq!(world.metric("orchestrator_probe_streams_refused_total{reason=\"bad_hello\"}").await, 7.0);
}

#[tokio::test]
async fn there_are_no_more_probes_than_allowed() {
    let world = World::start().await;
    let mut probes = Vec::new();
    for number in 0..10 {
        probes.push(Probe::connect(world.grpc, &format!("p{number}"), &format!("h{number}")).await);
    }
    let error = Probe::connect_with(world.grpc, hello("p10", "h10")).await.err().unwrap();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert_eq!(world.metric("orchestrator_probe_streams_refused_total{reason=\"not_admitted\"}").await, 1.0);
}

#[tokio::test]
async fn mapped_addresses_become_what_they_stand_for() {
    let world = World::start().await;
    let mut probe = Probe::connect(world.grpc, "p", "web-1").await;
    let mut mapped = flow(1, 100, "", flow_key::Direction::Client);
    mapped.key.as_mut().unwrap().server_address = "::ffff:10.0.0.2".parse::<std::net::Ipv6Addr>().unwrap().octets().to_vec();
    probe.apply(Report { flows: vec![mapped], ..web_report(1) }).await;
    let flows = world.get("/api/v1/flows").await.text();
    assert!(flows.contains("\"serverAddress\":\"10.0.0.2\""), "{flows}");
}
