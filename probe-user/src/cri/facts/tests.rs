use proptest::prelude::*;
use prost::Message as _;

use super::*;

const ID: &str = "2299a2ca59dfd821f367e689d5869c4e568272c2305701761888e1d79d7a6f51";

fn telling() -> Telling {
    Telling { source: Source::Cri(0), runtime: "containerd".to_owned(), environment: true, masks: Masks::default() }
}

fn texts(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn status() -> cri::ContainerStatus {
    cri::ContainerStatus {
        id: ID.to_owned(),
        metadata: Some(cri::ContainerMetadata { name: "web".to_owned(), attempt: 1 }),
        state: cri::ContainerState::ContainerRunning.into(),
        created_at: 5,
        started_at: 6,
        image: Some(cri::ImageSpec { image: "docker.io/library/web:v1".to_owned() }),
        image_ref: "sha256:aa".to_owned(),
        labels: texts(&[("team", "blue")]),
        annotations: texts(&[
            ("io.kubernetes.container.restartCount", "3"),
            (
                "io.kubernetes.container.ports",
                r#"[{"name":"http","containerPort":8080,"hostPort":80,"protocol":"TCP"},{"containerPort":53,"protocol":"UDP"}]"#,
            ),
        ]),
        ..cri::ContainerStatus::default()
    }
}

const INFO: &str = r#"{"sandboxID":"pod1","pid":4711,"removing":false,"runtimeSpec":{"hostname":"","process":{"args":["/bin/web","--token=abc"],
    "env":["COLOUR=red","DB_PASSWORD=hunter2"]}}}"#;

#[test]
fn a_container_is_told_with_what_its_pod_and_the_kubelet_say() {
    let answer = cri::ContainerStatusResponse { status: Some(status()), info: texts(&[("info", INFO)]) };
    assert_eq!(pod_of(&answer).as_deref(), Some("pod1"));
    let pod = Pod {
        id: "pod1".to_owned(),
        metadata: ("web-1".to_owned(), "shop".to_owned(), "u1".to_owned()),
        addresses: vec!["10.0.0.5".to_owned()],
        hostname: "web-1".to_owned(),
        ready: true,
        ..Pod::default()
    };
    let (facts, image) = container(answer, Some(&pod), &telling()).unwrap();
    let record = facts.record;
    assert_eq!(image.0, "sha256:aa");
    assert_eq!((record.name.as_str(), record.image_name.as_str(), record.image_id.as_str()), ("web", "docker.io/library/web:v1", "aa"));
    assert_eq!((record.state(), record.pid, record.restart_count), (ContainerState::Running, 4711, 3));
    assert_eq!(record.command, "/bin/web --token=***");
    assert_eq!(record.environment, texts(&[("COLOUR", "red"), ("DB_PASSWORD", "***")]));
    assert_eq!((record.hostname.as_str(), record.network_mode.as_str()), ("web-1", "container:pod1"));
    assert_eq!(record.addresses, ["10.0.0.5"]);
    assert_eq!(record.ports.len(), 2);
    assert_eq!((record.ports[0].container_port, record.ports[0].host_port, record.ports[0].host_address.as_str()), (8_080, 80, "0.0.0.0"));
    assert_eq!((record.ports[1].container_port, record.ports[1].protocol.as_str(), record.ports[1].host_port), (53, "udp", 0));
    let kubelet = texts(&[
        ("team", "blue"),
        ("io.kubernetes.container.name", "web"),
        ("io.kubernetes.pod.name", "web-1"),
        ("io.kubernetes.pod.namespace", "shop"),
        ("io.kubernetes.pod.uid", "u1"),
    ]);
    assert_eq!(record.labels, kubelet);
}

#[test]
fn the_end_of_a_container_is_told_with_its_reason() {
    let ended = cri::ContainerStatus {
        state: cri::ContainerState::ContainerExited.into(),
        finished_at: 9,
        exit_code: 137,
        reason: "OOMKilled".to_owned(),
        ..status()
    };
    let answer = cri::ContainerStatusResponse { status: Some(ended), info: texts(&[("info", INFO)]) };
    let (facts, _) = container(answer, None, &Telling { environment: false, ..telling() }).unwrap();
    let record = &facts.record;
    assert_eq!((record.state(), record.exit_code, record.oom_killed, facts.finished_at_unix_nanos), (ContainerState::Exited, 137, true, 9));
    assert_eq!(record.pid, 0, "it may be another process's by now");
    assert!(record.environment.is_empty());
}

#[test]
fn a_pod_in_the_hosts_network_has_no_addresses_of_its_own() {
    let status = |mode: cri::NamespaceMode| cri::PodSandboxStatus {
        id: "pod1".to_owned(),
        metadata: Some(cri::PodSandboxMetadata {
            name: "web-1".to_owned(),
            namespace: "shop".to_owned(),
            uid: "u1".to_owned(),
            attempt: 0,
        }),
        created_at: 5,
        network: Some(cri::PodSandboxNetworkStatus {
            ip: "10.0.0.5".to_owned(),
            additional_ips: vec![cri::PodIp { ip: "fd00::5".to_owned() }, cri::PodIp { ip: "no address".to_owned() }],
        }),
        linux: Some(cri::LinuxPodSandboxStatus {
            namespaces: Some(cri::Namespace { options: Some(cri::NamespaceOption { network: mode.into() }) }),
        }),
        ..cri::PodSandboxStatus::default()
    };
    let answer = |mode, info: &str| cri::PodSandboxStatusResponse { status: Some(status(mode)), info: texts(&[("info", info)]) };
    let (own, told) = pod(answer(cri::NamespaceMode::Pod, r#"{"pid":12,"image":"registry.k8s.io/pause:3.9"}"#), &telling()).unwrap();
    assert_eq!(own.addresses, ["10.0.0.5", "fd00::5"]);
    let (facts, image) = told.unwrap();
    assert_eq!((facts.record.pid, image.0.as_str()), (12, "registry.k8s.io/pause:3.9"));
    assert_eq!(facts.record.labels.get("io.kubernetes.docker.type").map(String::as_str), Some("podsandbox"));
    assert_eq!(facts.record.labels.get("io.kubernetes.container.name").map(String::as_str), Some("POD"));
    let (own, told) = pod(answer(cri::NamespaceMode::Node, "{}"), &telling()).unwrap();
    assert!(own.host_network && own.addresses.is_empty());
    assert!(told.is_none(), "CRI-O keeps no container for a pod that needs none");
}

#[test]
fn events_are_read_where_that_takes_none_from_the_kubelet() {
    let of = |name: &str, version: &str| {
        shares_events(&cri::VersionResponse {
            runtime_name: name.to_owned(),
            runtime_version: version.to_owned(),
            ..cri::VersionResponse::default()
        })
    };
    assert!(of("containerd", "v2.0.1") && of("containerd", "2.1.0") && of("cri-o", "1.30.0"));
    assert!(!of("containerd", "v1.7.27") && !of("containerd", "1.6.20~ds1") && !of("containerd", "") && !of("docker", "27.0"));
}

#[test]
fn hostile_answers_are_cut_and_cleaned() {
    let huge = "x\u{1}".repeat(1 << 20);
    let info = serde_json::json!({"pid": 4711, "runtimeSpec": {"process": {"args": [&huge[..200_000]]}}}).to_string();
    let mut hostile = status();
    hostile.labels = (0..10_000).map(|it| (format!("{it}{}", &huge[..100]), huge[..2_000].to_owned())).collect();
    hostile.image = Some(cri::ImageSpec { image: huge.clone() });
    hostile.annotations = texts(&[("io.kubernetes.container.ports", &huge), ("io.kubernetes.container.restartCount", "-1")]);
    let answer = cri::ContainerStatusResponse { status: Some(hostile.clone()), info: texts(&[("info", &info)]) };
    let (facts, _) = container(answer, None, &telling()).unwrap();
    assert!(facts.record.encoded_len() < 64 * 1024, "{}", facts.record.encoded_len());
    assert_eq!((facts.record.pid, facts.record.restart_count), (4711, 1));
    assert!(!format!("{:?}", facts.record).contains("\\u{1}"));
    for id in ["", "a b", "x\n", &huge] {
        let answer = cri::ContainerStatusResponse {
            status: Some(cri::ContainerStatus { id: id.to_owned(), ..hostile.clone() }),
            info: HashMap::new(),
        };
        assert_eq!(container(answer, None, &telling()), None);
    }
    for json in ["{", "[]", r#"{"pid":"x"}"#, r#"{"pid":99999999999999999999}"#, r#"{"runtimeSpec":{"process":{"args":["\ud800"]}}}"#] {
        let answer = cri::ContainerStatusResponse { status: Some(status()), info: texts(&[("info", json)]) };
        assert_eq!(container(answer, None, &telling()).map(|(facts, _)| facts.record.pid), Some(0), "{json}");
    }
}

proptest! {
    #[test]
    fn arbitrary_answers_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..512), json in "\\PC{0,200}") {
        let telling = telling();
        if let Ok(mut answer) = cri::ContainerStatusResponse::decode(&bytes[..]) {
            answer.info.insert("info".to_owned(), json.clone());
            pod_of(&answer);
            container(answer, None, &telling);
        }
        if let Ok(mut answer) = cri::PodSandboxStatusResponse::decode(&bytes[..]) {
            answer.info.insert("info".to_owned(), json.clone());
            pod(answer, &telling);
        }
        if let Ok(mut answer) = cri::ImageStatusResponse::decode(&bytes[..]) {
            answer.info.insert("info".to_owned(), json);
            image(answer, &telling.masks);
        }
    }

    #[test]
    fn arbitrary_statuses_become_records_of_bounded_size(
        state in any::<i32>(), times in any::<[i64; 3]>(), exit_code in any::<i32>(), texts in prop::collection::vec(("\\PC{0,40}", "\\PC{0,40}"), 0..8),
        pid in any::<i64>(),
    ) {
        let status = cri::ContainerStatus {
            state, exit_code, created_at: times[0], started_at: times[1], finished_at: times[2],
            labels: texts.iter().cloned().collect(), annotations: texts.into_iter().collect(), ..status()
        };
        let info = HashMap::from([("info".to_owned(), format!("{{\"pid\":{pid}}}"))]);
        let (facts, _) = container(cri::ContainerStatusResponse { status: Some(status), info }, None, &telling()).expect("the id is good");
        prop_assert!(facts.record.state() != ContainerState::Unspecified);
        prop_assert!(facts.record.encoded_len() < 64 * 1024);
    }
}
