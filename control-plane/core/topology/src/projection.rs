//! The map as one view sees it: who exists, and who opened connections to whom, before any filter.

use std::collections::{BTreeMap, BTreeSet};

use smallvec::{SmallVec, smallvec};

use crate::flows::Terminal;
use crate::index::Entity;
use crate::tables::Tables;
use crate::view::View;

/// Views that are kept as graphs. The others have nothing to show until something reports it.
pub(crate) const PROJECTED: [View; 10] = [
    View::Processes,
    View::ProcessesByName,
    View::Containers,
    View::ContainersByHostname,
    View::ContainersByImage,
    View::Hosts,
    View::Pods,
    View::KubeControllers,
    View::Services,
    View::Tasks,
];

/// Nodes of a view that an end belongs to: one, none, or several services.
pub(crate) type Entities = SmallVec<[Entity; 2]>;

/// Place of a view in [`PROJECTED`].
pub(crate) fn place(view: View) -> Option<usize> {
    PROJECTED.iter().position(|&projected| projected == view)
}

/// One view's graph.
#[derive(Debug, Default)]
pub(crate) struct Projection {
    nodes: BTreeMap<Entity, Ends>,
    /// How many there are from one node to another.
    edges: u64,
    /// What changed since the pictures were last mended; kept only while there are pictures.
    dirty: Dirty,
    /// What the round of drawing that has begun has left to draw: what changes meanwhile waits for the next one, so that each comes to its end.
    drawing: Dirty,
    watched: bool,
    /// Nodes whose texts may have changed since the index of searches was last mended; kept only while there is one.
    reworded: BTreeSet<Entity>,
    indexed: bool,
}

/// Nodes that pictures have to look at again.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    /// They may look different.
    pub(crate) changed: BTreeSet<Entity>,
    /// Somebody began or ceased to have an edge to them, which no summary shows: it can only matter to whether they are shown at all.
    pub(crate) grazed: BTreeSet<Entity>,
}

impl Dirty {
    pub(crate) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.grazed.is_empty()
    }
}

/// A node's edges, each with the number of links that say so.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    pub(crate) present: bool,
    pub(crate) outgoing: BTreeMap<Entity, u32>,
    pub(crate) incoming: BTreeMap<Entity, u32>,
}

impl Ends {
    fn is_empty(&self) -> bool {
        !self.present && self.outgoing.is_empty() && self.incoming.is_empty()
    }

    /// Everybody at the other end of an edge; twice when there are edges both ways.
    pub(crate) fn neighbours(&self) -> impl Iterator<Item = Entity> + '_ {
        self.outgoing.keys().chain(self.incoming.keys()).copied()
    }

    /// To whom it matters whether this node is shown: those with an edge to it show that edge, and what stands for the outside is shown only
    /// together with another.
    pub(crate) fn concerned(&self) -> impl Iterator<Item = Entity> + '_ {
        self.incoming.keys().chain(self.outgoing.keys().filter(|it| it.is_pseudo())).copied()
    }
}

impl Projection {
    pub(crate) fn ends(&self, entity: Entity) -> Option<&Ends> {
        self.nodes.get(&entity)
    }

    /// Whether the view has this node, filters aside.
    pub(crate) fn exists(&self, entity: Entity) -> bool {
        self.nodes.get(&entity).is_some_and(|ends| ends.present || entity.is_pseudo())
    }

    /// Whether it has an edge to or from a different node.
    pub(crate) fn is_connected(&self, entity: Entity) -> bool {
        self.nodes.get(&entity).is_some_and(|ends| ends.neighbours().any(|other| other != entity))
    }

    /// Whether a picture without filters shows it.
    pub(crate) fn is_shown(&self, entity: Entity) -> bool {
        let is_other = |other: Entity| other != entity && self.exists(other);
        self.exists(entity) && (!entity.is_pseudo() || self.nodes.get(&entity).is_some_and(|ends| ends.neighbours().any(is_other)))
    }

    pub(crate) fn entities(&self) -> impl Iterator<Item = Entity> + '_ {
        self.nodes.keys().copied()
    }

    /// Nodes that exist, filters aside.
    pub(crate) fn len(&self) -> u64 {
        self.nodes.len() as u64
    }

    /// Edges between them, filters aside.
    pub(crate) fn edge_count(&self) -> u64 {
        self.edges
    }

    /// Something that a summary shows has changed.
    pub(crate) fn touch(&mut self, entity: Entity) {
        self.reword(entity);
        self.touch_numbers(entity);
    }

    /// Only edges or metrics of a summary have changed: nothing that a search looks into.
    pub(crate) fn touch_numbers(&mut self, entity: Entity) {
        if self.watched {
            self.dirty.changed.insert(entity);
        }
    }

    fn reword(&mut self, entity: Entity) {
        if self.indexed {
            self.reworded.insert(entity);
        }
    }

    /// An edge has come or gone. What is not watched itself exists by its edges.
    fn touch_edge(&mut self, from: Entity, to: Entity) {
        for end in [from, to] {
            if end.is_pseudo() {
                self.reword(end);
            }
        }
        self.touch_numbers(from);
        if to.is_pseudo() {
            self.touch_numbers(to);
        } else if self.watched {
            self.dirty.grazed.insert(to);
        }
    }

    pub(crate) fn set_present(&mut self, entity: Entity, present: bool) {
        let ends = self.nodes.entry(entity).or_default();
        if ends.present == present {
            if ends.is_empty() {
                self.nodes.remove(&entity);
            }
            return;
        }
        ends.present = present;
        if self.indexed {
            self.reworded.extend(ends.neighbours().filter(|other| other.is_pseudo()));
            self.reworded.insert(entity);
        }
        if self.watched {
            // The number may stand for something else by the time the pictures are mended: whoever has an edge to it looks again.
            self.dirty.changed.extend(ends.concerned());
            self.dirty.changed.insert(entity);
        }
        if ends.is_empty() {
            self.nodes.remove(&entity);
        }
    }

    pub(crate) fn add_edge(&mut self, from: Entity, to: Entity) {
        let count = self.nodes.entry(from).or_default().outgoing.entry(to).or_insert(0);
        *count += 1;
        let is_new = *count == 1;
        *self.nodes.entry(to).or_default().incoming.entry(from).or_insert(0) += 1;
        if is_new {
            self.edges += 1;
            self.touch_edge(from, to);
        }
    }

    pub(crate) fn remove_edge(&mut self, from: Entity, to: Entity) {
        let mut is_last = false;
        if let Some(ends) = self.nodes.get_mut(&from) {
            is_last = decrement(&mut ends.outgoing, to);
            if ends.is_empty() {
                self.nodes.remove(&from);
            }
        }
        if let Some(ends) = self.nodes.get_mut(&to) {
            decrement(&mut ends.incoming, from);
            if ends.is_empty() {
                self.nodes.remove(&to);
            }
        }
        if is_last {
            self.edges = self.edges.saturating_sub(1);
            self.touch_edge(from, to);
        }
    }

    /// Begins or ends the bookkeeping of changes.
    pub(crate) fn set_watched(&mut self, watched: bool) {
        self.watched = watched;
        if !watched {
            self.dirty = Dirty::default();
            self.drawing = Dirty::default();
        }
    }

    /// Begins the bookkeeping for the index of searches.
    pub(crate) fn set_indexed(&mut self) {
        self.indexed = true;
    }

    /// Nodes that the index of searches has to look at again.
    pub(crate) fn reworded_count(&self) -> usize {
        self.reworded.len()
    }

    pub(crate) fn take_reworded(&mut self) -> BTreeSet<Entity> {
        std::mem::take(&mut self.reworded)
    }

    /// Whether something has to be drawn again.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || self.is_drawing()
    }

    /// Whether a round of drawing has begun and is not at its end.
    pub(crate) fn is_drawing(&self) -> bool {
        !self.drawing.is_empty()
    }

    /// Takes everything that has to be drawn again.
    pub(crate) fn take_dirty(&mut self) -> Dirty {
        let mut all = std::mem::take(&mut self.drawing);
        all.changed.append(&mut self.dirty.changed);
        all.grazed.append(&mut self.dirty.grazed);
        all
    }

    /// Begins a round of drawing with everything that has changed.
    pub(crate) fn begin_drawing(&mut self) {
        self.drawing = self.take_dirty();
    }

    /// Takes so many nodes of the round; the rest stays.
    pub(crate) fn take_some_drawing(&mut self, limit: usize) -> Dirty {
        let Some(next) = self.drawing.changed.iter().nth(limit).copied() else { return std::mem::take(&mut self.drawing) };
        let later = self.drawing.changed.split_off(&next);
        Dirty { changed: std::mem::replace(&mut self.drawing.changed, later), grazed: std::mem::take(&mut self.drawing.grazed) }
    }

    /// Every edge is known at both of its ends with the same count, and no entry is empty.
    pub(crate) fn check(&self) -> Result<(), String> {
        let edges: u64 = self.nodes.values().map(|ends| ends.outgoing.len() as u64).sum();
        if edges != self.edges {
            return Err(format!("{} edges are counted, and there are {edges}", self.edges));
        }
        for (&entity, ends) in &self.nodes {
            if ends.is_empty() {
                return Err(format!("{entity:?} has an empty entry"));
            }
            for (to, count) in &ends.outgoing {
                let mirrored = self.nodes.get(to).and_then(|other| other.incoming.get(&entity));
                if mirrored != Some(count) {
                    return Err(format!("edge {entity:?} -> {to:?} counts {count} at one end and {mirrored:?} at the other"));
                }
            }
        }
        Ok(())
    }
}

fn decrement(counts: &mut BTreeMap<Entity, u32>, key: Entity) -> bool {
    let Some(count) = counts.get_mut(&key) else { return false };
    *count -= 1;
    if *count == 0 {
        counts.remove(&key);
        return true;
    }
    false
}

/// Which nodes of `view` an end of a connection belongs to; none hides its edges there.
pub(crate) fn project(tables: &Tables, view: View, terminal: Terminal) -> Entities {
    match view {
        View::Pods | View::KubeControllers | View::Services => crate::kubernetes::project(tables, view, terminal),
        _ => project_one(tables, view, terminal).map_or_else(Entities::new, |entity| smallvec![entity]),
    }
}

fn project_one(tables: &Tables, view: View, terminal: Terminal) -> Option<Entity> {
    match (view, terminal) {
        (_, Terminal::InternetIn) => Some(Entity::InternetIn),
        (_, Terminal::InternetOut) => Some(Entity::InternetOut),
        (_, Terminal::External(group)) => Some(Entity::External(group)),
        (View::Processes, Terminal::Process(process)) => Some(Entity::Process(process)),
        (View::ProcessesByName, Terminal::Process(process)) => tables.processes[process].name.map(Entity::Name),
        (View::Hosts, Terminal::Process(process)) => Some(Entity::Host(tables.processes[process].host)),
        (View::Hosts, Terminal::Container(container)) => Some(Entity::Host(tables.containers[container].host)),
        (View::Hosts, Terminal::Object(pod)) => crate::kubernetes::host_of(tables, pod).map(Entity::Host),
        (View::Hosts, Terminal::Host(host)) => Some(Entity::Host(host)),
        (View::Containers | View::ContainersByHostname | View::ContainersByImage, Terminal::Process(process)) => {
            let row = &tables.processes[process];
            match row.container {
                Some(container) => contained(tables, view, container),
                None => Some(Entity::Uncontained(row.host)),
            }
        }
        (View::Containers | View::ContainersByHostname | View::ContainersByImage, Terminal::Container(container)) => {
            contained(tables, view, container)
        }
        (View::Tasks, Terminal::Process(process)) => {
            let row = &tables.processes[process];
            crate::tasks::project(tables, row.host, row.container)
        }
        (View::Tasks, Terminal::Container(container)) => crate::tasks::project(tables, tables.containers[container].host, Some(container)),
        _ => None,
    }
}

fn contained(tables: &Tables, view: View, container: crate::index::ContainerIndex) -> Option<Entity> {
    let row = &tables.containers[container];
    row.record.as_ref()?;
    match view {
        View::ContainersByImage => row.image.map(Entity::Image),
        View::ContainersByHostname => row.hostname.map(Entity::Hostname),
        _ => Some(Entity::Container(container)),
    }
}
