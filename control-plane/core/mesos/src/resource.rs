use std::fmt;
use std::sync::Arc;

use mesos_proto::v1;
use v1::resource::reservation_info::Type as ReservationType;

use crate::{Disk, Ranges, Role, Scalar, Set, Value};

/// One entry of the stack of reservations of a resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Reservation {
    /// Whether made while the cluster runs; the others are the agent's configuration.
    pub dynamic: bool,
    /// For whom.
    pub role: Role,
    /// Who reserved.
    pub principal: Option<Arc<str>>,
    /// Free notes.
    pub labels: Option<Arc<v1::Labels>>,
}

/// What kind of resource this is, apart from how much of it and for whom it is allocated.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Kind {
    pub(crate) name: Arc<str>,
    /// Least refined first; the last decides.
    pub(crate) reservations: Vec<Reservation>,
    pub(crate) disk: Option<Disk>,
    pub(crate) provider: Option<Arc<str>>,
    pub(crate) revocable: bool,
    pub(crate) shared: bool,
}

/// Some of a resource of one kind. Cloning shares everything but a long list of ranges.
#[derive(Clone, Debug)]
pub struct Resource {
    pub(crate) kind: Arc<Kind>,
    pub(crate) allocated: Option<Role>,
    pub(crate) value: Value,
    /// How often a shared resource is counted; 1 for others.
    pub(crate) count: u32,
}

/// Which spelling of reservations a reader understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The stack `reservations`.
    Refined,
    /// `role` and `reservation`, as before reservation refinement; a deeper stack keeps the refined form.
    PreRefinement,
    /// Both, as the classic endpoints show it.
    Endpoint,
}

impl Resource {
    /// An unreserved amount.
    pub fn scalar(name: &str, amount: Scalar) -> Resource {
        Resource::plain(name, Value::Scalar(amount))
    }

    /// Unreserved ranges.
    pub fn ranges(name: &str, ranges: Ranges) -> Resource {
        Resource::plain(name, Value::Ranges(ranges))
    }

    /// Unreserved, of any type.
    pub fn plain(name: &str, value: Value) -> Resource {
        let kind = Kind { name: name.into(), reservations: Vec::new(), disk: None, provider: None, revocable: false, shared: false };
        Resource { kind: Arc::new(kind), allocated: None, value, count: 1 }
    }

    /// From the wire, in either format of reservations. Malformed parts are taken for absent: see [`crate::resource_error`].
    pub fn from_proto(proto: &v1::Resource) -> Resource {
        let value = match v1::value::Type::try_from(proto.r#type) {
            Ok(v1::value::Type::Ranges) => {
                let ranges = proto.ranges.iter().flat_map(|it| &it.range).map(|range| (range.begin, range.end));
                Value::Ranges(Ranges::new(ranges))
            }
            Ok(v1::value::Type::Set) => Value::Set(Set::new(proto.set.iter().flat_map(|it| &it.item).map(|item| item.as_str().into()))),
            _ => Value::Scalar(proto.scalar.as_ref().map_or(Scalar::ZERO, |it| Scalar::from_f64(it.value))),
        };
        let mut reservations: Vec<Reservation> = proto.reservations.iter().filter_map(reservation).collect();
        if reservations.is_empty()
            && let Some(role) = proto.role.as_deref().filter(|role| *role != "*")
        {
            let dynamic = proto.reservation.as_ref();
            reservations.push(Reservation {
                dynamic: dynamic.is_some(),
                role: role.into(),
                principal: dynamic.and_then(|it| it.principal.as_deref()).map(Into::into),
                labels: dynamic.and_then(|it| it.labels.clone()).map(Arc::new),
            });
        }
        let kind = Kind {
            name: proto.name.as_str().into(),
            reservations,
            disk: proto.disk.clone().map(Disk::new),
            provider: proto.provider_id.as_ref().map(|it| it.value.as_str().into()),
            revocable: proto.revocable.is_some(),
            shared: proto.shared.is_some(),
        };
        let allocated = proto.allocation_info.as_ref().and_then(|it| it.role.as_deref()).map(Role::from);
        Resource { kind: Arc::new(kind), allocated, value, count: 1 }
    }

    /// As the wire's message.
    pub fn to_proto(&self, format: Format) -> v1::Resource {
        let mut proto = v1::Resource {
            name: self.kind.name.to_string(),
            provider_id: self.kind.provider.as_ref().map(|it| v1::ResourceProviderId { value: it.to_string() }),
            allocation_info: self.allocated.as_ref().map(|role| v1::resource::AllocationInfo { role: Some(role.to_string()) }),
            disk: self.kind.disk.as_ref().map(|disk| disk.info().clone()),
            revocable: self.kind.revocable.then(v1::resource::RevocableInfo::default),
            shared: self.kind.shared.then(v1::resource::SharedInfo::default),
            ..Default::default()
        };
        match &self.value {
            Value::Scalar(amount) => {
                proto.r#type = v1::value::Type::Scalar as i32;
                proto.scalar = Some(v1::value::Scalar { value: amount.to_f64() });
            }
            Value::Ranges(ranges) => {
                proto.r#type = v1::value::Type::Ranges as i32;
                let range = ranges.iter().map(|(begin, end)| v1::value::Range { begin, end }).collect();
                proto.ranges = Some(v1::value::Ranges { range });
            }
            Value::Set(set) => {
                proto.r#type = v1::value::Type::Set as i32;
                proto.set = Some(v1::value::Set { item: set.iter().map(str::to_owned).collect() });
            }
        }
        let info = |it: &Reservation| v1::resource::ReservationInfo {
            r#type: Some(if it.dynamic { ReservationType::Dynamic } else { ReservationType::Static } as i32),
            role: Some(it.role.to_string()),
            principal: it.principal.as_deref().map(str::to_owned),
            labels: it.labels.as_deref().cloned(),
        };
        let stack = &self.kind.reservations;
        if format == Format::Refined || format == Format::Endpoint || stack.len() > 1 {
            proto.reservations = stack.iter().map(info).collect();
        }
        if format != Format::Refined && stack.len() < 2 {
            proto.role = Some(stack.last().map_or_else(|| "*".to_owned(), |it| it.role.to_string()));
            proto.reservation = stack.last().filter(|it| it.dynamic).map(|it| v1::resource::ReservationInfo {
                principal: it.principal.as_deref().map(str::to_owned),
                labels: it.labels.as_deref().cloned(),
                r#type: None,
                role: None,
            });
        }
        if format == Format::Endpoint && stack.len() > 1 {
            proto.role = stack.last().map(|it| it.role.to_string());
        }
        proto
    }

    /// `cpus`, `mem`, …
    pub fn name(&self) -> &Arc<str> {
        &self.kind.name
    }

    /// How much.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// How much, of a scalar; zero of others.
    pub fn amount(&self) -> Scalar {
        match self.value {
            Value::Scalar(amount) => amount,
            _ => Scalar::ZERO,
        }
    }

    /// The same with another value.
    #[must_use]
    pub fn with_value(&self, value: Value) -> Resource {
        Resource { value, ..self.clone() }
    }

    /// The stack of reservations, least refined first.
    pub fn reservations(&self) -> &[Reservation] {
        &self.kind.reservations
    }

    /// For whom it is reserved, most refined.
    pub fn reserved_role(&self) -> Option<&Role> {
        self.kind.reservations.last().map(|it| &it.role)
    }

    /// Whether anybody reserved it.
    pub fn is_reserved(&self) -> bool {
        !self.kind.reservations.is_empty()
    }

    /// Whether the reservation that decides was made while the cluster runs.
    pub fn is_dynamically_reserved(&self) -> bool {
        self.kind.reservations.last().is_some_and(|it| it.dynamic)
    }

    /// Whether a reservation was made of a reservation.
    pub fn has_refined_reservation(&self) -> bool {
        self.kind.reservations.len() > 1
    }

    /// Disk source and volume.
    pub fn disk(&self) -> Option<&Disk> {
        self.kind.disk.as_ref()
    }

    /// Whether it is a persistent volume.
    pub fn is_persistent_volume(&self) -> bool {
        self.disk().is_some_and(|disk| disk.persistence_id().is_some())
    }

    /// Whether it may be taken away at any time.
    pub fn is_revocable(&self) -> bool {
        self.kind.revocable
    }

    /// Whether several tasks may use it at once.
    pub fn is_shared(&self) -> bool {
        self.kind.shared
    }

    /// The id of the resource provider, if the agent itself does not provide it.
    pub fn provider(&self) -> Option<&str> {
        self.kind.provider.as_deref()
    }

    /// For which role it is allocated.
    pub fn allocated_role(&self) -> Option<&Role> {
        self.allocated.as_ref()
    }

    /// Allocates it, or takes the allocation away.
    pub fn set_allocated(&mut self, role: Option<Role>) {
        self.allocated = role;
    }

    /// How often a shared resource is counted; 1 for others.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether there is nothing of it.
    pub fn is_empty(&self) -> bool {
        self.value.is_empty()
    }

    /// Whether it is used whole or not at all.
    pub fn is_indivisible(&self) -> bool {
        self.kind.shared || self.disk().is_some_and(Disk::is_indivisible)
    }

    /// With one more reservation on the stack.
    #[must_use]
    pub fn push_reservation(&self, reservation: Reservation) -> Resource {
        self.change(|kind| kind.reservations.push(reservation))
    }

    /// Without the reservation that decides.
    #[must_use]
    pub fn pop_reservation(&self) -> Resource {
        self.change(|kind| {
            kind.reservations.pop();
        })
    }

    /// Without any reservation.
    #[must_use]
    pub fn to_unreserved(&self) -> Resource {
        self.change(|kind| kind.reservations.clear())
    }

    /// With the reservations of `other`.
    #[must_use]
    pub fn reserved_like(&self, other: &Resource) -> Resource {
        self.change(|kind| kind.reservations.clone_from(&other.kind.reservations))
    }

    /// The disk space of a persistent volume.
    #[must_use]
    pub fn without_volume(&self) -> Resource {
        self.change(|kind| {
            kind.disk = kind.disk.as_ref().and_then(Disk::without_volume);
            kind.shared = false;
        })
    }

    /// Revocable, as the oversubscribed resources of an agent are.
    #[must_use]
    pub fn to_revocable(&self) -> Resource {
        self.change(|kind| kind.revocable = true)
    }

    fn change(&self, change: impl FnOnce(&mut Kind)) -> Resource {
        let mut changed = self.clone();
        change(Arc::make_mut(&mut changed.kind));
        changed
    }

    /// Whether both are of one kind, type and allocation.
    pub fn same_identity(&self, other: &Resource) -> bool {
        self.value.same_type(&other.value)
            && self.allocated == other.allocated
            && (Arc::ptr_eq(&self.kind, &other.kind) || self.kind == other.kind)
    }

    /// Whether `other` is within this.
    pub fn contains(&self, other: &Resource) -> bool {
        if !self.same_identity(other) {
            return false;
        }
        if self.kind.shared {
            return self.value == other.value && self.count >= other.count;
        }
        if self.is_indivisible() { self.value == other.value } else { self.value.contains(&other.value) }
    }
}

impl PartialEq for Resource {
    fn eq(&self, other: &Resource) -> bool {
        self.same_identity(other) && self.value == other.value && self.count == other.count
    }
}

impl Eq for Resource {}

impl From<&v1::Resource> for Resource {
    fn from(proto: &v1::Resource) -> Resource {
        Resource::from_proto(proto)
    }
}

fn reservation(info: &v1::resource::ReservationInfo) -> Option<Reservation> {
    Some(Reservation {
        dynamic: info.r#type == Some(ReservationType::Dynamic as i32),
        role: info.role.as_deref()?.into(),
        principal: info.principal.as_deref().map(Into::into),
        labels: info.labels.clone().map(Arc::new),
    })
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind.name)?;
        if let Some(role) = &self.allocated {
            write!(f, "(allocated: {role})")?;
        }
        if !self.kind.reservations.is_empty() {
            f.write_str("(reservations: [")?;
            for (at, it) in self.kind.reservations.iter().enumerate() {
                write!(f, "{}({},{}", if at == 0 { "" } else { "," }, if it.dynamic { "DYNAMIC" } else { "STATIC" }, it.role)?;
                if let Some(principal) = &it.principal {
                    write!(f, ",{principal}")?;
                }
                if let Some(labels) = &it.labels {
                    f.write_str(",{")?;
                    for (at, label) in labels.labels.iter().enumerate() {
                        write!(f, "{}{}", if at == 0 { "" } else { ", " }, label.key)?;
                        if let Some(value) = &label.value {
                            write!(f, ": {value}")?;
                        }
                    }
                    f.write_str("}")?;
                }
                f.write_str(")")?;
            }
            f.write_str("])")?;
        }
        if let Some(disk) = &self.kind.disk {
            write!(f, "[{disk}]")?;
        }
        if self.kind.revocable {
            f.write_str("{REV}")?;
        }
        if self.kind.shared {
            f.write_str("<SHARED>")?;
        }
        write!(f, ":{}", self.value)
    }
}
