//! Resources as a whole: arithmetic, reservations, volumes, conversions, the text form.

use mesos::{Format, Resource, Resources, Scalar, conversions, parse_attributes, parse_resources, print_attribute, resource_error};
use mesos_proto::v1;
use proptest::prelude::*;
use v1::offer::{Operation, operation};
use v1::resource::reservation_info::Type;

fn resources(text: &str) -> Resources {
    Resources::from_proto(&parse_resources(text, "*").expect("good resources"))
}

fn reserved(text: &str, roles: &[&str]) -> v1::Resource {
    let mut resource = parse_resources(text, "*").expect("good").pop().expect("one");
    resource.reservations = roles
        .iter()
        .map(|role| v1::resource::ReservationInfo {
            r#type: Some(Type::Dynamic as i32),
            role: Some((*role).into()),
            principal: Some("p".into()),
            ..Default::default()
        })
        .collect();
    resource
}

fn volume(mut resource: v1::Resource, id: &str, shared: bool) -> v1::Resource {
    resource.disk = Some(v1::resource::DiskInfo {
        persistence: Some(v1::resource::disk_info::Persistence { id: id.into(), principal: None }),
        volume: Some(v1::Volume { mode: v1::volume::Mode::Rw as i32, container_path: "data".into(), ..Default::default() }),
        source: None,
    });
    resource.shared = shared.then(v1::resource::SharedInfo::default);
    resource
}

fn any_resources() -> impl Strategy<Value = Resources> {
    let scalar = (0usize..3, 0i64..5000, 0usize..3).prop_map(|(name, milli, role)| {
        let mut resource = Resource::scalar(["cpus", "mem", "disk"][name], Scalar::from_milli(milli));
        if role > 0 {
            resource =
                Resource::from_proto(&v1::Resource { role: Some(["*", "a", "a/b"][role].into()), ..resource.to_proto(Format::Refined) });
        }
        resource
    });
    let ports = (0u64..40, 0u64..10).prop_map(|(at, len)| Resource::ranges("ports", mesos::Ranges::new([(at, at + len)])));
    prop::collection::vec(prop_oneof![3 => scalar, 1 => ports], 0..8).prop_map(|it| it.into_iter().collect())
}

proptest! {
    #[test]
    fn what_was_added_can_be_taken_away(a in any_resources(), b in any_resources()) {
        let sum = a.plus(&b);
        prop_assert!(sum.contains(&a) && sum.contains(&b));
        prop_assert_eq!(sum.clone(), b.plus(&a));
        // Ports may be in both: then they are there once.
        let scalars = |it: &Resources| it.filter(|it| &**it.name() != "ports");
        prop_assert_eq!(scalars(&sum.minus(&b)), scalars(&a));
        prop_assert!(a.minus(&b).quantities().iter().all(|(_, amount)| amount.is_positive()));
        prop_assert!(a.minus(&a).is_empty());
    }

    #[test]
    fn the_wire_keeps_everything(a in any_resources()) {
        for format in [Format::Refined, Format::PreRefinement, Format::Endpoint] {
            let back = Resources::from_proto(&a.to_proto(format));
            prop_assert_eq!(&back, &a, "{:?}", format);
        }
    }

    #[test]
    fn any_text_is_understood_or_refused(text in "[a-z:;()0-9.,\\[\\]{} *-]{0,40}") {
        if let Ok(parsed) = parse_resources(&text, "*") {
            prop_assert!(parsed.iter().all(|it| resource_error(it).is_none()));
        }
        let _ = parse_attributes(&text);
    }
}

#[test]
fn the_text_of_a_flag() {
    let all = resources("cpus:4;mem:1024.5; ports(web):[31000-31005, 31010-31010];zones:{b,a};cpus(web):2;cpus:0.25");
    assert_eq!(
        all.to_string(),
        "cpus:4.25; mem:1024.5; ports(reservations: [(STATIC,web)]):[31000-31005, 31010-31010]; zones:{a, b}; cpus(reservations: [(STATIC,web)]):2"
    );
    let error = |text: &str| parse_resources(text, "*").expect_err(text).to_string();
    assert_eq!(error("cpus"), "Bad value for resources, missing or extra ':' in cpus");
    assert_eq!(error("cpus(a:4"), "Bad value for resources, mismatched parentheses in cpus(a:4");
    assert_eq!(error("cpus:x"), "Bad type for resource cpus value x type TEXT");
    assert_eq!(error("cpus:-1"), "Failed to parse resource cpus value -1 error Negative values not supported");
    assert_eq!(error("cpus:nan"), "Failed to parse resource cpus value nan error Unsupported floating point value");
    assert_eq!(error("ports:[1-"), "Failed to parse resource ports value [1- error Mismatched brackets");
    assert_eq!(error("a:1;a:[1-2]"), "Resources with the same name ('a') but different types are not allowed");
    assert_eq!(error("cpus(-a):1"), "Role component '-a' is invalid because it starts with a dash");
    assert_eq!(parse_resources("cpus:4", "web").expect("good")[0].reservations[0].role(), "web");
}

#[test]
fn attributes_keep_their_type() {
    let attributes = parse_attributes("rack:r1;num:3;range:[1-2];url:http://x").expect("good");
    let texts: Vec<String> = attributes.iter().map(print_attribute).collect();
    assert_eq!(texts, ["r1", "3", "[1-2]", "http://x"]);
    assert!(parse_attributes("rack").is_err() && parse_attributes("a:{x}").is_err());
}

#[test]
fn what_is_wrong_with_a_resource() {
    let good = reserved("disk:10", &["a"]);
    assert_eq!(resource_error(&good), None);
    let mut cases: Vec<(v1::Resource, &str)> = Vec::new();
    let scalar = |value: f64| v1::Resource { scalar: Some(v1::value::Scalar { value }), ..good.clone() };
    cases.push((scalar(-1.0), "Invalid scalar resource: value <= 0"));
    cases.push((scalar(f64::NAN), "Invalid scalar resource: value <= 0"));
    cases.push((scalar(f64::INFINITY), "Invalid scalar resource: value <= 0"));
    cases.push((scalar(0.0001), "Invalid scalar resource: value <= 0"));
    cases.push((v1::Resource { name: String::new(), ..good.clone() }, "Empty resource name"));
    cases.push((v1::Resource { r#type: 99, ..good.clone() }, "Invalid resource type"));
    cases.push((v1::Resource { r#type: v1::value::Type::Text as i32, ..good.clone() }, "Unsupported resource type"));
    cases.push((reserved("disk:10", &["*"]), "Invalid reservation: role \"*\" cannot be reserved"));
    cases.push((reserved("disk:10", &["a", "b"]), "Invalid refined reservation: role 'b' is not a refinement of 'a'"));
    let mut ports = parse_resources("ports:[1-5]", "*").expect("good").pop().expect("one");
    ports.ranges = Some(v1::value::Ranges { range: vec![v1::value::Range { begin: 5, end: 9 }, v1::value::Range { begin: 1, end: 5 }] });
    cases.push((ports.clone(), "Invalid ranges resource: overlapping ranges"));
    ports.ranges = Some(v1::value::Ranges { range: vec![v1::value::Range { begin: 5, end: 1 }] });
    cases.push((ports, "Invalid ranges resource: begin > end"));
    let mut shared = good.clone();
    shared.shared = Some(v1::resource::SharedInfo::default());
    cases.push((shared, "Only persistent volumes can be shared"));
    for (resource, text) in cases {
        assert_eq!(resource_error(&resource).as_deref(), Some(text));
    }
}

#[test]
fn both_spellings_of_a_reservation_are_one() {
    let refined = reserved("cpus:1", &["a"]);
    let old = Resource::from_proto(&refined).to_proto(Format::PreRefinement);
    assert_eq!((old.role.as_deref(), old.reservations.len()), (Some("a"), 0));
    assert_eq!(old.reservation.as_ref().and_then(|it| it.principal.as_deref()), Some("p"));
    assert_eq!(Resource::from_proto(&old), Resource::from_proto(&refined));
    let stacked = Resource::from_proto(&reserved("cpus:1", &["a", "a/b"]));
    assert_eq!(stacked.to_proto(Format::PreRefinement).reservations.len(), 2, "nothing else can say it");
}

#[test]
fn volumes_are_whole() {
    let one = Resource::from_proto(&volume(reserved("disk:10", &["a"]), "v", false));
    let part = one.with_value(mesos::Value::Scalar(Scalar::from_whole(5)));
    let all: Resources = [one.clone(), Resource::from_proto(&reserved("disk:7", &["a"]))].into_iter().collect();
    assert_eq!(all.len(), 2);
    assert!(all.contains_one(&one) && !all.contains_one(&part));
    let mut twice = Resources::new();
    twice.add(one.clone());
    twice.add(one);
    assert!(!all.contains(&twice));
}

#[test]
fn shared_volumes_are_counted() {
    let one = Resource::from_proto(&volume(reserved("disk:10", &["a"]), "v", true));
    let mut users = Resources::new();
    users.add(one.clone());
    users.add(one.clone());
    assert_eq!((users.len(), users.scalar("disk").to_f64(), users.to_proto(Format::Refined).len()), (1, 10.0, 2));
    users.subtract(&one);
    assert!(users.contains_one(&one));
    users.subtract(&one);
    assert!(users.is_empty());
}

#[test]
fn operations_convert_and_back() {
    let mut total = resources("cpus:4;disk:100");
    let before = total.clone();
    let disk = reserved("disk:40", &["a"]);
    let made = volume(disk.clone(), "v", false);
    let operations = [
        Operation {
            r#type: Some(operation::Type::Reserve as i32),
            reserve: Some(operation::Reserve { source: Vec::new(), resources: vec![disk.clone()] }),
            ..Default::default()
        },
        Operation {
            r#type: Some(operation::Type::Create as i32),
            create: Some(operation::Create { volumes: vec![made.clone()] }),
            ..Default::default()
        },
        Operation {
            r#type: Some(operation::Type::ShrinkVolume as i32),
            shrink_volume: Some(operation::ShrinkVolume { volume: made.clone(), subtract: v1::value::Scalar { value: 10.0 } }),
            ..Default::default()
        },
    ];
    for operation in &operations {
        for conversion in conversions(operation).expect("well-formed") {
            conversion.apply(&mut total).expect("it is there");
        }
    }
    assert_eq!(total.persistent_volumes().scalar("disk").to_f64(), 30.0);
    assert_eq!(total.scalar("disk").to_f64(), 100.0);
    let mut shrunk = made;
    shrunk.scalar = Some(v1::value::Scalar { value: 30.0 });
    let back = [
        Operation {
            r#type: Some(operation::Type::Destroy as i32),
            destroy: Some(operation::Destroy { volumes: vec![shrunk] }),
            ..Default::default()
        },
        Operation {
            r#type: Some(operation::Type::Unreserve as i32),
            unreserve: Some(operation::Unreserve { resources: vec![disk] }),
            ..Default::default()
        },
    ];
    for operation in &back {
        for conversion in conversions(operation).expect("well-formed") {
            conversion.apply(&mut total).expect("it is there");
        }
    }
    assert_eq!(total, before);
    let error = conversions(&operations[1]).expect("well-formed")[0].apply(&mut total).expect_err("not reserved");
    assert!(error.ends_with("does not contain disk(reservations: [(DYNAMIC,a,p)]):40"), "{error}");
}
