//! Objects of the API as the stream says them.

use expect_test::{Expect, expect};
use probe_kubernetes::Kind;
use serde_json::{Value, json};

use crate::make::{bare, facts, metadata, pod};
use crate::picture::shown;

fn check(kind: Kind, object: &Value, expected: Expect) {
    expected.assert_eq(&shown(&facts(kind, object).object(&[])));
}

/// The state and restarts of a pod with this status, and these init containers.
fn state(status: Value, init_containers: Value, terminating: bool) -> String {
    let mut pod = pod("default", "p", json!({}));
    pod["spec"]["initContainers"] = init_containers;
    pod["status"] = status;
    if terminating {
        pod["metadata"]["deletionTimestamp"] = json!("2026-03-01T12:05:00Z");
    }
    let object = facts(Kind::Pod, &pod).object(&[]);
    format!("{} {}", object.state, object.restart_count)
}

#[test]
fn a_pod_keeps_what_the_map_shows_and_nothing_of_its_environment() {
    let mut pod = pod("shop", "cart-0", json!({"app": "cart"}));
    pod["spec"]["hostNetwork"] = json!(true);
    pod["spec"]["volumes"] = json!([
        {"name": "data", "persistentVolumeClaim": {"claimName": "cart-data"}},
        {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
        {"name": "token", "projected": {}},
    ]);
    pod["status"]["podIPs"] = json!([{"ip": "10.1.0.1"}, {"ip": "fd00::1"}]);
    pod["status"]["initContainerStatuses"] =
        json!([{"name": "init", "restartCount": 0, "containerID": "docker://def", "state": {"terminated": {"exitCode": 0}}}]);
    let object = facts(Kind::Pod, &pod).object(&[]);
    assert!(!format!("{object:?}").contains("secret"));
    check(
        Kind::Pod,
        &pod,
        expect![[r#"
        Pod cart-0 (pods-shop-cart-0)
          namespace: shop
          created: 1772366400000000000
          labels: app=cart
          state: Running
          addresses: 10.1.0.1 fd00::1
          node: node-1
          host network: true
          volumes: cart-0-scratch cart-data
          containers: abc def
    "#]],
    );
}

#[test]
fn a_static_pod_goes_by_the_hash_of_its_file() {
    let mut pod = pod("kube-system", "etcd-node-1", json!({}));
    pod["metadata"]["annotations"]["kubernetes.io/config.hash"] = json!("9f2ab9f8d3b4c7c3a1d0e5f6a7b8c9d0");
    assert_eq!(&*facts(Kind::Pod, &pod).uid, "9f2ab9f8d3b4c7c3a1d0e5f6a7b8c9d0");
    // Else anybody could give their pod the id of another object.
    pod["metadata"]["annotations"]["kubernetes.io/config.hash"] = json!("6d1f3c0a-5b1e-4c0e-9a53-1f7a6f5b0c11");
    assert_eq!(&*facts(Kind::Pod, &pod).uid, "pods-kube-system-etcd-node-1");
    let mut node = bare(Kind::Node, "", "n");
    node["metadata"]["annotations"]["kubernetes.io/config.hash"] = json!("abc");
    assert_eq!(&*facts(Kind::Node, &node).uid, "nodes--n");
}

#[test]
fn the_state_of_a_pod_is_the_word_that_kubectl_shows() {
    let waiting = |reason: &str| json!({"phase": "Pending", "containerStatuses": [{"name": "a", "restartCount": 3, "state": {"waiting": {"reason": reason}}}]});
    let none = || json!([]);
    let cases = [
        ("phase alone", state(json!({"phase": "Pending"}), none(), false)),
        ("no status", state(Value::Null, none(), false)),
        ("image", state(waiting("ImagePullBackOff"), none(), false)),
        ("crash loop", state(waiting("CrashLoopBackOff"), none(), false)),
        ("creating", state(waiting("ContainerCreating"), none(), false)),
        ("terminating", state(waiting("CrashLoopBackOff"), none(), true)),
        (
            "gated",
            state(
                json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
                none(),
                false,
            ),
        ),
        (
            "completed",
            state(
                json!({"phase": "Succeeded", "containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}),
                none(),
                false,
            ),
        ),
        (
            "completed, terminating",
            state(
                json!({"phase": "Succeeded", "containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}),
                none(),
                true,
            ),
        ),
        ("evicted", state(json!({"phase": "Failed", "reason": "Evicted"}), none(), false)),
        (
            "failed",
            state(
                json!({"phase": "Failed", "containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}),
                none(),
                false,
            ),
        ),
        ("lost", state(json!({"phase": "Running", "reason": "NodeLost"}), none(), true)),
        (
            "signal",
            state(
                json!({"phase": "Running", "containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 137, "signal": 9}}}]}),
                none(),
                false,
            ),
        ),
        (
            "exit",
            state(
                json!({"phase": "Running", "containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 2}}}]}),
                none(),
                false,
            ),
        ),
        (
            "one done, one runs",
            state(
                json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [
            {"name": "a", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}, {"name": "b", "ready": true, "state": {"running": {}}}]}),
                none(),
                false,
            ),
        ),
        (
            "one done, one runs, not ready",
            state(
                json!({"phase": "Running", "containerStatuses": [
            {"name": "a", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}, {"name": "b", "ready": true, "state": {"running": {}}}]}),
                none(),
                false,
            ),
        ),
        (
            "the first container speaks",
            state(
                json!({"phase": "Running", "containerStatuses": [
            {"name": "a", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}, {"name": "b", "state": {"waiting": {"reason": "ErrImagePull"}}}]}),
                none(),
                false,
            ),
        ),
        (
            "init 1 of 2",
            state(
                json!({"phase": "Pending", "initContainerStatuses": [
            {"name": "a", "restartCount": 1, "state": {"terminated": {"exitCode": 0}}}, {"name": "b", "state": {"running": {}}}],
            "containerStatuses": [{"name": "c", "restartCount": 5, "state": {"waiting": {"reason": "PodInitializing"}}}]}),
                json!([{"name": "a"}, {"name": "b"}]),
                false,
            ),
        ),
        (
            "init waits",
            state(
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "a", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
                json!([{"name": "a"}]),
                false,
            ),
        ),
        (
            "init failed",
            state(
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 3}}}]}),
                json!([{"name": "a"}]),
                false,
            ),
        ),
        (
            "sidecar",
            state(
                json!({"phase": "Running", "initContainerStatuses": [{"name": "a", "restartCount": 2, "started": true, "state": {"running": {}}}],
            "containerStatuses": [{"name": "c", "restartCount": 1, "ready": true, "state": {"running": {}}}]}),
                json!([{"name": "a", "restartPolicy": "Always"}]),
                false,
            ),
        ),
    ];
    let lines = cases.map(|(name, state)| format!("{name}: {state}\n")).concat();
    expect![[r#"
        phase alone: Pending 0
        no status:  0
        image: ImagePullBackOff 3
        crash loop: CrashLoopBackOff 3
        creating: ContainerCreating 3
        terminating: Terminating 3
        gated: SchedulingGated 0
        completed: Completed 0
        completed, terminating: Completed 0
        evicted: Failed 0
        failed: Failed 0
        lost: Unknown 0
        signal: Signal:9 0
        exit: ExitCode:2 0
        one done, one runs: Running 0
        one done, one runs, not ready: NotReady 0
        the first container speaks: CrashLoopBackOff 0
        init 1 of 2: Init:1/2 1
        init waits: Init:CrashLoopBackOff 0
        init failed: Init:ExitCode:3 0
        sidecar: Running 3
    "#]]
    .assert_eq(&lines);
}

#[test]
fn a_service_says_where_it_is_reached_from_inside_and_outside() {
    let mut service = json!({"metadata": metadata(Kind::Service, "shop", "front")});
    service["spec"] = json!({
        "type": "LoadBalancer", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00::7"], "externalIPs": ["192.0.2.9"],
        "loadBalancerIP": "203.0.113.1",
        "ports": [{"port": 443, "nodePort": 30443, "protocol": "TCP"}, {"port": 80}, {"port": 53, "protocol": "UDP"}],
        "selector": {"app": "front"},
    });
    service["status"] = json!({"loadBalancer": {"ingress": [{"ip": "198.51.100.4"}, {"hostname": "lb.example.com"}]}});
    check(
        Kind::Service,
        &service,
        expect![[r#"
        Service front (services-shop-front)
          namespace: shop
          created: 1772366400000000000
          addresses: 10.96.0.7 fd00::7
          public: 198.51.100.4 lb.example.com 192.0.2.9
          type: LoadBalancer
          ports: 443:30443/TCP,80/TCP,53/UDP
    "#]],
    );
    let headless = json!({"metadata": metadata(Kind::Service, "shop", "db"), "spec": {"clusterIP": "None", "clusterIPs": ["None"]}, "status": {"loadBalancer": {}}});
    check(
        Kind::Service,
        &headless,
        expect![[r#"
        Service db (services-shop-db)
          namespace: shop
          created: 1772366400000000000
          type: ClusterIP
    "#]],
    );
}

#[test]
fn controllers_say_what_they_want() {
    let of = |kind: Kind, spec: Value, status: Value| {
        let mut object = bare(kind, "shop", "x");
        object["spec"] = spec;
        object["status"] = status;
        shown(&facts(kind, &object).object(&[]))
    };
    let texts = [
        of(Kind::Deployment, json!({"replicas": 3, "strategy": {"type": "RollingUpdate"}}), json!({"observedGeneration": 7})),
        of(Kind::StatefulSet, json!({"replicas": 0, "updateStrategy": {"type": "OnDelete"}}), json!({"observedGeneration": 2})),
        of(Kind::DaemonSet, json!({}), json!({"desiredNumberScheduled": 12, "observedGeneration": 1})),
        of(Kind::ReplicaSet, json!({}), Value::Null),
        of(
            Kind::CronJob,
            json!({"schedule": "*/5 * * * *", "suspend": true}),
            json!({"active": [{"name": "a"}, {"name": "b"}], "lastScheduleTime": "2026-03-01T12:00:00Z"}),
        ),
    ];
    expect![[r#"
        Deployment x (deployments-shop-x)
          namespace: shop
          created: 1772366400000000000
          generation: 7
          desired: 3
          strategy: RollingUpdate
        StatefulSet x (statefulsets-shop-x)
          namespace: shop
          created: 1772366400000000000
          generation: 2
        DaemonSet x (daemonsets-shop-x)
          namespace: shop
          created: 1772366400000000000
          generation: 1
          desired: 12
        ReplicaSet x (replicasets-shop-x)
          namespace: shop
          created: 1772366400000000000
          desired: 1
        CronJob x (cronjobs-shop-x)
          namespace: shop
          created: 1772366400000000000
          schedule: */5 * * * *
          last scheduled: 1772366400000000000
          suspended: true
          active: 2
    "#]]
    .assert_eq(&texts.concat());
}

#[test]
fn volumes_claims_and_classes_name_each_other() {
    let mut volume = bare(Kind::PersistentVolume, "", "pv-1");
    volume["spec"] = json!({"storageClassName": "fast", "capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"],
        "claimRef": {"name": "cart-data", "namespace": "shop"}, "csi": {"driver": "ebs.csi.aws.com", "volumeHandle": "vol-1"}});
    volume["status"] = json!({"phase": "Bound"});
    let mut old = bare(Kind::PersistentVolume, "", "pv-2");
    old["spec"] = json!({"nfs": {"server": "10.0.0.9", "path": "/"}, "hostPath": null, "capacity": {"storage": 5}});
    let mut claim = bare(Kind::PersistentVolumeClaim, "shop", "cart-data");
    claim["spec"] = json!({"storageClassName": "fast", "volumeName": "pv-1", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "8Gi"}}});
    claim["status"] = json!({"phase": "Bound", "capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"]});
    let mut pending = bare(Kind::PersistentVolumeClaim, "shop", "waits");
    pending["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"] = json!("slow");
    pending["spec"] = json!({"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "8Gi"}}});
    pending["status"] = json!({"phase": "Pending"});
    let class = json!({"metadata": metadata(Kind::StorageClass, "", "fast"), "provisioner": "ebs.csi.aws.com"});
    let of = |kind, object: &Value| shown(&facts(kind, object).object(&[]));
    let texts = [
        of(Kind::PersistentVolume, &volume),
        of(Kind::PersistentVolume, &old),
        of(Kind::PersistentVolumeClaim, &claim),
        of(Kind::PersistentVolumeClaim, &pending),
        of(Kind::StorageClass, &class),
    ];
    expect![[r#"
        PersistentVolume pv-1 (persistentvolumes--pv-1)
          created: 1772366400000000000
          status: Bound
          class: fast
          driver: ebs.csi.aws.com
          capacity: 10Gi
          modes: ReadWriteOnce
          volumes: cart-data
        PersistentVolume pv-2 (persistentvolumes--pv-2)
          created: 1772366400000000000
          driver: nfs
          capacity: 5
        PersistentVolumeClaim cart-data (persistentvolumeclaims-shop-cart-data)
          namespace: shop
          created: 1772366400000000000
          status: Bound
          class: fast
          capacity: 10Gi
          modes: ReadWriteOnce
          volumes: pv-1
        PersistentVolumeClaim waits (persistentvolumeclaims-shop-waits)
          namespace: shop
          created: 1772366400000000000
          status: Pending
          class: slow
          capacity: 8Gi
          modes: ReadWriteMany
        StorageClass fast (storageclasses--fast)
          created: 1772366400000000000
          driver: ebs.csi.aws.com
    "#]]
    .assert_eq(&texts.concat());
}

#[test]
fn nodes_namespaces_and_jobs_say_how_they_are() {
    let node = |conditions: Value, unschedulable: bool| {
        let mut node = bare(Kind::Node, "", "n");
        node["spec"] = json!({"unschedulable": unschedulable});
        node["status"] = json!({"conditions": conditions, "addresses": [
            {"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": "n"}, {"type": "ExternalIP", "address": "203.0.113.1"}]});
        let object = facts(Kind::Node, &node).object(&[]);
        format!("{} {} {}", object.state, object.addresses.join(","), object.public_addresses.join(","))
    };
    let ready = |status: &str| json!({"type": "Ready", "status": status, "lastHeartbeatTime": "2026-03-01T12:00:00Z"});
    let job = |status: Value, suspend: bool| {
        let mut job = bare(Kind::Job, "shop", "j");
        job["spec"] = json!({"suspend": suspend});
        job["status"] = status;
        let object = facts(Kind::Job, &job).object(&[]);
        format!("{} {} {}", object.state, object.active_jobs, object.suspended)
    };
    let mut ending = bare(Kind::Namespace, "", "shop");
    ending["status"] = json!({"phase": "Terminating"});
    let lines = [
        node(json!([ready("True"), {"type": "MemoryPressure", "status": "False"}]), false),
        node(json!([{"type": "DiskPressure", "status": "True"}, ready("True")]), true),
        node(json!([ready("Unknown")]), false),
        node(json!([]), false),
        facts(Kind::Namespace, &ending).object(&[]).state,
        job(json!({"active": 2}), false),
        job(json!({"conditions": [{"type": "Complete", "status": "True"}]}), false),
        job(json!({"conditions": [{"type": "Failed", "status": "True"}]}), false),
        job(json!({"conditions": [{"type": "Suspended", "status": "True"}]}), true),
    ];
    expect![[r#"
        Ready 10.0.0.1 203.0.113.1
        Ready,SchedulingDisabled,DiskPressure 10.0.0.1 203.0.113.1
        NotReady 10.0.0.1 203.0.113.1
        Unknown 10.0.0.1 203.0.113.1
        Terminating
        Running 2 false
        Complete 0 false
        Failed 0 false
        Suspended 0 true
    "#]]
    .assert_eq(&lines.map(|line| line + "\n").concat());
}

#[test]
fn what_the_receiver_would_not_take_is_left_out_and_counted() {
    let mut pod = pod("shop", "p", json!({}));
    pod["status"]["podIP"] = json!("not an address");
    pod["status"]["containerStatuses"] =
        json!([{"name": "a", "containerID": "docker://\u{7}bell"}, {"name": "b", "containerID": "docker://fine"}]);
    pod["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "uid": "\n"}]);
    let facts = facts(Kind::Pod, &pod);
    let object = facts.object(&[]);
    assert_eq!((object.addresses.len(), &object.container_ids[..], facts.owners.len(), facts.cut), (0, &["fine".to_owned()][..], 0, true));
}

#[test]
fn an_object_of_nulls_is_an_object() {
    for kind in Kind::ALL {
        let object = json!({"metadata": {"name": null, "namespace": null, "uid": "u", "labels": null, "annotations": null,
            "creationTimestamp": null, "ownerReferences": null}, "status": null});
        let facts = facts(kind, &object);
        assert_eq!((facts.kind, &*facts.uid, facts.cut), (kind, "u", false));
    }
}

#[test]
fn an_object_without_limits_is_cut_and_says_so() {
    let labels = (0..10_000).map(|n| (format!("label-{n:05}"), json!("v".repeat(5000)))).collect::<serde_json::Map<_, _>>();
    let mut pod = pod("default", "p", Value::Object(labels));
    pod["status"]["phase"] = json!("\u{fc}".repeat(100_000));
    pod["status"]["podIPs"] = (0..10_000).map(|n| json!({"ip": format!("10.0.{}.{}", n / 250, n % 250)})).collect();
    let facts = facts(Kind::Pod, &pod);
    assert!(facts.cut);
    let object = facts.object(&[]);
    assert_eq!((object.labels.len(), object.addresses.len(), object.state.len()), (256, 512, 1024));
    assert!(object.labels.values().all(|value| value.len() == 1024));
}

#[test]
fn what_has_no_uid_is_no_object() {
    use probe_kubernetes::wire::{Object, Pod};
    let nobody = serde_json::from_value::<Object<Pod>>(json!({"metadata": {"name": "p"}})).map(Object::into_facts);
    assert_eq!(nobody.ok(), Some(None));
    let endless = serde_json::from_value::<Object<Pod>>(json!({"metadata": {"uid": "u".repeat(10_000)}})).map(Object::into_facts);
    assert_eq!(endless.ok(), Some(None));
}
