use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::schema::{Kind, Label};
use crate::v1;
use crate::v1::scheduler::{Call, Event};

fn rendered<M: Message + Name>(message: &M) -> Value {
    serde_json::from_slice(&to_vec(message)).unwrap()
}

fn read<M: Message + Name + Default>(value: &Value) -> Result<M, String> {
    from_value(value).map_err(|error| error.to_string())
}

#[test]
fn scalars_with_a_declared_default_always_show_and_others_only_when_set() {
    let info = v1::FrameworkInfo { user: "root".into(), name: "n".into(), ..Default::default() };
    assert_eq!(rendered(&info), json!({"user": "root", "name": "n", "failover_timeout": 0.0, "checkpoint": false}));
    let command = v1::CommandInfo { value: Some("true".into()), ..Default::default() };
    assert_eq!(rendered(&command), json!({"value": "true", "shell": true}));
    assert_eq!(rendered(&v1::Filters::default()), json!({"refuse_seconds": 5.0}));
    let agent = v1::AgentInfo { hostname: "h".into(), ..Default::default() };
    assert_eq!(rendered(&agent), json!({"hostname": "h", "port": 5051}));
}

#[test]
fn numbers_bytes_enums_and_maps_have_the_spelling_of_mesos() {
    let status = v1::TaskStatus {
        task_id: v1::TaskId { value: "t".into() },
        state: v1::TaskState::TaskRunning.into(),
        source: Some(v1::task_status::Source::Agent.into()),
        reason: Some(v1::task_status::Reason::AgentRestarted.into()),
        timestamp: Some(4.0),
        uuid: Some((0..16).collect()),
        agent_id: Some(v1::AgentId { value: "S0".into() }),
        unreachable_time: Some(v1::TimeInfo { nanoseconds: i64::MAX }),
        ..Default::default()
    };
    let text = String::from_utf8(to_vec(&status)).unwrap();
    assert_eq!(
        text,
        "{\"task_id\":{\"value\":\"t\"},\"state\":\"TASK_RUNNING\",\"source\":\"SOURCE_AGENT\",\"reason\":\"REASON_AGENT_RESTARTED\",\
         \"agent_id\":{\"value\":\"S0\"},\"timestamp\":4.0,\"uuid\":\"AAECAwQFBgcICQoLDA0ODw==\",\
         \"unreachable_time\":{\"nanoseconds\":9223372036854775807}}"
    );
    let mut old = Vec::new();
    write(&status, Spelling::V0, &mut old);
    let old: Value = serde_json::from_slice(&old).unwrap();
    assert_eq!(
        (&old["slave_id"]["value"], &old["source"], &old["reason"]),
        (&json!("S0"), &json!("SOURCE_SLAVE"), &json!("REASON_SLAVE_RESTARTED"))
    );
    let quota = v1::quota::QuotaConfig {
        role: "r".into(),
        limits: [("mem".to_owned(), v1::value::Scalar { value: 1.5 }), ("cpus".to_owned(), v1::value::Scalar { value: f64::INFINITY })]
            .into(),
        ..Default::default()
    };
    assert_eq!(
        String::from_utf8(to_vec(&quota)).unwrap(),
        "{\"role\":\"r\",\"limits\":{\"cpus\":{\"value\":\"Infinity\"},\"mem\":{\"value\":1.5}}}"
    );
}

#[test]
fn what_is_not_ascii_is_escaped_in_utf_16() {
    let id = v1::TaskId { value: "a\"\\/\n\u{1}\u{7f}é😀".into() };
    assert_eq!(String::from_utf8(to_vec(&id)).unwrap(), "{\"value\":\"a\\\"\\\\/\\n\\u0001\\u007f\\u00e9\\ud83d\\ude00\"}");
    assert_eq!(from_slice::<v1::TaskId>(&to_vec(&id)).unwrap(), id);
}

#[test]
fn sloppy_calls_are_understood() {
    let call: Call = read(&json!({
        "type": "ACCEPT", "framework_id": {"value": "f"}, "made_up": [1], "kill": null,
        "accept": {
            "offer_ids": {"value": "o"},
            "operations": {"type": "LAUNCH", "launch": {"task_infos": [{
                "name": "n", "task_id": {"value": "t"}, "agent_id": {"value": "a"},
                "resources": {"name": "cpus", "type": "SCALAR", "scalar": {"value": "0.5"}},
                "command": {"shell": "false"}, "limits": {"mem": {"value": "Infinity"}},
                "health_check": {"type": "FROM_THE_FUTURE", "consecutive_failures": 2.9},
            }]}},
            "filters": {"refuse_seconds": "7"},
        },
    }))
    .unwrap();
    let accept = call.accept.unwrap();
    assert_eq!(accept.offer_ids[0].value, "o");
    assert_eq!(accept.filters.unwrap().refuse_seconds, Some(7.0));
    let task = &accept.operations[0].launch.as_ref().unwrap().task_infos[0];
    assert_eq!(task.resources[0].scalar.unwrap().value, 0.5);
    assert_eq!(task.command.as_ref().unwrap().shell, Some(false));
    assert_eq!(task.limits["mem"].value, f64::INFINITY);
    let check = task.health_check.as_ref().unwrap();
    assert_eq!((check.r#type, check.consecutive_failures), (None, Some(2)));
    assert_eq!(read::<Call>(&json!({"type": "NOT_YET_KNOWN"})).unwrap().r#type, None);
}

#[test]
fn the_duration_of_a_drain_is_a_plain_object() {
    let call: v1::master::Call = read(&json!({
        "type": "DRAIN_AGENT",
        "drain_agent": {"agent_id": {"value": "S0"}, "max_grace_period": {"seconds": 3, "nanos": 4}, "mark_gone": true},
    }))
    .unwrap();
    let grace = call.drain_agent.unwrap().max_grace_period.unwrap();
    assert_eq!((grace.seconds, grace.nanos), (3, 4));
}

#[test]
fn mistakes_are_named() {
    let refused = |value: Value| read::<Call>(&value).unwrap_err();
    assert_eq!(refused(json!([])), "Expecting a JSON object");
    assert_eq!(refused(json!({"type": {}})), "Not expecting a JSON object for field 'type'");
    assert_eq!(refused(json!({"framework_id": 3})), "Not expecting a JSON number for field 'framework_id'");
    assert_eq!(refused(json!({"framework_id": {"value": 3}})), "Not expecting a JSON number for field 'value'");
    assert_eq!(refused(json!({"framework_id": [{"value": "f"}]})), "Not expecting a JSON array for field 'framework_id'");
    assert_eq!(
        refused(json!({"subscribe": {"framework_info": {"name": "n"}}, "accept": {"offer_ids": [{"value": "o"}, {}]}})),
        "Missing required fields: accept.offer_ids[1].value, subscribe.framework_info.user"
    );
    assert!(refused(json!({"acknowledge": {"uuid": "***"}})).starts_with("Failed to base64 decode bytes field 'uuid'"));
    assert_eq!(
        read::<v1::TaskStatus>(&json!({"task_id": {"value": "t"}, "state": "TASK_ASLEEP"})).unwrap_err(),
        "Failed to find enum for 'TASK_ASLEEP'"
    );
    assert_eq!(read::<v1::Port>(&json!({"number": -1})).unwrap_err(), "The number for field 'number' is out of range");
    assert_eq!(read::<v1::Port>(&json!({"number": 1e30})).unwrap_err(), "The number for field 'number' is out of range");
    assert_eq!(read::<v1::Port>(&json!({"number": "x"})).unwrap_err(), "Failed to parse 'x' as a number for field 'number'");
    assert!(matches!(from_slice::<Call>(b"{"), Err(MappingError::Syntax(_))));
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(from_slice::<Call>(deep.as_bytes()), Err(MappingError::Syntax(_))));
}

#[test]
fn protobuf_without_its_required_fields_is_refused() {
    let good = Call { framework_id: Some(v1::FrameworkId { value: "f".into() }), ..Default::default() };
    assert_eq!(decode_protobuf::<Call>(&good.encode_to_vec()).unwrap(), good);
    // framework_id without its value.
    assert_eq!(decode_protobuf::<Call>(&[0x0a, 0x00]), Err(MappingError::Wire("Missing required fields: framework_id.value".to_owned())));
    assert!(matches!(decode_protobuf::<Call>(&[0xff; 7]), Err(MappingError::Wire(_))));
    // A required enum with a number that it does not have.
    let status = v1::TaskStatus { task_id: v1::TaskId { value: "t".into() }, state: 99, ..Default::default() };
    assert_eq!(
        decode_protobuf::<v1::TaskStatus>(&status.encode_to_vec()),
        Err(MappingError::Wire("Missing required fields: state".to_owned()))
    );
}

#[test]
fn containers_within_containers_do_not_overflow_the_stack() {
    let mut id = v1::ContainerId { value: "c".into(), parent: None };
    for _ in 0..10_000 {
        id = v1::ContainerId { value: "c".into(), parent: Some(Box::new(id)) };
    }
    let bytes = id.encode_to_vec();
    assert!(matches!(decode_protobuf::<v1::ContainerId>(&bytes), Err(MappingError::Wire(_))));
    // Dropping it by recursion is the generated type's affair.
    std::mem::forget(id);
}

/// A value for every field of a message, three levels deep.
fn full(schema: &Schema, message: usize, depth: usize, number: &mut u32) -> Value {
    let mut members = serde_json::Map::new();
    // Of what excludes each other, one.
    let alternatives = ["block", "attribute_name", "not_exists", "text_equals", "text_not_equals", "text_matches", "exists"];
    for field in schema.message(message).fields.iter().filter(|field| !alternatives.contains(&field.name.as_str())) {
        *number += 1;
        let mut one = |kind: Kind| {
            Some(match kind {
                Kind::Double => json!(f64::from(*number) + 0.5),
                Kind::Float => json!(0.5),
                Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 => json!(*number),
                Kind::Bool => json!(number.is_multiple_of(2)),
                Kind::String => json!(format!("text {number} ü")),
                Kind::Bytes => json!("AAEC"),
                Kind::Enum(at) => {
                    let known = (0..2_000).rev().find_map(|it| schema.enumeration(at).word(it, 0)).unwrap();
                    serde_json::from_str(known).unwrap()
                }
                Kind::Message(_) if depth == 0 => return None,
                Kind::Message(at) => full(schema, at, depth - 1, number),
            })
        };
        let value = match (field.label, field.kind) {
            (Label::Map, Kind::Message(entry)) => {
                one(schema.message(entry).fields[1].kind).map(|value| json!({"first": value, "second": value}))
            }
            (Label::Repeated, kind) => one(kind).map(|value| json!([value, value])),
            (_, kind) => one(kind),
        };
        if let Some(value) = value {
            members.insert(field.name.clone(), value);
        }
    }
    Value::Object(members)
}

#[test]
fn every_message_comes_back_as_it_was_given() {
    fn check<M: Message + Name + Default>() {
        let schema = Schema::get();
        let at = schema.message_named(&M::full_name()).unwrap();
        // Deep enough that nothing required is missing.
        let value = full(schema, at, 12, &mut 0);
        let message: M = from_value(&value).unwrap_or_else(|error| panic!("{}: {error}", M::full_name()));
        assert_eq!(rendered(&message), value, "{}", M::full_name());
        assert_eq!(decode_protobuf::<M>(&message.encode_to_vec()).unwrap().encode_to_vec(), message.encode_to_vec());
    }
    check::<v1::Resource>();
    check::<v1::FrameworkInfo>();
    check::<v1::OfferFilters>();
    check::<v1::quota::QuotaStatus>();
    check::<v1::maintenance::ClusterStatus>();
    check::<v1::scheduler::OfferConstraints>();
    check::<v1::master::response::GetMaster>();
    check::<v1::MachineInfo>();
    check::<v1::DiskStatistics>();
    check::<v1::agent::ProcessIo>();
}

fn any_json() -> impl Strategy<Value = Value> {
    let names = || {
        prop::sample::select(vec![
            "type",
            "framework_id",
            "value",
            "subscribe",
            "framework_info",
            "accept",
            "offer_ids",
            "operations",
            "launch",
            "task_infos",
            "resources",
            "scalar",
            "ranges",
            "range",
            "begin",
            "uuid",
            "kill",
            "acknowledge",
            "roles",
            "limits",
            "checkpoint",
            "name",
            "offer_constraints",
            "role_constraints",
            "groups",
        ])
    };
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        prop::sample::select(vec!["SUBSCRIBE", "ACCEPT", "SCALAR", "Infinity", "-1", "AAAA"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((names(), inner), 0..6).prop_map(|members| members
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect::<serde_json::Map<_, _>>()
                .into()),
        ]
    })
}

proptest! {
    #[test]
    fn no_json_panics_and_what_is_read_can_be_written_and_read_again(value in any_json()) {
        if let Ok(call) = read::<Call>(&value) {
            let again: Call = from_slice(&to_vec(&call)).unwrap();
            prop_assert_eq!(again.encode_to_vec(), normal(&call));
        }
        let _ = read::<v1::master::Call>(&value);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(event) = decode_protobuf::<Event>(&bytes) {
            let _ = to_vec(&event);
        }
        let _ = from_slice::<Call>(&bytes);
    }
}

/// With the defaults that writing makes explicit, and without NaN, which becomes one of many.
fn normal(call: &Call) -> Vec<u8> {
    let call: Call = from_slice(&to_vec(call)).unwrap();
    call.encode_to_vec()
}
