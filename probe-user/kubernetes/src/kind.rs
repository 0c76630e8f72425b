//! The kinds that are collected.

use proto::probe::v1::kubernetes_object as wire;

/// A kind of the Kubernetes API. The order is that of telling: what selects and owns comes before what is selected and owned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `v1 Namespace`.
    Namespace,
    /// `v1 Node`.
    Node,
    /// `storage.k8s.io/v1 StorageClass`.
    StorageClass,
    /// `v1 PersistentVolume`.
    PersistentVolume,
    /// `v1 PersistentVolumeClaim`.
    PersistentVolumeClaim,
    /// `discovery.k8s.io/v1 EndpointSlice`: told as a part of its service, never by itself.
    EndpointSlice,
    /// `v1 Service`.
    Service,
    /// `apps/v1 Deployment`.
    Deployment,
    /// `apps/v1 ReplicaSet`.
    ReplicaSet,
    /// `apps/v1 DaemonSet`.
    DaemonSet,
    /// `apps/v1 StatefulSet`.
    StatefulSet,
    /// `batch/v1 CronJob`.
    CronJob,
    /// `batch/v1 Job`.
    Job,
    /// `v1 Pod`.
    Pod,
}

impl Kind {
    /// Every kind, in the order of telling.
    pub const ALL: [Self; 14] = [
        Self::Namespace,
        Self::Node,
        Self::StorageClass,
        Self::PersistentVolume,
        Self::PersistentVolumeClaim,
        Self::EndpointSlice,
        Self::Service,
        Self::Deployment,
        Self::ReplicaSet,
        Self::DaemonSet,
        Self::StatefulSet,
        Self::CronJob,
        Self::Job,
        Self::Pod,
    ];

    /// As the stream names it; `None` for what is told as a part of another object.
    pub fn on_the_stream(self) -> Option<wire::Kind> {
        Some(match self {
            Self::Namespace => wire::Kind::Namespace,
            Self::Node => wire::Kind::Node,
            Self::StorageClass => wire::Kind::StorageClass,
            Self::PersistentVolume => wire::Kind::PersistentVolume,
            Self::PersistentVolumeClaim => wire::Kind::PersistentVolumeClaim,
            Self::EndpointSlice => return None,
            Self::Service => wire::Kind::Service,
            Self::Deployment => wire::Kind::Deployment,
            Self::ReplicaSet => wire::Kind::ReplicaSet,
            Self::DaemonSet => wire::Kind::DaemonSet,
            Self::StatefulSet => wire::Kind::StatefulSet,
            Self::CronJob => wire::Kind::CronJob,
            Self::Job => wire::Kind::Job,
            Self::Pod => wire::Kind::Pod,
        })
    }

    /// The group of the API that serves it; empty for the core's.
    pub fn group(self) -> &'static str {
        match self {
            Self::Deployment | Self::ReplicaSet | Self::DaemonSet | Self::StatefulSet => "apps",
            Self::CronJob | Self::Job => "batch",
            Self::StorageClass => "storage.k8s.io",
            Self::EndpointSlice => "discovery.k8s.io",
            Self::Namespace | Self::Node | Self::PersistentVolume | Self::PersistentVolumeClaim | Self::Service | Self::Pod => "",
        }
    }

    /// Whether its objects are in namespaces.
    pub fn is_namespaced(self) -> bool {
        !matches!(self, Self::Namespace | Self::Node | Self::StorageClass | Self::PersistentVolume)
    }

    /// The plural of the API's paths, as a label of metrics and logs.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Namespace => "namespaces",
            Self::Node => "nodes",
            Self::StorageClass => "storageclasses",
            Self::PersistentVolume => "persistentvolumes",
            Self::PersistentVolumeClaim => "persistentvolumeclaims",
            Self::EndpointSlice => "endpointslices",
            Self::Service => "services",
            Self::Deployment => "deployments",
            Self::ReplicaSet => "replicasets",
            Self::DaemonSet => "daemonsets",
            Self::StatefulSet => "statefulsets",
            Self::CronJob => "cronjobs",
            Self::Job => "jobs",
            Self::Pod => "pods",
        }
    }

    /// Whether this kind answers for pods, by owning them or by a selector of its own. Services only select.
    pub(crate) fn controls_pods(self) -> bool {
        matches!(self, Self::Deployment | Self::DaemonSet | Self::StatefulSet | Self::CronJob | Self::Job)
    }

    /// The kind that an owner reference names, if it is one that owns pods at some remove. `extensions` is where `apps` came from.
    pub(crate) fn of_owner(api_version: &str, kind: &str) -> Option<Self> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        match (group, kind) {
            ("apps" | "extensions", "Deployment") => Some(Self::Deployment),
            ("apps" | "extensions", "ReplicaSet") => Some(Self::ReplicaSet),
            ("apps" | "extensions", "DaemonSet") => Some(Self::DaemonSet),
            ("apps", "StatefulSet") => Some(Self::StatefulSet),
            ("batch", "Job") => Some(Self::Job),
            ("batch", "CronJob") => Some(Self::CronJob),
            _ => None,
        }
    }
}
