//! Any order of any inputs: what has to hold after every step holds, and a mended picture is a drawn one.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use topology::*;

use crate::searching;
use crate::world::*;

const HOSTS: [&str; 3] = ["a", "b", "c"];
const ADDRESSES: [&str; 5] = ["10.0.0.1", "10.0.0.2", "172.17.0.2", "93.184.216.34", "127.0.0.1"];

#[derive(Clone, Debug)]
enum Event {
    Connect { host: usize, session: u8, bridge: bool },
    Report { host: usize, report: Box<Report> },
    Cluster { objects: Vec<KubernetesObject>, gone: Vec<u8>, whole: bool },
    Disconnect { host: usize, goodbye: bool },
    Watch { view: usize, default_filter: bool },
    Unwatch { view: usize, default_filter: bool },
    Pass { millis: u64 },
    Search { words: usize },
}

fn a_process() -> impl Strategy<Value = Process> {
    (1_u32..6, 0_u64..3, 0_usize..3, prop::option::of(0_u8..3), any::<bool>()).prop_map(|(pid, start, name, container, exited)| Process {
        key: ProcessKey { pid, start_time: start },
        name: ["x", "y", ""][name].into(),
        container_id: container.map(|number| format!("c{number}").into()),
        exited_at: exited.then_some(base::Timestamp::from_unix_millis(1)),
        ..Process::default()
    })
}

fn a_container() -> impl Strategy<Value = Container> {
    (0_u8..3, 0_usize..3, any::<bool>(), prop::option::of(0_usize..5), any::<bool>()).prop_map(|(id, image, runs, held, publishes)| {
        let mut it = container(&format!("c{id}"), ["n1", "n2", "weave"][image], ["i1:1", "i2", ""][image]);
        it.state = if runs { ContainerState::Running } else { ContainerState::Exited };
        it.network_mode = if image == 1 { "host".into() } else { "bridge".into() };
        if image == 0 {
            let task = format!("t{}", id % 2);
            let ids = [("mesos.task_id", task.as_str()), ("mesos.framework_id", "f")];
            it.labels = ids.map(|(key, value)| (arc(key), arc(value))).into_iter().collect();
        }
        it.addresses = held.map(|index| address(ADDRESSES[index])).into_iter().collect();
        if publishes {
            it.ports = vec![PortMapping { container_port: 80, protocol: arc("tcp"), host: Some((address("0.0.0.0"), 80)) }];
        }
        it
    })
}

fn a_flow() -> impl Strategy<Value = Flow> {
    let owner = prop::option::of((1_u32..6, 0_u64..3));
    let ends = (0_usize..5, 0_usize..5, 0_u16..2);
    let counts = (0_u64..3, 0_u64..3, 0_u64..2);
    (1_u64..8, owner, any::<bool>(), ends, counts, prop::option::of(0_u8..3)).prop_map(
        |(id, owner, is_client, (from, to, port), (opened, closed, failed), container)| {
            let direction = if is_client { Direction::Client } else { Direction::Server };
            let mut flow = flow(id, None, direction, ADDRESSES[from], ADDRESSES[to], 80 + port);
            let key = flow.key.as_mut().unwrap();
            key.process = owner.map(|(pid, start_time)| ProcessKey { pid, start_time });
            key.container_id = container.map(|number| format!("c{number}").into());
            flow.counters = FlowCounters { opened, closed: closed.min(opened), failed, ..FlowCounters::default() };
            flow
        },
    )
}

/// A flow that may have been taken elsewhere, know where it was meant to go, or be a sum.
fn a_strange_flow() -> impl Strategy<Value = Flow> {
    let taken = vec((0_usize..5, 0_u16..2, prop::option::of(0_usize..5)), 0..3);
    (a_flow(), taken, prop::option::of((0_usize..5, 0_u16..2)), 0_u8..8).prop_map(|(mut flow, taken, meant, sum)| {
        for (server, port, client) in taken {
            flow = self::taken(flow, ADDRESSES[server], 80 + port, client.map(|index| ADDRESSES[index]));
        }
        let key = flow.key.as_mut().unwrap();
        key.original_server = meant.map(|(server, port)| (address(ADDRESSES[server]), 80 + port));
        if sum < 2 {
            flow.others = u64::from(sum);
            match key.direction {
                Direction::Client => key.server_address = address("0.0.0.0"),
                Direction::Server => key.client_address = address("0.0.0.0"),
            }
        }
        flow
    })
}

fn a_listener() -> impl Strategy<Value = Listener> {
    let places = ["0.0.0.0", "10.0.0.1", "172.17.0.2", "127.0.0.1"];
    (1_u64..4, prop::option::of((1_u32..6, 0_u64..3)), prop::option::of(0_u8..3), 0_usize..4, 0_u16..2).prop_map(
        move |(id, owner, container, place, port)| Listener {
            process: owner.map(|(pid, start_time)| ProcessKey { pid, start_time }),
            container_id: container.map(|number| format!("c{number}").into()),
            ..listener(id, 1, places[place], 80 + port)
        },
    )
}

fn a_name() -> impl Strategy<Value = ResolvedAddress> {
    let names = ["x.example", "a.amazonaws.com", "b.amazonaws.com", "c.googleapis.com"];
    (0_usize..5, vec(0_usize..4, 1..3)).prop_map(move |(place, chosen)| {
        let chosen: Vec<&str> = chosen.into_iter().map(|index| names[index]).collect();
        named(ADDRESSES[place], &chosen).resolved_addresses.remove(0)
    })
}

fn a_unix_flow() -> impl Strategy<Value = UnixFlow> {
    let end = || (1_u32..6, 0_u64..3).prop_map(|(pid, start_time)| ProcessKey { pid, start_time });
    (1_u64..4, end(), end()).prop_map(|(id, client, server)| UnixFlow { id, client, server, path: "/s".into(), open: 1 })
}

/// What a report says beyond processes, containers and plain flows.
fn more() -> impl Strategy<Value = Report> {
    let news = (vec(a_strange_flow(), 0..3), vec(a_listener(), 0..3), vec(a_name(), 0..3), vec(a_unix_flow(), 0..2));
    let gone = (vec(1_u64..4, 0..2), vec(0_usize..5, 0..2), vec(1_u64..4, 0..2));
    (news, gone).prop_map(|((flows, listeners, resolved_addresses, unix_flows), (listeners_gone, places, unix_flows_gone))| Report {
        flows,
        listeners,
        resolved_addresses,
        unix_flows,
        listeners_gone,
        resolved_addresses_gone: places.into_iter().map(|place| address(ADDRESSES[place])).collect(),
        unix_flows_gone,
        ..Report::default()
    })
}

fn a_report() -> impl Strategy<Value = Report> {
    let kind = prop_oneof![4 => Just(ReportKind::Delta), 1 => Just(ReportKind::SnapshotPart), 1 => Just(ReportKind::SnapshotEnd)];
    let gone = (vec((1_u32..6, 0_u64..3), 0..2), vec(0_u8..3, 0..2), vec(1_u64..8, 0..3));
    (kind, vec(a_process(), 0..4), vec(a_container(), 0..3), vec(a_flow(), 0..5), gone, any::<u8>(), more()).prop_map(
        |(kind, processes, containers, mut flows, (processes_gone, containers_gone, flows_gone), cpu, mut more)| {
            flows.append(&mut more.flows);
            let sample = |at| ProcessMetrics {
                key: ProcessKey { pid: 1, start_time: 0 },
                at: base::Timestamp::from_unix_millis(at),
                cpu_percent: f64::from(cpu),
                memory_bytes: 1,
                open_files: 1,
                open_files_limit: 0,
                thread_count: 1,
                ..ProcessMetrics::default()
            };
            Report {
                kind,
                processes,
                containers,
                flows,
                processes_gone: processes_gone.into_iter().map(|(pid, start_time)| ProcessKey { pid, start_time }).collect(),
                containers_gone: containers_gone.into_iter().map(|number| format!("c{number}").into()).collect(),
                flows_gone,
                process_metrics: vec![sample(u64::from(cpu))],
                ..more
            }
        },
    )
}

fn an_object() -> impl Strategy<Value = KubernetesObject> {
    use KubernetesKind::*;
    let kinds = [Pod, Service, Deployment, Job, PersistentVolume, PersistentVolumeClaim, StorageClass, Namespace];
    let links = (vec(0_u8..6, 0..3), vec(0_u8..6, 0..2), prop::option::of(0_u8..3), prop::option::of(0_usize..5), vec(0_u8..6, 0..3));
    (0_usize..8, 0_u8..6, any::<bool>(), links).prop_map(move |(kind, uid, failed, (parents, volumes, container, held, behind))| {
        let mut it = object(kinds[kind], &format!("o{uid}"), &[]);
        it.parents = parents.into_iter().map(|uid| format!("o{uid}").into()).collect();
        it.volume_names = volumes.into_iter().map(|uid| format!("o{uid}").into()).collect();
        it.container_ids = container.map(|number| format!("c{number}").into()).into_iter().collect();
        it.addresses = held.map(|index| address(ADDRESSES[index])).into_iter().collect();
        it.namespace = if kind < 4 || kind == 5 { "shop".into() } else { "".into() };
        it.storage_class = "o1".into();
        if failed {
            it.state = "Failed".into();
        }
        it.node_name = HOSTS[usize::from(uid) % HOSTS.len()].into();
        let endpoint = |uid: u8| Endpoint {
            address: address("172.17.0.2"),
            port: 80,
            protocol: "TCP".into(),
            ready: uid.is_multiple_of(2),
            target_uid: Some(format!("o{uid}").into()),
        };
        it.endpoints = behind.into_iter().map(endpoint).collect();
        it
    })
}

fn an_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => (0_usize..3, 1_u8..3, any::<bool>()).prop_map(|(host, session, bridge)| Event::Connect { host, session, bridge }),
        10 => (0_usize..3, a_report()).prop_map(|(host, report)| Event::Report { host, report: Box::new(report) }),
        3 => (vec(an_object(), 0..4), vec(0_u8..6, 0..2), any::<bool>())
            .prop_map(|(objects, gone, whole)| Event::Cluster { objects, gone, whole }),
        1 => (0_usize..3, any::<bool>()).prop_map(|(host, goodbye)| Event::Disconnect { host, goodbye }),
        2 => (0_usize..9, any::<bool>()).prop_map(|(view, default_filter)| Event::Watch { view, default_filter }),
        1 => (0_usize..9, any::<bool>()).prop_map(|(view, default_filter)| Event::Unwatch { view, default_filter }),
        4 => (1_u64..20_000).prop_map(|millis| Event::Pass { millis }),
        1 => (0_usize..WORDS.len()).prop_map(|words| Event::Search { words }),
    ]
}

const VIEWS: [View; 9] = [
    View::Processes,
    View::ProcessesByName,
    View::Containers,
    View::ContainersByHostname,
    View::ContainersByImage,
    View::Hosts,
    View::Pods,
    View::KubeControllers,
    View::Services,
];

const WORDS: [&str; 8] = [
    "n1",
    "a;",
    "NOT x AND hosts:[ab]",
    "pid > 2 OR image:i1",
    "^x$",
    "cpu >= 100",
    "amazonaws|googleapis AND NOT threads = 1",
    "[^x]+y? OR restart# = 0",
];

fn key_of(view: usize, default_filter: bool) -> ViewKey {
    ViewKey { view: VIEWS[view], filter: if default_filter { Filter::DEFAULT } else { Filter::NONE } }
}

fn happen(world: &mut World, event: Event) {
    match event {
        Event::Connect { host, session, bridge } => {
            if matches!(world.hello(HOSTS[host], HOSTS[host], &format!("s{session}")), Effect::Admitted { .. }) {
                let own = ["10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/24"][host];
                let networks = if bridge { vec![own, "172.17.0.1/16"] } else { vec![own] };
                let record = Host {
                    addresses: networks.iter().map(|it| address(it.split('/').next().unwrap())).collect(),
                    local_networks: networks.iter().map(|it| network(it)).collect(),
                    ..Host::default()
                };
                world.report(HOSTS[host], Report { kind: ReportKind::SnapshotPart, host: Some(record), ..Report::default() });
            }
        }
        Event::Report { host, report } => {
            if world.is_connected(HOSTS[host]) {
                world.report(HOSTS[host], *report);
            }
        }
        Event::Cluster { objects, gone, whole } => {
            if whole || !world.is_connected("cluster") {
                world.connect_cluster("cluster", "k", objects);
            } else {
                let kubernetes_gone = gone.into_iter().map(|uid| format!("o{uid}").into()).collect();
                world.report("cluster", Report { kubernetes: objects, kubernetes_gone, ..Report::default() });
            }
        }
        Event::Disconnect { host, goodbye } => {
            if world.is_connected(HOSTS[host]) {
                world.disconnect(HOSTS[host], if goodbye { StreamEnd::Goodbye } else { StreamEnd::Lost });
            }
        }
        Event::Watch { view, default_filter } => {
            world.step(Input::Watch(key_of(view, default_filter)));
        }
        Event::Unwatch { view, default_filter } => {
            world.step(Input::Unwatch(key_of(view, default_filter)));
        }
        Event::Search { words } => {
            let found = searching::found(world, WORDS[words]);
            assert_eq!(found, searching::looked_through(world, WORDS[words]), "{}", WORDS[words]);
        }
        Event::Pass { millis } => {
            world.pass(Duration::from_millis(millis));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_step_keeps_what_has_to_hold_and_everything_leaves_in_the_end(events in vec(an_event(), 1..60)) {
        let mut world = World::new();
        for event in events {
            happen(&mut world, event);
        }
        for host in ["cluster"].into_iter().chain(HOSTS) {
            if world.is_connected(host) {
                world.disconnect(host, StreamEnd::Lost);
            }
        }
        world.pass(WINDOW);
        world.pass(Duration::from_secs(61));
        for view in VIEWS {
            prop_assert_eq!(world.snapshot(view, Filter::NONE).nodes.len(), 0);
        }
        prop_assert_eq!(world.map.flows(&FlowQuery { limit: 10, ..FlowQuery::default() }), FlowPage::default());
        prop_assert_eq!(world.map.probes(), vec![]);
    }

    #[test]
    fn the_same_inputs_give_the_same_effects(events in vec(an_event(), 1..40)) {
        let run = || {
            let mut world = World::new();
            events.iter().cloned().for_each(|event| happen(&mut world, event));
            let effects: Vec<String> = world.effects.iter().map(|effect| format!("{effect:?}")).collect();
            effects
        };
        prop_assert_eq!(run(), run());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Each step checks every picture that has nothing left to draw against a fresh one.
    #[test]
    fn what_is_drawn_a_piece_at_a_time_ends_as_what_is_drawn_at_once(events in vec(an_event(), 1..40)) {
        let mut world = World::with(Config { drawn_at_once: 1, ..config() });
        for view in VIEWS {
            world.snapshot(view, Filter::NONE);
        }
        for event in events {
            happen(&mut world, event);
            world.now = world.now + config().publish_interval;
            let mut steps = 0;
            while world.map.next_deadline().is_some_and(|at| at <= world.now) {
                world.step(Input::Tick);
                steps += 1;
                prop_assert!(steps < 500, "what is due is never done");
            }
        }
    }
}
