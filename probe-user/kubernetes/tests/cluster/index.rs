//! Relations: who selects and owns whom, through any order of events.

use std::collections::{BTreeMap, BTreeSet};

use expect_test::expect;
use probe_kubernetes::Kind;
use probe_kubernetes::index::{Changes, Index, Limits};
use probe_kubernetes::objects::{Facts, Uid};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::make::{bare, facts, owned_pod, pod, reference, selecting, slice};
use crate::picture::{Picture, by_uid};

/// An index, and one who is told at once.
#[derive(Default)]
struct World {
    index: Index,
    told: Picture,
}

impl World {
    fn apply(&mut self, kind: Kind, object: &Value) -> String {
        self.index.apply(facts(kind, object));
        self.tell()
    }

    fn delete(&mut self, kind: Kind, object: &Value) -> String {
        self.index.delete(kind, &facts(kind, object).uid);
        self.tell()
    }

    /// What was told, and what it says of parents.
    fn tell(&mut self) -> String {
        let changes = self.index.take_changes(usize::MAX);
        let gone = changes.gone.iter().map(|uid| format!("- {uid}\n"));
        let changed = changes.changed.iter().map(|object| format!("+ {} <- [{}]\n", object.uid, object.parents.join(", ")));
        let text = gone.chain(changed).collect::<String>();
        self.told.apply(changes.into());
        text
    }
}

#[test]
fn a_rollout_is_told_step_by_step() {
    let mut world = World::default();
    let web = || json!({"app": "web", "pod-template-hash": "1"});
    let mut replica_set = selecting(Kind::ReplicaSet, "shop", "web-1", web());
    replica_set["metadata"]["ownerReferences"] = reference(Kind::Deployment, "shop", "web");
    let steps = [
        ("a pod of nobody known", world.apply(Kind::Pod, &owned_pod("shop", "web-1-a", web(), (Kind::ReplicaSet, "web-1")))),
        ("its replica set", world.apply(Kind::ReplicaSet, &replica_set)),
        ("its deployment", world.apply(Kind::Deployment, &selecting(Kind::Deployment, "shop", "web", json!({"app": "web"})))),
        ("a service", world.apply(Kind::Service, &selecting(Kind::Service, "shop", "web", json!({"app": "web"})))),
        ("one elsewhere", world.apply(Kind::Service, &selecting(Kind::Service, "other", "web", json!({"app": "web"})))),
        ("another pod", world.apply(Kind::Pod, &owned_pod("shop", "web-1-b", web(), (Kind::ReplicaSet, "web-1")))),
        ("the same again", world.apply(Kind::Pod, &owned_pod("shop", "web-1-b", web(), (Kind::ReplicaSet, "web-1")))),
        ("the service selects others", world.apply(Kind::Service, &selecting(Kind::Service, "shop", "web", json!({"app": "api"})))),
        ("a pod is relabelled", world.apply(Kind::Pod, &owned_pod("shop", "web-1-b", json!({"app": "api"}), (Kind::ReplicaSet, "web-1")))),
        ("the replica set is gone", world.delete(Kind::ReplicaSet, &replica_set)),
        ("a pod is gone", world.delete(Kind::Pod, &pod("shop", "web-1-a", web()))),
        ("and again", world.delete(Kind::Pod, &pod("shop", "web-1-a", web()))),
    ];
    expect![[r#"
        a pod of nobody known
        + pods-shop-web-1-a <- []
        its replica set
        + replicasets-shop-web-1 <- [deployments-shop-web]
        + pods-shop-web-1-a <- [deployments-shop-web]
        its deployment
        + deployments-shop-web <- []
        a service
        + services-shop-web <- []
        + pods-shop-web-1-a <- [deployments-shop-web, services-shop-web]
        one elsewhere
        + services-other-web <- []
        another pod
        + pods-shop-web-1-b <- [deployments-shop-web, services-shop-web]
        the same again
        the service selects others
        + pods-shop-web-1-a <- [deployments-shop-web]
        + pods-shop-web-1-b <- [deployments-shop-web]
        a pod is relabelled
        + pods-shop-web-1-b <- [deployments-shop-web, services-shop-web]
        the replica set is gone
        - replicasets-shop-web-1
        + pods-shop-web-1-b <- [services-shop-web]
        a pod is gone
        - pods-shop-web-1-a
        and again
    "#]]
    .assert_eq(&steps.map(|(name, text)| format!("{name}\n{text}")).concat());
}

#[test]
fn jobs_pass_their_cron_job_on_and_selectors_answer_for_pods_that_none_owns() {
    let mut world = World::default();
    let mut job = selecting(Kind::Job, "shop", "report-1", json!({"controller-uid": "1"}));
    job["metadata"]["ownerReferences"] = reference(Kind::CronJob, "shop", "report");
    let mut daemon_set = selecting(Kind::DaemonSet, "shop", "agent", json!({}));
    daemon_set["spec"]["selector"] = json!({"matchExpressions": [
        {"key": "agent", "operator": "Exists"}, {"key": "tier", "operator": "NotIn", "values": ["back"]}]});
    let steps = [
        (
            "a pod of a job",
            world.apply(Kind::Pod, &owned_pod("shop", "report-1-x", json!({"controller-uid": "1"}), (Kind::Job, "report-1"))),
        ),
        ("a pod that the job selects", world.apply(Kind::Pod, &pod("shop", "loose", json!({"controller-uid": "1"})))),
        ("the job", world.apply(Kind::Job, &job)),
        ("a set without equalities", world.apply(Kind::DaemonSet, &daemon_set)),
        ("one that it selects", world.apply(Kind::Pod, &pod("shop", "agent-1", json!({"agent": "yes"})))),
        ("one that it does not", world.apply(Kind::Pod, &pod("shop", "agent-2", json!({"agent": "yes", "tier": "back"})))),
        ("the cron job lets go", world.apply(Kind::Job, &selecting(Kind::Job, "shop", "report-1", json!({"controller-uid": "1"})))),
    ];
    expect![[r#"
        a pod of a job
        + pods-shop-report-1-x <- [jobs-shop-report-1]
        a pod that the job selects
        + pods-shop-loose <- []
        the job
        + jobs-shop-report-1 <- [cronjobs-shop-report]
        + pods-shop-loose <- [cronjobs-shop-report, jobs-shop-report-1]
        + pods-shop-report-1-x <- [cronjobs-shop-report, jobs-shop-report-1]
        a set without equalities
        + daemonsets-shop-agent <- []
        one that it selects
        + pods-shop-agent-1 <- [daemonsets-shop-agent]
        one that it does not
        + pods-shop-agent-2 <- []
        the cron job lets go
        + jobs-shop-report-1 <- []
        + pods-shop-loose <- [jobs-shop-report-1]
        + pods-shop-report-1-x <- [jobs-shop-report-1]
    "#]]
    .assert_eq(&steps.map(|(name, text)| format!("{name}\n{text}")).concat());
}

#[test]
fn what_comes_and_goes_unseen_is_never_told() {
    let mut index = Index::default();
    for round in 0..10_000 {
        let facts = facts(Kind::Pod, &pod("default", &format!("p-{round}"), json!({"n": round.to_string()})));
        index.apply(facts.clone());
        index.delete(Kind::Pod, &facts.uid);
    }
    assert!(!index.has_changes());
    assert!(index.is_empty());
}

#[test]
fn a_list_ends_what_it_does_not_have_and_only_then() {
    let mut world = World::default();
    let (a, b) = (pod("default", "a", json!({})), pod("default", "b", json!({})));
    world.index.begin_list(Kind::Pod, None);
    world.apply(Kind::Pod, &a);
    world.apply(Kind::Pod, &b);
    world.index.end_list(Kind::Pod, None);
    world.index.begin_list(Kind::Pod, None);
    world.apply(Kind::Pod, &a);
    // The list broke off, and begins again.
    world.index.begin_list(Kind::Pod, None);
    assert_eq!(world.tell(), "");
    world.apply(Kind::Pod, &b);
    assert_eq!(world.tell(), "");
    world.index.end_list(Kind::Pod, None);
    assert_eq!(world.tell(), "- pods-default-a\n");
}

#[test]
fn a_full_kind_refuses_and_counts_but_keeps_what_it_has_current() {
    let mut index = Index::new(Limits { objects_per_kind: 2 });
    for name in ["a", "b", "c", "d"] {
        index.apply(facts(Kind::Pod, &pod("default", name, json!({}))));
    }
    index.apply(facts(Kind::Node, &bare(Kind::Node, "", "n")));
    index.apply(facts(Kind::Pod, &pod("default", "a", json!({"new": "label"}))));
    assert_eq!((index.len(Kind::Pod), index.refused(Kind::Pod), index.len(Kind::Node), index.refused(Kind::Node)), (2, 2, 1, 0));
    assert!(index.objects().any(|object| object.labels.contains_key("new")));
}

#[test]
fn a_batch_is_never_larger_than_asked() {
    let mut index = Index::default();
    for n in 0..25 {
        index.apply(facts(Kind::Pod, &pod("default", &n.to_string(), json!({}))));
    }
    let sizes = std::iter::from_fn(|| Some(index.take_changes(10).changed.len()).filter(|&size| size > 0)).collect::<Vec<_>>();
    assert_eq!(sizes, [10, 10, 5]);
}

/// What may happen to the index. Few names, so that things meet.
#[derive(Clone, Debug)]
enum Happening {
    Apply(Kind, Value),
    Delete(Kind, Uid),
    Relist(Kind, Vec<Value>),
    Take(usize),
    Anew,
}

fn labels() -> impl Strategy<Value = Value> {
    prop::collection::btree_map(prop::sample::select(vec!["app", "tier", "x"]), prop::sample::select(vec!["a", "b"]), 0..3)
        .prop_map(|labels| json!(labels))
}

fn object(kind: Kind) -> impl Strategy<Value = Value> {
    let namespace = prop::sample::select(vec!["n1", "n2"]);
    let name = prop::sample::select(vec!["a", "b", "c"]);
    let owner = prop::option::of(match kind {
        Kind::ReplicaSet => prop::sample::select(vec![Kind::Deployment]),
        Kind::Job => prop::sample::select(vec![Kind::CronJob]),
        _ => prop::sample::select(vec![Kind::ReplicaSet, Kind::Job, Kind::DaemonSet, Kind::StatefulSet, Kind::Node]),
    });
    let expression = prop::option::of((
        prop::sample::select(vec!["In", "NotIn", "Exists", "DoesNotExist", "Nonsense"]),
        prop::sample::select(vec!["app", "tier"]),
    ));
    (namespace, name, labels(), owner, name_of_owner(), expression, 0..3_u32).prop_map(
        move |(namespace, name, labels, owner, owner_name, expression, noise)| {
            let mut object = match kind {
                Kind::Pod => pod(namespace, name, labels),
                Kind::EndpointSlice => slice(namespace, name, owner_name, &[("10.0.0.1", noise > 0, Some(name)), ("10.0.0.2", true, None)]),
                Kind::Service | Kind::Deployment | Kind::DaemonSet | Kind::StatefulSet | Kind::Job => {
                    selecting(kind, namespace, name, labels)
                }
                _ => bare(kind, namespace, name),
            };
            if let (Some((operator, key)), false) = (expression, matches!(kind, Kind::Pod | Kind::Service | Kind::EndpointSlice)) {
                object["spec"]["selector"]["matchExpressions"] = json!([{"key": key, "operator": operator, "values": ["a"]}]);
            }
            if let (Some(owner), true) = (owner, matches!(kind, Kind::Pod | Kind::ReplicaSet | Kind::Job)) {
                object["metadata"]["ownerReferences"] = reference(owner, namespace, owner_name);
            }
            object["status"]["reason"] = json!(format!("noise-{noise}"));
            object
        },
    )
}

fn name_of_owner() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c"])
}

fn kind() -> impl Strategy<Value = Kind> {
    // Pods most often.
    prop::sample::select(vec![
        Kind::Pod,
        Kind::Pod,
        Kind::Pod,
        Kind::Service,
        Kind::EndpointSlice,
        Kind::Deployment,
        Kind::ReplicaSet,
        Kind::Job,
        Kind::CronJob,
        Kind::DaemonSet,
        Kind::StatefulSet,
    ])
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => kind().prop_flat_map(|kind| object(kind).prop_map(move |object| Happening::Apply(kind, object))),
        3 => kind().prop_flat_map(|kind| object(kind).prop_map(move |object| Happening::Delete(kind, facts(kind, &object).uid))),
        1 => kind().prop_flat_map(|kind| prop::collection::vec(object(kind), 0..4).prop_map(move |objects| Happening::Relist(kind, objects))),
        2 => (0..5_usize).prop_map(Happening::Take),
        1 => Just(Happening::Anew),
    ]
}

/// Parents found the slow way, by looking at everything.
fn parents(pod: &Facts, all: &BTreeMap<(Kind, Uid), Facts>) -> BTreeSet<Uid> {
    let above = |kind: Kind, uid: &Uid| {
        all.get(&(kind, uid.clone())).into_iter().flat_map(|facts| facts.owners.iter().map(|owner| owner.uid.clone()))
    };
    let mut owners = BTreeSet::new();
    for owner in &pod.owners {
        match owner.kind {
            Kind::ReplicaSet => owners.extend(above(Kind::ReplicaSet, &owner.uid)),
            kind => {
                owners.insert(owner.uid.clone());
                owners.extend(above(kind, &owner.uid).filter(|_| kind == Kind::Job));
            }
        }
    }
    let is_owned = !owners.is_empty();
    let selects =
        |facts: &&Facts| facts.namespace == pod.namespace && facts.selector.as_ref().is_some_and(|selector| selector.matches(&pod.labels));
    for one in all.values().filter(selects) {
        if one.kind == Kind::Service || !is_owned {
            owners.insert(one.uid.clone());
            owners.extend(above(Kind::Job, &one.uid).filter(|_| one.kind == Kind::Job));
        }
    }
    owners
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_events_ends_where_a_rebuild_does(happenings in prop::collection::vec(happening(), 0..60), seed in any::<u64>()) {
        let mut index = Index::default();
        let mut told = Picture::default();
        let mut truth = BTreeMap::new();
        for happening in happenings {
            match happening {
                Happening::Apply(kind, object) => {
                    let facts = facts(kind, &object);
                    truth.insert((kind, facts.uid.clone()), facts.clone());
                    index.apply(facts);
                }
                Happening::Delete(kind, uid) => {
                    index.delete(kind, &uid);
                    truth.remove(&(kind, uid));
                }
                Happening::Relist(kind, objects) => {
                    index.begin_list(kind, None);
                    truth.retain(|(other, _), _| *other != kind);
                    for object in objects {
                        let facts = facts(kind, &object);
                        truth.insert((kind, facts.uid.clone()), facts.clone());
                        index.apply(facts);
                    }
                    index.end_list(kind, None);
                }
                Happening::Anew => {
                    // The receiver is told everything anew, as by a snapshot; in the middle of it something may change.
                    index.forget_told();
                    told = Picture::default();
                    let mut last = None;
                    while let Some((id, object)) = index.after(last.as_ref()) {
                        index.told(&id);
                        told.apply(Changes { changed: vec![object], gone: Vec::new() }.into());
                        last = Some(id);
                    }
                    prop_assert!(!index.has_changes());
                }
                Happening::Take(max) => {
                    let changes = index.take_changes(max);
                    prop_assert!(changes.changed.len() + changes.gone.len() <= max);
                    told.apply(changes.into());
                }
            }
        }
        let changes = index.take_changes(usize::MAX);
        told.apply(changes.into());
        prop_assert!(!index.has_changes());

        // Rebuilt in another order.
        let mut order = truth.values().cloned().collect::<Vec<_>>();
        let mut state = seed;
        for at in (1..order.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let other = usize::try_from(state >> 33).unwrap_or(0) % (at + 1);
            order.swap(at, other);
        }
        let mut rebuilt = Index::default();
        order.into_iter().for_each(|facts| rebuilt.apply(facts));
        let rebuilt = by_uid(rebuilt.objects());
        prop_assert_eq!(&by_uid(index.objects()), &rebuilt);
        prop_assert_eq!(&told.objects, &rebuilt, "what was told bit by bit");
        for pod in truth.values().filter(|facts| facts.kind == Kind::Pod) {
            let expected = parents(pod, &truth).iter().map(|uid| uid.to_string()).collect::<Vec<_>>();
            prop_assert_eq!(told.parents(&pod.uid), Some(expected.as_slice()));
        }
    }
}
