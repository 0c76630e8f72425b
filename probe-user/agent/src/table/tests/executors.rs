//! What executors are given, and when.

use super::*;

#[test]
fn a_launch_waits_for_an_executor_that_is_away_for_a_moment() {
    let mut world = World::new();
    let info = || Some(executor("e", executor_info::Type::Custom));
    world.say("run", run(vec![task("t")], info()));
    let container = world.table.executor(&executor_key("e")).unwrap().container.clone();
    world.say("started", Input::Started { container, started: Box::default() });
    let subscribe = |tasks: Vec<TaskInfo>| Input::Subscribed { executor: executor_key("e"), tasks, updates: vec![] };
    world.say("subscribed", subscribe(vec![]));
    let update = |task, state, uuid| Input::ExecutorUpdate { executor: executor_key("e"), status: Box::new(status(task, state, uuid)) };
    world.say("running", update("t", TaskState::TaskRunning, 1));
    world.say("its stream broke", Input::Unsubscribed(executor_key("e")));
    world.say("run another", run(vec![task("u")], info()));
    world.say("and one that is killed", run(vec![task("v")], info()));
    world.say("kill", Input::Kill { task: key("v"), policy: None });
    world.say("subscribed again", subscribe(vec![task("t")]));
    world.say("running", update("u", TaskState::TaskRunning, 2));
    world.check(&expect![[r#"
        run
          launch 01
        started
        subscribed
          tell e SUBSCRIBED
          tell e LAUNCH
        running
          send t TASK_RUNNING
          tell e ACKNOWLEDGED
        its stream broke
        run another
          resize 01
        and one that is killed
          resize 01
        kill
          check v no more
          send v TASK_KILLED REASON_TASK_KILLED_DURING_LAUNCH
          resize 01
        subscribed again
          tell e SUBSCRIBED
          tell e LAUNCH
        running
          send u TASK_RUNNING
          tell e ACKNOWLEDGED
    "#]]);
}

#[test]
fn an_executor_whose_only_task_was_killed_before_it_came_is_not_given_it() {
    let mut world = World::new();
    world.say("run", run(vec![task("t")], Some(executor("e", executor_info::Type::Custom))));
    world.say("kill", Input::Kill { task: key("t"), policy: None });
    world.say("subscribed", Input::Subscribed { executor: executor_key("e"), tasks: vec![], updates: vec![] });
    world.check(&expect![[r#"
        run
          launch 01
        kill
          check t no more
          send t TASK_KILLED REASON_TASK_KILLED_DURING_LAUNCH
        subscribed
          tell e SUBSCRIBED
          tell e SHUTDOWN
    "#]]);
}

#[test]
fn a_group_that_has_not_begun_ends_whole() {
    let mut world = World::new();
    let info = || Some(executor("e", executor_info::Type::Default));
    world.say("run a group", run(vec![task("a"), task("b")], info()));
    world.say("run another", run(vec![task("c")], info()));
    world.say("kill one of the first", Input::Kill { task: key("a"), policy: None });
    let root = world.container("c").outermost();
    world.say("their executor started", Input::Started { container: root, started: Box::default() });
    world.check(&expect![[r#"
        run a group
          launch 01
        run another
        kill one of the first
          check a no more
          send a TASK_KILLED REASON_TASK_KILLED_DURING_LAUNCH
          check b no more
          send b TASK_KILLED REASON_TASK_KILLED_DURING_LAUNCH
        their executor started
          launch 01.04
    "#]]);
}

#[test]
fn an_executor_may_use_what_its_tasks_may() {
    use mesos_proto::v1::value::Scalar;

    let given = |cpus, mem| vec![crate::words::scalar_resource("cpus", cpus), crate::words::scalar_resource("mem", mem)];
    let limited = |id: &str, limits: &[(&str, f64)]| TaskInfo {
        resources: given(1.0, 100.0),
        limits: limits.iter().map(|(name, value)| ((*name).to_owned(), Scalar { value: *value })).collect(),
        ..task(id)
    };
    let mut world = World::new();
    let info = ExecutorInfo { resources: given(0.1, 32.0), ..executor("e", executor_info::Type::Custom) };
    let launched = world.step(run(vec![limited("a", &[("cpus", 2.0)])], Some(info.clone())));
    let Some(Effect::Launch(launch)) = launched.first() else { panic!("{launched:?}") };
    let values = |it: &BTreeMap<String, Scalar>| -> Vec<(String, f64)> { it.iter().map(|(name, it)| (name.clone(), it.value)).collect() };
    assert_eq!(values(&launch.limits), [("cpus".to_owned(), 2.1)], "the executor's own share comes on top");
    world.step(Input::Started { container: launch.container.clone(), started: Box::default() });
    let mut resized = |id: &str, limits: &[(&str, f64)]| {
        let effects = world.step(run(vec![limited(id, limits)], Some(info.clone())));
        let limits =
            effects.iter().find_map(|it| if let Effect::Resize { allowance, .. } = it { Some(values(&allowance.limits)) } else { None });
        limits.expect("it grows")
    };
    assert_eq!(resized("b", &[("mem", 500.0)]), [("cpus".to_owned(), 3.1), ("mem".to_owned(), 632.0)]);
    assert_eq!(resized("c", &[("cpus", f64::INFINITY)]), [("cpus".to_owned(), f64::INFINITY), ("mem".to_owned(), 732.0)]);
}
