//! The documents of the classic endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use master::Task;
use mesos::{Quantities, Resources};
use mesos_proto::json::{Spelling, write};
use mesos_proto::v1;

use super::Scene;
use super::operator;
use super::state::{agent, build, first_told, framework, recovered_agents, task, task_with_words};
use crate::acl::Sight;
use crate::json::{Object, array, object};
use crate::pieces::{Pieces, Runs, Sink};

/// A document that is a function of state and query.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Document {
    /// `/state`
    State {
        /// Whether the reader may see the flags.
        flags: bool,
    },
    /// `/state-summary`
    Summary,
    /// `/slaves`
    Agents {
        /// Only this one.
        id: Option<String>,
    },
    /// `/frameworks`
    Frameworks {
        /// Only this one.
        id: Option<String>,
    },
    /// `/tasks`
    Tasks(TaskQuery),
    /// `/roles`
    Roles,
    /// `/weights`
    Weights,
    /// `/quota`
    Quota,
    /// `/maintenance/schedule`
    MaintenanceSchedule,
    /// `/maintenance/status`
    MaintenanceStatus,
}

/// Which tasks, and in which order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TaskQuery {
    pub(crate) limit: usize,
    pub(crate) offset: usize,
    pub(crate) ascending: bool,
    pub(crate) framework_id: Option<String>,
    pub(crate) task_id: Option<String>,
    /// Whether states are told with their messages, reasons and sources, which Mesos leaves out here.
    pub(crate) words: bool,
}

/// Writes a document, with the runs that it had when it was last written for the same viewer.
pub(crate) fn render(scene: &Scene, document: &Document, runs: &mut Runs) -> Pieces {
    // What a viewer may not see is cut out of copies, which are others each time.
    let mut out = if scene.viewer.key().is_none() { Sink::with(std::mem::take(runs)) } else { Sink::default() };
    let snapshot = &scene.view.snapshot;
    match document {
        Document::State { flags } => super::state::state(scene, *flags, &mut out),
        Document::Summary => super::summary::summary(scene, &mut out),
        Document::Agents { id } => object(&mut out, |object| {
            let wanted = |it: &str| id.as_deref().is_none_or(|id| id == it);
            object.array("slaves", |array| {
                let agents = snapshot.agents.values().filter(|it| wanted(&it.id));
                array.objects(agents, |object, it| agent(object, it, &scene.viewer, true));
            });
            match id {
                None => recovered_agents(object, snapshot),
                Some(_) => object.array("recovered_slaves", |_| {}),
            }
        }),
        Document::Frameworks { id } => object(&mut out, |object| {
            let wanted = |it: &str| id.as_deref().is_none_or(|id| id == it);
            object.array("frameworks", |array| {
                let all = snapshot.frameworks.values().filter(|it| wanted(&it.id));
                all.for_each(|it| array.object(|object| framework(object, it, &snapshot.offers)));
            });
            object.array("completed_frameworks", |array| {
                let all = snapshot.completed_frameworks.iter().filter(|it| wanted(&it.id));
                all.for_each(|it| array.object(|object| framework(object, it, &snapshot.offers)));
            });
            object.array("unregistered_frameworks", |_| {});
        }),
        Document::Tasks(query) => tasks(scene, query, &mut out),
        Document::Roles => roles(scene, &mut out),
        Document::Weights => array(&mut out, |array| {
            for (role, weight) in &snapshot.registry.weights {
                array.object(|object| {
                    object.text("role", role);
                    object.number("weight", *weight);
                });
            }
        }),
        Document::Quota => write(&operator::quota(snapshot), Spelling::V0, out.bytes()),
        Document::MaintenanceSchedule => write(&snapshot.registry.schedule, Spelling::V0, out.bytes()),
        Document::MaintenanceStatus => write(&operator::maintenance_status(snapshot), Spelling::V0, out.bytes()),
    }
    let (pieces, kept) = out.finish();
    *runs = kept;
    pieces
}

/// `/version`
pub(crate) fn version(scene: super::Build) -> Vec<u8> {
    let mut out = Sink::default();
    object(&mut out, |object| build(object, scene));
    out.into_bytes()
}

/// `/flags`
pub(crate) fn flags(flags: &BTreeMap<String, String>) -> Vec<u8> {
    let mut out = Sink::default();
    object(&mut out, |object| {
        object.object("flags", |object| flags.iter().for_each(|(name, value)| object.text(name, value)));
    });
    out.into_bytes()
}

fn tasks(scene: &Scene, query: &TaskQuery, out: &mut Sink) {
    let snapshot = &scene.view.snapshot;
    let mut found: Vec<&Arc<Task>> = Vec::new();
    for framework in snapshot.frameworks.values().chain(snapshot.completed_frameworks.iter()) {
        if query.framework_id.as_deref().is_some_and(|id| id != &*framework.id) {
            continue;
        }
        let all = framework.tasks.values().chain(framework.unreachable_tasks.values()).chain(framework.completed_tasks.iter());
        found.extend(all.filter(|it| query.task_id.as_deref().is_none_or(|id| id == &*it.id)));
    }
    found.sort_by(|one, other| {
        let order = first_told(one).total_cmp(&first_told(other));
        if query.ascending { order } else { order.reverse() }
    });
    object(out, |object| {
        object.array("tasks", |array| {
            let write = if query.words { task_with_words } else { task };
            found.iter().skip(query.offset).take(query.limit).for_each(|it| array.object(|object| write(object, it)));
        });
    });
}

/// The roles that are known: with frameworks, a weight, a quota or reservations, and what they are below.
pub(super) fn known_roles(scene: &Scene) -> BTreeSet<String> {
    let snapshot = &scene.view.snapshot;
    let mut roles: BTreeSet<String> = snapshot.registry.weights.keys().chain(snapshot.registry.quotas.keys()).cloned().collect();
    snapshot.frameworks.values().for_each(|it| roles.extend(it.roles.iter().map(|role| role.as_str().to_owned())));
    for agent in snapshot.agents.values() {
        for resource in &agent.total {
            if let Some(role) = resource.reserved_role().filter(|it| !roles.contains(it.as_str())) {
                roles.insert(role.as_str().to_owned());
            }
        }
    }
    let above: Vec<String> = roles.iter().flat_map(|role| role.match_indices('/').map(|(end, _)| role[..end].to_owned())).collect();
    roles.extend(above);
    roles
}

/// What a role holds.
#[derive(Default)]
pub(super) struct Holdings {
    pub(super) allocated: Resources,
    pub(super) offered: Resources,
    pub(super) reserved: Quantities,
    pub(super) frameworks: BTreeSet<String>,
}

/// What every role holds.
pub(super) fn holdings(scene: &Scene) -> BTreeMap<String, Holdings> {
    let snapshot = &scene.view.snapshot;
    let mut all: BTreeMap<String, Holdings> = known_roles(scene).into_iter().map(|role| (role, Holdings::default())).collect();
    for framework in snapshot.frameworks.values() {
        for role in framework.roles.iter() {
            all.entry(role.as_str().to_owned()).or_default().frameworks.insert(framework.id.to_string());
        }
        for used in framework.used.values() {
            for resource in used {
                let role = resource.allocated_role().map_or("*", |it| it.as_str());
                let holdings = all.entry(role.to_owned()).or_default();
                holdings.allocated.add(resource.clone());
                // Who holds something counts, whether or not it still has the role.
                holdings.frameworks.insert(framework.id.to_string());
            }
        }
    }
    for offer in snapshot.offers.values() {
        all.entry(offer.role.as_str().to_owned()).or_default().offered.add_all(&offer.resources);
    }
    for agent in snapshot.agents.values() {
        for resource in &agent.total {
            if let (Some(role), mesos::Value::Scalar(amount)) = (resource.reserved_role(), resource.value()) {
                all.entry(role.as_str().to_owned()).or_default().reserved.add(resource.name(), *amount);
            }
        }
    }
    all.retain(|role, _| scene.viewer.sees(Sight::Role(role)));
    all
}

fn roles(scene: &Scene, out: &mut Sink) {
    let registry = &scene.view.snapshot.registry;
    object(out, |object| {
        object.array("roles", |array| {
            for (role, holdings) in holdings(scene) {
                let mut both = holdings.allocated.quantities();
                both.add_all(&holdings.offered.quantities());
                array.object(|object| {
                    object.text("name", &role);
                    object.number("weight", registry.weights.get(&role).copied().unwrap_or(1.0));
                    object.object("quota", |object| {
                        let quota = registry.quotas.get(&role);
                        object.text("role", &role);
                        scalars(object, "guarantee", quota.map(|it| &it.guarantees));
                        scalars(object, "limit", quota.map(|it| &it.limits));
                        quantities(object, "consumed", &scene.view.snapshot.consumed.get(&role).cloned().unwrap_or_default());
                    });
                    quantities(object, "resources", &both);
                    quantities(object, "allocated", &holdings.allocated.quantities());
                    quantities(object, "offered", &holdings.offered.quantities());
                    quantities(object, "reserved", &holdings.reserved);
                    object.array("frameworks", |array| holdings.frameworks.iter().for_each(|id| array.text(id)));
                });
            }
        });
    });
}

fn quantities(object: &mut Object<'_>, name: &str, quantities: &Quantities) {
    object.object(name, |object| quantities.iter().for_each(|(name, amount)| object.number(name, amount.to_f64())));
}

fn scalars(object: &mut Object<'_>, name: &str, scalars: Option<&BTreeMap<String, v1::value::Scalar>>) {
    object.object(name, |object| {
        for (name, amount) in scalars.into_iter().flatten() {
            object.number(name, amount.value);
        }
    });
}
