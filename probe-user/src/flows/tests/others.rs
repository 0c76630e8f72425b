use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::flows::others::SUMMED_MAX;

fn to(pid: u32, host: u32, port: u16) -> FlowEnd {
    FlowEnd { server_address: Ipv4Addr::from_bits(0x0a01_0000 + host).into(), ..end(pid, port) }
}

fn count(flows: &mut FlowTable, ms: u64, end: FlowEnd, delta: Counted) -> Seen {
    flows.counted(at(ms), end, delta, &ProcessTable::default(), None)
}

fn closed(closed: u64) -> Counted {
    Counted { closed, ..Counted::default() }
}

fn sums(flows: &FlowTable) -> Vec<(u16, u64, u64, u64)> {
    let sums = flows.after(0).filter(|(_, flow)| flow.others > 0);
    sums.map(|(_, flow)| (flow.end.server_port, flow.others, flow.total.opened, flow.total.closed)).collect()
}

#[test]
fn one_who_talks_to_everybody_is_summed_up_and_leaves_room_for_the_rest() {
    let mut flows = FlowTable::default();
    for host in 0..FLOWS_PER_HOLDER + 1_000 {
        count(&mut flows, 0, to(7, host, 443), open(1));
    }
    assert_eq!(sums(&flows), [(443, 1_000, 1_000, 0)]);
    assert_eq!((flows.len(), flows.summed(), flows.refused()), (FLOWS_PER_HOLDER as usize + 1, 1_000, 0));
    // What was summed up is ended in the sum, and whoever else comes has flows of its own.
    count(&mut flows, 1, to(7, FLOWS_PER_HOLDER + 5, 443), closed(1));
    assert_eq!(sums(&flows), [(443, 1_000, 1_000, 1)]);
    count(&mut flows, 1, to(8, 1, 443), open(1));
    assert!(flows.get_end(&to(8, 1, 443)).is_some_and(|flow| flow.others == 0));
}

#[test]
fn a_scan_of_ports_is_a_few_sums() {
    let mut flows = FlowTable::default();
    for host in 0..FLOWS_PER_HOLDER {
        count(&mut flows, 0, to(7, host, 443), open(1));
    }
    for port in 1_000..2_000 {
        count(&mut flows, 0, to(7, 1, port), Counted { failed: 1, ..Counted::default() });
    }
    let sums = sums(&flows);
    assert_eq!(sums.len(), 17);
    assert_eq!(sums.iter().map(|sum| sum.1).sum::<u64>(), 1_000);
    assert!(sums.iter().any(|sum| sum.0 == 0 && sum.1 == 984), "the rest has one without a port: {sums:?}");
}

#[test]
fn a_server_of_very_many_clients_has_one_sum() {
    let mut flows = FlowTable::default();
    for client in 0..FLOWS_PER_HOLDER + 3 {
        let end = FlowEnd { direction: Direction::Server, client_address: Ipv4Addr::from_bits(0x0a02_0000 + client).into(), ..end(9, 80) };
        count(&mut flows, 0, end, open(2));
    }
    assert_eq!(sums(&flows), [(80, 3, 6, 0)]);
}

#[test]
fn a_sum_leaves_when_all_of_it_has_ended_and_its_ends_may_come_back_as_themselves() {
    let mut flows = FlowTable::default();
    for host in 0..=FLOWS_PER_HOLDER {
        count(&mut flows, 0, to(7, host, 443), open(1));
    }
    for host in 0..=FLOWS_PER_HOLDER {
        count(&mut flows, 1, to(7, host, 443), closed(1));
    }
    flows.retire(at(60_000));
    assert_eq!((flows.len(), flows.summed()), (0, 0));
    count(&mut flows, 61_000, to(7, FLOWS_PER_HOLDER, 443), open(1));
    assert_eq!((flows.len(), sums(&flows).len()), (1, 0));
}

#[test]
fn what_finds_no_room_even_in_a_sum_is_refused_and_counted() {
    let mut flows = FlowTable::default();
    let most = FLOWS_PER_HOLDER + u32::try_from(SUMMED_MAX).unwrap();
    for host in 0..most {
        count(&mut flows, 0, to(7, host, 443), open(1));
    }
    assert_eq!((flows.refused(), flows.refused_ends()), (0, 0));
    assert_eq!(count(&mut flows, 0, to(7, most, 443), open(3)), Seen::Refused);
    assert_eq!((flows.refused(), flows.refused_ends()), (1, 3));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whoever talks to whom in whatever order: every connection is in a flow, opened and closed alike.
    #[test]
    fn nothing_is_lost_but_addresses(seeds in prop::collection::vec((0_u32..4, 0_u32..6_000, 1_u16..40, any::<bool>()), 1..20_000)) {
        let mut flows = FlowTable::default();
        let mut opened = Vec::new();
        for (index, (pid, host, port, ends)) in seeds.into_iter().enumerate() {
            let end = to(pid + 1, host, port);
            count(&mut flows, index as u64, end, open(1));
            opened.push(end);
            if ends {
                let ended = opened.swap_remove(index / 2 % opened.len());
                count(&mut flows, index as u64, ended, closed(1));
            }
        }
        let total = |of: fn(&Flow) -> u64| flows.after(0).map(|(_, flow)| of(flow)).sum::<u64>();
        prop_assert_eq!(total(|flow| flow.total.opened - flow.total.closed), opened.len() as u64);
        prop_assert_eq!(flows.refused(), 0);
        prop_assert!(flows.after(0).all(|(_, flow)| flow.total.opened >= flow.total.closed));
    }
}
