//! What the collector of a cluster says.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use base::Timestamp;

/// One object of the Kubernetes API, cut down to what a map shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KubernetesObject {
    /// What it is.
    pub kind: KubernetesKind,
    /// Its uid; for static pods the hash of their configuration.
    pub uid: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its namespace; empty when it has none.
    pub namespace: Arc<str>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Labels.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// Uids of what selects or owns it.
    pub parents: Vec<Arc<str>>,
    /// Pods: phase or reason, as kubectl shows it.
    pub state: Arc<str>,
    /// Pods and services: addresses inside the cluster.
    pub addresses: Vec<IpAddr>,
    /// Services: addresses outside.
    pub public_addresses: Vec<IpAddr>,
    /// Pods: the node it runs on.
    pub node_name: Arc<str>,
    /// Pods: shares the host's network.
    pub host_network: bool,
    /// Pods: restarts of its containers.
    pub restart_count: u32,
    /// Services: `ClusterIP` and so on.
    pub service_type: Arc<str>,
    /// Services: ports as text.
    pub ports: Vec<Arc<str>>,
    /// Controllers.
    pub observed_generation: u64,
    /// Controllers.
    pub desired_replicas: u32,
    /// Deployments.
    pub strategy: Arc<str>,
    /// Cron jobs.
    pub schedule: Arc<str>,
    /// Cron jobs.
    pub last_scheduled_at: Option<Timestamp>,
    /// Cron jobs.
    pub suspended: bool,
    /// Cron jobs.
    pub active_jobs: u32,
    /// Volumes and claims.
    pub status: Arc<str>,
    /// Volumes and claims: name of their class.
    pub storage_class: Arc<str>,
    /// Volumes: driver; classes: provisioner.
    pub storage_driver: Arc<str>,
    /// Claims.
    pub capacity: Arc<str>,
    /// Volumes and claims.
    pub access_modes: Vec<Arc<str>>,
    /// Volumes: name of the claim; claims: name of the volume; pods: names of their claims.
    pub volume_names: Vec<Arc<str>>,
    /// Pods: full ids of their containers.
    pub container_ids: Vec<Arc<str>>,
    /// Services: who answers for them.
    pub endpoints: Vec<Endpoint>,
}

/// One address behind one port of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Where.
    pub address: IpAddr,
    /// On which port.
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Arc<str>,
    /// Whether it takes traffic.
    pub ready: bool,
    /// Uid of the pod, if it is one.
    pub target_uid: Option<Arc<str>>,
}

/// Kinds of Kubernetes objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KubernetesKind {
    /// A machine of the cluster.
    Node,
    /// A namespace.
    Namespace,
    /// A pod.
    #[default]
    Pod,
    /// A service.
    Service,
    /// A deployment.
    Deployment,
    /// A replica set.
    ReplicaSet,
    /// A daemon set.
    DaemonSet,
    /// A stateful set.
    StatefulSet,
    /// A job.
    Job,
    /// A cron job.
    CronJob,
    /// A persistent volume.
    PersistentVolume,
    /// A claim of one.
    PersistentVolumeClaim,
    /// A class of them.
    StorageClass,
}
