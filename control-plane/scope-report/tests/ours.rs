//! What our own probes report, in Scope's words.

#![expect(clippy::unwrap_used, reason = "all of this is a test: a surprise ends it")]

use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use scope_report::{Kind, Ours, Report, Time, translate};
use topology::{
    Capture, Config, Container, ContainerState, Direction, Effect, Filter, Flow, FlowKey, FlowQuery, Host, Image, Input, KubernetesKind,
    KubernetesObject, Limits, Listener, Origin, PortMapping, ProbeHello, Process, ProcessKey, Protocol, ReportKind, Topology, View,
    ViewKey,
};

/// A map on which a probe has told of something.
struct World {
    map: Topology,
    now: Timestamp,
}

impl World {
    fn new() -> Self {
        let limit = 100;
        let limits = Limits {
            probes: limit,
            processes: limit,
            containers: limit,
            flows: limit,
            objects: limit,
            listeners: limit,
            names: limit,
            unix_flows: limit,
            externals: limit,
        };
        let config = Config {
            window: Duration::from_secs(15),
            publish_interval: Duration::from_millis(50),
            picture_linger: Duration::from_secs(60),
            picture_nodes: 400_000,
            drawn_at_once: 500,
            limits,
        };
        World { map: Topology::new(config), now: Timestamp::from_unix_millis(1_700_000_000_000) }
    }

    fn tell(&mut self, probe: &str, cluster: Option<&str>, controls: &[&str], report: topology::Report) {
        let hello = ProbeHello {
            host_name: "a".into(),
            version: "1".into(),
            session: "s".into(),
            oldest_held_sequence: 0,
            capture: Capture::default(),
            cluster_name: cluster.map(Arc::from),
            controls: controls.iter().map(|&id| Arc::from(id)).collect(),
        };
        let mut effects = Vec::new();
        self.map.step(self.now, Input::Hello { probe: probe.into(), hello }, &mut effects);
        let stream = effects.iter().find_map(|effect| match effect {
            Effect::Admitted { stream, .. } => Some(*stream),
            _ => None,
        });
        let report = topology::Report { sequence: 1, kind: ReportKind::SnapshotEnd, ..report };
        let input = Input::Report { probe: probe.into(), stream: stream.unwrap(), report: Box::new(report) };
        self.map.step(self.now, input, &mut effects);
    }

    fn host(&self) -> Report {
        let flows = self.map.flows(&FlowQuery { host: Some("a".into()), limit: 100, ..FlowQuery::default() }).flows;
        translate(&Ours::Host(&self.map.export_host("a").unwrap(), &flows), Time::from(self.now))
    }
}

fn container(id: &str, state: ContainerState) -> Container {
    Container { id: id.into(), name: id.into(), state, runtime: "docker".into(), ..Container::default() }
}

#[test]
fn what_can_be_done_is_told_with_the_nodes_and_for_their_kind() {
    let mut world = World::new();
    let containers = vec![container("runs", ContainerState::Running), container("rests", ContainerState::Paused)];
    let report = topology::Report { containers, host: Some(Host::default()), ..topology::Report::default() };
    let able = ["docker_stop_container", "docker_pause_container", "docker_unpause_container", "docker_start_container", "host_exec"];
    world.tell("p1", None, &able, report);
    let report = world.host();
    let table = report.table(Kind::Container);
    let known: Vec<&str> = table.controls.keys().map(|id| &**id).collect();
    assert_eq!(known, ["docker_pause_container", "docker_start_container", "docker_stop_container", "docker_unpause_container"]);
    let stop = &table.controls["docker_stop_container"];
    assert_eq!((&*stop.human, &*stop.icon, stop.rank, &*stop.probe_id), ("Stop", "fa fa-stop", 7, ""));
    let active = |kind: Kind, id: &str| report.table(kind).nodes[id].value("active_controls").map(ToString::to_string);
    assert_eq!(active(Kind::Container, "runs;<container>").as_deref(), Some("docker_pause_container;docker_stop_container"));
    assert_eq!(active(Kind::Container, "rests;<container>").as_deref(), Some("docker_unpause_container"));
    assert_eq!(active(Kind::Host, "a;<host>").as_deref(), Some("host_exec"));
    assert!(report.table(Kind::Host).controls.contains_key("host_exec"));
}

#[test]
fn what_can_be_done_with_objects_is_done_by_the_collector_of_their_cluster() {
    let mut world = World::new();
    world.tell("p1", None, &["host_exec"], topology::Report { host: Some(Host::default()), ..topology::Report::default() });
    let object = |kind, uid: &str| KubernetesObject { kind, uid: uid.into(), name: uid.into(), ..KubernetesObject::default() };
    let kubernetes = vec![object(KubernetesKind::Pod, "pod"), object(KubernetesKind::Node, "a")];
    let able = ["kubernetes_get_logs", "kubernetes_delete_pod", "kubernetes_cordon_node"];
    world.tell("collector", Some("c1"), &able, topology::Report { kubernetes, ..topology::Report::default() });
    let report = translate(&Ours::Objects(&world.map.export_objects()), Time::from(world.now));
    let pod = &report.table(Kind::Pod).nodes["pod;<pod>"];
    assert_eq!(pod.value("active_controls").map(|it| &**it), Some("kubernetes_get_logs;kubernetes_delete_pod"));
    assert_eq!(pod.value("control_probe_id").map(|it| &**it), Some("collector"));
    assert_eq!(&*report.table(Kind::Pod).controls["kubernetes_get_logs"].human, "Get logs");
    // A node is on the map as its host, which another probe tells of.
    let host = world.host();
    let cordon = &host.table(Kind::Host).controls["kubernetes_cordon_node"];
    assert_eq!(&*cordon.probe_id, "collector");
}

#[test]
fn what_the_map_shows_of_objects_is_shown_from_the_report_alike() {
    const KINDS: [(KubernetesKind, Kind, View, &str); 10] = [
        (KubernetesKind::Pod, Kind::Pod, View::Pods, "pod"),
        (KubernetesKind::Service, Kind::Service, View::Services, "service"),
        (KubernetesKind::Deployment, Kind::Deployment, View::KubeControllers, "deployment"),
        (KubernetesKind::DaemonSet, Kind::DaemonSet, View::KubeControllers, "daemonset"),
        (KubernetesKind::StatefulSet, Kind::StatefulSet, View::KubeControllers, "statefulset"),
        (KubernetesKind::CronJob, Kind::CronJob, View::KubeControllers, "cronjob"),
        (KubernetesKind::Job, Kind::Job, View::KubeControllers, "job"),
        (KubernetesKind::PersistentVolume, Kind::PersistentVolume, View::Pods, "persistent_volume"),
        (KubernetesKind::PersistentVolumeClaim, Kind::PersistentVolumeClaim, View::Pods, "persistent_volume_claim"),
        (KubernetesKind::StorageClass, Kind::StorageClass, View::Pods, "storage_class"),
    ];
    let object = |(kind, _, _, tag): (KubernetesKind, Kind, View, &str)| KubernetesObject {
        kind,
        uid: format!("uid-{tag}").into(),
        name: "name".into(),
        namespace: "shop".into(),
        created_at: Timestamp::from_unix_millis(1_600_000_000_000),
        state: "Running".into(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        public_addresses: vec!["192.0.2.1".parse().unwrap()],
        service_type: "ClusterIP".into(),
        ports: vec!["80/TCP".into()],
        strategy: "Recreate".into(),
        schedule: "@daily".into(),
        last_scheduled_at: Some(Timestamp::from_unix_millis(1_600_000_000_000)),
        status: "Bound".into(),
        storage_class: "fast".into(),
        storage_driver: "driver".into(),
        capacity: "1Gi".into(),
        access_modes: vec!["ReadWriteOnce".into()],
        volume_names: vec!["name".into()],
        ..KubernetesObject::default()
    };
    let mut world = World::new();
    let kubernetes = KINDS.map(object).into();
    world.tell("collector", Some("c1"), &[], topology::Report { kubernetes, ..topology::Report::default() });
    let report = translate(&Ours::Objects(&world.map.export_objects()), Time::from(world.now));
    for (_, kind, view, tag) in KINDS {
        let id = format!("uid-{tag};<{tag}>");
        let table = report.table(kind);
        let key = ViewKey { view, filter: Filter::NONE };
        let shown = world.map.details(world.now, key, &id.as_str().into()).unwrap().summary.metadata;
        assert_eq!(table.metadata_templates.len(), shown.len(), "{tag}: {shown:?}");
        for row in shown {
            let template = &table.metadata_templates[&*row.id];
            // Scope's probes told no type of this one.
            let data_type = if row.id == "kubernetes_restart_count" { "" } else { &*row.data_type };
            let like = (&*row.label, data_type, row.priority);
            assert_eq!((&*template.label, &*template.data_type, template.priority), like, "{tag} {}", row.id);
            if &*template.from == "latest" {
                assert_eq!(table.nodes[&*id].value(&row.id), Some(&row.value), "{tag} {}", row.id);
            }
        }
    }
    // Readers put the metrics of a pod's only container there.
    assert!(report.table(Kind::Pod).metric_templates.contains_key("docker_memory_usage"));
}

#[test]
fn a_port_on_every_address_of_the_host_is_listed_with_each_that_others_reach() {
    let mut world = World::new();
    let address = |text: &str| text.parse().unwrap();
    let network = |text: &str, prefix_length| topology::Network { address: address(text), prefix_length };
    let host = Host {
        addresses: ["127.0.0.1", "10.0.0.5", "192.168.7.5", "172.17.0.1", "fe80::1"].map(address).into(),
        local_networks: vec![network("10.0.0.5", 24), network("172.17.0.1", 16)],
        ..Host::default()
    };
    let port = |container_port, host| PortMapping { container_port, protocol: "tcp".into(), host };
    let ports = vec![
        port(80, Some((address("0.0.0.0"), 23_080))),
        port(80, Some((address("::"), 23_080))),
        port(81, Some((address("127.0.0.1"), 81))),
        port(82, None),
    ];
    let web = Container { ports, addresses: vec![address("172.17.0.2")], ..container("web", ContainerState::Running) };
    let report = topology::Report { containers: vec![web], host: Some(host), ..topology::Report::default() };
    world.tell("p1", None, &[], report);
    let report = world.host();
    let ports: Vec<&str> =
        report.table(Kind::Container).nodes["web;<container>"].sets["docker_container_ports"].iter().map(|it| &**it).collect();
    assert_eq!(ports, ["10.0.0.5:23080->80/tcp", "127.0.0.1:81->81/tcp", "192.168.7.5:23080->80/tcp", "82/tcp", ":::23080->80/tcp"]);
    let found = world.map.search(
        world.now,
        &topology::SearchQuery { query: topology::Query::parse("10.0.0.5:23080").unwrap(), view: None, after: None, limit: 10 },
    );
    assert!(found.hits.iter().any(|hit| hit.id.as_str() == "web;<container>"), "{found:?}");
}

fn values<'a>(report: &'a Report, kind: Kind, id: &str, keys: &[&str]) -> Vec<Option<&'a str>> {
    let node = &report.table(kind).nodes[id];
    keys.iter().map(|key| node.value(key).map(|it| &**it)).collect()
}

#[test]
fn endpoints_name_no_process_that_the_report_does_not_describe() {
    let mut world = World::new();
    let process = |pid, exited_at| Process { key: ProcessKey { pid, start_time: 1 }, name: "p".into(), exited_at, ..Process::default() };
    let flow = |id, pid, port| {
        let key = FlowKey {
            process: Some(ProcessKey { pid, start_time: 1 }),
            cgroup_id: 0,
            container_id: None,
            direction: Direction::Server,
            protocol: Protocol::Tcp,
            client_address: "10.0.0.9".parse().unwrap(),
            server_address: "10.0.0.5".parse().unwrap(),
            server_port: port,
            network_namespace: 0,
            original_server: None,
            origin: Origin::Event,
            sample_client_port: 0,
        };
        Flow { id, key: Some(key), ..Flow::default() }
    };
    let report = topology::Report {
        host: Some(Host::default()),
        processes: vec![process(1, None), process(2, Some(world.now))],
        flows: vec![flow(1, 1, 80), flow(2, 2, 81), flow(3, 3, 82)],
        ..topology::Report::default()
    };
    world.tell("p1", None, &[], report);
    let report = world.host();
    let known: Vec<&str> = report.table(Kind::Process).nodes.keys().map(|id| &**id).collect();
    assert_eq!(known, ["a;1"]);
    let pids = [80, 81, 82].map(|port| values(&report, Kind::Endpoint, &format!(";10.0.0.5;{port}"), &["pid", "host_node_id"]));
    assert_eq!(pids, [vec![Some("1"), Some("a;<host>")], vec![None, Some("a;<host>")], vec![None, Some("a;<host>")]]);
}

#[test]
fn containers_are_told_as_the_map_shows_them() {
    let mut world = World::new();
    let address = |text: &str| text.parse().unwrap();
    let image = |id: &str, name: &str| Image { id: id.into(), name: name.into(), size_bytes: 4_261_550, ..Image::default() };
    let started_at = Some(Timestamp::from_unix_millis(1_699_999_990_000));
    let ended = Container {
        image_id: "i1".into(),
        image_name: "gcr.io/team/shop/web:2".into(),
        exit_code: 3,
        started_at,
        ..container("ended", ContainerState::Exited)
    };
    let labels = [("mesos.task_id", "t1"), ("mesos.framework_id", "f1")].map(|(key, value)| (key.into(), value.into()));
    let task = Container { labels: labels.into(), started_at, network_mode: "host".into(), ..container("task", ContainerState::Running) };
    let process = Process {
        key: ProcessKey { pid: 7, start_time: 1 },
        name: "p".into(),
        user_name: Some("www".into()),
        container_id: Some("task".into()),
        ..Process::default()
    };
    let listener = Listener {
        id: 1,
        process: Some(process.key),
        cgroup_id: 0,
        container_id: Some("task".into()),
        protocol: Protocol::Tcp,
        address: address("0.0.0.0"),
        port: 80,
        network_namespace: 0,
    };
    let report = topology::Report {
        host: Some(Host { addresses: ["127.0.0.1", "10.0.0.5", "fe80::1"].map(address).into(), ..Host::default() }),
        containers: vec![ended, task],
        images: vec![image("i1", "other:1"), image("i2", "quay.io/a/b:3")],
        processes: vec![process],
        listeners: vec![listener],
        ..topology::Report::default()
    };
    world.tell("p1", None, &[], report);
    let report = world.host();
    let keys = ["docker_container_uptime", "docker_container_exit_code", "mesos_task_id", "listening_ports"];
    assert_eq!(values(&report, Kind::Container, "ended;<container>", &keys), [None, Some("3"), None, None]);
    assert_eq!(values(&report, Kind::Container, "task;<container>", &keys), [Some("10"), None, Some("t1"), Some("80/tcp")]);
    assert_eq!(values(&report, Kind::Process, "a;7", &["user", "listening_ports"]), [Some("www"), Some("80/tcp")]);
    let sets = &report.table(Kind::Container).nodes["task;<container>"].sets;
    let set = |key: &str| sets[key].iter().map(|it| &**it).collect::<Vec<_>>();
    assert_eq!(set("docker_container_ips"), ["10.0.0.5", "127.0.0.1"]);
    assert_eq!(set("docker_container_ips_with_scopes"), [";10.0.0.5", "a;127.0.0.1"]);
    // By the name that the map groups its containers by; without any, by its own.
    let keys = ["docker_image_name", "docker_image_tag", "docker_image_size"];
    assert_eq!(values(&report, Kind::ContainerImage, "i1;<container_image>", &keys), [Some("team/shop/web"), Some("2"), Some("4.262 MB")]);
    assert_eq!(values(&report, Kind::ContainerImage, "i2;<container_image>", &keys), [Some("a/b"), Some("3"), Some("4.262 MB")]);
    let table = report.table(Kind::Container);
    assert_eq!(&*table.table_templates["image_table"].fixed_rows["docker_image_id"], " ID");
    assert_eq!(&*table.metadata_templates["docker_container_exit_code"].label, "Exit code");
    let priorities: Vec<(&str, f64)> = report.table(Kind::Host).metadata_templates.values().map(|it| (&*it.id, it.priority)).collect();
    let expected = [
        ("host_name", 11.0),
        ("host_scope_version", 14.0),
        ("kernel_version", 1.0),
        ("local_networks", 13.0),
        ("os", 12.0),
        ("uptime", 2.0),
    ];
    assert_eq!(priorities, expected);
}
