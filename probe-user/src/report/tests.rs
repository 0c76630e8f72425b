use expect_test::{Expect, expect};
use prost::Message as _;

use super::*;
use crate::observation::{Counted, Direction, ProcessStarted, Protocol, Translated};

const SECOND: u64 = 1_000_000_000;
const ID: &str = "2299a2ca59dfd821f367e689d5869c4e568272c2305701761888e1d79d7a6f51";

fn now() -> Now {
    Now { boot: BootNanos(100 * SECOND), unix_nanos: 1_000 * SECOND }
}

fn end(pid: u32) -> FlowEnd {
    FlowEnd {
        pid,
        start_time: None,
        cgroup_id: 7,
        network_namespace: 3,
        direction: Direction::Server,
        protocol: Protocol::Tcp,
        client_address: "::ffff:10.0.0.1".parse().unwrap(),
        server_address: "fd00::2".parse().unwrap(),
        server_port: 443,
    }
}

fn started(pid: u32) -> Observation {
    let at = BootNanos(90 * SECOND);
    Observation::ProcessStarted(ProcessStarted {
        at,
        pid,
        start_time: Some(at),
        comm: "web".to_owned(),
        cgroup_id: 7,
        ..ProcessStarted::default()
    })
}

fn observe(builder: &mut Builder, observations: impl IntoIterator<Item = Observation>) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    observations.into_iter().for_each(|it| builder.observe(it, &mut wanted));
    wanted
}

#[track_caller]
fn check(reports: &[v1::Report], expected: Expect) {
    expected.assert_debug_eq(&reports);
}

#[test]
fn a_connection_of_a_container_is_told_whole() {
    let mut builder = Builder::default();
    let at = BootNanos(95 * SECOND);
    let wanted = observe(
        &mut builder,
        [
            Observation::CgroupCreated { at, id: 7, path: format!("/docker/{ID}") },
            started(20),
            Observation::FlowSeen {
                at,
                end: end(20),
                client_port: 5_000,
                original_server: Some(("10.9.9.9".parse().unwrap(), 80)),
                found_open: false,
            },
            Observation::FlowCounted { last_active: at, end: end(20), delta: Counted { opened: 1, bytes_sent: 5, ..Counted::default() } },
        ],
    );
    assert_eq!(wanted, [Wanted::Details(20)]);
    check(
        &builder.take_delta(now(), 10_000),
        expect![[r#"
            [
                Report {
                    sequence: 0,
                    observed_at_unix_nanos: 1000000000000,
                    kind: Delta,
                    host: None,
                    processes: [
                        Process {
                            key: Some(
                                ProcessKey {
                                    pid: 20,
                                    start_time_boot_nanos: 90000000000,
                                },
                            ),
                            parent_pid: 0,
                            name: "web",
                            command_line: "web",
                            user_id: 0,
                            thread_count: 1,
                            container_id: "2299a2ca59dfd821f367e689d5869c4e568272c2305701761888e1d79d7a6f51",
                            cgroup_id: 7,
                            cgroup_path: "/docker/2299a2ca59dfd821f367e689d5869c4e568272c2305701761888e1d79d7a6f51",
                            exited_at_unix_nanos: 0,
                            exit_status: 0,
                            comm: "web",
                            oom_killed: false,
                            user_name: "",
                        },
                    ],
                    processes_gone: [],
                    containers: [],
                    containers_gone: [],
                    images: [],
                    images_gone: [],
                    flows: [
                        Flow {
                            id: 1,
                            key: Some(
                                FlowKey {
                                    process: Some(
                                        ProcessKey {
                                            pid: 20,
                                            start_time_boot_nanos: 90000000000,
                                        },
                                    ),
                                    cgroup_id: 7,
                                    container_id: "2299a2ca59dfd821f367e689d5869c4e568272c2305701761888e1d79d7a6f51",
                                    direction: Server,
                                    protocol: Tcp,
                                    client_address: [
                                        10,
                                        0,
                                        0,
                                        1,
                                    ],
                                    server_address: [
                                        253,
                                        0,
                                        0,
                                        0,
                                        0,
                                        0,
                                        0,
                                        0,
                                        0,
                                        0,
                                        0,
                                        0,
                                        0,
                                        0,
                                        0,
                                        2,
                                    ],
                                    server_port: 443,
                                    network_namespace: 3,
                                    original_server_address: [
                                        10,
                                        9,
                                        9,
                                        9,
                                    ],
                                    original_server_port: 80,
                                    origin: Event,
                                    sample_client_port: 5000,
                                },
                            ),
                            counters: Some(
                                FlowCounters {
                                    opened: 1,
                                    closed: 0,
                                    failed: 0,
                                    bytes_sent: 5,
                                    bytes_received: 0,
                                    retransmits: 0,
                                    rtt_us_sum: 0,
                                    rtt_count: 0,
                                    rtt_us_max: 0,
                                    applications: [],
                                },
                            ),
                            first_seen_unix_nanos: 995000000000,
                            last_active_unix_nanos: 995000000000,
                            translations: [],
                            others: 0,
                        },
                    ],
                    flows_gone: [],
                    capture: None,
                    losses: None,
                    host_metrics: [],
                    process_metrics: [],
                    container_metrics: [],
                    kubernetes: [],
                    kubernetes_gone: [],
                    listeners: [],
                    listeners_gone: [],
                    resolved_addresses: [],
                    resolved_addresses_gone: [],
                    unix_flows: [],
                    unix_flows_gone: [],
                },
            ]
        "#]],
    );
    assert!(builder.take_delta(now(), 10_000).is_empty(), "nothing is told twice");
}

#[test]
fn no_report_is_larger_than_it_may_be_and_nothing_is_left_out() {
    let mut builder = Builder::default();
    observe(&mut builder, (1..=500).map(started));
    let max = 2_000;
    let delta = builder.take_delta(now(), max);
    assert!(delta.len() > 5 && delta.iter().all(|it| it.encoded_len() <= max));
    assert_eq!(delta.iter().map(|it| it.processes.len()).sum::<usize>(), 500);

    let mut cursor = SnapshotCursor::default();
    let parts: Vec<v1::Report> = std::iter::from_fn(|| builder.next_part(&mut cursor, now(), max)).collect();
    assert!(parts.iter().all(|it| it.encoded_len() <= max));
    assert_eq!(parts.iter().map(|it| it.processes.len()).sum::<usize>(), 500);
    let kinds: Vec<Kind> = parts.iter().map(v1::Report::kind).collect();
    assert_eq!(kinds.iter().filter(|&&it| it == Kind::SnapshotEnd).count(), 1);
    assert_eq!(kinds.last(), Some(&Kind::SnapshotEnd));
}

#[test]
fn what_changes_while_a_snapshot_is_told_is_told_after_it() {
    let mut builder = Builder::default();
    observe(&mut builder, (1..=50).map(started));
    builder.drop_changes();
    let mut cursor = SnapshotCursor::default();
    builder.next_part(&mut cursor, now(), 1_000);
    observe(&mut builder, [Observation::ProcessExited { at: BootNanos(99 * SECOND), pid: 1, start_time: None, status: 0 }]);
    while builder.next_part(&mut cursor, now(), 1_000).is_some() {}
    let delta = builder.take_delta(now(), 10_000);
    assert_eq!(delta[0].processes.iter().map(|it| (it.key.unwrap().pid, it.exited_at_unix_nanos)).collect::<Vec<_>>(), [(1, 999 * SECOND)]);
}

#[test]
fn losses_are_those_below_and_those_of_the_tables() {
    let mut builder = Builder::default();
    let below = LossTotals { network_ring: 2, flow_table: 3, ends_seen: 10, ends_counted: 9, ..LossTotals::default() };
    observe(&mut builder, [Observation::Lost(below)]);
    builder.count_merged(4);
    assert!(builder.has_changes());
    let losses = builder.take_delta(now(), 10_000)[0].losses.clone().unwrap();
    assert_eq!(losses.ring_records.get("network"), Some(&2));
    assert_eq!((losses.flows_uncounted, losses.reports_merged, losses.ends_seen, losses.ends_reported), (3, 4, 10, 9));
    assert!(!builder.has_changes());
}

#[test]
fn losses_of_the_connector_and_of_the_programs_do_not_hide_each_other() {
    let mut builder = Builder::default();
    let programs = LossTotals { network_ring: 2, ends_seen: 10, ends_counted: 9, ..LossTotals::default() };
    let connector = LossTotals { netlink: 1, ..LossTotals::default() };
    for order in [[programs.clone(), connector.clone()], [connector, programs]] {
        observe(&mut builder, order.map(Observation::Lost));
        let losses = builder.losses();
        assert_eq!((losses.ring_records.get("network"), losses.ring_records.get("netlink"), losses.ends_seen), (Some(&2), Some(&1), 10));
    }
}

/// A connection of `end`'s client, meant for the address that a client's end has as its server's, which was translated to 10.1.0.`server`.
fn translated(end: &FlowEnd, client_port: u16, server: u8) -> Observation {
    Observation::Translated(Translated {
        id: client_port.into(),
        zone: 0,
        network_namespace: 1,
        protocol: end.protocol,
        client: (end.client_address.to_canonical(), client_port),
        server: (end.server_address, end.server_port),
        translated_client: ("192.0.2.1".parse().unwrap(), client_port),
        translated_server: (std::net::Ipv4Addr::new(10, 1, 0, server).into(), 8_080),
        perhaps_told: false,
    })
}

fn seen(end: FlowEnd) -> Observation {
    Observation::FlowSeen { at: BootNanos(95 * SECOND), end, client_port: 5_000, original_server: None, found_open: false }
}

fn counted(end: FlowEnd) -> Observation {
    let delta = Counted { opened: 1, ..Counted::default() };
    Observation::FlowCounted { last_active: BootNanos(96 * SECOND), end, delta }
}

/// Translations of the flows in the next delta: who says so, how many connections, and all addresses that are told.
fn ways(builder: &mut Builder) -> Vec<String> {
    let reports = builder.take_delta(now(), 10_000);
    let flows = reports.iter().flat_map(|it| &it.flows);
    let ways = flows.flat_map(|flow| flow.translations.iter().map(move |it| (flow, it)));
    ways.map(|(flow, it)| {
        let server = (&it.server_address, it.server_port, &it.client_address);
        let meant = (&it.original_client_address, &it.original_server_address, it.original_server_port);
        format!("flow {} {:?}: {} at {server:?} of {meant:?}", flow.id, it.source(), it.connections)
    })
    .collect()
}

#[test]
fn a_translation_is_told_with_a_new_flow_and_whenever_it_changes() {
    let end = FlowEnd { direction: Direction::Client, server_address: "10.96.0.10".parse().unwrap(), ..end(0) };
    let mut builder = Builder::default();
    observe(&mut builder, [translated(&end, 1, 1)]);
    assert!(!builder.has_changes(), "nobody's translation is nothing to tell");
    observe(&mut builder, [seen(end)]);
    assert_eq!(ways(&mut builder), ["flow 1 Conntrack: 1 at ([10, 1, 0, 1], 8080, [192, 0, 2, 1]) of ([], [], 0)"]);
    // Counters alone say nothing of it.
    observe(&mut builder, [counted(end)]);
    assert_eq!(ways(&mut builder), [""; 0]);
    // One more connection on a known way is a number, a new way is an event.
    observe(&mut builder, [translated(&end, 2, 1)]);
    assert!(builder.has_changes() && !builder.has_events());
    observe(&mut builder, [translated(&end, 3, 2)]);
    assert!(builder.has_events());
    let both = [
        "flow 1 Conntrack: 2 at ([10, 1, 0, 1], 8080, [192, 0, 2, 1]) of ([], [], 0)",
        "flow 1 Conntrack: 1 at ([10, 1, 0, 2], 8080, [192, 0, 2, 1]) of ([], [], 0)",
    ];
    assert_eq!(ways(&mut builder), both);
    assert!(!builder.has_changes());
    let snapshot = builder.next_part(&mut SnapshotCursor::default(), now(), 10_000).unwrap();
    assert_eq!(snapshot.flows[0].translations.len(), 2);
}

#[test]
fn a_server_s_flow_tells_what_the_client_s_flow_is() {
    let client = FlowEnd { direction: Direction::Client, server_address: "10.96.0.10".parse().unwrap(), ..end(0) };
    let server = FlowEnd {
        direction: Direction::Server,
        client_address: "192.0.2.1".parse().unwrap(),
        server_address: "10.1.0.1".parse().unwrap(),
        server_port: 8_080,
        ..client
    };
    let mut builder = Builder::default();
    observe(&mut builder, [seen(server), translated(&client, 1, 1)]);
    assert_eq!(
        ways(&mut builder),
        ["flow 1 Conntrack: 1 at ([10, 1, 0, 1], 8080, [192, 0, 2, 1]) of ([10, 0, 0, 1], [10, 96, 0, 10], 443)"]
    );
}

#[test]
fn a_socket_that_was_connected_elsewhere_tells_where() {
    let end = FlowEnd { direction: Direction::Client, server_address: "10.1.0.1".parse().unwrap(), ..end(0) };
    let elsewhere = Observation::FlowSeen {
        at: BootNanos(95 * SECOND),
        end,
        client_port: 5_000,
        original_server: Some(("10.96.0.10".parse().unwrap(), 80)),
        found_open: false,
    };
    let mut builder = Builder::default();
    observe(&mut builder, [elsewhere, counted(end)]);
    assert_eq!(ways(&mut builder), ["flow 1 Socket: 1 at ([10, 1, 0, 1], 443, []) of ([], [], 0)"]);
    // All its connections went there.
    observe(&mut builder, [counted(end)]);
    assert_eq!(ways(&mut builder), ["flow 1 Socket: 2 at ([10, 1, 0, 1], 443, []) of ([], [], 0)"]);
}

#[test]
fn summing_up_is_told_as_long_as_it_lasts() {
    let mut builder = Builder::default();
    let level = |builder: &mut Builder| {
        builder.tick(now());
        builder.take_delta(now(), 1 << 20).into_iter().find_map(|report| report.capture).map(|capture| capture.overload_level)
    };
    let to = |host: u32| FlowEnd {
        server_address: std::net::Ipv4Addr::from_bits(0x0a01_0000 + host).into(),
        direction: Direction::Client,
        ..end(7)
    };
    observe(&mut builder, (0..crate::flows::FLOWS_PER_HOLDER).map(|host| counted(to(host))));
    assert_eq!(level(&mut builder), None);
    observe(&mut builder, [counted(to(100_000))]);
    assert_eq!(level(&mut builder), Some(1));
    assert_eq!(level(&mut builder), None, "it is told once");
}

#[test]
fn losses_without_a_field_are_told_by_their_cause() {
    let mut builder = Builder::default();
    observe(
        &mut builder,
        [Observation::LostOther { cause: "conntrack", total: 2 }, Observation::LostOther { cause: "conntrack", total: 3 }],
    );
    assert_eq!(builder.losses().other, [("conntrack".to_owned(), 3)].into());
}
mod names;
mod unix;
