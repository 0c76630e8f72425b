//! Names, as they are told.

use super::*;

fn resolved(at: u64, name: &str, addresses: &[&str]) -> Observation {
    let addresses = addresses.iter().map(|address| (address.parse().unwrap(), 60)).collect();
    Observation::NameResolved { at: BootNanos(at * SECOND), name: name.to_owned(), addresses }
}

fn later(seconds: u64) -> Now {
    Now { boot: BootNanos(seconds * SECOND), unix_nanos: (900 + seconds) * SECOND }
}

fn told(reports: &[v1::Report]) -> Vec<(Vec<u8>, Vec<String>)> {
    let addresses = reports.iter().flat_map(|report| &report.resolved_addresses);
    addresses.map(|it| (it.address.clone(), it.names.iter().map(|name| name.name.clone()).collect())).collect()
}

#[test]
fn a_name_is_told_with_its_times_and_leaves_when_it_has_run_out() {
    let mut builder = Builder::default();
    observe(&mut builder, [resolved(95, "a.example", &["203.0.113.1", "2001:db8::1"]), resolved(96, "b.example", &["203.0.113.1"])]);
    assert!(builder.has_changes() && !builder.has_events(), "a name is worth a report, not a hurry");
    let delta = builder.take_delta(now(), 10_000);
    let six = "2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets().to_vec();
    assert_eq!(
        told(&delta),
        [(vec![203, 0, 113, 1], vec!["b.example".to_owned(), "a.example".to_owned()]), (six.clone(), vec!["a.example".to_owned()]),]
    );
    let name = &delta[0].resolved_addresses[0].names[1];
    assert_eq!((name.resolved_at_unix_nanos, name.expires_at_unix_nanos), (995 * SECOND, 1_055 * SECOND));
    assert!(!builder.has_changes());
    builder.tick(later(161));
    let delta = builder.take_delta(later(161), 10_000);
    assert_eq!(delta[0].resolved_addresses_gone, [vec![203, 0, 113, 1], six]);
    assert!(builder.names().is_empty());
}

#[test]
fn a_name_stays_while_a_flow_uses_its_address() {
    let mut builder = Builder::default();
    let used = FlowEnd { direction: Direction::Client, server_address: "203.0.113.1".parse().unwrap(), ..end(20) };
    let at = BootNanos(96 * SECOND);
    observe(
        &mut builder,
        [
            resolved(95, "used.example", &["::ffff:203.0.113.1"]),
            resolved(95, "unused.example", &["203.0.113.2"]),
            Observation::FlowCounted { last_active: at, end: used, delta: Counted { opened: 1, ..Counted::default() } },
        ],
    );
    builder.tick(later(1_000));
    assert_eq!(builder.names().len(), 1);
    observe(&mut builder, [Observation::FlowCounted { last_active: at, end: used, delta: Counted { closed: 1, ..Counted::default() } }]);
    builder.tick(later(1_020));
    assert_eq!(builder.names().len(), 1, "it was in use a moment ago");
    builder.tick(later(1_040));
    assert!(builder.names().is_empty());
}

#[test]
fn a_snapshot_tells_every_name_once() {
    let mut builder = Builder::default();
    let addresses: Vec<String> = (0..1_000).map(|number| format!("198.18.{}.{}", number / 256, number % 256)).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    observe(&mut builder, addresses.chunks(10).map(|some| resolved(95, "a.example", some)));
    builder.drop_changes();
    let max = 2_000;
    let mut cursor = SnapshotCursor::default();
    let parts: Vec<v1::Report> = std::iter::from_fn(|| builder.next_part(&mut cursor, now(), max)).collect();
    assert!(parts.len() > 10 && parts.iter().all(|it| it.encoded_len() <= max));
    let told = told(&parts);
    assert_eq!((told.len(), told.iter().map(|(address, _)| address).collect::<BTreeSet<_>>().len()), (1_000, 1_000));
    assert!(!builder.has_changes());
    // What was told by a snapshot is taken back.
    builder.tick(later(200));
    let gone: usize = builder.take_delta(later(200), max).iter().map(|it| it.resolved_addresses_gone.len()).sum();
    assert_eq!(gone, 1_000);
}

#[test]
fn losses_of_names_are_told_by_their_cause() {
    let mut builder = Builder::default();
    observe(&mut builder, [Observation::NamesCounted(NameCounts { messages: 9, unasked: 2, ..NameCounts::default() })]);
    assert!(builder.losses().other.is_empty(), "what is not believed is not lost");
    observe(&mut builder, [Observation::NamesCounted(NameCounts { ring_lost: 3, attachments_evicted: 4, ..NameCounts::default() })]);
    let losses = builder.take_delta(now(), 10_000)[0].losses.clone().unwrap();
    let mut other: Vec<_> = losses.other.into_iter().collect();
    other.sort();
    assert_eq!(other, [("dns_attachments".to_owned(), 4), ("dns_ring".to_owned(), 3)]);
}
