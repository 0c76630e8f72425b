//! Agents and frameworks that fall silent, come back, go away; masters that change.

use master::{Input, Refused, ToAgent};
use mesos::FrameworkId;
use mesos_proto::v1;
use v1::TaskState::{TaskFinished, TaskGoneByOperator, TaskLost, TaskRunning, TaskUnknown, TaskUnreachable};
use v1::scheduler::{Call, call};
use v1::task_status::Reason;

use crate::world::{World, config, framework, introduce, launch, task};

/// A master with an agent on link 1 and a framework on stream `s` that runs task `t`.
pub(crate) fn running(info: v1::FrameworkInfo) -> (World, mesos::AgentId, FrameworkId) {
    let mut world = World::new();
    let agent = world.new_agent(1, "cpus:4;mem:1024");
    let id = world.subscribe("s", info).expect("subscribed");
    world.pass_secs(1);
    let offers = world.take_offers("s");
    world.accept("s", &id, &[&offers[0]], vec![launch(vec![task("t", &agent.to_proto(), "cpus:1;mem:32")])]);
    world.update(1, &id, "t", TaskRunning, Some(1));
    world.acknowledge("s", &id, &agent, "t", 1);
    world.take_events("s");
    world.take_sent(1);
    (world, agent, id)
}

/// What the agent on link 1 says when it comes back with task `t` running.
pub(crate) fn come_back(agent: &mesos::AgentId, info: v1::FrameworkInfo, state: v1::TaskState) -> master::Register {
    let mut register = introduce(1, "cpus:4;mem:1024");
    register.info.id = Some(agent.to_proto());
    let id = info.id.clone().expect("set by the master");
    let mut held = mesos::parse_resources("cpus:1;mem:32", "*").expect("good");
    for resource in &mut held {
        resource.allocation_info = Some(v1::resource::AllocationInfo { role: Some("dev".into()) });
    }
    register.frameworks = vec![info];
    register.tasks = vec![v1::Task {
        name: "t".into(),
        task_id: v1::TaskId { value: "t".into() },
        framework_id: id,
        agent_id: agent.to_proto(),
        state: state as i32,
        resources: held,
        ..Default::default()
    }];
    register
}

fn info_of(world: &World, id: &FrameworkId) -> v1::FrameworkInfo {
    (*world.state().frameworks[id].info).clone()
}

#[test]
fn a_silent_agent_is_unreachable_and_its_tasks_come_back_with_it() {
    let (mut world, agent, id) = running(framework(&["dev"]));
    let info = info_of(&world, &id);
    world.pass_secs(120);
    let events = world.take_events("s");
    let status = events.iter().find_map(|it| it.update.as_ref()).expect("told").status.clone();
    assert_eq!((status.state(), status.reason(), status.uuid.clone()), (TaskUnreachable, Reason::AgentRemoved, None));
    assert!(status.unreachable_time.is_some());
    assert!(
        events.iter().any(|it| it.failure.as_ref().is_some_and(|it| it.agent_id == Some(agent.to_proto()) && it.executor_id.is_none()))
    );
    let state = world.state();
    assert!(state.agents.is_empty() && state.frameworks[&id].unreachable_tasks.contains_key("t"));
    assert!(state.registry.unreachable.contains_key(&agent));
    assert!(world.stored.contains_key("unreachable/m0-S0") && !world.stored.contains_key("agents/m0-S0"));

    let register = come_back(&agent, info, TaskRunning);
    world.close_link(1);
    world.register(2, register);
    assert_eq!(world.registered(2), Some(agent.clone()));
    let status = world.take_statuses("s").pop().expect("told");
    assert_eq!((status.state(), status.reason(), status.uuid), (TaskRunning, Reason::AgentReregistered, None));
    let state = world.state();
    assert!(state.frameworks[&id].unreachable_tasks.is_empty());
    assert_eq!(state.agents[&agent].used_total().scalar("cpus").to_f64(), 1.0);
    assert!(world.stored.contains_key("agents/m0-S0") && !world.stored.contains_key("unreachable/m0-S0"));
}

#[test]
fn a_framework_of_old_is_told_lost_instead() {
    let mut info = framework(&["dev"]);
    info.capabilities.retain(|it| it.r#type != Some(v1::framework_info::capability::Type::PartitionAware as i32));
    let (mut world, agent, id) = running(info);
    world.pass_secs(120);
    assert_eq!(world.take_statuses("s")[0].state(), TaskLost);
    assert!(world.state().frameworks[&id].unreachable_tasks.contains_key("t"), "it may come back all the same");
    let info = info_of(&world, &id);
    let register = come_back(&agent, info, TaskRunning);
    world.register(2, register);
    assert_eq!(world.take_statuses("s")[0].state(), TaskRunning);
}

#[test]
fn tasks_that_are_not_checkpointed_end_with_the_connection() {
    let mut info = framework(&["dev"]);
    info.checkpoint = Some(false);
    let (mut world, agent, id) = running(info);
    world.close_link(1);
    let status = world.take_statuses("s").pop().expect("told");
    assert_eq!((status.state(), status.reason()), (TaskLost, Reason::AgentDisconnected));
    assert_eq!(status.message(), "Agent host1 disconnected");
    assert!(world.state().frameworks[&id].tasks.is_empty() && world.state().agents[&agent].used.is_empty());
}

#[test]
fn two_agents_that_share_an_id_do_not_take_each_other_s_place() {
    let (mut world, agent, id) = running(framework(&["dev"]));
    let mut copy = introduce(1, "cpus:4;mem:1024");
    copy.info.id = Some(agent.to_proto());
    copy.pid = copy.pid.replace(":5051", ":5052");
    world.register(2, copy.clone());
    let is_refused = |it: &ToAgent| matches!(it, ToAgent::Refused { reason: Refused::Invalid, .. });
    assert!(world.take_sent(2).iter().any(is_refused));
    assert!(world.take_statuses("s").is_empty() && world.take_sent(1).is_empty());
    assert!(world.state().frameworks[&id].tasks.contains_key("t"));
    // The first one has gone: it is the same agent, begun anew on another port.
    world.close_link(1);
    world.register(3, copy);
    assert_eq!(world.registered(3), Some(agent));
}

#[test]
fn an_agent_too_many_is_told_to_ask_seldom() {
    let mut few = config(0);
    few.max_agents = 1;
    let mut world = World::with(few);
    world.new_agent(1, "cpus:4;mem:1024");
    world.register(2, introduce(2, "cpus:4;mem:1024"));
    assert!(matches!(&world.take_sent(2)[..], [ToAgent::Refused { reason: Refused::Invalid, .. }]));
}

#[test]
fn an_agent_that_comes_back_without_a_task_has_lost_it() {
    let (mut world, agent, id) = running(framework(&["dev"]));
    world.close_link(1);
    let mut register = introduce(1, "cpus:4;mem:1024");
    register.info.id = Some(agent.to_proto());
    world.register(2, register);
    let status = world.take_statuses("s").pop().expect("told");
    assert_eq!(status.state(), v1::TaskState::TaskDropped);
    assert!(world.state().frameworks[&id].tasks.is_empty());
}

#[test]
fn a_newer_link_replaces_the_older() {
    let (mut world, agent, id) = running(framework(&["dev"]));
    let info = info_of(&world, &id);
    let register = come_back(&agent, info, TaskRunning);
    world.register(2, register);
    assert!(matches!(&world.take_sent(1)[..], [ToAgent::Refused { reason: Refused::Replaced, .. }]));
    assert_eq!(world.closed_links, [1]);
    assert!(world.take_statuses("s").is_empty());
    // The older link's end says nothing about the agent.
    world.close_link(1);
    assert!(world.state().agents[&agent].connected());
}

#[test]
fn a_new_master_learns_from_agents_and_waits_before_it_judges() {
    let (mut world, agent, id) = running(framework(&["dev"]));
    let info = info_of(&world, &id);
    let register = come_back(&agent, info.clone(), TaskRunning);
    world.fail_over(config(1));
    let state = world.state();
    assert!(state.agents.is_empty() && state.recovered.contains_key(&agent));
    assert_eq!(world.subscribe("s2", info), Some(id.clone()), "taken over as it is");
    let ask = |world: &mut World, agent: Option<&mesos::AgentId>| {
        let task = call::reconcile::Task { task_id: v1::TaskId { value: "t".into() }, agent_id: agent.map(mesos::AgentId::to_proto) };
        let reconcile = call::Reconcile { tasks: vec![task] };
        world.call("s2", &id, Call { r#type: Some(call::Type::Reconcile as i32), reconcile: Some(reconcile), ..Default::default() });
        world.take_statuses("s2")
    };
    assert!(ask(&mut world, Some(&agent)).is_empty(), "the agent may know");
    assert!(ask(&mut world, None).is_empty());
    assert_eq!(ask(&mut world, Some(&"other".into()))[0].state(), TaskUnknown);
    world.register(9, register);
    assert_eq!(world.registered(9), Some(agent.clone()));
    assert!(world.take_statuses("s2").is_empty(), "nothing happened to the task");
    let statuses = ask(&mut world, Some(&agent));
    assert_eq!(
        (statuses[0].state(), statuses[0].reason(), statuses[0].message()),
        (TaskRunning, Reason::Reconciliation, "Reconciliation: Latest task state")
    );
    assert_eq!(world.state().agents[&agent].used_total().scalar("cpus").to_f64(), 1.0);
}

#[test]
fn agents_that_do_not_come_back_to_a_new_master_are_unreachable() {
    let (mut world, agent, id) = running(framework(&["dev"]));
    let info = info_of(&world, &id);
    world.fail_over(config(1));
    world.subscribe("s2", info);
    world.pass_secs(599);
    assert!(world.state().registry.unreachable.is_empty());
    world.pass_secs(2);
    assert!(world.state().registry.unreachable.contains_key(&agent) && world.state().recovered.is_empty());
    assert_eq!(world.state().metrics.get("master/recovery_slave_removals"), 1);
}

#[test]
fn a_master_that_lost_too_many_agents_ends_itself() {
    let mut world = World::new();
    world.new_agent(1, "cpus:1");
    world.new_agent(2, "cpus:1");
    let mut config = config(1);
    config.recovery_agent_removal_limit = 0.5;
    world.fail_over(config);
    world.pass_secs(601);
    assert!(world.aborted.as_ref().is_some_and(|it| it.contains("2 of 2 agents")), "{:?}", world.aborted);
}

#[test]
fn a_recovered_framework_ends_when_it_never_comes_back() {
    let (mut world, agent, id) = running(framework(&["dev"]));
    let info = info_of(&world, &id);
    let register = come_back(&agent, info, TaskRunning);
    world.fail_over(config(1));
    world.register(9, register);
    assert!(world.state().frameworks[&id].recovered);
    world.live_secs(3590, &[9]);
    assert!(world.state().frameworks.contains_key(&id));
    world.live_secs(20, &[9]);
    assert!(world.state().frameworks.is_empty());
    assert!(world.take_sent(9).iter().any(|it| matches!(it, ToAgent::ShutdownFramework { framework_id } if *framework_id == id)));
}

#[test]
fn a_scheduler_fails_over() {
    let (mut world, agent, id) = running(framework(&["dev"]));
    world.live_secs(10, &[1]);
    assert_eq!(world.take_offers("s").len(), 1);
    let info = info_of(&world, &id);
    assert_eq!(world.subscribe("s2", info.clone()), Some(id.clone()));
    let last = world.take_events("s").pop().expect("told");
    assert_eq!(last.error.expect("an error").message, "Framework failed over");
    assert_eq!(world.closed, ["s"]);
    world.pass_secs(1);
    assert_eq!(world.take_offers("s2").len(), 1, "offers of the former are free");
    // A late end of the former stream changes nothing.
    world.close_stream("s");
    assert!(world.state().frameworks[&id].connected());
    let _ = agent;
}

#[test]
fn a_framework_that_is_away_too_long_is_removed_for_good() {
    let (mut world, agent, id) = running(framework(&["dev"]));
    let info = info_of(&world, &id);
    world.close_stream("s");
    world.live_secs(3590, &[1]);
    assert!(world.state().frameworks.contains_key(&id));
    world.live_secs(20, &[1]);
    let state = world.state();
    assert!(state.frameworks.is_empty());
    assert_eq!(state.completed_frameworks.len(), 1);
    assert!(state.agents[&agent].used.is_empty() && state.agents[&agent].tasks.is_empty());
    assert!(world.take_sent(1).iter().any(|it| matches!(it, ToAgent::ShutdownFramework { .. })));
    world.subscribe("s3", info);
    let events = world.take_events("s3");
    assert_eq!(events[0].error.as_ref().map(|it| it.message.as_str()), Some("Framework has been removed"));
}

#[test]
fn without_failover_timeout_a_break_is_the_end() {
    let mut info = framework(&["dev"]);
    info.failover_timeout = None;
    let (mut world, _, id) = running(info);
    world.close_stream("s");
    assert!(!world.state().frameworks.contains_key(&id));
}

#[test]
fn gone_is_for_ever() {
    let (mut world, agent, id) = running(framework(&["dev"]));
    let info = info_of(&world, &id);
    let gone = v1::master::Call {
        r#type: Some(v1::master::call::Type::MarkAgentGone as i32),
        mark_agent_gone: Some(v1::master::call::MarkAgentGone { agent_id: agent.to_proto() }),
        ..Default::default()
    };
    assert_eq!(world.operator(gone.clone()), Some(master::Reply::Ok));
    assert!(matches!(&world.take_sent(1)[..], [ToAgent::Shutdown { .. }]));
    let status = world.take_statuses("s").pop().expect("told");
    assert_eq!((status.state(), status.reason()), (TaskGoneByOperator, Reason::AgentRemovedByOperator));
    let register = come_back(&agent, info, TaskRunning);
    world.register(2, register);
    assert!(matches!(&world.take_sent(2)[..], [ToAgent::Refused { reason: Refused::Shutdown, .. }]));
    assert_eq!(world.operator(gone), Some(master::Reply::Ok), "again is fine");
}

#[test]
fn an_acknowledgement_is_due_until_it_comes() {
    let (mut world, agent, id) = running(framework(&["dev"]));
    world.update(1, &id, "t", TaskFinished, Some(2));
    world.take_events("s");
    // Sent again, as agents do.
    world.update(1, &id, "t", TaskFinished, Some(2));
    let again = world.take_statuses("s");
    assert_eq!((again.len(), again[0].uuid.clone()), (1, Some(vec![2; 16])));
    assert_eq!(world.state().metrics.get("master/tasks_finished"), 1, "it ended once");
    world.acknowledge("s", &id, &agent, "t", 9);
    assert!(world.state().frameworks[&id].tasks.contains_key("t"), "another update's acknowledgement");
    world.acknowledge("s", &id, &agent, "t", 2);
    assert!(world.state().frameworks[&id].tasks.is_empty());
}

#[test]
fn kills_wait_for_an_agent_that_is_away() {
    let (mut world, agent, id) = running(framework(&["dev"]));
    let info = info_of(&world, &id);
    world.close_link(1);
    let kill = call::Kill { task_id: v1::TaskId { value: "t".into() }, ..Default::default() };
    world.call("s", &id, Call { r#type: Some(call::Type::Kill as i32), kill: Some(kill), ..Default::default() });
    let register = come_back(&agent, info, TaskRunning);
    world.register(2, register);
    assert!(world.take_sent(2).iter().any(|it| matches!(it, ToAgent::KillTask { task_id, .. } if task_id.as_str() == "t")));
}

#[test]
fn nothing_is_said_before_it_is_stored() {
    let mut world = World::new();
    world.hold_writes = true;
    world.register(1, introduce(1, "cpus:4;mem:1024"));
    assert_eq!(world.registered(1), None);
    assert!(world.state().agents.is_empty());
    world.store();
    assert!(world.registered(1).is_some());
    world.subscribe("s", framework(&["dev"]));
    world.pass_secs(120);
    assert!(!world.events["s"].iter().any(|it| it.failure.is_some()), "unreachable, but not yet stored");
    world.store();
    assert!(world.events["s"].iter().any(|it| it.failure.is_some()));
}

#[test]
fn unreachable_agents_are_forgotten_in_their_time() {
    let (mut world, agent, _) = running(framework(&["dev"]));
    world.pass_secs(120);
    assert!(world.state().registry.unreachable.contains_key(&agent));
    world.pass_secs(14 * 24 * 3600 - 3600);
    assert!(world.state().registry.unreachable.contains_key(&agent));
    world.pass_secs(2 * 3600);
    assert!(world.state().registry.unreachable.is_empty() && !world.stored.contains_key("unreachable/m0-S0"));
}

#[test]
fn a_clock_that_is_set_back_stops_nothing() {
    let (mut world, agent, _) = running(framework(&["dev"]));
    world.now = world.now - std::time::Duration::from_secs(86_400);
    world.input(Input::Tick);
    world.pass_secs(120);
    assert!(world.state().registry.unreachable.contains_key(&agent));
}

#[test]
fn agents_become_unreachable_at_the_rate_that_is_set() {
    let mut config = config(0);
    config.agent_removal_rate_limit = Some(master::Rate { permits: 1, per: std::time::Duration::from_secs(600) });
    let mut world = World::with(config);
    for link in 1..=3 {
        world.new_agent(link, "cpus:1");
    }
    world.pass_secs(120);
    assert_eq!(world.state().agents.len(), 2);
    // One that answers after all stays.
    let link = world.state().agents.values().next().and_then(|it| it.link).expect("connected").0;
    world.agent(link, master::FromAgent::Pong);
    assert_eq!(world.state().metrics.get("master/slave_unreachable_canceled"), 1);
    for _ in 0..120 {
        world.pass_secs(10);
        world.agent(link, master::FromAgent::Pong);
    }
    assert_eq!(world.state().agents.len(), 1);
    assert_eq!(world.state().metrics.get("master/slave_unreachable_completed"), 2);
}
