//! Whatever frameworks, agents and operators send, the master stays whole.

use std::sync::atomic::{AtomicU64, Ordering};

use master::{FromAgent, Input, Reply, ReplySlot};
use mesos_proto::v1;
use proptest::prelude::*;
use v1::offer::{Operation, operation};

use crate::accounting::contradictions;
use crate::world::{World, framework, introduce};

fn any_name() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => prop::sample::select(vec!["cpus", "mem", "disk", "ports", "gpus"]).prop_map(str::to_owned),
        1 => Just(String::new()),
        1 => Just("x".to_owned()),
    ]
}

fn any_role() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["dev", "dev", "dev", "dev", "dev", "dev/a", "*", "", "/", "other", "dev/../x", "-a"]).prop_map(str::to_owned)
}

fn any_amount() -> impl Strategy<Value = f64> {
    prop::sample::select(vec![
        1.0,
        1.0,
        1.0,
        1.0,
        0.5,
        0.5,
        2.0,
        2.0,
        10.0,
        0.0,
        -1.0,
        0.0001,
        1e300,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
    ])
}

prop_compose! {
    fn any_reservation()(kind in prop_oneof![6 => Just(2i32), 1 => 0i32..4], role in prop::option::of(any_role())) -> v1::resource::ReservationInfo {
        v1::resource::ReservationInfo { r#type: (kind > 0).then_some(kind), role, principal: None, labels: None }
    }
}

prop_compose! {
    fn any_disk()(
        id in prop::option::weighted(0.8, prop::sample::select(vec!["v", "v", "w", "w", "", "a/b"])),
        volume in prop::bool::weighted(0.8),
        mode in prop_oneof![4 => Just(1i32), 1 => 0i32..4],
        source in prop::option::weighted(0.2, 0i32..6),
    ) -> v1::resource::DiskInfo {
        v1::resource::DiskInfo {
            persistence: id.map(|id| v1::resource::disk_info::Persistence { id: id.into(), principal: None }),
            volume: volume.then(|| v1::Volume { mode, container_path: "p".into(), ..Default::default() }),
            source: source.map(|it| v1::resource::disk_info::Source { r#type: it, ..Default::default() }),
        }
    }
}

prop_compose! {
    fn any_resource()(
        name in any_name(),
        kind in prop_oneof![12 => Just(0i32), 2 => Just(1), 1 => 2i32..6],
        amount in any_amount(),
        range in prop::option::weighted(0.1, (0u64..10, 0u64..10)),
        scalar in prop::bool::weighted(0.95),
        reservations in prop_oneof![2 => Just(Vec::new()), 2 => prop::collection::vec(any_reservation(), 1..3)],
        disk in prop_oneof![3 => Just(None), 1 => any_disk().prop_map(Some)],
        flags in (prop::bool::weighted(0.1), prop::bool::weighted(0.1)),
        role in prop_oneof![6 => Just(None), 1 => any_role().prop_map(Some)],
    ) -> v1::Resource {
        v1::Resource {
            name,
            r#type: kind,
            scalar: scalar.then_some(v1::value::Scalar { value: amount }),
            ranges: range.map(|(begin, end)| v1::value::Ranges { range: vec![v1::value::Range { begin, end }] }),
            reservations,
            disk,
            revocable: flags.0.then(v1::resource::RevocableInfo::default),
            shared: flags.1.then(v1::resource::SharedInfo::default),
            allocation_info: role.map(|role| v1::resource::AllocationInfo { role: Some(role) }),
            ..Default::default()
        }
    }
}

fn any_resources() -> impl Strategy<Value = Vec<v1::Resource>> {
    prop::collection::vec(any_resource(), 0..4)
}

prop_compose! {
    fn any_task()(
        id in prop::sample::select(vec!["t", "u", "", "a/b", ".."]),
        resources in any_resources(),
        executor in prop::option::of(any_resources()),
        command in any::<bool>(),
        limit in prop::option::of(any_amount()),
    ) -> v1::TaskInfo {
        v1::TaskInfo {
            task_id: v1::TaskId { value: id.into() },
            agent_id: v1::AgentId { value: "m0-S0".into() },
            resources,
            executor: executor.map(|resources| v1::ExecutorInfo {
                executor_id: v1::ExecutorId { value: "e".into() },
                command: Some(v1::CommandInfo::default()),
                resources,
                ..Default::default()
            }),
            command: command.then(v1::CommandInfo::default),
            limits: limit.map(|value| ("cpus".to_owned(), v1::value::Scalar { value })).into_iter().collect(),
            ..Default::default()
        }
    }
}

prop_compose! {
    fn any_operation()(
        kind in 0i32..16,
        id in prop::option::weighted(0.3, Just(v1::OperationId { value: "op".into() })),
        a in any_resources(),
        b in any_resources(),
        one in any_resource(),
        two in any_resource(),
        amount in any_amount(),
        tasks in prop::collection::vec(any_task(), 0..3),
        present in prop::bool::weighted(0.95),
    ) -> Operation {
        if !present {
            return Operation { r#type: Some(kind), id, ..Default::default() };
        }
        let executor = tasks.first().and_then(|it| it.executor.clone()).unwrap_or_default();
        Operation {
            r#type: Some(kind),
            id,
            launch: Some(operation::Launch { task_infos: tasks.clone() }),
            launch_group: Some(operation::LaunchGroup { executor, task_group: v1::TaskGroupInfo { tasks } }),
            reserve: Some(operation::Reserve { source: if a.len() > 2 { b.clone() } else { Vec::new() }, resources: a.clone() }),
            unreserve: Some(operation::Unreserve { resources: a.clone() }),
            create: Some(operation::Create { volumes: a.clone() }),
            destroy: Some(operation::Destroy { volumes: a }),
            grow_volume: Some(operation::GrowVolume { volume: one.clone(), addition: two }),
            shrink_volume: Some(operation::ShrinkVolume { volume: one, subtract: v1::value::Scalar { value: amount } }),
            ..Default::default()
        }
    }
}

/// How many operations were carried out.
static WORKED: AtomicU64 = AtomicU64::new(0);

#[test]
fn some_of_it_makes_sense() {
    operations_of_all_kinds();
    let worked = WORKED.load(Ordering::Relaxed);
    assert!(worked > 100, "{worked} operations were carried out");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    fn operations_of_all_kinds(rounds in prop::collection::vec(prop::collection::vec(any_operation(), 0..6), 1..6)) {
        let mut world = World::new();
        world.new_agent(1, "cpus(dev):2;cpus:2;mem:1024;disk:100;ports:[1-9];gpus:2");
        let mut info = framework(&["dev"]);
        for can in [v1::framework_info::capability::Type::SharedResources, v1::framework_info::capability::Type::GpuResources] {
            info.capabilities.push(v1::framework_info::Capability { r#type: Some(can as i32) });
        }
        let id = world.subscribe("s", info).expect("subscribed");
        for operations in rounds {
            world.live_secs(10, &[1]);
            let offers = world.take_offers("s");
            let offers: Vec<&v1::Offer> = offers.iter().collect();
            prop_assert_eq!(world.accept("s", &id, &offers, operations), Reply::Accepted);
            let wrong = contradictions(&world.state());
            prop_assert!(wrong.is_empty(), "{:?}", wrong);
        }
        let state = world.state();
        WORKED.fetch_add(u64::try_from(state.operations.len()).expect("few"), Ordering::Relaxed);
        // However it was converted, nothing came into being and nothing vanished.
        let total = world.state().agents.values().next().expect("one").total.clone();
        for (name, amount) in [("cpus", 4.0), ("mem", 1024.0), ("disk", 100.0), ("gpus", 2.0)] {
            prop_assert_eq!(total.scalar(name).to_f64(), amount, "{}", total);
        }
    }

    #[test]
    fn operators_of_all_kinds(calls in prop::collection::vec((any_operation(), 0i32..40, any_role(), any_amount()), 1..8)) {
        use v1::master::{Call, call};
        let mut world = World::new();
        world.new_agent(1, "cpus(dev):2;cpus:2;mem:1024;disk:100");
        let agent_id = v1::AgentId { value: "m0-S0".into() };
        for (at, (operation, kind, role, amount)) in calls.into_iter().enumerate() {
            let resources = operation.create.map(|it| it.volumes).unwrap_or_default();
            let amounts = [("cpus".to_owned(), v1::value::Scalar { value: amount })];
            let config = v1::quota::QuotaConfig { role: role.clone(), guarantees: amounts.clone().into(), limits: amounts.into() };
            let call = Call {
                r#type: Some(kind),
                reserve_resources: Some(call::ReserveResources {
                    agent_id: agent_id.clone(),
                    source: Vec::new(),
                    resources: resources.clone(),
                }),
                unreserve_resources: Some(call::UnreserveResources { agent_id: agent_id.clone(), resources: resources.clone() }),
                create_volumes: Some(call::CreateVolumes { agent_id: agent_id.clone(), volumes: resources.clone() }),
                destroy_volumes: Some(call::DestroyVolumes { agent_id: agent_id.clone(), volumes: resources.clone() }),
                update_quota: Some(call::UpdateQuota { force: Some(true), quota_configs: vec![config] }),
                set_quota: Some(call::SetQuota {
                    quota_request: v1::quota::QuotaRequest { force: None, role: Some(role.clone()), guarantee: resources },
                }),
                remove_quota: Some(call::RemoveQuota { role: role.clone() }),
                update_weights: Some(call::UpdateWeights { weight_infos: vec![v1::WeightInfo { weight: amount, role: Some(role) }] }),
                ..Default::default()
            };
            let slot = at as u64;
            world.input(Input::Operator { reply: ReplySlot(slot), principal: None, call: Box::new(call) });
            prop_assert!(world.replies.contains_key(&slot), "answered");
            world.pass_secs(1);
            let wrong = contradictions(&world.state());
            prop_assert!(wrong.is_empty(), "{:?}", wrong);
        }
    }

    #[test]
    fn agents_that_lie(
        totals in prop::collection::vec(any_resources(), 1..4),
        tasks in prop::collection::vec((any_resources(), 0i32..16, 0usize..3), 0..4),
        state in 0i32..16,
    ) {
        let mut world = World::new();
        let id = world.subscribe("s", framework(&["dev"])).expect("subscribed");
        let info = (*world.state().frameworks[&id].info).clone();
        for (at, total) in totals.into_iter().enumerate() {
            let link = at as u64 + 1;
            let mut register = introduce(link, "cpus:2");
            register.total_resources = total;
            register.frameworks = vec![info.clone()];
            register.info.id = Some(v1::AgentId { value: format!("old-S{}", at % 2) });
            for (resources, state, task) in &tasks {
                register.tasks.push(v1::Task {
                    task_id: v1::TaskId { value: ["t", "u", "v"][*task].into() },
                    framework_id: id.to_proto(),
                    state: *state,
                    resources: resources.clone(),
                    ..Default::default()
                });
            }
            world.register(link, register);
            let latest_state = v1::TaskState::try_from(state).unwrap_or_default();
            let status = v1::TaskStatus { task_id: v1::TaskId { value: "t".into() }, state, ..Default::default() };
            world.agent(link, FromAgent::StatusUpdate { framework_id: id.clone(), status: Box::new(status), latest_state });
            world.pass_secs(20);
        }
        world.close_link(1);
        world.pass_secs(200);
        // What they claim to use may be more than they have; everything else agrees.
        let wrong = contradictions(&world.state());
        prop_assert!(wrong.iter().all(|it| it.contains("is given of")), "{:?}", wrong);
    }

    #[test]
    fn guarantees_and_limits_hold(
        agents in prop::collection::vec(1u32..8, 2..8),
        quotas in prop::collection::vec((0u32..4, 0u32..10), 3),
    ) {
        let mut world = World::new();
        for (at, cpus) in agents.iter().enumerate() {
            world.new_agent(at as u64 + 1, &format!("cpus:{cpus};mem:4096"));
        }
        let links: Vec<u64> = (1..=agents.len() as u64).collect();
        let capacity: u32 = agents.iter().sum();
        let mut promised = 0;
        let mut set = Vec::new();
        for (at, (guarantee, more)) in quotas.iter().enumerate() {
            let role = ["a", "b", "c"][at];
            let guarantee = (*guarantee).min(capacity - promised);
            promised += guarantee;
            let amount = |value: u32| [("cpus".to_owned(), v1::value::Scalar { value: f64::from(value) })].into();
            let limit = guarantee + more;
            let config = v1::quota::QuotaConfig { role: role.into(), guarantees: amount(guarantee), limits: amount(limit) };
            let call = v1::master::Call {
                r#type: Some(v1::master::call::Type::UpdateQuota as i32),
                update_quota: Some(v1::master::call::UpdateQuota { force: None, quota_configs: vec![config] }),
                ..Default::default()
            };
            prop_assert_eq!(world.operator(call), Some(Reply::Ok));
            set.push((role, guarantee, limit));
        }
        for role in ["free", "a", "b", "c"] {
            world.subscribe(role, framework(&[role]));
            world.live_secs(10, &links);
        }
        let offered = |world: &World, role: &str| -> f64 {
            world.state().offers.values().filter(|it| it.role.as_str() == role).map(|it| it.resources.scalar("cpus").to_f64()).sum()
        };
        for (role, guarantee, limit) in set {
            let got = offered(&world, role);
            prop_assert!(got <= f64::from(limit), "{} got {} above its limit {}", role, got, limit);
            prop_assert!(got >= f64::from(guarantee), "{} got {} below its guarantee {}", role, got, guarantee);
        }
        let wrong = contradictions(&world.state());
        prop_assert!(wrong.is_empty(), "{:?}", wrong);
    }
}
