use proptest::prelude::*;

use super::*;

fn key(tgid: u32, start_ns: u64) -> EdgeKey {
    EdgeKey { tgid, start_ns, protocol: probe_common::PROTOCOL_TCP, ..EdgeKey::ZERO }
}

fn delta(observation: Option<Observation>) -> Option<Counted> {
    match observation {
        Some(Observation::FlowCounted { delta, .. }) => Some(delta),
        _ => None,
    }
}

fn value(opened: u32, closed: u32, last_ns: u64) -> EdgeValue {
    EdgeValue { opened, closed, last_ns, ..EdgeValue::default() }
}

#[test]
fn only_what_is_new_is_delivered() {
    let mut delivered = Delivered::new(std::convert::identity);
    assert_eq!(delta(delivered.read(0, &key(1, 0), &value(2, 1, 5))).map(|it| (it.opened, it.closed)), Some((2, 1)));
    assert_eq!(delta(delivered.read(0, &key(1, 0), &value(2, 1, 5))), None);
    assert_eq!(delta(delivered.read(0, &key(1, 0), &value(3, 3, 6))).map(|it| (it.opened, it.closed)), Some((1, 2)));
    assert_eq!(delivered.opened(), 3);
}

#[test]
fn a_pid_that_is_used_again_is_another_edge() {
    let mut delivered = Delivered::new(std::convert::identity);
    delivered.read(0, &key(1, 10), &value(5, 5, 5));
    assert_eq!(delta(delivered.read(0, &key(1, 20), &value(1, 0, 6))).map(|it| it.opened), Some(1));
}

#[test]
fn a_total_that_shrank_by_a_byte_is_delivered_once_it_has_grown_past() {
    let mut delivered = Delivered::new(std::convert::identity);
    let bytes = |bytes_sent| EdgeValue { bytes_sent, ..EdgeValue::default() };
    assert_eq!(delta(delivered.read(0, &key(1, 0), &bytes(11))).map(|it| it.bytes_sent), Some(11));
    assert_eq!(delta(delivered.read(0, &key(1, 0), &bytes(10))), None);
    assert_eq!(delta(delivered.read(0, &key(1, 0), &bytes(15))).map(|it| it.bytes_sent), Some(4));
}

#[test]
fn an_edge_that_left_and_came_back_begins_anew() {
    let mut delivered = Delivered::new(std::convert::identity);
    delivered.read(0, &key(1, 0), &value(5, 5, 5));
    delivered.forget(0, &key(1, 0));
    assert_eq!(delta(delivered.read(0, &key(1, 0), &value(1, 0, 9))).map(|it| it.opened), Some(1));
}

#[test]
fn idle_edges_leave_and_those_with_open_connections_stay_until_room_is_short() {
    let mut delivered = Delivered::new(std::convert::identity);
    delivered.read(0, &key(1, 0), &value(1, 1, 0));
    delivered.read(0, &key(2, 0), &value(2, 1, 0));
    delivered.read(0, &key(3, 0), &value(1, 1, 99 * SECOND));
    // Its opening was delivered before it left and came back for its end.
    delivered.read(0, &key(4, 0), &value(0, 1, 0));
    let idle = |now, capacity, limit| {
        let mut pids: Vec<_> = delivered.idle(now, capacity, limit).iter().map(|key| key.tgid).collect();
        pids.sort_unstable();
        pids
    };
    assert_eq!(idle(9 * SECOND, 100, 10), [0_u32; 0]);
    assert_eq!(idle(11 * SECOND, 100, 10), [1, 4]);
    assert_eq!(idle(11 * SECOND, 100, 1).len(), 1);
    assert_eq!(idle(3 * SECOND, 7, 10), [1, 4]);
    assert_eq!(idle(SECOND, 5, 10), [1, 2, 4]);
    assert_eq!(idle(99 * SECOND + 1, 5, 10), [1, 2, 4]);
}

const SECOND: u64 = 1_000_000_000;

fn udp(tgid: u32) -> EdgeKey {
    EdgeKey { tgid, protocol: PROTOCOL_UDP, client: [1; 16], server: [2; 16], ..EdgeKey::ZERO }
}

fn counts(observation: Option<Observation>) -> Option<(u64, u64)> {
    delta(observation).map(|it| (it.opened, it.closed))
}

fn tick(tick: u32) -> EdgeValue {
    EdgeValue { tick, ..EdgeValue::default() }
}

#[test]
fn a_talk_is_opened_by_its_first_datagram_and_closed_by_silence() {
    let mut delivered = Delivered::new(std::convert::identity);
    assert_eq!(counts(delivered.read(SECOND, &udp(1), &tick(5))), Some((1, 0)));
    assert_eq!(counts(delivered.read(2 * SECOND, &udp(1), &tick(6))), None);
    assert!(delivered.talks_to_look_at(6 * SECOND, 9).is_empty());
    assert_eq!(delivered.talks_to_look_at(7 * SECOND, 9), [udp(1)]);
    // It went on: told again, with nothing new but that.
    assert_eq!(counts(delivered.read(7 * SECOND, &udp(1), &tick(9))), Some((0, 0)));
    assert_eq!(counts(delivered.read(12 * SECOND, &udp(1), &tick(9))), None);
    assert!(delivered.idle(16 * SECOND, 100, 9).is_empty());
    assert_eq!(counts(delivered.read(17 * SECOND, &udp(1), &tick(9))), Some((0, 1)));
    assert_eq!(delivered.idle(17 * SECOND, 100, 9), [udp(1)]);
    // Another datagram before the entry leaves: it leaves with the end of that talk.
    assert_eq!(counts(delivered.read(17 * SECOND, &udp(1), &tick(20))), Some((1, 0)));
    assert_eq!(counts(delivered.forget(17 * SECOND, &udp(1))), Some((0, 1)));
    assert_eq!(counts(delivered.forget(17 * SECOND, &udp(1))), None);
    assert_eq!(delivered.opened(), 0, "the completeness is that of TCP");
}

#[test]
fn a_connected_socket_is_told_when_it_has_lasted() {
    let mut delivered = Delivered::new(std::convert::identity);
    let ms = |ms: u64| ms * 1_000_000;
    assert_eq!(counts(delivered.read(ms(10), &udp(1), &value(1, 0, ms(1)))), None);
    assert!(delivered.take_postponed());
    // It was a look-up: the kernel took it back.
    assert_eq!(counts(delivered.read(ms(110), &udp(1), &value(0, 0, ms(11)))), None);
    assert!(!delivered.take_postponed());
    assert_eq!(counts(delivered.read(ms(210), &udp(1), &value(1, 0, ms(120)))), Some((1, 0)));
    assert!(delivered.idle(60 * SECOND, 100, 9).is_empty());
    assert_eq!(counts(delivered.read(ms(310), &udp(1), &value(1, 1, ms(220)))), Some((0, 1)));
    // Opened and ended between two readings: told together.
    assert_eq!(counts(delivered.read(ms(400), &udp(1), &value(2, 2, ms(320)))), Some((1, 1)));
}

/// Idle entries are removed right after a reading: one that was read too early to be told would be gone with what is to be told of it.
#[test]
fn a_connected_socket_that_is_still_to_be_told_does_not_leave() {
    let ms = |ms: u64| ms * 1_000_000;
    let nameless = EdgeKey { client: [0; 16], ..udp(1) };
    for (key, told_after) in [(udp(1), 51), (nameless, 401)] {
        // In a table with room, and in one without.
        for capacity in [100, 1] {
            let mut delivered = Delivered::new(std::convert::identity);
            for after in [10, told_after - 2] {
                let now = SECOND + ms(after);
                assert_eq!(counts(delivered.read(now, &key, &value(1, 0, SECOND))), None);
                assert!(delivered.idle(now, capacity, 9).is_empty() && delivered.take_postponed(), "{key:?} after {after} ms");
            }
            assert_eq!(counts(delivered.read(SECOND + ms(told_after), &key, &value(1, 0, SECOND))), Some((1, 0)));
        }
    }
}

/// The search for its namespace has to wait for its turn: the address comes a little later.
#[test]
fn a_connected_socket_is_told_with_its_address() {
    let known = std::cell::Cell::new(false);
    let own: std::net::IpAddr = "10.0.0.1".parse().unwrap();
    let mut delivered = Delivered::new(|end: FlowEnd| if known.get() { FlowEnd { client_address: own, ..end } } else { end });
    let key = EdgeKey { client: [0; 16], ..udp(1) };
    assert_eq!(counts(delivered.read(SECOND + 100_000_000, &key, &value(1, 0, SECOND))), None);
    known.set(true);
    let told = delivered.read(SECOND + 200_000_000, &key, &value(1, 0, SECOND));
    assert!(matches!(told, Some(Observation::FlowCounted { end, .. }) if end.client_address == own), "{told:?}");
}

#[test]
fn a_look_up_that_was_told_ends_when_it_is_taken_back() {
    let mut delivered = Delivered::new(std::convert::identity);
    assert_eq!(counts(delivered.read(SECOND, &udp(1), &value(3, 1, 0))), Some((3, 1)));
    assert_eq!(counts(delivered.read(SECOND, &udp(1), &value(2, 1, 0))), Some((0, 1)));
    // The totals go on from there.
    assert_eq!(counts(delivered.read(SECOND, &udp(1), &value(3, 3, 0))), Some((1, 2)));
}

#[test]
fn a_full_table_lets_go_of_talks_that_were_not_heard_lately() {
    let mut delivered = Delivered::new(std::convert::identity);
    for pid in 1..=4 {
        delivered.read(SECOND, &udp(pid), &tick(5));
    }
    delivered.read(9 * SECOND, &udp(4), &tick(9));
    let mut idle: Vec<u32> = delivered.idle(9 * SECOND, 5, 9).iter().map(|key| key.tgid).collect();
    idle.sort_unstable();
    assert_eq!(idle, [1, 2, 3]);
    assert_eq!(counts(delivered.forget(9 * SECOND, &udp(1))), Some((0, 1)));
}

#[test]
fn talks_leave_early_when_their_share_is_nearly_full_and_connections_stay() {
    let mut delivered = Delivered::new(std::convert::identity);
    for pid in 1..=4 {
        delivered.read(SECOND, &udp(pid), &tick(5));
    }
    delivered.read(SECOND, &key(9, 0), &value(1, 0, SECOND));
    assert_eq!(delivered.talks(), 4);
    assert!(!delivered.is_pressed(12) && delivered.is_pressed(10));
    assert!(delivered.idle(6 * SECOND, 12, 9).is_empty());
    let mut idle: Vec<u32> = delivered.idle(6 * SECOND, 10, 9).iter().map(|key| key.tgid).collect();
    idle.sort_unstable();
    assert_eq!(idle, [1, 2, 3, 4]);
}

proptest! {
    #[test]
    fn deliveries_add_up_to_the_totals(steps in prop::collection::vec((0_u32..4, 0_u32..5, 0_u64..1_000, any::<bool>()), 1..200)) {
        let mut delivered = Delivered::new(std::convert::identity);
        let mut kernel = std::collections::HashMap::<u32, EdgeValue>::new();
        let (mut truth, mut told) = ([(0_u64, 0_u64); 4], [(0_u64, 0_u64); 4]);
        for (edge, opened, bytes, leaves) in steps {
            let value = kernel.entry(edge).or_default();
            value.opened += opened;
            value.bytes_sent += bytes;
            truth[edge as usize].0 += u64::from(opened);
            truth[edge as usize].1 += bytes;
            if let Some(delta) = delta(delivered.read(0, &key(edge, 0), value)) {
                told[edge as usize].0 += delta.opened;
                told[edge as usize].1 += delta.bytes_sent;
            }
            if leaves {
                kernel.remove(&edge);
                delivered.forget(0, &key(edge, 0));
            }
        }
        prop_assert_eq!(truth, told);
        prop_assert_eq!(delivered.opened(), truth.iter().map(|it| it.0).sum::<u64>());
    }
}
