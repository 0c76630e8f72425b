//! Custom executors over the v1 executor API, the default executor, and the agent API for nested containers and sessions.
#![allow(clippy::unwrap_used, missing_docs, reason = "the helpers of a test fail by panicking")]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use mesos_proto::v1::{TaskInfo, TaskState, executor_info::Type, task_status};
use proto::agent::v1::agent_message::Body as Ours;
use serde_json::{Value, json};
use support::{World, executor, framework, names, resources, task};

/// An executor in the test's own process: a stream of events, and calls.
struct Custom {
    lines: BufReader<TcpStream>,
    http: std::net::SocketAddr,
    framework: String,
    executor: String,
}

impl Custom {
    fn subscribe(world: &World, framework: &str, executor: &str, subscribe: &Value) -> Custom {
        let mut stream = TcpStream::connect(world.http).unwrap();
        stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
        let body = json!({
            "type": "SUBSCRIBE", "framework_id": {"value": framework}, "executor_id": {"value": executor}, "subscribe": subscribe,
        });
        let body = body.to_string();
        write!(
            stream,
            "POST /slave(1)/api/v1/executor HTTP/1.1\r\nHost: agent\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut lines = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(lines.read_line(&mut head).unwrap(), 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.to_lowercase().contains("content-type: application/json"), "{head}");
        Custom { lines, http: world.http, framework: framework.to_owned(), executor: executor.to_owned() }
    }

    /// One record is one chunk. `None` at the end of the stream.
    fn event(&mut self) -> Option<Value> {
        let mut size = String::new();
        if self.lines.read_line(&mut size).unwrap_or(0) == 0 {
            return None;
        }
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        self.lines.read_exact(&mut chunk).unwrap();
        if size == 0 {
            return None;
        }
        let text = String::from_utf8(chunk[..size].to_vec()).unwrap();
        let (length, record) = text.split_once('\n').unwrap();
        assert_eq!(length.parse::<usize>().unwrap(), record.len());
        Some(serde_json::from_str(record).unwrap())
    }

    fn expect(&mut self, r#type: &str) -> Value {
        let event = self.event().unwrap_or_else(|| panic!("the stream ended before {type}"));
        assert_eq!(event["type"], r#type, "{event}");
        event
    }

    fn call(&self, call: &Value) -> (u16, String) {
        let mut call = call.clone();
        call["framework_id"] = json!({ "value": self.framework });
        call["executor_id"] = json!({ "value": self.executor });
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let request = agent.post(format!("http://{}/api/v1/executor", self.http)).header("Content-Type", "application/json");
        let mut answer = request.send(call.to_string()).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap_or_default())
    }

    fn update(&self, task: &str, state: &str) {
        // Sixteen bytes.
        let uuid = format!("{:A<22}==", format!("{task}{state}").replace('_', "").chars().take(20).collect::<String>());
        let status = json!({"task_id": {"value": task}, "state": state, "source": "SOURCE_EXECUTOR", "uuid": uuid});
        assert_eq!(self.call(&json!({"type": "UPDATE", "update": {"status": status}})).0, 202);
    }
}

fn custom_task(id: &str) -> TaskInfo {
    TaskInfo { command: None, executor: Some(executor("e", Type::Custom, Some("sleep 1000"))), ..task(id, "") }
}

#[test]
fn a_custom_executor_serves_its_tasks_and_survives_the_agent() {
    let mut world = World::new(|config| config.executor_reregistration_timeout = Duration::from_secs(10));
    world.master.acknowledge_all(true);
    let framework = framework(true);
    world.master.run_task(&framework, &custom_task("one"));
    let begun = std::time::Instant::now();
    while world.json("/containers").as_array().unwrap().is_empty() {
        assert!(begun.elapsed() < support::PATIENCE);
        std::thread::sleep(Duration::from_millis(50));
    }
    let unsubscribed = world.post(
        "/api/v1/executor",
        &json!({"type": "MESSAGE", "framework_id": {"value": "test-0000"}, "executor_id": {"value": "e"}, "message": {"data": "aGk="}}),
    );
    assert_eq!(unsubscribed, (403, "Executor is not subscribed".to_owned()));
    let mut it = Custom::subscribe(&world, "test-0000", "e", &json!({}));
    let subscribed = it.expect("SUBSCRIBED");
    assert_eq!(subscribed["subscribed"]["agent_info"]["id"]["value"], support::AGENT_ID);
    assert_eq!(it.expect("LAUNCH")["launch"]["task"]["task_id"]["value"], "one");
    it.update("one", "TASK_RUNNING");
    assert_eq!(it.expect("ACKNOWLEDGED")["acknowledged"]["task_id"]["value"], "one");
    assert_eq!(world.master.status("one").state(), TaskState::TaskRunning);
    assert_eq!(it.call(&json!({"type": "MESSAGE", "message": {"data": "aGVsbG8="}})).0, 202);
    let message = world.master.other("a message", |it| matches!(it, Ours::ExecutorMessage(_)));
    assert!(matches!(message, Ours::ExecutorMessage(it) if it.data == b"hello"));

    // A second task comes to the same executor.
    world.master.run_task(&framework, &custom_task("two"));
    it.expect("LAUNCH");
    it.update("two", "TASK_RUNNING");
    it.expect("ACKNOWLEDGED");
    world.master.state("two", TaskState::TaskRunning);

    world.kill_agent();
    while it.event().is_some() {}
    world.start_agent();
    let registration = world.master.registration(1);
    assert_eq!((registration.tasks.len(), registration.executors.len()), (2, 1));
    let mut it = Custom::subscribe(&world, "test-0000", "e", &json!({"unacknowledged_tasks": [], "unacknowledged_updates": []}));
    it.expect("SUBSCRIBED");
    world.master.kill(&framework, "one");
    assert_eq!(it.expect("KILL")["kill"]["task_id"]["value"], "one");
    it.update("one", "TASK_KILLED");
    it.expect("ACKNOWLEDGED");
    world.master.state("one", TaskState::TaskKilled);
    world.master.say(proto::agent::v1::master_message::Body::ShutdownExecutor(proto::agent::v1::ShutdownExecutor {
        framework_id: "test-0000".to_owned(),
        executor_id: "e".to_owned(),
    }));
    it.expect("SHUTDOWN");
    let lost = world.master.state("two", TaskState::TaskFailed);
    assert_eq!(lost.reason(), task_status::Reason::ExecutorTerminated);
    world.master.other("the executor's end", |it| matches!(it, Ours::ExecutorExited(_)));
    while it.event().is_some() {}
}

#[test]
fn malformed_calls_of_executors_are_refused_in_mesos_words() {
    let world = World::new(|_| {});
    let post = |body: &str, kind: Option<&str>| {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let request = agent.post(format!("http://{}/api/v1/executor", world.http));
        let request = if let Some(kind) = kind { request.header("Content-Type", kind) } else { request };
        let mut answer = request.send(body).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap_or_default())
    };
    let json = Some("application/json");
    assert_eq!(world.get("/api/v1/executor").0, 405);
    assert_eq!(post("{}", Some("text/plain; charset=utf-8")).0, 415);
    assert!(post("{", json).1.starts_with("Failed to parse body into JSON"));
    assert!(post("{}", json).1.starts_with("Failed to convert JSON into Call protobuf"));
    assert!(post("\u{1}", Some("application/x-protobuf")).1.starts_with("Failed to parse body into Call protobuf"));
    let of = |kind: &str| format!(r#"{{"type":"{kind}","framework_id":{{"value":"f"}},"executor_id":{{"value":"e"}}}}"#);
    assert_eq!(post(&of("SUBSCRIBE"), json), (400, "Framework cannot be found".to_owned()));
    assert!(post(&of("UPDATE"), json).1.contains("Expecting 'update' to be present"));
    assert_eq!(post(&of("HEARTBEAT"), json).0, 202);
    assert_eq!(post(&of("UNKNOWN"), json).0, 501);
    assert_eq!(post(&"x".repeat(9 << 20), json).0, 413);
}

#[test]
fn a_task_group_shares_an_executor_and_ends_together() {
    let mut world = World::new(|_| {});
    world.master.acknowledge_all(true);
    let framework = framework(true);
    let mut info = executor("group", Type::Default, None);
    info.resources = resources(0.1, 128.0);
    let server = task("server", "echo served > shared; sleep 1000");
    let worker = task("worker", "while [ ! -e stop ]; do sleep 0.1; done; exit 5");
    world.master.run_group(&framework, &info, vec![server, worker]);
    world.master.state("server", TaskState::TaskRunning);
    world.master.state("worker", TaskState::TaskRunning);
    let root = world.sandbox(&framework, "group");
    let nested = std::fs::read_dir(root.join("containers")).unwrap().map(|it| it.unwrap().path()).collect::<Vec<_>>();
    assert_eq!(nested.len(), 2);
    let container = world.container(&framework, "group");
    let answer = world.post("/api/v1", &json!({"type": "GET_CONTAINERS", "get_containers": {"show_nested": true}}));
    let containers: Value = serde_json::from_str(&answer.1).unwrap();
    assert_eq!(containers["get_containers"]["containers"].as_array().unwrap().len(), 3, "{containers}");

    // A session beside a task.
    let worker = nested.iter().find(|it| !it.join("shared").exists()).unwrap();
    // What it says is over sooner than the client is attached, or not: none of it may be lost.
    for at in 0..12 {
        let parent = json!({"value": worker.file_name().unwrap().to_str().unwrap(), "parent": {"value": container}});
        let launch = json!({"type": "LAUNCH_NESTED_CONTAINER_SESSION", "launch_nested_container_session":
            {"container_id": {"value": format!("session-{at}"), "parent": parent}, "command": {"value": "echo inside; echo beside >&2; exit 3"}}});
        let (status, body) = world.post("/api/v1", &launch);
        assert_eq!(status, 200, "{body}");
        let mut decoder = mesos_proto::recordio::Decoder::new(1 << 20);
        decoder.push(body.as_bytes());
        let mut said = [String::new(), String::new()];
        while let Some(record) = decoder.next_record().unwrap() {
            let record: Value = serde_json::from_slice(&record).unwrap();
            use base64::Engine as _;
            let Some(data) = record["data"]["data"].as_str() else { continue };
            let data = base64::engine::general_purpose::STANDARD.decode(data).unwrap();
            said[usize::from(record["data"]["type"] == "STDERR")].push_str(&String::from_utf8(data).unwrap());
        }
        assert_eq!(said, ["inside\n", "beside\n"], "session {at}");
    }

    // Nested, waited for, killed.
    let id = json!({"value": "helper", "parent": {"value": container}});
    let launch =
        json!({"type": "LAUNCH_NESTED_CONTAINER", "launch_nested_container": {"container_id": id, "command": {"value": "sleep 1000"}}});
    assert_eq!(world.post("/api/v1", &launch).0, 200);
    assert_eq!(world.post("/api/v1", &launch).0, 202);
    let kill = json!({"type": "KILL_NESTED_CONTAINER", "kill_nested_container": {"container_id": id, "signal": 15}});
    assert_eq!(world.post("/api/v1", &kill).0, 200);
    let wait = json!({"type": "WAIT_NESTED_CONTAINER", "wait_nested_container": {"container_id": id}});
    let waited: Value = serde_json::from_str(&world.post("/api/v1", &wait).1).unwrap();
    assert_eq!(waited["wait_nested_container"]["exit_status"], 15);
    assert_eq!(world.post("/api/v1", &json!({"type": "REMOVE_NESTED_CONTAINER", "remove_nested_container": {"container_id": id}})).0, 200);
    assert_eq!(world.post("/api/v1", &kill).0, 404);

    // A task is found by its id, in its executor's sandbox and by the virtual path.
    let find = |world: &World| {
        let by_executor = "/frameworks/test-0000/executors/group";
        for path in [
            format!("{}/tasks/server/shared", root.display()),
            format!("{by_executor}/runs/latest/tasks/server/shared"),
            format!("{by_executor}/tasks/server/shared"),
        ] {
            assert_eq!(world.json(&format!("/files/read?path={path}&offset=0"))["data"], "served\n", "{path}");
        }
        let listed = world.json(&format!("/files/browse?path={}/tasks/worker", root.display()));
        assert!(listed.as_array().unwrap().iter().any(|it| it["path"].as_str().unwrap().ends_with("/tasks/worker/stdout")), "{listed}");
    };
    let listed_as = |world: &World| world.json("/files/debug")["/frameworks/test-0000/executors/group/tasks/server"].clone();
    let server = nested.iter().find(|it| it.join("shared").exists()).unwrap();
    find(&world);
    assert_eq!(listed_as(&world), server.to_str().unwrap());

    std::fs::write(worker.join("stop"), "").unwrap();
    let failed = world.master.states("worker");
    assert_eq!(names(&failed), ["TASK_FAILED"]);
    assert_eq!(names(&world.master.states("server")), ["TASK_KILLING", "TASK_KILLED"]);
    world.master.other("the executor's end", |it| matches!(it, Ours::ExecutorExited(it) if it.executor_id == "group"));
    let begun = std::time::Instant::now();
    while !world.json("/state")["frameworks"].as_array().unwrap().is_empty() {
        assert!(begun.elapsed() < support::PATIENCE);
        std::thread::sleep(Duration::from_millis(10));
    }
    find(&world);
    assert_eq!(listed_as(&world), server.to_str().unwrap());
    // Also when nobody remembers the executor.
    world.kill_agent();
    world.start_agent();
    find(&world);
}

#[test]
fn the_container_of_a_group_may_use_what_its_executor_and_tasks_have_together() {
    let world = World::new(|_| {});
    world.master.acknowledge_all(true);
    let framework = framework(true);
    let mut info = executor("group", Type::Default, None);
    info.resources = resources(1.0, 512.0);
    let member = |id: &str, cpus: f64, mem: f64| TaskInfo { resources: resources(cpus, mem), ..task(id, "sleep 1000") };
    world.master.run_group(&framework, &info, vec![member("a", 0.5, 128.0), member("b", 0.25, 64.0)]);
    world.master.state("a", TaskState::TaskRunning);
    world.master.state("b", TaskState::TaskRunning);
    let limits = || {
        let statistics = world.json("/monitor/statistics")[0]["statistics"].clone();
        (statistics["cpus_limit"].as_f64().unwrap(), statistics["mem_limit_bytes"].as_u64().unwrap() >> 20)
    };
    assert_eq!(limits(), (1.75, 704));
    let cgroup = format!("{}/{}", world.config.cgroups_root, world.container(&framework, "group"));
    if let Ok(shares) = std::fs::read_to_string(format!("/sys/fs/cgroup/cpu/{cgroup}/cpu.shares")) {
        assert_eq!(shares.trim(), "1792");
    }
    // A second group brings its own.
    world.master.run_group(&framework, &info, vec![member("c", 0.25, 320.0)]);
    let until = |expected: (f64, u64)| {
        let begun = std::time::Instant::now();
        while limits() != expected {
            assert!(begun.elapsed() < support::PATIENCE, "{:?}", limits());
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    until((2.0, 1024));
    // Memory that it once could have is not taken away, as in Mesos.
    world.master.kill(&framework, "c");
    until((1.75, 1024));
}

#[test]
fn the_agent_api_answers_in_both_spellings() {
    let world = World::new(|config| config.attributes = "rack:r1;level:3".to_owned());
    let ask = |kind: &str| -> Value { serde_json::from_str(&world.post("/api/v1/operator", &json!({ "type": kind })).1).unwrap() };
    assert_eq!(ask("GET_HEALTH"), json!({"type": "GET_HEALTH", "get_health": {"healthy": true}}));
    assert_eq!(ask("GET_VERSION")["get_version"]["version_info"]["version"], "1.11.0");
    assert_eq!(ask("GET_AGENT")["get_agent"]["agent_info"]["id"]["value"], support::AGENT_ID);
    let metrics = ask("GET_METRICS");
    assert!(
        metrics["get_metrics"]["metrics"].as_array().unwrap().iter().any(|it| it["name"] == "slave/registered" && it["value"] == 1.0),
        "{metrics}"
    );
    for kind in [
        "GET_STATE",
        "GET_TASKS",
        "GET_EXECUTORS",
        "GET_FRAMEWORKS",
        "GET_CONTAINERS",
        "GET_OPERATIONS",
        "GET_FLAGS",
        "GET_RESOURCE_PROVIDERS",
    ] {
        assert_eq!(ask(kind)["type"], kind);
    }
    let state = world.json("/state");
    assert_eq!(
        (&state["attributes"]["rack"], &state["attributes"]["level"], &state["resources"]["cpus"]),
        (&json!("r1"), &json!(3.0), &json!(8.0))
    );
    assert_eq!(state["resources"]["ports"], "[31000-32000]");
    assert_eq!(world.get("/slave(1)/health"), (200, String::new()));
    assert_eq!(world.get("/slave%281%29/version/").0, 200);
    assert_eq!(world.get("/nothing").0, 404);
    let (_, snapshot) = world.get("/metrics/snapshot");
    assert!(snapshot.contains(r#""slave/cpus_total":8.0"#) && !snapshot.contains(":-0.0"), "{snapshot}");
    assert!(world.json("/metrics/snapshot?timeout=5secs")["slave/recovery_time_secs"].as_f64().unwrap() > 0.0);
    assert_eq!(world.get("/metrics/snapshot?timeout=soon").0, 400);
    assert_eq!(world.get("/files/browse?path=/etc").0, 404);
    assert_eq!(world.get("/files/read?path=/../../etc/passwd").0, 404);
    assert_eq!(world.get("/files/browse").0, 400);
    assert_eq!(world.post("/flags", &json!({})).0, 405);
    assert_eq!(world.post("/api/v1", &json!({"type": "WAIT_CONTAINER", "wait_container": {"container_id": {"value": "../.."}}})).0, 400);
    assert_eq!(world.post("/api/v1", &json!({"type": "READ_FILE"})).0, 400);
}

#[test]
fn what_is_logged_is_more_for_a_while() {
    let applied = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = applied.clone();
    let world = World::new(|config| config.verbosity.applied_by(move |level| seen.lock().unwrap().push(level)));
    let level = || {
        let answer: Value = serde_json::from_str(&world.post("/api/v1", &json!({"type": "GET_LOGGING_LEVEL"})).1).unwrap();
        answer["get_logging_level"]["level"].clone()
    };
    let until_usual = || {
        let begun = std::time::Instant::now();
        while level() != 0 {
            assert!(begun.elapsed() < support::PATIENCE);
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    assert_eq!(world.get("/logging/toggle"), (200, "0\n".to_owned()));
    let set = json!({"type": "SET_LOGGING_LEVEL", "set_logging_level": {"level": 2, "duration": {"nanoseconds": 500_000_000_i64}}});
    assert_eq!(world.post("/api/v1", &set), (200, String::new()));
    assert_eq!(level(), 2);
    until_usual();
    assert_eq!(world.get("/slave(1)/logging/toggle?level=1&duration=500ms").0, 200);
    assert_eq!(world.get("/logging/toggle"), (200, "1\n".to_owned()));
    until_usual();
    assert_eq!(*applied.lock().unwrap(), [2, 0, 1, 0]);
    let without = world.post("/api/v1", &json!({"type": "SET_LOGGING_LEVEL"}));
    assert_eq!(without, (400, "Expecting 'set_logging_level' to be present".to_owned()));
    for wrong in ["level=1", "duration=1secs", "level=x&duration=1secs", "level=1&duration=soon"] {
        assert_eq!(world.get(&format!("/logging/toggle?{wrong}")).0, 400, "{wrong}");
    }
}

#[test]
fn a_drain_is_shown_with_its_begin() {
    use proto::agent::v1::{Drain, master_message::Body};

    let world = World::new(|_| {});
    let before = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(world.json("/state").get("estimated_drain_start_time_seconds").is_none());
    world.master.say(Body::Drain(Drain { max_grace_period_nanos: None, mark_gone: false }));
    let begun = std::time::Instant::now();
    let state = loop {
        let state = world.json("/state");
        if state.get("drain_config").is_some() {
            break state;
        }
        assert!(begun.elapsed() < support::PATIENCE);
        std::thread::sleep(Duration::from_millis(10));
    };
    let began = state["estimated_drain_start_time_seconds"].as_f64().unwrap();
    assert!((before..before + 60.0).contains(&began), "{began}");
    let answer: Value = serde_json::from_str(&world.post("/api/v1", &json!({"type": "GET_AGENT"})).1).unwrap();
    let nanoseconds = answer["get_agent"]["estimated_drain_start_time"]["nanoseconds"].as_f64().unwrap();
    assert!((nanoseconds / 1e9 - began).abs() < 0.001, "{answer}");
}
