use super::*;
use crate::node::{Grid, GridColumn, GridRow, MetadataRow, MetricRow, Parent, Shape, Table};

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
fn cells_of_a_table_with_columns_answer_to_every_name() {
    let column = |id: &str, label: &str| GridColumn { id: id.into(), label: label.into(), data_type: "".into() };
    let grid = Grid {
        kind: "multicolumn-table".into(),
        columns: Some(vec![column("weave_connection_state", "State")]),
        rows: vec![GridRow {
            id: "a".into(),
            cells: vec![("weave_connection_state".into(), "established".into()), ("weave_connection_info".into(), "fastdp".into())],
        }],
        truncation_count: 0,
    };
    let table = Table { id: "t".into(), label: "".into(), rows: Vec::new(), grid: Some(Box::new(grid)) };
    let peer = NodeSummary { tables: vec![table], ..node() };
    let found = |query: &str| Query::parse(query).unwrap().find(&peer).map(|found| found.fields);
    assert_eq!(found("establish"), Some(vec!["State".to_owned()]));
    assert_eq!(found("anything: fastdp"), Some(vec!["weave_connection_info".to_owned()]));
    assert_eq!(found("anything: blue"), None, "the name of a property counts");
    assert_eq!(found("heartbeat"), None);
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
        assert_eq!(Query::parse(query).unwrap_err(), QueryError::Empty { at: 1 }, "{query}");
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
    for (query, at) in [("AND", 1), ("nginx AND", 10), ("(nginx OR apache", 17), ("nginx OR apache)", 16), ("NOT", 4), ("東京 AND OR x", 8)]
    {
        assert_eq!(Query::parse(query).unwrap_err(), QueryError::Incomplete { at }, "{query}");
    }
    assert_eq!(Query::parse("x AND pid:").unwrap_err(), QueryError::Empty { at: 7 });
    assert_eq!(Query::parse("a \"b c").unwrap_err(), QueryError::Unclosed { at: 3 });
    let deep = format!("{}x{} AND y", "(".repeat(40), ")".repeat(40));
    assert!(Query::parse(&deep).is_ok(), "balanced within a word: a regular expression");
    let nested = format!("{}x", "NOT ".repeat(40));
    assert!(matches!(Query::parse(&nested).unwrap_err(), QueryError::TooComplex { .. }));
    let many = vec!["x"; 65].join(" OR ");
    assert!(matches!(Query::parse(&many).unwrap_err(), QueryError::TooComplex { .. }));
    assert_eq!(Query::parse(&"x".repeat(4_097)).unwrap_err(), QueryError::TooLong);
}

#[test]
fn comparisons_know_all_signs_units_and_numeric_metadata() {
    for query in
        ["memory >= 10mb", "memory <= 10mb", "memory != 9mb", "restart > 3", "restart#>=5", "pid = 4711", "pid = 4.711e3", "pid < 1e+4"]
    {
        assert!(finds(query), "{query}");
    }
    for query in ["memory > 10mb", "memory != 10mb", "restart < 5", "pid > 1e4", "memory < 1e3"] {
        assert!(!finds(query), "{query}");
    }
}

#[test]
fn spans_of_time_are_compared_in_units_of_time() {
    let mut node = node();
    node.metadata.push(MetadataRow {
        id: "uptime".into(),
        label: "Uptime".into(),
        value: "5400".into(),
        priority: 1.0,
        data_type: "duration".into(),
        truncate: 0,
    });
    let finds = |query: &str| Query::parse(query).unwrap().find(&node).is_some();
    for query in [
        "uptime < 2h",
        "uptime > 89m",
        "uptime = 1h30m",
        "uptime = 90 min",
        "uptime = 1.5 hours",
        "uptime < 1d",
        "uptime<1W",
        "uptime = 5400",
    ] {
        assert!(finds(query), "{query}");
    }
    for query in ["uptime < 30m", "uptime > 2h", "uptime > 1d", "uptime = 5400m"] {
        assert!(!finds(query), "{query}");
    }
    // What is no time has its own units.
    assert!(finds("memory = 10m"));
}

#[test]
fn a_name_of_a_field_is_found_with_and_without_its_accents_and_signs() {
    let mut node = node();
    node.tables[0].rows.push(("Équipe-Paie".into(), "bleue".into()));
    let finds = |query: &str| Query::parse(query).unwrap().find(&node).is_some();
    for query in [
        "équipe-paie: bleue",
        "equipepaie: bleue",
        "EQUIPE.*: bleue",
        "com.domain.label: blue",
        "comdomainlabel: blue",
        "domain-label: blue",
    ] {
        assert!(finds(query), "{query}");
    }
    for query in ["equipes: bleue", "com.domain.labels: blue", "org.domain.label: blue"] {
        assert!(!finds(query), "{query}");
    }
}

#[test]
fn accents_case_and_wide_scripts_are_found() {
    for query in ["cafe.conf", "CAFÉ", "東京", "ｎｇｉｎｘ.*東京|東京"] {
        assert!(finds(query), "{query}");
    }
    let mut korean = node();
    // Its first syllable in parts.
    korean.label = "\u{1112}\u{1161}\u{11ab}국-web".into();
    for query in ["[가-힣]+", "label:^[가-힣]{2}-web$", "한국", "label:^한.-"] {
        assert!(Query::parse(query).unwrap().find(&korean).is_some(), "{query}");
    }
}

#[test]
fn several_queries_hold_together() {
    let all = |queries: &[&str]| Query::all(queries.iter().map(|query| Query::parse(query).unwrap()));
    assert!(all(&[]).is_none());
    // Each by itself: neither the parenthesis nor the operator of one reaches into another.
    let literal = |query: &Query| query.find(&NodeSummary { label: "(nginx".into(), ..node() }).is_some();
    assert!(literal(&all(&["(ngin", "apache OR pid:4711"]).unwrap()));
    assert!(!literal(&all(&["(ngin", "apache OR pid:99"]).unwrap()));
    assert!(literal(&all(&["(ngin"]).unwrap()));
}

#[test]
fn the_same_is_looked_for_once() {
    let terms = |query: &str| {
        let mut terms = 0;
        Query::parse(query).unwrap().expression.each_term(&mut |_| terms += 1);
        terms
    };
    assert_eq!(terms(&["[0-9]{4}"; 64].join(" OR ")), 1);
    assert_eq!(terms("a OR b OR a OR (a AND b AND a)"), 4);
    assert_eq!(Query::parse("nginx OR nginx").unwrap().find(&node()), Query::parse("nginx").unwrap().find(&node()));
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

#[test]
fn what_stands_in_quotes_is_meant_literally() {
    for query in [r#""-c /etc""#, r#"command:"nginx -c""#, r#""nginx" "4711""#, r#""AND" OR nginx"#, r#"label:"nginx" AND NOT "a:b""#] {
        assert!(finds(query), "{query}");
    }
    for query in [r#""ngi.x""#, r#""-c  /etc""#, r#"label:"-c""#, r#""nginx" "99""#] {
        assert!(!finds(query), "{query}");
    }
}

#[test]
fn blanks_between_a_field_and_its_quotes_change_nothing() {
    for query in [
        r#"label: "nginx""#,
        r#"label : "nginx""#,
        r#"label :"nginx""#,
        r#"nginx AND command: "nginx -c""#,
        r#"NOT image: "nginx""#,
        r#"(label: "apache" OR command: "/etc/") AND pid: "4711""#,
        r#"docker labels com domain label: "blue" OR nginx"#,
        r#"pid: 4711 label: "nginx""#,
        r#"hosts: "web-1" label: "nginx""#,
    ] {
        assert!(finds(query), "{query}");
    }
    for query in
        [r#"image: "nginx""#, r#"label: "ngi.x""#, r#"NOT label: "nginx""#, r#"pid: 99 label: "nginx""#, r#"nginx AND label: "99""#]
    {
        assert!(!finds(query), "{query}");
    }
    assert_eq!(Query::parse(r#"x AND label: """#).unwrap_err(), QueryError::Empty { at: 7 });
    assert_eq!(Query::parse(r#": "x""#).unwrap_err(), QueryError::Empty { at: 1 });
}

#[test]
fn an_address_before_a_colon_is_no_field() {
    let mut published = node();
    published.metadata[1].value = "10.0.0.5:8080->80/tcp".into();
    for query in ["10.0.0.5:8080", "command:10.0.0.5", "nginx AND 10.0.0.5:8080"] {
        assert!(Query::parse(query).unwrap().find(&published).is_some(), "{query}");
    }
    assert!(Query::parse("10.0.0.5:9090").unwrap().find(&published).is_none());
}

#[test]
fn a_back_reference_is_refused_by_its_name() {
    let error = Query::parse(r"(\w)\1").unwrap_err();
    assert_eq!(error, QueryError::BackReference { at: 1 });
    assert!(error.to_string().contains(r"back-reference such as \1"), "{error}");
    for query in [r"C:\1", r"\(a\)\1", r#""(\w)\1""#, r"(a)[\1]"] {
        assert!(Query::parse(query).is_ok(), "{query}");
    }
}

#[test]
fn look_around_is_refused_by_its_name() {
    for query in ["(?=x)", "ngi(?!nx)", "label:(?<=x)y", "(?<!x)"] {
        assert_eq!(Query::parse(query).unwrap_err(), QueryError::LookAround { at: 1 }, "{query}");
    }
    let error = Query::parse("nginx AND (?=x)").unwrap_err();
    assert_eq!(error, QueryError::LookAround { at: 11 });
    assert!(error.to_string().contains("look-around"), "{error}");
    for query in [r#""(?=x)""#, r"\(?!x", "[(?!]", "(?i)nginx"] {
        assert!(Query::parse(query).is_ok(), "{query}");
    }
}

#[test]
fn matches_say_where_in_characters() {
    let shown = |query: &str| {
        let matches = Query::parse(query).unwrap().matches(&node());
        matches.into_iter().map(|it| (it.field, it.skipped, it.ranges)).collect::<Vec<_>>()
    };
    assert_eq!(shown("nginx"), [("label".to_owned(), 0, vec![(0, 5)]), ("Command".to_owned(), 0, vec![(0, 5)])]);
    assert_eq!(shown("cafe"), [("Command".to_owned(), 0, vec![(14, 18)])]);
    assert_eq!(shown("京"), [("Command".to_owned(), 0, vec![(25, 26)])]);
    assert_eq!(shown("memory > 1 AND NOT apache"), [("Memory".to_owned(), 0, vec![])]);
    assert_eq!(shown("label:n"), [("label".to_owned(), 0, vec![(0, 1), (3, 4)])]);
    let mut long = node();
    long.label = format!("{}needle{}", "é".repeat(9_000), "x".repeat(3_000)).into();
    // Only the beginning of a very long text is looked into.
    assert!(Query::parse("needle").unwrap().find(&long).is_none());
    long.label = format!("{}needle{}", "é".repeat(3_000), "x".repeat(3_000)).into();
    let matches = Query::parse("needle").unwrap().matches(&long);
    assert_eq!((matches[0].skipped, &matches[0].ranges[..], matches[0].text.chars().count()), (2_936, &[(64, 70)][..], 512));
}
