//! Programs that are killed, and what is left on the map.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use xtask::http;

use crate::world::{PATIENCE, connect, has_edge, nodes, serve, stack, traffic};

/// How long probes may take to resync with a control plane that was killed and started again.
const RESYNC: Duration = Duration::from_secs(5);
/// How long what is gone stays on the map by default.
const WINDOW: Duration = Duration::from_secs(15);

#[test]
fn a_control_plane_that_was_killed_has_the_whole_map_again_within_five_seconds() -> Result<()> {
    let Some(mut stack) = stack()? else { return Ok(()) };
    let (server, listening) = serve(&mut traffic(), "127.0.0.1:0", 0)?;
    let (client, _) = connect(&mut traffic(), listening, 5, 100)?;
    let (from, to) = (format!(";{}", client.pid()), format!(";{}", server.pid()));
    stack.until(PATIENCE, "the edge is on the map", |stack| has_edge(stack, "processes", &from, &to))?;
    let before = nodes(&stack, "processes")?.len();

    stack.kill_control()?;
    // While nobody listens, the probe has something new to keep.
    let (late_client, _) = connect(&mut traffic(), listening, 1, 100)?;
    stack.start_control()?;
    let begun = Instant::now();
    let late = format!(";{}", late_client.pid());
    stack.until(PATIENCE, "the map is whole again", |stack| {
        has_edge(stack, "processes", &from, &to) && has_edge(stack, "processes", &late, &to)
    })?;
    ensure!(begun.elapsed() < RESYNC, "the resync took {:?}", begun.elapsed());
    let after = nodes(&stack, "processes")?.len();
    ensure!(after + 10 > before, "{before} processes before, {after} after: some are missing");
    ensure!(http::get(stack.http(), "/")?.status == 200, "the page is back");
    Ok(())
}

#[test]
fn what_a_killed_probe_knew_leaves_the_map_after_the_window() -> Result<()> {
    let Some(mut stack) = stack()? else { return Ok(()) };
    stack.until(PATIENCE, "the host is on the map", |stack| {
        nodes(stack, "hosts").is_ok_and(|nodes| nodes.keys().any(|id| id.ends_with(";<host>")))
    })?;
    stack.kill_probe()?;
    stack.until(WINDOW + PATIENCE, "host and processes are gone", |stack| {
        let gone = |view: &str, ending: &str| nodes(stack, view).is_ok_and(|nodes| !nodes.keys().any(|id| id.ends_with(ending)));
        gone("hosts", ";<host>") && nodes(stack, "processes").is_ok_and(|nodes| nodes.is_empty())
    })?;
    let state = http::get_json(stack.http(), "/api/v1/probes")?;
    let connected = state["probes"].as_array().into_iter().flatten().any(|probe| probe["connected"] == true);
    ensure!(!connected, "a killed probe is told as connected: {state}");
    stack.start_probe()?;
    stack.until(PATIENCE, "the host is back", |stack| {
        nodes(stack, "hosts").is_ok_and(|nodes| nodes.keys().any(|id| id.ends_with(";<host>")))
    })
}

#[test]
fn both_programs_stop_when_asked() -> Result<()> {
    let Some(mut stack) = stack()? else { return Ok(()) };
    let took = stack.stop()?;
    // Ten seconds each is when they would have been killed.
    ensure!(took < Duration::from_secs(8), "stopping took {took:?}");
    Ok(())
}
