//! Events as JSON.

use std::time::{SystemTime, UNIX_EPOCH};

use base::Timestamp;
use scheduler::instance::Instance;
use scheduler::moment::iso;
use scheduler::plan::{Action, Plan};
use scheduler::words::BusEvent;

use super::Frame;
use crate::json::Json;
use crate::json::checks::write_health_check;

fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    iso(Timestamp::from_unix_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
}

/// A frame with the two fields that all have.
pub(crate) fn simple(kind: &'static str, fields: impl FnOnce(&mut Json)) -> Frame {
    Frame { kind, data: text(kind, &now(), fields), light: None }
}

fn text(kind: &str, at: &str, fields: impl FnOnce(&mut Json)) -> String {
    Json::text(|json| {
        json.object(|json| {
            fields(json);
            json.text_field("eventType", kind);
            json.text_field("timestamp", at);
        });
    })
}

/// A frame about a plan: with stubs of the roots before and after for the clients that insist, and without.
fn about_plan(kind: &'static str, plan: &Plan, step: Option<usize>, id: bool, reason: Option<&str>) -> Frame {
    let at = now();
    let write = |stubs: bool| {
        text(kind, &at, |json| {
            if id {
                json.text_field("id", &plan.id);
            }
            json.object_field("plan", |json| {
                json.text_field("id", &plan.id);
                if stubs {
                    for key in ["original", "target"] {
                        json.object_field(key, |json| {
                            json.text_field("id", "/");
                            json.time_field("version", plan.version);
                            for list in ["apps", "groups", "pods", "dependencies"] {
                                json.array_field(list, [(); 0], |json, ()| json.null());
                            }
                        });
                    }
                }
                json.key("steps");
                plan_steps(json, plan);
                json.time_field("version", plan.version);
            });
            if let Some(step) = step {
                json.object_field("currentStep", |json| {
                    plan_actions(json, plan.steps.get(step).map_or(&[], Vec::as_slice));
                });
            }
            json.text_if("reason", reason);
        })
    };
    Frame { kind, data: write(true), light: Some(write(false)) }
}

/// `[{"actions":[...]}, ...]`.
pub(crate) fn plan_steps(json: &mut Json, plan: &Plan) {
    json.array(&plan.steps, |json, step| json.object(|json| plan_actions(json, step)));
}

/// `"actions":[...]`.
pub(crate) fn plan_actions(json: &mut Json, actions: &[Action]) {
    json.array_field("actions", actions, |json, action| {
        json.object(|json| {
            json.text_field("action", action.word());
            json.text_field(if action.is_pod { "pod" } else { "app" }, action.spec.as_str());
        });
    });
}

fn instance_fields(json: &mut Json, instance: &Instance) {
    json.text_field("instanceId", instance.id.as_str());
    json.text_field("runSpecId", instance.spec_id().as_str());
    json.time_field("runSpecVersion", instance.spec.version());
}

fn nullable(json: &mut Json, key: &str, value: Option<&str>) {
    match value {
        Some(value) => json.text_field(key, value),
        None => json.key(key).null(),
    }
}

pub(super) fn frame(event: &BusEvent) -> Frame {
    match event {
        BusEvent::StatusUpdate { instance, task_id, state, message, addresses, ports } => simple("status_update_event", |json| {
            json.text_field("slaveId", instance.agent.as_ref().map_or("", |agent| agent.agent_id.as_str()));
            json.text_field("taskId", task_id);
            json.text_field("taskStatus", state.word());
            json.text_field("message", message);
            json.text_field("appId", instance.spec_id().as_str());
            json.text_field("host", instance.host().unwrap_or_default());
            json.array_field("ipAddresses", addresses, |json, (address, v6)| {
                json.object(|json| {
                    json.text_field("ipAddress", address);
                    json.text_field("protocol", if *v6 { "IPv6" } else { "IPv4" });
                });
            });
            json.array_field("ports", ports, |json, port| json.integer(*port));
            json.time_field("version", instance.spec.version());
        }),
        BusEvent::InstanceChanged { instance } => simple("instance_changed_event", |json| {
            instance_fields(json, instance);
            json.text_field("condition", instance.condition.word());
            nullable(json, "agentId", instance.agent.as_ref().map(|agent| agent.agent_id.as_str()));
            nullable(json, "host", instance.host());
        }),
        BusEvent::InstanceHealthChanged { instance, healthy } => simple("instance_health_changed_event", |json| {
            instance_fields(json, instance);
            match healthy {
                Some(healthy) => json.bool_field("healthy", *healthy),
                None => json.key("healthy").null(),
            }
        }),
        BusEvent::UnknownInstanceTerminated { instance, condition } => simple("unknown_instance_terminated_event", |json| {
            json.text_field("instanceId", instance.as_str());
            json.text_field("runSpecId", instance.spec().as_str());
            json.text_field("condition", condition.word());
        }),
        BusEvent::FrameworkMessage { agent_id, executor_id, data } => simple("framework_message_event", |json| {
            json.text_field("slaveId", agent_id);
            json.text_field("executorId", executor_id);
            json.text_field("message", &String::from_utf8_lossy(data));
        }),
        BusEvent::AppTerminated { app } => simple("app_terminated_event", |json| json.text_field("appId", app.as_str())),
        BusEvent::AddHealthCheck { app, version, check } => simple("add_health_check_event", |json| {
            json.text_field("appId", app.as_str());
            json.time_field("version", *version);
            json.key("healthCheck");
            write_health_check(json, check);
        }),
        BusEvent::RemoveHealthCheck { app } => simple("remove_health_check_event", |json| json.text_field("appId", app.as_str())),
        BusEvent::FailedHealthCheck { app, instance, check } => simple("failed_health_check_event", |json| {
            json.text_field("appId", app.as_str());
            // Named so for years; it has always been the instance's.
            json.text_field("taskId", instance.as_str());
            json.text_field("instanceId", instance.as_str());
            json.key("healthCheck");
            write_health_check(json, check);
        }),
        BusEvent::HealthStatusChanged { app, instance, version, alive } => simple("health_status_changed_event", |json| {
            json.text_field("appId", app.as_str());
            json.text_field("instanceId", instance.as_str());
            json.time_field("version", *version);
            json.bool_field("alive", *alive);
        }),
        BusEvent::UnhealthyInstanceKill { instance, task_id, reason } => simple("unhealthy_instance_kill_event", |json| {
            json.text_field("appId", instance.spec_id().as_str());
            json.text_field("taskId", task_id);
            json.text_field("instanceId", instance.id.as_str());
            json.time_field("version", instance.spec.version());
            json.text_field("reason", reason);
            json.text_field("host", instance.host().unwrap_or_default());
            json.text_if("slaveId", instance.agent.as_ref().map(|agent| agent.agent_id.as_str()));
        }),
        BusEvent::GroupChangeSuccess { group, version } => simple("group_change_success", |json| {
            json.text_field("groupId", group.as_str());
            json.time_field("version", *version);
        }),
        BusEvent::GroupChangeFailed { group, version, reason } => simple("group_change_failed", |json| {
            json.text_field("groupId", group.as_str());
            json.time_field("version", *version);
            json.text_field("reason", reason);
        }),
        BusEvent::DeploymentSuccess { plan } => about_plan("deployment_success", plan, None, true, None),
        BusEvent::DeploymentFailed { plan, reason } => about_plan("deployment_failed", plan, None, true, Some(reason)),
        BusEvent::DeploymentInfo { plan, step } => about_plan("deployment_info", plan, Some(*step), false, None),
        BusEvent::DeploymentStepSuccess { plan, step } => about_plan("deployment_step_success", plan, Some(*step), false, None),
        BusEvent::DeploymentStepFailure { plan, step } => about_plan("deployment_step_failure", plan, Some(*step), false, None),
        BusEvent::SchedulerRegistered { framework_id, master } => simple("scheduler_registered_event", |json| {
            json.text_field("frameworkId", framework_id);
            json.text_field("master", master);
        }),
        BusEvent::SchedulerReregistered { master } => simple("scheduler_reregistered_event", |json| json.text_field("master", master)),
        BusEvent::SchedulerDisconnected => simple("scheduler_disconnected_event", |_| {}),
    }
}
