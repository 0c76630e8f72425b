//! The collector of a cluster: what the Kubernetes API knows of nodes, pods, services, controllers and volumes, as the objects of the probe's
//! stream. One collector serves one cluster; the probes of the nodes need no access to the API at all.
//!
//! The middle is pure: [`wire`] reads of each object only what a map shows, [`objects`] says it in the words of the stream, [`index`] keeps who
//! selects, owns and answers for whom, so that one event costs what it changes, and [`cluster`] knows how far it is to be believed. Around it are
//! [`client`], [`watch`], the [`Collector`] that follows everything, and the [`lease`] by which several collectors agree on the one that reports.
//!
//! Nothing queues up behind a slow receiver: what has changed is a set of ids, and an object is rendered when it is sent. Memory is bounded by
//! the number of objects, and that by [`index::Limits`].
//!
//! [`controls`] changes objects, when somebody asks for it.
//!
//! It asks for `list` and `watch`, of: namespaces, nodes, persistentvolumes, persistentvolumeclaims, services and pods (core), deployments,
//! replicasets, daemonsets and statefulsets (`apps`), jobs and cronjobs (`batch`), storageclasses (`storage.k8s.io`), endpointslices
//! (`discovery.k8s.io`); and for `get`, `create` and `update` of leases (`coordination.k8s.io`). A kind that it may not read is missing from the
//! map and said to be in the status; it never asks for secrets or config maps.

pub mod backoff;
pub mod client;
pub mod cluster;
mod collector;
pub mod controls;
pub mod index;
mod kind;
pub mod lease;
pub mod objects;
pub mod selector;
mod status;
pub mod watch;
pub mod wire;

pub use client::Access;
pub use cluster::{Cluster, Remark};
pub use collector::{Collector, CollectorConfig, NAMESPACES_MAX, StartError};
pub use kind::Kind;
pub use status::{KindState, KindStatus, StatusReport};

/// Directives for the log's filter. What the client library has to say of failures, and says as errors at every try, the collector says once.
pub const LOG_DIRECTIVES: [&str; 2] = ["kube_client=off", "kube_runtime=off"];
