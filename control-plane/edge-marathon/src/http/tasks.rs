//! `/v2/tasks`, and the tasks of apps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, Method, StatusCode, header};
use scheduler::id::{InstanceId, PathId, TaskId};
use scheduler::instance::{Goal, Instance};
use scheduler::mesos::TaskState;
use scheduler::model::app::App;
use scheduler::model::spec::Spec;
use scheduler::words::{self, Change, Edit, Expect};
use scheduler::{Input, View};
use serde_json::Value;

use super::answer::{Answer, ApiError, change, deployment_result, error, not_found, ok, parse};
use super::apps::app_of;
use super::{Call, Context};
use crate::json::Reading;
use crate::render;

pub(super) async fn route(context: &Context, call: Call, rest: &str) -> Answer {
    match (&call.method, rest.trim_matches('/')) {
        (&Method::GET | &Method::HEAD, "") => list(context, &call),
        (&Method::POST, "delete") => delete(context, &call).await,
        (_, "" | "delete") => Err(ApiError::no_method()),
        _ => Err(ApiError::no_route()),
    }
}

fn list(context: &Context, call: &Call) -> Answer {
    let view = context.handle().view();
    if wants_lines(call) {
        return Ok(lines(&view, view.root.specs().filter_map(|(_, spec)| spec.app())));
    }
    let mut states = BTreeSet::new();
    for word in call.params.all("status").chain(call.params.all("status[]")) {
        match word {
            "running" => states.insert(TaskState::Running),
            "staging" => states.insert(TaskState::Staging),
            _ => false,
        };
    }
    let shown = |it: &&Arc<Instance>| {
        let state = it.tasks.first().map(|task| task.state.unwrap_or_else(|| it.condition.task_state()));
        render::is_shown(it) && (states.is_empty() || state.is_some_and(|state| states.contains(&state)))
    };
    let all = view.root.specs().filter_map(|(id, spec)| Some((id, spec.app()?.service_ports())));
    let tasks = all.flat_map(|(id, ports)| view.instances_of(id).filter(shown).map(move |it| (it, ports.clone())));
    ok(|json| json.object(|json| json.array_field("tasks", tasks, |json, (it, ports)| render::task(json, it, Some(&ports)))))
}

/// Whether the list of endpoints is wanted, which scripts that write the configuration of load balancers read.
fn wants_lines(call: &Call) -> bool {
    let accept = call.headers.get(header::ACCEPT).and_then(|it| it.to_str().ok()).unwrap_or("*/*");
    accept.contains("text/plain") && !accept.contains("application/json")
}

fn lines<'a>(view: &View, apps: impl Iterator<Item = &'a Arc<App>>) -> Response {
    let mut response = Response::new(Body::from(render::endpoint_lines(view, apps)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// The tasks of an app, or of all apps below a group when `path` ends in `*`.
pub(super) fn of_app(context: &Context, call: &Call, path: &str) -> Answer {
    let view = context.handle().view();
    let ids: Vec<PathId> = match path.strip_suffix('*') {
        Some(group) => {
            let group = PathId::absolute(group);
            if view.root.group(&group).is_none() {
                return Err(not_found(format!("Group '{group}' does not exist")));
            }
            view.root.specs_below(&group).filter(|(_, spec)| !spec.is_pod()).map(|(id, _)| id.clone()).collect()
        }
        None => vec![app_of(&view, &PathId::absolute(path))?.id.clone()],
    };
    if wants_lines(call) {
        return Ok(lines(&view, ids.iter().filter_map(|id| view.root.spec(id)?.app())));
    }
    let tasks = ids.iter().flat_map(|id| view.instances_of(id)).filter(|it| render::is_shown(it));
    ok(|json| json.object(|json| json.array_field("tasks", tasks, |json, it| render::task(json, it, None))))
}

#[derive(Clone, Copy)]
struct How {
    scale: bool,
    wipe: bool,
    force: bool,
}

impl How {
    fn of(call: &Call) -> Result<How, ApiError> {
        let how =
            How { scale: call.params.flag("scale", false), wipe: call.params.flag("wipe", false), force: call.params.flag("force", false) };
        if how.scale && how.wipe {
            return Err(error(StatusCode::BAD_REQUEST, "You cannot use scale and wipe at the same time."));
        }
        Ok(how)
    }
}

pub(super) async fn kill_of_app(context: &Context, call: &Call, id: &PathId, task: Option<&str>) -> Answer {
    let how = How::of(call)?;
    let view = context.handle().view();
    app_of(&view, id)?;
    let host = call.params.get("host").filter(|host| *host != "*");
    let wanted = |it: &Instance| match task {
        Some(task) => it.tasks.iter().any(|known| known.id.as_str() == task),
        None => render::is_shown(it) && host.is_none_or(|host| it.host() == Some(host)),
    };
    let victims: Vec<InstanceId> = view.instances_of(id).filter(|it| wanted(it)).map(|it| it.id.clone()).collect();
    if let (Some(task), true) = (task, victims.is_empty()) {
        return Err(not_found(format!("Task '{task}' does not exist")));
    }
    if how.scale {
        return scale(context, how, victims).await;
    }
    let killed = kill(context, how, victims).await?;
    ok(|json| {
        json.object(|json| match (task, killed.first()) {
            (Some(_), Some(it)) => render::task(json.key("task"), it, None),
            _ => json.array_field("tasks", &killed, |json, it| render::task(json, it, None)),
        });
    })
}

async fn delete(context: &Context, call: &Call) -> Answer {
    let how = How::of(call)?;
    let value = parse(call)?;
    let reading = Reading::default();
    let ids: Option<Vec<String>> = reading.object(&value, "").and_then(|form| {
        if !form.has("ids") {
            form.wrong("ids", "error.path.missing");
        }
        form.strings("ids")
    });
    super::answer::judge(reading)?;
    let view = context.handle().view();
    let mut victims = Vec::new();
    for text in ids.unwrap_or_default() {
        let Some(task) = TaskId::parse(&text) else {
            return Err(error(StatusCode::BAD_REQUEST, format!("Invalid task id '{text}'. [it has none of the forms that task ids have]")));
        };
        let known = |it: &Arc<Instance>| it.tasks.iter().any(|known| known.id == task) || text == it.id.as_str();
        victims.extend(view.instance(&task.instance()).filter(|it| known(it)).map(|it| it.id.clone()));
    }
    if how.scale {
        if victims.is_empty() {
            return Err(not_found("No task of the given ids belongs to a known app"));
        }
        return scale(context, how, victims).await;
    }
    let killed = kill(context, how, victims).await?;
    ok(|json| json.object(|json| json.array_field("tasks", &killed, |json, it| render::task(json, it, None))))
}

pub(super) async fn kill_instances(context: &Context, victims: Vec<InstanceId>, wipe: bool) -> Result<Vec<Arc<Instance>>, ApiError> {
    match context.handle().ask(move |ticket| Input::Kill { ticket, instances: victims, wipe }).await? {
        words::Answer::Killed(killed) => Ok(killed),
        words::Answer::Refused(refusal) => Err(refusal.into()),
        _ => Err(error(StatusCode::INTERNAL_SERVER_ERROR, "an answer that does not belong to a kill")),
    }
}

async fn kill(context: &Context, how: How, victims: Vec<InstanceId>) -> Result<Vec<Arc<Instance>>, ApiError> {
    kill_instances(context, victims, how.wipe).await
}

/// One deployment that lowers the numbers by what is to be killed.
async fn scale(context: &Context, how: How, victims: Vec<InstanceId>) -> Answer {
    let plan = change(context, |view| {
        let sentenced = by_app(view, &victims);
        let mut edits = Vec::new();
        for (id, victims) in &sentenced {
            let Some(spec) = view.root.spec(id) else { continue };
            let instances = spec.instances().saturating_sub(u32::try_from(victims.len()).unwrap_or(u32::MAX));
            edits.push(Edit::Put { spec: spec.with_instances(instances), expect: Expect::Version(spec.version()) });
        }
        Ok(Change { edits, force: how.force, sentenced, ..Change::default() })
    })
    .await?;
    Ok(deployment_result(StatusCode::OK, &plan))
}

/// Those that are active and not on their way out already.
fn by_app(view: &View, victims: &[InstanceId]) -> BTreeMap<PathId, Vec<InstanceId>> {
    let mut all: BTreeMap<PathId, Vec<InstanceId>> = BTreeMap::new();
    for id in victims {
        if view.instance(id).is_some_and(|it| it.goal == Goal::Running && it.facts().wanted) {
            all.entry(id.spec()).or_default().push(id.clone());
        }
    }
    all
}

/// The texts of a bare array.
pub(super) fn read_ids(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|it| it.as_str().map(str::to_owned)).collect()
}

/// Whether `spec` is a pod.
pub(super) fn is_pod(spec: &Spec) -> bool {
    spec.is_pod()
}
