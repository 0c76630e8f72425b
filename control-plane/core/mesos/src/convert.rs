use mesos_proto::v1;
use v1::offer::Operation;
use v1::offer::operation::Type;

use crate::{Resource, Resources, Scalar, Value, resource_error};

/// What an operation makes of what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversion {
    /// Is used up.
    pub consumed: Resources,
    /// Comes into being.
    pub converted: Resources,
}

impl Conversion {
    /// Applies it.
    ///
    /// # Errors
    ///
    /// With Mesos's text, when what would be used up is not there.
    pub fn apply(&self, resources: &mut Resources) -> Result<(), String> {
        if !resources.contains(&self.consumed) {
            return Err(format!("{resources} does not contain {}", self.consumed));
        }
        resources.subtract_all(&self.consumed);
        resources.add_all(&self.converted);
        Ok(())
    }

    /// The same for resources that are allocated to nobody, as an agent's total are.
    #[must_use]
    pub fn unallocated(&self) -> Conversion {
        Conversion { consumed: self.consumed.unallocated(), converted: self.converted.unallocated() }
    }
}

/// What `operation` makes of what; nothing for launches.
///
/// # Errors
///
/// When its payload is missing, or one of its resources is malformed.
pub fn conversions(operation: &Operation) -> Result<Vec<Conversion>, String> {
    let kind = operation.r#type.and_then(|it| Type::try_from(it).ok()).unwrap_or(Type::Unknown);
    let missing = || "payload of the operation is missing".to_owned();
    match kind {
        Type::Reserve => {
            let reserve = operation.reserve.as_ref().ok_or_else(missing)?;
            if reserve.source.is_empty() {
                return each(&reserve.resources, |it| (it.pop_reservation(), it.clone()));
            }
            let source: Resources = checked(&reserve.source)?.into_iter().collect();
            let target: Resources = checked(&reserve.resources)?.into_iter().collect();
            Ok(vec![Conversion { consumed: source, converted: target }])
        }
        Type::Unreserve => {
            let unreserve = operation.unreserve.as_ref().ok_or_else(missing)?;
            each(&unreserve.resources, |it| (it.clone(), it.pop_reservation()))
        }
        Type::Create => {
            let create = operation.create.as_ref().ok_or_else(missing)?;
            each(&create.volumes, |it| (it.without_volume(), it.clone()))
        }
        Type::Destroy => {
            let destroy = operation.destroy.as_ref().ok_or_else(missing)?;
            each(&destroy.volumes, |it| (it.clone(), it.without_volume()))
        }
        Type::GrowVolume => {
            let grow = operation.grow_volume.as_ref().ok_or_else(missing)?;
            let volume = one(&grow.volume)?;
            let addition = one(&grow.addition)?;
            let grown = volume.with_value(Value::Scalar(volume.amount() + addition.amount()));
            Ok(vec![Conversion { consumed: [volume, addition].into_iter().collect(), converted: std::iter::once(grown).collect() }])
        }
        Type::ShrinkVolume => {
            let shrink = operation.shrink_volume.as_ref().ok_or_else(missing)?;
            let volume = one(&shrink.volume)?;
            let subtract = Scalar::from_f64(shrink.subtract.value);
            let shrunk = volume.with_value(Value::Scalar(volume.amount() - subtract));
            let freed = volume.without_volume().with_value(Value::Scalar(subtract));
            Ok(vec![Conversion { consumed: std::iter::once(volume).collect(), converted: [shrunk, freed].into_iter().collect() }])
        }
        Type::Launch | Type::LaunchGroup => Ok(Vec::new()),
        Type::CreateDisk | Type::DestroyDisk => Err("Operation is not speculative".into()),
        Type::Unknown => Err("Unknown offer operation".into()),
    }
}

fn one(proto: &v1::Resource) -> Result<Resource, String> {
    match resource_error(proto) {
        None => Ok(Resource::from_proto(proto)),
        Some(error) => Err(error),
    }
}

fn checked(protos: &[v1::Resource]) -> Result<Vec<Resource>, String> {
    protos.iter().map(one).collect()
}

fn each(protos: &[v1::Resource], halves: impl Fn(&Resource) -> (Resource, Resource)) -> Result<Vec<Conversion>, String> {
    let conversion = |it: Resource| {
        let (consumed, converted) = halves(&it);
        Conversion { consumed: std::iter::once(consumed).collect(), converted: std::iter::once(converted).collect() }
    };
    Ok(checked(protos)?.into_iter().map(conversion).collect())
}
