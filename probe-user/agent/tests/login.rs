//! The agent's API where it asks who is there: principals with secrets, and executors with the tokens that the agent gave them.
#![allow(clippy::unwrap_used, missing_docs, reason = "the helpers of a test fail by panicking")]

mod support;

use agent::login::Login;
use mesos_proto::v1::executor_info::Type;
use mesos_proto::v1::{TaskInfo, TaskState};
use serde_json::{Value, json};
use support::{World, executor, framework, task};

const CREDENTIALS: &str = r#"{"credentials": [{"principal": "ada", "secret": "lovelace"}]}"#;
const ADA: &str = "Basic YWRhOmxvdmVsYWNl";

struct Reply {
    status: u16,
    challenges: Vec<String>,
    text: String,
}

fn send(world: &World, path: &str, authorization: Option<&str>, body: Option<&Value>) -> Reply {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let (url, authorization) = (format!("http://{}{path}", world.http), authorization.unwrap_or_default());
    let sent = match body {
        None => agent.get(&url).header("Authorization", authorization).call(),
        Some(body) => {
            agent.post(&url).header("Authorization", authorization).header("Content-Type", "application/json").send(body.to_string())
        }
    };
    let mut answer = sent.unwrap();
    let challenges = answer.headers().get_all("www-authenticate").iter().map(|it| it.to_str().unwrap().to_owned()).collect();
    Reply { status: answer.status().as_u16(), challenges, text: answer.body_mut().read_to_string().unwrap_or_default() }
}

#[test]
fn who_changes_something_says_who_it_is() {
    let world = World::new(|config| config.login = Login::new(Some(CREDENTIALS), false, true).unwrap());
    let health = json!({"type": "GET_HEALTH"});
    for authorization in [None, Some("Basic YWRhOmJ5cm9u"), Some("Basic"), Some("Bearer a.b.c")] {
        let refused = send(&world, "/api/v1", authorization, Some(&health));
        assert_eq!((refused.status, &*refused.text), (401, ""));
        assert_eq!(refused.challenges, ["Basic realm=\"mesos-agent-readwrite\""]);
    }
    assert_eq!(send(&world, "/slave(1)/api/v1", Some(ADA), Some(&health)).status, 200);
    assert_eq!(send(&world, "/logging/toggle", None, None).status, 401);
    assert_eq!(send(&world, "/logging/toggle", Some(ADA), None).status, 200);
    for open in ["/health", "/version", "/state", "/metrics/snapshot", "/files/debug"] {
        assert_eq!(send(&world, open, None, None).status, 200, "{open}");
    }
    // The list of flags has no secrets.
    let flags = send(&world, "/flags", None, None).text;
    assert!(flags.contains(r#""authenticate_http_readwrite":"true""#) && !flags.contains("lovelace"), "{flags}");
}

#[test]
fn executors_speak_for_themselves_alone() {
    let world = World::new(|config| config.login = Login::new(Some(CREDENTIALS), false, true).unwrap().with_tokens(b"a key"));
    world.master.acknowledge_all(true);
    let framework = framework(true);
    for id in ["one", "two"] {
        let own = executor(
            id,
            Type::Custom,
            Some("printf %s \"$MESOS_EXECUTOR_AUTHENTICATION_TOKEN\" > token.tmp; mv token.tmp token; sleep 1000"),
        );
        world.master.run_task(&framework, &TaskInfo { command: None, executor: Some(own), ..task(id, "") });
    }
    let token = |id: &str| {
        let begun = std::time::Instant::now();
        loop {
            let latest = format!("work/slaves/{}/frameworks/test-0000/executors/{id}/runs/latest/token", support::AGENT_ID);
            if let Ok(token) = std::fs::read_to_string(world.directory.path().join(latest)) {
                return format!("Bearer {token}");
            }
            assert!(begun.elapsed() < support::PATIENCE, "the executor has no token");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    };
    let (one, two) = (token("one"), token("two"));
    let message = |executor: &str| json!({"type": "HEARTBEAT", "framework_id": {"value": "test-0000"}, "executor_id": {"value": executor}});
    let call = |authorization: Option<&str>, executor: &str| send(&world, "/api/v1/executor", authorization, Some(&message(executor)));
    assert_eq!(call(Some(&one), "one").status, 202);
    assert_eq!(call(Some(&two), "one").status, 403);
    let refused = call(None, "one");
    assert_eq!((refused.status, refused.challenges), (401, vec!["Bearer realm=\"mesos-agent-executor\"".to_owned()]));
    assert_eq!(call(Some(ADA), "one").status, 401);

    // It makes containers in its own and in no other, and does nothing else.
    let nested = |executor: &str, name: &str| {
        let id = json!({"parent": {"value": world.container(&framework, executor)}, "value": name});
        json!({"type": "LAUNCH_NESTED_CONTAINER", "launch_nested_container": {"container_id": id, "command": {"value": "exit 3"}}})
    };
    assert_eq!(send(&world, "/api/v1", Some(&one), Some(&nested("one", "a"))).status, 200);
    assert_eq!(send(&world, "/api/v1", Some(&one), Some(&nested("two", "b"))).status, 403);
    assert_eq!(send(&world, "/api/v1", Some(&one), Some(&json!({"type": "GET_STATE"}))).status, 403);
    assert_eq!(send(&world, "/api/v1", None, Some(&nested("one", "c"))).challenges.len(), 2);
    assert_eq!(send(&world, "/api/v1", Some(ADA), Some(&nested("two", "d"))).status, 200);

    // The calls without "nested" in their names are the same ones. What it starts beside itself cannot speak for it.
    let id = |executor: &str| json!({"parent": {"value": world.container(&framework, executor)}, "value": "e"});
    let command = json!({"value": "test -z \"$MESOS_EXECUTOR_AUTHENTICATION_TOKEN\""});
    let launch =
        |executor: &str| json!({"type": "LAUNCH_CONTAINER", "launch_container": {"container_id": id(executor), "command": command}});
    assert_eq!(send(&world, "/api/v1", Some(&one), Some(&launch("two"))).status, 403);
    assert_eq!(send(&world, "/api/v1", Some(&one), Some(&launch("one"))).status, 200);
    let wait = json!({"type": "WAIT_CONTAINER", "wait_container": {"container_id": id("one")}});
    let waited = send(&world, "/api/v1", Some(&one), Some(&wait));
    assert!(waited.status == 200 && waited.text.contains(r#""exit_status":0"#), "{} {}", waited.status, waited.text);
    assert_eq!(send(&world, "/api/v1", Some(&two), Some(&wait)).status, 403);
    assert_eq!(send(&world, "/logging/toggle?level=3&duration=1hrs", Some(&one), None).status, 403);

    // The token is in the environment that the container's keeper was given, and that is nobody else's to read.
    use std::os::unix::fs::PermissionsExt as _;
    let keepers = world.directory.path().join("run/containers");
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&keepers), 0o700);
    assert_eq!(mode(&keepers.join(world.container(&framework, "one")).join("spec.json")), 0o600);

    // Commands are run by the agent itself: there is nobody to give a token to.
    world.master.run_task(&framework, &task("plain", "test -z \"$MESOS_EXECUTOR_AUTHENTICATION_TOKEN\""));
    world.master.state("plain", TaskState::TaskFinished);
}
