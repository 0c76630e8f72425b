//! Links from metrics to graphs elsewhere: Weave Scope's `--app.metrics-graph`, an address in which `:query` stands for a question to Prometheus.
//!
//! The questions are about what cAdvisor tells through the kubelet, in the labels that it has since Kubernetes 1.16 (`pod`, not Scope's `pod_name`,
//! which such clusters do not know). A container is named by its id, which is in cAdvisor's whatever the runtime.

use std::sync::Arc;

use topology::NodeSummary;

/// Where graphs are; by default nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsGraph(Option<Arc<str>>);

/// What a node has a link for even when it has no such metric, in this order.
const SHOWN: [(&str, &str); 4] = [(CPU, "CPU"), (MEMORY, "Memory"), (RECEIVED, "Rx/s"), (SENT, "Tx/s")];
const CPU: &str = "docker_cpu_total_usage";
const MEMORY: &str = "docker_memory_usage";
const RECEIVED: &str = "receive_bytes";
const SENT: &str = "transmit_bytes";

/// What stands for the question in an address.
const QUERY: &str = ":query";

/// A link without a metric.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bare {
    pub(super) id: &'static str,
    pub(super) label: &'static str,
    pub(super) priority: f64,
    pub(super) url: String,
}

impl MetricsGraph {
    /// Graphs at `template`; none when it is empty.
    pub fn at(template: &str) -> Self {
        MetricsGraph(Some(template).filter(|it| !it.is_empty()).map(Arc::from))
    }

    /// The links of a node, asked for once for all its metrics.
    pub(super) fn of<'a>(&'a self, node: &NodeSummary) -> Option<Links<'a>> {
        let template = self.0.as_deref()?;
        let (series, shares_network) = series(node)?;
        Some(Links { template, series, shares_network })
    }
}

/// The links of a node.
#[derive(Debug)]
pub(super) struct Links<'a> {
    template: &'a str,
    /// What picks its series.
    series: String,
    /// Whether it has a network of its own: containers have their pod's.
    shares_network: bool,
}

impl Links<'_> {
    /// The address of a metric's graph, if there is one.
    pub(super) fn url(&self, metric: &str) -> Option<String> {
        let series = &self.series;
        let query = match metric {
            CPU => format!(
                "sum(rate(container_cpu_usage_seconds_total{{{series}}}[1m]))/count(container_cpu_usage_seconds_total{{{series}}})*100"
            ),
            MEMORY => format!("sum(container_memory_rss{{{series}}})"),
            RECEIVED if !self.shares_network => format!("sum(rate(container_network_receive_bytes_total{{{series}}}[5m]))"),
            SENT if !self.shares_network => format!("sum(rate(container_network_transmit_bytes_total{{{series}}}[5m]))"),
            _ => return None,
        };
        if self.template.contains(QUERY) {
            return Some(self.template.replace(QUERY, &escaped(&query)));
        }
        // Without a place for it, the question goes behind the address, in the words of Weave Cloud's notebooks.
        let notebook = serde_json::json!({ "cells": [{ "queries": [query] }] });
        Some(format!("{}/{}", self.template.trim_end_matches('/'), escaped(&notebook.to_string())))
    }

    /// Links of metrics that the node does not have.
    pub(super) fn bare(&self, node: &NodeSummary) -> Vec<Bare> {
        let last = node.metrics.iter().map(|row| row.priority).fold(0.0, f64::max);
        let missing = SHOWN.into_iter().filter(|(id, _)| !node.metrics.iter().any(|row| row.id == *id));
        let mut bare: Vec<Bare> = missing.filter_map(|(id, label)| Some(Bare { id, label, priority: last, url: self.url(id)? })).collect();
        for (row, above) in bare.iter_mut().zip(1_u8..) {
            row.priority += f64::from(above);
        }
        bare
    }
}

/// What picks a node's series, and whether they have no network of their own.
fn series(node: &NodeSummary) -> Option<(String, bool)> {
    let (id, tag) = node.id.as_str().rsplit_once(';')?;
    let label = pattern(&node.label);
    // What Kubernetes adds to the names of pods that something made.
    let made = |suffix: &str| (in_namespace(node, &format!("pod=~\"{label}{suffix}\"")), false);
    match tag {
        "<container>" => Some((format!("id=~\".*{}.*\"", pattern(id)), true)),
        "<container_image>" => Some((format!("image=~\"(.*/)?{label}([:@].*)?\""), true)),
        "<pod>" => Some((in_namespace(node, &format!("pod=\"{}\"", quoted(&node.label))), false)),
        "<deployment>" | "<cronjob>" => Some(made("-[^-]+-[^-]+")),
        "<daemonset>" | "<job>" => Some(made("-[^-]+")),
        "<statefulset>" => Some(made("-[0-9]+")),
        "<service>" => Some(made("-.+")),
        _ => None,
    }
}

fn in_namespace(node: &NodeSummary, series: &str) -> String {
    let namespace = node.metadata.iter().find(|row| row.id == "kubernetes_namespace").map_or("", |row| &*row.value);
    format!("{series},namespace=\"{}\"", quoted(namespace))
}

/// A text in a string of Prometheus.
fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A text as a regular expression that is it alone, in such a string.
fn pattern(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for letter in text.chars() {
        if "\\.+*?()|[]{}^$".contains(letter) {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    quoted(&pattern)
}

/// A text in the query of an address; blanks are not `+`, which front ends do not read as such.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(2 * text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use topology::{MetadataRow, MetricRow, Shape};

    use super::*;

    fn node(id: &str, label: &str) -> NodeSummary {
        let row = MetadataRow {
            id: "kubernetes_namespace".into(),
            label: "Namespace".into(),
            value: "shop".into(),
            priority: 1.0,
            data_type: "".into(),
            truncate: 0,
        };
        NodeSummary { label: label.into(), metadata: vec![row], ..NodeSummary::blank(id.into(), Shape::Heptagon) }
    }

    #[test]
    fn a_question_picks_what_the_node_stands_for() {
        let graph = MetricsGraph::at("http://prom/graph?g0.expr=:query&g0.tab=0");
        let asked = |id: &str, label: &str| {
            let url = graph.of(&node(id, label))?.url(MEMORY)?;
            crate::http::query::decode(url.strip_prefix("http://prom/graph?g0.expr=")?.strip_suffix("&g0.tab=0")?)
        };
        let memory = |series: &str| Some(format!("sum(container_memory_rss{{{series}}})"));
        assert_eq!(asked("0a1b;<container>", "web"), memory(r#"id=~".*0a1b.*""#));
        assert_eq!(asked("web;<container_image>", "acme/web.x"), memory(r#"image=~"(.*/)?acme/web\\.x([:@].*)?""#));
        assert_eq!(asked("u1;<pod>", "web-1"), memory(r#"pod="web-1",namespace="shop""#));
        assert_eq!(asked("u2;<deployment>", "web"), memory(r#"pod=~"web-[^-]+-[^-]+",namespace="shop""#));
        assert_eq!(asked("u3;<statefulset>", "db"), memory(r#"pod=~"db-[0-9]+",namespace="shop""#));
        assert_eq!(asked("u4;<pod>", "a\"}"), memory(r#"pod="a\"}",namespace="shop""#));
        for none in ["web-1;<host>", "web-1;4711", "in-theinternet", "u5;<storage_class>"] {
            assert_eq!(asked(none, "x"), None, "{none}");
        }
        assert!(MetricsGraph::at("").of(&node("u1;<pod>", "web")).is_none());
    }

    #[test]
    fn links_stand_where_metrics_are_missing() {
        let mut pod = node("u1;<pod>", "web");
        pod.metrics.push(MetricRow {
            id: CPU.into(),
            label: "CPU".into(),
            format: "percent".into(),
            group: "".into(),
            value: 1.0,
            priority: 3.0,
            samples: Vec::new(),
            min: 0.0,
            max: 100.0,
        });
        let graph = MetricsGraph::at("/prom/notebook/");
        let rows = graph.of(&pod).unwrap().bare(&pod);
        let rows: Vec<_> = rows.iter().map(|row| (row.id, row.label, row.priority)).collect();
        assert_eq!(rows, [(MEMORY, "Memory", 4.0), (RECEIVED, "Rx/s", 5.0), (SENT, "Tx/s", 6.0)]);
        let url = graph.of(&pod).unwrap().url(MEMORY).unwrap();
        assert!(url.starts_with("/prom/notebook/%7B%22cells%22%3A%5B%7B%22queries%22%3A%5B%22sum%28"), "{url}");
        // A container has its pod's network.
        let container = node("0a1b;<container>", "web");
        let rows = graph.of(&container).unwrap().bare(&container);
        assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [CPU, MEMORY]);
    }
}
