//! A view through a filter, kept up to date: only what changed is drawn again.

use std::collections::{BTreeMap, BTreeSet};

use base::{DenseSet, Timestamp};

use crate::index::{ContainerIndex, Entity};
use crate::node::{NodeId, NodeSummary, PublishedNode};
use crate::projection::{Dirty, Projection};
use crate::report::{Container, ContainerState};
use crate::state_words::state_of;
use crate::summary;
use crate::tables::{GroupRow, Tables};
use crate::tasks;
use crate::text::image_without_tag;
use crate::view::{Filter, StoppedFilter, SystemFilter, ViewKey, ViewSnapshot};

/// One picture.
#[derive(Debug)]
pub(crate) struct Picture {
    key: ViewKey,
    snapshot: ViewSnapshot,
    /// Nodes that pass the filter. A pseudo node among them is shown only while it has an edge to another of them.
    passing: DenseSet<Entity>,
    /// Under which id a node was last published: the number may stand for something else by now.
    shown: BTreeMap<Entity, NodeId>,
    /// Ids that several numbers were published under, and how many more than one: a process that took a dead one's pid came before the dead one
    /// went.
    handed_over: BTreeMap<NodeId, u32>,
    /// When nobody watched it any more.
    pub(crate) idle_since: Option<Timestamp>,
}

/// What a picture is drawn from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene<'a> {
    pub(crate) tables: &'a Tables,
    pub(crate) projection: &'a Projection,
    pub(crate) now: Timestamp,
}

impl Picture {
    /// Draws everything.
    pub(crate) fn draw(key: ViewKey, scene: Scene<'_>) -> Self {
        let mut picture = Picture {
            key,
            snapshot: ViewSnapshot::default(),
            passing: DenseSet::default(),
            shown: BTreeMap::new(),
            handed_over: BTreeMap::new(),
            idle_since: None,
        };
        picture.mend(scene, &Dirty { changed: scene.projection.entities().collect(), ..Dirty::default() });
        picture
    }

    pub(crate) fn snapshot(&self) -> &ViewSnapshot {
        &self.snapshot
    }

    /// Draws what changed, and says whether anything looks different now.
    pub(crate) fn mend(&mut self, scene: Scene<'_>, dirty: &Dirty) -> bool {
        let work = self.judge(scene, dirty);
        let mut change = Change::default();
        // Two passes: a process that took a dead one's pid has the same node id, and must not be removed with it.
        let mut drawn = Vec::new();
        for &entity in &work {
            let summary = self.is_shown(scene.projection, entity).then(|| self.render(scene, entity)).flatten();
            let old = self.shown.get(&entity);
            if old.is_some() && old != summary.as_ref().map(|summary| &summary.id) {
                self.remove(entity, &mut change);
            }
            drawn.extend(summary.map(|summary| (entity, summary)));
        }
        for (entity, summary) in drawn {
            self.publish(entity, summary, &mut change);
        }
        self.snapshot.stats.filtered_nodes = scene.projection.len().saturating_sub(self.snapshot.stats.node_count);
        self.snapshot.version += u64::from(change.anything);
        self.snapshot.structure_version += u64::from(change.structure);
        change.anything
    }

    /// Decides again who passes the filter, and returns whom that concerns: the changed, those who came or went, and who shows those.
    fn judge(&mut self, scene: Scene<'_>, dirty: &Dirty) -> BTreeSet<Entity> {
        let mut work = dirty.changed.clone();
        // No other filter asks for edges.
        let grazed = Some(&dirty.grazed).filter(|_| self.key.filter.hide_unconnected).into_iter().flatten();
        for &entity in dirty.changed.iter().chain(grazed) {
            let passes = scene.projection.exists(entity) && passes(scene, self.key, entity);
            let changed = if passes { self.passing.insert(entity) } else { self.passing.remove(&entity) };
            if changed {
                work.insert(entity);
                work.extend(scene.projection.ends(entity).into_iter().flat_map(|ends| ends.concerned()));
            }
        }
        work
    }

    fn is_shown(&self, projection: &Projection, entity: Entity) -> bool {
        if !self.passing.contains(&entity) {
            return false;
        }
        !entity.is_pseudo()
            || projection.ends(entity).is_some_and(|ends| ends.neighbours().any(|other| other != entity && self.passing.contains(&other)))
    }

    fn render(&self, scene: Scene<'_>, entity: Entity) -> Option<NodeSummary> {
        let mut summary = summary::summarize(scene.tables, entity, self.key.filter, scene.now)?;
        if let Some(ends) = scene.projection.ends(entity) {
            let targets = ends.outgoing.keys().filter(|target| self.passing.contains(target));
            summary.adjacency = targets.filter_map(|&target| summary::node_id(scene.tables, target)).collect();
            summary.adjacency.sort();
        }
        Some(summary)
    }

    fn remove(&mut self, entity: Entity, change: &mut Change) {
        let Some(id) = self.shown.remove(&entity) else { return };
        if let Some(more) = self.handed_over.get_mut(&id) {
            *more -= 1;
            if *more == 0 {
                self.handed_over.remove(&id);
            }
            return;
        }
        let Some(node) = self.snapshot.nodes.remove(&id) else { return };
        self.count(node.summary(), entity, -1);
        *change = Change { anything: true, structure: true };
    }

    fn publish(&mut self, entity: Entity, summary: NodeSummary, change: &mut Change) {
        let old = self.snapshot.nodes.get(&summary.id).cloned();
        if let Some(old) = &old {
            if self.shown.get(&entity) != Some(&summary.id) {
                *self.handed_over.entry(summary.id.clone()).or_default() += 1;
            }
            if *old.summary() == summary {
                self.shown.insert(entity, summary.id);
                return;
            }
            let adjacency_changed = old.summary().adjacency != summary.adjacency;
            // Whoever watches a container stop should not have to wait for the next round.
            change.structure |= adjacency_changed || state_of(old.summary()) != state_of(&summary);
            self.count(old.summary(), entity, -1);
        } else {
            change.structure = true;
        }
        change.anything = true;
        self.count(&summary, entity, 1);
        self.shown.insert(entity, summary.id.clone());
        self.snapshot.nodes.insert(summary.id.clone(), PublishedNode::new(summary));
    }

    fn count(&mut self, summary: &NodeSummary, entity: Entity, sign: i64) {
        let add = |count: &mut u64, by: u64| *count = if sign < 0 { count.saturating_sub(by) } else { *count + by };
        let stats = &mut self.snapshot.stats;
        add(&mut stats.node_count, 1);
        add(&mut stats.nonpseudo_node_count, u64::from(!entity.is_pseudo()));
        add(&mut stats.edge_count, summary.adjacency.len() as u64);
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Change {
    anything: bool,
    structure: bool,
}

/// Whether the options of a request keep a node (section 2.2 of Scope's contract).
pub(crate) fn passes(scene: Scene<'_>, key: ViewKey, entity: Entity) -> bool {
    let Filter { system, stopped, hide_pseudo, hide_unconnected, hide_storage, .. } = key.filter;
    match entity {
        Entity::InternetIn | Entity::InternetOut | Entity::External(_) => true,
        Entity::Uncontained(_) | Entity::Unmanaged(_) | Entity::Untasked(_) => !hide_pseudo,
        Entity::Process(_) | Entity::Name(_) => !hide_unconnected || scene.projection.is_connected(entity),
        Entity::Container(container) => {
            let Some(record) = scene.tables.containers.get(container).and_then(|row| row.record.as_ref()) else { return false };
            let labels = scene.tables.containers.get(container).and_then(|row| summary::image_of(scene.tables, record, row.host));
            system.is_none_or(|wanted| system_of(record, labels.map(|image| &image.record.labels)) == wanted)
                && stopped.is_none_or(|wanted| stopped_of(record.state) == wanted)
        }
        // Scope asked a group what it asked a container, and a group has no state and no name of a container: it runs, and only its image may
        // be one of the system.
        Entity::Image(group) => {
            let found = scene.tables.images.get(group).map_or(SystemFilter::Application, |row| system_of_image(scene, row));
            system.is_none_or(|wanted| found == wanted) && stopped != Some(StoppedFilter::Stopped)
        }
        Entity::Hostname(_) => system != Some(SystemFilter::System) && stopped != Some(StoppedFilter::Stopped),
        Entity::Object(object) => !hide_storage || !scene.tables.kubernetes.is_storage(object),
        Entity::Task(task) => stopped.is_none_or(|wanted| tasks::states(scene.tables, task).any(|it| stopped_of(it) == wanted)),
        Entity::Host(_) => true,
    }
}

fn stopped_of(state: ContainerState) -> StoppedFilter {
    match state {
        ContainerState::Running | ContainerState::Restarting | ContainerState::Paused => StoppedFilter::Running,
        ContainerState::Created | ContainerState::Exited | ContainerState::Dead => StoppedFilter::Stopped,
    }
}

const SYSTEM_NAMES: [&str; 6] = ["weavescope", "weavedns", "weave", "weaveproxy", "weaveexec", "ecs-agent"];
const SYSTEM_IMAGES: [&str; 9] = [
    "swarm",
    "weaveworks/scope",
    "weaveworks/weavedns",
    "weaveworks/weave",
    "weaveworks/weaveproxy",
    "weaveworks/weaveexec",
    "amazon/amazon-ecs-agent",
    "openshift/origin-pod",
    "docker.io/openshift/origin-pod",
];
/// The last one is not in Scope's list, but is where Kubernetes publishes its pause image now.
const PAUSE_IMAGES: [&str; 4] = ["google_containers/pause", "k8s.gcr.io/pause", "eks/pause", "registry.k8s.io/pause"];

fn system_of_image(scene: Scene<'_>, group: &GroupRow<ContainerIndex>) -> SystemFilter {
    let mut records = group.members.iter().filter_map(|&container| scene.tables.containers.get(container));
    let role_is_system = records.any(|row| {
        let image = row.record.as_ref().and_then(|record| summary::image_of(scene.tables, record, row.host));
        image.is_some_and(|image| image.record.labels.get("works.weave.role").is_some_and(|role| &**role == "system"))
    });
    if role_is_system || is_system_image(&group.text) { SystemFilter::System } else { SystemFilter::Application }
}

fn is_system_image(name: &str) -> bool {
    let image = name.split_once(':').map_or(name, |(name, _)| name);
    SYSTEM_IMAGES.contains(&image) || SYSTEM_IMAGES.contains(&image_without_tag(name)) || is_pause_image(name)
}

pub(crate) fn is_pause_image(name: &str) -> bool {
    PAUSE_IMAGES.iter().any(|pause| name.contains(pause))
}

type Labels = std::collections::BTreeMap<std::sync::Arc<str>, std::sync::Arc<str>>;

fn system_of(container: &Container, image_labels: Option<&Labels>) -> SystemFilter {
    let label_is = |labels: &Labels, key: &str, value: &str| labels.get(key).is_some_and(|found| &**found == value);
    let is_system = SYSTEM_NAMES.contains(&&*container.name)
        || is_system_image(&container.image_name)
        || label_is(&container.labels, "io.kubernetes.docker.type", "podsandbox")
        || label_is(&container.labels, "works.weave.role", "system")
        || image_labels.is_some_and(|labels| label_is(labels, "works.weave.role", "system"))
        || label_is(&container.labels, "io.kubernetes.pod.namespace", "kube-system")
        || container.labels.get("io.kubernetes.pod.name").is_some_and(|name| name.starts_with("kube-system/"));
    if is_system { SystemFilter::System } else { SystemFilter::Application }
}
