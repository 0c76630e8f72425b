//! Deployments, the queue, and everything about the server itself.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::response::Response;
use http::{HeaderValue, Method, StatusCode, header};
use scheduler::Input;
use scheduler::id::PathId;
use scheduler::instance::{Condition, Goal};
use scheduler::mesos::TaskState;
use scheduler::words;

use super::answer::{Answer, ApiError, deployment_result, empty, not_found, ok, unprocessable};
use super::apps::reads;
use super::measure::{Meter, Timer};
use super::{Call, Context};
use crate::json::Json;
use crate::render;

/// Methods that are measured alone.
const METHODS: [&str; 4] = ["get", "post", "put", "delete"];

/// What the server counts of itself.
#[derive(Debug, Default)]
pub(super) struct HttpCounts {
    classes: [Meter; 6],
    all: Timer,
    /// By method.
    timers: [Timer; METHODS.len()],
    requests: AtomicU64,
    micros: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    bytes_streamed: AtomicU64,
    streams_dropped: AtomicU64,
}

impl HttpCounts {
    pub(super) fn received(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn answered(&self, method: &Method, status: StatusCode, took: Duration, response: &Response) {
        self.classes[usize::from(status.as_u16() / 100).min(5)].mark();
        self.all.took(took);
        if let Some(at) = METHODS.iter().position(|known| known.eq_ignore_ascii_case(method.as_str())) {
            self.timers[at].took(took);
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.bytes_out.fetch_add(response.body().size_hint().lower(), Ordering::Relaxed);
    }

    pub(super) fn streamed(&self, bytes: usize) {
        self.bytes_streamed.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn stream_dropped(&self) {
        self.streams_dropped.fetch_add(1, Ordering::Relaxed);
    }
}

fn redirect(to: &'static str) -> Response {
    let mut response = empty(StatusCode::FOUND);
    response.headers_mut().insert(header::LOCATION, HeaderValue::from_static(to));
    response
}

fn plain(text: impl Into<Body>, kind: &'static str) -> Response {
    let mut response = Response::new(text.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Whether [`route`] knows `path`.
pub(super) fn is_route(path: &str) -> bool {
    matches!(path, "/" | "/ui" | "/ui/" | "/ping" | "/metrics" | "/metrics/prometheus" | "/config" | "/help" | "/logging")
}

/// What is not below `/v2`.
pub(super) fn route(context: &Context, call: &Call) -> Answer {
    match call.path.as_str() {
        "/" => reads(call, || Ok(redirect("/ui/"))),
        "/ui" => reads(call, || Ok(redirect("/ui/"))),
        "/ping" => reads(call, || Ok(ping(call))),
        "/metrics" => reads(call, || metrics(context)),
        "/metrics/prometheus" => reads(call, || Ok(plain(prometheus(context), "text/plain; version=0.0.4"))),
        "/config" => reads(call, || config(context)),
        "/help" => reads(call, || Ok(redirect("/ui/"))),
        "/logging" => super::logging::route(context, call),
        "/ui/" => reads(call, || Ok(plain(UI, "text/html; charset=utf-8"))),
        _ => Err(ApiError::no_route()),
    }
}

/// The old UI is not ours to serve; this says where the state is.
const UI: &str = "<!doctype html><title>Marathon</title><h1>Marathon</h1><ul>\
<li><a href=\"../v2/apps\">apps</a><li><a href=\"../v2/groups\">groups</a><li><a href=\"../v2/deployments\">deployments</a>\
<li><a href=\"../v2/queue\">queue</a><li><a href=\"../v2/tasks\">tasks</a><li><a href=\"../v2/info\">info</a></ul>";

fn ping(call: &Call) -> Response {
    let accept = call.headers.get(header::ACCEPT).and_then(|it| it.to_str().ok()).unwrap_or("*/*");
    let takes = |kind: &str| accept.split(',').any(|it| it.trim().split(';').next().is_some_and(|it| it.trim() == kind));
    if takes("*/*") || takes("text/plain") || takes("text/*") {
        plain("pong", "text/plain")
    } else if takes("application/json") {
        plain("\"pong\"", "application/json")
    } else {
        empty(StatusCode::NO_CONTENT)
    }
}

pub(super) async fn deployments(context: &Context, call: Call, rest: &str) -> Answer {
    let id = rest.trim_matches('/').to_owned();
    if id.is_empty() {
        let view = context.handle().view();
        return reads(&call, || ok(|json| render::deployments(json, &view)));
    }
    if call.method != Method::DELETE {
        return Err(ApiError::no_method());
    }
    let force = call.params.flag("force", false);
    match context.handle().ask(move |ticket| Input::CancelDeployment { ticket, id, force }).await? {
        words::Answer::Planned(plan) => Ok(deployment_result(StatusCode::OK, &plan)),
        words::Answer::Refused(refusal) => Err(refusal.into()),
        _ => Ok(empty(StatusCode::ACCEPTED)),
    }
}

pub(super) async fn queue(context: &Context, call: Call, rest: &str) -> Answer {
    let rest = rest.trim_matches('/');
    if rest.is_empty() {
        if !matches!(call.method, Method::GET | Method::HEAD) {
            return Err(ApiError::no_method());
        }
        let with_offers = call.params.all("embed").any(|word| word == "lastUnusedOffers");
        let items = context.handle().look(|core, now| core.queue(now)).await?;
        let role = context.settings().core.default_role.clone();
        return ok(|json| render::queue::queue(json, &items, &role, with_offers, context.now()));
    }
    let Some(id) = rest.strip_suffix("/delay") else { return Err(ApiError::no_route()) };
    if call.method != Method::DELETE {
        return Err(ApiError::no_method());
    }
    let spec = PathId::absolute(id);
    match context.handle().ask(move |ticket| Input::ResetDelay { ticket, spec }).await? {
        words::Answer::Refused(refusal) => Err(refusal.into()),
        _ => Ok(empty(StatusCode::NO_CONTENT)),
    }
}

pub(super) fn leader(context: &Context, call: &Call) -> Answer {
    match call.method {
        Method::GET | Method::HEAD => ok(|json| json.object(|json| json.text_field("leader", &context.settings().leader()))),
        Method::DELETE => {
            for key in ["backup", "restore"] {
                if call.params.get(key).is_some() {
                    let message =
                        format!("{key} is not supported here: `orchestrator marathon export` and `import` take definitions along");
                    return Err(unprocessable(message));
                }
            }
            // The process ends in good order; whoever supervises it starts it again as a candidate.
            context.inner.abdicate();
            ok(|json| json.object(|json| json.text_field("message", "Leadership abdicated")))
        }
        _ => Err(ApiError::no_method()),
    }
}

pub(super) fn plugins(call: &Call, rest: &str) -> Answer {
    let rest = rest.trim_matches('/');
    if rest.is_empty() {
        return reads(call, || ok(|json| json.object(|json| json.array_field("plugins", [(); 0], |json, ()| json.null()))));
    }
    let id = rest.split('/').next().unwrap_or_default();
    Err(not_found(format!("No plugin with this pluginId: {id}")))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn nullable(json: &mut Json, key: &str, value: Option<&str>) {
    match value {
        Some(value) => json.text_field(key, value),
        None => json.key(key).null(),
    }
}

pub(super) fn info(context: &Context, call: &Call) -> Answer {
    reads(call, || {
        let view = context.handle().view();
        ok(|json| {
            json.object(|json| {
                json.text_field("name", "marathon");
                json.text_field("version", "1.11.24");
                json.text_field("buildref", concat!("orchestrator-", env!("CARGO_PKG_VERSION")));
                json.bool_field("elected", true);
                json.text_field("leader", &context.settings().leader());
                nullable(json, "frameworkId", view.framework_id.as_deref());
                json.key("marathon_config");
                marathon_config(json, context);
                json.object_field("zookeeper_config", |json| {
                    json.key("zk").null();
                    json.bool_field("zk_compression", true);
                    json.integer_field("zk_compression_threshold", 65_536);
                    json.integer_field("zk_connection_timeout", 10_000);
                    json.integer_field("zk_max_node_size", 1_024_000);
                    json.integer_field("zk_max_versions", u32::try_from(context.settings().core.max_versions).unwrap_or(u32::MAX));
                    json.integer_field("zk_session_timeout", 10_000);
                    json.integer_field("zk_timeout", 10_000);
                });
                json.object_field("http_config", |json| {
                    json.integer_field("http_port", context.settings().http_port);
                    json.integer_field("https_port", 8_443);
                });
            });
        })
    })
}

fn marathon_config(json: &mut Json, context: &Context) {
    let settings = context.settings();
    let core = &settings.core;
    let master = settings.masters.join(",");
    json.object(|json| {
        nullable(json, "access_control_allow_origin", settings.access_control_allow_origin.as_deref());
        json.bool_field("checkpoint", settings.checkpoint);
        json.integer_field("decline_offer_duration", millis(core.decline_offer_duration));
        nullable(json, "default_network_name", settings.default_network_name.as_deref());
        nullable(json, "env_vars_prefix", Some(core.env_vars_prefix.as_str()).filter(|it| !it.is_empty()));
        json.text_field("executor", "//cmd");
        json.integer_field("failover_timeout", settings.failover_timeout.as_secs());
        json.texts_field("features", &core.features);
        json.text_field("framework_name", &settings.framework_name);
        json.bool_field("ha", true);
        json.text_field("hostname", &settings.hostname);
        json.integer_field("launch_token", core.launch_tokens);
        json.integer_field("launch_token_refresh_interval", millis(core.launch_token_refresh_interval));
        json.integer_field("leader_proxy_connection_timeout_ms", 5_000);
        json.integer_field("leader_proxy_read_timeout_ms", 10_000);
        json.integer_field("local_port_max", core.local_ports.1);
        json.integer_field("local_port_min", core.local_ports.0);
        json.bool_field("maintenance_mode", true);
        json.text_field("master", &master);
        json.integer_field("max_instances_per_offer", u32::try_from(core.max_instances_per_offer).unwrap_or(u32::MAX));
        json.text_field("mesos_bridge_name", &settings.mesos_bridge_name);
        json.integer_field("mesos_heartbeat_failure_threshold", 5);
        json.integer_field("mesos_heartbeat_interval", 15_000);
        json.text_field("mesos_leader_ui_url", &format!("{}/", settings.masters.first().map_or("", String::as_str)));
        json.text_field("mesos_role", &core.default_role);
        json.text_field("mesos_user", &settings.user);
        json.integer_field("min_revive_offers_interval", millis(core.min_revive_offers_interval));
        json.text_field("new_group_enforce_role", if core.new_group_enforce_role { "top" } else { "off" });
        json.integer_field("offer_matching_timeout", 3_000);
        json.integer_field("on_elected_prepare_timeout", 180_000);
        json.integer_field("reconciliation_initial_delay", millis(core.reconciliation_initial_delay));
        json.integer_field("reconciliation_interval", millis(core.reconciliation_interval));
        json.integer_field("scale_apps_initial_delay", millis(core.scale_apps_initial_delay));
        json.integer_field("scale_apps_interval", millis(core.scale_apps_interval));
        json.bool_field("store_cache", true);
        json.integer_field("task_launch_confirm_timeout", millis(core.task_launch_confirm_timeout));
        json.integer_field("task_launch_timeout", millis(core.task_launch_timeout));
        json.integer_field("task_lost_expunge_initial_delay", 300_000);
        json.integer_field("task_lost_expunge_interval", 30_000);
        json.integer_field("task_reservation_timeout", 20_000);
        nullable(json, "webui_url", settings.webui_url.as_deref());
    });
}

fn config(context: &Context) -> Answer {
    ok(|json| marathon_config(json, context))
}

type Named<T> = Vec<(String, T)>;

/// Names and values of everything that is counted, and everything that is measured.
fn numbers(context: &Context) -> (Named<u64>, Named<f64>) {
    let view = context.handle().view();
    let (totals, counts) = (view.totals, &context.inner.counts);
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let mut counters: Vec<(String, u64)> = vec![
        ("deployments.counter".into(), totals.deployments),
        ("deployments.dismissed.counter".into(), totals.deployments_dismissed),
        ("persistence.gc.runs.counter".into(), 0),
        ("tasks.launched.counter".into(), totals.tasks_launched),
        ("mesos.calls.revive.counter".into(), totals.calls_revive),
        ("mesos.calls.suppress.counter".into(), totals.calls_suppress),
        ("mesos.offer-operations.launch-group.counter".into(), totals.operations_launch_group),
        ("mesos.offer-operations.launch.counter".into(), totals.operations_launch),
        ("mesos.offer-operations.reserve.counter".into(), totals.operations_reserve),
        ("mesos.offers.declined.counter".into(), totals.offers_declined),
        ("mesos.offers.incoming.counter".into(), totals.offers_incoming),
        ("mesos.offers.used.counter".into(), totals.offers_used),
        ("http.requests.size.counter.bytes".into(), load(&counts.bytes_in)),
        ("http.responses.size.counter.bytes".into(), load(&counts.bytes_out)),
        ("http.responses.size.gzipped.counter.bytes".into(), 0),
        ("http.responses.event-stream.size.counter.bytes".into(), load(&counts.bytes_streamed)),
        ("http.event-streams.dropped.counter".into(), load(&counts.streams_dropped)),
        ("http.requests.counter".into(), load(&counts.requests)),
        ("http.requests.duration.counter.microseconds".into(), load(&counts.micros)),
    ];
    let scaled = &context.handle().autoscale().totals;
    counters.extend([
        ("autoscale.decisions.counter".into(), load(&scaled.decisions)),
        ("autoscale.scale-ups.counter".into(), load(&scaled.ups)),
        ("autoscale.scale-downs.counter".into(), load(&scaled.downs)),
        ("autoscale.refused.counter".into(), load(&scaled.refused)),
        ("autoscale.missing-data.counter".into(), load(&scaled.blind)),
        ("autoscale.looks-failed.counter".into(), load(&scaled.looks_failed)),
    ]);
    for (at, (_, word)) in TaskState::ALL.iter().enumerate() {
        counters.push((format!("mesos.task-updates.{}.counter", word.to_lowercase().replace('_', "-")), totals.updates[at]));
    }
    let (mut running, mut staged, mut overdue) = (0_u64, 0_u64, 0_u64);
    for state in view.specs.values() {
        running += u64::from(state.counts.running);
        staged += u64::from(state.counts.staged);
    }
    let now = context.now();
    let allowed = context.settings().core.task_launch_timeout;
    for instance in view.specs.values().filter(|state| state.counts.staged > 0).flat_map(|state| state.instances.values()) {
        let launching = matches!(instance.condition, Condition::Provisioned | Condition::Staging | Condition::Starting);
        overdue += u64::from(launching && instance.goal == Goal::Running && now.since(instance.since) > allowed);
    }
    let pods = view.root.specs().filter(|(_, spec)| super::tasks::is_pod(spec)).count();
    let uptime = context.inner.started.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "counts of things are far below 2^52")]
    let gauges = vec![
        ("apps.active.gauge".into(), (view.root.spec_count() - pods) as f64),
        ("pods.active.gauge".into(), pods as f64),
        ("groups.active.gauge".into(), view.root.group_count() as f64),
        ("deployments.active.gauge".into(), view.deployments.len() as f64),
        ("instances.running.gauge".into(), running as f64),
        ("instances.staged.gauge".into(), staged as f64),
        ("instances.launch-overdue.gauge".into(), overdue as f64),
        ("instances.inflight-kills.gauge".into(), view.kills.0 as f64),
        ("instances.inflight-kill-attempts.gauge".into(), view.kills.1 as f64),
        ("leadership.duration.gauge.seconds".into(), uptime),
        ("uptime.gauge.seconds".into(), uptime),
        ("http.requests.active.gauge".into(), context.inner.active.load(Ordering::Relaxed) as f64),
        ("http.event-streams.active.gauge".into(), context.handle().bus().listeners() as f64),
        ("autoscale.apps.gauge".into(), context.handle().autoscale().statuses().len() as f64),
        ("mesos.connected.gauge".into(), f64::from(u8::from(view.connected))),
    ];
    (counters, gauges)
}

/// What is timed, by name.
fn timers(counts: &HttpCounts) -> impl Iterator<Item = (String, &Timer)> {
    let by_method =
        METHODS.iter().zip(&counts.timers).map(|(method, timer)| (format!("http.requests.{method}.duration.timer.seconds"), timer));
    std::iter::once(("http.requests.duration.timer.seconds".to_owned(), &counts.all)).chain(by_method)
}

fn metrics(context: &Context) -> Answer {
    let (counters, gauges) = numbers(context);
    let counts = &context.inner.counts;
    ok(|json| {
        json.object(|json| {
            json.text_field("version", "4.0.0");
            json.object_field("counters", |json| {
                for (name, value) in &counters {
                    json.object_field(&format!("marathon.{name}"), |json| json.integer_field("count", *value));
                }
            });
            json.object_field("gauges", |json| {
                for (name, value) in &gauges {
                    json.object_field(&format!("marathon.{name}"), |json| json.number_field("value", *value));
                }
            });
            json.object_field("histograms", |_| {});
            json.object_field("meters", |json| {
                for class in 1..=5 {
                    counts.classes[class].write(json.key(&format!("marathon.http.responses.{class}xx.rate.meter")));
                }
            });
            json.object_field("timers", |json| {
                for (name, timer) in timers(counts) {
                    timer.write(json.key(&format!("marathon.{name}")));
                }
            });
        });
    })
}

pub(super) fn prometheus(context: &Context) -> String {
    let (counters, gauges) = numbers(context);
    let mut text = String::new();
    let plain = |name: &str| format!("marathon_{}", name.replace(['.', '-'], "_"));
    for (name, value) in counters {
        let name = plain(&name);
        let _ = writeln!(text, "# TYPE {name} counter\n{name} {value}");
    }
    for (name, value) in gauges {
        let name = plain(&name);
        let _ = writeln!(text, "# TYPE {name} gauge\n{name} {value}");
    }
    let counts = &context.inner.counts;
    for class in 1..=5 {
        let name = plain(&format!("http.responses.{class}xx.rate.meter"));
        let _ = writeln!(text, "# TYPE {name} counter\n{name} {}", counts.classes[class].count());
    }
    for (name, timer) in timers(counts) {
        timer.prometheus(&plain(&name), &mut text);
    }
    text
}
