use mesos::{Resource, Resources, Scalar};
use mesos_proto::v1;
use prost::Message as _;
use v1::offer::operation::Type;
use v1::resource::disk_info::source::Type as SourceType;

use super::list;
use super::task::{general_error, persistence_error, size_error};
use crate::{Agent, Framework};

/// Who asks, and of which agent.
pub(crate) struct Allowed<'a> {
    /// None: an operator.
    pub(crate) framework: Option<&'a Framework>,
    pub(crate) principal: Option<&'a str>,
    pub(crate) agent: &'a Agent,
}

/// What is wrong with an operation, in Mesos's words; `None` when nothing is.
pub(crate) fn operation_error(operation: &v1::offer::Operation, allowed: &Allowed<'_>) -> Option<String> {
    if let Some(error) = size_error("Operation", operation.encoded_len()) {
        return Some(error);
    }
    match operation.r#type.and_then(|it| Type::try_from(it).ok()).unwrap_or_default() {
        Type::Reserve => match &operation.reserve {
            None => expecting("reserve"),
            Some(it) => reserve_error(it, allowed),
        },
        Type::Unreserve => match &operation.unreserve {
            None => expecting("unreserve"),
            Some(it) => unreserve_error(it),
        },
        Type::Create => match &operation.create {
            None => expecting("create"),
            Some(it) => create_error(it, allowed),
        },
        Type::Destroy => match &operation.destroy {
            None => expecting("destroy"),
            Some(it) => volumes_error(&it.volumes),
        },
        Type::GrowVolume => match &operation.grow_volume {
            None => expecting("grow_volume"),
            Some(it) => grow_error(it, allowed),
        },
        Type::ShrinkVolume => match &operation.shrink_volume {
            None => expecting("shrink_volume"),
            Some(it) => shrink_error(it, allowed),
        },
        Type::CreateDisk | Type::DestroyDisk => provider_error(operation),
        Type::Launch | Type::LaunchGroup => None,
        Type::Unknown => Some("Unknown offer operation".into()),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "every use is the answer of a function that may find nothing")]
fn expecting(field: &str) -> Option<String> {
    Some(format!("Expecting '{field}' to be present"))
}

fn invalid(error: Option<String>) -> Option<String> {
    error.map(|error| format!("Invalid resources: {error}"))
}

fn reserve_error(reserve: &v1::offer::operation::Reserve, allowed: &Allowed<'_>) -> Option<String> {
    if let Some(error) = invalid(general_error(&reserve.resources)) {
        return Some(error);
    }
    if let Some(error) = general_error(&reserve.source) {
        return Some(format!("Invalid source: {error}"));
    }
    if !reserve.source.is_empty() {
        if allowed.framework.is_some() {
            return Some("Invalid source: 'source' must not be set in a RESERVE of a framework".into());
        }
        let source = Resources::from_proto(&reserve.source);
        let target = Resources::from_proto(&reserve.resources);
        if source.is_empty() || target.is_empty() {
            return Some("Invalid source: Resource cannot be empty".into());
        }
        for (resources, what) in [(&source, "source"), (&target, "resources")] {
            let mut all = resources.iter().map(Resource::reservations);
            let first = all.next();
            if all.any(|it| Some(it) != first) {
                return Some(format!("Invalid {what}: Mixed reservations are not supported{resources}"));
            }
        }
        if source.to_unreserved() != target.to_unreserved() {
            return Some(format!(
                "Source and target resources should refer to identical resource quantities: {} vs. {}",
                source.to_unreserved(),
                target.to_unreserved()
            ));
        }
    }
    reserve.resources.iter().map(Resource::from_proto).find_map(|resource| reserve_one_error(&resource, allowed, reserve))
}

fn reserve_one_error(resource: &Resource, allowed: &Allowed<'_>, reserve: &v1::offer::operation::Reserve) -> Option<String> {
    let Some(reservation) = resource.reservations().last().filter(|it| it.dynamic) else {
        // Operators may move what is reserved to nobody or to another.
        let moved = !reserve.source.is_empty();
        return (!moved).then(|| format!("Resource {resource} is not dynamically reserved"));
    };
    let can = allowed.agent.capabilities;
    if !can.hierarchical_role() && reservation.role.contains('/') {
        return Some(format!(
            "Resource {resource} with reservation for hierarchical role '{}' cannot be reserved on an agent without HIERARCHICAL_ROLE \
             capability",
            reservation.role
        ));
    }
    if !can.reservation_refinement() && resource.has_refined_reservation() {
        return Some(format!(
            "Resource {resource} with reservation refinement cannot be reserved on an agent without RESERVATION_REFINEMENT capability"
        ));
    }
    if let Some(principal) = allowed.principal {
        match reservation.principal.as_deref() {
            None => {
                return Some(format!(
                    "A reserve operation was attempted by principal '{principal}', but there is a reserved resource in the request with no \
                     principal set"
                ));
            }
            Some(other) if other != principal => {
                return Some(format!(
                    "A reserve operation was attempted by authenticated principal '{principal}', which does not match a reserved resource \
                     in the request with principal '{other}'"
                ));
            }
            Some(_) => {}
        }
    }
    match allowed.framework {
        Some(framework) => {
            let Some(role) = resource.allocated_role() else {
                return Some(format!(
                    "A reserve operation was attempted on unallocated resource {resource}, but frameworks can only perform reservations on \
                     allocated resources"
                ));
            };
            if reservation.role != *role {
                return Some(format!(
                    "A reserve operation was attempted for a resource with role '{}', but the resource was allocated to role '{role}'",
                    reservation.role
                ));
            }
            (!framework.roles.contains(role)).then(|| {
                format!(
                    "A reserve operation was attempted for a resource allocated to role '{role}', but the framework only has roles '{}'",
                    list(framework.roles.iter())
                )
            })
        }
        None => resource.allocated_role().map(|_| {
            "A reserve operation was attempted with an allocated resource, but the operator API only allows reservations to be made to \
             unallocated resources"
                .into()
        }),
    }
}

fn unreserve_error(unreserve: &v1::offer::operation::Unreserve) -> Option<String> {
    if let Some(error) = invalid(general_error(&unreserve.resources)) {
        return Some(error);
    }
    unreserve.resources.iter().map(Resource::from_proto).find_map(|resource| {
        if !resource.is_dynamically_reserved() {
            return Some(format!("Resource {resource} is not dynamically reserved"));
        }
        resource.is_persistent_volume().then(|| {
            format!(
                "A dynamically reserved persistent volume {resource} cannot be unreserved directly. Please destroy the persistent volume \
                 first then unreserve the resource"
            )
        })
    })
}

fn volumes_error(volumes: &[v1::Resource]) -> Option<String> {
    if let Some(error) = invalid(general_error(volumes)) {
        return Some(error);
    }
    volumes.iter().find_map(volume_error).map(|error| format!("Not a persistent volume: {error}"))
}

fn volume_error(proto: &v1::Resource) -> Option<String> {
    let Some(disk) = &proto.disk else {
        return Some(format!("Resource {} does not have DiskInfo", Resource::from_proto(proto)));
    };
    if disk.persistence.is_none() {
        return Some("'persistence' is not set in DiskInfo".into());
    }
    let Some(volume) = &disk.volume else { return Some("Expecting 'volume' to be set for persistent volume".into()) };
    (volume.mode == v1::volume::Mode::Ro as i32).then(|| "Read-only persistent volume not supported".into())
}

fn create_error(create: &v1::offer::operation::Create, allowed: &Allowed<'_>) -> Option<String> {
    if let Some(error) = volumes_error(&create.volumes) {
        return Some(error);
    }
    let mut all: Vec<Resource> = allowed.agent.total.persistent_volumes().iter().cloned().collect();
    all.extend(create.volumes.iter().map(Resource::from_proto));
    if let Some(error) = persistence_error(&all) {
        return Some(error);
    }
    let can = allowed.agent.capabilities;
    for proto in &create.volumes {
        let volume = Resource::from_proto(proto);
        if let Some(framework) = allowed.framework
            && volume.is_shared()
            && !framework.capabilities.shared_resources()
        {
            return Some(format!(
                "Create volume operation for '{volume}' has been attempted by framework '{}' with no SHARED_RESOURCES capability",
                framework.id
            ));
        }
        if let Some(role) = volume.reserved_role().filter(|role| role.contains('/') && !can.hierarchical_role()) {
            return Some(format!(
                "Volume {volume} with reservation for hierarchical role '{role}' cannot be created on an agent without HIERARCHICAL_ROLE \
                 capability"
            ));
        }
        if volume.has_refined_reservation() && !can.reservation_refinement() {
            return Some(format!(
                "Volume {volume} with reservation refinement cannot be created on an agent without RESERVATION_REFINEMENT capability"
            ));
        }
        if let Some(principal) = allowed.principal {
            let owner = proto.disk.as_ref().and_then(|it| it.persistence.as_ref()).and_then(|it| it.principal.as_deref());
            match owner {
                None => {
                    return Some(format!(
                        "Create volume operation attempted by principal '{principal}', but there is a volume in the operation with no \
                         principal set in 'disk.persistence'"
                    ));
                }
                Some(owner) if owner != principal => {
                    return Some(format!(
                        "Create volume operation attempted by authenticated principal '{principal}', which does not match a volume in the \
                         operation with principal '{owner}' set in 'disk.persistence'"
                    ));
                }
                Some(_) => {}
            }
        }
    }
    None
}

fn resizable_error(field: &str, proto: &v1::Resource, verb: &str) -> Option<String> {
    if let Some(error) = general_error(std::slice::from_ref(proto)) {
        return Some(format!("Invalid resource in the '{field}' field: {error}"));
    }
    let volume = Resource::from_proto(proto);
    if volume.provider().is_some() {
        return Some(format!("{verb} a volume from a resource provider is not supported"));
    }
    if let Some(error) = volume_error(proto) {
        return Some(format!("Invalid persistent volume in the '{field}' field: {error}"));
    }
    volume.is_shared().then(|| format!("{verb} a shared persistent volume is not supported"))
}

fn grow_error(grow: &v1::offer::operation::GrowVolume, allowed: &Allowed<'_>) -> Option<String> {
    if let Some(error) = resizable_error("GrowVolume.volume", &grow.volume, "Growing") {
        return Some(error);
    }
    if let Some(error) = general_error(std::slice::from_ref(&grow.addition)) {
        return Some(format!("Invalid resource in the 'GrowVolume.addition' field: {error}"));
    }
    let (volume, addition) = (Resource::from_proto(&grow.volume), Resource::from_proto(&grow.addition));
    if !addition.amount().is_positive() {
        return Some("The size of 'GrowVolume.addition' field must be greater than zero".into());
    }
    if !volume.without_volume().same_identity(&addition) {
        return Some("Incompatible resources in the 'GrowVolume.volume' and 'GrowVolume.addition' fields".into());
    }
    (!allowed.agent.capabilities.resize_volume())
        .then(|| format!("Volume {volume} cannot be grown on an agent without RESIZE_VOLUME capability"))
}

fn shrink_error(shrink: &v1::offer::operation::ShrinkVolume, allowed: &Allowed<'_>) -> Option<String> {
    if let Some(error) = resizable_error("ShrinkVolume.volume", &shrink.volume, "Shrinking") {
        return Some(error);
    }
    let volume = Resource::from_proto(&shrink.volume);
    let subtract = Scalar::from_f64(shrink.subtract.value);
    if !subtract.is_positive() {
        return Some("Value of 'ShrinkVolume.subtract' must be greater than zero".into());
    }
    if volume.amount() <= subtract {
        return Some("Value of 'ShrinkVolume.subtract' must be smaller than the size of 'ShrinkVolume.volume'".into());
    }
    if volume.disk().and_then(|it| it.source_type()) == Some(SourceType::Mount) {
        return Some("Shrinking a volume on a MOUNT disk is not supported".into());
    }
    (!allowed.agent.capabilities.resize_volume())
        .then(|| format!("Volume {volume} cannot be shrunk on an agent without RESIZE_VOLUME capability"))
}

/// Disks of resource providers: this platform has none, so that every such operation names what is not one.
fn provider_error(operation: &v1::offer::Operation) -> Option<String> {
    let create = operation.create_disk.as_ref().map(|it| &it.source);
    let Some(source) = create.or_else(|| operation.destroy_disk.as_ref().map(|it| &it.source)) else {
        return expecting("create_disk");
    };
    if let Some(error) = general_error(std::slice::from_ref(source)) {
        return Some(format!("Invalid resource: {error}"));
    }
    if source.provider_id.is_none() {
        return Some("'source' is not managed by a resource provider".into());
    }
    Some("The resource provider is not known".into())
}
