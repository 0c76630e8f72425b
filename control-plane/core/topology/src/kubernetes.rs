//! Pods, what owns or selects them, and their volumes: section 6.6 of Scope's rules.

mod apply;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use smallvec::smallvec;

use crate::details::Members;
use crate::flows::Terminal;
use crate::index::{ContainerIndex, Entity, HostIndex, ObjectIndex, Table};
use crate::node::{MetadataRow, MetricRow, NodeId, NodeSummary, Parent, Shape};
use crate::picture;
use crate::projection::Entities;
use crate::report::{Container, Endpoint, KubernetesKind as Kind, KubernetesObject, ProbeId};
use crate::summary::{self, row};
use crate::tables::Tables;
use crate::text::{join, plural, rfc3339};
use crate::topology::Topology;
use crate::view::View;

/// All objects of all clusters.
#[derive(Debug, Default)]
pub(crate) struct ObjectTables {
    pub(crate) rows: Table<ObjectIndex, ObjectRow>,
    by_uid: BTreeMap<Arc<str>, ObjectIndex>,
    by_name: BTreeMap<NameKey, ObjectIndex>,
    /// Who names an object that it is joined to, whether that exists or not.
    naming: BTreeMap<NameKey, BTreeSet<ObjectIndex>>,
    /// Pods by the name of the node that they run on.
    on_node: BTreeSet<(Arc<str>, ObjectIndex)>,
    /// The pod that claims a container, by the container's full id.
    pod_of_container: BTreeMap<Arc<str>, ObjectIndex>,
    described: usize,
}

type NameKey = (Kind, Arc<str>, Arc<str>);

/// An object, or the mention of one by a container or a pod.
#[derive(Debug)]
pub(crate) struct ObjectRow {
    uid: Arc<str>,
    pub(crate) node_id: NodeId,
    /// `None` while only others named it: then it is in no view.
    record: Option<KubernetesObject>,
    owner: Option<ProbeId>,
    epoch: u64,
    /// Of a pod.
    containers: BTreeSet<ContainerIndex>,
    /// Pods that name this as a parent.
    pods: BTreeSet<ObjectIndex>,
    parents: Vec<ObjectIndex>,
    /// Of a service: the only pod that answers for it.
    behind: Option<ObjectIndex>,
    /// Services that this pod alone answers for.
    fronts: BTreeSet<ObjectIndex>,
    /// Its edges to and from volumes, in the view of the pods.
    edges: Vec<(Entity, Entity)>,
}

impl ObjectTables {
    pub(crate) fn find(&self, tables: &Tables, id: &str) -> Option<Entity> {
        if let Some(host) = id.strip_prefix("pseudo:unmanaged:") {
            return tables.host_names.get(host).map(|&host| Entity::Unmanaged(host));
        }
        let (uid, _) = id.rsplit_once(';')?;
        let object = *self.by_uid.get(uid)?;
        (self.rows[object].node_id.as_str() == id).then_some(Entity::Object(object))
    }

    /// The pod of a container, if it is on the map.
    pub(crate) fn pod_of(&self, tables: &Tables, container: ContainerIndex) -> Option<ObjectIndex> {
        tables.containers[container].pod.filter(|&pod| self.is_shown_pod(pod))
    }

    pub(crate) fn is_managed(&self, tables: &Tables, container: ContainerIndex) -> bool {
        self.pod_of(tables, container).is_some()
    }

    /// Who answers for a service.
    pub(crate) fn endpoints(&self, object: ObjectIndex) -> impl Iterator<Item = &Endpoint> {
        self.record(object).into_iter().flat_map(|record| record.endpoints.iter())
    }

    /// The only pod that answers for a service, if it is on the map.
    fn behind(&self, service: ObjectIndex) -> Option<ObjectIndex> {
        self.rows.get(service)?.behind.filter(|&pod| self.is_shown_pod(pod))
    }

    /// Everything that a collector described.
    pub(crate) fn records(&self) -> impl Iterator<Item = (ObjectIndex, &KubernetesObject)> {
        self.rows.iter().filter_map(|(object, row)| Some((object, row.record.as_ref()?)))
    }

    /// Names of all objects of a kind, sorted within each namespace.
    pub(crate) fn names_of(&self, kind: Kind) -> impl Iterator<Item = &Arc<str>> {
        let empty: Arc<str> = "".into();
        self.by_name.range((kind, empty.clone(), empty)..).take_while(move |(key, _)| key.0 == kind).map(|((_, _, name), _)| name)
    }

    /// Namespaces that have pods: from one to the next, however many pods are in each.
    pub(crate) fn namespaces_of_pods(&self) -> Vec<Arc<str>> {
        let mut found: Vec<Arc<str>> = Vec::new();
        let mut from: Arc<str> = "".into();
        while let Some(((Kind::Pod, namespace, _), _)) = self.by_name.range((Kind::Pod, from.clone(), "".into())..).next() {
            if !namespace.is_empty() {
                found.push(namespace.clone());
            }
            from = format!("{namespace}\0").into();
        }
        found
    }

    pub(crate) fn record(&self, object: ObjectIndex) -> Option<&KubernetesObject> {
        self.rows.get(object).and_then(|row| row.record.as_ref())
    }

    /// Who told of an object, and what.
    pub(crate) fn told(&self, object: ObjectIndex) -> Option<(&ProbeId, &KubernetesObject)> {
        let row = self.rows.get(object)?;
        Some((row.owner.as_ref()?, row.record.as_ref()?))
    }

    /// The node of a cluster that has this name: node names are host names.
    pub(crate) fn node_named(&self, name: &Arc<str>) -> Option<ObjectIndex> {
        self.by_name.get(&(Kind::Node, "".into(), name.clone())).copied()
    }

    /// Whether it is a volume, a claim of one, or a class of them.
    pub(crate) fn is_storage(&self, object: ObjectIndex) -> bool {
        let kind = self.record(object).map(|record| record.kind);
        matches!(kind, Some(Kind::PersistentVolume | Kind::PersistentVolumeClaim | Kind::StorageClass))
    }

    fn is_shown_pod(&self, object: ObjectIndex) -> bool {
        self.record(object).is_some_and(|record| record.kind == Kind::Pod && is_shown(record))
    }

    fn parents_in<'a>(&'a self, object: ObjectIndex, wanted: fn(Kind) -> bool) -> impl Iterator<Item = ObjectIndex> + 'a {
        let parents = self.rows.get(object).map(|row| row.parents.as_slice()).unwrap_or_default();
        parents.iter().copied().filter(move |&parent| self.record(parent).is_some_and(|record| wanted(record.kind)))
    }
}

fn is_shown(record: &KubernetesObject) -> bool {
    record.kind != Kind::Pod || !matches!(&*record.state, "Failed" | "deleted")
}

fn is_controller(kind: Kind) -> bool {
    matches!(kind, Kind::Deployment | Kind::DaemonSet | Kind::StatefulSet | Kind::CronJob | Kind::Job)
}

fn is_service(kind: Kind) -> bool {
    kind == Kind::Service
}

/// The view whose nodes are of this kind.
fn view_of(kind: Kind) -> Option<View> {
    match kind {
        Kind::Pod | Kind::PersistentVolume | Kind::PersistentVolumeClaim | Kind::StorageClass => Some(View::Pods),
        Kind::Service => Some(View::Services),
        kind if is_controller(kind) => Some(View::KubeControllers),
        _ => None,
    }
}

/// Scope's tag of a kind; those of three controllers have no underscore.
fn tag(kind: Kind) -> &'static str {
    match kind {
        Kind::Node => "<node>",
        Kind::Namespace => "<namespace>",
        Kind::Pod => "<pod>",
        Kind::Service => "<service>",
        Kind::Deployment => "<deployment>",
        Kind::ReplicaSet => "<replica_set>",
        Kind::DaemonSet => "<daemonset>",
        Kind::StatefulSet => "<statefulset>",
        Kind::Job => "<job>",
        Kind::CronJob => "<cronjob>",
        Kind::PersistentVolume => "<persistent_volume>",
        Kind::PersistentVolumeClaim => "<persistent_volume_claim>",
        Kind::StorageClass => "<storage_class>",
    }
}

/// Which nodes of an orchestrator view an end of a connection belongs to. Without any object these views are empty.
pub(crate) fn project(tables: &Tables, view: View, terminal: Terminal) -> Entities {
    let objects = &tables.kubernetes;
    if objects.described == 0 {
        return Entities::new();
    }
    let in_pod = |pod: ObjectIndex, host: Option<HostIndex>| -> Entities {
        match view {
            View::Pods => smallvec![Entity::Object(pod)],
            View::Services => objects.parents_in(pod, is_service).map(Entity::Object).collect(),
            _ => {
                let controllers: Entities = objects.parents_in(pod, is_controller).map(Entity::Object).collect();
                if controllers.is_empty() { host.map(Entity::Unmanaged).into_iter().collect() } else { controllers }
            }
        }
    };
    let of_container = |container: ContainerIndex| {
        let row = &tables.containers[container];
        match objects.pod_of(tables, container) {
            Some(pod) => in_pod(pod, Some(row.host)),
            None if row.record.is_some() => smallvec![Entity::Unmanaged(row.host)],
            None => Entities::new(),
        }
    };
    match terminal {
        Terminal::InternetIn => smallvec![Entity::InternetIn],
        Terminal::InternetOut => smallvec![Entity::InternetOut],
        Terminal::External(group) => smallvec![Entity::External(group)],
        Terminal::Process(process) => match tables.processes[process].container {
            Some(container) => of_container(container),
            None => smallvec![Entity::Unmanaged(tables.processes[process].host)],
        },
        Terminal::Container(container) => of_container(container),
        Terminal::Object(object) if objects.is_shown_pod(object) => in_pod(object, host_of(tables, object)),
        Terminal::Object(object) if objects.record(object).is_some_and(|it| is_service(it.kind)) => match (view, objects.behind(object)) {
            (View::Services, _) => smallvec![Entity::Object(object)],
            // Of several pods nobody knows which one it was.
            (_, Some(pod)) => in_pod(pod, host_of(tables, pod)),
            (_, None) => Entities::new(),
        },
        Terminal::Object(_) | Terminal::Host(_) => Entities::new(),
    }
}

/// The host that a pod, or the only pod of a service, runs on: node names are host names.
pub(crate) fn host_of(tables: &Tables, object: ObjectIndex) -> Option<HostIndex> {
    let pod = tables.kubernetes.behind(object).unwrap_or(object);
    let record = tables.kubernetes.record(pod).filter(|record| record.kind == Kind::Pod)?;
    tables.host_names.get(&record.node_name).copied()
}

/// Pods and containers below an object.
pub(crate) fn members(tables: &Tables, object: ObjectIndex, members: &mut Members) {
    let Some(row) = tables.kubernetes.rows.get(object) else { return };
    let pods = row.pods.iter().copied().chain([object]).filter(|&pod| tables.kubernetes.is_shown_pod(pod));
    for pod in pods {
        members.pods.insert(pod);
        members.containers.extend(tables.kubernetes.rows[pod].containers.iter());
    }
}

/// Links to a pod and to what owns or selects it, in Scope's order.
pub(crate) fn parents_below(tables: &Tables, pod: ObjectIndex) -> Vec<Parent> {
    let objects = &tables.kubernetes;
    let mut parents: Vec<ObjectIndex> = objects.parents_in(pod, |kind| is_controller(kind) || is_service(kind)).collect();
    parents.sort_by_key(|&parent| (objects.record(parent).map(|record| is_service(record.kind)), parent));
    let chain = std::iter::once(pod).filter(|&pod| objects.is_shown_pod(pod)).chain(parents);
    chain
        .filter_map(|object| {
            let record = objects.record(object)?;
            let topology_id = view_of(record.kind)?.id();
            Some(Parent { id: objects.rows[object].node_id.clone(), label: record.name.clone(), topology_id })
        })
        .collect()
}

/// Addresses that an object is known by.
pub(crate) fn addresses_of(tables: &Tables, object: ObjectIndex) -> &[IpAddr] {
    tables.kubernetes.record(object).map(|record| record.addresses.as_slice()).unwrap_or_default()
}

/// Whether a container counts for its pod, as Scope counted: neither one that has ended, nor a pause container, which only holds namespaces.
pub(crate) fn works(tables: &Tables, container: ContainerIndex) -> bool {
    let record = tables.containers.get(container).and_then(|row| row.record.as_ref());
    record.is_some_and(|record| record.state.runs() && !is_pause(record))
}

/// By the image, whoever carries it, or because the kubelet says so of a container of Docker's.
fn is_pause(container: &Container) -> bool {
    let image = &*container.image_name;
    let name = image.rsplit('/').next().and_then(|name| name.split([':', '@']).next()).unwrap_or_default();
    let is_sandbox = container.labels.get("io.kubernetes.docker.type").is_some_and(|kind| &**kind == "podsandbox");
    is_sandbox || picture::is_pause_image(image) || matches!(name, "pause" | "mirrored-pause")
}

fn working_containers(tables: &Tables, pod: ObjectIndex) -> Vec<ContainerIndex> {
    let containers = tables.kubernetes.rows.get(pod).map(|row| &row.containers).into_iter().flatten().copied();
    containers.filter(|&container| works(tables, container)).collect()
}

/// Volumes and claims that lead from an object, and from the pods below it, by their kinds.
pub(crate) fn volumes_below(map: &Topology, object: ObjectIndex, pods: &BTreeSet<ObjectIndex>) -> (BTreeSet<Entity>, BTreeSet<Entity>) {
    let objects = &map.tables.kubernetes;
    let ends = map.projection(View::Pods).into_iter().flat_map(|view| {
        let from = pods.iter().copied().chain([object]);
        from.filter_map(|from| view.ends(Entity::Object(from)))
    });
    let targets = ends.flat_map(|ends| ends.outgoing.keys().copied());
    let (mut volumes, mut claims) = (BTreeSet::new(), BTreeSet::new());
    for target in targets {
        let Entity::Object(index) = target else { continue };
        match objects.record(index).map(|record| record.kind) {
            Some(Kind::PersistentVolume) => volumes.insert(target),
            Some(Kind::PersistentVolumeClaim) => claims.insert(target),
            _ => false,
        };
    }
    (volumes, claims)
}

/// A pod with one container shows its metrics, and whatever has one pod shows that pod's.
pub(crate) fn metrics(tables: &Tables, object: ObjectIndex, with_samples: bool) -> Vec<MetricRow> {
    let Some(row) = tables.kubernetes.rows.get(object) else { return Vec::new() };
    let mut pods = row.pods.iter().copied().filter(|&pod| tables.kubernetes.is_shown_pod(pod));
    let pod = match (row.record.as_ref().map(|record| record.kind), pods.next(), pods.next()) {
        (Some(Kind::Pod), ..) => object,
        (Some(_), Some(pod), None) => pod,
        _ => return Vec::new(),
    };
    match working_containers(tables, pod)[..] {
        [container] => summary::container_metrics(tables, container, with_samples),
        _ => Vec::new(),
    }
}

/// The node without its adjacency.
pub(crate) fn summarize(tables: &Tables, object: ObjectIndex) -> Option<NodeSummary> {
    let objects = &tables.kubernetes;
    let object_row = objects.rows.get(object)?;
    let record = object_row.record.as_ref()?;
    let pods = object_row.pods.iter().filter(|&&pod| objects.is_shown_pod(pod)).count();
    let of_pods = |kind: &str| -> Arc<str> { format!("{kind} of {}", plural(pods, "pod", "pods")).into() };
    let (shape, label_minor, stack) = match record.kind {
        Kind::Pod => (Shape::Heptagon, plural(working_containers(tables, object).len(), "container", "containers"), false),
        Kind::Service => (Shape::Heptagon, plural(pods, "pod", "pods"), true),
        Kind::Deployment => (Shape::Heptagon, of_pods("Deployment"), true),
        Kind::DaemonSet => (Shape::Pentagon, of_pods("DaemonSet"), true),
        Kind::StatefulSet => (Shape::Octagon, of_pods("StatefulSet"), true),
        Kind::CronJob => (Shape::Triangle, of_pods("CronJob"), true),
        Kind::Job => (Shape::DottedTriangle, of_pods("Job"), true),
        Kind::PersistentVolume => (Shape::Cylinder, "".into(), false),
        Kind::PersistentVolumeClaim => (Shape::DottedCylinder, "".into(), false),
        Kind::StorageClass => (Shape::Sheet, "".into(), false),
        Kind::Node | Kind::Namespace | Kind::ReplicaSet => return None,
    };
    let mut parents = if record.kind == Kind::Pod { parents_below(tables, object).split_off(1) } else { Vec::new() };
    if record.kind == Kind::Pod {
        parents.extend(host_of(tables, object).and_then(|host| summary::host_parent(tables, host)));
    }
    Some(NodeSummary {
        label: record.name.clone(),
        label_minor,
        rank: format!("{}/{}", record.namespace, record.name).into(),
        stack,
        metadata: metadata(tables, object, record, pods),
        parents,
        metrics: metrics(tables, object, false),
        tables: vec![summary::property_list("kubernetes_labels_", "Kubernetes labels", &record.labels)],
        ..NodeSummary::blank(object_row.node_id.clone(), shape)
    })
}

fn metadata(tables: &Tables, object: ObjectIndex, record: &KubernetesObject, pods: usize) -> Vec<MetadataRow> {
    let created = if record.created_at.unix_nanos() == 0 { String::new() } else { rfc3339(record.created_at) };
    let addresses = |list: &[IpAddr]| join(list.iter());
    let text = |id, label, value: &Arc<str>| (id, label, "", value.to_string());
    let number = |id, label, value: u64| (id, label, "number", value.to_string());
    let namespace = text("kubernetes_namespace", "Namespace", &record.namespace);
    let created = ("kubernetes_created", "Created", "datetime", created);
    let kind = |name: &str| ("kubernetes_node_type", "Type", "", name.to_owned());
    let pods = number("pod", "# Pods", pods as u64);
    let first = |list: &[Arc<str>]| list.first().map(Arc::to_string).unwrap_or_default();
    let observed = number("kubernetes_observed_generation", "Observed gen.", record.observed_generation);
    let desired = number("kubernetes_desired_replicas", "Desired replicas", u64::from(record.desired_replicas));
    let class = text("kubernetes_storage_class_name", "Storage class", &record.storage_class);
    let status = text("kubernetes_status", "Status", &record.status);
    let rows = match record.kind {
        Kind::Pod => vec![
            text("kubernetes_state", "State", &record.state),
            ("kubernetes_ip", "IP", "ip", addresses(&record.addresses)),
            number("container", "# Containers", working_containers(tables, object).len() as u64),
            namespace,
            created,
            number("kubernetes_restart_count", "Restart #", u64::from(record.restart_count)),
        ],
        Kind::Service => vec![
            namespace,
            created,
            ("kubernetes_public_ip", "Public IP", "ip", addresses(&record.public_addresses)),
            ("kubernetes_ip", "Internal IP", "ip", addresses(&record.addresses)),
            pods,
            text("kubernetes_type", "Type", &record.service_type),
            ("kubernetes_ports", "Ports", "", record.ports.iter().map(|it| &**it).collect::<Vec<_>>().join(",")),
        ],
        Kind::Deployment => {
            vec![kind("Deployment"), namespace, created, observed, desired, pods, text("kubernetes_strategy", "Strategy", &record.strategy)]
        }
        Kind::StatefulSet => vec![kind("StatefulSet"), namespace, created, observed, desired, pods],
        Kind::DaemonSet => vec![kind("DaemonSet"), namespace, created, desired, pods],
        Kind::CronJob => vec![
            kind("CronJob"),
            namespace,
            created,
            text("kubernetes_schedule", "Schedule", &record.schedule),
            ("kubernetes_last_scheduled", "Last scheduled", "datetime", record.last_scheduled_at.map(rfc3339).unwrap_or_default()),
            ("kubernetes_suspended", "Suspended", "", record.suspended.to_string()),
            number("kubernetes_active_jobs", "# Jobs", u64::from(record.active_jobs)),
            pods,
        ],
        Kind::Job => vec![kind("Job"), text("kubernetes_name", "Name", &record.name), namespace, created, pods],
        Kind::PersistentVolume => vec![
            kind("PersistentVolume"),
            ("kubernetes_volume_claim", "Volume claim", "", first(&record.volume_names)),
            class,
            ("kubernetes_access_modes", "Access modes", "", join(record.access_modes.iter())),
            status,
            text("kubernetes_storage_driver", "Storage driver", &record.storage_driver),
        ],
        Kind::PersistentVolumeClaim => vec![
            kind("PersistentVolumeClaim"),
            namespace,
            status,
            ("kubernetes_volume_name", "Volume", "", first(&record.volume_names)),
            class,
            text("kubernetes_volume_capacity", "Capacity", &record.capacity),
        ],
        Kind::StorageClass => vec![
            kind("StorageClass"),
            text("kubernetes_name", "Name", &record.name),
            text("kubernetes_provisioner", "Provisioner", &record.storage_driver),
        ],
        Kind::Node | Kind::Namespace | Kind::ReplicaSet => Vec::new(),
    };
    // As Scope's probes numbered them: what has a kind begins with it, and volumes have a gap.
    let first = if matches!(record.kind, Kind::Pod | Kind::Service) { 2_u32 } else { 1 };
    let gap = |at: u32| if record.kind == Kind::PersistentVolume && at > 3 { at + 1 } else { at };
    let numbered = rows.into_iter().zip((first..).map(gap));
    numbered.filter_map(|((id, label, data_type, value), priority)| row(id, label, data_type, f64::from(priority), value)).collect()
}
