//! Pods as they run.

use base::Timestamp;
use scheduler::View;
use scheduler::instance::{Condition, Goal, Instance, Task};
use scheduler::mesos::TaskState;
use scheduler::model::pod::{Pod, PodContainer};
use scheduler::model::spec::Spec;
use scheduler::moment::iso;

use crate::json::Json;
use crate::json::pieces::write_unreachable;
use crate::json::pod::write_pod;

/// The status of a pod.
pub(crate) fn status(json: &mut Json, view: &View, pod: &Pod, now: Timestamp) {
    let instances: Vec<&Instance> = view.instances_of(&pod.id).map(AsRef::as_ref).collect();
    let stable = instances.iter().filter(|it| it.goal == Goal::Running && word(it) == "STABLE").count();
    let (status, message) = if stable >= pod.instances as usize {
        ("STABLE", None)
    } else {
        ("DEGRADED", Some(format!("{stable} of {} instances are stable", pod.instances)))
    };
    let changed = instances.iter().map(|it| it.since).max().unwrap_or(pod.version);
    json.object(|json| {
        json.text_field("id", pod.id.as_str());
        json.key("spec");
        write_pod(json, pod, false);
        json.text_field("status", status);
        json.time_field("statusSince", changed);
        json.text_if("message", message.as_deref());
        json.array_field("instances", instances.iter().filter(|it| it.condition != Condition::Scheduled), |json, it| {
            instance(json, it, now)
        });
        json.array_field("terminationHistory", view.failures.get(&pod.id), |json, failure| {
            json.object(|json| {
                json.text_field("instanceID", failure.task_id.split("._").next().unwrap_or_default());
                json.time_field("startedAt", failure.timestamp);
                json.time_field("terminatedAt", failure.timestamp);
                json.text_field("message", &failure.message);
                json.array_field("containers", [(); 0], |json, ()| json.null());
            });
        });
        json.time_field("lastUpdated", now);
        json.time_field("lastChanged", changed);
    });
}

fn word(instance: &Instance) -> &'static str {
    if instance.goal != Goal::Running && instance.condition.has_task() {
        return "TERMINAL";
    }
    match instance.condition {
        Condition::Scheduled | Condition::Provisioned => "PENDING",
        Condition::Staging | Condition::Starting => "STAGING",
        Condition::Running if instance.all_alive() => "STABLE",
        Condition::Running | Condition::Unreachable | Condition::UnreachableInactive => "DEGRADED",
        _ => "TERMINAL",
    }
}

fn instance(json: &mut Json, it: &Instance, now: Timestamp) {
    let Spec::Pod(pod) = &it.spec else { return json.null() };
    json.object(|json| {
        json.text_field("id", it.id.as_str());
        json.text_field("status", word(it));
        json.time_field("statusSince", it.since);
        json.array_field("conditions", [(); 0], |json, ()| json.null());
        if let Some(agent) = &it.agent {
            json.text_field("agentHostname", &agent.host);
            json.text_field("agentId", &agent.agent_id);
            json.text_if("agentRegion", agent.region.as_deref());
            json.text_if("agentZone", agent.zone.as_deref());
        }
        let needs = pod.needs();
        json.object_field("resources", |json| {
            json.number_field("cpus", needs.cpus);
            json.number_field("mem", needs.mem);
            json.number_field("disk", needs.disk);
            json.integer_field("gpus", needs.gpus);
        });
        let addresses = it.tasks.first().map(|task| task.addresses.as_slice()).unwrap_or_default();
        json.array_field("networks", (!addresses.is_empty()).then_some(()), |json, ()| {
            json.object(|json| {
                json.text_if("name", pod.networks.first().and_then(|network| network.name.as_deref()));
                json.texts_field("addresses", addresses.iter().map(|(address, _)| address));
            });
        });
        json.array_field("containers", pod.containers.iter().zip(&it.tasks), |json, (definition, task)| {
            container(json, definition, task, now)
        });
        json.text_field("specReference", &format!("/v2/pods{}::versions/{}", pod.id, iso(pod.version)));
        let volumes = it.reservation.iter().flat_map(|held| &held.volumes);
        json.array_field("localVolumes", volumes, |json, volume| {
            json.object(|json| {
                json.text_field("runSpecId", pod.id.as_str());
                json.text_field("containerPath", &volume.container_path);
                json.text_field("uuid", volume.persistence_id.rsplit('#').next().unwrap_or_default());
                json.text_field("persistenceId", &volume.persistence_id);
            });
        });
        json.time_field("lastUpdated", now);
        json.time_field("lastChanged", it.since);
        json.text_field("role", &it.role);
    });
}

fn container(json: &mut Json, definition: &PodContainer, task: &Task, now: Timestamp) {
    let state = task.state.unwrap_or(TaskState::Staging);
    json.object(|json| {
        json.text_field("name", &definition.name);
        json.text_field("status", state.word());
        json.time_field("statusSince", task.since);
        json.text_if("message", Some(task.message.as_str()).filter(|it| !it.is_empty()));
        json.array_field("conditions", task.healthy.filter(|_| definition.health_check.is_some()), |json, healthy| {
            json.object(|json| {
                json.text_field("name", "healthy");
                json.text_field("value", if healthy { "true" } else { "false" });
                json.text_field("reason", "health-reported-by-mesos");
                json.time_field("lastChanged", task.since);
                json.time_field("lastUpdated", now);
            });
        });
        json.text_field("containerId", task.id.as_str());
        json.array_field("endpoints", definition.endpoints.iter().enumerate(), |json, (at, endpoint)| {
            json.object(|json| {
                json.text_field("name", &endpoint.name);
                if let Some(port) = task.host_ports.get(at).copied().flatten() {
                    json.integer_field("allocatedHostPort", port);
                }
                if let Some(healthy) = task.healthy {
                    json.bool_field("healthy", healthy);
                }
            });
        });
        json.object_field("resources", |json| {
            json.number_field("cpus", definition.resources.cpus);
            json.number_field("mem", definition.resources.mem);
            json.number_field("disk", definition.resources.disk);
            json.integer_field("gpus", definition.resources.gpus);
        });
        if state.is_terminal() {
            json.object_field("termination", |json| json.text_field("message", &task.message));
        }
        json.time_field("lastUpdated", now);
        json.time_field("lastChanged", task.since);
    });
}

/// An instance as the answer to its being killed.
pub(crate) fn killed(json: &mut Json, it: &Instance) {
    json.object(|json| {
        json.text_field("instanceId", it.id.as_str());
        json.object_field("state", |json| {
            json.text_field("condition", it.condition.word());
            json.time_field("since", it.since);
            json.time_if("activeSince", it.active_since);
            if let Some(healthy) = it.healthy() {
                json.bool_field("healthy", healthy);
            }
            json.text_field("goal", it.goal.word());
        });
        if let Some(agent) = &it.agent {
            json.object_field("agentInfo", |json| {
                json.text_field("host", &agent.host);
                json.text_field("agentId", &agent.agent_id);
                json.text_if("region", agent.region.as_deref());
                json.text_if("zone", agent.zone.as_deref());
                json.array_field("attributes", [(); 0], |json, ()| json.null());
            });
        }
        json.time_field("runSpecVersion", it.spec.version());
        write_unreachable(json, "unreachableStrategy", it.spec.unreachable());
    });
}
