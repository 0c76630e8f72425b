use std::sync::Arc;

use base::Timestamp;
use expect_test::{Expect, expect};
use topology::{NodeId, Parent, Shape};

use super::*;

fn bare() -> NodeSummary {
    NodeSummary { label: "a".into(), ..NodeSummary::blank("a;<host>".into(), Shape::Circle) }
}

fn metric(samples: Vec<(Timestamp, f64)>) -> MetricRow {
    MetricRow {
        id: "load1".into(),
        label: "Load (1m)".into(),
        format: "".into(),
        group: "load".into(),
        value: 2.0,
        priority: 11.0,
        samples,
        min: 0.0,
        max: 14_502_912.0,
    }
}

fn full() -> NodeSummary {
    NodeSummary {
        stack: true,
        pseudo: true,
        metadata: vec![
            MetadataRow {
                id: "pid".into(),
                label: "PID".into(),
                value: "<1>".into(),
                priority: 1.0,
                data_type: "number".into(),
                truncate: 0,
            },
            MetadataRow { id: "x".into(), label: "X".into(), value: "y".into(), priority: 0.0, data_type: "".into(), truncate: 12 },
        ],
        parents: vec![Parent { id: "h".into(), label: "h".into(), topology_id: "hosts" }],
        metrics: vec![metric(Vec::new())],
        tables: vec![
            Table { id: "t".into(), label: "T".into(), rows: vec![(Arc::from("k"), Arc::from("v"))], grid: None },
            Table { id: "u".into(), label: "U".into(), rows: Vec::new(), grid: None },
        ],
        adjacency: vec![NodeId::from("b"), NodeId::from("in-theinternet")],
        ..bare()
    }
}

#[track_caller]
fn check(json: &[u8], expected: &Expect) {
    expected.assert_eq(std::str::from_utf8(json).unwrap());
}

#[test]
fn what_is_empty_is_left_out() {
    check(
        encoded(&PublishedNode::new(bare()), &MetricsGraph::default()),
        &expect![[r#"{"id":"a;\u003chost\u003e","label":"a","labelMinor":"","rank":"","shape":"circle"}"#]],
    );
}

#[test]
fn samples_are_null_in_summaries_and_columns_in_property_lists() {
    check(
        encoded(&PublishedNode::new(full()), &MetricsGraph::default()),
        &expect![[
            r#"{"id":"a;\u003chost\u003e","label":"a","labelMinor":"","rank":"","shape":"circle","stack":true,"pseudo":true,"metadata":[{"id":"pid","label":"PID","value":"\u003c1\u003e","priority":1.0,"dataType":"number"},{"id":"x","label":"X","value":"y","truncate":12}],"parents":[{"id":"h","label":"h","topologyId":"hosts"}],"metrics":[{"id":"load1","label":"Load (1m)","group":"load","value":2.0,"priority":11.0,"samples":null,"min":0.0,"max":14502912.0,"url":""}],"tables":[{"id":"t","label":"T","type":"property-list","columns":null,"rows":[{"id":"label_k","entries":{"label":"k","value":"v"}}]},{"id":"u","label":"U","type":"property-list","columns":null,"rows":[]}],"adjacency":["b","in-theinternet"]}"#
        ]],
    );
}

#[test]
fn details_always_have_controls_and_two_connection_tables() {
    let details = Details {
        summary: bare(),
        controls: Vec::new(),
        children: Vec::new(),
        incoming: Vec::new(),
        outgoing: Vec::new(),
        shows_remote: false,
    };
    check(
        &encode_details(View::Hosts, &details, &MetricsGraph::default()),
        &expect![[
            r#"{"node":{"id":"a;\u003chost\u003e","label":"a","labelMinor":"","rank":"","shape":"circle","controls":[],"connections":[{"id":"incoming-connections","topologyId":"hosts","label":"Inbound","columns":[{"id":"port","label":"Port","defaultSort":false,"dataType":"number"},{"id":"count","label":"Count","defaultSort":true,"dataType":"number"}],"connections":[]},{"id":"outgoing-connections","topologyId":"hosts","label":"Outbound","columns":[{"id":"port","label":"Port","defaultSort":false,"dataType":"number"},{"id":"count","label":"Count","defaultSort":true,"dataType":"number"}],"connections":[]}]}}"#
        ]],
    );
}

#[test]
fn details_show_samples_children_and_remote_addresses() {
    let summary = NodeSummary { metrics: vec![metric(vec![(Timestamp::from_unix_millis(1_500), 1.257)])], ..bare() };
    let connection = Connection {
        id: "c".into(),
        node_id: "b".into(),
        label: "b".into(),
        label_minor: "minor".into(),
        remote: Some("8.8.8.8".into()),
        port: Some(443),
        protocol: "tcp",
        via: "".into(),
        applications: Vec::new(),
        count: 2,
    };
    let details = Details {
        summary,
        controls: vec![Control {
            probe_id: "p".into(),
            node_id: "a;<host>".into(),
            id: "host_exec".into(),
            human: "Exec shell".into(),
            icon: "fa fa-terminal".into(),
            confirmation: "Really?".into(),
            rank: 0,
        }],
        children: vec![ChildGroup { label: "Processes", topology_id: "processes", columns: &[PORT], nodes: vec![bare()] }],
        incoming: Vec::new(),
        outgoing: vec![connection],
        shows_remote: true,
    };
    check(
        &encode_details(View::Processes, &details, &MetricsGraph::default()),
        &expect![[
            r#"{"node":{"id":"a;\u003chost\u003e","label":"a","labelMinor":"","rank":"","shape":"circle","metrics":[{"id":"load1","label":"Load (1m)","group":"load","value":2.0,"priority":11.0,"samples":[{"date":"1970-01-01T00:00:01.5Z","value":1.257}],"min":0.0,"max":14502912.0,"url":""}],"controls":[{"probeId":"p","nodeId":"a;\u003chost\u003e","id":"host_exec","human":"Exec shell","icon":"fa fa-terminal","confirmation":"Really?","rank":0}],"children":[{"id":"","label":"Processes","nodes":[{"id":"a;\u003chost\u003e","label":"a","labelMinor":"","rank":"","shape":"circle"}],"topologyId":"processes","columns":[{"id":"port","label":"Port","defaultSort":false,"dataType":"number"}]}],"connections":[{"id":"incoming-connections","topologyId":"processes","label":"Inbound","columns":[{"id":"remote","label":"Remote","defaultSort":false,"dataType":""},{"id":"port","label":"Port","defaultSort":false,"dataType":"number"},{"id":"count","label":"Count","defaultSort":true,"dataType":"number"}],"connections":[]},{"id":"outgoing-connections","topologyId":"processes","label":"Outbound","columns":[{"id":"remote","label":"Remote","defaultSort":false,"dataType":""},{"id":"port","label":"Port","defaultSort":false,"dataType":"number"},{"id":"count","label":"Count","defaultSort":true,"dataType":"number"}],"connections":[{"id":"c","nodeId":"b","label":"b","labelMinor":"minor","metadata":[{"id":"remote","label":"","value":"8.8.8.8"},{"id":"port","label":"","value":"443"},{"id":"count","label":"","value":"2"}]}]}]}}"#
        ]],
    );
}

#[test]
fn metrics_are_linked_to_their_graphs_also_those_that_are_not_there() {
    let mut pod = NodeSummary::blank("u1;<pod>".into(), Shape::Heptagon);
    pod.label = "web".into();
    let graphs = MetricsGraph::at("/g?q=:query");
    let text = String::from_utf8(encoded(&PublishedNode::new(pod), &graphs).to_vec()).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rows: Vec<_> = value["metrics"].as_array().unwrap().iter().map(|row| row["label"].as_str().unwrap()).collect();
    assert_eq!(rows, ["CPU", "Memory", "Rx/s", "Tx/s"]);
    let memory = r#"{"id":"docker_memory_usage","label":"Memory","value":0.0,"valueEmpty":true,"priority":2.0,"samples":null,"min":0.0,"max":0.0,"url":"/g?q=sum%28container_memory_rss%7Bpod%3D%22web%22%2Cnamespace%3D%22%22%7D%29"}"#;
    assert!(text.contains(memory), "{text}");
}

#[test]
fn an_id_is_taken_out_of_its_node_as_it_was_written() {
    for id in ["a", "", "a;<x>", "quote\"d", "back\\", "\\\"", "ä\n"] {
        let node = PublishedNode::new(NodeSummary::blank(id.into(), Shape::Square));
        assert_eq!(encoded_id(encoded(&node, &MetricsGraph::default())), crate::http::json::string(id), "{id}");
    }
}
