use std::net::{Ipv4Addr, Ipv6Addr};

use expect_test::{Expect, expect};

use super::*;

fn bytes_of<T: aya::Pod>(value: &T) -> Vec<u8> {
    // SAFETY: plain data without padding, as its `Pod` implementation promises.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), size_of::<T>()) }.to_vec()
}

fn key() -> EdgeKey {
    EdgeKey {
        client: Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().octets(),
        server: Ipv4Addr::new(10, 0, 0, 2).to_ipv6_mapped().octets(),
        cgroup_id: 42,
        netns: 3,
        start_ns: 12_345_678_901,
        tgid: 7,
        server_port: 443,
        protocol: PROTOCOL_TCP,
        direction: direction::CLIENT,
    }
}

fn edge_record(kind: u32) -> EdgeRecord {
    EdgeRecord {
        header: RecordHeader { at_ns: 5, kind, length: 168 },
        key: key(),
        value: EdgeValue { opened: 1, bytes_sent: 9, ..EdgeValue::default() },
        original_server: [0; 16],
        client_port: 50_000,
        original_port: 0,
        reserved: 0,
    }
}

#[track_caller]
fn check(bytes: &[u8], expected: Expect) {
    let mut out = Vec::new();
    record(bytes, &mut out);
    expected.assert_eq(&out.iter().map(|observation| format!("{observation:?}\n")).collect::<String>());
}

#[test]
fn a_new_edge_is_a_flow_seen_with_its_counters_to_come() {
    check(
        &bytes_of(&edge_record(kind::EDGE_SEEN)),
        expect![[r#"
            FlowSeen { at: BootNanos(5), end: FlowEnd { pid: 7, start_time: Some(BootNanos(12340000000)), cgroup_id: 42, network_namespace: 3, direction: Client, protocol: Tcp, client_address: 10.0.0.1, server_address: 10.0.0.2, server_port: 443 }, client_port: 50000, original_server: None, found_open: false }
        "#]],
    );
}

#[test]
fn an_edge_that_found_no_room_brings_its_counters_itself() {
    check(
        &bytes_of(&edge_record(kind::EDGE_OVERFLOW)),
        expect![[r#"
            FlowSeen { at: BootNanos(5), end: FlowEnd { pid: 7, start_time: Some(BootNanos(12340000000)), cgroup_id: 42, network_namespace: 3, direction: Client, protocol: Tcp, client_address: 10.0.0.1, server_address: 10.0.0.2, server_port: 443 }, client_port: 50000, original_server: None, found_open: false }
            FlowCounted { last_active: BootNanos(5), end: FlowEnd { pid: 7, start_time: Some(BootNanos(12340000000)), cgroup_id: 42, network_namespace: 3, direction: Client, protocol: Tcp, client_address: 10.0.0.1, server_address: 10.0.0.2, server_port: 443 }, delta: Counted { opened: 1, closed: 0, failed: 0, bytes_sent: 9, bytes_received: 0, retransmits: 0, rtt_us_sum: 0, rtt_count: 0, rtt_us_max: 0 } }
        "#]],
    );
}

#[test]
fn a_translated_destination_is_told() {
    let record = EdgeRecord {
        original_server: Ipv6Addr::LOCALHOST.octets(),
        original_port: 80,
        key: EdgeKey { direction: direction::SERVER, start_ns: 0, server: Ipv6Addr::LOCALHOST.octets(), ..key() },
        ..edge_record(kind::EDGE_FOUND)
    };
    check(
        &bytes_of(&record),
        expect![[r#"
            FlowSeen { at: BootNanos(5), end: FlowEnd { pid: 7, start_time: None, cgroup_id: 42, network_namespace: 3, direction: Server, protocol: Tcp, client_address: 10.0.0.1, server_address: ::1, server_port: 443 }, client_port: 50000, original_server: Some((::1, 80)), found_open: true }
        "#]],
    );
}

#[test]
fn processes_and_cgroups_have_their_names_without_the_padding() {
    let process = |kind| ProcessRecord {
        header: RecordHeader { at_ns: 9, kind, length: 64 },
        start_ns: 20_000_001,
        cgroup_id: 1,
        tgid: 100,
        parent_tgid: 1,
        user_id: 1_000,
        status: 256,
        comm: *b"sh\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    };
    let mut path = [b'?'; CgroupRecord::PATH_CAPACITY];
    path[..5].copy_from_slice(b"/a/b\0");
    let cgroup =
        |kind, path_length| CgroupRecord { header: RecordHeader { at_ns: 9, kind, length: 512 }, id: 77, tgid: 100, path_length, path };
    check(
        &bytes_of(&process(kind::FORK)),
        expect![[r#"
            ProcessStarted(ProcessStarted { at: BootNanos(9), pid: 100, parent_pid: 1, start_time: Some(BootNanos(20000000)), comm: "sh", cgroup_id: 1, user_id: 1000 })
        "#]],
    );
    check(
        &bytes_of(&process(kind::EXEC)),
        expect![[r#"
            ProcessExecuted { at: BootNanos(9), pid: 100, start_time: Some(BootNanos(20000000)), comm: "sh", cgroup_id: 1, user_id: 1000 }
        "#]],
    );
    check(
        &bytes_of(&process(kind::EXIT)),
        expect![[r#"
            ProcessExited { at: BootNanos(9), pid: 100, start_time: Some(BootNanos(20000000)), status: 256 }
        "#]],
    );
    check(
        &bytes_of(&cgroup(kind::CGROUP_CREATE, 4)),
        expect![[r#"
            CgroupCreated { at: BootNanos(9), id: 77, path: "/a/b" }
        "#]],
    );
    check(
        &bytes_of(&cgroup(kind::CGROUP_REMOVE, 4)),
        expect![[r#"
            CgroupRemoved { at: BootNanos(9), id: 77 }
        "#]],
    );
    check(
        &bytes_of(&cgroup(kind::CGROUP_ATTACH, 4)),
        expect![[r#"
            CgroupAttached { at: BootNanos(9), pid: 100, cgroup_id: 77, path: "/a/b" }
        "#]],
    );
}

#[test]
fn listeners_and_kills_for_want_of_memory_are_told() {
    let listener = |kind| ListenerRecord {
        header: RecordHeader { at_ns: 9, kind, length: 72 },
        cookie: 11,
        cgroup_id: 42,
        netns: 3,
        start_ns: 20_000_001,
        address: Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().octets(),
        tgid: 7,
        port: 53,
        protocol: PROTOCOL_UDP,
        reserved: 0,
    };
    check(
        &bytes_of(&listener(kind::LISTENER_OPENED)),
        expect![[r#"
            ListenerOpened(ListenerOpened { at: BootNanos(9), socket: 11, pid: 7, start_time: Some(BootNanos(20000000)), cgroup_id: 42, network_namespace: 3, protocol: Udp, address: 0.0.0.0, port: 53 })
        "#]],
    );
    check(
        &bytes_of(&listener(kind::LISTENER_CLOSED)),
        expect![[r#"
            ListenerClosed { at: BootNanos(9), socket: 11 }
        "#]],
    );
    let killed = ProcessRecord {
        header: RecordHeader { at_ns: 9, kind: kind::OOM_KILL, length: 64 },
        start_ns: 0,
        cgroup_id: 0,
        tgid: 100,
        parent_tgid: 0,
        user_id: 0,
        status: 0,
        comm: [0; 16],
    };
    check(
        &bytes_of(&killed),
        expect![[r#"
            OomKilled { at: BootNanos(9), pid: 100, start_time: None }
        "#]],
    );
}

#[test]
fn a_talk_that_found_no_room_is_opened_and_closed_at_once() {
    let record = EdgeRecord {
        key: EdgeKey { protocol: PROTOCOL_UDP, client: [0; 16], ..key() },
        value: EdgeValue { tick: 5, ..EdgeValue::default() },
        ..edge_record(kind::EDGE_OVERFLOW)
    };
    let mut out = Vec::new();
    super::record(&bytes_of(&record), &mut out);
    let [Observation::FlowSeen { end, .. }, Observation::FlowCounted { delta, .. }] = &out[..] else { panic!("{out:?}") };
    assert_eq!((delta.opened, delta.closed), (1, 1));
    // Not known, but known to be IPv4.
    assert_eq!(end.client_address, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
}

#[test]
fn what_is_no_record_is_nothing() {
    check(&[], expect![""]);
    check(&[1; 15], expect![""]);
    check(&bytes_of(&RecordHeader { at_ns: 1, kind: 99, length: 16 }), expect![""]);
    let cut = bytes_of(&edge_record(kind::EDGE_SEEN));
    check(&cut[..cut.len() - 1], expect![""]);
    let mut long = Vec::new();
    let path = CgroupRecord {
        header: RecordHeader { at_ns: 1, kind: kind::CGROUP_CREATE, length: 512 },
        id: 1,
        tgid: 0,
        path_length: u32::MAX,
        path: [b'a'; CgroupRecord::PATH_CAPACITY],
    };
    record(&bytes_of(&path), &mut long);
    assert!(matches!(&long[..], [Observation::CgroupCreated { path, .. }] if path.len() == CgroupRecord::PATH_CAPACITY));
}

#[test]
fn growth_goes_on_over_the_wrap_of_a_total() {
    let before = EdgeValue { opened: u32::MAX, bytes_sent: u64::MAX - 1, ..EdgeValue::default() };
    let after = EdgeValue { opened: 1, bytes_sent: 3, ..EdgeValue::default() };
    let delta = growth(&before, &after);
    assert_eq!((delta.opened, delta.bytes_sent, delta.closed), (2, 5, 0));
}
