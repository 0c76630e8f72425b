//! Kubernetes objects.

use std::net::IpAddr;

use proto::probe::v1 as wire;
use topology::{Endpoint, KubernetesKind, KubernetesObject};

use super::fields::{each, id, optional_id, port, written_address};
use super::{Checked, Converter, Fault, NAME_MAX};

/// Most endpoints of a service that are kept.
const ENDPOINTS_MAX: usize = 5_000;

impl Converter {
    pub(super) fn kubernetes_object(&mut self, object: wire::KubernetesObject) -> Checked<KubernetesObject> {
        let names = |this: &mut Self, names: Vec<String>| names.into_iter().map(|it| this.text(it, NAME_MAX)).collect();
        Ok(KubernetesObject {
            kind: kubernetes_kind(object.kind)?,
            uid: id("uid", &object.uid)?,
            name: self.text(object.name, NAME_MAX),
            namespace: self.text(object.namespace, NAME_MAX),
            created_at: self.time(object.created_at_unix_nanos),
            labels: self.texts(object.labels),
            parents: each("parents", object.parents, |it| id("uid", &it))?,
            state: self.text(object.state, NAME_MAX),
            addresses: each("addresses", object.addresses, |it| written_address("address", &it))?,
            public_addresses: self.addresses_among(object.public_addresses),
            node_name: self.text(object.node_name, NAME_MAX),
            host_network: object.host_network,
            restart_count: object.restart_count,
            service_type: self.text(object.r#type, NAME_MAX),
            ports: names(self, object.ports),
            observed_generation: object.observed_generation,
            desired_replicas: object.desired_replicas,
            strategy: self.text(object.strategy, NAME_MAX),
            schedule: self.text(object.schedule, NAME_MAX),
            last_scheduled_at: self.optional_time(object.last_scheduled_unix_nanos),
            suspended: object.suspended,
            active_jobs: object.active_jobs,
            status: self.text(object.status, NAME_MAX),
            storage_class: self.text(object.storage_class, NAME_MAX),
            storage_driver: self.text(object.storage_driver, NAME_MAX),
            capacity: self.text(object.capacity, NAME_MAX),
            access_modes: names(self, object.access_modes),
            volume_names: names(self, object.volume_names),
            container_ids: each("container_ids", object.container_ids, |it| id("id", &it))?,
            endpoints: {
                let endpoints = self.first(object.endpoints, ENDPOINTS_MAX).collect();
                each("endpoints", endpoints, |it| self.endpoint(it))?
            },
        })
    }

    /// Load balancers may have names in place of addresses, of which the map has no use.
    pub(super) fn addresses_among(&mut self, texts: Vec<String>) -> Vec<IpAddr> {
        let all = texts.len();
        let addresses: Vec<IpAddr> = texts.iter().filter_map(|text| text.parse().ok()).map(|it: IpAddr| it.to_canonical()).collect();
        self.repairs.names_left_out += (all - addresses.len()) as u64;
        addresses
    }

    fn endpoint(&mut self, endpoint: wire::kubernetes_object::Endpoint) -> Checked<Endpoint> {
        Ok(Endpoint {
            address: written_address("address", &endpoint.address)?,
            port: port("port", endpoint.port)?,
            protocol: self.text(endpoint.protocol, 16),
            ready: endpoint.ready,
            target_uid: optional_id("target_uid", &endpoint.target_uid)?,
        })
    }
}

fn kubernetes_kind(kind: i32) -> Checked<KubernetesKind> {
    use wire::kubernetes_object::Kind;

    match Kind::try_from(kind) {
        Ok(Kind::Node) => Ok(KubernetesKind::Node),
        Ok(Kind::Namespace) => Ok(KubernetesKind::Namespace),
        Ok(Kind::Pod) => Ok(KubernetesKind::Pod),
        Ok(Kind::Service) => Ok(KubernetesKind::Service),
        Ok(Kind::Deployment) => Ok(KubernetesKind::Deployment),
        Ok(Kind::ReplicaSet) => Ok(KubernetesKind::ReplicaSet),
        Ok(Kind::DaemonSet) => Ok(KubernetesKind::DaemonSet),
        Ok(Kind::StatefulSet) => Ok(KubernetesKind::StatefulSet),
        Ok(Kind::Job) => Ok(KubernetesKind::Job),
        Ok(Kind::CronJob) => Ok(KubernetesKind::CronJob),
        Ok(Kind::PersistentVolume) => Ok(KubernetesKind::PersistentVolume),
        Ok(Kind::PersistentVolumeClaim) => Ok(KubernetesKind::PersistentVolumeClaim),
        Ok(Kind::StorageClass) => Ok(KubernetesKind::StorageClass),
        Ok(Kind::Unspecified) | Err(_) => Err(Fault::malformed(format!("kind is {kind}"))),
    }
}
