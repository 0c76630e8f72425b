//! Resources as the classic endpoints show them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use mesos::{Format, Resource, Resources, Scalar, Value};
use mesos_proto::v1;
use mesos_proto::v1::value::Type;
use smallvec::SmallVec;

use crate::json::{Array, Object};

/// What there is of one name, roles and reservations collapsed.
enum Sum {
    Scalar(Scalar),
    Ranges(mesos::Ranges),
    Set(mesos::Set),
}

/// The resources object: `cpus`, `gpus`, `mem` and `disk` always, and whatever else there is by name.
pub(super) fn resources<'a>(object: &mut Object<'_>, name: &str, all: impl IntoIterator<Item = &'a Resource>) {
    const ALWAYS: [&str; 4] = ["cpus", "gpus", "mem", "disk"];
    // There are a handful of names, and this is done for every task there is.
    let mut sums: SmallVec<[(&str, bool, Sum); 8]> = SmallVec::new();
    for resource in all {
        let (name, revocable) = (resource.name().as_ref(), resource.is_revocable());
        let known = sums.iter_mut().find(|(known, known_revocable, _)| *known_revocable == revocable && *known == name);
        match (known.map(|(_, _, sum)| sum), resource.value()) {
            (Some(Sum::Scalar(sum)), Value::Scalar(amount)) => *sum += *amount,
            (Some(Sum::Ranges(sum)), Value::Ranges(more)) => *sum = sum.union(more),
            (Some(Sum::Set(sum)), Value::Set(more)) => *sum = sum.union(more),
            // Two types under one name: the first stands.
            (Some(_), _) => {}
            (None, Value::Scalar(amount)) => sums.push((name, revocable, Sum::Scalar(*amount))),
            (None, Value::Ranges(ranges)) => sums.push((name, revocable, Sum::Ranges(ranges.clone()))),
            (None, Value::Set(set)) => sums.push((name, revocable, Sum::Set(set.clone()))),
        }
    }
    object.object(name, |object| {
        for always in ALWAYS {
            let amount = sums.iter().find_map(|(name, revocable, sum)| match sum {
                Sum::Scalar(amount) if !revocable && *name == always => Some(amount.to_f64()),
                _ => None,
            });
            object.number(always, amount.unwrap_or(0.0));
        }
        sums.retain(|(name, revocable, _)| *revocable || !ALWAYS.contains(name));
        sums.sort_unstable_by_key(|(name, revocable, _)| (*name, *revocable));
        for (name, revocable, sum) in &sums {
            let name = if *revocable { Cow::Owned(format!("{name}_revocable")) } else { Cow::Borrowed(*name) };
            match sum {
                Sum::Scalar(amount) => object.number(&name, amount.to_f64()),
                Sum::Ranges(ranges) => object.text(&name, &say_ranges(ranges.iter())),
                Sum::Set(set) => object.text(&name, &say_items(set.iter())),
            }
        }
    });
}

/// The reserved parts of `all` by role.
pub(super) fn by_role(all: &Resources) -> BTreeMap<&str, Vec<&Resource>> {
    let mut roles: BTreeMap<&str, Vec<&Resource>> = BTreeMap::new();
    for resource in all {
        if let Some(role) = resource.reserved_role() {
            roles.entry(role.as_str()).or_default().push(resource);
        }
    }
    roles
}

/// What nobody has reserved.
pub(super) fn unreserved(all: &Resources) -> impl Iterator<Item = &Resource> {
    all.iter().filter(|it| !it.is_reserved())
}

/// The messages themselves, with both spellings of reservations.
pub(super) fn full<'a>(array: &mut Array<'_>, all: impl IntoIterator<Item = &'a Resource>) {
    for resource in all {
        array.message(&resource.to_proto(Format::Endpoint));
    }
}

/// The attributes object.
pub(super) fn attributes(object: &mut Object<'_>, attributes: &[v1::Attribute]) {
    object.object("attributes", |object| {
        for attribute in attributes {
            let name = attribute.name.as_str();
            match Type::try_from(attribute.r#type) {
                Ok(Type::Scalar) => object.number(name, attribute.scalar.map_or(0.0, |it| it.value)),
                Ok(Type::Ranges) => {
                    let ranges = attribute.ranges.iter().flat_map(|it| &it.range);
                    object.text(name, &say_ranges(ranges.map(|it| (it.begin, it.end))));
                }
                Ok(Type::Set) => {
                    let items = attribute.set.iter().flat_map(|it| &it.item);
                    object.text(name, &say_items(items.map(String::as_str)));
                }
                Ok(Type::Text) => object.text(name, attribute.text.as_ref().map_or("", |it| it.value.as_str())),
                Err(_) => {}
            }
        }
    });
}

/// `[1-2, 5-5]`
fn say_ranges(ranges: impl Iterator<Item = (u64, u64)>) -> String {
    let ranges: Vec<String> = ranges.map(|(begin, end)| format!("{begin}-{end}")).collect();
    format!("[{}]", ranges.join(", "))
}

/// `{a, b}`
fn say_items<'a>(items: impl Iterator<Item = &'a str>) -> String {
    format!("{{{}}}", items.collect::<Vec<_>>().join(", "))
}
