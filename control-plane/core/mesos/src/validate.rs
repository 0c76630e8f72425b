use mesos_proto::v1;
use v1::resource::disk_info::source::Type as SourceType;
use v1::resource::reservation_info::Type as ReservationType;

use crate::{Resource, Role, Scalar};

/// What is wrong with any of `resources`, in Mesos's words; `None` when nothing is.
pub fn resources_error(resources: &[v1::Resource]) -> Option<String> {
    resources.iter().find_map(|it| resource_error(it).map(|error| format!("Resource '{}' is invalid: {error}", Resource::from_proto(it))))
}

/// What is wrong with a resource, in Mesos's words; `None` when nothing is.
pub fn resource_error(resource: &v1::Resource) -> Option<String> {
    if resource.name.is_empty() {
        return Some("Empty resource name".into());
    }
    value_error(resource).or_else(|| disk_error(resource)).or_else(|| reservation_error(resource)).or_else(|| shared_error(resource))
}

fn value_error(resource: &v1::Resource) -> Option<String> {
    let (scalar, ranges, set) = (&resource.scalar, &resource.ranges, &resource.set);
    match v1::value::Type::try_from(resource.r#type) {
        Err(_) => Some("Invalid resource type".into()),
        Ok(v1::value::Type::Scalar) => {
            let (Some(scalar), None, None) = (scalar, ranges, set) else { return Some("Invalid scalar resource".into()) };
            // What would be rounded to nothing is as wrong as what is negative or no number.
            let value = scalar.value;
            let wrong = !value.is_finite() || (value != 0.0 && !Scalar::from_f64(value).is_positive());
            wrong.then(|| "Invalid scalar resource: value <= 0".into())
        }
        Ok(v1::value::Type::Ranges) => {
            let (None, Some(ranges), None) = (scalar, ranges, set) else { return Some("Invalid ranges resource".into()) };
            if ranges.range.iter().any(|range| range.begin > range.end) {
                return Some("Invalid ranges resource: begin > end".into());
            }
            let mut sorted: Vec<(u64, u64)> = ranges.range.iter().map(|range| (range.begin, range.end)).collect();
            sorted.sort_unstable();
            let overlap = sorted.windows(2).any(|pair| matches!(pair, [(_, end), (begin, _)] if begin <= end));
            overlap.then(|| "Invalid ranges resource: overlapping ranges".into())
        }
        Ok(v1::value::Type::Set) => {
            let (None, None, Some(set)) = (scalar, ranges, set) else { return Some("Invalid set resource".into()) };
            let mut items: Vec<&String> = set.item.iter().collect();
            items.sort_unstable();
            items.windows(2).any(|pair| pair[0] == pair[1]).then(|| "Invalid set resource: duplicated elements".into())
        }
        Ok(v1::value::Type::Text) => Some("Unsupported resource type".into()),
    }
}

fn disk_error(resource: &v1::Resource) -> Option<String> {
    let disk = resource.disk.as_ref()?;
    if resource.name != "disk" {
        return Some(format!("DiskInfo should not be set for {} resource", resource.name));
    }
    let source = disk.source.as_ref()?;
    let kind = SourceType::try_from(source.r#type).unwrap_or(SourceType::Unknown);
    match kind {
        SourceType::Path | SourceType::Mount => None,
        SourceType::Block | SourceType::Raw => {
            let what = match (&source.mount, &source.path) {
                (Some(_), _) => "Mount",
                (None, Some(_)) => "Path",
                (None, None) => return None,
            };
            Some(format!("{what} should not be set for {} disk source", kind.as_str_name()))
        }
        SourceType::Unknown => Some("Unsupported 'DiskInfo.Source.Type' in 'UNKNOWN'".into()),
    }
}

fn reservation_error(resource: &v1::Resource) -> Option<String> {
    let Some(last) = resource.reservations.last() else {
        if let Some(error) = resource.role.as_deref().and_then(Role::error) {
            return Some(error);
        }
        let reservation = resource.reservation.as_ref()?;
        if reservation.r#type.is_some() {
            return Some("'Resource.ReservationInfo.type' must not be set for the 'Resource.reservation' field".into());
        }
        if reservation.role.is_some() {
            return Some("'Resource.ReservationInfo.role' must not be set for the 'Resource.reservation' field".into());
        }
        let star = resource.role.as_deref().is_none_or(|role| role == "*");
        return star.then(|| "Invalid reservation: role \"*\" cannot be dynamically reserved".into());
    };
    for reservation in &resource.reservations {
        if reservation.r#type.is_none_or(|it| it == ReservationType::Unknown as i32) {
            return Some("Invalid reservation: 'Resource.ReservationInfo.type' field must be set.".into());
        }
        let Some(role) = &reservation.role else {
            return Some("Invalid reservation: 'Resource.ReservationInfo.role' field must be set.".into());
        };
        if let Some(error) = Role::error(role) {
            return Some(error);
        }
        if role == "*" {
            return Some("Invalid reservation: role \"*\" cannot be reserved".into());
        }
    }
    for pair in resource.reservations.windows(2) {
        let [upper, lower] = pair else { continue };
        if lower.r#type == Some(ReservationType::Static as i32) {
            return Some("Invalid refined reservation: A refined reservation cannot be STATIC".into());
        }
        let (ancestor, descendant) = (upper.role.as_deref().unwrap_or_default(), lower.role.as_deref().unwrap_or_default());
        if !Role::from(descendant).is_below(ancestor) {
            return Some(format!("Invalid refined reservation: role '{descendant}' is not a refinement of '{ancestor}'"));
        }
    }
    both_formats_error(resource, last)
}

/// Whoever fills the old fields beside the new ones must say the same in both.
fn both_formats_error(resource: &v1::Resource, last: &v1::resource::ReservationInfo) -> Option<String> {
    let format = |text: &str| Some(format!("Invalid resource format: {text}"));
    if resource.reservations.len() > 1 {
        if resource.role.is_some() && resource.role != last.role {
            return format("'Resource.role' must not be set if there is more than one reservation in 'Resource.reservations'");
        }
        if resource.reservation.is_some() {
            return format("'Resource.reservation' must not be set if there is more than one reservation in 'Resource.reservations'");
        }
        return None;
    }
    if let Some(role) = resource.role.as_ref().filter(|role| Some(*role) != last.role.as_ref()) {
        let reserved = last.role.as_deref().unwrap_or_default();
        return format(&format!("'Resource.role' field with '{role}' does not match the role '{reserved}' in 'Resource.reservations'"));
    }
    let is_static = last.r#type == Some(ReservationType::Static as i32);
    match &resource.reservation {
        Some(_) if is_static => {
            format("'Resource.reservation' must not be set if the single reservation in 'Resource.reservations' is STATIC")
        }
        Some(old) if old.principal != last.principal => {
            let (old, new) = (old.principal.as_deref().unwrap_or_default(), last.principal.as_deref().unwrap_or_default());
            format(&format!(
                "'Resource.reservation.principal' field with '{old}' does not match the principal '{new}' in 'Resource.reservations'"
            ))
        }
        Some(old) if old.labels != last.labels => {
            format("'Resource.reservation.labels' field does not match the labels in 'Resource.reservations'")
        }
        None if !is_static && resource.role.is_some() => format(
            "'Resource.role' and 'Resource.reservation' must either be both set or both not set if the single reservation in \
             'Resource.reservations' is DYNAMIC",
        ),
        _ => None,
    }
}

fn shared_error(resource: &v1::Resource) -> Option<String> {
    resource.shared?;
    if resource.name != "disk" {
        return Some(format!("Resource {} cannot be shared", resource.name));
    }
    let volume = resource.disk.as_ref().is_some_and(|disk| disk.persistence.is_some());
    (!volume).then(|| "Only persistent volumes can be shared".into())
}
