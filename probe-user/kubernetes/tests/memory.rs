//! What a large cluster costs in memory. A process of its own, so that nothing else is counted.

use std::fmt::Write as _;

use probe_kubernetes::index::Index;
use probe_kubernetes::wire::{self, Object, Wire};
use serde_json::{Value, json};

const NODES: usize = 5_000;
const PODS: usize = 50_000;
/// Of these are as many replica sets and deployments, each with a service.
const PODS_OF_A_SERVICE: usize = 25;

fn apply<W: Wire>(index: &mut Index, object: &Value) {
    let read = serde_json::from_str::<Object<W>>(&object.to_string()).expect("an object");
    index.apply(read.into_facts().expect("with a uid"));
}

fn uid(kind: &str, n: usize) -> String {
    let mut text = format!("{n:08x}-0000-4000-8000-");
    write!(text, "{:012x}", kind.len() * 1_000_003 + n).expect("a string takes it");
    text
}

fn metadata(kind: &str, n: usize, owner: Value) -> Value {
    let group = n / PODS_OF_A_SERVICE;
    json!({
        "name": format!("checkout-service-{group}-6d4cf56db6-{n:05}"), "namespace": format!("team-{}", group % 100), "uid": uid(kind, n),
        "resourceVersion": "123456", "creationTimestamp": "2026-03-01T12:00:00Z", "ownerReferences": owner,
        "labels": {"app.kubernetes.io/name": format!("checkout-service-{group}"), "app.kubernetes.io/instance": "production",
            "app.kubernetes.io/version": "1.24.3", "pod-template-hash": "6d4cf56db6", "topology.example.com/cell": format!("cell-{}", n % 9)},
    })
}

fn pod(n: usize) -> Value {
    let owner =
        json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "uid": uid("replicaset", n / PODS_OF_A_SERVICE), "controller": true}]);
    let container = |name: &str| {
        json!({"name": name, "ready": true, "restartCount": 0, "state": {"running": {}},
        "containerID": format!("containerd://{:064x}", n * 7 + name.len())})
    };
    json!({
        "metadata": metadata("pod", n, owner),
        "spec": {"nodeName": format!("ip-10-0-{}-{}.eu-central-1.compute.internal", n / 10 / 250, n / 10 % 250), "volumes": []},
        "status": {"phase": "Running", "podIP": format!("10.{}.{}.{}", n / 65_000, n / 250 % 250, n % 250),
            "containerStatuses": [container("main"), container("sidecar")]},
    })
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.split_whitespace().next().and_then(|kib| kib.parse::<usize>().ok()).expect("a number") * 1024
}

#[test]
fn a_cluster_of_fifty_thousand_pods_fits_into_a_hundred_and_fifty_megabytes() {
    let mut index = Index::default();
    apply::<wire::Pod>(&mut index, &pod(PODS));
    let before = resident_bytes();
    for n in 0..PODS {
        apply::<wire::Pod>(&mut index, &pod(n));
    }
    let pods = resident_bytes() - before;
    for n in 0..NODES {
        let mut node = json!({"metadata": metadata("node", n, json!([]))});
        node["status"] =
            json!({"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]});
        apply::<wire::Node>(&mut index, &node);
    }
    for n in 0..PODS / PODS_OF_A_SERVICE {
        let labels = json!({"app.kubernetes.io/name": format!("checkout-service-{n}")});
        let at = n * PODS_OF_A_SERVICE;
        let mut deployment = json!({"metadata": metadata("deployment", at, json!([])), "spec": {"selector": {"matchLabels": labels}}});
        deployment["metadata"]["uid"] = json!(uid("deployment", n));
        apply::<wire::Deployment>(&mut index, &deployment);
        let owner = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "uid": uid("deployment", n), "controller": true}]);
        let mut replica_set = json!({"metadata": metadata("replicaset", at, owner), "spec": {"selector": {"matchLabels": labels}}});
        replica_set["metadata"]["uid"] = json!(uid("replicaset", n));
        apply::<wire::ReplicaSet>(&mut index, &replica_set);
        let mut service = json!({"metadata": metadata("service", at, json!([])), "spec": {"clusterIP": "10.96.0.1", "selector": labels}});
        service["metadata"]["name"] = json!(format!("checkout-service-{n}"));
        apply::<wire::Service>(&mut index, &service);
        let mut slice = json!({"metadata": metadata("slice", at, json!([])), "ports": [{"port": 8080}]});
        slice["metadata"]["labels"] = json!({"kubernetes.io/service-name": format!("checkout-service-{n}")});
        let endpoint = |pod: usize| {
            json!({"addresses": [format!("10.0.{}.{}", pod / 250 % 250, pod % 250)],
            "conditions": {"ready": true}, "targetRef": {"kind": "Pod", "uid": uid("pod", pod)}})
        };
        slice["endpoints"] = (at..at + PODS_OF_A_SERVICE).map(endpoint).collect();
        apply::<wire::EndpointSlice>(&mut index, &slice);
    }
    let all = resident_bytes() - before;
    let pending = index.pending();
    let mut told = 0;
    let mut largest = 0;
    while index.has_changes() {
        let changes = index.take_changes(500);
        told += changes.changed.len();
        largest = largest.max(changes.changed.iter().map(|object| object.endpoints.len()).max().unwrap_or(0));
    }
    assert_eq!((pending, told, largest), (told, PODS + 1 + NODES + 3 * PODS / PODS_OF_A_SERVICE, PODS_OF_A_SERVICE));
    eprintln!("{} bytes per pod; {} MB in all", pods / PODS, all / 1_000_000);
    assert!(pods / PODS < 2_600, "{} bytes per pod", pods / PODS);
    assert!(all < 150_000_000, "{all} bytes");
}
