//! The smaller promises: spellings for old frameworks, volumes, messages, events for operators.

use std::collections::BTreeSet;
use std::time::Duration;

use master::{FromAgent, Input, Reply, ToAgent};
use mesos::Resources;
use mesos_proto::v1;
use v1::TaskState::{TaskFinished, TaskRunning};
use v1::framework_info::capability::Type as Can;
use v1::offer::{Operation, operation};
use v1::scheduler::{Call, call};

use crate::accounting::contradictions;
use crate::lifecycle::running;
use crate::world::{World, config, framework, introduce, launch, task};

#[test]
fn a_framework_of_one_role_sees_the_old_spelling() {
    let mut world = World::new();
    world.new_agent(1, "cpus(web):2;mem:512");
    let info = v1::FrameworkInfo {
        user: "u".into(),
        name: "old".into(),
        role: Some("web".into()),
        failover_timeout: Some(10.0),
        ..Default::default()
    };
    let id = world.subscribe("s", info).expect("subscribed");
    world.pass_secs(1);
    let offers = world.take_offers("s");
    let offer = &offers[0];
    assert_eq!(offer.allocation_info, None);
    assert!(offer.resources.iter().all(|it| it.allocation_info.is_none() && it.reservations.is_empty()));
    let roles: BTreeSet<&str> = offer.resources.iter().map(|it| it.role()).collect();
    assert_eq!(roles, ["*", "web"].into());
    // It launches with what it saw.
    let mut info = task("t", &offer.agent_id, "mem:64");
    info.resources.extend(offer.resources.iter().filter(|it| it.name == "cpus").cloned());
    world.accept("s", &id, &[offer], vec![launch(vec![info])]);
    assert!(world.state().frameworks[&id].tasks.contains_key("t"), "{:?}", world.take_statuses("s"));
}

#[test]
fn an_offer_ends_when_its_time_is_over() {
    let mut config = config(0);
    config.offer_timeout = Some(Duration::from_secs(30));
    let mut world = World::with(config);
    world.new_agent(1, "cpus:2;mem:512");
    world.subscribe("s", framework(&["dev"]));
    world.pass_secs(1);
    let offers = world.take_offers("s");
    world.pass_secs(31);
    let events = world.take_events("s");
    assert!(events.iter().any(|it| it.rescind.as_ref().is_some_and(|it| it.offer_id == offers[0].id)));
    assert!(events.iter().any(|it| it.offers.is_some()), "and is made anew");
}

fn reserved_volume(size: f64, shared: bool) -> v1::Resource {
    let mut volume = mesos::parse_resources("disk:1", "*").expect("good").pop().expect("one");
    volume.scalar = Some(v1::value::Scalar { value: size });
    volume.reservations.push(v1::resource::ReservationInfo {
        r#type: Some(v1::resource::reservation_info::Type::Static as i32),
        role: Some("dev".into()),
        ..Default::default()
    });
    volume.disk = Some(v1::resource::DiskInfo {
        persistence: Some(v1::resource::disk_info::Persistence { id: "v".into(), principal: None }),
        volume: Some(v1::Volume { mode: v1::volume::Mode::Rw as i32, container_path: "d".into(), ..Default::default() }),
        source: None,
    });
    volume.shared = shared.then(v1::resource::SharedInfo::default);
    volume
}

fn create(volume: &v1::Resource) -> Operation {
    Operation {
        r#type: Some(operation::Type::Create as i32),
        create: Some(operation::Create { volumes: vec![volume.clone()] }),
        ..Default::default()
    }
}

/// A world with an agent that has disk reserved for a framework that knows shared volumes.
fn with_disk() -> (World, mesos::AgentId, mesos::FrameworkId) {
    let mut world = World::new();
    let agent = world.new_agent(1, "cpus:4;mem:1024;disk(dev):100");
    let mut info = framework(&["dev"]);
    info.capabilities.push(v1::framework_info::Capability { r#type: Some(Can::SharedResources as i32) });
    let id = world.subscribe("s", info).expect("subscribed");
    world.pass_secs(1);
    (world, agent, id)
}

#[test]
fn a_shared_volume_has_many_users_and_counts_once() {
    let (mut world, agent, id) = with_disk();
    let offers = world.take_offers("s");
    let volume = reserved_volume(40.0, true);
    let user = |name: &str| {
        let mut info = task(name, &agent.to_proto(), "cpus:1;mem:64");
        info.resources.push(volume.clone());
        info
    };
    world.accept("s", &id, &[&offers[0]], vec![create(&volume), launch(vec![user("a"), user("b")])]);
    assert_eq!(world.state().frameworks[&id].tasks.len(), 2, "{:?}", world.take_statuses("s"));
    world.live_secs(10, &[1]);
    let offers = world.take_offers("s");
    assert!(offers[0].resources.iter().any(|it| it.shared.is_some()), "offered although used");
    world.accept("s", &id, &[&offers[0]], vec![launch(vec![user("c")])]);
    assert_eq!(world.state().frameworks[&id].tasks.len(), 3);
    let gauges = world.master.allocator_gauges();
    assert_eq!(gauges.shares["dev"], 0.75, "three of four cpus; the disk counts 0.4");
    for (at, name) in ["a", "b", "c"].iter().enumerate() {
        let destroy = v1::master::Call {
            r#type: Some(v1::master::call::Type::DestroyVolumes as i32),
            destroy_volumes: Some(v1::master::call::DestroyVolumes { agent_id: agent.to_proto(), volumes: vec![volume.clone()] }),
            ..Default::default()
        };
        assert!(matches!(world.operator(destroy), Some(Reply::Refused { .. })), "in use");
        world.update(1, &id, name, TaskFinished, Some(u8::try_from(at).expect("small")));
    }
    assert!(contradictions(&world.state()).is_empty());
    let destroy = v1::master::Call {
        r#type: Some(v1::master::call::Type::DestroyVolumes as i32),
        destroy_volumes: Some(v1::master::call::DestroyVolumes { agent_id: agent.to_proto(), volumes: vec![volume] }),
        ..Default::default()
    };
    assert_eq!(world.operator(destroy), Some(Reply::Accepted));
    assert_eq!(world.state().agents[&agent].total.scalar("disk").to_f64(), 100.0);
}

#[test]
fn volumes_grow_and_shrink() {
    let (mut world, agent, id) = with_disk();
    let offers = world.take_offers("s");
    let volume = reserved_volume(40.0, false);
    let mut addition = reserved_volume(20.0, false);
    addition.disk = None;
    let grow = Operation {
        r#type: Some(operation::Type::GrowVolume as i32),
        grow_volume: Some(operation::GrowVolume { volume: volume.clone(), addition }),
        ..Default::default()
    };
    let shrink = Operation {
        r#type: Some(operation::Type::ShrinkVolume as i32),
        shrink_volume: Some(operation::ShrinkVolume { volume: reserved_volume(60.0, false), subtract: v1::value::Scalar { value: 50.0 } }),
        ..Default::default()
    };
    world.accept("s", &id, &[&offers[0]], vec![create(&volume), grow, shrink]);
    let total = world.state().agents[&agent].total.clone();
    assert_eq!(total.persistent_volumes().scalar("disk").to_f64(), 10.0, "{total}");
    assert_eq!(total.scalar("disk").to_f64(), 100.0);
    world.pass_secs(1);
    let again: Resources =
        world.take_offers("s").iter().flat_map(|it| Resources::from_proto(&it.resources).iter().cloned().collect::<Vec<_>>()).collect();
    assert_eq!(again.scalar("disk").to_f64(), 100.0, "what was converted is offered without a filter");
}

#[test]
fn an_operation_that_the_agent_dropped_is_taken_back() {
    let (mut world, agent, id) = with_disk();
    let offers = world.take_offers("s");
    world.take_sent(1);
    world.accept("s", &id, &[&offers[0]], vec![create(&reserved_volume(40.0, false))]);
    let sent = world.take_sent(1);
    let [ToAgent::ApplyOperation { operation_uuid, .. }] = &sent[..] else { panic!("{sent:?}") };
    let status = v1::OperationStatus { state: v1::OperationState::OperationDropped as i32, ..Default::default() };
    world.agent(
        1,
        FromAgent::OperationStatusUpdate {
            framework_id: Some(id),
            operation_uuid: operation_uuid.clone(),
            status: Box::new(status),
            latest_state: v1::OperationState::OperationDropped,
            total_resources: Vec::new(),
        },
    );
    let state = world.state();
    assert!(state.agents[&agent].total.persistent_volumes().is_empty() && state.operations.is_empty());
    assert_eq!(state.metrics.get("master/operations/dropped"), 1);
    assert_eq!(state.metrics.get("master/operations/create/dropped"), 1);
}

#[test]
fn messages_find_their_way() {
    let (mut world, agent, id) = running(framework(&["dev"]));
    let message = call::Message { agent_id: agent.to_proto(), executor_id: v1::ExecutorId { value: "e".into() }, data: b"hi".to_vec() };
    let large = call::Message { data: vec![0; 17_000_000], ..message.clone() };
    for message in [message, large] {
        world.call("s", &id, Call { r#type: Some(call::Type::Message as i32), message: Some(message), ..Default::default() });
    }
    assert_eq!(world.state().metrics.get("master/invalid_framework_to_executor_messages"), 1, "its connection would not take it");
    let shutdown = call::Shutdown { agent_id: agent.to_proto(), executor_id: v1::ExecutorId { value: "e".into() } };
    world.call("s", &id, Call { r#type: Some(call::Type::Shutdown as i32), shutdown: Some(shutdown), ..Default::default() });
    let sent = world.take_sent(1);
    assert!(matches!(&sent[..], [ToAgent::FrameworkMessage { data, .. }, ToAgent::ShutdownExecutor { .. }] if data == b"hi"), "{sent:?}");
    world.agent(1, FromAgent::ExecutorMessage { framework_id: id, executor_id: "e".into(), data: b"ho".to_vec() });
    let event = world.take_events("s").pop().and_then(|it| it.message).expect("told");
    assert_eq!((event.data, event.agent_id), (b"ho".to_vec(), agent.to_proto()));
}

#[test]
fn agents_learn_what_a_framework_says_of_itself() {
    let (mut world, _, id) = running(framework(&["dev"]));
    let mut info = (*world.state().frameworks[&id].info).clone();
    info.name = "renamed".into();
    let update = call::UpdateFramework { framework_info: info, ..Default::default() };
    world.call("s", &id, Call { r#type: Some(call::Type::UpdateFramework as i32), update_framework: Some(update), ..Default::default() });
    assert!(matches!(&world.take_sent(1)[..], [ToAgent::UpdateFramework { framework }] if framework.name == "renamed"));
}

#[test]
fn operators_hear_what_happens_in_its_order() {
    use v1::master::event::Type;
    let (mut world, agent, id) = running(framework(&["dev"]));
    world.update(1, &id, "t", TaskRunning, Some(3));
    world.update(1, &id, "t", TaskFinished, Some(4));
    world.acknowledge("s", &id, &agent, "t", 4);
    world.close_stream("s");
    world.live_secs(3620, &[1]);
    world.pass_secs(200);
    let kinds: Vec<Type> = world.published.iter().map(|it| it.r#type()).collect();
    assert_eq!(
        kinds,
        [
            Type::AgentAdded,
            Type::FrameworkAdded,
            Type::TaskAdded,
            Type::TaskUpdated,
            Type::TaskUpdated,
            Type::FrameworkRemoved,
            Type::AgentRemoved
        ],
        "the same state twice is one change"
    );
}

#[test]
fn nothing_is_published_where_nobody_watches() {
    let (mut world, agent, id) = running(framework(&["dev"]));
    world.published.clear();
    world.input(Input::Watched { by_anybody: false });
    world.update(1, &id, "t", TaskFinished, Some(4));
    world.acknowledge("s", &id, &agent, "t", 4);
    assert!(world.published.is_empty(), "{:?}", world.published);
    world.input(Input::Watched { by_anybody: true });
    world.new_agent(2, "cpus:1");
    assert_eq!(world.published.len(), 1);
}

#[test]
fn remote_agents_are_for_those_who_ask() {
    let domain = |region: &str| v1::DomainInfo {
        fault_domain: Some(v1::domain_info::FaultDomain {
            region: v1::domain_info::fault_domain::RegionInfo { name: region.into() },
            zone: v1::domain_info::fault_domain::ZoneInfo { name: "z".into() },
        }),
    };
    let mut config = config(0);
    config.info.domain = Some(domain("here"));
    let mut world = World::with(config);
    for (link, region) in [(1, "here"), (2, "there")] {
        let mut register = introduce(link, "cpus:2;mem:512");
        register.info.domain = Some(domain(region));
        world.register(link, register);
    }
    let hosts =
        |world: &mut World, stream: &str| -> BTreeSet<String> { world.take_offers(stream).into_iter().map(|it| it.hostname).collect() };
    world.subscribe("a", framework(&["dev"]));
    world.live_secs(10, &[1, 2]);
    assert_eq!(hosts(&mut world, "a"), ["host1".to_owned()].into());
    let mut info = framework(&["dev"]);
    info.capabilities.push(v1::framework_info::Capability { r#type: Some(Can::RegionAware as i32) });
    world.subscribe("b", info);
    world.live_secs(10, &[1, 2]);
    assert_eq!(hosts(&mut world, "b"), ["host2".to_owned()].into());
}

#[test]
fn urls_of_agents_say_whether_they_speak_tls() {
    let mut world = World::new();
    world.new_agent(1, "cpus:1;mem:64");
    world.register(2, master::Register { tls: true, ..introduce(2, "cpus:1;mem:64") });
    world.subscribe("s", framework(&["dev"]));
    world.live_secs(10, &[1, 2]);
    let mut schemes: Vec<(String, String)> =
        world.take_offers("s").into_iter().filter_map(|it| Some((it.hostname, it.url?.scheme))).collect();
    schemes.sort();
    assert_eq!(schemes, [("host1".to_owned(), "http".to_owned()), ("host2".to_owned(), "https".to_owned())]);
}

#[test]
fn what_agents_remember_is_known_once_and_the_newest_stays() {
    let ended = |id: &str, framework: &mesos::FrameworkId, agent: &mesos::AgentId, at: f64| v1::Task {
        name: id.to_owned(),
        task_id: v1::TaskId { value: id.to_owned() },
        framework_id: framework.to_proto(),
        agent_id: agent.to_proto(),
        state: TaskFinished as i32,
        statuses: vec![v1::TaskStatus {
            task_id: v1::TaskId { value: id.to_owned() },
            state: TaskFinished as i32,
            timestamp: Some(at),
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut config = config(0);
    config.max_completed_tasks_per_framework = 3;
    config.max_completed_frameworks = 2;
    let mut world = World::with(config);
    let agent = world.new_agent(1, "cpus:100;mem:4096");
    let id = world.subscribe("s", framework(&["dev"])).expect("subscribed");
    let info = (*world.state().frameworks[&id].info).clone();
    let other = mesos::FrameworkId::from(&v1::FrameworkId { value: "earlier-0000".to_owned() });
    let gone = v1::FrameworkInfo { id: Some(other.to_proto()), ..framework(&["dev"]) };
    // The agent is unreachable and comes back, three times, each time with what it remembers, newest first; the last time with one more.
    for round in 0..3_u64 {
        world.pass_secs(120);
        let mut register = introduce(1, "cpus:100;mem:4096");
        register.info.id = Some(agent.to_proto());
        let more = if round == 2 { Some(ended("t4", &id, &agent, 4.0)) } else { None };
        let remembered = ["t3", "t1", "t2"].map(|it| ended(it, &id, &agent, f64::from(it.as_bytes()[1] - b'0')));
        let of_gone = vec![ended("g", &other, &agent, 1.0)];
        register.completed_frameworks = vec![(info.clone(), more.into_iter().chain(remembered).collect()), (gone.clone(), of_gone)];
        world.register(2 + round, register);
        assert_eq!(world.registered(2 + round), Some(agent.clone()));
        let state = world.state();
        let kept: Vec<String> = state.frameworks[&id].completed_tasks.iter().map(|it| it.id.to_string()).collect();
        assert_eq!(kept, if round == 2 { ["t2", "t3", "t4"] } else { ["t1", "t2", "t3"] }, "after {round}");
        assert_eq!(state.completed_frameworks.len(), 1, "one entry, however often it is told");
        assert_eq!(state.completed_frameworks[0].completed_tasks.len(), 1);
    }
}

#[test]
fn what_is_remembered_is_limited() {
    let mut config = config(0);
    config.max_completed_tasks_per_framework = 3;
    config.max_completed_frameworks = 2;
    let mut world = World::with(config);
    let agent = world.new_agent(1, "cpus:100;mem:4096");
    let mut first = None;
    for at in 0..4 {
        let stream = format!("s{at}");
        let id = world.subscribe(&stream, framework(&["dev"])).expect("subscribed");
        first.get_or_insert(id.clone());
        world.live_secs(10, &[1]);
        let offers = world.take_offers(&stream);
        let names: Vec<String> = (0..5).map(|it| format!("t{it}")).collect();
        let tasks = names.iter().map(|it| task(it, &agent.to_proto(), "cpus:1;mem:32")).collect();
        world.accept(&stream, &id, &[&offers[0]], vec![launch(tasks)]);
        for name in &names {
            world.update(1, &id, name, TaskFinished, Some(1));
            world.acknowledge(&stream, &id, &agent, name, 1);
        }
        let kept: Vec<String> = world.state().frameworks[&id].completed_tasks.iter().map(|it| it.id.to_string()).collect();
        assert_eq!(kept, ["t2", "t3", "t4"]);
        world.call(&stream, &id, Call { r#type: Some(call::Type::Teardown as i32), ..Default::default() });
    }
    assert_eq!(world.state().completed_frameworks.len(), 2);
}
