use std::fmt::Write as _;

use expect_test::{Expect, expect};

use super::*;

const SECOND: u64 = 1_000_000_000;
const HOST: u64 = 1;
const CONTAINER: u64 = 4_026;

fn address(text: &str) -> (IpAddr, u16) {
    let address: std::net::SocketAddr = text.parse().unwrap();
    (address.ip(), address.port())
}

/// A connection from `client`, meant for `server`, which arrives at `translated` as one of the same client.
fn connection(client: &str, server: &str, translated: &str) -> Translated {
    let client = address(client);
    Translated {
        id: client.1.into(),
        zone: 0,
        network_namespace: HOST,
        protocol: Protocol::Tcp,
        client,
        server: address(server),
        translated_client: client,
        translated_server: address(translated),
        perhaps_told: false,
    }
}

fn end(direction: Direction, client: &str, server: &str) -> FlowEnd {
    let (server_address, server_port) = address(server);
    FlowEnd {
        pid: 7,
        start_time: None,
        cgroup_id: 0,
        network_namespace: CONTAINER,
        direction,
        protocol: Protocol::Tcp,
        client_address: client.parse().unwrap(),
        server_address,
        server_port,
    }
}

const VIP: &str = "10.96.0.10:80";

fn client() -> FlowEnd {
    end(Direction::Client, "10.0.0.1", VIP)
}

fn shown(ways: &[Way]) -> String {
    let mut shown = String::new();
    for Way { client, server: (server, port), connections } in ways {
        writeln!(shown, "{connections} of {client} to {}", std::net::SocketAddr::new(*server, *port)).unwrap();
    }
    shown
}

#[track_caller]
fn check(table: &TranslationTable, end: &FlowEnd, expected: Expect) {
    expected.assert_eq(&shown(table.ways(end)));
}

/// The table with connections to two servers in turn, and a flow of the client that came after `before` of them.
fn balanced(before: u16, connections: u16) -> TranslationTable {
    let mut table = TranslationTable::default();
    for number in 0..connections {
        if number == before {
            table.flow_came(1, &client());
        }
        let server = if number % 2 == 0 { "10.1.0.1:8080" } else { "10.1.0.2:8080" };
        table.translated(&connection(&format!("10.0.0.1:{}", 40_000 + number), VIP, server));
    }
    table
}

#[test]
fn the_flow_and_its_translations_meet_whichever_comes_first() {
    for before in 0..5 {
        check(
            &balanced(before, 5),
            &client(),
            expect![[r#"
                3 of 10.0.0.1 to 10.1.0.1:8080
                2 of 10.0.0.1 to 10.1.0.2:8080
            "#]],
        );
    }
}

#[test]
fn only_what_came_after_the_flow_has_to_be_told_again() {
    let mut table = balanced(3, 3);
    table.flow_came(1, &client());
    assert!(!table.has_changes() && !table.has_new(), "a flow that comes is told with all its ways");
    // Another connection on a known way is a count; on a new one, an event.
    table.translated(&connection("10.0.0.1:50000", VIP, "10.1.0.1:8080"));
    assert!(table.has_changes() && !table.has_new());
    assert_eq!(table.take_changes(), [1]);
    table.translated(&connection("10.0.0.1:50001", VIP, "10.1.0.9:8080"));
    assert!(table.has_changes() && table.has_new());
    // The second process with the same addresses has the same ways.
    table.flow_came(2, &FlowEnd { pid: 8, ..client() });
    assert_eq!(table.take_changes(), [1, 2]);
    assert!(!table.has_changes() && !table.has_new());
    // What concerns no flow is nothing to tell.
    table.translated(&connection("10.0.0.2:50001", VIP, "10.1.0.9:8080"));
    assert!(!table.has_changes() && !table.has_new());
}

#[test]
fn the_server_s_flow_knows_what_the_client_meant() {
    let mut table = TranslationTable::default();
    // Masqueraded and translated: the server sees the node.
    let masqueraded = Translated { translated_client: address("192.0.2.1:6000"), ..connection("10.0.0.1:5000", VIP, "10.1.0.1:8080") };
    table.translated(&masqueraded);
    let other = Translated { translated_client: address("192.0.2.1:6001"), ..connection("10.0.0.2:5000", VIP, "10.1.0.1:8080") };
    table.translated(&other);
    let server = end(Direction::Server, "192.0.2.1", "10.1.0.1:8080");
    table.flow_came(1, &server);
    table.flow_came(2, &client());
    check(
        &table,
        &server,
        expect![[r#"
            1 of 10.0.0.1 to 10.96.0.10:80
            1 of 10.0.0.2 to 10.96.0.10:80
        "#]],
    );
    check(&table, &client(), expect![["1 of 192.0.2.1 to 10.1.0.1:8080\n"]]);
    // The node's own connections to the server are not the containers'.
    check(&table, &end(Direction::Client, "192.0.2.1", "10.1.0.1:8080"), expect![[""]]);
}

#[test]
fn a_client_s_port_that_was_changed_is_no_translation() {
    let mut table = TranslationTable::default();
    table.translated(&Translated { translated_client: address("10.0.0.1:6000"), ..connection("10.0.0.1:5000", VIP, VIP) });
    assert!(table.is_empty());
}

#[test]
fn a_mapped_address_is_its_ipv4_address() {
    let mut table = balanced(9, 2);
    let mapped =
        FlowEnd { client_address: "::ffff:10.0.0.1".parse().unwrap(), server_address: "::ffff:10.96.0.10".parse().unwrap(), ..client() };
    table.flow_came(1, &mapped);
    assert_eq!(table.ways(&mapped).len(), 2);
}

#[test]
fn loopback_addresses_are_those_of_the_namespace_that_translates() {
    let mut table = TranslationTable::default();
    table.translated(&connection("127.0.0.1:5000", "127.0.0.1:80", "10.1.0.1:8080"));
    let inside = end(Direction::Client, "127.0.0.1", "127.0.0.1:80");
    let host = FlowEnd { network_namespace: HOST, ..inside };
    table.flow_came(1, &inside);
    table.flow_came(2, &host);
    assert!(table.ways(&inside).is_empty());
    assert_eq!(table.ways(&host).len(), 1);
}

#[test]
fn a_connection_that_is_found_again_is_not_counted_again() {
    let mut table = TranslationTable::default();
    table.flow_came(1, &client());
    let first = connection("10.0.0.1:5000", VIP, "10.1.0.1:8080");
    let found = Translated { perhaps_told: true, ..first };
    // Found at start, told by an event that was on its way, and found by every look after that.
    [found, found, found].iter().for_each(|it| table.translated(it));
    check(&table, &client(), expect![["1 of 10.0.0.1 to 10.1.0.1:8080\n"]]);
    // An event that nobody looked beside is a new connection: its port, and even its number, are used again.
    table.translated(&first);
    check(&table, &client(), expect![["2 of 10.0.0.1 to 10.1.0.1:8080\n"]]);
    // Another number, zone or protocol is another connection.
    table.translated(&Translated { id: 1, ..found });
    table.translated(&Translated { zone: 1, ..found });
    table.translated(&Translated { protocol: Protocol::Udp, ..found });
    check(&table, &client(), expect![["4 of 10.0.0.1 to 10.1.0.1:8080\n"]]);
    // So is what goes elsewhere from the same port, under the same number.
    table.translated(&Translated { translated_server: address("10.1.0.2:8080"), ..found });
    check(&table, &client(), expect![["4 of 10.0.0.1 to 10.1.0.1:8080\n1 of 10.0.0.1 to 10.1.0.2:8080\n"]]);
}

#[test]
fn a_translation_waits_two_generations_for_its_flow_and_no_longer() {
    // At worst it came at the very end of its generation: here the first tick of the clock ends that.
    for (seconds, waits) in [(60, true), (115, true), (120, false)] {
        let mut table = balanced(9, 2);
        (0..=seconds).step_by(5).for_each(|second| table.retire(BootNanos((1_000 + second) * SECOND)));
        table.flow_came(1, &client());
        assert_eq!(!table.ways(&client()).is_empty(), waits, "after {seconds} s");
        assert_eq!(table.evicted(), 0);
    }
}

#[test]
fn ways_live_as_long_as_the_last_flow_that_has_them() {
    let mut table = balanced(0, 2);
    let second = FlowEnd { pid: 8, ..client() };
    table.flow_came(2, &second);
    table.flow_left(1, &client());
    (0..100).for_each(|minute| table.retire(BootNanos(minute * 60 * SECOND)));
    assert_eq!(table.ways(&second).len(), 2);
    table.flow_left(2, &second);
    assert!(table.is_empty() && !table.has_changes());
    assert_eq!(table.take_changes(), [0_u64; 0]);
}

#[test]
fn a_udp_socket_that_sends_again_after_a_pause_finds_its_way_again() {
    let udp = FlowEnd { protocol: Protocol::Udp, ..client() };
    let mut table = TranslationTable::default();
    table.flow_came(1, &udp);
    table.translated(&Translated { protocol: Protocol::Udp, ..connection("10.0.0.1:5000", VIP, "10.1.0.1:8080") });
    table.flow_left(1, &udp);
    table.retire(BootNanos(100 * SECOND));
    table.retire(BootNanos(200 * SECOND));
    table.flow_came(2, &udp);
    check(&table, &udp, expect![["1 of 10.0.0.1 to 10.1.0.1:8080\n"]]);
}

#[test]
fn the_sixty_fifth_way_is_counted_in_the_last() {
    let mut table = TranslationTable::default();
    table.flow_came(1, &client());
    for number in 0..200_u16 {
        table.translated(&connection(&format!("10.0.0.1:{}", 1_000 + number), VIP, &format!("10.1.0.{number}:8080")));
    }
    let ways = table.ways(&client());
    assert_eq!(ways.len(), WAYS_MAX);
    assert_eq!(ways.iter().map(|way| way.connections).sum::<u64>(), 200);
    assert_eq!(ways.last().map(|way| way.connections), Some(137));
}

#[test]
fn a_flood_of_translations_without_flows_is_bounded_and_counted_and_those_of_flows_stay() {
    let mut table = balanced(0, 2);
    for number in 0..100_000_u32 {
        let client = std::net::Ipv4Addr::from(0x0b00_0000 + number);
        table.translated(&connection(&format!("{client}:5000"), VIP, "10.1.0.1:8080"));
    }
    assert!(table.len() <= WAITING_MAX + 1 && table.len() > WAITING_MAX / 2, "{}", table.len());
    assert_eq!(table.evicted() + table.len() as u64, 200_000 + 3);
    assert!(table.counted.iter().map(HashSet::len).sum::<usize>() <= WAITING_MAX);
    assert_eq!(table.ways(&client()).len(), 2);
    // The newest still waits.
    let last = end(Direction::Client, "11.1.134.159", VIP);
    table.flow_came(2, &last);
    assert_eq!(table.ways(&last).len(), 1);
}
