//! Pods as they run.

use base::Timestamp;
use scheduler::View;
use scheduler::instance::{Condition, Goal, Instance, Task};
use scheduler::mesos::TaskState;
use scheduler::model::pod::{Pod, PodContainer};
use scheduler::model::spec::Spec;
use scheduler::moment::iso;
use scheduler::words::{ContainerTermination, Termination};

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
    let terminations = view.failures.get(&pod.id).map_or(&[][..], |failure| &failure.terminations);
    let changed = instances.iter().map(|it| it.since).max().unwrap_or(pod.version);
    json.object(|json| {
        json.text_field("id", pod.id.as_str());
        json.key("spec");
        write_pod(json, pod, false);
        json.text_field("status", status);
        json.time_field("statusSince", changed);
        json.text_if("message", message.as_deref());
        // What never was launched yet is in the queue alone; what was, and waits to be again, is seen with how it ended.
        let shown = instances.iter().filter(|it| it.condition != Condition::Scheduled || it.incarnation > 0);
        json.array_field("instances", shown, |json, it| {
            let last = terminations.iter().find(|last| is_end_of(last, it)).filter(|_| it.condition == Condition::Scheduled);
            instance(json, it, last, now)
        });
        json.array_field("terminationHistory", terminations, termination);
        json.time_field("lastUpdated", now);
        json.time_field("lastChanged", changed);
    });
}

/// Whether `termination` is of the latest launch of `instance`, not of one before: that one may have been ended on demand.
fn is_end_of(termination: &Termination, instance: &Instance) -> bool {
    let launch = format!(".{}", instance.incarnation);
    termination.instance == instance.id && termination.containers.iter().all(|it| it.task_id.ends_with(&launch))
}

fn termination(json: &mut Json, it: &Termination) {
    json.object(|json| {
        json.text_field("instanceID", it.instance.as_str());
        json.time_field("startedAt", it.started_at);
        json.time_field("terminatedAt", it.terminated_at);
        json.text_if("message", Some(it.message.as_str()).filter(|it| !it.is_empty()));
        json.array_field("containers", &it.containers, |json, container| {
            json.object(|json| {
                json.text_field("containerId", &container.task_id);
                json.text_field("lastKnownState", container.state.word());
                termination_state(json, &container.message);
            });
        });
    });
}

fn termination_state(json: &mut Json, message: &str) {
    json.object_field("termination", |json| {
        if let Some(code) = exit_code(message) {
            json.integer_field("exitCode", code);
        }
        json.text_if("message", Some(message).filter(|it| !it.is_empty()));
    });
}

/// Mesos tells the code that a command ended with in words alone: `Command exited with status 4`.
fn exit_code(message: &str) -> Option<u32> {
    let (_, code) = message.split_once(" exited with status ")?;
    code.split(|it: char| !it.is_ascii_digit()).next()?.parse().ok()
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

/// `last` is how it ended the last time, when it waits to be launched again.
fn instance(json: &mut Json, it: &Instance, last: Option<&Termination>, now: Timestamp) {
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
        } else if let Some(last) = last {
            json.text_field("agentHostname", &last.host);
            json.text_if("agentId", last.agent_id.as_deref());
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
        match last {
            Some(last) => json.array_field("containers", &last.containers, |json, it| ended_container(json, it, now)),
            None => json.array_field("containers", pod.containers.iter().zip(&it.tasks), |json, (definition, task)| {
                container(json, definition, task, now)
            }),
        }
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

/// A container of the launch before, which holds nothing any more.
fn ended_container(json: &mut Json, it: &ContainerTermination, now: Timestamp) {
    json.object(|json| {
        json.text_field("name", &it.name);
        json.text_field("status", it.state.word());
        json.time_field("statusSince", it.timestamp);
        json.text_if("message", Some(it.message.as_str()).filter(|it| !it.is_empty()));
        json.array_field("conditions", [(); 0], |json, ()| json.null());
        json.text_field("containerId", &it.task_id);
        json.array_field("endpoints", [(); 0], |json, ()| json.null());
        termination_state(json, &it.message);
        json.time_field("lastUpdated", now);
        json.time_field("lastChanged", it.timestamp);
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
            termination_state(json, &task.message);
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
