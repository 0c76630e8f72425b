//! What a container is given besides its command, what it is held to, and what stays of it.
#![allow(clippy::unwrap_used, missing_docs, reason = "the helpers of a test fail by panicking")]

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use mesos_proto::v1::executor_info::Type;
use mesos_proto::v1::volume::{Mode, Source, source};
use mesos_proto::v1::{ContainerInfo, LinuxInfo, Secret, TaskInfo, TaskState, Volume, container_info, secret, task_status};
use serde_json::{Value, json};
use support::{PATIENCE, World, executor, framework, names, resources, task};

fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn lives(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, it)| !it.starts_with('Z'))
}

fn mesos(info: ContainerInfo) -> Option<ContainerInfo> {
    Some(ContainerInfo { r#type: container_info::Type::Mesos as i32, ..info })
}

fn secret_volume(path: &str, value: Option<&[u8]>) -> Volume {
    let secret = Secret {
        r#type: Some(if value.is_some() { secret::Type::Value } else { secret::Type::Reference } as i32),
        value: value.map(|it| secret::Value { data: it.to_vec() }),
        reference: value.is_none().then(|| secret::Reference { name: "name".to_owned(), key: None }),
    };
    Volume {
        mode: Mode::Ro as i32,
        container_path: path.to_owned(),
        source: Some(Source { r#type: Some(source::Type::Secret as i32), secret: Some(secret), ..Source::default() }),
        ..Volume::default()
    }
}

#[test]
fn a_secret_is_a_file_for_its_task_alone_and_goes_with_it() {
    let world = World::new(|_| {});
    world.master.acknowledge_all(true);
    let framework = framework(true);
    let mut it = task("secretive", "cat dir/key > copy; stat -c '%U %a' dir/key > mode; (echo x > dir/key) 2> failed; echo $? > status");
    it.command.as_mut().unwrap().user = Some("daemon".to_owned());
    it.container = mesos(ContainerInfo { volumes: vec![secret_volume("dir/key", Some(b"hush"))], ..ContainerInfo::default() });
    world.master.run_task(&framework, &it);
    assert_eq!(names(&world.master.states("secretive")).last(), Some(&"TASK_FINISHED"));
    let sandbox = world.sandbox(&framework, "secretive");
    let read = |name: &str| std::fs::read_to_string(sandbox.join(name)).unwrap_or_default();
    assert_eq!((read("copy").as_str(), read("mode").trim(), read("dir/key").as_str()), ("hush", "daemon 400", ""));
    let keeper = world.directory.path().join("run/containers").join(world.container(&framework, "secretive"));
    until("nothing of the secret is left", || !keeper.exists());
    let mut other = task("by-reference", "true");
    other.container = mesos(ContainerInfo { volumes: vec![secret_volume("key", None)], ..ContainerInfo::default() });
    world.master.run_task(&framework, &other);
    assert!(world.master.status("by-reference").message.unwrap().contains("no secret resolver"));
}

#[test]
fn a_directory_of_the_host_at_its_own_path_is_read_only_where_that_is_asked_for() {
    let world = World::new(|_| {});
    world.master.acknowledge_all(true);
    let framework = framework(true);
    let shared = world.directory.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    for (mode, id) in [(Mode::Rw, "writes"), (Mode::Ro, "reads")] {
        let mut it = task(id, &format!("touch {}/{id} || echo refused > status", shared.display()));
        let path = shared.display().to_string();
        let volume = Volume { mode: mode as i32, container_path: path.clone(), host_path: Some(path), ..Volume::default() };
        it.container = mesos(ContainerInfo { volumes: vec![volume], ..ContainerInfo::default() });
        world.master.run_task(&framework, &it);
        assert_eq!(names(&world.master.states(id)).last(), Some(&"TASK_FINISHED"));
        let is_refused = world.sandbox(&framework, id).join("status").exists();
        assert_eq!((is_refused, shared.join(id).exists()), (mode == Mode::Ro, mode == Mode::Rw));
    }
}

#[test]
fn a_task_whose_agent_does_not_come_back_ends() {
    let mut world = World::new(|config| {
        config.recovery_timeout = Duration::from_secs(1);
        config.executor_shutdown_grace_period = Duration::from_millis(100);
    });
    world.master.acknowledge_all(true);
    let framework = framework(true);
    world.master.run_task(&framework, &task("forsaken", "trap '' TERM; echo $$ > pid; while :; do sleep 1; done"));
    world.master.state("forsaken", TaskState::TaskRunning);
    let pid = world.sandbox(&framework, "forsaken").join("pid");
    until("its pid", || std::fs::read_to_string(&pid).is_ok_and(|it| it.ends_with('\n')));
    let pid = std::fs::read_to_string(&pid).unwrap().trim().to_owned();
    // As long as the agent is there it goes on, however long that is.
    std::thread::sleep(Duration::from_millis(2500));
    assert!(lives(&pid));
    world.kill_agent();
    until("the end of the task", || !lives(&pid));
    world.start_agent();
    assert_eq!(names(&world.master.states("forsaken")), ["TASK_FAILED"]);
}

#[test]
fn what_whoever_started_the_agent_has_left_open_does_not_reach_a_container() {
    use agent::keeper::{Files, Spec};

    let directory = tempfile::tempdir().unwrap();
    let sandbox = directory.path().join("sandbox");
    std::fs::create_dir(&sandbox).unwrap();
    let spec = Spec {
        arguments: ["/bin/sh", "-c", "ls -l /proc/self/fd"].map(str::to_owned).to_vec(),
        directory: sandbox.clone(),
        stdout: sandbox.join("stdout"),
        stderr: sandbox.join("stderr"),
        ..Spec::default()
    };
    agent::keeper::write_whole(&Files::of(directory.path()).spec(), &serde_json::to_vec(&spec).unwrap()).unwrap();
    let secret = directory.path().join("somebodys");
    std::fs::write(&secret, "secret").unwrap();
    let kept = std::process::Command::new("sh")
        .args(["-c", r#"exec "$0" "$1" 9<"$2""#, env!("CARGO_BIN_EXE_keep-container")])
        .args([directory.path(), &secret])
        .status();
    assert!(kept.unwrap().success());
    let open = std::fs::read_to_string(sandbox.join("stdout")).unwrap();
    assert!(open.contains("pipe:") && !open.contains("somebodys"), "{open}");
}

#[test]
fn a_second_agent_of_the_same_runtime_directory_does_not_start() {
    let world = World::new(|_| {});
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let mut config = world.config.clone();
    config.work_dir = world.directory.path().join("other");
    let stopping = tokio_util::sync::CancellationToken::new();
    let ended = runtime.block_on(agent::agent::run(config, listener, stopping));
    assert!(matches!(ended, Err(agent::agent::AgentError::Locked(..))), "{ended:?}");
}

/// Serves one file, of which it sends the first half, and the rest when it is told to.
fn half_a_file() -> (String, std::sync::mpsc::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (go_on, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        while !lines.next().unwrap().unwrap().is_empty() {}
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\nhalf").unwrap();
        let _ = wait.recv();
        drop(stream.write_all(b"half"));
    });
    (format!("http://{address}/file"), go_on)
}

#[test]
fn a_task_that_is_killed_while_its_files_come_leaves_nothing() {
    let world = World::new(|_| {});
    world.master.acknowledge_all(true);
    let framework = framework(true);
    let (uri, go_on) = half_a_file();
    let mut it = task("early", "sleep 1000");
    it.command.as_mut().unwrap().uris = vec![mesos_proto::v1::command_info::Uri { value: uri, ..Default::default() }];
    world.master.run_task(&framework, &it);
    let drafts = world.directory.path().join("work/drafts");
    until("half of the file", || drafts.join("0/plain/file").exists());
    let container = world.container(&framework, "early");
    world.master.kill(&framework, "early");
    let last = world.master.states("early").pop().unwrap();
    assert_ne!(last.state(), TaskState::TaskFinished);
    go_on.send(()).unwrap();
    until("the end of the fetch", || !drafts.join("0").exists());
    let cgroup = format!("/sys/fs/cgroup/freezer/{}/{container}", world.config.cgroups_root);
    let keeper = world.directory.path().join("run/containers").join(&container);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(500) {
        assert!(!Path::new(&cgroup).exists(), "a cgroup that nobody removes");
        std::thread::sleep(Duration::from_millis(10));
    }
    until("nothing is left", || !keeper.exists());
}

#[test]
fn a_member_of_a_pod_that_needs_more_memory_than_its_own_ends_alone() {
    let world = World::new(|_| {});
    world.master.acknowledge_all(true);
    let framework = framework(true);
    let info = mesos_proto::v1::ExecutorInfo { resources: resources(0.1, 64.0), ..executor("pod", Type::Default, None) };
    let apart = |it: TaskInfo, megabytes: f64| TaskInfo {
        resources: resources(0.1, megabytes),
        container: mesos(ContainerInfo {
            linux_info: Some(LinuxInfo { share_cgroups: Some(false), ..LinuxInfo::default() }),
            ..ContainerInfo::default()
        }),
        ..it
    };
    world.master.run_group(&framework, &info, vec![apart(task("calm", "sleep 1000"), 128.0)]);
    world.master.state("calm", TaskState::TaskRunning);
    world.master.run_group(&framework, &info, vec![apart(task("hungry", "x=a; while :; do x=$x$x; done"), 32.0)]);
    let last = world.master.states("hungry").pop().unwrap();
    assert_eq!((last.state(), last.reason()), (TaskState::TaskFailed, task_status::Reason::ContainerLimitationMemory), "{last:?}");
    // Longer than it takes to notice that memory was short.
    std::thread::sleep(Duration::from_millis(1200));
    let tasks = world.json("/state")["frameworks"][0]["executors"][0]["tasks"].clone();
    assert_eq!(tasks[0]["id"], "calm", "{tasks}");
    world.master.kill(&framework, "calm");
    assert_eq!(names(&world.master.states("calm")), ["TASK_KILLING", "TASK_KILLED"]);
}

#[test]
fn who_listens_on_a_port_that_is_not_its_own_is_ended_where_that_is_enforced() {
    let world = World::new(|config| {
        config.isolation.push("network/ports".to_owned());
        config.enforce_container_ports = true;
        config.container_ports_watch_interval = Duration::from_millis(200);
    });
    world.master.acknowledge_all(true);
    let framework = framework(true);
    let port = {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        u64::from(free.local_addr().unwrap().port())
    };
    let listen = format!("busybox nc -l -p {port}");
    let mut allowed = task("allowed", &format!("{listen} & sleep 1; exit 0"));
    allowed.resources.push(agent::words::ranges_resource("ports", [(port, port)]));
    world.master.run_task(&framework, &allowed);
    assert_eq!(names(&world.master.states("allowed")).last(), Some(&"TASK_FINISHED"));
    world.master.run_task(&framework, &task("foreign", &listen));
    let last = world.master.states("foreign").pop().unwrap();
    assert_eq!((last.state(), last.reason()), (TaskState::TaskFailed, task_status::Reason::ContainerLimitation), "{last:?}");
    assert!(last.message.unwrap().ends_with(&format!("unallocated port(s): [{port}-{port}]")));
}

#[test]
fn containers_of_clients_are_not_shown_when_they_are_over_and_forgotten_with_what_they_were_in() {
    let world = World::new(|_| {});
    world.master.acknowledge_all(true);
    let framework = framework(true);
    world.master.run_task(&framework, &task("host", "sleep 1000"));
    world.master.state("host", TaskState::TaskRunning);
    let id = json!({"value": "short", "parent": {"value": world.container(&framework, "host")}});
    let call = |name: &str, of: Value| {
        let (status, body) = world.post("/api/v1", &json!({"type": name.to_uppercase(), name: of}));
        (status, serde_json::from_str::<Value>(&body).unwrap_or(Value::String(body)))
    };
    let launched = |id: &Value| call("launch_nested_container", json!({"container_id": id, "command": {"value": "exit 3"}}));
    let waited = || call("wait_nested_container", json!({"container_id": id}));
    assert_eq!(launched(&id).0, 200);
    assert_eq!(waited().1["wait_nested_container"]["exit_status"], 3 << 8);
    let shown = call("get_containers", json!({"show_nested": true})).1;
    assert_eq!(shown["get_containers"]["containers"].as_array().unwrap().len(), 1, "{shown}");
    assert_eq!(waited().0, 200, "who asks late hears it, too");
    let (status, problem) = launched(&json!({"value": "below", "parent": id}));
    assert_eq!(status, 400);
    assert!(problem.as_str().unwrap().contains("has ended"), "{problem}");
    world.master.kill(&framework, "host");
    world.master.state("host", TaskState::TaskKilled);
    let keepers = world.directory.path().join("run/containers");
    until("they are forgotten", || std::fs::read_dir(&keepers).unwrap().count() == 0 && waited().0 == 404);
}

#[test]
fn without_cgroups_a_tasks_session_ends_with_it_though_its_keeper_was_killed() {
    let world = World::new(|config| config.isolation = vec!["posix/cpu".to_owned(), "posix/mem".to_owned()]);
    world.master.acknowledge_all(true);
    let framework = framework(true);
    world.master.run_task(&framework, &task("plain", "sleep 1000 & echo $! > pid; wait"));
    world.master.state("plain", TaskState::TaskRunning);
    let pid = world.sandbox(&framework, "plain").join("pid");
    until("its pid", || std::fs::read_to_string(&pid).is_ok_and(|it| it.ends_with('\n')));
    let pid = std::fs::read_to_string(&pid).unwrap().trim().to_owned();
    let noted = world.directory.path().join("run/containers").join(world.container(&framework, "plain")).join("pid");
    let keeper = std::fs::read_to_string(noted).unwrap().split(' ').next().unwrap().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(keeper), nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(names(&world.master.states("plain")).last(), Some(&"TASK_FAILED"));
    until("the end of its processes", || !lives(&pid));
}
