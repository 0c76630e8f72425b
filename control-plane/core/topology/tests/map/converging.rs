//! Random worlds with address translation: whatever the order of the reports, the map shows in the end who is really connected.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;
use topology::*;

use crate::world::*;

const HOSTS: [&str; 3] = ["a", "b", "c"];
const PROCESSES: u32 = 3;

/// How a client comes to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Direct,
    /// Through a virtual address, which the client's host takes elsewhere; the server sees the client.
    Taken,
    /// The same, and the server sees the client's host.
    Masked,
    /// The client's socket was connected elsewhere than it asked for.
    Socket,
    /// Through a port of the server's host, which takes it on; the server's end knows that.
    Published,
}

/// A process of a host; each has an address of its own, as in a pod.
type Who = (usize, u32);

#[derive(Clone, Copy, Debug)]
struct Connection {
    client: Who,
    server: Who,
    way: Way,
    /// Which virtual address.
    service: u8,
}

fn a_connection() -> impl Strategy<Value = Connection> {
    let who = || (0..HOSTS.len(), 1..=PROCESSES);
    let way = prop_oneof![Just(Way::Direct), Just(Way::Taken), Just(Way::Masked), Just(Way::Socket), Just(Way::Published)];
    (who(), who(), way, 0_u8..2).prop_map(|(client, server, way, service)| Connection { client, server, way, service })
}

fn address_of((host, pid): Who) -> String {
    format!("10.{}.0.{pid}", host + 1)
}

fn host_address(host: usize) -> String {
    format!("192.168.0.{}", host + 1)
}

/// Virtual addresses look like the Internet's, so that a client whose flow is not joined has an edge that it must not keep.
fn virtual_address(service: u8) -> String {
    format!("203.0.113.{}", service + 1)
}

/// What the probes tell of the connections: the first record of each flow, and after it perhaps a second one with translations.
#[derive(Clone, Debug)]
struct Told {
    host: usize,
    first: Flow,
    second: Option<Flow>,
}

/// As a probe groups connections: host, process, whether it is the client, addresses and port, and where the client meant to go.
type Key = (usize, u32, bool, String, String, u16, Option<String>);
/// Where a client was taken, and as whom.
type Place = (String, u16, Option<String>);

fn told(connections: &[Connection]) -> Vec<Told> {
    let mut flows: BTreeMap<Key, Vec<Place>> = BTreeMap::new();
    for it in connections {
        let (own, there) = (address_of(it.client), address_of(it.server));
        let port = 8_000 + u16::try_from(it.server.1).unwrap();
        let outside = 30_000 + port;
        let (meant, meant_port, original, translation, seen) = match it.way {
            Way::Direct => (there.clone(), port, None, None, own.clone()),
            Way::Taken => (virtual_address(it.service), 80, None, Some((there.clone(), port, None)), own.clone()),
            Way::Masked => {
                let mask = host_address(it.client.0);
                (virtual_address(it.service), 81, None, Some((there.clone(), port, Some(mask.clone()))), mask)
            }
            Way::Socket => (there.clone(), port, Some(virtual_address(it.service)), None, own.clone()),
            Way::Published => (host_address(it.server.0), outside, None, None, own.clone()),
        };
        let client = flows.entry((it.client.0, it.client.1, true, own, meant, meant_port, original)).or_default();
        client.extend(translation.filter(|it| !client.contains(it)));
        let known = (it.way == Way::Published).then(|| host_address(it.server.0));
        flows.entry((it.server.0, it.server.1, false, seen, there, port, known)).or_default();
    }
    let mut told = Vec::new();
    for (number, ((host, pid, is_client, client_address, server_address, port, original), taken_to)) in (1_u64..).zip(flows) {
        let direction = if is_client { Direction::Client } else { Direction::Server };
        let mut first = flow(number, Some(pid), direction, &client_address, &server_address, port);
        let original_port = if is_client { 80 } else { 30_000 + port };
        first.key.as_mut().unwrap().original_server = original.map(|it| (address(&it), original_port));
        let second = (!taken_to.is_empty()).then(|| {
            let update = Flow { key: None, ..first.clone() };
            taken_to.iter().fold(update, |flow, (server, port, client)| taken(flow, server, *port, client.as_deref()))
        });
        told.push(Told { host, first, second });
    }
    told
}

/// A world in which all hosts are known and nothing is connected.
fn quiet() -> World {
    let mut world = World::new();
    for (number, host) in HOSTS.into_iter().enumerate() {
        // The processes' own addresses are in no network of the hosts: an end that is not joined leads to the Internet, and shows.
        world.connect(host, &[&format!("{}/24", host_address(number))]);
        world.report(host, processes((1..=PROCESSES).map(|pid| process(pid, "app")).collect()));
    }
    world
}

fn edges(world: &mut World) -> BTreeSet<(String, String)> {
    let snapshot = world.snapshot(View::Processes, Filter::NONE);
    let edges = snapshot.nodes.iter().flat_map(|(id, node)| {
        let targets = node.summary().adjacency.iter();
        targets.map(move |target| (id.to_string(), target.to_string()))
    });
    edges.collect()
}

fn id((host, pid): Who) -> String {
    format!("{};{pid}", HOSTS[host])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_order_of_reports_ends_with_the_truth(
        (connections, order) in vec(a_connection(), 1..8).prop_flat_map(|connections| {
            let told = told(&connections);
            // Each flow twice: where its number comes the second time, the second record is sent, if it has one.
            let turns: Vec<usize> = (0..told.len()).chain(0..told.len()).collect();
            (Just(connections), Just(turns).prop_shuffle())
        }),
        at_once in any::<bool>(),
    ) {
        let told = told(&connections);
        let mut world = quiet();
        let mut begun = BTreeSet::new();
        for number in order {
            let Told { host, first, second } = &told[number];
            let record = match (begun.insert(number), second) {
                // A snapshot has both in one record.
                (true, Some(second)) if at_once => Flow { key: first.key.clone(), ..second.clone() },
                (true, _) => first.clone(),
                (false, Some(second)) => second.clone(),
                (false, None) => continue,
            };
            world.report(HOSTS[*host], flows(vec![record]));
        }
        let truth: BTreeSet<(String, String)> = connections.iter().map(|it| (id(it.client), id(it.server))).collect();
        prop_assert_eq!(edges(&mut world), truth);

        // And when everything has ended, nothing is left behind.
        for (number, Told { host, .. }) in (1_u64..).zip(&told) {
            world.report(HOSTS[*host], Report { flows_gone: vec![number], ..Report::default() });
        }
        world.pass(WINDOW);
        prop_assert_eq!(edges(&mut world), BTreeSet::new());
    }
}
