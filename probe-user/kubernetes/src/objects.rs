//! What is kept of an object, and how the stream says it.

use std::net::IpAddr;
use std::sync::Arc;

use proto::probe::v1::KubernetesObject;

use crate::kind::Kind;
use crate::selector::{Labels, Selector};

/// The id of an object on the stream: `metadata.uid`, and for static pods `kubernetes.io/config.hash`.
pub type Uid = Arc<str>;

/// Of an object, what a map shows and what relations follow from. Everything else is dropped while reading.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// What it is.
    pub kind: Kind,
    /// Its id on the stream.
    pub uid: Uid,
    /// `metadata.name`.
    pub name: Box<str>,
    /// `metadata.namespace`; empty for objects without one.
    pub namespace: Box<str>,
    /// `metadata.creationTimestamp`, Unix nanoseconds; 0 when unknown.
    pub created_at_unix_nanos: u64,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `metadata.ownerReferences`, those of controllers.
    pub owners: Box<[Owner]>,
    /// What it selects pods by; `None` when it selects none.
    pub selector: Option<Selector>,
    /// What only its kind has.
    pub details: Details,
    /// Something of it was longer than may be kept.
    pub cut: bool,
}

/// One owner reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// What owns.
    pub kind: Kind,
    /// Its uid.
    pub uid: Uid,
}

/// What only some kinds have.
#[derive(Clone, Debug, PartialEq)]
pub enum Details {
    /// Nothing more.
    None,
    /// Of a pod.
    Pod(Box<PodDetails>),
    /// Of a service.
    Service(Box<ServiceDetails>),
    /// Of deployments, replica sets, daemon sets and stateful sets.
    Controller(ControllerDetails),
    /// Of a cron job.
    CronJob(CronJobDetails),
    /// Of a job.
    Job(JobDetails),
    /// Of volumes, claims and classes.
    Storage(Box<StorageDetails>),
    /// Of a node.
    Node(Box<NodeDetails>),
    /// Of a namespace: its phase.
    Namespace(Box<str>),
    /// Of an endpoint slice.
    Endpoints(Box<EndpointDetails>),
}

/// See the fields of the same names in the stream's `KubernetesObject`.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the stream's .proto file documents the fields of these names")]
pub struct PodDetails {
    pub state: Box<str>,
    pub addresses: Vec<Box<str>>,
    pub node_name: Box<str>,
    pub host_network: bool,
    pub restart_count: u32,
    pub claims: Vec<Box<str>>,
    pub container_ids: Vec<Box<str>>,
}

/// See the fields of the same names in the stream's `KubernetesObject`.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the stream's .proto file documents the fields of these names")]
pub struct ServiceDetails {
    pub kind: Box<str>,
    pub addresses: Vec<Box<str>>,
    pub public_addresses: Vec<Box<str>>,
    pub ports: Vec<Box<str>>,
}

/// See the fields of the same names in the stream's `KubernetesObject`.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the stream's .proto file documents the fields of these names")]
pub struct ControllerDetails {
    pub observed_generation: u64,
    pub desired_replicas: u32,
    pub strategy: Box<str>,
}

/// See the fields of the same names in the stream's `KubernetesObject`.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the stream's .proto file documents the fields of these names")]
pub struct CronJobDetails {
    pub schedule: Box<str>,
    pub last_scheduled_unix_nanos: u64,
    pub suspended: bool,
    pub active_jobs: u32,
}

/// See the fields of the same names in the stream's `KubernetesObject`.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the stream's .proto file documents the fields of these names")]
pub struct JobDetails {
    pub state: Box<str>,
    pub suspended: bool,
    pub active_jobs: u32,
}

/// See the fields of the same names in the stream's `KubernetesObject`.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the stream's .proto file documents the fields of these names")]
pub struct NodeDetails {
    pub state: Box<str>,
    pub addresses: Vec<Box<str>>,
    pub public_addresses: Vec<Box<str>>,
}

/// Who answers for a service: each of the addresses behind each of the ports.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndpointDetails {
    /// Name of the service, in the slice's namespace; empty when it says none.
    pub service: Box<str>,
    /// Empty when it names none: then the port is unknown.
    pub ports: Box<[(u16, Transport)]>,
    /// In the order of the slice.
    pub targets: Box<[EndpointTarget]>,
}

/// One address of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointTarget {
    /// Where.
    pub address: IpAddr,
    /// Whether it may be sent to.
    pub ready: bool,
    /// The pod; `None` when it is none.
    pub pod: Option<Uid>,
}

/// What a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say all")]
pub enum Transport {
    Tcp,
    Udp,
    Sctp,
}

impl Transport {
    /// As the API writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

/// See the fields of the same names in the stream's `KubernetesObject`.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the stream's .proto file documents the fields of these names")]
pub struct StorageDetails {
    pub status: Box<str>,
    pub storage_class: Box<str>,
    pub storage_driver: Box<str>,
    pub capacity: Box<str>,
    pub access_modes: Vec<Box<str>>,
    /// The other half of a bound pair: a volume's claim, a claim's volume; empty when there is none.
    pub bound_to: Box<str>,
}

impl Facts {
    /// As the stream says it, with `parents` resolved. Endpoints of services are in other objects, and not in this.
    pub fn object(&self, parents: &[Uid]) -> KubernetesObject {
        let mut object = KubernetesObject {
            kind: self.kind.on_the_stream().unwrap_or_default().into(),
            uid: self.uid.to_string(),
            name: self.name.to_string(),
            namespace: self.namespace.to_string(),
            created_at_unix_nanos: self.created_at_unix_nanos,
            labels: self.labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            parents: parents.iter().map(|uid| uid.to_string()).collect(),
            ..Default::default()
        };
        match &self.details {
            Details::None | Details::Endpoints(_) => {}
            Details::Namespace(phase) => object.state = phase.to_string(),
            Details::Node(node) => {
                object.state = node.state.to_string();
                object.addresses = strings(&node.addresses);
                object.public_addresses = strings(&node.public_addresses);
            }
            Details::Job(job) => {
                object.state = job.state.to_string();
                object.suspended = job.suspended;
                object.active_jobs = job.active_jobs;
            }
            Details::Pod(pod) => {
                object.state = pod.state.to_string();
                object.addresses = strings(&pod.addresses);
                object.node_name = pod.node_name.to_string();
                object.host_network = pod.host_network;
                object.restart_count = pod.restart_count;
                object.volume_names = strings(&pod.claims);
                object.container_ids = strings(&pod.container_ids);
            }
            Details::Service(service) => {
                object.r#type = service.kind.to_string();
                object.addresses = strings(&service.addresses);
                object.public_addresses = strings(&service.public_addresses);
                object.ports = strings(&service.ports);
            }
            Details::Controller(controller) => {
                object.observed_generation = controller.observed_generation;
                object.desired_replicas = controller.desired_replicas;
                object.strategy = controller.strategy.to_string();
            }
            Details::CronJob(cron_job) => {
                object.schedule = cron_job.schedule.to_string();
                object.last_scheduled_unix_nanos = cron_job.last_scheduled_unix_nanos;
                object.suspended = cron_job.suspended;
                object.active_jobs = cron_job.active_jobs;
            }
            Details::Storage(storage) => {
                object.status = storage.status.to_string();
                object.storage_class = storage.storage_class.to_string();
                object.storage_driver = storage.storage_driver.to_string();
                object.capacity = storage.capacity.to_string();
                object.access_modes = strings(&storage.access_modes);
                if !storage.bound_to.is_empty() {
                    object.volume_names = vec![storage.bound_to.to_string()];
                }
            }
        }
        object
    }
}

fn strings(these: &[Box<str>]) -> Vec<String> {
    these.iter().map(|one| one.to_string()).collect()
}
