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
    const SECOND: u64 = 1_000_000_000;
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
