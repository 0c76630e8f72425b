//! Everything that is known of the cluster, kept so that one event costs what it changes: which pods a service selects is found by label, and
//! who selects a pod by the same labels; nothing walks all pods.
//!
//! What follows from the objects is a function of the objects alone, never of the order in which they came.
//!
//! The index is also the queue: what the receiver was not told yet is a set of ids, so a slow receiver gets every object's newest state once,
//! and the objects that came and went unseen not at all.

use std::collections::{BTreeMap, BTreeSet};

use crate::controls::Place;
use crate::index::namespace::{Namespace, SelectorId};
use crate::kind::Kind;
use crate::objects::{Details, Facts, Uid};
use crate::selector::Selector;

mod endpoints;
mod namespace;
mod postings;
mod telling;

pub use endpoints::ENDPOINTS_MAX;
pub use telling::Changes;

/// What the index may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Objects of one kind; a pod takes about 2.2 kB (`tests/memory.rs`). Those that come when it is full are refused and counted; a later list takes them in when there is room again.
    pub objects_per_kind: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { objects_per_kind: 150_000 }
    }
}

/// The cluster, as far as it was seen.
#[derive(Debug)]
pub struct Index {
    limits: Limits,
    kinds: BTreeMap<Kind, Table>,
    namespaces: BTreeMap<Box<str>, Namespace>,
    /// Pods by the replica set or job that owns them, whether or not that is known.
    owned: BTreeMap<Uid, BTreeSet<Uid>>,
    changed: BTreeSet<(Kind, Uid)>,
    /// Only what the receiver was told of. Ordered so that what is owned goes first.
    gone: BTreeSet<(std::cmp::Reverse<Kind>, Uid)>,
    /// Grows whenever the receiver has forgotten everything.
    telling: u64,
}

#[derive(Debug, Default)]
struct Table {
    entries: BTreeMap<Uid, Entry>,
    /// Grows with every list that begins.
    listing: u64,
    /// The lists that are under way, by namespace; "" is a list of all. Each has the number with which it began.
    lists: BTreeMap<Box<str>, u64>,
    refused: u64,
    cut: u64,
}

#[derive(Debug)]
struct Entry {
    facts: Facts,
    parents: Box<[Uid]>,
    /// The latest list that had begun when it was last seen.
    listing: u64,
    /// When the receiver was last told of it, as [`Index::telling`] counts.
    told: u64,
}

impl Default for Index {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Index {
    /// An empty one.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            kinds: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            owned: BTreeMap::new(),
            changed: BTreeSet::new(),
            gone: BTreeSet::new(),
            telling: 1,
        }
    }

    /// Where the object with an id is.
    pub fn place(&self, uid: &str) -> Option<Place> {
        let uid = Uid::from(uid);
        let entry = self.kinds.values().find_map(|table| table.entries.get(&uid))?;
        let Facts { kind, namespace, name, .. } = &entry.facts;
        Some(Place { kind: *kind, namespace: namespace.clone(), name: name.clone(), uid })
    }

    /// Where the pod is that has a container. It looks through all pods: for what people ask, not for events.
    pub fn pod_of_container(&self, id: &str) -> Option<Place> {
        let has_it = |entry: &&Entry| matches!(&entry.facts.details, Details::Pod(pod) if pod.container_ids.iter().any(|it| **it == *id));
        let pod = self.kinds.get(&Kind::Pod)?.entries.values().find(has_it)?;
        self.place(&pod.facts.uid)
    }

    /// An object is new, or has changed, or was listed again.
    pub fn apply(&mut self, facts: Facts) {
        let table = self.kinds.entry(facts.kind).or_default();
        let is_full = table.entries.len() >= self.limits.objects_per_kind;
        match table.entries.get_mut(&facts.uid) {
            Some(entry) if entry.facts == facts => entry.listing = table.listing,
            Some(_) => self.replace(facts),
            None if is_full => table.refused = table.refused.saturating_add(1),
            None => self.insert(facts),
        }
    }

    /// An object is gone.
    pub fn delete(&mut self, kind: Kind, uid: &Uid) {
        let Some(entry) = self.kinds.get_mut(&kind).and_then(|table| table.entries.remove(uid)) else { return };
        self.changed.remove(&(kind, uid.clone()));
        if entry.told == self.telling {
            self.gone.insert((std::cmp::Reverse(kind), uid.clone()));
        }
        self.touch_service_of(&entry.facts);
        let affected = self.unlink(&entry.facts);
        self.resolve(affected);
    }

    /// A list of a kind begins, of one namespace or of all. Nothing is gone yet.
    pub fn begin_list(&mut self, kind: Kind, namespace: Option<&str>) {
        let table = self.kinds.entry(kind).or_default();
        table.listing += 1;
        table.lists.insert(namespace.unwrap_or_default().into(), table.listing);
    }

    /// The list has ended: what it did not have is gone.
    pub fn end_list(&mut self, kind: Kind, namespace: Option<&str>) {
        let Some(table) = self.kinds.get_mut(&kind) else { return };
        let Some(begun) = table.lists.remove(namespace.unwrap_or_default()) else { return };
        let listed = table.entries.values().filter(|entry| namespace.is_none_or(|namespace| *entry.facts.namespace == *namespace));
        let unseen = listed.filter(|entry| entry.listing < begun);
        for uid in unseen.map(|entry| entry.facts.uid.clone()).collect::<Vec<_>>() {
            self.delete(kind, &uid);
        }
    }

    /// How many of this kind it holds.
    pub fn len(&self, kind: Kind) -> usize {
        self.kinds.get(&kind).map_or(0, |table| table.entries.len())
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.kinds.values().all(|table| table.entries.is_empty())
    }

    /// How often an object of this kind was refused because the kind was full.
    pub fn refused(&self, kind: Kind) -> u64 {
        self.kinds.get(&kind).map_or(0, |table| table.refused)
    }

    /// How often an object of this kind came with more labels, terms, ports, … than are kept.
    pub fn cut(&self, kind: Kind) -> u64 {
        self.kinds.get(&kind).map_or(0, |table| table.cut)
    }

    fn insert(&mut self, facts: Facts) {
        let (kind, uid) = (facts.kind, facts.uid.clone());
        let told = if self.gone.remove(&(std::cmp::Reverse(kind), uid.clone())) { self.telling } else { 0 };
        let affected = self.link(&facts);
        let parents = self.parents(&facts);
        self.touch_service_of(&facts);
        let table = self.kinds.entry(kind).or_default();
        table.cut = table.cut.saturating_add(u64::from(facts.cut));
        table.entries.insert(uid.clone(), Entry { facts, parents, listing: table.listing, told });
        self.touch(kind, uid);
        self.resolve(affected);
    }

    /// An object that is known has changed. What others see of it is only linked anew when that has changed: a pod's status changes often, its
    /// labels hardly ever.
    fn replace(&mut self, facts: Facts) {
        let (kind, uid) = (facts.kind, facts.uid.clone());
        let Some(table) = self.kinds.get_mut(&kind) else { return };
        table.cut = table.cut.saturating_add(u64::from(facts.cut));
        let listing = table.listing;
        let Some(entry) = table.entries.get_mut(&uid) else { return };
        entry.listing = listing;
        let old = std::mem::replace(&mut entry.facts, facts.clone());
        if !shown_alike(&old, &facts) {
            self.touch(kind, uid.clone());
            self.touch_service_of(&old);
            self.touch_service_of(&facts);
        }
        if linked_alike(&old, &facts) {
            return;
        }
        let mut affected = self.unlink(&old);
        affected.append(&mut self.link(&facts));
        self.set_parents(kind, &uid, self.parents(&facts));
        self.resolve(affected);
    }

    /// Makes an object found by what it selects, owns and is selected by. The pods for which that may change something.
    fn link(&mut self, facts: &Facts) -> BTreeSet<Uid> {
        if facts.kind == Kind::Pod {
            self.namespace(facts).add_pod(&facts.uid, &facts.labels);
            for owner in middlemen(facts) {
                self.owned.entry(owner.clone()).or_default().insert(facts.uid.clone());
            }
            return BTreeSet::new();
        }
        match (&facts.details, facts.kind) {
            (Details::Endpoints(slice), _) => self.namespace(facts).add_slice(&slice.service, &facts.uid),
            (_, Kind::Service) => self.namespace(facts).add_service(&facts.name, &facts.uid),
            _ => {}
        }
        let mut affected = self.owned_by(facts);
        if let Some(selector) = &facts.selector {
            self.namespace(facts).add_selector((facts.kind, facts.uid.clone()), selector);
            affected.append(&mut self.selected(&facts.namespace, selector));
        }
        affected
    }

    /// Undoes [`Self::link`].
    fn unlink(&mut self, facts: &Facts) -> BTreeSet<Uid> {
        let mut affected = BTreeSet::new();
        if facts.kind == Kind::Pod {
            for owner in middlemen(facts) {
                if let Some(pods) = self.owned.get_mut(owner) {
                    pods.remove(&facts.uid);
                    if pods.is_empty() {
                        self.owned.remove(owner);
                    }
                }
            }
        } else {
            affected = self.owned_by(facts);
            if let Some(selector) = &facts.selector {
                affected.append(&mut self.selected(&facts.namespace, selector));
            }
        }
        if let Some(namespace) = self.namespaces.get_mut(&facts.namespace) {
            match (&facts.details, facts.kind) {
                (_, Kind::Pod) => namespace.remove_pod(&facts.uid, &facts.labels),
                (Details::Endpoints(slice), _) => namespace.remove_slice(&slice.service, &facts.uid),
                (_, kind) => namespace.remove_selector(&(kind, facts.uid.clone())),
            }
            if facts.kind == Kind::Service {
                namespace.remove_service(&facts.name, &facts.uid);
            }
            if namespace.is_empty() {
                self.namespaces.remove(&facts.namespace);
            }
        }
        affected
    }

    fn owned_by(&self, facts: &Facts) -> BTreeSet<Uid> {
        match facts.kind {
            Kind::ReplicaSet | Kind::Job => self.owned.get(&facts.uid).cloned().unwrap_or_default(),
            _ => BTreeSet::new(),
        }
    }

    /// The pods in a namespace that a selector selects.
    fn selected(&self, namespace: &str, selector: &Selector) -> BTreeSet<Uid> {
        let Some(namespace) = self.namespaces.get(namespace) else { return BTreeSet::new() };
        let Some(pods) = self.kinds.get(&Kind::Pod) else { return BTreeSet::new() };
        let candidates = namespace.candidates(selector).iter();
        let selected = candidates.filter(|uid| pods.entries.get(*uid).is_some_and(|pod| selector.matches(&pod.facts.labels)));
        selected.cloned().collect()
    }

    /// Finds the parents of these pods anew.
    fn resolve(&mut self, pods: BTreeSet<Uid>) {
        for uid in pods {
            let Some(entry) = self.entry(Kind::Pod, &uid) else { continue };
            let parents = self.parents(&entry.facts);
            self.set_parents(Kind::Pod, &uid, parents);
        }
    }

    fn set_parents(&mut self, kind: Kind, uid: &Uid, parents: Box<[Uid]>) {
        if let Some(entry) = self.kinds.get_mut(&kind).and_then(|table| table.entries.get_mut(uid))
            && entry.parents != parents
        {
            entry.parents = parents;
            self.touch(kind, uid.clone());
        }
    }

    /// What selects and owns an object. A pod's controllers are those that own it; selectors answer for pods that none owns (as yet, or as far
    /// as the collector may see), because with overlapping selectors they would claim the pods of others.
    fn parents(&self, facts: &Facts) -> Box<[Uid]> {
        let mut parents = BTreeSet::new();
        if facts.kind != Kind::Pod {
            return facts.owners.iter().map(|owner| owner.uid.clone()).collect::<BTreeSet<_>>().into_iter().collect();
        }
        self.owners(facts, &mut parents);
        let is_owned = !parents.is_empty();
        for (kind, uid) in self.selectors_of(facts) {
            if *kind == Kind::Service {
                parents.insert(uid.clone());
            } else if !is_owned {
                parents.insert(uid.clone());
                self.owners_of_middleman(Kind::Job, uid, &mut parents);
            }
        }
        parents.into_iter().collect()
    }

    fn owners(&self, facts: &Facts, into: &mut BTreeSet<Uid>) {
        for owner in &facts.owners {
            if owner.kind.controls_pods() {
                into.insert(owner.uid.clone());
            }
            self.owners_of_middleman(owner.kind, &owner.uid, into);
        }
    }

    /// The deployment of a replica set, the cron job of a job.
    fn owners_of_middleman(&self, kind: Kind, uid: &Uid, into: &mut BTreeSet<Uid>) {
        if matches!(kind, Kind::ReplicaSet | Kind::Job)
            && let Some(entry) = self.entry(kind, uid)
        {
            let above = entry.facts.owners.iter().filter(|owner| matches!(owner.kind, Kind::Deployment | Kind::CronJob));
            into.extend(above.map(|owner| owner.uid.clone()));
        }
    }

    fn selectors_of(&self, pod: &Facts) -> impl Iterator<Item = &SelectorId> {
        self.namespaces.get(&pod.namespace).into_iter().flat_map(|namespace| namespace.selectors_of(&pod.labels))
    }

    fn entry(&self, kind: Kind, uid: &Uid) -> Option<&Entry> {
        self.kinds.get(&kind)?.entries.get(uid)
    }

    fn namespace(&mut self, facts: &Facts) -> &mut Namespace {
        self.namespaces.entry(facts.namespace.clone()).or_default()
    }
}

/// Owners that are resolved to their own owners.
fn middlemen(pod: &Facts) -> impl Iterator<Item = &Uid> {
    pod.owners.iter().filter(|owner| matches!(owner.kind, Kind::ReplicaSet | Kind::Job)).map(|owner| &owner.uid)
}

/// Whether two states of one object stand in the same relations.
fn linked_alike(old: &Facts, new: &Facts) -> bool {
    let labels_alike = old.kind != Kind::Pod || old.labels == new.labels;
    let names_alike = old.namespace == new.namespace && (old.kind != Kind::Service || old.name == new.name);
    labels_alike && names_alike && service_of(old) == service_of(new) && old.owners == new.owners && old.selector == new.selector
}

/// The service that a slice is a part of.
fn service_of(facts: &Facts) -> Option<&str> {
    match &facts.details {
        Details::Endpoints(slice) => Some(&slice.service),
        _ => None,
    }
}

/// Whether two states of one object are told alike, but for their parents.
fn shown_alike(old: &Facts, new: &Facts) -> bool {
    let names_alike = old.name == new.name && old.namespace == new.namespace && old.created_at_unix_nanos == new.created_at_unix_nanos;
    names_alike && old.labels == new.labels && old.details == new.details
}
