//! What scripts, Prometheus and restarters rely on.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xtask::http;

use crate::world::{PATIENCE, stack};

#[test]
fn health_readiness_and_metrics_are_served_by_both_programs() -> Result<()> {
    let Some(mut stack) = stack()? else { return Ok(()) };
    for server in [stack.http(), stack.admin()] {
        ensure!(http::get(server, "/health")?.status == 200, "{server} is healthy");
        stack.until(PATIENCE, "it is ready", |_| http::get(server, "/ready").is_ok_and(|reply| reply.status == 200))?;
        let metrics = http::get(server, "/metrics")?;
        ensure!(metrics.status == 200 && metrics.text().contains("# TYPE "), "{server} has metrics: {}", metrics.text());
    }
    let metric = |stack: &xtask::stack::Stack, name: &str| {
        let text = http::get(stack.http(), "/metrics").map(|reply| reply.text()).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok())
    };
    stack.until(PATIENCE, "one probe is counted", |stack| metric(stack, "monitoring_app_probes_connected") == Some(1.0))?;
    ensure!(metric(&stack, "monitoring_app_containers_total").is_some(), "containers are counted");
    Ok(())
}

#[test]
fn every_path_of_the_openapi_document_answers() -> Result<()> {
    let Some(stack) = stack()? else { return Ok(()) };
    let document = http::get_json(stack.http(), "/api/openapi.json")?;
    ensure!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.")), "{document:.200}");
    let paths = document["paths"].as_object().context("the document has no paths")?;
    for needed in ["/api/topology", "/api/v1/flows", "/api/v1/probes", "/metrics", "/health", "/ready"] {
        ensure!(paths.contains_key(needed), "{needed} is not in the document");
    }
    for (path, item) in paths.iter().filter(|(path, item)| !path.contains('{') && item.get("get").is_some()) {
        let reply = http::get(stack.http(), path)?;
        let status = reply.status.to_string();
        ensure!(item["get"]["responses"].get(&status).is_some(), "{path} answers {status}, which the document does not tell of");
        ensure!(reply.status < 500, "{path} answers {status}: {:.200}", reply.text());
    }
    Ok(())
}

#[test]
fn nothing_is_lost_while_nothing_is_out_of_the_ordinary() -> Result<()> {
    let Some(stack) = stack()? else { return Ok(()) };
    let probe = stack.probe_state()?;
    ensure!(probe["connected"] == true, "{probe}");
    ensure!(probe["capture"]["rung"] == 1, "the best rung is stood on: {}", probe["capture"]);
    let losses = &probe["losses"];
    for counter in ["flowsUncounted", "socketsUnowned", "tableFull"] {
        ensure!(losses[counter] == 0, "{counter}: {losses}");
    }
    let rings = losses["ringRecords"].as_object().context("no losses by ring")?;
    ensure!(rings.values().all(|lost| lost == &Value::from(0)), "{losses}");
    Ok(())
}
