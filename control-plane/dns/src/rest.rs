//! The names over HTTP, as Mesos-DNS showed them on port 8123.
//!
//! A name that nobody has is one record of empty texts, not an error: clients of Mesos-DNS look for that.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::zone::{Record, Zone};

/// What `/v1/config` tells besides the names.
#[derive(Clone, Debug)]
pub struct Shown {
    /// For how long an answer may be remembered.
    pub ttl: Duration,
    /// Between two looks at what runs.
    pub refresh: Duration,
    /// The masters that are asked, `host:port`.
    pub masters: Vec<String>,
    /// Who is asked about other names.
    pub upstream: Vec<String>,
    /// Of the program.
    pub version: &'static str,
}

struct Context {
    zone: watch::Receiver<Arc<Zone>>,
    shown: Shown,
}

/// The paths below `/v1`.
pub fn router(zone: watch::Receiver<Arc<Zone>>, shown: Shown) -> Router {
    Router::new()
        .route("/v1/version", get(version))
        .route("/v1/config", get(config))
        .route("/v1/hosts/{host}", get(hosts))
        .route("/v1/hosts/{host}/ports", get(ports))
        .route("/v1/services/{service}", get(services))
        .route("/v1/enumerate", get(enumerate))
        .route("/v1/axfr", get(transfer))
        .with_state(Arc::new(Context { zone, shown }))
}

/// A name as it is kept: without wildcards, in lower case, without the dot at its end.
fn clean(name: &str) -> String {
    name.replace(".*", "").trim_end_matches('.').to_lowercase()
}

async fn version(State(context): State<Arc<Context>>) -> Json<Value> {
    Json(json!({
        "Service": "Mesos-DNS",
        "Version": format!("orchestrator {}", context.shown.version),
        "URL": "https://github.com/mesosphere/mesos-dns",
    }))
}

async fn config(State(context): State<Arc<Context>>) -> Json<Value> {
    let (shown, zone) = (&context.shown, context.zone.borrow().clone());
    Json(json!({
        "RefreshSeconds": shown.refresh.as_secs(),
        "TTL": shown.ttl.as_secs(),
        "Domain": zone.domain(),
        "SOAMname": format!("ns1.{}.", zone.domain()),
        "SOARname": format!("root.ns1.{}.", zone.domain()),
        "Masters": shown.masters,
        "Resolvers": shown.upstream,
        "ExternalOn": !shown.upstream.is_empty(),
        "DNSOn": true,
        "HTTPOn": true,
        "EnumerationOn": true,
    }))
}

async fn hosts(State(context): State<Arc<Context>>, Path(host): Path<String>) -> Json<Value> {
    let (zone, name) = (context.zone.borrow().clone(), clean(&host));
    let mut found: Vec<Value> = zone.addresses(&name).iter().map(|it| json!({"host": format!("{name}."), "ip": it.to_string()})).collect();
    if found.is_empty() {
        found.push(json!({"host": "", "ip": ""}));
    }
    Json(found.into())
}

async fn ports() -> Response {
    (StatusCode::NOT_IMPLEMENTED, "To be implemented...").into_response()
}

async fn services(State(context): State<Arc<Context>>, Path(service): Path<String>) -> Json<Value> {
    let zone = context.zone.borrow().clone();
    let record = |(target, port): &(String, u16)| {
        let ip = zone.addresses(target).first().map(IpAddr::to_string).unwrap_or_default();
        json!({"service": service, "host": format!("{target}."), "ip": ip, "port": port.to_string()})
    };
    let mut found: Vec<Value> = zone.services(&clean(&service)).iter().map(record).collect();
    if found.is_empty() {
        found.push(json!({"service": "", "host": "", "ip": "", "port": ""}));
    }
    Json(found.into())
}

/// Every framework with its tasks, and the records that each of them has.
async fn enumerate(State(context): State<Arc<Context>>) -> Json<Value> {
    let zone = context.zone.borrow().clone();
    let record = |it: &Record| json!({"name": format!("{}.", it.name), "host": it.target(), "rtype": it.kind()});
    let frameworks = zone.told().iter().map(|framework| {
        let tasks = framework
            .tasks
            .iter()
            .map(|task| json!({"name": task.name, "id": task.id, "records": task.records.iter().map(record).collect::<Vec<_>>()}));
        json!({"name": framework.name, "tasks": tasks.collect::<Vec<_>>()})
    });
    Json(json!({"frameworks": frameworks.collect::<Vec<_>>()}))
}

/// The whole zone.
async fn transfer(State(context): State<Arc<Context>>) -> Json<Value> {
    let zone = context.zone.borrow().clone();
    let (mut four, mut six, mut services) = (serde_json::Map::new(), serde_json::Map::new(), serde_json::Map::new());
    for (name, addresses, targets) in zone.iter() {
        for (set, is_four) in [(&mut four, true), (&mut six, false)] {
            let texts: Vec<Value> = addresses.iter().filter(|it| it.is_ipv4() == is_four).map(|it| it.to_string().into()).collect();
            if !texts.is_empty() {
                set.insert(format!("{name}."), texts.into());
            }
        }
        if !targets.is_empty() {
            let texts: Vec<Value> = targets.iter().map(|(target, port)| format!("{target}.:{port}").into()).collect();
            services.insert(format!("{name}."), texts.into());
        }
    }
    Json(json!({
        "TTL": context.shown.ttl.as_secs(),
        "Serial": 1,
        "RefreshSeconds": context.shown.refresh.as_secs(),
        "Mname": format!("ns1.{}.", zone.domain()),
        "Rname": format!("root.ns1.{}.", zone.domain()),
        "Domain": zone.domain(),
        "Records": {"As": four, "AAAAs": six, "SRVs": services},
    }))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::cluster::{Agent, Cluster, Framework, Task};

    async fn ask(path: &str) -> (StatusCode, Value) {
        let task = |id: &str, agent: &str, port: u16| Task {
            id: id.to_owned(),
            name: "web.shop".to_owned(),
            agent_id: agent.to_owned(),
            ports: vec![port],
            ..Task::default()
        };
        let agent = |id: &str, address: &str| Agent { id: id.to_owned(), address: address.parse().unwrap(), port: 5051 };
        let cluster = Cluster {
            leader: Some(("10.0.0.1".parse().unwrap(), 5050)),
            agents: vec![agent("m-S0", "10.0.1.0"), agent("m-S1", "10.0.1.1")],
            frameworks: vec![Framework {
                name: "marathon".to_owned(),
                tasks: vec![task("1", "m-S0", 31_000), task("2", "m-S1", 31_001)],
                ..Framework::default()
            }],
            ..Cluster::default()
        };
        let (_sender, zone) = watch::channel(Arc::new(Zone::new("mesos", &cluster)));
        let shown = Shown {
            ttl: Duration::from_secs(60),
            refresh: Duration::from_secs(2),
            masters: vec!["10.0.0.1:5050".to_owned()],
            upstream: Vec::new(),
            version: "1",
        };
        let request = http::Request::get(path).body(axum::body::Body::empty()).unwrap();
        let answer = router(zone, shown).oneshot(request).await.unwrap();
        let status = answer.status();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    #[tokio::test]
    async fn names_are_told_as_mesos_dns_told_them() {
        let (_, hosts) = ask("/v1/hosts/Web-Shop.marathon.mesos.").await;
        assert_eq!(
            hosts,
            json!([{"host": "web-shop.marathon.mesos.", "ip": "10.0.1.0"}, {"host": "web-shop.marathon.mesos.", "ip": "10.0.1.1"}])
        );
        assert_eq!(ask("/v1/hosts/nobody.mesos").await.1, json!([{"host": "", "ip": ""}]));
        let (_, services) = ask("/v1/services/_web-shop._tcp.marathon.mesos").await;
        assert_eq!((services.as_array().unwrap().len(), &services[0]["service"]), (2, &json!("_web-shop._tcp.marathon.mesos")));
        assert_eq!((&services[0]["ip"], &services[0]["port"]), (&json!("10.0.1.0"), &json!("31000")));
        assert!(services[0]["host"].as_str().unwrap().ends_with(".marathon.slave.mesos."), "{services}");
        assert_eq!(ask("/v1/services/_x._tcp.mesos").await.1, json!([{"service": "", "host": "", "ip": "", "port": ""}]));
        assert_eq!(ask("/v1/version").await.1["Service"], "Mesos-DNS");
        assert_eq!(ask("/v1/hosts/a.mesos/ports").await.0, StatusCode::NOT_IMPLEMENTED);
        assert_eq!(ask("/v2").await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn everything_can_be_listed() {
        let (_, all) = ask("/v1/enumerate").await;
        let framework = &all["frameworks"][0];
        assert_eq!((&framework["name"], framework["tasks"].as_array().unwrap().len()), (&json!("marathon"), 2));
        let task = &framework["tasks"][0];
        assert_eq!((&task["name"], &task["id"]), (&json!("web.shop"), &json!("1")));
        let records = task["records"].as_array().unwrap();
        assert!(records.contains(&json!({"name": "web-shop.marathon.mesos.", "host": "10.0.1.0", "rtype": "A"})), "{records:?}");
        assert!(records.iter().any(|it| it["rtype"] == "SRV" && it["host"].as_str().unwrap().ends_with(".mesos.:31000")), "{records:?}");
        let (_, zone) = ask("/v1/axfr").await;
        assert_eq!(zone["Records"]["As"]["leader.mesos."], json!(["10.0.0.1"]));
        assert_eq!(zone["Records"]["SRVs"]["_leader._tcp.mesos."], json!(["leader.mesos.:5050"]));
        assert_eq!((&zone["Domain"], &zone["Records"]["AAAAs"]), (&json!("mesos"), &json!({})));
    }
}
