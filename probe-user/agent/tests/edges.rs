//! What others meet of an agent: its checks of their tasks, who may use its API and how, and how it leaves.
#![allow(clippy::unwrap_used, missing_docs, reason = "the helpers of a test fail by panicking")]

mod support;

use std::time::{Duration, Instant};

use base64::Engine as _;
use mesos_proto::v1::{CommandInfo, FrameworkId, FrameworkInfo, HealthCheck, TaskInfo, TaskState, health_check};
use proto::agent::v1::agent_message::Body as Ours;
use support::{PATIENCE, World, framework, task};

fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn framework_of(number: u8, user: &str) -> FrameworkInfo {
    FrameworkInfo { id: Some(FrameworkId { value: format!("test-000{number}") }), user: user.to_owned(), ..framework(true) }
}

#[test]
fn checks_look_into_the_container_of_their_own_task() {
    let world = World::new(|_| {});
    world.master.acknowledge_all(true);
    // Two frameworks count their tasks from 0, and each task is well where its own name stands in its sandbox.
    let named = |name: &str| -> TaskInfo {
        let command = CommandInfo { value: Some(format!("test \"$(cat name)\" = {name}")), ..CommandInfo::default() };
        let check = HealthCheck {
            r#type: Some(health_check::Type::Command as i32),
            command: Some(command),
            delay_seconds: Some(0.2),
            interval_seconds: Some(0.2),
            grace_period_seconds: Some(0.0),
            consecutive_failures: Some(1),
            ..HealthCheck::default()
        };
        TaskInfo { health_check: Some(check), ..task("0", &format!("printf {name} > name; sleep 1000")) }
    };
    world.master.run_task(&framework_of(1, "root"), &named("one"));
    world.master.run_task(&framework_of(2, "root"), &named("two"));
    // One look into the other's container would be the end of one of them.
    for _ in 0..2 {
        loop {
            let status = world.master.state("0", TaskState::TaskRunning);
            if status.healthy == Some(true) {
                break;
            }
            assert_eq!(status.healthy, None, "{status:#?}");
        }
    }
}

#[test]
fn an_agent_that_leaves_ends_its_tasks_and_unregisters() {
    let mut world = World::new(|_| {});
    world.master.acknowledge_all(true);
    world.master.run_task(&framework(true), &task("t", "sleep 1000"));
    world.master.state("t", TaskState::TaskRunning);
    let registrations = world.master.registrations().len();
    world.config.leave.cancel();
    world.master.state("t", TaskState::TaskKilled);
    world.master.other("a farewell", |it| matches!(it, Ours::Unregister(_)));
    let http = world.http;
    until("its API is gone", || std::net::TcpStream::connect(http).is_err());
    assert_eq!(world.master.registrations().len(), registrations, "it does not come back by itself");
    // The process is started again.
    world.kill_agent();
    world.config.leave = tokio_util::sync::CancellationToken::new();
    world.start_agent_as("test-S1");
}

#[test]
fn an_agent_with_a_certificate_speaks_tls_alone_and_says_so() {
    let mut world = World::new(|_| {});
    world.kill_agent();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let files = ["tls.crt", "tls.key"].map(|it| world.directory.path().join(it));
    std::fs::write(&files[0], certificate.pem()).unwrap();
    std::fs::write(&files[1], key.serialize_pem()).unwrap();
    let before = world.master.registrations().len();
    let [certificate, key] = files;
    world.config.api_certificate = Some((certificate.clone(), key));
    let ended = world.spawn_agent();
    assert!(world.master.registration(before).tls);
    let tls = ureq::tls::TlsConfig::builder().disable_verification(true).build();
    let client = ureq::Agent::config_builder().tls_config(tls).http_status_as_error(false).build().new_agent();
    let mut answer = client.get(format!("https://{}/version", world.http)).call().unwrap();
    assert!(answer.body_mut().read_to_string().unwrap().contains("1.11.0"));
    assert!(ureq::get(format!("http://{}/version", world.http)).call().is_err(), "without TLS there is no answer");
    // Executors are told by what libprocess calls it.
    world.master.acknowledge_all(true);
    world.master.run_task(&framework(true), &task("t", "echo $LIBPROCESS_SSL_ENABLED $LIBPROCESS_SSL_CERT_FILE > told"));
    world.master.state("t", TaskState::TaskFinished);
    let told = std::fs::read_to_string(world.sandbox(&framework(true), "t").join("told")).unwrap();
    assert_eq!(told.trim(), format!("true {}", certificate.display()));
    assert!(ended.try_recv().is_err(), "it goes on");
}

#[test]
fn lists_say_who_sees_what_and_a_firewall_what_nobody_sees() {
    let acls = r#"{"permissive": false,
        "view_frameworks": [{"principals": {"values": ["ada"]}, "users": {"values": ["root"]}}],
        "view_executors": [{"principals": {"values": ["ada"]}, "users": {"type": "ANY"}}],
        "view_tasks": [{"principals": {"values": ["ada"]}, "users": {"type": "ANY"}}],
        "access_sandboxes": [{"principals": {"values": ["ada"]}, "users": {"values": ["root"]}}]}"#;
    let credentials = r#"{"credentials": [{"principal": "ada", "secret": "1"}, {"principal": "bob", "secret": "2"}]}"#;
    // The agent has to be asked by the helpers before anybody is asked who they are.
    let mut world = World::new(|config| config.switch_user = false);
    world.master.acknowledge_all(true);
    for (number, user) in [(1, "root"), (2, "nobody")] {
        let id = format!("of-{user}");
        world.master.run_task(&framework_of(number, user), &task(&id, "sleep 1000"));
        world.master.state(&id, TaskState::TaskRunning);
    }
    world.kill_agent();
    world.config.acls = Some(agent::http::rights::acls(acls).unwrap());
    world.config.login = agent::login::Login::new(Some(credentials), true, true).unwrap();
    world.config.disabled_endpoints = ["/slave(1)/containers".to_owned()].into();
    let before = world.master.registrations().len();
    let _ended = world.spawn_agent();
    world.master.registration(before);
    let client = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let http = world.http;
    let get = |who: &str, path: &str| {
        let words = base64::engine::general_purpose::STANDARD.encode(who);
        let mut answer = client.get(format!("http://{http}{path}")).header("Authorization", format!("Basic {words}")).call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap_or_default())
    };
    let frameworks = |who: &str| -> Vec<String> {
        let state: serde_json::Value = serde_json::from_str(&get(who, "/state").1).unwrap();
        assert!(state.get("flags").is_none(), "nobody may see them");
        let all = state["frameworks"].as_array().unwrap();
        assert!(all.iter().all(|it| it["executors"][0]["tasks"].as_array().is_some_and(|it| it.len() == 1)), "{all:#?}");
        all.iter().map(|it| it["user"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((frameworks("ada:1"), frameworks("bob:2")), (vec!["root".to_owned()], Vec::new()));
    let sandbox = |number: u8, user: &str| format!("/files/browse?path=/frameworks/test-000{number}/executors/of-{user}/runs/latest");
    assert_eq!(get("ada:1", &sandbox(1, "root")).0, 200);
    assert_eq!(get("ada:1", &sandbox(2, "nobody")).0, 403);
    assert_eq!(get("bob:2", &sandbox(1, "root")).0, 403);
    assert_eq!(get("ada:1", "/flags").0, 403);
    assert_eq!(get("ada:1", "/monitor/statistics").0, 403);
    assert_eq!(get("ada:1", "/containers"), (403, "Endpoint '/containers' is disabled".to_owned()));
}
