use proptest::prelude::*;

use super::*;
use crate::decode::{Compression, Format, Limits, decode};
use crate::model::Sample;
use crate::time::Time;

fn at(seconds: i64) -> Time {
    Time::new(seconds, 0)
}

fn merged(reports: &[&Report]) -> Report {
    let mut out = Report::default();
    reports.iter().for_each(|&report| out.merge(report.clone()));
    out
}

fn json(text: &str) -> Report {
    decode(text.as_bytes(), Format::Json, Compression::None, Limits { bytes: 1 << 20, memory: 16 << 20 }).unwrap()
}

#[test]
fn the_newest_fact_wins_and_lists_are_united() {
    let mut one = Node::new("x", Kind::Container);
    one.set("state", at(2), "running");
    one.adjacency.insert("a".into());
    let mut two = Node::default();
    two.set("state", at(1), "created");
    two.set("name", at(1), "web");
    two.adjacency.insert("b".into());
    one.merge(&two, Kind::Container);
    assert_eq!((&**one.value("state").unwrap(), &**one.value("name").unwrap()), ("running", "web"));
    assert_eq!(one.adjacency.len(), 2);
    // The delta said neither id nor table.
    assert_eq!(one.topology.as_deref(), Some("container"));
}

#[test]
fn of_facts_of_one_time_those_of_who_says_more_are_kept_and_else_the_later() {
    let node = |facts: &[(&str, &str)]| {
        let mut node = Node::new("x", Kind::Process);
        facts.iter().for_each(|(key, value)| node.set(*key, at(1), *value));
        node
    };
    let mut short = node(&[("a", "1")]);
    short.merge(&node(&[("a", "2")]), Kind::Process);
    assert_eq!(&**short.value("a").unwrap(), "2");
    let mut long = node(&[("a", "1"), ("b", "1")]);
    long.merge(&node(&[("a", "2")]), Kind::Process);
    assert_eq!(&**long.value("a").unwrap(), "1");
}

#[test]
fn samples_of_one_time_are_one_sample() {
    let metric =
        |times: &[i64], min, max| Metric { samples: times.iter().map(|&it| Sample { at: at(it), value: 1.0 }).collect(), min, max };
    let mut one = metric(&[1, 3, 5], 0.0, 5.0);
    one.merge(&metric(&[2, 3, 6], -1.0, 4.0));
    assert_eq!(one, metric(&[1, 2, 3, 5, 6], -1.0, 5.0));
}

#[test]
fn a_hosts_own_probe_and_that_of_its_cluster_each_know_some_of_its_controls() {
    let host = |time, controls: &str| {
        let mut node = Node::new("h;<host>", Kind::Host);
        node.set("active_controls", at(time), controls);
        node
    };
    let mut one = host(1, "host_exec");
    one.merge(&host(2, "kubernetes_cordon_node"), Kind::Host);
    assert_eq!(&**one.value("active_controls").unwrap(), "host_exec;kubernetes_cordon_node");
    // Of anything else, the newest list is the list.
    let mut one = host(1, "docker_stop_container");
    one.merge(&host(2, "docker_start_container"), Kind::Container);
    assert_eq!(&**one.value("active_controls").unwrap(), "docker_start_container");
}

#[test]
fn reports_as_wholes() {
    let one = json(
        r#"{"TS":"2020-01-01T00:00:02Z","Window":3,"Shortcut":true,"Sampling":{"Count":1,"Total":2},"Plugins":[{"id":"b","label":"B"}],
        "Process":{"metadata_templates":{"pid":{"id":"pid","label":"PID","priority":1}}}}"#,
    );
    let two = json(
        r#"{"TS":"2020-01-01T00:00:01Z","Window":4,"Sampling":{"Count":1,"Total":2},"Plugins":[{"id":"a","label":"A"},{"id":"b","label":"B"}],
        "Process":{"metadata_templates":{"pid":{"id":"pid","label":"Pid","priority":2}}}}"#,
    );
    let both = merged(&[&one, &two]);
    assert_eq!((both.at, both.window, both.shortcut, both.sampling.total), (two.at, 7, true, 4));
    assert_eq!(both.plugins.keys().map(|id| &**id).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(&*both.table(Kind::Process).metadata_templates["pid"].label, "Pid");
}

#[test]
fn what_old_releases_did_not_say_is_made_up_for() {
    let mut report = json(
        r#"{"ReplicaSet":{"nodes":{"r":{"topology":"replica_set","parents":{"deployment":["d"]}}}},
        "Pod":{"nodes":{"p":{"topology":"pod","parents":{"replica_set":["r"],"service":["s"]},
          "latest":{"kubernetes_namespace":{"value":"shop"}}},
          "q":{"topology":"pod","latest":{"kubernetes_namespace":{"value":"gone"},"kubernetes_state":{"value":"deleted"}}}}},
        "Endpoint":{"nodes":{";1.2.3.4;80":{"topology":"endpoint","sets":{"reverse_dns_names":["r.example"],"snooped_dns_names":["s.example"]}}}}}"#,
    );
    report.upgrade();
    let pod = &report.table(Kind::Pod).nodes["p"];
    assert!(pod.parents["deployment"].contains("d") && pod.parents["service"].contains("s") && !pod.parents.contains_key("replica_set"));
    assert_eq!(report.table(Kind::Namespace).nodes.keys().map(|id| &**id).collect::<Vec<_>>(), ["shop;<namespace>"]);
    assert!(report.dns["1.2.3.4"].forward.contains("s.example") && report.dns["1.2.3.4"].reverse.contains("r.example"));
}

#[test]
fn what_must_not_be_seen_is_left_out() {
    let mut report = json(
        r#"{"Container":{"nodes":{"c":{"latest":{"docker_container_command":{"value":"/bin/sh -c secret"},"docker_env_KEY":{"value":"secret"}}}}}}"#,
    );
    report.censor(true, true);
    let node = &report.table(Kind::Container).nodes["c"];
    assert_eq!(&**node.value("docker_container_command").unwrap(), "/bin/sh");
    assert_eq!(node.value("docker_env_KEY"), None);
}

proptest! {
    #[test]
    fn what_was_merged_once_changes_nothing_when_it_comes_again(
        one in crate::decode::tests::any_report(), two in crate::decode::tests::any_report(), three in crate::decode::tests::any_report(),
    ) {
        let nodes = |report: Report| report.tables.map(|table| table.nodes);
        prop_assert_eq!(nodes(merged(&[&one, &two, &three])), nodes(merged(&[&one, &two, &three, &two, &one])));
        // In parts or one after the other: a window merges what came together first.
        let part = merged(&[&two, &three]);
        prop_assert_eq!(nodes(merged(&[&one, &two, &three])), nodes(merged(&[&one, &part])));
    }
}
