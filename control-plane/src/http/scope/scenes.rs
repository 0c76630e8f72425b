//! Pictures as clients see them: what the map shows, and what old probes reported beside it.
//!
//! While there is no old probe, and no namespace is asked for, a picture is the map's own and costs nothing here. Otherwise it is the map's
//! picture with the other nodes put in: what is the same stays shared, and clients who look at the same thing share the result.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OnceCell, watch};
use topology::{Details, Filter, NodeId, View, ViewKey, ViewSnapshot, ViewStats};

use self::composing::{composed, composed_stats, keep};
use super::labels::LabelFilter;
use super::merging;
use super::views::{Namespaces, Wanted};
use crate::drivers::{OldProbesHandle, Scenery, Stopped, Subscription, TopologyHandle};
use crate::http::Context;

pub(super) mod composing;

/// Pictures, and numbers, that are known to clients who ask for the same.
const CACHE_CAPACITY: usize = 256;

/// Makes pictures.
#[derive(Clone, Debug)]
pub(super) struct Scenes {
    topology: TopologyHandle,
    old_probes: OldProbesHandle,
    labels: Arc<[LabelFilter]>,
    pictures: Arc<Cache<SharedPicture>>,
    stats: Arc<Cache<OnceCell<ViewStats>>>,
}

/// A picture for as long as anybody looks at it: whoever follows one holds it, and whoever comes meanwhile gets the same.
type SharedPicture = tokio::sync::Mutex<Weak<ViewSnapshot>>;

/// What was made last.
#[derive(Debug, Default)]
struct Cache<T> {
    entries: Mutex<VecDeque<Entry<T>>>,
}

/// Something that was made, and of what. Snapshots are told apart by their place in memory, which the weak pointer keeps from being used again.
#[derive(Debug)]
struct Entry<T> {
    base: Weak<ViewSnapshot>,
    generation: u64,
    wanted: Wanted,
    made: Arc<T>,
}

impl<T: Default> Cache<T> {
    /// Where it is, or where it is to be put. What nobody can ask for any more makes room.
    fn cell(&self, base: &Arc<ViewSnapshot>, generation: u64, wanted: &Wanted) -> Arc<T> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it =
            |entry: &&Entry<T>| entry.base.as_ptr() == Arc::as_ptr(base) && entry.generation == generation && entry.wanted == *wanted;
        if let Some(entry) = entries.iter().rev().find(is_it) {
            return entry.made.clone();
        }
        entries.retain(|entry| entry.base.strong_count() > 0 && entry.generation >= generation);
        if entries.len() == CACHE_CAPACITY {
            entries.pop_front();
        }
        let made = Arc::default();
        entries.push_back(Entry { base: Arc::downgrade(base), generation, wanted: wanted.clone(), made: Arc::clone(&made) });
        made
    }
}

impl Scenes {
    pub(super) fn new(context: &Context) -> Self {
        let Context { topology, old_probes, label_filters, .. } = context;
        let (topology, old_probes, labels) = (topology.clone(), old_probes.clone(), label_filters.clone());
        Scenes { topology, old_probes, labels, pictures: Arc::default(), stats: Arc::default() }
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
            stats.push(self.stats_of(&wanted).await?);
        }
        Ok(stats)
    }

    async fn stats_of(&self, wanted: &Wanted) -> Result<ViewStats, Stopped> {
        // Namespaces and labels are told from the nodes themselves.
        if wanted.is_cut() {
            return Ok(self.snapshot(wanted).await?.stats);
        }
        let base = self.topology.snapshot(wanted.key).await?;
        let scenery = self.old_probes.scenery();
        if scenery.drawing.is_none() {
            return Ok(base.stats);
        }
        let cell = self.stats.cell(&base, scenery.generation, wanted);
        let stats = cell.get_or_try_init(async || {
            let whole = self.whole(&base, &scenery, wanted).await?;
            let (view, options, base) = (wanted.key.view, wanted.options(None), base.clone());
            off_thread(move || {
                let outlines = scenery.drawing.as_ref().map(|drawing| drawing.outlines(view, &options));
                let (outlines, filtered) = outlines.unwrap_or_default();
                composed_stats(&base, &whole, outlines, filtered)
            })
            .await
        });
        stats.await.copied()
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
        let namespaces = self.effective_namespaces(wanted).await?;
        let is_cut = namespaces.is_some() || wanted.label_filter(&self.labels).is_some();
        if scenery.drawing.is_none() && !is_cut {
            return Ok(ours);
        }
        let options = wanted.options(namespaces);
        let is_known = ours.is_some();
        let theirs = off_thread(move || {
            let drawing = scenery.drawing.as_ref()?;
            // What is ours has left the map meanwhile.
            let is_there = is_known || drawing.finds(view, &id) == Some(false);
            is_there.then(|| drawing.details(view, &id, &options).map(Box::new)).flatten()
        })
        .await?;
        let is_ours_alone = theirs.is_none();
        let details = match (ours, theirs) {
            (None, None) => return Ok(None),
            (Some(ours), None) => ours,
            (None, Some(theirs)) => theirs,
            (Some(mut ours), Some(theirs)) => {
                merging::details(&mut ours, *theirs);
                ours
            }
        };
        if is_ours_alone && !is_cut {
            return Ok(Some(details));
        }
        // Neighbours of the other side are known there by their ids alone.
        let picture = self.snapshot(wanted).await?;
        let details = merging::with_labels(*details, &picture);
        Ok(Some(Box::new(if is_cut { merging::within(details, &picture) } else { details })))
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
        let cell = self.pictures.cell(&base, scenery.generation, wanted);
        // Who comes for the same waits for whoever makes it.
        let mut shared = cell.lock().await;
        if let Some(picture) = shared.upgrade() {
            return Ok(picture);
        }
        let whole = self.whole(&base, &scenery, wanted).await?;
        let (view, options) = (wanted.key.view, wanted.options(namespaces.clone()));
        let picture = off_thread(move || {
            let overlay = scenery.drawing.as_ref().map(|drawing| drawing.overlay(view, &options)).unwrap_or_default();
            let mut picture = composed(&base, &whole, &overlay, namespaces.as_ref());
            if let Some(label) = label {
                keep(&mut picture, |node| label.keeps(node));
            }
            Arc::new(picture)
        })
        .await?;
        *shared = Arc::downgrade(&picture);
        Ok(picture)
    }

    /// What the filter of unconnected processes hides may be connected to something of old probes: the picture without that filter.
    async fn whole(&self, base: &Arc<ViewSnapshot>, scenery: &Scenery, wanted: &Wanted) -> Result<Arc<ViewSnapshot>, Stopped> {
        if !wanted.key.filter.hide_unconnected || scenery.drawing.is_none() {
            return Ok(base.clone());
        }
        let filter = Filter { hide_unconnected: false, ..wanted.key.filter };
        self.topology.snapshot(ViewKey { filter, ..wanted.key }).await
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
mod tests {
    use super::*;
    use crate::http::query::Query;

    fn wanted(query: &str) -> Wanted {
        Wanted::new(View::Hosts, &Query::parse(Some(query)))
    }

    #[tokio::test]
    async fn a_picture_that_nobody_looks_at_any_more_takes_no_room() {
        let cache: Cache<SharedPicture> = Cache::default();
        let base = Arc::new(ViewSnapshot::default());
        let picture = Arc::new(ViewSnapshot::default());
        *cache.cell(&base, 1, &wanted("")).lock().await = Arc::downgrade(&picture);
        let again = cache.cell(&base, 1, &wanted("")).lock().await.upgrade();
        assert!(again.is_some_and(|again| Arc::ptr_eq(&again, &picture)));
        assert_eq!(Arc::strong_count(&picture), 1);
        drop(picture);
        assert!(cache.cell(&base, 1, &wanted("")).lock().await.upgrade().is_none());
    }

    #[test]
    fn what_nobody_can_ask_for_any_more_is_forgotten() {
        let cache: Cache<OnceCell<ViewStats>> = Cache::default();
        let len = || cache.entries.lock().unwrap().len();
        let (first, second) = (Arc::new(ViewSnapshot::default()), Arc::new(ViewSnapshot::default()));
        for query in ["", "t=1s", "pseudo=show"] {
            cache.cell(&first, 1, &wanted(query));
            cache.cell(&second, 1, &wanted(query));
        }
        assert_eq!(len(), 6);
        // The map has gone on.
        drop(first);
        cache.cell(&second, 1, &wanted("stopped=both"));
        assert_eq!(len(), 4);
        // Old probes have reported.
        cache.cell(&second, 2, &wanted(""));
        assert_eq!(len(), 1);
    }
}
