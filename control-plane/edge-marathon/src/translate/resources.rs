use mesos_proto::v1;
use mesos_proto::v1::resource::disk_info::{Persistence, Source, source};
use mesos_proto::v1::resource::{AllocationInfo, DiskInfo, ReservationInfo, RevocableInfo, SharedInfo, reservation_info};
use scheduler::mesos::{Disk, DiskSource, Reservation, Resource, ResourceValue, thousandths};

pub(crate) fn from_resource(resource: v1::Resource) -> Resource {
    let value = if let Some(scalar) = resource.scalar {
        ResourceValue::Scalar(thousandths(scalar.value))
    } else if let Some(ranges) = resource.ranges {
        ResourceValue::Ranges(ranges.range.into_iter().map(|it| (it.begin, it.end)).collect())
    } else {
        ResourceValue::Set(resource.set.map(|set| set.item).unwrap_or_default())
    };
    let mut reservations: Vec<Reservation> = resource.reservations.into_iter().map(from_reservation).collect();
    // The form of masters that do not know refinement.
    let role = resource.role.filter(|role| role != "*");
    if reservations.is_empty()
        && let Some(role) = role
    {
        let one = resource.reservation.map(from_reservation).map(|it| Reservation { dynamic: true, ..it }).unwrap_or_default();
        reservations.push(Reservation { role, ..one });
    }
    Resource {
        name: resource.name,
        value,
        reservations,
        disk: resource.disk.map(from_disk),
        provider: resource.provider_id.map(|id| id.value),
        revocable: resource.revocable.is_some(),
        shared: resource.shared.is_some(),
    }
}

fn from_reservation(it: ReservationInfo) -> Reservation {
    Reservation {
        role: it.role.unwrap_or_default(),
        dynamic: it.r#type == Some(reservation_info::Type::Dynamic as i32),
        principal: it.principal,
        labels: it.labels.map(|all| all.labels.into_iter().map(|it| (it.key, it.value)).collect()).unwrap_or_default(),
    }
}

fn from_disk(disk: DiskInfo) -> Disk {
    let source = |it: Source| DiskSource {
        kind: source::Type::try_from(it.r#type).map(|kind| kind.as_str_name().to_owned()).unwrap_or_default(),
        root: it.path.and_then(|path| path.root).or_else(|| it.mount.and_then(|mount| mount.root)),
        profile: it.profile,
        id: it.id,
        vendor: it.vendor,
    };
    Disk {
        persistence: disk.persistence.map(|it| (it.id, it.principal)),
        container_path: disk.volume.map(|volume| volume.container_path),
        source: disk.source.map(source),
    }
}

/// The message of a resource, allocated to `role` when that is not empty.
pub(crate) fn into_resource(resource: &Resource, role: &str) -> v1::Resource {
    let mut message = v1::Resource { name: resource.name.clone(), ..v1::Resource::default() };
    match &resource.value {
        ResourceValue::Scalar(value) => {
            message.r#type = v1::value::Type::Scalar as i32;
            #[expect(clippy::cast_precision_loss, reason = "amounts of resources are far below 2^52 thousandths")]
            let value = *value as f64 / 1_000.0;
            message.scalar = Some(v1::value::Scalar { value });
        }
        ResourceValue::Ranges(ranges) => {
            message.r#type = v1::value::Type::Ranges as i32;
            let range = ranges.iter().map(|(begin, end)| v1::value::Range { begin: *begin, end: *end }).collect();
            message.ranges = Some(v1::value::Ranges { range });
        }
        ResourceValue::Set(names) => {
            message.r#type = v1::value::Type::Set as i32;
            message.set = Some(v1::value::Set { item: names.clone() });
        }
    }
    if !role.is_empty() {
        message.allocation_info = Some(AllocationInfo { role: Some(role.to_owned()) });
    }
    message.reservations = resource.reservations.iter().map(into_reservation).collect();
    message.disk = resource.disk.as_ref().map(into_disk);
    message.provider_id = resource.provider.as_ref().map(|id| v1::ResourceProviderId { value: id.clone() });
    message.revocable = resource.revocable.then_some(RevocableInfo {});
    message.shared = resource.shared.then_some(SharedInfo {});
    message
}

fn into_reservation(it: &Reservation) -> ReservationInfo {
    let kind = if it.dynamic { reservation_info::Type::Dynamic } else { reservation_info::Type::Static };
    let label = |(key, value): &(String, Option<String>)| v1::Label { key: key.clone(), value: value.clone() };
    ReservationInfo {
        r#type: Some(kind as i32),
        role: Some(it.role.clone()),
        principal: it.principal.clone(),
        labels: (!it.labels.is_empty()).then(|| v1::Labels { labels: it.labels.iter().map(label).collect() }),
    }
}

fn into_disk(disk: &Disk) -> DiskInfo {
    let volume = |path: &String| v1::Volume { mode: v1::volume::Mode::Rw as i32, container_path: path.clone(), ..v1::Volume::default() };
    let source = |it: &DiskSource| {
        let kind = source::Type::from_str_name(&it.kind).unwrap_or(source::Type::Path);
        Source {
            r#type: kind as i32,
            path: (kind == source::Type::Path).then(|| source::Path { root: it.root.clone() }),
            mount: (kind == source::Type::Mount).then(|| source::Mount { root: it.root.clone() }),
            profile: it.profile.clone(),
            id: it.id.clone(),
            vendor: it.vendor.clone(),
            ..Source::default()
        }
    };
    DiskInfo {
        persistence: disk.persistence.as_ref().map(|(id, principal)| Persistence { id: id.clone(), principal: principal.clone() }),
        volume: disk.container_path.as_ref().map(volume),
        source: disk.source.as_ref().map(source),
    }
}
