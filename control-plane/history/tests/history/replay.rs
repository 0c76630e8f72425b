//! Whatever happened: a moment played back shows what the live map showed.

use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use topology::*;

use crate::world::*;

const HOSTS: [&str; 3] = ["a", "b", "c"];
const ADDRESSES: [&str; 4] = ["10.0.0.1", "10.0.0.2", "172.17.0.2", "93.184.216.34"];

#[derive(Clone, Debug)]
enum Happening {
    Connect { host: usize },
    Report { host: usize, report: Box<Report> },
    Cluster { objects: Vec<KubernetesObject>, gone: Vec<u8> },
    Disconnect { host: usize, goodbye: bool },
    Pass { millis: u64 },
}

/// Names of addresses are left out: which of two hosts' names an address gets depends on whose connection came first.
fn a_report() -> impl Strategy<Value = Report> {
    let kind = prop_oneof![5 => Just(ReportKind::Delta), 1 => Just(ReportKind::SnapshotPart), 1 => Just(ReportKind::SnapshotEnd)];
    // One process for each pid, and no flow outlives its process: who held a pid before is only told by flows, for as long as they last.
    let processes = (1_u32..7, 0_usize..3, prop::option::of(0_u8..3)).prop_map(|(pid, name, container)| Process {
        container_id: container.map(|number| format!("c{number}").into()),
        ..process(pid, 1, ["x", "y", "z"][name])
    });
    let containers = (0_u8..3, 0_usize..3, prop::option::of(0_usize..4)).prop_map(|(id, name, held)| Container {
        addresses: held.map(|index| address(ADDRESSES[index])).into_iter().collect(),
        ..container(&format!("c{id}"), ["n1", "n2", "n3"][name])
    });
    // A probe gives a number to one flow alone.
    let flows = (1_u64..14, (1_u64..9, 0_u64..5, 0_u64..3)).prop_map(|(id, (opened, closed, others))| {
        let owner = u32::try_from(id % 5).ok().filter(|pid| *pid > 0).map(|pid| ProcessKey { pid, start_time: 1 });
        let place = |number: u64| ADDRESSES[usize::try_from(number % 4).unwrap()];
        let mut flow = flow(id, owner, id % 2 == 0, place(id), place(id / 3), 80 + u16::try_from(id % 2).unwrap());
        flow.counters = FlowCounters { opened, closed: closed.min(opened), bytes_sent: opened << 40, ..FlowCounters::default() };
        flow.last_active = Timestamp::from_unix_millis(BEGIN + opened);
        flow.others = u64::from(others == 0 && id == 9) * 7;
        flow
    });
    let listeners = (1_u64..4, 1_u32..5, 80_u16..82).prop_map(|(id, pid, port)| Listener {
        id,
        process: Some(ProcessKey { pid, start_time: 1 }),
        cgroup_id: 0,
        container_id: None,
        protocol: Protocol::Tcp,
        address: address("0.0.0.0"),
        port,
        network_namespace: 0,
    });
    let unix = (1_u64..3, 1_u32..5, 1_u32..5).prop_map(|(id, client, server)| UnixFlow {
        id,
        client: ProcessKey { pid: client, start_time: 1 },
        server: ProcessKey { pid: server, start_time: 1 },
        path: "/s".into(),
        open: 1,
    });
    let gone = (vec(5_u32..7, 0..2), vec(0_u8..3, 0..2), vec(1_u64..14, 0..5), vec(1_u64..4, 0..2));
    let records = (vec(processes, 0..4), vec(containers, 0..3), vec(flows, 0..5), vec(listeners, 0..2), vec(unix, 0..2));
    (kind, records, gone).prop_map(|(kind, (processes, containers, flows, listeners, unix_flows), gone)| Report {
        kind,
        processes,
        containers,
        flows,
        listeners,
        unix_flows,
        processes_gone: gone.0.into_iter().map(|pid| ProcessKey { pid, start_time: 1 }).collect(),
        containers_gone: gone.1.into_iter().map(|number| format!("c{number}").into()).collect(),
        flows_gone: gone.2,
        listeners_gone: gone.3.clone(),
        unix_flows_gone: gone.3,
        ..Report::default()
    })
}

fn an_object() -> impl Strategy<Value = KubernetesObject> {
    use KubernetesKind::*;
    (0_usize..4, 0_u8..5, vec(0_u8..5, 0..3), any::<bool>()).prop_map(|(kind, uid, parents, holds)| KubernetesObject {
        kind: [Pod, Service, Deployment, PersistentVolume][kind],
        uid: format!("o{uid}").into(),
        name: format!("o{uid}").into(),
        namespace: "shop".into(),
        parents: parents.into_iter().map(|uid| format!("o{uid}").into()).collect(),
        container_ids: holds.then(|| format!("ac{uid}").into()).into_iter().collect(),
        state: "Running".into(),
        ..KubernetesObject::default()
    })
}

fn a_happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        2 => (0_usize..3).prop_map(|host| Happening::Connect { host }),
        10 => (0_usize..3, a_report()).prop_map(|(host, report)| Happening::Report { host, report: Box::new(report) }),
        2 => (vec(an_object(), 0..4), vec(0_u8..5, 0..2)).prop_map(|(objects, gone)| Happening::Cluster { objects, gone }),
        1 => (0_usize..3, any::<bool>()).prop_map(|(host, goodbye)| Happening::Disconnect { host, goodbye }),
        4 => (1_u64..40_000).prop_map(|millis| Happening::Pass { millis }),
    ]
}

/// A container is on one host.
fn on_host(host: &str, mut report: Report) -> Report {
    let id = |id: &Arc<str>| -> Arc<str> { format!("{host}{id}").into() };
    for it in &mut report.containers {
        // An address is held by one, too: of several holders the map asks the first that it met.
        let holds = host == "a" && &*it.id == "c2" && !it.addresses.is_empty();
        it.addresses = holds.then(|| address(ADDRESSES[2])).into_iter().collect();
        it.id = id(&it.id);
    }
    report.containers_gone.iter_mut().for_each(|it| *it = id(it));
    if report.kind != ReportKind::Delta {
        let named: Vec<u32> = report.processes.iter().map(|it| it.key.pid).collect();
        report.processes.extend((1..5).filter(|pid| !named.contains(pid)).map(|pid| process(pid, 1, "x")));
    }
    report.processes.iter_mut().for_each(|it| it.container_id = it.container_id.as_ref().map(id));
    report
}

fn happen(world: &mut World, happening: Happening) {
    match happening {
        Happening::Connect { host } => {
            let host = HOSTS[host];
            if world.hello(host, "s1", false) {
                let own = ["10.0.0.1", "10.0.0.2", "10.0.0.3"][HOSTS.iter().position(|it| *it == host).unwrap()];
                let record = Host {
                    addresses: vec![address(own)],
                    local_networks: vec![Network { address: address(own), prefix_length: 24 }],
                    ..Host::default()
                };
                world.report(host, Report { kind: ReportKind::SnapshotPart, host: Some(record), ..Report::default() });
            }
        }
        Happening::Report { host, report } => {
            if world.is_connected(HOSTS[host]) {
                world.report(HOSTS[host], on_host(HOSTS[host], *report));
            }
        }
        Happening::Cluster { objects, gone } => {
            if world.is_connected("cluster") {
                let kubernetes_gone = gone.into_iter().map(|uid| format!("o{uid}").into()).collect();
                world.report("cluster", Report { kubernetes: objects, kubernetes_gone, ..Report::default() });
            } else if world.hello("cluster", "s1", true) {
                world.report("cluster", Report { kind: ReportKind::SnapshotEnd, kubernetes: objects, ..Report::default() });
            }
        }
        Happening::Disconnect { host, goodbye } => {
            if world.is_connected(HOSTS[host]) {
                world.disconnect(HOSTS[host], if goodbye { StreamEnd::Goodbye } else { StreamEnd::Lost });
            }
        }
        Happening::Pass { millis } => world.pass(Duration::from_millis(millis)),
    }
}

/// Lines that only one of two pictures has.
fn differing(live: &str, past: &str) -> String {
    let only = |one: &str, other: &str, sign: &str| {
        let lines = one.lines().filter(|line| !other.lines().any(|it| it == *line));
        lines.map(|line| format!("{sign} {line}\n")).collect::<String>()
    };
    only(live, past, "live") + &only(past, live, "past")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_moment_played_back_shows_what_the_live_map_showed(happenings in vec(a_happening(), 1..50)) {
        let directory = tempfile::tempdir().unwrap();
        let mut world = World::new(settings(directory.path()));
        let mut shown = Vec::new();
        for happening in happenings {
            world.pass(Duration::from_millis(100));
            happen(&mut world, happening);
            if let Some(ended) = world.tend().ended {
                // Half of them.
                if shown.len() % 2 == 0 {
                    history::compact_file(&ended).unwrap();
                    world.store.compacted(&ended);
                }
            }
            shown.push((world.now, world.live_picture()));
        }
        // Each by itself.
        for (at, expected) in &shown {
            let mut player = world.player(*at);
            prop_assert_eq!(differing(expected, &past_picture(&mut player)), "", "at {:?}", at);
        }
        // One after the other.
        let mut player = world.player(shown[0].0);
        for (at, expected) in &shown {
            player.forward(*at).unwrap();
            prop_assert_eq!(differing(expected, &past_picture(&mut player)), "", "forward to {:?}", at);
        }
    }
}
