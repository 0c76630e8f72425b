use super::*;
use crate::node::{MetadataRow, MetricRow, Parent, Shape, Table};

fn node() -> NodeSummary {
    let row = |id: &'static str, label: &'static str, value: &str| MetadataRow {
        id: id.into(),
        label: label.into(),
        value: value.into(),
        priority: 1.0,
        data_type: "".into(),
        truncate: 0,
    };
    NodeSummary {
        id: "web-1;4711".into(),
        label: "nginx".into(),
        label_minor: "web-1 (4711)".into(),
        rank: "nginx".into(),
        shape: Shape::Square,
        tag: "",
        stack: false,
        pseudo: false,
        metadata: vec![
            row("pid", "PID", "4711"),
            row("cmdline", "Command", "nginx -c /etc/Café.conf 東京"),
            row("docker_container_restart_count", "Restart #", "5"),
        ],
        parents: vec![Parent { id: "web-1;<host>".into(), label: "web-1".into(), topology_id: "hosts" }],
        metrics: vec![MetricRow {
            id: "process_memory_usage_bytes".into(),
            label: "Memory".into(),
            format: "filesize".into(),
            group: "".into(),
            value: 10.0 * 1024.0 * 1024.0,
            priority: 1.0,
            samples: Vec::new(),
            min: 0.0,
            max: 0.0,
        }],
        tables: vec![Table {
            id: "docker_label_".into(),
            label: "Docker labels".into(),
            rows: vec![("com.domain.Label".into(), "blue".into())],
            grid: None,
        }],
        adjacency: Vec::new(),
    }
}

#[track_caller]
fn finds(query: &str) -> bool {
    Query::parse(query).unwrap().find(&node()).is_some()
}

#[test]
fn scopes_own_queries_mean_what_they_meant() {
    for query in [
        "nginx",
        "NGI",
        "foo|ngi",
        "pid: 4711",
        "command: nginx (-c|-t)",
        "domainlabel:blue",
        "hosts: web",
        "memory > 9mb",
        "memory = 10M",
        "label:^nginx$",
        "a:b:c|web",
    ] {
        assert!(finds(query), "{query}");
    }
    for query in ["apache", "pid: 99", "image: nginx", "memory < 9mb", "mem > 1"] {
        assert!(!finds(query), "{query}");
    }
}

#[test]
fn an_expression_that_does_not_compile_is_looked_for_literally() {
    let mut odd = node();
    odd.label = "what(is".into();
    assert!(Query::parse("(is").unwrap().find(&odd).is_some());
    assert!(!finds("(is"));
}

#[test]
fn what_is_no_query_in_scope_is_none_here() {
    for query in ["pid:", ": 5", "  ", "cpu > much", "> 5"] {
        assert_eq!(Query::parse(query).unwrap_err(), QueryError::Empty, "{query}");
    }
}

#[test]
fn terms_are_combined_by_operators_in_capitals() {
    for query in [
        "nginx AND pid:4711",
        "apache OR nginx",
        "NOT apache",
        "(apache OR nginx) AND NOT pid:99",
        "nginx NOT apache",
        "((nginx)) AND (web OR (db AND x))",
        "foo(bar|baz) OR ng(inx|ix)",
    ] {
        assert!(finds(query), "{query}");
    }
    for query in ["nginx AND apache", "NOT nginx", "nginx AND (pid:98 OR pid:99)"] {
        assert!(!finds(query), "{query}");
    }
}

#[test]
fn small_words_are_no_operators() {
    assert!(Query::parse("this and that").is_ok());
    assert!(!finds("this or nginx"), "one text with blanks in it");
}

#[test]
fn broken_combinations_are_refused() {
    for query in ["AND", "nginx AND", "(nginx OR apache", "nginx OR apache)", "NOT"] {
        assert_eq!(Query::parse(query).unwrap_err(), QueryError::Incomplete, "{query}");
    }
    let deep = format!("{}x{} AND y", "(".repeat(40), ")".repeat(40));
    assert!(Query::parse(&deep).is_ok(), "balanced within a word: a regular expression");
    let nested = format!("{}x", "NOT ".repeat(40));
    assert_eq!(Query::parse(&nested).unwrap_err(), QueryError::TooComplex);
    let many = vec!["x"; 65].join(" OR ");
    assert_eq!(Query::parse(&many).unwrap_err(), QueryError::TooComplex);
    assert_eq!(Query::parse(&"x".repeat(4_097)).unwrap_err(), QueryError::TooLong);
}

#[test]
fn comparisons_know_all_signs_units_and_numeric_metadata() {
    for query in ["memory >= 10mb", "memory <= 10mb", "memory != 9mb", "restart > 3", "restart#>=5", "pid = 4711"] {
        assert!(finds(query), "{query}");
    }
    for query in ["memory > 10mb", "memory != 10mb", "restart < 5"] {
        assert!(!finds(query), "{query}");
    }
}

#[test]
fn accents_case_and_wide_scripts_are_found() {
    for query in ["cafe.conf", "CAFÉ", "東京", "ｎｇｉｎｘ.*東京|東京"] {
        assert!(finds(query), "{query}");
    }
}

#[test]
fn a_whole_label_ranks_before_its_beginning_and_other_fields() {
    let score = |query: &str| Query::parse(query).unwrap().find(&node()).unwrap().score;
    assert!(score("nginx") > score("ngin"));
    assert!(score("ngin") > score("ginx"));
    assert!(score("ginx") > score("4711"));
}

#[test]
fn an_evil_expression_takes_time_in_proportion_only() {
    let mut evil = node();
    evil.label = "a".repeat(100_000).into();
    assert!(Query::parse("(a+)+$").unwrap().find(&evil).is_some());
    assert!(Query::parse("label:(a|aa)+b").unwrap().find(&evil).is_none());
}
