//! Docker tasks, with a real daemon.
#![allow(clippy::unwrap_used, missing_docs, reason = "the helpers of a test fail by panicking")]

mod support;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use mesos_proto::v1::container_info::{self, DockerInfo, docker_info};
use mesos_proto::v1::executor_info::Type;
use mesos_proto::v1::{ContainerInfo, ExecutorInfo, Image, Parameter, TaskInfo, TaskState, Volume, image, task_status, volume};
use support::{PATIENCE, World, executor, framework, names, resources, task};

const IMAGE: &str = "agent-test:busybox";

/// Whether Docker is here; where everything has to be tested it has to be.
fn has_docker() -> bool {
    let answers = Command::new("docker").arg("info").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|it| it.success());
    assert!(answers || std::env::var_os("CI").is_none(), "docker does not answer");
    answers
}

fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// An image with a shell and a few tools, made without a registry.
fn make_image(directory: &std::path::Path) {
    // The same for all tests: the name of one that is made again is not another's any more that runs meanwhile.
    if !docker(&["images", "-q", IMAGE]).is_empty() {
        return;
    }
    make_image_at(directory, "/var/run/docker.sock".as_ref());
}

fn make_image_at(directory: &std::path::Path, socket: &std::path::Path) {
    let root = directory.join("image/bin");
    std::fs::create_dir_all(&root).unwrap();
    std::fs::copy("/bin/busybox", root.join("busybox")).unwrap();
    for name in ["sh", "sleep", "cat", "echo", "env", "touch", "wget", "nc", "dd", "ls", "test", "id", "pwd", "true"] {
        drop(std::os::unix::fs::symlink("busybox", root.join(name)));
    }
    for directory in ["etc", "tmp", "proc", "sys", "dev"] {
        std::fs::create_dir_all(directory_of(directory, &root)).unwrap();
    }
    std::fs::write(directory_of("etc", &root).join("passwd"), "root:x:0:0:root:/:/bin/sh\n").unwrap();
    let tarball = Command::new("tar").arg("-C").arg(directory.join("image")).args(["-c", "."]).output().unwrap().stdout;
    let mut import = Command::new("docker")
        .args(["--host", &format!("unix://{}", socket.display())])
        .args(["import", "-c", "ENV FROM_IMAGE=1", "-", IMAGE])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    import.stdin.take().unwrap().write_all(&tarball).unwrap();
    assert!(import.wait().unwrap().success());
}

fn directory_of(name: &str, bin: &std::path::Path) -> PathBuf {
    bin.parent().unwrap().join(name)
}

fn world() -> World {
    let world = World::new(|config| config.docker_socket = Some(PathBuf::from("/var/run/docker.sock")));
    make_image(world.directory.path());
    world.master.acknowledge_all(true);
    world
}

fn docker_task(id: &str, command: &str) -> TaskInfo {
    let mut it = task(id, command);
    it.container = Some(ContainerInfo {
        r#type: container_info::Type::Docker as i32,
        docker: Some(DockerInfo { image: IMAGE.to_owned(), network: Some(docker_info::Network::Host as i32), ..DockerInfo::default() }),
        ..ContainerInfo::default()
    });
    it
}

#[test]
fn a_container_runs_with_its_sandbox_volumes_and_variables_and_is_killed() {
    if !has_docker() {
        return;
    }
    let world = world();
    let framework = framework(true);
    let shared = world.directory.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("given"), "from the host").unwrap();
    let mut it = docker_task("d", "cat /given/given; echo err >&2; env > $MESOS_SANDBOX/env; echo $EXTRA; exec sleep 1000");
    let container = it.container.as_mut().unwrap();
    container.volumes = vec![Volume {
        mode: volume::Mode::Ro as i32,
        container_path: "/given".to_owned(),
        host_path: Some(shared.display().to_string()),
        ..Volume::default()
    }];
    container.docker.as_mut().unwrap().parameters = vec![Parameter { key: "env".to_owned(), value: "EXTRA=parameter".to_owned() }];
    world.master.run_task(&framework, &it);
    let running = world.master.state("d", TaskState::TaskRunning);
    let inspected: serde_json::Value = serde_json::from_slice(&running.data.unwrap()).unwrap();
    let name = inspected[0]["Name"].as_str().unwrap().trim_start_matches('/').to_owned();
    assert_eq!(name, format!("mesos-{}", world.container(&framework, "d")));
    let labels =
        docker(&["inspect", "-f", "{{index .Config.Labels \"mesos.task_id\"}} {{index .Config.Labels \"mesos.framework_name\"}}", &name]);
    assert_eq!(labels, "d test");
    let sandbox = world.sandbox(&framework, "d");
    let read = |name: &str| std::fs::read_to_string(sandbox.join(name)).unwrap_or_default();
    wait("the output", || read("stdout") == "from the hostparameter\n" && read("stderr") == "err\n");
    wait("its variables", || read("env").contains("FROM_IMAGE=1"));
    for line in ["MESOS_SANDBOX=/mnt/mesos/sandbox", "MESOS_TASK", "FROM_IMAGE=1"].iter().filter(|it| it.contains('=')) {
        assert!(read("env").lines().any(|it| it == *line), "{line} in {}", read("env"));
    }
    assert!(read("env").contains(&format!("MESOS_CONTAINER_NAME={name}")));
    let limits = docker(&["inspect", "-f", "{{.HostConfig.Memory}} {{.HostConfig.CpuShares}}", &name]);
    assert_eq!(limits, format!("{} 102", 64 << 20));
    let statistics = world.json("/monitor/statistics");
    assert!(statistics[0]["statistics"]["mem_limit_bytes"].as_u64().is_some_and(|it| it == 64 << 20), "{statistics}");
    world.master.kill(&framework, "d");
    let ended = world.master.states("d");
    assert_eq!(names(&ended), ["TASK_KILLING", "TASK_KILLED"]);
    assert_eq!(ended[1].message.as_deref(), Some("Container exited with status 137"));
    assert_eq!(docker(&["ps", "-q", "--filter", &format!("name={name}")]), "");
    docker(&["rm", "-f", &name]);
}

#[test]
fn ports_are_mapped_in_a_bridge_and_only_those_of_the_task() {
    if !has_docker() {
        return;
    }
    let world = world();
    let framework = framework(true);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut it = docker_task("b", "while :; do echo hello | nc -l -p 8080; done");
    it.resources.push(mesos_proto::v1::Resource {
        name: "ports".to_owned(),
        r#type: mesos_proto::v1::value::Type::Ranges as i32,
        ranges: Some(mesos_proto::v1::value::Ranges {
            range: vec![mesos_proto::v1::value::Range { begin: port.into(), end: port.into() }],
        }),
        ..Default::default()
    });
    let info = it.container.as_mut().unwrap().docker.as_mut().unwrap();
    info.network = Some(docker_info::Network::Bridge as i32);
    info.port_mappings = vec![docker_info::PortMapping { host_port: port.into(), container_port: 8080, protocol: None }];
    // Seen from inside its network: nobody listens there on the host.
    it.health_check = Some(mesos_proto::v1::HealthCheck {
        r#type: Some(mesos_proto::v1::health_check::Type::Tcp as i32),
        tcp: Some(mesos_proto::v1::health_check::TcpCheckInfo { port: 8080, ..Default::default() }),
        delay_seconds: Some(0.0),
        interval_seconds: Some(0.5),
        grace_period_seconds: Some(60.0),
        ..Default::default()
    });
    world.master.run_task(&framework, &it);
    let running = world.master.state("b", TaskState::TaskRunning);
    let address = running.container_status.unwrap().network_infos[0].ip_addresses[0].ip_address.clone().unwrap();
    assert!(address.starts_with("172."), "an address of the bridge: {address}");
    wait("an answer", || {
        use std::io::Read as _;
        let mut text = String::new();
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok_and(|mut it| it.read_to_string(&mut text).is_ok()) && text == "hello\n"
    });
    while world.master.status("b").healthy != Some(true) {}

    let mut stranger = it.clone();
    stranger.task_id.value = "stranger".to_owned();
    stranger.container.as_mut().unwrap().docker.as_mut().unwrap().port_mappings[0].host_port = 1;
    world.master.run_task(&framework, &stranger);
    let refused = world.master.status("stranger");
    assert_eq!((refused.state(), refused.reason()), (TaskState::TaskFailed, task_status::Reason::ContainerLaunchFailed));
    assert!(refused.message.unwrap().contains("Port [1] not included in resources"));
    let name = format!("mesos-{}", world.container(&framework, "b"));
    world.master.kill(&framework, "b");
    world.master.state("b", TaskState::TaskKilled);
    docker(&["rm", "-f", &name]);
}

#[test]
fn options_of_the_command_line_reach_the_daemon() {
    if !has_docker() {
        return;
    }
    let world = world();
    let framework = framework(true);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let network = format!("agent-test-{port}");
    docker(&["network", "create", &network]);
    let parameter = |key: &str, value: &str| Parameter { key: key.to_owned(), value: value.to_owned() };
    let mut it = docker_task("options", "env > $MESOS_SANDBOX/env; while :; do echo hello | nc -l -p 8080; done");
    it.container.as_mut().unwrap().docker.as_mut().unwrap().parameters = vec![
        parameter("cpus", "0.5"),
        parameter("publish", &format!("127.0.0.1:{port}:8080")),
        parameter("net", &network),
        parameter("network-alias", "web"),
        parameter("env-file", "variables"),
        parameter("mount", "type=tmpfs,target=/scratch,tmpfs-size=1m"),
        parameter("health-cmd", "true"),
    ];
    // Fetched into the sandbox before it is read.
    let variables = world.directory.path().join("variables");
    std::fs::write(&variables, "FROM_FILE=yes\n").unwrap();
    it.command.as_mut().unwrap().uris =
        vec![mesos_proto::v1::command_info::Uri { value: variables.display().to_string(), ..Default::default() }];
    world.master.run_task(&framework, &it);
    world.master.state("options", TaskState::TaskRunning);
    wait("an answer", || {
        use std::io::Read as _;
        let mut text = String::new();
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok_and(|mut it| it.read_to_string(&mut text).is_ok()) && text == "hello\n"
    });
    let name = format!("mesos-{}", world.container(&framework, "options"));
    let aliases = format!("{{{{(index .NetworkSettings.Networks {network:?}).Aliases}}}}");
    let format =
        format!("{{{{.HostConfig.NanoCpus}}}} {aliases} {{{{(index .HostConfig.Mounts 0).Target}}}} {{{{.Config.Healthcheck.Test}}}}");
    let seen = docker(&["inspect", "-f", &format, &name]);
    let env = std::fs::read_to_string(world.sandbox(&framework, "options").join("env")).unwrap();
    world.master.kill(&framework, "options");
    world.master.state("options", TaskState::TaskKilled);
    docker(&["rm", "-f", &name]);
    docker(&["network", "rm", &network]);
    assert!(seen.starts_with("500000000 [web") && seen.ends_with("] /scratch [CMD-SHELL true]"), "{seen}");
    assert!(env.lines().any(|it| it == "FROM_FILE=yes"), "{env}");

    let mut absent = docker_task("absent", "true");
    let info = absent.container.as_mut().unwrap().docker.as_mut().unwrap();
    info.image = "no.such.registry/image:1".to_owned();
    info.parameters = vec![parameter("pull", "never")];
    world.master.run_task(&framework, &absent);
    let message = world.master.status("absent").message.unwrap();
    assert_eq!(message, "Unable to find image 'no.such.registry/image:1' locally, and it may not be pulled");
}

#[test]
fn containers_go_on_without_the_agent_and_no_line_is_copied_twice() {
    if !has_docker() {
        return;
    }
    let mut world = world();
    let framework = framework(true);
    world.master.run_task(
        &framework,
        &docker_task("s", "n=0; while [ ! -e $MESOS_SANDBOX/stop ]; do n=$((n+1)); echo $n; sleep 0.1; done; exit 4"),
    );
    world.master.state("s", TaskState::TaskRunning);
    let sandbox = world.sandbox(&framework, "s");
    wait("output", || std::fs::read_to_string(sandbox.join("stdout")).unwrap().lines().count() > 3);
    world.kill_agent();
    std::thread::sleep(Duration::from_millis(500));
    world.start_agent();
    let lines = std::fs::read_to_string(sandbox.join("stdout")).unwrap().lines().count();
    wait("more output", || std::fs::read_to_string(sandbox.join("stdout")).unwrap().lines().count() > lines + 3);
    let name = format!("mesos-{}", world.container(&framework, "s"));
    std::fs::write(sandbox.join("stop"), "").unwrap();
    let last = world.master.states("s").pop().unwrap();
    assert_eq!((last.state(), last.message.as_deref()), (TaskState::TaskFailed, Some("Container exited with status 4")));
    let text = std::fs::read_to_string(sandbox.join("stdout")).unwrap();
    let numbers: Vec<u32> = text.lines().map(|it| it.parse().unwrap()).collect();
    assert_eq!(numbers, (1..=u32::try_from(numbers.len()).unwrap()).collect::<Vec<_>>());
    docker(&["rm", "-f", &name]);
}

/// Processes of a program that a directory is the argument of.
fn processes_of(directory: &std::path::Path) -> usize {
    let all = std::fs::read_dir("/proc").unwrap().flatten().map(|it| std::fs::read(it.path().join("cmdline")).unwrap_or_default());
    all.filter(|it| it.ends_with(format!("{}\0", directory.display()).as_bytes())).count()
}

#[test]
fn a_container_whose_agent_does_not_come_back_ends() {
    if !has_docker() {
        return;
    }
    let mut world = world();
    world.config.recovery_timeout = Duration::from_secs(2);
    world.config.executor_shutdown_grace_period = Duration::from_millis(100);
    world.kill_agent();
    world.start_agent();
    let watching = world.directory.path().join("run/docker");
    assert_eq!(processes_of(&watching), 0, "nobody needs it yet");
    let framework = framework(true);
    world.master.run_task(&framework, &docker_task("forsaken", "trap '' TERM; while :; do sleep 1; done"));
    world.master.state("forsaken", TaskState::TaskRunning);
    let name = format!("mesos-{}", world.container(&framework, "forsaken"));
    let lives = || !docker(&["ps", "-q", "--filter", &format!("name={name}")]).is_empty();
    // The next agent is there in time, and what looks whether it is changes with it.
    world.kill_agent();
    world.start_agent();
    std::thread::sleep(Duration::from_secs(3));
    assert!(lives());
    wait("one process looks whether the agent is there", || processes_of(&watching) == 1);
    world.kill_agent();
    wait("the end of the container", || !lives());
    wait("nobody needs it any more", || processes_of(&watching) == 0);
    world.start_agent();
    // That it runs may come again: what acknowledged it may not have reached the first agent.
    assert_eq!(names(&world.master.states("forsaken")).last(), Some(&"TASK_FAILED"));
    docker(&["rm", "-f", &name]);
}

#[test]
fn a_link_in_the_place_of_a_log_is_not_followed_by_the_next_agent() {
    if !has_docker() {
        return;
    }
    let mut world = world();
    let framework = framework(true);
    let outside = world.directory.path().join("outside");
    let command = format!("cd $MESOS_SANDBOX; ln -sf {} stdout; touch linked; while :; do echo said; sleep 0.1; done", outside.display());
    world.master.run_task(&framework, &docker_task("sly", &command));
    world.master.state("sly", TaskState::TaskRunning);
    let sandbox = world.sandbox(&framework, "sly");
    wait("the link", || sandbox.join("linked").exists());
    let name = format!("mesos-{}", world.container(&framework, "sly"));
    world.kill_agent();
    world.start_agent();
    std::thread::sleep(Duration::from_millis(1500));
    assert!(!outside.exists(), "the agent has written where a task wanted it to");
    world.master.kill(&framework, "sly");
    world.master.state("sly", TaskState::TaskKilled);
    docker(&["rm", "-f", &name]);
}

#[test]
fn a_container_that_is_over_is_removed_in_its_time_by_the_next_agent() {
    if !has_docker() {
        return;
    }
    let mut world = world();
    world.config.docker_remove_delay = Duration::from_secs(5);
    world.kill_agent();
    world.start_agent();
    let framework = framework(true);
    world.master.run_task(&framework, &docker_task("done", "true"));
    world.master.state("done", TaskState::TaskFinished);
    let name = format!("mesos-{}", world.container(&framework, "done"));
    let known = || docker(&["ps", "-aq", "--filter", &format!("name={name}")]);
    let keeper = world.directory.path().join("run/containers").join(world.container(&framework, "done"));
    wait("it is forgotten", || !keeper.exists());
    world.kill_agent();
    world.start_agent();
    assert_ne!(known(), "", "somebody may still want to look at it");
    wait("its removal", || known().is_empty());
}

/// A daemon that can be away: what it is asked goes through here.
struct Daemon {
    socket: PathBuf,
    open: std::sync::Arc<std::sync::Mutex<Vec<std::os::unix::net::UnixStream>>>,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    /// It was asked what it is deaf to.
    has_missed: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

/// Passes on what the daemon is asked, up to the first request that has this in it. Whether there was one.
fn pass(mut from: std::os::unix::net::UnixStream, mut to: &std::os::unix::net::UnixStream, but: Option<&[u8]>) -> std::io::Result<bool> {
    use std::io::Read as _;

    let mut buffer = [0; 65536];
    loop {
        let length = from.read(&mut buffer)?;
        if length == 0 {
            return Ok(false);
        }
        if but.is_some_and(|it| buffer[..length].windows(it.len()).any(|part| part == it)) {
            return Ok(true);
        }
        to.write_all(&buffer[..length])?;
    }
}

impl Daemon {
    fn start(socket: &std::path::Path) -> Daemon {
        Daemon::deaf_to(socket, None)
    }

    /// One that never hears some request.
    fn deaf_to(socket: &std::path::Path, what: Option<&'static [u8]>) -> Daemon {
        use std::net::Shutdown;
        use std::os::unix::net::{UnixListener, UnixStream};
        use std::sync::atomic::Ordering;

        drop(std::fs::remove_file(socket));
        let listener = UnixListener::bind(socket).unwrap();
        let daemon = Daemon {
            socket: socket.to_owned(),
            open: std::sync::Arc::default(),
            stop: std::sync::Arc::default(),
            has_missed: std::sync::Arc::default(),
        };
        let (open, stop, has_missed) = (daemon.open.clone(), daemon.stop.clone(), daemon.has_missed.clone());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let client = client.unwrap();
                let server = UnixStream::connect("/var/run/docker.sock").unwrap();
                open.lock().unwrap().extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
                let pairs = [(client.try_clone().unwrap(), server.try_clone().unwrap(), what), (server, client, None)];
                for (from, to, but) in pairs {
                    let has_missed = has_missed.clone();
                    std::thread::spawn(move || match pass(from, &to, but) {
                        // Who waits for the answer waits on.
                        Ok(true) => has_missed.store(true, Ordering::SeqCst),
                        _ => drop(to.shutdown(Shutdown::Write)),
                    });
                }
            }
        });
        daemon
    }

    fn stop(self) {
        self.stop.store(true, std::sync::atomic::Ordering::SeqCst);
        drop(std::os::unix::net::UnixStream::connect(&self.socket));
        drop(std::fs::remove_file(&self.socket));
        for stream in self.open.lock().unwrap().drain(..) {
            drop(stream.shutdown(std::net::Shutdown::Both));
        }
    }
}

#[test]
fn nothing_is_said_of_a_container_while_the_daemon_is_away() {
    if !has_docker() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");
    let daemon = Daemon::start(&socket);
    let world = World::new(|config| config.docker_socket = Some(socket.clone()));
    make_image(world.directory.path());
    world.master.acknowledge_all(true);
    let framework = framework(true);
    world.master.run_task(&framework, &docker_task("p", "while [ ! -e $MESOS_SANDBOX/stop ]; do sleep 0.1; done; echo over; exit 6"));
    world.master.state("p", TaskState::TaskRunning);
    let sandbox = world.sandbox(&framework, "p");
    daemon.stop();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(world.json("/state")["frameworks"][0]["executors"][0]["tasks"][0]["state"], "TASK_RUNNING");
    // It ends while nobody sees it.
    std::fs::write(sandbox.join("stop"), "").unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let _daemon = Daemon::start(&socket);
    let last = world.master.states("p").pop().unwrap();
    assert_eq!((last.state(), last.message.as_deref()), (TaskState::TaskFailed, Some("Container exited with status 6")));
    wait("its last words", || std::fs::read_to_string(sandbox.join("stdout")).unwrap().ends_with("over\n"));
    docker(&["rm", "-f", &format!("mesos-{}", world.container(&framework, "p"))]);
}

#[test]
fn an_agent_that_is_killed_at_any_step_of_a_launch_tells_what_became_of_the_task() {
    if !has_docker() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");
    // Before the image, before the container, before its start, and after it.
    for (step, has_run) in [("/images/", false), ("/containers/create", false), ("/start ", false), ("/wait", true)] {
        let deaf = Daemon::deaf_to(&socket, Some(step.as_bytes()));
        let mut world = World::new(|config| config.docker_socket = Some(socket.clone()));
        make_image(world.directory.path());
        world.master.acknowledge_all(true);
        let framework = framework(true);
        world.master.run_task(&framework, &docker_task("t", "echo ran >> $MESOS_SANDBOX/runs"));
        wait(step, || deaf.has_missed.load(std::sync::atomic::Ordering::SeqCst));
        world.kill_agent();
        deaf.stop();
        let daemon = Daemon::start(&socket);
        world.start_agent();
        let statuses = world.master.states("t");
        let last = statuses.last().unwrap();
        let runs = std::fs::read_to_string(world.sandbox(&framework, "t").join("runs")).unwrap_or_default();
        if has_run {
            assert_eq!((last.state(), runs.as_str()), (TaskState::TaskFinished, "ran\n"), "{step}: {statuses:#?}");
            docker(&["rm", "-f", &format!("mesos-{}", world.container(&framework, "t"))]);
        } else {
            let dropped = (TaskState::TaskDropped, task_status::Reason::AgentRestarted);
            assert_eq!((last.state(), last.reason(), runs.as_str()), (dropped.0, dropped.1, ""), "{step}: {statuses:#?}");
            assert!(statuses.iter().all(|it| it.state() != TaskState::TaskRunning), "{step}: {statuses:#?}");
            let label = format!("label=orchestrator.mesos.work-dir={}", world.config.work_dir.display());
            assert_eq!(docker(&["ps", "-aq", "--filter", &label]), "", "{step}");
        }
        drop(world);
        daemon.stop();
    }
}

#[test]
fn docker_has_volumes_by_their_names_and_they_may_be_in_the_sandbox() {
    if !has_docker() {
        return;
    }
    let world = world();
    let framework = framework(true);
    let unique = world.directory.path().file_name().unwrap().to_string_lossy().replace('.', "");
    let [older, newer] = ["older", "newer"].map(|it| format!("agent-test-{unique}-{it}"));
    let mut it = docker_task("named", "echo kept > /older/file; echo kept > $MESOS_SANDBOX/newer/file; cat /proc/self/oom_score_adj");
    it.limits.insert("mem".to_owned(), mesos_proto::v1::value::Scalar { value: 128.0 });
    let container = it.container.as_mut().unwrap();
    container.docker.as_mut().unwrap().volume_driver = Some("local".to_owned());
    let docker_volume = volume::source::DockerVolume { name: newer.clone(), ..Default::default() };
    let source = volume::Source {
        r#type: Some(volume::source::Type::DockerVolume as i32),
        docker_volume: Some(docker_volume),
        ..Default::default()
    };
    let mode = volume::Mode::Rw as i32;
    container.volumes = vec![
        Volume { mode, container_path: "/older".to_owned(), host_path: Some(older.clone()), ..Volume::default() },
        Volume { mode, container_path: "newer".to_owned(), source: Some(source), ..Volume::default() },
    ];
    world.master.run_task(&framework, &it);
    let statuses = world.master.states("named");
    docker(&["rm", "-f", &format!("mesos-{}", world.container(&framework, "named"))]);
    let kept = [&older, &newer].map(|it| docker(&["run", "--rm", "-v", &format!("{it}:/v"), IMAGE, "cat", "/v/file"]));
    docker(&["volume", "rm", &older, &newer]);
    assert_eq!(names(&statuses).last(), Some(&"TASK_FINISHED"), "{statuses:#?}");
    assert_eq!(kept, ["kept", "kept"]);
    let score = std::fs::read_to_string(world.sandbox(&framework, "named").join("stdout")).unwrap();
    assert!(score.trim().parse::<i32>().is_ok_and(|it| (1..1000).contains(&it)), "it may have more than is its own: {score}");
}

/// A daemon of the test's own, whose containers go on without it.
struct OwnDaemon {
    directory: PathBuf,
    process: std::process::Child,
}

impl OwnDaemon {
    fn start(directory: &std::path::Path) -> OwnDaemon {
        let at = |name: &str| directory.join(name).display().to_string();
        // In a network of its own: without a bridge it would take away that of the other daemon.
        let process = Command::new("unshare")
            .args(["--net", "--", "dockerd"])
            .args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("pid")])
            .args(["--host", &format!("unix://{}", at("own.sock"))])
            .args(["--live-restore", "--bridge", "none", "--iptables=false", "--ip6tables=false"])
            .stdout(Stdio::null())
            .stderr(std::fs::File::options().create(true).append(true).open(directory.join("log")).unwrap())
            .spawn()
            .unwrap();
        let daemon = OwnDaemon { directory: directory.to_owned(), process };
        wait("the daemon", || daemon.docker(&["info"]));
        daemon
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("own.sock")
    }

    fn docker(&self, arguments: &[&str]) -> bool {
        let mut client = Command::new("docker");
        client.arg("--host").arg(format!("unix://{}", self.socket().display())).args(arguments);
        client.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|it| it.success())
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        std::mem::forget(self);
    }
}

impl Drop for OwnDaemon {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.process.id().try_into().unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        drop(self.process.wait());
    }
}

#[test]
fn a_daemon_that_is_killed_and_started_again_finds_its_tasks_and_what_became_of_them() {
    if !has_docker() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let daemon = OwnDaemon::start(directory.path());
    let world = World::new(|config| config.docker_socket = Some(daemon.socket()));
    make_image_at(world.directory.path(), &daemon.socket());
    world.master.acknowledge_all(true);
    let framework = framework(true);
    for id in ["stays", "goes"] {
        world.master.run_task(&framework, &docker_task(id, "trap 'exit 0' TERM; while :; do sleep 0.1; done"));
        world.master.state(id, TaskState::TaskRunning);
    }
    daemon.kill();
    std::thread::sleep(Duration::from_secs(2));
    // The wish to end one of them finds no daemon, and waits for it.
    world.master.kill(&framework, "goes");
    std::thread::sleep(Duration::from_secs(1));
    let daemon = OwnDaemon::start(directory.path());
    world.master.state("goes", TaskState::TaskKilled);
    assert!(daemon.docker(&["exec", &format!("mesos-{}", world.container(&framework, "stays")), "true"]), "the other one runs");
    world.master.kill(&framework, "stays");
    let states: Vec<TaskState> = world.master.states("stays").iter().map(mesos_proto::v1::TaskStatus::state).collect();
    assert_eq!(states, [TaskState::TaskKilling, TaskState::TaskKilled], "nothing happened to it before");
}

#[test]
fn images_that_are_not_here_and_memory_that_is_not_there() {
    if !has_docker() {
        return;
    }
    let world = world();
    let framework = framework(true);
    let mut absent = docker_task("absent", "true");
    absent.container.as_mut().unwrap().docker.as_mut().unwrap().image = "127.0.0.1:1/no/such:image".to_owned();
    world.master.run_task(&framework, &absent);
    let failed = world.master.status("absent");
    assert_eq!((failed.state(), failed.reason()), (TaskState::TaskFailed, task_status::Reason::ContainerLaunchFailed));
    assert!(failed.message.unwrap().contains("127.0.0.1:1/no/such:image"));

    world.master.run_task(&framework, &docker_task("hungry", "x=a; while :; do x=$x$x; done"));
    let last = world.master.states("hungry").pop().unwrap();
    assert_eq!((last.state(), last.reason()), (TaskState::TaskFailed, task_status::Reason::ContainerLimitationMemory));
    docker(&["rm", "-f", &format!("mesos-{}", world.container(&framework, "hungry"))]);
}

/// Not Docker's container, but its image: a root file system of the task's own.
#[test]
fn the_container_of_an_executor_may_use_what_its_tasks_have_together() {
    if !has_docker() {
        return;
    }
    let world = world();
    let framework = framework(true);
    let container = docker_task("", "").container;
    let executor = ExecutorInfo { container, resources: resources(0.1, 32.0), ..executor("e", Type::Custom, Some("sleep 1000")) };
    let run = |id: &str| {
        let task = TaskInfo { command: None, executor: Some(executor.clone()), resources: resources(0.5, 64.0), ..task(id, "") };
        world.master.run_task(&framework, &task);
    };
    let allowed = || {
        let name = format!("mesos-{}.executor", world.container(&framework, "e"));
        docker(&["inspect", "--format", "{{.HostConfig.Memory}} {{.HostConfig.CpuShares}}", &name])
    };
    run("one");
    wait("the executor runs", || !world.json("/containers").as_array().unwrap().is_empty());
    wait("it has what the first task has", || allowed() == format!("{} 614", 96 << 20));
    run("two");
    wait("it has what both have", || allowed() == format!("{} 1126", 160 << 20));
}

#[test]
fn an_image_is_the_root_of_a_process() {
    if !has_docker() {
        return;
    }
    let world = world();
    let framework = framework(true);
    // A path of the host's, which is the same in the container.
    let shared = world.directory.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    let command = format!(
        "ls / > files; env > env; cat /proc/1/cmdline > first; echo $MESOS_SANDBOX; pwd; echo it > {}/written; cat /proc/self/oom_score_adj > score",
        shared.display()
    );
    let mut it = task("rooted", &command);
    it.limits.insert("mem".to_owned(), mesos_proto::v1::value::Scalar { value: f64::INFINITY });
    it.container = Some(ContainerInfo {
        r#type: container_info::Type::Mesos as i32,
        mesos: Some(container_info::MesosInfo {
            image: Some(Image {
                r#type: image::Type::Docker as i32,
                docker: Some(image::Docker { name: IMAGE.to_owned(), ..Default::default() }),
                ..Default::default()
            }),
        }),
        linux_info: Some(mesos_proto::v1::LinuxInfo { share_pid_namespace: Some(false), ..Default::default() }),
        volumes: vec![Volume {
            mode: volume::Mode::Rw as i32,
            container_path: shared.display().to_string(),
            host_path: Some(shared.display().to_string()),
            ..Volume::default()
        }],
        ..ContainerInfo::default()
    });
    world.master.run_task(&framework, &it);
    let statuses = world.master.states("rooted");
    assert_eq!(names(&statuses), ["TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"], "{statuses:#?}");
    let sandbox = world.sandbox(&framework, "rooted");
    let read = |name: &str| std::fs::read_to_string(sandbox.join(name)).unwrap();
    assert!(read("files").contains("bin") && !read("files").contains("home"), "{}", read("files"));
    assert!(read("env").contains("FROM_IMAGE=1"));
    assert_eq!(std::fs::read_to_string(shared.join("written")).unwrap(), "it\n");
    assert!(read("score").trim().parse::<i32>().is_ok_and(|it| (1..1000).contains(&it)), "{}", read("score"));
    assert!(read("first").starts_with("sh"), "its own process ids: {}", read("first"));
    assert_eq!(read("stdout"), "/mnt/mesos/sandbox\n/mnt/mesos/sandbox\n");

    // Its files go when they are pruned, and not while somebody uses them.
    let unpacked = || std::fs::read_dir(world.directory.path().join("work/store/docker")).unwrap().count();
    let prune = |kept: &[&str]| {
        let kept: Vec<_> = kept.iter().map(|it| serde_json::json!({"type": "DOCKER", "docker": {"name": it}})).collect();
        let call = serde_json::json!({"type": "PRUNE_IMAGES", "prune_images": {"excluded_images": kept}});
        assert_eq!(world.post("/api/v1", &call).0, 200);
    };
    let other = TaskInfo { container: it.container.clone(), ..task("stays", "exec sleep 1000") };
    world.master.run_task(&framework, &other);
    world.master.state("stays", TaskState::TaskRunning);
    prune(&[]);
    assert_eq!(unpacked(), 1);
    world.master.kill(&framework, "stays");
    world.master.state("stays", TaskState::TaskKilled);
    prune(&[IMAGE]);
    assert_eq!(unpacked(), 1);
    wait("it is pruned", || {
        prune(&[]);
        unpacked() == 0
    });
}

#[test]
fn an_image_is_a_volume_and_nothing_stays_mounted_where_there_are_no_cgroups() {
    if !has_docker() {
        return;
    }
    for isolation in ["cgroups/cpu,cgroups/mem,filesystem/linux,volume/image", "posix/cpu,posix/mem,filesystem/linux"] {
        let mut world = world();
        world.config.isolation = isolation.split(',').map(str::to_owned).collect();
        world.kill_agent();
        world.start_agent();
        let framework = framework(true);
        let image = Image {
            r#type: image::Type::Docker as i32,
            docker: Some(image::Docker { name: IMAGE.to_owned(), ..Default::default() }),
            ..Default::default()
        };
        let volume = |path: &str, mode: volume::Mode| Volume {
            mode: mode as i32,
            container_path: path.to_owned(),
            image: Some(image.clone()),
            ..Volume::default()
        };
        let mut it =
            task("imaged", "cat tools/etc/passwd > copy; touch tools/new || echo refused > status; touch own/new && ls own > list");
        it.container = Some(ContainerInfo {
            r#type: container_info::Type::Mesos as i32,
            volumes: vec![volume("tools", volume::Mode::Ro), volume("own", volume::Mode::Rw)],
            mesos: Some(container_info::MesosInfo { image: Some(image.clone()) }),
            ..ContainerInfo::default()
        });
        world.master.run_task(&framework, &it);
        let last = world.master.states("imaged").pop().unwrap();
        assert_eq!(last.state(), TaskState::TaskFinished, "{last:?}");
        let sandbox = world.sandbox(&framework, "imaged");
        let read = |name: &str| std::fs::read_to_string(sandbox.join(name)).unwrap_or_default();
        assert!(read("copy").starts_with("root:") && read("status") == "refused\n" && read("list").contains("new"), "{}", read("stderr"));
        let place = world.directory.path().display().to_string();
        wait("nothing is mounted", || !std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&place));
    }
}

fn wait(what: &str, is_so: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}
