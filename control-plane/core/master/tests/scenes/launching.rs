//! From subscription to a task's end.

use std::time::Duration;

use master::{FromAgent, Refusal, Reply, ToAgent};
use mesos::Resources;
use mesos_proto::v1;
use v1::TaskState::{TaskDropped, TaskError, TaskFinished, TaskRunning, TaskStaging};
use v1::scheduler::{Call, call};

use crate::world::{World, framework, launch, task};

#[test]
fn a_task_from_offer_to_acknowledged_end() {
    let mut world = World::new();
    let agent = world.new_agent(1, "cpus:4;mem:1024;ports:[31000-31009]");
    assert_eq!(&*agent, "m0-S0");
    let id = world.subscribe("s", framework(&["dev"])).expect("subscribed");
    assert_eq!(&*id, "m0-0000");
    world.pass_secs(1);
    let offers = world.take_offers("s");
    let [offer] = &offers[..] else { panic!("one offer: {offers:?}") };
    assert_eq!(offer.id.value, "m0-O0");
    assert_eq!(offer.url.as_ref().map(|it| it.address.ip.clone().unwrap_or_default()), Some("10.0.0.2".into()));
    assert!(offer.resources.iter().all(|it| it.allocation_info.as_ref().is_some_and(|it| it.role.as_deref() == Some("dev"))));

    world.take_sent(1);
    let info = task("t", &offer.agent_id, "cpus:1;mem:128;ports:[31003-31003]");
    assert_eq!(world.accept("s", &id, &[offer], vec![launch(vec![info])]), Reply::Accepted);
    let sent = world.take_sent(1);
    assert!(matches!(&sent[..], [ToAgent::RunTask { task, launch_executor: true, .. }] if task.task_id.value == "t"), "{sent:?}");
    let state = world.state();
    assert_eq!(state.frameworks[&id].tasks["t"].state, TaskStaging);
    assert!(world.take_statuses("s").is_empty(), "nothing is told of staging");

    world.update(1, &id, "t", TaskRunning, Some(1));
    let statuses = world.take_statuses("s");
    assert_eq!((statuses[0].state(), statuses[0].agent_id.clone()), (TaskRunning, Some(agent.to_proto())));
    world.acknowledge("s", &id, &agent, "t", 1);
    assert!(matches!(&world.take_sent(1)[..], [ToAgent::AcknowledgeStatusUpdate { uuid, .. }] if *uuid == [1; 16]));

    // The rest is offered again when the implicit refusal is over.
    world.live_secs(6, &[1]);
    let rest = world.take_offers("s");
    let resources = Resources::from_proto(&rest[0].resources);
    assert_eq!((resources.scalar("cpus").to_f64(), resources.len()), (3.0, 3));
    assert!(resources.to_string().contains("[31000-31002, 31004-31009]"), "{resources}");

    world.update(1, &id, "t", TaskFinished, Some(2));
    let state = world.state();
    assert!(state.agents[&agent].used.is_empty(), "free at its end, not at the acknowledgement");
    assert!(state.frameworks[&id].tasks.contains_key("t"));
    world.acknowledge("s", &id, &agent, "t", 2);
    let state = world.state();
    assert!(state.frameworks[&id].tasks.is_empty() && state.agents[&agent].tasks.is_empty());
    assert_eq!(state.frameworks[&id].completed_tasks.len(), 1);
    assert_eq!(state.metrics.get("master/tasks_finished"), 1);
}

#[test]
fn what_a_task_leaves_is_offered_at_once_and_what_is_declined_is_not() {
    let mut world = World::new();
    let agent = world.new_agent(1, "cpus:4;mem:1024");
    let id = world.subscribe("s", framework(&["dev"])).expect("subscribed");
    world.pass_secs(1);
    let offers = world.take_offers("s");
    world.accept("s", &id, &[&offers[0]], vec![launch(vec![task("t", &offers[0].agent_id, "cpus:4;mem:1024")])]);
    world.update(1, &id, "t", TaskRunning, Some(1));
    world.acknowledge("s", &id, &agent, "t", 1);
    // Between two full runs, which are a second apart.
    world.pass_secs(2);
    world.pass(Duration::from_millis(300));
    assert!(world.take_offers("s").is_empty());
    world.update(1, &id, "t", TaskFinished, Some(2));
    world.pass(Duration::from_millis(10));
    let [offer] = &world.take_offers("s")[..] else { panic!("one offer") };
    world.decline("s", &id, &[offer], Some(0.0));
    world.pass(Duration::from_millis(10));
    assert!(world.take_offers("s").is_empty(), "else who declines would be asked without end");
    world.pass_secs(1);
    assert_eq!(world.take_offers("s").len(), 1);
}

#[test]
fn what_is_wrong_with_a_launch_is_told_in_mesos_words() {
    let mut world = World::new();
    let agent = world.new_agent(1, "cpus:4;mem:1024");
    let id = world.subscribe("s", framework(&["dev"])).expect("subscribed");
    let mut other = task("other", &agent.to_proto(), "cpus:1");
    other.agent_id.value = "nowhere".into();
    let mut both = task("both", &agent.to_proto(), "cpus:1");
    both.executor = Some(v1::ExecutorInfo::default());
    let mut no_resources = task("none", &agent.to_proto(), "cpus:1");
    no_resources.resources.clear();
    let mut mixed = task("limits", &agent.to_proto(), "cpus:1");
    mixed.limits.insert("cpus".into(), v1::value::Scalar { value: 0.5 });
    let mut large = task("large", &agent.to_proto(), "cpus:1");
    large.data = Some(vec![0; 17_000_000]);
    let cases = [
        (task("a/b", &agent.to_proto(), "cpus:1"), "'a/b' contains invalid characters"),
        (other, "Task uses invalid agent nowhere while agent m0-S0 is expected"),
        (both, "Task should have at least one (but not both) of CommandInfo or ExecutorInfo present"),
        (no_resources, "Task uses no resources"),
        (mixed, "The cpu limit must be greater than or equal to the cpu request"),
        (large, "Task with its executor and its framework has 17000"),
        (
            task("much", &agent.to_proto(), "cpus:5"),
            "Total resources cpus(allocated: dev):5 required by task and its executor is more than available",
        ),
    ];
    for (info, text) in cases {
        world.pass_secs(6);
        let offers = world.take_offers("s");
        world.accept("s", &id, &[&offers[0]], vec![launch(vec![info])]);
        let status = world.take_statuses("s").pop().expect("a status");
        assert_eq!(status.state(), TaskError);
        assert!(status.message().starts_with(text), "{}", status.message());
        assert_eq!((status.reason(), status.uuid), (v1::task_status::Reason::TaskInvalid, None));
    }
    let state = world.state();
    assert!(state.agents[&agent].used.is_empty());
    assert_eq!(state.metrics.get("master/tasks_error"), 7);
    assert_eq!(state.metrics.get("master/task_error/source_master/reason_task_invalid"), 7);
}

#[test]
fn a_launch_on_a_rescinded_offer_is_dropped() {
    let mut world = World::new();
    world.new_agent(1, "cpus:4;mem:1024");
    let id = world.subscribe("s", framework(&["dev"])).expect("subscribed");
    world.pass_secs(1);
    let offers = world.take_offers("s");
    world.close_link(1);
    let rescinded: Vec<_> = world.take_events("s").into_iter().filter_map(|it| it.rescind).collect();
    assert_eq!(rescinded[0].offer_id, offers[0].id);
    world.accept("s", &id, &[&offers[0]], vec![launch(vec![task("t", &offers[0].agent_id, "cpus:1")])]);
    let status = world.take_statuses("s").pop().expect("a status");
    assert_eq!(status.state(), TaskDropped);
    assert_eq!(status.message(), "Task launched with invalid offers: Offer m0-O0 is no longer valid");
}

#[test]
fn two_tasks_of_one_id_are_not_launched() {
    let mut world = World::new();
    let agent = world.new_agent(1, "cpus:4;mem:1024");
    let id = world.subscribe("s", framework(&["dev"])).expect("subscribed");
    world.pass_secs(1);
    let offers = world.take_offers("s");
    let twice = vec![task("t", &agent.to_proto(), "cpus:1"), task("t", &agent.to_proto(), "cpus:1")];
    world.accept("s", &id, &[&offers[0]], vec![launch(twice)]);
    let statuses = world.take_statuses("s");
    assert_eq!(statuses[0].message(), "Task has duplicate ID: t");
    assert_eq!(world.state().frameworks[&id].tasks.len(), 1);
}

#[test]
fn a_group_shares_its_executor() {
    let mut world = World::new();
    let agent = world.new_agent(1, "cpus:4;mem:1024;disk:100");
    let id = world.subscribe("s", framework(&["dev"])).expect("subscribed");
    world.pass_secs(1);
    let offers = world.take_offers("s");
    world.take_sent(1);
    let executor = v1::ExecutorInfo {
        r#type: Some(v1::executor_info::Type::Default as i32),
        executor_id: v1::ExecutorId { value: "e".into() },
        resources: mesos::parse_resources("cpus:0.1;mem:32;disk:1", "*").expect("good"),
        ..Default::default()
    };
    let tasks = vec![task("a", &agent.to_proto(), "cpus:1;mem:32"), task("b", &agent.to_proto(), "cpus:1;mem:32")];
    let group = |executor: v1::ExecutorInfo, tasks: Vec<v1::TaskInfo>| v1::offer::Operation {
        r#type: Some(v1::offer::operation::Type::LaunchGroup as i32),
        launch_group: Some(v1::offer::operation::LaunchGroup { executor, task_group: v1::TaskGroupInfo { tasks } }),
        ..Default::default()
    };
    world.accept("s", &id, &[&offers[0]], vec![group(executor.clone(), tasks)]);
    let sent = world.take_sent(1);
    let [ToAgent::RunTaskGroup { task_group, launch_executor: true, .. }] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(task_group.tasks.len(), 2);
    let used = world.state().agents[&agent].used_total();
    assert_eq!((used.scalar("cpus").to_f64(), used.scalar("mem").to_f64()), (2.1, 96.0));

    // A second group of the same executor uses it without paying for it again.
    world.live_secs(6, &[1]);
    let offers = world.take_offers("s");
    world.take_sent(1);
    world.accept("s", &id, &[&offers[0]], vec![group(executor.clone(), vec![task("c", &agent.to_proto(), "cpus:1;mem:32")])]);
    assert!(matches!(&world.take_sent(1)[..], [ToAgent::RunTaskGroup { launch_executor: false, .. }]));
    assert_eq!(world.state().agents[&agent].used_total().scalar("cpus").to_f64(), 3.1);

    // One that the agent's connection would not take is not sent.
    world.live_secs(6, &[1]);
    let offers = world.take_offers("s");
    let large = |id: &str| v1::TaskInfo { data: Some(vec![0; 9_000_000]), ..task(id, &agent.to_proto(), "cpus:0.1;mem:32") };
    world.accept("s", &id, &[&offers[0]], vec![group(executor, vec![large("d"), large("e")])]);
    assert_eq!(world.take_sent(1).iter().filter(|it| matches!(it, ToAgent::RunTaskGroup { .. })).count(), 0);
    let statuses = world.take_statuses("s");
    assert!(statuses.iter().all(|it| it.message().contains("more than the") && it.reason() == v1::task_status::Reason::TaskGroupInvalid));
    assert_eq!(statuses.len(), 2);

    world.agent(1, FromAgent::ExecutorExited { framework_id: id.clone(), executor_id: "e".into(), status: 9 });
    let failure = world.take_events("s").into_iter().find_map(|it| it.failure).expect("told");
    assert_eq!(failure.status, Some(9));
    assert_eq!(world.state().agents[&agent].used_total().scalar("cpus").to_f64(), 3.0);
}

#[test]
fn calls_without_a_subscription_are_refused() {
    let mut world = World::new();
    let revive = || Call { r#type: Some(call::Type::Revive as i32), ..Default::default() };
    assert_eq!(
        world.call("s", &"nobody".into(), revive()),
        Reply::Refused { kind: Refusal::BadRequest, message: "Framework cannot be found".into() }
    );
    let id = world.subscribe("s", framework(&["dev"])).expect("subscribed");
    assert_eq!(world.call("s", &id, revive()), Reply::Accepted);
    let Reply::Refused { kind: Refusal::BadRequest, message } = world.call("other", &id, revive()) else { panic!("refused") };
    assert_eq!(
        message,
        "The stream ID 'other' included in this request didn't match the stream ID currently associated with framework ID m0-0000"
    );
    world.close_stream("s");
    assert_eq!(world.call("s", &id, revive()), Reply::Refused { kind: Refusal::Forbidden, message: "Framework is not subscribed".into() });
}
