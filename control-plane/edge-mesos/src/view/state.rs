//! The parts of `/state`, which the other classic endpoints show as well.

use base::Timestamp;
use imbl::OrdMap;
use master::{Agent, Framework, Offer, Snapshot, Task};
use mesos::{AgentId, OfferId};
use mesos_proto::v1;

use super::Scene;
use super::resources::{attributes, by_role, full, resources, unreserved};
use super::sight::Viewer;
use crate::acl::Sight;
use crate::clock::seconds;
use crate::json::{Array, Object, object};
use crate::pieces::Sink;

/// `/state`
pub(super) fn state(scene: &Scene, with_flags: bool, out: &mut Sink) {
    let snapshot = &scene.view.snapshot;
    object(out, |object| {
        head(object, scene, with_flags);
        object.array("slaves", |array| array.objects(snapshot.agents.values(), |object, it| agent(object, it, &scene.viewer, false)));
        recovered_agents(object, snapshot);
        object.array("frameworks", |array| {
            snapshot.frameworks.values().for_each(|it| array.object(|object| framework(object, it, &snapshot.offers)));
        });
        object.array("completed_frameworks", |array| {
            snapshot.completed_frameworks.iter().for_each(|it| array.object(|object| framework(object, it, &snapshot.offers)));
        });
        object.array("orphan_tasks", |_| {});
        object.array("unregistered_frameworks", |_| {});
    });
}

/// What runs, since when, and who leads.
fn head(object: &mut Object<'_>, scene: &Scene, with_flags: bool) {
    let snapshot = &scene.view.snapshot;
    let about = &scene.about;
    build(object, about.build);
    object.number("start_time", seconds(about.started_at));
    object.number_if("elected_time", about.elected_at.map(seconds));
    object.text("id", &about.info.id);
    object.text("pid", about.info.pid());
    object.text("hostname", about.info.hostname());
    object.array("capabilities", |array| {
        for capability in about.info.capabilities.iter().filter_map(|it| it.r#type) {
            if let Ok(known) = v1::master_info::capability::Type::try_from(capability) {
                array.text(known.as_str_name());
            }
        }
    });
    let active = snapshot.agents.values().filter(|it| it.active()).count();
    object.number("activated_slaves", count(active));
    object.number("deactivated_slaves", count(snapshot.agents.len() - active));
    object.number("unreachable_slaves", count(snapshot.registry.unreachable.len()));
    object.message_if("domain", about.info.domain.as_ref());
    if let Some(leader) = &about.leader {
        object.text("leader", &leader.pid());
        object.object("leader_info", |object| {
            object.text("id", &leader.id);
            object.text("pid", &leader.pid());
            object.integer("port", u64::from(leader.port));
            object.text("hostname", &leader.hostname);
            if leader.id == about.info.id {
                object.message_if("domain", about.info.domain.as_ref());
            }
        });
    }
    for (name, flag) in [("cluster", "cluster"), ("log_dir", "log_dir"), ("external_log_file", "external_log_file")] {
        object.text_if(name, about.flags.get(flag).map(String::as_str));
    }
    if with_flags {
        object.object("flags", |object| about.flags.iter().for_each(|(name, value)| object.text(name, value)));
    }
}

/// What version this is.
pub(super) fn build(object: &mut Object<'_>, build: super::Build) {
    object.text("version", build.version);
    object.text("build_date", "");
    object.number("build_time", 0.0);
    object.text("build_user", &format!("orchestrator {}", build.product));
}

/// An entry of `slaves`.
pub(super) fn agent(object: &mut Object<'_>, agent: &Agent, viewer: &Viewer, with_full: bool) {
    let used = agent.used_total();
    agent_head(object, &agent.id, &agent.info);
    object.text("pid", &agent.pid);
    // Not of Mesos, where whoever asks has to know.
    object.text_if("scheme", agent.tls.then_some("https"));
    object.number("registered_time", seconds(agent.registered_at));
    object.number_if("reregistered_time", agent.reregistered_at.map(seconds));
    resources(object, "resources", &agent.total);
    resources(object, "used_resources", &used);
    resources(object, "offered_resources", &agent.offered);
    let mut reserved = by_role(&agent.total);
    reserved.retain(|role, _| viewer.sees(Sight::Role(role)));
    object.object("reserved_resources", |object| {
        reserved.iter().for_each(|(role, all)| resources(object, role, all.iter().copied()));
    });
    resources(object, "unreserved_resources", unreserved(&agent.total));
    object.flag("active", agent.active());
    object.flag("deactivated", agent.deactivated);
    object.text("version", &agent.version);
    object.array("capabilities", |array| {
        for capability in agent.capability_list.iter().filter_map(|it| it.r#type) {
            if let Ok(known) = v1::agent_info::capability::Type::try_from(capability) {
                array.text(known.as_str_name());
            }
        }
    });
    if with_full {
        object.object("reserved_resources_full", |object| {
            let sees = |it: &&mesos::Resource| viewer.sees_resource(it);
            reserved.iter().for_each(|(role, all)| object.array(role, |array| full(array, all.iter().copied().filter(sees))));
        });
        object.array("unreserved_resources_full", |array| full(array, unreserved(&agent.total)));
        let sees = |it: &&mesos::Resource| viewer.sees_resource(it);
        object.array("used_resources_full", |array| full(array, used.iter().filter(sees)));
        object.array("offered_resources_full", |array| full(array, agent.offered.iter().filter(sees)));
    }
    if let Some(drain) = &agent.drain {
        object.message("drain_info", drain);
        object.number_if("estimated_drain_start_time_seconds", agent.drain_started_at.map(seconds));
    }
}

fn agent_head(object: &mut Object<'_>, id: &AgentId, info: &v1::AgentInfo) {
    object.text("id", id);
    object.text("hostname", &info.hostname);
    object.integer("port", u64::from(info.port().unsigned_abs()));
    attributes(object, &info.attributes);
    object.message_if("domain", info.domain.as_ref());
}

/// `recovered_slaves`
pub(super) fn recovered_agents(object: &mut Object<'_>, snapshot: &Snapshot) {
    object.array("recovered_slaves", |array| {
        snapshot.recovered.iter().for_each(|(id, info)| array.object(|object| agent_head(object, id, info)));
    });
}

/// What every mention of a framework begins with. Gives what it uses and is offered.
pub(super) fn framework_head(
    object: &mut Object<'_>,
    framework: &Framework,
    offers: &OrdMap<OfferId, std::sync::Arc<Offer>>,
) -> mesos::Resources {
    let (info, used, offered) = (&framework.info, framework.used_total(), framework.offered_total(offers));
    object.text("id", &framework.id);
    object.text("name", &info.name);
    resources(object, "used_resources", &used);
    resources(object, "offered_resources", offered);
    object.array("capabilities", |array| {
        for capability in info.capabilities.iter().filter_map(|it| it.r#type) {
            if let Ok(known) = v1::framework_info::capability::Type::try_from(capability) {
                array.text(known.as_str_name());
            }
        }
    });
    object.text("hostname", info.hostname());
    object.text("webui_url", info.webui_url());
    object.flag("active", framework.active());
    object.flag("connected", framework.connected());
    object.flag("recovered", framework.recovered);
    let mut both = used;
    both.add_all(offered);
    both
}

/// An entry of `frameworks`.
pub(super) fn framework(object: &mut Object<'_>, framework: &Framework, offers: &OrdMap<OfferId, std::sync::Arc<Offer>>) {
    let info = &framework.info;
    let both = framework_head(object, framework, offers);
    object.text("user", &info.user);
    object.number("failover_timeout", info.failover_timeout());
    object.flag("checkpoint", info.checkpoint());
    object.number("registered_time", seconds(framework.registered_at));
    object.number("unregistered_time", framework.unregistered_at.map_or(0.0, seconds));
    object.text_if("principal", info.principal.as_deref());
    resources(object, "resources", &both);
    object.number_if("reregistered_time", framework.reregistered_at.map(seconds));
    if framework.capabilities.multi_role() {
        object.array("roles", |array| info.roles.iter().for_each(|role| array.text(role)));
    } else {
        object.text("role", info.role());
    }
    object.array("tasks", |array| tasks(array, framework.tasks.values()));
    object.array("unreachable_tasks", |array| tasks(array, framework.unreachable_tasks.values()));
    object.array("completed_tasks", |array| tasks(array, framework.completed_tasks.iter()));
    object.array("offers", |array| {
        array.objects(framework.offers.iter().filter_map(|id| offers.get(id)), |object, offer| {
            object.text("id", &offer.id);
            object.text("framework_id", &offer.framework_id);
            object.object("allocation_info", |object| object.text("role", offer.role.as_str()));
            object.text("slave_id", &offer.agent_id);
            resources(object, "resources", &offer.resources);
        });
    });
    object.array("executors", |array| {
        for ((agent, _), info) in &framework.executors {
            array.object(|object| {
                executor(object, info);
                object.text("slave_id", agent);
            });
        }
    });
    labels(object, info.labels.as_ref());
    object.message_if("offer_constraints", framework.offer_constraints.as_deref());
}

fn tasks<'a>(array: &mut Array<'_>, all: impl Iterator<Item = &'a std::sync::Arc<Task>>) {
    array.objects(all, task);
}

/// A task.
pub(super) fn task(object: &mut Object<'_>, task: &Task) {
    describe(object, task, status);
}

/// The same, with what its states said in words.
pub(super) fn task_with_words(object: &mut Object<'_>, task: &Task) {
    describe(object, task, |object, it| {
        status(object, it);
        object.text_if("message", it.message.as_deref());
        object.text_if("reason", it.reason.is_some().then(|| it.reason().as_str_name()));
        object.text_if("source", it.source.is_some().then(|| it.source().as_str_name()));
    });
}

fn describe(object: &mut Object<'_>, task: &Task, status: fn(&mut Object<'_>, &v1::TaskStatus)) {
    let fixed = &task.fixed;
    object.text("id", &task.id);
    object.text("name", &fixed.name);
    object.text("framework_id", &task.framework_id);
    object.text("executor_id", task.executor_id.as_deref().unwrap_or_default());
    object.text("slave_id", &task.agent_id);
    object.text("state", task.state.as_str_name());
    resources(object, "resources", &task.resources);
    if !fixed.limits.is_empty() {
        object.object("limits", |object| fixed.limits.iter().for_each(|(name, limit)| object.number(name, limit.value)));
    }
    object.text_if("role", task.resources.iter().find_map(|it| it.allocated_role()).map(|it| it.as_str()));
    object.array("statuses", |array| task.statuses.iter().for_each(|it| array.object(|object| status(object, it))));
    object.text_if("user", fixed.user.as_deref());
    labels(object, fixed.labels.as_ref());
    object.message_if("discovery", fixed.discovery.as_ref());
    object.message_if("container", fixed.container.as_ref());
    object.message_if("health_check", fixed.health_check.as_ref());
}

fn status(object: &mut Object<'_>, status: &v1::TaskStatus) {
    object.text("state", status.state().as_str_name());
    object.number("timestamp", status.timestamp());
    labels(object, status.labels.as_ref());
    object.message_if("container_status", status.container_status.as_ref());
    if let Some(healthy) = status.healthy {
        object.flag("healthy", healthy);
    }
}

fn executor(object: &mut Object<'_>, info: &v1::ExecutorInfo) {
    object.text("executor_id", &info.executor_id.value);
    object.text("name", info.name());
    object.text("framework_id", info.framework_id.as_ref().map_or("", |it| it.value.as_str()));
    object.object("command", |object| {
        let Some(command) = &info.command else { return };
        if let Some(shell) = command.shell {
            object.flag("shell", shell);
        }
        object.text_if("value", command.value.as_deref());
        object.array("argv", |array| command.arguments.iter().for_each(|it| array.text(it)));
        object.message_if("environment", command.environment.as_ref());
        object.array("uris", |array| {
            for uri in &command.uris {
                array.object(|object| {
                    object.text("value", &uri.value);
                    object.flag("executable", uri.executable());
                });
            }
        });
    });
    let all = mesos::Resources::from_proto(&info.resources);
    resources(object, "resources", &all);
    object.text_if("role", all.iter().find_map(|it| it.allocated_role()).map(|it| it.as_str()));
    labels(object, info.labels.as_ref());
    if let Some(kind) = info.r#type.and_then(|it| v1::executor_info::Type::try_from(it).ok()) {
        object.text("type", kind.as_str_name());
    }
}

fn labels(object: &mut Object<'_>, labels: Option<&v1::Labels>) {
    if let Some(labels) = labels {
        object.array("labels", |array| labels.labels.iter().for_each(|it| array.message(it)));
    }
}

/// A number of things, as Mesos says numbers.
pub(super) fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

/// When a task was first heard of, for sorting.
pub(super) fn first_told(task: &Task) -> f64 {
    task.statuses.front().map_or(0.0, |it| it.timestamp())
}

/// The moment of a time that may lie in the future of a lying clock.
pub(super) fn time_info(at: Timestamp) -> v1::TimeInfo {
    v1::TimeInfo { nanoseconds: i64::try_from(at.unix_nanos()).unwrap_or(i64::MAX) }
}
