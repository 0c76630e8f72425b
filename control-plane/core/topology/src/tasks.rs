//! Mesos tasks: who a container belongs to, by the labels that its agent gave it.
//!
//! A container with such labels is a node of the view `tasks`, together with others of the same task. Its rows say framework, role and executor, in
//! the container's own summary too, so that a search for `framework: marathon` finds both.

use std::sync::Arc;

use base::Timestamp;

use crate::index::{ContainerIndex, Entity, GroupIndex};
use crate::node::{MetadataRow, NodeSummary, Parent, Shape};
use crate::projection::Entities;
use crate::report::{Container, ContainerState};
use crate::summary::{self, row};
use crate::tables::Tables;
use crate::text::join;

/// End of the ids of its nodes.
pub(crate) const SUFFIX: &str = ";<mesos_task>";

/// Labels that an agent gives to a task's container.
const FRAMEWORK_ID: &str = "mesos.framework_id";
const FRAMEWORK_NAME: &str = "mesos.framework_name";
const TASK_ID: &str = "mesos.task_id";
const TASK_NAME: &str = "mesos.task_name";
const EXECUTOR_ID: &str = "mesos.executor_id";
const ROLE: &str = "mesos.role";

fn label(container: &Container, key: &str) -> Arc<str> {
    container.labels.get(key).cloned().unwrap_or_default()
}

/// What makes the task of a container itself: its id, and its framework's, since two frameworks may use one id.
pub(crate) fn key(container: &Container) -> Option<Arc<str>> {
    let (task, framework) = (container.labels.get(TASK_ID)?, container.labels.get(FRAMEWORK_ID)?);
    (!task.is_empty() && !framework.is_empty()).then(|| format!("{task};{framework}").into())
}

/// The nodes of the view that a container, or what is in none, belongs to.
pub(crate) fn project(tables: &Tables, host: crate::index::HostIndex, container: Option<ContainerIndex>) -> Option<Entity> {
    let Some(container) = container else { return Some(Entity::Untasked(host)) };
    let row = tables.containers.get(container)?;
    row.record.as_ref()?;
    Some(row.task.map_or(Entity::Untasked(host), Entity::Task))
}

/// Whether an edge is one of the view: what is between others than tasks is shown elsewhere.
pub(crate) fn has_task(from: &Entities, to: &Entities) -> bool {
    from.iter().chain(to).any(|it| matches!(it, Entity::Task(_)))
}

/// The container that stands for a task: the first of those that have its labels.
fn container_of(tables: &Tables, group: GroupIndex) -> Option<(ContainerIndex, &Container)> {
    let members = tables.tasks.get(group)?.members.iter();
    members.copied().find_map(|it| Some((it, tables.containers.get(it)?.record.as_ref()?)))
}

/// The same as a node of the view of containers.
pub(crate) fn container(tables: &Tables, group: GroupIndex) -> Option<Entity> {
    container_of(tables, group).map(|(index, _)| Entity::Container(index))
}

fn name(container: &Container) -> Arc<str> {
    Some(label(container, TASK_NAME)).filter(|it| !it.is_empty()).unwrap_or_else(|| label(container, TASK_ID))
}

/// Rows for a container of a task; none for others.
pub(crate) fn rows(container: &Container) -> Vec<MetadataRow> {
    if key(container).is_none() {
        return Vec::new();
    }
    let rows = [
        row("mesos_task", "Task", "", 30.0, name(container)),
        row("mesos_task_id", "Task ID", "", 31.0, label(container, TASK_ID)),
        row("mesos_framework", "Framework", "", 32.0, label(container, FRAMEWORK_NAME)),
        row("mesos_framework_id", "Framework ID", "", 33.0, label(container, FRAMEWORK_ID)),
        row("mesos_role", "Role", "", 34.0, label(container, ROLE)),
        row("mesos_executor_id", "Executor", "", 35.0, label(container, EXECUTOR_ID)),
    ];
    rows.into_iter().flatten().collect()
}

/// The link from a container to its task.
pub(crate) fn parent(tables: &Tables, container: ContainerIndex) -> Option<Parent> {
    let row = tables.containers.get(container)?;
    let group = tables.tasks.get(row.task?)?;
    Some(Parent { id: group.node_id.clone(), label: name(row.record.as_ref()?), topology_id: "tasks" })
}

/// A node of the view.
pub(crate) fn summarize(tables: &Tables, group: GroupIndex, now: Timestamp) -> Option<NodeSummary> {
    let (index, container) = container_of(tables, group)?;
    let row_of = tables.containers.get(index)?;
    let node_id = tables.tasks.get(group)?.node_id.clone();
    let host = tables.hosts.get(row_of.host);
    let mut metadata = rows(container);
    let uptime = container.started_at.filter(|_| container.pid != 0).map(|started| now.since(started).as_secs().to_string());
    let more = [
        row("docker_container_state_human", "State", "", 36.0, container.state_human.clone()),
        row("docker_container_uptime", "Uptime", "duration", 37.0, uptime.unwrap_or_default()),
        row("docker_container_ips", "IPs", "", 38.0, join(container.addresses_on(host.map(|host| &host.record)).iter())),
        row("peer_names", "Talks to", "", 39.0, row_of.peers.text()),
    ];
    metadata.extend(more.into_iter().flatten());
    let framework = label(container, FRAMEWORK_NAME);
    Some(NodeSummary {
        label: name(container),
        label_minor: framework.clone(),
        rank: framework,
        metadata,
        parents: summary::host_parent(tables, row_of.host).into_iter().collect(),
        metrics: summary::container_metrics(tables, index, false),
        ..NodeSummary::blank(node_id, Shape::Hexagon)
    })
}

/// States of the containers of a task.
pub(crate) fn states(tables: &Tables, group: GroupIndex) -> impl Iterator<Item = ContainerState> + '_ {
    let members = tables.tasks.get(group).into_iter().flat_map(|row| row.members.iter());
    members.filter_map(|&it| Some(tables.containers.get(it)?.record.as_ref()?.state))
}

/// Metrics with their samples, for the panel.
pub(crate) fn metrics(tables: &Tables, group: GroupIndex) -> Vec<crate::node::MetricRow> {
    container_of(tables, group).map(|(index, _)| summary::container_metrics(tables, index, true)).unwrap_or_default()
}
