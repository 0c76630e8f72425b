//! What the role tells of itself over HTTP, under marathon-lb's paths.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::apps::{Backend, Refused};

/// What is known at the moment.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) config: String,
    pub(crate) backends: Vec<Backend>,
    pub(crate) refused: Vec<Refused>,
    /// Why the configuration is not the newest.
    pub(crate) problem: Option<String>,
    pub(crate) looks: u64,
    pub(crate) looks_failed: u64,
    pub(crate) reloads: u64,
    pub(crate) reloads_failed: u64,
    pub(crate) restarts: u64,
}

/// The same, for several.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board(Arc<Mutex<Known>>);

impl Board {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn router(board: Board) -> Router {
    Router::new()
        .route("/_haproxy_getconfig", get(async |State(board): State<Board>| board.lock().config.clone()))
        .route("/_haproxy_getvhostmap", get(async |State(board): State<Board>| vhosts(&board.lock())))
        .route("/_haproxy_getappmap", get(async |State(board): State<Board>| apps(&board.lock())))
        .route("/_haproxy_health_check", get(health))
        .route("/backends", get(async |State(board): State<Board>| Json(backends(&board.lock()))))
        .route("/metrics", get(async |State(board): State<Board>| metrics(&board.lock())))
        .with_state(board)
}

async fn health(State(board): State<Board>) -> impl IntoResponse {
    let known = board.lock();
    match &known.problem {
        None if !known.config.is_empty() => (StatusCode::OK, "OK".to_owned()),
        None => (StatusCode::SERVICE_UNAVAILABLE, "there is no configuration yet".to_owned()),
        Some(problem) => (StatusCode::SERVICE_UNAVAILABLE, problem.clone()),
    }
}

fn named(backend: &Backend) -> String {
    format!("{}_{}", backend.app_id.trim_start_matches('/').replace('/', "_"), backend.service_port)
}

fn vhosts(known: &Known) -> String {
    let hosts = known.backends.iter().flat_map(|it| it.hosts.iter().map(move |host| format!("{host} {}\n", named(it))));
    hosts.collect()
}

fn apps(known: &Known) -> String {
    known.backends.iter().filter(|it| it.port_index == 0).map(|it| format!("{} {}\n", it.app_id, named(it))).collect()
}

fn backends(known: &Known) -> Value {
    let backend = |it: &Backend| {
        let servers: Vec<Value> = it.servers.iter().map(|it| json!({"host": it.host, "port": it.port, "taskId": it.task_id})).collect();
        json!({"appId": it.app_id, "portIndex": it.port_index, "servicePort": it.service_port, "vhosts": it.hosts, "path": it.path, "servers": servers})
    };
    let refused = |it: &Refused| json!({"appId": it.app_id, "portIndex": it.port_index, "reason": it.reason});
    json!({
        "backends": known.backends.iter().map(backend).collect::<Vec<_>>(),
        "refused": known.refused.iter().map(refused).collect::<Vec<_>>(),
        "problem": known.problem,
    })
}

fn metrics(known: &Known) -> String {
    let servers: usize = known.backends.iter().map(|it| it.servers.len()).sum();
    let mut text = String::new();
    for (name, kind, value) in [
        ("backends", "gauge", known.backends.len() as u64),
        ("servers", "gauge", servers as u64),
        ("ports_refused", "gauge", known.refused.len() as u64),
        ("healthy", "gauge", u64::from(known.problem.is_none())),
        ("looks_total", "counter", known.looks),
        ("looks_failed_total", "counter", known.looks_failed),
        ("reloads_total", "counter", known.reloads),
        ("reloads_failed_total", "counter", known.reloads_failed),
        ("haproxy_restarts_total", "counter", known.restarts),
    ] {
        let _ = writeln!(text, "# TYPE orchestrator_lb_{name} {kind}\norchestrator_lb_{name} {value}");
    }
    text
}
