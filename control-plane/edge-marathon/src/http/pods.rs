//! `/v2/pods`.

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderValue, Method, StatusCode, header};
use scheduler::View;
use scheduler::id::{InstanceId, PathId};
use scheduler::model::pod::Pod;
use scheduler::model::spec::Spec;
use scheduler::moment::iso;
use scheduler::words::{Change, Edit, Expect};

use super::answer::{
    Answer, ApiError, change, empty, error, json, judge, not_found, ok, parse, unprocessable, with_deployment, with_location,
};
use super::apps::{reads, timestamp};
use super::tasks::{kill_instances, read_ids};
use super::{Call, Context};
use crate::events::simple;
use crate::json::pod::{read_pod, write_pod};
use crate::json::{Json, Reading};
use crate::render::pods::{killed, status};

pub(super) async fn route(context: &Context, call: Call, rest: &str) -> Answer {
    // `/v2/pods::status` and `/v2/pods/::status` are the same.
    let rest = rest.trim_start_matches('/').trim_end_matches('/');
    let (path, verb) = rest.split_once("::").map_or((rest, None), |(path, verb)| (path, Some(verb)));
    let id = PathId::absolute(path);
    let Some(verb) = verb else {
        return match (call.method.clone(), path.is_empty()) {
            (Method::HEAD, true) => Ok(empty(StatusCode::OK)),
            (Method::GET, true) => list(context),
            (Method::POST, true) => create(context, &call).await,
            (Method::GET | Method::HEAD, false) => show(context, &id),
            (Method::PUT, false) => put(context, &call, &id).await,
            (Method::DELETE, false) => delete(context, &call, &id).await,
            _ => Err(ApiError::no_method()),
        };
    };
    match verb.split_once('/').unwrap_or((verb, "")) {
        ("status", "") if path.is_empty() => reads(&call, || all_status(context)),
        ("status", "") => reads(&call, || one_status(context, &id)),
        ("versions", "") => reads(&call, || versions(context, &id)),
        ("versions", version) => reads(&call, || version_of(context, &id, version)),
        ("instances", instance) if call.method == Method::DELETE => kill(context, &call, &id, instance).await,
        ("instances", _) => Err(ApiError::no_method()),
        _ => Err(ApiError::no_route()),
    }
}

fn no_pod(id: &PathId) -> ApiError {
    not_found(format!("Pod '{id}' does not exist"))
}

fn pod_of<'a>(view: &'a View, id: &PathId) -> Result<&'a Arc<Pod>, ApiError> {
    view.root.spec(id).and_then(Spec::pod).ok_or_else(|| no_pod(id))
}

fn pods(view: &View) -> impl Iterator<Item = &Arc<Pod>> {
    view.root.specs().filter_map(|(_, spec)| spec.pod())
}

fn list(context: &Context) -> Answer {
    let view = context.handle().view();
    ok(|json| json.array(pods(&view), |json, pod| write_pod(json, pod, false)))
}

fn show(context: &Context, id: &PathId) -> Answer {
    let view = context.handle().view();
    let pod = pod_of(&view, id)?;
    ok(|json| write_pod(json, pod, false))
}

fn all_status(context: &Context) -> Answer {
    let view = context.handle().view();
    let now = context.now();
    ok(|json| json.array(pods(&view), |json, pod| status(json, &view, pod, now)))
}

fn one_status(context: &Context, id: &PathId) -> Answer {
    let view = context.handle().view();
    let pod = pod_of(&view, id)?;
    ok(|json| status(json, &view, pod, context.now()))
}

fn versions(context: &Context, id: &PathId) -> Answer {
    let view = context.handle().view();
    pod_of(&view, id)?;
    let known = view.history.get(id).cloned().unwrap_or_default();
    ok(|json| json.array(known.keys().rev(), |json, at| json.string(&iso(*at))))
}

fn version_of(context: &Context, id: &PathId, version: &str) -> Answer {
    let at = timestamp(version)?;
    let view = context.handle().view();
    let found = view.history.get(id).and_then(|versions| versions.get(&at)).and_then(Spec::pod);
    let pod = found.ok_or_else(|| not_found(format!("Pod '{id}' does not exist in version {}", iso(at))))?;
    ok(|json| write_pod(json, pod, false))
}

fn read(context: &Context, call: &Call) -> Result<Pod, ApiError> {
    let value = parse(call)?;
    let reading = Reading::default();
    let pod = reading.object(&value, "").map(|form| read_pod(&form, &context.defaults()));
    judge(reading)?;
    pod.ok_or_else(|| unprocessable("Object is not valid"))
}

fn tell(context: &Context, call: &Call, kind: &'static str) {
    let bus = context.handle().bus();
    if bus.listeners() > 0 {
        bus.send(simple(kind, |json| {
            json.text_field("clientIp", &call.peer);
            json.text_field("uri", &call.path);
        }));
    }
}

/// The pod as it is now, with the deployment that makes it so.
fn made(context: &Context, id: &PathId, code: StatusCode, plan: &scheduler::plan::Plan) -> Answer {
    let view = context.handle().view();
    let stored = plan.changes.get(id).and_then(|it| it.to.as_ref()).and_then(Spec::pod).or_else(|| view.root.spec(id).and_then(Spec::pod));
    let pod = stored.ok_or_else(|| no_pod(id))?;
    Ok(with_deployment(json(code, Json::bytes(|json| write_pod(json, pod, false))), plan))
}

async fn create(context: &Context, call: &Call) -> Answer {
    let pod = read(context, call)?;
    let id = pod.id.clone();
    let force = call.params.flag("force", false);
    let spec = Spec::Pod(Arc::new(pod));
    let plan = change(context, |_| {
        Ok(Change { edits: vec![Edit::Put { spec: spec.clone(), expect: Expect::Absent }], force, ..Change::default() })
    })
    .await?;
    tell(context, call, "pod_created_event");
    Ok(with_location(made(context, &id, StatusCode::CREATED, &plan)?, call, id.as_str()))
}

async fn put(context: &Context, call: &Call, id: &PathId) -> Answer {
    let pod = read(context, call)?;
    if pod.id != *id {
        return Err(error(StatusCode::BAD_REQUEST, format!("'{id}' does not match definition's id ('{}')", pod.id)));
    }
    let force = call.params.flag("force", false);
    let spec = Spec::Pod(Arc::new(pod));
    let plan = change(context, |_| {
        Ok(Change { edits: vec![Edit::Put { spec: spec.clone(), expect: Expect::Anything }], force, ..Change::default() })
    })
    .await?;
    tell(context, call, "pod_updated_event");
    made(context, id, StatusCode::OK, &plan)
}

async fn delete(context: &Context, call: &Call, id: &PathId) -> Answer {
    let force = call.params.flag("force", false);
    let plan = change(context, |view| {
        pod_of(view, id)?;
        Ok(Change { edits: vec![Edit::Remove(id.clone())], force, ..Change::default() })
    })
    .await?;
    tell(context, call, "pod_deleted_event");
    let mut response = with_deployment(empty(StatusCode::ACCEPTED), &plan);
    if let Ok(location) = HeaderValue::from_str(&plan.id) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    *response.body_mut() = Body::empty();
    Ok(response)
}

/// What Marathon says that ids of instances are.
const INSTANCE_PATTERN: &str = r"^(.+)\.(instance-|marathon-)([^\.]+)$";

fn is_instance(text: &str) -> bool {
    let uuid = |rest: &str| rest.strip_prefix("instance-").or_else(|| rest.strip_prefix("marathon-")).map(str::len);
    text.rsplit_once('.').is_some_and(|(spec, rest)| !spec.is_empty() && uuid(rest).is_some_and(|length| length > 0))
}

async fn kill(context: &Context, call: &Call, id: &PathId, instance: &str) -> Answer {
    let wipe = call.params.flag("wipe", false);
    let wanted: Vec<String> = if instance.is_empty() {
        let value = parse(call)?;
        let ids = read_ids(&value);
        if ids.is_none() {
            let reading = Reading::default();
            reading.form("/", "error.expected.jsarray");
            judge(reading)?;
        }
        ids.unwrap_or_default()
    } else {
        vec![instance.to_owned()]
    };
    let reading = Reading::default();
    for (at, _) in wanted.iter().enumerate().filter(|(_, text)| !is_instance(text)) {
        let path = if instance.is_empty() { format!("({at})") } else { String::new() };
        reading.meaning(path, format!("must fully match regular expression '{INSTANCE_PATTERN}'"));
    }
    judge(reading)?;
    let view = context.handle().view();
    pod_of(&view, id)?;
    let known = |text: &String| InstanceId::parse(text).filter(|it| it.spec() == *id && view.instance(it).is_some());
    let victims: Vec<InstanceId> = wanted.iter().filter_map(known).collect();
    if !instance.is_empty() && victims.is_empty() {
        return Err(not_found(format!("Instance '{instance}' does not exist")));
    }
    let gone = kill_instances(context, victims, wipe).await?;
    ok(|json| match gone.first() {
        Some(one) if !instance.is_empty() => killed(json, one),
        _ => json.array(&gone, |json, it| killed(json, it)),
    })
}
