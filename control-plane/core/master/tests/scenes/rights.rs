//! Who may do what, and how often.

use std::sync::Arc;
use std::time::Duration;

use master::{Action, Authorize, Input, Rate, Refusal, Refused, Reply, ReplySlot, ToAgent};
use mesos_proto::v1;
use v1::scheduler::{Call, call};

use crate::world::{World, config, framework, introduce, launch, task};

/// A change of a description, and what is said to it.
type Case<'a> = (&'a dyn Fn(&mut v1::FrameworkInfo), &'a str);

/// Nobody runs as root, reserves, or registers in `secret`; only `admin` operates.
#[derive(Debug)]
struct Strict;

impl Authorize for Strict {
    fn allows(&self, principal: Option<&str>, action: Action<'_>) -> bool {
        match action {
            Action::RegisterFramework { role } => role != "secret",
            Action::RunTask { user } => user != "root",
            Action::Reserve { .. } => false,
            Action::RegisterAgent => principal != Some("intruder"),
            Action::MarkAgentGone | Action::UpdateQuota { .. } | Action::UpdateWeight { .. } => principal == Some("admin"),
            Action::Teardown { principal: owner } => owner == principal,
            _ => true,
        }
    }
}

fn strict() -> World {
    let mut config = config(0);
    config.authorizer = Arc::new(Strict);
    World::with(config)
}

#[test]
fn what_is_not_permitted_is_an_error_of_its_own() {
    let mut world = strict();
    assert_eq!(world.subscribe("x", framework(&["secret"])), None);
    let error = world.take_events("x").pop().and_then(|it| it.error).expect("refused");
    assert_eq!(error.message, "Not authorized to use roles '{ secret }'");
    assert_eq!(world.closed, ["x"]);

    let agent = world.new_agent(1, "cpus:4;mem:1024");
    let id = world.subscribe("s", framework(&["dev"])).expect("subscribed");
    world.pass_secs(1);
    let offers = world.take_offers("s");
    let mut allowed = task("b", &agent.to_proto(), "cpus:1");
    allowed.command.as_mut().expect("set").user = Some("nobody".into());
    world.accept("s", &id, &[&offers[0]], vec![launch(vec![task("a", &agent.to_proto(), "cpus:1"), allowed])]);
    let statuses = world.take_statuses("s");
    assert_eq!(statuses.len(), 1);
    assert_eq!((statuses[0].task_id.value.as_str(), statuses[0].reason()), ("a", v1::task_status::Reason::TaskUnauthorized));
    assert!(world.state().frameworks[&id].tasks.contains_key("b"));
}

#[test]
fn agents_need_permission() {
    let mut world = strict();
    let mut register = introduce(1, "cpus:1");
    register.principal = Some("intruder".into());
    world.register(1, register);
    assert!(
        matches!(&world.take_sent(1)[..], [ToAgent::Refused { reason: Refused::Invalid, message }] if message.ends_with("with principal 'intruder'"))
    );
    assert!(world.state().agents.is_empty());
    // It tries again with a principal that may, and keeps its tasks meanwhile.
    world.register(2, introduce(1, "cpus:1"));
    assert!(world.registered(2).is_some());
}

#[test]
fn what_is_wrong_with_an_agent_does_not_end_its_tasks() {
    let mut config = config(0);
    config.require_agent_domain = true;
    let mut world = World::with(config);
    world.register(1, introduce(1, "cpus:1"));
    world.register(2, master::Register { version: "0.28.0".into(), ..introduce(2, "cpus:1") });
    for link in [1, 2] {
        assert!(matches!(&world.take_sent(link)[..], [ToAgent::Refused { reason: Refused::Invalid, .. }]));
    }
}

#[test]
fn a_framework_that_agents_could_not_be_told_of_is_refused() {
    let mut world = World::new();
    let label = v1::Label { key: "k".into(), value: Some("x".repeat(5 << 20)) };
    let info = v1::FrameworkInfo { labels: Some(v1::Labels { labels: vec![label] }), ..framework(&["dev"]) };
    assert_eq!(world.subscribe("x", info), None);
    let error = world.take_events("x").pop().and_then(|it| it.error).expect("refused");
    assert!(error.message.starts_with("FrameworkInfo has 52"), "{}", error.message);
}

#[test]
fn operators_need_permission() {
    let mut world = strict();
    let agent = world.new_agent(1, "cpus:4;mem:1024");
    let gone = v1::master::Call {
        r#type: Some(v1::master::call::Type::MarkAgentGone as i32),
        mark_agent_gone: Some(v1::master::call::MarkAgentGone { agent_id: agent.to_proto() }),
        ..Default::default()
    };
    let forbidden = Reply::Refused { kind: Refusal::Forbidden, message: "403 Forbidden.".into() };
    assert_eq!(world.operator(gone.clone()), Some(forbidden));
    world.input(Input::Operator { reply: ReplySlot(99), principal: Some("admin".into()), call: Box::new(gone) });
    assert_eq!(world.replies[&99], Reply::Ok);
}

#[test]
fn calls_that_are_no_calls_are_refused() {
    let mut world = World::new();
    let id = world.subscribe("s", framework(&["dev"])).expect("subscribed");
    let refused = |world: &mut World, call: Call, text: &str| match world.call("s", &id, call) {
        Reply::Refused { kind: Refusal::BadRequest, message } => assert_eq!(message, format!("Failed to validate scheduler::Call: {text}")),
        other => panic!("{other:?}"),
    };
    let of = |kind: call::Type| Call { r#type: Some(kind as i32), ..Default::default() };
    refused(&mut world, Call::default(), "Expecting 'type' to be present");
    refused(&mut world, of(call::Type::Accept), "Expecting 'accept' to be present");
    refused(&mut world, of(call::Type::Subscribe), "Expecting 'subscribe' to be present");
    refused(&mut world, of(call::Type::UpdateFramework), "Expecting 'update_framework' to be present");
    let acknowledge = call::Acknowledge { uuid: vec![1; 15], ..Default::default() };
    refused(&mut world, Call { acknowledge: Some(acknowledge), ..of(call::Type::Acknowledge) }, "Expected 16 bytes but got 15 bytes");
    assert_eq!(
        world.operator(v1::master::Call { r#type: Some(v1::master::call::Type::Teardown as i32), ..Default::default() }),
        Some(Reply::Refused {
            kind: Refusal::BadRequest,
            message: "Failed to validate master::Call: Expecting 'teardown' to be present".into()
        })
    );
    let unknown = v1::master::Call { r#type: Some(v1::master::call::Type::Unknown as i32), ..Default::default() };
    assert!(matches!(world.operator(unknown), Some(Reply::Refused { kind: Refusal::NotImplemented, .. })));
}

#[test]
fn frameworks_describe_themselves_anew_within_limits() {
    let mut world = World::new();
    let id = world.subscribe("s", framework(&["dev"])).expect("subscribed");
    let update = |world: &mut World, change: &dyn Fn(&mut v1::FrameworkInfo)| {
        let mut info = (*world.state().frameworks[&id].info).clone();
        change(&mut info);
        let update = call::UpdateFramework { framework_info: info, ..Default::default() };
        world.call(
            "s",
            &id,
            Call { r#type: Some(call::Type::UpdateFramework as i32), update_framework: Some(update), ..Default::default() },
        )
    };
    assert_eq!(update(&mut world, &|info| info.roles.push("ops".into())), Reply::Ok);
    assert_eq!(world.state().frameworks[&id].roles.len(), 2);
    let cases: [Case<'_>; 4] = [
        (&|info| info.user = "other".into(), "FrameworkInfo update is not valid: Updating 'FrameworkInfo.user' is unsupported"),
        (&|info| info.checkpoint = Some(false), "FrameworkInfo update is not valid: Updating 'FrameworkInfo.checkpoint' is unsupported"),
        (&|info| info.principal = Some("p".into()), "FrameworkInfo update is not valid: Changing framework's principal is not allowed."),
        (&|info| info.failover_timeout = Some(-1.0), "Supplied FrameworkInfo is not valid: The framework failover_timeout (-1) is invalid"),
    ];
    for (change, text) in cases {
        let Reply::Refused { kind: Refusal::BadRequest, message } = update(&mut world, change) else { panic!("{text}") };
        assert!(message.starts_with(text), "{message}");
    }
}

#[test]
fn subscriptions_that_make_no_sense_end_with_an_error() {
    let mut world = World::new();
    let cases: [Case<'_>; 6] = [
        (&|info| info.role = Some("x".into()), "'FrameworkInfo.role' must not be set when the framework is MULTI_ROLE capable"),
        (&|info| info.roles.push("dev".into()), "'FrameworkInfo.roles' contains duplicate items: { dev }"),
        (
            &|info| info.roles = vec!["a//b".into()],
            "'FrameworkInfo.roles' contains invalid role: Role 'a//b' cannot contain two adjacent slashes",
        ),
        (&|info| info.capabilities.clear(), "'FrameworkInfo.roles' must not be set when the framework is not MULTI_ROLE capable"),
        (&|info| info.failover_timeout = Some(f64::NAN), "The framework failover_timeout (NaN) is invalid"),
        (&|info| info.id = Some(v1::FrameworkId { value: "a/b".into() }), "Framework has invalid ID: 'a/b' contains invalid characters"),
    ];
    for (at, (change, text)) in cases.into_iter().enumerate() {
        let mut info = framework(&["dev"]);
        change(&mut info);
        let stream = format!("s{at}");
        assert_eq!(world.subscribe(&stream, info), None);
        let error = world.take_events(&stream).pop().and_then(|it| it.error).expect("refused");
        assert_eq!(error.message, text);
    }
    assert!(world.state().frameworks.is_empty());
}

#[test]
fn a_principal_may_be_limited() {
    let mut config = config(0);
    config.rate_limits.insert("p".into(), Rate { permits: 2, per: Duration::from_secs(1) });
    let mut world = World::with(config);
    let mut info = framework(&["dev"]);
    info.principal = Some("p".into());
    let id = world.subscribe("s", info).expect("subscribed");
    world.pass_secs(10);
    let mut call = || world.call("s", &id, Call { r#type: Some(call::Type::Revive as i32), ..Default::default() });
    assert_eq!((call(), call()), (Reply::Accepted, Reply::Accepted));
    assert!(matches!(call(), Reply::Refused { kind: Refusal::TooManyRequests, .. }));
    world.pass_secs(1);
    assert_eq!(world.call("s", &id, Call { r#type: Some(call::Type::Revive as i32), ..Default::default() }), Reply::Accepted);
    assert_eq!(world.state().metrics.get("frameworks/p/messages_received"), 4);
    assert_eq!(world.state().metrics.get("frameworks/p/messages_processed"), 3);
}

#[test]
fn messages_are_counted_for_every_principal_that_has_a_framework() {
    let mut world = World::new();
    let mut info = framework(&["dev"]);
    info.principal = Some("q".into());
    let (one, two) = (world.subscribe("s", info.clone()).expect("subscribed"), world.subscribe("t", info).expect("subscribed"));
    let of = |kind: call::Type| Call { r#type: Some(kind as i32), ..Default::default() };
    world.call("s", &one, of(call::Type::Revive));
    world.call("t", &two, of(call::Type::Revive));
    let counted = |world: &World| {
        let metrics = world.state().metrics;
        (metrics.get("frameworks/q/messages_received"), metrics.get("frameworks/q/messages_processed"))
    };
    assert_eq!(counted(&world), (2, 2));
    world.call("s", &one, of(call::Type::Teardown));
    assert_eq!(counted(&world), (3, 3));
    world.call("t", &two, of(call::Type::Teardown));
    assert!(!world.state().metrics.iter().any(|(key, _)| key.starts_with("frameworks/q/")), "nobody is left");
}

#[test]
fn gauges_agree_with_what_is_held() {
    let (world, _, _) = crate::lifecycle::running(framework(&["dev"]));
    let gauges = world.state().gauges();
    let expected = [
        ("master/slaves_active", 1.0),
        ("master/frameworks_active", 1.0),
        ("master/tasks_running", 1.0),
        ("master/cpus_total", 4.0),
        ("master/cpus_used", 1.0),
        ("master/cpus_percent", 0.25),
        ("master/messages_launch_tasks", 1.0),
        ("master/slave_registrations", 1.0),
        ("master/valid_status_update_acknowledgements", 1.0),
    ];
    for (key, value) in expected {
        assert_eq!(gauges.get(key), Some(&value), "{key}");
    }
    let allocator = world.master.allocator_gauges();
    assert_eq!(allocator.total.get("cpus").to_f64(), 4.0);
    assert_eq!(allocator.shares["dev"], 0.25);
}

#[test]
fn readers_see_what_the_allocator_counts() {
    let mut world = World::new();
    world.new_agent(1, "cpus:4;mem:1024");
    world.new_agent(2, "cpus:4;mem:1024");
    let id = world.subscribe("s", framework(&["dev"])).expect("subscribed");
    let filters = |world: &World| {
        let (seen, now) = (world.state().allocator.offer_filters.clone(), world.master.allocator_gauges().offer_filters);
        assert_eq!(seen, now);
        seen["dev"]
    };
    let decline = |world: &mut World| {
        world.pass_secs(2);
        let offers = world.take_offers("s");
        assert_eq!(offers.len(), 2);
        world.decline("s", &id, &[&offers[0]], Some(30.0));
        world.decline("s", &id, &[&offers[1]], Some(40.0));
        world.pass_secs(2);
        assert_eq!(filters(world), 2);
    };
    decline(&mut world);
    world.live_secs(30, &[1, 2]);
    assert_eq!(filters(&world), 1, "one is over");
    world.live_secs(10, &[1, 2]);
    assert_eq!(filters(&world), 0);
    assert_eq!(world.state().allocator.shares["dev"], 1.0, "all is offered");
    let offers = world.take_offers("s");
    world.decline("s", &id, &[&offers[0]], Some(0.0));
    world.decline("s", &id, &[&offers[1]], Some(0.0));
    decline(&mut world);
    world.call("s", &id, Call { r#type: Some(call::Type::Revive as i32), ..Default::default() });
    decline(&mut world);
    world.agent(2, master::FromAgent::Unregister);
    world.pass_secs(2);
    assert_eq!(filters(&world), 1, "nobody refuses what is not there");
}
