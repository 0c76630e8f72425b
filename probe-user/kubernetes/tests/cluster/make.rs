//! Objects for tests, as the API would give them.

use probe_kubernetes::Kind;
use probe_kubernetes::objects::Facts;
use probe_kubernetes::wire::{self, Object, Wire};
use serde_json::{Value, json};

/// Where a kind is served.
pub(crate) fn path(kind: Kind) -> String {
    match kind.group() {
        "" => format!("/api/v1/{}", kind.plural()),
        group => format!("/apis/{group}/v1/{}", kind.plural()),
    }
}

/// What is read of an object of a kind.
pub(crate) fn facts(kind: Kind, object: &Value) -> Facts {
    fn read<W: Wire>(object: &Value) -> Facts {
        let object: Object<W> = serde_json::from_str(&object.to_string()).expect("an object");
        object.into_facts().expect("with a uid")
    }
    match kind {
        Kind::Namespace => read::<wire::Namespace>(object),
        Kind::Node => read::<wire::Node>(object),
        Kind::StorageClass => read::<wire::StorageClass>(object),
        Kind::PersistentVolume => read::<wire::PersistentVolume>(object),
        Kind::PersistentVolumeClaim => read::<wire::PersistentVolumeClaim>(object),
        Kind::EndpointSlice => read::<wire::EndpointSlice>(object),
        Kind::Service => read::<wire::Service>(object),
        Kind::Deployment => read::<wire::Deployment>(object),
        Kind::ReplicaSet => read::<wire::ReplicaSet>(object),
        Kind::DaemonSet => read::<wire::DaemonSet>(object),
        Kind::StatefulSet => read::<wire::StatefulSet>(object),
        Kind::CronJob => read::<wire::CronJob>(object),
        Kind::Job => read::<wire::Job>(object),
        Kind::Pod => read::<wire::Pod>(object),
    }
}

/// Metadata; the uid is made of the rest.
pub(crate) fn metadata(kind: Kind, namespace: &str, name: &str) -> Value {
    json!({
        "name": name, "namespace": namespace, "uid": format!("{}-{namespace}-{name}", kind.plural()),
        "creationTimestamp": "2026-03-01T12:00:00Z",
        "managedFields": [{"manager": "kubelet", "operation": "Update", "fieldsV1": {"f:status": {"f:phase": {}}}}],
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{\"a\": \"long one\"}"},
    })
}

/// Any object with metadata alone.
pub(crate) fn bare(kind: Kind, namespace: &str, name: &str) -> Value {
    json!({"metadata": metadata(kind, namespace, name)})
}

/// A running pod.
pub(crate) fn pod(namespace: &str, name: &str, labels: Value) -> Value {
    let mut pod = bare(Kind::Pod, namespace, name);
    pod["metadata"]["labels"] = labels;
    pod["spec"] =
        json!({"nodeName": "node-1", "containers": [{"name": "main", "image": "nginx", "env": [{"name": "PASSWORD", "value": "secret"}]}]});
    pod["status"] = json!({
        "phase": "Running", "podIP": "10.1.0.1",
        "containerStatuses": [{"name": "main", "ready": true, "restartCount": 0, "containerID": "containerd://abc", "state": {"running": {}}}],
    });
    pod
}

/// A pod that something owns.
pub(crate) fn owned_pod(namespace: &str, name: &str, labels: Value, owner: (Kind, &str)) -> Value {
    let mut pod = pod(namespace, name, labels);
    pod["metadata"]["ownerReferences"] = reference(owner.0, namespace, owner.1);
    pod
}

/// What selects by equalities.
pub(crate) fn selecting(kind: Kind, namespace: &str, name: &str, labels: Value) -> Value {
    let mut object = bare(kind, namespace, name);
    object["spec"] = match kind {
        Kind::Service => json!({"type": "ClusterIP", "clusterIP": "10.96.0.1", "selector": labels}),
        _ => json!({"replicas": 1, "selector": {"matchLabels": labels}}),
    };
    object
}

/// A slice of a service: addresses with whether they are ready, and the pods of these names.
pub(crate) fn slice(namespace: &str, name: &str, service: &str, targets: &[(&str, bool, Option<&str>)]) -> Value {
    let mut slice = bare(Kind::EndpointSlice, namespace, name);
    slice["metadata"]["labels"] = json!({"kubernetes.io/service-name": service, "app": "x"});
    slice["addressType"] = json!("IPv4");
    slice["ports"] = json!([{"name": "http", "port": 8080, "protocol": "TCP"}]);
    slice["endpoints"] = targets
        .iter()
        .map(|(address, ready, pod)| {
            let mut endpoint = json!({"addresses": [address], "conditions": {"ready": ready}, "nodeName": "node-1"});
            if let Some(pod) = pod {
                endpoint["targetRef"] =
                    json!({"kind": "Pod", "name": pod, "namespace": namespace, "uid": format!("pods-{namespace}-{pod}")});
            }
            endpoint
        })
        .collect();
    slice
}

/// An owner reference in a list.
pub(crate) fn reference(kind: Kind, namespace: &str, name: &str) -> Value {
    let (version, word) = match kind {
        Kind::Deployment => ("apps/v1", "Deployment"),
        Kind::ReplicaSet => ("apps/v1", "ReplicaSet"),
        Kind::DaemonSet => ("apps/v1", "DaemonSet"),
        Kind::StatefulSet => ("apps/v1", "StatefulSet"),
        Kind::CronJob => ("batch/v1", "CronJob"),
        Kind::Job => ("batch/v1", "Job"),
        _ => ("v1", "Node"),
    };
    json!([{"apiVersion": version, "kind": word, "name": name, "uid": format!("{}-{namespace}-{name}", kind.plural()), "controller": true}])
}
