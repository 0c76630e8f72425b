//! The OpenAPI document, the platform's own replies, the page.

use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use serde_json::Value;

use crate::http::request;
use crate::world::{CONTAINER, World};

#[tokio::test]
async fn every_documented_path_is_served_with_a_documented_status() {
    let (world, _probes) = World::with_two_hosts().await;
    let document: Value = world.get("/api/openapi.json").await.json();
    let paths = document["paths"].as_object().unwrap();
    let mut served = BTreeMap::new();
    for (path, item) in paths {
        for (method, operation) in item.as_object().unwrap() {
            let target = path.replace("{view}", "hosts").replace("{id}", "web-1;%3Chost%3E");
            let reply = request(world.http, &method.to_uppercase(), &target, "").await;
            let status = reply.status.to_string();
            let documented = &operation["responses"][&status];
            assert!(documented.is_object(), "{method} {path} answers {status}, which is not documented");
            let content = documented["content"].as_object().and_then(|content| content.keys().next().cloned()).unwrap_or_default();
            let found = reply.header("content-type");
            assert!(found.starts_with(content.as_str()), "{method} {path} answers {found}, and {content} is documented");
            served.insert(format!("{method} {path}"), status);
        }
    }
    expect![[r#"
        {
            "delete /api/pipe/{id}": "200",
            "get /admin/summary": "200",
            "get /api": "200",
            "get /api/control/ws": "400",
            "get /api/openapi.json": "200",
            "get /api/pipe/{id}": "400",
            "get /api/pipe/{id}/check": "204",
            "get /api/pipe/{id}/probe": "400",
            "get /api/probes": "200",
            "get /api/report": "200",
            "get /api/search": "400",
            "get /api/topology": "200",
            "get /api/topology/{view}": "200",
            "get /api/topology/{view}/ws": "400",
            "get /api/topology/{view}/{id}": "200",
            "get /api/v1/agents/{id}/files/{operation}": "404",
            "get /api/v1/audit": "200",
            "get /api/v1/changes": "400",
            "get /api/v1/flows": "200",
            "get /api/v1/history": "200",
            "get /api/v1/hosts": "200",
            "get /api/v1/lead": "404",
            "get /api/v1/listeners": "200",
            "get /api/v1/probes": "200",
            "get /api/v1/services": "200",
            "get /health": "200",
            "get /metrics": "200",
            "get /ready": "200",
            "post /api/control/{probe}/{node}/{control}": "400",
            "post /api/pipe/{id}": "200",
            "post /api/report": "400",
            "post /api/v1/lead/yield": "409",
        }
    "#]]
    .assert_debug_eq(&served);
}

/// Where `value` is not what `schema` says; the keywords that the document uses, and no others.
fn deviations(document: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        return deviations(document, document.pointer(reference.trim_start_matches('#')).unwrap(), value, at, found);
    }
    if let Some(parts) = schema["allOf"].as_array() {
        // Objects of several parts: the fields of all of them.
        let (mut properties, mut required) = (serde_json::Map::new(), Vec::new());
        for part in parts {
            let part = part["$ref"].as_str().map_or(part, |it| document.pointer(it.trim_start_matches('#')).unwrap());
            properties.extend(part["properties"].as_object().unwrap().clone());
            required.extend(part["required"].as_array().unwrap().clone());
        }
        let whole = serde_json::json!({ "type": "object", "properties": properties, "required": required });
        return deviations(document, &whole, value, at, found);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let fits = |choice: &&Value| {
            let mut found = Vec::new();
            deviations(document, choice, value, at, &mut found);
            found.is_empty()
        };
        if choices.iter().filter(fits).count() != 1 {
            found.push(format!("{at} is not one of the {} choices", choices.len()));
        }
        return;
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let is_kind = |name: &Value| name == kind || (name == "number" && kind == "integer");
    let type_fits = match &schema["type"] {
        Value::Null => true,
        Value::Array(names) => names.iter().any(is_kind),
        name => is_kind(name),
    };
    if !type_fits {
        found.push(format!("{at} is {kind}, and {} is documented", schema["type"]));
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        deviations(document, &schema["items"], item, &format!("{at}[{index}]"), found);
    }
    let Some(fields) = value.as_object() else { return };
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            found.push(format!("{at} has no {name}"));
        }
    }
    for (name, field) in fields {
        let inner = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
        if inner.is_null() || *inner == false {
            found.push(format!("{at} has {name}, which is not documented"));
        } else {
            deviations(document, inner, field, &format!("{at}.{name}"), found);
        }
    }
}

#[tokio::test]
async fn every_reply_is_what_the_document_says() {
    let (world, _probes) = World::with_two_hosts().await;
    let document: Value = world.get("/api/openapi.json").await.json();
    let mut found = Vec::new();
    for (path, target) in [
        ("/api", "/api"),
        ("/api/topology", "/api/topology"),
        ("/api/topology/{view}", "/api/topology/processes"),
        ("/api/topology/{view}", "/api/topology/containers"),
        ("/api/topology/{view}/{id}", "/api/topology/hosts/web-1;%3Chost%3E"),
        ("/api/probes", "/api/probes"),
        ("/api/probes", "/api/probes?sparse"),
        ("/api/search", "/api/search?q=shop"),
        ("/api/v1/flows", "/api/v1/flows"),
        ("/api/v1/history", "/api/v1/history"),
        ("/api/v1/hosts", "/api/v1/hosts"),
        ("/api/v1/listeners", "/api/v1/listeners"),
        ("/api/v1/probes", "/api/v1/probes"),
        ("/api/v1/services", "/api/v1/services"),
        ("/health", "/health"),
        ("/ready", "/ready"),
    ] {
        let schema = &document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{path} documents no reply");
        deviations(&document, schema, &world.get(target).await.json(), target, &mut found);
    }
    assert_eq!(found, Vec::<String>::new());
}

#[tokio::test]
async fn every_reference_in_the_document_leads_somewhere() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let world = World::start().await;
    let document: Value = world.get("/api/openapi.json").await.json();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
}

async fn check_json(world: &World, target: &str, expected: Expect) {
    let reply = world.get(target).await;
    let mut text = serde_json::to_string_pretty(&reply.json::<Value>()).unwrap().replace(CONTAINER, "CONTAINER");
    if let Some(at) = text.find("\"lastSeen\": \"") {
        let begin = at + "\"lastSeen\": \"".len();
        let end = begin + text[begin..].find('"').unwrap();
        text.replace_range(begin..end, "…");
    }
    if let Some(at) = text.find("\"lagSeconds\": ") {
        let begin = at + "\"lagSeconds\": ".len();
        let end = begin + text[begin..].find(',').unwrap();
        text.replace_range(begin..end, "…");
    }
    expected.assert_eq(&format!("{} {text}\n", reply.status));
}

#[tokio::test]
async fn flows_with_their_counters() {
    let (world, _probes) = World::with_two_hosts().await;
    check_json(
        &world,
        "/api/v1/flows?direction=client",
        expect![[r#"
        200 {
          "flows": [
            {
              "active": 2,
              "applications": [],
              "bytesReceived": 2000,
              "bytesSent": 1000,
              "cgroupId": 0,
              "clientAddress": "10.0.0.1",
              "clientName": null,
              "closed": 1,
              "containerId": "CONTAINER",
              "direction": "client",
              "failed": 0,
              "firstSeen": "2026-01-01T00:00:00Z",
              "host": "web-1",
              "lastActive": "2026-01-01T00:00:00Z",
              "opened": 3,
              "origin": "event",
              "originalServer": null,
              "others": 0,
              "peers": [
                "db-1;200"
              ],
              "pid": 100,
              "processName": "nginx",
              "processStartTime": 1000000000,
              "protocol": "tcp",
              "retransmits": 0,
              "rttMicrosAverage": 300,
              "rttMicrosMax": 500,
              "serverAddress": "10.0.0.2",
              "serverName": null,
              "serverPort": 5432,
              "translations": []
            }
          ],
          "next": null
        }
    "#]],
    )
    .await;
    let first: Value = world.get("/api/v1/flows?limit=1").await.json();
    assert_eq!(first["flows"].as_array().unwrap().len(), 1);
    let second: Value = world.get(&format!("/api/v1/flows?after={}", first["next"])).await.json();
    assert_eq!(second["flows"].as_array().unwrap().len(), 1);
    assert_eq!(second["next"], Value::Null);
    for (query, count) in [("host=db-1", 1), ("pid=100", 1), ("port=5432", 2), ("port=1", 0), ("container=nobody", 0), ("host=", 0)] {
        let page: Value = world.get(&format!("/api/v1/flows?{query}")).await.json();
        assert_eq!(page["flows"].as_array().unwrap().len(), count, "{query}");
    }
}

#[tokio::test]
async fn a_parameter_that_cannot_be_understood_is_named() {
    let world = World::start().await;
    for (query, problem) in [
        ("pid=x", r#""pid is \"x\", which is no such number""#),
        ("port=65536", r#""port is \"65536\", which is no such number""#),
        ("direction=up", r#""direction is \"up\", which is neither client nor server""#),
        ("limit=10001", r#""limit is 10001, which is not between 1 and 10000""#),
        ("after=-1", r#""after is \"-1\", which is no such number""#),
    ] {
        let reply = world.get(&format!("/api/v1/flows?{query}")).await;
        assert_eq!((reply.status, reply.text().as_str()), (400, problem));
    }
}

#[tokio::test]
async fn probes_with_what_they_see_and_lost() {
    let world = World::start().await;
    let mut probe = crate::probe::Probe::connect(world.grpc, "p", "web-1").await;
    let mut report = crate::world::web_report(1);
    report.capture = Some(proto::probe::v1::Capture {
        rung: 2,
        description: "polling".to_owned(),
        reason: "no permission".to_owned(),
        blind_spots: vec!["short connections".to_owned()],
        hooks: vec![
            proto::probe::v1::capture::Hook { name: "tcp".to_owned(), attached: true, error: String::new() },
            proto::probe::v1::capture::Hook { name: "exec".to_owned(), attached: false, error: "EPERM".to_owned() },
        ],
        ..proto::probe::v1::Capture::default()
    });
    report.losses = Some(proto::probe::v1::Losses {
        ring_records: [("network".to_owned(), 3)].into(),
        ends_seen: 100,
        ends_reported: 75,
        ..proto::probe::v1::Losses::default()
    });
    probe.apply(report).await;
    check_json(
        &world,
        "/api/v1/probes",
        expect![[r#"
            200 {
              "departed": [],
              "probes": [
                {
                  "capture": {
                    "blindSpots": [
                      "short connections"
                    ],
                    "description": "polling",
                    "hooks": [
                      {
                        "error": null,
                        "name": "tcp"
                      },
                      {
                        "error": "EPERM",
                        "name": "exec"
                      }
                    ],
                    "missingCapabilities": [],
                    "overloadLevel": 0,
                    "reason": "no permission",
                    "rung": 2
                  },
                  "connected": true,
                  "counts": {
                    "containers": 1,
                    "flows": 1,
                    "processes": 1,
                    "recordsRefused": 0
                  },
                  "hostname": "web-1",
                  "id": "p",
                  "lagSeconds": …,
                  "lastSeen": "…",
                  "losses": {
                    "completeness": 0.75,
                    "endsReported": 75,
                    "endsSeen": 100,
                    "flowsUncounted": 0,
                    "other": {},
                    "reportsMerged": 0,
                    "ringRecords": {
                      "network": 3
                    },
                    "socketsUnowned": 0,
                    "tableFull": 0
                  },
                  "sequence": 1,
                  "version": "1.2.3"
                }
              ]
            }
        "#]],
    )
    .await;
}

#[tokio::test]
async fn metrics_have_the_names_that_dashboards_use() {
    let (world, _probes) = World::with_two_hosts().await;
    world.get("/api/topology/hosts").await;
    let page = world.get("/metrics").await;
    assert_eq!(page.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let text = page.text();
    for line in [
        "monitoring_app_probes_connected 2",
        "monitoring_app_containers_total 1",
        "scope_request_duration_seconds_count{method=\"GET\",route=\"api_topology_view\",status_code=\"200\",ws=\"false\"} 1",
        "orchestrator_http_request_duration_seconds_bucket{method=\"GET\",route=\"api_topology_view\",status_code=\"200\",le=\"1\"} 1",
        "orchestrator_http_request_duration_seconds_bucket{method=\"GET\",route=\"api_topology_view\",status_code=\"200\",le=\"2\"} 1",
        "orchestrator_reports_applied_total 2",
        "orchestrator_reports_rejected_total{reason=\"malformed\"} 0",
        "orchestrator_websocket_clients 0",
        "orchestrator_driver_inbox_messages 0",
    ] {
        assert!(text.contains(&format!("{line}\n")), "{line} in {text}");
    }
}

#[tokio::test]
async fn paths_that_clients_make_up_do_not_become_labels() {
    let world = World::start().await;
    world.get("/made/up").await;
    world.get("/api/topology/hosts/made-up").await;
    let text = world.get("/metrics").await.text();
    assert!(!text.contains("made_up") && !text.contains("made-up"), "{text}");
    assert!(text.contains("route=\"unmatched\""));
}

#[tokio::test]
async fn the_page_is_served_and_not_sent_twice() {
    let world = World::start().await;
    for target in ["/", "/ui/"] {
        let page = world.get(target).await;
        assert_eq!(page.status, 200, "{target}");
        assert!(page.header("content-type").starts_with("text/html"));
        assert!(page.text().contains("Orchestrator"));
        assert_eq!(page.header("content-security-policy"), "frame-ancestors 'self'");
        assert_eq!(page.header("x-frame-options"), "SAMEORIGIN");
        let tag = page.header("etag");
        // Without a built user interface there is a page that says so, and no tag.
        if !tag.is_empty() {
            let again = request(world.http, "GET", target, &format!("If-None-Match: {tag}\r\n")).await;
            assert_eq!((again.status, again.body.len()), (304, 0));
        }
    }
    let moved = world.get("/ui").await;
    assert_eq!((moved.status, moved.header("location")), (308, "ui/"));
    // Bookmarks of Scope's other pages.
    for target in ["/terminal.html", "/contrast.html", "/ui/terminal.html"] {
        let moved = world.get(target).await;
        assert_eq!((moved.status, moved.header("location")), (308, "./"), "{target}");
    }
    assert_eq!(world.get("/nope/terminal.html").await.status, 404);
    assert_eq!(world.get("/../Cargo.toml").await.status, 404);
    assert_eq!(world.get("/ui/%2e%2e/%2e%2e/Cargo.toml").await.status, 404);
}
