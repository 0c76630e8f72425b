use std::path::Path;
use std::time::Instant;

use mesos_proto::v1::{AgentInfo, CommandInfo, TaskId, TaskStatus};

use super::*;
use crate::checker::Checker;
use crate::containers::{Containers, Spawn};
use crate::driver::{self, Driver, Inbox};
use crate::executors::Executors;
use crate::fetcher::{self, Fetcher};
use crate::gc::Collector;
use crate::ledger::Ledger;
use crate::store::Store;
use crate::table::{Limits, Table};

/// An agent without a stream whose containers cannot be made, and what it would send. Room for so many messages.
fn agent(directory: &Path, room: usize) -> (Link, Driver, Inbox, mpsc::Receiver<wire::AgentMessage>) {
    let mut config = Config::in_directories(directory.join("work"), directory.join("run"));
    config.docker_socket = None;
    config.isolation = Vec::new();
    config.keeper = vec!["/bin/false".to_owned()];
    let config = Arc::new(config);
    #[expect(clippy::disallowed_methods, reason = "the test's runtime ends with it")]
    let spawn: Spawn = Arc::new(|_, run| drop(tokio::spawn(run)));
    let (handle, inputs, inbox) = driver::channel();
    let fetcher = Arc::new(Fetcher::new(fetcher::Settings {
        cache_dir: config.fetcher_cache_dir.clone(),
        cache_size: 0,
        handover_dir: directory.join("fetched"),
        draft_dir: directory.join("drafts"),
        stall_timeout: Duration::from_secs(1),
        hadoop_home: None,
        frameworks_home: None,
    }));
    let containers = Containers::new(config.clone(), fetcher, "127.0.0.1:1".to_owned(), inputs.clone(), spawn.clone());
    let (outbox, sent) = mpsc::channel(room);
    let signals = Arc::new(Signals::default());
    let driver = Driver {
        table: Table::new(Limits::default(), "127.0.0.1", Box::new(SystemIds)),
        ledger: Ledger::new(&[], None, crate::reconfiguration::Policy::Equal, &mut SystemIds).unwrap(),
        store: Arc::new(Store::open(&directory.join("meta")).unwrap()),
        containers: containers.clone(),
        checker: Checker::new(containers, inputs, spawn),
        executors: Executors::default(),
        collector: Collector::default(),
        outbox,
        signals: signals.clone(),
        agent: AgentInfo::default(),
        begun: Instant::now(),
        is_over: false,
    };
    (Link { config, driver: handle, status: Status::default(), boot_id: String::new(), signals }, driver, inbox, sent)
}

fn framework() -> FrameworkInfo {
    FrameworkInfo { id: Some(FrameworkId { value: "F".to_owned() }), ..FrameworkInfo::default() }
}

fn run(task: &str) -> Theirs {
    let command = CommandInfo { value: Some("sleep 1000".to_owned()), ..CommandInfo::default() };
    let task = TaskInfo { task_id: TaskId { value: task.to_owned() }, command: Some(command), ..TaskInfo::default() };
    Theirs::RunTask(wire::RunTask {
        framework_info: framework().encode_to_vec(),
        task: task.encode_to_vec(),
        launch_executor: true,
        ..wire::RunTask::default()
    })
}

fn kill(task: &str) -> Theirs {
    Theirs::KillTask(wire::KillTask { framework_id: "F".to_owned(), task_id: task.to_owned(), kill_policy: Vec::new() })
}

/// The next status of a task.
async fn status(sent: &mut mpsc::Receiver<wire::AgentMessage>) -> TaskStatus {
    loop {
        match sent.recv().await.and_then(|it| it.body) {
            Some(Ours::StatusUpdate(it)) => return TaskStatus::decode(&*it.status).unwrap(),
            Some(_) => {}
            None => panic!("the agent has ended"),
        }
    }
}

#[tokio::test]
async fn commands_that_wait_together_are_done_in_their_order() {
    let directory = tempfile::tempdir().unwrap();
    let (link, driver, inbox, mut sent) = agent(directory.path(), 64);
    let registered = wire::Registered { agent_id: "S0".to_owned(), ..wire::Registered::default() };
    link.driver.master(MasterAsk::Registered(registered)).await.unwrap();
    // All of it is there before the agent gets to any of it: as when it stores something else meanwhile.
    for command in [run("killed"), kill("killed"), run("ended with its framework")] {
        link.command(command).await.unwrap();
    }
    link.command(Theirs::ShutdownFramework(wire::ShutdownFramework { framework_id: "F".to_owned() })).await.unwrap();
    let asked = async {
        while link.driver.look(|view| !view.table.frameworks().is_empty()).await.unwrap() {
            sleep(Duration::from_millis(5)).await;
        }
        for _ in 0..2 {
            let status = status(&mut sent).await;
            assert!(status.uuid.is_some(), "nothing is answered for a task that begins later: {status:?}");
            assert_eq!(status.state(), TaskState::TaskKilled);
        }
    };
    tokio::select! {
        ended = driver.run(inbox, Vec::new(), CancellationToken::new()) => panic!("{ended:?}"),
        done = timeout(Duration::from_secs(30), asked) => done.unwrap(),
    }
}

#[tokio::test]
async fn what_is_said_once_has_room_or_is_said_by_a_new_registration() {
    let directory = tempfile::tempdir().unwrap();
    let (link, driver, inbox, mut sent) = agent(directory.path(), 8);
    let registered = wire::Registered { agent_id: "S0".to_owned(), ..wire::Registered::default() };
    link.driver.master(MasterAsk::Registered(registered)).await.unwrap();
    link.driver.master(MasterAsk::Input(Input::Drain(Drain { max_grace_period: None, mark_gone: false }))).await.unwrap();
    // The master takes none of these answers, and there is room for eight.
    for at in 0..8 {
        link.command(run(&at.to_string())).await.unwrap();
    }
    let asked = async {
        link.driver.look(|_| ()).await.unwrap();
        assert!(timeout(Duration::from_millis(10), link.signals.lost.notified()).await.is_err(), "there was room");
        link.command(run("one more")).await.unwrap();
        link.signals.lost.notified().await;
        for at in 0..8 {
            assert_eq!(status(&mut sent).await.task_id.value, at.to_string());
        }
    };
    tokio::select! {
        ended = driver.run(inbox, Vec::new(), CancellationToken::new()) => panic!("{ended:?}"),
        done = timeout(Duration::from_secs(30), asked) => done.unwrap(),
    }
}

#[tokio::test]
async fn messages_of_executors_leave_room_for_what_matters_more() {
    use mesos_proto::v1::{ExecutorInfo, executor_info};

    let directory = tempfile::tempdir().unwrap();
    let (link, driver, inbox, mut sent) = agent(directory.path(), 8);
    let registered = wire::Registered { agent_id: "S0".to_owned(), ..wire::Registered::default() };
    link.driver.master(MasterAsk::Registered(registered)).await.unwrap();
    let executor = ExecutorInfo {
        r#type: Some(executor_info::Type::Custom as i32),
        executor_id: ExecutorId { value: "e".to_owned() },
        command: Some(CommandInfo { value: Some("sleep 1000".to_owned()), ..CommandInfo::default() }),
        ..ExecutorInfo::default()
    };
    let Theirs::RunTask(task) = run("t") else { panic!("it is a task") };
    link.command(Theirs::RunTask(wire::RunTask { executor_info: executor.encode_to_vec(), ..task })).await.unwrap();
    let key = || ExecutorKey { framework: "F".to_owned(), executor: "e".to_owned() };
    let asked = async {
        let subscribed = Input::Subscribed { executor: key(), tasks: Vec::new(), updates: Vec::new() };
        let messages = (0..20).map(|_| Input::ExecutorMessage { executor: key(), data: Vec::new() });
        let asks = std::iter::once(subscribed).chain(messages).map(|it| link.driver.ask(it));
        assert!(futures::future::join_all(asks).await.into_iter().all(|it| it.is_ok_and(|refusal| refusal.is_none())));
        assert_eq!(link.driver.look(|view| view.table.counts().invalid_messages).await.unwrap(), 16, "those that found no room");
        for _ in 0..4 {
            assert!(matches!(sent.recv().await.and_then(|it| it.body), Some(Ours::ExecutorMessage(_))));
        }
    };
    tokio::select! {
        ended = driver.run(inbox, Vec::new(), CancellationToken::new()) => panic!("{ended:?}"),
        done = timeout(Duration::from_secs(30), asked) => done.unwrap(),
    }
}
