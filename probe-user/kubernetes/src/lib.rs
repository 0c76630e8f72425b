//! The collector of a cluster: what the Kubernetes API knows of nodes, pods, services, controllers and volumes, as the objects of the probe's
//! stream. One collector serves one cluster; the probes of the nodes need no access to the API at all.
//!
//! The middle is pure: [`wire`] reads of each object only what a map shows, [`objects`] says it in the words of the stream, and [`index`]
//! keeps who selects and owns whom, so that one event costs what it changes. Around it are [`client`], [`watch`] and the [`Collector`].
//!
//! Nothing queues up behind a slow receiver: what has changed is a set of ids, and an object is rendered when it is sent. Memory is bounded by
//! the number of objects, and that by [`index::Limits`].
//!
//! It asks for `list` and `watch`, of: namespaces, nodes, persistentvolumes, persistentvolumeclaims, services and pods (core), deployments,
//! replicasets, daemonsets and statefulsets (`apps`), jobs and cronjobs (`batch`), storageclasses (`storage.k8s.io`). A kind that it may not
//! read is missing from the map and said to be in the [`Status`]; it never asks for secrets or config maps.

pub mod backoff;
pub mod client;
mod collector;
pub mod index;
mod kind;
pub mod objects;
pub mod selector;
mod status;
pub mod watch;
pub mod wire;

pub use client::Access;
pub use collector::{Batch, Collector, CollectorConfig, StartError};
pub use kind::Kind;
pub use status::{KindState, KindStatus, Status, StatusReport};

/// Directives for the log's filter. What the client library has to say of failures, and says as errors at every try, the collector says once.
pub const LOG_DIRECTIVES: [&str; 2] = ["kube_client=off", "kube_runtime=off"];
