//! What the API shows of the scheduler's state.

pub(crate) mod groups;
pub(crate) mod pods;
pub(crate) mod queue;

use std::sync::Arc;

use base::Timestamp;
use scheduler::id::PathId;
use scheduler::instance::{Condition, Health, Instance, Task};
use scheduler::mesos::CheckStatus;
use scheduler::model::app::App;
use scheduler::words::TaskFailure;
use scheduler::{Deployment, View};

use crate::events::{plan_actions, plan_steps};
use crate::json::Json;
use crate::json::app::app_fields;

/// What is shown of an app besides its definition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Embed {
    pub(crate) tasks: bool,
    pub(crate) counts: bool,
    pub(crate) deployments: bool,
    pub(crate) readiness: bool,
    pub(crate) last_failure: bool,
    pub(crate) task_stats: bool,
}

impl Embed {
    /// Adds what a word of `embed=` asks for, without its prefix.
    pub(crate) fn add(&mut self, word: &str) {
        match word {
            "tasks" => {
                self.tasks = true;
                self.deployments = true;
            }
            "counts" => self.counts = true,
            "deployments" => self.deployments = true,
            "readiness" => self.readiness = true,
            "lastTaskFailure" => self.last_failure = true,
            "failures" => {
                self.tasks = true;
                self.last_failure = true;
                self.deployments = true;
            }
            "taskStats" => self.task_stats = true,
            _ => {}
        }
    }
}

/// An app with what is embedded.
pub(crate) fn app(json: &mut Json, view: &View, app: &App, embed: Embed, now: Timestamp) {
    json.object(|json| {
        app_fields(json, app);
        if embed.counts {
            let counts = view.specs.get(&app.id).map(|state| state.counts).unwrap_or_default();
            json.integer_field("tasksStaged", counts.staged);
            json.integer_field("tasksRunning", counts.running);
            json.integer_field("tasksHealthy", counts.healthy);
            json.integer_field("tasksUnhealthy", counts.unhealthy);
        }
        if embed.deployments {
            json.array_field("deployments", view.deployments_of(&app.id), |json, id| json.object(|json| json.text_field("id", id)));
        }
        if embed.tasks {
            json.array_field("tasks", view.instances_of(&app.id).filter(|it| is_shown(it)), |json, it| task(json, it, None));
        }
        if embed.last_failure
            && let Some(failure) = view.failures.get(&app.id)
        {
            json.key("lastTaskFailure");
            last_failure(json, failure);
        }
        if embed.readiness {
            json.array_field("readinessCheckResults", view.instances_of(&app.id).flat_map(|it| readiness_of(it)), readiness);
        }
        if embed.task_stats {
            json.key("taskStats");
            task_stats(json, view, app, now);
        }
    });
}

/// Whether an instance is among an app's tasks: it is somewhere, and has one.
pub(crate) fn is_shown(instance: &Instance) -> bool {
    instance.agent.is_some() && !instance.tasks.is_empty()
}

/// A task of an app. `service_ports` are given by one route only.
pub(crate) fn task(json: &mut Json, instance: &Instance, service_ports: Option<&[u16]>) {
    let Some(task) = instance.tasks.first() else { return json.null() };
    let active = instance.condition.has_task();
    json.object(|json| {
        json.array_field("ipAddresses", &task.addresses, address);
        if active {
            json.time_field("stagedAt", task.staged_at);
        }
        json.text_field("state", task.state.unwrap_or_else(|| instance.condition.task_state()).word());
        let ports = task.host_ports.iter().flatten().filter(|_| active);
        json.array_field("ports", ports, |json, port| json.integer(*port));
        if active {
            json.time_if("startedAt", task.started_at);
            json.time_field("version", instance.spec.version());
        }
        json.text_field("id", task.id.as_str());
        json.text_field("appId", instance.spec_id().as_str());
        json.text_if("slaveId", instance.agent.as_ref().map(|agent| agent.agent_id.as_str()));
        json.text_field("host", instance.host().unwrap_or_default());
        if let Some(check) = &task.check {
            check_result(json, check);
        }
        let results = instance.health.iter().filter(|health| health.alive().is_some());
        json.array_field("healthCheckResults", results, |json, health| health_result(json, instance, health));
        json.array_field("servicePorts", service_ports.unwrap_or_default(), |json, port| json.integer(*port));
        let volumes = instance.reservation.iter().flat_map(|held| &held.volumes);
        json.array_field("localVolumes", volumes, |json, volume| {
            json.object(|json| {
                json.text_field("runSpecId", instance.spec_id().as_str());
                json.text_field("containerPath", &volume.container_path);
                json.text_field("uuid", volume.persistence_id.rsplit('#').next().unwrap_or_default());
                json.text_field("persistenceId", &volume.persistence_id);
            });
        });
        if let Some(agent) = &instance.agent {
            json.text_if("region", agent.region.as_deref());
            json.text_if("zone", agent.zone.as_deref());
        }
        json.text_field("role", &instance.role);
    });
}

fn address(json: &mut Json, (address, v6): &(String, bool)) {
    json.object(|json| {
        json.text_field("ipAddress", address);
        json.text_field("protocol", if *v6 { "IPv6" } else { "IPv4" });
    });
}

fn check_result(json: &mut Json, check: &CheckStatus) {
    json.object_field("checkResult", |json| match check {
        CheckStatus::Command(code) => json.object_field("command", |json| {
            if let Some(code) = code {
                json.integer_field("exitCode", *code);
            }
        }),
        CheckStatus::Http(code) => json.object_field("http", |json| {
            if let Some(code) = code {
                json.integer_field("statusCode", *code);
            }
        }),
        CheckStatus::Tcp(succeeded) => json.object_field("tcp", |json| {
            if let Some(succeeded) = succeeded {
                json.bool_field("succeeded", *succeeded);
            }
        }),
    });
}

fn health_result(json: &mut Json, instance: &Instance, health: &Health) {
    json.object(|json| {
        json.bool_field("alive", health.alive() == Some(true));
        json.integer_field("consecutiveFailures", health.consecutive_failures);
        json.time_if("firstSuccess", health.first_success);
        json.time_if("lastFailure", health.last_failure);
        json.time_if("lastSuccess", health.last_success);
        json.text_if("lastFailureCause", health.last_failure_cause.as_deref());
        json.text_field("instanceId", instance.id.as_str());
    });
}

fn last_failure(json: &mut Json, failure: &TaskFailure) {
    json.object(|json| {
        json.text_field("appId", failure.app_id.as_str());
        json.text_field("host", &failure.host);
        json.text_field("message", &failure.message);
        json.text_field("state", failure.state.word());
        json.text_field("taskId", &failure.task_id);
        json.time_field("timestamp", failure.timestamp);
        json.time_field("version", failure.version);
        json.text_if("slaveId", failure.agent_id.as_deref());
    });
}

type ReadinessResult<'a> = (&'a str, &'a Task, &'a scheduler::instance::Readiness);

fn readiness_of(instance: &Instance) -> impl Iterator<Item = ReadinessResult<'_>> {
    let checks = instance.spec.readiness_checks().iter().zip(&instance.ready);
    let task = instance.tasks.first();
    checks.filter_map(move |(check, result)| Some((check.name.as_str(), task?, result)))
}

fn readiness(json: &mut Json, (name, task, result): ReadinessResult<'_>) {
    json.object(|json| {
        json.text_field("name", name);
        json.text_field("taskId", task.id.as_str());
        json.bool_field("ready", result.ready);
        if let Some((status, content_type, body)) = &result.last_response {
            json.object_field("lastResponse", |json| {
                json.integer_field("status", *status);
                json.text_field("contentType", content_type);
                json.text_field("body", body);
            });
        }
    });
}

fn task_stats(json: &mut Json, view: &View, app: &App, now: Timestamp) {
    let all: Vec<&Instance> = view.instances_of(&app.id).filter(|it| is_shown(it)).map(AsRef::as_ref).collect();
    let started = |it: &Instance| it.tasks.first().map(|task| task.staged_at);
    let latest = app.version_info.last_config_change_at;
    let groups: [(&str, Vec<&Instance>); 4] = [
        (
            "startedAfterLastScaling",
            all.iter().copied().filter(|it| started(it).is_some_and(|at| at > app.version_info.last_scaling_at)).collect(),
        ),
        ("withLatestConfig", all.iter().copied().filter(|it| it.config_version() >= latest).collect()),
        ("withOutdatedConfig", all.iter().copied().filter(|it| it.config_version() < latest).collect()),
        ("totalSummary", all.clone()),
    ];
    json.object(|json| {
        for (name, instances) in groups.into_iter().filter(|(_, instances)| !instances.is_empty()) {
            let count = |holds: fn(&scheduler::instance::Facts) -> bool| {
                u32::try_from(instances.iter().filter(|it| holds(&it.facts())).count()).unwrap_or(u32::MAX)
            };
            let mut lives: Vec<f64> = instances
                .iter()
                .filter(|it| it.condition == Condition::Running)
                .filter_map(|it| it.tasks.first()?.started_at)
                .map(|at| now.since(at).as_secs_f64())
                .collect();
            lives.sort_by(f64::total_cmp);
            json.object_field(name, |json| {
                json.object_field("stats", |json| {
                    json.object_field("counts", |json| {
                        json.integer_field("staged", count(|facts| facts.api_staged));
                        json.integer_field("running", count(|facts| facts.api_running));
                        json.integer_field("healthy", count(|facts| facts.api_healthy));
                        json.integer_field("unhealthy", count(|facts| facts.api_unhealthy));
                    });
                    if let Some(median) = lives.get(lives.len() / 2) {
                        let number = f64::from(u32::try_from(lives.len()).unwrap_or(u32::MAX));
                        let median =
                            if lives.len().is_multiple_of(2) { f64::midpoint(*median, lives[lives.len() / 2 - 1]) } else { *median };
                        json.object_field("lifeTime", |json| {
                            json.number_field("averageSeconds", lives.iter().sum::<f64>() / number);
                            json.number_field("medianSeconds", median);
                        });
                    }
                });
            });
        }
    });
}

/// All deployments.
pub(crate) fn deployments(json: &mut Json, view: &View) {
    json.array(view.deployments.values(), |json, it| deployment(json, view, it));
}

fn deployment(json: &mut Json, view: &View, it: &Deployment) {
    let affected = |pods: bool| {
        let is_pod = |change: &scheduler::plan::Change<scheduler::model::spec::Spec>| {
            change.to.as_ref().or(change.from.as_ref()).is_some_and(|spec| spec.is_pod())
        };
        it.plan.changes.iter().filter(move |(_, change)| is_pod(change) == pods).map(|(id, _)| id.as_str()).collect::<Vec<_>>()
    };
    json.object(|json| {
        json.text_field("id", &it.plan.id);
        json.time_field("version", it.plan.version);
        json.texts_field("affectedApps", affected(false));
        json.texts_field("affectedPods", affected(true));
        json.key("steps");
        plan_steps(json, &it.plan);
        json.array_field("currentActions", it.actions(), |json, action| {
            json.object(|json| {
                json.text_field("action", action.word());
                json.text_field(if action.is_pod { "pod" } else { "app" }, action.spec.as_str());
                let results = view.instances_of(&action.spec).flat_map(|it| readiness_of(it));
                json.array_field("readinessCheckResults", results, readiness);
            });
        });
        json.integer_field("currentStep", u32::try_from(it.step + 1).unwrap_or(u32::MAX));
        json.integer_field("totalSteps", u32::try_from(it.plan.steps.len()).unwrap_or(u32::MAX));
    });
}

/// The steps of a plan that is not carried out.
pub(crate) fn dry_run(json: &mut Json, plan: &scheduler::plan::Plan) {
    json.object(|json| {
        json.array_field("steps", &plan.steps, |json, step| json.object(|json| plan_actions(json, step)));
    });
}

/// Where each service port of `apps` is reached, one line each.
pub(crate) fn endpoint_lines<'a>(view: &View, apps: impl Iterator<Item = &'a Arc<App>>) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for app in apps {
        let mut running: Vec<_> = view.instances_of(&app.id).filter(|it| it.condition == Condition::Running).collect();
        running.sort_by(|one, two| one.host().cmp(&two.host()));
        let name = safe(&app.id);
        let ports = app.service_ports();
        if ports.is_empty() {
            let hosts: Vec<&str> = running.iter().filter_map(|it| it.host()).collect();
            let _ = writeln!(text, "{name}\t \t{}\t", hosts.join("\t"));
        }
        for (at, service_port) in ports.iter().enumerate() {
            let _ = write!(text, "{name}\t{service_port}\t");
            for instance in &running {
                let port = instance.tasks.first().and_then(|task| task.host_ports.get(at).copied().flatten());
                if let (Some(host), Some(port)) = (instance.host(), port) {
                    let _ = write!(text, "{host}:{port}\t");
                }
            }
            text.push('\n');
        }
    }
    text
}

fn safe(id: &PathId) -> String {
    id.safe()
}
