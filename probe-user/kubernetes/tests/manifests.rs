//! What is deployed fits what is asked for: the collector may read every kind that it watches, and nothing else; the probes of the nodes have no
//! access to the API at all.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use probe_kubernetes::Kind;
use serde_json::Value;

/// The documents of all manifests, with the file that each is in.
fn documents() -> Vec<(PathBuf, Value)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/k8s/base");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(&directory).expect("the manifests") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a text");
        let documents = serde_saphyr::from_multiple::<Value>(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(!documents.is_empty(), "{} is empty", path.display());
        all.extend(documents.into_iter().map(|document| (path.clone(), document)));
    }
    all
}

/// The one object of a kind and name.
fn object<'a>(all: &'a [(PathBuf, Value)], kind: &str, name: &str) -> &'a Value {
    let found = all.iter().map(|(_, object)| object).filter(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    let found = found.collect::<Vec<_>>();
    assert_eq!(found.len(), 1, "{kind} {name}");
    found[0]
}

fn texts(list: &Value) -> BTreeSet<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Verb, group and resource of every rule, and the names that it is limited to.
fn permissions(role: &Value) -> BTreeSet<(String, String, String, String)> {
    let mut all = BTreeSet::new();
    for rule in role["rules"].as_array().expect("rules") {
        let names = texts(&rule["resourceNames"]).into_iter().collect::<Vec<_>>().join(",");
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                all.extend(texts(&rule["verbs"]).into_iter().map(|verb| (verb, group.clone(), resource.clone(), names.clone())));
            }
        }
    }
    all
}

#[test]
fn the_collector_may_list_and_watch_what_it_collects_and_nothing_else() {
    let all = documents();
    let watched = Kind::ALL
        .into_iter()
        .flat_map(|kind| ["list", "watch"].map(|verb| (verb.to_owned(), kind.group().to_owned(), kind.plural().to_owned(), String::new())));
    assert_eq!(permissions(object(&all, "ClusterRole", "orchestrator-collector")), watched.collect());
}

#[test]
fn the_collector_may_use_its_lease_in_its_own_namespace() {
    let all = documents();
    let lease = |verb: &str, name: &str| (verb.to_owned(), "coordination.k8s.io".to_owned(), "leases".to_owned(), name.to_owned());
    let expected = [lease("create", ""), lease("get", "orchestrator-collector"), lease("update", "orchestrator-collector")];
    let role = object(&all, "Role", "orchestrator-collector");
    assert_eq!(permissions(role), BTreeSet::from(expected));
    let deployment = object(&all, "Deployment", "orchestrator-collector");
    assert_eq!(role["metadata"]["namespace"], deployment["metadata"]["namespace"]);
}

#[test]
fn permissions_are_bound_to_the_account_of_the_collector_alone() {
    let all = documents();
    let bindings =
        all.iter().map(|(_, object)| object).filter(|object| object["kind"].as_str().is_some_and(|kind| kind.ends_with("RoleBinding")));
    let mut count = 0;
    for binding in bindings {
        count += 1;
        let [subject] = &binding["subjects"].as_array().expect("subjects")[..] else { panic!("one subject: {binding}") };
        assert_eq!(
            (&subject["kind"], &subject["name"], &subject["namespace"]),
            (&"ServiceAccount".into(), &"orchestrator-collector".into(), &"orchestrator".into())
        );
    }
    assert_eq!(count, 2);
    let pod = &object(&all, "Deployment", "orchestrator-collector")["spec"]["template"]["spec"];
    assert_eq!((&pod["serviceAccountName"], &pod["automountServiceAccountToken"]), (&"orchestrator-collector".into(), &true.into()));
}

#[test]
fn every_other_pod_has_no_access_to_the_api_and_the_nodes_probe_has_the_capabilities_that_it_needs() {
    let all = documents();
    for (path, workload) in all.iter().filter(|(_, object)| object["spec"]["template"].is_object()) {
        if workload["metadata"]["name"] != "orchestrator-collector" {
            let pod = &workload["spec"]["template"]["spec"];
            assert_eq!(pod["automountServiceAccountToken"], false, "{}", path.display());
            assert!(pod["serviceAccountName"].is_null(), "{}", path.display());
        }
    }
    let probe = object(&all, "DaemonSet", "orchestrator-probe");
    let context = &probe["spec"]["template"]["spec"]["containers"][0]["securityContext"];
    assert_eq!(texts(&context["capabilities"]["drop"]), BTreeSet::from(["ALL".to_owned()]));
    let added = ["BPF", "DAC_READ_SEARCH", "KILL", "NET_ADMIN", "PERFMON", "SYS_ADMIN", "SYS_PTRACE"].map(str::to_owned);
    assert_eq!(texts(&context["capabilities"]["add"]), BTreeSet::from(added));
    assert_eq!(context["privileged"], false);
}

#[test]
fn every_manifest_is_part_of_the_whole() {
    let all = documents();
    let (_, whole) = all.iter().find(|(_, object)| object["kind"] == "Kustomization").expect("a kustomization");
    let files = all.iter().filter_map(|(path, _)| path.file_name()?.to_str().map(str::to_owned));
    assert_eq!(texts(&whole["resources"]), files.filter(|file| file != "kustomization.yaml").collect());
}

#[test]
fn what_may_be_changed_from_the_map_is_granted_apart_and_is_what_the_controls_ask_for() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/k8s/collector-controls.yaml");
    let text = std::fs::read_to_string(path).expect("the manifest");
    let all: Vec<_> =
        serde_saphyr::from_multiple::<Value>(&text).expect("documents").into_iter().map(|document| (PathBuf::new(), document)).collect();
    let granted = permissions(object(&all, "ClusterRole", "orchestrator-collector-controls"));
    let plain = |verb: &str, group: &str, resource: &str| (verb.to_owned(), group.to_owned(), resource.to_owned(), String::new());
    let described = Kind::ALL.into_iter().filter(|kind| !matches!(kind, Kind::Namespace | Kind::EndpointSlice));
    let mut expected: BTreeSet<_> = described.map(|kind| plain("get", kind.group(), kind.plural())).collect();
    expected.extend([plain("get", "", "pods/log"), plain("list", "", "events"), plain("delete", "", "pods"), plain("patch", "", "nodes")]);
    for resource in ["deployments/scale", "statefulsets/scale"] {
        expected.extend(["get", "update"].map(|verb| plain(verb, "apps", resource)));
    }
    // Which of the two opens a terminal depends on the cluster's version.
    for resource in ["pods/exec", "pods/attach"] {
        expected.extend(["get", "create"].map(|verb| plain(verb, "", resource)));
    }
    assert_eq!(granted, expected);
}
