//! `/v2/apps`.

use std::sync::Arc;

use http::{Method, StatusCode};
use scheduler::View;
use scheduler::id::PathId;
use scheduler::model::app::App;
use scheduler::model::spec::Spec;
use scheduler::moment::{iso, parse_iso};
use scheduler::plan::Plan;
use scheduler::words::{Change, Edit, Expect, Violation};
use serde_json::{Map, Value};

use super::answer::{
    Answer, ApiError, change, deployment_result, json, judge, not_found, ok, parse, unprocessable, with_deployment, with_location,
};
use super::selector::Selector;
use super::{Call, Context, autoscale, tasks};
use crate::events::simple;
use crate::json::app::{app_fields, merged, read_app, write_app};
use crate::json::{Json, Reading};
use crate::render::{self, Embed};

pub(super) async fn route(context: &Context, call: Call, rest: &str) -> Answer {
    let rest = rest.trim_matches('/');
    if rest.is_empty() {
        return match call.method {
            Method::GET | Method::HEAD => list(context, &call),
            Method::POST => create(context, &call).await,
            Method::PUT => change_many(context, &call, true).await,
            Method::PATCH => change_many(context, &call, false).await,
            _ => Err(ApiError::no_method()),
        };
    }
    if let Some(id) = rest.strip_suffix("/restart") {
        return match call.method {
            Method::POST => restart(context, &call, &PathId::absolute(id)).await,
            Method::DELETE => delete(context, &call, &PathId::absolute(rest)).await,
            _ => Err(ApiError::no_method()),
        };
    }
    if let Some(id) = rest.strip_suffix("/versions") {
        return reads(&call, || versions(context, &PathId::absolute(id)));
    }
    if let Some((id, version)) = rest.rsplit_once("/versions/").filter(|(_, version)| !version.contains('/')) {
        return reads(&call, || version_of(context, &PathId::absolute(id), version));
    }
    if let Some(id) = rest.strip_suffix("/tasks") {
        return match call.method {
            Method::GET | Method::HEAD => tasks::of_app(context, &call, id),
            Method::DELETE => tasks::kill_of_app(context, &call, &PathId::absolute(id), None).await,
            _ => Err(ApiError::no_method()),
        };
    }
    if let Some((id, task)) = rest.rsplit_once("/tasks/").filter(|(_, task)| !task.contains('/')) {
        return match call.method {
            Method::DELETE => tasks::kill_of_app(context, &call, &PathId::absolute(id), Some(task)).await,
            _ => Err(ApiError::no_method()),
        };
    }
    let id = PathId::absolute(rest);
    if let Some(app) = rest.strip_suffix("/autoscale").filter(|_| context.handle().view().root.spec(&id).is_none()) {
        return autoscale::of_app(context, &call, &PathId::absolute(app)).await;
    }
    match call.method {
        Method::GET | Method::HEAD if rest == "*" || rest.ends_with("/*") => all_below(context, &call, rest.trim_end_matches('*')),
        Method::GET | Method::HEAD => show(context, &call, &id),
        Method::PUT => put(context, &call, &id, true).await,
        Method::PATCH => put(context, &call, &id, false).await,
        Method::DELETE => delete(context, &call, &id).await,
        _ => Err(ApiError::no_method()),
    }
}

/// Answers a question that changes nothing.
pub(super) fn reads(call: &Call, answer: impl FnOnce() -> Answer) -> Answer {
    if matches!(call.method, Method::GET | Method::HEAD) { answer() } else { Err(ApiError::no_method()) }
}

pub(super) fn no_app(id: &PathId) -> ApiError {
    not_found(format!("App '{id}' does not exist"))
}

pub(super) fn app_of<'a>(view: &'a View, id: &PathId) -> Result<&'a Arc<App>, ApiError> {
    view.root.spec(id).and_then(Spec::app).ok_or_else(|| no_app(id))
}

/// The words of `embed=`, with whichever prefix.
pub(super) fn embed(call: &Call, mut embed: Embed) -> Embed {
    for word in call.params.all("embed") {
        let word = ["group.apps.", "apps.", "app."].iter().find_map(|prefix| word.strip_prefix(prefix)).unwrap_or(word);
        embed.add(word);
    }
    embed
}

fn list(context: &Context, call: &Call) -> Answer {
    let lower = |key: &str| call.params.get(key).map(str::to_lowercase).filter(|text| !text.is_empty());
    let (cmd, id) = (lower("cmd"), lower("id"));
    let label = call.params.get("label").filter(|text| !text.is_empty()).map(Selector::parse).transpose().map_err(unprocessable)?;
    let embed = embed(call, Embed { counts: true, deployments: true, ..Embed::default() });
    let view = context.handle().view();
    let now = context.now();
    let wanted = |app: &&Arc<App>| {
        cmd.as_ref().is_none_or(|text| app.cmd.as_ref().is_some_and(|cmd| cmd.to_lowercase().contains(text)))
            && id.as_ref().is_none_or(|text| app.id.as_str().to_lowercase().contains(text))
            && label.as_ref().is_none_or(|selector| selector.matches(&app.labels))
    };
    let apps = view.root.specs().filter_map(|(_, spec)| spec.app()).filter(wanted);
    ok(|json| json.object(|json| json.array_field("apps", apps, |json, app| render::app(json, &view, app, embed, now))))
}

const ALL: Embed = Embed { tasks: true, counts: true, deployments: true, readiness: false, last_failure: true, task_stats: false };

fn show(context: &Context, call: &Call, id: &PathId) -> Answer {
    let view = context.handle().view();
    let app = app_of(&view, id)?;
    let embed = embed(call, ALL);
    ok(|json| json.object(|json| render::app(json.key("app"), &view, app, embed, context.now())))
}

fn all_below(context: &Context, call: &Call, group: &str) -> Answer {
    let view = context.handle().view();
    let group = PathId::absolute(group);
    if view.root.group(&group).is_none() {
        return Err(not_found(format!("Group '{group}' does not exist")));
    }
    let embed = embed(call, ALL);
    ok(|json| json.object(|json| render::groups::apps_below(json.key("*"), &view, &group, embed, context.now())))
}

async fn create(context: &Context, call: &Call) -> Answer {
    let value = parse(call)?;
    let reading = Reading::default();
    let app = reading.object(&value, "").map(|form| read_app(&form, None, &PathId::root(), &context.defaults()));
    judge(reading)?;
    let Some(app) = app else { return Err(unprocessable("Object is not valid")) };
    let id = app.id.clone();
    let spec = Spec::App(Arc::new(app));
    let force = call.params.flag("force", false);
    let plan = change(context, |_| {
        Ok(Change { edits: vec![Edit::Put { spec: spec.clone(), expect: Expect::Absent }], force, ..Change::default() })
    })
    .await?;
    let made = plan.changes.get(&id).and_then(|it| it.to.as_ref()).and_then(Spec::app).cloned();
    let Some(made) = made else { return Err(no_app(&id)) };
    tell(context, call, &made);
    let body = Json::bytes(|json| {
        json.object(|json| {
            app_fields(json, &made);
            for key in ["tasksStaged", "tasksRunning", "tasksHealthy", "tasksUnhealthy"] {
                json.integer_field(key, 0);
            }
            json.array_field("deployments", [&plan.id], |json, id| json.object(|json| json.text_field("id", id)));
            json.array_field("tasks", [(); 0], |json, ()| json.null());
        });
    });
    Ok(with_location(with_deployment(json(StatusCode::CREATED, body), &plan), call, id.as_str()))
}

fn tell(context: &Context, call: &Call, app: &App) {
    let bus = context.handle().bus();
    if bus.listeners() > 0 {
        bus.send(simple("api_post_event", |json| {
            json.text_field("clientIp", &call.peer);
            json.text_field("uri", &call.path);
            json.key("appDefinition");
            write_app(json, app);
        }));
    }
}

/// The edit that an update means for what is defined now, and whether that was there.
fn edit(
    context: &Context,
    view: &View,
    id: &PathId,
    update: &Map<String, Value>,
    (partial, may_create): (bool, bool),
    path: &str,
    reading: &Reading,
) -> Result<(Edit, bool), ApiError> {
    let current = view.root.spec(id).and_then(Spec::app);
    if current.is_none() && !may_create {
        return Err(no_app(id));
    }
    let given: Vec<&String> = update.iter().filter(|(key, value)| !value.is_null() && *key != "id").map(|(key, _)| key).collect();
    let version = update.get("version").filter(|it| !it.is_null());
    // A whole definition may bear the version it was read with, which says nothing of what it is to become.
    let goes_back = if current.is_some() { partial } else { given.len() == 1 };
    if let Some(version) = version.filter(|_| goes_back) {
        if given.len() > 1 {
            let at = if path.is_empty() { "/" } else { path };
            return Err(ApiError::invalid(&[Violation::new(at, "The 'version' field may only be combined with the 'id' field.")]));
        }
        let version = rollback(view, id, version)?;
        let expect = current.map_or(Expect::Anything, |it| Expect::Version(it.version));
        return Ok((Edit::Put { spec: version, expect }, current.is_some()));
    }
    let fields = match current {
        Some(current) if partial => merged(current, update),
        _ => update.clone(),
    };
    let fields = Value::Object(fields);
    let app = reading.object(&fields, path).map(|form| read_app(&form, Some(id), &PathId::root(), &context.defaults()));
    let Some(app) = app else { return Err(unprocessable("Object is not valid")) };
    let expect = current.map_or(Expect::Anything, |it| Expect::Version(it.version));
    Ok((Edit::Put { spec: Spec::App(Arc::new(app)), expect }, current.is_some()))
}

/// What an app was. A version that is not kept is as unknown as an app that never was.
fn rollback(view: &View, id: &PathId, version: &Value) -> Result<Spec, ApiError> {
    let at = timestamp(version.as_str().unwrap_or_default())?;
    let found = view.history.get(id).and_then(|versions| versions.get(&at)).filter(|spec| !spec.is_pod());
    found.cloned().ok_or_else(|| no_app(id))
}

/// A moment out of a path or a body.
pub(super) fn timestamp(text: &str) -> Result<base::Timestamp, ApiError> {
    parse_iso(text).ok_or_else(|| unprocessable(format!("Invalid timestamp provided '{text}'. Expecting ISO-8601 datetime string.")))
}

async fn put(context: &Context, call: &Call, id: &PathId, may_create: bool) -> Answer {
    let value = parse(call)?;
    let Value::Object(update) = &value else {
        let reading = Reading::default();
        reading.form("/", "error.expected.jsobject");
        judge(reading)?;
        return Err(unprocessable("Object is not valid"));
    };
    let partial = !may_create || call.params.flag("partialUpdate", true);
    let force = call.params.flag("force", false);
    let mut existed = false;
    let plan = change(context, |view| {
        let reading = Reading::default();
        let (edit, there) = edit(context, view, id, update, (partial, may_create), "", &reading)?;
        judge(reading)?;
        existed = there;
        Ok(Change { edits: vec![edit], force, ..Change::default() })
    })
    .await?;
    if let Some(app) = context.handle().view().root.spec(id).and_then(Spec::app) {
        tell(context, call, app);
    }
    let status = if existed { StatusCode::OK } else { StatusCode::CREATED };
    let response = deployment_result(status, &plan);
    Ok(if existed { response } else { with_location(response, call, id.as_str()) })
}

async fn change_many(context: &Context, call: &Call, may_create: bool) -> Answer {
    let value = parse(call)?;
    let Value::Array(updates) = &value else {
        let reading = Reading::default();
        reading.form("/", "error.expected.jsarray");
        judge(reading)?;
        return Err(unprocessable("Object is not valid"));
    };
    let partial = !may_create || call.params.flag("partialUpdate", true);
    let force = call.params.flag("force", false);
    let plan = change(context, |view| {
        let reading = Reading::default();
        let mut edits = Vec::new();
        for (at, update) in updates.iter().enumerate() {
            let path = format!("({at})");
            let Value::Object(update) = update else {
                reading.form(path, "error.expected.jsobject");
                continue;
            };
            match update.get("id") {
                Some(Value::String(id)) => {
                    let id = PathId::absolute(id);
                    edits.push(edit(context, view, &id, update, (partial, may_create), &path, &reading)?.0);
                }
                None | Some(Value::Null) => return Err(unprocessable("App Update must have app id set")),
                Some(_) => reading.form(format!("{path}/id"), "error.expected.jsstring"),
            }
        }
        judge(reading)?;
        Ok(Change { edits, force, ..Change::default() })
    })
    .await?;
    Ok(deployment_result(StatusCode::OK, &plan))
}

async fn simple_change(context: &Context, id: &PathId, edit: Edit, force: bool) -> Result<Arc<Plan>, ApiError> {
    change(context, |view| {
        app_of(view, id)?;
        Ok(Change { edits: vec![edit.clone()], force, ..Change::default() })
    })
    .await
}

async fn delete(context: &Context, call: &Call, id: &PathId) -> Answer {
    let plan = simple_change(context, id, Edit::Remove(id.clone()), call.params.flag("force", true)).await?;
    Ok(deployment_result(StatusCode::OK, &plan))
}

async fn restart(context: &Context, call: &Call, id: &PathId) -> Answer {
    let plan = simple_change(context, id, Edit::Restart(id.clone()), call.params.flag("force", false)).await?;
    Ok(deployment_result(StatusCode::OK, &plan))
}

fn versions(context: &Context, id: &PathId) -> Answer {
    let view = context.handle().view();
    app_of(&view, id)?;
    let versions = view.history.get(id).cloned().unwrap_or_default();
    ok(|json| json.object(|json| json.texts_field("versions", versions.keys().rev().map(|at| iso(*at)))))
}

fn version_of(context: &Context, id: &PathId, version: &str) -> Answer {
    let at = timestamp(version)?;
    let view = context.handle().view();
    let found = view.history.get(id).and_then(|versions| versions.get(&at)).and_then(Spec::app);
    let app = found.ok_or_else(|| not_found(format!("App '{id}' does not exist in version {}", iso(at))))?;
    ok(|json| write_app(json, app))
}
