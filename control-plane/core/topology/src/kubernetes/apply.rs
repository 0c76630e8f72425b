//! What a collector reports of objects is put into the tables, with all that hangs on it: names, addresses, owners and containers.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::{NameKey, ObjectRow, is_service, is_shown, tag, view_of};
use crate::index::{ContainerIndex, Entity, Index as _, ObjectIndex};
use crate::report::{KubernetesKind as Kind, KubernetesObject, ProbeId, Report};
use crate::topology::Topology;
use crate::view::View;

impl Topology {
    /// Puts what a cluster's collector says on the map; it can speak of nothing else.
    pub(crate) fn apply_cluster(&mut self, probe: &ProbeId, epoch: u64, report: Report) -> u64 {
        let foreign = report.processes.len() + report.containers.len() + report.flows.len() + report.images.len();
        let foreign = foreign + report.listeners.len() + report.resolved_addresses.len() + report.unix_flows.len();
        let mut refused = foreign as u64 + u64::from(report.host.is_some());
        for object in report.kubernetes {
            refused += u64::from(!self.apply_object(probe, epoch, object));
        }
        for uid in report.kubernetes_gone {
            let object = self.tables.kubernetes.by_uid.get(&uid).copied();
            let own = object.filter(|&object| self.tables.kubernetes.rows[object].owner.as_ref() == Some(probe));
            own.into_iter().for_each(|object| self.object_gone(object));
        }
        refused
    }

    pub(crate) fn sweep_cluster(&mut self, probe: &ProbeId, epoch: u64) {
        let objects = self.probes.get(probe).map(|row| row.objects.clone()).unwrap_or_default();
        for object in objects {
            if self.tables.kubernetes.rows.get(object).is_some_and(|row| row.epoch != epoch) {
                self.object_gone(object);
            }
        }
    }

    fn mention_object(&mut self, uid: &Arc<str>, kind: Kind) -> ObjectIndex {
        let objects = &mut self.tables.kubernetes;
        if let Some(&object) = objects.by_uid.get(uid) {
            return object;
        }
        let object = objects.rows.insert(ObjectRow {
            uid: uid.clone(),
            node_id: format!("{uid};{}", tag(kind)).into(),
            record: None,
            owner: None,
            epoch: 0,
            containers: BTreeSet::new(),
            pods: BTreeSet::new(),
            parents: Vec::new(),
            behind: None,
            fronts: BTreeSet::new(),
            edges: Vec::new(),
        });
        objects.by_uid.insert(uid.clone(), object);
        object
    }

    fn forget_object_if_unused(&mut self, object: ObjectIndex) {
        let objects = &mut self.tables.kubernetes;
        let Some(row) = objects.rows.get(object) else { return };
        if row.record.is_none() && row.containers.is_empty() && row.pods.is_empty() && row.fronts.is_empty() {
            let uid = row.uid.clone();
            objects.by_uid.remove(&uid);
            objects.rows.remove(object);
        }
    }

    fn apply_object(&mut self, probe: &ProbeId, epoch: u64, record: KubernetesObject) -> bool {
        let Some(collector) = self.probes.get(probe) else { return false };
        let is_full = collector.objects.len() >= self.config.limits.objects;
        let object = self.mention_object(&record.uid, record.kind);
        let row = &self.tables.kubernetes.rows[object];
        if row.owner.as_ref().is_some_and(|owner| owner != probe) {
            return false;
        }
        if row.record.is_none() && is_full {
            self.forget_object_if_unused(object);
            return false;
        }
        // An object's kind is part of its id, and a mention only guessed it.
        if row.record.as_ref().is_some_and(|old| old.kind != record.kind) {
            self.object_gone(object);
            return self.apply_object(probe, epoch, record);
        }
        let row = &mut self.tables.kubernetes.rows[object];
        row.node_id = format!("{};{}", record.uid, tag(record.kind)).into();
        row.owner = Some(probe.clone());
        row.epoch = epoch;
        if row.record.as_ref() != Some(&record) {
            self.describe(object, Some(record));
        }
        if let Some(collector) = self.probes.get_mut(probe) {
            collector.objects.insert(object);
        }
        true
    }

    pub(crate) fn object_gone(&mut self, object: ObjectIndex) {
        let Some(row) = self.tables.kubernetes.rows.get_mut(object) else { return };
        if let Some(collector) = row.owner.take().and_then(|owner| self.probes.get_mut(&owner)) {
            collector.objects.remove(&object);
        }
        self.describe(object, None);
        self.forget_object_if_unused(object);
    }

    /// Replaces what is known of an object, and everything that follows from it.
    fn describe(&mut self, object: ObjectIndex, record: Option<KubernetesObject>) {
        let old = std::mem::replace(&mut self.tables.kubernetes.rows[object].record, record.clone());
        let before = self.tables.kubernetes.described;
        let after = before + usize::from(record.is_some()) - usize::from(old.is_some());
        self.tables.kubernetes.described = after;
        if (before == 0) != (after == 0) {
            self.flows.unsettle_all();
            let unix_flows = self.tables.hosts.iter().flat_map(|(host, row)| row.unix_flows.ids().map(move |id| (host, id)));
            self.unsettled_unix.extend(unix_flows);
        }
        if let Some(kind) = record.as_ref().or(old.as_ref()).map(|it| it.kind)
            && let Some(view) = view_of(kind)
        {
            self.set_present(view, Entity::Object(object), record.as_ref().is_some_and(is_shown));
            self.touch(view, Entity::Object(object));
        }
        self.object_addresses(object, old.as_ref(), record.as_ref());
        self.object_parents(object, record.as_ref());
        self.object_behind(object, record.as_ref());
        self.object_node(object, old.as_ref(), record.as_ref());
        self.claim_containers(object, old.as_ref(), record.as_ref());
        self.object_names(object, old.as_ref(), record.as_ref());
        self.touch_below(object);
    }

    fn object_addresses(&mut self, object: ObjectIndex, old: Option<&KubernetesObject>, new: Option<&KubernetesObject>) {
        let addresses = |record: Option<&KubernetesObject>| -> BTreeSet<IpAddr> {
            // A pod in the host's network has the host's addresses, which are no sign of it.
            let record = record.filter(|it| is_service(it.kind) || (it.kind == Kind::Pod && !it.host_network && is_shown(it)));
            record.into_iter().flat_map(|it| it.addresses.iter().copied()).collect()
        };
        let (before, after) = (addresses(old), addresses(new));
        for &address in before.difference(&after) {
            self.addresses.remove_object(address, object);
        }
        for &address in after.difference(&before) {
            self.addresses.add_object(address, object);
        }
        for &address in before.union(&after) {
            self.flows.unsettle_addresses(address, address);
        }
    }

    fn object_parents(&mut self, object: ObjectIndex, record: Option<&KubernetesObject>) {
        // Which kind a parent is will be known when it is described.
        let wanted: Vec<Arc<str>> = record.map(|it| it.parents.clone()).unwrap_or_default();
        let parents: Vec<ObjectIndex> = wanted.iter().map(|uid| self.mention_object(uid, Kind::Service)).collect();
        let old = std::mem::replace(&mut self.tables.kubernetes.rows[object].parents, parents.clone());
        for &parent in &parents {
            self.tables.kubernetes.rows[parent].pods.insert(object);
        }
        for &parent in old.iter().filter(|parent| !parents.contains(parent)) {
            if let Some(row) = self.tables.kubernetes.rows.get_mut(parent) {
                row.pods.remove(&object);
            }
            self.touch_object(parent);
            // An object that names itself is still being worked on.
            if parent != object {
                self.forget_object_if_unused(parent);
            }
        }
        parents.into_iter().for_each(|parent| self.touch_object(parent));
    }

    /// The only pod behind a service: its address leads there and nowhere else. Endpoints that a collector gives anything else lead nowhere.
    fn object_behind(&mut self, object: ObjectIndex, record: Option<&KubernetesObject>) {
        let ready = record.filter(|record| is_service(record.kind)).into_iter().flat_map(|it| it.endpoints.iter()).filter(|it| it.ready);
        let pods: BTreeSet<Option<&Arc<str>>> = ready.map(|it| it.target_uid.as_ref()).collect();
        let sole =
            pods.first().filter(|_| pods.len() == 1).copied().flatten().filter(|uid| **uid != self.tables.kubernetes.rows[object].uid);
        let behind = sole.cloned().map(|uid| self.mention_object(&uid, Kind::Pod));
        let old = std::mem::replace(&mut self.tables.kubernetes.rows[object].behind, behind);
        if old == behind {
            return;
        }
        if let Some(pod) = behind {
            self.tables.kubernetes.rows[pod].fronts.insert(object);
        }
        if let Some(pod) = old {
            if let Some(row) = self.tables.kubernetes.rows.get_mut(pod) {
                row.fronts.remove(&object);
            }
            self.forget_object_if_unused(pod);
        }
    }

    fn object_node(&mut self, object: ObjectIndex, old: Option<&KubernetesObject>, new: Option<&KubernetesObject>) {
        let node =
            |it: Option<&KubernetesObject>| it.filter(|it| it.kind == Kind::Pod && !it.node_name.is_empty()).map(|it| it.node_name.clone());
        let (before, after) = (node(old), node(new));
        if before != after {
            let on_node = &mut self.tables.kubernetes.on_node;
            before.into_iter().for_each(|name| {
                on_node.remove(&(name, object));
            });
            on_node.extend(after.map(|name| (name, object)));
        }
    }

    /// A host has come or gone: pods that run there lead to it, or no longer.
    pub(crate) fn node_changed(&mut self, name: &Arc<str>) {
        let from = (name.clone(), ObjectIndex::from_row(0));
        let pods = self.tables.kubernetes.on_node.range(from..).take_while(|(found, _)| found == name).map(|&(_, pod)| pod);
        for pod in pods.collect::<Vec<_>>() {
            self.touch_object(pod);
            self.unsettle_reached(pod);
        }
    }

    /// What leads to an object by its address, or by that of a service that it alone answers for.
    fn unsettle_reached(&mut self, object: ObjectIndex) {
        let Some(row) = self.tables.kubernetes.rows.get(object) else { return };
        let reached = row.fronts.iter().copied().chain([object]).filter_map(|it| self.tables.kubernetes.record(it));
        let addresses: Vec<IpAddr> = reached.flat_map(|it| it.addresses.iter().copied()).collect();
        addresses.into_iter().for_each(|address| self.flows.unsettle_addresses(address, address));
    }

    fn claim_containers(&mut self, object: ObjectIndex, old: Option<&KubernetesObject>, new: Option<&KubernetesObject>) {
        let ids = |record: Option<&KubernetesObject>| -> BTreeSet<Arc<str>> {
            record.filter(|it| it.kind == Kind::Pod).into_iter().flat_map(|it| it.container_ids.iter().cloned()).collect()
        };
        let (before, after) = (ids(old), ids(new));
        for id in before.difference(&after) {
            if self.tables.kubernetes.pod_of_container.get(id) == Some(&object) {
                self.tables.kubernetes.pod_of_container.remove(id);
            }
        }
        for id in after.difference(&before) {
            self.tables.kubernetes.pod_of_container.insert(id.clone(), object);
        }
        for id in before.symmetric_difference(&after) {
            if let Some(&container) = self.tables.container_ids.get(id) {
                self.find_pod(container);
            }
        }
    }

    /// The pod of a container, by the label that every kubelet sets, or because the pod names the container.
    pub(crate) fn find_pod(&mut self, container: ContainerIndex) {
        let row = &self.tables.containers[container];
        let label = row.record.as_ref().and_then(|record| record.labels.get("io.kubernetes.pod.uid")).cloned();
        let claimed = row.record.as_ref().and_then(|_| self.tables.kubernetes.pod_of_container.get(&row.id)).copied();
        let pod = match label {
            Some(uid) => Some(self.mention_object(&uid, Kind::Pod)),
            None => claimed,
        };
        let old = std::mem::replace(&mut self.tables.containers[container].pod, pod);
        if old == pod {
            return;
        }
        if let Some(pod) = pod {
            self.tables.kubernetes.rows[pod].containers.insert(container);
            self.touch_object(pod);
        }
        if let Some(old) = old {
            if let Some(row) = self.tables.kubernetes.rows.get_mut(old) {
                row.containers.remove(&container);
            }
            self.touch_object(old);
            self.forget_object_if_unused(old);
        }
        // It links to its pod, and to what is above that.
        self.touch(View::Containers, Entity::Container(container));
        self.unsettle_container(container);
    }

    fn touch_object(&mut self, object: ObjectIndex) {
        let kind = self.tables.kubernetes.record(object).map(|record| record.kind);
        if let Some(view) = kind.and_then(view_of) {
            self.touch(view, Entity::Object(object));
        }
    }

    /// A pod shows a metric of its container, and a service or controller that of its pod.
    pub(crate) fn touch_pod_of(&mut self, container: ContainerIndex, only_numbers: bool) {
        let Some(pod) = self.tables.containers[container].pod else { return };
        let parents = self.tables.kubernetes.rows.get(pod).map(|row| row.parents.clone()).unwrap_or_default();
        for object in std::iter::once(pod).chain(parents) {
            let kind = self.tables.kubernetes.record(object).map(|record| record.kind);
            match kind.and_then(view_of) {
                Some(view) if only_numbers => self.touch_numbers(view, Entity::Object(object)),
                Some(view) => self.touch(view, Entity::Object(object)),
                None => {}
            }
        }
    }

    /// Whatever is below an object leads elsewhere in some view, and links to it by another name.
    fn touch_below(&mut self, object: ObjectIndex) {
        // With its last container an object that is no longer described is forgotten.
        let Some(row) = self.tables.kubernetes.rows.get(object) else { return };
        let pods: Vec<ObjectIndex> = row.pods.iter().copied().chain([object]).collect();
        for pod in pods {
            self.touch_object(pod);
            self.unsettle_reached(pod);
            let containers: Vec<ContainerIndex> = self.tables.kubernetes.rows[pod].containers.iter().copied().collect();
            for container in containers {
                self.unsettle_container(container);
                self.touch(View::Containers, Entity::Container(container));
            }
        }
    }

    // Volumes.

    fn object_names(&mut self, object: ObjectIndex, old: Option<&KubernetesObject>, new: Option<&KubernetesObject>) {
        let name = |it: &KubernetesObject| (it.kind, it.namespace.clone(), it.name.clone());
        let mut neighbours = BTreeSet::from([object]);
        for key in old.into_iter().flat_map(joins).map(|(key, _)| key) {
            if let Some(naming) = self.tables.kubernetes.naming.get_mut(&key) {
                naming.remove(&object);
                if naming.is_empty() {
                    self.tables.kubernetes.naming.remove(&key);
                }
            }
        }
        for key in new.into_iter().flat_map(joins).map(|(key, _)| key) {
            self.tables.kubernetes.naming.entry(key).or_default().insert(object);
        }
        for key in old.iter().chain(new.iter()).map(|it| name(it)) {
            neighbours.extend(self.tables.kubernetes.naming.get(&key).into_iter().flatten());
            if self.tables.kubernetes.by_name.get(&key) == Some(&object) {
                self.tables.kubernetes.by_name.remove(&key);
            }
        }
        if let Some(new) = new {
            self.tables.kubernetes.by_name.insert(name(new), object);
        }
        neighbours.into_iter().for_each(|it| self.join_volumes(it));
    }

    fn join_volumes(&mut self, object: ObjectIndex) {
        let objects = &self.tables.kubernetes;
        let record = objects.record(object).filter(|record| is_shown(record));
        let joined = record.into_iter().flat_map(joins).filter_map(|(key, leads_here)| {
            let other = Entity::Object(*objects.by_name.get(&key)?);
            let own = Entity::Object(object);
            Some(if leads_here { (other, own) } else { (own, other) })
        });
        let edges: Vec<(Entity, Entity)> = joined.collect();
        let Some(row) = self.tables.kubernetes.rows.get_mut(object) else { return };
        let old = std::mem::replace(&mut row.edges, edges.clone());
        let Some(place) = crate::projection::place(View::Pods) else { return };
        edges.into_iter().for_each(|(from, to)| self.projections[place].add_edge(from, to));
        old.into_iter().for_each(|(from, to)| self.projections[place].remove_edge(from, to));
    }
}

/// What an object is joined to by name: pod -> claim, claim -> volume, and class -> claim, which leads to the one that names it.
fn joins(record: &KubernetesObject) -> Vec<(NameKey, bool)> {
    let none: Arc<str> = "".into();
    let named = record.volume_names.iter().filter(|name| !name.is_empty());
    match record.kind {
        Kind::Pod => named.map(|name| ((Kind::PersistentVolumeClaim, record.namespace.clone(), name.clone()), false)).collect(),
        Kind::PersistentVolumeClaim => {
            let volumes = named.map(|name| ((Kind::PersistentVolume, none.clone(), name.clone()), false));
            let class =
                (!record.storage_class.is_empty()).then(|| ((Kind::StorageClass, none.clone(), record.storage_class.clone()), true));
            volumes.chain(class).collect()
        }
        _ => Vec::new(),
    }
}
