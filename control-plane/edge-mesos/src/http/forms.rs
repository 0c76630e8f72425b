//! The classic endpoints that change something. Each is a call of the operator API in other clothes.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use http::Method;
use mesos_proto::json::{from_slice, from_value};
use mesos_proto::v1;
use prost::{Message, Name};
use serde_json::Value;
use v1::master::Call;
use v1::master::call::{self, Type};

use super::call::Query;
use super::route::Route;
use super::{Context, body, operator, reply};

pub(super) async fn serve(context: &Context, route: Route, principal: Option<Arc<str>>, rest: &str, request: Request) -> Response {
    let allowed = route.methods().unwrap_or_default();
    if !allowed.contains(&request.method().as_str()) {
        return reply::method_not_allowed(allowed, request.method());
    }
    let (parts, body) = request.into_parts();
    let whole = match body::read(context, &parts.headers, body).await {
        Ok(whole) => whole,
        Err(refused) => return refused,
    };
    match translate(route, &parts.method, rest, &whole.bytes) {
        Ok(call) => operator::change(context, principal, Box::new(call)).await,
        Err(problem) => reply::bad_request(&problem),
    }
}

fn translate(route: Route, method: &Method, rest: &str, body: &[u8]) -> Result<Call, String> {
    let of = |kind: Type| Call { r#type: Some(kind.into()), ..Call::default() };
    Ok(match route {
        Route::Reserve => {
            let (agent_id, resources) = resources(body, "resources")?;
            Call {
                reserve_resources: Some(call::ReserveResources { agent_id, source: Vec::new(), resources }),
                ..of(Type::ReserveResources)
            }
        }
        Route::Unreserve => {
            let (agent_id, resources) = resources(body, "resources")?;
            Call { unreserve_resources: Some(call::UnreserveResources { agent_id, resources }), ..of(Type::UnreserveResources) }
        }
        Route::CreateVolumes => {
            let (agent_id, volumes) = resources(body, "volumes")?;
            Call { create_volumes: Some(call::CreateVolumes { agent_id, volumes }), ..of(Type::CreateVolumes) }
        }
        Route::DestroyVolumes => {
            let (agent_id, volumes) = resources(body, "volumes")?;
            Call { destroy_volumes: Some(call::DestroyVolumes { agent_id, volumes }), ..of(Type::DestroyVolumes) }
        }
        Route::Teardown => {
            let value = form(body)?.first("frameworkId").ok_or("Missing 'frameworkId' query parameter")?;
            Call { teardown: Some(call::Teardown { framework_id: v1::FrameworkId { value } }), ..of(Type::Teardown) }
        }
        Route::MachineDown => {
            Call { start_maintenance: Some(call::StartMaintenance { machines: list(body)? }), ..of(Type::StartMaintenance) }
        }
        Route::MachineUp => Call { stop_maintenance: Some(call::StopMaintenance { machines: list(body)? }), ..of(Type::StopMaintenance) },
        Route::MaintenanceSchedule => {
            let schedule = from_slice(body).map_err(|error| error.to_string())?;
            let update = call::UpdateMaintenanceSchedule { schedule };
            Call { update_maintenance_schedule: Some(update), ..of(Type::UpdateMaintenanceSchedule) }
        }
        Route::Weights => Call { update_weights: Some(call::UpdateWeights { weight_infos: list(body)? }), ..of(Type::UpdateWeights) },
        Route::Quota if method == Method::DELETE => {
            if rest.is_empty() {
                return Err("Failed to remove quota: the path has no role".to_owned());
            }
            Call { remove_quota: Some(call::RemoveQuota { role: rest.to_owned() }), ..of(Type::RemoveQuota) }
        }
        Route::Quota => {
            let quota_request = from_slice(body).map_err(|error| format!("Failed to parse set quota request JSON: {error}"))?;
            Call { set_quota: Some(call::SetQuota { quota_request }), ..of(Type::SetQuota) }
        }
        _ => return Err("There is no such change".to_owned()),
    })
}

fn form(body: &[u8]) -> Result<Query, String> {
    let text = std::str::from_utf8(body).map_err(|_| "Unable to decode query string: not UTF-8")?;
    Query::parse(text).ok_or_else(|| "Unable to decode query string: malformed percent escape".to_owned())
}

fn resources(body: &[u8], name: &str) -> Result<(v1::AgentId, Vec<v1::Resource>), String> {
    let form = form(body)?;
    let value = form.first("slaveId").ok_or("Missing 'slaveId' query parameter in the request body")?;
    let text = form.first(name).ok_or_else(|| format!("Missing '{name}' query parameter in the request body"))?;
    let resources =
        list(text.as_bytes()).map_err(|error| format!("Error in parsing '{name}' query parameter in the request body: {error}"))?;
    Ok((v1::AgentId { value }, resources))
}

/// Messages of a JSON array.
fn list<M: Message + Name + Default>(body: &[u8]) -> Result<Vec<M>, String> {
    let value: Value = serde_json::from_slice(body).map_err(|error| format!("Failed to parse JSON: {error}"))?;
    let Value::Array(items) = value else { return Err("Expecting a JSON array".to_owned()) };
    items.iter().map(|item| from_value(item).map_err(|error| error.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_calls() {
        let body = b"slaveId=S0&resources=%5B%7B%22name%22%3A%22cpus%22%2C%22type%22%3A%22SCALAR%22%2C%22scalar%22%3A%7B%22value%22%3A2%7D%2C%22role%22%3A%22ads%22%7D%5D";
        let call = translate(Route::Reserve, &Method::POST, "", body).unwrap().reserve_resources.unwrap();
        assert_eq!((call.agent_id.value.as_str(), call.resources[0].role()), ("S0", "ads"));
        let call = translate(Route::Weights, &Method::PUT, "", br#"[{"role":"a","weight":2.5}]"#).unwrap();
        assert_eq!(call.update_weights.unwrap().weight_infos[0].weight, 2.5);
        let call = translate(Route::Quota, &Method::DELETE, "a", b"").unwrap();
        assert_eq!(call.remove_quota.unwrap().role, "a");
        let call = translate(Route::Teardown, &Method::POST, "", b"frameworkId=f").unwrap();
        assert_eq!(call.teardown.unwrap().framework_id.value, "f");
    }

    #[test]
    fn what_is_missing_is_named() {
        let refused = |route, body: &[u8]| translate(route, &Method::POST, "", body).unwrap_err();
        assert_eq!(refused(Route::Reserve, b"resources=[]"), "Missing 'slaveId' query parameter in the request body");
        assert_eq!(refused(Route::CreateVolumes, b"slaveId=a"), "Missing 'volumes' query parameter in the request body");
        assert!(refused(Route::Reserve, b"slaveId=a&resources={}").contains("Expecting a JSON array"));
        assert_eq!(refused(Route::Teardown, b""), "Missing 'frameworkId' query parameter");
        assert!(refused(Route::Teardown, b"%zz").starts_with("Unable to decode query string"));
        assert!(refused(Route::MachineDown, b"x").starts_with("Failed to parse JSON"));
    }
}
