//! What operators do: quotas, weights, reservations, volumes, maintenance, draining.

use std::time::Duration;

use master::{FromAgent, Input, Refusal, Reply, ToAgent};
use mesos::{AgentId, FrameworkId, Resource, Resources};
use mesos_proto::v1;
use v1::TaskState::{TaskKilled, TaskRunning};
use v1::master::Call;
use v1::master::call::{self, Type};
use v1::offer::{Operation, operation};

use crate::lifecycle::running;
use crate::world::{World, config, framework, introduce, launch, task};

fn operator(kind: Type) -> Call {
    Call { r#type: Some(kind as i32), ..Default::default() }
}

fn quota(role: &str, guarantee: f64, limit: f64, force: bool) -> Call {
    let amount = |value: f64| [("cpus".to_owned(), v1::value::Scalar { value })].into();
    let config = v1::quota::QuotaConfig { role: role.into(), guarantees: amount(guarantee), limits: amount(limit) };
    Call { update_quota: Some(call::UpdateQuota { force: Some(force), quota_configs: vec![config] }), ..operator(Type::UpdateQuota) }
}

fn cpus(offers: &[v1::Offer]) -> f64 {
    offers.iter().map(|it| Resources::from_proto(&it.resources).scalar("cpus").to_f64()).sum()
}

fn refused(reply: Option<Reply>, kind: Refusal, text: &str) {
    match reply {
        Some(Reply::Refused { kind: found, message }) => {
            assert_eq!(found, kind, "{message}");
            assert!(message.starts_with(text), "{message}");
        }
        other => panic!("refused: {other:?}"),
    }
}

#[test]
fn chance_decides_where_it_is_to_and_the_same_for_the_same_seed() {
    let offered = |seed: u64| {
        let mut config = config(0);
        (config.role_sorter, config.framework_sorter, config.seed) = (master::Sorter::Random, master::Sorter::Random, seed);
        let mut world = World::with(config);
        for stream in ["a", "b", "c"] {
            world.subscribe(stream, framework(&[if stream == "a" { "dev" } else { "ops" }]));
        }
        for link in 1..=60 {
            world.new_agent(link, "cpus:4;mem:1024");
        }
        world.pass_secs(2);
        ["a", "b", "c"].map(|stream| world.take_offers(stream).len())
    };
    let counts = offered(1);
    assert_eq!(counts, offered(1));
    assert_ne!(counts, offered(2));
    assert_eq!(counts.iter().sum::<usize>(), 60);
    assert!(counts.iter().all(|it| *it > 5) && counts[0] > 15, "half for dev, a quarter for each of the others: {counts:?}");
}

#[test]
fn a_limit_caps_what_a_role_is_offered() {
    let mut world = World::new();
    world.new_agent(1, "cpus:4;mem:1024");
    world.new_agent(2, "cpus:4;mem:1024");
    assert_eq!(world.operator(quota("dev", 0.0, 5.0, false)), Some(Reply::Ok));
    world.subscribe("s", framework(&["dev"]));
    world.pass_secs(3);
    assert_eq!(cpus(&world.take_offers("s")), 5.0);
    assert_eq!(world.state().consumed["dev"].get("cpus").to_f64(), 5.0);
    assert!(world.stored.contains_key("quotas/dev"));
}

#[test]
fn a_guarantee_is_kept_free_for_its_role() {
    let mut world = World::new();
    world.new_agent(1, "cpus:4;mem:1024");
    world.new_agent(2, "cpus:4;mem:1024");
    assert_eq!(world.operator(quota("prod", 3.0, 8.0, false)), Some(Reply::Ok));
    world.subscribe("d", framework(&["dev"]));
    world.pass_secs(3);
    assert_eq!(cpus(&world.take_offers("d")), 5.0, "what is promised to others stays");
    world.subscribe("p", framework(&["prod"]));
    world.pass_secs(3);
    assert_eq!(cpus(&world.take_offers("p")), 3.0);
}

#[test]
fn quotas_that_make_no_sense_are_refused() {
    let mut world = World::new();
    world.new_agent(1, "cpus:4;mem:1024");
    refused(world.operator(quota("dev", 5.0, 8.0, false)), Refusal::BadRequest, "Invalid QuotaConfig: total quota guarantees 'cpus:5'");
    assert_eq!(world.operator(quota("dev", 5.0, 8.0, true)), Some(Reply::Ok));
    refused(world.operator(quota("a/b", 1.0, 2.0, false)), Refusal::BadRequest, "Updating quota on nested role 'a/b'");
    refused(world.operator(quota("x", 3.0, 2.0, true)), Refusal::BadRequest, "Invalid QuotaConfig: 'QuotaConfig.guarantees' cpus:3");
    refused(world.operator(quota("x", -1.0, 2.0, true)), Refusal::BadRequest, "Invalid QuotaConfig: Invalid guarantee configuration");
    refused(world.operator(quota("x", f64::NAN, 2.0, true)), Refusal::BadRequest, "Invalid QuotaConfig: Invalid guarantee");
    let remove = Call { remove_quota: Some(call::RemoveQuota { role: "none".into() }), ..operator(Type::RemoveQuota) };
    refused(world.operator(remove), Refusal::BadRequest, "Failed to remove quota");
    let remove = Call { remove_quota: Some(call::RemoveQuota { role: "dev".into() }), ..operator(Type::RemoveQuota) };
    assert_eq!(world.operator(remove), Some(Reply::Ok));
    assert!(world.stored.keys().all(|key| !key.starts_with("quotas/")));
}

#[test]
fn with_quotas_a_new_master_waits_for_most_agents() {
    let mut world = World::new();
    let ids: Vec<AgentId> = (1..=5).map(|link| world.new_agent(link, "cpus:4;mem:1024")).collect();
    world.operator(quota("prod", 3.0, 8.0, false));
    world.fail_over(config(1));
    world.subscribe("d", framework(&["dev"]));
    let back = |world: &mut World, link: u64, id: &AgentId| {
        let mut register = introduce(link, "cpus:4;mem:1024");
        register.info.id = Some(id.to_proto());
        world.register(link + 10, register);
    };
    // The addresses are those of before.
    for (link, id) in (1..=3).zip(&ids) {
        back(&mut world, link, id);
    }
    world.live_secs(20, &[11, 12, 13]);
    assert!(world.take_offers("d").is_empty());
    back(&mut world, 4, &ids[3]);
    world.pass_secs(2);
    assert_eq!(cpus(&world.take_offers("d")), 13.0);
}

#[test]
fn weights_change_who_is_next() {
    let mut world = World::new();
    for link in 1..=9 {
        world.new_agent(link, "cpus:4;mem:1024");
    }
    let weight = |role: &str, weight: f64| Call {
        update_weights: Some(call::UpdateWeights { weight_infos: vec![v1::WeightInfo { weight, role: Some(role.into()) }] }),
        ..operator(Type::UpdateWeights)
    };
    assert_eq!(world.operator(weight("a", 2.0)), Some(Reply::Ok));
    refused(
        world.operator(weight("a", 0.0)),
        Refusal::BadRequest,
        "Failed to validate update weights request JSON for role 'a': Invalid weight '0'",
    );
    refused(world.operator(weight("-a", 1.0)), Refusal::BadRequest, "Failed to validate update weights request JSON: Invalid role '-a'");
    world.subscribe("a", framework(&["a"]));
    world.subscribe("b", framework(&["b"]));
    world.pass_secs(1);
    assert_eq!((world.take_offers("a").len(), world.take_offers("b").len()), (6, 3));
    assert_eq!(world.operator(weight("b", 2.0)), Some(Reply::Ok));
    assert_eq!(world.take_events("a").iter().filter(|it| it.rescind.is_some()).count(), 6);
}

/// A dynamic reservation of what `text` says.
fn reserved(text: &str, role: &str) -> Vec<v1::Resource> {
    let mut resources = mesos::parse_resources(text, "*").expect("good");
    for resource in &mut resources {
        resource.reservations.push(v1::resource::ReservationInfo {
            r#type: Some(v1::resource::reservation_info::Type::Dynamic as i32),
            role: Some(role.into()),
            ..Default::default()
        });
    }
    resources
}

fn volume(text: &str, role: &str, id: &str) -> v1::Resource {
    let mut volume = reserved(text, role).pop().expect("one");
    volume.disk = Some(v1::resource::DiskInfo {
        persistence: Some(v1::resource::disk_info::Persistence { id: id.into(), principal: None }),
        volume: Some(v1::Volume { mode: v1::volume::Mode::Rw as i32, container_path: "data".into(), ..Default::default() }),
        source: None,
    });
    volume
}

fn reserve(agent: &AgentId, resources: Vec<v1::Resource>) -> Call {
    Call {
        reserve_resources: Some(call::ReserveResources { agent_id: agent.to_proto(), source: Vec::new(), resources }),
        ..operator(Type::ReserveResources)
    }
}

#[test]
fn an_operator_reserves_and_takes_back() {
    let mut world = World::new();
    let agent = world.new_agent(1, "cpus:4;mem:1024");
    world.subscribe("d", framework(&["dev"]));
    world.pass_secs(1);
    assert_eq!(world.take_offers("d").len(), 1);
    world.take_sent(1);
    assert_eq!(world.operator(reserve(&agent, reserved("cpus:3", "prod"))), Some(Reply::Accepted));
    assert!(world.take_events("d").iter().any(|it| it.rescind.is_some()), "the offer was in the way");
    let sent = world.take_sent(1);
    let [ToAgent::ApplyOperation { operation_uuid, framework_id: None, .. }] = &sent[..] else { panic!("{sent:?}") };
    world.pass_secs(2);
    assert_eq!(cpus(&world.take_offers("d")), 1.0);
    world.subscribe("p", framework(&["prod"]));
    world.pass_secs(2);
    assert_eq!(cpus(&world.take_offers("p")), 3.0);
    let status = v1::OperationStatus { state: v1::OperationState::OperationFinished as i32, ..Default::default() };
    let done = FromAgent::OperationStatusUpdate {
        framework_id: None,
        operation_uuid: operation_uuid.clone(),
        status: Box::new(status),
        latest_state: v1::OperationState::OperationFinished,
        total_resources: Vec::new(),
    };
    assert_eq!(world.state().operations.len(), 1);
    world.agent(1, done);
    assert!(world.state().operations.is_empty());
    refused(world.operator(reserve(&agent, reserved("cpus:3", "prod"))), Refusal::Conflict, "cpus:1; mem:1024");
    refused(world.operator(reserve(&"x".into(), reserved("cpus:3", "prod"))), Refusal::BadRequest, "No agent found with specified ID");
    let unreserve = Call {
        unreserve_resources: Some(call::UnreserveResources { agent_id: agent.to_proto(), resources: reserved("cpus:3", "prod") }),
        ..operator(Type::UnreserveResources)
    };
    assert_eq!(world.operator(unreserve), Some(Reply::Accepted));
    assert!(world.state().agents[&agent].total.iter().all(|it| !it.is_reserved()));
}

#[test]
fn a_framework_reserves_creates_and_launches_in_one_call() {
    let mut world = World::new();
    let agent = world.new_agent(1, "cpus:4;mem:1024;disk:1000");
    let id = world.subscribe("s", framework(&["dev"])).expect("subscribed");
    world.pass_secs(1);
    let offers = world.take_offers("s");
    world.take_sent(1);
    let volume = volume("disk:100", "dev", "v1");
    let operations = vec![
        Operation {
            r#type: Some(operation::Type::Reserve as i32),
            id: Some(v1::OperationId { value: "op".into() }),
            reserve: Some(operation::Reserve { source: Vec::new(), resources: reserved("disk:100", "dev") }),
            ..Default::default()
        },
        Operation {
            r#type: Some(operation::Type::Create as i32),
            create: Some(operation::Create { volumes: vec![volume.clone()] }),
            ..Default::default()
        },
        launch(vec![{
            let mut info = task("t", &agent.to_proto(), "cpus:1;mem:32");
            info.resources.push(volume.clone());
            info
        }]),
    ];
    world.accept("s", &id, &[&offers[0]], operations);
    let sent = world.take_sent(1);
    assert!(
        matches!(&sent[..], [ToAgent::ApplyOperation { .. }, ToAgent::ApplyOperation { .. }, ToAgent::RunTask { .. }]),
        "{:?}",
        world.take_events("s")
    );
    let state = world.state();
    assert_eq!(state.agents[&agent].total.persistent_volumes().len(), 1);
    assert!(state.frameworks[&id].operations.contains_key("op"));

    // In use: not destroyed.
    let destroy = Call {
        destroy_volumes: Some(call::DestroyVolumes { agent_id: agent.to_proto(), volumes: vec![volume.clone()] }),
        ..operator(Type::DestroyVolumes)
    };
    refused(world.operator(destroy.clone()), Refusal::BadRequest, "Invalid DESTROY operation on agent m0-S0");
    world.update(1, &id, "t", TaskKilled, Some(1));
    assert_eq!(world.operator(destroy), Some(Reply::Accepted));
    assert!(world.state().agents[&agent].total.persistent_volumes().is_empty());
    let left = Resource::from_proto(&reserved("disk:100", "dev")[0]);
    assert!(world.state().agents[&agent].total.contains_one(&left), "the reservation stays");

    // Feedback for the operation with an id, and its acknowledgement.
    let ToAgent::ApplyOperation { operation_uuid, .. } = &sent[0] else { panic!("first") };
    let status = v1::OperationStatus {
        state: v1::OperationState::OperationFinished as i32,
        uuid: Some(v1::Uuid { value: vec![5; 16] }),
        ..Default::default()
    };
    world.take_events("s");
    world.agent(
        1,
        FromAgent::OperationStatusUpdate {
            framework_id: Some(id.clone()),
            operation_uuid: operation_uuid.clone(),
            status: Box::new(status),
            latest_state: v1::OperationState::OperationFinished,
            total_resources: Vec::new(),
        },
    );
    let told = world.take_events("s").into_iter().find_map(|it| it.update_operation_status).expect("told").status;
    assert_eq!(told.operation_id.map(|it| it.value), Some("op".into()));
    let acknowledge = v1::scheduler::call::AcknowledgeOperationStatus {
        agent_id: Some(agent.to_proto()),
        uuid: vec![5; 16],
        operation_id: v1::OperationId { value: "op".into() },
        ..Default::default()
    };
    let call = v1::scheduler::Call {
        r#type: Some(v1::scheduler::call::Type::AcknowledgeOperationStatus as i32),
        acknowledge_operation_status: Some(acknowledge),
        ..Default::default()
    };
    world.take_sent(1);
    world.call("s", &id, call);
    assert!(matches!(&world.take_sent(1)[..], [ToAgent::AcknowledgeOperationStatus { .. }]));
    assert!(world.state().frameworks[&id].operations.is_empty());
}

#[test]
fn an_operation_that_does_not_fit_is_an_error_when_it_has_an_id() {
    let mut world = World::new();
    world.new_agent(1, "cpus:4;mem:1024");
    let id = world.subscribe("s", framework(&["dev"])).expect("subscribed");
    world.pass_secs(1);
    let offers = world.take_offers("s");
    let reserve = |resources| Operation {
        r#type: Some(operation::Type::Reserve as i32),
        id: Some(v1::OperationId { value: "op".into() }),
        reserve: Some(operation::Reserve { source: Vec::new(), resources }),
        ..Default::default()
    };
    world.accept("s", &id, &[&offers[0]], vec![reserve(reserved("cpus:5", "dev"))]);
    let status = world.take_events("s").into_iter().find_map(|it| it.update_operation_status).expect("told").status;
    assert_eq!(status.state(), v1::OperationState::OperationError);
    assert!(status.message().contains("does not contain cpus(allocated: dev):5"), "{}", status.message());
    world.live_secs(6, &[1]);
    let offers = world.take_offers("s");
    world.accept("s", &id, &[&offers[0]], vec![reserve(reserved("cpus:1", "other"))]);
    let status = world.take_events("s").into_iter().find_map(|it| it.update_operation_status).expect("told").status;
    assert!(status.message().starts_with("A reserve operation was attempted for a resource with role 'other'"), "{}", status.message());
}

fn window(machines: &[&str]) -> v1::maintenance::Window {
    v1::maintenance::Window {
        machine_ids: machines.iter().map(|it| v1::MachineId { hostname: Some((*it).into()), ip: None }).collect(),
        unavailability: v1::Unavailability { start: v1::TimeInfo { nanoseconds: 1 }, duration: None },
    }
}

fn schedule(windows: Vec<v1::maintenance::Window>) -> Call {
    let schedule = v1::maintenance::Schedule { windows };
    Call { update_maintenance_schedule: Some(call::UpdateMaintenanceSchedule { schedule }), ..operator(Type::UpdateMaintenanceSchedule) }
}

#[test]
fn maintenance_from_plan_to_machine_up() {
    let (mut world, agent, id) = running(framework(&["dev"]));
    assert_eq!(world.operator(schedule(vec![window(&["HOST1"])])), Some(Reply::Ok));
    world.live_secs(10, &[1]);
    let events = world.take_events("s");
    let inverse = events.iter().find_map(|it| it.inverse_offers.clone()).expect("asked to leave").inverse_offers;
    assert_eq!(inverse[0].agent_id, Some(agent.to_proto()));
    let offer = events.iter().find_map(|it| it.offers.clone()).expect("offered all the same").offers;
    assert!(offer[0].unavailability.is_some());
    let decline = v1::scheduler::call::DeclineInverseOffers { inverse_offer_ids: vec![inverse[0].id.clone()], filters: None };
    let call = v1::scheduler::Call {
        r#type: Some(v1::scheduler::call::Type::DeclineInverseOffers as i32),
        decline_inverse_offers: Some(decline),
        ..Default::default()
    };
    world.call("s", &id, call);
    let status = world.state().inverse_statuses[&(agent.clone(), id.clone())].clone();
    assert_eq!(status.status(), v1::allocator::inverse_offer_status::Status::Decline);

    let machines = vec![v1::MachineId { hostname: Some("host1".into()), ip: None }];
    let start = |machines: &[v1::MachineId]| Call {
        start_maintenance: Some(call::StartMaintenance { machines: machines.to_vec() }),
        ..operator(Type::StartMaintenance)
    };
    let stop = Call { stop_maintenance: Some(call::StopMaintenance { machines: machines.clone() }), ..operator(Type::StopMaintenance) };
    refused(world.operator(start(&[])), Refusal::BadRequest, "List of machines is empty");
    let foreign = v1::MachineId { hostname: Some("x".into()), ip: None };
    refused(world.operator(start(&[foreign])), Refusal::BadRequest, "Machine '{\"hostname\":\"x\"}' is not part of a maintenance schedule");
    refused(world.operator(stop.clone()), Refusal::BadRequest, "Machine '{\"hostname\":\"host1\"}' is not in DOWN mode");
    assert_eq!(world.operator(start(&machines)), Some(Reply::Ok));
    assert!(world.state().agents.is_empty());
    assert!(world.take_sent(1).iter().any(|it| matches!(it, ToAgent::Shutdown { .. })));
    world.register(2, introduce(1, "cpus:4"));
    assert!(matches!(&world.take_sent(2)[..], [ToAgent::Refused { .. }]));
    refused(world.operator(schedule(Vec::new())), Refusal::BadRequest, "Machine '{\"hostname\":\"host1\"}' is deactivated");
    assert_eq!(world.operator(stop), Some(Reply::Ok));
    world.register(3, introduce(1, "cpus:4"));
    assert!(world.registered(3).is_some());
    assert!(world.state().registry.schedule.windows.is_empty());
}

#[test]
fn schedules_that_make_no_sense_are_refused() {
    let mut world = World::new();
    refused(world.operator(schedule(vec![window(&[])])), Refusal::BadRequest, "List of machines in the maintenance window is empty");
    refused(
        world.operator(schedule(vec![window(&["a"]), window(&["A"])])),
        Refusal::BadRequest,
        "Machine '{\"hostname\":\"A\"}' appears more",
    );
    refused(world.operator(schedule(vec![window(&[""])])), Refusal::BadRequest, "Both 'hostname' and 'ip' for a machine are empty");
    let mut bad = window(&["a"]);
    bad.machine_ids[0].ip = Some("1.2.3".into());
    refused(world.operator(schedule(vec![bad])), Refusal::BadRequest, "Failed to parse the IP");
    let mut negative = window(&["a"]);
    negative.unavailability.duration = Some(v1::DurationInfo { nanoseconds: -1 });
    refused(world.operator(schedule(vec![negative])), Refusal::BadRequest, "Unavailability 'duration' is negative");
}

fn drain(agent: &AgentId, mark_gone: bool) -> Call {
    let drain = call::DrainAgent { agent_id: agent.to_proto(), max_grace_period: None, mark_gone: Some(mark_gone) };
    Call { drain_agent: Some(drain), ..operator(Type::DrainAgent) }
}

fn end_task(world: &mut World, agent: &AgentId, id: &FrameworkId) {
    world.update(1, id, "t", TaskKilled, Some(7));
    world.acknowledge("s", id, agent, "t", 7);
}

#[test]
fn an_agent_drains_and_is_offered_again() {
    let (mut world, agent, id) = running(framework(&["dev"]));
    world.live_secs(10, &[1]);
    assert_eq!(world.take_offers("s").len(), 1);
    assert_eq!(world.operator(drain(&agent, false)), Some(Reply::Ok));
    assert!(world.take_sent(1).iter().any(|it| matches!(it, ToAgent::Drain { .. })));
    assert!(world.take_events("s").iter().any(|it| it.rescind.is_some()));
    let reactivate =
        Call { reactivate_agent: Some(call::ReactivateAgent { agent_id: agent.to_proto() }), ..operator(Type::ReactivateAgent) };
    refused(world.operator(reactivate.clone()), Refusal::BadRequest, "Agent is still in the DRAINING state");
    end_task(&mut world, &agent, &id);
    let drained = world.state().agents[&agent].drain.expect("drained");
    assert_eq!(drained.state, v1::DrainState::Drained as i32);
    world.live_secs(10, &[1]);
    assert!(world.take_offers("s").is_empty());
    assert_eq!(world.operator(reactivate.clone()), Some(Reply::Ok));
    world.live_secs(10, &[1]);
    assert_eq!(world.take_offers("s").len(), 1);
    refused(world.operator(reactivate), Refusal::BadRequest, "Agent is not deactivated");
    refused(world.operator(drain(&"x".into(), false)), Refusal::BadRequest, "Unknown agent");
}

#[test]
fn draining_outlives_the_master_and_may_end_the_agent() {
    let (mut world, agent, id) = running(framework(&["dev"]));
    let info = (*world.state().frameworks[&id].info).clone();
    world.operator(drain(&agent, true));
    let register = crate::lifecycle::come_back(&agent, info.clone(), TaskRunning);
    world.fail_over(config(1));
    world.subscribe("s", info);
    world.take_sent(1);
    world.register(1, register);
    assert!(world.take_sent(1).iter().any(|it| matches!(it, ToAgent::Drain { config } if config.mark_gone == Some(true))));
    end_task(&mut world, &agent, &id);
    let state = world.state();
    assert!(state.agents.is_empty() && state.registry.gone.contains_key(&agent));
}

#[test]
fn a_deactivated_agent_keeps_its_tasks() {
    let (mut world, agent, id) = running(framework(&["dev"]));
    let deactivate =
        Call { deactivate_agent: Some(call::DeactivateAgent { agent_id: agent.to_proto() }), ..operator(Type::DeactivateAgent) };
    assert_eq!(world.operator(deactivate), Some(Reply::Ok));
    world.live_secs(20, &[1]);
    assert!(world.take_offers("s").is_empty());
    assert!(world.state().frameworks[&id].tasks.contains_key("t"));
}

#[test]
fn only_hosts_of_the_whitelist_are_offered() {
    let mut world = World::new();
    world.new_agent(1, "cpus:4;mem:1024");
    world.new_agent(2, "cpus:4;mem:1024");
    world.input(Input::Whitelist { hostnames: Some(["host2".to_owned()].into()) });
    world.subscribe("s", framework(&["dev"]));
    world.pass_secs(3);
    let offers = world.take_offers("s");
    assert_eq!(offers.iter().map(|it| it.hostname.as_str()).collect::<Vec<_>>(), ["host2"]);
    world.input(Input::Whitelist { hostnames: None });
    world.pass_secs(1);
    assert_eq!(world.take_offers("s")[0].hostname, "host1");
}

#[test]
fn what_was_refused_is_not_offered_until_more_is_there_or_it_is_revived() {
    let (mut world, _, id) = running(framework(&["dev"]));
    world.live_secs(10, &[1]);
    let offers = world.take_offers("s");
    world.decline("s", &id, &[&offers[0]], Some(3600.0));
    world.live_secs(60, &[1]);
    assert!(world.take_offers("s").is_empty());
    // The task's end makes more free than was refused.
    world.update(1, &id, "t", TaskKilled, Some(9));
    world.live_secs(10, &[1]);
    let offers = world.take_offers("s");
    assert_eq!(cpus(&offers), 4.0);
    world.decline("s", &id, &[&offers[0]], Some(3600.0));
    world.live_secs(60, &[1]);
    assert!(world.take_offers("s").is_empty());
    let revive = |roles: &[&str]| v1::scheduler::Call {
        r#type: Some(v1::scheduler::call::Type::Revive as i32),
        revive: Some(v1::scheduler::call::Revive { roles: roles.iter().map(|it| (*it).to_owned()).collect() }),
        ..Default::default()
    };
    world.call("s", &id, revive(&["foreign"]));
    world.live_secs(10, &[1]);
    assert!(world.take_offers("s").is_empty());
    world.call("s", &id, revive(&["dev"]));
    world.pass_secs(1);
    assert_eq!(world.take_offers("s").len(), 1);
}

#[test]
fn what_one_refuses_goes_on_to_the_next_at_once() {
    let mut world = World::new();
    let mut waiting: Vec<_> = (0..10)
        .map(|at| {
            let name = format!("s{at}");
            let id = world.subscribe(&name, framework(&["dev"])).expect("subscribed");
            (name, id)
        })
        .collect();
    world.new_agent(1, "cpus:4;mem:1024");
    for step in 0..10 {
        // A hundred milliseconds for a round that would take ten runs over all agents.
        world.pass(Duration::from_millis(10));
        let found = waiting.iter().enumerate().find_map(|(at, (name, _))| world.take_offers(name).pop().map(|offer| (at, offer)));
        let (at, offer) = found.unwrap_or_else(|| panic!("nobody is asked after {step} refusals"));
        let (name, id) = waiting.swap_remove(at);
        world.decline(&name, &id, &[&offer], Some(3600.0));
    }
    world.live_secs(10, &[1]);
    assert!((0..10).all(|at| world.take_offers(&format!("s{at}")).is_empty()), "all of them refused");
}

#[test]
fn who_refuses_everything_is_asked_no_more_often_than_so() {
    let mut world = World::new();
    let frameworks: Vec<_> = ["s", "t", "u"].map(|name| (name, world.subscribe(name, framework(&["dev"])).expect("subscribed"))).into();
    for link in 1..=2_000 {
        world.new_agent(link, "cpus:4;mem:1024");
    }
    let mut asked = 0;
    // Less than the time between two runs over all agents.
    for _ in 0..80 {
        world.pass(Duration::from_millis(10));
        for (name, id) in &frameworks {
            let offers = world.take_offers(name);
            asked += offers.len();
            world.decline(name, id, &offers.iter().collect::<Vec<_>>(), Some(5.0));
        }
    }
    // Each agent once because it is new, and by one run over all of them; the rest is what is passed on.
    assert!((4_000..4_000 + 2_500).contains(&asked), "{asked} offers");
}

#[test]
fn what_comes_to_be_free_does_not_wait_for_a_look_at_full_agents() {
    let mut world = World::new();
    let id = world.subscribe("s", framework(&["dev"])).expect("subscribed");
    let links: Vec<u64> = (1..=3_000).collect();
    links.iter().for_each(|link| drop(world.new_agent(*link, "cpus:1;mem:64")));
    world.pass_secs(1);
    let offers = world.take_offers("s");
    assert_eq!(offers.len(), links.len());
    let last = offers.last().expect("there are some").agent_id.clone();
    for offer in &offers {
        let name = format!("t-{}", offer.agent_id.value);
        world.accept("s", &id, &[offer], vec![launch(vec![task(&name, &offer.agent_id, "cpus:1;mem:64")])]);
    }
    // Just after a run over all agents.
    world.pass_secs(1);
    world.pass(Duration::from_millis(1));
    let link = links.iter().find(|link| world.registered(**link).is_some_and(|it| it == AgentId::from(&last))).expect("it is known");
    world.update(*link, &id, &format!("t-{}", last.value), TaskKilled, Some(9));
    world.pass(Duration::from_millis(6));
    assert_eq!(world.take_offers("s").len(), 1);
}

#[test]
fn a_suppressed_role_gets_nothing() {
    let mut world = World::new();
    world.new_agent(1, "cpus:4;mem:1024");
    let id = world.subscribe("s", framework(&["a", "b"])).expect("subscribed");
    let suppress = |roles: &[&str]| v1::scheduler::Call {
        r#type: Some(v1::scheduler::call::Type::Suppress as i32),
        suppress: Some(v1::scheduler::call::Suppress { roles: roles.iter().map(|it| (*it).to_owned()).collect() }),
        ..Default::default()
    };
    world.call("s", &id, suppress(&["a"]));
    world.pass_secs(1);
    let offers = world.take_offers("s");
    assert_eq!(offers[0].allocation_info.as_ref().and_then(|it| it.role.as_deref()), Some("b"));
    world.call("s", &id, suppress(&[]));
    world.decline("s", &id, &[&offers[0]], Some(0.0));
    world.live_secs(20, &[1]);
    assert!(world.take_offers("s").is_empty());
}

#[test]
fn reservations_are_for_their_role_and_those_below() {
    let mut world = World::new();
    world.new_agent(1, "cpus(eng):2;cpus:1;mem:1024");
    for (stream, role) in [("x", "ops"), ("y", "eng/web")] {
        world.subscribe(stream, framework(&[role]));
    }
    world.pass_secs(2);
    let (ops, web) = (world.take_offers("x"), world.take_offers("y"));
    assert!(cpus(&ops) <= 1.0, "what is reserved for others is not theirs");
    assert!(web.iter().flat_map(|it| &it.resources).any(|it| !it.reservations.is_empty()), "{web:?}");
    assert_eq!(cpus(&ops) + cpus(&web), 3.0);
}

#[test]
fn constraints_gpus_and_regions_narrow_offers() {
    use v1::scheduler::attribute_constraint::{Predicate, Selector, predicate, selector};
    use v1::scheduler::offer_constraints::{RoleConstraints, role_constraints::Group};
    let mut world = World::new();
    for (link, rack) in [(1, "r1"), (2, "r2"), (3, "none")] {
        let mut register = introduce(link, if link == 3 { "cpus:4;mem:1024;gpus:1" } else { "cpus:4;mem:1024" });
        register.info.attributes = mesos::parse_attributes(&format!("rack:{rack}")).expect("good");
        world.register(link, register);
    }
    let constrained = |regex: &str| v1::scheduler::OfferConstraints {
        role_constraints: [(
            "dev".to_owned(),
            RoleConstraints {
                groups: vec![Group {
                    attribute_constraints: vec![v1::scheduler::AttributeConstraint {
                        selector: Selector { selector: Some(selector::Selector::AttributeName("rack".into())) },
                        predicate: Predicate {
                            predicate: Some(predicate::Predicate::TextMatches(predicate::TextMatches { regex: regex.into() })),
                        },
                    }],
                }],
            },
        )]
        .into(),
    };
    let subscribe = |world: &mut World, stream: &str, regex: &str| {
        let subscribe = v1::scheduler::call::Subscribe {
            framework_info: framework(&["dev"]),
            suppressed_roles: Vec::new(),
            offer_constraints: Some(constrained(regex)),
        };
        world.input(Input::Subscribe { stream: stream.into(), principal: None, subscribe: Box::new(subscribe) });
        world.pass_secs(2);
        world.take_events(stream)
    };
    let hosts = |events: Vec<v1::scheduler::Event>| -> Vec<String> {
        events.into_iter().filter_map(|it| it.offers).flat_map(|it| it.offers).map(|it| it.hostname).collect()
    };
    assert_eq!(hosts(subscribe(&mut world, "s", "r[2-9]")), ["host2"], "whole matches, and no GPUs for those who did not ask");
    let refused = subscribe(&mut world, "bad", "(");
    assert!(refused[0].error.as_ref().is_some_and(|it| it.message.starts_with("Offer constraints are invalid")));
    let refused = subscribe(&mut world, "trick", "a)|(b");
    assert!(refused[0].error.is_some());
    let refused = subscribe(&mut world, "huge", "(a{1000}){1000}");
    assert!(refused[0].error.is_some());
}

#[test]
fn an_agent_that_was_away_learns_that_it_is_reactivated() {
    let (mut world, agent, id) = running(framework(&["dev"]));
    let info = (*world.state().frameworks[&id].info).clone();
    world.operator(drain(&agent, false));
    end_task(&mut world, &agent, &id);
    world.close_link(1);
    let reactivate =
        Call { reactivate_agent: Some(call::ReactivateAgent { agent_id: agent.to_proto() }), ..operator(Type::ReactivateAgent) };
    assert_eq!(world.operator(reactivate), Some(Reply::Ok));
    let mut register = crate::lifecycle::come_back(&agent, info, TaskRunning);
    register.tasks.clear();
    register.drain = Some(v1::DrainConfig::default());
    world.register(2, register);
    assert!(world.take_sent(2).iter().any(|it| matches!(it, ToAgent::Undrain)));
    world.live_secs(10, &[2]);
    assert_eq!(world.take_offers("s").len(), 1);
}
