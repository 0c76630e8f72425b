//! Pictures as clients see them: what the map shows, and what old probes reported beside it.
//!
//! While there is no old probe, and no namespace is asked for, a picture is the map's own and costs nothing here. Otherwise it is the map's
//! picture with the other nodes put in: what is the same stays shared, and clients who look at the same thing share the result.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use imbl::OrdMap;
use scope_report::Overlay;
use tokio::sync::{OnceCell, watch};
use topology::{Details, Filter, NodeId, NodeSummary, PublishedNode, View, ViewKey, ViewSnapshot, ViewStats};

use super::labels::LabelFilter;
use super::merging;
use super::views::{Namespaces, Wanted};
use crate::drivers::{OldProbesHandle, Scenery, Stopped, Subscription, TopologyHandle};
use crate::http::Context;

/// Pictures that are kept for clients who ask for the same.
const CACHE_CAPACITY: usize = 64;

/// Makes pictures.
#[derive(Clone, Debug)]
pub(super) struct Scenes {
    topology: TopologyHandle,
    old_probes: OldProbesHandle,
    labels: Arc<[LabelFilter]>,
    cache: Arc<Mutex<VecDeque<Entry>>>,
}

/// A picture, and what it was made of. Snapshots are told apart by their place in memory, which the weak pointer keeps from being used again.
#[derive(Debug)]
struct Entry {
    base: Weak<ViewSnapshot>,
    generation: u64,
    wanted: Wanted,
    picture: Arc<OnceCell<Arc<ViewSnapshot>>>,
}

impl Scenes {
    pub(super) fn new(context: &Context) -> Self {
        let Context { topology, old_probes, label_filters, .. } = context;
        Scenes { topology: topology.clone(), old_probes: old_probes.clone(), labels: label_filters.clone(), cache: Arc::default() }
    }

    /// The picture as it is now.
    pub(super) async fn snapshot(&self, wanted: &Wanted) -> Result<Arc<ViewSnapshot>, Stopped> {
        let base = self.topology.snapshot(wanted.key).await?;
        self.compose(base, self.old_probes.scenery(), wanted).await
    }

    /// The picture as it is now, and as it changes.
    pub(super) async fn follow(&self, wanted: Wanted) -> Result<Feed, Stopped> {
        let base = self.topology.subscribe(wanted.key).await?;
        let scenery = self.old_probes.subscribe();
        Ok(Feed { scenes: self.clone(), wanted, base, scenery, structure: 0, urgent: 0 })
    }

    /// Numbers of all views for one query, in the order of [`View::ALL`].
    pub(super) async fn stats(&self, wanted: Vec<Wanted>) -> Result<Vec<ViewStats>, Stopped> {
        if self.old_probes.scenery().drawing.is_none() && !wanted.iter().any(Wanted::is_cut) {
            return self.topology.stats(wanted.iter().map(|wanted| wanted.key).collect()).await;
        }
        let mut stats = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            stats.push(self.snapshot(&wanted).await?.stats);
        }
        Ok(stats)
    }

    /// What `namespace` may be.
    pub(super) async fn namespaces(&self) -> Result<Namespaces, Stopped> {
        let mut namespaces = Namespaces { kubernetes: self.topology.namespaces().await?.into_iter().collect(), stacks: BTreeSet::new() };
        if let Some(drawing) = &self.old_probes.scenery().drawing {
            let (kubernetes, stacks) = drawing.namespaces();
            namespaces.kubernetes.extend(kubernetes);
            namespaces.stacks = stacks;
        }
        Ok(namespaces)
    }

    /// A node's panel: what the map knows of it, and what old probes do.
    pub(super) async fn details(&self, wanted: &Wanted, id: String) -> Result<Option<Box<Details>>, Stopped> {
        let view = wanted.key.view;
        let ours = self.topology.details(wanted.key, NodeId::from(id.as_str())).await?;
        let scenery = self.old_probes.scenery();
        if scenery.drawing.is_none() {
            return Ok(ours);
        }
        let options = wanted.options(self.effective_namespaces(wanted).await?);
        let is_known = ours.is_some();
        let theirs = off_thread(move || {
            let drawing = scenery.drawing.as_ref()?;
            // What is ours has left the map meanwhile.
            let is_there = is_known || drawing.finds(view, &id) == Some(false);
            is_there.then(|| drawing.details(view, &id, &options).map(Box::new)).flatten()
        })
        .await?;
        let details = match (ours, theirs) {
            (ours, None) => return Ok(ours),
            (None, Some(theirs)) => theirs,
            (Some(mut ours), Some(theirs)) => {
                merging::details(&mut ours, *theirs);
                ours
            }
        };
        // Neighbours of the other side are known there by their ids alone.
        let picture = self.snapshot(wanted).await?;
        Ok(Some(Box::new(merging::with_labels(*details, &picture))))
    }

    async fn effective_namespaces(&self, wanted: &Wanted) -> Result<Option<BTreeSet<Arc<str>>>, Stopped> {
        if wanted.names_namespaces() { Ok(wanted.namespaces(&self.namespaces().await?)) } else { Ok(None) }
    }

    async fn compose(&self, base: Arc<ViewSnapshot>, scenery: Arc<Scenery>, wanted: &Wanted) -> Result<Arc<ViewSnapshot>, Stopped> {
        let namespaces = self.effective_namespaces(wanted).await?;
        let label = wanted.label_filter(&self.labels).cloned();
        if scenery.drawing.is_none() && namespaces.is_none() && label.is_none() {
            return Ok(base);
        }
        let cell = self.cell(&base, scenery.generation, wanted);
        let picture = cell
            .get_or_try_init(async || {
                // What the filter of unconnected processes hides may be connected to something of old probes.
                let hides_unconnected = wanted.key.filter.hide_unconnected && scenery.drawing.is_some();
                let whole = match hides_unconnected {
                    true => {
                        let filter = Filter { hide_unconnected: false, ..wanted.key.filter };
                        self.topology.snapshot(ViewKey { filter, ..wanted.key }).await?
                    }
                    false => base.clone(),
                };
                let (view, options, base) = (wanted.key.view, wanted.options(namespaces.clone()), base.clone());
                off_thread(move || {
                    let overlay = scenery.drawing.as_ref().map(|drawing| drawing.overlay(view, &options)).unwrap_or_default();
                    let mut picture = composed(&base, &whole, overlay, namespaces.as_ref());
                    if let Some(label) = label {
                        keep(&mut picture, |node| label.keeps(node));
                    }
                    Arc::new(picture)
                })
                .await
            })
            .await?;
        Ok(picture.clone())
    }

    fn cell(&self, base: &Arc<ViewSnapshot>, generation: u64, wanted: &Wanted) -> Arc<OnceCell<Arc<ViewSnapshot>>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |entry: &&Entry| entry.base.as_ptr() == Arc::as_ptr(base) && entry.generation == generation && entry.wanted == *wanted;
        if let Some(entry) = cache.iter().rev().find(is_it) {
            return entry.picture.clone();
        }
        if cache.len() == CACHE_CAPACITY {
            cache.pop_front();
        }
        let picture = Arc::default();
        cache.push_back(Entry { base: Arc::downgrade(base), generation, wanted: wanted.clone(), picture: Arc::clone(&picture) });
        picture
    }
}

/// A picture that is followed.
#[derive(Debug)]
pub(super) struct Feed {
    scenes: Scenes,
    wanted: Wanted,
    base: Subscription,
    scenery: watch::Receiver<Arc<Scenery>>,
    /// What was seen last of either side.
    structure: u64,
    urgent: u64,
}

impl Feed {
    /// The picture as it is now.
    pub(super) async fn current(&mut self) -> Result<Arc<ViewSnapshot>, Stopped> {
        let base = self.base.snapshots.borrow_and_update().clone();
        let scenery = self.scenery.borrow_and_update().clone();
        self.structure = base.structure_version;
        self.urgent = scenery.urgent;
        self.scenes.compose(base, scenery, &self.wanted).await
    }

    /// Waits until something came or went that a client should not have to wait for.
    pub(super) async fn urgent(&mut self) -> Result<(), Stopped> {
        loop {
            tokio::select! {
                changed = self.base.snapshots.changed() => {
                    changed.map_err(|_| Stopped)?;
                    if self.base.snapshots.borrow_and_update().structure_version != self.structure {
                        return Ok(());
                    }
                }
                changed = self.scenery.changed() => {
                    changed.map_err(|_| Stopped)?;
                    if self.scenery.borrow_and_update().urgent != self.urgent {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// The map's picture with the nodes of old probes in it, and of all that what is in some namespaces. `whole` has nodes that `base` hides only
/// because nothing on the map connects them.
pub(super) fn composed(
    base: &ViewSnapshot,
    whole: &ViewSnapshot,
    overlay: Overlay,
    namespaces: Option<&BTreeSet<Arc<str>>>,
) -> ViewSnapshot {
    let mut picture = base.clone();
    if let Some(wanted) = namespaces {
        keep_namespaces(&mut picture, wanted);
    }
    let mut hasher = DefaultHasher::new();
    let targets: BTreeSet<NodeId> = overlay.items.values().flat_map(|item| item.summary.adjacency.iter().cloned()).collect();
    let mut touched = BTreeMap::new();
    for (id, item) in overlay.items {
        let summary = item.summary;
        let known = picture.nodes.get(&id).or_else(|| {
            let is_connected = targets.contains(&id) || !summary.adjacency.is_empty();
            whole.nodes.get(&id).filter(|_| item.is_ours && is_connected)
        });
        let merged = match known {
            Some(known) => merging::summary(known.summary(), &summary, item.uncounted),
            // Hidden by a filter of the map's.
            None if item.is_ours => continue,
            None => summary,
        };
        touched.insert(id, merged);
    }
    let is_there = |nodes: &OrdMap<NodeId, PublishedNode>, touched: &BTreeMap<NodeId, NodeSummary>, id: &NodeId| {
        nodes.contains_key(id) || touched.contains_key(id)
    };
    let ids: Vec<NodeId> = touched.keys().cloned().collect();
    for id in &ids {
        let Some(mut summary) = touched.remove(id) else { continue };
        summary.adjacency.retain(|target| target == id || is_there(&picture.nodes, &touched, target));
        touched.insert(id.clone(), summary);
    }
    // What stands for the outside, and is connected to nothing any more.
    let connected: BTreeSet<NodeId> = touched
        .iter()
        .flat_map(|(id, summary)| {
            summary.adjacency.iter().filter(move |target| *target != id).flat_map(move |target| [id.clone(), target.clone()])
        })
        .collect();
    for (id, summary) in touched {
        if summary.pseudo && !picture.nodes.contains_key(&id) && !connected.contains(&id) {
            picture.stats.filtered_nodes += 1;
            continue;
        }
        (&id, &summary.adjacency).hash(&mut hasher);
        count(&mut picture.stats, &summary, true);
        if let Some(old) = picture.nodes.insert(id, PublishedNode::new(summary)) {
            count(&mut picture.stats, old.summary(), false);
        }
    }
    picture.stats.filtered_nodes += overlay.stats.filtered_nodes;
    picture.structure_version = hasher.finish() ^ base.structure_version;
    picture
}

fn count(stats: &mut ViewStats, summary: &NodeSummary, comes: bool) {
    let change = |count: &mut u64, by: u64| *count = if comes { count.saturating_add(by) } else { count.saturating_sub(by) };
    change(&mut stats.node_count, 1);
    change(&mut stats.nonpseudo_node_count, u64::from(!summary.pseudo));
    change(&mut stats.edge_count, summary.adjacency.len() as u64);
}

/// Leaves nodes of some namespaces, the edges between them, and what of the outside is connected to them.
fn keep_namespaces(picture: &mut ViewSnapshot, wanted: &BTreeSet<Arc<str>>) {
    keep(picture, |summary| summary.pseudo || wanted.contains(namespace(summary)));
}

/// Leaves some nodes, the edges between them, and what of the outside is connected to them.
pub(super) fn keep(picture: &mut ViewSnapshot, keeps: impl Fn(&NodeSummary) -> bool) {
    let kept: BTreeSet<NodeId> = picture.nodes.iter().filter(|(_, node)| keeps(node.summary())).map(|(id, _)| id.clone()).collect();
    let edges = |node: &PublishedNode| node.summary().adjacency.iter().filter(|target| kept.contains(*target)).cloned().collect::<Vec<_>>();
    let mut connected = BTreeSet::new();
    for id in &kept {
        let targets = picture.nodes.get(id).map(edges).unwrap_or_default();
        for target in targets.into_iter().filter(|target| target != id) {
            connected.insert(id.clone());
            connected.insert(target);
        }
    }
    let old = std::mem::take(&mut picture.nodes);
    let (before, mut stats) = (old.len() as u64, ViewStats { filtered_nodes: picture.stats.filtered_nodes, ..ViewStats::default() });
    for (id, node) in &old {
        let summary = node.summary();
        if !kept.contains(id) || (summary.pseudo && !connected.contains(id)) {
            continue;
        }
        let adjacency = edges(node);
        let node = if adjacency.len() == summary.adjacency.len() {
            node.clone()
        } else {
            PublishedNode::new(NodeSummary { adjacency, ..summary.clone() })
        };
        count(&mut stats, node.summary(), true);
        picture.nodes.insert(id.clone(), node);
    }
    stats.filtered_nodes += before.saturating_sub(stats.node_count);
    picture.stats = stats;
}

/// The namespace that a node is in; empty for none.
fn namespace(summary: &NodeSummary) -> &str {
    let row = summary.metadata.iter().find(|row| row.id == "kubernetes_namespace");
    let labels = || summary.tables.iter().filter(|table| table.id == "docker_label_").flat_map(|table| &table.rows);
    let label = |key: &'static str| labels().find(|(label, _)| &**label == key).map(|(_, value)| &**value);
    let found = row.map(|row| &*row.value).or_else(|| label("io.kubernetes.pod.namespace"));
    found.or_else(|| label("com.docker.stack.namespace")).unwrap_or("No stack")
}

/// Work that would hold up others where they run.
pub(super) async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Stopped> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => Ok(outcome),
        Err(panic) => match panic.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime shuts down.
            Err(_) => Err(Stopped),
        },
    }
}

/// Pictures of all views for one query, in the order of [`View::ALL`].
pub(super) fn all_views(query: &crate::http::query::Query) -> Vec<Wanted> {
    View::ALL.into_iter().map(|view| Wanted::new(view, query)).collect()
}

#[cfg(test)]
mod tests;
