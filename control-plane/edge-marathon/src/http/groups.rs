//! `/v2/groups`.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::{Method, StatusCode};
use scheduler::View;
use scheduler::id::PathId;
use scheduler::model::spec::Spec;
use scheduler::moment::iso;
use scheduler::words::{Change, Edit, Expect};
use serde_json::{Map, Value};

use super::answer::{Answer, ApiError, change, deployment_result, empty, judge, not_found, ok, parse, unprocessable, with_location};
use super::apps::{reads, timestamp};
use super::{Call, Context};
use crate::json::app::read_app;
use crate::json::{Reader, Reading};
use crate::render::groups::{GroupEmbed, apps_below, group};
use crate::render::{self, Embed};

/// Groups within groups that are read.
const DEPTH_MAX: usize = 64;

pub(super) async fn route(context: &Context, call: Call, rest: &str) -> Answer {
    let rest = rest.trim_matches('/');
    let ending = |word: &str| (rest == word).then_some("").or_else(|| rest.strip_suffix(word)?.strip_suffix('/'));
    if let Some(id) = ending("apps") {
        return reads(&call, || list_apps(context, &call, &PathId::absolute(id)));
    }
    if let Some(id) = ending("versions") {
        return reads(&call, || versions(context, &PathId::absolute(id)));
    }
    let (before, version) = rest.rsplit_once('/').unwrap_or(("", rest));
    if before == "versions" || before.ends_with("/versions") {
        let id = PathId::absolute(before.strip_suffix("versions").unwrap_or_default());
        return reads(&call, || show_version(context, &call, &id, version));
    }
    let id = PathId::absolute(rest);
    match call.method {
        Method::GET | Method::HEAD => show(context, &call, &id),
        Method::POST => create(context, &call, &id).await,
        Method::PUT => put(context, &call, &id).await,
        Method::PATCH => patch(context, &call, &id).await,
        Method::DELETE => delete(context, &call, &id).await,
        _ => Err(ApiError::no_method()),
    }
}

fn no_group(id: &PathId) -> ApiError {
    not_found(format!("Group '{id}' does not exist"))
}

fn embed(call: &Call) -> GroupEmbed {
    let words: Vec<&str> = call.params.all("embed").collect();
    if words.is_empty() {
        return GroupEmbed::default();
    }
    let mut embed = GroupEmbed { groups: false, apps: false, pods: false, app: Embed::default() };
    for word in words {
        match word.strip_prefix("group.").unwrap_or(word) {
            "groups" => embed.groups = true,
            "apps" => embed.apps = true,
            "pods" => embed.pods = true,
            other => {
                if let Some(word) = other.strip_prefix("apps.") {
                    embed.app.add(word);
                }
            }
        }
    }
    embed
}

fn show(context: &Context, call: &Call, id: &PathId) -> Answer {
    let view = context.handle().view();
    if view.root.group(id).is_none() {
        return Err(no_group(id));
    }
    ok(|json| group(json, &view, &view.root, id, embed(call), context.now()))
}

fn list_apps(context: &Context, call: &Call, id: &PathId) -> Answer {
    let view = context.handle().view();
    if view.root.group(id).is_none() {
        return Err(no_group(id));
    }
    let embed = super::apps::embed(call, Embed { counts: true, deployments: true, ..Embed::default() });
    ok(|json| apps_below(json, &view, id, embed, context.now()))
}

fn versions(context: &Context, id: &PathId) -> Answer {
    let view = context.handle().view();
    if view.root.group(id).is_none() {
        return Err(no_group(id));
    }
    // A group's versions are those of the root in which it is.
    let known = view.roots.iter().rev().filter(|(_, root)| root.group(id).is_some()).map(|(at, _)| iso(*at));
    ok(|json| json.array(known, |json, at| json.string(&at)))
}

fn show_version(context: &Context, call: &Call, id: &PathId, version: &str) -> Answer {
    let at = timestamp(version)?;
    let view = context.handle().view();
    let root = view.roots.get(&at).filter(|root| root.group(id).is_some());
    let root = root.ok_or_else(|| not_found(format!("Group '{id}' does not exist in version {}", iso(at))))?;
    ok(|json| group(json, &view, root, id, embed(call), context.now()))
}

/// Reads a group's text into edits of what is defined now.
struct Update<'a> {
    context: &'a Context,
    view: &'a View,
    edits: Vec<Edit>,
}

impl Update<'_> {
    fn group(&mut self, form: &Reader<'_>, id: &PathId, must_be_new: bool, depth: usize) {
        if depth > DEPTH_MAX {
            form.wrong("groups", "error.maxLength");
            return;
        }
        if !id.is_root()
            && let Some(problem) = id.problem()
        {
            form.invalid("id", problem);
        }
        let dependencies = form.strings("dependencies").map(|all| all.iter().map(|it| PathId::parse(it, id)).collect());
        let enforce_role = form.bool("enforceRole");
        if !id.is_root() || dependencies.is_some() || enforce_role.is_some() {
            self.edits.push(Edit::PutGroup { id: id.clone(), dependencies, enforce_role, must_be_new });
        }
        let root = &self.view.root;
        if let Some(apps) = form.objects("apps", |it| read_app(&it, None, id, &self.context.defaults())) {
            let given: BTreeSet<PathId> = apps.iter().map(|app| app.id.clone()).collect();
            for app in &apps {
                if !app.id.is_below(id) {
                    form.invalid("apps", format!("Identifier is not child of '{id}'"));
                }
            }
            if given.len() < apps.len() {
                form.invalid("apps", "Applications must have unique ids");
            }
            let there = root.specs_below(id).filter(|(it, spec)| it.is_child_of(id) && !spec.is_pod());
            self.edits.extend(there.filter(|(it, _)| !given.contains(*it)).map(|(it, _)| Edit::Remove(it.clone())));
            self.edits.extend(apps.into_iter().map(|app| Edit::Put { spec: Spec::App(Arc::new(app)), expect: Expect::Anything }));
        }
        let Some(groups) = form.objects("groups", |it| (PathId::parse(&it.required_string("id"), id), it)) else { return };
        let given: BTreeSet<PathId> = groups.iter().map(|(id, _)| id.clone()).collect();
        for (gone, _) in root.groups_below(id).filter(|(it, _)| it.is_child_of(id) && !given.contains(*it)) {
            if root.specs_below(gone).any(|(_, spec)| spec.is_pod()) {
                // Pods cannot be given here, and so cannot be taken away by their absence.
                self.edits.extend(root.specs_below(gone).filter(|(_, spec)| !spec.is_pod()).map(|(it, _)| Edit::Remove(it.clone())));
            } else {
                self.edits.push(Edit::RemoveGroup(gone.clone()));
            }
        }
        for (child, form) in groups {
            if child.is_below(id) {
                self.group(&form, &child, false, depth + 1);
            } else {
                form.invalid("id", format!("Identifier is not child of '{id}'"));
            }
        }
    }
}

fn update(context: &Context, view: &View, update: &Map<String, Value>, id: &PathId, must_be_new: bool) -> Result<Vec<Edit>, ApiError> {
    let given = |key: &str| update.get(key).filter(|value| !value.is_null());
    let others = update.iter().filter(|(key, value)| !value.is_null() && *key != "id").count() > 1;
    let value = Value::Object(update.clone());
    let reading = Reading::default();
    let Some(form) = reading.object(&value, "") else { return Err(unprocessable("Object is not valid")) };
    if given("version").is_some() || given("scaleBy").is_some() {
        let key = if given("version").is_some() { "version" } else { "scaleBy" };
        if others {
            form.invalid(key, "not allowed in conjunction with other properties.");
        }
        let factor = form.number("scaleBy", 0.0);
        let version = form.string("version");
        judge(reading)?;
        if view.root.group(id).is_none() {
            return Err(no_group(id));
        }
        return match (version, factor) {
            (Some(version), _) => rollback(view, id, &version),
            (None, Some(factor)) => Ok(scale(view, id, factor)),
            (None, None) => Ok(Vec::new()),
        };
    }
    let mut update = Update { context, view, edits: Vec::new() };
    update.group(&form, id, must_be_new, 0);
    let edits = update.edits;
    judge(reading)?;
    Ok(edits)
}

fn scale(view: &View, id: &PathId, factor: f64) -> Vec<Edit> {
    let scaled = |spec: &Spec| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative; saturates")]
        let instances = (f64::from(spec.instances()) * factor).ceil() as u32;
        Edit::Put { spec: spec.with_instances(instances.min(u32::MAX >> 1)), expect: Expect::Version(spec.version()) }
    };
    view.root.specs_below(id).filter(|(_, spec)| !spec.is_pod()).map(|(_, spec)| scaled(spec)).collect()
}

fn rollback(view: &View, id: &PathId, version: &str) -> Result<Vec<Edit>, ApiError> {
    let at = timestamp(version)?;
    let old = view.roots.get(&at).filter(|root| root.group(id).is_some());
    let old = old.ok_or_else(|| unprocessable(format!("Group {id} not available in version {}", iso(at))))?;
    let mut edits: Vec<Edit> = Vec::new();
    for (it, _) in view.root.specs_below(id).filter(|(it, _)| old.spec(it).is_none()) {
        edits.push(Edit::Remove(it.clone()));
    }
    for (it, _) in view.root.groups_below(id).filter(|(it, _)| old.group(it).is_none()) {
        edits.push(Edit::RemoveGroup(it.clone()));
    }
    for (it, group) in old.groups_below(id) {
        edits.push(Edit::PutGroup {
            id: it.clone(),
            dependencies: Some(group.dependencies.clone()),
            enforce_role: None,
            must_be_new: false,
        });
    }
    edits.extend(old.specs_below(id).map(|(_, spec)| Edit::Put { spec: spec.clone(), expect: Expect::Anything }));
    // A group below a removed one is gone already.
    let removed: Vec<PathId> =
        edits.iter().filter_map(|edit| if let Edit::RemoveGroup(id) = edit { Some(id.clone()) } else { None }).collect();
    edits.retain(|edit| !matches!(edit, Edit::RemoveGroup(id) if removed.iter().any(|above| id.is_below(above))));
    Ok(edits)
}

fn object(call: &Call) -> Result<Map<String, Value>, ApiError> {
    match parse(call)? {
        Value::Object(object) => Ok(object),
        _ => {
            let reading = Reading::default();
            reading.form("/", "error.expected.jsobject");
            judge(reading)?;
            Err(unprocessable("Object is not valid"))
        }
    }
}

/// The group that a text is about: the path's, or the text's own seen from the path's.
fn target(text: &Map<String, Value>, id: &PathId) -> PathId {
    match text.get("id").and_then(Value::as_str) {
        Some(own) => PathId::parse(own, id),
        None => id.clone(),
    }
}

async fn create(context: &Context, call: &Call, id: &PathId) -> Answer {
    let text = object(call)?;
    let id = target(&text, id);
    let force = call.params.flag("force", false);
    let plan = change(context, |view| {
        if render::groups::is_spec(&view.root, &id) {
            return Err(scheduler::words::Refusal::PathTaken(id.clone()).into());
        }
        if view.root.group(&id).is_some() {
            return Err(scheduler::words::Refusal::GroupExists(id.clone()).into());
        }
        Ok(Change { edits: update(context, view, &text, &id, true)?, force, ..Change::default() })
    })
    .await?;
    Ok(with_location(deployment_result(StatusCode::CREATED, &plan), call, id.as_str()))
}

async fn put(context: &Context, call: &Call, id: &PathId) -> Answer {
    let text = object(call)?;
    let id = if id.is_root() { target(&text, id) } else { id.clone() };
    let force = call.params.flag("force", false);
    let dry_run = call.params.flag("dryRun", false);
    let plan = change(context, |view| {
        if text.get("enforceRole").is_some_and(|it| !it.is_null()) {
            let current = view.root.group(&id).and_then(|group| group.enforce_role).unwrap_or(false);
            let services =
                ["apps", "groups"].iter().any(|key| text.get(*key).is_some_and(|it| it.as_array().is_some_and(|it| !it.is_empty())));
            if view.root.group(&id).is_some() && text["enforceRole"].as_bool() != Some(current) && services {
                let message = "enforceRole cannot be modified in a request that adds, removes or modifies services; \
                               please make these modifications in separate requests.";
                return Err(unprocessable(message));
            }
        }
        Ok(Change { edits: update(context, view, &text, &id, false)?, force, dry_run, ..Change::default() })
    })
    .await?;
    if dry_run {
        return ok(|json| render::dry_run(json, &plan));
    }
    Ok(deployment_result(StatusCode::OK, &plan))
}

async fn patch(context: &Context, call: &Call, id: &PathId) -> Answer {
    let text = object(call)?;
    let value = Value::Object(text);
    let reading = Reading::default();
    let enforce = reading.object(&value, "").and_then(|form| form.bool("enforceRole"));
    judge(reading)?;
    if id.is_root() || !id.parent().is_root() {
        return Err(unprocessable("Path needs to be top-level"));
    }
    change(context, |view| {
        if view.root.group(id).is_none() {
            return Err(no_group(id));
        }
        let edit = Edit::PutGroup { id: id.clone(), dependencies: None, enforce_role: enforce, must_be_new: false };
        Ok(Change { edits: vec![edit], ..Change::default() })
    })
    .await?;
    Ok(empty(StatusCode::OK))
}

async fn delete(context: &Context, call: &Call, id: &PathId) -> Answer {
    let force = call.params.flag("force", false);
    let plan = change(context, |view| {
        if view.root.group(id).is_none() {
            return Err(no_group(id));
        }
        Ok(Change { edits: vec![Edit::RemoveGroup(id.clone())], force, ..Change::default() })
    })
    .await?;
    Ok(deployment_result(StatusCode::OK, &plan))
}
