//! Transcripts of what the table does.

use std::fmt::Write as _;

use super::*;
use expect_test::{Expect, expect};
use mesos_proto::v1::{
    CommandInfo, DurationInfo, ExecutorId, ExecutorInfo, FrameworkId, FrameworkInfo, HealthCheck, KillPolicy, TaskId, TaskInfo, TaskState,
    TaskStatus, executor, executor_info, framework_info, health_check, task_status,
};

mod executors;
mod properties;

struct Counting(u8);

impl Ids for Counting {
    fn uuid(&mut self) -> [u8; 16] {
        self.0 = self.0.wrapping_add(1);
        [self.0; 16]
    }
}

/// A table, its clock, and what it has stored.
struct World {
    table: Table,
    steady: Duration,
    stored: BTreeMap<RecordKey, Vec<u8>>,
    log: String,
    first_id: u8,
}

fn limits() -> Limits {
    Limits { updates_per_task: 5, completed_executors: 2, completed_frameworks: 2, completed_tasks: 2, ..Limits::default() }
}

impl World {
    fn new() -> Self {
        let mut world = World {
            table: Table::new(limits(), "10.0.0.1", Box::new(Counting(0))),
            steady: Duration::ZERO,
            stored: BTreeMap::new(),
            log: String::new(),
            first_id: 0,
        };
        world.step(Input::Registered { agent_id: "S0".to_owned(), updates_in_flight: 100 });
        world.log.clear();
        world
    }

    fn now(&self) -> Now {
        Now { wall: self.steady.as_secs_f64(), steady: self.steady }
    }

    fn step(&mut self, input: Input) -> Vec<Effect> {
        let now = self.now();
        let step = self.table.step(now, input);
        for record in step.records {
            match record.value {
                Some(value) => drop(self.stored.insert(record.key, value)),
                None => drop(self.stored.remove(&record.key)),
            }
        }
        for effect in &step.effects {
            writeln!(self.log, "  {}", words(effect)).unwrap();
        }
        if let Some(refusal) = step.refusal {
            writeln!(self.log, "  refused: {refusal}").unwrap();
        }
        step.effects
    }

    fn say(&mut self, what: &str, input: Input) -> Vec<Effect> {
        writeln!(self.log, "{what}").unwrap();
        self.step(input)
    }

    fn wait(&mut self, seconds: u64) -> Vec<Effect> {
        writeln!(self.log, "after {seconds} s").unwrap();
        self.steady += Duration::from_secs(seconds);
        self.step(Input::Tick)
    }

    /// The agent is killed and started again: only what was stored is left.
    fn restart(&mut self) -> Vec<Effect> {
        self.first_id += 100;
        self.table = Table::new(limits(), "10.0.0.1", Box::new(Counting(self.first_id)));
        let effects = self.table.recover(self.now(), self.stored.clone()).unwrap();
        writeln!(self.log, "restart").unwrap();
        for effect in &effects {
            writeln!(self.log, "  {}", words(effect)).unwrap();
        }
        effects
    }

    fn register(&mut self) -> Vec<Effect> {
        self.say("registered", Input::Registered { agent_id: "S0".to_owned(), updates_in_flight: 100 })
    }

    fn acknowledge(&mut self, task: &str) -> Vec<Effect> {
        let key = key(task);
        let uuid = self.table.task(&key).and_then(|it| it.pending.front()).and_then(|it| it.uuid.clone()).unwrap_or_default();
        self.say(&format!("acknowledge {task}"), Input::Acknowledge { task: key, uuid })
    }

    fn container(&self, task: &str) -> ContainerKey {
        self.table.task(&key(task)).unwrap().container.clone().unwrap()
    }

    fn started(&mut self, task: &str) -> Vec<Effect> {
        let container = self.container(task);
        self.say(&format!("{task} started"), Input::Started { container, started: Box::default() })
    }

    fn exited(&mut self, task: &str, status: i32) -> Vec<Effect> {
        let container = self.container(task);
        self.say(&format!("{task} exited"), Input::Exited { container, exit: Exit { status: Some(status), limitation: None } })
    }

    fn check(&mut self, expected: &Expect) {
        expected.assert_eq(&std::mem::take(&mut self.log));
    }
}

fn key(task: &str) -> TaskKey {
    TaskKey { framework: "F".to_owned(), task: task.to_owned() }
}

fn executor_key(executor: &str) -> ExecutorKey {
    ExecutorKey { framework: "F".to_owned(), executor: executor.to_owned() }
}

fn words(effect: &Effect) -> String {
    let id = |it: &ContainerKey| it.as_str().split('.').map(|it| it[..2].to_owned()).collect::<Vec<_>>().join(".");
    match effect {
        Effect::Launch(it) => format!("launch {}", id(&it.container)),
        Effect::Reattach(it) => format!("reattach {}", id(&it.container)),
        Effect::Terminate { container, grace } => format!("terminate {} within {grace:?}", id(container)),
        Effect::Destroy(it) => format!("destroy {}", id(it)),
        Effect::Resize { container, .. } => format!("resize {}", id(container)),
        Effect::SendUpdate { task, status, latest, .. } => {
            let reason = status.reason.map(|_| format!(" {}", status.reason().as_str_name())).unwrap_or_default();
            let healthy = status.healthy.map(|it| format!(" healthy={it}")).unwrap_or_default();
            let ahead = if status.state() == *latest { String::new() } else { format!(" (latest {})", latest.as_str_name()) };
            let kept = if status.uuid.is_some() { "" } else { " without uuid" };
            format!("send {} {}{reason}{healthy}{kept}{ahead}", task.task, status.state().as_str_name())
        }
        Effect::SendExecutorExited { executor, status } => format!("executor {} exited {status}", executor.executor),
        Effect::SendMessage { executor, .. } => format!("message from {}", executor.executor),
        Effect::TellExecutor { executor, event } => {
            let grace = event.kill.as_ref().and_then(|it| it.kill_policy?.grace_period);
            let grace = grace.map(|it| format!(" within {:?}", Duration::from_nanos(it.nanoseconds.unsigned_abs()))).unwrap_or_default();
            format!("tell {} {}{grace}", executor.executor, event.r#type().as_str_name())
        }
        Effect::CloseExecutor(it) => format!("close {}", it.executor),
        Effect::StartChecks { task, .. } => format!("check {}", task.task),
        Effect::StopChecks(task) => format!("check {} no more", task.task),
        Effect::CollectSandbox(it) => format!("sandbox {} may go", id(it)),
        Effect::AgentEmpty => "empty".to_owned(),
    }
}

fn framework() -> FrameworkInfo {
    use framework_info::capability::Type;

    let capability = |it: Type| framework_info::Capability { r#type: Some(it as i32) };
    FrameworkInfo {
        id: Some(FrameworkId { value: "F".to_owned() }),
        checkpoint: Some(true),
        capabilities: vec![capability(Type::TaskKillingState), capability(Type::PartitionAware)],
        ..FrameworkInfo::default()
    }
}

fn task(id: &str) -> TaskInfo {
    TaskInfo {
        task_id: TaskId { value: id.to_owned() },
        command: Some(CommandInfo { value: Some("run".to_owned()), ..CommandInfo::default() }),
        ..TaskInfo::default()
    }
}

fn run(tasks: Vec<TaskInfo>, executor: Option<ExecutorInfo>) -> Input {
    let group = executor.as_ref().is_some_and(|it| it.r#type() == executor_info::Type::Default);
    Input::Run(Box::new(Run { framework: framework(), tasks, group, executor, launch_executor: true, refused: None }))
}

fn executor(id: &str, kind: executor_info::Type) -> ExecutorInfo {
    ExecutorInfo { r#type: Some(kind as i32), executor_id: ExecutorId { value: id.to_owned() }, ..ExecutorInfo::default() }
}

fn status(task: &str, state: TaskState, uuid: u8) -> TaskStatus {
    TaskStatus { uuid: Some(vec![uuid; 16]), ..Table::status(task, state, task_status::Source::Executor) }
}

#[test]
fn a_command_from_launch_to_the_last_acknowledgement() {
    let mut world = World::new();
    world.say("run", run(vec![task("t")], None));
    world.started("t");
    world.wait(10);
    world.wait(20);
    world.acknowledge("t");
    world.exited("t", 0);
    world.acknowledge("t");
    world.acknowledge("t");
    world.check(&expect![[r#"
        run
          launch 01
        t started
          send t TASK_STARTING
        after 10 s
          send t TASK_STARTING (latest TASK_RUNNING)
        after 20 s
          send t TASK_STARTING (latest TASK_RUNNING)
        acknowledge t
          send t TASK_RUNNING
        t exited
          check t no more
        acknowledge t
          send t TASK_FINISHED
        acknowledge t
          sandbox 01 may go
    "#]]);
}

#[test]
fn killed_at_each_step_of_a_launch_a_task_is_told_once() {
    // Where it is killed, and what was not yet known then.
    for kill_after in 0..4 {
        for restarted in [false, true] {
            let mut world = World::new();
            let mut killed = false;
            let mut ended = false;
            let mut states = Vec::new();
            let mut feed = |world: &mut World, input: Input| {
                for effect in world.step(input) {
                    if let Effect::SendUpdate { status, .. } = effect {
                        states.push(status.state());
                    }
                }
            };
            feed(&mut world, run(vec![task("t")], None));
            let container = world.container("t");
            for at in 0..4 {
                if at == kill_after {
                    feed(&mut world, Input::Kill { task: key("t"), policy: None });
                    killed = true;
                    if restarted {
                        world.restart();
                        feed(&mut world, Input::Registered { agent_id: "S0".to_owned(), updates_in_flight: 1 });
                    }
                }
                match at {
                    0 if killed => {
                        feed(
                            &mut world,
                            Input::LaunchFailed { container: container.clone(), message: "destroyed".to_owned(), restarted: false },
                        );
                        ended = true;
                    }
                    1 if !ended => feed(&mut world, Input::Started { container: container.clone(), started: Box::default() }),
                    3 if !ended => {
                        feed(&mut world, Input::Exited { container: container.clone(), exit: Exit { status: Some(15), limitation: None } });
                    }
                    _ => {}
                }
            }
            for _ in 0..10 {
                let uuid = world.table.task(&key("t")).and_then(|it| it.pending.front()).and_then(|it| it.uuid.clone());
                if let Some(uuid) = uuid {
                    feed(&mut world, Input::Acknowledge { task: key("t"), uuid });
                }
            }
            assert_eq!(
                states.iter().filter(|it| **it == TaskState::TaskKilled).count(),
                1,
                "killed at {kill_after}, restart {restarted}: {states:?}"
            );
            assert_eq!(states.last(), Some(&TaskState::TaskKilled));
            let left: Vec<&RecordKey> = world.stored.keys().collect();
            let is_clean = matches!(left.as_slice(), [RecordKey::Agent, RecordKey::Completed(..)]);
            assert!(world.table.frameworks().is_empty() && is_clean, "nothing but what is shown is left: {left:?}");
        }
    }
}

#[test]
fn a_group_lives_and_dies_together() {
    let mut world = World::new();
    let info = executor("e", executor_info::Type::Default);
    world.say("run a group", run(vec![task("a"), task("b")], Some(info)));
    let root = world.container("a").outermost();
    world.say("its executor started", Input::Started { container: root.clone(), started: Box::default() });
    world.started("a");
    world.started("b");
    world.exited("a", 256);
    world.exited("b", 15);
    world.say("its executor exited", Input::Exited { container: root, exit: Exit { status: Some(0), limitation: None } });
    for task in ["a", "a", "a", "b", "b", "b", "b"] {
        world.acknowledge(task);
    }
    world.check(&expect![[r#"
        run a group
          launch 01
        its executor started
          launch 01.02
          launch 01.03
        a started
          send a TASK_STARTING
        b started
          send b TASK_STARTING
        a exited
          check a no more
          check b no more
          terminate 01.03 within 3s
          resize 01
        b exited
          check b no more
          destroy 01
        its executor exited
          executor e exited 0
        acknowledge a
          send a TASK_RUNNING (latest TASK_FAILED)
        acknowledge a
          send a TASK_FAILED
        acknowledge a
          sandbox 01.02 may go
        acknowledge b
          send b TASK_RUNNING (latest TASK_KILLED)
        acknowledge b
          send b TASK_KILLING (latest TASK_KILLED)
        acknowledge b
          send b TASK_KILLED
        acknowledge b
          sandbox 01.03 may go
          sandbox 01 may go
    "#]]);
}

#[test]
fn a_custom_executor_from_subscription_to_its_end() {
    let mut world = World::new();
    world.say("run", run(vec![task("t")], Some(executor("e", executor_info::Type::Custom))));
    let container = world.table.executor(&executor_key("e")).unwrap().container.clone();
    world.say("started", Input::Started { container: container.clone(), started: Box::default() });
    let update = |state, uuid| Input::ExecutorUpdate { executor: executor_key("e"), status: Box::new(status("t", state, uuid)) };
    world.say("an update before the subscription", update(TaskState::TaskRunning, 1));
    let subscribe = |tasks: Vec<TaskInfo>, updates: Vec<TaskStatus>| Input::Subscribed { executor: executor_key("e"), tasks, updates };
    world.say("subscribed", subscribe(vec![], vec![]));
    world.say("running", update(TaskState::TaskRunning, 1));
    world.say("the same again", update(TaskState::TaskRunning, 1));
    world.restart();
    world.register();
    world.say("subscribed again, with an update on its way", subscribe(vec![task("t")], vec![status("t", TaskState::TaskRunning, 2)]));
    world.say("kill", Input::Kill { task: key("t"), policy: None });
    world.say("killed", update(TaskState::TaskKilled, 3));
    world.say("shut down", Input::ShutdownExecutor(executor_key("e")));
    world.wait(5);
    world.say("exited", Input::Exited { container, exit: Exit { status: Some(9), limitation: None } });
    for _ in 0..3 {
        world.acknowledge("t");
    }
    world.check(&expect![[r#"
        run
          launch 01
        started
        an update before the subscription
          refused: Executor is not subscribed
        subscribed
          tell e SUBSCRIBED
          tell e LAUNCH
        running
          send t TASK_RUNNING
          tell e ACKNOWLEDGED
        the same again
          tell e ACKNOWLEDGED
        restart
          reattach 01
        registered
          send t TASK_RUNNING
        subscribed again, with an update on its way
          tell e SUBSCRIBED
          tell e ACKNOWLEDGED
        kill
          tell e KILL
        killed
          check t no more
          resize 01
          tell e ACKNOWLEDGED
        shut down
          tell e SHUTDOWN
        after 5 s
          destroy 01
        exited
          close e
          executor e exited 9
        acknowledge t
          send t TASK_RUNNING (latest TASK_KILLED)
        acknowledge t
          send t TASK_KILLED
        acknowledge t
          sandbox 01 may go
    "#]]);
}

#[test]
fn executors_that_do_not_come_or_come_back_are_ended() {
    let mut world = World::new();
    world.say("run", run(vec![task("t")], Some(executor("e", executor_info::Type::Custom))));
    let container = world.table.executor(&executor_key("e")).unwrap().container.clone();
    world.say("started", Input::Started { container: container.clone(), started: Box::default() });
    world.wait(60);
    world.say("exited", Input::Exited { container, exit: Exit { status: Some(9), limitation: None } });
    world.acknowledge("t");
    world.say("run another", run(vec![task("u")], Some(executor("e", executor_info::Type::Custom))));
    let container = world.table.executor(&executor_key("e")).unwrap().container.clone();
    world.say("started", Input::Started { container: container.clone(), started: Box::default() });
    world.say("subscribed", Input::Subscribed { executor: executor_key("e"), tasks: vec![], updates: vec![] });
    world.restart();
    world.register();
    world.say("found", Input::Started { container: container.clone(), started: Box::default() });
    world.wait(2);
    world.say("exited", Input::Exited { container, exit: Exit { status: Some(9), limitation: None } });
    world.check(&expect![[r#"
        run
          launch 01
        started
        after 60 s
          destroy 01
        exited
          check t no more
          send t TASK_FAILED REASON_EXECUTOR_REGISTRATION_TIMEOUT
          executor e exited 9
        acknowledge t
          sandbox 01 may go
        run another
          launch 04
        started
        subscribed
          tell e SUBSCRIBED
          tell e LAUNCH
        restart
          reattach 04
        registered
        found
        after 2 s
          destroy 04
        exited
          check u no more
          send u TASK_GONE REASON_EXECUTOR_REREGISTRATION_TIMEOUT
          executor e exited 9
    "#]]);
}

#[test]
fn a_drain_gives_a_custom_executor_no_more_time_than_there_is() {
    let mut world = World::new();
    let mut slow = task("slow");
    slow.kill_policy = Some(KillPolicy { grace_period: Some(DurationInfo { nanoseconds: 600_000_000_000 }) });
    world.say("run", run(vec![slow], Some(executor("e", executor_info::Type::Custom))));
    let container = world.table.executor(&executor_key("e")).unwrap().container.clone();
    world.say("started", Input::Started { container, started: Box::default() });
    world.say("subscribed", Input::Subscribed { executor: executor_key("e"), tasks: vec![], updates: vec![] });
    world.say("drain", Input::Drain(Drain { max_grace_period: Some(Duration::from_secs(5)), mark_gone: false }));
    world.check(&expect![[r#"
        run
          launch 01
        started
        subscribed
          tell e SUBSCRIBED
          tell e LAUNCH
        drain
          tell e KILL within 5s
    "#]]);
}

#[test]
fn a_drain_began_when_it_was_first_said() {
    let mut world = World::new();
    let drain = || Input::Drain(Drain { max_grace_period: None, mark_gone: false });
    world.steady = Duration::from_secs(100);
    world.step(drain());
    world.steady = Duration::from_secs(200);
    world.restart();
    world.step(drain());
    assert_eq!(world.table.drain_began(), Some(100.0));
    world.step(Input::Undrain);
    assert_eq!(world.table.drain_began(), None);
    world.restart();
    assert_eq!((world.table.drain_began(), world.table.drain()), (None, None));
}

#[test]
fn a_drain_ends_all_and_takes_none() {
    let mut world = World::new();
    let mut slow = task("slow");
    slow.kill_policy = Some(KillPolicy { grace_period: Some(DurationInfo { nanoseconds: 600_000_000_000 }) });
    world.say("run", run(vec![slow], None));
    world.started("slow");
    world.say("drain", Input::Drain(Drain { max_grace_period: Some(Duration::from_secs(5)), mark_gone: true }));
    world.say("run another", run(vec![task("late")], None));
    world.restart();
    world.register();
    world.started("slow");
    world.wait(5);
    world.exited("slow", 9);
    for _ in 0..4 {
        world.acknowledge("slow");
    }
    world.say("undrain", Input::Undrain);
    world.say("run again", run(vec![task("again")], None));
    world.check(&expect![[r#"
        run
          launch 01
        slow started
          send slow TASK_STARTING
        drain
          check slow no more
          terminate 01 within 5s
        run another
          send late TASK_DROPPED REASON_AGENT_DRAINING without uuid
        restart
          reattach 01
        registered
          send slow TASK_STARTING (latest TASK_KILLING)
        slow started
          terminate 01 within 5s
        after 5 s
          destroy 01
        slow exited
          check slow no more
        acknowledge slow
          send slow TASK_RUNNING (latest TASK_GONE_BY_OPERATOR)
        acknowledge slow
          send slow TASK_KILLING REASON_AGENT_DRAINING (latest TASK_GONE_BY_OPERATOR)
        acknowledge slow
          send slow TASK_GONE_BY_OPERATOR REASON_AGENT_DRAINING
        acknowledge slow
          sandbox 01 may go
        undrain
        run again
          launch 66
    "#]]);
}

#[test]
fn health_counts_failures_in_a_row_after_the_grace_period() {
    let mut world = World::new();
    let mut info = task("t");
    info.health_check = Some(HealthCheck {
        r#type: Some(health_check::Type::Tcp as i32),
        grace_period_seconds: Some(10.0),
        consecutive_failures: Some(2),
        ..HealthCheck::default()
    });
    world.say("run", run(vec![info], None));
    world.started("t");
    let container = world.container("t");
    let look = |well: bool| Input::Health {
        task: key("t"),
        container: container.clone(),
        result: if well { Ok(()) } else { Err("no".to_owned()) },
    };
    world.say("sick within the grace period", look(false));
    world.say("well", look(true));
    world.say("well", look(true));
    world.say("sick", look(false));
    world.say("well again", look(true));
    world.say("sick", look(false));
    world.say("sick", look(false));
    world.exited("t", 15);
    while world.table.task(&key("t")).is_some() {
        world.acknowledge("t");
    }
    world.check(&expect![[r#"
        run
          launch 01
        t started
          send t TASK_STARTING
          check t
        sick within the grace period
        well
        well
        sick
        well again
        sick
        sick
          check t no more
          terminate 01 within 3s
        t exited
          check t no more
        acknowledge t
          send t TASK_RUNNING (latest TASK_KILLED)
        acknowledge t
          send t TASK_RUNNING REASON_TASK_HEALTH_CHECK_STATUS_UPDATED healthy=true (latest TASK_KILLED)
        acknowledge t
          send t TASK_RUNNING REASON_TASK_HEALTH_CHECK_STATUS_UPDATED healthy=false (latest TASK_KILLED)
        acknowledge t
          send t TASK_RUNNING REASON_TASK_HEALTH_CHECK_STATUS_UPDATED healthy=true (latest TASK_KILLED)
        acknowledge t
          send t TASK_RUNNING REASON_TASK_HEALTH_CHECK_STATUS_UPDATED healthy=false (latest TASK_KILLED)
        acknowledge t
          send t TASK_RUNNING REASON_TASK_HEALTH_CHECK_STATUS_UPDATED healthy=false (latest TASK_KILLED)
        acknowledge t
          send t TASK_KILLING healthy=false (latest TASK_KILLED)
        acknowledge t
          send t TASK_KILLED REASON_TASK_HEALTH_CHECK_STATUS_UPDATED healthy=false
        acknowledge t
          sandbox 01 may go
    "#]]);
}

#[test]
fn what_cannot_run_is_dropped_with_a_reason() {
    let mut world = World::new();
    world.say("no such directory", run(vec![task("a/b")], None));
    world.say("no command", run(vec![TaskInfo { command: None, ..task("t") }], None));
    world.say("a task", run(vec![task("t")], None));
    world.say("the same", run(vec![task("t")], None));
    let gone = Run {
        framework: framework(),
        tasks: vec![task("u")],
        group: false,
        executor: Some(executor("gone", executor_info::Type::Custom)),
        launch_executor: false,
        refused: None,
    };
    world.say("an executor that is no more", Input::Run(Box::new(gone)));
    world.say("kill a stranger", Input::Kill { task: key("stranger"), policy: None });
    let elsewhere = TaskKey { framework: "G".to_owned(), task: "t".to_owned() };
    world.say("kill one of a framework that has nothing here", Input::Kill { task: elsewhere, policy: None });
    world.say("reconcile", Input::Reconcile { framework: "F".to_owned(), tasks: vec!["t".to_owned(), "lost".to_owned()] });
    let container = world.container("t");
    world.say("no launch", Input::LaunchFailed { container, message: "no image".to_owned(), restarted: false });
    world.check(&expect![[r#"
        no such directory
          send a/b TASK_DROPPED REASON_TASK_INVALID without uuid
        no command
          send t TASK_DROPPED REASON_TASK_INVALID without uuid
        a task
          launch 01
        the same
        an executor that is no more
          send u TASK_DROPPED REASON_EXECUTOR_TERMINATED without uuid
        kill a stranger
          send stranger TASK_DROPPED REASON_RECONCILIATION without uuid
        kill one of a framework that has nothing here
        reconcile
          send lost TASK_DROPPED REASON_RECONCILIATION without uuid
        no launch
          check t no more
          send t TASK_FAILED REASON_CONTAINER_LAUNCH_FAILED
    "#]]);
}

#[test]
fn what_is_over_is_shown_after_a_restart_as_far_as_it_was_before() {
    let mut world = World::new();
    let shown = |world: &World| -> Vec<(String, Vec<i32>)> {
        let over = world.table.completed_frameworks().iter().chain(world.table.frameworks().values());
        let executors = over.flat_map(|it| &it.completed);
        executors.map(|it| (it.info.executor_id.value.clone(), it.completed.iter().map(|task| task.state as i32).collect())).collect()
    };
    for id in ["a", "b", "c"] {
        world.say("run", run(vec![task(id)], None));
        world.started(id);
        world.exited(id, 0);
        while world.table.task(&key(id)).is_some() {
            world.acknowledge(id);
        }
    }
    let finished = vec![TaskState::TaskFinished as i32];
    let expected = vec![("b".to_owned(), finished.clone()), ("c".to_owned(), finished.clone())];
    assert_eq!(shown(&world), expected, "two are kept");
    assert_eq!(world.stored.keys().filter(|it| matches!(it, RecordKey::Completed(..))).count(), 2);
    world.restart();
    assert_eq!(shown(&world), expected);
    // One more of the same framework, in the order of their ends.
    world.register();
    world.say("run", run(vec![task("d")], None));
    world.restart();
    world.register();
    world.started("d");
    world.exited("d", 0);
    while world.table.task(&key("d")).is_some() {
        world.acknowledge("d");
    }
    assert_eq!(shown(&world), [("c".to_owned(), finished.clone()), ("d".to_owned(), finished)]);
    let stored: Vec<&RecordKey> = world.stored.keys().collect();
    assert!(matches!(stored.as_slice(), [RecordKey::Agent, RecordKey::Completed(..), RecordKey::Completed(..)]), "{stored:?}");
}
