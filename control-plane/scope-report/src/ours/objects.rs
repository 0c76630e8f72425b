//! Objects of a cluster.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use topology::{KubernetesKind, ObjectExport};

use super::{Out, rfc3339};
use crate::model::{Kind, MetricTemplate, Node};

/// A fact that is shown: its key, heading and type, and where it is found.
type Row = (&'static str, &'static str, &'static str, &'static str);

/// Rows with priorities one after the other, and the first of these.
type Run = (u32, &'static [Row]);

const TYPE: Row = ("kubernetes_node_type", "Type", "", "latest");
const NAME: Row = ("kubernetes_name", "Name", "", "latest");
const NAMESPACE: Row = ("kubernetes_namespace", "Namespace", "", "latest");
const CREATED: Row = ("kubernetes_created", "Created", "datetime", "latest");
const OBSERVED: Row = ("kubernetes_observed_generation", "Observed gen.", "number", "latest");
const DESIRED: Row = ("kubernetes_desired_replicas", "Desired replicas", "number", "latest");
const PODS: Row = ("pod", "# Pods", "number", "counters");
const CLASS: Row = ("kubernetes_storage_class_name", "Storage class", "", "latest");
const STATUS: Row = ("kubernetes_status", "Status", "", "latest");

/// How the facts of a kind are shown, with the priorities of Scope's probes.
fn rows_of(kind: KubernetesKind) -> &'static [Run] {
    match kind {
        KubernetesKind::Pod => &[(
            2,
            &[
                ("kubernetes_state", "State", "", "latest"),
                ("kubernetes_ip", "IP", "ip", "latest"),
                ("container", "# Containers", "number", "counters"),
                NAMESPACE,
                CREATED,
                ("kubernetes_restart_count", "Restart #", "", "latest"),
            ],
        )],
        KubernetesKind::Service => &[(
            2,
            &[
                NAMESPACE,
                CREATED,
                ("kubernetes_public_ip", "Public IP", "ip", "latest"),
                ("kubernetes_ip", "Internal IP", "ip", "latest"),
                PODS,
                ("kubernetes_type", "Type", "", "latest"),
                ("kubernetes_ports", "Ports", "", "latest"),
            ],
        )],
        KubernetesKind::Deployment => {
            &[(1, &[TYPE, NAMESPACE, CREATED, OBSERVED, DESIRED, PODS, ("kubernetes_strategy", "Strategy", "", "latest")])]
        }
        KubernetesKind::StatefulSet => &[(1, &[TYPE, NAMESPACE, CREATED, OBSERVED, DESIRED, PODS])],
        KubernetesKind::DaemonSet => &[(1, &[TYPE, NAMESPACE, CREATED, DESIRED, PODS])],
        KubernetesKind::CronJob => &[(
            1,
            &[
                TYPE,
                NAMESPACE,
                CREATED,
                ("kubernetes_schedule", "Schedule", "", "latest"),
                ("kubernetes_last_scheduled", "Last scheduled", "datetime", "latest"),
                ("kubernetes_suspended", "Suspended", "", "latest"),
                ("kubernetes_active_jobs", "# Jobs", "number", "latest"),
                PODS,
            ],
        )],
        KubernetesKind::Job => &[(1, &[TYPE, NAME, NAMESPACE, CREATED, PODS])],
        // There is a gap in these.
        KubernetesKind::PersistentVolume => &[
            (1, &[TYPE, ("kubernetes_volume_claim", "Volume claim", "", "latest"), CLASS]),
            (
                5,
                &[
                    ("kubernetes_access_modes", "Access modes", "", "latest"),
                    STATUS,
                    ("kubernetes_storage_driver", "Storage driver", "", "latest"),
                ],
            ),
        ],
        KubernetesKind::PersistentVolumeClaim => &[(
            1,
            &[
                TYPE,
                NAMESPACE,
                STATUS,
                ("kubernetes_volume_name", "Volume", "", "latest"),
                CLASS,
                ("kubernetes_volume_capacity", "Capacity", "", "latest"),
            ],
        )],
        KubernetesKind::StorageClass => &[(1, &[TYPE, NAME, ("kubernetes_provisioner", "Provisioner", "", "latest")])],
        KubernetesKind::Node | KubernetesKind::Namespace | KubernetesKind::ReplicaSet => &[],
    }
}

/// What a kind is called in its own rows; empty for those that have no such row.
fn node_type(kind: KubernetesKind) -> &'static str {
    match kind {
        KubernetesKind::Deployment => "Deployment",
        KubernetesKind::DaemonSet => "DaemonSet",
        KubernetesKind::StatefulSet => "StatefulSet",
        KubernetesKind::CronJob => "CronJob",
        KubernetesKind::Job => "Job",
        KubernetesKind::PersistentVolume => "PersistentVolume",
        KubernetesKind::PersistentVolumeClaim => "PersistentVolumeClaim",
        KubernetesKind::StorageClass => "StorageClass",
        KubernetesKind::Node | KubernetesKind::Namespace | KubernetesKind::ReplicaSet | KubernetesKind::Pod | KubernetesKind::Service => "",
    }
}

/// Whether readers show the metrics of a single container at the node.
fn shows_container_metrics(kind: Kind) -> bool {
    matches!(kind, Kind::Pod | Kind::Service | Kind::Deployment | Kind::DaemonSet | Kind::StatefulSet | Kind::CronJob | Kind::Job)
}

impl Out<'_> {
    pub(super) fn object(&mut self, export: &ObjectExport, kinds: &BTreeMap<&str, (Kind, &str)>) {
        let object = &export.record;
        let Some((kind, tag)) = kind_of(object.kind) else { return };
        let mut node = Node::new(format!("{};<{tag}>", object.uid), kind);
        let first = |addresses: &[IpAddr]| addresses.first().map(IpAddr::to_string).unwrap_or_default();
        let joined = |texts: &[Arc<str>], with: &str| texts.iter().map(|text| &**text).collect::<Vec<_>>().join(with);
        let named = match kind {
            Kind::Pod => ("kubernetes_volume_claim", joined(&object.volume_names, ";")),
            Kind::PersistentVolume => ("kubernetes_volume_claim", joined(&object.volume_names, "")),
            _ => ("kubernetes_volume_name", joined(&object.volume_names, "")),
        };
        let number = |of: &[Kind], value: u64| if of.contains(&kind) { value.to_string() } else { String::new() };
        let controllers = [Kind::Deployment, Kind::DaemonSet, Kind::StatefulSet];
        let suspended = if kind == Kind::CronJob { object.suspended.to_string() } else { String::new() };
        let facts = [
            ("kubernetes_node_type", node_type(object.kind).to_owned()),
            ("kubernetes_name", object.name.to_string()),
            ("kubernetes_namespace", object.namespace.to_string()),
            ("kubernetes_created", rfc3339(object.created_at)),
            ("kubernetes_state", object.state.to_string()),
            ("kubernetes_ip", first(&object.addresses)),
            ("kubernetes_public_ip", first(&object.public_addresses)),
            ("kubernetes_is_in_host_network", if object.host_network { "true".to_owned() } else { String::new() }),
            ("kubernetes_restart_count", number(&[Kind::Pod], u64::from(object.restart_count))),
            ("kubernetes_type", object.service_type.to_string()),
            ("kubernetes_ports", joined(&object.ports, ",")),
            ("kubernetes_observed_generation", number(&controllers, object.observed_generation)),
            ("kubernetes_desired_replicas", number(&controllers, u64::from(object.desired_replicas))),
            ("kubernetes_strategy", object.strategy.to_string()),
            ("kubernetes_schedule", object.schedule.to_string()),
            ("kubernetes_last_scheduled", object.last_scheduled_at.map(rfc3339).unwrap_or_default()),
            ("kubernetes_suspended", suspended),
            ("kubernetes_active_jobs", number(&[Kind::CronJob], u64::from(object.active_jobs))),
            ("kubernetes_status", object.status.to_string()),
            ("kubernetes_storage_class_name", object.storage_class.to_string()),
            ("kubernetes_volume_capacity", object.capacity.to_string()),
            ("kubernetes_access_modes", joined(&object.access_modes, ",")),
            named,
        ];
        self.facts(&mut node, &facts);
        let driver = if kind == Kind::StorageClass { "kubernetes_provisioner" } else { "kubernetes_storage_driver" };
        self.facts(&mut node, &[(driver, object.storage_driver.to_string())]);
        for (key, value) in &object.labels {
            node.set(format!("kubernetes_labels_{key}"), self.at, value.clone());
        }
        for (uid, (kind, tag)) in object.parents.iter().filter_map(|uid| Some((uid, kinds.get(&**uid)?))) {
            node.parents.entry(kind.name().into()).or_default().insert(format!("{uid};<{tag}>").into());
        }
        if kind == Kind::Pod && !object.node_name.is_empty() {
            node.parents.insert("host".into(), [format!("{};<host>", object.node_name).into()].into());
        }
        self.controls(kind, &mut node, &export.controls);
        self.put(kind, node, &[]);
        for (first, rows) in rows_of(object.kind) {
            self.templates(kind, *first, rows);
        }
        if shows_container_metrics(kind) {
            self.container_metrics(kind);
        }
        self.property_list(kind, "kubernetes_labels_", "Kubernetes labels");
    }

    /// How the metrics that readers copy from a container are shown.
    fn container_metrics(&mut self, kind: Kind) {
        let rows = [("docker_cpu_total_usage", "CPU", "percent", 1.0), ("docker_memory_usage", "Memory", "filesize", 2.0)];
        for (id, label, format, priority) in rows {
            let template = MetricTemplate { id: id.into(), label: label.into(), format: format.into(), group: "".into(), priority };
            self.report.table_mut(kind).metric_templates.insert(id.into(), template);
        }
    }
}

/// The table of a kind of objects, and the tag of their ids; those of three controllers have no underscore.
pub(super) fn kind_of(kind: KubernetesKind) -> Option<(Kind, &'static str)> {
    match kind {
        KubernetesKind::Node => None,
        KubernetesKind::Namespace => Some((Kind::Namespace, "namespace")),
        KubernetesKind::Pod => Some((Kind::Pod, "pod")),
        KubernetesKind::Service => Some((Kind::Service, "service")),
        KubernetesKind::Deployment => Some((Kind::Deployment, "deployment")),
        KubernetesKind::ReplicaSet => Some((Kind::ReplicaSet, "replica_set")),
        KubernetesKind::DaemonSet => Some((Kind::DaemonSet, "daemonset")),
        KubernetesKind::StatefulSet => Some((Kind::StatefulSet, "statefulset")),
        KubernetesKind::Job => Some((Kind::Job, "job")),
        KubernetesKind::CronJob => Some((Kind::CronJob, "cronjob")),
        KubernetesKind::PersistentVolume => Some((Kind::PersistentVolume, "persistent_volume")),
        KubernetesKind::PersistentVolumeClaim => Some((Kind::PersistentVolumeClaim, "persistent_volume_claim")),
        KubernetesKind::StorageClass => Some((Kind::StorageClass, "storage_class")),
    }
}
