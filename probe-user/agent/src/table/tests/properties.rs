//! Any order of events, and damaged records.

use proptest::prelude::*;

use super::*;

/// Anything that may happen, to a few tasks of a few executors.
fn inputs() -> impl Strategy<Value = Vec<(u8, u8, u8)>> {
    prop::collection::vec((0..16_u8, 0..4_u8, 0..8_u8), 0..120)
}

fn input(world: &World, (what, which, detail): (u8, u8, u8)) -> Input {
    let id = format!("t{which}");
    let executor = executor_key(&format!("e{}", which % 2));
    let containers: Vec<ContainerKey> = world
        .table
        .frameworks()
        .values()
        .flat_map(|it| it.executors.values())
        .flat_map(|it| std::iter::once(it.container.clone()).chain(it.tasks.values().filter_map(|it| it.container.clone())))
        .collect();
    let container =
        containers.get(usize::from(which * 8 + detail) % containers.len().max(1)).cloned().unwrap_or_else(|| ContainerKey::root("none"));
    let state = [TaskState::TaskStarting, TaskState::TaskRunning, TaskState::TaskFinished, TaskState::TaskFailed][usize::from(detail % 4)];
    match what {
        0 => run(vec![task(&id)], None),
        1 => run(vec![task(&id)], Some(self::executor(&executor.executor, executor_info::Type::Custom))),
        2 => run(vec![task(&id), task("other")], Some(self::executor("d", executor_info::Type::Default))),
        3 | 4 => Input::Started { container, started: Box::default() },
        5 => Input::Exited { container, exit: Exit { status: Some(i32::from(detail) << 8), limitation: None } },
        6 => Input::LaunchFailed { container, message: "no".to_owned(), restarted: detail % 2 == 0 },
        7 => Input::Kill { task: key(&id), policy: None },
        8 | 9 => {
            let uuid = world.table.task(&key(&id)).and_then(|it| it.pending.front()).and_then(|it| it.uuid.clone());
            Input::Acknowledge { task: key(&id), uuid: uuid.unwrap_or_else(|| vec![detail]) }
        }
        10 => Input::Subscribed { executor, tasks: vec![], updates: vec![] },
        11 => Input::Unsubscribed(executor),
        12 => Input::ExecutorUpdate { executor, status: Box::new(status(&id, state, detail + 200)) },
        13 => Input::ShutdownExecutor(executor),
        14 if detail == 0 => Input::ShutdownFramework("F".to_owned()),
        14 if detail == 1 => Input::Disconnected,
        14 => Input::Health { task: key(&id), container, result: Err("no".to_owned()) },
        _ => Input::Tick,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever happens: of a task no two updates are under way, states do not leave a terminal one, what was stored is what there is, and a restart
    /// forgets nothing that was promised.
    #[test]
    fn the_table_keeps_its_promises(script in inputs(), restarts in prop::collection::vec(0..120_usize, 0..3)) {
        let mut world = World::new();
        let mut under_way: BTreeMap<TaskKey, Vec<u8>> = BTreeMap::new();
        for (at, entry) in script.into_iter().enumerate() {
            world.steady += Duration::from_millis(u64::from(entry.2) * 3_000);
            if restarts.contains(&at) {
                world.restart();
                under_way.clear();
                world.register();
            }
            let input = input(&world, entry);
            if let Input::Acknowledge { task, uuid } = &input && under_way.get(task) == Some(uuid) {
                under_way.remove(task);
            }
            for effect in world.step(input) {
                if let Effect::SendUpdate { task, status, .. } = effect && let Some(uuid) = status.uuid {
                    let before = under_way.insert(task, uuid.clone());
                    prop_assert!(before.is_none_or(|it| it == uuid), "a second update while one is under way");
                }
            }
            under_way.retain(|key, _| world.table.task(key).is_some());
            for (key, task) in world.table.tasks() {
                prop_assert!(task.pending.len() <= 5 + 4, "{key} keeps {} updates", task.pending.len());
                let terminal = task.statuses.iter().filter(|it| is_terminal(it.state())).count();
                prop_assert!(terminal <= 1 && (terminal == 0 || is_terminal(task.state)));
            }
            let mut again = Table::new(limits(), "10.0.0.1", Box::new(Counting(50)));
            again.recover(world.now(), world.stored.clone()).unwrap();
            let tasks = |table: &Table| -> Vec<(TaskKey, TaskState, usize)> {
                table.tasks().map(|(key, it)| (key, it.state, it.pending.len())).collect()
            };
            prop_assert_eq!(tasks(&again), tasks(&world.table));
        }
    }

    /// Records from a damaged disk are refused, not believed.
    #[test]
    fn damaged_records_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut table = Table::new(limits(), "10.0.0.1", Box::new(Counting(0)));
        let now = Now { wall: 0.0, steady: Duration::ZERO };
        let keys = [RecordKey::Agent, RecordKey::Framework("F".to_owned()), RecordKey::Executor(executor_key("e")), RecordKey::Task(executor_key("e"), "t".to_owned())];
        for key in keys {
            drop(table.recover(now, [(key, bytes.clone())]));
        }
        let _ = executor::Event::default();
    }
}

fn is_terminal(state: TaskState) -> bool {
    crate::words::is_terminal(state)
}
