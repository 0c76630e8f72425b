//! One offer, one app: whether an instance fits, and on exactly which resources.

mod ports;
mod take;

use std::collections::BTreeMap;

use base::Timestamp;

use crate::constraints::{Place, Placement};
use crate::id::InstanceId;
use crate::instance::{Held, HeldVolume};
use crate::mesos::{Disk, FRAMEWORK_LABEL, INSTANCE_LABEL, Offer, Reservation, Resource, ResourceValue, thousandths};
use crate::model::app::App;
use crate::model::container::{DiskKind, PersistentVolume, VolumeKind};
use crate::model::pod::Pod;
use crate::model::spec::Spec;
use crate::random::IdGen;

use ports::Wanted;
use take::Pool;

/// Why an offer was not used, in the order in which it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the words are Marathon's own")]
pub enum Reason {
    UnfulfilledRole,
    UnfulfilledConstraint,
    NoCorrespondingReservationFound,
    AgentMaintenance,
    InsufficientCpus,
    InsufficientMemory,
    InsufficientDisk,
    InsufficientGpus,
    InsufficientPorts,
    DeclinedScarceResources,
}

impl Reason {
    /// Every reason with its word, in order.
    pub const ALL: [(Reason, &'static str); 10] = [
        (Reason::UnfulfilledRole, "UnfulfilledRole"),
        (Reason::UnfulfilledConstraint, "UnfulfilledConstraint"),
        (Reason::NoCorrespondingReservationFound, "NoCorrespondingReservationFound"),
        (Reason::AgentMaintenance, "AgentMaintenance"),
        (Reason::InsufficientCpus, "InsufficientCpus"),
        (Reason::InsufficientMemory, "InsufficientMemory"),
        (Reason::InsufficientDisk, "InsufficientDisk"),
        (Reason::InsufficientGpus, "InsufficientGpus"),
        (Reason::InsufficientPorts, "InsufficientPorts"),
        (Reason::DeclinedScarceResources, "DeclinedScarceResources"),
    ];

    /// Its word.
    pub fn word(self) -> &'static str {
        Reason::ALL[self as usize].1
    }
}

/// Which unreserved and reserved resources are taken when an app does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AcceptedRoles {
    /// Both.
    #[default]
    Any,
    /// Only `*`.
    Unreserved,
    /// Only those of the app's role.
    Reserved,
}

/// What matching depends on besides the offer and the app.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy<'a> {
    pub(crate) framework_id: &'a str,
    pub(crate) principal: Option<&'a str>,
    pub(crate) accepted_roles: AcceptedRoles,
    pub(crate) home_region: Option<&'a str>,
    /// Whether agents with GPUs are kept for those who want them.
    pub(crate) gpus_are_scarce: bool,
}

/// An instance that fits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Match {
    /// One for an app; one per container of a pod.
    pub(crate) tasks: Vec<Taken>,
    /// For the executor.
    pub(crate) executor: Vec<Resource>,
    /// Volumes, each with where it is mounted.
    pub(crate) volumes: Vec<(String, Resource)>,
    /// To be reserved before.
    pub(crate) reserve: Vec<Resource>,
    /// To be made before.
    pub(crate) create: Vec<Resource>,
    /// What is reserved for it now.
    pub(crate) held: Option<Held>,
}

/// What one task takes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taken {
    pub(crate) resources: Vec<Resource>,
    pub(crate) host_ports: Vec<Option<u16>>,
    pub(crate) container_ports: Vec<u16>,
}

/// What is left of an offer.
#[derive(Debug)]
pub(crate) struct Remaining {
    pub(crate) offer: Offer,
    pool: Pool,
}

impl Remaining {
    pub(crate) fn new(offer: Offer) -> Remaining {
        let pool = Pool::new(&offer.resources);
        Remaining { offer, pool }
    }

    pub(crate) fn place(&self) -> Place<'_> {
        let offer = &self.offer;
        Place { host: &offer.hostname, region: offer.region.as_deref(), zone: offer.zone.as_deref(), attributes: &offer.attributes }
    }

    /// Tries to fit an instance of `spec`; what it takes is gone from what remains.
    ///
    /// # Errors
    /// Every reason why it does not fit.
    pub(crate) fn fit(
        &mut self,
        now: Timestamp,
        spec: &Spec,
        (instance, held): (&InstanceId, Option<&Held>),
        placement: &Placement,
        policy: Policy<'_>,
        ids: &mut IdGen,
    ) -> Result<Match, Vec<Reason>> {
        let mut reasons = Vec::new();
        let place = self.place();
        let foreign = policy.home_region.is_some() && place.region.is_some() && place.region != policy.home_region;
        if !placement.accepts(place) || (foreign && !placement.names_region()) {
            reasons.push(Reason::UnfulfilledConstraint);
        }
        if self.offer.role != spec.role() || (spec.is_resident() && spec.role() == "*") {
            reasons.push(Reason::UnfulfilledRole);
        }
        if self.offer.unavailable_from.is_some_and(|from| from <= now) {
            reasons.push(Reason::AgentMaintenance);
        }
        let wants_gpus = spec.needs().gpus > 0;
        if policy.gpus_are_scarce && !wants_gpus && self.pool.total("gpus") > 0 && held.is_none() && !unrestricted(spec) {
            reasons.push(Reason::DeclinedScarceResources);
        }
        let mut pool = self.pool.clone();
        let labels = vec![
            (FRAMEWORK_LABEL.to_owned(), Some(policy.framework_id.to_owned())),
            (INSTANCE_LABEL.to_owned(), Some(instance.as_str().to_owned())),
        ];
        match held {
            Some(_) => pool.only_held(policy.framework_id, instance.as_str()),
            None => pool.only_free(&accepted(spec, policy.accepted_roles)),
        }
        let mut found = Match::default();
        if held.is_some_and(|held| !take_held_volumes(&mut pool, spec, held, &mut found)) {
            reasons.push(Reason::NoCorrespondingReservationFound);
        }
        let needs = match spec {
            Spec::App(app) => app_needs(app),
            Spec::Pod(pod) => pod_needs(pod),
        };
        for need in &needs {
            let mut taken = Taken::default();
            for (name, amount, reason) in [
                ("cpus", need.scalars.cpus, Reason::InsufficientCpus),
                ("mem", need.scalars.mem, Reason::InsufficientMemory),
                ("disk", need.scalars.disk, Reason::InsufficientDisk),
                ("gpus", f64::from(need.scalars.gpus), Reason::InsufficientGpus),
            ] {
                if !pool.take(name, thousandths(amount), &mut taken.resources) {
                    reasons.push(reason);
                }
            }
            if need.is_executor {
                found.executor = taken.resources;
                continue;
            }
            match pool.take_ports(&need.ports, ids, &mut taken.resources) {
                Some(host_ports) => {
                    taken.container_ports = ports::in_container(&need.ports, &host_ports, ids);
                    taken.host_ports = host_ports;
                }
                None => reasons.push(Reason::InsufficientPorts),
            }
            found.tasks.push(taken);
        }
        if held.is_none() && spec.is_resident() && !make_volumes(&mut pool, (spec, placement), &mut found, ids) {
            reasons.push(Reason::InsufficientDisk);
        }
        if !reasons.is_empty() {
            reasons.sort_unstable();
            reasons.dedup();
            return Err(reasons);
        }
        if held.is_none() && spec.is_resident() {
            reserve(spec, policy.principal, &labels, &mut found);
        }
        pool.restore_hidden();
        self.pool = pool;
        Ok(found)
    }

    /// Resources that we once reserved for instances that `alive` does not know: to be given back.
    pub(crate) fn orphaned(&self, framework_id: &str, alive: impl Fn(&str) -> bool) -> Vec<Resource> {
        let ours = |resource: &&Resource| resource.label(FRAMEWORK_LABEL) == Some(framework_id);
        self.offer.resources.iter().filter(ours).filter(|it| it.label(INSTANCE_LABEL).is_some_and(|id| !alive(id))).cloned().collect()
    }
}

/// The label by which an app says that it may be on agents with GPUs.
const GPU_LABEL: &str = "GPU_SCHEDULING_BEHAVIOR";

fn unrestricted(spec: &Spec) -> bool {
    let labels = match spec {
        Spec::App(app) => &app.labels,
        Spec::Pod(pod) => &pod.labels,
    };
    labels.get(GPU_LABEL).is_some_and(|value| value.eq_ignore_ascii_case("unrestricted"))
}

fn accepted(spec: &Spec, default: AcceptedRoles) -> Vec<String> {
    let said = spec.accepted_resource_roles();
    if !said.is_empty() {
        return said.to_vec();
    }
    if spec.is_resident() {
        return vec!["*".to_owned()];
    }
    match default {
        AcceptedRoles::Any => vec![spec.role().to_owned(), "*".to_owned()],
        AcceptedRoles::Unreserved => vec!["*".to_owned()],
        AcceptedRoles::Reserved => vec![spec.role().to_owned()],
    }
}

struct Need {
    scalars: crate::model::ResourceNeeds,
    ports: Vec<Wanted>,
    is_executor: bool,
}

fn app_needs(app: &App) -> Vec<Need> {
    let ports = if app.is_host_network() {
        app.port_definitions
            .iter()
            .map(|port| Wanted { host: Some(if app.require_ports { port.port } else { 0 }), container: None })
            .collect()
    } else {
        let mappings = app.container.iter().flat_map(|container| &container.port_mappings);
        mappings.map(|mapping| Wanted { host: mapping.host_port, container: Some(mapping.container_port) }).collect()
    };
    let mut needs = vec![Need { scalars: app.resources, ports, is_executor: false }];
    if app.needs() != app.resources {
        let executor = app.executor_resources.unwrap_or(crate::model::ResourceNeeds::EXECUTOR);
        needs.push(Need { scalars: executor, ports: Vec::new(), is_executor: true });
    }
    needs
}

fn pod_needs(pod: &Pod) -> Vec<Need> {
    let host_mode = pod.is_host_network();
    let containers = pod.containers.iter().map(|container| {
        let wanted = |endpoint: &crate::model::pod::Endpoint| Wanted {
            host: endpoint.host_port.or(host_mode.then_some(0)),
            container: if host_mode { None } else { Some(endpoint.container_port.unwrap_or(0)) },
        };
        Need { scalars: container.resources, ports: container.endpoints.iter().map(wanted).collect(), is_executor: false }
    });
    let executor = Need { scalars: pod.executor_resources, ports: Vec::new(), is_executor: true };
    containers.chain([executor]).collect()
}

/// Persistent volumes with where they are mounted, or a pod's names for them.
pub(crate) fn wanted_volumes(spec: &Spec) -> Vec<(String, PersistentVolume)> {
    match spec {
        Spec::App(app) => app
            .volumes()
            .iter()
            .filter_map(|volume| match &volume.kind {
                VolumeKind::Persistent(persistent) => Some((volume.container_path.clone(), persistent.clone())),
                _ => None,
            })
            .collect(),
        Spec::Pod(pod) => pod.persistent_volumes().map(|(name, volume)| (name.to_owned(), volume.clone())).collect(),
    }
}

fn take_held_volumes(pool: &mut Pool, spec: &Spec, held: &Held, found: &mut Match) -> bool {
    for (path, _) in wanted_volumes(spec) {
        let Some(volume) = held.volumes.iter().find(|volume| volume.container_path == path) else { return false };
        let Some(resource) = pool.take_volume(&volume.persistence_id) else { return false };
        found.volumes.push((path, resource));
    }
    found.held = Some(Held { confirmed: true, ..held.clone() });
    true
}

fn make_volumes(pool: &mut Pool, (spec, placement): (&Spec, &Placement), found: &mut Match, ids: &mut IdGen) -> bool {
    let mut held = Held::default();
    for (path, volume) in wanted_volumes(spec) {
        let megabytes = thousandths(f64::from(u32::try_from(volume.size).unwrap_or(u32::MAX)));
        let mut taken = Vec::new();
        let enough = match volume.disk {
            DiskKind::Root => pool.take("disk", megabytes, &mut taken),
            DiskKind::Path => pool.take_disk("PATH", megabytes, None, (&volume, placement), &mut taken),
            DiskKind::Mount => {
                let most = volume.max_size.map(|size| thousandths(f64::from(u32::try_from(size).unwrap_or(u32::MAX))));
                pool.take_disk("MOUNT", megabytes, most, (&volume, placement), &mut taken)
            }
        };
        // A volume is one piece: resources of one role and one disk.
        let [resource] = taken.as_slice() else { return false };
        if !enough {
            return false;
        }
        let persistence_id = format!("{}#{path}#{}", spec.id().safe(), ids.uuid());
        let mut resource = resource.clone();
        let disk = resource.disk.get_or_insert_with(Disk::default);
        disk.persistence = Some((persistence_id.clone(), None));
        disk.container_path = Some(path.clone());
        held.volumes.push(HeldVolume { container_path: path.clone(), persistence_id });
        found.volumes.push((path, resource));
    }
    found.held = Some(held);
    true
}

/// Thousandths of each resource that is reserved for an instance of `spec`. Ports are not told: they go with the task that had them.
pub(crate) fn reserved(spec: &Spec) -> BTreeMap<String, i64> {
    let needs = spec.needs();
    let volumes: u64 = wanted_volumes(spec).iter().map(|(_, volume)| volume.size).sum();
    let volumes = f64::from(u32::try_from(volumes).unwrap_or(u32::MAX));
    [("cpus", needs.cpus), ("mem", needs.mem), ("disk", needs.disk + volumes), ("gpus", f64::from(needs.gpus))]
        .into_iter()
        .map(|(name, amount)| (name.to_owned(), thousandths(amount)))
        .filter(|(_, amount)| *amount > 0)
        .collect()
}

/// Turns what was taken into what is reserved, and says what has to be reserved and made before.
fn reserve(spec: &Spec, principal: Option<&str>, labels: &[(String, Option<String>)], found: &mut Match) {
    let reservation =
        Reservation { role: spec.role().to_owned(), dynamic: true, principal: principal.map(str::to_owned), labels: labels.to_vec() };
    let Match { tasks, executor, volumes, reserve, create, .. } = found;
    let plain = tasks.iter_mut().flat_map(|task| task.resources.iter_mut()).chain(executor.iter_mut());
    for resource in plain {
        resource.reservations.push(reservation.clone());
        reserve.push(resource.clone());
    }
    for (_, resource) in volumes {
        resource.reservations.push(reservation.clone());
        let mut bare = resource.clone();
        if let Some(disk) = &mut bare.disk {
            disk.persistence = None;
            disk.container_path = None;
        }
        bare.disk = bare.disk.filter(|disk| disk.source.is_some());
        reserve.push(bare);
        if let Some(Disk { persistence: Some((_, by)), .. }) = &mut resource.disk {
            *by = principal.map(str::to_owned);
        }
        create.push(resource.clone());
    }
}

/// Whether two values are of one kind; used where pieces are put together.
fn same_piece(one: &Resource, two: &Resource) -> bool {
    one.name == two.name
        && one.reservations == two.reservations
        && one.disk == two.disk
        && one.provider == two.provider
        && matches!(
            (&one.value, &two.value),
            (ResourceValue::Scalar(_), ResourceValue::Scalar(_)) | (ResourceValue::Ranges(_), ResourceValue::Ranges(_))
        )
}

#[cfg(test)]
mod tests;
