//! Command tasks as real processes in real cgroups.
#![allow(clippy::unwrap_used, missing_docs, reason = "the helpers of a test fail by panicking")]

mod support;

use std::time::Duration;

use mesos_proto::v1::linux_info::IpcMode;
use mesos_proto::v1::volume::source::DockerVolume;
use mesos_proto::v1::volume::{Source, source};
use mesos_proto::v1::{
    ContainerInfo, DurationInfo, HealthCheck, KillPolicy, LinuxInfo, NetworkInfo, SeccompInfo, TaskState, Volume, container_info,
    health_check, task_status,
};
use support::{World, framework, names, task};

#[test]
fn a_command_runs_in_its_sandbox_and_its_end_is_told() {
    let world = World::new(|_| {});
    world.master.acknowledge_all(true);
    let framework = framework(true);
    world.master.run_task(&framework, &task("hello", "echo out; echo err >&2; pwd > where; env > env; cat /proc/self/cgroup > cgroup"));
    let statuses = world.master.states("hello");
    assert_eq!(names(&statuses), ["TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"]);
    assert_eq!(statuses[2].message.as_deref(), Some("Command exited with status 0"));
    let sandbox = world.sandbox(&framework, "hello");
    let read = |name: &str| std::fs::read_to_string(sandbox.join(name)).unwrap();
    assert_eq!((read("stdout"), read("stderr")), ("out\n".to_owned(), "err\n".to_owned()));
    assert_eq!(read("where").trim(), sandbox.to_str().unwrap());
    let env = read("env");
    for variable in [
        "MESOS_FRAMEWORK_ID=test-0000",
        "MESOS_EXECUTOR_ID=hello",
        "MESOS_CHECKPOINT=1",
        "MESOS_RECOVERY_TIMEOUT=15mins",
        "MESOS_ALLOCATION_ROLE=dev",
    ] {
        assert!(env.lines().any(|it| it == variable), "{variable} in {env}");
    }
    assert!(!env.contains("CARGO"), "the agent's own environment is not inherited: {env}");
    assert!(read("cgroup").contains(&format!("freezer:/{}", world.config.cgroups_root)));

    world.master.run_task(&framework, &task("fails", "exit 3"));
    let statuses = world.master.states("fails");
    assert_eq!(
        (statuses.last().unwrap().state(), statuses.last().unwrap().message.as_deref()),
        (TaskState::TaskFailed, Some("Command exited with status 3"))
    );
    world.master.run_task(&framework, &task("signalled", "kill -SEGV $$"));
    let message = world.master.states("signalled").last().unwrap().message.clone().unwrap();
    assert_eq!(message, "Command terminated with signal Segmentation fault");

    let state = world.json("/slave(1)/state");
    assert_eq!(state["id"], support::AGENT_ID);
    let listing = world.json(&format!("/files/browse?path={}", sandbox.display()));
    assert!(listing.as_array().unwrap().iter().any(|it| it["path"].as_str().unwrap().ends_with("/stdout")), "{listing}");
    assert_eq!(world.json(&format!("/files/read?path={}/stdout&offset=1&length=2", sandbox.display()))["data"], "ut");
}

#[test]
fn what_cannot_be_launched_says_why() {
    let world = World::new(|_| {});
    let framework = framework(true);
    let mut missing = task("missing", "true");
    missing.command.as_mut().unwrap().uris =
        vec![mesos_proto::v1::command_info::Uri { value: "/does/not/exist".to_owned(), ..Default::default() }];
    world.master.run_task(&framework, &missing);
    let status = world.master.status("missing");
    assert_eq!((status.state(), status.reason()), (TaskState::TaskFailed, task_status::Reason::ContainerLaunchFailed));
    assert!(status.message.unwrap().contains("/does/not/exist"));

    let mut nobody = task("nobody", "true");
    nobody.command.as_mut().unwrap().user = Some("no-such-user".to_owned());
    world.master.run_task(&framework, &nobody);
    assert!(world.master.status("nobody").message.unwrap().contains("no-such-user"));

    let mut absent = task("absent", "/no/such/program");
    absent.command.as_mut().unwrap().shell = Some(false);
    world.master.run_task(&framework, &absent);
    assert!(world.master.status("absent").message.unwrap().contains("/no/such/program"));
    // What would silently be something else.
    let network = NetworkInfo { name: Some("no-such-network".to_owned()), ..Default::default() };
    let driver = DockerVolume { driver: Some("rexray".to_owned()), name: "v".to_owned(), driver_options: None };
    let volume = Volume {
        container_path: "v".to_owned(),
        source: Some(Source { r#type: Some(source::Type::DockerVolume as i32), docker_volume: Some(driver), ..Default::default() }),
        ..Default::default()
    };
    let seccomp = SeccompInfo { profile_name: Some("strict.json".to_owned()), unconfined: Some(false) };
    let propagation = mesos_proto::v1::MountPropagation { mode: Some(mesos_proto::v1::mount_propagation::Mode::Bidirectional as i32) };
    let host_path = source::HostPath { path: "/tmp".to_owned(), mount_propagation: Some(propagation) };
    let shared = Volume {
        container_path: "shared".to_owned(),
        source: Some(Source { r#type: Some(source::Type::HostPath as i32), host_path: Some(host_path), ..Default::default() }),
        ..Default::default()
    };
    for (name, info, why) in [
        ("shared-mounts", ContainerInfo { volumes: vec![shared], ..Default::default() }, "BIDIRECTIONAL"),
        ("named-network", ContainerInfo { network_infos: vec![network], ..Default::default() }, "Unknown CNI network 'no-such-network'"),
        ("external-volume", ContainerInfo { volumes: vec![volume], ..Default::default() }, "DOCKER_VOLUME"),
        (
            "seccomp",
            ContainerInfo { linux_info: Some(LinuxInfo { seccomp: Some(seccomp), ..Default::default() }), ..Default::default() },
            "strict.json",
        ),
    ] {
        let mut asked = task(name, "true");
        asked.container = Some(ContainerInfo { r#type: container_info::Type::Mesos as i32, ..info });
        world.master.run_task(&framework, &asked);
        let status = world.master.status(name);
        assert_eq!((status.state(), status.reason()), (TaskState::TaskFailed, task_status::Reason::ContainerLaunchFailed));
        assert!(status.message.as_ref().unwrap().contains(why), "{status:?}");
    }

    let mut other = task("other-user", "id -un > who");
    other.command.as_mut().unwrap().user = Some("daemon".to_owned());
    world.master.acknowledge_all(true);
    world.master.run_task(&framework, &other);
    world.master.state("other-user", TaskState::TaskFinished);
    assert_eq!(std::fs::read_to_string(world.sandbox(&framework, "other-user").join("who")).unwrap(), "daemon\n");
    let mut private = task("private-ipc", "readlink /proc/self/ns/ipc > ns; df -k --output=size /dev/shm | tail -1 > shm");
    let linux = LinuxInfo { ipc_mode: Some(IpcMode::Private as i32), shm_size: Some(8), ..Default::default() };
    private.container = Some(ContainerInfo { r#type: container_info::Type::Mesos as i32, linux_info: Some(linux), ..Default::default() });
    world.master.run_task(&framework, &private);
    world.master.state("private-ipc", TaskState::TaskFinished);
    let read = |name: &str| std::fs::read_to_string(world.sandbox(&framework, "private-ipc").join(name)).unwrap();
    assert_eq!(read("shm").trim(), "8192");
    assert_ne!(read("ns").trim(), std::fs::read_link("/proc/self/ns/ipc").unwrap().to_str().unwrap());
}

#[test]
fn a_killed_task_has_its_grace_and_no_more() {
    let world = World::new(|_| {});
    world.master.acknowledge_all(true);
    let framework = framework(true);
    world.master.run_task(&framework, &task("gentle", "trap 'echo bye; exit 0' TERM; while :; do sleep 0.1; done"));
    world.master.state("gentle", TaskState::TaskRunning);
    // The trap has to be set.
    std::thread::sleep(Duration::from_millis(500));
    world.master.kill(&framework, "gentle");
    let statuses = world.master.states("gentle");
    assert_eq!(names(&statuses), ["TASK_KILLING", "TASK_KILLED"]);
    assert_eq!(std::fs::read_to_string(world.sandbox(&framework, "gentle").join("stdout")).unwrap(), "bye\n");

    let mut stubborn = task("stubborn", "trap '' TERM; (trap '' TERM; sleep 1000) & while :; do sleep 0.1; done");
    stubborn.kill_policy = Some(KillPolicy { grace_period: Some(DurationInfo { nanoseconds: 300_000_000 }) });
    world.master.run_task(&framework, &stubborn);
    world.master.state("stubborn", TaskState::TaskRunning);
    std::thread::sleep(Duration::from_millis(500));
    let cgroup = format!("/sys/fs/cgroup/freezer/{}/{}/cgroup.procs", world.config.cgroups_root, world.container(&framework, "stubborn"));
    assert!(std::fs::read_to_string(&cgroup).unwrap().lines().count() >= 2);
    world.master.kill(&framework, "stubborn");
    assert_eq!(names(&world.master.states("stubborn")), ["TASK_KILLING", "TASK_KILLED"]);
    assert!(!std::path::Path::new(&cgroup).exists(), "nothing of it is left");
}

#[test]
fn a_task_that_needs_more_memory_than_it_has_is_ended_for_that() {
    let world = World::new(|_| {});
    world.master.acknowledge_all(true);
    let framework = framework(true);
    let mut hungry = task("hungry", "x=a; while :; do x=$x$x; done");
    hungry.resources = support::resources(0.5, 32.0);
    world.master.run_task(&framework, &hungry);
    let last = world.master.states("hungry").pop().unwrap();
    assert_eq!(
        (last.state(), last.reason(), last.source()),
        (TaskState::TaskFailed, task_status::Reason::ContainerLimitationMemory, task_status::Source::Agent)
    );
    assert!(last.message.as_ref().unwrap().starts_with("Memory limit exceeded: Requested: 64MB Maximum Used: "), "{last:?}");
    assert_eq!(last.limitation.unwrap().resources[0].name, "mem");
}

#[test]
fn disk_is_measured_and_limited_where_that_is_wanted() {
    let world = World::new(|config| {
        config.enforce_container_disk_quota = true;
        config.container_disk_watch_interval = Duration::from_millis(200);
    });
    world.master.acknowledge_all(true);
    let framework = framework(true);
    let mut greedy = task("greedy", "head -c 8000000 /dev/zero > file; sleep 1000");
    greedy.resources.push(agent::words::scalar_resource("disk", 4.0));
    world.master.run_task(&framework, &greedy);
    let last = world.master.states("greedy").pop().unwrap();
    assert_eq!((last.state(), last.reason()), (TaskState::TaskFailed, task_status::Reason::ContainerLimitationDisk));
    assert!(last.message.unwrap().ends_with("exceeds quota (4MB)"));
}

#[test]
fn a_task_without_end_is_ended_at_its_time() {
    let world = World::new(|_| {});
    world.master.acknowledge_all(true);
    let framework = framework(true);
    let mut endless = task("endless", "sleep 1000");
    endless.max_completion_time = Some(DurationInfo { nanoseconds: 500_000_000 });
    world.master.run_task(&framework, &endless);
    let last = world.master.states("endless").pop().unwrap();
    assert_eq!((last.state(), last.reason()), (TaskState::TaskFailed, task_status::Reason::MaxCompletionTimeReached));
}

#[test]
fn tasks_go_on_without_the_agent_and_it_finds_them_again() {
    let mut world = World::new(|_| {});
    let framework = framework(true);
    world.master.run_task(&framework, &task("survivor", "while [ ! -e stop ]; do echo tick; sleep 0.1; done"));
    world.master.run_task(&framework, &task("ends-alone", "while [ ! -e stop ]; do sleep 0.1; done; exit 7"));
    // Only the first is acknowledged by nobody: it waits.
    assert_eq!(world.master.status("survivor").state(), TaskState::TaskStarting);
    world.master.acknowledge_all(true);
    world.master.state("ends-alone", TaskState::TaskStarting);
    let (survivor, alone) = (world.sandbox(&framework, "survivor"), world.sandbox(&framework, "ends-alone"));
    world.kill_agent();
    let before = std::fs::metadata(survivor.join("stdout")).unwrap().len();
    std::fs::write(alone.join("stop"), "").unwrap();
    std::thread::sleep(Duration::from_millis(1000));
    assert!(std::fs::metadata(survivor.join("stdout")).unwrap().len() > before, "it goes on");
    world.start_agent();
    let registration = world.master.registration(1);
    assert_eq!(registration.tasks.len(), 2);
    assert_eq!(mesos_proto::v1::AgentInfo::decode(&*registration.agent_info).unwrap().id.unwrap().value, support::AGENT_ID);
    // What was not acknowledged comes again, in order.
    assert_eq!(world.master.status("survivor").state(), TaskState::TaskStarting);
    world.master.state("survivor", TaskState::TaskRunning);
    let last = world.master.states("ends-alone").pop().unwrap();
    assert_eq!((last.state(), last.message.as_deref()), (TaskState::TaskFailed, Some("Command exited with status 7")));
    world.master.kill(&framework, "survivor");
    world.master.state("survivor", TaskState::TaskKilled);
}

#[test]
fn without_checkpoints_nothing_survives() {
    let mut world = World::new(|_| {});
    world.master.acknowledge_all(true);
    let framework = framework(false);
    world.master.run_task(&framework, &task("mortal", "sleep 1000"));
    world.master.state("mortal", TaskState::TaskRunning);
    let cgroup = format!("/sys/fs/cgroup/freezer/{}/{}", world.config.cgroups_root, world.container(&framework, "mortal"));
    assert!(std::path::Path::new(&cgroup).exists());
    world.kill_agent();
    assert!(std::path::Path::new(&cgroup).exists());
    world.start_agent();
    assert!(world.master.registration(1).tasks.is_empty());
    let begun = std::time::Instant::now();
    while std::path::Path::new(&cgroup).exists() {
        assert!(begun.elapsed() < support::PATIENCE);
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_task_that_is_not_well_is_told_and_killed() {
    let world = World::new(|_| {});
    world.master.acknowledge_all(true);
    let framework = framework(true);
    let mut sick = task("sick", "touch well; sleep 1000");
    sick.health_check = Some(HealthCheck {
        r#type: Some(health_check::Type::Command as i32),
        command: Some(mesos_proto::v1::CommandInfo { value: Some("test -e well".to_owned()), ..Default::default() }),
        delay_seconds: Some(0.0),
        interval_seconds: Some(0.2),
        grace_period_seconds: Some(5.0),
        timeout_seconds: Some(20.0),
        consecutive_failures: Some(2),
        ..HealthCheck::default()
    });
    world.master.run_task(&framework, &sick);
    let well = loop {
        let status = world.master.status("sick");
        if status.healthy.is_some() {
            break status;
        }
    };
    assert_eq!(
        (well.state(), well.healthy, well.reason()),
        (TaskState::TaskRunning, Some(true), task_status::Reason::TaskHealthCheckStatusUpdated)
    );
    std::fs::remove_file(world.sandbox(&framework, "sick").join("well")).unwrap();
    let rest = world.master.states("sick");
    assert_eq!(names(&rest), ["TASK_RUNNING", "TASK_RUNNING", "TASK_KILLING", "TASK_KILLED"]);
    assert!(rest.iter().all(|it| it.healthy == Some(false)));

    let mut tcp = task("tcp", "sleep 1000");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    tcp.health_check = Some(HealthCheck {
        r#type: Some(health_check::Type::Tcp as i32),
        tcp: Some(health_check::TcpCheckInfo { port: u32::from(listener.local_addr().unwrap().port()), ..Default::default() }),
        delay_seconds: Some(0.0),
        interval_seconds: Some(0.2),
        ..HealthCheck::default()
    });
    world.master.run_task(&framework, &tcp);
    while world.master.status("tcp").healthy != Some(true) {}
}

use prost::Message as _;

#[test]
fn a_task_has_the_capabilities_that_it_asks_for_whoever_it_runs_as() {
    use mesos_proto::v1::{CapabilityInfo, ContainerInfo, LinuxInfo, capability_info::Capability, container_info};

    let world = World::new(|config| config.isolation.push("linux/nnp".to_owned()));
    world.master.acknowledge_all(true);
    let framework = framework(true);
    let of = |all: &[Capability]| Some(CapabilityInfo { capabilities: all.iter().map(|it| *it as i32).collect() });
    let run = |id: &str, linux_info: LinuxInfo| {
        let mut it = task(id, "grep -E '^(Cap(Prm|Eff|Bnd|Amb)|NoNewPrivs)' /proc/self/status > has");
        if let Some(command) = &mut it.command {
            command.user = Some("nobody".to_owned());
        }
        let r#type = container_info::Type::Mesos as i32;
        it.container = Some(ContainerInfo { r#type, linux_info: Some(linux_info), ..ContainerInfo::default() });
        world.master.run_task(&framework, &it);
        let statuses = world.master.states(id);
        assert_eq!(names(&statuses).last(), Some(&"TASK_FINISHED"), "{statuses:#?}");
        let has = std::fs::read_to_string(world.sandbox(&framework, id).join("has")).unwrap();
        has.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let binds = of(&[Capability::NetBindService]);
    let effective = run("effective", LinuxInfo { effective_capabilities: binds.clone(), ..LinuxInfo::default() });
    let all = "0000000000000400";
    assert_eq!(effective, format!("CapPrm: {all} CapEff: {all} CapBnd: {all} CapAmb: {all} NoNewPrivs: 1"));
    let bounding = run("bounding", LinuxInfo { bounding_capabilities: binds, ..LinuxInfo::default() });
    let none = "0000000000000000";
    assert_eq!(bounding, format!("CapPrm: {none} CapEff: {none} CapBnd: {all} CapAmb: {none} NoNewPrivs: 1"));
}
