//! An agent that its master does not want any more, and the one that follows it.
#![allow(clippy::unwrap_used, missing_docs, reason = "the helpers of a test fail by panicking")]

mod support;

use std::time::{Duration, Instant};

use mesos_proto::v1::{AgentInfo, TaskState, executor_info};
use prost::Message as _;
use proto::agent::v1 as wire;
use proto::agent::v1::master_message::Body as Theirs;
use support::{PATIENCE, World, executor, framework, task};

fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn id_of(registration: &wire::Register) -> Option<String> {
    AgentInfo::decode(&*registration.agent_info).unwrap().id.map(|it| it.value)
}

/// A shell that writes its pid down and goes on.
fn endless(id: &str) -> mesos_proto::v1::TaskInfo {
    task(id, "echo $$ > pid; exec sleep 1000")
}

fn pid_in(sandbox: &std::path::Path) -> i32 {
    let file = sandbox.join("pid");
    until("the task has begun", || std::fs::read_to_string(&file).is_ok_and(|it| it.ends_with('\n')));
    std::fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

/// Between two agents nobody answers, or that one ends.
fn is_agent(world: &World, id: &str) -> bool {
    let answer = ureq::get(format!("http://{}/state", world.http)).call().and_then(|mut it| it.body_mut().read_to_string());
    answer.ok().and_then(|it| serde_json::from_str::<serde_json::Value>(&it).ok()).is_some_and(|it| it["id"] == id)
}

fn lives(pid: i32) -> bool {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None).is_ok()
}

#[test]
fn who_is_shut_down_ends_its_tasks_and_comes_back_as_a_new_agent() {
    let mut world = World::new(|_| {});
    world.master.acknowledge_all(true);
    let framework = framework(true);
    world.master.run_task(&framework, &endless("command"));
    world.master.run_group(&framework, &executor("group", executor_info::Type::Default, None), vec![endless("member")]);
    for id in ["command", "member"] {
        world.master.state(id, TaskState::TaskRunning);
    }
    let member = world.json(&format!("/files/browse?path={}/containers", world.sandbox(&framework, "group").display()));
    let pids = [pid_in(&world.sandbox(&framework, "command")), pid_in(member[0]["path"].as_str().unwrap().as_ref())];
    assert!(pids.iter().all(|it| lives(*it)));

    // The machine is down: whoever comes is told the same.
    world.master.shut_down_whoever_comes(Some("the machine is down"));
    world.master.say(Theirs::ShutdownAgent(wire::ShutdownAgent { message: "the machine is down".to_owned() }));
    until("the tasks end", || !pids.iter().any(|it| lives(*it)));
    until("a new agent tries again and again", || world.master.registrations().len() >= 4);
    let tries = world.master.registrations();
    assert!(tries[1..].iter().all(|it| id_of(it).is_none() && it.tasks.is_empty() && it.frameworks.is_empty()), "{tries:#?}");
    assert_eq!(world.get("/health").0, 200);
    assert_eq!(world.json("/metrics/snapshot")["slave/registered"], 0.0);

    // It is up again.
    world.master.shut_down_whoever_comes(None);
    until("the agent has another id", || is_agent(&world, "test-S1"));
    assert_eq!(world.json("/metrics/snapshot")["slave/registered"], 1.0);
    world.master.run_task(&framework, &task("afterwards", "true"));
    world.master.state("afterwards", TaskState::TaskFinished);

    // What it remembers is of the new agent.
    world.kill_agent();
    let before = world.master.registrations().len();
    world.start_agent_as("test-S1");
    assert_eq!(id_of(&world.master.registrations()[before]).as_deref(), Some("test-S1"));
}

#[test]
fn an_agent_that_was_away_when_it_was_shut_down_hears_of_it_when_it_registers() {
    let mut world = World::new(|_| {});
    world.master.acknowledge_all(true);
    let framework = framework(true);
    world.master.run_task(&framework, &endless("survivor"));
    world.master.state("survivor", TaskState::TaskRunning);
    let pid = pid_in(&world.sandbox(&framework, "survivor"));
    world.kill_agent();
    world.master.shut_down_whoever_comes(Some("the agent is marked gone"));
    world.spawn_agent();
    until("the agent registers with its id", || world.master.registrations().get(1).is_some_and(|it| id_of(it).is_some()));
    // Only the old agent is gone.
    world.master.shut_down_whoever_comes(None);
    until("the agent has another id", || is_agent(&world, "test-S1"));
    assert!(!lives(pid));
    assert_eq!(id_of(&world.master.registrations()[2]), None);
}

#[test]
fn an_isolator_that_is_not_there_keeps_the_agent_from_starting() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = agent::config::Config::in_directories(directory.path().join("work"), directory.path().join("run"));
    config.isolation = vec!["cgroups/cpu".to_owned(), "nosuch/thing".to_owned()];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        agent::agent::run(config, listener, tokio_util::sync::CancellationToken::new()).await
    });
    assert_eq!(ended.unwrap_err().to_string(), "Unknown or unsupported isolator 'nosuch/thing'");
}

#[test]
fn an_agent_that_is_configured_otherwise_goes_on_only_where_its_policy_allows_that() {
    let mut world = World::new(|_| {});
    world.master.acknowledge_all(true);
    world.master.run_task(&framework(true), &task("steady", "sleep 1000"));
    world.master.state("steady", TaskState::TaskRunning);
    world.kill_agent();

    world.config.resources = "cpus:16;mem:4096;disk:4096".to_owned();
    let ended = world.spawn_agent().recv_timeout(PATIENCE).unwrap();
    let problem = ended.unwrap_err().to_string();
    assert!(problem.starts_with("the agent's configured resources changed from ") && problem.contains("policy equal"), "{problem}");
    world.kill_agent();

    world.config.reconfiguration_policy = agent::reconfiguration::Policy::Additive;
    world.config.attributes = "rack:new".to_owned();
    world.start_agent();
    let registration = world.master.registration(1);
    assert_eq!(registration.tasks.len(), 1, "its task goes on");
    let state = world.json("/state");
    assert_eq!((&state["resources"]["cpus"], &state["attributes"]["rack"]), (&serde_json::json!(16.0), &serde_json::json!("new")));
    world.kill_agent();

    world.config.attributes = "rack:other".to_owned();
    let ended = world.spawn_agent().recv_timeout(PATIENCE).unwrap();
    assert!(ended.unwrap_err().to_string().starts_with("the agent's attribute rack changed from new to other"));
}

/// A small disk of its own; it goes with this.
struct Disk(tempfile::TempDir);

impl Disk {
    fn of(size: &str) -> Disk {
        let at = tempfile::tempdir().unwrap();
        let options = format!("size={size},mode=755");
        nix::mount::mount(Some("tmpfs"), at.path(), Some("tmpfs"), nix::mount::MsFlags::empty(), Some(options.as_str())).unwrap();
        Disk(at)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk_ends_the_agent_and_its_tasks_go_on() {
    let disk = Disk::of("12m");
    let mut world = World::new(|config| config.work_dir = disk.0.path().join("work"));
    world.master.acknowledge_all(true);
    world.kill_agent();
    let before = world.master.registrations().len();
    let told = world.spawn_agent();
    world.master.registration(before);
    until("it is registered", || is_agent(&world, support::AGENT_ID));
    let framework = framework(true);
    world.master.run_task(&framework, &task("stays", "trap 'exit 0' TERM; while :; do sleep 0.1; done"));
    world.master.state("stays", TaskState::TaskRunning);
    // To the last block.
    let full = disk.0.path().join("full");
    let filled = std::io::copy(&mut std::io::repeat(0), &mut std::fs::File::create(&full).unwrap());
    assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    // What it has made room for before still fits.
    let ended = (0..200).find_map(|number| {
        world.master.run_task_if_there(&framework, &task(&format!("more.{number}"), "true"));
        told.recv_timeout(Duration::from_millis(100)).ok()
    });
    let problem = ended.unwrap().unwrap_err();
    let causes = std::iter::successors(Some(&problem as &dyn std::error::Error), |it| it.source());
    let words: Vec<String> = causes.map(ToString::to_string).collect();
    assert!(words.iter().any(|it| it.contains("No space left")), "{words:?}");
    world.kill_agent();
    // There is room again.
    std::fs::remove_file(full).unwrap();
    world.start_agent();
    world.master.kill(&framework, "stays");
    world.master.state("stays", TaskState::TaskKilled);
}
